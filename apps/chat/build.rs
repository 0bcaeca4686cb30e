//! Embeds the pages again after they were built. Without optimisation they are read from disk at run time instead.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("PROFILE").as_deref() == Ok("release") {
        println!("cargo::rerun-if-changed=../../web/dist/chat");
    }
}
