//! Noticing that this process was made by somebody else's `fork`.
//!
//! Owns one page that the kernel wipes in a forked child (`MADV_WIPEONFORK`). It holds the pid of the process that
//! wrote it; zero means that nothing of what the parent cached (thread ids, participant ids) is ours. And the start time of that process, if it is
//! known.

#![expect(unsafe_code, reason = "one anonymous page, mapped for the life of the process")]

use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// What is in the page; zeros are what is not known.
struct Own {
    pid: AtomicU32,
    start_time: AtomicU64,
}

/// Never written: what the page is taken for before it is there, or where there can be none.
static NO_PAGE: Own = Own { pid: AtomicU32::new(0), start_time: AtomicU64::new(0) };
static PAGE: AtomicPtr<Own> = AtomicPtr::new((&raw const NO_PAGE).cast_mut());

fn map() -> Option<*mut Own> {
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
    Some(page.cast::<Own>())
}

/// The pid of this process, from memory. Costs two loads; never stale after a fork.
#[inline]
#[must_use]
pub fn pid() -> u32 {
    // PAGE: Acquire, pairs with the Release in `refresh`.
    let page = PAGE.load(Ordering::Acquire);
    // SAFETY: `NO_PAGE`, or a zeroed, page-aligned page that is never unmapped.
    match unsafe { &*page }.pid.load(Ordering::Relaxed) {
        0 => refresh(),
        pid => pid,
    }
}

/// Writes the pid into the page, which is made the first time. Without a page the system is asked each time.
#[cold]
fn refresh() -> u32 {
    let pid = std::process::id();
    if std::ptr::eq(PAGE.load(Ordering::Acquire), &raw const NO_PAGE)
        && let Some(page) = map()
    {
        // Of two threads that come here at once one leaves its page unused.
        // PAGE: Release, pairs with the Acquire in `pid`.
        PAGE.store(page, Ordering::Release);
    }
    let page = PAGE.load(Ordering::Acquire);
    if !std::ptr::eq(page, &raw const NO_PAGE) {
        // SAFETY: as in `pid`.
        unsafe { &*page }.pid.store(pid, Ordering::Relaxed);
    }
    pid
}

/// The start time of this process, if it was [noted](note_start_time).
pub(crate) fn start_time() -> Option<u64> {
    // SAFETY: as in `pid`.
    let known = unsafe { &*PAGE.load(Ordering::Acquire) }.start_time.load(Ordering::Relaxed);
    (known != 0).then_some(known)
}

/// Notes the start time of this process, if there is a page for it.
pub(crate) fn note_start_time(time: u64) {
    // Makes the page.
    let _ = pid();
    let page = PAGE.load(Ordering::Acquire);
    if !std::ptr::eq(page, &raw const NO_PAGE) {
        // SAFETY: as in `pid`.
        unsafe { &*page }.start_time.store(time, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_pid_is_the_systems() {
        assert_eq!(super::pid(), std::process::id());
        assert_eq!(super::pid(), std::process::id());
    }
}
