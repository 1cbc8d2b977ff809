//! A barrier between processes.

#![expect(unsafe_code, reason = "the thread's robust list")]

use crate::error::Failure;
use crate::here::Here;
use crate::macros::{named, shared_primitive};
use crate::patience::Patience;
use crate::raw::{Arrived, RawBarrier, RawMutex};
use mp_shm::Shared;
use mp_shm::error::SessionError;
use mp_shm::place::WaitKind;
use std::fmt;
use std::time::{Duration, Instant};

/// A barrier between processes: as many threads as it is for wait for each other, again and again. Up to `N` can wait. Where it can
/// live: as [`Mutex`](crate::Mutex).
///
/// It *breaks* when one that waits dies or has waited too long, or by [`abort`](Self::abort): all who wait, and all who come, are told so
/// until [`reset`](Self::reset).
///
/// # Examples
/// ```
/// let barrier = mp_sync::Barrier::<64>::shared(1)?;
/// let arrival = barrier.wait()?;
/// assert!(arrival.is_leader() && arrival.index() == 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[repr(C)]
pub struct Barrier<const N: usize = 64> {
    raw: RawBarrier<N>,
}

shared_primitive!([const N: usize] Barrier<N>, "Barrier", raw: RawBarrier<N>);

/// How this thread came through a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    index: u32,
    leader: bool,
}

impl Arrival {
    /// Its place in the order of arrival, from 0; each is given once a round.
    #[must_use]
    pub fn index(self) -> u32 {
        self.index
    }

    /// Whether it came last; one of each round is the leader.
    #[must_use]
    pub fn is_leader(self) -> bool {
        self.leader
    }
}

/// Why a thread did not come through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarrierError {
    /// The barrier is broken.
    Broken,
    /// This thread's time was over, or it cannot wait; the former breaks the barrier.
    Failed(Failure),
}

impl fmt::Display for BarrierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken => f.write_str("waiting at a barrier: it is broken"),
            Self::Failed(failure) => write!(f, "waiting at a barrier: {failure}"),
        }
    }
}

impl std::error::Error for BarrierError {}

impl<const N: usize> Barrier<N> {
    /// A barrier for `parties` in the session of this program tree, behind a handle that can be sent.
    ///
    /// # Errors
    /// No memory, or no part in the session.
    ///
    /// # Panics
    /// If `parties` is 0 or above `N`.
    pub fn shared(parties: u32) -> Result<Shared<Self>, SessionError> {
        Shared::with(|barrier: &mut Self| barrier.set_up(parties))
    }

    /// Sets for how many it is, of a barrier that nobody else can see yet.
    ///
    /// # Panics
    /// If `parties` is 0 or above `N`.
    pub fn set_up(&mut self, parties: u32) {
        assert!(parties >= 1 && parties as usize <= N, "a barrier is for 1 to {N} parties, not {parties}");
        self.raw.set_up(parties);
    }

    fn mutex(&self) -> &RawMutex {
        self.raw.mutex()
    }

    named!();

    /// For how many it is.
    #[must_use]
    pub fn parties(&self) -> u32 {
        self.raw.parties()
    }

    /// How many wait, a moment ago.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.raw.waiting()
    }

    /// Whether it is broken, a moment ago.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.raw.is_broken()
    }

    /// Waits until all parties do.
    ///
    /// # Errors
    /// [`BarrierError`]
    pub fn wait(&self) -> Result<Arrival, BarrierError> {
        self.wait_patiently(Patience::Forever)
    }

    /// Waits until all parties do, for at most `timeout`. A time that is over breaks the barrier.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), and [`Failure::TimedOut`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Arrival, BarrierError> {
        self.wait_patiently(timeout.into())
    }

    /// Waits until all parties do, or `deadline`.
    ///
    /// # Errors
    /// As [`wait_timeout`](Self::wait_timeout).
    pub fn wait_deadline(&self, deadline: Instant) -> Result<Arrival, BarrierError> {
        self.wait_patiently(deadline.into())
    }

    fn wait_patiently(&self, patience: Patience) -> Result<Arrival, BarrierError> {
        // SAFETY: a barrier is made in shared memory only, which stays mapped; a handle lets go of a block only when no thread of its
        // process holds a word in it.
        match unsafe { self.raw.wait(&self.here(), patience) } {
            Ok(Arrived::Through(index)) => Ok(Arrival { index, leader: index + 1 >= self.parties() }),
            Ok(Arrived::Broken) => Err(BarrierError::Broken),
            Err(failure) => Err(BarrierError::Failed(failure)),
        }
    }

    /// Breaks the barrier.
    ///
    /// # Errors
    /// [`BarrierError::Failed`] if this thread cannot take its lock.
    pub fn abort(&self) -> Result<(), BarrierError> {
        // SAFETY: as in `wait_patiently`.
        unsafe { self.raw.abort(&self.here()) }.map_err(BarrierError::Failed)
    }

    /// Makes the barrier whole again; those who wait are told that it broke.
    ///
    /// # Errors
    /// As [`abort`](Self::abort).
    pub fn reset(&self) -> Result<(), BarrierError> {
        // SAFETY: as in `wait_patiently`.
        unsafe { self.raw.reset(&self.here()) }.map_err(BarrierError::Failed)
    }

    fn here(&self) -> Here {
        Here::of(self, WaitKind::Barrier)
    }
}

impl<const N: usize> fmt::Debug for Barrier<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier").field("parties", &self.parties()).field("waiting", &self.waiting()).finish()
    }
}
