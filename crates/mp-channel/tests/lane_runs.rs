//! Values that are their own archives leave a lane several at once.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "an archive of its own kind is declared by unsafe traits")]

use mp_channel::{RecvError, spsc};
use mp_shm::rkyv::bytecheck::{CheckBytes, Verify};
use mp_shm::rkyv::rancor::{Fallible, Source, fail};
use mp_shm::rkyv::traits::{CopyOptimization, NoUndef};
use mp_shm::rkyv::{Archive, Deserialize, Place, Portable, Serialize};
use mp_testkit::watchdog;
use std::fmt;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// Valid only if odd; sent whatever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, CheckBytes)]
#[bytecheck(crate = mp_shm::rkyv::bytecheck, verify)]
#[repr(transparent)]
struct Odd(u8);

#[derive(Debug)]
struct Even;

impl fmt::Display for Even {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an even number")
    }
}

impl std::error::Error for Even {}

// SAFETY: it checks beyond what its only field does.
unsafe impl<C: Fallible<Error: Source> + ?Sized> Verify<C> for Odd {
    fn verify(&self, _: &mut C) -> Result<(), C::Error> {
        if self.0.is_multiple_of(2) {
            fail!(Even);
        }
        Ok(())
    }
}

// SAFETY: a byte.
unsafe impl Portable for Odd {}
// SAFETY: a byte.
unsafe impl NoUndef for Odd {}

impl Archive for Odd {
    type Archived = Odd;
    type Resolver = ();
    // SAFETY: it is its own archive, without padding.
    const COPY_OPTIMIZATION: CopyOptimization<Self> = unsafe { CopyOptimization::enable() };

    fn resolve(&self, (): (), out: Place<Odd>) {
        out.write(*self);
    }
}

impl<S: Fallible + ?Sized> Serialize<S> for Odd {
    fn serialize(&self, _: &mut S) -> Result<(), S::Error> {
        Ok(())
    }
}

impl<D: Fallible + ?Sized> Deserialize<Odd, D> for Odd {
    fn deserialize(&self, _: &mut D) -> Result<Odd, D::Error> {
        Ok(*self)
    }
}

#[test]
fn b2_an_invalid_message_among_many_is_told_and_takes_no_other_with_it() {
    let _watchdog = watchdog(LONG);
    let (mut sender, mut receiver) = spsc::channel::<Odd>(64).unwrap();
    sender.send_all([1, 3, 4, 5, 6, 7].map(Odd)).unwrap();
    let mut values = Vec::new();
    let error = receiver.recv_many(&mut values, 6).unwrap_err();
    assert!(matches!(error, RecvError::Decode(_)), "{error:?}");
    assert_eq!(values, [1, 3, 5, 7].map(Odd));
    sender.send(Odd(9)).unwrap();
    assert_eq!(receiver.recv_many(&mut values, 6).unwrap(), 1);
    assert_eq!(values.last(), Some(&Odd(9)));
}

/// Receives 0 to 299 through a lane, and never more at once than asked for.
fn runs_of<T: mp_shm::Message + Send + PartialEq + fmt::Debug + 'static>(
    capacity: usize,
    count: usize,
    make: fn(u32) -> T,
) {
    let (mut sender, mut receiver) = spsc::channel::<T>(capacity).unwrap();
    let sending = std::thread::spawn(move || sender.send_all((0..300).map(make)).unwrap());
    let mut values = Vec::new();
    loop {
        let before = values.len();
        match receiver.recv_many(&mut values, count) {
            Ok(received) => {
                assert!(received > 0 && received <= count, "{received} at once of {count}");
                assert_eq!(values.len(), before + received);
            }
            Err(error) => {
                assert!(error.is_disconnected(), "{error}");
                break;
            }
        }
    }
    assert_eq!(sending.join().unwrap(), 300);
    assert!(
        values.into_iter().eq((0..300).map(make)),
        "all, in order, with {capacity} slots, {count} at once"
    );
}

#[test]
fn b17_runs_come_whole_and_in_order_whatever_the_capacity_and_the_count() {
    let _watchdog = watchdog(LONG);
    for capacity in [1, 2, 15, 16, 100, 1024] {
        for count in [1, 2, 7, 64, usize::MAX] {
            // Its own archive, as the others but the last are not.
            runs_of(capacity, count, u32::to_ne_bytes);
            runs_of(capacity, count, |number| number);
            // In blocks.
            runs_of(capacity, count, |number| [number; 100]);
            runs_of(capacity, count, |number| number.to_string());
            runs_of(capacity, count, drop);
        }
    }
}

#[test]
fn b1_many_are_received_of_a_full_lane_in_one_call() {
    let _watchdog = watchdog(LONG);
    let (mut sender, mut receiver) = spsc::channel::<[u8; 8]>(1000).unwrap();
    let mut values = vec![[7; 8]];
    for lap in 0..3 {
        sender.send_all((0..1000).map(u64::to_ne_bytes)).unwrap();
        assert!(sender.try_send([0; 8]).unwrap_err().is_full());
        assert_eq!(receiver.try_recv_many(&mut values, usize::MAX).unwrap(), 1000, "lap {lap}");
        assert!(values[1..].iter().copied().eq((0..1000).map(u64::to_ne_bytes)));
        values.truncate(1);
    }
}
