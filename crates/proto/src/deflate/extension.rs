//! The header in which extensions are offered and accepted (RFC 6455 §9.1).

/// Bytes of the header at most, all its lines together.
const HEADER_BYTES_MAX: usize = 4_096;

/// The header is not a list of extensions, or is longer than 4 KiB. A handshake with it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Sec-WebSocket-Extensions is not a list of extensions")]
pub struct Malformed;

/// An extension with its parameters, in their order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Extension<'a> {
    pub(super) name: &'a str,
    pub(super) parameters: Vec<(&'a str, Option<String>)>,
}

/// Reads the list. Several lines of the header are one, joined by commas.
pub(super) fn parse(header: &str) -> Result<Vec<Extension<'_>>, Malformed> {
    if HEADER_BYTES_MAX < header.len() {
        return Err(Malformed);
    }
    let mut rest = Rest(header);
    let mut extensions = Vec::new();
    loop {
        // Empty items of a list are skipped (RFC 9110 §5.6.1.2).
        while rest.skips(',') {}
        if rest.is_at_end() {
            return Ok(extensions);
        }
        let name = rest.token()?;
        let mut parameters = Vec::new();
        while rest.skips(';') {
            let name = rest.token()?;
            let value = rest.skips('=').then(|| rest.value()).transpose()?;
            parameters.push((name, value));
        }
        extensions.push(Extension { name, parameters });
        if !rest.is_at_end() && !rest.skips(',') {
            return Err(Malformed);
        }
    }
}

/// What is still to be read.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn skip_space(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    fn is_at_end(&mut self) -> bool {
        self.skip_space();
        self.0.is_empty()
    }

    fn skips(&mut self, mark: char) -> bool {
        self.skip_space();
        let rest = self.0.strip_prefix(mark);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn token(&mut self) -> Result<&'a str, Malformed> {
        self.skip_space();
        let end = self.0.find(|character| !is_token(character)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        if token.is_empty() { Err(Malformed) } else { Ok(token) }
    }

    /// A token, bare or in quotes.
    fn value(&mut self) -> Result<String, Malformed> {
        if !self.skips('"') {
            return self.token().map(str::to_owned);
        }
        let mut value = String::new();
        let mut characters = self.0.chars();
        loop {
            match characters.next().ok_or(Malformed)? {
                '"' => break,
                '\\' => value.push(characters.next().ok_or(Malformed)?),
                character => value.push(character),
            }
        }
        self.0 = characters.as_str();
        if value.is_empty() || !value.chars().all(is_token) { Err(Malformed) } else { Ok(value) }
    }
}

/// RFC 9110 §5.6.2.
fn is_token(character: char) -> bool {
    character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(character)
}
