//! SIGKILL at every named crash point of lists, latest-value cells and parts: readers see whole values, others go on, nothing is left.
//!
//! Build with `RUSTFLAGS="--cfg mp_crash"`. The points are read from the sources, so a new one is covered by being there.
#![cfg(mp_crash)]
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "a child finds the point at which it dies in its environment")]

use mp_channel::{Receiver, Sender, channel};
use mp_shm::latest::latest;
use mp_shm::{ArrayMut, Item, Latest, LatestWriter, List, Part, Session, Value};
use mp_spawn::Process;
use mp_testkit::watchdog;
use std::collections::BTreeSet;
use std::time::Duration;

/// What the survivor and the test tell each other.
const READY: u8 = 1;
const STOP: u8 = 2;

const LEN: usize = 16;
type Large = [u64; LEN];

/// What belongs to these protocols.
const OURS: &[&str] = &["list.", "stamped.", "references.before_sole", "references.referring"];

fn points() -> BTreeSet<String> {
    let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut points = BTreeSet::new();
    for file in std::fs::read_dir(sources).unwrap() {
        let path = file.unwrap().path();
        let text = if path.is_file() { std::fs::read_to_string(path).unwrap() } else { continue };
        for part in text.split("crash::point(\"").skip(1) {
            points.insert(part.split('"').next().unwrap().to_owned());
        }
    }
    points.retain(|point| OURS.iter().any(|ours| point.starts_with(ours)));
    points
}

/// Items of which every part is made of one number.
fn item_of(number: u32) -> Item {
    if number.is_multiple_of(2) { i64::from(number).into() } else { number.to_string().repeat(5).into() }
}

fn is_whole(item: &Item) -> bool {
    match item {
        Item::Int(number) => number % 2 == 0,
        Item::Str(text) => *text == text[..text.len() / 5].repeat(5),
        _ => false,
    }
}

fn victim((list, mut writer, mut part): (List, LatestWriter<Large>, Part<u64>)) {
    let (to_me, from_me) = channel(1).unwrap();
    writer.wait_sole(Duration::from_secs(60)).unwrap();
    for number in 0..200_u32 {
        list.replace(number as usize % list.len(), item_of(number)).unwrap();
        writer.set([number.into(); LEN]).unwrap();
        drop(writer.reader().unwrap());
        part.slice_mut().unwrap().fill(number.into());
        to_me.send(part).unwrap();
        part = from_me.recv().unwrap();
    }
}

/// Reads and writes beside the victim, as a process of its own.
fn survivor((list, cell, stop): (List, Latest<Large>, Value<u8>)) -> Result<(), String> {
    let mut before = 0;
    stop.set(READY);
    for number in 0.. {
        let index = number as usize % list.len();
        if !list.get(index).is_some_and(|item| is_whole(&item)) {
            return Err(format!("item {index} is {:?}", list.get(index)));
        }
        list.set(index, item_of(number)).map_err(|error| error.to_string())?;
        let value = cell.get();
        if value.iter().any(|one| *one != value[0]) || value[0] < before {
            return Err(format!("after {before}: {value:?}"));
        }
        before = value[0];
        if stop.get() == STOP {
            break;
        }
    }
    Ok(())
}

fn die_at(point: &str, nth: u32) -> bool {
    let list = List::new(vec![item_of(0); 3], 60).unwrap();
    let (writer, cell) = latest([0; LEN]).unwrap();
    let (mut split, mut parts) = ArrayMut::<u64>::new(100).unwrap().split(1).unwrap();
    let stop = Value::new(0_u8).unwrap();
    let other = Process::spawn(survivor, (list.clone(), cell.clone(), stop.clone())).unwrap();
    mp_testkit::proc::until(|| stop.get() == READY);
    // This process has read the variable by now, and not found it; only the victim sees it.
    // SAFETY: no other thread of this process reads or writes the environment: the one test here runs alone.
    unsafe { std::env::set_var("MP_CRASH", format!("{point}:{nth}")) };
    let child = Process::spawn(victim, (list.clone(), writer, parts.pop().unwrap())).unwrap();
    // SAFETY: as above.
    unsafe { std::env::remove_var("MP_CRASH") };
    let died = match child.join() {
        Ok(()) => false,
        Err(error) => {
            assert_eq!(error.signal(), Some(9), "{point}: {error}");
            true
        }
    };
    stop.set(STOP);
    assert_eq!(other.join().unwrap(), Ok(()), "{point}:{nth}");
    for index in 0..list.len() {
        assert!(is_whole(&list.replace(index, 7.into()).unwrap()), "{point}:{nth}");
        assert_eq!(list.get(index), Some(7.into()));
    }
    let mut writer = cell.claim_writer().unwrap().expect("the writer is gone");
    writer.set([1; LEN]).unwrap();
    assert_eq!(cell.get(), [1; LEN], "{point}:{nth}");
    let mut part = split.reclaim(0).unwrap().expect("the part's holder is gone");
    part.slice_mut().unwrap().fill(1);
    drop(part);
    drop((split.join().unwrap(), writer, cell, list, stop));
    let audit = Session::current().unwrap().audit();
    assert!(
        audit.processes == 1
            && audit.objects == 0
            && audit.blocks == 0
            && audit.references == 0
            && audit.counts_are_right,
        "{point}:{nth}: left behind: {audit:?}"
    );
    died
}

fn send_on((mut part, parts): (Part<u64>, Sender<Part<u64>>)) {
    // Until the parent has dropped its own.
    part.slice_mut_timeout(Duration::from_secs(60)).unwrap();
    parts.send(part).unwrap();
}

fn wait_for_it((parts, told): (Receiver<Part<u64>>, Sender<()>)) -> bool {
    let mut part = parts.recv().unwrap();
    told.send(()).unwrap();
    part.slice_mut_timeout(Duration::from_secs(60)).is_ok()
}

/// A sender that has dropped what it sent, and dies before it can wake the receiver, which waits for that.
fn die_before_the_wake() {
    let (_split, mut parts) = ArrayMut::<u64>::new(100).unwrap().split(1).unwrap();
    let (to, from) = channel(1).unwrap();
    let (told, is_told) = channel(1).unwrap();
    let receiver = Process::spawn(wait_for_it, (from, told)).unwrap();
    // SAFETY: as in `die_at`.
    unsafe { std::env::set_var("MP_CRASH", "references.before_sole:1") };
    let sender = Process::spawn(send_on, (parts.pop().unwrap(), to)).unwrap();
    // SAFETY: as in `die_at`.
    unsafe { std::env::remove_var("MP_CRASH") };
    assert_eq!(sender.join().unwrap_err().signal(), Some(9));
    is_told.recv().unwrap();
    assert!(receiver.join().unwrap(), "the death wakes the receiver");
}

#[test]
fn d7_d12_a_kill_at_every_crash_point_tears_nothing() {
    let _watchdog = watchdog(Duration::from_secs(600));
    // Passes a first point, so that this process reads the variable before any child is given it.
    drop(channel::<u64>(1).unwrap());
    let points = points();
    assert!(points.len() >= 10, "the sources name their points: {points:?}");
    die_before_the_wake();
    let mut never = Vec::new();
    for point in &points {
        let died = [1, 2, 17].map(|nth| die_at(point, nth));
        if !died.contains(&true) {
            never.push(point);
        }
    }
    assert!(never.is_empty(), "never passed: {never:?}");
}
