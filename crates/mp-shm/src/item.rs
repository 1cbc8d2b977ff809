//! What a slot of a [`List`](crate::list::List) holds: [`Item`], and how it lies in words.
//!
//! ```text
//! word 0    length in bytes:32 | tag:32      tags: 0 none, 1 bool, 2 int, 3 float, 4 string, 5 bytes
//! word 1..  the value's bits, or the bytes, zero behind them
//! ```
//!
//! Who reads may be given words of two items (the [ring](crate::stamped) finds out afterwards), so reading fails on nothing and trusts no length.

use std::sync::atomic::{AtomicU64, Ordering};

/// A value in a slot of a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Item {
    /// Nothing.
    #[default]
    None,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// Text; its UTF-8 has at most the list's capacity in bytes.
    Str(String),
    /// Bytes, at most the list's capacity.
    Bytes(Vec<u8>),
}

macro_rules! from {
    ($($type:ty => $variant:ident),* $(,)?) => {$(
        impl From<$type> for Item {
            fn from(value: $type) -> Self {
                Self::$variant(value.into())
            }
        }
    )*};
}

from!(bool => Bool, i64 => Int, i32 => Int, u32 => Int, f64 => Float, &str => Str, String => Str, &[u8] => Bytes, Vec<u8> => Bytes);

/// Words of an item whose string or bytes have at most `capacity` bytes.
pub(crate) fn words_of(capacity: usize) -> Option<usize> {
    capacity.div_ceil(8).max(1).checked_add(1)
}

impl Item {
    fn parts(&self) -> (u64, &[u8]) {
        match self {
            Self::None => (0, &[]),
            Self::Bool(_) => (1, &[]),
            Self::Int(_) => (2, &[]),
            Self::Float(_) => (3, &[]),
            Self::Str(text) => (4, text.as_bytes()),
            Self::Bytes(bytes) => (5, bytes),
        }
    }

    /// Bytes of the string, or of the bytes; 0 for all others.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.parts().1.len()
    }

    /// Stores the item; the caller has made sure that it fits.
    pub(crate) fn store(&self, words: &[AtomicU64]) {
        let (tag, bytes) = self.parts();
        let Some((head, rest)) = words.split_first() else { return };
        head.store((bytes.len() as u64) << 32 | tag, Ordering::Relaxed);
        mp_sys::crash::point("list.item_head");
        let bits = match *self {
            Self::Bool(value) => value.into(),
            Self::Int(value) => value.cast_unsigned(),
            Self::Float(value) => value.to_bits(),
            _ => 0,
        };
        if bytes.is_empty()
            && let Some(word) = rest.first()
        {
            word.store(bits, Ordering::Relaxed);
        }
        for (word, chunk) in rest.iter().zip(bytes.chunks(8)) {
            let mut whole = [0; 8];
            whole[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_ne_bytes(whole), Ordering::Relaxed);
            mp_sys::crash::point("list.item_word");
        }
    }

    /// The item in `words`; something, if they are of several.
    pub(crate) fn load(words: &[AtomicU64]) -> Self {
        let Some((head, rest)) = words.split_first() else { return Self::None };
        let head = head.load(Ordering::Relaxed);
        let bits = || rest.first().map_or(0, |word| word.load(Ordering::Relaxed));
        let bytes = || {
            let len = usize::try_from(head >> 32).unwrap_or(0).min(rest.len() * 8);
            let words = rest.iter().take(len.div_ceil(8));
            let mut bytes: Vec<u8> =
                words.flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect();
            bytes.truncate(len);
            bytes
        };
        match head & u64::from(u32::MAX) {
            1 => Self::Bool(bits() != 0),
            2 => Self::Int(bits().cast_signed()),
            3 => Self::Float(f64::from_bits(bits())),
            4 => String::from_utf8(bytes()).map_or(Self::None, Self::Str),
            5 => Self::Bytes(bytes()),
            _ => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_survive_their_words() {
        let words = [const { AtomicU64::new(u64::MAX) }; 4];
        let items = [
            Item::None,
            true.into(),
            i64::MIN.into(),
            (-0.0).into(),
            "".into(),
            "säx".into(),
            "twenty-four bytes of it.".into(),
            vec![0_u8; 17].into(),
        ];
        for item in items {
            item.store(&words);
            assert_eq!(Item::load(&words), item);
        }
    }

    #[test]
    fn words_of_no_item_are_read_without_harm() {
        for head in [u64::MAX, u64::MAX << 32 | 4, u64::MAX << 32 | 5, 99] {
            let words = [AtomicU64::new(head), AtomicU64::new(u64::MAX)];
            assert!(Item::load(&words).len_bytes() <= 8);
        }
    }
}
