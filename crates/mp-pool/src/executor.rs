//! One way to hand out tasks, whoever does them.
//!
//! ```text
//! Executor       functions of this build        Pool, ThreadPool, Inline
//!    │ every one is also a
//! NamedExecutor  functions with a name          executors that reach beyond this build: a cluster
//! ```
//!
//! They are two traits because a function only becomes a function pointer where a parameter says so, and a function pointer has no name: equal
//! functions share an address. A parameter for either would have to take closures' types, which can carry what another
//! process never had (`mp_spawn::code`).

use crate::error::{MapError, TaskError};
use crate::failure;
use crate::named::NamedTask;
use crate::pool::Pool;
use crate::task::Task;
use mp_channel::connection::Plain;
use mp_shm::Message;
use std::collections::VecDeque;
use std::time::Duration;

/// Runs functions of this build: in processes ([`Pool`]), in threads ([`ThreadPool`](crate::ThreadPool)), in the caller
/// ([`Inline`](crate::Inline)).
///
/// Code that is generic over it is debugged with threads, or with nothing at all, and let loose on processes. It behaves the same: tasks are
/// handed out in the order of submission, a panic fails its task alone, a handle that is dropped takes its task back if nobody has begun it.
/// What threads cannot do is survive what ends the process.
///
/// # Examples
/// ```
/// use mp_pool::{Executor, Inline, Pool, TaskError, TaskHandle, ThreadPool};
///
/// fn square(n: u64) -> u64 { n * n }
///
/// fn sum_of_squares<E: Executor>(executor: &E, n: u64) -> Result<u64, TaskError> {
///     let tasks: Vec<_> = (0..n).map(|i| executor.submit(square, i)).collect::<Result<_, _>>()?;
///     tasks.into_iter().map(TaskHandle::get).sum()
/// }
///
/// assert_eq!(sum_of_squares(&Pool::builder().workers(2).build()?, 10)?, 285);
/// assert_eq!(sum_of_squares(&ThreadPool::new(2)?, 10)?, 285);
/// assert_eq!(sum_of_squares(&Inline, 10)?, 285);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot run functions of this build",
    label = "not an executor of functions",
    note = "`Pool`, `ThreadPool` and `Inline` can; an executor that reaches beyond this build is a `NamedExecutor`: \
            ask for that, and mark the functions `#[multiproc::task]`"
)]
pub trait Executor {
    /// A task that was submitted.
    type Task<R: Message + Send + 'static>: TaskHandle<R> + Send;

    /// Has `f(argument)` done.
    ///
    /// # Errors
    /// [`TaskError`]: the executor takes no tasks, or cannot name the function.
    fn submit<A, R>(&self, f: fn(A) -> R, argument: A) -> Result<Self::Task<R>, TaskError>
    where
        A: Message + Send + 'static,
        R: Message + Send + 'static;

    /// How many tasks it is worth having submitted at a time, at least 1; [`map`](Self::map) has no more.
    fn in_flight_max(&self) -> usize;

    /// Applies `f` to every input; gives the values in the order of the inputs, which are taken as tasks get done.
    ///
    /// # Errors
    /// [`MapError`]: the first task, in the order of the inputs, that has no value.
    fn map<A, R, I>(&self, f: fn(A) -> R, inputs: I) -> Result<Vec<R>, MapError>
    where
        A: Message + Send + 'static,
        R: Message + Send + 'static,
        I: IntoIterator<Item = A>,
    {
        in_order(inputs, self.in_flight_max(), |input| self.submit(f, input))
    }
}

/// Runs functions that are marked [`#[multiproc::task]`](macro@crate::task), which it may find by their names: so it can reach
/// another build of the program, or another machine. Every [`Executor`] is one.
///
/// Implement it for an executor that reaches beyond this build; [`named`](crate::named) has what travels.
///
/// # Examples
/// ```
/// use mp_pool::{Inline, NamedExecutor, TaskError, TaskHandle, ThreadPool, task};
///
/// #[task]
/// fn area(side: f64) -> f64 { side * side }
///
/// fn doubled<E: NamedExecutor>(executor: &E) -> Result<f64, TaskError> {
///     Ok(executor.submit(area, 2.0)?.get()? * area(2.0))
/// }
///
/// assert_eq!(doubled(&ThreadPool::new(2)?)?, 16.0);
/// assert_eq!(doubled(&Inline)?, 16.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
/// A function without the mark is an error of the compiler:
/// ```compile_fail,E0277
/// use mp_pool::{Inline, NamedExecutor, TaskError, TaskHandle, ThreadPool, task};
///
/// fn area(side: f64) -> f64 { side * side }
///
/// fn doubled<E: NamedExecutor>(executor: &E) -> Result<f64, TaskError> {
///     Ok(executor.submit(area, 2.0)?.get()? * area(2.0))
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot run marked functions",
    label = "not an executor",
    note = "`Pool`, `ThreadPool` and `Inline` can, and what implements `Executor` or `NamedExecutor`"
)]
pub trait NamedExecutor {
    /// A task that was submitted.
    type Task<R: Message + Plain + Send + 'static>: TaskHandle<R> + Send;

    /// Has `task`, a marked function, done with `argument`: a tuple if it has several parameters, `()` if it has none.
    ///
    /// # Errors
    /// [`TaskError`]: the executor takes no tasks.
    fn submit<T: NamedTask>(&self, task: T, argument: T::Argument)
    -> Result<Self::Task<T::Value>, TaskError>;

    /// As [`Executor::in_flight_max`].
    fn in_flight_max(&self) -> usize;

    /// Applies `task` to every input, as [`Executor::map`] does.
    ///
    /// # Errors
    /// [`MapError`]: the first task, in the order of the inputs, that has no value.
    fn map<T, I>(&self, task: T, inputs: I) -> Result<Vec<T::Value>, MapError>
    where
        T: NamedTask,
        I: IntoIterator<Item = T::Argument>,
    {
        in_order(inputs, self.in_flight_max(), |input| self.submit(task, input))
    }
}

/// A submitted task, as its submitter sees it. Dropping it means that nobody wants its value.
pub trait TaskHandle<R> {
    /// Waits for the task's value.
    ///
    /// # Errors
    /// [`TaskError`] tells why it has none.
    fn get(self) -> Result<R, TaskError>;

    /// Whether the task is done, one way or the other; [`get`](Self::get) then does not wait.
    fn is_finished(&self) -> bool;

    /// Waits until the task is done, for at most `timeout`; says whether it is.
    fn wait_timeout(&self, timeout: Duration) -> bool;

    /// Gives the task up, unless it is done already; says whether it was cancelled by this.
    fn cancel(&self) -> bool;

    /// [`get`](Self::get) that waits for at most `timeout`.
    ///
    /// # Errors
    /// The task, which is not done.
    fn get_timeout(self, timeout: Duration) -> Result<Result<R, TaskError>, Self>
    where
        Self: Sized,
    {
        if self.wait_timeout(timeout) { Ok(self.get()) } else { Err(self) }
    }
}

impl<E: Executor> NamedExecutor for E {
    type Task<R: Message + Plain + Send + 'static> = <E as Executor>::Task<R>;

    fn submit<T: NamedTask>(&self, _: T, argument: T::Argument) -> Result<Self::Task<T::Value>, TaskError> {
        Executor::submit(self, T::FUNCTION, argument)
    }

    fn in_flight_max(&self) -> usize {
        Executor::in_flight_max(self)
    }

    fn map<T, I>(&self, _: T, inputs: I) -> Result<Vec<T::Value>, MapError>
    where
        T: NamedTask,
        I: IntoIterator<Item = T::Argument>,
    {
        Executor::map(self, T::FUNCTION, inputs)
    }
}

impl Executor for Pool {
    type Task<R: Message + Send + 'static> = Task<R>;

    fn submit<A, R>(&self, f: fn(A) -> R, argument: A) -> Result<Task<R>, TaskError>
    where
        A: Message + Send + 'static,
        R: Message + Send + 'static,
    {
        Pool::submit(self, f, argument).map_err(failure::of_pool)
    }

    fn in_flight_max(&self) -> usize {
        self.workers() * 2
    }

    fn map<A, R, I>(&self, f: fn(A) -> R, inputs: I) -> Result<Vec<R>, MapError>
    where
        A: Message + Send + 'static,
        R: Message + Send + 'static,
        I: IntoIterator<Item = A>,
    {
        Pool::map(self, f, inputs)
    }
}

impl<R: Message> TaskHandle<R> for Task<R> {
    fn get(self) -> Result<R, TaskError> {
        Task::get(self)
    }

    fn is_finished(&self) -> bool {
        Task::is_finished(self)
    }

    fn wait_timeout(&self, timeout: Duration) -> bool {
        Task::wait_timeout(self, timeout)
    }

    fn cancel(&self) -> bool {
        Task::cancel(self)
    }
}

/// Submits the inputs one by one, with at most `in_flight_max` on their way, and gives the values in their order. What follows a
/// failure is dropped.
pub(crate) fn in_order<A, R, T: TaskHandle<R>>(
    inputs: impl IntoIterator<Item = A>,
    in_flight_max: usize,
    submit: impl Fn(A) -> Result<T, TaskError>,
) -> Result<Vec<R>, MapError> {
    let mut inputs = inputs.into_iter().fuse();
    let mut values = Vec::with_capacity(inputs.size_hint().0.min(1 << 24));
    let mut in_flight = VecDeque::new();
    loop {
        while in_flight.len() < in_flight_max.max(1) {
            let Some(input) = inputs.next() else { break };
            in_flight.push_back(submit(input));
        }
        let Some(oldest) = in_flight.pop_front() else { return Ok(values) };
        let at = values.len();
        let failed = |error| MapError { items: at..at + 1, error };
        values.push(oldest.and_then(TaskHandle::get).map_err(failed)?);
    }
}
