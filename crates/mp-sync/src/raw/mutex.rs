//! A mutex between processes that survives its owner.
//!
//! Owns: one robust word. Lives in shared memory; any process that maps it may call it.
//!
//! ```text
//! word:  31 WAITERS | 30 OWNER_DIED (set by the kernel) | 29..0 owner tid, 0 = free
//!
//! from              event                       to                  who
//! 0                 lock                        tid                 caller, edge LOCK
//! WAITERS           lock                        tid | WAITERS       caller, edge LOCK
//! tid'              lock, must sleep            tid' | WAITERS      caller
//! tid               unlock, nobody slept        0                   owner, edge UNLOCK
//! tid | WAITERS     unlock                      WAITERS, wake one   owner, edge UNLOCK; 0 if nobody woke
//! tid | *           owner dies                  OWNER_DIED | *      kernel, wakes one
//! OWNER_DIED | *    lock                        tid | *             caller, told `OwnerDied`
//!
//! tag:   31 LEAVING | 30..0 owner pid: who it was, for the one who is told
//! ```
//!
//! Edges: LOCK Acquire in `lock`, pairs with UNLOCK Release in `unlock` (or with the kernel's mark): publishes what is guarded.
//! Death: the word is linked while it is held, and pending while it is taken or given back. At every line between two rows the
//! kernel's walk leaves a row of this table.
//! Models: loom `mutex_*` in `tests/loom_mutex.rs`; negative controls without the pending word and without links.
//! Source: Linux Documentation/locking/robust-futexes, glibc nptl; the release rule (WAITERS stays until the wake found nobody) is
//! ours: see ARCHITECTURE.md, decision 7.

#![expect(unsafe_code, reason = "the thread's robust list")]

use super::Ground;
use crate::error::Failure;
use crate::patience::Patience;
use mp_sys::atomic::{AtomicU32, Ordering};
use mp_sys::backstop::{self, Backstop};
use mp_sys::crash;
use mp_sys::futex::{self, Waited};
use mp_sys::robust::{self, Current, HELD_MAX, HoldError, OWNER_DIED, RobustWord, TID_MASK, WAITERS};

/// How many words a thread may hold when it takes a lock for a few instructions inside of a primitive: a few more than users may.
pub const INTERNAL_MOST: usize = HELD_MAX + 8;

/// The note that says that what is guarded is suspect.
const POISONED: usize = 0;
/// The note that says how many slots follow.
pub(crate) const SLOTS: usize = 2;

/// Set in the tag while the owner gives the mutex back.
const LEAVING: u32 = 0x8000_0000;
/// The mutex, without what it guards.
#[derive(Debug)]
#[cfg_attr(not(loom), derive(mp_shm::ShmSafe))]
#[repr(C)]
pub struct RawMutex {
    node: RobustWord,
}

/// What a locker is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// The last owner gave it back.
    Clean,
    /// The last owner died with it.
    OwnerDied {
        /// Its pid, 0 if it died before it could write it down.
        pid: u32,
        /// Whether it had begun to give the mutex back, or another one died right after taking it: then `pid` may be the one before.
        leaving: bool,
    },
}

impl RawMutex {
    /// A free mutex.
    #[cfg(loom)]
    #[must_use]
    pub fn new() -> Self {
        Self { node: RobustWord::new() }
    }

    /// Takes the mutex; the thread may hold `most` words with it.
    ///
    /// # Errors
    /// [`Failure`]; nothing was taken.
    ///
    /// # Safety
    /// The mutex stays mapped, and is used for nothing else, until this thread has unlocked it or has ended.
    #[inline]
    pub unsafe fn lock<G: Ground>(
        &self,
        ground: &G,
        patience: Patience,
        most: usize,
    ) -> Result<Acquired, Failure> {
        let taken = robust::with(|thread| {
            // SAFETY: the word stays until `unlock`, as the caller promises; every way out clears the pending word.
            unsafe { thread.set_pending(&self.node.word) };
            crash::point("mutex.pending");
            // LOCK: Acquire, pairs with UNLOCK.
            let took = self.node.word.compare_exchange(0, thread.tid(), Ordering::Acquire, Ordering::Relaxed);
            took.is_ok().then(|| {
                crash::point("mutex.taken");
                // SAFETY: as the caller promises; the word was free, so nobody has it linked.
                unsafe { self.taken(thread, most) }
            })
        });
        match taken {
            Some(taken) => taken.map(|()| Acquired::Clean),
            // SAFETY: as the caller promises.
            None => unsafe { self.lock_contended(ground, patience, most) },
        }
    }

    #[cold]
    unsafe fn lock_contended<G: Ground>(
        &self,
        ground: &G,
        patience: Patience,
        most: usize,
    ) -> Result<Acquired, Failure> {
        let word = match self.wait(robust::tid(), ground, patience) {
            Ok(word) => word,
            Err(failure) => {
                robust::clear_pending();
                return Err(failure);
            }
        };
        let tag = self.node.tag.load(Ordering::Relaxed);
        // SAFETY: as the caller promises; the word was free, or its owner dead, so no living thread has it linked.
        robust::with(|thread| unsafe { self.taken(thread, most) })?;
        if word & OWNER_DIED == 0 {
            return Ok(Acquired::Clean);
        }
        Ok(Acquired::OwnerDied { pid: tag & !LEAVING, leaving: tag & LEAVING != 0 })
    }

    /// Links the word that has just become this thread's.
    #[inline]
    unsafe fn taken(&self, thread: Current<'_>, most: usize) -> Result<(), Failure> {
        self.node.tag.store(thread.pid(), Ordering::Relaxed);
        crash::point("mutex.tagged");
        // SAFETY: as the caller promises.
        let held = unsafe { thread.hold(&self.node, most) };
        if let Err(error) = held {
            self.give_back(thread.tid());
            thread.clear_pending();
            return Err(error.into());
        }
        crash::point("mutex.linked");
        thread.clear_pending();
        Ok(())
    }

    /// Waits until the word is this thread's; returns what it was before.
    #[cold]
    fn wait<G: Ground>(&self, me: u32, ground: &G, patience: Patience) -> Result<u32, Failure> {
        let word = &self.node.word;
        let (mut backstop, mut noted, mut lost) = (Backstop::new(), None, false);
        // Who has slept may not be the only sleeper, so it keeps the bit.
        let mut slept = 0;
        loop {
            let seen = word.load(Ordering::Relaxed);
            if seen & TID_MASK == 0 {
                let mine = me | (seen & WAITERS) | slept;
                // LOCK: Acquire, pairs with UNLOCK and with the kernel's mark.
                if word.compare_exchange(seen, mine, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                    crash::point("mutex.taken_contended");
                    if lost {
                        backstop::found_work();
                    }
                    return Ok(seen);
                }
                continue;
            }
            if seen & TID_MASK == me {
                return Err(Failure::AlreadyHeld);
            }
            if patience == Patience::None {
                return Err(Failure::WouldBlock);
            }
            let waited_for = seen | WAITERS;
            if seen & WAITERS == 0
                && word.compare_exchange(seen, waited_for, Ordering::Relaxed, Ordering::Relaxed).is_err()
            {
                continue;
            }
            noted.get_or_insert_with(|| ground.note_wait());
            crash::point("mutex.before_sleep");
            let waited = futex::wait_word(word, waited_for, backstop.until(patience.deadline()));
            crash::point("mutex.woken");
            slept = WAITERS;
            lost = false;
            if waited == Waited::TimedOut {
                if patience.deadline().is_some_and(mp_sys::deadline::Deadline::passed) {
                    return Err(Failure::TimedOut);
                }
                let free = word.load(Ordering::Relaxed);
                lost = free & TID_MASK == 0 && backstop::is_lost(word, free);
            }
        }
    }

    /// Gives the mutex back. Does nothing if the calling thread does not own it.
    #[inline]
    pub fn unlock(&self) {
        robust::with(|thread| {
            if self.owner_tid() != thread.tid() {
                return;
            }
            // SAFETY: this thread holds the mutex, so by the promise made to `lock` it stays until it is given back, below.
            unsafe { thread.set_pending(&self.node.word) };
            crash::point("mutex.unlocking");
            self.node.tag.store(thread.pid() | LEAVING, Ordering::Relaxed);
            thread.let_go(&self.node);
            crash::point("mutex.unlinked");
            self.give_back(thread.tid());
            crash::point("mutex.unlocked");
            thread.clear_pending();
        });
    }

    /// The word becomes free. It is pending, and not linked.
    #[inline]
    fn give_back(&self, me: u32) {
        // UNLOCK: Release, pairs with LOCK.
        if self.node.word.compare_exchange(me, 0, Ordering::Release, Ordering::Relaxed).is_err() {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        // UNLOCK: Release, pairs with LOCK.
        self.node.word.store(WAITERS, Ordering::Release);
        crash::point("mutex.before_wake");
        if futex::wake(&self.node.word, 1) == 0 {
            crash::point("mutex.nobody");
            // Whoever took the lock meanwhile keeps the bit; it costs that one a wake for nothing.
            let _ = self.node.word.compare_exchange(WAITERS, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Whether the calling thread owns the mutex.
    #[inline]
    #[must_use]
    pub fn is_mine(&self) -> bool {
        self.owner_tid() == robust::tid()
    }

    /// The thread that owns it, 0 if it is free.
    #[inline]
    #[must_use]
    pub fn owner_tid(&self) -> u32 {
        self.node.word.load(Ordering::Relaxed) & TID_MASK
    }

    /// The process of the owner, as it wrote it down; meaningful while it is owned.
    #[must_use]
    pub fn owner_pid(&self) -> u32 {
        self.node.tag.load(Ordering::Relaxed) & !LEAVING
    }

    /// Notes that what it guards is suspect. Who owns the mutex may call this.
    pub fn poison(&self) {
        self.note(POISONED).store(1, Ordering::Relaxed);
    }

    /// Notes that what it guards is right again.
    pub fn clear_poison(&self) {
        self.note(POISONED).store(0, Ordering::Relaxed);
    }

    /// Whether what it guards is suspect.
    #[inline]
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.note(POISONED).load(Ordering::Relaxed) != 0
    }

    /// Notes how many slots follow the mutex in memory, for reports. Before a sleep.
    pub(crate) fn note_slots(&self, count: usize) {
        self.note(SLOTS).store(u32::try_from(count).unwrap_or(0), Ordering::Relaxed);
    }

    /// A word for whoever has the mutex: 1 or 3.
    #[inline]
    pub fn note(&self, number: usize) -> &AtomicU32 {
        &self.node.extra[number]
    }

    /// What it is called in reports.
    #[cfg(not(loom))]
    #[must_use]
    pub fn name(&self) -> String {
        let words = self.node.name.each_ref().map(|word| word.load(Ordering::Relaxed).to_le_bytes());
        let bytes: Vec<u8> = words.concat().into_iter().take_while(|byte| *byte != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Names it for reports, by at most 24 bytes; what is longer is cut.
    #[cfg(not(loom))]
    pub fn set_name(&self, name: &str) {
        let mut bytes = name.bytes().chain(std::iter::repeat(0));
        for word in &self.node.name {
            word.store(
                u64::from_le_bytes(std::array::from_fn(|_| bytes.next().unwrap_or(0))),
                Ordering::Relaxed,
            );
        }
    }
}

impl From<HoldError> for Failure {
    fn from(error: HoldError) -> Self {
        match error {
            HoldError::Unsupported => Self::NoRobustList,
            HoldError::TooMany => Self::TooManyHeld,
        }
    }
}
