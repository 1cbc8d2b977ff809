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
