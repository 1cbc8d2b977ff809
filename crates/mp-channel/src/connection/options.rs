//! What both ends are told before they talk.

use super::auth::Auth;
use std::time::Duration;

/// The most bytes of a message, unless somebody says otherwise: 1 GiB.
pub const MAX_MESSAGE_BYTES: u64 = 1 << 30;

/// How long a handshake may take, unless somebody says otherwise.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How a listener or a connection is to behave. An [`Auth`] alone will do where the rest is to be as usual.
///
/// # Examples
/// ```
/// use mp_channel::connection::{Auth, Options};
/// use std::time::Duration;
///
/// let options = Options::new(Auth::new("the key"))
///     .max_message_bytes(64 << 20)
///     .handshake_timeout(Duration::from_secs(2));
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    pub(super) auth: Auth,
    pub(super) max_message_bytes: u64,
    pub(super) handshake_timeout: Duration,
}

impl Options {
    /// Messages of up to [`MAX_MESSAGE_BYTES`], a handshake of up to [`HANDSHAKE_TIMEOUT`].
    #[must_use]
    pub fn new(auth: Auth) -> Self {
        Self { auth, max_message_bytes: MAX_MESSAGE_BYTES, handshake_timeout: HANDSHAKE_TIMEOUT }
    }

    /// The most bytes of one message, in either direction. A longer one that is announced ends the connection before memory is asked for;
    /// a longer one is not sent.
    #[must_use]
    pub fn max_message_bytes(mut self, max: u64) -> Self {
        self.max_message_bytes = max;
        self
    }

    /// How long the handshake may take, all of it, so that one who says nothing cannot hold a listener up. A zero refuses everybody who has
    /// not spoken already.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }
}

impl From<Auth> for Options {
    fn from(auth: Auth) -> Self {
        Self::new(auth)
    }
}
