//! Asking the broker of descriptors, and starting it where there is none.
//!
//! ```text
//! connecting       to deposit                                   to fetch
//! somebody listens ask                                          ask
//! nobody listens   bind the name, start a broker that takes     the descriptor is lost
//!                  the listening socket over, connect again
//! the name is      another has just bound it: connect again     –
//! taken
//! closed unanswered  the broker died: connect again             connect again
//! ```
//!
//! Who binds the name starts the broker, so there is one, however many come first at once; the others wait in the queue of the socket.
//!
//! Owns: nothing between calls. Death: of who has bound the name and not started the broker closes the socket; those who wait there
//! are told and begin again. Of the broker: the same. Every wait ends after `PATIENCE`.

use super::error::{FdError, FdFailure};
use super::frame::{ANSWER_BYTES, Answer, Question, Status, Token};
use crate::handle::Handle;
use crate::session::Session;
use mp_sys::deadline::Deadline;
use mp_sys::packet::{PacketListener, Socket};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long the broker may take to start and to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much longer each time a call waits before it starts a further broker in place of one that ended without an answer.
const START_PAUSE: Duration = Duration::from_millis(1);

/// Starts a process of this program that calls [`broker::run`](super::broker::run) with duplicates of the session's file and the listening socket.
pub type Starter = fn(Session, BorrowedFd<'_>) -> io::Result<()>;

static STARTER: OnceLock<Starter> = OnceLock::new();

/// Sets the function that starts the broker; for the crate that starts processes.
pub fn set_starter(starter: Starter) {
    // The same function, from the one crate that starts processes.
    let _ = STARTER.set(starter);
}

/// What the broker of a session says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerStatus {
    /// Its process id.
    pub pid: u32,
    /// Descriptors it holds.
    pub held: u32,
}

/// Asks the session's broker how it is; `None` if there is none.
///
/// # Errors
/// It does not answer, or is not to be trusted.
pub fn status(session: Session) -> Result<Option<BrokerStatus>, FdError> {
    let until = Deadline::after(PATIENCE);
    let answer = loop {
        match ask(session, Question::Status, None, until) {
            Err(Unasked::Died) if !until.passed() => {}
            Err(Unasked::Died) => break Err(FdFailure::TimedOut),
            Err(Unasked::Absent) => return Ok(None),
            Err(Unasked::Failed(failure)) => break Err(failure),
            Ok((answer, _)) => break Ok(answer),
        }
    };
    let status = answer.map(|Answer { pid, held, .. }| Some(BrokerStatus { pid, held }));
    status.map_err(|failure| FdError::new(failure, None))
}

/// Has the broker hold a duplicate of `fd` while the object of `handle` lives.
pub(super) fn deposit(
    session: Session,
    token: Token,
    handle: Handle,
    fd: BorrowedFd<'_>,
) -> Result<(), FdFailure> {
    let until = Deadline::after(PATIENCE);
    let question = Question::Deposit { token, offset: handle.offset, generation: handle.generation };
    let mut starts = 0;
    loop {
        match ask(session, question, Some(fd), until) {
            Ok((Answer { status: Status::Done, .. }, _)) => return Ok(()),
            Ok((Answer { status: Status::Full, .. }, _)) => return Err(FdFailure::Full),
            // The object is there: we hold it.
            Ok((Answer { status: Status::Unknown, .. }, _)) => return Err(FdFailure::Broken),
            Err(Unasked::Absent) => {
                std::thread::sleep(START_PAUSE * starts);
                starts += u32::from(start(session)?);
            }
            Err(Unasked::Died) => {}
            Err(Unasked::Failed(failure)) => return Err(failure),
        }
        if until.passed() {
            return Err(if starts > 1 { FdFailure::Broken } else { FdFailure::TimedOut });
        }
    }
}

/// A duplicate of what the broker holds under `token`.
pub(super) fn fetch(session: Session, token: Token) -> Result<OwnedFd, FdFailure> {
    let until = Deadline::after(PATIENCE);
    loop {
        match ask(session, Question::Fetch { token }, None, until) {
            Ok((Answer { status: Status::Done, .. }, Some(fd))) => return Ok(fd),
            Ok((Answer { status: Status::Unknown, .. }, None)) | Err(Unasked::Absent) => {
                return Err(FdFailure::Lost);
            }
            Ok(_) => return Err(FdFailure::Broken),
            Err(Unasked::Died) if until.passed() => return Err(FdFailure::TimedOut),
            Err(Unasked::Died) => {}
            Err(Unasked::Failed(failure)) => return Err(failure),
        }
    }
}

/// Makes the broker look which objects are gone. Never waits: if too many wait there already, the broker looks after it has served them.
pub(crate) fn nudge(session: Session) {
    // Without a broker nothing is held; without a free descriptor here it looks at the next chance.
    let _ = Socket::knock(&name(session));
}

/// Why a question has no answer.
enum Unasked {
    /// Nobody listens.
    Absent,
    /// Whoever listened has gone without an answer.
    Died,
    Failed(FdFailure),
}

fn ask(
    session: Session,
    question: Question,
    fd: Option<BorrowedFd<'_>>,
    until: Deadline,
) -> Result<(Answer, Option<OwnedFd>), Unasked> {
    let doing = |doing: &'static str| {
        move |error: io::Error| match error.kind() {
            io::ErrorKind::ConnectionRefused => Unasked::Absent,
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Unasked::Died,
            _ => Unasked::Failed(FdFailure::io(doing)(error)),
        }
    };
    let (socket, peer) =
        Socket::connect(&name(session), until).map_err(doing("connecting to the session's broker"))?;
    if peer.user != mp_sys::process::user() {
        return Err(Unasked::Failed(FdFailure::OtherUser(peer.user)));
    }
    let frame = question.to_bytes(words(&session.header().broker_secret));
    socket.send(&frame, fd, until).map_err(doing("asking the session's broker"))?;
    mp_sys::crash::point("fds.asked");
    let mut buffer = [0; ANSWER_BYTES + 1];
    let packet = socket.receive(&mut buffer, until).map_err(doing("waiting for the session's broker"))?;
    if packet.len == 0 {
        return Err(Unasked::Died);
    }
    let answer = Answer::parse(&buffer[..packet.len]).ok_or(Unasked::Failed(FdFailure::Broken))?;
    let mut fds = packet.fds.into_iter();
    match (fds.next(), packet.is_cut) {
        // It was sent and could not be taken: this process has no number left for it.
        (None, true) => {
            let error = io::Error::other("this process may have no more descriptors");
            Err(Unasked::Failed(FdFailure::Io {
                doing: "taking a descriptor from the session's broker",
                error,
            }))
        }
        (fd, _) => Ok((answer, fd)),
    }
}

/// Starts a broker unless somebody else is doing so; says whether it did.
fn start(session: Session) -> Result<bool, FdFailure> {
    let starter = STARTER.get().ok_or(FdFailure::NoHook)?;
    let listener = match PacketListener::bind(&name(session)) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Ok(false),
        other => other.map_err(FdFailure::io("listening in place of the session's broker"))?,
    };
    mp_sys::crash::point("fds.bound");
    starter(session, listener.as_fd()).map_err(FdFailure::io("starting the session's broker"))?;
    mp_sys::crash::point("fds.started");
    Ok(true)
}

fn name(session: Session) -> Vec<u8> {
    let [high, low] = words(&session.header().broker_name);
    format!("multiproc-fds-{high:016x}{low:016x}").into_bytes()
}

pub(super) fn words(of: &[AtomicU64; 2]) -> [u64; 2] {
    [of[0].load(Ordering::Relaxed), of[1].load(Ordering::Relaxed)]
}
