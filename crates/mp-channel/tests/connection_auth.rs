//! The challenge of connections, frame by frame, without sockets.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::connection::auth::{Handshake, RANDOM_BYTES, Role, Step};
use mp_channel::connection::{Auth, Refusal};

const KEY: &str = "the key";
const WELCOME: &[u8] = b"#WELCOME#";
const FAILURE: &[u8] = b"#FAILURE#";

/// HMAC-SHA256 and HMAC-MD5 by `KEY` of `{sha256}` and the bytes 0 to 39, and by MD5 of the bytes 0 to 19, as Python's `hmac` has them.
const SHA256_OF_CHALLENGE: &str = "027bf3e44b180a48d71aaec8de1b3953288c35ffe5adfb1f92745a88eedeec37";
const SHA256_BY_EMPTY_KEY: &str = "d18b190a737f779d3125c4a2dfddcebf933e2f2713bc92fbe386ca25df9fd7af";
const MD5_OF_CHALLENGE: &str = "2420ee802e5418daa7ee02f36466dfa1";
const MD5_OF_OLD_CHALLENGE: &str = "218846807193555069ce9f160baee7de";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn counted() -> [u8; RANDOM_BYTES] {
    std::array::from_fn(|at| u8::try_from(at).unwrap())
}

fn auth() -> Auth {
    Auth::new(KEY)
}

fn listener(auth: &Auth) -> (Handshake, Vec<u8>) {
    let (listener, first) = Handshake::begin(auth, Role::Listener, counted()).unwrap();
    (listener, first.expect("the listener asks first"))
}

fn client_with(auth: &Auth, random: u8) -> Handshake {
    let (client, first) = Handshake::begin(auth, Role::Client, [random; RANDOM_BYTES]).unwrap();
    assert_eq!(first, None, "the client waits");
    client
}

fn client(auth: &Auth) -> Handshake {
    client_with(auth, 7)
}

fn reply(step: Step) -> Vec<u8> {
    match step {
        Step::Reply(frame) => frame,
        other => panic!("{other:?} is no reply"),
    }
}

/// Has two ends talk, where the frame number `at` is changed on its way; tells what each came to.
fn talk(
    listener_auth: &Auth,
    client_auth: &Auth,
    mut change: impl FnMut(usize, &mut Vec<u8>),
) -> [Result<(), Refusal>; 2] {
    let (listener, first) = listener(listener_auth);
    let mut ends = [listener, client(client_auth)];
    let mut results = [None, None];
    let mut frame = Some(first);
    let mut to = 1;
    for number in 0.. {
        // The other end closes: who still waits is told by the socket.
        let Some(mut now) = frame else { break };
        change(number, &mut now);
        let (next, result) = match ends[to].step(&now) {
            Step::Reply(next) => (Some(next), None),
            Step::Done(next) => (next, Some(Ok(()))),
            Step::Refused(next, refusal) => (next, Some(Err(refusal))),
        };
        assert_eq!(ends[to].is_done(), result == Some(Ok(())));
        assert!(results[to].is_none() || result.is_some(), "who is done says no more");
        if result.is_some() {
            results[to] = result;
        }
        frame = next;
        to = 1 - to;
        assert!(number < 10, "it ends");
    }
    results.map(|result| result.unwrap_or(Err(Refusal::Protocol)))
}

#[test]
fn b6_the_same_key_is_accepted_both_ways() {
    for key in
        ["the key", "", "a key that is longer than a block of the hash: 0123456789012345678901234567890"]
    {
        let auth = Auth::new(key);
        assert_eq!(talk(&auth, &auth, |_, _| ()), [Ok(()), Ok(())]);
    }
    assert!(Handshake::begin(&Auth::none(), Role::Client, counted()).is_none());
}

#[test]
fn b6_another_key_is_refused_by_whoever_asks_first() {
    for (ours, theirs) in [("the key", "the kez"), ("the key", ""), ("", "the key"), ("a", "aa")] {
        let [listener, client] = talk(&Auth::new(ours), &Auth::new(theirs), |_, _| ());
        assert_eq!([listener, client], [Err(Refusal::WrongKey), Err(Refusal::Rejected)]);
    }
}

#[test]
fn b24_frames_are_those_of_python() {
    let (mut listener, first) = listener(&auth());
    let challenge = [b"{sha256}".as_slice(), &counted()].concat();
    assert_eq!(first, [b"#CHALLENGE#".as_slice(), &challenge].concat());
    let right = [b"{sha256}".to_vec(), bytes(SHA256_OF_CHALLENGE)].concat();
    assert_eq!(listener.step(&right), Step::Reply(WELCOME.to_vec()));
    let asked = [b"#CHALLENGE#{sha256}".as_slice(), &counted().map(|byte| 255 - byte)].concat();
    assert_eq!(reply(listener.step(&asked)).len(), 8 + 32);
    assert_eq!(listener.step(WELCOME), Step::Done(None));

    for (key, hash) in [(KEY, SHA256_OF_CHALLENGE), ("", SHA256_BY_EMPTY_KEY)] {
        let mut client = client(&Auth::new(key));
        let answer = [b"{sha256}".to_vec(), bytes(hash)].concat();
        assert_eq!(client.step(&first), Step::Reply(answer));
        let asked = reply(client.step(WELCOME));
        assert!(asked.starts_with(b"#CHALLENGE#{sha256}") && asked.len() == 11 + 8 + 40);
    }
}

#[test]
fn b6_a_listener_that_welcomes_everybody_is_not_trusted() {
    let mut client = client(&auth());
    let _ = reply(client.step(&[b"#CHALLENGE#{sha256}".as_slice(), &counted()].concat()));
    let _ = reply(client.step(WELCOME));
    let guess = [b"{sha256}".as_slice(), &[0; 32]].concat();
    assert_eq!(client.step(&guess), Step::Refused(Some(FAILURE.to_vec()), Refusal::WrongKey));
    assert!(!client.is_done());
}

#[test]
fn b24_md5_is_refused_unless_asked_for() {
    let old_challenge = [b"#CHALLENGE#".as_slice(), &counted()[..20]].concat();
    let named_challenge = [b"#CHALLENGE#{md5}".as_slice(), &counted()].concat();
    let md5_answers = [bytes(MD5_OF_CHALLENGE), [b"{md5}".to_vec(), bytes(MD5_OF_CHALLENGE)].concat()];

    for challenge in [&old_challenge, &named_challenge] {
        assert_eq!(client(&auth()).step(challenge), Step::Refused(None, Refusal::Md5));
    }
    for answer in &md5_answers {
        let (mut listener, _) = listener(&auth());
        assert_eq!(listener.step(answer), Step::Refused(Some(FAILURE.to_vec()), Refusal::Md5));
    }

    let allowed = auth().allow_md5(true);
    assert_eq!(client(&allowed).step(&old_challenge), Step::Reply(bytes(MD5_OF_OLD_CHALLENGE)));
    assert!(reply(client(&allowed).step(&named_challenge)).starts_with(b"{md5}"));
    for mut answer in md5_answers {
        assert_eq!(listener(&allowed).0.step(&answer), Step::Reply(WELCOME.to_vec()));
        *answer.last_mut().unwrap() ^= 1;
        let refused = Step::Refused(Some(FAILURE.to_vec()), Refusal::WrongKey);
        assert_eq!(listener(&allowed).0.step(&answer), refused);
    }
    assert_eq!(talk(&allowed, &allowed.clone().allow_md5(false), |_, _| ()), [Ok(()), Ok(())]);
}

#[test]
fn b6_what_is_no_challenge_or_answer_is_refused() {
    let long = [b"#CHALLENGE#{sha512}".as_slice(), &[1; 40]].concat();
    assert_eq!(client(&auth()).step(&long), Step::Refused(None, Refusal::UnknownHash));
    for frame in [b"".as_slice(), b"#CHALLENGE#", b"#CHALLENGE#{sha256}0123", WELCOME, FAILURE, &[0; 256]] {
        assert_eq!(client(&auth()).step(frame), Step::Refused(None, Refusal::Protocol));
    }
    for frame in [b"".as_slice(), b"{sha256}", WELCOME, &[0; 15], &[0; 32], &[0; 256]] {
        let (mut listener, _) = listener(&auth());
        assert!(matches!(listener.step(frame), Step::Refused(Some(_), _)));
        assert!(!listener.is_done());
    }
    // The beginning of the right hash, or more than it, is not the right hash.
    let right = [b"{sha256}".to_vec(), bytes(SHA256_OF_CHALLENGE)].concat();
    for len in 0..right.len() {
        assert!(matches!(listener(&auth()).0.step(&right[..len]), Step::Refused(..)), "{len} bytes");
    }
    assert!(matches!(listener(&auth()).0.step(&[right, vec![0]].concat()), Step::Refused(..)));
}

#[test]
fn b6_a_listener_answers_nobody_before_he_has_answered() {
    let (mut listener, first) = listener(&auth());
    // A stranger sends the question back, or one of his own.
    assert_eq!(listener.step(&first), Step::Refused(Some(FAILURE.to_vec()), Refusal::Protocol));
    assert_eq!(listener.step(&first), Step::Refused(None, Refusal::Protocol));
}

#[test]
fn b6_a_question_is_not_answered_by_who_asked_it() {
    let (mut listener, first) = listener(&auth());
    let mut honest = client(&auth());
    let _ = reply(listener.step(&reply(honest.step(&first))));
    assert_eq!(listener.step(&first), Step::Refused(None, Refusal::Reflected));
}

#[test]
fn b6_the_question_of_one_client_is_not_answered_by_another() {
    // One without the key poses as a listener to two clients, and wants the second to answer for him.
    let mut first = client_with(&auth(), 1);
    let _ = reply(first.step(&[b"#CHALLENGE#{sha256}".as_slice(), &counted()].concat()));
    let asked = reply(first.step(WELCOME));
    let mut second = client_with(&auth(), 2);
    assert_eq!(second.step(&asked), Step::Refused(None, Refusal::Reflected));
    // A listener with the key does answer it.
    let (mut listener, question) = listener(&auth());
    let _ = reply(listener.step(&reply(client_with(&auth(), 3).step(&question))));
    assert!(matches!(first.step(&reply(listener.step(&asked))), Step::Done(_)));
}

#[test]
fn b6_questions_of_clients_differ_with_their_randomness_and_key() {
    let asked = |key: &str, random| {
        let mut client = client_with(&Auth::new(key), random);
        let _ = reply(client.step(&[b"#CHALLENGE#{sha256}".as_slice(), &counted()].concat()));
        reply(client.step(WELCOME))
    };
    assert_ne!(asked(KEY, 1), asked(KEY, 2));
    assert_ne!(asked(KEY, 1)[43..], asked("another", 1)[43..], "the mark is a hash by the key");
}

#[test]
fn b6_a_frame_changed_on_its_way_leaves_nobody_deceived() {
    let auth = auth().allow_md5(true);
    let mut lengths = Vec::new();
    assert_eq!(talk(&auth, &auth, |_, frame| lengths.push(frame.len())), [Ok(()), Ok(())]);
    assert_eq!(lengths, [59, 40, 9, 59, 40, 9]);
    for (changed, &len) in lengths.iter().enumerate() {
        for at in 0..len {
            for flip in [1, 2, 4, 8, 16, 32, 64, 128, 0xff] {
                let results = talk(&auth, &auth, |number, frame| {
                    if number == changed {
                        frame[at] ^= flip;
                    }
                });
                // Only the last word may be lost on the one who has it already.
                let expected = if changed == 5 { [false, true] } else { [false, false] };
                assert_eq!(results.map(|result| result.is_ok()), expected, "frame {changed}, byte {at}");
            }
        }
        for cut in 0..len {
            let results = talk(&auth, &auth, |number, frame| {
                if number == changed {
                    frame.truncate(cut);
                }
            });
            assert!(results[0].is_err(), "frame {changed} cut to {cut} bytes");
        }
        let results = talk(&auth, &auth, |number, frame| {
            if number == changed {
                frame.push(0);
            }
        });
        assert!(results[0].is_err(), "frame {changed} with a byte more");
    }
}

#[test]
fn b6_after_the_end_every_frame_is_refused() {
    let (mut listener, first) = listener(&auth());
    let mut client = client(&auth());
    let mut frame = reply(client.step(&first));
    frame = reply(listener.step(&frame));
    frame = reply(client.step(&frame));
    frame = reply(listener.step(&frame));
    assert_eq!(client.step(&frame), Step::Done(Some(WELCOME.to_vec())));
    assert_eq!(listener.step(WELCOME), Step::Done(None));
    for end in [&mut client, &mut listener] {
        assert_eq!(end.step(WELCOME), Step::Refused(None, Refusal::Protocol));
        assert!(!end.is_done());
    }
}

#[test]
fn b6_a_key_is_not_printed() {
    let (listener, _) = listener(&auth());
    let text = format!("{:?} {listener:?}", auth());
    assert!(!text.contains(KEY) && !text.contains("116, 104"), "{text}");
}
