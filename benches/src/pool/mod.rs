//! Pools: what is measured of them, beside which limits and peers.
//!
//! | file | contestant |
//! |---|---|
//! | `ours` | this library |
//! | `raw` | the least that two workers need, in bare shared memory |
//! | `threads` | rayon, and a plain loop without any thread or process |
//! | `python` | CPython's `multiprocessing.Pool`, if `python3` is here |
//!
//! All have two workers, which are there before the clock starts. `contest` has the tasks and checks that they share.

mod contest;
mod list;
pub mod ours;
pub mod python;
pub mod raw;
pub mod threads;

pub use list::measurements;

use crate::channels::Role;

/// All that second processes do.
pub fn roles() -> impl Iterator<Item = Role> {
    ours::ROLES.iter().chain(raw::ROLES).copied()
}
