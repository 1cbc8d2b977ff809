//! Words one can wait on across processes.
//!
//! So far: [`notify`], the crash-safe wake-up under the channels, and [`spin`], how long to spin before sleeping. Locks, conditions,
//! semaphores, barriers and the trait for what can be waited on are not here yet.

pub mod notify;
pub mod spin;
