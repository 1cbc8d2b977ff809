//! Models of a channel that grows from one slot to two rings, with a participant that dies at each step in turn.
//!
//! The steps of a sender and a receiver are those of `grow`; the ring, the seal and the wake-ups are the shipped text.
#![cfg(loom)]
#![expect(unsafe_code, reason = "the promises of the pending words")]

mod model;

use loom::sync::Arc;
use model::{At, Cells, Model, PARTIES, Tables, at_every_step, check, fails, party, take_part};
use mp_channel::control::Refused;
use mp_channel::ring::{Ring, Sealing};
use mp_sync::patience::Patience;
use mp_sys::atomic::{AtomicU32, Ordering};
use mp_sys::model::{Control as Protection, set_control};

struct Shared {
    /// The control words of the first are also those that all share.
    parts: [Cells; 2],
    /// Whether the second is named in the first.
    next: AtomicU32,
    tables: Tables,
}

impl Model for Shared {
    fn tables(&self) -> &Tables {
        &self.tables
    }

    fn sweep(&self, at: &At<'_, Self>, dead: &dyn Fn(u16) -> bool) {
        for part in &self.parts {
            self.ring(part, at).sweep(dead, &mut |_| {});
        }
    }
}

impl Shared {
    fn new() -> Self {
        Self { parts: [1, 2].map(Cells::of_cells), next: AtomicU32::new(0), tables: Tables::new(PARTIES) }
    }

    fn ring<'a>(&'a self, part: &'a Cells, at: &'a At<'a, Self>) -> Ring<'a, Cells, At<'a, Self>> {
        Ring { control: &self.parts[0].control, grows: true, ..part.ring(at) }
    }

    fn send_in(&self, part: &Cells, me: u16, message: u32, patience: Patience) -> Result<(), Refused> {
        let at = At { shared: self, me };
        let ring = self.ring(part, &at);
        // SAFETY: the model's threads share `Shared` by reference counts, and it outlives them.
        let claim = unsafe { ring.begin_send(patience, || None) }?;
        part.put(claim.index(), message);
        ring.finish_send(&claim);
        Ok(())
    }

    fn send(&self, me: u16, message: u32) {
        let [first, second] = &self.parts;
        let mut patience = Patience::None;
        loop {
            match self.send_in(first, me, message, patience) {
                Ok(()) => return,
                Err(Refused::Sealed) => {
                    // SEAL: whoever sees it sees the next ring.
                    assert_eq!(self.next.load(Ordering::Relaxed), 1, "the next ring is there");
                    // It can grow no more.
                    return self.send_in(second, me, message, Patience::Forever).unwrap();
                }
                Err(Refused::Waiting) => {
                    if self.next.load(Ordering::Acquire) == 0 {
                        let _ = self.next.compare_exchange(0, 1, Ordering::Release, Ordering::Relaxed);
                    }
                    let at = At { shared: self, me };
                    // SAFETY: as in `send_in`.
                    let sealing = unsafe { self.ring(first, &at).seal() };
                    // The shipped one looks again after a moment; this one may sleep while somebody else seals.
                    patience = if sealing == Sealing::Busy { Patience::Forever } else { Patience::None };
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    }

    fn receive(&self, me: u16, patience: Patience) -> Option<u32> {
        for part in &self.parts {
            let at = At { shared: self, me };
            let ring = self.ring(part, &at);
            // SAFETY: as in `send_in`.
            let claim = match unsafe { ring.begin_receive(patience, || None) } {
                Ok(claim) => claim,
                Err(Refused::Sealed) => continue,
                Err(_) => return None,
            };
            let message = part.take(claim.index());
            ring.finish_receive(&claim);
            return Some(message);
        }
        unreachable!("the last ring is never sealed")
    }
}

/// A sender of two messages, which may die; then another one sends 9. The receiver takes all there is.
fn sender_dies(die_at: Option<usize>) {
    check(move || {
        let shared = Arc::new(Shared::new());
        let sender = party(&shared, 1, die_at, |shared| (1..=2).for_each(|message| shared.send(1, message)));
        let receiver = party(&shared, 2, None, |shared| {
            let mut received = Vec::new();
            while !received.contains(&9) {
                received.extend(shared.receive(2, Patience::Forever));
            }
            received
        });
        let first = sender.join().unwrap();
        take_part(&*shared, 3, None, |shared| shared.send(3, 9));
        let received = receiver.join().unwrap().unwrap();
        let (_, before) = received.split_last().unwrap();
        assert_eq!(*before, [1, 2][..before.len()], "whole messages, in order");
        assert!(first.is_none() || before.len() == 2, "nothing is lost but in dead hands");
    });
}

/// One sender of two messages, two receivers of which one dies; the other gets its message.
fn receiver_dies(die_at: Option<usize>) {
    check(move || {
        let shared = Arc::new(Shared::new());
        let receivers = [(1, die_at), (2, None)].map(|(me, die_at)| {
            party(&shared, me, die_at, move |shared| shared.receive(me, Patience::Forever))
        });
        let sender = party(&shared, 3, None, |shared| (1..=2).for_each(|message| shared.send(3, message)));
        assert_eq!(sender.join().unwrap(), Some(()));
        let [first, second] = receivers.map(|receiver| receiver.join().unwrap());
        let second = second.unwrap();
        assert!(second.is_some());
        if let Some(first) = first {
            assert_ne!(first, second, "nothing twice");
        }
    });
}

/// Two senders that find the first ring full, of which one dies; one receiver takes what comes.
fn two_seal(die_at: Option<usize>) {
    check(move || {
        let shared = Arc::new(Shared::new());
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

/// A sender that had no memory to grow by and sleeps at the full ring, while another one seals it, and may die. Nobody receives meanwhile.
fn sealed_while_asleep(die_at: Option<usize>) {
    check(move || {
        let shared = Arc::new(Shared::new());
        take_part(&*shared, 3, None, |shared| shared.send(3, 9));
        let sealer = party(&shared, 1, die_at, |shared| shared.send(1, 1));
        let sleeper = party(&shared, 2, None, |shared| {
            match shared.send_in(&shared.parts[0], 2, 2, Patience::Forever) {
                Err(Refused::Sealed) => shared.send_in(&shared.parts[1], 2, 2, Patience::Forever),
                other => other,
            }
        });
        if sealer.join().unwrap().is_none() {
            // Whether it had sealed the ring or not, there is room then.
            take_part(&*shared, 4, None, |shared| {
                assert_eq!(shared.receive(4, Patience::Forever), Some(9));
            });
        }
        assert_eq!(sleeper.join().unwrap(), Some(Ok(())));
    });
}

#[test]
fn grow_the_sender_dies_at_each_step() {
    assert!(at_every_step(sender_dies) >= 9);
}

#[test]
fn grow_one_of_two_receivers_dies_at_each_step() {
    assert!(at_every_step(receiver_dies) >= 7);
}

#[test]
fn grow_a_ring_is_sealed_while_a_sender_sleeps() {
    assert!(at_every_step(sealed_while_asleep) >= 7);
}

#[test]
fn grow_two_seal() {
    two_seal(None);
}

#[test]
#[ignore = "takes some minutes: for a long run by hand"]
fn grow_one_of_two_who_seal_dies_at_each_step() {
    assert!(at_every_step(two_seal) >= 7);
}

#[test]
#[ignore = "fails on purpose; `grow_control_without_pending` runs it"]
fn control_without_pending() {
    set_control(Protection::NoPending);
    at_every_step(sender_dies);
    at_every_step(two_seal);
    at_every_step(receiver_dies);
}

#[test]
fn grow_control_without_pending() {
    assert!(fails("control_without_pending"));
}
