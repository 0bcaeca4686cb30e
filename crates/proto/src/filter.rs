//! Filters of REST: which connections an operation concerns (Web PubSub protocol, "Filter").
//!
//! A filter is read and type-checked once; what is left cannot fail. The parser is written by hand because errors must name the end of
//! the last token read.

mod check;
mod predicate;
mod syntax;

use std::fmt;

use self::predicate::Test;

/// Longest filter, in bytes. Ours.
pub const FILTER_BYTES_MAX: usize = 8 * 1_024;

/// How deep terms may be nested: parentheses, `not` and function calls.
pub const FILTER_NESTING_MAX: usize = 100;

/// Most clauses, which `and` and `or` join.
pub const FILTER_CLAUSES_MAX: usize = 100;

/// Longest text, in bytes, that `concat` makes; a longer one is null. Ours.
pub const FILTER_TEXT_BYTES_MAX: usize = 16 * 1_024;

/// A checked filter. Two are equal if their texts are.
#[derive(Clone)]
pub struct Filter {
    text: Box<str>,
    /// Absent if the text is empty.
    condition: Option<Test>,
}

/// The connection that a filter is asked about.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// Its user.
    pub user_id: Option<&'a str>,
    /// Its id.
    pub connection_id: &'a str,
    /// Its subprotocol.
    pub protocol: Option<&'a str>,
    /// Its groups.
    pub groups: &'a dyn Groups,
}

/// The groups of a connection, as its owner keeps them.
pub trait Groups {
    /// Whether the connection is a member of the group of that name.
    fn contains(&self, name: &str) -> bool;

    /// Returns how many groups it is a member of.
    fn count(&self) -> usize;

    /// Whether `judge` says yes to the name of any of them. No term of today's grammar looks at every name.
    fn any(&self, judge: &mut dyn FnMut(&str) -> bool) -> bool;
}

/// Why a text is no filter. The texts are those of the official emulator (Web PubSub protocol, "Filter", "Errors").
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Longer than [`FILTER_BYTES_MAX`].
    #[error("The filter has {bytes} bytes, {FILTER_BYTES_MAX} are allowed. (Parameter 'filter')")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not of the grammar.
    #[error(
        "Invalid syntax for '{filter}': Syntax error at position {position} in '{filter}'. (Parameter 'filter')"
    )]
    Syntax {
        /// The whole filter.
        filter: String,
        /// The end of the last token read, in UTF-16 units from 0.
        position: usize,
    },
    /// Nested deeper than [`FILTER_NESTING_MAX`].
    #[error("Invalid syntax for '{filter}': Recursion depth exceeded limit. (Parameter 'filter')")]
    TooDeep {
        /// The whole filter.
        filter: String,
    },
    /// More clauses than [`FILTER_CLAUSES_MAX`].
    #[error(
        "Invalid syntax for '{filter}': More than {FILTER_CLAUSES_MAX} clauses. (Parameter 'filter')"
    )]
    TooManyClauses {
        /// The whole filter.
        filter: String,
    },
    /// A term of the wrong type.
    #[error(
        "Invalid syntax for '{expression}': Type '{actual}', expect '{expected}'. (Parameter 'filter')"
    )]
    Type {
        /// The term around it.
        expression: String,
        /// Its type.
        actual: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A name that stands for nothing.
    #[error(
        "Invalid syntax for '{expression}': Token '{token}' is not supported. (Parameter 'filter')"
    )]
    Unknown {
        /// The term around it.
        expression: String,
        /// What is not known.
        token: String,
    },
    /// A function with more or fewer arguments than it takes.
    #[error("Invalid syntax for '{call}': Invalid token '{call}'. (Parameter 'filter')")]
    Arguments {
        /// The call.
        call: String,
    },
}

impl Filter {
    /// Returns the checked filter. The empty text selects everything.
    ///
    /// # Errors
    /// [`FilterError`] tells what the caller may read.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if FILTER_BYTES_MAX < text.len() {
            return Err(FilterError::TooLong { bytes: text.len() });
        }
        let condition = match text {
            "" => None,
            text => Some(check::compile(text, &syntax::parse(text)?)?),
        };
        Ok(Self { text: text.into(), condition })
    }

    /// Returns the text that it was made from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it selects the connection. The cost is bounded by the filter's length and [`FILTER_TEXT_BYTES_MAX`].
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        self.condition.as_ref().is_none_or(|test| test.holds(subject))
    }
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Filter {}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Filter").field(&self.text).finish()
    }
}

impl fmt::Debug for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("user_id", &self.user_id)
            .field("connection_id", &self.connection_id)
            .field("protocol", &self.protocol)
            .field("groups", &self.groups.count())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct List(&'static [&'static str]);

    impl Groups for List {
        fn contains(&self, name: &str) -> bool {
            self.0.contains(&name)
        }

        fn count(&self) -> usize {
            self.0.len()
        }

        fn any(&self, judge: &mut dyn FnMut(&str) -> bool) -> bool {
            self.0.iter().any(|name| judge(name))
        }
    }

    /// Whether `filter` selects the connection `c1` of that user, in the groups `group1`, `it's` and `x`.
    fn selects(filter: &str, user_id: Option<&str>) -> bool {
        let subject = Subject {
            user_id,
            connection_id: "c1",
            protocol: Some("json.webpubsub.azure.v1"),
            groups: &List(&["group1", "it's", "x"]),
        };
        Filter::parse(filter).unwrap_or_else(|error| panic!("{error}")).matches(&subject)
    }

    fn error(filter: &str) -> String {
        Filter::parse(filter).unwrap_err().to_string()
    }

    #[test]
    fn the_documented_examples_select() {
        for (filter, user, expected) in [
            ("", None, true),
            ("userId eq 'user1'", Some("user1"), true),
            ("userId eq 'user1'", Some("User1"), false),
            ("userId eq null", None, true),
            ("userId eq null", Some("a"), false),
            ("userId ne null", None, false),
            ("'group1' in groups and not ('group2' in groups)", None, true),
            ("connectionId in ('a','b')", None, false),
            ("connectionId in ('a','c1')", None, true),
            ("startswith(userId, 'admin-') or length(groups) gt 3", Some("admin-1"), true),
            ("startswith(userId, 'admin-') or length(groups) gt 3", None, false),
            ("'it''s' in groups", None, true),
            ("protocol eq 'json.webpubsub.azure.v1'", None, true),
        ] {
            assert_eq!(selects(filter, user), expected, "{filter}");
        }
        assert!(selects(
            "USERID eq 'a' and ConnectionID eq 'c1' and length(GROUPS) eq 3",
            Some("a")
        ));
    }

    #[test]
    fn operators_and_functions_do_what_they_are_called() {
        for filter in [
            "length(userId) > 3 and length(userId) >= 5 and length(userId) < 6 and length(userId) <= 5",
            "userId == 'alice' and userId != 'bob'",
            "userId gt 'alicd' and userId lt 'alicf' and userId ge 'alice' and userId le 'alice'",
            "1 lt 2 and 2 le 2 and 3 gt 2 and 2 ge 2 and -1 lt 0",
            "tolower('ABÄ') eq 'abä' and toupper('abä') eq 'ABÄ' and trim(' a ') eq 'a'",
            "substring(userId, 1) eq 'lice' and substring(userId, 1, 2) eq 'li' and substring(userId, 5) eq ''",
            "startswith(userId, 'al') and endswith(userId, 'ce') and contains(userId, 'lic')",
            "indexof(userId, 'ice') eq 2 and indexof(userId, 'x') eq -1 and indexof('äb', 'b') eq 1",
            "concat(userId, '-x') eq 'alice-x'",
            "length('äöü') eq 3",
            "userId in ('Doe, John', 'alice') and length(userId) in (1, 5) and null in ('a', null)",
            "not (userId in ('al', 'ice')) and not ('1' in (1)) and not (1 in groups) and not (null in groups)",
            "(1 eq 1) eq true and not (1 eq '1') and null eq null and not (groups eq null) and true in (true)",
            "false and false or true",
            "true or false and false",
            "not false and true",
            "not not true",
            "groups eq groups",
        ] {
            assert!(selects(filter, Some("alice")), "{filter}");
        }
    }

    #[test]
    fn null_is_nothing() {
        for filter in [
            "not (userId gt 'a') and not (userId le 'a') and not (null lt 1)",
            "not startswith(userId, '') and not contains('a', userId) and not endswith(null, 'a')",
            "length(userId) eq null and indexof(userId, 'a') eq -1 and indexof('a', userId) eq -1",
            "tolower(userId) eq null and trim(null) eq null and substring(userId, 0) eq null",
            "concat(userId, null) eq null and concat(userId, 'a') eq 'a' and concat('a', userId) eq 'a'",
            "substring('a', 2) eq null and substring('a', 0, 2) eq null and substring('a', -1) eq null",
            "substring('a', length(userId)) eq null",
            "not (userId in groups) and not (userId in ('a'))",
        ] {
            assert!(selects(filter, None), "{filter}");
        }
    }

    #[test]
    fn errors_read_as_documented() {
        for (filter, text) in [
            (
                "invalid filter",
                "Invalid syntax for 'invalid filter': Syntax error at position 14 in 'invalid filter'.",
            ),
            ("( not 'a' )", "Invalid syntax for 'not 'a'': Type 'string', expect 'bool'."),
            ("null", "Invalid syntax for 'null': Type 'null', expect 'bool'."),
            ("not null", "Invalid syntax for 'not null': Type 'null', expect 'bool'."),
            ("not userId eq 'a'", "Invalid syntax for 'not userId': Type 'string', expect 'bool'."),
            ("userId lt 1", "Invalid syntax for 'userId lt 1': Type 'string', expect 'int'."),
            ("1 lt userId", "Invalid syntax for '1 lt userId': Type 'string', expect 'int'."),
            ("true lt false", "Invalid syntax for 'true lt false': Type 'bool', expect 'int'."),
            (
                "invalid(ab,c)",
                "Invalid syntax for 'invalid(ab,c)': Token 'invalid(ab,c)' is not supported.",
            ),
            ("ab eq 1", "Invalid syntax for 'ab eq 1': Token 'ab' is not supported."),
            ("not ab", "Invalid syntax for 'not ab': Token 'ab' is not supported."),
            (
                "true and length( ab ) eq 1",
                "Invalid syntax for 'length(ab)': Token 'ab' is not supported.",
            ),
            ("1 and 'a'", "Invalid syntax for '1 and 'a'': Type 'int', expect 'bool'."),
            (
                "true or userId",
                "Invalid syntax for 'true or userId': Type 'string', expect 'bool'.",
            ),
            (
                "(1 eq 2 or 3) and true",
                "Invalid syntax for '(1 eq 2) or 3': Type 'int', expect 'bool'.",
            ),
            ("length(1) eq 1", "Invalid syntax for 'length(1)': Type 'int', expect 'string'."),
            ("length() eq 1", "Invalid syntax for 'length()': Invalid token 'length()'."),
            (
                "contains(groups,'a')",
                "Invalid syntax for 'contains(groups,'a')': Type 'collection', expect 'string'.",
            ),
            (
                "substring(userId, 'a') eq 'a'",
                "Invalid syntax for 'substring(userId,'a')': Type 'string', expect 'int'.",
            ),
            (
                "substring(userId, null) eq 'a'",
                "Invalid syntax for 'substring(userId,null)': Type 'null', expect 'int'.",
            ),
            (
                "'a' in userId",
                "Invalid syntax for ''a' in userId': Type 'string', expect 'collection'.",
            ),
            ("groups", "Invalid syntax for 'groups': Type 'collection', expect 'bool'."),
            (
                "Length(groups) eq 1",
                "Invalid syntax for 'Length(groups)': Token 'Length(groups)' is not supported.",
            ),
        ] {
            assert_eq!(error(filter), format!("{text} (Parameter 'filter')"), "{filter}");
        }
    }

    #[test]
    fn syntax_errors_stand_at_the_end_of_the_last_token_read() {
        for (filter, position) in [
            (" ", 1),
            ("userId eq", 9),
            ("userId eq 'a", 12),
            ("(userId eq 'a'", 14),
            ("userId eq 'a')", 14),
            ("userId EQ 'a'", 9),
            ("userId eq 'a' x y", 15),
            ("1 eq 1 eq 1", 9),
            ("userId in ('a',)", 16),
            ("userId in ()", 12),
            ("userId in (userId)", 17),
            ("userId in ('a' 'b')", 18),
            ("1.5 gt 1", 2),
            ("99999999999999999999 gt 1", 20),
            ("a = b", 3),
            ("'ä' @", 5),
            ("'😀' @", 6),
            ("length(,)", 8),
            ("contains('a' 'b')", 16),
            ("eq", 2),
            ("- 1 eq 1", 1),
            ("$filter", 1),
        ] {
            let error = Filter::parse(filter).unwrap_err();
            assert_eq!(error, FilterError::Syntax { filter: filter.to_owned(), position });
        }
    }

    #[test]
    fn filters_are_limited() {
        let nested = |depth| format!("{}true{}", "(".repeat(depth), ")".repeat(depth));
        let negated = |depth| format!("{}true", "not ".repeat(depth));
        let called = |depth| format!("{}' '{} eq ''", "trim(".repeat(depth), ")".repeat(depth));
        let deepest = FILTER_NESTING_MAX;
        for text in [nested(deepest), negated(deepest), called(deepest)] {
            assert!(Filter::parse(&text).is_ok(), "{text}");
        }
        for filter in [nested(101), negated(101), called(101), "(".repeat(8_000)] {
            assert_eq!(Filter::parse(&filter.clone()), Err(FilterError::TooDeep { filter }));
        }
        let joined = |clauses| vec!["true"; clauses].join(" or ");
        assert!(Filter::parse(&joined(FILTER_CLAUSES_MAX)).is_ok());
        let filter = joined(FILTER_CLAUSES_MAX + 1);
        assert_eq!(Filter::parse(&filter), Err(FilterError::TooManyClauses { filter }));
        let long = format!("userId eq '{}'", "a".repeat(FILTER_BYTES_MAX - 12));
        assert!(Filter::parse(&long).is_ok());
        let bytes = FILTER_BYTES_MAX + 1;
        assert_eq!(Filter::parse(&" ".repeat(bytes)), Err(FilterError::TooLong { bytes }));
    }

    #[test]
    fn concatenation_is_bounded() {
        let user = "u".repeat(1_000);
        let concatenated = |times: usize| {
            let text =
                (1..times).fold("userId".to_owned(), |text, _| format!("concat(userId,{text})"));
            format!("length({text})")
        };
        assert!(selects(&format!("{} eq 16000", concatenated(16)), Some(&user)));
        assert!(
            selects(&format!("{} eq 1000", concatenated(18)), Some(&user)),
            "null, then one more"
        );
    }

    #[test]
    fn equal_filters_have_equal_texts() {
        let filter = Filter::parse("userId eq 'a'").unwrap();
        assert_eq!(filter, Filter::parse(filter.text()).unwrap());
        assert_ne!(filter, Filter::parse("userId eq 'b'").unwrap());
        assert_eq!(format!("{filter:?}"), r#"Filter("userId eq 'a'")"#);
    }
}
