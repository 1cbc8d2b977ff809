//! Signals that are handled do not show in any call of a connection.
#![cfg(not(loom))]
#![expect(unsafe_code, reason = "installing a signal handler")]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::connection::{Address, Auth, Connection, Listener};
use mp_channel::{Receiver, Sender, channel};
use mp_spawn::Process;
use mp_testkit::proc::{self, Task};
use mp_testkit::watchdog;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use rustix::process::{Pid, kill_process};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(120);
const STORM: u32 = 300;
const LARGE: usize = 8 << 20;

static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn handle(_: i32) {
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

/// Without SA_RESTART, so that every system call that a signal meets says `EINTR`.
fn begin(ready: &Sender<()>) {
    let action = SigAction::new(SigHandler::Handler(handle), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing but add to an atomic.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
    ready.send(()).unwrap();
}

fn handled() -> u32 {
    HANDLED.load(Ordering::Relaxed)
}

/// Sends one signal after the other to a process, each when the one before was taken, so that none is merged with it.
fn storm(pid: u32, mut goes_on: impl FnMut(u32) -> bool) {
    let target = Pid::from_raw(pid.cast_signed()).unwrap();
    let mut sent = 0;
    while goes_on(sent) && !proc::has_ended(pid) {
        kill_process(target, rustix::process::Signal::USR1).unwrap();
        proc::until(|| !Task::leader(pid).has_pending_signal() || proc::has_ended(pid));
        sent += 1;
    }
}

/// Has `child` blocked, storms it, and looks whether it still is.
fn storm_while_blocked(pid: u32, ready: &Receiver<()>) {
    ready.recv().unwrap();
    Task::leader(pid).wait_until_blocked();
    storm(pid, |sent| sent < STORM);
    Task::leader(pid).wait_until_blocked();
}

fn address(name: &str) -> (Address, String) {
    let name = format!("mp-b5-{name}-{}", std::process::id());
    (Address::Abstract(name.clone().into()), name)
}

fn at(name: String) -> Address {
    Address::Abstract(name.into())
}

#[test]
fn b5_a_blocked_accept_does_not_show_signals() {
    let _watchdog = watchdog(LONG);
    type Way = fn((Sender<()>, String)) -> (Vec<u8>, u32);
    let ways: [Way; 2] = [
        |(ready, name)| {
            let listener = Listener::bind(&at(name), Auth::new("key")).unwrap();
            begin(&ready);
            (listener.accept().unwrap().recv_bytes().unwrap(), handled())
        },
        |(ready, name)| {
            let listener = Listener::bind(&at(name), Auth::new("key")).unwrap();
            begin(&ready);
            (listener.accept_timeout(LONG).unwrap().recv_bytes().unwrap(), handled())
        },
    ];
    for (way, number) in ways.into_iter().zip(0..) {
        let (address, name) = address(&format!("accept{number}"));
        let (ready, is_ready) = channel(1).unwrap();
        let child = Process::spawn(way, (ready, name)).unwrap();
        storm_while_blocked(child.pid(), &is_ready);
        let mut connection = Connection::connect(&address, Auth::new("key")).unwrap();
        connection.send_bytes(b"here").unwrap();
        assert_eq!(child.join().unwrap(), (b"here".to_vec(), STORM));
    }
}

#[test]
fn b5_a_blocked_handshake_does_not_show_signals() {
    let _watchdog = watchdog(LONG);
    let (address, name) = address("handshake");
    let listener = Listener::bind(&address, Auth::new("key")).unwrap();
    let connect = |(ready, name): (Sender<()>, String)| {
        begin(&ready);
        let patient = mp_channel::connection::Options::new(Auth::new("key")).handshake_timeout(LONG);
        let mut connection = Connection::connect(&at(name), patient).unwrap();
        connection.send_bytes(b"in").unwrap();
        handled()
    };
    let (ready, is_ready) = channel(1).unwrap();
    let child = Process::spawn(connect, (ready, name)).unwrap();
    // It is connected, and waits for the challenge.
    storm_while_blocked(child.pid(), &is_ready);
    assert_eq!(listener.accept().unwrap().recv_bytes().unwrap(), b"in");
    assert_eq!(child.join().unwrap(), STORM);
}

#[test]
fn b5_blocked_receives_and_polls_do_not_show_signals() {
    let _watchdog = watchdog(LONG);
    type Way = fn((Sender<()>, String)) -> (Vec<u8>, u32);
    let ways: [Way; 3] = [
        |(ready, name)| {
            let mut connection = Connection::connect(&at(name), Auth::none()).unwrap();
            begin(&ready);
            (connection.recv_bytes().unwrap(), handled())
        },
        |(ready, name)| {
            let mut connection = Connection::connect(&at(name), Auth::none()).unwrap();
            begin(&ready);
            (connection.recv_bytes_timeout(LONG).unwrap(), handled())
        },
        |(ready, name)| {
            let mut connection = Connection::connect(&at(name), Auth::none()).unwrap();
            begin(&ready);
            assert!(connection.poll(LONG).unwrap());
            (connection.try_recv_bytes().unwrap(), handled())
        },
    ];
    for (way, number) in ways.into_iter().zip(0..) {
        let (address, name) = address(&format!("receive{number}"));
        let listener = Listener::bind(&address, Auth::none()).unwrap();
        let (ready, is_ready) = channel(1).unwrap();
        let child = Process::spawn(way, (ready, name)).unwrap();
        let mut connection = listener.accept().unwrap();
        storm_while_blocked(child.pid(), &is_ready);
        connection.send_bytes(b"message").unwrap();
        assert_eq!(child.join().unwrap(), (b"message".to_vec(), STORM));
    }
}

#[test]
fn b5_a_blocked_send_does_not_show_signals() {
    let _watchdog = watchdog(LONG);
    type Way = fn((Sender<()>, String)) -> u32;
    let ways: [Way; 2] = [
        |(ready, name)| {
            let mut connection = Connection::connect(&at(name), Auth::none()).unwrap();
            begin(&ready);
            connection.send_bytes(&vec![7; LARGE]).unwrap();
            handled()
        },
        |(ready, name)| {
            let mut connection = Connection::connect(&at(name), Auth::none()).unwrap();
            begin(&ready);
            connection.send_bytes_timeout(&vec![7; LARGE], LONG).unwrap();
            handled()
        },
    ];
    for (way, number) in ways.into_iter().zip(0..) {
        let (address, name) = address(&format!("send{number}"));
        let listener = Listener::bind(&address, Auth::none()).unwrap();
        let (ready, is_ready) = channel(1).unwrap();
        let child = Process::spawn(way, (ready, name)).unwrap();
        let mut connection = listener.accept().unwrap();
        storm_while_blocked(child.pid(), &is_ready);
        assert!(connection.recv_bytes().unwrap() == vec![7; LARGE]);
        assert_eq!(child.join().unwrap(), STORM);
    }
}

#[test]
fn b5_a_timeout_among_signals_is_not_early() {
    let _watchdog = watchdog(LONG);
    let wait = |ready: Sender<()>| {
        let (mut one, _other) = Connection::pair().unwrap();
        begin(&ready);
        let timeout = Duration::from_millis(100);
        let start = Instant::now();
        let result = one.recv_bytes_timeout(timeout);
        (result.is_err_and(|error| error.is_timeout()), start.elapsed() >= timeout)
    };
    let (ready, is_ready) = channel(1).unwrap();
    let child = Process::spawn(wait, ready).unwrap();
    is_ready.recv().unwrap();
    storm(child.pid(), |_| true);
    assert_eq!(child.join().unwrap(), (true, true));
}

#[test]
fn b5_signals_at_any_instruction_lose_no_message() {
    let _watchdog = watchdog(LONG);
    const COUNT: u32 = 5_000;
    let echo = |(ready, name): (Sender<()>, String)| {
        begin(&ready);
        // Connecting and the handshake are in the storm, too.
        let mut connection = Connection::connect(&at(name), Auth::new("key")).unwrap();
        while let Ok(n) = connection.recv_value::<u32>() {
            connection.send_value(&(n + 1)).unwrap();
        }
        handled()
    };
    let (address, name) = address("echo");
    let listener = Listener::bind(&address, Auth::new("key")).unwrap();
    let (ready, is_ready) = channel(1).unwrap();
    let child = Process::spawn(echo, (ready, name)).unwrap();
    is_ready.recv().unwrap();
    let exchange = std::thread::spawn(move || {
        let mut connection = listener.accept().unwrap();
        for n in 0..COUNT {
            connection.send_value(&n).unwrap();
            assert_eq!(connection.recv_value::<u32>().unwrap(), n + 1);
        }
    });
    storm(child.pid(), |_| !exchange.is_finished());
    exchange.join().unwrap();
    assert!(child.join().unwrap() > 0, "there were signals");
}

#[test]
fn b5_an_other_end_that_is_gone_sends_no_signal() {
    let _watchdog = watchdog(LONG);
    let send = |(): ()| {
        let action = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        // SAFETY: no handler is installed; Rust's own choice was to ignore it.
        unsafe { sigaction(Signal::SIGPIPE, &action) }.unwrap();
        let (mut one, other) = Connection::pair().unwrap();
        drop(other);
        let sent = one.send_bytes(b"to nobody").is_err_and(|error| error.is_disconnected());
        let handed = one.send_fd(std::io::stdin().as_fd()).is_err_and(|error| error.is_disconnected());
        (sent, handed)
    };
    assert_eq!(Process::spawn(send, ()).unwrap().join().unwrap(), (true, true));
}
