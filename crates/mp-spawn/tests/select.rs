//! Processes in one wait with channels, descriptors and times.

use mp_channel::select::Interest;
use mp_channel::{Receiver, Select, channel, select};
use mp_spawn::Process;
use mp_testkit::{assert_no_backstop, watchdog};
use std::io::Write;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

fn wait_for(go: Receiver<u64>) -> u64 {
    go.recv().unwrap_or(0)
}

#[test]
fn a6_b15_a_process_is_not_ready_while_it_lives_and_ready_when_it_has_ended() {
    let _watchdog = watchdog(LONG);
    let (go, gone) = channel::<u64>(1).unwrap();
    let child = Process::spawn(wait_for, gone).unwrap();
    let mut select = Select::new();
    let number = select.fd(&child, Interest::Read);
    assert!(select.try_ready().unwrap_err().is_timeout());
    assert!(select.ready_timeout(Duration::from_millis(20)).unwrap_err().is_timeout());
    go.send(7).unwrap();
    assert_eq!(select.ready().unwrap(), number);
    assert_eq!(select.try_ready().unwrap(), number, "it stays so");
    drop(select);
    assert_eq!(child.join().unwrap(), 7);
    assert_no_backstop();
}

#[test]
fn a6_b15_one_wait_mixes_processes_channels_sockets_and_times() {
    let _watchdog = watchdog(LONG);
    let (go, gone) = channel::<u64>(1).unwrap();
    let (_stay, stayed) = channel::<u64>(1).unwrap();
    let ends = Process::spawn(wait_for, gone).unwrap();
    let is_killed = Process::spawn(wait_for, stayed).unwrap();
    let (news, news_out) = channel::<u64>(1).unwrap();
    let (mut socket, other) = std::os::unix::net::UnixStream::pair().unwrap();
    let wait = |limit: Duration| {
        select! {
            fd(ends, Interest::Read) => "ended",
            fd(other, Interest::Read) => {
                std::io::Read::read_exact(&mut &other, &mut [0]).unwrap();
                "socket"
            },
            recv(news_out) -> number => if number.unwrap() == 1 { "news" } else { "wrong" },
            after(limit) => "time",
        }
    };
    assert_eq!(wait(Duration::from_millis(10)), "time");
    news.send(1).unwrap();
    assert_eq!(wait(LONG), "news");
    socket.write_all(b"x").unwrap();
    assert_eq!(wait(LONG), "socket");
    go.send(3).unwrap();
    assert_eq!(wait(LONG), "ended");
    let killed = std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            select! {
                fd(is_killed, Interest::Read) => true,
                recv(news_out) -> _number => false,
            }
        });
        is_killed.kill().unwrap();
        waiter.join().unwrap()
    });
    assert!(killed);
    assert_eq!((ends.join().unwrap(), is_killed.join().unwrap_err().signal()), (3, Some(9)));
    assert_no_backstop();
}
