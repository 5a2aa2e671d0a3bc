//! The environment of a service: what it inherits, what files and the manifest set.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};

use crate::words::Words;

/// What every program may expect to find.
const MINIMAL: [&str; 10] = [
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TERM", "TMPDIR", "TZ",
];

/// The word for the variables that every program may expect to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Minimal;

impl Words for Minimal {
    const WORDS: &'static [(&'static str, Self)] = &[("minimal", Self)];
    const TOLD: usize = 1;
}

/// What is inherited of our own environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Inherit<'a> {
    All,
    Only(Vec<&'a str>),
}

impl Inherit<'_> {
    /// Nothing but what every program may expect.
    pub(super) fn minimal() -> Self {
        Self::Only(MINIMAL.to_vec())
    }
}

/// Variables, each once: one that is set again keeps its place.
#[derive(Clone, Debug, Default)]
pub(super) struct Variables {
    pairs: Vec<(OsString, OsString)>,
    index: HashMap<OsString, usize>,
}

impl Variables {
    /// Sets one, in place of what it was.
    pub(super) fn set(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) {
        let (name, value) = (name.into(), value.into());
        if let Some(position) = self.index.get(&name) {
            self.pairs[*position].1 = value;
        } else {
            self.index.insert(name.clone(), self.pairs.len());
            self.pairs.push((name, value));
        }
    }

    /// Takes those that are named from an environment, as far as they are there.
    pub(super) fn take(&mut self, names: &[&str], environment: &[(OsString, OsString)]) {
        for name in names {
            let found = environment
                .iter()
                .find(|(known, _)| known.as_os_str() == OsStr::new(name));
            if let Some((name, value)) = found {
                self.set(name.clone(), value.clone());
            }
        }
    }

    /// All of them, in the order in which they were first set.
    pub(super) fn into_pairs(self) -> Vec<(OsString, OsString)> {
        self.pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_again_keeps_its_place() {
        let mut variables = Variables::default();
        let environment = [("B", "2"), ("A", "1")].map(|(k, v)| (k.into(), v.into()));
        variables.take(&["A", "C", "B"], &environment);
        variables.set("A", "3");
        let expected: Vec<(OsString, OsString)> =
            vec![("A".into(), "3".into()), ("B".into(), "2".into())];
        assert_eq!(variables.into_pairs(), expected);
    }
}
