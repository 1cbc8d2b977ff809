//! Handles of any kind in one table. One test alone in its process: it looks at the whole session.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, Sender, broadcast, channel, oneshot, pipe, request, spsc};
use mp_shm::references::HandleError;
use mp_shm::{AnyHandle, Array, Fd, Frozen, Latest, List, Session, Shared, Value, latest};
use mp_spawn::Process;
use mp_testkit::{LeakCheck, assert_no_backstop, watchdog};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

type Table = HashMap<String, AnyHandle>;

#[test]
fn b4_handles_of_any_kind_travel_inside_messages() {
    let _watchdog = watchdog(Duration::from_secs(120));
    // Stays until the process ends.
    let other = Session::create().unwrap();
    let leaks = LeakCheck::begin();
    a_table();
    every_kind();
    what_covers_another();
    wrong_types_are_refused();
    it_holds_the_end();
    ends_that_only_one_may_use();
    back_from_a_child();
    killed_with_it();
    in_its_own_queue();
    of_another_session(other);
    leaks.end();
    assert_no_backstop();
}

fn counts_are_right() {
    let audit = Session::current().unwrap().audit();
    assert!(audit.counts_are_right, "{audit:?}");
}

fn use_table(tables: Receiver<Table>) -> Vec<String> {
    let table = tables.recv().unwrap();
    let sender: Sender<u64> = table["sender"].open().unwrap();
    let count: Shared<AtomicU64> = table["count"].open().unwrap();
    let words: Frozen<Vec<String>> = table["words"].open().unwrap();
    assert_eq!(table["sender"].open::<Sender<u32>>().unwrap_err(), HandleError::OtherType);
    assert_eq!(table["sender"].open::<Receiver<u64>>().unwrap_err(), HandleError::OtherType);
    assert_eq!(table["count"].open::<Frozen<Vec<String>>>().unwrap_err(), HandleError::OtherType);
    drop(table);
    sender.send(count.fetch_add(1, Ordering::Relaxed)).unwrap();
    words.iter().map(|word| word.as_str().to_owned()).collect()
}

/// As a manager keeps them.
fn a_table() {
    let (tables, receiver) = channel::<Table>(2).unwrap();
    let child = Process::spawn(use_table, receiver).unwrap();
    let (sender, numbers) = channel::<u64>(1).unwrap();
    let count = Shared::<AtomicU64>::with(|count| *count.get_mut() = 41).unwrap();
    let words = Frozen::new(&vec!["read".to_owned(), "by many".to_owned()]).unwrap();
    let table = [
        ("sender", AnyHandle::of(&sender).unwrap()),
        ("count", AnyHandle::of(&count).unwrap()),
        ("words", AnyHandle::of(&words).unwrap()),
    ];
    drop((sender, words));
    tables.send(table.map(|(name, any)| (name.to_owned(), any)).into()).unwrap();
    assert_eq!(numbers.recv().unwrap(), 41);
    assert_eq!(child.join().unwrap(), ["read", "by many"]);
    assert_eq!(count.load(Ordering::Relaxed), 42);
    assert!(numbers.recv().unwrap_err().is_disconnected(), "nobody has the sender any more");
}

fn every_kind() {
    let (writer, reader) = latest::latest(5_u64).unwrap();
    let array = Array::<u64>::from_slice(&[1, 2, 3]).unwrap();
    let list = List::new([], 64).unwrap();
    let value = Value::new(9_u64).unwrap();
    let (news, mut heard) = broadcast::channel::<String>(4).unwrap();
    let all = vec![
        Some(AnyHandle::of(&reader).unwrap()),
        None,
        Some(AnyHandle::of(&array).unwrap()),
        Some(AnyHandle::of(&list).unwrap()),
        Some(AnyHandle::of(&value).unwrap()),
        Some(AnyHandle::of(&news).unwrap()),
    ];
    let kinds: Vec<_> = all.iter().flatten().map(AnyHandle::kind).collect();
    let use_all = |all: Vec<Option<AnyHandle>>| {
        let mut all = all.into_iter().flatten();
        let mut next = || all.next().unwrap();
        let latest: Latest<u64> = next().open().unwrap();
        let array: Array<u64> = next().open().unwrap();
        let list: List = next().open().unwrap();
        let value: Value<u64> = next().open().unwrap();
        let news: broadcast::Sender<String> = next().open().unwrap();
        news.send(&"heard".to_owned()).unwrap();
        latest.get() + array.len() as u64 + list.len() as u64 + value.get()
    };
    assert_eq!(Process::spawn(use_all, all).unwrap().join().unwrap(), 5 + 3 + 9);
    assert_eq!(heard.recv().unwrap(), "heard");
    let handles = kinds.iter().map(|kind| kind.0).collect::<std::collections::HashSet<_>>();
    assert_eq!(handles.len(), 5, "each is of a kind of its own");
    drop(writer);
}

/// Handles that cover one other: each is opened as what it was made of.
fn what_covers_another() {
    fn use_all(all: Table) {
        all["ask"].open::<request::Client<u64, u64>>().unwrap().call(20).unwrap_err();
        assert_eq!(all["read"].open::<pipe::Reader>().unwrap().recv_bytes().unwrap(), b"bytes");
        let once: oneshot::Sender<String> = all["once"].open().unwrap();
        drop(all);
        once.send("once".to_owned()).unwrap();
    }
    let (client, server) = request::channel::<u64, u64>(1).unwrap();
    let (writer, reader) = pipe::one_way(1).unwrap();
    let (once, heard) = oneshot::channel::<String>().unwrap();
    let table = [
        ("ask", AnyHandle::of(&client).unwrap()),
        ("read", AnyHandle::of(&reader).unwrap()),
        ("once", AnyHandle::of(&once).unwrap()),
    ];
    drop((client, server, reader, once));
    let child = Process::spawn(use_all, table.map(|(name, any)| (name.to_owned(), any)).into()).unwrap();
    writer.send_bytes(b"bytes").unwrap();
    assert_eq!(heard.recv().unwrap(), "once");
    child.join().unwrap();
}

fn wrong_types_are_refused() {
    let (sender, receiver) = channel::<u64>(1).unwrap();
    let any = AnyHandle::of(&sender).unwrap();
    let before = Session::current().unwrap().audit();
    assert_eq!(any.open::<Sender<i64>>().unwrap_err(), HandleError::OtherType);
    assert_eq!(any.open::<spsc::Sender<u64>>().unwrap_err(), HandleError::OtherType);
    assert_eq!(any.open::<Fd>().unwrap_err(), HandleError::OtherType);
    assert_eq!(Session::current().unwrap().audit(), before, "nothing was taken");
    any.open::<Sender<u64>>().unwrap().send(1).unwrap();
    assert_eq!(receiver.recv().unwrap(), 1);
    assert_eq!(format!("{any:?}"), format!("AnyHandle({})", any.handle()));
}

fn it_holds_the_end() {
    let (sender, receiver) = channel::<u64>(1).unwrap();
    let any = AnyHandle::of(&sender).unwrap();
    let copy = any.clone();
    drop((sender, any));
    assert!(receiver.try_recv().unwrap_err().is_empty(), "the copy is a holder");
    let (carrier, carried) = channel::<AnyHandle>(1).unwrap();
    carrier.send(copy).unwrap();
    assert!(receiver.try_recv().unwrap_err().is_empty(), "a message is one");
    drop((carrier, carried));
    assert!(receiver.try_recv().unwrap_err().is_disconnected());
    counts_are_right();
}

fn ends_that_only_one_may_use() {
    fn send_one(any: AnyHandle) {
        let mut sender: spsc::Sender<u64> = any.open().unwrap();
        drop(any);
        sender.send(7).unwrap();
    }
    let (mut sender, mut receiver) = spsc::channel::<u64>(2).unwrap();
    sender.send(6).unwrap();
    let any = AnyHandle::of(&sender).unwrap();
    assert!(sender.try_send(0).is_err(), "there is another holder");
    drop(sender);
    let child = Process::spawn(send_one, any).unwrap();
    assert_eq!([receiver.recv().unwrap(), receiver.recv().unwrap()], [6, 7]);
    child.join().unwrap();
}

fn back_from_a_child() {
    let make = |(): ()| {
        let (sender, receiver) = channel::<String>(4).unwrap();
        sender.send("from the child".to_owned()).unwrap();
        (AnyHandle::of(&sender).unwrap(), Some(AnyHandle::of(&receiver).unwrap()))
    };
    let (sender, receiver) = Process::spawn(make, ()).unwrap().join().unwrap();
    let receiver: Receiver<String> = receiver.unwrap().open().unwrap();
    assert_eq!(receiver.recv().unwrap(), "from the child");
    drop(sender);
    assert!(receiver.recv().unwrap_err().is_disconnected());
}

fn killed_with_it() {
    let (sender, receiver) = channel::<u64>(1).unwrap();
    let hold = |(any, ready): (AnyHandle, Sender<()>)| {
        ready.send(()).unwrap();
        std::thread::park();
        drop(any);
    };
    let (ready, is_ready) = channel(1).unwrap();
    let child = Process::spawn(hold, (AnyHandle::of(&sender).unwrap(), ready)).unwrap();
    drop(sender);
    is_ready.recv().unwrap();
    assert!(receiver.try_recv().unwrap_err().is_empty());
    child.kill().unwrap();
    assert!(receiver.recv().unwrap_err().is_disconnected());
    assert_eq!(child.join().unwrap_err().signal(), Some(9));
}

/// B22 with ends whose type is forgotten.
fn in_its_own_queue() {
    let before = Session::current().unwrap().audit();
    for receiver_too in [false, true] {
        let (sender, receiver) = channel::<Vec<AnyHandle>>(4).unwrap();
        let mut ends = vec![AnyHandle::of(&sender).unwrap()];
        ends.extend(receiver_too.then(|| AnyHandle::of(&receiver).unwrap()));
        sender.send(ends).unwrap();
        drop((sender, receiver));
        let audit = Session::current().unwrap().audit();
        assert_eq!((audit.objects, audit.blocks), (before.objects, before.blocks), "{audit:?}");
        assert!(audit.counts_are_right);
    }
}

fn of_another_session(other: Session) {
    let (foreign, _receiver) = mp_channel::channel_in::<u64>(other, 1).unwrap();
    let any = AnyHandle::of(&foreign).unwrap();
    assert_eq!(any.session().number(), other.number());
    let (sender, receiver) = channel::<Vec<AnyHandle>>(1).unwrap();
    let own = AnyHandle::of(&sender).unwrap();
    let error = sender.send(vec![own, any]).unwrap_err();
    assert!(error.to_string().contains("session"), "{error}");
    assert_eq!(error.into_value().len(), 2);
    sender.send(Vec::new()).unwrap();
    assert!(receiver.recv().unwrap().is_empty(), "the slot is there, and nothing of the failed one");
    let audit = other.audit();
    assert!(audit.counts_are_right && audit.references == 2, "{audit:?}");
    counts_are_right();
}
