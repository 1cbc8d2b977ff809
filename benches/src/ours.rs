//! The contestants that are this library. All use of it is here.

use crate::Outcome;
use crate::machine::{Pinned, move_to};
use crate::measure::{Plan, time_squares, timed};
use crate::payload::{self, Payload};
use multiproc::{Pool, Process, Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Slots of the channels.
const CAPACITY: usize = 1024;

/// The second CPU for a child; see [`Pinned::second`].
type Cpu = Option<u32>;

/// The echoing child: sends every message back, and gives how many were right.
fn echo((inbox, outbox, cpu): (Receiver<Payload>, Sender<Payload>, Cpu)) -> u32 {
    move_to(cpu);
    let mut right = 0;
    for sequence in 0.. {
        // The parent is done when it has dropped its ends.
        let Ok(message) = inbox.recv() else { break };
        right += u32::from(payload::is_right(&message, sequence));
        if outbox.send(message).is_err() {
            break;
        }
    }
    right
}

/// The consuming child: gives how many messages were right, and the nanoseconds from the first one
/// behind the warm-up to the last.
fn consume((inbox, warm_up, total, cpu): (Receiver<Payload>, u32, u32, Cpu)) -> (u32, u64) {
    move_to(cpu);
    let mut right = 0;
    let mut start = Instant::now();
    for sequence in 0..total {
        if sequence == warm_up {
            start = Instant::now();
        }
        let Ok(message) = inbox.recv() else { break };
        right += u32::from(payload::is_right(&message, u64::from(sequence)));
    }
    (right, u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

/// The trivial child.
fn plus_one(number: u32) -> u32 {
    number + 1
}

/// Fails unless the child got all messages right.
fn check(right: u32, plan: &Plan) -> Outcome<()> {
    if right == plan.total() { Ok(()) } else { Err(format!("the child got {right} right messages").into()) }
}

/// Round trips through two channels.
///
/// # Errors
/// When the library fails, or a message is wrong.
pub fn roundtrip(plan: &Plan) -> Outcome<Duration> {
    let pinned = Pinned::to_first()?;
    let (ping, inbox) = channel::<Payload>(CAPACITY)?;
    let (outbox, pong) = channel::<Payload>(CAPACITY)?;
    let child = Process::spawn(echo, (inbox, outbox, pinned.second()))?;
    let trip = |sequence: u32| {
        let sequence = u64::from(sequence);
        ping.send(payload::make(sequence)).map_err(|error| error.to_string())?;
        let right = payload::is_right(&pong.recv()?, sequence);
        if right { Ok(()) } else { Err("a wrong answer".into()) }
    };
    (0..plan.warm_up).try_for_each(trip)?;
    let ((), time) = timed(|| (plan.warm_up..plan.total()).try_for_each(trip))?;
    drop((ping, pong));
    check(child.join()?, plan)?;
    Ok(time)
}

/// Messages through a channel, timed by the consumer.
///
/// # Errors
/// When the library fails, or a message is wrong.
pub fn throughput(plan: &Plan) -> Outcome<Duration> {
    let pinned = Pinned::to_first()?;
    let (sender, inbox) = channel::<Payload>(CAPACITY)?;
    let argument = (inbox, plan.warm_up, plan.total(), pinned.second());
    let child = Process::spawn(consume, argument)?;
    for sequence in 0..plan.total() {
        sender.send(payload::make(u64::from(sequence))).map_err(|error| error.to_string())?;
    }
    let (right, nanoseconds) = child.join()?;
    check(right, plan)?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// Starts a process with a trivial function, and waits for it, again and again.
///
/// # Errors
/// When the library fails, or a result is wrong.
pub fn spawn(plan: &Plan) -> Outcome<Duration> {
    let start = |number: u32| {
        let right = Process::spawn(plus_one, number)?.join()? == number + 1;
        if right { Ok(()) } else { Err("a wrong result".into()) }
    };
    (0..plan.warm_up).try_for_each(start)?;
    let ((), time) = timed(|| (0..plan.count).try_for_each(start))?;
    Ok(time)
}

/// Squares on a pool of two workers, which is made before the clock starts.
///
/// # Errors
/// When the library fails, or a result is wrong.
pub fn pool_map(plan: &Plan) -> Outcome<Duration> {
    let pool = Pool::builder().workers(2).build()?;
    time_squares(plan, |input| Ok(pool.map(payload::square, input)?))
}
