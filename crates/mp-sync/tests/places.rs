//! Where primitives live: in one's own struct in a session, a segment, a file; alone behind handles that are sent.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::channel;
use mp_shm::{FileSegment, Segment, Shared, ShmSafe};
use mp_spawn::Process;
use mp_sync::{
    Barrier, Condvar, Event, Latch, Mutex, Once, Patience, RecursiveMutex, RwLock, Semaphore, Waitable,
    wait_any,
};
use mp_testkit::proc::Task;
use mp_testkit::{assert_no_backstop, watchdog};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

#[derive(ShmSafe, Debug)]
#[repr(C)]
struct Account {
    balance: i64,
    moves: u32,
}

/// Everything there is, among plain members.
#[derive(ShmSafe)]
#[repr(C)]
struct Everything {
    version: u8,
    account: Mutex<Account>,
    changed: Condvar,
    log: RecursiveMutex<AtomicU64>,
    limits: RwLock<[u32; 2], 8>,
    permits: Semaphore<4>,
    go: Event,
    round: Barrier<4>,
    once: Once,
    done: Latch<8>,
    asleep: Event,
    held: Event,
    plain: AtomicU64,
}

fn set_up(all: &mut Everything) {
    all.version = 3;
    all.account.get_mut().balance = 100;
    all.limits.get_mut()[0] = 5;
    all.permits.set_up(2, Some(2));
    all.round.set_up(2);
    all.done.set_up(2);
    all.account.set_name("account");
}

/// The part of the other process: each primitive once, in step with `first`.
fn second(all: &Everything) {
    assert_eq!((all.version, all.account.name().as_str()), (3, "account"));
    all.once
        .call_once(|_| {
            all.plain.fetch_add(1, Ordering::Relaxed);
        })
        .unwrap();
    all.asleep.set();
    all.go.wait().unwrap();
    let mut account =
        all.changed.wait_while(all.account.lock().unwrap(), |account| account.moves == 0).unwrap();
    account.balance += 11;
    account.moves += 1;
    drop(account);
    all.changed.notify_all();
    all.log.lock().unwrap().fetch_add(1, Ordering::Relaxed);
    assert_eq!(all.limits.read().unwrap()[1], 8);
    drop(all.permits.acquire().unwrap());
    assert!(all.round.wait().is_ok());
    drop(all.done.ticket().unwrap());
}

fn first(all: &Everything, other: u32) {
    all.once
        .call_once(|_| {
            all.plain.fetch_add(1, Ordering::Relaxed);
        })
        .unwrap();
    let permits = all.permits.acquire_many(2, Patience::None).unwrap();
    let mut limits = all.limits.write().unwrap();
    limits[1] = limits[0] + 3;
    drop(limits);
    all.asleep.wait().unwrap();
    Task::leader(other).wait_until_blocked();
    all.go.set();
    all.account.lock().unwrap().moves += 1;
    all.changed.notify_one();
    let account = all.changed.wait_while(all.account.lock().unwrap(), |account| account.moves < 2).unwrap();
    assert_eq!(account.balance, 111);
    drop(account);
    drop(permits);
    assert!(all.round.wait().is_ok());
    all.done.count_down().unwrap();
    let waitables: [&dyn Waitable; 2] = [&all.held, &all.done];
    assert_eq!(wait_any(&waitables, Patience::Forever), Ok(1));
    assert_eq!(all.log.lock().unwrap().load(Ordering::Relaxed), 1);
    assert_eq!(all.plain.load(Ordering::Relaxed), 1, "it was done once");
}

/// Holds a lock and a permit until it is killed.
fn hold(all: &Everything) -> ! {
    let _permits = all.permits.acquire_many(2, Patience::Forever).unwrap();
    let _account = all.account.lock().unwrap();
    all.held.set();
    loop {
        std::thread::park();
    }
}

/// Whatever `holder` has comes back to two that are blocked when it is killed, in this place, too.
fn a_death_is_noticed(all: &Everything, holder: Process<()>) {
    all.held.wait().unwrap();
    std::thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel();
        let also_tell = tell.clone();
        let locker = scope.spawn(move || {
            tell.send(Task::current()).unwrap();
            all.account.lock().unwrap_err().is_owner_died()
        });
        let taker = scope.spawn(move || {
            also_tell.send(Task::current()).unwrap();
            all.permits.acquire().is_ok()
        });
        told.iter().take(2).for_each(Task::wait_until_blocked);
        holder.kill().unwrap();
        assert!(locker.join().unwrap(), "the locker is told");
        assert!(taker.join().unwrap(), "the permits come back");
    });
    assert_eq!(holder.join().unwrap_err().signal(), Some(9));
}

#[test]
fn c10_in_a_struct_in_the_session() {
    let _watchdog = watchdog(LONG);
    let all = Shared::<Everything>::with(set_up).unwrap();
    let child = Process::spawn(|all: Shared<Everything>| second(&all), all.clone()).unwrap();
    first(&all, child.pid());
    child.join().unwrap();
    let holder = Process::spawn(|all: Shared<Everything>| hold(&all), all.clone()).unwrap();
    a_death_is_noticed(&all, holder);
    assert_no_backstop();
}

#[test]
fn c10_in_a_struct_in_a_named_segment() {
    let _watchdog = watchdog(LONG);
    let name = format!("sync-places-{}", std::process::id());
    let all = Segment::<Everything>::create_with(&name, set_up).unwrap();
    let open = |name: String| second(&Segment::<Everything>::open(&name).unwrap());
    let child = Process::spawn(open, name.clone()).unwrap();
    first(&all, child.pid());
    child.join().unwrap();
    let holder =
        Process::spawn(|name: String| -> () { hold(&Segment::<Everything>::open(&name).unwrap()) }, name)
            .unwrap();
    a_death_is_noticed(&all, holder);
    assert_no_backstop();
}

#[test]
fn c10_in_a_struct_in_a_file() {
    let _watchdog = watchdog(LONG);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("everything");
    let text = path.to_str().unwrap().to_owned();
    let all = FileSegment::<Everything>::open_or_create(&path, set_up).unwrap();
    let open = |path: String| second(&FileSegment::<Everything>::open(path).unwrap());
    let child = Process::spawn(open, text.clone()).unwrap();
    first(&all, child.pid());
    child.join().unwrap();
    let holder =
        Process::spawn(|path: String| -> () { hold(&FileSegment::<Everything>::open(path).unwrap()) }, text)
            .unwrap();
    a_death_is_noticed(&all, holder);
    assert_no_backstop();
}

type Handles = (
    (
        Shared<Mutex<u64>>,
        Shared<RecursiveMutex<u64>>,
        Shared<RwLock<u64>>,
        Shared<Condvar>,
        Shared<Semaphore>,
    ),
    (Shared<Event>, Shared<Barrier>, Shared<Once>, Shared<Latch>),
);

fn handles() -> Handles {
    (
        (
            Mutex::shared(1).unwrap(),
            RecursiveMutex::shared(2).unwrap(),
            RwLock::shared(3).unwrap(),
            Condvar::shared().unwrap(),
            Semaphore::shared(4).unwrap(),
        ),
        (
            Event::shared().unwrap(),
            Barrier::shared(1).unwrap(),
            Once::shared().unwrap(),
            Latch::shared(1).unwrap(),
        ),
    )
}

fn use_all(((mutex, recursive, rwlock, condvar, semaphore), (event, barrier, once, latch)): Handles) {
    *mutex.lock().unwrap() += 10;
    assert_eq!(*recursive.lock().unwrap(), 2);
    *rwlock.write().unwrap() += 10;
    condvar.notify_all();
    semaphore.add(1).unwrap();
    assert!(barrier.wait().unwrap().is_leader());
    once.call_once(|_| ()).unwrap();
    latch.count_down().unwrap();
    event.set();
}

fn were_used(((mutex, _, rwlock, _, semaphore), (event, _, once, latch)): &Handles) {
    event.wait().unwrap();
    latch.wait().unwrap();
    assert!(once.is_completed());
    assert_eq!((*mutex.lock().unwrap(), *rwlock.read().unwrap(), semaphore.available()), (11, 13, 5));
}

#[test]
fn c10_alone_behind_handles_as_an_argument() {
    let _watchdog = watchdog(LONG);
    let handles = handles();
    let child = Process::spawn(use_all, handles.clone()).unwrap();
    were_used(&handles);
    child.join().unwrap();
    assert_no_backstop();
}

#[test]
fn c10_alone_behind_handles_through_a_channel() {
    let _watchdog = watchdog(LONG);
    let handles = handles();
    let (sender, receiver) = channel::<Handles>(1).unwrap();
    let child =
        Process::spawn(|receiver: mp_channel::Receiver<Handles>| use_all(receiver.recv().unwrap()), receiver)
            .unwrap();
    sender.send(handles.clone()).unwrap();
    were_used(&handles);
    child.join().unwrap();
    // A handle that comes back as a value outlives its maker.
    let made = Process::spawn(|()| Mutex::shared(77_u64).unwrap(), ()).unwrap().join().unwrap();
    assert_eq!(*made.lock().unwrap(), 77);
    assert_no_backstop();
}
