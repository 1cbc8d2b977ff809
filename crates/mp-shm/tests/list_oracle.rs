//! A list against a plain vector: long random sequences of operations, the seed printed.
#![cfg(not(loom))]

use mp_shm::list::ListError;
use mp_shm::{Item, List};
use mp_spawn::Process;
use mp_testkit::watchdog;
use std::time::Duration;

const STEPS: u32 = 20_000;

fn random_item(random: &mut fastrand::Rng, most: usize) -> Item {
    let len = random.usize(..=most);
    match random.u32(..7) {
        0 => Item::None,
        1 => random.bool().into(),
        2 => random.i64(..).into(),
        3 => i64::from(random.u8(..4)).into(),
        4 => f64::from(random.i16(..)).into(),
        5 => (0..len).map(|_| random.alphanumeric()).collect::<String>().into(),
        _ => (0..len).map(|_| random.u8(..)).collect::<Vec<u8>>().into(),
    }
}

/// Does `steps` random operations to both, and compares what they say.
fn compare(list: &List, model: &mut [Item], seed: u64, steps: u32) {
    let mut random = fastrand::Rng::with_seed(seed);
    let capacity = list.capacity_bytes();
    for step in 0..steps {
        let at = format!("seed {seed}, step {step}");
        let index = random.usize(..model.len() + 2);
        let item = random_item(&mut random, capacity + 3);
        match random.u32(..8) {
            0..3 => match list.replace(index, item.clone()) {
                Ok(before) => {
                    assert!(item.len_bytes() <= capacity, "{at}");
                    assert_eq!(before, std::mem::replace(&mut model[index], item), "{at}");
                }
                Err(ListError::NoSlot { .. }) => assert!(index >= model.len(), "{at}"),
                Err(ListError::TooLong { bytes, .. }) => {
                    assert!(bytes > capacity && index < model.len(), "{at}")
                }
                Err(error) => panic!("{at}: {error}"),
            },
            3..6 => assert_eq!(list.get(index).as_ref(), model.get(index), "{at}"),
            6 => {
                let sought = model.get(index).unwrap_or(&item);
                assert_eq!(list.index(sought), model.iter().position(|one| one == sought), "{at}");
                assert_eq!(list.count(sought), model.iter().filter(|one| *one == sought).count(), "{at}");
            }
            _ => assert!(list.iter().eq(model.iter().cloned()), "{at}"),
        }
    }
}

#[test]
fn d7_a_list_does_what_a_vector_does() {
    let _watchdog = watchdog(Duration::from_secs(120));
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    for (number, capacity) in (0..).zip([0, 1, 7, 8, 9, 100]) {
        let mut model = vec![Item::None; 5];
        let list = List::new(model.clone(), capacity).unwrap();
        compare(&list, &mut model, seed.wrapping_add(number), STEPS);
    }
}

fn go_on((list, seed): (List, u64)) {
    let mut model: Vec<Item> = list.iter().collect();
    compare(&list, &mut model, seed, STEPS / 40);
}

#[test]
fn d7_processes_take_turns_at_a_list() {
    let _watchdog = watchdog(Duration::from_secs(120));
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let list = List::new(vec![Item::None; 5], 20).unwrap();
    for turn in 0..20 {
        let child = Process::spawn(go_on, (list.clone(), seed.wrapping_add(turn))).unwrap();
        child.join().unwrap();
        go_on((list.clone(), seed.wrapping_sub(turn)));
    }
}
