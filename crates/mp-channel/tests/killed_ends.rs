//! Ends that are killed at any instruction of a stream leave nothing behind.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, Sender, channel};
use mp_spawn::Process;
use mp_testkit::{LeakCheck, assert_no_backstop, proc, watchdog};
use std::time::Duration;

/// A number, bytes that follow from it, small or large, and a handle in every seventh.
type Item = (u64, Vec<u8>, Option<Sender<u64>>);

fn item(number: u64, handle: &Sender<u64>) -> Item {
    let len = if number.is_multiple_of(2) { 5 } else { 6000 };
    #[expect(clippy::cast_possible_truncation, reason = "a pattern of the low bits")]
    let bytes = vec![number as u8; len];
    (number, bytes, number.is_multiple_of(7).then(|| handle.clone()))
}

fn check(item: &Item, handle: &Sender<u64>) {
    let expected = self::item(item.0, handle);
    assert!(item.1 == expected.1, "message {} is whole", item.0);
    assert_eq!(item.2.is_some(), expected.2.is_some());
}

fn stream((sender, handle): (Sender<Item>, Sender<u64>)) {
    let mut number = 0;
    while sender.send(item(number, &handle)).is_ok() {
        number += 1;
    }
}

fn drain((receiver, handle): (Receiver<Item>, Sender<u64>)) {
    receiver.iter().for_each(|item| check(&item, &handle));
}

#[test]
fn b9_ends_killed_in_a_stream_leave_whole_messages_and_nothing_else() {
    let _watchdog = watchdog(Duration::from_secs(170));
    let leaks = LeakCheck::begin();
    let (handle, handle_end) = channel::<u64>(1).unwrap();
    for round in 0..30 {
        killed_sender(round * 7, &handle);
        killed_receiver(round * 7, &handle);
    }
    drop(handle);
    assert!(handle_end.try_recv().unwrap_err().is_disconnected());
    drop(handle_end);
    leaks.end();
    assert_no_backstop();
}

fn killed_sender(after: u64, handle: &Sender<u64>) {
    let (sender, receiver) = channel(4).unwrap();
    let child = Process::spawn(stream, (sender, handle.clone())).unwrap();
    for number in 0..=after {
        let item: Item = receiver.recv().unwrap();
        assert_eq!(item.0, number);
        check(&item, handle);
    }
    child.kill().unwrap();
    let mut next = after + 1;
    let end = loop {
        match receiver.recv() {
            Ok(item) => {
                assert_eq!(item.0, next);
                check(&item, handle);
                next += 1;
            }
            Err(error) => break error,
        }
    };
    assert!(end.is_disconnected(), "{end}");
    assert_eq!(child.join().unwrap_err().signal(), Some(9));
}

fn killed_receiver(after: u64, handle: &Sender<u64>) {
    let (sender, receiver) = channel(4).unwrap();
    let child = Process::spawn(drain, (receiver, handle.clone())).unwrap();
    for number in 0..=after {
        sender.send(item(number, handle)).unwrap();
    }
    // It has its end; one that dies before is the test `never_started`.
    proc::until(|| sender.is_empty());
    child.kill().unwrap();
    let mut number = after + 1;
    let error = loop {
        match sender.send(item(number, handle)) {
            Ok(()) => number += 1,
            Err(error) => break error,
        }
    };
    assert!(error.is_disconnected(), "{error}");
    assert_eq!(error.value.0, number);
    check(&error.value, handle);
    assert_eq!(child.join().unwrap_err().signal(), Some(9));
}
