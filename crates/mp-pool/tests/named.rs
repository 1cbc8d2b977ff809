//! Tasks in another build of the program, by name: an executor over a socket.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "named/cluster.rs"]
mod cluster;
#[path = "named/shapes.rs"]
mod shapes;

use cluster::{Cluster, server};
use mp_pool::{Inline, NamedExecutor, Pool, TaskError, TaskHandle, ThreadPool, task};
use mp_testkit::watchdog;
use shapes::{Shape, area, built_as, exit, moved, unlucky, volume};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(100);

/// What this build says it is.
const BUILD: &str = "the test";

/// The server has it with `u64`.
#[task(name = "shapes.changed")]
fn changed(n: u32) -> u32 {
    n
}

/// The server has two of that name.
#[task(name = "shapes.twice")]
fn twice(n: u32) -> u32 {
    n * 2
}

/// The server has none of that name.
#[task]
fn only_here(n: u32) -> u32 {
    n
}

fn polygon() -> Shape {
    Shape::Polygon { name: "triangle".to_owned(), corners: vec![(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)] }
}

fn conforms<E: NamedExecutor>(executor: &E) -> Result<(String, u32), TaskError> {
    assert!((executor.submit(area, 3.0)?.get()? - area(3.0)).abs() < 1e-9);
    assert!((executor.submit(volume, (1.0, 2.0, 3.0))?.get()? - 6.0).abs() < 1e-9);
    for shape in [Shape::Square(2.0), polygon()] {
        assert_eq!(executor.submit(moved, (shape.clone(), 0.5))?.get()?, moved((shape, 0.5)));
    }
    let expected: Vec<u64> = (20..520).collect();
    assert_eq!(executor.map(unlucky, 20..520).unwrap(), expected);
    let error = executor.map(unlucky, 0..).unwrap_err();
    assert_eq!(error.items, 13..14, "{error}");
    let text = error.error.to_string();
    assert!(text.contains("unlucky 13") && text.contains("shapes.rs:"), "{text}");
    executor.submit(built_as, ())?.get()
}

#[test]
fn e26_marked_tasks_run_in_another_build_by_name() {
    let _watchdog = watchdog(LIMIT);
    let Some(server) = server() else { return };
    let cluster = Cluster::start(&server, 2);
    let (build, pid) = conforms(&cluster).unwrap();
    assert_eq!(build, "the server");
    assert_ne!(pid, std::process::id());
}

#[test]
fn e26_marked_tasks_run_in_this_build_by_whatever_executor() {
    let _watchdog = watchdog(LIMIT);
    let (build, pid) = conforms(&Pool::builder().workers(2).build().unwrap()).unwrap();
    assert!(build == "the test" && pid != std::process::id());
    for (build, pid) in [conforms(&ThreadPool::new(2).unwrap()), conforms(&Inline)].map(Result::unwrap) {
        assert!(build == "the test" && pid == std::process::id());
    }
}

#[test]
fn e26_another_build_tells_names_that_it_cannot_run() {
    let _watchdog = watchdog(LIMIT);
    let Some(server) = server() else { return };
    let cluster = Cluster::start(&server, 1);
    for (task, expected) in [
        (cluster.submit(changed, 1), "is `fn(u64)->u64` in the build that was to run it, and `fn(u32)->u32`"),
        (cluster.submit(twice, 1), "two tasks are called `shapes.twice`, at "),
        (cluster.submit(only_here, 1), "no task of this build is called `named::only_here` ("),
    ] {
        let error = task.unwrap().get().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!((cluster.submit(area, 1.0).unwrap().get().unwrap() - 1.0).abs() < 1e-9, "it goes on");
}

#[test]
fn e26_a_build_that_ends_in_a_task_fails_the_tasks_that_it_had() {
    let _watchdog = watchdog(LIMIT);
    let Some(server) = server() else { return };
    let cluster = Cluster::start(&server, 1);
    let done = cluster.submit(area, 2.0).unwrap();
    let ends = cluster.submit(exit, 3).unwrap();
    let behind = cluster.submit(area, 3.0).unwrap();
    while !ends.is_finished() {
        std::thread::yield_now();
    }
    let after = cluster.submit(area, 4.0).unwrap();
    assert!((done.get().unwrap() - 4.0).abs() < 1e-9);
    for error in [ends.get().unwrap_err(), behind.get().unwrap_err(), after.get().unwrap_err()] {
        assert!(error.to_string().contains("gone"), "{error}");
    }
}
