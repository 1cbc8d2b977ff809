//! The contestants that are this library's pool. All use of it is here.

use super::contest::{RESULT, WORKERS, result, result_array, spin, time_results, time_squares};
use crate::channels::Role;
use crate::latency::{Trips, time_rested_trips, time_trips};
use crate::machine::{Pinned, move_to};
use crate::measure::{Plan, timed};
use crate::second::{Found, Job, Second};
use crate::{Outcome, payload};
use multiproc::shm::Array;
use multiproc::{Pool, Receiver, Sender, Session, ShmSafe, channel};
use std::collections::VecDeque;
use std::fs;
use std::time::{Duration, Instant};

/// Large results that are on their way at a time.
const IN_FLIGHT: u64 = 4;

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

/// Tasks with large results, read where the workers wrote them as they come. So many are on their way as workers have at a time.
///
/// # Errors
/// As [`trivial`].
pub fn results_archived(plan: &Plan) -> Outcome<Duration> {
    let pool = pool()?;
    let run = |count: u32| {
        let mut on_their_way = VecDeque::new();
        for number in 0..u64::from(count) + IN_FLIGHT {
            if number < u64::from(count) {
                on_their_way.push_back((number, pool.submit(result, number)?));
            }
            if number >= IN_FLIGHT
                && let Some((number, task)) = on_their_way.pop_front()
                && !payload::is_marked::<RESULT>(task.get_archived()?.as_slice(), number)
            {
                return Err("a wrong result".into());
            }
        }
        Ok(())
    };
    run(plan.warm_up)?;
    let ((), time) = timed(|| run(plan.count))?;
    Ok(time)
}

/// Trivial tasks with inputs in a slice and results in another, which are copied to shared memory and back.
///
/// # Errors
/// As [`trivial`].
pub fn slice(plan: &Plan) -> Outcome<Duration> {
    let pool = pool()?;
    time_squares(plan, |input| Ok(pool.map_slice(payload::square, &input)?))
}

/// Maps the numbers from 0 on, which lie in shared memory, to results there, twice, so that the memory was touched before; times the second.
fn time_into<R: ShmSafe + Copy>(plan: &Plan, task: fn(u64) -> R) -> Outcome<(Array<R>, Duration)> {
    let pool = pool()?;
    let inputs = Array::from_slice(&(0..plan.count.into()).collect::<Vec<u64>>())?;
    let results = Array::new(inputs.len())?;
    let map = || Ok(pool.map_into(task, &inputs, &results)?);
    map()?;
    // They would be right a second time.
    let other = task(u64::MAX);
    (0..results.len()).for_each(|place| results.set(place, other));
    let ((), time) = timed(map)?;
    Ok((results, time))
}

/// Trivial tasks, from a shared array into another.
///
/// # Errors
/// As [`trivial`].
pub fn into_array(plan: &Plan) -> Outcome<Duration> {
    let (results, time) = time_into(plan, payload::square)?;
    if payload::are_squares(&results.to_vec(), plan.count) { Ok(time) } else { Err("wrong results".into()) }
}

/// Tasks with large results, into a shared array.
///
/// # Errors
/// As [`trivial`].
pub fn results_into(plan: &Plan) -> Outcome<Duration> {
    let (results, time) = time_into(plan, result_array)?;
    let is_right = |number: u32| {
        let bytes = results.get(usize::try_from(number).ok()?)?;
        payload::is_marked::<RESULT>(&bytes, number.into()).then_some(())
    };
    let right = (0..plan.count).try_for_each(is_right);
    right.map(|()| time).ok_or_else(|| "wrong results".into())
}

/// Starts as many workers as the plan has operations, and has all of them at a task at once; then `look`, and the workers end.
fn with_all_at_work<T>(plan: &Plan, look: impl FnOnce(&Pool) -> Outcome<T>) -> Outcome<(T, Duration)> {
    let start = Instant::now();
    let pool = Pool::builder().workers(usize::try_from(plan.count)?).build()?;
    let (arrive, arrived) = channel(usize::try_from(plan.count)?)?;
    let (all_are_here, may_leave) = channel::<()>(1)?;
    let meet = |(arrive, may_leave): (Sender<()>, Receiver<()>)| {
        arrive.send(()).is_ok() && may_leave.recv().is_err_and(|error| error.is_disconnected())
    };
    let tasks = (0..plan.count).map(|_| pool.submit(meet, (arrive.clone(), may_leave.clone())));
    let tasks = tasks.collect::<Result<Vec<_>, _>>()?;
    (0..plan.count).try_for_each(|_| arrived.recv())?;
    drop(all_are_here);
    for task in tasks {
        if !task.get()? {
            return Err("the workers did not meet".into());
        }
    }
    let time = start.elapsed();
    Ok((look(&pool)?, time))
}

/// Many workers, started, and one task of each, for which all are there at once.
///
/// # Errors
/// As [`trivial`].
pub fn many_workers(plan: &Plan) -> Outcome<Duration> {
    Ok(with_all_at_work(plan, |_| Ok(()))?.1)
}

/// The bytes for each of many workers that have done a task: its part of what it shares with others, and of what the pool's process has.
///
/// # Errors
/// As [`trivial`].
pub fn many_workers_memory(plan: &Plan) -> Outcome<f64> {
    let of_all = |pool: &Pool| {
        let workers = pool.worker_pids().into_iter().map(share_of);
        workers.chain([share_of(std::process::id())]).sum::<Outcome<u64>>()
    };
    Ok(mean(with_all_at_work(plan, of_all)?.0, plan.count))
}

/// The part of a process in the memory that it has: of a page that several have, each has a part.
fn share_of(pid: u32) -> Outcome<u64> {
    amount(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

/// So many bytes for each.
fn mean(bytes: u64, count: u32) -> f64 {
    // Far less than 2^52 bytes.
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^52")]
    let bytes = bytes as f64;
    bytes / f64::from(count)
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

/// The bytes that a file in `/proc` has under `name`.
fn amount(path: &str, name: &str) -> Outcome<u64> {
    let text = fs::read_to_string(path)?;
    Ok(kibibytes(&text, name).ok_or_else(|| format!("{path} does not read as documented"))? << 10)
}

/// The amount that `status` has under `name`.
fn kibibytes(status: &str, name: &str) -> Option<u64> {
    let amount = status.lines().find_map(|line| line.strip_prefix(name))?;
    amount.trim().strip_suffix(" kB")?.parse().ok()
}

/// Submits all tasks, then takes all answers; tells as marks the most memory that it had, that of the session, and what workers have for
/// themselves. Pages of the session that this process has touched count twice.
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
    let own = |pid| amount(&format!("/proc/{pid}/status"), "RssAnon:");
    found.marks = amount("/proc/self/status", "VmHWM:")?
        + submitted.max(Session::current()?.committed_bytes()?)
        + pool.worker_pids().into_iter().map(own).sum::<Outcome<u64>>()?;
    Ok(found)
}

/// The bytes for each of [`Plan::count`] tasks that are submitted before the first answer is taken: all that this process, its workers and
/// their session have, program and pool included.
///
/// # Errors
/// As [`trivial`].
pub fn memory(plan: &Plan) -> Outcome<f64> {
    let job = Job { total: plan.count, ..Job::anywhere("pool/submit_many", 8, plan) };
    let mut second = Second::start(job, &[])?;
    second.meet()?;
    Ok(mean(second.join()?.marks, plan.count))
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
