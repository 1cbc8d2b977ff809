//! Models of the lane, whose sender or receiver dies at each step in turn, and then has a successor that opens the end anew.
//!
//! With a watch on other processes' sentinels a death would wake the other side as well.
#![cfg(loom)]
#![expect(unsafe_code, reason = "the promises of the pending words")]

mod model;

use loom::sync::Arc;
use model::{At, Cells, Model, Tables, at_every_step, check, close, fails, party, take_part};
use mp_channel::lane::Lane;
use mp_sync::patience::Patience;
use mp_sys::atomic::{AtomicU32, Ordering};
use mp_sys::model::{Control as Protection, current, set_control};

struct Shared {
    part: Cells,
    tables: Tables,
    senders: AtomicU32,
}

impl Model for Shared {
    fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Nothing in a lane has an owner.
    fn sweep(&self, _: &At<'_, Self>, _: &dyn Fn(u16) -> bool) {}

    fn senders(&self) -> u32 {
        self.senders.load(Ordering::Acquire)
    }
}

impl Shared {
    fn new(capacity: u32) -> Self {
        // A lane asks for no sentinels.
        Self { part: Cells::of_cells(capacity), tables: Tables::new(0), senders: AtomicU32::new(1) }
    }

    fn with<R>(&self, with: impl FnOnce(&Lane<'_, Cells, At<'_, Self>>) -> R) -> R {
        let Cells { control, shape, .. } = &self.part;
        let world = &At { shared: self, me: 1 };
        with(&Lane { control, slots: &self.part, shape: *shape, world, thread: current() })
    }

    fn send(&self, (position, mut head): (u64, u64), message: u32) -> (u64, u64) {
        self.with(|lane| {
            let patience = Patience::Forever;
            // SAFETY: the model's threads share `Shared` by reference counts, and it outlives them.
            let index = unsafe { lane.begin_send(position, &mut head, patience, || None) }.unwrap();
            if message == 2 {
                // As for one with handles.
                lane.write_handles(position);
            }
            self.part.put(index, message);
            (lane.finish_send(position), head)
        })
    }

    /// Where a sender begins, and what it knows of the receiver.
    fn open_sender(&self) -> (u64, u64) {
        self.with(|lane| {
            let head = lane.head();
            (lane.find_tail(), head)
        })
    }

    /// Waits for a message, and takes up to `most` that are there; gives where it goes on.
    fn receive(&self, position: u64, most: u32, received: &mut Vec<u32>) -> Option<u64> {
        self.with(|lane| {
            // SAFETY: as in `send`.
            unsafe { lane.begin_receive(position, Patience::Forever, || None) }.ok()?;
            let taken = lane.take_run(position, most, |index| {
                received.push(self.part.take(index));
                true
            });
            assert!((1..=most).contains(&taken), "the first one is there");
            Some(lane.finish_receive(position, taken))
        })
    }

    /// Receives until nobody sends any more.
    fn receive_all(&self, most: u32) -> Vec<u32> {
        let mut received = Vec::new();
        let mut position = self.with(|lane| lane.head());
        while let Some(next) = self.receive(position, most, &mut received) {
            position = next;
        }
        received
    }

    fn close(&self) {
        close(&At { shared: self, me: 1 }, &self.senders, &self.part.control);
    }
}

/// A sender of three messages, which may die; whoever comes after it sends 9, and closes. The receiver takes all there is, up to `most`
/// at once.
fn sender_dies(capacity: u32, most: u32, die_at: Option<usize>) {
    check(move || {
        let shared = Arc::new(Shared::new(capacity));
        let sender = party(&shared, 1, die_at, |shared| {
            let start = shared.open_sender();
            (1..=3).fold(start, |at, message| shared.send(at, message));
        });
        let receiver = party(&shared, 2, None, move |shared| shared.receive_all(most));
        let first = sender.join().unwrap();
        take_part(&*shared, 3, None, |shared| {
            let start = shared.open_sender();
            shared.send(start, 9);
            shared.close();
        });
        let received = receiver.join().unwrap().unwrap();
        let (last, before) = received.split_last().unwrap();
        assert_eq!(*last, 9);
        assert_eq!(*before, [1, 2, 3][..before.len()], "whole messages, in order");
        assert!(first.is_none() || before.len() == 3, "nothing is lost but in dead hands");
    });
}

/// A receiver of two messages or three, up to `most` at once, that may die; its successor takes the rest. What the first had taken when it died
/// may come again: it never said that it had it.
fn receiver_dies(capacity: u32, most: u32, die_at: Option<usize>) {
    check(move || {
        let shared = Arc::new(Shared::new(capacity));
        let receiver = party(&shared, 1, die_at, move |shared| {
            let mut position = shared.with(|lane| lane.head());
            let mut received = Vec::new();
            while received.len() < 2 {
                position = shared.receive(position, most, &mut received).unwrap();
            }
            assert_eq!(received, [1, 2, 3, 4][..received.len()]);
        });
        let sender = party(&shared, 2, None, |shared| {
            let start = shared.open_sender();
            (1..=4).fold(start, |at, message| shared.send(at, message));
            shared.close();
        });
        receiver.join().unwrap();
        let received = take_part(&*shared, 3, None, |shared| shared.receive_all(most)).unwrap();
        assert_eq!(sender.join().unwrap(), Some(()));
        assert_eq!(received, [1, 2, 3, 4][4 - received.len()..], "whole messages, in order, to the last");
    });
}

#[test]
fn lane_the_sender_dies_at_each_step() {
    assert!(at_every_step(|step| sender_dies(1, 1, step)) >= 9);
    assert!(at_every_step(|step| sender_dies(2, 1, step)) >= 9);
    assert!(at_every_step(|step| sender_dies(2, 2, step)) >= 9);
}

#[test]
fn lane_the_receiver_dies_at_each_step() {
    assert!(at_every_step(|step| receiver_dies(1, 1, step)) >= 6);
    assert!(at_every_step(|step| receiver_dies(2, 1, step)) >= 6);
    assert!(at_every_step(|step| receiver_dies(2, 2, step)) >= 4);
}

#[test]
#[ignore = "fails on purpose; `lane_control_without_pending` runs it"]
fn control_without_pending() {
    set_control(Protection::NoPending);
    at_every_step(|step| receiver_dies(1, 1, step));
    at_every_step(|step| sender_dies(1, 1, step));
}

#[test]
fn lane_control_without_pending() {
    assert!(fails("control_without_pending"));
}
