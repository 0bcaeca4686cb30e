//! Connection strings: where a service is and the key to it, in one line.
//!
//! `Endpoint=http://localhost;Port=8080;AccessKey=<key>;Version=1.0;` (preview protocol, "Connection string"). Older readers
//! need a `;` after every value and take the port from `Port` alone, so both are always written.

use std::fmt::Write;

use url::{Position, Url};

use crate::signature::{AccessKey, AccessKeyError};

/// A service's endpoint and one of its access keys.
///
/// `Debug` does not show the key, and there is no `Display`: [`ConnectionString::reveal`] writes the line with the key in it.
#[derive(Clone, Debug)]
pub struct ConnectionString {
    /// Scheme, host and port; path `/`.
    endpoint: Url,
    access_key: AccessKey,
}

impl ConnectionString {
    /// Joins an endpoint and a key.
    ///
    /// # Errors
    /// [`ConnectionStringError::Endpoint`] unless the URL is `http` or `https` and has nothing but a host and a port.
    pub fn new(endpoint: Url, access_key: AccessKey) -> Result<Self, ConnectionStringError> {
        let fault = match endpoint.scheme() {
            "http" | "https" if !endpoint.has_host() => Some("has no host"),
            "http" | "https"
                if !endpoint.username().is_empty() || endpoint.password().is_some() =>
            {
                Some("names a user")
            }
            "http" | "https" if endpoint.path() != "/" => Some("has a path"),
            "http" | "https" if endpoint.query().is_some() || endpoint.fragment().is_some() => {
                Some("has a query")
            }
            "http" | "https" => None,
            _ => Some("does not start with http:// or https://"),
        };
        match fault {
            Some(fault) => Err(ConnectionStringError::Endpoint { fault: fault.to_owned() }),
            None => Ok(Self { endpoint, access_key }),
        }
    }

    /// Reads a connection string: parts in any order, their names in any case, unknown parts (`Version`, …) skipped.
    ///
    /// A value is everything after the first `=`. `Port` overrides a port inside the endpoint.
    ///
    /// # Errors
    /// Names the part that is missing, given twice or wrong. No error shows a value, since a slip may have put the key anywhere.
    pub fn parse(raw: &str) -> Result<Self, ConnectionStringError> {
        if CONNECTION_STRING_BYTES_MAX < raw.len() {
            return Err(ConnectionStringError::TooLong { bytes: raw.len() });
        }
        let (mut endpoint, mut port, mut access_key) = (None, None, None);
        for (index, part) in raw.split(';').enumerate().filter(|(_, part)| !part.trim().is_empty())
        {
            let (name, value) = part
                .split_once('=')
                .ok_or(ConnectionStringError::NoValue { position: index + 1 })?;
            let (slot, known) = match name.trim().to_ascii_lowercase().as_str() {
                "endpoint" => (&mut endpoint, "Endpoint"),
                "port" => (&mut port, "Port"),
                "accesskey" => (&mut access_key, "AccessKey"),
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(ConnectionStringError::Twice { part: known });
            }
        }

        let endpoint = endpoint.ok_or(ConnectionStringError::Missing { part: "Endpoint" })?.trim();
        let access_key = access_key.ok_or(ConnectionStringError::Missing { part: "AccessKey" })?;
        let mut endpoint = Url::parse(endpoint).map_err(|error| {
            ConnectionStringError::Endpoint { fault: format!("is no URL: {error}") }
        })?;
        if let Some(port) = port.map(str::trim).filter(|port| !port.is_empty()) {
            let port = port
                .parse::<u16>()
                .ok()
                .filter(|port| *port != 0)
                .ok_or(ConnectionStringError::Port)?;
            endpoint.set_port(Some(port)).map_err(|()| ConnectionStringError::Endpoint {
                fault: "has no host".to_owned(),
            })?;
        }
        Self::new(endpoint, AccessKey::parse_of_any_strength(access_key)?)
    }

    /// Writes the line, key included. It ends with `;`.
    pub fn reveal(&self) -> String {
        let mut line = format!("Endpoint={};", self.audience_base().trim_end_matches('/'));
        if let Some(port) = self.endpoint.port() {
            write!(line, "Port={port};").expect("writing to a string cannot fail");
        }
        write!(line, "AccessKey={};Version=1.0;", self.access_key.reveal())
            .expect("writing to a string cannot fail");
        line
    }

    /// Returns where to connect to: scheme, host and port, with path `/`.
    pub fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    /// Returns what audiences of tokens start with: the endpoint **without its port**, ending in `/` (preview protocol, "JWT audience").
    pub fn audience_base(&self) -> String {
        format!("{}/", &self.endpoint[..Position::AfterHost])
    }

    /// Returns the key that signs tokens.
    pub fn access_key(&self) -> &AccessKey {
        &self.access_key
    }
}

/// Why a text is no connection string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionStringError {
    /// A required part is absent.
    #[error("the connection string has no {part}=")]
    Missing {
        /// Name of the part.
        part: &'static str,
    },
    /// A part stands there more than once, and which one counts cannot be known.
    #[error("the connection string has {part}= twice")]
    Twice {
        /// Name of the part.
        part: &'static str,
    },
    /// Something between two `;` is not `Name=value`.
    #[error("part {position} of the connection string is not of the form Name=value")]
    NoValue {
        /// Which part, counted from 1.
        position: usize,
    },
    /// The endpoint cannot be used.
    #[error("the connection string's Endpoint {fault}")]
    Endpoint {
        /// What is wrong with it.
        fault: String,
    },
    /// The port is not a number from 1 to 65535.
    #[error("the connection string's Port is not a number from 1 to 65535")]
    Port,
    /// The key cannot be used.
    #[error("the connection string's AccessKey cannot be used")]
    AccessKey(#[from] AccessKeyError),
    /// Most likely something else was pasted.
    #[error(
        "the connection string has {bytes} bytes, at most {CONNECTION_STRING_BYTES_MAX} are allowed"
    )]
    TooLong {
        /// Length of what was given.
        bytes: usize,
    },
}

/// Longest connection string that is read, in bytes.
pub const CONNECTION_STRING_BYTES_MAX: usize = 8_192;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fault(raw: &str) -> String {
        ConnectionString::parse(raw).unwrap_err().to_string()
    }

    #[test]
    fn the_documented_form_is_read_and_written() {
        let line = "Endpoint=http://localhost;Port=8080;AccessKey=ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH;Version=1.0;";
        let read = ConnectionString::parse(line).unwrap();
        assert_eq!(read.endpoint().as_str(), "http://localhost:8080/");
        assert_eq!(read.audience_base(), "http://localhost/");
        assert_eq!(read.access_key().reveal(), "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH");
        assert_eq!(read.reveal(), line);
    }

    #[test]
    fn order_case_blanks_and_unknown_parts_do_not_matter() {
        let read = ConnectionString::parse(
            " version=1.0; accesskey=a=b==;PORT= 81 ;;Colour=blue;ENDPOINT=https://Example.org/ ",
        )
        .unwrap();
        assert_eq!(read.endpoint().as_str(), "https://example.org:81/");
        assert_eq!(read.access_key().reveal(), "a=b==");
        assert_eq!(
            read.reveal(),
            "Endpoint=https://example.org;Port=81;AccessKey=a=b==;Version=1.0;"
        );
    }

    #[test]
    fn a_port_inside_the_endpoint_works_and_is_written_apart() {
        let read = ConnectionString::parse("Endpoint=http://[::1]:8080;AccessKey=k").unwrap();
        assert_eq!(read.endpoint().port(), Some(8080));
        assert_eq!(read.audience_base(), "http://[::1]/");
        assert_eq!(read.reveal(), "Endpoint=http://[::1];Port=8080;AccessKey=k;Version=1.0;");
        assert_eq!(
            ConnectionString::parse("Endpoint=http://h:1;Port=2;AccessKey=k;")
                .unwrap()
                .endpoint()
                .port(),
            Some(2)
        );
    }

    #[test]
    fn the_scheme_s_own_port_is_left_out() {
        let read = ConnectionString::parse("Endpoint=https://h;Port=443;AccessKey=k;").unwrap();
        assert_eq!(read.reveal(), "Endpoint=https://h;AccessKey=k;Version=1.0;");
    }

    #[test]
    fn faults_name_the_part_and_show_no_value() {
        assert_eq!(fault(""), "the connection string has no Endpoint=");
        assert_eq!(fault("Endpoint=http://h;"), "the connection string has no AccessKey=");
        assert_eq!(
            fault("Endpoint=http://h;AccessKey=a;AccessKey=b;"),
            "the connection string has AccessKey= twice"
        );
        assert_eq!(
            fault("Endpoint=http://h;secret;"),
            "part 2 of the connection string is not of the form Name=value"
        );
        assert_eq!(
            fault("Endpoint=http://h;Port=0;AccessKey=k;"),
            "the connection string's Port is not a number from 1 to 65535"
        );
        assert_eq!(
            fault("Endpoint=http://h;AccessKey=;"),
            "the connection string's AccessKey cannot be used"
        );
        assert_eq!(
            fault("Endpoint=secret;AccessKey=k;"),
            "the connection string's Endpoint is no URL: relative URL without a base"
        );
        assert_eq!(
            fault("Endpoint=ftp://h;AccessKey=k;"),
            "the connection string's Endpoint does not start with http:// or https://"
        );
        for (endpoint, what) in [
            ("http://u:p@h", "names a user"),
            ("http://h/base", "has a path"),
            ("http://h?x", "has a query"),
        ] {
            assert_eq!(
                fault(&format!("Endpoint={endpoint};AccessKey=k;")),
                format!("the connection string's Endpoint {what}")
            );
        }
        assert!(fault(&"x".repeat(CONNECTION_STRING_BYTES_MAX + 1)).contains("8193 bytes"));
    }

    #[test]
    fn debug_does_not_show_the_key() {
        let read = ConnectionString::parse("Endpoint=http://h;AccessKey=very-secret;").unwrap();
        assert!(!format!("{read:?}").contains("very-secret"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(key in "[^;]{1,80}", port in 1u16.., https in any::<bool>()) {
            let scheme = if https { "https" } else { "http" };
            let line = format!("Endpoint={scheme}://service.example;Port={port};AccessKey={key};");
            let first = ConnectionString::parse(&line).unwrap();
            let second = ConnectionString::parse(&first.reveal()).unwrap();
            prop_assert_eq!(first.endpoint(), second.endpoint());
            prop_assert_eq!(second.access_key().reveal(), key);
        }

        #[test]
        fn garbage_never_panics(raw in ".{0,200}") {
            let _ = ConnectionString::parse(&raw);
        }
    }
}
