//! Models of the barrier and the latch: one that waits, or owes a count, dies at each step.
#![cfg(loom)]
#![expect(unsafe_code, reason = "the promises of the raw protocols")]

mod model;

use model::{At, Model, nothing, passes};
use mp_sync::patience::Patience;
use mp_sync::raw::{Arrived, Counted, RawBarrier, RawLatch};
use mp_sys::atomic::{AtomicU32, Ordering};
use mp_sys::model::{Control, set_control};

struct Meeting {
    barrier: RawBarrier<4>,
    through: AtomicU32,
}

fn arrive(state: &Meeting, at: &At<'_>) {
    // SAFETY: the model's threads share the state by reference counts, and it outlives them.
    if let Arrived::Through(_) = unsafe { state.barrier.wait(at, Patience::Forever) }.unwrap() {
        state.through.fetch_add(1, Ordering::Relaxed);
    }
}

/// Two arrive. If the victim died before it counted as one of them, the other waits alone, and somebody ends that.
const TWO: Model<Meeting> = Model {
    make: || {
        let barrier = RawBarrier::new();
        barrier.set_up(2);
        Meeting { barrier, through: AtomicU32::new(0) }
    },
    parts: &[arrive, arrive],
    after: |state, at, died| {
        // A slot of the dead, or a break that has begun, is for the other to find.
        if died && !state.barrier.waiters().has_dead() {
            // SAFETY: as in `arrive`.
            unsafe { state.barrier.abort(at) }.unwrap();
        }
    },
    end: |state, _, died| {
        assert!(died || state.through.load(Ordering::Relaxed) == 2);
        assert_eq!(state.barrier.waiting(), 0);
    },
    has_domain: true,
};

#[test]
fn barrier_one_of_two_dies_at_each_step() {
    let steps = TWO.die_at_each_step();
    assert!(steps >= 8, "the model passes the crash points: {steps}");
}

#[test]
#[ignore = "fails on purpose; `barrier_control_without_links` runs it"]
fn control_barrier_without_links() {
    set_control(Control::NoLinks);
    TWO.die_at_each_step();
}

#[test]
fn barrier_control_without_links() {
    assert!(!passes("control_barrier_without_links"), "one that dies with the mutex strands the others");
}

fn owe(state: &RawLatch<3>, at: &At<'_>) {
    // SAFETY: as in `arrive`.
    let slot = unsafe { state.ticket(at) }.unwrap();
    mp_sys::crash::point("model.owing");
    // SAFETY: as above.
    unsafe { state.end_ticket(at, slot) };
}

fn wait(state: &RawLatch<3>, at: &At<'_>) {
    // SAFETY: as in `arrive`.
    while unsafe { state.wait(at, Patience::Forever) }.unwrap() != Counted::Zero {
        state.mutex().clear_poison();
        // Told of the death: counts for the dead, which does no harm if it had counted.
        // SAFETY: as above.
        unsafe { state.count_down(at, 1) }.unwrap();
    }
}

const LATCH: Model<RawLatch<3>> = Model {
    make: || {
        let latch = RawLatch::new();
        latch.set_up(1);
        latch
    },
    parts: &[owe, wait],
    after: |state, at, died| {
        // Died before it had its ticket.
        if died && !state.tickets().has_dead() {
            // SAFETY: as in `arrive`.
            unsafe { state.count_down(at, 1) }.unwrap();
        }
    },
    end: nothing,
    has_domain: true,
};

#[test]
fn latch_one_with_a_ticket_dies_at_each_step() {
    let steps = LATCH.die_at_each_step();
    assert!(steps >= 10, "the model passes the crash points: {steps}");
}

#[test]
#[ignore = "fails on purpose; `latch_control_without_links` runs it"]
fn control_latch_without_links() {
    set_control(Control::NoLinks);
    LATCH.die_at_each_step();
}

#[test]
fn latch_control_without_links() {
    assert!(!passes("control_latch_without_links"), "a debtor that dies strands those who wait");
}
