//! What contestants have in common: how messages are sent, echoed, consumed and checked, whatever carries them.

use crate::Outcome;
use crate::latency::{Trips, time_trips};
use crate::measure::Plan;
use crate::payload::{self, Payload, Source};
use crate::second::Found;
use std::thread;
use std::time::{Duration, Instant};

/// Slots of a channel for messages of `size` bytes: 1024, and for large messages fewer, so that the memory stays in the caches.
pub(super) const fn slots(size: usize) -> usize {
    match size {
        0..=1024 => 1024,
        1025..=65_536 => 16,
        _ => 8,
    }
}

/// The first side of round trips.
pub(super) fn ping<const SIZE: usize>(
    plan: &Plan,
    mut send: impl FnMut(&[u8; SIZE]) -> Outcome<()>,
    mut receive: impl FnMut(u64) -> Outcome<bool>,
) -> Outcome<Trips> {
    let mut source = Source::new();
    time_trips(plan, |turn| {
        let sequence = u64::from(turn);
        send(source.marked(sequence))?;
        if receive(sequence)? { Ok(()) } else { Err("a wrong answer".into()) }
    })
}

/// The second side: receives, checks, and sends an equal message back.
pub(super) fn pong<const SIZE: usize>(
    total: u32,
    mut receive: impl FnMut(u64) -> Outcome<bool>,
    mut send: impl FnMut(&[u8; SIZE]) -> Outcome<()>,
) -> Outcome<Found> {
    let (mut source, mut found) = (Source::new(), Found::default());
    for sequence in 0..u64::from(total) {
        found.right += u32::from(receive(sequence)?);
        send(source.marked(sequence))?;
    }
    Ok(found)
}

/// Sends messages from number 0 on.
pub(super) fn produce<const SIZE: usize>(
    total: u32,
    mut send: impl FnMut(&[u8; SIZE]) -> Outcome<()>,
) -> Outcome<()> {
    let mut source = Source::new();
    (0..u64::from(total)).try_for_each(|sequence| send(source.marked(sequence)))
}

/// Receives messages from number 0 on, and times those behind the warm-up.
pub(super) fn consume(
    warm_up: u32,
    total: u32,
    mut receive: impl FnMut(u64) -> Outcome<bool>,
) -> Outcome<Found> {
    let (mut right, mut start) = (0, Instant::now());
    for sequence in 0..total {
        if sequence == warm_up {
            start = Instant::now();
        }
        right += u32::from(receive(u64::from(sequence))?);
    }
    Ok(Found { right, marks: 0, time: start.elapsed() })
}

/// How many producers there are where they are many.
pub(super) const PRODUCERS: u32 = 4;

/// How many messages each producer sends, and each of `consumers`, a divisor of [`PRODUCERS`], receives: shares of [`Plan::count`].
pub(super) fn shares(plan: &Plan, consumers: u32) -> [u32; 2] {
    let sent = plan.count / PRODUCERS;
    [sent, sent * (PRODUCERS / consumers)]
}

/// One of several producers: sends its share. All of it counts as right, what came the consumers tell.
pub(super) fn produce_share(
    number: u32,
    total: u32,
    mut send: impl FnMut(Payload) -> Outcome<()>,
) -> Outcome<Found> {
    (0..total).try_for_each(|turn| send(payload::make(sequence_of(number, turn))))?;
    Ok(Found { right: total, ..Found::default() })
}

/// One of several consumers: receives its share, in whatever order.
pub(super) fn consume_share(total: u32, mut receive: impl FnMut() -> Outcome<Payload>) -> Outcome<Found> {
    let mut found = Found::default();
    for _ in 0..total {
        if let Some(mark) = payload::mark_of(&receive()?) {
            found.right += 1;
            found.marks = found.marks.wrapping_add(mark);
        }
    }
    Ok(found)
}

/// The number of message `turn` of producer `number`.
fn sequence_of(number: u32, turn: u32) -> u64 {
    u64::from(number) << 32 | u64::from(turn)
}

/// The sum of the marks of all messages of producers 0 to `producers`, `total` of each.
pub(super) fn expected_marks(producers: u32, total: u32) -> u64 {
    let all = (0..producers).flat_map(|number| (0..total).map(move |turn| sequence_of(number, turn)));
    all.fold(0, |sum, sequence| sum.wrapping_add(payload::mark(sequence)))
}

/// How long a side rests before it sends, so that the other one has gone to sleep.
const REST: Duration = Duration::from_micros(300);

/// An answer that tells how long its sender took, behind the number.
fn answer(sequence: u64, took: Duration) -> Payload {
    let mut bytes = payload::make(sequence);
    let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    if let Some(last) = bytes.last_chunk_mut() {
        *last = nanoseconds.to_ne_bytes();
    }
    bytes
}

/// What an answer tells, if it is the one to message `sequence`.
fn told(bytes: &Payload, sequence: u64) -> Option<Duration> {
    let took = Duration::from_nanos(u64::from_ne_bytes(bytes.last_chunk().copied()?));
    (*bytes == answer(sequence, took)).then_some(took)
}

/// The first side of round trips between sides that sleep: each rests before it sends, and no rest is part of a figure.
pub(super) fn ping_rested(
    plan: &Plan,
    mut send: impl FnMut(Payload) -> Outcome<()>,
    mut receive: impl FnMut() -> Outcome<Payload>,
) -> Outcome<Trips> {
    let mut trip = |sequence: u64| {
        thread::sleep(REST);
        let start = Instant::now();
        send(payload::make(sequence))?;
        let bytes = receive()?;
        let took = start.elapsed();
        Ok(took.saturating_sub(told(&bytes, sequence).ok_or("a wrong answer")?))
    };
    let mut single = (0..u64::from(plan.trips())).map(&mut trip).collect::<Outcome<Vec<_>>>()?;
    single.drain(..usize::try_from(plan.warm_up)?);
    let counted = usize::try_from(plan.count)?;
    Ok(Trips { wall: single.iter().take(counted).sum(), single })
}

/// The second side.
pub(super) fn pong_rested(
    total: u32,
    mut receive: impl FnMut() -> Outcome<Payload>,
    mut send: impl FnMut(Payload) -> Outcome<()>,
) -> Outcome<Found> {
    let mut found = Found::default();
    for sequence in 0..u64::from(total) {
        let right = payload::is_right(&receive()?, sequence);
        let start = Instant::now();
        found.right += u32::from(right);
        thread::sleep(REST);
        send(answer(sequence, start.elapsed()))?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_receive_is_what_all_send() {
        for (count, consumers) in [(80, 1), (80, 4), (83, 1), (83, 4)] {
            let [sent, received] = shares(&Plan { rounds: 1, warm_up: 0, count }, consumers);
            assert_eq!(sent * PRODUCERS, received * consumers);
        }
    }

    #[test]
    fn an_answer_is_checked_whole() {
        let took = Duration::from_micros(321);
        let right = answer(5, took);
        assert_eq!(told(&right, 5), Some(took));
        assert_eq!(told(&right, 6), None);
        let mut torn = right;
        torn[20] ^= 1;
        assert_eq!(told(&torn, 5), None);
    }

    #[test]
    fn what_is_sent_is_what_is_expected() -> Outcome<()> {
        let mut sent = vec![];
        for number in 0..PRODUCERS {
            produce_share(number, 10, |message| {
                sent.push(message);
                Ok(())
            })?;
        }
        let total = u32::try_from(sent.len())?;
        let found = consume_share(total, || sent.pop().ok_or("none left".into()))?;
        assert_eq!((found.right, found.marks), (total, expected_marks(PRODUCERS, 10)));
        Ok(())
    }
}
