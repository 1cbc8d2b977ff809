//! A barrier: `parties` threads wait for each other, again and again.
//!
//! Owns: a mutex for a few instructions, slots for those who wait (the tag: the round), the round, whether it is broken.
//!
//! ```text
//! who             does, with the mutex                                              the step that counts
//! arriver         claims a slot with the round as tag                               the slot's word is stored
//! last arriver    round + 1; announces                                              round is stored
//! breaker         marks the slots of the round; broken = 1; announces               the first mark
//! resetter        breaks the round if somebody waits; broken = 0; round + 1         round is stored
//! waiter, awake   its slot marked: broken. The round is another: it came through.   –
//!                 Otherwise it sleeps on. Releases its slot when it leaves
//! ```
//!
//! How many have arrived is the number of slots with this round's tag and without a mark.
//! Death: with the mutex: the next one finishes a break that has begun. Of a waiter of this round: the kernel marks its slot, which
//! the others watch; who finds it breaks the round. Of one that had come through: its slot is swept.
//! Models: loom `barrier_*` in `tests/loom_barrier.rs`; negative control without links.

#![expect(unsafe_code, reason = "the thread's robust list")]

use super::{Acquired, Gate, Ground, INTERNAL_MOST, RawMutex, Slots, Waiting};
use crate::error::Failure;
use crate::patience::Patience;
use mp_sys::atomic::{AtomicU32, Ordering};
use mp_sys::crash;

/// The barrier. `N`: how many threads can wait at a time.
#[derive(Debug)]
#[cfg_attr(not(loom), derive(mp_shm::ShmSafe))]
#[repr(C)]
pub struct RawBarrier<const N: usize> {
    mutex: RawMutex,
    waiters: Slots<N>,
    gate: Gate,
    parties: AtomicU32,
    round: AtomicU32,
    broken: AtomicU32,
    unused: [AtomicU32; 11],
}

const BROKEN: u32 = 1;

/// How a wait at the barrier ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// All are there; the place in the order of arrival, the last one's is `parties - 1`.
    Through(u32),
    /// The round was broken.
    Broken,
}

impl<const N: usize> RawBarrier<N> {
    /// A barrier for nobody.
    #[cfg(loom)]
    #[must_use]
    pub fn new() -> Self {
        Self {
            mutex: RawMutex::new(),
            waiters: Slots::new(),
            gate: Gate::new(),
            parties: AtomicU32::new(0),
            round: AtomicU32::new(0),
            broken: AtomicU32::new(0),
            unused: std::array::from_fn(|_| AtomicU32::new(0)),
        }
    }

    /// Sets for how many it is. Only while nobody else can use it.
    pub fn set_up(&self, parties: u32) {
        self.parties.store(parties, Ordering::Relaxed);
    }

    /// For how many it is.
    #[must_use]
    pub fn parties(&self) -> u32 {
        self.parties.load(Ordering::Relaxed)
    }

    /// Whether it is broken.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed) != 0
    }

    /// The mutex, for its name.
    pub fn mutex(&self) -> &RawMutex {
        &self.mutex
    }

    /// The slots of those who wait.
    pub fn waiters(&self) -> &Slots<N> {
        &self.waiters
    }

    fn arrived(&self) -> u32 {
        let round = self.round.load(Ordering::Relaxed);
        let mut arrived = 0;
        self.waiters.for_each_held(|tag| arrived += u32::from(tag == round));
        arrived
    }

    /// How many wait, a moment ago.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        if self.is_broken() { 0 } else { self.arrived() }
    }

    /// Takes the mutex and puts right what a death has left.
    unsafe fn enter<G: Ground>(&self, ground: &G) -> Result<(), Failure> {
        // SAFETY: as the caller promises.
        let acquired = unsafe { self.mutex.lock(ground, Patience::Forever, INTERNAL_MOST) }?;
        let round = self.round.load(Ordering::Relaxed);
        let half_broken = acquired != Acquired::Clean && self.waiters.is_any_marked(round);
        let mut died = half_broken;
        self.waiters.sweep(|tag, _| {
            died |= tag == round;
            if tag == round {
                // Before the slot is free: who dies now leaves the mark for the next.
                self.waiters.mark(round, BROKEN);
            }
        });
        if died {
            self.break_round();
        }
        Ok(())
    }

    /// Breaks the round; the mutex is held.
    fn break_round(&self) {
        self.waiters.mark(self.round.load(Ordering::Relaxed), BROKEN);
        self.broken.store(1, Ordering::Relaxed);
        crash::point("barrier.broken");
        self.gate.announce(u32::MAX);
    }

    /// Waits until `parties` threads do.
    ///
    /// # Errors
    /// [`Failure`]; a time-out breaks the round for the others.
    ///
    /// # Safety
    /// The barrier stays mapped, and is used for nothing else, until this returns or the thread has ended.
    pub unsafe fn wait<G: Ground>(&self, ground: &G, patience: Patience) -> Result<Arrived, Failure> {
        // SAFETY: as the caller promises; given back on every way.
        unsafe { self.enter(ground) }?;
        if self.is_broken() {
            self.mutex.unlock();
            return Ok(Arrived::Broken);
        }
        let (round, place) = (self.round.load(Ordering::Relaxed), self.arrived());
        if place + 1 >= self.parties() {
            self.next_round(round);
            self.mutex.unlock();
            return Ok(Arrived::Through(place));
        }
        // SAFETY: as the caller promises.
        let slot = match unsafe { self.waiters.claim(round) } {
            Ok(slot) => slot,
            Err(failure) => {
                self.mutex.unlock();
                return Err(failure);
            }
        };
        let mut waiting = Waiting::new(ground, patience);
        let mut outcome = Ok(());
        loop {
            // With the mutex.
            let ended = if self.waiters.mark_of(slot) == BROKEN {
                Some(Ok(Arrived::Broken))
            } else if self.round.load(Ordering::Relaxed) != round {
                Some(Ok(Arrived::Through(place)))
            } else {
                outcome.err().map(Err)
            };
            if let Some(ended) = ended {
                if ended.is_err() {
                    self.break_round();
                }
                self.waiters.release(slot);
                self.mutex.unlock();
                waiting.succeeded();
                return ended;
            }
            let inside = self.gate.enter(&waiting);
            self.mutex.note_slots(N);
            self.mutex.unlock();
            outcome = inside.sleep(&mut waiting, self.waiters.watches());
            drop(inside);
            // SAFETY: as the caller promises.
            unsafe { self.enter(ground) }?;
        }
    }

    fn next_round(&self, round: u32) {
        self.round.store(round.wrapping_add(1), Ordering::Relaxed);
        crash::point("barrier.through");
        self.gate.announce(u32::MAX);
    }

    /// Breaks the barrier: all who wait, and all who come, are told so until [`reset`](Self::reset).
    ///
    /// # Errors
    /// [`Failure`]
    ///
    /// # Safety
    /// As [`wait`](Self::wait).
    pub unsafe fn abort<G: Ground>(&self, ground: &G) -> Result<(), Failure> {
        // SAFETY: as the caller promises.
        unsafe { self.enter(ground) }?;
        self.break_round();
        self.mutex.unlock();
        Ok(())
    }

    /// Makes the barrier new; who waits is told that it broke.
    ///
    /// # Errors
    /// [`Failure`]
    ///
    /// # Safety
    /// As [`wait`](Self::wait).
    pub unsafe fn reset<G: Ground>(&self, ground: &G) -> Result<(), Failure> {
        // SAFETY: as the caller promises.
        unsafe { self.enter(ground) }?;
        if self.arrived() > 0 {
            self.break_round();
        }
        self.broken.store(0, Ordering::Relaxed);
        crash::point("barrier.resetting");
        self.next_round(self.round.load(Ordering::Relaxed));
        self.mutex.unlock();
        Ok(())
    }
}
