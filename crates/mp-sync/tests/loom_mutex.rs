//! Models of the robust mutex: three parties, one of which dies at each step in turn; once, which is built on it.
#![cfg(loom)]
#![expect(unsafe_code, reason = "loom's cells are accessed through pointers")]

mod model;

use loom::cell::UnsafeCell;
use model::{At, Model, nothing, passes};
use mp_sync::patience::Patience;
use mp_sync::raw::{Acquired, Begun, INTERNAL_MOST, RawMutex, RawOnce};
use mp_sys::atomic::{AtomicU32, Ordering};
use mp_sys::model::{Control, set_control};

struct Guarded {
    mutex: RawMutex,
    /// What the mutex guards; loom checks that accesses are ordered.
    value: UnsafeCell<u32>,
    told: AtomicU32,
}

fn enter(state: &Guarded, at: &At<'_>) {
    // SAFETY: the model's threads share the state by reference counts, and it outlives them.
    let acquired = unsafe { state.mutex.lock(at, Patience::Forever, INTERNAL_MOST) }.unwrap();
    // SAFETY: the lock is held; loom checks that.
    state.value.with_mut(|value| unsafe { *value += 1 });
    mp_sys::crash::point("model.holding");
    if let Acquired::OwnerDied { pid, leaving } = acquired {
        assert!(pid == 1 || (pid == 0 || leaving), "who died is told: {pid}");
        state.told.fetch_add(1, Ordering::Relaxed);
    }
    state.mutex.unlock();
}

fn end(state: &Guarded, at: &At<'_>, died: bool) {
    enter(state, at);
    let told = state.told.load(Ordering::Relaxed);
    assert!(told <= u32::from(died), "a death is told at most once");
}

fn make() -> Guarded {
    Guarded { mutex: RawMutex::new(), value: UnsafeCell::new(0), told: AtomicU32::new(0) }
}

const THREE: Model<Guarded> =
    Model { make, parts: &[enter, enter, enter], after: nothing, end, has_domain: true };
const TWO: Model<Guarded> = Model { parts: &[enter, enter], ..THREE };

#[test]
fn mutex_three_parties_one_dies_at_each_step() {
    let steps = THREE.die_at_each_step();
    assert!(steps >= 8, "the model passes the crash points: {steps}");
}

#[test]
#[ignore = "fails on purpose; `mutex_control_without_pending` runs it"]
fn control_without_pending() {
    set_control(Control::NoPending);
    TWO.die_at_each_step();
}

#[test]
fn mutex_control_without_pending() {
    assert!(!passes("control_without_pending"), "who dies between taking and linking strands the others");
}

#[test]
#[ignore = "fails on purpose; `mutex_control_without_links` runs it"]
fn control_without_links() {
    set_control(Control::NoLinks);
    TWO.die_at_each_step();
}

#[test]
fn mutex_control_without_links() {
    assert!(!passes("control_without_links"), "who dies while it holds the mutex strands the others");
}

struct Done {
    once: RawOnce,
    value: UnsafeCell<u32>,
}

fn run_once(state: &Done, at: &At<'_>) {
    // SAFETY: as in `enter`.
    let begun = unsafe { state.once.begin(at, Patience::Forever) }.unwrap();
    if let Begun::Run { .. } = begun {
        // SAFETY: only the runner is here; loom checks that.
        state.value.with_mut(|value| unsafe { *value = 7 });
        mp_sys::crash::point("model.ran");
        state.once.end(true);
    }
    // SAFETY: it is done, and nobody writes any more; loom checks that.
    assert_eq!(state.value.with(|value| unsafe { *value }), 7);
}

const ONCE: Model<Done> = Model {
    make: || Done { once: RawOnce::new(), value: UnsafeCell::new(0) },
    parts: &[run_once, run_once],
    after: nothing,
    end: |state, at, _| run_once(state, at),
    has_domain: true,
};

#[test]
fn once_is_done_although_a_runner_dies_at_each_step() {
    let steps = ONCE.die_at_each_step();
    assert!(steps >= 8, "the model passes the crash points: {steps}");
}

#[test]
#[ignore = "fails on purpose; `once_control_without_links` runs it"]
fn control_once_without_links() {
    set_control(Control::NoLinks);
    ONCE.die_at_each_step();
}

#[test]
fn once_control_without_links() {
    assert!(!passes("control_once_without_links"), "a runner that dies strands those who wait");
}
