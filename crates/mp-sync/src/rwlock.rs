//! A reader-writer lock between processes, with the data it guards.

#![expect(unsafe_code, reason = "the data behind the lock; the thread's robust list")]

use crate::here::Here;
use crate::lock_error::{LockResult, tell};
use crate::macros::{named, shared_primitive};
use crate::patience::Patience;
use crate::raw::{Acquired, RawMutex, RawRwLock};
use mp_shm::error::SessionError;
use mp_shm::place::WaitKind;
use mp_shm::{Shared, ShmSafe};
use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

/// A reader-writer lock between processes: up to `N` threads read, or one writes. Writers go first: readers that come while one waits
/// wait, too.
///
/// It survives its holders. When a writer dies the next one is told, as of a [`Mutex`](crate::Mutex); a reader that dies has changed
/// nothing, and nobody is told. Where it can live: as [`Mutex`](crate::Mutex).
///
/// A thread that has it for reading and asks for it again while a writer waits never gets it.
///
/// # Examples
/// ```
/// use mp_sync::RwLock;
///
/// let limits = RwLock::<[u32; 2]>::shared([1, 9])?;
/// assert_eq!(limits.read().unwrap()[1], 9);
/// limits.write().unwrap()[0] = 2;
/// # Ok::<(), mp_shm::error::SessionError>(())
/// ```
#[repr(C)]
pub struct RwLock<T: ShmSafe, const N: usize = 64> {
    raw: RawRwLock<N>,
    value: UnsafeCell<T>,
}

shared_primitive!([T: ShmSafe, const N: usize] RwLock<T, N>, "RwLock", raw: RawRwLock<N>, T);

/// The lock, taken for reading.
#[must_use = "the lock is given back when the guard is dropped"]
pub struct ReadGuard<'a, T: ShmSafe, const N: usize = 64> {
    lock: &'a RwLock<T, N>,
    slot: u32,
    not_send: PhantomData<*const ()>,
}

/// The lock, taken for writing.
#[must_use = "the lock is given back when the guard is dropped"]
pub struct WriteGuard<'a, T: ShmSafe, const N: usize = 64> {
    lock: &'a RwLock<T, N>,
    was_panicking: bool,
    not_send: PhantomData<*const ()>,
}

impl<T: ShmSafe, const N: usize> RwLock<T, N> {
    /// A lock around `value` in the session of this program tree, behind a handle that can be sent.
    ///
    /// # Errors
    /// No memory, or no part in the session.
    pub fn shared(value: T) -> Result<Shared<Self>, SessionError> {
        Shared::with(|lock: &mut Self| *lock.get_mut() = value)
    }

    /// The value, of a lock that nobody else can see yet.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    fn mutex(&self) -> &RawMutex {
        self.raw.mutex()
    }

    named!();

    /// Takes the lock for reading, waiting for it as long as it takes.
    ///
    /// # Errors
    /// [`LockError`](crate::LockError): a writer died with it, it is poisoned, or this thread cannot take it; `TooManyHolders` when `N`
    /// threads read.
    pub fn read(&self) -> LockResult<ReadGuard<'_, T, N>> {
        self.read_patiently(Patience::Forever)
    }

    /// Takes the lock for reading if no writer has it or waits for it.
    ///
    /// # Errors
    /// As [`read`](Self::read), and `WouldBlock`.
    pub fn try_read(&self) -> LockResult<ReadGuard<'_, T, N>> {
        self.read_patiently(Patience::None)
    }

    /// Takes the lock for reading, waiting for at most `timeout`.
    ///
    /// # Errors
    /// As [`read`](Self::read), and `TimedOut`.
    pub fn read_timeout(&self, timeout: Duration) -> LockResult<ReadGuard<'_, T, N>> {
        self.read_patiently(timeout.into())
    }

    /// Takes the lock for reading, waiting until `deadline`.
    ///
    /// # Errors
    /// As [`read_timeout`](Self::read_timeout).
    pub fn read_deadline(&self, deadline: Instant) -> LockResult<ReadGuard<'_, T, N>> {
        self.read_patiently(deadline.into())
    }

    fn read_patiently(&self, patience: Patience) -> LockResult<ReadGuard<'_, T, N>> {
        let here = Here::of(self, WaitKind::Read);
        // SAFETY: a lock is made in shared memory only, which stays mapped; a handle lets go of a block only when no thread of its
        // process holds a word in it.
        let (slot, acquired) = unsafe { self.raw.read(&here, patience, |told| self.note(told)) }?;
        tell(self.mutex(), acquired, ReadGuard { lock: self, slot, not_send: PhantomData })
    }

    /// Takes the lock for writing, waiting for it as long as it takes.
    ///
    /// # Errors
    /// [`LockError`](crate::LockError): a writer died with it, it is poisoned, or this thread cannot take it.
    pub fn write(&self) -> LockResult<WriteGuard<'_, T, N>> {
        self.write_patiently(Patience::Forever)
    }

    /// Takes the lock for writing if nobody has it.
    ///
    /// # Errors
    /// As [`write`](Self::write), and `WouldBlock`.
    pub fn try_write(&self) -> LockResult<WriteGuard<'_, T, N>> {
        self.write_patiently(Patience::None)
    }

    /// Takes the lock for writing, waiting for at most `timeout`.
    ///
    /// # Errors
    /// As [`write`](Self::write), and `TimedOut`.
    pub fn write_timeout(&self, timeout: Duration) -> LockResult<WriteGuard<'_, T, N>> {
        self.write_patiently(timeout.into())
    }

    /// Takes the lock for writing, waiting until `deadline`.
    ///
    /// # Errors
    /// As [`write_timeout`](Self::write_timeout).
    pub fn write_deadline(&self, deadline: Instant) -> LockResult<WriteGuard<'_, T, N>> {
        self.write_patiently(deadline.into())
    }

    fn write_patiently(&self, patience: Patience) -> LockResult<WriteGuard<'_, T, N>> {
        let here = Here::of(self, WaitKind::Write);
        // SAFETY: as in `read_patiently`.
        let acquired = unsafe { self.raw.write(&here, patience, |told| self.note(told)) }?;
        let was_panicking = std::thread::panicking();
        tell(self.mutex(), acquired, WriteGuard { lock: self, was_panicking, not_send: PhantomData })
    }

    fn note(&self, told: Acquired) {
        if told != Acquired::Clean {
            self.mutex().poison();
        }
    }

    /// Whether what it guards is suspect, a moment ago.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.mutex().is_poisoned()
    }
}

impl<T: ShmSafe, const N: usize> WriteGuard<'_, T, N> {
    /// Says that what the lock guards is right again: later lockers get it without an error.
    pub fn recover(&self) {
        self.lock.mutex().clear_poison();
    }
}

impl<T: ShmSafe, const N: usize> Deref for ReadGuard<'_, T, N> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the guard stands for the lock, which this thread has for reading: nobody writes.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ShmSafe, const N: usize> Deref for WriteGuard<'_, T, N> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the guard stands for the lock, which this thread has for writing.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ShmSafe, const N: usize> DerefMut for WriteGuard<'_, T, N> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard stands for the lock, which this thread has for writing, and is borrowed alone.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ShmSafe, const N: usize> Drop for ReadGuard<'_, T, N> {
    fn drop(&mut self) {
        self.lock.raw.end_read(self.slot);
    }
}

impl<T: ShmSafe, const N: usize> Drop for WriteGuard<'_, T, N> {
    fn drop(&mut self) {
        if !self.was_panicking && std::thread::panicking() && self.lock.mutex().is_mine() {
            self.lock.mutex().poison();
        }
        self.lock.raw.end_write();
    }
}

impl<T: ShmSafe, const N: usize> fmt::Debug for RwLock<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLock").field("readers", &self.raw.readers().holders().len()).finish_non_exhaustive()
    }
}

impl<T: ShmSafe + fmt::Debug, const N: usize> fmt::Debug for ReadGuard<'_, T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ShmSafe + fmt::Debug, const N: usize> fmt::Debug for WriteGuard<'_, T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
