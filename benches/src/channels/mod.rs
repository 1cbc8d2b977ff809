//! Channels: what is measured of them, beside which limits and peers.
//!
//! | file | contestant | left out |
//! |---|---|---|
//! | `ours` | this library, all use of it | |
//! | `raw_flag`, `raw_ring`, `raw_mpmc` | the least that two processes need, in bare shared memory | |
//! | `iceoryx` | iceoryx2, polling | many consumers of one message each: it publishes to all |
//! | `ipc_channel` | ipc-channel, bytes and typed | many consumers: its receivers cannot be shared |
//! | `crossbeam` | crossbeam-channel between threads, messages on the heap | |
//! | `shmem_ipc` | shmem-ipc | many producers: it has one |
//! | `ipmpsc` | ipmpsc | many consumers: it has one |
//! | `pipe` | a pipe of the kernel | |
//! | `python` | CPython's multiprocessing, if `python3` is here | |
//!
//! `contest` has what they share, `typed` the message with strings and vectors.

pub mod contest;
pub mod crossbeam;
pub mod iceoryx;
pub mod ipc_channel;
pub mod ipmpsc;
pub mod ours;
pub mod pipe;
pub mod python;
pub mod raw_flag;
pub mod raw_mpmc;
pub mod raw_ring;
pub mod shmem_ipc;
pub mod typed;

mod list;

pub use list::measurements;

use crate::Outcome;
use crate::second::{Found, Job, Second};

/// What a second process can do, by name.
pub type Role = (&'static str, fn(&Job) -> Outcome<Found>);

/// All that second processes do.
pub fn roles() -> impl Iterator<Item = Role> {
    let all = [
        raw_flag::ROLES,
        raw_ring::ROLES,
        raw_mpmc::ROLES,
        ours::ROLES,
        iceoryx::ROLES,
        ipc_channel::ROLES,
        shmem_ipc::ROLES,
        ipmpsc::ROLES,
        pipe::ROLES,
    ];
    all.into_iter().flatten().copied()
}

/// Starts `count` processes like `job`, each with `total` messages, on the two CPUs in turn.
fn start_all(
    job: &Job,
    count: u32,
    total: u32,
    mut start: impl FnMut(Job) -> Outcome<Second>,
) -> Outcome<Vec<Second>> {
    let cpu = |number: u32| if number.is_multiple_of(2) { None } else { job.cpu };
    let one = |number| Job { number, total, cpu: cpu(number), ..job.clone() };
    (0..count).map(|number| start(one(number))).collect()
}

/// Calls a function of a constant size with the size that a second process was told.
macro_rules! by_size {
    ($size:expr, $function:ident($($argument:expr),*)) => {
        match $size {
            8 => $function::<8>($($argument),*),
            64 => $function::<64>($($argument),*),
            1024 => $function::<1024>($($argument),*),
            65_536 => $function::<65_536>($($argument),*),
            1_048_576 => $function::<1_048_576>($($argument),*),
            _ => Err("no such size".into()),
        }
    };
}
use by_size;
