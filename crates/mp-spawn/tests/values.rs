//! Arguments and values that cannot cross, and what is told of them.

use mp_shm::rkyv::rancor::{Fallible, Source};
use mp_shm::rkyv::with::{ArchiveWith, DeserializeWith, SerializeWith};
use mp_shm::rkyv::{self, Place};
use mp_spawn::{JoinError, Process, SpawnError};
use mp_testkit::watchdog;
use std::fmt;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// Text that can be encoded unless it is "unspeakable", and decoded unless it is "unheard".
#[derive(Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Text {
    before: String,
    #[rkyv(with = Picky)]
    word: u32,
}

const UNSPEAKABLE: u32 = 1;
const UNHEARD: u32 = 2;
const FATAL: u32 = 3;

struct Picky;

#[derive(Debug)]
struct Refused(&'static str);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Refused {}

impl ArchiveWith<u32> for Picky {
    type Archived = rkyv::rend::u32_le;
    type Resolver = ();

    fn resolve_with(field: &u32, (): (), out: Place<Self::Archived>) {
        rkyv::Archive::resolve(field, (), out);
    }
}

impl<S: Fallible<Error: Source> + ?Sized> SerializeWith<u32, S> for Picky {
    fn serialize_with(field: &u32, _: &mut S) -> Result<(), S::Error> {
        match *field {
            UNSPEAKABLE => Err(S::Error::new(Refused("this is not to be said"))),
            FATAL => panic!("a panic while encoding"),
            _ => Ok(()),
        }
    }
}

impl<D: Fallible<Error: Source> + ?Sized> DeserializeWith<rkyv::rend::u32_le, u32, D> for Picky {
    fn deserialize_with(field: &rkyv::rend::u32_le, _: &mut D) -> Result<u32, D::Error> {
        match field.to_native() {
            UNHEARD => Err(D::Error::new(Refused("this is not to be heard"))),
            word => Ok(word),
        }
    }
}

fn text(word: u32) -> Text {
    Text { before: "x".repeat(10_000), word }
}

#[test]
fn a1_an_argument_that_cannot_be_encoded_starts_no_process() {
    let _watchdog = watchdog(LONG);
    let error = Process::spawn(|text: Text| text.word, text(UNSPEAKABLE)).unwrap_err();
    assert!(matches!(error, SpawnError::Encode(_)), "{error}");
    assert!(error.to_string().contains("this is not to be said"), "{error}");
}

#[test]
fn a1_an_argument_that_cannot_be_decoded_is_told() {
    let _watchdog = watchdog(LONG);
    let child = Process::spawn(|text: Text| text.word, text(UNHEARD)).unwrap();
    let error = child.join().unwrap_err();
    assert!(matches!(error, JoinError::Argument(_)), "{error}");
    assert!(error.to_string().contains("this is not to be heard"), "{error}");
}

#[test]
fn a1_a_value_that_cannot_be_encoded_is_told() {
    let _watchdog = watchdog(LONG);
    let error = Process::spawn(text, UNSPEAKABLE).unwrap().join().unwrap_err();
    assert!(matches!(error, JoinError::Value(_)), "{error}");
    assert!(error.to_string().contains("this is not to be said"), "{error}");
}

#[test]
fn a1_a_value_that_cannot_be_decoded_is_told() {
    let _watchdog = watchdog(LONG);
    let error = Process::spawn(text, UNHEARD).unwrap().join().unwrap_err();
    assert!(matches!(error, JoinError::Decode(_)), "{error}");
    assert!(error.to_string().contains("this is not to be heard"), "{error}");
}

#[test]
fn a1_a_panic_while_the_value_is_encoded_is_told() {
    let _watchdog = watchdog(LONG);
    let error = Process::spawn(text, FATAL).unwrap().join().unwrap_err();
    let JoinError::Panicked(panic) = error else { panic!("{error}") };
    assert_eq!(panic.message, "a panic while encoding");
    assert!(panic.location.contains("values.rs:"), "{}", panic.location);
}

#[test]
fn a1_a_value_of_nothing_comes_back() {
    let _watchdog = watchdog(LONG);
    Process::spawn(|()| (), ()).unwrap().join().unwrap();
}
