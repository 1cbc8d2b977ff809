//! The protocols of the primitives, without the data they guard: what models run, and what other crates build on.
//!
//! All of them are plain words in shared memory, valid for every bit pattern; all zero is how they begin. They are small state
//! machines of three parts:
//!
//! | part | what it is | after a death |
//! |---|---|---|
//! | [`RawMutex`] | a robust lock: guards the other words of a primitive for a few instructions | the next locker is told |
//! | [`Gate`] | a count that is advanced when something has changed; sleepers watch it | all who sleep look again |
//! | [`Slots`] | robust words, one for each thread that holds a part of it (a permit, a read lock) | the kernel marks the slot |
//!
//! Who sleeps also watches all processes of the [domain](mp_shm::death) that the primitive lies in: any death ends all sleeps there, and
//! everybody looks again. So it does no harm when somebody dies between a change and its announcement.

mod barrier;
mod condvar;
mod event;
mod gate;
mod ground;
mod latch;
mod mutex;
mod once;
mod rwlock;
mod semaphore;
mod slots;

pub use barrier::{Arrived, RawBarrier};
pub use condvar::RawCondvar;
pub use event::RawEvent;
pub use gate::Gate;
#[cfg(not(loom))]
pub(crate) use gate::Inside;
pub use ground::{Ground, Waiting};
pub use latch::{Counted, RawLatch};
#[cfg(not(loom))]
pub(crate) use mutex::SLOTS;
pub use mutex::{Acquired, INTERNAL_MOST, RawMutex};
pub use once::{Begun, RawOnce};
pub use rwlock::RawRwLock;
pub use semaphore::RawSemaphore;
pub use slots::Slots;
