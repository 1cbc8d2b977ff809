//! Segments, files and sealed archives as handles in messages. One test alone in its process: it looks at all that is left.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, Sender, channel};
use mp_shm::error::SegmentError;
use mp_shm::fds::{self, FdFailure};
use mp_shm::sealed::SealedError;
use mp_shm::{FileSegment, MemoryHandle, RawSegment, SealedFrozen, Segment, Session, segment};
use mp_spawn::Process;
use mp_testkit::{LeakCheck, assert_no_backstop, proc, watchdog};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

type Count = Segment<AtomicU64>;
type Words = SealedFrozen<Vec<String>>;
type Kept = FileSegment<AtomicU64>;

type All = (MemoryHandle<Count>, Option<MemoryHandle<RawSegment>>, Vec<MemoryHandle<Words>>);

fn unique(name: &str) -> String {
    format!("test-handed-{name}-{}", std::process::id())
}

#[test]
fn b4_memory_of_its_own_travels_inside_messages() {
    let _watchdog = watchdog(Duration::from_secs(120));
    let path = std::env::temp_dir().join(unique("file"));
    // Stays open until the process ends.
    let kept = Kept::open_or_create(&path, |count| *count.get_mut() = 5).unwrap();
    // Its path is gone; a handle does not need it.
    std::fs::remove_file(&path).unwrap();
    let leaks = LeakCheck::begin();
    nested();
    made_by_a_child();
    without_a_name();
    a_file(&kept);
    what_does_not_fit_is_refused(&kept);
    a_lost_descriptor();
    leaks.end();
    assert_no_backstop();
}

fn use_all(inbox: Receiver<All>) -> Vec<String> {
    let (count, raw, words) = inbox.recv().unwrap();
    let count = count.open().unwrap();
    assert!(!count.is_owner());
    count.fetch_add(1, Ordering::Relaxed);
    raw.unwrap().open().unwrap().write(3, b"from the child").unwrap();
    let words = words.iter().map(|words| words.open().unwrap());
    words.flat_map(|words| words.iter().map(|word| word.as_str().to_owned()).collect::<Vec<_>>()).collect()
}

fn nested() {
    let (sender, receiver) = channel::<All>(1).unwrap();
    let child = Process::spawn(use_all, receiver).unwrap();
    let count = Count::create_with(&unique("nested"), |count| *count.get_mut() = 41).unwrap();
    let raw = RawSegment::create(&unique("raw"), 100).unwrap();
    let words = ["a", "b"].map(|word| Words::new(&vec![word.to_owned()]).unwrap().handle().unwrap());
    sender.send((count.handle().unwrap(), Some(raw.handle().unwrap()), words.into())).unwrap();
    assert_eq!(child.join().unwrap(), ["a", "b"]);
    assert_eq!(count.load(Ordering::Relaxed), 42);
    let mut bytes = [0; 14];
    raw.read(3, &mut bytes).unwrap();
    assert_eq!(&bytes, b"from the child");
    assert!(count.is_owner() && segment::exists(&unique("nested")).unwrap(), "the child took no name away");
}

/// The other direction; and the memory outlives its maker, whose name is gone.
fn made_by_a_child() {
    fn make(name: String) -> (MemoryHandle<Count>, MemoryHandle<RawSegment>, MemoryHandle<Words>) {
        let count = Count::create_with(&name, |count| *count.get_mut() = 7).unwrap();
        let raw = RawSegment::create(&name, 5).unwrap();
        raw.write(0, b"hello").unwrap();
        let words = Words::new(&vec!["sealed".to_owned()]).unwrap();
        (count.handle().unwrap(), raw.handle().unwrap(), words.handle().unwrap())
    }
    let name = unique("child");
    let (count, raw, words) = Process::spawn(make, name.clone()).unwrap().join().unwrap();
    assert!(!segment::exists(&name).unwrap());
    assert!(matches!(Count::open(&name), Err(SegmentError::NotFound)));
    let (one, other) = (count.open().unwrap(), count.clone().open().unwrap());
    one.fetch_add(1, Ordering::Relaxed);
    assert_eq!(other.load(Ordering::Relaxed), 8, "one mapping, however often it is opened");
    let mut bytes = [0; 5];
    let raw = raw.open().unwrap();
    raw.read(0, &mut bytes).unwrap();
    assert_eq!((&bytes, raw.len(), raw.is_owner()), (b"hello", 5, false));
    assert!(matches!(raw.write(5, b"x"), Err(SegmentError::OutOfRange)));
    assert_eq!(words.open().unwrap()[0], "sealed");
    let readable = count.open_read_only().unwrap();
    assert_eq!(readable.copy().into_inner(), 8);
}

/// The name leads to another segment by now; the handle does not.
fn without_a_name() {
    let name = unique("again");
    let first = Count::create_with(&name, |count| *count.get_mut() = 1).unwrap();
    let handle = first.handle().unwrap();
    segment::unlink(&name).unwrap();
    let second = Count::create_with(&name, |count| *count.get_mut() = 2).unwrap();
    drop(first);
    assert_eq!(handle.open().unwrap().load(Ordering::Relaxed), 1);
    assert_eq!(Count::open(&name).unwrap().load(Ordering::Relaxed), 2);
    assert_eq!(second.handle().unwrap().open().unwrap().load(Ordering::Relaxed), 2);
    let opener = Count::open(&name).unwrap();
    assert_eq!(
        opener.handle().unwrap().open().unwrap().load(Ordering::Relaxed),
        2,
        "an opener can hand it on"
    );
}

fn a_file(kept: &Kept) {
    fn add((file, ready): (MemoryHandle<Kept>, Sender<u64>)) -> u64 {
        let file = file.open().unwrap();
        ready.send(file.fetch_add(1, Ordering::Relaxed)).unwrap();
        file.handle().unwrap().open().unwrap().load(Ordering::Relaxed)
    }
    let handle = kept.handle().unwrap();
    let (ready, is_ready) = channel(1).unwrap();
    let child = Process::spawn(add, (handle, ready)).unwrap();
    assert_eq!(is_ready.recv().unwrap(), 5);
    assert_eq!(child.join().unwrap(), 6);
    assert_eq!(kept.load(Ordering::Relaxed), 6);
}

fn what_does_not_fit_is_refused(kept: &Kept) {
    let count = Count::create(&unique("fits")).unwrap();
    let raw = RawSegment::create(&unique("fits"), 100_000).unwrap();
    let words = Words::new(&vec!["sealed".to_owned()]).unwrap();
    let (pipe, _writer) = std::io::pipe().unwrap();
    let pipe = mp_shm::Fd::new(pipe).unwrap();
    let (count, raw, words) = (count.handle().unwrap(), raw.handle().unwrap(), words.handle().unwrap());
    let kept = kept.handle().unwrap();
    // The bytes of a message say only that it is a descriptor: what it is of is found by looking.
    let as_count = |fd: &mp_shm::Fd| other::<MemoryHandle<Count>>(fd).open().unwrap_err();
    assert!(matches!(as_count(raw.fd()), SegmentError::NotASegment));
    assert!(matches!(as_count(words.fd()), SegmentError::Io { .. }), "nobody can write it");
    assert!(matches!(as_count(&pipe), SegmentError::NotASegment));
    assert!(matches!(as_count(kept.fd()), SegmentError::NotASegment), "it could be truncated");
    let wider = other::<MemoryHandle<Segment<[AtomicU64; 2]>>>(count.fd());
    assert!(matches!(wider.open().unwrap_err(), SegmentError::OtherLayout));
    assert!(matches!(wider.open_read_only().unwrap_err(), SegmentError::OtherLayout));
    let session = mp_shm::Fd::of(Session::current().unwrap().fd()).unwrap();
    for fd in [count.fd(), words.fd(), &pipe, &session] {
        let error = other::<MemoryHandle<RawSegment>>(fd).open().unwrap_err();
        assert!(matches!(error, SegmentError::NotASegment), "{error}");
    }
    assert!(matches!(as_count(&session), SegmentError::NotASegment));
    let as_file = |fd: &mp_shm::Fd| other::<MemoryHandle<Kept>>(fd).open().unwrap_err();
    assert!(matches!(as_file(count.fd()), SegmentError::NotASegment), "its members would be forgotten");
    assert!(matches!(as_file(&pipe), SegmentError::Io { .. }));
    assert!(matches!(as_file(raw.fd()), SegmentError::NotASegment));
    let narrow = other::<MemoryHandle<FileSegment<AtomicU32>>>(kept.fd());
    assert!(matches!(narrow.open().unwrap_err(), SegmentError::OtherLayout));
    let as_words = |fd: &mp_shm::Fd| other::<MemoryHandle<Words>>(fd).open().unwrap_err();
    assert!(matches!(as_words(count.fd()), SealedError::File(_)), "it could still be changed");
    assert!(matches!(as_words(raw.fd()), SealedError::File(_)));
    let numbers = other::<MemoryHandle<SealedFrozen<Vec<u64>>>>(words.fd());
    assert!(matches!(numbers.open().unwrap_err(), SealedError::OtherType));
    assert_eq!(count.open().unwrap().load(Ordering::Relaxed), 0, "all of that has done nothing to it");
}

/// The same descriptor as if it were of a handle of type `H`.
fn other<H: mp_shm::Message>(fd: &mp_shm::Fd) -> H {
    let (writer, reader) = mp_channel::dynamic::channel(1).unwrap();
    writer.send([0; 4], fd).unwrap();
    reader.recv().unwrap().decode().unwrap()
}

fn a_lost_descriptor() {
    let count = Count::create(&unique("lost")).unwrap();
    let words = Words::new(&Vec::new()).unwrap().handle().unwrap();
    let handle = count.handle().unwrap();
    let broker = fds::status(Session::current().unwrap()).unwrap().unwrap().pid;
    let pid = rustix::process::Pid::from_raw(i32::try_from(broker).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    proc::until(|| proc::has_ended(broker));
    let SegmentError::Fd(error) = handle.open().unwrap_err() else { panic!("another error") };
    assert!(matches!(error.failure(), FdFailure::Lost));
    assert!(matches!(words.open().unwrap_err(), SealedError::Fd(error) if error.is_lost()));
    assert_eq!(count.handle().unwrap().open().unwrap().load(Ordering::Relaxed), 0, "a new one is held");
}
