//! SIGKILL at every named crash point of the protocols, one after the other: survivors finish, counts are right, nothing is left.
//!
//! Build with `RUSTFLAGS="--cfg mp_crash"`. The points are read from the sources, so a new one is covered by being there.
#![cfg(mp_crash)]
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "a child finds the point at which it dies in its environment")]

use mp_channel::{Receiver, Select, Sender, broadcast, channel, growing_channel, joinable, spsc};
use mp_shm::Session;
use mp_spawn::Process;
use std::time::Duration;

mod points;

/// A number, small or large content, and now and then an end of a channel.
type Item = (u64, Vec<u64>, Option<Sender<u64>>);

/// Points that only a race reaches: somebody else must be at the lock, or asleep, at that moment; or what is passed once, and another
/// party may have been there first.
const RACES: &[&str] = &[
    "block.span_cut",
    "lock.taken_contended",
    "lock.before_sleep",
    "lock.woken",
    "unlock.before_wake",
    "unlock.nobody",
    "notify.before_wake",
    "slot.spare_taken",
    "death.before_wake",
    "recover.begin",
    "recover.swept",
    "recover.freed",
    "recover.counted",
    "recover.thread_freed",
    "recover.process_freed",
    "recover.before_advance",
    "block.freed",
    "block.run_emptied",
];

fn item(number: u64) -> Item {
    let len = match number {
        // More than a span.
        _ if number.is_multiple_of(50) => 40_000,
        _ if number.is_multiple_of(3) => 400,
        _ => 3,
    };
    let end = number.is_multiple_of(5).then(|| channel(1).unwrap().0);
    (number, vec![number; len], end)
}

/// The ends of a short channel, those of one that grows, and how many rounds to do.
type Part = ((Sender<Item>, Receiver<Item>), (Sender<Item>, Receiver<Item>), u64);

fn check((number, content, _): &Item) -> Result<(), String> {
    if content.iter().any(|one| one != number) { Err(format!("message {number} is corrupt")) } else { Ok(()) }
}

/// Sends and receives in turn, never waiting for long, so that every interleaving of the parties comes to an end.
fn take_part(((items, items_out), (grown, grown_out), rounds): Part) -> Result<u64, String> {
    let mut received = 0;
    // On this one nothing ever arrives: a way to be asleep for certain.
    let (_quiet, silent) = channel::<u64>(1).map_err(|error| error.to_string())?;
    let (bells, bells_out) = channel::<u64>(1).map_err(|error| error.to_string())?;
    // Nobody takes what is offered here.
    let (offers, _nobody) = channel::<Item>(0).map_err(|error| error.to_string())?;
    // Where blocks come back while others are on their way.
    let (bulk, bulk_out) = channel::<Vec<u64>>(4).map_err(|error| error.to_string())?;
    let (news, mut news_out) = broadcast::channel::<Vec<u64>>(2).map_err(|error| error.to_string())?;
    let (tasks, tasks_out) = joinable::channel::<u64>(4).map_err(|error| error.to_string())?;
    let mut select = Select::new();
    select.end(&items_out);
    let (mut lane, mut lane_out) = spsc::channel::<Item>(2).map_err(|error| error.to_string())?;
    // What is in this one leaves it several at once.
    let (mut plain, mut plain_out) = spsc::channel::<[u8; 8]>(16).map_err(|error| error.to_string())?;
    for round in 0..rounds {
        if round.is_multiple_of(100)
            && !silent.recv_timeout(Duration::from_millis(1)).is_err_and(|error| error.is_empty())
        {
            return Err("something arrived where nothing was sent".to_owned());
        }
        if round.is_multiple_of(50) {
            // The bell that this arms is rung by the send below, however the wait ended.
            let mut select = Select::new();
            select.end(&bells_out);
            if !select.ready_timeout(Duration::from_millis(1)).is_err_and(|error| error.is_timeout()) {
                return Err("something was ready where nothing was sent".to_owned());
            }
            bells.try_send(round).map_err(|error| error.to_string())?;
            bells_out.try_recv().map_err(|error| error.to_string())?;
        }
        if round.is_multiple_of(50) && !offers.try_send(item(round)).is_err_and(|error| error.is_full()) {
            return Err("somebody took what was offered to nobody".to_owned());
        }
        if round.is_multiple_of(10) {
            // Large enough to go back to the sender at once.
            for _ in 0..3 {
                bulk.try_send(vec![round; 1200]).map_err(|error| error.to_string())?;
            }
            if bulk_out.try_iter().flatten().any(|word| word != round) {
                return Err("other words came out of the bulk".to_owned());
            }
            for _ in 0..3 {
                news.send(&vec![round; 400]).map_err(|error| error.to_string())?;
            }
            // One is missed, of the others one is left for certain.
            while !news_out.try_recv().is_err_and(|error| error.is_empty()) {}
            tasks.try_send(round).map_err(|error| error.to_string())?;
            tasks_out.try_recv().map_err(|error| error.to_string())?.done();
            tasks.join().map_err(|error| error.to_string())?;
            let _ready_or_not = select.ready_timeout(Duration::from_millis(1));
        }
        lane.try_send(item(round)).map_err(|error| error.to_string())?;
        if lane_out.try_recv().map_err(|error| error.to_string())?.0 != round {
            return Err("another message came out of the lane".to_owned());
        }
        let both = [round, round + 1].map(u64::to_ne_bytes);
        plain.send_all(both).map_err(|error| error.to_string())?;
        let mut run = Vec::new();
        plain_out.try_recv_many(&mut run, 3).map_err(|error| error.to_string())?;
        if run != both {
            return Err("other messages came out of the lane".to_owned());
        }
        if round.is_multiple_of(20) {
            // One of this party's own grows for certain, the others' perhaps at the same time as somebody else finds it full.
            let (growing, growing_out) =
                growing_channel::<Item>(1, 1 << 14).map_err(|error| error.to_string())?;
            for number in 0..6 {
                growing.try_send(item(round + number)).map_err(|error| error.to_string())?;
                grown
                    .try_send(item(round + number))
                    .or_else(|error| if error.is_full() { Ok(()) } else { Err(error.to_string()) })?;
            }
            for number in 0..6 {
                let received = growing_out.try_recv().map_err(|error| error.to_string())?;
                if received.0 != round + number {
                    return Err("another message came out of what has grown".to_owned());
                }
                check(&received)?;
            }
            grown_out.try_iter().take(8).try_for_each(|item| check(&item))?;
        }
        match items.send_timeout(item(round), Duration::from_millis(2)) {
            Ok(()) => {}
            Err(error) if error.is_full() => {}
            Err(error) => return Err(error.to_string()),
        }
        match items_out.recv_timeout(Duration::from_millis(1)) {
            Ok(item) => {
                check(&item)?;
                received += 1;
            }
            Err(error) if error.is_empty() => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(received)
}

fn die_at(point: &str, nth: u32) -> bool {
    let (items, items_out) = channel::<Item>(2).unwrap();
    let (grown, grown_out) = growing_channel::<Item>(1, 1 << 16).unwrap();
    let part = |rounds: u64| ((items.clone(), items_out.clone()), (grown.clone(), grown_out.clone()), rounds);
    let start = |rounds: u64| Process::spawn(take_part, part(rounds)).unwrap();
    // This process has read the variable by now, and not found it; only children see it.
    // SAFETY: no other thread of this process reads or writes the environment: the one test here runs alone, and the thread that
    // stands for the process is parked.
    unsafe { std::env::set_var("MP_CRASH", format!("{point}:{nth}")) };
    let victim = start(400);
    // SAFETY: as above.
    unsafe { std::env::remove_var("MP_CRASH") };
    let survivor = start(400);
    let mine = take_part(part(100));
    assert!(mine.is_ok(), "{point}: {mine:?}");
    let (victim_ended, survivor_ended) = (
        victim.wait_timeout(Duration::from_secs(60)).unwrap(),
        survivor.wait_timeout(Duration::from_secs(60)).unwrap(),
    );
    if !victim_ended || !survivor_ended {
        victim.kill().unwrap();
        survivor.kill().unwrap();
        panic!("{point}:{nth}: victim ended: {victim_ended}, survivor ended: {survivor_ended}");
    }
    let died = match victim.join() {
        Ok(received) => {
            assert!(received.is_ok(), "{point}: {received:?}");
            false
        }
        Err(error) => {
            assert_eq!(error.signal(), Some(9), "{point}: {error}");
            true
        }
    };
    let survived = survivor.join();
    assert!(matches!(survived, Ok(Ok(_))), "{point}: {survived:?}");
    drop((items, items_out, grown, grown_out));
    let audit = Session::current().unwrap().audit();
    assert!(
        audit.processes == 1
            && audit.objects == 0
            && audit.blocks == 0
            && audit.references == 0
            && audit.counts_are_right,
        "{point}:{nth}: left behind: {audit:?}"
    );
    assert_eq!(Session::current().unwrap().free_memory_is_zero().ok(), Some(true), "{point}:{nth}");
    died
}

#[test]
fn b7_b8_a_kill_at_every_crash_point_harms_nobody_else() {
    // Passes a first point, so that this process reads the variable before any child is given it.
    drop(channel::<u64>(1).unwrap());
    let points = points::of_channels();
    let mut never = Vec::new();
    for point in &points {
        let died = [1, 2, 7].map(|nth| die_at(point, nth));
        if !died.contains(&true) && !RACES.contains(&point.as_str()) {
            never.push(point);
        }
    }
    assert!(never.is_empty(), "never passed: {never:?}");
}
