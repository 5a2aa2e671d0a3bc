//! The sign that is a line of the output.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use regex_lite::{Regex, RegexBuilder};

use crate::os::real::contained;
use crate::os::sign::{Listener, Notice};
use crate::policy::time::Moment;

/// A line that is not complete is looked at when nothing has come for this long: a prompt never gets its newline.
pub(in crate::os) const PARTIAL_PAUSE: Duration = Duration::from_millis(150);
/// The bound of a compiled expression in bytes. The thread that matches reads the output of every run.
const EXPRESSION_BYTES: usize = 64 * 1024;

/// A regular expression that lines are matched against, in time linear in the line.
#[derive(Clone)]
pub struct Pattern(Arc<Regex>);

/// A text that is no regular expression, or one too large.
#[derive(Clone, Debug, thiserror::Error)]
#[error("`{text}` is not a regular expression that can be used here: {problem}")]
pub struct PatternError {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub problem: regex_lite::Error,
}

impl Pattern {
    /// Compiles the expression. Its grammar is that of the crate `regex-lite`: Perl's, without look-around, back-references
    /// and Unicode classes.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        RegexBuilder::new(text)
            .size_limit(EXPRESSION_BYTES)
            .build()
            .map(|regex| Self(Arc::new(regex)))
            .map_err(|problem| PatternError {
                text: text.to_owned(),
                problem,
            })
    }

    /// Whether it is somewhere in the line. Bytes that are no UTF-8 match as U+FFFD; a carriage return at the end counts as
    /// part of the newline.
    pub fn is_in(&self, line: &[u8]) -> bool {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.0.is_match(&String::from_utf8_lossy(line))
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.0.as_str()).finish()
    }
}

/// Waits for the line of one run.
pub(in crate::os) struct Ear {
    pattern: Pattern,
    listener: Arc<dyn Listener>,
    /// When the last bytes came, while a look at a line that is not complete is due.
    pub(in crate::os) last: Option<Moment>,
}

impl Ear {
    pub(in crate::os) fn new(pattern: Pattern, listener: Arc<dyn Listener>) -> Self {
        Self {
            pattern,
            listener,
            last: None,
        }
    }

    /// Tells if this is the line; then nothing more need be shown.
    pub(in crate::os) fn hear(&self, line: &[u8]) -> bool {
        let mut is_heard = false;
        contained(|| {
            is_heard = self.pattern.is_in(line);
            if is_heard {
                self.listener.hear(Notice::Ready);
            }
        });
        is_heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_matches_whatever_bytes_it_is_of() {
        let pattern = Pattern::new(r"^listening on (\S+):\d+$").unwrap();
        assert!(pattern.is_in(b"listening on \xff\xfe:80"));
        assert!(pattern.is_in(b"listening on [::]:80\r"));
        assert!(!pattern.is_in(b"not listening on a:80"));
        assert!(!pattern.is_in(b""));
        let failure = Pattern::new("a(").unwrap_err().to_string();
        assert!(
            failure.starts_with("`a(` is not a regular expression"),
            "{failure}"
        );
    }
}
