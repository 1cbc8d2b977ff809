//! Models of a slot of a list: writers under the domain lock, one of which dies at each step, beside a reader without the lock.
//!
//! Run with `RUSTFLAGS="--cfg loom"`. The negative control runs in a process of its own, since loom cannot go on after a failed model.
#![cfg(loom)]
#![expect(unsafe_code, reason = "the lock asks for a promise that it stays")]

use loom::sync::Arc;
use loom::thread;
use mp_shm::lock::DomainLock;
use mp_shm::stamped::Ring;
use mp_sys::atomic::{AtomicU64, Ordering};
use mp_sys::model::{self, participant};

/// Stamp and two words.
const STRIDE: usize = 3;

struct Slot {
    lock: DomainLock,
    newest: AtomicU64,
    words: Vec<AtomicU64>,
    locks: bool,
}

impl Slot {
    fn ring(&self) -> Ring<'_> {
        Ring::new(&self.newest, &self.words, STRIDE).unwrap()
    }

    /// As `List::replace` does it.
    fn write(&self, value: u64) {
        let fill = |words: &[AtomicU64]| {
            words[0].store(value, Ordering::Relaxed);
            mp_sys::crash::point("model.half");
            words[1].store(value, Ordering::Relaxed);
        };
        if !self.locks {
            return self.ring().write(fill);
        }
        // SAFETY: the model's threads share the slot by reference counts, and it outlives them.
        let _ = unsafe { self.lock.lock() };
        mp_sys::crash::point("list.locked");
        self.ring().write(fill);
        mp_sys::crash::point("list.done");
        self.lock.unlock();
    }

    /// As `List::get` does it, with fewer looks.
    fn read(&self) -> u64 {
        let copy = |words: &[AtomicU64]| (words[0].load(Ordering::Relaxed), words[1].load(Ordering::Relaxed));
        let look = || self.ring().try_read(copy);
        let seen = look().or_else(|| {
            // SAFETY: as in `write`.
            let _ = unsafe { self.lock.lock() };
            let seen = look();
            self.lock.unlock();
            seen
        });
        let (_, (first, second)) = seen.expect("with the lock a reader always finds a value");
        assert_eq!(first, second, "a torn item");
        first
    }
}

fn check(locks: bool, die_at: Option<usize>) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(2));
    builder.max_branches = 20_000;
    builder.check(move || {
        let words = (0..2 * STRIDE).map(|_| AtomicU64::new(0)).collect();
        let slot = Arc::new(Slot { lock: DomainLock::new(), newest: AtomicU64::new(0), words, locks });
        participant(1, None, None, || slot.write(1));
        let party = |tid: u32, die_at: Option<usize>| {
            let slot = slot.clone();
            thread::spawn(move || participant(tid, None, die_at, || slot.write(tid.into())))
        };
        let reader = {
            let slot = slot.clone();
            thread::spawn(move || participant(4, None, None, || slot.read()))
        };
        let (mortal, other) = (party(2, die_at), party(3, None));
        let read = reader.join().unwrap();
        assert!(read.is_some_and(|value| (1..=3).contains(&value)));
        mortal.join().unwrap();
        assert_eq!(other.join().unwrap(), Some(()), "the survivor gets through");
        let last = participant(9, None, None, || {
            slot.read();
            slot.write(4);
            slot.read()
        });
        assert_eq!(last, Some(4));
    });
}

#[test]
fn list_without_death() {
    check(true, None);
}

#[test]
fn list_a_writer_dies_at_each_step() {
    for step in 0.. {
        check(true, Some(step));
        if !model::died(2) {
            assert!(step >= 9, "the model passes the crash points: {step}");
            return;
        }
    }
}

#[test]
#[ignore = "fails on purpose; `list_control_without_lock` runs it"]
fn control_without_lock() {
    check(false, None);
}

#[test]
fn list_control_without_lock() {
    let passed = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "control_without_lock", "--ignored", "--test-threads=1"])
        .output()
        .unwrap()
        .status
        .success();
    assert!(!passed, "two writers at a time tear an item");
}
