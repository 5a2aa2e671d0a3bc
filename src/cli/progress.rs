//! What happened, in words: pure, so that the screen only has to write it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use kimi_actors::os::Stream;
use kimi_actors::policy::event::{
    Bound, EndedBy, Fact, FailedBecause, ShutdownReason, SupervisorEnd, TreeEvent,
};
use kimi_actors::policy::exit::Exit;
use kimi_actors::policy::restart::Strategy;
use kimi_actors::policy::spec::{ChildName, Containment};
use kimi_actors::policy::time::Moment;
use serde_json::json;

use crate::cli::out::Color;
use crate::cli::screen::OwnedLine;
use crate::critical_path::{Down, Step, Summary, Why};

/// The version of the JSON that is written.
const SCHEMA_VERSION: u32 = 1;
/// Colours that tell children apart, as SGR codes.
const PALETTE: [u8; 6] = [36, 33, 35, 32, 34, 96];
const SPINNER: [&str; 4] = ["-", "\\", "|", "/"];

/// A line of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// One that stays.
    Settled(String),
    /// One that a live display shows by its state instead.
    Step(String),
}

/// What is known of the children.
pub struct Progress {
    rows: HashMap<ChildName, Row>,
    order: Vec<ChildName>,
    width: usize,
    color: Color,
    /// How many children are on their way somewhere.
    moving: usize,
    /// How many of them are being stopped.
    stopping: usize,
    /// When those were last named.
    reminded: Moment,
}

#[derive(Clone, Debug)]
struct Row {
    doing: Doing,
    pid: Option<u32>,
    since: Moment,
    last_exit: Option<Exit>,
    failed_because: Option<FailedBecause>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Doing {
    Nothing,
    Waiting { on: ChildName },
    Starting,
    Up,
    Backoff { delay: Duration },
    Stopping,
}

impl Progress {
    /// Nothing has happened yet.
    pub fn new(names: &[ChildName], color: Color) -> Self {
        let width = names
            .iter()
            .map(|name| name.as_str().len())
            .max()
            .unwrap_or(0);
        Self {
            rows: HashMap::new(),
            order: names.to_vec(),
            width,
            color,
            moving: 0,
            stopping: 0,
            reminded: Moment::ZERO,
        }
    }

    /// A child's line, with its name before it.
    pub(super) fn line(&self, line: &OwnedLine, is_terminal: bool) -> Vec<u8> {
        let mut shown = self.prefix(&line.child, line.stream).into_bytes();
        if is_terminal {
            harmless(&line.bytes, &mut shown);
        } else {
            shown.extend_from_slice(&line.bytes);
        }
        if !line.complete {
            shown.extend_from_slice(" \\".as_bytes());
        }
        if is_terminal && self.color == Color::On {
            shown.extend_from_slice(b"\x1b[0m");
        }
        shown.push(b'\n');
        shown
    }

    fn prefix(&self, child: &ChildName, stream: Stream) -> String {
        let bar = match stream {
            Stream::Stdout => '|',
            Stream::Stderr => '!',
        };
        format!(
            "{} ",
            self.painted(
                child,
                &format!("{:width$} {bar}", child.as_str(), width = self.width)
            )
        )
    }

    fn painted(&self, child: &ChildName, text: &str) -> String {
        match self.color {
            Color::Off => text.to_owned(),
            Color::On => {
                let place = self
                    .order
                    .iter()
                    .position(|name| name == child)
                    .unwrap_or(0);
                format!("\x1b[{}m{text}\x1b[0m", PALETTE[place % PALETTE.len()])
            }
        }
    }

    /// A child's line as JSON.
    pub(super) fn line_json(line: &OwnedLine) -> Vec<u8> {
        let value = json!({
            "schema_version": SCHEMA_VERSION,
            "type": "line",
            "service": line.child.as_str(),
            "run": line.run.0,
            "stream": match line.stream { Stream::Stdout => "stdout", Stream::Stderr => "stderr" },
            "text": String::from_utf8_lossy(&line.bytes),
            "complete": line.complete,
        });
        format!("{value}\n").into_bytes()
    }

    /// What holds the processes of a run together, as JSON.
    pub(super) fn containment_json(containment: Containment) -> Vec<u8> {
        let value = json!({
            "schema_version": SCHEMA_VERSION,
            "type": "runtime",
            "containment": containment.as_str(),
        });
        format!("{value}\n").into_bytes()
    }

    /// An event as JSON.
    pub(super) fn event_json(event: &TreeEvent) -> Vec<u8> {
        let value = json!({
            "schema_version": SCHEMA_VERSION,
            "type": "event",
            "seq": event.seq,
            "at_ms": millis(event.at.since_begin()),
            "fact": event.fact,
        });
        format!("{value}\n").into_bytes()
    }

    /// Whether anything is on its way, so that a live display moves.
    pub fn is_moving(&self) -> bool {
        self.moving > 0
    }

    /// Whether anybody is waited for to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping > 0
    }

    /// Names those that have been waited for this long, and again each time this has passed.
    pub fn reminders(&mut self, now: Moment, every: Duration) -> Vec<String> {
        if self.stopping == 0 || now.since(self.reminded) < every {
            return Vec::new();
        }
        self.reminded = now;
        let late = |name: &&ChildName| {
            let row = self.rows.get(*name);
            row.is_some_and(|row| row.doing == Doing::Stopping && now.since(row.since) >= every)
        };
        let line = |name: &ChildName| {
            let row = self.rows.get(name);
            let waited = row
                .map(|row| seconds(now.since(row.since)))
                .unwrap_or_default();
            let pid = row.and_then(|row| row.pid);
            format!("still waiting for {name} ({}{waited})", pid_text(pid))
        };
        self.order.iter().filter(late).map(line).collect()
    }

    /// The live display: a line for each child that is on its way, as many as fit.
    pub fn live(&self, now: Moment, (rows, columns): (u16, u16)) -> Vec<String> {
        let moving: Vec<&ChildName> = self
            .order
            .iter()
            .filter(|name| {
                self.rows
                    .get(*name)
                    .is_some_and(|row| !matches!(row.doing, Doing::Nothing | Doing::Up))
            })
            .collect();
        let room = usize::from(rows).saturating_sub(4).max(1);
        let mut lines: Vec<String> = moving
            .iter()
            .take(room)
            .map(|name| self.live_line(name, now, usize::from(columns)))
            .collect();
        if moving.len() > room {
            lines.push(format!("  … and {} more", moving.len() - room));
        }
        lines
    }

    fn live_line(&self, name: &ChildName, now: Moment, columns: usize) -> String {
        let Some(row) = self.rows.get(name) else {
            return String::new();
        };
        let elapsed = now.since(row.since);
        let spinner =
            SPINNER[usize::try_from(elapsed.as_millis() / 100).unwrap_or(0) % SPINNER.len()];
        let doing = match &row.doing {
            Doing::Waiting { on } => format!("waits for {on}"),
            Doing::Starting => "starting".to_owned(),
            Doing::Backoff { delay } => {
                format!("restarts in {}", seconds(delay.saturating_sub(elapsed)))
            }
            Doing::Stopping => format!("stopping ({}{})", pid_text(row.pid), seconds(elapsed)),
            Doing::Up | Doing::Nothing => String::new(),
        };
        let text: String = format!(
            "{spinner} {:width$}  {doing}",
            name.as_str(),
            width = self.width
        )
        .chars()
        .take(columns)
        .collect();
        self.painted(name, &text)
    }

    /// Takes note of an event and says it in words.
    pub fn event(&mut self, event: &TreeEvent, now: Moment) -> Vec<Shown> {
        self.take_note(&event.fact, now);
        self.words(&event.fact).into_iter().collect()
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "facts may be added; one that is not known here changes no row"
    )]
    fn take_note(&mut self, fact: &Fact, now: Moment) {
        let (child, doing) = match fact {
            Fact::Pending { child, blocked_by } => (
                child,
                Doing::Waiting {
                    on: blocked_by.clone(),
                },
            ),
            Fact::Starting { child, .. } => (child, Doing::Starting),
            Fact::Running { child, .. } | Fact::Ready { child, .. } => (child, Doing::Up),
            Fact::Stopping { child, .. } => (child, Doing::Stopping),
            Fact::RestartScheduled { child, delay, .. } => {
                (child, Doing::Backoff { delay: *delay })
            }
            Fact::GroupRestart {
                because_of, delay, ..
            } => (because_of, Doing::Backoff { delay: *delay }),
            Fact::Exited { child, .. }
            | Fact::Completed { child }
            | Fact::Failed { child, .. }
            | Fact::Stopped { child } => (child, Doing::Nothing),
            _ => return,
        };
        let fresh = Row {
            doing: Doing::Nothing,
            pid: None,
            since: now,
            last_exit: None,
            failed_because: None,
        };
        let row = self.rows.entry(child.clone()).or_insert(fresh);
        if let Fact::Running { pid, .. } = fact {
            row.pid = *pid;
        }
        if let Fact::Exited { exit, .. } = fact {
            row.last_exit = Some(*exit);
        }
        if let Fact::Failed { why, .. } = fact {
            row.failed_because = Some(*why);
        }
        let before = std::mem::replace(&mut row.doing, doing.clone());
        row.since = now;
        let moves = |doing: &Doing| usize::from(!matches!(doing, Doing::Nothing | Doing::Up));
        let stops = |doing: &Doing| usize::from(*doing == Doing::Stopping);
        self.moving = self.moving + moves(&doing) - moves(&before);
        self.stopping = self.stopping + stops(&doing) - stops(&before);
    }

    fn pid(&self, child: &ChildName) -> String {
        let pid = self.rows.get(child).and_then(|row| row.pid);
        pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    }

    fn last_exit(&self, child: &ChildName) -> String {
        let exit = self.rows.get(child).and_then(|row| row.last_exit);
        exit.map_or_else(|| "never ran".to_owned(), |exit| exit.to_string())
    }

    fn live_count(&self) -> usize {
        self.rows
            .values()
            .filter(|row| matches!(row.doing, Doing::Starting | Doing::Up | Doing::Stopping))
            .count()
    }

    /// What became of the start, in lines.
    pub fn summary(&self, summary: &Summary) -> Vec<String> {
        let took = seconds(summary.took);
        let up = match (summary.up, summary.down.len()) {
            (0, _) => format!("nothing is up after {took}"),
            (_, 0) => format!("up in {took}"),
            (up, down) => format!("up in {took}: {up} of {}", up + down),
        };
        let mut lines = vec![up];
        if summary.chain.len() > 1 {
            let step = |step: &Step| format!("{} {}", step.child, seconds(step.took));
            let chain: Vec<String> = summary.chain.iter().map(step).collect();
            lines.push(format!("slowest chain: {}", chain.join(" → ")));
        }
        for down in &summary.down {
            lines.push(match &down.why {
                Why::BlockedBy(by) => {
                    let other = summary.down.iter().find(|other| other.child == *by);
                    let other =
                        other.map_or_else(|| "not ready".to_owned(), |other| self.state_of(other));
                    format!("{}: pending, blocked by {by} ({other})", down.child)
                }
                Why::Failed | Why::Stopped => format!("{}: {}", down.child, self.state_of(down)),
            });
        }
        lines
    }

    fn state_of(&self, down: &Down) -> String {
        match down.why {
            Why::Failed => {
                let why = self
                    .rows
                    .get(&down.child)
                    .and_then(|row| row.failed_because);
                let why = why.map_or_else(
                    || self.last_exit(&down.child),
                    |why| self.failure(&down.child, why),
                );
                format!("failed: {why}")
            }
            Why::Stopped => "stopped".to_owned(),
            Why::BlockedBy(_) => "pending".to_owned(),
        }
    }

    /// What became of the start, as JSON.
    pub(super) fn summary_json(&self, summary: &Summary, at: Moment) -> Vec<u8> {
        let chain = summary
            .chain
            .iter()
            .map(|step| json!({ "service": step.child.as_str(), "took_ms": millis(step.took) }));
        let down = summary.down.iter().map(|down| match &down.why {
            Why::Failed => json!({
                "service": down.child.as_str(),
                "state": "failed",
                "why": self.state_of(down),
            }),
            Why::Stopped => json!({ "service": down.child.as_str(), "state": "stopped" }),
            Why::BlockedBy(by) => json!({
                "service": down.child.as_str(),
                "state": "pending",
                "blocked_by": by.as_str(),
            }),
        });
        let value = json!({
            "schema_version": SCHEMA_VERSION,
            "type": "up",
            "at_ms": millis(at.since_begin()),
            "took_ms": millis(summary.took),
            "up": summary.up,
            "slowest_chain": chain.collect::<Vec<_>>(),
            "down": down.collect::<Vec<_>>(),
        });
        format!("{value}\n").into_bytes()
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "facts may be added; one that is not known here is told by its own words"
    )]
    fn words(&self, fact: &Fact) -> Option<Shown> {
        let settled = |text: String| Some(Shown::Settled(text));
        let step = |text: String| Some(Shown::Step(text));
        match fact {
            Fact::Pending { child, blocked_by } => step(format!("{child}: waits for {blocked_by}")),
            Fact::Starting {
                child, ordinal: 1, ..
            } => step(format!("{child}: starting")),
            Fact::Starting { child, ordinal, .. } => {
                step(format!("{child}: starting again (run {ordinal})"))
            }
            Fact::Ready { child, .. } => settled(format!("{child}: ready{}", self.pid(child))),
            Fact::Stopping {
                child,
                grace: Duration::ZERO,
                ..
            } => step(format!("{child}: killing{}", self.pid(child))),
            Fact::Stopping { child, grace, .. } => step(format!(
                "{child}: stopping{}, within {}",
                self.pid(child),
                seconds(*grace)
            )),
            Fact::Exited {
                child,
                exit: exit @ Exit::NotStarted(_),
                ..
            } => settled(format!("{child}: {exit}")),
            Fact::Exited {
                child,
                exit,
                by: EndedBy::Itself,
                ..
            } => settled(format!("{child}: ended by itself: {exit}")),
            Fact::Exited {
                child,
                exit,
                by:
                    EndedBy::Supervisor
                    | EndedBy::StartTimeout
                    | EndedBy::Liveness
                    | EndedBy::Bound(_)
                    | EndedBy::Dependency,
                ..
            } => settled(format!("{child}: stopped: {exit}")),
            Fact::OutOfMemory { child, .. } => settled(format!("{child}: killed: out of memory")),
            Fact::Unready { child, .. } => settled(format!("{child}: no longer ready")),
            Fact::Unhealthy { child, .. } => settled(format!(
                "{child}: its liveness probe failed, so it is stopped"
            )),
            Fact::StartTimedOut { child, after, .. } => {
                let after = seconds(*after);
                settled(format!(
                    "{child}: not ready within {after}, so it is stopped"
                ))
            }
            Fact::Overran {
                child,
                bound,
                limit,
                waits_for_input,
                ..
            } => {
                let limit = seconds(*limit);
                let what = match bound {
                    Bound::MaxRuntime => format!("ran for {limit}, as long as it may"),
                    Bound::IdleTimeout => format!("wrote nothing for {limit}"),
                };
                let hint = if *waits_for_input {
                    "; it waits for input on its stdin"
                } else {
                    ""
                };
                settled(format!("{child}: {what}, so it is stopped{hint}"))
            }
            Fact::DependencyRestarted { child, dependency } => settled(format!(
                "{child}: stopped until {dependency}, which restarts, is back"
            )),
            Fact::DependencyLost { child, dependency } => settled(format!(
                "{child}: stopped until {dependency}, which is lost, is back"
            )),
            Fact::RestartScheduled {
                child,
                delay: Duration::ZERO,
                ..
            } => settled(format!("{child}: restarting at once")),
            Fact::RestartScheduled {
                child,
                delay,
                unstable,
            } => {
                let runs = match unstable {
                    1 => "1 unstable run".to_owned(),
                    count => format!("{count} unstable runs in a row"),
                };
                settled(format!(
                    "{child}: restarting in {} ({runs})",
                    seconds(*delay)
                ))
            }
            Fact::Completed { child } => settled(format!("{child}: completed")),
            Fact::Failed { child, why } => {
                settled(format!("{child}: failed: {}", self.failure(child, *why)))
            }
            Fact::GroupRestart {
                supervisor,
                strategy,
                because_of,
                delay,
            } => {
                let who = match strategy {
                    Strategy::OneForOne => "it alone restarts",
                    Strategy::OneForAll => "all restart",
                    Strategy::RestForOne => "it and those after it restart",
                };
                let when = if delay.is_zero() {
                    String::new()
                } else {
                    format!(" in {}", seconds(*delay))
                };
                let rule = strategy_name(*strategy);
                settled(format!(
                    "{supervisor}: {because_of} ended, so {who}{when} ({rule})"
                ))
            }
            Fact::SupervisorEnding { supervisor, why } => {
                settled(format!("{supervisor}: {}", ending(*why)))
            }
            Fact::ShutdownStarted { reason, .. } => {
                let count = self.live_count();
                let services = if count == 1 {
                    "1 service".to_owned()
                } else {
                    format!("{count} services")
                };
                match reason {
                    ShutdownReason::AllEnded => settled("every service has ended".to_owned()),
                    ShutdownReason::Signal(signal) => settled(format!(
                        "{signal}: stopping {services} (Ctrl-C again to force)"
                    )),
                    ShutdownReason::Limit => {
                        settled(format!("restarts were too many: stopping {services}"))
                    }
                    ShutdownReason::Internal => {
                        settled(format!("a part of kimi-shell failed: stopping {services}"))
                    }
                    ShutdownReason::Asked => settled(format!("stopping {services}")),
                }
            }
            Fact::ShutdownForced => settled("killing what still runs".to_owned()),
            Fact::ShutdownFinished => step("all is down".to_owned()),
            // What follows from these is told.
            Fact::Running { .. }
            | Fact::Stopped { .. }
            | Fact::SupervisorStarted { .. }
            | Fact::SupervisorEnded { .. } => None,
            other => by_its_words(other).map(Shown::Settled),
        }
    }

    fn failure(&self, child: &ChildName, why: FailedBecause) -> String {
        let last = self.last_exit(child);
        match why {
            FailedBecause::NotRestarted => format!("{last}, and it is not one that restarts"),
            FailedBecause::Limit => {
                format!("it restarted too often, so nothing more is tried (the last run: {last})")
            }
            FailedBecause::CannotStart => format!("it cannot be started: {last}"),
            FailedBecause::SupervisorGaveUp => {
                "restarts among its members were too many".to_owned()
            }
        }
    }
}

/// A fact by its own words: who, its name, and what is known of it besides.
fn by_its_words(fact: &Fact) -> Option<String> {
    let value = serde_json::to_value(fact).ok()?;
    let (name, fields) = match (value.as_str(), value.as_object()) {
        (Some(name), _) => (name, None),
        (None, fact) => {
            let (name, fields) = fact?.iter().next()?;
            (name.as_str(), fields.as_object())
        }
    };
    let mut words = String::new();
    for (place, c) in name.char_indices() {
        if c.is_uppercase() && place > 0 {
            words.push(' ');
        }
        words.extend(c.to_lowercase());
    }
    let fields = fields.into_iter().flatten();
    let (who, rest): (Vec<_>, Vec<_>) =
        fields.partition(|(key, _)| matches!(key.as_str(), "child" | "supervisor"));
    let rest: Vec<String> = rest
        .into_iter()
        .filter(|(key, value)| *key != "run" && (value.is_string() || value.is_number()))
        .map(|(key, value)| {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            format!("{} {value}", key.replace('_', " "))
        })
        .collect();
    let who = who.first().and_then(|(_, name)| name.as_str());
    let who = who.map(|who| format!("{who}: ")).unwrap_or_default();
    let rest = if rest.is_empty() {
        String::new()
    } else {
        format!(" ({})", rest.join(", "))
    };
    Some(format!("{who}{words}{rest}"))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn strategy_name(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::OneForOne => "one_for_one",
        Strategy::OneForAll => "one_for_all",
        Strategy::RestForOne => "rest_for_one",
    }
}

fn ending(why: SupervisorEnd) -> &'static str {
    match why {
        SupervisorEnd::Intensity => "its members restarted too often: stopping all of them",
        SupervisorEnd::MemberEscalated => "a member escalated its failure: stopping all of them",
        SupervisorEnd::AutoShutdown => "its significant members have ended: stopping the rest",
        SupervisorEnd::StartFailed => "a member could not start: stopping the rest",
        SupervisorEnd::Lost => "its actor was lost: killing its members",
        SupervisorEnd::Asked => "stopping all of its members",
    }
}

fn pid_text(pid: Option<u32>) -> String {
    pid.map(|pid| format!("pid {pid}, ")).unwrap_or_default()
}

/// `40 ms`, `0.5 s`, `3 s`, `2 min 5 s`.
fn seconds(span: Duration) -> String {
    match span.as_secs() {
        0 if (1..100).contains(&span.as_millis()) => format!("{} ms", span.as_millis()),
        0..10 if span.subsec_millis() > 0 => format!("{:.1} s", span.as_secs_f64()),
        0..120 => format!("{} s", span.as_secs()),
        whole => format!("{} min {} s", whole / 60, whole % 60),
    }
}

/// Text of a child for a terminal: colours pass, whatever else could move the cursor, set a title or reach the clipboard
/// does not.
fn harmless(bytes: &[u8], shown: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(bytes);
    let mut rest = text.chars().peekable();
    let mut safe = String::with_capacity(bytes.len());
    while let Some(c) = rest.next() {
        match c {
            '\x1b' => escape(&mut rest, &mut safe),
            '\t' => safe.push(c),
            c if c.is_control() => {}
            c => safe.push(c),
        }
    }
    shown.extend_from_slice(safe.as_bytes());
}

/// Reads one escape sequence; only `ESC [ … m` is passed on.
fn escape(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, safe: &mut String) {
    match rest.next() {
        Some('[') => {
            let mut parameters = String::new();
            for c in rest.by_ref() {
                match c {
                    '0'..='9' | ';' | ':' => parameters.push(c),
                    'm' => {
                        // Writing to a string cannot fail.
                        let _infallible = write!(safe, "\x1b[{parameters}m");
                        return;
                    }
                    '\x20'..='\x3f' => {}
                    _ => return,
                }
            }
        }
        // OSC, DCS, SOS, PM and APC run to BEL or ESC \.
        Some(']' | 'P' | 'X' | '^' | '_') => {
            while let Some(c) = rest.next() {
                if c == '\x07' || c == '\x1b' && rest.next_if_eq(&'\\').is_some() {
                    return;
                }
            }
        }
        Some(_) | None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kimi_actors::policy::spec::RunId;

    fn name(text: &str) -> ChildName {
        ChildName::new(text).unwrap()
    }

    fn at(seconds: u64) -> Moment {
        Moment::ZERO + Duration::from_secs(seconds)
    }

    fn tell(progress: &mut Progress, fact: Fact, now: Moment) -> Vec<Shown> {
        progress.event(
            &TreeEvent {
                seq: 1,
                at: now,
                fact,
            },
            now,
        )
    }

    #[test]
    fn an_end_for_lack_of_memory_is_called_that() {
        let mut progress = Progress::new(&[name("api")], Color::Off);
        let starved = Fact::OutOfMemory {
            child: name("api"),
            run: RunId(1),
        };
        let shown = tell(&mut progress, starved, at(0));
        assert!(
            matches!(&shown[..], [Shown::Settled(text)] if text == "api: killed: out of memory")
        );
    }

    #[test]
    fn who_is_waited_for_is_named_once_a_second_with_pid_and_time() {
        let mut progress = Progress::new(&[name("api")], Color::Off);
        let (child, run) = (name("api"), RunId(1));
        tell(
            &mut progress,
            Fact::Running {
                child: child.clone(),
                run,
                pid: Some(4711),
            },
            at(0),
        );
        tell(
            &mut progress,
            Fact::Stopping {
                child,
                run,
                grace: Duration::from_secs(9),
            },
            at(1),
        );
        let every = Duration::from_secs(1);
        assert_eq!(progress.reminders(at(1), every), Vec::<String>::new());
        assert_eq!(
            progress.reminders(at(4), every),
            ["still waiting for api (pid 4711, 3 s)"]
        );
        assert_eq!(progress.reminders(at(4), every), Vec::<String>::new());
    }

    #[test]
    fn what_became_of_the_start_is_told_with_the_slowest_chain_and_what_is_down() {
        let mut progress = Progress::new(&[], Color::Off);
        let exit = Fact::Exited {
            child: name("db"),
            run: RunId(1),
            exit: Exit::Code(1),
            by: EndedBy::Itself,
        };
        tell(&mut progress, exit, at(1));
        let failed = Fact::Failed {
            child: name("db"),
            why: FailedBecause::NotRestarted,
        };
        tell(&mut progress, failed, at(1));
        let step = |who: &str, millis| Step {
            child: name(who),
            took: Duration::from_millis(millis),
        };
        let down = |who: &str, why| Down {
            child: name(who),
            why,
        };
        let mut summary = Summary {
            took: Duration::from_millis(3_200),
            up: 2,
            chain: vec![step("seed", 2_100), step("web", 1_100)],
            down: vec![
                down("api", Why::BlockedBy(name("db"))),
                down("db", Why::Failed),
            ],
        };
        let failed = "failed: exit 1, and it is not one that restarts";
        assert_eq!(
            progress.summary(&summary),
            [
                "up in 3.2 s: 2 of 4",
                "slowest chain: seed 2.1 s → web 1.1 s",
                &format!("api: pending, blocked by db ({failed})"),
                &format!("db: {failed}"),
            ]
        );
        summary.chain.remove(0);
        summary.down.clear();
        assert_eq!(progress.summary(&summary), ["up in 3.2 s"]);
    }

    #[test]
    fn a_bound_that_is_exceeded_is_told_with_the_reason_that_may_be() {
        let overran = |bound, waits_for_input| Fact::Overran {
            child: name("db"),
            run: RunId(1),
            bound,
            limit: Duration::from_secs(10),
            waits_for_input,
        };
        for (fact, words) in [
            (
                overran(Bound::MaxRuntime, false),
                "db: ran for 10 s, as long as it may, so it is stopped",
            ),
            (
                overran(Bound::IdleTimeout, true),
                "db: wrote nothing for 10 s, so it is stopped; it waits for input on its stdin",
            ),
        ] {
            let mut progress = Progress::new(&[name("db")], Color::Off);
            let shown = tell(&mut progress, fact, at(10));
            assert_eq!(shown, [Shown::Settled(words.to_owned())]);
        }
    }

    #[test]
    fn a_fact_that_has_no_words_here_is_told_by_its_own() {
        let fact = Fact::RestartScheduled {
            child: name("db"),
            delay: Duration::ZERO,
            unstable: 2,
        };
        assert_eq!(
            by_its_words(&fact).unwrap(),
            "db: restart scheduled (unstable 2)"
        );
        assert_eq!(
            by_its_words(&Fact::ShutdownForced).unwrap(),
            "shutdown forced"
        );
    }

    #[test]
    fn a_childs_line_cannot_harm_the_terminal() {
        let mut shown = Vec::new();
        harmless(b"a\x1b[31mred\x1b[0m\x1b[2J\x1b]0;title\x07b\x1b]52;c;evil\x1b\\c\rd\x1b[1;1H\x1bcz\xff", &mut shown);
        assert_eq!(
            String::from_utf8(shown).unwrap(),
            "a\x1b[31mred\x1b[0mbcdz\u{fffd}"
        );
    }

    #[test]
    fn spans_are_told_as_people_say_them() {
        for (millis, text) in [
            (0, "0 s"),
            (40, "40 ms"),
            (500, "0.5 s"),
            (3_000, "3 s"),
            (61_000, "61 s"),
            (125_000, "2 min 5 s"),
        ] {
            assert_eq!(seconds(Duration::from_millis(millis)), text);
        }
    }
}
