//! Channels that grow: a ring that is full is sealed, and all go on in one of twice the slots.
//!
//! Owns: the way from one ring to the next. The rings are blocks of the session, each named by the one before; they stay until the channel
//! goes. Head and tail are each ring's own; where both sides sleep, the counts of ends and the count of disconnections are the first one's.
//!
//! ```text
//! a sender that finds its ring full       others
//! makes a block, lays a ring out in it
//! names it in the full ring, edge NEXT    who comes second gives his own back
//! seals the full ring                     any sender that finds it full does; see `ring`
//! goes on in the next ring                each end, when it comes to the seal
//! ```
//!
//! The order of each sender's messages is kept: nothing is sent in a ring behind its seal, and a receiver leaves a ring when all that was sent there
//! is taken. Models: loom `grow_*` in `tests/loom_grow.rs`. Death: before the ring is named, the block has its owner's stamp; afterwards it belongs to the channel, sealed or not.

#![expect(unsafe_code, reason = "the pending words of a ring")]

use crate::control::Refused;
use crate::end::End;
use crate::ring::Sealing;
use crate::view::{Here, View};
use mp_sync::patience::Patience;
use mp_sys::deadline::Deadline;
use mp_sys::robust;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a sender waits for somebody who is at work on the slot that would be sealed, before it looks again.
const BUSY_LOOK: Duration = Duration::from_millis(1);
/// More rings than one channel can have: each has twice the slots of the one before, but the last.
pub(crate) const RINGS_MAX: usize = 32;

impl End {
    /// Calls `with` with the ring that this end is at.
    #[inline]
    pub(crate) fn at<R>(&self, with: impl FnOnce(&View) -> R) -> R {
        self.at_block(|ring, _| with(ring))
    }

    /// [`at`](Self::at), with what stands in `self.ring` for it.
    #[inline]
    fn at_block<R>(&self, with: impl FnOnce(&View, u64) -> R) -> R {
        // Acquire, pairs with the Release in `go_on`: who goes where another thread has gone sees what that one saw.
        match self.ring.load(Ordering::Acquire) {
            0 => with(&self.view, 0),
            block => with(&View::open(self.view.session, block).unwrap_or(self.view), block),
        }
    }

    /// Goes on to the ring behind `sealed`, unless another thread has; says whether there is one. An end never goes back.
    #[cold]
    fn go_on(&self, sealed: &View, block: u64) -> bool {
        let next = sealed.next_block();
        if let Some(next) = next {
            let _ = self.ring.compare_exchange(block, next, Ordering::Release, Ordering::Relaxed);
        }
        next.is_some()
    }

    /// Receives with `receive`, in the first ring that is not sealed.
    pub(crate) fn receive_growing(
        &self,
        mut receive: impl FnMut(&View) -> Option<Refused>,
    ) -> Option<Refused> {
        for _ in 0..RINGS_MAX {
            let (refused, goes_on) = self.at_block(|ring, block| {
                let refused = receive(ring);
                (refused, refused == Some(Refused::Sealed) && self.go_on(ring, block))
            });
            if !goes_on {
                return refused;
            }
        }
        Some(Refused::Corrupt)
    }

    /// Sends with `send`, in the first ring that is not sealed, or in a new one.
    pub(crate) fn send_growing(
        &self,
        patience: Patience,
        mut send: impl FnMut(&View, Patience) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        let mut seals = 0;
        loop {
            let step = self.at_block(|ring, block| {
                let refused = match send(ring, Patience::None) {
                    Err(Refused::Waiting) => match self.grow(ring) {
                        Growth::Again => return Step::Again,
                        // Somebody else has that slot in hand; who does not want to wait does not.
                        Growth::Busy if patience == Patience::None => Err(Refused::Waiting),
                        Growth::Busy => match send(ring, patience.at_most(Deadline::after(BUSY_LOOK))) {
                            Err(Refused::Waiting) if !patience.is_over() => return Step::Again,
                            other => other,
                        },
                        Growth::Not => send(ring, patience),
                    },
                    other => other,
                };
                match refused {
                    Err(Refused::Sealed) if self.go_on(ring, block) => Step::GoOn,
                    other => Step::Done(other),
                }
            });
            match step {
                Step::Done(result) => return result,
                Step::Again => {}
                Step::GoOn => seals += 1,
            }
            if seals > RINGS_MAX {
                return Err(Refused::Corrupt);
            }
        }
    }

    /// Makes the ring behind `ring`, which was full, and seals that.
    #[cold]
    fn grow(&self, ring: &View) -> Growth {
        if ring.next_block().is_none() {
            // Without memory for more it is an ordinary channel.
            let Some(cut) = ring.next_cut() else { return Growth::Not };
            if ring.add_next(cut).is_err() {
                return Growth::Not;
            }
        }
        robust::with(|current| {
            let here = Here { view: &self.view, thread: 0 };
            // SAFETY: the channel's words are in a session, which stays mapped until the process ends.
            match unsafe { ring.ring(&here, current).seal() } {
                Sealing::Sealed | Sealing::Room => Growth::Again,
                Sealing::Busy => Growth::Busy,
            }
        })
    }
}

/// What came of making room.
enum Growth {
    /// There is room, here or in the next ring.
    Again,
    /// Somebody is in the way, who will be done soon.
    Busy,
    /// The channel may not grow any more.
    Not,
}

/// What to do next.
enum Step {
    Done(Result<(), Refused>),
    Again,
    GoOn,
}
