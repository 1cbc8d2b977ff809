//! A program that checks what its pool tells of panics, and says what the program does with them; `xtask/src/linking.rs` builds it so that
//! they abort.

#![expect(clippy::unwrap_used, reason = "a program that checks itself")]

use mp_pool::{Pool, PoolError, TaskError, TaskErrorKind, worker_id};
use mp_shm::Array;
use std::time::Duration;

const UNWINDS: bool = cfg!(panic = "unwind");

fn message(error: &TaskError) -> &str {
    match &error.kind {
        TaskErrorKind::Panicked(panic) => {
            assert!(panic.location.contains("panics.rs"), "{}", panic.location);
            &panic.message
        }
        other => panic!("{other:?}"),
    }
}

/// Some inputs of some chunks are bad.
fn half(n: u32) -> u32 {
    assert!(n % 30 != 7, "bad input {n}");
    n / 2
}

/// A panic fails its task alone, which is not tried again, whatever that cost its worker.
fn check_tasks(pool: &Pool) {
    let before = pool.apply(|()| worker_id(), ()).unwrap();
    let task = pool.submit(|n: u32| -> u32 { panic!("failure {n}") }, 7).unwrap();
    let behind = pool.submit(half, 8).unwrap();
    let error = task.get().unwrap_err();
    assert_eq!((message(&error), error.attempts), ("failure 7", 1));
    assert_eq!(behind.get().unwrap(), 4);
    let after = pool.apply(|()| worker_id(), ()).unwrap();
    assert_eq!(before == after, UNWINDS, "the worker lives on, or another takes its place");

    let aborted = pool.apply(|()| -> u32 { std::process::abort() }, ()).unwrap_err();
    let TaskErrorKind::Quarantined { deaths, last } = aborted.kind else { panic!("{aborted:?}") };
    assert!(deaths == 3 && last.contains("SIGABRT"), "what is no panic is tried again: {last}");
}

/// Of a chunk those that panic fail, each with its own message, and no other.
fn check_maps(pool: &Pool) {
    for (n, result) in (0..100).zip(pool.map_results(half, 0..100)) {
        match result {
            Ok(value) => assert!(value == n / 2 && n % 30 != 7),
            Err(error) => {
                assert_eq!(error.items, n as usize..n as usize + 1);
                assert_eq!(message(&error.error), format!("bad input {n}"));
            }
        }
    }
    let inputs = Array::from_slice(&(0..100).collect::<Vec<u32>>()).unwrap();
    let outputs = Array::from_slice(&[1000_u32; 100]).unwrap();
    let error = pool.map_into(half, &inputs, &outputs).unwrap_err();
    assert_eq!((error.items.clone(), message(&error.error)), (7..8, "bad input 7"));
    for (n, value) in (0..100).zip(outputs.to_vec()) {
        assert_eq!(value, if n % 30 == 7 { 1000 } else { n / 2 });
    }
}

/// Why no worker gets ready is told, too.
fn check_initializer() {
    let pool = Pool::builder().workers(1).initializer(|()| panic!("no licence"), ()).build().unwrap();
    match pool.apply(half, 1).unwrap_err().kind {
        TaskErrorKind::Pool(PoolError::Broken(text)) => assert!(text.contains("no licence"), "{text}"),
        other => panic!("{other:?}"),
    }
}

fn main() {
    let _watchdog = mp_testkit::watchdog(Duration::from_secs(60));
    let pool = Pool::builder().workers(1).retries(2).chunk_size(50).build().unwrap();
    check_tasks(&pool);
    check_maps(&pool);
    check_initializer();
    println!("panic={}", if UNWINDS { "unwind" } else { "abort" });
}
