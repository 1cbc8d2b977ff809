//! One wait over channels of two sessions: deaths are noticed in both.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, Select, Sender, channel, channel_in};
use mp_shm::Session;
use mp_spawn::Process;
use mp_testkit::{assert_no_backstop, watchdog};
use std::future::Future;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// Attaches to its parent's second session, says so, and never ends.
fn hold((fd, parent): (i32, u32)) {
    let path = format!("/proc/{parent}/fd/{fd}");
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let session = Session::attach(file.into()).unwrap();
    let sender: Sender<u64> = session.lookup("sender").unwrap();
    sender.send(1).unwrap();
    loop {
        std::thread::park();
    }
}

/// The receiver of a channel in a session of its own, whose only sender is in that process.
fn held_elsewhere() -> (Receiver<u64>, Process<()>) {
    let session = Session::create().unwrap();
    let (sender, receiver) = channel_in::<u64>(session, 1).unwrap();
    session.publish("sender", &sender).unwrap();
    drop(sender);
    let child = Process::spawn(hold, (session.fd().as_raw_fd(), std::process::id())).unwrap();
    assert_eq!(receiver.recv().unwrap(), 1);
    session.unpublish("sender").unwrap();
    (receiver, child)
}

#[test]
fn b9_a_select_over_two_sessions_learns_of_deaths_in_both() {
    let _watchdog = watchdog(LONG);
    let (_sender, silent) = channel::<u64>(1).unwrap();
    for second in [false, true] {
        let (receiver, child) = held_elsewhere();
        let mut select = Select::new();
        let number = if second {
            select.end(&silent);
            select.end(&receiver)
        } else {
            let number = select.end(&receiver);
            select.end(&silent);
            number
        };
        child.kill().unwrap();
        assert_eq!(select.ready().unwrap(), number);
        assert!(receiver.try_recv().unwrap_err().is_disconnected());
        child.join().unwrap_err();
    }
    assert_no_backstop();
}

struct Tell(std::sync::mpsc::Sender<()>);

impl Wake for Tell {
    fn wake(self: Arc<Self>) {
        self.0.send(()).unwrap();
    }
}

#[test]
fn b15_futures_of_two_sessions_learn_of_deaths_in_both() {
    let _watchdog = watchdog(LONG);
    let (_sender, silent) = channel::<u64>(1).unwrap();
    let (receiver, child) = held_elsewhere();
    let (tell, told) = std::sync::mpsc::channel();
    let (never, _) = std::sync::mpsc::channel();
    let (mut first, mut second) = (Box::pin(silent.recv_async()), Box::pin(receiver.recv_async()));
    let (never, waker) = (Waker::from(Arc::new(Tell(never))), Waker::from(Arc::new(Tell(tell))));
    assert!(first.as_mut().poll(&mut Context::from_waker(&never)).is_pending());
    assert!(second.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    child.kill().unwrap();
    told.recv().unwrap();
    let std::task::Poll::Ready(received) = second.as_mut().poll(&mut Context::from_waker(&waker)) else {
        panic!("woken, and not ready");
    };
    assert!(received.unwrap_err().is_disconnected());
    child.join().unwrap_err();
    assert_no_backstop();
}
