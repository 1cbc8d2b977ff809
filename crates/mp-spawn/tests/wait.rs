//! Waiting for a process, without ever blocking longer than asked.

use mp_channel::{Receiver, channel};
use mp_spawn::{JoinError, Process};
use mp_testkit::watchdog;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// A process that lives until something is sent or all senders are gone.
fn waiting(gate: Receiver<u32>) -> u32 {
    gate.recv().unwrap_or(0)
}

#[test]
fn a2_waiting_for_no_time_says_that_the_child_is_alive() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel(1).unwrap();
    let child = Process::spawn(waiting, receiver).unwrap();
    for _ in 0..100 {
        assert!(!child.wait_timeout(Duration::ZERO).unwrap());
        assert!(!child.is_finished());
    }
    sender.send(5).unwrap();
    assert_eq!(child.join().unwrap(), 5);
}

#[test]
fn a2_waiting_after_the_end_is_idempotent() {
    let _watchdog = watchdog(LONG);
    let child = Process::spawn(|n: u32| n + 1, 1).unwrap();
    while !child.wait_timeout(LONG).unwrap() {}
    for _ in 0..100 {
        assert!(child.wait_timeout(Duration::ZERO).unwrap());
        assert!(child.wait_timeout(Duration::MAX).unwrap());
        assert!(child.is_finished());
    }
    assert_eq!(child.join().unwrap(), 2);
}

#[test]
fn a2_a_timeout_ends_while_the_child_lives() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel(1).unwrap();
    let child = Process::spawn(waiting, receiver).unwrap();
    let timeout = Duration::from_millis(30);
    let start = std::time::Instant::now();
    assert!(!child.wait_timeout(timeout).unwrap());
    assert!(start.elapsed() >= timeout, "a timeout is never early");
    drop(sender);
    assert_eq!(child.join().unwrap(), 0);
}

#[test]
fn a2_signals_after_the_end_are_no_error_and_change_nothing() {
    let _watchdog = watchdog(LONG);
    let child = Process::spawn(|n: u32| n + 1, 1).unwrap();
    while !child.wait_timeout(LONG).unwrap() {}
    for _ in 0..3 {
        child.terminate().unwrap();
        child.kill().unwrap();
    }
    assert_eq!(child.join().unwrap(), 2);
}

#[test]
fn a1_the_signal_that_asks_is_told_from_the_one_that_kills() {
    let _watchdog = watchdog(LONG);
    let (_sender, receiver) = channel(1).unwrap();
    let child = Process::spawn(waiting, receiver.clone()).unwrap();
    child.terminate().unwrap();
    assert_eq!(child.join().unwrap_err().signal(), Some(15));
    let child = Process::spawn(waiting, receiver).unwrap();
    child.kill().unwrap();
    assert_eq!(child.join().unwrap_err().signal(), Some(9));
}

#[test]
fn a1_an_abort_is_told_as_its_signal() {
    let _watchdog = watchdog(LONG);
    let child = Process::spawn(|()| std::process::abort(), ()).unwrap();
    let _: &Process<()> = &child;
    let error = child.join().unwrap_err();
    assert!(matches!(error, JoinError::Killed { signal: 6, .. }), "{error}");
    assert!(error.to_string().contains("SIGABRT"), "{error}");
}

#[test]
fn a12_waits_from_many_threads_agree() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel(1).unwrap();
    let child = Process::spawn(waiting, receiver).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !child.wait_timeout(LONG).unwrap() {}
                // Never alive again once somebody saw it end.
                assert!(child.is_finished());
                assert!(child.wait_timeout(Duration::ZERO).unwrap());
            });
        }
        sender.send(9).unwrap();
    });
    assert_eq!(child.join().unwrap(), 9);
}
