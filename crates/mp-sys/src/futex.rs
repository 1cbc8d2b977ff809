//! Compare and sleep on several words at once, and wake; the kernel's futexes, or the mock kernel's under loom.
//!
//! Contract. [`wait`] compares every watched word with the value expected of it and sleeps only if all are equal;
//! comparing and going to sleep is one step for a waker that changes the word before it calls [`wake`]. It may return
//! early for no reason. Words are in memory shared between processes, so no operation is process-private.
//!
//! Source: Linux Documentation/userspace-api/futex2.rst; `futex_waitv` is in Linux 5.16. Without it only the first
//! watched word is slept on, and the caller needs a backstop.

use crate::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::deadline::Deadline;

/// Most words one wait can watch; the kernel's `FUTEX_WAITV_MAX`.
pub const WATCH_MAX: usize = 128;

/// A word and the value it must have for the wait to sleep.
#[derive(Clone, Copy, Debug)]
pub enum Watch<'a> {
    /// A 32-bit word.
    Word(&'a AtomicU32, u32),
    /// The low half of a 64-bit word.
    Low(&'a AtomicU64, u32),
}

impl Watch<'_> {
    /// The word's present value.
    #[must_use]
    pub fn now(self) -> u32 {
        match self {
            Self::Word(word, _) => word.load(Ordering::Acquire),
            #[expect(clippy::cast_possible_truncation, reason = "the low half is what is watched")]
            Self::Low(word, _) => word.load(Ordering::Acquire) as u32,
        }
    }

    /// The value that it must have for the wait to sleep.
    #[must_use]
    pub fn expected(self) -> u32 {
        let (Self::Word(_, expected) | Self::Low(_, expected)) = self;
        expected
    }

    /// The same word, watched from its present value on.
    #[must_use]
    pub fn again(self) -> Self {
        let now = self.now();
        match self {
            Self::Word(word, _) => Self::Word(word, now),
            Self::Low(word, _) => Self::Low(word, now),
        }
    }
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// A wake for the word at this index arrived.
    Woken(usize),
    /// A word had another value, or the wait ended early (a signal, say): look again.
    Changed,
    /// The deadline passed.
    TimedOut,
}

#[cfg(loom)]
pub use crate::model::{wait, wake};

#[cfg(not(loom))]
pub use real::{wait, wake};

#[cfg(not(loom))]
mod real {
    #![expect(unsafe_code, reason = "futex system calls")]

    use super::{WATCH_MAX, Waited, Watch};
    use crate::atomic::AtomicU32;
    use crate::deadline::Deadline;
    use crate::force;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// One entry of `futex_waitv`, as the kernel lays it out.
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Entry {
        expected: u64,
        address: u64,
        flags: u32,
        reserved: u32,
    }

    const SIZE_U32: u32 = 2;
    const ENTRY_NONE: Entry = Entry { expected: 0, address: 0, flags: 0, reserved: 0 };

    /// Set once the kernel said that it has no `futex_waitv`.
    static NO_WAITV: AtomicBool = AtomicBool::new(false);

    /// Whether waits watch all their words; without it only the first is watched.
    #[must_use]
    pub(crate) fn has_waitv() -> bool {
        !NO_WAITV.load(Ordering::Relaxed) && !force::is("no-waitv")
    }

    fn address(watch: &Watch<'_>) -> (u64, u32) {
        match *watch {
            Watch::Word(word, expected) => (std::ptr::from_ref(word) as u64, expected),
            #[cfg(target_endian = "little")]
            Watch::Low(word, expected) => (std::ptr::from_ref(word) as u64, expected),
        }
    }

    /// Sleeps while every watched word has its expected value, until a wake or the deadline.
    ///
    /// # Panics
    /// If `watches` is empty or longer than [`WATCH_MAX`].
    pub fn wait(watches: &[Watch<'_>], deadline: Option<Deadline>) -> Waited {
        assert!(!watches.is_empty() && watches.len() <= WATCH_MAX, "1 to {WATCH_MAX} words can be watched");
        if watches.len() > 1 && has_waitv() {
            let mut entries = [ENTRY_NONE; WATCH_MAX];
            for (entry, watch) in entries.iter_mut().zip(watches) {
                let (address, expected) = address(watch);
                *entry = Entry { expected: expected.into(), address, flags: SIZE_U32, reserved: 0 };
            }
            match waitv(&entries[..watches.len()], deadline) {
                Err(libc::ENOSYS) => NO_WAITV.store(true, Ordering::Relaxed),
                other => return outcome(other),
            }
        }
        outcome(wait_one(&watches[0], deadline).map(|()| 0))
    }

    fn outcome(result: Result<usize, i32>) -> Waited {
        match result {
            Ok(index) => Waited::Woken(index),
            Err(libc::ETIMEDOUT) => Waited::TimedOut,
            Err(_) => Waited::Changed,
        }
    }

    fn errno() -> i32 {
        std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
    }

    fn waitv(entries: &[Entry], deadline: Option<Deadline>) -> Result<usize, i32> {
        let time = deadline.map(Deadline::timespec);
        let time_pointer = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: `entries` and `time` outlive the call; the kernel only reads them. The words are read by the kernel
        // with its own fault handling.
        let woken = unsafe {
            libc::syscall(
                libc::SYS_futex_waitv,
                entries.as_ptr(),
                entries.len(),
                0_u32,
                time_pointer,
                libc::CLOCK_MONOTONIC,
            )
        };
        usize::try_from(woken).map_err(|_| errno())
    }

    fn wait_one(watch: &Watch<'_>, deadline: Option<Deadline>) -> Result<(), i32> {
        let (address, expected) = address(watch);
        let time = deadline.map(Deadline::timespec);
        let time_pointer = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: FUTEX_WAIT_BITSET takes an absolute monotonic time; `time` outlives the call; the word is read by
        // the kernel with its own fault handling.
        let result = unsafe {
            libc::syscall(
                libc::SYS_futex,
                address,
                libc::FUTEX_WAIT_BITSET,
                expected,
                time_pointer,
                std::ptr::null::<u32>(),
                libc::FUTEX_BITSET_MATCH_ANY,
            )
        };
        if result == 0 { Ok(()) } else { Err(errno()) }
    }

    /// Wakes at most `count` sleepers of `word`, longest asleep first; says how many woke.
    pub fn wake(word: &AtomicU32, count: u32) -> u32 {
        // SAFETY: FUTEX_WAKE only uses the address as a key.
        let woken = unsafe {
            libc::syscall(libc::SYS_futex, std::ptr::from_ref(word), libc::FUTEX_WAKE, count.min(0x7fff_ffff))
        };
        u32::try_from(woken).unwrap_or(0)
    }
}

/// Whether a wait really watches all its words (Linux 5.16); otherwise only the first, and callers shorten their
/// backstop.
#[must_use]
pub fn watches_all() -> bool {
    #[cfg(loom)]
    return true;
    #[cfg(not(loom))]
    real::has_waitv()
}

/// Wakes all sleepers of `word`.
pub fn wake_all(word: &AtomicU32) -> u32 {
    wake(word, u32::MAX)
}

/// Sleeps on one word; see [`wait`].
pub fn wait_word(word: &AtomicU32, expected: u32, deadline: Option<Deadline>) -> Waited {
    wait(&[Watch::Word(word, expected)], deadline)
}
