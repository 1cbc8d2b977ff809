//! Dying with another process: the kernel ends this one when that one has ended, whichever of its threads started us.
//!
//! Owns: a pipe. The process that is clung to keeps the only write end, as long as it lives; nobody ever writes. The other one asks the
//! kernel to be sent SIGKILL at the next event of its read end, which is the end of file.
//!
//! ```text
//! clinging process       event                        what happens
//! not yet asked          the other ends               the look after the asking finds the end of file: it ends itself
//! asked, looked          the other ends, or lets go   SIGKILL by the kernel
//! ```
//!
//! Why not `PR_SET_PDEATHSIG`: that fires when the *thread* that started the child ends.
//! Limits: a process that the other one has forked without an exec holds the write end, too, and must end as well. A program that replaces
//! itself (`exec`) no longer clings.

#![expect(unsafe_code, reason = "fcntl commands that rustix does not have")]

use crate::deadline::Deadline;
use crate::poll::{Interest, poll_one};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// The end that the process keeps to which others cling. When it is dropped, they end, as with the death of this process.
#[derive(Debug)]
pub struct Lifeline {
    _writer: OwnedFd,
}

/// A lifeline, and the end to [`cling`] to; both close-on-exec, the latter above the standard descriptors.
///
/// # Errors
/// No free descriptor.
pub fn lifeline() -> io::Result<(Lifeline, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((Lifeline { _writer: crate::start::above_standard(writer)? }, crate::start::above_standard(reader)?))
}

/// Makes this process end, by SIGKILL, as soon as the process has ended that keeps the other end. Nobody else may cling to this `end`: the
/// kernel notes one process for it.
///
/// # Errors
/// What `fcntl` says.
pub fn cling(end: OwnedFd) -> io::Result<()> {
    let fd = end.as_raw_fd();
    let pid = libc::pid_t::try_from(std::process::id()).map_err(io::Error::other)?;
    let checked = |result: libc::c_int| if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) };
    // SAFETY: no memory is involved, here and below.
    checked(unsafe { libc::fcntl(fd, libc::F_SETOWN, pid) })?;
    // SAFETY: as above.
    checked(unsafe { libc::fcntl(fd, F_SETSIG, libc::SIGKILL) })?;
    // SAFETY: as above.
    let flags = checked(unsafe { libc::fcntl(fd, libc::F_GETFL) })?;
    // SAFETY: as above.
    checked(unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_ASYNC) })?;
    crate::crash::point("lifeline.asked");
    // What happened before the asking sends no signal. (Nothing is ever written, so the end of file is all there can be.)
    if poll_one(&end, Interest::Read, Some(Deadline::now()))? {
        // SAFETY: sends a signal to this process, which ends it.
        unsafe { libc::raise(libc::SIGKILL) };
    }
    // For as long as the process lives.
    std::mem::forget(end);
    Ok(())
}

/// `F_SETSIG` of fcntl(2), which libc does not name for this target.
const F_SETSIG: libc::c_int = 10;
