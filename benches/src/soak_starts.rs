//! Processes started and killed at random: `starts`.
//!
//! ```text
//! this process ── starts ─► a parent ── starts, by both methods ─► children, which return, exit, panic, abort or wait
//!      └─ kills it sometimes       └─ kills some of them, and the fork server, at random moments
//! ```
//!
//! What is checked: every status is the one that the child was to have, or that of its kill; a parent is left with no child, zombie or not, and
//! with the descriptors that it had; when a parent dies, all its children and its fork server do.

use multiproc::{ForkServer, JoinError, Process, Sender, StartMethod, channel};
use serde_json::{Value, json};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The name of this soak.
pub const NAME: &str = "starts";

/// Starts of one parent.
const STARTS: u64 = 40;
/// No end of a parent, or of what it leaves, for so long is one that does not come.
const STUCK: Duration = Duration::from_secs(60);

/// What a parent tells: starts, kills of children, kills of its server, starts that failed for these, what was wrong.
type Told = (u64, u64, u64, u64, Vec<String>);

/// How a child is to end.
fn end((how, _lives): (u64, Sender<u32>)) -> u64 {
    match how % 5 {
        0 => std::process::exit(40),
        1 => panic!("on purpose"),
        2 => std::process::abort(),
        3 => loop {
            thread::park();
        },
        _ => how,
    }
}

fn is_right(how: u64, was_killed: bool, joined: &Result<u64, JoinError>) -> bool {
    if was_killed && joined.as_ref().is_err_and(|error| error.signal() == Some(9)) {
        return true;
    }
    match (how % 5, joined) {
        (0, Err(JoinError::Exited(40))) => true,
        (1, Err(JoinError::Panicked(panic))) => panic.message == "on purpose",
        (2, Err(error)) => error.signal() == Some(6),
        (4, Ok(value)) => *value == how,
        _ => false,
    }
}

pub(crate) fn children() -> usize {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .map(|text| text.split_whitespace().count())
        .sum()
}

pub(crate) fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").into_iter().flatten().count()
}

fn spin(random: &mut fastrand::Rng) {
    let until = Instant::now() + Duration::from_micros(random.u64(..1500));
    while Instant::now() < until {
        thread::yield_now();
    }
}

/// Starts and ends children. `lives` says which fork server there is, and ends with the last process that holds it.
fn parent((seed, lives): (u64, Sender<u32>)) -> Result<Told, String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let (before, server) = (descriptors(), ForkServer::new());
    let stop = AtomicBool::new(false);
    let mut told: Told = (0, 0, 0, 0, Vec::new());
    thread::scope(|scope| {
        let (server, stop) = (&server, &stop);
        let killer_seed = random.u64(..);
        let killer = scope.spawn(move || {
            let mut random = fastrand::Rng::with_seed(killer_seed);
            let (mut kills, mut last) = (0, None);
            while !stop.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_micros(random.u64(1000..20_000)));
                let pid = server.pid().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
                if let Some(pid) = pid.filter(|pid| last != Some(*pid)) {
                    // A child of ours that only the server's handle reaps, when it starts another: the id is its own until then.
                    last = Some(pid);
                    kills +=
                        u64::from(rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok());
                }
            }
            kills
        });
        for number in 0..STARTS {
            let method = if random.bool() { StartMethod::Spawn } else { StartMethod::ForkServer };
            let builder = Process::builder().daemon(true).fork_server(server).start_method(method);
            let how = number * 5 + random.u64(..5);
            let child = match builder.stderr(multiproc::Stdio::Null).spawn(end, (how, lives.clone())) {
                Ok(child) => child,
                Err(_) if method == StartMethod::ForkServer => {
                    told.3 += 1;
                    continue;
                }
                Err(error) => {
                    told.4.push(format!("a start failed: {error}"));
                    continue;
                }
            };
            told.0 += 1;
            if let Some(pid) = server.pid() {
                // Nobody reads all of these; the last one is of interest.
                let _ = lives.try_send(pid);
            }
            let kills = how % 5 == 3 || random.u32(..3) == 0;
            if kills {
                spin(&mut random);
                told.1 += 1;
                let _ = child.kill();
            }
            let joined = child.join();
            if !is_right(how, kills, &joined) {
                told.4.push(format!("{method}, {how}, killed {kills}: {joined:?}"));
            }
        }
        stop.store(true, Ordering::Relaxed);
        told.2 = killer.join().unwrap_or(0);
    });
    server.end();
    drop(server);
    let left = children();
    if left != 0 {
        told.4.push(format!("{left} children are left"));
    }
    if descriptors() > before + 1 {
        told.4.push(format!("{before} descriptors have become {}", descriptors()));
    }
    Ok(told)
}

fn has_ended(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

/// Runs the soak, if it is this one; a "kill" is the kill of any process.
pub fn soak(name: &str, time: Duration, kills_max: u64, seed: u64) -> Option<multiproc::Result<Value>> {
    (name == NAME).then(|| run(time, kills_max, seed))
}

fn run(time: Duration, kills_max: u64, seed: u64) -> multiproc::Result<Value> {
    let mut random = fastrand::Rng::with_seed(seed);
    let start = Instant::now();
    let mut broken: Vec<String> = Vec::new();
    let (mut starts, mut kills, mut server_kills, mut refused, mut parents, mut killed_parents) =
        (0, 0, 0, 0, 0_u64, 0_u64);
    let mut longest = Duration::ZERO;
    while start.elapsed() < time && kills + server_kills + killed_parents < kills_max && broken.is_empty() {
        let (lives, all) = channel::<u32>(256)?;
        let mut child = Process::spawn(parent, (random.u64(..), lives))?;
        parents += 1;
        if random.u32(..4) == 0 {
            thread::sleep(Duration::from_micros(random.u64(..60_000)));
            child.kill()?;
            killed_parents += 1;
        }
        let Some(joined) = child.join_timeout(STUCK) else {
            broken.push(format!("a parent does not end: {}", child.pid()));
            break;
        };
        let ended = Instant::now();
        match joined {
            Ok(Ok((started, killed, servers, failed, wrong))) => {
                starts += started;
                kills += killed;
                server_kills += servers;
                refused += failed;
                broken.extend(wrong);
            }
            Ok(Err(text)) => broken.push(text),
            Err(error) if error.signal() == Some(9) => {}
            Err(error) => broken.push(format!("a parent: {error}")),
        }
        // The last of its children is gone when this ends.
        let mut servers = Vec::new();
        let gone = loop {
            match all.recv_timeout(STUCK) {
                Ok(pid) => servers.push(pid),
                Err(error) => break error.is_disconnected(),
            }
        };
        if !gone {
            broken.push(String::from("a child outlives its parent"));
        }
        while servers.last().is_some_and(|pid| !has_ended(*pid)) {
            if ended.elapsed() > STUCK {
                broken.push(String::from("a fork server outlives its parent"));
                break;
            }
            thread::yield_now();
        }
        longest = longest.max(ended.elapsed());
    }
    Ok(json!({
        "name": NAME, "seed": seed, "seconds": start.elapsed().as_secs(), "parents": parents, "killed_parents": killed_parents,
        "starts": starts, "kills": kills, "killed_servers": server_kills, "refused_while_servers_died": refused,
        "longest_end_of_what_a_parent_left_ms": u64::try_from(longest.as_millis()).unwrap_or(u64::MAX), "broken": broken,
    }))
}
