//! Ends given to a child that ends before it takes its job are gone like those of any dead process.
#![cfg(not(loom))]

use mp_channel::{Receiver, Sender, channel};
use mp_spawn::{Process, set_executable};
use mp_testkit::{LeakCheck, assert_no_backstop, proc, watchdog};
use std::time::Duration;

/// Long enough for any wake-up, short enough to see that there is none.
const LONG: Duration = Duration::from_secs(10);

#[test]
fn b9_ends_given_to_a_child_that_never_took_its_job_are_gone_when_it_is_dead() {
    let _watchdog = watchdog(Duration::from_secs(120));
    let leaks = LeakCheck::begin();
    // Any program that ends before multiproc's hook runs: one that was killed, found no library, or is not ours.
    set_executable("/bin/true");

    let (sender, receiver) = channel::<u32>(1).unwrap();
    let child = Process::spawn(|sender: Sender<u32>| drop(sender), sender).unwrap();
    proc::until(|| proc::has_ended(child.pid()));
    // A parent that waits for its child's first message before it joins.
    let error = receiver.recv_timeout(LONG).unwrap_err();
    assert!(child.join().is_err());
    assert!(receiver.try_recv().unwrap_err().is_disconnected(), "after the join");
    let of_receiver = error.is_disconnected();
    drop(receiver);

    let (sender, receiver) = channel::<u32>(1).unwrap();
    let child = Process::spawn(|receiver: Receiver<u32>| drop(receiver), receiver).unwrap();
    proc::until(|| proc::has_ended(child.pid()));
    sender.try_send(1).unwrap_or(());
    let error = sender.send_timeout(2, LONG).unwrap_err();
    assert!(child.join().is_err());
    assert!(sender.try_send(3).unwrap_err().is_disconnected(), "after the join");
    let of_sender = error.is_disconnected();
    drop(sender);

    leaks.end();
    assert_no_backstop();
    assert_eq!((of_receiver, of_sender), (true, true), "(receiver, sender) learned of it before the join");
}
