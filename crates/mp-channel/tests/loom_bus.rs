//! Models of the bus: two senders of which one dies at each step, and a receiver that reads while they write.
#![cfg(loom)]
#![expect(unsafe_code, reason = "the promises of the pending words")]

use loom::sync::Arc;
use loom::thread;
use mp_channel::bus::{Bus, Found};
use mp_channel::control::{Control, World};
use mp_channel::ring::Ring;
use mp_channel::stamp::{Shape, Slots, first_word};
use mp_shm::death::{self, Domain};
use mp_shm::lock::DomainLock;
use mp_sync::patience::Patience;
use mp_sys::atomic::{AtomicU32, AtomicU64, Ordering};
use mp_sys::futex::Watch;
use mp_sys::model::{self, participant};
use mp_sys::robust::OWNER_DIED;

struct Shared {
    control: Control,
    words: Vec<AtomicU64>,
    /// Two words a message, which belong together.
    messages: Vec<[AtomicU32; 2]>,
    sentinels: Vec<AtomicU32>,
    lock: DomainLock,
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

struct View<'a> {
    shared: &'a Shared,
    me: u16,
}

impl Domain for View<'_> {
    fn epoch(&self) -> &AtomicU32 {
        &self.shared.epoch
    }

    fn members(&self) -> &AtomicU32 {
        &self.shared.members
    }

    fn sentinels<'a>(&'a self, _watch: &mut dyn FnMut(&'a AtomicU32, u32) -> bool) -> bool {
        false
    }

    fn recover(&self) -> bool {
        let shared = self.shared;
        // SAFETY: the model's threads share `Shared` by reference counts, and it outlives them.
        unsafe { shared.lock.lock() };
        let dead =
            |thread: u16| shared.sentinels[usize::from(thread)].load(Ordering::Acquire) & OWNER_DIED != 0;
        let ring = Ring {
            control: &shared.control,
            hints: &shared.control,
            grows: false,
            slots: shared,
            shape: shared.shape,
            world: self,
            thread: model::current(),
            interrupt: None,
            senders_woken: 1,
        };
        ring.sweep(&dead, &mut |_| {});
        death::advance(&shared.epoch);
        shared.lock.unlock();
        true
    }
}

impl World for View<'_> {
    fn me(&self) -> u16 {
        self.me
    }

    fn sentinel(&self, thread: u16) -> Option<Watch<'_>> {
        let sentinel = &self.shared.sentinels[usize::from(thread)];
        let word = sentinel.load(Ordering::Acquire);
        (word & OWNER_DIED == 0).then_some(Watch::Word(sentinel, word))
    }

    fn senders(&self) -> u32 {
        self.shared.senders.load(Ordering::Acquire)
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
            messages: (0..capacity).map(|_| [AtomicU32::new(0), AtomicU32::new(0)]).collect(),
            sentinels: (0..4).map(|_| AtomicU32::new(0)).collect(),
            lock: DomainLock::new(),
            epoch: AtomicU32::new(0),
            members: AtomicU32::new(0),
            senders: AtomicU32::new(1),
            shape,
        }
    }

    fn with<R>(&self, me: u16, with: impl FnOnce(&Bus<'_, Self, View<'_>>) -> R) -> R {
        let view = View { shared: self, me };
        let thread = model::current();
        with(&Bus { control: &self.control, slots: self, shape: self.shape, world: &view, thread })
    }

    fn send(&self, me: u16, message: u32) {
        self.with(me, |bus| {
            // SAFETY: as in `recover`.
            let (position, index) = unsafe { bus.begin_send(Patience::Forever) }.unwrap();
            for word in &self.messages[index as usize] {
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
                copied = std::array::from_fn(|at| self.messages[index as usize][at].load(Ordering::Relaxed));
            };
            // SAFETY: as in `recover`.
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

/// Receives until nobody sends any more: the messages, and how many were missed.
fn receive_all(shared: &Shared, me: u16) -> (Vec<u32>, u64) {
    let mut position = shared.shape.start_before_wrap(1);
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
    builder().check(move || {
        let shared = Arc::new(Shared::new(capacity));
        let sender = {
            let shared = shared.clone();
            thread::spawn(move || {
                participant(1, Some(&shared.sentinels[1]), die_at, || {
                    (10..10 + count).for_each(|message| shared.send(1, message));
                })
            })
        };
        let receiver = {
            let shared = shared.clone();
            thread::spawn(move || {
                participant(2, Some(&shared.sentinels[2]), None, || receive_all(&shared, 2))
            })
        };
        let first = sender.join().unwrap();
        participant(3, Some(&shared.sentinels[3]), None, || shared.send(3, 20));
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
    builder().check(move || {
        let shared = Arc::new(Shared::new(1));
        let sender = |me: u16, die_at: Option<usize>| {
            let shared = shared.clone();
            thread::spawn(move || {
                participant(me.into(), Some(&shared.sentinels[usize::from(me)]), die_at, || {
                    shared.send(me, u32::from(me) * 10);
                })
            })
        };
        let senders = [sender(1, die_at), sender(2, None)];
        let [first, second] = senders.map(|sender| sender.join().unwrap());
        assert_eq!(second, Some(()));
        shared.close();
        let all = participant(3, Some(&shared.sentinels[3]), None, || {
            shared.send(3, 30);
            receive_all(&shared, 3)
        });
        let (received, missed) = all.unwrap();
        assert_eq!(received, [30], "one slot keeps the last");
        if first.is_some() {
            assert_eq!(received.len() as u64 + missed, 3, "all are accounted for");
        }
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
