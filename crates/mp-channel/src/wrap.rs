//! Channels whose positions pass the end of their 44 bits. Tests only: those that users make start at 0, and would need years.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::channel::{expected_bytes, type_hash};
use crate::view::{Cut, View};
use crate::{Receiver, Select, Sender, spsc};
use mp_shm::handle::Kind;
use mp_shm::published::Publishable;
use mp_shm::{Message, Session};
use std::time::Duration;

/// A number, and small or large content.
type Item = (u64, Vec<u64>);

const CAPACITIES: [usize; 6] = [1, 2, 3, 7, 8, 13];

fn item(number: u64) -> Item {
    (number, vec![number; if number.is_multiple_of(5) { 300 } else { 2 }])
}

/// The ends of a channel that starts `laps` before the wrap.
fn ends<T: Message, S: Publishable, R: Publishable>(capacity: usize, kinds: [Kind; 2], laps: u64) -> (S, R) {
    let session = Session::current().unwrap();
    let cut = Cut::new(capacity, 0, expected_bytes::<T>()).unwrap();
    let block = session.allocate(Kind::MESSAGE, cut.block_bytes()).unwrap();
    View::lay_out(&block, cut, cut.shape.start_before_wrap(laps)).unwrap();
    let [sender, receiver] = session.publish_object(block, kinds, type_hash::<T>()).unwrap();
    (S::of_published(sender).unwrap(), R::of_published(receiver).unwrap())
}

fn queue<T: Message>(capacity: usize, laps: u64) -> (Sender<T>, Receiver<T>) {
    ends::<T, _, _>(capacity, [Kind::SENDER, Kind::RECEIVER], laps)
}

fn lane<T: Message>(capacity: usize, laps: u64) -> (spsc::Sender<T>, spsc::Receiver<T>) {
    ends::<T, _, _>(capacity, [Kind::LANE_SENDER, Kind::LANE_RECEIVER], laps)
}

#[test]
fn b17_a_queue_is_full_and_empty_as_ever_at_each_position_around_the_wrap() {
    for capacity in CAPACITIES {
        for fill in 0..=capacity {
            let (sender, receiver) = queue::<Item>(capacity, 2);
            let (mut sent, mut received) = (0, 0);
            // Four laps, with so many messages in the queue all the time, and full and empty at each position.
            for _ in 0..4 * capacity {
                while sender.try_send(item(sent)).is_ok() {
                    sent += 1;
                }
                assert_eq!((sender.len(), sent - received), (capacity, capacity as u64));
                while receiver.len() > fill {
                    assert_eq!(receiver.try_recv().unwrap(), item(received));
                    received += 1;
                }
                assert_eq!(receiver.len(), fill);
                while fill == 0 && received < sent {
                    assert_eq!(receiver.try_recv().unwrap(), item(received));
                    received += 1;
                }
                assert!(fill > 0 || receiver.try_recv().unwrap_err().is_empty());
                // One alone, so that the next turn is at another position.
                if sent == received {
                    sender.try_send(item(sent)).unwrap();
                    sent += 1;
                }
                assert_eq!(receiver.try_recv().unwrap(), item(received));
                received += 1;
            }
            drop(sender);
            while let Ok(message) = receiver.try_recv() {
                assert_eq!(message, item(received));
                received += 1;
            }
            assert_eq!(received, sent);
            assert!(receiver.recv().unwrap_err().is_disconnected());
        }
    }
}

#[test]
fn b17_a_lane_is_full_and_empty_as_ever_at_each_position_around_the_wrap() {
    for capacity in CAPACITIES {
        let (mut sender, mut receiver) = lane::<Item>(capacity, 2);
        let (mut sent, mut received) = (0, 0);
        for _ in 0..4 * capacity {
            while sender.try_send(item(sent)).is_ok() {
                sent += 1;
            }
            assert_eq!((sender.len(), receiver.len()), (capacity, capacity));
            while let Ok(message) = receiver.try_recv() {
                assert_eq!(message, item(received));
                received += 1;
            }
            assert_eq!((sent, sender.len()), (received, 0));
            sender.try_send(item(sent)).unwrap();
            assert_eq!(receiver.try_recv().unwrap(), item(received));
            (sent, received) = (sent + 1, received + 1);
        }
        sender.try_send(item(sent)).unwrap();
        drop(sender);
        assert_eq!(receiver.recv().unwrap(), item(sent));
        assert!(receiver.recv().unwrap_err().is_disconnected());
    }
}

/// What each receiver got, in its order.
fn exchange(sender: &Sender<(u64, Item)>, receiver: &Receiver<(u64, Item)>) -> Vec<Vec<(u64, u64)>> {
    const COUNT: u64 = 300;
    std::thread::scope(|scope| {
        for producer in 0..2 {
            scope.spawn(move || {
                for number in 0..COUNT {
                    sender.send((producer, item(number))).unwrap();
                }
            });
        }
        let take = |selects: bool| {
            move || {
                let mut taken = Vec::new();
                let mut select = Select::new();
                select.end(receiver);
                while taken.len() < usize::try_from(COUNT).unwrap() {
                    let next = if selects {
                        select.ready().unwrap();
                        receiver.try_recv()
                    } else {
                        receiver.recv()
                    };
                    match next {
                        Ok((producer, message)) => {
                            assert_eq!(message, item(message.0));
                            taken.push((producer, message.0));
                        }
                        Err(error) => assert!(error.is_empty(), "{error}"),
                    }
                }
                taken
            }
        };
        let takers = [scope.spawn(take(false)), scope.spawn(take(true))];
        takers.map(|taker| taker.join().unwrap()).into()
    })
}

#[test]
fn b17_threads_on_both_sides_lose_and_double_nothing_across_the_wrap() {
    for capacity in [0, 1, 2, 3, 8, 13] {
        for laps in [1, 2, 5] {
            let (sender, receiver) = queue(capacity, laps);
            let taken = exchange(&sender, &receiver);
            for one in &taken {
                for producer in 0..2 {
                    let of_one = one.iter().filter(|(from, _)| *from == producer).map(|(_, number)| number);
                    assert!(of_one.is_sorted_by(|a, b| a < b), "the order of producer {producer} holds");
                }
            }
            let mut all: Vec<_> = taken.concat();
            all.sort_unstable();
            assert!(all.into_iter().eq((0..2).flat_map(|from| (0..300).map(move |number| (from, number)))));
            assert!(receiver.try_recv().unwrap_err().is_empty());
        }
    }
}

#[test]
fn b17_a_lane_between_threads_keeps_its_order_across_the_wrap() {
    for capacity in CAPACITIES {
        for laps in [1, 2, 5] {
            let (mut sender, mut receiver) = lane(capacity, laps);
            let writer = std::thread::spawn(move || {
                (0..300).for_each(|number| sender.send(item(number)).unwrap());
            });
            assert!(receiver.iter().eq((0..300).map(item)));
            writer.join().unwrap();
        }
    }
}

#[test]
fn b17_a_lane_whose_end_moves_finds_its_position_across_the_wrap() {
    for capacity in CAPACITIES {
        let (mut sender, mut receiver) = lane::<Item>(capacity, 1);
        let (carrier, carried) = crate::channel::<spsc::Sender<Item>>(1).unwrap();
        let (back, backs) = crate::channel::<spsc::Receiver<Item>>(1).unwrap();
        for number in 0..3 * capacity as u64 {
            sender.send(item(number)).unwrap();
            carrier.send(sender).unwrap();
            sender = carried.recv().unwrap();
            back.send(receiver).unwrap();
            receiver = backs.recv().unwrap();
            assert_eq!(receiver.recv().unwrap(), item(number));
        }
    }
}

#[test]
fn b17_a_rendezvous_that_times_out_gives_its_slot_back_across_the_wrap() {
    let (sender, receiver) = queue::<Item>(0, 2);
    for number in 0..6 {
        let error = sender.send_timeout(item(number), Duration::from_millis(1)).unwrap_err();
        assert_eq!(error.into_value(), item(number));
        assert!(receiver.try_recv().unwrap_err().is_empty());
        std::thread::scope(|scope| {
            scope.spawn(|| sender.send(item(number)).unwrap());
            assert_eq!(receiver.recv().unwrap(), item(number));
        });
    }
}
