//! The mutual challenge with which CPython's `multiprocessing.connection` begins, as a state machine over frames.
//!
//! ```text
//! listener                                           client
//! #CHALLENGE# {sha256} 40 random bytes        →
//!                                             ←      {sha256} HMAC(key, {sha256} 40 random bytes)
//! #WELCOME#, or #FAILURE# and the end         →
//!                                             ←      #CHALLENGE# {sha256} 40 bytes of its own
//! {sha256} HMAC(key, {sha256} 40 bytes)       →
//!                                             ←      #WELCOME#, or #FAILURE# and the end
//!
//! role       state       frame                       to          answer
//! listener   ANSWER      right                       CHALLENGE   #WELCOME#
//! listener   CHALLENGE   one that we answer          VERDICT     our answer
//! listener   VERDICT     #WELCOME#                   DONE
//! client     CHALLENGE   one that we answer          VERDICT     our answer
//! client     VERDICT     #WELCOME#                   ANSWER      our challenge
//! client     ANSWER      right                       DONE        #WELCOME#
//! any        ANSWER      wrong                       OVER        #FAILURE#
//! any        any         any other                   OVER
//! ```
//!
//! Owns: the key, and the one challenge it has given. No system calls, no clock: randomness is handed in.
//!
//! Older Pythons (3.11 and before) send a challenge of 20 bytes without a name and answer every challenge with a bare HMAC-MD5 of 16
//! bytes. That, and `{md5}`, is refused in both directions unless [`Auth::allow_md5`] was called.
//!
//! What the exchange does not give: neither secrecy nor integrity of what follows, and no protection against one in the middle who passes
//! everything on. A client answers before it knows whom: a weak key can be guessed from one answer, without further contact.
//!
//! *Reflection.* The hash does not say who asks whom. One who knows no key but can have two clients connect to him could pass the
//! challenge of the one to the other, and its answer back. So the 40 bytes of a client are 24 random ones and a mark that only
//! holders of the key can recognise, and our clients answer no challenge that carries it. To Python, marked bytes are bytes. A
//! listener's challenge has no mark: it goes to strangers, and a mark would let them guess at the key. A listener answers
//! only who has answered it.
//!
//! Source: the CPython library reference, "Authentication keys", and the protocol description in CPython's `connection` module.

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha2::Sha256;
use std::fmt;

/// The most bytes of a frame of the handshake; CPython's limit, too.
pub const FRAME_BYTES_MAX: u64 = 256;

/// Random bytes that a [`Handshake`] is given.
pub const RANDOM_BYTES: usize = 40;

/// Of a client's 40 bytes, those that are random; the rest is the mark.
const CLIENT_RANDOM_BYTES: usize = 24;

const CHALLENGE: &[u8] = b"#CHALLENGE#";
const WELCOME: &[u8] = b"#WELCOME#";
const FAILURE: &[u8] = b"#FAILURE#";
const SHA256: &[u8] = b"{sha256}";
const MD5: &[u8] = b"{md5}";

/// The length of an old challenge. A new one is longer, whatever is in it; a shorter one is none.
const OLD_CHALLENGE_BYTES: usize = 20;

/// The length of an old answer, and of every MD5.
const MD5_BYTES: usize = 16;

/// What the mark of a client's challenge is a hash of, before its random bytes.
const MARK: &[u8] = b"multiproc: the challenge of a client\0";

/// Whether and how the two ends prove to each other that they know the same key.
///
/// # Examples
/// ```
/// use mp_channel::connection::Auth;
///
/// let auth = Auth::new("correct horse battery staple");
/// let old_python_too = Auth::new(*b"\x00\x01\x02").allow_md5(true);
/// let anybody = Auth::none();
/// # let _ = (auth, old_python_too, anybody);
/// ```
#[derive(Clone)]
pub struct Auth {
    key: Option<Vec<u8>>,
    allow_md5: bool,
}

impl Auth {
    /// Both ends must know `key`, CPython's `authkey`. It may be empty, which authenticates who has an empty key, too.
    ///
    /// The key should be long and random: a stranger whom our client connects to can try out keys against its answer.
    #[must_use]
    pub fn new(key: impl Into<Vec<u8>>) -> Self {
        Self { key: Some(key.into()), allow_md5: false }
    }

    /// Nobody proves anything: whoever can reach the address is talked to. CPython's `authkey=None`.
    #[must_use]
    pub fn none() -> Self {
        Self { key: None, allow_md5: false }
    }

    /// Whether HMAC-MD5 is good enough, the only one that Python 3.11 and older know. It is not, unless this is called.
    #[must_use]
    pub fn allow_md5(mut self, allow: bool) -> Self {
        self.allow_md5 = allow;
        self
    }

    /// Whether there is a handshake.
    #[must_use]
    pub fn has_key(&self) -> bool {
        self.key.is_some()
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth")
            .field("has_key", &self.has_key())
            .field("allow_md5", &self.allow_md5)
            .finish_non_exhaustive()
    }
}

/// Which end of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The end that accepted: asks first.
    Listener,
    /// The end that connected: answers first.
    Client,
}

/// Why a handshake came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The other end's answer to our challenge is wrong: it has another key.
    WrongKey,
    /// The other end does not accept our answer: it has another key, or does not know our hash.
    Rejected,
    /// The other end wants HMAC-MD5, which was not [allowed](Auth::allow_md5).
    Md5,
    /// The other end wants a hash that we do not know.
    UnknownHash,
    /// The other end asks us what only a client of ours can have asked: somebody between passes questions around.
    Reflected,
    /// What came is not of this protocol; perhaps only one of the two ends authenticates.
    Protocol,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WrongKey => "the other end has another key",
            Self::Rejected => "the other end does not accept our key",
            Self::Md5 => "the other end wants HMAC-MD5, which is not allowed here",
            Self::UnknownHash => "the other end wants a hash other than SHA-256",
            Self::Reflected => "the other end passed on the question of another client",
            Self::Protocol => "the other end does not speak the protocol",
        })
    }
}

impl std::error::Error for Refusal {}

/// What to do after a frame: send what is to be sent, if anything, then go on, or stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this, and wait for the next frame.
    Reply(Vec<u8>),
    /// Send this, if anything; each end has proved that it knows the key.
    Done(Option<Vec<u8>>),
    /// Send this, if anything, and close.
    Refused(Option<Vec<u8>>, Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Answer,
    Challenge,
    Verdict,
    Done,
    Over,
}

/// One end of a handshake.
pub struct Handshake {
    key: Vec<u8>,
    allow_md5: bool,
    role: Role,
    state: State,
    /// What we ask the other end to hash: the name of the hash and 40 bytes.
    challenge: Vec<u8>,
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake")
            .field("role", &self.role)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Handshake {
    /// Begins a handshake with bytes that nobody can foresee; with what is to be sent at once, if anything. `None` if `auth` has no key:
    /// then there is none.
    #[must_use]
    pub fn begin(auth: &Auth, role: Role, random: [u8; RANDOM_BYTES]) -> Option<(Self, Option<Vec<u8>>)> {
        let key = auth.key.clone()?;
        let mut challenge = SHA256.to_vec();
        match role {
            Role::Listener => challenge.extend(random),
            Role::Client => {
                let (random, _) = random.split_at(CLIENT_RANDOM_BYTES);
                challenge.extend(random);
                challenge.extend(mark(&key, random));
            }
        }
        let (state, first) = match role {
            Role::Listener => (State::Answer, Some([CHALLENGE, &challenge].concat())),
            Role::Client => (State::Challenge, None),
        };
        Some((Self { key, allow_md5: auth.allow_md5, role, state, challenge }, first))
    }

    /// Whether each end has proved that it knows the key.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes the next frame of the other end.
    #[must_use]
    pub fn step(&mut self, frame: &[u8]) -> Step {
        let (state, step) = match (self.state, self.role) {
            (State::Answer, role) => match (self.verify(frame), role) {
                (Ok(()), Role::Listener) => (State::Challenge, Step::Reply(WELCOME.to_vec())),
                (Ok(()), Role::Client) => (State::Done, Step::Done(Some(WELCOME.to_vec()))),
                (Err(refusal), _) => (State::Over, Step::Refused(Some(FAILURE.to_vec()), refusal)),
            },
            (State::Challenge, _) => match self.answer(frame) {
                Ok(answer) => (State::Verdict, Step::Reply(answer)),
                Err(refusal) => (State::Over, Step::Refused(None, refusal)),
            },
            (State::Verdict, role) => match (frame == WELCOME, role) {
                (true, Role::Listener) => (State::Done, Step::Done(None)),
                (true, Role::Client) => (State::Answer, Step::Reply([CHALLENGE, &self.challenge].concat())),
                (false, _) => (State::Over, Step::Refused(None, Refusal::Rejected)),
            },
            (State::Done | State::Over, _) => (State::Over, Step::Refused(None, Refusal::Protocol)),
        };
        self.state = state;
        step
    }

    /// Whether `answer` is the hash of our challenge. Hashes are compared in constant time.
    fn verify(&self, answer: &[u8]) -> Result<(), Refusal> {
        let right = if let Some(hash) = answer.strip_prefix(SHA256) {
            keyed::<Hmac<Sha256>>(&self.key, &[&self.challenge]).verify_slice(hash)
        } else {
            let hash = match answer.strip_prefix(MD5) {
                Some(hash) => hash,
                None if answer.len() == MD5_BYTES => answer,
                None => return Err(unknown(answer)),
            };
            if !self.allow_md5 {
                return Err(Refusal::Md5);
            }
            keyed::<Hmac<Md5>>(&self.key, &[&self.challenge]).verify_slice(hash)
        };
        right.map_err(|_| Refusal::WrongKey)
    }

    /// Our answer to the other end's challenge.
    fn answer(&self, frame: &[u8]) -> Result<Vec<u8>, Refusal> {
        let challenge = frame.strip_prefix(CHALLENGE).ok_or(Refusal::Protocol)?;
        if challenge.len() < OLD_CHALLENGE_BYTES {
            return Err(Refusal::Protocol);
        }
        if challenge == self.challenge || (self.role == Role::Client && self.is_of_a_client(challenge)) {
            return Err(Refusal::Reflected);
        }
        let name = if challenge.len() == OLD_CHALLENGE_BYTES {
            b"".as_slice()
        } else if challenge.starts_with(SHA256) {
            let hash = keyed::<Hmac<Sha256>>(&self.key, &[challenge]).finalize().into_bytes();
            return Ok([SHA256, &hash].concat());
        } else if challenge.starts_with(MD5) {
            MD5
        } else {
            return Err(unknown(challenge));
        };
        if !self.allow_md5 {
            return Err(Refusal::Md5);
        }
        let hash = keyed::<Hmac<Md5>>(&self.key, &[challenge]).finalize().into_bytes();
        Ok([name, &hash].concat())
    }

    /// Whether a client of ours asked this, of this process or of any other.
    fn is_of_a_client(&self, challenge: &[u8]) -> bool {
        let Some(bytes) = challenge.strip_prefix(SHA256).filter(|bytes| bytes.len() == RANDOM_BYTES) else {
            return false;
        };
        let (random, found) = bytes.split_at(CLIENT_RANDOM_BYTES);
        keyed::<Hmac<Sha256>>(&self.key, &[MARK, random]).verify_truncated_left(found).is_ok()
    }
}

/// What tells a client's challenge apart, for who knows the key.
fn mark(key: &[u8], random: &[u8]) -> [u8; RANDOM_BYTES - CLIENT_RANDOM_BYTES] {
    let hash = keyed::<Hmac<Sha256>>(key, &[MARK, random]).finalize().into_bytes();
    std::array::from_fn(|at| hash[at])
}

/// A hash with a key of any length, an empty one included.
fn keyed<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> M {
    let Ok(mut mac) = <M as KeyInit>::new_from_slice(key) else {
        unreachable!("HMAC takes keys of any length")
    };
    parts.iter().for_each(|part| mac.update(part));
    mac
}

/// What is wrong with a frame that begins with none of our hashes' names.
fn unknown(frame: &[u8]) -> Refusal {
    let is_named = frame.starts_with(b"{") && frame.iter().take(12).any(|&byte| byte == b'}');
    if is_named { Refusal::UnknownHash } else { Refusal::Protocol }
}
