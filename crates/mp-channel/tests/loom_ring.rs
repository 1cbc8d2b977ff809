//! Models of the ring and its wake-ups, with a participant that dies at each step in turn.
//!
//! The wake-up protocol stands on its own here: pending word, slot watch, cascade. Negative controls take those away.
#![cfg(loom)]
#![expect(unsafe_code, reason = "the promises of the pending words")]

mod model;

use loom::sync::Arc;
use model::{At, Cells, Model, PARTIES, Tables, at_every_step, check, fails, party, take_part};
use mp_channel::ring::Ring;
use mp_shm::death;
use mp_sync::patience::Patience;
use mp_sys::atomic::{AtomicU32, Ordering};
use mp_sys::barrier;
use mp_sys::futex::{self, Watch};
use mp_sys::model::{Control as Protection, set_control};
use mp_sys::robust::OWNER_DIED;

struct Shared {
    part: Cells,
    tables: Tables,
    rendezvous: bool,
    /// What a select sleeps on.
    bell: AtomicU32,
}

impl Model for Shared {
    fn tables(&self) -> &Tables {
        &self.tables
    }

    fn sweep(&self, at: &At<'_, Self>, dead: &dyn Fn(u16) -> bool) {
        self.ring(at).sweep(dead, &mut |_| {});
    }

    fn ring_bells(&self, bells: u64) {
        assert_eq!(bells, BELL);
        death::advance(&self.bell);
    }
}

impl Shared {
    fn new(capacity: u32) -> Self {
        Self {
            part: Cells::of_cells(capacity),
            tables: Tables::new(PARTIES),
            rendezvous: false,
            bell: AtomicU32::new(0),
        }
    }

    /// Of capacity 0: one slot, and a sender waits until its message is taken.
    fn rendezvous() -> Self {
        Self { rendezvous: true, ..Self::new(1) }
    }

    fn ring<'a>(&'a self, at: &'a At<'a, Self>) -> Ring<'a, Cells, At<'a, Self>> {
        let senders_woken = if self.rendezvous { u32::MAX } else { 1 };
        Ring { senders_woken, ..self.part.ring(at) }
    }

    fn send(&self, me: u16, message: u32) {
        let at = At { shared: self, me };
        let ring = self.ring(&at);
        // SAFETY: the model's threads share `Shared` by reference counts, and it outlives them.
        let claim = unsafe { ring.begin_send(Patience::Forever, || None) }.unwrap();
        self.part.put(claim.index(), message);
        ring.finish_send(&claim);
        if self.rendezvous {
            // SAFETY: as above.
            unsafe { ring.await_taken(&claim, Patience::Forever, None) }.unwrap();
        }
    }

    /// Offers a message and takes it back if nobody takes it at once; says whether somebody took it.
    fn offer(&self, me: u16, message: u32) -> bool {
        self.offer_patiently(me, message, Patience::Forever).unwrap()
    }

    /// [`offer`](Self::offer) that waits for the slot as long as `patience`.
    fn offer_patiently(&self, me: u16, message: u32, patience: Patience) -> Option<bool> {
        let at = At { shared: self, me };
        let ring = self.ring(&at);
        // SAFETY: as in `send`.
        let claim = unsafe { ring.begin_send(patience, || None) }.ok()?;
        self.part.put(claim.index(), message);
        ring.finish_send(&claim);
        // SAFETY: as in `send`.
        let taken = unsafe { ring.await_taken(&claim, Patience::None, None) };
        if taken.is_err() {
            self.part.put(claim.index(), 0);
            // SAFETY: as in `send`.
            unsafe { ring.abandon(&claim) };
        }
        Some(taken.is_ok())
    }

    fn receive(&self, me: u16, patience: Patience) -> Option<u32> {
        let at = At { shared: self, me };
        let ring = self.ring(&at);
        // SAFETY: as in `send`.
        let claim = unsafe { ring.begin_receive(patience, || None) }.ok()?;
        let message = self.part.take(claim.index());
        ring.finish_receive(&claim);
        Some(message)
    }
}

/// Two senders of one message each, of which one dies; the receiver gets what the other sent.
fn two_senders(capacity: u32, die_at: Option<usize>) {
    check(move || {
        let shared = Arc::new(Shared::new(capacity));
        let senders = [(1, die_at), (2, None)]
            .map(|(me, die_at)| party(&shared, me, die_at, move |shared| shared.send(me, me.into())));
        let received = party(&shared, 3, None, |shared| {
            let mut received = Vec::new();
            while !received.contains(&2) {
                received.extend(shared.receive(3, Patience::Forever));
            }
            received
        });
        let [first, second] = senders.map(|sender| sender.join().unwrap());
        let mut received = received.join().unwrap().unwrap();
        assert_eq!(second, Some(()));
        take_part(&*shared, 3, None, |shared| {
            while let Some(message) = shared.receive(3, Patience::None) {
                received.push(message);
            }
        });
        received.sort_unstable();
        if first.is_some() {
            assert_eq!(received, [1, 2], "nothing lost, nothing twice");
        } else {
            assert!(received == [2] || received == [1, 2], "whole messages, each once: {received:?}");
        }
    });
}

/// One sender of two messages, two receivers of which one dies; the other gets its message, and all senders get through.
fn two_receivers(capacity: u32, die_at: Option<usize>) {
    check(move || {
        let shared = Arc::new(Shared::new(capacity));
        let receivers = [(1, die_at), (2, None)].map(|(me, die_at)| {
            party(&shared, me, die_at, move |shared| shared.receive(me, Patience::Forever))
        });
        let sender = party(&shared, 3, None, |shared| {
            shared.send(3, 1);
            shared.send(3, 2);
        });
        assert_eq!(sender.join().unwrap(), Some(()));
        let [first, second] = receivers.map(|receiver| receiver.join().unwrap());
        let second = second.unwrap();
        assert!(second.is_some());
        if let Some(first) = first {
            assert_ne!(first, second, "nothing twice");
        }
    });
}

/// Two senders that find the ring full, of which one dies; one receiver takes what comes.
fn full_ring(die_at: Option<usize>) {
    check(move || {
        let shared = Arc::new(Shared::new(1));
        take_part(&*shared, 3, None, |shared| shared.send(3, 9));
        let senders = [(1, die_at), (2, None)]
            .map(|(me, die_at)| party(&shared, me, die_at, move |shared| shared.send(me, me.into())));
        let receiver = party(&shared, 3, None, |shared| {
            assert_eq!(shared.receive(3, Patience::Forever), Some(9));
            while shared.receive(3, Patience::Forever) != Some(2) {}
        });
        assert_eq!(receiver.join().unwrap(), Some(()));
        let [_, second] = senders.map(|sender| sender.join().unwrap());
        assert_eq!(second, Some(()));
    });
}

/// The bit of the only bell.
const BELL: u64 = 1;

/// A sender that may die, one who waits for its message by a bell, and, if there `is_sleeper`, one who sleeps on the channel itself: a ring
/// is no wake taken away from that one. Who waits by the bell watches the sender's sentinel, as all sleepers do.
fn bell(die_at: Option<usize>, is_sleeper: bool) {
    check(move || {
        let shared = Arc::new(Shared::new(2));
        let sender = party(&shared, 1, die_at, move |shared| {
            (0..=u32::from(is_sleeper)).for_each(|message| shared.send(1, message));
        });
        let sleeper =
            is_sleeper.then(|| party(&shared, 2, None, |shared| shared.receive(2, Patience::Forever)));
        let selector = party(&shared, 3, None, |shared| {
            loop {
                let seen = shared.bell.load(Ordering::Acquire);
                let sentinel = shared.tables.sentinels[1].load(Ordering::Acquire);
                shared.part.control.not_empty.0.arm(BELL);
                barrier::heavy();
                let received = shared.receive(3, Patience::None);
                if received.is_some() || sentinel & OWNER_DIED != 0 {
                    return received;
                }
                futex::wait(
                    &[Watch::Word(&shared.bell, seen), Watch::Word(&shared.tables.sentinels[1], sentinel)],
                    None,
                );
            }
        });
        let sent = sender.join().unwrap();
        let selected = selector.join().unwrap().unwrap();
        if let Some(sleeper) = sleeper {
            assert!(sleeper.join().unwrap().unwrap().is_some());
        }
        assert!(sent.is_none() || selected.is_some(), "what was sent is noticed");
    });
}

/// What the receiver of a rendezvous waits for in the end.
const LAST: u32 = 9;

/// A rendezvous of one or two senders and a receiver; the first sender dies, or gives up at once.
fn rendezvous(die_at: Option<usize>, gives_up: bool, has_second: bool) {
    check(move || {
        let shared = Arc::new(Shared::rendezvous());
        let first = party(&shared, 1, die_at, move |shared| {
            if gives_up {
                shared.offer(1, 1)
            } else {
                shared.send(1, 1);
                true
            }
        });
        let second = has_second.then(|| party(&shared, 2, None, |shared| shared.send(2, 2)));
        let received = party(&shared, 3, None, move |shared| {
            let mut received = Vec::new();
            while (has_second && !received.contains(&2)) || !received.contains(&LAST) {
                received.extend(shared.receive(3, Patience::Forever));
            }
            received
        });
        let first = first.join().unwrap();
        // Until now the receiver has taken what came, so that nobody waited in vain.
        take_part(&*shared, 4, None, |shared| shared.send(4, LAST));
        if let Some(second) = second {
            assert_eq!(second.join().unwrap(), Some(()));
        }
        let mut received = received.join().unwrap().unwrap();
        let of = |sender: u32| received.iter().filter(|&&message| message == sender).count();
        assert_eq!((of(2), of(LAST)), (usize::from(has_second), 1));
        match first {
            Some(true) => assert_eq!(of(1), 1, "what was taken arrives"),
            Some(false) => assert_eq!(of(1), 0, "what was taken back does not"),
            None => assert!(of(1) <= 1, "each once"),
        }
        received.retain(|message| ![1, 2, LAST].contains(message));
        assert_eq!(received, [], "whole messages");
    });
}

#[test]
fn ring_two_senders_one_dies_at_each_step() {
    assert!(at_every_step(|step| two_senders(2, step)) >= 7);
}

#[test]
fn ring_two_receivers_one_dies_at_each_step() {
    assert!(at_every_step(|step| two_receivers(2, step)) >= 7);
}

#[test]
fn ring_full_one_sender_dies_at_each_step() {
    assert!(at_every_step(full_ring) >= 7);
}

#[test]
fn ring_rendezvous_one_sender_dies_at_each_step() {
    assert!(at_every_step(|step| rendezvous(step, false, false)) >= 7);
}

#[test]
fn ring_rendezvous_one_sender_gives_up_or_dies() {
    assert!(at_every_step(|step| rendezvous(step, true, false)) >= 7);
}

#[test]
fn ring_bell_the_sender_dies_at_each_step() {
    assert!(at_every_step(|step| bell(step, false)) >= 6);
}

#[test]
fn ring_bell_beside_a_sleeper() {
    bell(None, true);
}

#[test]
fn ring_nobody_dies() {
    two_senders(1, None);
    two_receivers(1, None);
    full_ring(None);
    rendezvous(None, false, false);
}

#[test]
#[ignore = "takes a quarter of an hour: for a long run by hand"]
fn ring_rendezvous_of_two_senders() {
    rendezvous(None, false, true);
    rendezvous(None, true, true);
}

#[test]
#[ignore = "fails on purpose; `ring_control_without_pending` runs it"]
fn control_without_pending() {
    set_control(Protection::NoPending);
    at_every_step(|step| two_senders(2, step));
    at_every_step(|step| two_receivers(2, step));
}

#[test]
#[ignore = "fails on purpose; `ring_control_without_slot_watch` runs it"]
fn control_without_slot_watch() {
    set_control(Protection::NoSlotWatch);
    at_every_step(|step| two_receivers(2, step));
    at_every_step(full_ring);
}

#[test]
#[ignore = "fails on purpose; `ring_control_the_living_taken_for_dead` runs it"]
fn control_the_living_taken_for_dead() {
    check(|| {
        let shared = Arc::new(Shared::new(2));
        let sender = party(&shared, 1, None, |shared| {
            // A sentinel that lies: the receiver takes the slot away while it is written.
            shared.tables.sentinels[1].store(OWNER_DIED, Ordering::Release);
            shared.send(1, 1);
        });
        let receiver = party(&shared, 2, None, |shared| shared.receive(2, Patience::Forever));
        let received = receiver.join().unwrap();
        sender.join().unwrap();
        assert_eq!(received.flatten(), Some(1), "the message arrives");
    });
}

#[test]
fn ring_control_without_pending() {
    assert!(fails("control_without_pending"));
}

#[test]
fn ring_control_without_slot_watch() {
    assert!(fails("control_without_slot_watch"));
}

#[test]
fn ring_control_the_living_taken_for_dead() {
    assert!(fails("control_the_living_taken_for_dead"));
}

/// A receiver that dies at each step, also before it has moved the hint on; after it senders take back what they offered, again and again,
/// and at last one message is sent and received. One after the other: what matters is what the dead one left.
fn offers_after_a_death(die_at: Option<usize>) {
    check(move || {
        let shared = Arc::new(Shared::new(1));
        take_part(&*shared, 3, None, |shared| shared.send(3, 9));
        take_part(&*shared, 1, die_at, |shared| shared.receive(1, Patience::None));
        take_part(&*shared, 2, None, |shared| {
            for message in 1..=3 {
                // If the dead one has left room.
                assert_ne!(shared.offer_patiently(2, message, Patience::None), Some(true), "nobody takes it");
            }
        });
        take_part(&*shared, 4, None, |shared| {
            // What the first receiver did not come to.
            assert!([None, Some(9)].contains(&shared.receive(4, Patience::None)));
            shared.send(4, LAST);
            assert_eq!(shared.receive(4, Patience::Forever), Some(LAST));
        });
    });
}

#[test]
fn ring_offers_taken_back_after_a_receiver_died_at_each_step() {
    assert!(at_every_step(offers_after_a_death) >= 5);
}
