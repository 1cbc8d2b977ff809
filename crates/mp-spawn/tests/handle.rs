//! Processes as handles in messages. One test alone in its process: it looks at all that is left.
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::select::Interest;
use mp_channel::{Receiver, Select, Sender, channel};
use mp_shm::{Fd, Session, fds};
use mp_spawn::{Process, ProcessHandle};
use mp_testkit::{LeakCheck, assert_no_backstop, proc, watchdog};
use std::collections::BTreeMap;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

#[test]
fn b4_processes_travel_inside_messages() {
    let _watchdog = watchdog(Duration::from_secs(150));
    let leaks = LeakCheck::begin();
    nested_and_ended_by_a_stranger();
    a_child_sends_itself();
    beside_channels_in_a_wait();
    of_one_that_has_ended();
    another_descriptor_is_no_process();
    the_broker_was_killed();
    leaks.end();
    assert_no_backstop();
}

fn wait_for(go: Receiver<u64>) -> u64 {
    go.recv().unwrap_or(0)
}

type Victims = BTreeMap<String, Vec<Option<ProcessHandle>>>;

fn end_all(inbox: Receiver<Victims>) -> Vec<u32> {
    let victims = inbox.recv().unwrap();
    let open = |name: &str| victims[name].iter().flatten().map(|one| one.open().unwrap()).collect::<Vec<_>>();
    for one in open("kill") {
        assert!(!one.is_finished() && !one.wait_timeout(Duration::ZERO).unwrap());
        one.kill().unwrap();
        one.wait().unwrap();
        assert!(one.is_finished() && one.wait_timeout(LONG).unwrap());
        one.kill().unwrap();
    }
    for one in open("terminate") {
        one.terminate().unwrap();
        assert!(one.wait_timeout(LONG).unwrap());
    }
    victims.values().flatten().flatten().map(ProcessHandle::pid).collect()
}

fn nested_and_ended_by_a_stranger() {
    let (_go, gone) = channel::<u64>(1).unwrap();
    let spawn = || Process::spawn(wait_for, gone.clone()).unwrap();
    let (first, second, third) = (spawn(), spawn(), spawn());
    let (sender, receiver) = channel(1).unwrap();
    let child = Process::spawn(end_all, receiver).unwrap();
    let handle = |process: &Process<u64>| Some(process.handle().unwrap());
    let victims = [
        ("kill".to_owned(), vec![None, handle(&first), handle(&second)]),
        ("terminate".to_owned(), vec![handle(&third)]),
    ];
    sender.send(victims.into()).unwrap();
    assert_eq!(child.join().unwrap(), [first.pid(), second.pid(), third.pid()]);
    let signals = [first, second, third].map(|one| one.join().unwrap_err().signal());
    assert_eq!(signals, [Some(9), Some(9), Some(15)], "the parent is told how they ended");
}

/// The other direction, and on to a third process.
fn a_child_sends_itself() {
    fn introduce((to, go): (Sender<ProcessHandle>, Receiver<u64>)) -> u32 {
        to.send(ProcessHandle::current().unwrap()).unwrap();
        wait_for(go);
        std::process::id()
    }
    let (to, from) = channel(1).unwrap();
    let (go, gone) = channel(1).unwrap();
    let child = Process::spawn(introduce, (to, gone)).unwrap();
    let handle = from.recv().unwrap();
    assert_eq!(handle.pid(), child.pid());
    let peer = handle.open().unwrap();
    assert!(!peer.is_finished());
    let wait = |(one, ready): (ProcessHandle, Sender<()>)| {
        let peer = one.open().unwrap();
        ready.send(()).unwrap();
        peer.wait().unwrap();
        peer.pid()
    };
    let (ready, is_ready) = channel(1).unwrap();
    let waiter = Process::spawn(wait, (handle, ready)).unwrap();
    is_ready.recv().unwrap();
    assert!(!waiter.is_finished());
    go.send(1).unwrap();
    assert_eq!(waiter.join().unwrap(), child.pid());
    peer.wait().unwrap();
    assert_eq!(child.join().unwrap(), peer.pid());
}

fn beside_channels_in_a_wait() {
    let (go, gone) = channel::<u64>(1).unwrap();
    let (_quiet, silent) = channel::<u64>(1).unwrap();
    let child = Process::spawn(wait_for, gone).unwrap();
    let peer = child.handle().unwrap().open().unwrap();
    let mut select = Select::new();
    select.end(&silent);
    let number = select.fd(&peer, Interest::Read);
    assert!(select.try_ready().unwrap_err().is_timeout());
    go.send(7).unwrap();
    assert_eq!(select.ready().unwrap(), number);
    drop(select);
    assert_eq!(child.join().unwrap(), 7);
}

fn of_one_that_has_ended() {
    let child = Process::spawn(|(): ()| (), ()).unwrap();
    let early = child.handle().unwrap();
    assert!(child.wait_timeout(LONG).unwrap());
    let late = child.handle().unwrap();
    child.join().unwrap();
    for handle in [early, late] {
        let peer = handle.open().unwrap();
        assert!(peer.is_finished());
        peer.wait().unwrap();
        peer.terminate().unwrap();
        peer.kill().unwrap();
    }
}

/// Made of the bytes of a handle whose descriptor is none of a process.
fn another_descriptor_is_no_process() {
    let (writer, reader) = mp_channel::dynamic::channel(1).unwrap();
    let (_read, write) = std::io::pipe().unwrap();
    writer.send([0; 4], &(std::process::id(), Fd::of(write).unwrap())).unwrap();
    let forged = reader.recv().unwrap().decode::<ProcessHandle>().unwrap();
    assert_eq!(forged.pid(), std::process::id());
    assert!(forged.open().unwrap().kill().is_err(), "nobody is killed by a number");
}

fn the_broker_was_killed() {
    let (_go, gone) = channel::<u64>(1).unwrap();
    let child = Process::spawn(wait_for, gone).unwrap();
    let handle = child.handle().unwrap();
    let broker = fds::status(Session::current().unwrap()).unwrap().unwrap().pid;
    let pid = rustix::process::Pid::from_raw(i32::try_from(broker).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    proc::until(|| proc::has_ended(broker));
    assert!(handle.open().unwrap_err().is_lost());
    child.handle().unwrap().open().unwrap().kill().unwrap();
    assert_eq!(child.join().unwrap_err().signal(), Some(9));
}
