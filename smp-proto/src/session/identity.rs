//! Who a relay is: its certificates, and what signs its session keys.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use crate::crypto::Provider;
use crate::crypto::certificates::{self, ChainError, ChainRoles, FINGERPRINT_LENGTH};
use crate::crypto::signatures::{self, Signature};
use crate::keys::SigningKey;
use crate::wire::block::PLAIN_CONTENT_LENGTH;

/// Signs session keys with the key of the relay's leaf certificate: a key in memory, or one that never leaves its
/// device. It is asked once a connection.
pub trait SessionSigner: Send + Sync {
    /// Signs `message` (a key in DER, 46 bytes).
    ///
    /// # Errors
    /// [`SigningFailed`] when the device does not answer.
    fn sign(&self, message: &[u8]) -> Result<Signature, SigningFailed>;
}

/// A relay's key could not be used, so no connection can be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SigningFailed;

impl fmt::Display for SigningFailed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .write_str("the key of the relay's certificate could not sign: check the device that holds it")
    }
}

impl core::error::Error for SigningFailed {}

/// A [`SessionSigner`] with the key in memory.
pub struct KeyInMemory {
    key: SigningKey,
    provider: &'static dyn Provider,
}

impl KeyInMemory {
    /// Signs with `key`.
    #[must_use]
    pub const fn new(key: SigningKey, provider: &'static dyn Provider) -> Self {
        Self { key, provider }
    }
}

impl fmt::Debug for KeyInMemory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeyInMemory(..)")
    }
}

impl SessionSigner for KeyInMemory {
    fn sign(&self, message: &[u8]) -> Result<Signature, SigningFailed> {
        Ok(signatures::sign(self.provider, &self.key, &[message]))
    }
}

/// A relay's certificates and signer.
#[derive(Clone)]
pub struct ServerIdentity {
    chain: Vec<Vec<u8>>,
    fingerprint: [u8; FINGERPRINT_LENGTH],
    signer: Arc<dyn SessionSigner>,
}

/// Why certificates are not those of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityError {
    /// There are none or too many.
    Chain(ChainError),
    /// There is only one: a relay needs a leaf and an identity.
    Single,
    /// They do not fit in the hello, which has 16,382 bytes.
    TooLarge,
}

impl fmt::Display for IdentityError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain(error) => error.fmt(formatter),
            Self::Single => formatter.write_str(
                "the relay has one certificate, but needs two: a leaf, and the identity that issued it",
            ),
            Self::TooLarge => formatter.write_str("the relay's certificates do not fit into one block"),
        }
    }
}

impl core::error::Error for IdentityError {}

impl ServerIdentity {
    /// The identity of a relay with these certificates in DER, leaf first, and the leaf's signer.
    ///
    /// # Errors
    /// [`IdentityError`] when there are fewer than two certificates, more than four, or too large ones.
    pub fn new(chain: Vec<Vec<u8>>, signer: Arc<dyn SessionSigner>) -> Result<Self, IdentityError> {
        let certificates: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
        let fingerprint = match ChainRoles::of(&certificates).map_err(IdentityError::Chain)? {
            ChainRoles::Single(_) => return Err(IdentityError::Single),
            ChainRoles::Chain { identity, .. } => certificates::fingerprint(identity),
        };
        // Versions, the longest session id, a count, and the longest signed key with its length.
        let around = 4 + 256 + 1 + 2 + 250;
        let length: usize = certificates.iter().map(|certificate| 2 + certificate.len()).sum();
        if length + around > PLAIN_CONTENT_LENGTH {
            return Err(IdentityError::TooLarge);
        }
        Ok(Self { chain, fingerprint, signer })
    }

    /// The certificates, leaf first.
    #[must_use]
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// What names the relay in addresses: the SHA-256 of its second certificate.
    #[must_use]
    pub const fn fingerprint(&self) -> &[u8; FINGERPRINT_LENGTH] {
        &self.fingerprint
    }

    pub(crate) fn signer(&self) -> &dyn SessionSigner {
        &*self.signer
    }
}

impl fmt::Debug for ServerIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ServerIdentity({} certificates)", self.chain.len())
    }
}
