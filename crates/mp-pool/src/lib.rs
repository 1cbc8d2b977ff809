//! A pool of worker processes that loses at most the task that killed its worker.
//!
//! ```text
//! Pool ── dispatcher (one state machine; who waits for a result drives it) ──┬─ task channel ─ worker 0 ─┐
//!   ▲                                                                        └─ task channel ─ worker 1 ─┤
//!   └───────────────────────────── result channel, shared by all workers ◄───────────────────────────────┘
//! ```
//!
//! Every worker has a task channel of its own, with room for the task it runs and one more, so no lock is shared on the way of a task
//! and it is always known which task a dead worker held: that task fails or is tried again, the one behind it goes to another
//! worker, and a new worker takes the place of the dead.
//!
//! The same code runs in threads ([`ThreadPool`]) and in the caller ([`Inline`]): write it for any [`Executor`]. Functions marked
//! [`#[task]`](macro@task) have names, by which a [`NamedExecutor`] can have them run by another build of the program ([`named`]).
//!
//! What it does not do yet: time-outs and cancelling of running tasks, recycling, initialisers, resizing, callbacks, shared output.
#![forbid(unsafe_code)]

mod builder;
mod dispatcher;
mod error;
mod executor;
mod failure;
mod inline;
mod map;
pub mod named;
mod pool;
mod slot;
mod task;
mod threads;
mod worker;

pub use builder::PoolBuilder;
pub use error::{MapError, PoolError, TaskError};
pub use executor::{Executor, NamedExecutor, TaskHandle};
pub use inline::{Inline, InlineTask};
pub use mp_derive::task;
pub use named::NamedTask;
pub use pool::{Pool, PoolStats};
pub use task::Task;
pub use threads::{ThreadPool, ThreadPoolBuilder, ThreadTask};
