//! Values in files of the user's own: made by exactly one, kept, refused if they do not fit, freed of those long dead.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "tests link robust words")]

mod child;

use child::{listen, say, unique};
use mp_shm::error::SegmentError;
use mp_shm::safe::RobustWord;
use mp_shm::{FileSegment, ShmSafe};
use mp_sys::robust::{self, OWNER_DIED, TID_MASK};
use mp_testkit::watchdog;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

#[derive(ShmSafe, Debug)]
#[repr(C)]
struct State {
    lock: RobustWord,
    set_ups: AtomicU64,
    count: AtomicU64,
}

/// A path that is removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(what: &str) -> Self {
        Self(std::env::temp_dir().join(unique(what)))
    }

    fn text(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn open_or_create(path: &Path) -> FileSegment<State> {
    FileSegment::open_or_create(path, |state: &mut State| *state.set_ups.get_mut() += 1).unwrap()
}

#[test]
fn child() {
    let Some((role, arguments)) = child::role() else { return };
    let path = Path::new(&arguments[0]);
    match role.as_str() {
        "member" => {
            say("ready");
            listen();
            let state = open_or_create(path);
            state.count.fetch_add(1, Ordering::Relaxed);
            say("counted");
            listen();
        }
        "holder" => {
            let state = open_or_create(path);
            // SAFETY: the file stays mapped until this process ends; the word is linked once.
            unsafe { robust::link(&state.lock) }.unwrap();
            say("holds");
            listen();
        }
        "half" => {
            let made = FileSegment::<State>::open_or_create(path, |_| {
                say("half made");
                listen();
            });
            drop(made);
        }
        other => panic!("no role {other}"),
    }
}

#[test]
fn d1_a_file_keeps_its_value_and_is_made_by_exactly_one() {
    let _watchdog = watchdog(LONG);
    let path = Scratch::new("file-one");
    assert!(matches!(FileSegment::<State>::open(&path.0), Err(SegmentError::NotFound)));
    let mut members: Vec<_> = (0..6).map(|_| child::start("member", &[path.text()])).collect();
    members.iter_mut().for_each(|member| assert_eq!(member.hear(), "ready"));
    members.iter_mut().for_each(|member| member.tell("go"));
    members.iter_mut().for_each(|member| assert_eq!(member.hear(), "counted"));
    members.into_iter().for_each(|member| assert!(member.finish().success()));
    // Nobody is attached now; the value is still there.
    let state = FileSegment::<State>::open(&path.0).unwrap();
    assert_eq!((state.set_ups.load(Ordering::Relaxed), state.count.load(Ordering::Relaxed)), (1, 6));
    let again = open_or_create(&path.0);
    assert!(std::ptr::eq(&raw const *again, &raw const *state), "one mapping a process");
}

#[test]
fn d6_a_lock_whose_owner_is_long_dead_is_found_so() {
    let _watchdog = watchdog(LONG);
    let path = Scratch::new("file-boot");
    drop(child::start("member", &[path.text()]));
    let mut member = child::start("member", &[path.text()]);
    member.tell("go");
    while member.hear() != "counted" {}
    // As after a power failure: what was noted is there, and nobody is.
    let image = {
        let mut holder = child::start("holder", &[path.text()]);
        assert_eq!(holder.hear(), "holds");
        let image = std::fs::read(&path.0).unwrap();
        holder.kill();
        image
    };
    assert!(member.finish().success());
    let copy = Scratch::new("file-boot-copy");
    std::fs::write(&copy.0, &image).unwrap();
    let payload = 24 << 10;
    let word = u32::from_ne_bytes(image[payload..payload + 4].try_into().unwrap());
    assert!(word & TID_MASK != 0 && word & OWNER_DIED == 0, "it was held: {word:#x}");
    let state = FileSegment::<State>::open(&copy.0).unwrap();
    let word = state.lock.word.load(Ordering::Acquire);
    assert!(word & OWNER_DIED != 0 && word & TID_MASK == 0, "it is known as dead: {word:#x}");
    // Its members' entries are free: the one here is the only one.
    let domain = mp_shm::place::of(std::ptr::from_ref(&*state).addr()).unwrap().domain();
    let mut others = 0;
    let dead = domain.sentinels(&mut |_, _| {
        others += 1;
        true
    });
    assert_eq!((others, dead), (0, false));
}

#[test]
fn d6_while_others_are_attached_their_locks_are_left_alone() {
    let _watchdog = watchdog(LONG);
    let path = Scratch::new("file-live");
    let mut holder = child::start("holder", &[path.text()]);
    assert_eq!(holder.hear(), "holds");
    let state = FileSegment::<State>::open(&path.0).unwrap();
    let word = state.lock.word.load(Ordering::Acquire);
    assert!(word & TID_MASK != 0 && word & OWNER_DIED == 0);
    let domain = mp_shm::place::of(std::ptr::from_ref(&*state).addr()).unwrap().domain();
    let mut others = 0;
    domain.sentinels(&mut |_, _| {
        others += 1;
        true
    });
    assert_eq!(others, 1, "it takes part");
    holder.kill();
    assert!(state.lock.word.load(Ordering::Acquire) & OWNER_DIED != 0, "the kernel has marked it");
}

#[test]
fn d6_a_half_made_file_is_made_anew() {
    let _watchdog = watchdog(LONG);
    let path = Scratch::new("file-half");
    let mut half = child::start("half", &[path.text()]);
    assert_eq!(half.hear(), "half made");
    let file = std::fs::File::open(&path.0).unwrap();
    assert!(file.try_lock_shared().is_err(), "its maker keeps all others out");
    let mut member = child::start("member", &[path.text()]);
    member.tell("go");
    assert_eq!(member.hear(), "ready");
    half.kill();
    assert_eq!(member.hear(), "counted");
    assert!(member.finish().success());
    let state = FileSegment::<State>::open(&path.0).unwrap();
    assert_eq!((state.set_ups.load(Ordering::Relaxed), state.count.load(Ordering::Relaxed)), (1, 1));
}

#[test]
fn d6_a_file_whose_set_up_panicked_is_made_anew() {
    let _watchdog = watchdog(LONG);
    let path = Scratch::new("file-panic");
    let panicking =
        || FileSegment::<State>::open_or_create(&path.0, |_| panic!("this is a test")).map(|_| ());
    assert!(std::panic::catch_unwind(panicking).is_err());
    assert!(matches!(FileSegment::<State>::open(&path.0), Err(SegmentError::NotInitialised)));
    let mut member = child::start("member", &[path.text()]);
    member.tell("go");
    while member.hear() != "counted" {}
    let file = std::fs::File::open(&path.0).unwrap();
    assert!(file.try_lock().is_err(), "who is attached keeps it locked");
    assert!(file.try_lock_shared().is_ok());
    drop(file);
    assert!(member.finish().success());
}

#[test]
fn d6_files_that_do_not_fit_are_refused_and_left_as_they_are() {
    let _watchdog = watchdog(LONG);
    let text = Scratch::new("file-foreign");
    for content in [&b"x"[..], &[b'x'; 100_000], &[0; 100_000], &[0; 7]] {
        std::fs::write(&text.0, content).unwrap();
        let opened = FileSegment::<State>::open_or_create(&text.0, |_| panic!("it is not ours"));
        assert!(matches!(opened, Err(SegmentError::NotASegment)), "{opened:?}");
        assert_eq!(std::fs::read(&text.0).unwrap(), content);
    }
    let path = Scratch::new("file-whole");
    let mut member = child::start("member", &[path.text()]);
    member.tell("go");
    while member.hear() != "counted" {}
    assert!(member.finish().success());
    let whole = std::fs::read(&path.0).unwrap();
    let with = |name: &str, change: &dyn Fn(&std::fs::File)| {
        let copy = Scratch::new(name);
        std::fs::write(&copy.0, &whole).unwrap();
        change(&std::fs::OpenOptions::new().write(true).open(&copy.0).unwrap());
        let opened = FileSegment::<State>::open_or_create(&copy.0, |_| panic!("it was made"));
        opened.map(|_| ()).unwrap_err()
    };
    let truncated = with("file-short", &|file| file.set_len(4096).unwrap());
    assert!(matches!(truncated, SegmentError::Truncated), "{truncated}");
    let truncated = with("file-short", &|file| file.set_len(whole.len() as u64 - 4096).unwrap());
    assert!(matches!(truncated, SegmentError::Truncated), "{truncated}");
    let version = with("file-version", &|file| file.write_all_at(&[1], 8).unwrap());
    assert!(matches!(version, SegmentError::OtherVersion), "{version}");
    let other = FileSegment::<[AtomicU64; 8]>::open(&path.0).map(|_| ()).unwrap_err();
    assert!(matches!(other, SegmentError::OtherLayout), "{other}");
    let directory = FileSegment::<State>::open(std::env::temp_dir()).map(|_| ()).unwrap_err();
    assert!(matches!(directory, SegmentError::Io { .. }), "{directory}");
    assert!(matches!(
        FileSegment::<State>::open_or_create("/proc/self/no-such-directory/x", |_| ()),
        Err(SegmentError::NotFound)
    ));
}

#[test]
fn d6_a_file_of_another_pid_namespace_is_refused_while_it_is_in_use() {
    let _watchdog = watchdog(LONG);
    let path = Scratch::new("file-namespace");
    let mut holder = child::start("holder", &[path.text()]);
    assert_eq!(holder.hear(), "holds");
    std::fs::OpenOptions::new().write(true).open(&path.0).unwrap().write_all_at(&[1, 0, 0, 0], 36).unwrap();
    let refused = FileSegment::<State>::open(&path.0).map(|_| ()).unwrap_err();
    assert!(matches!(refused, SegmentError::OtherPidNamespace), "{refused}");
    holder.kill();
    // Nobody is in it any more.
    FileSegment::<State>::open(&path.0).unwrap();
}

#[test]
fn d6_a_replaced_file_is_another_one() {
    let _watchdog = watchdog(LONG);
    let path = Scratch::new("file-replaced");
    let first = open_or_create(&path.0);
    first.count.store(9, Ordering::Relaxed);
    std::fs::remove_file(&path.0).unwrap();
    let second = open_or_create(&path.0);
    assert_eq!(second.count.load(Ordering::Relaxed), 0);
    assert_eq!(first.count.load(Ordering::Relaxed), 9, "who has the first keeps it");
    second.prefault().unwrap();
}
