//! Measures this library beside the raw limits of the machine and its peers.
//!
//! `bench [--quick] [--only NAME] [--json FILE]`: prints a table, and with `--json` also writes a
//! record with every repetition. `bench --list` prints what there is. Exit status 0: all measured, whether or not a goal was met;
//! 1: a measurement failed or data was wrong; 2: wrong arguments.

use lexopt::prelude::*;
use mp_benches::channels::python;
use mp_benches::measure::{Contestant, Measurement, Plan, Unit};
use mp_benches::{
    Outcome, cells, channels, idle, locks, machine, ours, peers, pool, raw_zygote, report, second,
};
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, fs, io};

const USAGE: &str = "\
Usage: bench [--quick] [--only NAME] [--json FILE]
       bench --list

  --quick      three short rounds instead of seven
  --only NAME  one of the measurements listed below; may be given again
  --json FILE  also write a record with every repetition
  --list       print the names of the measurements";

/// What the command line asks for.
#[derive(Default)]
struct Options {
    quick: bool,
    only: Vec<String>,
    json: Option<PathBuf>,
    list: bool,
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
                Long("list") => options.list = true,
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

/// All measurements, channels first.
fn measurements(quick: bool) -> Vec<Measurement> {
    let mut all = channels::measurements(quick);
    all.extend(starts(quick));
    all.extend(pool::measurements(quick));
    all.extend(other_measurements(quick));
    all
}

/// The plan for `count` operations, or a fifth of them.
fn plan(quick: bool, count: u32) -> Plan {
    Plan {
        rounds: if quick { 3 } else { 7 },
        count: if quick { count / 5 } else { count },
        warm_up: count / 10,
    }
}

/// Those of starting processes.
fn starts(quick: bool) -> [Measurement; 5] {
    let raw = Contestant::new("raw zygote", raw_zygote::fork).at_most(1.3);
    let python = python::if_here([Contestant::new("Python forkserver", python::forkserver).one_in(20)]);
    [
        Measurement {
            name: "spawn",
            unit: Unit::Microseconds,
            plan: plan(quick, 300),
            ours: Contestant::new("multiproc", ours::spawn),
            peers: vec![Contestant::new("std Command", peers::command).at_most(1.1)],
        },
        Measurement {
            name: "spawn_1gib",
            unit: Unit::Microseconds,
            plan: plan(quick, 300),
            ours: Contestant::new("parent of 1 GiB", ours::spawn_with_heap),
            peers: vec![Contestant::new("small parent", ours::spawn).at_most(1.2)],
        },
        Measurement {
            name: "spawn_forkserver",
            unit: Unit::Microseconds,
            plan: plan(quick, 2000),
            ours: Contestant::new("multiproc", ours::spawn_forkserver),
            peers: [raw].into_iter().chain(python).collect(),
        },
        Measurement {
            name: "spawn_forkserver_spaced",
            unit: Unit::Microseconds,
            plan: plan(quick, 2000),
            ours: Contestant::new("multiproc", ours::spawn_forkserver_spaced),
            peers: vec![Contestant::new("raw zygote", raw_zygote::fork_spaced).at_most(1.3)],
        },
        Measurement {
            name: "spawn_forkserver_1gib",
            unit: Unit::Microseconds,
            plan: plan(quick, 2000),
            ours: Contestant::new("parent of 1 GiB", ours::spawn_forkserver_with_heap),
            peers: vec![Contestant::new("small parent", ours::spawn_forkserver).at_most(1.2)],
        },
    ]
}

/// Those of anything else.
fn other_measurements(quick: bool) -> [Measurement; 9] {
    let plan = |count| plan(quick, count);
    [
        Measurement {
            name: "mutex",
            unit: Unit::Nanoseconds,
            plan: plan(10_000_000),
            ours: Contestant::new("multiproc", locks::ours_alone),
            peers: vec![Contestant::new("pthread robust", locks::peer_alone).at_most(1.0)],
        },
        Measurement {
            name: "mutex_2",
            unit: Unit::MillionsPerSecond,
            plan: plan(4_000_000),
            ours: Contestant::new("multiproc", locks::ours_two),
            peers: vec![Contestant::new("pthread robust", locks::peer_two).at_least(1.0)],
        },
        Measurement {
            name: "mutex_4",
            unit: Unit::MillionsPerSecond,
            plan: plan(4_000_000),
            ours: Contestant::new("multiproc", locks::ours_four),
            peers: vec![Contestant::new("pthread robust", locks::peer_four).at_least(1.0)],
        },
        Measurement {
            name: "handover",
            unit: Unit::Microseconds,
            plan: Plan { warm_up: 0, ..plan(300) },
            ours: Contestant::new("kill, p99", locks::handover),
            peers: vec![Contestant::new("1 ms", locks::one_millisecond).at_most(1.0)],
        },
        Measurement {
            name: "idle_event",
            unit: Unit::Microseconds,
            plan: Plan { rounds: 1, warm_up: 0, count: if quick { 10 } else { 60 } },
            ours: Contestant::new("1000 waiters", idle::event),
            peers: vec![Contestant::new("0.1 % of a CPU", idle::a_thousandth).at_most(1.0)],
        },
        Measurement {
            name: "idle_receive",
            unit: Unit::Microseconds,
            plan: Plan { rounds: 1, warm_up: 0, count: if quick { 10 } else { 60 } },
            ours: Contestant::new("1000 receivers", idle::receive),
            peers: vec![Contestant::new("0.1 % of a CPU", idle::a_thousandth).at_most(1.0)],
        },
        Measurement {
            name: "latest_read",
            unit: Unit::Nanoseconds,
            plan: plan(5_000_000),
            ours: Contestant::new("multiproc", ours::latest_read),
            peers: vec![Contestant::new("mmap-sync", cells::mmap_sync_read).at_most(1.5)],
        },
        Measurement {
            name: "latest_write",
            unit: Unit::Nanoseconds,
            plan: plan(2_000_000),
            ours: Contestant::new("multiproc", ours::latest_write),
            peers: vec![Contestant::new("mmap-sync", cells::mmap_sync_write).at_most(0.5)],
        },
        Measurement {
            name: "latest_contended",
            unit: Unit::Nanoseconds,
            plan: plan(200_000),
            ours: Contestant::new("multiproc", ours::latest_contended),
            peers: vec![Contestant::new("cache line", cells::line_roundtrip).at_most(4.0)],
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
            io::stdout().flush()?;
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
        Some(first) if first == second::SECOND => return status(&second::run(arguments)),
        _ => {}
    }
    match Options::parse() {
        Ok(options) if options.help => {
            println!("{USAGE}\n\nMeasurements:");
            measurements(true).iter().for_each(|one| println!("  {}", one.name));
            ExitCode::SUCCESS
        }
        Ok(options) if options.list => {
            measurements(true).iter().for_each(|one| println!("{}", one.name));
            ExitCode::SUCCESS
        }
        Ok(options) => status(&run(&options)),
        Err(error) => {
            eprintln!("bench: {error}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}
