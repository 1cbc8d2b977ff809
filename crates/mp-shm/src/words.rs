//! Values copied into and out of words that other processes may change at the same time.
//!
//! Owns: nothing. A value without padding is as many atomic accesses as it has words; a value of one word is therefore never torn, one of
//! several may be, and it is for the protocol around this to notice. Everything here is `Relaxed`; edges are the caller's. Many small elements at once
//! go by whole words ([`mp_sys::words`]), which tear none of them either.

#![expect(unsafe_code, reason = "values as bytes")]

use crate::ShmSafe;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// Words that a `T` takes.
pub(crate) const fn words_of<T>() -> usize {
    size_of::<T>().div_ceil(8)
}

/// Stores a value into the first words of `to`.
///
/// # Panics
/// If there are too few of them.
#[inline]
pub(crate) fn store<T: ShmSafe + Copy>(to: &[AtomicU64], value: &T) {
    const { assert!(!T::PADDED, "a type with padding between its fields cannot be copied by words") };
    let from = std::ptr::from_ref(value).cast::<u8>();
    for (at, word) in to[..words_of::<T>()].iter().enumerate() {
        let mut bytes = [0_u8; 8];
        let len = (size_of::<T>() - at * 8).min(8);
        // SAFETY: at * 8 + len <= size of T, so the address is inside of the value.
        let part = unsafe { from.add(at * 8) };
        // SAFETY: `len` bytes of the value are there; none is padding, as asserted above; len <= 8.
        unsafe { part.copy_to_nonoverlapping(bytes.as_mut_ptr(), len) };
        word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
    }
}

/// The value in the first words of `from`.
///
/// # Panics
/// If there are too few of them.
#[inline]
pub(crate) fn load<T: ShmSafe + Copy>(from: &[AtomicU64]) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    let to = value.as_mut_ptr().cast::<u8>();
    for (at, word) in from[..words_of::<T>()].iter().enumerate() {
        let bytes = word.load(Ordering::Relaxed).to_ne_bytes();
        let len = (size_of::<T>() - at * 8).min(8);
        // SAFETY: at * 8 + len <= size of T, so the address is inside of the value.
        let part = unsafe { to.add(at * 8) };
        // SAFETY: there is room for `len` bytes; len <= 8.
        unsafe { part.copy_from_nonoverlapping(bytes.as_ptr(), len) };
    }
    // SAFETY: all bytes were written, and every bit pattern is a `T: ShmSafe`.
    unsafe { value.assume_init() }
}

/// Bytes that one atomic access to an element of an array of `T` takes: 1, 2, 4 or 8.
pub(crate) const fn unit<T>() -> usize {
    let bytes = size_of::<T>();
    if bytes == 0 || bytes.is_multiple_of(8) { 8 } else { 1 << bytes.trailing_zeros() }
}

macro_rules! by_units {
    ($unit:expr, $each:ident) => {
        match $unit {
            1 => $each!(AtomicU8),
            2 => $each!(AtomicU16),
            4 => $each!(AtomicU32),
            _ => $each!(AtomicU64),
        }
    };
}

/// Copies as many of these bytes as there are whole words, if that is worth it: where an access is smaller than 4 bytes, and there are many. Gives how many bytes
/// it has copied.
///
/// # Safety
/// As [`mp_sys::words::copy`].
#[inline]
unsafe fn copy_many<T>(from: *const T, to: *mut T, bytes: usize) -> usize {
    if unit::<T>() >= 4 || bytes < 256 {
        return 0;
    }
    // SAFETY: as the caller vouches.
    8 * unsafe { mp_sys::words::copy(from.cast(), to.cast(), bytes / 8) }
}

/// Stores elements one after the other, one atomic access for each [`unit`], or as if it was so: see [`mp_sys::words`].
///
/// # Safety
/// So many `T`, aligned to their unit, are at `to`, in memory that is changed by such accesses only while this runs.
#[inline]
pub(crate) unsafe fn store_elements<T: ShmSafe + Copy>(to: NonNull<T>, values: &[T]) {
    const { assert!(!T::PADDED, "a type with padding between its fields cannot be copied by words") };
    let bytes = size_of_val(values);
    // SAFETY: so many bytes are at both places, and the values are this process's own; the caller vouches for the others.
    let copied = unsafe { copy_many(values.as_ptr(), to.as_ptr(), bytes) };
    macro_rules! each {
        ($atomic:ty) => {
            for at in copied / size_of::<$atomic>()..bytes / size_of::<$atomic>() {
                // SAFETY: inside of the values.
                let part = unsafe { values.as_ptr().cast::<$atomic>().add(at) };
                // SAFETY: as above; none of it is padding, an atomic has the bytes of its number, and this copy is ours alone.
                let mut part = unsafe { part.read_unaligned() };
                // SAFETY: inside of the elements.
                let place = unsafe { to.cast::<$atomic>().add(at) };
                // SAFETY: the caller vouches for memory and alignment.
                unsafe { place.as_ref() }.store(*part.get_mut(), Ordering::Relaxed);
            }
        };
    }
    by_units!(const { unit::<T>() }, each);
}

/// Loads elements one after the other, as [`store_elements`] stores them; all of `to` is written.
///
/// # Safety
/// As [`store_elements`].
#[inline]
pub(crate) unsafe fn load_elements<T: ShmSafe + Copy>(from: NonNull<T>, to: &mut [MaybeUninit<T>]) {
    let bytes = size_of_val(to);
    // SAFETY: so many bytes are at both places, and the target is this process's own; the caller vouches for the others.
    let copied = unsafe { copy_many(from.as_ptr(), to.as_mut_ptr().cast(), bytes) };
    macro_rules! each {
        ($atomic:ty) => {
            for at in copied / size_of::<$atomic>()..bytes / size_of::<$atomic>() {
                // SAFETY: inside of the elements.
                let place = unsafe { from.cast::<$atomic>().add(at) };
                // SAFETY: the caller vouches for memory and alignment.
                let part = unsafe { place.as_ref() }.load(Ordering::Relaxed);
                // SAFETY: inside of the target.
                let to = unsafe { to.as_mut_ptr().cast::<$atomic>().add(at) };
                // SAFETY: as above; an atomic has the bytes of its number.
                unsafe { to.write_unaligned(<$atomic>::new(part)) };
            }
        };
    }
    by_units!(const { unit::<T>() }, each);
}

/// [`store_elements`] of one.
///
/// # Safety
/// As there.
#[inline]
pub(crate) unsafe fn store_element<T: ShmSafe + Copy>(to: NonNull<T>, value: &T) {
    // SAFETY: as the caller vouches.
    unsafe { store_elements(to, std::slice::from_ref(value)) };
}

/// [`load_elements`] of one.
///
/// # Safety
/// As there.
#[inline]
pub(crate) unsafe fn load_element<T: ShmSafe + Copy>(from: NonNull<T>) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: as the caller vouches.
    unsafe { load_elements(from, std::slice::from_mut(&mut value)) };
    // SAFETY: all bytes were written, and every bit pattern is a `T: ShmSafe`.
    unsafe { value.assume_init() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_any_size_survive_their_words() {
        let words = [const { AtomicU64::new(u64::MAX) }; 4];
        store(&words, &[1_u8, 2, 3]);
        assert_eq!(load::<[u8; 3]>(&words), [1, 2, 3]);
        store(&words, &[1_u32, 2, 3, 4, 5]);
        assert_eq!(load::<[u32; 5]>(&words), [1, 2, 3, 4, 5]);
        assert_eq!(words[3].load(Ordering::Relaxed), u64::MAX, "not beyond its end");
    }

    #[test]
    fn elements_of_any_size_survive_their_units() {
        fn check<T: ShmSafe + Copy + PartialEq + std::fmt::Debug>(value: T, expected_unit: usize) {
            assert_eq!(unit::<T>(), expected_unit);
            let mut place = [0_u64; 8];
            let at = NonNull::from(&mut place).cast::<T>();
            // SAFETY: the place is large enough, aligned, and ours.
            unsafe { store_element(at, &value) };
            // SAFETY: as above.
            assert_eq!(unsafe { load_element(at) }, value);
        }
        check(7_u8, 1);
        check(-7_i16, 2);
        check(1.5_f32, 4);
        check(1.5_f64, 8);
        check([1_u8, 2, 3, 4], 4);
        check([1_u8, 2, 3], 1);
        check([1_u32, 2, 3], 4);
        check([1_u64, 2, 3], 8);
        check([1_u16; 12], 8);
    }

    #[test]
    fn many_elements_are_copied_whole_and_nothing_beside_them() {
        fn check<T: ShmSafe + Copy + PartialEq + std::fmt::Debug>(of: impl Fn(u8) -> T) {
            for len in [0, 1, 7, 63, 64, 65, 200, 511, 513, 1000] {
                let values: Vec<T> = (0..=254).map(|byte| of(byte + 1)).cycle().take(len).collect();
                let mut place = vec![of(0); len + 2];
                let at = NonNull::from(&mut place[1..]).cast::<T>();
                // SAFETY: the place is large enough, aligned, and ours.
                unsafe { store_elements(at, &values) };
                let mut loaded = vec![MaybeUninit::new(of(0)); len];
                // SAFETY: as above.
                unsafe { load_elements(at, &mut loaded) };
                // SAFETY: they were there before, and were overwritten.
                let loaded: Vec<T> = loaded.into_iter().map(|one| unsafe { one.assume_init() }).collect();
                assert_eq!(loaded, values);
                assert_eq!((place[0], &place[1..=len], place[len + 1]), (of(0), &values[..], of(0)));
            }
        }
        check(|byte| byte);
        check(|byte| u16::from(byte) << 8);
        check(f32::from);
        check(|byte| [byte; 3]);
        check(|byte| [u64::from(byte); 3]);
        check(|byte| [byte; 1000]);
    }
}
