//! Second processes of the contestants that are not this library: this program again, started with hidden arguments.
//!
//! ```text
//! bench --second ROLE SIZE WARM_UP TOTAL NUMBER CPU SPINS WORD...       WORD: where to meet, a name or inherited descriptors
//!
//! first process            second process
//! start          ─────▶    opens what it is to use
//! `meet`         ◀─────    "ready", a line on its standard output
//!                ─────▶    "go", a line on its standard input
//!   both work
//! `join`         ◀─────    what it found, a line, and its end
//! ```
#![expect(unsafe_code, reason = "takes over inherited descriptors")]

use crate::machine::{Pinned, move_to};
use crate::measure::Plan;
use crate::{Outcome, channels, pool, raw_zygote};
use rustix::io::{FdFlags, dup, fcntl_setfd};
use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write, stdin};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// The argument that makes the program a second process.
pub const SECOND: &str = "--second";

/// How often a side of a raw limit looks before it sleeps or gives its CPU away, when it has a CPU of its own.
const SPINS: u32 = 2000;

/// What a second process is told.
#[derive(Clone)]
pub struct Job {
    /// What it does; one of the names in [`channels::roles`], [`pool::roles`] and [`raw_zygote::ROLES`].
    pub role: String,
    /// Bytes of a message.
    pub size: usize,
    /// Messages before the clock.
    pub warm_up: u32,
    /// All messages that it handles.
    pub total: u32,
    /// Which of several like it, from 0.
    pub number: u32,
    /// Where it runs.
    pub cpu: Option<u32>,
    /// How often to look before sleeping or giving the CPU away.
    pub spins: u32,
    /// Where to meet: a name, or the numbers of inherited descriptors.
    pub words: Vec<String>,
}

impl Job {
    /// Handling all messages of `plan`, on the second CPU.
    #[must_use]
    pub fn new(role: &str, size: usize, plan: &Plan, pinned: &Pinned) -> Self {
        Self { cpu: pinned.second(), spins: spins(pinned), ..Self::anywhere(role, size, plan) }
    }

    /// Handling all messages of `plan`, on whatever CPU the kernel gives it.
    #[must_use]
    pub fn anywhere(role: &str, size: usize, plan: &Plan) -> Self {
        Self {
            role: role.to_owned(),
            size,
            warm_up: plan.warm_up,
            total: plan.total(),
            number: 0,
            cpu: None,
            spins: 0,
            words: vec![],
        }
    }

    /// All round trips of `plan`, those timed singly included.
    #[must_use]
    pub fn trips(role: &str, size: usize, plan: &Plan, pinned: &Pinned) -> Self {
        Self { total: plan.trips(), ..Self::new(role, size, plan, pinned) }
    }

    /// With a place to meet.
    #[must_use]
    pub fn at(mut self, word: impl Into<String>) -> Self {
        self.words.push(word.into());
        self
    }

    /// Word `place`.
    ///
    /// # Errors
    /// When there is none.
    pub fn word(&self, place: usize) -> Outcome<&str> {
        Ok(self.words.get(place).ok_or("a word is missing")?)
    }

    /// The inherited descriptor whose number is word `place`; to be called once for each.
    ///
    /// # Errors
    /// When there is none.
    pub fn descriptor(&self, place: usize) -> Outcome<OwnedFd> {
        let number: RawFd = self.word(place)?.parse()?;
        // SAFETY: the first process left this descriptor open for this process, nothing else here knows its number, and each
        // word is taken once; see `Second::start`.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    }

    /// Says that this process is ready and waits for the word to begin.
    ///
    /// # Errors
    /// When the first process is gone.
    pub fn meet(&self) -> Outcome<()> {
        println!("ready");
        let mut line = String::new();
        stdin().lock().read_line(&mut line)?;
        if line == "go\n" { Ok(()) } else { Err("the first process is gone".into()) }
    }

    /// Waits until the first process has what it wants of all others, for a process in whose memory messages lie.
    ///
    /// # Errors
    /// When standard input cannot be read.
    pub fn wait_end(&self) -> Outcome<()> {
        stdin().lock().read_line(&mut String::new())?;
        Ok(())
    }
}

/// How often to look when the other side has a CPU of its own.
#[must_use]
pub fn spins(pinned: &Pinned) -> u32 {
    pinned.second().map_or(0, |_| SPINS)
}

/// What a second process found.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Found {
    /// Messages that were right.
    pub right: u32,
    /// The sum of their marks, where senders are many.
    pub marks: u64,
    /// The time from behind the warm-up to the end.
    pub time: Duration,
}

impl Found {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let right = words.next()?.parse().ok()?;
        let marks = words.next()?.parse().ok()?;
        let time = Duration::from_nanos(words.next()?.parse().ok()?);
        Some(Self { right, marks, time })
    }

    fn line(&self) -> String {
        format!("{} {} {}", self.right, self.marks, self.time.as_nanos())
    }
}

/// A second process that is killed, should this one fail in between.
pub struct Second {
    child: Child,
    told: BufReader<ChildStdout>,
    total: u32,
}

impl Second {
    /// Starts this program again with `job`, and with `descriptors` open in it, whose numbers become the job's last words.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut job: Job, descriptors: &[BorrowedFd<'_>]) -> Outcome<Self> {
        let inherited = descriptors.iter().map(dup).collect::<Result<Vec<_>, _>>()?;
        for descriptor in &inherited {
            fcntl_setfd(descriptor, FdFlags::empty())?;
            job.words.push(descriptor.as_raw_fd().to_string());
        }
        let numbers = [job.warm_up, job.total, job.number, job.cpu.map_or(0, |cpu| cpu + 1), job.spins];
        let mut child = Command::new(env::current_exe()?)
            .args([SECOND, &job.role, &job.size.to_string()])
            .args(numbers.map(|number| number.to_string()))
            .args(&job.words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let told = BufReader::new(child.stdout.take().ok_or("no pipe")?);
        Ok(Self { child, told, total: job.total })
    }

    fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        self.told.read_line(&mut line)?;
        Ok(line)
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// When it ended.
    pub fn ready(&mut self) -> Outcome<()> {
        if self.line()? == "ready\n" { Ok(()) } else { Err("the second process failed".into()) }
    }

    /// Lets it begin.
    ///
    /// # Errors
    /// When it ended.
    pub fn go(&mut self) -> Outcome<()> {
        Ok(self.child.stdin.as_mut().ok_or("no pipe")?.write_all(b"go\n")?)
    }

    /// Waits until it is ready, and lets it begin.
    ///
    /// # Errors
    /// When it ended.
    pub fn meet(&mut self) -> Outcome<()> {
        self.ready()?;
        self.go()
    }

    /// Waits for what it found and for its end.
    ///
    /// # Errors
    /// When it failed, or not all messages were right.
    pub fn join(mut self) -> Outcome<Found> {
        let found = Found::parse(&self.line()?).ok_or("the second process failed")?;
        let status = self.child.wait()?;
        if !status.success() {
            return Err(format!("the second process ended with {status}").into());
        }
        check(found.right, self.total)?;
        Ok(found)
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        // After `join` both do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Fails unless all messages were right.
///
/// # Errors
/// Then.
pub fn check(right: u32, total: u32) -> Outcome<()> {
    if right == total { Ok(()) } else { Err(format!("{right} of {total} messages were right").into()) }
}

/// Runs processes together: waits until all are ready, lets them begin, and gives the time until the last consumer has told what it
/// found. Checks that the marks of the messages that came are those of `expected`.
///
/// # Errors
/// When one fails, or a message is wrong.
pub fn together(mut consumers: Vec<Second>, mut producers: Vec<Second>, expected: u64) -> Outcome<Duration> {
    consumers.iter_mut().chain(&mut producers).try_for_each(Second::ready)?;
    let start = Instant::now();
    consumers.iter_mut().chain(&mut producers).try_for_each(Second::go)?;
    let mut marks = 0_u64;
    for one in consumers {
        marks = marks.wrapping_add(one.join()?.marks);
    }
    let time = start.elapsed();
    for mut one in producers {
        // See `Job::wait_end`.
        one.child.stdin = None;
        one.join()?;
    }
    if marks == expected { Ok(time) } else { Err("some messages came twice and others not at all".into()) }
}

/// The job in `arguments`, those behind [`SECOND`].
fn job(mut arguments: impl Iterator<Item = OsString>) -> Option<Job> {
    let mut word = || arguments.next()?.into_string().ok();
    let role = word()?;
    let size = word()?.parse().ok()?;
    let mut number = || word()?.parse::<u32>().ok();
    Some(Job {
        role,
        size,
        warm_up: number()?,
        total: number()?,
        number: number()?,
        cpu: number()?.checked_sub(1),
        spins: number()?,
        words: std::iter::from_fn(word).collect(),
    })
}

/// The second process: its whole work.
///
/// # Errors
/// When the arguments are not those of [`SECOND`], or its work fails.
pub fn run(arguments: impl Iterator<Item = OsString>) -> Outcome<()> {
    let job = job(arguments).ok_or("arguments that no second process has")?;
    let mut roles = channels::roles().chain(pool::roles()).chain(raw_zygote::ROLES.iter().copied());
    let work = roles.find(|(name, _)| *name == job.role).ok_or("no such role")?.1;
    move_to(job.cpu);
    println!("{}", work(&job)?.line());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_told_whole() {
        let found = Found { right: 7, marks: u64::MAX, time: Duration::from_nanos(12_345_678_901) };
        assert_eq!(Found::parse(&found.line()), Some(found));
        assert_eq!(Found::parse("ready"), None);
    }

    #[test]
    fn a_job_is_read_as_it_was_written() {
        let line = "raw_ring/consume 64 1 10 3 2 2000 name 7";
        let job = job(line.split(' ').map(OsString::from)).expect("a job");
        assert_eq!((job.role.as_str(), job.size, job.warm_up, job.total), ("raw_ring/consume", 64, 1, 10));
        assert_eq!((job.number, job.cpu, job.spins), (3, Some(1), 2000));
        assert_eq!(job.words, ["name", "7"]);
    }
}
