//! Condition variables: one, some, all; conditions with limits; limits that race with notifications; waiters that die.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

mod door;

use door::{Door, allow, door, taken, waiting};
use mp_shm::Shared;
use mp_spawn::Process;
use mp_sync::{Latch, LockError};
use mp_testkit::proc::Task;
use mp_testkit::{assert_no_backstop, proc, watchdog};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

fn wait_until_through(door: &Door, count: u32) {
    let mut counts = taken(door.counts.lock());
    while counts.through < count {
        counts = taken(door.moved.wait(counts));
    }
    assert_eq!(counts.through, count);
}

#[test]
fn c2_notify_one_lets_one_go_and_the_others_sleep_on() {
    let _watchdog = watchdog(LONG);
    let door = door();
    let children = waiting(&door, 3);
    for through in 1..=3 {
        allow(&door, 1);
        door.opened.notify_one();
        wait_until_through(&door, through);
        proc::until(|| children.iter().filter(|child| child.is_finished()).count() == through as usize);
    }
    children.into_iter().for_each(|child| child.join().unwrap());
    assert_no_backstop();
}

#[test]
fn c2_notify_some_and_all() {
    let _watchdog = watchdog(LONG);
    let door = door();
    let children = waiting(&door, 5);
    allow(&door, 2);
    door.opened.notify(2);
    wait_until_through(&door, 2);
    allow(&door, 3);
    door.opened.notify_all();
    wait_until_through(&door, 5);
    children.into_iter().for_each(|child| child.join().unwrap());
    assert_no_backstop();
}

#[test]
fn c2_a_notification_before_the_wait_is_not_kept() {
    let _watchdog = watchdog(LONG);
    let door = door();
    door.opened.notify_all();
    let begin = Instant::now();
    let limit = Duration::from_millis(30);
    let (counts, ended) =
        door.opened.wait_timeout_while(door.counts.lock().unwrap(), limit, |_| true).unwrap();
    assert!(ended.timed_out() && begin.elapsed() >= limit);
    assert_eq!(counts.through, 0, "the mutex is ours again");
    assert!(door.counts.try_lock().is_err());
}

#[test]
fn c2_a_condition_that_holds_not_is_not_waited_for() {
    let door = door();
    let counts = door.opened.wait_while(door.counts.lock().unwrap(), |_| false).unwrap();
    let (counts, ended) = door.opened.wait_timeout_while(counts, Duration::ZERO, |_| false).unwrap();
    assert!(!ended.timed_out());
    drop(counts);
    // One wait may end early, when another test's child dies; it ends all the same.
    let over = Instant::now();
    while !door.opened.wait_deadline(door.counts.lock().unwrap(), over).unwrap().1.timed_out() {}
}

const ROUNDS: u32 = 3000;

/// Takes what is allowed, with limits so short that they race with the notifications.
fn take_with_limits(door: Shared<Door>) -> u32 {
    let mut timeouts = 0;
    let mut counts = door.counts.lock().unwrap();
    while counts.through < ROUNDS {
        let limit = Duration::from_micros(fastrand::u64(0..120));
        let (again, ended) = door
            .opened
            .wait_timeout_while(counts, limit, |counts| counts.allowed == 0 && counts.through < ROUNDS)
            .unwrap();
        counts = again;
        if ended.timed_out() {
            assert!(counts.allowed == 0, "what is there is never called a timeout");
            timeouts += 1;
        } else if counts.allowed > 0 {
            counts.allowed -= 1;
            counts.through += 1;
            door.moved.notify_one();
        }
    }
    door.opened.notify_all();
    timeouts
}

#[test]
fn c2_limits_that_race_with_notifications_lose_nothing() {
    let _watchdog = watchdog(Duration::from_secs(120));
    let door = door();
    let takers: [_; 2] = std::array::from_fn(|_| Process::spawn(take_with_limits, door.clone()).unwrap());
    for round in 0..ROUNDS {
        let mut counts = door.counts.lock().unwrap();
        counts.allowed += 1;
        drop(counts);
        door.opened.notify_one();
        let counts = door.counts.lock().unwrap();
        drop(door.moved.wait_while(counts, |counts| counts.through <= round).unwrap());
    }
    for taker in takers {
        taker.join().unwrap();
    }
    let counts = door.counts.lock().unwrap();
    assert_eq!((counts.through, counts.allowed), (ROUNDS, 0));
    assert_no_backstop();
}

#[test]
fn c5_waiters_that_are_killed_swallow_no_notification() {
    let _watchdog = watchdog(LONG);
    let door = door();
    let mut children = waiting(&door, 4);
    for child in children.drain(..3) {
        child.kill().unwrap();
        assert_eq!(child.join().unwrap_err().signal(), Some(9));
    }
    allow(&door, 1);
    door.opened.notify_one();
    wait_until_through(&door, 1);
    children.into_iter().for_each(|child| child.join().unwrap());
    // And nobody waits now.
    door.opened.notify_all();
    assert_no_backstop();
}

fn wait_for_the_dead(door: Shared<Door>) -> String {
    let mut counts = door.counts.lock().unwrap();
    counts.waiting += 1;
    door.moved.notify_all();
    match door.opened.wait_while(counts, |counts| counts.allowed == 0) {
        Err(LockError::OwnerDied { owner, .. }) => format!("{owner:?}"),
        Err(error) => error.to_string(),
        Ok(_) => "nothing was told".to_owned(),
    }
}

fn die_before_notifying((door, begun): (Shared<Door>, Shared<Latch<8>>)) {
    let mut counts = door.counts.lock().unwrap();
    counts.allowed = 1;
    begun.count_down().unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn c5_a_notifier_that_is_killed_with_the_mutex_strands_nobody() {
    let _watchdog = watchdog(LONG);
    let door = door();
    let waiter = Process::spawn(wait_for_the_dead, door.clone()).unwrap();
    let counts = door.counts.lock().unwrap();
    drop(door.moved.wait_while(counts, |counts| counts.waiting < 1).unwrap());
    Task::leader(waiter.pid()).wait_until_blocked();
    let begun = Latch::<8>::shared(1).unwrap();
    let notifier = Process::spawn(die_before_notifying, (door.clone(), begun.clone())).unwrap();
    begun.wait().unwrap();
    notifier.kill().unwrap();
    assert_eq!(waiter.join().unwrap(), format!("{:?}", Some(notifier.pid())));
    assert_eq!(notifier.join().unwrap_err().signal(), Some(9));
    assert_no_backstop();
}

#[test]
fn c5_again_without_waits_on_several_words() {
    let _watchdog = watchdog(Duration::from_secs(280));
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["c5_", "--skip", "again", "--test-threads", "2"]).env("MP_FORCE", "no-waitv");
    assert!(command.status().unwrap().success());
}
