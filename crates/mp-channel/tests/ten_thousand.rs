//! Channels by the ten thousand: nothing but memory, and that comes back.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, Sender, channel};
use mp_shm::Session;
use mp_spawn::Process;
use mp_testkit::{LeakCheck, assert_no_backstop, proc, watchdog};
use std::time::Duration;

const CHANNELS: u64 = 10_000;

/// Receives through each, and says what came through all of them, and what it holds besides memory.
fn add_up(ends: Receiver<Vec<Receiver<u64>>>) -> (u64, usize, usize) {
    let mut sum = 0;
    for receivers in ends.iter() {
        sum += receivers.iter().map(|receiver| receiver.recv().unwrap()).sum::<u64>();
    }
    assert_no_backstop();
    (sum, proc::descriptors().len(), proc::tasks(std::process::id()).len())
}

/// Gives what the child holds when it has had so many channels, and what was committed at the peak.
fn round(count: u64) -> (usize, usize, u64) {
    let (ends, ends_out) = channel(1).unwrap();
    let child = Process::spawn(add_up, ends_out).unwrap();
    let mine = || (proc::descriptors().len(), proc::tasks(std::process::id()).len());
    let before = mine();
    let (senders, receivers): (Vec<Sender<u64>>, Vec<_>) =
        (0..count).map(|_| channel::<u64>(1).unwrap()).unzip();
    assert_eq!(mine(), before, "channels take no descriptors and no threads");
    for (number, sender) in (0..).zip(&senders) {
        sender.send(number).unwrap();
    }
    let committed = Session::current().unwrap().committed_bytes().unwrap();
    ends.send(receivers).unwrap();
    drop(ends);
    let (sum, descriptors, threads) = child.join().unwrap();
    assert_eq!(sum, (0..count).sum::<u64>());
    assert!(senders.iter().all(|sender| sender.send(1).unwrap_err().is_disconnected()));
    (descriptors, threads, committed)
}

#[test]
fn b16_ten_thousand_channels_take_memory_only_and_give_it_back() {
    let _watchdog = watchdog(Duration::from_secs(170));
    let leaks = LeakCheck::begin();
    let few = round(10);
    let many = round(CHANNELS);
    assert_eq!((many.0, many.1), (few.0, few.1), "descriptors and threads of one who has all of them");
    let again = round(CHANNELS);
    // Spans of small blocks stay with the session, for what comes next.
    let span = 1 << 20;
    assert!(again.2 <= many.2 + span, "{} bytes at first, {} the second time", many.2, again.2);
    leaks.end();
    assert_no_backstop();
}
