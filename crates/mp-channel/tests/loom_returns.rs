//! Models of the words through which blocks go back: nobody holds what another holds, and nothing is lost but to the dead.
#![cfg(loom)]

mod model;

use loom::sync::Arc;
use loom::thread;
use model::{at_every_step, builder};
use mp_channel::returns::Returns;
use mp_sys::atomic::{AtomicU32, Ordering};
use mp_sys::model::participant;

const BLOCK: u32 = 7;

struct Shared {
    returns: Returns,
    /// The block's stamp: who holds it, if no word names it.
    stamp: AtomicU32,
    /// How many use the block now.
    users: AtomicU32,
}

impl Shared {
    /// Takes the block and leaves it again; says whether it had it.
    fn pass_on(&self, me: u16) -> bool {
        let taken = self.returns.take(
            me,
            |_| true,
            |block| {
                self.stamp.store(me.into(), Ordering::Release);
                Some(block)
            },
        );
        let Some(block) = taken else { return false };
        assert_eq!(block, BLOCK);
        assert_eq!(self.users.fetch_add(1, Ordering::AcqRel), 0, "somebody else has it");
        assert_eq!(self.stamp.load(Ordering::Acquire), u32::from(me));
        self.users.fetch_sub(1, Ordering::AcqRel);
        assert!(self.returns.leave(block));
        true
    }

    fn is_named(&self) -> bool {
        let mut named = 0;
        self.returns.each(|block| {
            assert_eq!(block, BLOCK);
            named += 1;
        });
        assert!(named <= 1, "it lies here once");
        named == 1
    }
}

/// Two that take and leave, of which the first dies; a recovery comes while the second goes on.
fn two_takers(die_at: Option<usize>) {
    builder(3).check(move || {
        let shared =
            Arc::new(Shared { returns: Returns::new(), stamp: AtomicU32::new(0), users: AtomicU32::new(0) });
        assert!(shared.returns.leave(BLOCK));
        let takers = [(1, die_at), (2, None)].map(|(me, die_at): (u16, _)| {
            let shared = shared.clone();
            thread::spawn(move || participant(me.into(), None, die_at, || shared.pass_on(me)))
        });
        let [first, second] = takers;
        if first.join().unwrap().is_none() {
            // The dead one's stamp and word are swept, as recovery does it, while the other goes on.
            shared.returns.sweep(&|thread| thread == 1);
        }
        assert!(second.join().unwrap().is_some());
        let held_by_the_dead = shared.stamp.load(Ordering::Acquire) == 1;
        assert!(shared.is_named() || held_by_the_dead, "the block is lost");
    });
}

#[test]
fn returns_one_taker_dies_at_each_step() {
    assert!(at_every_step(two_takers) >= 4);
    two_takers(None);
}
