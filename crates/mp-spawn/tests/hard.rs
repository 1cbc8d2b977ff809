//! Starting processes where little works: no descriptors, no standard streams, no /proc, a system that reaps by itself; and many at once.
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, channel};
use mp_spawn::{Child, Ended, ForkServer, JoinError, Process, SpawnError, StartMethod};
use mp_testkit::{proc, watchdog};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(100);
const PART: &str = "MP_SPAWN_HARD_PART";
const METHODS: [StartMethod; 2] = [StartMethod::Spawn, StartMethod::ForkServer];

/// Runs this test again in a process of its own, by way of `shell` if that is given: `exec "$@"` is the test then.
fn apart(test: &str, shell: Option<&str>) -> bool {
    if std::env::var_os(PART).is_some() {
        return true;
    }
    let program = std::env::current_exe().unwrap();
    let arguments = ["--exact", test, "--nocapture", "--test-threads=1"];
    let mut command = match shell {
        None => Command::new(program),
        Some(script) => {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script, "sh"]).arg(program);
            command
        }
    };
    let status = command.args(arguments).env(PART, "yes").status().unwrap();
    assert!(status.success(), "{test}: {status}");
    false
}

fn waiting(gate: Receiver<u32>) -> u32 {
    gate.recv().unwrap_or(0)
}

#[test]
fn a12_many_threads_wait_for_many_children_and_agree() {
    let _watchdog = watchdog(LONG);
    let (sender, gate) = channel(1).unwrap();
    let start = |n: u32| match n % 4 {
        0 => Process::spawn(|_: Receiver<u32>| 0, gate.clone()).unwrap(),
        1 => Process::spawn(|_: Receiver<u32>| std::process::exit(9), gate.clone()).unwrap(),
        _ => Process::spawn(waiting, gate.clone()).unwrap(),
    };
    let children: Vec<Process<u32>> = (0..100).map(start).collect();
    let handles: Vec<Child> = children.iter().map(|child| child.child().clone()).collect();
    std::thread::scope(|scope| {
        for thread in 0..64 {
            let handles = &handles;
            scope.spawn(move || {
                for (n, child) in handles.iter().enumerate() {
                    if thread % 2 == 0 {
                        // Once somebody saw how it ended, all see that, for ever.
                        while child.status().unwrap().is_none() {
                            std::thread::yield_now();
                        }
                    }
                    let ended = child.wait().unwrap();
                    let expected = match n % 4 {
                        0 => Ended::Exited(0),
                        1 => Ended::Exited(9),
                        2 => Ended::Killed { signal: 9, core_dumped: false },
                        _ => Ended::Exited(0),
                    };
                    assert_eq!(ended, expected, "{n}");
                    assert!(child.is_finished());
                    assert_eq!(child.status().unwrap(), Some(expected));
                }
            });
        }
        for child in handles.iter().skip(2).step_by(4) {
            child.kill().unwrap();
        }
        drop(sender);
    });
    for (n, child) in children.into_iter().enumerate() {
        match (n % 4, child.join()) {
            (0 | 3, Ok(0)) | (1, Err(JoinError::Exited(9))) => {}
            (2, Err(error)) if error.signal() == Some(9) => {}
            (_, other) => panic!("{n}: {other:?}"),
        }
    }
}

#[test]
fn a4_two_hundred_live_at_once() {
    let _watchdog = watchdog(LONG);
    let (sender, gate) = channel(200).unwrap();
    let server = ForkServer::new();
    let builder = Process::builder().daemon(true).fork_server(&server);
    let children: Vec<Process<u32>> = (0..200)
        .map(|n| {
            let method = METHODS[n % 2];
            builder.clone().start_method(method).spawn(waiting, gate.clone()).unwrap()
        })
        .collect();
    assert!(children.iter().all(|child| !child.is_finished()));
    for n in 1..=200 {
        sender.send(n).unwrap();
    }
    let mut values: Vec<u32> = children.into_iter().map(|child| child.join().unwrap()).collect();
    values.sort_unstable();
    assert_eq!(values, (1..=200).collect::<Vec<u32>>());
}

#[test]
fn a1_a_program_that_ignores_its_childrens_ends_still_learns_of_them() {
    let _watchdog = watchdog(LONG);
    if !apart(
        "a1_a_program_that_ignores_its_childrens_ends_still_learns_of_them",
        Some("trap '' CHLD; exec \"$@\""),
    ) {
        return;
    }
    for method in METHODS {
        let builder = Process::builder().start_method(method);
        assert_eq!(builder.spawn(|n: u32| n + 1, 1).unwrap().join().unwrap(), 2);
        let exited: Process<()> = builder.spawn(|()| std::process::exit(7), ()).unwrap();
        assert!(matches!(exited.join(), Err(JoinError::Exited(7))), "{method}");
        let aborted: Process<()> = builder.spawn(|()| std::process::abort(), ()).unwrap();
        assert_eq!(aborted.join().unwrap_err().signal(), Some(6), "{method}");
    }
}

#[test]
fn a10_without_standard_descriptors_starts_and_ends_work() {
    let _watchdog = watchdog(LONG);
    if std::env::var_os(PART).is_none() {
        let script = "exec 3>&2; exec \"$@\" <&- >&- 2>&-";
        apart("a10_without_standard_descriptors_starts_and_ends_work", Some(script));
        return;
    }
    close_standard();
    for method in METHODS {
        let seen = |()| {
            println!("nobody reads this");
            eprintln!("nor this");
            (0..3).all(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok())
        };
        assert!(Process::builder().start_method(method).spawn(seen, ()).unwrap().join().unwrap(), "{method}");
    }
    // The test harness would print to whatever has these numbers now.
    std::process::exit(0);
}

#[test]
fn a10_what_is_printed_without_standard_descriptors_reaches_no_fork_server() {
    let _watchdog = watchdog(LONG);
    if !apart("a10_what_is_printed_without_standard_descriptors_reaches_no_fork_server", None) {
        return;
    }
    close_standard();
    let server = ForkServer::new();
    let builder = Process::builder().fork_server(&server);
    assert_eq!(builder.spawn(|n: u32| n, 1).unwrap().join().unwrap(), 1);
    let pid = server.pid();
    for _ in 0..3 {
        // Whether there is somebody who takes it or not.
        let _ = std::io::stdout().write_all(b"printed\n");
        let _ = std::io::stderr().write_all(b"printed\n");
        assert_eq!(builder.spawn(|n: u32| n, 2).unwrap().join().unwrap(), 2);
    }
    assert_eq!(server.pid(), pid);
    std::process::exit(0);
}

/// Closes what Rust's runtime has opened, if it was closed, as the null device.
fn close_standard() {
    for fd in 0..3 {
        drop(by_number::take(fd));
    }
}

/// Closing descriptors by number.
mod by_number {
    #![expect(unsafe_code, reason = "the test closes its standard descriptors")]
    use std::os::fd::{FromRawFd, OwnedFd};

    pub(crate) fn take(fd: i32) -> OwnedFd {
        // SAFETY: a process of its own, in which nothing else uses the standard descriptors any more.
        unsafe { OwnedFd::from_raw_fd(fd) }
    }
}

#[test]
fn a4_without_descriptors_a_start_is_an_error_and_later_ones_work() {
    let _watchdog = watchdog(LONG);
    if !apart("a4_without_descriptors_a_start_is_an_error_and_later_ones_work", None) {
        return;
    }
    for method in METHODS {
        let builder = Process::builder().start_method(method).daemon(true);
        // The session, and the server if there is one, are there.
        assert_eq!(builder.spawn(|n: u32| n, 1).unwrap().join().unwrap(), 1);
        let limit = getrlimit(Resource::Nofile);
        let next = std::fs::File::open("/dev/null").unwrap().as_raw_fd();
        for more in 0..8 {
            let most = u64::try_from(next).unwrap() + more;
            setrlimit(Resource::Nofile, Rlimit { current: Some(most), ..limit }).unwrap();
            let started = builder.spawn(|n: u32| n, 2);
            setrlimit(Resource::Nofile, limit).unwrap();
            match started {
                Ok(child) => assert!(child.join().is_ok_and(|value| value == 2), "{method}, {more}"),
                Err(error) => {
                    assert!(matches!(error, SpawnError::Start(_) | SpawnError::Session(_)), "{error:?}")
                }
            }
        }
        assert_eq!(builder.spawn(|n: u32| n, 3).unwrap().join().unwrap(), 3, "{method}");
    }
}

#[test]
fn a4_where_no_process_may_be_made_a_start_is_an_error() {
    let _watchdog = watchdog(LONG);
    // As a user whose limit holds; root's does not.
    let test = "a4_where_no_process_may_be_made_a_start_is_an_error";
    if std::env::var_os(PART).is_none() {
        let user = rustix::process::geteuid();
        if user.is_root() && Command::new("setpriv").arg("--version").output().is_err() {
            println!("skipped: root, and no setpriv to be somebody else with");
            return;
        }
        let script = if user.is_root() {
            // Where nobody may read the program is copied.
            "d=$(mktemp -d) && chmod 755 $d && cp \"$1\" $d/program && p=$d/program && shift && \
             setpriv --reuid=65534 --regid=65534 --clear-groups \"$p\" \"$@\"; r=$?; rm -r $d; exit $r"
        } else {
            "exec \"$@\""
        };
        apart(test, Some(script));
        return;
    }
    assert_eq!(Process::spawn(|n: u32| n, 1).unwrap().join().unwrap(), 1);
    let limit = getrlimit(Resource::Nproc);
    setrlimit(Resource::Nproc, Rlimit { current: Some(0), ..limit }).unwrap();
    for method in METHODS {
        let error = Process::builder().start_method(method).spawn(|n: u32| n, 2).unwrap_err();
        assert!(matches!(error, SpawnError::Start(_)), "{method}: {error:?}");
    }
    setrlimit(Resource::Nproc, limit).unwrap();
    assert_eq!(Process::spawn(|n: u32| n, 3).unwrap().join().unwrap(), 3);
}

#[test]
fn a8_a_fork_server_has_no_address_that_a_stranger_could_ask_at() {
    let _watchdog = watchdog(LONG);
    let server = ForkServer::new();
    assert_eq!(Process::builder().fork_server(&server).spawn(|n: u32| n, 1).unwrap().join().unwrap(), 1);
    let pid = server.pid().unwrap();
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let sockets: Vec<String> = links
        .filter_map(|entry| std::fs::read_link(entry.path()).ok()?.to_str().map(str::to_owned))
        .filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = std::fs::read_to_string("/proc/net/unix").unwrap();
    let ours: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_ascii_whitespace().collect())
        .filter(|fields: &Vec<&str>| {
            fields.get(6).is_some_and(|inode| sockets.iter().any(|one| one == inode))
        })
        .collect();
    assert!(!ours.is_empty(), "the socket that it is asked through");
    assert!(ours.iter().all(|fields| fields.len() == 7), "none has a name: {ours:?}");
    drop(server);
    proc::until(|| proc::has_ended(pid));
}

#[test]
fn a4_without_proc_starts_work_or_are_errors() {
    let _watchdog = watchdog(LONG);
    let test = "a4_without_proc_starts_work_or_are_errors";
    if std::env::var_os(PART).is_none() {
        let may = Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success());
        if !may {
            println!("skipped: this user may make no mount namespace");
            return;
        }
        apart(test, Some("exec unshare -m sh -c 'umount -l /proc && exec \"$@\"' sh \"$@\""));
        return;
    }
    assert!(!std::fs::exists("/proc/self/exe").unwrap());
    for method in METHODS {
        match Process::builder().start_method(method).spawn(|n: u32| n, 2) {
            Ok(child) => assert_eq!(child.join().unwrap(), 2),
            Err(error) => assert!(
                matches!(error, SpawnError::Start(_) | SpawnError::Code(_) | SpawnError::Session(_)),
                "{error:?}"
            ),
        }
    }
}
