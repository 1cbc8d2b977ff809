//! A process that clones itself on request: the low half of the start method `forkserver`.
//!
//! A *zygote* is a child of its requester with one thread and little memory. Each request makes it clone itself with
//! `CLONE_PARENT | CLONE_PIDFD`, so that the new process is the *requester's* child, is reaped by it like any other, and outlives the
//! zygote. A start costs what copying the zygote's few pages costs, however large the requester is.
//!
//! Owns: the socket between the two, the bell, the line to the process that was cloned last, and the zygote's process group. One request is under way at
//! a time:
//!
//! ```text
//! requester (`Client`)                   zygote (`serve`)                    new process
//! rings: it wants a process         →    counts its threads, makes a
//!                                        line, clones                   →    mends the C library's state,
//! receives pid, pidfd and line      ←    answers, forgets all three          prepares, waits for what comes by its line
//! moves it into its own group
//! sends bytes and descriptors       →    →    →    →    →    →    →    →     runs the job, exits with its code
//!
//! rings for the next one            →    and so on                      →    this one waits: the *spare*
//! ```
//!
//! So the next request finds its process made, and costs two wake-ups, of the spare and by its end. The answer lies in the socket until then. It says
//! nothing about that request: if it is a failure, or the spare has died, another process is wanted.
//!
//! The *bell* is an eventfd: who is woken by a message is put on the processor of who sent it. That is as it should be for the new process, for which the
//! requester will wait; the zygote would be in the way of both.
//!
//! The zygote leads a process group of its own, and what it clones is born there. So a process is either in the requester's group,
//! and then it may have a job, or in the zygote's, and then it has none. An error means that nothing ran.
//!
//! Death, at any instruction:
//!
//! | who | what follows |
//! |---|---|
//! | zygote, idle | the next request is an error at once; processes that run are not touched, and are reaped with their own status |
//! | zygote, during a request | its pidfd tells; whatever is left in its group is without a job, is ended and reaped |
//! | requester | the socket ends, and the zygote with it; a process without its job finds the end of its line and exits; `init` reaps both |
//! | new process | its parent reaps it; if it was the spare, the request takes another one |
//!
//! A spare that nobody asks for long ends, as its zygote does, and so does one that gets a signal. It shuts its line first, and then looks once more: what was
//! sent before is done, and who sends later finds the line shut.
//!
//! Who may ask (nobody but the requester): the socket has no name and comes from [`pair`], so only they who inherited an end can use it. That is
//! the zygote; programs started meanwhile do not get it (close-on-exec), and in a process made by somebody else's `fork` the [`Client`] refuses.
//! `SO_PEERCRED` would add nothing: of such a pair it names who made the pair.
//!
//! What the new process has: the zygote's memory, environment, directory, limits and signal actions; its signal mask as it was when
//! [`serve`] was called; the descriptors that the zygote's program opened and those of the request. Handlers of
//! `pthread_atfork` do not run. The requester must be in the session (of terminals) that the zygote was started in.
//!
//! Not covered: a copy of the requester made by somebody else's `fork` holds the socket, so the zygote stays until that has ended, too; made in the middle of
//! a request, the line, so that a process without its job stays if the requester dies then.
//!
//! Source: clone(2); what glibc's `fork` mends in the child (sysdeps/nptl/_Fork.c).

mod client;
mod server;
mod wire;

pub use client::Client;
pub use server::{Request, serve, supported};

use crate::poll::EventFd;
use crate::start::above_standard;
use rustix::net::SendFlags;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Bytes that a request may have.
pub const BYTES_MAX: usize = 64 * 1024;

/// Descriptors that a request may have: what the system lets travel at once.
pub const DESCRIPTORS_MAX: usize = wire::DESCRIPTORS_MAX;

/// Makes the zygote that will [`serve`] this socket end, and its spare, when nobody has asked for so long; 0 for never.
///
/// # Errors
/// What `setsockopt` says.
pub fn end_when_idle(socket: &OwnedFd, idle: Duration) -> io::Result<()> {
    let idle = (!idle.is_zero()).then_some(idle);
    Ok(rustix::net::sockopt::set_socket_timeout(socket, rustix::net::sockopt::Timeout::Recv, idle)?)
}

/// A requester's end of the connection to a zygote, for [`Client::new`].
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    bell: EventFd,
}

/// A connection to a zygote, close-on-exec, and its other end, for [`serve`]. All have numbers above the standard ones, as
/// [`start`](crate::start::Program::inherit) wants it of the other end.
///
/// # Errors
/// No free descriptor.
pub fn pair() -> io::Result<(Connection, OwnedFd)> {
    let [socket, its] = line()?;
    // A program that has closed its standard streams may print all the same: not into these.
    let socket = above_standard(socket)?;
    let bell = EventFd::from(above_standard(EventFd::new()?)?);
    // The zygote finds it there.
    wire::send(&socket, &[IoSlice::new(&wire::BELL)], &[bell.as_fd()], SendFlags::DONTWAIT)?;
    Ok((Connection { socket, bell }, above_standard(its)?))
}

fn line() -> io::Result<[OwnedFd; 2]> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    let (one, other) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok([one, other])
}
