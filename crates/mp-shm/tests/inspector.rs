//! Looking into a program from outside, also into one that hangs, and into garbage.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

mod child;

use child::{listen, say, unique};
use mp_shm::handle::Kind;
use mp_shm::inspect::{self, Report, SegmentReport, SessionReport};
use mp_shm::layout::{Header, PROCESSES, SPANS};
use mp_shm::place::WaitKind;
use mp_shm::{Segment, Session, Shared, place};
use mp_testkit::{proc, watchdog};
use std::mem::offset_of;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

#[test]
fn child() {
    let Some((role, arguments)) = child::role() else { return };
    assert_eq!(role, "hangs");
    let session = Session::current().unwrap();
    let board = Shared::<AtomicU64>::zeroed().unwrap();
    session.publish("board", &board).unwrap();
    let _message = session.allocate(Kind::MESSAGE, 10_000).unwrap();
    let segment = Segment::<[AtomicU64; 8]>::create(&arguments[0]).unwrap();
    let (first, second) = (std::ptr::from_ref(&*board).addr(), std::ptr::from_ref(&segment[3]).addr());
    let _waits = [(first, WaitKind::Mutex), (second, WaitKind::Semaphore)]
        .map(|(address, kind)| place::of(address).unwrap().note_wait(address, kind).unwrap());
    say("hangs");
    listen();
}

/// What a process takes part in. (Others may have it open, too: the test itself, say.)
fn reports_of(pid: u32) -> (Vec<SessionReport>, Vec<SegmentReport>) {
    let takes_part = |list: &[inspect::Participant]| list.iter().any(|one| one.pid == pid);
    let (mut sessions, mut segments) = (Vec::new(), Vec::new());
    for found in inspect::find() {
        match inspect::read(&found.path) {
            Some(Report::Session(report)) if takes_part(&report.participants) => sessions.push(report),
            Some(Report::Segment(report)) if takes_part(&report.participants) => segments.push(report),
            _ => {}
        }
    }
    (sessions, segments)
}

#[test]
fn d13_a_hung_program_is_looked_at_as_it_is() {
    let _watchdog = watchdog(LONG);
    let name = unique("d13");
    let mut child = child::start("hangs", &[&name]);
    assert_eq!(child.hear(), "hangs");
    let pid = child.pid();
    let stop = Command::new("kill").args(["-STOP", &pid.to_string()]).status().unwrap();
    assert!(stop.success());
    proc::until(|| proc::Task::leader(pid).state() == Some('T'));
    let found = inspect::find();
    let is_session = |found: &&inspect::Found| matches!(inspect::read(&found.path), Some(Report::Session(_)));
    let session = found.iter().filter(|found| found.pid == pid).find(is_session).unwrap();
    let file = std::fs::File::options().read(true).write(true).open(&session.path).unwrap();
    // It seems to hang with the domain's lock held: who would take it here waits for ever.
    let lock = offset_of!(Header, lock) as u64;
    file.write_all_at(&pid.to_ne_bytes(), lock).unwrap();
    let mut before = vec![0; 8 << 20];
    file.read_exact_at(&mut before, 0).unwrap();
    let occupied = file.metadata().unwrap().blocks();

    let (sessions, segments) = reports_of(pid);
    let [report] = &sessions[..] else { panic!("{sessions:?}") };
    assert_eq!(report.lock_holder, Some(pid));
    assert_eq!(report.participants.len(), 1, "{:?}", report.participants);
    let one = &report.participants[0];
    assert!(one.pid == pid && one.alive && one.registered && one.name.starts_with("inspector"), "{one:?}");
    let [object] = &report.objects[..] else { panic!("{report:?}") };
    assert_eq!((object.kind, object.holders), (Kind::VALUE, [2, 0]), "a handle and a name");
    assert_eq!(report.names, [("board".to_owned(), object.offset)]);
    let message = &report.blocks[&(Kind::MESSAGE.0, u16::try_from(one.id).unwrap())];
    assert!(message.count == 1 && message.bytes >= 10_000, "{message:?}");
    let [wait] = &report.waits[..] else { panic!("{report:?}") };
    assert!(wait.pid == pid && wait.kind == WaitKind::Mutex && wait.offset == object.offset + 64, "{wait:?}");
    assert!(report.committed_bytes > 0 && report.committed_bytes < report.size_bytes && !report.more_blocks);

    let [report] = &segments[..] else { panic!("{segments:?}") };
    assert!(report.name == name && report.owner == pid && report.lock_holder.is_none());
    assert!(report.participants.len() == 1 && report.participants[0].alive);
    let [wait] = &report.waits[..] else { panic!("{report:?}") };
    assert!(wait.kind == WaitKind::Semaphore && wait.offset == (24 << 10) + 24, "{wait:?}");

    // Nothing was changed, and no page came into being.
    assert_eq!(file.metadata().unwrap().blocks(), occupied);
    let mut after = vec![0; 8 << 20];
    file.read_exact_at(&mut after, 0).unwrap();
    assert!(before == after);
    drop(child);
    mp_shm::segment::list().unwrap();
}

#[test]
fn d13_garbage_is_read_without_harm() {
    let _watchdog = watchdog(LONG);
    let session = Session::create().unwrap();
    let _board = Shared::<AtomicU64>::with_in(session, |_| ()).unwrap();
    let path = std::env::temp_dir().join(unique("garbage"));
    let copy =
        std::fs::File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
    let source = std::fs::File::from(session.fd().try_clone_to_owned().unwrap());
    let mut whole = vec![0; 9 << 20];
    source.read_exact_at(&mut whole, 0).unwrap();
    copy.write_all_at(&whole, 0).unwrap();
    assert!(matches!(inspect::read(&path), Some(Report::Session(_))));
    let abi = offset_of!(Header, size) as u64;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..40 {
        // All behind magic and version, in the header, or in the tables.
        for start in [abi, offset_of!(Header, dirty) as u64, PROCESSES, SPANS] {
            for at in 0..64 {
                let word = if round % 2 == 0 { random() } else { u64::MAX };
                copy.write_all_at(&word.to_ne_bytes(), start + at * 8).unwrap();
            }
        }
        let _ = inspect::read(&path);
    }
    for len in [100_000, 4096, 100, 8, 0] {
        copy.set_len(len).unwrap();
        let _ = inspect::read(&path);
    }
    assert!(inspect::read(&path).is_none());
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn d13_the_inspector_finds_this_program() {
    let _watchdog = watchdog(LONG);
    let session = Session::create().unwrap();
    let board = Shared::<AtomicU64>::with_in(session, |_| ()).unwrap();
    board.store(1, Ordering::Relaxed);
    let (sessions, _) = reports_of(std::process::id());
    let ours = sessions.iter().find(|report| report.number == u32::from(session.number())).unwrap();
    assert_eq!(ours.objects.len(), 1);
    assert!(ours.participants.iter().any(|one| one.pid == std::process::id() && one.alive));
}
