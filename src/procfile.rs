//! Procfiles: the grammar of foreman and its relatives, and a manifest that does the same.
//!
//! A line is `name: command`, a comment or empty. The first process gets the port 5000, each one after it 100 more; a `PORT`
//! in the `.env` file beside it is the first port instead. `release` runs once, before the others.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use kimi_actors::policy::spec::ChildName;

use crate::document::problem::{Place, Problem};
use crate::document::{Format, Source, Span};
use crate::written::{toml_text, yaml_text};

const FIRST_PORT: u16 = 5000;
const PORT_STEP: u16 = 100;
/// The process that runs once, before the others.
const RELEASE: &str = "release";
/// The longest name of ours.
const LONGEST_NAME: usize = 63;

/// What stands in a Procfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Procfile {
    /// The processes, in order.
    pub processes: Vec<Process>,
    /// What a manifest has no name for.
    pub untranslated: Vec<Untranslated>,
}

/// A process of a Procfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its name here.
    pub name: ChildName,
    /// Its name there.
    pub original: String,
    /// The line of shell that it is.
    pub command: String,
    /// How many processes stand before it.
    pub position: u16,
}

/// A line that stays a comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untranslated {
    /// The number of the line, from 1.
    pub line: usize,
    /// What stands in it.
    pub text: String,
    /// Why it stays one.
    pub why: &'static str,
}

/// What the manifest is to be made from, besides the Procfile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surroundings<'a> {
    /// The name of the Procfile.
    pub name: &'a str,
    /// The text of the `.env` file beside it, if there is one.
    pub env_file: Option<&'a str>,
}

/// Reads a Procfile, or says all that is wrong with it.
pub fn parse(source: &Arc<Source>) -> Result<Procfile, Vec<Problem>> {
    let mut read = Reading {
        source,
        problems: Vec::new(),
        procfile: Procfile {
            processes: Vec::new(),
            untranslated: Vec::new(),
        },
        seen: HashMap::new(),
    };
    let mut start = 0;
    for (number, line) in (1..).zip(source.text.split_inclusive('\n')) {
        read.line(number, start, line.trim_end_matches(['\r', '\n']));
        start += line.len();
    }
    if read.problems.is_empty() && read.procfile.processes.is_empty() {
        let end = source.text.len();
        read.wrong(
            end,
            end,
            "there is no process; expected a line such as `web: ./server`",
        );
    }
    if read.problems.is_empty() {
        Ok(read.procfile)
    } else {
        Err(read.problems)
    }
}

struct Reading<'a> {
    source: &'a Arc<Source>,
    problems: Vec<Problem>,
    procfile: Procfile,
    /// In which line each name stands, as we spell it.
    seen: HashMap<String, usize>,
}

impl Reading<'_> {
    fn wrong(&mut self, start: usize, end: usize, message: impl Into<String>) {
        let place = Place::File {
            source: Arc::clone(self.source),
            span: Span { start, end },
        };
        self.problems.push(Problem::new(place, message));
    }

    fn line(&mut self, number: usize, start: usize, line: &str) {
        let text = line.trim_start_matches('\u{feff}').trim();
        if text.is_empty() || text.starts_with('#') {
            return;
        }
        let begin = start + line.find(text).unwrap_or(0);
        let Some((original, command)) = text.split_once(':') else {
            let message = "expected `name: command`, found no colon; a comment begins with `#`";
            return self.wrong(begin, begin + text.len(), message);
        };
        let name_end = begin + original.len();
        let is_known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if original.is_empty() || !original.chars().all(is_known) {
            let message = format!(
                "`{original}` is no name of a process; expected letters, digits, `_` and `-`"
            );
            return self.wrong(begin, name_end.max(begin + 1), message);
        }
        let command = command.trim();
        if command.is_empty() {
            let message = format!("`{original}` has no command; expected `{original}: command`");
            return self.wrong(begin, name_end, message);
        }
        if command.contains('\0') {
            let message = format!("the command of `{original}` contains a NUL character");
            return self.wrong(begin, name_end, message);
        }
        let Some(name) = ours(original) else {
            self.procfile.untranslated.push(Untranslated {
                line: number,
                text: text.to_owned(),
                why: "its name has neither a letter nor a digit",
            });
            return;
        };
        if let Some(first) = self.seen.insert(name.to_string(), number) {
            let same = |process: &&Process| process.name == name;
            let name = match self.procfile.processes.iter().find(same) {
                Some(process) if process.original != original => {
                    format!(": both would be called `{name}`")
                }
                Some(_) | None => String::new(),
            };
            let message = format!("`{original}` stands in line {first} already{name}");
            return self.wrong(begin, name_end, message);
        }
        let position = u16::try_from(self.procfile.processes.len()).unwrap_or(u16::MAX);
        self.procfile.processes.push(Process {
            name,
            original: original.to_owned(),
            command: command.to_owned(),
            position,
        });
    }
}

/// A name of theirs by our grammar: it begins with a letter or digit, is not too long, and is not that of the root.
fn ours(original: &str) -> Option<ChildName> {
    let name = original.trim_start_matches(['_', '-']);
    let name = name.get(..LONGEST_NAME).unwrap_or(name);
    let name = if name == "root" { "root-1" } else { name };
    ChildName::new(name).ok()
}

impl Procfile {
    /// The manifest that does the same.
    pub fn manifest(&self, format: Format, around: Surroundings<'_>) -> String {
        let mut text = self.head(format, around);
        let release = self.processes.iter().any(Process::is_release);
        let first_port = around.env_file.and_then(port).unwrap_or(FIRST_PORT);
        match format {
            Format::Yaml => {
                text.push_str("version: 1\n\n");
                if around.env_file.is_some() {
                    text.push_str("defaults:\n  env_file: .env\n\n");
                }
                text.push_str("services:\n");
            }
            Format::Toml => {
                text.push_str("version = 1\n");
                if around.env_file.is_some() {
                    text.push_str("\n[defaults]\nenv_file = \".env\"\n");
                }
            }
        }
        for process in &self.processes {
            let waits = release && !process.is_release();
            let port = process.port(first_port);
            text.push('\n');
            match format {
                Format::Yaml => process.write_yaml(waits, port, &mut text),
                Format::Toml => process.write_toml(waits, port, &mut text),
            }
        }
        text
    }

    fn head(&self, format: Format, around: Surroundings<'_>) -> String {
        let schema = match format {
            Format::Yaml => "# yaml-language-server: $schema=./kimi-shell.schema.json\n",
            Format::Toml => "#:schema ./kimi-shell.schema.json\n",
        };
        let mut text = schema.to_owned();
        // Writing to a string cannot fail.
        let _infallible = write!(
            text,
            "\n# Made from {}. Each process finds its PORT where foreman would have put it. Other than there, a service that\n\
             # ends is started again and the others stay up; `kimi-shell start --abort-on-failure` stops all when one fails.\n",
            around.name
        );
        for line in &self.untranslated {
            let _infallible = write!(
                text,
                "\n# Line {} has no translation, since {}:\n#   {}\n",
                line.line,
                line.why,
                in_a_comment(&line.text)
            );
        }
        text.push('\n');
        text
    }
}

/// Neither format takes control characters in its comments.
fn in_a_comment(text: &str) -> String {
    text.replace(|c: char| c.is_control() && c != '\t', "\u{fffd}")
}

impl Process {
    /// Whether it is called otherwise there.
    pub fn is_renamed(&self) -> bool {
        self.name.as_str() != self.original
    }

    fn is_release(&self) -> bool {
        self.name.as_str() == RELEASE
    }

    /// None if there is none left: ports end at 65535.
    fn port(&self, first: u16) -> Option<u16> {
        first.checked_add(PORT_STEP.checked_mul(self.position)?)
    }

    fn write_yaml(&self, waits: bool, port: Option<u16>, text: &mut String) {
        let mut line = |line: String| {
            text.push_str(&line);
            text.push('\n');
        };
        if self.is_renamed() {
            line(format!("  # Called `{}` in the Procfile.", self.original));
        }
        line(format!("  {}:", yaml_text(self.name.as_str())));
        if self.is_release() {
            line("    type: task".to_owned());
        }
        line(format!("    shell: {}", yaml_text(&self.command)));
        if let Some(port) = port {
            line(format!("    port: {port}"));
        }
        if waits {
            line(format!(
                "    depends_on: {{ {RELEASE}: {{ condition: succeeded }} }}"
            ));
        }
    }

    fn write_toml(&self, waits: bool, port: Option<u16>, text: &mut String) {
        let mut line = |line: String| {
            text.push_str(&line);
            text.push('\n');
        };
        if self.is_renamed() {
            line(format!("# Called `{}` in the Procfile.", self.original));
        }
        line(format!("[services.{}]", self.name));
        if self.is_release() {
            line("type = \"task\"".to_owned());
        }
        line(format!("shell = {}", toml_text(&self.command)));
        if let Some(port) = port {
            line(format!("port = {port}"));
        }
        if waits {
            line(format!(
                "depends_on = {{ {RELEASE} = {{ condition = \"succeeded\" }} }}"
            ));
        }
    }
}

/// The port that a `.env` file sets; the last one counts.
fn port(env_file: &str) -> Option<u16> {
    let value = |line: &str| {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = line.split_once('=')?;
        let value = value.trim().trim_matches(['"', '\'']);
        (name.trim() == "PORT").then(|| value.parse().ok())?
    };
    env_file.lines().filter_map(value).next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Procfile, Vec<String>> {
        let source = Arc::new(Source {
            name: "Procfile".to_owned(),
            text: text.to_owned(),
        });
        parse(&source).map_err(|problems| {
            let told = problems
                .iter()
                .map(|problem| format!("{}: {}", problem.place, problem.message));
            told.collect()
        })
    }

    #[test]
    fn processes_keep_their_order_names_and_commands() {
        let procfile =
            read("\u{feff}# a comment\r\nweb: bundle exec rails s -p $PORT\r\n\n  _job:  x: y  \n")
                .unwrap();
        let found: Vec<_> = procfile
            .processes
            .iter()
            .map(|process| {
                (
                    process.name.as_str(),
                    process.original.as_str(),
                    process.command.as_str(),
                )
            })
            .collect();
        let expected = [
            ("web", "web", "bundle exec rails s -p $PORT"),
            ("job", "_job", "x: y"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn every_wrong_line_is_told_with_its_place() {
        let told =
            read("web ./server\nmy app: x\nweb: a\n  web: b\njob:\n-job: c\njob: d\n").unwrap_err();
        let places: Vec<&str> = told
            .iter()
            .map(|problem| problem.split(": ").next().unwrap())
            .collect();
        let expected = [
            "Procfile:1:1",
            "Procfile:2:1",
            "Procfile:4:3",
            "Procfile:5:1",
            "Procfile:7:1",
        ];
        assert_eq!(places, expected, "{told:#?}");
        assert_eq!(read("# nothing\n").unwrap_err().len(), 1);
    }

    #[test]
    fn a_name_that_cannot_be_ours_stays_a_comment() {
        let procfile = read("web: a\n--: b\n").unwrap();
        assert_eq!(procfile.processes.len(), 1);
        assert_eq!(procfile.untranslated[0].line, 2);
        assert_eq!(ours("root").unwrap().as_str(), "root-1");
        assert_eq!(ours(&"x".repeat(99)).unwrap().as_str().len(), 63);
    }

    #[test]
    fn the_first_port_may_be_set_in_the_environment_file() {
        for (text, expected) in [
            ("PORT=3000\n", Some(3000)),
            ("export PORT=\"3000\"\nPORT = 4000", Some(4000)),
            ("PORTS=1\n#PORT=2\n", None),
            ("PORT=x\n", None),
        ] {
            assert_eq!(port(text), expected, "{text}");
        }
    }
}
