//! Starts processes that run a Rust function and give its value back.
//!
//! [`Process::spawn`]`(f, argument)` starts this very program again; the new process runs `f(argument)` before `main` and ends.
//! Argument and result are messages of any size and may hold channels. `f` is a plain function or a closure that captures nothing;
//! what crosses is its place in the program file, checked against the file's build id.
//!
//! [`Process::builder`] sets what is to be different about a process: name, environment, directory, standard descriptors, limits, niceness,
//! processors, group; the session it is to be in; whether it is a daemon, which dies with this process; how it is started ([`StartMethod`]). What can be done with a process
//! without knowing what its function returns is in [`Child`]; [`active_children`] lists those that run.
//!
//! A [`ProcessHandle`] lets any other process of the session wait for one and end it.
//!
//! A process can be awaited. To wait for it beside channels and times give it to `mp_channel::Select` as a descriptor.
//!
//! How a child finds its job: a constructor in the executable's `.init_array` (feature `constructor`, on by default), see [`hook`];
//! without it, [`init`] at the top of `main`.
//!
//! The same hook makes the processes of fork servers what they are, and starts the process that holds descriptors on their way between processes: see [`mp_shm::Fd`].
//!
//! With `panic = "abort"` a panic in any thread ends the child, which is told as a panic of its function, with message and place.
//!
//! Limits: Linux with glibc; a stack overflow in a child is reported as SIGSEGV, and a panic that aborts while another one unwinds as SIGABRT; a child
//! whose parent is killed runs on to its end, unless it is a daemon; a process that has replaced its program (`exec`) no longer dies with its parent.

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
mod library;
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
pub use process::{JoinFuture, Process};
pub use program::set_executable;
