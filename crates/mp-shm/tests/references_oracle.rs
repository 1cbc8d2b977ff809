//! References against plain counts: handles cloned, sent, nested, dropped at random; the seed printed.
//!
//! The model counts, for each object, the handles that this process holds by opening it, and those in messages that nobody has taken.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, Sender, channel};
use mp_shm::audit::Audit;
use mp_shm::codec::{Payload, encode};
use mp_shm::{Session, Shared};
use mp_spawn::Process;
use mp_testkit::{assert_no_backstop, watchdog};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const STEPS: u32 = 6_000;

type Number = Shared<AtomicU64>;
type Message = Vec<Option<(String, Vec<Number>)>>;

/// Handles that this process holds: of which object, and one for each time it was opened, with its clones.
type Held = Vec<(usize, Vec<Number>)>;

fn nest(random: &mut fastrand::Rng, numbers: Vec<Number>) -> Message {
    let mut message = Vec::new();
    let mut rest = numbers.into_iter().peekable();
    while rest.peek().is_some() {
        let some: Vec<Number> = rest.by_ref().take(random.usize(1..4)).collect();
        message.push(Some(("a name".repeat(random.usize(..40)), some)));
        message.resize_with(message.len() + random.usize(..2), || None);
    }
    message
}

fn flat(message: Message) -> Vec<Number> {
    message.into_iter().flatten().flat_map(|(_, numbers)| numbers).collect()
}

/// What the session says of each object that somebody still holds.
fn check(session: Session, held: &Held, queued: &VecDeque<Vec<usize>>, at: &str) {
    for (object, handles) in held {
        let own = held.iter().filter(|(other, _)| other == object).count();
        let sent = queued.iter().flatten().filter(|other| *other == object).count();
        let count = session.holders(handles[0].handle().offset).unwrap().of(0);
        assert_eq!(count as usize, own + sent, "{at}: object {object}");
        assert_eq!(handles[0].load(Ordering::Relaxed), *object as u64, "{at}: it is another object");
    }
}

#[test]
fn d9_references_are_counted_as_a_plain_model_counts_them() {
    let _watchdog = watchdog(Duration::from_secs(240));
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let session = Session::create().unwrap();
    let (sender, receiver) = mp_channel::channel_in::<Message>(session, 8).unwrap();
    let mut queued: VecDeque<Vec<usize>> = VecDeque::new();
    let mut held: Held = Vec::new();
    let mut objects = 0;
    for step in 0..STEPS {
        let at = format!("seed {seed}, step {step}");
        let any = random.usize(..held.len().max(1));
        match random.u32(..12) {
            0..3 if held.len() < 60 => {
                let number = Shared::with_in(session, |one: &mut AtomicU64| *one.get_mut() = objects as u64);
                held.push((objects, vec![number.unwrap()]));
                objects += 1;
            }
            3 if !held.is_empty() => {
                let clone = held[any].1[0].clone();
                held[any].1.push(clone);
            }
            4..6 if !held.is_empty() => {
                held[any].1.pop();
                if held[any].1.is_empty() {
                    held.swap_remove(any);
                }
            }
            6..9 if queued.len() < 8 && !held.is_empty() => {
                let chosen: Vec<usize> = (0..random.usize(..8)).map(|_| random.usize(..held.len())).collect();
                let numbers = chosen.iter().map(|&one| held[one].1[0].clone()).collect();
                sender.try_send(nest(&mut random, numbers)).unwrap();
                queued.push_back(chosen.iter().map(|&one| held[one].0).collect());
            }
            9..11 => match receiver.try_recv() {
                Ok(message) => {
                    let sent = queued.pop_front().expect("a message nobody sent");
                    let numbers = flat(message);
                    assert_eq!(numbers.len(), sent.len(), "{at}");
                    let taken = sent.into_iter().zip(numbers);
                    // Some are dropped at once.
                    held.extend(
                        taken.filter(|_| random.bool()).map(|(object, number)| (object, vec![number])),
                    );
                }
                Err(_) => assert!(queued.is_empty(), "{at}: a message was lost"),
            },
            _ if !held.is_empty() => {
                // A message that nobody decodes, and one that is decoded in part.
                let chosen: Vec<usize> = (0..3).map(|_| random.usize(..held.len())).collect();
                let numbers = chosen.iter().map(|&one| held[one].1[0].clone()).collect();
                let encoded = encode(session, &nest(&mut random, numbers), 0).unwrap();
                let message = Payload::in_block(encoded.into_block().unwrap());
                if random.bool() {
                    assert!(message.decode::<Vec<Option<(String, Vec<Shared<u32>>)>>>().is_err(), "{at}");
                }
            }
            _ => {}
        }
        while held.len() > 60 {
            held.swap_remove(random.usize(..held.len()));
        }
        check(session, &held, &queued, &at);
        if step % 500 == 0 {
            let audit = session.audit();
            let distinct: std::collections::BTreeSet<_> =
                held.iter().map(|(object, _)| object).chain(queued.iter().flatten()).collect();
            assert_eq!(audit.objects, distinct.len() + 1, "{at}: objects, and the channel");
            assert!(audit.counts_are_right, "{at}");
        }
    }
    drop((held, sender, receiver));
    let empty = Audit { processes: 1, counts_are_right: true, ..Audit::default() };
    assert_eq!(session.audit(), empty, "seed {seed}");
    assert_no_backstop();
}

/// Takes handles from the others, adds to what they name, and sends some on, some not.
fn pass_on((inbox, outbox, seed): (Receiver<Message>, Sender<Message>, u64)) -> u64 {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut kept: Vec<Number> = Vec::new();
    let mut added = 0;
    for _ in 0..STEPS / 10 {
        if let Ok(message) = inbox.recv_timeout(Duration::from_millis(1)) {
            for number in flat(message) {
                number.fetch_add(1, Ordering::Relaxed);
                added += 1;
                kept.push(number);
            }
        }
        random.shuffle(&mut kept);
        let some = kept.iter().take(random.usize(..4)).cloned().collect();
        let message = nest(&mut random, some);
        // Full is no harm.
        let _ = outbox.try_send(message);
        kept.truncate(random.usize(..20));
    }
    added
}

#[test]
fn d9_handles_passed_between_processes_name_what_they_named_and_are_given_back() {
    let _watchdog = watchdog(Duration::from_secs(240));
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let (to_one, one) = channel::<Message>(8).unwrap();
    let (to_two, two) = channel::<Message>(8).unwrap();
    let numbers: Vec<Number> = (0..20).map(|_| Shared::zeroed().unwrap()).collect();
    // Before there is anybody to fill the channel up.
    for some in numbers.chunks(4) {
        to_one.send(vec![Some((String::new(), some.to_vec()))]).unwrap();
    }
    let first = Process::spawn(pass_on, (one.clone(), to_two.clone(), seed)).unwrap();
    let second = Process::spawn(pass_on, (two.clone(), to_one.clone(), seed.wrapping_add(1))).unwrap();
    let added = first.join().unwrap() + second.join().unwrap();
    // What is left in the channels goes with them.
    drop((one, two, to_one, to_two));
    assert_eq!(
        numbers.iter().map(|number| number.load(Ordering::Relaxed)).sum::<u64>(),
        added,
        "seed {seed}"
    );
    let session = Session::current().unwrap();
    session.recover_dead();
    for number in &numbers {
        assert_eq!(
            session.holders(number.handle().offset).unwrap().of(0),
            1,
            "seed {seed}: only this one is left"
        );
    }
    assert!(session.audit().counts_are_right);
}
