//! What may stand in a map: its keys, each with the kind of its value and a line about it.
//!
//! Such a table is written once. The decoder checks with it ([`record`](crate::document::record)), and the JSON Schema and
//! the reference are written from it, so that none of them can say something else.

use std::time::Duration;

/// A map whose keys are known; besides them, `x-…` keys are free.
#[derive(Debug)]
pub struct Shape {
    /// A name of its own, such as `service`.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub about: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
    /// Keys of which exactly one stands there; empty if there is no such choice.
    pub choice: &'static [&'static str],
    /// Keys that people bring from elsewhere.
    pub foreign: &'static [Foreign],
}

/// A key of other programs, and what is written here instead.
#[derive(Clone, Copy, Debug)]
pub struct Foreign {
    /// As they know it.
    pub key: &'static str,
    /// What to write instead, or why there is nothing.
    pub instead: Instead,
}

/// What stands for a key of other programs.
#[derive(Clone, Copy, Debug)]
pub enum Instead {
    /// This key, or these keys in each other.
    Write(&'static str),
    /// Nothing of the kind.
    Say(&'static str),
}

/// A key that may stand in a map.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// What stands there.
    pub kind: Kind,
    /// What it is for, in a sentence.
    pub about: &'static str,
    /// Whether the map may lack it.
    pub presence: Presence,
    /// What holds if it is absent.
    pub if_absent: IfAbsent,
    /// A value that may stand there, as JSON.
    pub example: &'static str,
    /// Said when something of another kind stands there.
    pub hint: &'static str,
}

/// Whether a map may lack a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It may.
    Optional,
    /// It may not.
    Required,
}

/// What holds if a key is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfAbsent {
    /// Nothing that could be written.
    Nothing,
    /// This, as JSON.
    Value(&'static str),
    /// What this setting says, such as `stop.timeout`.
    Setting(&'static str),
}

/// What kind of value stands somewhere.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A text that follows a grammar.
    Text(&'static Grammar),
    /// One of some words.
    Word(WordList),
    /// A duration with its unit.
    Duration {
        /// It is not shorter.
        least: Duration,
    },
    /// A size with its unit, or a number of bytes.
    Size,
    /// A whole number.
    Whole {
        /// It is not smaller.
        least: i64,
        /// It is not larger.
        most: i64,
    },
    /// A number.
    Number {
        /// It is not smaller.
        least: f64,
        /// It is not larger.
        most: f64,
    },
    /// `true` or `false`.
    Truth,
    /// Exactly this number or truth value.
    Only(&'static str),
    /// A list.
    List {
        /// What each item is.
        of: &'static Self,
        /// How many there are at least.
        least: usize,
    },
    /// A program and its arguments: a list of texts as they are written.
    Command,
    /// A map of names.
    Map {
        /// What the names look like.
        names: &'static Grammar,
        /// What stands below each.
        of: &'static Self,
        /// What a value is called together with its name; empty if it is called like a key.
        each: &'static str,
    },
    /// Variables of an environment. Their values are secrets for all we know: no mistake shows them.
    Variables,
    /// A map whose keys are known.
    Record(&'static Shape),
    /// The same, but read by whoever asked for it.
    Deferred(&'static Shape),
    /// One of these; no two of them are lists, and no two of them are maps.
    OneOf(&'static [Self]),
}

/// What a text looks like.
#[derive(Debug)]
pub struct Grammar {
    /// What is expected, with its article.
    pub expected: &'static str,
    /// A regular expression that every such text matches, if there is one worth telling.
    pub pattern: Option<&'static str>,
    /// What it is read from.
    pub takes: Takes,
    /// Whether a text is one; otherwise what is wrong with it.
    pub check: fn(&str) -> Result<(), String>,
}

/// What a text is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Text alone.
    Text,
    /// A number or truth value too, as it is written: `1.10` stays `1.10`.
    Written,
}

/// The words that may stand somewhere.
#[derive(Clone, Copy, Debug)]
pub struct WordList {
    /// All of them.
    pub words: fn() -> Vec<&'static str>,
    /// How many of them, from the first, are told to people; the rest are names that others use.
    pub told: usize,
    /// Whether a word is one of them; otherwise what is wrong with it.
    pub check: fn(&str) -> Result<(), String>,
}

impl Shape {
    /// The key of this name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

impl Foreign {
    /// A key that has another name here.
    pub const fn named(key: &'static str, here: &'static str) -> Self {
        Self {
            key,
            instead: Instead::Write(here),
        }
    }

    /// A key that has no counterpart here.
    pub const fn absent(key: &'static str, why: &'static str) -> Self {
        Self {
            key,
            instead: Instead::Say(why),
        }
    }
}

impl Key {
    /// A key that may be absent.
    pub const fn new(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self {
            name,
            kind,
            about,
            presence: Presence::Optional,
            if_absent: IfAbsent::Nothing,
            example: "",
            hint: "",
        }
    }

    /// The same, but it must be there.
    #[must_use]
    pub const fn required(mut self) -> Self {
        self.presence = Presence::Required;
        self
    }

    /// The same with what holds if it is absent, as JSON.
    #[must_use]
    pub const fn default(mut self, value: &'static str) -> Self {
        self.if_absent = IfAbsent::Value(value);
        self
    }

    /// The same; if it is absent, a setting holds.
    #[must_use]
    pub const fn setting(mut self, path: &'static str) -> Self {
        self.if_absent = IfAbsent::Setting(path);
        self
    }

    /// The same with an example, as JSON.
    #[must_use]
    pub const fn example(mut self, value: &'static str) -> Self {
        self.example = value;
        self
    }

    /// The same with what is said when something of another kind stands there.
    #[must_use]
    pub const fn hint(mut self, hint: &'static str) -> Self {
        self.hint = hint;
        self
    }
}

impl Kind {
    /// Any duration.
    pub const DURATION: Self = Self::Duration {
        least: Duration::ZERO,
    };
    /// A duration that takes time.
    pub const SOME_TIME: Self = Self::Duration {
        least: Duration::from_millis(1),
    };
    /// A whole number of things.
    pub const COUNT: Self = Self::Whole {
        least: 0,
        most: u32::MAX as i64,
    };
    /// A whole number of things of which there is one at least.
    pub const SOME: Self = Self::Whole {
        least: 1,
        most: u32::MAX as i64,
    };
    /// A port of TCP.
    pub const PORT: Self = Self::Whole {
        least: 1,
        most: 65_535,
    };

    /// What is expected, in words.
    pub fn expected(&self) -> String {
        match self {
            Self::Text(grammar) => grammar.expected.to_owned(),
            Self::Word(known) => {
                let words = (known.words)();
                let told = &words[..known.told];
                match told {
                    [only] => format!("`{only}`"),
                    [first @ .., last] => format!("`{}` or `{last}`", first.join("`, `")),
                    [] => String::new(),
                }
            }
            Self::Duration { least } if least.is_zero() => "a duration such as `10s`".to_owned(),
            Self::Duration { .. } => "a duration such as `10s`, longer than none".to_owned(),
            Self::Size => "a size such as `10MiB`, or a number of bytes".to_owned(),
            Self::Whole { least, most } if *most == i64::from(u32::MAX) => {
                format!("a whole number, {least} or more")
            }
            Self::Whole { least, most } => format!("a whole number from {least} to {most}"),
            Self::Number { least, most } if *most >= f64::MAX => {
                format!("a number, {least} or more")
            }
            Self::Number { least, most } => format!("a number from {least} to {most}"),
            Self::Truth => "`true` or `false`".to_owned(),
            Self::Only(value) => format!("`{value}`"),
            Self::List { of, .. } => format!("a list, each item {}", of.expected()),
            Self::Command => "a list of the program and its arguments".to_owned(),
            Self::Map { .. } | Self::Record(_) | Self::Deferred(_) => "a map".to_owned(),
            Self::Variables => "a map such as `NAME: value`".to_owned(),
            Self::OneOf(kinds) => {
                let each: Vec<String> = kinds.iter().map(Self::expected).collect();
                each.join(", or ")
            }
        }
    }
}
