//! Who restarts after an exit.

use serde::{Deserialize, Serialize};

/// Whether a child that ended by itself is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Restart {
    /// In any case (OTP: permanent).
    Always,
    /// Unless it succeeded (OTP: transient).
    OnFailure,
    /// Never (OTP: temporary).
    Never,
}

impl Restart {
    /// Whether an end with this success asks for a restart.
    pub fn wants(self, ended: Ended) -> bool {
        match (self, ended) {
            (Self::Always, _) | (Self::OnFailure, Ended::Failed) => true,
            (Self::OnFailure, Ended::Succeeded) | (Self::Never, _) => false,
        }
    }
}

/// The class of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Ended {
    /// In its success set (OTP: `normal` and `shutdown`).
    Succeeded,
    /// Anything else.
    Failed,
}

/// Which siblings restart together with a child that is restarted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Strategy {
    /// None: only the child itself.
    #[default]
    OneForOne,
    /// All: they stop in reverse order, then all start in order.
    OneForAll,
    /// Those after it: they stop in reverse order, then it and they start in order.
    RestForOne,
}

/// When a supervisor ends because a significant child ended by itself and is not restarted (OTP: `auto_shutdown`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AutoShutdown {
    /// It does not.
    #[default]
    Never,
    /// At the first one.
    AnySignificant,
    /// At the last one.
    AllSignificant,
}
