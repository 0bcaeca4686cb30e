//! The WebSocket layer of the client alone, for conformance suites: messages without a subprotocol.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hookwire_proto::connection::Event;
use hookwire_proto::deflate::Compression;
pub use hookwire_proto::message::Message;
use url::Url;

use super::dial::Dialer;
use super::error::ConnectError;
use super::socket::{Incoming, Socket, Writer};
use super::task::RECEIVED_BYTES_MAX;
use crate::trust::Trust;

/// Connects, gives each message to `answer`, and sends what it returns. Ends when the connection does, in whatever way.
///
/// # Errors
/// [`ConnectError`] when there was no connection.
pub async fn converse(
    url: &Url,
    compression: Option<Compression>,
    mut answer: impl FnMut(Message) -> Option<Message>,
) -> Result<(), ConnectError> {
    let dialer = Dialer::new(None, CONNECT_TIME_MAX, &Trust::default())?.offering(compression);
    let opened = dialer.dial(url).await?;
    let Socket { mut reader, mut writer } = Socket::new(opened, RECEIVED_BYTES_MAX);
    let broken = |error: io::Error| ConnectError::Unreachable(Arc::new(error));
    let mut is_over = false;
    while writer.is_busy() || !is_over {
        let incoming = tokio::select! {
            biased;
            written = writer.write(), if writer.is_busy() => {
                if written.is_err() {
                    return Ok(());
                }
                continue;
            }
            incoming = reader.read(), if !is_over => incoming,
        };
        let (events, fault) = match incoming {
            Incoming::Events(events) => (events, None),
            Incoming::Violation(events, code) => (events, Some(code)),
            Incoming::End => return Ok(()),
        };
        for event in events {
            is_over |= take(event, &mut answer, &mut writer).map_err(broken)?;
        }
        if let Some(code) = fault {
            writer.put_close(Some(code)).map_err(broken)?;
            is_over = true;
        }
    }
    // It is the server that closes first (RFC 6455, section 7.1.1).
    let end = async { while !matches!(reader.read().await, Incoming::End) {} };
    let _ = tokio::time::timeout(CLOSE_TIME_MAX, end).await;
    Ok(())
}

/// Answers what came. Returns whether the peer closes.
fn take(
    event: Event,
    answer: &mut impl FnMut(Message) -> Option<Message>,
    writer: &mut Writer,
) -> io::Result<bool> {
    match event {
        Event::Message(message) => {
            if let Some(message) = answer(message) {
                writer.put_message(&message)?;
            }
        }
        Event::Ping(payload) => writer.put_pong(&payload)?,
        Event::Pong => {}
        Event::Close(frame) => {
            writer.put_close(frame.map(|frame| frame.code))?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// How long opening the connection may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// How long the server may take to close the stream.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(5);
