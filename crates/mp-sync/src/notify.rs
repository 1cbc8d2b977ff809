//! A wake-up between processes that survives the death of who wakes and of who is woken.
//!
//! Owns: two words a side of a channel (receivers wait at one side, senders at the other). A futex word, which never holds an owner, only the
//! bit that says that somebody may be asleep on it; and the bells that are armed, a bit for each, of those who wait for this among other things.
//!
//! ```text
//! word     event                                  to            who
//! 0        about to sleep                         WAITERS       sleeper, edge ASLEEP; then looks again, then sleeps
//! WAITERS  published something, edge PUBLISHED    0, wake one   publisher
//! *        dies between publishing and waking     *, wake one   kernel: the word is pending from before the publication
//! *        dies after it was woken, before it     *, wake one   kernel: the word is pending while it waits
//!          took what it was woken for
//! *        dies after its claim of a slot         *, wake one   kernel: that one frees the slot of the dead
//! 0        woken                                  WAITERS       the woken one, before it looks: others may sleep on
//! WAITERS  took something after a sleep, more     0, wake one   the woken one: one wake may have stood for several
//!          is there                                             publications
//! ```
//!
//! Edges: ASLEEP (`fetch_or`, then the heavy half of a barrier, then the look) and PUBLISHED (the publication, then the light half, then
//! the load of the word): of two that run at once, at least one sees the other.
//! Who waits for several things at once sleeps on a *bell*, a word of its session that some processes share, and arms a bit for it at
//! each thing; a publisher takes all bits and rings their bells, after it has woken the sleeper that waits for this alone. The same edges.
//! The word alone has an ABA: a publisher clears it, a sleeper that then dies sets it again, and the first sleeper goes to sleep
//! although something is there. So a sleeper also watches the word of the slot it waits for, which tells the two apart.
//! Death: each line between two rows leaves a row of this table, or the pending word makes the kernel wake one sleeper more.
//! Models: loom `ring_*` in mp-channel's `tests/loom_ring.rs`; negative controls without the pending word and without the watch
//! on the slot. Of bells, `select_*` in its `tests/loom_select.rs`.
//! Source: kernel/futex/core.c, `handle_futex_death`: a pending word without owner gets a wake; the use of it is ours.

#![expect(unsafe_code, reason = "the pending word")]

use crate::patience::Patience;
use crate::spin::Spin;
use mp_shm::death::{self, Domain, Slept};
use mp_sys::atomic::{AtomicU32, AtomicU64, Ordering};
use mp_sys::backstop::{self, Backstop};
use mp_sys::barrier;
use mp_sys::crash;
use mp_sys::deadline::Deadline;
use mp_sys::futex::{self, Watch};
use mp_sys::robust::{self, Current, WAITERS};

/// The word of one side.
#[derive(Debug)]
#[cfg_attr(not(loom), derive(mp_shm::ShmSafe))]
#[repr(C)]
pub struct Notify {
    word: AtomicU32,
    unused: AtomicU32,
    /// A bit for each bell that the next publication rings; see [`Domain::ring`].
    bells: AtomicU64,
}

/// Why an attempt could not succeed: the values it saw, to be watched while asleep.
#[derive(Clone, Copy, Debug)]
pub struct Blocked<'a> {
    /// The slot waited for, as it was seen.
    pub slot: Watch<'a>,
    /// Counts disconnections, as it was before the attempt.
    pub closed: Watch<'a>,
    /// Who holds the slot.
    pub owner: Owner<'a>,
    /// One more word that ends the wait when it changes.
    pub interrupt: Option<Watch<'a>>,
}

/// Who holds a slot.
#[derive(Clone, Copy, Debug)]
pub enum Owner<'a> {
    /// Nobody: it waits to be filled or emptied.
    Nobody,
    /// A thread, with this sentinel.
    Living(Watch<'a>),
    /// A thread that is dead: its slot waits for a recovery.
    Dead,
}

impl Notify {
    /// Nobody sleeps.
    #[must_use]
    pub fn new() -> Self {
        Self { word: AtomicU32::new(0), unused: AtomicU32::new(0), bells: AtomicU64::new(0) }
    }

    /// Makes the word pending: if this thread dies from here on, the kernel wakes one sleeper. Before a publication.
    ///
    /// # Safety
    /// The word stays where it is until [`publish`](Self::publish), or another word is pending, or this thread has ended.
    #[inline]
    pub unsafe fn pend(&self, thread: Current<'_>) {
        // SAFETY: as the caller promises.
        unsafe { thread.set_pending(&self.word) };
    }

    /// Wakes one sleeper, if any, after a publication, and ends what [`pend`](Self::pend) began.
    #[inline]
    pub fn publish<D: Domain + ?Sized>(&self, domain: &D, thread: Current<'_>, count: u32) {
        self.wake(domain, count);
        thread.clear_pending();
    }

    /// Wakes up to `count` sleepers, longest asleep first, and rings the bells that are armed. The word is pending.
    #[inline]
    pub fn wake<D: Domain + ?Sized>(&self, domain: &D, count: u32) {
        // PUBLISHED: pairs with ASLEEP.
        barrier::light();
        crash::point("notify.published");
        if self.word.load(Ordering::Relaxed) & WAITERS != 0 || self.bells.load(Ordering::Relaxed) != 0 {
            self.wake_sleepers(domain, count);
        }
    }

    #[cold]
    fn wake_sleepers<D: Domain + ?Sized>(&self, domain: &D, count: u32) {
        if self.word.load(Ordering::Relaxed) & WAITERS != 0
            && self.word.swap(0, Ordering::AcqRel) & WAITERS != 0
        {
            crash::point("notify.before_wake");
            futex::wake(&self.word, count);
        }
        self.ring(domain);
    }

    /// Rings the bells that are armed: what those wait for may have come.
    pub fn ring<D: Domain + ?Sized>(&self, domain: &D) {
        let armed = self.bells.swap(0, Ordering::AcqRel);
        if armed != 0 {
            crash::point("notify.before_ring");
            domain.ring(armed);
        }
    }

    /// The word of armed bells.
    #[must_use]
    pub fn bells(&self) -> &AtomicU64 {
        &self.bells
    }

    /// Arms the bells of `bit`: the next publication rings them. The caller calls [`barrier::heavy`] after it has armed all that it waits
    /// for, looks, and then sleeps on its bell as it was before.
    pub fn arm(&self, bit: u64) {
        self.bells.fetch_or(bit, Ordering::AcqRel);
    }

    /// Whether somebody may be asleep.
    #[inline]
    #[must_use]
    pub fn has_sleepers(&self) -> bool {
        self.word.load(Ordering::Relaxed) & WAITERS != 0
    }

    /// Calls `attempt` until it gives a value or patience ends; sleeps in between, after `spin` if that is given. `attempt` is told whether this waiter has
    /// slept, since a wake may stand for several publications then.
    ///
    /// When it gives a value the word is still pending; the caller makes another one pending, or ends it.
    ///
    /// # Safety
    /// As of [`pend`](Self::pend), to the end of this call and, if it gives a value, beyond.
    #[cold]
    pub unsafe fn wait<'a, T, D: Domain + ?Sized>(
        &'a self,
        domain: &D,
        patience: Patience,
        spin: Option<&Spin>,
        mut attempt: impl FnMut(bool) -> Result<T, Blocked<'a>>,
    ) -> Option<T> {
        // Before any attempt: a claim by a thread that dies right after it must wake one who waits for the slot.
        // SAFETY: as the caller promises.
        robust::with(|thread| unsafe { self.pend(thread) });
        if let Ok(value) = attempt(false) {
            return Some(value);
        }
        if patience == Patience::None {
            // SAFETY: as the caller promises.
            let value = unsafe { self.last_attempt(domain, attempt) };
            if value.is_none() {
                robust::clear_pending();
            }
            return value;
        }
        if let Some(value) = spin.and_then(|spin| spin.spin(|| attempt(false).ok())) {
            return Some(value);
        }
        // SAFETY: as the caller promises.
        unsafe { self.sleep(domain, patience.deadline(), attempt) }
    }

    /// For a sleep that only its backstop ended: whether the slot has changed, and nothing has moved for a second more.
    #[cold]
    fn has_lost_a_wake(&self, slot: Watch<'_>) -> bool {
        let (now, expected) = (slot.now(), slot.expected());
        now != expected
            && backstop::is_lost(&self.word, self.word.load(Ordering::Relaxed))
            && slot.now() == now
    }

    /// One more attempt if somebody has died meanwhile: who never sleeps must not overlook a death for ever.
    #[cold]
    unsafe fn last_attempt<'a, T, D: Domain + ?Sized>(
        &'a self,
        domain: &D,
        mut attempt: impl FnMut(bool) -> Result<T, Blocked<'a>>,
    ) -> Option<T> {
        if !death::find(domain) {
            return None;
        }
        // The recovery used the pending word for its lock.
        // SAFETY: as the caller of `wait` promises.
        robust::with(|thread| unsafe { self.pend(thread) });
        attempt(false).ok()
    }

    #[cold]
    unsafe fn sleep<'a, T, D: Domain + ?Sized>(
        &'a self,
        domain: &D,
        deadline: Option<Deadline>,
        mut attempt: impl FnMut(bool) -> Result<T, Blocked<'a>>,
    ) -> Option<T> {
        let mut backstop = Backstop::new();
        let mut lost = false;
        loop {
            // What this does, or a recovery did, may have used the pending word for the domain's lock.
            let look = domain.before_sleep();
            // SAFETY: as the caller of `wait` promises.
            robust::with(|thread| unsafe { self.pend(thread) });
            crash::point("notify.pending");
            // ASLEEP: the bit, then the heavy half, pairs with PUBLISHED.
            self.word.fetch_or(WAITERS, Ordering::AcqRel);
            barrier::heavy();
            crash::point("notify.announced");
            let blocked = match attempt(true) {
                Ok(value) => {
                    if lost {
                        backstop::found_work();
                    }
                    return Some(value);
                }
                Err(blocked) => blocked,
            };
            if let Owner::Dead = blocked.owner {
                domain.recover();
                continue;
            }
            if deadline.is_some_and(Deadline::passed) {
                // SAFETY: as the caller of `wait` promises.
                let value = unsafe { self.last_attempt(domain, attempt) };
                if value.is_none() {
                    robust::clear_pending();
                }
                return value;
            }
            let own = [Watch::Word(&self.word, WAITERS), blocked.slot, blocked.closed, blocked.closed];
            let own = match blocked.interrupt {
                Some(interrupt) => &[own[0], own[1], own[2], interrupt],
                None => &own[..3],
            };
            let owner = match blocked.owner {
                Owner::Living(sentinel) => Some(sentinel),
                Owner::Nobody | Owner::Dead => None,
            };
            let slept = death::sleep(domain, own, owner, backstop.until(deadline), look);
            // Not at the caller's own deadline, which is not to be missed. (Without waits on several words deaths are only found this way.)
            lost = slept == Slept::TimedOut
                && futex::watches_all()
                && !deadline.is_some_and(Deadline::passed)
                && self.has_lost_a_wake(blocked.slot);
            crash::point("notify.woken");
        }
    }
}

impl Default for Notify {
    fn default() -> Self {
        Self::new()
    }
}
