//! The receiving half of a connection.
//!
//! Owns: what has arrived of the next message, which outlasts a time-out, and a descriptor that has arrived before somebody asked for it.
//!
//! ```text
//! state        has                               who moves on
//! OPEN         part of a frame, or all of it     whoever reads
//! DESCRIPTOR   one that came between messages    recv_fd takes it
//! ENDED        nothing more comes: the other end has closed, or what it sent was refused
//! ```
//!
//! No byte beyond the frame is read: a descriptor comes with a byte of its own, and is lost if that is read as something else.

use super::error::RecvError;
use super::forms::{forms, try_form};
use super::frame::{Decoder, ONE_DESCRIPTOR};
use super::peer::Peer;
use super::value::{self, Plain};
use mp_sync::patience::Patience;
use mp_sys::stream::{Stop, Stream};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The receiving half of a [`Connection`](super::Connection).
///
/// A receive that ends because the time is over keeps what has arrived; the next one goes on there.
#[derive(Debug)]
pub struct Reader {
    stream: Arc<Stream>,
    decoder: Decoder,
    descriptor: Option<OwnedFd>,
    has_ended: bool,
}

impl AsFd for Reader {
    /// The socket, which both halves share. Whoever reads from it takes bytes away from the messages.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Reader {
    pub(super) fn new(stream: Arc<Stream>, max_message_bytes: u64) -> Self {
        Self { stream, decoder: Decoder::new(max_message_bytes), descriptor: None, has_ended: false }
    }

    /// Which process is at the other end, as the system knows it; `None` over TCP.
    ///
    /// # Errors
    /// What `getsockopt` says.
    pub fn peer(&self) -> io::Result<Option<Peer>> {
        Peer::of(&self.stream)
    }

    forms! {
        /// Receives a message.
        ///
        /// # Errors
        /// [`RecvError::Disconnected`] when the other end has closed and all is received; [`RecvError::Truncated`] when it did so in the
        /// middle of a message; [`RecvError::Frame`] when the message is longer than [allowed](super::Options::max_message_bytes);
        /// [`RecvError::Descriptor`]; what the system says.
        recv_bytes, recv_bytes_timeout, recv_bytes_deadline
        (self => self) -> Result<Vec<u8>, RecvError> = bytes_patiently
    }
    try_form! { try_recv_bytes, recv_bytes (self => self) -> Result<Vec<u8>, RecvError> = bytes_patiently }

    forms! {
        /// Receives a message into `buffer`, and gives its length in bytes.
        ///
        /// # Errors
        /// As [`recv_bytes`](Self::recv_bytes). [`RecvError::TooSmall`] has the message when it is longer than the buffer.
        recv_bytes_into, recv_bytes_into_timeout, recv_bytes_into_deadline
        (self => self, buffer: &mut [u8]) -> Result<usize, RecvError> = buffer_patiently
    }
    try_form! {
        try_recv_bytes_into, recv_bytes_into
        (self => self, buffer: &mut [u8]) -> Result<usize, RecvError> = buffer_patiently
    }

    forms! {
        /// Receives a value that the other end sent as the same type.
        ///
        /// # Errors
        /// As [`recv_bytes`](Self::recv_bytes). [`RecvError::Invalid`] when the message is no value of this type; it is consumed.
        recv_value, recv_value_timeout, recv_value_deadline
        <T>(self => self) -> Result<T, RecvError> = value_patiently
    }
    try_form! { try_recv_value, recv_value <T>(self => self) -> Result<T, RecvError> = value_patiently }

    forms! {
        /// Receives a descriptor, close-on-exec, that the other end sent with [`send_fd`](super::Writer::send_fd), or a Python program
        /// with `multiprocessing.reduction.send_handle`.
        ///
        /// # Errors
        /// As [`recv_bytes`](Self::recv_bytes). [`RecvError::NoDescriptor`] when a message comes next; [`RecvError::NotLocal`] over TCP.
        recv_fd, recv_fd_timeout, recv_fd_deadline
        (self => self) -> Result<OwnedFd, RecvError> = fd_patiently
    }
    try_form! { try_recv_fd, recv_fd (self => self) -> Result<OwnedFd, RecvError> = fd_patiently }

    /// Whether something whole can be received without waiting: a message, or a descriptor. Waits for it for `timeout`.
    ///
    /// # Errors
    /// As [`recv_bytes`](Self::recv_bytes): above all [`RecvError::Disconnected`] when nothing will ever come.
    pub fn poll(&mut self, timeout: Duration) -> Result<bool, RecvError> {
        self.poll_patiently(timeout.into())
    }

    /// [`poll`](Self::poll) until `deadline`.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn poll_deadline(&mut self, deadline: Instant) -> Result<bool, RecvError> {
        self.poll_patiently(deadline.into())
    }

    pub(super) fn poll_patiently(&mut self, patience: Patience) -> Result<bool, RecvError> {
        match self.fill(patience) {
            Ok(()) | Err(RecvError::Descriptor) => Ok(true),
            Err(RecvError::TimedOut) => Ok(false),
            Err(other) => Err(other),
        }
    }

    pub(super) fn bytes_patiently(&mut self, patience: Patience) -> Result<Vec<u8>, RecvError> {
        self.fill(patience)?;
        Ok(self.decoder.take().unwrap_or_default())
    }

    pub(super) fn buffer_patiently(
        &mut self,
        buffer: &mut [u8],
        patience: Patience,
    ) -> Result<usize, RecvError> {
        self.fill(patience)?;
        let message = self.decoder.message().unwrap_or_default();
        let len = message.len();
        match buffer.get_mut(..len) {
            Some(place) => place.copy_from_slice(message),
            None => return Err(RecvError::TooSmall(self.decoder.take().unwrap_or_default())),
        }
        self.decoder.discard();
        Ok(len)
    }

    pub(super) fn value_patiently<T: Plain>(&mut self, patience: Patience) -> Result<T, RecvError> {
        self.fill(patience)?;
        let value = value::decode(self.decoder.message().unwrap_or_default());
        self.decoder.discard();
        value
    }

    pub(super) fn fd_patiently(&mut self, patience: Patience) -> Result<OwnedFd, RecvError> {
        if !self.stream.is_local() {
            return Err(RecvError::NotLocal);
        }
        // One byte is enough to know what comes.
        if self.descriptor.is_none() && self.decoder.is_at_start() {
            self.read(1, patience)?;
        }
        self.descriptor.take().ok_or(RecvError::NoDescriptor)
    }

    /// Reads until the decoder has a whole message.
    fn fill(&mut self, patience: Patience) -> Result<(), RecvError> {
        while !self.decoder.is_whole() {
            if self.descriptor.is_some() {
                return Err(RecvError::Descriptor);
            }
            self.read(usize::MAX, patience)?;
        }
        Ok(())
    }

    /// Reads once, at most `most` bytes of the frame.
    fn read(&mut self, most: usize, patience: Patience) -> Result<(), RecvError> {
        if self.has_ended {
            return Err(RecvError::Disconnected);
        }
        let is_at_start = self.decoder.is_at_start();
        let space = self.decoder.space();
        let most = most.min(space.len());
        let space = &mut space[..most];
        let read = if is_at_start {
            self.stream.recv_with_descriptor(space, patience).map(|read| {
                let is_announced = read.count == 1 && space.first() == Some(&ONE_DESCRIPTOR);
                (read.count, read.descriptor.filter(|_| is_announced))
            })
        } else {
            self.stream.recv(space, patience).map(|count| (count, None))
        };
        match read {
            Ok((0, _)) => Err(self.end(is_at_start)),
            Ok((_, Some(descriptor))) => {
                self.descriptor = Some(descriptor);
                Ok(())
            }
            Ok((count, None)) => self.decoder.filled(count).map_err(|error| {
                self.has_ended = true;
                self.stream.close();
                RecvError::Frame(error)
            }),
            Err(Stop::Late) => Err(RecvError::TimedOut),
            Err(gone) if gone.is_gone() => Err(self.end(is_at_start)),
            Err(Stop::Io(error)) => Err(RecvError::Io(error)),
        }
    }

    #[cold]
    fn end(&mut self, is_at_start: bool) -> RecvError {
        self.has_ended = true;
        if is_at_start { RecvError::Disconnected } else { RecvError::Truncated }
    }
}
