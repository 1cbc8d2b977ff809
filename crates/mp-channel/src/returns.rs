//! Where receivers leave large spent blocks for senders: a few words of the channel. (Smaller ones stay in their slots.)
//!
//! A block goes back while it is still in some cache of the machine; in a slot it would be found a lap later. Senders look here before
//! they turn to the allocator, so that a steady stream takes no new memory from its first message on.
//!
//! ```text
//! word:  47..32 owner (thread id in the session) | 31..0 block, its offset / 64; 0 for none
//!
//! from       event                                        to         who
//! 0          leaves a block that it holds                 block      receiver, edge LEFT
//! block      begins to take it                            block, me  sender, edge TAKEN; stamps the block with its process
//! block, me  has stamped it                               0          that sender
//! block, me  its owner is dead                            block      recovery
//! ```
//!
//! Invariant: a block that a word names stays, whatever stamp it carries; see `mp_shm::block`.
//! Edges: LEFT Release, TAKEN Acquire: what the receiver had to do with the block is done.
//! Death: at every line between two rows the block is named here, or carries the stamp of who died.
//! Models: loom `returns_*` in `tests/loom_returns.rs`.

use mp_sys::atomic::{AtomicU64, Ordering};
use mp_sys::crash;

/// How many blocks can lie here: what is on its way back while the next messages are written.
pub const RETURNS: usize = 4;

/// The words of one channel.
#[repr(C)]
#[derive(Debug)]
#[cfg_attr(not(loom), derive(mp_shm::ShmSafe))]
pub struct Returns {
    words: [AtomicU64; RETURNS],
}

fn block_of(word: u64) -> Option<u32> {
    #[expect(clippy::cast_possible_truncation, reason = "taking the fields of the word apart")]
    let number = word as u32;
    (number != 0).then_some(number)
}

fn owner_of(word: u64) -> u16 {
    #[expect(clippy::cast_possible_truncation, reason = "taking the fields of the word apart")]
    let owner = (word >> 32) as u16;
    owner
}

impl Returns {
    /// Nothing lies here.
    #[must_use]
    pub fn new() -> Self {
        Self { words: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Leaves a block; says whether there was room. The caller holds it until then, and not any more afterwards.
    pub fn leave(&self, block: u32) -> bool {
        for word in &self.words {
            if word.load(Ordering::Relaxed) == 0 {
                crash::point("returns.before_leave");
                // LEFT: Release, pairs with TAKEN.
                if word.compare_exchange(0, block.into(), Ordering::Release, Ordering::Relaxed).is_ok() {
                    crash::point("returns.left");
                    return true;
                }
            }
        }
        false
    }

    /// Takes a block that `fits`; `stamp` makes it the caller's while it is still named here. `me` is the calling thread's id, not 0.
    pub fn take<B>(
        &self,
        me: u16,
        fits: impl Fn(u32) -> bool,
        stamp: impl FnOnce(u32) -> Option<B>,
    ) -> Option<B> {
        for word in &self.words {
            let found = word.load(Ordering::Relaxed);
            let Some(block) = block_of(found).filter(|&block| owner_of(found) == 0 && fits(block)) else {
                continue;
            };
            let taken = u64::from(me) << 32 | found;
            // TAKEN: Acquire, pairs with LEFT.
            if word.compare_exchange(found, taken, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                crash::point("returns.taking");
                let stamped = stamp(block);
                crash::point("returns.stamped");
                // Release: who leaves another one here comes after the stamp.
                word.store(0, Ordering::Release);
                return stamped;
            }
        }
        None
    }

    /// Calls `visit` with every block that lies here.
    pub fn each(&self, mut visit: impl FnMut(u32)) {
        self.words.iter().filter_map(|word| block_of(word.load(Ordering::Acquire))).for_each(&mut visit);
    }

    /// For recovery: what a dead thread had begun to take lies here again.
    pub fn sweep(&self, dead: &dyn Fn(u16) -> bool) {
        for word in &self.words {
            let found = word.load(Ordering::Acquire);
            if let Some(block) = block_of(found)
                && owner_of(found) != 0
                && dead(owner_of(found))
            {
                word.store(block.into(), Ordering::Release);
            }
        }
    }
}

impl Default for Returns {
    fn default() -> Self {
        Self::new()
    }
}
