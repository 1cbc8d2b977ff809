//! A thousand blocked receivers cost nothing while they wait, and each is woken for its message.
#![cfg(not(loom))]
#![expect(unsafe_code, reason = "sets an environment variable")]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, Sender, channel};
use mp_spawn::Process;
use mp_testkit::proc::{self, Task, Usage};
use mp_testkit::{LeakCheck, watchdog};
use std::time::Duration;

const PROCESSES: u64 = 4;
/// Threads of a process that wait at the one channel, and at a channel each.
const THREADS: u64 = 125;

type Waiter = (Receiver<u64>, Vec<Receiver<u64>>, Sender<()>);

/// Gives the sum of what all its threads have received: one message each.
fn wait((shared, own, ready): Waiter) -> u64 {
    let all = (0..THREADS).map(|_| shared.clone()).chain(own);
    let threads: Vec<_> = all
        .map(|receiver| {
            let small = std::thread::Builder::new().stack_size(64 << 10);
            small.spawn(move || receiver.recv().unwrap()).unwrap()
        })
        .collect();
    ready.send(()).unwrap();
    threads.into_iter().map(|thread| thread.join().unwrap()).sum()
}

#[test]
fn b14_a_thousand_blocked_receivers_sleep_and_none_is_forgotten() {
    let _watchdog = watchdog(Duration::from_secs(170));
    // A backstop is a wake, if a rare one; without it a lost wake-up is a hang.
    // SAFETY: the test is alone in its process, and the harness's thread waits for it meanwhile.
    unsafe { std::env::set_var("MP_BACKSTOP", "off") };
    let leaks = LeakCheck::begin();

    let (shared, shared_out) = channel::<u64>(8).unwrap();
    let (ready, is_ready) = channel::<()>(1).unwrap();
    let (mut own, mut waiters) = (Vec::new(), Vec::new());
    for _ in 0..PROCESSES {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| channel::<u64>(1).unwrap()).unzip();
        own.extend(senders);
        waiters.push(Process::spawn(wait, (shared_out.clone(), receivers, ready.clone())).unwrap());
    }
    waiters.iter().for_each(|_| is_ready.recv().unwrap());
    let tasks: Vec<Task> = waiters.iter().flat_map(|waiter| proc::tasks(waiter.pid())).collect();
    assert!(tasks.len() as u64 >= 2 * PROCESSES * THREADS, "{} threads", tasks.len());
    tasks.iter().for_each(|task| task.wait_until_blocked());

    let usage = || tasks.iter().map(|task| task.usage().unwrap()).collect::<Vec<Usage>>();
    let before = usage();
    let (to_us, from_us) = channel::<u64>(1).unwrap();
    for number in 0..20_000 {
        to_us.send(number).unwrap();
        assert_eq!(from_us.recv().unwrap(), number);
    }
    assert_eq!(usage(), before, "they slept all the while");

    let mut sum = 0;
    for number in 0..PROCESSES * THREADS {
        shared.send(number).unwrap();
        sum += number;
    }
    for (number, sender) in (1000..).zip(&own) {
        sender.send(number).unwrap();
        sum += number;
    }
    assert_eq!(waiters.into_iter().map(|waiter| waiter.join().unwrap()).sum::<u64>(), sum);
    assert!(shared_out.is_empty());
    drop((shared, shared_out, ready, is_ready, own, to_us, from_us));
    leaks.end();
}
