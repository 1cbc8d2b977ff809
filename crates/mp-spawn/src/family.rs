//! Who this process is among those that were started from each other.

use mp_sys::deadline::Deadline;
use mp_sys::pidfd::{self, Pidfd};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

/// What a process that was started for a job knows of itself.
#[derive(Debug)]
pub(crate) struct Birth {
    pub(crate) name: String,
    pub(crate) parent: u32,
    pub(crate) is_daemon: bool,
}

static BIRTH: RwLock<Option<Birth>> = RwLock::new(None);

/// Called before the job. In a process that was copied from another, which may have had one, it takes that one's place.
pub(crate) fn born(birth: Birth) {
    *BIRTH.write().unwrap_or_else(PoisonError::into_inner) = Some(birth);
}

fn birth() -> RwLockReadGuard<'static, Option<Birth>> {
    BIRTH.read().unwrap_or_else(PoisonError::into_inner)
}

/// The calling process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    pid: u32,
    name: String,
    is_daemon: bool,
}

impl Current {
    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The name it was given, or `process-` and a number; `main` in a program that nobody started for a job.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is killed when its parent ends.
    #[must_use]
    pub fn is_daemon(&self) -> bool {
        self.is_daemon
    }
}

/// The calling process.
#[must_use]
pub fn current() -> Current {
    let birth = birth();
    Current {
        pid: std::process::id(),
        name: birth.as_ref().map_or_else(|| String::from("main"), |birth| birth.name.clone()),
        is_daemon: birth.as_ref().is_some_and(|birth| birth.is_daemon),
    }
}

/// The process that started this one for a job.
///
/// For a `select`: [`pidfd`](Self::pidfd).
#[derive(Debug)]
pub struct Parent {
    pid: u32,
    /// `None` if it had ended when it was asked for.
    process: Option<Pidfd>,
}

impl Parent {
    /// Its process id. Another process may have got it once it has ended.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.process.as_ref().is_none_or(|process| process.has_ended().unwrap_or(true))
    }

    /// Waits for its end for at most `timeout`; says whether it has ended.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn wait_timeout(&self, timeout: Duration) -> io::Result<bool> {
        match &self.process {
            Some(process) => process.wait_ended(Some(Deadline::after(timeout))),
            None => Ok(true),
        }
    }

    /// Readable once it has ended, for a `select`; `None` if it had ended already.
    #[must_use]
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.process.as_ref().map(Pidfd::pidfd)
    }
}

/// The process that started this one; `None` in a program that nobody started for a job.
///
/// # Errors
/// No free descriptor.
pub fn parent() -> io::Result<Option<Parent>> {
    let Some(pid) = birth().as_ref().map(|birth| birth.parent) else { return Ok(None) };
    let process = match pidfd::open(pid) {
        // If it is our parent now, after the opening, then it was all the time: nobody becomes one who was not.
        Ok(fd) if mp_sys::process::parent() == pid => Some(Pidfd::new(pid, fd)),
        Ok(_) => None,
        Err(error) if error.raw_os_error() == Some(NO_SUCH_PROCESS) => None,
        Err(error) => return Err(error),
    };
    Ok(Some(Parent { pid, process }))
}

/// `ESRCH`.
const NO_SUCH_PROCESS: i32 = 3;
