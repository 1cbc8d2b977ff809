//! Channels whose receivers all see every message.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::broadcast::{Receiver, Sender, channel};
use mp_channel::{RecvError, Select, SendFailure};
use mp_shm::Session;
use mp_spawn::Process;
use mp_testkit::{assert_no_backstop, watchdog};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);

type Item = (u64, Vec<u64>);

fn item(number: u64) -> Item {
    let len = if number.is_multiple_of(5) { 700 } else { number % 9 };
    (number, vec![number; usize::try_from(len).unwrap()])
}

fn is_whole((number, words): &Item) -> bool {
    *words == item(*number).1
}

#[test]
fn b19_each_receiver_sees_every_message_from_when_it_was_made() {
    let _watchdog = watchdog(LONG);
    let (sender, mut first) = channel::<Item>(16).unwrap();
    sender.send(&item(0)).unwrap();
    let mut second = sender.subscribe().unwrap();
    let mut third = first.clone();
    (1..11).for_each(|number| sender.send(&item(number)).unwrap());
    for number in 0..11 {
        assert_eq!(first.try_recv().unwrap(), item(number));
        assert_eq!(third.try_recv().unwrap(), item(number));
    }
    for number in 1..11 {
        assert_eq!(second.recv().unwrap(), item(number));
    }
    assert!(first.try_recv().unwrap_err().is_empty());
    let start = Instant::now();
    assert!(first.recv_timeout(SHORT).unwrap_err().is_empty());
    assert!(start.elapsed() >= SHORT, "early");
    sender.send(&item(11)).unwrap();
    drop(sender);
    assert_eq!(first.recv().unwrap(), item(11));
    assert!(first.recv().unwrap_err().is_disconnected());
    assert_eq!(second.recv().unwrap(), item(11));
    assert!(second.try_recv().unwrap_err().is_disconnected());
}

#[test]
fn b19_every_form_of_sending_waits_for_no_receiver_and_tells_when_all_are_gone() {
    let _watchdog = watchdog(LONG);
    type Send = fn(&Sender<Item>, &Item) -> Result<(), SendFailure>;
    let forms: [(&str, Send); 6] = [
        ("send", |sender, value| sender.send(value)),
        ("try_send", |sender, value| sender.try_send(value)),
        ("send_timeout", |sender, value| sender.send_timeout(value, LONG)),
        ("send_timeout of zero", |sender, value| sender.send_timeout(value, Duration::ZERO)),
        ("send_deadline", |sender, value| sender.send_deadline(value, Instant::now() + LONG)),
        ("send_deadline now", |sender, value| sender.send_deadline(value, Instant::now())),
    ];
    for (name, send) in forms {
        let (sender, mut slow) = channel::<Item>(2).unwrap();
        let mut quick = slow.clone();
        for number in 0..5 {
            send(&sender, &item(number)).unwrap();
            assert_eq!(quick.try_recv().unwrap(), item(number), "{name}");
        }
        let Err(RecvError::Missed(missed)) = slow.recv() else { panic!("{name}: it waited for a receiver") };
        for number in missed..5 {
            assert_eq!(slow.try_recv().unwrap(), item(number), "{name}");
        }
        assert!(slow.try_recv().unwrap_err().is_empty(), "{name}");
        drop(slow);
        send(&sender, &item(5)).unwrap();
        drop(quick);
        let gone = send(&sender, &item(6));
        assert!(matches!(gone, Err(SendFailure::Disconnected)), "{name}: {gone:?}");
    }
}

#[test]
fn b19_a_receiver_waits_until_a_deadline_and_not_less() {
    let _watchdog = watchdog(LONG);
    let (sender, mut receiver) = channel::<Item>(2).unwrap();
    let deadline = Instant::now() + SHORT;
    assert!(receiver.recv_deadline(deadline).unwrap_err().is_empty());
    assert!(Instant::now() >= deadline, "early");
    sender.send(&item(0)).unwrap();
    assert_eq!(receiver.recv_deadline(deadline).unwrap(), item(0), "what is there needs no time");
    drop(sender);
    assert!(receiver.recv_deadline(Instant::now() + LONG).unwrap_err().is_disconnected());
}

#[test]
fn b19_one_who_comes_too_late_is_told_what_he_missed_and_finds_the_last_messages() {
    let _watchdog = watchdog(LONG);
    for capacity in [1_usize, 2, 3, 7, 8] {
        let kept = capacity as u64;
        let counts = [kept, kept + 1, kept * 2, kept * 3 + 1];
        for (count, bytes) in counts.into_iter().flat_map(|count| [(count, 0), (count, 5000)]) {
            let (sender, mut receiver) = channel::<(u64, Vec<u8>)>(capacity).unwrap();
            let item = |number: u64| (number, vec![number.to_le_bytes()[0]; bytes]);
            (0..count).for_each(|number| sender.send(&item(number)).unwrap());
            drop(sender);
            if count > kept {
                let missed = receiver.recv();
                assert!(matches!(missed, Err(RecvError::Missed(n)) if n == count - kept), "{missed:?}");
            }
            for number in count - kept..count {
                assert_eq!(receiver.recv().unwrap(), item(number), "of {count} with room for {capacity}");
            }
            assert!(receiver.recv().unwrap_err().is_disconnected());
        }
    }
}

fn listen(mut receiver: Receiver<Item>) -> (u64, u64) {
    let (mut seen, mut missed) = (0, 0);
    let mut next = 0;
    loop {
        match receiver.recv() {
            Ok(one) => {
                assert!(is_whole(&one), "torn: {one:?}");
                assert_eq!(one.0, next, "in order");
                next += 1;
                seen += 1;
            }
            Err(RecvError::Missed(count)) => {
                next += count;
                missed += count;
            }
            Err(error) => {
                assert!(error.is_disconnected(), "{error}");
                assert_no_backstop();
                return (seen, missed);
            }
        }
    }
}

#[test]
fn b19_receivers_in_other_processes_account_for_every_message() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<Item>(64).unwrap();
    let listeners: Vec<_> = (0..3).map(|_| Process::spawn(listen, receiver.clone()).unwrap()).collect();
    drop(receiver);
    (0..20_000).for_each(|number| sender.send(&item(number)).unwrap());
    drop(sender);
    for listener in listeners {
        let (seen, missed) = listener.join().unwrap();
        assert_eq!(seen + missed, 20_000);
        assert!(seen > 0);
    }
}

fn never_listen(_receiver: Receiver<Item>) {
    loop {
        std::thread::park();
    }
}

fn shout(sender: Sender<Item>) {
    for number in 0.. {
        if sender.send(&item(number)).is_err() {
            return;
        }
    }
}

#[test]
fn b19_slow_stopped_and_dead_receivers_hold_nobody_up() {
    let _watchdog = watchdog(LONG);
    let (sender, mut receiver) = channel::<Item>(4).unwrap();
    let lazy = Process::spawn(never_listen, receiver.clone()).unwrap();
    for number in 0..1000 {
        sender.send(&item(number)).unwrap();
        assert_eq!(receiver.recv().unwrap(), item(number));
    }
    lazy.kill().unwrap();
    sender.send(&item(1000)).unwrap();
    assert_eq!(receiver.recv().unwrap().0, 1000);
    assert_eq!(lazy.join().unwrap_err().signal(), Some(9));
    drop(receiver);
    assert!(matches!(sender.send(&item(0)), Err(SendFailure::Disconnected)));
}

#[test]
fn b7_senders_killed_in_the_middle_leave_whole_messages_to_the_rest() {
    let _watchdog = watchdog(LONG);
    let (sender, mut receiver) = channel::<Item>(4).unwrap();
    for _ in 0..30 {
        let victim = Process::spawn(shout, sender.clone()).unwrap();
        for _ in 0..20 {
            match receiver.recv() {
                Ok(one) => assert!(is_whole(&one), "torn: {one:?}"),
                Err(RecvError::Missed(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        victim.kill().unwrap();
        assert_eq!(victim.join().unwrap_err().signal(), Some(9));
        // The next message gets through, whatever the dead one left.
        sender.send(&(1 << 40, Vec::new())).unwrap();
        loop {
            match receiver.recv() {
                Ok((number, _)) if number == 1 << 40 => break,
                Ok(one) => assert!(is_whole(&one), "torn: {one:?}"),
                Err(RecvError::Missed(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    drop((sender, receiver));
    let audit = Session::current().unwrap().audit();
    assert!(audit.counts_are_right, "{audit:?}");
}

#[test]
fn b15_a_broadcast_can_be_selected_again_and_again() {
    let _watchdog = watchdog(LONG);
    let (sender, mut receiver) = channel::<u64>(4).unwrap();
    let mut select = Select::new();
    let this = select.end(&receiver);
    for number in 0..10 {
        assert!(select.try_ready().unwrap_err().is_timeout());
        sender.send(&number).unwrap();
        assert_eq!(select.ready().unwrap(), this);
        assert_eq!(receiver.try_recv().unwrap(), number);
    }
    let handle = mp_channel::broadcast::channel::<Sender<u64>>(1).unwrap().0;
    assert!(matches!(handle.send(&sender), Err(SendFailure::Disconnected)));
    let (handles, _kept) = mp_channel::broadcast::channel::<Sender<u64>>(1).unwrap();
    assert!(matches!(handles.send(&sender), Err(SendFailure::Handles)));
}
