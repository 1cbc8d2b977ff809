//! The contestants that are not this library, channels aside: a program started with the standard library, threads of rayon, and a plain
//! loop.

use crate::measure::{Plan, starts, time_squares};
use crate::{Outcome, payload};
use rayon::prelude::*;
use std::env;
use std::process::Command;
use std::time::Duration;

/// The argument that makes the program end at once.
pub const EXIT_NOW: &str = "--exit-now";
/// Starts this program with [`EXIT_NOW`], and waits for it, again and again.
///
/// # Errors
/// When a start fails.
pub fn command(plan: &Plan) -> Outcome<Duration> {
    let program = env::current_exe()?;
    starts(plan, |_| {
        let status = Command::new(&program).arg(EXIT_NOW).status()?;
        if status.success() { Ok(()) } else { Err(format!("it ended with {status}").into()) }
    })
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
