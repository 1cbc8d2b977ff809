//! What a pool tells about its work.

use crate::dispatcher::{TaskId, WorkerId};
use crate::error::TaskErrorKind;
use crate::trace::PoolSpan;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Write};
use std::time::{Duration, Instant};

/// How many of the slowest tasks are kept.
const SLOWEST: usize = 10;
/// How many of the last tasks the timeline shows.
const SPANS_MAX: usize = 20_000;

/// What a pool has done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// Tasks that ended with a message from their worker, a panic included. A chunk of a `map` is one task.
    pub tasks_done: u64,
    /// Tasks that ended without one: their worker died, they were cancelled, or could not be sent.
    pub tasks_failed: u64,
    /// Tries of tasks whose worker died, after the first.
    pub tasks_retried: u64,
    /// Workers started.
    pub workers_started: u64,
    /// Workers that died, those included that the pool has ended for a task's sake.
    pub workers_lost: u64,
    /// Each worker, in the order in which they were started; of those that have ended the last thousand or so.
    pub workers: Vec<WorkerStats>,
    /// The tasks that took longest, longest first; at most ten.
    pub slowest: Vec<Slow>,
}

/// What a worker has done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerStats {
    /// Its number in the pool.
    pub id: u64,
    /// Its process id.
    pub pid: u32,
    /// From its start until it was ready; `None` if it is not.
    pub start: Option<Duration>,
    /// How long it has worked on tasks that it has finished.
    pub working: Duration,
    /// How long it has been ready without that.
    pub idle: Duration,
    /// Tasks that it has finished.
    pub tasks: u64,
    /// Bytes of memory that it had in use after its last task; 0 unless the pool limits that.
    pub memory_bytes: u64,
    /// How it ended, if it has.
    pub end: Option<String>,
}

/// A task that took long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Slow {
    /// The task's number.
    pub task: u64,
    /// The worker that did it.
    pub worker: u64,
    /// How long it took.
    pub time: Duration,
}

impl fmt::Display for PoolStats {
    /// A table of the workers, and the slowest tasks.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>6} {:>8} {:>9} {:>9} {:>9} {:>8} {:>9}  end",
            "worker", "pid", "start ms", "work s", "idle s", "tasks", "MiB"
        )?;
        for worker in &self.workers {
            let start = worker
                .start
                .map_or_else(|| String::from("-"), |start| format!("{:.1}", start.as_secs_f64() * 1e3));
            writeln!(
                f,
                "{:>6} {:>8} {start:>9} {:>9.3} {:>9.3} {:>8} {:>9}  {}",
                worker.id,
                worker.pid,
                worker.working.as_secs_f64(),
                worker.idle.as_secs_f64(),
                worker.tasks,
                worker.memory_bytes >> 20,
                worker.end.as_deref().unwrap_or("")
            )?;
        }
        write!(
            f,
            "{} tasks done, {} failed, {} tried again; {} workers started, {} lost",
            self.tasks_done, self.tasks_failed, self.tasks_retried, self.workers_started, self.workers_lost
        )?;
        for slow in &self.slowest {
            write!(f, "\ntask {} took {:.3} s (worker {})", slow.task, slow.time.as_secs_f64(), slow.worker)?;
        }
        Ok(())
    }
}

/// How many workers are kept that have ended.
const ENDED_MAX: usize = 1000;

/// Counts without the lists.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) tasks_done: u64,
    pub(crate) tasks_failed: u64,
    pub(crate) tasks_retried: u64,
    pub(crate) workers_started: u64,
    pub(crate) workers_lost: u64,
}

#[derive(Debug)]
struct Record {
    pid: u32,
    started: Instant,
    ready: Option<Instant>,
    working: Duration,
    tasks: u64,
    memory_bytes: u64,
    end: Option<(Instant, String)>,
}

#[derive(Debug)]
struct Span {
    worker: WorkerId,
    task: TaskId,
    from: Duration,
    time: Duration,
}

/// What is noted while a pool works.
#[derive(Debug)]
pub(crate) struct Records {
    pub(crate) totals: Totals,
    pub(crate) span: PoolSpan,
    origin: Instant,
    workers: BTreeMap<WorkerId, Record>,
    /// Ascending.
    slowest: Vec<Slow>,
    /// `None` if no timeline is kept.
    spans: Option<VecDeque<Span>>,
}

impl Records {
    pub(crate) fn new(has_timeline: bool) -> Self {
        Self {
            totals: Totals::default(),
            span: PoolSpan::new(),
            origin: Instant::now(),
            workers: BTreeMap::new(),
            slowest: Vec::new(),
            spans: has_timeline.then(VecDeque::new),
        }
    }

    pub(crate) fn started(&mut self, worker: WorkerId, pid: u32) {
        let record = Record {
            pid,
            started: Instant::now(),
            ready: None,
            working: Duration::ZERO,
            tasks: 0,
            memory_bytes: 0,
            end: None,
        };
        self.workers.insert(worker, record);
        self.span.worker_started(worker, pid);
        self.totals.workers_started += 1;
        if self.workers.len() > ENDED_MAX
            && let Some(oldest) =
                self.workers.iter().find(|(_, record)| record.end.is_some()).map(|(id, _)| *id)
        {
            self.workers.remove(&oldest);
        }
    }

    pub(crate) fn ready(&mut self, worker: WorkerId) {
        if let Some(record) = self.workers.get_mut(&worker) {
            record.ready = Some(Instant::now());
            self.span.worker_ready(worker, record.pid);
        }
    }

    pub(crate) fn finished(&mut self, worker: WorkerId, task: TaskId, nanos: u64, memory_kib: u64) {
        let time = Duration::from_nanos(nanos);
        if let Some(record) = self.workers.get_mut(&worker) {
            record.working += time;
            record.tasks += 1;
            record.memory_bytes = memory_kib << 10;
        }
        if self.slowest.len() < SLOWEST || self.slowest[0].time < time {
            if self.slowest.len() == SLOWEST {
                self.slowest.remove(0);
            }
            let place = self.slowest.partition_point(|slow| slow.time < time);
            self.slowest.insert(place, Slow { task, worker, time });
        }
        if let Some(spans) = &mut self.spans {
            if spans.len() == SPANS_MAX {
                spans.pop_front();
            }
            let from = self.origin.elapsed().saturating_sub(time);
            spans.push_back(Span { worker, task, from, time });
        }
    }

    /// A task of a thread has come to its end.
    pub(crate) fn done(&mut self, task: TaskId, nanos: u64) {
        self.totals.tasks_done += 1;
        self.span.settled(task, None, Ok(nanos));
    }

    /// A task of a thread is not waited for any longer.
    pub(crate) fn failed(&mut self, task: TaskId, kind: &TaskErrorKind) {
        self.totals.tasks_failed += 1;
        self.span.settled(task, None, Err(kind));
    }

    pub(crate) fn ended(&mut self, worker: WorkerId, how: String) {
        if let Some(record) = self.workers.get_mut(&worker) {
            self.span.worker_ended(worker, record.pid, &how);
            record.end = Some((Instant::now(), how));
        }
    }

    pub(crate) fn stats(&self) -> PoolStats {
        let Totals { tasks_done, tasks_failed, tasks_retried, workers_started, workers_lost } = self.totals;
        let workers = self.workers.iter().map(|(&id, record)| {
            let until = record.end.as_ref().map_or_else(Instant::now, |(when, _)| *when);
            let ready = record.ready.map_or(Duration::ZERO, |ready| until.saturating_duration_since(ready));
            WorkerStats {
                id,
                pid: record.pid,
                start: record.ready.map(|ready| ready - record.started),
                working: record.working,
                idle: ready.saturating_sub(record.working),
                tasks: record.tasks,
                memory_bytes: record.memory_bytes,
                end: record.end.as_ref().map(|(_, how)| how.clone()),
            }
        });
        PoolStats {
            tasks_done,
            tasks_failed,
            tasks_retried,
            workers_started,
            workers_lost,
            workers: workers.collect(),
            slowest: self.slowest.iter().rev().copied().collect(),
        }
    }

    /// A picture of who worked on what when: a row for each worker, a bar for each of the last tasks.
    pub(crate) fn timeline(&self) -> Option<String> {
        let spans = self.spans.as_ref()?;
        const WIDTH: f64 = 1000.0;
        const ROW: usize = 18;
        const LEFT: f64 = 120.0;
        let from = spans.iter().map(|span| span.from).min().unwrap_or_default();
        let to = spans.iter().map(|span| span.from + span.time).max().unwrap_or_default();
        let scale = WIDTH / (to - from).as_secs_f64().max(1e-9);
        let rows: Vec<WorkerId> = self
            .workers
            .keys()
            .copied()
            .filter(|worker| spans.iter().any(|span| span.worker == *worker))
            .collect();
        let height = ROW * (rows.len() + 2);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"11\">\n",
            WIDTH + LEFT + 20.0
        );
        // Writing to a string does not fail.
        for (row, worker) in rows.iter().enumerate() {
            let y = row * ROW;
            let pid = self.workers.get(worker).map_or(0, |record| record.pid);
            let _ = writeln!(svg, "<text x=\"4\" y=\"{}\">worker {worker} ({pid})</text>", y + 13);
            for span in spans.iter().filter(|span| span.worker == *worker) {
                let x = LEFT + (span.from - from).as_secs_f64() * scale;
                let width = (span.time.as_secs_f64() * scale).max(0.5);
                let hue = span.task % 12 * 30;
                let _ = writeln!(
                    svg,
                    "<rect x=\"{x:.2}\" y=\"{}\" width=\"{width:.2}\" height=\"{}\" fill=\"hsl({hue},60%,55%)\"><title>task {}, {:.3} ms</title></rect>",
                    y + 2,
                    ROW - 4,
                    span.task,
                    span.time.as_secs_f64() * 1e3
                );
            }
        }
        let _ = writeln!(
            svg,
            "<text x=\"{LEFT}\" y=\"{}\">0 to {:.3} s</text>\n</svg>",
            height - ROW / 2,
            (to - from).as_secs_f64()
        );
        Some(svg)
    }
}
