//! Which processors may run the calling thread, and how many there are.

#![expect(unsafe_code, reason = "sysconf")]

/// Words of a processor mask; enough for 1024 processors.
pub const MASK_WORDS: usize = 16;

/// The processors in the calling thread's affinity mask, one bit each; empty if the kernel does not tell.
#[must_use]
pub fn affinity() -> [u64; MASK_WORDS] {
    let mut mask = [0; MASK_WORDS];
    if let Ok(set) = rustix::thread::sched_getaffinity(None) {
        for cpu in (0..MASK_WORDS * 64).filter(|&cpu| set.is_set(cpu)) {
            mask[cpu / 64] |= 1 << (cpu % 64);
        }
    }
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
