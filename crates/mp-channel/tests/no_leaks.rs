//! One use of every kind of channel with another process, after which nothing is left.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Select, broadcast, channel, joinable, oneshot, pipe, request, spsc, untrusted};
use mp_spawn::Process;
use mp_testkit::{LeakCheck, watchdog};
use std::time::Duration;

type Ends = (
    (mp_channel::Receiver<u64>, spsc::Receiver<Vec<u64>>, broadcast::Receiver<String>),
    (joinable::TaskReceiver<u64>, request::Server<u64, u64>, pipe::Duplex),
    (oneshot::Sender<Vec<u8>>, untrusted::Receiver<String>),
);

fn answer(((rendezvous, mut lane, mut news), (tasks, server, pipe), (answer, notes)): Ends) {
    assert_eq!(rendezvous.recv().unwrap(), 1);
    assert_eq!(lane.recv_archived().unwrap().as_slice(), [2; 1000]);
    assert_eq!(news.recv().unwrap(), "three");
    tasks.recv().unwrap().done();
    server.recv().unwrap().answer(5).unwrap();
    assert_eq!(pipe.recv_bytes().unwrap(), [6; 600]);
    answer.send(vec![7; 7]).unwrap();
    assert_eq!(notes.recv().unwrap(), "eight");
}

#[test]
fn b9_every_kind_of_channel_leaves_nothing_behind() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let leaks = LeakCheck::begin();
    for _ in 0..5 {
        let (rendezvous, rendezvous_out) = channel(0).unwrap();
        let (mut lane, lane_out) = spsc::channel(3).unwrap();
        let (news, news_out) = broadcast::channel(3).unwrap();
        let (tasks, tasks_out) = joinable::channel(3).unwrap();
        let (client, server) = request::channel(3).unwrap();
        let (here, there) = pipe::duplex(3).unwrap();
        let (answer_in, answered) = oneshot::channel().unwrap();
        let (notes, notes_out) = untrusted::channel(3, 100).unwrap();
        let ends = ((rendezvous_out, lane_out, news_out), (tasks_out, server, there), (answer_in, notes_out));
        let child = Process::spawn(answer, ends).unwrap();
        rendezvous.send(1).unwrap();
        lane.send(vec![2; 1000]).unwrap();
        news.send(&"three".to_owned()).unwrap();
        tasks.send(4).unwrap();
        assert_eq!(client.call(4).unwrap(), 5);
        tasks.join().unwrap();
        here.send_bytes(&[6; 600]).unwrap();
        let mut select = Select::new();
        let this = select.end(&answered);
        assert_eq!(select.ready().unwrap(), this);
        assert_eq!(answered.recv().unwrap(), [7; 7]);
        notes.send("eight".to_owned()).unwrap();
        child.join().unwrap();
    }
    leaks.end();
}
