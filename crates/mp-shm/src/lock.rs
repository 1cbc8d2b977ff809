//! The lock of a domain: guards its tables, survives its holder.
//!
//! Owns: one futex word. Any thread of the domain may take it; it is held for microseconds, never while user code runs,
//! never twice by one thread.
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
//! ```
//!
//! Edges: LOCK Acquire in `lock`, pairs with UNLOCK Release in `unlock` (or with the kernel's mark): publishes the tables.
//! Death: the word is the thread's pending word from before the first compare-and-swap until after the wake, so the kernel
//! marks it, or wakes a sleeper of it, wherever the thread dies. It is never linked: the pending word is enough for a lock that
//! is held alone, and while it is held nothing else may be pending.
//! Models: loom `lock_*` in `tests/loom_lock.rs`, negative control without the pending word.
//! Source: Linux Documentation/locking/robust-futexes; the release rule (WAITERS stays until the wake found nobody) is ours:
//! with a plain swap to 0, an unlocker killed before its wake strands a sleeper when a third thread barges in.

#![expect(unsafe_code, reason = "the pending word")]

use mp_sys::atomic::{AtomicU32, Ordering};
use mp_sys::backstop::{self, Backstop};
use mp_sys::crash;
use mp_sys::futex::{self, Waited};
use mp_sys::robust::{self, OWNER_DIED, TID_MASK, WAITERS};

/// The lock's word.
#[derive(Debug)]
#[repr(C)]
pub struct DomainLock {
    word: AtomicU32,
}

/// What a locker is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// The tables are as the last holder left them on purpose.
    Clean,
    /// The last holder died in the middle: what it guards must be rebuilt.
    OwnerDied,
}

impl DomainLock {
    /// A free lock.
    #[must_use]
    pub fn new() -> Self {
        Self { word: AtomicU32::new(0) }
    }

    /// Takes the lock. The thread's pending word is in use until [`unlock`](Self::unlock).
    ///
    /// # Safety
    /// The lock stays where it is until this thread has unlocked it or has ended.
    #[inline]
    pub unsafe fn lock(&self) -> Acquired {
        let me = robust::tid();
        // SAFETY: the word stays until `unlock`, which clears the pending word, as the caller promises.
        unsafe { robust::set_pending(&self.word) };
        crash::point("lock.pending");
        // LOCK: Acquire, pairs with UNLOCK.
        if self.word.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            crash::point("lock.taken");
            return Acquired::Clean;
        }
        self.lock_contended(me)
    }

    #[cold]
    fn lock_contended(&self, me: u32) -> Acquired {
        let mut backstop = Backstop::new();
        // Who has slept may not be the only sleeper, so it keeps the bit.
        let mut slept = 0;
        let mut lost = false;
        loop {
            let word = self.word.load(Ordering::Relaxed);
            if word & TID_MASK == 0 {
                let mine = me | (word & WAITERS) | slept;
                // LOCK: Acquire, pairs with UNLOCK and with the kernel's mark.
                if self.word.compare_exchange(word, mine, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                    crash::point("lock.taken_contended");
                    if lost {
                        backstop::found_work();
                    }
                    return if word & OWNER_DIED == 0 { Acquired::Clean } else { Acquired::OwnerDied };
                }
                continue;
            }
            let waited_for = word | WAITERS;
            if word & WAITERS == 0
                && self.word.compare_exchange(word, waited_for, Ordering::Relaxed, Ordering::Relaxed).is_err()
            {
                continue;
            }
            crash::point("lock.before_sleep");
            let waited = futex::wait_word(&self.word, waited_for, backstop.until(None));
            let free = self.word.load(Ordering::Relaxed);
            lost = waited == Waited::TimedOut && free & TID_MASK == 0 && backstop::is_lost(&self.word, free);
            slept = WAITERS;
            crash::point("lock.woken");
        }
    }

    /// Gives the lock back. Only its holder may call this.
    #[inline]
    pub fn unlock(&self) {
        let me = robust::tid();
        crash::point("unlock.begin");
        // UNLOCK: Release, pairs with LOCK.
        if self.word.compare_exchange(me, 0, Ordering::Release, Ordering::Relaxed).is_err() {
            self.unlock_contended();
        }
        crash::point("unlock.end");
        robust::clear_pending();
    }

    /// Makes the lock free, whoever held it. Only while nobody else can know of it.
    #[cfg(not(loom))]
    pub(crate) fn reset(&self) {
        self.word.store(0, Ordering::Relaxed);
    }

    /// The thread that holds it; for reports.
    #[cfg(not(loom))]
    pub(crate) fn holder(&self) -> Option<u32> {
        let word = self.word.load(Ordering::Relaxed);
        (word & OWNER_DIED == 0).then_some(word & TID_MASK).filter(|tid| *tid != 0)
    }

    #[cold]
    fn unlock_contended(&self) {
        // UNLOCK: Release, pairs with LOCK.
        self.word.store(WAITERS, Ordering::Release);
        crash::point("unlock.before_wake");
        if futex::wake(&self.word, 1) == 0 {
            crash::point("unlock.nobody");
            // Whoever took the lock meanwhile keeps the bit; it costs that one a wake for nothing.
            let _ = self.word.compare_exchange(WAITERS, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

impl Default for DomainLock {
    fn default() -> Self {
        Self::new()
    }
}
