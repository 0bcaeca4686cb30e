//! The floor: what the kernel alone takes. A child process writes the same bytes to as many plain sockets in a bare loop, and
//! nothing else; the clients are the same.

use std::io::{BufRead, IoSlice, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use hookwire_proto::frame::{Header, Opcode};
use serde_json::json;

use super::child::{Child, Memory};
use super::fanout::Receipts;
use super::process::{Process, allow_open_files, pin};
use super::swarm::{Clock, Door, PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MIN, Stamp, Swarm};

/// Frames in one `writev`.
pub(super) const BATCH_MAX: usize = 16;

/// Settings of the child.
#[derive(Debug, clap::Args)]
pub(crate) struct FloorArguments {
    /// Sockets that it accepts
    #[arg(long)]
    connections: usize,
    /// Payload of a frame
    #[arg(long)]
    size: usize,
    /// Run on this core alone
    #[arg(long)]
    core: Option<usize>,
}

/// The child process and the sockets to it.
#[derive(Debug)]
pub(super) struct Floor {
    /// Before the child: what it still holds is reset.
    swarm: Swarm,
    child: Child,
    receipts: Receipts,
    clock: Clock,
    sent: u64,
}

impl Floor {
    /// Starts the child and connects to it.
    pub(super) fn start(
        connections: usize,
        size: usize,
        core: Option<usize>,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let mut arguments = vec![
            "floor".to_owned(),
            format!("--connections={connections}"),
            format!("--size={size}"),
        ];
        arguments.extend(core.map(|core| format!("--core={core}")));
        let child = Child::start(&arguments, Memory::AsShipped)?;
        let address: SocketAddr = child.told("listen")?.parse()?;
        let door = Door { address, upgrade: None, tls: None, in_flight: 1 };
        let mut swarm = Swarm::new(clock)?;
        let mut receipts = Receipts::new(connections);
        swarm.connect(&door, connections, |_| Vec::new(), &mut receipts)?;
        Ok(Self { child, swarm, receipts, clock, sent: 0 })
    }

    pub(super) fn process(&self) -> Process {
        self.child.process()
    }

    /// Has `messages` written to every socket, `batch` at a time, the next when the last has come everywhere.
    pub(super) fn send(&mut self, messages: u64, batch: u64) -> anyhow::Result<()> {
        let end = self.sent + messages;
        while self.sent < end {
            let count = batch.min(end - self.sent);
            self.child.tell(&format!("{} {} {count}", self.sent, self.clock.now()))?;
            self.sent += count;
            while self.receipts.delivered() < self.sent * self.swarm.len() as u64 {
                self.swarm.turn(&mut self.receipts)?;
            }
        }
        Ok(())
    }
}

/// The child: accepts, then obeys lines of "first sequence, time, count".
pub(super) fn run(arguments: &FloorArguments) -> anyhow::Result<ExitCode> {
    ensure!(
        (PAYLOAD_BYTES_MIN..=PAYLOAD_BYTES_MAX).contains(&arguments.size),
        "a payload has {PAYLOAD_BYTES_MIN} to {PAYLOAD_BYTES_MAX} bytes"
    );
    allow_open_files(arguments.connections as u64)?;
    if let Some(core) = arguments.core {
        pin(core, true)?;
    }
    let listener = TcpListener::bind("127.0.0.1:0")?;
    {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", json!({ "listen": listener.local_addr()?.to_string() }))?;
        out.flush()?;
    }
    let mut sockets = Vec::with_capacity(arguments.connections);
    for _ in 0..arguments.connections {
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        sockets.push(socket);
    }
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let mut numbers = line.split(' ').map(str::parse::<u64>);
        let mut next = || numbers.next().and_then(Result::ok).context("an order has three numbers");
        let (first, sent, count) = (next()?, next()?, next()?);
        ensure!(count <= BATCH_MAX as u64, "an order is for at most {BATCH_MAX} frames");
        let frames: Vec<Vec<u8>> = (first..first + count)
            .map(|sequence| frame(Stamp { sequence, sent }, arguments.size))
            .collect();
        write_all(&mut sockets, &frames)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write_all(sockets: &mut [TcpStream], frames: &[Vec<u8>]) -> anyhow::Result<()> {
    let bytes: usize = frames.iter().map(Vec::len).sum();
    for socket in sockets {
        let written = match frames {
            [frame] => socket.write(frame)?,
            frames => {
                let mut slices = [IoSlice::new(&[]); BATCH_MAX];
                for (slice, frame) in slices.iter_mut().zip(frames) {
                    *slice = IoSlice::new(frame);
                }
                socket.write_vectored(&slices[..frames.len()])?
            }
        };
        ensure!(written == bytes, "a socket took {written} bytes of {bytes}");
    }
    Ok(())
}

/// Returns a server's binary frame of `size` bytes of payload.
fn frame(stamp: Stamp, size: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    let header = Header {
        fin: true,
        compressed: false,
        opcode: Opcode::Binary,
        mask: None,
        payload_bytes: size as u64,
    };
    header.put(&mut frame);
    let start = frame.len();
    frame.resize(start + size, b'x');
    stamp.put(&mut frame[start..]);
    frame
}
