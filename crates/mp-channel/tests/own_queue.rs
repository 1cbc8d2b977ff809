//! A channel whose last ends lie in its own queue. One test alone in its process: it looks at the whole session.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{channel, growing_channel};
use mp_shm::{AnyHandle, Session};
use mp_spawn::Process;
use mp_testkit::watchdog;
use std::time::Duration;

fn own_ends_in_own_queue(how: u8) {
    // A channel of pipes' ends, whose own ends are erased by the pipe around them.
    let (writer, reader) = mp_channel::pipe::one_way(4).unwrap();
    match how {
        0 => writer.send(&writer).unwrap(),
        1 => writer.send(&reader).unwrap(),
        _ => writer.send(&(vec![Some(writer.clone())], reader)).unwrap(),
    }
    drop(writer);
}

#[test]
fn b22_a_channel_whose_last_ends_lie_in_its_own_queue_is_collected() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let before = Session::current().unwrap().audit();
    for how in 0..3 {
        own_ends_in_own_queue(how);
        let audit = Session::current().unwrap().audit();
        assert_eq!((audit.objects, audit.blocks), (before.objects, before.blocks), "{how}: {audit:?}");
        assert!(audit.counts_are_right);
    }
    grown_by_its_own_ends();
    let audit = Session::current().unwrap().audit();
    assert_eq!((audit.objects, audit.blocks), (before.objects, before.blocks), "grown: {audit:?}");
    drained_rings_keep_no_blocks();
    holders_that_die();
}

/// Blocks of a burst of large messages do not stay where no sender comes any more.
fn drained_rings_keep_no_blocks() {
    let (sender, receiver) = growing_channel::<Vec<u8>>(1, 1 << 20).unwrap();
    let before = Session::current().unwrap().audit().blocks;
    for _ in 0..255 {
        sender.send(vec![1; 5000]).unwrap();
    }
    assert_eq!(sender.capacity(), 128, "1 + 2 + … + 128");
    assert_eq!(receiver.try_iter().count(), 255);
    let kept = Session::current().unwrap().audit().blocks - before;
    // A spare one in each slot of the last ring, the rings themselves, what this process keeps for its next messages.
    assert!(kept <= 128 + 8 + 64, "{kept} blocks");
}

/// Its ends lie in several of its rings, but not in the first.
fn grown_by_its_own_ends() {
    let (sender, receiver) = growing_channel::<Option<AnyHandle>>(1, 1 << 16).unwrap();
    sender.send(None).unwrap();
    for _ in 0..5 {
        sender.send(Some(AnyHandle::of(&sender).unwrap())).unwrap();
        sender.send(Some(AnyHandle::of(&receiver).unwrap())).unwrap();
    }
    assert_eq!(receiver.len(), 11);
}

fn put_ends_in_and_die(how: u8) {
    let (writer, reader) = mp_channel::pipe::one_way(4).unwrap();
    writer.send(&(vec![Some(writer.clone())], reader)).unwrap();
    if how == 0 {
        std::process::abort();
    }
    std::mem::forget(writer);
}

/// Collected, too, when the last holder dies.
fn holders_that_die() {
    for how in 0..2 {
        let child = Process::spawn(put_ends_in_and_die, how).unwrap();
        assert_eq!(child.join().is_err(), how == 0);
        let (_quiet, silent) = channel::<u64>(1).unwrap();
        mp_testkit::proc::until(|| {
            // Who looks for a message finds a death.
            assert!(silent.try_recv().unwrap_err().is_empty());
            let audit = Session::current().unwrap().audit();
            audit.processes == 1 && audit.objects == 1 && audit.blocks == 0
        });
    }
}
