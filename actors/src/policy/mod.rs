//! Decisions: pure functions over data.
//!
//! Nothing in here can do anything: no clock, no I/O, no threads, no async. Time and random numbers come in as arguments,
//! and what must be done goes out as effects.

pub mod admission;
pub mod backoff;
pub mod escalation;
pub mod event;
pub mod exit;
pub mod intensity;
pub mod order;
pub mod probe;
pub mod restart;
pub mod run;
pub mod setup;
pub mod signal;
pub mod spec;
pub mod telemetry;
pub mod time;
pub mod tree;
