//! Processes that are in another session than the one that started them.
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Sender, channel, channel_in};
use mp_shm::Session;
use mp_shm::audit::Audit;
use mp_shm::codec::EncodeError;
use mp_spawn::{ForkServer, Process, SpawnError, StartMethod};
use mp_testkit::{LeakCheck, assert_no_backstop, watchdog};
use std::time::Duration;

/// What a process finds itself in: the number of its session, and how many it has mapped.
fn looks((number, tell): (u16, Sender<u16>)) -> (u16, usize) {
    let current = Session::current().unwrap();
    tell.send(number).unwrap();
    // What it makes and starts is there, too.
    let (sender, receiver) = channel::<u16>(1).unwrap();
    let below = Process::spawn(
        |sender: Sender<u16>| {
            sender.send(Session::current().unwrap().number()).unwrap();
        },
        sender,
    );
    below.unwrap().join().unwrap();
    assert_eq!(receiver.recv().unwrap(), current.number());
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    (current.number(), maps.lines().filter(|line| line.contains("memfd:multiproc")).count())
}

#[test]
fn a18_a_process_is_in_the_session_it_was_given_and_in_no_other() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let other = Session::create().unwrap();
    let current = Session::current().unwrap();
    other.me().unwrap();
    let leaks = LeakCheck::begin();
    // Servers have a process for each session.
    let server = ForkServer::new();
    let (here, told_here) = channel(4).unwrap();
    let (there, told_there) = channel_in(other, 4).unwrap();
    for method in [StartMethod::Spawn, StartMethod::ForkServer] {
        let builder = Process::builder().fork_server(&server).start_method(method);
        let compartment = builder.clone().session(other);
        let inside = compartment.spawn(looks, (1, there.clone())).unwrap();
        let beside = builder.spawn(looks, (2, here.clone())).unwrap();
        assert_eq!(inside.join().unwrap(), (other.number(), 1), "{method}");
        assert_eq!(beside.join().unwrap(), (current.number(), 1), "{method}");
        assert_eq!((told_there.recv().unwrap(), told_here.recv().unwrap()), (1, 2));

        let error = compartment.spawn(looks, (3, here.clone())).unwrap_err();
        assert!(matches!(error, SpawnError::Encode(EncodeError::Handle(_))), "{error:?}");
    }
    drop((here, there));
    assert!(told_here.recv().unwrap_err().is_disconnected());
    assert!(told_there.recv().unwrap_err().is_disconnected());
    drop((told_here, told_there));
    server.end();
    leaks.end();
    assert_eq!(other.audit(), Audit { processes: 1, counts_are_right: true, ..Audit::default() });
    assert_no_backstop();
}
