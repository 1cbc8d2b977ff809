//! Events and latches: set and clear, limits on the monotonic clock, dead waiters, the holders of tickets, several at once.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_shm::{Shared, ShmSafe};
use mp_spawn::Process;
use mp_sync::{
    Barrier, BarrierError, Condvar, Event, Failure, Latch, LatchError, Mutex, Once, Patience, RecursiveMutex,
    RwLock, Semaphore, Waitable, wait_any,
};
use mp_testkit::proc::Task;
use mp_testkit::{assert_no_backstop, watchdog};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

#[derive(ShmSafe)]
#[repr(C)]
struct Signs {
    event: Event,
    other: Event,
    latch: Latch<8>,
    ready: Event,
}

fn signs(count: u32) -> Shared<Signs> {
    Shared::<Signs>::with(|signs| signs.latch.set_up(count)).unwrap()
}

fn wait_for_event(signs: Shared<Signs>) {
    signs.ready.set();
    signs.event.wait().unwrap();
}

fn wait_for_latch(signs: Shared<Signs>) -> String {
    signs.ready.set();
    format!("{:?}", signs.latch.wait())
}

fn wait_for_any(signs: Shared<Signs>) -> u32 {
    signs.ready.set();
    let waitables: [&dyn Waitable; 3] = [&signs.event, &signs.other, &signs.latch];
    u32::try_from(wait_any(&waitables, Patience::Forever).unwrap()).unwrap()
}

/// A child that is blocked in `body`.
fn blocked<R: mp_shm::Message + 'static>(signs: &Shared<Signs>, body: fn(Shared<Signs>) -> R) -> Process<R> {
    signs.ready.clear();
    let child = Process::spawn(body, signs.clone()).unwrap();
    signs.ready.wait().unwrap();
    Task::leader(child.pid()).wait_until_blocked();
    child
}

#[test]
fn c6_set_then_clear_is_not_missed_by_those_who_wait() {
    let _watchdog = watchdog(LONG);
    let signs = signs(1);
    for _ in 0..5 {
        let waiters = [(); 3].map(|()| blocked(&signs, wait_for_event));
        signs.event.set();
        signs.event.clear();
        assert!(!signs.event.is_set());
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
        assert_eq!(
            signs.event.wait_timeout(Duration::ZERO),
            Err(Failure::TimedOut),
            "it is clear for others"
        );
    }
    assert_no_backstop();
}

#[test]
fn c6_an_event_stays_set() {
    let signs = signs(1);
    signs.event.set();
    signs.event.set();
    signs.event.wait().unwrap();
    Process::spawn(wait_for_event, signs.clone()).unwrap().join().unwrap();
    assert!(signs.event.is_set());
}

#[test]
fn c5_killed_waiters_of_an_event_hold_up_nobody() {
    let _watchdog = watchdog(LONG);
    let signs = signs(1);
    let mut waiters: Vec<_> = (0..4).map(|_| blocked(&signs, wait_for_event)).collect();
    for dead in waiters.drain(..2) {
        dead.kill().unwrap();
        assert_eq!(dead.join().unwrap_err().signal(), Some(9));
    }
    signs.event.set();
    waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
    assert_no_backstop();
}

#[test]
fn c5_killed_waiters_of_a_latch_hold_up_nobody() {
    let _watchdog = watchdog(LONG);
    let signs = signs(1);
    let mut waiters: Vec<_> = (0..3).map(|_| blocked(&signs, wait_for_latch)).collect();
    for dead in waiters.drain(..2) {
        dead.kill().unwrap();
        assert_eq!(dead.join().unwrap_err().signal(), Some(9));
    }
    signs.latch.count_down().unwrap();
    assert_eq!(waiters.remove(0).join().unwrap(), "Ok(())");
    assert_no_backstop();
}

#[test]
fn c9_a_latch_counts_down_to_zero_and_stays() {
    let _watchdog = watchdog(LONG);
    let signs = signs(3);
    let waiters = [(); 2].map(|()| blocked(&signs, wait_for_latch));
    signs.latch.count_down().unwrap();
    drop(signs.latch.ticket().unwrap());
    assert_eq!(signs.latch.try_wait(), Err(LatchError::Failed(Failure::WouldBlock)));
    assert_eq!(signs.latch.count(), 1);
    signs.latch.count_down().unwrap();
    waiters.into_iter().for_each(|waiter| assert_eq!(waiter.join().unwrap(), "Ok(())"));
    signs.latch.count_down().unwrap();
    assert_eq!((signs.latch.count(), signs.latch.try_wait()), (0, Ok(())));
    assert_no_backstop();
}

fn hold_ticket(signs: Shared<Signs>) {
    let _ticket = signs.latch.ticket().unwrap();
    signs.ready.set();
    loop {
        std::thread::park();
    }
}

/// A child that has a ticket.
fn ticket_holder(signs: &Shared<Signs>) -> Process<()> {
    signs.ready.clear();
    let child = Process::spawn(hold_ticket, signs.clone()).unwrap();
    signs.ready.wait().unwrap();
    child
}

#[test]
fn c9_the_holder_of_a_ticket_is_killed() {
    let _watchdog = watchdog(LONG);
    let signs = signs(1);
    let holder = ticket_holder(&signs);
    let waiters = [(); 2].map(|()| blocked(&signs, wait_for_latch));
    // Not joined yet: that would recover in the waiters' place.
    holder.kill().unwrap();
    let mut told: Vec<String> = waiters.into_iter().map(|waiter| waiter.join().unwrap()).collect();
    told.sort_unstable();
    assert_eq!(told, [format!("Err(OwnerDied {{ owner: {} }})", holder.pid()), "Err(Poisoned)".to_owned()]);
    assert_eq!(holder.join().unwrap_err().signal(), Some(9));
    assert_eq!(signs.latch.wait(), Err(LatchError::Poisoned));
    signs.latch.recover();
    assert_eq!(signs.latch.try_wait(), Err(LatchError::Failed(Failure::WouldBlock)), "its count is missing");
    signs.latch.count_down().unwrap();
    assert_eq!(signs.latch.wait(), Ok(()));
    assert_no_backstop();
}

#[test]
fn c5_one_of_several_becomes_ready() {
    let _watchdog = watchdog(LONG);
    for which in 0..3 {
        let signs = signs(1);
        let waiter = blocked(&signs, wait_for_any);
        match which {
            0 => signs.event.set(),
            1 => signs.other.set(),
            _ => signs.latch.count_down().unwrap(),
        }
        assert_eq!(waiter.join().unwrap(), which);
    }
    let signs = signs(0);
    signs.other.set();
    assert_eq!(wait_for_any(signs), 1, "the lowest of several");
    assert_no_backstop();
}

#[test]
fn c5_a_ticket_holder_that_is_killed_makes_its_latch_ready() {
    let _watchdog = watchdog(LONG);
    let signs = signs(1);
    let holder = ticket_holder(&signs);
    let waiter = blocked(&signs, wait_for_any);
    holder.kill().unwrap();
    assert_eq!(waiter.join().unwrap(), 2);
    assert_eq!(holder.join().unwrap_err().signal(), Some(9));
    assert_no_backstop();
}

#[test]
fn c7_no_limit_is_early() {
    fn late(begin: Instant, limit: Duration) {
        assert!(begin.elapsed() >= limit, "{limit:?} were over after {:?}", begin.elapsed());
    }
    let _watchdog = watchdog(LONG);
    let mutex = Mutex::shared(0_u32).unwrap();
    let recursive = RecursiveMutex::shared(0_u32).unwrap();
    let rwlock = RwLock::<u32, 4>::shared(0).unwrap();
    let semaphore = Semaphore::<4>::shared(0).unwrap();
    let (latch, event) = (Latch::<4>::shared(1).unwrap(), Event::shared().unwrap());
    let (once, condvar, own) =
        (Once::shared().unwrap(), Condvar::shared().unwrap(), Mutex::shared(0_u32).unwrap());
    let held = (mutex.lock().unwrap(), recursive.lock().unwrap(), rwlock.write().unwrap());
    once.call_once(|_| {
        let timed_out = Some(Failure::TimedOut);
        let tries = |limit: Duration| {
            let ends = || Instant::now() + limit;
            let each: [(&str, &dyn Fn() -> Option<Failure>); 18] = [
                ("lock_timeout", &|| mutex.lock_timeout(limit).unwrap_err().failure()),
                ("lock_deadline", &|| mutex.lock_deadline(ends()).unwrap_err().failure()),
                ("recursive timeout", &|| recursive.lock_timeout(limit).unwrap_err().failure()),
                ("recursive deadline", &|| recursive.lock_deadline(ends()).unwrap_err().failure()),
                ("read_timeout", &|| rwlock.read_timeout(limit).unwrap_err().failure()),
                ("read_deadline", &|| rwlock.read_deadline(ends()).unwrap_err().failure()),
                ("write_timeout", &|| rwlock.write_timeout(limit).unwrap_err().failure()),
                ("write_deadline", &|| rwlock.write_deadline(ends()).unwrap_err().failure()),
                ("acquire_timeout", &|| semaphore.acquire_timeout(limit).err()),
                ("acquire_deadline", &|| semaphore.acquire_deadline(ends()).err()),
                ("event timeout", &|| event.wait_timeout(limit).err()),
                ("event deadline", &|| event.wait_deadline(ends()).err()),
                ("once timeout", &|| once.call_once_timeout(limit, |_| ()).err()),
                ("once deadline", &|| once.call_once_deadline(ends(), |_| ()).err()),
                ("latch timeout", &|| match latch.wait_timeout(limit) {
                    Err(LatchError::Failed(failure)) => Some(failure),
                    _ => None,
                }),
                ("latch deadline", &|| match latch.wait_deadline(ends()) {
                    Err(LatchError::Failed(failure)) => Some(failure),
                    _ => None,
                }),
                ("condvar", &|| {
                    let ends = ends();
                    // A wait may end early, and does when a child of another test here dies.
                    let guard = own.lock().unwrap();
                    let (guard, ended) = condvar.wait_timeout_while(guard, limit, |_| true).unwrap();
                    drop(guard);
                    while !condvar.wait_deadline(own.lock().unwrap(), ends).unwrap().1.timed_out() {}
                    ended.timed_out().then_some(Failure::TimedOut)
                }),
                ("wait_any", &|| wait_any(&[&*event, &*latch], limit.into()).err()),
            ];
            for (what, one) in each {
                let begin = Instant::now();
                assert_eq!(one(), timed_out, "{what}");
                late(begin, limit);
            }
            let barrier = Barrier::<4>::shared(2).unwrap();
            let begin = Instant::now();
            assert_eq!(barrier.wait_deadline(ends()), Err(BarrierError::Failed(Failure::TimedOut)));
            late(begin, limit);
        };
        // In another thread: this one has the locks.
        std::thread::scope(|scope| {
            for limit in [Duration::ZERO, Duration::from_millis(3), Duration::from_millis(25)] {
                scope.spawn(move || tries(limit)).join().unwrap();
            }
        });
    })
    .unwrap();
    drop(held);
    assert_no_backstop();
}

#[test]
fn c5_again_without_waits_on_several_words() {
    let _watchdog = watchdog(Duration::from_secs(280));
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["c5_", "c9_", "--skip", "again", "--test-threads", "2"]).env("MP_FORCE", "no-waitv");
    assert!(command.status().unwrap().success());
}

#[test]
fn c6_set_then_clear_is_not_missed_by_those_who_wait_for_several() {
    let _watchdog = watchdog(LONG);
    let signs = signs(1);
    for _ in 0..5 {
        let waiters = [(); 3].map(|()| blocked(&signs, wait_for_any));
        signs.other.set();
        signs.other.clear();
        waiters.into_iter().for_each(|waiter| assert_eq!(waiter.join().unwrap(), 1));
    }
    assert_no_backstop();
}
