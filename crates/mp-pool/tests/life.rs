//! Workers that come and go: set up and down, recycled, idle, too many or too few.
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, Sender, channel};
use mp_pool::{Pool, PoolError, TaskErrorKind, with_worker_state, worker_id};
use mp_spawn::StartMethod;
use mp_testkit::{assert_no_backstop, heed_signals, proc, watchdog};
use std::collections::HashSet;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

struct Counter {
    base: u64,
    count: u64,
}

#[test]
fn e23_what_the_initializer_makes_stays_with_the_worker_and_the_finalizer_gets_it() {
    let _watchdog = watchdog(LONG);
    let pool = Pool::builder()
        .workers(2)
        .name("counter")
        .chunk_size(1)
        .initializer(|base: u64| Counter { base, count: 0 }, 1000)
        .finalizer(|counter: Counter| (worker_id().unwrap(), counter.count))
        .build()
        .unwrap();
    let add = |n: u64| {
        with_worker_state(|counter: &mut Counter| {
            counter.count += 1;
            (counter.base + n, mp_spawn::current().name().to_owned())
        })
    };
    let values = pool.map(add, 0..100).unwrap();
    assert!(values.iter().zip(1000..).all(|((value, name), n)| *value == n && name.starts_with("counter-")));
    let error = pool.submit(|()| with_worker_state(|_: &mut String| ()), ()).unwrap().get().unwrap_err();
    assert!(error.to_string().contains("made no `alloc::string::String`"), "{error}");
    let mut finals: Vec<(u64, u64)> = pool.join_with().unwrap();
    finals.sort_unstable();
    assert_eq!(finals.iter().map(|(worker, _)| *worker).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(finals.iter().map(|(_, count)| count).sum::<u64>(), 100);
    assert_eq!(worker_id(), None, "not in a worker");
    assert_no_backstop();
}

#[test]
fn e13_an_initializer_that_fails_again_and_again_breaks_the_pool_and_is_told() {
    let _watchdog = watchdog(LONG);
    let make = |n: u64| -> u64 { panic!("no database {n}") };
    let pool = Pool::builder().workers(2).initializer(make, 7).build().unwrap();
    let task = pool.submit(|n: u32| n, 1).unwrap();
    let error = task.get().unwrap_err();
    assert!(matches!(&error.kind, TaskErrorKind::Pool(PoolError::Broken(_))), "{error}");
    assert!(error.to_string().contains("the initializer panicked: no database 7"), "{error}");
    assert!(matches!(pool.submit(|n: u32| n, 1), Err(PoolError::Broken(_))));
    assert!(pool.stats().workers_started < 30, "bounded");
    // One that only fails sometimes is tried again.
    let (tell, told) = channel::<u32>(64).unwrap();
    let unlucky = |tell: Sender<u32>| {
        tell.send(0).unwrap();
        assert!(worker_id().unwrap() >= 2, "the first two fail");
    };
    let pool = Pool::builder().workers(2).initializer(unlucky, tell).build().unwrap();
    assert_eq!(pool.map(|n: u32| n, 0..10).unwrap().len(), 10);
    assert!(told.len() >= 3);
}

#[test]
fn e5_workers_are_replaced_after_so_many_tasks_and_none_is_lost() {
    let _watchdog = watchdog(LONG);
    let pool = Pool::builder().workers(2).chunk_size(1).tasks_per_worker(5).build().unwrap();
    let pids = pool.map(|_: u32| std::process::id(), 0..100).unwrap();
    let each: HashSet<u32> = pids.iter().copied().collect();
    assert!(each.len() >= 20, "{} workers for 100 tasks", each.len());
    assert!(each.iter().all(|pid| pids.iter().filter(|one| *one == pid).count() <= 5));
    let stats = pool.stats();
    assert_eq!((stats.tasks_done, stats.tasks_failed, stats.workers_lost), (100, 0, 0));
    pool.join().unwrap();
    assert_no_backstop();
}

#[test]
fn e5_a_worker_that_uses_too_much_memory_is_replaced_and_its_task_is_done() {
    let _watchdog = watchdog(LONG);
    let pool = Pool::builder().workers(1).memory_per_worker(64 << 20).build().unwrap();
    let work = |bytes: usize| {
        std::mem::forget(vec![1_u8; bytes]);
        std::process::id()
    };
    let first = pool.apply(work, 1).unwrap();
    assert_eq!(pool.apply(work, 1).unwrap(), first);
    assert_eq!(pool.apply(work, 100 << 20).unwrap(), first, "the task is done");
    assert_ne!(pool.apply(work, 1).unwrap(), first, "by another worker");
    assert!(pool.stats().workers[0].memory_bytes > 64 << 20);
}

#[test]
fn e29_a_pool_grows_and_shrinks_while_it_works() {
    let _watchdog = watchdog(LONG);
    let pool = Pool::builder().workers(1).chunk_size(1).build().unwrap();
    for size in [4, 2, 7, 1, 3] {
        let tasks: Vec<_> = (0..40).map(|n| pool.submit(|n: u32| n, n).unwrap()).collect();
        pool.resize(size).unwrap();
        assert_eq!(pool.workers(), size);
        assert!((0..).zip(tasks).all(|(n, task)| task.get().unwrap() == n));
        assert_eq!(pool.map(|n: u32| n, 0..100).unwrap().len(), 100);
        assert_eq!(pool.worker_pids().len(), size);
    }
    assert!(matches!(pool.resize(0), Err(PoolError::NoWorkers)));
    assert_eq!(pool.stats().workers_lost, 0);
    pool.join().unwrap();
    assert_no_backstop();
}

/// Has so many workers at work at the same time.
fn meet(pool: &Pool, count: usize) {
    let (arrive, arrived) = channel(count).unwrap();
    let (leave, left) = channel::<()>(1).unwrap();
    let tasks: Vec<_> = (0..count)
        .map(|_| {
            let wait = |(arrive, left): (Sender<u32>, Receiver<()>)| {
                arrive.send(std::process::id()).unwrap();
                assert!(left.recv().unwrap_err().is_disconnected());
            };
            pool.submit(wait, (arrive.clone(), left.clone())).unwrap()
        })
        .collect();
    let pids: HashSet<u32> = (0..count).map(|_| arrived.recv().unwrap()).collect();
    assert_eq!(pids.len(), count);
    drop(leave);
    tasks.into_iter().for_each(|task| task.get().unwrap());
}

#[test]
fn e8_two_hundred_workers_start_and_work_all_at_once() {
    let _watchdog = watchdog(Duration::from_secs(170));
    let pool = Pool::builder().workers(200).chunk_size(1).build().unwrap();
    meet(&pool, 200);
    assert_eq!(pool.map(|n: u32| n + 1, 0..2000).unwrap(), (1..=2000).collect::<Vec<_>>());
    assert_eq!(pool.stats().workers_lost, 0);
    pool.join().unwrap();
}

/// The channel of results has room for those of the 16 workers that there are at the beginning, at most.
#[test]
fn e29_workers_that_came_later_wait_with_their_results_for_who_takes_them() {
    let _watchdog = watchdog(Duration::from_secs(170));
    let (workers, room) = (50, 80);
    let pool = Pool::builder().workers(1).build().unwrap();
    pool.resize(workers).unwrap();
    meet(&pool, workers);
    // Nobody takes results while none of these is waited for.
    let submit = || {
        let (tell, told) = channel(2 * workers).unwrap();
        let tasks: Vec<_> = (0..2 * workers)
            .map(|n| {
                let told = |(tell, n): (Sender<()>, usize)| {
                    tell.send(()).unwrap();
                    n
                };
                pool.submit(told, (tell.clone(), n)).unwrap()
            })
            .collect();
        // At least ten workers have run one whose result finds no room.
        (0..room + 10).for_each(|_| told.recv().unwrap());
        (tasks, told)
    };
    let (tasks, _told) = submit();
    assert!((0..).zip(tasks).all(|(n, task)| task.get().unwrap() == n));
    let (tasks, _told_too) = submit();
    pool.join().unwrap();
    assert!((0..).zip(tasks).all(|(n, task)| task.get().unwrap() == n));
    assert_no_backstop();
}

#[test]
fn e29_idle_workers_end_and_come_back() {
    let _watchdog = watchdog(LONG);
    let pool = Pool::builder().workers(3).idle_timeout(Duration::from_millis(50)).build().unwrap();
    assert_eq!(pool.map(|n: u32| n, 0..10).unwrap().len(), 10);
    proc::until(|| pool.worker_pids().is_empty());
    assert_eq!(pool.map(|n: u32| n + 1, 0..1000).unwrap(), (1..=1000).collect::<Vec<_>>());
    assert_eq!(pool.submit(|n: u32| n, 5).unwrap().get().unwrap(), 5);
    proc::until(|| pool.worker_pids().is_empty());
    assert_eq!(pool.stats().workers_lost, 0);
}

#[test]
fn e29_a_worker_whose_tasks_others_have_done_is_idle() {
    let _watchdog = watchdog(LONG);
    // All three are at a task at once.
    let meet = |(tell, all_are_here): (Sender<(u64, u32)>, Receiver<()>)| {
        tell.send((worker_id().unwrap(), std::process::id())).unwrap();
        assert!(all_are_here.recv().unwrap_err().is_disconnected());
    };
    let pool = Pool::builder().workers(3).idle_timeout(Duration::from_millis(500)).build().unwrap();
    let (tell, told) = channel(3).unwrap();
    let (keep, all_are_here) = channel(1).unwrap();
    let met: Vec<_> =
        (0..3).map(|_| pool.submit(meet, (tell.clone(), all_are_here.clone())).unwrap()).collect();
    let (_, last) = (0..3).map(|_| told.recv().unwrap()).max().unwrap();
    drop(keep);
    met.into_iter().for_each(|task| task.get().unwrap());
    let signal = |signal| {
        let pid = rustix::process::Pid::from_raw(i32::try_from(last).unwrap()).unwrap();
        // If it has ended already, there is nothing to see.
        let _ = rustix::process::kill_process(pid, signal);
    };
    signal(rustix::process::Signal::STOP);
    // Two for each; those of the one that is stopped are taken back. Where the two others are at once idle they get one each; else it may get one of
    // them again, which stays with it: it might have begun it.
    let tasks: Vec<_> = (0..6).map(|n| pool.submit(|n: u32| n, n).unwrap()).collect();
    proc::until(|| pool.stats().tasks_done >= 3 + 5);
    signal(rustix::process::Signal::CONT);
    assert!((0..).zip(tasks).all(|(n, task)| task.get().unwrap() == n));
    proc::until(|| pool.worker_pids().is_empty());
    assert_eq!(pool.stats().workers_lost, 0);
}

#[test]
fn e7_a_closed_pool_takes_nothing_and_finishes_what_it_has() {
    let _watchdog = watchdog(LONG);
    let pool = Pool::builder().workers(2).build().unwrap();
    let tasks: Vec<_> = (0..100).map(|n| pool.submit(|n: u32| n, n).unwrap()).collect();
    // One worker dies while the pool is closing.
    let dies = pool.submit(|()| std::process::abort(), ()).unwrap();
    let _: &mp_pool::Task<()> = &dies;
    pool.close();
    assert!(matches!(pool.submit(|n: u32| n, 1), Err(PoolError::Closed)));
    assert!(matches!(pool.resize(3), Err(PoolError::Closed)));
    assert!(matches!(
        pool.map(|n: u32| n, 0..3).unwrap_err().error.kind,
        TaskErrorKind::Pool(PoolError::Closed)
    ));
    pool.join().unwrap();
    assert!((0..).zip(tasks).all(|(n, task)| task.get().unwrap() == n));
    assert_eq!(dies.get().unwrap_err().signal(), Some(6));
    assert_no_backstop();
}

#[test]
fn e3_terminating_with_ten_thousand_queued_tasks_ends_all_of_them() {
    let _watchdog = watchdog(LONG);
    let pool = Pool::builder().workers(2).build().unwrap();
    let park = |_: u32| -> u32 {
        loop {
            std::thread::park();
        }
    };
    let tasks: Vec<_> = (0..10_000).map(|n| pool.submit(park, n).unwrap()).collect();
    let pids = pool.worker_pids();
    pool.terminate();
    assert!(pids.into_iter().all(proc::has_ended));
    for task in tasks {
        assert!(matches!(task.get().unwrap_err().kind, TaskErrorKind::Pool(PoolError::Closed)));
    }
}

#[test]
fn e4_large_values_that_nobody_has_taken_do_not_hold_up_the_end() {
    let _watchdog = watchdog(LONG);
    let pool = Pool::builder().workers(2).build().unwrap();
    let tasks: Vec<_> =
        (0..20).map(|_| pool.submit(|bytes: usize| vec![7_u8; bytes], 4 << 20).unwrap()).collect();
    pool.join().unwrap();
    assert!(tasks.into_iter().all(|task| task.get().unwrap().len() == 4 << 20));
}

#[test]
fn e19_a_storm_of_deaths_breaks_the_pool_and_is_told() {
    let _watchdog = watchdog(LONG);
    let pool = Pool::builder().workers(2).restart_limit(5, LONG).build().unwrap();
    let mut deaths = 0;
    let error = loop {
        match pool.apply(|()| -> u32 { std::process::abort() }, ()).unwrap_err() {
            error if matches!(error.kind, TaskErrorKind::Pool(_)) => break error,
            _ => deaths += 1,
        }
    };
    assert!((4..=6).contains(&deaths), "{deaths}");
    assert!(error.to_string().contains("workers died within"), "{error}");
    assert!(matches!(pool.submit(|n: u32| n, 1), Err(PoolError::Broken(_))));
}

#[test]
fn e17_an_interrupt_ends_the_pool_and_no_worker_is_started_again() {
    let _watchdog = watchdog(LONG);
    heed_signals();
    let pool = Pool::builder().workers(2).build().unwrap();
    let (runs, running) = channel::<u32>(2).unwrap();
    let hang = |runs: Sender<u32>| -> u32 {
        runs.send(std::process::id()).unwrap();
        loop {
            std::thread::park();
        }
    };
    let tasks = [pool.submit(hang, runs.clone()).unwrap(), pool.submit(hang, runs).unwrap()];
    // As Ctrl-C does it: all workers get it.
    for _ in 0..2 {
        let pid = running.recv().unwrap().to_string();
        assert!(std::process::Command::new("kill").args(["-2", &pid]).status().unwrap().success());
    }
    for task in tasks {
        let error = task.get().unwrap_err();
        assert!(matches!(error.kind, TaskErrorKind::Pool(PoolError::Interrupted)), "{error}");
    }
    assert!(matches!(pool.submit(|n: u32| n, 1), Err(PoolError::Interrupted)));
    assert_eq!(pool.stats().workers_started, 2);
}

fn sum_of_squares(n: u64) -> u64 {
    let pool = Pool::builder().workers(2).build().unwrap();
    pool.map(|n: u64| n * n, 0..n).unwrap().into_iter().sum()
}

#[test]
fn e27_a_task_has_a_pool_of_its_own() {
    let _watchdog = watchdog(LONG);
    let pool = Pool::builder().workers(2).chunk_size(1).build().unwrap();
    let sums = pool.map(sum_of_squares, [0, 1, 2, 3, 100]).unwrap();
    assert_eq!(sums, [0, 0, 1, 5, 328_350]);
}

#[test]
fn e23_workers_are_started_by_every_method_and_told_how_many_threads_to_start() {
    let _watchdog = watchdog(LONG);
    for method in [StartMethod::Spawn, StartMethod::ForkServer] {
        let pool = Pool::builder().workers(2).start_method(method).build().unwrap();
        let threads = pool.apply(|()| std::env::var("OMP_NUM_THREADS").unwrap(), ()).unwrap();
        assert!(threads.parse::<usize>().unwrap() >= 1);
        drop(pool);
        let pool =
            Pool::builder().workers(2).start_method(method).limit_threads(false).pin(true).build().unwrap();
        assert!(pool.apply(|()| std::env::var("OMP_NUM_THREADS").is_err(), ()).unwrap());
        let processors = |()| std::thread::available_parallelism().unwrap().get();
        assert_eq!(pool.apply(processors, ()).unwrap(), 1, "{method}");
    }
}

#[test]
fn e24_a_pool_tells_what_its_workers_did() {
    let _watchdog = watchdog(LONG);
    let pool = Pool::builder().workers(2).timeline(true).build().unwrap();
    pool.apply(|millis: u64| std::thread::sleep(Duration::from_millis(millis)), 30).unwrap();
    for n in 0..20 {
        pool.apply(|n: u32| n, n).unwrap();
    }
    pool.apply(|code: i32| -> u32 { std::process::exit(code) }, 3).unwrap_err();
    pool.apply(|n: u32| n, 1).unwrap();
    let stats = pool.stats();
    assert_eq!((stats.tasks_done, stats.tasks_failed), (22, 1));
    assert_eq!((stats.workers_started, stats.workers.len()), (3, 3));
    assert_eq!(stats.workers.iter().map(|worker| worker.tasks).sum::<u64>(), 22);
    let slowest = &stats.slowest;
    assert!(slowest.len() == 10 && slowest.is_sorted_by(|one, next| one.time >= next.time));
    assert!(slowest.iter().any(|slow| slow.task == 0 && slow.time >= Duration::from_millis(30)));
    assert_eq!(stats.workers.iter().filter(|worker| worker.end.is_some()).count(), 1);
    let table = stats.to_string();
    assert!(table.contains("22 tasks done, 1 failed") && table.contains("exited with code 3"), "{table}");
    let svg = pool.timeline().unwrap();
    assert_eq!(svg.matches("<rect").count(), 22, "{svg}");
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    assert_eq!(Pool::builder().workers(1).build().unwrap().timeline(), None);
}
