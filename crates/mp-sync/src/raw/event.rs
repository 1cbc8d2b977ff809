//! An event: set or not; any number wait until it is set.
//!
//! ```text
//! state          event    to             who
//! 2g             set      2g + 3         setter; announces to all: bit 0 says set, the rest counts how often it was set
//! 2g + 1         set      the same       nobody sleeps on it
//! 2g + 1         clear    2g             clearer
//! ```
//!
//! A waiter goes on when bit 0 is set, or when the count is another than when it began: set and clear in between are not missed.
//! Edges: SET Release, pairs with the Acquire in `wait`: what the setter did before is visible.
//! Death: of a setter between state and announcement: the death ends all sleeps of the domain. Of a waiter: nothing.
//! Models: loom `event_*` in `tests/loom_event.rs`; negative control without the domain.

use super::{Gate, Ground, Waiting};
use crate::error::Failure;
use crate::patience::Patience;
use mp_sys::atomic::{AtomicU32, Ordering};
use mp_sys::crash;

/// The event.
#[derive(Debug)]
#[cfg_attr(not(loom), derive(mp_shm::ShmSafe))]
#[repr(C)]
pub struct RawEvent {
    state: AtomicU32,
    gate: Gate,
}

const SET: u32 = 1;

impl RawEvent {
    /// An event that is not set.
    #[cfg(loom)]
    #[must_use]
    pub fn new() -> Self {
        Self { state: AtomicU32::new(0), gate: Gate::new() }
    }

    /// Sets it and wakes all who wait.
    pub fn set(&self) {
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            let next = if state & SET == 0 { state.wrapping_add(2) | SET } else { state };
            // SET: Release, pairs with the Acquire in `wait`; also where it is set already, for what this caller did before.
            match self.state.compare_exchange(state, next, Ordering::Release, Ordering::Relaxed) {
                Ok(_) if next == state => return,
                Ok(_) => break,
                Err(now) => state = now,
            }
        }
        crash::point("event.set");
        self.gate.announce(u32::MAX);
    }

    /// Clears it.
    pub fn clear(&self) {
        self.state.fetch_and(!SET, Ordering::Relaxed);
    }

    /// Whether it is set.
    #[inline]
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.state.load(Ordering::Acquire) & SET != 0
    }

    /// Waits until it is set.
    ///
    /// # Errors
    /// [`Failure`].
    #[inline]
    pub fn wait<G: Ground>(&self, ground: &G, patience: Patience) -> Result<(), Failure> {
        // SET: Acquire, pairs with the Release in `set`.
        let began = self.state.load(Ordering::Acquire);
        if began & SET != 0 {
            return Ok(());
        }
        self.wait_from(began, ground, patience)
    }

    #[cold]
    fn wait_from<G: Ground>(&self, began: u32, ground: &G, patience: Patience) -> Result<(), Failure> {
        let mut waiting = Waiting::new(ground, patience);
        loop {
            let inside = self.gate.enter(&waiting);
            // SET: as above.
            let state = self.state.load(Ordering::Acquire);
            if state & SET != 0 || state >> 1 != began >> 1 {
                waiting.succeeded();
                return Ok(());
            }
            inside.sleep(&mut waiting, std::iter::empty())?;
        }
    }

    /// The gate that waiters sleep at.
    #[cfg(not(loom))]
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// How often it was set; for who looks for a change.
    #[must_use]
    pub fn times_set(&self) -> u32 {
        self.state.load(Ordering::Acquire) >> 1
    }
}
