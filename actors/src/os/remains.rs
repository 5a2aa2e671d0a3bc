//! The control group of a runtime that died: found by its name, emptied and removed by the guardian.

use std::fs;
use std::path::{Path, PathBuf};

use crate::os::strays::RuntimeId;

/// Kills all that is in the control group of this runtime, in one go, if it has one.
pub(super) fn kill_group_of(id: Option<RuntimeId>) {
    if let Some(directory) = id.and_then(directory_of) {
        // Linux 5.14 and later; without it the processes are killed one by one, as everywhere else.
        fs::write(directory.join("cgroup.kill"), "1").ok();
    }
}

/// Removes it, the innermost directories first. Only empty ones can be removed.
pub(super) fn remove_group_of(id: RuntimeId) {
    if let Some(directory) = directory_of(id) {
        remove(&directory);
    }
}

fn remove(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    fs::remove_dir(directory).ok();
}

fn directory_of(id: RuntimeId) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let directory =
        own_group(&mounts, &groups)?.join(format!("kimi-shell.{}.{}", id.pid, id.start));
    directory.is_dir().then_some(directory)
}

/// Where the second hierarchy shows the group of a process, by its `mountinfo` and `cgroup` files (`proc(5)`).
fn own_group(mounts: &str, groups: &str) -> Option<PathBuf> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (mount, system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (mount.next()?, mount.next()?);
        if system.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let below = Path::new(group).strip_prefix(root).ok()?;
        let is_inside = below.components().all(|part| part.as_os_str() != "..");
        is_inside.then(|| Path::new(point).join(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_a_process_is_found_where_it_is_mounted() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        let bound = "41 31 0:38 /user.slice /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        for (mounts, groups, expected) in [
            (
                hybrid,
                "9:name=systemd:/\n0::/\n",
                Some("/sys/fs/cgroup/unified/"),
            ),
            (hybrid, "0::/a/b\n", Some("/sys/fs/cgroup/unified/a/b")),
            (hybrid, "9:name=systemd:/\n", None),
            (hybrid, "0::/../b\n", None),
            (bound, "0::/user.slice/1\n", Some("/sys/fs/cgroup/1")),
            (bound, "0::/system.slice\n", None),
            ("", "0::/\n", None),
        ] {
            assert_eq!(
                own_group(mounts, groups).as_deref(),
                expected.map(Path::new),
                "{groups}"
            );
        }
    }
}
