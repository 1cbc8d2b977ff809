//! Who is refused by a listener or a connection, and that nobody else suffers from it.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::connection::{
    AcceptError, Address, Auth, ConnectError, Connection, FrameError, HandshakeError, ListenError, Listener,
    Options, RecvError, Refusal, SendError,
};
use mp_testkit::watchdog;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(100);
const SHORT: Duration = Duration::from_millis(30);

/// A place for sockets, gone with the test.
fn place() -> (tempfile::TempDir, Address, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    (dir, Address::Unix(path.clone()), path)
}

fn tcp() -> Address {
    "127.0.0.1:0".parse().unwrap()
}

/// Lets a client and a listener with these keys meet.
fn meet(
    at: &Address,
    listens: Auth,
    connects: Auth,
) -> (Result<Connection, AcceptError>, Result<Connection, ConnectError>) {
    let listener = Listener::bind(at, listens).unwrap();
    let address = listener.address().clone();
    let client = thread::spawn(move || Connection::connect(&address, connects));
    (listener.accept(), client.join().unwrap())
}

#[test]
fn b6_a_wrong_key_is_refused_on_both_sides() {
    let _watchdog = watchdog(LONG);
    let (_dir, unix, _) = place();
    for at in [unix, tcp(), Address::Abstract(format!("mp-b6-{}", std::process::id()).into())] {
        for (ours, theirs) in [("right", "wrong"), ("", "wrong"), ("right", "")] {
            let (accepted, connected) = meet(&at, Auth::new(ours), Auth::new(theirs));
            let Err(accepted) = accepted else { panic!("accepted") };
            assert!(accepted.is_of_the_peer());
            let AcceptError::Handshake(HandshakeError::Refused(Refusal::WrongKey)) = accepted else {
                panic!("{accepted}")
            };
            let Err(ConnectError::Handshake(error)) = connected else { panic!("connected") };
            assert!(error.is_wrong_key(), "{error}");
        }
    }
}

#[test]
fn b6_an_empty_key_authenticates() {
    let _watchdog = watchdog(LONG);
    let (_dir, unix, _) = place();
    for at in [unix, tcp()] {
        for auth in [Auth::new(""), Auth::none(), Auth::new("long ".repeat(100))] {
            let (accepted, connected) = meet(&at, auth.clone(), auth);
            let (mut accepted, mut connected) = (accepted.unwrap(), connected.unwrap());
            accepted.send_bytes(b"one").unwrap();
            connected.send_bytes(b"two").unwrap();
            assert_eq!(connected.recv_bytes().unwrap(), b"one");
            assert_eq!(accepted.recv_bytes().unwrap(), b"two");
        }
    }
}

#[test]
fn b6_one_that_does_not_authenticate_is_refused() {
    let _watchdog = watchdog(LONG);
    let (_dir, at, _) = place();
    let listener = Listener::bind(&at, Auth::new("")).unwrap();
    let mut client = Connection::connect(&at, Auth::none()).unwrap();
    client.send_bytes(b"let me in").unwrap();
    let Err(AcceptError::Handshake(HandshakeError::Refused(Refusal::Protocol))) = listener.accept() else {
        panic!("without a key")
    };
    // The challenge, the failure, the end.
    assert!(client.recv_bytes().unwrap().starts_with(b"#CHALLENGE#"));
    assert_eq!(client.recv_bytes().unwrap(), b"#FAILURE#");
    assert!(client.recv_bytes().unwrap_err().is_disconnected());
}

#[test]
fn b6_an_oversize_handshake_is_refused() {
    let _watchdog = watchdog(LONG);
    let (_dir, at, path) = place();
    let listener = Listener::bind(&at, Auth::new("key")).unwrap();
    for (head, length) in
        [(vec![0, 0, 1, 1], 257), (vec![0x7f, 255, 255, 255], 0x7fff_ffff), (vec![255; 12], u64::MAX)]
    {
        let mut raw = UnixStream::connect(&path).unwrap();
        raw.write_all(&head).unwrap();
        let error = listener.accept().unwrap_err();
        let AcceptError::Handshake(HandshakeError::Frame(refused)) = error else { panic!("{error}") };
        assert_eq!(refused, FrameError::TooLong { length, max: 256 });
        let mut rest = Vec::new();
        // What was left unread may make the end a reset.
        let _ = raw.read_to_end(&mut rest);
        assert!(rest.len() <= 63, "the challenge and no more");
    }
    drop(listener);

    let raw_listener = UnixListener::bind(&path).unwrap();
    let client = thread::spawn(move || Connection::connect(&at, Auth::new("key")));
    let (mut raw, _) = raw_listener.accept().unwrap();
    raw.write_all(&[0, 0, 1, 1]).unwrap();
    let error = client.join().unwrap().unwrap_err();
    assert!(
        matches!(
            error,
            ConnectError::Handshake(HandshakeError::Frame(FrameError::TooLong { length: 257, .. }))
        ),
        "{error}"
    );
}

#[test]
fn b6_one_who_says_nothing_does_not_hold_the_listener() {
    let _watchdog = watchdog(LONG);
    let (_dir, unix, path) = place();
    let options = Options::new(Auth::new("key")).handshake_timeout(SHORT);
    let listener = Listener::bind(&unix, options.clone()).unwrap();
    let silent = UnixStream::connect(&path).unwrap();
    let error = listener.accept().unwrap_err();
    assert!(matches!(error, AcceptError::Handshake(HandshakeError::TimedOut)), "{error}");
    // The next one gets in, though the silent one is still there. On a slow machine the limit may be over for an honest one, too.
    let client = thread::spawn(move || {
        let mut attempts = std::iter::repeat_with(|| Connection::connect(&unix, Auth::new("key")));
        attempts.find_map(Result::ok)
    });
    let mut attempts = std::iter::repeat_with(|| listener.accept());
    let mut connection = attempts.find_map(Result::ok).unwrap();
    client.join().unwrap().unwrap().send_bytes(b"in").unwrap();
    assert_eq!(connection.recv_bytes().unwrap(), b"in");
    drop(silent);
}

#[test]
fn b6_one_who_speaks_by_the_byte_does_not_hold_the_listener() {
    let _watchdog = watchdog(LONG);
    let (_dir, unix, path) = place();
    let limit = SHORT * 8;
    let listener = Listener::bind(&unix, Options::new(Auth::new("key")).handshake_timeout(limit)).unwrap();
    let mut slow = UnixStream::connect(&path).unwrap();
    let talker = thread::spawn(move || {
        // A frame of 256 bytes, until nobody listens any more. Each byte comes well within the limit, all of them far beyond it.
        let mut bytes = vec![0, 0, 1, 0];
        bytes.extend([0; 256]);
        for byte in bytes {
            if slow.write_all(&[byte]).is_err() {
                return true;
            }
            thread::sleep(limit / 10);
        }
        false
    });
    let error = listener.accept().unwrap_err();
    assert!(matches!(error, AcceptError::Handshake(HandshakeError::TimedOut)), "{error}");
    assert!(talker.join().unwrap(), "the limit is for all of it, not for each byte");
}

#[test]
fn b6_a_silent_listener_does_not_hold_a_client() {
    let _watchdog = watchdog(LONG);
    let (_dir, at, path) = place();
    let _raw = UnixListener::bind(path).unwrap();
    let options = Options::new(Auth::new("key")).handshake_timeout(SHORT);
    let error = Connection::connect(&at, options).unwrap_err();
    assert!(matches!(error, ConnectError::Handshake(HandshakeError::TimedOut)), "{error}");
    assert!(Connection::connect_timeout(&at, Auth::new("key"), SHORT).unwrap_err().is_timeout());
}

#[test]
fn b6_the_time_of_an_accept_covers_the_handshake() {
    let _watchdog = watchdog(LONG);
    let (_dir, at, path) = place();
    let listener = Listener::bind(&at, Auth::new("key")).unwrap();
    assert!(listener.accept_timeout(SHORT).unwrap_err().is_timeout(), "nobody comes");
    assert!(listener.try_incoming().unwrap_err().is_timeout());
    let _silent = UnixStream::connect(&path).unwrap();
    assert!(listener.accept_timeout(SHORT).unwrap_err().is_timeout(), "one comes and says nothing");
}

#[test]
fn b6_a_full_backlog_does_not_outlast_the_time_of_a_connect() {
    let _watchdog = watchdog(LONG);
    let (_dir, at, _) = place();
    let _listener = Listener::bind(&at, Auth::none()).unwrap();
    let mut waiting = Vec::new();
    loop {
        match Connection::connect_timeout(&at, Auth::none(), SHORT) {
            Ok(connection) => waiting.push(connection),
            Err(error) => break assert!(error.is_timeout(), "{error}"),
        }
    }
    assert!(!waiting.is_empty());
}

#[test]
fn b6_many_can_be_authenticated_at_once() {
    let _watchdog = watchdog(LONG);
    let (_dir, at, path) = place();
    let listener = Listener::bind(&at, Auth::new("key")).unwrap();
    let silent = UnixStream::connect(&path).unwrap();
    let held = listener.incoming().unwrap();
    assert_eq!(held.peer().unwrap().unwrap().pid, std::process::id());
    let holds = thread::spawn(move || held.authenticate());
    let client = thread::spawn(move || Connection::connect(&at, Auth::new("key")).unwrap());
    let mut connection = listener.incoming().unwrap().authenticate().unwrap();
    client.join().unwrap().send_bytes(b"past the silent one").unwrap();
    assert_eq!(connection.recv_bytes().unwrap(), b"past the silent one");
    drop(silent);
    assert!(holds.join().unwrap().unwrap_err().is_of_the_peer());
}

#[test]
fn b6_one_who_goes_in_the_middle_is_told_apart() {
    let _watchdog = watchdog(LONG);
    let listener = Listener::bind(&tcp(), Auth::new("key")).unwrap();
    let Address::Tcp { host, port } = listener.address().clone() else { panic!("not TCP") };
    drop(TcpStream::connect((host, port)).unwrap());
    let error = listener.accept().unwrap_err();
    assert!(matches!(error, AcceptError::Handshake(HandshakeError::Disconnected)), "{error}");
}

#[test]
fn b6_an_oversize_message_ends_the_connection() {
    let _watchdog = watchdog(LONG);
    let (_dir, at, path) = place();
    let options = Options::new(Auth::none()).max_message_bytes(100);
    let listener = Listener::bind(&at, options).unwrap();
    for head in [vec![0, 0, 0, 101], vec![255, 255, 255, 255, 0, 0, 0, 1, 0, 0, 0, 0]] {
        let mut raw = UnixStream::connect(&path).unwrap();
        let mut connection = listener.accept().unwrap();
        raw.write_all(&[vec![0, 0, 0, 1, b'x'], head].concat()).unwrap();
        assert_eq!(connection.recv_bytes().unwrap(), b"x");
        let error = connection.poll(LONG).unwrap_err();
        assert!(matches!(error, RecvError::Frame(FrameError::TooLong { max: 100, .. })), "{error}");
        assert!(connection.recv_bytes().unwrap_err().is_disconnected());
        assert_eq!(raw.read(&mut [0]).unwrap(), 0, "the other end is told");
    }
    let _raw = UnixStream::connect(&path).unwrap();
    let mut connection = listener.accept().unwrap();
    let error = connection.send_bytes(&[0; 101]).unwrap_err();
    assert!(matches!(error, SendError::TooLong { length: 101, max: 100 }), "{error}");
    connection.send_bytes(&[0; 100]).unwrap();
}

#[test]
fn a_listener_takes_its_own_file_away_and_no_other() {
    let (_dir, at, path) = place();
    let listener = Listener::bind(&at, Auth::none()).unwrap();
    assert!(matches!(Listener::bind(&at, Auth::none()).unwrap_err(), ListenError::InUse));
    drop(listener);
    assert!(!path.exists());

    // One that died leaves its file, which is replaced.
    drop(UnixListener::bind(&path).unwrap());
    assert!(Connection::connect(&at, Auth::none()).unwrap_err().is_nobody());
    let listener = Listener::bind(&at, Auth::none()).unwrap();
    std::fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    drop(listener);
    assert!(path.exists(), "another one's by now");
    drop(other);

    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "a file").unwrap();
    assert!(matches!(Listener::bind(&at, Auth::none()).unwrap_err(), ListenError::InUse));
    assert_eq!(std::fs::read(&path).unwrap(), b"a file");
}

#[test]
fn an_address_that_is_none_is_refused() {
    let long = Address::Unix("x".repeat(200).into());
    assert!(matches!(Listener::bind(&long, Auth::none()).unwrap_err(), ListenError::Address(_)));
    assert!(matches!(Connection::connect(&long, Auth::none()).unwrap_err(), ConnectError::Address(_)));
    let (_dir, nowhere, _) = place();
    assert!(Connection::connect(&nowhere, Auth::none()).unwrap_err().is_nobody());
}
