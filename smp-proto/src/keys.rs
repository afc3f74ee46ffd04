//! Keys and their DER forms (WIRE-FACTS 2). A room above `wire` and `crypto`, which both use it.

/// The public part of an X25519 key pair: 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct X25519Public(pub [u8; 32]);

/// The public part of an Ed25519 key pair: 32 bytes, not necessarily a point of the curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ed25519Public(pub [u8; 32]);

/// The public part of an Ed448 key pair: 57 bytes, not necessarily a point of the curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ed448Public(pub [u8; 57]);

/// A key that authorizes commands of a recipient, sender or notifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthKey {
    /// Verifies 64-byte signatures.
    Ed25519(Ed25519Public),
    /// Verifies 114-byte signatures.
    Ed448(Ed448Public),
    /// Verifies 80-byte authenticators.
    X25519(X25519Public),
}
