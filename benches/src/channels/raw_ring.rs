//! The raw limit of throughput: rings in bare shared memory for one producer and one consumer. They do the least that two processes need:
//! no recovery from death, no encoding, no checks of the other side.
//!
//! ```text
//! by index:  written | read | room | room | ...       a side tells by its number how far it is: after each message, or after 64
//! by stamp:            read | stamp room | ...        a stamp tells which message its room holds; the consumer tells how far it is
//!                                                     after every eighth of the ring
//! ```
//!
//! A side keeps the number of the other that it saw last, and looks again only when that one stops it.
#![expect(unsafe_code, reason = "hands plain bytes from one process to another")]

use super::contest::{consume, produce, slots};
use super::{Role, by_size};
use crate::Outcome;
use crate::machine::Pinned;
use crate::measure::Plan;
use crate::memory::{Line, Memory, Raw, Room, wait_for};
use crate::payload;
use crate::second::{Found, Job, Second};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(super) const ROLES: &[Role] = &[
    ("raw_ring/index", |job| by_size!(job.size, consume_index(job, 1))),
    ("raw_ring/batched", |job| by_size!(job.size, consume_index(job, BATCH))),
    ("raw_ring/stamp", |job| by_size!(job.size, consume_stamp(job))),
];

/// Messages that are published at once where that is asked for.
const BATCH: u64 = 64;

/// Where the consumer's number lies; the producer's lies at 0.
const READ: usize = 128;
/// Where the rooms begin.
const ROOMS: usize = 256;

/// A side of a ring by index; its own number, and the other's as seen last.
struct Index<'a, const SIZE: usize> {
    own: &'a Line<AtomicU64>,
    other: &'a Line<AtomicU64>,
    rooms: &'a [Room<SIZE>],
    at: u64,
    seen: u64,
    batch: u64,
    spins: u32,
}

impl<'a, const SIZE: usize> Index<'a, SIZE> {
    fn new(memory: &'a Memory, [own, other]: [usize; 2], batch: u64, spins: u32) -> Outcome<Self> {
        let rooms = memory.slice(ROOMS, slots(SIZE))?;
        Ok(Self { own: memory.at(own)?, other: memory.at(other)?, rooms, at: 0, seen: 0, batch, spins })
    }

    /// The room of the next message.
    #[inline]
    fn room(&self) -> &'a Room<SIZE> {
        // A power of two, so the cut of the number changes nothing.
        #[expect(clippy::cast_possible_truncation, reason = "masked below")]
        let place = self.at as usize & (self.rooms.len() - 1);
        &self.rooms[place]
    }

    /// Goes on to the next room, and tells the other side if a batch is done.
    #[inline]
    fn step(&mut self) {
        self.at += 1;
        if self.at.is_multiple_of(self.batch) {
            self.publish();
        }
    }

    #[inline]
    fn publish(&self) {
        // PROGRESS: Release, pairs with Acquire in `wait_for`.
        self.own.0.store(self.at, Ordering::Release);
    }

    #[inline]
    fn put(&mut self, message: &[u8; SIZE]) -> Outcome<()> {
        let (at, slots) = (self.at, self.rooms.len() as u64);
        if at - self.seen == slots {
            self.seen = wait_for(&self.other.0, self.spins, |read| at - read < slots)?;
        }
        // SAFETY: the consumer is past the message that was here before (`seen` was loaded with Acquire, edge PROGRESS), and comes to
        // this one only after it is published.
        unsafe { self.room().write(message) };
        self.step();
        Ok(())
    }

    #[inline]
    fn take<R>(&mut self, look: impl FnOnce(&[u8; SIZE]) -> R) -> Outcome<R> {
        let at = self.at;
        if at == self.seen {
            self.seen = wait_for(&self.other.0, self.spins, |written| written != at)?;
        }
        // SAFETY: message `at` is written (`seen` was loaded with Acquire, edge PROGRESS), and the producer comes back to this room only
        // after it is published that it was read.
        let result = unsafe { self.room().read(look) };
        self.step();
        Ok(result)
    }
}

/// A room with the number, plus one, of the message in it.
#[repr(C, align(64))]
struct Stamped<const SIZE: usize> {
    stamp: AtomicU64,
    room: Packed<SIZE>,
}

/// A room that need not begin a cache line.
#[repr(C, align(8))]
struct Packed<const SIZE: usize>(std::cell::UnsafeCell<[u8; SIZE]>);

// SAFETY: `Stamps::put` and `Stamps::take` alone use it, in turns; see there.
unsafe impl<const SIZE: usize> Sync for Packed<SIZE> {}
// SAFETY: an atomic number and bytes in an `UnsafeCell`.
unsafe impl<const SIZE: usize> Raw for Stamped<SIZE> {}

/// A side of a ring by stamp.
struct Stamps<'a, const SIZE: usize> {
    read: &'a Line<AtomicU64>,
    rooms: &'a [Stamped<SIZE>],
    at: u64,
    seen: u64,
    spins: u32,
}

impl<'a, const SIZE: usize> Stamps<'a, SIZE> {
    fn new(memory: &'a Memory, spins: u32) -> Outcome<Self> {
        let rooms = memory.slice(ROOMS, slots(SIZE))?;
        Ok(Self { read: memory.at(READ)?, rooms, at: 0, seen: 0, spins })
    }

    #[inline]
    fn next(&self) -> &'a Stamped<SIZE> {
        #[expect(clippy::cast_possible_truncation, reason = "masked below")]
        let place = self.at as usize & (self.rooms.len() - 1);
        &self.rooms[place]
    }

    #[inline]
    fn put(&mut self, message: &[u8; SIZE]) -> Outcome<()> {
        let (at, slots, next) = (self.at, self.rooms.len() as u64, self.next());
        if at - self.seen == slots {
            self.seen = wait_for(&self.read.0, self.spins, |read| at - read < slots)?;
        }
        let from = std::ptr::from_ref(message);
        // SAFETY: both are valid and do not overlap; the consumer is past the message that was here before (`seen` was loaded with
        // Acquire, edge READ), and comes to this one only after it sees the stamp that is stored below.
        unsafe { next.room.0.get().copy_from_nonoverlapping(from, 1) };
        self.at += 1;
        // STAMP: Release, pairs with Acquire in `take`.
        next.stamp.store(self.at, Ordering::Release);
        Ok(())
    }

    #[inline]
    fn take<R>(&mut self, look: impl FnOnce(&[u8; SIZE]) -> R) -> Outcome<R> {
        let next = self.next();
        self.at += 1;
        let at = self.at;
        wait_for(&next.stamp, self.spins, |stamp| stamp == at)?;
        // SAFETY: every bit pattern is a value; the message is written (its stamp was loaded with Acquire, edge STAMP), and the producer
        // comes back only after it is told that it was read.
        let result = look(unsafe { &*next.room.0.get() });
        if at.is_multiple_of(self.rooms.len() as u64 / 8) {
            // READ: Release, pairs with Acquire in `put`.
            self.read.0.store(at, Ordering::Release);
        }
        Ok(result)
    }
}

fn consume_index<const SIZE: usize>(job: &Job, batch: u64) -> Outcome<Found> {
    let memory = Memory::of(job)?;
    let mut ring = Index::<SIZE>::new(&memory, [READ, 0], batch, job.spins)?;
    job.meet()?;
    consume(job.warm_up, job.total, |at| ring.take(|message| payload::is_marked::<SIZE>(message, at)))
}

fn consume_stamp<const SIZE: usize>(job: &Job) -> Outcome<Found> {
    let memory = Memory::of(job)?;
    let mut ring = Stamps::<SIZE>::new(&memory, job.spins)?;
    job.meet()?;
    consume(job.warm_up, job.total, |at| ring.take(|message| payload::is_marked::<SIZE>(message, at)))
}

/// Starts the consumer `role` on the second CPU, and lets `work` produce.
fn beside<const SIZE: usize>(
    plan: &Plan,
    role: &str,
    work: impl FnOnce(&Memory, u32) -> Outcome<()>,
) -> Outcome<Duration> {
    let pinned = Pinned::to_first()?;
    let memory = Memory::new(ROOMS + slots(SIZE) * size_of::<Stamped<SIZE>>())?;
    let job = Job::new(role, SIZE, plan, &pinned);
    let (spins, mut second) = (job.spins, Second::start(job, &[memory.descriptor()])?);
    second.meet()?;
    work(&memory, spins)?;
    Ok(second.join()?.time)
}

fn by_index<const SIZE: usize>(plan: &Plan, role: &str, batch: u64) -> Outcome<Duration> {
    beside::<SIZE>(plan, role, |memory, spins| {
        let mut ring = Index::<SIZE>::new(memory, [0, READ], batch, spins)?;
        produce(plan.total(), |message| ring.put(message))?;
        ring.publish();
        Ok(())
    })
}

/// Each message published by the index.
///
/// # Errors
/// When the second process fails, or a message is wrong.
pub fn index<const SIZE: usize>(plan: &Plan) -> Outcome<Duration> {
    by_index::<SIZE>(plan, "raw_ring/index", 1)
}

/// 64 messages published at once.
///
/// # Errors
/// As [`index`].
pub fn batched<const SIZE: usize>(plan: &Plan) -> Outcome<Duration> {
    by_index::<SIZE>(plan, "raw_ring/batched", BATCH)
}

/// Each message published by a stamp beside it.
///
/// # Errors
/// As [`index`].
pub fn stamp<const SIZE: usize>(plan: &Plan) -> Outcome<Duration> {
    beside::<SIZE>(plan, "raw_ring/stamp", |memory, spins| {
        let mut ring = Stamps::<SIZE>::new(memory, spins)?;
        produce(plan.total(), |message| ring.put(message))
    })
}
