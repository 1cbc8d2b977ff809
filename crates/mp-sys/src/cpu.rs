//! How many processors may run this process.

use std::sync::atomic::{AtomicU32, Ordering};

/// The number of processors in this thread's affinity mask, at least 1. Read once, at first use.
#[must_use]
pub fn usable() -> u32 {
    static USABLE: AtomicU32 = AtomicU32::new(0);
    match USABLE.load(Ordering::Relaxed) {
        0 => {
            let count = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count().max(1));
            USABLE.store(count, Ordering::Relaxed);
            count
        }
        count => count,
    }
}
