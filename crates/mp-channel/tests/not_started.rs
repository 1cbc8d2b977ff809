//! A child that ends before it takes its job. Alone in its process: it changes what children run.

use mp_channel::{Sender, channel};
use mp_spawn::{JoinError, Process};

#[test]
fn b9_a_child_that_never_took_its_job_gives_its_argument_back() {
    mp_spawn::set_executable("/bin/true");
    let (tx, rx) = channel::<u32>(4).unwrap();
    let child = Process::spawn(|end: Sender<u32>| drop(end), tx).unwrap();
    assert!(rx.recv().unwrap_err().is_disconnected(), "although nobody has joined the child");
    let error = child.join().unwrap_err();
    assert!(matches!(error, JoinError::NotStarted(_)));
    assert!(error.to_string().contains("does its executable link multiproc"), "{error}");
    mp_spawn::set_executable("/nonexistent/program");
    let error = Process::spawn(|end: Sender<u32>| drop(end), channel(1).unwrap().0).unwrap_err();
    assert!(error.to_string().contains("No such file"), "{error}");
    let audit = mp_shm::Session::current().unwrap().audit();
    assert!(audit.objects == 1 && audit.references == 1 && audit.blocks == 0, "{audit:?}");
}
