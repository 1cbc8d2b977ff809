//! Messages that can be checked: 64 bytes made from a sequence number, and the square task.
//!
//! The library and the raw limits make and check messages with the same code, so that its cost is
//! the same on both sides.

/// A message of 64 bytes.
pub type Payload = [u8; 64];

/// The word that stands at `place` in message number `sequence`.
const fn word(sequence: u64, place: u64) -> u64 {
    sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(place)
}

/// Message number `sequence`: all 64 bytes depend on it.
#[must_use]
pub fn make(sequence: u64) -> Payload {
    let mut bytes = [0; 64];
    for (place, part) in (0..).zip(bytes.chunks_exact_mut(8)) {
        part.copy_from_slice(&word(sequence, place).to_ne_bytes());
    }
    bytes
}

/// Whether `bytes` is message number `sequence`, whole.
#[must_use]
pub fn is_right(bytes: &Payload, sequence: u64) -> bool {
    *bytes == make(sequence)
}

/// Whether `bytes` is some message, whole.
#[must_use]
pub fn is_whole(bytes: &Payload) -> bool {
    let words =
        bytes.chunks_exact(8).map(|part| part.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte)));
    let first = u64::from_ne_bytes(bytes.first_chunk().copied().unwrap_or_default());
    cfg!(target_endian = "big") || (0..).zip(words).all(|(place, word)| word == first.wrapping_add(place))
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
    fn missing_and_misplaced_squares_are_found() {
        assert!(are_squares(&[0, 1, 4, 9], 4));
        assert!(!are_squares(&[0, 1, 4], 4));
        assert!(!are_squares(&[0, 4, 1, 9], 4));
    }
}
