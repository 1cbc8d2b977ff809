//! What it costs to wait: a thousand threads blocked, nothing happening.

use crate::Outcome;
use crate::machine::cpu_time;
use crate::measure::Plan;
use multiproc::channel;
use multiproc::sync::Event;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// Threads that wait.
const WAITERS: u32 = 1000;

/// The CPU time of [`Plan::count`] seconds in which the threads that `wait` runs in are blocked.
fn blocked(plan: &Plan, wait: impl Fn() + Sync, end: impl FnOnce()) -> Outcome<Duration> {
    let begun = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..WAITERS {
            let builder = thread::Builder::new().stack_size(64 << 10);
            builder.spawn_scoped(scope, || {
                begun.fetch_add(1, Ordering::Relaxed);
                wait();
            })?;
        }
        while begun.load(Ordering::Relaxed) < WAITERS {
            thread::yield_now();
        }
        let before = cpu_time()?;
        thread::sleep(Duration::from_secs(plan.count.into()));
        let used = cpu_time()?.saturating_sub(before);
        end();
        Ok(used)
    })
}

/// Threads wait for an event.
///
/// # Errors
/// When the library fails, or a thread cannot be started.
pub fn event(plan: &Plan) -> Outcome<Duration> {
    let event = Event::shared()?;
    blocked(plan, || assert!(event.wait().is_ok(), "the event was set"), || event.set())
}

/// Threads wait for messages.
///
/// # Errors
/// As [`event`].
pub fn receive(plan: &Plan) -> Outcome<Duration> {
    let (sender, receiver) = channel::<u64>(64)?;
    blocked(plan, || assert!(receiver.recv().is_err(), "nothing was sent"), || drop(sender))
}

/// A thousandth of a CPU, the goal.
///
/// # Errors
/// None.
pub fn a_thousandth(plan: &Plan) -> Outcome<Duration> {
    Ok(Duration::from_millis(1) * plan.count)
}
