//! Sending, receiving and selecting as futures, under two runtimes and without one.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::select::Interest;
use mp_channel::{Receiver, Select, Sender, channel, spsc};
use mp_spawn::Process;
use mp_sync::Event;
use mp_testkit::{assert_no_backstop, watchdog};
use std::future::Future;
use std::io::Write;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

fn echo((inbox, outbox): (Receiver<u64>, Sender<u64>)) {
    for number in inbox.iter() {
        if outbox.send(number + 1).is_err() {
            break;
        }
    }
    assert_no_backstop();
}

async fn converse(rounds: u64) {
    let (ask, asked) = channel::<u64>(4).unwrap();
    let (answer, answers) = channel::<u64>(4).unwrap();
    let child = Process::spawn(echo, (asked, answer)).unwrap();
    for number in 0..rounds {
        ask.send_async(number).await.unwrap();
        assert_eq!(answers.recv_async().await.unwrap(), number + 1);
    }
    drop(ask);
    assert!(answers.recv_async().await.unwrap_err().is_disconnected());
    child.join().unwrap();
}

#[test]
fn b15_futures_work_under_tokio() {
    let _watchdog = watchdog(LONG);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    runtime.block_on(async {
        let talks: Vec<_> = (0..3).map(|_| tokio::spawn(converse(200))).collect();
        for talk in talks {
            talk.await.unwrap();
        }
        // A receive that is given up loses nothing.
        let (sender, receiver) = channel::<u64>(4).unwrap();
        for number in 0..50 {
            let waited = tokio::time::timeout(Duration::from_millis(1), receiver.recv_async()).await;
            assert!(waited.is_err());
            sender.send(number).unwrap();
            assert_eq!(receiver.recv_async().await.unwrap(), number);
        }
    });
    assert_no_backstop();
}

#[test]
fn b15_futures_work_under_smol() {
    let _watchdog = watchdog(LONG);
    smol::block_on(async {
        let talks: Vec<_> = (0..3).map(|_| smol::spawn(converse(200))).collect();
        for talk in talks {
            talk.await;
        }
        let (mut lane, mut lane_out) = spsc::channel::<String>(2).unwrap();
        let writer = smol::spawn(async move {
            for number in 0..500 {
                lane.send_async(format!("{number}")).await.unwrap();
            }
        });
        for number in 0..500 {
            assert_eq!(lane_out.recv_async().await.unwrap(), format!("{number}"));
        }
        writer.await;
        assert!(lane_out.recv_async().await.unwrap_err().is_disconnected());
    });
    assert_no_backstop();
}

#[test]
fn b15_a_stream_ends_with_its_senders() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<u64>(2).unwrap();
    let writer = std::thread::spawn(move || sender.send_all(0..100).unwrap());
    let all: Vec<u64> = smol::block_on(smol::stream::StreamExt::collect(receiver.stream()));
    assert_eq!(all, (0..100).collect::<Vec<_>>());
    writer.join().unwrap();
}

#[test]
fn b15_a_pending_future_that_is_dropped_or_forgotten_changes_nothing() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<u64>(1).unwrap();
    let mut context = Context::from_waker(Waker::noop());
    for number in 0..20 {
        {
            let mut receive = pin!(receiver.recv_async());
            assert!(receive.as_mut().poll(&mut context).is_pending());
        }
        let mut forgotten = Box::pin(receiver.recv_async());
        assert!(forgotten.as_mut().poll(&mut context).is_pending());
        std::mem::forget(forgotten);
        sender.try_send(number).unwrap();
        {
            let mut send = pin!(sender.send_async(100));
            assert!(send.as_mut().poll(&mut context).is_pending());
        }
        assert_eq!(receiver.try_recv().unwrap(), number);
        assert!(receiver.try_recv().unwrap_err().is_empty(), "what was not sent is not there");
    }
}

#[test]
fn b15_a_select_is_awaited_over_channels_events_descriptors_and_times() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<u64>(1).unwrap();
    let event = Event::shared().unwrap();
    let (pipe_out, mut pipe) = std::io::pipe().unwrap();
    let mut select = Select::new();
    let [channel_number, event_number, pipe_number] =
        [select.end(&receiver), select.waitable(&*event), select.fd(&pipe_out, Interest::Read)];
    smol::block_on(async {
        for turn in 0..30 {
            // Whoever makes it ready does so from a thread, mostly while the future waits.
            let helper = match turn % 3 {
                0 => {
                    let sender = sender.clone();
                    std::thread::spawn(move || sender.send(turn).unwrap())
                }
                1 => {
                    let event = event.clone();
                    std::thread::spawn(move || event.set())
                }
                _ => {
                    let mut pipe = pipe.try_clone().unwrap();
                    std::thread::spawn(move || pipe.write_all(b"x").unwrap())
                }
            };
            let number = select.ready_async().await.unwrap();
            helper.join().unwrap();
            match turn % 3 {
                0 => {
                    assert_eq!((number, receiver.try_recv().unwrap()), (channel_number, turn));
                }
                1 => {
                    assert_eq!(number, event_number);
                    event.clear();
                }
                _ => {
                    assert_eq!(number, pipe_number);
                    std::io::Read::read_exact(&mut &pipe_out, &mut [0]).unwrap();
                }
            }
        }
        let time = select.after(Duration::from_millis(5));
        assert_eq!(select.ready_async().await.unwrap(), time);
        select.remove(time);
        pipe.write_all(b"x").unwrap();
        assert_eq!(select.ready_async().await.unwrap(), pipe_number);
    });
    assert_no_backstop();
}

#[test]
fn b15_a_future_is_woken_by_the_death_of_the_other_end() {
    let _watchdog = watchdog(LONG);
    let (inbox, asked) = channel::<u64>(1).unwrap();
    let (answer, answers) = channel::<u64>(1).unwrap();
    let child = Process::spawn(echo, (asked, answer)).unwrap();
    smol::block_on(async {
        let mut receive = pin!(answers.recv_async());
        // It waits before the child is killed.
        let first = std::future::poll_fn(|context| Poll::Ready(receive.as_mut().poll(context))).await;
        assert!(first.is_pending());
        child.kill().unwrap();
        assert!(receive.await.unwrap_err().is_disconnected());
    });
    drop(inbox);
    assert_eq!(child.join().unwrap_err().signal(), Some(9));
}

/// Counts that it was woken, and panics.
struct Panicking(std::sync::mpsc::Sender<()>);

impl std::task::Wake for Panicking {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.send(()).unwrap();
        panic!("a waker that panics, on purpose");
    }
}

#[test]
fn b15_a_waker_that_panics_stops_nobody_else_s_wakes() {
    let _watchdog = watchdog(LONG);
    let (tell, told) = std::sync::mpsc::channel();
    let panicking = Waker::from(std::sync::Arc::new(Panicking(tell)));
    let (sender, receiver) = channel::<u64>(4).unwrap();
    let mut select = Select::new();
    // Long enough that it is not over at the first look, however busy the machine is.
    select.after(Duration::from_millis(500));
    let (mut received, mut late) = (pin!(receiver.recv_async()), pin!(select.ready_async()));
    let mut context = Context::from_waker(&panicking);
    assert!(received.as_mut().poll(&mut context).is_pending());
    assert!(late.as_mut().poll(&mut context).is_pending());
    sender.send(1).unwrap();
    told.recv().unwrap();
    told.recv().unwrap();
    // The threads that woke them still do.
    smol::block_on(async {
        let mut select = Select::new();
        let number = select.after(Duration::from_millis(1));
        assert_eq!(select.ready_async().await.unwrap(), number);
        assert_eq!(receiver.recv_async().await.unwrap(), 1);
        let (next, _) = smol::future::zip(receiver.recv_async(), async {
            sender.send_async(2).await.unwrap();
        })
        .await;
        assert_eq!(next.unwrap(), 2);
    });
    assert_no_backstop();
}
