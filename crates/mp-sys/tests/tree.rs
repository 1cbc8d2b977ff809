//! Signalling whole trees. Every process of a tree ends when its standard input does, which the test holds: none outlives the test, as
//! long as none stays stopped; and all have ended when their standard output has.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "forks that take long")]

use mp_sys::pidfd::{self, Pidfd};
use mp_sys::tree::signal_tree;
use mp_testkit::proc::{Task, until};
use mp_testkit::watchdog;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// Says its id, starts two like it if `$1` is above 0, and waits for the end of its input.
const TREE: &str = r#"exec 3<&0; if [ $1 -gt 0 ]; then
    sh -c "$2" sh $(($1 - 1)) "$2" <&3 & sh -c "$2" sh $(($1 - 1)) "$2" <&3 &
fi; echo $$; read x <&3"#;

/// The root of a tree, which is a child of the test.
struct Root {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    process: Pidfd,
}

impl Root {
    fn shell(arguments: &[&str]) -> Self {
        Self::of(Command::new("/bin/sh").arg("-c").args(arguments))
    }

    /// Fifteen processes, and their pidfds.
    fn tree() -> (Self, Vec<Pidfd>) {
        let mut root = Self::shell(&[TREE, "sh", "3", TREE]);
        let all = (0..15).map(|_| root.process_said()).collect();
        (root, all)
    }

    fn of(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let process = Pidfd::new(child.id(), pidfd::open(child.id()).unwrap());
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { input: child.stdin.take(), output, process, child }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn process_said(&mut self) -> Pidfd {
        let pid = self.line().parse().unwrap();
        Pidfd::new(pid, pidfd::open(pid).unwrap())
    }

    /// Waits until no process of the tree is left; what they said meanwhile, and how the root ended.
    fn gone(mut self) -> (String, ExitStatus) {
        let mut said = String::new();
        self.output.read_to_string(&mut said).unwrap();
        (said, self.child.wait().unwrap())
    }

    /// Has all of them end.
    fn leave(mut self) -> ExitStatus {
        drop(self.input.take());
        self.gone().1
    }
}

fn state(process: &Pidfd) -> Option<char> {
    Task::leader(process.pid()).state()
}

fn is_stopped(process: &Pidfd) -> bool {
    matches!(state(process), Some('T' | 't'))
}

fn part() -> Option<String> {
    std::env::var("MP_SYS_PART").ok()
}

fn part_of(test: &str, part: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env("MP_SYS_PART", part);
    command
}

fn ends_whole_trees() {
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        let ((root, all), (sibling, others)) = (Root::tree(), Root::tree());
        let report = signal_tree(&root.process, signal).unwrap();
        assert!(report.complete && report.refused.is_empty());
        let mut signalled: Vec<u32> = report.descendants.iter().map(Pidfd::pid).collect();
        let mut expected: Vec<u32> =
            all.iter().map(Pidfd::pid).filter(|&pid| pid != root.process.pid()).collect();
        signalled.sort_unstable();
        expected.sort_unstable();
        assert_eq!(signalled, expected);
        for process in all.iter().chain(&report.descendants) {
            assert!(process.wait_ended(None).unwrap());
        }
        assert_eq!(root.gone().1.signal(), Some(signal));
        for other in &others {
            assert!(!other.has_ended().unwrap() && !is_stopped(other), "it is of another tree");
        }
        assert_eq!(sibling.leave().signal(), None);
    }
}

#[test]
fn a_tree_ends_and_its_neighbour_does_not() {
    let _watchdog = watchdog(LONG);
    ends_whole_trees();
}

#[test]
fn a_tree_ends_without_lists_of_children() {
    let _watchdog = watchdog(LONG);
    if part().is_some() {
        ends_whole_trees();
        return forks_do_not_get_away();
    }
    let mut again = part_of("a_tree_ends_without_lists_of_children", "lists");
    let output = again.env("MP_FORCE", "no-proc-children").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Processes that fork all the time, and whose children fork.
fn forks_do_not_get_away() {
    let script = "exec 3<&0; i=0; while [ $i -lt 300 ]; do
        (echo $i; (echo $i; read x <&3) & read x <&3) & i=$((i + 1)); done; read x <&3";
    let mut caught_forking = 0;
    for lines in [1, 2, 3, 7, 30, 60] {
        let mut root = Root::shell(&[script]);
        (0..lines).for_each(|_| drop(root.line()));
        let report = signal_tree(&root.process, libc::SIGKILL).unwrap();
        assert!(report.complete);
        let (said, status) = root.gone();
        assert_eq!(status.signal(), Some(libc::SIGKILL));
        // On a loaded machine some are ready first.
        caught_forking += usize::from(said.lines().count() + lines < 600);
    }
    assert!(caught_forking > 0, "all were ready before they were caught: the test shows nothing");
}

#[test]
fn a_process_that_keeps_forking_is_caught_with_all_its_children() {
    let _watchdog = watchdog(LONG);
    forks_do_not_get_away();
}

extern "C" fn exit_at_once(_: libc::c_int) {
    // SAFETY: may be called in a handler of a signal.
    unsafe { libc::_exit(0) }
}

#[test]
fn a_fork_that_has_begun_is_waited_for() {
    let _watchdog = watchdog(LONG);
    let name = "a_fork_that_has_begun_is_waited_for";
    if part().is_some() {
        // A handler, since the kernel aborts the forks of a process that a signal kills.
        let handler: extern "C" fn(libc::c_int) = exit_at_once;
        // SAFETY: the handler makes one system call.
        unsafe { libc::signal(libc::SIGTERM, handler as libc::sighandler_t) };
        // Memory whose page tables are copied for a while.
        let (size, flags) = (256 << 20, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: memory of our own, anywhere.
        let memory = unsafe { libc::mmap(std::ptr::null_mut(), size, libc::PROT_WRITE, flags, -1, 0) };
        assert_ne!(memory, libc::MAP_FAILED);
        // SAFETY: advice on the memory from above.
        unsafe { libc::madvise(memory, size, libc::MADV_NOHUGEPAGE) };
        // SAFETY: the memory is mapped for writing, and nobody else's.
        unsafe { std::ptr::write_bytes(memory.cast::<u8>(), 1, size) };
        for _ in 0..200 {
            // SAFETY: the child makes system calls only.
            if unsafe { libc::fork() } == 0 {
                // SAFETY: five bytes that live for ever. The parent is in its next fork by now.
                unsafe { libc::write(1, c"born\n".as_ptr().cast(), 5) };
                until_the_end_of_input(std::ptr::null_mut());
            }
        }
        until_the_end_of_input(std::ptr::null_mut());
    }
    for _ in 0..4 {
        let mut root = Root::of(&mut part_of(name, "forks"));
        while root.line() != "born" {}
        assert!(signal_tree(&root.process, libc::SIGTERM).unwrap().complete);
        assert_eq!(root.gone().1.code(), Some(0));
    }
}

#[test]
fn a_stopped_process_of_the_tree_ends_as_well() {
    let _watchdog = watchdog(LONG);
    let (root, all) = Root::tree();
    for process in &all {
        let pid = Pid::from_raw(process.pid().cast_signed()).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        until(|| is_stopped(process));
    }
    assert!(signal_tree(&root.process, libc::SIGTERM).unwrap().complete);
    assert_eq!(root.gone().1.signal(), Some(libc::SIGTERM));
}

#[test]
fn who_ignores_the_signal_runs_on() {
    let _watchdog = watchdog(LONG);
    let script = "exec 3<&0; sh -c 'echo $$; read x <&3' & trap '' TERM; read y <&3; echo $y; read x <&3";
    let mut root = Root::shell(&[script]);
    let child = root.process_said();
    until(|| ignores(&root.process, libc::SIGTERM));
    assert!(signal_tree(&root.process, libc::SIGTERM).unwrap().complete);
    assert!(child.wait_ended(None).unwrap());
    until(|| !is_stopped(&root.process));
    root.input.as_mut().unwrap().write_all(b"here\n").unwrap();
    assert_eq!(root.line(), "here");
    assert_eq!(root.leave().signal(), None);
}

fn ignores(process: &Pidfd, signal: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() & (1 << (signal - 1)) != 0
}

#[test]
fn handlers_run_and_a_parent_has_the_signal_before_its_child_is_dead() {
    let _watchdog = watchdog(LONG);
    let script = "exec 3<&0; sh -c 'echo; read x <&3' & trap 'echo handled; exit 5' TERM; echo; wait; exit 6";
    for _ in 0..10 {
        let mut root = Root::shell(&[script]);
        (0..2).for_each(|_| drop(root.line()));
        signal_tree(&root.process, libc::SIGTERM).unwrap();
        let (said, status) = root.gone();
        assert_eq!((said.trim(), status.code()), ("handled", Some(5)));
    }
}

extern "C" fn until_the_end_of_input(_: *mut libc::c_void) -> libc::c_int {
    let mut byte = 0_u8;
    // SAFETY: there is room for one byte.
    unsafe { libc::read(0, (&raw mut byte).cast(), 1) };
    // SAFETY: ends the child without running anything of the parent's.
    unsafe { libc::_exit(0) }
}

#[test]
fn a_parent_that_waits_in_vfork_does_not_hold_it_up() {
    let _watchdog = watchdog(LONG);
    if part().is_some() {
        std::io::stdout().write_all(b"ready\n").unwrap();
        let mut stack = vec![0_u128; 4096];
        let top = stack.as_mut_ptr_range().end;
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: the child makes system calls only, on a stack that outlives it, since this thread is suspended until it has ended.
        unsafe { libc::clone(until_the_end_of_input, top.cast(), flags, std::ptr::null_mut()) };
        return;
    }
    let mut root = Root::of(&mut part_of("a_parent_that_waits_in_vfork_does_not_hold_it_up", "vfork"));
    while root.line() != "ready" {}
    until(|| mp_testkit::proc::tasks(root.process.pid()).iter().any(|task| task.state() == Some('D')));
    let report = signal_tree(&root.process, libc::SIGKILL).unwrap();
    assert!(report.complete);
    assert_eq!(report.descendants.len(), 1);
    assert_eq!(root.gone().1.signal(), Some(libc::SIGKILL));
}

#[test]
fn after_a_failure_half_way_nobody_is_signalled_or_stopped() {
    let _watchdog = watchdog(LONG);
    if part().is_none() {
        // In a process of its own, which can do without descriptors.
        let mut part = part_of("after_a_failure_half_way_nobody_is_signalled_or_stopped", "limit");
        let output = part.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let (root, all) = Root::tree();
    let limit = getrlimit(Resource::Nofile);
    let free = std::fs::File::open("/dev/null").unwrap();
    let first_free = u64::try_from(std::os::fd::AsRawFd::as_raw_fd(&free)).unwrap();
    drop(free);
    // The root, some of the descendants, and a file of /proc.
    for descriptors in 0..12 {
        setrlimit(Resource::Nofile, Rlimit { current: Some(first_free + descriptors), ..limit }).unwrap();
        let result = signal_tree(&root.process, libc::SIGTERM);
        setrlimit(Resource::Nofile, limit).unwrap();
        assert!(result.is_err(), "{descriptors} descriptors");
        for process in &all {
            assert!(!process.has_ended().unwrap());
            assert!(!is_stopped(process), "with {descriptors} descriptors {} was left", process.pid());
        }
    }
    assert_eq!(root.leave().signal(), None);
}

#[test]
fn the_caller_and_its_ancestors_are_never_touched() {
    let parent = std::os::unix::process::parent_id();
    for pid in [std::process::id(), parent, 1] {
        let process = Pidfd::new(pid, pidfd::open(pid).unwrap());
        assert_eq!(signal_tree(&process, libc::SIGCONT).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn a_pid_that_is_not_the_pidfds_is_refused() {
    let _watchdog = watchdog(LONG);
    let (one, other) = (Root::shell(&["read x"]), Root::shell(&["read x"]));
    let mixed = Pidfd::new(other.process.pid(), one.process.pidfd().as_fd().try_clone_to_owned().unwrap());
    assert_eq!(signal_tree(&mixed, libc::SIGKILL).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(one.leave().signal(), None);
    assert_eq!(other.leave().signal(), None);
}

#[test]
fn a_root_that_has_ended_is_no_error_and_a_signal_that_stops_is() {
    let _watchdog = watchdog(LONG);
    let mut root = Root::shell(&["read x"]);
    for signal in [0, 64, 9999, libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU] {
        assert_eq!(signal_tree(&root.process, signal).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert!(!is_stopped(&root.process));
    drop(root.input.take());
    assert!(root.process.wait_ended(None).unwrap());
    for _ in 0..2 {
        let report = signal_tree(&root.process, libc::SIGKILL).unwrap();
        assert!(report.complete && report.descendants.is_empty() && report.refused.is_empty());
        root.child.wait().unwrap();
    }
}
