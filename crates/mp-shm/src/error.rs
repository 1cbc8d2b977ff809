//! What can go wrong with sessions, blocks and messages.

use std::{fmt, io};

/// A session could not be created, attached to, or used.
#[derive(Debug)]
pub enum SessionError {
    /// The memory file could not be made or mapped.
    Create(io::Error),
    /// The file handed over could not be used.
    Attach(io::Error),
    /// The file is not a session.
    NotASession,
    /// The session was made by another version of this library.
    OtherVersion,
    /// The session belongs to another user.
    OtherUser,
    /// The session belongs to another pid namespace; thread ids in its locks would mean other threads here.
    OtherPidNamespace,
    /// A session of this number is attached already.
    AlreadyAttached(u16),
    /// The process has a current session already.
    AlreadyCurrent,
    /// The process is attached to [`SESSIONS_MAX`](crate::session::SESSIONS_MAX) sessions already.
    TooMany,
    /// The C library or the kernel offers no robust list in the layout we know.
    NoRobustList,
    /// The session has no free entry for one more process or thread.
    Full(&'static str),
    /// There is no memory for a block.
    OutOfMemory(io::Error),
    /// This process was made by a `fork` that the library knows nothing of; what the parent had is not its own.
    Forked,
    /// A thread could not be started.
    Thread(io::Error),
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(error) => write!(f, "creating a session: {error}"),
            Self::Attach(error) => write!(f, "attaching to a session: {error}"),
            Self::NotASession => f.write_str("attaching to a session: the file is not a session"),
            Self::OtherVersion => {
                f.write_str("attaching to a session: it was made by another version of multiproc; build both from one version")
            }
            Self::OtherUser => f.write_str("attaching to a session: it belongs to another user"),
            Self::OtherPidNamespace => {
                f.write_str("attaching to a session: it belongs to another pid namespace; all its processes must share one")
            }
            Self::AlreadyAttached(number) => write!(f, "attaching to a session: session {number} is attached already"),
            Self::AlreadyCurrent => f.write_str("this process has a current session already"),
            Self::TooMany => write!(f, "this process has {} sessions already", crate::session::SESSIONS_MAX),
            Self::NoRobustList => mp_sys::robust::Unsupported.fmt(f),
            Self::Full(what) => write!(f, "the session has no room for one more {what}"),
            Self::OutOfMemory(error) => write!(f, "allocating in the session: {error}"),
            Self::Forked => f.write_str(
                "this process was forked behind multiproc's back and has no part in the session; start it with Process::spawn",
            ),
            Self::Thread(error) => write!(f, "starting the thread that stands for this process: {error}"),
        }
    }
}

impl std::error::Error for SessionError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Create(error) | Self::Attach(error) | Self::OutOfMemory(error) | Self::Thread(error) => {
                Some(error)
            }
            _ => None,
        }
    }
}
