//! SIGKILL at every crash point of segments, files and published names: the next who comes by finds all in order.
//!
//! Build with `RUSTFLAGS="--cfg mp_crash"`. The points are read from the sources, so a new one is covered by being there.
#![cfg(all(mp_crash, not(loom)))]
#![expect(clippy::unwrap_used, reason = "tests")]

mod child;

use child::{listen, say, unique};
use mp_shm::{FileSegment, RawSegment, Segment, Session, Shared, ShmSafe, place, segment};
use mp_testkit::watchdog;
use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[derive(ShmSafe, Debug)]
#[repr(C)]
struct Pair {
    first: AtomicU64,
    second: AtomicU64,
}

const STARTS: &[&str] = &["names.", "file.", "published.", "placed.", "members."];

fn points() -> BTreeSet<String> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut points = BTreeSet::new();
    for directory in [sources.clone(), sources.join("placed")] {
        for file in std::fs::read_dir(directory).unwrap() {
            let path = file.unwrap().path();
            let text = if path.is_file() { std::fs::read_to_string(path).unwrap() } else { continue };
            for part in text.split("crash::point(\"").skip(1) {
                points.insert(part.split('"').next().unwrap().to_owned());
            }
        }
    }
    points.retain(|point| STARTS.iter().any(|start| point.starts_with(start)));
    points
}

#[test]
fn child() {
    let Some((role, arguments)) = child::role() else { return };
    match role.as_str() {
        "tour" => tour(&arguments[0], &arguments[1], &arguments[2]),
        "member" => {
            let _pair = Segment::<Pair>::open(&arguments[0]).unwrap();
            say("is in");
            listen();
        }
        other => panic!("no role {other}"),
    }
}

/// Once through all there is, with names that begin with `base`.
fn tour(base: &str, file: &str, session: &str) {
    // A domain in which somebody may have died.
    let shared = Segment::<Pair>::open(base).unwrap();
    place::of(std::ptr::from_ref(&*shared).addr()).unwrap().domain().recover();
    let equal = |pair: &mut Pair| (*pair.first.get_mut(), *pair.second.get_mut()) = (7, 7);
    let named = Segment::<Pair>::create_with(&format!("{base}-typed"), equal).unwrap();
    assert_eq!(named.first.load(Ordering::Relaxed), named.second.load(Ordering::Relaxed));
    drop(named);
    let mut raw = RawSegment::create(&format!("{base}-raw"), 10).unwrap();
    raw.write(3, b"seven").unwrap();
    raw.persist().unwrap();
    RawSegment::unlink(&format!("{base}-raw")).unwrap();
    drop(RawSegment::create(&format!("{base}-raw"), 10).unwrap());
    // Ready exactly once, and then whole.
    let made = FileSegment::<Pair>::open_or_create(file, equal).unwrap();
    assert_eq!((made.first.load(Ordering::Relaxed), made.second.load(Ordering::Relaxed)), (7, 7));
    // Another file, with nobody in it but the dead.
    let copy = format!("{file}-copy");
    std::fs::copy(file, &copy).unwrap();
    let copied = FileSegment::<Pair>::open(&copy).unwrap();
    assert_eq!(copied.second.load(Ordering::Relaxed), 7);
    let session = std::fs::File::options().read(true).write(true).open(session).unwrap();
    let session = Session::from_fd(session.into()).unwrap();
    // One who died may have left the name.
    let _ = session.unpublish("pair");
    let pair = Shared::<Pair>::with_in(session, |_| ()).unwrap();
    session.publish("pair", &pair).unwrap();
    drop(pair);
    session.lookup::<Shared<Pair>>("pair").unwrap().first.store(1, Ordering::Relaxed);
    session.unpublish("pair").unwrap();
}

fn die_at(point: &str, nth: u32) -> bool {
    let base = unique("crash");
    let path = std::env::temp_dir().join(&base);
    let file = path.to_str().unwrap();
    let copy = format!("{file}-copy");
    let shared = Segment::<Pair>::create(&base).unwrap();
    let mut dead = child::start("member", &[&base]);
    dead.hear();
    dead.kill();
    let session = Session::current().unwrap();
    let session_path = format!("/proc/{}/fd/{}", std::process::id(), session.fd().as_raw_fd());
    let arguments = [base.as_str(), file, &session_path];
    let mut command = child::command("tour", &arguments);
    command.env("MP_CRASH", format!("{point}:{nth}"));
    let victim = child::run(command).finish();
    let died = std::os::unix::process::ExitStatusExt::signal(&victim) == Some(9);
    assert!(died || victim.success(), "{point}:{nth}: {victim:?}");
    let survivor = child::start("tour", &arguments).finish();
    assert!(survivor.success(), "{point}:{nth}: after the kill: {survivor:?}");
    let left = segment::list().unwrap();
    assert!(!left.iter().any(|one| one.name.starts_with(&format!("{base}-"))), "{point}:{nth}: {left:?}");
    assert!(!Path::new(&format!("/dev/shm/{base}-raw")).exists(), "{point}:{nth}");
    let audit = session.audit();
    assert!(
        audit.counts_are_right && audit.references == 0 && audit.objects == 0 && audit.names == 0,
        "{point}:{nth}: {audit:?}"
    );
    // In the domain only this process is left.
    let domain = place::of(std::ptr::from_ref(&*shared).addr()).unwrap().domain();
    domain.recover();
    assert!(!domain.sentinels(&mut |_, _| panic!("{point}:{nth}: somebody is left")));
    std::fs::remove_file(&path).unwrap();
    std::fs::remove_file(copy).unwrap();
    died
}

#[test]
fn d4_a_kill_at_every_step_of_a_segment_leaves_nothing_behind() {
    let _watchdog = watchdog(Duration::from_secs(170));
    if child::role().is_some() {
        return;
    }
    let points = points();
    assert!(points.len() > 15, "the sources name their points: {points:?}");
    let mut never = Vec::new();
    for point in &points {
        let died = [1, 2, 3, 5].map(|nth| die_at(point, nth));
        println!("{point}: {died:?}");
        if !died.contains(&true) {
            never.push(point);
        }
    }
    assert!(never.is_empty(), "never passed: {never:?}");
}
