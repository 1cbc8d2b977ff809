//! Models of the domain's lock: three parties, one of which dies at each step in turn.
//!
//! Run with `RUSTFLAGS="--cfg loom"`. A model that hangs is a deadlock that loom reports as a panic. The negative control runs in
//! a process of its own, since loom cannot go on after a failed model.
#![cfg(loom)]
#![expect(unsafe_code, reason = "loom's cells are accessed through pointers")]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use mp_shm::lock::{Acquired, DomainLock};
use mp_sys::model::{self, Control, participant};

struct Shared {
    lock: DomainLock,
    /// What the lock guards; loom checks that accesses are ordered.
    guarded: UnsafeCell<u32>,
}

fn enter(shared: &Shared) -> Acquired {
    // SAFETY: the model's threads share `Shared` by reference counts, and it outlives them.
    let acquired = unsafe { shared.lock.lock() };
    // SAFETY: the lock is held; loom checks that.
    shared.guarded.with_mut(|value| unsafe { *value += 1 });
    shared.lock.unlock();
    acquired
}

fn check(threads: u32, die_at: Option<usize>) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.max_branches = 20_000;
    builder.check(move || {
        let shared = Arc::new(Shared { lock: DomainLock::new(), guarded: UnsafeCell::new(0) });
        let parties: Vec<_> = (1..=threads)
            .map(|tid| {
                let shared = shared.clone();
                let die_at = if tid == 2 { die_at } else { None };
                thread::spawn(move || participant(tid, None, die_at, || enter(&shared)))
            })
            .collect();
        let told: Vec<_> = parties.into_iter().map(|party| party.join().unwrap()).collect();
        let died = told.iter().filter(|one| one.is_none()).count();
        let told_of_death = told.iter().filter(|one| **one == Some(Acquired::OwnerDied)).count();
        assert!(told_of_death <= died, "a death is told at most once");
        let last = participant(9, None, None, || {
            // SAFETY: as above.
            let acquired = unsafe { shared.lock.lock() };
            shared.lock.unlock();
            acquired
        });
        if last == Some(Acquired::OwnerDied) {
            assert_eq!(told_of_death, 0, "a death is told once");
            assert_eq!(died, 1);
        }
    });
}

/// Runs `check` with a death at step 0, 1, 2, … until the step is beyond the last; returns how many there were.
fn at_every_step(threads: u32) -> usize {
    for step in 0.. {
        check(threads, Some(step));
        if !model::died(2) {
            return step;
        }
    }
    unreachable!()
}

#[test]
fn lock_two_parties_without_death() {
    check(2, None);
}

#[test]
fn lock_two_parties_one_dies_at_each_step() {
    let steps = at_every_step(2);
    assert!(steps >= 4, "the model passes the crash points: {steps}");
}

#[test]
fn lock_three_parties_one_dies_at_each_step() {
    let steps = at_every_step(3);
    assert!(steps >= 6, "the contended path has crash points too: {steps}");
}

#[test]
#[ignore = "fails on purpose; `lock_control_without_pending` runs it"]
fn control_without_pending() {
    model::set_control(Control::NoPending);
    for step in 0..12 {
        check(2, Some(step));
    }
}

#[test]
fn lock_control_without_pending() {
    assert!(!run_ignored("control_without_pending"), "the model must fail without the pending word");
}

fn run_ignored(name: &str) -> bool {
    std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--test-threads=1"])
        .output()
        .unwrap()
        .status
        .success()
}
