//! The contestants that are not this library: the raw limits of `raw`, a program started with the
//! standard library, threads of rayon, and a plain loop.
//!
//! The raw limits need a second process. It is this program again, started with hidden arguments:
//! `--raw-peer KIND FD`, where FD is the inherited descriptor of the shared memory.

use crate::machine::{Pinned, move_to};
use crate::measure::{Plan, time_squares, timed};
use crate::raw::{Mapping, Reader, Writer};
use crate::{Outcome, payload};
use rayon::prelude::*;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, dup, fcntl_setfd};
use std::env;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::process::{Child, Command};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often a side looks before it sleeps or gives its CPU away, when it has a CPU of its own.
const SPINS: u32 = 2000;

/// The argument that makes the program end at once.
pub const EXIT_NOW: &str = "--exit-now";
/// The argument that makes the program the second process of a raw limit.
pub const RAW_PEER: &str = "--raw-peer";

/// What the second process does.
const ECHO: &str = "echo";
const CONSUME: &str = "consume";

/// A second process that is killed, should this one fail in between.
struct Second(Child);

impl Second {
    /// Starts this program again as `kind`, with `file` open in it.
    fn start(kind: &str, file: &File) -> Outcome<Self> {
        let inherited = dup(file)?;
        fcntl_setfd(&inherited, FdFlags::empty())?;
        let number = inherited.as_raw_fd().to_string();
        Ok(Self(Command::new(env::current_exe()?).args([RAW_PEER, kind, &number]).spawn()?))
    }

    /// Waits for its end.
    fn join(mut self) -> Outcome<()> {
        let status = self.0.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the second process ended with {status}").into()) }
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        // After `join` both do nothing.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs `work` on the first CPU, beside a second process of `kind` on the second one; checks that the
/// latter got `plan.total()` right messages. Gives the time that `work` returns, or else the time that
/// the second process took.
fn beside(
    kind: &str,
    plan: &Plan,
    work: impl FnOnce(&Mapping) -> Outcome<Option<Duration>>,
) -> Outcome<Duration> {
    let pinned = Pinned::to_first()?;
    let file = File::from(memfd_create("raw-limit", MemfdFlags::CLOEXEC)?);
    let shared = Mapping::new(&file)?;
    shared.warm_up.store(plan.warm_up, Ordering::Relaxed);
    shared.count.store(plan.count, Ordering::Relaxed);
    shared.spins.store(pinned.second().map_or(0, |_| SPINS), Ordering::Relaxed);
    shared.cpu.store(pinned.second().map_or(0, |cpu| cpu + 1), Ordering::Relaxed);
    let second = Second::start(kind, &file)?;
    let own = work(&shared)?;
    second.join()?;
    if shared.right.load(Ordering::Relaxed) != plan.total() {
        return Err("the second process got wrong messages".into());
    }
    Ok(own.unwrap_or(Duration::from_nanos(shared.nanoseconds.load(Ordering::Relaxed))))
}

/// The second process: its whole work. `arguments` are those behind [`RAW_PEER`].
///
/// # Errors
/// When the arguments are not those of [`RAW_PEER`], or the first process is gone.
pub fn second_process(mut arguments: impl Iterator<Item = OsString>) -> Outcome<()> {
    let kind = arguments.next().ok_or("no kind")?;
    let mut path = OsString::from("/proc/self/fd/");
    path.push(arguments.next().ok_or("no descriptor")?);
    let shared = Mapping::new(&OpenOptions::new().read(true).write(true).open(path)?)?;
    move_to(shared.cpu.load(Ordering::Relaxed).checked_sub(1));
    let plan = Plan {
        rounds: 1,
        warm_up: shared.warm_up.load(Ordering::Relaxed),
        count: shared.count.load(Ordering::Relaxed),
    };
    match kind.to_str() {
        Some(ECHO) => echo(&shared, &plan),
        Some(CONSUME) => consume(&shared, &plan),
        _ => Err("no such kind".into()),
    }
}

/// Sends every message back.
fn echo(shared: &Mapping, plan: &Plan) -> Outcome<()> {
    let spins = shared.spins.load(Ordering::Relaxed);
    let mut right = 0;
    for turn in 0..plan.total() {
        let message = shared.ping.take(turn, spins)?;
        right += u32::from(payload::is_right(&message, u64::from(turn)));
        shared.pong.put(turn, &message)?;
    }
    shared.right.store(right, Ordering::Relaxed);
    Ok(())
}

/// Reads every message, and times those after the warm-up.
fn consume(shared: &Mapping, plan: &Plan) -> Outcome<()> {
    let mut ring = Reader::new(shared);
    let mut right = 0;
    let mut start = Instant::now();
    for sequence in 0..plan.total() {
        if sequence == plan.warm_up {
            start = Instant::now();
        }
        right += u32::from(payload::is_right(&ring.take()?, u64::from(sequence)));
    }
    shared.nanoseconds.store(u64::try_from(start.elapsed().as_nanos())?, Ordering::Relaxed);
    shared.right.store(right, Ordering::Relaxed);
    Ok(())
}

/// Round trips through two mailboxes, spinning and then sleeping.
///
/// # Errors
/// When the second process fails, or a message is wrong.
pub fn raw_roundtrip(plan: &Plan) -> Outcome<Duration> {
    beside(ECHO, plan, |shared| {
        let spins = shared.spins.load(Ordering::Relaxed);
        let trip = |turn: u32| {
            shared.ping.put(turn, &payload::make(u64::from(turn)))?;
            let answer = shared.pong.take(turn, spins)?;
            if payload::is_right(&answer, u64::from(turn)) { Ok(()) } else { Err("a wrong answer".into()) }
        };
        (0..plan.warm_up).try_for_each(trip)?;
        let ((), time) = timed(|| (plan.warm_up..plan.total()).try_for_each(trip))?;
        Ok(Some(time))
    })
}

/// Messages through the ring, timed by the consumer.
///
/// # Errors
/// When the second process fails, or a message is wrong.
pub fn raw_throughput(plan: &Plan) -> Outcome<Duration> {
    beside(CONSUME, plan, |shared| {
        let mut ring = Writer::new(shared);
        (0..plan.total()).try_for_each(|sequence| ring.put(&payload::make(u64::from(sequence))))?;
        Ok(None)
    })
}

/// Starts this program with [`EXIT_NOW`], and waits for it, again and again.
///
/// # Errors
/// When a start fails.
pub fn command(plan: &Plan) -> Outcome<Duration> {
    let program = env::current_exe()?;
    let start = |_| {
        let status = Command::new(&program).arg(EXIT_NOW).status()?;
        if status.success() { Ok(()) } else { Err(format!("it ended with {status}").into()) }
    };
    (0..plan.warm_up).try_for_each(start)?;
    let ((), time) = timed(|| (0..plan.count).try_for_each(start))?;
    Ok(time)
}

/// Squares on the two threads of a rayon pool, which is made before the clock starts.
///
/// # Errors
/// When the threads cannot start, or a result is wrong.
pub fn rayon_map(plan: &Plan) -> Outcome<Duration> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
    time_squares(plan, |input| Ok(pool.install(|| input.par_iter().map(|&n| payload::square(n)).collect())))
}

/// Squares in a plain loop, without any thread or process.
///
/// # Errors
/// When a result is wrong.
pub fn plain_map(plan: &Plan) -> Outcome<Duration> {
    time_squares(plan, |input| Ok(input.iter().map(|&n| payload::square(n)).collect()))
}
