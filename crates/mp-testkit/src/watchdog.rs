//! A limit on how long a test may take, which says where everybody was.
//!
//! Owns: one thread for each armed watchdog. When the time is over it prints the threads of this process and of its children, kills
//! the children, and aborts: a test that hangs leaves nothing behind. A test that fails leaves its watchdog armed, since children that it
//! did not come to end would keep its process from ending: `exit` waits for them.

use crate::proc::{self, Task};
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

/// Armed until it is dropped by a test that did not fail.
#[derive(Debug)]
pub struct Watchdog {
    disarm: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Arms a watchdog: if it is not dropped within `limit`, the process says what it was doing, and aborts. Dropped by a panic it stays armed, for the
/// process to come to its end within `limit`.
///
/// # Panics
/// If no thread can be started.
#[must_use = "it watches until it is dropped"]
pub fn watchdog(limit: Duration) -> Watchdog {
    let name = std::thread::current().name().unwrap_or("a thread without a name").to_owned();
    let (disarm, disarmed) = mpsc::channel();
    let watch = move || {
        if disarmed.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            bark(&name, limit);
        }
    };
    let thread = std::thread::Builder::new().name("watchdog".to_owned()).spawn(watch);
    let thread = thread.unwrap_or_else(|error| panic!("starting a watchdog: {error}"));
    Watchdog { disarm: Some(disarm), thread: Some(thread) }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::mem::forget(self.disarm.take());
            return;
        }
        drop(self.disarm.take());
        // Joined, so that it does not count as a thread of the next test. It never panics.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn bark(name: &str, limit: Duration) {
    let children = proc::children();
    let mut text = format!("watchdog: {name} is not done after {limit:?}\n");
    for &pid in [std::process::id()].iter().chain(&children) {
        let _ = writeln!(text, "process {pid}:");
        proc::tasks(pid).into_iter().for_each(|task| describe(task, &mut text));
    }
    // Not by a macro: the test harness would keep that, and it is lost with the abort.
    let _ = std::io::stderr().write_all(text.as_bytes());
    for pid in children {
        let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
        // A child that nobody has reaped keeps its pid, so this reaches no other process.
        let _ = pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
    }
    std::process::abort();
}

fn describe(task: Task, text: &mut String) {
    let read = |name| task.read(name).unwrap_or_default().trim().to_owned();
    let _ = writeln!(text, "  {task:?} {} state {:?} in {}", read("comm"), task.state(), read("wchan"));
    let _ = writeln!(text, "    syscall {}", read("syscall"));
    for line in read("stack").lines() {
        let _ = writeln!(text, "    {line}");
    }
}
