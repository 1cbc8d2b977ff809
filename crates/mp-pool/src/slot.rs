//! Where a thread leaves the value of a task, and another one waits for it, or is called or woken.
//!
//! ```text
//! Open(nobody, a waker or a call) ──fill──► Filled ──wait, poll──► Taken
//!                │ with a call ──fill──► Taken, and it is called
//! ```
//!
//! Filled once, by whoever took the task from those that are queued or running. Callbacks and wakers run without the lock.

use crate::error::TaskError;
use mp_sys::poller;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

type Outcome<R> = Result<R, TaskError>;
type Call<R> = Box<dyn FnOnce(Outcome<R>) + Send>;

enum Place<R> {
    Open(Claim<R>),
    Filled(Outcome<R>),
    Taken,
}

/// Who wants to know, besides those that wait.
enum Claim<R> {
    Nobody,
    Wake(Waker),
    Call(Call<R>),
}

pub(crate) struct Slot<R> {
    place: Mutex<Place<R>>,
    filled: Condvar,
}

/// A slot whose type of value does not matter.
pub(crate) trait AnySlot: Send + Sync {
    /// There will be no value.
    fn fail(&self, error: TaskError);
    /// Whether it has been filled.
    fn is_filled(&self) -> bool;
    /// Waits until it is filled, at most until then; says whether it is.
    fn wait_until(&self, until: Option<Instant>) -> bool;
}

impl<R> Slot<R> {
    pub(crate) fn new() -> Self {
        Self { place: Mutex::new(Place::Open(Claim::Nobody)), filled: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Place<R>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Once.
    pub(crate) fn fill(&self, outcome: Outcome<R>) {
        let mut place = self.lock();
        let before = std::mem::replace(&mut *place, Place::Taken);
        match before {
            Place::Open(Claim::Call(call)) => {
                drop(place);
                run(call, outcome);
            }
            before => {
                *place = Place::Filled(outcome);
                drop(place);
                self.filled.notify_all();
                if let Place::Open(Claim::Wake(waker)) = before {
                    poller::wake(waker);
                }
            }
        }
    }

    /// Takes what is there. Once: what is left there later is not for anybody.
    fn take(place: &mut Place<R>) -> Option<Outcome<R>> {
        if !matches!(place, Place::Filled(_)) {
            return None;
        }
        match std::mem::replace(place, Place::Taken) {
            Place::Filled(outcome) => Some(outcome),
            Place::Open(_) | Place::Taken => None,
        }
    }

    /// Waits for the value and takes it.
    pub(crate) fn wait(&self) -> Outcome<R> {
        let mut place = self.lock();
        loop {
            if let Some(outcome) = Self::take(&mut place) {
                return outcome;
            }
            place = self.filled.wait(place).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes the value, or has `waker` woken when it is there.
    pub(crate) fn poll(&self, waker: &Waker) -> Option<Outcome<R>> {
        // Cloned and dropped without the lock: a waker is code of its runtime.
        let waker = waker.clone();
        let mut place = self.lock();
        let outcome = Self::take(&mut place);
        if outcome.is_none() {
            let before = std::mem::replace(&mut *place, Place::Open(Claim::Wake(waker)));
            drop(place);
            drop(before);
        }
        outcome
    }

    /// Has `call` called with the value when it is there; here, if it is there already.
    pub(crate) fn call(&self, call: Call<R>) {
        let mut place = self.lock();
        match Self::take(&mut place) {
            None => {
                let before = std::mem::replace(&mut *place, Place::Open(Claim::Call(call)));
                drop(place);
                drop(before);
            }
            Some(outcome) => {
                drop(place);
                run(call, outcome);
            }
        }
    }
}

/// A callback that panics hurts nobody; the panic hook has said what there is to say.
fn run<R>(call: Call<R>, outcome: Outcome<R>) {
    let _ = mp_spawn::panics::catch(|| call(outcome));
}

impl<R: Send> AnySlot for Slot<R> {
    fn fail(&self, error: TaskError) {
        self.fill(Err(error));
    }

    fn is_filled(&self) -> bool {
        !matches!(*self.lock(), Place::Open(_))
    }

    fn wait_until(&self, until: Option<Instant>) -> bool {
        let mut place = self.lock();
        while matches!(*place, Place::Open(_)) {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            place = match left {
                None => self.filled.wait(place).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => return false,
                Some(left) => self.filled.wait_timeout(place, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        true
    }
}
