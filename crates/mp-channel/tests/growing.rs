//! Channels that grow when they are full.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::stamp::READING;
use mp_channel::{ChannelError, Receiver, Select, Sender, channel, growing_channel};
use mp_spawn::Process;
use mp_testkit::proc::Task;
use mp_testkit::{assert_no_backstop, watchdog};
use std::sync::atomic::Ordering;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(120);
const SHORT: Duration = Duration::from_millis(2);
const MUCH: usize = 1 << 24;

/// Small, large, and now and then with a handle.
type Item = (u64, Vec<u64>, Option<Sender<u64>>);

fn item(number: u64, handle: &Sender<u64>) -> Item {
    let len = if number.is_multiple_of(3) { 400 } else { 3 };
    (number, vec![number; len], number.is_multiple_of(5).then(|| handle.clone()))
}

fn check((number, content, handle): &Item, expected: u64) {
    assert_eq!(*number, expected);
    assert!(content.iter().all(|one| one == number));
    assert_eq!(handle.is_some(), number.is_multiple_of(5));
}

#[test]
fn b1_a_growing_channel_takes_what_comes_until_its_bound_and_keeps_the_order() {
    let _watchdog = watchdog(LONG);
    let (handle, _handle_out) = channel::<u64>(1).unwrap();
    for capacity in [1, 2, 3, 7, 64] {
        let (sender, receiver) = growing_channel::<Item>(capacity, MUCH).unwrap();
        assert_eq!(sender.capacity(), capacity);
        let (mut sent, mut received) = (0, 0);
        // Never empty, so that every ring is sealed while there is something in the one before.
        for round in 0..60 {
            for _ in 0..round {
                sender.try_send(item(sent, &handle)).unwrap();
                sent += 1;
            }
            for _ in 0..round / 2 {
                check(&receiver.try_recv().unwrap(), received);
                received += 1;
            }
            assert_eq!((receiver.len() as u64, receiver.is_empty()), (sent - received, sent == received));
        }
        assert!(sender.capacity() > 64 && sender.capacity().is_multiple_of(capacity), "doubled");
        drop(sender);
        receiver.iter().for_each(|item| {
            check(&item, received);
            received += 1;
        });
        assert_eq!(received, sent);
        assert!(receiver.try_recv().unwrap_err().is_disconnected());
    }
}

#[test]
fn b1_a_growing_channel_at_its_bound_is_full_and_a_sender_waits_for_room() {
    let _watchdog = watchdog(LONG);
    assert!(matches!(growing_channel::<u64>(0, MUCH), Err(ChannelError::Capacity(0))));
    let (sender, receiver) = growing_channel::<u64>(4, 0).unwrap();
    (0..4).for_each(|number| sender.try_send(number).unwrap());
    assert!(sender.try_send(4).unwrap_err().is_full(), "no bytes to grow by");
    drop((sender, receiver));
    let (sender, receiver) = growing_channel::<u64>(4, 1 << 14).unwrap();
    let mut sent = 0;
    while sender.try_send(sent).is_ok() {
        sent += 1;
    }
    // 16 KiB, of slots of 64 bytes and what comes before them in each ring.
    assert!((100..=256).contains(&sent), "{sent}");
    assert!(sender.send_timeout(sent, SHORT).unwrap_err().is_full());
    let (tell, told) = std::sync::mpsc::channel();
    let blocked = std::thread::spawn(move || {
        tell.send(Task::current()).unwrap();
        sender.send(sent).unwrap();
    });
    told.recv().unwrap().wait_until_blocked();
    let mut received = 0;
    receiver.iter().for_each(|number| {
        assert_eq!(number, received);
        received += 1;
    });
    assert_eq!(received, sent + 1);
    blocked.join().unwrap();
    assert_no_backstop();
}

fn produce((sender, from, count): (Sender<(u64, u64)>, u64, u64)) {
    for number in 0..count {
        sender.send((from, number)).unwrap();
    }
    assert_no_backstop();
}

/// How many messages came, and whether those of each sender came in their order.
fn consume(receiver: Receiver<(u64, u64)>) -> (u64, bool) {
    let (mut last, mut count, mut in_order) = ([None; 3], 0, true);
    for (from, number) in receiver.iter() {
        let last = &mut last[usize::try_from(from).unwrap()];
        in_order &= last.is_none_or(|last| last < number);
        *last = Some(number);
        count += 1;
    }
    assert_no_backstop();
    (count, in_order)
}

#[test]
fn b17_senders_and_receivers_in_several_processes_go_on_from_ring_to_ring() {
    let _watchdog = watchdog(LONG);
    for round in 0..10 {
        let (sender, receiver) = growing_channel(1 + round, MUCH).unwrap();
        let consumers: Vec<_> = (0..2).map(|_| Process::spawn(consume, receiver.clone()).unwrap()).collect();
        let producers: Vec<_> =
            (0..3).map(|from| Process::spawn(produce, (sender.clone(), from, 3000)).unwrap()).collect();
        drop((sender, receiver));
        producers.into_iter().for_each(|child| child.join().unwrap());
        let mut total = 0;
        for child in consumers {
            let (count, in_order) = child.join().unwrap();
            assert!(in_order);
            total += count;
        }
        assert_eq!(total, 9000);
    }
    assert_no_backstop();
}

#[test]
fn b9_an_end_opened_late_finds_the_ring_and_both_sides_learn_of_the_others_end() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = growing_channel::<(u64, u64)>(1, MUCH).unwrap();
    let (late, late_out) = growing_channel::<(u64, u64)>(1, MUCH).unwrap();
    for number in 0..100 {
        sender.send((0, number)).unwrap();
        late.send((0, number)).unwrap();
    }
    drop(late);
    // Opens both ends anew: sends behind what is there, and takes it all.
    let producer = Process::spawn(produce, (sender, 1, 50)).unwrap();
    producer.join().unwrap();
    assert_eq!(receiver.iter().count(), 150);
    let consumer = Process::spawn(consume, late_out).unwrap();
    assert_eq!(consumer.join().unwrap(), (100, true));
    let (sender, receiver) = growing_channel::<u64>(1, MUCH).unwrap();
    (0..9).for_each(|number| sender.send(number).unwrap());
    drop(receiver);
    assert!(sender.try_send(9).unwrap_err().is_disconnected());
    assert_no_backstop();
}

#[test]
fn b14_who_sleeps_is_woken_when_the_channel_has_grown_meanwhile() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = growing_channel::<u64>(1, MUCH).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let sleepers: Vec<_> = (0..4)
        .map(|_| {
            let (receiver, tell) = (receiver.clone(), tell.clone());
            std::thread::spawn(move || {
                tell.send(Task::current()).unwrap();
                receiver.recv().unwrap()
            })
        })
        .collect();
    (0..4).for_each(|_| told.recv().unwrap().wait_until_blocked());
    (0..4).for_each(|number| sender.send(number).unwrap());
    let mut received: Vec<u64> = sleepers.into_iter().map(|one| one.join().unwrap()).collect();
    received.sort_unstable();
    assert_eq!(received, [0, 1, 2, 3]);
    assert_no_backstop();
}

#[test]
fn b15_a_select_sees_messages_in_every_ring_and_room_that_can_be_made() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = growing_channel::<u64>(1, 1 << 13).unwrap();
    let (mut sends, mut receives) = (Select::new(), Select::new());
    sends.end(&sender);
    receives.end(&receiver);
    assert!(receives.try_ready().unwrap_err().is_timeout());
    let mut sent = 0;
    while sends.try_ready().is_ok() {
        sender.try_send(sent).unwrap();
        sent += 1;
    }
    assert!(sent > 20 && sender.try_send(0).unwrap_err().is_full(), "{sent}");
    for number in 0..sent {
        assert_eq!(receives.ready().unwrap(), 0);
        assert_eq!(receiver.try_recv().unwrap(), number);
    }
    assert!(receives.try_ready().unwrap_err().is_timeout());
    // Asleep, in the last ring.
    let (tell, told) = std::sync::mpsc::channel();
    let selecting = std::thread::spawn(move || {
        let mut select = Select::new();
        select.end(&receiver);
        tell.send(Task::current()).unwrap();
        select.ready().unwrap();
        receiver.try_recv().unwrap()
    });
    told.recv().unwrap().wait_until_blocked();
    sender.send(7).unwrap();
    assert_eq!(selecting.join().unwrap(), 7);
    assert_no_backstop();
}

#[test]
fn b1_a_growing_channel_never_shrinks() {
    let _watchdog = watchdog(LONG);
    for (capacity, bytes_max) in [(1024, 1 << 20), (4, 2048), (4, 1 << 14), (3, 100_000), (1, 5000)] {
        let (sender, receiver) = growing_channel::<u64>(capacity, bytes_max).unwrap();
        let mut last = sender.capacity();
        while sender.try_send(1).is_ok() {
            let now = sender.capacity();
            assert!(now >= last, "{last} slots, then {now}");
            last = now;
        }
        while receiver.try_recv().is_ok() {}
        assert_eq!((0..).take_while(|_| sender.try_send(1).is_ok()).count(), last);
    }
}

#[test]
fn b15_a_sender_is_not_ready_while_somebody_has_the_oldest_message_in_hand() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = growing_channel::<u64>(2, MUCH).unwrap();
    sender.try_send(1).unwrap();
    sender.try_send(2).unwrap();
    // As a receiver that was stopped leaves it: READING, and this thread's id.
    let oldest = sender.control_words()[4];
    let full = oldest.load(Ordering::Relaxed);
    let me = mp_shm::Session::current().unwrap().me().unwrap().thread;
    oldest.store(u64::from(me) << 48 | (full & !0xf) | READING, Ordering::Relaxed);
    let mut select = Select::new();
    select.end(&sender);
    assert!(select.ready_timeout(SHORT).unwrap_err().is_timeout());
    assert!(sender.try_send(3).unwrap_err().is_full());
    assert!(sender.send_timeout(3, SHORT).unwrap_err().is_full());
    oldest.store(full, Ordering::Relaxed);
    assert_eq!(select.ready().unwrap(), 0);
    sender.try_send(3).unwrap();
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [1, 2, 3]);
}
