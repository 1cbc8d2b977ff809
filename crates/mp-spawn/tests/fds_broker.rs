//! The process that holds descriptors: there is one, it stands apart, it has a limit, and it ends with the session.
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, Sender, channel};
use mp_shm::fds::{self, BrokerStatus};
use mp_shm::{Fd, Session};
use mp_spawn::Process;
use mp_sys::deadline::Deadline;
use mp_sys::packet::Socket;
use mp_sys::poll::{Interest, poll};
use mp_testkit::{proc, watchdog};
use std::io::{PipeReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(120);
/// Tells this test program, started again, to be what some test needs.
const PART: &str = "FDS_BROKER_PART";

fn status() -> BrokerStatus {
    fds::status(Session::current().unwrap()).unwrap().unwrap()
}

/// The brokers of this session that have not ended.
fn brokers() -> Vec<u32> {
    let wanted = format!("multiproc-fds\0{}\0", Session::current().unwrap().number());
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_one =
        |pid: &u32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == wanted.as_bytes());
    pids.filter(is_one).filter(|&pid| !proc::has_ended(pid)).collect()
}

fn ends(reader: &PipeReader) {
    let soon = Deadline::after(Duration::from_secs(40));
    assert_eq!(poll(&[(reader.as_fd(), Interest::Read)], Some(soon)).unwrap(), [true]);
    assert_eq!((&*reader).read(&mut [0]).unwrap(), 0);
}

/// Runs `test` of this file in a process of its own, which may do to itself what it likes.
fn apart(test: &str, part: &str) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(PART, part)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn part() -> Option<String> {
    std::env::var(PART).ok()
}

#[test]
fn b16_ten_processes_that_deposit_first_at_once_have_one_broker() {
    fn deposit(gate: Receiver<()>) -> (u32, Fd) {
        // They all come through when it closes.
        assert!(gate.recv().is_err());
        (status_after_deposit().pid, Fd::of(std::io::stdin()).unwrap())
    }
    fn status_after_deposit() -> BrokerStatus {
        let _fd = Fd::of(std::io::stdin()).unwrap();
        status()
    }
    let _watchdog = watchdog(LONG);
    if part().is_none() {
        // Alone in a process: other tests of this file deposit, too.
        let test = "b16_ten_processes_that_deposit_first_at_once_have_one_broker";
        for _ in 0..5 {
            assert!(apart(test, "yes").wait().unwrap().success());
        }
        return;
    }
    let (open, gate) = channel::<()>(1).unwrap();
    let children: Vec<_> = (0..10).map(|_| Process::spawn(deposit, gate.clone()).unwrap()).collect();
    for child in &children {
        proc::Task::leader(child.pid()).wait_until_blocked();
    }
    assert!(brokers().is_empty());
    drop((open, gate));
    let found: Vec<(u32, Fd)> = children.into_iter().map(|child| child.join().unwrap()).collect();
    let pid = found[0].0;
    assert!(found.iter().all(|(one, fd)| *one == pid && fd.open().is_ok()));
    assert_eq!(brokers(), vec![pid]);
    assert_eq!(status(), BrokerStatus { pid, held: 10 });
}

#[test]
fn b4_the_broker_ends_with_the_last_of_its_session() {
    let _watchdog = watchdog(LONG);
    if let Some(part) = part() {
        let fd = Fd::of(std::io::stdout()).unwrap();
        let pid = status().pid;
        if part == "child" {
            // Nobody waits for it: it is the last of the session.
            let outlive = |(fd, parent, runs): (Fd, u32, Sender<()>)| {
                runs.send(()).unwrap();
                proc::until(|| proc::has_ended(parent));
                let opened = fd.open().is_ok();
                let mut output = std::fs::File::from(fd.open().unwrap());
                writeln!(output, "\nbroker {} opened {opened}", status().pid).unwrap();
            };
            let (sender, runs) = channel(1).unwrap();
            Process::spawn(outlive, (fd, std::process::id(), sender)).unwrap().detach();
            runs.recv().unwrap();
            std::process::exit(0);
        }
        println!("\nbroker {pid} opened true");
        if part == "kill" {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
        }
        std::process::exit(0);
    }
    for how in ["exit", "kill", "child"] {
        let mut child = apart("b4_the_broker_ends_with_the_last_of_its_session", how);
        let mut said = String::new();
        // Ends when the broker has given up its duplicate, too.
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        child.wait().unwrap();
        let line = said.lines().find(|line| line.starts_with("broker ")).unwrap();
        assert!(line.ends_with("opened true"), "{line}");
        let pid: u32 = line.split(' ').nth(1).unwrap().parse().unwrap();
        let begun = std::time::Instant::now();
        proc::until(|| proc::has_ended(pid));
        assert!(begun.elapsed() < Duration::from_secs(5), "{how}: it ended after {:?}", begun.elapsed());
    }
}

#[test]
fn b4_the_broker_stands_apart_from_the_program() {
    let _watchdog = watchdog(LONG);
    let fd = Fd::of(std::io::stdin()).unwrap();
    let pid = status().pid;
    assert!(!proc::children().contains(&pid));
    let raw = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    assert_eq!(rustix::process::getsid(Some(raw)).unwrap(), raw, "it leads a session without a terminal");
    use rustix::process::Signal;
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        rustix::process::kill_process(raw, signal).unwrap();
    }
    let target = |number: &str| std::fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap();
    for standard in ["0", "1", "2"] {
        assert_eq!(target(standard).to_str(), Some("/dev/null"));
    }
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap().to_str(), Some("/"));
    assert!(fd.open().is_ok());
    assert_eq!(status().pid, pid, "the signals did not end it");
}

/// The abstract name at which the broker listens.
fn name_of(pid: u32) -> Vec<u8> {
    let sockets: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok()?.to_str().map(str::to_owned))
        .filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = std::fs::read_to_string("/proc/net/unix").unwrap();
    let lines = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let line = lines.filter(|line| line.len() == 8 && sockets.contains(&line[6].to_owned()));
    let names: Vec<&str> = line.filter_map(|line| line[7].strip_prefix("@multiproc-fds-")).collect();
    format!("multiproc-fds-{}", names[0]).into_bytes()
}

#[test]
fn b4_who_breaks_the_brokers_rules_is_dropped_alone() {
    let _watchdog = watchdog(LONG);
    let (_reader, writer) = std::io::pipe().unwrap();
    let fd = Fd::of(&writer).unwrap();
    let pid = status().pid;
    let name = name_of(pid);
    let until = Deadline::after(LONG);
    // A fetch by one who guesses the secret, and what is no frame at all.
    let mut guess = [0; 56];
    guess[..8].copy_from_slice(b"mpfd\x01\0\x02\0");
    let frames: [&[u8]; 5] = [&guess, &guess[..55], b"", b"x", &[0xff; 5000]];
    for frame in frames {
        for with in [None, Some(writer.as_fd())] {
            let (socket, _) = Socket::connect(&name, until).unwrap();
            socket.send(frame, with, until).unwrap();
            let packet = socket.receive(&mut [0; 16], until);
            assert!(packet.is_err() || packet.unwrap().len == 0, "no answer to {frame:?}");
        }
    }
    // One that says nothing keeps nobody from being served.
    let silent: Vec<Socket> = (0..200).map(|_| Socket::connect(&name, until).unwrap().0).collect();
    assert!(fd.open().is_ok());
    drop(silent);
    assert_eq!(status().pid, pid, "it serves on");
}

#[test]
fn b16_a_full_broker_gives_the_descriptor_back() {
    let _watchdog = watchdog(LONG);
    if part().is_none() {
        assert!(apart("b16_a_full_broker_gives_the_descriptor_back", "yes").wait().unwrap().success());
        return;
    }
    use rustix::process::{Resource, Rlimit, setrlimit};
    setrlimit(Resource::Nofile, Rlimit { current: Some(200), maximum: Some(256) }).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut fds = Vec::new();
    let error = loop {
        match Fd::new(writer.try_clone().unwrap()) {
            Ok(fd) => fds.push(fd),
            Err(error) => break error,
        }
    };
    assert!(error.is_full(), "{error}");
    assert!(fds.len() > 100, "{}", fds.len());
    assert_eq!(status().held, u32::try_from(fds.len()).unwrap());
    let own = error.into_fd().unwrap();
    assert_eq!(rustix::fs::fstat(&own).unwrap().st_ino, rustix::fs::fstat(&writer).unwrap().st_ino);
    assert_ne!(own.as_raw_fd(), writer.as_raw_fd());
    // With room for one more, it takes it.
    fds.pop();
    let last = Fd::new(own).unwrap();
    assert!(fds.iter().all(|fd| fd.open().is_ok()));
    drop((fds, last, writer));
    ends(&reader);
    assert_eq!(status().held, 0);
}

/// Takes the right to open more descriptors from the broker until it is dropped.
struct Shortage {
    pid: rustix::process::Pid,
    before: rustix::process::Rlimit,
}

impl Shortage {
    fn of(broker: u32, limit: u64) -> Self {
        use rustix::process::{Resource, Rlimit, prlimit};
        let pid = rustix::process::Pid::from_raw(i32::try_from(broker).unwrap()).unwrap();
        let maximum = std::fs::read_to_string(format!("/proc/{broker}/limits")).unwrap();
        let maximum = maximum.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let maximum = maximum.split_ascii_whitespace().nth(4).unwrap().parse().ok();
        let before = prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(limit), maximum });
        Self { pid, before: before.unwrap() }
    }
}

impl Drop for Shortage {
    fn drop(&mut self) {
        let before = self.before;
        // It may have ended, which the test sees elsewhere.
        let _ = rustix::process::prlimit(Some(self.pid), rustix::process::Resource::Nofile, before);
    }
}

#[test]
fn b16_a_broker_that_may_open_nothing_keeps_what_it_holds_and_sleeps() {
    let _watchdog = watchdog(LONG);
    if part().is_none() {
        let test = "b16_a_broker_that_may_open_nothing_keeps_what_it_holds_and_sleeps";
        assert!(apart(test, "yes").wait().unwrap().success());
        return;
    }
    let (_reader, writer) = std::io::pipe().unwrap();
    let fd = Fd::of(&writer).unwrap();
    let (_open, gate) = channel::<()>(1).unwrap();
    let child = Process::spawn(|gate: Receiver<()>| gate.recv().is_ok(), gate).unwrap();
    proc::Task::leader(child.pid()).wait_until_blocked();
    // It looks who takes part before it answers.
    let BrokerStatus { pid, .. } = status();
    let broker = proc::Task::leader(pid);
    // The first three it has, and it waits for no more than three.
    let short = Shortage::of(pid, 3);
    // It has to look who is left, and can look at nobody.
    child.kill().unwrap();
    assert_eq!(child.join().unwrap_err().signal(), Some(9));
    // As long as a broker stays that believes itself alone.
    let late = fd.open().unwrap_err();
    assert!(matches!(late.failure(), fds::FdFailure::TimedOut), "{late}");
    let sleeps = broker.usage().unwrap().sleeps;
    proc::until(|| broker.usage().unwrap().sleeps > sleeps + 5);
    broker.wait_until_blocked();
    drop(short);
    assert!(fd.open().is_ok());
    assert_eq!(status(), BrokerStatus { pid, held: 1 });
    // With less than it waits for, `poll` fails, too.
    let short = Shortage::of(pid, 0);
    std::thread::scope(|scope| {
        let opened = scope.spawn(|| fd.open().is_ok());
        let sleeps = broker.usage().unwrap().sleeps;
        proc::until(|| broker.usage().unwrap().sleeps > sleeps + 5);
        drop(short);
        assert!(opened.join().unwrap(), "who came in the meantime has waited");
    });
    assert_eq!(status(), BrokerStatus { pid, held: 1 });
}
