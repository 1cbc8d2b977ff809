//! A condition variable between processes.

#![expect(unsafe_code, reason = "the thread's robust list")]

use crate::error::Failure;
use crate::here::Here;
use crate::lock_error::{LockError, LockResult};
use crate::macros::shared_primitive;
use crate::mutex::MutexGuard;
use crate::patience::Patience;
use crate::raw::RawCondvar;
use mp_shm::error::SessionError;
use mp_shm::place::WaitKind;
use mp_shm::{Shared, ShmSafe};
use std::fmt;
use std::mem::ManuallyDrop;
use std::time::{Duration, Instant};

/// A condition variable between processes, to be used with one [`Mutex`](crate::Mutex). Where it can live: as that.
///
/// A wait may end without a notification, and does when any process of the domain dies: look at the condition again, or use
/// [`wait_while`](Self::wait_while). So a notification is not lost with one that was to give it, or had received it, and died.
///
/// # Examples
/// ```
/// use mp_shm::{Shared, ShmSafe};
/// use mp_sync::{Condvar, Mutex};
///
/// #[derive(ShmSafe)]
/// #[repr(C)]
/// struct Inbox {
///     waiting: Mutex<u32>,
///     not_empty: Condvar,
/// }
///
/// let inbox = Shared::<Inbox>::zeroed()?;
/// *inbox.waiting.lock().unwrap() += 1;
/// inbox.not_empty.notify_one();
/// let mut waiting = inbox.not_empty.wait_while(inbox.waiting.lock().unwrap(), |waiting| *waiting == 0).unwrap();
/// *waiting -= 1;
/// # Ok::<(), mp_shm::error::SessionError>(())
/// ```
#[repr(C)]
pub struct Condvar {
    raw: RawCondvar,
}

shared_primitive!([] Condvar, "Condvar", raw: RawCondvar);

/// Whether a wait with a limit ended because the time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTimeout(bool);

impl WaitTimeout {
    /// Whether the time was over.
    #[must_use]
    pub fn timed_out(self) -> bool {
        self.0
    }
}

impl Condvar {
    /// A condition variable in the session of this program tree, behind a handle that can be sent.
    ///
    /// # Errors
    /// No memory, or no part in the session.
    pub fn shared() -> Result<Shared<Self>, SessionError> {
        Shared::zeroed()
    }

    /// Gives the mutex back, waits for a notification, takes the mutex again.
    ///
    /// # Errors
    /// As [`Mutex::lock`](crate::Mutex::lock), for taking it again.
    pub fn wait<'a, T: ShmSafe>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        untimed(self.wait_patiently(guard, Patience::Forever))
    }

    /// [`wait`](Self::wait) for at most `timeout`.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_timeout<'a, T: ShmSafe>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeout)> {
        self.wait_patiently(guard, timeout.into())
    }

    /// [`wait`](Self::wait) until `deadline`.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_deadline<'a, T: ShmSafe>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: Instant,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeout)> {
        self.wait_patiently(guard, deadline.into())
    }

    /// Waits while `condition` holds.
    ///
    /// # Errors
    /// As [`wait`](Self::wait): an owner that died, or poison, ends the wait, whatever the condition is.
    pub fn wait_while<'a, T: ShmSafe>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<MutexGuard<'a, T>> {
        while condition(&mut guard) {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    /// Waits while `condition` holds, for at most `timeout`; says whether it still holds.
    ///
    /// # Errors
    /// As [`wait_while`](Self::wait_while).
    pub fn wait_timeout_while<'a, T: ShmSafe>(
        &self,
        mut guard: MutexGuard<'a, T>,
        timeout: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeout)> {
        let patience = Patience::from(timeout);
        let mut timed_out = WaitTimeout(false);
        while condition(&mut guard) {
            if timed_out.timed_out() {
                return Ok((guard, timed_out));
            }
            (guard, timed_out) = self.wait_patiently(guard, patience)?;
        }
        Ok((guard, WaitTimeout(false)))
    }

    fn wait_patiently<'a, T: ShmSafe>(
        &self,
        guard: MutexGuard<'a, T>,
        patience: Patience,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeout)> {
        let mutex = ManuallyDrop::new(guard).owner();
        let here = Here::of(self, WaitKind::Condvar);
        // SAFETY: the guard's mutex lies in shared memory, as in `Mutex::lock`.
        let waited = unsafe { self.raw.wait(mutex.mutex(), &here, patience) };
        let (acquired, slept) = waited?;
        let timed_out = match slept {
            Ok(()) => WaitTimeout(false),
            Err(Failure::TimedOut | Failure::WouldBlock) => WaitTimeout(true),
            Err(failure) => {
                drop(mutex.taken(acquired));
                return Err(LockError::Failed(failure));
            }
        };
        match mutex.taken(acquired) {
            Ok(guard) => Ok((guard, timed_out)),
            Err(error) => Err(error.map(|guard| (guard, timed_out))),
        }
    }

    /// Wakes one that waits.
    pub fn notify_one(&self) {
        self.notify(1);
    }

    /// Wakes up to `count` that wait.
    pub fn notify(&self, count: u32) {
        self.raw.notify(count);
    }

    /// Wakes all that wait.
    pub fn notify_all(&self) {
        self.notify(u32::MAX);
    }
}

fn untimed<'a, T: ShmSafe>(
    waited: LockResult<(MutexGuard<'a, T>, WaitTimeout)>,
) -> LockResult<MutexGuard<'a, T>> {
    waited.map(|(guard, _)| guard).map_err(|error| error.map(|(guard, _)| guard))
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condvar").finish_non_exhaustive()
    }
}
