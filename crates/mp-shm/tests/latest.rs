//! Latest-value cells between processes: never torn, never going back, never starved, and a writer that dies.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Sender, channel};
use mp_shm::latest::latest;
use mp_shm::sole::NotSole;
use mp_shm::{Latest, LatestWriter, Value};
use mp_spawn::Process;
use mp_testkit::{assert_no_backstop, watchdog};
use std::time::Duration;

/// Numbers in a value: 1 KiB, so that a copy takes a while.
const LEN: usize = 128;
type Large = [u64; LEN];

fn write_on((mut writer, stop): (LatestWriter<Large>, Value<u8>)) -> u64 {
    writer.wait_sole(Duration::from_secs(60)).unwrap();
    for number in 1.. {
        writer.set([number; LEN]).unwrap();
        if stop.get() == 1 {
            return number;
        }
    }
    0
}

/// Reads until `reads` different values were seen; `None` if one was torn or older than the one before.
fn read_on((latest, reads): (Latest<Large>, u32)) -> Option<u64> {
    let (mut before, mut seen) = (0, 0);
    while seen < reads {
        let value = latest.get();
        if value.iter().any(|one| *one != value[0]) || value[0] < before {
            return None;
        }
        seen += u32::from(value[0] > before);
        before = value[0];
    }
    Some(before)
}

#[test]
fn d12_readers_never_see_half_of_a_value_and_are_not_starved() {
    let _watchdog = watchdog(Duration::from_secs(120));
    let (writer, cell) = latest([0; LEN]).unwrap();
    let stop = Value::new(0_u8).unwrap();
    let child = Process::spawn(write_on, (writer, stop.clone())).unwrap();
    let reader = Process::spawn(read_on, (cell.clone(), 2_000)).unwrap();
    let last = read_on((cell.clone(), 2_000));
    let other = reader.join().unwrap();
    stop.set(1);
    let written = child.join().unwrap();
    assert!(last.is_some_and(|last| last <= written), "{last:?} of {written}");
    assert!(other.is_some_and(|last| last <= written), "{other:?} of {written}");
    assert_eq!(cell.get(), [written; LEN]);
    assert_no_backstop();
}

#[test]
fn d12_values_of_any_size() {
    fn check<T: mp_shm::ShmSafe + Copy + PartialEq + std::fmt::Debug>(values: [T; 3]) {
        let (mut writer, latest) = latest(values[0]).unwrap();
        assert_eq!(latest.get(), values[0]);
        // Several times round every ring there is.
        for round in 0..200 {
            writer.set(values[round % 3]).unwrap();
            assert_eq!(latest.get(), values[round % 3]);
        }
    }
    check([1_u8, 2, 3]);
    check([1.5_f32, 2.5, 3.5]);
    check([[1_u8; 13], [2; 13], [3; 13]]);
    check([[1_u64; 8], [2; 8], [3; 8]]);
    check([[1_u32; 1001], [2; 1001], [3; 1001]]);
    check([[1_u64; 2048], [2; 2048], [3; 2048]]);
}

fn write_until_killed((mut writer, told): (LatestWriter<Large>, Sender<()>)) {
    writer.wait_sole(Duration::from_secs(60)).unwrap();
    for number in 1.. {
        writer.set([number; LEN]).unwrap();
        if number == 100 {
            told.send(()).unwrap();
        }
    }
}

#[test]
fn d12_a_killed_writer_leaves_a_whole_value_and_its_place() {
    let _watchdog = watchdog(Duration::from_secs(120));
    let (writer, cell) = latest([0; LEN]).unwrap();
    let mut next = Some(writer);
    for number in 0..20 {
        let (told, is_told) = channel(1).unwrap();
        let child = Process::spawn(write_until_killed, (next.take().unwrap(), told)).unwrap();
        is_told.recv().unwrap();
        assert!(cell.claim_writer().unwrap().is_none(), "there is a writer");
        child.kill().unwrap();
        // Nobody sleeps in the session meanwhile: the death is found by the claim itself.
        mp_testkit::proc::until(|| mp_testkit::proc::has_ended(child.pid()));
        let left = cell.get();
        assert!(left.iter().all(|one| *one == left[0]) && left[0] >= 100, "{left:?}");
        let mut writer = cell.claim_writer().unwrap().expect("the writer is dead");
        let _ = child.join();
        assert!(cell.claim_writer().unwrap().is_none(), "one writer at a time");
        writer.set([number; LEN]).unwrap();
        assert_eq!(cell.get(), [number; LEN], "the next writer goes on");
        next = Some(writer);
    }
    drop(next);
    let writer = cell.claim_writer().unwrap().expect("the writer was dropped");
    assert_eq!(writer.reader().unwrap().get(), cell.get());
    assert_no_backstop();
}

#[test]
fn d12_a_writer_in_a_message_does_not_write() {
    let (mut writer, cell) = latest(1_u64).unwrap();
    let session = mp_shm::Session::current().unwrap();
    let message = mp_shm::codec::encode(session, &writer, 0).unwrap();
    assert_eq!(writer.set(2), Err(NotSole::Shared));
    drop(message);
    writer.set(3).unwrap();
    assert_eq!(cell.get(), 3);
}
