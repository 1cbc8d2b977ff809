//! A channel whose last ends are in its own queue is nobody's any more.
#![cfg(not(loom))]

use mp_channel::dynamic::{DynReceiver, DynSender, channel};
use mp_testkit::{LeakCheck, assert_no_backstop, watchdog};
use std::time::Duration;

#[test]
fn b22_a_channel_whose_last_ends_lie_in_its_own_queue_is_collected() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let leaks = LeakCheck::begin();
    let (sender, receiver) = channel(4).unwrap();
    let ends: (DynSender, DynReceiver) = (sender.clone(), receiver.clone());
    sender.send([0; 4], &ends).unwrap();
    drop((ends, sender, receiver));
    leaks.end();
    assert_no_backstop();
}
