//! Descriptors in messages while everybody is killed at whatever instruction the signal finds them.
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_shm::fds::{self, FdError};
use mp_shm::{Fd, Session};
use mp_spawn::Process;
use mp_testkit::{LeakCheck, assert_no_backstop, proc, watchdog};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

#[test]
fn b4_killed_brokers_and_killed_clients_leave_nothing_and_hold_nobody_up() {
    let _watchdog = watchdog(Duration::from_secs(170));
    let leaks = LeakCheck::begin();
    killed_brokers();
    killed_clients();
    leaks.end();
    assert_no_backstop();
}

fn broker() -> Result<Option<u32>, FdError> {
    Ok(fds::status(Session::current().unwrap())?.map(|status| status.pid))
}

struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn killed_brokers() {
    const KILLS: u32 = 100;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let done = AtomicBool::new(false);
    let kills = AtomicU32::new(0);
    let mut lost = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = fastrand::Rng::with_seed(seed);
            while kills.load(Ordering::Relaxed) < KILLS && !done.load(Ordering::Relaxed) {
                if let Ok(Some(pid)) = broker() {
                    std::thread::sleep(Duration::from_micros(random.u64(0..2000)));
                    let raw = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
                    // It is gone if its session is, which is ours.
                    let _ = rustix::process::kill_process(raw, rustix::process::Signal::KILL);
                    kills.fetch_add(1, Ordering::Relaxed);
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        // Also if this thread panics: the other one must not wait for brokers for ever.
        let _done = Done(&done);
        let (_reader, writer) = std::io::pipe().unwrap();
        while !done.load(Ordering::Relaxed) {
            let fd = Fd::of(&writer).unwrap_or_else(|error| panic!("{error}: {error:?}"));
            match fd.open() {
                Ok(_) => {}
                Err(error) if error.is_lost() => lost += 1,
                Err(error) => panic!("{error}: {error:?}"),
            }
        }
    });
    println!("{lost} lost");
}

fn killed_clients() {
    fn go_on(fd: Fd) {
        let mut opened: Vec<OwnedFd> = vec![fd.open().unwrap()];
        let mut kept = Vec::new();
        loop {
            let next = Fd::of(opened.last().unwrap()).unwrap();
            opened.push(next.open().unwrap());
            kept.push(next);
            opened.truncate(2);
            kept.truncate(5);
        }
    }
    let (_reader, writer) = std::io::pipe().unwrap();
    let fd = Fd::of(&writer).unwrap();
    let pid = broker().unwrap();
    for n in 0..40 {
        let child = Process::spawn(go_on, fd.clone()).unwrap();
        std::thread::sleep(Duration::from_micros(fastrand::u64(0..8000)));
        child.kill().unwrap();
        assert_eq!(child.join().unwrap_err().signal(), Some(9), "child {n}");
        assert!(fd.open().is_ok());
    }
    assert_eq!(broker().unwrap(), pid, "the broker outlives its clients");
    proc::until(|| fds::status(Session::current().unwrap()).unwrap().unwrap().held == 1);
}
