//! SIGKILL at every crash point of zygotes, in the requester, the zygote and the new process: a request either gives a process that does
//! its job once, or none; whoever is left goes on, and nothing stays behind.
//!
//! Build with `RUSTFLAGS="--cfg mp_crash"`. The points are read from the sources, so a new one is covered by being there. Each victim is
//! killed at its point at once, and also stopped there before, so that the others come as far as they can in between.
#![cfg(mp_crash)]
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "a constructor")]

mod zygote_roles;

use mp_sys::process::{Child, Ended};
use mp_sys::zygote::Request;
use mp_testkit::proc::{self, Task};
use mp_testkit::watchdog;
use rustix::process::{Signal, WaitId, WaitIdOptions, waitid};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd};
use std::path::Path;
use std::time::Duration;
use zygote_roles::{send, soon, start_role, zygote};

const LONG: Duration = Duration::from_secs(170);
const KILLED: Ended = Ended::Killed { signal: 9, core_dumped: false };
/// Requests that are made: the second one passes each point again, the third one finds who is dead.
const ROUNDS: usize = 3;

/// The points in one file of the sources.
fn points(file: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/zygote").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let named = text.split("crash::point(\"").skip(1).filter_map(|part| part.split('"').next());
    let points: Vec<String> = named.map(str::to_owned).collect();
    assert!(points.len() >= 3, "the sources name their points: {points:?}");
    points
}

fn prepare(_: &str) {}

/// The job: it leaves a mark.
fn job(request: io::Result<Request>) -> i32 {
    let request = request.unwrap();
    std::fs::File::from(request.fds[0].try_clone().unwrap()).write_all(b"m").unwrap();
    zygote_roles::job(&request)
}

/// Asks for processes until it is killed, with the descriptor for their marks.
fn be_requester(words: &[&str]) -> i32 {
    // SAFETY: the test passed this descriptor for this alone.
    let marks = unsafe { io::PipeWriter::from_raw_fd(words[0].parse().unwrap()) };
    let (client, _) = zygote("plain", &[]);
    for _ in 0..ROUNDS {
        client.request(b"exit 7", &[marks.as_fd()], soon()).unwrap().reap().unwrap();
    }
    0
}

/// Waits until a process has ended; one that stops at its point is killed there.
fn kill_if_it_stops(pid: u32) {
    let mut state = None;
    proc::until(|| {
        state = Task::leader(pid).state();
        state.is_none_or(|state| matches!(state, 'T' | 'Z' | 'X'))
    });
    if state == Some('T') {
        send(pid, Signal::KILL);
    }
}

fn count(marks: io::PipeReader) -> usize {
    let mut marks = marks;
    let mut bytes = Vec::new();
    marks.read_to_end(&mut bytes).unwrap();
    bytes.len()
}

/// Reaps whoever has been left to this process, until there is nobody any more.
fn reap_orphans() -> usize {
    let mut orphans = 0;
    while waitid(WaitId::All, WaitIdOptions::EXITED).is_ok() {
        orphans += 1;
    }
    orphans
}

/// The zygote, or what it makes, is killed at a point; whether one was.
fn kill_below(crash: &str) -> bool {
    let (marks, marker) = io::pipe().unwrap();
    let (client, pid) = zygote("plain", &[&format!("MP_CRASH={crash}")]);
    let mut killed = false;
    let mut done = 0;
    std::thread::scope(|scope| {
        if crash.ends_with("stop") {
            scope.spawn(move || kill_if_it_stops(pid));
        }
        for _ in 0..ROUNDS {
            match client.request(b"exit 7", &[marker.as_fd()], soon()) {
                Ok(child) => match end(&child) {
                    KILLED => killed = true,
                    ended => {
                        assert_eq!(ended, Ended::Exited(7));
                        done += 1;
                    }
                },
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
                    assert!(Task::leader(pid).state().is_none(), "it is reaped");
                    killed = true;
                }
            }
        }
        drop((client, marker));
    });
    assert_eq!(count(marks), done, "{crash}: who is reported as done has left its mark, and nobody else");
    assert_eq!(reap_orphans(), 0, "{crash}: nothing is left");
    killed
}

fn end(child: &Child) -> Ended {
    kill_if_it_stops(child.pid());
    child.reap().unwrap()
}

/// The requester is killed at a point; whether it was.
fn kill_above(crash: &str) -> bool {
    let (marks, marker) = io::pipe().unwrap();
    let marker = mp_sys::start::above_standard(marker).unwrap();
    let role = format!("requester {}", marker.as_raw_fd());
    let requester = start_role(&role, &[&format!("MP_CRASH={crash}")], &[marker.as_fd()]);
    drop(marker);
    let killed = end(&requester) == KILLED;
    // The zygote, perhaps a process with a job and the next one: they end by themselves, or this waits for ever.
    let orphans = reap_orphans();
    assert!((1..=3).contains(&orphans), "{crash}: {orphans} were left");
    let nth: usize = crash.split(':').nth(1).unwrap().parse().unwrap();
    assert_eq!(count(marks), if crash.contains("sent") { nth } else { nth - 1 }, "{crash}");
    killed
}

#[test]
fn a_kill_at_every_crash_point_of_zygotes_leaves_nothing_and_loses_no_status() {
    let _watchdog = watchdog(LONG);
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let mut never = Vec::new();
    for (file, kill) in [("server.rs", kill_below as fn(&str) -> bool), ("client.rs", kill_above)] {
        for point in points(file) {
            // A new process passes its points once.
            let most = if ["born", "passed"].iter().any(|end| point.ends_with(end)) { 1 } else { 2 };
            for nth in 1..=most {
                for how in ["", ":stop"] {
                    let crash = format!("{point}:{nth}{how}");
                    if !kill(&crash) {
                        never.push(crash);
                    }
                }
            }
        }
    }
    assert!(never.is_empty(), "never passed: {never:?}");
}
