//! A ring of stamped buffers: one writer at a time that never waits, and readers that never see half of a value.
//!
//! Owns: the word `newest` and a power of two of buffers, each a stamp and the words of a value. Value number `n` (from 1) lies in
//! buffer `n % buffers`. Who may write is not decided here: the one [`LatestWriter`](crate::latest::LatestWriter), or who holds the lock
//! of a [`List`](crate::list::List).
//!
//! ```text
//! step                      stamp of buffer n+1   newest   readers
//! at rest                   an old number         n        read buffer n
//! 1. stamp 0, edge BUSY     0                     n        who still reads the old value there looks again
//! 2. the words              0                     n        read buffer n
//! 3. stamp n+1, edge WORDS  n+1                   n        read buffer n
//! 4. newest, edge NEWEST    n+1                   n+1      read buffer n+1
//! ```
//!
//! A reader loads `newest`, the stamp, the words, and the stamp again. If both stamps are the number it looked for, the words between are
//! of that value. If not, the writer has gone once round the ring meanwhile, and the reader looks again: with many buffers that is rare.
//!
//! Edges
//! * BUSY: a Release fence between stamp 0 and the words, pairs with the Acquire fence between a reader's words and its second look at
//!   the stamp: who has seen a new word sees that the stamp has changed.
//! * WORDS: Release store of the stamp, pairs with the reader's first look at it.
//! * NEWEST: Release store, pairs with the reader's Acquire load.
//!
//! Death: a writer killed at any step leaves `newest` at a whole value, which stays readable; the next writer begins again at step 1 with
//! the buffer that was given up. A dead reader leaves nothing. With a single buffer, a plain sequence lock, neither would hold.
//!
//! Models: loom `ring_*` in `tests/loom_stamped.rs`; negative controls with one buffer, and without step 1.
//! Source: H.-J. Boehm, "Can seqlocks get along with programming language memory models?", MSPC 2012, for the fences; the ring in
//! place of the lock is the usual cure for readers that a writer would stop.

use mp_sys::atomic::{AtomicU64, Ordering, fence};
use mp_sys::crash;

const BUSY: u64 = 0;

/// A ring in memory that its owner keeps.
#[derive(Clone, Copy, Debug)]
pub struct Ring<'a> {
    newest: &'a AtomicU64,
    buffers: &'a [AtomicU64],
    /// Words of a buffer, the stamp included.
    stride: usize,
    /// One less than the number of buffers.
    mask: u64,
}

impl<'a> Ring<'a> {
    /// A ring of `buffers`, each of `stride` words: the stamp, then the value's. `None` if that is not a power of two of
    /// buffers. All words zero is a ring without a value.
    #[must_use]
    pub fn new(newest: &'a AtomicU64, buffers: &'a [AtomicU64], stride: usize) -> Option<Self> {
        let count = buffers.len().checked_div(stride)?;
        (stride > 1 && count.is_power_of_two() && count * stride == buffers.len()).then_some(Self {
            newest,
            buffers,
            stride,
            mask: count as u64 - 1,
        })
    }

    /// Stamp and words of the buffer for value `number`.
    #[inline]
    fn buffer(&self, number: u64) -> Option<(&'a AtomicU64, &'a [AtomicU64])> {
        let start = usize::try_from(number & self.mask).ok()? * self.stride;
        self.buffers.get(start..start + self.stride)?.split_first()
    }

    /// Publishes what `fill` stores into a buffer's words. Only one thread may be in here at a time.
    #[inline]
    pub fn write(&self, fill: impl FnOnce(&[AtomicU64])) {
        // Nobody else writes it; who wrote before us is known to be done, or dead.
        let number = self.newest.load(Ordering::Relaxed).wrapping_add(1);
        let Some((stamp, words)) = self.buffer(number) else { return };
        stamp.store(BUSY, Ordering::Relaxed);
        // BUSY: pairs with the fence in `try_read`.
        fence(Ordering::Release);
        crash::point("stamped.busy");
        fill(words);
        crash::point("stamped.filled");
        // WORDS: Release, pairs with the Acquire in `try_read`.
        stamp.store(number, Ordering::Release);
        crash::point("stamped.stamped");
        // NEWEST: Release, pairs with the Acquire in `try_read`.
        self.newest.store(number, Ordering::Release);
        crash::point("stamped.published");
    }

    /// What `copy` makes of the newest value's words, with its number; `None` if the writer came round meanwhile, or there is no value
    /// yet. `copy` may be given words of several values; its result is thrown away then.
    #[inline]
    pub fn try_read<R>(&self, copy: impl FnOnce(&[AtomicU64]) -> R) -> Option<(u64, R)> {
        // NEWEST: Acquire, pairs with the Release in `write`.
        let number = self.newest.load(Ordering::Acquire);
        let (stamp, words) = self.buffer(number)?;
        // WORDS: Acquire, pairs with the Release in `write`.
        if number == 0 || stamp.load(Ordering::Acquire) != number {
            return None;
        }
        let value = copy(words);
        // BUSY: pairs with the fence in `write`.
        fence(Ordering::Acquire);
        (stamp.load(Ordering::Relaxed) == number).then_some((number, value))
    }
}
