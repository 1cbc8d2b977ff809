//! Peer: ipc-channel, as bytes and typed. On Linux a channel is a Unix socket.
//!
//! A second process gets its ends through the crate's one-shot server: it connects with a channel of its own, through which they come.

use super::contest::{
    PRODUCERS, consume, consume_share, expected_marks, ping, pong, produce, produce_share, shares,
};
use super::typed::{Expected, Record};
use super::{Role, by_size, start_all};
use crate::Outcome;
use crate::latency::Trips;
use crate::machine::Pinned;
use crate::measure::Plan;
use crate::payload;
use crate::second::{Found, Job, Second, check, together};
use ipc_channel::ipc::{self, IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcReceiver, IpcSender};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::rc::Rc;
use std::time::Duration;

pub(super) const ROLES: &[Role] = &[
    ("ipc_channel/echo", |job| by_size!(job.size, echo(job))),
    ("ipc_channel/consume", |job| by_size!(job.size, consume_all(job))),
    ("ipc_channel/consume_typed", consume_typed),
    ("ipc_channel/produce_one", produce_one),
    ("ipc_channel/consume_one", consume_one),
];

/// Starts a second process and hands it its ends.
fn start<Ends>(job: Job, ends: Ends) -> Outcome<Second>
where
    Ends: Serialize + for<'a> Deserialize<'a>,
{
    let (server, name) = IpcOneShotServer::<IpcSender<Ends>>::new()?;
    let second = Second::start(job.at(name), &[])?;
    let (_, hand_over) = server.accept()?;
    hand_over.send(ends)?;
    Ok(second)
}

/// The ends of a second process.
fn ends<Ends>(job: &Job) -> Outcome<Ends>
where
    Ends: Serialize + for<'a> Deserialize<'a>,
{
    let (sender, receiver) = ipc::channel::<Ends>()?;
    IpcSender::connect(job.word(0)?.to_owned())?.send(sender)?;
    Ok(receiver.recv()?)
}

fn send(sender: &IpcBytesSender, message: &[u8]) -> Outcome<()> {
    Ok(sender.send(message)?)
}

fn is_right<const SIZE: usize>(receiver: &IpcBytesReceiver, sequence: u64) -> Outcome<bool> {
    Ok(payload::is_marked::<SIZE>(&receiver.recv()?, sequence))
}

/// A typed message that its sender keeps: `send` takes a message away, and without this it would have to be copied first.
struct Kept(Rc<Record>);

impl Serialize for Kept {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'a> Deserialize<'a> for Kept {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Rc::new(Record::deserialize(deserializer)?)))
    }
}

fn echo<const SIZE: usize>(job: &Job) -> Outcome<Found> {
    let (inbox, outbox) = ends::<(IpcBytesReceiver, IpcBytesSender)>(job)?;
    job.meet()?;
    pong::<SIZE>(job.total, |at| is_right::<SIZE>(&inbox, at), |message| send(&outbox, message))
}

fn consume_all<const SIZE: usize>(job: &Job) -> Outcome<Found> {
    let inbox = ends(job)?;
    job.meet()?;
    consume(job.warm_up, job.total, |at| is_right::<SIZE>(&inbox, at))
}

fn consume_typed(job: &Job) -> Outcome<Found> {
    let (inbox, mut expected) = (ends::<IpcReceiver<Kept>>(job)?, Expected::new());
    job.meet()?;
    consume(job.warm_up, job.total, |at| Ok(expected.is(&inbox.recv()?.0, at)))
}

fn produce_one(job: &Job) -> Outcome<Found> {
    let outbox = ends(job)?;
    job.meet()?;
    produce_share(job.number, job.total, |message| send(&outbox, &message))
}

fn consume_one(job: &Job) -> Outcome<Found> {
    let inbox: IpcBytesReceiver = ends(job)?;
    job.meet()?;
    consume_share(job.total, || Ok(inbox.recv()?.try_into().unwrap_or([0xff; 64])))
}

/// Round trips through two channels.
///
/// # Errors
/// When the second process fails, or a message is wrong; so do all here.
pub fn roundtrip<const SIZE: usize>(plan: &Plan) -> Outcome<Trips> {
    let pinned = Pinned::to_first()?;
    let ((outbox, there), (back, inbox)) = (ipc::bytes_channel()?, ipc::bytes_channel()?);
    let mut second = start(Job::trips("ipc_channel/echo", SIZE, plan, &pinned), (there, back))?;
    second.meet()?;
    let take = |at| is_right::<SIZE>(&inbox, at);
    let trips = ping::<SIZE>(plan, |message| send(&outbox, message), take)?;
    check(second.join()?.right, plan.trips())?;
    Ok(trips)
}

/// Messages through a channel.
///
/// # Errors
/// As [`roundtrip`].
pub fn throughput<const SIZE: usize>(plan: &Plan) -> Outcome<Duration> {
    let pinned = Pinned::to_first()?;
    let (outbox, inbox) = ipc::bytes_channel()?;
    let mut second = start(Job::new("ipc_channel/consume", SIZE, plan, &pinned), inbox)?;
    second.meet()?;
    produce::<SIZE>(plan.total(), |message| send(&outbox, message))?;
    Ok(second.join()?.time)
}

/// The typed message.
///
/// # Errors
/// As [`roundtrip`].
pub fn typed_1k(plan: &Plan) -> Outcome<Duration> {
    let pinned = Pinned::to_first()?;
    let (outbox, inbox) = ipc::channel::<Kept>()?;
    let mut second = start(Job::new("ipc_channel/consume_typed", 1024, plan, &pinned), inbox)?;
    second.meet()?;
    let mut record = Rc::new(Record::new());
    for at in 0..u64::from(plan.total()) {
        Rc::get_mut(&mut record).ok_or("the peer kept a message")?.sequence = at;
        outbox.send(Kept(record.clone()))?;
    }
    Ok(second.join()?.time)
}

/// Four producers, one consumer.
///
/// # Errors
/// As [`roundtrip`].
pub fn four_to_one(plan: &Plan) -> Outcome<Duration> {
    let pinned = Pinned::to_first()?;
    let (outbox, inbox) = ipc::bytes_channel()?;
    let [sent, received] = shares(plan, 1);
    let consumer = Job { total: received, ..Job::new("ipc_channel/consume_one", 64, plan, &pinned) };
    let producer = Job::new("ipc_channel/produce_one", 64, plan, &pinned);
    let consumers = vec![start(consumer, inbox)?];
    let producers = start_all(&producer, PRODUCERS, sent, |job| start(job, outbox.clone()))?;
    together(consumers, producers, expected_marks(PRODUCERS, sent))
}
