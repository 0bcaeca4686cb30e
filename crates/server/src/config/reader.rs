//! One table of the configuration, read key by key: what is left over is unknown.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::{Table, Value};

use super::ConfigFault;

/// A table and the path that leads to it.
#[derive(Debug)]
pub(super) struct Section {
    prefix: String,
    table: Table,
    /// The keys that have been asked for: all there are.
    known: Vec<String>,
}

/// A switch, or a table that says more.
#[derive(Debug)]
pub(super) enum FlagOrSection {
    Flag(bool),
    Section(Section),
}

impl Section {
    pub(super) fn new(prefix: &str, table: Table) -> Self {
        Self { prefix: prefix.to_owned(), table, known: Vec::new() }
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.known.push(key.to_owned());
        self.table.remove(key)
    }

    /// Whether the key is there, whatever its value.
    pub(super) fn sets(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    fn path(&self, key: &str) -> String {
        if self.prefix.is_empty() { key.to_owned() } else { format!("{}.{key}", self.prefix) }
    }

    pub(super) fn fault(&self, key: &str, fault: &str, faults: &mut Vec<ConfigFault>) {
        faults.push(ConfigFault { path: self.path(key), fault: fault.to_owned() });
    }

    pub(super) fn text(&mut self, key: &str, faults: &mut Vec<ConfigFault>) -> Option<String> {
        let Value::String(text) = self.take(key)? else {
            self.fault(key, "must be text", faults);
            return None;
        };
        Some(text)
    }

    pub(super) fn required_text(
        &mut self,
        key: &str,
        faults: &mut Vec<ConfigFault>,
    ) -> Option<String> {
        if !self.table.contains_key(key) {
            self.fault(key, "is missing", faults);
        }
        self.text(key, faults)
    }

    /// Returns what `check` makes of a value, or reports its fault.
    pub(super) fn checked<T, U>(
        &self,
        key: &str,
        value: T,
        faults: &mut Vec<ConfigFault>,
        check: impl FnOnce(T) -> Result<U, String>,
    ) -> Option<U> {
        check(value).map_err(|fault| self.fault(key, &fault, faults)).ok()
    }

    /// Reads a table whose keys are anybody's, with a text each.
    pub(super) fn text_table(
        &mut self,
        key: &str,
        faults: &mut Vec<ConfigFault>,
    ) -> Option<BTreeMap<String, String>> {
        let Value::Table(table) = self.take(key)? else {
            self.fault(key, "must be a table", faults);
            return None;
        };
        let mut texts = BTreeMap::new();
        for (name, value) in table {
            if let Value::String(text) = value {
                texts.insert(name, text);
            } else {
                self.fault(&format!("{key}.{name}"), "must be text", faults);
            }
        }
        Some(texts)
    }

    pub(super) fn texts(
        &mut self,
        key: &str,
        faults: &mut Vec<ConfigFault>,
    ) -> Option<Vec<String>> {
        let texts = match self.take(key)? {
            Value::Array(items) => items
                .into_iter()
                .map(|item| if let Value::String(text) = item { Some(text) } else { None })
                .collect(),
            Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_)
            | Value::Table(_) => None,
        };
        if texts.is_none() {
            self.fault(key, "must be a list of texts", faults);
        }
        texts
    }

    /// Parses each of `texts`, reporting faults by their place.
    pub(super) fn parse_all<T>(
        &self,
        key: &str,
        texts: &[String],
        faults: &mut Vec<ConfigFault>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let mut parsed = Vec::with_capacity(texts.len());
        for (at, text) in texts.iter().enumerate() {
            match parse(text) {
                Ok(value) => parsed.push(value),
                Err(fault) => self.fault(&format!("{key}[{at}]"), &fault, faults),
            }
        }
        parsed
    }

    pub(super) fn flag(&mut self, key: &str, faults: &mut Vec<ConfigFault>) -> Option<bool> {
        let Value::Boolean(flag) = self.take(key)? else {
            self.fault(key, "must be true or false", faults);
            return None;
        };
        Some(flag)
    }

    pub(super) fn number(
        &mut self,
        key: &str,
        default: usize,
        range: RangeInclusive<usize>,
        faults: &mut Vec<ConfigFault>,
    ) -> usize {
        let Some(value) = self.take(key) else { return default };
        let number = value.as_integer().and_then(|number| usize::try_from(number).ok());
        if let Some(number) = number.filter(|number| range.contains(number)) {
            return number;
        }
        let fault = format!("must be a whole number from {} to {}", range.start(), range.end());
        self.fault(key, &fault, faults);
        default
    }

    /// Reads a time of at least a tenth of a second and at most a day.
    pub(super) fn seconds(
        &mut self,
        key: &str,
        default: Duration,
        faults: &mut Vec<ConfigFault>,
    ) -> Duration {
        self.optional_seconds(key, faults).unwrap_or(default)
    }

    /// As [`Section::seconds`], where 0 stands for no time at all and is the default.
    pub(super) fn seconds_or_zero(&mut self, key: &str, faults: &mut Vec<ConfigFault>) -> Duration {
        let is_zero = |value: &Value| {
            value.as_integer() == Some(0) || value.as_float().is_some_and(|value| value == 0.0)
        };
        if self.table.get(key).is_some_and(is_zero) {
            self.take(key);
            return Duration::ZERO;
        }
        self.seconds(key, Duration::ZERO, faults)
    }

    /// As [`Section::seconds`]; `None` when it is not set.
    pub(super) fn optional_seconds(
        &mut self,
        key: &str,
        faults: &mut Vec<ConfigFault>,
    ) -> Option<Duration> {
        let value = self.take(key)?;
        #[expect(clippy::cast_precision_loss, reason = "only numbers up to a day pass")]
        let seconds = value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64));
        if let Some(seconds) = seconds.filter(|seconds| (0.1..=86_400.0).contains(seconds)) {
            return Some(Duration::from_secs_f64(seconds));
        }
        self.fault(key, "must be a number of seconds from 0.1 to 86400", faults);
        None
    }

    pub(super) fn section(&mut self, key: &str, faults: &mut Vec<ConfigFault>) -> Option<Self> {
        let Value::Table(table) = self.take(key)? else {
            self.fault(key, "must be a table", faults);
            return None;
        };
        Some(Self::new(&self.path(key), table))
    }

    /// Reads what is switched by `true` and `false`, or described by a table.
    pub(super) fn flag_or_section(
        &mut self,
        key: &str,
        faults: &mut Vec<ConfigFault>,
    ) -> Option<FlagOrSection> {
        match self.take(key)? {
            Value::Boolean(flag) => Some(FlagOrSection::Flag(flag)),
            Value::Table(table) => Some(FlagOrSection::Section(Self::new(&self.path(key), table))),
            Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Datetime(_)
            | Value::Array(_) => {
                self.fault(key, "must be true, false or a table", faults);
                None
            }
        }
    }

    pub(super) fn sections(&mut self, key: &str, faults: &mut Vec<ConfigFault>) -> Vec<Self> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let Value::Array(items) = value else {
            self.fault(key, "must be a list of tables", faults);
            return Vec::new();
        };
        let mut sections = Vec::with_capacity(items.len());
        for (at, item) in items.into_iter().enumerate() {
            let place = format!("{key}[{at}]");
            if let Value::Table(table) = item {
                sections.push(Self::new(&self.path(&place), table));
            } else {
                self.fault(&place, "must be a table", faults);
            }
        }
        sections
    }

    /// Reports every key that nobody has asked for.
    pub(super) fn finish(self, faults: &mut Vec<ConfigFault>) {
        for key in self.table.keys() {
            let alike = |known: &&String| SIMILARITY_MIN <= strsim::jaro_winkler(key, known);
            let fault = match self.known.iter().find(alike) {
                Some(known) => format!("unknown key; is {known} meant?"),
                None => format!("unknown key; the keys here are {}", self.known.join(", ")),
            };
            self.fault(key, &fault, faults);
        }
    }
}

/// From here on (0 to 1, by Jaro and Winkler) a key is taken for a misspelling of another.
const SIMILARITY_MIN: f64 = 0.87;
