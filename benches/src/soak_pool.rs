//! Pools whose workers kill each other: `pool`.
//!
//! ```text
//! this process ── starts ─► a program with a pool ── tasks: values, panics, exits, murders of other workers, hangs that are cancelled
//!                           resized and killed at while callbacks submit further tasks, maps run in other threads
//! ```
//!
//! In half of the rounds nobody exits or murders: then workers end for what is cancelled alone, and no other task may suffer.
//!
//! What is checked: every task resolves, as one of its kind may, and once; a map gives each input its value or its failure; the program is left with no
//! child and the descriptors that it had, and with no object of the session more than before.

use crate::soak_starts::{children, descriptors};
use multiproc::{Pool, Process, Session, StartMethod, Task, TaskErrorKind};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::{Value, json};
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// The name of this soak.
pub const NAME: &str = "pool";

/// Tasks that a round submits itself; callbacks submit as many again.
const TASKS: u64 = 300;
/// No end of a round for so long is one that does not come.
const STUCK: Duration = Duration::from_secs(120);

/// What a round tells: tasks that resolved, workers that died, what was wrong.
type Told = (u64, u64, Vec<String>);

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Kills a worker of the same pool, never another process that got its id.
fn murder(pid: u32) {
    let Some(raw) = rustix::process::Pid::from_raw(pid.cast_signed()) else { return };
    let Ok(pidfd) = pidfd_open(raw, PidfdFlags::empty()) else { return };
    if parent_of(pid) == parent_of(std::process::id()) {
        // It may have ended meanwhile.
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    }
}

/// A task of some kind, which may kill the worker named.
fn work((kind, number, victim): (u64, u64, u32)) -> u64 {
    match kind {
        0 => panic!("on purpose"),
        1 => std::process::exit(40),
        2 => murder(victim),
        3 => murder(std::process::id()),
        4 => loop {
            thread::park();
        },
        5 => thread::sleep(Duration::from_millis(1)),
        _ => {}
    }
    number
}

fn is_right(
    (kind, number): (u64, u64),
    is_peaceful: bool,
    result: &Result<u64, multiproc::TaskError>,
) -> bool {
    match result {
        Ok(value) => *value == number && !matches!(kind, 0 | 1 | 3 | 4),
        // Anyone may have been murdered while it ran, however often it was tried; and a hang is cancelled.
        Err(error) => match &error.kind {
            TaskErrorKind::Panicked(panic) => kind == 0 && panic.message == "on purpose",
            TaskErrorKind::Exited(40) => kind == 1,
            TaskErrorKind::Killed { signal: 9, .. } | TaskErrorKind::Quarantined { .. } => !is_peaceful,
            TaskErrorKind::Cancelled => kind == 4,
            _ => false,
        },
    }
}

fn round(seed: u64) -> Told {
    let mut random = fastrand::Rng::with_seed(seed);
    let is_peaceful = random.bool();
    let mut wrong = Vec::new();
    // What the first use makes is not left over by a pool.
    drop(Pool::builder().workers(1).build());
    let before = (descriptors(), Session::current().map(|session| session.audit().objects).ok());
    let method = if random.bool() { StartMethod::Spawn } else { StartMethod::ForkServer };
    let pool = Pool::builder().workers(3).start_method(method).retries(random.u32(..3));
    let Ok(pool) = pool.build().map(Arc::new) else { return (0, 0, vec![String::from("no pool")]) };
    let (tell, told) = mpsc::channel::<Option<String>>();
    let expected = AtomicU64::new(0);
    thread::scope(|scope| {
        let map_seed = random.u64(..);
        let (mapped, expected) = (&pool, &expected);
        let maps = scope.spawn(move || {
            let mut random = fastrand::Rng::with_seed(map_seed);
            let mut wrong = Vec::new();
            for _ in 0..4 {
                let inputs: Vec<_> = (0..100)
                    .map(|n| (if !is_peaceful && random.u32(..40) == 0 { 3 } else { 9 }, n, 0))
                    .collect();
                let results = mapped.map_results(work, inputs.clone());
                if results.len() != inputs.len() {
                    wrong.push(format!("{} results of {} inputs", results.len(), inputs.len()));
                }
                for ((_, number, _), result) in inputs.into_iter().zip(results) {
                    let is_right = match &result {
                        Ok(value) => *value == number,
                        Err(error) => {
                            let is_counted = matches!(
                                error.error.kind,
                                TaskErrorKind::Quarantined { .. } | TaskErrorKind::Lost(_)
                            );
                            !is_peaceful && (is_counted || error.error.signal() == Some(9))
                        }
                    };
                    if !is_right {
                        wrong.push(format!("in a map: {result:?}"));
                    }
                }
            }
            wrong
        });
        let mut hangs: Vec<Task<u64>> = Vec::new();
        for number in 0..TASKS {
            let pids = pool.worker_pids();
            let victim = random.choice(&pids).copied().unwrap_or(0);
            // Murders are rare enough for the pool to get somewhere.
            let kind = if random.u32(..4) == 0 { random.u64(..6) } else { 9 };
            let kind = if is_peaceful && matches!(kind, 1..=3) { 4 } else { kind };
            let Ok(task) = pool.submit(work, (kind, number, victim)) else {
                wrong.push(String::from("a submit failed"));
                continue;
            };
            if kind == 4 {
                hangs.push(task);
            } else {
                expected.fetch_add(1, Ordering::Relaxed);
                let (tell, again) = (tell.clone(), pool.clone());
                task.on_done(move |result| {
                    let text = (!is_right((kind, number), is_peaceful, &result))
                        .then(|| format!("{kind}: {result:?}"));
                    // From a callback another one is submitted, whose end is told.
                    let Ok(next) = again.submit(work, (9, number, 0)) else {
                        let _ = tell.send(Some(String::from("a submit in a callback failed")));
                        return;
                    };
                    next.on_done(move |result| {
                        let next =
                            (!is_right((9, number), is_peaceful, &result)).then(|| format!("9: {result:?}"));
                        let _ = tell.send(text.or(next));
                    });
                });
            }
            if random.u32(..20) == 0 {
                let _ = pool.resize(random.usize(1..6));
            }
            if random.u32(..3) == 0
                && let Some(hung) = hangs.pop()
            {
                hung.cancel();
                let result = hung.get();
                if !is_right((4, 0), is_peaceful, &result) {
                    wrong.push(format!("a hang: {result:?}"));
                }
            }
        }
        for hung in hangs {
            hung.cancel();
        }
        for _ in 0..expected.load(Ordering::Relaxed) {
            match told.recv_timeout(STUCK) {
                Ok(text) => wrong.extend(text),
                Err(_) => {
                    wrong.push(format!("a task does not resolve: {:?}", pool.stats()));
                    break;
                }
            }
        }
        wrong.extend(maps.join().unwrap_or_else(|_| vec![String::from("a map panicked")]));
    });
    let stats = pool.stats();
    match Arc::try_unwrap(pool) {
        Ok(pool) if random.bool() => wrong.extend(pool.join().err().map(|error| error.to_string())),
        Ok(pool) => pool.terminate(),
        // A callback that has told its end may still hold it.
        Err(pool) => drop(pool),
    }
    let until = Instant::now() + STUCK;
    // A fork server has one process that waits for its order.
    let fork_server = usize::from(method == StartMethod::ForkServer);
    while children() > 2 * fork_server && Instant::now() < until {
        thread::yield_now();
    }
    if children() > 2 * fork_server {
        wrong.push(format!("{} children are left", children()));
    }
    let after = (descriptors(), Session::current().map(|session| session.audit().objects).ok());
    // The fork server's socket, bell and process.
    if after.0 > before.0 + 3 * fork_server || after.1 > before.1 {
        wrong.push(format!("descriptors and objects: {before:?} have become {after:?}"));
    }
    (stats.tasks_done + stats.tasks_failed, stats.workers_lost, wrong)
}

/// Runs the soak, if it is this one; a "kill" is the death of a worker.
pub fn soak(name: &str, time: Duration, kills_max: u64, seed: u64) -> Option<multiproc::Result<Value>> {
    (name == NAME).then(|| run(time, kills_max, seed))
}

fn run(time: Duration, kills_max: u64, seed: u64) -> multiproc::Result<Value> {
    let mut random = fastrand::Rng::with_seed(seed);
    let start = Instant::now();
    let mut broken: Vec<String> = Vec::new();
    let (mut rounds, mut tasks, mut deaths) = (0_u64, 0, 0);
    while start.elapsed() < time && deaths < kills_max && broken.is_empty() {
        let seed = random.u64(..);
        let builder = Process::builder().stderr(multiproc::Stdio::Null);
        let mut child = builder.spawn(round, seed)?;
        let Some(joined) = child.join_timeout(STUCK * 2) else {
            broken.push(format!("round {seed} does not end: process {}", child.pid()));
            break;
        };
        rounds += 1;
        match joined {
            Ok((resolved, lost, wrong)) => {
                tasks += resolved;
                deaths += lost;
                broken.extend(wrong.into_iter().map(|text| format!("round {seed}: {text}")));
            }
            Err(error) => broken.push(format!("round {seed}: {error}")),
        }
    }
    Ok(json!({
        "name": NAME, "seed": seed, "seconds": start.elapsed().as_secs(), "rounds": rounds, "tasks": tasks,
        "dead_workers": deaths, "broken": broken,
    }))
}
