//! The grammar: text to a tree, and a tree to text for errors.

use std::fmt;

use super::{FILTER_CLAUSES_MAX, FILTER_NESTING_MAX, FilterError};

/// A term as it was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node<'a> {
    Or(Box<Self>, Box<Self>),
    And(Box<Self>, Box<Self>),
    Compare(Comparison, Box<Self>, Box<Self>),
    In(Box<Self>, Set<'a>),
    Not(Box<Self>),
    Call(&'a str, Vec<Self>),
    Identifier(&'a str),
    Literal(Literal),
}

/// The right side of `in`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Set<'a> {
    /// Values, and how they were written.
    List(Vec<Literal>, &'a str),
    Term(Box<Node<'a>>),
}

/// A value as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Text(Box<str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Comparison {
    /// Returns the comparison that a word or one of its aliases means.
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "eq" | "==" => Self::Equal,
            "ne" | "!=" => Self::NotEqual,
            "gt" | ">" => Self::Greater,
            "ge" | ">=" => Self::GreaterOrEqual,
            "lt" | "<" => Self::Less,
            "le" | "<=" => Self::LessOrEqual,
            _ => return None,
        })
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "eq",
            Self::NotEqual => "ne",
            Self::Greater => "gt",
            Self::GreaterOrEqual => "ge",
            Self::Less => "lt",
            Self::LessOrEqual => "le",
        }
    }
}

/// Reads a whole filter.
pub(super) fn parse(text: &str) -> Result<Node<'_>, FilterError> {
    let mut parser =
        Parser { text, current: Token { kind: Kind::End, start: 0, end: 0 }, depth: 0, clauses: 1 };
    parser.advance()?;
    let node = parser.or()?;
    if parser.current.kind == Kind::End { Ok(node) } else { Err(parser.syntax_error()) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    End,
    Word,
    /// With its quotes.
    Text,
    Int,
    Open,
    Close,
    Comma,
    Symbol,
}

#[derive(Debug, Clone, Copy)]
struct Token {
    kind: Kind,
    /// In bytes.
    start: usize,
    end: usize,
}

/// One token ahead of what has been understood.
struct Parser<'a> {
    text: &'a str,
    current: Token,
    depth: usize,
    clauses: usize,
}

impl<'a> Parser<'a> {
    fn or(&mut self) -> Result<Node<'a>, FilterError> {
        let mut left = self.and()?;
        while self.take_word("or")? {
            self.count_clause()?;
            left = Node::Or(left.into(), self.and()?.into());
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Node<'a>, FilterError> {
        let mut left = self.comparison()?;
        while self.take_word("and")? {
            self.count_clause()?;
            left = Node::And(left.into(), self.comparison()?.into());
        }
        Ok(left)
    }

    fn comparison(&mut self) -> Result<Node<'a>, FilterError> {
        let left = self.unary()?;
        if self.take_word("in")? {
            let right = if self.current.kind == Kind::Open {
                self.list()?
            } else {
                Set::Term(self.unary()?.into())
            };
            return Ok(Node::In(left.into(), right));
        }
        let is_operator = matches!(self.current.kind, Kind::Word | Kind::Symbol);
        let comparison = is_operator.then(|| Comparison::parse(self.token_text())).flatten();
        let Some(comparison) = comparison else { return Ok(left) };
        self.advance()?;
        Ok(Node::Compare(comparison, left.into(), self.unary()?.into()))
    }

    fn unary(&mut self) -> Result<Node<'a>, FilterError> {
        if self.take_word("not")? {
            return self.nested(|parser| Ok(Node::Not(parser.unary()?.into())));
        }
        self.primary()
    }

    fn primary(&mut self) -> Result<Node<'a>, FilterError> {
        if self.current.kind == Kind::Open {
            return self.nested(|parser| {
                parser.advance()?;
                let node = parser.or()?;
                parser.expect(Kind::Close)?;
                Ok(node)
            });
        }
        let name = self.token_text();
        if self.current.kind != Kind::Word || matches!(name, "null" | "true" | "false") {
            return self.literal().map(Node::Literal);
        }
        if is_operator(name) {
            return Err(self.syntax_error());
        }
        self.advance()?;
        if self.current.kind == Kind::Open {
            return self.nested(|parser| Ok(Node::Call(name, parser.arguments()?)));
        }
        Ok(Node::Identifier(name))
    }

    /// Reads arguments with their parentheses.
    fn arguments(&mut self) -> Result<Vec<Node<'a>>, FilterError> {
        self.expect(Kind::Open)?;
        let mut arguments = Vec::new();
        if self.current.kind != Kind::Close {
            arguments.push(self.or()?);
            while self.current.kind == Kind::Comma {
                self.advance()?;
                arguments.push(self.or()?);
            }
        }
        self.expect(Kind::Close)?;
        Ok(arguments)
    }

    /// Reads a list with its parentheses.
    fn list(&mut self) -> Result<Set<'a>, FilterError> {
        let start = self.current.start;
        self.advance()?;
        let mut items = vec![self.literal()?];
        while self.current.kind == Kind::Comma {
            self.advance()?;
            items.push(self.literal()?);
        }
        let text = &self.text[start..self.current.end];
        self.expect(Kind::Close)?;
        Ok(Set::List(items, text))
    }

    fn literal(&mut self) -> Result<Literal, FilterError> {
        let text = self.token_text();
        let literal = match (self.current.kind, text) {
            (Kind::Word, "null") => Literal::Null,
            (Kind::Word, "true") => Literal::Bool(true),
            (Kind::Word, "false") => Literal::Bool(false),
            (Kind::Int, digits) => Literal::Int(digits.parse().map_err(|_| self.syntax_error())?),
            (Kind::Text, quoted) => {
                Literal::Text(quoted[1..quoted.len() - 1].replace("''", "'").into())
            }
            _ => return Err(self.syntax_error()),
        };
        self.advance()?;
        Ok(literal)
    }

    fn token_text(&self) -> &'a str {
        &self.text[self.current.start..self.current.end]
    }

    /// Whether the current token was `word`, which is read then.
    fn take_word(&mut self, word: &str) -> Result<bool, FilterError> {
        let is_it = self.current.kind == Kind::Word && self.token_text() == word;
        if is_it {
            self.advance()?;
        }
        Ok(is_it)
    }

    fn expect(&mut self, kind: Kind) -> Result<(), FilterError> {
        if self.current.kind == kind { self.advance() } else { Err(self.syntax_error()) }
    }

    fn nested<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, FilterError>,
    ) -> Result<T, FilterError> {
        if self.depth == FILTER_NESTING_MAX {
            return Err(FilterError::TooDeep { filter: self.text.to_owned() });
        }
        self.depth += 1;
        let read = read(self)?;
        self.depth -= 1;
        Ok(read)
    }

    fn count_clause(&mut self) -> Result<(), FilterError> {
        if self.clauses == FILTER_CLAUSES_MAX {
            return Err(FilterError::TooManyClauses { filter: self.text.to_owned() });
        }
        self.clauses += 1;
        Ok(())
    }

    /// Reads the next token.
    fn advance(&mut self) -> Result<(), FilterError> {
        let rest = self.text[self.current.end..].trim_start();
        let start = self.text.len() - rest.len();
        let is_digit = |character: char| character.is_ascii_digit();
        let (kind, length) = match rest.as_bytes() {
            [] => (Kind::End, 0),
            [b'(', ..] => (Kind::Open, 1),
            [b')', ..] => (Kind::Close, 1),
            [b',', ..] => (Kind::Comma, 1),
            [b'\'', ..] => (Kind::Text, quoted_length(rest)),
            [b'<' | b'>' | b'=' | b'!', b'=', ..] => (Kind::Symbol, 2),
            [b'<' | b'>', ..] => (Kind::Symbol, 1),
            [b'-', b'0'..=b'9', ..] => (Kind::Int, 1 + length_of(&rest[1..], is_digit)),
            [b'0'..=b'9', ..] => (Kind::Int, length_of(rest, is_digit)),
            [b'a'..=b'z' | b'A'..=b'Z' | b'_', ..] => {
                (Kind::Word, length_of(rest, |one| one.is_ascii_alphanumeric() || one == '_'))
            }
            _ => {
                let length = rest.chars().next().map_or(0, char::len_utf8);
                self.current = Token { kind: Kind::End, start, end: start + length };
                return Err(self.syntax_error());
            }
        };
        self.current = Token { kind, start, end: start + length };
        if kind == Kind::Text && length == 0 {
            self.current.end = self.text.len();
            return Err(self.syntax_error());
        }
        Ok(())
    }

    fn syntax_error(&self) -> FilterError {
        let position = self.text[..self.current.end].encode_utf16().count();
        FilterError::Syntax { filter: self.text.to_owned(), position }
    }
}

/// Returns how many bytes of characters of a kind stand at the start.
fn length_of(text: &str, is_it: impl Fn(char) -> bool) -> usize {
    text.find(|character| !is_it(character)).unwrap_or(text.len())
}

/// Returns the length of the quoted text at the start, quotes included; 0 if it does not end. Two quotes inside are one.
fn quoted_length(text: &str) -> usize {
    let mut from = 1;
    while let Some(at) = text[from..].find('\'') {
        let after = from + at + 1;
        if !text[after..].starts_with('\'') {
            return after;
        }
        from = after + 1;
    }
    0
}

fn is_operator(word: &str) -> bool {
    matches!(word, "and" | "or" | "not" | "in") || Comparison::parse(word).is_some()
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => value.fmt(f),
            Self::Int(value) => value.fmt(f),
            Self::Text(text) => write!(f, "'{text}'"),
        }
    }
}

impl fmt::Display for Node<'_> {
    /// Writes the term as errors show it: parentheses around every operator inside another.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Or(left, right) => write!(f, "{} or {}", Wrapped(left), Wrapped(right)),
            Self::And(left, right) => write!(f, "{} and {}", Wrapped(left), Wrapped(right)),
            Self::Compare(comparison, left, right) => {
                write!(f, "{} {} {}", Wrapped(left), comparison.as_str(), Wrapped(right))
            }
            Self::In(left, Set::List(_, text)) => write!(f, "{left} in {text}"),
            Self::In(left, Set::Term(right)) => write!(f, "{left} in {right}"),
            Self::Not(operand) => write!(f, "not {}", Wrapped(operand)),
            Self::Call(name, arguments) => {
                write!(f, "{name}(")?;
                for (at, argument) in arguments.iter().enumerate() {
                    let comma = if at == 0 { "" } else { "," };
                    write!(f, "{comma}{argument}")?;
                }
                f.write_str(")")
            }
            Self::Identifier(name) => f.write_str(name),
            Self::Literal(literal) => literal.fmt(f),
        }
    }
}

/// A term inside an operator.
struct Wrapped<'a>(&'a Node<'a>);

impl fmt::Display for Wrapped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Node::Or(..) | Node::And(..) | Node::Compare(..) | Node::In(..) | Node::Not(_) => {
                write!(f, "({})", self.0)
            }
            Node::Call(..) | Node::Identifier(_) | Node::Literal(_) => self.0.fmt(f),
        }
    }
}
