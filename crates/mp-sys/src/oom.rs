//! Whether the kernel may have ended a process for lack of memory.
//!
//! Owns: one number, read before the process starts. The kernel tells nobody which process it chose, but it counts how many:
//!
//! | read | counts | missing |
//! |---|---|---|
//! | `memory.events` of this process's control group (version 2) | that group and those below it, whoever ran out | in the root group, with version 1 |
//! | `/proc/vmstat` | the whole machine, other containers included | without `/proc`, before Linux 4.13 |
//!
//! So what is said is a hint, and about processes alone that SIGKILL ended: the counter rose while this one ran, so it may have been the
//! one. `Some(false)` is sure, unless the process was moved out of the control group, or something else than the kernel
//! watches memory and kills (systemd-oomd, say).

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// The counter at the start of a child.
#[derive(Clone, Debug)]
pub struct OomWatch {
    file: PathBuf,
    /// `None`: there is no counter.
    before: Option<u64>,
}

impl OomWatch {
    /// Reads the counter of the control group that this process, and so a child that it starts, is in; else the machine's. It takes 10
    /// to 20 microseconds, and keeps nothing open.
    #[must_use]
    pub fn begin() -> Self {
        // Whoever has no group with a counter need not look for it again: should it be moved into one, the machine's still serves.
        static WITHOUT_GROUP: AtomicBool = AtomicBool::new(false);
        let root = Path::new("/");
        if WITHOUT_GROUP.load(Ordering::Relaxed) {
            return Self::of_machine(root);
        }
        Self::of_group(root).unwrap_or_else(|| {
            WITHOUT_GROUP.store(true, Ordering::Relaxed);
            Self::of_machine(root)
        })
    }

    /// [`begin`](Self::begin), with `/proc` and `/sys` looked for in `root`.
    #[must_use]
    pub fn begin_in(root: &Path) -> Self {
        Self::of_group(root).unwrap_or_else(|| Self::of_machine(root))
    }

    fn of_group(root: &Path) -> Option<Self> {
        let file = own_events(root)?;
        let before = kills(&file)?;
        Some(Self { file, before: Some(before) })
    }

    fn of_machine(root: &Path) -> Self {
        let file = root.join("proc/vmstat");
        let before = kills(&file);
        Self { file, before }
    }

    /// Whether the kernel has ended processes for lack of memory since: `Some(true)`, a SIGKILL of that time may have been one.
    /// `None`: it cannot be told.
    #[must_use]
    pub fn killed_since(&self) -> Option<bool> {
        let before = self.before?;
        Some(kills(&self.file)? > before)
    }
}

/// `memory.events` of this process's control group.
fn own_events(root: &Path) -> Option<PathBuf> {
    let text = std::fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let group = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // Outside of what this process's namespace of control groups shows.
    if group.split('/').any(|part| part == "..") {
        return None;
    }
    Some(root.join("sys/fs/cgroup").join(group).join("memory.events"))
}

/// The counter in such a file; `None` if it cannot be read or has none.
fn kills(file: &Path) -> Option<u64> {
    let mut file = File::open(file).ok()?;
    let mut text = Vec::new();
    loop {
        let before = text.len();
        text.resize(before + 4096, 0);
        let count = file.read(&mut text[before..]).ok()?;
        text.truncate(before + count);
        // The kernel counts everything in `vmstat` anew for each read, so nothing is read past the line that is looked for.
        let whole_lines = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        if let Some(kills) = parse(&text[..whole_lines]) {
            return Some(kills);
        }
        if count == 0 {
            return None;
        }
    }
}

fn parse(text: &[u8]) -> Option<u64> {
    let line = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"oom_kill "))?;
    std::str::from_utf8(line).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A directory with such files, removed at its end.
    struct Fake(PathBuf);

    impl Fake {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("multiproc-oom-{}-{name}", std::process::id()));
            fs::create_dir_all(root.join("proc/self")).unwrap();
            Self(root)
        }

        fn write(&self, file: &str, text: &str) {
            let file = self.0.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const EVENTS: &str = "low 0\nhigh 7\nmax 31\noom 5\noom_kill 2\noom_group_kill 9\n";

    #[test]
    fn the_counter_is_found_among_its_like() {
        assert_eq!(parse(EVENTS.as_bytes()), Some(2));
        assert_eq!(parse(b"nr_free_pages 1\noom_kill 18446744073709551615\nthp 1"), Some(u64::MAX));
        assert_eq!(parse(b"oom 5\noom_group_kill 9\nxoom_kill 3\n"), None);
        assert_eq!(parse(b"oom_kill much\n"), None);
        assert_eq!(parse(b"oom_kill \xff\n"), None);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn the_own_group_decides_whatever_the_machine_counts() {
        let fake = Fake::new("group");
        fake.write("proc/self/cgroup", "4:memory:/other\n0::/user/job 1\n");
        fake.write("sys/fs/cgroup/user/job 1/memory.events", EVENTS);
        fake.write("proc/vmstat", "oom_kill 40\n");
        let watch = OomWatch::begin_in(&fake.0);
        assert_eq!(watch.killed_since(), Some(false));
        fake.write("proc/vmstat", "oom_kill 41\n");
        assert_eq!(watch.killed_since(), Some(false), "that was elsewhere");
        fake.write("sys/fs/cgroup/user/job 1/memory.events", &EVENTS.replace("oom_kill 2", "oom_kill 3"));
        assert_eq!(watch.killed_since(), Some(true));
        fs::remove_file(fake.0.join("sys/fs/cgroup/user/job 1/memory.events")).unwrap();
        assert_eq!(watch.killed_since(), None, "the group is gone");
    }

    #[test]
    fn without_a_group_of_its_own_the_machine_is_asked() {
        let fake = Fake::new("machine");
        fake.write("proc/vmstat", "nr_free_pages 1\noom_kill 40\n");
        fake.write("sys/fs/memory.events", EVENTS);
        fake.write("sys/fs/cgroup/cgroup.procs", "");
        for groups in ["0::/\n", "0::/../\n", "4:memory:/other\n"] {
            fake.write("proc/self/cgroup", groups);
            fake.write("proc/vmstat", "oom_kill 40\n");
            let watch = OomWatch::begin_in(&fake.0);
            assert_eq!(watch.killed_since(), Some(false), "{groups}");
            fake.write("proc/vmstat", "oom_kill 41\n");
            assert_eq!(watch.killed_since(), Some(true), "{groups}");
        }
    }

    #[test]
    fn the_counter_is_found_wherever_the_reads_end() {
        let fake = Fake::new("long");
        for lead in 4070..4110 {
            fake.write("proc/vmstat", &format!("{}\noom_kill 123\nnr 1\n", "x".repeat(lead)));
            assert_eq!(kills(&fake.0.join("proc/vmstat")), Some(123), "{lead}");
        }
    }

    #[test]
    fn without_any_file_it_cannot_be_told() {
        let fake = Fake::new("nothing");
        assert_eq!(OomWatch::begin_in(&fake.0).killed_since(), None);
        fake.write("proc/vmstat", "nr_free_pages 1\n");
        assert_eq!(OomWatch::begin_in(&fake.0).killed_since(), None);
    }

    #[test]
    fn this_machine_answers_if_it_has_the_files() {
        let told = OomWatch::begin().killed_since();
        assert!(told.is_some() || kills(Path::new("/proc/vmstat")).is_none());
    }
}
