//! Messages, values and descriptors through connections.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::connection::{Address, Auth, Connection, Listener, RecvError, SendError};
use mp_testkit::proc::Task;
use mp_testkit::watchdog;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(150);
const SHORT: Duration = Duration::from_millis(20);

/// Two ends that have authenticated over TCP.
fn tcp() -> (Connection, Connection) {
    let any: Address = "localhost:0".parse().unwrap();
    let listener = Listener::bind(&any, Auth::new("key")).unwrap();
    let address = listener.address().clone();
    let client = thread::spawn(move || Connection::connect(&address, Auth::new("key")).unwrap());
    (listener.accept().unwrap(), client.join().unwrap())
}

/// A connection, and the bare socket at its other end.
fn raw() -> (Connection, UnixStream) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = Listener::bind(&Address::Unix(path.clone()), Auth::none()).unwrap();
    let raw = UnixStream::connect(path).unwrap();
    (listener.accept().unwrap(), raw)
}

fn pattern(len: usize) -> Vec<u8> {
    #[expect(clippy::cast_possible_truncation, reason = "a pattern of the low bits")]
    (0..len).map(|at| (at.wrapping_mul(31) ^ len ^ (at >> 9)) as u8).collect()
}

#[test]
fn b3_boundaries_hold_for_every_size() {
    let _watchdog = watchdog(LONG);
    for (mut one, other) in [Connection::pair().unwrap(), tcp()] {
        let (mut reader, mut writer) = other.split();
        let echo = thread::spawn(move || {
            while let Ok(message) = reader.recv_bytes() {
                writer.send_bytes(&message).unwrap();
            }
        });
        for len in [0, 1, 2, 255, 0, 4095, 4096, 16_384, 65_535, 65_536, 65_537, 131_077, 1_000_003, 24 << 20]
        {
            let message = pattern(len);
            one.send_bytes(&message).unwrap();
            assert!(one.recv_bytes().unwrap() == message, "{len} bytes");
        }
        drop(one);
        echo.join().unwrap();
    }
}

#[test]
fn b3_many_messages_in_flight_keep_their_order() {
    let _watchdog = watchdog(LONG);
    for (one, mut other) in [Connection::pair().unwrap(), tcp()] {
        let (mut reader, mut writer) = one.split();
        let sender = thread::spawn(move || {
            (0..20_000).for_each(|n: usize| writer.send_bytes(&pattern(n % 97)).unwrap());
        });
        for n in 0..20_000 {
            assert_eq!(other.recv_bytes().unwrap(), pattern(n % 97));
        }
        sender.join().unwrap();
        // The writer is dropped, the reader is not.
        assert!(other.recv_bytes().unwrap_err().is_disconnected());
        other.send_bytes(b"still").unwrap();
        assert_eq!(reader.recv_bytes().unwrap(), b"still");
    }
}

#[test]
fn b11_ready_means_a_whole_message() {
    let _watchdog = watchdog(LONG);
    let (mut connection, mut raw) = raw();
    assert!(!connection.poll(Duration::ZERO).unwrap());
    let frame = [b"\0\0\0\x05".as_slice(), b"whole"].concat();
    for byte in &frame[..8] {
        raw.write_all(&[*byte]).unwrap();
        assert!(!connection.poll(Duration::ZERO).unwrap(), "a part is not a message");
        assert!(!connection.poll(SHORT).unwrap());
    }
    raw.write_all(&frame[8..]).unwrap();
    assert!(connection.poll(LONG).unwrap());
    assert!(connection.poll(Duration::ZERO).unwrap(), "it stays ready");
    raw.write_all(&[0; 4]).unwrap();
    assert_eq!(connection.try_recv_bytes().unwrap(), b"whole");
    assert!(connection.poll(Duration::ZERO).unwrap(), "an empty message is one");
    assert_eq!(connection.try_recv_bytes().unwrap(), b"");
    assert!(connection.try_recv_bytes().unwrap_err().is_timeout());
    drop(raw);
    assert!(connection.poll(LONG).unwrap_err().is_disconnected());
}

#[test]
fn b11_ready_for_a_message_larger_than_the_socket_holds() {
    let _watchdog = watchdog(LONG);
    let (mut one, mut other) = Connection::pair().unwrap();
    let sender = thread::spawn(move || {
        other.send_bytes(&pattern(5 << 20)).unwrap();
        other
    });
    assert!(one.poll(LONG).unwrap());
    let _other = sender.join().unwrap();
    assert!(one.try_recv_bytes().unwrap() == pattern(5 << 20));
}

#[test]
fn b20_bytes_into_a_buffer_of_the_caller() {
    let _watchdog = watchdog(LONG);
    let (mut one, mut other) = Connection::pair().unwrap();
    let mut buffer = [0xee; 8];
    for (message, after) in [
        (b"eight by".as_slice(), *b"eight by"),
        (b"three".as_slice(), *b"three by"),
        (b"".as_slice(), *b"three by"),
    ] {
        one.send_bytes(message).unwrap();
        assert_eq!(other.recv_bytes_into(&mut buffer).unwrap(), message.len());
        assert_eq!(buffer, after);
    }
    one.send_bytes(b"nine byte").unwrap();
    one.send_bytes(b"next").unwrap();
    match other.recv_bytes_into(&mut buffer).unwrap_err() {
        RecvError::TooSmall(message) => assert_eq!(message, b"nine byte", "it comes back"),
        error => panic!("{error}"),
    }
    assert_eq!(&buffer, b"three by", "untouched");
    assert_eq!(other.try_recv_bytes_into(&mut buffer).unwrap(), 4);
    assert!(other.recv_bytes_into_timeout(&mut buffer, SHORT).unwrap_err().is_timeout());
}

#[test]
fn b20_values_travel_and_are_validated() {
    let _watchdog = watchdog(LONG);
    type Value = (String, Vec<Option<u64>>, Box<[u8]>);
    let value: Value = ("text".to_owned(), vec![None, Some(7)], pattern(100_000).into());
    for (mut one, mut other) in [Connection::pair().unwrap(), tcp()] {
        let sent = value.clone();
        let sender = thread::spawn(move || {
            one.send_value(&sent).unwrap();
            one.send_value(&5_u8).unwrap();
            one.send_bytes(b"").unwrap();
            one.send_bytes(&[0xff; 64]).unwrap();
            one.send_value(&'c').unwrap();
            one
        });
        assert_eq!(other.recv_value::<Value>().unwrap(), value);
        for _ in 0..3 {
            let error = other.recv_value::<Value>().unwrap_err();
            assert!(matches!(error, RecvError::Invalid(_)), "{error}");
        }
        assert_eq!(other.recv_value::<char>().unwrap(), 'c', "what was invalid is consumed");
        let _one = sender.join().unwrap();
        assert!(other.try_recv_value::<char>().unwrap_err().is_timeout());
    }
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(serialize_bounds(__S: rkyv::ser::Writer + rkyv::ser::Allocator, __S::Error: rkyv::rancor::Source))]
#[rkyv(deserialize_bounds(__D::Error: rkyv::rancor::Source))]
#[rkyv(bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rkyv::rancor::Source)))]
struct Chain(#[rkyv(omit_bounds)] Option<Box<Chain>>);

#[test]
fn b20_a_value_cannot_exhaust_the_stack() {
    let _watchdog = watchdog(LONG);
    let chain = |len: usize| (0..len).fold(Chain(None), |chain, _| Chain(Some(Box::new(chain))));
    let (mut one, mut other) = Connection::pair().unwrap();
    one.send_value(&chain(200)).unwrap();
    assert!(other.recv_value::<Chain>().is_ok());
    one.send_value(&chain(300)).unwrap();
    assert!(matches!(other.recv_value::<Chain>(), Err(RecvError::Invalid(_))));
}

#[test]
fn b20_a_receive_that_times_out_in_a_message_goes_on_with_it() {
    let _watchdog = watchdog(LONG);
    let (mut connection, mut raw) = raw();
    let message = pattern(70_000);
    let frame = [70_000_u32.to_be_bytes().as_slice(), &message].concat();
    for part in frame.chunks(9_001) {
        assert!(connection.recv_bytes_timeout(SHORT / 20).unwrap_err().is_timeout());
        raw.write_all(part).unwrap();
    }
    assert!(connection.recv_bytes_deadline(Instant::now() + LONG).unwrap() == message);
    raw.write_all(&frame[..100]).unwrap();
    drop(raw);
    assert!(matches!(connection.recv_bytes().unwrap_err(), RecvError::Truncated));
    assert!(connection.recv_bytes().unwrap_err().is_disconnected());
}

#[test]
fn b20_a_send_within_a_time_is_whole_or_ends_the_sending() {
    let _watchdog = watchdog(LONG);
    let (mut one, mut other) = Connection::pair().unwrap();
    // Small ones until nothing more fits: each was sent whole or not at all.
    let mut count = 0;
    let error = loop {
        match one.send_bytes_timeout(&[1; 100], Duration::ZERO) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, SendError::TimedOut), "{error}");
    for _ in 0..count {
        assert_eq!(other.try_recv_bytes().unwrap(), [1; 100]);
    }
    one.send_bytes(b"goes on").unwrap();
    assert_eq!(other.recv_bytes().unwrap(), b"goes on");

    let error = one.send_bytes_deadline(&pattern(8 << 20), Instant::now() + SHORT).unwrap_err();
    assert!(matches!(error, SendError::HalfSent) && error.is_timeout(), "{error}");
    assert!(matches!(one.send_bytes(b"more").unwrap_err(), SendError::Closed));
    assert!(matches!(one.send_fd(other.as_fd()).unwrap_err(), SendError::Closed));
    assert!(matches!(other.recv_bytes().unwrap_err(), RecvError::Truncated), "the other end is told");
    other.send_bytes(b"the other way is open").unwrap();
    assert_eq!(one.recv_bytes().unwrap(), b"the other way is open");
}

#[test]
fn b20_an_other_end_that_is_gone_is_an_error_and_no_signal() {
    let _watchdog = watchdog(LONG);
    for (mut one, other) in [Connection::pair().unwrap(), tcp()] {
        drop(other);
        let error = loop {
            if let Err(error) = one.send_bytes(&[0; 1000]) {
                break error;
            }
        };
        assert!(error.is_disconnected(), "{error}");
        assert!(one.recv_bytes().unwrap_err().is_disconnected());
    }
}

#[test]
fn b20_a_blocked_send_ends_when_the_other_end_goes() {
    let _watchdog = watchdog(LONG);
    let (mut one, other) = Connection::pair().unwrap();
    let (task, tasks) = mpsc::channel();
    let sender = thread::spawn(move || {
        task.send(Task::current()).unwrap();
        one.send_bytes(&vec![0; 8 << 20])
    });
    tasks.recv().unwrap().wait_until_blocked();
    drop(other);
    assert!(sender.join().unwrap().unwrap_err().is_disconnected());
}

fn pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    std::io::pipe().unwrap()
}

/// Whether `fd` is the writing end of the pipe that `reader` reads.
fn writes_to(fd: OwnedFd, reader: &mut std::io::PipeReader) {
    let flags = rustix::io::fcntl_getfd(&fd).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    File::from(fd).write_all(b"through the pipe").unwrap();
    let mut bytes = [0; 16];
    reader.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"through the pipe");
}

#[test]
fn b4_descriptors_travel_between_messages() {
    let _watchdog = watchdog(LONG);
    let (mut one, mut other) = Connection::pair().unwrap();
    let (mut reads, writes) = pipe();
    for _ in 0..3 {
        one.send_bytes(b"").unwrap();
        one.send_fd(writes.as_fd()).unwrap();
        one.send_fd(writes.as_fd()).unwrap();
        one.send_bytes(b"after").unwrap();
        assert!(matches!(other.recv_fd().unwrap_err(), RecvError::NoDescriptor), "a message comes first");
        assert_eq!(other.recv_bytes().unwrap(), b"");
        writes_to(other.recv_fd().unwrap(), &mut reads);
        assert!(other.poll(Duration::ZERO).unwrap(), "a descriptor is ready");
        for _ in 0..2 {
            assert!(matches!(other.recv_bytes().unwrap_err(), RecvError::Descriptor));
        }
        writes_to(other.try_recv_fd().unwrap(), &mut reads);
        assert_eq!(other.recv_bytes().unwrap(), b"after");
        assert!(other.recv_fd_timeout(SHORT).unwrap_err().is_timeout());
    }
    // All that was received is closed again.
    drop((writes, one, other));
    assert_eq!(reads.read(&mut [0]).unwrap(), 0);
}

#[test]
fn b4_a_descriptor_within_a_message_is_closed() {
    let _watchdog = watchdog(LONG);
    let (mut connection, raw) = raw();
    let (mut reads, writes) = pipe();
    let send = |bytes: &[u8], count: usize| {
        let mut room = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = rustix::net::SendAncillaryBuffer::new(&mut room);
        let fds = vec![writes.as_fd(); count];
        assert!(control.push(rustix::net::SendAncillaryMessage::ScmRights(&fds)));
        let parts = [std::io::IoSlice::new(bytes)];
        let flags = rustix::net::SendFlags::empty();
        assert_eq!(rustix::net::sendmsg(&raw, &parts, &mut control, flags).unwrap(), bytes.len());
    };
    send(b"\0\0\0\x02", 1);
    send(b"a", 1);
    send(b"b", 2);
    send(b"\0\0", 2);
    send(b"\0\x01c", 1);
    // Two descriptors where one is announced: neither, and the byte begins a header.
    send(b"\x01", 2);
    assert_eq!(connection.recv_bytes().unwrap(), b"ab");
    assert_eq!(connection.recv_bytes().unwrap(), b"c");
    assert!(connection.recv_bytes_timeout(SHORT).unwrap_err().is_timeout());
    drop(writes);
    assert_eq!(reads.read(&mut [0]).unwrap(), 0, "no copy is left");
}

#[test]
fn b4_descriptors_do_not_travel_over_tcp() {
    let _watchdog = watchdog(LONG);
    let (mut one, mut other) = tcp();
    assert!(matches!(one.send_fd(other.as_fd()).unwrap_err(), SendError::NotLocal));
    assert!(matches!(other.recv_fd().unwrap_err(), RecvError::NotLocal));
}

#[test]
fn the_other_end_is_known() {
    let (one, _other) = Connection::pair().unwrap();
    let peer = one.peer().unwrap().unwrap();
    assert_eq!((peer.pid, peer.uid), (std::process::id(), rustix::process::geteuid().as_raw()));
    assert_eq!(tcp().0.peer().unwrap(), None);
}

#[test]
fn b20_threads_share_a_listener() {
    let _watchdog = watchdog(LONG);
    let name = Address::Abstract(format!("mp-b20-{}", std::process::id()).into());
    let listener = Listener::bind(&name, Auth::new("key")).unwrap();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut connection = listener.accept().unwrap();
                let message = connection.recv_bytes().unwrap();
                connection.send_bytes(&message).unwrap();
            });
        }
        for n in 0..3 {
            let mut connection = Connection::connect(&name, Auth::new("key")).unwrap();
            connection.send_bytes(&[n]).unwrap();
            assert_eq!(connection.recv_bytes().unwrap(), [n]);
        }
    });
}
