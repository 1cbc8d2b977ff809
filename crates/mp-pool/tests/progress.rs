//! Progress bars: how far they are, and how they end.
#![cfg(feature = "progress")]
#![expect(clippy::unwrap_used, reason = "tests")]

use indicatif::{ProgressBar, ProgressDrawTarget, TermLike};
use mp_pool::{Pool, ThreadPool, progress_bar};
use mp_shm::Array;
use mp_testkit::watchdog;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

fn pool() -> Pool {
    Pool::builder().workers(2).chunk_size(10).build().unwrap()
}

fn threads() -> ThreadPool {
    ThreadPool::new(2).unwrap()
}

fn bar() -> ProgressBar {
    ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())
}

/// Where the bar is, its length, and whether it goes on.
fn state(bar: &ProgressBar) -> (u64, Option<u64>, bool) {
    (bar.position(), bar.length(), !bar.is_finished())
}

fn not_55(n: u32) -> u32 {
    assert!(n != 55, "unlucky");
    n
}

#[test]
fn e24_a_bar_ends_where_the_inputs_end_in_every_map() {
    let _watchdog = watchdog(LONG);
    let (pool, threads) = (pool(), threads());
    let done = (100, Some(100), false);
    let bars: [ProgressBar; 10] = std::array::from_fn(|_| bar());
    assert_eq!(pool.progress(bars[0].clone()).map(not_55, 100..200).unwrap(), (100..200).collect::<Vec<_>>());
    assert_eq!(pool.progress(bars[1].clone()).map_results(not_55, 100..200).len(), 100);
    assert_eq!(pool.progress(bars[2].clone()).imap(not_55, 100..200).count(), 100);
    assert_eq!(pool.progress(bars[3].clone()).imap_unordered(not_55, 100..200).count(), 100);
    let inputs: Vec<u32> = (100..200).collect();
    assert_eq!(pool.progress(bars[4].clone()).map_slice(not_55, &inputs).unwrap(), inputs);
    let (shared, outputs) = (Array::from_slice(&inputs).unwrap(), Array::new(100).unwrap());
    pool.progress(bars[5].clone()).map_into(not_55, &shared, &outputs).unwrap();
    assert_eq!(outputs.to_vec(), inputs);
    assert_eq!(threads.progress(bars[6].clone()).map(not_55, 100..200).unwrap().len(), 100);
    assert_eq!(threads.progress(bars[7].clone()).map_results(not_55, 100..200).len(), 100);
    assert_eq!(threads.progress(bars[8].clone()).imap(not_55, 100..200).count(), 100);
    assert_eq!(threads.progress(bars[9].clone()).imap_unordered(not_55, 100..200).count(), 100);
    for (place, bar) in bars.iter().enumerate() {
        assert_eq!(state(bar), done, "bar {place}");
    }
}

#[test]
fn e24_a_bar_is_left_where_a_map_fails() {
    let _watchdog = watchdog(LONG);
    let (pool, threads) = (pool(), threads());
    // 55 is in the sixth chunk. It is done, as those before it are; the length stays, which a finished bar would have come to.
    let failed = bar();
    pool.progress(failed.clone()).map(not_55, 0..100).unwrap_err();
    assert_eq!(state(&failed), (60, Some(100), false));
    let failed = bar();
    threads.progress(failed.clone()).map(not_55, 0..100).unwrap_err();
    assert_eq!(state(&failed), (56, Some(100), false));
    // The others are done all the same, of more than there were to be.
    let failed = bar().with_position(0);
    failed.set_length(300);
    let inputs: Vec<u32> = (0..100).collect();
    pool.progress(failed.clone()).map_slice(not_55, &inputs).unwrap_err();
    assert_eq!(state(&failed), (100, Some(300), false));
    for each in [
        |bar: ProgressBar| self::pool().progress(bar).map_results(not_55, 0..100).len(),
        |bar: ProgressBar| self::threads().progress(bar).map_results(not_55, 0..100).len(),
    ] {
        let failed = bar();
        failed.set_length(300);
        assert_eq!(each(failed.clone()), 100);
        assert_eq!(state(&failed), (100, Some(300), false));
    }
    // A closed pool does nothing.
    pool.close();
    threads.close();
    let (refused, too) = (bar(), bar());
    assert_eq!(pool.progress(refused.clone()).map_results(not_55, 0..100).len(), 1);
    assert_eq!(threads.progress(too.clone()).map_results(not_55, 0..100).len(), 1);
    assert_eq!([state(&refused), state(&too)], [(0, Some(100), false); 2]);
}

#[test]
fn e24_a_bar_goes_with_the_values_and_is_left_where_they_are_given_up() {
    let _watchdog = watchdog(LONG);
    let (pool, threads) = (pool(), threads());
    let endless = bar();
    let mut values = pool.progress(endless.clone()).imap(not_55, 100..);
    assert_eq!(values.next().unwrap().unwrap(), 100);
    assert_eq!(state(&endless), (10, None, true));
    assert_eq!(values.by_ref().take(14).count(), 14);
    assert_eq!(state(&endless), (20, None, true));
    drop(values);
    assert_eq!(state(&endless), (20, None, false));
    // It ends with the values, not with the iterator.
    let done = [bar(), bar()];
    let mut values = pool.progress(done[0].clone()).imap(not_55, 100..120);
    assert_eq!(values.by_ref().count(), 20);
    let mut of_threads = threads.progress(done[1].clone()).imap(not_55, 100..120);
    assert_eq!(of_threads.by_ref().count(), 20);
    assert_eq!(done.each_ref().map(state), [(20, Some(20), false); 2]);
    drop((values, of_threads));
    let endless = bar();
    let mut values = threads.progress(endless.clone()).imap(not_55, 100..);
    assert_eq!(values.by_ref().take(14).count(), 14);
    assert_eq!(state(&endless), (14, None, true));
    drop(values);
    assert_eq!(state(&endless), (14, None, false));
}

#[test]
fn e24_a_bar_is_left_where_the_inputs_panic() {
    let _watchdog = watchdog(LONG);
    let (pool, threads) = (pool(), threads());
    let bars = [bar(), bar()];
    bars.iter().for_each(|bar| bar.set_length(300));
    let inputs = || (100..).inspect(|&n: &u32| assert!(n != 150, "no more inputs"));
    let mut values = pool.progress(bars[0].clone()).imap(not_55, inputs());
    catch_unwind(AssertUnwindSafe(|| values.by_ref().for_each(drop))).unwrap_err();
    assert!(values.next().is_none());
    let mut values = threads.progress(bars[1].clone()).imap(not_55, inputs());
    catch_unwind(AssertUnwindSafe(|| values.by_ref().for_each(drop))).unwrap_err();
    assert!(values.next().is_none());
    // The iterators are there still, and have nothing more to tell.
    assert_eq!(bars.each_ref().map(|bar| bar.position()), [50, 50]);
}

/// A terminal that keeps what is written.
#[derive(Clone, Debug, Default)]
struct Screen(Arc<Mutex<String>>);

impl TermLike for Screen {
    fn width(&self) -> u16 {
        100
    }
    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn write_line(&self, text: &str) -> io::Result<()> {
        self.write_str(text)
    }
    fn write_str(&self, text: &str) -> io::Result<()> {
        self.0.lock().unwrap().push_str(text);
        Ok(())
    }
    fn clear_line(&self) -> io::Result<()> {
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn e24_the_usual_bar_shows_place_time_and_rate() {
    let _watchdog = watchdog(LONG);
    let screen = Screen::default();
    let bar = progress_bar().with_message("squares ");
    bar.set_draw_target(ProgressDrawTarget::term_like(Box::new(screen.clone())));
    pool().progress(bar.clone()).map(|n: u32| n * n, 0..1000).unwrap();
    let text = screen.0.lock().unwrap();
    let last = text.rsplit("squares").next().unwrap();
    assert!(text.contains("  0% "), "{text}");
    assert!(last.contains("100% ") && last.contains(" 1,000/1,000 ["), "{last}");
    assert!(last.trim_end().ends_with("/s]"), "{last}");
}
