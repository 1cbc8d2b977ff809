//! Peer: CPython's `multiprocessing`, pipes, queues and processes, run by `python3` if it is here; see `python.py`.

use super::contest::PRODUCERS;
use crate::Outcome;
use crate::latency::Trips;
use crate::machine::Pinned;
use crate::measure::{Contestant, Plan};
use crate::second::check;
use std::process::Command;
use std::time::Duration;

const SCRIPT: &str = include_str!("python.py");

/// The contestants, if there is a `python3`.
#[must_use]
pub fn if_here<const COUNT: usize>(contestants: [Contestant; COUNT]) -> Vec<Contestant> {
    let here = Command::new("python3").args(["-c", "import multiprocessing"]).output();
    if here.is_ok_and(|output| output.status.success()) { contestants.into() } else { vec![] }
}

/// Runs the script; gives all times that it prints.
fn run(
    kind: &str,
    size: u32,
    plan: &Plan,
    single: u32,
    [producers, consumers]: [u32; 2],
) -> Outcome<Vec<Duration>> {
    let pinned = Pinned::to_first()?;
    let cpus = [Some(pinned.first()), pinned.second()].into_iter().flatten();
    let numbers = [size, plan.warm_up, plan.count, single, producers, consumers];
    let output = Command::new("python3")
        .args(["-c", SCRIPT, kind])
        .args(numbers.into_iter().chain(cpus).map(|number| number.to_string()))
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let text = String::from_utf8(output.stdout)?;
    let mut words = text.split_ascii_whitespace();
    let right = words.next().ok_or("it printed nothing")?.parse()?;
    let warm_up = if producers > 1 { 0 } else { plan.warm_up };
    check(right, warm_up + plan.count + single)?;
    words.map(|word| Ok(Duration::from_nanos(word.parse()?))).collect()
}

fn trips(kind: &str, size: u32, plan: &Plan) -> Outcome<Trips> {
    let mut single = run(kind, size, plan, plan.single(), [1, 1])?;
    if single.is_empty() {
        return Err("it printed no time".into());
    }
    Ok(Trips { wall: single.remove(0), single })
}

fn time(kind: &str, size: u32, plan: &Plan, parties: [u32; 2]) -> Outcome<Duration> {
    Ok(run(kind, size, plan, 0, parties)?.first().copied().ok_or("it printed no time")?)
}

/// Round trips through a pipe.
///
/// # Errors
/// When the script fails, or a message is wrong; so do all here.
pub fn pipe_roundtrip<const SIZE: u32>(plan: &Plan) -> Outcome<Trips> {
    trips("pipe_round_trips", SIZE, plan)
}

/// Round trips through two queues.
///
/// # Errors
/// As [`pipe_roundtrip`].
pub fn queue_roundtrip<const SIZE: u32>(plan: &Plan) -> Outcome<Trips> {
    trips("queue_round_trips", SIZE, plan)
}

/// Messages through a pipe.
///
/// # Errors
/// As [`pipe_roundtrip`].
pub fn pipe<const SIZE: u32>(plan: &Plan) -> Outcome<Duration> {
    time("pipe", SIZE, plan, [1, 1])
}

/// Messages through a queue.
///
/// # Errors
/// As [`pipe_roundtrip`].
pub fn queue<const SIZE: u32>(plan: &Plan) -> Outcome<Duration> {
    time("queue", SIZE, plan, [1, 1])
}

/// Messages of 64 bytes of four producers for `CONSUMERS` consumers through a queue.
///
/// # Errors
/// As [`pipe_roundtrip`].
pub fn many<const CONSUMERS: u32>(plan: &Plan) -> Outcome<Duration> {
    time("many", 64, plan, [PRODUCERS, CONSUMERS])
}

/// Processes that run a trivial function and are waited for, one after the other, of the fork server. Unlike ours they give no result back.
///
/// # Errors
/// As [`pipe_roundtrip`].
pub fn forkserver(plan: &Plan) -> Outcome<Duration> {
    time("forkserver", 8, plan, [1, 1])
}
