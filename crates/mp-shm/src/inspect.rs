//! Looking into sessions and segments from outside, also those of a hung or stopped program.
//!
//! Owns: nothing, and changes nothing: the memory is read by `pread` through `/proc/<pid>/fd/<n>`, opened for reading. It is
//! not mapped, no lock is taken, nobody is registered, so a program that hangs with the lock held is seen as any other, and
//! pages that were never written are not brought into being.
//!
//! What is read changes meanwhile: a report is not of one moment, and every number is bounded before it is used.

#![expect(unsafe_code, reason = "plain values out of bytes that were read")]

use crate::ShmSafe;
use crate::block::{SHARED, SPAN_LARGE, SPAN_SMALL, Stamp, blocks_per_span, class_bytes};
use crate::handle::Kind;
use crate::ids::{Ids, words};
use crate::layout::{
    self, ARENA, BLOCK_HEADER_BYTES, BlockHeader, CLASSES, PROCESS_FREE, PROCESS_IDS, PROCESS_LIVE,
    PROCESS_MAX, PROCESSES, PUBLISHED, PUBLISHED_MAX, ProcessEntry, SPAN_BYTES, SPANS, THREAD_MAX, THREADS,
    WAIT_MAX, WAITS,
};
use crate::participants::is_alive;
use crate::place::{Wait, WaitEntry};
use crate::placed;
use crate::published::PublishedEntry;
use crate::segment;
use mp_sys::file::{self, Access, Identity};
use mp_sys::process;
use mp_sys::robust::RobustWord;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Most blocks of a session that are looked at; a report says when there are more.
pub const BLOCKS_MAX: usize = 1 << 20;

/// A process that takes part, or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Participant {
    /// Its number in the session or segment.
    pub id: u32,
    /// Its process id.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// Whether it has registered fully; otherwise it is about to.
    pub registered: bool,
    /// Whether that process is still there.
    pub alive: bool,
}

/// An object of a session, with how many hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Where it is.
    pub offset: u64,
    /// What it is.
    pub kind: Kind,
    /// How many hold each of its ends.
    pub holders: [u32; 2],
}

/// Blocks of one kind in one process's hands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    /// How many.
    pub count: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
}

/// What is in a session.
#[derive(Clone, Debug)]
pub struct SessionReport {
    /// Its number.
    pub number: u32,
    /// Its address space in bytes.
    pub size_bytes: u64,
    /// The memory it occupies in bytes.
    pub committed_bytes: u64,
    /// The thread that holds the domain's lock.
    pub lock_holder: Option<u32>,
    /// Whether a death under the lock has not been recovered from yet.
    pub dirty: bool,
    /// Recoveries so far.
    pub recoveries: u32,
    /// Its processes.
    pub participants: Vec<Participant>,
    /// Its objects.
    pub objects: Vec<Object>,
    /// The other blocks in use, by kind and by the process that holds them.
    pub blocks: BTreeMap<(u16, u16), Blocks>,
    /// Published names, and where their objects are.
    pub names: Vec<(String, u64)>,
    /// Who waits for what, as far as it was noted.
    pub waits: Vec<Wait>,
    /// Whether there were more blocks than were looked at.
    pub more_blocks: bool,
}

/// What is in a named segment.
#[derive(Clone, Debug)]
pub struct SegmentReport {
    /// Its name.
    pub name: String,
    /// The process that created it.
    pub owner: u32,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// The thread that holds the domain's lock.
    pub lock_holder: Option<u32>,
    /// Recoveries so far.
    pub recoveries: u32,
    /// The processes that have it open.
    pub participants: Vec<Participant>,
    /// Who waits for what, as far as it was noted.
    pub waits: Vec<Wait>,
}

/// What a file turned out to be.
#[derive(Clone, Debug)]
pub enum Report {
    /// A session.
    Session(SessionReport),
    /// A named segment, or a user's file of that form.
    Segment(SegmentReport),
}

/// Where a session or a segment can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// A process that has it open.
    pub pid: u32,
    /// Its descriptor there, as a path.
    pub path: PathBuf,
}

/// The sessions and named segments of all processes that this user may look at, each once. (A segment whose owner is gone is
/// only mapped by those who keep it, and not found.)
#[must_use]
pub fn find() -> Vec<Found> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let mut pids: Vec<u32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for pid in pids {
        // Of other users, or gone meanwhile.
        let Ok(fds) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for path in fds.flatten().map(|fd| fd.path()) {
            if is_ours(&path)
                && let Ok(Some(identity)) = file::identity_at(&path)
                && seen.insert((identity.device, identity.inode))
            {
                found.push(Found { pid, path });
            }
        }
    }
    found
}

fn is_ours(descriptor: &Path) -> bool {
    let Ok(target) = std::fs::read_link(descriptor) else { return false };
    let target = target.to_string_lossy();
    let name = target.strip_prefix("/memfd:").and_then(|name| name.strip_suffix(" (deleted)"));
    name == Some("multiproc") || name == Some(segment::FILE_NAME)
}

/// Reads what is in the file at `path`: a descriptor that [`find`] gave, or a user's own file. `None` if it is neither a session nor a
/// segment of this version of the library, or is gone.
#[must_use]
pub fn read(path: &Path) -> Option<Report> {
    let file = file::open(path, Access::Read, true).ok()?;
    let size = file.metadata().ok()?.len();
    let view = View { file, size };
    match view.at::<AtomicU64>(0)?.into_inner() {
        layout::MAGIC => view.session().map(Report::Session),
        placed::MAGIC => view.segment().map(Report::Segment),
        _ => None,
    }
}

/// Which file it is, to tell two reports apart.
///
/// # Errors
/// What `stat` says.
pub fn identity(path: &Path) -> std::io::Result<Option<Identity>> {
    file::identity_at(path)
}

struct View {
    file: File,
    size: u64,
}

impl View {
    /// A copy of the `T` at `offset`; what is beyond the end is zero.
    fn at<T: ShmSafe>(&self, offset: u64) -> Option<T> {
        let mut value = MaybeUninit::<T>::zeroed();
        // SAFETY: the bytes of `value`, all written; whatever is written there is a `T`.
        let bytes =
            unsafe { std::slice::from_raw_parts_mut(value.as_mut_ptr().cast::<u8>(), size_of::<T>()) };
        self.file.read_at(bytes, offset).ok()?;
        // SAFETY: every byte was written, and any bytes are a `T`.
        Some(unsafe { value.assume_init() })
    }

    fn table<T: ShmSafe>(
        &self,
        start: u64,
        numbers: impl Iterator<Item = u32>,
    ) -> impl Iterator<Item = (u32, T)> {
        numbers.filter_map(move |number| {
            Some((number, self.at(start + u64::from(number) * size_of::<T>() as u64)?))
        })
    }

    fn waits(&self, start: u64, len: usize) -> Vec<Wait> {
        let len = u32::try_from(len).unwrap_or(0);
        let waits = self.table::<WaitEntry>(start, 0..len).filter_map(|(_, entry)| entry.read());
        waits.filter(|wait| process::is_thread(wait.pid, wait.tid)).collect()
    }

    fn session(&self) -> Option<SessionReport> {
        let header: layout::Header = self.at(0)?;
        if header.abi.into_inner() != layout::abi_hash() {
            return None;
        }
        let ids: [AtomicU64; words(PROCESS_MAX)] = self.at(PROCESS_IDS)?;
        let published_high = header.published_high.into_inner().min(PUBLISHED_MAX);
        let mut report = SessionReport {
            number: header.number.into_inner(),
            size_bytes: self.size,
            committed_bytes: self.file.metadata().ok()?.blocks() * 512,
            lock_holder: header.lock.0.holder(),
            dirty: header.dirty.into_inner() != layout::DIRTY_NOT,
            recoveries: header.death_epoch.0.into_inner(),
            participants: Vec::new(),
            objects: Vec::new(),
            blocks: BTreeMap::new(),
            names: Vec::new(),
            waits: self.waits(WAITS, WAIT_MAX),
            more_blocks: false,
        };
        for (id, entry) in self.table::<ProcessEntry>(PROCESSES, Ids(&ids).iter()) {
            let state = entry.state.into_inner();
            if state != PROCESS_FREE {
                let lead = entry.lead.into_inner();
                let sentinel = (lead < THREAD_MAX).then(|| {
                    self.at::<RobustWord>(THREADS + u64::from(lead) * size_of::<RobustWord>() as u64)
                });
                let lead_lives =
                    sentinel.flatten().is_some_and(|one| is_alive(one.word.load(Ordering::Relaxed)));
                let (pid, start_time) = (entry.pid.into_inner(), entry.start_time.into_inner());
                report.participants.push(Participant {
                    id,
                    pid,
                    name: text(&entry.name),
                    registered: state == PROCESS_LIVE,
                    alive: lead_lives || lives(pid, start_time),
                });
            }
        }
        for (_, entry) in self.table::<PublishedEntry>(PUBLISHED, 0..published_high) {
            if entry.used.load(Ordering::Relaxed) != 0 {
                let name = String::from_utf8_lossy(&entry.name()).into_owned();
                report.names.push((name, entry.handle().offset));
            }
        }
        self.blocks(header.span_high.into_inner(), &mut report);
        Some(report)
    }

    fn blocks(&self, span_high: u32, report: &mut SessionReport) {
        let spans = u32::try_from(self.size.saturating_sub(ARENA) / SPAN_BYTES).unwrap_or(0);
        let mut left = BLOCKS_MAX;
        for (span, entry) in self.table::<AtomicU64>(SPANS, 0..span_high.min(spans)) {
            let entry = entry.into_inner();
            let start = ARENA + u64::from(span) * SPAN_BYTES;
            let (count, step) = match entry & 0xff {
                SPAN_SMALL => {
                    let class = usize::try_from(entry >> 8).unwrap_or(0).min(CLASSES - 1);
                    (blocks_per_span(class), class_bytes(class) + BLOCK_HEADER_BYTES)
                }
                SPAN_LARGE => (1, 0),
                _ => continue,
            };
            for number in 0..count {
                if left == 0 {
                    report.more_blocks = true;
                    return;
                }
                left -= 1;
                let offset = start + number * step;
                let Some(header) = self.at::<BlockHeader>(offset) else { continue };
                let stamp = Stamp::read(&header);
                if stamp.owner == SHARED {
                    let holders = header.counts.map(|count| count.into_inner());
                    report.objects.push(Object { offset, kind: stamp.kind, holders });
                } else if stamp.owner != 0 {
                    let blocks = report.blocks.entry((stamp.kind.0, stamp.owner)).or_default();
                    blocks.count += 1;
                    blocks.bytes = blocks.bytes.saturating_add(header.capacity.into_inner());
                }
            }
        }
    }

    fn segment(&self) -> Option<SegmentReport> {
        let header: Box<placed::Header> = Box::new(self.at(0)?);
        if header.abi.load(Ordering::Relaxed) != placed::abi_hash() {
            return None;
        }
        let mut participants = Vec::new();
        for (id, entry) in (0..).zip(&header.entries) {
            if entry.state.load(Ordering::Relaxed) != placed::FREE {
                let pid = entry.pid.load(Ordering::Relaxed);
                let word = entry.sentinel.word.load(Ordering::Relaxed);
                let alive = is_alive(word) || lives(pid, entry.start_time.load(Ordering::Relaxed));
                participants.push(Participant { id, pid, name: text(&entry.name), registered: true, alive });
            }
        }
        let waits = header.waits.iter().filter_map(WaitEntry::read);
        Some(SegmentReport {
            name: text(&header.name),
            owner: header.owner_pid.load(Ordering::Relaxed),
            size_bytes: self.size,
            lock_holder: header.lock.0.holder(),
            recoveries: header.death_epoch.0.load(Ordering::Relaxed),
            participants,
            waits: waits.filter(|wait| process::is_thread(wait.pid, wait.tid)).collect(),
        })
    }
}

fn lives(pid: u32, start_time: u64) -> bool {
    process::status(pid).is_ok_and(|found| {
        found.is_some_and(|status| status.start_time == start_time && !status.leader_ended)
    })
}

/// Zero-padded bytes as text that can be printed.
fn text(bytes: &[AtomicU8]) -> String {
    let bytes = bytes.iter().map(|byte| byte.load(Ordering::Relaxed)).take_while(|byte| *byte != 0);
    String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).chars().filter(|one| !one.is_control()).collect()
}
