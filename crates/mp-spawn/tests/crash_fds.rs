//! SIGKILL at every crash point of descriptors, in who deposits, who receives, and the broker: survivors go on, nothing is left.
//!
//! Build with `RUSTFLAGS="--cfg mp_crash"`. The points are read from the sources, so a new one is covered by being there. A victim is
//! stopped at its point before it is killed there, so that a survivor comes by in between.
#![cfg(mp_crash)]
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "a victim finds the point at which it stops in its environment")]

use mp_channel::{Receiver, Sender, channel};
use mp_shm::fds;
use mp_shm::{Fd, Session};
use mp_spawn::Process;
use mp_sys::deadline::Deadline;
use mp_sys::poll::{Interest, poll_one};
use mp_testkit::proc::{self, Task};
use mp_testkit::{LeakCheck, assert_no_backstop, watchdog};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(170);
const TEST: &str = "b4_b8_a_kill_at_every_crash_point_of_descriptors_harms_nobody_else";
/// Tells this test program, started again, which kill it is the stage of.
const STAGE: &str = "CRASH_FDS_STAGE";
/// Times that a victim does what it does: it passes each of its points at least twice.
const ROUNDS: usize = 3;

/// Who is to die.
const DEPOSITOR: &str = "depositor";
const RECEIVER: &str = "receiver";
const BROKER: &str = "broker";

/// The points in one file of the sources, or in all but that one.
fn points(of_broker: bool) -> BTreeSet<String> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mp-shm/src/fds");
    let mut points = BTreeSet::new();
    for file in std::fs::read_dir(sources).unwrap() {
        let path = file.unwrap().path();
        if of_broker == path.ends_with("broker.rs") {
            let text = std::fs::read_to_string(path).unwrap();
            let named = text.split("crash::point(\"").skip(1).filter_map(|part| part.split('"').next());
            points.extend(named.map(str::to_owned));
        }
    }
    assert!(points.len() > 3, "the sources name their points: {points:?}");
    points
}

#[test]
fn b4_b8_a_kill_at_every_crash_point_of_descriptors_harms_nobody_else() {
    let _watchdog = watchdog(LONG);
    if let Ok(stage) = std::env::var(STAGE) {
        let words: Vec<&str> = stage.split(' ').collect();
        play(words[0], words[1], words[2]);
        return;
    }
    let mut never = Vec::new();
    for (of_broker, roles) in [(false, [DEPOSITOR, RECEIVER].as_slice()), (true, [BROKER].as_slice())] {
        for point in points(of_broker) {
            for nth in ["1", "2"] {
                let reached: Vec<bool> = roles.iter().map(|role| stage(&point, nth, role)).collect();
                println!("{point}:{nth}: {roles:?} {reached:?}");
                if !reached.contains(&true) {
                    never.push(format!("{point}:{nth}"));
                }
            }
        }
    }
    assert!(never.is_empty(), "never passed: {never:?}");
}

/// Has a process with a session of its own play it; whether the victim came to its point.
fn stage(point: &str, nth: &str, role: &str) -> bool {
    let process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture", "--test-threads=1"])
        .env(STAGE, format!("{point} {nth} {role}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success(), "{point}:{nth} in the {role}: {output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let line = said.lines().find_map(|line| line.strip_prefix("played ")).unwrap();
    let (session, reached) = line.split_once(' ').unwrap();
    // The stage was the last of its session.
    proc::until(|| brokers(session).is_empty());
    reached == "true"
}

/// The brokers of a session that have not ended.
fn brokers(session: &str) -> Vec<u32> {
    let wanted = format!("multiproc-fds\0{session}\0");
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_one =
        |pid: &u32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == wanted.as_bytes());
    pids.filter(is_one).filter(|&pid| !proc::has_ended(pid)).collect()
}

fn status() -> fds::BrokerStatus {
    fds::status(Session::current().unwrap()).unwrap().unwrap()
}

fn kill(pid: u32) {
    let raw = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(raw, rustix::process::Signal::KILL).unwrap();
    proc::until(|| proc::has_ended(pid));
}

fn is_stopped(pid: u32) -> bool {
    Task::leader(pid).state() == Some('T')
}

/// The writing end of the stage's pipe, once more.
fn writing_end(path: &str) -> OwnedFd {
    File::options().write(true).open(path).unwrap().into()
}

fn deposit_again_and_again((path, fds): (String, Sender<Fd>)) {
    for round in 1..=ROUNDS {
        fds.try_send(Fd::new(writing_end(&path)).unwrap()).unwrap();
        if round < ROUNDS {
            // The next one has to start another.
            kill(status().pid);
        }
    }
}

fn receive_again_and_again(fds: Receiver<Fd>) {
    for _ in 0..ROUNDS {
        drop(fds.recv().unwrap().open().unwrap());
    }
}

/// Starts the broker, and stays.
fn deposit_and_open((path, fds): (String, Sender<Fd>)) {
    let fd = Fd::new(writing_end(&path)).unwrap();
    drop(fd.open().unwrap());
    fds.try_send(fd).unwrap();
    loop {
        std::thread::park();
    }
}

fn survive((path, fds): (String, Sender<Fd>)) {
    let deposit = || {
        let fd = Fd::new(writing_end(&path)).unwrap();
        fd.open().map(|_| fd)
    };
    // At most one broker dies after it has taken the deposit.
    let deposited = deposit().or_else(|error| if error.is_lost() { deposit() } else { Err(error) });
    fds.try_send(deposited.unwrap()).unwrap();
}

fn write_to((fd, text): (Fd, String)) {
    PipeWriter::from(fd.open().unwrap()).write_all(text.as_bytes()).unwrap();
}

/// Starts a victim that stops at a point, or the brokers that it starts do.
fn armed<R: mp_shm::Message + 'static>(
    point: &str,
    nth: &str,
    start: impl FnOnce() -> Process<R>,
) -> Process<R> {
    // SAFETY: no other thread of this process reads or writes the environment: the one test here runs alone.
    unsafe { std::env::set_var("MP_CRASH", format!("{point}:{nth}:stop")) };
    let victim = start();
    // SAFETY: as above.
    unsafe { std::env::remove_var("MP_CRASH") };
    victim
}

fn play(point: &str, nth: &str, role: &str) {
    let leaks = LeakCheck::begin();
    // Passes a first point, so that this process reads the variable before any child is given it.
    drop(channel::<u64>(1).unwrap());
    let (mut reader, writer) = std::io::pipe().unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), writer.as_raw_fd());
    let (victims, of_victims) = channel::<Fd>(ROUNDS).unwrap();
    let (survivors, of_survivors) = channel::<Fd>(1).unwrap();
    let session = Session::current().unwrap().number().to_string();
    let stopped_broker = || brokers(&session).into_iter().find(|&pid| is_stopped(pid));

    let victim = match role {
        DEPOSITOR => armed(point, nth, || {
            Process::spawn(deposit_again_and_again, (path.clone(), victims.clone())).unwrap()
        }),
        RECEIVER => {
            (0..ROUNDS).for_each(|_| victims.try_send(Fd::of(&writer).unwrap()).unwrap());
            armed(point, nth, || Process::spawn(receive_again_and_again, of_victims.clone()).unwrap())
        }
        _ => armed(point, nth, || Process::spawn(deposit_and_open, (path.clone(), victims.clone())).unwrap()),
    };
    let survive = || Process::spawn(survive, (path.clone(), survivors.clone())).unwrap();
    let mut broker = None;
    let mut survivor = None;
    if role == BROKER {
        proc::until(|| {
            broker = stopped_broker();
            broker.is_some() || !of_victims.is_empty()
        });
        // What does not stop it at the one who started it may do so at the next.
        let next = survivor.insert(survive());
        proc::until(|| {
            broker = stopped_broker();
            broker.is_some() || next.is_finished()
        });
    } else {
        proc::until(|| is_stopped(victim.pid()) || victim.is_finished());
    }
    let reached = broker.is_some() || is_stopped(victim.pid());
    if reached {
        let survivor = survivor.get_or_insert_with(survive);
        let _it_waits_for_the_victim = Task::leader(survivor.pid()).wait_until_blocked_or_ended();
    }
    // First of all who would start further brokers that stop.
    if reached || role == BROKER {
        victim.kill().unwrap();
        assert_eq!(victim.join().unwrap_err().signal(), Some(9));
    } else {
        victim.join().unwrap();
    }
    broker.into_iter().for_each(kill);
    let mut left: Vec<Fd> = of_victims.try_iter().collect();
    if let Some(survivor) = survivor {
        survivor.join().unwrap();
        let fd = of_survivors.try_recv().unwrap();
        assert!(role == BROKER || fd.open().is_ok(), "no broker died since");
        left.push(fd);
    }

    let mine = Fd::of(&writer).unwrap();
    Process::spawn(write_to, (mine.clone(), "here".to_owned())).unwrap().join().unwrap();
    let mut text = [0; 4];
    reader.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"here");
    // What victim and survivor left in the channels is whole, or went with a broker.
    let is_held = |fd: &&Fd| match fd.open() {
        Ok(_) => true,
        Err(error) if error.is_lost() && role != RECEIVER => false,
        Err(error) => panic!("{error}: {error:?}"),
    };
    let held = 1 + u32::try_from(left.iter().filter(is_held).count()).unwrap();
    proc::until(|| status().held == held);
    drop((mine, left));
    proc::until(|| status().held == 0);
    drop((victims, of_victims, survivors, of_survivors, writer));
    ends(&reader);
    drop(reader);
    leaks.end();
    assert_no_backstop();
    println!("\nplayed {session} {reached}");
}

/// Waits until nobody has the writing end any more: less long than the broker's heartbeat, by which it would notice anything.
fn ends(reader: &PipeReader) {
    let soon = Deadline::after(Duration::from_secs(40));
    assert!(poll_one(reader, Interest::Read, Some(soon)).unwrap(), "somebody still has the writing end");
    assert_eq!((&*reader).read(&mut [0]).unwrap(), 0);
}
