//! A worker that is stopped in the middle of taking a task.
//!
//! Build with `RUSTFLAGS="--cfg mp_crash"`.
#![cfg(mp_crash)]
#![expect(unsafe_code, reason = "a worker finds the point at which it stops in its environment")]

use mp_pool::Pool;
use mp_testkit::proc::{Task, until};
use mp_testkit::watchdog;
use rustix::process::{Pid, Signal, kill_process};
use std::time::Duration;

#[test]
fn e14_tasks_are_taken_back_from_a_worker_that_is_stopped_and_go_round_its_channel() {
    let _watchdog = watchdog(Duration::from_secs(60));
    // Passes a point first, so that this process has looked for the variable before its workers are given it.
    drop(mp_channel::channel::<u64>(1).unwrap());
    // SAFETY: no other thread reads or writes the environment: this test is alone in its file.
    unsafe { std::env::set_var("MP_CRASH", "receive.claimed:2:stop") };
    let pool = Pool::builder().workers(1).build().unwrap();
    let pid = pool.apply(|()| std::process::id(), ()).unwrap();
    let first = pool.submit(|n: u64| n, 0).unwrap();
    until(|| Task::leader(pid).state() == Some('T'));
    // More than its channel has room for, one after the other: they pass by the place of the first.
    for number in 1..=1000 {
        let task = pool.submit(|n: u64| n, number).unwrap();
        assert!(task.cancel());
    }
    let after: Vec<_> = (0..10).map(|n| pool.submit(|n: u64| n, n).unwrap()).collect();
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), Signal::CONT).unwrap();
    assert_eq!(first.get().unwrap(), 0);
    for (number, task) in (0..).zip(after) {
        assert_eq!(task.get().unwrap(), number);
    }
    assert_eq!(pool.apply(|()| std::process::id(), ()).unwrap(), pid, "it was not ended");
}
