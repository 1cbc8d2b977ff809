//! The requester's side.
//!
//! A request ends in one of three ways: with a [`Child`]; refused by the zygote, which is as it was; or broken, and then the
//! zygote is ended and nothing is left of it. What "broken" leaves in the zygote's group is at most the zygote and one process before
//! its gate, since one request is under way at a time.

use super::server::raw_pid;
use super::wire;
use crate::deadline::Deadline;
use crate::gate::Gate;
use crate::poll::{Interest, poll};
use crate::process::Child;
use crate::{crash, fork};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{WaitId, WaitIdOptions, getpgrp, setpgid, waitid};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

/// Who asks a zygote for processes. Dropping it ends the zygote; what it has started goes on.
#[derive(Debug)]
pub struct Client {
    /// The process that is the zygote's parent.
    of_pid: u32,
    line: Mutex<Option<Line>>,
}

#[derive(Debug)]
struct Line {
    socket: OwnedFd,
    zygote: Child,
}

/// Why there is no process.
enum Failure {
    /// Nothing was made, and the zygote goes on.
    Refused(io::Error),
    /// The zygote is not to be asked again. There may be a process before its gate.
    Broken(io::Error),
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the zygote has ended")
}

impl Client {
    /// The client of a child of this process that calls [`serve`](super::serve) with the other end of `socket`.
    #[must_use]
    pub fn new(socket: OwnedFd, zygote: Child) -> Self {
        Self { of_pid: fork::pid(), line: Mutex::new(Some(Line { socket, zygote })) }
    }

    /// Has the zygote start a process that runs its job with `bytes` and duplicates of `fds`; it is a child of this process.
    ///
    /// Threads that ask at once wait for each other. A zygote takes a fraction of a millisecond unless it was stopped; one that has not
    /// answered by `until` is ended, so leave it many seconds.
    ///
    /// # Errors
    /// No job has run then, and no process is left.
    /// * `BrokenPipe`: the zygote has ended, now or before; it takes another one.
    /// * `TimedOut`: it did not answer until then, and was ended.
    /// * `InvalidInput`: more than [`BYTES_MAX`](super::BYTES_MAX) or [`DESCRIPTORS_MAX`](super::DESCRIPTORS_MAX).
    /// * `ResourceBusy`: the zygote has more than one thread.
    /// * `Unsupported`: this process is not the zygote's parent, but a copy of it.
    /// * What the system says: no free descriptor, no process left, this process has moved to another session.
    pub fn request(&self, bytes: &[u8], fds: &[BorrowedFd<'_>], until: Deadline) -> io::Result<Child> {
        if fork::pid() != self.of_pid {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "a zygote serves its parent alone"));
        }
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = line.as_ref().ok_or_else(gone)?.ask(bytes, fds, until);
        match asked {
            Ok(child) => Ok(child),
            Err(Failure::Refused(error)) => Err(error),
            Err(Failure::Broken(error)) => {
                if let Some(line) = line.take() {
                    line.give_up();
                }
                Err(error)
            }
        }
    }
}

impl Client {
    /// In a copy of the zygote's parent: closes the copy's end, so that the zygote ends with its parent.
    pub fn forsake(&self) {
        if fork::pid() != self.of_pid {
            *self.line.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let line = self.line.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(line) = line.filter(|_| fork::pid() == self.of_pid) {
            // It has nothing to finish. Neither can fail for a child that only we reap.
            let _ = line.zygote.kill();
            let _ = line.zygote.reap();
        }
    }
}

impl Line {
    fn ask(&self, bytes: &[u8], fds: &[BorrowedFd<'_>], until: Deadline) -> Result<Child, Failure> {
        let head = wire::head(bytes).map_err(Failure::Refused)?;
        if fds.len() > super::DESCRIPTORS_MAX {
            let text =
                format!("a request with {} descriptors: it may have {}", fds.len(), super::DESCRIPTORS_MAX);
            return Err(Failure::Refused(io::Error::new(io::ErrorKind::InvalidInput, text)));
        }
        let gate = Gate::new().map_err(Failure::Refused)?;
        let fds: Vec<BorrowedFd<'_>> = [gate.end()].into_iter().chain(fds.iter().copied()).collect();
        let parts = [IoSlice::new(&head), IoSlice::new(bytes)];
        // It reads nothing but requests and there is no other: there is room, or never will be.
        match wire::send(&self.socket, &parts, &fds, SendFlags::DONTWAIT) {
            Ok(()) => {}
            Err(Errno::PIPE | Errno::CONNRESET) => return Err(Failure::Broken(gone())),
            Err(error) => return Err(Failure::Refused(error.into())),
        }
        crash::point("zygote.asked");
        let taken = self.answer(until).and_then(|child| {
            crash::point("zygote.heard");
            // From here on the child is not among what the zygote leaves.
            match setpgid(raw_pid(child.pid()), Some(getpgrp())) {
                // Not even a zombie: this program has its children reaped by the system.
                Ok(()) | Err(Errno::SRCH) => Ok(child),
                Err(error) => Err(Failure::Broken(error.into())),
            }
        });
        gate.set(taken.is_ok());
        crash::point("zygote.opened");
        taken
    }

    /// The zygote's answer.
    fn answer(&self, until: Deadline) -> Result<Child, Failure> {
        let broken = |error: Errno| Failure::Broken(error.into());
        let (socket, zygote) = ((self.socket.as_fd(), Interest::Read), (self.zygote.pidfd(), Interest::Read));
        let ready = poll(&[socket, zygote], Some(until)).map_err(Failure::Broken)?;
        if !ready.contains(&true) {
            return Err(Failure::Broken(io::ErrorKind::TimedOut.into()));
        }
        let mut buffer = [0; wire::Answer::LEN];
        // A zygote that has ended may have answered before.
        let mut frame = match wire::receive(&self.socket, &mut buffer, RecvFlags::DONTWAIT) {
            Ok(frame) if frame.len > 0 => frame,
            Ok(_) | Err(Errno::AGAIN | Errno::CONNRESET) => return Err(Failure::Broken(gone())),
            Err(error) => return Err(broken(error)),
        };
        let answer =
            buffer.get(..frame.len).and_then(wire::Answer::from_bytes).ok_or(broken(Errno::BADMSG))?;
        match (answer.status, frame.fds.pop()) {
            (wire::MADE, Some(pidfd)) => Ok(Child::new(answer.pid, pidfd)),
            (wire::MADE, None) if frame.is_cut => Err(broken(Errno::MFILE)),
            (wire::NOT_ALONE, None) => {
                let text = "the zygote has more than one thread";
                Err(Failure::Refused(io::Error::new(io::ErrorKind::ResourceBusy, text)))
            }
            (errno @ 1.., None) => Err(Failure::Refused(io::Error::from_raw_os_error(errno))),
            _ => Err(broken(Errno::BADMSG)),
        }
    }

    /// Ends the zygote, and reaps it and what it made last; that has found its gate shut.
    fn give_up(self) {
        // Neither can fail: it is a child that nobody else has reaped.
        let _ = self.zygote.kill();
        let _ = self.zygote.wait_ended(None);
        let mut left = 2;
        while left > 0 {
            // The group is named after the zygote, and its number is nobody else's while one of the two is not reaped. If there is but
            // one, the second call finds no group: the number comes again only after all others have been handed out.
            match waitid(WaitId::Pgid(raw_pid(self.zygote.pid())), WaitIdOptions::EXITED) {
                Err(Errno::INTR) => {}
                Ok(_) => left -= 1,
                Err(_) => break,
            }
        }
        // If it ended before it had its group.
        let _ = self.zygote.reap();
    }
}
