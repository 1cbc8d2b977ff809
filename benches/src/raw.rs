//! The raw limits: a flag ping-pong and a ring for one producer and one consumer, in bare shared
//! memory. They do the least that two processes need to hand over 64 bytes: no recovery from
//! death, no encoding, no checks of the other side.
#![expect(unsafe_code, reason = "maps memory and reads and writes plain bytes that another process shares")]

use crate::Outcome;
use crate::payload::Payload;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::thread::futex;
use std::cell::UnsafeCell;
use std::fs::File;
use std::hint;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Slots of the ring.
pub const SLOTS: u64 = 1024;

/// When the other process counts as gone.
const PATIENCE: Duration = Duration::from_secs(20);

/// 64 bytes on a cache line of their own.
#[repr(C, align(64))]
struct Slot(UnsafeCell<Payload>);

// SAFETY: an access goes through `Mail` or the ring, which hand a slot from one side to the other by
// an atomic store (Release) and load (Acquire); see `put` and `take` there.
unsafe impl Sync for Slot {}

impl Slot {
    /// Writes the slot.
    ///
    /// # Safety
    /// The caller's side owns the slot: the other side neither reads nor writes it now.
    unsafe fn write(&self, message: &Payload) {
        // SAFETY: the pointer is valid and aligned, and by the caller's promise nobody else uses it.
        unsafe { self.0.get().write(*message) }
    }

    /// Reads the slot.
    ///
    /// # Safety
    /// As for `write`.
    unsafe fn read(&self) -> Payload {
        // SAFETY: the pointer is valid and aligned, every bit pattern is a value, and by the caller's
        // promise nobody writes it.
        unsafe { self.0.get().read() }
    }
}

/// An atomic number on a cache line of its own.
#[repr(C, align(128))]
struct Line<T>(T);

/// A mailbox for one message: one side puts, the other takes, and they take turns: a side puts again
/// only after the answer to its last message came. Both sides count the messages, from 0; the state is
/// twice the number of messages put, plus one while the taker sleeps, so an awake taker writes nothing.
#[repr(C, align(128))]
pub struct Mail {
    state: AtomicU32,
    slot: Slot,
}

impl Mail {
    /// Puts message number `turn` in and wakes the taker if it sleeps. Only the putting side may call
    /// this, only when the answer to its message before has come.
    ///
    /// # Errors
    /// When the kernel refuses to wake.
    pub fn put(&self, turn: u32, message: &Payload) -> Outcome<()> {
        // SAFETY: the taker is done with the message before, or it had not answered; it reads the slot
        // again only after it sees the state that is stored below.
        unsafe { self.slot.write(message) };
        if self.state.swap(2 * turn + 2, Ordering::AcqRel) % 2 == 1 {
            futex::wake(&self.state, futex::Flags::empty(), 1)?;
        }
        Ok(())
    }

    /// Takes message number `turn`; first looks `spins` times, then sleeps. Only the taking side may
    /// call this, once for each message.
    ///
    /// # Errors
    /// When none comes for long.
    pub fn take(&self, turn: u32, spins: u32) -> Outcome<Payload> {
        let full = (0..spins).any(|_| {
            let here = self.state.load(Ordering::Acquire) == 2 * turn + 2;
            if !here {
                hint::spin_loop();
            }
            here
        });
        if !full {
            self.sleep(turn)?;
        }
        // SAFETY: the state says that message `turn` is put and was loaded with Acquire, so the putter's
        // write is visible, and it writes again only after this side's answer.
        Ok(unsafe { self.slot.read() })
    }

    /// Sleeps until message number `turn` is in.
    fn sleep(&self, turn: u32) -> Outcome<()> {
        let limit = futex::Timespec::try_from(PATIENCE)?;
        let (none, asleep) = (2 * turn, 2 * turn + 1);
        loop {
            match self.state.compare_exchange(none, asleep, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {}
                Err(state) if state == asleep => {}
                Err(_) => return Ok(()),
            }
            match futex::wait(&self.state, futex::Flags::empty(), asleep, Some(&limit)) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(format!("the other process does not answer: {error}").into()),
            }
        }
    }
}

/// What both processes see. All zero is its first state.
#[repr(C)]
pub struct Shared {
    /// Operations before the clock, set before the second process starts; so are the next three.
    pub warm_up: AtomicU32,
    /// Operations that are timed.
    pub count: AtomicU32,
    /// How often to look before sleeping or giving the CPU away.
    pub spins: AtomicU32,
    /// The second process's CPU plus one; 0 for none.
    pub cpu: AtomicU32,
    /// Messages that the second process found right.
    pub right: AtomicU32,
    /// The time that the second process took, in nanoseconds.
    pub nanoseconds: AtomicU64,
    /// Messages to the second process.
    pub ping: Mail,
    /// Answers.
    pub pong: Mail,
    written: Line<AtomicU64>,
    read: Line<AtomicU64>,
    slots: [Slot; 1024],
}

/// One process's view of the memory that both share.
pub struct Mapping(NonNull<Shared>);

impl Mapping {
    /// Makes `file` large enough, which fills it with zeros if it is new, and maps it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new(file: &File) -> Outcome<Self> {
        file.set_len(u64::try_from(size_of::<Shared>())?)?;
        let (access, kind) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: the kernel chooses a place that is free, so no memory in use is replaced.
        let address = unsafe { mmap(std::ptr::null_mut(), size_of::<Shared>(), access, kind, file, 0) }?;
        Ok(Self(NonNull::new(address.cast()).ok_or("mapped at address 0")?))
    }
}

impl Deref for Mapping {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        // SAFETY: the mapping is page-aligned, as large as `Shared`, filled with zeros or with what the
        // same program wrote through this type, lives as long as `self`, and every field is an atomic
        // or inside an `UnsafeCell`.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the whole mapping made in `new`; all borrows of it ended with `self`.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), size_of::<Shared>()) };
    }
}

/// Looks at `word` until `free` says that its value will do; spins, then gives the CPU away.
fn wait_until(word: &AtomicU64, spins: u32, free: impl Fn(u64) -> bool) -> Outcome<u64> {
    let mut deadline = None;
    loop {
        for _ in 0..=spins {
            let value = word.load(Ordering::Acquire);
            if free(value) {
                return Ok(value);
            }
            hint::spin_loop();
        }
        if Instant::now() > *deadline.get_or_insert_with(|| Instant::now() + PATIENCE) {
            return Err("the other process is stuck".into());
        }
        thread::yield_now();
    }
}

/// The slot of message number `at`.
fn slot(shared: &Shared, at: u64) -> Outcome<&Slot> {
    Ok(shared.slots.get(usize::try_from(at % SLOTS)?).ok_or("no such slot")?)
}

/// The writing end of the ring; one in all processes.
pub struct Writer<'a> {
    shared: &'a Shared,
    written: u64,
    seen_read: u64,
    spins: u32,
}

impl<'a> Writer<'a> {
    /// Starts at the front of a new ring.
    pub fn new(shared: &'a Shared) -> Self {
        Self { shared, written: 0, seen_read: 0, spins: shared.spins.load(Ordering::Relaxed) }
    }

    /// Puts a message in, waiting while the ring is full.
    ///
    /// # Errors
    /// When nobody reads for long.
    pub fn put(&mut self, message: &Payload) -> Outcome<()> {
        let at = self.written;
        if at - self.seen_read == SLOTS {
            self.seen_read = wait_until(&self.shared.read.0, self.spins, |read| at - read < SLOTS)?;
        }
        // SAFETY: the reader is past the message that was here before (`seen_read` was loaded with
        // Acquire), and comes to this one only after the store below.
        unsafe { slot(self.shared, at)?.write(message) };
        self.written += 1;
        self.shared.written.0.store(self.written, Ordering::Release);
        Ok(())
    }
}

/// The reading end of the ring; one in all processes.
pub struct Reader<'a> {
    shared: &'a Shared,
    read: u64,
    seen_written: u64,
    spins: u32,
}

impl<'a> Reader<'a> {
    /// Starts at the front of a new ring.
    pub fn new(shared: &'a Shared) -> Self {
        Self { shared, read: 0, seen_written: 0, spins: shared.spins.load(Ordering::Relaxed) }
    }

    /// Takes the next message, waiting while there is none.
    ///
    /// # Errors
    /// When nobody writes for long.
    pub fn take(&mut self) -> Outcome<Payload> {
        let at = self.read;
        if at == self.seen_written {
            self.seen_written = wait_until(&self.shared.written.0, self.spins, |written| written != at)?;
        }
        // SAFETY: message `at` is written (`seen_written` was loaded with Acquire), and the writer
        // comes back to this slot only after the store below.
        let message = unsafe { slot(self.shared, at)?.read() };
        self.read += 1;
        self.shared.read.0.store(self.read, Ordering::Release);
        Ok(message)
    }
}
