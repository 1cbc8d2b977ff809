//! Raw segments: clear results, owner against opener, leftovers, and the same memory in Python.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

mod child;

use child::{listen, say, unique};
use mp_shm::RawSegment;
use mp_shm::error::SegmentError;
use mp_testkit::watchdog;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

fn path(name: &str) -> PathBuf {
    PathBuf::from("/dev/shm").join(name)
}

#[test]
fn child() {
    let Some((role, arguments)) = child::role() else { return };
    let name = arguments[0].as_str();
    match role.as_str() {
        "owner" => {
            let mut raw = RawSegment::create(name, 5000).unwrap();
            raw.write(0, b"mine").unwrap();
            say("created");
            match listen().as_str() {
                "exit" => {
                    std::mem::forget(raw);
                    std::process::exit(0)
                }
                "persist" => raw.persist().unwrap(),
                _ => {}
            }
        }
        "opener" => {
            let raw = RawSegment::open(name).unwrap();
            raw.write(4999, b"x").unwrap();
            say("opened");
            listen();
        }
        other => panic!("no role {other}"),
    }
}

#[test]
fn d1_a_raw_segment_is_created_opened_and_gone() {
    let _watchdog = watchdog(LONG);
    let name = unique("raw-d1");
    assert!(matches!(RawSegment::open(&name), Err(SegmentError::NotFound)));
    assert!(matches!(RawSegment::create(&name, 0), Err(SegmentError::SizeZero)));
    assert!(!path(&name).exists());
    let mine = RawSegment::create(&name, 5000).unwrap();
    assert!(matches!(RawSegment::create(&name, 5000), Err(SegmentError::InUse)));
    let theirs = RawSegment::open(&name).unwrap();
    assert_eq!((mine.len(), theirs.len()), (5000, 5000));
    mine.write(4990, b"0123456789").unwrap();
    let mut bytes = [0; 10];
    theirs.read(4990, &mut bytes).unwrap();
    assert_eq!(&bytes, b"0123456789");
    assert!(matches!(theirs.read(4991, &mut bytes), Err(SegmentError::OutOfRange)));
    assert!(matches!(theirs.write(u64::MAX, &bytes), Err(SegmentError::OutOfRange)));
    theirs.read(5000, &mut []).unwrap();
    theirs.prefault(0..5000).unwrap();
    assert!(theirs.prefault(0..5001).is_err());
    drop(theirs);
    assert!(path(&name).exists(), "an opener leaves it");
    RawSegment::unlink(&name).unwrap();
    assert!(matches!(RawSegment::unlink(&name), Err(SegmentError::NotFound)));
    assert!(matches!(RawSegment::open(&name), Err(SegmentError::NotFound)));
    mine.write(0, b"still there").unwrap();
}

#[test]
fn d1_a_raw_name_is_checked_and_the_file_is_closed_to_others() {
    use std::os::unix::fs::PermissionsExt;
    for name in ["", "a/b", ".hidden", "a\0b"] {
        assert!(matches!(RawSegment::create(name, 1), Err(SegmentError::BadName(_))));
        assert!(matches!(RawSegment::open(name), Err(SegmentError::BadName(_))));
        assert!(matches!(RawSegment::unlink(name), Err(SegmentError::BadName(_))));
    }
    let name = unique("raw-mode");
    let _mine = RawSegment::create(&name, 1).unwrap();
    let file = std::fs::metadata(path(&name)).unwrap();
    assert_eq!((file.permissions().mode() & 0o777, file.len()), (0o600, 1));
}

#[test]
fn d1_a_raw_segment_of_no_bytes_is_an_error_and_a_link_is_not_followed() {
    let name = unique("raw-empty");
    std::fs::write(path(&name), b"").unwrap();
    assert!(matches!(RawSegment::open(&name), Err(SegmentError::SizeZero)));
    std::fs::remove_file(path(&name)).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", path(&name)).unwrap();
    assert!(matches!(RawSegment::open(&name), Err(SegmentError::Io { .. })));
    assert!(matches!(RawSegment::create(&name, 1), Err(SegmentError::InUse)));
    std::fs::remove_file(path(&name)).unwrap();
}

#[test]
fn d2_a_raw_segment_goes_with_its_owner_unless_it_is_to_stay() {
    let _watchdog = watchdog(LONG);
    for (how, stays) in [("exit", false), ("drop", false), ("persist", true)] {
        let name = unique("raw-d2");
        let mut owner = child::start("owner", &[&name]);
        owner.hear();
        owner.tell(how);
        assert!(owner.finish().success());
        assert_eq!(path(&name).exists(), stays, "{how}");
        assert_eq!(RawSegment::unlink(&name).is_ok(), stays, "{how}");
    }
}

#[test]
fn d3_who_opens_a_raw_segment_never_destroys_it() {
    let _watchdog = watchdog(LONG);
    let name = unique("raw-d3");
    let mine = RawSegment::create(&name, 5000).unwrap();
    let mut killed = child::start("opener", &[&name]);
    killed.hear();
    killed.kill();
    let mut opener = child::start("opener", &[&name]);
    opener.hear();
    assert!(opener.finish().success());
    let mut byte = [0];
    RawSegment::open(&name).unwrap().read(4999, &mut byte).unwrap();
    assert_eq!(&byte, b"x");
    drop(mine);
}

#[test]
fn d4_a_raw_segment_of_a_killed_owner_is_swept_but_not_anothers() {
    let _watchdog = watchdog(LONG);
    type Way = (&'static str, fn(&str));
    let ways: [Way; 3] = [
        ("open", |name| assert!(matches!(RawSegment::open(name), Err(SegmentError::NotFound)))),
        ("list", |_| drop(mp_shm::segment::list().unwrap())),
        ("create", |name| drop(RawSegment::create(name, 1).unwrap())),
    ];
    for (way, look) in ways {
        let name = unique("raw-d4");
        let mut owner = child::start("owner", &[&name]);
        owner.hear();
        owner.kill();
        look(&name);
        assert!(!path(&name).exists(), "after {way}");
    }
    // What somebody else has put in its place is not ours to sweep.
    let name = unique("raw-d4-other");
    let mut owner = child::start("owner", &[&name]);
    owner.hear();
    let elsewhere = path(&format!("{name}-new"));
    std::fs::write(&elsewhere, b"not yours").unwrap();
    std::fs::rename(&elsewhere, path(&name)).unwrap();
    owner.kill();
    mp_shm::segment::list().unwrap();
    assert_eq!(std::fs::read(path(&name)).unwrap(), b"not yours");
    std::fs::remove_file(path(&name)).unwrap();
}

/// Opens the memory for good: without having it removed at Python's end.
const OPEN: &str = r#"
import sys
from multiprocessing import shared_memory, resource_tracker
def opened(name, **how):
    if sys.version_info >= (3, 13):
        return shared_memory.SharedMemory(name=name, track=False, **how)
    memory = shared_memory.SharedMemory(name=name, **how)
    resource_tracker.unregister(memory._name, "shared_memory")
    return memory
"#;

/// Runs a Python program, which is given `name`; `None` where there is no Python.
fn python(name: &str, program: &str) -> Option<std::process::Child> {
    let started = Command::new("python3")
        .args(["-c", &format!("{OPEN}{program}"), name])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    if started.is_err() {
        println!("skipped: there is no python3 here");
    }
    started.ok()
}

#[test]
fn d14_python_opens_our_raw_segment() {
    let _watchdog = watchdog(LONG);
    let name = unique("raw-d14-ours");
    let mine = RawSegment::create(&name, 1 << 16).unwrap();
    mine.write(100, b"hello from rust").unwrap();
    let program = r#"
memory = opened(sys.argv[1])
assert memory.size == 1 << 16, memory.size
assert bytes(memory.buf[100:115]) == b"hello from rust", bytes(memory.buf[100:115])
memory.buf[200:217] = b"hello from python"
memory.close()
"#;
    let Some(python) = python(&name, program) else { return };
    assert!(python.wait_with_output().unwrap().status.success());
    let mut bytes = [0; 17];
    mine.read(200, &mut bytes).unwrap();
    assert_eq!(&bytes, b"hello from python");
    assert!(path(&name).exists(), "Python only opened it");
}

#[test]
fn d14_we_open_pythons_shared_memory() {
    let _watchdog = watchdog(LONG);
    let name = unique("raw-d14-theirs");
    let program = r#"
memory = shared_memory.SharedMemory(name=sys.argv[1], create=True, size=3000)
memory.buf[0:17] = b"hello from python"
print("ready", flush=True)
assert sys.stdin.readline() == "look\n"
assert bytes(memory.buf[2985:3000]) == b"hello from rust", bytes(memory.buf[2985:3000])
memory.close()
memory.unlink()
"#;
    let Some(mut python) = python(&name, program) else { return };
    let mut line = String::new();
    BufReader::new(python.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let theirs = RawSegment::open(&name).unwrap();
    assert!(theirs.len() >= 3000);
    let mut bytes = [0; 17];
    theirs.read(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"hello from python");
    theirs.write(2985, b"hello from rust").unwrap();
    assert!(matches!(RawSegment::create(&name, 1), Err(SegmentError::InUse)));
    drop(theirs);
    assert!(path(&name).exists(), "we only opened it");
    python.stdin.take().unwrap().write_all(b"look\n").unwrap();
    assert!(python.wait().unwrap().success());
    assert!(matches!(RawSegment::open(&name), Err(SegmentError::NotFound)));
}
