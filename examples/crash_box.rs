//! Runs code that may crash, hang or eat all memory, each piece in a process of its own with limits of time and memory, and tells how each ended.
//! This program goes on whatever they do.
//!
//! Run with `cargo run --example crash_box`.

use multiproc::{Process, Resource, Stdio};
use std::fmt;
use std::hint::black_box;
use std::io::Read;
use std::time::{Duration, Instant};

/// How long a trial may take.
const TIME: Duration = Duration::from_secs(3);
/// Bytes of memory that each process of a trial may use.
const MEMORY: u64 = 64 << 20;

type Trial = fn(u64) -> u64;

/// What is tried; each function runs in a process of its own.
const TRIALS: [(&str, Trial); 7] = [
    ("returns", double),
    ("panics", panic),
    ("aborts", abort),
    ("overflows its stack", dig),
    ("loops for ever", spin),
    ("eats memory", eat),
    ("starts others, hangs", breed),
];

fn double(n: u64) -> u64 {
    2 * n
}

fn panic(n: u64) -> u64 {
    panic!("{n} is not a number that I like")
}

fn abort(_: u64) -> u64 {
    std::process::abort()
}

/// Calls itself until there is no stack left: a bad address, as a wild pointer in a C library would be.
fn dig(n: u64) -> u64 {
    if black_box(n) == 0 { 0 } else { 1 + black_box(dig(n + 1)) }
}

fn spin(mut n: u64) -> u64 {
    loop {
        n = black_box(n);
    }
}

fn eat(_: u64) -> u64 {
    let mut hoard = Vec::new();
    loop {
        hoard.push(black_box(vec![1_u8; 1 << 20]));
    }
}

/// Starts a process that starts another one, down to the last; all of them hang.
fn breed(n: u64) -> u64 {
    let _child = (n > 0).then(|| Process::spawn(breed, n - 1));
    loop {
        std::thread::park();
    }
}

/// What became of a trial.
enum Fate {
    Returned(u64),
    /// Why, and the first line that it wrote to standard error.
    Died(String, String),
    /// It took too long, and was ended with so many processes below it.
    Ended(usize),
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Returned(value) => write!(f, "returned {value}"),
            Self::Died(why, said) if said.is_empty() => f.write_str(why),
            Self::Died(why, said) => write!(f, "{why}: {said}"),
            Self::Ended(0) => write!(f, "ended after {TIME:?}"),
            Self::Ended(below) => write!(f, "ended after {TIME:?}, and {below} processes below it"),
        }
    }
}

/// Runs `f` in the box.
fn try_out(f: Trial) -> multiproc::Result<Fate> {
    let mut child = Process::builder()
        .limit(Resource::AddressSpace, MEMORY)
        .limit(Resource::Core, 0)
        .env("RUST_BACKTRACE", "0")
        .stderr(Stdio::Piped)
        // It does not outlive this program, however that ends.
        .daemon(true)
        .spawn(f, 3)?;
    match child.join_timeout(TIME) {
        Some(Ok(value)) => Ok(Fate::Returned(value)),
        Some(Err(error)) => {
            let mut said = String::new();
            // A panic brings its message along.
            if let (Some(_), Some(stderr)) = (error.signal(), &mut child.stderr) {
                stderr.read_to_string(&mut said)?;
            }
            Ok(Fate::Died(
                error.to_string(),
                said.lines().find(|line| !line.is_empty()).unwrap_or_default().to_owned(),
            ))
        }
        None => {
            let below = child.kill_tree()?.descendants.len();
            child.wait()?;
            Ok(Fate::Ended(below))
        }
    }
}

fn main() -> multiproc::Result<()> {
    println!("{:<22} {:>9}  what became of it", "trial", "time");
    for (name, f) in TRIALS {
        let (start, fate) = (Instant::now(), try_out(f)?);
        println!("{name:<22} {:>6} ms  {fate}", start.elapsed().as_millis());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trial_ends_as_its_name_says() {
        let fates = TRIALS.map(|(_, f)| try_out(f).unwrap().to_string());
        let words = [
            "returned 6",
            "not a number",
            "SIGABRT",
            "SIGSEGV",
            "ended after",
            "allocation",
            "3 processes below",
        ];
        for (fate, word) in fates.iter().zip(words) {
            assert!(fate.contains(word), "{fate:?} has no {word:?}");
        }
    }
}
