//! Bare shared memory for the raw limits: a file of zeros that two or more processes map, and how they wait for a word in it.
#![expect(unsafe_code, reason = "maps memory that other processes share")]

use crate::Outcome;
use crate::second::Job;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use std::cell::UnsafeCell;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{hint, thread};

/// When the other process counts as gone.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What may lie in the memory.
///
/// # Safety
/// Every bit pattern is a value, and every byte is an atomic or inside an `UnsafeCell`.
pub(crate) unsafe trait Raw {}

/// An atomic number on cache lines of its own.
#[repr(C, align(128))]
pub(crate) struct Line<T>(pub(crate) T);

// SAFETY: an atomic number; the rest is padding.
unsafe impl Raw for Line<AtomicU32> {}
// SAFETY: as above.
unsafe impl Raw for Line<AtomicU64> {}
// SAFETY: an atomic number.
unsafe impl Raw for AtomicU64 {}

/// Room for a message, which one side at a time may use.
#[repr(C, align(64))]
pub(crate) struct Room<const SIZE: usize>(UnsafeCell<[u8; SIZE]>);

// SAFETY: its access functions are unsafe and leave it to their caller that sides take turns.
unsafe impl<const SIZE: usize> Sync for Room<SIZE> {}
// SAFETY: bytes in an `UnsafeCell`.
unsafe impl<const SIZE: usize> Raw for Room<SIZE> {}

impl<const SIZE: usize> Room<SIZE> {
    /// Writes a message.
    ///
    /// # Safety
    /// The caller's side owns the room: no other side reads or writes it now.
    #[inline]
    pub(crate) unsafe fn write(&self, message: &[u8; SIZE]) {
        let from = std::ptr::from_ref(message);
        // SAFETY: both are valid, `message` is private and therefore elsewhere, and by the caller's promise nobody else uses the target.
        unsafe { self.0.get().copy_from_nonoverlapping(from, 1) }
    }

    /// Lets `look` read the message where it is.
    ///
    /// # Safety
    /// As for [`write`](Self::write), until `look` returns.
    #[inline]
    pub(crate) unsafe fn read<R>(&self, look: impl FnOnce(&[u8; SIZE]) -> R) -> R {
        // SAFETY: valid, every bit pattern is a value, and by the caller's promise nobody writes it while `look` runs.
        look(unsafe { &*self.0.get() })
    }
}

/// A process's view of the memory.
pub(crate) struct Memory {
    start: NonNull<u8>,
    len: usize,
    file: File,
}

impl Memory {
    /// Makes `len` bytes of zeros and maps them.
    pub(crate) fn new(len: usize) -> Outcome<Self> {
        let file = File::from(memfd_create("raw-limit", MemfdFlags::CLOEXEC)?);
        file.set_len(u64::try_from(len)?)?;
        Self::map(file)
    }

    /// Maps what the first process handed on as the first descriptor.
    pub(crate) fn of(job: &Job) -> Outcome<Self> {
        Self::map(File::from(job.descriptor(0)?))
    }

    fn map(file: File) -> Outcome<Self> {
        let len = usize::try_from(file.metadata()?.len())?;
        let (access, kind) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: the kernel chooses a place that is free, so no memory in use is replaced.
        let address = unsafe { mmap(std::ptr::null_mut(), len, access, kind, &file, 0) }?;
        Ok(Self { start: NonNull::new(address.cast()).ok_or("mapped at address 0")?, len, file })
    }

    /// Touches all of it, as use of it before would have done.
    pub(crate) fn touched(self) -> Outcome<Self> {
        // SAFETY: this is the whole mapping made in `map`; the call changes no byte of it.
        unsafe { madvise(self.start.as_ptr().cast(), self.len, Advice::LinuxPopulateWrite) }?;
        Ok(self)
    }

    /// For [`Second::start`](crate::second::Second::start).
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// `count` of `T` from byte `offset` on.
    pub(crate) fn slice<T: Raw>(&self, offset: usize, count: usize) -> Outcome<&[T]> {
        let end = count.checked_mul(size_of::<T>()).and_then(|len| len.checked_add(offset));
        if end.is_none_or(|end| end > self.len) || !offset.is_multiple_of(align_of::<T>()) {
            return Err("outside of the memory".into());
        }
        // SAFETY: within the mapping, checked above.
        let first = unsafe { self.start.add(offset) }.cast::<T>();
        // SAFETY: the mapping is page-aligned and `offset` suits `T`, so it is aligned; the range lies in the mapping, which lives as
        // long as `self`; and by `Raw` what it holds is a value and changes only as `&T` allows.
        Ok(unsafe { std::slice::from_raw_parts(first.as_ptr(), count) })
    }

    /// The `T` at byte `offset`.
    pub(crate) fn at<T: Raw>(&self, offset: usize) -> Outcome<&T> {
        Ok(self.slice(offset, 1)?.first().ok_or("nothing there")?)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: this is the whole mapping made in `map`; all borrows of it ended with `self`.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Looks until `here` says yes; spins, then gives the CPU away.
#[inline]
pub(crate) fn wait_until(spins: u32, mut here: impl FnMut() -> bool) -> Outcome<()> {
    if here() { Ok(()) } else { wait_long(spins, here) }
}

#[cold]
fn wait_long(spins: u32, mut here: impl FnMut() -> bool) -> Outcome<()> {
    let mut deadline = None;
    loop {
        for _ in 0..=spins {
            if here() {
                return Ok(());
            }
            hint::spin_loop();
        }
        if Instant::now() > *deadline.get_or_insert_with(|| Instant::now() + PATIENCE) {
            return Err("the other process is stuck".into());
        }
        thread::yield_now();
    }
}

/// The value of `word`, once `free` says that it will do.
#[inline]
pub(crate) fn wait_for(word: &AtomicU64, spins: u32, free: impl Fn(u64) -> bool) -> Outcome<u64> {
    let mut value = 0;
    wait_until(spins, || {
        value = word.load(Ordering::Acquire);
        free(value)
    })?;
    Ok(value)
}
