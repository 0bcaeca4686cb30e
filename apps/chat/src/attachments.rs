//! Files and pictures that hang on messages: who may bring and see them, and what they are taken for.
//!
//! A user who may write in a conversation asks for a [`ticket::Upload`] over the WebSocket, brings the file by HTTP (`upload`), gets a
//! [`ticket::Receipt`] for it and sends a message that carries the receipt. Whoever reads the message gets a [`ticket::Link`]
//! to the file, which is good for an hour or two (`download`). All three are signed, so any instance knows what another one allowed.

mod download;
mod ticket;
mod upload;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

pub(crate) use self::ticket::Tickets;
use self::ticket::{Link, Receipt, Upload};
use crate::name::{ConversationId, UserName};
use crate::refusal::{Code, Refusal};
use crate::store::{self, Attachment};
use crate::wire;

/// What attachments need.
#[derive(Debug)]
pub(crate) struct Attachments {
    tickets: Tickets,
    bytes_max: u64,
    uploads: Arc<Semaphore>,
    downloads: Arc<Semaphore>,
    /// Downloads under way, and looks for uploads that nobody sent.
    tasks: TaskTracker,
    sweeping: tokio::sync::Mutex<Option<tokio::time::Instant>>,
}

impl Attachments {
    pub(crate) fn new(tickets: Tickets, bytes_max: u64) -> Self {
        Self {
            tickets,
            bytes_max,
            uploads: Arc::new(Semaphore::new(UPLOADS_MAX)),
            downloads: Arc::new(Semaphore::new(DOWNLOADS_MAX)),
            tasks: TaskTracker::new(),
            sweeping: tokio::sync::Mutex::default(),
        }
    }

    /// Returns where a member of a conversation may bring a file.
    ///
    /// # Errors
    /// [`Refusal`] when the file is none that can be attached.
    pub(crate) fn invite(
        &self,
        user: &UserName,
        conversation: &ConversationId,
        name: String,
        bytes: u64,
        now: SystemTime,
    ) -> Result<String, Refusal> {
        check_name(&name)?;
        if bytes == 0 {
            return Err(Refusal::new(Code::Invalid, "An empty file cannot be attached."));
        }
        if self.bytes_max < bytes {
            let text = format!("A file can have at most {}.", Bytes(self.bytes_max));
            return Err(Refusal::new(Code::TooLarge, text));
        }
        let (user, conversation) = (user.to_string(), conversation.to_string());
        let ticket = self.tickets.sign(&Upload { user, conversation, name, bytes }, now);
        Ok(format!("{PATH}?ticket={ticket}"))
    }

    /// Returns what the receipts in a message stand for, each file once.
    ///
    /// # Errors
    /// [`Refusal`] when one is not of this user for this conversation, or there are too many.
    pub(crate) fn redeem(
        &self,
        user: &UserName,
        conversation: &str,
        receipts: &[String],
    ) -> Result<Vec<Attachment>, Refusal> {
        if ATTACHMENTS_MAX < receipts.len() {
            let text = format!("A message can have at most {ATTACHMENTS_MAX} attachments.");
            return Err(Refusal::new(Code::TooLarge, text));
        }
        let redeemed = receipts.iter().map(|receipt| {
            let receipt: Receipt = self.tickets.read(receipt).ok()?;
            let theirs = receipt.user == user.as_str() && receipt.conversation == conversation;
            theirs.then_some(receipt.attachment)
        });
        let mut attachments: Vec<Attachment> = Vec::with_capacity(receipts.len());
        for attachment in redeemed {
            let attachment = attachment.ok_or_else(|| {
                Refusal::new(Code::Invalid, "An attachment must be uploaded again.")
            })?;
            if attachments.iter().all(|known| known.id != attachment.id) {
                attachments.push(attachment);
            }
        }
        Ok(attachments)
    }

    /// Returns a message as its readers see it.
    pub(crate) fn show(
        &self,
        conversation: &str,
        seq: u64,
        message: store::Message,
        now: SystemTime,
    ) -> wire::Message {
        let store::Message { user, key, text, time, attachments } = message;
        let shown = attachments.into_iter().map(|attachment| {
            let Attachment { id, name, kind, bytes } = attachment.clone();
            let link = Link { folder: store::conversation_digest(conversation), attachment };
            let url = format!("{PATH}?ticket={}", self.tickets.sign(&link, now));
            wire::Attachment { id, name, kind, size: bytes, url }
        });
        wire::Message {
            id: format!("{conversation}:{seq}"),
            conversation: conversation.to_owned(),
            seq,
            user,
            text,
            time,
            key,
            attachments: shown.collect(),
        }
    }

    /// Waits for what was begun.
    pub(crate) async fn close(&self) {
        self.tasks.close();
        if tokio::time::timeout(CLOSE_TIME_MAX, self.tasks.wait()).await.is_err() {
            tracing::warn!("downloads did not end before the shutdown");
        }
    }
}

/// Returns how long the transfer of so many bytes may take.
fn transfer_time_max(bytes: u64) -> Duration {
    TRANSFER_TIME_MIN.max(Duration::from_secs(bytes / TRANSFER_RATE_MIN))
}

fn check_name(name: &str) -> Result<(), Refusal> {
    if NAME_CHARACTERS_MAX < name.chars().count() {
        let text = format!("The name of a file has at most {NAME_CHARACTERS_MAX} characters.");
        return Err(Refusal::new(Code::TooLarge, text));
    }
    let odd = |c: char| c.is_control() || c == '/' || c == '\\';
    if name.trim().is_empty() || name.contains(odd) {
        let text = "A file needs a name without slashes and control characters.";
        return Err(Refusal::new(Code::Invalid, text));
    }
    Ok(())
}

/// Returns the media type of content that is shown as a picture, as its first bytes say, else that of anything.
fn kind_of(start: &[u8]) -> &'static str {
    match start {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => "image/png",
        [0xff, 0xd8, 0xff, ..] => "image/jpeg",
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => "image/gif",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "image/webp",
        _ => ANYTHING,
    }
}

/// A size for people.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes.is_multiple_of(1 << 20) => write!(formatter, "{} MiB", bytes >> 20),
            bytes if bytes.is_multiple_of(1 << 10) => write!(formatter, "{} KiB", bytes >> 10),
            bytes => write!(formatter, "{bytes} bytes"),
        }
    }
}

/// The function that takes and gives attachments.
pub(crate) const PATH: &str = "/api/attachments";

/// The media type of what is no picture.
const ANYTHING: &str = "application/octet-stream";

/// So many bytes say what kind of content it is.
const KIND_BYTES: usize = 12;

/// Largest attachment unless something else is set, in bytes.
pub const ATTACHMENT_BYTES_MAX: u64 = 10 << 20;

/// Most attachments of a message.
pub(crate) const ATTACHMENTS_MAX: usize = 10;

/// Most characters (code points) of a file's name.
pub(crate) const NAME_CHARACTERS_MAX: usize = 120;

/// Uploads at a time. One more is told to try again. Each holds up to two parts in memory.
pub(crate) const UPLOADS_MAX: usize = 8;

/// Downloads at a time. One more is told to try again.
pub(crate) const DOWNLOADS_MAX: usize = 64;

/// Slowest transfer of a file, in bytes per second, up or down: one that takes longer altogether gives its place to others.
const TRANSFER_RATE_MIN: u64 = 32 << 10;

/// So long may the transfer of a file take, however small it is.
const TRANSFER_TIME_MIN: Duration = Duration::from_mins(1);

/// Longest wait for downloads at shutdown.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_known_by_their_first_bytes_only() {
        for (start, kind) in [
            (&b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"[..], "image/png"),
            (b"\xff\xd8\xff\xe0\0\x10JFIF", "image/jpeg"),
            (b"GIF87a", "image/gif"),
            (b"GIF89a....", "image/gif"),
            (b"RIFF\x24\0\0\0WEBPVP8 ", "image/webp"),
            (b"RIFF\x24\0\0\0WAVEfmt ", ANYTHING),
            (b"<svg xmlns='http://www.w3.org/2000/svg'>", ANYTHING),
            (b"<html><script>", ANYTHING),
            (b"%PDF-1.7", ANYTHING),
            (b"GIF8", ANYTHING),
            (b"\x89PNG", ANYTHING),
            (b"", ANYTHING),
        ] {
            assert_eq!(kind_of(start), kind, "{start:?}");
            assert!(kind_of(&start[..start.len().min(KIND_BYTES)]) == kind);
        }
    }

    #[test]
    fn names_of_files_are_plain() {
        for good in ["a.png", "Über uns (2).pdf", ".profile", "写真.jpg", &"x".repeat(120)] {
            check_name(good).unwrap();
        }
        for bad in ["", " ", "a/b", "..\\b", "a\nb", "a\0", &"x".repeat(121)] {
            check_name(bad).unwrap_err();
        }
    }

    #[test]
    fn sizes_are_told_as_people_say_them() {
        for (bytes, said) in [(10 << 20, "10 MiB"), (1536, "1536 bytes"), (2048, "2 KiB")] {
            assert_eq!(Bytes(bytes).to_string(), said);
        }
    }
}
