//! A channel whose one end is gone: dropped, or held by a process that was killed.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, RecvError, SendError, Sender, channel};
use mp_spawn::Process;
use mp_testkit::proc::Task;
use mp_testkit::{assert_no_backstop, watchdog};
use std::thread::JoinHandle;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// Runs `body` in a thread, and returns when that is blocked.
fn blocked<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        tell.send(Task::current()).unwrap();
        body()
    });
    told.recv().unwrap().wait_until_blocked();
    thread
}

fn gave_back(result: Result<(), SendError<String>>) {
    let error = result.unwrap_err();
    assert!(error.is_disconnected(), "{error}");
    assert_eq!(error.into_value(), "value");
}

/// Sends `count` numbers and then stays.
fn feed((sender, count, gate): (Sender<u32>, u32, Receiver<()>)) {
    (0..count).for_each(|n| sender.send(n).unwrap());
    let _ = gate.recv();
}

/// Holds a receiver.
fn hold((_receiver, ready, gate): (Receiver<String>, Sender<()>, Receiver<()>)) {
    ready.send(()).unwrap();
    let _ = gate.recv();
}

#[test]
fn b9_a_blocked_receiver_learns_that_the_last_sender_was_dropped() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<u32>(4).unwrap();
    let other = sender.clone();
    let thread = blocked(move || receiver.recv());
    drop(sender);
    drop(other);
    assert!(matches!(thread.join().unwrap(), Err(RecvError::Disconnected)));
    assert_no_backstop();
}

#[test]
fn b9_a_blocked_sender_gets_its_value_back_when_the_last_receiver_is_dropped() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<String>(1).unwrap();
    sender.send("first".to_owned()).unwrap();
    let other = receiver.clone();
    let thread = blocked(move || sender.send("value".to_owned()));
    drop(receiver);
    drop(other);
    gave_back(thread.join().unwrap());
    assert_no_backstop();
}

#[test]
fn b9_receiver_drains_then_disconnects_when_the_sending_child_returns() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel(16).unwrap();
    let (gate, closed) = channel(1).unwrap();
    let child = Process::spawn(feed, (sender, 10, closed)).unwrap();
    drop(gate);
    child.join().unwrap();
    (0..10).for_each(|n| assert_eq!(receiver.recv().unwrap(), n));
    assert!(receiver.recv().unwrap_err().is_disconnected());
}

#[test]
fn b9_receiver_drains_then_disconnects_when_the_sending_child_is_killed() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel(16).unwrap();
    let (_gate, closed) = channel(1).unwrap();
    let child = Process::spawn(feed, (sender, 10, closed)).unwrap();
    (0..5).for_each(|n| assert_eq!(receiver.recv().unwrap(), n));
    // All is sent when it waits at the gate.
    mp_testkit::proc::until(|| receiver.len() == 5);
    Task::leader(child.pid()).wait_until_blocked();
    child.kill().unwrap();
    (5..10).for_each(|n| assert_eq!(receiver.recv().unwrap(), n));
    // Not joined: the channel learns of the death by itself.
    assert!(receiver.recv().unwrap_err().is_disconnected());
    assert_eq!(child.join().unwrap_err().signal(), Some(9));
    assert_no_backstop();
}

#[test]
fn b9_a_blocked_receiver_learns_that_the_last_sender_was_killed() {
    let _watchdog = watchdog(LONG);
    for timeout in [None, Some(LONG)] {
        let (sender, receiver) = channel(16).unwrap();
        let (_gate, closed) = channel(1).unwrap();
        let child = Process::spawn(feed, (sender, 3, closed)).unwrap();
        (0..3).for_each(|n| assert_eq!(receiver.recv().unwrap(), n));
        let thread =
            blocked(move || timeout.map_or_else(|| receiver.recv(), |time| receiver.recv_timeout(time)));
        child.kill().unwrap();
        assert!(matches!(thread.join().unwrap(), Err(RecvError::Disconnected)));
        assert_eq!(child.join().unwrap_err().signal(), Some(9));
    }
    assert_no_backstop();
}

#[test]
fn b9_a_blocked_sender_gets_its_value_back_when_the_last_receiver_is_killed() {
    let _watchdog = watchdog(LONG);
    for timeout in [None, Some(LONG)] {
        let (sender, receiver) = channel::<String>(1).unwrap();
        let (_gate, closed) = channel(1).unwrap();
        let (ready, is_ready) = channel(1).unwrap();
        let child = Process::spawn(hold, (receiver, ready, closed)).unwrap();
        is_ready.recv().unwrap();
        sender.send("first".to_owned()).unwrap();
        let value = "value".to_owned();
        let thread = blocked(move || match timeout {
            None => sender.send(value),
            Some(time) => sender.send_timeout(value, time),
        });
        child.kill().unwrap();
        gave_back(thread.join().unwrap());
        assert_eq!(child.join().unwrap_err().signal(), Some(9));
    }
    assert_no_backstop();
}

#[test]
fn b9_one_of_several_senders_killed_leaves_the_others_connected() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel(16).unwrap();
    let (_gate, closed) = channel(1).unwrap();
    let child = Process::spawn(feed, (sender.clone(), 1, closed.clone())).unwrap();
    let other = Process::spawn(feed, (sender.clone(), 1, closed)).unwrap();
    assert_eq!((receiver.recv().unwrap(), receiver.recv().unwrap()), (0, 0));
    child.kill().unwrap();
    assert_eq!(child.join().unwrap_err().signal(), Some(9));
    assert!(receiver.try_recv().unwrap_err().is_empty());
    sender.send(7).unwrap();
    assert_eq!(receiver.recv().unwrap(), 7);
    drop(sender);
    assert!(receiver.try_recv().unwrap_err().is_empty(), "the other child still holds one");
    other.kill().unwrap();
    assert!(receiver.recv().unwrap_err().is_disconnected());
    assert_eq!(other.join().unwrap_err().signal(), Some(9));
}

#[test]
fn b9_a_child_learns_that_its_parent_dropped_the_other_end() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<u32>(4).unwrap();
    let drain = |receiver: Receiver<u32>| {
        let drained: Vec<u32> = receiver.iter().collect();
        (drained, receiver.recv().unwrap_err().is_disconnected())
    };
    let child = Process::spawn(drain, receiver).unwrap();
    (0..4).for_each(|n| sender.send(n).unwrap());
    Task::leader(child.pid()).wait_until_blocked();
    drop(sender);
    assert_eq!(child.join().unwrap(), (vec![0, 1, 2, 3], true));

    let (sender, receiver) = channel::<String>(1).unwrap();
    sender.send("first".to_owned()).unwrap();
    let child = Process::spawn(
        |sender: Sender<String>| {
            gave_back(sender.send("value".to_owned()));
            assert_no_backstop();
        },
        sender,
    )
    .unwrap();
    Task::leader(child.pid()).wait_until_blocked();
    drop(receiver);
    child.join().unwrap();
}
