//! Integrates 4 / (1 + x²) from 0 to 1, which is π, with a pool of processes; one piece in the middle aborts the process that works at it, as a failed
//! assertion in a C library does. That piece alone is lost, its failure is told, and the others are done by the worker that takes the
//! place of the dead one and by those beside it. Then the piece is done again, this time without the fault.
//!
//! `integration [--pieces N] [--steps N] [--workers N] [--check]`. Run with `cargo run --release --example integration`.
//!
//! Exit status 0: done; 1: the comparison failed, or the pool did; 2: wrong arguments.

use lexopt::prelude::*;
use multiproc::{Pool, Task, TaskError};
use std::error::Error;
use std::f64::consts::PI;
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "\
Usage: integration [--pieces N] [--steps N] [--workers N] [--check]

  --pieces N   pieces that the interval is cut into, each a task; else 1000
  --steps N    steps of a piece; else 20000
  --workers N  worker processes; else one for each CPU
  --check      compare with one process, and see that one piece failed and how";

/// How far from π the result may be.
const TOLERANCE: f64 = 1e-9;
/// The signal of `abort`.
const SIGABRT: i32 = 6;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The task: where the piece begins and ends, its steps, and whether it kills its worker.
type Piece = (f64, f64, u32, bool);

fn function(x: f64) -> f64 {
    4.0 / (1.0 + x * x)
}

/// The integral over a piece, by Simpson's rule in each step. Runs in a worker.
fn integrate((from, to, steps, poison): Piece) -> f64 {
    if poison {
        std::process::abort();
    }
    let width = (to - from) / f64::from(steps);
    let step = |number: u32| {
        let left = from + width * f64::from(number);
        function(left) + 4.0 * function(left + width / 2.0) + function(left + width)
    };
    (0..steps).map(step).sum::<f64>() * width / 6.0
}

/// What became of the pieces.
struct Done {
    /// The integral of each, in order; none if it failed.
    parts: Vec<Option<f64>>,
    /// Each piece that failed, and why.
    failures: Vec<(usize, TaskError)>,
}

impl Done {
    /// The sum of what there is.
    fn sum(&self) -> f64 {
        self.parts.iter().flatten().sum()
    }
}

/// Gives all pieces to the pool, and waits for each.
fn run_all(pool: &Pool, pieces: &[Piece]) -> Outcome<Done> {
    let submit = |piece: &Piece| pool.submit(integrate, *piece);
    let tasks: Vec<Task<f64>> = pieces.iter().map(submit).collect::<Result<_, _>>()?;
    let mut done = Done { parts: vec![], failures: vec![] };
    for (number, task) in tasks.into_iter().enumerate() {
        let result = task.get();
        done.parts.push(result.as_ref().ok().copied());
        done.failures.extend(result.err().map(|error| (number, error)));
    }
    Ok(done)
}

/// The pieces of the interval; the one in the middle is poison.
fn cut(count: u32, steps: u32) -> Vec<Piece> {
    let place = |number: u32| f64::from(number) / f64::from(count);
    (0..count).map(|number| (place(number), place(number + 1), steps, number == count / 2)).collect()
}

/// The command line.
struct Options {
    pieces: u32,
    steps: u32,
    workers: Option<usize>,
    check: bool,
    help: bool,
}

impl Options {
    fn parse() -> Outcome<Self> {
        let mut options = Self { pieces: 1000, steps: 20_000, workers: None, check: false, help: false };
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("pieces") => options.pieces = parser.value()?.parse()?,
                Long("steps") => options.steps = parser.value()?.parse()?,
                Long("workers") => options.workers = Some(parser.value()?.parse()?),
                Long("check") => options.check = true,
                Short('h') | Long("help") => options.help = true,
                _ => return Err(argument.unexpected().into()),
            }
        }
        if options.pieces == 0 || options.steps == 0 || options.workers == Some(0) {
            return Err("--pieces, --steps and --workers must be at least 1".into());
        }
        Ok(options)
    }
}

/// Integrates, does the lost piece again, and compares; whether the comparison was well.
fn run(options: &Options) -> Outcome<bool> {
    let mut pieces = cut(options.pieces, options.steps);
    let mut builder = Pool::builder();
    if let Some(workers) = options.workers {
        builder = builder.workers(workers);
    }
    let pool = builder.build()?;
    let start = Instant::now();
    let mut done = run_all(&pool, &pieces)?;
    for (number, error) in &done.failures {
        println!("piece {number} failed: {error}");
    }
    let there = done.parts.iter().flatten().count();
    println!("{there} of {} pieces are done, their sum is {:.12}", pieces.len(), done.sum());

    // What is lost is known, so it can be done again: here without the fault.
    let mut lost = vec![];
    for (number, _) in &done.failures {
        pieces[*number].3 = false;
        lost.push(pieces[*number]);
    }
    let again = run_all(&pool, &lost)?;
    for ((number, _), part) in done.failures.iter().zip(&again.parts) {
        done.parts[*number] = *part;
    }
    let (sum, stats) = (done.sum(), pool.stats());
    println!(
        "the rest is done, too: {sum:.12}, {:.1e} from pi; {} of {} workers died; {:.2} s",
        (sum - PI).abs(),
        stats.workers_lost,
        stats.workers_started,
        start.elapsed().as_secs_f64()
    );
    if !options.check {
        return Ok(true);
    }
    let expected: f64 = pieces.iter().map(|piece| integrate(*piece)).sum();
    let told = matches!(&done.failures[..], [(number, error)]
        if *number == pieces.len() / 2 && error.signal() == Some(SIGABRT));
    // The same pieces summed in the same order: the same bits.
    let equal = sum.to_bits() == expected.to_bits() && (sum - PI).abs() < TOLERANCE;
    let whole = stats.workers_lost == 1 && pool.worker_pids().len() == pool.workers();
    println!("check: failure {}, sum {}, pool {}", word(told), word(equal), word(whole));
    Ok(told && equal && whole)
}

fn word(well: bool) -> &'static str {
    if well { "as expected" } else { "WRONG" }
}

fn main() -> ExitCode {
    let options = match Options::parse() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("integration: {error}");
            return ExitCode::from(2);
        }
    };
    if options.help {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("integration: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_interval_and_one_is_poison() {
        let pieces = cut(7, 10);
        assert_eq!((pieces[0].0, pieces[6].1), (0.0, 1.0));
        assert!(pieces.windows(2).all(|pair| pair[0].1 == pair[1].0));
        assert_eq!(pieces.iter().filter(|piece| piece.3).count(), 1);
    }

    #[test]
    fn one_piece_fails_and_the_rest_is_done() -> Outcome<()> {
        let options = Options { pieces: 20, steps: 1000, workers: Some(2), check: true, help: false };
        assert!(run(&options)?);
        Ok(())
    }
}
