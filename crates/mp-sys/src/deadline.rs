//! Absolute times on the monotonic clock, as the kernel takes them.

use std::time::{Duration, Instant};

/// A point on `CLOCK_MONOTONIC`, in nanoseconds since its start.
///
/// The clock does not jump when the wall clock is set, so a wait that ends at a deadline is never early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline {
    nanos: u64,
}

impl Deadline {
    /// The present.
    #[must_use]
    pub fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
        Self { nanos: seconds.saturating_mul(1_000_000_000).saturating_add(nanos) }
    }

    /// `timeout` from now; a timeout beyond five centuries counts as that.
    #[must_use]
    pub fn after(timeout: Duration) -> Self {
        Self::now().later(timeout)
    }

    /// `by` after this point.
    #[must_use]
    pub fn later(self, by: Duration) -> Self {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        Self { nanos: self.nanos.saturating_add(by) }
    }

    /// Whether the point has been reached.
    #[must_use]
    pub fn passed(self) -> bool {
        Self::now() >= self
    }

    /// The time left, zero when the point has been reached.
    #[must_use]
    pub fn left(self) -> Duration {
        Duration::from_nanos(self.nanos.saturating_sub(Self::now().nanos))
    }

    /// Seconds and nanoseconds, for the kernel.
    #[must_use]
    pub fn timespec(self) -> rustix::time::Timespec {
        let seconds = i64::try_from(self.nanos / 1_000_000_000).unwrap_or(i64::MAX);
        let nanos = i64::try_from(self.nanos % 1_000_000_000).unwrap_or(0);
        rustix::time::Timespec { tv_sec: seconds, tv_nsec: nanos }
    }
}

impl From<Instant> for Deadline {
    fn from(instant: Instant) -> Self {
        Self::after(instant.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_counts_down_and_saturates() {
        let now = Deadline::now();
        assert!(now.passed());
        assert_eq!(now.left(), Duration::ZERO);
        let far = Deadline::after(Duration::from_secs(3600));
        assert!(!far.passed() && far > now);
        assert!(far.left() <= Duration::from_secs(3600));
        let never = Deadline::after(Duration::MAX);
        assert!(never.left() > Duration::from_secs(3600 * 24 * 365 * 400));
        assert!(never.timespec().tv_sec > 0);
    }
}
