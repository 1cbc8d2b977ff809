//! The bus: a ring whose senders never wait for receivers, and whose receivers each see every message, or are told how many they missed.
//!
//! Owns: the same words as `ring`; there is no head, each receiver keeps its position to itself.
//!
//! ```text
//! slot word:  63..48 owner (thread id in the session) | 47..4 sequence | 3..0 state
//!
//! from                        event                   to               who
//! EMPTY, t                    send claims             WRITING, t, me   sender (the first lap)
//! FULL or DEAD, t - N         send claims             WRITING, t, me   sender, edge CLAIM; the old message is gone
//! WRITING, t                  wrote the message       FULL, t          that sender, edge FULL; then moves the tail on
//! WRITING, t                  its owner is dead       DEAD, t          recovery; receivers pass over it
//! FULL, p                     a receiver at p copies  FULL, p          receiver: the copy counts if the word is still the same
//! ```
//!
//! So the slots keep the last N messages, of which one that is being written takes the place of the oldest from its claim on. A receiver that
//! finds its slot a lap on goes to the oldest that is left, `end - N`; if that is overwritten before it is read, the receiver is told again.
//! What it is told it has missed are positions: those that a dead sender had claimed count, too.
//!
//! A receiver reads while a sender may overwrite: it copies word by word, and looks at the slot's word again (a sequence lock, whose
//! writer's death leaves no odd count but a state with an owner).
//!
//! Edges: FULL Release, pairs with the Acquire load before the copy. CLAIM is followed by a Release fence and the copy by an Acquire fence:
//! a receiver that has copied anything new sees that the slot was claimed.
//! Death: of a sender: see the table. Of a receiver: nobody notices. A stopped sender (SIGSTOP) in WRITING holds up receivers at its
//! message, until their deadlines or until the senders have come round; then it holds up senders at its slot.
//! Models: loom `bus_*` in `tests/loom_bus.rs`.
//! Source: sequence locks after Lameter; the order of fences after Boehm, "Can seqlocks get along with programming language memory
//! models?" (2012).

#![expect(unsafe_code, reason = "the pending words")]

use crate::control::{Control, Refused, World};
use crate::stamp::{DEAD, EMPTY, FULL, SEQUENCE_MASK, Seen, Shape, Slots, WRITING, word};
use mp_sync::notify::{Blocked, Owner};
use mp_sync::patience::Patience;
use mp_sync::spin::Spin;
use mp_sys::atomic::{AtomicU64, Ordering, fence};
use mp_sys::crash;
use mp_sys::futex::Watch;
use mp_sys::robust::Current;

/// A bus as one end sees it.
#[derive(Clone, Copy, Debug)]
pub struct Bus<'a, S, W> {
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

/// What a receiver found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The message at its position, which was copied.
    Message,
    /// So many messages were overwritten before they were read, those of the dead included; the position is that of the oldest that is left.
    Missed(u64),
}

impl<'a, S: Slots, W: World> Bus<'a, S, W> {
    /// Claims the slot of the next message, over whatever is in it; gives position and index. Between this and
    /// [`finish_send`](Self::finish_send) no user code may run.
    ///
    /// # Errors
    /// [`Refused::Waiting`]: another sender is in the middle of that slot's last message. [`Refused::Corrupt`].
    ///
    /// # Safety
    /// The control words stay where they are until `finish_send`, or this thread has ended: one of them is pending.
    #[inline]
    pub unsafe fn begin_send(&self, patience: Patience) -> Result<(u64, u32), Refused> {
        // From before the publication until after the wake.
        // SAFETY: as the caller promises.
        unsafe { self.control.not_empty.0.pend(self.thread) };
        let claim = match self.claim() {
            Ok(claim) => claim,
            // SAFETY: as the caller promises.
            Err(_) => unsafe { self.begin_send_waiting(patience) }?,
        };
        // CLAIM: pairs with the Acquire fence in `receive`.
        fence(Ordering::Release);
        crash::point("bus.claimed");
        Ok(claim)
    }

    #[cold]
    unsafe fn begin_send_waiting(&self, patience: Patience) -> Result<(u64, u32), Refused> {
        let attempt = |_| {
            let closed = self.closed();
            match self.claim() {
                Ok(claim) => Ok(Ok(claim)),
                Err(Some((slot, found))) => Err(self.blocked(slot, found, closed)),
                Err(None) => Ok(Err(Refused::Corrupt)),
            }
        };
        // SAFETY: as the caller promises.
        let claimed = unsafe { self.control.not_full.0.wait(self.world, patience, None, attempt) };
        let claim = self.unless_refused(claimed)?;
        // SAFETY: as the caller promises.
        unsafe { self.control.not_empty.0.pend(self.thread) };
        Ok(claim)
    }

    fn unless_refused<T>(&self, result: Option<Result<T, Refused>>) -> Result<T, Refused> {
        match result {
            Some(Ok(value)) => Ok(value),
            Some(Err(refused)) => {
                self.thread.clear_pending();
                Err(refused)
            }
            None => Err(Refused::Waiting),
        }
    }

    /// Claims the slot at the tail, or says which one is in the way; `None` if a word is corrupt.
    #[inline]
    fn claim(&self) -> Result<(u64, u32), Option<(&'a AtomicU64, u64)>> {
        let tail = &self.control.tail.0;
        loop {
            let position = tail.load(Ordering::Acquire);
            let index = self.shape.index(position);
            let slot = self.slots.word(index);
            let found = slot.load(Ordering::Acquire);
            let seen = Seen::of(found);
            let is_old = self.shape.lap_on(seen.sequence) == position && matches!(seen.state, FULL | DEAD);
            if is_old || (seen.sequence == position && seen.state == EMPTY) {
                crash::point("bus.before_claim");
                let claimed = word(WRITING, position, self.world.me());
                if slot.compare_exchange(found, claimed, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                    return Ok((position, index));
                }
            } else if seen.sequence == position {
                // Claimed by somebody, or even done with: the hint lags.
                self.move_on(position);
            } else if tail.load(Ordering::Acquire) == position {
                let writes_yet = self.shape.lap_on(seen.sequence) == position && seen.state == WRITING;
                return Err(writes_yet.then_some((slot, found)));
            }
        }
    }

    fn move_on(&self, position: u64) {
        let next = self.shape.next(position);
        let _ = self.control.tail.0.compare_exchange(position, next, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Publishes the message written at `position` and wakes all receivers.
    ///
    /// # Safety
    /// The control words stay where they are until this returns, or this thread has ended.
    #[inline]
    pub unsafe fn finish_send(&self, position: u64) {
        crash::point("bus.written");
        // FULL: Release, pairs with the Acquire in `receive`.
        self.slots.word(self.shape.index(position)).store(word(FULL, position, 0), Ordering::Release);
        crash::point("bus.published");
        self.move_on(position);
        let Control { not_empty, not_full, .. } = self.control;
        not_empty.0.publish(self.world, self.thread, u32::MAX);
        // A sender may wait for this slot, a lap later. It watches this thread, too.
        // SAFETY: as the caller promises.
        unsafe { not_full.0.pend(self.thread) };
        not_full.0.publish(self.world, self.thread, u32::MAX);
    }

    /// Where a new receiver begins: behind all that was sent before, and behind every claim that the caller has seen.
    #[must_use]
    pub fn end(&self) -> u64 {
        let mut position = self.control.tail.0.load(Ordering::Acquire) & SEQUENCE_MASK;
        // No further than a lap, whatever the slots say.
        for _ in 0..self.shape.capacity() {
            let seen = Seen::of(self.slots.word(self.shape.index(position)).load(Ordering::Acquire));
            let is_empty = seen.sequence == position && seen.state == EMPTY;
            // A slot that is laps ahead was claimed here, too: the hint was overtaken since it was read.
            if is_empty || self.shape.lap_on(seen.sequence) == position {
                break;
            }
            position = self.shape.next(position);
        }
        position
    }

    /// Receives what is next for a receiver at `position`, which it moves on: waits until there is something, and has `copy` copy the
    /// slot of an index; the copy counts if this gives [`Found::Message`]. It may be called several times, and may copy what makes no sense.
    ///
    /// # Errors
    /// [`Refused`]
    ///
    /// # Safety
    /// The control words stay where they are until this returns, or this thread has ended.
    #[inline]
    pub unsafe fn receive<'s>(
        &self,
        position: &mut u64,
        patience: Patience,
        spin: impl FnOnce() -> Option<&'s Spin>,
        mut copy: impl FnMut(u32),
    ) -> Result<Found, Refused> {
        match self.look(position, &mut copy) {
            Ok(found) => Ok(found),
            // SAFETY: as the caller promises.
            Err(_) => unsafe { self.receive_waiting(position, patience, spin(), &mut copy) },
        }
    }

    #[cold]
    unsafe fn receive_waiting(
        &self,
        position: &mut u64,
        patience: Patience,
        spin: Option<&Spin>,
        copy: &mut dyn FnMut(u32),
    ) -> Result<Found, Refused> {
        let attempt = |_| {
            let closed = self.closed();
            // Read before the slot: what the last sender sent before it left is then found there.
            let nobody_sends = self.world.senders() == 0;
            match self.look(position, &mut *copy) {
                Ok(found) => Ok(Ok(found)),
                Err(None) => Ok(Err(Refused::Corrupt)),
                Err(Some((_, found))) if nobody_sends && Seen::of(found).owner == 0 => {
                    Ok(Err(Refused::Disconnected))
                }
                Err(Some((slot, found))) => Err(self.blocked(slot, found, closed)),
            }
        };
        // SAFETY: as the caller promises.
        let found = unsafe { self.control.not_empty.0.wait(self.world, patience, spin, attempt) };
        let found = self.unless_refused(found)?;
        self.thread.clear_pending();
        Ok(found)
    }

    /// One look: what is there for a receiver at `position`, or the slot that it waits for; `None` if a word is corrupt.
    #[inline]
    fn look(
        &self,
        position: &mut u64,
        mut copy: impl FnMut(u32),
    ) -> Result<Found, Option<(&'a AtomicU64, u64)>> {
        loop {
            let index = self.shape.index(*position);
            let slot = self.slots.word(index);
            let found = slot.load(Ordering::Acquire);
            let seen = Seen::of(found);
            if seen.sequence == *position {
                match seen.state {
                    FULL => {
                        copy(index);
                        // Pairs with the Release fence after CLAIM.
                        fence(Ordering::Acquire);
                        if slot.load(Ordering::Relaxed) == found {
                            *position = self.shape.next(*position);
                            return Ok(Found::Message);
                        }
                    }
                    DEAD => *position = self.shape.next(*position),
                    EMPTY | WRITING => return Err(Some((slot, found))),
                    _ => return Err(None),
                }
            } else if self.shape.lap_on(seen.sequence) == *position {
                return Err(Some((slot, found)));
            } else {
                return self.catch_up(position);
            }
        }
    }

    /// The receiver's slot is laps ahead of it: it goes to the oldest message that is left.
    #[cold]
    fn catch_up(&self, position: &mut u64) -> Result<Found, Option<(&'a AtomicU64, u64)>> {
        // Whoever claimed that slot had found the tail there, so the end is more than a lap on from `position`.
        let oldest = self.shape.lap_back(self.end());
        let missed = self.shape.distance(*position, oldest);
        if missed == 0 || missed > SEQUENCE_MASK / 2 {
            return Err(None);
        }
        *position = oldest;
        Ok(Found::Missed(missed))
    }

    /// The count of disconnections, read before anything that depends on it: a change after that ends the sleep.
    fn closed(&self) -> Watch<'a> {
        let closed = &self.control.closed.0;
        Watch::Word(closed, closed.load(Ordering::Acquire))
    }

    fn blocked(&self, slot: &'a AtomicU64, found: u64, closed: Watch<'a>) -> Blocked<'a> {
        #[expect(clippy::cast_possible_truncation, reason = "the low half is what a futex can watch")]
        let low = found as u32;
        let owner = match Seen::of(found).owner {
            0 => Owner::Nobody,
            owner => self.world.sentinel(owner).map_or(Owner::Dead, Owner::Living),
        };
        Blocked { slot: Watch::Low(slot, low), closed, owner, interrupt: None }
    }

    /// Whether there is something for a receiver at `position`.
    #[must_use]
    pub fn can_receive(&self, position: u64) -> bool {
        let seen = Seen::of(self.slots.word(self.shape.index(position)).load(Ordering::Acquire));
        if seen.sequence == position {
            matches!(seen.state, FULL | DEAD)
        } else {
            self.shape.lap_on(seen.sequence) != position
        }
    }
}
