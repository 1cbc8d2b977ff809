//! Peer: iceoryx2, publish and subscribe with loaned samples. Subscribers poll; a publisher retries until a sample is delivered, so that
//! none is lost.
//!
//! Its files have names of their own for each contestant run, and are removed in the end.
#![expect(unsafe_code, reason = "a loan is sent without being written")]

use super::contest::{
    PRODUCERS, consume, consume_share, expected_marks, ping, pong, produce, produce_share, shares, slots,
};
use super::{Role, by_size, start_all};
use crate::Outcome;
use crate::latency::Trips;
use crate::machine::Pinned;
use crate::measure::Plan;
use crate::memory::wait_until;
use crate::payload;
use crate::second::{Found, Job, Second, check, spins, together};
use iceoryx2::config::Config;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use iceoryx2::service::port_factory::publish_subscribe::PortFactory;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

pub(super) const ROLES: &[Role] = &[
    ("iceoryx/echo", |job| by_size!(job.size, echo(job))),
    ("iceoryx/consume", |job| by_size!(job.size, consume_all(job))),
    ("iceoryx/consume_loans", consume_loans),
    ("iceoryx/produce_one", produce_one),
    ("iceoryx/consume_one", consume_one),
];

type Service<const SIZE: usize> = PortFactory<ipc::Service, [u8; SIZE], ()>;
type Sending<const SIZE: usize> = Publisher<ipc::Service, [u8; SIZE], ()>;
type Taking<const SIZE: usize> = Subscriber<ipc::Service, [u8; SIZE], ()>;

/// The places where the peer's files are, removed in the end.
struct Site(String);

impl Site {
    fn new() -> Outcome<Self> {
        let site = Self(format!("mp-benches-iceoryx-{}-", std::process::id()));
        fs::create_dir_all(root(&site.0))?;
        Ok(site)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // What is not there need not be removed.
        let _ = fs::remove_dir_all(root(&self.0));
        for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&self.0) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

fn root(name: &str) -> PathBuf {
    PathBuf::from(format!("/tmp/{name}root"))
}

/// A node whose files are at the site of this name.
fn node(name: &str) -> Outcome<Node<ipc::Service>> {
    set_log_level(LogLevel::Error);
    let mut config = Config::default();
    config.global.prefix = FileName::new(name.as_bytes())?;
    config.global.set_root_path(&Path::new(root(name).to_string_lossy().as_bytes())?);
    let builder = NodeBuilder::new().signal_handling_mode(SignalHandlingMode::Disabled);
    Ok(builder.config(&config).create::<ipc::Service>()?)
}

fn service<const SIZE: usize>(node: &Node<ipc::Service>, name: &str) -> Outcome<Service<SIZE>> {
    let builder = node.service_builder(&name.try_into()?).publish_subscribe::<[u8; SIZE]>();
    let service = builder
        .enable_safe_overflow(false)
        .history_size(0)
        .subscriber_max_buffer_size(slots(SIZE))
        .max_publishers(usize::try_from(PRODUCERS)?)
        .max_subscribers(1)
        .max_nodes(16)
        .open_or_create()?;
    Ok(service)
}

fn publisher<const SIZE: usize>(service: &Service<SIZE>) -> Outcome<Sending<SIZE>> {
    let builder = service.publisher_builder();
    Ok(builder.backpressure_strategy(BackpressureStrategy::RetryUntilDelivered).create()?)
}

fn subscriber<const SIZE: usize>(service: &Service<SIZE>) -> Outcome<Taking<SIZE>> {
    Ok(service.subscriber_builder().create()?)
}

fn try_send<const SIZE: usize>(publisher: &Sending<SIZE>, message: &[u8; SIZE]) -> Outcome<usize> {
    Ok(publisher.loan_uninit()?.write_payload(*message).send()?)
}

fn send<const SIZE: usize>(publisher: &Sending<SIZE>, message: &[u8; SIZE]) -> Outcome<()> {
    // A subscriber that has not yet seen this publisher takes as many as the buffer holds; those behind would be lost.
    let mut receivers = Ok(0);
    wait_until(0, || {
        receivers = try_send(publisher, message);
        !matches!(receivers, Ok(0))
    })?;
    receivers.map(drop)
}

/// Lets `look` read the next sample in place.
fn read<const SIZE: usize, R>(
    subscriber: &Taking<SIZE>,
    spins: u32,
    look: impl FnOnce(&[u8; SIZE]) -> R,
) -> Outcome<R> {
    let mut next = Ok(None);
    wait_until(spins, || {
        next = subscriber.receive();
        !matches!(next, Ok(None))
    })?;
    Ok(look(next?.ok_or("no sample")?.payload()))
}

fn is_right<const SIZE: usize>(subscriber: &Taking<SIZE>, spins: u32, sequence: u64) -> Outcome<bool> {
    read(subscriber, spins, |bytes| payload::is_marked::<SIZE>(bytes, sequence))
}

fn echo<const SIZE: usize>(job: &Job) -> Outcome<Found> {
    let node = node(job.word(0)?)?;
    let (there, back) = (service::<SIZE>(&node, "ping")?, service::<SIZE>(&node, "pong")?);
    let (inbox, outbox) = (subscriber(&there)?, publisher(&back)?);
    job.meet()?;
    pong(job.total, |at| is_right(&inbox, job.spins, at), |message| send(&outbox, message))
}

fn consume_all<const SIZE: usize>(job: &Job) -> Outcome<Found> {
    let node = node(job.word(0)?)?;
    let inbox = subscriber(&service::<SIZE>(&node, "ring")?)?;
    job.meet()?;
    consume(job.warm_up, job.total, |at| is_right(&inbox, job.spins, at))
}

fn consume_loans(job: &Job) -> Outcome<Found> {
    let node = node(job.word(0)?)?;
    let inbox = subscriber(&service::<LOAN>(&node, "ring")?)?;
    job.meet()?;
    consume(job.warm_up, job.total, |at| {
        read(&inbox, job.spins, |bytes| bytes.starts_with(&payload::mark(at).to_ne_bytes()))
    })
}

fn produce_one(job: &Job) -> Outcome<Found> {
    let node = node(job.word(0)?)?;
    let outbox = publisher(&service::<64>(&node, "ring")?)?;
    job.meet()?;
    let found = produce_share(job.number, job.total, |message| send(&outbox, &message))?;
    // Samples lie in the publisher's memory: it stays until all are read.
    job.wait_end()?;
    Ok(found)
}

fn consume_one(job: &Job) -> Outcome<Found> {
    let node = node(job.word(0)?)?;
    let inbox = subscriber(&service::<64>(&node, "ring")?)?;
    job.meet()?;
    consume_share(job.total, || read(&inbox, job.spins, |bytes| *bytes))
}

/// Round trips through two services.
///
/// # Errors
/// When the second process fails, or a message is wrong; so do all here.
pub fn roundtrip<const SIZE: usize>(plan: &Plan) -> Outcome<Trips> {
    let pinned = Pinned::to_first()?;
    let site = Site::new()?;
    let node = node(&site.0)?;
    let (there, back) = (service::<SIZE>(&node, "ping")?, service::<SIZE>(&node, "pong")?);
    let (outbox, inbox) = (publisher(&there)?, subscriber(&back)?);
    let mut second = Second::start(Job::trips("iceoryx/echo", SIZE, plan, &pinned).at(&site.0), &[])?;
    second.meet()?;
    let take = |at| is_right(&inbox, spins(&pinned), at);
    let trips = ping(plan, |message| send(&outbox, message), take)?;
    check(second.join()?.right, plan.trips())?;
    Ok(trips)
}

/// Runs `work` beside a consumer.
fn beside<const SIZE: usize>(
    plan: &Plan,
    role: &str,
    work: impl FnOnce(&Sending<SIZE>) -> Outcome<()>,
) -> Outcome<Duration> {
    let pinned = Pinned::to_first()?;
    let site = Site::new()?;
    let node = node(&site.0)?;
    let outbox = publisher(&service::<SIZE>(&node, "ring")?)?;
    let mut second = Second::start(Job::new(role, SIZE, plan, &pinned).at(&site.0), &[])?;
    second.meet()?;
    work(&outbox)?;
    // The publisher, in whose memory the samples lie, stays until all are read.
    Ok(second.join()?.time)
}

/// Messages through a service.
///
/// # Errors
/// As [`roundtrip`].
pub fn throughput<const SIZE: usize>(plan: &Plan) -> Outcome<Duration> {
    beside::<SIZE>(plan, "iceoryx/consume", |outbox| produce(plan.total(), |message| send(outbox, message)))
}

/// Bytes of a loan.
const LOAN: usize = 1 << 20;

/// 1 MiB loaned and left untouched, but for its first word.
///
/// # Errors
/// As [`roundtrip`].
pub fn loan_1m(plan: &Plan) -> Outcome<Duration> {
    beside::<LOAN>(plan, "iceoryx/consume_loans", |outbox| {
        for at in 0..u64::from(plan.total()) {
            let mut sample = outbox.loan_uninit()?;
            let first = sample.payload_mut().as_mut_ptr().cast::<[u8; 8]>();
            // SAFETY: the loan has 1 MiB, and is this process's until it is sent.
            unsafe { first.write(payload::mark(at).to_ne_bytes()) };
            // SAFETY: the loan is mapped memory of the peer's, which has some value in each byte, and every value of a byte is valid.
            let sample = unsafe { sample.assume_init() };
            sample.send()?;
        }
        Ok(())
    })
}

/// Four producers, one consumer.
///
/// # Errors
/// As [`roundtrip`].
pub fn four_to_one(plan: &Plan) -> Outcome<Duration> {
    let pinned = Pinned::to_first()?;
    let site = Site::new()?;
    let node = node(&site.0)?;
    let _ring = service::<64>(&node, "ring")?;
    let [sent, received] = shares(plan, 1);
    // Many share a CPU: looking again before others ran does not help.
    let job = |role| Job { spins: 0, ..Job::new(role, 64, plan, &pinned).at(&site.0) };
    let start = |job| Second::start(job, &[]);
    let consumers = start_all(&job("iceoryx/consume_one"), 1, received, start)?;
    let producers = start_all(&job("iceoryx/produce_one"), PRODUCERS, sent, start)?;
    together(consumers, producers, expected_marks(PRODUCERS, sent))
}
