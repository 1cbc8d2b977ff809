//! Peer: a pipe of the kernel, messages of one size written and read whole.
//!
//! A message of up to 4 KiB is written at once, so that several processes can share either end.

use super::contest::{
    PRODUCERS, consume, consume_share, expected_marks, ping, pong, produce, produce_share, shares,
};
use super::{Role, by_size, start_all};
use crate::Outcome;
use crate::latency::Trips;
use crate::machine::Pinned;
use crate::measure::Plan;
use crate::payload;
use crate::second::{Found, Job, Second, check, together};
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

pub(super) const ROLES: &[Role] = &[
    ("pipe/echo", |job| by_size!(job.size, echo(job))),
    ("pipe/consume", |job| by_size!(job.size, consume_all(job))),
    ("pipe/produce_one", produce_one),
    ("pipe/consume_one", consume_one),
];

/// A new pipe, first the end to read.
fn pipe() -> Outcome<(OwnedFd, OwnedFd)> {
    Ok(pipe_with(PipeFlags::CLOEXEC)?)
}

/// Reads messages of one size.
struct Reading<const SIZE: usize> {
    end: File,
    bytes: Box<[u8]>,
}

impl<const SIZE: usize> Reading<SIZE> {
    fn new(end: OwnedFd) -> Self {
        Self { end: end.into(), bytes: vec![0; SIZE].into_boxed_slice() }
    }

    fn is_right(&mut self, sequence: u64) -> Outcome<bool> {
        self.end.read_exact(&mut self.bytes)?;
        Ok(payload::is_marked::<SIZE>(&self.bytes, sequence))
    }
}

fn write(end: &mut File, message: &[u8]) -> Outcome<()> {
    Ok(end.write_all(message)?)
}

fn echo<const SIZE: usize>(job: &Job) -> Outcome<Found> {
    let (mut inbox, mut outbox) = (Reading::<SIZE>::new(job.descriptor(0)?), File::from(job.descriptor(1)?));
    job.meet()?;
    pong::<SIZE>(job.total, |at| inbox.is_right(at), |message| write(&mut outbox, message))
}

fn consume_all<const SIZE: usize>(job: &Job) -> Outcome<Found> {
    let mut inbox = Reading::<SIZE>::new(job.descriptor(0)?);
    job.meet()?;
    consume(job.warm_up, job.total, |at| inbox.is_right(at))
}

fn produce_one(job: &Job) -> Outcome<Found> {
    let mut outbox = File::from(job.descriptor(0)?);
    job.meet()?;
    produce_share(job.number, job.total, |message| write(&mut outbox, &message))
}

fn consume_one(job: &Job) -> Outcome<Found> {
    let mut inbox = File::from(job.descriptor(0)?);
    job.meet()?;
    consume_share(job.total, || {
        let mut message = [0; 64];
        inbox.read_exact(&mut message)?;
        Ok(message)
    })
}

/// Round trips through two pipes.
///
/// # Errors
/// When the second process fails, or a message is wrong; so do all here.
pub fn roundtrip<const SIZE: usize>(plan: &Plan) -> Outcome<Trips> {
    let pinned = Pinned::to_first()?;
    let ((there, outbox), (inbox, back)) = (pipe()?, pipe()?);
    let job = Job::trips("pipe/echo", SIZE, plan, &pinned);
    let mut second = Second::start(job, &[there.as_fd(), back.as_fd()])?;
    drop((there, back));
    let (mut inbox, mut outbox) = (Reading::<SIZE>::new(inbox), File::from(outbox));
    second.meet()?;
    let trips = ping::<SIZE>(plan, |message| write(&mut outbox, message), |at| inbox.is_right(at))?;
    check(second.join()?.right, plan.trips())?;
    Ok(trips)
}

/// Messages through a pipe.
///
/// # Errors
/// As [`roundtrip`].
pub fn throughput<const SIZE: usize>(plan: &Plan) -> Outcome<Duration> {
    let pinned = Pinned::to_first()?;
    let (inbox, outbox) = pipe()?;
    let mut second = Second::start(Job::new("pipe/consume", SIZE, plan, &pinned), &[inbox.as_fd()])?;
    drop(inbox);
    let mut outbox = File::from(outbox);
    second.meet()?;
    produce::<SIZE>(plan.total(), |message| write(&mut outbox, message))?;
    Ok(second.join()?.time)
}

/// Four producers, `CONSUMERS` consumers.
///
/// # Errors
/// As [`roundtrip`].
pub fn many<const CONSUMERS: u32>(plan: &Plan) -> Outcome<Duration> {
    let pinned = Pinned::to_first()?;
    let (inbox, outbox) = pipe()?;
    let [sent, received] = shares(plan, CONSUMERS);
    let job = |role| Job::new(role, 64, plan, &pinned);
    let consumer = |job| Second::start(job, &[inbox.as_fd()]);
    let producer = |job| Second::start(job, &[outbox.as_fd()]);
    let consumers = start_all(&job("pipe/consume_one"), CONSUMERS, received, consumer)?;
    let producers = start_all(&job("pipe/produce_one"), PRODUCERS, sent, producer)?;
    together(consumers, producers, expected_marks(PRODUCERS, sent))
}
