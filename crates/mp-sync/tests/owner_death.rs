//! Owners of locks that are killed, at a chosen place and at any: the next one is told once, later ones find it suspect.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_shm::{Shared, ShmSafe};
use mp_spawn::Process;
use mp_sync::{Event, LockError, LockResult, Mutex, Once, RecursiveMutex, RwLock};
use mp_testkit::proc::Task;
use mp_testkit::{assert_no_backstop, proc, watchdog};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

#[derive(ShmSafe)]
#[repr(C)]
struct Locks {
    mutex: Mutex<[u64; 2]>,
    recursive: RecursiveMutex<AtomicU64>,
    rwlock: RwLock<[u64; 2]>,
    once: Once,
    held: Event,
    ready: Event,
    turns: AtomicU64,
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, Clone, Copy, Debug)]
enum Kind {
    Mutex,
    Recursive,
    Write,
    Read,
}

/// Takes a lock, calls `inside`, gives it back; says what it was told.
fn with(locks: &Locks, kind: Kind, inside: impl FnOnce()) -> String {
    fn told<G>(result: &LockResult<G>, inside: impl FnOnce()) -> String {
        inside();
        match result {
            Ok(_) => "clean".to_owned(),
            Err(LockError::OwnerDied { owner, .. }) => format!("died: {owner:?}"),
            Err(LockError::Poisoned { .. }) => "poisoned".to_owned(),
            Err(LockError::Failed(failure)) => format!("failed: {failure}"),
        }
    }
    match kind {
        Kind::Mutex => told(&locks.mutex.lock(), inside),
        Kind::Recursive => told(&locks.recursive.lock(), inside),
        Kind::Write => told(&locks.rwlock.write(), inside),
        Kind::Read => told(&locks.rwlock.read(), inside),
    }
}

fn recover(locks: &Locks, kind: Kind) {
    match kind {
        Kind::Mutex => locks.mutex.lock().unwrap_err().into_guard().unwrap().recover(),
        Kind::Recursive => locks.recursive.lock().unwrap_err().into_guard().unwrap().recover(),
        Kind::Write | Kind::Read => locks.rwlock.write().unwrap_err().into_guard().unwrap().recover(),
    }
}

fn park() -> ! {
    loop {
        std::thread::park();
    }
}

fn hold((locks, kind): (Shared<Locks>, Kind)) {
    with(&locks, kind, || {
        locks.held.set();
        park();
    });
}

fn lock_once((locks, kind): (Shared<Locks>, Kind)) -> String {
    locks.ready.set();
    with(&locks, kind, || ())
}

/// A child that is blocked at the lock.
fn blocked_locker(locks: &Shared<Locks>, kind: Kind) -> Process<String> {
    locks.ready.clear();
    let locker = Process::spawn(lock_once, (locks.clone(), kind)).unwrap();
    locks.ready.wait().unwrap();
    Task::leader(locker.pid()).wait_until_blocked();
    locker
}

fn kill(child: Process<()>) {
    child.kill().unwrap();
    assert_eq!(child.join().unwrap_err().signal(), Some(9));
}

/// Kills a holder while two others are blocked: one is told who it was, the other that it is suspect, until it is repaired.
fn holder_is_killed(holder: Kind, next: Kind) {
    let _watchdog = watchdog(LONG);
    let locks = Shared::<Locks>::zeroed().unwrap();
    let child = Process::spawn(hold, (locks.clone(), holder)).unwrap();
    locks.held.wait().unwrap();
    let lockers = [blocked_locker(&locks, next), blocked_locker(&locks, next)];
    // Not joined yet: that would recover in the lockers' place.
    child.kill().unwrap();
    let mut told: Vec<String> = lockers.into_iter().map(|locker| locker.join().unwrap()).collect();
    told.sort_unstable();
    assert_eq!(told, [format!("died: {:?}", Some(child.pid())), "poisoned".to_owned()]);
    assert_eq!(child.join().unwrap_err().signal(), Some(9));
    assert_eq!(with(&locks, next, || ()), "poisoned");
    recover(&locks, holder);
    assert_eq!(with(&locks, next, || ()), "clean");
    assert_eq!(with(&locks, holder, || ()), "clean");
    assert_no_backstop();
}

#[test]
fn c4_the_holder_of_a_mutex_is_killed() {
    holder_is_killed(Kind::Mutex, Kind::Mutex);
}

#[test]
fn c4_the_holder_of_a_recursive_mutex_is_killed() {
    holder_is_killed(Kind::Recursive, Kind::Recursive);
}

#[test]
fn c9_a_writer_is_killed_and_writers_wait() {
    holder_is_killed(Kind::Write, Kind::Write);
}

#[test]
fn c9_a_writer_is_killed_and_readers_wait() {
    holder_is_killed(Kind::Write, Kind::Read);
}

#[test]
fn c9_a_reader_that_is_killed_changes_nothing_and_lets_a_writer_in() {
    let _watchdog = watchdog(LONG);
    let locks = Shared::<Locks>::zeroed().unwrap();
    let reader = Process::spawn(hold, (locks.clone(), Kind::Read)).unwrap();
    locks.held.wait().unwrap();
    let writer = blocked_locker(&locks, Kind::Write);
    reader.kill().unwrap();
    assert_eq!(writer.join().unwrap(), "clean");
    assert_eq!(reader.join().unwrap_err().signal(), Some(9));
    assert_eq!(with(&locks, Kind::Read, || ()), "clean");
    assert!(!locks.rwlock.is_poisoned());
    assert_no_backstop();
}

#[test]
fn c9_a_writer_that_is_killed_while_it_waits_for_readers_changes_nothing() {
    let _watchdog = watchdog(LONG);
    let locks = Shared::<Locks>::zeroed().unwrap();
    let reading = locks.rwlock.read().unwrap();
    let writer = blocked_locker(&locks, Kind::Write);
    let late_reader = blocked_locker(&locks, Kind::Read);
    writer.kill().unwrap();
    assert_eq!(late_reader.join().unwrap(), "clean");
    assert_eq!(writer.join().unwrap_err().signal(), Some(9));
    drop(reading);
    assert_eq!(with(&locks, Kind::Write, || ()), "clean");
    assert_no_backstop();
}

#[test]
fn c9_readers_share_and_writers_do_not() {
    let _watchdog = watchdog(LONG);
    let locks = Shared::<Locks>::zeroed().unwrap();
    let reading = locks.rwlock.read().unwrap();
    let child = Process::spawn(lock_once, (locks.clone(), Kind::Read)).unwrap();
    assert_eq!(child.join().unwrap(), "clean", "another process reads at the same time");
    let refused = std::thread::scope(|scope| {
        scope.spawn(|| locks.rwlock.try_write().unwrap_err().failure()).join().unwrap()
    });
    assert_eq!(refused, Some(mp_sync::Failure::WouldBlock));
    drop(reading);
    let writing = locks.rwlock.write().unwrap();
    let refused = std::thread::scope(|scope| {
        scope.spawn(|| locks.rwlock.try_read().unwrap_err().failure()).join().unwrap()
    });
    assert_eq!(refused, Some(mp_sync::Failure::WouldBlock));
    drop(writing);
}

/// Adds to both numbers of a lock, again and again.
fn change_for_ever((locks, kind): (Shared<Locks>, Kind)) {
    loop {
        let change = |pair: &mut [u64; 2]| {
            pair[0] += 1;
            std::hint::black_box(&pair);
            pair[1] += 1;
        };
        match kind {
            Kind::Mutex | Kind::Recursive => change(&mut locks.mutex.lock().unwrap()),
            Kind::Write | Kind::Read => change(&mut locks.rwlock.write().unwrap()),
        }
        locks.turns.fetch_add(1, Ordering::Relaxed);
    }
}

/// Kills two that change what is guarded, one by one, anywhere; what is half changed is never taken for whole.
fn killed_anywhere(kind: Kind) {
    let _watchdog = watchdog(Duration::from_secs(120));
    let locks = Shared::<Locks>::zeroed().unwrap();
    for round in 0..25 {
        let children: [_; 2] =
            std::array::from_fn(|_| Process::spawn(change_for_ever, (locks.clone(), kind)).unwrap());
        for child in children {
            let enough = locks.turns.load(Ordering::Relaxed) + fastrand::u64(1..2000);
            proc::until(|| locks.turns.load(Ordering::Relaxed) >= enough || child.is_finished());
            kill_quietly(child);
            let repair = |pair: &mut [u64; 2], is_clean: bool| {
                assert!(!is_clean || pair[0] == pair[1], "round {round}: {pair:?} was said to be whole");
                pair[1] = pair[0];
            };
            match kind {
                Kind::Mutex | Kind::Recursive => match locks.mutex.lock() {
                    Ok(mut guard) => repair(&mut guard, true),
                    Err(error) => {
                        let mut guard = error.into_guard().unwrap();
                        repair(&mut guard, false);
                        guard.recover();
                    }
                },
                Kind::Write | Kind::Read => match locks.rwlock.write() {
                    Ok(mut guard) => repair(&mut guard, true),
                    Err(error) => {
                        let mut guard = error.into_guard().unwrap();
                        repair(&mut guard, false);
                        guard.recover();
                    }
                },
            }
        }
    }
    assert_no_backstop();
}

/// The other one's death may have made it panic already.
fn kill_quietly(child: Process<()>) {
    child.kill().unwrap();
    drop(child.join().unwrap_err());
}

#[test]
fn c4_owners_of_a_mutex_killed_anywhere() {
    killed_anywhere(Kind::Mutex);
}

#[test]
fn c9_writers_killed_anywhere() {
    killed_anywhere(Kind::Write);
}

#[test]
fn c4_a_panic_under_a_lock_poisons() {
    let _watchdog = watchdog(LONG);
    let locks = Shared::<Locks>::zeroed().unwrap();
    for kind in [Kind::Mutex, Kind::Recursive, Kind::Write] {
        let panicked = catch_unwind(AssertUnwindSafe(|| with(&locks, kind, || panic!("on purpose"))));
        assert!(panicked.is_err());
        assert_eq!(with(&locks, kind, || ()), "poisoned", "{kind:?}");
        let child = Process::spawn(lock_once, (locks.clone(), kind)).unwrap();
        assert_eq!(child.join().unwrap(), "poisoned", "{kind:?}");
        recover(&locks, kind);
        assert_eq!(with(&locks, kind, || ()), "clean", "{kind:?}");
    }
    let panicked = catch_unwind(AssertUnwindSafe(|| with(&locks, Kind::Read, || panic!("on purpose"))));
    assert!(panicked.is_err());
    assert_eq!(with(&locks, Kind::Write, || ()), "clean", "a reader has changed nothing");
}

#[test]
fn c4_a_lock_taken_while_already_panicking_is_not_poisoned_by_that() {
    struct LocksInDrop<'a>(&'a Locks);
    impl Drop for LocksInDrop<'_> {
        fn drop(&mut self) {
            assert_eq!(with(self.0, Kind::Mutex, || ()), "clean");
        }
    }
    let _watchdog = watchdog(LONG);
    let locks = Shared::<Locks>::zeroed().unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _later = LocksInDrop(&locks);
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    assert_eq!(with(&locks, Kind::Mutex, || ()), "clean");
}

fn run_and_park(locks: Shared<Locks>) {
    locks
        .once
        .call_once(|state| {
            assert!(!state.is_again());
            locks.held.set();
            park();
        })
        .unwrap();
}

fn run_next(locks: Shared<Locks>) -> Option<bool> {
    locks.ready.set();
    let mut again = None;
    locks.once.call_once(|state| again = Some(state.is_again())).unwrap();
    again
}

#[test]
fn c9_the_runner_of_a_once_is_killed() {
    let _watchdog = watchdog(LONG);
    let locks = Shared::<Locks>::zeroed().unwrap();
    let runner = Process::spawn(run_and_park, locks.clone()).unwrap();
    locks.held.wait().unwrap();
    assert!(!locks.once.is_completed());
    let nexts: [_; 2] = std::array::from_fn(|_| {
        locks.ready.clear();
        let next = Process::spawn(run_next, locks.clone()).unwrap();
        locks.ready.wait().unwrap();
        Task::leader(next.pid()).wait_until_blocked();
        next
    });
    runner.kill().unwrap();
    let mut ran: Vec<_> = nexts.into_iter().map(|next| next.join().unwrap()).collect();
    ran.sort_unstable();
    assert_eq!(ran, [None, Some(true)], "one runs it again and knows that, the other finds it done");
    assert!(locks.once.is_completed());
    assert_eq!(runner.join().unwrap_err().signal(), Some(9));
    locks.once.call_once(|_| panic!("it is done")).unwrap();
    assert_no_backstop();
}

#[test]
fn c9_the_runner_of_a_once_panics() {
    let locks = Shared::<Locks>::zeroed().unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| locks.once.call_once(|_| panic!("on purpose"))));
    assert!(panicked.is_err());
    assert!(!locks.once.is_completed());
    let mut again = None;
    locks.once.try_call_once(|state| again = Some(state.is_again())).unwrap();
    assert_eq!(again, Some(true));
}

#[test]
fn c9_a_once_within_itself_errs() {
    let locks = Shared::<Locks>::zeroed().unwrap();
    let mut inner = Ok(());
    locks.once.call_once(|_| inner = locks.once.call_once(|_| ())).unwrap();
    assert_eq!(inner, Err(mp_sync::Failure::AlreadyHeld));
}

#[test]
fn c12_a_recursive_mutex_counts_its_turns() {
    let _watchdog = watchdog(LONG);
    let locks = Shared::<Locks>::zeroed().unwrap();
    let others =
        || std::thread::scope(|scope| scope.spawn(|| locks.recursive.try_lock().is_ok()).join().unwrap());
    let first = locks.recursive.lock().unwrap();
    let second = locks.recursive.try_lock().unwrap();
    let third = locks.recursive.lock_timeout(Duration::ZERO).unwrap();
    second.fetch_add(1, Ordering::Relaxed);
    drop(first);
    assert!(!others(), "two turns are left, in whatever order they are given back");
    drop(third);
    assert!(!others(), "one turn is left");
    drop(second);
    assert!(others());
    assert_eq!(locks.recursive.lock().unwrap().load(Ordering::Relaxed), 1);
    let plain = locks.mutex.lock().unwrap();
    assert_eq!(locks.mutex.lock().unwrap_err().failure(), Some(mp_sync::Failure::AlreadyHeld));
    drop(plain);
}

fn hold_thrice(locks: Shared<Locks>) {
    let _guards = [(); 3].map(|()| locks.recursive.lock().unwrap());
    locks.held.set();
    park();
}

#[test]
fn c12_the_turns_of_the_dead_are_forgotten() {
    let _watchdog = watchdog(LONG);
    let locks = Shared::<Locks>::zeroed().unwrap();
    let holder = Process::spawn(hold_thrice, locks.clone()).unwrap();
    locks.held.wait().unwrap();
    kill(holder);
    assert!(with(&locks, Kind::Recursive, || ()).starts_with("died: Some"));
    recover(&locks, Kind::Recursive);
    let child = Process::spawn(lock_once, (locks.clone(), Kind::Recursive)).unwrap();
    assert_eq!(child.join().unwrap(), "clean", "one turn was given back once");
}

/// Runs the tests of this file whose names begin with `c4_` or `c9_` again, with a variable set.
fn again_with(variable: &str, value: &str) {
    let _watchdog = watchdog(Duration::from_secs(280));
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command
        .args(["c4_", "c9_", "--skip", "again", "--skip", "anywhere", "--test-threads", "2"])
        .env_remove("MP_FORCE")
        .env(variable, value);
    assert!(command.status().unwrap().success());
}

#[test]
fn c4_again_without_waits_on_several_words() {
    again_with("MP_FORCE", "no-waitv");
}

#[test]
fn c4_again_without_backstops() {
    again_with("MP_BACKSTOP", "off");
}
