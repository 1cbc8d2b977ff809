//! A thousand handles of all kinds in one message, and what a message with so many loses when it fails: nothing.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, SendFailure, Sender, channel, spsc};
use mp_shm::codec::EncodeError;
use mp_shm::rkyv::rancor::{Fallible, Source};
use mp_shm::rkyv::with::{ArchiveWith, DeserializeWith, SerializeWith};
use mp_shm::rkyv::{self, Place};
use mp_shm::{Array, Frozen, Session, Shared, Value};
use mp_spawn::Process;
use mp_sync::Mutex;
use mp_testkit::{LeakCheck, assert_no_backstop, watchdog};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

const OF_EACH: u64 = 125;

#[derive(Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
enum Handle {
    Sender(Sender<u64>),
    Receiver(Receiver<u64>),
    Lock(Shared<Mutex<u64>>),
    Value(Value<u64>),
    Array(Box<Array<u32>>),
    Frozen(Frozen<Vec<u64>>),
    LaneSender(spsc::Sender<u64>),
    LaneReceiver(spsc::Receiver<u64>),
}

/// Handles in a map of vectors of options, and last what decides whether it can be encoded.
#[derive(Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct All {
    handles: BTreeMap<u64, Vec<Option<Handle>>>,
    #[rkyv(with = Decides)]
    fails: bool,
}

impl All {
    fn count(&self) -> usize {
        self.handles.values().flatten().flatten().count()
    }
}

struct Decides;

#[derive(Debug)]
struct NotToday;

impl fmt::Display for NotToday {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not today")
    }
}

impl std::error::Error for NotToday {}

impl ArchiveWith<bool> for Decides {
    type Archived = bool;
    type Resolver = ();

    fn resolve_with(field: &bool, (): (), out: Place<bool>) {
        rkyv::Archive::resolve(field, (), out);
    }
}

impl<S: Fallible<Error: Source> + ?Sized> SerializeWith<bool, S> for Decides {
    fn serialize_with(fails: &bool, _: &mut S) -> Result<(), S::Error> {
        if *fails { Err(S::Error::new(NotToday)) } else { Ok(()) }
    }
}

impl<D: Fallible + ?Sized> DeserializeWith<bool, bool, D> for Decides {
    fn deserialize_with(field: &bool, _: &mut D) -> Result<bool, D::Error> {
        Ok(*field)
    }
}

/// What the maker of a message keeps of it: the other ends, or the same things.
struct Kept {
    receiver: Receiver<u64>,
    sender: Sender<u64>,
    lock: Shared<Mutex<u64>>,
    value: Value<u64>,
    array: Array<u32>,
    lane_receiver: spsc::Receiver<u64>,
    lane_sender: spsc::Sender<u64>,
}

fn make() -> (All, Vec<Kept>) {
    let (mut handles, mut kept) = (BTreeMap::new(), Vec::new());
    for number in 0..OF_EACH {
        let (to_us, receiver) = channel(1).unwrap();
        let (sender, from_us) = channel(1).unwrap();
        let (lane_to_us, lane_receiver) = spsc::channel(1).unwrap();
        let (mut lane_sender, lane_from_us) = spsc::channel(1).unwrap();
        let (lock, value) = (Mutex::shared(number).unwrap(), Value::new(number).unwrap());
        let array = Array::from_slice(&[1, 2, 3]).unwrap();
        sender.send(number).unwrap();
        lane_sender.send(number).unwrap();
        let these = vec![
            Some(Handle::Sender(to_us)),
            Some(Handle::Receiver(from_us)),
            None,
            Some(Handle::Lock(lock.clone())),
            Some(Handle::Value(value.clone())),
            Some(Handle::Array(Box::new(array.clone()))),
            Some(Handle::Frozen(Frozen::new(&vec![number; 20]).unwrap())),
            Some(Handle::LaneSender(lane_to_us)),
            Some(Handle::LaneReceiver(lane_from_us)),
        ];
        handles.insert(number, these);
        kept.push(Kept { receiver, sender, lock, value, array, lane_receiver, lane_sender });
    }
    (All { handles, fails: false }, kept)
}

/// Uses each handle once, in a way that the maker can see.
fn use_each(all: All) -> usize {
    let mut used = 0;
    for (number, handles) in all.handles {
        for handle in handles.into_iter().flatten() {
            match handle {
                Handle::Sender(end) => end.send(number + 1).unwrap(),
                Handle::Receiver(end) => assert_eq!(end.recv().unwrap(), number),
                Handle::Lock(lock) => *lock.lock().unwrap() += 1,
                Handle::Value(value) => value.set(value.get() + 1),
                Handle::Array(array) => array.set(1, 7),
                Handle::Frozen(words) => assert!(words.iter().all(|word| *word == number)),
                Handle::LaneSender(mut end) => end.send(number + 2).unwrap(),
                Handle::LaneReceiver(mut end) => assert_eq!(end.recv().unwrap(), number),
            }
            used += 1;
        }
    }
    used
}

fn check(kept: Vec<Kept>) {
    for (number, mut one) in (0..).zip(kept) {
        assert_eq!(one.receiver.recv().unwrap(), number + 1);
        assert!(one.receiver.recv().unwrap_err().is_disconnected());
        assert!(one.sender.send(0).unwrap_err().is_disconnected());
        assert_eq!(*one.lock.lock().unwrap(), number + 1);
        assert_eq!(one.value.get(), number + 1);
        assert_eq!(one.array.to_vec(), [1, 7, 3]);
        assert_eq!(one.lane_receiver.recv().unwrap(), number + 2);
        assert!(one.lane_receiver.recv().unwrap_err().is_disconnected());
        assert!(one.lane_sender.send(0).unwrap_err().is_disconnected());
    }
}

fn serve(messages: Receiver<All>) -> usize {
    let used = messages.iter().map(use_each).sum();
    assert_no_backstop();
    used
}

#[test]
fn b4_a_thousand_handles_of_all_kinds_travel_in_one_message_and_a_failure_loses_none() {
    let _watchdog = watchdog(Duration::from_secs(120));
    let leaks = LeakCheck::begin();
    let session = Session::current().unwrap();

    let (sender, receiver) = channel::<All>(1).unwrap();
    let server = Process::spawn(serve, receiver).unwrap();
    let (all, kept) = make();
    assert_eq!(all.count(), 1000);
    sender.send(all).unwrap();
    drop(sender);
    assert_eq!(server.join().unwrap(), 1000);
    check(kept);

    // Fails when all handles have been encoded, is refused, is taken back, is not taken: each time the same handles go on.
    let (mut all, kept) = make();
    let (full, full_out) = channel::<All>(1).unwrap();
    full.send(All { handles: BTreeMap::new(), fails: false }).unwrap();
    let (offered, offered_out) = channel::<All>(0).unwrap();
    let (nobody, gone) = channel::<All>(1).unwrap();
    drop(gone);
    let before = session.audit();
    assert!(before.counts_are_right, "{before:?}");
    for _ in 0..5 {
        all.fails = true;
        let error = full.send(all).unwrap_err();
        assert!(matches!(error.failure, SendFailure::Encode(EncodeError::Value(_))), "{error}");
        all = error.into_value();
        assert_eq!(session.audit(), before, "after a value that could not be encoded");
        all.fails = false;
        let error = full.try_send(all).unwrap_err();
        assert!(error.is_full(), "{error}");
        let error = offered.send_timeout(error.into_value(), Duration::from_millis(1)).unwrap_err();
        assert!(error.is_full(), "{error}");
        let error = nobody.send(error.into_value()).unwrap_err();
        assert!(error.is_disconnected(), "{error}");
        all = error.into_value();
        assert_eq!(all.count(), 1000);
        assert_eq!(session.audit(), before, "after sends that were refused");
    }
    // And at last it is received, and used here.
    assert_eq!(full_out.recv().unwrap().count(), 0);
    full.send(all).unwrap();
    assert_eq!(use_each(full_out.recv().unwrap()), 1000);
    check(kept);

    // Received by nobody, it goes with its channel.
    let (all, kept) = make();
    full.send(all).unwrap();
    drop((full, full_out, offered, offered_out, nobody));
    assert!(kept.iter().all(|one| one.receiver.try_recv().unwrap_err().is_disconnected()));
    drop(kept);
    leaks.end();
    assert_no_backstop();
}
