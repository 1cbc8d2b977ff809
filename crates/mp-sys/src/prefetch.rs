//! Hints to the processor about memory that is needed soon.
//!
//! Contract. A hint changes nothing but time, whatever the address.

#![expect(unsafe_code, reason = "instructions that Rust has no stable name for")]

/// Asks for the cache line at `address` as for reading it.
///
/// Elsewhere than on x86-64 and AArch64 this does nothing.
#[inline]
pub fn prefetch_for_reading(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint: no access that could fault, and no register or flag changes.
    unsafe {
        core::arch::asm!("prefetcht0 [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!("prfm pldl1keep, [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

/// Asks for the cache line at `address` as for writing it: other processors lose it.
///
/// Processors of the x86-64 line that lack the instruction take it for none. Elsewhere than there and on AArch64 this does nothing.
#[inline]
pub fn prefetch_for_writing(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint: no access that could fault, and no register or flag changes.
    unsafe {
        core::arch::asm!("prefetchw [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!("prfm pstl1keep, [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}
