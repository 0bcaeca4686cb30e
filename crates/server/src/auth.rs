//! Who may: the tokens of callers and clients (preview protocol, "Client authentication", "JWT audience").

use hookwire_proto::name::HubName;
use hookwire_proto::token::{self, Audience, Claims, TokenError};
use http::{HeaderMap, Request, header};

use crate::api_error::ApiError;
use crate::http::{Edge, unix_time};
use crate::route::parameter;

/// The query parameter that carries a client's token.
pub(crate) const ACCESS_TOKEN: &str = "access_token";

impl Edge {
    /// Makes sure that a request carries a token that a key holder made for its URL.
    ///
    /// # Errors
    /// 401.
    pub(crate) fn authorize(&self, head: &Request<()>) -> Result<(), ApiError> {
        let token = bearer(head.headers())?
            .ok_or_else(|| ApiError::unauthorized("a bearer token is needed"))?;
        self.check(token, head.uri().path()).map(drop).map_err(|error| refused(&error))
    }

    /// Returns what a client's token says; `None` when it has none. A token in the query goes before one in the header, since a
    /// browser can set the first alone. It names the client's URL or, whatever the form of that, the URL of its hub.
    ///
    /// # Errors
    /// 401 for a token that is there but is not valid.
    pub(crate) fn client_claims(
        &self,
        head: &Request<()>,
        hub: &HubName,
    ) -> Result<Option<Claims>, ApiError> {
        let in_query = parameter(head.uri().query().unwrap_or_default(), &[ACCESS_TOKEN]);
        let token = match &in_query {
            Some(token) => token,
            None => match bearer(head.headers())? {
                Some(token) => token,
                None => return Ok(None),
            },
        };
        let mut claims = self.check(token, head.uri().path());
        if let Err(TokenError::Audience { .. }) = claims {
            claims = self.check(token, &format!("/ws/client/hubs/{hub}"));
        }
        claims.map(Some).map_err(|error| refused(&error))
    }

    fn check(&self, token: &str, path: &str) -> Result<Claims, TokenError> {
        let audience = Audience { hosts: &self.hosts, path };
        token::check(token, unix_time().as_secs(), &self.keys, &audience)
    }
}

/// The most frequent fault of a set-up goes to the log with both sides, for those who may read it.
fn refused(error: &TokenError) -> ApiError {
    if let TokenError::Audience { expected, actual } = error {
        tracing::debug!(expected, ?actual, "a token was made for another URL");
    }
    ApiError::unauthorized(error.to_string())
}

/// Returns the token of the `Authorization` header; another scheme, which a proxy may have left there, counts as none.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(ApiError::unauthorized("there is more than one Authorization header"));
    }
    let malformed = || ApiError::unauthorized("the Authorization header is malformed");
    let value = value.to_str().map_err(|_| malformed())?.trim();
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Ok(None);
    }
    match token.trim_start() {
        "" => Err(malformed()),
        token => Ok(Some(token)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn read(values: &[&'static [u8]]) -> Result<Option<String>, u16> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        match bearer(&headers) {
            Ok(token) => Ok(token.map(str::to_owned)),
            Err(error) => Err(error.into_answer().status().as_u16()),
        }
    }

    #[test]
    fn a_bearer_token_is_read_and_what_only_looks_like_one_is_refused() {
        for value in [&b"Bearer a.b.c"[..], b"bearer  a.b.c", b"BEARER a.b.c "] {
            assert_eq!(read(&[value]), Ok(Some("a.b.c".to_owned())));
        }
        assert_eq!(read(&[]), Ok(None));
        for other in [&b"Basic YTpi"[..], b"", b"Bearerx a.b.c"] {
            assert_eq!(read(&[other]), Ok(None), "another scheme is not ours to judge");
        }
        for broken in [&[&b"Bearer"[..]][..], &[b"Bearer \xFF"], &[b"Bearer a", b"Bearer a"]] {
            assert_eq!(read(broken), Err(401));
        }
    }
}
