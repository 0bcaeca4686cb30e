//! Makes the folders that are embedded, and has them embedded again when they change.
//!
//! Where they are is settled when this crate is compiled, so they must exist then, even if they are still empty.

use std::path::Path;

fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    for page in ["chat", "console"] {
        let folder = Path::new("../../web/dist").join(page);
        std::fs::create_dir_all(&folder)?;
        // A build without optimisation reads the files when they are asked for.
        if std::env::var_os("PROFILE").is_some_and(|profile| profile == "release") {
            println!("cargo::rerun-if-changed={}", folder.display());
        }
    }
    Ok(())
}
