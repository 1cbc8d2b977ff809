//! The typed message: about 1 KiB with strings and vectors, and what encoding and validating it costs without any channel.

use crate::Outcome;
use crate::machine::Pinned;
use crate::measure::{Plan, timed};
use multiproc::Session;
use multiproc::rkyv::util::AlignedVec;
use multiproc::rkyv::{self, Archive, Deserialize, Serialize, rancor};
use multiproc::shm::codec;
use std::hint::black_box;
use std::time::Duration;

/// A message as programs send them: a number, strings, vectors, and strings in vectors.
#[derive(Clone, PartialEq, Debug, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
#[rkyv(crate = multiproc::rkyv, compare(PartialEq))]
pub struct Record {
    /// The message's number.
    pub sequence: u64,
    name: String,
    tags: Vec<String>,
    samples: Vec<f64>,
    places: Vec<(u32, String)>,
}

impl Record {
    /// Message number 0.
    #[must_use]
    pub fn new() -> Self {
        let text = |number: u32| format!("place number {number} of the record");
        Self {
            sequence: 0,
            name: "a record as programs send them".to_owned(),
            tags: ["measured", "in the same run", "checked", "one of many"].map(str::to_owned).to_vec(),
            samples: (0..80).map(|number| f64::from(number) / 7.0).collect(),
            places: (0..6).map(|number| (number, text(number))).collect(),
        }
    }
}

impl Default for Record {
    fn default() -> Self {
        Self::new()
    }
}

/// What a receiver compares with.
pub struct Expected(Record);

impl Expected {
    /// For messages of any number.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "there is no value that one would expect")]
    pub fn new() -> Self {
        Self(Record::new())
    }

    /// Whether `record` is message number `sequence`, whole.
    pub fn is(&mut self, record: &Record, sequence: u64) -> bool {
        self.0.sequence = sequence;
        self.0 == *record
    }

    /// Whether `archived` is message number `sequence`, whole.
    pub fn is_archived(&mut self, archived: &ArchivedRecord, sequence: u64) -> bool {
        self.0.sequence = sequence;
        *archived == self.0
    }
}

/// Runs `work` for messages 0, 1, 2, ..., and times those behind the warm-up.
fn each(plan: &Plan, mut work: impl FnMut(&Record) -> Outcome<()>) -> Outcome<Duration> {
    let _pinned = Pinned::to_first()?;
    let mut record = Record::new();
    let mut turn = |number: u32| {
        record.sequence = u64::from(number);
        work(black_box(&record))
    };
    (0..plan.warm_up).try_for_each(&mut turn)?;
    let ((), time) = timed(|| (plan.warm_up..plan.total()).try_for_each(&mut turn))?;
    Ok(time)
}

/// The archive of `record`, made by rkyv alone.
fn archive(record: &Record) -> Outcome<AlignedVec> {
    Ok(rkyv::to_bytes::<rancor::Error>(record)?)
}

/// Encodes as a channel does.
///
/// # Errors
/// When the library fails.
pub fn encode(plan: &Plan) -> Outcome<Duration> {
    let (session, expected) = (Session::current()?, archive(&Record::new())?.len());
    each(plan, |record| {
        let encoded = codec::encode(session, record, 0)?;
        if black_box(&encoded).len() == expected { Ok(()) } else { Err("a wrong size".into()) }
    })
}

/// Encodes with rkyv into memory of the heap, as its manual shows.
///
/// # Errors
/// When rkyv fails.
pub fn to_bytes(plan: &Plan) -> Outcome<Duration> {
    let expected = archive(&Record::new())?.len();
    each(plan, |record| {
        let bytes = archive(record)?;
        if black_box(&bytes).len() == expected { Ok(()) } else { Err("a wrong size".into()) }
    })
}

/// Encodes as a channel does, and validates an archive and compares it, without sending.
///
/// # Errors
/// When the library fails.
pub fn encode_and_validate(plan: &Plan) -> Outcome<Duration> {
    let (session, bytes, mut expected) = (Session::current()?, archive(&Record::new())?, Expected::new());
    each(plan, |record| {
        black_box(codec::encode(session, record, 0)?);
        let archived = rkyv::access::<ArchivedRecord, rancor::Error>(black_box(&bytes))?;
        if expected.is_archived(archived, 0) { Ok(()) } else { Err("a wrong message".into()) }
    })
}

/// Runs `send_and_receive` for each message: for the contestant whose channel starts and ends in this thread.
///
/// # Errors
/// Those of `send_and_receive`.
pub fn in_process(
    plan: &Plan,
    mut send_and_receive: impl FnMut(&Record) -> Outcome<bool>,
) -> Outcome<Duration> {
    each(plan, |record| if send_and_receive(record)? { Ok(()) } else { Err("a wrong message".into()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_about_a_kibibyte() -> Outcome<()> {
        let len = archive(&Record::new())?.len();
        assert!((900..1200).contains(&len), "{len} bytes");
        Ok(())
    }

    #[test]
    fn another_number_and_another_text_are_found() -> Outcome<()> {
        let (mut record, mut expected) = (Record { sequence: 9, ..Record::new() }, Expected::new());
        let archived = |record: &Record, expected: &mut Expected, sequence| {
            let bytes = archive(record)?;
            let archived = rkyv::access::<ArchivedRecord, rancor::Error>(&bytes)?;
            Ok::<_, Box<dyn std::error::Error>>(expected.is_archived(archived, sequence))
        };
        assert!(expected.is(&record, 9) && archived(&record, &mut expected, 9)?);
        assert!(!expected.is(&record, 8) && !archived(&record, &mut expected, 8)?);
        record.places[5].1.push('.');
        assert!(!expected.is(&record, 9) && !archived(&record, &mut expected, 9)?);
        Ok(())
    }
}
