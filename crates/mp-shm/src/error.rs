//! What can go wrong with sessions, blocks and messages.

use crate::fds::FdError;
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
    /// The kernel's `membarrier` may be used by the session's processes and not by this one, or the other way round.
    OtherBarriers,
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
            Self::OtherBarriers => f.write_str(
                "attaching to a session: membarrier(2) is allowed to its processes and not to this one, or the other way round \
                 (a seccomp filter, or MP_FORCE)",
            ),
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

/// A named segment, a raw segment or a file could not be made, opened or removed.
#[derive(Debug)]
pub enum SegmentError {
    /// The name cannot be one; why.
    BadName(&'static str),
    /// A segment needs at least one byte.
    SizeZero,
    /// A living program has a segment of that name.
    InUse,
    /// There is no segment of that name, or no file.
    NotFound,
    /// What is there was not made by this library.
    NotASegment,
    /// Who was to initialise it has not done so.
    NotInitialised,
    /// It was made by another version of this library.
    OtherVersion,
    /// It holds a value of another type.
    OtherLayout,
    /// It belongs to another pid namespace; thread ids in its locks would mean other threads here.
    OtherPidNamespace,
    /// It is in use on another machine, or since before a reboot of this one.
    OtherMachine,
    /// It is shorter than it was made.
    Truncated,
    /// Others keep it locked for initialising it.
    Busy,
    /// As many processes are attached as can be.
    Full,
    /// The bytes asked for are not inside.
    OutOfRange,
    /// The C library or the kernel offers no robust list in the layout we know.
    NoRobustList,
    /// The descriptor of a [handle](crate::MemoryHandle) could not be had.
    Fd(FdError),
    /// The system refused.
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        error: io::Error,
    },
}

impl From<FdError> for SegmentError {
    fn from(error: FdError) -> Self {
        Self::Fd(error)
    }
}

impl SegmentError {
    /// For `map_err`: what was being done.
    pub(crate) fn io(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self::Io { doing, error }
    }
}

impl fmt::Display for SegmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadName(why) => write!(f, "a segment's name {why}"),
            Self::SizeZero => f.write_str("a segment of no bytes cannot be made or opened"),
            Self::InUse => f.write_str("creating a segment: a living program has one of that name"),
            Self::NotFound => f.write_str("opening a segment: there is none of that name"),
            Self::NotASegment => f.write_str("opening a segment: it was not made by multiproc"),
            Self::NotInitialised => {
                f.write_str("opening a segment: who was to initialise it has not done so")
            }
            Self::OtherVersion => f.write_str(
                "opening a segment: it was made by another version of multiproc; build both from one version",
            ),
            Self::OtherLayout => f.write_str("opening a segment: it holds a value of another type"),
            Self::OtherPidNamespace => f.write_str(
                "opening a segment: it belongs to another pid namespace; all its processes must share one",
            ),
            Self::OtherMachine => f.write_str("opening a segment: it is in use on another machine"),
            Self::Truncated => f.write_str("opening a segment: it is shorter than it was made"),
            Self::Busy => f.write_str("opening a segment: others keep it locked"),
            Self::Full => {
                write!(f, "opening a segment: {} processes have it open already", crate::placed::MEMBERS_MAX)
            }
            Self::OutOfRange => f.write_str("reading or writing a segment: the bytes are not inside of it"),
            Self::NoRobustList => mp_sys::robust::Unsupported.fmt(f),
            Self::Fd(error) => write!(f, "opening a segment: {error}"),
            Self::Io { doing, error } => write!(f, "{doing}: {error}"),
        }
    }
}

impl std::error::Error for SegmentError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Fd(error) => Some(error),
            Self::Io { error, .. } => Some(error),
            _ => None,
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
