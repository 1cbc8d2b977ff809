//! A process by its pidfd: waiting for its end and signalling it, for any process, not for its parent alone.
//!
//! Owns: the descriptor. It stands for one process for ever, so no signal goes to one that has got a recycled pid. Death of the process
//! makes it readable, whether somebody has reaped it or not.

use crate::deadline::Deadline;
use crate::poll::{Interest, poll_one};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::process::{Pid, PidfdFlags, Signal};
use std::io;

/// A process, by its pidfd.
#[derive(Debug)]
pub struct Pidfd {
    pid: u32,
    fd: OwnedFd,
}

impl Pidfd {
    /// Of a pidfd, and the process id that it is of.
    #[must_use]
    pub fn new(pid: u32, fd: OwnedFd) -> Self {
        Self { pid, fd }
    }

    /// Of this process.
    ///
    /// # Errors
    /// No free descriptor.
    pub fn own() -> io::Result<Self> {
        let pid = std::process::id();
        Ok(Self::new(pid, open(pid)?))
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The pidfd; readable once the process has ended.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether the process has ended (it may not be reaped yet).
    ///
    /// # Errors
    /// What `poll` says.
    pub fn has_ended(&self) -> io::Result<bool> {
        self.wait_ended(Some(Deadline::now()))
    }

    /// Waits until the process has ended or the deadline has passed; says whether it has ended. Does not reap.
    ///
    /// # Errors
    /// What `poll` says.
    pub fn wait_ended(&self, deadline: Option<Deadline>) -> io::Result<bool> {
        poll_one(&self.fd, Interest::Read, deadline)
    }

    /// Sends SIGTERM; a process that has ended is not an error.
    ///
    /// # Errors
    /// What `pidfd_send_signal` says: `EPERM`, say.
    pub fn terminate(&self) -> io::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Sends SIGKILL; a process that has ended is not an error.
    ///
    /// # Errors
    /// As [`terminate`](Self::terminate).
    pub fn kill(&self) -> io::Result<()> {
        self.signal(Signal::KILL)
    }

    /// Sends SIGINT; a process that has ended is not an error.
    ///
    /// # Errors
    /// As [`terminate`](Self::terminate).
    pub fn interrupt(&self) -> io::Result<()> {
        self.signal(Signal::INT)
    }

    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        match rustix::process::pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// A descriptor of the process that has this id now; readable once it has ended. Ask for its start time afterwards to know that it is
/// the one that was meant.
///
/// # Errors
/// `NoSuchProcess` in the system's words if there is none; no free descriptor.
pub fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(rustix::io::Errno::SRCH)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}
