//! A first channel between programs that did not start each other: a server that is found once, by its name.
//!
//! The name is random and says where to connect. Who connects attaches to the server's session, takes the sending end that is published
//! there, and sends the first message; with that the server is found, and nobody else can find it. Both programs belong to the same user and
//! trust each other fully from then on (`mp_shm::listener`). For others see [`crate::connection`].
//!
//! # Examples
//! ```
//! use mp_channel::server::{self, OneShotServer};
//!
//! let server = OneShotServer::<String>::new()?;
//! let name = server.name().to_owned();
//! let client = std::thread::spawn(move || {
//!     let sender = server::connect::<String>(&name).unwrap();
//!     sender.send("hello".to_owned()).unwrap();
//!     sender.send("again".to_owned()).unwrap();
//! });
//! let (receiver, first) = server.accept()?;
//! assert_eq!((first.as_str(), receiver.recv()?.as_str()), ("hello", "again"));
//! client.join().unwrap();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::error::{ChannelError, RecvError};
use crate::{Receiver, Sender};
use mp_shm::listener::{ListenError, SessionListener};
use mp_shm::published::PublishError;
use mp_shm::{Message, Session};
use mp_sys::deadline::Deadline;
use std::fmt;
use std::time::Duration;

/// Messages that wait while nobody receives.
const CAPACITY: usize = 64;
/// How long one who was let in may take for his first message before others are let in.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);

/// Waits to be found.
#[derive(Debug)]
pub struct OneShotServer<T> {
    session: Session,
    listener: SessionListener,
    receiver: Receiver<T>,
    name: String,
}

/// A server could not be made, found, or was not found.
#[derive(Debug)]
pub enum ServerError {
    /// The channel could not be made.
    Channel(ChannelError),
    /// The session could not be handed over or reached.
    Listen(ListenError),
    /// The end could not be published, or is not there: somebody else has found the server.
    Publish(PublishError),
    /// The first message is not a valid one.
    Recv(RecvError),
    /// Nobody came in the time given.
    TimedOut,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Channel(error) => error.fmt(f),
            Self::Listen(error) => error.fmt(f),
            Self::Publish(error) => error.fmt(f),
            Self::Recv(error) => error.fmt(f),
            Self::TimedOut => f.write_str("waiting to be found: nobody came in time"),
        }
    }
}

impl std::error::Error for ServerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Channel(error) => Some(error),
            Self::Listen(error) => Some(error),
            Self::Publish(error) => Some(error),
            Self::Recv(error) => Some(error),
            Self::TimedOut => None,
        }
    }
}

/// The address that a name stands for, and what is published under it.
fn places(name: &str) -> (String, String) {
    (format!("@multiproc-one-shot-{name}"), format!("one-shot-{name}"))
}

impl<T: Message> OneShotServer<T> {
    /// Makes a server in the session of this program tree.
    ///
    /// # Errors
    /// [`ServerError`]
    pub fn new() -> Result<Self, ServerError> {
        let session =
            Session::current().map_err(|error| ServerError::Channel(ChannelError::Session(error)))?;
        let (sender, receiver) = crate::channel_in(session, CAPACITY).map_err(ServerError::Channel)?;
        let random = mp_sys::process::random()
            .map_err(|error| ServerError::Listen(ListenError::Io { doing: "making a random name", error }))?;
        let name = format!("{:016x}{:016x}", random[0], random[1]);
        let (address, published) = places(&name);
        session.publish::<Sender<T>>(&published, &sender).map_err(ServerError::Publish)?;
        let listener = session.listen(&address).map_err(|error| {
            // Nobody can have found it.
            let _ = session.unpublish(&published);
            ServerError::Listen(error)
        })?;
        Ok(Self { session, listener, receiver, name })
    }

    /// What the other program needs for [`connect`]; hand it on in whatever way.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until it is found, as long as it takes; gives the receiving end and the first message.
    ///
    /// # Errors
    /// [`ServerError`]
    pub fn accept(self) -> Result<(Receiver<T>, T), ServerError> {
        self.accept_until(None)
    }

    /// [`accept`](Self::accept) for at most `timeout`.
    ///
    /// # Errors
    /// [`ServerError`]
    pub fn accept_timeout(self, timeout: Duration) -> Result<(Receiver<T>, T), ServerError> {
        self.accept_until(Some(Deadline::after(timeout)))
    }

    fn accept_until(self, until: Option<Deadline>) -> Result<(Receiver<T>, T), ServerError> {
        loop {
            let limit = until.map(Deadline::left);
            let accepted = match limit {
                Some(limit) => self.listener.accept_one_timeout(limit),
                None => self.listener.accept_one(),
            };
            match accepted {
                // Somebody of another user was sent away.
                Ok(_) | Err(ListenError::OtherUser(_)) => {}
                Err(ListenError::TimedOut) => return Err(ServerError::TimedOut),
                Err(error) => return Err(ServerError::Listen(error)),
            }
            match self.receiver.recv_timeout(limit.map_or(FIRST_MESSAGE, |limit| limit.min(FIRST_MESSAGE))) {
                Ok(first) => return Ok((self.receiver.clone(), first)),
                Err(RecvError::Empty) if until.is_some_and(Deadline::passed) => {
                    return Err(ServerError::TimedOut);
                }
                Err(RecvError::Empty) => {}
                Err(error) => return Err(ServerError::Recv(error)),
            }
        }
    }
}

impl<T> Drop for OneShotServer<T> {
    fn drop(&mut self) {
        // From here on only those who have found it hold the sending end.
        let _ = self.session.unpublish(&places(&self.name).1);
    }
}

/// Finds the server of this name; gives the sending end to it. The first message that is sent makes it found.
///
/// # Errors
/// [`ServerError`]: there is none of that name, somebody else has found it, or it carries another type.
pub fn connect<T: Message>(name: &str) -> Result<Sender<T>, ServerError> {
    let (address, published) = places(name);
    let session = Session::connect(&address).map_err(ServerError::Listen)?;
    session.lookup::<Sender<T>>(&published).map_err(ServerError::Publish)
}
