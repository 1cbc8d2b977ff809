//! Much traffic through a small channel, and one very large message.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, channel};
use mp_shm::Session;
use mp_spawn::Process;
use mp_testkit::{LeakCheck, assert_no_backstop, watchdog};
use std::time::Duration;

const MESSAGE_BYTES: usize = 64 << 20;
/// A little more than 4 GiB in all.
const MESSAGES: u64 = 66;
const GIBIBYTE: usize = 1 << 30;

/// Gives how many messages and how many bytes there were; only the ends of each are looked at, so that it is quick.
fn count(receiver: Receiver<Vec<u64>>) -> (u64, u64) {
    let (mut messages, mut bytes) = (0, 0);
    while let Ok(message) = receiver.recv_archived() {
        let words = message.as_slice();
        assert_eq!(words[0], messages);
        assert_eq!(words[words.len() - 1], !messages);
        messages += 1;
        bytes += size_of_val(words) as u64;
    }
    assert_no_backstop();
    (messages, bytes)
}

/// Sends `len` words of which only the first and the last are touched.
fn send(sender: &mp_channel::Sender<Vec<u64>>, number: u64, len: usize) {
    let mut loan = sender.loan_slice(len).unwrap();
    loan[0] = number;
    loan[len - 1] = !number;
    loan.send().unwrap();
}

#[test]
fn b3_more_than_four_gibibytes_and_one_message_of_one_leave_no_memory_behind() {
    let _watchdog = watchdog(Duration::from_secs(170));
    let leaks = LeakCheck::begin();
    let session = Session::current().unwrap();
    drop(channel::<Vec<u64>>(1).unwrap());
    let before = session.committed_bytes().unwrap();

    let (sender, receiver) = channel(1).unwrap();
    let counter = Process::spawn(count, receiver).unwrap();
    (0..MESSAGES).for_each(|number| send(&sender, number, MESSAGE_BYTES / 8));
    drop(sender);
    let (messages, bytes) = counter.join().unwrap();
    assert_eq!((messages, bytes), (MESSAGES, MESSAGES * MESSAGE_BYTES as u64));
    assert!(bytes > u64::from(u32::MAX));

    let (sender, receiver) = channel(1).unwrap();
    let counter = Process::spawn(count, receiver).unwrap();
    send(&sender, 0, GIBIBYTE / 8);
    drop(sender);
    assert_eq!(counter.join().unwrap(), (1, GIBIBYTE as u64));

    leaks.end();
    let after = session.committed_bytes().unwrap();
    // A process keeps a few blocks of the last sizes for its next messages.
    assert!(after < before + 5 * MESSAGE_BYTES as u64, "{before} bytes before, {after} after");
    assert_no_backstop();
}
