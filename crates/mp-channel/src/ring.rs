//! The ring of stamped slots: a bounded queue of many senders and receivers that survives a kill at any instruction.
//!
//! Owns: the slot words and the two hints. What is in a slot besides its word is the business of `slot`.
//!
//! ```text
//! slot word:  63..48 owner (thread id in the session) | 47..4 sequence | 3..0 state
//!
//! from           event                          to                who
//! EMPTY, t       send claims                    WRITING, t, me    sender, edge CLAIM
//! WRITING, t     wrote the message              FULL, t           that sender, edge FULL; then moves the tail on
//! FULL, h        receive claims                 READING, h, me    receiver, edge CLAIM
//! READING, h     took the message               EMPTY, h + N      that receiver, edge EMPTY; then moves the head on
//! WRITING, t     its owner is dead              DEAD, t           recovery
//! READING, h     its owner is dead              EMPTY, h + N      recovery; the message is lost with its reader
//! DEAD, h        at the head                    EMPTY, h + N      anybody; the winner moves the head on
//! FULL, t        rendezvous: nobody took it     WRITING, t, me    its sender, by compare-and-swap; then it makes it DEAD
//! FULL, t - N    the next ring is there; seals  LAST, t - N       a sender that finds the ring full, edge SEAL
//! LAST, h        receive claims                 READING_LAST, h   receiver, edge CLAIM
//! READING_LAST   took the message               SEALED, h + N     that receiver; or recovery, if it is dead
//! ```
//!
//! The compare-and-swap on the slot is the claim. Head and tail are hints: they may lag, and are moved on only by the winner of a
//! claim, when it has done with the slot, or after reading a slot word that proves that the position was passed. (Moving one after a lost compare-and-swap cost
//! one stuck queue in 10 000 kills.)
//!
//! Positions are `lap << shift | index` with index < N <= 2^shift, modulo 2^44; so any capacity works across the wrap. `h + N`
//! stands for the same index one lap on.
//!
//! A ring that is full can be sealed, once and for ever: then all go on in the next one, which is larger. The seal is on the slot at which the
//! next message would have been sent, so nothing is sent behind it here, and who receives comes to it when he has met all that was sent.
//!
//! Edges: CLAIM Acquire on the slot, FULL and EMPTY Release, each pairs with the Acquire load before the next claim: who claims
//! a slot sees all that its last owner did there. SEAL Release, pairs with the Acquire loads of slots: who sees it finds the next ring.
//! Death: only recovery, under the domain's lock, changes a slot whose owner is dead, after it has looked at what the slot names; who
//! meets such a slot recovers first. (When anybody could free it, a living sender's message could be in the slot by the time
//! recovery looked, and lost its handles.)
//! A stopped sender (SIGSTOP) in WRITING at the head holds up receivers; a stopped receiver holds up senders one lap later. No
//! user code runs in between.
//! Models: loom `ring_*` in `tests/loom_ring.rs`, `grow_*` in `tests/loom_grow.rs`.
//! Source: the stamp per slot is Vyukov's bounded MPMC queue; owner, claim by slot and recovery are ours.

#![expect(unsafe_code, reason = "the pending words")]

use crate::control::{Control, Refused, World};
use crate::stamp::{
    DEAD, EMPTY, FULL, LAST, READING, READING_LAST, SEALED, SEQUENCE_MASK, Seen, Shape, Slots, WRITING, word,
};
use mp_sync::notify::{Blocked, Owner};
use mp_sync::patience::Patience;
use mp_sync::spin::{Spin, gather};
use mp_sys::atomic::{AtomicU32, AtomicU64, Ordering};
use mp_sys::crash;
use mp_sys::futex::Watch;
use mp_sys::robust::Current;

/// Most looks for one claim. Each look that leads to nothing is one that somebody else's claim came in between; so many in a row do not
/// happen unless somebody writes where he must not.
const LOOKS_MAX: u32 = 1 << 20;

/// A slot that this thread has claimed, for writing or for reading.
#[derive(Debug)]
#[must_use]
pub struct Claim {
    position: u64,
    index: u32,
    is_last: bool,
}

impl Claim {
    /// The slot's index.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }
}

/// Why one look did not lead to a claim.
enum Look<'a> {
    /// This slot stands in the way, with this word.
    Blocked(&'a AtomicU64, u64),
    /// See [`Refused::Sealed`].
    Sealed,
    /// See [`Refused::Corrupt`].
    Corrupt,
}

/// What a look at one side tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// It could go on now.
    Ready,
    /// It would wait.
    Waiting,
    /// It would wait, but the ring can be sealed: it is full, and nobody is at work where the next message would go.
    Full,
    /// It goes on in the next ring.
    Sealed,
}

/// What came of sealing a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealing {
    /// It is sealed.
    Sealed,
    /// There is room in it.
    Room,
    /// Somebody is at work on the slot that would be sealed: it will be free soon, or can be sealed then.
    Busy,
}

/// A ring as one endpoint sees it.
#[derive(Clone, Copy, Debug)]
pub struct Ring<'a, S, W> {
    /// What all rings of a channel share: where both sides sleep, and the count of disconnections.
    pub control: &'a Control,
    /// What has its hints, head and tail: `control`, but in a ring that came later.
    pub hints: &'a Control,
    /// Its slots.
    pub slots: &'a S,
    /// Its shape.
    pub shape: Shape,
    /// The world around it.
    pub world: &'a W,
    /// The calling thread.
    pub thread: Current<'a>,
    /// A receive that finds no message ends when this word has another value.
    pub interrupt: Option<(&'a AtomicU32, u32)>,
    /// Whether it can be sealed when it is full, which is then told to senders who wait for several things.
    pub grows: bool,
    /// Most senders to wake for a slot that was emptied: one, or all where a sender waits for its own message to be taken.
    pub senders_woken: u32,
}

impl<'a, S: Slots, W: World> Ring<'a, S, W> {
    /// Claims a slot for a message. Between this and [`finish_send`](Self::finish_send) no user code may run.
    ///
    /// # Errors
    /// [`Refused`].
    ///
    /// # Safety
    /// The control words stay where they are until `finish_send`, or this thread has ended: one of them is pending.
    #[inline]
    pub unsafe fn begin_send<'s>(
        &self,
        patience: Patience,
        spin: impl FnOnce() -> Option<&'s Spin>,
    ) -> Result<Claim, Refused> {
        // From before the claim until after the wake.
        // SAFETY: as the caller promises.
        unsafe { self.control.not_empty.0.pend(self.thread) };
        if self.world.receivers() != 0
            && let Ok(claim) = self.claim_send(false)
        {
            crash::point("send.claimed");
            return Ok(claim);
        }
        // SAFETY: as the caller promises.
        unsafe { self.begin_send_waiting(patience, spin()) }
    }

    #[cold]
    unsafe fn begin_send_waiting(&self, patience: Patience, spin: Option<&Spin>) -> Result<Claim, Refused> {
        let Control { not_full, not_empty, .. } = self.control;
        let batch = self.shape.batch();
        if batch > 1 && spin.is_some() && patience != Patience::None {
            gather(|| self.has_room_for(batch));
        }
        let attempt = |slept| {
            let closed = self.closed();
            if self.world.receivers() == 0 {
                return Ok(Err(Refused::Disconnected));
            }
            match self.claim_send(true) {
                Ok(claim) => {
                    if slept && self.can_send() {
                        // The wake that ended our sleep may have stood for several free slots.
                        not_full.0.wake(self.world, 1);
                    }
                    Ok(Ok(claim))
                }
                Err(Look::Sealed) => {
                    if slept {
                        // The wake of who sealed it was for all who sleep.
                        not_full.0.wake(self.world, u32::MAX);
                    }
                    Ok(Err(Refused::Sealed))
                }
                Err(Look::Blocked(slot, seen)) => Err(self.blocked(slot, seen, closed)),
                Err(Look::Corrupt) => Ok(Err(Refused::Corrupt)),
            }
        };
        // SAFETY: as the caller promises.
        let claimed = unsafe { not_full.0.wait(self.world, patience, spin, attempt) };
        let claim = self.unless_refused(claimed)?;
        // SAFETY: as the caller promises.
        unsafe { not_empty.0.pend(self.thread) };
        crash::point("send.claimed");
        Ok(claim)
    }

    /// Whether so many messages could go on now, or about as many: slots are not always freed in order.
    fn has_room_for(&self, count: u32) -> bool {
        let tail = self.hints.tail.0.load(Ordering::Relaxed) & SEQUENCE_MASK;
        let last = self.shape.forward(tail, count - 1);
        self.slots.word(self.shape.index(last)).load(Ordering::Relaxed) == word(EMPTY, last, 0)
    }

    /// Publishes the message written into a claimed slot and wakes a receiver.
    #[inline]
    pub fn finish_send(&self, claim: &Claim) {
        crash::point("send.written");
        // FULL: Release, pairs with the Acquire load in `claim_receive`.
        self.slots.word(claim.index).store(word(FULL, claim.position, 0), Ordering::Release);
        crash::point("send.before_hint");
        // Only now, off the way of the message; whoever meets the slot before moves the hint on for us.
        self.move_on(&self.hints.tail.0, claim.position);
        self.control.not_empty.0.publish(self.world, self.thread, 1);
        if self.grows && self.control.not_full.0.bells().load(Ordering::Acquire) != 0 {
            // FULL is more to a sender than WRITING is: it can make room. Who is killed before this wakes all by its death.
            self.control.not_full.0.ring(self.world);
        }
        crash::point("send.done");
    }

    /// Waits until the message of `claim`, which was published, is taken.
    ///
    /// # Errors
    /// Why nobody took it. The slot is this thread's again, who takes what is in it and calls [`abandon`](Self::abandon).
    ///
    /// # Safety
    /// The control words stay where they are until this returns, or this thread has ended.
    pub unsafe fn await_taken(
        &self,
        claim: &Claim,
        patience: Patience,
        spin: Option<&Spin>,
    ) -> Result<(), Refused> {
        let slot = self.slots.word(claim.index);
        let offered = word(FULL, claim.position, 0);
        let attempt = |_| {
            let closed = self.closed();
            let found = slot.load(Ordering::Acquire);
            if Seen::of(found).sequence != claim.position {
                return Ok(Ok(()));
            }
            if found == offered && self.world.receivers() == 0 {
                return Ok(Err(Refused::Disconnected));
            }
            Err(self.blocked(slot, found, closed))
        };
        // SAFETY: as the caller promises.
        let taken = unsafe { self.control.not_full.0.wait(self.world, patience, spin, attempt) };
        mp_sys::robust::clear_pending();
        let refused = match taken {
            Some(Ok(())) => return Ok(()),
            Some(Err(refused)) => refused,
            None => Refused::Waiting,
        };
        crash::point("send.before_back");
        let back = word(WRITING, claim.position, self.world.me());
        // Not taken back: a receiver has it in hand.
        if self.swap(slot, offered, back) { Err(refused) } else { Ok(()) }
    }

    /// Gives up a slot that was taken back, and holds no message.
    ///
    /// # Safety
    /// As of [`begin_send`](Self::begin_send).
    pub unsafe fn abandon(&self, claim: &Claim) {
        let Control { not_full, not_empty, .. } = self.control;
        crash::point("send.before_abandon");
        // A sender may wait for this slot, a receiver for the one behind it. Each wake has its own pending word: who clears the bit of a
        // word and dies before the wake leaves a sleeper that nobody sees.
        // SAFETY: as the caller promises.
        unsafe { not_full.0.pend(self.thread) };
        self.slots.word(claim.index).store(word(DEAD, claim.position, 0), Ordering::Release);
        not_full.0.wake(self.world, u32::MAX);
        // SAFETY: as the caller promises.
        unsafe { not_empty.0.pend(self.thread) };
        not_empty.0.publish(self.world, self.thread, 1);
    }

    /// Claims a message. Between this and [`finish_receive`](Self::finish_receive) no user code may run.
    ///
    /// # Errors
    /// [`Refused`].
    ///
    /// # Safety
    /// The control words stay where they are until `finish_receive`, or this thread has ended: one of them is pending.
    #[inline]
    pub unsafe fn begin_receive<'s>(
        &self,
        patience: Patience,
        spin: impl FnOnce() -> Option<&'s Spin>,
    ) -> Result<Claim, Refused> {
        // From before the claim until after the wake.
        // SAFETY: as the caller promises.
        unsafe { self.control.not_full.0.pend(self.thread) };
        if let Ok(claim) = self.claim_receive() {
            crash::point("receive.claimed");
            return Ok(claim);
        }
        // SAFETY: as the caller promises.
        unsafe { self.begin_receive_waiting(patience, spin()) }
    }

    #[cold]
    unsafe fn begin_receive_waiting(
        &self,
        patience: Patience,
        spin: Option<&Spin>,
    ) -> Result<Claim, Refused> {
        let Control { not_full, not_empty, .. } = self.control;
        let attempt = |slept| {
            let closed = self.closed();
            // Read before the slots: what the last sender sent before it left is then found there.
            let nobody_sends = self.world.senders() == 0;
            match self.claim_receive() {
                Ok(claim) => {
                    if slept && self.outlook_receive() != Outlook::Waiting {
                        // The wake that ended our sleep may have stood for several messages.
                        not_empty.0.wake(self.world, 1);
                    }
                    Ok(Ok(claim))
                }
                Err(Look::Corrupt) => Ok(Err(Refused::Corrupt)),
                Err(Look::Sealed) => {
                    if slept {
                        // As above: in the next ring there may be several.
                        not_empty.0.wake(self.world, 1);
                    }
                    Ok(Err(Refused::Sealed))
                }
                Err(_) if nobody_sends => Ok(Err(Refused::Disconnected)),
                Err(_) if self.is_interrupted() => Ok(Err(Refused::Interrupted)),
                Err(Look::Blocked(slot, seen)) => {
                    if slept && self.senders_woken > 1 {
                        // A receiver that is about to sleep is what a selecting sender waits for, if there is no room to put anything into.
                        not_full.0.ring(self.world);
                    }
                    Err(self.blocked(slot, seen, closed))
                }
            }
        };
        // SAFETY: as the caller promises.
        let claimed = unsafe { not_empty.0.wait(self.world, patience, spin, attempt) };
        let claim = self.unless_refused(claimed)?;
        // SAFETY: as the caller promises.
        unsafe { not_full.0.pend(self.thread) };
        crash::point("receive.claimed");
        Ok(claim)
    }

    /// Gives a claimed slot back after its message was taken, and wakes a sender.
    #[inline]
    pub fn finish_receive(&self, claim: &Claim) {
        crash::point("receive.taken");
        // EMPTY: Release, pairs with the Acquire load in `claim_send`.
        let state = if claim.is_last { SEALED } else { EMPTY };
        let free = word(state, self.shape.lap_on(claim.position), 0);
        self.slots.word(claim.index).store(free, Ordering::Release);
        crash::point("receive.before_hint");
        self.move_on(&self.hints.head.0, claim.position);
        self.control.not_full.0.publish(self.world, self.thread, self.senders_woken);
        crash::point("receive.done");
    }

    fn unless_refused(&self, claimed: Option<Result<Claim, Refused>>) -> Result<Claim, Refused> {
        match claimed {
            Some(Ok(claim)) => Ok(claim),
            Some(Err(refused)) => {
                self.thread.clear_pending();
                Err(refused)
            }
            None => Err(Refused::Waiting),
        }
    }

    fn is_interrupted(&self) -> bool {
        self.interrupt.is_some_and(|(word, value)| word.load(Ordering::Acquire) != value)
    }

    fn closed(&self) -> Watch<'a> {
        let closed = &self.control.closed.0;
        Watch::Word(closed, closed.load(Ordering::Acquire))
    }

    fn blocked(&self, slot: &'a AtomicU64, seen: u64, closed: Watch<'a>) -> Blocked<'a> {
        #[expect(clippy::cast_possible_truncation, reason = "the low half is what a futex can watch")]
        let low = seen as u32;
        let owner = match Seen::of(seen).owner {
            0 => Owner::Nobody,
            owner => self.world.sentinel(owner).map_or(Owner::Dead, Owner::Living),
        };
        let interrupt = self.interrupt.map(|(word, value)| Watch::Word(word, value));
        Blocked { slot: Watch::Low(slot, low), closed, owner, interrupt }
    }

    /// Whether a sender could go on now.
    #[must_use]
    pub fn can_send(&self) -> bool {
        self.outlook_send() == Outlook::Ready
    }

    /// Whether a receiver could go on now.
    #[must_use]
    pub fn can_receive(&self) -> bool {
        self.outlook_receive() == Outlook::Ready
    }

    /// What a sender would meet now.
    #[must_use]
    pub fn outlook_send(&self) -> Outlook {
        let passed = |seen: Seen, position| {
            seen.sequence == self.shape.lap_on(position)
                || (seen.sequence == position && seen.state != EMPTY && seen.state != SEALED)
        };
        let (seen, position) = self.first(&self.hints.tail.0, passed);
        let is_lap_back = self.shape.lap_on(seen.sequence) == position;
        match seen.state {
            EMPTY if seen.sequence == position => Outlook::Ready,
            DEAD if is_lap_back => Outlook::Ready,
            SEALED if seen.sequence == position => Outlook::Sealed,
            LAST | READING_LAST if is_lap_back => Outlook::Sealed,
            FULL if is_lap_back => Outlook::Full,
            _ => Outlook::Waiting,
        }
    }

    /// What a receiver would meet now: a message, or a slot of the dead that hides one, is for it to go on.
    #[must_use]
    pub fn outlook_receive(&self) -> Outlook {
        let passed = |seen: Seen, position| {
            seen.sequence == self.shape.lap_on(position)
                || (seen.sequence == position && matches!(seen.state, READING | READING_LAST))
        };
        let (seen, position) = self.first(&self.hints.head.0, passed);
        match seen.state {
            FULL | LAST | DEAD if seen.sequence == position => Outlook::Ready,
            SEALED if seen.sequence == position => Outlook::Sealed,
            READING_LAST if self.shape.lap_on(seen.sequence) == position => Outlook::Sealed,
            _ => Outlook::Waiting,
        }
    }

    /// Seals the ring if it is full. The next one must be there.
    ///
    /// # Safety
    /// The control words stay where they are until this returns, or this thread has ended: one of them is pending.
    pub unsafe fn seal(&self) -> Sealing {
        let Control { not_full, .. } = self.control;
        let tail = &self.hints.tail.0;
        for _ in 0..LOOKS_MAX {
            let position = tail.load(Ordering::Acquire) & SEQUENCE_MASK;
            let slot = self.slots.word(self.shape.index(position));
            let found = slot.load(Ordering::Acquire);
            let seen = Seen::of(found);
            let is_lap_back = self.shape.lap_on(seen.sequence) == position;
            match seen.state {
                EMPTY if seen.sequence == position => return Sealing::Room,
                SEALED if seen.sequence == position => return Sealing::Sealed,
                LAST | READING_LAST if is_lap_back => return Sealing::Sealed,
                _ if seen.sequence == position || seen.sequence == self.shape.lap_on(position) => {
                    self.move_on(tail, position);
                }
                FULL if is_lap_back => {
                    crash::point("ring.before_seal");
                    // Who sleeps here waits for room, which there will never be.
                    // SAFETY: as the caller promises.
                    unsafe { not_full.0.pend(self.thread) };
                    if self.swap(slot, found, word(LAST, seen.sequence, 0)) {
                        crash::point("ring.sealed");
                        not_full.0.publish(self.world, self.thread, u32::MAX);
                        return Sealing::Sealed;
                    }
                    self.thread.clear_pending();
                }
                _ if tail.load(Ordering::Acquire) == position => return Sealing::Busy,
                _ => {}
            }
        }
        Sealing::Busy
    }

    /// Frees what a dead thread of a living process holds at the head or the tail. (The death of a process is recovered from by who sleeps.)
    pub fn recover_dead_owners(&self) {
        for hint in [&self.hints.head.0, &self.hints.tail.0] {
            let (seen, _) = self.first(hint, |_, _| false);
            if seen.owner != 0 && self.world.sentinel(seen.owner).is_none() {
                self.world.recover();
            }
        }
    }

    /// The first slot from a hint on that was not passed; the hint lags behind who has not done with his slot. No further than a lap.
    fn first(&self, hint: &AtomicU64, passed: impl Fn(Seen, u64) -> bool) -> (Seen, u64) {
        let mut position = hint.load(Ordering::Acquire) & SEQUENCE_MASK;
        let mut steps = 0;
        loop {
            let seen = Seen::of(self.slots.word(self.shape.index(position)).load(Ordering::Acquire));
            if steps == self.shape.capacity() || !passed(seen, position) {
                return (seen, position);
            }
            position = self.shape.next(position);
            steps += 1;
        }
    }

    /// Moves a hint on from `position`, unless somebody has already.
    #[inline]
    fn move_on(&self, hint: &AtomicU64, position: u64) {
        let next = self.shape.next(position);
        let _ = hint.compare_exchange(position, next, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Moves a hint on to `position`, all positions before which are known to be passed, unless it is there or beyond.
    #[cold]
    fn catch_up(&self, hint: &AtomicU64, position: u64) {
        let behind = |hint: u64| {
            let ahead = position.wrapping_sub(hint) & SEQUENCE_MASK;
            ahead != 0 && ahead <= SEQUENCE_MASK / 2
        };
        let _ =
            hint.fetch_update(Ordering::AcqRel, Ordering::Acquire, |hint| behind(hint).then_some(position));
    }

    #[inline]
    fn swap(&self, slot: &AtomicU64, from: u64, to: u64) -> bool {
        // CLAIM: Acquire pairs with FULL and EMPTY; Release passes on what earlier owners of the slot released.
        slot.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// `frees` says whether it frees a slot of the dead that is in its way: the caller has made `not_full` pending then.
    #[inline]
    fn claim_send(&self, frees: bool) -> Result<Claim, Look<'a>> {
        let tail = &self.hints.tail.0;
        for _ in 0..LOOKS_MAX {
            let position = tail.load(Ordering::Acquire) & SEQUENCE_MASK;
            let index = self.shape.index(position);
            let slot = self.slots.word(index);
            let found = slot.load(Ordering::Acquire);
            let seen = Seen::of(found);
            if seen.sequence == position && seen.state == EMPTY {
                crash::point("send.before_claim");
                if self.swap(slot, found, word(WRITING, position, self.world.me())) {
                    return Ok(Claim { position, index, is_last: false });
                }
            } else if seen.sequence == position && seen.state == SEALED {
                return Err(Look::Sealed);
            } else if seen.sequence == position || seen.sequence == self.shape.lap_on(position) {
                // Claimed by somebody, or even done with: the hint lags.
                self.move_on(tail, position);
            } else if tail.load(Ordering::Acquire) == position {
                // Otherwise the hint was passed by more than a lap while we looked.
                if self.shape.lap_on(seen.sequence) != position {
                    return Err(Look::Corrupt);
                }
                if matches!(seen.state, LAST | READING_LAST) {
                    return Err(Look::Sealed);
                }
                if !frees || !self.free_dead(slot, found) {
                    return Err(Look::Blocked(slot, found));
                }
            }
        }
        Err(Look::Corrupt)
    }

    #[inline]
    fn claim_receive(&self) -> Result<Claim, Look<'a>> {
        let head = &self.hints.head.0;
        for _ in 0..LOOKS_MAX {
            let position = head.load(Ordering::Acquire) & SEQUENCE_MASK;
            let index = self.shape.index(position);
            let slot = self.slots.word(index);
            let found = slot.load(Ordering::Acquire);
            let seen = Seen::of(found);
            if seen.sequence == position && (seen.state == FULL || seen.state == LAST) {
                // The claim waits for the slot's first line; the second one comes meanwhile.
                self.slots.fetch(index);
                crash::point("receive.before_claim");
                let is_last = seen.state == LAST;
                let state = if is_last { READING_LAST } else { READING };
                if self.swap(slot, found, word(state, position, self.world.me())) {
                    return Ok(Claim { position, index, is_last });
                }
            } else if seen.sequence == position && seen.state == SEALED {
                return Err(Look::Sealed);
            } else if seen.sequence == self.shape.lap_on(position)
                || (seen.sequence == position && matches!(seen.state, READING | READING_LAST))
            {
                // Taken by somebody, or even given back: the hint lags.
                self.move_on(head, position);
            } else if head.load(Ordering::Acquire) == position {
                if seen.sequence != position && self.shape.lap_on(seen.sequence) != position {
                    return Err(Look::Corrupt);
                }
                if seen.sequence != position && seen.state == READING_LAST {
                    return Err(Look::Sealed);
                }
                if !self.free_dead(slot, found) {
                    return Err(Look::Blocked(slot, found));
                }
            }
        }
        Err(Look::Corrupt)
    }

    /// Frees a slot whose writer died, and wakes a sender: `not_full` is pending. Returns whether anything may have changed.
    ///
    /// Freeing out of order would let the ring overfill, but it is the oldest slot that is not free: a receiver meets it at the head; a
    /// sender meets it a lap before the tail, and a tail has come to a position only when all slots before it were claimed, which were
    /// free then.
    #[cold]
    fn free_dead(&self, slot: &AtomicU64, found: u64) -> bool {
        let seen = Seen::of(found);
        if seen.state != DEAD {
            return false;
        }
        // Before it is free: else the slot could go round while a hint lags behind a receiver that died or stands still, and he would find
        // a sequence that he cannot know. (A rendezvous whose senders took back what they had offered was called corrupt.)
        self.catch_up(&self.hints.head.0, seen.sequence);
        crash::point("ring.caught_up");
        if self.swap(slot, found, word(EMPTY, self.shape.lap_on(seen.sequence), 0)) {
            self.move_on(&self.hints.head.0, seen.sequence);
            self.control.not_full.0.wake(self.world, 1);
        }
        true
    }

    /// For recovery, which holds the domain's lock: releases every slot that a thread of `dead` holds. `lost` is called with the index
    /// of each before that: what it names is nobody's any more.
    pub fn sweep(&self, dead: &dyn Fn(u16) -> bool, lost: &mut dyn FnMut(u32)) {
        for index in 0..self.shape.capacity() {
            let slot = self.slots.word(index);
            let found = slot.load(Ordering::Acquire);
            let seen = Seen::of(found);
            match seen.state {
                WRITING if dead(seen.owner) => {
                    lost(index);
                    self.swap(slot, found, word(DEAD, seen.sequence, 0));
                }
                READING if dead(seen.owner) => {
                    lost(index);
                    self.swap(slot, found, word(EMPTY, self.shape.lap_on(seen.sequence), 0));
                }
                READING_LAST if dead(seen.owner) => {
                    lost(index);
                    self.swap(slot, found, word(SEALED, self.shape.lap_on(seen.sequence), 0));
                }
                _ => {}
            }
        }
    }

    fn is_full(&self, index: u32) -> bool {
        matches!(Seen::of(self.slots.word(index).load(Ordering::Relaxed)).state, FULL | LAST)
    }

    /// Whether no message was waiting a moment ago. It costs a look at one slot unless messages are just coming or going.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let position = self.hints.head.0.load(Ordering::Relaxed);
        let head = self.shape.index(position);
        if self.is_full(head) {
            return false;
        }
        position == self.hints.tail.0.load(Ordering::Relaxed)
            || !(head + 1..self.shape.capacity()).chain(0..head).any(|index| self.is_full(index))
    }

    /// The number of messages waiting, a moment ago.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        if self.is_empty() {
            return 0;
        }
        let full = (0..self.shape.capacity()).filter(|index| self.is_full(*index)).count();
        u32::try_from(full).unwrap_or(self.shape.capacity())
    }
}
