//! Senders and receivers of a growing channel that are killed at any instruction leave nothing behind. Its own process: it looks at the session.
#![cfg(not(loom))]

use mp_channel::{Receiver, Sender, growing_channel};
use mp_spawn::Process;
use mp_testkit::{LeakCheck, assert_no_backstop, watchdog};
use std::time::Duration;

/// Who sent it, its number, content small or large, now and then an end.
type Item = (u64, u64, Vec<u64>, Option<Sender<u64>>);

fn send_on((sender, from, handle): (Sender<Item>, u64, Sender<u64>)) {
    for number in 0.. {
        let len = if number % 3 == 0 { 400 } else { 3 };
        let handle = (number % 5 == 0).then(|| handle.clone());
        if sender.send((from, number, vec![number; len], handle)).is_err() {
            return;
        }
    }
}

fn receive_on(receiver: Receiver<Item>) {
    receiver.iter().for_each(|(_, number, content, _)| assert!(content.iter().all(|one| *one == number)));
}

#[test]
fn b7_b8_kills_of_those_who_make_a_channel_grow_lose_and_double_nothing() {
    let _watchdog = watchdog(Duration::from_secs(170));
    let leaks = LeakCheck::begin();
    let (handle, handle_out) = mp_channel::channel::<u64>(1).unwrap();
    for round in 0..40 {
        let (sender, receiver) = growing_channel::<Item>(1, 1 << 16).unwrap();
        let victim = Process::spawn(send_on, (sender.clone(), 0, handle.clone())).unwrap();
        let lazy = Process::spawn(receive_on, receiver.clone()).unwrap();
        let survivor = Process::spawn(send_on, (sender, 1, handle.clone())).unwrap();
        let mut next = [0; 2];
        let mut check = |(from, number, content, _): Item| {
            let next = &mut next[usize::try_from(from).unwrap()];
            assert!(number >= *next, "in order, and nothing twice");
            *next = number + 1;
            assert!(content.iter().all(|one| *one == number), "whole");
        };
        for _ in 0..=round * 5 {
            check(receiver.recv().unwrap());
        }
        victim.kill().unwrap();
        lazy.kill().unwrap();
        assert_eq!(victim.join().unwrap_err().signal(), Some(9));
        assert_eq!(lazy.join().unwrap_err().signal(), Some(9));
        for _ in 0..100 {
            check(receiver.recv().unwrap());
        }
        drop(receiver);
        survivor.join().unwrap();
    }
    drop((handle, handle_out));
    leaks.end();
    assert_no_backstop();
}
