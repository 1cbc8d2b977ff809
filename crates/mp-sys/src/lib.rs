//! The only crate of multiproc that talks to the operating system.
//!
//! Everything above it is written against the contract of these modules:
//!
//! | module | contract |
//! |---|---|
//! | [`atomic`] | the atomics of protocols; loom's under `--cfg loom` |
//! | [`futex`] | compare and sleep on one word of several, wake; never process-private |
//! | [`robust`] | the kernel's robust list: words it marks, or wakes for, when a thread dies |
//! | [`barrier`] | a full barrier in a cheap and a dear half |
//! | [`backstop`] | the longest a sleep lasts without a wake, and the count of those that were needed |
//! | [`crash`] | named points at which a test kills the process; nothing in a normal build |
//! | [`deadline`] | absolute times on the monotonic clock |
//! | [`patience`] | how long a call may wait |
//! | [`memory`] | sealed sparse memory files and their mappings |
//! | [`mod@file`] | files that have a name: opened safely, given memory, mapped |
//! | [`socket`] | handing a file descriptor to a process that asks at a socket |
//! | [`stream`] | bytes, and a descriptor beside them, over a local socket or TCP |
//! | [`packet`] | frames with at most one descriptor each, over a socket with an abstract name |
//! | [`poll`] | waiting for file descriptors; a descriptor that can be rung |
//! | [`poller`] | a thread that waits for file descriptors on behalf of futures |
//! | [`exit`] | code that runs when the program ends |
//! | [`setup`] | what a new process changes about itself before its program starts |
//! | [`lifeline`] | dying with another process |
//! | [`start`] | starting a program by a vfork-style clone |
//! | [`in_place`] | copying this process |
//! | [`zygote`] | starting processes by a small child that clones itself |
//! | [`pidfd`] | waiting for the end of a process and signalling it, never another that got its id |
//! | [`status`] | how a process ended, for those who cannot reap it too |
//! | [`tree`] | signalling a process and all its descendants |
//! | [`oom`] | whether the kernel may have killed for lack of memory |
//! | [`process`] | children; start times and states of processes |
//! | [`object`] | the program files loaded here, their build ids and code segments |
//! | [`fork`] | noticing that this process was made by somebody else's `fork` |
//! | [`prefetch`] | hints about memory that is needed soon |
//! | [`words`] | copying to and from memory that others use, many words at once |
//! | [`cpu`] | which processors may run a thread |
//! | [`force`] | `MP_FORCE`: fallbacks taken on purpose, for tests |
//!
//! What it does not do: policy, allocation inside shared memory, any protocol of its own.
//! Linux only, glibc only (the robust list's layout is glibc's), kernel 5.5 or newer; without `futex_waitv` (5.16) waits
//! on several words fall back to the first word and the caller's backstop.

pub mod atomic;
pub mod backstop;
pub mod barrier;
pub mod crash;
pub mod deadline;
pub mod futex;
#[cfg(loom)]
pub mod model;
pub mod patience;
pub mod robust;

#[cfg(not(loom))]
pub mod cpu;
#[cfg(not(loom))]
pub mod exit;
#[cfg(not(loom))]
pub mod file;
#[cfg(not(loom))]
pub mod force;
#[cfg(not(loom))]
pub mod fork;
#[cfg(not(loom))]
mod gate;
#[cfg(not(loom))]
pub mod in_place;
#[cfg(not(loom))]
pub mod lifeline;
#[cfg(not(loom))]
pub mod memory;
#[cfg(not(loom))]
pub mod object;
#[cfg(not(loom))]
pub mod oom;
#[cfg(not(loom))]
pub mod packet;
#[cfg(not(loom))]
pub mod pidfd;
#[cfg(not(loom))]
pub mod poll;
#[cfg(not(loom))]
pub mod poller;
#[cfg(not(loom))]
pub mod prefetch;
#[cfg(not(loom))]
pub mod process;
#[cfg(not(loom))]
pub mod setup;
#[cfg(not(loom))]
pub mod socket;
#[cfg(not(loom))]
pub mod start;
#[cfg(not(loom))]
pub mod status;
#[cfg(not(loom))]
pub mod stream;
#[cfg(not(loom))]
pub mod tree;
pub mod words;
#[cfg(not(loom))]
pub mod zygote;
