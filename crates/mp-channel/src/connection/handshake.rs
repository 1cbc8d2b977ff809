//! The handshake, over a socket: [`auth`](super::auth) decides, this carries its frames.
//!
//! Owns: nothing. The deadline is one for all of it, frames are bounded to 256 bytes, and no byte beyond the last one is read.

use super::auth::{FRAME_BYTES_MAX, Handshake, RANDOM_BYTES, Role, Step};
use super::error::HandshakeError;
use super::frame::{Decoder, Header};
use super::options::Options;
use super::socket::{Socket, Stop, is_gone};
use mp_sync::patience::Patience;
use mp_sys::deadline::Deadline;
use std::io;

fn stopped(stop: Stop) -> HandshakeError {
    match stop {
        Stop::Late => HandshakeError::TimedOut,
        Stop::Io(error) if is_gone(&error) => HandshakeError::Disconnected,
        Stop::Io(error) => HandshakeError::Io(error),
    }
}

/// Has both ends prove themselves as `options` ask for, until `deadline` if that comes before their own.
pub(super) fn handshake(
    socket: &Socket,
    options: &Options,
    role: Role,
    deadline: Option<Deadline>,
) -> Result<(), HandshakeError> {
    let random = random().map_err(HandshakeError::Io)?;
    let Some((mut handshake, first)) = Handshake::begin(&options.auth, role, random) else { return Ok(()) };
    let own = Deadline::after(options.handshake_timeout);
    let patience = Patience::Until(deadline.map_or(own, |deadline| deadline.min(own)));
    if let Some(first) = first {
        send(socket, &first, patience)?;
    }
    let mut decoder = Decoder::new(FRAME_BYTES_MAX);
    loop {
        let frame = recv(socket, &mut decoder, patience)?;
        match handshake.step(&frame) {
            Step::Reply(answer) => send(socket, &answer, patience)?,
            Step::Done(last) => return last.map_or(Ok(()), |last| send(socket, &last, patience)),
            Step::Refused(last, refusal) => {
                // Told as far as it still listens.
                let _ = last.map(|last| send(socket, &last, patience));
                return Err(HandshakeError::Refused(refusal));
            }
        }
    }
}

fn send(socket: &Socket, frame: &[u8], patience: Patience) -> Result<(), HandshakeError> {
    let bytes = [Header::new(frame.len() as u64).bytes(), frame].concat();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let sent = socket.send(&[io::IoSlice::new(rest)], patience).map_err(stopped)?;
        rest = &rest[sent..];
    }
    Ok(())
}

fn recv(socket: &Socket, decoder: &mut Decoder, patience: Patience) -> Result<Vec<u8>, HandshakeError> {
    loop {
        if let Some(frame) = decoder.take() {
            return Ok(frame);
        }
        match socket.recv(decoder.space(), patience).map_err(stopped)? {
            0 => return Err(HandshakeError::Disconnected),
            count => decoder.filled(count).map_err(HandshakeError::Frame)?,
        }
    }
}

fn random() -> io::Result<[u8; RANDOM_BYTES]> {
    let mut bytes = [0; RANDOM_BYTES];
    let mut filled = 0;
    while filled < RANDOM_BYTES {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}
