//! No memory, no address space, no descriptors: errors, never signals.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "writing all of a block")]

mod child;

use child::{say, unique};
use mp_shm::handle::Kind;
use mp_shm::{FileSegment, RawSegment, Segment, Session};
use mp_testkit::watchdog;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);
const LARGE: usize = 1 << 20;

/// A value of 64 MiB.
type Huge = [[AtomicU64; 1024]; 8192];

#[test]
fn child() {
    let Some((role, arguments)) = child::role() else { return };
    match role.as_str() {
        // With a limit on address space: whatever can be had is usable, and the rest is an error.
        "address space" => {
            let named = unique("limit");
            let huge = Segment::<Huge>::create(&named).map(|_| ());
            let raw = RawSegment::create(&named, 1 << 40).map(|_| ());
            match Session::current().and_then(|session| session.me().map(|_| session)) {
                Err(error) => say(&format!("no session ({error}), {huge:?}, {raw:?}")),
                Ok(session) => {
                    let used = use_up(session, 2000);
                    assert!(used > 0, "a session without room");
                    say(&format!("a session, {huge:?}, {raw:?}"));
                }
            }
        }
        // With hardly any descriptors.
        "descriptors" => {
            let ways: [fn() -> bool; 3] = [
                || Session::create().is_ok(),
                || Segment::<AtomicU64>::create(&unique("limit")).is_ok(),
                || RawSegment::create(&unique("limit"), 1).is_ok(),
            ];
            for (number, way) in ways.into_iter().enumerate() {
                let mut open = Vec::new();
                while let Ok(file) = std::fs::File::open("/dev/null") {
                    open.push(file);
                }
                // One after the other is given back until it succeeds.
                let failed = (0..10).take_while(|_| !way() && open.pop().is_some()).count();
                assert!((1..10).contains(&failed), "way {number} failed {failed} times");
            }
            say("all came to succeed");
        }
        // In a file system of 3 MiB.
        "full" => {
            // Of the names' directory, too.
            drop(Segment::<AtomicU64>::create("small").unwrap());
            let error = RawSegment::create("large", 64 << 20).unwrap_err();
            assert!(error.to_string().starts_with("creating a raw segment: "), "{error}");
            let path = "/dev/shm/file";
            let error = FileSegment::<Huge>::open_or_create(path, |_| ()).unwrap_err();
            assert!(error.to_string().starts_with("making a file for a value: "), "{error}");
            // What failed has left nothing: there is room for what fits, and every byte of that can be written.
            let raw = RawSegment::create("fits", 1 << 20).unwrap();
            raw.write(0, &[7; 1 << 20]).unwrap();
            raw.prefault(0..1 << 20).unwrap();
            let file = FileSegment::<[AtomicU64; 1000]>::open_or_create(path, |_| ()).unwrap();
            file.iter().for_each(|word| word.store(u64::MAX, Ordering::Relaxed));
            // Until even a name is too much: an error again.
            let rest = std::fs::File::create("/dev/shm/rest").unwrap();
            let mut free = &rest;
            while std::io::Write::write(&mut free, &[0; 4096]).is_ok() {}
            let error = Segment::<AtomicU64>::create("named").unwrap_err();
            say(&error.to_string());
            assert!(arguments.is_empty());
        }
        other => panic!("no role {other}"),
    }
}

/// Allocates and writes blocks until there are no more, `most` at most; says how many.
fn use_up(session: Session, most: usize) -> usize {
    let mut blocks = Vec::new();
    while blocks.len() < most {
        let Ok(block) = session.allocate(Kind::MESSAGE, LARGE) else { break };
        // SAFETY: the block is this process's alone, and has room for this.
        unsafe { block.payload().write_bytes(7, LARGE) };
        blocks.push(block);
    }
    blocks.len()
}

/// Runs a role under a shell that sets a limit first.
fn limited(limit: &str, role: &str) -> child::Child {
    let plain = child::command(role, &[]);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("{limit} && exec \"$@\""), "sh"])
        .arg(plain.get_program())
        .args(plain.get_args());
    plain.get_envs().for_each(|(name, value)| {
        shell.env(name, value.unwrap_or_default());
    });
    child::run(shell)
}

#[test]
fn d5_a_small_address_space_is_an_error_or_a_smaller_session() {
    let _watchdog = watchdog(LONG);
    for (kib, expected) in [(40_000, "no session"), (400_000, "a session"), (2_000_000, "a session")] {
        let mut child = limited(&format!("ulimit -v {kib}"), "address space");
        let said = child.hear();
        assert!(said.starts_with(expected), "{kib} KiB: {said}");
        assert!(said.contains("creating a raw segment") || said.contains("Io {"), "{said}");
        let status = child.finish();
        assert!(status.success(), "{kib} KiB: {status:?}");
    }
}

#[test]
fn d5_no_descriptors_is_an_error() {
    let _watchdog = watchdog(LONG);
    let mut child = limited("ulimit -n 24", "descriptors");
    child.hear();
    let status = child.finish();
    assert!(status.success(), "{status:?}");
}

#[test]
fn d5_a_full_dev_shm_is_an_error_never_sigbus() {
    let _watchdog = watchdog(LONG);
    let mount = "mount -t tmpfs -o size=3m,mode=1777 none /dev/shm";
    let permitted = Command::new("unshare").args(["-m", "sh", "-c", mount]).output();
    if !permitted.is_ok_and(|output| output.status.success()) {
        println!("skipped: no mount namespace of our own is permitted here");
        return;
    }
    let plain = child::command("full", &[]);
    let mut apart = Command::new("unshare");
    apart.args(["-m", "sh", "-c", &format!("{mount} && exec \"$@\""), "sh"]);
    apart.arg(plain.get_program()).args(plain.get_args());
    plain.get_envs().for_each(|(name, value)| {
        apart.env(name, value.unwrap_or_default());
    });
    let mut child = child::run(apart);
    let said = child.hear();
    assert!(said.contains("No space left"), "{said}");
    let status = child.finish();
    assert!(status.success(), "{status:?}");
}

#[test]
fn d5_a_session_commits_and_prefaults() {
    let _watchdog = watchdog(LONG);
    let session = Session::create().unwrap();
    let before = session.committed_bytes().unwrap();
    session.commit(10 << 20).unwrap();
    assert!(session.committed_bytes().unwrap() >= before + (10 << 20));
    assert!(session.commit(1 << 50).is_err() && session.commit(u64::MAX).is_err());
    let _small = session.allocate(Kind::MESSAGE, 100).unwrap();
    let _large = session.allocate(Kind::MESSAGE, 1 << 20).unwrap();
    let committed = session.committed_bytes().unwrap();
    session.prefault().unwrap();
    assert_eq!(session.committed_bytes().unwrap(), committed, "what was committed is enough");
    let granted = session.advise_huge_pages().unwrap();
    println!("huge pages: {granted:?}");
    // Twice: by the advice, and by touching, in a process that is told that the kernel has none.
    if std::env::var_os("MP_FORCE").is_none() {
        let mut touching = Command::new(std::env::current_exe().unwrap());
        touching.args(["--exact", "d5_a_session_commits_and_prefaults"]).env("MP_FORCE", "no-populate");
        assert!(touching.output().unwrap().status.success());
    }
}
