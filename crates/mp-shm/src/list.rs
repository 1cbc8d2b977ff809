//! A list of typed items in shared memory: [`List`], after Python's `ShareableList`.
//!
//! Owns: an object of the session.
//!
//! ```text
//! payload   lock | number of slots | capacity in bytes | the slots
//! slot      newest | two buffers, each a stamp and the words of an item
//! ```
//!
//! Every slot is a [ring](crate::stamped) of two buffers, with the table of steps in that file. Writers take the list's lock, one for all
//! slots, for the time of one item; readers take none. A reader whose slot is written twice while it copies looks again, and after
//! a few times takes the lock, too; so nobody waits for more than one writer at a time.
//!
//! ```text
//! who                   does                                           then
//! writer                takes the lock                                 nobody else writes
//!                       writes the older buffer, publishes it          readers see the old item, then the new
//!                       gives the lock back
//! writer killed         the kernel marks the lock, wakes one           the next one has nothing to repair: what was not published is not
//!                                                                      seen, and is written over
//! reader                copies the newer buffer, looks whether that    a whole item, old or new
//!                       was whole
//! ```
//!
//! Edges: as in `stamped`; between writers, the lock's.
//! Models: loom `list_*` in `tests/loom_list.rs`, with a writer that dies at each step; the lock's own are in `tests/loom_lock.rs`.

#![expect(unsafe_code, reason = "taking the lock is a promise that it stays")]

use crate::ShmSafe;
use crate::error::SessionError;
use crate::handle::{Handle, Kind};
use crate::item::{Item, words_of};
use crate::lock::DomainLock;
use crate::message_of_handle;
use crate::object::Object;
use crate::references::{HandleError, Reference};
use crate::safe::layout;
use crate::session::Session;
use crate::stamped::Ring;
use mp_sys::atomic::spin;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A fixed number of slots with an [`Item`] each, which all holders of a handle see. Clone it, send it, nest it in messages.
///
/// A change of one slot is one step: everybody sees the old item or the new, whatever happens to who makes it.
///
/// # Examples
/// ```
/// use mp_shm::{Item, List};
///
/// let list = List::new(["Ada".into(), 36.into(), Item::None], 16)?;
/// list.set(2, 1.5.into())?;
/// assert_eq!(list.get(2), Some(Item::Float(1.5)));
/// assert_eq!(list.index(&"Ada".into()), Some(0));
/// assert!(list.set(0, "a name of more than 16 bytes".into()).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct List {
    opened: Arc<Opened>,
}

struct Opened {
    head: &'static Head,
    slots: &'static [AtomicU64],
    capacity: usize,
    object: Object,
}

#[derive(ShmSafe)]
#[repr(C)]
struct Head {
    lock: DomainLock,
    unused: u32,
    slots: AtomicU64,
    capacity: AtomicU64,
}

/// Where the slots begin, in bytes.
const SLOTS: usize = 64;
/// Buffers of a slot.
const BUFFERS: usize = 2;
/// How often a reader looks before it takes the lock.
const LOOKS: u32 = 32;

/// A list could not be made, or an item not be put into it.
#[derive(Debug)]
pub enum ListError {
    /// There is no slot of this index.
    NoSlot {
        /// The index.
        index: usize,
        /// The number of slots.
        len: usize,
    },
    /// The string, or the bytes, are too long.
    TooLong {
        /// Their length in bytes.
        bytes: usize,
        /// The most that a slot of this list has room for.
        capacity: usize,
    },
    /// No memory, or no part in the session.
    Session(SessionError),
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSlot { index, len } => {
                write!(f, "changing a list: there is no slot {index} in a list of {len}")
            }
            Self::TooLong { bytes, capacity } => {
                write!(f, "changing a list: {bytes} bytes do not fit; its slots were made for {capacity}")
            }
            Self::Session(error) => write!(f, "making a list: {error}"),
        }
    }
}

impl std::error::Error for ListError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Session(error) => Some(error),
            Self::NoSlot { .. } | Self::TooLong { .. } => None,
        }
    }
}

/// Words of a buffer: the stamp and an item.
fn stride(capacity: usize) -> Option<usize> {
    words_of(capacity)?.checked_add(1)
}

/// Words of a slot.
fn slot_words(capacity: usize) -> Option<usize> {
    stride(capacity)?.checked_mul(BUFFERS)?.checked_add(1)
}

fn layout_of() -> u64 {
    layout("List", SLOTS, BUFFERS)
}

impl List {
    /// A list with a slot for each of `items`, in the session of this program tree. Strings and bytes put into it later have at most
    /// `capacity` bytes, at most 4 GiB.
    ///
    /// # Errors
    /// An item is too long; no memory, or no part in the session.
    pub fn new(items: impl IntoIterator<Item = Item>, capacity: usize) -> Result<Self, ListError> {
        Self::new_in(Session::current().map_err(ListError::Session)?, items, capacity)
    }

    /// [`new`](Self::new) in a given session: only processes attached to it can hold handles.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn new_in(
        session: Session,
        items: impl IntoIterator<Item = Item>,
        capacity: usize,
    ) -> Result<Self, ListError> {
        let items: Vec<Item> = items.into_iter().collect();
        let no_memory =
            || ListError::Session(SessionError::OutOfMemory(std::io::ErrorKind::OutOfMemory.into()));
        let words = slot_words(capacity).filter(|_| u32::try_from(capacity).is_ok());
        let len = words.and_then(|words| words.checked_mul(8)?.checked_mul(items.len())?.checked_add(SLOTS));
        let len = len.ok_or_else(no_memory)?;
        let object = Object::create(session, Kind::LIST, layout_of(), len).map_err(ListError::Session)?;
        if let Some(head) = object.at::<Head>(0) {
            head.slots.store(items.len() as u64, Ordering::Relaxed);
            head.capacity.store(capacity as u64, Ordering::Relaxed);
        }
        let list = Self::opened(object).map_err(|_| ListError::Session(SessionError::NotASession))?;
        for (index, item) in items.iter().enumerate() {
            list.check(index, item)?;
            // No other process has a handle yet.
            list.slot(index).into_iter().for_each(|slot| slot.write(|words| item.store(words)));
        }
        Ok(list)
    }

    fn open(reference: Reference) -> Result<Self, HandleError> {
        Self::opened(Object::open(reference, layout_of())?)
    }

    fn opened(object: Object) -> Result<Self, HandleError> {
        let head: &'static Head = object.at(0).ok_or(HandleError::OtherType)?;
        let number = |word: &AtomicU64| usize::try_from(word.load(Ordering::Relaxed)).ok();
        let words = |capacity: usize| slot_words(capacity)?.checked_mul(number(&head.slots)?);
        let capacity = number(&head.capacity).ok_or(HandleError::OtherType)?;
        let slots = words(capacity).and_then(|words| object.words(SLOTS, words));
        let slots = slots.ok_or(HandleError::OtherType)?;
        Ok(Self { opened: Arc::new(Opened { head, slots, capacity, object }) })
    }

    /// The number of slots.
    #[must_use]
    pub fn len(&self) -> usize {
        self.opened.slots.len() / slot_words(self.opened.capacity).unwrap_or(1)
    }

    /// Whether there are no slots.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.opened.slots.is_empty()
    }

    /// The longest string, or bytes, that a slot has room for, in bytes.
    #[must_use]
    pub fn capacity_bytes(&self) -> usize {
        self.opened.capacity
    }

    /// Names the list in every process of its session.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.reference().handle()
    }

    fn reference(&self) -> &Reference {
        self.opened.object.reference()
    }

    fn slot(&self, index: usize) -> Option<Ring<'_>> {
        let words = slot_words(self.opened.capacity)?;
        let start = index.checked_mul(words)?;
        let (newest, buffers) = self.opened.slots.get(start..start.checked_add(words)?)?.split_first()?;
        Ring::new(newest, buffers, stride(self.opened.capacity)?)
    }

    fn check(&self, index: usize, item: &Item) -> Result<(), ListError> {
        let (bytes, capacity) = (item.len_bytes(), self.opened.capacity);
        if index >= self.len() {
            Err(ListError::NoSlot { index, len: self.len() })
        } else if bytes > capacity {
            Err(ListError::TooLong { bytes, capacity })
        } else {
            Ok(())
        }
    }

    /// Runs `body` while nobody writes.
    fn locked<R>(&self, body: impl FnOnce() -> R) -> R {
        let lock = &self.opened.head.lock;
        // SAFETY: the list lies in the session, which stays mapped, and the reference of `self` keeps the block.
        // What a dead holder left needs no repair, so it is all the same what the lock tells.
        let _ = unsafe { lock.lock() };
        mp_sys::crash::point("list.locked");
        let result = body();
        mp_sys::crash::point("list.done");
        lock.unlock();
        result
    }

    /// The item in slot `index`; `None` if there is no such slot.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Item> {
        let slot = self.slot(index)?;
        for _ in 0..LOOKS {
            if let Some((_, item)) = slot.try_read(Item::load) {
                return Some(item);
            }
            spin();
        }
        self.locked(|| slot.try_read(Item::load)).map(|(_, item)| item)
    }

    /// Replaces the item in slot `index`.
    ///
    /// # Errors
    /// [`ListError::NoSlot`], [`ListError::TooLong`]: the list is as it was.
    pub fn set(&self, index: usize, item: Item) -> Result<(), ListError> {
        self.replace(index, item).map(|_| ())
    }

    /// [`set`](Self::set) that gives the item before.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn replace(&self, index: usize, item: Item) -> Result<Item, ListError> {
        self.check(index, &item)?;
        let Some(slot) = self.slot(index) else {
            return Err(ListError::NoSlot { index, len: self.len() });
        };
        let before = self.locked(|| {
            let before = slot.try_read(Item::load);
            slot.write(|words| item.store(words));
            before
        });
        Ok(before.map_or(Item::None, |(_, before)| before))
    }

    /// The items, one after the other; others may change the list meanwhile.
    pub fn iter(&self) -> impl Iterator<Item = Item> {
        (0..self.len()).map_while(|index| self.get(index))
    }

    /// The index of the first slot that holds `item`.
    #[must_use]
    pub fn index(&self, item: &Item) -> Option<usize> {
        self.iter().position(|one| one == *item)
    }

    /// How many slots hold `item`.
    #[must_use]
    pub fn count(&self, item: &Item) -> usize {
        self.iter().filter(|one| one == item).count()
    }
}

message_of_handle!([] List, Kind::LIST, List::reference, List::open);

impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "List({}, len {})", self.handle(), self.len())
    }
}
