//! Signalling a process and all its descendants, none of which gets away by forking meanwhile.
//!
//! Owns: pidfds of the processes it has stopped, and with them the duty to continue them, whatever happens.
//!
//! ```text
//!   stop the root                                  SIGSTOP
//!   until a look finds nothing new:
//!       wait until all that are known stand        a signal that is pending lets no new fork begin, one that has begun ends first
//!       look for their children; stop each         pidfd first, then its parent is read, then both proved not to be reaped yet
//!   signal and continue each, leaves first         SIGCONT, also if anything above fails; nobody runs again before it has its signal
//! ```
//!
//! Leaves first, because of what the kernel does when a parent ends and its process group becomes an orphan: if a member of the group
//! is stopped, all get SIGHUP. When a parent runs again, nobody below it is stopped.
//!
//! No signal reaches a recycled id: a line of `/proc` that was read after the pidfd was opened, and before the process behind it was
//! reaped, is about this process; so is the parent's id in it, if the parent was not reaped either.
//!
//! Death: a process of the tree that ends at any time is no error. Its children are adopted by others, and those that were not known yet
//! are not found: nothing is left that says whose they were. The same goes for children of a process that was dead before the call. If the
//! caller is killed in between, the tree stays stopped until somebody continues it; it takes milliseconds.
//!
//! Source: fork(2) and `copy_process` (no fork completes past a pending signal that came first), proc_pid_task_children(5) (a
//! list may lack entries if one of those before them is reaped while it is read; then it is read again).

use crate::deadline::Deadline;
use crate::pidfd::{self, Pidfd};
use crate::process::{is_absence, stat_fields};
use rustix::fd::AsRawFd;
use rustix::io::Errno;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

/// What [`signal_tree`] did.
#[derive(Debug, Default)]
pub struct Report {
    /// Those below the root that were signalled, parents before their children. Their ends can be waited for.
    pub descendants: Vec<Pidfd>,
    /// Processes of the tree that this process may not signal, or not see.
    pub refused: Vec<u32>,
    /// Whether the tree stood still when it was looked through for the last time, so that nobody was missed. It is `false` if one was
    /// refused, which may go on forking, or if the tree did not come to rest within ten seconds.
    pub complete: bool,
}

/// Time for the tree to come to rest; it takes as long as its processes wait for a processor.
const REST_PATIENCE: Duration = Duration::from_secs(10);

/// How long a process is waited for whose threads are all stopped, or blocked in the kernel where signals do not wake them. Such is the
/// parent in a `vfork`, whose child is stopped before it lets the parent go on.
const BLOCKED_PATIENCE: Duration = Duration::from_millis(20);

/// Sends `signal` to `root` and all its descendants. They are stopped while they are gathered and continued afterwards, so handlers run
/// and those that were stopped before are not any more. Parents may see SIGCHLD for stopped children.
///
/// Never signalled: the caller, its ancestors, process 1. If the root has ended, nobody is.
///
/// # Errors
/// Then nobody has got the signal and nobody is left stopped; [`Pidfd::kill`] still reaches the root alone.
/// - `Unsupported`: there is no `/proc`, or it is of another pid namespace.
/// - `InvalidInput`: the root is one of those that are never signalled, or the signal has no name or is one that stops.
/// - `PermissionDenied`: the root may not be signalled.
/// - No free descriptor: each process of the tree needs one.
pub fn signal_tree(root: &Pidfd, signal: i32) -> io::Result<Report> {
    let stops = [Signal::STOP, Signal::TSTP, Signal::TTIN, Signal::TTOU];
    let signal =
        Signal::from_named_raw(signal).filter(|signal| !stops.contains(signal)).ok_or(Errno::INVAL)?;
    let spared = own_line()?;
    match shown_pid(root)? {
        None => return Ok(Report { complete: true, ..Report::default() }),
        Some(pid) if pid == root.pid() && !spared.contains(&pid) => {}
        Some(_) => return Err(Errno::INVAL.into()),
    }
    let mut tree = Tree { spared, hidden: Vec::new(), members: Vec::new(), by_pid: BTreeMap::new() };
    tree.stop(Pidfd::new(root.pid(), root.pidfd().try_clone_to_owned()?))?;
    if tree.members[0].refused {
        return Err(Errno::PERM.into());
    }
    let complete = tree.gather()?;
    Ok(tree.send(signal, complete))
}

struct Member {
    process: Pidfd,
    /// It may not be signalled.
    refused: bool,
    /// It can fork no more.
    at_rest: bool,
    /// When it counts as at rest although it is not stopped; set while it is blocked.
    blocked_until: Option<Deadline>,
}

/// Those that are stopped, parents before their children. They are continued when it is dropped.
struct Tree {
    spared: Vec<u32>,
    /// Children of members that `/proc` does not show to this user.
    hidden: Vec<u32>,
    members: Vec<Member>,
    by_pid: BTreeMap<u32, usize>,
}

impl Drop for Tree {
    fn drop(&mut self) {
        for member in self.members.iter().rev() {
            // Whoever could not be stopped, or has ended, need not be continued.
            let _ = member.process.signal(Signal::CONT);
        }
    }
}

impl Tree {
    /// Makes a process a member.
    fn stop(&mut self, process: Pidfd) -> io::Result<()> {
        self.by_pid.insert(process.pid(), self.members.len());
        // A member first: from here on it is continued, whatever happens.
        self.members.push(Member { process, refused: false, at_rest: false, blocked_until: None });
        let Some(member) = self.members.last_mut() else { return Ok(()) };
        match member.process.signal(Signal::STOP) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => member.refused = true,
            result => return result,
        }
        Ok(())
    }

    /// Finds and stops all descendants; says whether none can have been missed.
    fn gather(&mut self) -> io::Result<bool> {
        let patience = Deadline::after(REST_PATIENCE);
        loop {
            let at_rest = self.wait_for_rest(patience)?;
            let nothing_new = self.look()?;
            if nothing_new && at_rest {
                return Ok(self.hidden.is_empty() && self.members.iter().all(|member| !member.refused));
            }
            if patience.passed() {
                return Ok(false);
            }
        }
    }

    /// Waits until all that can be stopped are; says whether they are.
    fn wait_for_rest(&mut self, patience: Deadline) -> io::Result<bool> {
        let mut pause = Duration::from_micros(20);
        loop {
            let mut all = true;
            for member in self.members.iter_mut().filter(|member| !member.refused && !member.at_rest) {
                all &= member.comes_to_rest()?;
            }
            if all || patience.passed() {
                return Ok(all);
            }
            // No event tells of a stop to anybody but the parent.
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(1));
        }
    }

    /// Looks once for children of all members and stops those that are new; says whether there are none, and no list may lack some.
    fn look(&mut self) -> io::Result<bool> {
        let pairs = if has_children_lists() { self.listed_children()? } else { every_process()? };
        let mut nothing_new = true;
        for (child, parent) in pairs {
            if let Some(&parent) = self.by_pid.get(&parent) {
                nothing_new &= self.is_old(child, parent)?;
            }
        }
        Ok(nothing_new)
    }

    /// Children of the members and their parents.
    fn listed_children(&self) -> io::Result<Vec<(u32, u32)>> {
        let mut pairs = Vec::new();
        for parent in self.members.iter().map(|member| member.process.pid()) {
            for tid in numbers_in(&format!("/proc/{parent}/task"))? {
                let list = read(&format!("/proc/{parent}/task/{tid}/children"))?.unwrap_or_default();
                let list = String::from_utf8_lossy(&list);
                pairs.extend(
                    list.split_ascii_whitespace().filter_map(|pid| Some((pid.parse().ok()?, parent))),
                );
            }
        }
        Ok(pairs)
    }

    /// Whether this child of a member is one already, or spared; stops it if not. `false` also if it is gone: others in
    /// the list may have been passed over.
    fn is_old(&mut self, child: u32, parent: usize) -> io::Result<bool> {
        if self.spared.contains(&child) || self.hidden.contains(&child) {
            return Ok(true);
        }
        if self.members[parent].process.is_reaped() {
            // Its id may be somebody else's, who is no member.
            self.by_pid.remove(&self.members[parent].process.pid());
            return Ok(false);
        }
        if let Some(&member) = self.by_pid.get(&child) {
            if !self.members[member].process.is_reaped() {
                return Ok(true);
            }
            self.by_pid.remove(&child);
            return Ok(false);
        }
        let process = match pidfd::open(child) {
            Ok(fd) => Pidfd::new(child, fd),
            Err(error) if is_absence(&error) => return Ok(false),
            Err(error) => return Err(error),
        };
        let parent_pid = parent_of(child)?;
        let parent = &self.members[parent].process;
        // Neither is reaped after the line was read, so it was about these two.
        if !process.is_reaped() && !parent.is_reaped() {
            match parent_pid {
                Some(pid) if pid == parent.pid() => self.stop(process)?,
                Some(_) => {}
                None => self.hidden.push(child),
            }
        }
        Ok(false)
    }

    /// Signals all members, and continues them.
    fn send(mut self, signal: Signal, complete: bool) -> Report {
        let hidden = std::mem::take(&mut self.hidden);
        let mut report = Report { complete, refused: hidden, ..Report::default() };
        let mut signalled = vec![false; self.members.len()];
        for (member, signalled) in self.members.iter().zip(&mut signalled).rev() {
            let ended = member.process.has_ended().unwrap_or(false);
            match member.process.signal(signal) {
                Ok(()) => *signalled = !ended,
                Err(_) => report.refused.push(member.process.pid()),
            }
            let _ = member.process.signal(Signal::CONT);
        }
        let members = std::mem::take(&mut self.members);
        let descendants = members.into_iter().zip(signalled).skip(1).filter(|(_, signalled)| *signalled);
        report.descendants = descendants.map(|(member, _)| member.process).collect();
        report
    }
}

impl Member {
    /// Whether no thread of it can fork any more.
    fn comes_to_rest(&mut self) -> io::Result<bool> {
        let pid = self.process.pid();
        let (mut runs, mut is_blocked) = (false, false);
        for tid in numbers_in(&format!("/proc/{pid}/task"))? {
            let line = read(&format!("/proc/{pid}/task/{tid}/stat"))?.unwrap_or_default();
            match stat_fields(&line).and_then(|mut fields| fields.next()) {
                None | Some("T" | "t" | "Z" | "X") => {}
                Some("D") => is_blocked = true,
                Some(_) => runs = true,
            }
        }
        self.blocked_until = match (runs, is_blocked) {
            (false, true) => self.blocked_until.or_else(|| Some(Deadline::after(BLOCKED_PATIENCE))),
            _ => None,
        };
        let rests = !runs && self.blocked_until.is_none_or(Deadline::passed);
        self.at_rest = rests || self.process.is_reaped();
        Ok(self.at_rest)
    }
}

/// This process, its ancestors, and process 1.
fn own_line() -> io::Result<Vec<u32>> {
    let own = std::process::id();
    // A `/proc` of another namespace shows other processes under the ids that are meant here.
    let shown = std::fs::read_link("/proc/self").ok();
    if shown.and_then(|shown| shown.to_str()?.parse().ok()) != Some(own) {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "no /proc of this pid namespace"));
    }
    let mut line = vec![1, own];
    let mut last = own;
    while let Some(parent) = parent_of(last)? {
        if parent <= 1 {
            return Ok(line);
        }
        if parent_of(parent)?.is_some() {
            line.push(parent);
            last = parent;
        } else if parent_of(last)? == Some(parent) {
            // Hidden from this user (`hidepid`), and so are those further up.
            line.push(parent);
            return Ok(line);
        }
        // Otherwise it has ended, and another one is the parent.
    }
    // An ancestor in the line has ended since.
    own_line()
}

/// The id of a process as `/proc` shows it; `None` if it has been reaped.
fn shown_pid(process: &Pidfd) -> io::Result<Option<u32>> {
    let text = read(&format!("/proc/self/fdinfo/{}", process.pidfd().as_raw_fd()))?.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse::<i32>().ok());
    match pid {
        Some(-1) => Ok(None),
        Some(pid @ 1..) => Ok(Some(pid.unsigned_abs())),
        _ => Err(Errno::INVAL.into()),
    }
}

/// Whether the kernel lists the children of threads (`CONFIG_PROC_CHILDREN`).
fn has_children_lists() -> bool {
    !crate::force::is("no-proc-children") && std::fs::exists("/proc/thread-self/children").unwrap_or(false)
}

/// All processes and their parents. The kernel goes through them by id, so none that stays is passed over.
fn every_process() -> io::Result<Vec<(u32, u32)>> {
    let mut pairs = Vec::new();
    for pid in numbers_in("/proc")? {
        pairs.extend(parent_of(pid)?.map(|parent| (pid, parent)));
    }
    Ok(pairs)
}

/// The parent of the process that has this id now; `None` if none has.
fn parent_of(pid: u32) -> io::Result<Option<u32>> {
    let line = read(&format!("/proc/{pid}/stat"))?;
    Ok(line.and_then(|line| stat_fields(&line)?.nth(1)?.parse().ok()))
}

/// The entries of a directory that are numbers; none if it is gone.
fn numbers_in(directory: &str) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if is_absence(&error) => return Ok(numbers),
        Err(error) => return Err(error),
    };
    for entry in entries {
        match entry {
            Ok(entry) => numbers.extend(entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok())),
            Err(error) if is_absence(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(numbers)
}

/// A file of `/proc`; `None` if what it is about is gone.
fn read(path: &str) -> io::Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    fn sleeper() -> (Child, Pidfd) {
        let child = Command::new("/bin/sh").args(["-c", "read x"]).stdin(Stdio::piped()).spawn().unwrap();
        let process = Pidfd::new(child.id(), pidfd::open(child.id()).unwrap());
        (child, process)
    }

    #[test]
    fn whoever_is_not_the_parents_child_when_looked_at_is_let_go() {
        let ((mut parent, root), (mut stranger, process)) = (sleeper(), sleeper());
        let mut tree =
            Tree { spared: Vec::new(), hidden: Vec::new(), members: Vec::new(), by_pid: BTreeMap::new() };
        tree.stop(root).unwrap();
        // As if a list had named it, and the id had gone to somebody else since.
        assert!(!tree.is_old(stranger.id(), 0).unwrap());
        assert_eq!(tree.members.len(), 1);
        assert!(tree.is_old(parent.id(), 0).unwrap(), "the root is known");
        drop(tree);
        for child in [&mut parent, &mut stranger] {
            drop(child.stdin.take());
            assert_eq!(child.wait().unwrap().code(), Some(1));
        }
        assert!(process.is_reaped());
    }
}
