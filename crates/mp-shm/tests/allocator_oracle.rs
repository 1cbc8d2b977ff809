//! The allocator against a plain list of what is held: random blocks of all classes, allocated, kept and freed by processes and threads at the
//! same time; contents are stamped and checked, and all memory comes back. The seed is printed.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "blocks are plain memory")]

use mp_shm::audit::Audit;
use mp_shm::block::Block;
use mp_shm::handle::Kind;
use mp_shm::{Array, Session, Shared};
use mp_spawn::Process;
use mp_testkit::{assert_no_backstop, watchdog};
use std::collections::BTreeMap;
use std::time::Duration;

const STEPS: u32 = 5_000;
/// Most bytes that one party holds.
const HELD_MAX: usize = 8 << 20;

/// A block, its length, and what every eighth byte of it says.
struct Held {
    block: Block,
    len: usize,
    mark: u8,
}

impl Held {
    fn places(&self) -> impl Iterator<Item = usize> {
        let last = self.len.checked_sub(1);
        (0..self.len).step_by(if self.len > 1 << 16 { 4096 } else { 8 }).chain(last)
    }

    fn stamp(&self) {
        for at in self.places() {
            // SAFETY: at < len <= capacity, and this process holds the block.
            let place = unsafe { self.block.payload().add(at) };
            // SAFETY: as above.
            unsafe { place.write(self.mark) };
        }
    }

    fn is_right(&self) -> bool {
        self.places().all(|at| {
            // SAFETY: at < len <= capacity, and this process holds the block.
            let place = unsafe { self.block.payload().add(at) };
            // SAFETY: as above.
            unsafe { place.read() == self.mark }
        })
    }
}

/// A size of a random class: 0 B to some 4 MiB, most of them small.
fn random_size(random: &mut fastrand::Rng) -> usize {
    let class = random.u32(..15).min(random.u32(..15)).min(random.u32(..18));
    random.usize(..=256 << class.min(14))
}

/// Allocates and frees at random; says what went wrong.
fn take_part(session: Session, seed: u64) -> Result<(), String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut held: BTreeMap<u64, Held> = BTreeMap::new();
    let mut bytes = 0;
    for step in 0..STEPS {
        let at = || format!("seed {seed}, step {step}");
        if bytes < HELD_MAX && random.u32(..10) < 6 {
            let len = random_size(&mut random);
            let block = session.allocate(Kind::MESSAGE, len).map_err(|error| format!("{}: {error}", at()))?;
            if block.capacity() < len || !(block.payload().as_ptr() as usize).is_multiple_of(64) {
                return Err(format!("{}: a block of {} for {len}", at(), block.capacity()));
            }
            // In this party's own model blocks do not overlap; with the others' the marks tell.
            let (start, end) = (block.offset(), block.offset() + 64 + block.capacity() as u64);
            let before = held.range(..end).next_back();
            if before.is_some_and(|(offset, one)| offset + 64 + one.block.capacity() as u64 > start) {
                return Err(format!("{}: {start:#x} overlaps a block that is held", at()));
            }
            let one = Held { block, len, mark: random.u8(..) };
            one.stamp();
            bytes += len;
            held.insert(start, one);
        } else if !held.is_empty() {
            let key = *held.keys().nth(random.usize(..held.len())).unwrap();
            let one = held.remove(&key).unwrap();
            if !one.is_right() {
                return Err(format!("{}: block {key:#x} of {} was overwritten", at(), one.len));
            }
            bytes -= one.len;
        }
    }
    let wrong = held.values().find(|one| !one.is_right());
    wrong.map_or(Ok(()), |one| Err(format!("seed {seed}: block {:#x} was overwritten", one.block.offset())))
}

fn child(seed: u64) -> Result<(), String> {
    take_part(Session::current().unwrap(), seed)
}

/// One after the other: both look at the whole session.
#[test]
fn d9_blocks_never_overlap_and_come_back() {
    let _watchdog = watchdog(Duration::from_secs(240));
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let session = Session::current().unwrap();
    session.me().unwrap();
    values_and_arrays_are_zero_where_messages_were(session);
    many_parties(session, seed);
    one_is_killed(session, seed);
    assert_no_backstop();
}

fn values_and_arrays_are_zero_where_messages_were(session: Session) {
    // This process keeps the block for what it allocates next.
    let leave_dirty = |len: usize| {
        let block = session.allocate(Kind::MESSAGE, len).unwrap();
        // SAFETY: the block has room for `len` bytes, and is ours.
        unsafe { block.payload().write_bytes(0xff, len) };
        block.offset()
    };
    let place = leave_dirty(3_000);
    let value = Shared::<[u8; 3_000]>::zeroed().unwrap();
    assert_eq!((value.handle().offset, *value), (place, [0; 3_000]));
    for len in [100, 3_000, 50_000, 1_000_000] {
        let place = leave_dirty(len);
        let array = Array::<u8>::new(len).unwrap();
        assert_eq!(array.handle().offset, place, "{len}");
        assert!(array.to_vec().iter().all(|&element| element == 0), "{len}");
    }
    // More than it keeps.
    let blocks: Vec<Block> = (0..300).map(|_| session.allocate(Kind::MESSAGE, 100).unwrap()).collect();
    for block in &blocks {
        // SAFETY: as above.
        unsafe { block.payload().write_bytes(0xff, 100) };
    }
    drop(blocks);
    let arrays: Vec<_> = (0..300).map(|_| Array::<u8>::new(100).unwrap()).collect();
    assert!(arrays.iter().flat_map(Array::to_vec).all(|element| element == 0));
}

fn many_parties(session: Session, seed: u64) {
    let mut committed = Vec::new();
    for round in 0..3_u64 {
        let seed = seed.wrapping_add(round * 100);
        let children: Vec<_> =
            (1..3).map(|at| Process::spawn(child, seed.wrapping_add(at)).unwrap()).collect();
        let thread = std::thread::spawn(move || take_part(session, seed.wrapping_add(3)));
        take_part(session, seed.wrapping_add(4)).unwrap();
        thread.join().unwrap().unwrap();
        children.into_iter().for_each(|child| child.join().unwrap().unwrap());
        let audit = session.audit();
        let empty = Audit { processes: 1, counts_are_right: true, ..Audit::default() };
        assert_eq!(audit, empty, "seed {seed}");
        assert!(session.free_memory_is_zero().unwrap(), "seed {seed}");
        committed.push(session.committed_bytes().unwrap());
    }
    // Small blocks keep their spans; large ones give theirs back. A second and third round find what the first left.
    let (first, last) = (committed[0], committed[2]);
    assert!(last <= first * 2, "seed {seed}: memory does not come back: {committed:?}");
}

fn hold_until_killed((seed, told): (u64, mp_channel::Sender<()>)) {
    let session = Session::current().unwrap();
    let mut random = fastrand::Rng::with_seed(seed);
    let take = |_| session.allocate(Kind::MESSAGE, random_size(&mut random)).unwrap();
    let held: Vec<_> = (0..200).map(take).collect();
    told.send(()).unwrap();
    std::thread::sleep(Duration::from_secs(3600));
    drop(held);
}

fn one_is_killed(session: Session, seed: u64) {
    let (told, is_told) = mp_channel::channel(1).unwrap();
    let child = Process::spawn(hold_until_killed, (seed, told)).unwrap();
    is_told.recv().unwrap();
    assert!(session.audit().blocks >= 200);
    let held = session.committed_bytes().unwrap();
    child.kill().unwrap();
    let _ = child.join();
    mp_testkit::proc::until(|| session.audit().processes == 1);
    assert!(session.committed_bytes().unwrap() < held, "large blocks give their memory back");
    assert!(session.free_memory_is_zero().unwrap(), "seed {seed}");
}
