//! Waits between attempts: each twice as long as the one before, up to a limit, and shortened at random, so that those who
//! failed together do not all return together.

use crate::entropy::Entropy;
use crate::time::Duration;

/// How waits grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backoff {
    /// The wait after the first failure, before it is shortened.
    pub(crate) first: Duration,
    /// The longest wait.
    pub(crate) longest: Duration,
}

impl Backoff {
    /// The wait after so many failures in a row: between half of what it has grown to, and all of it.
    pub(crate) fn after(self, failures: u32, entropy: &mut (impl Entropy + ?Sized)) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let doubled = self.first.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX));
        let most = doubled.min(self.longest);
        let mut random = [0; 2];
        entropy.fill_public(&mut random);
        most / 2 + most / 2 * u32::from(u16::from_be_bytes(random)) / 65_535
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    #[test]
    fn waits_grow_up_to_the_longest_and_differ() {
        let backoff = Backoff { first: Duration::from_secs(2), longest: Duration::from_secs(120) };
        let mut entropy = SeededEntropy::new([1; 32]);
        for failures in [1, 2, 5, 7, 31, 32, 40, u32::MAX] {
            let most = Duration::from_secs(2_u64.saturating_pow(failures.min(30)).min(120));
            let waits = [(); 8].map(|()| backoff.after(failures, &mut entropy));
            assert!(waits.iter().all(|wait| (most / 2..=most).contains(wait)), "{failures}: {waits:?}");
            assert!(waits.iter().any(|wait| *wait != waits[0]));
        }
        assert!(backoff.after(0, &mut entropy) <= backoff.first, "before any failure it is as after one");
    }
}
