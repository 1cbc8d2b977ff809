//! Robust words, one for each thread that holds a part of a primitive.
//!
//! Owns: `N` words, each with a tag that says what is held.
//!
//! ```text
//! slot's word    event                       to                     who
//! 0              claim                       tid | WAITERS          claimer, with the primitive's lock; tag before, linked before
//! tid | WAITERS  release                     0                      claimer, unlinked before, pending meanwhile
//! tid | WAITERS  claimer dies                OWNER_DIED | WAITERS   kernel, wakes one who watches it
//! OWNER_DIED | * swept                       0                      anybody, with the primitive's lock
//! ```
//!
//! Invariants
//! 1. A word that is not 0 has a tag that was written for it.
//! 2. A word is 0 only when no list has it: who claims it may link it.
//!
//! Death: linked and not yet stored: still 0, and nobody's. Unlinked and not yet 0: it is pending, so the kernel marks it.

#![expect(unsafe_code, reason = "the thread's robust list")]

use crate::error::Failure;
use mp_sys::atomic::Ordering;
use mp_sys::crash;
use mp_sys::futex::Watch;
use mp_sys::robust::{self, HELD_MAX, OWNER_DIED, RobustWord, TID_MASK, WAITERS};

/// The slots. At most 64, since sleepers watch them all.
#[derive(Debug)]
#[cfg_attr(not(loom), derive(mp_shm::ShmSafe))]
#[repr(C)]
pub struct Slots<const N: usize> {
    slots: [RobustWord; N],
}

/// Number of the word among `extra` that holds the claimer's pid.
const PID: usize = 0;
/// Number of the word among `extra` that others leave a mark in.
const MARK: usize = 1;

impl<const N: usize> Slots<N> {
    const FITS: () = assert!(N >= 1 && N <= 64, "1 to 64 threads can hold a part of it at a time");

    /// Nobody holds a part.
    #[cfg(loom)]
    #[must_use]
    pub fn new() -> Self {
        Self { slots: std::array::from_fn(|_| RobustWord::new()) }
    }

    /// Claims a slot for what `tag` says. The primitive's lock is held.
    ///
    /// # Errors
    /// [`Failure::TooManyHolders`], [`Failure::TooManyHeld`], [`Failure::NoRobustList`].
    ///
    /// # Safety
    /// The slots stay mapped, and are used for nothing else, until this thread has released the slot or has ended.
    pub(crate) unsafe fn claim(&self, tag: u32) -> Result<u32, Failure> {
        let () = Self::FITS;
        // SLOT: Acquire, pairs with the Release in `release`: what the last holder did is visible.
        let free = self.slots.iter().position(|slot| slot.word.load(Ordering::Acquire) == 0);
        let at = free.ok_or(Failure::TooManyHolders)?;
        let slot = &self.slots[at];
        slot.tag.store(tag, Ordering::Relaxed);
        slot.extra[PID].store(process_id(), Ordering::Relaxed);
        slot.extra[MARK].store(0, Ordering::Relaxed);
        // SAFETY: as the caller promises; the word is 0, so no list has it (invariant 2), and the primitive's lock is ours.
        unsafe { robust::hold(slot, HELD_MAX) }?;
        crash::point("slots.linked");
        // HOLD: Release, pairs with the Acquire in `for_each`.
        slot.word.store(robust::tid() | WAITERS, Ordering::Release);
        crash::point("slots.claimed");
        Ok(u32::try_from(at).unwrap_or(u32::MAX))
    }

    /// Releases the slot of this thread; returns whether it was this thread's.
    pub(crate) fn release(&self, at: u32) -> bool {
        let Some(slot) = self.slots.get(at as usize).filter(|_| self.is_mine(at)) else { return false };
        // SAFETY: this thread holds the slot, so by the promise made to `claim` it stays until it is released, below.
        unsafe { robust::set_pending(&slot.word) };
        crash::point("slots.pending");
        robust::let_go(slot);
        crash::point("slots.unlinked");
        // SLOT: Release, pairs with the Acquire in `claim` and `for_each`.
        slot.word.store(0, Ordering::Release);
        crash::point("slots.released");
        robust::clear_pending();
        true
    }

    /// Whether the slot is this thread's.
    pub(crate) fn is_mine(&self, at: u32) -> bool {
        let word = self.slots.get(at as usize).map(|slot| slot.word.load(Ordering::Relaxed));
        word == Some(robust::tid() | WAITERS)
    }

    /// Whether this thread holds one.
    pub(crate) fn is_any_mine(&self) -> bool {
        let mine = robust::tid() | WAITERS;
        self.slots.iter().any(|slot| slot.word.load(Ordering::Relaxed) == mine)
    }

    /// Calls `visit` with the tag of every slot that a living thread holds.
    pub(crate) fn for_each_held(&self, mut visit: impl FnMut(u32)) {
        for slot in &self.slots {
            if is_held(slot.word.load(Ordering::Acquire)) {
                visit(slot.tag.load(Ordering::Relaxed));
            }
        }
    }

    /// Calls `visit` with the tag of every slot that is not free, those of the dead included.
    pub(crate) fn for_each_claimed(&self, mut visit: impl FnMut(u32)) {
        for slot in &self.slots {
            if slot.word.load(Ordering::Acquire) != 0 {
                visit(slot.tag.load(Ordering::Relaxed));
            }
        }
    }

    /// Whether a living thread holds one.
    pub(crate) fn is_any_held(&self) -> bool {
        self.slots.iter().any(|slot| is_held(slot.word.load(Ordering::Acquire)))
    }

    /// Whether there is the slot of a dead thread that nobody has swept yet.
    #[must_use]
    pub fn has_dead(&self) -> bool {
        self.slots.iter().any(|slot| slot.word.load(Ordering::Acquire) & OWNER_DIED != 0)
    }

    /// Frees the slots of dead threads; calls `died` with tag and pid before. The primitive's lock is held.
    pub(crate) fn sweep(&self, mut died: impl FnMut(u32, u32)) {
        for slot in &self.slots {
            let word = slot.word.load(Ordering::Acquire);
            if word & OWNER_DIED != 0 {
                died(slot.tag.load(Ordering::Relaxed), slot.extra[PID].load(Ordering::Relaxed));
                crash::point("slots.sweeping");
                slot.word.store(0, Ordering::Release);
            }
        }
    }

    /// Leaves a mark in every slot with this tag. The primitive's lock is held.
    pub(crate) fn mark(&self, tag: u32, mark: u32) {
        for slot in &self.slots {
            if slot.word.load(Ordering::Acquire) != 0 && slot.tag.load(Ordering::Relaxed) == tag {
                slot.extra[MARK].store(mark, Ordering::Relaxed);
                crash::point("slots.marked");
            }
        }
    }

    /// Whether a slot with this tag has a mark.
    pub(crate) fn is_any_marked(&self, tag: u32) -> bool {
        self.slots.iter().any(|slot| {
            slot.word.load(Ordering::Acquire) != 0
                && slot.tag.load(Ordering::Relaxed) == tag
                && slot.extra[MARK].load(Ordering::Relaxed) != 0
        })
    }

    /// The mark in a slot.
    pub(crate) fn mark_of(&self, at: u32) -> u32 {
        self.slots.get(at as usize).map_or(0, |slot| slot.extra[MARK].load(Ordering::Relaxed))
    }

    /// All slots as they are, for a sleeper to watch.
    pub(crate) fn watches(&self) -> impl Iterator<Item = Watch<'_>> {
        self.slots.iter().map(|slot| Watch::Word(&slot.word, slot.word.load(Ordering::Acquire)))
    }

    /// The slots that are not free, for a sleeper to watch.
    #[cfg(not(loom))]
    pub(crate) fn held_watches(&self) -> impl Iterator<Item = Watch<'_>> {
        self.watches().filter(|watch| matches!(watch, Watch::Word(_, word) if *word != 0))
    }

    /// Pid and tid of all who hold one, for reports.
    #[cfg(not(loom))]
    #[must_use]
    pub fn holders(&self) -> Vec<(u32, u32)> {
        let holder = |slot: &RobustWord| {
            let word = slot.word.load(Ordering::Acquire);
            is_held(word).then(|| (slot.extra[PID].load(Ordering::Relaxed), word & TID_MASK))
        };
        self.slots.iter().filter_map(holder).collect()
    }
}

fn is_held(word: u32) -> bool {
    word & TID_MASK != 0 && word & OWNER_DIED == 0
}

#[cfg(not(loom))]
fn process_id() -> u32 {
    mp_sys::fork::pid()
}

#[cfg(loom)]
fn process_id() -> u32 {
    robust::tid()
}
