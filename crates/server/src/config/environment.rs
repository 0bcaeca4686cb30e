//! Environment variables above the file: the name spells a key's path, the value is TOML.

use std::collections::BTreeMap;
use std::ffi::OsString;

use toml::{Table, Value};

use super::ConfigFault;

/// What the names of all settings start with.
const PREFIX: &str = "HOOKWIRE_";

/// Variables with the prefix that are no settings of the service: the filter of its logs, and whom the tools trust.
const OTHER_VARIABLES: [&str; 2] = ["HOOKWIRE_LOG", "HOOKWIRE_CA_FILE"];

/// Most levels of a path; the schema has fewer.
const LEVELS_MAX: usize = 8;

/// The settings among the environment variables, by name: an outer key comes before the keys inside it, whatever the order in which
/// the system lists them.
#[derive(Debug, Default)]
pub(super) struct Environment(BTreeMap<String, Setting>);

#[derive(Debug)]
struct Setting {
    levels: Vec<String>,
    value: Value,
}

impl Environment {
    /// Picks out the settings. No fault repeats a value: it may be a key.
    pub(super) fn parse(
        variables: impl Iterator<Item = (OsString, OsString)>,
        faults: &mut Vec<ConfigFault>,
    ) -> Self {
        let mut settings = BTreeMap::new();
        for (name, text) in variables {
            let name = name.to_string_lossy().into_owned();
            let Some(path) = name.strip_prefix(PREFIX) else { continue };
            if OTHER_VARIABLES.contains(&name.as_str()) {
                continue;
            }
            match Setting::parse(path, text) {
                Ok(setting) => drop(settings.insert(name, setting)),
                Err(fault) => faults.push(ConfigFault { path: name, fault: fault.to_owned() }),
            }
        }
        Self(settings)
    }

    /// Puts the settings into `table`, over what stands there.
    pub(super) fn overlay(&self, table: &mut Table, faults: &mut Vec<ConfigFault>) {
        for (name, setting) in &self.0 {
            if let Err(fault) = setting.overlay(table) {
                faults.push(ConfigFault { path: name.clone(), fault });
            }
        }
    }

    /// Says in each fault of a key that a variable has set which one that was.
    pub(super) fn name_origins(&self, faults: &mut [ConfigFault]) {
        for fault in faults {
            // The innermost path is the last to be put in place.
            let origin = self.0.iter().rev().find(|(_, setting)| setting.holds(&fault.path));
            if let Some((name, _)) = origin {
                fault.fault = format!("{} (set by {name})", fault.fault);
            }
        }
    }
}

impl Setting {
    fn parse(path: &str, text: OsString) -> Result<Self, &'static str> {
        let levels: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
        if path.contains(|character: char| character.is_ascii_lowercase()) {
            return Err("names of variables are written in upper case");
        }
        if levels.iter().any(String::is_empty) || LEVELS_MAX < levels.len() {
            return Err("the name is not the path of a key, with __ between its levels");
        }
        let text = text.into_string().map_err(|_| "the value is not UTF-8")?;
        let value = text.trim().parse().map_err(|_| {
            "the value is not TOML; text needs quotes, such as '\"/var/lib/hookwire\"', and a list brackets, such as \
             '[\"127.0.0.1:8080\"]'"
        })?;
        Ok(Self { levels, value })
    }

    fn overlay(&self, table: &mut Table) -> Result<(), String> {
        let (last, parents) =
            self.levels.split_last().expect("splitting text gives at least one part");
        let mut at = table;
        for level in parents {
            let next = at.entry(level.clone()).or_insert_with(|| Value::Table(Table::new()));
            at = next.as_table_mut().ok_or_else(|| {
                format!(
                    "{level} is not a table; a list is set as a whole, with its tables in braces"
                )
            })?;
        }
        at.insert(last.clone(), self.value.clone());
        Ok(())
    }

    /// Returns whether `path` is this setting's, lies inside it, or is a table made for it.
    fn holds(&self, path: &str) -> bool {
        let own = self.levels.join(".");
        let lies_in = |inner: &str, outer: &str| {
            inner
                .strip_prefix(outer)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        lies_in(path, &own) || lies_in(&own, path)
    }
}
