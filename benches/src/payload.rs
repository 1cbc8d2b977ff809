//! Messages that can be checked, made from a sequence number, and the square task.
//!
//! The library, the raw limits and the peers make and check messages with the same code, so that its cost is
//! the same on all sides. Up to 64 bytes, every word depends on the number. A larger message is a source that is made
//! once and then only marked: each KiB of it begins with the number's word, and the rest stays, so that a sender pays
//! for handing over and not for thinking up. All bytes are checked in either case.

/// A message of 64 bytes.
pub type Payload = [u8; 64];

/// The word that stands at `place` in message number `sequence`.
const fn word(sequence: u64, place: u64) -> u64 {
    sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(place)
}

/// Message number `sequence`: all 64 bytes depend on it.
#[must_use]
pub fn make(sequence: u64) -> Payload {
    of(sequence)
}

/// Whether `bytes` is message number `sequence`, whole.
#[must_use]
pub fn is_right(bytes: &Payload, sequence: u64) -> bool {
    *bytes == make(sequence)
}

/// Message number `sequence` of another size.
#[must_use]
#[inline]
pub fn of<const SIZE: usize>(sequence: u64) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    for (place, part) in (0..).zip(bytes.chunks_exact_mut(8)) {
        part.copy_from_slice(&word(sequence, place).to_ne_bytes());
    }
    bytes
}

/// The first word of message number `sequence`; the sum of these tells whether each of many messages came once.
#[must_use]
pub fn mark(sequence: u64) -> u64 {
    word(sequence, 0)
}

/// The first word of a message, if it is whole.
#[must_use]
pub fn mark_of(bytes: &Payload) -> Option<u64> {
    is_whole(bytes).then(|| u64::from_ne_bytes(bytes.first_chunk().copied().unwrap_or_default()))
}

/// What each KiB of a large message holds behind its first word.
const FILLING: [u8; 1024] = {
    let mut bytes = [0; 1024];
    let mut place = 0_usize;
    while place < bytes.len() {
        bytes[place] = place.to_le_bytes()[0].wrapping_mul(37) ^ place.to_le_bytes()[1];
        place += 1;
    }
    bytes
};

/// A message of `SIZE` bytes, a whole number of KiB or at most 64, that a sender marks again and again.
pub struct Source<const SIZE: usize>(Box<[u8; SIZE]>);

impl<const SIZE: usize> Source<SIZE> {
    /// The message before its first mark.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "there is no value that one would expect")]
    pub fn new() -> Self {
        let bytes: Vec<u8> = FILLING.into_iter().cycle().take(SIZE).collect();
        let bytes = bytes.into_boxed_slice().try_into();
        Self(bytes.unwrap_or_else(|_| unreachable!("SIZE bytes were taken")))
    }

    /// Makes it message number `sequence`.
    #[inline]
    pub fn marked(&mut self, sequence: u64) -> &[u8; SIZE] {
        if SIZE <= 64 {
            *self.0 = of(sequence);
        } else {
            mark_again(&mut *self.0, sequence);
        }
        &self.0
    }
}

/// Makes message number `sequence` of a large message with another number.
#[inline]
pub fn mark_again(bytes: &mut [u8], sequence: u64) {
    for block in bytes.chunks_exact_mut(1024) {
        if let Some(first) = block.first_chunk_mut() {
            *first = mark(sequence).to_ne_bytes();
        }
    }
}

/// Whether `bytes` are message number `sequence` of a source of `SIZE`, whole.
#[must_use]
#[inline]
pub fn is_marked<const SIZE: usize>(bytes: &[u8], sequence: u64) -> bool {
    let Ok(bytes) = <&[u8; SIZE]>::try_from(bytes) else { return false };
    if SIZE <= 64 {
        return *bytes == of(sequence);
    }
    let first = mark(sequence).to_ne_bytes();
    bytes.chunks_exact(1024).all(|block| block.starts_with(&first) && block.get(8..) == FILLING.get(8..))
}

/// Whether `bytes` is some message, whole.
#[must_use]
#[inline]
pub fn is_whole(bytes: &Payload) -> bool {
    let (words, _) = bytes.as_chunks();
    let [first, others @ ..] = words else { return false };
    let first = u64::from_ne_bytes(*first);
    (1..)
        .zip(others)
        .fold(0, |wrong, (place, word)| wrong | (u64::from_ne_bytes(*word) ^ first.wrapping_add(place)))
        == 0
}

/// The trivial task of the pool: the square, modulo 2^64.
#[must_use]
pub fn square(number: u64) -> u64 {
    number.wrapping_mul(number)
}

/// Whether `results` are the squares of 0, 1, 2 ... in order, `count` of them.
#[must_use]
pub fn are_squares(results: &[u64], count: u32) -> bool {
    u32::try_from(results.len()) == Ok(count) && (0..).zip(results).all(|(n, &found)| found == square(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_right_for_its_own_number_only() {
        for sequence in [0, 1, 63, u64::MAX] {
            let message = make(sequence);
            assert!(is_right(&message, sequence) && is_whole(&message));
            assert!(!is_right(&message, sequence.wrapping_add(1)));
        }
    }

    #[test]
    fn every_byte_is_checked() {
        for place in 0..64 {
            let mut message = make(12_345);
            message[place] ^= 1;
            assert!(!is_right(&message, 12_345), "byte {place}");
            assert!(!is_whole(&message), "byte {place}");
        }
    }

    #[test]
    fn every_byte_of_a_large_message_is_checked() {
        let mut source = Source::<2048>::new();
        assert!(is_marked::<2048>(source.marked(9), 9) && !is_marked::<2048>(source.marked(9), 8));
        assert!(!is_marked::<2048>(&source.marked(9)[..1024], 9), "a part");
        for place in 0..2048 {
            let mut bytes = *source.marked(9);
            bytes[place] ^= 1;
            assert!(!is_marked::<2048>(&bytes, 9), "byte {place}");
        }
        assert_eq!(*Source::<64>::new().marked(5), make(5));
        assert!(is_marked::<8>(&of::<8>(5), 5) && !is_marked::<8>(&of::<8>(5), 6));
    }

    #[test]
    fn marks_tell_messages_apart() {
        assert_eq!(mark_of(&make(77)), Some(mark(77)));
        let mut torn = make(77);
        torn[63] ^= 1;
        assert_eq!(mark_of(&torn), None);
    }

    #[test]
    fn missing_and_misplaced_squares_are_found() {
        assert!(are_squares(&[0, 1, 4, 9], 4));
        assert!(!are_squares(&[0, 1, 4], 4));
        assert!(!are_squares(&[0, 4, 1, 9], 4));
    }
}
