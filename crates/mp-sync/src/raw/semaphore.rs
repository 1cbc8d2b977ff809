//! A counting semaphore whose permits come back when their holder dies.
//!
//! Owns: a mutex for a few instructions, slots for holders (the tag: how many permits), `total` and `free`.
//!
//! ```text
//! invariant while the mutex is free:  free + Σ tags of slots that are not 0 == total
//!
//! who         does, with the mutex                                        the step that counts
//! acquirer    free >= n: claims a slot with tag n; free - n               the slot's word is stored
//! releaser    releases its slot; free + n; announces                      the slot's word becomes 0
//! adder       total + n, free + n; announces                              total is stored
//! forgetter   total - n; releases its slot                                total is stored
//! anybody     sweeps slots of the dead: free + their tags; announces      the slot's word becomes 0
//! ```
//!
//! Death: with the mutex: the next one with it computes `free` anew from `total` and the slots that are not 0. Of a holder: the kernel marks its slot,
//! which every sleeper watches. Of one that was woken: all sleepers of the domain look again.
//! Models: loom `semaphore_*` in `tests/loom_semaphore.rs`; negative controls without links and without the domain.

#![expect(unsafe_code, reason = "the thread's robust list")]

use super::{Acquired, Gate, Ground, INTERNAL_MOST, RawMutex, Slots, Waiting};
use crate::error::Failure;
use crate::patience::Patience;
use mp_sys::atomic::{AtomicU32, Ordering};
use mp_sys::crash;

/// The semaphore. `N`: how many threads can hold permits at a time.
#[derive(Debug)]
#[cfg_attr(not(loom), derive(mp_shm::ShmSafe))]
#[repr(C)]
pub struct RawSemaphore<const N: usize> {
    mutex: RawMutex,
    holders: Slots<N>,
    gate: Gate,
    total: AtomicU32,
    free: AtomicU32,
    /// Most permits there may be, 0 for no bound.
    bound: AtomicU32,
    /// Somebody asked for more than one at a time: who is woken may not be the one that can go on.
    mixed: AtomicU32,
    unused: [AtomicU32; 10],
}

impl<const N: usize> RawSemaphore<N> {
    /// A semaphore without permits.
    #[cfg(loom)]
    #[must_use]
    pub fn new() -> Self {
        Self {
            mutex: RawMutex::new(),
            holders: Slots::new(),
            gate: Gate::new(),
            total: AtomicU32::new(0),
            free: AtomicU32::new(0),
            bound: AtomicU32::new(0),
            mixed: AtomicU32::new(0),
            unused: std::array::from_fn(|_| AtomicU32::new(0)),
        }
    }

    /// Sets the number of permits and the bound, 0 for none. Only while nobody else can use the semaphore.
    pub fn set_up(&self, permits: u32, bound: u32) {
        self.total.store(permits, Ordering::Relaxed);
        self.free.store(permits, Ordering::Relaxed);
        self.bound.store(bound, Ordering::Relaxed);
    }

    /// The mutex, for its name and notes.
    pub fn mutex(&self) -> &RawMutex {
        &self.mutex
    }

    /// The slots of those who hold permits.
    pub fn holders(&self) -> &Slots<N> {
        &self.holders
    }

    /// Permits that are free, a moment ago.
    #[must_use]
    pub fn free(&self) -> u32 {
        self.free.load(Ordering::Relaxed)
    }

    /// Permits in all, free or held, a moment ago.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.total.load(Ordering::Relaxed)
    }

    /// Takes the mutex and puts right what a death has left.
    unsafe fn enter<G: Ground>(&self, ground: &G, patience: Patience) -> Result<(), Failure> {
        // SAFETY: as the caller promises.
        let acquired = unsafe { self.mutex.lock(ground, patience, INTERNAL_MOST) }?;
        if acquired != Acquired::Clean {
            // Slots of the dead count as held until they are swept, below: one may become dead at any moment (loom found that).
            let mut held = 0_u32;
            self.holders.for_each_claimed(|tag| held = held.saturating_add(tag));
            self.free.store(self.total.load(Ordering::Relaxed).saturating_sub(held), Ordering::Relaxed);
            crash::point("semaphore.repaired");
            self.gate.announce(u32::MAX);
        }
        let mut back = 0_u32;
        self.holders.sweep(|tag, _| {
            back = back.saturating_add(tag);
            self.free.store(self.free.load(Ordering::Relaxed).saturating_add(tag), Ordering::Relaxed);
        });
        if back != 0 {
            self.announce(back);
        }
        Ok(())
    }

    fn announce(&self, permits: u32) {
        let all = self.mixed.load(Ordering::Relaxed) != 0;
        self.gate.announce(if all { u32::MAX } else { permits });
    }

    /// Takes `count` permits; returns the slot that holds them.
    ///
    /// # Errors
    /// [`Failure`]; nothing was taken.
    ///
    /// # Safety
    /// The semaphore stays mapped, and is used for nothing else, until this thread has released the slot or has ended.
    pub unsafe fn acquire<G: Ground>(
        &self,
        ground: &G,
        patience: Patience,
        count: u32,
    ) -> Result<u32, Failure> {
        if count > 1 {
            self.mixed.store(1, Ordering::Relaxed);
        }
        let mut waiting = Waiting::new(ground, patience);
        // Others have the mutex for a few instructions only, so it is waited for even without patience.
        let for_mutex = if patience == Patience::None { Patience::Forever } else { patience };
        loop {
            // SAFETY: as the caller promises; given back below.
            unsafe { self.enter(ground, for_mutex) }?;
            let free = self.free.load(Ordering::Relaxed);
            if free >= count {
                // SAFETY: as the caller promises.
                let slot = unsafe { self.holders.claim(count) };
                if slot.is_ok() {
                    self.free.store(free - count, Ordering::Relaxed);
                    crash::point("semaphore.acquired");
                }
                self.mutex.unlock();
                waiting.succeeded();
                return slot;
            }
            let inside = self.gate.enter(&waiting);
            self.mutex.note_slots(N);
            self.mutex.unlock();
            inside.sleep(&mut waiting, self.holders.watches())?;
        }
    }

    /// Gives the permits in a slot back; a slot that is not this thread's is left alone.
    ///
    /// # Safety
    /// As [`acquire`](Self::acquire).
    pub unsafe fn release<G: Ground>(&self, ground: &G, slot: u32, count: u32) {
        // SAFETY: as the caller promises.
        if unsafe { self.enter(ground, Patience::Forever) }.is_err() {
            return;
        }
        if self.holders.release(slot) {
            self.free.store(self.free.load(Ordering::Relaxed).saturating_add(count), Ordering::Relaxed);
            crash::point("semaphore.released");
            self.announce(count);
        }
        self.mutex.unlock();
    }

    /// Takes the permits in a slot out of the semaphore for good; a slot that is not this thread's is left alone.
    ///
    /// # Safety
    /// As [`acquire`](Self::acquire).
    pub unsafe fn forget<G: Ground>(&self, ground: &G, slot: u32, count: u32) {
        // SAFETY: as the caller promises.
        if unsafe { self.enter(ground, Patience::Forever) }.is_err() {
            return;
        }
        if self.holders.is_mine(slot) {
            self.total.store(self.total.load(Ordering::Relaxed).saturating_sub(count), Ordering::Relaxed);
            crash::point("semaphore.forgetting");
            self.holders.release(slot);
        }
        self.mutex.unlock();
    }

    /// Adds permits.
    ///
    /// # Errors
    /// [`Failure::OverRelease`] if there would be more than the bound, or than 2^32 - 1; nothing was added.
    ///
    /// # Safety
    /// As [`acquire`](Self::acquire).
    pub unsafe fn add<G: Ground>(&self, ground: &G, count: u32) -> Result<(), Failure> {
        // SAFETY: as the caller promises.
        unsafe { self.enter(ground, Patience::Forever) }?;
        let bound = match self.bound.load(Ordering::Relaxed) {
            0 => u32::MAX,
            bound => bound,
        };
        let total = self.total.load(Ordering::Relaxed).checked_add(count).filter(|total| *total <= bound);
        if let Some(total) = total {
            self.total.store(total, Ordering::Relaxed);
            crash::point("semaphore.adding");
            self.free.store(self.free.load(Ordering::Relaxed).saturating_add(count), Ordering::Relaxed);
            self.announce(count);
        }
        self.mutex.unlock();
        total.map(|_| ()).ok_or(Failure::OverRelease)
    }
}
