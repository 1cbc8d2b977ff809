//! The requester's side.
//!
//! A request ends in one of three ways: with a [`Child`]; refused by the zygote, which is as it was; or broken, and then the
//! zygote is ended and nothing is left of it. What "broken" leaves in the zygote's group is at most the zygote and one process without a
//! job, since one is wanted at a time.

use super::server::raw_pid;
use super::{Connection, wire};
use crate::deadline::Deadline;
use crate::poll::{Interest, poll};
use crate::process::Child;
use crate::{crash, fork};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{Signal, WaitId, WaitIdOptions, getpgrp, kill_process_group, setpgid, waitid};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

/// How many processes without a job somebody may end before the request fails.
const TRIES: usize = 3;

/// Who asks a zygote for processes. Dropping it ends the zygote; what it has started goes on.
#[derive(Debug)]
pub struct Client {
    /// The process that is the zygote's parent.
    of_pid: u32,
    line: Mutex<Option<Line>>,
}

#[derive(Debug)]
struct Line {
    connection: Connection,
    zygote: Child,
    /// A process was wanted ahead of its request; the answer has not been read.
    is_ahead: bool,
}

/// Why there is no process.
enum Failure {
    /// Nothing is left of what was made, and the zygote goes on.
    Refused(io::Error),
    /// The zygote is not to be asked again. There may be a process without a job.
    Broken(io::Error),
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the zygote has ended")
}

impl Client {
    /// The client of a child of this process that calls [`serve`](super::serve) with the other end of `connection`.
    #[must_use]
    pub fn new(connection: Connection, zygote: Child) -> Self {
        Self { of_pid: fork::pid(), line: Mutex::new(Some(Line { connection, zygote, is_ahead: false })) }
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
    /// * What the system says: no free descriptor here or in the zygote, no process left, this process has moved to another session.
    pub fn request(&self, bytes: &[u8], fds: &[BorrowedFd<'_>], until: Deadline) -> io::Result<Child> {
        if fork::pid() != self.of_pid {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "a zygote serves its parent alone"));
        }
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = line.as_mut().ok_or_else(gone)?.ask(bytes, fds, until);
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
            // It has nothing to finish.
            line.give_up();
        }
    }
}

impl Line {
    fn ask(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>], until: Deadline) -> Result<Child, Failure> {
        let head = wire::head(bytes).map_err(Failure::Refused)?;
        if fds.len() > super::DESCRIPTORS_MAX {
            let text =
                format!("a request with {} descriptors: it may have {}", fds.len(), super::DESCRIPTORS_MAX);
            return Err(Failure::Refused(io::Error::new(io::ErrorKind::InvalidInput, text)));
        }
        let parts = [IoSlice::new(&head), IoSlice::new(bytes)];
        for _ in 0..TRIES {
            let was_ahead = std::mem::replace(&mut self.is_ahead, false);
            if !was_ahead {
                self.want();
            }
            let (child, line) = match self.answer(until) {
                // It was true then.
                Err(Failure::Refused(_)) if was_ahead => continue,
                other => other?,
            };
            crash::point("zygote.heard");
            // The system may have reaped it, and given its number to another.
            if child.has_ended().unwrap_or(true) {
                end(&child);
                continue;
            }
            // From here on the child is not among what the zygote leaves.
            match setpgid(raw_pid(child.pid()), Some(getpgrp())) {
                // Not even a zombie: this program has its children reaped by the system.
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => {
                    end(&child);
                    return Err(Failure::Broken(error.into()));
                }
            }
            crash::point("zygote.moved");
            // It reads nothing else: there is room, or never will be.
            match wire::send(&line, &parts, fds, SendFlags::DONTWAIT) {
                Ok(()) => {}
                // It has ended without a job: of idleness, by a signal, or somebody has killed it.
                Err(Errno::PIPE | Errno::CONNRESET | Errno::CONNREFUSED) => {
                    end(&child);
                    continue;
                }
                Err(error) => {
                    end(&child);
                    return Err(Failure::Refused(error.into()));
                }
            }
            crash::point("zygote.sent");
            // The next one, while this one does its job.
            self.want();
            self.is_ahead = true;
            return Ok(child);
        }
        Err(Failure::Broken(gone()))
    }

    /// Has the zygote make a process. If it is gone, who reads its answer finds that.
    fn want(&self) {
        self.connection.bell.ring();
        crash::point("zygote.asked");
    }

    /// The zygote's answer: a process, and the line to it.
    fn answer(&self, until: Deadline) -> Result<(Child, OwnedFd), Failure> {
        let socket = (self.connection.socket.as_fd(), Interest::Read);
        let zygote = (self.zygote.pidfd(), Interest::Read);
        match poll(&[socket, zygote], Some(until)).map_err(Failure::Broken)?[..] {
            [_, true] => Err(Failure::Broken(gone())),
            [true, false] => self.read(),
            _ => Err(Failure::Broken(io::ErrorKind::TimedOut.into())),
        }
    }

    /// The answer that has come.
    fn read(&self) -> Result<(Child, OwnedFd), Failure> {
        let broken = |error: Errno| Failure::Broken(error.into());
        let mut buffer = [0; wire::Answer::LEN];
        let mut frame = match wire::receive(&self.connection.socket, &mut buffer, RecvFlags::DONTWAIT) {
            Ok(frame) if frame.len > 0 => frame,
            Ok(_) | Err(Errno::AGAIN | Errno::CONNRESET) => return Err(Failure::Broken(gone())),
            Err(error) => return Err(broken(error)),
        };
        let answer =
            buffer.get(..frame.len).and_then(wire::Answer::from_bytes).ok_or(broken(Errno::BADMSG))?;
        let (line, pidfd) = (frame.fds.pop(), frame.fds.pop());
        match (answer.status, pidfd, line) {
            (wire::MADE, Some(pidfd), Some(line)) => Ok((Child::new(answer.pid, pidfd), line)),
            (wire::MADE, ..) if frame.is_cut => Err(broken(Errno::MFILE)),
            (wire::NOT_ALONE, None, None) => {
                let text = "the zygote has more than one thread";
                Err(Failure::Refused(io::Error::new(io::ErrorKind::ResourceBusy, text)))
            }
            (errno @ 1.., None, None) => Err(Failure::Refused(io::Error::from_raw_os_error(errno))),
            _ => Err(broken(Errno::BADMSG)),
        }
    }

    /// Ends the zygote, and reaps it and what it made last, which has no job.
    fn give_up(self) {
        let _ = self.zygote.kill();
        let _ = self.zygote.wait_ended(None);
        if let Ok((spare, _)) = self.read() {
            end(&spare);
        }
        drop(self.connection);
        // The group is named after the zygote, and its number is nobody else's while one of the two is not reaped: by the system, say.
        let unreaped = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let mut left = match waitid(WaitId::PidFd(self.zygote.pidfd()), unreaped) {
            Ok(Some(_)) => 2,
            _ => 0,
        };
        let group = raw_pid(self.zygote.pid());
        if left > 0 {
            // One that has not answered may be stopped, or wait for somebody who is. If there is none, the call finds the zygote, which has ended.
            let _ = group.map(|group| kill_process_group(group, Signal::KILL));
        }
        while left > 0 {
            // If there is but one, the second call finds no group: the number comes again only after all others have been handed out.
            match waitid(WaitId::Pgid(group), WaitIdOptions::EXITED) {
                Err(Errno::INTR) => {}
                Ok(_) => left -= 1,
                Err(_) => break,
            }
        }
        // If it ended before it had its group.
        let _ = self.zygote.reap();
    }
}

/// Ends a process without a job, and reaps it.
fn end(child: &Child) {
    // Neither can fail for a child that only we reap.
    let _ = child.kill();
    let _ = child.reap();
}
