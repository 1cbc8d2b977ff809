//! Latest-value cells: how reads and writes are timed, the peer `mmap-sync`, and the raw limit, a cache line that two CPUs hand to each other.
//!
//! The peer takes no part where a writer and a reader work at full speed: its writer waits for readers, and beside one that never rests it
//! came to write less than once a second.
#![expect(unsafe_code, reason = "the peer's reads ask for promises about their guards")]

use crate::Outcome;
use crate::machine::{Pinned, move_to};
use crate::measure::{Plan, timed};
use crate::payload::{self, Payload};
use mmap_sync::synchronizer::Synchronizer;
use std::hint::{black_box, spin_loop};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long the peer's writer gives a reader; no reader here holds a guard for nearly as long.
const GRACE: Duration = Duration::from_secs(1);

/// How long a contended measurement may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Times reads of a cell that holds message 7.
///
/// # Errors
/// Those of `read`, and a wrong value.
pub fn time_reads(plan: &Plan, mut read: impl FnMut() -> Outcome<Payload>) -> Outcome<Duration> {
    let expected = payload::make(7);
    let mut reads = |count: u32| -> Outcome<u32> {
        let mut right = 0;
        for _ in 0..count {
            right += u32::from(black_box(read()?) == expected);
        }
        Ok(right)
    };
    reads(plan.warm_up)?;
    let (right, time) = timed(|| reads(plan.count))?;
    if right == plan.count { Ok(time) } else { Err("a wrong value".into()) }
}

/// Times writes of messages 0, 1, 2, ...
///
/// # Errors
/// Those of `write`.
pub fn time_writes(plan: &Plan, mut write: impl FnMut(&Payload) -> Outcome<()>) -> Outcome<Duration> {
    let mut put = |sequence: u32| write(black_box(&payload::make(u64::from(sequence))));
    (0..plan.warm_up).try_for_each(&mut put)?;
    let ((), time) = timed(|| (plan.warm_up..plan.total()).try_for_each(&mut put))?;
    Ok(time)
}

/// The median of single reads that gave a new value, with the clock's own time in it, times [`Plan::count`]. Reads between two turns of the
/// writer on its CPU, which somebody else may have taken, are not of interest.
///
/// # Errors
/// Those of `read`, a torn value, and a writer that does not write.
pub fn median_of(plan: &Plan, mut read: impl FnMut() -> Outcome<Payload>) -> Outcome<Duration> {
    let begin = Instant::now();
    let mut times = Vec::new();
    let (mut before, mut seen) = (read()?, 0);
    while seen < plan.total() {
        let start = Instant::now();
        let value = black_box(read()?);
        let time = start.elapsed();
        if !payload::is_whole(&value) {
            return Err("a torn value".into());
        }
        if value != before {
            seen += 1;
            if seen > plan.warm_up {
                times.push(time);
            }
        } else if begin.elapsed() > PATIENCE {
            return Err("the writer does not write".into());
        }
        before = value;
    }
    Ok(median(times) * plan.count)
}

/// The middle one of some times.
fn median(mut times: Vec<Duration>) -> Duration {
    let middle = times.len() / 2;
    times.sort_unstable();
    times.get(middle).copied().unwrap_or_default()
}

/// The peer's files, in memory, removed in the end.
struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        Self(PathBuf::from(format!("/dev/shm/mp-benches-{}", std::process::id())))
    }

    fn open(&self) -> Synchronizer {
        Synchronizer::new(self.0.as_os_str())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for end in ["_state", "_data_0", "_data_1"] {
            let mut name = self.0.clone().into_os_string();
            name.push(end);
            // One that is not there need not be removed.
            let _ = std::fs::remove_file(name);
        }
    }
}

fn put(cell: &mut Synchronizer, value: &Payload) -> Outcome<()> {
    cell.write(value, GRACE)?;
    Ok(())
}

fn take(cell: &mut Synchronizer) -> Outcome<Payload> {
    // SAFETY: the guard ends with this statement, long before the writer's patience; writer and readers use one type.
    let read = unsafe { cell.read::<Payload>(false) }?;
    Ok(*read)
}

/// Reads the peer's cell that nobody writes.
///
/// # Errors
/// When the peer fails, or a value is wrong.
pub fn mmap_sync_read(plan: &Plan) -> Outcome<Duration> {
    let _pinned = Pinned::to_first()?;
    let files = Files::new();
    put(&mut files.open(), &payload::make(7))?;
    let mut cell = files.open();
    time_reads(plan, || take(&mut cell))
}

/// Writes the peer's cell that nobody reads.
///
/// # Errors
/// When the peer fails.
pub fn mmap_sync_write(plan: &Plan) -> Outcome<Duration> {
    let _pinned = Pinned::to_first()?;
    let files = Files::new();
    let mut cell = files.open();
    time_writes(plan, |value| put(&mut cell, value))
}

/// A number alone on its cache lines.
#[repr(align(128))]
struct Line(AtomicU32);

/// The median round trip of a cache line, times the count: two threads, on a CPU each, answer each other by a number.
///
/// # Errors
/// When there is no CPU to run on.
pub fn line_roundtrip(plan: &Plan) -> Outcome<Duration> {
    let pinned = Pinned::to_first()?;
    let line = Line(AtomicU32::new(0));
    let cpu = pinned.second();
    let wait = |number: u32| {
        while line.0.load(Ordering::Acquire) != number {
            if cpu.is_none() {
                thread::yield_now();
            }
            spin_loop();
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            move_to(cpu);
            for turn in 0..plan.total() {
                wait(2 * turn + 1);
                line.0.store(2 * turn + 2, Ordering::Release);
            }
        });
        let trip = |turn: u32| {
            line.0.store(2 * turn + 1, Ordering::Release);
            wait(2 * turn + 2);
        };
        (0..plan.warm_up).for_each(trip);
        let clocked = |turn: u32| {
            let start = Instant::now();
            trip(turn);
            start.elapsed()
        };
        let times = (plan.warm_up..plan.total()).map(clocked).collect();
        Ok(median(times) * plan.count)
    })
}
