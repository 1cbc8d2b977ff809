//! Messages read where they lie, and built where they will be read.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, Sender, channel};
use mp_shm::Session;
use mp_spawn::Process;
use mp_testkit::watchdog;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

#[test]
fn b13_a_received_archive_is_read_in_place_and_outlives_the_channel() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<(u32, Vec<String>)>(4).unwrap();
    sender.send((1, vec!["small".to_owned()])).unwrap();
    sender.send((2, vec!["large".repeat(1000)])).unwrap();
    let small = receiver.recv_archived().unwrap();
    let large = receiver.try_recv_archived().unwrap();
    drop((sender, receiver));
    assert_eq!((small.0.to_native(), small.1[0].as_str()), (1, "small"));
    assert_eq!((large.0.to_native(), large.1[0].len()), (2, 5000));
    // The large one was not copied: it lies in the session's memory.
    let session = Session::current().unwrap();
    let start = session.bytes(0, 1).unwrap().as_ptr() as usize;
    let inside = |address: usize| (start..start + (64 << 30)).contains(&address);
    assert!(inside(large.1[0].as_ptr() as usize));
    assert!(!inside(small.1[0].as_ptr() as usize), "a small one was copied out");
    assert_eq!(large.into_value().unwrap().1[0], "large".repeat(1000));
}

#[test]
fn b23_archives_kept_or_forgotten_do_not_stop_the_channel() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<Vec<u64>>(2).unwrap();
    let mut kept = Vec::new();
    for round in 0..50 {
        sender.send(vec![round; 500]).unwrap();
        let received = receiver.recv_archived().unwrap();
        if round % 2 == 0 {
            std::mem::forget(received);
        } else {
            kept.push((round, received));
        }
    }
    for (round, received) in kept {
        assert!(received.as_slice().iter().all(|&one| one == round));
        assert_eq!(received.as_slice().len(), 500);
    }
}

#[test]
fn b13_a_handle_in_an_archive_is_taken_when_the_value_is_rebuilt() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<(u64, Sender<u64>)>(2).unwrap();
    let (inner, inner_out) = channel::<u64>(1).unwrap();
    sender.send((1, inner.clone())).unwrap();
    sender.send((2, inner)).unwrap();
    let (first, second) = (receiver.recv_archived().unwrap(), receiver.recv_archived().unwrap());
    let (_, inner) = first.into_value().unwrap();
    inner.send(5).unwrap();
    drop(inner);
    assert_eq!(inner_out.recv().unwrap(), 5);
    assert!(inner_out.try_recv().unwrap_err().is_empty(), "the second message still holds an end");
    drop(second);
    assert!(inner_out.try_recv().unwrap_err().is_disconnected());
}

fn sum((slices, count): (Receiver<Vec<f32>>, usize)) -> Vec<f64> {
    let sum_of = |slice: &[f32]| slice.iter().map(|&one| f64::from(one)).sum();
    (0..count).map(|_| sum_of(slices.recv_archived().unwrap().as_slice())).collect()
}

#[test]
fn b13_a_loan_is_filled_in_place_shrunk_and_received_as_a_vector() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<Vec<f32>>(4).unwrap();
    let child = Process::spawn(sum, (receiver.clone(), 3)).unwrap();
    for count in [1, 1000, 300_000] {
        let mut loan = sender.loan_slice(count + 17).unwrap();
        loan.fill(0.5);
        loan.truncate(count);
        loan.send().unwrap();
    }
    assert_eq!(child.join().unwrap(), [0.5, 500.0, 150_000.0]);
    let loan = sender.loan_uninit(8).unwrap().write(&[1.0, 2.0]);
    loan.send().unwrap();
    sender.loan_slice(0).unwrap().send().unwrap();
    sender.send_slice(&[3.0; 100]).unwrap();
    assert_eq!(receiver.recv().unwrap(), [1.0, 2.0]);
    assert!(receiver.recv().unwrap().is_empty());
    assert_eq!(receiver.recv().unwrap(), [3.0; 100]);
}

#[test]
fn b13_a_loan_that_is_refused_comes_back_with_what_was_written() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<Vec<u16>>(1).unwrap();
    sender.send(Vec::new()).unwrap();
    let mut loan = sender.loan_slice(3).unwrap();
    loan.copy_from_slice(&[1, 2, 3]);
    let error = loan.try_send().unwrap_err();
    assert!(error.is_full());
    let loan = error.into_value();
    assert_eq!(*loan, [1, 2, 3]);
    let error = loan.send_timeout(Duration::from_millis(1)).unwrap_err();
    drop(receiver);
    let error = error.into_value().send().unwrap_err();
    assert!(error.is_disconnected());
    drop(error);
    drop(sender);
    let audit = Session::current().unwrap().audit();
    assert!(audit.counts_are_right, "{audit:?}");
}

#[test]
fn b17_batches_keep_order_and_tell_what_was_not_sent() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<u64>(8).unwrap();
    let reader = std::thread::spawn(move || {
        let mut values = Vec::new();
        while receiver.recv_many(&mut values, 5).is_ok() {}
        (values, receiver)
    });
    assert_eq!(sender.send_all(0..1000).unwrap(), 1000);
    drop(sender);
    let (values, receiver) = reader.join().unwrap();
    assert_eq!(values, (0..1000).collect::<Vec<_>>());
    let mut more = Vec::new();
    assert!(receiver.try_recv_many(&mut more, 3).unwrap_err().is_disconnected());
    assert_eq!(receiver.recv_many(&mut more, 0).unwrap(), 0);

    let (sender, receiver) = channel::<u64>(8).unwrap();
    let mut numbers = 0..10;
    let mut taken = Vec::new();
    sender.send_all(numbers.by_ref().take(4)).unwrap();
    assert_eq!(receiver.try_recv_many(&mut taken, 100).unwrap(), 4);
    assert!(receiver.recv_many_timeout(&mut taken, 1, Duration::from_millis(5)).unwrap_err().is_empty());
    drop(receiver);
    let error = sender.send_all(numbers.by_ref()).unwrap_err();
    assert_eq!((error.sent, error.error.is_disconnected(), error.error.into_value()), (0, true, 4));
    assert_eq!(numbers.collect::<Vec<_>>(), [5, 6, 7, 8, 9]);
    assert_eq!(taken, [0, 1, 2, 3]);
}
