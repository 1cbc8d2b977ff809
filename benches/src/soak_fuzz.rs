//! Memory overwritten at random while processes use it: `fuzz_untrusted` every word of untrusted channels, `fuzz_control` the control words
//! of rings, `fuzz_decode` the bytes of messages before they are decoded.
//!
//! ```text
//! child: sends, with time-outs ──┐
//! this process: sends, receives ─┤ channel ── overwritten by a thread of this process
//! ```
//!
//! What is checked: every call comes back, nobody crashes. Any answer will do. A channel is used for half a second, then a new one: what is
//! garbled for good would only be told so again and again. One "kill" is one such round.

use multiproc::shm::codec::{DecodeError, decode_inline};
use multiproc::{Process, Session, channel, untrusted};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The names of these soaks.
pub const NAMES: [&str; 3] = ["fuzz_untrusted", "fuzz_control", "fuzz_decode"];

/// Something with lengths, pointers and a discriminant to be wrong.
type Item = (u64, String, Vec<Option<u32>>, BTreeMap<u16, String>);

const SHORT: Duration = Duration::from_millis(2);
/// What a round lasts.
const ROUND: Duration = Duration::from_millis(500);
/// No end of a round for so long is a call that does not come back.
const STUCK: Duration = Duration::from_secs(30);

fn item(number: u64) -> Item {
    let text = "x".repeat(usize::try_from(number % 50).unwrap_or(0));
    (number, text.clone(), vec![None, Some(7)], [(1, text), (2, String::new())].into())
}

fn send_whatever((sender, seconds): (untrusted::Sender<Item>, f64)) -> u64 {
    let start = Instant::now();
    let mut calls = 0;
    while start.elapsed().as_secs_f64() < seconds {
        // Any answer will do.
        let _ = sender.send_timeout(item(calls), SHORT);
        calls += 1;
    }
    calls
}

/// A value that is likely to be wrong in an interesting way.
fn garble(random: &mut fastrand::Rng, old: u64, other: u64) -> u64 {
    match random.u32(..5) {
        0 => random.u64(..),
        1 => other,
        2 => old ^ 1 << random.u32(..64),
        3 => random.u64(..64),
        _ => old.wrapping_add(random.u64(..5)).wrapping_sub(2),
    }
}

fn overwrite(memory: &[AtomicU32], seed: u64, stop: &AtomicBool) -> u64 {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let word = &memory[random.usize(..memory.len())];
        let other = memory[random.usize(..memory.len())].load(Ordering::Relaxed);
        let new = garble(&mut random, word.load(Ordering::Relaxed).into(), other.into());
        #[expect(clippy::cast_possible_truncation, reason = "whatever is left of it")]
        word.store(new as u32, Ordering::Relaxed);
        count += 1;
        // A garbled channel mostly refuses; give it time to be used in between.
        if random.u32(..32) == 0 {
            std::thread::yield_now();
        }
    }
    count
}

fn overwrite_words(words: &[&AtomicU64], seed: u64, stop: &AtomicBool) -> u64 {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let word = words[random.usize(..words.len())];
        let other = words[random.usize(..words.len())].load(Ordering::Relaxed);
        word.store(garble(&mut random, word.load(Ordering::Relaxed), other), Ordering::Relaxed);
        count += 1;
        if random.u32(..16) == 0 {
            std::thread::yield_now();
        }
    }
    count
}

/// What a round did: values overwritten, calls that came back, and how many of those had success.
type Round = (u64, u64, u64);

fn round_untrusted(seed: u64) -> multiproc::Result<Round> {
    let mut random = fastrand::Rng::with_seed(seed);
    let (sender, receiver) = untrusted::channel::<Item>(random.usize(1..9), 200)?;
    let child = Process::spawn(send_whatever, (sender.clone(), ROUND.as_secs_f64()))?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let attacker = scope.spawn(|| overwrite(sender.memory(), seed, &stop));
        let own = sender.clone();
        let writer = scope.spawn(move || send_whatever((own, ROUND.as_secs_f64())));
        let (start, mut calls, mut good) = (Instant::now(), 0, 0);
        while start.elapsed() < ROUND {
            good += u64::from(receiver.recv_timeout(SHORT).is_ok());
            calls += 1;
        }
        // The child may have found at its start that this is no channel any more.
        calls += writer.join().unwrap_or(0) + child.join().unwrap_or(0);
        stop.store(true, Ordering::Relaxed);
        Ok((attacker.join().unwrap_or(0), calls, good))
    })
}

fn round_control(seed: u64) -> multiproc::Result<Round> {
    let mut random = fastrand::Rng::with_seed(seed);
    let (sender, receiver) = channel::<(u64, u64)>(random.usize(1..9))?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let attacker = scope.spawn(|| overwrite_words(&sender.control_words(), seed, &stop));
        let (own, start) = (sender.clone(), Instant::now());
        let writer = scope.spawn(move || {
            let mut calls = 0;
            while start.elapsed() < ROUND {
                // Any answer will do.
                let _ = own.send_timeout((calls, calls), SHORT);
                calls += 1;
            }
            calls
        });
        let (mut calls, mut good) = (0, 0);
        while start.elapsed() < ROUND {
            good += u64::from(receiver.recv_timeout(SHORT).is_ok());
            let _ = receiver.len();
            calls += 1;
        }
        calls += writer.join().unwrap_or(0);
        stop.store(true, Ordering::Relaxed);
        Ok((attacker.join().unwrap_or(0), calls, good))
    })
}

fn round_decode(seed: u64) -> multiproc::Result<Round> {
    let mut random = fastrand::Rng::with_seed(seed);
    let session = Session::current()?;
    let (start, mut garbled, mut good) = (Instant::now(), 0, 0);
    while start.elapsed() < ROUND {
        let value = item(random.u64(..));
        let Ok(encoded) = multiproc::shm::codec::encode(session, &value, 0) else { continue };
        let mut bytes = multiproc::rkyv::util::AlignedVec::<16>::new();
        bytes.extend_from_slice(encoded.bytes());
        for _ in 0..random.usize(1..8) {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        let len = if random.u32(..8) == 0 { random.usize(..bytes.len()) } else { bytes.len() };
        good += u64::from(decode_inline::<Item, DecodeError>(session, &bytes[..len]).is_ok());
        good +=
            u64::from(decode_inline::<multiproc::Sender<u64>, DecodeError>(session, &bytes[..len]).is_ok());
        garbled += 1;
    }
    Ok((garbled, garbled * 2, good))
}

/// Runs the soak of this name, if it is one of these; a "kill" is a round.
pub fn soak(name: &str, time: Duration, rounds_max: u64, seed: u64) -> Option<multiproc::Result<Value>> {
    let round = match name {
        "fuzz_untrusted" => round_untrusted,
        "fuzz_control" => round_control,
        "fuzz_decode" => round_decode,
        _ => return None,
    };
    Some(run(name, round, time, rounds_max, seed))
}

fn run(
    name: &str,
    round: fn(u64) -> multiproc::Result<Round>,
    time: Duration,
    rounds_max: u64,
    seed: u64,
) -> multiproc::Result<Value> {
    let start = Instant::now();
    let (mut rounds, mut overwritten, mut calls, mut good) = (0, 0, 0, 0);
    let mut longest = Duration::ZERO;
    while start.elapsed() < time && rounds < rounds_max {
        let began = Instant::now();
        let (values, came_back, had_success) = round(seed.wrapping_add(rounds))?;
        longest = longest.max(began.elapsed());
        overwritten += values;
        calls += came_back;
        good += had_success;
        rounds += 1;
    }
    let mut broken = Vec::new();
    if longest > STUCK {
        broken.push(format!("a round took {} s", longest.as_secs()));
    }
    Ok(json!({
        "name": name, "seed": seed, "seconds": start.elapsed().as_secs(), "rounds": rounds, "overwritten": overwritten,
        "calls": calls, "good": good, "longest_round_ms": u64::try_from(longest.as_millis()).unwrap_or(u64::MAX),
        "broken": broken,
    }))
}
