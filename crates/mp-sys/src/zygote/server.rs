//! The zygote's side: waiting for requests, cloning, and what the new process does before its job.
//!
//! A raw clone, unlike glibc's `fork`, leaves two things of the C library wrong in the new process: the thread's cached id, so that
//! mutexes get the wrong owner, and the robust list, which is not registered, so that robust mutexes are not. The first is mended by
//! making the kernel write the new id where glibc keeps it (`PR_GET_TID_ADDRESS`), the second by registering the list again, emptied.
//! Everything else that `fork` mends concerns other threads, and there are none: that is checked before each clone.
//!
//! All signals are blocked in the zygote for good: SIGINT and SIGTERM, which reach whole groups, are for the requester to act on. A new
//! process gets the mask from before, once it has its job. Until then a signal makes it end, since it would be pending and meet that job.

#![expect(unsafe_code, reason = "a raw clone, and mending the C library's state after it")]

use super::{BYTES_MAX, wire};
use crate::deadline::Deadline;
use crate::poll::{EventFd, Interest, poll};
use crate::process::{EXIT_PANICKED, boot_time, has_own_proc, is_alone, note_start, tasks};
use crate::robust::{Registered, registered};
use crate::start::{block_signals, pending_signals, restore_signals};
use crate::{crash, force};
use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{RecvFlags, SendFlags, Shutdown, shutdown};
use rustix::process::Pid;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

/// What a [`Client`](super::Client) asked a new process to do.
#[derive(Debug)]
pub struct Request {
    /// What it sent.
    pub bytes: Vec<u8>,
    /// The descriptors with it, in its order, close-on-exec.
    pub fds: Vec<OwnedFd>,
}

/// Where the C library keeps what a raw clone leaves wrong.
struct Mend {
    /// Its copy of the thread's id.
    tid: *mut libc::c_void,
    list: Registered,
}

impl Mend {
    fn find() -> io::Result<Self> {
        let unsupported = |text: &str| io::Error::new(io::ErrorKind::Unsupported, text);
        let tid = match rustix::thread::get_clear_child_tid_address() {
            Ok(Some(address)) if !force::is("no-tid-address") => address.as_ptr(),
            _ => return Err(unsupported("the system does not tell where the C library keeps a thread's id")),
        };
        let list = registered().map_err(|unknown| unsupported(&unknown.to_string()))?;
        Ok(Self { tid, list })
    }
}

/// Whether there can be zygotes on this machine: the requester can ask as well as the zygote.
///
/// # Errors
/// `Unsupported`, with the reason: a kernel without `CONFIG_CHECKPOINT_RESTORE`, a C library with an unknown robust list. `NotFound` without `/proc`.
pub fn supported() -> io::Result<()> {
    let _ = Mend::find()?;
    tasks().map(drop)
}

/// Is a zygote: clones this process as often as `socket` asks for it, until the other end is closed, or for as long as
/// [`end_when_idle`](super::end_when_idle) says.
///
/// In a new process `prepare` is called, for what needs no request and takes time. If it gets a request `run` is
/// called with it, or with why it did not come whole (it may have no more descriptors), and what that returns is the
/// exit code; a panic is 101. The caller's process has one thread and has written out what it buffers.
///
/// # Errors
/// As [`supported`]; this process leads a session, or `socket` is none from [`pair`](super::pair).
pub fn serve(
    socket: OwnedFd,
    mut prepare: impl FnMut(),
    mut run: impl FnMut(io::Result<Request>) -> i32,
) -> io::Result<()> {
    let mend = Mend::find()?;
    let tasks = tasks()?;
    rustix::process::setpgid(None, None)?;
    let idle = sockopt::socket_timeout(&socket, Timeout::Recv)?;
    let has_own_proc = has_own_proc();
    let bell = take_bell(&socket)?;
    // For what the new processes get; each writes to its own copy.
    let mut buffer = vec![0; wire::HEAD + BYTES_MAX];
    let mask = block_signals();
    let served = loop {
        let until = idle.map(Deadline::after);
        match poll(&[(socket.as_fd(), Interest::Read), (bell.as_fd(), Interest::Read)], until) {
            Ok(ready) if ready == [false, true] && bell.quiet() => {}
            // Nothing comes by the socket any more but its end. Or nobody has asked for a while.
            Ok(_) => break Ok(()),
            Err(error) => break Err(error),
        }
        crash::point("zygote.rung");
        let before = boot_time();
        let made = is_alone(&tasks).map_err(|_| wire::NOT_ALONE).and_then(|is_alone| {
            if !is_alone {
                return Err(wire::NOT_ALONE);
            }
            let status = |error: io::Error| error.raw_os_error().unwrap_or(libc::EMFILE);
            let [theirs, its] = super::line().map_err(status)?;
            Ok((clone(&mend)?, theirs, its))
        });
        let answered = match made {
            Ok((Made::New, theirs, its)) => {
                // SAFETY: this is the process that was just cloned, by this thread, which `list` is of.
                unsafe { mend.list.renew() };
                // The line's other end above all: while it is open here, this end finds no end.
                drop((socket, bell, tasks, theirs));
                if has_own_proc {
                    note_start(before);
                }
                crash::point("zygote.born");
                // What cannot be had ahead is the job's to find out.
                let _ = std::panic::catch_unwind(AssertUnwindSafe(&mut prepare));
                let request = wait_for_request(its, idle, &mut buffer);
                crash::point("zygote.passed");
                restore_signals(&mask);
                // Nothing may unwind into the zygote's program.
                let code = std::panic::catch_unwind(AssertUnwindSafe(|| run(request)));
                std::process::exit(code.unwrap_or(EXIT_PANICKED));
            }
            Ok((Made::Old { pid, pidfd }, theirs, its)) => {
                crash::point("zygote.cloned");
                // Before the answer: who has it finds that no other process has this end.
                drop(its);
                answer(&socket, wire::Answer { status: wire::MADE, pid }, &[pidfd.as_fd(), theirs.as_fd()])
            }
            Err(status) => answer(&socket, wire::Answer { status, pid: 0 }, &[]),
        };
        crash::point("zygote.answered");
        match answered {
            Ok(()) => {}
            Err(Errno::PIPE | Errno::CONNRESET | Errno::CONNREFUSED) => break Ok(()),
            Err(error) => break Err(error.into()),
        }
    };
    restore_signals(&mask);
    served
}

/// The bell, which the requester has sent before anything else.
fn take_bell(socket: &OwnedFd) -> io::Result<EventFd> {
    let mut word = [0; wire::BELL.len()];
    let mut frame = wire::receive(socket, &mut word, RecvFlags::DONTWAIT)?;
    match frame.fds.pop() {
        Some(bell) if word == wire::BELL && frame.fds.is_empty() => Ok(EventFd::from(bell)),
        None if frame.is_cut => Err(Errno::MFILE.into()),
        _ => Err(Errno::BADMSG.into()),
    }
}

/// Waits for the request that a new process is for; ends this process if there comes none. An error if it did not come whole.
fn wait_for_request(line: OwnedFd, idle: Option<Duration>, buffer: &mut [u8]) -> io::Result<Request> {
    // Without a descriptor for them signals stay pending.
    let signals = pending_signals().ok();
    let watched = [Some(line.as_fd()), signals.as_ref().map(AsFd::as_fd)].into_iter().flatten();
    let watched: Vec<_> = watched.map(|fd| (fd, Interest::Read)).collect();
    let ready = poll(&watched, idle.map(Deadline::after));
    if !ready.is_ok_and(|ready| ready.first() == Some(&true)) {
        // Nobody has asked for a while, or there is a signal. No request can come any more after this, but one that has come before is there.
        shutdown(&line, Shutdown::Read)?;
    }
    match wire::receive(&line, buffer, RecvFlags::DONTWAIT) {
        Ok(frame) if frame.len > 0 => understand(frame, buffer),
        // SAFETY: ends this process without running anything of the program's, none of which it has begun.
        _ => unsafe { libc::_exit(0) },
    }
}

fn understand(frame: wire::Frame, buffer: &[u8]) -> io::Result<Request> {
    if frame.is_cut {
        return Err(Errno::MFILE.into());
    }
    let bytes = buffer.get(..frame.len).and_then(wire::body).ok_or(Errno::BADMSG)?.to_vec();
    Ok(Request { bytes, fds: frame.fds })
}

fn answer(socket: &OwnedFd, answer: wire::Answer, fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    wire::send(socket, &[IoSlice::new(&answer.to_bytes())], fds, SendFlags::empty())
}

/// In which of the two processes a clone returned.
enum Made {
    /// In the new one.
    New,
    /// In the zygote, which gets to know the new one.
    Old { pid: u32, pidfd: OwnedFd },
}

/// Clones this process, whose only thread calls it; what went wrong is a status to answer.
fn clone(mend: &Mend) -> Result<Made, i32> {
    let flags: libc::c_long =
        (libc::CLONE_PARENT | libc::CLONE_PIDFD | libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID)
            .into();
    let mut pidfd: RawFd = -1;
    let no_stack = std::ptr::null_mut::<libc::c_void>();
    let no_tls: libc::c_ulong = 0;
    // No exit signal: with CLONE_PARENT it is the zygote's own. The system call itself, since glibc's `fork` has no flags, and containers may refuse `clone3`.
    // SAFETY: memory is not shared, so the new process goes on here with a stack and memory of its own; it is the copy of the only
    // thread there is. The kernel writes a descriptor to `pidfd` here, and the new thread's id there to where glibc keeps that.
    #[cfg(not(target_arch = "aarch64"))]
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, no_stack, &raw mut pidfd, mend.tid, no_tls) };
    // SAFETY: as above; here the last two arguments change places.
    #[cfg(target_arch = "aarch64")]
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, no_stack, &raw mut pidfd, no_tls, mend.tid) };
    match u32::try_from(pid) {
        Ok(0) => Ok(Made::New),
        // SAFETY: the kernel made this descriptor for us in the clone.
        Ok(pid) => Ok(Made::Old { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
        Err(_) => Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EAGAIN)),
    }
}

/// A process id as the system's calls take it.
pub(super) fn raw_pid(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}
