//! The runtime's side of the guardian: it learns of the guardian's death, and then ends everything fast.
//!
//! A plain thread waits for that death and nothing else. Before a runtime is set up there is nothing to end, so the process
//! ends at once. After that: what has escaped falls to this process from then on, the tree is asked to end in order, and
//! what is left half a second later is killed.

#![expect(
    unsafe_code,
    reason = "memory that two processes share, and an end without destructors"
)]

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, getpid, getppid, pidfd_open, set_child_subreaper};

use crate::os::strays::{Quarry, RuntimeId, hunt};
use crate::os::table::lock;
use crate::os::{signals, thread};

/// How long an end in order may take when the guardian has died.
const IN_ORDER: Duration = Duration::from_millis(400);
/// How long the death of what was killed then is waited for.
const PATIENCE: Duration = Duration::from_millis(300);
/// The exit code of a process that nobody awaits.
const ALONE: i32 = 137;

/// What becomes of the children when the runtime dies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDeath {
    /// The guardian kills them.
    #[default]
    Kill,
    /// They are left alone.
    Leave,
}

/// What is to be done since the guardian has died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Ask everything to end, in order; the process is to end by itself within a second, whatever hangs.
    EndInOrder,
    /// Kill what is left.
    KillAll,
}

/// Called by a plain thread: must not block.
type OnLoss = Box<dyn FnMut(Loss) + Send>;

/// What a runtime knows of its guardian. Clones are the same.
#[derive(Clone)]
pub struct Ward {
    shared: Arc<Shared>,
}

struct Shared {
    guardian: Pid,
    pidfd: OwnedFd,
    page: Page,
    on_loss: Mutex<Option<OnLoss>>,
}

impl fmt::Debug for Ward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ward")
            .field("guardian", &self.shared.guardian)
            .finish_non_exhaustive()
    }
}

impl Ward {
    /// In a process that its guardian has just made.
    pub(super) fn new(guardian: Pid, page: Page) -> io::Result<Self> {
        signals::heed_forwarder(guardian);
        let pidfd = pidfd_open(guardian, PidfdFlags::empty());
        // Asked after that was opened: it is the guardian's. One that is gone cannot be opened.
        if getppid() != Some(guardian) {
            exit_at_once();
        }
        let pidfd = pidfd?;
        let shared = Arc::new(Shared {
            guardian,
            pidfd,
            page,
            on_loss: Mutex::default(),
        });
        let theirs = Arc::clone(&shared);
        thread::start("kimi-ward", move || theirs.watch())?;
        Ok(Self { shared })
    }

    /// The process to which orphans of what this runtime starts fall: the guardian.
    pub fn adopter(&self) -> u32 {
        self.shared.guardian.as_raw_pid().cast_unsigned()
    }

    /// Says what the guardian is to do when this process dies.
    pub fn set_on_death(&self, on_death: OnDeath) {
        self.shared.page.set_on_death(on_death);
    }

    /// Says what is to be done when the guardian has died: once [`Loss::EndInOrder`], and later [`Loss::KillAll`]. It
    /// replaces what was said before; without any the process ends at once.
    pub fn on_loss(&self, act: impl FnMut(Loss) + Send + 'static) {
        *lock(&self.shared.on_loss) = Some(Box::new(act));
    }

    /// Everything is down: there is nothing to be done any more when the guardian dies.
    pub(crate) fn release(&self) {
        // What the former one held goes with it.
        self.on_loss(|_| {});
    }

    /// The last thing that a runtime does: if the guardian has died, nobody else would kill what has escaped.
    pub fn end(&self) {
        if self.shared.is_lost(Some(&Timespec::default())) {
            become_reaper();
            kill_escaped();
        }
    }
}

impl Shared {
    fn watch(&self) {
        while !self.is_lost(None) {}
        become_reaper();
        if !self.tell(Loss::EndInOrder) {
            exit_at_once();
        }
        std::thread::park_timeout(IN_ORDER);
        self.tell(Loss::KillAll);
        kill_escaped();
    }

    fn is_lost(&self, limit: Option<&Timespec>) -> bool {
        let mut polled = [PollFd::from_borrowed_fd(self.pidfd.as_fd(), PollFlags::IN)];
        poll(&mut polled, limit).is_ok_and(|ready| ready > 0)
    }

    /// Whether there was somebody to tell.
    fn tell(&self, loss: Loss) -> bool {
        let mut on_loss = lock(&self.on_loss);
        let is_told = on_loss.is_some();
        if let Some(act) = on_loss.as_mut() {
            super::real::contained(|| act(loss));
        }
        is_told
    }
}

/// Orphans are ours from now on.
fn become_reaper() {
    // It cannot fail where the guardian could do it.
    set_child_subreaper(Some(getpid())).ok();
}

/// What had escaped before fell to whoever is above: it is known by its mark only.
fn kill_escaped() {
    let quarry = Quarry {
        runtime: RuntimeId::own(),
        parent: Some(getpid().as_raw_pid()),
        runs: Vec::new(),
    };
    hunt(&quarry, PATIENCE);
}

/// Nothing was started yet.
fn exit_at_once() -> ! {
    // SAFETY: it ends the process; nothing of it is used afterwards.
    unsafe { libc::_exit(ALONE) }
}

/// A page of memory that the guardian and the runtime share. It is touched only by who has something to say.
pub(super) struct Page {
    on_death: NonNull<AtomicU32>,
}

// SAFETY: it is shared memory that is never unmapped, and only used as an atomic number.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Page").field(&self.on_death()).finish()
    }
}

impl Page {
    /// For the life of both processes; never given back.
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: asks for new memory at no particular place.
        let page = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size_of::<AtomicU32>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let on_death = NonNull::new(page.cast()).expect("memory is never mapped at zero");
        Ok(Self { on_death })
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: mapped in `new`, zeroed, aligned to a page, and never unmapped.
        unsafe { self.on_death.as_ref() }
    }

    pub(super) fn on_death(&self) -> OnDeath {
        match self.word().load(Ordering::SeqCst) {
            0 => OnDeath::Kill,
            _ => OnDeath::Leave,
        }
    }

    fn set_on_death(&self, on_death: OnDeath) {
        let word = match on_death {
            OnDeath::Kill => 0,
            OnDeath::Leave => 1,
        };
        self.word().store(word, Ordering::SeqCst);
    }
}
