//! The atomics that protocols are written with: the processor's, or loom's under `--cfg loom`.
//!
//! A module that a model compiles takes its atomics and fences from here and nowhere else.

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicU32, AtomicU64, fence};
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, fence};

pub use core::sync::atomic::Ordering;

/// One turn of a spin loop: a pause for the processor, a scheduling point for loom.
#[inline]
pub fn spin() {
    #[cfg(not(loom))]
    core::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}
