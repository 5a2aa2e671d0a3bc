//! `start`: the foreground supervisor.

use std::collections::HashSet;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use kimi_actors::os::guardian::{OnDeath, Stray, Ward};
use kimi_actors::os::ledger::{self, Cleaned, Project};
use kimi_actors::os::signals;
use kimi_actors::os::{ContainmentRules, Output, SpawnError, limits, resolve};
use kimi_actors::policy::escalation::{Action as SignalAction, SignalRules};
use kimi_actors::policy::event::Fact;
use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::{ChildName, Lifetime};
use kimi_actors::policy::tree::ShutdownMode;
use kimi_actors::{
    ForceExitPolicy, RuntimeBuilder, RuntimeHandle, STATUS_TARGET, ShutdownReport, ShutdownTimeout,
    SignalOptions, StartError,
};
use tokio::sync::Notify;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;

use crate::cli::contain::{self, ContainArgs};
use crate::cli::screen::{Screen, Style};
use crate::cli::{Context, Error, FileArgs};
use crate::critical_path::StartUp;
use crate::document::nearest::did_you_mean;
use crate::document::problem::{Problem, Problems};
use crate::exit_code;
use crate::manifest::reach::Reach;
use crate::manifest::{Location, Manifest, Refusal};
use crate::settings::{Action, OnRuntimeDeath, Settings};

/// Says what of our own log is shown, as `tracing` directives.
const LOG_VARIABLE: &str = "KIMI_SHELL_LOG";
/// Without it: failures of ours, and signals that are refused. What happens to children is told in our own words.
const LOG_DEFAULT: &str = "error,kimi_actors::tree::signals=warn,kimi_actors::tree::log=off";

/// What `start` takes.
#[derive(Clone, Debug, Args)]
pub struct StartArgs {
    #[command(flatten)]
    pub(super) file: FileArgs,

    /// Start all services, as without names
    #[arg(long, conflicts_with = "names")]
    pub all: bool,

    /// The services and tasks to start, with what they depend on
    #[arg(value_name = "NAME", value_parser = super::name)]
    pub names: Vec<ChildName>,

    /// How to show what happens
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    pub output: Option<StartOutput>,

    /// Stop everything when a service or task fails
    #[arg(long)]
    pub abort_on_failure: bool,

    #[command(flatten)]
    pub(super) contain: ContainArgs,
}

/// How `start` shows what happens; on a terminal, one line a child unless one of these is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StartOutput {
    /// One line for each change
    Plain,
    /// One JSON object for each event and each line of output
    Ndjson,
}

/// Why the foreground supervisor did not start.
#[derive(Debug, thiserror::Error)]
pub enum ForegroundError {
    /// A name on the command line is none of the manifest's.
    #[error("cannot start `{name}`: the manifest has no such service, task or supervisor{hint}")]
    UnknownName {
        /// The name.
        name: ChildName,
        /// A known name that is near, as a question.
        hint: String,
    },
    /// Everything in the manifest starts only on request.
    #[error("cannot start: every service has `autostart: false`; name those that are to start")]
    NothingToStart,
    /// Programs are missing or cannot be executed; nothing was started.
    #[error("cannot start: nothing was started, since\n{}", list(.0))]
    Programs(Vec<(ChildName, SpawnError)>),
    /// What is asked of a service cannot be done; nothing was started.
    #[error("cannot start: nothing was started, since\n{0}")]
    Refused(Problems),
    /// The same, and root could do it.
    #[error("cannot start: nothing was started, since\n{0}")]
    RefusedToAnybody(Problems),
    /// The runtime did not start.
    #[error(transparent)]
    Runtime(#[from] StartError),
    /// The async runtime, or the thread that prints, did not start.
    #[error("cannot set up the supervisor")]
    Setup(#[source] std::io::Error),
}

impl ForegroundError {
    /// The code that the program ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::UnknownName { .. } | Self::NothingToStart => exit_code::USAGE,
            Self::Programs(_) | Self::Refused(_) | Self::Runtime(StartError::Rules { .. }) => {
                exit_code::INVALID_CONFIGURATION
            }
            Self::Runtime(error) if contain::is_lacking(error) => exit_code::INVALID_CONFIGURATION,
            Self::RefusedToAnybody(_) => exit_code::NO_PERMISSION,
            Self::Runtime(_) | Self::Setup(_) => exit_code::FAILED,
        }
    }
}

fn list(missing: &[(ChildName, SpawnError)]) -> String {
    let line =
        |(child, error): &(ChildName, SpawnError)| format!("  {child}: {}", with_causes(error));
    missing.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// An error and what it was caused by, in one line.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// Starts the tree and returns when it has ended.
pub fn run(args: &StartArgs, context: &Context, ward: Option<Ward>) -> Result<ExitCode, Error> {
    // Whoever started us may have blocked or ignored signals; our children must not inherit that, nor must we.
    signals::normalise();
    let mut manifest = context.manifest_with(&args.names)?;
    manifest.rules.lifetime = Lifetime::UntilAllEnded;
    check_names(&manifest, &args.names)?;
    if asked_for(&manifest, &args.names).is_empty() {
        return Err(ForegroundError::NothingToStart.into());
    }
    check_refusals(&manifest, &args.names)?;
    if manifest.settings.children.validate_binary {
        check_programs(&manifest, &args.names)?;
    }
    let style = style(args, context);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(ForegroundError::Setup)?;
    let report = runtime.block_on(supervise(manifest, args, style, ward));
    Ok(ExitCode::from(exit_code::of_report(&report?)))
}

fn style(args: &StartArgs, context: &Context) -> Style {
    let (stdout, stderr) = (std::io::stdout(), std::io::stderr());
    let color = context.color_of(&stdout);
    let is_terminal = stdout.is_terminal() && stderr.is_terminal();
    match args.output {
        Some(StartOutput::Ndjson) => Style::Ndjson,
        None if is_terminal && std::env::var_os("CI").is_none_or(|ci| ci.is_empty()) => {
            Style::Live { color }
        }
        Some(StartOutput::Plain) | None => Style::Plain { color },
    }
}

fn check_names(manifest: &Manifest, names: &[ChildName]) -> Result<(), ForegroundError> {
    let reach = Reach::of(&manifest.rules);
    match names.iter().find(|name| !reach.knows(name)) {
        Some(name) => {
            let hint = did_you_mean(name.as_str(), reach.names().map(ChildName::as_str));
            Err(ForegroundError::UnknownName {
                name: name.clone(),
                hint,
            })
        }
        None => Ok(()),
    }
}

/// Nothing starts if what is asked of one of the services cannot be done.
fn check_refusals(manifest: &Manifest, names: &[ChildName]) -> Result<(), ForegroundError> {
    let wanted = Reach::of(&manifest.rules).closure(&asked_for(manifest, names));
    let is_wanted = |refusal: &&Refusal| wanted.contains(&refusal.child);
    let refusals = || manifest.refusals.iter().filter(is_wanted);
    let mut problems: Vec<Problem> = refusals().map(|it| it.problem.clone()).collect();
    // What the defaults ask for is said once, not for each service.
    problems.dedup();
    if problems.is_empty() {
        Ok(())
    } else if refusals().all(|refusal| refusal.is_for_root) {
        Err(ForegroundError::RefusedToAnybody(Problems(problems)))
    } else {
        Err(ForegroundError::Refused(Problems(problems)))
    }
}

/// The names that were given; without any, all but those that start only on request.
fn asked_for(manifest: &Manifest, names: &[ChildName]) -> Vec<ChildName> {
    if names.is_empty() {
        Reach::of(&manifest.rules).all_but(&manifest.on_request)
    } else {
        names.to_vec()
    }
}

/// Looks for every program before anything starts, but for those that a task may have to build first.
fn check_programs(manifest: &Manifest, names: &[ChildName]) -> Result<(), ForegroundError> {
    let reach = Reach::of(&manifest.rules);
    let wanted = reach.closure(&asked_for(manifest, names));
    let is_wanted = |name: &ChildName| wanted.contains(name);
    let to_check = manifest
        .commands
        .iter()
        .filter(|(name, _)| is_wanted(name) && !reach.follows_a_task(name));
    let missing: Vec<(ChildName, SpawnError)> = to_check
        .filter_map(|(name, command)| Some((name.clone(), resolve(command).err()?)))
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(ForegroundError::Programs(missing))
    }
}

async fn supervise(
    manifest: Manifest,
    args: &StartArgs,
    style: Style,
    ward: Option<Ward>,
) -> Result<ShutdownReport, ForegroundError> {
    let child_descriptors = limits::raise_descriptors().unwrap_or_else(|error| {
        tracing::warn!(%error, "the limit on open descriptors stays as it is");
        None
    });
    let names = manifest
        .commands
        .iter()
        .map(|(name, _)| name.clone())
        .collect();
    // To start all is another thing than to start each: what stays down then was not asked for.
    let names_to_start = if manifest.on_request.is_empty() {
        args.names.clone()
    } else {
        asked_for(&manifest, &args.names)
    };
    let asked = Reach::of(&manifest.rules).closure(&names_to_start);
    let start_up = StartUp::of(&manifest.rules, |child| {
        asked.is_empty() || asked.contains(child)
    });
    let screen = Screen::start(style, names, start_up).map_err(ForegroundError::Setup)?;
    let settings = &manifest.settings;
    let is_embedded = manifest.locations.first == Location::Embedded;
    let shutdown_timeout = shutdown_timeout(settings, &manifest.origins);
    let grows = shutdown_timeout == ShutdownTimeout::Grown;
    let mut builder = RuntimeBuilder::from_rules(manifest.rules, manifest.commands)
        .probes(manifest.probes)
        .stop_commands(manifest.stop_commands)
        .child_descriptors(child_descriptors)
        .containment(ContainmentRules {
            on_death: match settings.on_runtime_death {
                OnRuntimeDeath::Kill => OnDeath::Kill,
                OnRuntimeDeath::Leave => OnDeath::Leave,
            },
            ..args.contain.rules()
        })
        .output(Output::Lines(Arc::new(screen.sink())))
        .shutdown_timeout(shutdown_timeout)
        .force_exit(ForceExitPolicy::ExitProcess)
        .ward(ward.clone());
    let project = Project::of(
        &manifest
            .locations
            .first
            .directory()
            .map_err(ForegroundError::Setup)?,
    );
    for cleaned in ledger::clean(project) {
        screen.note(&words_of(&cleaned));
    }
    match settings.on_runtime_death {
        OnRuntimeDeath::Kill => builder = builder.ledger(project),
        OnRuntimeDeath::Leave => {
            if let Some(ward) = &ward {
                ward.set_on_death(OnDeath::Leave);
            }
        }
    }
    // A supervisor may live for years, and needs the text of its manifest no more.
    drop(manifest.document);
    let failed = Arc::new(Notify::new());
    let (shown, noticed) = (screen.clone(), Arc::clone(&failed));
    builder = builder.watch(move |event| {
        shown.event(event.clone());
        if let Fact::Failed { .. } = event.fact {
            noticed.notify_one();
        }
    });
    if settings.signals.enabled {
        builder = builder.signals(signal_options(settings));
    }
    log_to(&screen);
    let handle = builder.start_idle().await?;
    screen.contained(handle.containment());
    for note in handle.notes() {
        screen.note(note);
    }
    for warning in &manifest.warnings {
        screen.note(&format!("warning: {warning}"));
    }
    let mut noted = HashSet::new();
    for (child, note) in &manifest.notes {
        let is_asked = asked.is_empty() || asked.contains(child);
        // Replicas stand in the file once.
        if is_asked && noted.insert(note) {
            screen.note(note);
        }
    }
    if let Some(budget) = handle.shutdown_budget().filter(|_| grows)
        && budget > ShutdownTimeout::DEFAULT
    {
        let budget = crate::quantity::duration_text(budget);
        screen.note(&format!(
            "a shutdown may take {budget}: the longest chain of stop timeouts set by hand, and a second more"
        ));
    }
    if is_embedded {
        screen.note("no kimi-shell.yaml here or above: running the built-in demonstration");
    }
    if args.abort_on_failure {
        // Ends with the runtime, at the latest.
        tokio::spawn(abort(handle.clone(), failed));
    }
    begin(&handle, &names_to_start);
    let report = handle.wait().await;
    for (child, survivor) in &report.survivors {
        let whose = child.as_ref().map(|child| format!("{child}: "));
        screen.note(&format!("{}{survivor}", whose.unwrap_or_default()));
    }
    screen.finish();
    Ok(report)
}

/// What was found of a runtime that had died together with its guardian.
fn words_of(cleaned: &Cleaned) -> String {
    match cleaned {
        Cleaned::Killed(Stray {
            pid,
            command,
            is_gone,
        }) => {
            let what = if *is_gone {
                "cleaned up"
            } else {
                "could not be killed"
            };
            format!("{what}: {command} (pid {pid}), left by a runtime that died")
        }
        Cleaned::Refused { path, reason } => {
            format!("warning: `{}` is left alone: {reason}", path.display())
        }
    }
}

/// Our own log goes where our sentences go: errors and asked-for snapshots, or what `KIMI_SHELL_LOG` asks for.
fn log_to(screen: &Screen) {
    let asked = std::env::var(LOG_VARIABLE).ok();
    let directives = asked.unwrap_or_else(|| format!("{LOG_DEFAULT},{STATUS_TARGET}=info"));
    let filter = directives.parse().unwrap_or_else(|error| {
        screen.note(&format!("{LOG_VARIABLE} is not understood: {error}"));
        Targets::new().with_default(LevelFilter::ERROR)
    });
    let writer = screen.clone();
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .without_time()
        .with_writer(move || writer.clone());
    let subscriber = Registry::default().with(lines.with_filter(filter));
    // Set already only if somebody embeds this very function.
    let _set_before = tracing::subscriber::set_global_default(subscriber);
}

fn begin(handle: &RuntimeHandle, names: &[ChildName]) {
    let started = if names.is_empty() {
        handle.start_all()
    } else {
        handle.start(&names.iter().map(ChildName::as_str).collect::<Vec<_>>())
    };
    if started.is_err() {
        // The names are known, so the tree has ended before its beginning; the report says why.
        tracing::debug!("the tree ended before it began");
    }
}

/// Ends everything at the first failure.
async fn abort(handle: RuntimeHandle, failed: Arc<Notify>) {
    failed.notified().await;
    handle.ask_shutdown(ShutdownMode::Graceful);
}

pub(super) fn shutdown_timeout(
    settings: &Settings,
    origins: &crate::settings::Origins,
) -> ShutdownTimeout {
    let signals = &settings.signals;
    if !signals.force_exit_after_timeout {
        ShutdownTimeout::Unlimited
    } else if !origins.is_explicit("signals.graceful_shutdown_timeout") {
        ShutdownTimeout::Grown
    } else {
        ShutdownTimeout::Set(signals.graceful_shutdown_timeout)
    }
}

fn signal_options(settings: &Settings) -> SignalOptions {
    let action = |action: Action| match action {
        Action::Shutdown => SignalAction::Shutdown,
        Action::ForcedShutdown => SignalAction::ForcedShutdown,
        Action::ReopenLogs => SignalAction::Status,
        Action::Reload => SignalAction::Reload,
        Action::Forward => SignalAction::Forward,
        Action::Ignore => SignalAction::Ignore,
    };
    let actions = settings.signals.effective();
    let actions = actions
        .into_iter()
        .map(|(signal, of)| (signal, action(of)))
        .collect::<std::collections::BTreeMap<Signal, _>>();
    SignalOptions {
        rules: SignalRules {
            actions,
            ..SignalRules::default()
        },
        history: settings.signals.history as usize,
    }
}
