//! Whether a run waits for input: a hint for people, best effort.

use std::collections::VecDeque;
use std::fs;

/// More processes of a run are not looked at.
const MOST: usize = 64;

/// Whether a process below this one sleeps in a read of the stdin that its leader has.
///
/// Looks only at those asleep: of one that executes a program at this moment the kernel tells nothing before it has.
pub(super) fn reads_stdin(leader: i32) -> bool {
    let Ok(stdin) = fs::read_link(format!("/proc/{leader}/fd/0")) else {
        return false;
    };
    let mut left = VecDeque::from([leader]);
    let mut seen = 0;
    while let Some(pid) = left.pop_front() {
        let has_it = || fs::read_link(format!("/proc/{pid}/fd/0")).is_ok_and(|fd| fd == stdin);
        if is_asleep(pid) && is_in_read_of_stdin(pid) && has_it() {
            return true;
        }
        seen += 1;
        if seen == MOST {
            return false;
        }
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        left.extend(
            children
                .split_ascii_whitespace()
                .flat_map(str::parse::<i32>),
        );
    }
    false
}

fn is_asleep(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with('S'))
}

/// The file has the number of the system call and its arguments, the descriptor first.
fn is_in_read_of_stdin(pid: i32) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let mut words = call.split_ascii_whitespace();
    let number = words.next().and_then(|number| number.parse().ok());
    number == Some(libc::SYS_read) && words.next() == Some("0x0")
}
