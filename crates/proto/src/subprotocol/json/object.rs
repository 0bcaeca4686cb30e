//! Objects of the JSON encoding: read as raw properties, written property by property.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::super::DecodeError;
use super::super::rules::{PAIRS_MAX, rule};

macro_rules! fields {
    ($($field:ident = $name:literal),* $(,)?) => {
        /// The properties that the protocol has, of all its objects.
        #[derive(Debug, Clone, Copy)]
        pub(super) enum Field { $($field),* }

        impl Field {
            const COUNT: usize = [$($name),*].len();

            /// Returns the property's name on the wire.
            pub(super) const fn name(self) -> &'static str {
                match self { $(Self::$field => $name),* }
            }

            fn parse(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$field),)*
                    _ => None,
                }
            }
        }
    };
}

fields! {
    Type = "type",
    Event = "event",
    Group = "group",
    AckId = "ackId",
    NoEcho = "noEcho",
    TtlSeconds = "ttlSeconds",
    DataType = "dataType",
    Data = "data",
    Metadata = "metadata",
    InvocationId = "invocationId",
    Target = "target",
    Success = "success",
    Stream = "stream",
    StreamId = "streamId",
    StreamSequenceId = "streamSequenceId",
    IdleTimeoutMs = "idleTimeoutMs",
    EndOfStream = "endOfStream",
    Error = "error",
    Name = "name",
    Message = "message",
    UserErrorCode = "userErrorCode",
    State = "state",
    SequenceId = "sequenceId",
    ExpectedSequenceId = "expectedSequenceId",
    From = "from",
    FromUserId = "fromUserId",
    UserId = "userId",
    ConnectionId = "connectionId",
    ReconnectionToken = "reconnectionToken",
    Items = "items",
    UpdatedAt = "updatedAt",
}

/// The known properties of one object, not yet parsed. Of a property given twice the last counts; others are skipped.
pub(super) struct Object<'a> {
    values: [Option<&'a RawValue>; Field::COUNT],
}

impl<'a> Object<'a> {
    /// Returns the object that is all of `message`.
    pub(super) fn parse(message: &'a [u8]) -> Result<Self, DecodeError> {
        let text = simdutf8::basic::from_utf8(message).ok();
        let object = text.and_then(|text| serde_json::from_str(text).ok());
        object.ok_or(DecodeError::Syntax("a JSON object"))
    }

    /// Returns the value as it stands, `null` too.
    pub(super) const fn raw(&self, field: Field) -> Option<&'a RawValue> {
        self.values[field as usize]
    }

    /// Returns the value unless it is absent or `null`, which means the same.
    pub(super) fn given(&self, field: Field) -> Option<&'a RawValue> {
        self.raw(field).filter(|value| value.get() != "null")
    }

    /// Returns a value that has to be `what`.
    pub(super) fn parsed<T: DeserializeOwned>(
        &self,
        field: Field,
        what: &str,
    ) -> Result<Option<T>, DecodeError> {
        let parse = |value: &RawValue| serde_json::from_str(value.get());
        self.given(field).map(parse).transpose().map_err(|_| wrong(field, what))
    }

    pub(super) fn string(&self, field: Field) -> Result<Option<Cow<'a, str>>, DecodeError> {
        let read = |value| string(value).ok_or_else(|| wrong(field, "a string"));
        self.given(field).map(read).transpose()
    }

    pub(super) fn number(&self, field: Field) -> Result<Option<u64>, DecodeError> {
        self.parsed(field, "an unsigned 64-bit number")
    }

    pub(super) fn object(&self, field: Field) -> Result<Option<Self>, DecodeError> {
        let parse = |value: &'a RawValue| serde_json::from_str(value.get());
        self.given(field).map(parse).transpose().map_err(|_| wrong(field, "an object"))
    }

    /// Returns each object of a list by `read`, one after the other; absent: none.
    pub(super) fn list<T>(
        &self,
        field: Field,
        read: impl Fn(&Object<'a>) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let not_objects = || wrong(field, "a list of objects");
        let Some(list) = self.given(field) else { return Ok(Vec::new()) };
        let values: Vec<&'a RawValue> =
            serde_json::from_str(list.get()).map_err(|_| not_objects())?;
        let parsed = values.into_iter().map(|value| match serde_json::from_str(value.get()) {
            Ok(object) => read(&object),
            Err(_) => Err(not_objects()),
        });
        parsed.collect()
    }

    /// Returns an object of nothing but strings, in its order.
    pub(super) fn pairs(&self, field: Field) -> Result<Option<Vec<(String, String)>>, DecodeError> {
        let pairs: Option<Pairs> = self.parsed(field, "an object of at most 8,192 strings")?;
        Ok(pairs.map(|pairs| pairs.0))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let mut values = [None; Field::COUNT];
        while let Some(Key(field)) = map.next_key()? {
            match field {
                Some(field) => values[field as usize] = Some(map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Object { values })
    }
}

/// A property's name; `None`: not one of the protocol's.
struct Key(Option<Field>);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KeyVisitor)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a property name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Key, E> {
        Ok(Key(Field::parse(name)))
    }
}

struct Pairs(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Pairs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            if pairs.len() == PAIRS_MAX {
                return Err(A::Error::custom("too many pairs"));
            }
            pairs.push(pair);
        }
        Ok(Pairs(pairs))
    }
}

/// Returns the text of a JSON string, borrowed if nothing in it is escaped; `None` if it is something else, or no text at all (half of a
/// surrogate pair).
pub(super) fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    let text = value.get().strip_prefix('"')?.strip_suffix('"')?;
    if text.contains('\\') {
        serde_json::from_str(value.get()).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(text))
    }
}

pub(super) fn wrong(field: Field, what: &str) -> DecodeError {
    rule(format!("`{}` must be {what}", field.name()))
}

/// Writes properties one after the other. Nothing is ever written as `null`.
pub(super) struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// Returns the object that `write` fills.
    pub(super) fn object(write: impl FnOnce(&mut Self)) -> Bytes {
        let mut out = Self { out: Vec::with_capacity(128) };
        out.braces(write);
        out.out.into()
    }

    /// Goes on after what has been written.
    pub(super) const fn after(out: Vec<u8>) -> Self {
        Self { out }
    }

    /// Ends an object that was begun elsewhere.
    pub(super) fn end(mut self) -> Bytes {
        self.out.push(b'}');
        self.out.into()
    }

    pub(super) fn string(&mut self, field: Field, value: &str) {
        self.key(field);
        self.put_string(value);
    }

    pub(super) fn optional(&mut self, field: Field, value: Option<&str>) {
        if let Some(value) = value {
            self.string(field, value);
        }
    }

    pub(super) fn number(&mut self, field: Field, value: u64) {
        self.key(field);
        serde_json::to_writer(&mut self.out, &value).expect("a vector takes every number");
    }

    pub(super) fn optional_number(&mut self, field: Field, value: Option<u64>) {
        if let Some(value) = value {
            self.number(field, value);
        }
    }

    pub(super) fn boolean(&mut self, field: Field, value: bool) {
        self.key(field);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// Writes a JSON value as it is.
    pub(super) fn json(&mut self, field: Field, value: &str) {
        self.key(field);
        self.out.extend_from_slice(value.as_bytes());
    }

    pub(super) fn base64(&mut self, field: Field, value: &[u8]) {
        self.key(field);
        self.out.push(b'"');
        let start = self.out.len();
        self.out.resize(start + value.len().div_ceil(3) * 4, 0);
        STANDARD.encode_slice(value, &mut self.out[start..]).expect("the room was made above");
        self.out.push(b'"');
    }

    pub(super) fn nested(&mut self, field: Field, write: impl FnOnce(&mut Self)) {
        self.key(field);
        self.braces(write);
    }

    pub(super) fn pairs<'p>(
        &mut self,
        field: Field,
        pairs: impl Iterator<Item = (&'p str, &'p str)>,
    ) {
        self.nested(field, |out| {
            for (name, value) in pairs {
                out.comma();
                out.put_string(name);
                out.out.push(b':');
                out.put_string(value);
            }
        });
    }

    pub(super) fn list<T>(&mut self, field: Field, items: &[T], write: impl Fn(&mut Self, &T)) {
        self.key(field);
        self.out.push(b'[');
        for item in items {
            self.comma();
            self.braces(|out| write(out, item));
        }
        self.out.push(b']');
    }

    fn braces(&mut self, write: impl FnOnce(&mut Self)) {
        self.out.push(b'{');
        write(self);
        self.out.push(b'}');
    }

    fn key(&mut self, field: Field) {
        self.comma();
        self.out.push(b'"');
        self.out.extend_from_slice(field.name().as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    /// Separates from what came before, if there is something: no value ends with an opening bracket, and a head with a comma.
    fn comma(&mut self) {
        if !matches!(self.out.last(), None | Some(b'{' | b'[' | b',')) {
            self.out.push(b',');
        }
    }

    fn put_string(&mut self, value: &str) {
        serde_json::to_writer(&mut self.out, value).expect("a vector takes every string");
    }
}
