//! Signals that are handled do not show in any blocking call.
#![cfg(not(loom))]
#![expect(unsafe_code, reason = "installing a signal handler")]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::select::Interest;
use mp_channel::{Receiver, RecvError, Select, Sender, channel, spsc};
use mp_spawn::Process;
use mp_testkit::proc::{self, Task};
use mp_testkit::{assert_no_backstop, watchdog};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use rustix::process::{Pid, kill_process};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(120);
const STORM: u32 = 500;

static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn handle(_: i32) {
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

/// Without SA_RESTART, so that every system call that a signal meets says `EINTR`.
fn install() {
    let action = SigAction::new(SigHandler::Handler(handle), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing but add to an atomic.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
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

fn begin(ready: &Sender<()>) {
    install();
    ready.send(()).unwrap();
}

fn end() -> u32 {
    assert_no_backstop();
    HANDLED.load(Ordering::Relaxed)
}

#[test]
fn b5_a_blocked_receive_does_not_show_signals() {
    let _watchdog = watchdog(LONG);
    type Way = fn((Sender<()>, Receiver<u64>)) -> (u64, u32);
    let ways: [Way; 2] = [
        |(ready, receiver)| {
            begin(&ready);
            (receiver.recv().unwrap(), end())
        },
        |(ready, receiver)| {
            begin(&ready);
            (receiver.recv_timeout(LONG).unwrap(), end())
        },
    ];
    for way in ways {
        let (ready, is_ready) = channel(1).unwrap();
        let (sender, receiver) = channel(1).unwrap();
        let child = Process::spawn(way, (ready, receiver)).unwrap();
        storm_while_blocked(child.pid(), &is_ready);
        sender.send(5).unwrap();
        assert_eq!(child.join().unwrap(), (5, STORM), "the value and each signal arrived");
    }
}

#[test]
fn b5_a_blocked_send_does_not_show_signals() {
    let _watchdog = watchdog(LONG);
    type Way = fn((Sender<()>, Sender<u64>)) -> u32;
    let ways: [Way; 2] = [
        |(ready, sender)| {
            begin(&ready);
            sender.send(2).unwrap();
            end()
        },
        |(ready, sender)| {
            begin(&ready);
            sender.send_timeout(2, LONG).unwrap();
            end()
        },
    ];
    for way in ways {
        let (ready, is_ready) = channel(1).unwrap();
        let (sender, receiver) = channel(1).unwrap();
        sender.send(1).unwrap();
        let child = Process::spawn(way, (ready, sender)).unwrap();
        storm_while_blocked(child.pid(), &is_ready);
        assert_eq!(receiver.recv().unwrap(), 1);
        assert_eq!(receiver.recv().unwrap(), 2);
        assert_eq!(child.join().unwrap(), STORM);
        assert!(receiver.recv().unwrap_err().is_disconnected());
    }
}

#[test]
fn b5_a_blocked_rendezvous_does_not_show_signals() {
    let _watchdog = watchdog(LONG);
    let give = |(ready, sender): (Sender<()>, Sender<u64>)| {
        begin(&ready);
        sender.send(5).unwrap();
        end()
    };
    let (ready, is_ready) = channel(1).unwrap();
    let (sender, receiver) = channel(0).unwrap();
    let child = Process::spawn(give, (ready, sender)).unwrap();
    storm_while_blocked(child.pid(), &is_ready);
    assert_eq!(receiver.recv().unwrap(), 5);
    assert_eq!(child.join().unwrap(), STORM);

    let take = |(ready, receiver): (Sender<()>, Receiver<u64>)| {
        begin(&ready);
        (receiver.recv().unwrap(), end())
    };
    let (ready, is_ready) = channel(1).unwrap();
    let (sender, receiver) = channel(0).unwrap();
    let child = Process::spawn(take, (ready, receiver)).unwrap();
    storm_while_blocked(child.pid(), &is_ready);
    sender.send(6).unwrap();
    assert_eq!(child.join().unwrap(), (6, STORM));
}

#[test]
fn b5_a_blocked_lane_does_not_show_signals() {
    let _watchdog = watchdog(LONG);
    let give = |(ready, mut sender): (Sender<()>, spsc::Sender<u64>)| {
        begin(&ready);
        sender.send(5).unwrap();
        end()
    };
    let (ready, is_ready) = channel(1).unwrap();
    let (mut sender, mut receiver) = spsc::channel(1).unwrap();
    sender.send(4).unwrap();
    let child = Process::spawn(give, (ready, sender)).unwrap();
    storm_while_blocked(child.pid(), &is_ready);
    assert_eq!((receiver.recv().unwrap(), receiver.recv().unwrap()), (4, 5));
    assert_eq!(child.join().unwrap(), STORM);
    assert!(receiver.recv().unwrap_err().is_disconnected());

    let take = |(ready, mut receiver): (Sender<()>, spsc::Receiver<u64>)| {
        begin(&ready);
        (receiver.recv().unwrap(), receiver.recv_timeout(LONG).unwrap(), end())
    };
    let (ready, is_ready) = channel(1).unwrap();
    let (mut sender, receiver) = spsc::channel(1).unwrap();
    let child = Process::spawn(take, (ready, receiver)).unwrap();
    storm_while_blocked(child.pid(), &is_ready);
    sender.send(6).unwrap();
    Task::leader(child.pid()).wait_until_blocked();
    storm(child.pid(), |sent| sent < STORM);
    sender.send(7).unwrap();
    assert_eq!(child.join().unwrap(), (6, 7, 2 * STORM));
}

#[test]
fn b5_a_blocked_batch_does_not_show_signals() {
    let _watchdog = watchdog(LONG);
    let take = |(ready, receiver): (Sender<()>, Receiver<u64>)| {
        begin(&ready);
        let mut values = Vec::new();
        receiver.recv_many(&mut values, 3).unwrap();
        (values, end())
    };
    let (ready, is_ready) = channel(1).unwrap();
    let (sender, receiver) = channel(4).unwrap();
    let child = Process::spawn(take, (ready, receiver)).unwrap();
    storm_while_blocked(child.pid(), &is_ready);
    sender.send(6).unwrap();
    assert_eq!(child.join().unwrap(), (vec![6], STORM));
}

#[test]
fn b5_a_blocked_select_does_not_show_signals() {
    let _watchdog = watchdog(LONG);
    type Way = fn((Sender<()>, Receiver<u64>)) -> (u64, u32);
    let ways: [Way; 3] = [
        |(ready, receiver)| {
            begin(&ready);
            let mut select = Select::new();
            select.end(&receiver);
            assert_eq!(select.ready().unwrap(), 0);
            (receiver.try_recv().unwrap(), end())
        },
        |(ready, receiver)| {
            begin(&ready);
            let mut select = Select::new();
            select.end(&receiver);
            assert_eq!(select.ready_timeout(LONG).unwrap(), 0);
            (receiver.try_recv().unwrap(), end())
        },
        // Beside a descriptor it sleeps in `poll`.
        |(ready, receiver)| {
            let (quiet, _other) = std::os::unix::net::UnixStream::pair().unwrap();
            begin(&ready);
            let mut select = Select::new();
            select.fd(&quiet, Interest::Read);
            select.end(&receiver);
            assert_eq!(select.ready().unwrap(), 1);
            (receiver.try_recv().unwrap(), end())
        },
    ];
    for way in ways {
        let (ready, is_ready) = channel(1).unwrap();
        let (sender, receiver) = channel(1).unwrap();
        let child = Process::spawn(way, (ready, receiver)).unwrap();
        storm_while_blocked(child.pid(), &is_ready);
        sender.send(5).unwrap();
        assert_eq!(child.join().unwrap(), (5, STORM));
    }
}

#[test]
fn b5_a_timeout_among_signals_is_not_early() {
    let _watchdog = watchdog(LONG);
    let wait = |(ready, receiver): (Sender<()>, Receiver<u64>)| {
        begin(&ready);
        let timeout = Duration::from_millis(100);
        let start = Instant::now();
        let result = receiver.recv_timeout(timeout);
        (matches!(result, Err(RecvError::Empty)), start.elapsed() >= timeout)
    };
    let (ready, is_ready) = channel(1).unwrap();
    let (_sender, receiver) = channel(1).unwrap();
    let child = Process::spawn(wait, (ready, receiver)).unwrap();
    is_ready.recv().unwrap();
    storm(child.pid(), |_| true);
    assert_eq!(child.join().unwrap(), (true, true));
}

#[test]
fn b5_waiting_for_a_process_does_not_show_signals() {
    let _watchdog = watchdog(LONG);
    let middle = |(ready, gate): (Sender<()>, Receiver<u64>)| {
        let grandchild = Process::spawn(|gate: Receiver<u64>| gate.recv().unwrap(), gate).unwrap();
        begin(&ready);
        while !grandchild.wait_timeout(LONG).unwrap() {}
        (grandchild.join().unwrap(), end())
    };
    let (ready, is_ready) = channel(1).unwrap();
    let (sender, gate) = channel(1).unwrap();
    let child = Process::spawn(middle, (ready, gate)).unwrap();
    storm_while_blocked(child.pid(), &is_ready);
    sender.send(5).unwrap();
    assert_eq!(child.join().unwrap(), (5, STORM));
}

#[test]
fn b5_signals_at_any_instruction_lose_no_message() {
    let _watchdog = watchdog(LONG);
    const COUNT: u64 = 20_000;
    let echo = |(ready, receiver, sender): (Sender<()>, Receiver<u64>, Sender<u64>)| {
        begin(&ready);
        receiver.iter().for_each(|n| sender.send(n + 1).unwrap());
        end()
    };
    let (ready, is_ready) = channel(1).unwrap();
    let (sender, from_us) = channel(2).unwrap();
    let (to_us, receiver) = channel(2).unwrap();
    let child = Process::spawn(echo, (ready, from_us, to_us)).unwrap();
    is_ready.recv().unwrap();
    let exchange = std::thread::spawn(move || {
        for n in 0..COUNT {
            sender.send(n).unwrap();
            assert_eq!(receiver.recv().unwrap(), n + 1);
        }
        drop(sender);
        assert!(receiver.recv().unwrap_err().is_disconnected());
    });
    storm(child.pid(), |_| !exchange.is_finished());
    exchange.join().unwrap();
    assert!(child.join().unwrap() > 0, "there were signals");
}

#[test]
fn b5_signals_at_any_instruction_lose_no_message_of_a_lane_a_rendezvous_or_a_select() {
    let _watchdog = watchdog(LONG);
    const COUNT: u64 = 3000;
    type Ends = (Sender<()>, spsc::Receiver<u64>, Sender<u64>);
    let relay = |(ready, mut lane, rendezvous): Ends| {
        begin(&ready);
        let mut batch = 0;
        loop {
            let mut select = Select::new();
            select.end(&lane);
            select.ready().unwrap();
            match lane.try_recv() {
                Ok(number) => rendezvous.send(number).unwrap(),
                Err(error) => {
                    assert!(error.is_disconnected(), "{error}");
                    break;
                }
            }
            batch += 1;
        }
        assert_eq!(batch, COUNT);
        end()
    };
    let (ready, is_ready) = channel(1).unwrap();
    let (mut sender, lane) = spsc::channel(2).unwrap();
    let (rendezvous, receiver) = channel(0).unwrap();
    let child = Process::spawn(relay, (ready, lane, rendezvous)).unwrap();
    is_ready.recv().unwrap();
    let give = std::thread::spawn(move || (0..COUNT).for_each(|number| sender.send(number).unwrap()));
    let take = std::thread::spawn(move || {
        let mut values = Vec::new();
        while receiver.recv_many(&mut values, 5).is_ok() {}
        assert!(values.into_iter().eq(0..COUNT), "all, in order");
    });
    storm(child.pid(), |_| !take.is_finished());
    give.join().unwrap();
    take.join().unwrap();
    assert!(child.join().unwrap() > 0, "there were signals");
}
