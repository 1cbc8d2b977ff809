//! The report of who waits for whom.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_shm::place::WaitKind;
use mp_shm::{Session, Shared, ShmSafe};
use mp_spawn::Process;
use mp_sync::{Barrier, Event, Mutex, RwLock, Semaphore, deadlock};
use mp_testkit::proc::Task;
use mp_testkit::watchdog;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

#[derive(ShmSafe)]
#[repr(C)]
struct Table {
    forks: [Mutex<u32>; 2],
    rwlock: RwLock<u32, 4>,
    permits: Semaphore<4>,
    both: Barrier<4>,
    event: Event,
}

fn table() -> Shared<Table> {
    let table = Shared::<Table>::with(|table| {
        table.both.set_up(2);
        table.permits.set_up(1, None);
    })
    .unwrap();
    table.forks[0].set_name("left fork");
    table.forks[1].set_name("right fork");
    table.rwlock.set_name("menu");
    table.permits.set_name("chairs");
    table
}

fn eat((table, first): (Shared<Table>, u32)) {
    let _first = table.forks[first as usize].lock().unwrap();
    table.both.wait().unwrap();
    let _second = table.forks[1 - first as usize].lock().unwrap();
}

fn name_of(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim_end().to_owned()
}

#[test]
fn c11_two_processes_wait_for_each_other() {
    let _watchdog = watchdog(LONG);
    let table = table();
    let philosophers = [0, 1].map(|first| Process::spawn(eat, (table.clone(), first)).unwrap());
    // Nobody notes at the barrier that it is through; both then sleep for good.
    let report = loop {
        philosophers.iter().for_each(|one| Task::leader(one.pid()).wait_until_blocked());
        let report = deadlock::report(Session::current().unwrap());
        if !report.circles.is_empty() {
            break report;
        }
    };
    let blocked: Vec<_> = report.blocked.iter().filter(|one| one.kind == WaitKind::Mutex).collect();
    assert_eq!(blocked.len(), 2, "{report}");
    for (me, other, lock) in [(0, 1, "right fork"), (1, 0, "left fork")] {
        let (me, other) = (philosophers[me].pid(), philosophers[other].pid());
        let one = blocked.iter().find(|one| one.thread.pid == me).unwrap();
        assert_eq!((one.thread.tid, one.name.as_str()), (me, lock));
        assert_eq!(one.thread.process, name_of(me));
        let [owner] = one.owners.as_slice() else { panic!("one owner: {report}") };
        assert_eq!((owner.pid, owner.tid), (other, other));
    }
    assert_eq!(report.circles.len(), 1, "{report}");
    assert_eq!(report.circles[0].len(), 2);
    let text = report.to_string();
    assert!(text.contains("deadlock:"), "{text}");
    for part in ["left fork", "right fork"]
        .into_iter()
        .map(str::to_owned)
        .chain(philosophers.iter().flat_map(|one| [one.pid().to_string(), name_of(one.pid())]))
    {
        assert!(text.contains(&part), "{part} is in: {text}");
    }
    assert_eq!(deadlock::report_around(&*table).circles.len(), 1, "found from a value in the session, too");
    for one in philosophers {
        one.kill().unwrap();
        // The first death frees the second, which may come to its end.
        let _ = one.join();
    }
    assert!(deadlock::report(Session::current().unwrap()).circles.is_empty(), "the dead wait for nobody");
}

fn hold_all((table, held): (Shared<Table>, Shared<Event>)) {
    let _permit = table.permits.acquire().unwrap();
    let _reading = table.rwlock.read().unwrap();
    held.set();
    loop {
        std::thread::park();
    }
}

fn want((table, what): (Shared<Table>, u32)) {
    match what {
        0 => drop(table.permits.acquire()),
        1 => drop(table.rwlock.write()),
        _ => drop(table.event.wait()),
    }
}

#[test]
fn c11_holders_of_permits_and_readers_are_named_and_there_is_no_circle() {
    let _watchdog = watchdog(LONG);
    let table = table();
    let held = Event::shared().unwrap();
    let holder = Process::spawn(hold_all, (table.clone(), held.clone())).unwrap();
    held.wait().unwrap();
    let waiters = [0, 1, 2].map(|what| Process::spawn(want, (table.clone(), what)).unwrap());
    let report = loop {
        waiters.iter().for_each(|one| Task::leader(one.pid()).wait_until_blocked());
        let report = deadlock::report_around(&*table);
        if waiters.iter().all(|one| report.blocked.iter().any(|blocked| blocked.thread.pid == one.pid())) {
            break report;
        }
    };
    for (waiter, kind, name) in [
        (&waiters[0], WaitKind::Semaphore, "chairs"),
        (&waiters[1], WaitKind::Write, "menu"),
        (&waiters[2], WaitKind::Event, ""),
    ] {
        let blocked = report.blocked.iter().find(|one| one.thread.pid == waiter.pid()).unwrap();
        assert_eq!((blocked.kind, blocked.name.as_str()), (kind, name), "{report}");
        let owners: Vec<u32> = blocked.owners.iter().map(|owner| owner.pid).collect();
        let expected = if kind == WaitKind::Event { vec![] } else { vec![holder.pid()] };
        assert_eq!(owners, expected, "{report}");
    }
    // The session is also that of the philosophers, who may be sitting in theirs.
    let mine = |&at: &usize| waiters.iter().any(|one| one.pid() == report.blocked[at].thread.pid);
    assert!(!report.circles.iter().flatten().any(mine), "{report}");
    for one in waiters.into_iter().chain([holder]) {
        one.kill().unwrap();
        let _ = one.join();
    }
}

#[test]
fn c9_a_reader_that_asks_to_write_is_told_that_it_would_wait_for_itself() {
    let _watchdog = mp_testkit::watchdog(std::time::Duration::from_secs(60));
    let lock = mp_sync::RwLock::<u64>::shared(1).unwrap();
    let reading = lock.read().unwrap();
    assert_eq!(lock.write().unwrap_err().failure(), Some(mp_sync::Failure::AlreadyHeld));
    drop(reading);
    *lock.write().unwrap() = 2;
}
