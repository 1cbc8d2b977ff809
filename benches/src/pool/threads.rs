//! The contestants without processes: rayon on two threads, and a plain loop.

use super::contest::{WORKERS, result, spin, time_results, time_squares};
use crate::Outcome;
use crate::measure::{Plan, timed};
use crate::payload;
use rayon::ThreadPool;
use rayon::prelude::*;
use std::time::Duration;

fn pool() -> Outcome<ThreadPool> {
    Ok(rayon::ThreadPoolBuilder::new().num_threads(usize::try_from(WORKERS)?).build()?)
}

/// Trivial tasks.
///
/// # Errors
/// When the threads cannot start, or a result is wrong; so do all here.
pub fn trivial(plan: &Plan) -> Outcome<Duration> {
    let pool = pool()?;
    time_squares(plan, |input| Ok(pool.install(|| input.par_iter().map(|&n| payload::square(n)).collect())))
}

/// Trivial tasks, with results in a slice that was touched before.
///
/// # Errors
/// As [`trivial`].
pub fn into_slice(plan: &Plan) -> Outcome<Duration> {
    let pool = pool()?;
    let input: Vec<u64> = (0..plan.count.into()).collect();
    let mut results = vec![1; input.len()];
    let map = |results: &mut [u64]| {
        let pairs = input.par_iter().zip(results);
        pool.install(|| pairs.for_each(|(&number, result)| *result = payload::square(number)));
        Ok(())
    };
    map(&mut results)?;
    // They would be right a second time.
    results.fill(1);
    let ((), time) = timed(|| map(&mut results))?;
    if payload::are_squares(&results, plan.count) { Ok(time) } else { Err("wrong results".into()) }
}

/// Trivial tasks, split to single ones.
///
/// # Errors
/// As [`trivial`].
pub fn single(plan: &Plan) -> Outcome<Duration> {
    let pool = pool()?;
    time_squares(plan, |input| {
        Ok(pool.install(|| input.par_iter().with_max_len(1).map(|&n| payload::square(n)).collect()))
    })
}

/// Tasks of some length.
///
/// # Errors
/// As [`trivial`].
pub fn long(plan: &Plan) -> Outcome<Duration> {
    let pool = pool()?;
    time_squares(plan, |input| Ok(pool.install(|| input.par_iter().map(|&n| spin(n)).collect())))
}

/// Tasks with large results.
///
/// # Errors
/// As [`trivial`].
pub fn results(plan: &Plan) -> Outcome<Duration> {
    let pool = pool()?;
    time_results(plan, |input| Ok(pool.install(|| input.par_iter().map(|&n| result(n)).collect())))
}

/// Trivial tasks in a plain loop.
///
/// # Errors
/// As [`trivial`].
pub fn plain_loop(plan: &Plan) -> Outcome<Duration> {
    time_squares(plan, |input| Ok(input.iter().map(|&n| payload::square(n)).collect()))
}
