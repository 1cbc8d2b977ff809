//! One message, questions and answers, pipes.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::pipe::{Duplex, PipeError, Reader, Writer};
use mp_channel::request::{Client, Server};
use mp_channel::{channel, oneshot, pipe, request};
use mp_shm::Session;
use mp_spawn::Process;
use mp_testkit::{assert_no_backstop, watchdog};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);

fn answer_once((number, sender): (u64, oneshot::Sender<String>)) {
    sender.send(format!("{number}").repeat(100)).unwrap();
}

fn keep(_sender: oneshot::Sender<String>) {
    loop {
        std::thread::park();
    }
}

#[test]
fn b9_a_oneshot_brings_one_message_or_tells_that_none_will_come() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = oneshot::channel().unwrap();
    let child = Process::spawn(answer_once, (7, sender)).unwrap();
    assert_eq!(receiver.recv().unwrap(), "7".repeat(100));
    child.join().unwrap();

    let (sender, mut receiver) = oneshot::channel::<u64>().unwrap();
    assert!(receiver.try_recv().unwrap_err().is_empty());
    assert!(receiver.recv_timeout(SHORT).unwrap_err().is_empty());
    drop(sender);
    assert!(receiver.recv().unwrap_err().is_disconnected());

    let (sender, receiver) = oneshot::channel().unwrap();
    let child = Process::spawn(keep, sender).unwrap();
    child.kill().unwrap();
    assert!(receiver.recv().unwrap_err().is_disconnected());
    assert_eq!(child.join().unwrap_err().signal(), Some(9));

    let (sender, receiver) = oneshot::channel::<u64>().unwrap();
    drop(receiver);
    let error = sender.send(5).unwrap_err();
    assert!(error.is_disconnected());
    assert_eq!(error.into_value(), 5);
}

fn serve(server: Server<u64, Vec<u64>>) -> u64 {
    let mut served = 0;
    server
        .serve(|number| {
            served += 1;
            vec![number; usize::try_from(number % 300).unwrap()]
        })
        .unwrap();
    assert_no_backstop();
    served
}

fn ask((client, first, count): (Client<u64, Vec<u64>>, u64, u64)) {
    for number in first..first + count {
        assert_eq!(client.call(number).unwrap().len() as u64, number % 300);
    }
    assert_no_backstop();
}

#[test]
fn b17_every_question_gets_its_own_answer() {
    let _watchdog = watchdog(LONG);
    let (client, server) = request::channel(4).unwrap();
    let servers = [(); 2].map(|()| Process::spawn(serve, server.clone()).unwrap());
    drop(server);
    let clients = [0, 1].map(|n| Process::spawn(ask, (client.clone(), n * 1000, 500)).unwrap());
    // Many questions before the first answer.
    let answers: Vec<_> = (0..50).map(|number| client.ask(number).unwrap()).collect();
    for (number, answer) in (0..50).zip(answers) {
        assert_eq!(answer.recv().unwrap().len(), number);
    }
    clients.into_iter().for_each(|client| client.join().unwrap());
    drop(client);
    let served: u64 = servers.map(|server| server.join().unwrap()).iter().sum();
    assert_eq!(served, 1050);
}

fn take_one(server: Server<u64, u64>) {
    let _request = server.recv().unwrap();
    std::process::abort();
}

#[test]
fn b8_a_server_that_dies_with_a_question_fails_that_call_alone() {
    let _watchdog = watchdog(LONG);
    let (client, server) = request::channel::<u64, u64>(4).unwrap();
    let child = Process::spawn(take_one, server.clone()).unwrap();
    assert!(client.call(1).unwrap_err().is_disconnected());
    assert_eq!(child.join().unwrap_err().signal(), Some(6));
    assert!(client.call_timeout(2, SHORT).unwrap_err().is_timeout());
    let serving = std::thread::spawn(move || {
        // The question that nobody waits for any more is still there.
        let late = server.recv().unwrap();
        assert_eq!(late.question, 2);
        assert!(late.answer(2).is_err());
        let dropped = server.recv().unwrap();
        drop(dropped);
        server.serve(|number| number + 1).unwrap();
    });
    assert!(client.call(3).unwrap_err().is_disconnected(), "the question was dropped");
    assert_eq!(client.call_timeout(4, LONG).unwrap(), 5);
    assert_eq!(smol::block_on(client.call_async(5)).unwrap(), 6);
    drop(client);
    serving.join().unwrap();
    let audit = Session::current().unwrap().audit();
    assert!(audit.counts_are_right, "{audit:?}");
}

fn turn_around(end: Duplex) -> u64 {
    let mut turned = 0;
    loop {
        match end.recv_bytes() {
            Ok(mut bytes) => {
                bytes.reverse();
                end.send_bytes(&bytes).unwrap();
            }
            Err(PipeError::OtherType) => end.send(&"a value".to_owned()).unwrap(),
            Err(error) => {
                assert!(error.is_disconnected(), "{error}");
                return turned;
            }
        }
        turned += 1;
    }
}

#[test]
fn b20_a_duplex_pipe_carries_values_and_bytes_both_ways() {
    let _watchdog = watchdog(LONG);
    let (here, there) = pipe::duplex(2).unwrap();
    let child = Process::spawn(turn_around, there).unwrap();
    for len in [0, 1, 7, 240, 241, 5000, 300_000] {
        let bytes: Vec<u8> = (0..len).map(|n: u32| n.to_le_bytes()[0]).collect();
        here.send_bytes(&bytes).unwrap();
        assert!(here.poll(LONG).unwrap());
        let back = here.recv_bytes().unwrap();
        assert!(back.iter().rev().eq(&bytes));
    }
    here.send(&5_u64).unwrap();
    assert_eq!(here.recv::<String>().unwrap(), "a value");
    assert!(!here.poll(Duration::ZERO).unwrap());
    assert!(here.recv_timeout::<String>(SHORT).unwrap_err().is_empty());
    drop(here);
    assert_eq!(child.join().unwrap(), 8);
}

#[test]
fn b20_bytes_are_received_into_a_callers_buffer() {
    let _watchdog = watchdog(LONG);
    let (writer, reader): (Writer, Reader) = pipe::one_way(4).unwrap();
    writer.send_bytes(b"hello").unwrap();
    writer.send_bytes(b"too long").unwrap();
    writer.send(&1_u64).unwrap();
    let mut buffer = [0; 5];
    assert_eq!(reader.recv_bytes_into(&mut buffer).unwrap(), 5);
    assert_eq!(&buffer, b"hello");
    match reader.recv_bytes_into(&mut buffer).unwrap_err() {
        PipeError::TooSmall(bytes) => assert_eq!(bytes, b"too long"),
        other => panic!("{other}"),
    }
    assert!(matches!(reader.recv::<u32>().unwrap_err(), PipeError::OtherType), "a value of another type");
    drop(writer);
    assert!(reader.recv_bytes().unwrap_err().is_disconnected());
}

#[test]
fn b4_pipes_and_oneshots_travel_in_messages_and_are_selected() {
    let _watchdog = watchdog(LONG);
    let (sender, receiver) = channel::<(Duplex, Option<oneshot::Receiver<u64>>)>(1).unwrap();
    let (left, right) = pipe::duplex(1).unwrap();
    let (answer, answered) = oneshot::channel().unwrap();
    sender.send((right, Some(answered))).unwrap();
    let (right, answered) = receiver.recv().unwrap();
    let answered = answered.unwrap();
    answer.send(9).unwrap();
    assert_eq!(answered.recv().unwrap(), 9);
    left.send_bytes(b"x").unwrap();
    let mut select = mp_channel::Select::new();
    let this = select.end(&right);
    assert_eq!(select.ready().unwrap(), this);
}
