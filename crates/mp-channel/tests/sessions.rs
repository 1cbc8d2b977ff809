//! Handles of one session do not travel in messages of another, and who tries is told so.
#![cfg(not(loom))]

use mp_channel::{Receiver, SendFailure, Sender, channel, channel_in};
use mp_shm::Session;
use mp_shm::audit::Audit;
use mp_shm::codec::EncodeError;
use mp_shm::references::HandleError;
use mp_spawn::{Process, SpawnError};
use mp_testkit::{LeakCheck, assert_no_backstop, watchdog};
use std::time::Duration;

#[test]
fn b4_a_handle_of_another_session_is_refused_where_it_is_sent() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let other = Session::create().unwrap();
    other.me().unwrap();
    let leaks = LeakCheck::begin();
    let current = Session::current().unwrap();
    assert_ne!(other, current);

    let (foreign, foreign_end) = channel_in::<u32>(other, 1).unwrap();
    let (own, own_end) = channel::<u32>(1).unwrap();
    type Pair = (String, Vec<Sender<u32>>);
    let (sender, receiver) = channel::<Pair>(1).unwrap();

    // Sending: the value comes back whole, and so does the slot.
    for text in [10, 100_000].map(|len| "x".repeat(len)) {
        let error = sender.send((text.clone(), vec![own.clone(), foreign.clone()])).unwrap_err();
        let expected = HandleError::OtherSession { handle: other.number(), message: current.number() };
        let SendFailure::Encode(EncodeError::Handle(found)) = &error.failure else { panic!("{error}") };
        assert_eq!(*found, expected);
        assert!(error.to_string().contains("make both channels in one session"), "{error}");
        let (back, handles) = error.into_value();
        assert_eq!(back, text);
        handles[1].send(5).unwrap();
        assert_eq!(foreign_end.recv().unwrap(), 5);
        drop(handles);
        sender.try_send((text.clone(), vec![own.clone()])).unwrap();
        let (back, handles) = receiver.try_recv().unwrap();
        assert_eq!(back, text);
        handles[0].send(6).unwrap();
        assert_eq!(own_end.recv().unwrap(), 6);
    }

    // Starting: no process, and the same words.
    let error = Process::spawn(|_: (Receiver<u32>, Sender<u32>)| (), (own_end.clone(), foreign.clone()));
    let error = error.unwrap_err();
    assert!(matches!(error, SpawnError::Encode(EncodeError::Handle(_))), "{error:?}");
    assert!(error.to_string().contains("make both channels in one session"), "{error}");
    assert!(mp_testkit::proc::children().is_empty());

    // Within the other session it travels.
    let (carrier, carrier_end) = channel_in::<Sender<u32>>(other, 1).unwrap();
    carrier.send(foreign).unwrap();
    carrier_end.recv().unwrap().send(8).unwrap();
    assert_eq!(foreign_end.recv().unwrap(), 8);
    assert!(foreign_end.recv().unwrap_err().is_disconnected());
    drop((carrier, carrier_end));
    // But ours does not.
    let (carrier, carrier_end) = channel_in::<Sender<u32>>(other, 1).unwrap();
    let error = carrier.send(own).unwrap_err();
    assert!(matches!(error.failure, SendFailure::Encode(EncodeError::Handle(_))), "{error}");
    drop((error, carrier, carrier_end, foreign_end, sender, receiver));
    assert!(own_end.recv().unwrap_err().is_disconnected());
    drop(own_end);

    leaks.end();
    assert_eq!(other.audit(), Audit { processes: 1, counts_are_right: true, ..Audit::default() });
    assert_no_backstop();
}
