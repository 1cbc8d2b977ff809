//! Stamps: the words by which slots tell what is in them, and the positions that are in the words.
//!
//! ```text
//! slot word:  63..48 owner (thread id in the session) | 47..4 sequence | 3..0 state
//! ```
//!
//! A position is `lap << shift | index` with index < N <= 2^shift, modulo 2^44; so any capacity works across the wrap. What a state means, and
//! who may change it, is told by [`crate::ring`], [`crate::lane`] and [`crate::bus`].

use mp_sys::atomic::AtomicU64;

/// A slot is free for the sender at its position.
pub const EMPTY: u64 = 0;
/// A sender writes.
pub const WRITING: u64 = 1;
/// A message waits.
pub const FULL: u64 = 2;
/// A receiver reads.
pub const READING: u64 = 3;
/// A sender died while it wrote; a receiver that comes by frees the slot.
pub const DEAD: u64 = 4;

/// A message waits, behind which no more is sent in this ring: it was full, and there is another one.
pub const LAST: u64 = 5;
/// A receiver reads the last message of this ring.
pub const READING_LAST: u64 = 6;
/// All that was sent in this ring is taken or being read; there is another one.
pub const SEALED: u64 = 7;

const STATE_BITS: u32 = 4;
const SEQUENCE_BITS: u32 = 44;
pub(crate) const SEQUENCE_MASK: u64 = (1 << SEQUENCE_BITS) - 1;
/// Most slots of a ring.
pub const CAPACITY_MAX: u32 = 1 << 24;

/// Most slots that are worth waiting for at once.
const BATCH_MAX: u32 = 64;

/// The number of slots and the positions that follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    capacity: u32,
    shift: u32,
}

impl Shape {
    /// For `capacity` slots, 1 to [`CAPACITY_MAX`].
    #[must_use]
    pub fn new(capacity: u32) -> Option<Self> {
        (1..=CAPACITY_MAX)
            .contains(&capacity)
            .then(|| Self { capacity, shift: capacity.next_power_of_two().trailing_zeros() })
    }

    /// The number of slots.
    #[must_use]
    pub fn capacity(self) -> u32 {
        self.capacity
    }

    /// The position `laps` before the wrap of the sequence, at index 0; tests start there.
    #[must_use]
    pub fn start_before_wrap(self, laps: u64) -> u64 {
        (SEQUENCE_MASK + 1 - (laps << self.shift)) & SEQUENCE_MASK
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the mask leaves at most 24 bits")]
    pub(crate) fn index(self, position: u64) -> u32 {
        (position & ((1 << self.shift) - 1)) as u32
    }

    #[inline]
    pub(crate) fn next(self, position: u64) -> u64 {
        let mask = (1 << self.shift) - 1;
        if (position & mask) + 1 < u64::from(self.capacity) {
            position + 1
        } else {
            ((position | mask) + 1) & SEQUENCE_MASK
        }
    }

    /// The position `count` on, at most a lap.
    pub(crate) fn forward(self, position: u64, count: u32) -> u64 {
        let index = self.index(position) + count;
        let start = position - u64::from(self.index(position));
        if index < self.capacity {
            start + u64::from(index)
        } else {
            self.lap_on(start) + u64::from(index - self.capacity)
        }
    }

    /// How many messages a sender that finds the channel full waits for room for, if there is somebody to make it: with room for one it would be
    /// in the way of who makes the next. 0 or 1 if there is nothing to wait for.
    pub(crate) fn batch(self) -> u32 {
        (self.capacity / 8).min(BATCH_MAX)
    }

    #[inline]
    pub(crate) fn lap_on(self, position: u64) -> u64 {
        position.wrapping_add(1 << self.shift) & SEQUENCE_MASK
    }

    /// How many positions `to` is on from `from`.
    pub(crate) fn distance(self, from: u64, to: u64) -> u64 {
        let laps = (to >> self.shift).wrapping_sub(from >> self.shift) & (SEQUENCE_MASK >> self.shift);
        let of_whole_laps = laps * u64::from(self.capacity);
        (of_whole_laps + u64::from(self.index(to))).wrapping_sub(self.index(from).into())
    }

    #[inline]
    pub(crate) fn lap_back(self, position: u64) -> u64 {
        position.wrapping_sub(1 << self.shift) & SEQUENCE_MASK
    }
}

#[inline]
pub(crate) fn word(state: u64, sequence: u64, owner: u16) -> u64 {
    u64::from(owner) << (STATE_BITS + SEQUENCE_BITS) | sequence << STATE_BITS | state
}

/// The word of slot `index` in a new ring that starts at `start`.
#[must_use]
pub fn first_word(start: u64, index: u32) -> u64 {
    word(EMPTY, (start + u64::from(index)) & SEQUENCE_MASK, 0)
}

/// A slot word, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// One of the states.
    pub state: u64,
    pub(crate) sequence: u64,
    /// Who holds it, in WRITING and READING.
    pub owner: u16,
}

impl Seen {
    /// Takes `word` apart.
    #[inline]
    #[must_use]
    pub fn of(word: u64) -> Self {
        Self {
            state: word & ((1 << STATE_BITS) - 1),
            sequence: (word >> STATE_BITS) & SEQUENCE_MASK,
            owner: (word >> (STATE_BITS + SEQUENCE_BITS)) as u16,
        }
    }
}

/// Where the slot words are.
pub trait Slots {
    /// The word of slot `index`, below the capacity.
    fn word(&self, index: u32) -> &AtomicU64;

    /// Starts to fetch what else is in slot `index`, which is about to be claimed for reading; changes nothing but time.
    #[inline]
    fn fetch(&self, _index: u32) {}
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn positions_wrap_with_any_capacity() {
        for capacity in [1, 2, 3, 5, 7, 8, 1000] {
            let shape = Shape::new(capacity).unwrap();
            let mut position = shape.start_before_wrap(2);
            for step in 0..capacity * 4 {
                assert_eq!(shape.index(position), step % capacity);
                let mut after_a_lap = position;
                for _ in 0..capacity {
                    after_a_lap = shape.next(after_a_lap);
                }
                assert_eq!(after_a_lap, shape.lap_on(position));
                position = shape.next(position);
            }
        }
        let shape = Shape::new(3).unwrap();
        let start = shape.start_before_wrap(1);
        let mut position = start;
        for steps in 0..20 {
            assert_eq!(shape.distance(start, position), steps);
            if steps <= 3 {
                assert_eq!(shape.forward(start, u32::try_from(steps).unwrap()), position);
            }
            position = shape.next(position);
        }
        assert_eq!(Shape::new(0), None);
        assert_eq!(Shape::new(CAPACITY_MAX + 1), None);
    }

    #[test]
    fn a_word_is_taken_apart_as_it_was_put_together() {
        let seen = Seen::of(word(READING, SEQUENCE_MASK, u16::MAX));
        assert_eq!(seen, Seen { state: READING, sequence: SEQUENCE_MASK, owner: u16::MAX });
    }
}
