//! Sending and receiving as futures, of any runtime or none.
//!
//! A future tries; if it cannot go on it registers with the reactor, tries once more, and is pending until it is woken. It does nothing but in
//! `poll`, so dropping it is safe at any time: a message that it has not given out is still in the channel, a value that it has not sent goes
//! with it.

use crate::bells::{self, Round};
use crate::error::{RecvError, SendError};
use crate::reactor::{self, Registration};
use crate::source::Source;
use crate::{Receiver, Sender, spsc};
use futures_core::Stream;
use mp_shm::Message;
use mp_shm::error::SessionError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Tries, registers, tries again; `attempt` gives `None` if it must wait.
fn poll_once<R>(
    registration: &mut Option<Registration>,
    context: &mut Context<'_>,
    source: impl Fn() -> Source,
    mut attempt: impl FnMut() -> Option<R>,
) -> Poll<Result<R, SessionError>> {
    *registration = None;
    if let Some(result) = attempt() {
        return Poll::Ready(Ok(result));
    }
    let source = source();
    let registered = reactor::register(vec![source.clone()], Vec::new(), context.waker().clone());
    *registration = Some(registered.map_err(SessionError::Thread)?);
    Round::begin(std::iter::once(source.place()))?;
    bells::look();
    source.recover_dead_owners();
    match attempt() {
        Some(result) => {
            *registration = None;
            Poll::Ready(Ok(result))
        }
        None => Poll::Pending,
    }
}

/// A message to come: see [`Receiver::recv_async`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct RecvFuture<'a, T> {
    receiver: Receiving<'a, T>,
    registration: Option<Registration>,
}

enum Receiving<'a, T> {
    Many(&'a Receiver<T>),
    Lane(&'a mut spsc::Receiver<T>),
}

impl<T: Message> Receiving<'_, T> {
    fn source(&self) -> Source {
        match self {
            Self::Many(receiver) => receiver.source(),
            Self::Lane(receiver) => receiver.source(),
        }
    }

    fn attempt(&mut self) -> Option<Result<T, RecvError>> {
        let result = match self {
            Self::Many(receiver) => receiver.try_recv(),
            Self::Lane(receiver) => receiver.try_recv(),
        };
        Some(result).filter(|result| !matches!(result, Err(RecvError::Empty)))
    }

    fn poll(
        &mut self,
        registration: &mut Option<Registration>,
        context: &mut Context<'_>,
    ) -> Poll<Result<T, RecvError>> {
        let source = self.source();
        poll_once(registration, context, || source.clone(), || self.attempt())
            .map(|result| result.unwrap_or_else(|error| Err(RecvError::Session(error))))
    }
}

impl<T: Message> Future for RecvFuture<'_, T> {
    type Output = Result<T, RecvError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        this.receiver.poll(&mut this.registration, context)
    }
}

/// Messages to come, until all senders are gone: see [`Receiver::stream`].
#[must_use = "streams do nothing unless they are polled"]
pub struct RecvStream<'a, T>(RecvFuture<'a, T>);

impl<T: Message> Stream for RecvStream<'_, T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let this = &mut self.get_mut().0;
        this.receiver.poll(&mut this.registration, context).map(Result::ok)
    }
}

/// A message on its way: see [`Sender::send_async`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct SendFuture<'a, T> {
    sender: Sending<'a, T>,
    /// Until it is sent.
    value: Option<T>,
    registration: Option<Registration>,
}

enum Sending<'a, T> {
    Many(&'a Sender<T>),
    Lane(&'a mut spsc::Sender<T>),
}

impl<T: Message> Sending<'_, T> {
    fn source(&self) -> Source {
        match self {
            Self::Many(sender) => sender.source(),
            Self::Lane(sender) => sender.source(),
        }
    }

    /// Sends the value, which is there again if it could not be sent now.
    fn attempt(&mut self, value: &mut Option<T>) -> Option<Result<(), SendError<T>>> {
        let one = value.take()?;
        let result = match self {
            Self::Many(sender) => sender.try_send(one),
            Self::Lane(sender) => sender.try_send(one),
        };
        match result {
            Err(error) if error.is_full() => {
                *value = Some(error.into_value());
                None
            }
            result => Some(result),
        }
    }
}

impl<T: Message + Unpin> Future for SendFuture<'_, T> {
    type Output = Result<(), SendError<T>>;

    /// # Panics
    /// If it is polled again after it has ended.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { sender, value, registration } = self.get_mut();
        assert!(value.is_some(), "polled after it has ended");
        let source = sender.source();
        let polled = poll_once(registration, context, || source.clone(), || sender.attempt(value));
        polled.map(|result| {
            result.unwrap_or_else(|error| {
                let Some(value) = value.take() else { unreachable!("what was not sent is still here") };
                Err(SendError { value, failure: crate::SendFailure::Session(error) })
            })
        })
    }
}

impl<T: Message> Receiver<T> {
    /// Receives the next message as a future. Dropping it loses nothing.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_async(&self) -> RecvFuture<'_, T> {
        RecvFuture { receiver: Receiving::Many(self), registration: None }
    }

    /// The messages as a stream, which ends when all senders are gone, or with a message that is not valid.
    pub fn stream(&self) -> RecvStream<'_, T> {
        RecvStream(self.recv_async())
    }
}

impl<T: Message> spsc::Receiver<T> {
    /// Receives the next message as a future. Dropping it loses nothing.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_async(&mut self) -> RecvFuture<'_, T> {
        RecvFuture { receiver: Receiving::Lane(self), registration: None }
    }

    /// The messages as a stream, which ends when the sender is gone, or with a message that is not valid.
    pub fn stream(&mut self) -> RecvStream<'_, T> {
        RecvStream(self.recv_async())
    }
}

impl<T: Message> Sender<T> {
    /// Sends `value` as a future. Dropping it before it has ended drops the value, unsent.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_async(&self, value: T) -> SendFuture<'_, T> {
        SendFuture { sender: Sending::Many(self), value: Some(value), registration: None }
    }
}

impl<T: Message> spsc::Sender<T> {
    /// Sends `value` as a future. Dropping it before it has ended drops the value, unsent.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_async(&mut self, value: T) -> SendFuture<'_, T> {
        SendFuture { sender: Sending::Lane(self), value: Some(value), registration: None }
    }
}

impl<T> fmt::Debug for RecvFuture<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvFuture").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for RecvStream<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvStream").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for SendFuture<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendFuture").finish_non_exhaustive()
    }
}
