//! Peer: CPython's `multiprocessing.Pool`, run by `python3` if it is here; see `python.py`.

use super::contest::{LENGTH, RESULT, WORKERS};
use crate::Outcome;
use crate::latency::Trips;
use crate::measure::Plan;
use crate::second::check;
use std::process::Command;
use std::time::Duration;

const SCRIPT: &str = include_str!("python.py");

/// Runs the script; gives the first time that it prints, and the others. `total` results must be right.
fn run(
    kind: &str,
    chunk: u32,
    plan: &Plan,
    single: u32,
    [workers, total]: [u32; 2],
) -> Outcome<(Duration, Vec<Duration>)> {
    let numbers = [workers, plan.warm_up, plan.count, single, chunk];
    let output = Command::new("python3")
        .args(["-c", SCRIPT, kind])
        .args(numbers.map(|number| number.to_string()))
        .args([LENGTH.as_nanos().to_string(), RESULT.to_string()])
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let text = String::from_utf8(output.stdout)?;
    let mut words = text.split_ascii_whitespace();
    check(words.next().ok_or("it printed nothing")?.parse()?, total)?;
    let mut times = words.map(|word| Ok(Duration::from_nanos(word.parse()?)));
    let first: Outcome<Duration> = times.next().ok_or("it printed no time")?;
    Ok((first?, times.collect::<Outcome<_>>()?))
}

fn map(kind: &str, chunk: u32, plan: &Plan) -> Outcome<Duration> {
    Ok(run(kind, chunk, plan, 0, [WORKERS, plan.count])?.0)
}

/// Trivial tasks, in chunks of the pool's own choice.
///
/// # Errors
/// When the script fails, or a result is wrong; so do all here.
pub fn trivial(plan: &Plan) -> Outcome<Duration> {
    map("square", 0, plan)
}

/// Trivial tasks, one a hand-over.
///
/// # Errors
/// As [`trivial`].
pub fn single(plan: &Plan) -> Outcome<Duration> {
    map("square", 1, plan)
}

/// Tasks of some length.
///
/// # Errors
/// As [`trivial`].
pub fn long(plan: &Plan) -> Outcome<Duration> {
    map("spin", 0, plan)
}

/// Tasks with large results.
///
/// # Errors
/// As [`trivial`].
pub fn results(plan: &Plan) -> Outcome<Duration> {
    map("result", 0, plan)
}

/// One task and its answer after the other, by one worker.
///
/// # Errors
/// As [`trivial`].
pub fn submit(plan: &Plan) -> Outcome<Trips> {
    let (wall, single) = run("submit", 0, plan, plan.single(), [1, plan.trips()])?;
    Ok(Trips { wall, single })
}
