//! An array whose length is known at run time, under a mutex.

#![expect(unsafe_code, reason = "the elements behind the lock")]

use crate::lock_error::LockResult;
use crate::mutex::{Mutex, MutexGuard};
use mp_shm::error::SessionError;
use mp_shm::handle::Kind;
use mp_shm::references::Reference;
use mp_shm::{Array, Session, ShmSafe, message_of_handle};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

/// In front of the elements. Nobody else can name this type, so nobody can open the array without the lock.
#[derive(ShmSafe)]
#[repr(C)]
struct LockedHeader {
    mutex: Mutex<()>,
}

/// An array under a mutex: elements are reached as a slice, by one thread at a time. Clone it, send it to other processes.
///
/// For a length that is known when the program is built, a [`Mutex`] around `[T; N]` does.
///
/// # Examples
/// ```
/// use mp_sync::LockedArray;
///
/// let histogram = LockedArray::<u64>::new(256)?;
/// histogram.lock().unwrap()[7] += 1;
/// assert_eq!(histogram.lock().unwrap().iter().sum::<u64>(), 1);
/// # Ok::<(), mp_shm::error::SessionError>(())
/// ```
pub struct LockedArray<T: ShmSafe> {
    array: Array<T, LockedHeader>,
}

/// The array, locked.
#[must_use = "the array is given back when the guard is dropped"]
pub struct LockedArrayGuard<'a, T: ShmSafe> {
    array: &'a Array<T, LockedHeader>,
    lock: MutexGuard<'a, ()>,
}

impl<T: ShmSafe + Copy> LockedArray<T> {
    /// `len` elements with all bytes zero, in the session of this program tree.
    ///
    /// # Errors
    /// No memory, or no part in the session.
    pub fn new(len: usize) -> Result<Self, SessionError> {
        Self::new_in(Session::current()?, len)
    }

    /// [`new`](Self::new) in a given session: only processes attached to it can hold handles.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn new_in(session: Session, len: usize) -> Result<Self, SessionError> {
        Ok(Self { array: Array::with_header_in(session, len, |_| ())? })
    }
}

impl<T: ShmSafe> LockedArray<T> {
    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.array.len()
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.array.is_empty()
    }

    /// Names it for reports, by at most 24 bytes; what is longer is cut.
    pub fn set_name(&self, name: &str) {
        self.array.header().mutex.set_name(name);
    }

    /// Takes the lock, waiting for it as long as it takes.
    ///
    /// # Errors
    /// As [`Mutex::lock`].
    pub fn lock(&self) -> LockResult<LockedArrayGuard<'_, T>> {
        self.guarded(self.array.header().mutex.lock())
    }

    /// Takes the lock if it is free now.
    ///
    /// # Errors
    /// As [`Mutex::try_lock`].
    pub fn try_lock(&self) -> LockResult<LockedArrayGuard<'_, T>> {
        self.guarded(self.array.header().mutex.try_lock())
    }

    /// Takes the lock, waiting for at most `timeout`.
    ///
    /// # Errors
    /// As [`Mutex::lock_timeout`].
    pub fn lock_timeout(&self, timeout: Duration) -> LockResult<LockedArrayGuard<'_, T>> {
        self.guarded(self.array.header().mutex.lock_timeout(timeout))
    }

    /// Takes the lock, waiting until `deadline`.
    ///
    /// # Errors
    /// As [`Mutex::lock_deadline`].
    pub fn lock_deadline(&self, deadline: Instant) -> LockResult<LockedArrayGuard<'_, T>> {
        self.guarded(self.array.header().mutex.lock_deadline(deadline))
    }

    fn guarded<'a>(&'a self, locked: LockResult<MutexGuard<'a, ()>>) -> LockResult<LockedArrayGuard<'a, T>> {
        let guard = |lock| LockedArrayGuard { array: &self.array, lock };
        locked.map(guard).map_err(|error| error.map(guard))
    }

    fn reference(&self) -> &Reference {
        self.array.reference()
    }
}

message_of_handle!([T: ShmSafe] LockedArray<T>, Kind::ARRAY, LockedArray::reference, |reference| {
    Ok(LockedArray { array: Array::open(reference)? })
});

impl<T: ShmSafe> LockedArrayGuard<'_, T> {
    /// Says that what the lock guards is right again: later lockers get it without an error.
    pub fn recover(&self) {
        self.lock.recover();
    }
}

impl<T: ShmSafe> Deref for LockedArrayGuard<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the elements are reached through the lock alone, since nobody else can name the header's type; this thread has it,
        // and the array is borrowed.
        unsafe { self.array.elements().as_ref() }
    }
}

impl<T: ShmSafe> DerefMut for LockedArrayGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and the guard is borrowed alone.
        unsafe { self.array.elements().as_mut() }
    }
}

impl<T: ShmSafe> Clone for LockedArray<T> {
    fn clone(&self) -> Self {
        Self { array: self.array.clone() }
    }
}

impl<T: ShmSafe> fmt::Debug for LockedArray<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LockedArray({} elements, {})", self.len(), self.array.handle())
    }
}

impl<T: ShmSafe + fmt::Debug> fmt::Debug for LockedArrayGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
