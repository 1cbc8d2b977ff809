//! The start method `fork`: what a copy has of its parent, what it has not, and when it is refused.
//!
//! Test programs have several threads, so each test forks in a child, whose job runs with one.
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, Sender, channel};
use mp_shm::error::SessionError;
use mp_spawn::{Builder, JoinError, Process, Resource, SpawnError, StartMethod, Stdio, active_children};
use mp_sys::pidfd::{self, Pidfd};
use mp_sys::process::Ended;
use mp_testkit::{assert_no_backstop, watchdog};
use std::io::{Read, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

fn fork() -> Builder {
    Process::builder().start_method(StartMethod::Fork)
}

/// Runs a test in a process that has one thread.
fn with_one_thread(test: fn(())) {
    let _watchdog = watchdog(LONG);
    Process::spawn(test, ()).unwrap().join().unwrap();
    assert_no_backstop();
}

/// Runs until it is killed.
fn park((): ()) {
    loop {
        std::thread::park();
    }
}

fn tell_and_park(runs: Sender<()>) {
    runs.send(()).unwrap();
    park(());
}

static MEMORY: AtomicU32 = AtomicU32::new(0);

#[test]
fn a18_a_copy_has_the_memory_and_gives_its_value_back() {
    with_one_thread(|()| {
        MEMORY.store(40, Ordering::Relaxed);
        let has = |n: u32| {
            let had = MEMORY.fetch_add(n, Ordering::Relaxed);
            (had + n, std::process::id())
        };
        let child = fork().spawn(has, 2).unwrap();
        let pid = child.pid();
        assert_eq!(child.join().unwrap(), (42, pid));
        assert_eq!(MEMORY.load(Ordering::Relaxed), 40, "the parent's own");
        // Large values, both ways.
        let doubled = fork()
            .spawn(|words: Vec<u64>| words.iter().map(|word| word * 2).collect::<Vec<_>>(), vec![7; 1 << 20]);
        assert!(doubled.unwrap().join().unwrap().iter().all(|&word| word == 14));
        assert!(active_children().is_empty());
    });
}

#[test]
fn a1_the_end_of_a_copy_is_told_apart() {
    with_one_thread(|()| {
        let panicked = fork()
            .spawn(|()| assert!(MEMORY.load(Ordering::Relaxed) > 0, "nothing there"), ())
            .unwrap()
            .join();
        assert!(
            matches!(&panicked, Err(JoinError::Panicked(panic)) if panic.message.contains("nothing there")),
            "{panicked:?}"
        );
        let exited = fork().spawn(|code: i32| -> () { std::process::exit(code) }, 7).unwrap().join();
        assert!(matches!(exited, Err(JoinError::Exited(7))), "{exited:?}");
        let child = fork().spawn(park, ()).unwrap();
        child.kill().unwrap();
        let killed = child.join();
        assert!(
            matches!(
                killed,
                Err(JoinError::Killed { signal: 9, .. }
                    | JoinError::NotStarted(Ended::Killed { signal: 9, .. }))
            ),
            "{killed:?}"
        );
    });
}

#[test]
fn a18_a_process_with_other_threads_is_not_copied() {
    let _watchdog = watchdog(LONG);
    // The test's runner has threads of its own.
    let (park, parked) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || parked.recv());
    let error = fork().spawn(|()| (), ()).unwrap_err();
    assert!(
        matches!(&error, SpawnError::Start(error) if error.kind() == std::io::ErrorKind::ResourceBusy),
        "{error:?}"
    );
    assert!(error.to_string().contains("other threads"), "{error}");
    drop(park);
    other.join().unwrap().unwrap_err();
}

fn echo((from, to): (Receiver<u32>, Sender<u32>)) {
    from.into_iter().for_each(|number| to.send(number + 1).unwrap());
}

#[test]
fn a18_a_copy_has_the_channels_of_its_argument_and_no_others() {
    static OF_PARENT: OnceLock<Sender<u32>> = OnceLock::new();
    with_one_thread(|()| {
        let (to, from) = channel(4).unwrap();
        let (back, answers) = channel(4).unwrap();
        let child = fork().spawn(echo, (from, back)).unwrap();
        for number in 0..100 {
            to.send(number).unwrap();
            assert_eq!(answers.recv().unwrap(), number + 1);
        }
        drop(to);
        child.join().unwrap();
        assert!(answers.recv().unwrap_err().is_disconnected());

        let (to, from) = channel(4).unwrap();
        to.send(1).unwrap();
        OF_PARENT.set(to.clone()).unwrap();
        let told = fork().spawn(|()| OF_PARENT.get().unwrap().send(2).unwrap_err().to_string(), ()).unwrap();
        assert!(told.join().unwrap().contains(&SessionError::Forked.to_string()));
        assert_eq!(from.recv().unwrap(), 1);
        assert!(from.try_recv().unwrap_err().is_empty(), "the copy's end has not sent and was not counted");
    });
}

#[test]
fn a18_what_the_builder_says_is_set_in_a_copy() {
    with_one_thread(|()| {
        let mut child = fork()
            .name("copied")
            .env("COPY", "yes")
            .env_remove("PATH")
            .current_dir("/")
            .niceness(5)
            .limit(Resource::Descriptors, 99)
            .stdin(Stdio::Piped)
            .stdout(Stdio::Piped)
            .spawn(
                |()| {
                    let mut said = String::new();
                    std::io::stdin().read_to_string(&mut said).unwrap();
                    println!("{said} {}", std::env::var("COPY").unwrap());
                    assert!(std::env::var_os("PATH").is_none());
                    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
                    let files =
                        limits.lines().find(|line| line.starts_with("Max open files")).unwrap().to_owned();
                    assert!(files.contains(" 99 "), "{files}");
                    (
                        mp_spawn::current().name().to_owned(),
                        std::env::current_dir().unwrap().to_str().unwrap().to_owned(),
                    )
                },
                (),
            )
            .unwrap();
        child.stdin.take().unwrap().write_all(b"hello").unwrap();
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(said.contains("hello yes"), "{said}");
        assert_eq!(child.join().unwrap(), ("copied".to_owned(), "/".to_owned()));
        let error = fork().current_dir("/nonexistent").spawn(|()| (), ()).unwrap().join().unwrap_err();
        assert!(matches!(&error, JoinError::Refused(text) if text.contains("directory")), "{error:?}");
    });
}

/// Starts one by each method, below it one by each, and so on; how many there were.
fn nest(depth: u32) -> u32 {
    let methods = [StartMethod::Spawn, StartMethod::ForkServer, StartMethod::Fork];
    if depth == 0 {
        return 1;
    }
    let parent = std::process::id();
    let below = methods.map(|method| {
        let child = Process::builder().start_method(method).spawn(
            |(depth, parent): (u32, u32)| {
                assert_eq!(mp_spawn::parent().unwrap().unwrap().pid(), parent);
                assert!(active_children().is_empty(), "those of the parent are not its own");
                nest(depth)
            },
            (depth - 1, parent),
        );
        child.unwrap()
    });
    1 + below.map(|child| child.join().unwrap()).iter().sum::<u32>()
}

#[test]
fn a9_copies_start_processes_by_every_method_and_are_started_by_them() {
    with_one_thread(|()| assert_eq!(nest(3), 1 + 3 + 9 + 27));
}

/// Has a daemon, a fork server and then a copy, tells of all of them, and ends without a word.
fn dies_and_leaves_a_copy(tell: Sender<Vec<u32>>) {
    let daemon = Process::builder().daemon(true).spawn(park, ()).unwrap();
    let server = mp_spawn::ForkServer::new();
    let served = Process::builder().fork_server(&server).spawn(|()| (), ()).unwrap();
    served.join().unwrap();
    let (runs, running) = channel(1).unwrap();
    let copy = fork().spawn(tell_and_park, runs).unwrap();
    running.recv().unwrap();
    tell.send(vec![copy.pid(), daemon.pid(), server.pid().unwrap()]).unwrap();
    std::thread::park();
}

#[test]
fn a13_a_copy_keeps_neither_a_daemon_nor_a_fork_server_of_its_dead_parent_alive() {
    let _watchdog = watchdog(LONG);
    let (tell, told) = channel(1).unwrap();
    let parent = Process::spawn(dies_and_leaves_a_copy, tell).unwrap();
    let opened: Vec<Pidfd> =
        told.recv().unwrap().into_iter().map(|pid| Pidfd::new(pid, pidfd::open(pid).unwrap())).collect();
    let [copy, daemon, server] = &opened[..] else { panic!("three processes") };
    parent.kill().unwrap();
    parent.join().unwrap_err();
    assert!(daemon.wait_ended(None).unwrap());
    assert!(server.wait_ended(None).unwrap());
    assert!(!copy.has_ended().unwrap(), "it is no daemon");
    copy.kill().unwrap();
    copy.wait_ended(None).unwrap();
}

#[test]
fn a13_a_copy_that_is_a_daemon_dies_with_its_parent() {
    let _watchdog = watchdog(LONG);
    let (tell, told) = channel(1).unwrap();
    let dies = |tell: Sender<u32>| {
        let daemon = fork().daemon(true).spawn(park, ()).unwrap();
        tell.send(daemon.pid()).unwrap();
        std::thread::park();
    };
    let parent = Process::spawn(dies, tell).unwrap();
    let pid = told.recv().unwrap();
    let daemon = Pidfd::new(pid, pidfd::open(pid).unwrap());
    parent.kill().unwrap();
    parent.join().unwrap_err();
    assert!(daemon.wait_ended(None).unwrap());
}

#[test]
fn a10_what_was_buffered_before_a_fork_is_written_once() {
    let _watchdog = watchdog(LONG);
    let prints = |()| {
        print!("before;");
        fork().spawn(|()| print!("in it;"), ()).unwrap().join().unwrap();
        print!("after;");
    };
    let mut child = Process::builder().stdout(Stdio::Piped).spawn(prints, ()).unwrap();
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    child.join().unwrap();
    assert_eq!(said, "before;in it;after;");
}

/// Starts a process that runs until `gate` is gone, and returns without it.
fn leaves_a_child((runs, gate): (Sender<()>, Receiver<u32>)) {
    let wait = |(runs, gate): (Sender<()>, Receiver<u32>)| {
        runs.send(()).unwrap();
        gate.recv().unwrap_err();
    };
    drop(Process::spawn(wait, (runs, gate)).unwrap());
}

#[test]
fn a13_a_copy_waits_at_its_end_for_the_children_it_has_started_and_for_no_others() {
    with_one_thread(|()| {
        // The copy's parent has one, too, for which it does not wait.
        let (_sender, held) = channel::<u32>(1).unwrap();
        let others =
            Process::builder().daemon(true).spawn(|held: Receiver<u32>| drop(held.recv()), held).unwrap();
        let (open, gate) = channel::<u32>(1).unwrap();
        let (runs, running) = channel(1).unwrap();
        let mut copy = fork().spawn(leaves_a_child, (runs, gate)).unwrap();
        running.recv().unwrap();
        assert!(copy.join_timeout(Duration::from_millis(100)).is_none(), "its child runs");
        drop(open);
        copy.join().unwrap();
        others.kill().unwrap();
    });
}
