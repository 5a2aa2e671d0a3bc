//! Actors: events come in, the policy decides, effects go out.
//!
//! ```mermaid
//! flowchart TD
//!     threads[threads of os] -- news --> child
//!     child[Child: one run] -- ChildReport --> root
//!     root[Root: owns policy::tree] -- orders --> child
//!     root -- orders --> supervisor[Supervisor: nested] -- orders --> child2[Child]
//!     child2 -- ChildReport --> root
//!     probe[Probe: one question] -- ProbeReport --> child
//!     signal[signal thread] --> signals[Signals] -- Shutdown --> root
//!     root -- deadline --> timer[Timer] --> force[deadline thread]
//! ```
//!
//! Links follow the tree, so the death of an actor takes those below with it, and the processes that they held.

pub(crate) mod child;
pub(crate) mod children;
mod log;
mod oneshot;
pub(crate) mod probe;
pub(crate) mod probes;
pub(crate) mod root;
pub(crate) mod signals;
pub(crate) mod supervisor;
pub(crate) mod task;
pub(crate) mod timer;
