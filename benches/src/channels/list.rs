//! The measurements of channels, with their limits, peers and goals.

use super::{raw_flag, raw_mpmc, raw_ring, ours, typed};
use crate::Outcome;
use crate::measure::{Contestant, Measurement, Plan, Unit};
use std::time::Duration;

/// The plan for about `count` operations; `count` is divisible by 80, so that shares and parts are.
fn plan(quick: bool, count: u32) -> Plan {
    Plan {
        rounds: if quick { 3 } else { 7 },
        count: if quick { count / 5 } else { count },
        warm_up: count / 20,
    }
}

/// All of them.
#[must_use]
pub fn measurements(quick: bool) -> Vec<Measurement> {
    let groups = [round_trips(quick), small(quick), many(quick), large(quick), of_records(quick), idle(quick)];
    groups.into_iter().flatten().collect()
}

fn round_trips(quick: bool) -> Vec<Measurement> {
    vec![
        Measurement {
            name: "roundtrip_8",
            unit: Unit::Nanoseconds,
            plan: plan(quick, 200_000),
            ours: Contestant::trips("multiproc", ours::roundtrip::<8>),
            peers: vec![
                Contestant::trips("raw flag", raw_flag::roundtrip::<8>).at_most(1.5),
            ],
        },
        Measurement {
            name: "roundtrip_64",
            unit: Unit::Nanoseconds,
            plan: plan(quick, 200_000),
            ours: Contestant::trips("multiproc", ours::roundtrip::<64>),
            peers: vec![
                Contestant::trips("raw flag", raw_flag::roundtrip::<64>).at_most(1.5),
            ],
        },
        Measurement {
            name: "roundtrip_asleep",
            unit: Unit::Microseconds,
            plan: plan(quick, 2000),
            ours: Contestant::trips("multiproc", ours::roundtrip_asleep),
            peers: vec![Contestant::trips("raw futex", raw_flag::roundtrip_asleep).at_most(1.15)],
        },
        Measurement {
            name: "roundtrip_one_cpu",
            unit: Unit::Nanoseconds,
            plan: plan(quick, 100_000),
            ours: Contestant::trips("multiproc", ours::roundtrip_one_cpu),
            peers: vec![Contestant::trips("raw futex", raw_flag::roundtrip_one_cpu).at_most(1.15)],
        },
    ]
}

fn small(quick: bool) -> Vec<Measurement> {
    vec![
        Measurement {
            name: "throughput_64",
            unit: Unit::MillionsPerSecond,
            plan: plan(quick, 8_000_000),
            ours: Contestant::new("multiproc", ours::throughput_64),
            peers: vec![
                Contestant::new("raw ring", raw_ring::index::<64>).at_least(0.5),
                Contestant::new("raw mpmc", raw_mpmc::one_to_one),
            ],
        },
        Measurement {
            name: "throughput_64_spsc",
            unit: Unit::MillionsPerSecond,
            plan: plan(quick, 8_000_000),
            ours: Contestant::new("multiproc", ours::throughput_64_spsc),
            peers: vec![
                Contestant::new("raw ring", raw_ring::index::<64>).at_least(0.8),
                Contestant::new("raw stamped ring", raw_ring::stamp::<64>).at_least(0.4),
            ],
        },
        Measurement {
            name: "throughput_64_batched",
            unit: Unit::MillionsPerSecond,
            plan: plan(quick, 20_000_000),
            ours: Contestant::new("multiproc", ours::throughput_64_batched),
            peers: vec![Contestant::new("raw ring, 64", raw_ring::batched::<64>).at_least(0.7)],
        },
    ]
}

fn many(quick: bool) -> Vec<Measurement> {
    vec![
        Measurement {
            name: "mpmc_4p1c_64",
            unit: Unit::MillionsPerSecond,
            plan: plan(quick, 8_000_000),
            ours: Contestant::new("multiproc", ours::many::<1>),
            peers: vec![
                Contestant::new("raw mpmc", raw_mpmc::many::<1>).at_least(0.5),
            ],
        },
        Measurement {
            name: "mpmc_4p4c_64",
            unit: Unit::MillionsPerSecond,
            plan: plan(quick, 8_000_000),
            ours: Contestant::new("multiproc", ours::many::<4>),
            peers: vec![
                Contestant::new("raw mpmc", raw_mpmc::many::<4>).at_least(0.5),
            ],
        },
    ]
}

fn large(quick: bool) -> Vec<Measurement> {
    vec![
        Measurement {
            name: "throughput_1k",
            unit: Unit::MillionsPerSecond,
            plan: plan(quick, 2_000_000),
            ours: Contestant::new("multiproc", ours::throughput_bytes::<1024>),
            peers: vec![Contestant::new("raw ring", raw_ring::index::<1024>)],
        },
        Measurement {
            name: "throughput_64k",
            unit: Unit::ThousandsPerSecond,
            plan: plan(quick, 80_000),
            ours: Contestant::new("multiproc", ours::throughput_bytes::<65_536>),
            peers: vec![Contestant::new("raw ring", raw_ring::index::<65_536>).at_least(0.9)],
        },
        Measurement {
            name: "throughput_1m",
            unit: Unit::ThousandsPerSecond,
            plan: plan(quick, 4000),
            ours: Contestant::new("multiproc", ours::throughput_bytes::<1_048_576>),
            peers: vec![Contestant::new("raw ring", raw_ring::index::<1_048_576>).at_least(0.9)],
        },
        Measurement {
            name: "loan_1m",
            unit: Unit::Nanoseconds,
            plan: plan(quick, 2_000_000),
            ours: Contestant::new("multiproc, loan", ours::loan_1m).one_in(1000),
            peers: vec![Contestant::new("multiproc, 64 B", ours::throughput_64).at_most(1.2)],
        },
    ]
}

fn of_records(quick: bool) -> Vec<Measurement> {
    vec![
        Measurement {
            name: "typed_1k",
            unit: Unit::MillionsPerSecond,
            plan: plan(quick, 1_000_000),
            ours: Contestant::new("multiproc", ours::typed_1k),
            peers: vec![],
        },
        Measurement {
            name: "typed_1k_encode",
            unit: Unit::Nanoseconds,
            plan: plan(quick, 2_000_000),
            ours: Contestant::new("multiproc", typed::encode),
            peers: vec![Contestant::new("rkyv::to_bytes", typed::to_bytes).at_most(0.85)],
        },
        Measurement {
            name: "typed_1k_in_process",
            unit: Unit::Nanoseconds,
            plan: plan(quick, 1_000_000),
            ours: Contestant::new("multiproc", ours::typed_in_process),
            peers: vec![Contestant::new("encode + validate", typed::encode_and_validate).at_most(1.7)],
        },
    ]
}

/// 16 KiB, the goal for a channel.
fn sixteen_kibibytes(_: &Plan) -> Outcome<f64> {
    Ok(16_384.0)
}

/// 20 microseconds for each channel, the goal.
fn twenty_microseconds(plan: &Plan) -> Outcome<Duration> {
    Ok(Duration::from_micros(20) * plan.count)
}

fn idle(quick: bool) -> Vec<Measurement> {
    let rounds = if quick { 3 } else { 7 };
    let channels = |count| Plan { rounds, warm_up: 0, count };
    vec![
        Measurement {
            name: "idle_channel_memory",
            unit: Unit::Bytes,
            plan: channels(100),
            ours: Contestant::amount("multiproc", ours::channel_memory),
            peers: vec![Contestant::amount("16 KiB", sixteen_kibibytes).at_most(1.0)],
        },
        Measurement {
            name: "channels_10000",
            unit: Unit::Microseconds,
            plan: channels(10_000),
            ours: Contestant::new("multiproc", ours::channel_creation),
            peers: vec![Contestant::new("20 us", twenty_microseconds).at_most(1.0)],
        },
        Measurement {
            name: "channels_10000_memory",
            unit: Unit::Bytes,
            plan: channels(10_000),
            ours: Contestant::amount("multiproc", ours::channel_memory),
            peers: vec![Contestant::amount("16 KiB", sixteen_kibibytes).at_most(1.0)],
        },
    ]
}
