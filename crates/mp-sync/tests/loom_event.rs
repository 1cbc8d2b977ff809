//! Models of the event and the condition variable: the one that sets or notifies dies at each step, or one that was woken.
#![cfg(loom)]
#![expect(unsafe_code, reason = "loom's cells are accessed through pointers")]

mod model;

use loom::cell::UnsafeCell;
use model::{At, Model, passes};
use mp_sync::patience::Patience;
use mp_sync::raw::{INTERNAL_MOST, RawCondvar, RawEvent, RawMutex};
use mp_sys::atomic::{AtomicU32, Ordering};

struct Evented {
    event: RawEvent,
    value: UnsafeCell<u32>,
}

fn set(state: &Evented, _: &At<'_>) {
    // SAFETY: nobody reads before the event is set; loom checks that.
    state.value.with_mut(|value| unsafe { *value = 7 });
    state.event.set();
}

fn set_and_clear(state: &Evented, at: &At<'_>) {
    set(state, at);
    state.event.clear();
}

fn wait(state: &Evented, at: &At<'_>) {
    state.event.wait(at, Patience::Forever).unwrap();
    // SAFETY: the event was set, and nobody writes any more; loom checks that.
    assert_eq!(state.value.with(|value| unsafe { *value }), 7);
}

const EVENT: Model<Evented> = Model {
    make: || Evented { event: RawEvent::new(), value: UnsafeCell::new(0) },
    parts: &[set, wait, wait],
    after: |state, at, _| {
        if state.event.times_set() == 0 {
            set(state, at);
        }
    },
    end: |_, _, _| (),
    has_domain: true,
};

#[test]
fn event_the_setter_dies_at_each_step() {
    let steps = EVENT.die_at_each_step();
    assert!(steps >= 3, "the model passes the crash points: {steps}");
}

#[test]
#[ignore = "fails on purpose; `event_control_without_domain` runs it"]
fn control_event_without_domain() {
    Model { has_domain: false, ..EVENT }.die_at_each_step();
}

#[test]
fn event_control_without_domain() {
    assert!(!passes("control_event_without_domain"), "who dies before its announcement strands sleepers");
}

/// A waiter dies: the other does not mind.
#[test]
fn event_a_waiter_dies_at_each_step() {
    let model = Model { parts: &[wait, wait, set], after: |_, _, _| (), ..EVENT };
    assert!(model.die_at_each_step() >= 1);
}

/// Who waits already does not miss an event that is cleared at once; who comes later may, and is helped.
#[test]
fn event_set_and_clear_is_not_missed_by_one_that_waits() {
    let model = Model {
        parts: &[set_and_clear, |state, at| state.event.wait(at, Patience::Forever).unwrap()],
        after: |state, _, _| state.event.set(),
        ..EVENT
    };
    assert!(model.die_at_each_step() >= 1);
}

struct Tokens {
    mutex: RawMutex,
    condvar: RawCondvar,
    /// Guarded by the mutex.
    tokens: UnsafeCell<u32>,
    /// Tokens there ever were; a copy for those who look without the mutex.
    made: AtomicU32,
}

fn lock(state: &Tokens, at: &At<'_>) {
    // SAFETY: the model's threads share the state by reference counts, and it outlives them.
    unsafe { state.mutex.lock(at, Patience::Forever, INTERNAL_MOST) }.unwrap();
}

fn make_token(state: &Tokens, at: &At<'_>) {
    lock(state, at);
    // SAFETY: the mutex is held; loom checks that.
    state.tokens.with_mut(|tokens| unsafe { *tokens += 1 });
    state.made.fetch_add(1, Ordering::Relaxed);
    mp_sys::crash::point("model.made");
    state.mutex.unlock();
    state.condvar.notify(1);
}

/// Waits for a token and leaves it, telling the next one.
fn see_token(state: &Tokens, at: &At<'_>) {
    lock(state, at);
    // SAFETY: the mutex is held; loom checks that.
    while state.tokens.with(|tokens| unsafe { *tokens }) == 0 {
        // SAFETY: as in `lock`.
        unsafe { state.condvar.wait(&state.mutex, at, Patience::Forever) }.unwrap().1.unwrap();
    }
    mp_sys::crash::point("model.seen");
    state.mutex.unlock();
    state.condvar.notify(1);
}

const NOTIFIER: Model<Tokens> = Model {
    make: || Tokens {
        mutex: RawMutex::new(),
        condvar: RawCondvar::new(),
        tokens: UnsafeCell::new(0),
        made: AtomicU32::new(0),
    },
    parts: &[make_token, see_token],
    after: |state, at, _| {
        // Died before there was a token: somebody else makes one. Otherwise nobody does, and the waiter must find it.
        if state.made.load(Ordering::Relaxed) == 0 {
            make_token(state, at);
        }
    },
    end: |_, _, _| (),
    has_domain: true,
};

#[test]
fn condvar_the_notifier_dies_at_each_step() {
    let steps = NOTIFIER.die_at_each_step();
    assert!(steps >= 8, "the model passes the crash points: {steps}");
}

#[test]
#[ignore = "fails on purpose; `condvar_control_without_domain` runs it"]
fn control_condvar_without_domain() {
    Model { has_domain: false, ..NOTIFIER }.die_at_each_step();
}

#[test]
fn condvar_control_without_domain() {
    assert!(!passes("control_condvar_without_domain"), "who dies before it notifies strands those who wait");
}

/// One notification, two waiters: the one that is woken dies before it could tell the other.
#[test]
fn condvar_one_that_was_woken_dies_at_each_step() {
    let model = Model { parts: &[see_token, see_token, make_token], after: |_, _, _| (), ..NOTIFIER };
    let steps = model.die_at_each_step();
    assert!(steps >= 8, "the model passes the crash points: {steps}");
}
