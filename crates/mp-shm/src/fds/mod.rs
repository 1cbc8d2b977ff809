//! File descriptors inside messages: [`Fd`].
//!
//! A handle is an offset in the session, a descriptor is an entry in a process's own table; so descriptors are *deposited* with the
//! session's broker, a small process, and what travels is the token under which it holds one. Whoever has the [`Fd`] asks the
//! broker for a duplicate. No process keeps a descriptor, a connection or a thread for that.
//!
//! Owns: an object of the session for each descriptor, which holds the token. Its references are counted like all others, so the
//! broker only looks whether the object is still there: see [`broker`].
//!
//! ```text
//! file        owns
//! frame.rs    the bytes on the socket
//! client.rs   asking the broker, starting it where there is none
//! broker.rs   the broker's table and its end
//! ```
//!
//! Death: of who deposited between object and deposit leaves an object that recovery takes back; of the broker loses what it held,
//! which is told by [`FdFailure::Lost`], and the next deposit starts another. All else: see the heads of the files.

pub mod broker;
mod client;
mod error;
mod frame;

pub use client::{BrokerStatus, Starter, set_starter, status};
pub use error::{FdError, FdFailure};

pub(crate) use client::nudge;

use crate::error::SessionError;
use crate::handle::{Handle, Kind};
use crate::message_of_handle;
use crate::object::Object;
use crate::references::{HandleError, Reference};
use crate::safe;
use crate::session::Session;
use frame::Token;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A file descriptor that can be sent in messages: nested anywhere, cloned, sent on any number of times.
///
/// Files, sockets, pipes, memory files, pidfds: any kind. All duplicates share what the system keeps with an open file, its position,
/// say. The descriptor is closed with the last `Fd` and the last message that has one, also if their processes are killed.
///
/// Making the first one of a session starts a small helper process that holds the descriptors and ends with the session. It is nobody's child and
/// is not part of the session. For that this program must run multiproc's hook, as for starting children.
///
/// Limits: the processes share a network namespace; as many as the hard limit of open descriptors lets one process have.
///
/// # Examples
/// ```
/// # // What starts processes brings the hook; here nobody does.
/// use mp_shm::Fd;
/// use std::fs::File;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # if false {
/// let fd = Fd::new(File::open("/dev/null")?)?;
/// // … send it; where it arrives:
/// let file = File::from(fd.open()?);
/// # }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Fd {
    object: Arc<Object>,
    token: Token,
}

const LAYOUT: u64 = safe::layout("mp_shm::Fd", size_of::<Token>(), align_of::<Token>());

impl Fd {
    /// Deposits a descriptor with the broker of this program tree's session. This process keeps none.
    ///
    /// # Errors
    /// [`FdError`], which gives the descriptor back: the hook has not run, the broker may have no more, no memory.
    pub fn new(fd: impl Into<OwnedFd>) -> Result<Self, FdError> {
        let fd = fd.into();
        match Session::current() {
            Ok(session) => Self::new_in(session, fd),
            Err(error) => Err(FdError::new(FdFailure::Session(error), Some(fd))),
        }
    }

    /// [`new`](Self::new) in a given session: only processes attached to it can receive the descriptor.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn new_in(session: Session, fd: impl Into<OwnedFd>) -> Result<Self, FdError> {
        let fd = fd.into();
        Self::deposit(session, fd.as_fd()).map_err(|failure| FdError::new(failure, Some(fd)))
    }

    /// Deposits a duplicate of a descriptor that this process keeps.
    ///
    /// # Errors
    /// As [`new`](Self::new); the descriptor is not open.
    pub fn of(fd: impl AsFd) -> Result<Self, FdError> {
        let session = Session::current().map_err(FdFailure::Session);
        session.and_then(|session| Self::deposit(session, fd.as_fd())).map_err(|one| FdError::new(one, None))
    }

    /// A duplicate of the descriptor for this process, close-on-exec.
    ///
    /// # Errors
    /// [`FdFailure::Lost`] if the broker that held it was killed; it does not answer; this process may have no more descriptors.
    pub fn open(&self) -> Result<OwnedFd, FdError> {
        client::fetch(self.session(), self.token).map_err(|failure| FdError::new(failure, None))
    }

    /// Names it in every process of its session.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.reference().handle()
    }

    /// The session whose broker holds the descriptor.
    #[must_use]
    pub fn session(&self) -> Session {
        self.reference().session()
    }

    fn deposit(session: Session, fd: BorrowedFd<'_>) -> Result<Self, FdFailure> {
        // Before the broker may be started: it ends where nobody takes part.
        session.me().map_err(FdFailure::Session)?;
        let token = mp_sys::process::random().map_err(FdFailure::io("making a token"))?;
        let object =
            Object::create(session, Kind::FD, LAYOUT, size_of::<Token>()).map_err(FdFailure::Session)?;
        let words = object.words(0, 2).ok_or(FdFailure::Session(SessionError::NotASession))?;
        for (place, word) in words.iter().zip(token) {
            place.store(word, Ordering::Relaxed);
        }
        mp_sys::crash::point("fds.before_deposit");
        // Should it fail, the object goes, and a broker that has the descriptor all the same finds that.
        client::deposit(session, token, object.reference().handle(), fd)?;
        mp_sys::crash::point("fds.deposited");
        Ok(Self { object: Arc::new(object), token })
    }

    fn reference(&self) -> &Reference {
        self.object.reference()
    }

    fn of_reference(reference: Reference) -> Result<Self, HandleError> {
        let object = Object::open(reference, LAYOUT)?;
        let words = object.words(0, 2).ok_or(HandleError::OtherType)?;
        // Written before the handle was given to anybody, under the domain's lock since.
        let token = [words[0].load(Ordering::Relaxed), words[1].load(Ordering::Relaxed)];
        Ok(Self { object: Arc::new(object), token })
    }
}

message_of_handle!([] Fd, Kind::FD, Fd::reference, Fd::of_reference);

impl fmt::Debug for Fd {
    /// Without the token, which is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fd({})", self.handle())
    }
}
