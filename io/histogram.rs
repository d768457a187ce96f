//! How often a value was how large: one counter per power of two, so that counting is one addition.
//!
//! ```text
//!   bucket      0    1    2    3       4       5        ..   39
//!   values      0    1    2    3..=4   5..=8   9..=16   ..   above 2^37
//! ```

use std::fmt;

/// As many as a day of nanoseconds would need, less the last: 2^37 ns are 137 s.
const BUCKETS: usize = 40;

/// How often a value was how large, by powers of two: see [`Metrics`](crate::Metrics).
///
/// ```
/// let runtime = quoit::Runtime::builder().time_polls(true).build()?;
/// runtime.block_on(async { quoit::spawn(async {}).await.unwrap() });
/// let polls = runtime.metrics().poll_times.unwrap();
/// assert_eq!(polls.count(), 1);
/// let within_a_second: u64 = polls
///     .buckets()
///     .filter(|(at_most, _)| *at_most <= 1 << 30)
///     .map(|(_, count)| count)
///     .sum();
/// assert_eq!(within_a_second, 1);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    sum: u64,
}

impl Histogram {
    #[inline]
    pub(crate) fn record(&mut self, value: u64) {
        let bucket = match value {
            0 => 0,
            _ => 65 - (value - 1).leading_zeros() as usize,
        };
        self.counts[bucket.min(BUCKETS - 1)] += 1;
        self.sum = self.sum.wrapping_add(value);
    }

    /// How many values there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All values added up. It wraps around at 2^64, which is 584 years of nanoseconds.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Each bucket: the largest value that belongs to it, and how many values did. The bounds are
    /// 0, 1, 2, 4 and on to 2^37, always the same; the last bucket has all above, and the bound
    /// `u64::MAX`.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.counts.iter().enumerate().map(|(bucket, count)| (bound(bucket), *count))
    }

    /// A value that this share of all values, between 0 and 1, do not exceed: the bound of the
    /// bucket that it is in, hence up to twice as large. `None` without any value.
    ///
    /// ```
    /// assert_eq!(quoit::Histogram::default().quantile(0.5), None);
    /// ```
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let count = self.count();
        let rank = ((count as f64 * share.clamp(0.0, 1.0)).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        let mut buckets = self.buckets();
        buckets.find_map(|(bound, count)| {
            seen += count;
            (seen >= rank).then_some(bound)
        })
    }
}

fn bound(bucket: usize) -> u64 {
    match bucket {
        0 => 0,
        _ if bucket == BUCKETS - 1 => u64::MAX,
        _ => 1 << (bucket - 1),
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], sum: 0 }
    }
}

/// The buckets that have something, by their bounds.
impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.buckets().filter(|(_, count)| *count > 0)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        let edges = (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + 1]);
        for value in edges.chain([u64::MAX]) {
            let mut histogram = Histogram::default();
            histogram.record(value);
            let bounds: Vec<u64> = histogram.buckets().map(|(bound, _)| bound).collect();
            let expected = bounds.iter().position(|bound| value <= *bound);
            let found = histogram.buckets().position(|(_, count)| count == 1);
            assert_eq!(found, expected, "{value}");
            assert_eq!((histogram.count(), histogram.sum()), (1, value));
        }
    }

    #[test]
    fn a_quantile_is_the_bound_that_so_many_do_not_exceed() {
        let mut histogram = Histogram::default();
        (1..=100).for_each(|value| histogram.record(value));
        assert_eq!(histogram.quantile(0.0), Some(1));
        assert_eq!(histogram.quantile(0.5), Some(64));
        assert_eq!(histogram.quantile(0.64), Some(64));
        assert_eq!(histogram.quantile(0.65), Some(128));
        assert_eq!(histogram.quantile(1.0), Some(128));
        assert_eq!(histogram.sum(), 5050);
    }

    #[test]
    fn it_shows_what_it_has() {
        let mut histogram = Histogram::default();
        [0, 3, 4, u64::MAX].into_iter().for_each(|value| histogram.record(value));
        assert_eq!(format!("{histogram:?}"), format!("{{0: 1, 4: 2, {}: 1}}", u64::MAX));
    }
}
