//! The parts of the benchmark program: what is measured, beside what, and how it is told.
//!
//! A measurement sets this library beside a raw limit (the least that the machine can do the
//! same job with) or a peer (what people would use instead). All are measured in the same run, in
//! turn, because figures of different runs of a shared machine cannot be compared.

use std::error::Error;

pub mod cells;
pub mod channels;
pub mod figures;
pub mod idle;
pub mod latency;
pub mod locks;
pub mod machine;
pub mod measure;
mod memory;
pub mod ours;
pub mod payload;
pub mod peers;
pub mod pool;
pub mod raw_zygote;
pub mod report;
pub mod second;
pub mod soak_fuzz;
pub mod soak_pool;
pub mod soak_queue;
pub mod soak_starts;
pub mod soak_sync;

/// What a measurement gives, or why it failed.
pub type Outcome<T> = Result<T, Box<dyn Error>>;
