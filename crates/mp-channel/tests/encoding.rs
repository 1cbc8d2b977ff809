//! Values that cannot be encoded, and what is left of them: nothing.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, SendFailure, Sender, channel};
use mp_shm::codec::EncodeError;
use mp_shm::rkyv::rancor::{Fallible, Source};
use mp_shm::rkyv::with::{ArchiveWith, DeserializeWith, SerializeWith};
use mp_shm::rkyv::{self, Place};
use mp_testkit::{LeakCheck, assert_no_backstop, watchdog};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// The handle is encoded first, then the text, then the mood that decides.
#[derive(Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Value {
    handle: Sender<u32>,
    text: String,
    #[rkyv(with = Decides)]
    mood: u32,
}

const FINE: u32 = 0;
const FAILS: u32 = 1;
const PANICS: u32 = 2;

struct Decides;

#[derive(Debug)]
struct NotToday;

impl fmt::Display for NotToday {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not today")
    }
}

impl std::error::Error for NotToday {}

impl ArchiveWith<u32> for Decides {
    type Archived = rkyv::rend::u32_le;
    type Resolver = ();

    fn resolve_with(field: &u32, (): (), out: Place<Self::Archived>) {
        rkyv::Archive::resolve(field, (), out);
    }
}

impl<S: Fallible<Error: Source> + ?Sized> SerializeWith<u32, S> for Decides {
    fn serialize_with(field: &u32, _: &mut S) -> Result<(), S::Error> {
        match *field {
            FAILS => Err(S::Error::new(NotToday)),
            PANICS => panic!("a panic while encoding"),
            _ => Ok(()),
        }
    }
}

impl<D: Fallible + ?Sized> DeserializeWith<rkyv::rend::u32_le, u32, D> for Decides {
    fn deserialize_with(field: &rkyv::rend::u32_le, _: &mut D) -> Result<u32, D::Error> {
        Ok(field.to_native())
    }
}

/// Takes the next message, and shows that its handle is the one of `expected` and no other's.
fn flows(receiver: &Receiver<Vec<Value>>, expected: &Receiver<u32>, bytes: usize) {
    let values = receiver.try_recv().unwrap();
    assert_eq!(values.len(), 1);
    assert_eq!(values[0].text.len(), bytes);
    values[0].handle.send(77).unwrap();
    assert_eq!(expected.try_recv().unwrap(), 77);
}

#[test]
fn b2_a_value_that_cannot_be_encoded_comes_back_and_leaves_nothing() {
    let _watchdog = watchdog(Duration::from_secs(120));
    let leaks = LeakCheck::begin();
    let (sender, receiver) = channel::<Vec<Value>>(1).unwrap();
    let (wrong, wrong_end) = channel::<u32>(1).unwrap();
    let (right, right_end) = channel::<u32>(1).unwrap();
    let value = |handle: &Sender<u32>, bytes: usize, mood| Value {
        handle: handle.clone(),
        text: "x".repeat(bytes),
        mood,
    };
    // In the slot, in scratch, in a block, in a large block.
    for bytes in [3, 1000, 10_000, 3_000_000] {
        for _ in 0..20 {
            // Fails after a value that went well, so that there are handles of both.
            let values = vec![value(&wrong, bytes, FINE), value(&wrong, bytes, FAILS)];
            let error = sender.send(values).unwrap_err();
            assert!(matches!(error.failure, SendFailure::Encode(EncodeError::Value(_))), "{error}");
            assert!(error.to_string().contains("not today"), "{error}");
            let back = error.into_value();
            assert_eq!(back.len(), 2);
            assert_eq!(back[1].mood, FAILS);
            assert!(receiver.is_empty(), "the slot came back");

            sender.try_send(vec![value(&right, bytes, FINE)]).unwrap();
            flows(&receiver, &right_end, bytes);
        }
        let values = vec![value(&wrong, bytes, FINE), value(&wrong, bytes, PANICS)];
        assert!(catch_unwind(AssertUnwindSafe(|| sender.send(values))).is_err());
        assert!(receiver.is_empty(), "the slot came back");
        sender.try_send(vec![value(&right, bytes, FINE)]).unwrap();
        flows(&receiver, &right_end, bytes);
    }
    // Nobody but us ever held the handle of the failed values.
    drop(wrong);
    assert!(wrong_end.try_recv().unwrap_err().is_disconnected());
    drop((sender, receiver, wrong_end, right, right_end));
    leaks.end();
    assert_no_backstop();
}
