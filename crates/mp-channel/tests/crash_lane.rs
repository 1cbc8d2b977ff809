//! What a lane's sender that dies in the middle of a message with a handle leaves.
//!
//! Build with `RUSTFLAGS="--cfg mp_crash"`.
#![cfg(mp_crash)]
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "a child finds the point at which it dies in its environment")]

use mp_channel::{Sender, channel, spsc};
use mp_spawn::Process;
use mp_testkit::{assert_no_backstop, watchdog};
use std::time::Duration;

type Item = (u64, Option<Sender<u64>>);

fn victim((mut lane, held): (spsc::Sender<Item>, Sender<u64>)) {
    lane.send((1, None)).unwrap();
    lane.send((2, Some(held))).unwrap();
}

#[test]
fn b7_handles_in_a_message_that_a_dead_sender_did_not_finish_are_given_back_at_once() {
    let _watchdog = watchdog(Duration::from_secs(60));
    // This process reads the variable before any child is given it.
    drop(channel::<u64>(1).unwrap());
    for point in ["lane.written:2", "lane.writing:1", "slot.spare_taken:1"] {
        let (held, held_out) = channel::<u64>(1).unwrap();
        let (lane, mut lane_out) = spsc::channel::<Item>(4).unwrap();
        // SAFETY: no other thread of this process reads or writes the environment: the one test here runs alone.
        unsafe { std::env::set_var("MP_CRASH", point) };
        let child = Process::spawn(victim, (lane, held)).unwrap();
        // SAFETY: as above.
        unsafe { std::env::remove_var("MP_CRASH") };
        assert_eq!(child.join().unwrap_err().signal(), Some(9), "{point}");
        assert_eq!(lane_out.recv().unwrap().0, 1);
        assert!(lane_out.recv().unwrap_err().is_disconnected());
        // While the lane is still there.
        assert!(held_out.recv().unwrap_err().is_disconnected(), "{point}");
        drop(lane_out);
    }
    assert_no_backstop();
}
