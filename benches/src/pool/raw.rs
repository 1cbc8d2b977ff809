//! The raw limit of pools: two workers that take ranges of tasks from one index in bare shared memory, and write results where they belong.
//! It does the least that this needs: no recovery from death, no encoding, no function to be named, no checks of the other side.
//! All memory is touched before the clock starts, since a pool can use memory again.
//!
//! ```text
//! run | next | total | done | what the tasks need
//!
//!   event               who      what changes
//!   a run begins        parent   next = 0, total; then run + 1, and all workers are woken
//!   a range is taken    worker   next + the range's length; one that begins at `total` or behind it is none
//!   no range is left    worker   done + 1, and the parent is woken
//!   a run has ended     parent   done is a multiple of the number of workers
//! ```
//!
//! Numbers: inputs and results are words, in two arrays. Large results stay where the worker writes them (*in place*), or go through a few rooms
//! out of which the parent copies them (*copy-out*), in the order of the tasks:
//!
//! ```text
//!   stamp of room i    event                     to          who
//!   n                  result n is written       n + 1       worker that took task n
//!   n + 1              result n is copied out    n + rooms   parent
//! ```
//!
//! Stamps begin with zero in each run: what is stored is the stamp of the table less the room's place.
#![expect(unsafe_code, reason = "hands plain bytes from one process to another")]

use super::contest::{RESULT, WORKERS, result, spin, time_results, with_result};
use crate::channels::Role;
use crate::measure::{Plan, timed};
use crate::memory::{Line, Memory, PATIENCE, Room};
use crate::second::{Found, Job, Second};
use crate::{Outcome, payload};
use rustix::io::Errno;
use rustix::thread::futex;
use std::hint;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

pub(super) const ROLES: &[Role] = &[
    ("pool/squares", |job| numbers(job, RANGE, payload::square)),
    ("pool/squares_single", |job| numbers(job, 1, payload::square)),
    ("pool/spin", |job| numbers(job, 1, spin)),
    ("pool/results_in_place", results_in_place_role),
    ("pool/results", results_role),
];

/// Trivial tasks that are taken at once.
const RANGE: u64 = 4096;

/// Runs of a repetition: the warm-up, and the one that is timed.
const RUNS: u32 = 2;

/// How often to look before sleeping.
const SPINS: u32 = 2000;

/// Rooms for results that are copied out.
const ROOMS: usize = 8;

/// Where the words of [`Control`] lie; `run` lies at 0.
const NEXT: usize = 128;
const TOTAL: usize = 256;
const DONE: usize = 384;
/// Where what the tasks need begins.
const TASKS: usize = 512;

/// A process's view of what workers and parent tell each other; the table is in the head.
struct Control<'a> {
    run: &'a Line<AtomicU32>,
    next: &'a Line<AtomicU64>,
    total: &'a Line<AtomicU64>,
    done: &'a Line<AtomicU32>,
}

/// Waits until `here` says yes to the word: looks for a while, then sleeps.
fn wait(word: &AtomicU32, here: impl Fn(u32) -> bool) -> Outcome<()> {
    let limit = futex::Timespec::try_from(PATIENCE)?;
    for _ in 0..SPINS {
        if here(word.load(Ordering::Acquire)) {
            return Ok(());
        }
        hint::spin_loop();
    }
    loop {
        let value = word.load(Ordering::Acquire);
        if here(value) {
            return Ok(());
        }
        match futex::wait(word, futex::Flags::empty(), value, Some(&limit)) {
            Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(format!("the other process does not answer: {error}").into()),
        }
    }
}

/// Adds to a word and wakes all who sleep on it.
fn advance(word: &AtomicU32, by: u32) -> Outcome<()> {
    // RUN, DONE, STAMP: Release, pairs with Acquire in `wait`. What the others have released before stays visible.
    word.fetch_add(by, Ordering::AcqRel);
    futex::wake(word, futex::Flags::empty(), WORKERS + 1)?;
    Ok(())
}

impl<'a> Control<'a> {
    fn new(memory: &'a Memory) -> Outcome<Self> {
        let (run, next) = (memory.at(0)?, memory.at(NEXT)?);
        Ok(Self { run, next, total: memory.at(TOTAL)?, done: memory.at(DONE)? })
    }

    /// The parent: begins a run of `total` tasks.
    fn begin(&self, total: u64) -> Outcome<()> {
        // No worker looks at these before it sees the run.
        self.next.0.store(0, Ordering::Relaxed);
        self.total.0.store(total, Ordering::Relaxed);
        advance(&self.run.0, 1)
    }

    /// The parent: waits until the run has ended. Then no worker touches a task until the next run begins.
    fn end(&self) -> Outcome<()> {
        let ended = self.run.0.load(Ordering::Relaxed) * WORKERS;
        wait(&self.done.0, |done| done == ended)
    }

    /// A worker: does ranges of tasks in all runs.
    fn work(&self, range: u64, mut task: impl FnMut(Range<u64>) -> Outcome<()>) -> Outcome<()> {
        for number in 1..=RUNS {
            wait(&self.run.0, |run| run >= number)?;
            let total = self.total.0.load(Ordering::Relaxed);
            loop {
                let start = self.next.0.fetch_add(range, Ordering::Relaxed);
                if start >= total {
                    break;
                }
                task(start..total.min(start + range))?;
            }
            advance(&self.done.0, 1)?;
        }
        Ok(())
    }
}

/// What a worker tells when it has done its part of the tasks; whether all are right the parent sees.
fn worked(job: &Job) -> Found {
    Found { right: job.total, ..Found::default() }
}

/// Starts the workers, which do `role`.
fn start(role: &str, plan: &Plan, memory: &Memory) -> Outcome<Vec<Second>> {
    let one = |number| Second::start(Job { number, ..Job::anywhere(role, 8, plan) }, &[memory.descriptor()]);
    let mut workers = (0..WORKERS).map(one).collect::<Outcome<Vec<_>>>()?;
    workers.iter_mut().try_for_each(Second::meet)?;
    Ok(workers)
}

/// Waits for the ends of the workers.
fn join(workers: Vec<Second>) -> Outcome<()> {
    workers.into_iter().try_for_each(|worker| worker.join().map(drop))
}

/// Where the inputs and the results of `count` tasks with numbers are.
fn words(memory: &Memory, count: u32) -> Outcome<[&[AtomicU64]; 2]> {
    let count = usize::try_from(count)?;
    Ok([memory.slice(TASKS, count)?, memory.slice(TASKS + count * 8, count)?])
}

/// The places of a range.
fn places(range: Range<u64>) -> Outcome<Range<usize>> {
    Ok(usize::try_from(range.start)?..usize::try_from(range.end)?)
}

/// A worker whose tasks have numbers as inputs and results.
fn numbers(job: &Job, range: u64, task: impl Fn(u64) -> u64) -> Outcome<Found> {
    let memory = Memory::of(job)?.touched()?;
    let (control, [inputs, results]) = (Control::new(&memory)?, words(&memory, job.total)?);
    job.meet()?;
    control.work(range, |range| {
        let range = places(range)?;
        let (inputs, results) = (inputs.get(range.clone()), results.get(range));
        for (input, result) in inputs.into_iter().flatten().zip(results.into_iter().flatten()) {
            result.store(task(input.load(Ordering::Relaxed)), Ordering::Relaxed);
        }
        Ok(())
    })?;
    Ok(worked(job))
}

/// Times tasks with numbers, from inputs in the memory to results there.
fn time_numbers(role: &str, plan: &Plan) -> Outcome<Duration> {
    let memory = Memory::new(TASKS + 16 * usize::try_from(plan.total())?)?.touched()?;
    let (control, [inputs, results]) = (Control::new(&memory)?, words(&memory, plan.total())?);
    for (number, input) in (0..).zip(inputs) {
        input.store(number, Ordering::Relaxed);
    }
    let workers = start(role, plan, &memory)?;
    let run = |count: u32| {
        control.begin(count.into())?;
        control.end()
    };
    run(plan.warm_up)?;
    // They would be right a second time.
    results.iter().take(usize::try_from(plan.warm_up)?).for_each(|result| result.store(0, Ordering::Relaxed));
    let ((), time) = timed(|| run(plan.count))?;
    join(workers)?;
    let all = results.iter().take(usize::try_from(plan.count)?).map(|result| result.load(Ordering::Relaxed));
    if payload::are_squares(&all.collect::<Vec<_>>(), plan.count) {
        Ok(time)
    } else {
        Err("wrong results".into())
    }
}

/// Trivial tasks, a range at a time.
///
/// # Errors
/// When a worker fails, or a result is wrong; so do all here.
pub fn trivial(plan: &Plan) -> Outcome<Duration> {
    time_numbers("pool/squares", plan)
}

/// Trivial tasks, taken one by one.
///
/// # Errors
/// As [`trivial`].
pub fn single(plan: &Plan) -> Outcome<Duration> {
    time_numbers("pool/squares_single", plan)
}

/// Tasks of some length, taken one by one.
///
/// # Errors
/// As [`trivial`].
pub fn long(plan: &Plan) -> Outcome<Duration> {
    time_numbers("pool/spin", plan)
}

/// Where large results stay, one for each task.
fn rooms_in_place(memory: &Memory, count: u32) -> Outcome<&[Room<RESULT>]> {
    memory.slice(TASKS, usize::try_from(count)?)
}

fn results_in_place_role(job: &Job) -> Outcome<Found> {
    let memory = Memory::of(job)?.touched()?;
    let (control, rooms) = (Control::new(&memory)?, rooms_in_place(&memory, job.total)?);
    job.meet()?;
    control.work(1, |range| {
        for (number, room) in range.clone().zip(rooms.get(places(range)?).into_iter().flatten()) {
            // SAFETY: this worker alone has the task (it moved `next`), and the parent reads results when the run has ended (edge DONE).
            with_result(number, |bytes| unsafe { room.write(bytes) });
        }
        Ok(())
    })?;
    Ok(worked(job))
}

/// Tasks with large results, which stay where the workers write them.
///
/// # Errors
/// As [`trivial`].
pub fn results_in_place(plan: &Plan) -> Outcome<Duration> {
    let memory = Memory::new(TASKS + RESULT * usize::try_from(plan.total())?)?.touched()?;
    let (control, rooms) = (Control::new(&memory)?, rooms_in_place(&memory, plan.total())?);
    let workers = start("pool/results_in_place", plan, &memory)?;
    let run = |count: u32| {
        control.begin(count.into())?;
        control.end()
    };
    run(plan.warm_up)?;
    for room in rooms.iter().take(usize::try_from(plan.warm_up)?) {
        // They would be right a second time.
        // SAFETY: no run is under way, so no worker touches a room.
        with_result(u64::MAX, |bytes| unsafe { room.write(bytes) });
    }
    let ((), time) = timed(|| run(plan.count))?;
    join(workers)?;
    let right = (0..u64::from(plan.count)).zip(rooms).all(|(number, room)| {
        // SAFETY: the workers have ended.
        unsafe { room.read(|bytes| payload::is_marked::<RESULT>(bytes, number)) }
    });
    if right { Ok(time) } else { Err("wrong results".into()) }
}

/// The rooms that results are copied out of, with their stamps; the table is in the head.
struct Desk<'a> {
    stamps: &'a [Line<AtomicU32>],
    rooms: &'a [Room<RESULT>],
}

impl<'a> Desk<'a> {
    const STAMPS_BYTES: usize = ROOMS * size_of::<Line<AtomicU32>>();
    const BYTES: usize = Self::STAMPS_BYTES + ROOMS * RESULT;

    fn new(memory: &'a Memory) -> Outcome<Self> {
        Ok(Self {
            stamps: memory.slice(TASKS, ROOMS)?,
            rooms: memory.slice(TASKS + Self::STAMPS_BYTES, ROOMS)?,
        })
    }

    /// The stamp and the room of task `number`, and the stored stamp of the free room.
    fn of(&self, number: u64) -> Outcome<(&'a AtomicU32, &'a Room<RESULT>, u32)> {
        let number = u32::try_from(number)?;
        let place = usize::try_from(number)? % ROOMS;
        let (Some(stamp), Some(room)) = (self.stamps.get(place), self.rooms.get(place)) else {
            return Err("no such room".into());
        };
        Ok((&stamp.0, room, number - u32::try_from(place)?))
    }

    /// Between two runs: all rooms are free.
    fn clear(&self) {
        self.stamps.iter().for_each(|stamp| stamp.0.store(0, Ordering::Relaxed));
    }

    /// A worker: puts the result of a task that it has taken.
    fn put(&self, number: u64, bytes: &[u8; RESULT]) -> Outcome<()> {
        let (stamp, room, free) = self.of(number)?;
        wait(stamp, |stamp| stamp == free)?;
        // SAFETY: this worker alone has the task (it moved `next`), the parent has copied out what was here before (edge STAMP), and comes
        // back only after it sees the stamp that follows.
        unsafe { room.write(bytes) };
        advance(stamp, 1)
    }

    /// The parent: copies the result of a task out.
    fn take(&self, number: u64) -> Outcome<Vec<u8>> {
        let (stamp, room, free) = self.of(number)?;
        wait(stamp, |stamp| stamp == free + 1)?;
        // SAFETY: the result is written (edge STAMP), and the next one is only after the parent sets the stamp that follows.
        let bytes = unsafe { room.read(|bytes| bytes.to_vec()) };
        advance(stamp, u32::try_from(ROOMS)? - 1)?;
        Ok(bytes)
    }
}

fn results_role(job: &Job) -> Outcome<Found> {
    let memory = Memory::of(job)?.touched()?;
    let (control, desk) = (Control::new(&memory)?, Desk::new(&memory)?);
    job.meet()?;
    control.work(1, |mut range| {
        range.try_for_each(|number| desk.put(number, result(number).as_slice().try_into()?))
    })?;
    Ok(worked(job))
}

/// Tasks with large results, which the parent copies out: owned values on both sides.
///
/// # Errors
/// As [`trivial`].
pub fn results(plan: &Plan) -> Outcome<Duration> {
    let memory = Memory::new(TASKS + Desk::BYTES)?.touched()?;
    let (control, desk) = (Control::new(&memory)?, Desk::new(&memory)?);
    let workers = start("pool/results", plan, &memory)?;
    let time = time_results(plan, |input| {
        desk.clear();
        control.begin(u64::try_from(input.len())?)?;
        let results = input.into_iter().map(|number| desk.take(number)).collect::<Outcome<_>>()?;
        control.end()?;
        Ok(results)
    })?;
    join(workers)?;
    Ok(time)
}
