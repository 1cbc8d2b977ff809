//! Named segments: clear results, owner against opener, leftovers, peers that would harm, deaths in the domain.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

mod child;

use child::{listen, say, unique};
use mp_shm::death::{self, Slept};
use mp_shm::error::SegmentError;
use mp_shm::{Segment, ShmSafe, place, segment};
use mp_sys::deadline::Deadline;
use mp_sys::futex::Watch;
use mp_testkit::watchdog;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

#[derive(ShmSafe, Debug)]
#[repr(C)]
struct Board {
    count: AtomicU64,
    limit: u64,
}

#[derive(ShmSafe, Debug)]
#[repr(C)]
struct OtherBoard {
    count: AtomicU64,
    limit: f64,
}

fn locator(name: &str) -> PathBuf {
    format!("/dev/shm/multiproc-{}/{name}.segment", mp_sys::process::user()).into()
}

#[test]
fn child() {
    let Some((role, arguments)) = child::role() else { return };
    let name = arguments[0].as_str();
    match role.as_str() {
        "owner" => {
            let board = Segment::<Board>::create_with(name, |board| board.limit = 5).unwrap();
            say("created");
            if listen() == "exit" {
                // No drop.
                std::mem::forget(board);
                std::process::exit(0);
            }
        }
        "opener" => {
            let board = Segment::<Board>::open(name).unwrap();
            board.count.fetch_add(1, Ordering::Relaxed);
            say("opened");
            listen();
        }
        "racer" => {
            say("ready");
            listen();
            let board = Segment::<Board>::create(name);
            say(if board.is_ok() { "mine" } else { "not mine" });
            listen();
        }
        "sleeper" => {
            let board = Segment::<Board>::open(name).unwrap();
            let place = place::of(std::ptr::from_ref(&*board).addr()).unwrap();
            let epoch = place.domain().epoch().load(Ordering::Acquire);
            say("sleeping");
            let word = AtomicU32::new(0);
            let deadline = Deadline::after(LONG);
            while place.domain().epoch().load(Ordering::Acquire) == epoch {
                let slept =
                    death::sleep(place.domain(), &[Watch::Word(&word, 0)], None, Some(deadline), None);
                assert_eq!(slept, Slept::Again, "nobody told of the death");
            }
            say("woken");
            listen();
        }
        other => panic!("no role {other}"),
    }
}

#[test]
fn d1_a_segment_is_created_opened_found_and_gone() {
    let _watchdog = watchdog(LONG);
    let name = unique("d1");
    assert!(!segment::exists(&name).unwrap());
    assert!(matches!(Segment::<Board>::open(&name), Err(SegmentError::NotFound)));
    let mine = Segment::<Board>::create_with(&name, |board| board.limit = 7).unwrap();
    assert!(segment::exists(&name).unwrap() && mine.is_owner());
    assert!(matches!(Segment::<Board>::create(&name), Err(SegmentError::InUse)));
    let theirs = Segment::<Board>::open(&name).unwrap();
    assert!(!theirs.is_owner());
    theirs.count.store(3, Ordering::Relaxed);
    assert_eq!((mine.count.load(Ordering::Relaxed), theirs.limit), (3, 7));
    let listed = segment::list().unwrap();
    assert!(listed.iter().any(|one| one.name == name && one.owner == std::process::id()));
    segment::unlink(&name).unwrap();
    assert!(matches!(segment::unlink(&name), Err(SegmentError::NotFound)));
    assert!(matches!(Segment::<Board>::open(&name), Err(SegmentError::NotFound)), "open after unlink");
    // The name is free for another; the first one's end does not take it away.
    let next = Segment::<Board>::create(&name).unwrap();
    drop(mine);
    assert!(segment::exists(&name).unwrap());
    assert_eq!(theirs.count.load(Ordering::Relaxed), 3, "who has it open keeps it");
    drop(next);
    assert!(!segment::exists(&name).unwrap() && !locator(&name).exists());
}

#[test]
fn d1_a_bad_name_is_an_error() {
    let long = "x".repeat(201);
    for name in ["", "a/b", "/a", "a\0b", ".a", "..", &long] {
        assert!(matches!(Segment::<Board>::create(name), Err(SegmentError::BadName(_))), "{name:?}");
        assert!(matches!(Segment::<Board>::open(name), Err(SegmentError::BadName(_))), "{name:?}");
        assert!(matches!(segment::exists(name), Err(SegmentError::BadName(_))), "{name:?}");
        assert!(matches!(segment::unlink(name), Err(SegmentError::BadName(_))), "{name:?}");
    }
    let long = format!("{}{}", unique("d1"), "x".repeat(200));
    drop(Segment::<Board>::create(&long[..200]).unwrap());
}

#[test]
fn d1_of_many_that_create_one_name_one_succeeds() {
    let _watchdog = watchdog(LONG);
    let name = unique("d1-race");
    // Left over, so that they all have to sweep it as well.
    let mut first = child::start("owner", &[&name]);
    first.hear();
    first.kill();
    let mut racers: Vec<_> = (0..6).map(|_| child::start("racer", &[&name])).collect();
    racers.iter_mut().for_each(|racer| assert_eq!(racer.hear(), "ready"));
    racers.iter_mut().for_each(|racer| racer.tell("go"));
    let mine = racers.iter_mut().filter_map(|racer| (racer.hear() == "mine").then_some(())).count();
    assert_eq!(mine, 1);
    racers.into_iter().for_each(|racer| assert!(racer.finish().success()));
    assert!(!segment::exists(&name).unwrap());
}

#[test]
fn d2_an_owner_that_exits_leaves_no_name_behind() {
    let _watchdog = watchdog(LONG);
    for how in ["exit", "drop"] {
        let name = unique("d2");
        let mut owner = child::start("owner", &[&name]);
        assert_eq!(owner.hear(), "created");
        assert!(locator(&name).exists());
        owner.tell(how);
        assert!(owner.finish().success());
        assert!(!locator(&name).exists(), "after {how}");
    }
}

#[test]
fn d3_an_opener_never_destroys_a_segment() {
    let _watchdog = watchdog(LONG);
    let name = unique("d3");
    let mine = Segment::<Board>::create(&name).unwrap();
    let mut opener = child::start("opener", &[&name]);
    assert_eq!(opener.hear(), "opened");
    assert!(opener.finish().success());
    let mut killed = child::start("opener", &[&name]);
    assert_eq!(killed.hear(), "opened");
    killed.kill();
    assert!(segment::exists(&name).unwrap());
    let again = Segment::<Board>::open(&name).unwrap();
    assert_eq!(again.count.load(Ordering::Relaxed), 2);
    drop(again);
    assert!(segment::exists(&name).unwrap());
    drop(mine);
}

#[test]
fn d3_an_opener_keeps_the_memory_of_a_dead_owner() {
    let _watchdog = watchdog(LONG);
    let name = unique("d3-kept");
    let mut owner = child::start("owner", &[&name]);
    owner.hear();
    let board = Segment::<Board>::open(&name).unwrap();
    owner.kill();
    assert_eq!(board.limit, 5);
    assert!(!segment::exists(&name).unwrap());
}

#[test]
fn d4_what_a_killed_owner_left_is_absent_and_swept() {
    let _watchdog = watchdog(LONG);
    type Way = (&'static str, fn(&str));
    let ways: [Way; 4] = [
        ("open", |name| assert!(matches!(Segment::<Board>::open(name), Err(SegmentError::NotFound)))),
        ("list", |name| assert!(segment::list().unwrap().iter().all(|one| one.name != name))),
        ("create", |name| drop(Segment::<Board>::create(name).unwrap())),
        ("unlink", |name| assert!(matches!(segment::unlink(name), Err(SegmentError::NotFound)))),
    ];
    for (way, look) in ways {
        let name = unique("d4");
        let mut owner = child::start("owner", &[&name]);
        owner.hear();
        owner.kill();
        // Other tests, or other programs, may have swept it by now.
        look(&name);
        assert!(!locator(&name).exists(), "after {way}");
    }
}

#[test]
fn d6_a_segment_cannot_be_truncated_by_a_peer() {
    let name = unique("d6");
    let mine = Segment::<Board>::create(&name).unwrap();
    let fds = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let ours = fds.filter(|fd| {
        std::fs::read_link(fd.path())
            .is_ok_and(|to| to.to_string_lossy().starts_with("/memfd:multiproc-segment"))
    });
    let mut tried = 0;
    for fd in ours {
        let file = std::fs::OpenOptions::new().write(true).open(fd.path());
        // Another test may have dropped it meanwhile.
        let Ok(file) = file else { continue };
        assert!(file.set_len(0).is_err() && file.set_len(1 << 30).is_err());
        tried += 1;
    }
    assert!(tried > 0);
    assert_eq!(mine.count.load(Ordering::Relaxed), 0);
}

#[test]
fn d6_a_name_that_leads_elsewhere_is_refused() {
    let _watchdog = watchdog(LONG);
    let name = unique("d6-forged");
    let mine = Segment::<Board>::create(&name).unwrap();
    // A name that is locked by us but leads to something else: to other descriptors of ours, or to nothing.
    let text = std::fs::read_to_string(locator(&name)).unwrap();
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    for fd in ["0", "1", "2", "999999"] {
        let mut forged = words.clone();
        forged[4] = fd;
        std::fs::write(locator(&name), forged.join(" ")).unwrap();
        assert!(matches!(Segment::<Board>::open(&name), Err(SegmentError::NotFound)), "{fd}");
    }
    // The right descriptor, but not the segment that was meant.
    let mut forged = words.clone();
    forged[5] = "17";
    std::fs::write(locator(&name), forged.join(" ")).unwrap();
    assert!(matches!(Segment::<Board>::open(&name), Err(SegmentError::NotFound)));
    std::fs::write(locator(&name), &text).unwrap();
    assert!(Segment::<Board>::open(&name).is_ok());
    drop(mine);
}

#[test]
fn d8_another_layout_is_refused() {
    let name = unique("d8");
    let _mine = Segment::<Board>::create(&name).unwrap();
    assert!(matches!(Segment::<OtherBoard>::open(&name), Err(SegmentError::OtherLayout)));
    assert!(matches!(Segment::<[u64; 900]>::open(&name), Err(SegmentError::OtherLayout)));
    assert!(matches!(segment::ReadOnly::<OtherBoard>::open(&name), Err(SegmentError::OtherLayout)));
}

#[test]
fn b7_a_death_wakes_all_who_sleep_in_a_segment() {
    if !mp_sys::futex::watches_all() {
        println!(
            "not tried: without futex_waitv a death ends sleeps by the backstop of whoever sleeps, and here nobody has one"
        );
        return;
    }
    let _watchdog = watchdog(LONG);
    let name = unique("b7");
    let _mine = Segment::<Board>::create(&name).unwrap();
    let mut victim = child::start("opener", &[&name]);
    victim.hear();
    let mut sleepers: Vec<_> = (0..3).map(|_| child::start("sleeper", &[&name])).collect();
    for sleeper in &mut sleepers {
        assert_eq!(sleeper.hear(), "sleeping");
        mp_testkit::proc::until(|| waits_for_several_words(sleeper.pid()));
    }
    victim.kill();
    sleepers.iter_mut().for_each(|sleeper| assert_eq!(sleeper.hear(), "woken"));
}

/// Whether a thread of the process is in `futex_waitv`.
fn waits_for_several_words(pid: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    tasks
        .map(|task| std::fs::read_to_string(task.path().join("syscall")).unwrap_or_default())
        .any(|call| call.starts_with("449 "))
}

#[test]
fn d4_entries_of_dead_members_are_used_again() {
    let _watchdog = watchdog(Duration::from_secs(170));
    let name = unique("d4-members");
    let _mine = Segment::<Board>::create(&name).unwrap();
    for _ in 0..125 {
        let mut opener = child::start("opener", &[&name]);
        assert_eq!(opener.hear(), "opened");
        opener.kill();
    }
}
