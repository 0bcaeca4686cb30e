//! Signed permissions that any instance of the chat can check: JSON Web Tokens (RFC 7519) with a key of their own.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use hookwire_client::AccessKey;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::store::Attachment;

/// Something that is permitted for a while.
pub(super) trait Ticket: Serialize + DeserializeOwned {
    /// Tells kinds of tickets apart: none is good for another purpose.
    const PURPOSE: &'static str;
    const LIFETIME: Duration;
    /// The end falls on a multiple of this, a little later than the lifetime says: tickets made shortly after each other are the same.
    const STEP: Duration = Duration::from_secs(1);
}

/// A user may bring one file for a conversation.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Upload {
    pub(super) user: String,
    pub(super) conversation: String,
    pub(super) name: String,
    /// Exactly so many.
    pub(super) bytes: u64,
}

impl Ticket for Upload {
    const PURPOSE: &'static str = "upload";
    const LIFETIME: Duration = Duration::from_mins(10);
}

/// A user brought a file, and may send it in a message.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Receipt {
    pub(super) user: String,
    pub(super) conversation: String,
    pub(super) attachment: Attachment,
}

impl Ticket for Receipt {
    const PURPOSE: &'static str = "receipt";
    const LIFETIME: Duration = Duration::from_hours(24);
}

/// Whoever holds it may read an attachment.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Link {
    /// The digest of the conversation's id.
    pub(super) folder: String,
    pub(super) attachment: Attachment,
}

impl Ticket for Link {
    const PURPOSE: &'static str = "link";
    const LIFETIME: Duration = Duration::from_hours(1);
    /// So that browsers keep what they have seen.
    const STEP: Duration = Duration::from_hours(1);
}

/// Signs tickets and reads them.
pub(crate) struct Tickets {
    signing: EncodingKey,
    reading: DecodingKey,
}

#[derive(Serialize, Deserialize)]
struct Claims<T> {
    aud: String,
    exp: u64,
    ticket: T,
}

impl Tickets {
    /// Uses a key that follows from the one of the service and is good for nothing else: the service takes tokens with its own.
    pub(crate) fn new(service: &AccessKey) -> Self {
        let mut mac = Hmac::<Sha256>::new_from_slice(service.reveal().as_bytes())
            .expect("HMAC takes keys of every length (RFC 2104, section 3)");
        mac.update(b"hookwire chat attachments");
        let key = mac.finalize().into_bytes();
        Self { signing: EncodingKey::from_secret(&key), reading: DecodingKey::from_secret(&key) }
    }

    pub(super) fn sign<T: Ticket>(&self, ticket: &T, now: SystemTime) -> String {
        let end = now.duration_since(UNIX_EPOCH).unwrap_or_default() + T::LIFETIME;
        let exp = end.as_secs().next_multiple_of(T::STEP.as_secs());
        let claims = Claims { aud: T::PURPOSE.to_owned(), exp, ticket };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.signing)
            .expect("texts and numbers can be written as JSON, and HMAC signs everything")
    }

    /// # Errors
    /// [`jsonwebtoken::errors::Error`] when it was not signed here for this purpose, or its time is over.
    pub(super) fn read<T: Ticket>(&self, ticket: &str) -> Result<T, jsonwebtoken::errors::Error> {
        let mut rules = Validation::new(Algorithm::HS256);
        rules.set_audience(&[T::PURPOSE]);
        rules.set_required_spec_claims(&["exp", "aud"]);
        rules.leeway = CLOCKS_APART_MAX.as_secs();
        Ok(jsonwebtoken::decode::<Claims<T>>(ticket, &self.reading, &rules)?.claims.ticket)
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Tickets")
    }
}

/// How far the clocks of instances may be apart.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn tickets(key: &str) -> Tickets {
        Tickets::new(&AccessKey::parse(key).unwrap())
    }

    const KEY: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH";

    fn upload() -> Upload {
        Upload {
            user: "ann".into(), conversation: "public".into(), name: "ä.png".into(), bytes: 7
        }
    }

    fn link() -> Link {
        let attachment = Attachment {
            id: "0f".repeat(16),
            name: "a".into(),
            kind: "image/png".into(),
            bytes: 1,
        };
        Link { folder: "00".into(), attachment }
    }

    #[test]
    fn every_instance_reads_what_another_one_signed() {
        let now = SystemTime::now();
        let ticket = tickets(KEY).sign(&upload(), now);
        assert_eq!(tickets(KEY).read::<Upload>(&ticket).unwrap(), upload());
        assert!(tickets(&KEY.to_lowercase()).read::<Upload>(&ticket).is_err());
    }

    #[test]
    fn a_ticket_is_good_for_one_purpose_and_a_while() {
        let (tickets, now) = (tickets(KEY), SystemTime::now());
        let ticket = tickets.sign(&upload(), now);
        assert!(tickets.read::<Receipt>(&ticket).is_err());
        assert!(tickets.read::<Link>(&ticket).is_err());
        let old = tickets.sign(&upload(), now - (Upload::LIFETIME + CLOCKS_APART_MAX * 2));
        assert!(tickets.read::<Upload>(&old).is_err());
        let link = |age| tickets.read::<Link>(&tickets.sign(&link(), now - age));
        assert!(link(Duration::from_mins(59)).is_ok());
        assert!(link(2 * Link::LIFETIME + 2 * CLOCKS_APART_MAX).is_err());
    }

    #[test]
    fn what_was_changed_is_refused() {
        let tickets = tickets(KEY);
        let ticket = tickets.sign(&upload(), SystemTime::now());
        for place in 0..ticket.len() - 1 {
            let mut changed = ticket.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(tickets.read::<Upload>(&changed).is_err(), "{place}");
        }
        // Signed with the key of the service itself, as its clients' tokens are.
        let claims = Claims { aud: "upload".into(), exp: u64::MAX >> 12, ticket: upload() };
        let service = EncodingKey::from_secret(KEY.as_bytes());
        let token = jsonwebtoken::encode(&Header::default(), &claims, &service).unwrap();
        assert!(tickets.read::<Upload>(&token).is_err());
        for nonsense in ["", ".", "..", "e30.e30.", "ä"] {
            assert!(tickets.read::<Upload>(nonsense).is_err());
        }
    }

    #[test]
    fn links_made_within_an_hour_are_the_same() {
        let tickets = tickets(KEY);
        let hour = UNIX_EPOCH + Duration::from_hours(500_000);
        let at = |minutes| tickets.sign(&link(), hour + Duration::from_mins(minutes));
        assert_eq!(at(1), at(59));
        assert_ne!(at(59), at(61));
    }
}
