//! The environment of a service: what it inherits, what files and the manifest set.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::rc::Rc;

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
    Only(Rc<[&'a str]>),
}

impl Inherit<'_> {
    /// Nothing but what every program may expect.
    pub(super) fn minimal() -> Self {
        Self::Only(Rc::from(MINIMAL))
    }
}

/// Variables, each once: one that is set again keeps its place.
#[derive(Debug, Default)]
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
    pub(super) fn take(&mut self, names: &[&str], environment: &HashMap<&OsStr, &OsStr>) {
        for name in names {
            if let Some(value) = environment.get(OsStr::new(name)) {
                self.set(name, value);
            }
        }
    }

    /// All of them, in the order in which they were first set.
    pub(super) fn into_pairs(self) -> Vec<(OsString, OsString)> {
        self.pairs
    }
}

/// About what a variable takes.
pub(super) fn bytes_of(name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> usize {
    const BESIDE_THE_TEXT: usize = 64;
    name.as_ref().len() + value.as_ref().len() + BESIDE_THE_TEXT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_again_keeps_its_place() {
        let mut variables = Variables::default();
        let environment = [("B", "2"), ("A", "1")];
        let environment = environment.map(|(k, v)| (OsStr::new(k), OsStr::new(v)));
        let environment = environment.into_iter().collect();
        variables.take(&["A", "C", "B"], &environment);
        variables.set("A", "3");
        let expected: Vec<(OsString, OsString)> =
            vec![("A".into(), "3".into()), ("B".into(), "2".into())];
        assert_eq!(variables.into_pairs(), expected);
    }
}
