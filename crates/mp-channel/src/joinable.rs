//! Queues of tasks whose end can be waited for, like Python's `JoinableQueue`.
//!
//! Every task carries a ticket (`mp_shm::tickets`). It counts from before the task is in the queue until it is done, wherever it is: in the
//! queue, in a worker's hands, or lost with one. So a worker that dies does not keep [`join`](TaskSender::join) waiting.
//!
//! # Examples
//! ```
//! let (sender, receiver) = mp_channel::joinable::channel::<String>(8)?;
//! let worker = std::thread::spawn(move || {
//!     for task in receiver.iter() {
//!         println!("{}", *task);
//!         task.done();
//!     }
//! });
//! sender.send("one".to_owned()).map_err(|error| error.failure)?;
//! sender.send("two".to_owned()).map_err(|error| error.failure)?;
//! sender.join()?;
//! drop(sender);
//! worker.join().unwrap();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::error::{ChannelError, RecvError, SendError};
use crate::select::{Selectable, Source};
use crate::{Receiver, Sender};
use mp_shm::error::SessionError;
use mp_shm::tickets::{Ticket, Tickets};
use mp_shm::{Message, Session, message_of_parts};
use mp_sys::deadline::Deadline;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Puts tasks into the queue.
pub struct TaskSender<T> {
    ends: (Sender<(T, Ticket)>, Tickets),
}

/// Takes tasks out of the queue; each goes to one receiver.
pub struct TaskReceiver<T> {
    ends: (Receiver<(T, Ticket)>, Tickets),
    /// Tickets of tasks that were taken without a [`Task`] around them.
    open: Arc<Mutex<Vec<Ticket>>>,
}

/// A task in hand. It is done when this is dropped, also by a panic; dereferences to what was sent.
pub struct Task<T> {
    value: T,
    _ticket: Ticket,
}

/// More tasks were called done than were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyDone;

impl fmt::Display for TooManyDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("calling a task done: no task that was taken by `recv_value` is open")
    }
}

impl std::error::Error for TooManyDone {}

/// Makes a queue for up to `capacity` tasks, 0 to 2^24, in the session of this program tree.
///
/// # Errors
/// [`ChannelError`]
pub fn channel<T: Message>(capacity: usize) -> Result<(TaskSender<T>, TaskReceiver<T>), ChannelError> {
    channel_in(Session::current().map_err(ChannelError::Session)?, capacity)
}

/// Makes a queue in a given session: only processes attached to that session can hold its ends.
///
/// # Errors
/// As [`channel`].
pub fn channel_in<T: Message>(
    session: Session,
    capacity: usize,
) -> Result<(TaskSender<T>, TaskReceiver<T>), ChannelError> {
    let (sender, receiver) = crate::channel_in(session, capacity)?;
    let tickets = Tickets::new_in(session).map_err(ChannelError::Session)?;
    let sender = TaskSender { ends: (sender, tickets.clone()) };
    Ok((sender, TaskReceiver::new((receiver, tickets))))
}

impl<T: Message> TaskSender<T> {
    /// Puts a task into the queue, waiting for room as long as it takes.
    ///
    /// # Errors
    /// [`SendError`], which gives the value back.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.ends.0.send((value, self.ends.1.ticket())).map_err(value_of)
    }

    /// Puts a task into the queue if there is room now.
    ///
    /// # Errors
    /// As [`send`](Self::send), and if the queue is full.
    pub fn try_send(&self, value: T) -> Result<(), SendError<T>> {
        self.ends.0.try_send((value, self.ends.1.ticket())).map_err(value_of)
    }

    /// Puts a task into the queue, waiting for room for at most `timeout`.
    ///
    /// # Errors
    /// As [`send`](Self::send), and if the queue stayed full.
    pub fn send_timeout(&self, value: T, timeout: Duration) -> Result<(), SendError<T>> {
        self.ends.0.send_timeout((value, self.ends.1.ticket()), timeout).map_err(value_of)
    }

    /// Puts a task into the queue, waiting for room until `deadline`.
    ///
    /// # Errors
    /// As [`send_timeout`](Self::send_timeout).
    pub fn send_deadline(&self, value: T, deadline: Instant) -> Result<(), SendError<T>> {
        self.ends.0.send_deadline((value, self.ends.1.ticket()), deadline).map_err(value_of)
    }
}

fn value_of<T>(error: SendError<(T, Ticket)>) -> SendError<T> {
    SendError { value: error.value.0, failure: error.failure }
}

impl<T: Message> TaskReceiver<T> {
    /// Takes a task, waiting for it as long as it takes.
    ///
    /// # Errors
    /// As [`Receiver::recv`].
    pub fn recv(&self) -> Result<Task<T>, RecvError> {
        self.ends.0.recv().map(Task::new)
    }

    /// Takes a task if there is one now.
    ///
    /// # Errors
    /// As [`Receiver::try_recv`].
    pub fn try_recv(&self) -> Result<Task<T>, RecvError> {
        self.ends.0.try_recv().map(Task::new)
    }

    /// Takes a task, waiting for it for at most `timeout`.
    ///
    /// # Errors
    /// As [`Receiver::recv_timeout`].
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Task<T>, RecvError> {
        self.ends.0.recv_timeout(timeout).map(Task::new)
    }

    /// Takes a task, waiting for it until `deadline`.
    ///
    /// # Errors
    /// As [`Receiver::recv_deadline`].
    pub fn recv_deadline(&self, deadline: Instant) -> Result<Task<T>, RecvError> {
        self.ends.0.recv_deadline(deadline).map(Task::new)
    }

    /// Takes tasks until all senders are gone.
    pub fn iter(&self) -> impl Iterator<Item = Task<T>> {
        std::iter::from_fn(|| self.recv().ok())
    }

    /// Takes a task's value alone; [`task_done`](Self::task_done) says later that it is done, as in Python. Until then it counts for this
    /// process and its clones of the receiver.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_value(&self) -> Result<T, RecvError> {
        let (value, ticket) = self.ends.0.recv()?;
        self.open.lock().unwrap_or_else(PoisonError::into_inner).push(ticket);
        Ok(value)
    }

    /// Says that one of the tasks taken by [`recv_value`](Self::recv_value) is done.
    ///
    /// # Errors
    /// [`TooManyDone`] if none is open.
    pub fn task_done(&self) -> Result<(), TooManyDone> {
        let ticket = self.open.lock().unwrap_or_else(PoisonError::into_inner).pop();
        ticket.map(drop).ok_or(TooManyDone)
    }
}

impl<T> TaskReceiver<T> {
    fn new(ends: (Receiver<(T, Ticket)>, Tickets)) -> Self {
        Self { ends, open: Arc::default() }
    }
}

macro_rules! both_ends {
    ($end:ident, $channel_end:ident) => {
        impl<T> $end<T> {
            /// Waits until all tasks that were put into the queue are done, as long as it takes.
            ///
            /// # Errors
            /// This process has no part in the queue.
            pub fn join(&self) -> Result<(), SessionError> {
                self.ends.1.wait(None).map(|_| ())
            }

            /// [`join`](Self::join) for at most `timeout`; `false` if that was too short.
            ///
            /// # Errors
            /// As [`join`](Self::join).
            pub fn join_timeout(&self, timeout: Duration) -> Result<bool, SessionError> {
                self.ends.1.wait(Some(Deadline::after(timeout)))
            }

            /// [`join`](Self::join) until `deadline`; `false` if that was too early.
            ///
            /// # Errors
            /// As [`join`](Self::join).
            pub fn join_deadline(&self, deadline: Instant) -> Result<bool, SessionError> {
                self.ends.1.wait(Some(deadline.into()))
            }

            /// How many tasks are not done, a moment ago: those in the queue, and those in somebody's hands.
            #[must_use]
            pub fn unfinished(&self) -> usize {
                self.ends.1.unfinished() as usize
            }

            /// The most tasks that the queue holds.
            #[must_use]
            pub fn capacity(&self) -> usize {
                self.ends.0.capacity()
            }

            /// How many tasks wait in the queue, a moment ago.
            #[must_use]
            pub fn len(&self) -> usize {
                self.ends.0.len()
            }

            /// Whether no task was waiting a moment ago.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.ends.0.is_empty()
            }
        }

        impl<T> Selectable for $end<T> {
            fn selected(&self) -> Source {
                self.ends.0.selected()
            }
        }

        impl<T> fmt::Debug for $end<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($end)).field(&self.ends.0).finish()
            }
        }
    };
}

both_ends!(TaskSender, Sender);
both_ends!(TaskReceiver, Receiver);

fn sender_of<T>(ends: (Sender<(T, Ticket)>, Tickets)) -> TaskSender<T> {
    TaskSender { ends }
}

message_of_parts!([T: Message] TaskSender<T>, sender_of, ends: (Sender<(T, Ticket)>, Tickets));
message_of_parts!([T: Message] TaskReceiver<T>, TaskReceiver::new, ends: (Receiver<(T, Ticket)>, Tickets));

impl<T> Clone for TaskSender<T> {
    fn clone(&self) -> Self {
        Self { ends: self.ends.clone() }
    }
}

impl<T> Clone for TaskReceiver<T> {
    fn clone(&self) -> Self {
        Self { ends: self.ends.clone(), open: self.open.clone() }
    }
}

impl<T> Task<T> {
    fn new((value, ticket): (T, Ticket)) -> Self {
        Self { value, _ticket: ticket }
    }

    /// The task is done. (So it is when it is dropped; this says it aloud.)
    pub fn done(self) {}

    /// The task is done; what was sent.
    pub fn into_value(self) -> T {
        self.value
    }
}

impl<T> Deref for Task<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Task<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Task").field(&self.value).finish()
    }
}
