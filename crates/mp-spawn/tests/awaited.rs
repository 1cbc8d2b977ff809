//! Processes are awaited, under any runtime.
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, channel};
use mp_spawn::{JoinError, Process, Stdio};
use mp_testkit::watchdog;
use std::io::Read;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// Ends with the sum of what it gets.
fn sum(numbers: Receiver<u64>) -> u64 {
    numbers.into_iter().sum()
}

async fn is_pending<F: Future + Unpin>(future: &mut F) -> bool {
    std::future::poll_fn(|context| Poll::Ready(pin!(&mut *future).poll(context).is_pending())).await
}

async fn awaits_its_value() {
    let (sender, receiver) = channel(8).unwrap();
    let mut first = Process::spawn(sum, receiver.clone()).unwrap().into_future();
    let mut second = Process::spawn(sum, receiver).unwrap().into_future();
    assert!(is_pending(&mut first).await && is_pending(&mut second).await, "they run");
    for number in 0..100 {
        sender.send_async(number).await.unwrap();
    }
    drop(sender);
    assert_eq!(first.await.unwrap() + second.await.unwrap(), 4950);
    // Long after its end.
    let ended = Process::spawn(|n: u64| n, 7).unwrap();
    assert!(ended.wait_timeout(LONG).unwrap());
    assert_eq!(ended.await.unwrap(), 7);
    let panicked = Process::spawn(|n: u64| -> u64 { panic!("{n}") }, 7).unwrap().await;
    assert!(matches!(&panicked, Err(JoinError::Panicked(panic)) if panic.message == "7"), "{panicked:?}");
    // What it reads ends when it is awaited.
    let reads = |()| std::io::stdin().read_to_string(&mut String::new()).unwrap();
    let reader = Process::builder().stdin(Stdio::Piped).spawn(reads, ()).unwrap();
    assert_eq!(reader.await.unwrap(), 0);
}

#[test]
fn a6_a_process_is_awaited_under_tokio() {
    let _watchdog = watchdog(LONG);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    runtime.block_on(async {
        awaits_its_value().await;
        let (sender, receiver) = channel::<u64>(1).unwrap();
        let mut process = Process::spawn(sum, receiver).unwrap().into_future();
        tokio::time::timeout(Duration::from_millis(1), &mut process).await.unwrap_err();
        process.kill().unwrap();
        assert_eq!(process.await.unwrap_err().signal(), Some(9));
        drop(sender);
    });
}

#[test]
fn a6_a_process_is_awaited_under_smol() {
    let _watchdog = watchdog(LONG);
    smol::block_on(awaits_its_value());
}
