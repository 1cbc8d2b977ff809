//! Semaphores: bounds, permits of the dead, permits taken for good.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_shm::Shared;
use mp_spawn::Process;
use mp_sync::{Event, Failure, Patience, Semaphore};
use mp_testkit::proc::Task;
use mp_testkit::{assert_no_backstop, proc, watchdog};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

type Sem = Shared<Semaphore<8>>;

fn park() -> ! {
    loop {
        std::thread::park();
    }
}

fn hold((semaphore, count, held): (Sem, u32, Shared<Event>)) {
    let _permit = semaphore.acquire_many(count, Patience::Forever).unwrap();
    held.set();
    park();
}

fn holder(semaphore: &Sem, count: u32) -> Process<()> {
    let held = Event::shared().unwrap();
    let child = Process::spawn(hold, (semaphore.clone(), count, held.clone())).unwrap();
    held.wait().unwrap();
    child
}

fn take((semaphore, count, ready): (Sem, u32, Shared<Event>)) -> u32 {
    ready.set();
    semaphore.acquire_many(count, Patience::Forever).unwrap().count()
}

fn blocked_taker(semaphore: &Sem, count: u32) -> Process<u32> {
    let ready = Event::shared().unwrap();
    let child = Process::spawn(take, (semaphore.clone(), count, ready.clone())).unwrap();
    ready.wait().unwrap();
    Task::leader(child.pid()).wait_until_blocked();
    child
}

#[test]
fn c1_a_bounded_semaphore_refuses_more_than_its_bound() {
    let semaphore = Semaphore::<8>::bounded(2).unwrap();
    assert_eq!(semaphore.add(1), Err(Failure::OverRelease));
    let permit = semaphore.acquire().unwrap();
    assert_eq!(semaphore.add(1), Err(Failure::OverRelease), "a permit that is held counts");
    permit.forget();
    assert_eq!(semaphore.total(), 1);
    semaphore.add(1).unwrap();
    assert_eq!(semaphore.add(1), Err(Failure::OverRelease));
    assert_eq!((semaphore.available(), semaphore.total()), (2, 2));
}

#[test]
fn c1_an_unbounded_semaphore_refuses_more_than_it_can_count() {
    let semaphore = Semaphore::<8>::shared(1).unwrap();
    semaphore.add(u32::MAX - 1).unwrap();
    assert_eq!(semaphore.add(1), Err(Failure::OverRelease));
    assert_eq!(semaphore.total(), u32::MAX);
}

#[test]
fn c1_more_holders_than_slots_are_refused() {
    let semaphore = Semaphore::<2>::shared(5).unwrap();
    let permits = [semaphore.acquire().unwrap(), semaphore.acquire().unwrap()];
    assert_eq!(semaphore.try_acquire().unwrap_err(), Failure::TooManyHolders);
    assert_eq!(semaphore.available(), 3, "nothing was taken");
    drop(permits);
    assert_eq!(semaphore.available(), 5);
}

#[test]
fn c8_permits_of_a_killed_process_come_back_to_one_that_is_blocked() {
    let _watchdog = watchdog(LONG);
    let semaphore = Semaphore::<8>::shared(3).unwrap();
    let dead = holder(&semaphore, 2);
    let taker = blocked_taker(&semaphore, 3);
    // Not joined yet: that would recover in the taker's place.
    dead.kill().unwrap();
    assert_eq!(taker.join().unwrap(), 3);
    assert_eq!(dead.join().unwrap_err().signal(), Some(9));
    assert_eq!(semaphore.available(), 3);
    assert_no_backstop();
}

#[test]
fn c8_permits_of_a_killed_process_come_back_to_one_that_comes_later() {
    let _watchdog = watchdog(LONG);
    let semaphore = Semaphore::<8>::bounded(3).unwrap();
    let dead = [holder(&semaphore, 1), holder(&semaphore, 2)];
    assert_eq!(semaphore.try_acquire().unwrap_err(), Failure::WouldBlock);
    for child in dead {
        child.kill().unwrap();
        assert_eq!(child.join().unwrap_err().signal(), Some(9));
    }
    drop(semaphore.acquire_many(3, Patience::None).unwrap());
    assert_eq!((semaphore.available(), semaphore.total()), (3, 3));
    assert_eq!(semaphore.add(1), Err(Failure::OverRelease), "none came back twice");
}

#[test]
fn c8_several_that_are_blocked_share_what_comes_back() {
    let _watchdog = watchdog(LONG);
    let semaphore = Semaphore::<8>::shared(3).unwrap();
    let dead = holder(&semaphore, 3);
    let takers = [1, 1, 1].map(|count| blocked_taker(&semaphore, count));
    dead.kill().unwrap();
    for taker in takers {
        assert_eq!(taker.join().unwrap(), 1);
    }
    assert_eq!(dead.join().unwrap_err().signal(), Some(9));
    assert_no_backstop();
}

fn forget((semaphore, held): (Sem, Shared<Event>)) {
    semaphore.acquire().unwrap().forget();
    held.set();
    park();
}

#[test]
fn c8_forgotten_permits_do_not_come_back() {
    let _watchdog = watchdog(LONG);
    let semaphore = Semaphore::<8>::shared(2).unwrap();
    let held = Event::shared().unwrap();
    let child = Process::spawn(forget, (semaphore.clone(), held.clone())).unwrap();
    held.wait().unwrap();
    child.kill().unwrap();
    assert_eq!(child.join().unwrap_err().signal(), Some(9));
    drop(semaphore.acquire().unwrap());
    assert_eq!((semaphore.available(), semaphore.total()), (1, 1));
    semaphore.add(1).unwrap();
    drop(semaphore.acquire_many(2, Patience::None).unwrap());
}

/// Takes and gives back for ever.
fn churn((semaphore, turns): (Sem, Shared<Semaphore<1>>)) {
    loop {
        let _permit = semaphore.acquire_many(fastrand::u32(1..=3), Patience::Forever).unwrap();
        turns.add(1).unwrap();
    }
}

#[test]
fn c8_permits_come_back_from_processes_killed_anywhere() {
    let _watchdog = watchdog(Duration::from_secs(120));
    let semaphore = Semaphore::<8>::bounded(3).unwrap();
    let turns = Semaphore::<1>::shared(0).unwrap();
    for _ in 0..20 {
        let children: [_; 3] =
            std::array::from_fn(|_| Process::spawn(churn, (semaphore.clone(), turns.clone())).unwrap());
        for child in children {
            let enough = turns.total() + fastrand::u32(1..500);
            proc::until(|| turns.total() >= enough);
            child.kill().unwrap();
            assert_eq!(child.join().unwrap_err().signal(), Some(9));
        }
        drop(semaphore.acquire_many(3, Patience::Forever).unwrap());
        assert_eq!((semaphore.available(), semaphore.total()), (3, 3));
    }
    assert_no_backstop();
}

/// Runs the tests of this file whose names begin with `c8_` again, with a variable set.
fn again_with(variable: &str, value: &str) {
    let _watchdog = watchdog(Duration::from_secs(280));
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command
        .args(["c8_", "--skip", "again", "--skip", "anywhere", "--test-threads", "2"])
        .env_remove("MP_FORCE")
        .env(variable, value);
    assert!(command.status().unwrap().success());
}

#[test]
fn c8_again_without_waits_on_several_words() {
    again_with("MP_FORCE", "no-waitv");
}

#[test]
fn c8_again_without_backstops() {
    again_with("MP_BACKSTOP", "off");
}

#[test]
fn c13_a_thread_holds_1024_locks_and_no_more_and_gives_back_what_it_has() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let locks = mp_shm::Shared::<[mp_sync::Mutex<u64>; 1024]>::zeroed().unwrap();
    let semaphore = Semaphore::<4>::shared(1).unwrap();
    let permit = semaphore.acquire().unwrap();
    let mut guards: Vec<_> = locks[1..].iter().map(|lock| lock.lock().unwrap()).collect();
    let too_many = Some(mp_sync::Failure::TooManyHeld);
    assert_eq!(locks[0].lock().unwrap_err().failure(), too_many);
    // Giving back takes the semaphore's own lock for a moment: that is beyond the limit, on purpose.
    drop(permit);
    assert_eq!(semaphore.available(), 1);
    guards.push(locks[0].lock().unwrap());
    assert_eq!(semaphore.acquire().err(), too_many);
    drop(guards);
    drop(semaphore.acquire().unwrap());
}
