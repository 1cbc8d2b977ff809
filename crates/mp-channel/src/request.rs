//! Questions and answers: a server that any number of clients ask.
//!
//! A question travels through one channel, with the sending end of a [`oneshot`] for its answer. So answers come in any order, a client
//! may ask many questions before the first answer, and the death of either side is an error on the other: of the server, at once for
//! the questions it had taken, and for those in the queue when the last server is gone.
//!
//! # Examples
//! ```
//! let (client, server) = mp_channel::request::channel::<u64, u64>(8)?;
//! let serving = std::thread::spawn(move || server.serve(|number| number * number));
//! assert_eq!(client.call(7)?, 49);
//! drop(client);
//! serving.join().unwrap()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::error::{ChannelError, RecvError, SendFailure};
use crate::select::{Selectable, Source};
use crate::{Receiver, Sender, oneshot};
use mp_shm::{Message, Session, message_of_parts};
use std::fmt;
use std::time::{Duration, Instant};

/// Asks. Clone it, send it to other processes.
pub struct Client<Q, A>(Sender<(Q, oneshot::Sender<A>)>);

/// Is asked. Clone it, send it to other processes: each question goes to one server.
pub struct Server<Q, A>(Receiver<(Q, oneshot::Sender<A>)>);

/// A question that waits for its answer. Dropping it tells the client that none will come.
pub struct Request<Q, A> {
    /// What is asked.
    pub question: Q,
    answer: oneshot::Sender<A>,
}

/// An answer that is to come: see [`Client::ask`].
pub type Answer<A> = oneshot::Receiver<A>;

/// A call did not bring an answer.
#[derive(Debug)]
pub enum CallError {
    /// The question could not be asked.
    Ask(SendFailure),
    /// No answer came: the server dropped the question or died, or the time was over.
    Answer(RecvError),
    /// There was no memory for a place to answer to.
    Channel(ChannelError),
}

impl CallError {
    /// Whether the time was over.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Ask(SendFailure::Full) | Self::Answer(RecvError::Empty))
    }

    /// Whether there is no server, or it dropped the question or died.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        matches!(self, Self::Ask(SendFailure::Disconnected) | Self::Answer(RecvError::Disconnected))
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ask(error) => write!(f, "asking: {error}"),
            Self::Answer(error) => write!(f, "waiting for an answer: {error}"),
            Self::Channel(error) => write!(f, "asking: {error}"),
        }
    }
}

impl std::error::Error for CallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Ask(error) => Some(error),
            Self::Answer(error) => Some(error),
            Self::Channel(error) => Some(error),
        }
    }
}

/// Both ends.
pub type Ends<Q, A> = (Client<Q, A>, Server<Q, A>);

/// Makes a pair for up to `capacity` questions that wait to be taken, 0 to 2^24, in the session of this program tree.
///
/// # Errors
/// [`ChannelError`]
pub fn channel<Q: Message, A: Message>(capacity: usize) -> Result<Ends<Q, A>, ChannelError> {
    channel_in(Session::current().map_err(ChannelError::Session)?, capacity)
}

/// Makes a pair in a given session: only processes attached to that session can hold its ends.
///
/// # Errors
/// As [`channel`].
pub fn channel_in<Q: Message, A: Message>(
    session: Session,
    capacity: usize,
) -> Result<Ends<Q, A>, ChannelError> {
    let (sender, receiver) = crate::channel_in(session, capacity)?;
    Ok((Client(sender), Server(receiver)))
}

impl<Q: Message, A: Message> Client<Q, A> {
    /// Asks, and waits for the answer as long as it takes.
    ///
    /// # Errors
    /// [`CallError`]
    pub fn call(&self, question: Q) -> Result<A, CallError> {
        self.ask(question)?.recv().map_err(CallError::Answer)
    }

    /// Asks, and waits for the answer for at most `timeout` in all.
    ///
    /// # Errors
    /// [`CallError`]
    pub fn call_timeout(&self, question: Q, timeout: Duration) -> Result<A, CallError> {
        let now = Instant::now();
        let deadline = now.checked_add(timeout);
        match deadline {
            Some(deadline) => self.call_deadline(question, deadline),
            None => self.call(question),
        }
    }

    /// Asks, and waits for the answer until `deadline`.
    ///
    /// # Errors
    /// [`CallError`]
    pub fn call_deadline(&self, question: Q, deadline: Instant) -> Result<A, CallError> {
        let (sender, mut receiver) = oneshot::channel_in(self.0.session()).map_err(CallError::Channel)?;
        let sent = self.0.send_deadline((question, sender), deadline);
        sent.map_err(|error| CallError::Ask(error.failure))?;
        receiver.recv_deadline(deadline).map_err(CallError::Answer)
    }

    /// Asks, and gives the answer to be waited for later.
    ///
    /// # Errors
    /// [`CallError`]
    pub fn ask(&self, question: Q) -> Result<Answer<A>, CallError> {
        let (sender, receiver) = oneshot::channel_in(self.0.session()).map_err(CallError::Channel)?;
        self.0.send((question, sender)).map_err(|error| CallError::Ask(error.failure))?;
        Ok(receiver)
    }

    /// Asks, and waits for the answer, as a future. Dropping it gives up the answer.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn call_async(&self, question: Q) -> Result<A, CallError>
    where
        Q: Unpin,
    {
        let (sender, mut receiver) = oneshot::channel_in(self.0.session()).map_err(CallError::Channel)?;
        let sent = self.0.send_async((question, sender)).await;
        sent.map_err(|error| CallError::Ask(error.failure))?;
        receiver.recv_async().await.map_err(CallError::Answer)
    }
}

impl<Q: Message, A: Message> Server<Q, A> {
    /// Takes a question, waiting for it as long as it takes.
    ///
    /// # Errors
    /// As [`Receiver::recv`]: no client is left.
    pub fn recv(&self) -> Result<Request<Q, A>, RecvError> {
        self.0.recv().map(Request::new)
    }

    /// Takes a question if there is one now.
    ///
    /// # Errors
    /// As [`Receiver::try_recv`].
    pub fn try_recv(&self) -> Result<Request<Q, A>, RecvError> {
        self.0.try_recv().map(Request::new)
    }

    /// Takes a question, waiting for it for at most `timeout`.
    ///
    /// # Errors
    /// As [`Receiver::recv_timeout`].
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Request<Q, A>, RecvError> {
        self.0.recv_timeout(timeout).map(Request::new)
    }

    /// Takes a question, waiting for it until `deadline`.
    ///
    /// # Errors
    /// As [`Receiver::recv_deadline`].
    pub fn recv_deadline(&self, deadline: Instant) -> Result<Request<Q, A>, RecvError> {
        self.0.recv_deadline(deadline).map(Request::new)
    }

    /// Answers questions until all clients are gone. A client that does not wait for its answer any more is none of the server's business.
    ///
    /// # Errors
    /// What ends it besides: a question that is not valid, or that this process has no part in the session.
    pub fn serve(&self, mut answer: impl FnMut(Q) -> A) -> Result<(), RecvError> {
        loop {
            match self.recv() {
                Ok(request) => {
                    let Request { question, answer: place } = request;
                    // Fails only if nobody waits.
                    let _ = place.send(answer(question));
                }
                Err(RecvError::Disconnected) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

impl<Q: Message, A: Message> Request<Q, A> {
    fn new((question, answer): (Q, oneshot::Sender<A>)) -> Self {
        Self { question, answer }
    }

    /// Answers.
    ///
    /// # Errors
    /// The client does not wait any more, or the answer cannot be encoded.
    pub fn answer(self, answer: A) -> Result<(), SendFailure> {
        self.answer.send(answer).map_err(|error| error.failure)
    }
}

message_of_parts!([Q: Message, A: Message] Client<Q, A>, Client, 0: Sender<(Q, oneshot::Sender<A>)>);
message_of_parts!([Q: Message, A: Message] Server<Q, A>, Server, 0: Receiver<(Q, oneshot::Sender<A>)>);

impl<Q, A> Selectable for Server<Q, A> {
    fn selected(&self) -> Source {
        self.0.selected()
    }
}

impl<Q, A> Clone for Client<Q, A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<Q, A> Clone for Server<Q, A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<Q, A> fmt::Debug for Client<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.0).finish()
    }
}

impl<Q, A> fmt::Debug for Server<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Server").field(&self.0).finish()
    }
}

impl<Q: fmt::Debug, A> fmt::Debug for Request<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("question", &self.question).finish_non_exhaustive()
    }
}
