//! `cargo xtask bench`: builds the benchmarks with optimisation and runs them; keeps a record of a whole run.

use std::process::{ExitCode, ExitStatus};

use crate::run::{Call, Result, rest, root};
use crate::soak::{RECORDS, said};

/// The command; every argument goes to the program, which knows them, and its status comes back.
pub(crate) fn command(mut args: lexopt::Parser) -> Result<ExitCode> {
    let mut args = rest(&mut args)?;
    // Everything at full length, and nobody said where the record goes.
    if args.is_empty() {
        let date = said(&["date", "-u", "+%Y%m%d-%H%M%S"])?;
        let file = root()?.join(RECORDS).join(format!("bench-{date}.json"));
        let file = file.to_str().ok_or("the workspace's path is not UTF-8")?;
        args.extend(["--json".to_owned(), file.to_owned()]);
    }
    // Run where the user stands, for the sake of a relative `--json FILE`.
    let call = Call::new("cargo").args(["run", "--release", "-p", "mp-benches", "--bin", "bench", "--"]);
    passed_on(call.args(args).status()?)
}

/// A program's status as our own.
pub(crate) fn passed_on(status: ExitStatus) -> Result<ExitCode> {
    match status.code() {
        Some(code) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(1))),
        None => Err(format!("the program was killed, {status}")),
    }
}
