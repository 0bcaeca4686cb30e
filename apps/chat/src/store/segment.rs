//! Segments: messages that are old enough to be never written again.
//!
//! Each holds [`SEGMENT_MESSAGES`] messages, so the name of the one that holds a given message follows from its number: no index is
//! needed, however long a conversation is. A segment holds messages that are part of the chain of versions already, so it is the
//! same whoever writes it, and it is written before the first version that leaves its messages out.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::conversation::{Conversation, Message, conversation_folder};
use super::{StoreError, chain};
use crate::refusal;

/// What a segment holds.
#[derive(Serialize, Deserialize)]
struct Segment<'a> {
    format: u32,
    conversation: std::borrow::Cow<'a, str>,
    /// The number of the first message.
    from: u64,
    messages: std::borrow::Cow<'a, [Message]>,
}

/// Returns the messages numbered `first` to `last`, which the conversation must have. Costs one read per segment that they lie in.
///
/// # Errors
/// [`StoreError`] when a segment is missing or cannot be read.
pub(super) async fn messages(
    objects: &Arc<dyn ObjectStore>,
    conversation: &Conversation,
    first: u64,
    last: u64,
) -> Result<Vec<(u64, Message)>, StoreError> {
    let starts: Vec<u64> = starts(first, last.min(conversation.sealed)).collect();
    let sealed: Vec<(u64, Vec<Message>)> = stream::iter(starts)
        .map(|from| async move { Ok((from, read(objects, &conversation.id, from).await?)) })
        .buffered(SEGMENTS_READ_AT_ONCE_MAX)
        .try_collect::<Vec<_>>()
        .await?;
    let tail = std::iter::once((conversation.sealed + 1, conversation.tail.clone()));
    let numbered =
        sealed.into_iter().chain(tail).flat_map(|(from, messages)| (from..).zip(messages));
    Ok(numbered.filter(|(seq, _)| (first..=last).contains(seq)).collect())
}

/// Reads whole segments from the one that begins with `first` to the one that ends with `last`. One that cannot be understood is
/// left out and logged: it must not keep a conversation from going on.
pub(super) async fn read_all(
    objects: &Arc<dyn ObjectStore>,
    id: &str,
    first: u64,
    last: u64,
) -> Result<Vec<(u64, Vec<Message>)>, StoreError> {
    let starts: Vec<u64> = starts(first, last).collect();
    let read: Vec<_> = stream::iter(starts)
        .map(|from| async move { (from, read(objects, id, from).await) })
        .buffered(SEGMENTS_READ_AT_ONCE_MAX)
        .collect()
        .await;
    let mut segments = Vec::with_capacity(read.len());
    for (from, segment) in read {
        match segment {
            Ok(messages) => segments.push((from, messages)),
            Err(error) if error.is_about_content() => {
                tracing::error!(error = %refusal::Chain(&error), "a segment cannot be used");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(segments)
}

/// Writes a segment.
pub(super) async fn write(
    objects: &Arc<dyn ObjectStore>,
    id: &str,
    from: u64,
    messages: &[Message],
) -> Result<(), StoreError> {
    let path = path(id, from);
    let segment =
        Segment { format: chain::FORMAT, conversation: id.into(), from, messages: messages.into() };
    let bytes = serde_json::to_vec(&segment)
        .map_err(|source| StoreError::Unwritable { path: path.to_string(), source })?;
    chain::write(objects, &path, bytes).await
}

async fn read(
    objects: &Arc<dyn ObjectStore>,
    id: &str,
    from: u64,
) -> Result<Vec<Message>, StoreError> {
    let path = path(id, from);
    let bytes = chain::read(objects, &path)
        .await?
        .ok_or_else(|| StoreError::Missing { path: path.to_string() })?;
    let segment: Segment<'_> = chain::parse(&path, &bytes)?;
    let fits = segment.conversation == id
        && segment.from == from
        && segment.messages.len() == places(SEGMENT_MESSAGES);
    if !fits {
        let source = "it is not the segment of this place".into();
        return Err(StoreError::Corrupt { path: path.to_string(), source });
    }
    Ok(segment.messages.into_owned())
}

/// Returns the first numbers of the segments that hold `first` to `last`.
fn starts(first: u64, last: u64) -> impl Iterator<Item = u64> {
    let begin = first.saturating_sub(1) / SEGMENT_MESSAGES;
    (begin..last.div_ceil(SEGMENT_MESSAGES)).map(|index| index * SEGMENT_MESSAGES + 1)
}

fn path(id: &str, from: u64) -> Path {
    conversation_folder(id).join("segments").join(format!("{from:020}.json"))
}

/// Returns a small count of messages as a number of places in a list.
pub(super) fn places(count: u64) -> usize {
    usize::try_from(count).expect("counts of messages in one object are small")
}

/// Messages in each segment. Part of the format: it never changes.
pub(crate) const SEGMENT_MESSAGES: u64 = 64;

/// Segments that are read side by side.
const SEGMENTS_READ_AT_ONCE_MAX: usize = 16;
