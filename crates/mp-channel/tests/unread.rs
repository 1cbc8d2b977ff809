//! A producer ends when it is done, whether anybody has read what it sent or not.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Sender, channel};
use mp_spawn::Process;
use mp_testkit::{LeakCheck, assert_no_backstop, watchdog};
use std::time::Duration;

const COUNT: usize = 100;

fn produce((sender, bytes): (Sender<Vec<u8>>, usize)) -> usize {
    (0..COUNT).for_each(|n| sender.send(vec![u8::try_from(n).unwrap(); bytes]).unwrap());
    COUNT
}

#[test]
fn b10_a_producer_with_unread_data_is_joined() {
    let _watchdog = watchdog(Duration::from_secs(120));
    let leaks = LeakCheck::begin();
    for bytes in [10, 200_000] {
        let (sender, receiver) = channel(COUNT).unwrap();
        let child = Process::spawn(produce, (sender, bytes)).unwrap();
        assert_eq!(child.join().unwrap(), COUNT);
        assert_eq!(receiver.len(), COUNT);
        for n in 0..COUNT {
            assert!(receiver.recv().unwrap() == vec![u8::try_from(n).unwrap(); bytes]);
        }
        assert!(receiver.recv().unwrap_err().is_disconnected());

        // Never read at all.
        let (sender, receiver) = channel(COUNT).unwrap();
        assert_eq!(Process::spawn(produce, (sender, bytes)).unwrap().join().unwrap(), COUNT);
        drop(receiver);
    }
    leaks.end();
    assert_no_backstop();
}
