//! What the models of the primitives share: a domain of a few participants, and running a model with a death at each step.
//!
//! The victim dies at its n-th step; a participant called *after* runs when the victim has ended, and does what the living would be
//! waiting for if the victim never came to it. A model that hangs is a deadlock, which loom reports as a panic. Negative controls run in
//! processes of their own, since loom cannot go on after a failed model.
#![allow(dead_code, unreachable_pub, reason = "each model uses its part")]

use loom::sync::Arc;
use loom::thread;
use mp_shm::death::{self, Domain};
use mp_sync::raw::Ground;
use mp_sys::atomic::{AtomicU32, Ordering};
use mp_sys::model::{self, participant};
use mp_sys::robust::OWNER_DIED;

/// Sentinels of the participants, and the epoch.
pub struct World {
    sentinels: [AtomicU32; 5],
    epoch: AtomicU32,
    members: AtomicU32,
    /// Taken away by a control: sleepers do not watch for deaths.
    has_domain: bool,
}

/// The world as the participant of this number sees it.
pub struct At<'a> {
    world: &'a World,
    me: usize,
}

impl Ground for At<'_> {
    type Noted = ();

    fn domain(&self) -> Option<&(dyn Domain + Sync)> {
        self.world.has_domain.then_some(self)
    }

    fn note_wait(&self) {}
}

impl Domain for At<'_> {
    fn epoch(&self) -> &AtomicU32 {
        &self.world.epoch
    }

    fn members(&self) -> &AtomicU32 {
        &self.world.members
    }

    fn sentinels<'a>(&'a self, watch: &mut dyn FnMut(&'a AtomicU32, u32) -> bool) -> bool {
        let mut dead = false;
        for (number, sentinel) in self.world.sentinels.iter().enumerate() {
            let word = sentinel.load(Ordering::Acquire);
            dead |= word & OWNER_DIED != 0;
            if number != self.me && word != 0 && word & OWNER_DIED == 0 && !watch(sentinel, word) {
                break;
            }
        }
        dead
    }

    fn recover(&self) -> bool {
        for sentinel in &self.world.sentinels {
            let word = sentinel.load(Ordering::Acquire);
            if word & OWNER_DIED != 0
                && sentinel.compare_exchange(word, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            {
                death::advance(&self.world.epoch);
            }
        }
        true
    }
}

/// A participant's part in a model.
pub type Part<S> = fn(&S, &At<'_>);

/// A model.
pub struct Model<S: 'static> {
    pub make: fn() -> S,
    /// Participants 1, 2, …; the first is the victim.
    pub parts: &'static [Part<S>],
    /// Runs when the victim has ended; told whether it died.
    pub after: fn(&S, &At<'_>, bool),
    /// Runs when all have ended.
    pub end: fn(&S, &At<'_>, bool),
    pub has_domain: bool,
}

impl<S: 'static> Model<S> {
    fn check(&self, die_at: Option<usize>) {
        let Self { make, parts, after, end, has_domain } = *self;
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = builder.preemption_bound.or(Some(2));
        builder.max_branches = 50_000;
        builder.check(move || {
            let world = World {
                sentinels: std::array::from_fn(|_| AtomicU32::new(0)),
                epoch: AtomicU32::new(0),
                members: AtomicU32::new(0),
                has_domain,
            };
            // All take part before anybody sleeps: joining is modelled with `death.rs`.
            for me in 1..=parts.len() {
                world.sentinels[me].store(u32::try_from(me).unwrap(), Ordering::Release);
            }
            let shared = Arc::new((world, make()));
            let run = |me: usize, die_at: Option<usize>| {
                let (shared, part) = (shared.clone(), parts[me - 1]);
                thread::spawn(move || {
                    let (world, state) = &*shared;
                    let tid = u32::try_from(me).unwrap();
                    participant(tid, Some(&world.sentinels[me]), die_at, || part(state, &At { world, me }))
                })
            };
            let victim = run(1, die_at);
            let others: Vec<_> = (2..=parts.len()).map(|me| run(me, None)).collect();
            let (world, state) = &*shared;
            let died = victim.join().unwrap().is_none();
            participant(30, None, None, || after(state, &At { world, me: 0 }, died));
            for other in others {
                assert!(other.join().unwrap().is_some(), "only the victim dies");
            }
            participant(31, None, None, || end(state, &At { world, me: 0 }, died));
        });
    }

    /// Runs the model with a death at step 0, 1, 2, … until the step is beyond the last; returns how many there were.
    pub fn die_at_each_step(&self) -> usize {
        for step in 0.. {
            self.check(Some(step));
            if !model::died(1) {
                return step;
            }
        }
        unreachable!()
    }
}

impl<S> Clone for Model<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Model<S> {}

/// Nothing to do.
pub fn nothing<S>(_: &S, _: &At<'_>, _: bool) {}

/// Whether the ignored test of this name passes, in a process of its own.
pub fn passes(name: &str) -> bool {
    std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--test-threads=1"])
        .output()
        .unwrap()
        .status
        .success()
}
