//! Frames between a requester, its zygote and a new process.
//!
//! ```text
//! to the zygote, once      BELL                               with it: the bell
//! its answer               status (i32) | pid (u32)           with it, if the status is MADE: the pidfd, and the line to the new process
//! to the new process       length of the bytes (u32) | bytes  with it: the request's descriptors
//! ```
//!
//! Both ends are of one program, or trust each other as if they were; still every length and number is checked.

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Descriptors that the system lets travel with one frame (`SCM_MAX_FD`).
pub(super) const DESCRIPTORS_MAX: usize = 253;

/// Before the bytes of a request.
pub(super) const HEAD: usize = 4;

/// What comes with the bell.
pub(super) const BELL: [u8; 4] = *b"bell";

/// An answer's status: the process is made. Above it: the system's error number.
pub(super) const MADE: i32 = 0;
/// An answer's status: the zygote has more than one thread.
pub(super) const NOT_ALONE: i32 = -1;

/// What came in one frame.
pub(super) struct Frame {
    pub(super) len: usize,
    pub(super) fds: Vec<OwnedFd>,
    /// Bytes or descriptors of it are lost: this process may have no more descriptors, say.
    pub(super) is_cut: bool,
}

/// Sends a frame, whole or not at all.
pub(super) fn send(
    socket: &OwnedFd,
    parts: &[IoSlice<'_>],
    fds: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    loop {
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Errno::INVAL);
        }
        match rustix::net::sendmsg(socket, parts, &mut control, flags | SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            other => return other.map(|_| ()),
        }
    }
}

/// Receives a frame; of length 0 if the other end has closed.
pub(super) fn receive(socket: &OwnedFd, buffer: &mut [u8], flags: RecvFlags) -> Result<Frame, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let received = loop {
        match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    let rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let is_cut = received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    Ok(Frame { len: received.bytes, fds: rights.flatten().collect(), is_cut })
}

/// What stands before so many bytes of a request.
pub(super) fn head(bytes: &[u8]) -> io::Result<[u8; HEAD]> {
    let len = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= super::BYTES_MAX);
    len.map(u32::to_ne_bytes).ok_or_else(|| {
        let text = format!("a request of {} bytes: it may have {}", bytes.len(), super::BYTES_MAX);
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })
}

/// The bytes of a request, if the frame is one and whole.
pub(super) fn body(frame: &[u8]) -> Option<&[u8]> {
    let (head, bytes) = frame.split_first_chunk::<HEAD>()?;
    (u32::from_ne_bytes(*head) as usize == bytes.len()).then_some(bytes)
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: i32,
    pub(super) pid: u32,
}

impl Answer {
    pub(super) const LEN: usize = 8;

    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..4].copy_from_slice(&self.status.to_ne_bytes());
        bytes[4..].copy_from_slice(&self.pid.to_ne_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (status, rest) = bytes.split_first_chunk()?;
        let (pid, rest) = rest.split_first_chunk()?;
        let answer = Self { status: i32::from_ne_bytes(*status), pid: u32::from_ne_bytes(*pid) };
        rest.is_empty().then_some(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_survives_its_bytes_and_another_length_is_none() {
        let answer = Answer { status: NOT_ALONE, pid: u32::MAX };
        assert_eq!(Answer::from_bytes(&answer.to_bytes()), Some(answer));
        assert_eq!(Answer::from_bytes(&[0; 7]), None);
        assert_eq!(Answer::from_bytes(&[0; 9]), None);
    }

    #[test]
    fn a_request_is_its_head_and_all_its_bytes() {
        let framed = |bytes: &[u8]| [&head(bytes).unwrap(), bytes].concat();
        assert_eq!(body(&framed(b"")), Some(&b""[..]));
        assert_eq!(body(&framed(b"abc")), Some(&b"abc"[..]));
        assert_eq!(body(&framed(b"abc")[..6]), None);
        assert_eq!(body(&[0; 3]), None);
        assert!(head(&[0; super::super::BYTES_MAX]).is_ok());
        let error = head(&[0; super::super::BYTES_MAX + 1]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
