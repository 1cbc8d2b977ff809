//! Channels whose memory somebody overwrites while they are used.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::untrusted::{self, MESSAGE_BYTES_MAX, Receiver, Sender};
use mp_channel::{ChannelError, RecvError, SendFailure, channel};
use mp_spawn::{JoinError, Process};
use mp_testkit::proc::Task;
use mp_testkit::{assert_no_backstop, watchdog};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(120);
const SHORT: Duration = Duration::from_millis(2);

type Item = (u64, String, Vec<Option<u32>>);

fn item(number: u64) -> Item {
    (number, "x".repeat((number % 50) as usize), vec![None, Some(7)])
}

fn echo((inbox, outbox): (Receiver<Item>, Sender<Item>)) {
    for one in inbox.iter() {
        outbox.send(one).unwrap();
    }
    assert_no_backstop();
}

#[test]
fn b18_an_untrusted_channel_carries_messages_as_any_other() {
    let _watchdog = watchdog(LONG);
    let (sender, inbox) = untrusted::channel::<Item>(4, 300).unwrap();
    let (outbox, receiver) = untrusted::channel::<Item>(4, 300).unwrap();
    let child = Process::spawn(echo, (inbox, outbox)).unwrap();
    for number in 0..2000 {
        sender.send(item(number)).unwrap();
        assert_eq!(receiver.recv().unwrap(), item(number));
    }
    assert!(receiver.recv_timeout(SHORT).unwrap_err().is_empty());
    let error = sender.send((1, "y".repeat(1000), Vec::new())).unwrap_err();
    assert!(matches!(error.failure, SendFailure::TooLarge { bytes: 1000.., most: 300..400 }), "{error}");
    drop(sender);
    assert!(receiver.recv().unwrap_err().is_disconnected());
    child.join().unwrap();
    drop(receiver);
}

#[test]
fn b18_sizes_and_handles_that_an_untrusted_channel_cannot_have_are_errors() {
    let _watchdog = watchdog(LONG);
    for bytes in [0, MESSAGE_BYTES_MAX + 1] {
        assert!(matches!(untrusted::channel::<u8>(1, bytes), Err(ChannelError::MessageBytes(_))));
    }
    assert!(matches!(untrusted::channel::<u8>(0, 8), Err(ChannelError::Capacity(0))));
    let (sender, receiver) = untrusted::channel::<Vec<u8>>(2, MESSAGE_BYTES_MAX).unwrap();
    let large = vec![3; MESSAGE_BYTES_MAX - 8];
    sender.try_send(large.clone()).unwrap();
    assert_eq!(receiver.try_recv().unwrap(), large);
    let (inner, _inner_out) = channel::<u64>(1).unwrap();
    let (handles, _handles_out) = untrusted::channel::<mp_channel::Sender<u64>>(1, 64).unwrap();
    assert!(matches!(handles.send(inner).unwrap_err().failure, SendFailure::Handles));
}

/// Overwrites words at random until it is told to stop: with anything, with values of other words, one bit at a time.
fn overwrite(memory: &[AtomicU32], seed: u64, stop: &AtomicBool) -> u64 {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let word = &memory[random.usize(..memory.len())];
        match random.u32(..4) {
            0 => word.store(random.u32(..), Ordering::Relaxed),
            1 => word.store(memory[random.usize(..memory.len())].load(Ordering::Relaxed), Ordering::Relaxed),
            2 => drop(word.fetch_xor(1 << random.u32(..32), Ordering::Relaxed)),
            _ => word.store(random.u32(..16), Ordering::Relaxed),
        }
        count += 1;
        if random.u32(..64) == 0 {
            std::thread::yield_now();
        }
    }
    count
}

fn send_whatever((sender, count): (Sender<Item>, u64)) -> u64 {
    (0..count).filter(|number| sender.send_timeout(item(*number), SHORT).is_ok()).count() as u64
}

#[test]
fn b18_every_word_of_an_untrusted_channel_may_be_overwritten_at_any_time() {
    let _watchdog = watchdog(LONG);
    for seed in 0..4 {
        let (sender, receiver) = untrusted::channel::<Item>(3, 200).unwrap();
        let child = Process::spawn(send_whatever, (sender.clone(), 300)).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let attacker = scope.spawn(|| overwrite(sender.memory(), seed, &stop));
            let own = sender.clone();
            let writer = scope.spawn(move || send_whatever((own, 300)));
            let other = receiver.clone();
            let reader = scope.spawn(move || {
                for _ in 0..300 {
                    // Any answer will do, but one must come.
                    let _ = other.recv_timeout(SHORT);
                }
            });
            for _ in 0..300 {
                let _ = receiver.recv_timeout(SHORT);
                let _ = (receiver.capacity(), format!("{receiver:?}"));
            }
            writer.join().unwrap();
            reader.join().unwrap();
            // It may have found at its start that this is no channel any more.
            let child = child.join();
            stop.store(true, Ordering::Relaxed);
            assert!(matches!(child, Ok(_) | Err(JoinError::Argument(_))), "{child:?}");
            assert!(attacker.join().unwrap() > 0);
        });
        // Whoever opens it anew checks what it finds.
        let (carrier, carried) = channel::<Receiver<Item>>(1).unwrap();
        carrier.send(receiver).unwrap();
        match carried.recv() {
            Ok(receiver) => drop(receiver.try_recv()),
            Err(error) => assert!(matches!(error, RecvError::Decode(_)), "{error}"),
        }
    }
}

#[test]
fn b18_every_control_word_of_a_ring_may_be_overwritten_at_any_time() {
    let _watchdog = watchdog(LONG);
    for seed in 0..4 {
        let (sender, receiver) = channel::<(u64, u64)>(3).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let attacker = scope.spawn(|| {
                let words = sender.control_words();
                let mut random = fastrand::Rng::with_seed(seed);
                while !stop.load(Ordering::Relaxed) {
                    let word = words[random.usize(..words.len())];
                    match random.u32(..3) {
                        0 => word.store(random.u64(..), Ordering::Relaxed),
                        1 => word.store(random.u64(..64), Ordering::Relaxed),
                        _ => drop(word.fetch_xor(1 << random.u32(..64), Ordering::Relaxed)),
                    }
                    if random.u32(..16) == 0 {
                        std::thread::yield_now();
                    }
                }
            });
            let own = sender.clone();
            let writer = scope.spawn(move || {
                (0..500).filter(|&number| own.send_timeout((number, number), SHORT).is_ok()).count()
            });
            for _ in 0..500 {
                let _ = receiver.recv_timeout(SHORT);
                let _ = receiver.len();
            }
            writer.join().unwrap();
            stop.store(true, Ordering::Relaxed);
            attacker.join().unwrap();
        });
    }
}

#[test]
fn b18_no_block_of_the_session_is_freed_for_what_a_peer_wrote_into_an_untrusted_channel() {
    let _watchdog = watchdog(LONG);
    let (loans, loans_out) = channel::<Vec<u64>>(64).unwrap();
    loans.send_slice(&[7; 500]).unwrap();
    let kept = loans_out.recv_archived().unwrap();
    // Where the kept message's block is, as a slot would name it: its header is 64 bytes before the elements.
    let session = mp_shm::Session::current().unwrap();
    let start = session.bytes(0, 1).unwrap().as_ptr() as usize;
    let number = u32::try_from((kept.as_slice().as_ptr() as usize - start) / 64 - 1).unwrap();
    let (sender, receiver) = untrusted::channel::<Item>(4, 200).unwrap();
    // Behind the control words, which say that it is a channel at all.
    let slots = sender.memory().len() - 4 * 256 / 4;
    sender.memory()[slots..].iter().for_each(|word| word.store(number, Ordering::Relaxed));
    drop((sender, receiver));
    // Were the block free now, one of these would be it.
    for _ in 0..64 {
        loans.send_slice(&[8; 500]).unwrap();
    }
    assert_eq!(kept.as_slice(), [7; 500]);
}

#[test]
fn b18_who_waits_is_told_that_the_others_are_gone_even_if_the_channel_s_shape_is_garbled() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = untrusted::channel::<Item>(4, 200).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let waiter = std::thread::spawn(move || {
        tell.send(Task::current()).unwrap();
        receiver.recv()
    });
    told.recv().unwrap().wait_until_blocked();
    // Five lines of control words, and then the shape.
    sender.memory()[5 * 16..][..8].iter().for_each(|word| word.store(u32::MAX, Ordering::Relaxed));
    drop(sender);
    assert!(waiter.join().unwrap().unwrap_err().is_disconnected());
    assert_no_backstop();
}
