//! SIGKILL at every crash point that a process passes between its start and its end: an error of that start alone, and nothing is left.
//!
//! Build with `RUSTFLAGS="--cfg mp_crash"`. What a fork server adds is killed in mp-sys's `crash_zygote`.
#![cfg(mp_crash)]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Sender, channel};
use mp_spawn::Process;
use mp_testkit::proc::{self, Task};
use mp_testkit::{LeakCheck, assert_no_backstop, watchdog};
use std::time::Duration;

/// In the order in which a daemon passes them.
const POINTS: [&str; 8] = [
    "lifeline.asked",
    "participants.process_id",
    "participants.starting",
    "participants.thread_id",
    "participants.before_live",
    "deliver.taken",
    "deliver.named",
    "deliver.given",
];

fn told((number, sender): (u32, Sender<u32>)) -> (u32, Sender<u32>) {
    (number + 1, sender)
}

#[test]
fn a13_a_death_at_any_point_of_a_start_is_an_error_of_that_start_only() {
    let _watchdog = watchdog(Duration::from_secs(170));
    let leaks = LeakCheck::begin();
    for point in POINTS {
        for stops in [false, true] {
            let (sender, receiver) = channel::<u32>(1).unwrap();
            let at = format!("{point}:1{}", if stops { ":stop" } else { "" });
            let victim = Process::builder().daemon(true).env("MP_CRASH", at);
            let victim = victim.spawn(told, (1, sender.clone())).unwrap();
            // One that stands still with the domain's lock holds up all others until it is dead.
            let child = victim.child().clone();
            let killer = std::thread::spawn(move || {
                let task = Task::leader(child.pid());
                if stops {
                    proc::until(|| task.state() == Some('T'));
                    child.kill().unwrap();
                }
            });
            // Another start, while that one dies or stands still.
            let other = Process::spawn(told, (2, sender)).unwrap();
            let (number, back) = other.join().unwrap();
            assert_eq!(number, 3);
            killer.join().unwrap();
            let error = victim.join().unwrap_err();
            assert_eq!(error.signal(), Some(9), "{point}: {error}");
            // What it had, and what it was about to give back, is gone.
            back.send(7).unwrap();
            drop(back);
            assert_eq!(receiver.recv().unwrap(), 7);
            assert!(receiver.recv().unwrap_err().is_disconnected(), "{point}");
        }
    }
    leaks.end();
    assert_no_backstop();
}
