//! What SMP itself wants to know of certificates: fingerprints, roles, and the leaf's key (WIRE-FACTS 4.3).
//!
//! Validation of chains is TLS's business. A server's identity is the SHA-256 of the *second* certificate of its chain; the
//! key in its hello is signed by the key of the *first*.

use core::fmt;

use sha2::{Digest, Sha256};

use super::der::{INTEGER, Reader, SEQUENCE, VERSION};
use crate::keys::SignatureKey;

/// The length of a fingerprint: 32 bytes.
pub const FINGERPRINT_LENGTH: usize = 32;
/// The longest chain: leaf, identity, one more, CA.
pub const MAX_CHAIN_LENGTH: usize = 4;

/// The certificates of a chain by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainRoles<C> {
    /// There is only one, which is its own identity. Clients may have such a chain, servers may not.
    Single(C),
    /// Two to four.
    Chain {
        /// The first: its key made the TLS connection, and signs keys in hellos.
        leaf: C,
        /// The second: its fingerprint is the identity.
        identity: C,
        /// The last: what the chain is validated against.
        anchor: C,
    },
}

impl<C: Copy> ChainRoles<C> {
    /// The roles in a chain, leaf first.
    ///
    /// # Errors
    /// [`ChainError`] when there are no certificates, or more than four.
    pub const fn of(chain: &[C]) -> Result<Self, ChainError> {
        Ok(match *chain {
            [] => return Err(ChainError::Empty),
            [single] => Self::Single(single),
            [leaf, identity] => Self::Chain { leaf, identity, anchor: identity },
            [leaf, identity, anchor] | [leaf, identity, _, anchor] => Self::Chain { leaf, identity, anchor },
            _ => return Err(ChainError::TooLong),
        })
    }

    /// The certificate whose fingerprint names the party.
    pub const fn identity(&self) -> C {
        match *self {
            Self::Single(certificate) | Self::Chain { identity: certificate, .. } => certificate,
        }
    }

    /// The certificate whose key signs.
    pub const fn leaf(&self) -> C {
        match *self {
            Self::Single(certificate) | Self::Chain { leaf: certificate, .. } => certificate,
        }
    }
}

/// Why a chain has no roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainError {
    /// There is no certificate.
    Empty,
    /// There are more than four.
    TooLong,
}

impl fmt::Display for ChainError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Empty => "the certificate chain is empty",
            Self::TooLong => "the certificate chain has more than four certificates",
        })
    }
}

impl core::error::Error for ChainError {}

/// The SHA-256 of a certificate in DER.
#[must_use]
pub fn fingerprint(certificate: &[u8]) -> [u8; FINGERPRINT_LENGTH] {
    Sha256::digest(certificate).into()
}

/// The key of a certificate in DER, `None` when it cannot be found or is neither Ed25519 nor Ed448.
#[must_use]
pub fn public_key(certificate: &[u8]) -> Option<SignatureKey> {
    let mut to_be_signed = Reader::new(certificate).enter(SEQUENCE)?.enter(SEQUENCE)?;
    if to_be_signed.next_tag() == Some(VERSION) {
        to_be_signed.element(VERSION)?;
    }
    to_be_signed.element(INTEGER)?;
    // Signature algorithm, issuer, validity, subject.
    for _ in 0..4 {
        to_be_signed.element(SEQUENCE)?;
    }
    SignatureKey::from_der(to_be_signed.element(SEQUENCE)?.whole).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_go_by_place() {
        let chain = |leaf, identity, anchor| Ok(ChainRoles::Chain { leaf, identity, anchor });
        assert_eq!(ChainRoles::<u8>::of(&[]), Err(ChainError::Empty));
        assert_eq!(ChainRoles::of(&[1]), Ok(ChainRoles::Single(1)));
        assert_eq!(ChainRoles::of(&[1, 2]), chain(1, 2, 2));
        assert_eq!(ChainRoles::of(&[1, 2, 3]), chain(1, 2, 3));
        assert_eq!(ChainRoles::of(&[1, 2, 3, 4]), chain(1, 2, 4));
        assert_eq!(ChainRoles::of(&[1, 2, 3, 4, 5]), Err(ChainError::TooLong));
    }

    #[test]
    fn what_is_not_a_certificate_has_no_key() {
        for bytes in [&[][..], &[0x30], &[0x30, 0x80], &[0x30, 2, 0x30, 0], &[0xFF; 600]] {
            assert_eq!(public_key(bytes), None);
        }
    }
}
