//! The last holder of an end is a process that has never seen a channel. One test alone in its process: it counts the session's objects.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{channel, spsc};
use mp_shm::{AnyHandle, Fd, Session};
use mp_spawn::Process;
use mp_testkit::{proc, watchdog};
use std::fs::File;
use std::io::{PipeWriter, Read, Write};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

#[test]
fn b9_the_last_holder_does_not_know_the_kind() {
    if std::env::var_os("MP_BACKSTOP").is_none() && mp_sys::futex::watches_all() {
        // A lost wake-up would be made good by a backstop, so this is done without: it would hang. (Where the kernel cannot watch
        // the epoch, too, the backstop is what there is.)
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "b9_the_last_holder_does_not_know_the_kind"]).env("MP_BACKSTOP", "off");
        assert!(again.status().unwrap().success());
        return;
    }
    let _watchdog = watchdog(Duration::from_secs(60));
    who_waits_is_told();
    the_object_goes();
    a_thousand_of_them();
}

/// A child that has never seen a channel. It drops what it has when it is told to, and lives on.
struct Holder {
    child: Process<usize>,
    pipe: PipeWriter,
}

impl Holder {
    /// The child is the last one who holds these.
    fn of(anys: Vec<AnyHandle>) -> Self {
        fn hold((anys, pipe): (Vec<AnyHandle>, Fd)) -> usize {
            let mut pipe = File::from(pipe.open().unwrap());
            pipe.read_exact(&mut [0]).unwrap();
            let count = anys.len();
            drop(anys);
            count + pipe.read(&mut [0]).unwrap()
        }
        let (reader, pipe) = std::io::pipe().unwrap();
        Self { child: Process::spawn(hold, (anys, Fd::new(reader).unwrap())).unwrap(), pipe }
    }

    fn let_go(&self) {
        (&self.pipe).write_all(b"x").unwrap();
    }

    fn end(self) -> usize {
        drop(self.pipe);
        self.child.join().unwrap()
    }
}

fn who_waits_is_told() {
    let while_asleep = |holder: Holder, wait: &mut dyn FnMut()| {
        let waiting = proc::Task::current();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                waiting.wait_until_blocked();
                holder.let_go();
            });
            wait();
        });
        assert_eq!(holder.end(), 1);
    };
    let (sender, receiver) = channel::<u64>(1).unwrap();
    let any = AnyHandle::of(&sender).unwrap();
    drop(sender);
    while_asleep(Holder::of(vec![any]), &mut || assert!(receiver.recv().unwrap_err().is_disconnected()));
    let (sender, mut receiver) = spsc::channel::<u64>(1).unwrap();
    let any = AnyHandle::of(&sender).unwrap();
    drop(sender);
    while_asleep(Holder::of(vec![any]), &mut || assert!(receiver.recv().unwrap_err().is_disconnected()));
}

fn the_object_goes() {
    let objects = || Session::current().unwrap().audit().objects;
    let before = objects();
    let holder = Holder::of(vec![AnyHandle::of(&channel::<u64>(1).unwrap().0).unwrap()]);
    assert_eq!(objects(), before + 2, "the channel, and what the child waits for");
    holder.let_go();
    proc::until(|| objects() == before + 1);
    assert_eq!(holder.end(), 1);
    assert_eq!(objects(), before);
}

/// Each is told of, and none makes the child look through the session again.
fn a_thousand_of_them() {
    let session = Session::current().unwrap();
    let before = session.audit().objects;
    let ends = (0..1000).map(|_| channel::<u64>(1).unwrap().0);
    let holder = Holder::of(ends.map(|sender| AnyHandle::of(&sender).unwrap()).collect());
    let recoveries = session.death_epoch().load(Ordering::Relaxed);
    holder.let_go();
    assert_eq!(holder.end(), 1000);
    let recoveries = session.death_epoch().load(Ordering::Relaxed) - recoveries;
    assert!((1000..1100).contains(&recoveries), "{recoveries}");
    assert_eq!(session.audit().objects, before, "who knows the kind has taken them away");
}
