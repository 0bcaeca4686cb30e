//! Embeds the console's page again after it was built. Without optimisation it is read from disk at run time instead.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("PROFILE").as_deref() == Ok("release") {
        println!("cargo::rerun-if-changed=../../web/dist/console");
    }
}
