//! A hundred children at a time.
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, channel};
use mp_spawn::{JoinError, Process};
use mp_testkit::{LeakCheck, assert_no_backstop, watchdog};
use std::time::Duration;

#[test]
fn a4_a_hundred_children_at_once_are_all_reaped_with_exact_statuses() {
    let _watchdog = watchdog(Duration::from_secs(170));
    let leaks = LeakCheck::begin();
    short();
    killed();
    leaks.end();
    assert_no_backstop();
}

/// Every third returns, exits, panics.
fn short() {
    fn run(n: u32) -> u32 {
        match n % 3 {
            0 => n * 10,
            1 => std::process::exit(i32::try_from(n).unwrap()),
            _ => panic!("number {n}"),
        }
    }
    let children: Vec<Process<u32>> = (0..100).map(|n| Process::spawn(run, n).unwrap()).collect();
    for (n, child) in (0..).zip(children) {
        match (n % 3, child.join()) {
            (0, Ok(value)) => assert_eq!(value, n * 10),
            (1, Err(JoinError::Exited(code))) => assert_eq!(code, i32::try_from(n).unwrap()),
            (2, Err(JoinError::Panicked(panic))) => assert_eq!(panic.message, format!("number {n}")),
            (_, other) => panic!("child {n} ended with {other:?}"),
        }
    }
}

/// At whatever instruction the signal finds them.
fn killed() {
    let (_open, gate) = channel::<()>(1).unwrap();
    let start = || {
        let child = Process::spawn(|gate: Receiver<()>| gate.recv().is_ok(), gate.clone()).unwrap();
        child.kill().unwrap();
        child
    };
    let children: Vec<Process<bool>> = (0..100).map(|_| start()).collect();
    for child in children {
        let error = child.join().unwrap_err();
        assert_eq!(error.signal(), Some(9), "{error}");
    }
}
