//! Messages on a stream of bytes, as CPython's `multiprocessing.connection` cuts them.
//!
//! ```text
//! length 0 to 0x7fffffff     4 bytes, big-endian, signed | that many bytes
//! above                      4 bytes: -1 | 8 bytes, big-endian | that many bytes
//! ```
//!
//! Owns: what has arrived of one frame, and no byte beyond it. No system calls; who reads asks for [`space`](Decoder::space), fills
//! some of it and [says so](Decoder::filled).
//!
//! ```text
//! state    has                              next
//! HEAD     0 to 3 of 4 bytes                BODY, WHOLE if empty, LONG if -1, BROKEN if below or too long
//! LONG     0 to 7 of 8 bytes more           BODY, WHOLE if empty, BROKEN if too long
//! BODY     less than the length             WHOLE
//! WHOLE    the message, until it is taken   HEAD
//! BROKEN   nothing, for ever
//! ```
//!
//! Limits: a length beyond the maximum is refused before memory is asked for. Memory grows with what has arrived: at most as much
//! again, or 64 KiB, is ready for what has not, so a length that lies costs its sender the bytes.
//! Source: the CPython library reference and the behaviour of CPython 3.8 to 3.13.

use std::fmt;

/// Memory that is ready for a message of which nothing has arrived, in bytes.
const STEP_BYTES: usize = 64 << 10;

/// Bytes of an ordinary header.
const HEAD_BYTES: usize = 4;

/// Bytes of a header that begins with -1.
const LONG_BYTES: usize = 12;

/// The greatest length that an ordinary header tells.
const SHORT_MAX: u64 = 0x7fff_ffff;

/// The byte that comes with a descriptor, between messages: how many there are, as CPython's `multiprocessing.reduction` has it.
pub const ONE_DESCRIPTOR: u8 = 1;

/// The header of a message.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    bytes: [u8; LONG_BYTES],
    len: usize,
}

impl Header {
    /// The header of a message of `length` bytes.
    #[must_use]
    pub fn new(length: u64) -> Self {
        let mut bytes = [0xff; LONG_BYTES];
        match u32::try_from(length) {
            Ok(short) if length <= SHORT_MAX => {
                bytes[..HEAD_BYTES].copy_from_slice(&short.to_be_bytes());
                Self { bytes, len: HEAD_BYTES }
            }
            _ => {
                bytes[HEAD_BYTES..].copy_from_slice(&length.to_be_bytes());
                Self { bytes, len: LONG_BYTES }
            }
        }
    }

    /// What goes over the wire: 4 or 12 bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// A header that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The message is longer than the receiver allows.
    TooLong {
        /// Its length in bytes.
        length: u64,
        /// The most that is allowed, in bytes.
        max: u64,
    },
    /// A negative length other than -1.
    Negative(i32),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { length, max } => {
                write!(f, "a message of {length} bytes is announced, {max} are allowed")
            }
            Self::Negative(length) => write!(f, "a message of {length} bytes is announced"),
        }
    }
}

impl std::error::Error for FrameError {}

/// What has arrived of one frame.
#[derive(Debug)]
pub struct Decoder {
    max: u64,
    state: State,
    head: [u8; LONG_BYTES],
    /// Bytes of the head that have arrived; 0 outside HEAD and LONG.
    head_filled: usize,
    /// In BODY and WHOLE: `filled` bytes of the message, and behind them what is ready for more.
    body: Vec<u8>,
    filled: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Long,
    Body { length: usize },
    Whole,
    Broken(FrameError),
}

impl Decoder {
    /// A decoder that refuses messages of more than `max` bytes.
    #[must_use]
    pub fn new(max: u64) -> Self {
        // What cannot be addressed is too long in any case.
        let max = max.min(isize::MAX as u64);
        let head = [0; LONG_BYTES];
        Self { max, state: State::Head, head, head_filled: 0, body: Vec::new(), filled: 0 }
    }

    /// Whether nothing of the next frame has arrived.
    #[must_use]
    pub fn is_at_start(&self) -> bool {
        self.state == State::Head && self.head_filled == 0
    }

    /// Whether a message is ready to be [taken](Self::take).
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.state == State::Whole
    }

    /// Memory that is held for the frame, in bytes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.body.capacity()
    }

    /// Where the next bytes of the frame go: never more than the frame still needs as far as is known, and empty only when it is whole or
    /// was refused.
    pub fn space(&mut self) -> &mut [u8] {
        match self.state {
            State::Head => &mut self.head[self.head_filled..HEAD_BYTES],
            State::Long => &mut self.head[self.head_filled..],
            State::Body { length } => {
                if self.body.len() == self.filled {
                    let ready = (length - self.filled).min(STEP_BYTES.max(self.filled));
                    self.body.reserve_exact(ready);
                    self.body.resize(self.filled + ready, 0);
                }
                &mut self.body[self.filled..]
            }
            State::Whole | State::Broken(_) => &mut [],
        }
    }

    /// Takes note that the first `count` bytes of the [space](Self::space) were filled.
    ///
    /// # Errors
    /// [`FrameError`], from the header on which it is known; it stays.
    ///
    /// # Panics
    /// If there was not that much space.
    pub fn filled(&mut self, count: usize) -> Result<(), FrameError> {
        assert!(count <= self.space().len(), "more bytes than there was space");
        match self.state {
            State::Head => {
                self.head_filled += count;
                if self.head_filled == HEAD_BYTES {
                    let [a, b, c, d, ..] = self.head;
                    match i32::from_be_bytes([a, b, c, d]) {
                        -1 => self.state = State::Long,
                        length => match u64::try_from(length) {
                            Ok(length) => self.begin(length)?,
                            Err(_) => return Err(self.refuse(FrameError::Negative(length))),
                        },
                    }
                }
            }
            State::Long => {
                self.head_filled += count;
                if self.head_filled == LONG_BYTES {
                    let [_, _, _, _, length @ ..] = self.head;
                    self.begin(u64::from_be_bytes(length))?;
                }
            }
            State::Body { length } => {
                self.filled += count;
                if self.filled == length {
                    self.state = State::Whole;
                }
            }
            State::Whole => {}
            State::Broken(error) => return Err(error),
        }
        Ok(())
    }

    fn begin(&mut self, length: u64) -> Result<(), FrameError> {
        self.head_filled = 0;
        match usize::try_from(length) {
            Ok(0) => self.state = State::Whole,
            Ok(known) if length <= self.max => self.state = State::Body { length: known },
            _ => return Err(self.refuse(FrameError::TooLong { length, max: self.max })),
        }
        Ok(())
    }

    #[cold]
    fn refuse(&mut self, error: FrameError) -> FrameError {
        self.state = State::Broken(error);
        error
    }

    /// The message, if it is whole; the next bytes begin a new frame.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        if self.state != State::Whole {
            return None;
        }
        self.state = State::Head;
        self.filled = 0;
        Some(std::mem::take(&mut self.body))
    }

    /// The message, if it is whole, where it lies.
    #[must_use]
    pub fn message(&self) -> Option<&[u8]> {
        self.is_whole().then(|| &self.body[..self.filled])
    }

    /// Lets go of a message that is whole, and keeps its memory for the next one if that is little.
    pub fn discard(&mut self) {
        if let Some(mut message) = self.take()
            && message.capacity() <= STEP_BYTES
        {
            message.clear();
            self.body = message;
        }
    }

    /// Takes bytes off `input` until a message is whole, and gives it; `None` if they do not suffice.
    ///
    /// # Errors
    /// As [`filled`](Self::filled).
    pub fn push(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, FrameError> {
        while !self.is_whole() {
            let space = self.space();
            let count = space.len().min(input.len());
            let (now, later) = input.split_at(count);
            space[..count].copy_from_slice(now);
            *input = later;
            self.filled(count)?;
            if count == 0 {
                return Ok(None);
            }
        }
        Ok(self.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        [Header::new(message.len() as u64).bytes(), message].concat()
    }

    /// Pushes `bytes` in pieces of `piece` bytes each.
    fn pushed(decoder: &mut Decoder, bytes: &[u8], piece: usize) -> Result<Vec<Vec<u8>>, FrameError> {
        let mut messages = Vec::new();
        for mut input in bytes.chunks(piece) {
            while let Some(message) = decoder.push(&mut input)? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    #[test]
    fn b24_headers_are_those_of_python() {
        // struct.pack("!i", n), and struct.pack("!i", -1) + struct.pack("!Q", n).
        assert_eq!(Header::new(0).bytes(), [0, 0, 0, 0]);
        assert_eq!(Header::new(0x0102).bytes(), [0, 0, 1, 2]);
        assert_eq!(Header::new(0x7fff_ffff).bytes(), [0x7f, 0xff, 0xff, 0xff]);
        let long = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0x80, 0, 0, 0];
        assert_eq!(Header::new(0x8000_0000).bytes(), long);
        let above = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 0, 5];
        assert_eq!(Header::new(0x1_0000_0005).bytes(), above);
    }

    #[test]
    fn b3_messages_are_whole_however_they_arrive() {
        let messages: Vec<Vec<u8>> =
            [0, 1, 2, 3, 255, 4096, 200_000, 0].iter().map(|&len| vec![7; len]).collect();
        let stream: Vec<u8> = messages.iter().flat_map(|message| framed(message)).collect();
        for piece in [1, 2, 3, 5, 4099, stream.len()] {
            let mut decoder = Decoder::new(1 << 20);
            assert_eq!(pushed(&mut decoder, &stream, piece).unwrap(), messages, "pieces of {piece}");
            assert!(decoder.is_at_start());
        }
    }

    #[test]
    fn b24_a_long_header_may_tell_a_short_length() {
        let mut stream = vec![0xff; 4];
        stream.extend(3_u64.to_be_bytes());
        stream.extend(b"abc");
        stream.extend([0xff; 4]);
        stream.extend(0_u64.to_be_bytes());
        let messages = pushed(&mut Decoder::new(3), &stream, 1).unwrap();
        assert_eq!(messages, [b"abc".to_vec(), Vec::new()]);
    }

    #[test]
    fn a_length_beyond_the_maximum_is_refused_before_memory_is_asked_for() {
        for (head, length) in [
            (Header::new(101), 101),
            (Header::new(SHORT_MAX), SHORT_MAX),
            (Header::new(u64::MAX), u64::MAX),
            (Header::new(1 << 40), 1 << 40),
        ] {
            let mut decoder = Decoder::new(100);
            let refused = Err(FrameError::TooLong { length, max: 100 });
            assert_eq!(decoder.push(&mut head.bytes()), refused);
            assert_eq!(decoder.held_bytes(), 0);
            assert_eq!(decoder.push(&mut [0; 8].as_slice()), refused, "it stays refused");
            assert!(decoder.take().is_none() && decoder.space().is_empty());
        }
        let mut decoder = Decoder::new(100);
        assert_eq!(decoder.push(&mut framed(&[1; 100]).as_slice()).unwrap().unwrap(), [1; 100]);
    }

    #[test]
    fn a_negative_length_is_refused() {
        for length in [-2, i32::MIN, -256] {
            let refused = Err(FrameError::Negative(length));
            assert_eq!(Decoder::new(100).push(&mut length.to_be_bytes().as_slice()), refused);
        }
    }

    #[test]
    fn a_length_that_lies_costs_no_memory() {
        let mut decoder = Decoder::new(u64::MAX);
        decoder.push(&mut Header::new(1 << 40).bytes()).unwrap();
        assert!(decoder.held_bytes() <= STEP_BYTES);
        let mut sent = 0;
        while sent < 1 << 20 {
            decoder.push(&mut [0; 1000].as_slice()).unwrap();
            sent += 1000;
            assert!(decoder.held_bytes() <= sent * 2 + STEP_BYTES, "{} for {sent}", decoder.held_bytes());
        }
    }

    #[test]
    fn a_frame_with_any_byte_changed_is_read_or_refused() {
        let stream = [framed(b"one"), framed(&[9; 40]), framed(b"")].concat();
        for at in 0..stream.len() {
            for value in 0..=255 {
                let mut stream = stream.clone();
                stream[at] = value;
                let mut decoder = Decoder::new(64);
                let read = pushed(&mut decoder, &stream, 7);
                assert!(decoder.held_bytes() <= 64);
                let total: usize = read.iter().flatten().map(Vec::len).sum();
                assert!(total <= stream.len(), "no more than has arrived");
            }
        }
    }

    #[test]
    fn space_never_reaches_beyond_the_frame() {
        let mut decoder = Decoder::new(1000);
        assert_eq!(decoder.space().len(), 4);
        decoder.push(&mut [0_u8, 0, 0].as_slice()).unwrap();
        assert_eq!(decoder.space().len(), 1);
        decoder.push(&mut [5_u8].as_slice()).unwrap();
        assert_eq!(decoder.space().len(), 5);
        assert_eq!(decoder.push(&mut b"hell".as_slice()), Ok(None));
        assert_eq!(decoder.space().len(), 1);
    }
}
