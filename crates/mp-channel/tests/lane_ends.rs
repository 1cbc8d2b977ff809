//! The ends of a lane when the other end is gone, or its process.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::spsc;
use mp_spawn::Process;
use mp_testkit::proc::Task;
use mp_testkit::{assert_no_backstop, watchdog};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(120);

fn fill(mut numbers: spsc::Sender<(u64, Vec<u64>)>) {
    (0..16).for_each(|number| numbers.send((number, vec![number; 300])).unwrap());
}

#[test]
fn b10_a_producer_with_unread_messages_in_a_lane_is_joined() {
    let _watchdog = watchdog(LONG);
    let (sender, mut receiver) = spsc::channel(16).unwrap();
    Process::spawn(fill, sender).unwrap().join().unwrap();
    let numbers: Vec<u64> = receiver.iter().map(|(number, words)| words[299].min(number)).collect();
    assert_eq!(numbers, (0..16).collect::<Vec<_>>(), "what it sent is there after its end");
    assert!(receiver.recv().unwrap_err().is_disconnected());
    assert_no_backstop();
}

/// Runs `body` in a thread, and gives it when it is blocked.
fn blocked<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        tell.send(Task::current()).unwrap();
        body()
    });
    told.recv().unwrap().wait_until_blocked();
    thread
}

fn hold<E>(_end: E) {
    loop {
        std::thread::park();
    }
}

#[test]
fn b9_one_blocked_at_a_lane_learns_that_the_other_end_was_dropped_or_killed() {
    let _watchdog = watchdog(LONG);
    for killed in [false, true] {
        let (sender, mut receiver) = spsc::channel::<u64>(1).unwrap();
        let end_of = |child: Process<()>| {
            child.kill().unwrap();
            assert_eq!(child.join().unwrap_err().signal(), Some(9));
        };
        if killed {
            let child = Process::spawn(hold, sender).unwrap();
            let thread = blocked(move || receiver.recv());
            end_of(child);
            assert!(thread.join().unwrap().unwrap_err().is_disconnected());
        } else {
            let thread = blocked(move || receiver.recv());
            drop(sender);
            assert!(thread.join().unwrap().unwrap_err().is_disconnected());
        }

        let (mut sender, receiver) = spsc::channel::<u64>(1).unwrap();
        sender.send(1).unwrap();
        let error = if killed {
            let child = Process::spawn(hold, receiver).unwrap();
            let thread = blocked(move || sender.send(2));
            end_of(child);
            thread.join().unwrap().unwrap_err()
        } else {
            let thread = blocked(move || sender.send(2));
            drop(receiver);
            thread.join().unwrap().unwrap_err()
        };
        assert!(error.is_disconnected(), "{error}");
        assert_eq!(error.into_value(), 2, "the value comes back");
    }
    assert_no_backstop();
}
