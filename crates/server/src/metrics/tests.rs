use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::*;

/// One metric as a strict reader of the text format sees it.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    help: String,
    /// Name, labels, value.
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

/// Reads the text format (Prometheus, "Exposition formats", version 0.0.4), more strictly than it asks: each family has HELP, TYPE and
/// samples, in this order and in one piece, and no series comes twice.
fn parse(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n'), "the last line ends");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut series = BTreeSet::new();
    let mut current = String::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(is_name(name) && !help.contains('\\'), "{line}");
            assert!(!families.contains_key(name), "{name} comes twice");
            name.clone_into(&mut current);
            families.insert(name.to_owned(), Family { help: help.to_owned(), ..Family::default() });
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(name == current && ["counter", "gauge", "histogram"].contains(&kind), "{line}");
            let family = families.get_mut(name).unwrap();
            assert!(family.kind.is_empty(), "{line}");
            kind.clone_into(&mut family.kind);
        } else {
            let (key, value) = line.rsplit_once(' ').unwrap();
            assert!(series.insert(key.to_owned()), "{key} comes twice");
            let (name, labels) = match key.split_once('{') {
                Some((name, labels)) => (name, parse_labels(labels.strip_suffix('}').unwrap())),
                None => (key, BTreeMap::new()),
            };
            let family = families.get_mut(&current).unwrap();
            let suffixes: &[&str] = match family.kind.as_str() {
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            let suffix = name.strip_prefix(current.as_str()).unwrap_or("another family");
            assert!(suffixes.contains(&suffix), "{line}");
            family.samples.push((name.to_owned(), labels, value.parse().unwrap()));
        }
    }
    families
}

fn parse_labels(text: &str) -> BTreeMap<String, String> {
    let label = |label: &str| {
        let (name, value) = label.split_once('=').unwrap();
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap();
        assert!(is_name(name) && !value.contains(['"', '\\']), "{label}");
        (name.to_owned(), value.to_owned())
    };
    text.split(',').map(label).collect()
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// Checks what a histogram promises: buckets in order that only grow, the last of them the count.
#[expect(clippy::type_complexity, reason = "buckets and count of each label set, used here alone")]
fn check_histogram(name: &str, family: &Family) {
    let mut series: BTreeMap<Vec<(&str, &str)>, (Vec<(f64, f64)>, Option<f64>)> = BTreeMap::new();
    for (sample, labels, value) in &family.samples {
        let others = labels.iter().filter(|(label, _)| *label != "le");
        let key = others.map(|(label, value)| (label.as_str(), value.as_str())).collect();
        let (buckets, count) = series.entry(key).or_default();
        match sample.strip_prefix(name).unwrap() {
            "_bucket" => buckets.push((labels["le"].parse().unwrap(), *value)),
            "_count" => *count = Some(*value),
            _ => {}
        }
    }
    assert!(!series.is_empty(), "{name}");
    for (key, (buckets, count)) in series {
        assert!(
            buckets.is_sorted_by(|one, next| one.0 < next.0 && one.1 <= next.1),
            "{name} {key:?}"
        );
        let last = buckets.last().copied();
        assert_eq!(last, Some((f64::INFINITY, count.unwrap())), "{name} {key:?}");
    }
}

fn stats(counters: Counters, turns_micros: &[u64]) -> Arc<ShardStats> {
    let stats = Arc::new(ShardStats::default());
    for micros in turns_micros {
        stats.publish(&counters, &Hub::default(), 7, Duration::from_micros(*micros));
    }
    stats
}

#[test]
fn the_text_passes_a_strict_reader() {
    recorder();
    metrics::counter!("hookwire_upstream_calls_total", "event" => "connect", "result" => "answered")
        .increment(2);
    metrics::histogram!("hookwire_upstream_call_duration_seconds", "event" => "connect")
        .record(0.02);
    let shards = [
        stats(
            Counters { messages_in: 3, deliveries: 9, ..Counters::default() },
            &[10, 60, 2_000_000],
        ),
        stats(Counters { messages_in: 4, ..Counters::default() }, &[11]),
    ];
    let families = parse(&render(&shards));
    for (name, family) in &families {
        let counts_what_is_there = [
            "hookwire_connections",
            "hookwire_recovering_connections",
            "hookwire_sets",
            "hookwire_upstream_calls_in_flight",
            "process_open_fds",
            "process_max_fds",
        ];
        let has_unit = ["_total", "_seconds", "_bytes"].iter().any(|unit| name.ends_with(unit));
        assert!(has_unit || counts_what_is_there.contains(&name.as_str()), "{name} has no unit");
        assert_eq!(family.kind == "counter", name.ends_with("_total"), "{name}");
        assert!(family.help.ends_with('.') && !family.samples.is_empty(), "{name}");
        if family.kind == "histogram" {
            check_histogram(name, family);
        }
    }
    let value = |name: &str, labels: &[(&str, &str)]| {
        let labels = labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned()));
        let labels: BTreeMap<_, _> = labels.collect();
        let family = name.trim_end_matches("_bucket").trim_end_matches("_sum");
        let mut samples = families[family].samples.iter();
        samples.find(|sample| sample.0 == name && sample.1 == labels).map(|sample| sample.2)
    };
    assert_eq!(value("hookwire_messages_in_total", &[("shard", "0")]), Some(3.0));
    assert_eq!(value("hookwire_messages_in_total", &[("shard", "1")]), Some(4.0));
    assert_eq!(value("hookwire_deliveries_total", &[("shard", "0")]), Some(9.0));
    assert_eq!(value("hookwire_incomplete_bytes", &[("shard", "1")]), Some(7.0));
    let bucket = |le| value("hookwire_turn_seconds_bucket", &[("shard", "0"), ("le", le)]);
    assert_eq!(bucket("0.00001"), Some(1.0), "a bound is inside its bucket");
    assert_eq!((bucket("0.0001"), bucket("1"), bucket("+Inf")), (Some(2.0), Some(2.0), Some(3.0)));
    assert_eq!(value("hookwire_turn_seconds_sum", &[("shard", "0")]), Some(2.000_07));
    let duration = "hookwire_upstream_call_duration_seconds_bucket";
    let call = |le| value(duration, &[("event", "connect"), ("le", le)]);
    assert_eq!((call("0.01"), call("0.025"), call("60")), (Some(0.0), Some(1.0), Some(1.0)));
    let calls = [("event", "connect"), ("result", "answered")];
    assert_eq!(value("hookwire_upstream_calls_total", &calls), Some(2.0));
}

#[test]
fn several_nodes_of_a_process_share_a_recorder_and_keep_their_shards() {
    assert!(std::ptr::eq(recorder(), recorder()));
    let of = |messages_in| {
        let families =
            parse(&render(&[stats(Counters { messages_in, ..Counters::default() }, &[1])]));
        families["hookwire_messages_in_total"].samples[0].2
    };
    assert_eq!((of(1), of(2)), (1.0, 2.0));
}

/// What is recorded anywhere stands in the list of names with its type, and the list holds nothing else.
#[test]
fn every_recorded_name_is_described() {
    let mut recorded = BTreeSet::new();
    let mut files = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(file) = files.pop() {
        if file.is_dir() {
            files.extend(fs::read_dir(&file).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        if file.ends_with("metrics/tests.rs") {
            continue;
        }
        let source = fs::read_to_string(&file).unwrap();
        for kind in [Kind::Counter, Kind::Gauge, Kind::Histogram] {
            for call in source.split(&format!("{}!(", kind.as_str())).skip(1) {
                let name = call.trim_start().strip_prefix('"').unwrap().split('"').next().unwrap();
                recorded.insert((name.to_owned(), kind.as_str()));
            }
        }
    }
    let described = RECORDED.iter().map(|(name, kind, ..)| ((*name).to_owned(), kind.as_str()));
    assert_eq!(recorded, described.collect());
}

#[test]
fn the_alerts_that_are_recommended_name_metrics_that_there_are() {
    let document = include_str!("../../../../docs/operations.md");
    let mut known: BTreeSet<&str> = RECORDED.iter().map(|(name, ..)| *name).collect();
    known.extend(SHARD_METRICS.iter().map(|(name, ..)| *name));
    known.extend(process::read().iter().map(|(name, ..)| *name));
    known.insert("hookwire_turn_seconds");
    let words = document.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let mut seen = BTreeSet::new();
    for word in words.filter(|word| word.starts_with("hookwire_") || word.starts_with("process_")) {
        let name = ["_bucket", "_sum"].iter().find_map(|end| word.strip_suffix(end));
        let name = name.unwrap_or(word);
        assert!(known.contains(name), "{word}");
        seen.insert(name);
    }
    assert!(10 <= seen.len(), "the document was not read: {seen:?}");
}
