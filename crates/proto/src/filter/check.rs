//! Types: a tree of the grammar to terms that cannot fail. Both sides are checked even if one decides.

use super::FilterError;
use super::predicate::{Int, Term, Test, Text};
use super::syntax::{Comparison, Literal, Node, Set};

/// Returns the test that the whole filter is.
pub(super) fn compile(filter: &str, node: &Node<'_>) -> Result<Test, FilterError> {
    let term = compile_term(node).map_err(|fault| fault.within(|| filter.to_owned()))?;
    bool_of(term, node)
}

/// An error, or a name that is not known and waits for the term to be named around it.
enum Fault {
    Error(FilterError),
    Unknown(String),
}

impl From<FilterError> for Fault {
    fn from(error: FilterError) -> Self {
        Self::Error(error)
    }
}

impl Fault {
    /// Returns the error, whose term around it is `expression` unless an inner one was named.
    fn within(self, expression: impl FnOnce() -> String) -> FilterError {
        match self {
            Self::Error(error) => error,
            Self::Unknown(token) => FilterError::Unknown { expression: expression(), token },
        }
    }
}

fn compile_term(node: &Node<'_>) -> Result<Term, Fault> {
    let within = |fault: Fault| fault.within(|| node.to_string());
    let test = match node {
        Node::Or(left, right) => {
            let (left, right) = both(left, right).map_err(within)?;
            Test::Or(bool_of(left, node)?.into(), bool_of(right, node)?.into())
        }
        Node::And(left, right) => {
            let (left, right) = both(left, right).map_err(within)?;
            Test::And(bool_of(left, node)?.into(), bool_of(right, node)?.into())
        }
        Node::Compare(comparison, left, right) => {
            let (left, right) = both(left, right).map_err(within)?;
            compare(*comparison, left, right, node)?
        }
        Node::In(left, right) => {
            let left = compile_term(left).map_err(within)?;
            is_in(left, right, node)?
        }
        Node::Not(operand) => Test::Not(bool_of(compile_term(operand)?, node)?.into()),
        Node::Call(name, arguments) => return Ok(call(name, arguments, node)?),
        Node::Identifier(name) => return identifier(name),
        Node::Literal(literal) => {
            return Ok(match literal {
                Literal::Null => Term::Null,
                Literal::Bool(value) => Term::Bool(Test::Literal(*value).into()),
                Literal::Int(value) => Term::Int(Int::Literal(*value)),
                Literal::Text(text) => Term::Text(Text::Literal(text.clone())),
            });
        }
    };
    Ok(Term::Bool(test.into()))
}

fn is_in(left: Term, right: &Set<'_>, node: &Node<'_>) -> Result<Test, FilterError> {
    let right = match right {
        Set::List(items, _) => return Ok(Test::InList(left.into(), items.clone())),
        Set::Term(right) => {
            compile_term(right).map_err(|fault| fault.within(|| node.to_string()))?
        }
    };
    let Term::Groups = right else { return Err(wrong_type(&right, "collection", node)) };
    Ok(match left {
        Term::Text(text) => Test::InGroups(text),
        // Nothing else is the name of a group.
        Term::Null | Term::Bool(_) | Term::Int(_) | Term::Groups => Test::Literal(false),
    })
}

fn both(left: &Node<'_>, right: &Node<'_>) -> Result<(Term, Term), Fault> {
    Ok((compile_term(left)?, compile_term(right)?))
}

fn compare(
    comparison: Comparison,
    left: Term,
    right: Term,
    node: &Node<'_>,
) -> Result<Test, FilterError> {
    Ok(match (comparison, left, right) {
        (Comparison::Equal, left, right) => Test::Equal(left.into(), right.into()),
        (Comparison::NotEqual, left, right) => {
            Test::Not(Test::Equal(left.into(), right.into()).into())
        }
        // Nothing comes before or after null, whatever it is.
        (_, Term::Null, _) | (_, _, Term::Null) => Test::Literal(false),
        (_, Term::Text(left), Term::Text(right)) => Test::CompareTexts(comparison, left, right),
        (_, left, right) => {
            Test::CompareInts(comparison, int_of(left, node)?, int_of(right, node)?)
        }
    })
}

fn identifier(name: &str) -> Result<Term, Fault> {
    Ok(match name.to_ascii_lowercase().as_str() {
        "userid" => Term::Text(Text::UserId),
        "connectionid" => Term::Text(Text::ConnectionId),
        "protocol" => Term::Text(Text::Protocol),
        "groups" => Term::Groups,
        _ => return Err(Fault::Unknown(name.to_owned())),
    })
}

fn call(name: &str, arguments: &[Node<'_>], node: &Node<'_>) -> Result<Term, FilterError> {
    let term =
        |argument| compile_term(argument).map_err(|fault: Fault| fault.within(|| node.to_string()));
    let text = |argument| text_of(term(argument)?, node);
    let truth = |test: Test| Term::Bool(test.into());
    Ok(match (name, arguments) {
        ("length", [of]) => Term::Int(match term(of)? {
            Term::Groups => Int::GroupCount,
            Term::Null => Int::Null,
            other @ (Term::Bool(_) | Term::Int(_) | Term::Text(_)) => {
                Int::Length(text_of(other, node)?)
            }
        }),
        ("tolower", [of]) => Term::Text(Text::ToLower(text(of)?.into())),
        ("toupper", [of]) => Term::Text(Text::ToUpper(text(of)?.into())),
        ("trim", [of]) => Term::Text(Text::Trim(text(of)?.into())),
        ("startswith", [of, part]) => truth(Test::StartsWith(text(of)?, text(part)?)),
        ("endswith", [of, part]) => truth(Test::EndsWith(text(of)?, text(part)?)),
        ("contains", [of, part]) => truth(Test::Contains(text(of)?, text(part)?)),
        ("indexof", [of, part]) => Term::Int(Int::IndexOf(text(of)?, text(part)?)),
        ("concat", [left, right]) => {
            Term::Text(Text::Concat(text(left)?.into(), text(right)?.into()))
        }
        ("substring", [of, start, rest @ ..]) if rest.len() < 2 => {
            let of = text(of)?;
            let start = int_of(term(start)?, node)?;
            let length = match rest {
                [length] => Some(int_of(term(length)?, node)?.into()),
                _ => None,
            };
            Term::Text(Text::Substring(of.into(), start.into(), length))
        }
        (
            "length" | "tolower" | "toupper" | "trim" | "startswith" | "endswith" | "contains"
            | "indexof" | "concat" | "substring",
            _,
        ) => return Err(FilterError::Arguments { call: node.to_string() }),
        _ => {
            return Err(FilterError::Unknown {
                expression: node.to_string(),
                token: node.to_string(),
            });
        }
    })
}

fn bool_of(term: Term, node: &Node<'_>) -> Result<Test, FilterError> {
    if let Term::Bool(test) = term { Ok(*test) } else { Err(wrong_type(&term, "bool", node)) }
}

fn int_of(term: Term, node: &Node<'_>) -> Result<Int, FilterError> {
    if let Term::Int(int) = term { Ok(int) } else { Err(wrong_type(&term, "int", node)) }
}

/// A text, or null where a text may stand.
fn text_of(term: Term, node: &Node<'_>) -> Result<Text, FilterError> {
    match term {
        Term::Text(text) => Ok(text),
        Term::Null => Ok(Text::Null),
        Term::Bool(_) | Term::Int(_) | Term::Groups => Err(wrong_type(&term, "string", node)),
    }
}

fn wrong_type(term: &Term, expected: &'static str, node: &Node<'_>) -> FilterError {
    let actual = match term {
        Term::Null => "null",
        Term::Bool(_) => "bool",
        Term::Int(_) => "int",
        Term::Text(_) => "string",
        Term::Groups => "collection",
    };
    FilterError::Type { expression: node.to_string(), actual, expected }
}
