//! The first program: a pool, a channel, a process.
#![cfg_attr(rustfmt, rustfmt_skip)]
#![expect(clippy::unwrap_used, reason = "a first program is short")]

use multiproc::{Pool, Process, Sender, channel};

fn square(n: u64) -> u64 { n * n }

fn worker((name, tx): (String, Sender<String>)) -> usize {
    tx.send(format!("hello from {name}")).unwrap();
    name.len()
}

fn main() -> multiproc::Result<()> {
    let squares: Vec<u64> = Pool::new()?.map(square, 1..=1_000_000)?;

    let (tx, rx) = channel::<String>(64)?;
    let child = Process::spawn(worker, ("Ada".to_owned(), tx))?;   // or spawn!(worker(name, tx)) for many arguments
    println!("{} / {} / {}", rx.recv()?, child.join()?, squares.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a20_the_first_program_runs_in_a_test() {
        super::main().unwrap();
    }
}
