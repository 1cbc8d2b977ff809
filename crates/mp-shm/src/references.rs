//! References to objects, counted so that a kill at any instruction leaves a count that can be made right again.
//!
//! Every process has a *ledger* of the endpoints it holds, in blocks of its own. A message carries the handles attached to it
//! behind its archive. Invariant while the domain's lock is free and the tables are not dirty:
//!
//! ```text
//! counts[role] of an object == entries for it in all ledgers + attachments for it in all live messages
//!                             + published names for it
//! ```
//!
//! Every change is made under the lock, so a death in the middle is followed by `recover`, which counts again
//! instead of undoing. A message is live while its block is: see the invariants of [`crate::block`].
//!
//! A ledger entry and an attachment are one word each at rest: an entry is `offset | role | IN_USE` (offsets are multiples of
//! 64), an attachment is a [`Handle`] of two words, zero once it was taken.

use crate::block::{SHARED, Stamp};
use crate::domain::Locked;
use crate::error::SessionError;
use crate::handle::{Handle, Kind};
use crate::kinds;
use crate::layout::{BLOCK_HEADER_BYTES, BlockHeader, DIRTY_COUNTS};
use crate::published::PublishError;
use crate::session::Session;
use mp_sys::futex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

const IN_USE: u64 = 0b10;
const ROLE: u64 = 0b01;
const OFFSET: u64 = !63;
const LEDGER_BYTES: u64 = 1024;

/// Free entries of this process's ledger, by their offset in the session.
#[derive(Debug, Default)]
pub(crate) struct FreeEntries(Mutex<Vec<u64>>);

/// One endpoint that this process holds. Dropping it gives the reference back.
#[derive(Debug)]
pub struct Reference(Arc<Held>);

/// What a reference holds: an entry of the ledger, until it is released.
#[derive(Debug)]
pub(crate) struct Held {
    session: Session,
    handle: Handle,
    entry: u64,
    process: u16,
    released: AtomicBool,
}

/// A handle could not be taken or passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandleError {
    /// It is of a session that this process, or the receiver, is not attached to.
    OtherSession {
        /// The handle's session.
        handle: u16,
        /// The session of the message.
        message: u16,
    },
    /// The object it named is gone, or is of another kind.
    Stale,
    /// It was already taken out of its message.
    Taken,
    /// The object is of another kind, or carries another type.
    OtherType,
}

impl std::fmt::Display for HandleError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OtherSession { handle, message } => write!(
                f,
                "a handle of session {handle} cannot travel in a message of session {message}, whose receivers may lack it; \
                 make both channels in one session"
            ),
            Self::Stale => f.write_str("the handle names an object that is gone"),
            Self::Taken => f.write_str("the handle was already taken out of its message"),
            Self::OtherType => f.write_str("the handle is of an object of another kind or type"),
        }
    }
}

impl std::error::Error for HandleError {}

impl Reference {
    fn new(session: Session, handle: Handle, entry: u64, process: u16) -> Self {
        Self(Arc::new(Held { session, handle, entry, process, released: AtomicBool::new(false) }))
    }

    /// The handle this is a reference to.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.0.handle
    }

    /// The session of the object.
    #[must_use]
    pub fn session(&self) -> Session {
        self.0.session
    }

    /// What the object was published with, 0 if it is gone.
    #[must_use]
    pub fn type_hash(&self) -> u32 {
        self.0
            .session
            .object_of(self.0.handle)
            .map_or(0, |(header, _)| header.type_hash.load(Ordering::Relaxed))
    }

    /// How many references like this one there are, messages included.
    pub(crate) fn count(&self) -> Option<&'static AtomicU32> {
        let (header, role) = self.0.session.object_of(self.0.handle)?;
        Some(&header.counts[role])
    }

    /// Whether the process of this id holds it. Another one has no part in it, and after its release nobody has.
    #[inline]
    #[must_use]
    pub fn is_held_by(&self, process: u16) -> bool {
        self.0.process == process && !self.0.released.load(Ordering::Relaxed)
    }

    /// For whoever must be able to release it although the value that holds it may be lost.
    pub(crate) fn held(&self) -> Arc<Held> {
        self.0.clone()
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl Held {
    /// Gives the reference back; again does nothing.
    pub(crate) fn release(&self) {
        // In a process forked behind our back the entry is the parent's.
        let is_ours = self.session.me().is_ok_and(|me| me.process == self.process);
        if is_ours && !self.released.swap(true, Ordering::Relaxed) {
            let mut locked = self.session.lock();
            locked.release_entry(self.entry);
            drop(locked);
            self.session.give_entry(self.entry);
        }
    }
}

impl Session {
    /// Makes an object of a block this process holds, and takes the first reference to each of its two endpoints. `type_hash` stands
    /// for what the object carries; [`Reference::type_hash`] gives it in other processes.
    ///
    /// # Errors
    /// No memory for the ledger.
    pub fn publish_object(
        self,
        block: crate::block::Block,
        ends: [Kind; 2],
        type_hash: u32,
    ) -> Result<[Reference; 2], SessionError> {
        let Some((kind, _)) = ends[0].endpoint() else {
            unreachable!("objects are made with the kinds of their endpoints")
        };
        self.make_object(block, kind, ends, type_hash)
    }

    /// Makes an object with one or two kinds of references, and takes the first of each.
    fn make_object<const ROLES: usize>(
        self,
        block: crate::block::Block,
        kind: Kind,
        ends: [Kind; ROLES],
        type_hash: u32,
    ) -> Result<[Reference; ROLES], SessionError> {
        let me = self.me()?;
        let mut entries = [0; ROLES];
        for entry in &mut entries {
            *entry = self.take_entry()?;
        }
        let stamp = Stamp::read(block.header());
        let _locked = self.lock();
        let header = block.header();
        let offset = block.into_offset();
        header.type_hash.store(type_hash, Ordering::Relaxed);
        for (role, count) in header.counts.iter().enumerate() {
            count.store(u32::from(role < ROLES), Ordering::Relaxed);
        }
        mp_sys::crash::point("references.before_object");
        restamp_shared(header, stamp, kind);
        let handle =
            |end: Kind| Handle { session: self.number(), kind: end.0, generation: stamp.generation, offset };
        for (role, entry) in entries.iter().enumerate() {
            self.entry(*entry).store(offset | IN_USE | role as u64, Ordering::Relaxed);
        }
        Ok(std::array::from_fn(|role| Reference::new(self, handle(ends[role]), entries[role], me.process)))
    }

    /// Makes a block that this process holds an object of plain memory, and takes the first reference to it. `type_hash` stands for
    /// what lies in it.
    ///
    /// # Errors
    /// No memory for the ledger.
    pub(crate) fn publish_memory(
        self,
        block: crate::block::Block,
        kind: Kind,
        type_hash: u32,
    ) -> Result<Reference, SessionError> {
        let [reference] = self.make_object(block, kind, [kind], type_hash)?;
        Ok(reference)
    }

    /// Takes a reference of another kind to the object that `held` refers to; `None` if `first` and there is one of that kind already.
    ///
    /// # Errors
    /// No memory for the ledger.
    pub(crate) fn refer(
        self,
        held: &Reference,
        end: Kind,
        first: bool,
    ) -> Result<Option<Reference>, SessionError> {
        let me = self.me()?;
        let handle = Handle { kind: end.0, ..held.handle() };
        let entry = self.take_entry()?;
        let mut locked = self.lock();
        if first {
            // A dead holder's reference still counts before this.
            locked.recover();
        }
        let object = self.object_of(handle).filter(|_| held.is_held_by(me.process));
        let Some((header, role)) =
            object.filter(|(header, role)| !first || header.counts[*role].load(Ordering::Relaxed) == 0)
        else {
            drop(locked);
            self.give_entry(entry);
            return Ok(None);
        };
        // A death in between leaves a count too large, which recovery sets right.
        header.counts[role].fetch_add(1, Ordering::AcqRel);
        mp_sys::crash::point("references.referring");
        self.entry(entry).store(handle.offset | IN_USE | role as u64, Ordering::Relaxed);
        Ok(Some(Reference::new(self, handle, entry, me.process)))
    }

    /// Takes a reference of another kind to the object that `held` refers to.
    ///
    /// # Errors
    /// No memory for the ledger, or `held` is not this process's.
    pub fn refer_to(self, held: &Reference, end: Kind) -> Result<Reference, SessionError> {
        self.refer(held, end, false)?.ok_or(SessionError::Forked)
    }

    fn entry(self, offset: u64) -> &'static AtomicU64 {
        self.at(offset).unwrap_or_else(|| unreachable!("ledger entries are inside the session"))
    }

    /// A free entry of this process's ledger.
    fn take_entry(self) -> Result<u64, SessionError> {
        let me = self.me()?;
        let mut free = self.inner().free_entries.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = free.pop() {
            return Ok(entry);
        }
        let mut locked = self.lock();
        let block = locked.allocate(me.process, Kind::LEDGER, LEDGER_BYTES)?;
        let header = self.block_header(block).ok_or(SessionError::NotASession)?;
        let first = block + BLOCK_HEADER_BYTES;
        for entry in (0..LEDGER_BYTES / 8).map(|number| first + number * 8) {
            self.entry(entry).store(0, Ordering::Relaxed);
            free.push(entry);
        }
        let process = self.process(me.process.into()).ok_or(SessionError::NotASession)?;
        header.next.store(process.ledger.load(Ordering::Relaxed), Ordering::Relaxed);
        mp_sys::crash::point("references.before_ledger");
        process.ledger.store(block, Ordering::Relaxed);
        drop(locked);
        free.pop().ok_or(SessionError::NotASession)
    }

    fn give_entry(self, entry: u64) {
        self.inner().free_entries.0.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    /// The `index`-th attachment of a message block, as the place of its two words.
    fn attachment(self, offset: u64, header: &BlockHeader, index: u32) -> Option<[&'static AtomicU64; 2]> {
        let len = header.len.load(Ordering::Relaxed).checked_next_multiple_of(16)?;
        let end = len.checked_add(u64::from(index).checked_add(1)?.checked_mul(16)?)?;
        if end > header.capacity.load(Ordering::Relaxed) {
            return None;
        }
        let place = offset + BLOCK_HEADER_BYTES + end - 16;
        Some([self.at(place)?, self.at(place + 8)?])
    }

    /// Writes `handles` behind the archive of a message this process holds, and takes a reference to each.
    ///
    /// # Errors
    /// [`HandleError::Stale`]: nothing was taken.
    pub(crate) fn attach_all(
        self,
        block: &crate::block::Block,
        handles: &[Handle],
    ) -> Result<(), HandleError> {
        let header = block.header();
        let _locked = self.lock();
        for handle in handles {
            self.object_of(*handle).ok_or(HandleError::Stale)?;
        }
        for (index, handle) in (0_u32..).zip(handles) {
            let words = self.attachment(block.offset(), header, index).ok_or(HandleError::Stale)?;
            for (place, word) in words.into_iter().zip(handle.to_words()) {
                place.store(word, Ordering::Relaxed);
            }
            if let Some((object, role)) = self.object_of(*handle) {
                object.counts[role].fetch_add(1, Ordering::Relaxed);
            }
            mp_sys::crash::point("references.attaching");
        }
        header.attachments.store(u32::try_from(handles.len()).unwrap_or(u32::MAX), Ordering::Release);
        Ok(())
    }

    /// The object a handle names, and the role of its endpoint; `None` if it is gone.
    pub(crate) fn object_of(self, handle: Handle) -> Option<(&'static BlockHeader, usize)> {
        let (kind, role) = Kind(handle.kind).endpoint()?;
        let header = self.block_header(handle.offset)?;
        let stamp = Stamp::read(header);
        (handle.session == self.number()
            && stamp.owner == SHARED
            && stamp.kind == kind
            && stamp.generation == handle.generation)
            .then_some((header, role))
    }

    /// Takes the `index`-th handle out of a message that this process holds; its reference becomes this process's. Any kind will do if
    /// none is given.
    ///
    /// # Errors
    /// If there is no such handle, it was taken, is of another kind, or there is no memory for the ledger.
    pub(crate) fn take_attachment(
        self,
        message: u64,
        index: u32,
        kind: Option<Kind>,
    ) -> Result<Reference, HandleError> {
        let me = self.me().map_err(|_| HandleError::Stale)?;
        let header = self.block_header(message).ok_or(HandleError::Stale)?;
        if index >= header.attachments.load(Ordering::Acquire) {
            return Err(HandleError::Stale);
        }
        let entry = self.take_entry().map_err(|_| HandleError::Stale)?;
        let taken = (|| {
            let words = self.attachment(message, header, index).ok_or(HandleError::Stale)?;
            let _locked = self.lock();
            let values = words.map(|word| word.load(Ordering::Relaxed));
            if values == [0, 0] {
                return Err(HandleError::Taken);
            }
            let handle = Handle::from_words(values);
            let fits = kind.is_none_or(|kind| handle.kind == kind.0);
            let (_, role) = self.object_of(handle).filter(|_| fits).ok_or(HandleError::Stale)?;
            self.entry(entry).store(handle.offset | IN_USE | role as u64, Ordering::Relaxed);
            mp_sys::crash::point("references.taking");
            for word in words {
                word.store(0, Ordering::Relaxed);
            }
            Ok(Reference::new(self, handle, entry, me.process))
        })();
        if taken.is_err() {
            self.give_entry(entry);
        }
        taken
    }

    /// Takes a further reference to the object whose handle `find` gives; it is called under the lock.
    ///
    /// # Errors
    /// What `find` says; the object is gone, or there is no memory for the ledger.
    pub(crate) fn take_reference(
        self,
        find: impl FnOnce(&Locked) -> Result<Handle, PublishError>,
    ) -> Result<Reference, PublishError> {
        let me = self.me().map_err(PublishError::Session)?;
        let entry = self.take_entry().map_err(PublishError::Session)?;
        let taken = (|| {
            let locked = self.lock();
            let handle = find(&locked)?;
            let (object, role) = self.object_of(handle).ok_or(PublishError::Handle(HandleError::Stale))?;
            self.entry(entry).store(handle.offset | IN_USE | role as u64, Ordering::Relaxed);
            mp_sys::crash::point("published.looked_up");
            object.counts[role].fetch_add(1, Ordering::Relaxed);
            Ok(Reference::new(self, handle, entry, me.process))
        })();
        if taken.is_err() {
            self.give_entry(entry);
        }
        taken
    }

    /// Drops the handles that are still attached to a message this process holds.
    pub(crate) fn drop_attachments(self, block: &crate::block::Block) {
        if block.header().attachments.load(Ordering::Acquire) != 0 {
            self.lock().release_attachments(block.offset());
        }
    }
}

fn restamp_shared(header: &BlockHeader, stamp: Stamp, kind: Kind) {
    let word = u64::from(SHARED) | u64::from(kind.0) << 16 | u64::from(stamp.generation) << 32;
    // STAMP: Release, pairs with the Acquire in `Stamp::read`.
    header.stamp.store(word, Ordering::Release);
}

impl Locked {
    fn release_entry(&mut self, entry: u64) {
        let word = self.session.entry(entry).swap(0, Ordering::Relaxed);
        mp_sys::crash::point("references.released");
        if word & IN_USE != 0 {
            self.release(vec![(word & OFFSET, usize::from(word & ROLE != 0))]);
        }
    }

    /// Takes the attachments off a message and releases what they refer to.
    pub(crate) fn release_attachments(&mut self, message: u64) {
        let released = self.strip(message);
        self.release(released);
    }

    /// Takes the attachments off a message; returns the object and role of each.
    fn strip(&self, message: u64) -> Vec<(u64, usize)> {
        let Some(header) = self.session.block_header(message) else { return Vec::new() };
        let mut found = Vec::new();
        self.for_each_attachment(message, header, &mut |object, role| found.push((object, role)));
        header.attachments.store(0, Ordering::Relaxed);
        found
    }

    /// Calls `visit` with the object and role of every handle still attached to a message.
    pub(crate) fn for_each_attachment(
        &self,
        message: u64,
        header: &BlockHeader,
        visit: &mut dyn FnMut(u64, usize),
    ) {
        for index in 0..header.attachments.load(Ordering::Acquire) {
            let Some(words) = self.session.attachment(message, header, index) else { return };
            let handle = Handle::from_words(words.map(|word| word.load(Ordering::Relaxed)));
            if let Some((_, role)) = self.session.object_of(handle) {
                visit(handle.offset, role);
            }
        }
    }

    /// Calls `visit` with the object and role of every entry of a process's ledger.
    pub(crate) fn for_each_entry(&self, process: u32, visit: &mut dyn FnMut(u64, usize)) {
        let mut block = self.session.process(process).map_or(0, |entry| entry.ledger.load(Ordering::Relaxed));
        while let Some(header) = self.session.block_header(block) {
            for number in 0..LEDGER_BYTES / 8 {
                let word =
                    self.session.entry(block + BLOCK_HEADER_BYTES + number * 8).load(Ordering::Relaxed);
                if word & IN_USE != 0 {
                    visit(word & OFFSET, usize::from(word & ROLE != 0));
                }
            }
            block = header.next.load(Ordering::Relaxed);
        }
    }

    /// Counts references down; tells objects whose end has no holder left, and destroys those that have none at all, or none but in their own
    /// messages, with the messages in them and what is attached to those.
    pub(crate) fn release(&mut self, mut work: Vec<(u64, usize)>) {
        while let Some((object, role)) = work.pop() {
            let Some(header) = self.session.block_header(object) else { continue };
            let stamp = Stamp::read(header);
            if stamp.owner != SHARED || header.counts[role].load(Ordering::Relaxed) == 0 {
                continue;
            }
            let before = header.counts[role].fetch_sub(1, Ordering::AcqRel);
            if before == 2 && stamp.kind.is_sole(role) {
                mp_sys::crash::point("references.before_sole");
                futex::wake_all(&header.counts[role]);
            }
            if before == 1 {
                mp_sys::crash::point("references.last");
                match kinds::find(stamp.kind) {
                    Some(kind) => kind.closed(self.session, object, role),
                    // Who waits for that sleeps on a word that is not known here; everybody watches the epoch.
                    None => self.wake_all(),
                }
            }
            if header.counts.iter().all(|count| count.load(Ordering::Relaxed) == 0)
                || self.is_held_by_itself_alone(object, header, stamp.kind)
            {
                work.append(&mut self.destroy(object, stamp.kind));
            }
        }
    }

    /// Whether the only references to an object lie in its own messages: nobody can ever take them out. (Of several that hold each other in
    /// a cycle none is found: they stay until the session ends.)
    pub(crate) fn is_held_by_itself_alone(&self, object: u64, header: &BlockHeader, kind: Kind) -> bool {
        let Some(kind) = kinds::find(kind).filter(|kind| kind.may_hold_itself(self.session, object)) else {
            return false;
        };
        let mut own = [0; 2];
        kind.blocks(self.session, object, &mut |block| {
            if let Some(message) = self.session.block_header(block) {
                self.for_each_attachment(block, message, &mut |held, role| {
                    own[role] += u32::from(held == object);
                });
            }
        });
        header.counts.iter().zip(own).all(|(count, own)| count.load(Ordering::Relaxed) == own)
    }

    /// Frees an object and the messages in it; returns what was attached to those.
    pub(crate) fn destroy(&mut self, object: u64, kind: Kind) -> Vec<(u64, usize)> {
        self.fds_freed |= kind == Kind::FD;
        let Some(kind) = kinds::find(kind) else {
            // A process that does not know the kind cannot look inside. The next that does, and takes the lock, finds the object.
            self.header.dirty.store(DIRTY_COUNTS, Ordering::Relaxed);
            return Vec::new();
        };
        let mut blocks = Vec::new();
        kind.blocks(self.session, object, &mut |block| blocks.push(block));
        let mut attached = Vec::new();
        for block in blocks {
            attached.append(&mut self.strip(block));
            self.free(block);
        }
        mp_sys::crash::point("references.destroying");
        self.free(object);
        attached
    }
}
