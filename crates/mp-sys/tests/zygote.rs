//! A zygote from outside: what it starts, what those find, and what is left when somebody dies.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "a constructor, mutexes of the C library, a fork")]

mod zygote_roles;

use mp_sys::deadline::Deadline;
use mp_sys::process::Ended;
use mp_sys::zygote::{BYTES_MAX, Client, DESCRIPTORS_MAX, Request, supported};
use mp_sys::{fork, robust};
use mp_testkit::proc::{self, Task};
use mp_testkit::watchdog;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use std::cell::UnsafeCell;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;
use zygote_roles::{send, soon, start_role, zygote};

const LONG: Duration = Duration::from_secs(60);
/// Exit code of a process whose request did not come whole.
const NOT_WHOLE: i32 = 99;

fn ask(client: &Client, job: &str) -> Ended {
    client.request(job.as_bytes(), &[], soon()).unwrap().reap().unwrap()
}

/// A variable that a new process has set when it gets its job.
const PREPARED: &str = "MP_SYS_TEST_PREPARED";

fn prepare(kind: &str) {
    // SAFETY: a new process has one thread.
    unsafe { std::env::set_var(PREPARED, std::process::id().to_string()) };
    assert!(kind != "unprepared", "as asked");
    if kind == "stopping" {
        send(std::process::id(), Signal::STOP);
    }
}

/// 0 if this very process was prepared.
fn is_prepared() -> i32 {
    i32::from(std::env::var(PREPARED).ok() != Some(std::process::id().to_string()))
}

/// The process in a zygote's group that has no job yet.
fn spare(zygote: u32) -> Option<u32> {
    proc::children().into_iter().find(|&child| child != zygote && group(child) == Some(zygote))
}

/// The process group of a process, if there is one.
fn group(pid: u32) -> Option<u32> {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap());
    rustix::process::getpgid(pid).ok().map(|group| group.as_raw_pid().unsigned_abs())
}

fn job(request: io::Result<Request>) -> i32 {
    let Ok(request) = request else { return NOT_WHOLE };
    let text = String::from_utf8(request.bytes.clone()).unwrap();
    match text.split(' ').next().unwrap() {
        "panic" => panic!("as asked"),
        "ids" => ids(),
        "start" => start(),
        "prepared" => is_prepared(),
        "work" => work(request.fds),
        "descriptors" => descriptors(&request.fds),
        "mask" => mask(),
        "die-holding" => die_holding(&request.fds[0]),
        // As many bytes and descriptors as there may be: their sums.
        "" => i32::from(request.bytes.iter().any(|&byte| byte != b' ') || request.bytes.len() != BYTES_MAX),
        "count" => i32::from(request.fds.len() != DESCRIPTORS_MAX),
        _ => zygote_roles::job(&request),
    }
}

/// 0 if everything here knows that it is in a process of its own.
fn ids() -> i32 {
    let mut list: *const usize = std::ptr::null();
    let mut len = 0_usize;
    // SAFETY: writes one pointer and one length.
    unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut list, &raw mut len) };
    // SAFETY: the head of the calling thread's list, which is registered (else this is null, and the test fails here).
    assert_eq!(unsafe { *list }, list as usize, "it is empty: it points to itself");
    let pid = std::process::id();
    let mut mutex = libc::PTHREAD_MUTEX_INITIALIZER;
    // SAFETY: initialised, and nobody else's.
    assert_eq!(unsafe { libc::pthread_mutex_lock(&raw mut mutex) }, 0);
    // SAFETY: `int lock; unsigned count; int owner` begin every mutex of glibc's.
    let owner = unsafe { (&raw const mutex).cast::<u32>().wrapping_add(2).read() };
    assert_eq!((owner, robust::tid(), fork::pid()), (pid, pid, pid));
    // `raise` takes the thread's id from the C library.
    // SAFETY: signal 0 only asks whether there is such a thread.
    assert_eq!(unsafe { libc::raise(0) }, 0);
    0
}

/// 0 if this process, and a copy of it, know when they were started.
fn start() -> i32 {
    let knows = || {
        let status = mp_sys::process::status(std::process::id()).unwrap().unwrap();
        mp_sys::process::own_start_time() == status.start_time
    };
    if !knows() {
        return 1;
    }
    // The next tick, so that it was not started in the same one.
    let ticks = rustix::param::clock_ticks_per_second();
    std::thread::sleep(Duration::from_nanos(1_000_000_000 / ticks));
    // SAFETY: this process has one thread.
    let copy = unsafe { libc::fork() };
    if copy == 0 {
        // SAFETY: ends the copy without running anything of this program's.
        unsafe { libc::_exit(i32::from(!knows())) }
    }
    let copy = rustix::process::Pid::from_raw(copy).unwrap();
    let ended = rustix::process::waitpid(Some(copy), rustix::process::WaitOptions::empty()).unwrap().unwrap();
    ended.1.exit_status().unwrap_or(2)
}

fn work(fds: Vec<OwnedFd>) -> i32 {
    use std::os::fd::AsRawFd;
    // SAFETY: both are open, and nobody here owns the standard output.
    assert_eq!(unsafe { libc::dup2(fds[0].as_raw_fd(), 1) }, 1);
    drop(fds);
    let threads: Vec<_> = (0..8_u8).map(|at| std::thread::spawn(move || vec![at; 1 << 20])).collect();
    let sum: u64 = threads.into_iter().flat_map(|thread| thread.join().unwrap()).map(u64::from).sum();
    println!("sum {sum}");
    let missing = mp_sys::start::start(&mp_sys::start::Program {
        path: c"/nonexistent",
        arguments: &[c"x"],
        environment: &[],
        inherit: &[],
        setup: &mp_sys::setup::Setup::default(),
    });
    i32::from(missing.unwrap_err().kind() != ErrorKind::NotFound)
}

/// 0 if there are the standard descriptors, the request's, and no others.
fn descriptors(fds: &[OwnedFd]) -> i32 {
    use std::os::fd::AsRawFd;
    let expected: Vec<i32> = (0..3).chain(fds.iter().map(AsRawFd::as_raw_fd)).collect();
    let open = proc::descriptors();
    let is_expected = |line: &String| expected.contains(&line.split(' ').next().unwrap().parse().unwrap());
    i32::from(open.len() != expected.len() || !open.iter().all(is_expected))
}

/// 0 if SIGUSR1 is blocked, and nothing else.
fn mask() -> i32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap().trim();
    i32::from(u64::from_str_radix(blocked, 16).unwrap() != 1 << (libc::SIGUSR1 - 1))
}

/// A robust mutex of the C library and a word of ours, in memory that two processes share.
#[repr(C)]
struct Held {
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    word: robust::RobustWord,
}

fn map(file: &OwnedFd) -> &'static Held {
    use rustix::mm::{MapFlags, ProtFlags, mmap};
    let (size, protection) = (size_of::<Held>(), ProtFlags::READ | ProtFlags::WRITE);
    // SAFETY: a new mapping at an address of the kernel's choice.
    let held = unsafe { mmap(std::ptr::null_mut(), size, protection, MapFlags::SHARED, file, 0) };
    // SAFETY: never unmapped; zeros are valid, and both parts may be changed by others.
    unsafe { &*held.unwrap().cast::<Held>() }
}

fn die_holding(file: &OwnedFd) -> i32 {
    let held = map(file);
    // SAFETY: the test has initialised it.
    assert_eq!(unsafe { libc::pthread_mutex_lock(held.mutex.get()) }, 0);
    // SAFETY: mapped for good, and nobody else has it.
    unsafe { robust::hold(&held.word, robust::HELD_MAX) }.unwrap();
    held.word.word.store(robust::tid(), Ordering::Release);
    send(std::process::id(), Signal::KILL);
    1
}

fn be_requester(words: &[&str]) -> i32 {
    let (client, pid) = zygote(if words[0] == "narrow" { "stopping" } else { "plain" }, &[]);
    match words[0] {
        "waits" => wait_with(&client, pid),
        "narrow" => ask_without_descriptors(&client, pid),
        _ => ask_from_another_session(&client),
    }
}

/// Moves to another session; 0 if then it gets no process, and nothing is left.
fn ask_from_another_session(client: &Client) -> i32 {
    assert_eq!(ask(client, "exit 7"), Ended::Exited(7));
    rustix::process::setsid().unwrap();
    let refused = client.request(b"exit 7", &[], soon()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    assert_eq!(client.request(b"exit 7", &[], soon()).unwrap_err().kind(), ErrorKind::BrokenPipe);
    i32::from(!proc::children().is_empty())
}

/// Cannot receive the spare, which is stopped; 0 if the request is an error then, and nothing is left.
fn ask_without_descriptors(client: &Client, pid: u32) -> i32 {
    let child = client.request(b"exit 7", &[], soon()).unwrap();
    proc::until(|| Task::leader(child.pid()).state() == Some('T'));
    send(child.pid(), Signal::CONT);
    child.reap().unwrap();
    proc::until(|| spare(pid).is_some_and(|spare| Task::leader(spare).state() == Some('T')));
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(3), ..limit }).unwrap();
    let refused = client.request(b"exit 7", &[], soon()).unwrap_err();
    setrlimit(Resource::Nofile, limit).unwrap();
    assert_eq!(refused.raw_os_error(), Some(libc::EMFILE));
    i32::from(!proc::children().is_empty())
}

/// Has a process started, says who it and the zygote are, and waits.
fn wait_with(client: &Client, pid: u32) -> i32 {
    let (until, _writer) = io::pipe().unwrap();
    let out = io::stdout();
    let child = client.request(b"wait 0", &[out.as_fd(), until.as_fd()], soon()).unwrap();
    io::stdout().write_all(format!(" {pid} {}\n", child.pid()).as_bytes()).unwrap();
    let _ = child.reap();
    1
}

#[test]
fn exit_codes_and_signals_come_back() {
    let _watchdog = watchdog(LONG);
    supported().unwrap();
    let (client, _) = zygote("plain", &[]);
    for code in [0, 7, 255] {
        assert_eq!(ask(&client, &format!("exit {code}")), Ended::Exited(code));
    }
    for signal in [9, 15, 10] {
        let ended = ask(&client, &format!("signal {signal}"));
        assert_eq!(ended, Ended::Killed { signal, core_dumped: false });
    }
    assert_eq!(ask(&client, "panic"), Ended::Exited(101));
    assert_eq!(ask(&client, &format!("parent {}", std::process::id())), Ended::Exited(0));
}

#[test]
fn a_new_process_is_one_of_its_own_for_the_c_library_and_for_us() {
    let _watchdog = watchdog(LONG);
    let (client, _) = zygote("holding", &[]);
    assert_eq!(ask(&client, "ids"), Ended::Exited(0));
    let (mut reader, writer) = io::pipe().unwrap();
    let child = client.request(b"work", &[writer.as_fd()], soon()).unwrap();
    drop(writer);
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert_eq!((child.reap().unwrap(), said.as_str()), (Ended::Exited(0), "sum 29360128\n"));
}

#[test]
fn a_new_process_is_prepared_and_whatever_comes_of_that_it_does_its_job() {
    let _watchdog = watchdog(LONG);
    for kind in ["plain", "unprepared"] {
        let (client, _) = zygote(kind, &[]);
        for _ in 0..3 {
            assert_eq!(ask(&client, "prepared"), Ended::Exited(0), "{kind}");
        }
    }
}

#[test]
fn a_new_process_knows_when_it_was_started() {
    let _watchdog = watchdog(LONG);
    let (client, _) = zygote("plain", &[]);
    for _ in 0..200 {
        assert_eq!(ask(&client, "start"), Ended::Exited(0));
    }
}

#[test]
fn what_a_new_process_held_when_it_was_killed_is_marked() {
    let _watchdog = watchdog(LONG);
    let (client, _) = zygote("holding", &[]);
    let file = rustix::fs::memfd_create("held", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, size_of::<Held>() as u64).unwrap();
    let held = map(&file);
    let mut attributes = std::mem::MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
    let attributes = attributes.as_mut_ptr();
    // SAFETY: initialises the attributes.
    assert_eq!(unsafe { libc::pthread_mutexattr_init(attributes) }, 0);
    // SAFETY: initialised above.
    unsafe { libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST) };
    // SAFETY: as above.
    unsafe { libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED) };
    // SAFETY: nobody uses the mutex yet.
    assert_eq!(unsafe { libc::pthread_mutex_init(held.mutex.get(), attributes) }, 0);
    let child = client.request(b"die-holding", &[file.as_fd()], soon()).unwrap();
    assert_eq!(child.reap().unwrap(), Ended::Killed { signal: 9, core_dumped: false });
    // SAFETY: initialised above.
    let locked = unsafe { libc::pthread_mutex_lock(held.mutex.get()) };
    assert_eq!(locked, libc::EOWNERDEAD);
    assert_eq!(held.word.word.load(Ordering::Acquire), robust::OWNER_DIED);
}

#[test]
fn descriptors_arrive_and_no_others() {
    let _watchdog = watchdog(LONG);
    let (client, pid) = zygote("plain", &[]);
    let file = std::fs::File::open("/dev/null").unwrap();
    let open = |pid: u32| std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    assert_eq!(ask(&client, "descriptors"), Ended::Exited(0));
    for count in 1..40 {
        let child = client.request(b"descriptors", &vec![file.as_fd(); count], soon()).unwrap();
        assert_eq!(child.reap().unwrap(), Ended::Exited(0));
    }
    // The standard ones, the socket, the bell, and the directory of its threads; a pidfd is closed only after the answer.
    proc::until(|| open(pid) == 6);
}

#[test]
fn a_request_has_its_limits() {
    let _watchdog = watchdog(LONG);
    let (client, _) = zygote("plain", &[]);
    let file = std::fs::File::open("/dev/null").unwrap();
    let bytes = vec![b' '; BYTES_MAX + 1];
    assert_eq!(client.request(&bytes, &[], soon()).unwrap_err().kind(), ErrorKind::InvalidInput);
    let fds = vec![file.as_fd(); DESCRIPTORS_MAX + 1];
    assert_eq!(client.request(b"count", &fds, soon()).unwrap_err().kind(), ErrorKind::InvalidInput);
    let child = client.request(&bytes[1..], &[], soon()).unwrap();
    assert_eq!(child.reap().unwrap(), Ended::Exited(0));
    let child = client.request(b"count", &fds[1..], soon()).unwrap();
    assert_eq!(child.reap().unwrap(), Ended::Exited(0));
}

#[test]
fn a_zygote_with_two_threads_refuses() {
    let _watchdog = watchdog(LONG);
    let (client, _) = zygote("threaded", &[]);
    for _ in 0..2 {
        let refused = client.request(b"exit 0", &[], soon()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ResourceBusy, "{refused}");
    }
}

#[test]
fn a_zygote_that_cannot_serve_ends_and_is_an_error() {
    let _watchdog = watchdog(LONG);
    let (client, _) = zygote("plain", &["MP_FORCE=no-tid-address"]);
    for _ in 0..2 {
        assert_eq!(client.request(b"exit 0", &[], soon()).unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}

#[test]
fn a_killed_zygote_is_an_error_and_what_it_started_is_still_reported() {
    let _watchdog = watchdog(LONG);
    let (client, pid) = zygote("plain", &[]);
    let (_runs, says) = io::pipe().unwrap();
    let (until, end) = io::pipe().unwrap();
    let child = client.request(b"wait 7", &[says.as_fd(), until.as_fd()], soon()).unwrap();
    drop(until);
    send(pid, Signal::KILL);
    proc::until(|| proc::has_ended(pid));
    for _ in 0..2 {
        assert_eq!(client.request(b"exit 0", &[], soon()).unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
    assert!(Task::leader(pid).state().is_none(), "it is reaped");
    assert!(!child.has_ended().unwrap());
    drop(end);
    assert_eq!(child.reap().unwrap(), Ended::Exited(7));
}

#[test]
fn a_dropped_client_ends_its_zygote_and_nothing_else() {
    let _watchdog = watchdog(LONG);
    let (client, pid) = zygote("plain", &[]);
    let (_runs, says) = io::pipe().unwrap();
    let (until, end) = io::pipe().unwrap();
    let child = client.request(b"wait 7", &[says.as_fd(), until.as_fd()], soon()).unwrap();
    drop((client, until));
    assert!(Task::leader(pid).state().is_none(), "it is reaped");
    drop(end);
    assert_eq!(child.reap().unwrap(), Ended::Exited(7));
}

#[test]
fn a_zygote_ends_with_its_requester() {
    let _watchdog = watchdog(LONG);
    let mut requester = std::process::Command::new("/proc/self/exe")
        .env(zygote_roles::ROLE, "requester waits")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // Both have said what they have to: `r`, and the ids.
    let mut said = String::new();
    let out = requester.stdout.as_mut().unwrap();
    while !(said.contains('r') && said.contains('\n')) {
        let mut byte = [0];
        out.read_exact(&mut byte).unwrap();
        said.push(byte[0].into());
    }
    let said = said.replace('r', "");
    let pids: Vec<u32> = said.split_whitespace().map(|word| word.parse().unwrap()).collect();
    assert_eq!(pids.len(), 2);
    assert!(!pids.iter().any(|&pid| proc::has_ended(pid)));
    requester.kill().unwrap();
    requester.wait().unwrap();
    proc::until(|| pids.iter().all(|&pid| proc::has_ended(pid)));
}

#[test]
fn a_stopped_zygote_is_ended_at_the_deadline() {
    let _watchdog = watchdog(LONG);
    let (client, pid) = zygote("plain", &[]);
    assert_eq!(ask(&client, "exit 0"), Ended::Exited(0));
    send(pid, Signal::STOP);
    proc::until(|| Task::leader(pid).state() == Some('T'));
    // It may have made the next process before.
    let mut deadline = soon();
    let ask = |_| {
        deadline = Deadline::after(Duration::from_millis(5));
        client.request(b"exit 0", &[], deadline).map(|child| child.reap().unwrap()).err()
    };
    let error = (0..2).find_map(ask).unwrap();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(deadline.passed());
    assert!(Task::leader(pid).state().is_none(), "it is reaped");
    assert_eq!(client.request(b"exit 0", &[], soon()).unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
fn a_requester_that_has_left_its_session_gets_nothing_and_nothing_is_left() {
    let _watchdog = watchdog(LONG);
    let requester = start_role("requester apart", &[], &[]);
    assert_eq!(requester.reap().unwrap(), Ended::Exited(0));
}

#[test]
fn a_stopped_spare_that_cannot_be_received_is_ended() {
    let _watchdog = watchdog(LONG);
    let requester = start_role("requester narrow", &[], &[]);
    assert_eq!(requester.reap().unwrap(), Ended::Exited(0));
}

#[test]
fn two_hundred_at_once_from_four_threads() {
    let _watchdog = watchdog(LONG);
    let (client, _) = zygote("plain", &[]);
    let (_runs, says) = io::pipe().unwrap();
    let (until, end) = io::pipe().unwrap();
    let children: Vec<_> = std::thread::scope(|scope| {
        let (client, says, until) = (&client, &says, &until);
        let start = move |thread: usize| {
            let one = move |at: usize| {
                let code = i32::try_from(thread * 50 + at).unwrap();
                let job = format!("wait {code}");
                (code, client.request(job.as_bytes(), &[says.as_fd(), until.as_fd()], soon()).unwrap())
            };
            (0..50).map(one).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..4).map(|thread| scope.spawn(move || start(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(children.iter().all(|(_, child)| !child.has_ended().unwrap()));
    // One in seven is killed, right after its start as far as it is concerned.
    for (code, child) in &children {
        if code % 7 == 0 {
            child.kill().unwrap();
        }
    }
    drop((until, end));
    for (code, child) in children {
        let expected = match code % 7 {
            0 => Ended::Killed { signal: 9, core_dumped: false },
            _ => Ended::Exited(code),
        };
        assert_eq!(child.reap().unwrap(), expected);
    }
}

#[test]
fn a_zygote_takes_no_signal_that_asks_to_end_and_what_it_starts_does() {
    let _watchdog = watchdog(LONG);
    let (client, pid) = zygote("plain", &[]);
    let (mut runs, says) = io::pipe().unwrap();
    let (until, _end) = io::pipe().unwrap();
    assert_eq!(ask(&client, "exit 0"), Ended::Exited(0), "it serves");
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        send(pid, signal);
        let child = client.request(b"wait 7", &[says.as_fd(), until.as_fd()], soon()).unwrap();
        runs.read_exact(&mut [0]).unwrap();
        send(child.pid(), signal);
        let ended = Ended::Killed { signal: signal.as_raw(), core_dumped: false };
        assert_eq!(child.reap().unwrap(), ended);
    }
}

#[test]
fn a_new_process_has_the_signal_mask_of_the_zygotes_begin_and_the_requesters_group() {
    let _watchdog = watchdog(LONG);
    let (client, pid) = zygote("masked", &[]);
    assert_eq!(ask(&client, "mask"), Ended::Exited(0));
    let child = client.request(b"exit 0", &[], soon()).unwrap();
    assert_eq!(group(child.pid()), group(std::process::id()));
    assert_eq!(group(pid), Some(pid));
    child.reap().unwrap();
}

#[test]
fn a_zygote_that_nobody_asks_ends() {
    let _watchdog = watchdog(LONG);
    let (client, pid) = zygote("idle", &[]);
    assert_eq!(ask(&client, "exit 5"), Ended::Exited(5));
    proc::until(|| proc::has_ended(pid));
    // The process that it made for the next request, too.
    proc::until(|| spare(pid).is_none_or(proc::has_ended));
    let error = client.request(b"exit 5", &[], soon()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    assert!(Task::leader(pid).state().is_none() && spare(pid).is_none(), "they are reaped");
}

#[test]
fn a_request_in_the_moment_in_which_nobody_has_asked_for_long_enough_is_done_or_an_error() {
    let _watchdog = watchdog(LONG);
    let (mut done, mut ended) = (0, 0);
    while done < 300 || ended < 30 {
        let (client, _) = zygote("brief", &[]);
        let mut pause = Duration::ZERO;
        loop {
            match client.request(b"exit 7", &[], soon()) {
                Ok(child) => assert_eq!(child.reap().unwrap(), Ended::Exited(7)),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
                    ended += 1;
                    break;
                }
            }
            done += 1;
            // Each a little longer, to the end of the zygote's patience.
            pause += Duration::from_micros(50);
            let until = std::time::Instant::now() + pause;
            while std::time::Instant::now() < until {
                std::hint::spin_loop();
            }
        }
    }
}

#[test]
fn a_spare_that_was_killed_costs_no_request() {
    let _watchdog = watchdog(LONG);
    let (client, pid) = zygote("plain", &[]);
    for _ in 0..20 {
        assert_eq!(ask(&client, "exit 7"), Ended::Exited(7));
        proc::until(|| spare(pid).is_some());
        let spare = spare(pid).unwrap();
        send(spare, Signal::KILL);
        proc::until(|| proc::has_ended(spare));
    }
    assert_eq!(ask(&client, "exit 7"), Ended::Exited(7));
    drop(client);
    assert!(Task::leader(pid).state().is_none() && spare(pid).is_none(), "they are reaped");
}

#[test]
fn a_signal_that_a_spare_gets_does_not_meet_its_job() {
    let _watchdog = watchdog(LONG);
    let (client, pid) = zygote("plain", &[]);
    for signal in [Signal::TERM, Signal::HUP, Signal::TSTP] {
        assert_eq!(ask(&client, "exit 7"), Ended::Exited(7));
        proc::until(|| spare(pid).is_some());
        let spare = spare(pid).unwrap();
        send(spare, signal);
        proc::until(|| proc::has_ended(spare));
    }
    assert_eq!(ask(&client, "exit 7"), Ended::Exited(7));
}

#[test]
fn a_zygote_is_given_up_also_while_its_spare_is_stopped() {
    let _watchdog = watchdog(LONG);
    let (client, pid) = zygote("stopping", &[]);
    // It stops at its preparation, after it was made and before it takes its request.
    let child = client.request(b"exit 7", &[], soon()).unwrap();
    proc::until(|| Task::leader(child.pid()).state() == Some('T'));
    send(child.pid(), Signal::CONT);
    assert_eq!(child.reap().unwrap(), Ended::Exited(7));
    proc::until(|| spare(pid).is_some_and(|spare| Task::leader(spare).state() == Some('T')));
    drop(client);
    assert!(Task::leader(pid).state().is_none() && spare(pid).is_none(), "they are reaped");
}

#[test]
fn what_a_zygote_could_not_do_before_is_no_answer_to_a_later_request() {
    let _watchdog = watchdog(LONG);
    let (client, pid) = zygote("plain", &[]);
    let descriptors = |most| {
        use rustix::process::{Pid, prlimit};
        let zygote = Pid::from_raw(i32::try_from(pid).unwrap());
        prlimit(zygote, Resource::Nofile, Rlimit { current: Some(most), ..getrlimit(Resource::Nofile) })
            .unwrap();
    };
    let sleeps = || Task::leader(pid).usage().unwrap().sleeps;
    assert_eq!(ask(&client, "exit 7"), Ended::Exited(7));
    proc::until(|| spare(pid).is_some() && Task::leader(pid).state() == Some('S'));
    let before = sleeps();
    descriptors(5);
    assert_eq!(ask(&client, "exit 7"), Ended::Exited(7), "by the spare");
    proc::until(|| sleeps() > before);
    descriptors(100);
    assert_eq!(ask(&client, "exit 7"), Ended::Exited(7));
    proc::until(|| spare(pid).is_some());
    descriptors(5);
    assert_eq!(ask(&client, "exit 7"), Ended::Exited(7), "by the spare");
    let error = client.request(b"exit 7", &[], soon()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
}

#[test]
fn a_zygote_is_given_up_also_while_a_copy_of_the_requester_has_its_socket() {
    let _watchdog = watchdog(LONG);
    let (client, pid) = zygote("plain", &[]);
    assert_eq!(ask(&client, "exit 0"), Ended::Exited(0));
    proc::until(|| spare(pid).is_some());
    // SAFETY: the copy only waits.
    let copy = unsafe { libc::fork() };
    if copy == 0 {
        loop {
            // SAFETY: waits for a signal.
            unsafe { libc::pause() };
        }
    }
    drop(client);
    assert!(Task::leader(pid).state().is_none() && spare(pid).is_none(), "they are reaped");
    let copy = rustix::process::Pid::from_raw(copy).unwrap();
    kill_process(copy, Signal::KILL).unwrap();
    rustix::process::waitpid(Some(copy), rustix::process::WaitOptions::empty()).unwrap();
}

#[test]
fn a_process_that_may_have_no_more_descriptors_says_so() {
    let _watchdog = watchdog(LONG);
    let (client, _) = zygote("narrow", &[]);
    let file = std::fs::File::open("/dev/null").unwrap();
    assert_eq!(ask(&client, "exit 7"), Ended::Exited(7));
    let child = client.request(b"count", &[file.as_fd(); 40], soon()).unwrap();
    assert_eq!(child.reap().unwrap(), Ended::Exited(NOT_WHOLE));
    assert_eq!(ask(&client, "exit 7"), Ended::Exited(7));
}

#[test]
fn a_copy_of_the_requester_is_refused() {
    let _watchdog = watchdog(LONG);
    let (client, _) = zygote("plain", &[]);
    assert_eq!(ask(&client, "exit 0"), Ended::Exited(0));
    // SAFETY: the copy only asks, which takes no lock of another thread's but the allocator's, which `fork` keeps usable, and ends.
    let copy = unsafe { libc::fork() };
    if copy == 0 {
        let refused = client.request(b"exit 0", &[], soon()).unwrap_err().kind() == ErrorKind::Unsupported;
        drop(client);
        // SAFETY: ends the copy without running anything of this program's.
        unsafe { libc::_exit(i32::from(!refused)) }
    }
    let copy = rustix::process::Pid::from_raw(copy).unwrap();
    let (_, status) =
        rustix::process::waitpid(Some(copy), rustix::process::WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(0));
    assert_eq!(ask(&client, "exit 0"), Ended::Exited(0), "the copy has ended nothing");
}
