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
//! worker, and a new worker takes the place of the dead. Of a chunk of a `map` only the input fails that the worker was at. A panic is told with its
//! message, also where panics abort (`panic = "abort"`), which costs the worker.
//!
//! | to | use |
//! |---|---|
//! | run one function | [`Pool::submit`], [`Pool::apply`]; what is submitted is a [`Task`]: wait, cancel, await, be called |
//! | wait for several tasks | [`wait_any`], [`wait_all`], [`as_completed`], [`Pool::scope`] |
//! | run a function for many inputs | [`Pool::map`], [`Pool::starmap`], [`Pool::imap`], [`Pool::imap_unordered`], [`Pool::map_results`], [`ParMap::par_map`]; in shared memory: [`Pool::map_slice`], [`Pool::map_into`] |
//! | keep something in each worker | [`PoolBuilder::initializer`], [`with_worker_state`], [`PoolBuilder::finalizer`], [`Pool::join_with`] |
//! | see what goes on | [`Pool::stats`], [`Pool::timeline`]; with the features below: a progress bar, `tracing` |
//!
//! The same code runs in threads ([`ThreadPool`], whose tasks can be waited for, cancelled, awaited and called back all the same) and in the
//! caller ([`Inline`]): write it for any [`Executor`]. Functions marked [`#[task]`](macro@task) have names, by which a [`NamedExecutor`] can
//! have them run by another build of the program ([`named`]).
//!
//! | feature | gives |
//! |---|---|
//! | `progress` | `Pool::progress(bar)`: the `map` that follows moves an [indicatif](https://docs.rs/indicatif) bar; `progress_bar()` makes one with the rate |
//! | `tracing` | a [tracing](https://docs.rs/tracing) span `pool`, in it events of workers (debug) and tasks (trace); in workers and threads a span `task` around each task or chunk, with its number and the worker's. A worker's subscriber is set by the [initializer](PoolBuilder::initializer). A subscriber must not use the pool |
//!
//! A function of two arguments goes to [`starmap`](Pool::starmap), one of more to `map` as `|(a, b, c)| f(a, b, c)`, or marked [`#[task]`](macro@task) as it
//! is.
#![forbid(unsafe_code)]

mod builder;
mod crew;
mod dispatcher;
mod drive;
mod error;
mod executor;
mod failure;
mod inline;
mod map;
mod meter;
pub mod named;
mod pool;
#[cfg(feature = "progress")]
mod progress;
mod scope;
mod slot;
mod state;
mod stats;
mod task;
mod threads;
mod trace;
mod view;
mod worker;

pub use builder::PoolBuilder;
pub use error::{MapError, PoolError, TaskError, TaskErrorKind};
pub use executor::{Executor, NamedExecutor, TaskHandle};
pub use inline::{Inline, InlineTask};
pub use map::{Imap, ParMap};
pub use mp_derive::task;
pub use named::NamedTask;
pub use pool::Pool;
#[cfg(feature = "progress")]
pub use progress::{Progress, progress_bar};
pub use scope::Scope;
pub use stats::{PoolStats, Slow, WorkerStats};
pub use task::{Task, WaitableTask, as_completed, wait_all, wait_any, wait_any_timeout};
pub use threads::{ThreadImap, ThreadPool, ThreadPoolBuilder, ThreadScope, ThreadTask};
pub use view::TaskValue;
pub use worker::{with_worker_state, worker_id};
