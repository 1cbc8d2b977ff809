//! Futures that wait for as many descriptors as a process may have. One test alone in its process: it lowers the limit.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::Select;
use mp_channel::select::Interest;
use mp_testkit::{proc, watchdog};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::future::Future;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

/// Tells its number.
struct Tell(usize, Sender<usize>);

impl Wake for Tell {
    fn wake(self: Arc<Self>) {
        self.1.send(self.0).unwrap();
    }
}

#[test]
fn b15_a_descriptor_that_a_future_could_register_is_watched() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let (tell, told) = channel();
    let pairs: Vec<_> = (0..40).map(|_| UnixStream::pair().unwrap()).collect();
    let mut selects: Vec<_> = pairs
        .iter()
        .map(|(here, _)| {
            let mut select = Select::new();
            select.fd(here, Interest::Read);
            select
        })
        .collect();
    let mut futures: Vec<_> = selects.iter_mut().map(|select| Box::pin(select.ready_async())).collect();
    let waker = |number| Waker::from(Arc::new(Tell(number, tell.clone())));
    // The first starts the thread, whose own descriptors are there from then on.
    assert!(futures[0].as_mut().poll(&mut Context::from_waker(&waker(0))).is_pending());
    (&pairs[0].1).write_all(b"x").unwrap();
    assert_eq!(told.recv().unwrap(), 0);
    let used = proc::descriptors().len() as u64;
    // Room for one copy of each, and not for two.
    setrlimit(Resource::Nofile, Rlimit { current: Some(used + 60), ..getrlimit(Resource::Nofile) }).unwrap();
    for (number, future) in futures.iter_mut().enumerate().skip(1) {
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker(number))).is_pending());
    }
    for number in [39, 1, 20] {
        (&pairs[number].1).write_all(b"x").unwrap();
        assert_eq!(told.recv().unwrap(), number);
    }
}
