//! Arbitrary bytes, in arbitrary pieces, into the decoder of frames: no panic, bounded memory, and the same messages however the bytes arrive.
//!
//! Input: the maximum (8 bytes), the size of a piece (1 byte), the stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mp_channel::connection::FrameError;
use mp_channel::connection::frame::{Decoder, Header};

/// What the decoder may hold beyond twice what has arrived.
const SLACK: usize = 64 << 10;

fn read(max: u64, stream: &[u8], piece: usize) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let mut decoder = Decoder::new(max);
    let mut messages = Vec::new();
    for mut input in stream.chunks(piece) {
        loop {
            let pushed = decoder.push(&mut input);
            assert!(decoder.held_bytes() <= 2 * stream.len() + SLACK, "memory follows what has arrived");
            match pushed {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => {
                    assert!(decoder.take().is_none() && decoder.space().is_empty(), "it stays refused");
                    return (messages, Some(error));
                }
            }
        }
        assert!(input.is_empty(), "all that arrives is taken");
    }
    (messages, None)
}

fuzz_target!(|data: &[u8]| {
    let Some((max, data)) = data.split_first_chunk::<8>() else { return };
    let Some((&piece, stream)) = data.split_first() else { return };
    let max = u64::from_le_bytes(*max);
    let whole = read(max, stream, stream.len().max(1));
    assert_eq!(whole, read(max, stream, usize::from(piece).max(1)));
    assert!(whole.0.iter().all(|message| message.len() as u64 <= max));
    // What was read is read again from our own frames.
    let again: Vec<u8> = whole
        .0
        .iter()
        .flat_map(|message| [Header::new(message.len() as u64).bytes(), message].concat())
        .collect();
    assert_eq!(read(max, &again, again.len().max(1)), (whole.0, None));
});
