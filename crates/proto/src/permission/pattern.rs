//! Patterns of group names in roles.

use std::fmt;

/// Longest pattern, in bytes. Ours: the protocol names none.
pub const PATTERN_BYTES_MAX: usize = 1_024;

/// Most `*` in a pattern; `**` counts as two, an escaped one not at all.
pub const PATTERN_WILDCARDS_MAX: usize = 5;

/// A checked pattern of group names: `?` is one character except `.`, `*` any run without `.`, `**` any run at all, and `\` takes the
/// special meaning from `\`, `*` and `?`. Case-sensitive (Web PubSub protocol, "Permissions").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Box<[Token]>);

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing.
    #[error("the pattern is empty")]
    Empty,
    /// Longer than [`PATTERN_BYTES_MAX`].
    #[error("the pattern has {bytes} bytes, {PATTERN_BYTES_MAX} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// More than [`PATTERN_WILDCARDS_MAX`] asterisks.
    #[error("the pattern has more than {PATTERN_WILDCARDS_MAX} asterisks")]
    TooManyWildcards,
    /// A backslash before something that needs none, or at the end.
    #[error("in a pattern \\ may stand only before \\, * and ?")]
    Escape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    /// This character.
    Literal(char),
    /// One character except `.`.
    One,
    /// Any number of characters except `.`.
    Run,
    /// Any number of characters.
    AnyRun,
}

impl fmt::Display for Pattern {
    /// Writes the pattern as people write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for token in &self.0 {
            match token {
                Token::Literal(character @ ('\\' | '*' | '?')) => write!(f, "\\{character}")?,
                Token::Literal(character) => write!(f, "{character}")?,
                Token::One => f.write_str("?")?,
                Token::Run => f.write_str("*")?,
                Token::AnyRun => f.write_str("**")?,
            }
        }
        Ok(())
    }
}

impl Pattern {
    /// Returns the pattern that `raw` spells.
    ///
    /// # Errors
    /// [`PatternError`] names the first fault.
    pub fn parse(raw: &str) -> Result<Self, PatternError> {
        if raw.is_empty() {
            return Err(PatternError::Empty);
        }
        if PATTERN_BYTES_MAX < raw.len() {
            return Err(PatternError::TooLong { bytes: raw.len() });
        }
        let (mut tokens, mut wildcards) = (Vec::new(), 0);
        let mut characters = raw.chars();
        while let Some(character) = characters.next() {
            let token = match character {
                '\\' => match characters.next() {
                    Some(escaped @ ('\\' | '*' | '?')) => Token::Literal(escaped),
                    _ => return Err(PatternError::Escape),
                },
                '?' => Token::One,
                '*' => {
                    wildcards += 1;
                    if PATTERN_WILDCARDS_MAX < wildcards {
                        return Err(PatternError::TooManyWildcards);
                    }
                    // Two or more in a row are one run that takes dots.
                    if tokens.pop_if(|last: &mut Token| last.is_run()).is_some() {
                        Token::AnyRun
                    } else {
                        Token::Run
                    }
                }
                literal => Token::Literal(literal),
            };
            tokens.push(token);
        }
        Ok(Self(tokens.into()))
    }

    /// Whether `text` as a whole is of this form. Costs at most the product of both lengths and allocates nothing.
    pub fn matches(&self, text: &str) -> bool {
        self.matches_characters(text.chars())
    }

    /// Does the same for text that comes as its characters.
    pub(crate) fn matches_characters(&self, mut characters: impl Iterator<Item = char>) -> bool {
        let head = self.0.iter().position(|token| token.is_run()).unwrap_or(self.0.len());
        let (head, tail) = self.0.split_at(head);
        for token in head {
            if !characters.next().is_some_and(|character| token.takes(character)) {
                return false;
            }
        }
        if tail.is_empty() {
            return characters.next().is_none();
        }

        // `reached[n]`: the first n tokens of the tail can take what has been read. The tail begins with a run, which may be empty.
        let mut reached = [false; PATTERN_BYTES_MAX + 1];
        reached[0] = true;
        reached[1] = true;
        for character in characters {
            let mut before = reached[0];
            reached[0] = before && tail[0].takes(character);
            for (at, token) in tail.iter().enumerate() {
                let now = reached[at + 1];
                let stays = now
                    && tail.get(at + 1).is_some_and(|next| next.is_run() && next.takes(character));
                let goes_on =
                    if token.is_run() { reached[at] } else { before && token.takes(character) };
                reached[at + 1] = stays || goes_on;
                before = now;
            }
            if !reached[..=tail.len()].contains(&true) {
                return false;
            }
        }
        reached[tail.len()]
    }
}

impl Token {
    /// Whether it stands for any number of characters.
    fn is_run(self) -> bool {
        matches!(self, Self::Run | Self::AnyRun)
    }

    /// Whether `character` is one that it stands for.
    fn takes(self, character: char) -> bool {
        match self {
            Self::Literal(literal) => literal == character,
            Self::One | Self::Run => character != '.',
            Self::AnyRun => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(text)
    }

    #[test]
    fn patterns_match_as_documented() {
        for (pattern, yes, no) in [
            (
                "chat-*",
                &["chat-1", "chat-room", "chat-"][..],
                &["chat.1", "xchat-1", "chat-1.2"][..],
            ),
            ("a.*", &["a.alpha", "a."], &["a.alpha.room", "b.alpha", "a"]),
            ("a.**", &["a.alpha", "a.alpha.room"], &["b.anything"]),
            (
                "a.rooms.?1",
                &["a.rooms.a1", "a.rooms.ä1"],
                &["a.rooms.1", "a.rooms.a.1", "a.rooms..1"],
            ),
            ("x\\*\\?\\\\", &["x*?\\"], &["x", "xabc"]),
            ("**", &["", "a", "."], &[]),
            ("*****", &["a.b"], &[]),
            ("\\******", &["*a.b", "*"], &["a"]),
            ("*.*.*.*.*", &["a.b.c.d.e", "...."], &["a.b", "a.b.c.d.e.f"]),
            ("**a*c", &["a.ac", "ac"], &["a.c"]),
            ("Room", &["Room"], &["room", "Rooms", ""]),
        ] {
            for text in yes {
                assert!(matches(pattern, text), "{pattern} {text}");
            }
            for text in no {
                assert!(!matches(pattern, text), "{pattern} {text}");
            }
        }
    }

    #[test]
    fn faulty_patterns_are_refused() {
        for (raw, error) in [
            ("", PatternError::Empty),
            ("******", PatternError::TooManyWildcards),
            ("*a*b*c*d*e*", PatternError::TooManyWildcards),
            ("\\*******", PatternError::TooManyWildcards),
            ("a\\b", PatternError::Escape),
            ("a\\", PatternError::Escape),
            (&"a".repeat(1_025), PatternError::TooLong { bytes: 1_025 }),
        ] {
            assert_eq!(Pattern::parse(raw), Err(error), "{raw}");
        }
    }

    /// Would take longer than the universe if runs were tried one after another.
    #[test]
    fn hostile_patterns_cost_no_more_than_the_product_of_the_lengths() {
        let pattern = format!("**{}*{}**{}", "a".repeat(300), "a".repeat(300), "b");
        assert!(!matches(&pattern, &"a".repeat(1_024)));
    }

    fn naive(pattern: &[char], text: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['*', '*', rest @ ..] => (0..=text.len()).any(|taken| naive(rest, &text[taken..])),
            ['*', rest @ ..] => (0..=text.len())
                .take_while(|taken| !text[..*taken].contains(&'.'))
                .any(|taken| naive(rest, &text[taken..])),
            ['?', rest @ ..] => {
                text.first().is_some_and(|first| *first != '.') && naive(rest, &text[1..])
            }
            ['\\', literal, rest @ ..] | [literal, rest @ ..] => {
                text.first() == Some(literal) && naive(rest, &text[1..])
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn matching_is_what_trying_everything_finds(pattern in "(\\*|\\*\\*|\\?|[ab.ä]|\\\\[*?\\\\]){1,8}", text in "[ab.ä*]{0,10}") {
            if let Ok(parsed) = Pattern::parse(&pattern) {
                let characters = |text: &str| text.chars().collect::<Vec<_>>();
                prop_assert_eq!(parsed.matches(&text), naive(&characters(&pattern), &characters(&text)), "{} {}", pattern, text);
            }
        }

        #[test]
        fn hostile_text_never_panics(pattern in ".{0,30}", text in ".{0,30}") {
            if let Ok(parsed) = Pattern::parse(&pattern) {
                let _ = parsed.matches(&text);
            }
        }
    }
}
