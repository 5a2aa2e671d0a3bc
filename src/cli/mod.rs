//! The command line: what can be typed, one file a verb.

pub mod bench;
pub mod completion;
pub mod config;
pub mod contain;
pub mod exec;
pub mod graph;
pub mod guarded;
pub mod help;
pub mod init;
pub mod out;
pub mod progress;
pub mod schema;
pub mod screen;
pub mod session;
pub mod start;
pub mod validate;
pub mod version;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{FromArgMatches, Parser, Subcommand};
use kimi_actors::policy::order::RuleError;
use kimi_actors::policy::spec::{ChildName, InvalidName};

use crate::cli::out::{Color, ColorChoice, ColorEnvironment};
use crate::document::nearest::did_you_mean;
use crate::exit_code;
use crate::manifest::discover::discover;
use crate::manifest::reach::Reach;
use crate::manifest::{DiscoverError, Discovered, Location, Locations, Manifest, ManifestError};
use crate::performance::MeasureError;
use crate::settings::{Effective, Inputs, Settings, SettingsError};

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

    /// Let the services of a profile count, `*` for all; may be given more than once [env: `KIMI_SHELL_PROFILES`]
    #[arg(long, value_name = "NAME", global = true)]
    profile: Vec<String>,

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
    /// Write a first manifest, or one from a Procfile
    Init(init::InitArgs),
    /// Say all that is wrong with manifests
    Validate(validate::ValidateArgs),
    /// Show who waits for whom, and what starts and stops when
    Graph(graph::GraphArgs),
    /// Print the manifest with all defaults, and the settings
    Config(config::ConfigArgs),
    /// Start services and stop them in order on Ctrl-C
    #[command(visible_alias = "up")]
    Start(start::StartArgs),
    /// Run one command with bounds and leave nothing of it behind
    Exec(exec::ExecArgs),
    /// Run commands from standard input in one shell that stays
    Session(session::SessionArgs),
    /// Measure what this machine reaches, against the thresholds of the settings
    Bench(bench::BenchArgs),
    /// Print the JSON Schema of manifests
    Schema,
    /// Print the completions of a shell
    Completion(completion::CompletionArgs),
    /// Print this help, that of a verb, or the exit codes
    Help(help::HelpArgs),
    /// Print the version
    Version(version::VersionArgs),
    /// Print what can be named, for completions
    #[command(name = completion::NAMES, hide = true)]
    CompleteNames(completion::NamesArgs),
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
    /// The waits of a manifest cannot be put in order.
    #[error("cannot put the manifest in order: {}", list(.0))]
    Order(Vec<RuleError>),
    /// A name on the command line is none of the manifest's.
    #[error("the manifest has no service, task or supervisor `{name}`{hint}")]
    UnknownName {
        /// The name.
        name: ChildName,
        /// A known name that is near, as a question.
        hint: String,
    },
    /// No first manifest was written.
    #[error(transparent)]
    Init(#[from] init::InitError),
    /// There is no such subject.
    #[error("there is no help about `{subject}`; try `kimi-shell help`")]
    NoSuchHelp {
        /// What was asked for.
        subject: String,
    },
    /// There is no session, or no more.
    #[error(transparent)]
    Session(#[from] session::SessionVerbError),
    /// Nothing could be measured.
    #[error(transparent)]
    Measure(#[from] MeasureError),
    /// The foreground supervisor did not start.
    #[error(transparent)]
    Foreground(#[from] start::ForegroundError),
    /// A command did not run.
    #[error(transparent)]
    Exec(#[from] exec::ExecFailure),
}

impl Error {
    /// The code that the program ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Manifest(_) | Self::Settings(_) | Self::Order(_) => {
                exit_code::INVALID_CONFIGURATION
            }
            Self::NoSuchHelp { .. } | Self::UnknownName { .. } => exit_code::USAGE,
            Self::Session(error) => error.exit_code(),
            Self::NoDirectory(_)
            | Self::Output(_)
            | Self::Toml(_)
            | Self::Json(_)
            | Self::Measure(_) => exit_code::FAILED,
            Self::Init(error) => error.exit_code(),
            Self::Foreground(error) => error.exit_code(),
            Self::Exec(error) => error.exit_code(),
        }
    }

    /// What can be done about it, where the error itself does not say so.
    fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Manifest(ManifestError::Unreadable(_)) => {
                Some("name the manifest with `--file`, or write a first one with `kimi-shell init`")
            }
            Self::Manifest(ManifestError::NoDirectory(_)) | Self::NoDirectory(_) => {
                Some("change to a directory that exists")
            }
            Self::Order(_) | Self::Manifest(ManifestError::Invalid(_)) => {
                Some("correct this, and look at it again with `kimi-shell validate`")
            }
            Self::UnknownName { .. } => Some("`kimi-shell graph` shows all names"),
            Self::Output(_) => Some("make room, or write somewhere else"),
            Self::Manifest(
                ManifestError::Undiscovered(_)
                | ManifestError::ReadBefore
                | ManifestError::Settings(_),
            )
            | Self::Settings(_)
            | Self::Toml(_)
            | Self::Json(_)
            | Self::NoSuchHelp { .. }
            | Self::Init(_)
            | Self::Exec(_)
            | Self::Session(_)
            | Self::Measure(_)
            | Self::Foreground(_) => None,
        }
    }
}

fn list(errors: &[RuleError]) -> String {
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    errors.join("; ")
}

/// A name on the command line.
fn name(text: &str) -> Result<ChildName, InvalidName> {
    ChildName::new(text)
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

    /// The manifest: the one that was named, the nearest one, or the embedded one. The services of these names count
    /// whatever their profiles are.
    pub fn manifest_with(&self, names: &[ChildName]) -> Result<Manifest, Error> {
        let locations = self.manifest_locations()?;
        let locations = locations.unwrap_or_else(|| Location::Embedded.into());
        let inputs = Inputs {
            names: names.iter().map(ToString::to_string).collect(),
            ..self.inputs.clone()
        };
        Ok(Manifest::load(locations, &inputs)?)
    }

    /// The settings: of the manifest that was named or is the nearest, or without one.
    pub fn settings(&self) -> Result<Settings, Error> {
        match self.manifest_locations()? {
            Some(locations) => Ok(Manifest::load(locations, &self.inputs)?.settings),
            None => Ok(Effective::load(&self.inputs)?.settings),
        }
    }

    /// The same, and a word to people if it is the embedded one.
    pub fn manifest_or_demonstration(&self, names: &[ChildName]) -> Result<Manifest, Error> {
        let manifest = self.manifest_with(names)?;
        if manifest.locations.first == Location::Embedded {
            out::talk(
                "kimi-shell: no kimi-shell.yaml here or above: this is the built-in demonstration; \
                 `kimi-shell init` writes a manifest\n",
            );
        }
        Ok(manifest)
    }

    /// Whether to use colours on a stream.
    pub fn color_of(&self, stream: &impl io::IsTerminal) -> Color {
        self.color.decide(self.color_environment, stream)
    }
}

/// Refuses a name that the manifest does not have.
fn check_names(manifest: &Manifest, names: &[ChildName]) -> Result<(), Error> {
    let reach = Reach::of(&manifest.rules);
    match names.iter().find(|name| !reach.knows(name)) {
        None => Ok(()),
        Some(name) => Err(Error::UnknownName {
            name: name.clone(),
            hint: did_you_mean(name.as_str(), reach.names().map(ChildName::as_str)),
        }),
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
    let parsed = help::program()
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
        Verb::Bench(args) => args.file.file.as_slice(),
        Verb::Graph(args) => args.file.file.as_slice(),
        Verb::Validate(args) => args.file.file.as_slice(),
        Verb::CompleteNames(args) => args.file.file.as_slice(),
        Verb::Exec(_)
        | Verb::Session(_)
        | Verb::Init(_)
        | Verb::Schema
        | Verb::Completion(_)
        | Verb::Help(_)
        | Verb::Version(_) => &[],
    };
    let mut inputs = Inputs::of_process(cli.set);
    if !cli.profile.is_empty() {
        inputs.profiles = cli.profile;
    }
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
        Verb::Start(args) => guarded::run(|ward| start::run(&args, &context, ward)),
        Verb::Exec(args) => guarded::run(|ward| exec::run(&args, &context, ward)),
        Verb::Session(args) => guarded::run(|ward| session::run(&args, ward)),
        Verb::Bench(args) => bench::run(&args, &context),
        Verb::Init(args) => init::run(&args),
        Verb::Validate(args) => validate::run(&args, &context),
        Verb::Graph(args) => graph::run(&args, &context),
        Verb::Config(args) => config::run(&args, &context),
        Verb::Schema => schema::run(),
        Verb::Completion(args) => completion::run(args),
        Verb::CompleteNames(_) => completion::names(&context),
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
    if let Some(advice) = error.advice() {
        let _infallible = writeln!(text, "  what to do: {advice}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        help::program().debug_assert();
    }
}
