//! `cargo xtask ci`: every check that a change has to pass, cheap ones first, each with its duration.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use lexopt::ValueExt;

use crate::builds::Build;
use crate::run::{Call, Result, lasting};
use crate::{arrows, behaviours, linking, test};

/// One check; `run` tells whether there was anything to check.
struct Step {
    name: &'static str,
    run: fn() -> Result<bool>,
}

const STEPS: [Step; 14] = [
    Step { name: "fmt", run: || cargo(&["fmt", "--all", "--check"]) },
    Step { name: "arrows", run: || arrows::check().map(|()| true) },
    Step {
        name: "clippy",
        run: || cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    },
    Step { name: "test", run: || test::run(&[]).map(|()| true) },
    // Once more in one process per test file: the process tests have to pass under both runners.
    Step {
        name: "cargo-test",
        run: || Call::cargo(["test", "--workspace", "--tests", "--quiet"])?.run_tests().map(|()| true),
    },
    Step { name: "features", run: features },
    Step { name: "fallbacks", run: fallbacks },
    Step { name: "docs", run: docs },
    Step { name: "linking", run: || linking::check().map(|()| true) },
    Step { name: "loom", run: || Build::Loom.run() },
    Step { name: "crash", run: || Build::Crash.run() },
    Step { name: "kill", run: kill },
    Step { name: "example", run: examples },
    Step { name: "behaviours", run: || behaviours::report().map(|()| true) },
];

/// How a check went.
enum End {
    Passed,
    Nothing,
    Failed(String),
}

/// The command.
pub(crate) fn command(mut args: lexopt::Parser) -> Result<ExitCode> {
    let mut only = Vec::new();
    while let Some(arg) = args.next().map_err(|error| error.to_string())? {
        match arg {
            lexopt::Arg::Long("only") => {
                let names = args.value().and_then(ValueExt::string).map_err(|error| error.to_string())?;
                only.extend(names.split(',').map(str::to_owned));
            }
            lexopt::Arg::Long("list") => {
                STEPS.iter().for_each(|step| println!("{}", step.name));
                return Ok(ExitCode::SUCCESS);
            }
            other => return Err(other.unexpected().to_string()),
        }
    }
    let mut ends = Vec::new();
    for step in chosen(&only)? {
        println!("\n== {}", step.name);
        let start = Instant::now();
        let end = match (step.run)() {
            Ok(true) => End::Passed,
            Ok(false) => End::Nothing,
            Err(message) => End::Failed(message),
        };
        let time = start.elapsed();
        println!("== {} {} after {}", step.name, word(&end), lasting(time));
        let failed = matches!(end, End::Failed(_));
        ends.push((step.name, end, time));
        if failed {
            break;
        }
    }
    println!("\n{}", table(&ends));
    match ends.pop() {
        Some((name, End::Failed(message), _)) => Err(format!(
            "ci failed at step {name}: {message}\nrun it alone with `cargo xtask ci --only {name}`"
        )),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// The steps of these names in their usual order; all of them if none is named.
fn chosen(only: &[String]) -> Result<Vec<&'static Step>> {
    if let Some(name) = only.iter().find(|name| STEPS.iter().all(|step| step.name != **name)) {
        let names = STEPS.map(|step| step.name).join(", ");
        return Err(format!("there is no step `{name}`; the steps are {names}"));
    }
    Ok(STEPS.iter().filter(|step| only.is_empty() || only.iter().any(|name| name == step.name)).collect())
}

fn word(end: &End) -> &'static str {
    match end {
        End::Passed => "passed",
        End::Nothing => "had nothing to check",
        End::Failed(_) => "FAILED",
    }
}

/// A line for each step and one for the sum.
fn table(ends: &[(&str, End, Duration)]) -> String {
    let line = |name: &str, time: Duration, word: &str| format!("{name:<12} {:>12}  {word}", lasting(time));
    let mut lines: Vec<String> = ends.iter().map(|(name, end, time)| line(name, *time, word(end))).collect();
    lines.push(line("total", ends.iter().map(|(_, _, time)| *time).sum(), "").trim_end().to_owned());
    lines.join("\n")
}

fn cargo(args: &[&str]) -> Result<bool> {
    Call::cargo(args.iter().copied())?.run()?;
    Ok(true)
}

/// What is not built unless it is asked for.
fn features() -> Result<bool> {
    let packages = ["-p", "mp-pool", "-p", "multiproc", "--all-features"];
    Call::cargo(["clippy", "--all-targets"])?.args(packages).args(["--", "-D", "warnings"]).run()?;
    Call::cargo(["test", "--quiet"])?.args(packages).run_tests()?;
    Call::cargo(["doc", "--no-deps"])?.args(packages).flags("RUSTDOCFLAGS", "-D warnings").run()?;
    Ok(true)
}

/// The tests of everything that waits or maps memory, with each fallback forced that a kernel may make necessary.
fn fallbacks() -> Result<bool> {
    let packages = ["-p", "mp-sys", "-p", "mp-shm", "-p", "mp-sync", "-p", "mp-channel"];
    for forced in ["no-waitv", "no-noexec-seal,no-populate,no-membarrier"] {
        Call::cargo(["test", "--tests", "--quiet"])?.args(packages).env("MP_FORCE", forced).run_tests()?;
    }
    // Where there can be no fork servers, those who ask for one get the other method.
    let starts = ["-p", "mp-spawn", "--test", "builder", "--test", "exit", "--test", "tree"];
    Call::cargo(["test", "--quiet"])?.args(starts).env("MP_FORCE", "no-tid-address").run_tests()?;
    let older = "no-waitv,no-pidfd-info,no-proc-children";
    // The largest message takes as long as all the rest, and does not depend on any of these.
    let starts = ["-p", "mp-spawn", "--tests", "--", "--skip", "a16_argument_and_value_may_have_a_gib"];
    Call::cargo(["test", "--quiet"])?.args(starts).env("MP_FORCE", older).run_tests()?;
    Ok(true)
}

fn docs() -> Result<bool> {
    Call::cargo(["doc", "--workspace", "--no-deps"])?.flags("RUSTDOCFLAGS", "-D warnings").run()?;
    Ok(true)
}

/// Short kill runs over every channel and primitive; `cargo xtask soak` does the long ones.
fn kill() -> Result<bool> {
    let run = ["run", "--release", "-p", "mp-benches", "--bin", "soak", "--"];
    Call::cargo(run)?.args(["queue", "--kills", "400", "--seconds", "60"]).run()?;
    let names = Call::cargo(run)?.args(["--list"]).output()?;
    for name in names.lines().filter(|name| *name != "queue") {
        // A round of fuzzing takes half a second.
        let kills = if name.starts_with("fuzz") { "6" } else { "200" };
        Call::cargo(run)?.args([name, "--kills", kills, "--seconds", "20"]).run()?;
    }
    Ok(true)
}

/// The examples a new user runs first, checked against a plain count where they can be.
fn examples() -> Result<bool> {
    let example = |name| Call::cargo(["run", "--release", "--example", name]);
    example("wordcount")?.args(["--", "--check", "crates"]).run()?;
    example("wordcount")?.args(["--", "--chaos", "--check", "crates"]).run()?;
    example("hello")?.run()?;
    example("crash_box")?.run()?;
    let picture = std::env::temp_dir().join(format!("mandelbrot-{}.png", std::process::id()));
    let path = picture.to_str().ok_or("the path of temporary files is not UTF-8")?;
    let drawn = example("mandelbrot")?.args(["--", "--size", "300", "--out", path, "--check"]).run();
    // If it was not written, the run says so.
    let _ = std::fs::remove_file(&picture);
    drawn?;
    example("integration")?.args(["--", "--pieces", "200", "--steps", "1000", "--check"]).run()?;
    example("frozen_archive")?.run()?;
    example("locks_in_a_file")?.run()?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(only: &[&str]) -> Result<Vec<&'static str>> {
        let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
        Ok(chosen(&only)?.iter().map(|step| step.name).collect())
    }

    #[test]
    fn steps_run_in_their_own_order() {
        assert_eq!(names(&["loom", "fmt"]), Ok(vec!["fmt", "loom"]));
        assert_eq!(names(&[]).map(|all| all.len()), Ok(STEPS.len()));
    }

    #[test]
    fn an_unknown_step_is_an_error_that_lists_the_known() {
        let message = names(&["fmt", "tset"]).expect_err("there is no such step");
        assert!(message.contains("`tset`") && message.contains("cargo-test"), "{message}");
    }

    #[test]
    fn the_table_tells_every_end_and_the_sum() {
        let second = Duration::from_secs(1);
        let text = table(&[
            ("fmt", End::Passed, second),
            ("loom", End::Nothing, second),
            ("kill", End::Failed(String::new()), second),
        ]);
        let expected = "\
fmt                 1.0 s  passed
loom                1.0 s  had nothing to check
kill                1.0 s  FAILED
total               3.0 s";
        assert_eq!(text, expected);
    }
}
