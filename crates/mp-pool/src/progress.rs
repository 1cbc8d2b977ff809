//! Progress bars: a `map` that shows how far it is (feature `progress`).

use crate::error::MapError;
use crate::map::{self, Imap};
use crate::meter::Meter;
use crate::pool::Pool;
use crate::threads::{ThreadImap, ThreadPool};
use indicatif::{ProgressBar, ProgressStyle};
use mp_shm::{Array, Message, ShmSafe};

/// A pool whose next `map` moves a bar: see [`Pool::progress`] and [`ThreadPool::progress`].
///
/// The bar advances as values come, by one for each input, whether that has failed or not. A bar without a length is given the number of inputs, if
/// that is known. It is finished when all inputs have values, and abandoned, at the place where it is, when one has failed, the inputs panic or an
/// iterator is dropped before its end.
#[derive(Debug)]
#[must_use = "nothing is done before it is told what to map"]
pub struct Progress<'p, P> {
    pool: &'p P,
    bar: ProgressBar,
}

/// A bar that shows how much is done, the time, and the rate. Its length follows from the inputs.
///
/// # Examples
/// ```
/// use mp_pool::{Pool, progress_bar};
///
/// let pool = Pool::builder().workers(2).build()?;
/// let squares = pool.progress(progress_bar()).map(|n: u64| n * n, 1..=1000)?;
/// assert_eq!(squares[999], 1_000_000);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{msg}{percent:>3}% {wide_bar} {human_pos}/{human_len} [{elapsed}<{eta}, {per_sec}]",
    );
    ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

impl Pool {
    /// Has the `map` that is asked for next move `bar`; [`progress_bar`] makes one.
    ///
    /// # Examples
    /// ```
    /// use mp_pool::{Pool, progress_bar};
    ///
    /// let pool = Pool::builder().workers(2).build()?;
    /// let bar = progress_bar().with_message("squares ");
    /// for square in pool.progress(bar.clone()).imap(|n: u64| n * n, 1..=100) {
    ///     assert!(square? <= 10_000);
    /// }
    /// assert_eq!(bar.position(), 100);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn progress(&self, bar: ProgressBar) -> Progress<'_, Self> {
        Progress { pool: self, bar }
    }
}

impl ThreadPool {
    /// Has the `map` that is asked for next move `bar`, as [`Pool::progress`] does.
    pub fn progress(&self, bar: ProgressBar) -> Progress<'_, Self> {
        Progress { pool: self, bar }
    }
}

impl<'p> Progress<'p, Pool> {
    /// [`Pool::map`].
    ///
    /// # Errors
    /// As there.
    pub fn map<A: Message + Send + 'static, R: Message + 'static>(
        self,
        f: fn(A) -> R,
        inputs: impl IntoIterator<Item = A>,
    ) -> Result<Vec<R>, MapError> {
        map::collect(self.imap(f, inputs))
    }

    /// [`Pool::map_results`].
    pub fn map_results<A: Message + Send + 'static, R: Message + 'static>(
        self,
        f: fn(A) -> R,
        inputs: impl IntoIterator<Item = A>,
    ) -> Vec<Result<R, MapError>> {
        self.imap(f, inputs).collect()
    }

    /// [`Pool::imap`].
    pub fn imap<A: Message + Send + 'static, R: Message + 'static, I: IntoIterator<Item = A>>(
        self,
        f: fn(A) -> R,
        inputs: I,
    ) -> Imap<'p, A, R, I::IntoIter> {
        self.iterate(f, inputs.into_iter(), true)
    }

    /// [`Pool::imap_unordered`].
    pub fn imap_unordered<A: Message + Send + 'static, R: Message + 'static, I: IntoIterator<Item = A>>(
        self,
        f: fn(A) -> R,
        inputs: I,
    ) -> Imap<'p, A, R, I::IntoIter> {
        self.iterate(f, inputs.into_iter(), false)
    }

    fn iterate<A: Message + Send + 'static, R: Message + 'static, I: Iterator<Item = A>>(
        self,
        f: fn(A) -> R,
        inputs: I,
        is_ordered: bool,
    ) -> Imap<'p, A, R, I> {
        let meter = Meter::new(self.bar, inputs.size_hint());
        Imap::new(self.pool, f, inputs, is_ordered).with_meter(meter)
    }

    /// [`Pool::map_into`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// As there.
    pub fn map_into<A: ShmSafe + Copy, R: ShmSafe + Copy>(
        self,
        f: fn(A) -> R,
        inputs: &Array<A>,
        outputs: &Array<R>,
    ) -> Result<(), MapError> {
        let meter = Meter::new(self.bar, (inputs.len(), Some(inputs.len())));
        map::map_into(self.pool, f, (inputs, outputs), meter)
    }

    /// [`Pool::map_slice`].
    ///
    /// # Errors
    /// As there.
    pub fn map_slice<A: ShmSafe + Copy, R: ShmSafe + Copy>(
        self,
        f: fn(A) -> R,
        inputs: &[A],
    ) -> Result<Vec<R>, MapError> {
        let meter = Meter::new(self.bar, (inputs.len(), Some(inputs.len())));
        map::map_slice(self.pool, f, inputs, meter)
    }
}

impl<'p> Progress<'p, ThreadPool> {
    /// [`ThreadPool::map`].
    ///
    /// # Errors
    /// As there.
    pub fn map<A: Message + Send + 'static, R: Message + Send + 'static>(
        self,
        f: fn(A) -> R,
        inputs: impl IntoIterator<Item = A>,
    ) -> Result<Vec<R>, MapError> {
        self.imap(f, inputs).collect()
    }

    /// [`ThreadPool::map_results`].
    pub fn map_results<A: Message + Send + 'static, R: Message + Send + 'static>(
        self,
        f: fn(A) -> R,
        inputs: impl IntoIterator<Item = A>,
    ) -> Vec<Result<R, MapError>> {
        self.imap(f, inputs).collect()
    }

    /// [`ThreadPool::imap`].
    pub fn imap<A: Message + Send + 'static, R: Message + Send + 'static, I: IntoIterator<Item = A>>(
        self,
        f: fn(A) -> R,
        inputs: I,
    ) -> ThreadImap<'p, A, R, I::IntoIter> {
        let inputs = inputs.into_iter();
        let meter = Meter::new(self.bar, inputs.size_hint());
        self.pool.imap(f, inputs).with_meter(meter)
    }

    /// [`ThreadPool::imap_unordered`].
    pub fn imap_unordered<
        A: Message + Send + 'static,
        R: Message + Send + 'static,
        I: IntoIterator<Item = A>,
    >(
        self,
        f: fn(A) -> R,
        inputs: I,
    ) -> ThreadImap<'p, A, R, I::IntoIter> {
        let inputs = inputs.into_iter();
        let meter = Meter::new(self.bar, inputs.size_hint());
        self.pool.imap_unordered(f, inputs).with_meter(meter)
    }
}
