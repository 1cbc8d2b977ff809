//! `cargo xtask test`: all that a user needs to trust a checkout, with the runner that is there.

use std::process::ExitCode;
use std::time::Instant;

use crate::run::{Call, Result, lasting, rest};

/// The command; what follows `--` goes to the first of the two runs.
pub(crate) fn command(mut args: lexopt::Parser) -> Result<ExitCode> {
    match rest(&mut args)?.split_first() {
        None => run(&[])?,
        Some((dashes, more)) if dashes == "--" => run(more)?,
        Some((word, _)) => return Err(format!("test takes arguments only after `--`: test -- {word} ..")),
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs all tests, then says what ran. The doc tests run also if the others fail, so one run tells all.
pub(crate) fn run(more: &[String]) -> Result<()> {
    let first = if has_nextest() {
        Call::cargo(["nextest", "run", "--workspace"])?
    } else {
        println!("cargo-nextest is not installed (`cargo install cargo-nextest --locked`): using cargo test");
        Call::cargo(["test", "--workspace", "--lib", "--bins", "--tests"])?
    };
    let calls = [first.args(more), Call::cargo(["test", "--workspace", "--doc"])?];
    let mut parts = Vec::new();
    let mut failed = Vec::new();
    for call in &calls {
        let start = Instant::now();
        let good = call.status()?.success();
        parts.push(format!(
            "`{call}` {} ({})",
            if good { "passed" } else { "failed" },
            lasting(start.elapsed())
        ));
        if !good {
            failed.push(format!("`{call}`"));
        }
    }
    println!("{}", parts.join(", "));
    if failed.is_empty() { Ok(()) } else { Err(format!("{} failed", failed.join(" and "))) }
}

fn has_nextest() -> bool {
    Call::new("cargo").args(["nextest", "--version"]).works()
}
