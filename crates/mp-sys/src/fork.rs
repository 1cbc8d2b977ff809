//! Noticing that this process was made by somebody else's `fork`.
//!
//! Owns one page that the kernel wipes in a forked child (`MADV_WIPEONFORK`). It holds the pid of the process that
//! wrote it; zero means that nothing of what the parent cached (thread ids, participant ids) is ours.

#![expect(unsafe_code, reason = "one anonymous page, mapped for the life of the process")]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

fn page() -> Option<&'static AtomicU32> {
    static PAGE: OnceLock<Option<&'static AtomicU32>> = OnceLock::new();
    *PAGE.get_or_init(|| {
        use rustix::mm::{Advice, MapFlags, ProtFlags};
        let size = rustix::param::page_size();
        // SAFETY: a new anonymous mapping at an address of the kernel's choice aliases nothing.
        let page = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                size,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }
        .ok()?;
        // SAFETY: the page was just mapped and is not shared with anybody.
        unsafe { rustix::mm::madvise(page, size, Advice::LinuxWipeOnFork) }.ok()?;
        // SAFETY: the page is zeroed, page-aligned, and never unmapped.
        Some(unsafe { &*page.cast::<AtomicU32>() })
    })
}

/// The pid of this process, from memory. Costs two loads; never stale after a fork.
#[inline]
#[must_use]
pub fn pid() -> u32 {
    match page() {
        Some(word) => match word.load(Ordering::Relaxed) {
            0 => refresh(word),
            pid => pid,
        },
        None => std::process::id(),
    }
}

#[cold]
fn refresh(word: &AtomicU32) -> u32 {
    let pid = std::process::id();
    word.store(pid, Ordering::Relaxed);
    pid
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_pid_is_the_systems() {
        assert_eq!(super::pid(), std::process::id());
        assert_eq!(super::pid(), std::process::id());
    }
}
