//! This test program once more, in another role: a zygote has one thread, which a test under libtest has not. A constructor takes
//! the role before `main`.

use mp_sys::deadline::Deadline;
use mp_sys::process::Child;
use mp_sys::start::{Program, start};
use mp_sys::zygote::{Client, Request, pair, serve};
use mp_sys::{fork, robust};
use rustix::process::{Signal, getpid, getppid, kill_process};
use std::ffi::{CStr, CString};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Names a role: what it is, and its descriptors.
pub(crate) const ROLE: &str = "MP_SYS_TEST_ROLE";

/// What becomes the zygote's exit code if it cannot serve.
pub(crate) const CANNOT_SERVE: i32 = 3;

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = take_role;

extern "C" fn take_role() {
    if let Ok(role) = std::env::var(ROLE) {
        mp_testkit::heed_signals();
        let words: Vec<&str> = role.split(' ').collect();
        let code = match words[0] {
            "zygote" => be_zygote(words[1].parse().unwrap(), words[2]),
            "requester" => crate::be_requester(&words[1..]),
            _ => 1,
        };
        std::process::exit(code);
    }
}

fn be_zygote(socket: i32, kind: &str) -> i32 {
    // SAFETY: the requester passed this descriptor for this alone.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    match kind {
        "idle" => mp_sys::zygote::end_when_idle(&socket, Duration::from_millis(300)).unwrap(),
        // As brief as the system's clock can have it.
        "brief" => mp_sys::zygote::end_when_idle(&socket, Duration::from_micros(1)).unwrap(),
        "narrow" => {
            use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
            let limit = getrlimit(Resource::Nofile);
            setrlimit(Resource::Nofile, Rlimit { current: Some(30), ..limit }).unwrap();
        }
        "threaded" => drop(std::thread::spawn(std::thread::park)),
        "masked" => block_usr1(),
        // What a new process must not take over: the ids cached here, and a held word in the robust list.
        "holding" => {
            let word = Box::leak(Box::new(robust::RobustWord::new()));
            // SAFETY: leaked, and held here alone.
            unsafe { robust::hold(word, robust::HELD_MAX) }.unwrap();
            word.word.store(robust::tid(), std::sync::atomic::Ordering::Release);
            assert_eq!(fork::pid(), std::process::id());
        }
        _ => {}
    }
    match serve(socket, || crate::prepare(kind), crate::job) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("serving: {error}");
            CANNOT_SERVE
        }
    }
}

fn block_usr1() {
    // SAFETY: a signal set of zeros is a valid (empty) one.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is valid.
    unsafe { libc::sigaddset(&raw mut set, libc::SIGUSR1) };
    // SAFETY: as above.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
}

/// Starts this test program in a role, with more of an environment.
pub(crate) fn start_role(role: &str, environment: &[&str], inherit: &[BorrowedFd<'_>]) -> Child {
    let role = CString::new(format!("{ROLE}={role}")).unwrap();
    let more: Vec<CString> = environment.iter().map(|one| CString::new(*one).unwrap()).collect();
    let environment: Vec<&CStr> = more.iter().map(CString::as_c_str).chain([role.as_c_str()]).collect();
    let (path, arguments) = (c"/proc/self/exe", &[c"role"]);
    start(&Program {
        path,
        arguments,
        environment: &environment,
        inherit,
        setup: &mp_sys::setup::Setup::default(),
    })
    .unwrap()
}

/// A zygote of a kind, and its process id.
pub(crate) fn zygote(kind: &str, environment: &[&str]) -> (Client, u32) {
    let (ours, its) = pair().unwrap();
    let role = format!("zygote {} {kind}", its.as_raw_fd());
    let child = start_role(&role, environment, &[its.as_fd()]);
    let pid = child.pid();
    (Client::new(ours, child), pid)
}

/// Far enough for all that is no failure.
pub(crate) fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(50))
}

/// Jobs that all test programs know.
pub(crate) fn job(request: &Request) -> i32 {
    let text = std::str::from_utf8(&request.bytes).unwrap();
    let words: Vec<&str> = text.split(' ').collect();
    let number = words.get(1).and_then(|word| word.parse::<i32>().ok());
    let mut file = request.fds.first().map(|fd| std::fs::File::from(fd.try_clone().unwrap()));
    match words[0] {
        "exit" => number.unwrap(),
        "signal" => {
            kill_process(getpid(), Signal::from_named_raw(number.unwrap()).unwrap()).unwrap();
            1
        }
        "parent" => i32::from(getppid().unwrap().as_raw_pid() != number.unwrap()),
        // Says that it runs, and waits for the end of the second descriptor.
        "wait" => {
            file.as_mut().unwrap().write_all(b"r").unwrap();
            let mut until = std::fs::File::from(request.fds[1].try_clone().unwrap());
            until.read_to_end(&mut Vec::new()).unwrap();
            number.unwrap()
        }
        other => panic!("no such job: {other}"),
    }
}

pub(crate) fn send(pid: u32, signal: Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}
