//! The contestants that are this library's pool. All use of it is here.

use super::contest::{WORKERS, result, spin, time_results, time_squares};
use crate::channels::Role;
use crate::latency::{Trips, time_rested_trips, time_trips};
use crate::machine::{Pinned, move_to};
use crate::measure::Plan;
use crate::second::{Found, Job, Second};
use crate::{Outcome, payload};
use multiproc::{Pool, Session};
use std::fs;
use std::time::{Duration, Instant};

pub(super) const ROLES: &[Role] = &[("pool/submit_many", submit_many)];

fn pool() -> Outcome<Pool> {
    Ok(Pool::builder().workers(usize::try_from(WORKERS)?).build()?)
}

/// Trivial tasks, in chunks of the pool's own choice.
///
/// # Errors
/// When the library fails, or a result is wrong; so do all here.
pub fn trivial(plan: &Plan) -> Outcome<Duration> {
    let pool = pool()?;
    time_squares(plan, |input| Ok(pool.map(payload::square, input)?))
}

/// Trivial tasks, one a hand-over.
///
/// # Errors
/// As [`trivial`].
pub fn single(plan: &Plan) -> Outcome<Duration> {
    let pool = Pool::builder().workers(usize::try_from(WORKERS)?).chunk_size(1).build()?;
    time_squares(plan, |input| Ok(pool.map(payload::square, input)?))
}

/// Tasks of some length.
///
/// # Errors
/// As [`trivial`].
pub fn long(plan: &Plan) -> Outcome<Duration> {
    let pool = pool()?;
    time_squares(plan, |input| Ok(pool.map(spin, input)?))
}

/// Tasks with large results, as owned values.
///
/// # Errors
/// As [`trivial`].
pub fn results(plan: &Plan) -> Outcome<Duration> {
    let pool = pool()?;
    time_results(plan, |input| Ok(pool.map(result, input)?))
}

/// A pool of one worker, on the second CPU: the limit has no more. The worker sets its place itself.
fn pool_beside(pinned: &Pinned) -> Outcome<Pool> {
    let pool = Pool::builder().workers(1).build()?;
    pool.submit(move_to, pinned.second())?.get()?;
    Ok(pool)
}

/// Submits a task and waits for its answer.
fn answer(pool: &Pool, number: u64) -> Outcome<()> {
    let answer = pool.submit(payload::square, number)?.get()?;
    if answer == payload::square(number) { Ok(()) } else { Err("a wrong answer".into()) }
}

/// One submit and its answer after the other.
///
/// # Errors
/// As [`trivial`].
pub fn submit(plan: &Plan) -> Outcome<Trips> {
    let pinned = Pinned::to_first()?;
    let pool = pool_beside(&pinned)?;
    time_trips(plan, |turn| answer(&pool, turn.into()))
}

/// One submit and its answer after the other, each when the worker has gone to sleep.
///
/// # Errors
/// As [`trivial`].
pub fn submit_asleep(plan: &Plan) -> Outcome<Trips> {
    let pinned = Pinned::to_first()?;
    let pool = pool_beside(&pinned)?;
    time_rested_trips(plan, |turn| answer(&pool, turn.into()))
}

/// The most memory that this process ever had, in bytes.
fn resident_max() -> Outcome<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    Ok(kibibytes(&status, "VmHWM:").ok_or("/proc/self/status does not read as documented")? << 10)
}

/// The amount that `status` has under `name`.
fn kibibytes(status: &str, name: &str) -> Option<u64> {
    let amount = status.lines().find_map(|line| line.strip_prefix(name))?;
    amount.trim().strip_suffix(" kB")?.parse().ok()
}

/// Submits all tasks, then takes all answers; tells as marks the most memory that it had, and that of the session. Pages of the session that
/// this process has touched count twice.
fn submit_many(job: &Job) -> Outcome<Found> {
    let pool = pool()?;
    job.meet()?;
    let start = Instant::now();
    let submit = |number| pool.submit(payload::square, u64::from(number));
    let tasks = (0..job.total).map(submit).collect::<Result<Vec<_>, _>>()?;
    let submitted = Session::current()?.committed_bytes()?;
    let mut found = Found::default();
    for (number, task) in (0..).zip(tasks) {
        found.right += u32::from(task.get()? == payload::square(number));
    }
    found.time = start.elapsed();
    found.marks = resident_max()? + submitted.max(Session::current()?.committed_bytes()?);
    Ok(found)
}

/// The bytes for each of [`Plan::count`] tasks that are submitted before the first answer is taken: all that this process and its session
/// have, program and pool included.
///
/// # Errors
/// As [`trivial`].
pub fn memory(plan: &Plan) -> Outcome<f64> {
    let job = Job { total: plan.count, ..Job::anywhere("pool/submit_many", 8, plan) };
    let mut second = Second::start(job, &[])?;
    second.meet()?;
    // Far less than 2^52 bytes.
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^52")]
    let bytes = second.join()?.marks as f64;
    Ok(bytes / f64::from(plan.count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_found_by_name() {
        let status = "Name:\tbench\nVmPeak:\t  900 kB\nVmHWM:\t  1234 kB\nThreads:\t1\n";
        assert_eq!(kibibytes(status, "VmHWM:"), Some(1234));
        assert_eq!(kibibytes(status, "Threads:"), None);
        assert_eq!(kibibytes(status, "VmRSS:"), None);
    }
}
