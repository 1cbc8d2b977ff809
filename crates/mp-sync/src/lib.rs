//! Words one can wait on across processes: locks, conditions, semaphores, events, barriers.
//!
//! Everything here survives the death of any process at any instruction: nobody who waits is stranded, what the dead held comes
//! back, and who finds data that a dead owner may have left half changed is told.

pub mod error;
pub mod notify;
pub mod patience;
pub mod raw;
pub mod spin;
