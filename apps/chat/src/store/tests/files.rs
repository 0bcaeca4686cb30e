//! Files that are brought, kept, and forgotten.

use bytes::Bytes;

use super::*;

const DAY: Duration = Duration::from_hours(24);

async fn bring(store: &Store, content: &[u8]) -> Attachment {
    let mut uploading = store.begin_upload();
    for part in content.chunks(1 << 20) {
        uploading.put(Bytes::copy_from_slice(part)).await.unwrap();
    }
    let id = uploading.finish().await.unwrap();
    let (name, kind) = ("a".to_owned(), "image/png".to_owned());
    Attachment { id, name, kind, bytes: content.len() as u64 }
}

async fn content(store: &Store, attachment: &Attachment) -> Option<Bytes> {
    let found = store.attachment(&conversation_digest("public"), &attachment.id).await.unwrap()?;
    Some(found.bytes().await.unwrap())
}

async fn count(objects: &Arc<dyn ObjectStore>, folder: &str) -> usize {
    objects.list(Some(&Path::from(folder))).count().await
}

#[tokio::test]
async fn what_is_kept_outlasts_what_was_brought() {
    let objects = memory();
    let (store, _) = store_on(&objects, 1);
    let large: Vec<u8> = (0..12_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let (sent, unsent) = (bring(&store, &large).await, bring(&store, b"unsent").await);
    assert_eq!(content(&store, &sent).await, None, "not yet a part of the conversation");
    let id = ConversationId::Public;
    let sent = [sent];
    store.keep_attachments(&id, &sent).await.unwrap();
    store.keep_attachments(&id, &sent).await.unwrap();

    let now = SystemTime::now();
    assert_eq!(store.delete_uploads(now, DAY).await.unwrap(), 0);
    assert_eq!(count(&objects, "uploads").await, 2);
    assert_eq!(store.delete_uploads(now + 2 * DAY, DAY).await.unwrap(), 2);
    assert_eq!(count(&objects, "uploads").await, 0);
    assert_eq!(content(&store, &sent[0]).await.unwrap(), large);
    store.keep_attachments(&id, &sent).await.unwrap();
    let gone = store.keep_attachments(&id, &[unsent]).await.unwrap_err();
    assert!(matches!(gone, StoreError::Missing { .. }));
}

#[tokio::test]
async fn an_upload_that_is_given_up_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let objects = crate::storage::Storage::folder(folder.path()).open().await.unwrap();
    let (store, _) = store_on(&objects, 1);
    let mut uploading = store.begin_upload();
    for _ in 0..12 {
        uploading.put(Bytes::from(vec![7; 1 << 20])).await.unwrap();
    }
    uploading.abandon().await;
    let uploads = folder.path().join("uploads");
    assert_eq!(std::fs::read_dir(uploads).map_or(0, Iterator::count), 0);
}

#[tokio::test]
async fn a_file_that_is_kept_again_lies_in_the_folder_once() {
    let folder = tempfile::tempdir().unwrap();
    let objects = crate::storage::Storage::folder(folder.path()).open().await.unwrap();
    let (store, _) = store_on(&objects, 1);
    let sent = [bring(&store, b"sent").await];
    for _ in 0..3 {
        store.keep_attachments(&ConversationId::Public, &sent).await.unwrap();
    }
    let kept = Path::from("conversations").join(conversation_digest("public"));
    let kept = folder.path().join(kept.join("attachments").as_ref());
    let names = std::fs::read_dir(kept).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), [&*sent[0].id]);
    assert_eq!(content(&store, &sent[0]).await.unwrap(), "sent");
}
