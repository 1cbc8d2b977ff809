//! How long a blocking call may wait.

use crate::deadline::Deadline;
use std::time::{Duration, Instant};

/// How long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Not at all.
    None,
    /// Until then.
    Until(Deadline),
    /// As long as it takes.
    Forever,
}

impl Patience {
    /// The deadline, if there is one.
    #[must_use]
    pub fn deadline(self) -> Option<Deadline> {
        match self {
            Self::Until(deadline) => Some(deadline),
            Self::None | Self::Forever => None,
        }
    }

    /// No longer than until `look`, after which the caller looks again. No patience at all is as good as as much.
    #[must_use]
    pub fn at_most(self, look: Deadline) -> Self {
        match self {
            Self::Until(deadline) if deadline < look => self,
            Self::None | Self::Until(_) | Self::Forever => Self::Until(look),
        }
    }

    /// Whether there is none left.
    #[must_use]
    pub fn is_over(self) -> bool {
        match self {
            Self::None => true,
            Self::Until(deadline) => deadline.passed(),
            Self::Forever => false,
        }
    }
}

impl From<Duration> for Patience {
    fn from(timeout: Duration) -> Self {
        Self::Until(Deadline::after(timeout))
    }
}

impl From<Instant> for Patience {
    fn from(deadline: Instant) -> Self {
        Self::Until(deadline.into())
    }
}
