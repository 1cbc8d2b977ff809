//! Words one can wait on across processes: locks, conditions, semaphores, events, barriers.
//!
//! Everything here survives the death of any process at any instruction: nobody who waits is stranded, what the dead held comes
//! back, and who finds data that a dead owner may have left half changed is told.
//!
//! | | what it is | when a holder dies |
//! |---|---|---|
//! | [`Mutex`], [`RecursiveMutex`], [`LockedArray`] | one owner | the next one is told, later ones find it poisoned until `recover` |
//! | [`RwLock`] | many readers or one writer | a writer: as above; a reader: nothing |
//! | [`Condvar`] | waiting for what others change under a mutex | all who wait look again |
//! | [`Semaphore`] | so many at a time | its permits come back |
//! | [`Event`] | a flag to wait for | nothing depends on a holder |
//! | [`Barrier`] | so many wait for each other | it breaks |
//! | [`Once`] | done by whoever comes first | the next one does it again, and is told |
//! | [`Latch`] | a count that goes down to zero | one who waits is told, if the dead one had a [`Ticket`] |
//!
//! All of them lie in shared memory only: alone behind a handle that can be sent (`Mutex::shared(0)`), or as members of a
//! `#[repr(C)]` struct that derives [`ShmSafe`](mp_shm::ShmSafe) and lies in a [`Shared`](mp_shm::Shared), a
//! [`Segment`](mp_shm::Segment) or a [`FileSegment`](mp_shm::FileSegment). Waiting calls have `try_`, `_timeout` and `_deadline` forms, on the
//! monotonic clock.
//!
//! [`deadlock`] tells who waits for whom. [`wait_any`] waits for one of several [`Waitable`]s.
//!
//! What it does not do: fairness (who comes at the right moment may overtake those who wait); priority inheritance; waiting for file
//! descriptors. Limits: 1024 locks held by a thread; 64 threads that hold a part of one primitive (readers, permits, tickets);
//! a process stopped (SIGSTOP) while it holds a lock holds up those who want it.

pub mod error;
pub mod notify;
pub mod raw;
pub mod spin;

pub use mp_sys::patience;

#[cfg(not(loom))]
mod barrier;
#[cfg(not(loom))]
mod condvar;
#[cfg(not(loom))]
pub mod deadlock;
#[cfg(not(loom))]
mod event;
#[cfg(not(loom))]
mod here;
#[cfg(not(loom))]
mod latch;
#[cfg(not(loom))]
mod lock_error;
#[cfg(not(loom))]
mod locked_array;
#[cfg(not(loom))]
mod macros;
#[cfg(not(loom))]
mod mutex;
#[cfg(not(loom))]
mod once;
#[cfg(not(loom))]
mod rwlock;
#[cfg(not(loom))]
mod semaphore;
#[cfg(not(loom))]
mod waitable;

#[cfg(not(loom))]
pub use barrier::{Arrival, Barrier, BarrierError};
#[cfg(not(loom))]
pub use condvar::{Condvar, WaitTimeout};
pub use error::Failure;
#[cfg(not(loom))]
pub use event::Event;
#[cfg(not(loom))]
pub use latch::{Latch, LatchError, Ticket};
#[cfg(not(loom))]
pub use lock_error::{LockError, LockResult};
#[cfg(not(loom))]
pub use locked_array::{LockedArray, LockedArrayGuard};
#[cfg(not(loom))]
pub use mutex::{Mutex, MutexGuard, RecursiveGuard, RecursiveMutex};
#[cfg(not(loom))]
pub use once::{Once, OnceState};
pub use patience::Patience;
#[cfg(not(loom))]
pub use rwlock::{ReadGuard, RwLock, WriteGuard};
#[cfg(not(loom))]
pub use semaphore::{Permit, Semaphore};
#[cfg(not(loom))]
pub use waitable::{Armed, WAIT_ANY_MAX, Waitable, wait_any};
