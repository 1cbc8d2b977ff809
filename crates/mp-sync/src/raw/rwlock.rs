//! A reader-writer lock between processes: many readers, or one writer; writers go first.
//!
//! Owns: a mutex, slots for readers, and what the owner of the mutex is doing: 0, WAITING for readers to end, or WRITING.
//!
//! ```text
//! who       does                                                             then
//! reader    takes the mutex, claims a slot, gives the mutex back             reads; releases the slot, announces that
//! writer    takes the mutex, waits until no living thread holds a slot,      writes; says 0, gives the mutex back
//!           says WRITING
//! ```
//!
//! A writer that waits has the mutex, so no reader comes in: readers that come later wait for the mutex, and so do other writers.
//! Edges: those of the mutex and of the slots: a writer sees slots that are 0 by Acquire, so it comes after all reads.
//! Death: of a reader: the kernel marks its slot, a waiting writer watches it; what is guarded was not changed, nobody is told. Of a
//! writer that says WRITING: who gets the mutex and finds that is told. Otherwise nothing was changed.
//! Models: loom `rwlock_*` in `tests/loom_rwlock.rs`; negative control without links.

#![expect(unsafe_code, reason = "the thread's robust list")]

use super::{Acquired, Gate, Ground, INTERNAL_MOST, RawMutex, Slots, Waiting};
use crate::error::Failure;
use crate::patience::Patience;
use mp_sys::atomic::{AtomicU32, Ordering};
use mp_sys::crash;
use mp_sys::robust::HELD_MAX;

/// The owner of the mutex is a writer that waits for readers.
const WAITING: u32 = 1;
/// The owner of the mutex is a writer that may have changed what is guarded.
const WRITING: u32 = 2;
/// The note of the mutex that holds the pid of the last writer.
const WRITER: usize = 3;
/// How often a reader without patience looks at the mutex while another reader has it.
const TRIES: u32 = 10_000;

/// The lock, without what it guards. `N`: how many threads can read at a time.
#[derive(Debug)]
#[cfg_attr(not(loom), derive(mp_shm::ShmSafe))]
#[repr(C)]
pub struct RawRwLock<const N: usize> {
    mutex: RawMutex,
    readers: Slots<N>,
    gate: Gate,
    writing: AtomicU32,
    unused: [AtomicU32; 13],
}

impl<const N: usize> RawRwLock<N> {
    /// A free lock.
    #[cfg(loom)]
    #[must_use]
    pub fn new() -> Self {
        Self {
            mutex: RawMutex::new(),
            readers: Slots::new(),
            gate: Gate::new(),
            writing: AtomicU32::new(0),
            unused: std::array::from_fn(|_| AtomicU32::new(0)),
        }
    }

    /// The mutex, for its notes and its owner, the writer.
    pub fn mutex(&self) -> &RawMutex {
        &self.mutex
    }

    /// The slots of the readers.
    pub fn readers(&self) -> &Slots<N> {
        &self.readers
    }

    /// Takes the mutex; says who died if a writer died while it wrote.
    unsafe fn enter<G: Ground>(
        &self,
        ground: &G,
        patience: Patience,
        most: usize,
    ) -> Result<Acquired, Failure> {
        // SAFETY: as the caller promises.
        unsafe { self.mutex.lock(ground, patience, most) }?;
        if self.writing.load(Ordering::Relaxed) != WRITING {
            return Ok(Acquired::Clean);
        }
        // The writer may not be the one that had the mutex last: somebody may have found this and not been able to pass it on.
        Ok(Acquired::OwnerDied { pid: self.mutex.note(WRITER).load(Ordering::Relaxed), leaving: false })
    }

    /// Takes the lock for reading; returns the reader's slot.
    ///
    /// The caller makes known that the data is suspect, if a writer died, while it has the mutex: in `told`.
    ///
    /// # Errors
    /// [`Failure`]; nothing was taken.
    ///
    /// # Safety
    /// The lock stays mapped, and is used for nothing else, until this thread has released it or has ended.
    pub unsafe fn read<G: Ground>(
        &self,
        ground: &G,
        patience: Patience,
        told: impl FnOnce(Acquired),
    ) -> Result<(u32, Acquired), Failure> {
        // SAFETY: as the caller promises; the mutex is given back below.
        let acquired = unsafe { self.enter_to_read(ground, patience) }?;
        self.readers.sweep(|_, _| ());
        // SAFETY: as the caller promises.
        let slot = unsafe { self.readers.claim(0) };
        if slot.is_ok() {
            told(acquired);
            crash::point("rwlock.told");
            // Only now: who dies before this leaves the news for the next.
            self.writing.store(0, Ordering::Relaxed);
        }
        self.mutex.unlock();
        Ok((slot?, acquired))
    }

    /// Without patience a reader still waits for other readers, which have the mutex for a few instructions only.
    unsafe fn enter_to_read<G: Ground>(&self, ground: &G, patience: Patience) -> Result<Acquired, Failure> {
        if patience != Patience::None {
            // SAFETY: as the caller promises.
            return unsafe { self.enter(ground, patience, INTERNAL_MOST) };
        }
        for _ in 0..TRIES {
            // SAFETY: as the caller promises.
            match unsafe { self.enter(ground, Patience::None, INTERNAL_MOST) } {
                Err(Failure::WouldBlock) if self.writing.load(Ordering::Relaxed) == 0 => {
                    mp_sys::atomic::spin();
                }
                other => return other,
            }
        }
        Err(Failure::WouldBlock)
    }

    /// Ends reading; a slot that is not this thread's is left alone.
    pub fn end_read(&self, slot: u32) {
        if self.readers.release(slot) {
            self.gate.announce(1);
        }
    }

    /// Takes the lock for writing.
    ///
    /// # Errors
    /// [`Failure`]; nothing was taken.
    ///
    /// # Safety
    /// As [`read`](Self::read).
    pub unsafe fn write<G: Ground>(
        &self,
        ground: &G,
        patience: Patience,
        told: impl FnOnce(Acquired),
    ) -> Result<Acquired, Failure> {
        if self.readers.is_any_mine() {
            // It would wait for itself.
            return Err(Failure::AlreadyHeld);
        }
        // SAFETY: as the caller promises.
        let acquired = unsafe { self.enter(ground, patience, HELD_MAX) }?;
        let died_writing = acquired != Acquired::Clean;
        if !died_writing {
            // Not to be taken for a reader with the mutex.
            self.writing.store(WAITING, Ordering::Relaxed);
        }
        let mut waiting = Waiting::new(ground, patience);
        loop {
            self.readers.sweep(|_, _| ());
            if !self.readers.is_any_held() {
                break;
            }
            let inside = self.gate.enter(&waiting);
            self.mutex.note_slots(N);
            if !self.readers.is_any_held() {
                break;
            }
            if let Err(failure) = inside.sleep(&mut waiting, self.readers.watches()) {
                if !died_writing {
                    self.writing.store(0, Ordering::Relaxed);
                }
                self.mutex.unlock();
                return Err(failure);
            }
        }
        waiting.succeeded();
        told(acquired);
        crash::point("rwlock.told_writer");
        self.mutex.note(WRITER).store(self.mutex.owner_pid(), Ordering::Relaxed);
        self.writing.store(WRITING, Ordering::Relaxed);
        crash::point("rwlock.writing");
        Ok(acquired)
    }

    /// Ends writing. Does nothing if the calling thread is not the writer.
    pub fn end_write(&self) {
        if self.mutex.is_mine() {
            self.writing.store(0, Ordering::Relaxed);
            crash::point("rwlock.written");
            self.mutex.unlock();
        }
    }
}
