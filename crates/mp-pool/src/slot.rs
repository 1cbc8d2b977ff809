//! Where a thread leaves the value of a task, and another one waits for it.
//!
//! ```text
//! None ──fill, abandon──► Some(value or error) ──wait──► None
//! ```
//!
//! What comes first counts: a value that arrives after the pool was closed is given back to who brings it.

use crate::error::{PoolError, TaskError};
use crate::failure;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

pub(crate) struct Slot<R> {
    outcome: Mutex<Option<Result<R, TaskError>>>,
    changed: Condvar,
}

/// A slot whose type of value does not matter.
pub(crate) trait Abandon: Send + Sync {
    /// The pool is closed: nobody waits for the value any longer.
    fn abandon(&self);
}

impl<R> Slot<R> {
    pub(crate) fn new() -> Self {
        Self { outcome: Mutex::new(None), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Result<R, TaskError>>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the value back if it comes too late. (Its destructor is user code, which runs under no lock.)
    pub(crate) fn fill(&self, value: Result<R, TaskError>) -> Option<Result<R, TaskError>> {
        let mut outcome = self.lock();
        if outcome.is_some() {
            return Some(value);
        }
        *outcome = Some(value);
        self.changed.notify_all();
        None
    }

    pub(crate) fn is_filled(&self) -> bool {
        self.lock().is_some()
    }

    /// Waits for the value and takes it. Once: what is left there later is not for anybody.
    pub(crate) fn wait(&self) -> Result<R, TaskError> {
        let mut outcome = self.lock();
        loop {
            if let Some(value) = outcome.take() {
                return value;
            }
            outcome = self.changed.wait(outcome).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<R: Send> Abandon for Slot<R> {
    fn abandon(&self) {
        // An error has no destructor of the user's.
        let _ = self.fill(Err(failure::of_pool(PoolError::Closed)));
    }
}
