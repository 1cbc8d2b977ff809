//! The tools of multiproc: test, ci, bench, behaviours, soak.
//!
//! This file owns the command line: it picks the command and turns its end into an exit code.
#![forbid(unsafe_code)]

mod arrows;
mod behaviours;
mod bench;
mod builds;
mod ci;
mod elf;
mod finder;
mod linking;
mod promises;
mod require;
mod run;
mod soak;
mod test;
mod workspace;

use std::process::ExitCode;

use run::Result;

const USAGE: &str = "\
cargo xtask <command>

  test [-- ARGS]         all tests: nextest if it is installed, else cargo test; then the doc tests.
                         ARGS go to the first of the two.
  ci [--only NAME,..]    every check that a change has to pass, in order; stops at the first failure
     [--list]            print the names of the checks
  behaviours             the promises of BEHAVIOURS.md and the tests that hold them
     [--require ID,..]   run the tests of these promises; fails if one is missing or fails
     [--json FILE]       write the table as JSON too
  bench [ARGS]           the benchmarks, release build; ARGS: [--quick] [--only NAME] [--json FILE]
                         without ARGS, its record goes to benches/record/
  soak NAME              a long kill run; its record goes to benches/record/
     [--minutes N]       how long, 10 if not given
     [--kills N] [--seed N]
     [--list]            print the names
";

fn main() -> ExitCode {
    let mut args = lexopt::Parser::from_env();
    let done = match args.next() {
        Ok(Some(lexopt::Arg::Value(name))) => match name.to_str() {
            Some("test") => test::command(args),
            Some("ci") => ci::command(args),
            Some("behaviours") => behaviours::command(args),
            Some("bench") => bench::command(args),
            Some("soak") => soak::command(args),
            Some("help") => help(),
            _ => Err(format!("there is no command {}; `cargo xtask help` lists them", name.display())),
        },
        Ok(Some(lexopt::Arg::Long("help") | lexopt::Arg::Short('h'))) => help(),
        Ok(Some(other)) => Err(format!("a command comes first: {}\n\n{USAGE}", other.unexpected())),
        Ok(None) => Err(format!("which command?\n\n{USAGE}")),
        Err(error) => Err(error.to_string()),
    };
    done.unwrap_or_else(|message| {
        eprintln!("xtask: {message}");
        ExitCode::FAILURE
    })
}

fn help() -> Result<ExitCode> {
    print!("{USAGE}");
    Ok(ExitCode::SUCCESS)
}
