//! Waiting for several things at once, asleep.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::select::{Interest, SelectError};
use mp_channel::{Receiver, Select, Sender, channel, select, spsc};
use mp_shm::Shared;
use mp_spawn::Process;
use mp_sync::Event;
use mp_testkit::proc::Task;
use mp_testkit::{assert_no_backstop, watchdog};
use std::io::Write;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);

#[test]
fn b15_each_kind_of_member_is_ready_when_it_is_and_not_before() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<u64>(1).unwrap();
    let (mut lane, mut lane_out) = spsc::channel::<u64>(1).unwrap();
    let event = Event::shared().unwrap();
    let (pipe_out, mut pipe) = std::io::pipe().unwrap();
    let mut select = Select::new();
    assert!(matches!(select.ready(), Err(SelectError::Nothing)));
    let numbers = [
        select.end(&receiver),
        select.end(&lane_out),
        select.waitable(&*event),
        select.fd(&pipe_out, Interest::Read),
    ];
    assert!(select.try_ready().unwrap_err().is_timeout());
    let start = Instant::now();
    assert!(select.ready_timeout(SHORT).unwrap_err().is_timeout());
    assert!(start.elapsed() >= SHORT, "early");
    let later = Instant::now() + SHORT;
    let time = select.at(later);
    assert_eq!(select.ready().unwrap(), time);
    assert!(Instant::now() >= later, "early");
    assert!(select.remove(time) && !select.remove(time));

    sender.send(1).unwrap();
    assert_eq!(select.ready().unwrap(), numbers[0]);
    receiver.recv().unwrap();
    lane.send(2).unwrap();
    assert_eq!(select.ready().unwrap(), numbers[1]);
    lane_out.recv().unwrap();
    event.set();
    assert_eq!(select.ready().unwrap(), numbers[2]);
    event.clear();
    select.remove(numbers[2]);
    pipe.write_all(b"x").unwrap();
    assert_eq!(select.ready().unwrap(), numbers[3]);
    select.remove(numbers[3]);
    assert!(select.try_ready().unwrap_err().is_timeout());
    drop(sender);
    assert_eq!(select.ready().unwrap(), numbers[0], "the other end is gone");
    select.remove(numbers[0]);
    drop(lane);
    assert_eq!(select.ready().unwrap(), numbers[1]);
}

#[test]
fn b15_senders_are_ready_when_there_is_room() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<u64>(2).unwrap();
    let (mut lane, mut lane_out) = spsc::channel::<u64>(1).unwrap();
    let mut select = Select::new();
    let one = select.end(&sender);
    assert_eq!(select.ready().unwrap(), one);
    sender.send(1).unwrap();
    sender.send(2).unwrap();
    lane.send(1).unwrap();
    let two = select.end(&lane);
    assert!(select.ready_timeout(SHORT).unwrap_err().is_timeout());
    lane_out.recv().unwrap();
    assert_eq!(select.ready().unwrap(), two);
    lane.send(2).unwrap();
    receiver.recv().unwrap();
    assert_eq!(select.ready().unwrap(), one);
    sender.send(3).unwrap();
    drop(receiver);
    assert_eq!(select.ready().unwrap(), one, "no receiver is left");
}

#[test]
fn b15_members_that_are_ready_take_turns() {
    let _watchdog = watchdog(LONG);
    let channels: Vec<_> = (0..3).map(|_| channel::<u64>(1).unwrap()).collect();
    let mut select = Select::new();
    for (sender, receiver) in &channels {
        sender.send(1).unwrap();
        select.end(receiver);
    }
    let turns: Vec<usize> = (0..6).map(|_| select.ready().unwrap()).collect();
    assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
}

type Asked = (Receiver<u64>, Receiver<u64>, Shared<Event>, Sender<(u8, u64)>);

/// Says what came first, until both channels are closed.
fn tell((one, two, event, told): Asked) {
    let (mut one_open, mut two_open) = (true, true);
    while one_open || two_open {
        let what = select! {
            recv(one) -> number => match number {
                Ok(number) => (1, number),
                Err(_) => { one_open = false; if two_open { (3, 0) } else { break } },
            },
            recv(two) -> number => match number {
                Ok(number) => (2, number),
                Err(_) => { two_open = false; if one_open { (3, 0) } else { break } },
            },
            wait(*event) => { event.clear(); (4, 0) },
        };
        if what.0 != 3 {
            told.send(what).unwrap();
        } else if !one_open {
            // What is closed is ready for ever: go on with the other.
            while let Ok(number) = two.recv() {
                told.send((2, number)).unwrap();
            }
            break;
        } else {
            while let Ok(number) = one.recv() {
                told.send((1, number)).unwrap();
            }
            break;
        }
    }
    assert_no_backstop();
}

#[test]
fn b15_a_sleeping_select_is_woken_by_other_processes() {
    let _watchdog = watchdog(LONG);
    let (one, one_out) = channel::<u64>(1).unwrap();
    let (two, two_out) = channel::<u64>(1).unwrap();
    let (told, told_out) = channel::<(u8, u64)>(1).unwrap();
    let event = Event::shared().unwrap();
    let child = Process::spawn(tell, (one_out, two_out, event.clone(), told)).unwrap();
    let sleeper = Task::leader(child.pid());
    for number in 0..200 {
        if number % 20 == 0 {
            sleeper.wait_until_blocked();
        }
        match number % 3 {
            0 => {
                one.send(number).unwrap();
                assert_eq!(told_out.recv().unwrap(), (1, number));
            }
            1 => {
                two.send(number).unwrap();
                assert_eq!(told_out.recv().unwrap(), (2, number));
            }
            _ => {
                event.set();
                assert_eq!(told_out.recv().unwrap(), (4, 0));
            }
        }
    }
    drop(one);
    two.send(7).unwrap();
    drop(two);
    assert_eq!(told_out.recv().unwrap(), (2, 7));
    child.join().unwrap();
    assert!(told_out.recv().unwrap_err().is_disconnected());
    assert_no_backstop();
}

fn keep(_ends: (Sender<u64>, Receiver<u64>)) {
    loop {
        std::thread::park();
    }
}

#[test]
fn b15_a_select_notices_that_the_other_ends_were_killed() {
    let _watchdog = watchdog(LONG);
    let (kept, receiver) = channel::<u64>(1).unwrap();
    let (sender, kept_too) = channel::<u64>(1).unwrap();
    let child = Process::spawn(keep, (kept, kept_too)).unwrap();
    sender.send(1).unwrap();
    let waiter = std::thread::spawn(move || {
        let mut select = Select::new();
        select.end(&receiver);
        select.end(&sender);
        let first = select.ready().unwrap();
        select.remove(first);
        (first, select.ready().unwrap())
    });
    child.kill().unwrap();
    let (first, second) = waiter.join().unwrap();
    assert_eq!(first + second, 1, "both are ready, each once");
    assert_eq!(child.join().unwrap_err().signal(), Some(9));
}

#[test]
fn b15_one_select_mixes_channels_with_descriptors_and_is_woken_by_either() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<u64>(1).unwrap();
    let (pipe_out, mut pipe) = std::io::pipe().unwrap();
    let event = Event::shared().unwrap();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let waiting = event.clone();
    let waiter = std::thread::spawn(move || {
        ready.send(Task::current()).unwrap();
        let mut said = Vec::new();
        for _ in 0..30 {
            said.push(select! {
                recv(receiver) -> number => number.unwrap(),
                fd(pipe_out, Interest::Read) => {
                    std::io::Read::read_exact(&mut &pipe_out, &mut [0]).unwrap();
                    100
                },
                wait(*waiting) => { waiting.clear(); 200 },
                after(LONG) => 300,
            });
            ready.send(Task::current()).unwrap();
        }
        said
    });
    for turn in 0..30 {
        let task = is_ready.recv().unwrap();
        if turn % 5 == 0 {
            task.wait_until_blocked();
        }
        match turn % 3 {
            0 => sender.send(turn).unwrap(),
            1 => pipe.write_all(b"x").unwrap(),
            _ => event.set(),
        }
    }
    let expected: Vec<u64> =
        (0..30).map(|turn| [turn, 100, 200][usize::try_from(turn % 3).unwrap()]).collect();
    assert_eq!(waiter.join().unwrap(), expected);
    assert_no_backstop();
}

#[test]
fn b15_the_macro_does_one_operation_and_keeps_what_it_could_not_send() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<String>(1).unwrap();
    let turn = |text: &str| {
        select! {
            send(sender, text.to_owned()) -> result => { result.unwrap(); "sent".to_owned() },
            default => "full".to_owned(),
        }
    };
    assert_eq!(turn("a"), "sent");
    assert_eq!(turn("b"), "full");
    let take = || {
        select! {
            recv(receiver) -> text => text.unwrap(),
            default => "empty".to_owned(),
        }
    };
    assert_eq!(take(), "a");
    assert_eq!(take(), "empty");
    // `break` and `continue` in a branch are the caller's.
    let mut rounds = 0;
    loop {
        rounds += 1;
        select! {
            recv(receiver) -> _text => unreachable!(),
            after(Duration::from_millis(1)) => if rounds == 3 { break } else { continue },
        }
    }
    let (mut lane, mut lane_out) = spsc::channel::<u64>(1).unwrap();
    select! { send(lane, 4) -> result => result.unwrap() }
    assert_eq!(select! { recv(lane_out) -> number => number.unwrap() }, 4);
    drop(receiver);
    let error = select! { send(sender, "c".to_owned()) -> result => result.unwrap_err() };
    assert!(error.is_disconnected());
    assert_eq!(error.into_value(), "c");
}

#[test]
fn b15_several_selects_over_the_same_channels_share_the_messages() {
    let _watchdog = watchdog(LONG);
    let channels: Vec<_> = (0..3).map(|_| channel::<u64>(2).unwrap()).collect();
    let receivers: Vec<_> = channels.iter().map(|(_, receiver)| receiver.clone()).collect();
    let takers: Vec<_> = (0..3)
        .map(|_| {
            let receivers = receivers.clone();
            std::thread::spawn(move || {
                let mut taken = Vec::new();
                let mut select = Select::new();
                receivers.iter().for_each(|receiver| {
                    select.end(receiver);
                });
                while !select.is_empty() {
                    let number = select.ready().unwrap();
                    match receivers[number].try_recv() {
                        Ok(value) => taken.push(value),
                        Err(error) if error.is_empty() => {}
                        Err(_) => drop(select.remove(number)),
                    }
                }
                taken
            })
        })
        .collect();
    drop(receivers);
    let senders: Vec<_> = (0..)
        .zip(channels)
        .map(|(number, (sender, _))| {
            std::thread::spawn(move || (0..2000).for_each(|n| sender.send(number * 2000 + n).unwrap()))
        })
        .collect();
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    let mut all: Vec<u64> = takers.into_iter().flat_map(|taker| taker.join().unwrap()).collect();
    all.sort_unstable();
    assert_eq!(all, (0..6000).collect::<Vec<_>>());
    assert_no_backstop();
}

#[test]
fn b15_a_rendezvous_can_be_selected_from_both_sides() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<u64>(0).unwrap();
    let mut select = Select::new();
    select.end(&sender);
    assert!(select.ready_timeout(SHORT).unwrap_err().is_timeout(), "nobody waits for a message");
    let taker = std::thread::spawn(move || (0..10).map(|_| receiver.recv().unwrap()).collect::<Vec<_>>());
    for number in 0..10 {
        select! { send(sender, number) -> result => result.unwrap() }
    }
    assert_eq!(taker.join().unwrap(), (0..10).collect::<Vec<_>>());
    assert_no_backstop();
}

#[test]
fn b15_a_rendezvous_needs_one_who_does_not_select() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<u64>(0).unwrap();
    let (end, ended) = channel::<()>(1).unwrap();
    let (tasks, task) = std::sync::mpsc::channel();
    let receiving = std::thread::spawn(move || {
        tasks.send(Task::current()).unwrap();
        let mut select = Select::new();
        select.end(&receiver);
        let ended = select.end(&ended);
        assert_eq!(select.ready().unwrap(), ended, "nobody sends but by select");
        receiver.recv().unwrap()
    });
    let task = task.recv().unwrap();
    task.wait_until_blocked();
    let mut select = Select::new();
    select.end(&sender);
    assert!(select.ready_timeout(SHORT).unwrap_err().is_timeout(), "one who selects is not seen");
    end.send(()).unwrap();
    select.ready().unwrap();
    sender.send(1).unwrap();
    assert_eq!(receiving.join().unwrap(), 1);
}

#[test]
fn b15_an_end_counts_as_held_while_a_select_has_it() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<u64>(4).unwrap();
    let (mut lane, lane_out) = spsc::channel::<u64>(4).unwrap();
    let mut select = Select::new();
    let ends = [select.end(&receiver), select.end(&lane_out)];
    drop((receiver, lane_out));
    sender.try_send(1).unwrap();
    lane.try_send(1).unwrap();
    assert!(ends.into_iter().all(|end| select.remove(end)));
    assert!(sender.try_send(2).unwrap_err().is_disconnected());
    assert!(lane.try_send(2).unwrap_err().is_disconnected());
}

/// One that waits at a lane, a rendezvous and a channel until all three are gone; gives how many messages it had of each.
fn wait_for_all(ends: (Sender<()>, spsc::Receiver<u64>, Receiver<u64>, Receiver<u64>)) -> [u64; 3] {
    let (ready, mut lane, rendezvous, queue) = ends;
    ready.send(()).unwrap();
    let mut select = Select::new();
    select.end(&lane);
    select.end(&rendezvous);
    select.end(&queue);
    let mut counts = [0; 3];
    while let Ok(number) = select.ready() {
        let result = match number {
            0 => lane.try_recv(),
            1 => rendezvous.try_recv(),
            _ => queue.try_recv(),
        };
        match result {
            Ok(_) => counts[number] += 1,
            Err(error) if error.is_disconnected() => _ = select.remove(number),
            Err(error) => assert!(error.is_empty(), "{error}"),
        }
    }
    assert!(select.is_empty());
    assert_no_backstop();
    counts
}

fn hold<E>(_end: E) {
    loop {
        std::thread::park();
    }
}

#[test]
fn b9_a_sleeping_select_learns_that_senders_were_dropped_or_killed() {
    let _watchdog = watchdog(LONG);
    for killed in [false, true] {
        let (ready, is_ready) = channel(1).unwrap();
        let (lane, lane_out) = spsc::channel::<u64>(1).unwrap();
        let (rendezvous, rendezvous_out) = channel::<u64>(0).unwrap();
        let (queue, queue_out) = channel::<u64>(1).unwrap();
        let waiter = Process::spawn(wait_for_all, (ready, lane_out, rendezvous_out, queue_out)).unwrap();
        is_ready.recv().unwrap();
        let task = Task::leader(waiter.pid());
        if killed {
            let holders = [
                Process::spawn(hold, lane).unwrap(),
                Process::spawn(hold, rendezvous).unwrap(),
                Process::spawn(hold, queue).unwrap(),
            ];
            for holder in holders {
                task.wait_until_blocked();
                holder.kill().unwrap();
                assert_eq!(holder.join().unwrap_err().signal(), Some(9));
            }
        } else {
            task.wait_until_blocked();
            drop(lane);
            task.wait_until_blocked();
            drop(rendezvous);
            task.wait_until_blocked();
            drop(queue);
        }
        assert_eq!(waiter.join().unwrap(), [0; 3]);
    }
    assert_no_backstop();
}

#[test]
fn b9_a_sleeping_select_learns_that_receivers_were_dropped_or_killed() {
    let _watchdog = watchdog(LONG);
    for killed in [false, true] {
        let (mut lane, lane_out) = spsc::channel::<u64>(1).unwrap();
        let (queue, queue_out) = channel::<u64>(1).unwrap();
        lane.send(1).unwrap();
        queue.send(1).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let wait = move || {
            tell.send(Task::current()).unwrap();
            let mut select = Select::new();
            select.end(&lane);
            select.end(&queue);
            let first = select.ready().unwrap();
            select.remove(first);
            let second = select.ready().unwrap();
            assert!(lane.try_send(2).unwrap_err().is_disconnected());
            assert!(queue.try_send(2).unwrap_err().is_disconnected());
            [first, second]
        };
        let order = if killed {
            let first = Process::spawn(hold, queue_out).unwrap();
            let second = Process::spawn(hold, lane_out).unwrap();
            let waiter = std::thread::spawn(wait);
            let task = told.recv().unwrap();
            for child in [first, second] {
                task.wait_until_blocked();
                child.kill().unwrap();
                assert_eq!(child.join().unwrap_err().signal(), Some(9));
            }
            waiter.join().unwrap()
        } else {
            let waiter = std::thread::spawn(wait);
            let task = told.recv().unwrap();
            task.wait_until_blocked();
            drop(queue_out);
            task.wait_until_blocked();
            drop(lane_out);
            waiter.join().unwrap()
        };
        assert_eq!(order, [1, 0]);
    }
    assert_no_backstop();
}

/// Fills a lane and a channel, and ends.
fn fill((mut lane, queue): (spsc::Sender<u64>, Sender<Vec<u64>>)) {
    (0..8).for_each(|number| lane.send(number).unwrap());
    (0..8).for_each(|number| queue.send(vec![number; 400]).unwrap());
}

#[test]
fn b10_a_select_drains_what_a_joined_producer_left() {
    let _watchdog = watchdog(LONG);
    let (lane, mut lane_out) = spsc::channel(8).unwrap();
    let (queue, queue_out) = channel(8).unwrap();
    Process::spawn(fill, (lane, queue)).unwrap().join().unwrap();
    let mut select = Select::new();
    select.end(&lane_out);
    select.end(&queue_out);
    let (mut numbers, mut lens) = (Vec::new(), Vec::new());
    while let Ok(number) = select.ready() {
        let ended = if number == 0 {
            lane_out.try_recv().map(|number| numbers.push(number)).err()
        } else {
            queue_out.try_recv().map(|words| lens.push((words[0], words.len()))).err()
        };
        if let Some(error) = ended {
            assert!(error.is_disconnected(), "{error}");
            select.remove(number);
        }
    }
    assert_eq!(numbers, (0..8).collect::<Vec<_>>());
    assert_eq!(lens, (0..8).map(|number| (number, 400)).collect::<Vec<_>>());
    assert_no_backstop();
}

#[test]
fn b15_more_waitables_than_one_sleep_can_watch_are_all_noticed() {
    let _watchdog = watchdog(LONG);
    let events: Vec<_> = (0..100).map(|_| Event::shared().unwrap()).collect();
    let waiting: Vec<_> = events.clone();
    let (tell, told) = std::sync::mpsc::channel();
    let waiter = std::thread::spawn(move || {
        let mut select = Select::new();
        waiting.iter().for_each(|event| {
            select.waitable(&**event);
        });
        tell.send(Task::current()).unwrap();
        select.ready().unwrap()
    });
    told.recv().unwrap().wait_until_blocked();
    events[99].set();
    assert_eq!(waiter.join().unwrap(), 99);
    assert_no_backstop();
}
