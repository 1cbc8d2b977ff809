//! Sleeping until something has changed, for any number of sleepers.
//!
//! Owns: a count of changes that sleepers watch, and a count of who may be asleep, so that nobody calls the kernel for nothing.
//!
//! ```text
//! who        does                                                          edge
//! sleeper    reads the death epoch; sleepers + 1; reads seq; looks; sleeps ASLEEP: SeqCst fence between sleepers + 1 and the look
//!            while both are the same and nobody dies; sleepers - 1
//! changer    makes the change; if there are sleepers: seq + 1, wakes       CHANGED: SeqCst fence between change and sleepers
//! ```
//!
//! Edges: of a sleeper and a changer that run at once at least one sees the other: the sleeper the change, or the changer the
//! sleeper. A changer that sees the sleeper advances seq, which ends the sleep, or keeps it from beginning.
//! Death: of a sleeper: `sleepers` stays too high, which costs later changers a call. Of a changer before it has woken all:
//! the death ends all sleeps of the domain. Of one that was woken alone and had not yet acted: the same. The epoch is read before the
//! look: one that dies, and is recovered from, between look and sleep would go unnoticed (loom found that).
//! Models: in those of the primitives; negative control without the domain.

use super::{Ground, Waiting};
use crate::error::Failure;
use mp_sys::atomic::{AtomicU32, Ordering, fence};
use mp_sys::crash;
use mp_sys::futex::{self, Watch};
use mp_sys::robust::OWNER_DIED;

/// The two counts.
#[derive(Debug)]
#[cfg_attr(not(loom), derive(mp_shm::ShmSafe))]
#[repr(C)]
pub struct Gate {
    seq: AtomicU32,
    sleepers: AtomicU32,
}

/// A sleeper that is inside of the gate; leaving is dropping it.
#[derive(Debug)]
pub(crate) struct Inside<'a> {
    gate: &'a Gate,
    seen: u32,
    deaths: Option<Watch<'a>>,
}

impl Gate {
    /// Nobody sleeps.
    #[cfg(loom)]
    #[must_use]
    pub fn new() -> Self {
        Self { seq: AtomicU32::new(0), sleepers: AtomicU32::new(0) }
    }

    /// Comes in, before looking at what is waited for.
    pub(crate) fn enter<'a, G: Ground>(&'a self, waiting: &Waiting<'a, G>) -> Inside<'a> {
        self.enter_after(waiting.deaths())
    }

    /// [`enter`](Self::enter) with the death epoch as it was read before.
    pub(crate) fn enter_after<'a>(&'a self, deaths: Option<Watch<'a>>) -> Inside<'a> {
        self.sleepers.fetch_add(1, Ordering::Relaxed);
        // ASLEEP: SeqCst, pairs with CHANGED.
        fence(Ordering::SeqCst);
        crash::point("gate.entered");
        Inside { gate: self, seen: self.seq.load(Ordering::Acquire), deaths }
    }

    /// Tells sleepers of a change that was made before: wakes up to `count` of them, longest asleep first.
    #[inline]
    pub(crate) fn announce(&self, count: u32) {
        // CHANGED: SeqCst, pairs with ASLEEP.
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::Relaxed) != 0 {
            self.wake(count);
        }
    }

    #[cold]
    fn wake(&self, count: u32) {
        crash::point("gate.before_advance");
        self.seq.fetch_add(1, Ordering::Release);
        crash::point("gate.before_wake");
        futex::wake(&self.seq, count);
    }
}

impl<'a> Inside<'a> {
    /// What to watch while asleep.
    #[cfg(not(loom))]
    pub(crate) fn watches(&self) -> [Option<Watch<'a>>; 2] {
        [Some(Watch::Word(&self.gate.seq, self.seen)), self.deaths]
    }

    /// Sleeps until there was an announcement since [`Gate::enter`], a slot of `more` has changed, or somebody died. At most 64 slots.
    ///
    /// # Errors
    /// As [`Waiting::sleep`].
    pub(crate) fn sleep<G: Ground>(
        &self,
        waiting: &mut Waiting<'_, G>,
        more: impl Iterator<Item = Watch<'a>>,
    ) -> Result<(), Failure> {
        crash::point("gate.before_sleep");
        let mut own = [Watch::Word(&self.gate.seq, self.seen); mp_shm::death::OWN_MAX];
        let mut len = 1;
        if let Some(deaths) = self.deaths {
            own[len] = deaths;
            len += 1;
        }
        for slot in more {
            if matches!(slot, Watch::Word(_, word) if word & OWNER_DIED != 0) {
                // Its thread has died since the look.
                return Ok(());
            }
            own[len] = slot;
            len += 1;
        }
        let slept = waiting.sleep(&own[..len]);
        crash::point("gate.woken");
        slept
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        // A participant that dies in a model unwinds; the dead count nothing down.
        #[cfg(loom)]
        if std::thread::panicking() {
            return;
        }
        self.gate.sleepers.fetch_sub(1, Ordering::Relaxed);
    }
}
