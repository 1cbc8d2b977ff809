//! How processes ended: told to any number of threads at once, and also when somebody else has reaped the child.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "the habits of programs that reap what is not theirs")]

use mp_sys::pidfd::{self, Pidfd};
use mp_sys::process::{Child, Ended};
use mp_sys::start::{Program, above_standard, start};
use mp_sys::status::Status;
use mp_testkit::proc::{Task, until};
use mp_testkit::watchdog;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::CString;
use std::io::{BufRead, BufReader, PipeWriter};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// Runs the test of this name again in a process of its own, where it finds `part` and the forced fallbacks.
fn again(test: &str, part: &str, force: &str) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env("MP_SYS_PART", part).env("MP_FORCE", force);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{part} {force}: {}", String::from_utf8_lossy(&output.stderr));
}

fn part() -> Option<String> {
    std::env::var("MP_SYS_PART").ok()
}

/// A child that runs `script` once what is returned beside it is dropped.
fn child(script: &str) -> (Child, PipeWriter) {
    let (low, writer) = std::io::pipe().unwrap();
    let reader = above_standard(&low).unwrap();
    // By its name, since some shells know only descriptors of one digit.
    let script = CString::new(format!("read x </proc/self/fd/{}; {script}", reader.as_raw_fd())).unwrap();
    let arguments = [c"sh", c"-c", script.as_c_str()];
    let program = Program {
        path: c"/bin/sh",
        arguments: &arguments,
        environment: &[],
        inherit: &[reader.as_fd()],
        setup: &mp_sys::setup::Setup::default(),
    };
    (start(&program).unwrap(), writer)
}

const KILLED: Ended = Ended::Killed { signal: 9, core_dumped: false };

/// Whether this kernel tells how a process ended that was reaped.
fn kernel_tells() -> bool {
    let (child, writer) = child("exit 3");
    drop(writer);
    child.reap().unwrap();
    child.status().unwrap() != Status::Unknown
}

#[test]
fn a_child_is_told_before_and_after_it_is_reaped() {
    let _watchdog = watchdog(LONG);
    let tells = kernel_tells();
    for (script, ended) in
        [("exit 7", Ended::Exited(7)), ("exit 0", Ended::Exited(0)), ("kill -9 $$", KILLED)]
    {
        let (child, writer) = child(script);
        assert_eq!(child.status().unwrap(), Status::Running);
        assert_eq!(child.try_reap().unwrap(), None);
        assert!(!child.is_reaped());
        drop(writer);
        assert!(child.wait_ended(None).unwrap());
        assert_eq!(child.status().unwrap(), Status::Ended(ended));
        assert!(!child.is_reaped(), "to ask does not reap");
        assert_eq!(child.reap().unwrap(), ended);
        assert!(child.is_reaped());
        assert_eq!(child.try_reap().unwrap(), Some(ended));
        assert_eq!(child.reap().unwrap(), ended, "again");
        assert_eq!(child.status().unwrap(), if tells { Status::Ended(ended) } else { Status::Unknown });
    }
}

#[test]
fn somebody_elses_child_is_told_once_it_is_reaped() {
    let _watchdog = watchdog(LONG);
    let tells = kernel_tells();
    let script = "exec 3<&0; sh -c 'echo $$; read x <&3' & wait; read x; exit 0";
    let mut shell = Command::new("/bin/sh");
    let mut parent = shell.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let pid = line.trim().parse().unwrap();
    let process = Pidfd::new(pid, pidfd::open(pid).unwrap());
    assert_eq!(process.status().unwrap(), Status::Running);
    // Stopped, it cannot reap.
    let stop = |signal| kill_process(Pid::from_child(&parent), signal).unwrap();
    stop(Signal::STOP);
    until(|| Task::leader(parent.id()).state() == Some('T'));
    process.kill().unwrap();
    assert!(process.wait_ended(None).unwrap());
    assert_eq!(process.status().unwrap(), Status::Unreaped);
    stop(Signal::CONT);
    until(|| process.is_reaped());
    assert_eq!(process.status().unwrap(), if tells { Status::Ended(KILLED) } else { Status::Unknown });
    drop(parent.stdin.take());
    assert!(parent.wait().unwrap().success());
}

/// Children that end in different ways, some of them while they are waited for.
fn expect_exact_statuses(tells: bool) {
    for round in 0..60 {
        let (script, ended) = if round % 3 == 0 {
            ("kill -9 $$".to_owned(), KILLED)
        } else {
            (format!("exit {round}"), Ended::Exited(round))
        };
        let (child, writer) = child(&script);
        let told = std::thread::scope(|scope| {
            let waiting = (round % 2 == 0).then(|| scope.spawn(|| child.reap()));
            drop(writer);
            waiting.map_or_else(|| child.reap(), |waiting| waiting.join().unwrap())
        });
        match told {
            Ok(told) => assert_eq!(told, ended),
            Err(error) => assert!(!tells && error.raw_os_error() == Some(libc::ECHILD), "{error}"),
        }
        if tells {
            assert_eq!(child.try_reap().unwrap(), Some(ended));
        }
    }
}

#[test]
fn a_program_that_ignores_sigchld_gets_exact_statuses() {
    if part().is_none() {
        let _watchdog = watchdog(LONG);
        let name = "a_program_that_ignores_sigchld_gets_exact_statuses";
        again(name, if kernel_tells() { "tells" } else { "cannot" }, "");
        return again(name, "cannot", "no-pidfd-info");
    }
    let _watchdog = watchdog(LONG);
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    expect_exact_statuses(part().unwrap() == "tells");
    let (child, writer) = child("exit 1");
    drop(writer);
    until(|| child.is_reaped());
    let told = child.try_reap();
    assert_eq!(told.is_ok(), part().unwrap() == "tells", "{told:?}");
}

#[test]
fn a_library_that_reaps_everything_takes_no_status_away() {
    if part().is_none() {
        let _watchdog = watchdog(LONG);
        let name = "a_library_that_reaps_everything_takes_no_status_away";
        again(name, if kernel_tells() { "tells" } else { "cannot" }, "");
        return again(name, "cannot", "no-pidfd-info");
    }
    let _watchdog = watchdog(LONG);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // SAFETY: the status is not asked for.
                unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) };
            }
        });
        expect_exact_statuses(part().unwrap() == "tells");
        done.store(true, Ordering::Relaxed);
    });
}

/// Whether the process is between two looks, and not in the wait for an end.
fn is_in_a_sleep(pid: u32) -> bool {
    let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    call.split(' ').next().and_then(|number| number.parse().ok()) == Some(libc::SYS_clock_nanosleep)
}

/// A copy of this process, which is not the parent of its children: it waits for `child`, and exits with its code, or 200 if it is not told.
fn copy_that_reaps(child: &Child, writer: &PipeWriter) -> u32 {
    // SAFETY: the copy makes system calls alone, and ends by `_exit`.
    let copy = unsafe { libc::fork() };
    if copy != 0 {
        return u32::try_from(copy).unwrap();
    }
    // SAFETY: the copy's own descriptor; else the child's input would have no end.
    unsafe { libc::close(writer.as_raw_fd()) };
    let code = match (child.reap(), child.try_reap()) {
        (Ok(Ended::Exited(code)), Ok(Some(again))) if again == Ended::Exited(code) => code,
        (Err(error), _) if error.raw_os_error() == Some(libc::ECHILD) => 200,
        _ => 201,
    };
    // SAFETY: nothing of the parent's is to be run.
    unsafe { libc::_exit(code) }
}

fn exit_code(pid: u32) -> i32 {
    let mut status = 0;
    // SAFETY: a child of this process that nobody else waits for.
    assert!(unsafe { libc::waitpid(pid.cast_signed(), &raw mut status, 0) } > 0);
    assert!(libc::WIFEXITED(status), "{status}");
    libc::WEXITSTATUS(status)
}

#[test]
fn who_is_not_the_parent_waits_until_the_parent_has_reaped() {
    if part().is_none() {
        let _watchdog = watchdog(LONG);
        let name = "who_is_not_the_parent_waits_until_the_parent_has_reaped";
        again(name, if kernel_tells() { "tells" } else { "cannot" }, "");
        return again(name, "cannot", "no-pidfd-info");
    }
    let _watchdog = watchdog(LONG);
    let tells = part().unwrap() == "tells";
    let (child, writer) = child("exit 7");
    let copy = copy_that_reaps(&child, &writer);
    Task::leader(copy).wait_until_blocked();
    drop(writer);
    until(|| is_in_a_sleep(copy) || Task::leader(copy).state() == Some('Z'));
    assert_ne!(Task::leader(copy).state(), Some('Z'), "it gave up although the status was still to come");
    assert_eq!(child.reap().unwrap(), Ended::Exited(7));
    assert_eq!(exit_code(copy), if tells { 7 } else { 200 });
}

#[test]
fn a_status_is_given_up_when_the_parent_does_not_reap() {
    let _watchdog = watchdog(LONG);
    let (child, writer) = child("exit 7");
    let copy = copy_that_reaps(&child, &writer);
    drop(writer);
    assert_eq!(exit_code(copy), 200);
    assert_eq!(child.reap().unwrap(), Ended::Exited(7));
}

#[test]
fn all_threads_that_reap_are_told_the_same() {
    let _watchdog = watchdog(LONG);
    if part().is_none() {
        // Without the kernel's help a thread that comes too late has nobody else to ask.
        return again("all_threads_that_reap_are_told_the_same", "threads", "no-pidfd-info");
    }
    for round in 0..40 {
        let (child, writer) = child(&format!("exit {round}"));
        let ended = Ended::Exited(round);
        std::thread::scope(|scope| {
            let (says, said) = mpsc::channel();
            for _ in 0..4 {
                let (says, child) = (says.clone(), &child);
                scope.spawn(move || {
                    says.send(Task::current()).unwrap();
                    assert_eq!(child.reap().unwrap(), ended);
                    assert_eq!(child.reap().unwrap(), ended);
                });
            }
            for _ in 0..4 {
                let waiting: Task = said.recv().unwrap();
                until(|| waiting.state() == Some('S'));
            }
            assert_eq!(child.try_reap().unwrap(), None, "nobody is blocked by those who wait");
            let asking = scope.spawn(|| {
                loop {
                    if let Some(told) = child.try_reap().unwrap() {
                        return told;
                    }
                }
            });
            drop(writer);
            assert_eq!(asking.join().unwrap(), ended);
        });
    }
}
