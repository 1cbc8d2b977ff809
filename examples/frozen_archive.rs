//! One archive in a sealed file, read in place by ten processes that were started with the standard library.
//!
//! Run with `cargo run -p mp-shm --example frozen_archive`. Each child gets the file as its standard input, and looks a word up. Nobody copies the
//! archive, and nobody can change it: not the children, not the parent.

use mp_shm::{SealedFrozen, rkyv};
use std::collections::BTreeMap;
use std::error::Error;
use std::io::stdin;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

/// What is frozen: where each word is found.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Index {
    places: BTreeMap<String, Vec<u64>>,
}

/// The argument that makes this program a child.
const LOOK_UP: &str = "--look-up";
/// Children.
const CHILDREN: u64 = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some(LOOK_UP), Some(word)) => look_up(&word),
        _ => freeze(|word| {
            let mut child = Command::new(std::env::current_exe()?);
            child.args([LOOK_UP, word]);
            Ok(child)
        }),
    }
}

/// The child's work.
fn look_up(word: &str) -> Result<(), Box<dyn Error>> {
    let index = SealedFrozen::<Index>::from_fd(stdin().as_fd().try_clone_to_owned()?)?;
    let places = index.places.get(word).ok_or("no such word")?;
    println!("{word}: {} places, the last {}", places.len(), places.iter().max().ok_or("nowhere")?);
    Ok(())
}

/// The parent's: freezes an index, and starts the children as `child` says.
fn freeze(child: impl Fn(&str) -> Result<Command, Box<dyn Error>>) -> Result<(), Box<dyn Error>> {
    let word =
        |number: u64| (format!("word{number}"), (0..1000).map(|place| place * CHILDREN + number).collect());
    let index = SealedFrozen::new(&Index { places: (0..CHILDREN).map(word).collect() })?;
    println!("{} bytes, frozen", index.len_bytes());
    let start = |number: u64| -> Result<_, Box<dyn Error>> {
        let mut child = child(&format!("word{number}"))?;
        Ok(child.stdin(Stdio::from(index.fd().try_clone_to_owned()?)).spawn()?)
    };
    let children: Vec<_> = (0..CHILDREN).map(start).collect::<Result<_, _>>()?;
    for mut child in children {
        let status = child.wait()?;
        if !status.success() {
            return Err(format!("a child ended with {status}").into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORD: &str = "FROZEN_ARCHIVE_WORD";

    #[test]
    fn d10_ten_programs_read_one_sealed_archive() -> Result<(), Box<dyn Error>> {
        freeze(|word| {
            let mut child = Command::new(std::env::current_exe()?);
            child.args(["--exact", "--ignored", "tests::the_child"]).env(WORD, word).stdout(Stdio::null());
            Ok(child)
        })
    }

    #[test]
    #[ignore = "the child of the test above"]
    fn the_child() -> Result<(), Box<dyn Error>> {
        look_up(&std::env::var(WORD)?)
    }
}
