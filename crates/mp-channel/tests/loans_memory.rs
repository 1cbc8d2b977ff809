//! How much memory a stream of loans takes. Alone in its file, since it looks at the whole session.
#![cfg(not(loom))]

use mp_channel::channel;
use mp_shm::Session;
use mp_testkit::watchdog;
use std::time::Duration;

#[test]
fn b13_a_steady_stream_of_loans_takes_no_new_memory() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let (sender, receiver) = channel::<Vec<u8>>(2).unwrap();
    let session = Session::current().unwrap();
    let turn = || {
        let mut loan = sender.loan_slice(1 << 20).unwrap();
        loan[0] = 7;
        loan.send().unwrap();
        assert_eq!(receiver.recv_archived().unwrap().as_slice()[0], 7);
    };
    (0..8).for_each(|_| turn());
    let before = session.committed_bytes().unwrap();
    (0..100).for_each(|_| turn());
    assert_eq!(session.committed_bytes().unwrap(), before);
}
