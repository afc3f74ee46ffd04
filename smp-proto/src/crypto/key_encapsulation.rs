//! The place of a post-quantum key encapsulation in the ratchet: sntrup761, as deployed agents use it (version 3).
//!
//! Owns the types and the trait, no implementation: this project has none yet, so that [`Provider`](super::Provider)s give
//! `None` and ratchets go without. What peers say about it is read and answered nevertheless, as deployed agents do.
//! Secrets are wiped on drop and never printed.

use alloc::boxed::Box;
use core::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::entropy::Entropy;
pub use crate::wire::links::ratchet_parameters::{KEM_CIPHERTEXT_LENGTH, KEM_KEY_LENGTH};

/// The length of a private key: 1,763 bytes.
pub const KEM_SECRET_LENGTH: usize = 1763;
/// The length of a shared secret: 32 bytes.
pub const KEM_SHARED_LENGTH: usize = 32;

/// A public key: 1,158 bytes.
pub type KemPublic = Box<[u8; KEM_KEY_LENGTH]>;
/// An encapsulated secret: 1,039 bytes.
pub type KemCiphertext = Box<[u8; KEM_CIPHERTEXT_LENGTH]>;
/// What both sides know after an encapsulation: 32 bytes, wiped on drop.
pub type KemShared = Zeroizing<[u8; KEM_SHARED_LENGTH]>;

/// A private key: 1,763 bytes, wiped on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct KemSecret(Box<[u8; KEM_SECRET_LENGTH]>);

/// A key pair.
#[derive(Clone)]
pub struct KemKeyPair {
    /// For the peer to encapsulate to.
    pub public: KemPublic,
    /// Opens what was encapsulated.
    pub secret: KemSecret,
}

/// The algorithm, brought by a [`Provider`](super::Provider).
pub trait KeyEncapsulation: Send + Sync {
    /// A fresh key pair.
    fn generate(&self, entropy: &mut dyn Entropy) -> KemKeyPair;

    /// A fresh secret, and its form for the owner of `key`.
    fn encapsulate(
        &self,
        entropy: &mut dyn Entropy,
        key: &[u8; KEM_KEY_LENGTH],
    ) -> (KemCiphertext, KemShared);

    /// The secret in `ciphertext`; for one that was made for another key some secret that nobody else has.
    fn decapsulate(&self, secret: &KemSecret, ciphertext: &[u8; KEM_CIPHERTEXT_LENGTH]) -> KemShared;
}

impl KemSecret {
    /// Takes raw bytes as they are.
    #[must_use]
    pub const fn from_bytes(bytes: Box<[u8; KEM_SECRET_LENGTH]>) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEM_SECRET_LENGTH] {
        &self.0
    }
}

impl fmt::Debug for KemSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KemSecret(..)")
    }
}

impl fmt::Debug for KemKeyPair {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KemKeyPair(..)")
    }
}
