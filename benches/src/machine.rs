//! The machine: which CPUs to run on, CPU time used, and what the record says about where it ran.

use crate::Outcome;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use std::fs;
use std::process::Command;
use std::time::Duration;

/// How many CPUs this process may use.
///
/// # Errors
/// When the kernel does not tell.
pub fn cpus() -> Outcome<u32> {
    Ok(sched_getaffinity(None)?.count())
}

/// Puts the calling thread on CPU number `cpu`.
fn only(cpu: usize) -> rustix::io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set)
}

/// The calling thread stays on the first CPU until this is dropped; children start there.
pub struct Pinned {
    before: CpuSet,
    first: u32,
    second: Option<u32>,
}

impl Pinned {
    /// Pins the calling thread to the first CPU that it may use.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn to_first() -> Outcome<Self> {
        let before = sched_getaffinity(None)?;
        let mut allowed = (0..CpuSet::MAX_CPU).filter(|&cpu| before.is_set(cpu));
        let first = allowed.next().ok_or("no CPU to run on")?;
        only(first)?;
        let second = allowed.next();
        Ok(Self { before, first: first.try_into()?, second: second.map(u32::try_from).transpose()? })
    }

    /// The CPU that this thread is on.
    #[must_use]
    pub fn first(&self) -> u32 {
        self.first
    }

    /// The CPU for the other process, if there is a second one; see [`move_to`].
    #[must_use]
    pub fn second(&self) -> Option<u32> {
        self.second
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // The set was valid a moment ago; if a CPU went away, staying pinned is all that is left.
        let _ = sched_setaffinity(None, &self.before);
    }
}

/// Moves the calling thread of the other process to the CPU that [`Pinned::second`] named.
/// It cannot fail a measurement: on a CPU taken away meanwhile the figures show it.
pub fn move_to(cpu: Option<u32>) {
    if let Some(cpu) = cpu.and_then(|cpu| usize::try_from(cpu).ok()) {
        let _ = only(cpu);
    }
}

/// CPU time of this process (to the nanosecond) and of its children that have ended and been waited
/// for (to the clock tick, 10 ms as a rule, on the sum).
///
/// # Errors
/// When `/proc` is not there or does not read as documented.
pub fn cpu_time() -> Outcome<Duration> {
    let own = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime))?;
    let stat = fs::read_to_string("/proc/self/stat")?;
    Ok(own + children(&stat).ok_or("/proc/self/stat does not read as documented")?)
}

/// User and system time of waited-for children, fields 16 and 17 of a stat line.
fn children(stat: &str) -> Option<Duration> {
    // The name in brackets may hold blanks and brackets; the field after the last one is number 3.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(13);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    let tick = Duration::from_nanos(1_000_000_000_u64.checked_div(rustix::param::clock_ticks_per_second())?);
    Some(tick * user.checked_add(system)?)
}

/// The first line that `program` prints, if it runs and succeeds.
fn line_of(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// What the record says about where the figures come from; what cannot be found out is null.
///
/// # Errors
/// When the kernel does not tell the CPUs.
pub fn describe() -> Outcome<Value> {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(':'));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").ok();
    Ok(json!({
        "cpu": model.map(|(_, name)| name.trim()),
        "cpus": cpus()?,
        "kernel": kernel.as_deref().map(str::trim),
        "rustc": line_of("rustc", &["-V"]),
        "commit": line_of("git", &["rev-parse", "HEAD"]),
        "optimised": !cfg!(debug_assertions),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn child_times_are_read_behind_a_strange_name() {
        let line = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 50 25 20 0";
        let tick = 1_000_000_000 / rustix::param::clock_ticks_per_second();
        assert_eq!(children(line), Some(Duration::from_nanos(75 * tick)));
        assert_eq!(children("7 (a) S 1 2"), None);
    }

    #[test]
    fn cpu_time_never_runs_backwards() -> Outcome<()> {
        let before = cpu_time()?;
        assert!(cpu_time()? >= before);
        Ok(())
    }
}
