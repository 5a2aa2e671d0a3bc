//! Reading by a table: every value as its key wants it, and every mistake with its place.

use std::collections::HashSet;
use std::fmt;

use crate::document::decode::Report;
use crate::document::record::{At, Field, Record, Value};
use crate::document::shape::{Grammar, Instead, Key, Kind, Presence, Shape, Takes, WordList};
use crate::document::{Content, Entry, Node, ScalarKind, Span};
use crate::grammar::WRITTEN;

/// What something is called in a mistake.
#[derive(Clone, Copy)]
pub(super) enum Called<'p> {
    Whole(&'p str),
    /// `key` of or in something.
    Key(&'p Self, &'p str),
    /// The service `name`.
    Each(&'p str, &'p str),
    /// An item of something.
    Item(&'p Self),
}

impl fmt::Display for Called<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(what) => f.write_str(what),
            Self::Key(Self::Whole(_), key) => write!(f, "`{key}`"),
            Self::Key(of @ Self::Each(..), key) => write!(f, "`{key}` of {of}"),
            Self::Key(within, key) => write!(f, "`{key}` in {within}"),
            Self::Each(each, name) => write!(f, "the {each} `{name}`"),
            Self::Item(list) => write!(f, "an item of {list}"),
        }
    }
}

/// Whether a scalar of this kind is what such a value is usually written as.
fn is_usual(kind: &Kind, scalar: ScalarKind) -> bool {
    match kind {
        Kind::Text(grammar) => {
            scalar == ScalarKind::Text
                || grammar.takes == Takes::Written && scalar != ScalarKind::Null
        }
        Kind::Word(_) | Kind::Duration { .. } => scalar == ScalarKind::Text,
        Kind::Size => matches!(scalar, ScalarKind::Text | ScalarKind::Integer),
        Kind::Whole { .. } => scalar == ScalarKind::Integer,
        Kind::Number { .. } => matches!(scalar, ScalarKind::Integer | ScalarKind::Float),
        Kind::Truth => scalar == ScalarKind::Bool,
        Kind::Only(_) => matches!(scalar, ScalarKind::Integer | ScalarKind::Bool),
        Kind::List { .. }
        | Kind::Command
        | Kind::Map { .. }
        | Kind::Variables
        | Kind::Record(_)
        | Kind::Deferred(_)
        | Kind::OneOf(_) => false,
    }
}

/// Whether such values can be written in this form at all.
fn has_form(kind: &Kind, content: &Content) -> bool {
    match kind {
        Kind::List { .. } | Kind::Command => matches!(content, Content::List(_)),
        Kind::Map { .. } | Kind::Variables | Kind::Record(_) | Kind::Deferred(_) => {
            matches!(content, Content::Map(_))
        }
        Kind::OneOf(kinds) => kinds.iter().any(|kind| has_form(kind, content)),
        Kind::Text(_)
        | Kind::Word(_)
        | Kind::Duration { .. }
        | Kind::Size
        | Kind::Whole { .. }
        | Kind::Number { .. }
        | Kind::Truth
        | Kind::Only(_) => matches!(content, Content::Scalar(_)),
    }
}

/// Reads values and notes what is wrong.
#[derive(Clone, Copy)]
pub(super) struct Reader<'r> {
    pub(super) report: &'r Report,
}

impl Reader<'_> {
    /// A value of this kind; `title` is where something is named that it lacks.
    pub(super) fn value<'a>(
        self,
        node: &'a Node,
        kind: &'static Kind,
        title: Span,
        called: &Called<'_>,
    ) -> Option<Value<'a>> {
        let report = self.report;
        match kind {
            Kind::Text(grammar) => self.text(node, grammar, called).map(Value::Text),
            Kind::Word(list) => self.word(node, list, called).map(Value::Text),
            Kind::Duration { least } => {
                let duration = report.duration(node, &called.to_string())?;
                self.bounded(node, kind, called, duration >= *least)?;
                Some(Value::Duration(duration))
            }
            Kind::Size => report.size(node, &called.to_string()).map(Value::Size),
            Kind::Whole { least, most } => {
                let number = report
                    .trial()
                    .whole(node, "")
                    .filter(|number| (*least..=*most).contains(number));
                self.bounded(node, kind, called, number.is_some())?;
                number.map(Value::Whole)
            }
            Kind::Number { least, most } => {
                let number = report
                    .trial()
                    .number(node, "")
                    .filter(|number| (*least..=*most).contains(number));
                self.bounded(node, kind, called, number.is_some())?;
                number.map(Value::Number)
            }
            Kind::Truth => report.truth(node, &called.to_string()).map(Value::Truth),
            Kind::Only(value) => {
                let scalar = node.scalar().filter(|scalar| {
                    scalar.kind != ScalarKind::Text && scalar.text.eq_ignore_ascii_case(value)
                });
                self.bounded(node, kind, called, scalar.is_some())?;
                scalar.map(|scalar| Value::Text(&scalar.text))
            }
            Kind::List { of, least } => self.list(node, of, *least, called),
            Kind::Command => self.command(node, called),
            Kind::Map { names, of, each } => self.map(node, names, of, each, called),
            Kind::Variables => Some(self.variables(node, called)),
            Kind::Record(shape) => Some(Value::Record(self.record(node, shape, title, called))),
            Kind::Deferred(_) => Some(Value::Node(node)),
            Kind::OneOf(kinds) => self.one_of(node, kinds, title, called),
        }
    }

    fn expected(self, node: &Node, kind: &Kind, called: &Called<'_>) {
        let expected = kind.expected();
        self.report
            .expected(node, &format!("{called} to be {expected}"));
    }

    fn bounded(self, node: &Node, kind: &Kind, called: &Called<'_>, is_within: bool) -> Option<()> {
        if !is_within {
            self.expected(node, kind, called);
        }
        is_within.then_some(())
    }

    fn text<'a>(self, node: &'a Node, grammar: &Grammar, called: &Called<'_>) -> Option<&'a str> {
        let wanted = |kind| match grammar.takes {
            Takes::Text => kind == ScalarKind::Text || self.report.is_filled(node),
            Takes::Written => kind != ScalarKind::Null,
        };
        let Some(scalar) = node.scalar().filter(|scalar| wanted(scalar.kind)) else {
            let expected = grammar.expected;
            self.report
                .expected(node, &format!("{called} to be {expected}"));
            return None;
        };
        (grammar.check)(&scalar.text)
            .map_err(|why| self.report.wrong(node.span, format!("{called}: {why}")))
            .ok()?;
        Some(&scalar.text)
    }

    fn word<'a>(self, node: &'a Node, list: &WordList, called: &Called<'_>) -> Option<&'a str> {
        let text = self.report.text(node, &called.to_string())?;
        (list.check)(text)
            .map_err(|why| self.report.wrong(node.span, format!("{called}: {why}")))
            .ok()?;
        Some(text)
    }

    fn list<'a>(
        self,
        node: &'a Node,
        of: &'static Kind,
        least: usize,
        called: &Called<'_>,
    ) -> Option<Value<'a>> {
        let items = self.report.list(node, &called.to_string())?;
        if items.len() < least {
            self.report.wrong(node.span, format!("{called} is empty"));
            return None;
        }
        let read = |item: &'a Node| {
            let value = self.value(item, of, item.span, &Called::Item(called))?;
            Some(At {
                value,
                span: item.span,
            })
        };
        Some(Value::List(items.iter().filter_map(read).collect()))
    }

    fn command<'a>(self, node: &'a Node, called: &Called<'_>) -> Option<Value<'a>> {
        static ARGUMENT: Kind = Kind::Text(&WRITTEN);
        let words = self.list(node, &ARGUMENT, 0, called)?;
        let program = words.list().first().map(|program| &program.value);
        let is_named = program
            .and_then(Value::text)
            .is_some_and(|text| !text.is_empty());
        if !is_named {
            let message = format!("{called} names no program");
            self.report.wrong(node.span, message);
        }
        is_named.then_some(words)
    }

    fn map<'a>(
        self,
        node: &'a Node,
        names: &Grammar,
        of: &'static Kind,
        each: &str,
        called: &Called<'_>,
    ) -> Option<Value<'a>> {
        let entries = self.report.map(node, &called.to_string())?;
        let mut seen = HashSet::new();
        let mut read = Vec::new();
        for entry in entries.iter().filter(|entry| !is_free(entry)) {
            let name = entry.key.as_str();
            if !seen.insert(name) {
                let message = format!("`{name}` stands twice in {called}");
                self.report.wrong(entry.key_span, message);
                continue;
            }
            if let Err(why) = (names.check)(name) {
                self.report.wrong(entry.key_span, why);
            }
            let called = if each.is_empty() {
                Called::Key(called, name)
            } else {
                Called::Each(each, name)
            };
            if let Some(value) = self.value(&entry.value, of, entry.key_span, &called) {
                let name = At {
                    value: name,
                    span: entry.key_span,
                };
                let span = entry.value.span;
                read.push((name, At { value, span }));
            }
        }
        Some(Value::Map(read))
    }

    fn variables<'a>(self, node: &'a Node, called: &Called<'_>) -> Value<'a> {
        self.report.keep_secret(node);
        let Content::Map(entries) = &node.content else {
            let found = match &node.content {
                Content::List(_) => "a list",
                Content::Scalar(_) | Content::Map(_) => "something else",
            };
            let expected = Kind::Variables.expected();
            self.report.wrong(
                node.span,
                format!("expected {called} to be {expected}, found {found}"),
            );
            return Value::Map(Vec::new());
        };
        let mut seen = HashSet::new();
        let mut variables = Vec::new();
        for entry in entries {
            match variable(entry, &mut seen, called) {
                Ok(text) => {
                    let name = At {
                        value: entry.key.as_str(),
                        span: entry.key_span,
                    };
                    let value = At {
                        value: Value::Text(text),
                        span: entry.value.span,
                    };
                    variables.push((name, value));
                }
                Err(wrong) => self.report.wrong(entry.key_span, wrong),
            }
        }
        Value::Map(variables)
    }

    /// Every key is known and stands there once, none is missing, and of a choice exactly one is made. What is no map at all
    /// is one without keys, so that what else speaks of it is not called unknown.
    pub(super) fn record<'a>(
        self,
        node: &'a Node,
        shape: &'static Shape,
        title: Span,
        called: &Called<'_>,
    ) -> Record<'a> {
        let mut record = Record::default();
        let Some(entries) = self.report.map(node, &called.to_string()) else {
            return record;
        };
        let mut seen = HashSet::new();
        for entry in entries.iter().filter(|entry| !is_free(entry)) {
            let name = entry.key.as_str();
            let Some(key) = shape.key(name) else {
                self.unknown(entry, shape, called);
                continue;
            };
            if !seen.insert(key.name) {
                let message = format!("the key `{name}` stands twice in {called}");
                self.report.wrong(entry.key_span, message);
                continue;
            }
            if let Some(value) = self.keyed(entry, key, called) {
                record.fields.push(Field {
                    name: key.name,
                    key_span: entry.key_span,
                    value: At {
                        value,
                        span: entry.value.span,
                    },
                });
            }
        }
        self.check_presence(shape, &seen, entries, title, called);
        record
    }

    fn keyed<'a>(
        self,
        entry: &'a Entry,
        key: &'static Key,
        called: &Called<'_>,
    ) -> Option<Value<'a>> {
        let called = Called::Key(called, key.name);
        if !key.hint.is_empty() && !has_form(&key.kind, &entry.value.content) {
            let expected = format!("{called} to be {}", key.kind.expected());
            let found = entry.value.describe();
            self.report.wrong(
                entry.value.span,
                format!("expected {expected}, found {found}; {}", key.hint),
            );
            return None;
        }
        self.value(&entry.value, &key.kind, entry.key_span, &called)
    }

    fn unknown(self, entry: &Entry, shape: &Shape, called: &Called<'_>) {
        let name = entry.key.as_str();
        // Others write the same words with other strokes.
        let plain = name.replace('-', "_");
        let foreign = shape
            .foreign
            .iter()
            .find(|foreign| foreign.key == name || foreign.key == plain);
        let hint = match foreign.map(|foreign| foreign.instead) {
            Some(Instead::Write(here)) => format!("; did you mean `{here}`?"),
            Some(Instead::Say(why)) => format!("; {why}"),
            None => {
                let names = || shape.keys.iter().map(|key| key.name);
                let near = self.report.did_you_mean(name, names());
                if near.is_empty() {
                    let names: Vec<&str> = names().collect();
                    format!("; expected one of {}", names.join(", "))
                } else {
                    near
                }
            }
        };
        let message = format!("unknown key `{name}` in {called}{hint}");
        self.report.wrong(entry.key_span, message);
    }

    fn check_presence(
        self,
        shape: &Shape,
        seen: &HashSet<&str>,
        entries: &[Entry],
        title: Span,
        called: &Called<'_>,
    ) {
        for key in shape.keys {
            if key.presence == Presence::Required && !seen.contains(key.name) {
                let (name, example) = (key.name, key.example);
                self.report.wrong(
                    title,
                    format!(
                        "`{name}` is missing in {called}; expected it, such as `{name}: {example}`"
                    ),
                );
            }
        }
        let all_known = entries
            .iter()
            .all(|entry| is_free(entry) || shape.key(&entry.key).is_some());
        let mut chosen = entries
            .iter()
            .filter(|entry| shape.choice.contains(&entry.key.as_str()))
            .filter(|entry| shape.key(&entry.key).is_some());
        let choices = || {
            let names: Vec<String> = shape.choice.iter().map(|key| format!("`{key}`")).collect();
            names.join(", ")
        };
        match (chosen.next(), chosen.find(|_| true)) {
            // One that is not known may be meant for it, and is told already.
            (None, _) if !shape.choice.is_empty() && all_known => {
                let none = match shape.choice {
                    [first, second] => format!("neither `{first}` nor `{second}`"),
                    _ => format!("none of {}", choices()),
                };
                self.report
                    .wrong(title, format!("{called} has {none}; expected one of them"));
            }
            (Some(first), Some(second)) if first.key != second.key => self.report.wrong(
                second.key_span,
                format!(
                    "{called} has both `{}` and `{}`; expected one of {}",
                    first.key,
                    second.key,
                    choices()
                ),
            ),
            (None | Some(_), _) => {}
        }
    }

    /// The first that fits; if none does, what is wrong with the one that was meant.
    fn one_of<'a>(
        self,
        node: &'a Node,
        kinds: &'static [Kind],
        title: Span,
        called: &Called<'_>,
    ) -> Option<Value<'a>> {
        let formed: Vec<&'static Kind> = kinds
            .iter()
            .filter(|kind| has_form(kind, &node.content))
            .collect();
        if let [only] = formed.as_slice() {
            return self.value(node, only, title, called);
        }
        for kind in &formed {
            let trial = self.report.trial();
            let reader = Reader { report: &trial };
            let value = reader.value(node, kind, title, called);
            if trial.is_clean() {
                return value;
            }
        }
        let scalar = node.scalar().map(|scalar| scalar.kind);
        let mut meant = formed
            .iter()
            .filter(|kind| scalar.is_some_and(|scalar| is_usual(kind, scalar)));
        if let (Some(kind), None) = (meant.next(), meant.next()) {
            return self.value(node, kind, title, called);
        }
        let expected: Vec<String> = kinds.iter().map(Kind::expected).collect();
        let expected = expected.join(", or ");
        self.report
            .expected(node, &format!("{called} to be {expected}"));
        None
    }
}

/// Keys that mean nothing here, for whoever wants to keep something in the file.
fn is_free(entry: &Entry) -> bool {
    entry.key.starts_with("x-")
}

/// The value of a variable, or what is wrong with it, without showing it.
fn variable<'a>(
    entry: &'a Entry,
    seen: &mut HashSet<&'a str>,
    called: &Called<'_>,
) -> Result<&'a str, String> {
    let key = entry.key.as_str();
    if key.is_empty() || key.contains(['=', '\0']) {
        return Err(format!("`{key}` in {called} is no name of a variable"));
    }
    if !seen.insert(key) {
        return Err(format!("the key `{key}` stands twice in {called}"));
    }
    let scalar = entry
        .value
        .scalar()
        .filter(|scalar| scalar.kind != ScalarKind::Null);
    match scalar {
        None => Err(format!(
            "expected `{key}` in {called} to be text; for an empty value write `\"\"`"
        )),
        Some(scalar) if scalar.text.contains('\0') => {
            Err(format!("`{key}` in {called} contains a NUL character"))
        }
        Some(scalar) => Ok(&scalar.text),
    }
}
