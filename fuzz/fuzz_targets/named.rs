//! What builds of a program send each other to have tasks run by name, from a peer that is none: no panic, memory that follows the bytes, and
//! answers that travel.
//!
//! The first byte says what the rest is: a whole `Call`, a whole `Answer`, or the argument of a call of one of the tasks here, with its right name
//! and types, so that the argument's own decoding is reached without guessing them. By its highest bit the rest is changes of a good one: where (2
//! bytes), and what is different there (1 byte).
#![no_main]

use libfuzzer_sys::fuzz_target;
use mp_channel::connection::{from_bytes, to_bytes};
use mp_pool::named::{Answer, Call};
use mp_pool::{NamedTask, task};
use mp_shm::rkyv;
use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts what is allocated, and the most that it ever was.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all is done by `System`, with what the caller promises.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(held, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a byte that arrived may cost while a message is decoded: an empty string is 8 bytes in an archive and 24 outside, in a node of a map
/// that is half empty; and there are copies, of which one is aligned.
const BYTES_EACH: usize = 64;
/// Errors, with where they came up.
const SLACK: usize = 64 << 10;

#[derive(Clone, Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = mp_shm::rkyv)]
enum Shape {
    Point,
    Circle { centre: (i16, i16), radius: u32 },
    Group(Vec<(String, Option<u8>)>),
}

/// As deep as the peer likes.
#[derive(Clone, Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = mp_shm::rkyv)]
#[rkyv(serialize_bounds(__S: rkyv::ser::Writer + rkyv::ser::Allocator, __S::Error: rkyv::rancor::Source))]
#[rkyv(deserialize_bounds(__D::Error: rkyv::rancor::Source))]
#[rkyv(bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rkyv::rancor::Source)))]
struct Tree(#[rkyv(omit_bounds)] Vec<Tree>);

#[task]
fn number(n: u64) -> u64 {
    n ^ 1
}

#[task]
fn nothing() {}

#[task]
fn words(sign: char, texts: Vec<String>) -> (bool, Vec<String>) {
    (sign.is_alphabetic(), texts)
}

#[task]
fn shapes(named: BTreeMap<String, Shape>) -> Vec<Shape> {
    named.into_values().collect()
}

#[task]
fn trees(tree: Tree) -> Tree {
    tree
}

#[task]
fn shared(pair: (Arc<String>, Arc<String>, Box<[u16]>)) -> usize {
    pair.0.len() + pair.1.len() + pair.2.len()
}

/// A call as a peer can make it up; its archive is that of a [`Call`].
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = mp_shm::rkyv)]
struct Forged {
    name: String,
    signature: String,
    argument: Vec<u8>,
}

fn forged<T: NamedTask>(_: T, argument: &[u8]) -> Vec<u8> {
    let (name, signature) = (T::NAME.to_owned(), T::SIGNATURE.to_owned());
    let bytes = to_bytes(&Forged { name, signature, argument: argument.to_owned() });
    bytes.expect("text and bytes can be sent")
}

/// Takes an answer as bytes of whatever is expected.
fn take<R: mp_channel::connection::Plain>(answer: &Answer) {
    if let Err(error) = black_box(answer.clone().value::<R>()) {
        black_box(error.to_string());
    }
}

fn answered(answer: &Answer) {
    let bytes = to_bytes(answer).expect("answers can be sent");
    assert_eq!(from_bytes::<Answer>(&bytes).as_ref().ok(), Some(answer), "and arrive as they were");
    take::<u64>(answer);
    take::<()>(answer);
    take::<(bool, Vec<String>)>(answer);
    take::<Vec<Shape>>(answer);
    take::<Tree>(answer);
    take::<usize>(answer);
}

/// Runs what the bytes call for.
fn called(bytes: &[u8]) {
    if let Ok(call) = from_bytes::<Call>(bytes) {
        black_box(format!("{call:?}"));
        answered(&call.run());
    }
}

/// What the rest is after such a first byte, if it is good.
fn good(kind: u8) -> Vec<u8> {
    let text = || String::from("longer than what lies inside of a string");
    let bytes = match kind {
        0 => to_bytes(&Call::new(words, &('a', vec![text(); 3])).expect("it can be sent")),
        1 => to_bytes(&Call::new(words, &('1', vec![text()])).expect("it can be sent").run()),
        2 => to_bytes(&7_u64),
        3 => to_bytes(&()),
        4 => to_bytes(&('a', vec![text(), String::new(), String::from("short")])),
        5 => {
            let group = Shape::Group(vec![(text(), Some(1)), (String::new(), None)]);
            let circle = Shape::Circle { centre: (1, -1), radius: 2 };
            let named = [group, circle, Shape::Point].map(|shape| (format!("{shape:?}"), shape));
            to_bytes(&BTreeMap::from(named))
        }
        6 => to_bytes(&Tree(vec![Tree(vec![Tree(vec![]); 3]), Tree(vec![])])),
        _ => {
            let one = Arc::new(text());
            to_bytes(&(one.clone(), one, Box::<[u16]>::from([1, 2, 3])))
        }
    };
    bytes.expect("they can be sent")
}

/// The bytes with what `changes` say different.
fn changed(mut bytes: Vec<u8>, changes: &[u8]) -> Vec<u8> {
    for &[low, high, by] in changes.as_chunks().0 {
        let place = usize::from(u16::from_le_bytes([low, high]));
        if let Some(byte) = bytes.get_mut(place) {
            *byte ^= by;
        }
    }
    bytes
}

fuzz_target!(|data: &[u8]| {
    let Some((&first, data)) = data.split_first() else { return };
    let kind = first % 8;
    let data = if first < 128 { data.to_vec() } else { changed(good(kind), data) };
    let before = HELD.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    match kind {
        0 => called(&data),
        1 => {
            if let Ok(answer) = from_bytes::<Answer>(&data) {
                answered(&answer);
            }
        }
        2 => called(&forged(number, &data)),
        3 => called(&forged(nothing, &data)),
        4 => called(&forged(words, &data)),
        5 => called(&forged(shapes, &data)),
        6 => called(&forged(trees, &data)),
        _ => called(&forged(shared, &data)),
    }
    let most = MOST.load(Ordering::Relaxed).saturating_sub(before);
    assert!(most <= BYTES_EACH * data.len() + SLACK, "{most} bytes for {} that arrived", data.len());
});
