//! The measurements of channels, with their limits, peers and goals.

use super::{
    crossbeam, iceoryx, ipc_channel, ipmpsc, ours, pipe, python, raw_flag, raw_mpmc, raw_ring, shmem_ipc,
    typed,
};
use crate::Outcome;
use crate::measure::{Contestant, Measurement, Plan, Unit};
use std::time::Duration;

/// The plan for `count` operations, or a fifth of them.
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
    let groups =
        [round_trips(quick), small(quick), many(quick), large(quick), of_records(quick), idle(quick)];
    groups.into_iter().flatten().collect()
}

/// `first` and the peers in `more`, which may be none.
fn with<const COUNT: usize>(first: [Contestant; COUNT], more: Vec<Contestant>) -> Vec<Contestant> {
    first.into_iter().chain(more).collect()
}

fn round_trip<const SIZE: usize, const PYTHON_SIZE: u32>(quick: bool, name: &'static str) -> Measurement {
    Measurement {
        name,
        unit: Unit::Nanoseconds,
        plan: plan(quick, 400_000),
        ours: Contestant::trips("multiproc", ours::roundtrip::<SIZE>),
        peers: with(
            [
                Contestant::trips("raw flag", raw_flag::roundtrip::<SIZE>).at_most(1.5),
                Contestant::trips("iceoryx2", iceoryx::roundtrip::<SIZE>).at_most(0.6),
                Contestant::trips("shmem-ipc", shmem_ipc::roundtrip::<SIZE>).one_in(20),
                Contestant::trips("ipmpsc", ipmpsc::roundtrip::<SIZE>).one_in(20),
                Contestant::trips("ipc-channel", ipc_channel::roundtrip::<SIZE>).one_in(20),
                Contestant::trips("pipe", pipe::roundtrip::<SIZE>).one_in(20),
                Contestant::trips("crossbeam", crossbeam::roundtrip::<SIZE>).one_in(20),
            ],
            python::if_here([
                Contestant::trips("Python Pipe", python::pipe_roundtrip::<PYTHON_SIZE>).one_in(80),
                Contestant::trips("Python Queue", python::queue_roundtrip::<PYTHON_SIZE>).one_in(80),
            ]),
        ),
    }
}

fn round_trips(quick: bool) -> Vec<Measurement> {
    vec![
        round_trip::<8, 8>(quick, "roundtrip_8"),
        round_trip::<64, 64>(quick, "roundtrip_64"),
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

/// The peers of small messages; the channel shall be three times as fast as those in shared memory.
fn peers_of_small() -> Vec<Contestant> {
    with(
        [
            Contestant::new("iceoryx2", iceoryx::throughput::<64>).at_least(3.0).one_in(4),
            Contestant::new("shmem-ipc", shmem_ipc::throughput::<64>).at_least(3.0).one_in(2),
            Contestant::new("ipmpsc", ipmpsc::throughput::<64>).at_least(3.0).one_in(2),
            Contestant::new("ipc-channel", ipc_channel::throughput::<64>).one_in(8),
            Contestant::new("pipe", pipe::throughput::<64>).one_in(8),
            Contestant::new("crossbeam", crossbeam::throughput::<64>).one_in(2),
        ],
        python::if_here([
            Contestant::new("Python Pipe", python::pipe::<64>).one_in(40),
            Contestant::new("Python Queue", python::queue::<64>).one_in(80),
        ]),
    )
}

fn small(quick: bool) -> Vec<Measurement> {
    let plan = |count| plan(quick, count);
    vec![
        Measurement {
            name: "throughput_64",
            unit: Unit::MillionsPerSecond,
            plan: plan(8_000_000),
            ours: Contestant::new("multiproc", ours::throughput_64),
            peers: with(
                [
                    Contestant::new("raw ring", raw_ring::index::<64>).at_least(0.5),
                    Contestant::new("raw mpmc", raw_mpmc::one_to_one),
                ],
                peers_of_small(),
            ),
        },
        Measurement {
            name: "throughput_64_spsc",
            unit: Unit::MillionsPerSecond,
            plan: plan(8_000_000),
            ours: Contestant::new("multiproc", ours::throughput_64_spsc),
            peers: vec![
                Contestant::new("raw ring", raw_ring::index::<64>).at_least(0.8),
                Contestant::new("raw stamped ring", raw_ring::stamp::<64>).at_least(0.4),
                Contestant::new("iceoryx2", iceoryx::throughput::<64>).at_least(3.0).one_in(4),
                Contestant::new("shmem-ipc", shmem_ipc::throughput::<64>).at_least(3.0).one_in(2),
                Contestant::new("ipmpsc", ipmpsc::throughput::<64>).at_least(3.0).one_in(2),
            ],
        },
        Measurement {
            name: "throughput_64_batched",
            unit: Unit::MillionsPerSecond,
            plan: plan(16_000_000),
            ours: Contestant::new("multiproc", ours::throughput_64_batched),
            peers: vec![Contestant::new("raw ring, 64", raw_ring::batched::<64>).at_least(0.7)],
        },
    ]
}

fn many(quick: bool) -> Vec<Measurement> {
    let plan = plan(quick, 8_000_000);
    vec![
        Measurement {
            name: "mpmc_4p1c_64",
            unit: Unit::MillionsPerSecond,
            plan,
            ours: Contestant::new("multiproc", ours::many::<1>),
            peers: with(
                [
                    Contestant::new("raw mpmc", raw_mpmc::many::<1>).at_least(0.5),
                    Contestant::new("iceoryx2", iceoryx::four_to_one).at_least(2.0).one_in(5),
                    Contestant::new("ipmpsc", ipmpsc::four_to_one).at_least(2.0).one_in(5),
                    Contestant::new("ipc-channel", ipc_channel::four_to_one).at_least(2.0).one_in(10),
                    Contestant::new("pipe", pipe::many::<1>).at_least(2.0).one_in(10),
                    Contestant::new("crossbeam", crossbeam::many::<1>).at_least(1.0),
                ],
                python::if_here([Contestant::new("Python Queue", python::many::<1>)
                    .at_least(2.0)
                    .one_in(100)]),
            ),
        },
        Measurement {
            name: "mpmc_4p4c_64",
            unit: Unit::MillionsPerSecond,
            plan,
            ours: Contestant::new("multiproc", ours::many::<4>),
            peers: with(
                [
                    Contestant::new("raw mpmc", raw_mpmc::many::<4>).at_least(0.5),
                    Contestant::new("pipe", pipe::many::<4>).at_least(2.0).one_in(10),
                    Contestant::new("crossbeam", crossbeam::many::<4>).at_least(1.0),
                ],
                python::if_here([Contestant::new("Python Queue", python::many::<4>)
                    .at_least(2.0)
                    .one_in(100)]),
            ),
        },
    ]
}

/// Messages of one large size; `slow` is how many of the operations the slowest peers do.
fn large_of<const SIZE: usize, const PYTHON_SIZE: u32>(
    name: &'static str,
    plan: Plan,
    unit: Unit,
    limit: Contestant,
    slow: u32,
) -> Measurement {
    Measurement {
        name,
        unit,
        plan,
        ours: Contestant::new("multiproc", ours::throughput_bytes::<SIZE>),
        peers: with(
            [
                limit,
                Contestant::new("iceoryx2", iceoryx::throughput::<SIZE>),
                Contestant::new("shmem-ipc", shmem_ipc::throughput::<SIZE>),
                Contestant::new("ipmpsc", ipmpsc::throughput::<SIZE>),
                Contestant::new("ipc-channel", ipc_channel::throughput::<SIZE>).one_in(slow),
                Contestant::new("pipe", pipe::throughput::<SIZE>).one_in(slow),
            ],
            python::if_here([Contestant::new("Python Pipe", python::pipe::<PYTHON_SIZE>).one_in(slow)]),
        ),
    }
}

fn large(quick: bool) -> Vec<Measurement> {
    let (millions, thousands) = (Unit::MillionsPerSecond, Unit::ThousandsPerSecond);
    let ring = |run| Contestant::new("raw ring", run);
    vec![
        large_of::<1024, 1024>(
            "throughput_1k",
            plan(quick, 1_600_000),
            millions,
            ring(raw_ring::index::<1024>),
            10,
        ),
        large_of::<65_536, 65_536>(
            "throughput_64k",
            plan(quick, 40_000),
            thousands,
            ring(raw_ring::index::<65_536>).at_least(0.9),
            5,
        ),
        large_of::<1_048_576, 1_048_576>(
            "throughput_1m",
            plan(quick, 4000),
            thousands,
            ring(raw_ring::index::<1_048_576>).at_least(0.9),
            5,
        ),
        Measurement {
            name: "loan_1m",
            unit: Unit::Nanoseconds,
            plan: plan(quick, 2_000_000),
            ours: Contestant::new("multiproc, loan", ours::loan_1m),
            peers: vec![
                Contestant::new("multiproc, 64 B", ours::throughput_64).at_most(1.2),
                Contestant::new("iceoryx2, loan", iceoryx::loan_1m).one_in(2),
            ],
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
            peers: vec![
                Contestant::new("ipc-channel", ipc_channel::typed_1k).at_least(5.0).one_in(4),
                Contestant::new("ipmpsc", ipmpsc::typed_1k).one_in(2),
            ],
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
