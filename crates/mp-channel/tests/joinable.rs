//! Queues whose tasks can be waited for.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::joinable::{TaskReceiver, TooManyDone, channel};
use mp_shm::Session;
use mp_spawn::Process;
use mp_testkit::proc::Task;
use mp_testkit::{assert_no_backstop, watchdog};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);

fn work(tasks: TaskReceiver<u64>) -> u64 {
    let mut sum = 0;
    for task in tasks.iter() {
        sum += *task;
        task.done();
    }
    assert_no_backstop();
    sum
}

#[test]
fn b12_join_wakes_when_all_tasks_are_done_and_not_before() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<u64>(8).unwrap();
    // Nothing was put in yet: nothing to wait for.
    sender.join().unwrap();
    sender.send(1).unwrap();
    assert_eq!(sender.unfinished(), 1);
    let start = Instant::now();
    assert!(!sender.join_timeout(SHORT).unwrap());
    assert!(start.elapsed() >= SHORT, "early");
    let task = receiver.recv().unwrap();
    assert!(!receiver.join_timeout(Duration::ZERO).unwrap(), "in hand is not done");
    let joiner = {
        let sender = sender.clone();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            tell.send(Task::current()).unwrap();
            sender.join().unwrap();
        });
        told.recv().unwrap().wait_until_blocked();
        thread
    };
    assert!(!joiner.is_finished());
    assert_eq!(task.into_value(), 1);
    joiner.join().unwrap();

    let workers: Vec<_> = (0..3).map(|_| Process::spawn(work, receiver.clone()).unwrap()).collect();
    drop(receiver);
    for round in 0..20 {
        (0..50).for_each(|n| sender.send(round * 50 + n).unwrap());
        sender.join().unwrap();
        assert_eq!((sender.unfinished(), sender.len()), (0, 0));
    }
    drop(sender);
    let sum: u64 = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
    assert_eq!(sum, (0..1000).sum::<u64>());
    assert_no_backstop();
}

#[test]
fn b12_one_task_done_too_many_is_an_error() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<String>(4).unwrap();
    assert_eq!(receiver.task_done(), Err(TooManyDone));
    sender.send("a".to_owned()).unwrap();
    sender.send("b".to_owned()).unwrap();
    assert_eq!(receiver.recv_value().unwrap(), "a");
    assert_eq!(receiver.recv_value().unwrap(), "b");
    assert_eq!(sender.unfinished(), 2);
    receiver.task_done().unwrap();
    assert_eq!(sender.unfinished(), 1);
    receiver.task_done().unwrap();
    sender.join().unwrap();
    assert_eq!(receiver.task_done(), Err(TooManyDone));
}

#[test]
fn b12_a_task_dropped_by_a_panic_or_sent_on_counts_until_it_is_over() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<u64>(4).unwrap();
    sender.send(1).unwrap();
    let worker = {
        let receiver = receiver.clone();
        std::thread::spawn(move || {
            let _task = receiver.recv().unwrap();
            panic!("the task is in hand");
        })
    };
    worker.join().unwrap_err();
    sender.join().unwrap();
    // What cannot be sent does not count.
    let error = {
        drop(receiver);
        sender.send(2).unwrap_err()
    };
    assert!(error.is_disconnected());
    assert_eq!((error.into_value(), sender.unfinished()), (2, 0));
}

fn take_and_keep(tasks: TaskReceiver<u64>) {
    let _task = tasks.recv().unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn b12_a_worker_killed_with_a_task_does_not_keep_join_waiting() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<u64>(4).unwrap();
    for _ in 0..10 {
        sender.send(1).unwrap();
        let child = Process::spawn(take_and_keep, receiver.clone()).unwrap();
        // It has the task in hand when the queue is empty and the task is not done.
        mp_testkit::proc::until(|| sender.is_empty());
        let joiner = {
            let sender = sender.clone();
            std::thread::spawn(move || sender.join().unwrap())
        };
        child.kill().unwrap();
        joiner.join().unwrap();
        assert_eq!(sender.unfinished(), 0);
        assert_eq!(child.join().unwrap_err().signal(), Some(9));
    }
    drop((sender, receiver));
    let audit = Session::current().unwrap().audit();
    assert!(audit.counts_are_right, "{audit:?}");
}
