//! `cargo xtask bench`: builds the benchmarks with optimisation and runs them.

use std::process::{ExitCode, ExitStatus};

use crate::run::{Call, Result, rest};

/// The command; every argument goes to the program, which knows them, and its status comes back.
pub(crate) fn command(mut args: lexopt::Parser) -> Result<ExitCode> {
    // Run where the user stands, for the sake of a relative `--json FILE`.
    let call = Call::new("cargo").args(["run", "--release", "-p", "mp-benches", "--bin", "bench", "--"]);
    passed_on(call.args(rest(&mut args)?).status()?)
}

/// A program's status as our own.
pub(crate) fn passed_on(status: ExitStatus) -> Result<ExitCode> {
    match status.code() {
        Some(code) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(1))),
        None => Err(format!("the program was killed, {status}")),
    }
}
