//! File descriptors inside messages.
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, Sender, channel};
use mp_shm::fds::{self, FdFailure};
use mp_shm::{Fd, Session};
use mp_spawn::Process;
use mp_sys::deadline::Deadline;
use mp_sys::poll::{Interest, poll};
use mp_testkit::{LeakCheck, assert_no_backstop, proc, watchdog};
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

type Nested = Vec<Option<(String, Fd)>>;

/// Less than the broker's heartbeat: what is only noticed by that is noticed too late.
const SOON: Duration = Duration::from_secs(40);

#[test]
fn b4_descriptors_travel_inside_messages() {
    let _watchdog = watchdog(Duration::from_secs(170));
    let leaks = LeakCheck::begin();
    let before = proc::descriptors();
    to_a_child();
    every_kind();
    nested();
    a_thousand();
    to_a_grandchild();
    as_a_value();
    copies_and_names();
    not_open();
    assert_eq!(proc::descriptors(), before);
    dropped_unread();
    killed_receiver();
    killed_depositor();
    assert_eq!(held(), 0);
    killed_broker();
    no_descriptor_stays_here();
    leaks.end();
    assert_no_backstop();
}

fn held() -> u32 {
    fds::status(Session::current().unwrap()).unwrap().map_or(0, |status| status.held)
}

fn broker() -> u32 {
    fds::status(Session::current().unwrap()).unwrap().unwrap().pid
}

/// Waits until nobody has the writing end any more.
fn ends(reader: &PipeReader) {
    let ready = poll(&[(reader.as_fd(), Interest::Read)], Some(Deadline::after(SOON))).unwrap();
    assert_eq!(ready, [true], "somebody still has the writing end");
    assert_eq!((&*reader).read(&mut [0]).unwrap(), 0);
}

fn pipe() -> (PipeReader, Fd) {
    let (reader, writer) = std::io::pipe().unwrap();
    (reader, Fd::new(writer).unwrap())
}

fn write_to((fd, text): (Fd, String)) -> usize {
    PipeWriter::from(fd.open().unwrap()).write(text.as_bytes()).unwrap()
}

fn to_a_child() {
    let (mut reader, fd) = pipe();
    let child = Process::spawn(write_to, (fd, "hello".to_owned())).unwrap();
    assert_eq!(child.join().unwrap(), 5);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello", "and the writing end is nowhere any more");
}

fn every_kind() {
    fn run(fds: Vec<Fd>) -> (u64, Vec<u8>, bool, bool) {
        let [file, socket, memory, pidfd] = <[Fd; 4]>::try_from(fds).unwrap();
        let position = File::from(file.open().unwrap()).stream_position().unwrap();
        let mut bytes = vec![0; 3];
        std::os::unix::net::UnixStream::from(socket.open().unwrap()).read_exact(&mut bytes).unwrap();
        let memory = File::from(memory.open().unwrap());
        let pidfd = pidfd.open().unwrap();
        let flags = rustix::io::fcntl_getfd(&pidfd).unwrap();
        let runs = poll(&[(pidfd.as_fd(), Interest::Read)], Some(Deadline::now())).unwrap() == [false];
        (
            position,
            bytes,
            memory.metadata().unwrap().len() == 77,
            runs && flags.contains(rustix::io::FdFlags::CLOEXEC),
        )
    }
    let mut file = File::open(std::env::current_exe().unwrap()).unwrap();
    file.seek(std::io::SeekFrom::Start(99)).unwrap();
    let (mut near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    near.write_all(b"abc").unwrap();
    let memory = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&memory, 77).unwrap();
    let me = rustix::process::getpid();
    let pidfd = rustix::process::pidfd_open(me, rustix::process::PidfdFlags::empty()).unwrap();
    let fds: Vec<OwnedFd> = vec![file.into(), far.into(), memory, pidfd];
    let fds: Vec<Fd> = fds.into_iter().map(|fd| Fd::new(fd).unwrap()).collect();
    let found = Process::spawn(run, fds).unwrap().join().unwrap();
    assert_eq!(found, (99, b"abc".to_vec(), true, true));
    assert_eq!(near.read(&mut [0]).unwrap(), 0, "the other end is nowhere any more");
}

fn write_names(receiver: Receiver<Nested>) -> usize {
    let mut count = 0;
    for (name, fd) in receiver.iter().flatten().flatten() {
        PipeWriter::from(fd.open().unwrap()).write_all(name.as_bytes()).unwrap();
        count += 1;
    }
    count
}

fn nested() {
    let (sender, receiver) = channel::<Nested>(4).unwrap();
    let child = Process::spawn(write_names, receiver).unwrap();
    let names = ["a", "twelve bytes", "a name that is too long to be stored inline"];
    let mut readers = Vec::new();
    for name in names {
        let (reader, fd) = pipe();
        sender
            .send(vec![None, Some((name.to_owned(), fd.clone())), None, Some(("+".to_owned(), fd))])
            .unwrap();
        readers.push(reader);
    }
    drop(sender);
    assert_eq!(child.join().unwrap(), 6);
    for (name, mut reader) in names.into_iter().zip(readers) {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("{name}+"));
    }
}

/// Four times what one message of a socket could carry.
fn a_thousand() {
    let (sender, receiver) = channel::<Nested>(1).unwrap();
    let child = Process::spawn(write_names, receiver).unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let fds = (0..1000).map(|_| Some(("x".to_owned(), Fd::of(&writer).unwrap())));
    sender.send(fds.collect()).unwrap();
    assert!(held() <= 1000);
    drop((sender, writer));
    assert_eq!(child.join().unwrap(), 1000);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text.len(), 1000);
}

fn to_a_grandchild() {
    fn pass_on((depth, fd): (u32, Fd)) -> u32 {
        if depth == 0 {
            PipeWriter::from(fd.open().unwrap()).write_all(b"deep").unwrap();
            return 0;
        }
        1 + Process::spawn(pass_on, (depth - 1, fd)).unwrap().join().unwrap()
    }
    let (mut reader, fd) = pipe();
    assert_eq!(Process::spawn(pass_on, (2, fd)).unwrap().join().unwrap(), 2);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "deep");
}

/// Deposited by a child that has ended when it is opened.
fn as_a_value() {
    let made = |text: String| {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(text.as_bytes()).unwrap();
        Fd::new(reader).unwrap()
    };
    let fd = Process::spawn(made, "from the child".to_owned()).unwrap().join().unwrap();
    let mut text = String::new();
    PipeReader::from(fd.open().unwrap()).read_to_string(&mut text).unwrap();
    assert_eq!(text, "from the child");
}

fn copies_and_names() {
    let (reader, fd) = pipe();
    let session = Session::current().unwrap();
    session.publish("a writing end", &fd).unwrap();
    let copy = fd.clone();
    assert_eq!(copy.handle(), fd.handle());
    drop(fd);
    let opened: Vec<OwnedFd> = (0..3).map(|_| copy.open().unwrap()).collect();
    drop((copy, opened));
    let found = session.lookup::<Fd>("a writing end").unwrap();
    session.unpublish("a writing end").unwrap();
    PipeWriter::from(found.open().unwrap()).write_all(b"x").unwrap();
    assert_eq!((&reader).read(&mut [0; 2]).unwrap(), 1);
    drop(found);
    ends(&reader);
}

fn not_open() {
    // SAFETY: nobody opens so many here; it is used for nothing but to be refused.
    #[expect(unsafe_code, reason = "a number that is no descriptor")]
    let fd = unsafe { BorrowedFd::borrow_raw(987_654) };
    let error = Fd::of(fd).unwrap_err();
    assert!(matches!(error.failure(), FdFailure::Io { .. }), "{error:?}");
    assert_eq!(held(), 0);
}

fn dropped_unread() {
    let (reader, fd) = pipe();
    let (sender, receiver) = channel::<Nested>(1).unwrap();
    sender.send(vec![Some((String::new(), fd))]).unwrap();
    assert!(held() == 1 && sender.try_send(vec![]).is_err());
    drop((sender, receiver));
    ends(&reader);
}

fn killed_receiver() {
    fn take_and_wait((receiver, ready): (Receiver<Fd>, Sender<()>)) {
        let _fd = receiver.recv().unwrap();
        ready.send(()).unwrap();
        std::thread::park();
    }
    let (reader, fd) = pipe();
    let (sender, receiver) = channel::<Fd>(1).unwrap();
    let (ready, is_ready) = channel::<()>(1).unwrap();
    let child = Process::spawn(take_and_wait, (receiver, ready)).unwrap();
    sender.send(fd).unwrap();
    is_ready.recv().unwrap();
    assert_eq!(held(), 1);
    child.kill().unwrap();
    drop((sender, is_ready));
    assert_eq!(child.join().unwrap_err().signal(), Some(9));
    ends(&reader);
}

fn killed_depositor() {
    fn deposit_and_die(fd: Fd) -> u32 {
        let writer = PipeWriter::from(fd.open().unwrap());
        let fds: Vec<Fd> = (0..10).map(|_| Fd::of(&writer).unwrap()).collect();
        let me = rustix::process::getpid();
        rustix::process::kill_process(me, rustix::process::Signal::KILL).unwrap();
        fds.len().try_into().unwrap()
    }
    let (reader, fd) = pipe();
    let child = Process::spawn(deposit_and_die, fd).unwrap();
    // Nobody here looks after the dead: the broker does.
    ends(&reader);
    assert_eq!(child.join().unwrap_err().signal(), Some(9));
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

fn killed_broker() {
    let (reader, fd) = pipe();
    let first = broker();
    kill(first);
    proc::until(|| proc::has_ended(first));
    ends(&reader);
    let error = fd.open().unwrap_err();
    assert!(error.is_lost() && error.to_string().contains("killed"), "{error}");
    assert_eq!(fds::status(Session::current().unwrap()).unwrap(), None);
    let (other_reader, other) = pipe();
    assert_ne!(broker(), first);
    PipeWriter::from(other.open().unwrap()).write_all(b"x").unwrap();
    let error = fd.open().unwrap_err();
    assert!(error.is_lost(), "also of the one that came after: {error}");
    drop((fd, other));
    let mut text = String::new();
    (&other_reader).read_to_string(&mut text).unwrap();
    assert_eq!(text, "x");
}

fn no_descriptor_stays_here() {
    let before = proc::descriptors();
    let (_reader, fd) = pipe();
    let with_reader = proc::descriptors();
    assert_eq!(with_reader.len(), before.len() + 1, "the reading end alone");
    let fds: Vec<Fd> = (0..50).map(|_| Fd::of(fd.open().unwrap()).unwrap()).collect();
    assert_eq!(proc::descriptors(), with_reader);
    drop(fds);
    assert_eq!(proc::descriptors(), with_reader);
}
