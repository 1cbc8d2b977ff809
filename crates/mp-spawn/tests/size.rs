//! Arguments and values of any size, and with many handles.
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Sender, channel};
use mp_spawn::Process;
use mp_testkit::{LeakCheck, assert_no_backstop, watchdog};
use std::time::Duration;

const MIB: usize = 1 << 20;

fn pattern(len: usize) -> Vec<u64> {
    (0..len as u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect()
}

/// Checks 64 MiB and gives them back, changed.
fn flip(words: Vec<u64>) -> Vec<u64> {
    assert!(words == pattern(words.len()), "the argument arrived as it was");
    words.into_iter().map(|word| !word).collect()
}

fn answer(senders: Vec<Sender<u32>>) -> Vec<Sender<u32>> {
    for (number, sender) in (0..).zip(&senders) {
        sender.send(number).unwrap();
    }
    senders
}

#[test]
fn a16_argument_and_value_may_be_large_and_full_of_handles() {
    let _watchdog = watchdog(Duration::from_secs(170));
    let leaks = LeakCheck::begin();

    let words = 64 * MIB / size_of::<u64>();
    let flipped = Process::spawn(flip, pattern(words)).unwrap().join().unwrap();
    assert!(flipped.iter().map(|word| !word).eq(pattern(words)), "the value arrived as it was");
    drop(flipped);

    let (senders, receivers): (Vec<_>, Vec<_>) = (0..300).map(|_| channel::<u32>(1).unwrap()).unzip();
    let back = Process::spawn(answer, senders).unwrap().join().unwrap();
    assert_eq!(back.len(), receivers.len());
    for ((number, receiver), sender) in (0..).zip(&receivers).zip(&back) {
        assert_eq!(receiver.recv().unwrap(), number);
        sender.send(number + 1000).unwrap();
        assert_eq!(receiver.recv().unwrap(), number + 1000, "the sender that came back is the one that went");
    }
    drop(back);
    for receiver in receivers {
        assert!(receiver.recv().unwrap_err().is_disconnected());
    }
    leaks.end();
    assert_no_backstop();
}
