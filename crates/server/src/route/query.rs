//! Parameters of a query, decoded strictly: what is not UTF-8 or is said twice in different words is refused, not guessed at.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

use crate::api_error::ApiError;

/// The parameters in their order. Names are compared without regard to ASCII case, as the hosted service does.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes a query without its `?`.
    ///
    /// # Errors
    /// 400 when it is not UTF-8.
    pub(super) fn parse(raw: &str) -> Result<Self, ApiError> {
        let pairs = raw.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        });
        pairs.collect::<Result<_, ApiError>>().map(Self)
    }

    /// Returns every value of a parameter that may be repeated.
    pub(super) fn all<'a>(&'a self, name: &'static str) -> impl Iterator<Item = &'a str> {
        let named = move |(key, value): &'a (String, String)| {
            key.eq_ignore_ascii_case(name).then_some(value.as_str())
        };
        self.0.iter().filter_map(named)
    }

    /// Returns the value of a parameter that has one.
    ///
    /// # Errors
    /// 400 when it has several that differ.
    pub(super) fn one(&self, name: &'static str) -> Result<Option<&str>, ApiError> {
        let mut values = self.all(name);
        let first = values.next();
        if first.is_some_and(|first| values.any(|other| other != first)) {
            let message = format!("{name} is given twice");
            return Err(ApiError::bad_request(message).about(name));
        }
        Ok(first)
    }

    /// Returns a whole number.
    ///
    /// # Errors
    /// 400 when it is something else or out of `range`.
    pub(super) fn number<T: FromStr + PartialOrd + std::fmt::Display>(
        &self,
        name: &'static str,
        range: &RangeInclusive<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(text) = self.one(name)? else { return Ok(None) };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits && range.contains(&number) => Ok(Some(number)),
            _ => {
                let message = format!("{name} must be {} to {}", range.start(), range.end());
                Err(ApiError::bad_request(message).about(name))
            }
        }
    }
}

fn decode(text: &str) -> Result<String, ApiError> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Ok(text.to_owned());
    }
    let spaced: Cow<'_, str> =
        if text.contains('+') { text.replace('+', " ").into() } else { text.into() };
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(Cow::into_owned).map_err(|_| ApiError::bad_request("the query is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_once_and_found_in_any_case() {
        let query = Query::parse("a=1%2B1+x&Role=r%2520&&role&b==c&A=1%2b1%20x").unwrap();
        assert_eq!(query.one("a").unwrap(), Some("1+1 x"), "said twice, but the same");
        assert_eq!(query.all("role").collect::<Vec<_>>(), ["r%20", ""]);
        assert_eq!(query.one("b").unwrap(), Some("=c"));
        assert_eq!(query.one("absent").unwrap(), None);
        assert!(query.one("role").is_err());
        assert!(Query::parse("a=%FF").is_err());
        assert!(Query::parse("%C3=a").is_err());
    }

    #[test]
    fn numbers_are_digits_within_their_range() {
        let number = |text: &str| {
            let query = Query::parse(&format!("n={text}")).unwrap();
            query.number::<u16>("n", &(1..=300)).ok().flatten()
        };
        assert_eq!(number("1"), Some(1));
        assert_eq!(number("0300"), Some(300));
        for bad in ["", "0", "301", "-1", "%2B1", "1.0", "1e2", "٣", "99999999999999999999"] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }
}
