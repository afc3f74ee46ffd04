//! Private keys that authorize commands, on a client's side.

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::crypto::{Provider, signatures};
use crate::entropy::Entropy;
use crate::keys::{AuthKey, Ed448Secret, Ed25519Secret, X25519Secret};

/// The private part of an [`AuthKey`]. Wiped on drop, never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub enum AuthSecret {
    /// Makes 64-byte signatures: what recipients use.
    Ed25519(Ed25519Secret),
    /// Makes 114-byte signatures.
    Ed448(Ed448Secret),
    /// Makes 80-byte authenticators, which prove nothing to others: what senders use from v7 on.
    X25519(X25519Secret),
}

impl AuthSecret {
    /// A fresh Ed25519 key, as recipients use.
    #[must_use]
    pub fn generate_ed25519(entropy: &mut (impl Entropy + ?Sized)) -> Self {
        Self::Ed25519(Ed25519Secret::generate(entropy))
    }

    /// A fresh X25519 key, as senders use.
    #[must_use]
    pub fn generate_x25519(entropy: &mut (impl Entropy + ?Sized)) -> Self {
        Self::X25519(X25519Secret::generate(entropy))
    }

    /// The key that verifies what this one authorizes.
    #[must_use]
    pub fn public(&self, provider: &dyn Provider) -> AuthKey {
        match self {
            Self::Ed25519(secret) => AuthKey::Ed25519(provider.ed25519_public(secret)),
            Self::Ed448(secret) => AuthKey::Ed448(signatures::ed448_public(secret)),
            Self::X25519(secret) => AuthKey::X25519(provider.x25519_public(secret)),
        }
    }

    /// How long its authorizations are, in bytes.
    pub(super) const fn authorization_length(&self) -> usize {
        match self {
            Self::Ed25519(_) => 64,
            Self::Ed448(_) => 114,
            Self::X25519(_) => 80,
        }
    }
}

impl core::fmt::Debug for AuthSecret {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str(match self {
            Self::Ed25519(_) => "AuthSecret(Ed25519)",
            Self::Ed448(_) => "AuthSecret(Ed448)",
            Self::X25519(_) => "AuthSecret(X25519)",
        })
    }
}
