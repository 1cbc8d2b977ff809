//! Bounded multi-producer multi-consumer channels between processes that survive a kill at any instruction.
//!
//! [`channel`] makes a [`Sender`] and a [`Receiver`] in the session of the program tree. Both can be cloned, shared between
//! threads, and sent inside messages, at any depth. Blocking calls sleep in the kernel and spin only where that has paid off. No
//! thread, no file descriptor and no lock is behind a channel; [`ring`] tells how it works.
//!
//! Guarantees: messages of one sender arrive in the order sent; nothing is lost or doubled but what a dead process held: a message
//! that a receiver had claimed dies with it, one that a sender had not finished never existed.
//!
//! For programs that share no session, or are Python's: [`connection`].
//!
//! What it does not do yet: batches, single-producer channels, broadcast, zero-copy receive, pipes, `select`, async, untrusted
//! peers, capacity 0.
//!
//! Limits: capacity 1 to 2^24; a process stopped (SIGSTOP) in the middle of an operation holds the channel up at its slot.

pub mod lane;
pub mod returns;
pub mod ring;

#[cfg(not(loom))]
mod bells;
#[cfg(not(loom))]
mod channel;
#[cfg(not(loom))]
pub mod connection;
#[cfg(not(loom))]
pub mod dynamic;
#[cfg(not(loom))]
mod end;
#[cfg(not(loom))]
pub mod error;
#[cfg(not(loom))]
mod futures;
#[cfg(not(loom))]
mod loan;
#[cfg(not(loom))]
mod poller;
#[cfg(not(loom))]
mod reactor;
#[cfg(not(loom))]
mod received;
#[cfg(not(loom))]
pub mod select;
#[cfg(not(loom))]
mod slot;
#[cfg(not(loom))]
mod source;
#[cfg(not(loom))]
pub mod spsc;

#[cfg(not(loom))]
pub use channel::{IntoIter, Receiver, Sender, channel, channel_in};
#[cfg(not(loom))]
pub use error::{BatchError, ChannelError, RecvError, SendError, SendFailure};
#[cfg(not(loom))]
pub use futures::{RecvFuture, RecvStream, SendFuture};
#[cfg(not(loom))]
pub use loan::{Loan, LoanUninit};
#[cfg(not(loom))]
pub use mp_shm::Fd;
#[cfg(not(loom))]
pub use received::Received;
#[cfg(not(loom))]
pub use select::Select;
