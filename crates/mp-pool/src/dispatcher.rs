//! Which task is where: the pool's state machine, without processes and channels.
//!
//! ```text
//! task     queued ─ assign ─► behind others at w, or run by w ─ finished ─► gone
//!             ▲                    │ w died
//!             ├── was behind ◄─────┤
//!             ├── taken back ◄─────┤ before w began it, or there was no room in its channel
//!             └── again ◄── was run: the pool says whether it is charged and gone, or run again
//!          cancel: queued ─► gone; behind ─► unwanted: taken back, or w is ended when it begins it; run ─► w is to be ended
//! worker   starting ─ ready ─► live ─ retire ─► gets nothing more ─ has nothing left ─► spent
//!          any ─ died ─► gone
//! ```
//!
//! A worker works off its tasks in the order they were assigned, so of those whose results have not arrived the first is the one it
//! ran when it died. The caller takes in all results that had arrived before it reports a death.
//!
//! How many tasks a worker has at a time follows what they cost ([`pace`](Dispatcher::pace)): two of those that take long, so that the next one is
//! there when the first is done; many of those that take less than handing them over, so that this is done many at once.

use rustc_hash::FxHashMap;
use std::collections::VecDeque;

/// Tasks a worker has at least room for: the one it runs, and one to go on with while the result of the first travels.
pub(crate) const WINDOW: usize = 2;
/// Tasks a worker has at most.
pub(crate) const WINDOW_MAX: usize = 64;
/// The work that a worker has at most, in nanoseconds, if that is more than [`WINDOW`] tasks.
const AHEAD_NANOS: u64 = 50_000;

/// Names a task; never used again.
pub(crate) type TaskId = u64;
/// Names a worker; never used again.
pub(crate) type WorkerId = u64;

/// What a worker's death means for a task it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was being run: it may be [charged](Dispatcher::charge); it is [run again](Dispatcher::again), or [gone](Dispatcher::gone).
    Run(TaskId),
    /// It had not been begun.
    Requeued(TaskId),
}

/// Where a task was that is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cancelled {
    /// No worker had it; or it is not known.
    Gone,
    /// This worker runs it, and is to be ended.
    Run(WorkerId),
    /// This worker has it behind another one.
    Behind(WorkerId),
}

#[derive(Debug)]
struct Task {
    /// Deaths that it has been charged with.
    deaths: u32,
    /// The worker that has it; `None` while it is queued.
    at: Option<WorkerId>,
}

#[derive(Debug)]
struct Worker {
    ready: bool,
    retires: bool,
    tasks: VecDeque<TaskId>,
    /// The most tasks that it has room for.
    most: usize,
    /// It is given tasks until its window is full; then none until half of it is free, so that they come many at once.
    fills: bool,
    /// How many it was given.
    given: u64,
    /// There was no room for a task although it has few. It gets none until it has done one.
    is_stuck: bool,
}

/// The state machine.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    /// Ids of queued tasks in their order, and of some that were withdrawn since.
    queue: VecDeque<TaskId>,
    /// How many of them are queued.
    queued: usize,
    /// Those that are not finished. What a worker has and is not in here any more is unwanted.
    tasks: FxHashMap<TaskId, Task>,
    workers: FxHashMap<WorkerId, Worker>,
    /// What a task takes these days, in nanoseconds.
    nanos: u64,
}

impl Default for Dispatcher {
    fn default() -> Self {
        let (tasks, workers) = (FxHashMap::default(), FxHashMap::default());
        Self { queue: VecDeque::new(), queued: 0, tasks, workers, nanos: AHEAD_NANOS }
    }
}

impl Dispatcher {
    pub(crate) fn submit(&mut self, task: TaskId) {
        self.tasks.insert(task, Task { deaths: 0, at: None });
        self.queue.push_back(task);
        self.queued += 1;
    }

    /// Takes up a worker that has room for `most` tasks.
    pub(crate) fn worker_started(&mut self, worker: WorkerId, most: usize) {
        let tasks = VecDeque::new();
        let new =
            Worker { ready: false, retires: false, tasks, most, fills: true, given: 0, is_stuck: false };
        self.workers.insert(worker, new);
    }

    pub(crate) fn worker_ready(&mut self, worker: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.ready = true;
        }
    }

    pub(crate) fn is_ready(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(|worker| worker.ready)
    }

    /// How many tasks a worker has.
    pub(crate) fn load(&self, worker: WorkerId) -> usize {
        self.workers.get(&worker).map_or(0, |worker| worker.tasks.len())
    }

    /// How many tasks a worker was given so far.
    pub(crate) fn given(&self, worker: WorkerId) -> u64 {
        self.workers.get(&worker).map_or(0, |worker| worker.given)
    }

    /// The task that a worker runs.
    pub(crate) fn running(&self, worker: WorkerId) -> Option<TaskId> {
        let worker = self.workers.get(&worker).filter(|worker| worker.ready)?;
        worker.tasks.front().copied()
    }

    /// Workers that run what nobody wants any more.
    pub(crate) fn wasting(&self) -> impl Iterator<Item = WorkerId> {
        let wastes =
            |worker: &&WorkerId| self.running(**worker).is_some_and(|task| !self.tasks.contains_key(&task));
        self.workers.keys().filter(wastes).copied()
    }

    /// Whether a worker has what nobody wants any more.
    pub(crate) fn has_unwanted(&self) -> bool {
        let tasks = self.workers.values().flat_map(|worker| &worker.tasks);
        tasks.into_iter().any(|task| !self.tasks.contains_key(task))
    }

    /// Notes what a task took. What takes longer than before counts at once: many of those behind one another would wait.
    pub(crate) fn pace(&mut self, nanos: u64) {
        self.nanos = if nanos > self.nanos { nanos } else { self.nanos - (self.nanos - nanos) / 8 };
    }

    /// How many tasks a worker is to have at a time, as tasks go these days.
    pub(crate) fn window(&self) -> usize {
        usize::try_from(AHEAD_NANOS / self.nanos.max(1)).unwrap_or(WINDOW_MAX).clamp(WINDOW, WINDOW_MAX)
    }

    /// Whether tasks cost so little that fewer workers do more: handing over takes longer than they do.
    pub(crate) fn packs(&self) -> bool {
        self.window() > 4 * WINDOW
    }

    /// Takes a queued task for the worker that has the least to do, or, if tasks [cost little](Self::packs), the most, as long as it has room: it is
    /// awake, and others need not be woken. `None` if there is no task or no room.
    pub(crate) fn assign(&mut self) -> Option<(WorkerId, TaskId)> {
        if self.queued == 0 {
            return None;
        }
        let (window, packs) = (self.window(), self.packs());
        for worker in self.workers.values_mut() {
            let window = window.min(worker.most);
            // Of a window of two one is half.
            worker.fills = worker.tasks.len() < window && (worker.fills || worker.tasks.len() <= window / 2);
        }
        let (&id, worker) = self
            .workers
            .iter_mut()
            .filter(|(_, worker)| !worker.retires && !worker.is_stuck && worker.fills)
            .min_by_key(|(id, worker)| {
                let load = worker.tasks.len();
                (!packs || !worker.ready, if packs { WINDOW_MAX - load } else { load }, !worker.ready, **id)
            })?;
        loop {
            let task = self.queue.pop_front()?;
            // One that is not known any more was withdrawn.
            if let Some(known) = self.tasks.get_mut(&task) {
                known.at = Some(id);
                self.queued -= 1;
                worker.tasks.push_back(task);
                worker.given += 1;
                return Some((id, task));
            }
        }
    }

    /// There was no room for the task that a worker was [assigned](Self::assign) last: a worker that is stopped in the middle of taking one holds that
    /// one's place, also when those behind it were taken back and others sent. The task comes before all others, the worker gets nothing until
    /// it has done the one that it takes, or is dead.
    pub(crate) fn had_no_room(&mut self, worker: WorkerId, task: TaskId) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.is_stuck = true;
        }
        self.taken_back(worker, &[task]);
    }

    /// A result arrived, or the task could not be sent. Says whether the worker had it.
    pub(crate) fn finished(&mut self, worker: WorkerId, task: TaskId) -> bool {
        let Some(worker) = self.workers.get_mut(&worker) else { return false };
        let Some(place) = worker.tasks.iter().position(|&one| one == task) else { return false };
        worker.tasks.remove(place);
        worker.is_stuck = false;
        self.tasks.remove(&task);
        true
    }

    /// Takes a task back that no worker has yet; says whether that was so.
    pub(crate) fn withdraw(&mut self, task: TaskId) -> bool {
        let was_queued = self.tasks.get(&task).is_some_and(|known| known.at.is_none());
        if was_queued {
            self.tasks.remove(&task);
            self.queued -= 1;
            if self.queue.len() > 2 * self.queued + WINDOW_MAX {
                self.queue.retain(|task| self.tasks.get(task).is_some_and(|known| known.at.is_none()));
            }
        }
        was_queued
    }

    /// Nobody wants the task any more.
    pub(crate) fn cancel(&mut self, task: TaskId) -> Cancelled {
        if self.withdraw(task) {
            return Cancelled::Gone;
        }
        match self.tasks.remove(&task).and_then(|known| known.at) {
            None => Cancelled::Gone,
            Some(worker) if self.running(worker) == Some(task) => Cancelled::Run(worker),
            Some(worker) => Cancelled::Behind(worker),
        }
    }

    /// Gives a worker nothing more.
    pub(crate) fn retire(&mut self, worker: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.retires = true;
        }
    }

    /// Workers that retire and have nothing left to do.
    pub(crate) fn spent(&self) -> Vec<WorkerId> {
        let is_spent = |worker: &Worker| worker.retires && worker.tasks.is_empty();
        self.workers.iter().filter(|(_, worker)| is_spent(worker)).map(|(id, _)| *id).collect()
    }

    /// Workers that get tasks.
    pub(crate) fn active(&self) -> impl Iterator<Item = WorkerId> {
        self.workers.iter().filter(|(_, worker)| !worker.retires).map(|(id, _)| *id)
    }

    /// Whether a worker has nothing to do, and no task is queued that it could be given.
    pub(crate) fn has_idle(&self) -> bool {
        self.queued == 0
            && self.workers.values().any(|worker| worker.ready && !worker.retires && worker.tasks.is_empty())
    }

    /// Workers that have tasks behind the one they run.
    pub(crate) fn with_tasks_behind(&self) -> impl Iterator<Item = WorkerId> {
        let has_some = |worker: &Worker| worker.ready && worker.tasks.len() > 1;
        self.workers.iter().filter(move |(_, worker)| has_some(worker)).map(|(id, _)| *id)
    }

    /// These were taken back from a worker, in the order in which it had them, before it began them: those that somebody wants come before all others,
    /// and are given back. What the worker did not have is passed over.
    pub(crate) fn taken_back(&mut self, worker: WorkerId, tasks: &[TaskId]) -> Vec<TaskId> {
        let mut wanted = Vec::new();
        let Some(worker) = self.workers.get_mut(&worker) else { return wanted };
        for &task in tasks.iter().rev() {
            let Some(place) = worker.tasks.iter().rposition(|&one| one == task) else { continue };
            worker.tasks.remove(place);
            worker.given -= 1;
            if let Some(known) = self.tasks.get_mut(&task) {
                known.at = None;
                self.queue.push_front(task);
                self.queued += 1;
                wanted.push(task);
            }
        }
        wanted
    }

    /// A worker died, or is let go of, and all its results have been taken in.
    pub(crate) fn died(&mut self, worker: WorkerId) -> Vec<Fate> {
        let Some(worker) = self.workers.remove(&worker) else { return Vec::new() };
        let mut fates = Vec::new();
        let mut tasks = worker.tasks.into_iter();
        // A worker that was not ready has run nothing.
        let running = if worker.ready { tasks.next() } else { None };
        for task in tasks.rev() {
            if let Some(known) = self.tasks.get_mut(&task) {
                known.at = None;
                self.queue.push_front(task);
                self.queued += 1;
                fates.push(Fate::Requeued(task));
            }
        }
        fates.extend(running.filter(|task| self.tasks.contains_key(task)).map(Fate::Run));
        fates
    }

    /// Charges a task that was run with the death of its worker; gives how many it is charged with.
    pub(crate) fn charge(&mut self, task: TaskId) -> u32 {
        self.tasks.get_mut(&task).map_or(0, |known| {
            known.deaths += 1;
            known.deaths
        })
    }

    /// Runs a task again, before all others.
    pub(crate) fn again(&mut self, task: TaskId) {
        if let Some(known) = self.tasks.get_mut(&task) {
            known.at = None;
            self.queue.push_front(task);
            self.queued += 1;
        }
    }

    /// A task that a death has ended.
    pub(crate) fn gone(&mut self, task: TaskId) {
        self.tasks.remove(&task);
    }

    /// Tasks that no worker has yet.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// Tasks that are not finished.
    pub(crate) fn unfinished(&self) -> usize {
        self.tasks.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};

    fn with_workers(workers: &[WorkerId]) -> Dispatcher {
        let mut dispatcher = Dispatcher::default();
        for &worker in workers {
            dispatcher.worker_started(worker, WINDOW_MAX);
            dispatcher.worker_ready(worker);
        }
        dispatcher
    }

    #[test]
    fn tasks_go_to_the_worker_with_the_least_to_do_and_stop_at_the_window() {
        let mut dispatcher = with_workers(&[1, 2]);
        (0..5).for_each(|task| dispatcher.submit(task));
        let assigned: Vec<_> = std::iter::from_fn(|| dispatcher.assign()).collect();
        assert_eq!(assigned, [(1, 0), (2, 1), (1, 2), (2, 3)]);
        dispatcher.finished(2, 1);
        assert_eq!(dispatcher.assign(), Some((2, 4)));
        assert_eq!(dispatcher.assign(), None);
    }

    #[test]
    fn only_the_task_that_was_run_may_be_charged_with_a_death() {
        let mut dispatcher = with_workers(&[1]);
        dispatcher.submit(10);
        dispatcher.submit(11);
        while dispatcher.assign().is_some() {}
        assert_eq!(dispatcher.died(1), [Fate::Requeued(11), Fate::Run(10)]);
        assert_eq!(dispatcher.charge(10), 1);
        dispatcher.again(10);
        dispatcher.worker_started(2, WINDOW_MAX);
        dispatcher.worker_ready(2);
        assert_eq!(dispatcher.assign(), Some((2, 10)));
        assert_eq!(dispatcher.assign(), Some((2, 11)));
        assert_eq!(dispatcher.died(2), [Fate::Requeued(11), Fate::Run(10)]);
        assert_eq!(dispatcher.charge(10), 2);
        dispatcher.gone(10);
        assert_eq!(dispatcher.unfinished(), 1);
    }

    #[test]
    fn a_worker_that_was_not_ready_has_run_nothing() {
        let mut dispatcher = Dispatcher::default();
        dispatcher.worker_started(1, WINDOW_MAX);
        dispatcher.submit(10);
        assert_eq!(dispatcher.assign(), Some((1, 10)));
        assert_eq!(dispatcher.running(1), None);
        assert_eq!(dispatcher.died(1), [Fate::Requeued(10)]);
    }

    #[test]
    fn a_cancelled_task_is_gone_or_ends_its_worker_at_its_turn() {
        let mut dispatcher = with_workers(&[1]);
        (0..4).for_each(|task| dispatcher.submit(task));
        while dispatcher.assign().is_some() {}
        assert_eq!(dispatcher.cancel(3), Cancelled::Gone);
        assert_eq!(dispatcher.cancel(1), Cancelled::Behind(1));
        assert_eq!(dispatcher.wasting().count(), 0, "not begun yet");
        dispatcher.finished(1, 0);
        assert!(dispatcher.wasting().eq([1]));
        assert_eq!(dispatcher.assign(), Some((1, 2)));
        assert_eq!(dispatcher.died(1), [Fate::Requeued(2)], "nobody asks for the cancelled one");
        dispatcher.worker_started(2, WINDOW_MAX);
        dispatcher.worker_ready(2);
        assert_eq!(dispatcher.assign(), Some((2, 2)));
        assert_eq!(dispatcher.cancel(2), Cancelled::Run(2));
        assert_eq!(dispatcher.died(2), []);
        assert_eq!((dispatcher.unfinished(), dispatcher.queued()), (0, 0));
    }

    #[test]
    fn a_worker_without_room_gets_nothing_until_it_has_done_a_task() {
        let mut dispatcher = with_workers(&[1, 2]);
        (0..6).for_each(|task| dispatcher.submit(task));
        assert_eq!(dispatcher.assign(), Some((1, 0)));
        assert_eq!(dispatcher.assign(), Some((2, 1)));
        assert_eq!(dispatcher.assign(), Some((1, 2)));
        dispatcher.had_no_room(1, 2);
        assert_eq!((dispatcher.load(1), dispatcher.given(1), dispatcher.queued()), (1, 1, 4));
        assert_eq!(dispatcher.assign(), Some((2, 2)), "before all others");
        assert_eq!(dispatcher.assign(), None);
        assert!(dispatcher.finished(1, 0));
        assert_eq!(dispatcher.assign(), Some((1, 3)));
    }

    #[test]
    fn tasks_that_cost_little_come_many_at_once() {
        let mut dispatcher = with_workers(&[1]);
        (0..200).for_each(|task| dispatcher.submit(task));
        (0..200).for_each(|_| dispatcher.pace(100));
        assert_eq!(dispatcher.window(), WINDOW_MAX);
        let given = |dispatcher: &mut Dispatcher| std::iter::from_fn(|| dispatcher.assign()).count();
        assert_eq!(given(&mut dispatcher), WINDOW_MAX);
        (0..31).for_each(|task| assert!(dispatcher.finished(1, task)));
        assert_eq!(given(&mut dispatcher), 0, "not until half of its window is free");
        assert!(dispatcher.finished(1, 31));
        assert_eq!(given(&mut dispatcher), 32);
        dispatcher.pace(1_000_000);
        assert_eq!(dispatcher.window(), WINDOW, "one that takes long counts at once");
        (32..95).for_each(|task| assert!(dispatcher.finished(1, task)));
        assert_eq!(given(&mut dispatcher), 1);
    }

    #[test]
    fn what_is_taken_back_goes_to_who_is_idle() {
        let mut dispatcher = with_workers(&[1, 2]);
        (0..4).for_each(|task| dispatcher.submit(task));
        while dispatcher.assign().is_some() {}
        assert!(!dispatcher.has_idle());
        assert_eq!(dispatcher.cancel(2), Cancelled::Behind(1));
        dispatcher.finished(2, 1);
        dispatcher.finished(2, 3);
        assert!(dispatcher.has_idle());
        assert!(dispatcher.with_tasks_behind().eq([1]));
        dispatcher.submit(4);
        assert!(!dispatcher.has_idle(), "there is something for it");
        assert!(dispatcher.taken_back(1, &[2]).is_empty());
        assert_eq!((dispatcher.queued(), dispatcher.load(1)), (1, 1), "nobody wants that one");
        assert_eq!(dispatcher.assign(), Some((2, 4)));
        dispatcher.submit(5);
        assert_eq!(dispatcher.assign(), Some((1, 5)));
        dispatcher.finished(2, 4);
        assert_eq!(dispatcher.taken_back(1, &[4, 5]), [5], "the other one is not there");
        assert_eq!(dispatcher.assign(), Some((2, 5)));
    }

    #[test]
    fn a_cancelled_task_that_its_worker_took_before_another_was_taken_back_is_wasted_work() {
        let mut dispatcher = with_workers(&[1]);
        (0..2).for_each(|task| dispatcher.submit(task));
        while dispatcher.assign().is_some() {}
        assert_eq!(dispatcher.cancel(1), Cancelled::Behind(1));
        assert_eq!(dispatcher.wasting().count(), 0);
        assert_eq!(dispatcher.taken_back(1, &[0]), [0]);
        assert!(dispatcher.wasting().eq([1]));
    }

    #[test]
    fn what_is_withdrawn_is_never_assigned_and_makes_no_heap() {
        let mut dispatcher = with_workers(&[]);
        (0..10_000).for_each(|task| dispatcher.submit(task));
        for task in (0..10_000).filter(|task| task % 100 != 0) {
            assert!(dispatcher.withdraw(task) && !dispatcher.withdraw(task));
        }
        assert!(dispatcher.queue.len() < 500, "{}", dispatcher.queue.len());
        dispatcher.worker_started(1, WINDOW);
        dispatcher.worker_ready(1);
        let mut assigned = Vec::new();
        while let Some((_, task)) = dispatcher.assign() {
            dispatcher.finished(1, task);
            assigned.push(task);
        }
        assert!(assigned.into_iter().eq((0..100).map(|task| task * 100)));
    }

    #[test]
    fn a_worker_that_retires_works_off_what_it_has() {
        let mut dispatcher = with_workers(&[1]);
        (0..3).for_each(|task| dispatcher.submit(task));
        while dispatcher.assign().is_some() {}
        dispatcher.retire(1);
        dispatcher.finished(1, 0);
        assert_eq!((dispatcher.assign(), dispatcher.spent()), (None, vec![]));
        dispatcher.finished(1, 1);
        assert_eq!(dispatcher.spent(), [1]);
        assert_eq!(dispatcher.active().count(), 0);
        assert_eq!(dispatcher.given(1), 2);
        assert_eq!(dispatcher.died(1), []);
    }

    /// Random events against a plain model: every task ends exactly once (finished, lost after as many deaths as are allowed, or cancelled), and no
    /// worker has more than the window.
    #[test]
    fn random_events_leave_every_task_with_one_end() {
        for seed in 0..300 {
            let mut random = fastrand::Rng::with_seed(seed);
            let retries = random.u32(0..3);
            let mut dispatcher = Dispatcher::default();
            let mut held: HashMap<WorkerId, VecDeque<TaskId>> = HashMap::new();
            let mut ready: HashSet<WorkerId> = HashSet::new();
            let mut retired: HashSet<WorkerId> = HashSet::new();
            let mut stuck: HashSet<WorkerId> = HashSet::new();
            let mut deaths: HashMap<TaskId, u32> = HashMap::new();
            let (mut next_task, mut next_worker) = (0, 0);
            let mut ended: HashSet<TaskId> = HashSet::new();
            let mut steps = 0;
            while steps < 500 || ended.len() < deaths.len() {
                steps += 1;
                assert!(steps < 50_000, "seed {seed}: the tasks do not come to an end");
                let worker = held.keys().copied().min_by_key(|_| random.u32(..));
                let is_begin = steps < 500;
                match random.u32(0..12) {
                    0 if is_begin => {
                        dispatcher.submit(next_task);
                        deaths.insert(next_task, 0);
                        next_task += 1;
                    }
                    1 if held.len() < 3 => {
                        dispatcher.worker_started(next_worker, random.usize(WINDOW..10));
                        held.insert(next_worker, VecDeque::new());
                        next_worker += 1;
                    }
                    2 => {
                        if let Some(worker) = worker {
                            dispatcher.worker_ready(worker);
                            ready.insert(worker);
                        }
                    }
                    3 if is_begin => {
                        if let Some(worker) = worker {
                            let tasks = held.remove(&worker).unwrap();
                            let running = tasks.front().copied().filter(|_| ready.contains(&worker));
                            for fate in dispatcher.died(worker) {
                                match fate {
                                    Fate::Requeued(task) => {
                                        assert!(tasks.contains(&task) && running != Some(task));
                                        assert!(!ended.contains(&task));
                                    }
                                    Fate::Run(task) => {
                                        assert_eq!(running, Some(task));
                                        *deaths.get_mut(&task).unwrap() += 1;
                                        assert_eq!(dispatcher.charge(task), deaths[&task]);
                                        if deaths[&task] > retries {
                                            dispatcher.gone(task);
                                            assert!(ended.insert(task));
                                        } else {
                                            dispatcher.again(task);
                                        }
                                    }
                                }
                            }
                        }
                    }
                    4 | 5 => {
                        if let Some((worker, task)) = dispatcher.assign() {
                            assert!(!retired.contains(&worker) && !ended.contains(&task));
                            assert!(!stuck.contains(&worker), "seed {seed}");
                            // The one that it takes holds its place.
                            if !held[&worker].is_empty() && random.u32(0..8) == 0 {
                                dispatcher.had_no_room(worker, task);
                                stuck.insert(worker);
                                continue;
                            }
                            held.get_mut(&worker).unwrap().push_back(task);
                            assert!(held[&worker].len() <= dispatcher.window().min(9), "seed {seed}");
                        }
                    }
                    6 if is_begin && next_task > 0 => {
                        let task = random.u64(0..next_task);
                        let at = held.iter().find(|(_, tasks)| tasks.contains(&task));
                        let is_run = at
                            .filter(|(worker, tasks)| ready.contains(worker) && tasks.front() == Some(&task));
                        let expected = match (at, is_run) {
                            _ if ended.contains(&task) => Cancelled::Gone,
                            (_, Some((worker, _))) => Cancelled::Run(*worker),
                            (Some((worker, _)), None) => Cancelled::Behind(*worker),
                            (None, None) => Cancelled::Gone,
                        };
                        assert_eq!(dispatcher.cancel(task), expected, "seed {seed}");
                        ended.insert(task);
                    }
                    7 if is_begin => {
                        if let Some(worker) = worker {
                            dispatcher.retire(worker);
                            retired.insert(worker);
                        }
                    }
                    8 => {
                        let nanos = 1 << random.u32(0..24);
                        (0..random.u32(0..100)).for_each(|_| dispatcher.pace(nanos));
                    }
                    9 => {
                        if let Some(worker) = worker.filter(|worker| ready.contains(worker))
                            && held[&worker].len() > 1
                        {
                            assert!(dispatcher.with_tasks_behind().any(|one| one == worker));
                            let tasks = held.get_mut(&worker).unwrap();
                            // It takes some of them meanwhile, not the first ones alone; a stuck one is taking one.
                            let mut takes = stuck.contains(&worker);
                            let stays = |_: &TaskId| std::mem::take(&mut takes) || random.bool();
                            let (kept, back): (Vec<_>, Vec<_>) = tasks.drain(..).partition(stays);
                            tasks.extend(kept);
                            let wanted: Vec<_> =
                                back.iter().rev().copied().filter(|task| !ended.contains(task)).collect();
                            assert_eq!(dispatcher.taken_back(worker, &back), wanted);
                        }
                    }
                    10 => {
                        for worker in dispatcher.spent() {
                            assert!(retired.contains(&worker) && held.remove(&worker).unwrap().is_empty());
                            assert_eq!(dispatcher.died(worker), []);
                        }
                    }
                    _ => {
                        if let Some(worker) = worker.filter(|worker| ready.contains(worker))
                            && let Some(task) = held.get_mut(&worker).unwrap().pop_front()
                        {
                            let wastes = dispatcher.wasting().any(|one| one == worker);
                            assert_eq!(wastes, ended.contains(&task), "seed {seed}");
                            dispatcher.finished(worker, task);
                            stuck.remove(&worker);
                            assert!(wastes || ended.insert(task), "seed {seed}: task {task} ended twice");
                        }
                    }
                }
                assert_eq!(dispatcher.unfinished(), deaths.len() - ended.len());
            }
        }
    }
}
