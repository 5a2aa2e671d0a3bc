//! An embeddable supervision runtime.

mod child;
pub mod exec;
pub mod exit;
pub mod os;
pub mod policy;
pub mod runtime;
#[cfg(feature = "testing")]
pub mod testing;
mod tree;
mod work;

pub use child::{Child, Supervisor};
pub use exec::{Exec, ExecError, ExecOutcome};
pub use runtime::{
    ForceExitPolicy, OperationError, Runtime, RuntimeBuilder, RuntimeHandle, ShutdownReport,
    ShutdownTimeout, SignalOptions, StartError,
};
pub use tree::signals::Receipt;
pub use tree::task::{TaskContext, TaskError};
