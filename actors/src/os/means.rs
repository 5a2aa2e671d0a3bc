//! What can be done here and now for a process that is to start.

use std::fs;

use rustix::process::{Resource, getpriority_process, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use crate::os::kernel;
use crate::policy::setup::{Controllers, HardLimits, Means};

/// What this process can do for those that it starts, whose control groups have these controllers.
pub fn means(controllers: Controllers) -> Means {
    let able = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let (uid, gid) = kernel::ids();
    let hard = |resource| getrlimit(resource).maximum;
    let identity = CapabilitySet::SETUID | CapabilitySet::SETGID;
    Means {
        controllers,
        uid,
        gid,
        // Of one that is not root these are gone with the execution of the shim.
        becomes_anybody: uid == Some(0) && able.contains(identity),
        raises_limits: able.contains(CapabilitySet::SYS_RESOURCE),
        least_nice: least_nice(able.contains(CapabilitySet::SYS_NICE)),
        oom_score_adj: own_oom_score_adj(),
        hard: HardLimits {
            nofile: hard(Resource::Nofile),
            core: hard(Resource::Core),
            memory: hard(Resource::As),
            pids: hard(Resource::Nproc),
        },
    }
}

/// Its own, or what its limit allows (`RLIMIT_NICE` in setrlimit(2)).
fn least_nice(is_able: bool) -> i8 {
    if is_able {
        return -20;
    }
    let narrow = |nice: i64| i8::try_from(nice.clamp(-20, 19)).unwrap_or(19);
    let own = getpriority_process(None).map_or(0, i64::from);
    let limit = getrlimit(Resource::Nice).current;
    let limit = limit.map_or(40, |limit| i64::try_from(limit).unwrap_or(40).min(40));
    narrow(own.min(20 - limit))
}

/// Our own `oom_score_adj`; where there is none, the one that changes nothing.
pub(super) fn own_oom_score_adj() -> i16 {
    let text = fs::read_to_string("/proc/self/oom_score_adj");
    text.map_or(0, |text| text.trim().parse().unwrap_or(0))
}
