//! Messages of any size keep their boundaries, within a process and through another one.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, Sender, channel};
use mp_spawn::Process;
use mp_testkit::{LeakCheck, assert_no_backstop, watchdog};
use std::time::Duration;

/// `len` bytes that no message of another length begins with.
fn pattern(len: usize) -> Vec<u8> {
    #[expect(clippy::cast_possible_truncation, reason = "a pattern of the low bits")]
    (0..len).map(|at| (at.wrapping_mul(31) ^ len ^ (len >> 8)) as u8).collect()
}

fn echo((receiver, sender): (Receiver<Vec<u8>>, Sender<Vec<u8>>)) -> usize {
    let mut count = 0;
    while let Ok(bytes) = receiver.recv() {
        sender.send(bytes).unwrap();
        count += 1;
    }
    assert_no_backstop();
    count
}

/// Lengths on and around every boundary there is: of slots, scratch, block classes and spans.
fn lengths() -> Vec<usize> {
    let around = |middle: usize, by: usize| middle.saturating_sub(by)..=middle + by;
    let mut lengths: Vec<usize> = around(150, 150).collect();
    for middle in [512, 1024, 4096, 16_384, 65_536, 262_144] {
        lengths.extend(around(middle, 20));
        lengths.extend([middle - 64, middle - 65, middle + 64]);
    }
    lengths.extend([1_000_003, 8 << 20]);
    lengths
}

/// Arrays are archived as they are, so that their length alone decides where they travel.
fn arrays<const N: usize>() {
    let (sender, receiver) = channel::<[u8; N]>(2).unwrap();
    let array: [u8; N] = pattern(N).try_into().unwrap();
    for _ in 0..5 {
        sender.send(array).unwrap();
        sender.send([0xff; N]).unwrap();
        assert!(sender.try_send(array).unwrap_err().is_full());
        assert_eq!(receiver.recv().unwrap(), array);
        assert_eq!(receiver.recv().unwrap(), [0xff; N]);
    }
}

macro_rules! arrays {
    ($($len:literal)*) => { $(arrays::<$len>();)* };
}

#[test]
fn b3_boundaries_hold_for_every_size() {
    let _watchdog = watchdog(Duration::from_secs(170));
    let leaks = LeakCheck::begin();
    arrays!(0 1 2 3 7 47 48 49 63 64 65 111 112 113 127 128 129 175 176 177 239 240 241 255 256 257);
    arrays!(4080 4095 4096 4097 65472 65535 65536 65537);
    nothing();
    strings_and_a_process();
    mixed();
    leaks.end();
    assert_no_backstop();
}

fn nothing() {
    let (sender, receiver) = channel::<()>(3).unwrap();
    (0..3).for_each(|_| sender.send(()).unwrap());
    assert!(sender.try_send(()).unwrap_err().is_full());
    drop(sender);
    assert_eq!(receiver.iter().count(), 3);
}

fn strings_and_a_process() {
    let (to_child, from_us) = channel(1).unwrap();
    let (to_us, from_child) = channel(1).unwrap();
    let child = Process::spawn(echo, (from_us, to_us)).unwrap();
    let lengths = lengths();
    for &len in &lengths {
        to_child.send(pattern(len)).unwrap();
        let back = from_child.recv().unwrap();
        assert!(back == pattern(len), "{len} bytes came back as {} others", back.len());
    }
    drop(to_child);
    assert_eq!(child.join().unwrap(), lengths.len());
    assert!(from_child.recv().unwrap_err().is_disconnected());
}

/// Large and small in turn through the same slots.
fn mixed() {
    let (sender, receiver) = channel(3).unwrap();
    let lens = [0, 100_000, 1, 5000, 112, 113, 70_000, 3];
    for round in 0..50 {
        for at in 0..3 {
            sender.send(pattern(lens[(round + at) % lens.len()])).unwrap();
        }
        for at in 0..3 {
            assert!(receiver.recv().unwrap() == pattern(lens[(round + at) % lens.len()]));
        }
    }
}
