//! What `tracing` is told of pools, workers and tasks.
#![cfg(feature = "tracing")]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Sender, channel};
use mp_pool::{Pool, ThreadPool, ThreadTask};
use mp_testkit::{proc, watchdog};
use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const LONG: Duration = Duration::from_secs(60);

/// Hands a line to `tell` for each span and event: level, parent, name or message, and fields.
struct Recorder {
    tell: Box<dyn Fn(String) + Send + Sync>,
    spans: AtomicU64,
}

impl Recorder {
    fn new(tell: impl Fn(String) + Send + Sync + 'static) -> Self {
        Self { tell: Box::new(tell), spans: AtomicU64::new(0) }
    }
}

/// A name, and then the fields.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            write!(self.0, " {value:?}").unwrap();
        } else if field.name() == "nanos" {
            // They differ from run to run.
            write!(self.0, " nanos").unwrap();
        } else {
            write!(self.0, " {}={value:?}", field.name()).unwrap();
        }
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("mp_pool")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let id = self.spans.fetch_add(1, Ordering::Relaxed) + 1;
        let mut line = Line(format!("{} span {}", span.metadata().level(), span.metadata().name()));
        span.record(&mut line);
        (self.tell)(line.0);
        Id::from_u64(id)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        // One that is older than this recorder is not known here.
        let known = |id: &u64| *id <= self.spans.load(Ordering::Relaxed);
        let parent = event.parent().map(Id::into_u64).filter(known).unwrap_or_default();
        let mut line = Line(format!("{} in {parent}", event.metadata().level()));
        event.record(&mut line);
        (self.tell)(line.0);
    }

    fn enter(&self, _: &Id) {
        (self.tell)("enter".to_owned());
    }

    fn exit(&self, _: &Id) {
        (self.tell)("exit".to_owned());
    }

    fn try_close(&self, id: Id) -> bool {
        (self.tell)(format!("close {}", id.into_u64()));
        true
    }
}

/// What is told while `body` runs, in its thread.
fn told(body: impl FnOnce()) -> Vec<String> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let all = lines.clone();
    tracing::subscriber::with_default(Recorder::new(move |line| all.lock().unwrap().push(line)), body);
    let lines = lines.lock().unwrap();
    lines.clone()
}

#[test]
fn e24_a_pool_tells_of_its_life_its_workers_and_its_tasks() {
    let _watchdog = watchdog(LONG);
    let mut pids = Vec::new();
    let lines = told(|| {
        let pool = Pool::builder().workers(1).build().unwrap();
        pids.extend(pool.worker_pids());
        assert_eq!(pool.apply(|n: u32| n, 1).unwrap(), 1);
        pool.apply(|code: i32| -> () { std::process::exit(code) }, 3).unwrap_err();
        // The next one is ready.
        pool.apply(|n: u32| n, 1).unwrap();
        pids.extend(pool.worker_pids());
        pool.join().unwrap();
    });
    let [first, second] = pids[..] else { panic!("two workers") };
    let expected = [
        "INFO span pool".to_owned(),
        format!("DEBUG in 1 worker started worker=0 pid={first}"),
        "TRACE in 1 task submitted task=0".to_owned(),
        format!("DEBUG in 1 worker ready worker=0 pid={first}"),
        format!("TRACE in 1 task settled task=0 pid={first} nanos"),
        "TRACE in 1 task submitted task=1".to_owned(),
        format!(
            "DEBUG in 1 worker ended worker=0 pid={first} cause=\"the process exited with code 3 before its function returned\""
        ),
        format!("TRACE in 1 task settled task=1 pid={first} error=the task's worker exited with code 3"),
        format!("DEBUG in 1 worker started worker=1 pid={second}"),
        "TRACE in 1 task submitted task=2".to_owned(),
        format!("DEBUG in 1 worker ready worker=1 pid={second}"),
        format!("TRACE in 1 task settled task=2 pid={second} nanos"),
        format!("DEBUG in 1 worker ended worker=1 pid={second} cause=\"let go of\""),
        "close 1".to_owned(),
    ];
    assert_eq!(lines, expected);
}

fn record_all(tell: Sender<String>) {
    let recorder = Recorder::new(move |line| tell.send(line).unwrap());
    tracing::subscriber::set_global_default(recorder).unwrap();
}

#[test]
fn e24_a_task_is_a_span_in_its_worker() {
    let _watchdog = watchdog(LONG);
    let (tell, lines) = channel(64).unwrap();
    let pool = Pool::builder()
        .workers(1)
        .chunk_size(2)
        .initializer(record_all, tell)
        .finalizer(|()| ())
        .build()
        .unwrap();
    pool.apply(|()| panic!("in a task"), ()).map(|(): ()| ()).unwrap_err();
    assert_eq!(pool.map(|n: u32| n, 0..2).unwrap(), [0, 1]);
    assert_eq!(pool.join_with::<()>().unwrap().len(), 1);
    let lines: Vec<String> = std::iter::from_fn(|| lines.try_recv().ok()).collect();
    let task = |task: u64| [format!("DEBUG span task task={task} worker=0"), "enter".into(), "exit".into()];
    let expected: Vec<String> =
        task(0).into_iter().chain(["close 1".into()]).chain(task(1)).chain(["close 2".into()]).collect();
    assert_eq!(lines, expected);
}

#[test]
fn e24_a_pool_of_threads_tells_the_same() {
    static HAS_BEGUN: AtomicBool = AtomicBool::new(false);
    let _watchdog = watchdog(LONG);
    let pid = std::process::id();
    let lines = told(|| {
        let pool = ThreadPool::new(1).unwrap();
        let endless = |()| {
            HAS_BEGUN.store(true, Ordering::Release);
            loop {
                std::thread::park();
            }
        };
        let never: ThreadTask<()> = pool.submit(endless, ()).unwrap();
        proc::until(|| HAS_BEGUN.load(Ordering::Acquire));
        let queued = pool.submit(|()| (), ()).unwrap();
        assert!(queued.cancel());
        drop(pool);
        never.get().unwrap_err();
    });
    let expected = [
        "INFO span pool".to_owned(),
        format!("DEBUG in 1 worker started worker=0 pid={pid}"),
        format!("DEBUG in 1 worker ready worker=0 pid={pid}"),
        "TRACE in 1 task submitted task=0".to_owned(),
        "TRACE in 1 task submitted task=1".to_owned(),
        "TRACE in 1 task settled task=1 error=the task was cancelled".to_owned(),
        "TRACE in 1 task settled task=0 error=the task was not run to its end: the pool is closed".to_owned(),
    ];
    // The thread that is left over keeps the pool's span.
    assert_eq!(lines, expected);
}

#[test]
fn e24_a_task_is_a_span_in_its_thread() {
    static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let _watchdog = watchdog(LONG);
    let pool = ThreadPool::new(1).unwrap();
    let record_this_thread = |()| {
        let recorder = Recorder::new(|line| LINES.lock().unwrap().push(line));
        // For as long as the thread lives.
        std::mem::forget(tracing::subscriber::set_default(recorder));
    };
    pool.apply(record_this_thread, ()).unwrap();
    pool.apply(|()| LINES.lock().unwrap().push("in the task".to_owned()), ()).unwrap();
    pool.join().unwrap();
    let expected = [
        // The pool's own span is older.
        "TRACE in 0 task settled task=0 nanos",
        "DEBUG span task task=1 worker=0",
        "enter",
        "in the task",
        "TRACE in 0 task settled task=1 nanos",
        "exit",
        "close 1",
    ];
    assert_eq!(*LINES.lock().unwrap(), expected);
}
