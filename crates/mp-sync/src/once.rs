//! Something that is done once, by whichever process comes first.

#![expect(unsafe_code, reason = "the thread's robust list")]

use crate::error::Failure;
use crate::here::Here;
use crate::macros::{named, shared_primitive};
use crate::patience::Patience;
use crate::raw::{Begun, RawMutex, RawOnce};
use mp_shm::Shared;
use mp_shm::error::SessionError;
use mp_shm::place::WaitKind;
use std::fmt;
use std::time::{Duration, Instant};

/// Runs something once among all processes. Where it can live: as [`Mutex`](crate::Mutex); all bytes zero is "not yet".
///
/// If the process that runs it dies, or it panics, the next caller runs it again, and is told so.
///
/// # Examples
/// ```
/// let once = mp_sync::Once::shared()?;
/// let mut runs = 0;
/// once.call_once(|_| runs += 1)?;
/// once.call_once(|_| runs += 1)?;
/// assert_eq!(runs, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[repr(C)]
pub struct Once {
    raw: RawOnce,
}

shared_primitive!([] Once, "Once", raw: RawOnce);

/// What a runner is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnceState {
    again: bool,
}

impl OnceState {
    /// Whether somebody began before and died or panicked half-way: what it left is suspect.
    #[must_use]
    pub fn is_again(self) -> bool {
        self.again
    }
}

impl Once {
    /// A once in the session of this program tree, behind a handle that can be sent.
    ///
    /// # Errors
    /// No memory, or no part in the session.
    pub fn shared() -> Result<Shared<Self>, SessionError> {
        Shared::zeroed()
    }

    fn mutex(&self) -> &RawMutex {
        self.raw.mutex()
    }

    named!();

    /// Whether it is done: what the runner did is visible then.
    #[must_use]
    pub fn is_completed(&self) -> bool {
        self.raw.is_done()
    }

    /// Runs `run` unless it was done; waits if somebody else is running it. It is done when this returns.
    ///
    /// # Errors
    /// [`Failure`]; [`Failure::AlreadyHeld`] from within `run` itself.
    pub fn call_once(&self, run: impl FnOnce(OnceState)) -> Result<(), Failure> {
        self.call_patiently(Patience::Forever, run)
    }

    /// Runs `run` unless it was done, or somebody else is running it.
    ///
    /// # Errors
    /// As [`call_once`](Self::call_once), and [`Failure::WouldBlock`].
    pub fn try_call_once(&self, run: impl FnOnce(OnceState)) -> Result<(), Failure> {
        self.call_patiently(Patience::None, run)
    }

    /// [`call_once`](Self::call_once), waiting for another runner for at most `timeout`.
    ///
    /// # Errors
    /// As [`call_once`](Self::call_once), and [`Failure::TimedOut`].
    pub fn call_once_timeout(&self, timeout: Duration, run: impl FnOnce(OnceState)) -> Result<(), Failure> {
        self.call_patiently(timeout.into(), run)
    }

    /// [`call_once`](Self::call_once), waiting for another runner until `deadline`.
    ///
    /// # Errors
    /// As [`call_once_timeout`](Self::call_once_timeout).
    pub fn call_once_deadline(&self, deadline: Instant, run: impl FnOnce(OnceState)) -> Result<(), Failure> {
        self.call_patiently(deadline.into(), run)
    }

    fn call_patiently(&self, patience: Patience, run: impl FnOnce(OnceState)) -> Result<(), Failure> {
        /// Ends the turn, also when `run` panics.
        struct Turn<'a>(&'a RawOnce, bool);
        impl Drop for Turn<'_> {
            fn drop(&mut self) {
                self.0.end(self.1);
            }
        }
        let here = Here::of(self, WaitKind::Once);
        // SAFETY: it is made in shared memory only, which stays mapped; a handle lets go of a block only when no thread of its process
        // holds a word in it.
        if let Begun::Run { again } = unsafe { self.raw.begin(&here, patience) }? {
            let mut turn = Turn(&self.raw, false);
            run(OnceState { again });
            turn.1 = true;
        }
        Ok(())
    }
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").field("completed", &self.is_completed()).finish()
    }
}
