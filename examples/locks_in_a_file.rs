//! Two programs that do not know each other share locks in a file; one of them is killed while it holds one.
//!
//! Run with `cargo run -p mp-sync --example locks_in_a_file`: it starts itself twice, as two unrelated programs would be started. In earnest:
//! `locks_in_a_file --count FILE` in one terminal, `locks_in_a_file --die FILE` in another, at any time.

use mp_shm::{FileSegment, ShmSafe};
use mp_sync::{Event, LockError, Mutex};
use std::error::Error;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

/// What lies in the file.
#[derive(ShmSafe)]
#[repr(C)]
struct Board {
    /// Two numbers that are to be equal.
    accounts: Mutex<[u64; 2]>,
    half_way: Event,
}

const TURNS: u64 = 100_000;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--count", file] => count(Path::new(file)),
        ["--die", file] => die(Path::new(file)),
        _ => both(),
    }
}

/// The file, made by whoever comes first.
fn board(file: &Path) -> Result<FileSegment<Board>, Box<dyn Error>> {
    let board = FileSegment::open_or_create(file, |board: &mut Board| board.accounts.set_name("accounts"))?;
    Ok(board)
}

/// Counts, and puts right what another program has left.
fn count(file: &Path) -> Result<(), Box<dyn Error>> {
    let board = board(file)?;
    // The other one is to be in the middle of its work.
    board.half_way.wait()?;
    for _ in 0..TURNS {
        let mut accounts = match board.accounts.lock() {
            Ok(accounts) => accounts,
            Err(LockError::OwnerDied { mut guard, owner }) => {
                println!("process {owner:?} died with the lock and left {:?}", *guard);
                guard[1] = guard[0];
                guard.recover();
                guard
            }
            Err(error) => return Err(error.to_string().into()),
        };
        accounts[0] += 1;
        accounts[1] += 1;
    }
    println!("counted to {:?}", *board.accounts.lock().map_err(|error| error.to_string())?);
    Ok(())
}

/// Dies half-way through a change.
fn die(file: &Path) -> Result<(), Box<dyn Error>> {
    let board = board(file)?;
    let mut accounts = board.accounts.lock().map_err(|error| error.to_string())?;
    accounts[0] += 1;
    board.half_way.set();
    std::process::abort();
}

fn both() -> Result<(), Box<dyn Error>> {
    let file = std::env::temp_dir().join(format!("locks-{}", std::process::id()));
    let start = |what: &str| Command::new(std::env::current_exe()?).arg(what).arg(&file).spawn();
    let (mut counter, mut victim) = (start("--count")?, start("--die")?);
    let (counted, died) = (counter.wait()?, victim.wait()?);
    std::fs::remove_file(&file)?;
    if died.signal().is_none() || !counted.success() {
        return Err(format!("one ended with {died}, the other with {counted}").into());
    }
    Ok(())
}
