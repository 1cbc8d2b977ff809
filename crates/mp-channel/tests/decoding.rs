//! A message that cannot be decoded is consumed, with all that is in it.
#![cfg(not(loom))]

use mp_channel::{RecvError, Sender, channel};
use mp_shm::rkyv::rancor::{Fallible, Source};
use mp_shm::rkyv::with::{ArchiveWith, DeserializeWith, SerializeWith};
use mp_shm::rkyv::{self, Place};
use mp_testkit::{LeakCheck, assert_no_backstop, watchdog};
use std::time::Duration;

/// The handle is decoded first.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Value {
    handle: Sender<u32>,
    #[rkyv(with = Decides)]
    is_readable: bool,
}

struct Decides;

impl ArchiveWith<bool> for Decides {
    type Archived = bool;
    type Resolver = ();

    fn resolve_with(field: &bool, (): (), out: Place<bool>) {
        rkyv::Archive::resolve(field, (), out);
    }
}

impl<S: Fallible + ?Sized> SerializeWith<bool, S> for Decides {
    fn serialize_with(_: &bool, _: &mut S) -> Result<(), S::Error> {
        Ok(())
    }
}

impl<D: Fallible<Error: Source> + ?Sized> DeserializeWith<bool, bool, D> for Decides {
    fn deserialize_with(field: &bool, _: &mut D) -> Result<bool, D::Error> {
        field.then_some(true).ok_or_else(|| D::Error::new(std::fmt::Error))
    }
}

#[test]
fn b4_a_message_that_cannot_be_decoded_keeps_none_of_its_handles() {
    let _watchdog = watchdog(Duration::from_secs(120));
    let leaks = LeakCheck::begin();
    let (handle, handle_end) = channel::<u32>(1).unwrap();
    let value = |is_readable| Value { handle: handle.clone(), is_readable };

    // The first handle of the message is the one that does not go with a value.
    let (sender, receiver) = channel::<Value>(1).unwrap();
    sender.send(value(false)).unwrap();
    assert!(matches!(receiver.recv(), Err(RecvError::Decode(_))));
    drop((sender, receiver));
    let references = mp_shm::Session::current().unwrap().audit().references;
    assert_eq!(references, 2, "of the channel `handle` alone");

    // A handle has been taken with a value before, and one is left untaken after.
    let (sender, receiver) = channel::<Vec<Value>>(1).unwrap();
    sender.send(vec![value(true), value(false), value(true)]).unwrap();
    assert!(matches!(receiver.recv(), Err(RecvError::Decode(_))));
    // The next one flows.
    sender.send(vec![value(true)]).unwrap();
    receiver.recv().unwrap()[0].handle.send(5).unwrap();
    assert_eq!(handle_end.recv().unwrap(), 5);
    drop((sender, receiver));

    drop(handle);
    assert!(
        handle_end.try_recv().unwrap_err().is_disconnected(),
        "no handle is left in a message that is gone"
    );
    drop(handle_end);
    leaks.end();
    assert_no_backstop();
}
