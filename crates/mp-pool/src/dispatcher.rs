//! Which task is where: the pool's state machine, without processes and channels.
//!
//! ```text
//! task     queued ─ assign ─► behind others at w, or run by w ─ finished ─► gone
//!             ▲                    │ w died
//!             ├── was behind ◄─────┤
//!             └── again ◄── was run: the pool says whether it is charged and gone, or run again
//!          cancel: queued ─► gone; behind ─► unwanted, and w is ended when it begins it; run ─► w is to be ended
//! worker   starting ─ ready ─► live ─ retire ─► gets nothing more ─ has nothing left ─► spent
//!          any ─ died ─► gone
//! ```
//!
//! A worker works off its tasks in the order they were assigned, so of those whose results have not arrived the first is the one it
//! ran when it died. The caller takes in all results that had arrived before it reports a death.

use std::collections::{HashMap, VecDeque};

/// Tasks a worker has at most: the one it runs, and one to go on with while the result of the first travels.
pub(crate) const WINDOW: usize = 2;

/// Names a task.
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
    /// A worker has it behind another one.
    Behind,
}

#[derive(Debug)]
struct Worker {
    ready: bool,
    retires: bool,
    tasks: VecDeque<TaskId>,
    /// How many it was given.
    given: u64,
}

/// The state machine.
#[derive(Debug, Default)]
pub(crate) struct Dispatcher {
    queue: VecDeque<TaskId>,
    /// Deaths that each unfinished task has been charged with. What is not in here any more is unwanted.
    charged: HashMap<TaskId, u32>,
    workers: HashMap<WorkerId, Worker>,
}

impl Dispatcher {
    pub(crate) fn submit(&mut self, task: TaskId) {
        self.charged.insert(task, 0);
        self.queue.push_back(task);
    }

    pub(crate) fn worker_started(&mut self, worker: WorkerId) {
        let new = Worker { ready: false, retires: false, tasks: VecDeque::new(), given: 0 };
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
            |worker: &&WorkerId| self.running(**worker).is_some_and(|task| !self.charged.contains_key(&task));
        self.workers.keys().filter(wastes).copied()
    }

    /// Whether a worker has what nobody wants any more.
    pub(crate) fn has_unwanted(&self) -> bool {
        let tasks = self.workers.values().flat_map(|worker| &worker.tasks);
        tasks.into_iter().any(|task| !self.charged.contains_key(task))
    }

    /// Takes a queued task for the worker that has the least to do; `None` if there is no task or no room.
    pub(crate) fn assign(&mut self) -> Option<(WorkerId, TaskId)> {
        if self.queue.is_empty() {
            return None;
        }
        let (&id, worker) = self
            .workers
            .iter_mut()
            .filter(|(_, worker)| !worker.retires && worker.tasks.len() < WINDOW)
            .min_by_key(|(id, worker)| (worker.tasks.len(), !worker.ready, **id))?;
        let task = self.queue.pop_front()?;
        worker.tasks.push_back(task);
        worker.given += 1;
        Some((id, task))
    }

    /// A result arrived, or the task could not be sent. Says whether the worker had it.
    pub(crate) fn finished(&mut self, worker: WorkerId, task: TaskId) -> bool {
        let Some(worker) = self.workers.get_mut(&worker) else { return false };
        let Some(place) = worker.tasks.iter().position(|&one| one == task) else { return false };
        worker.tasks.remove(place);
        self.charged.remove(&task);
        true
    }

    /// Takes a task back that no worker has yet; says whether that was so.
    pub(crate) fn withdraw(&mut self, task: TaskId) -> bool {
        let before = self.queue.len();
        self.queue.retain(|&one| one != task);
        let was_queued = self.queue.len() < before;
        if was_queued {
            self.charged.remove(&task);
        }
        was_queued
    }

    /// Nobody wants the task any more.
    pub(crate) fn cancel(&mut self, task: TaskId) -> Cancelled {
        if self.withdraw(task) {
            return Cancelled::Gone;
        }
        self.charged.remove(&task);
        match self.workers.iter().find(|(_, worker)| worker.tasks.contains(&task)) {
            None => Cancelled::Gone,
            Some((&worker, _)) if self.running(worker) == Some(task) => Cancelled::Run(worker),
            Some(_) => Cancelled::Behind,
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

    /// A worker died, or is let go of, and all its results have been taken in.
    pub(crate) fn died(&mut self, worker: WorkerId) -> Vec<Fate> {
        let Some(worker) = self.workers.remove(&worker) else { return Vec::new() };
        let mut fates = Vec::new();
        let mut tasks = worker.tasks.into_iter();
        // A worker that was not ready has run nothing.
        let running = if worker.ready { tasks.next() } else { None };
        for task in tasks.rev().filter(|task| self.charged.contains_key(task)) {
            self.queue.push_front(task);
            fates.push(Fate::Requeued(task));
        }
        fates.extend(running.filter(|task| self.charged.contains_key(task)).map(Fate::Run));
        fates
    }

    /// Charges a task with a death; gives how many it is charged with.
    pub(crate) fn charge(&mut self, task: TaskId) -> u32 {
        let charged = self.charged.entry(task).or_insert(0);
        *charged += 1;
        *charged
    }

    /// Runs a task again, before all others.
    pub(crate) fn again(&mut self, task: TaskId) {
        self.charged.entry(task).or_insert(0);
        self.queue.push_front(task);
    }

    /// A task that a death has ended.
    pub(crate) fn gone(&mut self, task: TaskId) {
        self.charged.remove(&task);
    }

    /// Tasks that no worker has yet.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Tasks that are not finished.
    pub(crate) fn unfinished(&self) -> usize {
        self.charged.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn with_workers(workers: &[WorkerId]) -> Dispatcher {
        let mut dispatcher = Dispatcher::default();
        for &worker in workers {
            dispatcher.worker_started(worker);
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
        dispatcher.worker_started(2);
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
        dispatcher.worker_started(1);
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
        assert_eq!(dispatcher.cancel(1), Cancelled::Behind);
        assert_eq!(dispatcher.wasting().count(), 0, "not begun yet");
        dispatcher.finished(1, 0);
        assert!(dispatcher.wasting().eq([1]));
        assert_eq!(dispatcher.assign(), Some((1, 2)));
        assert_eq!(dispatcher.died(1), [Fate::Requeued(2)], "nobody asks for the cancelled one");
        dispatcher.worker_started(2);
        dispatcher.worker_ready(2);
        assert_eq!(dispatcher.assign(), Some((2, 2)));
        assert_eq!(dispatcher.cancel(2), Cancelled::Run(2));
        assert_eq!(dispatcher.died(2), []);
        assert_eq!((dispatcher.unfinished(), dispatcher.queued()), (0, 0));
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
            let mut deaths: HashMap<TaskId, u32> = HashMap::new();
            let (mut next_task, mut next_worker) = (0, 0);
            let mut ended: HashSet<TaskId> = HashSet::new();
            let mut steps = 0;
            while steps < 500 || ended.len() < deaths.len() {
                steps += 1;
                assert!(steps < 50_000, "seed {seed}: the tasks do not come to an end");
                let worker = held.keys().copied().min_by_key(|_| random.u32(..));
                let is_begin = steps < 500;
                match random.u32(0..10) {
                    0 if is_begin => {
                        dispatcher.submit(next_task);
                        deaths.insert(next_task, 0);
                        next_task += 1;
                    }
                    1 if held.len() < 3 => {
                        dispatcher.worker_started(next_worker);
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
                            held.get_mut(&worker).unwrap().push_back(task);
                            assert!(held[&worker].len() <= WINDOW);
                        }
                    }
                    6 if is_begin && next_task > 0 => {
                        let task = random.u64(0..next_task);
                        let at = held.iter().find(|(_, tasks)| tasks.contains(&task));
                        let is_run = at
                            .filter(|(worker, tasks)| ready.contains(worker) && tasks.front() == Some(&task));
                        let expected = match (at, is_run) {
                            (_, Some((worker, _))) => Cancelled::Run(*worker),
                            (Some(_), None) => Cancelled::Behind,
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
                            assert!(wastes || ended.insert(task), "seed {seed}: task {task} ended twice");
                        }
                    }
                }
                assert_eq!(dispatcher.unfinished(), deaths.len() - ended.len());
            }
        }
    }
}
