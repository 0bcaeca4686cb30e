//! Filters against an evaluator that is written down as the protocol tells it, on random terms.

use hookwire_proto::filter::{FILTER_BYTES_MAX, Filter, FilterError, Groups, Subject};
use proptest::prelude::*;

/// A term that is true or false, as a tree.
#[derive(Debug, Clone)]
enum Test {
    Literal(bool),
    Not(Box<Test>),
    And(Box<Test>, Box<Test>),
    Or(Box<Test>, Box<Test>),
    Equal(bool, Term, Term),
    Order(&'static str, Number, Number),
    TextOrder(&'static str, Text, Text),
    InList(Term, Vec<Plain>),
    InGroups(Term),
    Part(&'static str, Text, Text),
}

#[derive(Debug, Clone)]
enum Text {
    Null,
    Literal(String),
    Identifier(&'static str),
    /// `tolower`, `toupper` or `trim`.
    Changed(&'static str, Box<Text>),
    Substring(Box<Text>, Box<Number>, Option<Box<Number>>),
    Concat(Box<Text>, Box<Text>),
}

#[derive(Debug, Clone)]
enum Number {
    Literal(i64),
    Length(Box<Text>),
    GroupCount,
    IndexOf(Box<Text>, Box<Text>),
}

#[derive(Debug, Clone)]
enum Term {
    Test(Box<Test>),
    Text(Text),
    Number(Number),
    Groups,
}

#[derive(Debug, Clone, PartialEq)]
enum Plain {
    Null,
    Bool(bool),
    Number(i64),
    Text(String),
    Groups,
}

#[derive(Debug, Clone)]
struct Member {
    user_id: Option<String>,
    connection_id: String,
    protocol: Option<String>,
    groups: Vec<String>,
}

impl Groups for Member {
    fn contains(&self, name: &str) -> bool {
        self.groups.iter().any(|group| group == name)
    }

    fn count(&self) -> usize {
        self.groups.len()
    }

    fn any(&self, judge: &mut dyn FnMut(&str) -> bool) -> bool {
        self.groups.iter().any(|name| judge(name))
    }
}

// The naive evaluator.

fn test(term: &Test, of: &Member) -> bool {
    match term {
        Test::Literal(value) => *value,
        Test::Not(inner) => !test(inner, of),
        Test::And(left, right) => {
            let both = [test(left, of), test(right, of)];
            both == [true, true]
        }
        Test::Or(left, right) => {
            let both = [test(left, of), test(right, of)];
            both != [false, false]
        }
        Test::Equal(is_equal, left, right) => (plain(left, of) == plain(right, of)) == *is_equal,
        Test::Order(operator, left, right) => match (number(left, of), number(right, of)) {
            (Some(left), Some(right)) => ordered(operator, &left, &right),
            _ => false,
        },
        Test::TextOrder(operator, left, right) => match (text(left, of), text(right, of)) {
            (Some(left), Some(right)) => ordered(operator, &left, &right),
            _ => false,
        },
        Test::InList(term, items) => items.contains(&plain(term, of)),
        Test::InGroups(term) => {
            matches!(plain(term, of), Plain::Text(name) if of.groups.contains(&name))
        }
        Test::Part(function, whole, part) => match (text(whole, of), text(part, of)) {
            (Some(whole), Some(part)) => {
                let (whole, part) = (characters(&whole), characters(&part));
                match *function {
                    "startswith" => whole.starts_with(&part),
                    "endswith" => whole.ends_with(&part),
                    _ => position(&whole, &part).is_some(),
                }
            }
            _ => false,
        },
    }
}

fn ordered<T: Ord>(operator: &str, left: &T, right: &T) -> bool {
    match operator {
        "gt" | ">" => left > right,
        "ge" | ">=" => left >= right,
        "lt" | "<" => left < right,
        _ => left <= right,
    }
}

fn characters(text: &str) -> Vec<char> {
    text.chars().collect()
}

fn position(whole: &[char], part: &[char]) -> Option<usize> {
    (0..=whole.len()).find(|at| whole[*at..].starts_with(part))
}

fn text(term: &Text, of: &Member) -> Option<String> {
    match term {
        Text::Null => None,
        Text::Literal(text) => Some(text.clone()),
        Text::Identifier(name) => match name.to_lowercase().as_str() {
            "userid" => of.user_id.clone(),
            "connectionid" => Some(of.connection_id.clone()),
            _ => of.protocol.clone(),
        },
        Text::Changed(function, inner) => text(inner, of).map(|text| match *function {
            "tolower" => text.to_lowercase(),
            "toupper" => text.to_uppercase(),
            _ => text.trim().to_owned(),
        }),
        Text::Substring(inner, start, length) => {
            let text = characters(&text(inner, of)?);
            let start = usize::try_from(number(start, of)?).ok()?;
            let length = match length {
                None => text.len().checked_sub(start)?,
                Some(length) => usize::try_from(number(length, of)?).ok()?,
            };
            Some(text.get(start..start.checked_add(length)?)?.iter().collect())
        }
        Text::Concat(left, right) => match (text(left, of), text(right, of)) {
            (Some(left), Some(right)) => Some(format!("{left}{right}")),
            (one, None) => one,
            (None, other) => other,
        },
    }
}

fn number(term: &Number, of: &Member) -> Option<i64> {
    let signed = |count: usize| i64::try_from(count).expect("there are few characters");
    match term {
        Number::Literal(value) => Some(*value),
        Number::Length(inner) => Some(signed(characters(&text(inner, of)?).len())),
        Number::GroupCount => Some(signed(of.groups.len())),
        Number::IndexOf(whole, part) => Some(match (text(whole, of), text(part, of)) {
            (Some(whole), Some(part)) => {
                position(&characters(&whole), &characters(&part)).map_or(-1, signed)
            }
            _ => -1,
        }),
    }
}

fn plain(term: &Term, of: &Member) -> Plain {
    match term {
        Term::Test(inner) => Plain::Bool(test(inner, of)),
        Term::Text(inner) => text(inner, of).map_or(Plain::Null, Plain::Text),
        Term::Number(inner) => number(inner, of).map_or(Plain::Null, Plain::Number),
        Term::Groups => Plain::Groups,
    }
}

// Printing, with no more parentheses than the grammar needs.

fn print_test(term: &Test) -> String {
    match term {
        Test::Literal(value) => value.to_string(),
        Test::Not(inner) => {
            if matches!(**inner, Test::Literal(_) | Test::Not(_) | Test::Part(..)) {
                return format!("not {}", print_test(inner));
            }
            format!("not ({})", print_test(inner))
        }
        Test::And(left, right) => {
            let side = |side: &Test| {
                let text = print_test(side);
                if matches!(side, Test::Or(..)) { format!("( {text} )") } else { text }
            };
            format!("{} and {}", side(left), side(right))
        }
        Test::Or(left, right) => format!("{} or {}", print_test(left), print_test(right)),
        Test::Equal(is_equal, left, right) => {
            let operator = if *is_equal { "eq" } else { "ne" };
            format!("{} {operator} {}", print_term(left), print_term(right))
        }
        Test::Order(operator, left, right) => {
            format!("{} {operator} {}", print_number(left), print_number(right))
        }
        Test::TextOrder(operator, left, right) => {
            format!("{} {operator} {}", print_text(left), print_text(right))
        }
        Test::InList(term, items) => {
            let items: Vec<_> = items.iter().map(print_plain).collect();
            format!("{} in ({})", print_term(term), items.join(" , "))
        }
        Test::InGroups(term) => format!("{} in Groups", print_term(term)),
        Test::Part(function, whole, part) => {
            format!("{function}({}, {})", print_text(whole), print_text(part))
        }
    }
}

fn print_term(term: &Term) -> String {
    match term {
        Term::Test(inner) => {
            let text = print_test(inner);
            if matches!(**inner, Test::Literal(_) | Test::Part(..)) {
                text
            } else {
                format!("({text})")
            }
        }
        Term::Text(inner) => print_text(inner),
        Term::Number(inner) => print_number(inner),
        Term::Groups => "groups".to_owned(),
    }
}

fn print_text(term: &Text) -> String {
    match term {
        Text::Null => "null".to_owned(),
        Text::Literal(text) => format!("'{}'", text.replace('\'', "''")),
        Text::Identifier(name) => (*name).to_owned(),
        Text::Changed(function, inner) => format!("{function}({})", print_text(inner)),
        Text::Substring(inner, start, length) => {
            let length = length
                .as_ref()
                .map_or(String::new(), |length| format!(",{}", print_number(length)));
            format!("substring({}, {}{length})", print_text(inner), print_number(start))
        }
        Text::Concat(left, right) => format!("concat({},{})", print_text(left), print_text(right)),
    }
}

fn print_number(term: &Number) -> String {
    match term {
        Number::Literal(value) => value.to_string(),
        Number::Length(inner) => format!("length({})", print_text(inner)),
        Number::GroupCount => "length(groups)".to_owned(),
        Number::IndexOf(whole, part) => {
            format!("indexof( {} , {} )", print_text(whole), print_text(part))
        }
    }
}

fn print_plain(value: &Plain) -> String {
    match value {
        Plain::Null | Plain::Groups => "null".to_owned(),
        Plain::Bool(value) => value.to_string(),
        Plain::Number(value) => value.to_string(),
        Plain::Text(text) => print_text(&Text::Literal(text.clone())),
    }
}

// Random terms and connections over few letters, so that they meet.

fn letters() -> impl Strategy<Value = String> {
    "[abAÄ' ]{0,3}"
}

fn a_number(text: BoxedStrategy<Text>) -> BoxedStrategy<Number> {
    prop_oneof![
        (-2..4_i64).prop_map(Number::Literal),
        Just(Number::GroupCount),
        text.clone().prop_map(|text| Number::Length(text.into())),
        (text.clone(), text).prop_map(|(whole, part)| Number::IndexOf(whole.into(), part.into())),
    ]
    .boxed()
}

fn a_text() -> BoxedStrategy<Text> {
    let leaf = prop_oneof![
        1 => Just(Text::Null),
        3 => letters().prop_map(Text::Literal),
        4 => prop::sample::select(vec!["userId", "USERID", "connectionId", "protocol"]).prop_map(Text::Identifier),
    ];
    leaf.prop_recursive(2, 6, 2, |text| {
        let number = a_number(text.clone().boxed());
        prop_oneof![
            (prop::sample::select(vec!["tolower", "toupper", "trim"]), text.clone())
                .prop_map(|(function, text)| Text::Changed(function, text.into())),
            (text.clone(), number.clone(), prop::option::of(number)).prop_map(
                |(text, start, length)| Text::Substring(
                    text.into(),
                    start.into(),
                    length.map(Into::into)
                )
            ),
            (text.clone(), text).prop_map(|(left, right)| Text::Concat(left.into(), right.into())),
        ]
    })
    .boxed()
}

fn a_plain() -> impl Strategy<Value = Plain> {
    prop_oneof![
        Just(Plain::Null),
        any::<bool>().prop_map(Plain::Bool),
        (-1..3_i64).prop_map(Plain::Number),
        letters().prop_map(Plain::Text),
    ]
}

fn a_term(test: BoxedStrategy<Test>) -> BoxedStrategy<Term> {
    prop_oneof![
        1 => test.prop_map(|test| Term::Test(test.into())),
        4 => a_text().prop_map(Term::Text),
        2 => a_number(a_text()).prop_map(Term::Number),
        1 => Just(Term::Groups),
    ]
    .boxed()
}

fn an_operator() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["gt", "ge", "lt", "le", ">", ">=", "<", "<="])
}

fn a_test() -> impl Strategy<Value = Test> {
    let part = prop::sample::select(vec!["startswith", "endswith", "contains"]);
    let leaf = prop_oneof![
        any::<bool>().prop_map(Test::Literal),
        (an_operator(), a_number(a_text()), a_number(a_text()))
            .prop_map(|(operator, left, right)| Test::Order(operator, left, right)),
        (an_operator(), a_text(), a_text())
            .prop_map(|(operator, left, right)| Test::TextOrder(operator, left, right)),
        (part, a_text(), a_text())
            .prop_map(|(function, whole, part)| Test::Part(function, whole, part)),
    ];
    leaf.prop_recursive(5, 40, 2, |test| {
        let term = a_term(test.clone().boxed());
        prop_oneof![
            test.clone().prop_map(|test| Test::Not(test.into())),
            (test.clone(), test.clone())
                .prop_map(|(left, right)| Test::And(left.into(), right.into())),
            (test.clone(), test).prop_map(|(left, right)| Test::Or(left.into(), right.into())),
            (any::<bool>(), term.clone(), term.clone())
                .prop_map(|(is_equal, left, right)| Test::Equal(is_equal, left, right)),
            (term.clone(), prop::collection::vec(a_plain(), 1..4))
                .prop_map(|(term, items)| Test::InList(term, items)),
            term.prop_map(Test::InGroups),
        ]
    })
}

fn a_connection() -> impl Strategy<Value = Member> {
    (
        prop::option::of(letters()),
        letters(),
        prop::option::of(letters()),
        prop::collection::vec(letters(), 0..4),
    )
        .prop_map(|(user_id, connection_id, protocol, groups)| Member {
            user_id,
            connection_id,
            protocol,
            groups,
        })
}

fn selects(filter: &Filter, of: &Member) -> bool {
    filter.matches(&Subject {
        user_id: of.user_id.as_deref(),
        connection_id: &of.connection_id,
        protocol: of.protocol.as_deref(),
        groups: of,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// What is printed is read as it was meant: same precedence, same values, same nulls.
    #[test]
    fn a_filter_selects_what_its_terms_say(term in a_test(), connections in prop::collection::vec(a_connection(), 1..5)) {
        let text = print_test(&term);
        match Filter::parse(&text) {
            Ok(filter) => {
                for connection in &connections {
                    prop_assert_eq!(selects(&filter, connection), test(&term, connection), "{} {:?}", text, connection);
                }
            }
            Err(FilterError::TooLong { .. }) => prop_assert!(FILTER_BYTES_MAX < text.len()),
            Err(error) => prop_assert!(false, "{text}: {error}"),
        }
    }

    #[test]
    fn hostile_text_never_panics(text in ".{0,80}", connection in a_connection()) {
        if let Ok(filter) = Filter::parse(&text) {
            selects(&filter, &connection);
        }
    }

    /// Text of the grammar's own words gets further than noise.
    #[test]
    fn shuffled_words_never_panic(
        words in prop::collection::vec(prop::sample::select(vec![
            "(", ")", ",", "and", "or", "not", "in", "eq", "<=", "gt", "userId", "groups", "protocol", "null", "true", "'a'", "'", "1", "-",
            "length", "substring(", "concat(", "indexof(", "trim(", "ä", "x",
        ]), 0..30),
        connection in a_connection(),
    ) {
        let text = words.join(" ");
        match Filter::parse(&text) {
            Ok(filter) => { selects(&filter, &connection); }
            Err(FilterError::Syntax { position, .. }) => prop_assert!(position <= text.encode_utf16().count()),
            Err(error) => prop_assert!(error.to_string().ends_with("(Parameter 'filter')")),
        }
    }
}
