//! Types that serde knows, as messages.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, Sender, channel};
use mp_shm::codec::Serde;
use mp_spawn::Process;
use mp_testkit::watchdog;
use std::time::Duration;

/// Known to serde alone.
#[derive(serde::Serialize, serde::Deserialize, PartialEq, Clone, Debug)]
enum Foreign {
    Nothing,
    Named { name: String, tags: std::collections::BTreeMap<String, Vec<i64>> },
}

fn send_back((inbox, outbox): (Receiver<Serde<Foreign>>, Sender<Serde<Foreign>>)) {
    for one in inbox.iter() {
        outbox.send(one).unwrap();
    }
}

#[test]
fn b2_types_that_serde_knows_are_messages_and_what_is_none_is_an_error() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let (ask, asked) = channel(2).unwrap();
    let (answer, answered) = channel(2).unwrap();
    let child = Process::spawn(send_back, (asked, answer)).unwrap();
    let tags = [("a".to_owned(), vec![-1, 2]), ("b".repeat(300), (0..500).collect())].into();
    for one in [Foreign::Nothing, Foreign::Named { name: "Ada".to_owned(), tags }] {
        ask.send(Serde(one.clone())).unwrap();
        assert_eq!(answered.recv().unwrap().into_inner(), one);
    }
    drop(ask);
    child.join().unwrap();
    // Bytes that are an archive, but not of this type.
    let (writer, reader) = mp_channel::dynamic::channel(2).unwrap();
    writer.send([0; 4], &vec![9_u8; 3]).unwrap();
    let error = reader.recv().unwrap().decode::<Serde<Foreign>>().unwrap_err();
    assert!(matches!(error, mp_shm::codec::DecodeError::Value(_)), "{error}");
}
