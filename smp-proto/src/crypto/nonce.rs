//! Nonces of boxes: 24 bytes (WIRE-FACTS 3).
//!
//! Correlation ids and message ids double as nonces; a response to a proxied command takes the reversed nonce.

use crate::entropy::Entropy;

/// The length of a nonce: 24 bytes.
pub const NONCE_LENGTH: usize = 24;

/// A nonce of a box. It is public, and must never be used twice with one key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Nonce(pub [u8; NONCE_LENGTH]);

impl Nonce {
    /// The nonce that an identifier stands for: its first 24 bytes; a shorter one is filled up with zeros.
    #[must_use]
    pub fn from_id(id: &[u8]) -> Self {
        let mut nonce = [0; NONCE_LENGTH];
        for (place, &byte) in nonce.iter_mut().zip(id) {
            *place = byte;
        }
        Self(nonce)
    }

    /// A fresh nonce, from the public stream.
    #[must_use]
    pub fn generate(entropy: &mut (impl Entropy + ?Sized)) -> Self {
        let mut nonce = Self([0; NONCE_LENGTH]);
        entropy.fill_public(&mut nonce.0);
        nonce
    }

    /// The bytes in reverse order: the nonce of the answer to what was sealed with this one. (The published documents
    /// say "correlation id + 1"; what is deployed reverses.)
    #[must_use]
    pub fn reversed(mut self) -> Self {
        self.0.reverse();
        self
    }
}

impl core::fmt::Debug for Nonce {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("Nonce(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_cut_or_filled_up() {
        assert_eq!(Nonce::from_id(b""), Nonce([0; 24]));
        assert_eq!(Nonce::from_id(&[1, 2]).0[..3], [1, 2, 0]);
        assert_eq!(Nonce::from_id(&[7; 24]), Nonce([7; 24]));
        assert_eq!(Nonce::from_id(&[7; 255]), Nonce([7; 24]));
    }

    #[test]
    fn reversing_twice_gives_the_same_nonce() {
        let nonce = Nonce::from_id(&[1, 2, 3]);
        assert_eq!(nonce.reversed().0[21..], [3, 2, 1]);
        assert_eq!(nonce.reversed().reversed(), nonce);
    }
}
