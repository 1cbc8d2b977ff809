//! Models of the bus: two senders of which one dies at each step, and a receiver that reads while they write.
#![cfg(loom)]
#![expect(unsafe_code, reason = "the promises of the pending words")]

mod model;

use loom::sync::Arc;
use model::{At, Model, PARTIES, Part, Tables, at_every_step, check, close, party, take_part};
use mp_channel::bus::{Bus, Found};
use mp_sync::patience::Patience;
use mp_sys::atomic::{AtomicU32, Ordering};
use mp_sys::model::current;

struct Shared {
    /// Two words a message, which belong together.
    part: Part<[AtomicU32; 2]>,
    tables: Tables,
    senders: AtomicU32,
}

impl Model for Shared {
    fn tables(&self) -> &Tables {
        &self.tables
    }

    fn sweep(&self, at: &At<'_, Self>, dead: &dyn Fn(u16) -> bool) {
        self.part.ring(at).sweep(dead, &mut |_| {});
    }

    fn senders(&self) -> u32 {
        self.senders.load(Ordering::Acquire)
    }
}

impl Shared {
    fn new(capacity: u32) -> Self {
        Self {
            part: Part::new(capacity, || [AtomicU32::new(0), AtomicU32::new(0)]),
            tables: Tables::new(PARTIES),
            senders: AtomicU32::new(1),
        }
    }

    fn with<R>(&self, me: u16, with: impl FnOnce(&Bus<'_, Part<[AtomicU32; 2]>, At<'_, Self>>) -> R) -> R {
        let Part { control, shape, .. } = &self.part;
        let world = &At { shared: self, me };
        with(&Bus { control, slots: &self.part, shape: *shape, world, thread: current() })
    }

    fn send(&self, me: u16, message: u32) {
        self.with(me, |bus| {
            // SAFETY: the model's threads share `Shared` by reference counts, and it outlives them.
            let (position, index) = unsafe { bus.begin_send(Patience::Forever) }.unwrap();
            for word in &self.part.messages[index as usize] {
                word.store(message, Ordering::Relaxed);
            }
            // SAFETY: as above.
            unsafe { bus.finish_send(position) };
        });
    }

    fn receive(&self, me: u16, position: &mut u64) -> Option<Result<u32, u64>> {
        let mut copied = [0; 2];
        let found = self.with(me, |bus| {
            let copy = |index: u32| {
                copied =
                    std::array::from_fn(|at| self.part.messages[index as usize][at].load(Ordering::Relaxed));
            };
            // SAFETY: as in `send`.
            unsafe { bus.receive(position, Patience::Forever, || None, copy) }
        });
        Some(match found.ok()? {
            Found::Message => {
                assert_eq!(copied[0], copied[1], "torn");
                Ok(copied[0])
            }
            Found::Missed(count) => Err(count),
        })
    }

    fn close(&self) {
        close(&At { shared: self, me: 3 }, &self.senders, &self.part.control);
    }
}

/// Receives until nobody sends any more: the messages, and how many were missed.
fn receive_all(shared: &Shared, me: u16) -> (Vec<u32>, u64) {
    let mut position = shared.part.shape.start_before_wrap(1);
    let (mut received, mut missed) = (Vec::new(), 0);
    while let Some(one) = shared.receive(me, &mut position) {
        match one {
            Ok(message) => received.push(message),
            Err(count) => missed += count,
        }
    }
    (received, missed)
}

/// A sender of some messages that may die, and a receiver that reads meanwhile; after it comes another one with a last message.
fn sender_and_receiver(capacity: u32, count: u32, die_at: Option<usize>) {
    check(move || {
        let shared = Arc::new(Shared::new(capacity));
        let sender = party(&shared, 1, die_at, move |shared| {
            (10..10 + count).for_each(|message| shared.send(1, message));
        });
        let receiver = party(&shared, 2, None, |shared| receive_all(shared, 2));
        let first = sender.join().unwrap();
        take_part(&*shared, 3, None, |shared| shared.send(3, 20));
        shared.close();
        let (received, missed) = receiver.join().unwrap().unwrap();
        assert!(received.is_sorted_by(|a, b| a < b), "each once, in order: {received:?}");
        assert!(
            received.iter().all(|message| [10, 11, 20].contains(message)),
            "whole messages: {received:?}"
        );
        assert_eq!(received.last(), Some(&20), "the last is kept");
        if first.is_some() {
            assert_eq!(
                received.len() as u64 + missed,
                u64::from(count) + 1,
                "all are accounted for: {received:?}"
            );
        }
    });
}

/// Two senders on one slot, of which one dies; a receiver that comes afterwards accounts for all.
fn two_senders(die_at: Option<usize>) {
    check(move || {
        let shared = Arc::new(Shared::new(1));
        let senders = [(1, die_at), (2, None)].map(|(me, die_at)| {
            party(&shared, me, die_at, move |shared| shared.send(me, u32::from(me) * 10))
        });
        let [first, second] = senders.map(|sender| sender.join().unwrap());
        assert_eq!(second, Some(()));
        shared.close();
        let all = take_part(&*shared, 3, None, |shared| {
            shared.send(3, 30);
            receive_all(shared, 3)
        });
        let (received, missed) = all.unwrap();
        assert_eq!(received, [30], "one slot keeps the last");
        if first.is_some() {
            assert_eq!(received.len() as u64 + missed, 3, "all are accounted for");
        }
    });
}

#[test]
fn bus_a_sender_dies_at_each_step_while_a_receiver_reads() {
    assert!(at_every_step(|step| sender_and_receiver(2, 1, step)) >= 7);
}

#[test]
fn bus_a_receiver_reads_while_it_is_overtaken() {
    sender_and_receiver(1, 1, None);
}

#[test]
fn bus_a_receiver_is_overtaken_again_while_it_catches_up() {
    sender_and_receiver(1, 2, None);
}

#[test]
fn bus_one_of_two_senders_dies_at_each_step() {
    assert!(at_every_step(two_senders) >= 7);
}
