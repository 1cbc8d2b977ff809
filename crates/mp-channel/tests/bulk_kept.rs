//! One very large message, received by a process that goes on.
#![cfg(not(loom))]

use mp_channel::channel;
use mp_shm::Session;
use mp_testkit::{LeakCheck, watchdog};
use std::time::Duration;

const GIBIBYTE: usize = 1 << 30;

#[test]
fn b3_the_memory_of_a_gibibyte_comes_back_while_its_receiver_lives() {
    let _watchdog = watchdog(Duration::from_secs(170));
    let leaks = LeakCheck::begin();
    let session = Session::current().unwrap();
    let before = session.committed_bytes().unwrap();
    let (sender, receiver) = channel::<Vec<u64>>(1).unwrap();
    let mut loan = sender.loan_slice(GIBIBYTE / 8).unwrap();
    loan[GIBIBYTE / 8 - 1] = 7;
    loan.send().unwrap();
    let message = receiver.recv_archived().unwrap();
    assert_eq!(message.as_slice()[GIBIBYTE / 8 - 1], 7);
    drop((sender, receiver, message));
    leaks.end();
    let after = session.committed_bytes().unwrap();
    assert!(after < before + (GIBIBYTE / 2) as u64, "{before} bytes before, {after} after");
}
