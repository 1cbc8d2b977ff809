//! What becomes of a process whose handle is dropped.

use mp_channel::channel;
use mp_spawn::Process;
use mp_testkit::{LeakCheck, assert_no_backstop, proc, watchdog};
use std::time::Duration;

#[test]
fn a3_a_dropped_child_runs_on_and_is_reaped_by_the_next_start() {
    let _watchdog = watchdog(Duration::from_secs(120));
    let leaks = LeakCheck::begin();
    let (to_child, gate) = channel::<u32>(1).unwrap();
    let (answer, from_child) = channel::<u32>(1).unwrap();
    let child = Process::spawn(
        |(gate, answer): (mp_channel::Receiver<u32>, mp_channel::Sender<u32>)| {
            let number = gate.recv().unwrap_or(0);
            let _ = answer.send(number + 1);
            // A value that nobody will ask for.
            vec![0_u8; 100_000]
        },
        (gate, answer),
    )
    .unwrap();
    let pid = child.pid();
    drop(child);
    assert!(!proc::has_ended(pid), "it waits for us");
    // The handle is gone, the child is not: it still answers.
    to_child.send(41).unwrap();
    assert_eq!(from_child.recv().unwrap(), 42);
    proc::until(|| proc::has_ended(pid));
    assert_eq!(proc::children(), [pid], "ended, and not reaped yet");
    Process::spawn(|()| (), ()).unwrap().join().unwrap();
    assert!(proc::children().is_empty(), "the next start has reaped it");

    // A child that ended before its handle was dropped is reaped by the drop itself.
    let child = Process::spawn(|()| String::from("not asked for"), ()).unwrap();
    while !child.wait_timeout(Duration::from_secs(60)).unwrap() {}
    drop(child);
    assert!(proc::children().is_empty(), "the drop has reaped it");

    drop((to_child, from_child));
    leaks.end();
    assert_no_backstop();
}
