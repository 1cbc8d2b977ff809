//! Which task is where: the pool's state machine, without processes and channels.
//!
//! ```text
//! task     queued ─ assign ─► with worker w ─ finished ─► gone
//!             ▲                    │ w died
//!             ├── it was behind the one that w ran ◄┤
//!             └── it was the one, tries are left ◄──┤
//!                                                   └── it was the one, no tries left ─► lost
//! worker   starting ─ ready ─► live ─ died ─► gone; its place is filled by the pool
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
    /// It was being run and has used up its tries.
    Lost(TaskId),
    /// It was being run and will be run again.
    Retried(TaskId),
    /// It had not been begun.
    Requeued(TaskId),
}

#[derive(Debug)]
struct Worker {
    ready: bool,
    tasks: VecDeque<TaskId>,
}

/// The state machine.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    retries: u32,
    queue: VecDeque<TaskId>,
    /// Deaths that each unfinished task has been charged with.
    charged: HashMap<TaskId, u32>,
    workers: HashMap<WorkerId, Worker>,
}

impl Dispatcher {
    pub(crate) fn new(retries: u32) -> Self {
        Self { retries, queue: VecDeque::new(), charged: HashMap::new(), workers: HashMap::new() }
    }

    pub(crate) fn submit(&mut self, task: TaskId) {
        self.charged.insert(task, 0);
        self.queue.push_back(task);
    }

    pub(crate) fn worker_started(&mut self, worker: WorkerId) {
        self.workers.insert(worker, Worker { ready: false, tasks: VecDeque::new() });
    }

    pub(crate) fn worker_ready(&mut self, worker: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.ready = true;
        }
    }

    pub(crate) fn is_ready(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(|worker| worker.ready)
    }

    /// Takes a queued task for the worker that has the least to do; `None` if there is no task or no room.
    pub(crate) fn assign(&mut self) -> Option<(WorkerId, TaskId)> {
        let (&id, worker) = self
            .workers
            .iter_mut()
            .filter(|(_, worker)| worker.tasks.len() < WINDOW)
            .min_by_key(|(id, worker)| (worker.tasks.len(), !worker.ready, **id))?;
        let task = self.queue.pop_front()?;
        worker.tasks.push_back(task);
        Some((id, task))
    }

    /// A result arrived, or the task could not be sent.
    pub(crate) fn finished(&mut self, worker: WorkerId, task: TaskId) {
        self.charged.remove(&task);
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.tasks.retain(|&one| one != task);
        }
    }

    /// Nobody wants the task any more; says whether it had not been assigned, and so is gone at once.
    pub(crate) fn forget(&mut self, task: TaskId) -> bool {
        let before = self.queue.len();
        self.queue.retain(|&one| one != task);
        let was_queued = self.queue.len() < before;
        if was_queued {
            self.charged.remove(&task);
        }
        was_queued
    }

    /// A worker died, and all its results have been taken in.
    pub(crate) fn died(&mut self, worker: WorkerId) -> Vec<Fate> {
        let Some(worker) = self.workers.remove(&worker) else { return Vec::new() };
        let mut fates = Vec::new();
        let mut tasks = worker.tasks.into_iter();
        // A worker that was not ready has run nothing.
        let running = if worker.ready { tasks.next() } else { None };
        for task in tasks.rev() {
            self.queue.push_front(task);
            fates.push(Fate::Requeued(task));
        }
        if let Some(task) = running {
            let charged = self.charged.entry(task).or_insert(0);
            *charged += 1;
            if *charged > self.retries {
                self.charged.remove(&task);
                fates.push(Fate::Lost(task));
            } else {
                self.queue.push_front(task);
                fates.push(Fate::Retried(task));
            }
        }
        fates
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

    fn with_workers(retries: u32, workers: &[WorkerId]) -> Dispatcher {
        let mut dispatcher = Dispatcher::new(retries);
        for &worker in workers {
            dispatcher.worker_started(worker);
            dispatcher.worker_ready(worker);
        }
        dispatcher
    }

    #[test]
    fn tasks_go_to_the_worker_with_the_least_to_do_and_stop_at_the_window() {
        let mut dispatcher = with_workers(0, &[1, 2]);
        (0..5).for_each(|task| dispatcher.submit(task));
        let assigned: Vec<_> = std::iter::from_fn(|| dispatcher.assign()).collect();
        assert_eq!(assigned, [(1, 0), (2, 1), (1, 2), (2, 3)]);
        dispatcher.finished(2, 1);
        assert_eq!(dispatcher.assign(), Some((2, 4)));
        assert_eq!(dispatcher.assign(), None);
    }

    #[test]
    fn only_the_task_that_was_run_is_charged_with_a_death() {
        let mut dispatcher = with_workers(1, &[1]);
        dispatcher.submit(10);
        dispatcher.submit(11);
        while dispatcher.assign().is_some() {}
        assert_eq!(dispatcher.died(1), [Fate::Requeued(11), Fate::Retried(10)]);
        dispatcher.worker_started(2);
        dispatcher.worker_ready(2);
        assert_eq!(dispatcher.assign(), Some((2, 10)));
        assert_eq!(dispatcher.assign(), Some((2, 11)));
        assert_eq!(dispatcher.died(2), [Fate::Requeued(11), Fate::Lost(10)]);
    }

    #[test]
    fn a_worker_that_was_not_ready_has_run_nothing() {
        let mut dispatcher = Dispatcher::new(0);
        dispatcher.worker_started(1);
        dispatcher.submit(10);
        assert_eq!(dispatcher.assign(), Some((1, 10)));
        assert_eq!(dispatcher.died(1), [Fate::Requeued(10)]);
    }

    /// Random events against a plain model: every task ends exactly once, finished or lost, and lost ones were charged with as many
    /// deaths as the policy allows.
    #[test]
    fn random_events_leave_every_task_with_one_end() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let retries = random.u32(0..3);
            let mut dispatcher = Dispatcher::new(retries);
            let mut held: HashMap<WorkerId, VecDeque<TaskId>> = HashMap::new();
            let mut ready: HashSet<WorkerId> = HashSet::new();
            let mut deaths: HashMap<TaskId, u32> = HashMap::new();
            let (mut next_task, mut next_worker) = (0, 0);
            let mut ended: HashSet<TaskId> = HashSet::new();
            let mut steps = 0;
            while steps < 500 || !held.is_empty() && ended.len() < deaths.len() {
                steps += 1;
                assert!(steps < 50_000, "seed {seed}: the tasks do not come to an end");
                let worker = held.keys().copied().min_by_key(|_| random.u32(..));
                match random.u32(0..8) {
                    0 if steps < 500 => {
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
                    3 if steps < 500 => {
                        if let Some(worker) = worker {
                            let tasks = held.remove(&worker).unwrap();
                            let running = tasks.front().copied().filter(|_| ready.contains(&worker));
                            let fates = dispatcher.died(worker);
                            assert_eq!(fates.len(), tasks.len());
                            for fate in fates {
                                match fate {
                                    Fate::Requeued(task) => {
                                        assert!(tasks.contains(&task) && running != Some(task))
                                    }
                                    Fate::Retried(task) | Fate::Lost(task) => {
                                        assert_eq!(running, Some(task));
                                        *deaths.get_mut(&task).unwrap() += 1;
                                        let lost = deaths[&task] > retries;
                                        assert_eq!(fate == Fate::Lost(task), lost);
                                        assert!(!lost || ended.insert(task));
                                    }
                                }
                            }
                        }
                    }
                    4 | 5 => {
                        if let Some((worker, task)) = dispatcher.assign() {
                            held.get_mut(&worker).unwrap().push_back(task);
                            assert!(held[&worker].len() <= WINDOW);
                        }
                    }
                    _ => {
                        if let Some(worker) = worker.filter(|worker| ready.contains(worker))
                            && let Some(task) = held.get_mut(&worker).unwrap().pop_front()
                        {
                            dispatcher.finished(worker, task);
                            assert!(ended.insert(task), "seed {seed}: task {task} ended twice");
                        }
                    }
                }
                assert_eq!(dispatcher.unfinished(), deaths.len() - ended.len());
            }
            assert!(held.is_empty() || ended.len() == deaths.len(), "seed {seed}");
        }
    }
}
