//! What texts look like that are neither words nor quantities: names, paths, signals.

use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::ChildName;

use crate::document::shape::{Grammar, Takes};

/// The name that the policy gives the supervisor above all others.
const ROOT: &str = "root";

/// Any text.
pub static PROSE: Grammar = Grammar {
    expected: "text",
    pattern: None,
    takes: Takes::Text,
    check: |_| Ok(()),
};

/// A text, number or truth value as it is written, such as an argument.
pub static WRITTEN: Grammar = Grammar {
    expected: "text",
    pattern: None,
    takes: Takes::Written,
    check: no_nul,
};

/// A path.
pub static PATH: Grammar = Grammar {
    expected: "a path",
    pattern: Some("."),
    takes: Takes::Text,
    check: |text| {
        if text.is_empty() {
            return Err("an empty text is no path".to_owned());
        }
        no_nul(text)
    },
};

/// A line for a shell.
pub static LINE: Grammar = Grammar {
    expected: "a line of shell",
    pattern: Some("[^\\s]"),
    takes: Takes::Text,
    check: |text| {
        if text.trim().is_empty() {
            return Err("expected a line of shell, found an empty text".to_owned());
        }
        no_nul(text)
    },
};

/// The name of a service, task or supervisor, where it is given.
pub static NAME: Grammar = Grammar {
    expected: "a name",
    // Keys that begin with `x-` are free, so that no name does.
    pattern: Some("^([A-Za-wyz0-9][A-Za-z0-9_-]{0,62}|x([A-Za-z0-9_][A-Za-z0-9_-]{0,61})?)$"),
    takes: Takes::Written,
    check: |name| {
        if let Err(error) = ChildName::new(name) {
            Err(error.to_string())
        } else if name.contains('.') {
            Err(format!(
                "`{name}` is not a name here; `.N` is kept for replicas"
            ))
        } else if name == ROOT {
            Err(format!(
                "`{ROOT}` is the name of the supervisor above all others"
            ))
        } else {
            Ok(())
        }
    },
};

/// The name of a service, task or supervisor, where it is used: whether it exists is seen when all are known.
pub static REFERENCE: Grammar = Grammar {
    expected: "the name of a service, task or supervisor",
    pattern: Some("^([^x]|x[^-]|x$)"),
    takes: Takes::Written,
    check: |text| {
        if text.is_empty() {
            return Err("an empty text is no name".to_owned());
        }
        Ok(())
    },
};

/// A signal, by its name or number.
pub static SIGNAL: Grammar = Grammar {
    expected: "a signal such as SIGTERM",
    pattern: Some("^[A-Za-z0-9+]+$"),
    takes: Takes::Written,
    check: |text| match text.parse::<Signal>() {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    },
};

/// The same, where a number as such means something else.
pub static SIGNAL_TEXT: Grammar = Grammar {
    expected: SIGNAL.expected,
    pattern: SIGNAL.pattern,
    takes: Takes::Text,
    check: SIGNAL.check,
};

/// The kernel's texts end at their first NUL.
pub fn no_nul(text: &str) -> Result<(), String> {
    if text.contains('\0') {
        return Err("it contains a NUL character".to_owned());
    }
    Ok(())
}
