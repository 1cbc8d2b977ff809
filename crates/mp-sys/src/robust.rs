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
//! Two ways to link:
//! * [`link`] for good: the word stays linked until its thread ends.
//! * [`hold`] and [`let_go`], for locks. What a thread holds lies between two *anchors* in its own memory, so that the C library, which
//!   links and unlinks next to its own nodes, never touches a word in shared memory, and we never touch one of its nodes.
//!
//! ```text
//! head → (glibc's, sentinels) → begin → newest held → … → oldest held → end → (glibc's, sentinels) → head
//!        └ glibc writes begin.prev               └ only we write these links         └ glibc writes end.next
//! ```
//!
//! Links in shared memory are for the kernel only: we never read them back, but write them again from a private list of what the
//! thread holds. Memory of a linked word stays mapped, and is used for nothing else, until it is let go or the thread ends.
//!
//! Source: Linux Documentation/locking/robust-futexes.rst, kernel/futex/core.c (`handle_futex_death`), glibc nptl.

/// Set in a word by the kernel when its owner dies; `FUTEX_OWNER_DIED`.
pub const OWNER_DIED: u32 = 0x4000_0000;
/// Set in a word by whoever sleeps on it; `FUTEX_WAITERS`.
pub const WAITERS: u32 = 0x8000_0000;
/// The owner's thread id in a word; `FUTEX_TID_MASK`.
pub const TID_MASK: u32 = 0x3fff_ffff;

#[cfg(loom)]
pub use crate::model::{Current, RobustWord, clear_pending, hold, let_go, set_pending, tid, with};
#[cfg(not(loom))]
pub use real::{
    Current, RobustWord, Unsupported, clear_pending, has_pending, hold, let_go, link, set_pending, tid, with,
};
#[cfg(not(loom))]
pub(crate) use real::{Registered, registered};

/// Most words that a thread should [`hold`] at once; the kernel looks at no more than 2048 when the thread dies.
pub const HELD_MAX: usize = 1024;

/// Why a word cannot be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldError {
    /// The C library lays its robust list out in a way this crate does not know.
    Unsupported,
    /// The thread holds as many words as it may.
    TooMany,
}

#[cfg(not(loom))]
mod real {
    #![expect(unsafe_code, reason = "the thread's robust list")]

    use super::{HoldError, TID_MASK, WAITERS};
    use crate::atomic::AtomicU32;
    use crate::fork;
    use std::cell::Cell;
    use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};

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
    /// 2. Only the thread that linked it, or holds it, writes `prev` and `next`, and glibc on that thread.
    #[repr(C, align(64))]
    #[derive(Debug)]
    pub struct RobustWord {
        /// The futex word: owner thread id, [`OWNER_DIED`](super::OWNER_DIED), [`WAITERS`].
        pub word: AtomicU32,
        /// Free for whoever owns the memory: who linked it, say.
        pub tag: AtomicU32,
        /// As `tag`.
        pub extra: [AtomicU32; 4],
        prev: Cell<usize>,
        next: Cell<usize>,
        /// As `tag`: a name for reports.
        pub name: [AtomicU64; 3],
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

    /// What a thread knows of itself and of the words it holds. It has no destructor, and thread-local memory outlives the
    /// kernel's walk at the thread's end, as the C library's own list head does.
    struct Thread {
        /// Pid under which the rest was read; another value than ours means: forked, read again.
        of_pid: Cell<u32>,
        tid: Cell<u32>,
        head: Cell<*mut Head>,
        /// Whether the anchors are in the list.
        anchored: Cell<bool>,
        begin: RobustWord,
        end: RobustWord,
        /// How many words are held; the oldest first.
        len: Cell<usize>,
        first: [Cell<*const RobustWord>; INLINE],
        /// Those beyond `first`. Never dropped: a thread that ever held more than `INLINE` at once leaves this behind.
        more: Cell<Vec<*const RobustWord>>,
    }

    const INLINE: usize = 16;

    thread_local! {
        static THREAD: std::mem::ManuallyDrop<Thread> = const {
            std::mem::ManuallyDrop::new(Thread {
                of_pid: Cell::new(0),
                tid: Cell::new(0),
                head: Cell::new(std::ptr::null_mut()),
                anchored: Cell::new(false),
                begin: RobustWord::new(),
                end: RobustWord::new(),
                len: Cell::new(0),
                first: [const { Cell::new(std::ptr::null()) }; INLINE],
                more: Cell::new(Vec::new()),
            })
        };
    }

    impl Thread {
        fn held(&self, at: usize) -> *const RobustWord {
            if at < INLINE {
                return self.first[at].get();
            }
            let more = self.more.take();
            let held = more[at - INLINE];
            self.more.set(more);
            held
        }

        fn set(&self, at: usize, word: *const RobustWord) {
            if at < INLINE {
                return self.first[at].set(word);
            }
            let mut more = self.more.take();
            match more.get_mut(at - INLINE) {
                Some(place) => *place = word,
                None => more.push(word),
            }
            self.more.set(more);
        }

        /// Puts the two anchors at the front of the thread's list.
        #[cold]
        fn anchor(&self) -> Result<(), HoldError> {
            let head = self.head.get();
            if head.is_null() {
                return Err(HoldError::Unsupported);
            }
            // SAFETY: the head belongs to this thread and lives as long as it.
            let next = unsafe { &raw mut (*head).next };
            // SAFETY: as above.
            let first = unsafe { next.read() };
            self.end.prev.set(self.begin.next.as_ptr() as usize);
            self.end.next.set(first as usize);
            self.begin.prev.set(head as usize);
            self.begin.next.set(self.end.next.as_ptr() as usize);
            // SAFETY: `first` is what the list began with, of this thread.
            unsafe { follow(first, head, self.end.next.as_ptr() as usize) };
            compiler_fence(Ordering::SeqCst);
            // SAFETY: the head belongs to this thread; the anchors' links were written before.
            unsafe { next.write_volatile(self.begin.next.as_ptr().cast::<Link>()) };
            self.anchored.set(true);
            Ok(())
        }
    }

    /// Makes `before` what comes before `node` in the list of `head`, unless the list ends there.
    ///
    /// # Safety
    /// `node` is the list's first, and the list is the calling thread's.
    unsafe fn follow(node: *mut Link, head: *mut Head, before: usize) {
        let plain = node.map_addr(|address| address & !1);
        if plain.cast::<Head>() != head {
            // One of glibc's or ours; like glibc we keep its `prev`, the word below its `next`.
            // SAFETY: every linked node has `prev` directly below `next` (invariant 1, and glibc's layout).
            let prev = unsafe { plain.cast::<usize>().sub(1) };
            // SAFETY: the node is linked in this thread's list, so only this thread writes its links (invariant 2).
            unsafe { prev.write_volatile(before) };
        }
    }

    /// Calls `with` with what this thread knows, read anew after a fork.
    #[inline]
    fn thread<R>(with: impl FnOnce(&Thread) -> R) -> R {
        THREAD.with(|thread| {
            if thread.of_pid.get() != fork::pid() {
                read_thread(thread);
            }
            with(thread)
        })
    }

    #[cold]
    fn read_thread(thread: &Thread) {
        let mut head: *mut Head = std::ptr::null_mut();
        let mut len: usize = 0;
        // SAFETY: get_robust_list of the calling thread (0) writes one pointer and one length.
        let result = unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut len) };
        let known = result == 0 && !head.is_null() && len == size_of::<Head>() && {
            // SAFETY: glibc registered this head for the calling thread; it lives as long as the thread.
            let offset = unsafe { (*head).futex_offset };
            offset == FUTEX_OFFSET
        };
        thread.head.set(if known { head } else { std::ptr::null_mut() });
        thread.tid.set(rustix::thread::gettid().as_raw_pid().unsigned_abs());
        // After a fork the C library has emptied the list, and what was held is the parent's.
        thread.anchored.set(false);
        thread.len.set(0);
        thread.of_pid.set(fork::pid());
    }

    /// The list that the C library has registered for a thread.
    pub(crate) struct Registered(*mut Head);

    /// The list of the calling thread.
    pub(crate) fn registered() -> Result<Registered, Unsupported> {
        let head = thread(|thread| thread.head.get());
        if head.is_null() { Err(Unsupported) } else { Ok(Registered(head)) }
    }

    impl Registered {
        /// Registers the list again, emptied, as the C library's `fork` does in the new process. A raw clone has no list registered, and
        /// its memory has what the thread held in the old process.
        ///
        /// # Safety
        /// The calling thread is the only one of a process that was cloned, without sharing memory, from the thread of this list.
        pub(crate) unsafe fn renew(&self) {
            let Self(head) = *self;
            let empty = Head { next: head.cast(), futex_offset: FUTEX_OFFSET, pending: std::ptr::null_mut() };
            // SAFETY: the head is the calling thread's (the caller promises that), in this process's own memory.
            unsafe { head.write(empty) };
            // SAFETY: as above, and it lives as long as the thread. It cannot fail for the right size.
            unsafe { libc::syscall(libc::SYS_set_robust_list, head, size_of::<Head>()) };
        }
    }

    /// The calling thread, for several calls in a row: whether it was forked is asked once.
    #[derive(Clone, Copy)]
    pub struct Current<'a>(&'a Thread);

    impl std::fmt::Debug for Current<'_> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_tuple("Current").field(&self.tid()).finish()
        }
    }

    /// Calls `with` with the calling thread.
    #[inline]
    pub fn with<R>(with: impl FnOnce(Current<'_>) -> R) -> R {
        thread(|thread| with(Current(thread)))
    }

    impl Current<'_> {
        /// The thread's id.
        #[inline]
        #[must_use]
        pub fn tid(self) -> u32 {
            self.0.tid.get()
        }

        /// The process's id.
        #[inline]
        #[must_use]
        pub fn pid(self) -> u32 {
            self.0.of_pid.get()
        }

        /// See [`set_pending`].
        ///
        /// # Safety
        /// As there.
        #[inline]
        pub unsafe fn set_pending(self, word: &AtomicU32) {
            // Eight 32-bit words further on is where the node's `next` is, or would be: invariant 1.
            #[expect(
                clippy::cast_ptr_alignment,
                reason = "an address for the kernel, never dereferenced here"
            )]
            let link = std::ptr::from_ref(word).wrapping_add(8).cast_mut().cast::<Link>();
            self.store_pending(link);
            compiler_fence(Ordering::SeqCst);
        }

        /// See [`clear_pending`].
        #[inline]
        pub fn clear_pending(self) {
            compiler_fence(Ordering::SeqCst);
            self.store_pending(std::ptr::null_mut());
        }

        /// See [`has_pending`].
        fn has_pending(self) -> bool {
            let head = self.0.head.get();
            if head.is_null() {
                return false;
            }
            // SAFETY: the head belongs to this thread (read for this very process) and lives as long as it.
            let pending = unsafe { &raw const (*head).pending };
            // SAFETY: only this thread writes it.
            !unsafe { pending.read_volatile() }.is_null()
        }

        #[inline]
        fn store_pending(self, link: *mut Link) {
            let head = self.0.head.get();
            if !head.is_null() {
                // SAFETY: the head belongs to this thread (read for this very process) and lives as long as it.
                let pending = unsafe { &raw mut (*head).pending };
                // SAFETY: only this thread writes it; the kernel reads it when the thread dies, and does not follow it
                // beyond the futex word.
                unsafe { pending.write_volatile(link) };
            }
        }

        /// See [`hold`].
        ///
        /// # Errors
        /// As there.
        ///
        /// # Safety
        /// As there.
        #[inline]
        pub unsafe fn hold(self, node: &RobustWord, most: usize) -> Result<(), HoldError> {
            let thread = self.0;
            if !thread.anchored.get() {
                thread.anchor()?;
            }
            let len = thread.len.get();
            if len >= most {
                return Err(HoldError::TooMany);
            }
            node.next.set(thread.begin.next.get());
            thread.set(len, node);
            thread.len.set(len + 1);
            compiler_fence(Ordering::SeqCst);
            store(&thread.begin.next, node.next.as_ptr() as usize);
            compiler_fence(Ordering::SeqCst);
            Ok(())
        }

        /// See [`let_go`].
        #[inline]
        pub fn let_go(self, node: &RobustWord) {
            let thread = self.0;
            let len = thread.len.get();
            if len == 1 && std::ptr::eq(thread.first[0].get(), node) {
                // As below, for what is mostly the case.
                compiler_fence(Ordering::SeqCst);
                store(&thread.begin.next, thread.end.next.as_ptr() as usize);
                compiler_fence(Ordering::SeqCst);
                return thread.len.set(0);
            }
            let Some(at) = (0..len).rev().find(|&at| std::ptr::eq(thread.held(at), node)) else { return };
            // What follows it in the list is the next older one.
            let older = if at == 0 {
                thread.end.next.as_ptr() as usize
            } else {
                // SAFETY: this thread holds it, so it is mapped (the caller of `hold` promised that).
                unsafe { &*thread.held(at - 1) }.next.as_ptr() as usize
            };
            compiler_fence(Ordering::SeqCst);
            if at + 1 == len {
                store(&thread.begin.next, older);
            } else {
                // SAFETY: as above.
                store(&unsafe { &*thread.held(at + 1) }.next, older);
                for place in at + 1..len {
                    thread.set(place - 1, thread.held(place));
                }
            }
            compiler_fence(Ordering::SeqCst);
            thread.len.set(len - 1);
        }
    }

    /// The id of the calling thread, from memory.
    #[inline]
    #[must_use]
    pub fn tid() -> u32 {
        with(|current| current.tid())
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
        // SAFETY: as the caller promises.
        with(|current| unsafe { current.set_pending(word) });
    }

    /// Ends what [`set_pending`] began.
    #[inline]
    pub fn clear_pending() {
        with(|current| current.clear_pending());
    }

    /// Whether this thread is between [`set_pending`] and [`clear_pending`], and so may take no other word that needs them.
    #[must_use]
    pub fn has_pending() -> bool {
        with(|current| current.has_pending())
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
        let (head, tid) = thread(|thread| (thread.head.get(), thread.tid.get()));
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
        // SAFETY: `first` is what the list began with, of this thread.
        unsafe { follow(first, head, ours as usize) };
        compiler_fence(Ordering::SeqCst);
        // SAFETY: the head belongs to this thread; the node's own links were written before.
        unsafe { next.write_volatile(ours) };
        compiler_fence(Ordering::SeqCst);
        // Last: a thread that dies before this leaves a word that is nobody's, and the pending word is left to the caller.
        node.word.store((tid & TID_MASK) | WAITERS, Ordering::Release);
        Ok(())
    }

    /// Links `node` among the words that this thread holds, until [`let_go`]. Its word is stored by the caller, before or after: from
    /// the later of the two on the kernel marks it when this thread dies.
    ///
    /// `most` is how many the thread may hold with it: [`HELD_MAX`](super::HELD_MAX), or a few more for what is let go soon.
    ///
    /// # Errors
    /// [`HoldError`]; nothing was linked.
    ///
    /// # Safety
    /// * No thread has `node` linked, and none links it before this one has let it go.
    /// * `node` stays mapped, and is used for nothing else, until this thread has let it go or has ended.
    #[inline]
    pub unsafe fn hold(node: &RobustWord, most: usize) -> Result<(), HoldError> {
        // SAFETY: as the caller promises.
        with(|current| unsafe { current.hold(node, most) })
    }

    /// Writes a link that the kernel may read at any moment from now on.
    #[inline]
    fn store(link: &Cell<usize>, to: usize) {
        // SAFETY: a plain word of a node that this thread alone writes (invariant 2).
        unsafe { link.as_ptr().write_volatile(to) };
    }

    /// Unlinks `node`, which this thread holds; one that it does not hold is left alone. The caller makes its word pending before.
    #[inline]
    pub fn let_go(node: &RobustWord) {
        with(|current| current.let_go(node));
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
                extra: [const { AtomicU32::new(0) }; 4],
                prev: Cell::new(0),
                next: Cell::new(0),
                name: [const { AtomicU64::new(0) }; 3],
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
        use super::super::{HELD_MAX, OWNER_DIED};
        use super::*;
        use crate::futex::{Waited, wait_word};
        use std::cell::UnsafeCell;

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
        fn a_thread_knows_whether_it_has_a_pending_word() {
            assert!(!has_pending());
            // SAFETY: the word is leaked.
            unsafe { set_pending(&leaked().word) };
            assert!(has_pending());
            clear_pending();
            assert!(!has_pending());
        }

        fn leaked() -> &'static RobustWord {
            Box::leak(Box::new(RobustWord::new()))
        }

        fn take(word: &'static RobustWord) {
            // SAFETY: leaked, and held by this thread only.
            unsafe { hold(word, HELD_MAX) }.unwrap();
            word.word.store(tid(), Ordering::Release);
        }

        fn give(word: &'static RobustWord) {
            let_go(word);
            word.word.store(0, Ordering::Release);
        }

        /// A robust mutex of glibc's, shared between processes.
        fn glibc_mutex() -> &'static UnsafeCell<libc::pthread_mutex_t> {
            let mutex = Box::leak(Box::new(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER)));
            let mut attributes = std::mem::MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
            // SAFETY: initialises the attributes.
            assert_eq!(unsafe { libc::pthread_mutexattr_init(attributes.as_mut_ptr()) }, 0);
            // SAFETY: initialised above.
            let set = unsafe {
                libc::pthread_mutexattr_setrobust(attributes.as_mut_ptr(), libc::PTHREAD_MUTEX_ROBUST)
            };
            assert_eq!(set, 0);
            // SAFETY: nobody uses the mutex yet.
            assert_eq!(unsafe { libc::pthread_mutex_init(mutex.get(), attributes.as_ptr()) }, 0);
            mutex
        }

        #[test]
        fn what_a_thread_still_holds_is_marked_and_what_it_let_go_is_not() {
            let words: Vec<&'static RobustWord> = (0..40).map(|_| leaked()).collect();
            let own = words.clone();
            std::thread::spawn(move || {
                own.iter().for_each(|word| take(word));
                // From the middle, the newest, the oldest.
                [20, 39, 0, 17, 18, 1].into_iter().for_each(|at: usize| give(own[at]));
            })
            .join()
            .unwrap();
            for (at, word) in words.iter().enumerate() {
                let given = [20, 39, 0, 17, 18, 1].contains(&at);
                let expected = if given { 0 } else { OWNER_DIED };
                assert_eq!(word.word.load(Ordering::Acquire), expected, "word {at}");
            }
        }

        #[test]
        fn random_taking_and_giving_between_mutexes_of_the_c_library_marks_just_what_is_held() {
            for seed in 0..50_u64 {
                let words: Vec<&'static RobustWord> = (0..24).map(|_| leaked()).collect();
                let own = words.clone();
                let held = std::thread::spawn(move || {
                    let mutexes: Vec<_> = (0..6).map(|_| glibc_mutex()).collect();
                    let (mut held, mut locked) = (vec![false; own.len()], vec![false; mutexes.len()]);
                    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
                    for _ in 0..400 {
                        state ^= state << 13;
                        state ^= state >> 7;
                        state ^= state << 17;
                        let at = usize::try_from(state >> 33).unwrap() % (own.len() + mutexes.len());
                        match at.checked_sub(own.len()) {
                            None => {
                                if held[at] {
                                    give(own[at])
                                } else {
                                    take(own[at])
                                }
                                held[at] = !held[at];
                            }
                            Some(at) => {
                                let mutex = mutexes[at].get();
                                let result = if locked[at] {
                                    // SAFETY: initialised, and locked by this thread.
                                    unsafe { libc::pthread_mutex_unlock(mutex) }
                                } else {
                                    // SAFETY: initialised.
                                    unsafe { libc::pthread_mutex_lock(mutex) }
                                };
                                assert_eq!(result, 0);
                                locked[at] = !locked[at];
                            }
                        }
                    }
                    held
                })
                .join()
                .unwrap();
                for (at, (word, held)) in words.iter().zip(held).enumerate() {
                    let expected = if held { OWNER_DIED } else { 0 };
                    assert_eq!(word.word.load(Ordering::Acquire), expected, "seed {seed}, word {at}");
                }
            }
        }

        #[test]
        fn a_thread_holds_no_more_than_it_may() {
            std::thread::spawn(|| {
                let words: Vec<&'static RobustWord> = (0..=HELD_MAX).map(|_| leaked()).collect();
                words[..HELD_MAX].iter().for_each(|word| take(word));
                // SAFETY: leaked, held by nobody.
                assert_eq!(unsafe { hold(words[HELD_MAX], HELD_MAX) }, Err(HoldError::TooMany));
                give(words[500]);
                take(words[HELD_MAX]);
            })
            .join()
            .unwrap();
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
