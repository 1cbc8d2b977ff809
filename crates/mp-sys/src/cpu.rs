//! Which processors may run the calling thread.

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

#[cfg(test)]
mod tests {
    #[test]
    fn this_thread_runs_somewhere() {
        assert!(super::affinity().iter().any(|&word| word != 0));
    }
}
