//! Which commands may have been seen: never wrong when it says no, and nearly never when it says yes.
//!
//! Up to [`FEW`] names there is an exact set of 8-byte keyed hashes. Beyond that there is a Bloom filter of
//! [`MANY_BITS`] bits (2 MiB) and [`PROBES`] probes, whose share of false answers is at most 0.1 % up to 1,000,000 names
//! and at most 1 % up to 1,700,000; with more it grows, and nothing else happens: *maybe* is settled by reading the
//! receipt from storage, so that a false answer costs a read. The hash is keyed, so that nobody can choose names that
//! make others look as if they had been seen.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec;

use crate::entropy::Entropy;

/// How many names are known exactly.
pub(super) const FEW: usize = 8192;
/// The size of the filter, in bits.
pub(super) const MANY_BITS: u32 = 1 << 24;
/// How many bits each name sets.
const PROBES: u32 = 7;

/// The key of the hash: secret, different in every process.
#[derive(Clone, Copy)]
pub(super) struct NameKey([u64; 4]);

impl NameKey {
    pub(super) fn new(entropy: &mut (impl Entropy + ?Sized)) -> Self {
        Self([(); 4].map(|()| {
            let mut bytes = [0; 8];
            entropy.fill_secret(&mut bytes);
            u64::from_le_bytes(bytes)
        }))
    }

    /// Multiplies and folds: names are outputs of a hash, so mixing them with the key is enough.
    fn hash(&self, name: &[u8; 16]) -> u64 {
        let both = u128::from_le_bytes(*name);
        let (low, high) = (both as u64, (both >> 64) as u64);
        let [a, b, c, d] = self.0;
        let fold = |x: u64, y: u64| {
            let product = u128::from(x) * u128::from(y);
            (product as u64) ^ ((product >> 64) as u64)
        };
        fold(fold(low ^ a, high ^ b) ^ c, d | 1)
    }
}

/// The names under one forwarding key.
pub(super) enum Seen {
    Few(BTreeSet<u64>),
    Many(Box<[u64]>),
}

impl Default for Seen {
    fn default() -> Self {
        Self::Few(BTreeSet::new())
    }
}

impl Seen {
    /// A name is seen from now on.
    pub(super) fn insert(&mut self, key: &NameKey, name: &[u8; 16]) {
        let hash = key.hash(name);
        if let Self::Few(few) = self {
            if few.len() < FEW {
                few.insert(hash);
                return;
            }
            let mut bits = vec![0; MANY_BITS as usize / 64].into_boxed_slice();
            few.iter().for_each(|hash| set(&mut bits, *hash));
            *self = Self::Many(bits);
        }
        if let Self::Many(bits) = self {
            set(bits, hash);
        }
    }

    /// Whether a name may have been seen; false when it certainly was not.
    pub(super) fn may_have(&self, key: &NameKey, name: &[u8; 16]) -> bool {
        let hash = key.hash(name);
        match self {
            Self::Few(few) => few.contains(&hash),
            Self::Many(bits) => {
                probes(hash).all(|(word, bit)| bits.get(word).is_some_and(|word| word & bit != 0))
            }
        }
    }
}

fn set(bits: &mut [u64], hash: u64) {
    for (word, bit) in probes(hash) {
        if let Some(word) = bits.get_mut(word) {
            *word |= bit;
        }
    }
}

/// The places of a hash: a word, and a bit in it.
fn probes(hash: u64) -> impl Iterator<Item = (usize, u64)> {
    let (first, step) = (hash as u32, (hash >> 32) as u32 | 1);
    (0..PROBES).map(move |probe| {
        let place = first.wrapping_add(step.wrapping_mul(probe)) % MANY_BITS;
        (place as usize / 64, 1 << (place % 64))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;
    use sha2::{Digest, Sha256};

    fn name(number: u64) -> [u8; 16] {
        let digest = Sha256::digest(number.to_be_bytes());
        core::array::from_fn(|index| digest[index])
    }

    /// Against a simple set, over the change from one form to the other.
    #[test]
    fn what_was_seen_is_never_forgotten_and_a_few_are_known_exactly() {
        for seed in 0..4 {
            let key = NameKey::new(&mut SeededEntropy::new([seed; 32]));
            let (mut seen, mut set) = (Seen::default(), BTreeSet::new());
            let count = FEW as u64 + 2000;
            for number in 0..count {
                // Every third comes again.
                let number = if number % 3 == 2 { number / 2 } else { number };
                let is_known = set.contains(&number);
                assert!(seen.may_have(&key, &name(number)) || !is_known, "{number}");
                if matches!(seen, Seen::Few(_)) {
                    assert_eq!(seen.may_have(&key, &name(number)), is_known, "{number}");
                }
                seen.insert(&key, &name(number));
                set.insert(number);
            }
            for number in &set {
                assert!(seen.may_have(&key, &name(*number)));
            }
        }
    }

    /// The share of false answers is the stated one.
    #[test]
    fn false_answers_are_as_rare_as_stated() {
        let key = NameKey::new(&mut SeededEntropy::new([9; 32]));
        let mut seen = Seen::default();
        let mut inserted = 0;
        for (names, most_in_100_000) in [(FEW as u64, 0), (200_000, 1), (1_000_000, 100), (1_700_000, 1000)] {
            // Names without SHA-256, for the time it takes: any that are random.
            let random = |number: u64| {
                let word = |salt: u64| {
                    (number ^ salt)
                        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                        .rotate_left(31)
                        .wrapping_mul(0xD6E8_FEB8_6659_FD93)
                };
                (u128::from(word(1)) << 64 | u128::from(word(2))).to_le_bytes()
            };
            while inserted < names {
                seen.insert(&key, &random(inserted));
                inserted += 1;
            }
            let asked = (1 << 40)..(1 << 40) + 100_000;
            let wrong = asked.filter(|number| seen.may_have(&key, &random(*number))).count();
            assert!(wrong <= most_in_100_000, "{wrong} of 100,000 with {names} names");
            if most_in_100_000 == 1000 {
                assert!(wrong > 0, "the filter is not measured at all");
            }
        }
    }
}
