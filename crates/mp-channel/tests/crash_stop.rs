//! SIGSTOP at every named crash point of the protocols, one after the other: others keep their deadlines, and when the stopped one is
//! continued all come to their end.
//!
//! Build with `RUSTFLAGS="--cfg mp_crash"`.
//!
//! ```text
//! victim ──┐                                       stops at the point, at its n-th pass
//! plain ───┼─ items, plain numbers ─ to each other  small messages only, every call with a timeout: goes on whatever is stopped
//! large ───┘                                       blocks, handles, new channels: stands still while the domain's lock is held
//! ```
#![cfg(mp_crash)]
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "a child finds the point at which it stops in its environment")]

use mp_channel::{Receiver, Select, Sender, channel, growing_channel, spsc};
use mp_shm::{Session, Shared};
use mp_spawn::Process;
use mp_testkit::proc::{self, Task};
use rustix::process::{Pid, Signal, kill_process};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

mod points;

/// A number, small or large content, and now and then an end of a channel.
type Item = (u64, Vec<u64>, Option<Sender<u64>>);

const SHORT: Duration = Duration::from_millis(1);
/// A party that has not come back from its calls after so long is held up.
const PATIENCE: Duration = Duration::from_secs(20);
const ROUNDS_OF_VICTIM: u64 = 40;

/// Points at which the domain's lock is held, or free with a sleeper that only the stopped one would have woken (its wake-up outstanding, or
/// spent on it). The lock has no timed wait, so what needs it (blocks, handles, making and dropping ends) waits for the stopped one.
const UNDER_THE_LOCK: &[&str] = &[
    "block.",
    "deliver.",
    "lock.taken",
    "lock.woken",
    "participants.",
    "recover.",
    "references.",
    "unlock.before_wake",
    "unlock.begin",
];

fn item(number: u64) -> Item {
    let len = if number.is_multiple_of(3) { 400 } else { 3 };
    let end = number.is_multiple_of(5).then(|| channel(1).unwrap().0);
    (number, vec![number; len], end)
}

/// What all three work on.
type Place = (Sender<Item>, Receiver<Item>, Sender<u64>, Receiver<u64>);
/// The place; how many rounds are done; not 0 when it is time to end.
type Part = (Place, Shared<AtomicU64>, Shared<AtomicU64>);

/// A call that waits must have waited, and no error but the end of its time is expected.
fn timed<T, E: std::fmt::Display>(
    call: impl FnOnce() -> Result<T, E>,
    is_timeout: impl FnOnce(&E) -> bool,
) -> Result<Option<T>, String> {
    let start = Instant::now();
    match call() {
        Ok(value) => Ok(Some(value)),
        Err(error) if !is_timeout(&error) => Err(error.to_string()),
        Err(_) if start.elapsed() < SHORT => Err("a timeout was early".to_owned()),
        Err(_) => Ok(None),
    }
}

/// Plain numbers through a channel that is there already.
fn plain_round(place: &Place, round: u64) -> Result<(), String> {
    let (_, _, numbers, numbers_out) = place;
    timed(|| numbers.send_timeout(round, SHORT), mp_channel::SendError::is_full)?;
    timed(|| numbers_out.recv_timeout(SHORT), mp_channel::RecvError::is_empty)?;
    let mut select = Select::new();
    select.end(numbers_out);
    timed(|| select.ready_timeout(SHORT), mp_channel::select::SelectError::is_timeout)?;
    Ok(())
}

/// Blocks, handles, and channels that are made and dropped.
fn large_round(place: &Place, round: u64) -> Result<(), String> {
    let (items, items_out, ..) = place;
    timed(|| items.send_timeout(item(round), SHORT), mp_channel::SendError::is_full)?;
    if let Some((number, content, _)) =
        timed(|| items_out.recv_timeout(SHORT), mp_channel::RecvError::is_empty)?
        && content.iter().any(|&one| one != number)
    {
        return Err(format!("message {number} is corrupt"));
    }
    let (offers, nobody) = channel::<Item>(0).map_err(|error| error.to_string())?;
    timed(|| offers.send_timeout(item(round), SHORT), mp_channel::SendError::is_full)?;
    drop(nobody);
    let (mut lane, mut lane_out) = spsc::channel::<Item>(1).map_err(|error| error.to_string())?;
    lane.send_timeout(item(round), SHORT).map_err(|error| error.to_string())?;
    timed(|| lane.send_timeout(item(round), SHORT), mp_channel::SendError::is_full)?;
    lane_out.recv_timeout(SHORT).map_err(|error| error.to_string())?;
    let (growing, growing_out) = growing_channel::<Item>(1, 1 << 14).map_err(|error| error.to_string())?;
    for number in 0..4 {
        growing.send_timeout(item(number), SHORT).map_err(|error| error.to_string())?;
    }
    for _ in 0..4 {
        growing_out.recv_timeout(SHORT).map_err(|error| error.to_string())?;
    }
    timed(|| lane_out.recv_timeout(SHORT), mp_channel::RecvError::is_empty)?;
    Ok(())
}

fn plain((place, rounds, ends): Part) -> Result<(), String> {
    let mut round = 0;
    while ends.load(Ordering::Acquire) == 0 {
        plain_round(&place, round)?;
        round += 1;
        rounds.store(round, Ordering::Release);
    }
    Ok(())
}

fn large((place, rounds, ends): Part) -> Result<(), String> {
    let mut round = 0;
    while ends.load(Ordering::Acquire) == 0 {
        large_round(&place, round)?;
        round += 1;
        rounds.store(round, Ordering::Release);
    }
    Ok(())
}

fn victim((place, rounds, _): Part) -> Result<(), String> {
    for round in 0..ROUNDS_OF_VICTIM {
        plain_round(&place, round)?;
        large_round(&place, round)?;
        rounds.store(round + 1, Ordering::Release);
    }
    Ok(())
}

/// What came of a stop.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    NotThere,
    AllWentOn,
    HeldUp { plain: bool, large: bool },
}

/// Whether somebody comes back from all calls of two rounds.
fn goes_on(rounds: &AtomicU64) -> bool {
    let (start, before) = (Instant::now(), rounds.load(Ordering::Acquire));
    let mut went_on = false;
    proc::until(|| {
        went_on = rounds.load(Ordering::Acquire) > before + 2;
        went_on || start.elapsed() > PATIENCE
    });
    went_on
}

fn stop_at(point: &str, nth: u32, asks_large: bool) -> Came {
    let (items, items_out) = channel::<Item>(2).unwrap();
    let (numbers, numbers_out) = channel::<u64>(2).unwrap();
    let word = || Shared::<AtomicU64>::zeroed().unwrap();
    let (ends, rounds) = (word(), [word(), word(), word()]);
    let part = |which: usize| -> Part {
        let place = (items.clone(), items_out.clone(), numbers.clone(), numbers_out.clone());
        (place, rounds[which].clone(), ends.clone())
    };
    let plain_party = Process::spawn(plain, part(0)).unwrap();
    let large_party = Process::spawn(large, part(1)).unwrap();
    // Both take part before the victim starts: a child that has not joined the session yet needs the domain's lock for that.
    proc::until(|| rounds[..2].iter().all(|rounds| rounds.load(Ordering::Acquire) > 0));
    // This process has read the variable by now, and not found it; only children see it.
    // SAFETY: no other thread of this process reads or writes the environment: the one test here runs alone, and the thread that
    // stands for the process is parked.
    unsafe { std::env::set_var("MP_CRASH", format!("{point}:{nth}:stop")) };
    let victim = Process::spawn(victim, part(2)).unwrap();
    // SAFETY: as above.
    unsafe { std::env::remove_var("MP_CRASH") };
    // While it is stopped this process may do nothing that needs the domain's lock either.
    let leader = Task::leader(victim.pid());
    let mut stopped = false;
    proc::until(|| {
        stopped = leader.state() == Some('T');
        stopped || proc::has_ended(victim.pid())
    });
    let came = if stopped {
        let plain = !goes_on(&rounds[0]);
        let large = asks_large && !goes_on(&rounds[1]);
        kill_process(Pid::from_raw(victim.pid().cast_signed()).unwrap(), Signal::CONT).unwrap();
        if plain || large { Came::HeldUp { plain, large } } else { Came::AllWentOn }
    } else {
        Came::NotThere
    };
    assert!(victim.wait_timeout(PATIENCE * 3).unwrap(), "{point}:{nth}: it went on when it was continued");
    assert!(goes_on(&rounds[0]) && goes_on(&rounds[1]), "{point}:{nth}: the others went on, too");
    ends.store(1, Ordering::Release);
    for (who, process) in [("victim", victim), ("plain", plain_party), ("large", large_party)] {
        assert!(process.wait_timeout(PATIENCE * 3).unwrap(), "{point}:{nth}: {who} ends");
        let result = process.join();
        assert!(matches!(result, Ok(Ok(()))), "{point}:{nth}: {who}: {result:?}");
    }
    drop((items, items_out, numbers, numbers_out, ends, rounds));
    let audit = Session::current().unwrap().audit();
    assert!(
        audit.processes == 1
            && audit.objects == 0
            && audit.blocks == 0
            && audit.references == 0
            && audit.counts_are_right,
        "{point}:{nth}: left behind: {audit:?}"
    );
    came
}

#[test]
fn b21_a_stop_at_every_crash_point_lets_others_keep_their_deadlines() {
    // Passes a first point, so that this process reads the variable before any child is given it.
    drop(channel::<u64>(1).unwrap());
    let points = points::of_channels();
    let (mut held_up, mut stopped) = (Vec::new(), 0);
    for point in &points {
        for nth in [1, 7] {
            let came = stop_at(point, nth, !UNDER_THE_LOCK.iter().any(|start| point.starts_with(start)));
            stopped += u32::from(came != Came::NotThere);
            if let Came::HeldUp { .. } = came {
                held_up.push((point, nth, came));
            }
        }
    }
    assert!(held_up.is_empty(), "calls overstayed their deadlines, of {stopped} stops: {held_up:#?}");
    assert!(stopped > 60, "only {stopped} stops");
}
