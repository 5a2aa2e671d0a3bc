//! The words of manifests and settings for the types of the policy, the only place where they are spelled.

use kimi_actors::policy::restart::{Restart, Strategy};
use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::{Condition, Kind, OnLimit, OnLost, OnRestart};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::document::nearest::did_you_mean;
use crate::document::shape::WordList;

/// A type whose values are spelled as words.
pub trait Words: Copy + PartialEq + 'static {
    /// Each word with its value; the first word of a value is the one that is printed.
    const WORDS: &'static [(&'static str, Self)];
    /// How many of them are told to people; those after are old names.
    const TOLD: usize;
    /// Words of other programs that are not taken, each with the one that is meant.
    const MEANT: &'static [(&'static str, &'static str)] = &[];

    /// The value of a word.
    fn parse(word: &str) -> Result<Self, UnknownWord> {
        Self::WORDS
            .iter()
            .find(|(known, _)| *known == word)
            .map(|(_, value)| *value)
            .ok_or_else(|| {
                let told: Vec<&str> = Self::WORDS[..Self::TOLD]
                    .iter()
                    .map(|(word, _)| *word)
                    .collect();
                let meant = Self::MEANT.iter().find(|(known, _)| *known == word);
                let hint = match meant {
                    Some((_, meant)) => format!("; did you mean `{meant}`?"),
                    None => did_you_mean(word, Self::WORDS.iter().map(|(word, _)| *word)),
                };
                UnknownWord {
                    word: word.to_owned(),
                    hint,
                    expected: told.join("`, `"),
                }
            })
    }

    /// The word of a value.
    fn word(self) -> &'static str {
        Self::WORDS
            .iter()
            .find(|(_, value)| *value == self)
            .map_or("", |(word, _)| word)
    }
}

/// The words of a type, for the tables of keys.
pub const fn list<T: Words>() -> WordList {
    WordList {
        words: || T::WORDS.iter().map(|(word, _)| *word).collect(),
        told: T::TOLD,
        check: |word| match T::parse(word) {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        },
    }
}

/// A word that stands for nothing here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is not known here; expected `{expected}`{hint}")]
pub struct UnknownWord {
    word: String,
    expected: String,
    hint: String,
}

impl Words for Restart {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("always", Self::Always),
        ("on_failure", Self::OnFailure),
        ("never", Self::Never),
        ("permanent", Self::Always),
        ("transient", Self::OnFailure),
        ("temporary", Self::Never),
    ];
    const TOLD: usize = 3;
    const MEANT: &'static [(&'static str, &'static str)] = &[
        ("no", "never"),
        ("yes", "always"),
        ("unless-stopped", "always"),
        ("unless_stopped", "always"),
        ("unexpected", "on_failure"),
    ];
}

impl Words for OnLimit {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("give_up", Self::GiveUp),
        ("slow_retry", Self::SlowRetry),
        ("escalate", Self::Escalate),
        ("shutdown", Self::Shutdown),
    ];
    const TOLD: usize = 4;
}

impl Words for Strategy {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("one_for_one", Self::OneForOne),
        ("one_for_all", Self::OneForAll),
        ("rest_for_one", Self::RestForOne),
    ];
    const TOLD: usize = 3;
}

impl Words for Condition {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("started", Self::Started),
        ("ready", Self::Ready),
        ("completed", Self::Completed),
        ("succeeded", Self::Succeeded),
        ("healthy", Self::Ready),
        ("log_ready", Self::Ready),
        ("completed_successfully", Self::Succeeded),
        ("service_started", Self::Started),
        ("service_healthy", Self::Ready),
        ("service_completed_successfully", Self::Succeeded),
        ("process_started", Self::Started),
        ("process_healthy", Self::Ready),
        ("process_log_ready", Self::Ready),
        ("process_completed", Self::Completed),
        ("process_completed_successfully", Self::Succeeded),
    ];
    const TOLD: usize = 4;
}

impl Words for OnRestart {
    const WORDS: &'static [(&'static str, Self)] =
        &[("ignore", Self::Ignore), ("restart", Self::Restart)];
    const TOLD: usize = 2;
}

impl Words for OnLost {
    const WORDS: &'static [(&'static str, Self)] =
        &[("ignore", Self::Ignore), ("stop", Self::Stop)];
    const TOLD: usize = 2;
}

impl Words for Kind {
    const WORDS: &'static [(&'static str, Self)] =
        &[("service", Self::Service), ("task", Self::Task)];
    const TOLD: usize = 2;
}

/// For `#[serde(with = …)]` on a value that is spelled as a word.
pub(crate) mod word {
    use super::{Deserialize, Deserializer, Serializer, Words, de};

    pub(crate) fn serialize<T: Words, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(value.word())
    }

    pub(crate) fn deserialize<'de, T: Words, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        T::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// A signal, spelled by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SignalName(pub Signal);

impl Serialize for SignalName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SignalName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map(Self)
            .map_err(de::Error::custom)
    }
}
