//! Signatures: Ed25519 through the [`Provider`], Ed448 in pure Rust (WIRE-FACTS 4.8).
//!
//! Ed448 occurs in old server identities and, rarely, as a key of a queue. It costs about 1.4 ms to verify.

use alloc::vec::Vec;

use super::provider::{ED25519_SIGNATURE_LENGTH, Provider};
use crate::keys::{Ed448Public, Ed448Secret, Ed25519Public, SignatureKey, SigningKey};

/// The length of an Ed448 signature: 114 bytes.
pub const ED448_SIGNATURE_LENGTH: usize = 114;

/// A signature of either algorithm: 64 or 114 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Signature {
    /// 64 bytes.
    Ed25519([u8; ED25519_SIGNATURE_LENGTH]),
    /// 114 bytes.
    Ed448([u8; ED448_SIGNATURE_LENGTH]),
}

impl Signature {
    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Ed25519(bytes) => bytes,
            Self::Ed448(bytes) => bytes,
        }
    }
}

impl core::fmt::Debug for Signature {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "Signature({} bytes)", self.as_bytes().len())
    }
}

/// Signs the message whose parts are given.
#[must_use]
pub fn sign(provider: &dyn Provider, key: &SigningKey, message: &[&[u8]]) -> Signature {
    match key {
        SigningKey::Ed25519(key) => Signature::Ed25519(provider.ed25519_sign(key, message)),
        SigningKey::Ed448(key) => Signature::Ed448(ed448_sign(key, message)),
    }
}

/// Whether `signature` is the key's signature of the message. False when it is of another length.
#[must_use]
pub fn verify(provider: &dyn Provider, key: &SignatureKey, message: &[&[u8]], signature: &[u8]) -> bool {
    match key {
        SignatureKey::Ed25519(key) => {
            signature.try_into().is_ok_and(|signature| provider.ed25519_verify(key, message, signature))
        }
        SignatureKey::Ed448(key) => {
            signature.try_into().is_ok_and(|signature| ed448_verify(key, message, signature))
        }
    }
}

/// The key that verifies what `key` signs.
#[must_use]
pub fn public_key(provider: &dyn Provider, key: &SigningKey) -> SignatureKey {
    match key {
        SigningKey::Ed25519(key) => SignatureKey::Ed25519(Ed25519Public(provider.ed25519_public(key).0)),
        SigningKey::Ed448(key) => SignatureKey::Ed448(ed448_public(key)),
    }
}

/// The public key of an Ed448 seed.
#[must_use]
pub fn ed448_public(secret: &Ed448Secret) -> Ed448Public {
    Ed448Public(ed448_key(secret).verifying_key().to_bytes())
}

/// Signs with Ed448 (pure, empty context).
#[must_use]
pub fn ed448_sign(secret: &Ed448Secret, message: &[&[u8]]) -> [u8; ED448_SIGNATURE_LENGTH] {
    ed448_key(secret).sign_raw(&message.concat()).to_bytes()
}

/// Whether `signature` is the key's Ed448 signature (pure, empty context) of the message.
#[must_use]
pub fn ed448_verify(key: &Ed448Public, message: &[&[u8]], signature: &[u8; ED448_SIGNATURE_LENGTH]) -> bool {
    let message: Vec<u8> = message.concat();
    ed448_goldilocks::VerifyingKey::from_bytes(&key.0).is_ok_and(|key| {
        key.verify_raw(&ed448_goldilocks::Signature::from_bytes(signature), &message).is_ok()
    })
}

fn ed448_key(secret: &Ed448Secret) -> ed448_goldilocks::SigningKey {
    ed448_goldilocks::SigningKey::from(ed448_goldilocks::SecretKey::from(*secret.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{Ed25519Check, Portable};
    use crate::entropy::{Entropy, SeededEntropy};
    use crate::keys::Ed25519Secret;

    #[test]
    fn signatures_of_both_algorithms_fit_one_key_and_message() {
        let mut entropy = SeededEntropy::new([1; 32]);
        let keys = [
            SigningKey::Ed25519(Ed25519Secret::generate(&mut entropy)),
            SigningKey::Ed448(Ed448Secret::generate(&mut entropy)),
        ];
        let other = SignatureKey::Ed25519(Portable.ed25519_public(&Ed25519Secret::generate(&mut entropy)));
        for key in keys {
            let public = public_key(&Portable, &key);
            let signature = sign(&Portable, &key, &[b"a ", b"message"]);
            let bytes = signature.as_bytes();
            assert!(verify(&Portable, &public, &[b"a message"], bytes));
            assert!(!verify(&Portable, &public, &[b"a message."], bytes));
            assert!(!verify(&Portable, &other, &[b"a message"], bytes));
            assert!(!verify(&Portable, &public, &[b"a message"], &bytes[1..]));
            for index in (0..bytes.len()).step_by(13) {
                let mut changed = bytes.to_vec();
                changed[index] ^= 4;
                assert!(!verify(&Portable, &public, &[b"a message"], &changed));
            }
        }
    }

    #[test]
    fn no_bytes_make_verification_panic() {
        let mut entropy = SeededEntropy::new([2; 32]);
        let (mut key, mut signature) = ([0; 57], [0; ED448_SIGNATURE_LENGTH]);
        for _ in 0..200 {
            entropy.fill_public(&mut key);
            entropy.fill_public(&mut signature);
            assert!(!ed448_verify(&Ed448Public(key), &[b"text"], &signature));
        }
        for (byte, last) in [(0, 0), (0xFF, 0xFF), (0, 0x80), (0xFF, 0), (1, 0), (0xFE, 0x80)] {
            key.fill(byte);
            key[56] = last;
            signature.fill(byte);
            signature[113] = last;
            // A key of small order may verify anything; only panics matter here.
            let _ = ed448_verify(&Ed448Public(key), &[b"text"], &signature);
            let _ = Portable.ed25519_verify(&Ed25519Public([byte; 32]), &[b"text"], &[byte; 64]);
        }
    }

    #[test]
    fn a_batch_finds_exactly_the_signatures_that_are_bad() {
        let mut entropy = SeededEntropy::new([3; 32]);
        let secrets: Vec<_> = (0..9).map(|_| Ed25519Secret::generate(&mut entropy)).collect();
        let message: [&[u8]; 2] = [b"part one, ", b"part two"];
        let signatures: Vec<_> =
            secrets.iter().map(|secret| Portable.ed25519_sign(secret, &message)).collect();
        for bad in [None, Some(0), Some(4), Some(8)] {
            let mut signatures = signatures.clone();
            if let Some(bad) = bad {
                signatures[bad][3] ^= 1;
            }
            for count in 0..=secrets.len() {
                let mut checks: Vec<_> = secrets
                    .iter()
                    .zip(&signatures)
                    .take(count)
                    .map(|(secret, signature)| Ed25519Check {
                        key: Portable.ed25519_public(secret),
                        message: &message,
                        signature,
                        valid: false,
                    })
                    .collect();
                Portable.ed25519_verify_batch(&mut checks);
                for (index, check) in checks.iter().enumerate() {
                    assert_eq!(check.valid, Some(index) != bad, "{index} of {count}");
                }
            }
        }
    }

    #[test]
    fn a_batch_accepts_no_malformed_key_or_scalar() {
        let secret = Ed25519Secret::from_bytes([1; 32]);
        let key = Portable.ed25519_public(&secret);
        let signature = Portable.ed25519_sign(&secret, &[b"text"]);
        let mut unreduced = signature;
        unreduced[63] |= 0xF0;
        let not_a_point = Ed25519Public([2; 32]);
        assert!(!Portable.ed25519_verify(&not_a_point, &[b"text"], &signature));
        let check = |key, signature| Ed25519Check { key, message: &[b"text"], signature, valid: true };
        let mut checks = [
            check(key, &signature),
            check(key, &unreduced),
            check(not_a_point, &signature),
            check(key, &signature),
        ];
        Portable.ed25519_verify_batch(&mut checks);
        assert_eq!(checks.map(|check| check.valid), [true, false, false, true]);
    }
}
