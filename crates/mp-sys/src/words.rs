//! Copying to and from memory that others use at the same time, many words at once.
//!
//! Contract. As if each word of 8 bytes was copied by itself, in any order: no edge, no order among them. The compiler knows nothing of these accesses, so
//! they race with none of the program's. The processor makes of each word one access or, where it is not aligned and lies on two cache lines, one
//! for each of them: whatever is aligned, and no larger than a word, comes whole.
//!
//! Rust's own way is an atomic access for each element. That is as fast for elements of 4 and 8 bytes; single bytes are not put together to words.

#![expect(unsafe_code, reason = "an instruction that Rust has no name for")]

/// Copies `count` words of 8 bytes, which need not be aligned; gives how many it has copied: all of them, or none where no instruction does that.
///
/// # Safety
/// So many words can be read at `from` and written at `to`, and the two do not overlap. What is at `from` may be changed, and what is at `to` used, at
/// the same time by accesses of this kind and by atomic ones alone.
#[inline]
#[must_use]
pub unsafe fn copy(from: *const u8, to: *mut u8, count: usize) -> usize {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller vouches for the memory; the direction is forward, as everywhere in Rust programs. Nothing else changes but these registers.
    unsafe {
        core::arch::asm!(
            "rep movsq",
            inout("rcx") count => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags)
        );
        count
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (from, to, count);
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_the_words_is_copied_and_none_beside_them() {
        let from: Vec<u8> = (0..=255).cycle().take(4096).collect();
        for (at, to_at, count) in [(0, 0, 0), (0, 0, 1), (3, 8, 1), (0, 5, 100), (7, 1, 511), (0, 0, 512)] {
            let mut to = vec![0_u8; 4096 + 8];
            // SAFETY: the words are inside of both, which are ours.
            let copied = unsafe { copy(from[at..].as_ptr(), to[to_at..].as_mut_ptr(), count) };
            assert_eq!(copied, if cfg!(target_arch = "x86_64") { count } else { 0 });
            let end = to_at + copied * 8;
            assert_eq!(to[to_at..end], from[at..at + copied * 8]);
            assert!(to[..to_at].iter().chain(&to[end..]).all(|byte| *byte == 0));
        }
    }
}
