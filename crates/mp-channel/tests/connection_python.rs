//! The real Python at the other end: every version that is found in the search path, at least `python3`.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::connection::{
    AcceptError, Address, Auth, ConnectError, Connection, HandshakeError, Listener, Options, RecvError,
    Refusal,
};
use mp_testkit::watchdog;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(170);
const KEY: &[u8] = b"a key \x00\xff with any bytes";

/// Names under which Python may be found.
const NAMES: [&str; 9] = [
    "python3",
    "python3.15",
    "python3.14",
    "python3.13",
    "python3.12",
    "python3.11",
    "python3.10",
    "python3.9",
    "python3.8",
];

/// `mode family address key`: connects or listens, says `ready` or `refused NAME`, and then
/// sends every message back; after `fd`, a descriptor is received, written to, and sent back.
const SCRIPT: &str = r"
import os, sys
from multiprocessing import AuthenticationError, reduction
from multiprocessing.connection import Client, Listener
mode, family, address, key = sys.argv[1:]
key = None if key == 'none' else bytes.fromhex(key[1:])
if family == 'tcp':
    host, port = address.rsplit(':', 1)
    address = (host, int(port))
elif family == 'abstract':
    address = '\0' + address
def say(*words):
    print(*words, flush=True)
try:
    if mode == 'client':
        connection = Client(address, authkey=key)
    else:
        listener = Listener(address, authkey=key)
        say('at', listener.address[1] if family == 'tcp' else '')
        connection = listener.accept()
except (AuthenticationError, EOFError, OSError, AssertionError) as error:
    say('refused', type(error).__name__)
    sys.exit()
say('ready')
while True:
    try:
        message = connection.recv_bytes()
    except EOFError:
        say('end')
        break
    if message == b'fd':
        fd = reduction.recv_handle(connection)
        os.write(fd, b'from Python')
        reduction.send_handle(connection, fd, None)
    elif message == b'into':
        buffer = bytearray(100)
        count = connection.recv_bytes_into(buffer)
        connection.send_bytes(buffer, 0, count)
    else:
        connection.send_bytes(message)
";

#[derive(Debug, Clone, Copy)]
struct Python {
    name: &'static str,
    version: (u32, u32),
}

impl Python {
    /// Whether it knows HMAC-MD5 only.
    fn is_old(self) -> bool {
        self.version < (3, 12)
    }

    /// What this Python needs to be let in.
    fn auth(self, key: &[u8]) -> Auth {
        Auth::new(key).allow_md5(self.is_old())
    }
}

fn pythons() -> &'static [Python] {
    static FOUND: OnceLock<Vec<Python>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mut found: Vec<Python> = Vec::new();
        for name in NAMES {
            let version = Command::new(name)
                .args(["-c", "import sys; print(sys.version_info[0], sys.version_info[1])"])
                .stderr(Stdio::null())
                .output();
            // A name may be there and lead to nothing.
            let Ok(output) = version else { continue };
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let mut numbers = text.split_whitespace().map_while(|number| number.parse().ok());
            let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else { continue };
            if found.iter().all(|python| python.version != (major, minor)) {
                found.push(Python { name, version: (major, minor) });
            }
        }
        assert!(!found.is_empty(), "these tests need python3 in the search path");
        found
    })
}

/// A Python program that runs the script.
struct Program {
    child: Child,
    says: BufReader<std::process::ChildStdout>,
}

impl Program {
    fn start(python: Python, mode: &str, address: &Address, key: Option<&[u8]>) -> Self {
        let (family, address) = match address {
            Address::Unix(path) => ("unix", path.to_str().unwrap().to_owned()),
            Address::Abstract(name) => ("abstract", String::from_utf8(name.clone()).unwrap()),
            Address::Tcp { host, port } => ("tcp", format!("{host}:{port}")),
        };
        let key = key.map_or("none".to_owned(), |key| {
            key.iter().fold("x".to_owned(), |mut text, byte| {
                write!(text, "{byte:02x}").unwrap();
                text
            })
        });
        let mut child = Command::new(python.name)
            .args(["-c", SCRIPT, mode, family, &address, &key])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let says = BufReader::new(child.stdout.take().unwrap());
        Self { child, says }
    }

    fn next(&mut self) -> String {
        let mut line = String::new();
        self.says.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Waits for the end, and gives all that was not read yet.
    fn end(mut self) -> String {
        let mut text = String::new();
        self.says.read_to_string(&mut text).unwrap();
        assert!(self.child.wait().unwrap().success(), "Python failed, see above");
        text.trim().to_owned()
    }
}

/// One address of each family, that nobody else has.
fn addresses(dir: &tempfile::TempDir) -> [Address; 3] {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    [
        Address::Unix(dir.path().join(format!("socket{number}"))),
        Address::Abstract(format!("mp-b24-{}-{number}", std::process::id()).into()),
        "127.0.0.1:0".parse().unwrap(),
    ]
}

/// Our listener, and a Python client that is let in.
fn python_connects(python: Python, at: &Address, key: Option<&[u8]>) -> (Connection, Program) {
    let auth = key.map_or(Auth::none(), |key| python.auth(key));
    let listener = Listener::bind(at, auth).unwrap();
    let mut program = Program::start(python, "client", listener.address(), key);
    let connection = listener.accept().unwrap();
    assert_eq!(program.next(), "ready", "{python:?}");
    (connection, program)
}

/// A Python listener, and where it is.
fn python_listens(python: Python, at: &Address, key: Option<&[u8]>) -> (Address, Program) {
    let mut program = Program::start(python, "listener", at, key);
    let said = program.next();
    let port = said.strip_prefix("at").unwrap().trim();
    let address = match at {
        Address::Tcp { host, .. } => Address::Tcp { host: host.clone(), port: port.parse().unwrap() },
        other => other.clone(),
    };
    (address, program)
}

fn exchange(mut connection: Connection, program: Program) {
    for len in [0, 1, 5, 16_384, 16_385, 65_537, 0, 1 << 20] {
        let message: Vec<u8> = (0..len).map(|at: usize| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
        connection.send_bytes(&message).unwrap();
        assert!(connection.recv_bytes().unwrap() == message, "{len} bytes");
    }
    connection.send_bytes(b"into").unwrap();
    connection.send_bytes(b"a buffer").unwrap();
    let mut buffer = [0; 10];
    assert_eq!(connection.recv_bytes_into(&mut buffer).unwrap(), 8);
    assert_eq!(&buffer, b"a buffer\0\0");
    drop(connection);
    assert!(program.end().ends_with("end"));
}

#[test]
fn b24_a_python_client_talks_to_our_listener() {
    let _watchdog = watchdog(LONG);
    let dir = tempfile::tempdir().unwrap();
    for &python in pythons() {
        for at in addresses(&dir) {
            for key in [Some(KEY), None] {
                let (connection, program) = python_connects(python, &at, key);
                exchange(connection, program);
            }
        }
    }
}

#[test]
fn b24_our_connection_talks_to_a_python_listener() {
    let _watchdog = watchdog(LONG);
    let dir = tempfile::tempdir().unwrap();
    for &python in pythons() {
        for at in addresses(&dir) {
            for key in [Some(KEY), None] {
                let (address, program) = python_listens(python, &at, key);
                let auth = key.map_or(Auth::none(), |key| python.auth(key));
                exchange(Connection::connect(&address, auth).unwrap(), program);
            }
        }
    }
}

#[test]
fn b24_an_empty_key_authenticates_python() {
    let _watchdog = watchdog(LONG);
    let dir = tempfile::tempdir().unwrap();
    for &python in pythons() {
        let [at, ..] = addresses(&dir);
        let (connection, program) = python_connects(python, &at, Some(b""));
        exchange(connection, program);
        // A listener of an older one takes an empty key for none.
        if python.version >= (3, 13) {
            let (address, program) = python_listens(python, &at, Some(b""));
            exchange(Connection::connect(&address, python.auth(b"")).unwrap(), program);
        }
    }
}

#[test]
fn b24_a_message_of_many_megabytes_goes_to_python_and_back() {
    let _watchdog = watchdog(LONG);
    let dir = tempfile::tempdir().unwrap();
    let [unix, _, tcp] = addresses(&dir);
    let message: Vec<u8> = (0..40_000_000_u32).map(|at| at.to_le_bytes()[at as usize % 3]).collect();
    for at in [unix, tcp] {
        let (mut connection, program) = python_connects(pythons()[0], &at, Some(KEY));
        connection.send_bytes(&message).unwrap();
        assert!(connection.poll(LONG).unwrap());
        assert!(connection.try_recv_bytes().unwrap() == message);
        drop(connection);
        assert!(program.end().ends_with("end"));
    }
}

#[test]
fn b24_a_wrong_key_is_refused_by_and_for_python() {
    let _watchdog = watchdog(LONG);
    let dir = tempfile::tempdir().unwrap();
    for &python in pythons() {
        for at in addresses(&dir) {
            let listener = Listener::bind(&at, python.auth(KEY)).unwrap();
            let program = Program::start(python, "client", listener.address(), Some(b"another"));
            let error = listener.accept().unwrap_err();
            let AcceptError::Handshake(HandshakeError::Refused(Refusal::WrongKey)) = error else {
                panic!("{python:?}: {error}")
            };
            assert_eq!(program.end(), "refused AuthenticationError");
            drop(listener);

            let (address, program) = python_listens(python, &at, Some(b"another"));
            let error = Connection::connect(&address, python.auth(KEY)).unwrap_err();
            let ConnectError::Handshake(HandshakeError::Refused(Refusal::Rejected)) = error else {
                panic!("{python:?}: {error}")
            };
            assert_eq!(program.end(), "refused AuthenticationError");
        }
    }
}

#[test]
fn b24_an_old_python_is_refused_unless_md5_is_allowed() {
    let _watchdog = watchdog(LONG);
    let dir = tempfile::tempdir().unwrap();
    for &python in pythons() {
        let [at, ..] = addresses(&dir);
        let listener = Listener::bind(&at, Auth::new(KEY)).unwrap();
        let program = Program::start(python, "client", listener.address(), Some(KEY));
        let accepted = listener.accept();
        drop(listener);
        if python.is_old() {
            let error = accepted.unwrap_err();
            let AcceptError::Handshake(HandshakeError::Refused(Refusal::Md5)) = error else {
                panic!("{python:?}: {error}")
            };
            assert_eq!(program.end(), "refused AuthenticationError");
        } else {
            exchange(accepted.unwrap(), program);
        }

        let (address, program) = python_listens(python, &at, Some(KEY));
        let connected = Connection::connect(&address, Auth::new(KEY));
        if python.is_old() {
            let error = connected.unwrap_err();
            let ConnectError::Handshake(HandshakeError::Refused(Refusal::Md5)) = error else {
                panic!("{python:?}: {error}")
            };
            assert!(program.end().starts_with("refused"));
        } else {
            exchange(connected.unwrap(), program);
        }
    }
}

#[test]
fn b24_descriptors_go_to_python_and_back() {
    let _watchdog = watchdog(LONG);
    let dir = tempfile::tempdir().unwrap();
    for &python in pythons() {
        let [at, ..] = addresses(&dir);
        let (mut connection, program) = python_connects(python, &at, Some(KEY));
        assert_eq!(connection.peer().unwrap().unwrap().pid, program.child.id());
        let (mut reads, writes) = std::io::pipe().unwrap();
        connection.send_bytes(b"fd").unwrap();
        connection.send_fd(writes.as_fd()).unwrap();
        drop(writes);
        assert!(matches!(connection.recv_bytes().unwrap_err(), RecvError::Descriptor));
        File::from(connection.recv_fd().unwrap()).write_all(b" and back").unwrap();
        drop(connection);
        assert!(program.end().ends_with("end"));
        let mut text = String::new();
        reads.read_to_string(&mut text).unwrap();
        assert_eq!(text, "from Python and back");
    }
}

#[test]
#[ignore = "takes 8 GiB of memory"]
fn b24_a_message_above_two_gigabytes_goes_to_python_and_back() {
    let _watchdog = watchdog(LONG);
    let dir = tempfile::tempdir().unwrap();
    let python = pythons()[0];
    let [at, ..] = addresses(&dir);
    let (address, program) = python_listens(python, &at, Some(KEY));
    let options = Options::new(python.auth(KEY)).max_message_bytes(3 << 30);
    let mut connection = Connection::connect(&address, options).unwrap();
    let mut message = vec![0; (2 << 30) + 5];
    message.iter_mut().step_by(4093).zip((0..=255).cycle()).for_each(|(byte, value)| *byte = value);
    connection.send_bytes(&message).unwrap();
    assert!(connection.recv_bytes().unwrap() == message);
    drop(connection);
    assert!(program.end().ends_with("end"));
}
