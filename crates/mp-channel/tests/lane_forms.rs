//! The forms of a lane's calls: those that wait no longer than they are told, each when it can be done at once, also with no time left; when it
//! cannot, and then never early; and when the other side is gone. Then the loans of a lane, and its iterators.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::spsc::{self, Receiver, Sender};
use mp_channel::{Loan, Received, RecvError, SendError, SendFailure, channel};
use mp_testkit::proc::Task;
use mp_testkit::watchdog;
use std::fmt::Debug;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);

/// A form by its name; whether it waits, and then for [`SHORT`].
type Form<F> = (&'static str, bool, F);
type Item = (u64, Vec<String>);

fn item(number: u64) -> Item {
    // Some inline, some in blocks.
    (number, vec!["x".repeat(3); usize::try_from(number % 2 * 500).unwrap()])
}

/// What a call comes to; if it waits, not before its time is over.
fn in_time<R>((name, waits, _): &Form<impl Copy>, call: impl FnOnce() -> R) -> R {
    let start = Instant::now();
    let result = call();
    assert!(!waits || start.elapsed() >= SHORT, "{name} was early");
    result
}

fn soon() -> Instant {
    Instant::now() + SHORT
}

type SendRef = fn(&mut Sender<Item>, &Item) -> Result<(), SendFailure>;
type Receive<R> = fn(&mut Receiver<Item>) -> Result<R, RecvError>;
type ReceiveMany = fn(&mut Receiver<Item>, &mut Vec<Item>, usize) -> Result<usize, RecvError>;
type SendLoan = for<'a> fn(Loan<'a, u16>) -> Result<(), SendError<Loan<'a, u16>>>;

#[test]
fn b13_a_value_is_sent_by_reference_through_a_lane_in_every_form() {
    let _watchdog = watchdog(LONG);
    let forms: [Form<SendRef>; 5] = [
        ("try_send_ref", false, |sender, value| sender.try_send_ref(value)),
        ("send_ref_timeout", true, |sender, value| sender.send_ref_timeout(value, SHORT)),
        ("send_ref_deadline", true, |sender, value| sender.send_ref_deadline(value, soon())),
        ("send_ref_timeout of zero", false, |sender, value| sender.send_ref_timeout(value, Duration::ZERO)),
        ("send_ref_deadline now", false, |sender, value| sender.send_ref_deadline(value, Instant::now())),
    ];
    for form in forms {
        let (name, _, send) = form;
        for number in 0..2 {
            let (mut sender, mut receiver) = spsc::channel(1).unwrap();
            let value = item(number);
            send(&mut sender, &value).unwrap();
            let full = in_time(&form, || send(&mut sender, &value));
            assert!(matches!(full, Err(SendFailure::Full)), "{name}: {full:?}");
            assert_eq!(receiver.try_recv().unwrap(), value, "{name}");
            assert!(receiver.try_recv().unwrap_err().is_empty(), "{name}: what was refused is not there");
            // There is room again, and there is somebody who could take it.
            send(&mut sender, &value).unwrap();
            drop(receiver);
            let gone = send(&mut sender, &value);
            assert!(matches!(gone, Err(SendFailure::Disconnected)), "{name}: {gone:?}");
        }
    }
}

#[test]
fn b13_a_lanes_reference_that_waits_is_sent_when_there_is_room_and_told_when_nobody_is_left() {
    let _watchdog = watchdog(LONG);
    type Send = fn(&mut Sender<Item>) -> Result<(), SendFailure>;
    let forms: [Send; 2] = [
        |sender| sender.send_ref_timeout(&item(1), LONG),
        |sender| sender.send_ref_deadline(&item(1), Instant::now() + LONG),
    ];
    for send in forms {
        let (mut sender, mut receiver) = spsc::channel(1).unwrap();
        sender.send(item(0)).unwrap();
        while_blocked(|| send(&mut sender), || assert_eq!(receiver.recv().unwrap(), item(0))).unwrap();
        let gone = while_blocked(|| send(&mut sender), || drop(receiver));
        assert!(matches!(gone, Err(SendFailure::Disconnected)), "{gone:?}");
    }
}

/// What `waits` comes to in a thread of its own, when `then` is done after it has fallen asleep.
fn while_blocked<R: Send>(waits: impl FnOnce() -> R + Send, then: impl FnOnce()) -> R {
    let (tasks, task) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            tasks.send(Task::current()).unwrap();
            waits()
        });
        task.recv().unwrap().wait_until_blocked();
        then();
        waiting.join().unwrap()
    })
}

/// What every form of receiving does with a channel that is ready, empty, or left by all senders. `receive` takes one message.
fn receives<R: Debug>(forms: &[Form<Receive<R>>], number: fn(R) -> Item) {
    for form in forms {
        let (name, _, receive) = *form;
        let (mut sender, mut receiver) = spsc::channel(4).unwrap();
        let empty = in_time(form, || receive(&mut receiver)).unwrap_err();
        assert!(empty.is_empty(), "{name}: {empty}");
        (0..3).for_each(|number| sender.send(item(number)).unwrap());
        assert_eq!(number(receive(&mut receiver).unwrap()), item(0), "{name}");
        drop(sender);
        assert_eq!(number(receive(&mut receiver).unwrap()), item(1), "{name}: what is left is received");
        assert_eq!(number(receive(&mut receiver).unwrap()), item(2), "{name}");
        let gone = receive(&mut receiver).unwrap_err();
        assert!(gone.is_disconnected(), "{name}: {gone}");
    }
}

#[test]
fn b13_an_archive_is_received_from_a_lane_in_every_form() {
    let _watchdog = watchdog(LONG);
    receives::<Received<Item>>(
        &[
            ("try_recv_archived", false, Receiver::try_recv_archived),
            ("recv_archived_timeout", true, |receiver| receiver.recv_archived_timeout(SHORT)),
            ("recv_archived_deadline", true, |receiver| receiver.recv_archived_deadline(soon())),
            ("recv_archived_timeout of zero", false, |receiver| {
                receiver.recv_archived_timeout(Duration::ZERO)
            }),
            ("recv_archived_deadline now", false, |receiver| receiver.recv_archived_deadline(Instant::now())),
        ],
        |received| received.into_value().unwrap(),
    );
}

#[test]
fn b17_many_are_received_from_a_lane_in_every_form() {
    let _watchdog = watchdog(LONG);
    let forms: [Form<ReceiveMany>; 5] = [
        ("try_recv_many", false, |receiver, values, count| receiver.try_recv_many(values, count)),
        ("recv_many_timeout", true, |receiver, values, count| {
            receiver.recv_many_timeout(values, count, SHORT)
        }),
        ("recv_many_deadline", true, |receiver, values, count| {
            receiver.recv_many_deadline(values, count, soon())
        }),
        ("recv_many_timeout of zero", false, |receiver, values, count| {
            receiver.recv_many_timeout(values, count, Duration::ZERO)
        }),
        ("recv_many_deadline now", false, |receiver, values, count| {
            receiver.recv_many_deadline(values, count, Instant::now())
        }),
    ];
    for form in forms {
        let (name, _, receive) = form;
        let (mut sender, mut receiver) = spsc::channel(8).unwrap();
        let mut values = vec![item(9)];
        let empty = in_time(&form, || receive(&mut receiver, &mut values, 3)).unwrap_err();
        assert!(empty.is_empty(), "{name}: {empty}");
        assert_eq!(receive(&mut receiver, &mut values, 0).unwrap(), 0, "{name}: none are there at once");
        (0..5).for_each(|number| sender.send(item(number)).unwrap());
        assert_eq!(receive(&mut receiver, &mut values, 3).unwrap(), 3, "{name}: no more than asked for");
        assert_eq!(receive(&mut receiver, &mut values, 1).unwrap(), 1, "{name}");
        drop(sender);
        assert_eq!(
            receive(&mut receiver, &mut values, 3).unwrap(),
            1,
            "{name}: what is there, without waiting for more"
        );
        let gone = receive(&mut receiver, &mut values, 3).unwrap_err();
        assert!(gone.is_disconnected(), "{name}: {gone}");
        assert_eq!(values, [9, 0, 1, 2, 3, 4].map(item), "{name}: behind what was there, in order");
    }
}

#[test]
fn b13_what_waits_at_a_lane_gets_what_comes_and_is_told_when_the_sender_is_gone() {
    let _watchdog = watchdog(LONG);
    let forms: [Receive<Item>; 4] = [
        |receiver| receiver.recv_archived_timeout(LONG).map(|received| received.into_value().unwrap()),
        |receiver| {
            let received = receiver.recv_archived_deadline(Instant::now() + LONG);
            received.map(|received| received.into_value().unwrap())
        },
        |receiver| {
            let mut values = Vec::new();
            receiver.recv_many_timeout(&mut values, 9, LONG).map(|_| values.remove(0))
        },
        |receiver| {
            let mut values = Vec::new();
            receiver.recv_many_deadline(&mut values, 9, Instant::now() + LONG).map(|_| values.remove(0))
        },
    ];
    for receive in forms {
        let (mut sender, mut receiver) = spsc::channel(1).unwrap();
        for number in 0..2 {
            let received = while_blocked(|| receive(&mut receiver), || sender.send(item(number)).unwrap());
            assert_eq!(received.unwrap(), item(number));
        }
        let gone = while_blocked(|| receive(&mut receiver), || drop(sender)).unwrap_err();
        assert!(gone.is_disconnected(), "{gone}");
    }
}

#[test]
fn b13_a_lanes_loan_is_sent_in_every_form_or_comes_back() {
    let _watchdog = watchdog(LONG);
    let forms: [Form<SendLoan>; 5] = [
        ("try_send", false, |loan| loan.try_send()),
        ("send_timeout", true, |loan| loan.send_timeout(SHORT)),
        ("send_deadline", true, |loan| loan.send_deadline(soon())),
        ("send_timeout of zero", false, |loan| loan.send_timeout(Duration::ZERO)),
        ("send_deadline now", false, |loan| loan.send_deadline(Instant::now())),
    ];
    for form in forms {
        let (name, _, send) = form;
        let (mut sender, mut receiver) = spsc::channel::<Vec<u16>>(1).unwrap();
        send(lend(&mut sender, 1)).unwrap();
        let loan = lend(&mut sender, 2);
        let place = loan.as_ptr();
        let full = in_time(&form, || send(loan)).unwrap_err();
        assert!(full.is_full(), "{name}: {full}");
        let loan = full.into_value();
        assert!(loan.as_ptr() == place && is_whole(&loan, 2), "{name}: the very loan, as it was written");
        assert!(is_whole(&receiver.try_recv().unwrap(), 1), "{name}");
        send(loan).unwrap();
        let received = receiver.try_recv_archived().unwrap();
        assert!(received.as_slice().as_ptr() == place, "{name}: where it was written");
        assert!(is_whole(received.as_slice(), 2), "{name}");
        drop(receiver);
        let gone = send(lend(&mut sender, 3)).unwrap_err();
        assert!(gone.is_disconnected() && is_whole(&gone.into_value(), 3), "{name}");
    }
}

fn is_for_threads<T: Send + Sync>(one: T) -> T {
    one
}

fn lend(sender: &mut Sender<Vec<u16>>, first: u16) -> Loan<'_, u16> {
    let mut loan = sender.loan_slice(1000).unwrap();
    loan.iter_mut().zip(first..).for_each(|(place, number)| *place = number);
    is_for_threads(loan)
}

fn is_whole(words: &[u16], first: u16) -> bool {
    words.iter().copied().eq(first..first + 1000)
}

#[test]
fn b13_slices_go_through_a_lane_as_they_were_lent_or_copied() {
    let _watchdog = watchdog(LONG);
    let (mut sender, mut receiver) = spsc::channel::<Vec<f64>>(4).unwrap();
    let mut loan = sender.loan_slice(100).unwrap();
    loan.fill(0.5);
    loan.truncate(40);
    loan.send().unwrap();
    sender.loan_uninit(8).unwrap().write(&[1.0, 2.0]).send().unwrap();
    sender.send_slice(&[3.0; 700]).unwrap();
    sender.send_slice(&[]).unwrap();
    let mut received = Vec::new();
    assert_eq!(receiver.recv_many(&mut received, 4).unwrap(), 4);
    assert_eq!(received, [vec![0.5; 40], vec![1.0, 2.0], vec![3.0; 700], vec![]]);
    // A loan that is not sent is no message.
    drop(sender.loan_slice(9).unwrap());
    assert!(receiver.try_recv().unwrap_err().is_empty());
    let too_large = sender.loan_slice(usize::MAX);
    assert!(matches!(too_large, Err(SendFailure::Session(_))), "{too_large:?}");
    drop(receiver);
    assert!(matches!(sender.send_slice(&[4.0]), Err(SendFailure::Disconnected)));
}

#[test]
fn b17_a_loan_of_an_end_that_is_also_in_a_message_comes_back() {
    let _watchdog = watchdog(LONG);
    let (mut sender, mut receiver) = spsc::channel::<Vec<u16>>(2).unwrap();
    let (carrier, carried) = channel::<Sender<Vec<u16>>>(1).unwrap();
    carrier.send_ref(&sender).unwrap();
    let shared = lend(&mut sender, 1).try_send().unwrap_err();
    assert!(matches!(shared.failure, SendFailure::Shared), "{shared}");
    assert!(is_whole(&shared.into_value(), 1));
    drop((carrier, carried));
    lend(&mut sender, 2).try_send().unwrap();
    assert!(is_whole(&receiver.recv().unwrap(), 2));
}

#[test]
fn b17_a_lanes_receiver_is_an_iterator_that_ends_with_the_sender() {
    let _watchdog = watchdog(LONG);
    let (mut sender, receiver) = spsc::channel(2).unwrap();
    let sending = std::thread::spawn(move || sender.send_all((0..100).map(item)).unwrap());
    assert!(receiver.into_iter().eq((0..100).map(item)));
    assert_eq!(sending.join().unwrap(), 100);

    let (mut sender, mut receiver) = spsc::channel(4).unwrap();
    (0..3).for_each(|number| sender.send(item(number)).unwrap());
    assert!(receiver.try_iter().eq((0..3).map(item)), "what is there, without waiting for more");
    sender.send(item(3)).unwrap();
    drop(receiver.into_iter());
    assert!(sender.try_send(item(4)).unwrap_err().is_disconnected(), "one that is dropped was the receiver");
}
