//! Peer: ipmpsc, a ring for many producers and one consumer in a mapped file. Messages are bytes that the consumer reads in place.

use super::contest::{
    PRODUCERS, consume, consume_share, expected_marks, ping, pong, produce, produce_share, shares, slots,
};
use super::typed::{Expected, Record};
use super::{Role, by_size, start_all};
use crate::Outcome;
use crate::latency::Trips;
use crate::machine::Pinned;
use crate::measure::Plan;
use crate::payload;
use crate::second::{Found, Job, Second, check, together};
use ipmpsc::{Receiver, Sender, SharedRingBuffer};
use serde::{Serialize, Serializer};
use std::path::PathBuf;
use std::time::Duration;

pub(super) const ROLES: &[Role] = &[
    ("ipmpsc/echo", |job| by_size!(job.size, echo(job))),
    ("ipmpsc/consume", |job| by_size!(job.size, consume_all(job))),
    ("ipmpsc/consume_typed", consume_typed),
    ("ipmpsc/produce_one", produce_one),
    ("ipmpsc/consume_one", consume_one),
];

/// Bytes that are encoded as bytes and not one by one.
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// A ring's file, in memory, removed in the end.
struct Ring(PathBuf);

impl Ring {
    /// Makes one for messages of `size` bytes; `name` tells it from others of this process.
    fn new(name: &str, size: usize) -> Outcome<(Self, SharedRingBuffer)> {
        let ring = Self(PathBuf::from(format!("/dev/shm/mp-benches-ipmpsc-{}-{name}", std::process::id())));
        // A message has its length before it, twice.
        let bytes = u32::try_from(slots(size) * (size + 16))?;
        let buffer = SharedRingBuffer::create(&ring.path(), bytes)?;
        Ok((ring, buffer))
    }

    fn path(&self) -> String {
        self.0.to_string_lossy().into_owned()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // One that is not there need not be removed.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn open(job: &Job, place: usize) -> Outcome<SharedRingBuffer> {
    Ok(SharedRingBuffer::open(job.word(place)?)?)
}

fn send(sender: &Sender, message: &[u8]) -> Outcome<()> {
    Ok(sender.send(&Bytes(message))?)
}

/// Lets `look` read the next message in place.
fn read<R>(receiver: &mut Receiver, look: impl FnOnce(&[u8]) -> R) -> Outcome<R> {
    Ok(look(receiver.zero_copy_context().recv::<&[u8]>()?))
}

fn is_right<const SIZE: usize>(receiver: &mut Receiver, sequence: u64) -> Outcome<bool> {
    read(receiver, |bytes| payload::is_marked::<SIZE>(bytes, sequence))
}

fn echo<const SIZE: usize>(job: &Job) -> Outcome<Found> {
    let (mut inbox, outbox) = (Receiver::new(open(job, 0)?), Sender::new(open(job, 1)?));
    job.meet()?;
    pong::<SIZE>(job.total, |at| is_right::<SIZE>(&mut inbox, at), |message| send(&outbox, message))
}

fn consume_all<const SIZE: usize>(job: &Job) -> Outcome<Found> {
    let mut inbox = Receiver::new(open(job, 0)?);
    job.meet()?;
    consume(job.warm_up, job.total, |at| is_right::<SIZE>(&mut inbox, at))
}

fn consume_typed(job: &Job) -> Outcome<Found> {
    let (inbox, mut expected) = (Receiver::new(open(job, 0)?), Expected::new());
    job.meet()?;
    consume(job.warm_up, job.total, |at| Ok(expected.is(&inbox.recv()?, at)))
}

fn produce_one(job: &Job) -> Outcome<Found> {
    let outbox = Sender::new(open(job, 0)?);
    job.meet()?;
    produce_share(job.number, job.total, |message| send(&outbox, &message))
}

fn consume_one(job: &Job) -> Outcome<Found> {
    let mut inbox = Receiver::new(open(job, 0)?);
    job.meet()?;
    consume_share(job.total, || read(&mut inbox, |bytes| bytes.try_into().unwrap_or([0xff; 64])))
}

/// Round trips through two rings.
///
/// # Errors
/// When the second process fails, or a message is wrong; so do all here.
pub fn roundtrip<const SIZE: usize>(plan: &Plan) -> Outcome<Trips> {
    let pinned = Pinned::to_first()?;
    let ((ping_ring, there), (pong_ring, back)) = (Ring::new("ping", SIZE)?, Ring::new("pong", SIZE)?);
    let job = Job::trips("ipmpsc/echo", SIZE, plan, &pinned).at(ping_ring.path()).at(pong_ring.path());
    let mut second = Second::start(job, &[])?;
    second.meet()?;
    let (outbox, mut inbox) = (Sender::new(there), Receiver::new(back));
    let take = |at| is_right::<SIZE>(&mut inbox, at);
    let trips = ping::<SIZE>(plan, |message| send(&outbox, message), take)?;
    check(second.join()?.right, plan.trips())?;
    Ok(trips)
}

/// Runs `work` beside a consumer.
fn beside(
    plan: &Plan,
    role: &str,
    size: usize,
    work: impl FnOnce(&Sender) -> Outcome<()>,
) -> Outcome<Duration> {
    let pinned = Pinned::to_first()?;
    let (ring, buffer) = Ring::new("ring", size)?;
    let mut second = Second::start(Job::new(role, size, plan, &pinned).at(ring.path()), &[])?;
    second.meet()?;
    work(&Sender::new(buffer))?;
    Ok(second.join()?.time)
}

/// Messages through a ring.
///
/// # Errors
/// As [`roundtrip`].
pub fn throughput<const SIZE: usize>(plan: &Plan) -> Outcome<Duration> {
    beside(plan, "ipmpsc/consume", SIZE, |outbox| {
        produce::<SIZE>(plan.total(), |message| send(outbox, message))
    })
}

/// The typed message.
///
/// # Errors
/// As [`roundtrip`].
pub fn typed_1k(plan: &Plan) -> Outcome<Duration> {
    let mut record = Record::new();
    beside(plan, "ipmpsc/consume_typed", 1024, |outbox| {
        (0..u64::from(plan.total())).try_for_each(|at| {
            record.sequence = at;
            Ok(outbox.send(&record)?)
        })
    })
}

/// Four producers, one consumer.
///
/// # Errors
/// As [`roundtrip`].
pub fn four_to_one(plan: &Plan) -> Outcome<Duration> {
    let pinned = Pinned::to_first()?;
    let (ring, _buffer) = Ring::new("many", 64)?;
    let [sent, received] = shares(plan, 1);
    let job = |role| Job::new(role, 64, plan, &pinned).at(ring.path());
    let start = |job| Second::start(job, &[]);
    let consumers = start_all(&job("ipmpsc/consume_one"), 1, received, start)?;
    let producers = start_all(&job("ipmpsc/produce_one"), PRODUCERS, sent, start)?;
    together(consumers, producers, expected_marks(PRODUCERS, sent))
}
