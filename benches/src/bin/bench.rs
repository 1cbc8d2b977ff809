//! Measures this library beside the raw limits of the machine and its peers.
//!
//! `bench [--quick] [--only NAME] [--json FILE]`: prints a table, and with `--json` also writes a
//! record with every repetition. Exit status 0: all measured, whether or not a goal was met;
//! 1: a measurement failed or data was wrong; 2: wrong arguments.

use lexopt::prelude::*;
use mp_benches::measure::{Contestant, Goal, Measurement, Plan, Unit};
use mp_benches::{Outcome, cells, idle, locks, machine, ours, peers, report};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, fs};

const USAGE: &str = "\
Usage: bench [--quick] [--only NAME] [--json FILE]

  --quick      three short rounds instead of seven
  --only NAME  roundtrip, throughput, spawn, pool_map, mutex, mutex_2, mutex_4, handover,
               idle_event, idle_receive, latest_read, latest_write or latest_contended; may be given again
  --json FILE  also write a record with every repetition";

/// What the command line asks for.
#[derive(Default)]
struct Options {
    quick: bool,
    only: Vec<String>,
    json: Option<PathBuf>,
    help: bool,
}

impl Options {
    fn parse() -> Result<Self, lexopt::Error> {
        let mut options = Self::default();
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("quick") => options.quick = true,
                Long("only") => options.only.push(parser.value()?.string()?),
                Long("json") => options.json = Some(parser.value()?.into()),
                Short('h') | Long("help") => options.help = true,
                _ => return Err(argument.unexpected()),
            }
        }
        let known = measurements(true);
        match options.only.iter().find(|name| known.iter().all(|one| one.name != **name)) {
            Some(name) => Err(format!("there is no measurement {name:?}").into()),
            None => Ok(options),
        }
    }
}

/// All measurements.
fn measurements(quick: bool) -> [Measurement; 13] {
    let plan = |count: u32| Plan {
        rounds: if quick { 3 } else { 7 },
        count: if quick { count / 5 } else { count },
        warm_up: count / 10,
    };
    [
        Measurement {
            name: "roundtrip",
            unit: Unit::Nanoseconds,
            plan: plan(200_000),
            goal: Goal::AtMost(1.5),
            ours: Contestant { name: "multiproc", run: ours::roundtrip },
            peers: &[Contestant { name: "raw flags", run: peers::raw_roundtrip }],
        },
        Measurement {
            name: "throughput",
            unit: Unit::MillionsPerSecond,
            plan: plan(5_000_000),
            goal: Goal::AtLeast(0.5),
            ours: Contestant { name: "multiproc", run: ours::throughput },
            peers: &[Contestant { name: "raw ring", run: peers::raw_throughput }],
        },
        Measurement {
            name: "spawn",
            unit: Unit::Microseconds,
            plan: plan(300),
            goal: Goal::AtMost(1.1),
            ours: Contestant { name: "multiproc", run: ours::spawn },
            peers: &[Contestant { name: "std Command", run: peers::command }],
        },
        Measurement {
            name: "pool_map",
            unit: Unit::MillionsPerSecond,
            plan: Plan { count: 1_000_000, ..plan(1_000_000) },
            goal: Goal::None,
            ours: Contestant { name: "multiproc", run: ours::pool_map },
            peers: &[
                Contestant { name: "rayon", run: peers::rayon_map },
                Contestant { name: "plain loop", run: peers::plain_map },
            ],
        },
        Measurement {
            name: "mutex",
            unit: Unit::Nanoseconds,
            plan: plan(10_000_000),
            goal: Goal::AtMost(1.0),
            ours: Contestant { name: "multiproc", run: locks::ours_alone },
            peers: &[Contestant { name: "pthread robust", run: locks::peer_alone }],
        },
        Measurement {
            name: "mutex_2",
            unit: Unit::MillionsPerSecond,
            plan: plan(4_000_000),
            goal: Goal::AtLeast(1.0),
            ours: Contestant { name: "multiproc", run: locks::ours_two },
            peers: &[Contestant { name: "pthread robust", run: locks::peer_two }],
        },
        Measurement {
            name: "mutex_4",
            unit: Unit::MillionsPerSecond,
            plan: plan(4_000_000),
            goal: Goal::AtLeast(1.0),
            ours: Contestant { name: "multiproc", run: locks::ours_four },
            peers: &[Contestant { name: "pthread robust", run: locks::peer_four }],
        },
        Measurement {
            name: "handover",
            unit: Unit::Microseconds,
            plan: Plan { warm_up: 0, ..plan(300) },
            goal: Goal::AtMost(1.0),
            ours: Contestant { name: "kill, p99", run: locks::handover },
            peers: &[Contestant { name: "1 ms", run: locks::one_millisecond }],
        },
        Measurement {
            name: "idle_event",
            unit: Unit::Microseconds,
            plan: Plan { rounds: 1, warm_up: 0, count: if quick { 10 } else { 60 } },
            goal: Goal::AtMost(1.0),
            ours: Contestant { name: "1000 waiters", run: idle::event },
            peers: &[Contestant { name: "0.1 % of a CPU", run: idle::a_thousandth }],
        },
        Measurement {
            name: "idle_receive",
            unit: Unit::Microseconds,
            plan: Plan { rounds: 1, warm_up: 0, count: if quick { 10 } else { 60 } },
            goal: Goal::AtMost(1.0),
            ours: Contestant { name: "1000 receivers", run: idle::receive },
            peers: &[Contestant { name: "0.1 % of a CPU", run: idle::a_thousandth }],
        },
        Measurement {
            name: "latest_read",
            unit: Unit::Nanoseconds,
            plan: plan(5_000_000),
            goal: Goal::AtMost(1.5),
            ours: Contestant { name: "multiproc", run: ours::latest_read },
            peers: &[Contestant { name: "mmap-sync", run: cells::mmap_sync_read }],
        },
        Measurement {
            name: "latest_write",
            unit: Unit::Nanoseconds,
            plan: plan(2_000_000),
            goal: Goal::AtMost(0.5),
            ours: Contestant { name: "multiproc", run: ours::latest_write },
            peers: &[Contestant { name: "mmap-sync", run: cells::mmap_sync_write }],
        },
        Measurement {
            name: "latest_contended",
            unit: Unit::Nanoseconds,
            plan: plan(200_000),
            goal: Goal::AtMost(4.0),
            ours: Contestant { name: "multiproc", run: ours::latest_contended },
            peers: &[Contestant { name: "cache line", run: cells::line_roundtrip }],
        },
    ]
}

/// Runs what was asked for.
fn run(options: &Options) -> Outcome<()> {
    println!("{}", report::HEAD);
    let mut records = Vec::new();
    for measurement in measurements(options.quick) {
        if options.only.is_empty() || options.only.iter().any(|name| name == measurement.name) {
            let scores = measurement.run()?;
            print!("{}", report::table(&measurement, &scores));
            records.push(report::record(&measurement, &scores));
        }
    }
    if let Some(path) = &options.json {
        let record = json!({ "machine": machine::describe()?, "measurements": records });
        let told = |error| format!("{}: {error}", path.display());
        fs::write(path, format!("{record:#}\n")).map_err(told)?;
    }
    Ok(())
}

/// The exit status for `outcome`; tells an error.
fn status(outcome: &Outcome<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    match arguments.next() {
        Some(first) if first == peers::EXIT_NOW => return ExitCode::SUCCESS,
        Some(first) if first == peers::RAW_PEER => return status(&peers::second_process(arguments)),
        _ => {}
    }
    match Options::parse() {
        Ok(options) if options.help => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Ok(options) => status(&run(&options)),
        Err(error) => {
            eprintln!("bench: {error}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}
