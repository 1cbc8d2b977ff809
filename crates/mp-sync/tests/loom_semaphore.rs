//! Models of the semaphore: a holder, a waiter, or one that adds permits dies at each step.
#![cfg(loom)]
#![expect(unsafe_code, reason = "loom's cells are accessed through pointers")]

mod model;

use loom::cell::UnsafeCell;
use model::{At, Model, nothing, passes};
use mp_sync::patience::Patience;
use mp_sync::raw::RawSemaphore;
use mp_sys::model::{Control, set_control};

struct Guarded {
    semaphore: RawSemaphore<3>,
    /// Used by who holds the one permit; loom checks that it is one.
    used: UnsafeCell<u32>,
}

fn make(permits: u32) -> Guarded {
    let semaphore = RawSemaphore::new();
    semaphore.set_up(permits, 0);
    Guarded { semaphore, used: UnsafeCell::new(0) }
}

fn hold(state: &Guarded, at: &At<'_>) {
    // SAFETY: the model's threads share the state by reference counts, and it outlives them.
    let slot = unsafe { state.semaphore.acquire(at, Patience::Forever, 1) }.unwrap();
    // SAFETY: this participant has the only permit; loom checks that.
    state.used.with_mut(|used| unsafe { *used += 1 });
    mp_sys::crash::point("model.used");
    // SAFETY: as above.
    unsafe { state.semaphore.release(at, slot, 1) };
}

fn all_permits_are_back(state: &Guarded, at: &At<'_>, _died: bool) {
    hold(state, at);
    assert_eq!((state.semaphore.free(), state.semaphore.total()), (1, 1));
}

const HOLDERS: Model<Guarded> = Model {
    make: || make(1),
    parts: &[hold, hold],
    after: nothing,
    end: all_permits_are_back,
    has_domain: true,
};

#[test]
fn semaphore_permits_of_one_that_dies_at_each_step_come_back() {
    let steps = HOLDERS.die_at_each_step();
    assert!(steps >= 15, "the model passes the crash points: {steps}");
}

#[test]
#[ignore = "fails on purpose; `semaphore_control_without_links` runs it"]
fn control_without_links() {
    set_control(Control::NoLinks);
    HOLDERS.die_at_each_step();
}

#[test]
fn semaphore_control_without_links() {
    assert!(!passes("control_without_links"), "permits of the dead stay away");
}

fn add(state: &Guarded, at: &At<'_>) {
    // SAFETY: as in `hold`.
    unsafe { state.semaphore.add(at, 1) }.unwrap();
}

/// Two wait for a permit that a third adds. The victim is woken for it, and dies: the other must get it.
const WAITERS: Model<Guarded> = Model { make: || make(0), parts: &[hold, hold, add], ..HOLDERS };

#[test]
fn semaphore_a_permit_is_not_lost_with_one_that_was_woken_for_it() {
    let steps = WAITERS.die_at_each_step();
    assert!(steps >= 15, "the model passes the crash points: {steps}");
}

/// The victim adds a permit and dies at each step; the other waits for it.
const ADDER: Model<Guarded> = Model {
    make: || make(0),
    parts: &[add, hold],
    after: |state, at, _| {
        // It died before the permit counted: somebody else adds it. Otherwise nobody does, and the waiter must get to know.
        if state.semaphore.total() == 0 {
            add(state, at);
        }
    },
    ..HOLDERS
};

#[test]
fn semaphore_one_that_adds_a_permit_dies_at_each_step() {
    let steps = ADDER.die_at_each_step();
    assert!(steps >= 8, "the model passes the crash points: {steps}");
}

#[test]
#[ignore = "fails on purpose; `semaphore_control_without_domain` runs it"]
fn control_without_domain() {
    Model { has_domain: false, ..ADDER }.die_at_each_step();
}

#[test]
fn semaphore_control_without_domain() {
    assert!(!passes("control_without_domain"), "who dies before its announcement strands sleepers");
}
