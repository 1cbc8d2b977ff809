//! Which ids of processes and threads are in use.
//!
//! Owns: a bit for each id. Ids go round, so that one comes again late: after a while those of the living lie anywhere in their tables, and who looks
//! for the dead, or goes to sleep, would pass by all that ever were. The bits make that as long as there are ids, a sixty-fourth.
//!
//! ```text
//! bit   its entry              who                                      when
//! 0     free, or never used    –
//! 1     free                   holder of the lock                       before it is taken; after a death in between, until the next recovery
//! 1     in use                 –
//! ```
//!
//! Edges: ID Release in `insert` and `remove`, pairs with Acquire in `iter`: who sees the bit sees a table entry that is committed.
//! Death: of who holds the lock between bit and entry leaves the second row, which recovery clears.

use mp_sys::atomic::{AtomicU64, Ordering};

/// Words of a set of so many ids.
pub(crate) const fn words(ids: u32) -> usize {
    ids.div_ceil(64) as usize
}

/// A set of ids; changed under the domain's lock alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ids<'a>(pub(crate) &'a [AtomicU64]);

impl<'a> Ids<'a> {
    fn word(self, id: u32) -> Option<(&'a AtomicU64, u64)> {
        self.0.get(id as usize / 64).map(|word| (word, 1 << (id % 64)))
    }

    pub(crate) fn insert(self, id: u32) {
        if let Some((word, bit)) = self.word(id) {
            // ID: Release, pairs with the Acquire in `iter`.
            word.fetch_or(bit, Ordering::Release);
        }
    }

    pub(crate) fn remove(self, id: u32) {
        if let Some((word, bit)) = self.word(id) {
            // ID: Release, pairs with the Acquire in `iter`.
            word.fetch_and(!bit, Ordering::Release);
        }
    }

    /// An id that is not in the set, from `next` on and round; 0 is none.
    pub(crate) fn free_from(self, next: u32) -> Option<u32> {
        let most = u32::try_from(self.0.len()).unwrap_or(0).saturating_mul(64);
        let is_free =
            |id: &u32| self.word(*id).is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit == 0);
        let next = next.clamp(1, most);
        (next..most).chain(1..next).find(is_free)
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = u32> + 'a {
        (0..).step_by(64).zip(self.0).flat_map(|(first, word)| {
            // ID: Acquire, pairs with the Release in `insert` and `remove`.
            let mut bits = word.load(Ordering::Acquire);
            std::iter::from_fn(move || {
                let next = (bits != 0).then(|| first + bits.trailing_zeros());
                bits &= bits.wrapping_sub(1);
                next
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_in_and_not_taken_out() {
        let words = [const { AtomicU64::new(0) }; 3];
        let ids = Ids(&words);
        for id in [1, 63, 64, 191] {
            ids.insert(id);
        }
        ids.insert(192);
        assert_eq!(ids.iter().collect::<Vec<_>>(), [1, 63, 64, 191]);
        ids.remove(64);
        ids.remove(2);
        assert_eq!(ids.iter().collect::<Vec<_>>(), [1, 63, 191]);
    }

    #[test]
    fn free_ids_are_found_from_anywhere_and_never_zero() {
        let words = [const { AtomicU64::new(0) }; 2];
        let ids = Ids(&words);
        assert_eq!(ids.free_from(0), Some(1));
        assert_eq!(ids.free_from(127), Some(127));
        (100..128).for_each(|id| ids.insert(id));
        assert_eq!(ids.free_from(100), Some(1), "round");
        (1..100).for_each(|id| ids.insert(id));
        assert_eq!(ids.free_from(50), None);
    }
}
