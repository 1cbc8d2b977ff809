//! Models of the ring of stamped buffers: a writer that dies at each step, its successor, and readers.
//!
//! Run with `RUSTFLAGS="--cfg loom"`. The negative controls run in processes of their own, since loom cannot go on after a failed model.
#![cfg(loom)]

use loom::sync::Arc;
use loom::thread;
use mp_shm::stamped::Ring;
use mp_sys::atomic::{AtomicU64, Ordering, fence};
use mp_sys::model::{self, participant};

/// Stamp and two words.
const STRIDE: usize = 3;

struct Shared {
    newest: AtomicU64,
    words: Vec<AtomicU64>,
}

impl Shared {
    fn new(buffers: usize) -> Self {
        let words = (0..buffers * STRIDE).map(|_| AtomicU64::new(0)).collect();
        Self { newest: AtomicU64::new(0), words }
    }

    fn ring(&self) -> Ring<'_> {
        Ring::new(&self.newest, &self.words, STRIDE).unwrap()
    }

    fn write(&self, value: u64) {
        self.ring().write(|words| fill(words, value));
    }

    /// Looks a few times; a torn value fails the model.
    fn read(&self) -> Option<u64> {
        let copy = |words: &[AtomicU64]| (words[0].load(Ordering::Relaxed), words[1].load(Ordering::Relaxed));
        let (_, (first, second)) = (0..3).find_map(|_| self.ring().try_read(copy))?;
        assert_eq!(first, second, "a torn value");
        Some(first)
    }
}

fn fill(words: &[AtomicU64], value: u64) {
    words[0].store(value, Ordering::Relaxed);
    mp_sys::crash::point("model.half");
    words[1].store(value, Ordering::Relaxed);
}

/// What goes wrong on purpose.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// The writer does not take the old stamp away before it changes the words.
    NoBusy,
}

fn write(shared: &Shared, value: u64, fault: Fault) {
    if fault == Fault::None {
        return shared.write(value);
    }
    let number = shared.newest.load(Ordering::Relaxed) + 1;
    let at = usize::try_from(number).unwrap() % (shared.words.len() / STRIDE) * STRIDE;
    fence(Ordering::Release);
    fill(&shared.words[at + 1..at + STRIDE], value);
    shared.words[at].store(number, Ordering::Release);
    shared.newest.store(number, Ordering::Release);
}

/// A reader beside a writer of two values, which dies at step `die_at`, and then a second writer.
fn check(buffers: usize, fault: Fault, die_at: Option<usize>) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.max_branches = 20_000;
    builder.check(move || {
        let shared = Arc::new(Shared::new(buffers));
        shared.write(1);
        let writer = {
            let shared = shared.clone();
            thread::spawn(move || {
                participant(2, None, die_at, || {
                    write(&shared, 2, fault);
                    write(&shared, 3, fault);
                })
            })
        };
        let reader = {
            let shared = shared.clone();
            thread::spawn(move || {
                let (first, second) = (shared.read(), shared.read());
                if let (Some(first), Some(second)) = (first, second) {
                    assert!(first <= second, "{second} after {first}");
                }
            })
        };
        let died = writer.join().unwrap().is_none();
        reader.join().unwrap();
        let left = shared.read().expect("a dead writer leaves a value");
        assert!(died || left == 3);
        shared.write(4);
        assert_eq!(shared.read(), Some(4), "the next writer goes on");
    });
}

#[test]
fn ring_without_death() {
    check(2, Fault::None, None);
    check(4, Fault::None, None);
}

#[test]
fn ring_writer_dies_at_each_step() {
    for step in 0.. {
        check(2, Fault::None, Some(step));
        if !model::died(2) {
            assert!(step >= 10, "the model passes the crash points: {step}");
            return;
        }
    }
}

#[test]
#[ignore = "fails on purpose; `ring_control_one_buffer` runs it"]
fn control_one_buffer() {
    for step in 0..5 {
        check(1, Fault::None, Some(step));
    }
}

#[test]
#[ignore = "fails on purpose; `ring_control_without_busy` runs it"]
fn control_without_busy() {
    check(2, Fault::NoBusy, None);
}

fn passes(name: &str) -> bool {
    std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--test-threads=1"])
        .output()
        .unwrap()
        .status
        .success()
}

#[test]
fn ring_control_one_buffer() {
    assert!(!passes("control_one_buffer"), "a sequence lock does not survive its writer");
}

#[test]
fn ring_control_without_busy() {
    assert!(!passes("control_without_busy"), "readers must see that a buffer is being written");
}
