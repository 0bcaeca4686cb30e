//! On what it was measured.

use std::fs;

use crate::program::Program;

/// Returns lines that name the processor, the system and the compiler; a line is absent if nobody can tell.
pub(super) fn describe() -> Vec<String> {
    let cpu = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| cpu(&text));
    let output = |name: &str, arguments: &[&str]| {
        let output = Program::new(name).arguments(arguments).output();
        output.ok().map(|text| text.trim().to_owned())
    };
    let kernel = output("uname", &["-sr"]);
    let rust = output("rustc", &["--version"]);
    let revision = output("git", &["rev-parse", "--short=12", "HEAD"]);
    let revision = revision.map(|revision| format!("Hookwire at {revision}"));
    [cpu, kernel, rust, revision].into_iter().flatten().collect()
}

/// Reads the number and the name of the processors from `/proc/cpuinfo` (proc(5)).
fn cpu(text: &str) -> Option<String> {
    let mut names = text.lines().filter(|line| line.starts_with("model name"));
    let count = names.clone().count();
    let (_, name) = names.next_back()?.split_once(':')?;
    Some(format!("{count} × {}", name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted_and_named() {
        let text = "processor: 0\nmodel name\t: Some CPU @ 2 GHz\n\nprocessor: 1\nmodel name\t: Some CPU @ 2 GHz\n";
        assert_eq!(cpu(text).unwrap(), "2 × Some CPU @ 2 GHz");
        assert_eq!(cpu("nothing"), None);
    }
}
