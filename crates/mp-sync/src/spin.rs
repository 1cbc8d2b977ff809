//! How long to spin before sleeping.
//!
//! Waking another processor costs tens of microseconds, a spin that hits a fraction of one; a spin that misses is wasted. So
//! the budget follows what has paid off: a hit doubles it, a miss halves it. Where all run on one processor nobody can be working
//! for us while we spin: the caller does not spin then.
//!
//! The budget is private to an endpoint; races on it only make it a little wrong.
//!
//! Who waits for room looks less often ([`gather`]): each look takes the line that it looks at from the one who is to make the room.

use std::sync::atomic::{AtomicU32, Ordering};

/// Most turns of a spin, about 40 µs of pauses: what a sleep and its wake-up cost.
pub const TURNS_MAX: u32 = 2048;
const TURNS_MIN: u32 = 16;

/// Looks of [`gather`], and pauses before each.
const GATHER_LOOKS: u32 = 4;
const GATHER_PAUSES: u32 = 32;

/// Pauses until there is `enough` of something, or for a few µs: looks seldom, so as not to slow down those who make it.
pub fn gather(enough: impl Fn() -> bool) {
    for _ in 0..GATHER_LOOKS {
        for _ in 0..GATHER_PAUSES {
            mp_sys::atomic::spin();
        }
        if enough() {
            return;
        }
    }
}

/// The spin budget of one endpoint.
#[derive(Debug)]
pub struct Spin {
    turns: AtomicU32,
}

impl Spin {
    /// A full budget.
    #[must_use]
    pub const fn new() -> Self {
        Self { turns: AtomicU32::new(TURNS_MAX) }
    }

    /// Calls `attempt` until it gives a value or the budget is used up.
    #[inline]
    pub fn spin<T>(&self, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
        let turns = self.turns.load(Ordering::Relaxed);
        for _ in 0..turns {
            mp_sys::atomic::spin();
            if let Some(value) = attempt() {
                self.turns.store((turns * 2).min(TURNS_MAX), Ordering::Relaxed);
                return Some(value);
            }
        }
        self.turns.store((turns / 2).max(TURNS_MIN), Ordering::Relaxed);
        None
    }
}

impl Default for Spin {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn gathering_ends_with_enough_or_after_a_few_looks() {
        let looks = std::cell::Cell::new(0);
        let look = |enough| {
            looks.set(looks.get() + 1);
            looks.get() == enough
        };
        gather(|| look(2));
        assert_eq!(looks.get(), 2);
        gather(|| look(0));
        assert_eq!(looks.get(), 2 + GATHER_LOOKS);
    }

    #[test]
    fn the_budget_follows_what_pays_off() {
        let spin = Spin::new();
        assert_eq!(spin.spin(|| Some(1)), Some(1));
        let mut attempts = 0;
        for _ in 0..20 {
            attempts = 0;
            assert_eq!(
                spin.spin(|| {
                    attempts += 1;
                    None::<()>
                }),
                None
            );
        }
        assert_eq!(attempts, TURNS_MIN);
        assert_eq!(spin.spin(|| Some(1)), Some(1));
        assert_eq!(spin.turns.load(Ordering::Relaxed), TURNS_MIN * 2);
    }
}
