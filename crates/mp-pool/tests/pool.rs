//! What a pool promises: values in order, failures that are data, workers that are replaced.

#![expect(clippy::unwrap_used, reason = "tests")]

use mp_pool::{Pool, TaskErrorKind};
use std::collections::HashSet;

fn pool() -> Pool {
    Pool::builder().workers(2).build().unwrap()
}

fn die(signal: i32) -> i32 {
    let status = std::process::Command::new("kill")
        .args([format!("-{signal}"), std::process::id().to_string()])
        .status();
    panic!("still alive: {status:?}")
}

#[test]
fn e20_map_gives_the_values_in_order() {
    let pool = pool();
    let expected: Vec<u64> = (0..100_000).map(|n| n * n).collect();
    assert_eq!(pool.map(|n: u64| n * n, 0..100_000).unwrap(), expected);
    assert_eq!(pool.map(|text: String| text.len(), ["a".to_owned(), "bcd".to_owned()]).unwrap(), [1, 3]);
    assert_eq!(pool.map(|n: u64| n, []).unwrap(), Vec::<u64>::new());
}

#[test]
fn e20_chunks_of_a_given_size_cover_every_input() {
    for size in [1, 7, 1000] {
        let pool = Pool::builder().workers(2).chunk_size(size).build().unwrap();
        assert_eq!(pool.map(|n: u32| n + 1, 0..100).unwrap(), (1..=100).collect::<Vec<u32>>());
    }
}

#[test]
fn e20_tasks_are_submitted_from_many_threads() {
    let pool = pool();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let pool = &pool;
            scope.spawn(move || {
                for n in 0..50 {
                    assert_eq!(
                        pool.submit(|n: u64| n * 2, thread * 1000 + n).unwrap().get().unwrap(),
                        (thread * 1000 + n) * 2
                    );
                }
            });
        }
    });
    assert_eq!(pool.stats().tasks_done, 200);
}

#[test]
fn e20_queued_tasks_are_run_although_nobody_waits() {
    let pool = pool();
    let tasks: Vec<_> = (0..100_u32).map(|n| pool.submit(|n: u32| n, n).unwrap()).collect();
    let (last, rest) = tasks.split_last().unwrap();
    while !last.is_finished() {
        std::thread::yield_now();
    }
    assert!(rest.len() == 99);
    let values: Vec<u32> = tasks.into_iter().map(|task| task.get().unwrap()).collect();
    assert_eq!(values, (0..100).collect::<Vec<u32>>());
}

#[test]
fn e1_a_panic_fails_its_task_and_costs_no_worker() {
    let pool = pool();
    let before: HashSet<u32> = pool.worker_pids().into_iter().collect();
    let error = pool.submit(|n: u32| -> u32 { panic!("bad {n}") }, 4).unwrap().get().unwrap_err();
    let TaskErrorKind::Panicked(panic) = error.kind else { panic!("a panic was expected") };
    assert!(before.contains(&error.pid.unwrap()));
    assert_eq!(error.attempts, 1);
    assert_eq!(panic.message, "bad 4");
    assert!(panic.location.contains("pool.rs:"), "{}", panic.location);
    assert_eq!(pool.submit(|n: u32| n, 5).unwrap().get().unwrap(), 5);
    let after: HashSet<u32> = pool.worker_pids().into_iter().collect();
    assert_eq!(before, after);
}

#[test]
fn e1_a_panic_in_a_map_names_its_item() {
    let pool = pool();
    let error = pool
        .map(
            |n: u32| {
                assert!(n != 777, "unlucky");
                n
            },
            0..10_000,
        )
        .unwrap_err();
    assert_eq!(error.items, 777..778);
    assert!(error.to_string().contains("mapping item 777: the task panicked: unlucky"), "{error}");
    assert_eq!(pool.map(|n: u32| n, 0..10).unwrap().len(), 10);
}

#[test]
fn e1_the_inputs_behind_a_panic_are_run_only_for_those_who_want_them() {
    let pool = Pool::builder().workers(1).chunk_size(10).build().unwrap();
    let (tell, told) = mp_channel::channel::<u32>(64).unwrap();
    let run = |(tell, n): (mp_channel::Sender<u32>, u32)| {
        tell.send(n).unwrap();
        assert!(n % 4 != 3, "unlucky");
        n
    };
    let inputs = || (0..10).map(|n| (tell.clone(), n));
    assert_eq!(pool.map(run, inputs()).unwrap_err().items, 3..4);
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
    let all = pool.map_results(run, inputs());
    assert_eq!(
        all.iter().map(Result::is_ok).collect::<Vec<_>>(),
        (0..10).map(|n| n % 4 != 3).collect::<Vec<_>>()
    );
    assert_eq!(told.try_iter().collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
}

#[test]
fn e11_a_killed_worker_fails_only_its_task_and_is_replaced() {
    let pool = pool();
    let others: Vec<_> = (0..20_u32).map(|n| pool.submit(|n: u32| n, n).unwrap()).collect();
    let killed = pool.submit(die, 9).unwrap();
    let more: Vec<_> = (0..20_u32).map(|n| pool.submit(|n: u32| n, n).unwrap()).collect();
    let error = killed.get().unwrap_err();
    assert_eq!(error.signal(), Some(9), "{error}");
    for (n, task) in (0..20).zip(others).chain((0..20).zip(more)) {
        assert_eq!(task.get().unwrap(), n);
    }
    assert_eq!(pool.worker_pids().len(), 2);
    let stats = pool.stats();
    assert_eq!((stats.tasks_done, stats.tasks_failed, stats.workers_lost), (40, 1, 1));
}

#[test]
fn e18_a_killed_task_is_tried_again_and_then_set_aside() {
    let pool = Pool::builder().workers(2).retries(2).build().unwrap();
    let (tell, told) = mp_channel::channel::<u32>(16).unwrap();
    let run = |(tell, kill): (mp_channel::Sender<u32>, u32)| {
        tell.send(kill).unwrap();
        die(9)
    };
    let error = pool.submit(run, (tell, 7)).unwrap().get().unwrap_err();
    assert!(matches!(error.kind, TaskErrorKind::Quarantined { deaths: 3, .. }), "{error}");
    assert_eq!(error.attempts, 3);
    assert_eq!(told.iter().take(3).collect::<Vec<_>>(), [7, 7, 7]);
    assert!(told.try_recv().unwrap_err().is_disconnected(), "three tries, and the argument is given back");
    assert_eq!(pool.stats().tasks_retried, 2);
}

#[test]
fn e11_a_map_tells_which_item_a_dead_worker_was_at() {
    let pool = Pool::builder().workers(2).chunk_size(10).build().unwrap();
    let error = pool.map(|n: i32| if n == 55 { die(11) } else { n }, 0..100).unwrap_err();
    assert_eq!(error.items, 55..56);
    assert_eq!(error.error.signal(), Some(11), "{error}");
    assert_eq!(pool.map(|n: i32| n, 0..100).unwrap().len(), 100);
}

#[test]
fn e12_all_idle_workers_killed_and_the_next_task_runs() {
    let pool = pool();
    assert_eq!(pool.submit(|n: u32| n, 1).unwrap().get().unwrap(), 1);
    for pid in pool.worker_pids() {
        std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    }
    // Whether a worker is found dead before or after it is given the task, the task is not charged twice: it may fail, once.
    let first = pool.submit(|n: u32| n, 2).unwrap().get();
    assert!(first.as_ref().is_ok_and(|&n| n == 2) || first.is_err_and(|error| error.signal() == Some(9)));
    let rest = (0..10).map(|n| pool.submit(|n: u32| n, n).unwrap().get()).filter(Result::is_ok).count();
    assert!(rest >= 9, "at most the other dead worker's task: {rest}");
}

#[test]
fn e15_exit_in_a_task_fails_that_task_only() {
    let pool = pool();
    let error = pool.submit(|code: i32| -> u32 { std::process::exit(code) }, 3).unwrap().get().unwrap_err();
    assert!(matches!(error.kind, TaskErrorKind::Exited(3)), "{error}");
    assert_eq!(pool.submit(|n: u32| n, 5).unwrap().get().unwrap(), 5);
}

#[test]
fn e3_dropping_a_pool_with_queued_tasks_ends_it() {
    let pool = pool();
    let tasks: Vec<_> = (0..1000_u32)
        .map(|_| {
            pool.submit(
                |_: u32| loop {
                    std::thread::park()
                },
                0,
            )
            .unwrap()
        })
        .collect();
    let _: &Vec<mp_pool::Task<u32>> = &tasks;
    let pids = pool.worker_pids();
    drop(pool);
    for pid in pids {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "worker {pid} is reaped");
    }
    for task in tasks {
        assert!(matches!(task.get().unwrap_err().kind, TaskErrorKind::Pool(_)));
    }
}

#[test]
fn e16_an_endless_input_is_pulled_as_workers_get_through_with_it() {
    let pool = pool();
    let pulled = std::cell::Cell::new(0_u64);
    let endless = (0_u64..).inspect(|_| pulled.set(pulled.get() + 1));
    let error = pool
        .map(
            |n: u64| {
                assert!(n < 1000, "enough");
                n
            },
            endless,
        )
        .unwrap_err();
    assert_eq!(error.items, 1000..1001);
    assert!(pulled.get() < 5_000_000, "bounded look-ahead: {}", pulled.get());
}

#[test]
fn e9_a_pool_without_workers_is_refused() {
    assert!(matches!(Pool::builder().workers(0).build(), Err(mp_pool::PoolError::NoWorkers)));
}
