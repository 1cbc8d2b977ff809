//! Multiprocessing for Rust: processes, channels and pools over shared memory, safe under kills.
//!
//! This is the front door: it re-exports the crates behind it. Depend on one of them alone if that is all you need.
//!
//! ```
//! use multiproc::{Pool, Process, Sender, channel};
//!
//! fn square(n: u64) -> u64 { n * n }
//!
//! fn worker((name, tx): (String, Sender<String>)) -> usize {
//!     tx.send(format!("hello from {name}")).unwrap();
//!     name.len()
//! }
//!
//! fn main() -> multiproc::Result<()> {
//!     let squares: Vec<u64> = Pool::new()?.map(square, 1..=1_000_000)?;
//!
//!     let (tx, rx) = channel::<String>(64)?;
//!     let child = Process::spawn(worker, ("Ada".to_owned(), tx))?;   // or spawn!(worker(name, tx)) for many arguments
//!     println!("{} / {} / {}", rx.recv()?, child.join()?, squares.len());
//!     Ok(())
//! }
//! ```
//!
//! | to | use | crate |
//! |---|---|---|
//! | run a function in a process of its own | [`Process::spawn`], [`spawn!`] | [`mp_spawn`] |
//! | with limits, pipes, another environment; to die with its parent; faster | [`Process::builder`], [`ForkServer`] | [`mp_spawn`] |
//! | wait for a process elsewhere, or end it | [`ProcessHandle`] | [`mp_spawn`] |
//! | send values between processes | [`channel`], [`Sender`], [`Receiver`]; one to one: [`spsc`], [`oneshot`] | [`mp_channel`] |
//! | send one value to many | [`broadcast`] | [`mp_channel`] |
//! | hand out tasks, ask and answer, both ways | [`joinable`], [`request`], [`pipe`] | [`mp_channel`] |
//! | wait for several things at once | [`macro@select`], [`Select`] | [`mp_channel`] |
//! | talk to strangers, and to Python | [`connection`], [`untrusted`] | [`mp_channel`] |
//! | spread work over worker processes | [`Pool`] | [`mp_pool`] |
//! | the same over threads, or in the caller; code for any of them | [`ThreadPool`], [`Inline`], [`Executor`] | [`mp_pool`] |
//! | name functions for other builds of a program | [`macro@task`], [`named`], [`NamedExecutor`] | [`mp_pool`] |
//! | send files, sockets, pipes | [`Fd`] | [`mp_shm`] |
//! | keep handles of any type in one table | [`AnyHandle`] | [`mp_shm`] |
//! | share memory | [`Shared`], [`shm::Array`], [`shm::Segment`]; send a segment: [`shm::MemoryHandle`] | [`mp_shm`] |
//! | lock, wait, count between processes | [`sync::Mutex`], [`sync::Event`], [`sync::Semaphore`] | [`mp_sync`] |
//! | keep processes apart | [`Session`] | [`mp_shm`] |
//!
//! A child runs its function before `main`, so nothing needs to be set up: not in programs, not in tests, not in doc tests. With
//! default features off, call [`init`] at the top of `main`.
//!
//! Features, off by default: `progress` (bars that show how far a `map` of a pool is) and `tracing` (spans and events of pools); see [`mp_pool`].
//!
//! What can be sent: everything rkyv can archive, see [`Message`]; channel ends too, at any depth.
#![forbid(unsafe_code)]

mod error;

pub use error::{Error, Result};
pub use mp_channel::{
    BatchError, ChannelError, Loan, LoanUninit, Received, Receiver, RecvError, Select, SendError,
    SendFailure, Sender, broadcast, channel, channel_in, connection, growing_channel, growing_channel_in,
    joinable, oneshot, pipe, request, select, server, spsc, untrusted,
};
pub use mp_pool as pool;
pub use mp_pool::{
    Executor, Imap, Inline, InlineTask, MapError, NamedExecutor, NamedTask, ParMap, Pool, PoolBuilder,
    PoolError, PoolStats, Scope, Task, TaskError, TaskErrorKind, TaskHandle, TaskValue, ThreadImap,
    ThreadPool, ThreadPoolBuilder, ThreadScope, ThreadTask, WaitableTask, as_completed, named, task,
    wait_all, wait_any, wait_any_timeout, with_worker_state, worker_id,
};
#[cfg(feature = "progress")]
pub use mp_pool::{Progress, progress_bar};
pub use mp_shm as shm;
pub use mp_shm::error::SessionError;
pub use mp_shm::{AnyHandle, Fd, Message, Session, Shared, ShmSafe, rkyv};
pub use mp_spawn::panics::Panic;
pub use mp_spawn::{
    Builder, Child, Current, Ended, ForkServer, JoinError, JoinFuture, Parent, PeerProcess, Process,
    ProcessHandle, Resource, SpawnError, StartMethod, Stdio, Tree, active_children, current, init, parent,
    set_executable, set_start_method, spawn, start_method,
};
pub use mp_sync as sync;
