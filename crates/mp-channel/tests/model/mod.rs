//! What the models of channels share: the tables of a session, rings of a few slots, participants, and a death at each step.
//!
//! Sleepers do not watch other processes' sentinels, unless a model says so: as with more processes than one wait can watch, the wake-up protocol
//! then stands on its own. Negative controls run in processes of their own, since loom cannot go on after a failed model.
#![allow(dead_code, unreachable_pub, reason = "each model uses its part")]
#![allow(
    unsafe_code,
    reason = "the promises of the pending words; loom's cells are accessed through pointers"
)]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use mp_channel::control::{Control, World};
use mp_channel::ring::Ring;
use mp_channel::stamp::{Shape, Slots, first_word};
use mp_shm::death::{self, Domain};
use mp_shm::lock::DomainLock;
use mp_sys::atomic::{AtomicU32, AtomicU64, Ordering};
use mp_sys::futex::Watch;
use mp_sys::model::{self, participant};
use mp_sys::robust::OWNER_DIED;

/// Most participants of a model, and one: 0 is nobody's number.
pub const PARTIES: usize = 5;

/// The tables of a session.
pub struct Tables {
    /// Those of the participants, by their numbers; none where a model does without.
    pub sentinels: Vec<AtomicU32>,
    pub lock: DomainLock,
    pub epoch: AtomicU32,
    pub members: AtomicU32,
}

impl Tables {
    /// For participants whose numbers are below `parties`.
    pub fn new(parties: usize) -> Self {
        Self {
            sentinels: (0..parties).map(|_| AtomicU32::new(0)).collect(),
            lock: DomainLock::new(),
            epoch: AtomicU32::new(0),
            members: AtomicU32::new(0),
        }
    }

    fn is_dead(&self, thread: u16) -> bool {
        self.sentinels[usize::from(thread)].load(Ordering::Acquire) & OWNER_DIED != 0
    }
}

/// What the participants of a model share.
pub trait Model: Sized + 'static {
    fn tables(&self) -> &Tables;

    /// Calls `watch` with the sentinels of all but `me`, if sleepers watch them; says whether one is dead.
    fn sentinels<'a>(&'a self, _me: u16, _watch: &mut dyn FnMut(&'a AtomicU32, u32) -> bool) -> bool {
        false
    }

    /// What a recovery does besides advancing the epoch, under the lock.
    fn sweep(&self, at: &At<'_, Self>, dead: &dyn Fn(u16) -> bool);

    fn ring_bells(&self, _bells: u64) {}

    fn senders(&self) -> u32 {
        1
    }

    fn receivers(&self) -> u32 {
        1
    }
}

/// What is shared, as the participant of this number sees it.
pub struct At<'a, M> {
    pub shared: &'a M,
    pub me: u16,
}

impl<M> Clone for At<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for At<'_, M> {}

impl<M> PartialEq for At<'_, M> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.shared, other.shared) && self.me == other.me
    }
}

impl<M: Model> Domain for At<'_, M> {
    fn epoch(&self) -> &AtomicU32 {
        &self.shared.tables().epoch
    }

    fn members(&self) -> &AtomicU32 {
        &self.shared.tables().members
    }

    fn sentinels<'a>(&'a self, watch: &mut dyn FnMut(&'a AtomicU32, u32) -> bool) -> bool {
        self.shared.sentinels(self.me, watch)
    }

    fn ring(&self, bells: u64) {
        self.shared.ring_bells(bells);
    }

    fn recover(&self) -> bool {
        let tables = self.shared.tables();
        // SAFETY: the model's threads share the tables by reference counts, and they outlive them.
        unsafe { tables.lock.lock() };
        self.shared.sweep(self, &|thread| tables.is_dead(thread));
        death::advance(&tables.epoch);
        tables.lock.unlock();
        true
    }
}

impl<M: Model> World for At<'_, M> {
    fn me(&self) -> u16 {
        self.me
    }

    fn sentinel(&self, thread: u16) -> Option<Watch<'_>> {
        let sentinel = self.shared.tables().sentinels.get(usize::from(thread))?;
        let word = sentinel.load(Ordering::Acquire);
        (word & OWNER_DIED == 0).then_some(Watch::Word(sentinel, word))
    }

    fn senders(&self) -> u32 {
        self.shared.senders()
    }

    fn receivers(&self) -> u32 {
        self.shared.receivers()
    }
}

/// One ring, lane or bus, with messages of type `T` beside its words.
pub struct Part<T> {
    pub control: Control,
    words: Vec<AtomicU64>,
    pub messages: Vec<T>,
    pub shape: Shape,
}

impl<T> Slots for Part<T> {
    fn word(&self, index: u32) -> &AtomicU64 {
        &self.words[index as usize]
    }
}

impl<T> Part<T> {
    pub fn new(capacity: u32, message: impl Fn() -> T) -> Self {
        let shape = Shape::new(capacity).unwrap();
        // Just below the wrap, so that the models cross it.
        let start = shape.start_before_wrap(1);
        Self {
            control: Control::new(start),
            words: (0..capacity).map(|index| AtomicU64::new(first_word(start, index))).collect(),
            messages: (0..capacity).map(|_| message()).collect(),
            shape,
        }
    }

    /// It as a ring that does not grow.
    pub fn ring<'a, M: Model>(&'a self, at: &'a At<'a, M>) -> Ring<'a, Self, At<'a, M>> {
        Ring {
            control: &self.control,
            hints: &self.control,
            grows: false,
            slots: self,
            shape: self.shape,
            world: at,
            thread: model::current(),
            interrupt: None,
            senders_woken: 1,
        }
    }
}

/// Messages that one side has at a time; loom checks that writer and reader of a slot are ordered.
pub type Cells = Part<UnsafeCell<u32>>;

impl Cells {
    pub fn of_cells(capacity: u32) -> Self {
        Self::new(capacity, || UnsafeCell::new(0))
    }

    /// Writes into a slot that is the caller's.
    pub fn put(&self, index: u32, message: u32) {
        // SAFETY: the slot is claimed; loom checks that.
        self.messages[index as usize].with_mut(|place| unsafe { *place = message });
    }

    /// Takes what is in a slot that is the caller's.
    pub fn take(&self, index: u32) -> u32 {
        // SAFETY: the slot is claimed; loom checks that.
        self.messages[index as usize].with_mut(|place| unsafe { *place })
    }
}

/// The last holder of an end leaves, as the last drop of a reference does it.
pub fn close<M: Model>(at: &At<'_, M>, holders: &AtomicU32, control: &Control) {
    holders.store(0, Ordering::Release);
    control.close(at);
}

/// Loom with at most so many preemptions, if the environment does not say otherwise.
pub fn builder(preemption_bound: usize) -> loom::model::Builder {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemption_bound));
    builder.max_branches = 50_000;
    builder
}

/// Runs `model` in every order of events.
pub fn check(model: impl Fn() + Send + Sync + 'static) {
    builder(2).check(model);
}

/// Runs `body` as participant `me` on the calling thread.
pub fn take_part<M: Model, T>(
    shared: &M,
    me: u16,
    die_at: Option<usize>,
    body: impl FnOnce(&M) -> T,
) -> Option<T> {
    let sentinel = shared.tables().sentinels.get(usize::from(me));
    participant(me.into(), sentinel, die_at, || body(shared))
}

/// Runs `body` as participant `me`. All have threads of their own: what the model's first thread does before it waits for the rest is not
/// interleaved with them in full.
pub fn party<M: Model, T: 'static>(
    shared: &Arc<M>,
    me: u16,
    die_at: Option<usize>,
    body: impl FnOnce(&M) -> T + 'static,
) -> thread::JoinHandle<Option<T>> {
    let shared = shared.clone();
    thread::spawn(move || take_part(&*shared, me, die_at, body))
}

/// Runs the model with a death of participant 1 at step 0, 1, 2, … until the step is beyond the last; says how many there were.
pub fn at_every_step(model: impl Fn(Option<usize>)) -> usize {
    for step in 0.. {
        model(Some(step));
        if !model::died(1) {
            return step;
        }
    }
    unreachable!()
}

/// What the ignored test of this name prints when it fails, in a process of its own; `None` if it passes.
fn failure(name: &str) -> Option<String> {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--test-threads=1"])
        .output()
        .unwrap();
    let report =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(report.contains("running 1 test"), "there is a test of this name");
    (!output.status.success()).then_some(report)
}

/// Whether the ignored test of this name fails.
pub fn fails(name: &str) -> bool {
    failure(name).is_some()
}

/// Whether it fails since all sleep.
pub fn deadlocks(name: &str) -> bool {
    failure(name).is_some_and(|report| report.contains("deadlock"))
}
