//! A broadcast's sender that is stopped in the middle of a message: one who comes a lap behind it keeps its time, and goes on when it was
//! killed.
//!
//! Build with `RUSTFLAGS="--cfg mp_crash"`.
#![cfg(mp_crash)]
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "a child finds the point at which it stops in its environment")]

use mp_channel::broadcast::{Sender, channel};
use mp_channel::{RecvError, SendFailure};
use mp_spawn::Process;
use mp_testkit::proc::Task;
use mp_testkit::{LeakCheck, proc, watchdog};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);

fn send_one(sender: Sender<u64>) {
    sender.send(&1).unwrap();
}

#[test]
fn b19_b21_a_stopped_sender_holds_a_lap_up_until_its_time_and_a_dead_one_does_not() {
    let _watchdog = watchdog(LONG * 2);
    let leaks = LeakCheck::begin();
    let (sender, mut receiver) = channel::<u64>(2).unwrap();
    // Passes a first point, so that this process reads the variable before any child is given it.
    sender.send(&0).unwrap();
    assert_eq!(receiver.recv().unwrap(), 0);
    // SAFETY: no other thread of this process reads or writes the environment: the one test here runs alone.
    unsafe { std::env::set_var("MP_CRASH", "bus.claimed:1:stop") };
    let victim = Process::spawn(send_one, sender.clone()).unwrap();
    // SAFETY: as above.
    unsafe { std::env::remove_var("MP_CRASH") };
    proc::until(|| Task::leader(victim.pid()).state() == Some('T'));

    // Beside it, and then on its slot.
    sender.try_send(&2).unwrap();
    let full = sender.try_send(&3);
    assert!(matches!(full, Err(SendFailure::Full)), "{full:?}");
    type Send = fn(&Sender<u64>) -> Result<(), SendFailure>;
    let waiting: [Send; 2] =
        [|sender| sender.send_timeout(&3, SHORT), |sender| sender.send_deadline(&3, Instant::now() + SHORT)];
    for send in waiting {
        let start = Instant::now();
        let full = send(&sender);
        assert!(matches!(full, Err(SendFailure::Full)), "{full:?}");
        assert!(start.elapsed() >= SHORT, "early");
    }
    assert!(receiver.try_recv().unwrap_err().is_empty());
    victim.kill().unwrap();
    assert_eq!(victim.join().unwrap_err().signal(), Some(9));
    sender.send_deadline(&3, Instant::now() + LONG).unwrap();
    // What the dead one had begun was overwritten, and counts as missed; the two after it are left.
    let missed = receiver.recv();
    assert!(matches!(missed, Err(RecvError::Missed(1))), "{missed:?}");
    assert_eq!((receiver.recv().unwrap(), receiver.recv().unwrap()), (2, 3));
    assert!(receiver.try_recv().unwrap_err().is_empty());
    drop((sender, receiver));
    leaks.end();
}
