//! Among many processes nothing is lost, nothing is doubled, and the order of each sender holds.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, Sender, channel};
use mp_spawn::Process;
use mp_testkit::{LeakCheck, assert_no_backstop, watchdog};
use std::time::Duration;

const PRODUCERS: u32 = 3;
const CONSUMERS: u32 = 3;
const COUNT: u32 = 20_000;

/// Producer, number, and every hundredth time bytes that need a block.
type Item = (u32, u32, Vec<u8>);

fn bytes(number: u32) -> usize {
    if number.is_multiple_of(100) { 5000 } else { (number % 50) as usize }
}

fn produce((producer, sender): (u32, Sender<Item>)) {
    for number in 0..COUNT {
        sender.send((producer, number, vec![7; bytes(number)])).unwrap();
    }
    assert_no_backstop();
}

/// What arrived, in its order.
fn consume(receiver: Receiver<Item>) -> Vec<(u32, u32)> {
    let mut arrived = Vec::new();
    let end = loop {
        match receiver.recv() {
            Ok((producer, number, filling)) => {
                assert!(filling == vec![7; bytes(number)]);
                arrived.push((producer, number));
            }
            Err(end) => break end,
        }
    };
    assert!(end.is_disconnected(), "{end}");
    assert_no_backstop();
    arrived
}

#[test]
fn b17_nothing_is_lost_or_doubled_and_each_sender_is_in_order() {
    let _watchdog = watchdog(Duration::from_secs(170));
    let leaks = LeakCheck::begin();
    for capacity in [1, 64] {
        let (sender, receiver) = channel::<Item>(capacity).unwrap();
        let consumers: Vec<_> =
            (0..CONSUMERS).map(|_| Process::spawn(consume, receiver.clone()).unwrap()).collect();
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|producer| Process::spawn(produce, (producer, sender.clone())).unwrap())
            .collect();
        drop((sender, receiver));
        producers.into_iter().for_each(|child| child.join().unwrap());
        let mut all = Vec::new();
        for child in consumers {
            let arrived = child.join().unwrap();
            for producer in 0..PRODUCERS {
                let of_one = arrived.iter().filter(|(from, _)| *from == producer).map(|(_, number)| number);
                assert!(of_one.is_sorted_by(|a, b| a < b), "the order of producer {producer} holds");
            }
            all.extend(arrived);
        }
        all.sort_unstable();
        let sent = (0..PRODUCERS).flat_map(|producer| (0..COUNT).map(move |number| (producer, number)));
        assert!(all.iter().copied().eq(sent), "each message exactly once");
    }
    leaks.end();
    assert_no_backstop();
}
