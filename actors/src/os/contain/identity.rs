//! Who a process is, by what `/proc` says of it, and by the mark that each run has in its environment.

use std::fs;

use crate::os::kin::Kin;
use crate::policy::spec::RunId;

/// Of a mark that we were given ourselves no more than this is passed on: nests this deep do not happen.
const OUTER_BYTES: usize = 512;

/// When a process began; none: this one.
pub(super) fn began(pid: Option<i32>) -> Option<u64> {
    let pid = pid.unwrap_or_else(|| std::process::id().cast_signed());
    Kin::of(pid).map(|kin| kin.start)
}

/// Whether this very process is there still, and not another one with its id.
pub(super) fn lives(pid: i32, began: u64) -> bool {
    Kin::of(pid).is_some_and(|kin| kin.start == began && !kin.is_dead())
}

/// What it executes, as the kernel calls it: never an argument, which may be a secret.
pub(super) fn command(pid: i32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    String::from_utf8_lossy(&name).trim_end().to_owned()
}

/// The variable in the environment of each process that says whose run it belongs to.
pub(super) const VARIABLE: &str = "KIMI_RUN";

/// What marks the runs of one runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Of the run that we are part of ourselves; empty if of none.
    outer: String,
    /// The runtime: its process, when that began, which life of the machine that was, and which of its runtimes.
    runtime: String,
}

impl Mark {
    pub(super) fn new(count: u32) -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot = boot.get(..8).unwrap_or_default();
        let outer = std::env::var(VARIABLE).unwrap_or_default();
        Self::made_of(
            &outer,
            std::process::id(),
            began(None).unwrap_or(0),
            boot,
            count,
        )
    }

    fn made_of(outer: &str, pid: u32, began: u64, boot: &str, count: u32) -> Self {
        let is_short = !outer.is_empty() && outer.len() <= OUTER_BYTES;
        Self {
            outer: if is_short {
                format!("{outer}/")
            } else {
                String::new()
            },
            runtime: format!("{pid}-{began}-{boot}-{count}"),
        }
    }

    /// What stands in the environment of this run.
    pub(super) fn value(&self, run: RunId) -> String {
        format!("{}{}.{}", self.outer, self.runtime, run.0)
    }

    /// The run of ours that has this in its environment; also by way of a runtime that it has started itself.
    pub(super) fn find(&self, environment: &[u8]) -> Option<RunId> {
        value_in(environment)?.split('/').find_map(|one| {
            let run = one.strip_prefix(&self.runtime)?.strip_prefix('.')?;
            run.parse().ok().map(RunId)
        })
    }

    /// The run of ours that this process belongs to, by what it was started with. It may have overwritten that.
    pub(super) fn of(&self, pid: i32) -> Option<RunId> {
        self.find(&fs::read(format!("/proc/{pid}/environ")).ok()?)
    }
}

/// What marks the runs of all runtimes that this process was, whatever life of the machine that is; it begins so.
fn beginning(pid: i32, began: u64) -> String {
    format!("{pid}-{began}-")
}

/// Whether a process was started by a run of a runtime in this process, or by one that a run of it has started.
pub(in crate::os) fn is_of(pid: i32, (runtime, began): (i32, u64)) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let beginning = beginning(runtime, began);
    value_in(&environment)
        .is_some_and(|value| value.split('/').any(|one| one.starts_with(&beginning)))
}

fn value_in(environment: &[u8]) -> Option<&str> {
    environment.split(|byte| *byte == 0).find_map(|variable| {
        let value = variable.strip_prefix(VARIABLE.as_bytes())?;
        std::str::from_utf8(value.strip_prefix(b"=")?).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_however_deep_it_is_nested() {
        let outer = Mark::made_of("", 1, 2, "b", 0);
        let inner = Mark::made_of(&outer.value(RunId(5)), 3, 4, "b", 0);
        let environment = format!("A=1\0KIMI_RUN={}\0KIMI_RUN_ID=9\0", inner.value(RunId(6)));
        assert_eq!(outer.find(environment.as_bytes()), Some(RunId(5)));
        assert_eq!(inner.find(environment.as_bytes()), Some(RunId(6)));
        let stranger = Mark::made_of("", 1, 2, "b", 1);
        assert_eq!(stranger.find(environment.as_bytes()), None);
        for other in [
            "",
            "KIMI_RUN=",
            "KIMI_RUN=1-2-b-0.",
            "XKIMI_RUN=1-2-b-0.5\0",
        ] {
            assert_eq!(outer.find(other.as_bytes()), None, "{other}");
        }
        let absurd = Mark::made_of(&"x".repeat(5000), 1, 2, "b", 0);
        assert_eq!(absurd.value(RunId(7)), "1-2-b-0.7");
    }
}
