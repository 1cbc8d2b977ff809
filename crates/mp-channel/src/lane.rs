//! The lane: a ring with one sender and one receiver, who claim nothing.
//!
//! Owns: the same words as `ring`; each side keeps its position to itself.
//!
//! ```text
//! from       event                          to             who
//! EMPTY, t   wrote the message              FULL, t        the sender, edge FULL
//! FULL, h    took the message               EMPTY, h + N   the receiver, edge EMPTY
//! ```
//!
//! Who holds an end alone is the business of `mp_shm::sole`: until the count of an end is 1, nobody works on it. Head and tail are written for
//! those who open an end elsewhere, and lag by one if their writer died.
//!
//! Edges: FULL and EMPTY Release, each pairs with the Acquire load of the other side before it touches the slot.
//! Death: of the sender while it writes: the slot stays EMPTY, the message never existed; what the slot names goes with the channel.
//! Of the receiver while it reads: the slot stays FULL, and nobody will read it, for the end has died with its holder.
//! Wake-ups are those of `mp_sync::notify`, with one sleeper a side.
//! Models: loom `lane_*` in `tests/loom_lane.rs`.

#![expect(unsafe_code, reason = "the pending words")]

use crate::ring::{Control, EMPTY, FULL, Refused, Seen, Shape, Slots, World, word};
use mp_sync::notify::{Blocked, Owner};
use mp_sync::patience::Patience;
use mp_sync::spin::Spin;
use mp_sys::atomic::{AtomicU64, Ordering};
use mp_sys::crash;
use mp_sys::futex::Watch;
use mp_sys::robust::Current;

/// A lane as one end sees it.
#[derive(Clone, Copy, Debug)]
pub struct Lane<'a, S, W> {
    /// Its shared words.
    pub control: &'a Control,
    /// Its slots.
    pub slots: &'a S,
    /// Its shape.
    pub shape: Shape,
    /// The world around it.
    pub world: &'a W,
    /// The calling thread.
    pub thread: Current<'a>,
}

impl<'a, S: Slots, W: World> Lane<'a, S, W> {
    /// Where the sender goes on, for one who opens its end.
    #[must_use]
    pub fn find_tail(&self) -> u64 {
        self.find(&self.control.tail().0, |seen, position| seen.state == FULL && seen.sequence == position)
    }

    /// Where the receiver goes on, for one who opens its end.
    #[must_use]
    pub fn find_head(&self) -> u64 {
        self.find(&self.control.head().0, |_, _| false)
    }

    /// Goes on from a hint, over the slots that were passed; no further than a lap, whatever the slots say.
    fn find(&self, hint: &AtomicU64, passed: impl Fn(Seen, u64) -> bool) -> u64 {
        let mut position = hint.load(Ordering::Acquire) & self.shape.mask();
        for _ in 0..self.shape.capacity() {
            let seen = Seen::of(self.slots.word(self.shape.index(position)).load(Ordering::Acquire));
            if seen.sequence != self.shape.lap_on(position) && !passed(seen, position) {
                break;
            }
            position = self.shape.next(position);
        }
        position
    }

    /// Waits until the slot at `position` is free, and gives its index. Between this and [`finish_send`](Self::finish_send) no user code may
    /// run.
    ///
    /// # Errors
    /// [`Refused`]
    ///
    /// # Safety
    /// The control words stay where they are until `finish_send`, or this thread has ended: one of them is pending.
    #[inline]
    pub unsafe fn begin_send<'s>(
        &self,
        position: u64,
        patience: Patience,
        spin: impl FnOnce() -> Option<&'s Spin>,
    ) -> Result<u32, Refused> {
        let index = self.shape.index(position);
        // From before the publication until after the wake.
        // SAFETY: as the caller promises.
        unsafe { self.control.not_empty.0.pend(self.thread) };
        // EMPTY: Acquire, pairs with the Release in `finish_receive`.
        if self.world.receivers() != 0
            && self.slots.word(index).load(Ordering::Acquire) == word(EMPTY, position, 0)
        {
            return Ok(index);
        }
        let full = word(FULL, self.shape.lap_back(position), 0);
        let free = word(EMPTY, position, 0);
        let ready = || if self.world.receivers() == 0 { Err(Refused::Disconnected) } else { Ok(free) };
        // SAFETY: as the caller promises.
        unsafe { self.wait(&self.control.not_full.0, index, full, ready, patience, spin())? };
        // SAFETY: as the caller promises.
        unsafe { self.control.not_empty.0.pend(self.thread) };
        Ok(index)
    }

    /// Publishes the message written at `position` and wakes the receiver; gives the next position.
    #[inline]
    pub fn finish_send(&self, position: u64) -> u64 {
        crash::point("lane.written");
        // FULL: Release, pairs with the Acquire in `begin_receive`.
        self.slots.word(self.shape.index(position)).store(word(FULL, position, 0), Ordering::Release);
        crash::point("lane.published");
        let next = self.shape.next(position);
        self.control.tail().0.store(next, Ordering::Release);
        self.control.not_empty.0.publish(self.world, self.thread, 1);
        crash::point("lane.sent");
        next
    }

    /// Waits until there is a message at `position`, and gives its slot's index. Between this and [`finish_receive`](Self::finish_receive)
    /// no user code may run.
    ///
    /// # Errors
    /// [`Refused`]
    ///
    /// # Safety
    /// The control words stay where they are until `finish_receive`, or this thread has ended: one of them is pending.
    #[inline]
    pub unsafe fn begin_receive<'s>(
        &self,
        position: u64,
        patience: Patience,
        spin: impl FnOnce() -> Option<&'s Spin>,
    ) -> Result<u32, Refused> {
        let index = self.shape.index(position);
        // From before the slot is given back until after the wake.
        // SAFETY: as the caller promises.
        unsafe { self.control.not_full.0.pend(self.thread) };
        // FULL: Acquire, pairs with the Release in `finish_send`.
        let there = word(FULL, position, 0);
        if self.slots.word(index).load(Ordering::Acquire) == there {
            return Ok(index);
        }
        let empty = word(EMPTY, position, 0);
        let ready = || {
            // Read before the slot: what the sender sent before it left is then found there.
            let nobody_sends = self.world.senders() == 0;
            let found = self.slots.word(index).load(Ordering::Acquire);
            if nobody_sends && found != there { Err(Refused::Disconnected) } else { Ok(there) }
        };
        // SAFETY: as the caller promises.
        unsafe { self.wait(&self.control.not_empty.0, index, empty, ready, patience, spin())? };
        // SAFETY: as the caller promises.
        unsafe { self.control.not_full.0.pend(self.thread) };
        Ok(index)
    }

    /// The index of the slot at `position` if there is a message in it, after [`release`](Self::release).
    #[inline]
    pub fn receive_more(&self, position: u64) -> Option<u32> {
        let index = self.shape.index(position);
        // FULL: as in `begin_receive`.
        (self.slots.word(index).load(Ordering::Acquire) == word(FULL, position, 0)).then_some(index)
    }

    /// Gives the slot at `position` back after its message was taken, and wakes the sender; gives the next position.
    #[inline]
    pub fn finish_receive(&self, position: u64) -> u64 {
        let next = self.release(position);
        self.wake_sender(next);
        next
    }

    /// Gives the slot at `position` back after its message was taken, without telling the sender: the caller takes more messages at once, and
    /// then calls [`wake_sender`](Self::wake_sender). Gives the next position.
    #[inline]
    pub fn release(&self, position: u64) -> u64 {
        crash::point("lane.taken");
        let empty = word(EMPTY, self.shape.lap_on(position), 0);
        // EMPTY: Release, pairs with the Acquire in `begin_send`.
        self.slots.word(self.shape.index(position)).store(empty, Ordering::Release);
        crash::point("lane.released");
        self.shape.next(position)
    }

    /// Wakes the sender, if it sleeps, for all slots before `next`.
    #[inline]
    pub fn wake_sender(&self, next: u64) {
        self.control.head().0.store(next, Ordering::Release);
        self.control.not_full.0.publish(self.world, self.thread, 1);
        crash::point("lane.received");
    }

    /// Waits until the word of slot `index` is what `ready` says. It is `before` until then.
    ///
    /// # Safety
    /// As of [`begin_send`](Self::begin_send).
    #[cold]
    unsafe fn wait(
        &self,
        notify: &'a mp_sync::notify::Notify,
        index: u32,
        before: u64,
        ready: impl Fn() -> Result<u64, Refused>,
        patience: Patience,
        spin: Option<&Spin>,
    ) -> Result<(), Refused> {
        let slot = self.slots.word(index);
        let attempt = |_| {
            let closed = &self.control.closed.0;
            let closed = Watch::Word(closed, closed.load(Ordering::Acquire));
            let wanted = match ready() {
                Ok(wanted) => wanted,
                Err(refused) => return Ok(Err(refused)),
            };
            let found = slot.load(Ordering::Acquire);
            if found == wanted {
                return Ok(Ok(()));
            }
            if found != before {
                return Ok(Err(Refused::Corrupt));
            }
            #[expect(clippy::cast_possible_truncation, reason = "the low half is what a futex can watch")]
            let low = found as u32;
            Err(Blocked { slot: Watch::Low(slot, low), closed, owner: Owner::Nobody, interrupt: None })
        };
        // SAFETY: as the caller promises.
        match unsafe { notify.wait(self.world, patience, spin, attempt) } {
            Some(Ok(())) => Ok(()),
            Some(Err(refused)) => {
                self.thread.clear_pending();
                Err(refused)
            }
            None => Err(Refused::Waiting),
        }
    }

    /// Whether the sender at `position` could go on now.
    #[must_use]
    pub fn can_send(&self, position: u64) -> bool {
        let word_now = self.slots.word(self.shape.index(position)).load(Ordering::Acquire);
        word_now == word(EMPTY, position, 0)
    }

    /// Whether there is a message at `position` now.
    #[must_use]
    pub fn can_receive(&self, position: u64) -> bool {
        self.receive_more(position).is_some()
    }
}
