//! `validate`: all that is wrong with manifests, at once.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use kimi_actors::os::{SpawnError, resolve};
use kimi_actors::policy::order::{Rules, arrange};
use kimi_actors::policy::spec::{CommandSpec, Kind};
use serde::Serialize;

use crate::cli::out::Color;
use crate::cli::start::with_causes;
use crate::cli::{Context, Error, FileArgs, out};
use crate::document::problem::Problem;
use crate::exit_code;
use crate::manifest::discover::NAMES;
use crate::manifest::reach::Reach;
use crate::manifest::{Location, Locations, Manifest, ManifestError};

/// The version of the JSON that is written.
const SCHEMA_VERSION: u32 = 1;
/// Nobody reads more of one file at once.
const MOST_SHOWN: usize = 50;

/// What `validate` takes.
#[derive(Clone, Debug, Args)]
pub struct ValidateArgs {
    #[command(flatten)]
    pub(super) file: FileArgs,

    /// Manifests, each by itself; `-` for standard input [default: the one that `start` would take]
    #[arg(value_name = "FILE", conflicts_with = "file")]
    pub files: Vec<PathBuf>,

    /// Take warnings for errors
    #[arg(long)]
    pub strict: bool,

    /// The format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub output: ValidateOutput,
}

/// In which format is said what is wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ValidateOutput {
    /// For people
    #[default]
    Text,
    /// JSON
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    Error,
    Warning,
}

/// One thing that is to be said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    severity: Severity,
    /// Where it stands; none if it stands in no file.
    file: Option<String>,
    line: Option<usize>,
    column: Option<usize>,
    end_line: Option<usize>,
    message: String,
    snippet: Option<String>,
    /// For people: a file with line and column, a variable, a flag.
    #[serde(skip)]
    place: String,
}

/// What is said of one manifest.
struct Checked {
    /// As people would name it.
    file: String,
    /// The way to name it again to another verb, if it must be named.
    named: Option<String>,
    findings: Vec<Finding>,
    manifest: Option<Manifest>,
}

/// Says what is wrong; 78 if anything is.
pub fn run(args: &ValidateArgs, context: &Context) -> Result<ExitCode, Error> {
    let checked: Vec<Checked> = if args.files.is_empty() {
        vec![check_the_one(context)?]
    } else {
        let files = args.files.iter();
        files.map(|file| check_named(file, context)).collect()
    };
    let text = match args.output {
        ValidateOutput::Text => {
            let color = context.color_of(&std::io::stdout());
            checked
                .iter()
                .map(|it| as_text(it, args.strict, color))
                .collect()
        }
        ValidateOutput::Json => as_json(&checked, args.strict)?,
    };
    out::print(&text).map_err(Error::Output)?;
    let is_good = checked.iter().all(|checked| checked.is_valid(args.strict));
    Ok(ExitCode::from(if is_good {
        exit_code::DONE
    } else {
        exit_code::INVALID_CONFIGURATION
    }))
}

/// The manifest that other verbs would take, which must exist here.
fn check_the_one(context: &Context) -> Result<Checked, Error> {
    let files: Vec<String> = context.files.iter().map(|file| quoted(file)).collect();
    let named = (!files.is_empty()).then(|| files.join(" -f "));
    match context.manifest_locations() {
        Ok(Some(locations)) => {
            let file = shown(&locations);
            Ok(check(locations, file, named, context))
        }
        Ok(None) => {
            let message = format!(
                "there is no {} here or above; `kimi-shell init` writes one",
                NAMES.join(", ")
            );
            Ok(Checked::unreadable(NAMES[0].to_owned(), message))
        }
        Err(Error::Manifest(error @ ManifestError::Undiscovered(_))) => {
            Ok(Checked::unreadable(NAMES[0].to_owned(), error.to_string()))
        }
        Err(error) => Err(error),
    }
}

fn check_named(file: &Path, context: &Context) -> Checked {
    let locations = Locations::from(Location::named(file));
    let name = shown(&locations);
    check(locations, name, Some(quoted(file)), context)
}

fn check(locations: Locations, file: String, named: Option<String>, context: &Context) -> Checked {
    match Manifest::examine(locations, &context.inputs) {
        Ok(examined) => {
            let errors = examined
                .errors
                .iter()
                .map(|it| Finding::of(Severity::Error, it));
            let warnings = examined
                .warnings
                .iter()
                .map(|it| Finding::of(Severity::Warning, it));
            let mut findings: Vec<Finding> = errors.chain(warnings).collect();
            if let Some(manifest) = &examined.manifest {
                findings.extend(refused(manifest));
                findings.extend(unusable(manifest));
            }
            Checked {
                file,
                named,
                findings,
                manifest: examined.manifest,
            }
        }
        Err(ManifestError::Invalid(problems)) => Checked {
            findings: problems
                .0
                .iter()
                .map(|it| Finding::of(Severity::Error, it))
                .collect(),
            file,
            named,
            manifest: None,
        },
        Err(error) => Checked::unreadable(file, with_causes(&error)),
    }
}

/// The files in their order.
fn shown(locations: &Locations) -> String {
    let name = |location: &Location| match location {
        Location::File(path) => path.display().to_string(),
        Location::Stdin => "standard input".to_owned(),
        Location::Embedded => "the built-in demonstration".to_owned(),
    };
    let names: Vec<String> = locations.iter().map(name).collect();
    names.join(" + ")
}

fn quoted(file: &Path) -> String {
    let text = file.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_');
    if text.chars().all(is_plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// What `start` refuses to start here. It stands in the file once, whatever the number of replicas.
fn refused(manifest: &Manifest) -> impl Iterator<Item = Finding> {
    let mut seen = HashSet::new();
    manifest
        .refusals
        .iter()
        .filter(move |refusal| seen.insert(refusal.problem.to_string()))
        .map(|refusal| Finding::of(Severity::Warning, &refusal.problem))
}

/// Programs and working directories that are not there. A task that must succeed before may be what makes them.
fn unusable(manifest: &Manifest) -> Vec<Finding> {
    let reach = Reach::of(&manifest.rules);
    let mut seen = HashSet::new();
    let mut findings = Vec::new();
    for (child, command) in &manifest.commands {
        let may_be_made = reach.follows_a_task(child);
        for (keys, message) in missing(command) {
            let severity = if may_be_made || !manifest.settings.children.validate_binary {
                Severity::Warning
            } else {
                Severity::Error
            };
            let advice = if may_be_made {
                "; a task that runs before it may make it"
            } else {
                "; install it, or correct the manifest"
            };
            // Replicas stand in the file once.
            let service = child.as_str().split('.').next().unwrap_or_default();
            let message = format!("`{service}` {message}{advice}");
            let place = keys
                .iter()
                .find_map(|key| manifest.place(&["services", service, key]));
            if seen.insert(message.clone()) {
                findings.push(match place {
                    Some(place) => Finding::of(severity, &Problem::new(place, message)),
                    None => Finding::without_place(severity, message),
                });
            }
        }
    }
    findings
}

/// What a command lacks, each with the keys where that may be written.
fn missing(command: &CommandSpec) -> Vec<(&'static [&'static str], String)> {
    let mut found: Vec<(&'static [&'static str], String)> = Vec::new();
    if let Some(cwd) = command.cwd.as_deref()
        && let Some(why) = no_directory(cwd)
    {
        let message = format!("cannot run in `{}`: {why}", cwd.display());
        found.push((&["cwd"], message));
    }
    match resolve(command) {
        // The directory was looked at just now.
        Ok(_) | Err(SpawnError::Cwd { .. }) => {}
        Err(error) => {
            let message = format!("cannot start: {}", with_causes(&error));
            found.push((&["command", "shell"], message));
        }
    }
    found
}

fn no_directory(path: &Path) -> Option<String> {
    match path.metadata() {
        Ok(found) if found.is_dir() => None,
        Ok(_) => Some("it is not a directory".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

impl Finding {
    fn of(severity: Severity, problem: &Problem) -> Self {
        let (line, column) = problem.place.line_and_column().unzip();
        Self {
            severity,
            file: problem.place.file().map(str::to_owned),
            line,
            column,
            end_line: problem.place.last_line(),
            message: problem.message.clone(),
            snippet: problem.snippet(),
            place: problem.place.to_string(),
        }
    }

    fn without_place(severity: Severity, message: String) -> Self {
        Self {
            severity,
            file: None,
            line: None,
            column: None,
            end_line: None,
            message,
            snippet: None,
            place: String::new(),
        }
    }

    fn text(&self, color: Color) -> String {
        let (label, code) = match self.severity {
            Severity::Error => ("error", "1;31"),
            Severity::Warning => ("warning", "1;33"),
        };
        let mut text = String::new();
        if !self.place.is_empty() {
            text.push_str(&self.place);
            text.push_str(": ");
        }
        let label = match color {
            Color::On => format!("\x1b[{code}m{label}\x1b[0m"),
            Color::Off => label.to_owned(),
        };
        text.push_str(&label);
        text.push_str(": ");
        text.push_str(&self.message);
        text.push('\n');
        if let Some(snippet) = &self.snippet {
            text.push_str(snippet);
            text.push('\n');
        }
        text
    }
}

impl Checked {
    /// One of which nothing else can be said.
    fn unreadable(file: String, message: String) -> Self {
        let finding = Finding {
            file: Some(file.clone()),
            place: file.clone(),
            ..Finding::without_place(Severity::Error, message)
        };
        Self {
            file,
            named: None,
            findings: vec![finding],
            manifest: None,
        }
    }

    fn count(&self, severity: Severity) -> usize {
        let same = |finding: &&Finding| finding.severity == severity;
        self.findings.iter().filter(same).count()
    }

    fn is_valid(&self, strict: bool) -> bool {
        self.count(Severity::Error) == 0 && !(strict && self.count(Severity::Warning) > 0)
    }
}

fn as_text(checked: &Checked, strict: bool, color: Color) -> String {
    let shown = checked.findings.iter().take(MOST_SHOWN);
    let mut text: String = shown.map(|finding| finding.text(color)).collect();
    let more = checked.findings.len().saturating_sub(MOST_SHOWN);
    // Writing to a string cannot fail.
    if more > 0 {
        let _infallible = writeln!(text, "and {more} more");
    }
    let _infallible = writeln!(text, "{}: {}", checked.file, verdict(checked, strict));
    text
}

/// The last line of all: what there is, and what to do next.
fn verdict(checked: &Checked, strict: bool) -> String {
    let errors = counted(checked.count(Severity::Error), "error");
    let warnings = counted(checked.count(Severity::Warning), "warning");
    let told = match (errors, warnings) {
        (Some(errors), Some(warnings)) => format!("{errors} and {warnings}"),
        (Some(errors), None) => errors,
        (None, Some(warnings)) if strict => format!("{warnings}, taken for errors"),
        (None, warnings) => {
            let contents = checked.manifest.as_ref().map(contents).unwrap_or_default();
            let again = match &checked.named {
                Some(file) => format!(" -f {file}"),
                None => String::new(),
            };
            let warnings = warnings
                .map(|it| format!(", with {it}"))
                .unwrap_or_default();
            return format!(
                "ok: {contents}{warnings}; `kimi-shell graph{again}` shows the order, \
                 `kimi-shell start --all{again}` starts it"
            );
        }
    };
    format!("{told}; correct that and say `kimi-shell validate` again")
}

fn contents(manifest: &Manifest) -> String {
    let (mut services, mut tasks, mut supervisors) = (0, 0, 0);
    // The first place is the root, which nobody has written.
    for place in arrange(&manifest.rules)
        .iter()
        .flat_map(|arrangement| arrangement.places.iter().skip(1))
    {
        match place.rules {
            Rules::Child(child) if child.kind == Kind::Task => tasks += 1,
            Rules::Child(_) => services += 1,
            Rules::Supervisor(_) => supervisors += 1,
        }
    }
    let parts = [
        counted(services, "service"),
        counted(tasks, "task"),
        counted(supervisors, "supervisor"),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        "nothing to start yet".to_owned()
    } else {
        parts.join(", ")
    }
}

fn counted(count: usize, what: &str) -> Option<String> {
    match count {
        0 => None,
        1 => Some(format!("1 {what}")),
        count => Some(format!("{count} {what}s")),
    }
}

#[derive(Serialize)]
struct Report<'a> {
    schema_version: u32,
    files: Vec<ReportOfFile<'a>>,
}

#[derive(Serialize)]
struct ReportOfFile<'a> {
    file: &'a str,
    valid: bool,
    problems: &'a [Finding],
}

impl<'a> ReportOfFile<'a> {
    fn of(checked: &'a Checked, strict: bool) -> Self {
        Self {
            file: &checked.file,
            valid: checked.is_valid(strict),
            problems: &checked.findings,
        }
    }
}

fn as_json(checked: &[Checked], strict: bool) -> serde_json::Result<String> {
    let report = Report {
        schema_version: SCHEMA_VERSION,
        files: checked
            .iter()
            .map(|it| ReportOfFile::of(it, strict))
            .collect(),
    };
    let mut text = serde_json::to_string_pretty(&report)?;
    text.push('\n');
    Ok(text)
}
