//! The contestant that is not this library where processes are started: a program started with the standard library.

use crate::Outcome;
use crate::measure::{Plan, starts};
use std::env;
use std::process::Command;
use std::time::Duration;

/// The argument that makes the program end at once.
pub const EXIT_NOW: &str = "--exit-now";
/// Starts this program with [`EXIT_NOW`], and waits for it, again and again.
///
/// # Errors
/// When a start fails.
pub fn command(plan: &Plan) -> Outcome<Duration> {
    let program = env::current_exe()?;
    starts(plan, Duration::ZERO, |_| {
        let status = Command::new(&program).arg(EXIT_NOW).status()?;
        if status.success() { Ok(()) } else { Err(format!("it ended with {status}").into()) }
    })
}
