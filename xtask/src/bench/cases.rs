//! What is measured of Hookwire: every case with its arguments for `hookwire bench`.

/// One call of `hookwire bench`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) group: &'static str,
    pub(super) name: String,
    pub(super) arguments: Vec<String>,
    /// Whether a change should look at it.
    pub(super) quick: bool,
}

/// Returns every case, in the order in which they run.
pub(super) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for wire in WIRES {
        for connections in [1_000, MANY] {
            for mode in ["lone", "burst"] {
                for size in SIZES {
                    cases.push(fanout(wire, connections, mode, size));
                }
            }
        }
    }
    cases.extend(OTHERS.map(|(group, name, arguments, quick)| Case {
        group,
        name: name.to_owned(),
        arguments: arguments.split(' ').map(str::to_owned).collect(),
        quick,
    }));
    cases
}

fn fanout(wire: &str, connections: u64, mode: &str, size: u64) -> Case {
    let bytes = connections * size;
    // A round has enough deliveries to be measured, and no more bytes than are moved in seconds.
    let (least, deliveries) = if mode == "lone" { (4, 100_000) } else { (32, 1_600_000) };
    let messages = (deliveries / connections).min(ROUND_BYTES_MAX / bytes).max(1);
    let messages = messages.div_ceil(least) * least;
    let arguments = [
        "fanout".to_owned(),
        format!("--wire={wire}"),
        format!("--connections={connections}"),
        format!("--mode={mode}"),
        format!("--size={size}"),
        format!("--messages={messages}"),
        "--rounds=3".to_owned(),
    ];
    Case {
        group: if mode == "lone" { "Fan-out, lone messages" } else { "Fan-out, bursts of 32" },
        name: format!("{mode} {wire} {connections} × {size} B"),
        arguments: arguments.into(),
        quick: wire == "simple" && connections == 1_000 && size == 128,
    }
}

/// Many connections: with as many of the floor, no more open files than the usual hard limit of 20,000 allows.
const MANY: u64 = 9_900;

/// The forms of messages.
const WIRES: [&str; 6] =
    ["simple", "json", "protobuf", "json-reliable", "protobuf-reliable", "mixed"];

/// Payloads in bytes. The smallest holds little more than the stamp that each message has.
const SIZES: [u64; 4] = [20, 128, 4_096, 65_536];

/// Most bytes of one round, of all deliveries together.
const ROUND_BYTES_MAX: u64 = 4 << 30;

/// Group, name, arguments, and whether a change should look at it.
const OTHERS: [(&str, &str, &str, bool); 30] = [
    ("Whom a message concerns", "one group of 1,000", "fanout --to=group", false),
    (
        "Whom a message concerns",
        "9,900 groups of 10, 9,900 connections",
        "fanout --to=groups --groups=9900 --group-size=10 --connections=9900 --messages=9900 --rounds=3",
        false,
    ),
    ("Whom a message concerns", "one user", "fanout --to=users --rounds=3", false),
    ("By the clock", "20 messages/s to 1,000", "fanout --rate=20 --rounds=2", false),
    ("By the clock", "100 messages/s to 1,000", "fanout --rate=100 --rounds=2", false),
    ("By the clock", "300 messages/s to 1,000", "fanout --rate=300 --rounds=2", false),
    ("By the clock", "800 messages/s to 1,000", "fanout --rate=800 --rounds=2", false),
    ("Two shards", "lone to 1,000", "fanout --shards=2 --rounds=3", false),
    ("Two shards", "burst to 1,000", "fanout --shards=2 --mode=burst --rounds=3", false),
    ("TLS", "lone to 1,000", "fanout --tls --rounds=3", false),
    ("TLS", "burst to 1,000", "fanout --tls --mode=burst --rounds=3", false),
    ("Compression", "lone to 1,000, 128 B", "fanout --compression --rounds=3", false),
    ("Compression", "lone to 1,000, 4 KiB", "fanout --compression --size=4096 --rounds=3", false),
    ("Echo", "one message under way", "echo --rounds=3", true),
    ("Echo", "32 messages under way", "echo --in-flight=32 --rounds=3", true),
    ("Connecting", "with a token", "connect --rounds=3", false),
    ("Connecting", "with a token, by an upstream", "connect --upstream --rounds=3", false),
    ("Connecting", "with a token, over TLS", "connect --tls --connections=2000 --rounds=3", false),
    ("REST sends without receivers", "Web PubSub", "rest --rounds=3", true),
    ("REST sends without receivers", "preview", "rest --dialect=preview --rounds=3", false),
    (
        "REST sends without receivers",
        "each caller a new token",
        "rest --tokens=10000 --rounds=3",
        false,
    ),
    ("Webhook round trips", "CloudEvents, 64 clients", "webhook --rounds=3", true),
    (
        "Webhook round trips",
        "CloudEvents by HTTP/2, 64 clients",
        "webhook --http2 --rounds=3",
        false,
    ),
    ("Webhook round trips", "preview, 64 clients", "webhook --dialect=preview --rounds=3", false),
    ("Webhook round trips", "CloudEvents at 10,000/s", "webhook --rate=10000 --rounds=3", false),
    ("An idle connection", "simple", "idle", true),
    ("An idle connection", "JSON", "idle --wire=json --identity=token", false),
    ("An idle connection", "reliable JSON", "idle --wire=json-reliable --identity=token", false),
    (
        "An idle connection",
        "reliable protobuf",
        "idle --wire=protobuf-reliable --identity=token",
        false,
    ),
    ("An idle connection", "simple, over TLS", "idle --tls --from=1000 --connections=9000", false),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_case_has_a_name_of_its_own_in_its_group() {
        let cases = all();
        let names: BTreeSet<_> = cases.iter().map(|case| (case.group, &case.name)).collect();
        assert_eq!(names.len(), cases.len());
        assert_eq!(cases.len(), WIRES.len() * 2 * 2 * SIZES.len() + OTHERS.len());
    }

    #[test]
    fn rounds_are_bounded() {
        let messages = |case: Case| case.arguments[5].clone();
        assert_eq!(messages(fanout("simple", 1_000, "lone", 128)), "--messages=100");
        assert_eq!(messages(fanout("simple", 1_000, "burst", 128)), "--messages=1600");
        assert_eq!(messages(fanout("simple", MANY, "lone", 65_536)), "--messages=8");
        assert_eq!(messages(fanout("simple", MANY, "burst", 65_536)), "--messages=32");
    }

    #[test]
    fn a_change_looks_at_everything_that_is_done() {
        let quick: Vec<_> = all().into_iter().filter(|case| case.quick).collect();
        let benchmarks: BTreeSet<_> = quick.iter().map(|case| case.arguments[0].clone()).collect();
        for benchmark in ["fanout", "echo", "rest", "webhook", "idle"] {
            assert!(benchmarks.contains(benchmark), "{benchmark}");
        }
    }
}
