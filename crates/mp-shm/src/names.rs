//! Names of segments: small files in a directory of the user's, each locked by the segment's owner as long as that lives.
//!
//! Owns: `/dev/shm/multiproc-<user id>/`, closed to all others, and this process's list of the names it owns.
//!
//! ```text
//! name         event                                         to           who, under the directory's lock
//! absent       publish: a complete, locked file is linked    owned        owner
//! owned        the owner drops it, or its program exits      absent       owner
//! owned        unlink                                        absent       anybody of this user
//! owned        the owner dies                                left over    kernel: the lock is gone
//! left over    publish, list, open, unlink of this name      absent       anybody of this user: a sweep
//! ```
//!
//! A file that is found is whole and was locked before it had its name. A name is left over when its lock is free, or when a process of
//! this pid namespace that it tells of is gone (a child that the owner forked may keep the lock).
//! A lock is only this: a sign of life. What it stands for is read by its owner's descriptor, or checked by its inode.
//!
//! Death: between any two steps leaves one of these rows. A raw segment's file is removed only if it is the very one the name was
//! published with.

use crate::error::SegmentError;
use mp_sys::file::{self, Access, Identity};
use mp_sys::{fork, process};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};

/// Where POSIX shared memory has its names, too.
pub(crate) const SHM: &str = "/dev/shm";
/// Longest name in bytes.
pub const NAME_BYTES_MAX: usize = 200;
const TEXT_BYTES_MAX: u64 = 512;
const TEXT_HEAD: &str = "multiproc-segment-1";

/// What kind of segment a name is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A [`Segment`](crate::Segment).
    Typed,
    /// A [`RawSegment`](crate::RawSegment).
    Raw,
}

impl Form {
    fn suffix(self) -> &'static str {
        match self {
            Self::Typed => ".segment",
            Self::Raw => ".raw",
        }
    }
}

/// What a name's file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Locator {
    pub(crate) pid: u32,
    pub(crate) start_time: u64,
    pub(crate) pid_namespace: u32,
    /// The owner's descriptor of a typed segment.
    pub(crate) fd: u32,
    /// Typed: the nonce in its header. Raw: device and inode of its file.
    pub(crate) mark: [u64; 2],
}

impl Locator {
    /// One of this process.
    pub(crate) fn mine(fd: u32, mark: [u64; 2]) -> Self {
        Self {
            pid: std::process::id(),
            start_time: process::own_start_time(),
            pid_namespace: process::pid_namespace(),
            fd,
            mark,
        }
    }

    fn text(&self) -> String {
        let Self { pid, start_time, pid_namespace, fd, mark: [first, second] } = self;
        format!("{TEXT_HEAD} {pid} {start_time} {pid_namespace} {fd} {first} {second}\n")
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        (words.next()? == TEXT_HEAD).then_some(())?;
        let mut number = || words.next()?.parse::<u64>().ok();
        let narrow = |number: u64| u32::try_from(number).ok();
        let (pid, start_time) = (narrow(number()?)?, number()?);
        let (pid_namespace, fd) = (narrow(number()?)?, narrow(number()?)?);
        Some(Self { pid, start_time, pid_namespace, fd, mark: [number()?, number()?] })
    }

    fn read(file: &mut File) -> Option<Self> {
        let mut text = String::new();
        file.take(TEXT_BYTES_MAX).read_to_string(&mut text).ok()?;
        Self::parse(&text)
    }

    fn owner_is_gone(&self) -> bool {
        self.pid_namespace == process::pid_namespace()
            && self.start_time != 0
            // Who cannot be looked at, for want of a descriptor, is not gone.
            && process::status(self.pid).is_ok_and(|status| {
                status.is_none_or(|status| {
                    status.start_time != self.start_time
                        || status.leader_ended && !process::runs_without_leader(self.pid, self.start_time)
                })
            })
    }
}

/// Refuses what cannot be a name.
pub(crate) fn check(name: &str) -> Result<(), SegmentError> {
    if name.is_empty() {
        return Err(SegmentError::BadName("cannot be empty"));
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(SegmentError::BadName("has at most 200 bytes"));
    }
    if name.starts_with('.') {
        return Err(SegmentError::BadName("cannot begin with a dot"));
    }
    if name.bytes().any(|byte| byte == b'/' || byte == 0) {
        return Err(SegmentError::BadName("cannot contain a slash or a zero byte"));
    }
    Ok(())
}

/// The directory of names, open.
struct Directory {
    path: PathBuf,
    file: File,
}

impl Directory {
    fn open() -> Result<Self, SegmentError> {
        let path = Path::new(SHM).join(format!("multiproc-{}", process::user()));
        let file = file::private_directory(&path)
            .map_err(SegmentError::io("opening the directory of segments' names"))?;
        Ok(Self { path, file })
    }

    fn path_of(&self, name: &str, form: Form) -> PathBuf {
        self.path.join(format!("{name}{}", form.suffix()))
    }

    /// Runs `body` while no other process changes names.
    fn locked<T>(
        &self,
        doing: &'static str,
        body: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, SegmentError> {
        file::locked(&self.file, body).map_err(SegmentError::io(doing))
    }
}

/// What there is under a name.
enum Found {
    Absent,
    /// Its owner is gone, or it is nothing that this library made.
    LeftOver(Option<Locator>),
    Owned(Locator),
}

fn look(path: &Path) -> io::Result<Found> {
    let mut file = match file::open(path, Access::Read, false) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Absent),
        Err(error) => return Err(error),
    };
    let locator = Locator::read(&mut file);
    // Shared, so that of two who look neither takes the other for the owner. Closing gives it back.
    let unlocked = match file.try_lock_shared() {
        Ok(()) => true,
        Err(std::fs::TryLockError::WouldBlock) => false,
        Err(std::fs::TryLockError::Error(error)) => return Err(error),
    };
    Ok(match locator {
        Some(locator) if !unlocked && !locator.owner_is_gone() => Found::Owned(locator),
        other => Found::LeftOver(other),
    })
}

/// Removes a name, and for a raw segment the file it was published with. Under the directory's lock.
fn remove(path: &Path, name: &str, form: Form, locator: Option<Locator>) -> io::Result<()> {
    if let (Form::Raw, Some(locator)) = (form, locator) {
        let [device, inode] = locator.mark;
        remove_if(&Path::new(SHM).join(name), Identity { device, inode })?;
    }
    mp_sys::crash::point("names.before_removal");
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove_if(path: &Path, identity: Identity) -> io::Result<()> {
    // No link is followed: a link has an inode of its own.
    let there = match std::fs::symlink_metadata(path) {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    use std::os::unix::fs::MetadataExt;
    if there.ino() == identity.inode && there.dev() == identity.device {
        std::fs::remove_file(path)
    } else {
        Ok(())
    }
}

/// A name of this process's; dropping it removes the name.
#[derive(Debug)]
pub(crate) struct Owned(u64);

struct Entry {
    number: u64,
    /// The process that owns it: not the children that it forks.
    pid: u32,
    name: String,
    form: Form,
    locator: Locator,
    identity: Identity,
    /// Locked as long as it is open.
    _file: File,
    /// What openers find through the owner's descriptors.
    _keep: Box<dyn Send>,
}

static OWNED: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// Publishes `name`, and keeps `keep` as long as the result is there. `link` is called once the name is this process's, before
/// anybody can find it.
pub(crate) fn publish(
    name: &str,
    form: Form,
    locator: Locator,
    keep: Box<dyn Send>,
    link: impl FnOnce() -> io::Result<()>,
) -> Result<Owned, SegmentError> {
    const DOING: &str = "publishing a segment's name";
    check(name)?;
    register_exit().map_err(SegmentError::io(DOING))?;
    let directory = Directory::open()?;
    let mut file = file::create_unnamed(&directory.path).map_err(SegmentError::io(DOING))?;
    file.write_all(locator.text().as_bytes()).map_err(SegmentError::io(DOING))?;
    file.lock().map_err(SegmentError::io(DOING))?;
    let identity = file::identity(&file).map_err(SegmentError::io(DOING))?;
    let path = directory.path_of(name, form);
    let in_use = directory.locked(DOING, || {
        match look(&path)? {
            Found::Owned(_) => return Ok(true),
            Found::LeftOver(left) => remove(&path, name, form, left)?,
            Found::Absent => {}
        }
        mp_sys::crash::point("names.before_publishing");
        file::give_name(&file, &path)?;
        mp_sys::crash::point("names.published");
        match link() {
            Ok(()) => Ok(false),
            Err(error) => {
                std::fs::remove_file(&path)?;
                if error.kind() == io::ErrorKind::AlreadyExists { Ok(true) } else { Err(error) }
            }
        }
    })?;
    if in_use {
        return Err(SegmentError::InUse);
    }
    mp_sys::crash::point("names.linked");
    static NUMBERS: AtomicU64 = AtomicU64::new(1);
    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
    let entry = Entry {
        number,
        pid: fork::pid(),
        name: name.to_owned(),
        form,
        locator,
        identity,
        _file: file,
        _keep: keep,
    };
    OWNED.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    Ok(Owned(number))
}

impl Owned {
    /// Gives the name up, but leaves what it stands for.
    pub(crate) fn disown(self) -> Result<(), SegmentError> {
        let Some(entry) = take(self.0) else { return Ok(()) };
        entry.remove(false)
    }
}

fn take(number: u64) -> Option<Entry> {
    let mut owned = OWNED.lock().unwrap_or_else(PoisonError::into_inner);
    let at = owned.iter().position(|entry| entry.number == number)?;
    Some(owned.swap_remove(at))
}

impl Drop for Owned {
    fn drop(&mut self) {
        if let Some(entry) = take(self.0) {
            // Then it is left over, and swept by the next who comes by.
            let _ = entry.remove(true);
        }
    }
}

impl Entry {
    fn remove(&self, with_file: bool) -> Result<(), SegmentError> {
        if self.pid != fork::pid() {
            return Ok(());
        }
        let directory = Directory::open()?;
        let path = directory.path_of(&self.name, self.form);
        directory.locked("removing a segment's name", || {
            // Somebody may have unlinked it, and another published a new one.
            if file::identity_at(&path)? == Some(self.identity) {
                remove(&path, &self.name, self.form, with_file.then_some(self.locator))?;
            }
            Ok(())
        })
    }
}

/// Sees to it that an exit of the program removes the names that it still owns.
fn register_exit() -> io::Result<()> {
    static REGISTERED: AtomicU32 = AtomicU32::new(0);
    if REGISTERED.swap(1, Ordering::Relaxed) == 0 { mp_sys::exit::register(at_exit) } else { Ok(()) }
}

extern "C" fn at_exit() {
    let mut owned = match OWNED.try_lock() {
        Ok(owned) => owned,
        Err(TryLockError::Poisoned(error)) => error.into_inner(),
        // Another thread is at it, or was when this child was forked; what is left is swept.
        Err(TryLockError::WouldBlock) => return,
    };
    for entry in owned.drain(..) {
        let _ = entry.remove(true);
    }
}

/// What is under `name`; if that is left over, it is swept away and there is nothing.
pub(crate) fn find(name: &str, form: Form) -> Result<Option<Locator>, SegmentError> {
    check(name)?;
    let directory = Directory::open()?;
    let path = directory.path_of(name, form);
    let looking = SegmentError::io("looking for a segment's name");
    match look(&path).map_err(&looking)? {
        Found::Absent => Ok(None),
        Found::Owned(locator) => Ok(Some(locator)),
        Found::LeftOver(_) => sweep(&directory, name, form),
    }
}

/// Looks again, under the lock, and removes what is left over.
fn sweep(directory: &Directory, name: &str, form: Form) -> Result<Option<Locator>, SegmentError> {
    let path = directory.path_of(name, form);
    directory.locked("sweeping away a segment's name", || match look(&path)? {
        Found::Owned(locator) => Ok(Some(locator)),
        Found::LeftOver(left) => remove(&path, name, form, left).map(|()| None),
        Found::Absent => Ok(None),
    })
}

/// Removes a name, whoever owns it; says whether there was one.
pub(crate) fn unlink(name: &str, form: Form) -> Result<bool, SegmentError> {
    check(name)?;
    let directory = Directory::open()?;
    let path = directory.path_of(name, form);
    directory.locked("removing a segment's name", || match look(&path)? {
        Found::Owned(locator) => remove(&path, name, form, Some(locator)).map(|()| true),
        Found::LeftOver(left) => remove(&path, name, form, left).map(|()| false),
        Found::Absent => Ok(false),
    })
}

/// A name in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The name.
    pub name: String,
    /// What it is the name of.
    pub form: Form,
    /// The process that owns it.
    pub owner: u32,
}

/// All names in use, by name, after sweeping away those that are left over.
///
/// # Errors
/// The directory of names cannot be read.
pub fn list() -> Result<Vec<Named>, SegmentError> {
    let directory = Directory::open()?;
    let listing = SegmentError::io("listing the names of segments");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&directory.path).map_err(&listing)? {
        let file_name = entry.map_err(&listing)?.file_name();
        let Some(file_name) = file_name.to_str() else { continue };
        let named = [Form::Typed, Form::Raw]
            .into_iter()
            .find_map(|form| Some((file_name.strip_suffix(form.suffix())?, form)));
        let Some((name, form)) = named.filter(|(name, _)| check(name).is_ok()) else { continue };
        if let Some(locator) = find(name, form)? {
            found.push(Named { name: name.to_owned(), form, owner: locator.pid });
        }
    }
    found.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locator_survives_its_text_and_nothing_else_is_one() {
        let locator = Locator { pid: 7, start_time: u64::MAX, pid_namespace: 1, fd: 3, mark: [0, u64::MAX] };
        assert_eq!(Locator::parse(&locator.text()), Some(locator));
        let texts = ["", "multiproc-segment-1", "multiproc-segment-1 1 2 3 4 5", "other 1 2 3 4 5 6"];
        assert!(texts.iter().all(|text| Locator::parse(text).is_none()));
        assert!(Locator::parse("multiproc-segment-1 -1 2 3 4 5 6").is_none());
    }
}
