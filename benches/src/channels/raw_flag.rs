//! The raw limit of round trips: two mailboxes in bare shared memory. It does the least that two processes need to hand over a message:
//! no recovery from death, no encoding, no checks of the other side.
//!
//! The taker of a mailbox looks for a while and then sleeps, or sleeps at once. A mailbox holds one message and sides take turns: a side
//! puts again only after the answer to its last message came. Both count the messages, from 0.
//!
//! ```text
//!   state      event              to             who
//!   2 n        put message n      2 n + 2        putter
//!   2 n        must sleep         2 n + 1        taker
//!   2 n + 1    put message n      2 n + 2, wake  putter
//! ```
#![expect(unsafe_code, reason = "hands plain bytes from one process to another")]

use super::contest::{ping, ping_rested, pong, pong_rested};
use super::{Role, by_size};
use crate::Outcome;
use crate::latency::{Trips, time_rested_trips};
use crate::machine::Pinned;
use crate::measure::Plan;
use crate::memory::{Line, Memory, PATIENCE, Room};
use crate::payload::{self, Payload, Source};
use crate::second::{Found, Job, Second, check};
use rustix::io::Errno;
use rustix::thread::futex;
use std::hint;
use std::sync::atomic::{AtomicU32, Ordering};

pub(super) const ROLES: &[Role] = &[("flag/echo", echo), ("flag/echo_rested", echo_rested)];

/// Bytes from one mailbox to the other.
const MAILBOX: usize = 256;

/// One side's view of a mailbox, with its count of messages; the table is in the head.
struct Mailbox<'a, const SIZE: usize> {
    state: &'a Line<AtomicU32>,
    room: &'a Room<SIZE>,
    turn: u32,
}

impl<'a, const SIZE: usize> Mailbox<'a, SIZE> {
    fn new(memory: &'a Memory, number: usize) -> Outcome<Self> {
        let start = number * MAILBOX;
        // A room of 64 bytes lies on the line behind the state's.
        Ok(Self { state: memory.at(start)?, room: memory.at(start + 128)?, turn: 0 })
    }

    /// Puts a message in and wakes the taker if it sleeps. Only the putting side may call this, only when the answer to its message
    /// before has come.
    fn put(&mut self, message: &[u8; SIZE]) -> Outcome<()> {
        // SAFETY: the taker is done with the message before, or it had not answered; it reads the room again only after it sees the
        // state that is stored below.
        unsafe { self.room.write(message) };
        self.turn += 1;
        // TURN: Release, pairs with Acquire in `take` and `sleep`.
        if self.state.0.swap(2 * self.turn, Ordering::AcqRel) % 2 == 1 {
            futex::wake(&self.state.0, futex::Flags::empty(), 1)?;
        }
        Ok(())
    }

    /// Lets `look` read the next message; first looks for it `spins` times, then sleeps. Only the taking side may call this.
    fn take<R>(&mut self, spins: u32, look: impl FnOnce(&[u8; SIZE]) -> R) -> Outcome<R> {
        let full = 2 * (self.turn + 1);
        let here = (0..spins).any(|_| {
            let here = self.state.0.load(Ordering::Acquire) == full;
            if !here {
                hint::spin_loop();
            }
            here
        });
        if !here {
            self.sleep()?;
        }
        self.turn += 1;
        // SAFETY: the state says that this message is put and was loaded with Acquire (edge TURN), so the putter's write is visible, and
        // it writes again only after this side's answer.
        Ok(unsafe { self.room.read(look) })
    }

    fn sleep(&self) -> Outcome<()> {
        let limit = futex::Timespec::try_from(PATIENCE)?;
        let (none, asleep) = (2 * self.turn, 2 * self.turn + 1);
        loop {
            match self.state.0.compare_exchange(none, asleep, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {}
                Err(state) if state == asleep => {}
                Err(_) => return Ok(()),
            }
            match futex::wait(&self.state.0, futex::Flags::empty(), asleep, Some(&limit)) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(format!("the other process does not answer: {error}").into()),
            }
        }
    }
}

/// Sends every message back.
fn echo(job: &Job) -> Outcome<Found> {
    by_size!(job.size, echo_of(job))
}

fn echo_of<const SIZE: usize>(job: &Job) -> Outcome<Found> {
    let memory = Memory::of(job)?;
    let (mut inbox, mut outbox) = (Mailbox::<SIZE>::new(&memory, 0)?, Mailbox::<SIZE>::new(&memory, 1)?);
    job.meet()?;
    let receive = |sequence| inbox.take(job.spins, |message| payload::is_marked::<SIZE>(message, sequence));
    pong(job.total, receive, |message| outbox.put(message))
}

/// Sends every message back after a rest.
fn echo_rested(job: &Job) -> Outcome<Found> {
    let memory = Memory::of(job)?;
    let (mut inbox, mut outbox) = (Mailbox::new(&memory, 0)?, Mailbox::new(&memory, 1)?);
    job.meet()?;
    pong_rested(job.total, || inbox.take(0, Payload::clone), |message| outbox.put(&message))
}

/// Round trips between sides that look `spins` times, on one CPU or on two.
fn trips<const SIZE: usize>(plan: &Plan, spins: Option<u32>, one_cpu: bool) -> Outcome<Trips> {
    let pinned = Pinned::to_first()?;
    let memory = Memory::new(2 * MAILBOX)?;
    let (mut outbox, mut inbox) = (Mailbox::<SIZE>::new(&memory, 0)?, Mailbox::<SIZE>::new(&memory, 1)?);
    let mut job = Job::trips("flag/echo", SIZE, plan, &pinned);
    job.spins = spins.unwrap_or(job.spins);
    if one_cpu {
        job.cpu = None;
    }
    let (spins, mut second) = (job.spins, Second::start(job, &[memory.descriptor()])?);
    second.meet()?;
    let receive = |sequence| inbox.take(spins, |message| payload::is_marked::<SIZE>(message, sequence));
    let trips = ping(plan, |message| outbox.put(message), receive)?;
    check(second.join()?.right, plan.trips())?;
    Ok(trips)
}

/// Spinning, then sleeping.
///
/// # Errors
/// When the second process fails, or a message is wrong.
pub fn roundtrip<const SIZE: usize>(plan: &Plan) -> Outcome<Trips> {
    trips::<SIZE>(plan, None, false)
}

/// Both sides on one CPU, sleeping.
///
/// # Errors
/// As [`roundtrip`].
pub fn roundtrip_one_cpu(plan: &Plan) -> Outcome<Trips> {
    trips::<64>(plan, Some(0), true)
}

/// Spinning, then sleeping; the second side sleeps when a message comes.
///
/// # Errors
/// As [`roundtrip`].
pub fn roundtrip_second_asleep(plan: &Plan) -> Outcome<Trips> {
    let pinned = Pinned::to_first()?;
    let memory = Memory::new(2 * MAILBOX)?;
    let (mut outbox, mut inbox) = (Mailbox::<64>::new(&memory, 0)?, Mailbox::<64>::new(&memory, 1)?);
    let job = Job::trips("flag/echo", 64, plan, &pinned);
    let (spins, mut second) = (job.spins, Second::start(job, &[memory.descriptor()])?);
    second.meet()?;
    let mut source = Source::new();
    let trips = time_rested_trips(plan, |turn| {
        outbox.put(source.marked(turn.into()))?;
        let right = inbox.take(spins, |message| payload::is_marked::<64>(message, turn.into()))?;
        if right { Ok(()) } else { Err("a wrong answer".into()) }
    })?;
    check(second.join()?.right, plan.trips())?;
    Ok(trips)
}

/// Both sides asleep when a message comes.
///
/// # Errors
/// As [`roundtrip`].
pub fn roundtrip_asleep(plan: &Plan) -> Outcome<Trips> {
    let pinned = Pinned::to_first()?;
    let memory = Memory::new(2 * MAILBOX)?;
    let (mut outbox, mut inbox) = (Mailbox::new(&memory, 0)?, Mailbox::new(&memory, 1)?);
    let job = Job::trips("flag/echo_rested", 64, plan, &pinned);
    let mut second = Second::start(job, &[memory.descriptor()])?;
    second.meet()?;
    let trips = ping_rested(plan, |message| outbox.put(&message), || inbox.take(0, Payload::clone))?;
    second.join()?;
    Ok(trips)
}
