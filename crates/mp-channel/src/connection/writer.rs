//! The sending half of a connection.
//!
//! ```text
//! state    event                                          to
//! OPEN     a message was sent whole, or not at all        OPEN
//! OPEN     a message was sent by half                     CLOSED, and the other end finds the end in the middle of it
//! CLOSED   any                                            CLOSED
//! OPEN     dropped, and the reader lives on               the other end finds the end
//! ```

use super::error::SendError;
use super::forms::forms;
use super::frame::{Header, ONE_DESCRIPTOR};
use super::value::{self, Plain};
use mp_sync::patience::Patience;
use mp_sys::stream::{Stop, Stream};
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The sending half of a [`Connection`](super::Connection). Dropping it tells the other end that nothing more comes.
///
/// A message that is sent by half when the time is over cannot be taken back, and nothing can follow it: that ends the sending. Give
/// large messages the time they need.
#[derive(Debug)]
pub struct Writer {
    stream: Arc<Stream>,
    max_message_bytes: u64,
    is_closed: bool,
}

impl AsFd for Writer {
    /// The socket, which both halves share. Whoever writes to it must not write between the parts of a message.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Writer {
    pub(super) fn new(stream: Arc<Stream>, max_message_bytes: u64) -> Self {
        Self { stream, max_message_bytes, is_closed: false }
    }

    forms! {
        /// Sends a message of any number of bytes, zero included, up to what is [allowed](super::Options::max_message_bytes).
        ///
        /// # Errors
        /// [`SendError::Disconnected`] when the other end is gone; [`SendError::TooLong`]; [`SendError::Closed`]; what the system says.
        /// Within a time [`SendError::TimedOut`] if nothing, [`SendError::HalfSent`] if a part of it was sent.
        send_bytes, send_bytes_timeout, send_bytes_deadline
        (self => self, message: &[u8]) -> Result<(), SendError> = bytes_patiently
    }

    forms! {
        /// Sends a value, which the other end receives as the same type.
        ///
        /// # Errors
        /// As [`send_bytes`](Self::send_bytes); [`SendError::Encode`].
        send_value, send_value_timeout, send_value_deadline
        <T>(self => self, value: &T) -> Result<(), SendError> = value_patiently
    }

    forms! {
        /// Sends a descriptor, which the other end receives with [`recv_fd`](super::Reader::recv_fd), or a Python program with
        /// `multiprocessing.reduction.recv_handle`. It stays open here.
        ///
        /// # Errors
        /// [`SendError::NotLocal`] over TCP; as [`send_bytes`](Self::send_bytes).
        send_fd, send_fd_timeout, send_fd_deadline
        (self => self, fd: BorrowedFd<'_>) -> Result<(), SendError> = fd_patiently
    }

    pub(super) fn bytes_patiently(&mut self, message: &[u8], patience: Patience) -> Result<(), SendError> {
        let length = message.len() as u64;
        if length > self.max_message_bytes {
            return Err(SendError::TooLong { length, max: self.max_message_bytes });
        }
        self.check_open()?;
        let header = Header::new(length);
        let mut parts = [IoSlice::new(header.bytes()), IoSlice::new(message)];
        let mut rest = parts.as_mut_slice();
        let mut is_begun = false;
        while rest.iter().any(|part| !part.is_empty()) {
            match self.stream.send(rest, patience) {
                Ok(sent) => {
                    is_begun = true;
                    IoSlice::advance_slices(&mut rest, sent);
                }
                Err(stop) => return Err(self.stopped(stop, is_begun)),
            }
        }
        Ok(())
    }

    pub(super) fn value_patiently<T: Plain>(
        &mut self,
        value: &T,
        patience: Patience,
    ) -> Result<(), SendError> {
        let message = value::encode(value)?;
        self.bytes_patiently(&message, patience)
    }

    pub(super) fn fd_patiently(&mut self, fd: BorrowedFd<'_>, patience: Patience) -> Result<(), SendError> {
        if !self.stream.is_local() {
            return Err(SendError::NotLocal);
        }
        self.check_open()?;
        self.stream.send_descriptor(ONE_DESCRIPTOR, fd, patience).map_err(|stop| self.stopped(stop, false))
    }

    fn check_open(&self) -> Result<(), SendError> {
        if self.is_closed { Err(SendError::Closed) } else { Ok(()) }
    }

    #[cold]
    fn stopped(&mut self, stop: Stop, is_begun: bool) -> SendError {
        if is_begun {
            self.is_closed = true;
            self.stream.end_sending();
        }
        match stop {
            Stop::Late if is_begun => SendError::HalfSent,
            Stop::Late => SendError::TimedOut,
            gone if gone.is_gone() => SendError::Disconnected,
            Stop::Io(error) => SendError::Io(error),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Without a reader the socket is closed anyway, and who has a copy of it may go on.
        if Arc::strong_count(&self.stream) > 1 {
            self.stream.end_sending();
        }
    }
}
