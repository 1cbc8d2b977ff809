//! Ends of channels inside messages, at any depth and in any number.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, Sender, channel};
use mp_shm::rkyv;
use mp_spawn::Process;
use mp_testkit::{LeakCheck, assert_no_backstop, watchdog};
use std::collections::BTreeMap;
use std::time::Duration;

type Nested = Vec<Option<(String, Sender<u64>)>>;

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
enum Request {
    Answer { to: Sender<u64>, with: u64 },
    Pump { from: Receiver<u64>, to: Box<Sender<u64>> },
    All(BTreeMap<String, (Receiver<u64>, Sender<u64>)>),
}

#[test]
fn b4_ends_travel_inside_messages() {
    let _watchdog = watchdog(Duration::from_secs(120));
    let leaks = LeakCheck::begin();
    nested();
    three_hundred();
    requests();
    through_three_channels();
    unread_and_unwanted();
    leaks.end();
    assert_no_backstop();
}

fn answer_nested(receiver: Receiver<Nested>) -> usize {
    let mut count = 0;
    for nested in receiver.iter() {
        for (name, sender) in nested.into_iter().flatten() {
            sender.send(name.len() as u64).unwrap();
            count += 1;
        }
    }
    count
}

fn nested() {
    let (sender, receiver) = channel::<Nested>(4).unwrap();
    let child = Process::spawn(answer_nested, receiver).unwrap();
    let (report, reports) = channel(64).unwrap();
    let names = ["", "a", "twelve bytes", "a name that is too long to be stored inline"];
    let mut expected = Vec::new();
    for count in 0..5 {
        let one = |n: usize| (n % 3 != 1).then(|| (names[n % 4].to_owned(), report.clone()));
        let nested: Nested = (0..count).map(one).collect();
        expected.extend(nested.iter().flatten().map(|(name, _)| name.len() as u64));
        sender.send(nested).unwrap();
    }
    drop((sender, report));
    assert!(reports.iter().eq(expected.iter().copied()), "then the child has dropped all of them");
    assert_eq!(child.join().unwrap(), expected.len());
}

/// More than a message of a socket could carry (253).
fn three_hundred() {
    let (sender, receiver) = channel::<Nested>(1).unwrap();
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..300).map(|_| channel::<u64>(1).unwrap()).unzip();
    let child = Process::spawn(answer_nested, receiver).unwrap();
    let nested = senders.into_iter().enumerate().map(|(n, sender)| Some(("x".repeat(n), sender)));
    sender.send(nested.collect()).unwrap();
    drop(sender);
    for (n, receiver) in (0..).zip(&receivers) {
        assert_eq!(receiver.recv().unwrap(), n);
        assert!(receiver.recv().unwrap_err().is_disconnected());
    }
    assert_eq!(child.join().unwrap(), 300);
}

fn serve(requests: Receiver<Request>) -> u32 {
    let mut served = 0;
    for request in requests.iter() {
        match request {
            Request::Answer { to, with } => to.send(with + 1).unwrap(),
            Request::Pump { from, to } => from.iter().for_each(|n| to.send(n * 2).unwrap()),
            Request::All(pairs) => {
                for (name, (from, to)) in pairs {
                    to.send(from.recv().unwrap() + name.len() as u64).unwrap();
                }
            }
        }
        served += 1;
    }
    served
}

fn requests() {
    let (requests, receiver) = channel(2).unwrap();
    let server = Process::spawn(serve, receiver).unwrap();

    let (to, answers) = channel(1).unwrap();
    requests.send(Request::Answer { to, with: 41 }).unwrap();
    assert_eq!(answers.recv().unwrap(), 42);
    assert!(answers.recv().unwrap_err().is_disconnected(), "the server has dropped its sender");

    let (feed, from) = channel(1).unwrap();
    let (to, answers) = channel(1).unwrap();
    requests.send(Request::Pump { from, to: Box::new(to) }).unwrap();
    for n in 0..100 {
        feed.send(n).unwrap();
        assert_eq!(answers.recv().unwrap(), n * 2);
    }
    drop(feed);
    assert!(answers.recv().unwrap_err().is_disconnected());

    // Both ends of one channel in one message.
    let (to, from) = channel(4).unwrap();
    to.send(10).unwrap();
    let (other_to, other_from) = channel(4).unwrap();
    other_to.send(20).unwrap();
    let pairs = [("ab".to_owned(), (from.clone(), to)), ("cde".to_owned(), (other_from.clone(), other_to))];
    requests.send(Request::All(pairs.into())).unwrap();
    drop(requests);
    assert_eq!(server.join().unwrap(), 3);
    assert_eq!(from.recv().unwrap(), 12);
    assert_eq!(other_from.recv().unwrap(), 23);
}

/// An end inside of a message of a channel whose end is inside of a message.
fn through_three_channels() {
    let (outer, outer_end) = channel::<Receiver<Receiver<u64>>>(1).unwrap();
    let (middle, middle_end) = channel::<Receiver<u64>>(1).unwrap();
    let (inner, inner_end) = channel::<u64>(1).unwrap();
    inner.send(5).unwrap();
    middle.send(inner_end).unwrap();
    outer.send(middle_end).unwrap();
    drop((inner, middle, outer));
    let take =
        |outer: Receiver<Receiver<Receiver<u64>>>| outer.recv().unwrap().recv().unwrap().recv().unwrap();
    assert_eq!(Process::spawn(take, outer_end).unwrap().join().unwrap(), 5);
}

/// Messages with ends that nobody ever receives are dropped with their channel, and so are the ends.
fn unread_and_unwanted() {
    let (report, reports) = channel::<u64>(1).unwrap();
    let (sender, receiver) = channel::<Nested>(8).unwrap();
    for _ in 0..8 {
        sender.send(vec![Some(("x".repeat(10_000), report.clone())), None]).unwrap();
    }
    let error = sender.try_send(vec![Some((String::new(), report))]).unwrap_err();
    assert!(error.is_full());
    assert_eq!(error.into_value().len(), 1);
    assert!(reports.try_recv().unwrap_err().is_empty(), "senders are in the queue");
    drop(sender);
    assert!(reports.try_recv().unwrap_err().is_empty(), "and stay there");
    drop(receiver);
    assert!(reports.try_recv().unwrap_err().is_disconnected(), "they are gone with the queue");
}
