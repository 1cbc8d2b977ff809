//! Processes and threads as `/proc` shows them.
//!
//! Owns: nothing; every call reads anew. What it says may be over when it returns, but for two states that last: a process that has
//! ended, and a thread that is blocked until the test itself does something.

use std::fs;
use std::time::Duration;

/// A thread of some process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    pid: u32,
    tid: u32,
}

/// What a thread has used so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Times it went to sleep.
    pub sleeps: u64,
    /// Clock ticks in user space and in the kernel.
    pub cpu_ticks: u64,
}

impl Task {
    /// The calling thread.
    #[must_use]
    pub fn current() -> Self {
        let tid = rustix::thread::gettid().as_raw_pid().unsigned_abs();
        Self { pid: std::process::id(), tid }
    }

    /// The first thread of process `pid`: the one that runs the job, in a child.
    #[must_use]
    pub fn leader(pid: u32) -> Self {
        Self { pid, tid: pid }
    }

    pub(crate) fn read(self, name: &str) -> Option<String> {
        fs::read_to_string(format!("/proc/{}/task/{}/{name}", self.pid, self.tid)).ok()
    }

    /// Its state: `R`, `S`, `Z`, …; `None` if it is gone.
    #[must_use]
    pub fn state(self) -> Option<char> {
        self.stat_fields()?.first()?.chars().next()
    }

    /// The fields of its `stat` line from the state on.
    fn stat_fields(self) -> Option<Vec<String>> {
        let text = self.read("stat")?;
        let (_, fields) = text.rsplit_once(')')?;
        Some(fields.split_ascii_whitespace().map(ToOwned::to_owned).collect())
    }

    /// What it has used so far; `None` if it is gone.
    #[must_use]
    pub fn usage(self) -> Option<Usage> {
        let fields = self.stat_fields()?;
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let status = self.read("status")?;
        let sleeps = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        Some(Usage { sleeps: sleeps.trim().parse().ok()?, cpu_ticks: number(11)? + number(12)? })
    }

    /// Whether its process has a signal that no thread has taken yet.
    #[must_use]
    pub fn has_pending_signal(self) -> bool {
        self.read("status").is_some_and(|status| {
            let pending =
                |line: &str| line.strip_prefix("SigPnd:").or(line.strip_prefix("ShdPnd:")).map(str::to_owned);
            status.lines().filter_map(pending).any(|mask| mask.trim().bytes().any(|digit| digit != b'0'))
        })
    }

    /// Waits until the thread sleeps in a wait of the library: a futex or a poll, twice in a row without a sleep between.
    ///
    /// # Panics
    /// If it ends instead.
    pub fn wait_until_blocked(self) {
        assert!(self.wait_until_blocked_or_ended(), "{self:?} ended instead of blocking");
    }

    /// Waits until the thread sleeps in a wait of the library, or has ended; says whether it sleeps.
    #[must_use]
    pub fn wait_until_blocked_or_ended(self) -> bool {
        let mut before = None;
        let mut has_ended = false;
        until(|| {
            let (Some(state), Some(usage)) = (self.state(), self.usage()) else {
                has_ended = true;
                return true;
            };
            has_ended = matches!(state, 'Z' | 'X');
            // Without the right to read it, it is "0".
            let place = self.read("wchan").unwrap_or_default();
            let in_a_wait = place == "0" || place.contains("futex") || place.contains("poll");
            let blocked = state == 'S' && in_a_wait && before == Some(usage);
            before = Some(usage);
            blocked || has_ended
        });
        !has_ended
    }
}

/// Whether process `pid` has ended: it is a zombie or gone.
#[must_use]
pub fn has_ended(pid: u32) -> bool {
    Task::leader(pid).state().is_none_or(|state| matches!(state, 'Z' | 'X'))
}

/// The child processes of this process, zombies included.
#[must_use]
pub fn children() -> Vec<u32> {
    let me = std::process::id().to_string();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut children: Vec<u32> = pids
        .filter(|&pid| Task::leader(pid).stat_fields().is_some_and(|fields| fields.get(1) == Some(&me)))
        .collect();
    children.sort_unstable();
    children
}

/// The open descriptors of this process and what each one is, without the one that reads the list.
#[must_use]
pub fn descriptors() -> Vec<String> {
    let own_list = format!("/proc/{}/fd", std::process::id());
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let mut found: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            let link = fs::read_link(entry.path()).ok()?;
            let link = link.to_string_lossy();
            (link != own_list.as_str()).then(|| format!("{} -> {link}", entry.file_name().to_string_lossy()))
        })
        .collect();
    found.sort_unstable();
    found
}

/// The threads of this process.
#[must_use]
pub fn tasks(pid: u32) -> Vec<Task> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let tids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    tids.map(|tid| Task { pid, tid }).collect()
}

/// Looks again and again until `state` holds. A watchdog bounds it.
pub fn until(mut state: impl FnMut() -> bool) {
    while !state() {
        // Leaves the processor to those that are waited for; nothing depends on how long.
        std::thread::sleep(Duration::from_millis(1));
    }
}
