//! Where a thread leaves the value of a task, and another one waits for it.
//!
//! ```text
//! Pending ──fill──► Done ──wait──► Taken
//!    └─────abandon────▲
//! ```
//!
//! What comes first counts: a value that arrives after the pool was closed is given back to who brings it.

use crate::error::{PoolError, TaskError};
use crate::failure;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

enum Outcome<R> {
    Pending,
    Done(Result<R, TaskError>),
    Taken,
}

pub(crate) struct Slot<R> {
    outcome: Mutex<Outcome<R>>,
    changed: Condvar,
}

/// A slot whose type of value does not matter.
pub(crate) trait Abandon: Send + Sync {
    /// The pool is closed: nobody waits for the value any longer.
    fn abandon(&self);
}

impl<R> Slot<R> {
    pub(crate) fn new() -> Self {
        Self { outcome: Mutex::new(Outcome::Pending), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Outcome<R>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the value back if it comes too late. (Its destructor is user code, which runs under no lock.)
    pub(crate) fn fill(&self, value: Result<R, TaskError>) -> Option<Result<R, TaskError>> {
        let mut outcome = self.lock();
        if !matches!(*outcome, Outcome::Pending) {
            return Some(value);
        }
        *outcome = Outcome::Done(value);
        self.changed.notify_all();
        None
    }

    pub(crate) fn is_filled(&self) -> bool {
        !matches!(*self.lock(), Outcome::Pending)
    }

    /// Waits for the value and takes it.
    pub(crate) fn wait(&self) -> Result<R, TaskError> {
        let mut outcome = self.lock();
        loop {
            match std::mem::replace(&mut *outcome, Outcome::Taken) {
                Outcome::Done(value) => return value,
                Outcome::Taken => return Err(closed()),
                Outcome::Pending => *outcome = Outcome::Pending,
            }
            outcome = self.changed.wait(outcome).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<R: Send> Abandon for Slot<R> {
    fn abandon(&self) {
        // An error has no destructor of the user's.
        let _ = self.fill(Err(closed()));
    }
}

fn closed() -> TaskError {
    failure::of_pool(PoolError::Closed)
}
