//! SIGKILL at every crash point of a start by `fork`: nothing of a job has run, and nobody is left at a gate.
//!
//! Build with `RUSTFLAGS="--cfg mp_crash"`.
#![cfg(mp_crash)]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Sender, channel};
use mp_spawn::{JoinError, Process, StartMethod};
use mp_sys::process::Ended;
use mp_testkit::{LeakCheck, assert_no_backstop, watchdog};
use std::time::Duration;

fn told((number, sender): (u32, Sender<u32>)) -> u32 {
    drop(sender);
    number
}

/// Starts a copy of this process, which dies on its way; tells what became of it.
fn forks((number, sender): (u32, Sender<u32>)) -> String {
    let copy = Process::builder().start_method(StartMethod::Fork).spawn(told, (number, sender));
    match copy.unwrap().join() {
        Err(JoinError::NotStarted(Ended::Killed { signal: 9, .. })) => String::from("not started"),
        other => format!("{other:?}"),
    }
}

#[test]
fn a13_a_copy_that_dies_or_loses_its_parent_before_its_job_has_run_nothing() {
    let _watchdog = watchdog(Duration::from_secs(170));
    let leaks = LeakCheck::begin();
    for (point, dies) in [("fork.born", "the copy"), ("fork.passed", "the copy"), ("fork.made", "its parent")]
    {
        let (sender, receiver) = channel::<u32>(1).unwrap();
        let parent = Process::builder().env("MP_CRASH", format!("{point}:1"));
        let parent = parent.spawn(forks, (1, sender)).unwrap();
        match parent.join() {
            Ok(told) => assert_eq!((told.as_str(), dies), ("not started", "the copy"), "{point}"),
            Err(error) => assert_eq!((error.signal(), dies), (Some(9), "its parent"), "{point}: {error}"),
        }
        // Nobody holds the sender: not a copy either that was left at its gate.
        assert!(receiver.recv().unwrap_err().is_disconnected(), "{point}");
    }
    leaks.end();
    assert_no_backstop();
}
