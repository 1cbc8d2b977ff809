//! Channels with one sender and one receiver.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{ChannelError, RecvError, SendFailure, channel, spsc};
use mp_shm::Session;
use mp_spawn::Process;
use mp_testkit::{assert_no_backstop, watchdog};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);

#[test]
fn b1_a_lane_is_full_empty_and_disconnected_as_a_channel_is() {
    let _watchdog = watchdog(LONG);
    for capacity in [1, 2, 3, 8] {
        let (mut sender, mut receiver) = spsc::channel::<String>(capacity).unwrap();
        let text = |n: usize| format!("{n}").repeat(if n % 3 == 2 { 500 } else { 1 });
        assert!(receiver.try_recv().unwrap_err().is_empty());
        for round in 0..5 {
            (0..capacity).for_each(|n| sender.try_send(text(round + n)).unwrap());
            assert_eq!((sender.len(), receiver.len(), sender.capacity()), (capacity, capacity, capacity));
            let error = sender.try_send("back".to_owned()).unwrap_err();
            assert!(error.is_full());
            assert_eq!(error.into_value(), "back");
            let start = Instant::now();
            assert!(sender.send_timeout(text(9), SHORT).unwrap_err().is_full());
            assert!(start.elapsed() >= SHORT, "early");
            (0..capacity).for_each(|n| assert_eq!(receiver.try_recv().unwrap(), text(round + n)));
            let deadline = Instant::now() + SHORT;
            assert!(receiver.recv_deadline(deadline).unwrap_err().is_empty());
            assert!(Instant::now() >= deadline, "early");
        }
        sender.send("last".to_owned()).unwrap();
        drop(sender);
        assert_eq!(receiver.recv().unwrap(), "last");
        assert!(matches!(receiver.recv(), Err(RecvError::Disconnected)));
    }
    let (mut sender, receiver) = spsc::channel::<u64>(4).unwrap();
    drop(receiver);
    assert!(sender.send(1).unwrap_err().is_disconnected());
    assert!(matches!(spsc::channel::<u64>(0), Err(ChannelError::Capacity(0))));
}

fn count_up((mut numbers, first, count): (spsc::Sender<u64>, u64, u64)) -> spsc::Sender<u64> {
    for number in first..first + count {
        numbers.send(number).unwrap();
    }
    assert_no_backstop();
    numbers
}

fn add_up((mut numbers, count): (spsc::Receiver<u64>, u64)) -> (u64, spsc::Receiver<u64>) {
    let sum = (0..count).map(|_| numbers.recv().unwrap()).sum();
    assert_no_backstop();
    (sum, numbers)
}

#[test]
fn b17_the_ends_of_a_lane_move_from_process_to_process() {
    let _watchdog = watchdog(LONG);
    let (mut sender, mut receiver) = spsc::channel::<u64>(7).unwrap();
    let mut first = 0;
    for count in [1, 5, 1000, 20_000] {
        let counter = Process::spawn(count_up, (sender, first, count)).unwrap();
        let adder = Process::spawn(add_up, (receiver, count)).unwrap();
        sender = counter.join().unwrap();
        let (sum, back) = adder.join().unwrap();
        receiver = back;
        assert_eq!(sum, (first..first + count).sum::<u64>());
        first += count;
    }
    assert!(receiver.try_recv().unwrap_err().is_empty());
    drop((sender, receiver));
}

#[test]
fn b17_a_lane_end_in_a_message_cannot_be_used_at_two_places() {
    let _watchdog = watchdog(LONG);
    let (mut sender, mut receiver) = spsc::channel::<u64>(4).unwrap();
    let (carrier, carried) = channel::<spsc::Sender<u64>>(1).unwrap();
    sender.send(1).unwrap();
    carrier.send_ref(&sender).unwrap();
    assert!(matches!(sender.try_send(2).unwrap_err().failure, SendFailure::Shared));
    let mut other = carried.recv().unwrap();
    assert!(matches!(other.try_send(2).unwrap_err().failure, SendFailure::Shared));
    drop(sender);
    other.send(2).unwrap();
    // Unread in a message that is dropped, it is the sender's as before.
    carrier.send_ref(&other).unwrap();
    drop(carried.recv_archived().unwrap());
    other.send(3).unwrap();
    drop(other);
    assert_eq!(receiver.iter().collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn b13_batches_and_archives_come_through_a_lane() {
    let _watchdog = watchdog(LONG);
    let (mut sender, mut receiver) = spsc::channel::<Vec<u32>>(4).unwrap();
    let writer = std::thread::spawn(move || {
        sender.send_all((0..500).map(|n| vec![n; (n as usize * 7) % 300])).unwrap();
    });
    let mut values = Vec::new();
    for _ in 0..10 {
        let received = receiver.recv_archived().unwrap();
        values.push(received.as_slice().to_vec());
    }
    while receiver.recv_many(&mut values, 9).is_ok() {}
    writer.join().unwrap();
    assert_eq!(values.len(), 500);
    assert!((0..500).zip(&values).all(|(n, value)| *value == vec![n; (n as usize * 7) % 300]));
}

fn forever(mut numbers: spsc::Sender<(u64, Vec<u64>)>) {
    for number in 0.. {
        let len = if number % 4 == 0 { 300 } else { 2 };
        if numbers.send((number, vec![number; len])).is_err() {
            return;
        }
    }
}

#[test]
fn b7_b9_a_killed_sender_leaves_whole_messages_in_order_and_then_nothing() {
    let _watchdog = watchdog(LONG);
    for turn in 0..20 {
        let (sender, mut receiver) = spsc::channel(16).unwrap();
        let child = Process::spawn(forever, sender).unwrap();
        for expected in 0..turn * 50 {
            let (number, words) = receiver.recv().unwrap();
            assert_eq!(number, expected);
            assert!(words.iter().all(|&word| word == number));
        }
        child.kill().unwrap();
        let rest: Vec<u64> = receiver.iter().map(|(number, _)| number).collect();
        assert!(rest.iter().copied().eq((turn * 50..).take(rest.len())), "{rest:?}");
        assert!(receiver.recv().unwrap_err().is_disconnected());
        assert_eq!(child.join().unwrap_err().signal(), Some(9));
    }
    let audit = Session::current().unwrap().audit();
    assert!(audit.counts_are_right, "{audit:?}");
}

fn take_some((mut numbers, count): (spsc::Receiver<(u64, Vec<u64>)>, u64)) {
    for _ in 0..count {
        numbers.recv().unwrap();
    }
    // Ends by a signal, with the receiver in hand.
    std::process::abort();
}

#[test]
fn b8_b9_a_sender_learns_that_its_receiver_was_killed() {
    let _watchdog = watchdog(LONG);
    for count in [0, 1, 100] {
        let (mut sender, receiver) = spsc::channel(4).unwrap();
        let child = Process::spawn(take_some, (receiver, count)).unwrap();
        let failure = (0..).find_map(|number| sender.send((number, vec![1; 200])).err()).unwrap();
        assert!(failure.is_disconnected());
        assert_eq!(child.join().unwrap_err().signal(), Some(6));
    }
}
