//! Channels that grow under random SIGKILLs: two producers fill one that begins with one slot, and one of them, both or the consumer is killed.
//!
//! ```text
//! producer ─┐
//!           ├─ 1 slot, then 2, 4, … ── consumer      each group has a channel of its own: a channel grows only once
//! producer ─┘
//! ```
//!
//! What is checked: of each producer, messages arrive whole, in order, none twice, none left out; all that a killed producer had sent arrives,
//! and at most the one that it was sending; whoever survives gets on, and is told when the other side is gone; nothing is left in the session.

use super::lanes::{join, load};
use super::messages::{Item, content};
use super::{STAND_STILL, Totals, kill};
use multiproc::shm::ShmSafe;
use multiproc::{Process, Receiver, RecvError, Sender, Shared, growing_channel};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(super) const NAME: &str = "queue_growing";

const GROUPS: usize = 2;
const PRODUCERS: usize = 2;
/// Most bytes of a channel's rings: eight of them, or nine.
const BYTES_MAX: usize = 64 << 10;

/// How far those of a group have got: each producer, and the consumer with each.
#[derive(ShmSafe)]
#[repr(C)]
struct Turns {
    sent: [AtomicU64; PRODUCERS],
    received: [AtomicU64; PRODUCERS],
}

struct Group {
    producers: [Process<String>; PRODUCERS],
    consumer: Process<String>,
    turns: Shared<Turns>,
}

/// Gives what ended it if that was not the end of the receiver.
fn produce((number, channel, turns): (u64, Sender<Item>, Shared<Turns>)) -> String {
    let Some(sent) = usize::try_from(number).ok().and_then(|number| turns.sent.get(number)) else {
        return format!("there is no producer {number}");
    };
    for position in 0.. {
        match channel.send((number, position, content(number, position))) {
            Ok(()) => sent.store(position + 1, Ordering::Release),
            Err(error) if error.is_disconnected() => break,
            Err(error) => return error.to_string(),
        }
    }
    String::new()
}

/// Gives what was wrong.
fn consume((channel, turns): (Receiver<Item>, Shared<Turns>)) -> String {
    loop {
        let (from, at, words) = match channel.recv() {
            Ok(item) => item,
            Err(RecvError::Disconnected) => return String::new(),
            Err(error) => return error.to_string(),
        };
        let Some(received) = usize::try_from(from).ok().and_then(|from| turns.received.get(from)) else {
            return format!("a message of producer {from}");
        };
        let next = load(received);
        if at != next {
            return format!("message {at} of producer {from} came where {next} was to come");
        }
        if words != content(from, at) {
            return format!("message {at} of producer {from} is corrupt");
        }
        received.store(at + 1, Ordering::Release);
    }
}

fn start() -> multiproc::Result<Group> {
    let (sender, receiver) = growing_channel::<Item>(1, BYTES_MAX)?;
    let turns = Shared::<Turns>::zeroed()?;
    let consumer = Process::spawn(consume, (receiver, turns.clone()))?;
    let first = Process::spawn(produce, (0, sender.clone(), turns.clone()))?;
    let second = Process::spawn(produce, (1, sender, turns.clone()))?;
    Ok(Group { producers: [first, second], consumer, turns })
}

pub(super) fn soak(time: Duration, kills_max: u64, seed: u64) -> multiproc::Result<Value> {
    let began = Instant::now();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut totals = Totals::default();
    let mut messages = 0;
    let mut groups = (0..GROUPS).map(|_| start()).collect::<multiproc::Result<Vec<_>>>()?;
    while totals.broken.is_empty() && began.elapsed() < time && totals.kills() < kills_max {
        // Not to let somebody run: the moment of the kill is what is random here.
        std::thread::sleep(Duration::from_micros(random.u64(..2000)));
        let next = start()?;
        let group = std::mem::replace(&mut groups[random.usize(..GROUPS)], next);
        messages += end(group, &mut random, &mut totals)?;
    }
    for group in groups {
        messages += end(group, &mut random, &mut totals)?;
    }
    totals.audit()?;
    totals.report(NAME, seed, began, json!({ "messages": messages }))
}

/// Kills some of a group, and checks what the others say. Gives the messages that had arrived.
fn end(group: Group, random: &mut fastrand::Rng, totals: &mut Totals) -> multiproc::Result<u64> {
    let Group { producers: [first, second], consumer, turns } = group;
    let kills_consumer = random.u32(..3) == 0;
    if kills_consumer {
        totals.consumer_kills += 1;
        kill(consumer, &mut totals.broken)?;
        for producer in [first, second] {
            join(producer, "producer", totals)?;
        }
    } else {
        totals.producer_kills += 2;
        kill(first, &mut totals.broken)?;
        if random.u32(..STAND_STILL) == 0 {
            totals.stand_still(|| vec![load(&turns.sent[1]), load(&turns.received[1])]);
        }
        kill(second, &mut totals.broken)?;
        join(consumer, "consumer", totals)?;
    }
    for (sent, received) in turns.sent.iter().zip(&turns.received) {
        let (sent, received) = (load(sent), load(received));
        // Of one that was killed between sending and saying so, one more arrives.
        if received > sent + 1 || (!kills_consumer && received < sent) {
            totals.broken.push(format!("{sent} messages were sent by one producer, {received} arrived"));
        }
    }
    Ok(turns.received.iter().map(load).sum())
}
