//! The floor: what the kernel alone takes. A child process writes the same bytes to as many plain sockets in a bare loop, and
//! nothing else; the clients are the same.

use std::io::{BufRead, IoSlice, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use hookwire_proto::frame::{Header, Opcode};
use serde_json::json;

use super::child::{Child, Run};
use super::fanout::{Audience, Receipts};
use super::meter::Meter;
use super::process::{Used, allow_open_files, pin};
use super::swarm::{Clock, Door, Opening, PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MIN, Stamp, Swarm};

/// Frames in one `writev`.
pub(super) const BATCH_MAX: usize = 16;

/// Settings of the child.
#[derive(Debug, clap::Args)]
pub(crate) struct FloorArguments {
    /// Sockets that it accepts
    #[arg(long)]
    connections: usize,
    /// Who takes turns to get a frame
    #[arg(long)]
    targets: usize,
    /// Sockets of each
    #[arg(long)]
    target_size: usize,
    /// Payload bytes of frames; the sockets have them in turn
    #[arg(long, value_delimiter = ',')]
    payload_bytes: Vec<usize>,
    /// Run on this core alone
    #[arg(long)]
    core: Option<usize>,
}

/// The child process and the sockets to it.
#[derive(Debug)]
pub(super) struct Floor {
    /// Before the child: what it still holds is reset.
    swarm: Swarm,
    meter: Meter,
    child: Child,
    audience: Audience,
    receipts: Receipts,
    clock: Clock,
    sent: u64,
}

impl Floor {
    /// Starts the child and connects to it. Sockets get frames with so many payload bytes, in turn.
    pub(super) fn start(
        audience: Audience,
        payload_bytes: &[u64],
        core: Option<usize>,
        run: Run<'_>,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let payload_bytes: Vec<String> = payload_bytes.iter().map(u64::to_string).collect();
        let mut arguments = vec![
            "floor".to_owned(),
            format!("--connections={}", audience.clients),
            format!("--targets={}", audience.targets),
            format!("--target-size={}", audience.size),
            format!("--payload-bytes={}", payload_bytes.join(",")),
        ];
        arguments.extend(core.map(|core| format!("--core={core}")));
        let child = Child::start(&arguments, run)?;
        let address: SocketAddr = child.told("listen")?.parse()?;
        // One at a time: the child knows its sockets by their order.
        let door = Door { address, tls: None, in_flight: 1 };
        let mut swarm = Swarm::new(clock)?;
        let mut receipts = Receipts::new(&audience);
        swarm.connect(&door, audience.clients, |_| Opening::default(), &mut receipts)?;
        let meter = child.meter();
        Ok(Self { swarm, meter, child, audience, receipts, clock, sent: 0 })
    }

    /// Has `messages` written to everybody whom they concern, `batch` at a time, the next when the last has come everywhere. Returns what
    /// the child used for it.
    pub(super) fn round(&mut self, messages: u64, batch: u64) -> anyhow::Result<Used> {
        let before = self.meter.used_at_rest()?;
        let end = self.sent + messages;
        while self.sent < end {
            let count = batch.min(end - self.sent);
            self.child.tell(&format!("{} {} {count}", self.sent, self.clock.now()))?;
            self.sent += count;
            while self.receipts.delivered() < self.audience.deliveries(self.sent) {
                self.swarm.turn(&mut self.receipts)?;
            }
        }
        Ok(self.meter.used_at_rest()? - before)
    }
}

/// Largest payload of a frame: that of the longest message, with what stands around it in a subprotocol.
const FRAME_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + 4_096;

/// The child: accepts, then obeys lines of "first sequence, time, count".
pub(super) fn run(arguments: &FloorArguments) -> anyhow::Result<ExitCode> {
    let lengths = &arguments.payload_bytes;
    ensure!(
        !lengths.is_empty()
            && lengths.iter().all(|bytes| (PAYLOAD_BYTES_MIN..=FRAME_BYTES_MAX).contains(bytes)),
        "a payload has {PAYLOAD_BYTES_MIN} to {FRAME_BYTES_MAX} bytes"
    );
    let audience = Audience {
        clients: arguments.connections,
        targets: arguments.targets,
        size: arguments.target_size,
    };
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
        // By length, then by message.
        let of_message = |sequence| Stamp { sequence, sent };
        let frames: Vec<Vec<Vec<u8>>> = lengths
            .iter()
            .map(|bytes| (first..first + count).map(|at| frame(of_message(at), *bytes)).collect())
            .collect();
        if audience.targets == 1 {
            for (at, socket) in sockets.iter_mut().enumerate() {
                write_all(socket, &frames[at % frames.len()])?;
            }
            continue;
        }
        for (at, sequence) in (first..first + count).enumerate() {
            for member in audience.members(audience.target_of(sequence)) {
                write_all(&mut sockets[member], &frames[member % frames.len()][at..=at])?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn write_all(socket: &mut TcpStream, frames: &[Vec<u8>]) -> anyhow::Result<()> {
    let bytes: usize = frames.iter().map(Vec::len).sum();
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
