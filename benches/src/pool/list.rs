//! The measurements of pools, with their limits, peers and goals.

use super::contest::{LENGTH, WORKERS};
use super::{ours, python, raw, threads};
use crate::Outcome;
use crate::channels::{self, raw_flag};
use crate::measure::{Contestant, Measurement, Plan, Unit};
use std::time::Duration;

/// The plan for `count` operations.
fn plan(quick: bool, count: u32) -> Plan {
    Plan { rounds: if quick { 3 } else { 7 }, count, warm_up: count / 20 }
}

/// The peers in `first`, and Python's if it is here.
fn with_python<const COUNT: usize, const PYTHON_COUNT: usize>(
    first: [Contestant; COUNT],
    python: [Contestant; PYTHON_COUNT],
) -> Vec<Contestant> {
    first.into_iter().chain(channels::python::if_here(python)).collect()
}

/// All of them.
#[must_use]
pub fn measurements(quick: bool) -> Vec<Measurement> {
    maps(quick).into_iter().chain(maps_in_place(quick)).chain(submits(quick)).chain(scale(quick)).collect()
}

/// What two workers need for tasks of [`LENGTH`] that cost nothing to hand out.
fn ideal(plan: &Plan) -> Outcome<Duration> {
    Ok(LENGTH * plan.count / WORKERS)
}

fn maps(quick: bool) -> [Measurement; 4] {
    [
        Measurement {
            name: "pool_trivial",
            unit: Unit::MillionsPerSecond,
            plan: plan(quick, 1_000_000),
            ours: Contestant::new("multiproc", ours::trivial),
            peers: with_python(
                [
                    Contestant::new("raw in place", raw::trivial),
                    Contestant::new("rayon", threads::trivial),
                    Contestant::new("rayon, single", threads::single),
                    Contestant::new("plain loop", threads::plain_loop),
                ],
                [
                    Contestant::new("Python map", python::trivial).at_least(10.0),
                    Contestant::new("Python, chunk 1", python::single).one_in(20),
                ],
            ),
        },
        Measurement {
            name: "pool_single",
            unit: Unit::MillionsPerSecond,
            plan: plan(quick, if quick { 100_000 } else { 400_000 }),
            ours: Contestant::new("multiproc", ours::single),
            peers: with_python(
                [
                    Contestant::new("own channel", channels::ours::throughput_64).at_least(0.25),
                    Contestant::new("raw in place", raw::single),
                    Contestant::new("rayon, single", threads::single),
                ],
                [Contestant::new("Python, chunk 1", python::single).at_least(20.0).one_in(10)],
            ),
        },
        Measurement {
            name: "pool_20us",
            unit: Unit::ThousandsPerSecond,
            plan: plan(quick, 10_000),
            ours: Contestant::new("multiproc", ours::long),
            peers: with_python(
                [
                    Contestant::new("ideal", ideal).at_least(0.97),
                    Contestant::new("raw in place", raw::long),
                    Contestant::new("rayon", threads::long),
                ],
                [Contestant::new("Python map", python::long)],
            ),
        },
        Measurement {
            name: "pool_results_1m",
            unit: Unit::ThousandsPerSecond,
            plan: plan(quick, 200),
            ours: Contestant::new("multiproc", ours::results),
            peers: with_python(
                [
                    Contestant::new("raw copy-out", raw::results).at_least(0.8),
                    Contestant::new("raw in place", raw::results_in_place),
                    Contestant::new("rayon", threads::results),
                ],
                [Contestant::new("Python map", python::results)],
            ),
        },
    ]
}

/// Those with inputs and results in shared memory.
fn maps_in_place(quick: bool) -> [Measurement; 4] {
    [
        Measurement {
            name: "pool_into",
            unit: Unit::MillionsPerSecond,
            plan: plan(quick, 1_000_000),
            ours: Contestant::new("map_into", ours::into_array),
            peers: vec![
                Contestant::new("rayon in place", threads::into_slice).at_least(0.5),
                Contestant::new("raw in place", raw::trivial),
            ],
        },
        Measurement {
            name: "pool_slice",
            unit: Unit::MillionsPerSecond,
            plan: plan(quick, 1_000_000),
            ours: Contestant::new("map_slice", ours::slice),
            peers: vec![
                Contestant::new("rayon", threads::trivial).at_least(0.5),
                Contestant::new("plain loop", threads::plain_loop),
            ],
        },
        Measurement {
            name: "pool_results_1m_into",
            unit: Unit::ThousandsPerSecond,
            plan: plan(quick, 200),
            ours: Contestant::new("map_into", ours::results_into),
            peers: vec![Contestant::new("raw in place", raw::results_in_place).at_least(0.8)],
        },
        Measurement {
            name: "pool_results_1m_archived",
            unit: Unit::ThousandsPerSecond,
            plan: plan(quick, 200),
            ours: Contestant::new("get_archived", ours::results_archived),
            peers: vec![Contestant::new("raw in place", raw::results_in_place).at_least(0.8)],
        },
    ]
}

/// 256 MiB for all tasks, the goal.
fn quarter_of_a_gibibyte(plan: &Plan) -> Outcome<f64> {
    Ok(f64::from(256 << 20) / f64::from(plan.count))
}

fn submits(quick: bool) -> [Measurement; 2] {
    [
        Measurement {
            name: "pool_submit",
            unit: Unit::Microseconds,
            plan: plan(quick, if quick { 10_000 } else { 50_000 }),
            ours: Contestant::trips("multiproc", ours::submit),
            peers: with_python(
                [Contestant::trips("raw flag", raw_flag::roundtrip::<64>).at_most(1.2)],
                [Contestant::trips("Python apply", python::submit).one_in(20)],
            ),
        },
        Measurement {
            name: "pool_submit_asleep",
            unit: Unit::Microseconds,
            plan: plan(quick, 1000),
            ours: Contestant::trips("multiproc", ours::submit_asleep),
            peers: vec![Contestant::trips("raw flag", raw_flag::roundtrip_second_asleep).at_most(1.2)],
        },
    ]
}

/// Many workers, many tasks.
fn scale(quick: bool) -> [Measurement; 3] {
    let workers = Plan { warm_up: 0, ..plan(quick, 200) };
    [
        Measurement {
            name: "pool_200_workers",
            unit: Unit::Microseconds,
            plan: workers,
            ours: Contestant::new("a worker of 200", ours::many_workers),
            peers: vec![Contestant::new("spawn, one by one", crate::ours::spawn)],
        },
        Measurement {
            name: "pool_200_memory",
            unit: Unit::Bytes,
            plan: workers,
            ours: Contestant::amount("a worker of 200", ours::many_workers_memory),
            peers: vec![],
        },
        Measurement {
            name: "pool_million_memory",
            unit: Unit::Bytes,
            plan: Plan { rounds: if quick { 1 } else { 7 }, warm_up: 0, count: 1_000_000 },
            ours: Contestant::amount("multiproc", ours::memory),
            peers: vec![Contestant::amount("256 MiB in all", quarter_of_a_gibibyte).at_most(1.0)],
        },
    ]
}
