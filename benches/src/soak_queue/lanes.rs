//! Lanes under random SIGKILLs: pairs of a sender and a receiver, of which one is killed, or both.
//!
//! ```text
//! producer ── lane, 4 ── consumer      each pair has a lane of its own, since an end of a lane dies with its process
//! ```
//!
//! What is checked: messages arrive whole, in order, none twice, none left out; all that a killed producer had sent arrives, and at most the
//! one that it was sending; whoever survives is told that the other end is gone, and ends; nothing is left in the session.

use super::messages::{Item, content};
use super::{STAND_STILL, STUCK, Totals, kill};
use mp_channel::spsc;
use multiproc::shm::ShmSafe;
use multiproc::{Process, RecvError, Shared};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(super) const NAME: &str = "queue_spsc";

const PAIRS: usize = 2;
const CAPACITY: usize = 4;

/// How far the two of a pair have got.
#[derive(ShmSafe)]
#[repr(C)]
struct Turns {
    sent: AtomicU64,
    received: AtomicU64,
}

struct Pair {
    producer: Process<String>,
    consumer: Process<String>,
    turns: Shared<Turns>,
}

/// Gives what ended it if that was not the end of the receiver.
fn produce((serial, mut lane, turns): (u64, spsc::Sender<Item>, Shared<Turns>)) -> String {
    for position in 0.. {
        match lane.send((serial, position, content(serial, position))) {
            Ok(()) => turns.sent.store(position + 1, Ordering::Release),
            Err(error) if error.is_disconnected() => break,
            Err(error) => return error.to_string(),
        }
    }
    String::new()
}

/// Gives what was wrong.
fn consume((serial, mut lane, turns): (u64, spsc::Receiver<Item>, Shared<Turns>)) -> String {
    for position in 0.. {
        match lane.recv() {
            Ok((from, at, words)) => {
                if (from, at) != (serial, position) {
                    return format!(
                        "message {at} of lane {from} came where {position} of {serial} was to come"
                    );
                }
                if words != content(serial, position) {
                    return format!("message {position} of lane {serial} is corrupt");
                }
                turns.received.store(position + 1, Ordering::Release);
            }
            Err(RecvError::Disconnected) => break,
            Err(error) => return error.to_string(),
        }
    }
    String::new()
}

fn start(serial: &mut u64) -> multiproc::Result<Pair> {
    *serial += 1;
    let (sender, receiver) = spsc::channel::<Item>(CAPACITY)?;
    let turns = Shared::<Turns>::zeroed()?;
    let producer = Process::spawn(produce, (*serial, sender, turns.clone()))?;
    let consumer = Process::spawn(consume, (*serial, receiver, turns.clone()))?;
    Ok(Pair { producer, consumer, turns })
}

pub(super) fn soak(time: Duration, kills_max: u64, seed: u64) -> multiproc::Result<Value> {
    let began = Instant::now();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut totals = Totals::default();
    let (mut serial, mut messages) = (0, 0);
    let mut pairs = (0..PAIRS).map(|_| start(&mut serial)).collect::<multiproc::Result<Vec<_>>>()?;
    while totals.broken.is_empty() && began.elapsed() < time && totals.kills() < kills_max {
        // Not to let somebody run: the moment of the kill is what is random here.
        std::thread::sleep(Duration::from_micros(random.u64(..2000)));
        let next = start(&mut serial)?;
        let pair = std::mem::replace(&mut pairs[random.usize(..PAIRS)], next);
        messages += end(pair, random.u32(..10), &mut totals)?;
        if random.u32(..STAND_STILL) == 0 || totals.kills() >= kills_max {
            totals.stand_still(|| {
                let turns = |pair: &Pair| [&pair.turns.sent, &pair.turns.received].map(load);
                pairs.iter().flat_map(turns).collect()
            });
        }
    }
    for pair in pairs {
        messages += end(pair, 0, &mut totals)?;
    }
    totals.audit()?;
    totals.report(NAME, seed, began, json!({ "messages": messages }))
}

/// Kills one of a pair (or both, if `which` is 0), and checks what the other one says. Gives the messages that had arrived.
fn end(pair: Pair, which: u32, totals: &mut Totals) -> multiproc::Result<u64> {
    let Pair { producer, consumer, turns } = pair;
    let (kills_producer, kills_consumer) = (which.is_multiple_of(2), which == 0 || !which.is_multiple_of(2));
    totals.producer_kills += u64::from(kills_producer);
    totals.consumer_kills += u64::from(kills_consumer);
    if kills_producer && kills_consumer {
        // The consumer may have been told, and have ended, before its own turn comes.
        let killed = producer.kill().and(consumer.kill());
        if killed.is_err() {
            totals.broken.push("a pair could not be killed".to_owned());
        }
        kill(producer, &mut totals.broken)?;
        match consumer.join() {
            Ok(said) if said.is_empty() => {}
            Err(error) if error.signal() == Some(9) => {}
            other => totals.broken.push(format!("a consumer was to be killed: {other:?}")),
        }
    } else if kills_producer {
        kill(producer, &mut totals.broken)?;
        join(consumer, "consumer", totals)?;
    } else {
        kill(consumer, &mut totals.broken)?;
        join(producer, "producer", totals)?;
    }
    let (sent, received) = (load(&turns.sent), load(&turns.received));
    // Of one that was killed between sending and saying so, one more arrives.
    if received > sent + 1 || (!kills_consumer && received < sent) {
        totals.broken.push(format!("{sent} messages were sent through a lane, {received} arrived"));
    }
    Ok(received)
}

/// Waits for the end of one whose other side was killed.
pub(super) fn join(process: Process<String>, who: &str, totals: &mut Totals) -> multiproc::Result<()> {
    if !process.wait_timeout(STUCK)? {
        totals.broken.push(format!("{who} {} was not told that the other end is gone", process.pid()));
        if std::env::var_os("MP_SOAK_KEEP").is_some() {
            eprintln!("stuck; this is process {}, for a debugger", std::process::id());
            std::thread::sleep(Duration::from_secs(3600));
        }
        return kill(process, &mut totals.broken);
    }
    let said = process.join()?;
    if !said.is_empty() {
        totals.broken.push(format!("{who}: {said}"));
    }
    Ok(())
}

pub(super) fn load(turns: &AtomicU64) -> u64 {
    turns.load(Ordering::Acquire)
}
