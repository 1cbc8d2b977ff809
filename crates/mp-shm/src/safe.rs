//! What may lie in memory that processes share: the marker [`ShmSafe`] and the layout hash behind it.

#![expect(unsafe_code, reason = "the marker that typed access to shared memory rests on")]

use crate::lock::DomainLock;
pub use mp_sys::robust::RobustWord;
use std::sync::atomic::{
    AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64,
};

/// Memory that may be shared between processes, also between programs that were built apart.
///
/// Derive it: `#[derive(ShmSafe)] #[repr(C)] struct …`. Numbers, atomics, arrays, and the primitives of `mp-sync` have it. Types
/// with pointers, with a `Drop`, or for which some bit pattern is no value (`bool`, `char`, references, most enums) do not.
///
/// All bytes zero is the state in which memory is first found; a type's zero should mean that nothing has happened yet.
///
/// # Safety
/// * The layout is fixed: `repr(C)`, `repr(transparent)`, or a primitive.
/// * Every bit pattern is a value; no pointers, nothing to drop.
/// * It is changed through atomics, or under a lock, or not at all while it is shared.
/// * [`robust_words`](Self::robust_words) visits all robust words in it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot lie in shared memory",
    label = "not `ShmSafe`",
    note = "derive `ShmSafe` on a #[repr(C)] struct of numbers, atomics, arrays and locks; pointers, `bool`, `char` and types with `Drop` cannot be shared"
)]
pub unsafe trait ShmSafe: Sync + 'static {
    /// A hash of name, size, alignment and fields: who attaches with another one is refused.
    const LAYOUT: u64;
    /// Whether there are bytes in it that belong to no field.
    const PADDED: bool;

    /// Calls `visit` with every robust word in it; words that a thread has linked must stay where they are until it has ended.
    fn robust_words(&self, visit: &mut dyn FnMut(&RobustWord)) {
        let _ = visit;
    }
}

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The beginning of a layout hash. FNV-1a, after Fowler, Noll and Vo.
#[must_use]
pub const fn layout(name: &str, size_bytes: usize, align: usize) -> u64 {
    let mut hash = FNV_BASIS;
    let bytes = name.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        hash = mix(hash, bytes[at] as u64);
        at += 1;
    }
    mix(mix(hash, size_bytes as u64), align as u64)
}

/// A layout hash with one more part.
#[must_use]
pub const fn mix(hash: u64, part: u64) -> u64 {
    // The shift lets high bits of the part reach low bits of the hash, which a bytewise FNV does by its steps.
    let mixed = (hash ^ part).wrapping_mul(FNV_PRIME);
    mixed ^ (mixed >> 32)
}

/// The half of a layout hash that block headers have room for.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "both halves are folded into the low one")]
pub(crate) const fn short(hash: u64) -> u32 {
    (hash ^ (hash >> 32)) as u32
}

macro_rules! plain {
    ($($type:ty),* $(,)?) => {$(
        // SAFETY: a number, or an atomic one: fixed layout, any bit pattern is a value, no pointer, no drop.
        unsafe impl ShmSafe for $type {
            const LAYOUT: u64 = layout(stringify!($type), size_of::<$type>(), align_of::<$type>());
            const PADDED: bool = false;
        }
    )*};
}

plain!(u8, u16, u32, u64, u128, i8, i16, i32, i64, i128, f32, f64, ());
plain!(AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64);
plain!(DomainLock);

// SAFETY: `repr(C)`, its words are atomic or for the kernel alone; it visits itself.
unsafe impl ShmSafe for RobustWord {
    const LAYOUT: u64 = layout("RobustWord", size_of::<Self>(), align_of::<Self>());
    const PADDED: bool = true;

    fn robust_words(&self, visit: &mut dyn FnMut(&RobustWord)) {
        visit(self);
    }
}

// SAFETY: as its elements, one after the other.
unsafe impl<T: ShmSafe, const N: usize> ShmSafe for [T; N] {
    const LAYOUT: u64 = mix(layout("[]", size_of::<Self>(), align_of::<Self>()), T::LAYOUT);
    const PADDED: bool = T::PADDED;

    fn robust_words(&self, visit: &mut dyn FnMut(&RobustWord)) {
        for element in self {
            element.robust_words(visit);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ShmSafe;
    use mp_sys::robust::RobustWord;

    #[derive(ShmSafe)]
    #[repr(C)]
    struct Point {
        x: f64,
        y: f64,
    }

    #[derive(ShmSafe)]
    #[repr(C)]
    struct Holey {
        small: u8,
        large: u64,
    }

    mod other {
        use crate::ShmSafe;

        #[derive(ShmSafe)]
        #[repr(C)]
        pub(super) struct Point {
            pub(super) x: f64,
            pub(super) y: f32,
            pub(super) z: f32,
        }
    }

    #[test]
    fn the_layout_hash_tells_types_apart() {
        let hashes = [
            Point::LAYOUT,
            other::Point::LAYOUT,
            Holey::LAYOUT,
            u64::LAYOUT,
            i64::LAYOUT,
            <[u64; 2]>::LAYOUT,
            <[u64; 3]>::LAYOUT,
            <[Point; 2]>::LAYOUT,
        ];
        for (at, hash) in hashes.iter().enumerate() {
            assert!(!hashes[at + 1..].contains(hash), "{at} is like another");
        }
    }

    #[test]
    fn padding_is_known() {
        let padded = [Point::PADDED, Holey::PADDED, <[Holey; 2]>::PADDED];
        assert_eq!(padded, [false, true, true]);
        let _ = (Point { x: 1.0, y: 2.0 }.x, Holey { small: 1, large: 2 }.large);
        let _ = other::Point { x: 1.0, y: 2.0, z: 3.0 }.x;
    }

    #[test]
    fn robust_words_are_found_at_any_depth() {
        #[derive(ShmSafe)]
        #[repr(C)]
        struct Deep {
            number: u64,
            words: [RobustWord; 3],
        }
        let deep = Deep { number: 1, words: [const { RobustWord::new() }; 3] };
        let mut count = deep.number - 1;
        deep.robust_words(&mut |_| count += 1);
        assert_eq!(count, 3);
    }
}
