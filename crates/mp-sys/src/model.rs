//! The mock kernel of the loom models: futexes, pending words, sentinels, and death at a chosen step.
//!
//! A model's thread that can die runs inside [`participant`]. [`crate::crash::point`] counts its steps; at the chosen one
//! the participant unwinds out of the protocol and the mock does what the kernel does for a dying thread: it marks the
//! sentinel, wakes one of its sleepers, and treats the pending word as `handle_futex_death` does.
//!
//! A [`Control`] takes one protection away, for negative controls: the shipped text stays as it is, the mock kernel is
//! the worse one.
//!
//! Waits never time out here, so a lost wake-up is a deadlock that loom reports.

use crate::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::deadline::Deadline;
use crate::futex::{Waited, Watch};
use crate::robust::{OWNER_DIED, TID_MASK, WAITERS};
use loom::sync::{Arc, Condvar, Mutex};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU8, Ordering as StdOrdering};

struct Sleeper {
    addresses: Vec<usize>,
    woken_by: Option<usize>,
    condvar: Arc<Condvar>,
    number: u64,
}

#[derive(Default)]
struct Kernel {
    sleepers: Vec<Sleeper>,
    next_number: u64,
}

loom::lazy_static! {
    static ref KERNEL: Mutex<Kernel> = Mutex::new(Kernel::default());
}

#[derive(Default)]
struct Me {
    tid: u32,
    pending_word: Option<*const AtomicU32>,
    /// What it holds, the oldest first.
    held: Vec<*const RobustWord>,
    steps_left: Option<usize>,
}

loom::thread_local! {
    static ME: RefCell<Me> = RefCell::new(Me::default());
}

struct Killed;

/// A protection that a negative control takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Control {
    /// Nothing is taken away.
    None = 0,
    /// `list_op_pending` has no effect.
    NoPending = 1,
    /// The halves of slot words are not watched.
    NoSlotWatch = 2,
    /// Words that are held are not in the list.
    NoLinks = 3,
}

static CONTROL: AtomicU8 = AtomicU8::new(0);

thread_local! {
    /// Bit `tid` is set when that participant died. Loom runs all threads of a model on the thread that called it.
    static DIED: Cell<u64> = const { Cell::new(0) };
}

/// Chooses the control for the models of this process. A negative control runs in a process of its own.
pub fn set_control(control: Control) {
    CONTROL.store(control as u8, StdOrdering::Relaxed);
}

fn control_is(control: Control) -> bool {
    CONTROL.load(StdOrdering::Relaxed) == control as u8
}

/// Whether participant `tid` died in any execution since the last call: `false` says that its step is beyond the last one.
pub fn died(tid: u32) -> bool {
    DIED.replace(DIED.get() & !(1 << tid)) & 1 << tid != 0
}

/// Runs `body` as a thread with id `tid` and, if given, a sentinel; it dies when it passes its `die_at`-th crash point
/// (from 0). Returns its value, or `None` if it died.
pub fn participant<T>(
    tid: u32,
    sentinel: Option<&AtomicU32>,
    die_at: Option<usize>,
    body: impl FnOnce() -> T,
) -> Option<T> {
    if let Some(sentinel) = sentinel {
        sentinel.store(tid | WAITERS, Ordering::Release);
    }
    ME.with(|me| *me.borrow_mut() = Me { tid, pending_word: None, held: Vec::new(), steps_left: die_at });
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => {
            ME.with(|me| me.borrow_mut().steps_left = None);
            Some(value)
        }
        Err(payload) if payload.is::<Killed>() => {
            DIED.set(DIED.get() | 1 << tid);
            exit(tid, sentinel);
            None
        }
        Err(payload) => resume_unwind(payload),
    }
}

/// What the kernel does for a thread that dies.
fn exit(tid: u32, sentinel: Option<&AtomicU32>) {
    if let Some(sentinel) = sentinel {
        sentinel.store(WAITERS | OWNER_DIED, Ordering::Release);
        wake(sentinel, 1);
    }
    let (held, pending) = ME.with(|me| {
        let mut me = me.borrow_mut();
        (std::mem::take(&mut me.held), me.pending_word.take())
    });
    // The list first, but for the pending word, then that one.
    for word in held.into_iter().rev() {
        // SAFETY: the word outlives the model's threads: models keep what they share in an `Arc` of the whole body.
        #[expect(unsafe_code, reason = "a pointer to a word of the model that is running")]
        let word = unsafe { &(*word).word };
        if pending.is_none_or(|pending| !std::ptr::eq(pending, word)) {
            handle_death(word, tid, false);
        }
    }
    if let Some(word) = pending {
        // SAFETY: as above.
        #[expect(unsafe_code, reason = "a pointer to a word of the model that is running")]
        let word = unsafe { &*word };
        handle_death(word, tid, true);
    }
}

/// A word that can be held; see `robust::RobustWord` of a normal build.
#[derive(Debug)]
pub struct RobustWord {
    /// The futex word.
    pub word: AtomicU32,
    /// Free for whoever owns the memory.
    pub tag: AtomicU32,
    /// As `tag`.
    pub extra: [AtomicU32; 4],
}

impl RobustWord {
    /// A word that is nobody's.
    #[must_use]
    pub fn new() -> Self {
        Self {
            word: AtomicU32::new(0),
            tag: AtomicU32::new(0),
            extra: std::array::from_fn(|_| AtomicU32::new(0)),
        }
    }
}

impl Default for RobustWord {
    fn default() -> Self {
        Self::new()
    }
}

/// See `robust::Current` of a normal build.
#[derive(Clone, Copy, Debug)]
pub struct Current<'a>(std::marker::PhantomData<&'a ()>);

/// See `robust::with` of a normal build.
pub fn with<R>(with: impl FnOnce(Current<'_>) -> R) -> R {
    with(Current(std::marker::PhantomData))
}

/// The calling participant, for a model that has no closure to be in.
#[must_use]
pub fn current() -> Current<'static> {
    Current(std::marker::PhantomData)
}

#[expect(unsafe_code, reason = "the promises of the normal build")]
impl Current<'_> {
    /// As [`tid`].
    #[must_use]
    pub fn tid(self) -> u32 {
        tid()
    }

    /// Participants are processes of one thread.
    #[must_use]
    pub fn pid(self) -> u32 {
        tid()
    }

    /// As [`set_pending`].
    ///
    /// # Safety
    /// As there.
    pub unsafe fn set_pending(self, word: &AtomicU32) {
        // SAFETY: as the caller promises.
        unsafe { set_pending(word) };
    }

    /// As [`clear_pending`].
    pub fn clear_pending(self) {
        clear_pending();
    }

    /// As [`hold`].
    ///
    /// # Errors
    /// None in a model.
    ///
    /// # Safety
    /// As there.
    pub unsafe fn hold(self, node: &RobustWord, most: usize) -> Result<(), crate::robust::HoldError> {
        // SAFETY: as the caller promises.
        unsafe { hold(node, most) }
    }

    /// As [`let_go`].
    pub fn let_go(self, node: &RobustWord) {
        let_go(node);
    }
}

/// See `robust::hold` of a normal build.
///
/// # Errors
/// None in a model.
///
/// # Safety
/// The word outlives the model's threads.
#[expect(unsafe_code, reason = "the promise of the normal build")]
pub unsafe fn hold(node: &RobustWord, _most: usize) -> Result<(), crate::robust::HoldError> {
    if !control_is(Control::NoLinks) {
        ME.with(|me| me.borrow_mut().held.push(std::ptr::from_ref(node)));
    }
    Ok(())
}

/// See `robust::let_go` of a normal build.
pub fn let_go(node: &RobustWord) {
    ME.with(|me| me.borrow_mut().held.retain(|held| !std::ptr::eq(*held, node)));
}

/// `handle_futex_death` for a word of the list, or the pending one.
fn handle_death(word: &AtomicU32, tid: u32, pending: bool) {
    loop {
        let value = word.load(Ordering::Acquire);
        if pending && value & TID_MASK == 0 {
            wake(word, 1);
            return;
        }
        if value & TID_MASK != tid {
            return;
        }
        let marked = (value & WAITERS) | OWNER_DIED;
        if word.compare_exchange(value, marked, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            if value & WAITERS != 0 {
                wake(word, 1);
            }
            return;
        }
    }
}

/// One step of the protocol; the participant may die here.
pub(crate) fn step() {
    let dies = ME.with(|me| {
        let mut me = me.borrow_mut();
        match &mut me.steps_left {
            None => false,
            Some(0) => {
                me.steps_left = None;
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
        }
    });
    if dies {
        resume_unwind(Box::new(Killed));
    }
}

/// The id of the calling participant.
pub fn tid() -> u32 {
    ME.with(|me| me.borrow().tid)
}

/// See `robust::set_pending` of a normal build.
///
/// # Safety
/// The word outlives the model's threads.
#[expect(unsafe_code, reason = "the promise of the normal build")]
pub unsafe fn set_pending(word: &AtomicU32) {
    if !control_is(Control::NoPending) {
        ME.with(|me| me.borrow_mut().pending_word = Some(std::ptr::from_ref(word)));
    }
}

/// See `robust::clear_pending` of a normal build.
pub fn clear_pending() {
    ME.with(|me| me.borrow_mut().pending_word = None);
}

fn low(word: &AtomicU64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
    let low = word.load(Ordering::Acquire) as u32;
    low
}

fn address<T>(word: &T) -> usize {
    std::ptr::from_ref(word) as usize
}

/// Compares exactly and sleeps, first come first served.
///
/// # Panics
/// If the mock's lock is poisoned: a model failed.
#[expect(clippy::unwrap_used, reason = "a poisoned mock means that the model has already failed")]
pub fn wait(watches: &[Watch<'_>], _deadline: Option<Deadline>) -> Waited {
    let mut kernel = KERNEL.lock().unwrap();
    let mut addresses = Vec::new();
    for watch in watches {
        let (equal, address) = match *watch {
            Watch::Word(word, expected) => (word.load(Ordering::Acquire) == expected, address(word)),
            Watch::Low(..) if control_is(Control::NoSlotWatch) => continue,
            Watch::Low(word, expected) => (low(word) == expected, address(word)),
        };
        if !equal {
            return Waited::Changed;
        }
        addresses.push(address);
    }
    let number = kernel.next_number;
    kernel.next_number += 1;
    let condvar = Arc::new(Condvar::new());
    kernel.sleepers.push(Sleeper { addresses, woken_by: None, condvar: condvar.clone(), number });
    loop {
        let at = kernel.sleepers.iter().position(|sleeper| sleeper.number == number).unwrap();
        if let Some(index) = kernel.sleepers[at].woken_by {
            kernel.sleepers.remove(at);
            return Waited::Woken(index);
        }
        kernel = condvar.wait(kernel).unwrap();
    }
}

/// Wakes at most `count` sleepers of `word`.
///
/// # Panics
/// If the mock's lock is poisoned: a model failed.
#[expect(clippy::unwrap_used, reason = "a poisoned mock means that the model has already failed")]
pub fn wake(word: &AtomicU32, count: u32) -> u32 {
    let address = address(word);
    let mut kernel = KERNEL.lock().unwrap();
    let mut woken = 0;
    for sleeper in &mut kernel.sleepers {
        if woken == count {
            break;
        }
        if sleeper.woken_by.is_none()
            && let Some(index) = sleeper.addresses.iter().position(|&one| one == address)
        {
            sleeper.woken_by = Some(index);
            sleeper.condvar.notify_one();
            woken += 1;
        }
    }
    woken
}
