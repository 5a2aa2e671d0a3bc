//! Standard output and standard error of our own words.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Whether to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// Colours.
    On,
    /// Plain text.
    Off,
}

/// What the environment says about colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColorEnvironment {
    /// `NO_COLOR` is set and not empty.
    pub no_color: bool,
    /// `CLICOLOR_FORCE` is set, not empty and not `0`.
    pub force: bool,
    /// `TERM` is `dumb`.
    pub dumb: bool,
}

impl ColorEnvironment {
    /// What the environment of this process says.
    pub fn of_process() -> Self {
        let value = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            no_color: value("NO_COLOR").is_some(),
            force: value("CLICOLOR_FORCE").is_some_and(|value| value != "0"),
            dumb: value("TERM").is_some_and(|value| value == "dumb"),
        }
    }
}

impl ColorChoice {
    /// The flag counts more than `NO_COLOR`, that more than `CLICOLOR_FORCE`, that more than what the stream is.
    pub fn decide(self, environment: ColorEnvironment, stream: &impl IsTerminal) -> Color {
        let on = match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto if environment.no_color => false,
            Self::Auto if environment.force => true,
            Self::Auto => !environment.dumb && stream.is_terminal(),
        };
        if on { Color::On } else { Color::Off }
    }
}

/// Writes data to standard output. A reader that has gone away, as `head` does, is no failure.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    unless_closed(written)
}

/// No failure if only nobody reads any more.
pub fn unless_closed(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Writes talk to standard error. If that fails, there is nobody to tell.
pub fn talk(text: &str) {
    let _failed = io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_terminal() -> std::fs::File {
        std::fs::File::open("/dev/null").unwrap()
    }

    #[test]
    fn flag_before_no_color_before_force_before_terminal() {
        let environment = |no_color, force| ColorEnvironment {
            no_color,
            force,
            dumb: false,
        };
        for (choice, no_color, force, expected) in [
            (ColorChoice::Always, true, false, Color::On),
            (ColorChoice::Never, false, true, Color::Off),
            (ColorChoice::Auto, true, true, Color::Off),
            (ColorChoice::Auto, false, true, Color::On),
            (ColorChoice::Auto, false, false, Color::Off),
        ] {
            assert_eq!(
                choice.decide(environment(no_color, force), &no_terminal()),
                expected
            );
        }
    }
}
