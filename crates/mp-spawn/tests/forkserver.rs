//! Starting processes by a fork server: what is special about it. What all methods have in common is in `builder`.
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, Sender, channel};
use mp_spawn::{ForkServer, JoinError, Process, StartMethod, parent};
use mp_testkit::{heed_signals, proc, watchdog};
use rustix::process::{Pid, Signal, kill_process};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

fn send(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

fn waiting(gate: Receiver<u32>) -> u32 {
    gate.recv().unwrap_or(0)
}

#[test]
fn a1_ends_of_all_kinds_are_told_apart() {
    let _watchdog = watchdog(LONG);
    let server = ForkServer::new();
    let builder = Process::builder().fork_server(&server);
    let value = builder.spawn(|n: u64| (n * 2, std::process::id()), 21).unwrap();
    let pid = value.pid();
    assert_eq!(value.join().unwrap(), (42, pid));
    let exited: Process<()> = builder.spawn(|()| std::process::exit(7), ()).unwrap();
    assert!(matches!(exited.join(), Err(JoinError::Exited(7))));
    let panicked: Process<()> = builder.spawn(|n: u32| panic!("number {n}"), 9).unwrap();
    let Err(JoinError::Panicked(panic)) = panicked.join() else { panic!("a panic was expected") };
    assert_eq!(panic.message, "number 9");
    let aborted: Process<()> = builder.spawn(|()| std::process::abort(), ()).unwrap();
    assert_eq!(aborted.join().unwrap_err().signal(), Some(6));
    // A large argument, threads, and output.
    let large = builder.spawn(
        |bytes: Vec<u8>| {
            let sum = std::thread::spawn(move || bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>());
            println!("summing");
            sum.join().unwrap()
        },
        vec![3; 8 << 20],
    );
    assert_eq!(large.unwrap().join().unwrap(), 24 << 20);
}

#[test]
fn a18_the_parent_is_who_asked_and_memory_is_not_shared() {
    let _watchdog = watchdog(LONG);
    static HERE: AtomicU32 = AtomicU32::new(1);
    HERE.store(2, Ordering::Relaxed);
    let server = ForkServer::new();
    let builder = Process::builder().fork_server(&server);
    let seen =
        |()| (parent().unwrap().unwrap().pid(), HERE.load(Ordering::Relaxed), proc::descriptors().len());
    let (of, memory, descriptors) = builder.spawn(seen, ()).unwrap().join().unwrap();
    assert_eq!((of, memory), (std::process::id(), 1));
    let executed = Process::spawn(seen, ()).unwrap().join().unwrap();
    assert_eq!(descriptors, executed.2, "it holds no more than one that was executed");
}

static LOADED: AtomicU32 = AtomicU32::new(0);

#[test]
fn a19_what_a_server_has_loaded_its_processes_have() {
    let _watchdog = watchdog(LONG);
    let server = ForkServer::with_preload(|()| LOADED.store(17, Ordering::Relaxed));
    let loaded = |()| LOADED.load(Ordering::Relaxed);
    assert_eq!(Process::builder().fork_server(&server).spawn(loaded, ()).unwrap().join().unwrap(), 17);
    // Another server of the same program has not.
    let plain = ForkServer::new();
    assert_eq!(Process::builder().fork_server(&plain).spawn(loaded, ()).unwrap().join().unwrap(), 0);
    assert_eq!(LOADED.load(Ordering::Relaxed), 0);
    assert_ne!(server.pid(), plain.pid());
}

#[test]
fn a19_a_server_with_a_second_thread_starts_nothing() {
    let _watchdog = watchdog(LONG);
    let server = ForkServer::with_preload(|()| drop(std::thread::spawn(std::thread::park)));
    let error = Process::builder().fork_server(&server).spawn(|()| (), ()).unwrap_err();
    assert!(error.to_string().contains("more than one thread"), "{error}");
}

#[test]
fn a19_a_preload_function_that_panics_is_an_error() {
    let _watchdog = watchdog(LONG);
    let server = ForkServer::with_preload(|()| panic!("no such library"));
    let error = Process::builder().fork_server(&server).spawn(|()| (), ()).unwrap_err();
    assert!(error.to_string().contains("the zygote has ended"), "{error}");
}

#[test]
fn a7_a_killed_server_loses_no_process_and_is_made_anew() {
    let _watchdog = watchdog(LONG);
    let server = ForkServer::new();
    let builder = Process::builder().fork_server(&server);
    let (sender, gate) = channel(1).unwrap();
    let before = builder.spawn(waiting, gate.clone()).unwrap();
    let doomed = builder.spawn(waiting, gate).unwrap();
    let first = server.pid().unwrap();
    send(first, Signal::KILL);
    proc::until(|| proc::has_ended(first));
    let after = builder.spawn(|n: u32| n + 1, 1).unwrap();
    assert_ne!(server.pid().unwrap(), first);
    assert_eq!(after.join().unwrap(), 2);
    assert!(!before.is_finished());
    doomed.kill().unwrap();
    assert_eq!(doomed.join().unwrap_err().signal(), Some(9));
    sender.send(4).unwrap();
    assert_eq!(before.join().unwrap(), 4);
    // One that was ended on purpose, too.
    server.end();
    assert_eq!(server.pid(), None);
    assert_eq!(builder.spawn(|n: u32| n + 1, 2).unwrap().join().unwrap(), 3);
}

#[test]
fn a7_a_server_is_not_interrupted_and_its_processes_are() {
    let _watchdog = watchdog(LONG);
    heed_signals();
    let server = ForkServer::new();
    let builder = Process::builder().fork_server(&server);
    let (_sender, gate) = channel(1).unwrap();
    let child = builder.spawn(waiting, gate).unwrap();
    let pid = server.pid().unwrap();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        send(pid, signal);
    }
    assert_eq!(builder.spawn(|n: u32| n, 5).unwrap().join().unwrap(), 5);
    assert_eq!(server.pid(), Some(pid));
    child.interrupt().unwrap();
    assert_eq!(child.join().unwrap_err().signal(), Some(2));
}

/// Starts a process of its own, with whatever method.
fn deeper((depth, method): (u32, String)) -> Vec<u32> {
    let mut all = vec![std::process::id()];
    if depth > 0 {
        let next = if method == "spawn" { "forkserver" } else { "spawn" };
        let builder = Process::builder().start_method(method.parse().unwrap());
        all.extend(builder.spawn(deeper, (depth - 1, next.to_owned())).unwrap().join().unwrap());
    }
    all
}

#[test]
fn a9_methods_mix_at_any_depth() {
    let _watchdog = watchdog(LONG);
    for method in [StartMethod::Spawn, StartMethod::ForkServer] {
        let mut all = Process::spawn(deeper, (4, method.to_string())).unwrap().join().unwrap();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 5);
    }
}

#[test]
fn a4_a_hundred_at_once_and_a_hundred_killed_right_after_their_start() {
    let _watchdog = watchdog(LONG * 2);
    let server = ForkServer::new();
    let builder = Process::builder().fork_server(&server);
    let short: Vec<_> = (0..100_u32).map(|n| builder.spawn(|n: u32| n * n, n).unwrap()).collect();
    let squares: Vec<u32> = short.into_iter().map(|child| child.join().unwrap()).collect();
    assert_eq!(squares, (0..100).map(|n| n * n).collect::<Vec<_>>());
    let (_sender, gate) = channel(1).unwrap();
    let doomed: Vec<_> = (0..100).map(|_| builder.spawn(waiting, gate.clone()).unwrap()).collect();
    for child in &doomed {
        child.kill().unwrap();
    }
    for child in doomed {
        assert_eq!(child.join().unwrap_err().signal(), Some(9));
    }
}

#[test]
fn a12_threads_start_processes_at_once() {
    let _watchdog = watchdog(LONG);
    let server = ForkServer::new();
    let builder = Process::builder().fork_server(&server);
    std::thread::scope(|scope| {
        for thread in 0..8_u32 {
            let builder = &builder;
            scope.spawn(move || {
                for n in 0..10 {
                    assert_eq!(
                        builder.spawn(|n: u32| n, thread * 100 + n).unwrap().join().unwrap(),
                        thread * 100 + n
                    );
                }
            });
        }
    });
}

fn idle((runs, _keeps): (Sender<u32>, Receiver<()>)) {
    runs.send(std::process::id()).unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn a13_daemons_of_a_server_die_with_who_asked_for_them() {
    let _watchdog = watchdog(LONG);
    let (runs, told) = channel(1).unwrap();
    let (_sender, keeps) = channel(1).unwrap();
    let between = |(runs, keeps): (Sender<u32>, Receiver<()>)| {
        let server = ForkServer::new();
        let daemon = Process::builder().daemon(true).fork_server(&server).spawn(idle, (runs, keeps)).unwrap();
        daemon.wait().unwrap();
    };
    let parent: Process<()> = Process::spawn(between, (runs, keeps)).unwrap();
    let daemon = told.recv().unwrap();
    parent.kill().unwrap();
    parent.join().unwrap_err();
    proc::until(|| proc::has_ended(daemon));
}

#[test]
fn a18_a_setting_that_cannot_be_made_is_told() {
    let _watchdog = watchdog(LONG);
    let server = ForkServer::new();
    let builder = Process::builder().fork_server(&server);
    let error = builder.current_dir("/no/such/place").spawn(|()| (), ()).unwrap().join().unwrap_err();
    assert!(
        matches!(&error, JoinError::Refused(text) if text.contains("changing to the directory")),
        "{error}"
    );
}
