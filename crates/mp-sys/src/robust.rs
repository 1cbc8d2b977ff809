//! The kernel's robust list: words that the kernel marks, or wakes a sleeper of, when a thread dies.
//!
//! glibc registers one list head per thread; this module adds words of ours to it and uses its `list_op_pending`.
//!
//! Two services:
//! * A linked [`RobustWord`] that holds the thread's id gets [`OWNER_DIED`] when the thread ends, is killed, or execs,
//!   and one sleeper is woken if it also holds [`WAITERS`].
//! * A *pending* word: if the thread dies while it is set and the word's owner part is 0, one sleeper of it is woken; if
//!   the owner part is the dying thread, it is marked as a linked one is.
//!
//! Layout (glibc's `pthread_mutex_t`, 64 bit): word at 0, list node at 24 (`prev`) and 32 (`next`). The head's
//! `futex_offset` is checked to be −32; anything else is [`Unsupported`].
//!
//! Links in shared memory are for the kernel only. We never read them back and never unlink: a linked word stays
//! linked until its thread ends, and its memory stays mapped until the process ends.
//!
//! Source: Linux Documentation/locking/robust-futexes.rst, kernel/futex/core.c (`handle_futex_death`), glibc nptl.

/// Set in a word by the kernel when its owner dies; `FUTEX_OWNER_DIED`.
pub const OWNER_DIED: u32 = 0x4000_0000;
/// Set in a word by whoever sleeps on it; `FUTEX_WAITERS`.
pub const WAITERS: u32 = 0x8000_0000;
/// The owner's thread id in a word; `FUTEX_TID_MASK`.
pub const TID_MASK: u32 = 0x3fff_ffff;

#[cfg(loom)]
pub use crate::model::{clear_pending, set_pending, tid};
#[cfg(not(loom))]
pub use real::{RobustWord, Unsupported, clear_pending, link, set_pending, tid};

#[cfg(not(loom))]
mod real {
    #![expect(unsafe_code, reason = "the thread's robust list")]

    use super::{TID_MASK, WAITERS};
    use crate::atomic::AtomicU32;
    use crate::fork;
    use std::cell::Cell;
    use std::sync::atomic::{Ordering, compiler_fence};

    /// The list head as the kernel knows it.
    #[repr(C)]
    struct Head {
        next: *mut Link,
        futex_offset: libc::c_long,
        pending: *mut Link,
    }

    /// The `next` member of a node; what head and nodes point at.
    #[repr(transparent)]
    struct Link(*mut Link);

    const FUTEX_OFFSET: libc::c_long = -32;

    /// A futex word with room for the list node the kernel expects beside it.
    ///
    /// # Invariants
    /// 1. `repr(C)`: the word is 32 bytes below `next`, and `prev` directly below `next`.
    /// 2. Only the thread that linked it writes `prev` and `next`, and glibc on that thread.
    #[repr(C, align(64))]
    #[derive(Debug)]
    pub struct RobustWord {
        /// The futex word: owner thread id, [`OWNER_DIED`](super::OWNER_DIED), [`WAITERS`].
        pub word: AtomicU32,
        /// Free for whoever owns the memory: who linked it, say.
        pub tag: AtomicU32,
        unused: [u32; 4],
        prev: Cell<usize>,
        next: Cell<usize>,
    }

    /// The C library lays its robust list out in a way this crate does not know.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Unsupported;

    impl std::fmt::Display for Unsupported {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(
                "the C library's robust list has an unknown layout (glibc on a 64-bit machine is needed)",
            )
        }
    }

    impl std::error::Error for Unsupported {}

    thread_local! {
        /// Pid under which the two below were read; another value than ours means: forked, read again.
        static OF_PID: Cell<u32> = const { Cell::new(0) };
        static TID: Cell<u32> = const { Cell::new(0) };
        static HEAD: Cell<*mut Head> = const { Cell::new(std::ptr::null_mut()) };
    }

    #[inline]
    fn fresh() {
        if OF_PID.get() != fork::pid() {
            read_thread();
        }
    }

    #[cold]
    fn read_thread() {
        let mut head: *mut Head = std::ptr::null_mut();
        let mut len: usize = 0;
        // SAFETY: get_robust_list of the calling thread (0) writes one pointer and one length.
        let result = unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut len) };
        let known = result == 0 && !head.is_null() && len == size_of::<Head>() && {
            // SAFETY: glibc registered this head for the calling thread; it lives as long as the thread.
            let offset = unsafe { (*head).futex_offset };
            offset == FUTEX_OFFSET
        };
        HEAD.set(if known { head } else { std::ptr::null_mut() });
        TID.set(rustix::thread::gettid().as_raw_pid().unsigned_abs());
        OF_PID.set(fork::pid());
    }

    /// The id of the calling thread, from memory.
    #[inline]
    #[must_use]
    pub fn tid() -> u32 {
        fresh();
        TID.get()
    }

    /// Makes the kernel wake one sleeper of `word`, or mark it, if this thread dies before [`clear_pending`].
    ///
    /// There is one pending word a thread; a second call replaces the first.
    ///
    /// # Safety
    /// The word stays where it is, and a futex word, until [`clear_pending`] or another call of this, or the end of the thread: the
    /// kernel may write to it then.
    #[inline]
    pub unsafe fn set_pending(word: &AtomicU32) {
        fresh();
        let head = HEAD.get();
        if !head.is_null() {
            // Eight 32-bit words further on is where the node's `next` is, or would be: invariant 1.
            #[expect(
                clippy::cast_ptr_alignment,
                reason = "an address for the kernel, never dereferenced here"
            )]
            let link = std::ptr::from_ref(word).wrapping_add(8).cast_mut().cast::<Link>();
            // SAFETY: the head belongs to this thread (read for this very process) and lives as long as it.
            let pending = unsafe { &raw mut (*head).pending };
            // SAFETY: only this thread writes it; the kernel reads it when the thread dies, and does not follow it
            // beyond the futex word.
            unsafe { pending.write_volatile(link) };
            compiler_fence(Ordering::SeqCst);
        }
    }

    /// Ends what [`set_pending`] began.
    #[inline]
    pub fn clear_pending() {
        let head = HEAD.get();
        if !head.is_null() && OF_PID.get() == fork::pid() {
            compiler_fence(Ordering::SeqCst);
            // SAFETY: as in `set_pending`.
            let pending = unsafe { &raw mut (*head).pending };
            // SAFETY: as in `set_pending`.
            unsafe { pending.write_volatile(std::ptr::null_mut()) };
        }
    }

    /// Links `node` into the calling thread's list and stores the thread's id with [`WAITERS`] in its word.
    ///
    /// From then on the kernel marks the word when this thread dies. It stays linked until then.
    ///
    /// # Errors
    /// [`Unsupported`] if the C library's list has an unknown layout.
    ///
    /// # Safety
    /// * `node` stays mapped, and is used for nothing else, until the calling thread has ended.
    /// * `node` is not linked.
    pub unsafe fn link(node: &RobustWord) -> Result<(), Unsupported> {
        fresh();
        let head = HEAD.get();
        if head.is_null() {
            return Err(Unsupported);
        }
        // SAFETY: the head belongs to this thread and lives as long as it.
        let next = unsafe { &raw mut (*head).next };
        // SAFETY: as above.
        let first = unsafe { next.read() };
        node.prev.set(head as usize);
        node.next.set(first as usize);
        let ours: *mut Link = node.next.as_ptr().cast::<Link>();
        let first_plain = first.map_addr(|address| address & !1);
        if first_plain.cast::<Head>() != head {
            // The former first node is one of glibc's or ours; like glibc we keep its `prev`, the word below its `next`.
            // SAFETY: every linked node has `prev` directly below `next` (invariant 1, and glibc's layout).
            let prev = unsafe { first_plain.cast::<usize>().sub(1) };
            // SAFETY: the node is linked in this thread's list, so only this thread writes its links (invariant 2).
            unsafe { prev.write_volatile(ours as usize) };
        }
        compiler_fence(Ordering::SeqCst);
        // SAFETY: the head belongs to this thread; the node's own links were written before.
        unsafe { next.write_volatile(ours) };
        compiler_fence(Ordering::SeqCst);
        // Last: a thread that dies before this leaves a word that is nobody's, and the pending word is left to the caller.
        node.word.store((TID.get() & TID_MASK) | WAITERS, Ordering::Release);
        Ok(())
    }

    // SAFETY: `prev` and `next` are written by the linking thread alone (invariant 2), the word is atomic.
    unsafe impl Sync for RobustWord {}

    const _: () = assert!(size_of::<RobustWord>() == 64);
    const _: () = assert!(std::mem::offset_of!(RobustWord, next) == 32);
    const _: () = assert!(std::mem::offset_of!(RobustWord, prev) == 24);

    impl RobustWord {
        /// A word that is nobody's.
        #[must_use]
        pub const fn new() -> Self {
            Self {
                word: AtomicU32::new(0),
                tag: AtomicU32::new(0),
                unused: [0; 4],
                prev: Cell::new(0),
                next: Cell::new(0),
            }
        }
    }

    impl Default for RobustWord {
        fn default() -> Self {
            Self::new()
        }
    }

    #[cfg(test)]
    mod tests {
        use super::super::OWNER_DIED;
        use super::*;
        use crate::futex::{Waited, wait_word};

        #[test]
        fn the_kernel_marks_a_linked_word_when_its_thread_ends_and_wakes_a_sleeper() {
            let node: &'static RobustWord = Box::leak(Box::new(RobustWord::new()));
            let (linked, is_linked) = std::sync::mpsc::channel();
            let (end, may_end) = std::sync::mpsc::channel::<()>();
            let thread = std::thread::spawn(move || {
                // SAFETY: the node is leaked, and linked once.
                unsafe { link(node) }.unwrap();
                linked.send(tid()).unwrap();
                may_end.recv().unwrap();
            });
            let owner = is_linked.recv().unwrap();
            assert_eq!(node.word.load(Ordering::Acquire), owner | WAITERS);
            let sleeper = std::thread::spawn(move || wait_word(&node.word, owner | WAITERS, None));
            end.send(()).unwrap();
            thread.join().unwrap();
            assert!(matches!(sleeper.join().unwrap(), Waited::Woken(0) | Waited::Changed));
            while node.word.load(Ordering::Acquire) & OWNER_DIED == 0 {
                std::hint::spin_loop();
            }
            assert_eq!(node.word.load(Ordering::Acquire), WAITERS | OWNER_DIED);
        }

        #[test]
        fn a_thread_that_ends_with_a_pending_word_wakes_a_sleeper() {
            let word: &'static AtomicU32 = Box::leak(Box::new(AtomicU32::new(0)));
            let sleeper = std::thread::spawn(move || wait_word(word, 0, None));
            // The sleeper may not sleep yet: threads that end with the word pending until one of them finds it asleep.
            while !sleeper.is_finished() {
                // SAFETY: the word is leaked.
                std::thread::spawn(move || unsafe { set_pending(word) }).join().unwrap();
            }
            assert_eq!(sleeper.join().unwrap(), Waited::Woken(0));
        }
    }
}
