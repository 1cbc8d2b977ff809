//! Where everything is in a session's file.
//!
//! ```text
//! 0         header: what it is, the domain's lock, death epoch, high-water marks, free lists
//! 4 KiB     bells       64 words, a cache line each
//! 8 KiB     ids of processes in use, a bit each
//! 16 KiB    ids of threads in use, a bit each
//! 64 KiB    processes   4096 entries of 128 B
//! 768 KiB   waits       512 entries of 32 B: who waits for which lock
//! 832 KiB   published names  256 entries of 128 B
//! 1 MiB     threads    65536 robust words of 64 B, the sentinels
//! 5 MiB     program files  64 entries of 1 KiB: what code references point into
//! 6 MiB     spans     262144 entries of 8 B: how each 256 KiB of the arena is used
//! 8 MiB     arena: blocks, each a 64-byte header and its payload
//! ```
//!
//! Invariants
//! 1. Everything here is plain words at fixed offsets, valid for every bit pattern; zero means unused.
//! 2. Whoever reads an offset from these tables range-checks it before use ([`Mapping::at`](mp_sys::memory::Mapping::at)).
//! 3. All but `death_epoch`, sentinels and block stamps is written under the domain's lock.

use crate::ShmSafe;
use crate::ids::words;
use crate::lock::DomainLock;
use crate::place::WaitEntry;
use crate::published::PublishedEntry;
use crate::safe::{layout, mix};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

/// What a session's file begins with.
#[repr(C)]
#[derive(ShmSafe, Debug)]
pub struct Header {
    /// [`MAGIC`]; written last when a session is created.
    pub magic: AtomicU64,
    /// Of the library's layout: see [`abi_hash`].
    pub abi: AtomicU64,
    /// The file's size in bytes.
    pub size: AtomicU64,
    /// The session's number, 1 to 65535.
    pub number: AtomicU32,
    /// Inode of the pid namespace that all participants share, low half.
    pub pid_namespace: AtomicU32,
    /// User id of the participants.
    pub user: AtomicU32,
    /// 1 if senders rely on [`mp_sys::barrier::heavy`] of those who go to sleep, 0 if both sides use fences.
    pub asymmetric_barriers: AtomicU32,
    /// Random; seals code references against bytes that only look like one.
    pub secret: [AtomicU64; 2],
    /// Random; the name at which the broker of descriptors listens. Everybody on this machine can see it while it does.
    pub broker_name: [AtomicU64; 2],
    /// Random; shows the broker that who asks is of this session.
    pub broker_secret: [AtomicU64; 2],
    /// Processors that threads of the session may run on, as they were when each registered or last went to sleep.
    pub processors: [AtomicU64; mp_sys::cpu::MASK_WORDS],
    /// Guards all tables.
    pub lock: Line<DomainLock>,
    /// Advanced after every recovery; sleepers watch it.
    pub death_epoch: Line<AtomicU32>,
    /// Advanced after a process has joined; sleepers watch it.
    pub members: Line<AtomicU32>,
    /// One of the `DIRTY_*` values: what a death under the lock, or in a recovery, left to be done.
    pub dirty: AtomicU32,
    /// Where the search for a free process id begins: ids go round, so reuse is rare.
    pub process_next: AtomicU32,
    /// Where the search for a free thread id begins.
    pub thread_next: AtomicU32,
    /// One more than the highest span used.
    pub span_high: AtomicU32,
    /// Spans below `span_high` that are free.
    pub spans_free: AtomicU32,
    /// Program files in the table.
    pub objects: AtomicU32,
    /// One more than the highest published name ever used.
    pub published_high: AtomicU32,
    unused_word: AtomicU32,
    /// Heads of the lists of free blocks, a class each; 0 is the end.
    pub free_blocks: [AtomicU64; CLASSES],
}

/// A value alone on its cache lines (two, since processors fetch pairs).
#[repr(C, align(128))]
#[derive(ShmSafe, Debug, Default)]
pub struct Line<T>(pub T);

/// A word that those sleep on who wait for several things at once.
#[repr(C, align(64))]
#[derive(ShmSafe, Debug, Default)]
pub struct Bell(pub AtomicU32);

/// A process of the domain.
#[repr(C, align(128))]
#[derive(ShmSafe, Debug)]
pub struct ProcessEntry {
    /// One of the `PROCESS_*` states.
    pub state: AtomicU32,
    /// Its pid.
    pub pid: AtomicU32,
    /// Its start time; with the pid it names the process for ever.
    pub start_time: AtomicU64,
    /// Thread id (of the session) whose sentinel stands for the process.
    pub lead: AtomicU32,
    /// Counts the processes that had this entry.
    pub generation: AtomicU32,
    /// First block of its ledger, 0 if none.
    pub ledger: AtomicU64,
    /// Its name, zero-padded UTF-8.
    pub name: [AtomicU8; 32],
}

/// The tables are right.
pub const DIRTY_NOT: u32 = 0;
/// Blocks are right, references are to be counted again.
pub const DIRTY_COUNTS: u32 = 1;
/// Free lists, too, are to be made again.
pub const DIRTY_BLOCKS: u32 = 2;

/// The entry is free.
pub const PROCESS_FREE: u32 = 0;
/// The process is registering; it has no sentinel yet.
pub const PROCESS_STARTING: u32 = 1;
/// The process takes part.
pub const PROCESS_LIVE: u32 = 2;

/// A program file that code references point into.
#[repr(C)]
#[derive(ShmSafe, Debug)]
pub struct ObjectEntry {
    /// Bytes of `identity` in use; 0 means that the entry is unused.
    pub identity_len: AtomicU32,
    /// Bytes of `path` in use; 0 means the main program.
    pub path_len: AtomicU32,
    /// Build id or hash.
    pub identity: [AtomicU8; IDENTITY_MAX],
    /// The loader's path.
    pub path: [AtomicU8; PATH_LEN_MAX],
}

/// Longest build id kept.
pub const IDENTITY_MAX: usize = 64;
/// Longest path of a program file kept.
pub const PATH_LEN_MAX: usize = 1024 - 8 - IDENTITY_MAX;

/// The header in front of every block.
#[repr(C, align(64))]
#[derive(ShmSafe, Debug)]
pub struct BlockHeader {
    /// `generation:32 | kind:16 | owner:16`; see [`crate::block`].
    pub stamp: AtomicU64,
    /// Size of the payload in bytes; fixed while the span keeps its use.
    pub capacity: AtomicU64,
    /// Bytes of the payload in use.
    pub len: AtomicU64,
    /// Next free block of the class, or next block of a ledger.
    pub next: AtomicU64,
    /// For objects: references by role. Guarded by the domain's lock; read without it to see whether any are left.
    pub counts: [AtomicU32; 2],
    /// For messages: how many handles follow the archive.
    pub attachments: AtomicU32,
    /// For objects: the hash of what they carry, checked when a handle is taken.
    pub type_hash: AtomicU32,
    unused: [AtomicU64; 2],
}

const _: () = assert!(size_of::<BlockHeader>() == 64);
const _: () = assert!(size_of::<ProcessEntry>() == 128);
const _: () = assert!(size_of::<ObjectEntry>() == 1024);
const _: () = assert!(size_of::<Header>() as u64 <= BELLS);
const _: () = assert!(BELLS + (BELL_COUNT * size_of::<Bell>()) as u64 <= PROCESS_IDS);
const _: () = assert!(PROCESS_IDS + words(PROCESS_MAX) as u64 * 8 <= THREAD_IDS);
const _: () = assert!(IDS_END <= PROCESSES);
const _: () = assert!(PROCESSES + PROCESS_MAX as u64 * size_of::<ProcessEntry>() as u64 <= WAITS);
const _: () = assert!(WAITS + (WAIT_MAX * size_of::<WaitEntry>()) as u64 <= PUBLISHED);
const _: () = assert!(PUBLISHED + PUBLISHED_MAX as u64 * size_of::<PublishedEntry>() as u64 <= THREADS);

/// "mpsess", version 1.
pub const MAGIC: u64 = u64::from_le_bytes(*b"mpsess01");
/// Address space of a session unless it is refused.
pub const SIZE_BYTES: u64 = 64 << 30;
/// The least a session can do with.
pub const SIZE_BYTES_MIN: u64 = 64 << 20;
/// Offset of the bells.
pub const BELLS: u64 = 4096;
/// Bells: processes share them by their ids, so that a set of bells is one word.
pub const BELL_COUNT: usize = 64;
/// Offset of the bits of processes' ids.
pub const PROCESS_IDS: u64 = 8 << 10;
/// Offset of the bits of threads' ids.
pub const THREAD_IDS: u64 = 16 << 10;
/// Where the bits of ids end.
pub const IDS_END: u64 = THREAD_IDS + words(THREAD_MAX) as u64 * 8;
/// Offset of the process table.
pub const PROCESSES: u64 = 64 << 10;
/// Most processes at a time; id 0 is nobody.
pub const PROCESS_MAX: u32 = 4096;
/// Offset of the table of waits.
pub const WAITS: u64 = 768 << 10;
/// Most waits noted at a time.
pub const WAIT_MAX: usize = 512;
/// Offset of the table of published names.
pub const PUBLISHED: u64 = 832 << 10;
/// Most published names.
pub const PUBLISHED_MAX: u32 = 256;
/// Offset of the sentinels.
pub const THREADS: u64 = 1 << 20;
/// Most threads at a time; id 0 is nobody.
pub const THREAD_MAX: u32 = 65536;
/// Offset of the table of program files.
pub const OBJECTS: u64 = 5 << 20;
/// Most program files.
pub const OBJECT_MAX: u32 = 64;
/// Offset of the span table.
pub const SPANS: u64 = 6 << 20;
/// Bytes of a span.
pub const SPAN_BYTES: u64 = 256 << 10;
/// Offset of the arena.
pub const ARENA: u64 = 8 << 20;
/// Size classes of small blocks: payloads of 256 B to 64 KiB, each twice the one before, and 64 B more.
pub const CLASSES: usize = 9;
/// Bytes of a block's header.
pub const BLOCK_HEADER_BYTES: u64 = 64;

/// A hash of the layout: two builds that differ in it refuse to share a session.
#[must_use]
pub fn abi_hash() -> u64 {
    let tables = [
        Header::LAYOUT,
        Bell::LAYOUT,
        ProcessEntry::LAYOUT,
        ObjectEntry::LAYOUT,
        BlockHeader::LAYOUT,
        WaitEntry::LAYOUT,
        PublishedEntry::LAYOUT,
        u64::from(PROCESS_MAX),
        u64::from(THREAD_MAX),
        SPAN_BYTES,
        ARENA,
        CLASSES as u64,
    ];
    tables.into_iter().fold(layout(env!("CARGO_PKG_VERSION"), 0, 0), mix)
}
