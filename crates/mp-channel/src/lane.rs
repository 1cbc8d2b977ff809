//! The lane: a ring with one sender and one receiver, who claim nothing.
//!
//! Owns: the slot words, which the sender alone writes, and the head, which the receiver alone writes. So a line of the ring goes from one
//! processor to the other once for each message, and the head's only when the sender has come round to what it saw of it last.
//!
//! ```text
//! slot word              event                         to             who
//! EMPTY, t or FULL, t-N  wrote the message             FULL, t        the sender, edge FULL; t is less than N on from the head
//! EMPTY, t or FULL, t-N  writes one with handles       WRITING, t, me the sender, before its block is named; then as above
//! WRITING, t             the sender is dead            DEAD, t        recovery, after it has taken the handles off
//! head
//! h                      took those of FULL, h to k    k + 1          the receiver, edge HEAD
//! ```
//!
//! `t - N` stands for the same index one lap back. Who holds an end alone is the business of `mp_shm::sole`: until the count of an end is 1,
//! nobody works on it. The tail is written for those who open an end elsewhere, and lags by one if its writer died.
//!
//! Edges: FULL Release, pairs with the Acquire load of the slot word before the receiver touches the slot; HEAD Release, pairs with the
//! Acquire load of the head before the sender touches slots that it says are free.
//! Death: of the sender while it writes: the message never existed. What the slot names goes with the channel; handles in it go at once, for
//! somebody may wait for the last of them, which is why a slot says so when it gets a message with handles.
//! Of the receiver while it reads: the head stays, and nobody will read the messages, for the end has died with its holder.
//! Wake-ups are those of `mp_sync::notify`, with one sleeper a side.
//! Models: loom `lane_*` in `tests/loom_lane.rs`.
//! Source: Lamport's queue of one producer and one consumer, with FastForward's idea of a full slot that says so itself.

#![expect(unsafe_code, reason = "the pending words")]

use crate::control::{Control, Refused, World};
use crate::stamp::{DEAD, EMPTY, FULL, SEQUENCE_MASK, Seen, Shape, Slots, WRITING, word};
use mp_sync::notify::{Blocked, Owner};
use mp_sync::patience::Patience;
use mp_sync::spin::{Spin, gather};
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
        let mut position = self.control.tail.0.load(Ordering::Acquire) & SEQUENCE_MASK;
        // No further than a lap, whatever the slots say.
        for _ in 0..self.shape.capacity() {
            if !self.can_receive(position) {
                break;
            }
            position = self.shape.next(position);
        }
        position
    }

    /// Where the receiver goes on, for one who opens its end; and what the sender knows of it.
    #[must_use]
    pub fn head(&self) -> u64 {
        // HEAD: Acquire, pairs with the Release in `finish_receive`.
        self.control.head.0.load(Ordering::Acquire) & SEQUENCE_MASK
    }

    /// How many messages are there, a moment ago.
    #[must_use]
    pub fn len(&self) -> u32 {
        let (head, tail) = (self.head(), self.find_tail());
        u32::try_from(self.shape.distance(head, tail)).map_or(0, |len| len.min(self.shape.capacity()))
    }

    /// Whether there are none, a moment ago.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.can_receive(self.head())
    }

    /// Waits until the slot at `position` is free, and gives its index. `head` is what the sender has last seen of the receiver, at first what
    /// [`head`](Self::head) gives. Between this and [`finish_send`](Self::finish_send) no user code may run.
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
        head: &mut u64,
        patience: Patience,
        spin: impl FnOnce() -> Option<&'s Spin>,
    ) -> Result<u32, Refused> {
        // From before the publication until after the wake.
        // SAFETY: as the caller promises.
        unsafe { self.control.not_empty.0.pend(self.thread) };
        if self.world.receivers() != 0 && *head != self.shape.lap_back(position) {
            return Ok(self.shape.index(position));
        }
        // SAFETY: as the caller promises.
        unsafe { self.begin_send_waiting(position, head, patience, spin()) }
    }

    #[cold]
    unsafe fn begin_send_waiting(
        &self,
        position: u64,
        seen: &mut u64,
        patience: Patience,
        spin: Option<&Spin>,
    ) -> Result<u32, Refused> {
        let (capacity, batch) = (self.shape.capacity(), self.shape.batch());
        if batch > 1 && spin.is_some() && patience != Patience::None {
            gather(|| self.shape.distance(self.head(), position) <= u64::from(capacity - batch));
        }
        let attempt = |_| {
            let closed = self.closed();
            if self.world.receivers() == 0 {
                return Ok(Err(Refused::Disconnected));
            }
            let head = self.head();
            match self.shape.distance(head, position).cmp(&self.shape.capacity().into()) {
                std::cmp::Ordering::Less => Ok(Ok(head)),
                std::cmp::Ordering::Equal => Err(blocked(&self.control.head.0, head, closed)),
                std::cmp::Ordering::Greater => Ok(Err(Refused::Corrupt)),
            }
        };
        // SAFETY: as the caller promises.
        let waited = unsafe { self.control.not_full.0.wait(self.world, patience, spin, attempt) };
        *seen = self.unless_refused(waited)?;
        // SAFETY: as the caller promises.
        unsafe { self.control.not_empty.0.pend(self.thread) };
        Ok(self.shape.index(position))
    }

    /// Says that a message with handles is written at `position`, before its block is named there.
    pub fn write_handles(&self, position: u64) {
        let writing = word(WRITING, position, self.world.me());
        // Release: recovery, which finds the block's name, finds this before.
        self.slots.word(self.shape.index(position)).store(writing, Ordering::Release);
        crash::point("lane.writing");
    }

    /// Publishes the message written at `position` and wakes the receiver; gives the next position.
    #[inline]
    pub fn finish_send(&self, position: u64) -> u64 {
        crash::point("lane.written");
        // FULL: Release, pairs with the Acquire in `can_receive`.
        self.slots.word(self.shape.index(position)).store(word(FULL, position, 0), Ordering::Release);
        crash::point("lane.published");
        let next = self.shape.next(position);
        self.control.tail.0.store(next, Ordering::Release);
        self.control.not_empty.0.publish(self.world, self.thread, 1);
        crash::point("lane.sent");
        next
    }

    /// Waits until there is a message at `position`. Between this and [`finish_receive`](Self::finish_receive)
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
    ) -> Result<(), Refused> {
        // From before the slot is given back until after the wake.
        // SAFETY: as the caller promises.
        unsafe { self.control.not_full.0.pend(self.thread) };
        if self.can_receive(position) {
            return Ok(());
        }
        // SAFETY: as the caller promises.
        unsafe { self.begin_receive_waiting(position, patience, spin()) }
    }

    #[cold]
    unsafe fn begin_receive_waiting(
        &self,
        position: u64,
        patience: Patience,
        spin: Option<&Spin>,
    ) -> Result<(), Refused> {
        let slot = self.slots.word(self.shape.index(position));
        let is_before = |found| {
            let seen = Seen::of(found);
            found == word(EMPTY, position, 0)
                || found == word(FULL, self.shape.lap_back(position), 0)
                || (seen.sequence == position && matches!(seen.state, WRITING | DEAD))
        };
        let attempt = |_| {
            let closed = self.closed();
            // Read before the slot: what the sender sent before it left is then found there.
            let nobody_sends = self.world.senders() == 0;
            // FULL: as in `can_receive`.
            let found = slot.load(Ordering::Acquire);
            if found == word(FULL, position, 0) {
                Ok(Ok(()))
            } else if !is_before(found) {
                Ok(Err(Refused::Corrupt))
            } else if nobody_sends {
                Ok(Err(Refused::Disconnected))
            } else {
                Err(blocked(slot, found, closed))
            }
        };
        // SAFETY: as the caller promises.
        let waited = unsafe { self.control.not_empty.0.wait(self.world, patience, spin, attempt) };
        self.unless_refused(waited)?;
        // SAFETY: as the caller promises.
        unsafe { self.control.not_full.0.pend(self.thread) };
        Ok(())
    }

    /// Lets `take` take the messages from `position` on, of which [`begin_receive`](Self::begin_receive) has found the first, while there are any and it
    /// takes them, `most` at most; gives how many it took. Their slots are given back by one [`finish_receive`](Self::finish_receive).
    #[inline]
    pub fn take_run(&self, position: u64, most: u32, mut take: impl FnMut(u32) -> bool) -> u32 {
        let mut at = position;
        for taken in 0..most {
            if (taken != 0 && !self.can_receive(at)) || !take(self.shape.index(at)) {
                return taken;
            }
            crash::point("lane.one_of_a_run_taken");
            at = self.shape.next(at);
        }
        most
    }

    /// Gives `taken` slots from `position` on back after their messages were taken, and wakes the sender; gives the next position.
    #[inline]
    pub fn finish_receive(&self, position: u64, taken: u32) -> u64 {
        crash::point("lane.taken");
        let next = self.shape.forward(position, taken);
        // HEAD: Release, pairs with the Acquire in `head`.
        self.control.head.0.store(next, Ordering::Release);
        crash::point("lane.released");
        self.control.not_full.0.publish(self.world, self.thread, 1);
        crash::point("lane.received");
        next
    }

    fn closed(&self) -> Watch<'a> {
        let closed = &self.control.closed.0;
        Watch::Word(closed, closed.load(Ordering::Acquire))
    }

    fn unless_refused<R>(&self, waited: Option<Result<R, Refused>>) -> Result<R, Refused> {
        match waited {
            Some(Ok(value)) => Ok(value),
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
        self.head() != self.shape.lap_back(position)
    }

    /// Whether there is a message at `position` now.
    #[inline]
    #[must_use]
    pub fn can_receive(&self, position: u64) -> bool {
        // FULL: Acquire, pairs with the Release in `finish_send`.
        let found = self.slots.word(self.shape.index(position)).load(Ordering::Acquire);
        found == word(FULL, position, 0)
    }
}

/// The side that waits, for `word` to be something else than `found`.
fn blocked<'a>(word: &'a AtomicU64, found: u64, closed: Watch<'a>) -> Blocked<'a> {
    #[expect(clippy::cast_possible_truncation, reason = "the low half is what a futex can watch")]
    let low = found as u32;
    Blocked { slot: Watch::Low(word, low), closed, owner: Owner::Nobody, interrupt: None }
}
