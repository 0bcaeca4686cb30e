//! Frames of the tunnel as they come from a socket.

use bytes::Bytes;
use hookwire_proto::tunnel::{FRAME_BYTES_MAX, Frame, FrameError};

/// Reads `input` as a frame. What is understood is the same when it was written and read again; an error is short, so that it repeats
/// nothing.
pub(crate) fn check(input: &[u8]) {
    match Frame::decode(&Bytes::copy_from_slice(input)) {
        Ok(Frame::Unknown(_)) => {}
        Ok(frame) => match frame.encode() {
            Ok(written) => {
                assert!(written.len() <= 4 + FRAME_BYTES_MAX);
                assert_eq!(Frame::decode(&written), Ok(frame));
            }
            // Our JSON names what was left out, so a frame at the limit may have become too long.
            Err(error) => assert_eq!(error, FrameError::TooLong),
        },
        Err(error) => assert!(error.to_string().len() < 120, "{error}"),
    }
}
