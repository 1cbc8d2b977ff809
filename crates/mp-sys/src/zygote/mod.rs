//! A process that clones itself on request: the low half of the start method `forkserver`.
//!
//! A *zygote* is a child of its requester with one thread and little memory. Each request makes it clone itself with
//! `CLONE_PARENT | CLONE_PIDFD`, so that the new process is the *requester's* child, is reaped by it like any other, and outlives the
//! zygote. A start costs what copying the zygote's few pages costs, however large the requester is.
//!
//! Owns: the socket between the two, and the zygote's process group. One request is under way at a time:
//!
//! ```text
//! requester (`Client`)                   zygote (`serve`)                    new process
//! makes a pipe, the gate
//! sends bytes, gate, descriptors    →    counts its threads, clones     →    mends the C library's state,
//! receives pid and pidfd            ←    answers, forgets the request        waits at the gate
//! moves it into its own group
//! opens the gate                    →    →    →    →    →    →    →    →     runs the job, exits with its code
//! ```
//!
//! The zygote leads a process group of its own, and what it clones is born there. So a process is either in the requester's group,
//! and then [`Client::request`] has given its [`Child`](crate::process::Child) to the caller, or in the zygote's, and then no job has run in it. An error
//! means that nothing ran.
//!
//! Death, at any instruction:
//!
//! | who | what follows |
//! |---|---|
//! | zygote, idle | the next request is an error at once; processes that run are not touched, and are reaped with their own status |
//! | zygote, during a request | its pidfd tells; the gate is shut, and whatever is left in its group ends without a job and is reaped |
//! | requester | the socket ends, and the zygote with it; a process before its gate finds the end of the pipe and exits; `init` reaps both |
//! | new process | its parent reaps it; a gate without a reader is no harm |
//!
//! Who may ask (nobody but the requester): the socket has no name and comes from [`pair`], so only they who inherited an end can use it. That is
//! the zygote; programs started meanwhile do not get it (close-on-exec), and in a process made by somebody else's `fork` the [`Client`] refuses.
//! `SO_PEERCRED` would add nothing: of such a pair it names who made the pair.
//!
//! What the new process has: the zygote's memory, environment, directory, limits and signal actions; its signal mask as it was when
//! [`serve`] was called; the descriptors that the zygote's program opened and those of the request. Handlers of
//! `pthread_atfork` do not run. The requester must be in the session (of terminals) that the zygote was started in.
//!
//! Not covered: a copy of the requester made by somebody else's `fork` holds the socket, so the zygote stays until that has ended, too.
//!
//! Source: clone(2); what glibc's `fork` mends in the child (sysdeps/nptl/_Fork.c).

mod client;
mod server;
mod wire;

pub use client::Client;
pub use server::{Request, serve, supported};

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Bytes that a request may have.
pub const BYTES_MAX: usize = 64 * 1024;

/// Descriptors that a request may have: what the system lets travel at once, without the gate.
pub const DESCRIPTORS_MAX: usize = wire::DESCRIPTORS_MAX - 1;

/// Makes the zygote that will [`serve`] this socket end when nobody has asked it for so long; 0 for never.
///
/// # Errors
/// What `setsockopt` says.
pub fn end_when_idle(socket: &OwnedFd, idle: Duration) -> io::Result<()> {
    let idle = (!idle.is_zero()).then_some(idle);
    Ok(rustix::net::sockopt::set_socket_timeout(socket, rustix::net::sockopt::Timeout::Recv, idle)?)
}

/// The two ends of a socket between a requester and its zygote, close-on-exec. The second one, for the zygote, has a number above the
/// standard ones, as [`start`](crate::start::Program::inherit) wants it.
///
/// # Errors
/// No free descriptor.
pub fn pair() -> io::Result<[OwnedFd; 2]> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    let (ours, its) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok([ours, crate::start::above_standard(its)?])
}
