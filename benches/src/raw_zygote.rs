//! The raw limit of a fork server: the least that a process needs to copy itself for another one. No recovery from death, no gate, no checks of
//! the other side, no argument and no result but the exit code.
//!
//! ```text
//! first process              the zygote, one thread             new process
//! the code, a byte    ─────▶ clones itself with CLONE_PARENT    `_exit` with the code
//! pidfd, SCM_RIGHTS   ◀─────
//! `waitid` on the pidfd
//! ```
#![expect(unsafe_code, reason = "a raw clone")]

use crate::Outcome;
use crate::channels::Role;
use crate::measure::{OTHER_WORK, Plan, starts};
use crate::second::{Found, Job, Second};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg, socketpair,
};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::io::{Error, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// For [`second::run`](crate::second::run).
pub const ROLES: &[Role] = &[("zygote", serve)];

/// The zygote: copies itself until the other end is closed.
fn serve(job: &Job) -> Outcome<Found> {
    let socket = job.descriptor(0)?;
    job.meet()?;
    let (mut right, mut code) = (0, [0]);
    while recv(&socket, &mut code, RecvFlags::empty())?.1 == 1 {
        give(&socket, clone(code[0])?.as_fd())?;
        right += 1;
    }
    Ok(Found { right, ..Found::default() })
}

/// Clones this process, which has one thread. The new one is a child of this one's parent, and ends with `code`.
fn clone(code: u8) -> Outcome<OwnedFd> {
    let flags: libc::c_long = (libc::CLONE_PARENT | libc::CLONE_PIDFD).into();
    let mut pidfd: RawFd = -1;
    let none: libc::c_ulong = 0;
    // SAFETY: memory is not shared, so the new process goes on here with a copy of this thread's stack; the kernel writes a descriptor to
    // `pidfd`. What the C library keeps of the old thread is wrong there, and not used.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, none, &raw mut pidfd, none, none) };
    match pid {
        // SAFETY: ends the process, and runs nothing before.
        0 => unsafe { libc::_exit(code.into()) },
        // SAFETY: the kernel made this descriptor for us in the clone.
        1.. => Ok(unsafe { OwnedFd::from_raw_fd(pidfd) }),
        _ => Err(Error::last_os_error().into()),
    }
}

/// Sends a descriptor.
fn give(socket: &OwnedFd, fd: BorrowedFd<'_>) -> Outcome<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let (mut control, fds) = (SendAncillaryBuffer::new(&mut space), [fd]);
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err("no room for a descriptor".into());
    }
    sendmsg(socket, &[IoSlice::new(&[1])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives a descriptor.
fn take(socket: &OwnedFd) -> Outcome<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let (mut control, mut byte) = (RecvAncillaryBuffer::new(&mut space), [0]);
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok(fds.next().ok_or("the zygote gave no descriptor")?)
}

/// Has the zygote copy itself, and waits for the copy's end, again and again. The zygote is started before the clock.
///
/// # Errors
/// When it fails, or an exit code is wrong.
pub fn fork(plan: &Plan) -> Outcome<Duration> {
    copies(plan, Duration::ZERO)
}

/// As [`fork`], with other work between the starts.
///
/// # Errors
/// As [`fork`].
pub fn fork_spaced(plan: &Plan) -> Outcome<Duration> {
    copies(plan, OTHER_WORK)
}

fn copies(plan: &Plan, rest: Duration) -> Outcome<Duration> {
    let (ours, its) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let job = Job::anywhere("zygote", 1, plan);
    let mut zygote = Second::start(job, &[its.as_fd()])?;
    drop(its);
    zygote.meet()?;
    let time = starts(plan, rest, |number| {
        let code = number.to_le_bytes()[0];
        send(&ours, &[code], SendFlags::NOSIGNAL)?;
        let status = waitid(WaitId::PidFd(take(&ours)?.as_fd()), WaitIdOptions::EXITED)?;
        let ended = status.and_then(|status| status.exit_status());
        if ended == Some(code.into()) { Ok(()) } else { Err("a wrong exit code".into()) }
    })?;
    drop(ours);
    zygote.join()?;
    Ok(time)
}
