//! Long kill tests: `soak NAME [--seconds N] [--kills N] [--seed N] [--json FILE]`, `soak --list`.
//!
//! Ends after so many seconds or kills, whichever is first. Exit status 1 if a promise was broken: what was found is printed and is in
//! the JSON. Backstops are off: a lost wake-up is a hang, which the watch on progress reports.

use mp_benches::{soak_fuzz, soak_pool, soak_queue, soak_starts, soak_sync};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool, Box<dyn std::error::Error>> {
    use lexopt::prelude::*;
    let (mut name, mut seconds, mut kills, mut json) = (None, 60, u64::MAX, None);
    let mut seed = fastrand::u64(..);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("list") => {
                let all = soak_queue::names()
                    .chain(soak_sync::NAMES)
                    .chain(soak_fuzz::NAMES)
                    .chain([soak_starts::NAME, soak_pool::NAME]);
                all.for_each(|name| println!("{name}"));
                return Ok(true);
            }
            Long("seconds") => seconds = parser.value()?.parse()?,
            Long("kills") => kills = parser.value()?.parse()?,
            Long("seed") => seed = parser.value()?.parse()?,
            Long("json") => json = Some(parser.value()?),
            Value(value) if name.is_none() => name = Some(value.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    if std::env::var_os("MP_BACKSTOP").is_none_or(|value| value != "off") {
        // It is read once, and children inherit it: start again with it set.
        let status = std::process::Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .arg(format!("--seed={seed}"))
            .env("MP_BACKSTOP", "off")
            .status()?;
        return Ok(status.success());
    }
    let time = Duration::from_secs(seconds);
    let name = name.ok_or("name a soak; --list names them")?;
    let report = soak_queue::soak(&name, time, kills, seed)
        .or_else(|| soak_sync::soak(&name, time, kills, seed))
        .or_else(|| soak_fuzz::soak(&name, time, kills, seed))
        .or_else(|| soak_starts::soak(&name, time, kills, seed))
        .or_else(|| soak_pool::soak(&name, time, kills, seed))
        .ok_or_else(|| format!("no soak is called {name}; --list names them"))??;
    println!("{report:#}");
    if let Some(path) = json {
        std::fs::write(path, format!("{report:#}\n"))?;
    }
    Ok(report["broken"].as_array().is_some_and(Vec::is_empty))
}
