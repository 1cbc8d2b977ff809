//! Models of the reader-writer lock: a reader or a writer dies at each step.
#![cfg(loom)]
#![expect(unsafe_code, reason = "loom's cells are accessed through pointers")]

mod model;

use loom::cell::UnsafeCell;
use model::{At, Model, nothing, passes};
use mp_sync::patience::Patience;
use mp_sync::raw::{Acquired, RawRwLock};
use mp_sys::atomic::{AtomicU32, Ordering};
use mp_sys::model::{Control, set_control};

struct Guarded {
    lock: RawRwLock<3>,
    /// Two halves that a writer keeps equal; loom checks that nobody reads while it writes.
    halves: UnsafeCell<[u32; 2]>,
    suspect: AtomicU32,
}

fn told(state: &Guarded) -> impl FnOnce(Acquired) {
    |acquired| {
        if acquired != Acquired::Clean {
            state.suspect.store(1, Ordering::Relaxed);
        }
    }
}

fn read(state: &Guarded, at: &At<'_>) {
    // SAFETY: the model's threads share the state by reference counts, and it outlives them.
    let (slot, _) = unsafe { state.lock.read(at, Patience::Forever, told(state)) }.unwrap();
    // SAFETY: the lock is held for reading; loom checks that.
    let [first, second] = state.halves.with(|halves| unsafe { *halves });
    assert!(first == second || state.suspect.load(Ordering::Relaxed) == 1, "a torn value is told");
    mp_sys::crash::point("model.reading");
    state.lock.end_read(slot);
}

fn write(state: &Guarded, at: &At<'_>) {
    // SAFETY: as in `read`.
    unsafe { state.lock.write(at, Patience::Forever, told(state)) }.unwrap();
    // SAFETY: the lock is held for writing; loom checks that.
    state.halves.with_mut(|halves| unsafe { (*halves)[0] += 1 });
    mp_sys::crash::point("model.half_written");
    // SAFETY: as above.
    state.halves.with_mut(|halves| unsafe { (*halves)[1] = (*halves)[0] });
    state.lock.end_write();
}

const WRITER: Model<Guarded> = Model {
    make: || Guarded { lock: RawRwLock::new(), halves: UnsafeCell::new([0; 2]), suspect: AtomicU32::new(0) },
    parts: &[write, read, read],
    after: nothing,
    end: |state, at, _| {
        write(state, at);
        read(state, at);
    },
    has_domain: true,
};

#[test]
fn rwlock_a_writer_dies_at_each_step() {
    let steps = WRITER.die_at_each_step();
    assert!(steps >= 10, "the model passes the crash points: {steps}");
}

const READER: Model<Guarded> = Model { parts: &[read, read, write], ..WRITER };

#[test]
fn rwlock_a_reader_dies_at_each_step() {
    let steps = READER.die_at_each_step();
    assert!(steps >= 10, "the model passes the crash points: {steps}");
}

#[test]
#[ignore = "fails on purpose; `rwlock_control_without_links` runs it"]
fn control_without_links() {
    set_control(Control::NoLinks);
    READER.die_at_each_step();
}

#[test]
fn rwlock_control_without_links() {
    assert!(!passes("control_without_links"), "a reader that dies strands writers");
}
