//! A latch: a count that goes down to zero once; any number wait for that.
//!
//! Owns: a mutex for a few instructions, the count, and slots for *tickets*: a thread that owes a count can say so.
//!
//! ```text
//! who           does, with the mutex                                         the step that counts
//! counter       count - 1; at 0 announces                                    count is stored
//! ticket        claims a slot                                                the slot's word is stored
//! its end       count - 1; releases the slot                                 count is stored
//! anybody       finds the slot of a dead ticket: died = its pid; sweeps it   died is stored
//! ```
//!
//! Death: of a ticket's thread: the kernel marks the slot, which waiters watch; who finds it tells one waiter, and does not count
//! down. One that dies between its count and its slot is told of although it had counted. With the mutex: nothing is half done.
//! Models: loom `latch_*` in `tests/loom_barrier.rs`; negative control without links.

#![expect(unsafe_code, reason = "the thread's robust list")]

use super::{Gate, Ground, INTERNAL_MOST, RawMutex, Slots, Waiting};
use crate::error::Failure;
use crate::patience::Patience;
use mp_sys::atomic::{AtomicU32, Ordering};
use mp_sys::crash;

/// The latch. `N`: how many threads can have tickets at a time.
#[derive(Debug)]
#[cfg_attr(not(loom), derive(mp_shm::ShmSafe))]
#[repr(C)]
pub struct RawLatch<const N: usize> {
    mutex: RawMutex,
    tickets: Slots<N>,
    gate: Gate,
    count: AtomicU32,
    /// Pid of a ticket holder that died, until somebody is told.
    died: AtomicU32,
    unused: [AtomicU32; 12],
}

/// What a waiter is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// The count is zero.
    Zero,
    /// A thread with a ticket died; told once. Its pid.
    OwnerDied(u32),
    /// A death was told before.
    Poisoned,
}

impl<const N: usize> RawLatch<N> {
    /// A latch at zero.
    #[cfg(loom)]
    #[must_use]
    pub fn new() -> Self {
        Self {
            mutex: RawMutex::new(),
            tickets: Slots::new(),
            gate: Gate::new(),
            count: AtomicU32::new(0),
            died: AtomicU32::new(0),
            unused: std::array::from_fn(|_| AtomicU32::new(0)),
        }
    }

    /// Sets the count. Only while nobody else can use the latch.
    pub fn set_up(&self, count: u32) {
        self.count.store(count, Ordering::Relaxed);
    }

    /// The count, a moment ago.
    #[must_use]
    pub fn count(&self) -> u32 {
        // ZERO: Acquire, pairs with the Release in `down`.
        self.count.load(Ordering::Acquire)
    }

    /// The mutex, for its name and notes.
    pub fn mutex(&self) -> &RawMutex {
        &self.mutex
    }

    /// The slots of the tickets.
    pub fn tickets(&self) -> &Slots<N> {
        &self.tickets
    }

    unsafe fn enter<G: Ground>(&self, ground: &G, patience: Patience) -> Result<(), Failure> {
        // SAFETY: as the caller promises.
        unsafe { self.mutex.lock(ground, patience, INTERNAL_MOST) }?;
        let mut found = false;
        self.tickets.sweep(|_, pid| {
            found = true;
            self.died.store(pid.max(1), Ordering::Relaxed);
        });
        if found {
            self.gate.announce(u32::MAX);
        }
        Ok(())
    }

    fn down(&self, count: u32) {
        let left = self.count.load(Ordering::Relaxed).saturating_sub(count);
        // ZERO: Release, pairs with the Acquire in `count`.
        self.count.store(left, Ordering::Release);
        crash::point("latch.counted");
        if left == 0 {
            self.gate.announce(u32::MAX);
        }
    }

    /// Counts down; zero stays zero.
    ///
    /// # Errors
    /// [`Failure`]
    ///
    /// # Safety
    /// The latch stays mapped, and is used for nothing else, until this returns or the thread has ended.
    pub unsafe fn count_down<G: Ground>(&self, ground: &G, count: u32) -> Result<(), Failure> {
        // SAFETY: as the caller promises.
        unsafe { self.enter(ground, Patience::Forever) }?;
        self.down(count);
        self.mutex.unlock();
        Ok(())
    }

    /// Whether a wait would end at once.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.count() == 0 || self.mutex.is_poisoned() || self.tickets.has_dead()
    }

    /// The gate that waiters sleep at.
    #[cfg(not(loom))]
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Says that this thread owes a count; returns the slot.
    ///
    /// # Errors
    /// [`Failure`]
    ///
    /// # Safety
    /// The latch stays mapped, and is used for nothing else, until the ticket has ended or this thread has.
    pub unsafe fn ticket<G: Ground>(&self, ground: &G) -> Result<u32, Failure> {
        // SAFETY: as the caller promises.
        unsafe { self.enter(ground, Patience::Forever) }?;
        // SAFETY: as above.
        let slot = unsafe { self.tickets.claim(1) };
        // Who waits for several things watches only the tickets that it found.
        self.gate.announce(u32::MAX);
        self.mutex.unlock();
        slot
    }

    /// Counts down for a ticket; a slot that is not this thread's is left alone.
    ///
    /// # Safety
    /// As [`ticket`](Self::ticket).
    pub unsafe fn end_ticket<G: Ground>(&self, ground: &G, slot: u32) {
        // SAFETY: as the caller promises.
        if unsafe { self.enter(ground, Patience::Forever) }.is_err() {
            return;
        }
        if self.tickets.is_mine(slot) {
            self.down(1);
            self.tickets.release(slot);
        }
        self.mutex.unlock();
    }

    /// Waits until the count is zero, or until a thread with a ticket has died.
    ///
    /// # Errors
    /// [`Failure`]
    ///
    /// # Safety
    /// As [`count_down`](Self::count_down).
    pub unsafe fn wait<G: Ground>(&self, ground: &G, patience: Patience) -> Result<Counted, Failure> {
        let mut waiting = Waiting::new(ground, patience);
        let for_mutex = if patience == Patience::None { Patience::Forever } else { patience };
        loop {
            // SAFETY: as the caller promises.
            unsafe { self.enter(ground, for_mutex) }?;
            let died = self.died.load(Ordering::Relaxed);
            if died != 0 {
                self.mutex.poison();
                crash::point("latch.told");
                self.died.store(0, Ordering::Relaxed);
                // The others that wait are told that it is poisoned.
                self.gate.announce(u32::MAX);
                self.mutex.unlock();
                return Ok(Counted::OwnerDied(died));
            }
            if self.mutex.is_poisoned() {
                self.mutex.unlock();
                return Ok(Counted::Poisoned);
            }
            if self.count() == 0 {
                self.mutex.unlock();
                waiting.succeeded();
                return Ok(Counted::Zero);
            }
            let inside = self.gate.enter(&waiting);
            self.mutex.note_slots(N);
            self.mutex.unlock();
            inside.sleep(&mut waiting, self.tickets.watches())?;
        }
    }
}
