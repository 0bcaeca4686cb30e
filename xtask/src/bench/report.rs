//! What came of it: tables, JSON, and a chart.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::others::{Cell, Compared};
use super::{Figures, Outcome};

/// Everything that was measured.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) machine: Vec<String>,
    pub(super) outcomes: Vec<Outcome>,
    /// Hookwire first.
    pub(super) others: Vec<Compared>,
}

/// Returns the cases that the document in a folder has.
///
/// # Errors
/// There is none, or it is of another machine or revision.
pub(super) fn kept(folder: &Path, machine: &[String]) -> anyhow::Result<Vec<Outcome>> {
    let path = folder.join("performance.json");
    let text =
        fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
    let value: Value = serde_json::from_str(&text)?;
    ensure!(
        value["machine"] == json!(machine),
        "{} is of another machine or revision",
        path.display()
    );
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let outcome = |case: &Value| Outcome {
        group: text(&case["group"]),
        name: text(&case["case"]),
        command: text(&case["command"]),
        figures: Figures::of_json(&case["figures"]),
    };
    Ok(value["cases"].as_array().into_iter().flatten().map(outcome).collect())
}

impl Report {
    /// Writes the document, its figures and its chart into a folder.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(super) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let mut files = vec![("performance.json", self.json())];
        let mut document = format!("{INTRODUCTION}\n");
        if let Some(chart) = self.chart() {
            document += "![CPU time of a delivery: Hookwire, other servers, and the kernel's floor](performance.svg)\n\n";
            files.push(("performance.svg", chart));
        }
        document += &self.markdown();
        files.push(("performance.md", document));
        for (name, text) in files {
            let path = folder.join(name);
            fs::write(&path, text)
                .with_context(|| format!("could not write {}", path.display()))?;
            println!("{} is written.", path.display());
        }
        Ok(())
    }

    /// Returns the tables.
    pub(super) fn markdown(&self) -> String {
        let mut text = String::from("## The machine\n\n");
        for line in &self.machine {
            let _ = writeln!(text, "- {line}");
        }
        let mut groups: Vec<&str> = Vec::new();
        for outcome in &self.outcomes {
            if !groups.contains(&&*outcome.group) {
                groups.push(&outcome.group);
            }
        }
        for group in groups {
            let _ = write!(
                text,
                "\n## {group}\n\n| case | CPU µs | floor µs | ratio | per second | p50 ms | p99 ms | bytes |\n|---|---|---|---|---|---|---|---|\n"
            );
            for outcome in self.outcomes.iter().filter(|outcome| outcome.group == group) {
                let cells = cells(outcome.figures).join(" | ");
                let _ = writeln!(text, "| {} | {cells} |", outcome.name);
            }
        }
        if !self.others.is_empty() {
            text += "\n## Other servers\n";
            self.compare(&mut text);
        }
        text
    }

    fn compare(&self, text: &mut String) {
        for (at, name) in self.comparisons().into_iter().enumerate() {
            let _ = write!(
                text,
                "\n### {name}\n\n| server | CPU µs | floor µs | ratio | per second | p50 ms | p99 ms |\n|---|---|---|---|---|---|---|\n"
            );
            let mut failed = String::new();
            for (server, cell) in self.column(at) {
                match cell {
                    // It takes no part.
                    Ok(figures) if *figures == Figures::default() => {}
                    Ok(figures) => {
                        let cells = cells(*figures);
                        let _ = writeln!(text, "| {server} | {} |", cells[..6].join(" | "));
                    }
                    Err(reason) => {
                        let _ = writeln!(failed, "- {server} failed: {reason}");
                    }
                }
            }
            if !failed.is_empty() {
                let _ = write!(text, "\n{failed}");
            }
        }
        text.push_str("\n### How they are set up\n\n");
        for Compared { server, settings, versions, cells } in &self.others {
            let versions =
                if versions.is_empty() { String::new() } else { format!(" ({versions})") };
            let _ = match cells {
                Ok(_) => writeln!(text, "- {server}{versions}: {settings}."),
                Err(reason) => writeln!(text, "- {server} is absent: {reason}"),
            };
        }
    }

    /// Returns the names of the comparisons.
    fn comparisons(&self) -> Vec<&'static str> {
        let compared = self.others.iter().find_map(|compared| compared.cells.as_ref().ok());
        compared.into_iter().flatten().map(|(name, _)| *name).collect()
    }

    /// Returns what came of a comparison, for each server that is not absent.
    fn column(&self, at: usize) -> impl Iterator<Item = (&'static str, &Result<Figures, String>)> {
        self.others.iter().filter_map(move |compared| {
            Some((compared.server, &compared.cells.as_ref().ok()?[at].1))
        })
    }

    /// Returns the figures as JSON.
    pub(super) fn json(&self) -> String {
        let outcome = |outcome: &Outcome| {
            json!({"group": outcome.group, "case": outcome.name, "command": outcome.command,
                "figures": outcome.figures.json()})
        };
        let cell = |(name, cell): &Cell| match cell {
            Ok(figures) => json!({"case": name, "figures": figures.json()}),
            Err(reason) => json!({"case": name, "failed": reason}),
        };
        let compared = |compared: &Compared| {
            let Compared { server, settings, versions, cells } = compared;
            let mut value = json!({"server": server, "settings": settings, "versions": versions});
            match cells {
                Ok(cells) => value["figures"] = cells.iter().map(cell).collect(),
                Err(reason) => value["absent"] = json!(reason),
            }
            value
        };
        let all = json!({
            "machine": self.machine,
            "cases": self.outcomes.iter().map(outcome).collect::<Vec<_>>(),
            "servers": self.others.iter().map(compared).collect::<Vec<_>>(),
        });
        format!("{all:#}\n")
    }

    /// Returns bars of CPU time for each server and each comparison that has one; `None` if nothing was compared.
    fn chart(&self) -> Option<String> {
        let mut bars = Vec::new();
        for (at, name) in self.comparisons().into_iter().enumerate() {
            let mut floor = None::<f64>;
            for (server, cell) in self.column(at) {
                let Ok(figures) = cell else { continue };
                if let Some(cpu) = figures.cpu_ns {
                    bars.push((name, server, cpu));
                }
                floor = floor.into_iter().chain(figures.floor_ns).reduce(f64::min);
            }
            if let Some(floor) = floor {
                bars.push((name, "the kernel's floor", floor));
            }
        }
        (!bars.is_empty()).then(|| svg(&bars))
    }
}

/// CPU, floor, ratio, rate, latencies, bytes.
fn cells(figures: Figures) -> [String; 7] {
    let number = |value: Option<f64>, unit: f64, digits: usize| {
        value.map_or_else(String::new, |value| format!("{:.digits$}", value / unit))
    };
    [
        number(figures.cpu_ns, 1e3, 2),
        number(figures.floor_ns, 1e3, 2),
        number(figures.ratio, 1.0, 2),
        number(figures.per_second, 1.0, 0),
        number(figures.p50_us, 1e3, 2),
        number(figures.p99_us, 1e3, 2),
        number(figures.bytes, 1.0, 0),
    ]
}

/// Draws horizontal bars, a heading above those of each comparison. The longest of each are equally long.
fn svg(bars: &[(&str, &str, f64)]) -> String {
    let (mut y, mut body, mut comparison, mut most) = (8.0, String::new(), "", 0.0);
    for (name, server, cpu) in bars {
        if *name != comparison {
            comparison = name;
            let same = bars.iter().filter(|(other, _, _)| other == name);
            most = same.map(|(_, _, cpu)| *cpu).fold(0.0, f64::max);
            y += 26.0;
            let _ = writeln!(body, "<text x=\"8\" y=\"{y}\" font-weight=\"bold\">{name}</text>");
            y += 8.0;
        }
        let width = (cpu / most * BAR_WIDTH).max(1.0);
        let colour = match *server {
            "Hookwire" => "#9a4a1e",
            "the kernel's floor" => "#b8b2a7",
            _ => "#5b7f8c",
        };
        let _ = writeln!(
            body,
            "<text x=\"168\" y=\"{}\" text-anchor=\"end\">{server}</text>\
             <rect x=\"176\" y=\"{y}\" width=\"{width:.1}\" height=\"14\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{}\">{:.2} µs</text>",
            y + 11.0,
            182.0 + width,
            y + 11.0,
            cpu / 1e3
        );
        y += 18.0;
    }
    let height = y + 12.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"720\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>CPU time of the server by deliveries or messages, each comparison in a scale of its own; less is better</title>\n\
         <rect width=\"720\" height=\"{height}\" fill=\"#ffffff\"/>\n{body}</svg>\n"
    )
}

/// Width of the longest bar.
const BAR_WIDTH: f64 = 460.0;

const INTRODUCTION: &str = "# Performance

This file is generated by `cargo xtask bench --others --write`; [benchmarks.md](benchmarks.md) says what is measured and how. CPU is the time of the whole server process, user and system, by units
of work: deliveries, messages, requests or connections. The floor does the least that the kernel allows for the same work and runs in the same minute; the ratio is that of the two. The least of
all rounds is told. Server and load share the processors, and latencies include the load generator's own queue.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(server: &'static str, cells: Result<Vec<Cell>, String>) -> Compared {
        Compared { server, settings: "one process", versions: format!("{server} 1.2"), cells }
    }

    fn report() -> Report {
        let figures =
            Figures { cpu_ns: Some(4_400.0), floor_ns: Some(4_000.0), ..Figures::default() };
        let slow = Figures { cpu_ns: Some(9e3), ..figures };
        let outcome = Outcome {
            group: "Fan-out".to_owned(),
            name: "lone".to_owned(),
            command: "hookwire bench fanout".to_owned(),
            figures,
        };
        Report {
            machine: vec!["2 × Some CPU".to_owned()],
            outcomes: vec![outcome],
            others: vec![
                compared("Hookwire", Ok(vec![("lone", Ok(figures)), ("echo", Ok(figures))])),
                compared(
                    "ws",
                    Ok(vec![("lone", Ok(slow)), ("echo", Err("it is lost".to_owned()))]),
                ),
                compared("nchan", Ok(vec![("lone", Ok(slow)), ("echo", Ok(Figures::default()))])),
                compared("Bun", Err("npm has no such package".to_owned())),
            ],
        }
    }

    #[test]
    fn tables_tell_figures_and_who_is_absent() {
        let text = report().markdown();
        assert!(text.contains("| lone | 4.40 | 4.00 |  |  |  |  |  |"), "{text}");
        assert!(text.contains("| ws | 9.00 | 4.00 |"), "{text}");
        assert!(text.contains("- ws failed: it is lost"), "{text}");
        assert!(text.contains("- ws (ws 1.2): one process."), "{text}");
        assert_eq!(text.matches("| nchan |").count(), 1, "it has no echo: {text}");
        assert!(text.contains("- Bun is absent: npm has no such package"), "{text}");
    }

    #[test]
    fn the_chart_has_a_bar_for_each_server_and_the_floor() {
        let chart = report().chart().unwrap();
        for text in ["Hookwire", "ws", "the kernel's floor", "9.00 µs", "width=\"460.0\""] {
            assert!(chart.contains(text), "{text}: {chart}");
        }
        assert!(!chart.contains("Bun"));
        assert!(Report { others: Vec::new(), ..report() }.chart().is_none());
    }

    #[test]
    fn figures_are_json_too() {
        let value: Value = serde_json::from_str(&report().json()).unwrap();
        assert_eq!(value["cases"][0]["figures"]["cpu_ns"], 4_400.0);
        assert_eq!(value["servers"][1]["figures"][1]["failed"], "it is lost");
        assert_eq!(value["servers"][1]["versions"], "ws 1.2");
        assert_eq!(value["servers"][3]["absent"], "npm has no such package");
    }

    #[test]
    fn all_three_files_are_written() {
        let folder = tempfile::tempdir().unwrap();
        report().write(folder.path()).unwrap();
        for name in ["performance.md", "performance.json", "performance.svg"] {
            assert!(folder.path().join(name).is_file(), "{name}");
        }
        assert_eq!(kept(folder.path(), &report().machine).unwrap(), report().outcomes);
        let error = kept(folder.path(), &["another".to_owned()]).unwrap_err().to_string();
        assert!(error.ends_with("is of another machine or revision"), "{error}");
    }
}
