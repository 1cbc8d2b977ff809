//! What becomes of children when the program ends, and who they are to each other.
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, Sender, channel};
use mp_spawn::{Ended, Process, active_children, current, parent};
use mp_testkit::{proc, watchdog};
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);
const PART: &str = "MP_SPAWN_EXIT_PART";

/// This test again, in a process of its own whose end can be looked at; it does what the part of the test for this name does.
fn apart(test: &str, part: &str) -> std::process::Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let command = command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(PART, part);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

fn part() -> Option<String> {
    std::env::var(PART).ok()
}

/// The numbers that a part prints on a line of its own, behind `pids`.
fn pids(output: &mut impl BufRead) -> Vec<u32> {
    let line = output.lines().map(Result::unwrap).find(|line| line.contains("pids ")).unwrap();
    line.split("pids ").nth(1).unwrap().split(' ').map(|pid| pid.parse().unwrap()).collect()
}

/// Tells that it runs, and then does nothing.
fn idle(runs: Sender<u32>) {
    runs.send(std::process::id()).unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn a13_daemons_die_with_their_parent_whatever_ends_it() {
    let _watchdog = watchdog(LONG);
    if let Some(part) = part() {
        let (sender, receiver) = channel(2).unwrap();
        let builder = Process::builder().daemon(true);
        let first = builder.spawn(idle, sender.clone()).unwrap();
        // The thread that starts it ends long before the process.
        let second = std::thread::spawn(move || builder.spawn(idle, sender).unwrap()).join().unwrap();
        receiver.recv().unwrap();
        receiver.recv().unwrap();
        println!("\npids {} {}", first.pid(), second.pid());
        match part.as_str() {
            "exit" => std::process::exit(0),
            "abort" => std::process::abort(),
            // Until it is killed.
            _ => loop {
                std::thread::park();
            },
        }
    }
    for how in ["exit", "abort", "kill"] {
        let mut program = apart("a13_daemons_die_with_their_parent_whatever_ends_it", how);
        let mut output = BufReader::new(program.stdout.take().unwrap());
        let daemons = pids(&mut output);
        assert_eq!(daemons.len(), 2);
        if how == "kill" {
            program.kill().unwrap();
        }
        program.wait().unwrap();
        let dead = Instant::now();
        for pid in daemons {
            proc::until(|| proc::has_ended(pid));
        }
        println!("{how}: {:?} after the parent", dead.elapsed());
    }
}

#[test]
fn a13_a_daemon_whose_parent_dies_before_it_has_its_job_dies_too() {
    let _watchdog = watchdog(LONG);
    if part().is_some() {
        // Stopped by nothing: the parent is gone by the time the child has come as far as its hook, or soon after.
        let (sender, _receiver) = channel(1).unwrap();
        let daemon = Process::builder().daemon(true).spawn(idle, sender).unwrap();
        println!("\npids {}", daemon.pid());
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
    }
    for _ in 0..20 {
        let mut program = apart("a13_a_daemon_whose_parent_dies_before_it_has_its_job_dies_too", "kill");
        let mut output = BufReader::new(program.stdout.take().unwrap());
        let daemons = pids(&mut output);
        program.wait().unwrap();
        proc::until(|| proc::has_ended(daemons[0]));
    }
}

/// Waits for its input to end, then says something.
fn late(name: String) {
    let mut all = Vec::new();
    std::io::stdin().read_to_end(&mut all).unwrap();
    println!("\n{name} was waited for");
}

#[test]
fn a13_others_are_waited_for_at_the_end_of_the_program() {
    let _watchdog = watchdog(LONG);
    if let Some(part) = part() {
        let child = Process::spawn(late, part.clone()).unwrap();
        println!("\npids {}", child.pid());
        match part.as_str() {
            "dropped" => drop(child),
            "detached" => child.detach(),
            _ => std::mem::forget(child),
        }
        std::process::exit(3);
    }
    for how in ["kept", "dropped", "detached"] {
        let mut program = apart("a13_others_are_waited_for_at_the_end_of_the_program", how);
        let mut output = BufReader::new(program.stdout.take().unwrap());
        let child = pids(&mut output)[0];
        let input = program.stdin.take().unwrap();
        if how == "detached" {
            assert_eq!(program.wait().unwrap().code(), Some(3));
            assert!(!proc::has_ended(child), "it runs on");
        } else {
            let task = proc::Task::leader(program.id());
            task.wait_until_blocked();
            assert_eq!(program.try_wait().unwrap(), None, "{how}: the program waits");
        }
        drop(input);
        let mut said = String::new();
        output.read_to_string(&mut said).unwrap();
        assert!(said.contains("was waited for"), "{how}: {said}");
        assert_eq!(program.wait().unwrap().code(), Some(3));
        proc::until(|| proc::has_ended(child));
    }
}

#[test]
fn a12_the_children_that_run_are_known() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel(1).unwrap();
    let named = Process::builder().name("one of the running").spawn(idle, sender).unwrap();
    assert_eq!(receiver.recv().unwrap(), named.pid());
    let found = |pid: u32| active_children().into_iter().find(|child| child.pid() == pid);
    let child = found(named.pid()).unwrap();
    assert_eq!((child.name(), child.id()), ("one of the running", named.id()));
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap(), Ended::Killed { signal: 9, core_dumped: false });
    assert!(found(child.pid()).is_none());
    assert_eq!(named.join().unwrap_err().signal(), Some(9));
    assert_eq!(child.status().unwrap(), Some(Ended::Killed { signal: 9, core_dumped: false }));
}

/// What a process knows of its parent, and its child of it.
fn generations(depth: u32) -> Vec<(u32, Option<u32>, bool)> {
    let above = parent().unwrap();
    let found =
        (current().pid(), above.as_ref().map(mp_spawn::Parent::pid), above.is_some_and(|p| p.is_finished()));
    let mut all = vec![found];
    if depth > 0 {
        all.extend(Process::spawn(generations, depth - 1).unwrap().join().unwrap());
    }
    all
}

#[test]
fn a9_each_generation_knows_its_parent() {
    let _watchdog = watchdog(LONG);
    assert!(parent().unwrap().is_none());
    let all = Process::spawn(generations, 2).unwrap().join().unwrap();
    let mut above = std::process::id();
    for (pid, parent, is_finished) in all {
        assert_eq!((parent, is_finished), (Some(above), false));
        above = pid;
    }
}

/// Outlives its parent, and tells what it then knows of it.
fn orphan((told, go): (Sender<(bool, bool)>, Receiver<()>)) {
    let before = parent().unwrap().unwrap();
    // Ends with the parent, who has the other end.
    assert!(go.recv().is_err());
    while !before.wait_timeout(LONG).unwrap() {}
    let after = parent().unwrap().unwrap();
    told.send((before.is_finished(), after.is_finished() && after.pid() == before.pid())).unwrap();
}

#[test]
fn a13_the_death_of_a_parent_can_be_seen() {
    let _watchdog = watchdog(LONG);
    let (told, answer) = channel(1).unwrap();
    let start = |told: Sender<(bool, bool)>| {
        let (_keeps, go) = channel(1).unwrap();
        let child = Process::spawn(orphan, (told, go)).unwrap();
        child.detach();
        // Not before the child has asked for its parent.
        proc::Task::leader(child.pid()).wait_until_blocked();
        std::process::exit(0);
    };
    let between: Process<()> = Process::spawn(start, told).unwrap();
    assert!(between.join().is_err());
    assert_eq!(answer.recv().unwrap(), (true, true));
}
