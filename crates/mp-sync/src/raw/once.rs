//! Something that is to be done once, by whichever process comes first.
//!
//! ```text
//! state      event                                       to         who
//! NEW        begin, with the mutex                       RUNNING    runner, keeps the mutex
//! RUNNING    finished                                    DONE       runner; gives the mutex back
//! RUNNING    the runner died, or panicked: next begin    RUNNING    next runner, told so
//! ```
//!
//! Edges: DONE Release, pairs with the Acquire in `is_done`: what was done is visible.
//! Death: of the runner: the mutex wakes the next, which finds RUNNING and runs again.
//! Models: loom `once_*` in `tests/loom_mutex.rs`; negative control without links.

#![expect(unsafe_code, reason = "the thread's robust list")]

use super::{Ground, RawMutex};
use crate::error::Failure;
use crate::patience::Patience;
use mp_sys::atomic::{AtomicU32, Ordering};
use mp_sys::crash;
use mp_sys::robust::HELD_MAX;

/// The once.
#[derive(Debug)]
#[cfg_attr(not(loom), derive(mp_shm::ShmSafe))]
#[repr(C)]
pub struct RawOnce {
    mutex: RawMutex,
    state: AtomicU32,
    unused: [AtomicU32; 15],
}

const RUNNING: u32 = 1;
const DONE: u32 = 2;

/// What is to be done by the caller of [`RawOnce::begin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Nothing: it is done.
    Done,
    /// The caller is to do it, then to call [`RawOnce::end`].
    Run {
        /// Somebody began before and did not come to the end.
        again: bool,
    },
}

impl RawOnce {
    /// Not done.
    #[cfg(loom)]
    #[must_use]
    pub fn new() -> Self {
        Self {
            mutex: RawMutex::new(),
            state: AtomicU32::new(0),
            unused: std::array::from_fn(|_| AtomicU32::new(0)),
        }
    }

    /// The mutex, for its name and owner.
    pub fn mutex(&self) -> &RawMutex {
        &self.mutex
    }

    /// Whether it is done.
    #[inline]
    #[must_use]
    pub fn is_done(&self) -> bool {
        // DONE: Acquire, pairs with the Release in `end`.
        self.state.load(Ordering::Acquire) == DONE
    }

    /// Waits until it is done, or is the caller's to do.
    ///
    /// # Errors
    /// [`Failure`]
    ///
    /// # Safety
    /// The memory stays mapped, and is used for nothing else, until this thread has called `end` or has ended.
    pub unsafe fn begin<G: Ground>(&self, ground: &G, patience: Patience) -> Result<Begun, Failure> {
        if self.is_done() {
            return Ok(Begun::Done);
        }
        // SAFETY: as the caller promises.
        unsafe { self.mutex.lock(ground, patience, HELD_MAX) }?;
        let state = self.state.load(Ordering::Relaxed);
        if state == DONE {
            self.mutex.unlock();
            return Ok(Begun::Done);
        }
        self.state.store(RUNNING, Ordering::Relaxed);
        crash::point("once.running");
        Ok(Begun::Run { again: state == RUNNING })
    }

    /// Ends what [`begin`](Self::begin) began; `done`: it has come to its end.
    pub fn end(&self, done: bool) {
        if self.mutex.is_mine() {
            if done {
                // DONE: Release, pairs with the Acquire in `is_done`.
                self.state.store(DONE, Ordering::Release);
                crash::point("once.done");
            }
            self.mutex.unlock();
        }
    }
}
