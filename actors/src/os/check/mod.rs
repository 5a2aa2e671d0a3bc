//! Checks: one question about a run, one answer.
//!
//! Questions over the network are asked by one thread (`net.rs`), which exists while there are any; commands are runs like
//! any other, with an id of their own. Nothing in here keeps the time: who asks gives up by dropping what it was handed.

mod command;
mod head;
mod lookup;
mod net;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::os::SpawnError;
use crate::os::sign::{Pattern, PatternError, Sign};
use crate::policy::exit::Exit;
use crate::policy::probe::Check;
use crate::policy::spec::{ChildName, CommandSpec, RunId};

pub(super) use command::begin;
pub(super) use net::Net;

/// Longer texts of others are cut in a reason.
const QUOTE_MAX: usize = 200;
/// A longer path would not fit into what servers take as one line.
const PATH_MAX: usize = 4096;
/// The kernel gives no process more descriptors by default, and a later limit may be lower still.
const FD_MAX: u32 = 1023;

/// Takes the answer of a check.
pub type Tell = Box<dyn FnOnce(Result<(), CheckFailure>) + Send>;

/// A check to make.
#[derive(Clone, Debug)]
pub struct CheckOrder {
    /// The run that it is about.
    pub run: RunId,
    /// Whose run that is.
    pub child: ChildName,
    /// What for.
    pub errand: Errand,
    /// What is asked.
    pub question: Question,
}

/// What a process that is not a run of a child, but belongs to one, was started for. At most one of each is there at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Errand {
    /// To find out whether the run is ready.
    Readiness,
    /// To find out whether the run lives.
    Liveness,
    /// To stop the run.
    Stop,
}

impl Errand {
    /// The id under which its process stands in the table of processes.
    ///
    /// Ids of runs begin with the milliseconds of the first start, 20 bits up; those reach the two highest bits in the year
    /// 2109. So an id with one of them set is no run's, and another for each errand.
    pub fn run(self, of: RunId) -> RunId {
        let mark = match self {
            Self::Readiness => 1,
            Self::Liveness => 2,
            Self::Stop => 3,
        };
        RunId(of.0 | mark << 62)
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether a connection is accepted.
    Tcp(Target),
    /// Whether a GET is answered with a status from 200 to 299.
    Http {
        /// Where.
        target: Target,
        /// The path with its query.
        path: String,
    },
    /// Whether a command ends with 0.
    Exec(Arc<CommandSpec>),
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// How a check is made: by asking, or by hearing what the run says of itself.
#[derive(Clone, Debug)]
pub enum Way {
    /// Asked over and over.
    Ask(Question),
    /// Heard once.
    Hear(Sign),
}

/// Why a check cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The host is empty or contains what no name has.
    #[error("`{host}` is neither a host name nor an address")]
    Host {
        /// The host.
        host: String,
    },
    /// The port is 0.
    #[error("port 0 is none that a server listens on")]
    Port,
    /// The path would not pass as a path in a request.
    #[error(
        "`{path}` is not a path; expected one that begins with `/`, with everything but visible ASCII percent-encoded"
    )]
    Path {
        /// The path.
        path: String,
    },
    /// The descriptor is one that every program has for something else, or more than a process may have.
    #[error("{fd} cannot be a notification descriptor; expected 3 to {FD_MAX}")]
    Descriptor {
        /// Its number.
        fd: u32,
    },
    /// The expression is none.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

impl Way {
    /// How this check is made.
    pub fn of(check: &Check) -> Result<Self, CheckError> {
        match check {
            Check::Tcp { host, port } => {
                let target = Target::new(host, *port)?;
                Ok(Self::Ask(Question::Tcp(target)))
            }
            Check::Http { host, port, path } => {
                let target = Target::new(host, *port)?;
                if !is_path(path) {
                    return Err(CheckError::Path { path: path.clone() });
                }
                let path = path.clone();
                Ok(Self::Ask(Question::Http { target, path }))
            }
            Check::Exec(command) => Ok(Self::Ask(Question::Exec(Arc::new(command.clone())))),
            Check::Log { pattern } => Ok(Self::Hear(Sign::Line(Pattern::new(pattern)?))),
            Check::NotifyFd { fd } if !(3..=FD_MAX).contains(fd) => {
                Err(CheckError::Descriptor { fd: *fd })
            }
            Check::NotifyFd { fd } => Ok(Self::Hear(Sign::NotifyFd(*fd))),
            Check::SdNotify => Ok(Self::Hear(Sign::SdNotify)),
        }
    }
}

impl Target {
    fn new(host: &str, port: u16) -> Result<Self, CheckError> {
        let is_host = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_host || host.contains(['/', '[', ']', '@']) {
            let host = host.to_owned();
            return Err(CheckError::Host { host });
        }
        if port == 0 {
            return Err(CheckError::Port);
        }
        let host = host.to_owned();
        Ok(Self { host, port })
    }
}

/// What would end the line of the request, or smuggle another header in, is none.
fn is_path(path: &str) -> bool {
    path.starts_with('/')
        && path.len() <= PATH_MAX
        && path.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
pub enum CheckFailure {
    /// Nobody listens there.
    #[error("connection refused at {at}")]
    Refused {
        /// Where.
        at: SocketAddr,
    },
    /// No connection came about.
    #[error("cannot connect to {at}")]
    Unreachable {
        /// Where.
        at: SocketAddr,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// The name leads to no address.
    #[error("cannot find the address of `{host}`")]
    NoAddress {
        /// The name.
        host: String,
        /// What the resolver says; nothing if it knows the name, and no address of it.
        #[source]
        source: Option<io::Error>,
    },
    /// The connection ended before there was an answer.
    #[error("the connection to {at} ended before an answer came")]
    Closed {
        /// With whom.
        at: SocketAddr,
    },
    /// The answer is not HTTP.
    #[error("the answer is not HTTP")]
    NotHttp,
    /// The answer's head does not end.
    #[error("the head of the answer is longer than {max_bytes} bytes")]
    HeadTooLong {
        /// What is read at most.
        max_bytes: usize,
    },
    /// The answer's status is none of success.
    #[error("status {status}")]
    Status {
        /// The status.
        status: u16,
    },
    /// The answer leads elsewhere.
    #[error("{status} to {to}, redirects are not followed")]
    Redirect {
        /// The status.
        status: u16,
        /// Where to.
        to: String,
    },
    /// The command did not succeed.
    #[error("{}", ended(*exit, last_line))]
    Command {
        /// How it ended.
        exit: Exit,
        /// The last line that it wrote; empty if it wrote none.
        last_line: String,
    },
    /// The command could not be started.
    #[error("the command did not start")]
    NotStarted(#[source] SpawnError),
    /// A system call failed.
    #[error("cannot {step}")]
    System {
        /// What was tried, as a verb and an object.
        step: &'static str,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// Nothing can be asked here.
    #[error("this operating system answers no checks")]
    Unsupported,
}

fn ended(exit: Exit, last_line: &str) -> String {
    let how = match exit {
        Exit::Code(code) => format!("exit code {code}"),
        Exit::Signal { .. } | Exit::Lost | Exit::NotStarted(_) => exit.to_string(),
    };
    if last_line.is_empty() {
        how
    } else {
        format!("{how}: {last_line}")
    }
}

/// A text of others as it may stand in a line that people read: no control characters, and not endless.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.replace(char::is_control, " ");
    text.trim().chars().take(QUOTE_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errand_has_an_id_that_no_run_and_no_other_errand_has() {
        // The last millisecond before the ids of runs reach the two highest bits, in the year 2109.
        let latest = RunId((1 << 62) - 1);
        let errands = [Errand::Readiness, Errand::Liveness, Errand::Stop];
        let ids = errands.map(|errand| errand.run(latest));
        assert!(ids.iter().all(|id| id.0 > latest.0));
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
        assert!(
            errands
                .iter()
                .all(|errand| errand.run(RunId(7)).0 & 0xff == 7)
        );
    }

    #[test]
    fn what_cannot_be_asked_is_refused_before_anything_starts() {
        let http = |host: &str, path: &str| Check::Http {
            host: host.to_owned(),
            port: 80,
            path: path.to_owned(),
        };
        let tcp = |host: &str, port| Check::Tcp {
            host: host.to_owned(),
            port,
        };
        let log = |pattern: &str| Check::Log {
            pattern: pattern.to_owned(),
        };
        for good in [
            http("localhost", "/"),
            http("::1", "/health?deep=1&x=%20"),
            tcp("db.example", 5432),
            log("^ready in \\d+ ms$"),
            Check::NotifyFd { fd: 3 },
            Check::SdNotify,
        ] {
            assert!(Way::of(&good).is_ok(), "{good:?}");
        }
        for bad in [
            http("localhost", "health"),
            http("localhost", "/a b"),
            http("localhost", "/\r\nX: y"),
            http("localhost", &"/".repeat(PATH_MAX + 1)),
            http("a\r\nX: y", "/"),
            http("[::1]", "/"),
            tcp("", 80),
            tcp("localhost", 0),
            log("("),
            log("x{1000}{1000}"),
            Check::NotifyFd { fd: 2 },
            Check::NotifyFd { fd: 1024 },
        ] {
            assert!(Way::of(&bad).is_err(), "{bad:?}");
        }
    }
}
