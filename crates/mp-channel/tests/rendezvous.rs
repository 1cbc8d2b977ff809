//! Channels of capacity 0: a send ends when its message is taken.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, Sender, channel};
use mp_shm::Session;
use mp_spawn::Process;
use mp_testkit::watchdog;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(30);

#[test]
fn b1_a_rendezvous_without_a_receiver_gives_the_value_back() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<String>(0).unwrap();
    assert_eq!((sender.capacity(), sender.len(), receiver.is_empty()), (0, 0, true));
    let full = |result: Result<(), mp_channel::SendError<String>>| {
        let error = result.unwrap_err();
        assert!(error.is_full(), "{error}");
        assert_eq!(error.into_value(), "value");
    };
    for _ in 0..3 {
        full(sender.try_send("value".to_owned()));
        let start = Instant::now();
        full(sender.send_timeout("value".to_owned(), SHORT));
        assert!(start.elapsed() >= SHORT, "early");
        // What was taken back is not in the channel, and its slot is free.
        assert!(receiver.try_recv().unwrap_err().is_empty());
    }
    drop(receiver);
    assert!(sender.send("value".to_owned()).unwrap_err().is_disconnected());
}

#[test]
fn b1_a_large_message_with_handles_comes_back_whole_from_a_rendezvous() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<(Vec<u64>, Sender<u64>)>(0).unwrap();
    let (inner, inner_out) = channel::<u64>(1).unwrap();
    let (_, inner) = sender.send_timeout((vec![7; 1000], inner), SHORT).unwrap_err().into_value();
    drop(inner);
    // Nothing of the message that came back keeps the end alive.
    assert!(inner_out.try_recv().unwrap_err().is_disconnected());
    drop((sender, receiver));
    let audit = Session::current().unwrap().audit();
    assert!(audit.counts_are_right, "{audit:?}");
}

fn take((messages, go, count): (Receiver<u64>, Receiver<()>, u64)) -> Vec<u64> {
    go.recv().unwrap();
    (0..count).map(|_| messages.recv().unwrap()).collect()
}

#[test]
fn b1_a_send_to_a_rendezvous_ends_when_its_message_is_taken() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<u64>(0).unwrap();
    let (go, wait) = channel::<()>(1).unwrap();
    let child = Process::spawn(take, (receiver, wait, 3)).unwrap();
    // Nobody receives before the word is given.
    assert!(sender.send_timeout(0, SHORT).unwrap_err().is_full());
    go.send(()).unwrap();
    (1..=3).for_each(|n| sender.send(n).unwrap());
    assert_eq!(child.join().unwrap(), [1, 2, 3]);
    // The receiver has ended with its process.
    assert!(sender.send(4).unwrap_err().is_disconnected());
}

#[test]
fn b17_a_rendezvous_of_several_on_both_sides_loses_and_doubles_nothing() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<(u64, u64)>(0).unwrap();
    let senders: Vec<_> = (0..3)
        .map(|number| {
            let sender = sender.clone();
            std::thread::spawn(move || (0..500).for_each(|n| sender.send((number, n)).unwrap()))
        })
        .collect();
    drop(sender);
    let receivers: Vec<_> = (0..3)
        .map(|_| {
            let receiver = receiver.clone();
            std::thread::spawn(move || receiver.iter().collect::<Vec<_>>())
        })
        .collect();
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    let mut all = Vec::new();
    for receiver in receivers {
        let received = receiver.join().unwrap();
        for number in 0..3 {
            let of_one: Vec<u64> = received.iter().filter(|one| one.0 == number).map(|one| one.1).collect();
            assert!(of_one.is_sorted(), "each receiver sees a sender's messages in order");
        }
        all.extend(received);
    }
    all.sort_unstable();
    let expected: Vec<(u64, u64)> = (0..3).flat_map(|number| (0..500).map(move |n| (number, n))).collect();
    assert_eq!(all, expected);
}

fn offer(messages: Sender<u64>) {
    let _ = messages.send(1);
}

#[test]
fn b7_a_rendezvous_survives_a_sender_that_is_killed_while_it_waits() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<u64>(0).unwrap();
    let child = Process::spawn(offer, sender.clone()).unwrap();
    // It waits for a receiver, with its message in the slot, or has not come so far.
    child.kill().unwrap();
    assert_eq!(child.join().unwrap_err().signal(), Some(9));
    let own = std::thread::spawn(move || sender.send(2));
    let mut received = vec![receiver.recv().unwrap()];
    if received == [1] {
        received.push(receiver.recv().unwrap());
    }
    own.join().unwrap().unwrap();
    assert!(received == [2] || received == [1, 2], "{received:?}");
    assert!(receiver.recv().unwrap_err().is_disconnected());
}
