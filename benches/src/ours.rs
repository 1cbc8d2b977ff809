//! The contestants that are this library: processes, pools and latest-value cells. Channels are in `channels::ours`, locks in `locks`.

use crate::Outcome;
use crate::cells::{self, median_of};
use crate::machine::{Pinned, move_to};
use crate::measure::{Plan, time_squares, timed};
use crate::payload::{self, Payload};
use multiproc::shm::latest::latest;
use multiproc::shm::{Latest, LatestWriter, Value};
use multiproc::{Pool, Process};
use std::time::Duration;

/// The second CPU for a child; see [`Pinned::second`].
type Cpu = Option<u32>;

/// The trivial child.
fn plus_one(number: u32) -> u32 {
    number + 1
}

/// Starts a process with a trivial function, and waits for it, again and again.
///
/// # Errors
/// When the library fails, or a result is wrong.
pub fn spawn(plan: &Plan) -> Outcome<Duration> {
    let start = |number: u32| {
        let right = Process::spawn(plus_one, number)?.join()? == number + 1;
        if right { Ok(()) } else { Err("a wrong result".into()) }
    };
    (0..plan.warm_up).try_for_each(start)?;
    let ((), time) = timed(|| (0..plan.count).try_for_each(start))?;
    Ok(time)
}

/// Squares on a pool of two workers, which is made before the clock starts.
///
/// # Errors
/// When the library fails, or a result is wrong.
pub fn pool_map(plan: &Plan) -> Outcome<Duration> {
    let pool = Pool::builder().workers(2).build()?;
    time_squares(plan, |input| Ok(pool.map(payload::square, input)?))
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
