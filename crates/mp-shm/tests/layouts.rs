//! Handles opened as something else than they name: an error, never garbage.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, Sender, channel};
use mp_shm::codec::{DecodeError, Payload, encode};
use mp_shm::latest::latest;
use mp_shm::references::HandleError;
use mp_shm::{
    Array, ArrayMut, Frozen, Item, Latest, LatestWriter, List, Message, Part, Session, Shared, ShmSafe, Value,
};
use std::sync::atomic::AtomicU64;

/// Sends `value` and receives a `To`.
fn as_other<To: Message>(value: &impl Message) -> Result<To, DecodeError> {
    let block = encode(Session::current().unwrap(), value, 0).unwrap().into_block().unwrap();
    Payload::in_block(block).decode()
}

fn is_refused<To: Message>(value: &impl Message) -> bool {
    matches!(as_other::<To>(value), Err(DecodeError::Handle(HandleError::OtherType)))
}

fn is_taken<To: Message>(value: &impl Message) -> bool {
    as_other::<To>(value).is_ok()
}

/// Objects of another kind are told apart before their layout is looked at.
fn is_other_kind<To: Message>(value: &impl Message) -> bool {
    matches!(as_other::<To>(value), Err(DecodeError::Handle(HandleError::Stale)))
}

/// Two builds of one program whose structs have the same name and size, but other fields.
mod build_1 {
    #[derive(mp_shm::ShmSafe, Clone, Copy, Debug)]
    #[repr(C)]
    pub(crate) struct Point {
        pub(crate) x: u32,
        pub(crate) y: u32,
    }
}

mod build_2 {
    #[derive(mp_shm::ShmSafe, Clone, Copy, Debug)]
    #[repr(C)]
    pub(crate) struct Point {
        pub(crate) x: u16,
        pub(crate) z: u16,
        pub(crate) y: u32,
    }
}

const ONE: build_1::Point = build_1::Point { x: 1, y: 2 };

#[test]
fn d8_the_same_type_is_opened() {
    assert_eq!((ONE.x, ONE.y), (1, 2));
    let two = build_2::Point { x: 1, z: 2, y: 3 };
    assert_eq!((two.x, two.z, two.y), (1, 2, 3));
    assert!(is_taken::<Value<build_1::Point>>(&Value::new(ONE).unwrap()));
    assert!(is_taken::<Array<build_1::Point>>(&Array::from_slice(&[ONE]).unwrap()));
    assert!(is_taken::<List>(&List::new([Item::None], 1).unwrap()));
    assert!(is_taken::<Frozen<String>>(&Frozen::new(&"a".to_owned()).unwrap()));
    let (writer, cell) = latest(ONE).unwrap();
    assert!(is_taken::<Latest<build_1::Point>>(&cell) && is_taken::<LatestWriter<build_1::Point>>(&writer));
    let (_split, parts) = ArrayMut::from_slice(&[ONE]).unwrap().split(1).unwrap();
    assert!(is_taken::<Part<build_1::Point>>(&parts[0]));
}

#[test]
fn d8_another_struct_of_the_same_name_and_size_is_refused() {
    use build_2::Point;
    assert!(is_refused::<Shared<Point>>(&Shared::<build_1::Point>::zeroed().unwrap()));
    assert!(is_refused::<Value<Point>>(&Value::new(ONE).unwrap()));
    assert!(is_refused::<Array<Point>>(&Array::from_slice(&[ONE]).unwrap()));
    let (writer, cell) = latest(ONE).unwrap();
    assert!(is_refused::<Latest<Point>>(&cell) && is_refused::<LatestWriter<Point>>(&writer));
    let (_split, parts) = ArrayMut::from_slice(&[ONE]).unwrap().split(1).unwrap();
    assert!(is_refused::<Part<Point>>(&parts[0]));
}

#[test]
fn d8_another_element_type_length_or_header_is_refused() {
    let value = Value::new(1_u64).unwrap();
    assert!(is_refused::<Value<i64>>(&value) && is_refused::<Value<u32>>(&value));
    assert!(is_refused::<Value<[u32; 2]>>(&value) && is_refused::<Shared<AtomicU64>>(&value));
    assert!(is_refused::<Value<u64>>(&Shared::<AtomicU64>::zeroed().unwrap()));
    let array = Array::from_slice(&[1_u32, 2, 3, 4]).unwrap();
    assert!(is_refused::<Array<u64>>(&array) && is_refused::<Array<[u32; 2]>>(&array));
    assert!(is_refused::<Array<f32>>(&array) && is_refused::<Array<u32, u32>>(&array));
    let (_writer, cell) = latest([0_u8; 64]).unwrap();
    assert!(is_refused::<Latest<[u8; 63]>>(&cell) && is_refused::<Latest<[u64; 8]>>(&cell));
    let shared = Shared::<[u64; 2]>::zeroed().unwrap();
    assert!(is_refused::<Shared<[u64; 3]>>(&shared) && is_refused::<Shared<[u64; 1]>>(&shared));
    let frozen = Frozen::new(&vec![1_u32]).unwrap();
    assert!(is_refused::<Frozen<Vec<i32>>>(&frozen) && is_refused::<Frozen<String>>(&frozen));
}

#[test]
fn d8_an_object_of_another_kind_is_refused() {
    let array = Array::<u8>::new(8).unwrap();
    assert!(is_other_kind::<List>(&array) && is_other_kind::<Value<u8>>(&array));
    let (writer, cell) = latest(1_u8).unwrap();
    assert!(is_other_kind::<LatestWriter<u8>>(&cell) && is_other_kind::<Latest<u8>>(&writer));
    assert!(is_other_kind::<Frozen<u8>>(&List::new([], 0).unwrap()));
}

#[test]
fn d8_a_channel_of_other_handles_is_refused() {
    let (sender, receiver) = channel::<Value<u64>>(1).unwrap();
    assert!(is_taken::<Sender<Value<u64>>>(&sender));
    assert!(is_refused::<Sender<Value<u32>>>(&sender) && is_refused::<Receiver<Array<u64>>>(&receiver));
}

#[test]
fn d8_the_parts_of_a_struct_make_its_layout() {
    assert_ne!(build_1::Point::LAYOUT, build_2::Point::LAYOUT);
    assert_eq!(size_of::<build_1::Point>(), size_of::<build_2::Point>());
}
