//! Channels between processes that survive a kill at any instruction.
//!
//! | | who sends and receives | what it is for |
//! |---|---|---|
//! | [`channel`] | any number each | work, results, anything; capacity 0 is a rendezvous |
//! | [`growing_channel`] | any number each | the same, with room that is made when it is needed, up to a bound |
//! | [`spsc`] | one each | the fastest way between two |
//! | [`oneshot`] | one each, once | an answer |
//! | [`broadcast`] | any number; every receiver sees all | news, state |
//! | [`joinable`] | any number each | tasks whose end one waits for |
//! | [`request`] | any number of clients and servers | questions and answers |
//! | [`pipe`] | one each, one way or both | values of any types, and bytes |
//! | [`dynamic`] | any number each | messages of several types, for those who build on channels |
//! | [`untrusted`] | any number each | peers who may write anything anywhere into it |
//! | [`server`] | a program that was not started from here | the first channel between two programs |
//! | [`connection`] | two unrelated programs | sockets; Python can be the other end |
//!
//! All but the last lie in a session. Their ends can be sent inside messages, at any depth. Blocking calls sleep in the kernel and spin only
//! where that has paid off. No thread, no file descriptor and no lock is behind a channel; [`ring`], [`lane`] and [`bus`] tell how they work.
//! [`select!`] and [`Select`] wait for several things ([`bells`] tells how); sending, receiving and selecting are also futures, of any runtime.
//!
//! Messages are what rkyv can archive. [`Receiver::recv_archived`] reads one where it lies, [`Sender::loan_slice`] builds one where it will be read.
//!
//! Sending and receiving have `try_`, `_timeout` and `_deadline` forms on the monotonic clock: of [`channel`] and [`spsc`] in every way there is,
//! by value and by reference, of many, in place; of the others a value at a time. Only what repeats another call (`send_all`, `send_slice`,
//! iterators) waits as long as it takes; and [`dynamic`] and [`connection`] have what their pages say.
//!
//! Guarantees: messages of one sender arrive in the order sent; nothing is lost or doubled but what a dead process held: a message
//! that a receiver had claimed dies with it, one that a sender had not finished never existed. All senders gone, dropped or dead: receivers
//! drain what is left and are told. All receivers gone: senders get their values back.
//!
//! What it does not do: order messages of different senders; carry handles through a broadcast or an untrusted channel.
//!
//! Limits: capacity 0 to 2^24; a message of 2 GiB; a process stopped (SIGSTOP) in the middle of an operation holds the channel up at its slot,
//! and others keep their deadlines.

pub mod bells;
pub mod bus;
pub mod control;
pub mod lane;
pub mod returns;
pub mod ring;
pub mod stamp;

#[cfg(not(loom))]
pub mod broadcast;
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
mod grow;
#[cfg(not(loom))]
pub mod joinable;
#[cfg(not(loom))]
mod kind;
#[cfg(not(loom))]
mod loan;
#[cfg(not(loom))]
pub mod oneshot;
#[cfg(not(loom))]
pub mod pipe;
#[cfg(not(loom))]
mod reactor;
#[cfg(not(loom))]
mod received;
#[cfg(not(loom))]
pub mod request;
#[cfg(not(loom))]
pub mod select;
#[cfg(not(loom))]
mod select_macro;
#[cfg(not(loom))]
pub mod server;
#[cfg(not(loom))]
mod slot;
#[cfg(not(loom))]
mod source;
#[cfg(not(loom))]
pub mod spsc;
#[cfg(not(loom))]
pub mod untrusted;
#[cfg(not(loom))]
mod view;
#[cfg(all(test, not(loom)))]
mod wrap;

#[cfg(not(loom))]
pub use channel::{IntoIter, Receiver, Sender, channel, channel_in, growing_channel, growing_channel_in};
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
