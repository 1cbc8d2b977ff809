//! How a process ended, asked of the kernel by its pidfd: also for a process that is nobody's child here, or that somebody else has reaped.
//!
//! Owns: nothing; every call asks anew. The parent is told by `waitid`, before the process is reaped. Everybody else is told by
//! `ioctl(PIDFD_GET_INFO)` once it is reaped, for as long as the pidfd is open (Linux 6.15). In between the kernel tells the parent alone.
//!
//! Limit: the ioctl knows the status of the first thread. If that one ended by `pthread_exit` before the others, and they ended the
//! process with another code, only `waitid` tells that code.
//!
//! Source: the kernel's include/uapi/linux/pidfd.h and fs/pidfs.c; `struct pidfd_info` in its first published size, which every kernel takes.

#![expect(unsafe_code, reason = "an ioctl and a signal number that have no wrapper")]

use crate::pidfd::Pidfd;
use crate::process::Ended;
use rustix::fd::AsRawFd;
use rustix::io::Errno;
use rustix::ioctl::{Opcode, Updater, opcode};
use rustix::process::{WaitId, WaitIdOptions};
use std::io;

/// What is known of the end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It has not ended.
    Running,
    /// It has ended, and its parent, which is not this process, has not reaped it yet. Until then nobody else is told how it ended.
    Unreaped,
    /// It has ended in this way.
    Ended(Ended),
    /// It has ended and was reaped by somebody else, and this kernel does not tell how it ended (before Linux 6.15, or a filter).
    Unknown,
}

/// `struct pidfd_info`.
#[repr(C)]
#[derive(Default)]
struct Info {
    /// In: what is asked for; out: what was filled in.
    mask: u64,
    cgroup: u64,
    process_and_user_ids: [u32; 11],
    /// As `wait` encodes it.
    exit_code: i32,
}

const INFO_EXIT: u64 = 1 << 3;
const GET_INFO: Opcode = opcode::read_write::<Info>(0xff, 11);
const _: () = assert!(size_of::<Info>() == 64);

impl Pidfd {
    /// What is known of its end. Neither waits nor reaps.
    ///
    /// # Errors
    /// What `waitid` and `poll` say, but for `ECHILD`.
    pub fn status(&self) -> io::Result<Status> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match wait(self, options) {
            Ok(Some(ended)) => Ok(Status::Ended(ended)),
            Ok(None) => Ok(Status::Running),
            Err(Errno::CHILD) => self.status_for_others(),
            Err(error) => Err(error.into()),
        }
    }

    /// [`status`](Self::status) of a process that is not our child, or is no longer.
    pub(crate) fn status_for_others(&self) -> io::Result<Status> {
        if !self.has_ended()? {
            return Ok(Status::Running);
        }
        // Asked first: whoever is reaped by now has its status published.
        let reaped = self.is_reaped();
        Ok(match exit_code(self) {
            Some(code) => Status::Ended(Ended::of_wait_status(code)),
            None if reaped => Status::Unknown,
            None => Status::Unreaped,
        })
    }

    /// Whether it has ended and was reaped, so that another process may have its id. While this is false, what was read of the process
    /// of that id was about this one.
    #[must_use]
    pub fn is_reaped(&self) -> bool {
        let nothing = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: signal 0 only asks whether there is a process to be signalled; the information may be null.
        let asked =
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.pidfd().as_raw_fd(), 0, nothing, 0) };
        // Without the right to signal it, it is there.
        asked < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH)
    }
}

/// `waitid` for the process, which is our child.
pub(crate) fn wait(process: &Pidfd, options: WaitIdOptions) -> rustix::io::Result<Option<Ended>> {
    let status = rustix::process::waitid(WaitId::PidFd(process.pidfd()), options)?;
    Ok(status.map(|status| match status.exit_status() {
        Some(code) => Ended::Exited(code),
        None => {
            Ended::Killed { signal: status.terminating_signal().unwrap_or(0), core_dumped: status.dumped() }
        }
    }))
}

/// The status as `wait` encodes it, if the kernel tells.
fn exit_code(process: &Pidfd) -> Option<i32> {
    if crate::force::is("no-pidfd-info") {
        return None;
    }
    let mut info = Info { mask: INFO_EXIT, ..Info::default() };
    // SAFETY: for this opcode the kernel reads the mask of an `Info` and writes at most the size that the opcode carries.
    let ask = unsafe { Updater::<GET_INFO, Info>::new(&mut info) };
    // SAFETY: as above; the descriptor is a pidfd, for which the opcode means this.
    let asked = unsafe { rustix::ioctl::ioctl(process.pidfd(), ask) };
    // Any error means that it is not told: no such ioctl, no such size, not from this pid namespace, a filter.
    (asked.is_ok() && info.mask & INFO_EXIT != 0).then_some(info.exit_code)
}

impl Ended {
    /// Of a status as `wait` encodes it: the code in the second byte, or a signal in the lowest seven bits and whether a core was dumped.
    fn of_wait_status(status: i32) -> Self {
        match status & 0x7f {
            0 => Self::Exited((status >> 8) & 0xff),
            signal => Self::Killed { signal, core_dumped: status & 0x80 != 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_statuses_are_told_apart() {
        assert_eq!(Ended::of_wait_status(0), Ended::Exited(0));
        assert_eq!(Ended::of_wait_status(7 << 8), Ended::Exited(7));
        assert_eq!(Ended::of_wait_status(255 << 8), Ended::Exited(255));
        assert_eq!(Ended::of_wait_status(9), Ended::Killed { signal: 9, core_dumped: false });
        assert_eq!(Ended::of_wait_status(0x80 | 11), Ended::Killed { signal: 11, core_dumped: true });
    }

    #[test]
    fn the_opcode_is_the_kernels() {
        assert_eq!(u64::from(GET_INFO), libc::PIDFD_GET_INFO);
    }
}
