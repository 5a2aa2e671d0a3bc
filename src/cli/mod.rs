//! The command line: what can be typed, one file a verb.

pub mod config;
pub mod help;
pub mod out;
pub mod progress;
pub mod screen;
pub mod start;
pub mod version;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::cli::out::{Color, ColorChoice, ColorEnvironment};
use crate::exit_code;
use crate::manifest::discover::discover;
use crate::manifest::{DiscoverError, Discovered, Location, Locations, Manifest, ManifestError};
use crate::settings::{Inputs, SettingsError};

/// Starts, watches and stops processes as a supervision tree.
#[derive(Debug, Parser)]
#[command(
    name = "kimi-shell",
    version,
    disable_help_subcommand = true,
    after_help = "Exit codes: `kimi-shell help exit-codes`."
)]
pub struct Cli {
    #[command(flatten)]
    file: FileArgs,

    /// Change a setting, such as `stop.timeout=10s`; may be given more than once
    #[arg(long, value_name = "KEY=VALUE", global = true)]
    set: Vec<String>,

    /// When to use colours
    #[arg(long, value_name = "WHEN", value_enum, default_value_t, global = true)]
    color: ColorChoice,

    #[command(subcommand)]
    verb: Verb,
}

/// Which manifest is meant. `-f` is known before the verb and after those that read one.
#[derive(Clone, Debug, clap::Args)]
pub struct FileArgs {
    /// The manifest, `-` for standard input; each further one is laid over those before [env: `KIMI_SHELL_FILE`, paths
    /// separated by `:`] [default: the nearest kimi-shell.yaml, .yml or .toml, and the kimi-shell.override.* beside it]
    #[arg(short, long, value_name = "FILE")]
    pub file: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start services, show what they do, and stop them in order on Ctrl-C
    #[command(visible_alias = "up")]
    Start(start::StartArgs),
    /// Print the effective settings
    Config(config::ConfigArgs),
    /// Print this help, that of a verb, or the exit codes
    Help(help::HelpArgs),
    /// Print the version
    Version(version::VersionArgs),
}

/// What all verbs are given.
#[derive(Clone, Debug)]
pub struct Context {
    /// The manifest that was named, and what is laid over it.
    pub files: Vec<PathBuf>,
    /// The layers of settings besides the manifest.
    pub inputs: Inputs,
    /// When to use colours.
    pub color: ColorChoice,
    /// What the environment says about them.
    pub color_environment: ColorEnvironment,
}

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The manifest is invalid, or there is none.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The settings are invalid.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The working directory has gone.
    #[error("cannot find the working directory")]
    NoDirectory(#[source] io::Error),
    /// Standard output cannot be written.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    /// The settings cannot be written down.
    #[error("cannot write the settings as TOML")]
    Toml(#[from] toml::ser::Error),
    /// The settings cannot be written down.
    #[error("cannot write the settings as JSON")]
    Json(#[from] serde_json::Error),
    /// There is no such subject.
    #[error("there is no help about `{subject}`; try `kimi-shell help`")]
    NoSuchHelp {
        /// What was asked for.
        subject: String,
    },
    /// The foreground supervisor did not start.
    #[error(transparent)]
    Foreground(#[from] start::ForegroundError),
}

impl Error {
    /// The code that the program ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Manifest(_) | Self::Settings(_) => exit_code::INVALID_CONFIGURATION,
            Self::NoSuchHelp { .. } => exit_code::USAGE,
            Self::NoDirectory(_) | Self::Output(_) | Self::Toml(_) | Self::Json(_) => {
                exit_code::FAILED
            }
            Self::Foreground(error) => error.exit_code(),
        }
    }
}

impl From<DiscoverError> for Error {
    fn from(error: DiscoverError) -> Self {
        Self::Manifest(error.into())
    }
}

impl Context {
    /// Where the manifest is: what was named, the nearest one, or none.
    pub fn manifest_locations(&self) -> Result<Option<Locations>, Error> {
        if let Some(named) = Locations::named(&self.files) {
            return Ok(Some(named));
        }
        let directory = std::env::current_dir().map_err(Error::NoDirectory)?;
        let found = discover(&directory)?.map(|found| Discovered {
            manifest: shortened(found.manifest, &directory),
            over: found.over.map(|over| shortened(over, &directory)),
        });
        Ok(found.map(Locations::from))
    }

    /// The manifest: the one that was named, the nearest one, or the embedded one.
    pub fn manifest(&self) -> Result<Manifest, Error> {
        let locations = self.manifest_locations()?;
        let locations = locations.unwrap_or_else(|| Location::Embedded.into());
        Ok(Manifest::load(locations, &self.inputs)?)
    }

    /// Whether to use colours on a stream.
    pub fn color_of(&self, stream: &impl io::IsTerminal) -> Color {
        self.color.decide(self.color_environment, stream)
    }
}

/// As people would name it from where they are.
fn shortened(path: PathBuf, directory: &Path) -> PathBuf {
    path.strip_prefix(directory)
        .map(Path::to_owned)
        .unwrap_or(path)
}

/// Runs the program: what was typed, done, and its exit code. Mistakes are printed once, here.
pub fn main() -> ExitCode {
    let color_environment = ColorEnvironment::of_process();
    let parsed = Cli::command()
        .try_get_matches()
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return print_usage(&error),
    };
    let color = cli.color.decide(color_environment, &io::stderr());
    match run(cli, color_environment) {
        Ok(code) => code,
        Err(error) => {
            out::talk(&chain(&error, color));
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(cli: Cli, color_environment: ColorEnvironment) -> Result<ExitCode, Error> {
    let after_verb = match &cli.verb {
        Verb::Start(args) => args.file.file.as_slice(),
        Verb::Config(args) => args.file.file.as_slice(),
        Verb::Help(_) | Verb::Version(_) => &[],
    };
    let inputs = Inputs::of_process(cli.set);
    let mut files = cli.file.file;
    files.extend_from_slice(after_verb);
    if files.is_empty() {
        files = files_of(&inputs.environment);
    }
    let context = Context {
        files,
        inputs,
        color: cli.color,
        color_environment,
    };
    match cli.verb {
        Verb::Start(args) => start::run(&args, &context),
        Verb::Config(args) => config::run(&args, &context),
        Verb::Help(args) => help::run(&args),
        Verb::Version(args) => version::run(&args),
    }
}

/// What the environment names instead of `-f`.
fn files_of(environment: &[(OsString, OsString)]) -> Vec<PathBuf> {
    let paths = environment
        .iter()
        .find(|(name, _)| name == "KIMI_SHELL_FILE");
    paths.map_or_else(Vec::new, |(_, paths)| {
        std::env::split_paths(paths)
            .filter(|path| !path.as_os_str().is_empty())
            .collect()
    })
}

/// Help and version are answers (0, standard output); the rest is a mistake (2, standard error).
fn print_usage(error: &clap::Error) -> ExitCode {
    let code = if error.use_stderr() {
        exit_code::USAGE
    } else {
        exit_code::DONE
    };
    match out::unless_closed(error.print()) {
        Ok(()) => ExitCode::from(code),
        Err(_) => ExitCode::from(exit_code::FAILED),
    }
}

/// An error and what it was caused by, a line each.
fn chain(error: &Error, color: Color) -> String {
    let label = match color {
        Color::On => "\x1b[1;31merror\x1b[0m",
        Color::Off => "error",
    };
    let mut text = format!("kimi-shell: {label}: {error}\n");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "  caused by: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
