//! Channels under random SIGKILLs: producers, consumers, and a log through which consumers pass on what they received.
//!
//! ```text
//! producer 0 ─┐                   ┌─ consumer 0 ─┐
//!      …      ├─ one channel, or ─┤      …       ├─ log, 64 ─ this process: checks every message
//! producer n ─┘   two             └─ consumer m ─┘
//! ```
//!
//! One of them, or two at once, is killed every 0 to 2 ms and started again. Now and then nobody is killed until every one of them has
//! got on: a death ends all sleeps, so only after the last one would a lost wake-up show. Every fourth wait has a time-out, and is tried again.
//!
//! What is checked: every message that arrives is whole; none arrives twice; what one consumer gets of one producer through one
//! channel is in order; of what each producer has sent all arrives, but for one message for every consumer killed (the one in its hands);
//! at the end the consumers drain the channels, are told that they are disconnected, and the session holds nothing any more.
//!
//! The lane, whose ends die with their processes, is in `lanes`; channels that grow are in `growing`.

mod growing;
mod lanes;
mod messages;

use messages::{Checked, Item, Passed, content};
use mp_channel::Select;
use multiproc::{Message, Process, Receiver, RecvError, SendError, Sender, Session, Shared, channel};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Who sends to whom, and through what.
struct Topology {
    name: &'static str,
    producers: usize,
    consumers: usize,
    /// With more than one, producers send to them in turn, and consumers wait for all of them by `Select`.
    channels: usize,
    capacity: usize,
}

const TOPOLOGIES: [Topology; 7] = [
    Topology { name: "queue", producers: 2, consumers: 2, channels: 1, capacity: 16 },
    Topology { name: "queue_1p1c", producers: 1, consumers: 1, channels: 1, capacity: 16 },
    Topology { name: "queue_2p1c", producers: 2, consumers: 1, channels: 1, capacity: 16 },
    Topology { name: "queue_1p2c", producers: 1, consumers: 2, channels: 1, capacity: 16 },
    Topology { name: "queue_4p4c", producers: 4, consumers: 4, channels: 1, capacity: 16 },
    Topology { name: "queue_select", producers: 2, consumers: 2, channels: 2, capacity: 4 },
    Topology { name: "queue_rendezvous", producers: 2, consumers: 2, channels: 1, capacity: 0 },
];

const LOG_CAPACITY: usize = 64;
/// Nobody killed, and one of them does not get on for so long: stuck.
pub(crate) const STUCK: Duration = Duration::from_secs(20);
/// How long those wait who try again and again.
const HASTE: Duration = Duration::from_micros(50);
/// One in so many kills is followed by a stand-still.
const STAND_STILL: u32 = 8;

/// The soaks of this family.
pub fn names() -> impl Iterator<Item = &'static str> {
    TOPOLOGIES.iter().map(|topology| topology.name).chain([lanes::NAME, growing::NAME])
}

/// Runs the soak called `name`, if there is one; the report's `broken` lists what was found.
///
/// # Errors
/// If a process or a channel cannot be made.
pub fn soak(name: &str, time: Duration, kills_max: u64, seed: u64) -> Option<multiproc::Result<Value>> {
    if name == lanes::NAME {
        return Some(lanes::soak(time, kills_max, seed));
    }
    if name == growing::NAME {
        return Some(growing::soak(time, kills_max, seed));
    }
    let topology = TOPOLOGIES.iter().find(|topology| topology.name == name)?;
    Some(topology.soak(time, kills_max, seed))
}

/// Serial number, where it sends, how many messages it has sent.
type Producer = (u64, Vec<Sender<Item>>, Shared<AtomicU64>);
/// Serial number, where it receives, how many messages it has passed on, where.
type Consumer = (u64, Vec<Receiver<Item>>, Shared<AtomicU64>, Sender<Passed>);

fn produce((serial, channels, sent): Producer) {
    for position in 0.. {
        let channel = &channels[messages::channel_of(position, channels.len())];
        if let Err(error) = send(channel, (serial, position, content(serial, position))) {
            // The channels outlive their producers, so this is never to happen.
            eprintln!("producer {serial}, message {position}: {:?}", error.failure);
            return;
        }
        sent.store(position + 1, Ordering::Release);
    }
}

/// Sends; some messages are taken back again and again until somebody is there in time.
fn send(channel: &Sender<Item>, item: Item) -> Result<(), SendError<Item>> {
    if !is_hasty(item.1) {
        return channel.send(item);
    }
    let mut item = item;
    loop {
        match channel.send_timeout(item, HASTE) {
            Err(error) if error.is_full() => item = error.into_value(),
            result => return result,
        }
    }
}

/// Whether the wait for a message of this number has a time-out.
fn is_hasty(number: u64) -> bool {
    (number + 1).is_multiple_of(4)
}

/// Gives what ended it if that was not the end of the channels.
fn consume((serial, channels, passed, log): Consumer) -> String {
    let mut next = next_of(&channels);
    for count in 1.. {
        match next() {
            Ok(item) => {
                if let Err(error) = log.send((serial, item)) {
                    return error.to_string();
                }
                passed.store(count, Ordering::Release);
            }
            Err(RecvError::Disconnected) => return String::new(),
            Err(error) => return error.to_string(),
        }
    }
    String::new()
}

/// How to receive from one channel, or from whichever of several has something.
fn next_of(channels: &[Receiver<Item>]) -> Box<dyn FnMut() -> Result<Item, RecvError> + '_> {
    if let [channel] = channels {
        let mut numbers = 0..;
        return Box::new(move || {
            let hasty = is_hasty(numbers.next().unwrap_or_default());
            loop {
                match if hasty { channel.recv_timeout(HASTE) } else { channel.recv() } {
                    Err(RecvError::Empty) => {}
                    result => return result,
                }
            }
        });
    }
    let mut select = Select::new();
    channels.iter().for_each(|channel| _ = select.end(channel));
    Box::new(move || {
        // A set without members says so: all channels are disconnected then.
        while let Ok(number) = select.ready() {
            match channels[number].try_recv() {
                Err(RecvError::Disconnected) => _ = select.remove(number),
                // Somebody else was faster.
                Err(RecvError::Empty) => {}
                result => return result,
            }
        }
        if select.is_empty() { Err(RecvError::Disconnected) } else { Err(RecvError::Empty) }
    })
}

/// A process and how far it has got.
struct Party<R: Message + 'static> {
    serial: u64,
    process: Process<R>,
    turns: Shared<AtomicU64>,
}

impl<R: Message + 'static> Party<R> {
    fn turns(&self) -> u64 {
        self.turns.load(Ordering::Acquire)
    }
}

/// What a soak of any topology comes to.
#[derive(Default)]
struct Totals {
    producer_kills: u64,
    consumer_kills: u64,
    stand_stills: u64,
    longest: Duration,
    broken: Vec<String>,
}

impl Totals {
    fn kills(&self) -> u64 {
        self.producer_kills + self.consumer_kills
    }

    /// Kills nobody until `turns` says of each party that it has got on.
    fn stand_still(&mut self, turns: impl Fn() -> Vec<u64>) {
        self.stand_stills += 1;
        let (start, before) = (Instant::now(), turns());
        loop {
            let now = turns();
            if before.iter().zip(&now).all(|(before, now)| *now > before + 1) {
                break;
            }
            if start.elapsed() > STUCK {
                self.broken.push(format!("stuck for {STUCK:?}: {before:?}, then {now:?} messages"));
                if std::env::var_os("MP_SOAK_KEEP").is_some() {
                    eprintln!("stuck; this is process {}, for a debugger", std::process::id());
                    std::thread::sleep(Duration::from_secs(3600));
                }
                break;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        self.longest = self.longest.max(start.elapsed());
    }

    fn audit(&mut self) -> multiproc::Result<()> {
        let audit = Session::current()?.audit();
        if audit.processes != 1
            || audit.objects != 0
            || audit.blocks != 0
            || audit.references != 0
            || !audit.counts_are_right
        {
            self.broken.push(format!("left in the session: {audit:?}"));
        }
        Ok(())
    }

    /// The report, with what `more` adds.
    fn report(self, name: &str, seed: u64, start: Instant, more: Value) -> multiproc::Result<Value> {
        let mut report = json!({
            "soak": name,
            "seed": seed,
            "seconds": start.elapsed().as_secs(),
            "kills": self.kills(),
            "producer_kills": self.producer_kills,
            "consumer_kills": self.consumer_kills,
            "stand_stills": self.stand_stills,
            "longest_stand_still_ms": u64::try_from(self.longest.as_millis()).unwrap_or(u64::MAX),
            "committed_bytes": Session::current()?.committed_bytes().unwrap_or(0),
            "broken": self.broken,
        });
        if let (Some(report), Value::Object(more)) = (report.as_object_mut(), more) {
            report.extend(more);
        }
        Ok(report)
    }
}

impl Topology {
    fn soak(&self, time: Duration, kills_max: u64, seed: u64) -> multiproc::Result<Value> {
        let start = Instant::now();
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut items, mut items_out) = (Vec::new(), Vec::new());
        for _ in 0..self.channels {
            let (sender, receiver) = channel::<Item>(self.capacity)?;
            items.push(sender);
            items_out.push(receiver);
        }
        let (log, log_out) = channel::<Passed>(LOG_CAPACITY)?;
        let checked = Arc::new(Mutex::new(Checked::new(self.channels)));
        let reader = {
            let checked = checked.clone();
            std::thread::spawn(move || {
                for passed in log_out.iter() {
                    checked.lock().unwrap_or_else(PoisonError::into_inner).check(&passed);
                }
            })
        };
        let mut serial = 0;
        let mut producer = || -> multiproc::Result<Party<()>> {
            serial += 1;
            let turns = Shared::<AtomicU64>::zeroed()?;
            let process = Process::spawn(produce, (serial, items.clone(), turns.clone()))?;
            Ok(Party { serial, process, turns })
        };
        let mut consumer_serial = 0;
        let mut consumer = || -> multiproc::Result<Party<String>> {
            consumer_serial += 1;
            let turns = Shared::<AtomicU64>::zeroed()?;
            let me = (consumer_serial, items_out.clone(), turns.clone(), log.clone());
            Ok(Party { serial: consumer_serial, process: Process::spawn(consume, me)?, turns })
        };
        let mut producers = (0..self.producers).map(|_| producer()).collect::<multiproc::Result<Vec<_>>>()?;
        let mut consumers = (0..self.consumers).map(|_| consumer()).collect::<multiproc::Result<Vec<_>>>()?;
        let mut totals = Totals::default();
        // Of each producer that was killed, how many messages it had sent.
        let mut sent = Vec::new();
        while totals.broken.is_empty() && start.elapsed() < time && totals.kills() < kills_max {
            // Not to let somebody run: the moment of the kill is what is random here.
            std::thread::sleep(Duration::from_micros(random.u64(..2000)));
            let count = if random.u32(..10) == 0 { 2 } else { 1 };
            for _ in 0..count {
                if random.bool() {
                    let which = random.usize(..self.producers);
                    let dead = std::mem::replace(&mut producers[which], producer()?);
                    kill(dead.process, &mut totals.broken)?;
                    sent.push((dead.serial, dead.turns.load(Ordering::Acquire)));
                    totals.producer_kills += 1;
                } else {
                    let which = random.usize(..self.consumers);
                    let dead = std::mem::replace(&mut consumers[which], consumer()?);
                    kill(dead.process, &mut totals.broken)?;
                    totals.consumer_kills += 1;
                }
            }
            if random.u32(..STAND_STILL) == 0 || totals.kills() >= kills_max {
                let turns =
                    || producers.iter().map(Party::turns).chain(consumers.iter().map(Party::turns)).collect();
                totals.stand_still(turns);
            }
        }
        let stuck = !totals.broken.is_empty();
        for Party { serial, process, turns } in producers {
            kill(process, &mut totals.broken)?;
            sent.push((serial, turns.load(Ordering::Acquire)));
        }
        let stops_at = Instant::now() + STUCK;
        drop((items, items_out));
        for Party { process, .. } in consumers {
            if stuck || !process.wait_timeout(stops_at.saturating_duration_since(Instant::now()))? {
                let pid = process.pid();
                totals.broken.push(format!("consumer {pid} was not told that all producers are gone"));
                kill(process, &mut Vec::new())?;
                continue;
            }
            let end = process.join()?;
            if !end.is_empty() {
                totals.broken.push(end);
            }
        }
        drop(log);
        while !reader.is_finished() && Instant::now() < stops_at + STUCK {
            std::thread::sleep(Duration::from_millis(1));
        }
        if !reader.is_finished() {
            totals.broken.push("the reader of the log was not told that all consumers are gone".to_owned());
        } else if reader.join().is_err() {
            totals.broken.push("the reader of the log panicked".to_owned());
        }
        let mut checked = checked.lock().unwrap_or_else(PoisonError::into_inner);
        totals.broken.append(&mut checked.broken);
        let lost = checked.lost(&sent);
        if lost > totals.consumer_kills {
            let kills = totals.consumer_kills;
            totals.broken.push(format!("{lost} messages lost with {kills} consumers killed"));
        }
        totals.audit()?;
        let more = json!({ "messages": checked.messages, "lost_in_the_hands_of_the_dead": lost });
        totals.report(self.name, seed, start, more)
    }
}

/// Kills a process and waits for its end; anything but that signal is reported, a start that was cut short is not.
pub(crate) fn kill<R: Message + 'static>(
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
