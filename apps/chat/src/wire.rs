//! Frames between the page and the functions. What comes from outside is checked here.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::refusal::{Code, Refusal};

/// The WebSocket subprotocol that these frames make up.
pub(crate) const SUBPROTOCOL: &str = "hookwire.chat.v1";

/// What a page asks for. Fields that are not known are passed over.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Operation {
    Hello {},
    Open { conversation: String, before: Option<u64>, after: Option<u64>, limit: Option<u64> },
    Send { conversation: String, key: String, text: String, attachments: Option<Vec<String>> },
    Attach { conversation: String, name: String, size: u64 },
    Read { conversation: String, seq: u64 },
    Direct { user: String },
    Create { title: String, members: Option<Vec<String>> },
    Invite { conversation: String, user: String },
    Join { conversation: String },
    Leave { conversation: String },
}

/// A frame of a page: the number that its answer repeats, and what it asks for.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) re: u64,
    pub(crate) operation: Result<Operation, Refusal>,
}

impl Request {
    /// Reads a frame. One without a readable number is answered with number 0.
    pub(crate) fn parse(frame: &[u8]) -> Self {
        let refused = |error: &serde_json::Error| {
            let fault: String = error.to_string().chars().take(FAULT_CHARACTERS_MAX).collect();
            Refusal::new(Code::Invalid, format!("The request is not understood: {fault}."))
        };
        let frame: Value = match serde_json::from_slice(frame) {
            Ok(frame) => frame,
            Err(error) => return Self { re: 0, operation: Err(refused(&error)) },
        };
        let Some(re) = frame.get("re").and_then(Value::as_u64).filter(|re| *re <= NUMBER_MAX)
        else {
            let text = format!("The request needs a whole number “re”, at most {NUMBER_MAX}.");
            return Self { re: 0, operation: Err(Refusal::new(Code::Invalid, text)) };
        };
        Self { re, operation: Operation::deserialize(frame).map_err(|error| refused(&error)) }
    }
}

/// A frame that answers a request.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum AnswerFrame<'a> {
    Ok {
        re: u64,
        #[serde(flatten)]
        answer: &'a Answer,
    },
    Error {
        re: u64,
        code: Code,
        message: &'a str,
    },
}

/// What an operation that was carried out answers.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Answer {
    Hello { user: String, conversations: Vec<Conversation>, users: Vec<User> },
    Page { messages: Vec<Message>, more: bool },
    Message { message: Message },
    Upload { upload: String },
    Conversation { conversation: Conversation },
    Nothing {},
}

/// A frame that nobody asked for.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Push<'a> {
    Message { message: &'a Message },
    Presence { user: &'a str, online: bool },
    Read { conversation: &'a str, seq: u64 },
    Conversation { conversation: &'a Conversation },
    Left { conversation: &'a str },
}

impl Push<'_> {
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self)
            .expect("texts, numbers and lists of them can be written as JSON")
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) online: bool,
}

/// A conversation as one user sees it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Conversation {
    pub(crate) id: String,
    pub(crate) kind: &'static str,
    pub(crate) title: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) members: Option<Vec<String>>,
    pub(crate) invited: Vec<String>,
    pub(crate) state: &'static str,
    pub(crate) last_seq: u64,
    pub(crate) read_seq: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Message {
    /// The same for every copy of a message, different from every other message.
    pub(crate) id: String,
    pub(crate) conversation: String,
    pub(crate) seq: u64,
    pub(crate) user: String,
    pub(crate) text: String,
    pub(crate) time: String,
    pub(crate) key: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) attachments: Vec<Attachment>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Attachment {
    pub(crate) id: String,
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// In bytes.
    pub(crate) size: u64,
    /// Where it can be read for a while, below the functions.
    pub(crate) url: String,
}

/// Largest number in a frame: what every JSON parser keeps exactly (RFC 8259, section 6).
pub(crate) const NUMBER_MAX: u64 = (1 << 53) - 1;

/// Characters of a parser's complaint that are passed on.
const FAULT_CHARACTERS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(frame: &str) -> (u64, Result<Operation, Code>) {
        let request = Request::parse(frame.as_bytes());
        (request.re, request.operation.map_err(|refusal| refusal.code))
    }

    #[test]
    fn requests_are_read() {
        assert_eq!(parsed(r#"{"re":1,"op":"hello"}"#), (1, Ok(Operation::Hello {})));
        assert_eq!(
            parsed(
                r#"{"op":"open","re":9007199254740991,"conversation":"public","after":3,"new":{}}"#
            ),
            (
                NUMBER_MAX,
                Ok(Operation::Open {
                    conversation: "public".into(),
                    before: None,
                    after: Some(3),
                    limit: None
                })
            )
        );
        assert_eq!(
            parsed(r#"{"re":0,"op":"create","title":"x"}"#),
            (0, Ok(Operation::Create { title: "x".into(), members: None }))
        );
    }

    #[test]
    fn hostile_frames_are_refused_with_their_number_where_it_is_readable() {
        let deep =
            format!(r#"{{"re":1,"op":"hello","x":{}1{}}}"#, "[".repeat(9_000), "]".repeat(9_000));
        for (frame, re) in [
            ("", 0),
            ("null", 0),
            ("[]", 0),
            ("{", 0),
            ("\u{0}", 0),
            (r#"{"op":"hello"}"#, 0),
            (r#"{"re":-1,"op":"hello"}"#, 0),
            (r#"{"re":1.5,"op":"hello"}"#, 0),
            (r#"{"re":"1","op":"hello"}"#, 0),
            (r#"{"re":9007199254740992,"op":"hello"}"#, 0),
            (r#"{"re":7}"#, 7),
            (r#"{"re":7,"op":"explode"}"#, 7),
            (r#"{"re":7,"op":["hello"]}"#, 7),
            (r#"{"re":7,"op":"send","conversation":"public","key":"k"}"#, 7),
            (r#"{"re":7,"op":"send","conversation":{},"key":"k","text":"t"}"#, 7),
            (r#"{"re":7,"op":"read","conversation":"public","seq":-1}"#, 7),
            (r#"{"re":7,"op":"create","title":"x","members":"ann"}"#, 7),
            (deep.as_str(), 0),
        ] {
            assert_eq!(
                parsed(frame),
                (re, Err(Code::Invalid)),
                "{}",
                &frame[..frame.len().min(80)]
            );
        }
        assert_eq!(Request::parse(b"{\"re\":1,\"op\":\"\xff\"}").re, 0);
    }

    #[test]
    fn complaints_are_short() {
        let frame = format!(r#"{{"re":1,"op":"{}"}}"#, "x".repeat(100_000));
        let refusal = Request::parse(frame.as_bytes()).operation.unwrap_err();
        assert!(refusal.message.chars().count() < 300);
    }

    #[test]
    fn answers_have_the_documented_shape() {
        let json = |frame: &AnswerFrame<'_>| serde_json::to_string(frame).unwrap();
        assert_eq!(
            json(&AnswerFrame::Ok { re: 3, answer: &Answer::Nothing {} }),
            r#"{"type":"ok","re":3}"#
        );
        let page = Answer::Page { messages: Vec::new(), more: false };
        assert_eq!(
            json(&AnswerFrame::Ok { re: 3, answer: &page }),
            r#"{"type":"ok","re":3,"messages":[],"more":false}"#
        );
        let error = AnswerFrame::Error { re: 3, code: Code::TooLarge, message: "So." };
        assert_eq!(json(&error), r#"{"type":"error","re":3,"code":"too_large","message":"So."}"#);
        let push = Push::Presence { user: "ann", online: true };
        assert_eq!(push.to_json(), r#"{"type":"presence","user":"ann","online":true}"#);
    }
}
