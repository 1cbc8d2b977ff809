//! Tasks as handles: waited for, cancelled, timed out, called back, awaited.
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, Sender, channel};
use mp_pool::{Pool, Task, TaskError, TaskErrorKind, as_completed, wait_all, wait_any, wait_any_timeout};
use mp_testkit::{assert_no_backstop, watchdog};
use std::pin::pin;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);

fn pool(workers: usize) -> Pool {
    Pool::builder().workers(workers).build().unwrap()
}

/// Gives back what comes through a channel.
fn wait_for((gate, n): (Receiver<()>, u32)) -> u32 {
    gate.recv().unwrap();
    n
}

/// Tells that it runs, and never ends.
fn hang(runs: Sender<u32>) -> u32 {
    runs.send(std::process::id()).unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn e10_a_task_that_is_not_done_in_time_is_given_back() {
    let _watchdog = watchdog(LONG);
    let pool = pool(1);
    let (open, gate) = channel(1).unwrap();
    let task = pool.submit(wait_for, (gate, 5)).unwrap();
    assert!(!task.wait_timeout(Duration::ZERO));
    let task = task.get_timeout(SHORT).unwrap_err();
    assert!(!task.is_finished());
    open.send(()).unwrap();
    // As long as there is time.
    assert_eq!(task.get_timeout(Duration::MAX).unwrap().unwrap(), 5);
    let patient = Pool::builder().workers(1).task_timeout(Duration::MAX).idle_timeout(Duration::MAX);
    assert_eq!(patient.build().unwrap().apply(|n: u32| n, 6).unwrap(), 6);
    assert_no_backstop();
}

#[test]
fn e10_a_queued_task_is_cancelled_and_never_runs() {
    let _watchdog = watchdog(LONG);
    let pool = pool(1);
    let (open, gate) = channel(1).unwrap();
    let first = pool.submit(wait_for, (gate, 1)).unwrap();
    let (tell, told) = channel(8).unwrap();
    let tasks: Vec<Task<()>> = (0..5)
        .map(|n| {
            pool.submit(|(tell, n): (Sender<u32>, u32)| tell.send(n).unwrap(), (tell.clone(), n)).unwrap()
        })
        .collect();
    drop(tell);
    for task in &tasks[2..] {
        assert!(task.cancel(), "it has not run");
        assert!(!task.cancel(), "only once");
    }
    open.send(()).unwrap();
    assert_eq!(first.get().unwrap(), 1);
    for (place, task) in tasks.into_iter().enumerate() {
        match task.get() {
            Ok(()) => assert!(place < 2),
            Err(error) => assert!(place >= 2 && error.is_cancelled(), "{error}"),
        }
    }
    assert_eq!(told.into_iter().collect::<Vec<_>>(), [0, 1]);
    assert_eq!(pool.stats().workers_lost, 0);
    assert_no_backstop();
}

#[test]
fn e14_a_running_task_is_cancelled_and_only_its_worker_is_ended() {
    let _watchdog = watchdog(LONG);
    let pool = pool(2);
    let (runs, running) = channel(2).unwrap();
    let hung = pool.submit(hang, runs).unwrap();
    let pid = running.recv().unwrap();
    let other = pool.worker_pids().into_iter().find(|&one| one != pid).unwrap();
    assert!(hung.cancel());
    let error = hung.get().unwrap_err();
    assert!(error.is_cancelled() && error.pid == Some(pid), "{error}");
    // The pool is at full size again, with the other worker still there.
    while pool.worker_pids().contains(&pid) {
        assert_eq!(pool.apply(|n: u32| n, 5).unwrap(), 5);
    }
    let pids = pool.worker_pids();
    assert!(pids.len() == 2 && pids.contains(&other), "{pids:?}");
    assert_eq!(pool.stats().workers_lost, 1);
    assert_no_backstop();
}

#[test]
fn e14_a_cancelled_task_behind_another_is_not_left_running() {
    let _watchdog = watchdog(LONG);
    let pool = pool(1);
    let (open, gate) = channel(1).unwrap();
    let first = pool.submit(wait_for, (gate, 1)).unwrap();
    let (runs, running) = channel(2).unwrap();
    // The worker has it already, behind the first.
    let behind = pool.submit(hang, runs).unwrap();
    assert!(behind.cancel());
    open.send(()).unwrap();
    assert_eq!(first.get().unwrap(), 1);
    assert_eq!(
        pool.submit(|n: u32| n, 3).unwrap().get().unwrap(),
        3,
        "it does not wait for the one that hangs"
    );
    assert!(behind.get().unwrap_err().is_cancelled());
    drop(running);
    assert_no_backstop();
}

#[test]
fn e14_a_task_that_follows_a_cancelled_one_is_not_ended_with_it() {
    let _watchdog = watchdog(LONG);
    let pool = pool(1);
    for round in 0..100 {
        let (open, gate) = channel(1).unwrap();
        let first = pool.submit(wait_for, (gate, 1)).unwrap();
        // The worker has it already, and is done with it before anybody can end the worker.
        let behind = pool.submit(|n: u32| n, 2).unwrap();
        let follows = pool.submit(|n: u32| n, 3).unwrap();
        if round % 2 == 0 {
            assert!(behind.cancel());
        }
        open.send(()).unwrap();
        if round % 2 == 1 {
            // While it runs, or just before or after.
            behind.cancel();
        }
        assert_eq!(first.get().unwrap(), 1);
        assert_eq!(follows.get().unwrap(), 3, "round {round}");
    }
    assert_no_backstop();
}

#[test]
fn e10_threads_that_submit_and_wait_at_once_all_get_their_values() {
    let _watchdog = watchdog(LONG);
    let pool = pool(2);
    // Tasks that cost little: whoever submits one takes in what is there.
    pool.map(|n: u32| n, 0..20_000).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let pool = &pool;
            scope.spawn(move || {
                for n in 0..3_000 {
                    let tasks = [n, n + 1].map(|n| pool.submit(|n: u32| n, n ^ thread).unwrap());
                    let [first, second] = tasks.map(|task| task.get().unwrap());
                    assert_eq!((first, second), (n ^ thread, (n + 1) ^ thread));
                }
            });
        }
    });
    assert_no_backstop();
}

#[test]
fn e21_a_large_value_is_read_where_its_worker_wrote_it() {
    let _watchdog = watchdog(LONG);
    let pool = pool(1);
    let session = mp_shm::Session::current().unwrap();
    let small = pool.submit(|n: u64| (n, format!("{n}")), 7).unwrap().get_archived().unwrap();
    assert_eq!((small.0.to_native(), &*small.1), (7, "7"));
    let large = pool.submit(|len: usize| vec![7_u8; len], 1 << 20).unwrap().get_archived().unwrap();
    assert!(large.len_bytes() >= 1 << 20 && large.iter().all(|&byte| byte == 7));
    let [start, end] =
        [0, session.mapped_bytes() - 1].map(|at| session.bytes(at, 1).unwrap().as_ptr() as usize);
    assert!((start..end).contains(&(large.as_ptr() as usize)), "it is in the session's memory");
    let failed = pool.submit(|n: u64| if n == 0 { panic!("no value") } else { n }, 0).unwrap();
    let error = failed.get_archived().unwrap_err();
    assert!(matches!(&error.kind, TaskErrorKind::Panicked(panic) if panic.message == "no value"), "{error}");
    assert_eq!(error.attempts, 1);
    pool.join().unwrap();
    assert_eq!(large[5], 7, "it outlives its pool");
    assert_no_backstop();
}

/// Tells that it runs, and gives back what comes through a channel.
fn tell_and_wait((runs, gate, n): (Sender<()>, Receiver<()>, u32)) -> u32 {
    runs.send(()).unwrap();
    wait_for((gate, n))
}

#[test]
fn e14_a_task_that_was_not_begun_is_cancelled_without_its_worker() {
    let _watchdog = watchdog(LONG);
    let pool = pool(1);
    let worker = pool.worker_pids();
    for _ in 0..20 {
        let (open, gate) = channel(1).unwrap();
        let (runs, running) = channel(1).unwrap();
        let (tell, told) = channel::<u32>(1).unwrap();
        let first = pool.submit(tell_and_wait, (runs, gate, 1)).unwrap();
        running.recv().unwrap();
        let behind = pool.submit(hang, tell).unwrap();
        assert!(behind.cancel() && !behind.cancel());
        open.send(()).unwrap();
        assert_eq!(first.get().unwrap(), 1);
        assert!(told.recv().unwrap_err().is_disconnected(), "what it was to be given has come back");
        assert_eq!(pool.worker_pids(), worker);
    }
    assert_eq!(pool.stats().workers_lost, 0);
    assert_no_backstop();
}

#[test]
fn e14_a_cancelled_task_that_its_worker_takes_at_that_moment_is_ended() {
    let _watchdog = watchdog(LONG);
    let pool = pool(1);
    for _ in 0..300 {
        let (open, gate) = channel(1).unwrap();
        let (tell, told) = channel::<u32>(1).unwrap();
        let first = pool.submit(wait_for, (gate, 1)).unwrap();
        // While the worker takes one of the two, both are taken back, or the first alone.
        let behind = pool.submit(hang, tell).unwrap();
        assert!(behind.cancel());
        open.send(()).unwrap();
        assert_eq!(first.get().unwrap(), 1);
        // It has told that it runs, or never will.
        let _ = told.recv();
        assert!(behind.get().unwrap_err().is_cancelled());
    }
    assert_no_backstop();
}

#[test]
fn e20_tasks_behind_one_that_takes_long_go_to_workers_that_have_nothing_to_do() {
    let _watchdog = watchdog(LONG);
    let pool = pool(2);
    // Also when each worker has been given many, since they cost little.
    for small in [0_u32, 20_000] {
        assert_eq!(pool.map(|n: u32| n, 0..small).unwrap().len(), small as usize);
        let (open, gate) = channel(1).unwrap();
        let long = pool.submit(wait_for, (gate, 7)).unwrap();
        let others: Vec<_> = (0..100).map(|n| pool.submit(|n: u32| n + 1, n).unwrap()).collect();
        for (n, task) in (0..).zip(others) {
            assert_eq!(task.get().unwrap(), n + 1);
        }
        assert!(!long.is_finished());
        open.send(()).unwrap();
        assert_eq!(long.get().unwrap(), 7);
    }
    assert_no_backstop();
}

#[test]
fn e20_tasks_behind_one_that_takes_long_are_begun_though_nobody_waits() {
    let _watchdog = watchdog(LONG);
    let pool = pool(2);
    let (open, gate) = channel(1).unwrap();
    let (tell, told) = channel::<u32>(100).unwrap();
    let long = pool.submit(wait_for, (gate, 7)).unwrap();
    let others: Vec<_> = (0..20)
        .map(|n| {
            pool.submit(|(tell, n): (Sender<u32>, u32)| tell.send(n).unwrap(), (tell.clone(), n)).unwrap()
        })
        .collect();
    let mut begun: Vec<u32> = (0..20).map(|_| told.recv().unwrap()).collect();
    begun.sort_unstable();
    assert!(begun.into_iter().eq(0..20));
    open.send(()).unwrap();
    assert_eq!(long.get().unwrap(), 7);
    drop(others);
    assert_no_backstop();
}

#[test]
fn e14_a_task_that_runs_too_long_is_ended_and_no_other() {
    let _watchdog = watchdog(LONG);
    let pool = Pool::builder().workers(2).task_timeout(Duration::from_secs(1)).build().unwrap();
    let (runs, _running) = channel(2).unwrap();
    let hung = pool.submit(hang, runs).unwrap();
    let quick: Vec<_> = (0..20).map(|n| pool.submit(|n: u32| n, n).unwrap()).collect();
    let error = hung.get().unwrap_err();
    assert!(error.is_timed_out(), "{error}");
    assert!((0..).zip(quick).all(|(n, task)| task.get().unwrap() == n));
    // Also when nobody waits.
    let (runs, running) = channel(2).unwrap();
    let hung = pool.submit(hang, runs).unwrap();
    assert!(running.recv().is_ok());
    assert!(running.recv().unwrap_err().is_disconnected(), "its worker is gone, with what it held");
    assert!(hung.get().unwrap_err().is_timed_out());
    assert_no_backstop();
}

#[test]
fn e14_a_task_whose_value_lies_there_is_not_late_however_late_somebody_looks() {
    const TIMEOUT: Duration = Duration::from_secs(2);
    let _watchdog = watchdog(LONG);
    let pool = Pool::builder().workers(1).task_timeout(TIMEOUT).build().unwrap();
    let (open, gate) = channel(1).unwrap();
    let first = pool.submit(wait_for, (gate, 1)).unwrap();
    let second = pool.submit(|n: u32| n, 2).unwrap();
    let (begun, begins) = channel(1).unwrap();
    let third = pool.submit(|begun: Sender<()>| begun.send(()).unwrap(), begun).unwrap();
    // The thread that looks while nobody waits is held up, once it has seen the second task begin.
    let (called, calls) = mpsc::channel();
    let (resume, resumed) = mpsc::channel::<()>();
    first.on_done(move |value| {
        called.send(value.unwrap()).unwrap();
        let _ = resumed.recv();
    });
    open.send(()).unwrap();
    assert_eq!(calls.recv().unwrap(), 1);
    // A worker sends what it has before it begins the next one.
    begins.recv().unwrap();
    // For the time to be over.
    std::thread::sleep(TIMEOUT);
    assert_eq!(second.get().unwrap(), 2);
    third.get().unwrap();
    drop(resume);
    assert_eq!(pool.stats().workers_lost, 0);
    assert_no_backstop();
}

#[test]
fn e10_the_first_of_several_and_all_of_them_are_waited_for() {
    let _watchdog = watchdog(LONG);
    let pool = pool(2);
    let gates: Vec<_> = (0..3).map(|_| channel(1).unwrap()).collect();
    let tasks: Vec<Task<u32>> =
        (0..).zip(&gates).map(|(n, (_, gate))| pool.submit(wait_for, (gate.clone(), n)).unwrap()).collect();
    let all: Vec<&Task<u32>> = tasks.iter().collect();
    assert_eq!(wait_any_timeout(&all, SHORT), None);
    gates[1].0.send(()).unwrap();
    assert_eq!(wait_any(&all), Some(1));
    assert!(!wait_all(&all, Some(SHORT)));
    gates[0].0.send(()).unwrap();
    gates[2].0.send(()).unwrap();
    assert!(wait_all(&all, None));
    assert_eq!(wait_any::<Task<u32>>(&[]), None);
    let other = self::pool(1);
    let foreign = other.submit(|n: u32| n, 1).unwrap();
    assert_eq!(wait_any(&[&tasks[0], &foreign]), None, "of two pools");
    assert_eq!(tasks.into_iter().map(|task| task.get().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn e10_tasks_come_in_the_order_in_which_they_are_done() {
    let _watchdog = watchdog(LONG);
    let pool = pool(2);
    let gates: Vec<_> = (0..2).map(|_| channel(1).unwrap()).collect();
    let tasks: Vec<Task<u32>> =
        (0..).zip(&gates).map(|(n, (_, gate))| pool.submit(wait_for, (gate.clone(), n)).unwrap()).collect();
    let mut done = as_completed(tasks);
    gates[1].0.send(()).unwrap();
    assert_eq!(done.next().unwrap().get().unwrap(), 1);
    gates[0].0.send(()).unwrap();
    assert_eq!(done.next().unwrap().get().unwrap(), 0);
    assert!(done.next().is_none());
}

#[test]
fn e10_callbacks_are_called_also_for_failures_and_one_that_panics_hurts_nobody() {
    let _watchdog = watchdog(LONG);
    let pool = pool(2);
    let (tell, told) = mpsc::channel::<Result<u32, TaskError>>();
    let say = |tell: &mpsc::Sender<_>| {
        let tell = tell.clone();
        move |result| tell.send(result).unwrap()
    };
    pool.submit(|n: u32| n, 1).unwrap().on_done(|_| panic!("in a callback"));
    pool.submit(|n: u32| n + 1, 1).unwrap().on_done(say(&tell));
    assert_eq!(told.recv().unwrap().unwrap(), 2);
    pool.submit(|n: u32| -> u32 { panic!("{n}") }, 1).unwrap().on_done(say(&tell));
    assert!(matches!(told.recv().unwrap().unwrap_err().kind, TaskErrorKind::Panicked(_)));
    pool.submit(|code: i32| -> u32 { std::process::exit(code) }, 4).unwrap().on_done(say(&tell));
    assert!(matches!(told.recv().unwrap().unwrap_err().kind, TaskErrorKind::Exited(4)));
    // One that is done already.
    let done = pool.submit(|n: u32| n, 9).unwrap();
    assert!(done.wait_timeout(LONG));
    done.on_done(say(&tell));
    assert_eq!(told.recv().unwrap().unwrap(), 9);
    // And one that will never be.
    let (runs, running) = channel(1).unwrap();
    pool.submit(hang, runs).unwrap().on_done(say(&tell));
    running.recv().unwrap();
    pool.terminate();
    assert!(matches!(told.recv().unwrap().unwrap_err().kind, TaskErrorKind::Pool(_)));
}

#[test]
fn e28_callbacks_submit_further_tasks() {
    let _watchdog = watchdog(LONG);
    let pool = std::sync::Arc::new(pool(2));
    let (tell, told) = mpsc::channel();
    fn next(pool: &std::sync::Arc<Pool>, n: u32, tell: mpsc::Sender<u32>) {
        let again = pool.clone();
        pool.submit(|n: u32| n + 1, n).unwrap().on_done(move |result| match result.unwrap() {
            100 => tell.send(100).unwrap(),
            n => next(&again, n, tell),
        });
    }
    for _ in 0..3 {
        next(&pool, 0, tell.clone());
    }
    drop(tell);
    assert_eq!(told.iter().collect::<Vec<_>>(), [100; 3]);
    assert_eq!(pool.stats().tasks_done, 300);
}

#[test]
fn e10_tasks_are_futures_of_any_runtime() {
    let _watchdog = watchdog(LONG);
    let pool = pool(2);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let both = async {
        let (first, second) = (pool.submit(|n: u32| n, 1).unwrap(), pool.submit(|n: u32| n, 2).unwrap());
        let mut sum = second.await.unwrap() + first.await.unwrap();
        for n in 0..100 {
            sum += pool.submit(|n: u32| n, n).unwrap().await.unwrap();
        }
        let failed = pool.submit(|code: i32| -> u32 { std::process::exit(code) }, 3).unwrap().await;
        assert!(matches!(failed.unwrap_err().kind, TaskErrorKind::Exited(3)));
        sum
    };
    assert_eq!(runtime.block_on(both), 3 + 99 * 50);
    // Dropped while it is awaited.
    let (runs, running) = channel(2).unwrap();
    let mut hung = pin!(pool.submit(hang, runs).unwrap());
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(hung.as_mut().poll(&mut context), Poll::Pending));
    running.recv().unwrap();
    assert!(hung.cancel());
    assert!(matches!(hung.as_mut().poll(&mut context), Poll::Ready(Err(error)) if error.is_cancelled()));
}

#[test]
fn e20_a_scope_ends_when_its_tasks_are_done_also_those_whose_handles_are_gone() {
    let _watchdog = watchdog(LONG);
    let pool = pool(2);
    let (tell, told) = channel(64).unwrap();
    let first = pool.scope(|scope| {
        let first = scope.submit(|n: u32| n, 7).unwrap();
        for n in 0..50 {
            drop(
                scope
                    .submit(|(tell, n): (Sender<u32>, u32)| tell.send(n).unwrap(), (tell.clone(), n))
                    .unwrap(),
            );
        }
        first
    });
    drop(tell);
    assert_eq!(told.len(), 50, "all have run");
    assert_eq!(first.get().unwrap(), 7);
}

#[test]
fn e20_submitting_waits_while_too_many_are_in_flight() {
    let _watchdog = watchdog(LONG);
    let pool = Pool::builder().workers(1).in_flight(3).build().unwrap();
    let tasks: Vec<_> = (0..100)
        .map(|n| {
            let task = pool.submit(|n: u32| n, n).unwrap();
            let stats = pool.stats();
            assert!(u64::from(n) + 1 - stats.tasks_done <= 3);
            task
        })
        .collect();
    assert!((0..).zip(tasks).all(|(n, task)| task.get().unwrap() == n));
}
