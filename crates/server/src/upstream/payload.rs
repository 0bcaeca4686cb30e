//! The body of a request, which tells when it was written: hyper says only when an answer has begun.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

/// A body in one piece.
#[derive(Debug)]
pub(super) struct Payload {
    body: Full<Bytes>,
    told: Option<oneshot::Sender<()>>,
}

/// The piece.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Bytes,
    told: Option<oneshot::Sender<()>>,
}

impl Payload {
    /// Returns a body, and what is ready when all of it has been written behind its head: when the connection, plain or of TLS, has
    /// taken the last byte, which over HTTP/2 waits until the upstream has room. It is never ready when that does not come about.
    pub(super) fn new(body: Full<Bytes>) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (teller, told) = oneshot::channel();
        let written = async {
            if told.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        (Self { body, told: Some(teller) }, written)
    }
}

impl Body for Payload {
    type Data = Piece;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, Infallible>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        frame.map_ok(|frame| frame.map_data(|bytes| Piece { bytes, told: self.told.take() }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Payload {
    /// An empty body is never asked for its piece: hyper lets go of it when it has the head. (It also does when nothing comes of the
    /// request; then that is told first.)
    fn drop(&mut self) {
        if self.body.is_end_stream() {
            tell(&mut self.told);
        }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    /// hyper goes on by what the connection has taken.
    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if self.bytes.is_empty() {
            tell(&mut self.told);
        }
    }
}

fn tell(told: &mut Option<oneshot::Sender<()>>) {
    if let Some(told) = told.take() {
        // Most do not wait for it.
        let _ = told.send(());
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::poll;
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_body_is_written_when_its_last_byte_was_taken() {
        let (mut payload, written) = Payload::new(Full::from("1234"));
        let mut written = pin!(written);
        assert_eq!(payload.size_hint().exact(), Some(4));
        assert!(!payload.is_end_stream());
        let mut piece = payload.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(payload.is_end_stream());
        drop(payload);
        piece.advance(3);
        assert!(poll!(&mut written).is_pending());
        piece.advance(1);
        assert!(poll!(&mut written).is_ready());
    }

    #[tokio::test]
    async fn an_empty_body_is_written_when_hyper_lets_go_of_it() {
        let (payload, written) = Payload::new(Full::default());
        let mut written = pin!(written);
        assert!(payload.is_end_stream());
        assert!(poll!(&mut written).is_pending());
        drop(payload);
        assert!(poll!(&mut written).is_ready());
    }

    #[tokio::test]
    async fn what_is_given_up_was_never_written() {
        let (mut payload, written) = Payload::new(Full::from("1234"));
        let mut written = pin!(written);
        drop(payload.frame().await);
        drop(payload);
        assert!(poll!(&mut written).is_pending());
        let (payload, written) = Payload::new(Full::from("1234"));
        let mut written = pin!(written);
        drop(payload);
        assert!(poll!(&mut written).is_pending());
    }
}
