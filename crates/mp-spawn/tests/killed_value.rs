//! What a child held when it died comes back with its join.

use mp_channel::{Receiver, Sender, channel};
use mp_spawn::Process;
use mp_testkit::{LeakCheck, assert_no_backstop, proc::Task, watchdog};
use std::time::Duration;

fn hold((gate, _sender, _bytes): (Receiver<u32>, Sender<u32>, Vec<u8>)) -> u32 {
    gate.recv().unwrap_or(0)
}

#[test]
fn a1_a_killed_child_leaves_nothing_of_its_argument() {
    let _watchdog = watchdog(Duration::from_secs(120));
    let leaks = LeakCheck::begin();
    let (_open, gate) = channel(1).unwrap();
    let (sender, receiver) = channel(1).unwrap();
    let argument = || (gate.clone(), sender.clone(), vec![1; 1_000_000]);
    // Killed while it waits inside of the function, its argument taken.
    let child = Process::spawn(hold, argument()).unwrap();
    proc_blocked(child.pid(), &gate);
    child.kill().unwrap();
    assert_eq!(child.join().unwrap_err().signal(), Some(9));
    // Killed before it could take it, as a rule.
    for _ in 0..10 {
        let child = Process::spawn(hold, argument()).unwrap();
        child.kill().unwrap();
        assert_eq!(child.join().unwrap_err().signal(), Some(9));
    }
    drop(sender);
    assert!(receiver.try_recv().unwrap_err().is_disconnected(), "no sender is left in a dead process");
    drop((_open, gate, receiver));
    leaks.end();
    assert_no_backstop();
}

/// Waits until the child sleeps in its receive.
fn proc_blocked(pid: u32, gate: &Receiver<u32>) {
    Task::leader(pid).wait_until_blocked();
    assert!(gate.is_empty());
}
