//! What can go wrong with a descriptor on its way.

use crate::error::SessionError;
use std::os::fd::OwnedFd;
use std::{fmt, io};

/// A descriptor could not be deposited, or not be had back. Gives back the descriptor that was to be deposited.
#[derive(Debug)]
pub struct FdError {
    failure: FdFailure,
    fd: Option<OwnedFd>,
}

/// Why.
#[derive(Debug)]
pub enum FdFailure {
    /// There is no broker yet, and this program cannot start one: the hook has not run.
    NoHook,
    /// No memory in the session, or no part in it.
    Session(SessionError),
    /// The broker may have no more descriptors.
    Full,
    /// The broker that held the descriptor was killed.
    Lost,
    /// Who answers in the broker's place is of another user.
    OtherUser(u32),
    /// The broker did not answer in time: it is stopped, or the machine is overloaded.
    TimedOut,
    /// Brokers end as soon as they are started, or answer what is no answer.
    Broken,
    /// The system refused.
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        error: io::Error,
    },
}

impl FdError {
    pub(crate) fn new(failure: FdFailure, fd: Option<OwnedFd>) -> Self {
        Self { failure, fd }
    }

    /// For whoever makes the descriptor first, and cannot: what was being done.
    #[must_use]
    pub fn io(doing: &'static str, error: io::Error) -> Self {
        Self::new(FdFailure::Io { doing, error }, None)
    }

    /// Why.
    #[must_use]
    pub fn failure(&self) -> &FdFailure {
        &self.failure
    }

    /// The descriptor that was to be deposited.
    #[must_use]
    pub fn into_fd(self) -> Option<OwnedFd> {
        self.fd
    }

    /// Whether the descriptor is gone with a broker that was killed.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(self.failure, FdFailure::Lost)
    }

    /// Whether the broker may have no more descriptors.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.failure, FdFailure::Full)
    }
}

impl FdFailure {
    /// For `map_err`: what was being done.
    pub(crate) fn io(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| match error.kind() {
            io::ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Io { doing, error },
        }
    }
}

impl fmt::Display for FdFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHook => f.write_str(
                "multiproc's hook has not run in this program, so the broker of descriptors cannot be started; call multiproc::init() \
                 first thing in main, or build with the feature `constructor` (a default) and link multiproc into the executable itself",
            ),
            Self::Session(error) => error.fmt(f),
            Self::Full => f.write_str(
                "the session's broker may have no more descriptors; raise the hard limit (ulimit -Hn), or drop some",
            ),
            Self::Lost => f.write_str("the session's broker was killed, and the descriptors it held are lost"),
            Self::OtherUser(user) => write!(f, "who answers in the broker's place is of user {user}"),
            Self::TimedOut => f.write_str("the session's broker does not answer"),
            Self::Broken => f.write_str("the session's broker ends or fails as soon as it is started"),
            Self::Io { doing, error } => write!(f, "{doing}: {error}"),
        }
    }
}

impl fmt::Display for FdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "handing on a file descriptor: {}", self.failure)
    }
}

impl std::error::Error for FdError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.failure {
            FdFailure::Session(error) => Some(error),
            FdFailure::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}
