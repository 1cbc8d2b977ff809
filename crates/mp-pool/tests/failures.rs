//! Every way to fail, at every stage of a task: it resolves, and the pool goes on.
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_pool::{Pool, PoolError, TaskErrorKind};
use mp_shm::codec::Serde;
use mp_spawn::{JoinError, Process};
use mp_testkit::{assert_no_backstop, proc, watchdog};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

const ENCODE_TASK: u8 = 0;
const DECODE_TASK: u8 = 1;
const RUN: u8 = 2;
const ENCODE_RESULT: u8 = 3;
const DECODE_RESULT: u8 = 4;

const ERROR: u8 = 0;
const EXIT: u8 = 1;
const CRASH: u8 = 2;

/// Fails at a stage, on its way there or back.
#[derive(Debug)]
struct Trap {
    stage: u8,
    how: u8,
    is_back: bool,
}

impl Trap {
    /// Whether it is to fail with an error.
    fn springs(&self, there: u8, back: u8) -> bool {
        let stage = if self.is_back { back } else { there };
        match (stage == self.stage, self.how) {
            (true, EXIT) => std::process::exit(9),
            (true, CRASH) => std::process::abort(),
            (is_it, _) => is_it,
        }
    }
}

impl Serialize for Trap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.springs(ENCODE_TASK, ENCODE_RESULT) {
            return Err(serde::ser::Error::custom("a trap"));
        }
        (self.stage, self.how, self.is_back).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Trap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (stage, how, is_back) = Deserialize::deserialize(deserializer)?;
        let trap = Self { stage, how, is_back };
        if trap.springs(DECODE_TASK, DECODE_RESULT) {
            return Err(serde::de::Error::custom("a trap"));
        }
        Ok(trap)
    }
}

fn run(Serde(trap): Serde<Trap>) -> Serde<Trap> {
    assert!(!trap.springs(RUN, RUN), "a trap");
    Serde(Trap { is_back: true, ..trap })
}

/// What becomes of such a task, in a process of its own; and whether the pool goes on.
fn cell((stage, how): (u8, u8)) -> (String, u32) {
    let pool = Pool::builder().workers(2).build().unwrap();
    let task = pool.submit(run, Serde(Trap { stage, how, is_back: false })).unwrap();
    let told = match task.get() {
        Ok(_) => String::from("a value"),
        Err(error) => match error.kind {
            TaskErrorKind::Panicked(_) => String::from("panicked"),
            TaskErrorKind::Exited(code) => format!("exited {code}"),
            TaskErrorKind::Killed { signal, .. } => format!("killed {signal}"),
            TaskErrorKind::Encode(_) => String::from("encode"),
            TaskErrorKind::Argument(_) => String::from("argument"),
            TaskErrorKind::Value(_) => String::from("value"),
            TaskErrorKind::Decode(_) => String::from("decode"),
            other => format!("{other:?}"),
        },
    };
    assert_no_backstop();
    (told, pool.apply(|n: u32| n, 7).unwrap())
}

/// Where it is this process that fails, all of it ends, workers too.
fn told(stage: u8, how: u8) -> String {
    let _watchdog = watchdog(LONG);
    match Process::spawn(cell, (stage, how)).unwrap().join() {
        Ok((told, on)) => {
            assert_eq!(on, 7);
            told
        }
        Err(JoinError::Exited(code)) => format!("the pool's process exited {code}"),
        Err(error) => format!("the pool's process was killed {:?}", error.signal()),
    }
}

macro_rules! cells {
    ($(#[$test:meta] fn $name:ident() = $stage:expr, $how:expr => $expected:expr;)*) => {$(
        #[$test]
        fn $name() {
            assert_eq!(told($stage, $how), $expected);
        }
    )*};
}

cells! {
    #[test] fn e6_error_in_encoding_the_task() = ENCODE_TASK, ERROR => "encode";
    #[test] fn e6_exit_in_encoding_the_task() = ENCODE_TASK, EXIT => "the pool's process exited 9";
    #[test] fn e6_crash_in_encoding_the_task() = ENCODE_TASK, CRASH => "the pool's process was killed Some(6)";
    #[test] fn e6_error_in_decoding_the_task() = DECODE_TASK, ERROR => "argument";
    #[test] fn e6_exit_in_decoding_the_task() = DECODE_TASK, EXIT => "exited 9";
    #[test] fn e6_crash_in_decoding_the_task() = DECODE_TASK, CRASH => "killed 6";
    #[test] fn e6_error_in_running() = RUN, ERROR => "panicked";
    #[test] fn e6_exit_in_running() = RUN, EXIT => "exited 9";
    #[test] fn e6_crash_in_running() = RUN, CRASH => "killed 6";
    #[test] fn e6_error_in_encoding_the_value() = ENCODE_RESULT, ERROR => "value";
    #[test] fn e6_exit_in_encoding_the_value() = ENCODE_RESULT, EXIT => "exited 9";
    #[test] fn e6_crash_in_encoding_the_value() = ENCODE_RESULT, CRASH => "killed 6";
    #[test] fn e6_error_in_decoding_the_value() = DECODE_RESULT, ERROR => "decode";
    #[test] fn e6_exit_in_decoding_the_value() = DECODE_RESULT, EXIT => "the pool's process exited 9";
    #[test] fn e6_crash_in_decoding_the_value() = DECODE_RESULT, CRASH => "the pool's process was killed Some(6)";
}

#[test]
fn e25_the_number_of_workers_comes_from_the_environment_or_the_processors() {
    let _watchdog = watchdog(LONG);
    let count = |()| Pool::new().map(|pool| pool.workers()).map_err(|error| error.to_string());
    let said = |value: &str| {
        let child = Process::builder().env("MULTIPROC_WORKERS", value).spawn(count, ()).unwrap();
        child.join().unwrap().unwrap()
    };
    assert_eq!(said("3"), 3);
    let processors = std::thread::available_parallelism().unwrap().get();
    assert_eq!((said("0"), said("many")), (processors, processors));
    let pinned = Process::builder().env_remove("MULTIPROC_WORKERS").processors([0]).spawn(count, ()).unwrap();
    assert_eq!(pinned.join().unwrap().unwrap(), 1);
}

/// A pool that there are no processes for, or no descriptors; who is left.
fn starved(descriptors: u64) -> (String, usize) {
    let limit = rustix::process::Rlimit { current: Some(descriptors), maximum: Some(descriptors) };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    let error = Pool::builder().workers(100).build().unwrap_err();
    assert!(matches!(error, PoolError::Spawn(_)), "{error:?}");
    (error.to_string(), proc::children().len())
}

#[test]
fn e9_a_worker_that_cannot_start_leaves_no_others_behind() {
    let _watchdog = watchdog(LONG);
    let (error, left) = Process::spawn(starved, 60).unwrap().join().unwrap();
    assert!(error.starts_with("making a pool: starting a process"), "{error}");
    assert_eq!(left, 0);
}

/// Panics when it is dropped in a worker.
#[derive(Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Brittle(u32);

impl Drop for Brittle {
    fn drop(&mut self) {
        assert!(mp_pool::worker_id().is_none(), "on purpose");
    }
}

#[test]
fn e1_a_value_whose_destructor_panics_costs_no_worker_and_no_task() {
    let _watchdog = watchdog(LONG);
    let pool = Pool::builder().workers(1).build().unwrap();
    let workers = pool.worker_pids();
    let brittle = pool.submit(Brittle, 5).unwrap();
    let behind = pool.submit(|n: u32| n, 6).unwrap();
    assert_eq!(brittle.get().unwrap().0, 5);
    assert_eq!(behind.get().unwrap(), 6);
    assert_eq!(pool.worker_pids(), workers);
    assert_no_backstop();
}

/// Submits to its own pool while it is encoded for it.
struct Recursive;

static RECURSIVE: OnceLock<Pool> = OnceLock::new();

impl Serialize for Recursive {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        drop(RECURSIVE.get().unwrap().submit(|n: u32| n, 1));
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for Recursive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <()>::deserialize(deserializer).map(|()| Self)
    }
}

#[test]
fn e6_an_argument_that_uses_its_pool_while_it_is_encoded_fails_alone() {
    let _watchdog = watchdog(LONG);
    let pool = RECURSIVE.get_or_init(|| Pool::builder().workers(1).build().unwrap());
    let error = pool.submit(|_: Serde<Recursive>| (), Serde(Recursive)).unwrap().get().unwrap_err();
    assert!(error.to_string().contains("cannot use that pool"), "{error}");
    assert_eq!(pool.submit(|n: u32| n, 5).unwrap().get().unwrap(), 5);
    assert_no_backstop();
}

/// Uses its pool when it is dropped, or panics.
#[derive(Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Testament(u32);

static HEIRS: OnceLock<Pool> = OnceLock::new();
static HERITAGE: AtomicU32 = AtomicU32::new(0);

impl Drop for Testament {
    fn drop(&mut self) {
        if mp_pool::worker_id().is_none() {
            assert!(self.0 != 0, "on purpose");
            let value = HEIRS.get().unwrap().submit(|n: u32| n, self.0).unwrap().get().unwrap();
            HERITAGE.fetch_add(value, Ordering::Relaxed);
        }
    }
}

#[test]
fn e6_an_argument_whose_destructor_uses_the_pool_or_panics_costs_nothing() {
    let _watchdog = watchdog(LONG);
    let pool = HEIRS.get_or_init(|| Pool::builder().workers(1).build().unwrap());
    let take = |testament: Testament| testament.0;
    // Dropped once it is settled, once its handle is gone, and once it is cancelled.
    assert_eq!(pool.submit(take, Testament(1)).unwrap().get().unwrap(), 1);
    let tasks: Vec<_> = (0..10).map(|_| pool.submit(take, Testament(10)).unwrap()).collect();
    let behind = pool.submit(take, Testament(100)).unwrap();
    behind.cancel();
    drop((tasks, behind));
    assert_eq!(pool.submit(take, Testament(0)).unwrap().get().unwrap(), 0);
    mp_testkit::proc::until(|| HERITAGE.load(Ordering::Relaxed) == 201);
    assert_eq!(pool.submit(|n: u32| n, 5).unwrap().get().unwrap(), 5);
    assert_no_backstop();
}
