//! A client whose connection is not here any more hears it after the upgrade, by a close frame: an HTTP error would make it try
//! for half a minute (Web PubSub protocol, "Reliable protocols and recovery").

use std::time::Duration;

use hookwire_proto::frame::{CloseCode, CloseFrame, Opcode, encode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::http::Edge;

/// How long the client may take for its part of the close handshake.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);

/// Bytes of the client that are read and thrown away meanwhile.
const DISCARDED_BYTES_MAX: u64 = 64 * 1_024;

/// Says goodbye on the upgraded connection and closes it.
pub(super) async fn close(edge: &Edge, upgrade: OnUpgrade) {
    let goodbye = async {
        let mut socket = TokioIo::new(upgrade.await.map_err(|error| error.to_string())?);
        let reason = "the connection cannot be recovered".to_owned();
        let frame = CloseFrame { code: CloseCode::POLICY, reason };
        let frame = encode(Opcode::Close, &frame.to_payload(), None);
        socket.write_all(&frame).await.map_err(|error| error.to_string())?;
        socket.shutdown().await.map_err(|error| error.to_string())?;
        let rest = async {
            let mut rest = (&mut socket).take(DISCARDED_BYTES_MAX);
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
        };
        // A client that does not close is left to the kernel.
        let _ = tokio::time::timeout(CLOSE_TIME_MAX, rest).await;
        Ok::<_, String>(())
    };
    let in_time = tokio::time::timeout(edge.limits().handshake_time_max, goodbye).await;
    if let Ok(Err(error)) = in_time {
        tracing::debug!(error, "a client left before it heard that its connection is gone");
    }
}
