//! A latch between processes.

#![expect(unsafe_code, reason = "the thread's robust list")]

use crate::error::Failure;
use crate::here::Here;
use crate::macros::{named, shared_primitive};
use crate::patience::Patience;
use crate::raw::{Counted, RawLatch, RawMutex};
use crate::waitable::{Armed, Waitable};
use mp_shm::Shared;
use mp_shm::error::SessionError;
use mp_shm::place::WaitKind;
use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

/// A count that goes down to zero once, and can be waited for, between processes. Where it can live: as [`Mutex`](crate::Mutex); all
/// bytes zero is a latch at zero.
///
/// A thread that owes a count can take a [`Ticket`]: if it dies with it, one waiter is told, once, and later ones find the latch poisoned
/// until [`recover`](Self::recover). Up to `N` threads can have tickets.
///
/// # Examples
/// ```
/// let loaded = mp_sync::Latch::<64>::shared(2)?;
/// loaded.count_down()?;
/// drop(loaded.ticket()?);
/// loaded.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[repr(C)]
pub struct Latch<const N: usize = 64> {
    raw: RawLatch<N>,
}

shared_primitive!([const N: usize] Latch<N>, "Latch", raw: RawLatch<N>);

/// A count that this thread owes. Dropping it counts down.
#[must_use = "the latch is counted down when this is dropped"]
#[derive(Debug)]
pub struct Ticket<'a, const N: usize = 64> {
    latch: &'a Latch<N>,
    slot: u32,
    not_send: PhantomData<*const ()>,
}

/// Why a wait ended before the count was zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LatchError {
    /// A thread of this process died with its ticket: its count is missing. Told once. Of several that died since the last look, one.
    OwnerDied {
        /// Pid of the process.
        owner: u32,
    },
    /// Such a death was told before, and nobody has called [`Latch::recover`] since.
    Poisoned,
    /// The time was over, or this thread cannot wait.
    Failed(Failure),
}

impl fmt::Display for LatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnerDied { owner } => {
                write!(f, "waiting for a latch: process {owner} died with a ticket, its count is missing")
            }
            Self::Poisoned => {
                f.write_str("waiting for a latch: a count is missing since a ticket's holder died")
            }
            Self::Failed(failure) => write!(f, "waiting for a latch: {failure}"),
        }
    }
}

impl std::error::Error for LatchError {}

impl<const N: usize> Latch<N> {
    /// A latch at `count` in the session of this program tree, behind a handle that can be sent.
    ///
    /// # Errors
    /// No memory, or no part in the session.
    pub fn shared(count: u32) -> Result<Shared<Self>, SessionError> {
        Shared::with(|latch: &mut Self| latch.set_up(count))
    }

    /// Sets the count, of a latch that nobody else can see yet.
    pub fn set_up(&mut self, count: u32) {
        self.raw.set_up(count);
    }

    fn mutex(&self) -> &RawMutex {
        self.raw.mutex()
    }

    named!();

    /// The count, a moment ago.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.raw.count()
    }

    /// Counts down by one; zero stays zero.
    ///
    /// # Errors
    /// [`Failure`] if this thread cannot take its lock.
    pub fn count_down(&self) -> Result<(), Failure> {
        // SAFETY: a latch is made in shared memory only, which stays mapped; a handle lets go of a block only when no thread of its
        // process holds a word in it.
        unsafe { self.raw.count_down(&self.here(), 1) }
    }

    /// Says that this thread owes a count.
    ///
    /// # Errors
    /// [`Failure`]: `TooManyHolders` when `N` threads have tickets.
    pub fn ticket(&self) -> Result<Ticket<'_, N>, Failure> {
        // SAFETY: as in `count_down`.
        let slot = unsafe { self.raw.ticket(&self.here()) }?;
        Ok(Ticket { latch: self, slot, not_send: PhantomData })
    }

    /// Waits until the count is zero, as long as it takes.
    ///
    /// # Errors
    /// [`LatchError`]
    pub fn wait(&self) -> Result<(), LatchError> {
        self.wait_patiently(Patience::Forever)
    }

    /// Whether the count is zero now.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), and [`Failure::WouldBlock`] if it is not.
    pub fn try_wait(&self) -> Result<(), LatchError> {
        self.wait_patiently(Patience::None)
    }

    /// Waits until the count is zero, for at most `timeout`.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), and [`Failure::TimedOut`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<(), LatchError> {
        self.wait_patiently(timeout.into())
    }

    /// Waits until the count is zero, or `deadline`.
    ///
    /// # Errors
    /// As [`wait_timeout`](Self::wait_timeout).
    pub fn wait_deadline(&self, deadline: Instant) -> Result<(), LatchError> {
        self.wait_patiently(deadline.into())
    }

    fn wait_patiently(&self, patience: Patience) -> Result<(), LatchError> {
        // SAFETY: as in `count_down`.
        match unsafe { self.raw.wait(&self.here(), patience) } {
            Ok(Counted::Zero) => Ok(()),
            Ok(Counted::Poisoned) => Err(LatchError::Poisoned),
            Ok(Counted::OwnerDied(owner)) => Err(LatchError::OwnerDied { owner }),
            Err(failure) => Err(LatchError::Failed(failure)),
        }
    }

    /// Says that missing counts have been seen to: waits go on.
    pub fn recover(&self) {
        self.mutex().clear_poison();
    }

    fn here(&self) -> Here {
        Here::of(self, WaitKind::Latch)
    }
}

impl<const N: usize> Waitable for Latch<N> {
    fn is_ready(&self) -> bool {
        self.raw.is_ready()
    }

    fn arm(&self) -> Armed<'_> {
        Armed::with_holders(self.raw.gate(), self, || self.raw.tickets().held_watches().collect())
    }
}

impl<const N: usize> Drop for Ticket<'_, N> {
    fn drop(&mut self) {
        // SAFETY: as in `Latch::count_down`.
        unsafe { self.latch.raw.end_ticket(&self.latch.here(), self.slot) };
    }
}

impl<const N: usize> fmt::Debug for Latch<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latch").field("count", &self.count()).finish()
    }
}
