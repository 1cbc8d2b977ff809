//! A mutex between processes, with the data it guards.
//!
//! See [`raw`](crate::raw) for how it works.

#![expect(unsafe_code, reason = "the data behind the lock; the thread's robust list")]

use crate::error::Failure;
use crate::here::Here;
use crate::lock_error::{LockResult, tell};
use crate::macros::{named, shared_primitive};
use crate::patience::Patience;
use crate::raw::{Acquired, RawMutex};
use mp_shm::error::SessionError;
use mp_shm::place::WaitKind;
use mp_shm::{Shared, ShmSafe};
use mp_sys::robust::HELD_MAX;
use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

/// A mutex between processes. It survives its owner: whoever comes next gets it and is told.
///
/// It lives in shared memory only: alone behind a handle ([`Mutex::shared`]), or as a member of a `#[repr(C)]` struct that derives
/// [`ShmSafe`] and lies in a [`Shared`], a segment or a file. All bytes zero is a free mutex around a `T` of zero bytes.
///
/// A guard cannot be sent to another thread. One that is forgotten keeps the mutex until its thread ends; the next locker is told then as
/// of a death.
///
/// # Examples
/// ```
/// use mp_sync::Mutex;
///
/// let total = Mutex::shared(0_u64)?;
/// *total.lock().unwrap() += 5;
/// assert_eq!(*total.lock().unwrap(), 5);
/// # Ok::<(), mp_shm::error::SessionError>(())
/// ```
#[repr(C)]
pub struct Mutex<T: ShmSafe> {
    raw: RawMutex,
    value: UnsafeCell<T>,
}

shared_primitive!([T: ShmSafe] Mutex<T>, "Mutex", raw: RawMutex, T);

/// A mutex that is taken. Dropping it gives it back; a panic meanwhile poisons it.
///
/// It stays with its thread:
/// ```compile_fail,E0277
/// let mutex = mp_sync::Mutex::shared(0).unwrap();
/// let guard = mutex.lock().unwrap();
/// std::thread::scope(|scope| drop(scope.spawn(move || drop(guard))));
/// ```
#[must_use = "the mutex is given back when the guard is dropped"]
pub struct MutexGuard<'a, T: ShmSafe> {
    mutex: &'a Mutex<T>,
    was_panicking: bool,
    /// The lock belongs to the thread: its robust list has it.
    not_send: PhantomData<*const ()>,
}

// SAFETY: a shared guard gives a shared reference to the value alone, and `T: ShmSafe` is `Sync`.
unsafe impl<T: ShmSafe> Sync for MutexGuard<'_, T> {}

impl<T: ShmSafe> Mutex<T> {
    /// A mutex around `value` in the session of this program tree, behind a handle that can be sent.
    ///
    /// # Errors
    /// No memory, or no part in the session.
    pub fn shared(value: T) -> Result<Shared<Self>, SessionError> {
        Shared::with(|mutex: &mut Self| *mutex.get_mut() = value)
    }

    /// The value, of a mutex that nobody else can see yet.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    pub(crate) fn mutex(&self) -> &RawMutex {
        &self.raw
    }

    named!();

    /// Takes the mutex, waiting for it as long as it takes.
    ///
    /// # Errors
    /// [`LockError`](crate::LockError): the owner died with it, it is poisoned, or this thread cannot take it.
    #[inline]
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        self.lock_patiently(Patience::Forever)
    }

    /// Takes the mutex if it is free now.
    ///
    /// # Errors
    /// As [`lock`](Self::lock), and [`Failure::WouldBlock`].
    #[inline]
    pub fn try_lock(&self) -> LockResult<MutexGuard<'_, T>> {
        self.lock_patiently(Patience::None)
    }

    /// Takes the mutex, waiting for at most `timeout`.
    ///
    /// # Errors
    /// As [`lock`](Self::lock), and [`Failure::TimedOut`].
    pub fn lock_timeout(&self, timeout: Duration) -> LockResult<MutexGuard<'_, T>> {
        self.lock_patiently(timeout.into())
    }

    /// Takes the mutex, waiting until `deadline`.
    ///
    /// # Errors
    /// As [`lock_timeout`](Self::lock_timeout).
    pub fn lock_deadline(&self, deadline: Instant) -> LockResult<MutexGuard<'_, T>> {
        self.lock_patiently(deadline.into())
    }

    #[inline]
    fn lock_patiently(&self, patience: Patience) -> LockResult<MutexGuard<'_, T>> {
        let here = Here::of(self, WaitKind::Mutex);
        // SAFETY: a mutex is made in shared memory only, which stays mapped; a handle lets go of a block only when no thread of its
        // process holds a word in it.
        let acquired = unsafe { self.raw.lock(&here, patience, HELD_MAX) }?;
        self.taken(acquired)
    }

    #[inline]
    pub(crate) fn taken(&self, acquired: Acquired) -> LockResult<MutexGuard<'_, T>> {
        if acquired != Acquired::Clean {
            self.raw.poison();
        }
        let guard =
            MutexGuard { mutex: self, was_panicking: std::thread::panicking(), not_send: PhantomData };
        tell(&self.raw, acquired, guard)
    }

    /// Whether what it guards is suspect, a moment ago.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.raw.is_poisoned()
    }
}

impl<'a, T: ShmSafe> MutexGuard<'a, T> {
    /// Says that what the mutex guards is right again: later lockers get it without an error.
    pub fn recover(&self) {
        self.mutex.raw.clear_poison();
    }

    pub(crate) fn owner(&self) -> &'a Mutex<T> {
        self.mutex
    }
}

impl<T: ShmSafe> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard stands for the mutex, which this thread owns.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T: ShmSafe> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard stands for the mutex, which this thread owns, and is borrowed alone.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T: ShmSafe> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if !self.was_panicking && std::thread::panicking() && self.mutex.raw.is_mine() {
            self.mutex.raw.poison();
        }
        self.mutex.raw.unlock();
    }
}

impl<T: ShmSafe> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").field("owner_tid", &self.raw.owner_tid()).finish_non_exhaustive()
    }
}

impl<T: ShmSafe + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A mutex that its owner can take again.
///
/// The value is reached by shared reference only: two guards of one thread may exist. Use atomics or cells of the value's own.
#[repr(C)]
pub struct RecursiveMutex<T: ShmSafe> {
    raw: RawMutex,
    value: T,
}

shared_primitive!([T: ShmSafe] RecursiveMutex<T>, "RecursiveMutex", raw: RawMutex, T);

/// The note of the mutex that counts how often its owner has taken it once more.
const AGAIN: usize = 1;

/// One turn of a recursive mutex. Dropping it gives that turn back.
#[must_use = "the mutex is given back when the guard is dropped"]
pub struct RecursiveGuard<'a, T: ShmSafe> {
    mutex: &'a RecursiveMutex<T>,
    was_panicking: bool,
    not_send: PhantomData<*const ()>,
}

impl<T: ShmSafe> RecursiveMutex<T> {
    /// A recursive mutex around `value` in the session of this program tree, behind a handle that can be sent.
    ///
    /// # Errors
    /// No memory, or no part in the session.
    pub fn shared(value: T) -> Result<Shared<Self>, SessionError> {
        Shared::with(|mutex: &mut Self| *mutex.get_mut() = value)
    }

    /// The value, of a mutex that nobody else can see yet.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.value
    }

    fn mutex(&self) -> &RawMutex {
        &self.raw
    }

    named!();

    /// Takes the mutex, or takes it once more; waits for it as long as it takes.
    ///
    /// # Errors
    /// As [`Mutex::lock`]; [`Failure::TooManyHeld`] after 2^32 - 1 turns.
    pub fn lock(&self) -> LockResult<RecursiveGuard<'_, T>> {
        self.lock_patiently(Patience::Forever)
    }

    /// Takes the mutex if it is free now, or this thread's.
    ///
    /// # Errors
    /// As [`lock`](Self::lock), and [`Failure::WouldBlock`].
    pub fn try_lock(&self) -> LockResult<RecursiveGuard<'_, T>> {
        self.lock_patiently(Patience::None)
    }

    /// Takes the mutex, waiting for at most `timeout`.
    ///
    /// # Errors
    /// As [`lock`](Self::lock), and [`Failure::TimedOut`].
    pub fn lock_timeout(&self, timeout: Duration) -> LockResult<RecursiveGuard<'_, T>> {
        self.lock_patiently(timeout.into())
    }

    /// Takes the mutex, waiting until `deadline`.
    ///
    /// # Errors
    /// As [`lock_timeout`](Self::lock_timeout).
    pub fn lock_deadline(&self, deadline: Instant) -> LockResult<RecursiveGuard<'_, T>> {
        self.lock_patiently(deadline.into())
    }

    fn lock_patiently(&self, patience: Patience) -> LockResult<RecursiveGuard<'_, T>> {
        use std::sync::atomic::Ordering;
        let again = self.raw.note(AGAIN);
        let acquired = if self.raw.is_mine() {
            let turns = again.load(Ordering::Relaxed).checked_add(1).ok_or(Failure::TooManyHeld)?;
            again.store(turns, Ordering::Relaxed);
            Acquired::Clean
        } else {
            let here = Here::of(self, WaitKind::RecursiveMutex);
            // SAFETY: as of `Mutex`.
            let acquired = unsafe { self.raw.lock(&here, patience, HELD_MAX) }?;
            again.store(0, Ordering::Relaxed);
            acquired
        };
        if acquired != Acquired::Clean {
            self.raw.poison();
        }
        let guard =
            RecursiveGuard { mutex: self, was_panicking: std::thread::panicking(), not_send: PhantomData };
        tell(&self.raw, acquired, guard)
    }

    /// Whether what it guards is suspect, a moment ago.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.raw.is_poisoned()
    }
}

impl<T: ShmSafe> RecursiveGuard<'_, T> {
    /// Says that what the mutex guards is right again: later lockers get it without an error.
    pub fn recover(&self) {
        self.mutex.raw.clear_poison();
    }
}

impl<T: ShmSafe> Deref for RecursiveGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.mutex.value
    }
}

impl<T: ShmSafe> Drop for RecursiveGuard<'_, T> {
    fn drop(&mut self) {
        use std::sync::atomic::Ordering;
        let raw = &self.mutex.raw;
        if !raw.is_mine() {
            return;
        }
        if !self.was_panicking && std::thread::panicking() {
            raw.poison();
        }
        match raw.note(AGAIN).load(Ordering::Relaxed) {
            0 => raw.unlock(),
            turns => raw.note(AGAIN).store(turns - 1, Ordering::Relaxed),
        }
    }
}

impl<T: ShmSafe> fmt::Debug for RecursiveMutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecursiveMutex").field("owner_tid", &self.raw.owner_tid()).finish_non_exhaustive()
    }
}

impl<T: ShmSafe + fmt::Debug> fmt::Debug for RecursiveGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
