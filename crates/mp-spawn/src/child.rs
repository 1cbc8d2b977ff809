//! The children of this process: what can be done with each without knowing what its function returns, and the list of those that run.
//!
//! Owns: the list, and for each daemon the end of the pipe that it dies with. An entry leaves the list when its process is known to have ended.
//!
//! ```text
//! at the end of this program      a daemon                 another child           a detached one
//! main returns, or `exit`         SIGTERM, then killed     is waited for           runs on
//! a signal ends it                killed by the kernel     runs on                 runs on
//! ```
//!
//! Death: of this process in the middle of anything here leaves its children as the second line says.

use mp_sys::deadline::Deadline;
use mp_sys::lifeline::Lifeline;
use mp_sys::oom::OomWatch;
use mp_sys::process::{self, Ended};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// A child process of this one. Clones are handles of the same process; dropping them changes nothing.
///
/// As [`AsFd`] it is readable once the process has ended, so that a `select` can wait for it beside channels, sockets and times.
#[derive(Clone, Debug)]
pub struct Child(Arc<Entry>);

#[derive(Debug)]
struct Entry {
    process: process::Child,
    id: u64,
    name: String,
    is_daemon: bool,
    is_detached: AtomicBool,
    /// Given up once the process has ended.
    lifeline: Mutex<Option<Lifeline>>,
    memory: OomWatch,
}

/// How many kills for lack of memory there had been, and when that was read: reading it takes a tenth of what a fork server's start takes.
static MEMORY: Mutex<Option<(Instant, OomWatch)>> = Mutex::new(None);
/// How old that may be.
const MEMORY_AGE_MAX: Duration = Duration::from_millis(100);

fn memory_watch() -> OomWatch {
    let mut memory = MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
    match &*memory {
        Some((when, watch)) if when.elapsed() < MEMORY_AGE_MAX => watch.clone(),
        _ => {
            let watch = OomWatch::begin();
            *memory = Some((Instant::now(), watch.clone()));
            watch
        }
    }
}

/// What became of a process and its descendants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The process ids of the descendants that were signalled, parents before their children.
    pub descendants: Vec<u32>,
    /// Those of processes that this one may not signal.
    pub refused: Vec<u32>,
    /// Whether nobody was missed: none was refused, and the tree came to rest while it was looked through.
    pub is_complete: bool,
}

static RUNNING: Mutex<Vec<Child>> = Mutex::new(Vec::new());
/// The process that has registered [`at_exit`]; a fork of it must not wait for children that are not its own.
static EXITS: AtomicU32 = AtomicU32::new(0);

impl Child {
    /// Puts a process that was started just now into the list.
    pub(crate) fn new(process: process::Child, id: u64, name: String, lifeline: Option<Lifeline>) -> Self {
        let entry = Entry {
            process,
            id,
            name,
            is_daemon: lifeline.is_some(),
            is_detached: AtomicBool::new(false),
            lifeline: Mutex::new(lifeline),
            memory: memory_watch(),
        };
        let child = Self(Arc::new(entry));
        running().push(child.clone());
        child
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.process.pid()
    }

    /// A number that no other child of this process has or had, from 1 on.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Its name: the one it was given, or `process-` and its [`id`](Self::id).
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether it is killed when this process ends, however that comes about.
    #[must_use]
    pub fn is_daemon(&self) -> bool {
        self.0.is_daemon
    }

    /// Whether the process has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.process.has_ended().unwrap_or(true)
    }

    /// How the process ended; `None` while it runs. The same for all who ask, as often as they ask.
    ///
    /// # Errors
    /// Somebody else has reaped it (the program ignores SIGCHLD, say), and the kernel does not tell: before Linux 6.15.
    pub fn status(&self) -> io::Result<Option<Ended>> {
        if self.is_finished() { self.wait().map(Some) } else { Ok(None) }
    }

    /// Waits until the process has ended, and tells how. Any number of threads may wait.
    ///
    /// # Errors
    /// As [`status`](Self::status).
    pub fn wait(&self) -> io::Result<Ended> {
        let ended = self.0.process.reap();
        self.forget();
        ended
    }

    /// Waits for the end of the process for at most `timeout`; says whether it has ended.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn wait_timeout(&self, timeout: Duration) -> io::Result<bool> {
        self.0.process.wait_ended(Some(Deadline::after(timeout)))
    }

    /// Asks the process to end (SIGTERM). Nothing happens if it has ended; the signal never reaches another process.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn terminate(&self) -> io::Result<()> {
        self.0.process.terminate()
    }

    /// Ends the process (SIGKILL). Nothing happens if it has ended; the signal never reaches another process.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn kill(&self) -> io::Result<()> {
        self.0.process.kill()
    }

    /// Interrupts the process, as Ctrl-C does (SIGINT). Nothing happens if it has ended; the signal never reaches another process.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn interrupt(&self) -> io::Result<()> {
        self.0.process.interrupt()
    }

    /// [`terminate`](Self::terminate) of the process and all its descendants. None gets away by forking: they are stopped while they are looked for. Those
    /// of a process that had ended before are not found.
    ///
    /// # Errors
    /// There is no `/proc` to find them by, no free descriptor; then nobody was signalled.
    pub fn terminate_tree(&self) -> io::Result<Tree> {
        self.signal_tree(15)
    }

    /// [`kill`](Self::kill) of the process and all its descendants, as [`terminate_tree`](Self::terminate_tree) does it.
    ///
    /// # Errors
    /// As there.
    pub fn kill_tree(&self) -> io::Result<Tree> {
        self.signal_tree(9)
    }

    fn signal_tree(&self, signal: i32) -> io::Result<Tree> {
        let report = mp_sys::tree::signal_tree(&self.0.process, signal)?;
        Ok(Tree {
            descendants: report.descendants.iter().map(mp_sys::pidfd::Pidfd::pid).collect(),
            refused: report.refused,
            is_complete: report.complete,
        })
    }

    /// Whether the kernel has ended processes for lack of memory since this one was started.
    pub(crate) fn saw_out_of_memory(&self) -> bool {
        let saw = self.0.memory.killed_since() == Some(true);
        if saw {
            // What is known is from before; the next one is not to be told of this again.
            *MEMORY.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        saw
    }

    /// Lets the process run on when this program ends: `main` no longer waits for it. A daemon stays one.
    pub fn detach(&self) {
        self.0.is_detached.store(true, Ordering::Relaxed);
    }

    pub(crate) fn process(&self) -> &process::Child {
        &self.0.process
    }

    /// It has ended: takes it off the list.
    fn forget(&self) {
        running().retain(|other| !Arc::ptr_eq(&other.0, &self.0));
        *self.0.lifeline.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.process.pidfd()
    }
}

fn running() -> std::sync::MutexGuard<'static, Vec<Child>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The children of this process that run, oldest first, whoever started them and whether or not their handles are still there.
#[must_use]
pub fn active_children() -> Vec<Child> {
    let children = running().clone();
    children.into_iter().filter(|child| !child.is_finished()).collect()
}

/// In a copy of the process whose children they are: forgets them. Their lifelines are closed here, so that they end with their parent.
pub(crate) fn forsake_all() {
    for child in running().drain(..) {
        *child.0.lifeline.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Makes the end of the program wait for its children. Called before each start, after the session's own end was arranged: what is registered last
/// runs first.
pub(crate) fn arrange_exit() -> io::Result<()> {
    // In a copy of this process it is registered already: what the parent registered runs there, too.
    if EXITS.swap(std::process::id(), Ordering::Relaxed) != 0 {
        return Ok(());
    }
    mp_sys::exit::register(at_exit)
}

extern "C" fn at_exit() {
    if EXITS.load(Ordering::Relaxed) != std::process::id() {
        return;
    }
    let Some(children) = running_at_exit() else { return };
    for daemon in children.iter().filter(|child| child.is_daemon()) {
        // Those who do not listen are killed when this process is gone.
        let _ = daemon.terminate();
    }
    for child in
        children.iter().filter(|child| !child.is_daemon() && !child.0.is_detached.load(Ordering::Relaxed))
    {
        // Without an answer there is nothing to wait for.
        let _ = child.0.process.wait_ended(None);
    }
}

/// The list, at the end of the program. `None` if a thread holds it for good: `exit` may be called from a signal handler that interrupted that thread.
fn running_at_exit() -> Option<Vec<Child>> {
    let until = Instant::now() + Duration::from_secs(1);
    loop {
        match RUNNING.try_lock() {
            Ok(children) => return Some(children.clone()),
            Err(TryLockError::Poisoned(children)) => return Some(children.into_inner().clone()),
            Err(TryLockError::WouldBlock) if Instant::now() > until => return None,
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
}
