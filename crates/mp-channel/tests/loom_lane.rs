//! Models of the lane, whose sender or receiver dies at each step in turn, and then has a successor that opens the end anew.
//!
//! As in `loom_ring.rs` there is no watch on other processes' sentinels. (With one, a death would wake the other side as well.)
#![cfg(loom)]
#![expect(unsafe_code, reason = "loom's cells are accessed through pointers")]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use mp_channel::control::{Control, World};
use mp_channel::lane::Lane;
use mp_channel::stamp::{Shape, Slots, first_word};
use mp_shm::death::Domain;
use mp_sync::patience::Patience;
use mp_sys::atomic::{AtomicU32, AtomicU64, Ordering};
use mp_sys::futex::Watch;
use mp_sys::model::{self, Control as Protection, participant};

struct Shared {
    control: Control,
    words: Vec<AtomicU64>,
    messages: Vec<UnsafeCell<u32>>,
    epoch: AtomicU32,
    members: AtomicU32,
    senders: AtomicU32,
    shape: Shape,
}

impl Slots for Shared {
    fn word(&self, index: u32) -> &AtomicU64 {
        &self.words[index as usize]
    }
}

impl Domain for Shared {
    fn epoch(&self) -> &AtomicU32 {
        &self.epoch
    }

    fn members(&self) -> &AtomicU32 {
        &self.members
    }

    fn sentinels<'a>(&'a self, _watch: &mut dyn FnMut(&'a AtomicU32, u32) -> bool) -> bool {
        false
    }

    fn recover(&self) -> bool {
        true
    }
}

impl World for Shared {
    fn me(&self) -> u16 {
        1
    }

    fn sentinel(&self, _thread: u16) -> Option<Watch<'_>> {
        None
    }

    fn senders(&self) -> u32 {
        self.senders.load(Ordering::Acquire)
    }

    fn receivers(&self) -> u32 {
        1
    }
}

impl Shared {
    fn new(capacity: u32) -> Self {
        let shape = Shape::new(capacity).unwrap();
        // Just below the wrap, so that the models cross it.
        let start = shape.start_before_wrap(1);
        Self {
            control: Control::new(start),
            words: (0..capacity).map(|index| AtomicU64::new(first_word(start, index))).collect(),
            messages: (0..capacity).map(|_| UnsafeCell::new(0)).collect(),
            epoch: AtomicU32::new(0),
            members: AtomicU32::new(0),
            senders: AtomicU32::new(1),
            shape,
        }
    }

    fn lane(&self) -> Lane<'_, Self, Self> {
        let thread = model::current();
        Lane { control: &self.control, slots: self, shape: self.shape, world: self, thread }
    }

    fn send(&self, (position, mut head): (u64, u64), message: u32) -> (u64, u64) {
        let patience = Patience::Forever;
        // SAFETY: the model's threads share `Shared` by reference counts, and it outlives them.
        let index = unsafe { self.lane().begin_send(position, &mut head, patience, || None) }.unwrap();
        if message == 2 {
            // As for one with handles.
            self.lane().write_handles(position);
        }
        // SAFETY: the slot is this side's; loom checks that.
        self.messages[index as usize].with_mut(|place| unsafe { *place = message });
        (self.lane().finish_send(position), head)
    }

    /// Where a sender begins, and what it knows of the receiver.
    fn open_sender(&self) -> (u64, u64) {
        let head = self.lane().head();
        (self.lane().find_tail(), head)
    }

    /// Waits for a message, and takes up to `most` that are there; gives where it goes on.
    fn receive(&self, position: u64, most: u32, received: &mut Vec<u32>) -> Option<u64> {
        let lane = self.lane();
        // SAFETY: as in `send`.
        unsafe { lane.begin_receive(position, Patience::Forever, || None) }.ok()?;
        let taken = lane.take_run(position, most, |index| {
            // SAFETY: the slot is this side's; loom checks that.
            received.push(self.messages[index as usize].with_mut(|place| unsafe { *place }));
            true
        });
        assert!((1..=most).contains(&taken), "the first one is there");
        Some(lane.finish_receive(position, taken))
    }

    /// The last sender leaves, as the last drop of a reference does it.
    fn close(&self) {
        self.senders.store(0, Ordering::Release);
        self.control.closed.0.fetch_add(1, Ordering::AcqRel);
        mp_sys::futex::wake_all(&self.control.closed.0);
    }
}

fn builder() -> loom::model::Builder {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(2));
    builder.max_branches = 50_000;
    builder
}

/// A sender of three messages, which may die; whoever comes after it sends 9, and closes. The receiver takes all there is, up to `most` at once.
fn sender_dies(capacity: u32, most: u32, die_at: Option<usize>) {
    builder().check(move || {
        let shared = Arc::new(Shared::new(capacity));
        let sender = {
            let shared = shared.clone();
            thread::spawn(move || {
                participant(1, None, die_at, || {
                    let start = shared.open_sender();
                    (1..=3).fold(start, |at, message| shared.send(at, message));
                })
            })
        };
        let receiver = {
            let shared = shared.clone();
            thread::spawn(move || {
                participant(2, None, None, || {
                    let mut received = Vec::new();
                    let mut position = shared.lane().head();
                    while let Some(next) = shared.receive(position, most, &mut received) {
                        position = next;
                    }
                    received
                })
            })
        };
        let first = sender.join().unwrap();
        participant(3, None, None, || {
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

/// A receiver of two messages or three, up to `most` at once, that may die; its successor takes the rest. What the first had taken when it died may come again: it never
/// said that it had it.
fn receiver_dies(capacity: u32, most: u32, die_at: Option<usize>) {
    builder().check(move || {
        let shared = Arc::new(Shared::new(capacity));
        let receiver = {
            let shared = shared.clone();
            thread::spawn(move || {
                participant(1, None, die_at, || {
                    let mut position = shared.lane().head();
                    let mut received = Vec::new();
                    while received.len() < 2 {
                        position = shared.receive(position, most, &mut received).unwrap();
                    }
                    assert_eq!(received, [1, 2, 3, 4][..received.len()]);
                })
            })
        };
        let sender = {
            let shared = shared.clone();
            thread::spawn(move || {
                participant(2, None, None, || {
                    let start = shared.open_sender();
                    (1..=4).fold(start, |at, message| shared.send(at, message));
                    shared.close();
                })
            })
        };
        receiver.join().unwrap();
        let received = participant(3, None, None, || {
            let mut received = Vec::new();
            let mut position = shared.lane().head();
            while let Some(next) = shared.receive(position, most, &mut received) {
                position = next;
            }
            received
        });
        let received = received.unwrap();
        assert_eq!(sender.join().unwrap(), Some(()));
        assert_eq!(received, [1, 2, 3, 4][4 - received.len()..], "whole messages, in order, to the last");
    });
}

fn at_every_step(model: impl Fn(Option<usize>)) -> usize {
    for step in 0.. {
        model(Some(step));
        if !model::died(1) {
            return step;
        }
    }
    unreachable!()
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
    model::set_control(Protection::NoPending);
    at_every_step(|step| receiver_dies(1, 1, step));
    at_every_step(|step| sender_dies(1, 1, step));
}

#[test]
fn lane_control_without_pending() {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "control_without_pending", "--ignored", "--test-threads=1"])
        .output()
        .unwrap();
    assert!(!output.status.success());
}
