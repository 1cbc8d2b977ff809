//! Arbitrary frames into both ends of the handshake: no panic, answers of bounded size, and nobody is authenticated without the key.
//!
//! The first byte says which end, whether MD5 is allowed, and whether the listener is brought past the proof of the other end; then frames, each a
//! length of one byte and that many bytes. The frames `#WELCOME#` and `#CHALLENGE#{sha256}` and 40 bytes are also written as the
//! lengths 255 and 254, which no fuzzer has to guess.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mp_channel::connection::Auth;
use mp_channel::connection::auth::{FRAME_BYTES_MAX, Handshake, RANDOM_BYTES, Role, Step};

/// As long and as random as none that the fuzzer could hit upon.
const KEY: [u8; 32] = *b"\x9d\x1f\xe3\x07\xc4\x5a\x88\x72\xb6\x0e\xf9\x43\xd1\x2c\x95\x6b\x3a\xe8\x57\x01\xcd\x74\x1b\xa6\x60\xf2\x8e\x39\x4d\xb3\x15\xca";

fn frames(mut data: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while let Some((&len, rest)) = data.split_first() {
        data = rest;
        frames.push(match len {
            255 => b"#WELCOME#".to_vec(),
            254 => [b"#CHALLENGE#{sha256}".as_slice(), &[3; 40]].concat(),
            253 => [b"#CHALLENGE#".as_slice(), &[3; 20]].concat(),
            len => {
                let (frame, rest) = data.split_at(usize::from(len).min(data.len()));
                data = rest;
                frame.to_vec()
            }
        });
    }
    frames
}

fuzz_target!(|data: &[u8]| {
    let Some((&first, data)) = data.split_first() else { return };
    let role = if first & 1 == 0 { Role::Listener } else { Role::Client };
    let auth = Auth::new(KEY).allow_md5(first & 2 != 0);
    let Some((mut handshake, hello)) = Handshake::begin(&auth, role, [9; RANDOM_BYTES]) else {
        unreachable!("there is a key")
    };
    let mut is_over = false;
    // An end with the key answers the listener's question, so that what comes after is reached, too.
    let is_proved = role == Role::Listener && first & 4 != 0;
    if is_proved && let Some(hello) = &hello {
        let Some((mut honest, _)) = Handshake::begin(&auth, Role::Client, [8; RANDOM_BYTES]) else {
            unreachable!("there is a key")
        };
        let Step::Reply(answer) = honest.step(hello) else { panic!("an honest one answers") };
        assert_eq!(handshake.step(&answer), Step::Reply(b"#WELCOME#".to_vec()));
    }
    for frame in frames(data) {
        let step = handshake.step(&frame);
        let answer = match &step {
            Step::Reply(answer) => Some(answer),
            Step::Done(answer) | Step::Refused(answer, _) => answer.as_ref(),
        };
        assert!(answer.is_none_or(|answer| answer.len() as u64 <= FRAME_BYTES_MAX));
        match step {
            Step::Reply(_) => assert!(!is_over, "after the end"),
            Step::Done(_) => {
                assert!(is_proved && !is_over, "authenticated without the key");
                is_over = true;
            }
            Step::Refused(..) => is_over = true,
        }
        assert!(!handshake.is_done() || is_proved);
    }
});
