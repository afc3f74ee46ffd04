//! Latencies, counted in buckets whose width is at most 1/64 of their value: 15 KiB, whatever the number of samples.

use std::time::Duration;

use serde::Serialize;

/// Buckets for each power of two.
const STEPS: u64 = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();

/// How often which latency occurred, in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

/// What is reported of a histogram, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { counts: Vec::new(), total: 0, max: 0 }
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        let bucket = bucket(nanos);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.total += 1;
        self.max = self.max.max(nanos);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// `None` when nothing was recorded.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        if self.total == 0 {
            return None;
        }
        #[allow(clippy::cast_precision_loss)] // microseconds for people
        let micros = |nanos: u64| (nanos / 10) as f64 / 100.0;
        let at = |per_mille: u64| micros(self.quantile(per_mille));
        Some(Percentiles {
            p50_us: at(500),
            p90_us: at(900),
            p99_us: at(990),
            p999_us: at(999),
            max_us: micros(self.max),
        })
    }

    /// An upper bound of the latency that `per_mille` of all samples do not exceed.
    fn quantile(&self, per_mille: u64) -> u64 {
        let wanted = (self.total.saturating_mul(per_mille)).div_ceil(1000).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_bound(bucket).min(self.max);
            }
        }
        self.max
    }
}

/// Small values have a bucket each; above, 64 buckets share each power of two.
fn bucket(nanos: u64) -> usize {
    if nanos < STEPS {
        return usize::try_from(nanos).unwrap_or(0);
    }
    let power = nanos.ilog2() - STEP_BITS;
    let within = nanos >> power;
    usize::try_from(u64::from(power) * STEPS + within).unwrap_or(usize::MAX)
}

/// The largest value in a bucket.
fn upper_bound(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * STEPS {
        return bucket;
    }
    let power = bucket / STEPS - 1;
    let within = bucket % STEPS + STEPS;
    ((within + 1) << power) - 1
}

impl Percentiles {
    pub(crate) fn text(&self) -> String {
        let shown = |micros: f64| {
            if micros < 1000.0 { format!("{micros:.0} µs") } else { format!("{:.1} ms", micros / 1000.0) }
        };
        format!(
            "median {}, 90% {}, 99% {}, 99.9% {}, worst {}",
            shown(self.p50_us),
            shown(self.p90_us),
            shown(self.p99_us),
            shown(self.p999_us),
            shown(self.max_us)
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]
    use super::*;

    #[test]
    fn buckets_are_narrow_and_in_order() {
        let mut last = 0;
        for nanos in (0..10_000).chain((14..40).map(|power| (1 << power) + 7)) {
            let index = bucket(nanos);
            assert!(index >= last, "{nanos}");
            last = index;
            let bound = upper_bound(index);
            assert!(bound >= nanos && bound - nanos <= nanos / 64, "{nanos}: {bound}");
        }
    }

    #[test]
    fn percentiles_are_those_of_the_samples() {
        let (mut odd, mut even) = (Histogram::new(), Histogram::new());
        for micros in 1..=1000 {
            if micros % 2 == 0 { &mut even } else { &mut odd }.record(Duration::from_micros(micros));
        }
        odd.merge(&even);
        let percentiles = odd.percentiles().unwrap();
        let close = |actual: f64, expected: f64| (actual - expected).abs() <= expected / 50.0;
        assert!(close(percentiles.p50_us, 500.0) && close(percentiles.p99_us, 990.0), "{percentiles:?}");
        assert!(close(percentiles.max_us, 1000.0), "{percentiles:?}");
        assert_eq!(Histogram::new().percentiles(), None);
    }
}
