//! Who is at the other end.

use mp_sys::stream::Stream;
use std::io;

/// The process at the other end of a local connection, as it was when it connected or began to listen.
///
/// The system vouches for it. The process may have ended since, and may have handed the connection to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its process id; 0 if it is in a process namespace that this process does not see into.
    pub pid: u32,
    /// Its effective user id.
    pub uid: u32,
}

impl Peer {
    pub(super) fn of(stream: &Stream) -> io::Result<Option<Self>> {
        if !stream.is_local() {
            return Ok(None);
        }
        mp_sys::socket::peer(stream).map(|peer| Some(Self { pid: peer.pid, uid: peer.user }))
    }
}
