//! What can go wrong with a primitive.

use std::fmt;

/// A call did not do what it was for; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// It would have had to wait.
    WouldBlock,
    /// The time was over.
    TimedOut,
    /// The calling thread has the lock already; waiting for itself would never end.
    AlreadyHeld,
    /// The calling thread holds as many locks as a thread may: 1024.
    TooManyHeld,
    /// As many threads hold a part of it as it has slots for.
    TooManyHolders,
    /// There would be more permits than the bound.
    OverRelease,
    /// The C library or the kernel offers no robust list in the layout we know.
    NoRobustList,
    /// This process was made by a `fork` that the library knows nothing of, and has no part in the domain.
    NotAMember,
}

impl Failure {
    /// Whether it is only that the call was not to wait, or not so long.
    #[must_use]
    pub fn is_time(self) -> bool {
        matches!(self, Self::WouldBlock | Self::TimedOut)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WouldBlock => "it would have had to wait",
            Self::TimedOut => "the time is over",
            Self::AlreadyHeld => "this thread has the lock already",
            Self::TooManyHeld => "this thread holds 1024 locks already",
            Self::TooManyHolders => "as many threads hold it as it has slots for",
            Self::OverRelease => "there would be more permits than the bound",
            Self::NoRobustList => {
                "the C library's robust list has an unknown layout (glibc on a 64-bit machine is needed)"
            }
            Self::NotAMember => {
                "this process was forked behind multiproc's back and has no part in the memory"
            }
        })
    }
}

impl std::error::Error for Failure {}
