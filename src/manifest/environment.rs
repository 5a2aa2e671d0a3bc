//! The environment of a service: what it inherits, what files and the manifest set.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use kimi_actors::policy::spec::BaseEnv;

use crate::document::Source;
use crate::document::problem::Problem;
use crate::document::read::{self, ReadError};
use crate::env_file;
use crate::manifest::convert::Conversion;
use crate::manifest::wire::{At, EnvFile, Service};
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

/// The variables of a file; nothing if it does not exist.
pub(super) type ReadVariables = Option<Arc<Vec<(String, String)>>>;

/// One of the processes that a service stands for.
#[derive(Clone, Copy)]
pub(super) struct Replica {
    pub(super) index: u16,
    pub(super) of: u16,
}

/// The environment of one process of a service.
pub(super) struct Environment {
    pub(super) base: BaseEnv,
    /// What all of them find.
    shared: Rc<[(OsString, OsString)]>,
    /// What tells this one from the others, and wins.
    own: Vec<(&'static str, String)>,
    /// About what it takes.
    pub(super) bytes: usize,
}

impl Environment {
    fn new(base: BaseEnv, pairs: Vec<(OsString, OsString)>) -> Self {
        Self {
            base,
            bytes: pairs
                .iter()
                .map(|(name, value)| bytes_of(name, value))
                .sum(),
            shared: pairs.into(),
            own: Vec::new(),
        }
    }

    /// The same for one of several replicas, or for the only one.
    pub(super) fn of_replica(&self, service: &Service<'_>, replica: Option<Replica>) -> Self {
        let mut own = Vec::new();
        let index = replica.map_or(0, |replica| replica.index);
        if let Some(At { value: port, .. }) = service.port {
            let port = u32::from(port) + u32::from(index);
            own.push(("PORT", port.to_string()));
        }
        if let Some(Replica { index, of }) = replica {
            own.push(("KIMI_REPLICA_INDEX", index.to_string()));
            own.push(("KIMI_REPLICAS", of.to_string()));
        }
        Self {
            base: self.base,
            shared: Rc::clone(&self.shared),
            own,
            bytes: self.bytes,
        }
    }

    pub(super) fn to_pairs(&self) -> Vec<(OsString, OsString)> {
        let is_own = |name: &OsString| self.own.iter().any(|(own, _)| name == own);
        let shared = self.shared.iter().filter(|(name, _)| !is_own(name));
        let own = self.own.iter();
        shared
            .cloned()
            .chain(own.map(|(name, value)| (name.into(), value.into())))
            .collect()
    }
}

impl Conversion<'_> {
    /// What all processes of a service find: inherited < of its user < files < `env`.
    pub(super) fn environment(
        &self,
        service: &Service<'_>,
        of_user: &[(OsString, OsString)],
        elsewhere: &mut Vec<Problem>,
    ) -> Environment {
        let mut variables = Variables::default();
        let base = match &service.shared.inherit {
            None | Some(Inherit::All) => BaseEnv::Inherited,
            Some(Inherit::Only(names)) => {
                if self.budget.spend(names.iter().map(|it| it.len()).sum()) {
                    variables.take(names, &self.own_environment());
                }
                BaseEnv::Empty
            }
        };
        for (name, value) in of_user {
            variables.set(name, value);
        }
        for file in service
            .shared
            .env_files
            .iter()
            .flat_map(|files| files.iter())
        {
            let read = self.env_file(file, elsewhere).unwrap_or_default();
            let bytes = read.iter().map(|(name, value)| bytes_of(name, value));
            if !self
                .budget
                .spend(bytes.sum::<usize>() + file.path.value.len())
            {
                break;
            }
            for (name, value) in read.iter() {
                variables.set(name, value);
            }
        }
        let shared = &service.shared;
        let of_manifest = || shared.env_below.iter().chain(&*shared.env);
        let bytes = of_manifest().map(|(name, value)| bytes_of(name.value, value));
        if self.budget.spend(bytes.sum()) {
            for (name, value) in of_manifest() {
                variables.set(name.value, value);
            }
        }
        Environment::new(base, variables.into_pairs())
    }

    fn own_environment(&self) -> HashMap<&OsStr, &OsStr> {
        let pairs = self.inputs.environment.iter();
        pairs
            .map(|(name, value)| (name.as_os_str(), value.as_os_str()))
            .collect()
    }

    fn env_file(&self, file: &EnvFile<'_>, elsewhere: &mut Vec<Problem>) -> ReadVariables {
        let path = self.path(Path::new(file.path.value));
        let known = self.env_files.borrow().get(&path).cloned();
        let read = known.unwrap_or_else(|| {
            let read = self.read_env_file(file, &path, elsewhere);
            self.env_files
                .borrow_mut()
                .insert(path.clone(), read.clone());
            read
        });
        if read.is_none() && file.must_exist {
            self.report.wrong(
                file.path.span,
                format!(
                    "there is no file {}; if it need not exist, write `{{ path: …, required: false }}`",
                    path.display()
                ),
            );
        }
        read
    }

    fn read_env_file(
        &self,
        file: &EnvFile<'_>,
        path: &Path,
        elsewhere: &mut Vec<Problem>,
    ) -> ReadVariables {
        let nothing = || Some(Arc::default());
        let text = match read::file(path) {
            Ok(text) => text,
            Err(ReadError::Refused { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                return None;
            }
            Err(error) => {
                let cause = std::error::Error::source(&error);
                let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
                self.report.wrong(file.path.span, format!("{error}{cause}"));
                return nothing();
            }
        };
        let source = Arc::new(Source {
            name: path.display().to_string(),
            text,
        });
        match env_file::parse(&source) {
            Ok(variables) => Some(Arc::new(variables)),
            Err(problems) => {
                elsewhere.extend(problems);
                nothing()
            }
        }
    }
}

/// About what a variable takes.
fn bytes_of(name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> usize {
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
