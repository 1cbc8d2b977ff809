//! How many a notification wakes. One test alone in its process: whoever joins or leaves the session wakes all who sleep in it.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

mod door;

use door::{allow, door, waiting};
use mp_spawn::Process;
use mp_testkit::proc::Task;
use mp_testkit::{assert_no_backstop, proc, watchdog};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn c2_notify_wakes_no_more_than_it_says() {
    let _watchdog = watchdog(LONG);
    let door = door();
    let begin = Instant::now();
    let children = waiting(&door, 3);
    let sleeps = |child: &Process<()>| Task::leader(child.pid()).usage().unwrap().sleeps;
    let before: Vec<u64> = children.iter().map(sleeps).collect();
    // Nobody is allowed through, so who is woken goes to sleep again, and has slept once more.
    door.opened.notify(2);
    let woken = || children.iter().zip(&before).filter(|(child, before)| sleeps(child) > **before).count();
    proc::until(|| woken() >= 2);
    children.iter().for_each(|child| Task::leader(child.pid()).wait_until_blocked());
    // After a second they look by themselves.
    assert!(woken() == 2 || begin.elapsed() >= Duration::from_secs(1), "{} were woken", woken());
    allow(&door, 3);
    door.opened.notify_all();
    children.into_iter().for_each(|child| child.join().unwrap());
    assert_no_backstop();
}
