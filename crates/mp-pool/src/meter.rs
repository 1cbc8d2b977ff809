//! What a `map` tells of how far it is. Without the feature `progress` it is nothing.

#[cfg(feature = "progress")]
use indicatif::ProgressBar;

/// Tells a bar, if there is one. Dropped before it is [finished](Self::finish) it leaves the bar where it is.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    #[cfg(feature = "progress")]
    bar: Option<ProgressBar>,
    /// An input has failed.
    failed: bool,
}

impl Meter {
    /// For inputs of which there are at least, and perhaps at most, so many.
    #[cfg(feature = "progress")]
    pub(crate) fn new(bar: ProgressBar, (least, most): (usize, Option<usize>)) -> Self {
        if bar.length().is_none() && most == Some(least) {
            bar.set_length(least as u64);
        }
        // Now, not at the first value: the rate counts from here on.
        bar.reset_elapsed();
        bar.tick();
        Self { bar: Some(bar), failed: false }
    }

    /// So many inputs have been done.
    pub(crate) fn advance(&self, inputs: usize) {
        #[cfg(feature = "progress")]
        if let Some(bar) = &self.bar {
            bar.inc(inputs as u64);
        }
        #[cfg(not(feature = "progress"))]
        let _ = inputs;
    }

    /// One of them has no value.
    pub(crate) fn fail(&mut self) {
        self.failed = true;
    }

    /// All have been done.
    pub(crate) fn finish(&mut self) {
        #[cfg(feature = "progress")]
        if let Some(bar) = self.bar.take_if(|_| !self.failed) {
            bar.finish();
        }
    }
}

#[cfg(feature = "progress")]
impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.abandon();
        }
    }
}
