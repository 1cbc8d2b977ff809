//! Segments that can be read but not written.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "a child writes where it must not")]

mod child;

use child::{listen, say, unique};
use mp_shm::error::SegmentError;
use mp_shm::segment::ReadOnly;
use mp_shm::{Segment, ShmSafe};
use mp_testkit::watchdog;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

#[derive(ShmSafe, Debug)]
#[repr(C)]
struct Prices {
    count: AtomicU64,
    prices: [u32; 3],
}

#[test]
fn child() {
    let Some((role, arguments)) = child::role() else { return };
    assert_eq!(role, "writer");
    let prices = ReadOnly::<Prices>::open(&arguments[0]).unwrap();
    say(&prices.copy().prices[2].to_string());
    listen();
    // SAFETY: none: that the kernel answers it with SIGSEGV is what is tested.
    unsafe { prices.as_ptr().cast_mut().cast::<u64>().write_volatile(1) };
    say("written");
}

#[test]
fn d11_a_write_to_a_read_only_segment_is_stopped_by_the_kernel() {
    let _watchdog = watchdog(LONG);
    let name = unique("d11");
    let mine = Segment::<Prices>::create_with(&name, |prices| prices.prices = [1, 2, 3]).unwrap();
    let theirs = ReadOnly::<Prices>::open(&name).unwrap();
    mine.count.store(u64::MAX - 5, Ordering::Relaxed);
    let copy = theirs.copy();
    assert_eq!((copy.count.into_inner(), copy.prices), (u64::MAX - 5, [1, 2, 3]));
    let mut writer = child::start("writer", &[&name]);
    assert_eq!(writer.hear(), "3");
    let status = writer.finish();
    assert_eq!(status.signal(), Some(11), "{status:?}");
    assert_eq!(mine.count.load(Ordering::Relaxed), u64::MAX - 5);
    drop(mine);
    assert_eq!(theirs.copy().prices, [1, 2, 3], "a reader keeps it, too");
    assert!(matches!(ReadOnly::<Prices>::open(&name), Err(SegmentError::NotFound)));
}
