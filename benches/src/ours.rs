//! The contestants that are this library: processes and latest-value cells. Channels are in `channels::ours`, pools in `pool::ours`, locks
//! in `locks`.

use crate::Outcome;
use crate::cells::{self, median_of};
use crate::machine::{Pinned, move_to};
use crate::measure::{OTHER_WORK, Plan, starts};
use crate::payload::{self, Payload};
use multiproc::shm::latest::latest;
use multiproc::shm::{Latest, LatestWriter, Value};
use multiproc::{Builder, ForkServer, Process};
use std::time::Duration;

/// The second CPU for a child; see [`Pinned::second`].
type Cpu = Option<u32>;

/// Bytes of memory that a large parent has: 1 GiB.
pub const HEAP: usize = 1 << 30;

/// The trivial child.
fn plus_one(number: u32) -> u32 {
    number + 1
}

/// Starts a process with a trivial function, and waits for it, again and again.
///
/// # Errors
/// When the library fails, or a result is wrong.
pub fn spawn(plan: &Plan) -> Outcome<Duration> {
    let builder = Process::builder();
    starts(plan, Duration::ZERO, |number| check_start(&builder, number))
}

/// As [`spawn`], with a fork server, which is started before the clock.
///
/// # Errors
/// As [`spawn`]; there can be no fork server here.
pub fn spawn_forkserver(plan: &Plan) -> Outcome<Duration> {
    spawn_served(plan, Duration::ZERO)
}

/// As [`spawn_forkserver`], with other work between the starts: the next process is made meanwhile.
///
/// # Errors
/// As [`spawn_forkserver`].
pub fn spawn_forkserver_spaced(plan: &Plan) -> Outcome<Duration> {
    spawn_served(plan, OTHER_WORK)
}

fn spawn_served(plan: &Plan, rest: Duration) -> Outcome<Duration> {
    let server = ForkServer::new();
    let builder = Process::builder().fork_server(&server);
    check_start(&builder, 0)?;
    // Otherwise it was executed anew.
    let pid = server.pid().ok_or("there can be no fork server here")?;
    let time = starts(plan, rest, |number| check_start(&builder, number))?;
    if server.pid() == Some(pid) { Ok(time) } else { Err("the fork server has ended".into()) }
}

/// As [`spawn`], while this process has [`HEAP`] bytes of memory in use.
///
/// # Errors
/// As [`spawn`].
pub fn spawn_with_heap(plan: &Plan) -> Outcome<Duration> {
    beside_heap(|| spawn(plan))
}

/// As [`spawn_forkserver`], while this process has [`HEAP`] bytes of memory in use from before the server is started.
///
/// # Errors
/// As [`spawn_forkserver`].
pub fn spawn_forkserver_with_heap(plan: &Plan) -> Outcome<Duration> {
    beside_heap(|| spawn_forkserver(plan))
}

fn check_start(builder: &Builder, number: u32) -> Outcome<()> {
    let right = builder.spawn(plus_one, number)?.join()? == number + 1;
    if right { Ok(()) } else { Err("a wrong result".into()) }
}

/// Does `work` while this process has so much memory in use, each page of it written.
fn beside_heap<T>(work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    let heap = vec![1_u8; HEAP];
    let done = work();
    // Until here it is in use.
    std::hint::black_box(&heap);
    done
}

/// Reads a latest-value cell that nobody writes.
///
/// # Errors
/// When the library fails, or a value is wrong.
pub fn latest_read(plan: &Plan) -> Outcome<Duration> {
    let _pinned = Pinned::to_first()?;
    let (_writer, latest) = latest(payload::make(7))?;
    cells::time_reads(plan, || Ok(latest.get()))
}

/// Writes a latest-value cell that nobody reads.
///
/// # Errors
/// When the library fails, or the last value is wrong.
pub fn latest_write(plan: &Plan) -> Outcome<Duration> {
    let _pinned = Pinned::to_first()?;
    let (mut writer, latest) = latest(payload::make(0))?;
    let time = cells::time_writes(plan, |value| Ok(writer.set(*value)?))?;
    let right = payload::is_right(&latest.get(), u64::from(plan.total() - 1));
    if right { Ok(time) } else { Err("a wrong value".into()) }
}

/// Writes as fast as it can until it is told to stop.
fn write_on((mut writer, stop, cpu): (LatestWriter<Payload>, Value<u8>, Cpu)) -> Result<u64, String> {
    move_to(cpu);
    writer.wait_sole(Duration::from_secs(10)).map_err(|error| error.to_string())?;
    for sequence in 0.. {
        writer.set(payload::make(sequence)).map_err(|error| error.to_string())?;
        if stop.get() == 1 {
            return Ok(sequence);
        }
    }
    Ok(0)
}

/// The median time of reading a new value from a cell that a child writes as fast as it can, times the count.
///
/// # Errors
/// When the library fails, or a value is torn.
pub fn latest_contended(plan: &Plan) -> Outcome<Duration> {
    let pinned = Pinned::to_first()?;
    let (writer, cell): (LatestWriter<Payload>, Latest<Payload>) = latest(payload::make(u64::MAX))?;
    let stop = Value::new(0_u8)?;
    let child = Process::spawn(write_on, (writer, stop.clone(), pinned.second()))?;
    while payload::is_right(&cell.get(), u64::MAX) {
        std::thread::yield_now();
    }
    let median = median_of(plan, || Ok(cell.get()));
    stop.set(1);
    child.join()??;
    median
}
