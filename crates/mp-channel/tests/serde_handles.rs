//! Handles inside of types that serde knows. One test alone in its process: it looks at the whole session.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, SendFailure, Sender, broadcast, channel, joinable, oneshot, pipe, request, spsc};
use mp_shm::codec::{DecodeError, EncodeError, Serde};
use mp_shm::frozen::FreezeError;
use mp_shm::references::HandleError;
use mp_shm::{AnyHandle, ArrayMut, Fd, Frozen, Part, Session, Shared};
use mp_spawn::{Process, ProcessHandle};
use mp_testkit::{LeakCheck, assert_no_backstop, watchdog};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[test]
fn b4_handles_travel_inside_of_what_serde_knows() {
    let _watchdog = watchdog(Duration::from_secs(150));
    // Stays until the process ends.
    let other = Session::create().unwrap();
    let leaks = LeakCheck::begin();
    nested();
    every_kind();
    three_hundred_among_others();
    a_value_that_fails_after_a_handle();
    a_value_that_panics_after_a_handle();
    decoding_that_fails_or_panics_half_way();
    a_handle_that_is_kept_by_who_fails();
    messages_inside_of_messages();
    another_kind();
    of_another_session(other);
    gone_before_it_is_sent();
    nowhere_else();
    where_no_handles_may_be();
    leaks.end();
    assert_no_backstop();
}

/// References there are. (Blocks, channels keep some of.)
fn counts() -> u64 {
    let audit = Session::current().unwrap().audit();
    assert!(audit.counts_are_right, "{audit:?}");
    audit.references
}

#[derive(Serialize, Deserialize)]
enum Request {
    Answer { to: Sender<u64>, with: u64 },
    All(BTreeMap<String, (Receiver<u64>, Option<Sender<u64>>)>),
}

fn serve(requests: Receiver<Serde<Request>>) -> Serde<Vec<(String, Receiver<u64>)>> {
    let mut receivers = Vec::new();
    for request in requests.iter() {
        match request.into_inner() {
            Request::Answer { to, with } => to.send(with + 1).unwrap(),
            Request::All(ends) => {
                for (name, (from, to)) in ends {
                    let _ = to.map(|to| to.send(name.len() as u64).unwrap());
                    receivers.push((name, from));
                }
            }
        }
    }
    Serde(receivers)
}

fn nested() {
    let (requests, receiver) = channel(4).unwrap();
    let child = Process::spawn(serve, receiver).unwrap();
    let (to, answers) = channel(1).unwrap();
    requests.send(Serde(Request::Answer { to, with: 41 })).unwrap();
    assert_eq!(answers.recv().unwrap(), 42);
    assert!(answers.recv().unwrap_err().is_disconnected(), "the child has dropped its sender");
    let ((first, first_out), (second, second_out)) = (channel(1).unwrap(), channel(1).unwrap());
    let all = [("one".to_owned(), (first_out, Some(second))), ("three".to_owned(), (second_out, None))];
    requests.send(Serde(Request::All(all.into()))).unwrap();
    first.send(9).unwrap();
    drop((requests, first));
    let back = child.join().unwrap().into_inner();
    let received: Vec<_> = back.iter().map(|(name, from)| (name.as_str(), from.recv().unwrap())).collect();
    assert_eq!(received, [("one", 9), ("three", 3)]);
    assert!(back[1].1.recv().unwrap_err().is_disconnected());
}

#[derive(Serialize, Deserialize)]
struct Everything {
    any: AnyHandle,
    shared: Shared<AtomicU64>,
    frozen: Frozen<Vec<String>>,
    fd: Fd,
    process: ProcessHandle,
    lane: spsc::Sender<u64>,
    once: oneshot::Sender<String>,
    pipe: pipe::Duplex,
    tasks: joinable::TaskReceiver<u64>,
    server: request::Server<u64, u64>,
    news: broadcast::Receiver<String>,
    part: Part<u64>,
}

fn use_everything(Serde(mut all): Serde<Everything>) -> u32 {
    all.any.open::<Sender<u64>>().unwrap().send(1).unwrap();
    all.shared.fetch_add(1, Ordering::Relaxed);
    assert_eq!(all.frozen[0], "frozen");
    assert!(std::fs::File::from(all.fd.open().unwrap()).metadata().is_ok());
    all.lane.send(2).unwrap();
    all.once.send("three".to_owned()).unwrap();
    assert_eq!(all.pipe.recv_bytes().unwrap(), [4; 4]);
    all.tasks.recv().unwrap().done();
    all.server.recv().unwrap().answer(6).unwrap();
    assert_eq!(all.news.recv().unwrap(), "seven");
    all.part.slice_mut().unwrap().fill(8);
    assert!(!all.process.open().unwrap().is_finished());
    all.process.pid()
}

fn every_kind() {
    let (numbers, numbers_out) = channel::<u64>(1).unwrap();
    let (lane, mut lane_out) = spsc::channel(1).unwrap();
    let (once, once_out) = oneshot::channel().unwrap();
    let (here, there) = pipe::duplex(2).unwrap();
    let (tasks, tasks_out) = joinable::channel(2).unwrap();
    let (client, server) = request::channel(2).unwrap();
    let (news, mut heard) = broadcast::channel::<String>(4).unwrap();
    let shared = Shared::<AtomicU64>::zeroed().unwrap();
    let (split, mut parts) = ArrayMut::<u64>::new(10).unwrap().split(1).unwrap();
    for text in ["six", "seven"] {
        news.send(&text.to_owned()).unwrap();
    }
    assert_eq!(heard.recv().unwrap(), "six");
    here.send_bytes(&[4; 4]).unwrap();
    tasks.send(5).unwrap();
    let all = Everything {
        any: AnyHandle::of(&numbers).unwrap(),
        shared: shared.clone(),
        frozen: Frozen::new(&vec!["frozen".to_owned()]).unwrap(),
        fd: Fd::new(std::fs::File::open("/dev/null").unwrap()).unwrap(),
        process: ProcessHandle::current().unwrap(),
        lane,
        once,
        pipe: there,
        tasks: tasks_out,
        server,
        news: heard,
        part: parts.remove(0),
    };
    let child = Process::spawn(use_everything, Serde(all)).unwrap();
    assert_eq!((numbers_out.recv().unwrap(), lane_out.recv().unwrap()), (1, 2));
    assert_eq!(once_out.recv().unwrap(), "three");
    tasks.join().unwrap();
    assert_eq!(client.call(1).unwrap(), 6);
    assert_eq!(child.join().unwrap(), std::process::id());
    assert_eq!(shared.load(Ordering::Relaxed), 1);
    let array = split.join().map_err(|_| "a part is in use").unwrap();
    assert_eq!(array.iter().sum::<u64>(), 80);
}

type Numbered =
    (Sender<u64>, Serde<Vec<(String, Sender<u64>)>>, Vec<Sender<u64>>, Serde<Option<Sender<u64>>>);

/// Handles of serde's and of rkyv's types count together; and more of them than a message of a socket could carry (253).
fn three_hundred_among_others() {
    fn number((first, second, third, Serde(last)): Numbered) -> usize {
        let all = [first].into_iter().chain(second.into_inner().into_iter().map(|one| one.1));
        let all = all.chain(third).chain(last);
        all.enumerate().map(|(n, sender)| sender.send(n as u64).unwrap()).count()
    }
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..303).map(|_| channel::<u64>(1).unwrap()).unzip();
    let mut senders = senders.into_iter();
    let first = senders.next().unwrap();
    let second: Vec<_> = senders.by_ref().take(300).map(|sender| ("x".repeat(9), sender)).collect();
    let message = (first, Serde(second), vec![senders.next().unwrap()], Serde(senders.next()));
    assert_eq!(Process::spawn(number, message).unwrap().join().unwrap(), 303);
    for (n, receiver) in (0..).zip(&receivers) {
        assert_eq!(receiver.recv().unwrap(), n);
        assert!(receiver.recv().unwrap_err().is_disconnected());
    }
}

thread_local! {
    /// What a [`Faulty`] does.
    static FAULT: Cell<Fault> = const { Cell::new(Fault::None) };
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    FailEncoding,
    PanicEncoding,
    FailDecoding,
    PanicDecoding,
}

fn with_fault<R>(fault: Fault, body: impl FnOnce() -> R) -> Result<R, String> {
    FAULT.set(fault);
    let result = catch_unwind(AssertUnwindSafe(body));
    FAULT.set(Fault::None);
    result.map_err(|panic| (*panic.downcast::<&str>().unwrap()).to_owned())
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct Faulty;

impl Serialize for Faulty {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match FAULT.get() {
            Fault::FailEncoding => Err(S::Error::custom("as asked")),
            Fault::PanicEncoding => panic!("encoding"),
            _ => serializer.serialize_unit(),
        }
    }
}

impl<'de> Deserialize<'de> for Faulty {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match FAULT.get() {
            Fault::FailDecoding => Err(D::Error::custom("as asked")),
            Fault::PanicDecoding => panic!("decoding"),
            _ => <()>::deserialize(deserializer).map(|()| Self),
        }
    }
}

type Some3 = Serde<Vec<(Option<Sender<u64>>, Faulty)>>;

fn some_of(sender: &Sender<u64>) -> Some3 {
    Serde([Some(sender), None, Some(sender)].map(|one| (one.cloned(), Faulty)).into())
}

/// The next message carries nothing of the one that failed.
fn the_next_is_clean(sender: &Sender<Some3>, receiver: &Receiver<Some3>, before: u64) {
    assert_eq!(counts(), before);
    let (own, own_out) = channel::<u64>(1).unwrap();
    sender.send(Serde(vec![(Some(own), Faulty), (None, Faulty)])).unwrap();
    let Serde(next) = receiver.recv().unwrap();
    next[0].0.as_ref().unwrap().send(77).unwrap();
    assert_eq!(own_out.recv().unwrap(), 77);
    drop(next);
    assert!(own_out.recv().unwrap_err().is_disconnected());
    sender.send(Serde(Vec::new())).unwrap();
    assert!(receiver.recv().unwrap().is_empty());
    drop(own_out);
    assert_eq!(counts(), before);
}

/// B2: what `ipc-channel` got wrong (its issue 257).
fn a_value_that_fails_after_a_handle() {
    let (sender, receiver) = channel::<Some3>(1).unwrap();
    let (report, reports) = channel::<u64>(1).unwrap();
    let before = counts();
    let error = with_fault(Fault::FailEncoding, || sender.send(some_of(&report))).unwrap().unwrap_err();
    assert!(matches!(error.failure, SendFailure::Encode(EncodeError::Value(_))), "{error:?}");
    assert_eq!(error.into_value().len(), 3);
    the_next_is_clean(&sender, &receiver, before);
    drop(report);
    assert!(reports.recv().unwrap_err().is_disconnected());
}

fn a_value_that_panics_after_a_handle() {
    let (sender, receiver) = channel::<Some3>(1).unwrap();
    let (report, reports) = channel::<u64>(1).unwrap();
    let before = counts();
    let panic = with_fault(Fault::PanicEncoding, || sender.send(some_of(&report)));
    assert_eq!(panic.unwrap_err(), "encoding");
    the_next_is_clean(&sender, &receiver, before);
    drop(report);
    assert!(reports.recv().unwrap_err().is_disconnected());
}

fn decoding_that_fails_or_panics_half_way() {
    let (sender, receiver) = channel::<Some3>(1).unwrap();
    // The same in a message of rkyv's around it, whose elements rkyv forgets.
    let (outer, outer_out) = channel::<Vec<(Sender<u64>, Some3)>>(1).unwrap();
    for fault in [Fault::FailDecoding, Fault::PanicDecoding] {
        let (report, reports) = channel::<u64>(1).unwrap();
        let before = counts();
        sender.send(some_of(&report)).unwrap();
        outer.send(vec![(report.clone(), Serde(Vec::new())), (report.clone(), some_of(&report))]).unwrap();
        let received = with_fault(fault, || receiver.recv().map(|_| ()));
        let outer_received = with_fault(fault, || outer_out.recv().map(|_| ()));
        if fault == Fault::PanicDecoding {
            assert_eq!(
                (received.unwrap_err(), outer_received.unwrap_err()),
                ("decoding".into(), "decoding".into())
            );
        } else {
            assert!(received.unwrap().is_err() && outer_received.unwrap().is_err());
        }
        the_next_is_clean(&sender, &receiver, before);
        drop(report);
        assert!(reports.recv().unwrap_err().is_disconnected(), "what was taken out is released");
    }
}

thread_local! {
    /// What a [`Keeper`] keeps.
    static KEPT: RefCell<Vec<Frozen<Vec<u64>>>> = const { RefCell::new(Vec::new()) };
}

/// Keeps its handle for itself, and then may fail.
#[derive(Serialize)]
struct Keeper(Frozen<Vec<u64>>, Faulty);

impl<'de> Deserialize<'de> for Keeper {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct First;

        impl<'de> serde::de::Visitor<'de> for First {
            type Value = Keeper;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a keeper")
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Keeper, A::Error> {
                let frozen: Frozen<Vec<u64>> = seq.next_element()?.unwrap();
                KEPT.with_borrow_mut(|kept| kept.push(frozen.clone()));
                Ok(Keeper(frozen, seq.next_element()?.unwrap()))
            }
        }
        deserializer.deserialize_tuple(2, First)
    }
}

/// What is kept stays good: its memory is not given to others.
fn a_handle_that_is_kept_by_who_fails() {
    let (sender, receiver) = channel::<Serde<Keeper>>(1).unwrap();
    // Not dropped, so that what is free is used again.
    let mut others = Vec::new();
    let before = counts();
    for fault in [Fault::FailDecoding, Fault::PanicDecoding] {
        sender.send(Serde(Keeper(Frozen::new(&vec![7; 4]).unwrap(), Faulty))).unwrap();
        assert!(with_fault(fault, || receiver.recv()).ok().is_none_or(|received| received.is_err()));
        assert_eq!(counts(), before + others.len() as u64 + 1, "who keeps it holds it");
        others.extend((0..100).map(|_| Frozen::new(&vec![0_u64; 4]).unwrap()));
        KEPT.with_borrow(|kept| assert_eq!(kept[0].as_slice(), [7; 4]));
        KEPT.take();
        assert_eq!(counts(), before + others.len() as u64);
    }
}

thread_local! {
    /// Where a [`Sending`] sends another message, and takes one from.
    static ASIDE: RefCell<Option<(Sender<Some3>, Receiver<Some3>)>> = const { RefCell::new(None) };
}

/// A value that sends a message of its own while it is encoded, and receives one while it is decoded.
struct Sending(Sender<u64>);

impl Serialize for Sending {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ASIDE.with_borrow(|aside| aside.as_ref().unwrap().0.send(some_of(&self.0)).unwrap());
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Sending {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Serde(aside) = ASIDE.with_borrow(|aside| aside.as_ref().unwrap().1.recv().unwrap());
        aside[2].0.as_ref().unwrap().send(1).unwrap();
        Sender::deserialize(deserializer).map(Self)
    }
}

fn messages_inside_of_messages() {
    let (sender, receiver) = channel::<Serde<(Sender<u64>, Sending, Sender<u64>)>>(1).unwrap();
    let (aside, aside_out) = channel(2).unwrap();
    let ends: [_; 4] = std::array::from_fn(|_| channel::<u64>(2).unwrap());
    let [first, second, third, early] = ends.each_ref().map(|(sender, _)| sender.clone());
    // One is sent outside and received inside, the next the other way round.
    aside.send(some_of(&early)).unwrap();
    drop(early);
    ASIDE.set(Some((aside, aside_out.clone())));
    sender.send(Serde((first, Sending(second), third))).unwrap();
    let Serde((first, Sending(second), third)) = receiver.recv().unwrap();
    for (n, sender) in [first, second, third].iter().enumerate() {
        sender.send(10 + n as u64).unwrap();
    }
    let Serde(sent_inside) = aside_out.recv().unwrap();
    sent_inside[0].0.as_ref().unwrap().send(2).unwrap();
    let received = ends.each_ref().map(|(_, receiver)| receiver.try_iter().collect::<Vec<_>>());
    assert_eq!(received, [vec![10], vec![11, 2], vec![12], vec![1]]);
    ASIDE.set(None);
}

fn another_kind() {
    let (writer, reader) = mp_channel::dynamic::channel(1).unwrap();
    let (report, reports) = channel::<u64>(1).unwrap();
    let before = counts();
    let send = || writer.send([0; 4], &Serde((report.clone(), report.clone()))).unwrap();
    let refused = |error| matches!(error, DecodeError::Handle(HandleError::Stale | HandleError::OtherType));
    send();
    assert!(refused(reader.recv().unwrap().decode::<Serde<(Sender<u64>, Fd)>>().unwrap_err()));
    send();
    assert!(refused(reader.recv().unwrap().decode::<Serde<(Sender<u64>, Sender<i64>)>>().unwrap_err()));
    // Indexes that there are not, or that were taken.
    for indexes in [[0_u32, 0], [9, 9]] {
        writer.send([0; 4], &(Serde(indexes), report.clone())).unwrap();
        let message = reader.recv().unwrap();
        let error = message.decode::<(Serde<(Sender<u64>, Sender<u64>)>, Sender<u64>)>().unwrap_err();
        assert!(matches!(error, DecodeError::Handle(HandleError::Stale | HandleError::Taken)), "{error:?}");
    }
    writer.send([0; 4], &Serde([0_u32; 2])).unwrap();
    assert!(refused(reader.recv().unwrap().decode::<Serde<(Sender<u64>, Sender<u64>)>>().unwrap_err()));
    assert_eq!(counts(), before);
    drop(report);
    assert!(reports.recv().unwrap_err().is_disconnected());
}

fn of_another_session(other: Session) {
    let (foreign, foreign_out) = mp_channel::channel_in::<u64>(other, 1).unwrap();
    let (sender, receiver) = channel::<Some3>(1).unwrap();
    let before = counts();
    let error = sender.send(some_of(&foreign)).unwrap_err();
    let failure =
        matches!(error.failure, SendFailure::Encode(EncodeError::Handle(HandleError::OtherSession { .. })));
    assert!(failure, "{error:?}");
    drop((error, foreign));
    the_next_is_clean(&sender, &receiver, before);
    assert!(foreign_out.recv().unwrap_err().is_disconnected());
}

/// Makes a handle only to serialise it.
struct Fleeting;

impl Serialize for Fleeting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        channel::<u64>(1).unwrap().0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Fleeting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Sender::<u64>::deserialize(deserializer).map(|_| Self)
    }
}

fn gone_before_it_is_sent() {
    let (sender, receiver) = channel::<Serde<Option<Fleeting>>>(1).unwrap();
    let before = counts();
    let error = sender.send(Serde(Some(Fleeting))).unwrap_err();
    assert!(
        matches!(error.failure, SendFailure::Encode(EncodeError::Handle(HandleError::Stale))),
        "{error:?}"
    );
    assert_eq!(counts(), before);
    sender.send(Serde(None)).unwrap();
    assert!(receiver.recv().unwrap().is_none());
}

fn nowhere_else() {
    let (sender, _receiver) = channel::<u64>(1).unwrap();
    let error = serde_json::to_string(&vec![Some(sender)]).unwrap_err();
    assert_eq!(error.to_string(), "a handle can be serialised only inside of a message");
    let error = serde_json::from_str::<Vec<Sender<u64>>>("[0]").unwrap_err();
    assert!(
        error.to_string().starts_with("a handle can be deserialised only inside of a message"),
        "{error}"
    );
    assert!(serde_json::from_str::<AnyHandle>("0").is_err());
}

fn where_no_handles_may_be() {
    let (report, _reports) = channel::<u64>(1).unwrap();
    let before = counts();
    assert!(matches!(Frozen::new(&some_of(&report)).unwrap_err(), FreezeError::Handles));
    let (news, _heard) = broadcast::channel::<Some3>(2).unwrap();
    assert!(matches!(news.send(&some_of(&report)).unwrap_err(), SendFailure::Handles));
    drop((news, _heard));
    assert_eq!(counts(), before);
}
