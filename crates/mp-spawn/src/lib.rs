//! Starts processes that run a Rust function and give its value back.
//!
//! [`Process::spawn`]`(f, argument)` starts this very program again; the new process runs `f(argument)` before `main` and ends.
//! Argument and result are messages of any size and may hold channels. `f` is a plain function or a closure that captures nothing;
//! what crosses is its place in the program file, checked against the file's build id.
//!
//! A [`ProcessHandle`] lets any other process of the session wait for one and end it.
//!
//! How a child finds its job: a constructor in the executable's `.init_array` (feature `constructor`, on by default), see [`hook`];
//! without it, [`init`] at the top of `main`.
//!
//! The same hook starts the process that holds descriptors on their way between processes: see [`mp_shm::Fd`].
//!
//! What it does not do yet: start methods other than `spawn`, a builder, daemon children, resource limits.
//!
//! Limits: Linux with glibc; a stack overflow in a child is reported as SIGSEGV; a child whose parent dies runs on to its end.

mod broker;
mod builder;
mod child;
pub mod code;
mod error;
mod family;
mod forkserver;
mod handle;
pub mod hook;
mod job;
mod method;
pub mod panics;
mod process;
mod program;
mod spawn_macro;
mod starting;

pub use builder::{Builder, Resource, Stdio};
pub use child::{Child, Tree, active_children};
pub use error::{JoinError, SpawnError};
pub use family::{Current, Parent, current, parent};
pub use forkserver::ForkServer;
pub use handle::{PeerProcess, ProcessHandle};
pub use hook::init;
pub use method::{StartMethod, UnknownStartMethod, set_start_method, start_method};
pub use mp_sys::process::Ended;
pub use process::Process;
pub use program::set_executable;
