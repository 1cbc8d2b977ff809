//! The handshake, over a stream: [`auth`](super::auth) decides, this carries its frames.
//!
//! Owns: nothing. The deadline is one for all of it, frames are bounded to 256 bytes, and no byte beyond the last one is read.

use super::auth::{FRAME_BYTES_MAX, Handshake, Role, Step};
use super::error::HandshakeError;
use super::frame::{Decoder, Header};
use super::options::Options;
use mp_sync::patience::Patience;
use mp_sys::deadline::Deadline;
use mp_sys::stream::{Stop, Stream};
use std::io::IoSlice;

fn stopped(stop: Stop) -> HandshakeError {
    match stop {
        Stop::Late => HandshakeError::TimedOut,
        gone if gone.is_gone() => HandshakeError::Disconnected,
        Stop::Io(error) => HandshakeError::Io(error),
    }
}

/// Has both ends prove themselves as `options` ask for, until `deadline` if that comes before their own.
pub(super) fn handshake(
    stream: &Stream,
    options: &Options,
    role: Role,
    deadline: Option<Deadline>,
) -> Result<(), HandshakeError> {
    let random = mp_sys::process::random_bytes().map_err(HandshakeError::Io)?;
    let Some((mut handshake, first)) = Handshake::begin(&options.auth, role, random) else { return Ok(()) };
    let own = Deadline::after(options.handshake_timeout);
    let patience = Patience::Until(deadline.map_or(own, |deadline| deadline.min(own)));
    if let Some(first) = first {
        send(stream, &first, patience)?;
    }
    let mut decoder = Decoder::new(FRAME_BYTES_MAX);
    loop {
        let frame = recv(stream, &mut decoder, patience)?;
        match handshake.step(&frame) {
            Step::Reply(answer) => send(stream, &answer, patience)?,
            Step::Done(last) => return last.map_or(Ok(()), |last| send(stream, &last, patience)),
            Step::Refused(last, refusal) => {
                // Told as far as it still listens.
                let _ = last.map(|last| send(stream, &last, patience));
                return Err(HandshakeError::Refused(refusal));
            }
        }
    }
}

fn send(stream: &Stream, frame: &[u8], patience: Patience) -> Result<(), HandshakeError> {
    let bytes = [Header::new(frame.len() as u64).bytes(), frame].concat();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let sent = stream.send(&[IoSlice::new(rest)], patience).map_err(stopped)?;
        rest = &rest[sent..];
    }
    Ok(())
}

fn recv(stream: &Stream, decoder: &mut Decoder, patience: Patience) -> Result<Vec<u8>, HandshakeError> {
    loop {
        if let Some(frame) = decoder.take() {
            return Ok(frame);
        }
        match stream.recv(decoder.space(), patience).map_err(stopped)? {
            0 => return Err(HandshakeError::Disconnected),
            count => decoder.filled(count).map_err(HandshakeError::Frame)?,
        }
    }
}
