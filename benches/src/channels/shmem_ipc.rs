//! Peer: shmem-ipc, a ring for one producer and one consumer in sealed memory. Its sides wait by eventfds.
#![expect(unsafe_code, reason = "the peer hands out pointers, for sides that do not trust each other")]

use super::contest::{consume, ping, pong, produce, slots};
use super::{Role, by_size};
use crate::Outcome;
use crate::latency::Trips;
use crate::machine::Pinned;
use crate::measure::Plan;
use crate::payload;
use crate::second::{Found, Job, Second, check};
use shmem_ipc::sharedring::{Receiver, Sender};
use std::fs::File;
use std::os::fd::AsFd;
use std::time::Duration;

pub(super) const ROLES: &[Role] = &[
    ("shmem_ipc/echo", |job| by_size!(job.size, echo(job))),
    ("shmem_ipc/consume", |job| by_size!(job.size, consume_all(job))),
];

fn send<const SIZE: usize>(sender: &mut Sender<[u8; SIZE]>, message: &[u8; SIZE]) -> Outcome<()> {
    loop {
        let mut sent = false;
        sender.send_raw(|room, count| {
            sent = count > 0;
            if sent {
                let from = std::ptr::from_ref(message);
                // SAFETY: the peer promises room for `count` messages; `message` is private and therefore elsewhere.
                unsafe { room.copy_from_nonoverlapping(from, 1) };
            }
            usize::from(sent)
        })?;
        if sent {
            return Ok(());
        }
        sender.block_until_writable()?;
    }
}

fn is_right<const SIZE: usize>(receiver: &mut Receiver<[u8; SIZE]>, sequence: u64) -> Outcome<bool> {
    loop {
        let mut right = None;
        receiver.receive_raw(|messages, count| {
            if count > 0 {
                // SAFETY: the peer promises `count` messages there, and the producer writes none of them before this returns.
                let message = unsafe { &*messages };
                right = Some(payload::is_marked::<SIZE>(message, sequence));
            }
            count.min(1)
        })?;
        if let Some(right) = right {
            return Ok(right);
        }
        receiver.block_until_readable()?;
    }
}

/// The three descriptors of a ring in a job's words from `place` on.
fn files(job: &Job, place: usize) -> Outcome<[File; 3]> {
    Ok([job.descriptor(place)?.into(), job.descriptor(place + 1)?.into(), job.descriptor(place + 2)?.into()])
}

fn receiver<const SIZE: usize>(job: &Job) -> Outcome<Receiver<[u8; SIZE]>> {
    let [memory, empty, full] = files(job, 0)?;
    Ok(Receiver::open(slots(SIZE), memory, empty, full)?)
}

fn echo<const SIZE: usize>(job: &Job) -> Outcome<Found> {
    let mut inbox = receiver::<SIZE>(job)?;
    let [memory, empty, full] = files(job, 3)?;
    let mut outbox = Sender::open(slots(SIZE), memory, empty, full)?;
    job.meet()?;
    pong::<SIZE>(job.total, |at| is_right(&mut inbox, at), |message| send(&mut outbox, message))
}

fn consume_all<const SIZE: usize>(job: &Job) -> Outcome<Found> {
    let mut inbox = receiver::<SIZE>(job)?;
    job.meet()?;
    consume(job.warm_up, job.total, |at| is_right(&mut inbox, at))
}

/// Round trips through two rings.
///
/// # Errors
/// When the second process fails, or a message is wrong; so do all here.
pub fn roundtrip<const SIZE: usize>(plan: &Plan) -> Outcome<Trips> {
    let pinned = Pinned::to_first()?;
    let mut outbox = Sender::<[u8; SIZE]>::new(slots(SIZE))?;
    let mut inbox = Receiver::<[u8; SIZE]>::new(slots(SIZE))?;
    let descriptors = [
        outbox.memfd().as_file().as_fd(),
        outbox.empty_signal().as_fd(),
        outbox.full_signal().as_fd(),
        inbox.memfd().as_file().as_fd(),
        inbox.empty_signal().as_fd(),
        inbox.full_signal().as_fd(),
    ];
    let mut second = Second::start(Job::trips("shmem_ipc/echo", SIZE, plan, &pinned), &descriptors)?;
    second.meet()?;
    let trips = ping(plan, |message| send(&mut outbox, message), |at| is_right(&mut inbox, at))?;
    check(second.join()?.right, plan.trips())?;
    Ok(trips)
}

/// Messages through a ring.
///
/// # Errors
/// As [`roundtrip`].
pub fn throughput<const SIZE: usize>(plan: &Plan) -> Outcome<Duration> {
    let pinned = Pinned::to_first()?;
    let mut outbox = Sender::<[u8; SIZE]>::new(slots(SIZE))?;
    let descriptors =
        [outbox.memfd().as_file().as_fd(), outbox.empty_signal().as_fd(), outbox.full_signal().as_fd()];
    let mut second = Second::start(Job::new("shmem_ipc/consume", SIZE, plan, &pinned), &descriptors)?;
    second.meet()?;
    produce(plan.total(), |message| send(&mut outbox, message))?;
    Ok(second.join()?.time)
}
