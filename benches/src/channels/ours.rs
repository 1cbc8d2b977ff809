//! The contestants that are this library's channels. All use of them is here.
//!
//! The part `fast` has what a channel for one producer and one consumer, batches, reading in place and loans are to do; everything
//! else uses the general channel.

use super::Role;
use super::contest::{
    PRODUCERS, consume, consume_share, expected_marks, ping, ping_rested, pong, pong_rested, produce,
    produce_share, shares, slots,
};
use super::typed::{Expected, Record, in_process};
use crate::Outcome;
use crate::latency::Trips;
use crate::machine::{Pinned, move_to};
use crate::measure::Plan;
use crate::payload::{self, Payload};
use crate::second::{Found, Job, Second, check};
use multiproc::sync::Barrier;
use multiproc::{Process, Receiver, Sender, Session, Shared, channel};
use std::fs;
use std::time::{Duration, Instant};

pub(super) const ROLES: &[Role] = &[("ours/idle_channels", idle_channels)];

/// The second CPU for a child; see [`Pinned::second`].
type Cpu = Option<u32>;
/// What a child tells of what it found: how many messages were right, the sum of their marks, nanoseconds.
type Told = Result<(u32, u64, u64), String>;

/// As a child returns it.
fn told(found: Outcome<Found>) -> Told {
    let found = found.map_err(|error| error.to_string())?;
    Ok((found.right, found.marks, u64::try_from(found.time.as_nanos()).unwrap_or(u64::MAX)))
}

/// What a child found, if it was all right.
fn joined(child: Process<Told>, total: u32) -> Outcome<Found> {
    let (right, marks, nanoseconds) = child.join()??;
    check(right, total)?;
    Ok(Found { right, marks, time: Duration::from_nanos(nanoseconds) })
}

/// Sends a message that the caller keeps.
fn send<T: multiproc::Message>(sender: &Sender<T>, message: &T) -> Outcome<()> {
    Ok(sender.send_ref(message)?)
}

fn receive<T: multiproc::Message>(receiver: &Receiver<T>) -> Outcome<T> {
    Ok(receiver.recv()?)
}

/// The fast variants: one function or type for each.
mod fast {
    use super::{Outcome, Payload, Receiver, Record, Sender};
    use crate::channels::typed::ArchivedRecord;
    use multiproc::spsc;

    /// The ends of a channel for one producer and one consumer.
    pub(super) type SpscSender<T> = spsc::Sender<T>;
    pub(super) type SpscReceiver<T> = spsc::Receiver<T>;

    pub(super) fn spsc<T: multiproc::Message>(capacity: usize) -> Outcome<(SpscSender<T>, SpscReceiver<T>)> {
        Ok(spsc::channel(capacity)?)
    }

    #[inline]
    pub(super) fn spsc_send(sender: &mut SpscSender<Payload>, message: Payload) -> Outcome<()> {
        Ok(sender.send(message).map_err(|error| error.to_string())?)
    }

    #[inline]
    pub(super) fn spsc_receive(receiver: &mut SpscReceiver<Payload>) -> Outcome<Payload> {
        Ok(receiver.recv()?)
    }

    /// Sends all of `messages`.
    pub(super) fn send_all(
        sender: &mut SpscSender<Payload>,
        messages: impl Iterator<Item = Payload>,
    ) -> Outcome<()> {
        sender.send_all(messages).map_err(|error| error.to_string())?;
        Ok(())
    }

    /// Appends 1 to `max` messages to `into`.
    pub(super) fn receive_many(
        receiver: &mut SpscReceiver<Payload>,
        into: &mut Vec<Payload>,
        max: usize,
    ) -> Outcome<()> {
        receiver.recv_many(into, max)?;
        Ok(())
    }

    /// Lets `look` read bytes in place.
    pub(super) fn read_bytes<R>(receiver: &Receiver<Vec<u8>>, look: impl FnOnce(&[u8]) -> R) -> Outcome<R> {
        Ok(look(receiver.recv_archived()?.as_slice()))
    }

    /// What is received of a record: its archive, in place.
    pub(super) type Read = ArchivedRecord;

    /// Lets `look` read a record in place.
    pub(super) fn read_record<R>(receiver: &Receiver<Record>, look: impl FnOnce(&Read) -> R) -> Outcome<R> {
        let record = receiver.recv_archived()?;
        Ok(look(&record))
    }

    /// Whether what was read in place is message number `sequence`.
    pub(super) fn is_record(expected: &mut super::Expected, record: &Read, sequence: u64) -> bool {
        expected.is_archived(record, sequence)
    }

    /// Loans `len` numbers, writes the first, and sends them.
    pub(super) fn loan(sender: &Sender<Vec<f32>>, len: usize, first: f32) -> Outcome<()> {
        let mut loan = sender.loan_slice(len)?;
        if let Some(place) = loan.first_mut() {
            *place = first;
        }
        Ok(loan.send().map_err(|error| error.to_string())?)
    }

    /// The first number of a loan, and how many there are.
    pub(super) fn receive_loan(receiver: &Receiver<Vec<f32>>) -> Outcome<(f32, usize)> {
        let numbers = receiver.recv_archived()?;
        let numbers = numbers.as_slice();
        Ok((numbers.first().copied().ok_or("an empty loan")?, numbers.len()))
    }
}

fn echo<const SIZE: usize>(
    (inbox, outbox, total, cpu): (Receiver<[u8; SIZE]>, Sender<[u8; SIZE]>, u32, Cpu),
) -> Told {
    move_to(cpu);
    let take = |sequence| Ok(payload::is_marked::<SIZE>(&receive(&inbox)?, sequence));
    told(pong(total, take, |message| send(&outbox, message)))
}

fn trips<const SIZE: usize>(plan: &Plan, one_cpu: bool) -> Outcome<Trips> {
    let pinned = Pinned::to_first()?;
    let cpu = pinned.second().filter(|_| !one_cpu);
    let (outbox, ping_end) = channel::<[u8; SIZE]>(slots(SIZE))?;
    let (pong_end, inbox) = channel::<[u8; SIZE]>(slots(SIZE))?;
    let child = Process::spawn(echo::<SIZE>, (ping_end, pong_end, plan.trips(), cpu))?;
    let take = |sequence| Ok(payload::is_marked::<SIZE>(&receive(&inbox)?, sequence));
    let trips = ping(plan, |message| send(&outbox, message), take)?;
    joined(child, plan.trips())?;
    Ok(trips)
}

/// Round trips with default settings.
///
/// # Errors
/// When the library fails, or a message is wrong; so do all here.
pub fn roundtrip<const SIZE: usize>(plan: &Plan) -> Outcome<Trips> {
    trips::<SIZE>(plan, false)
}

/// Both sides on one CPU.
///
/// # Errors
/// As [`roundtrip`].
pub fn roundtrip_one_cpu(plan: &Plan) -> Outcome<Trips> {
    trips::<64>(plan, true)
}

fn echo_rested((inbox, outbox, total, cpu): (Receiver<Payload>, Sender<Payload>, u32, Cpu)) -> Told {
    move_to(cpu);
    told(pong_rested(total, || receive(&inbox), |message| send(&outbox, &message)))
}

/// Both sides asleep when a message comes, for they rested long before.
///
/// # Errors
/// As [`roundtrip`].
pub fn roundtrip_asleep(plan: &Plan) -> Outcome<Trips> {
    let pinned = Pinned::to_first()?;
    let (outbox, ping_end) = channel(slots(64))?;
    let (pong_end, inbox) = channel(slots(64))?;
    let child = Process::spawn(echo_rested, (ping_end, pong_end, plan.trips(), pinned.second()))?;
    let trips = ping_rested(plan, |message| send(&outbox, &message), || receive(&inbox))?;
    joined(child, plan.trips())?;
    Ok(trips)
}

/// What a consumer is told: its end, the warm-up, all messages, its CPU.
type Consumer<End> = (End, u32, u32, Cpu);

/// Runs `work` beside a child that consumes.
fn beside<End: multiproc::Message + 'static>(
    plan: &Plan,
    consumer: fn(Consumer<End>) -> Told,
    inbox: End,
    work: impl FnOnce() -> Outcome<()>,
) -> Outcome<Duration>
where
    Consumer<End>: multiproc::Message,
{
    let pinned = Pinned::to_first()?;
    let child = Process::spawn(consumer, (inbox, plan.warm_up, plan.total(), pinned.second()))?;
    work()?;
    Ok(joined(child, plan.total())?.time)
}

fn consume_small((inbox, warm_up, total, cpu): Consumer<Receiver<Payload>>) -> Told {
    move_to(cpu);
    told(consume(warm_up, total, |at| Ok(payload::is_right(&receive(&inbox)?, at))))
}

/// 64 bytes through the general channel.
///
/// # Errors
/// As [`roundtrip`].
pub fn throughput_64(plan: &Plan) -> Outcome<Duration> {
    let (outbox, inbox) = channel(slots(64))?;
    beside(plan, consume_small, inbox, || produce(plan.total(), |message| send(&outbox, message)))
}

fn consume_spsc((mut inbox, warm_up, total, cpu): Consumer<fast::SpscReceiver<Payload>>) -> Told {
    move_to(cpu);
    told(consume(warm_up, total, |at| Ok(payload::is_right(&fast::spsc_receive(&mut inbox)?, at))))
}

/// 64 bytes through the channel for one producer and one consumer.
///
/// # Errors
/// As [`roundtrip`].
pub fn throughput_64_spsc(plan: &Plan) -> Outcome<Duration> {
    let (mut outbox, inbox) = fast::spsc(slots(64))?;
    beside(plan, consume_spsc, inbox, || {
        (0..u64::from(plan.total())).try_for_each(|at| fast::spsc_send(&mut outbox, payload::make(at)))
    })
}

/// Messages that are sent and received at once.
const BATCH: usize = 64;

fn consume_batched((mut inbox, warm_up, total, cpu): Consumer<fast::SpscReceiver<Payload>>) -> Told {
    move_to(cpu);
    let (mut batch, mut next) = (Vec::with_capacity(BATCH), 0);
    told(consume(warm_up, total, |at| {
        if next == batch.len() {
            batch.clear();
            fast::receive_many(&mut inbox, &mut batch, BATCH)?;
            next = 0;
        }
        next += 1;
        Ok(batch.get(next - 1).is_some_and(|message| payload::is_right(message, at)))
    }))
}

/// 64 bytes, 64 at a time, through the channel for one producer and one consumer.
///
/// # Errors
/// As [`roundtrip`].
pub fn throughput_64_batched(plan: &Plan) -> Outcome<Duration> {
    let (mut outbox, inbox) = fast::spsc(slots(64))?;
    beside(plan, consume_batched, inbox, || {
        let (mut at, total) = (0, u64::from(plan.total()));
        while at < total {
            let end = total.min(at + BATCH as u64);
            fast::send_all(&mut outbox, (at..end).map(payload::make))?;
            at = end;
        }
        Ok(())
    })
}

fn consume_bytes<const SIZE: usize>((inbox, warm_up, total, cpu): Consumer<Receiver<Vec<u8>>>) -> Told {
    move_to(cpu);
    told(consume(warm_up, total, |at| {
        fast::read_bytes(&inbox, |bytes| payload::is_marked::<SIZE>(bytes, at))
    }))
}

/// Bytes of one large message after the other, which the sender keeps, and the receiver reads in place.
///
/// # Errors
/// As [`roundtrip`].
pub fn throughput_bytes<const SIZE: usize>(plan: &Plan) -> Outcome<Duration> {
    let (outbox, inbox) = channel::<Vec<u8>>(slots(SIZE))?;
    // A vector of its own: that is what programs send.
    let mut bytes = vec![0; SIZE];
    beside(plan, consume_bytes::<SIZE>, inbox, || {
        let mut source = payload::Source::<SIZE>::new();
        bytes.copy_from_slice(source.marked(0));
        (0..u64::from(plan.total())).try_for_each(|at| {
            payload::mark_again(&mut bytes, at);
            send(&outbox, &bytes)
        })
    })
}

/// The numbers of a loan of 1 MiB.
const NUMBERS: usize = (1 << 20) / size_of::<f32>();

/// The first number of loan `at`: small enough to be exact.
fn first(at: u64) -> f32 {
    f32::from(u16::try_from(at % 0x1_0000).unwrap_or(0))
}

fn consume_loans((inbox, warm_up, total, cpu): Consumer<Receiver<Vec<f32>>>) -> Told {
    move_to(cpu);
    told(consume(warm_up, total, |at| Ok(fast::receive_loan(&inbox)? == (first(at), NUMBERS))))
}

/// 1 MiB loaned in place and left untouched, but for its first number.
///
/// # Errors
/// As [`roundtrip`].
pub fn loan_1m(plan: &Plan) -> Outcome<Duration> {
    let (outbox, inbox) = channel(slots(1 << 20))?;
    beside(plan, consume_loans, inbox, || {
        (0..u64::from(plan.total())).try_for_each(|at| fast::loan(&outbox, NUMBERS, first(at)))
    })
}

fn consume_records((inbox, warm_up, total, cpu): Consumer<Receiver<Record>>) -> Told {
    move_to(cpu);
    let mut expected = Expected::new();
    told(consume(warm_up, total, |at| {
        fast::read_record(&inbox, |record| fast::is_record(&mut expected, record, at))
    }))
}

/// The typed message, which the sender keeps, and the receiver validates and reads in place.
///
/// # Errors
/// As [`roundtrip`].
pub fn typed_1k(plan: &Plan) -> Outcome<Duration> {
    let (outbox, inbox) = channel(slots(1024))?;
    let mut record = Record::new();
    beside(plan, consume_records, inbox, || {
        (0..u64::from(plan.total())).try_for_each(|at| {
            record.sequence = at;
            send(&outbox, &record)
        })
    })
}

/// The typed message, sent and received by one thread.
///
/// # Errors
/// As [`roundtrip`].
pub fn typed_in_process(plan: &Plan) -> Outcome<Duration> {
    let (outbox, inbox) = channel(slots(1024))?;
    let mut expected = Expected::new();
    in_process(plan, |record| {
        send(&outbox, record)?;
        fast::read_record(&inbox, |read| fast::is_record(&mut expected, read, record.sequence))
    })
}

/// One of many: its number, its end, its share, where all meet, its CPU.
type OneOfMany<End> = (u32, End, u32, Shared<Barrier>, Cpu);

fn produce_one((number, outbox, total, meet, cpu): OneOfMany<Sender<Payload>>) -> Told {
    move_to(cpu);
    meet.wait().map_err(|error| error.to_string())?;
    let told = told(produce_share(number, total, |message| send(&outbox, &message)));
    meet.wait().map_err(|error| error.to_string())?;
    told
}

fn consume_one((_, inbox, total, meet, cpu): OneOfMany<Receiver<Payload>>) -> Told {
    move_to(cpu);
    meet.wait().map_err(|error| error.to_string())?;
    let told = told(consume_share(total, || receive(&inbox)));
    meet.wait().map_err(|error| error.to_string())?;
    told
}

/// Four producers and `CONSUMERS` consumers, a process each, on the two CPUs, with the blocking calls.
///
/// # Errors
/// As [`roundtrip`].
pub fn many<const CONSUMERS: u32>(plan: &Plan) -> Outcome<Duration> {
    let pinned = Pinned::to_first()?;
    let (outbox, inbox) = channel(slots(64))?;
    let meet = Barrier::shared(PRODUCERS + CONSUMERS + 1)?;
    let [sent, received] = shares(plan, CONSUMERS);
    // The first stays where this process is pinned; who waits for the end takes no time from it.
    let cpu = |number: u32| if number.is_multiple_of(2) { None } else { pinned.second() };
    let consumer =
        |number| Process::spawn(consume_one, (number, inbox.clone(), received, meet.clone(), cpu(number)));
    let producer =
        |number| Process::spawn(produce_one, (number, outbox.clone(), sent, meet.clone(), cpu(number)));
    let consumers = (0..CONSUMERS).map(consumer).collect::<Result<Vec<_>, _>>()?;
    let producers = (0..PRODUCERS).map(producer).collect::<Result<Vec<_>, _>>()?;
    drop((inbox, outbox));
    meet.wait()?;
    let start = Instant::now();
    meet.wait()?;
    let time = start.elapsed();
    for child in producers {
        joined(child, sent)?;
    }
    let mut marks = 0_u64;
    for child in consumers {
        marks = marks.wrapping_add(joined(child, received)?.marks);
    }
    let right = marks == expected_marks(PRODUCERS, sent);
    if right { Ok(time) } else { Err("some messages came twice and others not at all".into()) }
}

/// Open file descriptors of this process.
fn descriptors() -> Outcome<usize> {
    Ok(fs::read_dir("/proc/self/fd")?.count())
}

/// Makes channels of 64 slots of 64 bytes in a session of its own, keeps them, and tells the session's growth (as marks) and the time.
fn idle_channels(job: &Job) -> Outcome<Found> {
    // The session itself is no part of it.
    let first = channel::<Payload>(64)?;
    let (session, mut all) = (Session::current()?, Vec::with_capacity(usize::try_from(job.total)?));
    job.meet()?;
    let (bytes, open) = (session.committed_bytes()?, descriptors()?);
    let start = Instant::now();
    for _ in 0..job.total {
        all.push(channel::<Payload>(64)?);
    }
    let time = start.elapsed();
    let grown = session.committed_bytes()?.saturating_sub(bytes);
    if descriptors()? != open {
        return Err("channels hold file descriptors".into());
    }
    drop((first, all));
    Ok(Found { right: job.total, marks: grown, time })
}

/// Makes [`Plan::count`] channels in a session.
fn many_channels(plan: &Plan) -> Outcome<Found> {
    let pinned = Pinned::to_first()?;
    let job = Job { total: plan.count, ..Job::new("ours/idle_channels", 64, plan, &pinned) };
    let mut second = Second::start(job, &[])?;
    second.meet()?;
    second.join()
}

/// The time to make channels in one session; fails if any of them holds a file descriptor.
///
/// # Errors
/// As [`roundtrip`].
pub fn channel_creation(plan: &Plan) -> Outcome<Duration> {
    Ok(many_channels(plan)?.time)
}

/// The bytes of session that an idle channel of 64 slots of 64 bytes takes.
///
/// # Errors
/// As [`roundtrip`].
pub fn channel_memory(plan: &Plan) -> Outcome<f64> {
    // Far less than 2^52 bytes.
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^52")]
    let bytes = many_channels(plan)?.marks as f64;
    Ok(bytes / f64::from(plan.count))
}
