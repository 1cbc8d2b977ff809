//! A condition variable: to wait, without the mutex, for what others change with the mutex.
//!
//! ```text
//! who        does                                                                      edge
//! waiter     with the mutex: comes into the gate; gives the mutex back; sleeps; takes  the mutex's
//!            the mutex again
//! notifier   advances seq and wakes one, n or all who sleep                            CHANGED of the gate
//! ```
//!
//! A waiter may go on without having been notified: it looks at its condition again.
//! Death: of a notifier between its change and its notification, and of a waiter that was notified and had not yet acted: the
//! death ends all sleeps of the domain, so no notification is lost. Of a waiter that sleeps: nothing waits for it.
//! Models: loom `condvar_*` in `tests/loom_event.rs`; negative control without the domain.

#![expect(unsafe_code, reason = "the thread's robust list")]

use super::{Acquired, Gate, Ground, RawMutex, Waiting};
use crate::error::Failure;
use crate::patience::Patience;
use mp_sys::crash;
use mp_sys::robust::HELD_MAX;

/// The condition variable.
#[derive(Debug)]
#[cfg_attr(not(loom), derive(mp_shm::ShmSafe))]
#[repr(C)]
pub struct RawCondvar {
    gate: Gate,
}

impl RawCondvar {
    /// Nobody waits.
    #[cfg(loom)]
    #[must_use]
    pub fn new() -> Self {
        Self { gate: Gate::new() }
    }

    /// Gives `mutex` back, which this thread owns, sleeps until a notification, and takes it again. Says how the sleep ended, and what
    /// the mutex told.
    ///
    /// # Errors
    /// If the mutex could not be taken again.
    ///
    /// # Safety
    /// As [`RawMutex::lock`].
    pub unsafe fn wait<G: Ground>(
        &self,
        mutex: &RawMutex,
        ground: &G,
        patience: Patience,
    ) -> Result<(Acquired, Result<(), Failure>), Failure> {
        let mut waiting = Waiting::new(ground, patience);
        let inside = self.gate.enter(&waiting);
        mutex.unlock();
        crash::point("condvar.waiting");
        let slept = inside.sleep(&mut waiting, std::iter::empty());
        drop(inside);
        // SAFETY: as the caller promises.
        let acquired = unsafe { mutex.lock(ground, Patience::Forever, HELD_MAX) }?;
        Ok((acquired, slept))
    }

    /// Wakes up to `count` waiters.
    #[inline]
    pub fn notify(&self, count: u32) {
        self.gate.announce(count);
    }
}
