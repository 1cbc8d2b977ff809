//! A counting semaphore between processes.

#![expect(unsafe_code, reason = "the thread's robust list")]

use crate::error::Failure;
use crate::here::Here;
use crate::macros::{named, shared_primitive};
use crate::patience::Patience;
use crate::raw::{RawMutex, RawSemaphore};
use mp_shm::Shared;
use mp_shm::error::SessionError;
use mp_shm::place::WaitKind;
use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

/// A counting semaphore between processes. Up to `N` threads can hold permits at a time. Where it can live: as
/// [`Mutex`](crate::Mutex); all bytes zero is a semaphore without permits.
///
/// Permits of a thread that dies, or ends without giving them back, come back. Those it took for good with [`Permit::forget`] do not: that
/// and [`add`](Self::add) are for those who count something that one takes and another gives.
///
/// # Examples
/// ```
/// use mp_sync::Semaphore;
///
/// let licences = Semaphore::<64>::shared(2)?;
/// let first = licences.acquire()?;
/// let _second = licences.acquire()?;
/// assert!(licences.try_acquire().is_err());
/// drop(first);
/// assert!(licences.try_acquire().is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[repr(C)]
pub struct Semaphore<const N: usize = 64> {
    raw: RawSemaphore<N>,
}

shared_primitive!([const N: usize] Semaphore<N>, "Semaphore", raw: RawSemaphore<N>);

/// Permits that this thread holds. Dropping it gives them back.
///
/// It stays with its thread:
/// ```compile_fail,E0277
/// let semaphore = mp_sync::Semaphore::<4>::shared(1).unwrap();
/// let permit = semaphore.acquire().unwrap();
/// std::thread::scope(|scope| drop(scope.spawn(move || drop(permit))));
/// ```
#[must_use = "the permits are given back when this is dropped"]
#[derive(Debug)]
pub struct Permit<'a, const N: usize = 64> {
    semaphore: &'a Semaphore<N>,
    slot: u32,
    count: u32,
    not_send: PhantomData<*const ()>,
}

impl<const N: usize> Semaphore<N> {
    /// A semaphore with `permits` in the session of this program tree, behind a handle that can be sent.
    ///
    /// # Errors
    /// No memory, or no part in the session.
    pub fn shared(permits: u32) -> Result<Shared<Self>, SessionError> {
        Shared::with(|semaphore: &mut Self| semaphore.set_up(permits, None))
    }

    /// A semaphore with `permits` that never has more than those.
    ///
    /// # Errors
    /// As [`shared`](Self::shared).
    pub fn bounded(permits: u32) -> Result<Shared<Self>, SessionError> {
        Shared::with(|semaphore: &mut Self| semaphore.set_up(permits, Some(permits)))
    }

    /// Sets the permits, and the most there may ever be, of a semaphore that nobody else can see yet.
    pub fn set_up(&mut self, permits: u32, bound: Option<u32>) {
        self.raw.set_up(permits, bound.map_or(0, |bound| bound.max(1)));
    }

    fn mutex(&self) -> &RawMutex {
        self.raw.mutex()
    }

    named!();

    /// Takes a permit, waiting for it as long as it takes.
    ///
    /// # Errors
    /// [`Failure`]: `TooManyHolders` when `N` threads hold permits, or this thread cannot hold one.
    pub fn acquire(&self) -> Result<Permit<'_, N>, Failure> {
        self.acquire_patiently(1, Patience::Forever)
    }

    /// Takes a permit if one is free now.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire), and `WouldBlock`.
    pub fn try_acquire(&self) -> Result<Permit<'_, N>, Failure> {
        self.acquire_patiently(1, Patience::None)
    }

    /// Takes a permit, waiting for at most `timeout`.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire), and `TimedOut`.
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<Permit<'_, N>, Failure> {
        self.acquire_patiently(1, timeout.into())
    }

    /// Takes a permit, waiting until `deadline`.
    ///
    /// # Errors
    /// As [`acquire_timeout`](Self::acquire_timeout).
    pub fn acquire_deadline(&self, deadline: Instant) -> Result<Permit<'_, N>, Failure> {
        self.acquire_patiently(1, deadline.into())
    }

    /// Takes `count` permits at once, waiting for them as `patience` says.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire), and as patience is.
    pub fn acquire_many(&self, count: u32, patience: Patience) -> Result<Permit<'_, N>, Failure> {
        self.acquire_patiently(count, patience)
    }

    fn acquire_patiently(&self, count: u32, patience: Patience) -> Result<Permit<'_, N>, Failure> {
        // SAFETY: a semaphore is made in shared memory only, which stays mapped; a handle lets go of a block only when no thread of
        // its process holds a word in it.
        let slot = unsafe { self.raw.acquire(&self.here(), patience, count) }?;
        Ok(Permit { semaphore: self, slot, count, not_send: PhantomData })
    }

    /// Adds permits, whoever took them, or nobody.
    ///
    /// # Errors
    /// [`Failure::OverRelease`]: there would be more than the bound, or than 2^32 - 1; none were added.
    pub fn add(&self, count: u32) -> Result<(), Failure> {
        // SAFETY: as in `acquire_patiently`.
        unsafe { self.raw.add(&self.here(), count) }
    }

    /// Permits that are free, a moment ago; those of a holder that has just died are not counted yet.
    #[must_use]
    pub fn available(&self) -> u32 {
        self.raw.free()
    }

    /// Permits in all, free and held, a moment ago.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.raw.total()
    }

    fn here(&self) -> Here {
        Here::of(self, WaitKind::Semaphore)
    }
}

impl<const N: usize> Permit<'_, N> {
    /// How many permits it stands for.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Takes the permits for good: they do not come back, not when this process dies either. [`Semaphore::add`] makes new ones.
    pub fn forget(self) {
        let permit = std::mem::ManuallyDrop::new(self);
        // SAFETY: as in `Semaphore::acquire`.
        unsafe { permit.semaphore.raw.forget(&permit.semaphore.here(), permit.slot, permit.count) };
    }
}

impl<const N: usize> Drop for Permit<'_, N> {
    fn drop(&mut self) {
        // SAFETY: as in `Semaphore::acquire`.
        unsafe { self.semaphore.raw.release(&self.semaphore.here(), self.slot, self.count) };
    }
}

impl<const N: usize> fmt::Debug for Semaphore<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore")
            .field("available", &self.available())
            .field("total", &self.total())
            .finish()
    }
}
