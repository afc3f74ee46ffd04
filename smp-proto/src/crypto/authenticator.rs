//! Authorization of a command with an X25519 key: an 80-byte authenticator (WIRE-FACTS 4.8).
//!
//! It is the box of the command's SHA-512 between the queue's key and the key of the server's hello, with the
//! correlation id as nonce: who knows either private key can make it, so it proves nothing to others.
//!
//! The shared secret is the expensive part. Keep the [`BoxKey`] per connection and queue.

use subtle::ConstantTimeEq;

use super::nacl_box::{BoxKey, TAG_LENGTH};
use super::nonce::Nonce;
use super::provider::Provider;

/// The length of an authenticator: a tag and an encrypted SHA-512, 80 bytes.
pub const AUTHENTICATOR_LENGTH: usize = TAG_LENGTH + 64;

/// The authenticator of the command whose authorized bytes are `authorized`, in parts.
#[must_use]
pub fn create(
    provider: &dyn Provider,
    key: &BoxKey,
    correlation: &[u8],
    authorized: &[&[u8]],
) -> [u8; AUTHENTICATOR_LENGTH] {
    let mut digest = provider.sha512(authorized);
    let tag = provider.box_seal(key, &Nonce::from_id(correlation), &mut digest);
    let mut authenticator = [0; AUTHENTICATOR_LENGTH];
    let (tag_place, digest_place) = authenticator.split_at_mut(TAG_LENGTH);
    tag_place.copy_from_slice(&tag);
    digest_place.copy_from_slice(&digest);
    authenticator
}

/// Whether `authenticator` is that of the command. Its bytes are compared in constant time.
#[must_use]
pub fn verify(
    provider: &dyn Provider,
    key: &BoxKey,
    correlation: &[u8],
    authorized: &[&[u8]],
    authenticator: &[u8],
) -> bool {
    // A box is a function of its inputs, so making it again is the same as opening the given one, for less code.
    create(provider, key, correlation, authorized).ct_eq(authenticator).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Portable;

    #[test]
    fn an_authenticator_fits_one_key_correlation_and_command() {
        let (key, other) = (BoxKey::from_symmetric(&[1; 32]), BoxKey::from_symmetric(&[2; 32]));
        let authenticator = create(&Portable, &key, &[7; 24], &[b"one ", b"command"]);
        let verifies = |key: &BoxKey, correlation: &[u8], command: &[u8], authenticator: &[u8]| {
            verify(&Portable, key, correlation, &[command], authenticator)
        };
        assert!(verifies(&key, &[7; 24], b"one command", &authenticator));
        assert!(!verifies(&other, &[7; 24], b"one command", &authenticator));
        assert!(!verifies(&key, &[8; 24], b"one command", &authenticator));
        assert!(!verifies(&key, &[7; 24], b"one command.", &authenticator));
        assert!(!verifies(&key, &[7; 24], b"one command", &authenticator[..79]));
        assert!(!verifies(&key, &[7; 24], b"one command", b""));
        for index in 0..AUTHENTICATOR_LENGTH {
            let mut changed = authenticator;
            changed[index] ^= 1;
            assert!(!verifies(&key, &[7; 24], b"one command", &changed));
        }
    }
}
