//! SIGKILL at every named crash point of the primitives, one after the other: survivors finish, what is guarded is whole or told to be
//! suspect, nothing is left.
//!
//! Build with `RUSTFLAGS="--cfg mp_crash"`. The points are read from the sources, so a new one is covered by being there.
#![cfg(mp_crash)]
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "a child finds the point at which it dies in its environment")]

use mp_shm::{Session, Shared, ShmSafe};
use mp_spawn::Process;
use mp_sync::{
    Barrier, BarrierError, Condvar, Event, Failure, Latch, LatchError, LockError, LockResult, Mutex, Once,
    Patience, RecursiveMutex, RwLock, Semaphore,
};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Points that only a race reaches.
const RACES: &[&str] = &[
    // Another process must have died with the semaphore's own mutex, which is held for a few instructions.
    "semaphore.repaired",
];

/// How long a wait lasts that may be for nothing.
const SHORT: Duration = Duration::from_millis(1);
/// How long one lasts that must not be.
const LONG: Duration = Duration::from_secs(20);
const ROUNDS: usize = 10;

fn points() -> BTreeSet<String> {
    let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/raw");
    let mut points = BTreeSet::new();
    for file in std::fs::read_dir(sources).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for part in text.split("crash::point(\"").skip(1) {
            points.insert(part.split('"').next().unwrap().to_owned());
        }
    }
    points
}

/// All primitives, used by everybody at once.
#[derive(ShmSafe)]
#[repr(C)]
struct Place {
    mutex: Mutex<[u64; 2]>,
    recursive: RecursiveMutex<AtomicU64>,
    rwlock: RwLock<[u64; 2], 16>,
    tokens: Mutex<u64>,
    changed: Condvar,
    semaphore: Semaphore<16>,
    /// Of this one permits are taken for good: how many there are depends on who died when.
    counted: Semaphore<16>,
    event: Event,
    barrier: Barrier<16>,
    onces: [Once; ROUNDS],
    latch: Latch<16>,
}

impl Place {
    fn make() -> Shared<Self> {
        Shared::with(|place: &mut Self| {
            place.semaphore.set_up(2, Some(2));
            place.counted.set_up(5, None);
            place.barrier.set_up(2);
            place.latch.set_up(1_000_000);
        })
        .unwrap()
    }
}

/// The guard, and whether what it guards is suspect; `None` if the time was over.
fn taken<G>(result: LockResult<G>) -> Result<Option<(G, bool)>, String> {
    match result {
        Ok(guard) => Ok(Some((guard, false))),
        Err(LockError::OwnerDied { guard, .. } | LockError::Poisoned { guard }) => Ok(Some((guard, true))),
        Err(LockError::Failed(failure)) if failure.is_time() => Ok(None),
        Err(LockError::Failed(failure)) => Err(failure.to_string()),
    }
}

fn change(halves: &mut [u64; 2], suspect: bool) -> Result<(), String> {
    if halves[0] != halves[1] && !suspect {
        return Err(format!("torn, and nobody told: {halves:?}"));
    }
    let next = halves[0] + 1;
    *halves = [next; 2];
    Ok(())
}

fn unless_time(failure: Failure) -> Result<(), String> {
    if failure.is_time() { Ok(()) } else { Err(failure.to_string()) }
}

fn locks(place: &Place) -> Result<(), String> {
    if let Some((mut guard, suspect)) = taken(place.mutex.lock_timeout(LONG))? {
        change(&mut guard, suspect)?;
        guard.recover();
    } else {
        return Err("the mutex is not given back".to_owned());
    }
    let Some((guard, _)) = taken(place.recursive.lock_timeout(LONG))? else {
        return Err("the recursive mutex is not given back".to_owned());
    };
    guard.recover();
    let again = place.recursive.lock().map_err(|error| error.to_string())?;
    again.fetch_add(1, Ordering::Relaxed);
    drop((again, guard));
    let Some((guard, suspect)) = taken(place.rwlock.read_timeout(LONG))? else {
        return Err("no place for a reader".to_owned());
    };
    if guard[0] != guard[1] && !suspect {
        return Err("a reader sees halves, and is not told".to_owned());
    }
    drop(guard);
    let Some((mut guard, suspect)) = taken(place.rwlock.write_timeout(LONG))? else {
        return Err("no place for a writer".to_owned());
    };
    change(&mut guard, suspect)?;
    guard.recover();
    Ok(())
}

/// A thread has the mutex, another one waits for it: too short first, then long enough.
fn contended(place: &Place) -> Result<(), String> {
    std::thread::scope(|scope| {
        let holder = scope.spawn(|| {
            let Some((guard, _)) = taken(place.mutex.lock_timeout(LONG))? else {
                return Err("the mutex is not given back".to_owned());
            };
            guard.recover();
            std::thread::sleep(SHORT * 2);
            Ok(())
        });
        std::thread::sleep(SHORT / 2);
        taken(place.mutex.lock_timeout(SHORT / 2))?;
        holder.join().unwrap()?;
        let holder = scope.spawn(|| {
            let guard = taken(place.mutex.lock_timeout(LONG));
            std::thread::sleep(SHORT);
            guard.map(|_| ())
        });
        std::thread::sleep(SHORT / 2);
        let taken = taken(place.mutex.lock_timeout(LONG))?;
        taken.ok_or("the mutex is not given back")?.0.recover();
        holder.join().unwrap()
    })
}

fn conditions(place: &Place) -> Result<(), String> {
    let lost = || "the mutex of the condition is not given back".to_owned();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let (guard, _) = taken(place.tokens.lock_timeout(LONG))?.ok_or_else(lost)?;
            guard.recover();
            match place.changed.wait_timeout(guard, SHORT * 2) {
                Ok((mut guard, _)) => *guard = guard.saturating_sub(1),
                Err(LockError::Failed(failure)) => return Err(failure.to_string()),
                Err(error) => drop(error.into_guard()),
            }
            Ok(())
        });
        std::thread::sleep(SHORT);
        let (mut guard, _) = taken(place.tokens.lock_timeout(LONG))?.ok_or_else(lost)?;
        *guard += 1;
        guard.recover();
        drop(guard);
        place.changed.notify_one();
        waiter.join().unwrap()
    })?;
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| place.event.wait_timeout(SHORT * 2));
        std::thread::sleep(SHORT);
        place.event.set();
        waiter.join().unwrap().or_else(unless_time)
    })?;
    place.event.clear();
    Ok(())
}

fn permits(place: &Place) -> Result<(), String> {
    let semaphore = &place.semaphore;
    drop(semaphore.acquire_timeout(LONG).map_err(|failure| format!("no permit: {failure}"))?);
    semaphore.acquire_many(2, Patience::from(SHORT)).map(drop).or_else(unless_time)?;
    std::thread::scope(|scope| {
        // The thread ends with it, so it comes back.
        let thread = scope.spawn(|| semaphore.acquire_timeout(LONG).map(std::mem::forget));
        thread.join().unwrap()
    })
    .map_err(|failure| format!("no permit: {failure}"))?;
    place.counted.add(1).map_err(|failure| failure.to_string())?;
    place.counted.acquire_timeout(LONG).map_err(|failure| failure.to_string())?.forget();
    Ok(())
}

fn meetings(place: &Place, round: usize) -> Result<(), String> {
    let met = |result: Result<_, BarrierError>| match result {
        Ok(_) | Err(BarrierError::Broken | BarrierError::Failed(Failure::TimedOut)) => Ok(()),
        Err(BarrierError::Failed(failure)) => Err(failure.to_string()),
    };
    met(place.barrier.wait_timeout(SHORT))?;
    place.barrier.reset().map_err(|error| error.to_string())?;
    std::thread::scope(|scope| {
        let other = scope.spawn(|| met(place.barrier.wait_timeout(SHORT * 2)));
        met(place.barrier.wait_timeout(SHORT * 2)).and(other.join().unwrap())
    })?;
    for once in [&place.onces[round], &*Once::shared().map_err(|error| error.to_string())?] {
        once.call_once_timeout(LONG, |_| ()).map_err(|failure| format!("nobody does it: {failure}"))?;
    }
    let failed = |failure: Failure| failure.to_string();
    place.latch.count_down().map_err(failed)?;
    drop(place.latch.ticket().map_err(failed)?);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| place.latch.ticket().map(std::mem::forget));
        thread.join().unwrap()
    })
    .map_err(failed)?;
    if let Err(LatchError::Failed(failure)) = place.latch.wait_timeout(SHORT) {
        unless_time(failure)?;
    }
    place.latch.recover();
    Ok(())
}

/// Uses all primitives in turn, never waiting for long for what may not come.
fn take_part(place: Shared<Place>) -> Result<(), String> {
    for round in 0..ROUNDS {
        locks(&place)?;
        contended(&place)?;
        conditions(&place)?;
        permits(&place)?;
        meetings(&place, round)?;
    }
    Ok(())
}

/// All is as it should be when nobody uses it.
fn at_rest(place: &Place) -> Result<(), String> {
    locks(place)?;
    let all = place.semaphore.acquire_many(2, Patience::from(LONG));
    drop(all.map_err(|failure| format!("permits are lost: {failure}"))?);
    if place.semaphore.available() != 2 || place.semaphore.total() != 2 {
        return Err(format!("permits are lost: {:?}", place.semaphore));
    }
    place.barrier.reset().map_err(|error| error.to_string())?;
    if place.barrier.waiting() != 0 {
        return Err(format!("nobody waits: {:?}", place.barrier));
    }
    Ok(())
}

fn die_at(point: &str, nth: u32) -> bool {
    let place = Place::make();
    // This process has read the variable by now, and not found it; only children see it.
    // SAFETY: no other thread of this process reads or writes the environment: the one test here runs alone, and the thread that
    // stands for the process is parked.
    unsafe { std::env::set_var("MP_CRASH", format!("{point}:{nth}")) };
    let victim = Process::spawn(take_part, place.clone()).unwrap();
    // SAFETY: as above.
    unsafe { std::env::remove_var("MP_CRASH") };
    let survivor = Process::spawn(take_part, place.clone()).unwrap();
    let limit = Duration::from_secs(60);
    let (victim_ended, survivor_ended) =
        (victim.wait_timeout(limit).unwrap(), survivor.wait_timeout(limit).unwrap());
    if !victim_ended || !survivor_ended {
        victim.kill().unwrap();
        survivor.kill().unwrap();
        panic!("{point}:{nth}: victim ended: {victim_ended}, survivor ended: {survivor_ended}");
    }
    let died = match victim.join() {
        Ok(done) => {
            assert_eq!(done, Ok(()), "{point}:{nth}");
            false
        }
        Err(error) => {
            assert_eq!(error.signal(), Some(9), "{point}:{nth}: {error}");
            true
        }
    };
    let survived = survivor.join();
    assert!(matches!(survived, Ok(Ok(()))), "{point}:{nth}: {survived:?}");
    assert_eq!(at_rest(&place), Ok(()), "{point}:{nth}");
    drop(place);
    let audit = Session::current().unwrap().audit();
    assert!(
        audit.processes == 1
            && audit.objects == 0
            && audit.blocks == 0
            && audit.references == 0
            && audit.counts_are_right,
        "{point}:{nth}: left behind: {audit:?}"
    );
    died
}

#[test]
fn a_kill_at_every_crash_point_of_a_primitive_harms_nobody_else() {
    // Passes a first point, so that this process reads the variable before any child is given it.
    assert_eq!(at_rest(&Place::make()), Ok(()));
    let points = points();
    assert!(points.len() > 40, "the sources name their points: {points:?}");
    let mut never = Vec::new();
    for point in &points {
        let died = [1, 2, 7].map(|nth| die_at(point, nth));
        if !died.contains(&true) && !RACES.contains(&point.as_str()) {
            never.push(point);
        }
    }
    assert!(never.is_empty(), "never passed: {never:?}");
}
