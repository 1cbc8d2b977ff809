//! The raw limit of many producers and many consumers: Dmitry Vyukov's bounded queue in bare shared memory, whose waits give the CPU away.
//! No recovery from death, no encoding, no checks of the other side.
//!
//! ```text
//! put | taken | stamp room | stamp room | ...
//!
//!   stamp of room i    event                    to           who
//!   n                  put message n            n + 1        producer that moved `put` from n to n + 1
//!   n + 1              take message n           n + slots    consumer that moved `taken` from n to n + 1
//! ```
//!
//! Stamps begin with zero here, as the memory does: what is stored is the stamp of the table less the room's place.
//! Source: D. Vyukov, "Bounded MPMC queue", 1024cores.net.
#![expect(unsafe_code, reason = "hands plain bytes from one process to another")]

use super::contest::{PRODUCERS, consume, consume_share, expected_marks, produce, produce_share, shares};
use super::{Role, start_all};
use crate::Outcome;
use crate::machine::Pinned;
use crate::measure::Plan;
use crate::memory::{Line, Memory, Raw, wait_until};
use crate::payload::{self, Payload};
use crate::second::{Found, Job, Second, together};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(super) const ROLES: &[Role] = &[
    ("raw_mpmc/produce", produce_role),
    ("raw_mpmc/consume", consume_role),
    ("raw_mpmc/consume_all", consume_all_role),
];

const SLOTS: u64 = 1024;
/// Where `taken` lies; `put` lies at 0.
const TAKEN: usize = 128;
/// Where the rooms begin.
const ROOMS: usize = 256;

#[repr(C, align(64))]
struct Stamped {
    stamp: AtomicU64,
    message: UnsafeCell<Payload>,
}

// SAFETY: `put` and `take` alone use the message, in turns; see there.
unsafe impl Sync for Stamped {}
// SAFETY: an atomic number and bytes in an `UnsafeCell`.
unsafe impl Raw for Stamped {}

/// A process's view of the queue.
struct Queue<'a> {
    put: &'a Line<AtomicU64>,
    taken: &'a Line<AtomicU64>,
    rooms: &'a [Stamped],
    spins: u32,
}

impl<'a> Queue<'a> {
    fn new(memory: &'a Memory, spins: u32) -> Outcome<Self> {
        let rooms = memory.slice(ROOMS, usize::try_from(SLOTS)?)?;
        Ok(Self { put: memory.at(0)?, taken: memory.at(TAKEN)?, rooms, spins })
    }

    /// The room of message `at`, and its place.
    #[inline]
    fn room(&self, at: u64) -> (&'a Stamped, u64) {
        let place = at % SLOTS;
        let room = &self.rooms[place as usize];
        (room, place)
    }

    /// Moves `counter` on by one when the stamp of its room is `ready` of its number, and gives that number.
    #[inline]
    fn claim(&self, counter: &AtomicU64, ready: impl Fn(u64) -> u64) -> Outcome<u64> {
        let mut claimed = 0;
        wait_until(self.spins, || {
            let mut at = counter.load(Ordering::Relaxed);
            loop {
                let (room, place) = self.room(at);
                // STAMP: Acquire, pairs with Release in `put` and `take`.
                if room.stamp.load(Ordering::Acquire).wrapping_add(place) != ready(at) {
                    let now = counter.load(Ordering::Relaxed);
                    if now == at {
                        return false;
                    }
                    at = now;
                    continue;
                }
                match counter.compare_exchange_weak(at, at + 1, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => {
                        claimed = at;
                        return true;
                    }
                    Err(now) => at = now,
                }
            }
        })?;
        Ok(claimed)
    }

    fn put(&self, message: &Payload) -> Outcome<()> {
        let at = self.claim(&self.put.0, |at| at)?;
        let (room, place) = self.room(at);
        let to = room.message.get();
        // SAFETY: valid; message `at` is this producer's (it moved `put`), the consumer of the one before has left the room (its stamp was
        // loaded with Acquire, edge STAMP), and that of this one comes after the store below.
        unsafe { to.write(*message) };
        room.stamp.store((at + 1).wrapping_sub(place), Ordering::Release);
        Ok(())
    }

    fn take(&self) -> Outcome<Payload> {
        let at = self.claim(&self.taken.0, |at| at + 1)?;
        let (room, place) = self.room(at);
        let from = room.message.get();
        // SAFETY: valid, every bit pattern is a value; message `at` is this consumer's (it moved `taken`), it is written (its stamp was
        // loaded with Acquire, edge STAMP), and the next producer comes after the store below.
        let message = unsafe { from.read() };
        room.stamp.store((at + SLOTS).wrapping_sub(place), Ordering::Release);
        Ok(message)
    }
}

fn produce_role(job: &Job) -> Outcome<Found> {
    let memory = Memory::of(job)?;
    let queue = Queue::new(&memory, job.spins)?;
    job.meet()?;
    produce_share(job.number, job.total, |message| queue.put(&message))
}

fn consume_role(job: &Job) -> Outcome<Found> {
    let memory = Memory::of(job)?;
    let queue = Queue::new(&memory, job.spins)?;
    job.meet()?;
    consume_share(job.total, || queue.take())
}

fn consume_all_role(job: &Job) -> Outcome<Found> {
    let memory = Memory::of(job)?;
    let queue = Queue::new(&memory, job.spins)?;
    job.meet()?;
    consume(job.warm_up, job.total, |at| Ok(payload::is_right(&queue.take()?, at)))
}

fn memory() -> Outcome<Memory> {
    Memory::new(ROOMS + usize::try_from(SLOTS)? * size_of::<Stamped>())
}

/// One producer, one consumer.
///
/// # Errors
/// When a second process fails, or a message is wrong.
pub fn one_to_one(plan: &Plan) -> Outcome<Duration> {
    let pinned = Pinned::to_first()?;
    let memory = memory()?;
    let job = Job { spins: 0, ..Job::new("raw_mpmc/consume_all", 64, plan, &pinned) };
    let queue = Queue::new(&memory, job.spins)?;
    let mut second = Second::start(job, &[memory.descriptor()])?;
    second.meet()?;
    produce::<64>(plan.total(), |message| queue.put(message))?;
    Ok(second.join()?.time)
}

/// Four producers, `CONSUMERS` consumers.
///
/// # Errors
/// As [`one_to_one`].
pub fn many<const CONSUMERS: u32>(plan: &Plan) -> Outcome<Duration> {
    let pinned = Pinned::to_first()?;
    let memory = memory()?;
    // Many share a CPU: looking again before others ran does not help.
    let job = |role: &str| Job { spins: 0, ..Job::new(role, 64, plan, &pinned) };
    let [sent, received] = shares(plan, CONSUMERS);
    let start = |job| Second::start(job, &[memory.descriptor()]);
    let consumers = start_all(&job("raw_mpmc/consume"), CONSUMERS, received, start)?;
    let producers = start_all(&job("raw_mpmc/produce"), PRODUCERS, sent, start)?;
    together(consumers, producers, expected_marks(PRODUCERS, sent))
}
