//! What a request brings for clients: its body as data of a kind, and metadata (Web PubSub protocol, "Message bodies and conversion").

use bytes::Bytes;
use encoding_rs::{Encoding, UTF_8};
use hookwire_proto::data::{Data, DataKind, Metadata};
use http::{HeaderMap, StatusCode, header};
use serde::de::IgnoredAny;

use crate::api_error::ApiError;

/// Headers that start so are metadata.
const METADATA_PREFIX: &str = "x-webpubsub-metadata-";

/// How a body is to be read.
#[derive(Debug, Clone, Copy)]
pub(super) enum BodyType {
    Text(&'static Encoding),
    Json(&'static Encoding),
    Binary,
}

impl BodyType {
    /// Returns what `Content-Type` says; without one a body is binary.
    ///
    /// # Errors
    /// 415 for another type, or an unknown `charset`.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(Self::Binary) };
        let value = value.to_str().map_err(|_| unsupported())?;
        let mut parts = value.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let charset = parts.filter_map(|part| part.split_once('=')).find_map(|(name, value)| {
            name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
        });
        let encoding = match charset {
            None => UTF_8,
            Some(label) => Encoding::for_label_no_replacement(label.as_bytes())
                .ok_or_else(|| not_supported("the charset of the body is not known"))?,
        };
        match media_type.to_ascii_lowercase().as_str() {
            "text/plain" => Ok(Self::Text(encoding)),
            "application/json" => Ok(Self::Json(encoding)),
            "application/octet-stream" => Ok(Self::Binary),
            _ => Err(unsupported()),
        }
    }

    /// Returns the data that `body` is, as UTF-8 if it is text or JSON.
    ///
    /// # Errors
    /// 400 when it is not what its type says, 413 when it has more than `limit` bytes as UTF-8.
    pub(super) fn read(self, body: Bytes, limit: usize) -> Result<Data, ApiError> {
        match self {
            Self::Binary => Ok(Data { kind: DataKind::Binary, bytes: body }),
            Self::Text(encoding) => {
                let bytes = to_utf8(encoding, &body, limit)?.ok_or_else(|| {
                    let name = encoding.name();
                    ApiError::bad_request(format!("The request body is not valid {name} text."))
                })?;
                Ok(Data { kind: DataKind::Text, bytes })
            }
            Self::Json(encoding) => {
                let bytes = to_utf8(encoding, &body, limit)?.ok_or_else(invalid_json)?;
                serde_json::from_slice::<IgnoredAny>(&bytes).map_err(|_| invalid_json())?;
                Ok(Data { kind: DataKind::Json, bytes })
            }
        }
    }
}

/// Returns the text as UTF-8 without a byte order mark, `None` when the bytes are not of the encoding. UTF-8 is not copied.
fn to_utf8(
    encoding: &'static Encoding,
    body: &Bytes,
    limit: usize,
) -> Result<Option<Bytes>, ApiError> {
    let Some(text) = encoding.decode_without_bom_handling_and_without_replacement(body) else {
        return Ok(None);
    };
    let plain = text.strip_prefix('\u{feff}').unwrap_or(&text);
    if limit < plain.len() {
        let message = format!("the body exceeds {limit} bytes as UTF-8");
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLarge", message));
    }
    Ok(Some(match text {
        std::borrow::Cow::Borrowed(_) => body.slice(body.len() - plain.len()..),
        std::borrow::Cow::Owned(_) => Bytes::copy_from_slice(plain.as_bytes()),
    }))
}

/// Returns the metadata of a request: of a key that comes several times, the last value; of a list, the last part.
///
/// # Errors
/// 400 when it is not within its limits.
pub(super) fn metadata(headers: &HeaderMap) -> Result<Metadata, ApiError> {
    let mut pairs = Vec::new();
    for (name, value) in headers {
        let Some(key) = name.as_str().strip_prefix(METADATA_PREFIX) else { continue };
        let value = value
            .to_str()
            .map_err(|_| ApiError::bad_request("a metadata value must be printable ASCII"))?;
        let last = value.rsplit(',').next().unwrap_or_default();
        pairs.push((key.to_owned(), last.to_owned()));
    }
    Metadata::new(pairs).map_err(|error| ApiError::bad_request(error.to_string()))
}

fn invalid_json() -> ApiError {
    ApiError::bad_request("The request body is not a valid JSON.")
}

fn unsupported() -> ApiError {
    not_supported("the body must be text/plain, application/json or application/octet-stream")
}

fn not_supported(message: &str) -> ApiError {
    ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    const LIMIT: usize = 64;

    fn headers(pairs: &[(&str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    fn read(content_type: Option<&str>, body: &[u8]) -> Result<(DataKind, Vec<u8>), u16> {
        let value = content_type.map(|value| ("content-type", value.as_bytes()));
        let data = BodyType::of(&headers(value.as_slice()))
            .and_then(|body_type| body_type.read(Bytes::copy_from_slice(body), LIMIT));
        let data = data.map_err(|error| error.status().as_u16())?;
        Ok((data.kind, data.bytes.to_vec()))
    }

    #[test]
    fn the_type_of_a_body_decides_what_it_is() {
        use DataKind::{Binary, Json, Text};
        for (content_type, body, kind) in [
            (Some("text/plain"), &b"hi"[..], Text),
            (Some("TEXT/Plain ; x=y; Charset=\"UTF-8\""), "hä".as_bytes(), Text),
            (Some("text/plain"), b"", Text),
            (Some("application/json"), b" {\"a\": [1.0e400, \"\\u00e4\"]} ", Json),
            (Some("application/json; charset=utf-8"), b"\"text\"", Json),
            (Some("application/json"), b"null", Json),
            (Some("application/octet-stream"), b"\xff\x00", Binary),
            (None, b"{}", Binary),
        ] {
            assert_eq!(read(content_type, body), Ok((kind, body.to_vec())), "{content_type:?}");
        }
        for (content_type, body, status) in [
            ("text/html", &b"x"[..], 415),
            ("", b"x", 415),
            ("application/jsonp", b"1", 415),
            ("text/plain; charset=klingon", b"x", 415),
            ("text/plain; charset=utf-7", b"x", 415),
            ("text/plain", b"\xff", 400),
            ("application/json", b"", 400),
            ("application/json", b"{]", 400),
            ("application/json", b"1 2", 400),
            ("application/json", b"\"\xff\"", 400),
            ("application/json", b"'a'", 400),
        ] {
            assert_eq!(read(Some(content_type), body), Err(status), "{content_type} {body:?}");
        }
    }

    #[test]
    fn other_character_sets_become_utf_8() {
        let text = |text: &str| Ok((DataKind::Text, text.as_bytes().to_vec()));
        assert_eq!(read(Some("text/plain; charset=iso-8859-1"), b"h\xe4"), text("hä"));
        assert_eq!(read(Some("text/plain; charset=utf-16le"), b"\xff\xfeh\0\xe4\0"), text("hä"));
        assert_eq!(read(Some("text/plain;charset=utf-16be"), b"\0h"), text("h"));
        assert_eq!(read(Some("text/plain"), b"\xef\xbb\xbfh"), text("h"));
        assert_eq!(
            read(Some("application/json; charset=utf-16le"), b"[\x001\x00]\x00"),
            Ok((DataKind::Json, b"[1]".to_vec()))
        );
        assert_eq!(read(Some("text/plain; charset=utf-16le"), b"\0\xd8"), Err(400), "half a pair");
        // Three bytes for one: within its limit before, beyond it after.
        assert_eq!(read(Some("text/plain; charset=windows-1252"), &[0x80; 22]), Err(413));
        assert!(read(Some("text/plain; charset=windows-1252"), &[0x80; 21]).is_ok());
    }

    #[test]
    fn metadata_is_the_last_part_of_the_last_header_of_its_name() {
        let found = metadata(&headers(&[
            ("X-WebPubSub-Metadata-Trace", b"1"),
            ("x-webpubsub-metadata-trace", b" 2 , 3 "),
            ("X-WebPubSub-Metadata-a.b", b""),
            ("X-WebPubSub-Meta", b"no"),
        ]));
        let found = found.unwrap();
        assert_eq!(found.pairs().collect::<Vec<_>>(), [("a.b", ""), ("trace", "3")]);
        for (name, value) in [
            ("X-WebPubSub-Metadata-", &b"v"[..]),
            ("X-WebPubSub-Metadata-k", b"\xc3\xa4"),
            ("X-WebPubSub-Metadata-k", &[b'v'; 1_025]),
        ] {
            let error = metadata(&headers(&[(name, value)])).unwrap_err();
            assert_eq!(error.status(), 400, "{name}");
        }
    }

    proptest! {
        /// Whatever comes, text and JSON are UTF-8 afterwards, and JSON is one value.
        #[test]
        fn what_is_accepted_is_what_it_says(label in "[a-z0-9-]{0,12}|utf-16|big5|gbk|euc-jp|shift_jis|iso-2022-jp", body: Vec<u8>) {
            for media in ["text/plain", "application/json"] {
                if let Ok((kind, bytes)) = read(Some(&format!("{media}; charset={label}")), &body) {
                    prop_assert!(std::str::from_utf8(&bytes).is_ok());
                    prop_assert!(bytes.len() <= LIMIT);
                    if kind == DataKind::Json {
                        prop_assert!(serde_json::from_slice::<IgnoredAny>(&bytes).is_ok());
                    }
                }
            }
        }
    }
}
