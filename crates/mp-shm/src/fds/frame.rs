//! What clients and the broker of descriptors say to each other.
//!
//! One connection is one question and one answer. All numbers are little-endian; a frame of another length, with another beginning or
//! with something where zeros belong is no frame, and the connection is closed.
//!
//! ```text
//! question  0 magic u32 | 4 version u16 | 6 op u16 | 8 secret 16 B | 24 token 16 B | 40 offset u64 | 48 generation u32 | 52 zeros
//!           op 1 DEPOSIT  token, and the object that stands for it; the frame carries one descriptor
//!           op 2 FETCH    token; offset and generation are zero
//!           op 3 STATUS   the rest is zero
//! answer    0 magic u32 | 4 status u32 | 8 pid u32 | 12 held u32
//!           DONE     a descriptor comes with it if it answers a FETCH; pid and held if it answers a STATUS
//!           FULL     DEPOSIT: the broker may have no more descriptors
//!           UNKNOWN  FETCH: nothing is held under that token; DEPOSIT: there is no such object
//! nothing   a connection that is closed without a question is a nudge: the broker looks which objects are gone
//! ```

const MAGIC: u32 = u32::from_le_bytes(*b"mpfd");
const VERSION: u16 = 1;
const DEPOSIT: u16 = 1;
const FETCH: u16 = 2;
const STATUS: u16 = 3;

/// Bytes of a question.
pub(crate) const QUESTION_BYTES: usize = 56;
/// Bytes of an answer.
pub(crate) const ANSWER_BYTES: usize = 16;

/// What a descriptor is held under; random, so that nobody guesses it.
pub(crate) type Token = [u64; 2];

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// To have a descriptor held for as long as the object lives.
    Deposit { token: Token, offset: u64, generation: u32 },
    /// A duplicate of the one that is held.
    Fetch { token: Token },
    /// To know who the broker is, and how much it holds.
    Status,
}

/// What the broker says to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: Status,
    pub(crate) pid: u32,
    pub(crate) held: u32,
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Status {
    Done = 1,
    Full = 2,
    Unknown = 3,
}

impl Question {
    /// The frame, for who knows the session's secret.
    pub(crate) fn to_bytes(self, secret: [u64; 2]) -> [u8; QUESTION_BYTES] {
        let (op, token, offset, generation) = match self {
            Self::Deposit { token, offset, generation } => (DEPOSIT, token, offset, generation),
            Self::Fetch { token } => (FETCH, token, 0, 0),
            Self::Status => (STATUS, [0, 0], 0, 0),
        };
        let mut bytes = [0; QUESTION_BYTES];
        let words = [secret[0], secret[1], token[0], token[1], offset];
        bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[6..8].copy_from_slice(&op.to_le_bytes());
        for (place, word) in bytes[8..48].chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes[48..52].copy_from_slice(&generation.to_le_bytes());
        bytes
    }

    /// What a frame asks; `None` if it is no frame, or of somebody who does not know the secret.
    pub(crate) fn parse(frame: &[u8], secret: [u64; 2]) -> Option<Self> {
        let frame: &[u8; QUESTION_BYTES] = frame.try_into().ok()?;
        let header = half(frame, 0) == MAGIC && quarter(frame, 4) == VERSION && half(frame, 52) == 0;
        // No early end: how long it takes says nothing of how much was right.
        let wrong = (word(frame, 8) ^ secret[0]) | (word(frame, 16) ^ secret[1]);
        if !header || wrong != 0 {
            return None;
        }
        let token = [word(frame, 24), word(frame, 32)];
        let (offset, generation) = (word(frame, 40), half(frame, 48));
        let names_no_object = offset == 0 && generation == 0;
        match quarter(frame, 6) {
            DEPOSIT => Some(Self::Deposit { token, offset, generation }),
            FETCH if names_no_object => Some(Self::Fetch { token }),
            STATUS if names_no_object && token == [0, 0] => Some(Self::Status),
            _ => None,
        }
    }
}

impl Answer {
    /// One that says no more than its status.
    pub(crate) fn plain(status: Status) -> Self {
        Self { status, pid: 0, held: 0 }
    }

    pub(crate) fn to_bytes(self) -> [u8; ANSWER_BYTES] {
        let mut bytes = [0; ANSWER_BYTES];
        let halves = [MAGIC, self.status as u32, self.pid, self.held];
        for (place, half) in bytes.chunks_exact_mut(4).zip(halves) {
            place.copy_from_slice(&half.to_le_bytes());
        }
        bytes
    }

    /// What a frame says; `None` if it is no answer.
    pub(crate) fn parse(frame: &[u8]) -> Option<Self> {
        let frame: &[u8; ANSWER_BYTES] = frame.try_into().ok()?;
        if half(frame, 0) != MAGIC {
            return None;
        }
        let status = match half(frame, 4) {
            1 => Status::Done,
            2 => Status::Full,
            3 => Status::Unknown,
            _ => return None,
        };
        Some(Self { status, pid: half(frame, 8), held: half(frame, 12) })
    }
}

/// The `N` bytes at `at`, which the callers' frames all have.
fn bytes<const N: usize>(frame: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&frame[at..at + N]);
    bytes
}

fn quarter(frame: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes(frame, at))
}

fn half(frame: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes(frame, at))
}

fn word(frame: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes(frame, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u64; 2] = [0x0123_4567_89ab_cdef, u64::MAX - 1];

    fn questions() -> [Question; 3] {
        let token = [1, u64::MAX];
        [
            Question::Deposit { token, offset: 1 << 35, generation: u32::MAX },
            Question::Fetch { token },
            Question::Status,
        ]
    }

    #[test]
    fn questions_and_answers_survive_their_bytes() {
        for question in questions() {
            assert_eq!(Question::parse(&question.to_bytes(SECRET), SECRET), Some(question));
        }
        for status in [Status::Done, Status::Full, Status::Unknown] {
            let answer = Answer { status, pid: 77, held: u32::MAX };
            assert_eq!(Answer::parse(&answer.to_bytes()), Some(answer));
        }
    }

    #[test]
    fn who_does_not_know_every_bit_of_the_secret_asks_nothing() {
        for question in questions() {
            for bit in 0..128 {
                let mut guess = SECRET;
                guess[bit / 64] ^= 1 << (bit % 64);
                assert_eq!(Question::parse(&question.to_bytes(guess), SECRET), None);
            }
        }
    }

    /// Random bytes, and frames with random changes: what is taken for a frame is byte for byte one that a client writes.
    #[test]
    fn arbitrary_bytes_are_refused_or_are_a_frame() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..200_000 {
            let mut bytes: Vec<u8> = match random.u8(0..3) {
                0 => (0..random.usize(0..2 * QUESTION_BYTES)).map(|_| random.u8(..)).collect(),
                1 => questions()[random.usize(0..3)].to_bytes(SECRET).to_vec(),
                _ => Answer::plain(Status::Full).to_bytes().to_vec(),
            };
            for _ in 0..random.usize(0..3) {
                let len = bytes.len();
                match random.u8(0..3) {
                    0 if len > 0 => bytes[random.usize(0..len)] = random.u8(..),
                    1 => bytes.truncate(random.usize(0..=len)),
                    _ => bytes.push(random.u8(..)),
                }
            }
            if let Some(question) = Question::parse(&bytes, SECRET) {
                assert_eq!(question.to_bytes(SECRET).as_slice(), bytes);
            }
            if let Some(answer) = Answer::parse(&bytes) {
                assert_eq!(answer.to_bytes().as_slice(), bytes);
            }
        }
    }
}
