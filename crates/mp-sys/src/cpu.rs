//! Which processors may run the calling thread, and how many there are.

#![expect(unsafe_code, reason = "sysconf, and a mask as words: rustix has one bit at a time")]

/// Words of a processor mask; enough for 1024 processors.
pub const MASK_WORDS: usize = 16;

/// The processors in the calling thread's affinity mask, one bit each; empty if the kernel does not tell.
#[must_use]
pub fn affinity() -> [u64; MASK_WORDS] {
    let mut mask = [0; MASK_WORDS];
    // SAFETY: writes a mask into memory of the size it is told; words of the kernel's mask are native ones.
    unsafe { libc::sched_getaffinity(0, size_of_val(&mask), mask.as_mut_ptr().cast()) };
    mask
}

/// How many processors the machine runs; read once.
#[must_use]
pub fn count() -> usize {
    use std::sync::OnceLock;
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| {
        // SAFETY: asks for a number.
        let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
        usize::try_from(count).unwrap_or(1).max(1)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_thread_runs_somewhere() {
        assert!(super::affinity().iter().any(|&word| word != 0));
    }
}
