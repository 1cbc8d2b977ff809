//! The queue under random SIGKILLs: two producers, two consumers, and a log through which consumers pass on what they received.
//!
//! ```text
//! producer 0 ─┐                 ┌─ consumer 0 ─┐
//!             ├─ channel, 16 ───┤              ├─ log, 64 ─ this process: checks every message
//! producer 1 ─┘                 └─ consumer 1 ─┘
//! ```
//!
//! One of the four, or several at once, is killed every 0 to 2 ms and started again. What is checked: every message that arrives is
//! whole; none arrives twice; of each producer's messages a run without gaps arrives, but for one message for every consumer killed
//! (the one in its hands); messages keep coming; at the end the consumers drain the channel, are told that it is disconnected, and
//! the session holds nothing any more.

use multiproc::{Process, Receiver, RecvError, Sender, Session, channel};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Producer's number, position, content.
type Item = (u64, u64, Vec<u64>);

const CAPACITY: usize = 16;
const LOG_CAPACITY: usize = 64;
/// No message for so long, with all four running, is a stuck queue.
const STUCK: Duration = Duration::from_secs(20);

/// What a message must hold: mostly a few words, now and then enough for a block of its own.
fn content(producer: u64, position: u64) -> Vec<u64> {
    let mut random = fastrand::Rng::with_seed(producer << 32 ^ position);
    let len = if random.u32(..8) == 0 { random.usize(..600) } else { random.usize(..6) };
    (0..len).map(|_| random.u64(..)).collect()
}

fn produce((producer, items): (u64, Sender<Item>)) {
    for position in 0.. {
        if items.send((producer, position, content(producer, position))).is_err() {
            return;
        }
    }
}

fn consume((items, log): (Receiver<Item>, Sender<Item>)) -> String {
    loop {
        match items.recv() {
            Ok(item) => {
                if let Err(error) = log.send(item) {
                    return error.to_string();
                }
            }
            Err(RecvError::Disconnected) => return String::new(),
            Err(error) => return error.to_string(),
        }
    }
}

#[derive(Default)]
struct Checked {
    /// Positions of each producer that have arrived, as runs: the positions below the first number, and those above it.
    seen: HashMap<u64, Seen>,
    broken: Vec<String>,
}

#[derive(Default)]
struct Seen {
    all_below: u64,
    above: std::collections::BTreeSet<u64>,
}

impl Seen {
    /// Notes a position; `false` if it was there before.
    fn note(&mut self, position: u64) -> bool {
        if position < self.all_below || !self.above.insert(position) {
            return false;
        }
        while self.above.remove(&self.all_below) {
            self.all_below += 1;
        }
        true
    }

    /// Positions that are missing below the last that arrived.
    fn missing(&self) -> u64 {
        self.above.last().map_or(0, |last| last - self.all_below - (self.above.len() as u64 - 1))
    }
}

impl Checked {
    fn check(&mut self, (producer, position, words): &Item) {
        if *words != content(*producer, *position) {
            self.broken.push(format!("message {position} of producer {producer} is corrupt"));
        }
        if !self.seen.entry(*producer).or_default().note(*position) {
            self.broken.push(format!("message {position} of producer {producer} arrived twice"));
        }
    }
}

/// Runs the soak; the report's `broken` lists what was found.
///
/// # Errors
/// If a process or a channel cannot be made.
pub fn soak(time: Duration, kills_max: u64, seed: u64) -> multiproc::Result<Value> {
    let start = Instant::now();
    let mut random = fastrand::Rng::with_seed(seed);
    let (items, items_out) = channel::<Item>(CAPACITY)?;
    let (log, log_out) = channel::<Item>(LOG_CAPACITY)?;
    let received = Arc::new(AtomicU64::new(0));
    let checked = Arc::new(Mutex::new(Checked::default()));
    let reader = {
        let (received, checked) = (received.clone(), checked.clone());
        std::thread::spawn(move || {
            for item in log_out.iter() {
                checked.lock().unwrap_or_else(PoisonError::into_inner).check(&item);
                received.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let mut producers_started = 0;
    let mut producer = || {
        producers_started += 1;
        Process::spawn(produce, (producers_started, items.clone()))
    };
    let consumer = || Process::spawn(consume, (items_out.clone(), log.clone()));
    let mut producers = [producer()?, producer()?];
    let mut consumers = [consumer()?, consumer()?];
    let (mut producer_kills, mut consumer_kills) = (0_u64, 0_u64);
    let mut broken = Vec::new();
    let (mut last_received, mut last_progress) = (0, Instant::now());
    while start.elapsed() < time && producer_kills + consumer_kills < kills_max {
        // Not to let somebody run: the moment of the kill is what is random here.
        std::thread::sleep(Duration::from_micros(random.u64(..2000)));
        let count = if random.u32(..10) == 0 { 2 } else { 1 };
        for _ in 0..count {
            let which = random.usize(..2);
            if random.bool() {
                kill(std::mem::replace(&mut producers[which], producer()?), &mut broken)?;
                producer_kills += 1;
            } else {
                kill(std::mem::replace(&mut consumers[which], consumer()?), &mut broken)?;
                consumer_kills += 1;
            }
        }
        let now = received.load(Ordering::Relaxed);
        if now != last_received {
            (last_received, last_progress) = (now, Instant::now());
        } else if last_progress.elapsed() > STUCK {
            broken.push(format!("stuck: no message for {STUCK:?} after {now} messages"));
            break;
        }
    }
    let stuck = !broken.is_empty();
    for process in producers {
        kill(process, &mut broken)?;
    }
    let (stops_at, mut ends) = (Instant::now() + STUCK, Vec::new());
    drop((items, items_out));
    for process in consumers {
        if stuck || !process.wait_timeout(stops_at.saturating_duration_since(Instant::now()))? {
            broken.push(format!("consumer {} was not told that all producers are gone", process.pid()));
            kill(process, &mut Vec::new())?;
            continue;
        }
        ends.push(process.join()?);
    }
    drop(log);
    broken.extend(ends.into_iter().filter(|end| !end.is_empty()));
    if reader.join().is_err() {
        broken.push("the reader of the log panicked".to_owned());
    }
    let mut checked = checked.lock().unwrap_or_else(PoisonError::into_inner);
    broken.append(&mut checked.broken);
    let lost: u64 = checked.seen.values().map(Seen::missing).sum();
    if lost > consumer_kills {
        broken.push(format!("{lost} messages lost with {consumer_kills} consumers killed"));
    }
    let audit = Session::current()?.audit();
    if audit.processes != 1 || audit.objects != 0 || audit.blocks != 0 || audit.references != 0 {
        broken.push(format!("left in the session: {audit:?}"));
    }
    Ok(json!({
        "soak": "queue",
        "seed": seed,
        "seconds": start.elapsed().as_secs(),
        "kills": producer_kills + consumer_kills,
        "producer_kills": producer_kills,
        "consumer_kills": consumer_kills,
        "messages": received.load(Ordering::Relaxed),
        "lost_in_the_hands_of_the_dead": lost,
        "committed_bytes": Session::current()?.committed_bytes().unwrap_or(0),
        "broken": broken,
    }))
}

/// Kills a process and waits for its end; anything but that signal is reported, a start that was cut short is not.
pub(crate) fn kill<R: multiproc::Message + 'static>(
    process: Process<R>,
    broken: &mut Vec<String>,
) -> multiproc::Result<()> {
    let pid = process.pid();
    if process.kill().is_err() {
        broken.push(format!("process {pid} could not be killed"));
    }
    match process.join() {
        Err(error) if error.signal() == Some(9) => {}
        Err(error) => broken.push(format!("process {pid} was to be killed: {error}")),
        Ok(_) => broken.push(format!("process {pid} was to be killed, but returned")),
    }
    Ok(())
}
