//! Loans through a lane use the same memory again. One test alone in its process: it looks at the whole session.
#![cfg(not(loom))]

use mp_channel::spsc;
use mp_shm::Session;
use mp_testkit::watchdog;
use std::time::Duration;

#[test]
fn b13_a_steady_stream_of_loans_through_a_lane_takes_no_new_memory() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let (mut sender, mut receiver) = spsc::channel::<Vec<u8>>(2).unwrap();
    let mut send = || {
        let mut loan = sender.loan_slice(1 << 17).unwrap();
        loan[0] = 7;
        loan.send().unwrap();
        assert_eq!(receiver.recv_archived().unwrap().as_slice()[0], 7);
    };
    (0..8).for_each(|_| send());
    let session = Session::current().unwrap();
    let before = session.committed_bytes().unwrap();
    (0..100).for_each(|_| send());
    assert_eq!(session.committed_bytes().unwrap(), before);
}
