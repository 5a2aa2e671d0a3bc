//! The probes of a run as the actor of the run holds them, and what the root remembers of them.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use ractor::{Actor, ActorCell, ActorId, ActorRef, DerivedActorRef};
use tracing::{debug, error};

use crate::os::Os;
use crate::os::check::{CheckOrder, Errand, Question, Way};
use crate::os::sign::{Listen, Listener, Notice};
use crate::policy::probe::{AfterReady, Event, ProbeRules, ProbeStatus, Probing, Purpose, Verdict};
use crate::policy::spec::{ChildName, CommandSpec, NodeId, RunId};
use crate::policy::tree;
use crate::tree::probe::{Probe, ProbeMsg, ProbeNews, ProbeOrder, ProbeReport};
use crate::work;

/// What runs of a child are probed with.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProbePlan {
    pub(crate) readiness: Option<(Way, ProbeRules, AfterReady)>,
    pub(crate) liveness: Option<(Question, ProbeRules)>,
}

impl ProbePlan {
    /// Whether only a process can do what is waited for.
    pub(crate) fn needs_a_process(&self) -> bool {
        matches!(self.readiness, Some((Way::Hear(_), ..)))
    }
}

/// What was found out about a run.
pub(crate) enum Finding {
    Checked {
        errand: Errand,
        failure: Option<String>,
    },
    Judged(Verdict),
    Noticed(Notice),
}

/// Notices wait in the [`Inbox`].
pub(crate) struct Rung;

/// Hears what a run says of itself. However much that is, one message at most is under way, and a notice of each kind.
struct Inbox {
    notices: Mutex<Vec<Notice>>,
    bell: DerivedActorRef<Rung>,
}

impl Listener for Inbox {
    fn hear(&self, notice: Notice) {
        let mut notices = self.lock();
        let is_first = notices.is_empty();
        let kind = mem::discriminant(&notice);
        match notices
            .iter_mut()
            .find(|waiting| mem::discriminant(*waiting) == kind)
        {
            Some(waiting) => *waiting = notice,
            None => notices.push(notice),
        }
        drop(notices);
        if is_first && let Err(error) = self.bell.cast(Rung) {
            debug!(%error, "the actor of a run was gone before a notice");
        }
    }
}

impl Inbox {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Notice>> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The probes of one run.
pub(crate) struct Probes {
    plan: Arc<ProbePlan>,
    child: ChildName,
    run: RunId,
    /// In whose directory and environment commands check.
    host: Option<Arc<CommandSpec>>,
    os: Arc<dyn Os>,
    inbox: Option<Arc<Inbox>>,
    reports: DerivedActorRef<ProbeReport>,
    live: HashMap<Errand, (u64, ActorRef<ProbeMsg>)>,
    /// Released, and not ended yet.
    leaving: HashSet<ActorId>,
    lives: u64,
    is_ready: bool,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The run has not started.
    Waiting,
    Probing,
    /// The run is stopped or over.
    Over,
}

impl Probes {
    /// The probes of a run that is about to begin.
    pub(crate) fn new(
        plan: Arc<ProbePlan>,
        (child, run): (ChildName, RunId),
        host: Option<Arc<CommandSpec>>,
        os: Arc<dyn Os>,
        (reports, bell): (DerivedActorRef<ProbeReport>, DerivedActorRef<Rung>),
    ) -> Self {
        let hears = matches!(plan.readiness, Some((Way::Hear(_), ..)));
        let notices = Mutex::default();
        Self {
            inbox: hears.then(|| Arc::new(Inbox { notices, bell })),
            plan,
            child,
            run,
            host,
            os,
            reports,
            live: HashMap::new(),
            leaving: HashSet::new(),
            lives: 0,
            is_ready: false,
            phase: Phase::Waiting,
        }
    }

    /// What is to be listened for.
    pub(crate) fn listen(&self) -> Option<Listen> {
        match (&self.plan.readiness, &self.inbox) {
            (Some((Way::Hear(sign), ..)), Some(inbox)) => Some(Listen {
                sign: sign.clone(),
                listener: Arc::<Inbox>::clone(inbox),
            }),
            _ => None,
        }
    }

    /// The run has started.
    pub(crate) async fn begin(&mut self, supervisor: ActorCell) {
        if self.phase == Phase::Waiting {
            self.phase = Phase::Probing;
            match self.plan.readiness {
                Some((Way::Ask(_), ..)) => {
                    self.start(Errand::Readiness, Event::Begun, supervisor)
                        .await;
                }
                Some((Way::Hear(_), ..)) => {}
                None => self.start(Errand::Liveness, Event::Begun, supervisor).await,
            }
        }
    }

    /// What the run has said of itself. Before its start is told, it waits.
    pub(crate) async fn heard(&mut self, supervisor: ActorCell) -> Vec<Finding> {
        let Some(inbox) = self.inbox.as_ref().filter(|_| self.phase != Phase::Waiting) else {
            return Vec::new();
        };
        let notices = mem::take(&mut *inbox.lock());
        let mut findings = Vec::new();
        for notice in notices {
            match notice {
                Notice::Ready if self.is_ready || self.phase == Phase::Over => {}
                Notice::Ready => {
                    findings.push(Finding::Judged(Verdict::Ready));
                    self.ready(supervisor.clone()).await;
                }
                Notice::Status(_) | Notice::Extend(_) | Notice::Stopping => {
                    findings.push(Finding::Noticed(notice));
                }
            }
        }
        findings
    }

    /// What a probe reports; nothing if it is not one of now.
    pub(crate) async fn reported(
        &mut self,
        report: ProbeReport,
        supervisor: ActorCell,
    ) -> Option<Finding> {
        let errand = report.errand;
        if self.live.get(&errand).map(|(life, _)| *life) != Some(report.life) {
            return None;
        }
        match report.news {
            ProbeNews::Checked { failure } => Some(Finding::Checked { errand, failure }),
            ProbeNews::Judged(verdict) => {
                match verdict {
                    Verdict::Ready => self.ready(supervisor).await,
                    Verdict::Unready => self.is_ready = false,
                    Verdict::Unhealthy => {}
                }
                Some(Finding::Judged(verdict))
            }
            ProbeNews::Finished => {
                self.release(errand);
                None
            }
        }
    }

    async fn ready(&mut self, supervisor: ActorCell) {
        self.is_ready = true;
        if !self.live.contains_key(&Errand::Liveness) {
            self.start(Errand::Liveness, Event::Begun, supervisor).await;
        }
    }

    /// An actor has ended. If it was a probe's that is still needed, another takes its place.
    pub(crate) async fn ended(&mut self, actor: ActorId, supervisor: ActorCell) {
        self.leaving.remove(&actor);
        let mut live = self.live.iter();
        let Some((errand, _)) = live.find(|(_, (_, live))| live.get_id() == actor) else {
            return;
        };
        let errand = *errand;
        error!(child = %self.child, run = self.run.0, ?errand, "the actor of a probe is gone: another takes its place");
        self.live.remove(&errand);
        self.start(errand, Event::Resumed, supervisor).await;
    }

    async fn start(&mut self, errand: Errand, beginning: Event, supervisor: ActorCell) {
        let Some((question, machine)) = self.asks(errand) else {
            return;
        };
        self.lives += 1;
        let order = ProbeOrder {
            life: self.lives,
            machine,
            beginning,
            check: CheckOrder {
                run: self.run,
                child: self.child.clone(),
                errand,
                question,
            },
            os: Arc::clone(&self.os),
            report_to: self.reports.clone(),
        };
        // Anonymous: the registry of names is one for the whole process.
        match Actor::spawn_linked(None, Probe, order, supervisor).await {
            Ok((actor, _)) => {
                self.live.insert(errand, (self.lives, actor));
            }
            Err(error) => {
                error!(%error, child = %self.child, "the actor of a probe could not start");
            }
        }
    }

    fn asks(&self, errand: Errand) -> Option<(Question, Probing)> {
        if self.phase != Phase::Probing {
            return None;
        }
        let (question, machine) = match errand {
            Errand::Readiness => {
                let (way, rules, after_ready) = self.plan.readiness.as_ref()?;
                let Way::Ask(question) = way else {
                    return None;
                };
                let machine = Probing::new(Purpose::Readiness(*after_ready), *rules);
                let machine = if self.is_ready {
                    machine.of_a_ready_run()
                } else {
                    machine
                };
                (question, machine)
            }
            Errand::Liveness => {
                let (question, rules) = self.plan.liveness.as_ref()?;
                (question, Probing::new(Purpose::Liveness, *rules))
            }
            Errand::Stop => return None,
        };
        Some((self.for_this_run(question), machine))
    }

    /// A command checks in the directory and environment of the run, unless it has its own.
    fn for_this_run(&self, question: &Question) -> Question {
        match (question, &self.host) {
            (Question::Exec(command), Some(host)) => {
                let command = work::within(command, host);
                let command = work::introduced(&command, &self.child, self.run);
                Question::Exec(Arc::new(command))
            }
            (Question::Exec(command), None) => {
                let command = work::introduced(command, &self.child, self.run);
                Question::Exec(Arc::new(command))
            }
            (Question::Tcp(_) | Question::Http { .. }, _) => question.clone(),
        }
    }

    /// The run is stopped, or over: nothing is probed any more, and a command that checks is killed.
    pub(crate) fn end(&mut self) {
        self.phase = Phase::Over;
        let errands: Vec<Errand> = self.live.keys().copied().collect();
        for errand in errands {
            self.release(errand);
        }
    }

    #[cfg(feature = "testing")]
    pub(crate) fn panic(&self) {
        for (_, actor) in self.live.values() {
            drop(actor.cast(ProbeMsg::Panic));
        }
    }

    fn release(&mut self, errand: Errand) {
        if let Some((_, actor)) = self.live.remove(&errand) {
            self.leaving.insert(actor.get_id());
            actor.stop(None);
        }
    }

    /// Whether no actor is left that may hold or begin a check.
    pub(crate) fn is_gone(&self) -> bool {
        self.live.is_empty() && self.leaving.is_empty()
    }

    /// The errands of which something may be left for a moment.
    pub(crate) fn commands(&self) -> Vec<Errand> {
        let is_command = |question: &Question| matches!(question, Question::Exec(_));
        let readiness = match &self.plan.readiness {
            Some((Way::Ask(question), ..)) if is_command(question) => Some(Errand::Readiness),
            Some(_) | None => None,
        };
        let liveness = self.plan.liveness.as_ref();
        let liveness = liveness.filter(|(question, _)| is_command(question));
        readiness
            .into_iter()
            .chain(liveness.map(|_| Errand::Liveness))
            .collect()
    }
}

/// What the root remembers of the probes of each child.
#[derive(Default)]
pub(crate) struct Diagnoses(HashMap<NodeId, ProbeStatus>);

impl Diagnoses {
    pub(crate) fn of(&self, child: NodeId) -> ProbeStatus {
        self.0.get(&child).cloned().unwrap_or_default()
    }

    /// Remembers what was found; what it means for the tree, if anything.
    pub(crate) fn note(
        &mut self,
        child: NodeId,
        run: RunId,
        finding: Finding,
    ) -> Option<tree::Event> {
        let status = self.0.entry(child).or_default();
        if status.run != Some(run) {
            // Why the run before failed its checks is still of interest; what it said of itself is not.
            (status.run, status.text, status.is_stopping) = (Some(run), None, false);
        }
        match finding {
            Finding::Checked { errand, failure } => {
                match errand {
                    Errand::Readiness => status.readiness_failure = failure,
                    Errand::Liveness => status.liveness_failure = failure,
                    Errand::Stop => {}
                }
                None
            }
            Finding::Judged(Verdict::Ready) => Some(tree::Event::Ready { child, run }),
            Finding::Judged(Verdict::Unready) => Some(tree::Event::Unready { child, run }),
            Finding::Judged(Verdict::Unhealthy) => Some(tree::Event::Unhealthy { child, run }),
            Finding::Noticed(Notice::Status(text)) => {
                status.text = Some(text);
                None
            }
            Finding::Noticed(Notice::Stopping) => {
                status.is_stopping = true;
                None
            }
            Finding::Noticed(Notice::Extend(by)) => {
                status.extended_by = Some(by);
                Some(tree::Event::StartExtended { child, run, by })
            }
            Finding::Noticed(Notice::Ready) => None,
        }
    }
}
