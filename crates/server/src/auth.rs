//! Who may: the tokens of callers and clients (preview protocol, "Client authentication", "JWT audience"; Web PubSub protocol,
//! "Authentication").

mod identity;
mod known_tokens;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hookwire_proto::name::HubName;
use hookwire_proto::token::identity::Origin;
use hookwire_proto::token::{self, Audience, Claims, TokenError};
use hookwire_proto::tunnel;
use http::{HeaderMap, Method, Request, StatusCode, header};

pub(crate) use self::identity::IdentityProviders;
pub(crate) use self::known_tokens::KnownTokens;
use crate::api_error::ApiError;
use crate::config::RestAccess;
use crate::http::{Edge, unix_time};
use crate::route::parameter;

/// The query parameter that carries a client's token.
pub(crate) const ACCESS_TOKEN: &str = "access_token";

impl Edge {
    /// Makes sure that a request carries a token that a key holder made for its URL, or is one of the console's page.
    ///
    /// # Errors
    /// 401.
    pub(crate) fn authorize(&self, head: &Request<()>) -> Result<(), ApiError> {
        if self.is_from_console(head.headers()) {
            return self.session(head.headers()).map(drop);
        }
        let token = bearer(head.headers())?
            .ok_or_else(|| ApiError::unauthorized("a bearer token is needed"))?;
        self.check_caller(token, head.uri().path()).map_err(|error| refused(&error))
    }

    /// Makes sure that a caller of the REST API of Web PubSub, or of the lists, may do what the request asks for: by a token that a key
    /// holder made for its URL, by one of an identity provider that gives its holder a role, or by a session of the console.
    ///
    /// # Errors
    /// 401 without a valid token, 403 without a role that suffices, 503 while the keys of the provider cannot be fetched.
    pub(crate) async fn authorize_caller(&self, head: &Request<()>) -> Result<(), ApiError> {
        if self.is_from_console(head.headers()) {
            return self.session(head.headers()).map(drop);
        }
        let token = bearer(head.headers())?
            .ok_or_else(|| ApiError::unauthorized("a bearer token is needed"))?;
        let only_asks = matches!(*head.method(), Method::GET | Method::HEAD);
        match self.foreign_access(token).await? {
            Foreign::No => {
                let checked = self.check_caller(token, head.uri().path());
                checked.map_err(|error| refused(&error))
            }
            Foreign::Access(RestAccess::Full) => Ok(()),
            Foreign::Access(RestAccess::Read) if only_asks => Ok(()),
            Foreign::Access(RestAccess::Read) => {
                Err(forbidden("the token's role may only ask questions"))
            }
            Foreign::NoAccess => Err(forbidden("the token has no role that is known here")),
        }
    }

    /// Makes sure that an upstream may open a tunnel of `hub`: by a token that a key holder made for the URL, the hub in its query
    /// included, or by one of an identity provider that gives its holder every right. Returns the user that the token names.
    ///
    /// # Errors
    /// As [`Edge::authorize_caller`].
    pub(crate) async fn authorize_tunnel(
        &self,
        head: &Request<()>,
        hub: &HubName,
    ) -> Result<Option<String>, ApiError> {
        let token = client_token(head)?;
        let token = token.ok_or_else(|| ApiError::unauthorized("a token is needed"))?;
        match self.foreign_access(&token).await? {
            Foreign::No => {
                let claims = self.check(&token, tunnel::PATH).map_err(|error| refused(&error))?;
                if !is_for_hub(&claims, hub) {
                    return Err(ApiError::unauthorized("the token was made for another hub"));
                }
                Ok(claims.sub().map(str::to_owned))
            }
            Foreign::Access(RestAccess::Full) => Ok(None),
            Foreign::Access(RestAccess::Read) | Foreign::NoAccess => {
                Err(forbidden("the token has no role that may open a tunnel"))
            }
        }
    }

    /// Returns what a token of an identity provider gives.
    async fn foreign_access(&self, token: &str) -> Result<Foreign, ApiError> {
        let rules = self.rules();
        if rules.identity_providers.is_empty() {
            return Ok(Foreign::No);
        }
        let origin = Origin::of(token).map_err(|error| refused(&error))?;
        let Some(origin) = origin else { return Ok(Foreign::No) };
        let now = unix_time().as_secs();
        let access = rules.identity_providers.access(token, &origin, now, &self.tasks).await?;
        Ok(access.map_or(Foreign::NoAccess, Foreign::Access))
    }

    /// Returns what the token of a Web PubSub client says; `None` when it has none. A token in the query goes before one in the
    /// header. Whatever the form of the URL, it names `/client/hubs/{hub}`.
    ///
    /// # Errors
    /// 401 for a token that is there but is not valid.
    pub(crate) fn web_pubsub_claims(
        &self,
        head: &Request<()>,
        hub: &HubName,
    ) -> Result<Option<Claims>, ApiError> {
        let Some(token) = client_token(head)? else { return Ok(None) };
        let claims = self.check(&token, &format!("/client/hubs/{hub}"));
        claims.map(Some).map_err(|error| refused(&error))
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
        let Some(token) = client_token(head)? else { return Ok(None) };
        let mut claims = self.check(&token, head.uri().path());
        if let Err(TokenError::Audience { .. }) = claims {
            claims = self.check(&token, &format!("/ws/client/hubs/{hub}"));
        }
        claims.map(Some).map_err(|error| refused(&error))
    }

    pub(crate) fn check(&self, token: &str, path: &str) -> Result<Claims, TokenError> {
        let audience = Audience { hosts: &self.hosts, path };
        token::check(token, unix_time().as_secs(), &self.rules().keys, &audience)
    }

    /// Like [`Edge::check`], for those whose claims do not matter and who come again and again.
    fn check_caller(&self, token: &str, path: &str) -> Result<(), TokenError> {
        let rules = self.rules();
        let now = unix_time().as_secs();
        if rules.known_tokens.contains(token, path, now) {
            return Ok(());
        }
        let audience = Audience { hosts: &self.hosts, path };
        let claims = token::check(token, now, &rules.keys, &audience)?;
        if let Some(times) = claims.times() {
            rules.known_tokens.insert(token, path, times);
        }
        Ok(())
    }
}

/// What a token of an identity provider gives.
enum Foreign {
    /// It is of nobody else: a key holder made it.
    No,
    /// Nothing.
    NoAccess,
    Access(RestAccess),
}

/// Whether an audience of the token names the hub in its query, as that of a tunnel does (Web PubSub protocol, "Connecting").
fn is_for_hub(claims: &Claims, hub: &HubName) -> bool {
    claims.audiences().any(|audience| {
        let query = audience.split_once('?').map_or("", |(_, query)| query);
        let named = parameter(query, &["hub"]).map(|named| HubName::parse(&named));
        named.is_some_and(|named| named.as_ref() == Ok(hub))
    })
}

/// How long the log does not warn again of tokens that were made for another URL.
const WARN_PAUSE: Duration = Duration::from_secs(10);

/// Bytes of an audience that the log repeats.
const LOGGED_AUDIENCE_BYTES_MAX: usize = 200;

/// The most frequent fault of a set-up goes to the log with both sides, for those who may read it.
fn refused(error: &TokenError) -> ApiError {
    static WARNED: AtomicU64 = AtomicU64::new(0);
    if let TokenError::Audience { expected, actual } = error {
        let actual = logged(actual);
        if may_warn(&WARNED, unix_time().as_secs()) {
            tracing::warn!(expected, actual, "a token was made for another URL");
        } else {
            tracing::debug!(expected, actual, "a token was made for another URL");
        }
    }
    let (verdict, reason) = explain(error);
    ApiError::unauthorized(error.to_string()).told_as(verdict, reason)
}

/// Returns what the event log says of a token: to somebody who may read the log, the audiences are no secret.
fn explain(error: &TokenError) -> (&'static str, String) {
    let verdict = match error {
        TokenError::TooLong { .. } | TokenError::Malformed | TokenError::Claim { .. } => {
            "token_malformed"
        }
        TokenError::Algorithm => "token_algorithm",
        TokenError::Signature => {
            let advice = "sign it with one of the access keys, and use the key's text as it is";
            return ("token_signature", format!("{error}; {advice}"));
        }
        TokenError::ForeignSignature => "token_signature",
        TokenError::Issuer => "token_issuer",
        TokenError::NoExpiry | TokenError::Expired { .. } => "token_expired",
        TokenError::TooEarly { .. } => "token_too_early",
        TokenError::Audience { expected, actual } => {
            let actual = match logged(actual) {
                none if none.is_empty() => "none".to_owned(),
                some => some,
            };
            let reason = format!(
                "the token was made for another URL: its audience is {actual}, needed is {expected}"
            );
            return ("bad_audience", reason);
        }
    };
    (verdict, error.to_string())
}

/// Returns what the log may know of audiences: no query, which can hold payloads, and not too much.
fn logged(audiences: &[String]) -> String {
    let bare = audiences.iter().map(|audience| audience.split('?').next().unwrap_or_default());
    let joined = bare.collect::<Vec<_>>().join(" ");
    joined[..joined.floor_char_boundary(LOGGED_AUDIENCE_BYTES_MAX)].to_owned()
}

/// Whether the last warning is [`WARN_PAUSE`] ago, which is then remembered as of `now`, in seconds since 1970.
fn may_warn(warned: &AtomicU64, now: u64) -> bool {
    let last = warned.load(Ordering::Relaxed);
    let is_due = last.saturating_add(WARN_PAUSE.as_secs()) <= now;
    is_due && warned.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

fn forbidden(message: &str) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "Forbidden", message)
}

/// Returns the token of a client. One in the query goes before one in the header, since a browser can set the first alone.
fn client_token(head: &Request<()>) -> Result<Option<String>, ApiError> {
    match parameter(head.uri().query().unwrap_or_default(), &[ACCESS_TOKEN]) {
        Some(token) => Ok(Some(token)),
        None => Ok(bearer(head.headers())?.map(str::to_owned)),
    }
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
    fn the_log_hears_of_wrong_audiences_now_and_then_and_not_too_much() {
        let warned = AtomicU64::new(0);
        let warns: Vec<bool> =
            [100, 100, 109, 110, 111, 50].map(|now| may_warn(&warned, now)).to_vec();
        assert_eq!(warns, [true, false, false, true, false, false]);
        let audiences = ["https://a/b?secret=1".to_owned(), "c".to_owned()];
        assert_eq!(logged(&audiences), "https://a/b c");
        assert_eq!(logged(&["ä".repeat(200)]).len(), LOGGED_AUDIENCE_BYTES_MAX);
        assert_eq!(logged(&[]), "");
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
