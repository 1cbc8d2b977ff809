//! What goes through the channels of a soak, and what must hold for all that arrives.
//!
//! A message follows from who sent it and from its position, so a reader can say of each one alone whether it is whole.

use std::collections::{BTreeSet, HashMap};

/// Producer's serial number, position, content.
pub(super) type Item = (u64, u64, Vec<u64>);
/// Consumer's serial number, and what it received.
pub(super) type Passed = (u64, Item);

/// What a message must hold: mostly a few words, now and then enough for a block of its own.
pub(super) fn content(producer: u64, position: u64) -> Vec<u64> {
    let mut random = fastrand::Rng::with_seed(producer << 32 ^ position);
    let len = if random.u32(..8) == 0 { random.usize(..600) } else { random.usize(..6) };
    (0..len).map(|_| random.u64(..)).collect()
}

/// Which of so many channels a message goes through.
pub(super) fn channel_of(position: u64, channels: usize) -> usize {
    usize::try_from(position % channels as u64).unwrap_or(0)
}

/// All that has arrived.
pub(super) struct Checked {
    channels: usize,
    pub(super) messages: u64,
    /// Of each producer.
    seen: HashMap<u64, Seen>,
    /// The last position that a consumer had of a producer through a channel.
    last: HashMap<(u64, u64, usize), u64>,
    pub(super) broken: Vec<String>,
}

/// Positions of a producer that have arrived: all below the first number, and those above it.
#[derive(Default)]
struct Seen {
    all_below: u64,
    above: BTreeSet<u64>,
}

impl Seen {
    /// Notes a position; `false` if it was there before.
    fn note(&mut self, position: u64) -> bool {
        if position < self.all_below || !self.above.insert(position) {
            return false;
        }
        while self.above.remove(&self.all_below) {
            self.all_below += 1;
        }
        true
    }

    /// Positions that are missing below the last that arrived, and below `sent`.
    fn missing(&self, sent: u64) -> u64 {
        let end = self.above.last().map_or(self.all_below, |last| last + 1).max(sent);
        end - self.all_below - self.above.len() as u64
    }
}

impl Checked {
    pub(super) fn new(channels: usize) -> Self {
        Self { channels, messages: 0, seen: HashMap::new(), last: HashMap::new(), broken: Vec::new() }
    }

    pub(super) fn check(&mut self, (consumer, (producer, position, words)): &Passed) {
        self.messages += 1;
        if *words != content(*producer, *position) {
            self.broken.push(format!("message {position} of producer {producer} is corrupt"));
        }
        if !self.seen.entry(*producer).or_default().note(*position) {
            self.broken.push(format!("message {position} of producer {producer} arrived twice"));
        }
        let channel = channel_of(*position, self.channels);
        let before = self.last.insert((*consumer, *producer, channel), *position);
        if let Some(before) = before.filter(|before| before >= position) {
            self.broken.push(format!(
                "consumer {consumer} had message {position} of producer {producer} after {before}"
            ));
        }
    }

    /// How many messages did not arrive, of what each producer (by its serial number) is known to have `sent`.
    pub(super) fn lost(&self, sent: &[(u64, u64)]) -> u64 {
        let none = Seen::default();
        sent.iter().map(|(producer, sent)| self.seen.get(producer).unwrap_or(&none).missing(*sent)).sum()
    }
}
