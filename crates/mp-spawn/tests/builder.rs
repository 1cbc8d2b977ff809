//! What can be set about a process before it starts.
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_spawn::{Builder, Ended, JoinError, Process, Resource, SpawnError, StartMethod, Stdio, current};
use mp_testkit::{heed_signals, proc, watchdog};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);
/// Names the start method that the tests here use.
const METHOD: &str = "MP_SPAWN_TEST_METHOD";

/// A builder of the start method under test.
fn plain() -> Builder {
    // Before the fork server is started.
    heed_signals();
    let method = std::env::var(METHOD).map_or(StartMethod::Spawn, |name| name.parse().unwrap());
    Process::builder().start_method(method)
}

/// Why a process cannot be as it was asked for: one that is executed is not started, one that is copied does not take its job.
fn refusal(builder: &Builder) -> String {
    match builder.spawn(|()| (), ()) {
        Ok(child) => child.join().unwrap_err().to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a19_all_of_this_by_a_fork_server() {
    if std::env::var_os(METHOD).is_some() {
        return;
    }
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    let output = again.env(METHOD, "forkserver").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("a1_a_name_is_known_on_both_sides ... ok"), "{said}");
}

#[test]
fn a1_a_name_is_known_on_both_sides() {
    let _watchdog = watchdog(LONG);
    let name = |()| (current().name().to_owned(), std::fs::read_to_string("/proc/self/comm").unwrap());
    let child = plain().name("reads: numbers=all").spawn(name, ()).unwrap();
    assert_eq!(child.name(), "reads: numbers=all");
    let (said, system) = child.join().unwrap();
    assert_eq!((said.as_str(), system.trim_end()), ("reads: numbers=all", "reads: numbers="));
    let child = plain().spawn(name, ()).unwrap();
    let expected = format!("process-{}", child.id());
    assert_eq!(child.name(), expected);
    assert_eq!(child.join().unwrap().0, expected);
    assert_eq!(current().name(), "main");
}

#[test]
fn a18_the_environment_is_as_it_was_asked_for() {
    let _watchdog = watchdog(LONG);
    let seen = |()| {
        let all: Vec<(String, String)> =
            std::env::vars().filter(|(name, _)| name != "RUST_BACKTRACE").collect();
        all
    };
    let child = plain().env_clear().env("A", "1").env("B", "x=y").env("A", "2").spawn(seen, ()).unwrap();
    let mut all = child.join().unwrap();
    all.sort();
    assert_eq!(all, [("A".to_owned(), "2".to_owned()), ("B".to_owned(), "x=y".to_owned())]);
    let child = plain().env_remove("PATH").env("MP_SPAWN_TEST", "here").spawn(seen, ()).unwrap();
    let all = child.join().unwrap();
    assert!(all.iter().all(|(name, _)| name != "PATH"), "{all:?}");
    assert!(all.contains(&("MP_SPAWN_TEST".to_owned(), "here".to_owned())), "{all:?}");
    // What a process of one's own would inherit is there.
    let inherited = std::env::vars().filter(|(name, _)| name != "PATH" && name != "RUST_BACKTRACE").count();
    assert_eq!(all.len(), inherited + 1);
    for builder in
        [plain().env("A", "nul\0"), plain().env("A=B", "c"), plain().env_remove(""), plain().name("a\0")]
    {
        let error = builder.spawn(seen, ()).unwrap_err();
        assert!(matches!(error, SpawnError::Start(_)), "{error:?}");
    }
}

#[test]
fn a18_the_directory_is_as_it_was_asked_for() {
    let _watchdog = watchdog(LONG);
    let here = |()| std::env::current_dir().unwrap().to_str().unwrap().to_owned();
    assert_eq!(plain().current_dir("/proc").spawn(here, ()).unwrap().join().unwrap(), "/proc");
    let error = refusal(&plain().current_dir("/no/such/place"));
    assert!(error.contains("changing to the directory"), "{error}");
}

#[test]
fn a10_standard_descriptors_can_be_pipes() {
    let _watchdog = watchdog(LONG);
    let shout = |()| {
        let mut said = String::new();
        std::io::stdin().read_to_string(&mut said).unwrap();
        println!("{}", said.to_uppercase());
        eprintln!("{} bytes", said.len());
    };
    let builder = plain().stdin(Stdio::Piped).stdout(Stdio::Piped).stderr(Stdio::Piped);
    let mut child = builder.spawn(shout, ()).unwrap();
    child.stdin.take().unwrap().write_all(b"hello").unwrap();
    let (mut out, mut error) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
    assert_eq!((out.as_str(), error.as_str()), ("HELLO\n", "5 bytes\n"));
    child.join().unwrap();
    // Joining lets go of its input: a child that reads to the end is not waited for in vain.
    let child = plain().stdin(Stdio::Piped).stdout(Stdio::Null).stderr(Stdio::Null).spawn(shout, ());
    child.unwrap().join().unwrap();
}

#[test]
fn a10_standard_descriptors_can_be_files_and_nothing() {
    let _watchdog = watchdog(LONG);
    let targets = |()| {
        let target =
            |fd: u32| std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap().display().to_string();
        [target(0), target(1), target(2)]
    };
    let file = std::fs::File::open("/proc/version").unwrap();
    let builder = plain().stdin(file).stdout(Stdio::Null);
    // A builder can be used again.
    for _ in 0..2 {
        let found = builder.spawn(targets, ()).unwrap().join().unwrap();
        assert_eq!(found[..2], ["/proc/version".to_owned(), "/dev/null".to_owned()]);
        assert_eq!(found[2], std::fs::read_link("/proc/self/fd/2").unwrap().display().to_string());
    }
    // This process's own error for the child's output, crosswise.
    let ours: OwnedFd = std::io::stderr().try_clone_to_owned();
    let found = plain().stdout(ours).spawn(targets, ()).unwrap().join().unwrap();
    assert_eq!(found[1], found[2]);
}

trait TryCloneToOwned {
    fn try_clone_to_owned(&self) -> OwnedFd;
}

impl<T: std::os::fd::AsFd> TryCloneToOwned for T {
    fn try_clone_to_owned(&self) -> OwnedFd {
        self.as_fd().try_clone_to_owned().unwrap()
    }
}

#[test]
fn a5_a_named_descriptor_is_inherited_under_its_number_and_no_other() {
    let _watchdog = watchdog(LONG);
    let file: OwnedFd = std::fs::File::open("/proc/version").unwrap().into();
    let number = file.as_raw_fd();
    let held = |()| proc::descriptors();
    let without = plain().spawn(held, ()).unwrap().join().unwrap();
    let with = plain().inherit(file).spawn(held, ()).unwrap().join().unwrap();
    assert!(with.contains(&format!("{number} -> /proc/version")), "{with:?}");
    assert_eq!(with.len(), without.len() + 1);
}

#[test]
fn a18_group_niceness_and_processors_are_as_they_were_asked_for() {
    let _watchdog = watchdog(LONG);
    let found = |()| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        let group = rustix::process::getpgrp().as_raw_pid();
        let niceness = rustix::process::getpriority_process(None).unwrap();
        (group, niceness, line("Cpus_allowed_list:"))
    };
    let first = rustix::thread::sched_getaffinity(None).unwrap();
    let cpu = (0..1024).find(|&cpu| first.is_set(cpu)).unwrap();
    let builder = plain().process_group(0).niceness(7).processors([cpu]);
    let child = builder.spawn(found, ()).unwrap();
    let pid = i32::try_from(child.pid()).unwrap();
    assert_eq!(child.join().unwrap(), (pid, 7, cpu.to_string()));
    let ours = rustix::process::getpgrp().as_raw_pid();
    assert_eq!(plain().spawn(found, ()).unwrap().join().unwrap().0, ours);
    for (builder, word) in [
        (plain().processors([1023]), "processors"),
        (plain().processors([1024]), "processor"),
        (plain().process_group(1), "group"),
    ] {
        let error = refusal(&builder);
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn a18_limits_hold_in_the_child_alone() {
    let _watchdog = watchdog(LONG);
    let ours = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let open = |()| {
        let files: Vec<_> = (0..100).map_while(|_| std::fs::File::open("/dev/null").ok()).collect();
        files.len()
    };
    let child = plain().limit(Resource::Descriptors, 20).spawn(open, ()).unwrap();
    let opened = child.join().unwrap();
    assert!(opened < 20, "{opened}");
    assert_eq!(rustix::process::getrlimit(rustix::process::Resource::Nofile), ours);
    // The hard limit, too.
    let most = |()| rustix::process::getrlimit(rustix::process::Resource::Core).maximum;
    assert_eq!(plain().limit(Resource::Core, 0).spawn(most, ()).unwrap().join().unwrap(), Some(0));
}

#[test]
fn a18_a_limit_of_address_space_leaves_room_for_the_session() {
    let _watchdog = watchdog(LONG);
    // Far below what the session maps.
    let builder = plain().limit(Resource::AddressSpace, 1 << 30);
    let take = |bytes: usize| Vec::<u8>::new().try_reserve_exact(bytes).is_ok();
    assert!(builder.spawn(take, 64 << 20).unwrap().join().unwrap());
    assert!(!builder.spawn(take, 2 << 30).unwrap().join().unwrap());
    assert!(plain().spawn(take, 2 << 30).unwrap().join().unwrap());
}

#[test]
fn a1_a_processor_time_limit_is_told_as_its_signal() {
    let _watchdog = watchdog(LONG);
    let spin = |()| {
        loop {
            std::hint::spin_loop();
        }
    };
    let child: Process<()> = plain().limit(Resource::ProcessorTime, 1).spawn(spin, ()).unwrap();
    let error = child.join().unwrap_err();
    // The soft limit's SIGXCPU and the hard one's SIGKILL come at the same second.
    assert!(matches!(error, JoinError::Killed { signal: 9 | 24, .. }), "{error}");
}

#[test]
fn a3_a_dropped_process_that_is_to_be_killed_is_gone() {
    let _watchdog = watchdog(LONG);
    let child: Process<()> = plain().kill_on_drop(true).spawn(|()| std::thread::park(), ()).unwrap();
    let (pid, other) = (child.pid(), child.child().clone());
    drop(child);
    assert!(proc::has_ended(pid));
    assert_eq!(other.status().unwrap(), Some(Ended::Killed { signal: 9, core_dumped: false }));
    // One that was joined is not signalled again.
    let child = plain().kill_on_drop(true).spawn(|n: u8| n, 3).unwrap();
    assert_eq!(child.join().unwrap(), 3);
}

#[test]
fn a2_a_value_is_given_once() {
    let _watchdog = watchdog(LONG);
    let (sender, gate) = mp_channel::channel::<u32>(1).unwrap();
    let mut child = plain().spawn(|gate: mp_channel::Receiver<u32>| gate.recv().unwrap(), gate).unwrap();
    assert!(child.try_join().is_none());
    assert!(child.join_timeout(Duration::from_millis(5)).is_none());
    sender.send(11).unwrap();
    let value = loop {
        if let Some(value) = child.join_timeout(LONG) {
            break value;
        }
    };
    assert_eq!(value.unwrap(), 11);
    assert!(matches!(child.try_join(), Some(Err(JoinError::Taken))));
    assert!(matches!(child.join_timeout(Duration::ZERO), Some(Err(JoinError::Taken))));
    assert!(child.is_finished());
    assert_eq!(child.status().unwrap(), Some(Ended::Exited(0)));
    assert!(matches!(child.join(), Err(JoinError::Taken)));
}

#[test]
fn a1_an_interrupt_is_told_as_its_signal() {
    let _watchdog = watchdog(LONG);
    let (_sender, gate) = mp_channel::channel::<u32>(1).unwrap();
    let child = plain().spawn(|gate: mp_channel::Receiver<u32>| gate.recv().unwrap_or(0), gate).unwrap();
    child.interrupt().unwrap();
    assert_eq!(child.join().unwrap_err().signal(), Some(2));
}
