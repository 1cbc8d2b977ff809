//! Every way to send and receive, on a channel that is empty, full, in between, or has lost its other end.
#![cfg(not(loom))]

use mp_channel::stamp::READING;
use mp_channel::{ChannelError, RecvError, SendFailure, channel};
use mp_testkit::proc::Task;
use mp_testkit::watchdog;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(30);

#[test]
fn b1_an_empty_channel_is_empty_and_no_timeout_is_early() {
    let _watchdog = watchdog(LONG);
    let (_sender, receiver) = channel::<u32>(2).unwrap();
    assert!(receiver.try_recv().unwrap_err().is_empty());
    assert!(receiver.recv_timeout(Duration::ZERO).unwrap_err().is_empty());
    assert!(receiver.recv_deadline(Instant::now()).unwrap_err().is_empty());
    let past = Instant::now().checked_sub(SHORT).unwrap();
    assert!(receiver.recv_deadline(past).unwrap_err().is_empty());
    for _ in 0..5 {
        let start = Instant::now();
        assert!(receiver.recv_timeout(SHORT).unwrap_err().is_empty());
        assert!(start.elapsed() >= SHORT, "early: {:?}", start.elapsed());
        let deadline = Instant::now() + SHORT;
        assert!(receiver.recv_deadline(deadline).unwrap_err().is_empty());
        assert!(Instant::now() >= deadline, "early");
    }
    assert!(receiver.is_empty());
}

#[test]
fn b1_a_full_channel_is_full_gives_the_value_back_and_no_timeout_is_early() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<String>(2).unwrap();
    let value = || "value".to_owned();
    sender.try_send(value()).unwrap();
    sender.try_send(value()).unwrap();
    assert_eq!((sender.len(), sender.capacity(), receiver.len()), (2, 2, 2));
    let full = |result: Result<(), mp_channel::SendError<String>>| {
        let error = result.unwrap_err();
        assert!(error.is_full(), "{error}");
        assert_eq!(error.into_value(), "value");
    };
    full(sender.try_send(value()));
    full(sender.send_timeout(value(), Duration::ZERO));
    full(sender.send_deadline(value(), Instant::now()));
    for _ in 0..5 {
        let start = Instant::now();
        full(sender.send_timeout(value(), SHORT));
        assert!(start.elapsed() >= SHORT, "early: {:?}", start.elapsed());
        let deadline = Instant::now() + SHORT;
        full(sender.send_deadline(value(), deadline));
        assert!(Instant::now() >= deadline, "early");
    }
    // What was refused is not in the channel.
    drop(sender);
    assert_eq!(receiver.iter().count(), 2);
}

#[test]
fn b1_every_way_to_receive_takes_what_is_there() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<u32>(8).unwrap();
    (0..5).for_each(|n| sender.send(n).unwrap());
    let far = Instant::now() + LONG;
    assert_eq!(receiver.recv().unwrap(), 0);
    assert_eq!(receiver.try_recv().unwrap(), 1);
    assert_eq!(receiver.recv_timeout(Duration::ZERO).unwrap(), 2);
    assert_eq!(receiver.recv_timeout(Duration::MAX).unwrap(), 3);
    assert_eq!(receiver.recv_deadline(far).unwrap(), 4);
    assert!(receiver.try_recv().unwrap_err().is_empty());
}

#[test]
fn b1_every_way_to_send_puts_it_there() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<u32>(8).unwrap();
    sender.send(0).unwrap();
    sender.try_send(1).unwrap();
    sender.send_timeout(2, Duration::ZERO).unwrap();
    sender.send_timeout(3, Duration::MAX).unwrap();
    sender.send_deadline(4, Instant::now() + LONG).unwrap();
    sender.send_deadline(5, Instant::now()).unwrap();
    sender.send_ref(&6).unwrap();
    drop(sender);
    assert!(receiver.iter().eq(0..7));
}

#[test]
fn b1_without_senders_every_receive_drains_and_then_is_disconnected() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<u32>(8).unwrap();
    (0..4).for_each(|n| sender.send(n).unwrap());
    drop(sender);
    assert_eq!(receiver.recv().unwrap(), 0);
    assert_eq!(receiver.try_recv().unwrap(), 1);
    assert_eq!(receiver.recv_timeout(SHORT).unwrap(), 2);
    assert_eq!(receiver.recv_deadline(Instant::now()).unwrap(), 3);
    for _ in 0..2 {
        assert!(matches!(receiver.recv(), Err(RecvError::Disconnected)));
        assert!(matches!(receiver.try_recv(), Err(RecvError::Disconnected)));
        assert!(matches!(receiver.recv_timeout(Duration::MAX), Err(RecvError::Disconnected)));
        assert!(matches!(receiver.recv_deadline(Instant::now()), Err(RecvError::Disconnected)));
    }
}

#[test]
fn b1_without_receivers_every_send_gives_the_value_back() {
    let _watchdog = watchdog(LONG);
    // Full or not makes no difference.
    for held in [0, 2] {
        let (sender, receiver) = channel::<String>(2).unwrap();
        (0..held).for_each(|_| sender.send("before".to_owned()).unwrap());
        drop(receiver);
        let value = || "value".to_owned();
        let results = [
            sender.send(value()),
            sender.try_send(value()),
            sender.send_timeout(value(), Duration::MAX),
            sender.send_timeout(value(), Duration::ZERO),
            sender.send_deadline(value(), Instant::now()),
        ];
        for result in results {
            let error = result.unwrap_err();
            assert!(error.is_disconnected(), "{error}");
            assert_eq!(error.into_value(), "value");
        }
        assert!(matches!(sender.send_ref(&value()), Err(SendFailure::Disconnected)));
    }
}

#[test]
fn b1_a_blocked_receive_is_woken_by_a_message() {
    let _watchdog = watchdog(LONG);
    type Way = fn(&mp_channel::Receiver<u32>) -> Result<u32, RecvError>;
    let ways: [Way; 4] = [
        |receiver| receiver.recv(),
        |receiver| receiver.recv_timeout(LONG),
        |receiver| receiver.recv_timeout(Duration::MAX),
        |receiver| receiver.recv_deadline(Instant::now() + LONG),
    ];
    for way in ways {
        let (sender, receiver) = channel::<u32>(1).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            tell.send(Task::current()).unwrap();
            way(&receiver)
        });
        told.recv().unwrap().wait_until_blocked();
        sender.send(7).unwrap();
        assert_eq!(thread.join().unwrap().unwrap(), 7);
    }
}

#[test]
fn b1_a_blocked_send_is_woken_by_room() {
    let _watchdog = watchdog(LONG);
    type Way = fn(&mp_channel::Sender<u32>) -> Result<(), mp_channel::SendError<u32>>;
    let ways: [Way; 4] = [
        |sender| sender.send(2),
        |sender| sender.send_timeout(2, LONG),
        |sender| sender.send_timeout(2, Duration::MAX),
        |sender| sender.send_deadline(2, Instant::now() + LONG),
    ];
    for way in ways {
        let (sender, receiver) = channel::<u32>(1).unwrap();
        sender.send(1).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            tell.send(Task::current()).unwrap();
            way(&sender)
        });
        told.recv().unwrap().wait_until_blocked();
        assert_eq!(receiver.recv().unwrap(), 1);
        thread.join().unwrap().unwrap();
        assert_eq!(receiver.recv().unwrap(), 2);
    }
}

#[test]
fn b1_a_capacity_out_of_range_is_an_error() {
    let _watchdog = watchdog(LONG);
    for capacity in [(1 << 24) + 1, usize::MAX] {
        let error = channel::<u32>(capacity).unwrap_err();
        assert!(matches!(error, ChannelError::Capacity(given) if given == capacity), "{error}");
    }
    for capacity in [1, 2, 3, 7, 1000] {
        let (sender, receiver) = channel::<u32>(capacity).unwrap();
        assert_eq!((sender.capacity(), receiver.capacity()), (capacity, capacity));
        for round in 0..3 {
            (0..capacity).for_each(|_| sender.try_send(round).unwrap());
            assert!(sender.try_send(round).unwrap_err().is_full());
            (0..capacity).for_each(|_| assert_eq!(receiver.try_recv().unwrap(), round));
            assert!(receiver.try_recv().unwrap_err().is_empty());
        }
    }
}

#[test]
fn b1_messages_are_counted_wherever_they_are_in_the_ring_and_behind_one_that_somebody_has_in_hand() {
    let _watchdog = watchdog(LONG);
    let me = mp_shm::Session::current().unwrap().me().unwrap().thread;
    for (capacity, start) in [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2), (4, 3)] {
        let (sender, receiver) = channel::<usize>(capacity).unwrap();
        for number in 0..start {
            sender.try_send(number).unwrap();
            receiver.try_recv().unwrap();
        }
        for number in 0..capacity {
            assert_eq!((sender.len(), receiver.len(), receiver.is_empty()), (number, number, number == 0));
            sender.try_send(number).unwrap();
        }
        // As a receiver that was stopped leaves it: READING, and this thread's id.
        let words = sender.control_words();
        let oldest = words[words.len() - capacity + start];
        let full = oldest.load(Ordering::Relaxed);
        oldest.store(u64::from(me) << 48 | (full & !0xf) | READING, Ordering::Relaxed);
        let left = capacity - 1;
        assert_eq!((receiver.len(), receiver.is_empty(), sender.is_empty()), (left, left == 0, left == 0));
        oldest.store(full, Ordering::Relaxed);
        assert!(receiver.try_iter().eq(0..capacity));
        assert!(receiver.is_empty());
    }
}
