//! Checks by a command, which ends with 0 or not.

use std::sync::{Arc, Mutex};

use crate::os::check::{CheckFailure, CheckOrder, Tell, quoted};
use crate::os::stdin::Stdin;
use crate::os::table::lock;
use crate::os::{Captured, End, Job, Kept, News, Observer, Os, Output, Process, Rank};
use crate::policy::exit::Exit;
use crate::policy::spec::CommandSpec;

/// What is kept of each stream; half of it is the tail, in which the reason stands.
const KEPT_BYTES: usize = 8 * 1024;

/// Begins the command as a run of its own. Dropping what is returned kills all of it.
pub(in crate::os) fn begin(
    os: &impl Os,
    order: CheckOrder,
    command: Arc<CommandSpec>,
    tell: Tell,
) -> Box<dyn Process> {
    os.begin(Job {
        run: order.errand.run(order.run),
        child: order.child,
        command,
        stdin: Stdin::default(),
        output: Output::Capture {
            cap_bytes: KEPT_BYTES,
            chunks: None,
        },
        observer: Arc::new(Examiner(Mutex::new(Some(tell)))),
        listen: None,
        rank: Rank::default(),
    })
}

/// Makes an answer of what becomes of the command.
struct Examiner(Mutex<Option<Tell>>);

impl Observer for Examiner {
    fn tell(&self, news: News) {
        let answer = match news {
            News::Started { .. } | News::OutputLimit => return,
            News::NotStarted(error) => Err(CheckFailure::NotStarted(error)),
            News::Ended(end) | News::Over { end, .. } => judge(&end),
        };
        let tell = lock(&self.0).take();
        if let Some(tell) = tell {
            tell(answer);
        }
    }
}

fn judge(end: &End) -> Result<(), CheckFailure> {
    match end.exit {
        Exit::Code(0) => Ok(()),
        Exit::Code(_) | Exit::Signal { .. } | Exit::Lost | Exit::NotStarted(_) => {
            Err(CheckFailure::Command {
                exit: end.exit,
                last_line: end.captured.as_ref().map_or_else(String::new, last_line),
            })
        }
    }
}

/// What a command says last, and first of all on stderr, is most often why it failed.
fn last_line(captured: &Captured) -> String {
    let last = |kept: &Kept| {
        let bytes = [kept.head.as_slice(), &kept.tail].concat();
        bytes
            .rsplit(|byte| *byte == b'\n')
            .map(quoted)
            .find(|line| !line.is_empty())
    };
    last(&captured.stderr)
        .or_else(|| last(&captured.stdout))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::Drained;

    #[test]
    fn the_reason_is_the_last_line_on_stderr_or_else_on_stdout() {
        let kept = |text: &str| Kept {
            head: text.into(),
            tail: Vec::new(),
            bytes_total: 0,
        };
        let long = format!("{}\n", "x".repeat(300));
        for (stdout, stderr, expected) in [
            ("", "", ""),
            ("out\n", "", "out"),
            ("out\n", "one\ntwo\n\n  \n", "two"),
            ("a\nb", "", "b"),
            ("", "\u{1b}[31mred\u{7}\r\n", "[31mred"),
            ("", &long, &"x".repeat(200)),
        ] {
            let captured = Captured {
                last_output: None,
                stdout: kept(stdout),
                stderr: kept(stderr),
                drained: Drained::Eof,
            };
            assert_eq!(last_line(&captured), expected);
        }
    }
}
