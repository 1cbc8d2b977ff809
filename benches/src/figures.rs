//! Figures of several repetitions: their middle, their spread, their ratios.

/// The repetitions of a figure.
pub struct Figures(pub Vec<f64>);

impl Figures {
    /// In ascending order.
    fn sorted(&self) -> Vec<f64> {
        let mut all = self.0.clone();
        all.sort_by(f64::total_cmp);
        all
    }

    /// The middle one, or the mean of the two middle ones.
    #[must_use]
    pub fn median(&self) -> f64 {
        let all = self.sorted();
        let upper = all.get(all.len() / 2).copied().unwrap_or(f64::NAN);
        let lower = all.get(all.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN);
        f64::midpoint(lower, upper)
    }

    /// The smallest.
    #[must_use]
    pub fn min(&self) -> f64 {
        self.sorted().first().copied().unwrap_or(f64::NAN)
    }

    /// The largest.
    #[must_use]
    pub fn max(&self) -> f64 {
        self.sorted().last().copied().unwrap_or(f64::NAN)
    }

    /// Whether the largest is over twice the smallest: then the median says little.
    #[must_use]
    pub fn unstable(&self) -> bool {
        self.max() > 2.0 * self.min()
    }

    /// Each of these divided by the one of the same round in `other`.
    #[must_use]
    pub fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(ours, theirs)| ours / theirs).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_odd_and_even_counts() {
        let odd = Figures(vec![3.0, 1.0, 2.0]);
        assert_eq!((odd.min(), odd.median(), odd.max()), (1.0, 2.0, 3.0));
        let even = Figures(vec![4.0, 1.0, 2.0, 3.0]);
        assert_eq!(even.median(), 2.5);
        assert!(even.unstable());
        assert!(!Figures(vec![1.0, 2.0]).unstable());
        assert!(Figures(vec![]).median().is_nan());
    }
}
