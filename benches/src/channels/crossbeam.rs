//! Peer: crossbeam-channel between threads, each message in a heap block of its own, as a message of any size would be.

use super::contest::{
    PRODUCERS, consume, consume_share, expected_marks, ping, pong, produce, produce_share, shares, slots,
};
use crate::Outcome;
use crate::latency::Trips;
use crate::machine::{Pinned, move_to};
use crate::measure::Plan;
use crate::payload;
use crate::second::{Found, check};
use crossbeam_channel::{Receiver, Sender, bounded};
use std::sync::Barrier;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

/// A message.
type Boxed<const SIZE: usize> = Box<[u8; SIZE]>;

fn send<const SIZE: usize>(sender: &Sender<Boxed<SIZE>>, message: &[u8; SIZE]) -> Outcome<()> {
    Ok(sender.send(Box::new(*message)).map_err(|error| error.to_string())?)
}

fn is_right<const SIZE: usize>(receiver: &Receiver<Boxed<SIZE>>, sequence: u64) -> Outcome<bool> {
    Ok(payload::is_marked::<SIZE>(&*receiver.recv()?, sequence))
}

/// What a thread gives; an error of another thread is its text.
type Told = Result<Found, String>;

fn told(found: Outcome<Found>) -> Told {
    found.map_err(|error| error.to_string())
}

fn joined(thread: ScopedJoinHandle<'_, Told>, total: u32) -> Outcome<Found> {
    let found = thread.join().map_err(|_| "a thread panicked")??;
    check(found.right, total)?;
    Ok(found)
}

/// Round trips through two channels.
///
/// # Errors
/// When a message is wrong; so do all here.
pub fn roundtrip<const SIZE: usize>(plan: &Plan) -> Outcome<Trips> {
    let pinned = Pinned::to_first()?;
    let (outbox, there) = bounded::<Boxed<SIZE>>(slots(SIZE));
    let (back, inbox) = bounded::<Boxed<SIZE>>(slots(SIZE));
    thread::scope(|scope| {
        let echo = scope.spawn(|| {
            move_to(pinned.second());
            told(pong(plan.trips(), |at| is_right(&there, at), |message| send(&back, message)))
        });
        let trips = ping(plan, |message| send(&outbox, message), |at| is_right(&inbox, at))?;
        joined(echo, plan.trips())?;
        Ok(trips)
    })
}

/// Messages through a channel.
///
/// # Errors
/// As [`roundtrip`].
pub fn throughput<const SIZE: usize>(plan: &Plan) -> Outcome<Duration> {
    let pinned = Pinned::to_first()?;
    let (outbox, inbox) = bounded::<Boxed<SIZE>>(slots(SIZE));
    thread::scope(|scope| {
        let consumer = scope.spawn(|| {
            move_to(pinned.second());
            told(consume(plan.warm_up, plan.total(), |at| is_right(&inbox, at)))
        });
        produce(plan.total(), |message| send(&outbox, message))?;
        Ok(joined(consumer, plan.total())?.time)
    })
}

/// Four producers, `CONSUMERS` consumers.
///
/// # Errors
/// As [`roundtrip`].
pub fn many<const CONSUMERS: u32>(plan: &Plan) -> Outcome<Duration> {
    let pinned = Pinned::to_first()?;
    let (outbox, inbox) = bounded::<Boxed<64>>(slots(64));
    let meet = Barrier::new(usize::try_from(PRODUCERS + CONSUMERS + 1)?);
    let [sent, received] = shares(plan, CONSUMERS);
    let begin = |number: u32| {
        move_to(pinned.second().filter(|_| !number.is_multiple_of(2)));
        meet.wait();
    };
    thread::scope(|scope| {
        let consumer = |number| {
            let (begin, inbox) = (&begin, &inbox);
            scope.spawn(move || {
                begin(number);
                told(consume_share(received, || Ok(*inbox.recv()?)))
            })
        };
        let producer = |number| {
            let (begin, outbox) = (&begin, &outbox);
            scope.spawn(move || {
                begin(number);
                told(produce_share(number, sent, |message| send(outbox, &message)))
            })
        };
        let consumers: Vec<_> = (0..CONSUMERS).map(consumer).collect();
        let producers: Vec<_> = (0..PRODUCERS).map(producer).collect();
        meet.wait();
        let start = Instant::now();
        let mut marks = 0_u64;
        for thread in consumers {
            marks = marks.wrapping_add(joined(thread, received)?.marks);
        }
        let time = start.elapsed();
        producers.into_iter().try_for_each(|thread| joined(thread, sent).map(drop))?;
        let right = marks == expected_marks(PRODUCERS, sent);
        if right { Ok(time) } else { Err("some messages came twice and others not at all".into()) }
    })
}
