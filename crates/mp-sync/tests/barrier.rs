//! Barriers: order of arrival, rounds, everything that breaks them, the dead.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_shm::Shared;
use mp_spawn::Process;
use mp_sync::{Barrier, BarrierError, Failure};
use mp_testkit::proc::Task;
use mp_testkit::{assert_no_backstop, proc, watchdog};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

type Gate = Shared<Barrier<8>>;

/// How one wait ended, as text.
fn outcome(barrier: &Barrier<8>) -> String {
    match barrier.wait() {
        Ok(arrival) if arrival.is_leader() => format!("{} leads", arrival.index()),
        Ok(arrival) => arrival.index().to_string(),
        Err(error) => error.to_string(),
    }
}

fn wait_once(barrier: Gate) -> String {
    outcome(&barrier)
}

fn broken() -> String {
    BarrierError::Broken.to_string()
}

/// Children that wait at the barrier, asleep.
fn waiting(barrier: &Gate, count: u32) -> Vec<Process<String>> {
    let before = barrier.waiting();
    let children: Vec<_> = (0..count).map(|_| Process::spawn(wait_once, barrier.clone()).unwrap()).collect();
    proc::until(|| barrier.waiting() == before + count);
    children.iter().for_each(|child| Task::leader(child.pid()).wait_until_blocked());
    children
}

fn joined(children: Vec<Process<String>>) -> Vec<String> {
    let mut outcomes: Vec<String> = children.into_iter().map(|child| child.join().unwrap()).collect();
    outcomes.sort_unstable();
    outcomes
}

#[test]
fn c3_indexes_are_unique_and_the_last_one_leads() {
    let _watchdog = watchdog(LONG);
    let barrier = Barrier::shared(4).unwrap();
    let children = waiting(&barrier, 3);
    assert_eq!(outcome(&barrier), "3 leads");
    assert_eq!(joined(children), ["0", "1", "2"]);
    assert_eq!(barrier.waiting(), 0);
    assert_no_backstop();
}

const ROUNDS: u32 = 1000;

/// Goes through many rounds; gives the sum of its indexes and how often it led.
fn many_rounds(barrier: Gate) -> (u32, u32) {
    let (mut sum, mut led) = (0, 0);
    for _ in 0..ROUNDS {
        let arrival = barrier.wait().unwrap();
        assert_eq!(arrival.is_leader(), arrival.index() == 3);
        sum += arrival.index();
        led += u32::from(arrival.is_leader());
    }
    (sum, led)
}

#[test]
fn c3_a_thousand_rounds_with_processes_and_threads() {
    let _watchdog = watchdog(Duration::from_secs(170));
    let barrier: Gate = Barrier::shared(4).unwrap();
    let children: [_; 2] = std::array::from_fn(|_| Process::spawn(many_rounds, barrier.clone()).unwrap());
    let threads: [_; 2] = std::array::from_fn(|_| {
        let barrier = barrier.clone();
        std::thread::spawn(move || many_rounds(barrier))
    });
    let mut all: Vec<(u32, u32)> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    all.extend(children.into_iter().map(|child| child.join().unwrap()));
    assert_eq!(all.iter().map(|one| one.0).sum::<u32>(), ROUNDS * (1 + 2 + 3), "each index once a round");
    assert_eq!(all.iter().map(|one| one.1).sum::<u32>(), ROUNDS, "one leader a round");
    assert_no_backstop();
}

#[test]
fn c3_abort_is_told_to_all_until_reset() {
    let _watchdog = watchdog(LONG);
    let barrier = Barrier::shared(4).unwrap();
    let children = waiting(&barrier, 3);
    barrier.abort().unwrap();
    assert_eq!(joined(children), [broken(), broken(), broken()]);
    assert!(barrier.is_broken());
    assert_eq!(barrier.wait(), Err(BarrierError::Broken), "who comes later is told, too");
    barrier.reset().unwrap();
    assert!(!barrier.is_broken());
    let children = waiting(&barrier, 3);
    assert_eq!(outcome(&barrier), "3 leads");
    assert_eq!(joined(children), ["0", "1", "2"]);
    assert_no_backstop();
}

#[test]
fn c3_reset_is_told_to_those_who_wait_alone() {
    let _watchdog = watchdog(LONG);
    let barrier = Barrier::shared(3).unwrap();
    let children = waiting(&barrier, 2);
    barrier.reset().unwrap();
    // The next round may begin before those have left.
    let next = waiting(&barrier, 2);
    assert_eq!(joined(children), [broken(), broken()]);
    assert_eq!(outcome(&barrier), "2 leads");
    assert_eq!(joined(next), ["0", "1"]);
    barrier.reset().unwrap();
    assert!(!barrier.is_broken());
    assert_no_backstop();
}

#[test]
fn c3_a_time_that_is_over_breaks_the_barrier_for_all() {
    let _watchdog = watchdog(LONG);
    let barrier = Barrier::shared(3).unwrap();
    let children = waiting(&barrier, 1);
    let (begin, limit) = (Instant::now(), Duration::from_millis(20));
    assert_eq!(barrier.wait_timeout(limit), Err(BarrierError::Failed(Failure::TimedOut)));
    assert!(begin.elapsed() >= limit);
    assert_eq!(joined(children), [broken()]);
    assert!(barrier.is_broken());
    assert_no_backstop();
}

#[test]
fn c3_for_how_many_it_can_be() {
    assert!(std::panic::catch_unwind(|| Barrier::<8>::shared(0)).is_err());
    assert!(std::panic::catch_unwind(|| Barrier::<8>::shared(9)).is_err());
    let full = Barrier::<8>::shared(8).unwrap();
    assert_eq!(full.parties(), 8);
}

#[test]
fn c5_one_that_is_killed_at_a_barrier_breaks_it_for_the_others() {
    let _watchdog = watchdog(LONG);
    let barrier = Barrier::shared(4).unwrap();
    let mut children = waiting(&barrier, 3);
    let dead = children.remove(1);
    // Not joined yet: that would recover in the others' place.
    dead.kill().unwrap();
    assert_eq!(joined(children), [broken(), broken()]);
    assert_eq!(dead.join().unwrap_err().signal(), Some(9));
    assert_eq!(outcome(&barrier), broken());
    barrier.reset().unwrap();
    let children = waiting(&barrier, 3);
    assert_eq!(outcome(&barrier), "3 leads");
    assert_eq!(joined(children), ["0", "1", "2"]);
    assert_no_backstop();
}

#[test]
fn c5_one_that_dies_alone_is_found_by_the_next_who_comes() {
    let _watchdog = watchdog(LONG);
    let barrier = Barrier::shared(2).unwrap();
    let dead = waiting(&barrier, 1).remove(0);
    dead.kill().unwrap();
    assert_eq!(dead.join().unwrap_err().signal(), Some(9));
    assert_eq!(outcome(&barrier), broken(), "the dead do not count as arrived");
}

/// Waits for ever, round by round.
fn wait_for_ever(barrier: Gate) {
    while barrier.wait().is_ok() {}
}

#[test]
fn c5_processes_killed_anywhere_at_a_barrier_strand_nobody() {
    let _watchdog = watchdog(Duration::from_secs(120));
    for _ in 0..20 {
        let barrier: Gate = Barrier::shared(3).unwrap();
        let children: [_; 3] =
            std::array::from_fn(|_| Process::spawn(wait_for_ever, barrier.clone()).unwrap());
        // Somewhere in the rounds.
        for _ in 0..fastrand::u32(0..3000) {
            std::hint::black_box(barrier.waiting());
        }
        let [dead, others @ ..] = children;
        dead.kill().unwrap();
        // It died waiting, and the barrier is broken; or it died between two rounds, and the others wait.
        proc::until(|| barrier.is_broken() || barrier.waiting() == 2);
        match barrier.wait() {
            Ok(_) => barrier.abort().unwrap(),
            Err(error) => assert_eq!(error, BarrierError::Broken),
        }
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(dead.join().unwrap_err().signal(), Some(9));
        assert!(barrier.is_broken());
        barrier.reset().unwrap();
    }
    assert_no_backstop();
}

#[test]
fn c5_again_without_waits_on_several_words() {
    let _watchdog = watchdog(Duration::from_secs(280));
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["c5_", "--skip", "again", "--skip", "anywhere", "--test-threads", "2"]);
    assert!(command.env("MP_FORCE", "no-waitv").status().unwrap().success());
}
