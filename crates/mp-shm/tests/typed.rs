//! Values, arrays and lists that processes share, plain and in parts.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, Sender, channel};
use mp_shm::sole::NotSole;
use mp_shm::{Array, ArrayMut, Item, List, Part, Value};
use mp_spawn::Process;
use mp_testkit::{assert_no_backstop, watchdog};
use std::time::Duration;

const ROUNDS: u64 = 20_000;

fn limit() -> mp_testkit::Watchdog {
    watchdog(Duration::from_secs(120))
}

fn count_up(value: Value<u64>) {
    for _ in 0..ROUNDS {
        value.update(|count| count + 1);
    }
}

#[test]
fn d7_a_value_loses_no_update_of_four_processes() {
    let _watchdog = limit();
    let value = Value::new(0_u64).unwrap();
    let children: Vec<_> = (0..3).map(|_| Process::spawn(count_up, value.clone()).unwrap()).collect();
    count_up(value.clone());
    children.into_iter().for_each(|child| child.join().unwrap());
    assert_eq!(value.get(), 4 * ROUNDS);
    assert_no_backstop();
}

/// Two halves that are the same number in every value that is ever set.
fn set_pairs((value, done): (Value<[u32; 2]>, Value<u8>)) {
    for number in 0.. {
        value.set([number, number]);
        if done.get() == 1 {
            return;
        }
    }
}

#[test]
fn d7_a_value_of_8_bytes_is_never_torn() {
    let _watchdog = limit();
    let (value, done) = (Value::new([0_u32; 2]).unwrap(), Value::new(0_u8).unwrap());
    let child = Process::spawn(set_pairs, (value.clone(), done.clone())).unwrap();
    let (mut before, mut changes) = (0, 0);
    while changes < 10 * ROUNDS {
        let [first, second] = value.get();
        assert_eq!(first, second);
        changes += u64::from(first != before);
        before = first;
    }
    done.set(1);
    child.join().unwrap();
}

#[test]
fn d7_a_value_is_exchanged_only_if_it_is_the_one_expected() {
    let value = Value::new(1.5_f32).unwrap();
    assert_eq!(value.compare_exchange(1.5, 2.5), Ok(1.5));
    assert_eq!(value.compare_exchange(1.5, 3.5), Err(2.5));
    assert_eq!(value.fetch_update(|_| None), Err(2.5));
    assert_eq!(value.swap(0.5), 2.5);
    assert_eq!(value.get(), 0.5);
}

fn fill((array, from, step): (Array<u32>, u32, u32)) {
    for at in (from..u32::try_from(array.len()).unwrap()).step_by(step as usize) {
        array.set(at as usize, at + 1);
    }
}

#[test]
fn d7_an_array_is_filled_by_three_processes() {
    let _watchdog = limit();
    let array = Array::<u32>::new(10_000).unwrap();
    let start = |from: u32| Process::spawn(fill, (array.clone(), from, 3)).unwrap();
    let children: Vec<_> = (0..3).map(start).collect();
    children.into_iter().for_each(|child| child.join().unwrap());
    assert!(array.to_vec().into_iter().eq(1..=10_000));
    let mut middle = [0; 3];
    array.read_into(5_000..5_003, &mut middle);
    assert_eq!(middle, [5_001, 5_002, 5_003]);
    array.write_from(9_998, &[7, 8]);
    assert_eq!((array.get(9_999), array.get(10_000)), (Some(8), None));
}

#[test]
fn d7_what_is_outside_of_an_array_is_refused() {
    let array = Array::from_slice(&[1_u8, 2, 3]).unwrap();
    let refused = |access: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(access)).is_err();
    assert!(refused(&|| array.set(3, 0)));
    assert!(refused(&|| array.write_from(2, &[0, 0])));
    assert!(refused(&|| array.write_from(usize::MAX, &[0, 0])));
    assert!(refused(&|| array.read_into(2..4, &mut [0; 2])));
    assert!(refused(&|| array.read_into(..2, &mut [0; 3])));
    assert_eq!(array.to_vec(), [1, 2, 3], "nothing was written");
    let empty = Array::<u64>::new(0).unwrap();
    assert!(empty.is_empty() && empty.get(0).is_none());
}

#[test]
fn d7_a_large_array_is_zero_where_others_were() {
    for len in [300_000, 1_000_000, 900_000, 500_000, 3_000_000] {
        // More than a process keeps for itself.
        let arrays: Vec<_> = (0..6).map(|_| Array::<u64>::new(len).unwrap()).collect();
        for array in &arrays {
            assert!(array.to_vec().iter().all(|&element| element == 0), "{len}");
            array.write_from(0, &vec![u64::MAX; len]);
        }
    }
    assert!(mp_shm::Session::current().unwrap().free_memory_is_zero().unwrap());
}

/// How many pages were put under accesses of this thread so far.
fn faults() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split(' ').nth(7).unwrap().parse().unwrap()
}

#[test]
fn d7_an_array_that_was_prefaulted_is_there() {
    // A thousand pages.
    let array = Array::<u8>::new(4096 * 1000).unwrap();
    array.prefault(..).unwrap();
    let before = faults();
    (0..1000).for_each(|page| array.set(page * 4096, 1));
    let faults = faults() - before;
    assert!(faults < 100, "{faults}");
}

#[test]
fn d7_pages_are_put_under_a_part_of_an_array() {
    let array = Array::from_slice(&[7_u16; 100_000]).unwrap();
    array.prefault(1..99_999).unwrap();
    array.prefault(..0).unwrap();
    assert!(array.to_vec().iter().all(|&element| element == 7), "their content stays");
    let beyond = || array.prefault(..=100_000);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(beyond)).is_err());
}

#[test]
fn d7_an_array_of_pairs_and_a_header() {
    let session = mp_shm::Session::current().unwrap();
    let array =
        Array::<[u64; 3], [u32; 5]>::with_header_in(session, 4, |header| *header = [1, 2, 3, 4, 5]).unwrap();
    array.set(3, [7, 8, 9]);
    assert_eq!(array.get(3), Some([7, 8, 9]));
    assert_eq!(array.get(0), Some([0; 3]));
    assert_eq!(array.header(), &[1, 2, 3, 4, 5]);
    assert_eq!(array.elements().len(), 4);
    assert_eq!(array.elements().cast::<u8>().as_ptr() as usize % 64, 0);
}

/// Adds `number` to all elements of its part, and hands it back.
fn add((mut part, number): (Part<u64>, u64)) -> Part<u64> {
    part.slice_mut().unwrap().iter_mut().for_each(|element| *element += number);
    part
}

#[test]
fn d7_parts_go_to_processes_and_come_back() {
    let _watchdog = limit();
    let array = ArrayMut::from_slice(&(0..1001).collect::<Vec<u64>>()).unwrap();
    let (split, parts) = array.split(4).unwrap();
    let lengths: Vec<_> = parts.iter().map(Part::len).collect();
    assert_eq!(lengths, [251, 250, 250, 250]);
    let start = |(number, part)| Process::spawn(add, (part, number)).unwrap();
    let children: Vec<_> = (1..).zip(parts).map(start).collect();
    let split = split.join().unwrap_err();
    let mut back: Vec<_> = children.into_iter().map(|child| child.join().unwrap()).collect();
    back[1].slice_mut().unwrap()[0] = 0;
    drop(back);
    let array = split.join().unwrap();
    let expected = |at: usize| if at < 251 { 1 } else { (at as u64 - 1) / 250 + 1 };
    for (at, element) in array.iter().enumerate().filter(|(at, _)| *at != 251) {
        assert_eq!(*element, at as u64 + expected(at), "element {at}");
    }
    assert_eq!(array[251], 0);
    assert_eq!(array.into_shared().unwrap().get(0), Some(1));
    assert_no_backstop();
}

#[test]
fn d7_a_part_in_a_message_belongs_to_nobody() {
    let _watchdog = limit();
    let (sender, receiver) = channel::<Part<u8>>(1).unwrap();
    let (split, mut parts) = ArrayMut::<u8>::new(8).unwrap().split(1).unwrap();
    let mut part = parts.pop().unwrap();
    // Encoding takes it by reference: the sender still has it, but cannot use it.
    let session = mp_shm::Session::current().unwrap();
    let encoded = mp_shm::codec::encode(session, &part, 0).unwrap();
    assert_eq!(part.try_slice_mut(), Err(NotSole::Shared));
    drop(encoded);
    assert!(part.try_slice_mut().is_ok(), "a message that is dropped gives it back");
    let message = mp_shm::codec::encode(session, &part, 0).unwrap().into_block().unwrap();
    let mut other: Part<u8> = mp_shm::codec::Payload::in_block(message).decode().unwrap();
    assert_eq!(part.try_slice_mut(), Err(NotSole::Shared));
    assert_eq!(other.try_slice_mut(), Err(NotSole::Shared));
    drop(other);
    part.try_slice_mut().unwrap()[0] = 1;
    // Sent, it is the receiver's; and the sender's again if nobody takes it.
    sender.send(part).unwrap();
    let mut received = receiver.recv().unwrap();
    assert_eq!(received.slice_mut().unwrap()[0], 1);
    drop(receiver);
    let error = sender.send(received).unwrap_err();
    let mut back = error.value;
    assert!(back.slice_mut().is_ok());
    let split = split.join().unwrap_err();
    drop(back);
    assert_eq!(split.join().unwrap()[0], 1);
}

#[test]
fn d7_who_waits_to_be_the_only_holder_is_woken_by_the_drop_of_the_other() {
    let _watchdog = limit();
    let (_split, mut parts) = ArrayMut::<u8>::new(8).unwrap().split(1).unwrap();
    let part = parts.pop().unwrap();
    let session = mp_shm::Session::current().unwrap();
    let message = mp_shm::codec::encode(session, &part, 0).unwrap().into_block().unwrap();
    let mut other: Part<u8> = mp_shm::codec::Payload::in_block(message).decode().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let waiting = std::thread::spawn(move || {
        tell.send(mp_testkit::proc::Task::current()).unwrap();
        other.slice_mut_timeout(Duration::from_secs(60)).is_ok()
    });
    told.recv().unwrap().wait_until_blocked();
    drop(part);
    assert!(waiting.join().unwrap());
    assert_no_backstop();
}

fn die_with((mut part, told): (Part<u8>, Sender<()>)) {
    part.slice_mut().unwrap().fill(9);
    told.send(()).unwrap();
    std::thread::sleep(Duration::from_secs(3600));
}

#[test]
fn d7_a_part_of_a_dead_process_is_reclaimed() {
    let _watchdog = limit();
    let (split, mut parts) = ArrayMut::<u8>::new(6).unwrap().split(3).unwrap();
    let mut split = split;
    let (told, is_told) = channel(1).unwrap();
    let child = Process::spawn(die_with, (parts.remove(1), told)).unwrap();
    is_told.recv().unwrap();
    assert!(split.reclaim(1).unwrap().is_none(), "it is held");
    child.kill().unwrap();
    let _ = child.join();
    let mut part = split.reclaim(1).unwrap().expect("its holder is dead");
    assert_eq!(part.slice_mut().unwrap(), [9, 9]);
    assert!(split.reclaim(1).unwrap().is_none(), "it is held again");
    drop((part, parts));
    assert_eq!(&*split.join().unwrap(), [0, 0, 9, 9, 0, 0]);
    assert_no_backstop();
}

fn wait_for_the_part((parts, told): (Receiver<Part<u8>>, Sender<()>)) -> bool {
    let mut part = parts.recv().unwrap();
    told.send(()).unwrap();
    part.slice_mut_timeout(Duration::from_secs(60)).is_ok()
}

fn send_and_keep((part, parts): (Part<u8>, Sender<Part<u8>>)) {
    // One in the message, one here: as a sender looks that was stopped before it dropped its own.
    let session = mp_shm::Session::current().unwrap();
    let message = mp_shm::codec::encode(session, &part, 0).unwrap().into_block().unwrap();
    parts.send(mp_shm::codec::Payload::in_block(message).decode().unwrap()).unwrap();
    std::thread::sleep(Duration::from_secs(3600));
    drop(part);
}

#[test]
fn d7_a_part_whose_sender_dies_before_it_drops_it_is_the_receivers() {
    let _watchdog = limit();
    let (split, mut parts) = ArrayMut::<u8>::new(6).unwrap().split(1).unwrap();
    let (to, from) = channel(1).unwrap();
    let (told, is_told) = channel(1).unwrap();
    let receiver = Process::spawn(wait_for_the_part, (from, told)).unwrap();
    let sender = Process::spawn(send_and_keep, (parts.pop().unwrap(), to)).unwrap();
    is_told.recv().unwrap();
    mp_testkit::proc::Task::leader(receiver.pid()).wait_until_blocked();
    sender.kill().unwrap();
    let _ = sender.join();
    assert!(receiver.join().unwrap(), "the death of the sender wakes who waits to be the only holder");
    split.join().unwrap();
    assert_no_backstop();
}

/// Every item that a process puts into a slot is made of one number.
fn item_of(number: u32) -> Item {
    match number % 4 {
        0 => Item::Int(number.into()),
        1 => number.to_string().repeat(4).into(),
        2 => vec![number.to_le_bytes()[0]; number as usize % 40].into(),
        _ => f64::from(number).into(),
    }
}

fn is_whole(item: &Item) -> bool {
    match item {
        Item::None => true,
        Item::Int(number) => number % 4 == 0,
        Item::Float(number) => number % 4.0 == 3.0,
        Item::Str(text) => {
            let quarter = text.len() / 4;
            text.len().is_multiple_of(4) && *text == text[..quarter].repeat(4)
        }
        Item::Bytes(bytes) => bytes.iter().all(|byte| *byte == bytes[0]),
        Item::Bool(_) => false,
    }
}

fn change((list, seed): (List, u64)) -> u64 {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut torn = 0;
    for _ in 0..ROUNDS {
        let index = random.usize(..list.len());
        if random.bool() {
            list.set(index, item_of(random.u32(..1_000_000))).unwrap();
        } else {
            torn += u64::from(!is_whole(&list.get(index).unwrap()));
        }
    }
    torn
}

#[test]
fn d7_items_of_a_list_are_never_torn() {
    let _watchdog = limit();
    let list = List::new(vec![Item::None; 2], 40).unwrap();
    let start = |seed: u64| Process::spawn(change, (list.clone(), seed)).unwrap();
    let children: Vec<_> = (1..3).map(start).collect();
    assert_eq!(change((list.clone(), 3)), 0);
    children.into_iter().for_each(|child| assert_eq!(child.join().unwrap(), 0));
    assert_no_backstop();
}

#[test]
fn d7_a_list_says_what_does_not_fit() {
    let list = List::new(["a".into(), true.into(), "a".into()], 3).unwrap();
    let error = list.set(0, "four".into()).unwrap_err().to_string();
    assert!(error.contains("4 bytes") && error.contains("for 3"), "{error}");
    let error = list.set(3, Item::None).unwrap_err().to_string();
    assert!(error.contains("slot 3") && error.contains("list of 3"), "{error}");
    assert!(List::new([vec![0; 4].into()], 3).is_err());
    assert_eq!(
        (list.count(&"a".into()), list.index(&true.into()), list.index(&1.into())),
        (2, Some(1), None)
    );
    assert_eq!(list.replace(1, 7.into()).unwrap(), true.into());
    assert!(list.iter().eq(["a".into(), 7.into(), "a".into()]));
    assert_eq!((list.get(3), list.capacity_bytes(), list.len()), (None, 3, 3));
}
