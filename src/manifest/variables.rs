//! The variables that manifests may name: those of the process, over those of the `.env` beside the manifest.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use crate::document::Source;
use crate::document::nearest::did_you_mean;
use crate::document::problem::Problem;
use crate::document::read::{self, ReadError};
use crate::env_file;

/// Variables by name. The file is not read before one of them is asked for: most manifests have none, and a `.env` that
/// somebody else uses in a way of his own does not stop them.
pub(super) struct Variables<'a> {
    environment: &'a [(OsString, OsString)],
    file: Option<PathBuf>,
    known: Option<HashMap<String, Found>>,
    /// What is wrong with the file.
    problems: Vec<Problem>,
    unreadable: Option<ReadError>,
    hints: usize,
}

/// What is known about a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It has this value, which nobody must see.
    Set(Rc<str>),
    /// Its value is not UTF-8.
    NotText,
    /// It is not set.
    Absent,
    /// It may stand in a file that could not be understood.
    Untold,
}

impl<'a> Variables<'a> {
    /// These, over those of a file, which need not exist.
    pub(super) fn new(environment: &'a [(OsString, OsString)], file: Option<PathBuf>) -> Self {
        Self {
            environment,
            file,
            known: None,
            problems: Vec::new(),
            unreadable: None,
            hints: 0,
        }
    }

    pub(super) fn get(&mut self, name: &str) -> Found {
        let found = self.known().get(name).cloned();
        let is_whole = self.problems.is_empty() && self.unreadable.is_none();
        found.unwrap_or(if is_whole {
            Found::Absent
        } else {
            Found::Untold
        })
    }

    /// What to do about a variable that is not set.
    pub(super) fn hint(&mut self, name: &str) -> String {
        /// After as many, nobody needs the nearest name, and to look for it takes its time.
        const MOST: usize = 20;
        self.hints += 1;
        let nearest = if self.hints <= MOST {
            did_you_mean(name, self.known().keys().map(String::as_str))
        } else {
            String::new()
        };
        if nearest.is_empty() {
            format!("; a default is written `${{{name}:-default}}`")
        } else {
            nearest
        }
    }

    /// What is wrong with the file, if it was read.
    pub(super) fn into_problems(self) -> Result<Vec<Problem>, ReadError> {
        self.unreadable.map_or(Ok(self.problems), Err)
    }

    fn known(&mut self) -> &HashMap<String, Found> {
        if self.known.is_none() {
            let mut known = self.of_file();
            for (name, value) in self.environment {
                if let Some(name) = name.to_str() {
                    let found = value
                        .to_str()
                        .map_or(Found::NotText, |value| Found::Set(value.into()));
                    known.insert(name.to_owned(), found);
                }
            }
            self.known = Some(known);
        }
        self.known.get_or_insert_default()
    }

    fn of_file(&mut self) -> HashMap<String, Found> {
        // A directory of that name is what some make for their Python.
        let file = self
            .file
            .as_ref()
            .filter(|path| path.exists() && !path.is_dir());
        let Some(path) = file else {
            return HashMap::new();
        };
        let text = match read::file(path) {
            Ok(text) => text,
            Err(error) => {
                self.unreadable = Some(error);
                return HashMap::new();
            }
        };
        let source = Arc::new(Source {
            name: path.display().to_string(),
            text,
        });
        match env_file::parse(&source) {
            Ok(variables) => variables
                .into_iter()
                .map(|(name, value)| (name, Found::Set(value.into())))
                .collect(),
            Err(problems) => {
                self.problems = problems;
                HashMap::new()
            }
        }
    }
}
