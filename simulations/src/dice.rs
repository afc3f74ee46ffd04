//! The randomness of a simulation: a stream for each purpose, all of them from one seed, so that a change in one part
//! of a run does not shift the draws of another.

use sha2::{Digest, Sha256};
use smp_proto::time::Duration;

/// A deterministic stream of draws.
#[derive(Clone, Debug)]
pub struct Dice {
    key: [u8; 32],
    counter: u64,
}

impl Dice {
    /// The stream for `purpose` under `seed`.
    #[must_use]
    pub fn new(seed: u64, purpose: &str) -> Self {
        let key = Sha256::new().chain_update(seed.to_be_bytes()).chain_update(purpose).finalize().into();
        Self { key, counter: 0 }
    }

    /// 32 bytes, for what seeds itself.
    pub fn seed(&mut self) -> [u8; 32] {
        self.counter += 1;
        Sha256::new().chain_update(self.key).chain_update(self.counter.to_be_bytes()).finalize().into()
    }

    /// A number.
    pub fn number(&mut self) -> u64 {
        let bytes = self.seed();
        bytes.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.number() % (high - low + 1)
    }

    /// Whether a one-in-`sides` event happens; never for 0.
    pub fn one_in(&mut self, sides: u32) -> bool {
        sides != 0 && self.number().is_multiple_of(u64::from(sides))
    }

    /// A duration in the range.
    pub fn duration(&mut self, (low, high): (Duration, Duration)) -> Duration {
        let (low, high) = (low.as_micros() as u64, high.as_micros() as u64);
        Duration::from_micros(self.between(low, high.max(low)))
    }
}
