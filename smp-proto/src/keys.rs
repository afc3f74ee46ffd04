//! Keys and their DER forms (WIRE-FACTS 2). A room above `wire` and `crypto`, which both use it.
//!
//! Public keys are plain bytes: that they parse says nothing about their being a point of the curve. Private keys are
//! wiped on drop, compared in constant time, and made from the secret stream of an [`Entropy`]. `Debug` shows neither:
//! public keys link people to queues.
//!
//! | algorithm | raw | public key in DER (`SubjectPublicKeyInfo`) | private key in DER (PKCS#8) |
//! |---|---|---|---|
//! | X25519, Ed25519 | 32 | 44 | 48 |
//! | X448 | 56 | 68 | 72 |
//! | Ed448 | 57 | 69 | 73 |

use core::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::entropy::Entropy;

/// The longest public key in DER: Ed448, 69 bytes.
pub const MAX_PUBLIC_DER: usize = 69;
/// The longest private key in DER: Ed448, 73 bytes.
pub const MAX_SECRET_DER: usize = 73;

macro_rules! key_pair {
    ($(#[$public_doc:meta])* $public:ident, $(#[$secret_doc:meta])* $secret:ident, $length:literal) => {
        $(#[$public_doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $public(pub [u8; $length]);

        impl fmt::Debug for $public {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(concat!(stringify!($public), "(..)"))
            }
        }

        impl $public {
            /// The key in DER, as it is on the wire (without a length byte).
            #[must_use]
            pub fn to_der(&self) -> PublicDer {
                PublicKey::from(*self).to_der()
            }
        }

        $(#[$secret_doc])*
        #[derive(Clone, Zeroize, ZeroizeOnDrop)]
        pub struct $secret([u8; $length]);

        impl $secret {
            /// Takes raw bytes as they are. The caller wipes its own copy.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $length]) -> Self {
                Self(bytes)
            }

            /// A fresh key, from the secret stream.
            #[must_use]
            pub fn generate(entropy: &mut (impl Entropy + ?Sized)) -> Self {
                let mut secret = Self([0; $length]);
                entropy.fill_secret(&mut secret.0);
                secret
            }

            /// The raw bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }
        }

        impl PartialEq for $secret {
            fn eq(&self, other: &Self) -> bool {
                self.0.ct_eq(&other.0).into()
            }
        }
        impl Eq for $secret {}

        impl fmt::Debug for $secret {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(concat!(stringify!($secret), "(..)"))
            }
        }
    };
}

key_pair!(
    /// The public part of an X25519 key pair: 32 bytes.
    X25519Public,
    /// The private part of an X25519 key pair: 32 bytes, not clamped.
    X25519Secret,
    32
);
key_pair!(
    /// The public part of an Ed25519 key pair: 32 bytes, not necessarily a point of the curve.
    Ed25519Public,
    /// The private part of an Ed25519 key pair: the 32-byte seed.
    Ed25519Secret,
    32
);
key_pair!(
    /// The public part of an X448 key pair: 56 bytes. Only the ratchet of agents uses it.
    X448Public,
    /// The private part of an X448 key pair: 56 bytes, not clamped.
    X448Secret,
    56
);
key_pair!(
    /// The public part of an Ed448 key pair: 57 bytes, not necessarily a point of the curve.
    Ed448Public,
    /// The private part of an Ed448 key pair: the 57-byte seed.
    Ed448Secret,
    57
);

/// A public key of any algorithm that SMP knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// For shared secrets and authenticators.
    X25519(X25519Public),
    /// For 64-byte signatures.
    Ed25519(Ed25519Public),
    /// For shared secrets, in the ratchet of agents only.
    X448(X448Public),
    /// For 114-byte signatures.
    Ed448(Ed448Public),
}

/// A private key of any algorithm that SMP knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretKey {
    /// For shared secrets and authenticators.
    X25519(X25519Secret),
    /// For 64-byte signatures.
    Ed25519(Ed25519Secret),
    /// For shared secrets, in the ratchet of agents only.
    X448(X448Secret),
    /// For 114-byte signatures.
    Ed448(Ed448Secret),
}

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

/// A key that verifies signatures: a certificate's, or an owner's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureKey {
    /// Verifies 64-byte signatures.
    Ed25519(Ed25519Public),
    /// Verifies 114-byte signatures.
    Ed448(Ed448Public),
}

/// A key that makes signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SigningKey {
    /// Makes 64-byte signatures.
    Ed25519(Ed25519Secret),
    /// Makes 114-byte signatures.
    Ed448(Ed448Secret),
}

/// Why bytes are not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// The bytes are not the DER form of a key of one of the four algorithms.
    Encoding,
    /// It is a key, but of an algorithm that is not used for this.
    Algorithm,
}

impl fmt::Display for KeyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Encoding => "not an X25519, Ed25519, X448 or Ed448 key in DER",
            Self::Algorithm => "a key of an algorithm that cannot be used here",
        })
    }
}

impl core::error::Error for KeyError {}

/// A public key in DER: 44 to 69 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicDer {
    bytes: [u8; MAX_PUBLIC_DER],
    length: u8,
}

impl PublicDer {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl core::ops::Deref for PublicDer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl AsRef<[u8]> for PublicDer {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl fmt::Debug for PublicDer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PublicDer({} bytes)", self.length)
    }
}

/// A private key in DER (PKCS#8): 48 to 73 bytes, wiped on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SecretDer {
    bytes: [u8; MAX_SECRET_DER],
    length: u8,
}

impl SecretDer {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl fmt::Debug for SecretDer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SecretDer({} bytes)", self.length)
    }
}

/// The last byte of the object identifier 1.3.101.x, which names the algorithm.
const X25519: u8 = 0x6e;
const X448: u8 = 0x6f;
const ED25519: u8 = 0x70;
const ED448: u8 = 0x71;

/// The DER before the raw bytes of a public key, when `raw` bytes follow: `SEQUENCE { SEQUENCE { OID }, BIT STRING }`.
const fn public_prefix(algorithm: u8, raw: u8) -> [u8; 12] {
    [0x30, raw + 10, 0x30, 5, 0x06, 3, 0x2b, 0x65, algorithm, 0x03, raw + 1, 0]
}

/// The DER before the raw bytes of a private key: `SEQUENCE { 0, SEQUENCE { OID }, OCTET STRING { OCTET STRING } }`.
const fn secret_prefix(algorithm: u8, raw: u8) -> [u8; 16] {
    [0x30, raw + 14, 0x02, 1, 0, 0x30, 5, 0x06, 3, 0x2b, 0x65, algorithm, 0x04, raw + 2, 0x04, raw]
}

/// The raw bytes of a public key of `algorithm`. The number of unused bits of the BIT STRING (the last byte of the
/// prefix) is not looked at, like in the reference.
fn strip_public<const LENGTH: usize>(der: &[u8], algorithm: u8) -> Option<[u8; LENGTH]> {
    let (prefix, raw) = der.split_first_chunk::<12>()?;
    let expected = public_prefix(algorithm, u8::try_from(LENGTH).ok()?);
    if prefix.get(..11)? != expected.get(..11)? {
        return None;
    }
    raw.try_into().ok()
}

fn strip_secret<const LENGTH: usize>(der: &[u8], algorithm: u8) -> Option<[u8; LENGTH]> {
    let (prefix, raw) = der.split_first_chunk::<16>()?;
    if *prefix != secret_prefix(algorithm, u8::try_from(LENGTH).ok()?) {
        return None;
    }
    raw.try_into().ok()
}

/// Writes `prefix` and `raw` one after the other; what does not fit is cut, which the callers' sizes exclude.
fn join(out: &mut [u8], prefix: &[u8], raw: &[u8]) -> u8 {
    let mut length = 0;
    for (place, &byte) in out.iter_mut().zip(prefix.iter().chain(raw)) {
        *place = byte;
        length += 1;
    }
    length
}

impl PublicKey {
    /// Reads a `SubjectPublicKeyInfo`.
    ///
    /// # Errors
    /// [`KeyError::Encoding`] when the bytes are anything else than exactly one key of the four algorithms.
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        // The algorithm's byte is at the same place in all four.
        let key = match der.get(8) {
            Some(&X25519) => strip_public(der, X25519).map(|raw| Self::X25519(X25519Public(raw))),
            Some(&ED25519) => strip_public(der, ED25519).map(|raw| Self::Ed25519(Ed25519Public(raw))),
            Some(&X448) => strip_public(der, X448).map(|raw| Self::X448(X448Public(raw))),
            Some(&ED448) => strip_public(der, ED448).map(|raw| Self::Ed448(Ed448Public(raw))),
            _ => None,
        };
        key.ok_or(KeyError::Encoding)
    }

    /// The key as a `SubjectPublicKeyInfo`: 44 to 69 bytes.
    #[must_use]
    pub fn to_der(&self) -> PublicDer {
        let mut bytes = [0; MAX_PUBLIC_DER];
        let length = match self {
            Self::X25519(key) => join(&mut bytes, &public_prefix(X25519, 32), &key.0),
            Self::Ed25519(key) => join(&mut bytes, &public_prefix(ED25519, 32), &key.0),
            Self::X448(key) => join(&mut bytes, &public_prefix(X448, 56), &key.0),
            Self::Ed448(key) => join(&mut bytes, &public_prefix(ED448, 57), &key.0),
        };
        PublicDer { bytes, length }
    }
}

impl SecretKey {
    /// Reads a PKCS#8 private key, as `openssl genpkey` writes it.
    ///
    /// # Errors
    /// [`KeyError::Encoding`] when the bytes are anything else than exactly one key of the four algorithms.
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        let key = match der.get(11) {
            Some(&X25519) => strip_secret(der, X25519).map(|raw| Self::X25519(X25519Secret(raw))),
            Some(&ED25519) => strip_secret(der, ED25519).map(|raw| Self::Ed25519(Ed25519Secret(raw))),
            Some(&X448) => strip_secret(der, X448).map(|raw| Self::X448(X448Secret(raw))),
            Some(&ED448) => strip_secret(der, ED448).map(|raw| Self::Ed448(Ed448Secret(raw))),
            _ => None,
        };
        key.ok_or(KeyError::Encoding)
    }

    /// The key in PKCS#8: 48 to 73 bytes.
    #[must_use]
    pub fn to_der(&self) -> SecretDer {
        let mut bytes = [0; MAX_SECRET_DER];
        let length = match self {
            Self::X25519(key) => join(&mut bytes, &secret_prefix(X25519, 32), &key.0),
            Self::Ed25519(key) => join(&mut bytes, &secret_prefix(ED25519, 32), &key.0),
            Self::X448(key) => join(&mut bytes, &secret_prefix(X448, 56), &key.0),
            Self::Ed448(key) => join(&mut bytes, &secret_prefix(ED448, 57), &key.0),
        };
        let der = SecretDer { bytes, length };
        bytes.zeroize();
        der
    }
}

macro_rules! from_der {
    ($type:ident, $all:ident, $what:literal) => {
        impl $type {
            #[doc = concat!("Reads ", $what, " in DER.")]
            ///
            /// # Errors
            /// [`KeyError::Encoding`] when it is no key, [`KeyError::Algorithm`] when it is one of another algorithm.
            pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
                $all::from_der(der)?.try_into()
            }
        }
    };
}

from_der!(AuthKey, PublicKey, "a key that may authorize commands");
from_der!(SignatureKey, PublicKey, "a key that may verify signatures");
from_der!(X25519Public, PublicKey, "an X25519 public key");
from_der!(Ed25519Public, PublicKey, "an Ed25519 public key");
from_der!(X448Public, PublicKey, "an X448 public key");
from_der!(SigningKey, SecretKey, "a private key that may sign (PKCS#8)");

impl AuthKey {
    /// The key in DER, as it is on the wire (without a length byte): 44 or 69 bytes.
    #[must_use]
    pub fn to_der(&self) -> PublicDer {
        PublicKey::from(*self).to_der()
    }
}

impl SignatureKey {
    /// The key in DER: 44 or 69 bytes.
    #[must_use]
    pub fn to_der(&self) -> PublicDer {
        PublicKey::from(*self).to_der()
    }
}

macro_rules! conversions {
    ($($raw:ident => $variant:ident),*) => {$(
        impl From<$raw> for PublicKey {
            fn from(key: $raw) -> Self {
                Self::$variant(key)
            }
        }

        impl TryFrom<PublicKey> for $raw {
            type Error = KeyError;
            fn try_from(key: PublicKey) -> Result<Self, KeyError> {
                match key {
                    PublicKey::$variant(key) => Ok(key),
                    _ => Err(KeyError::Algorithm),
                }
            }
        }
    )*};
}

conversions!(X25519Public => X25519, Ed25519Public => Ed25519, X448Public => X448, Ed448Public => Ed448);

impl From<AuthKey> for PublicKey {
    fn from(key: AuthKey) -> Self {
        match key {
            AuthKey::Ed25519(key) => Self::Ed25519(key),
            AuthKey::Ed448(key) => Self::Ed448(key),
            AuthKey::X25519(key) => Self::X25519(key),
        }
    }
}

impl TryFrom<PublicKey> for AuthKey {
    type Error = KeyError;
    fn try_from(key: PublicKey) -> Result<Self, KeyError> {
        match key {
            PublicKey::Ed25519(key) => Ok(Self::Ed25519(key)),
            PublicKey::Ed448(key) => Ok(Self::Ed448(key)),
            PublicKey::X25519(key) => Ok(Self::X25519(key)),
            PublicKey::X448(_) => Err(KeyError::Algorithm),
        }
    }
}

impl From<SignatureKey> for PublicKey {
    fn from(key: SignatureKey) -> Self {
        match key {
            SignatureKey::Ed25519(key) => Self::Ed25519(key),
            SignatureKey::Ed448(key) => Self::Ed448(key),
        }
    }
}

impl TryFrom<PublicKey> for SignatureKey {
    type Error = KeyError;
    fn try_from(key: PublicKey) -> Result<Self, KeyError> {
        match key {
            PublicKey::Ed25519(key) => Ok(Self::Ed25519(key)),
            PublicKey::Ed448(key) => Ok(Self::Ed448(key)),
            PublicKey::X25519(_) | PublicKey::X448(_) => Err(KeyError::Algorithm),
        }
    }
}

impl TryFrom<SecretKey> for SigningKey {
    type Error = KeyError;
    fn try_from(key: SecretKey) -> Result<Self, KeyError> {
        match key {
            SecretKey::Ed25519(key) => Ok(Self::Ed25519(key)),
            SecretKey::Ed448(key) => Ok(Self::Ed448(key)),
            SecretKey::X25519(_) | SecretKey::X448(_) => Err(KeyError::Algorithm),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;
    use alloc::format;

    fn all() -> [PublicKey; 4] {
        [
            X25519Public([1; 32]).into(),
            Ed25519Public([2; 32]).into(),
            X448Public([3; 56]).into(),
            Ed448Public([4; 57]).into(),
        ]
    }

    #[test]
    fn public_keys_survive_der_and_have_the_published_lengths() {
        for (key, length) in all().into_iter().zip([44, 44, 68, 69]) {
            let der = key.to_der();
            assert_eq!(der.len(), length);
            assert_eq!(PublicKey::from_der(&der), Ok(key));
        }
    }

    #[test]
    fn private_keys_survive_der() {
        let mut entropy = SeededEntropy::new([7; 32]);
        let keys = [
            SecretKey::X25519(X25519Secret::generate(&mut entropy)),
            SecretKey::Ed25519(Ed25519Secret::generate(&mut entropy)),
            SecretKey::X448(X448Secret::generate(&mut entropy)),
            SecretKey::Ed448(Ed448Secret::generate(&mut entropy)),
        ];
        for (key, length) in keys.into_iter().zip([48, 48, 72, 73]) {
            let der = key.to_der();
            assert_eq!(der.as_bytes().len(), length);
            assert_eq!(SecretKey::from_der(der.as_bytes()).as_ref(), Ok(&key));
            assert_eq!(SecretKey::from_der(&der.as_bytes()[1..]), Err(KeyError::Encoding));
        }
    }

    #[test]
    fn a_changed_or_cut_der_is_refused_and_unused_bits_are_ignored() {
        for key in all() {
            let der = key.to_der();
            for index in 0..12 {
                let mut changed = der.as_bytes().to_vec();
                changed[index] ^= 0x40;
                let expected = if index == 11 { Ok(key) } else { Err(KeyError::Encoding) };
                assert_eq!(PublicKey::from_der(&changed), expected, "byte {index}");
            }
            for length in 0..der.len() {
                assert_eq!(PublicKey::from_der(&der[..length]), Err(KeyError::Encoding));
            }
            let mut longer = der.as_bytes().to_vec();
            longer.push(0);
            assert_eq!(PublicKey::from_der(&longer), Err(KeyError::Encoding));
        }
    }

    #[test]
    fn only_some_algorithms_may_authorize_or_sign() {
        let [x25519, ed25519, x448, ed448] = all().map(|key| key.to_der());
        assert!(AuthKey::from_der(&x25519).is_ok());
        assert!(AuthKey::from_der(&ed25519).is_ok());
        assert!(AuthKey::from_der(&ed448).is_ok());
        assert_eq!(AuthKey::from_der(&x448), Err(KeyError::Algorithm));
        assert!(SignatureKey::from_der(&ed25519).is_ok());
        assert!(SignatureKey::from_der(&ed448).is_ok());
        assert_eq!(SignatureKey::from_der(&x25519), Err(KeyError::Algorithm));
        assert_eq!(X25519Public::from_der(&ed25519), Err(KeyError::Algorithm));
        assert_eq!(X25519Public::from_der(b""), Err(KeyError::Encoding));
    }

    #[test]
    fn debug_shows_no_key() {
        let shown = format!(
            "{:?} {:?} {:?}",
            X25519Secret::from_bytes([0x55; 32]),
            AuthKey::Ed25519(Ed25519Public([0x55; 32])),
            SigningKey::Ed448(Ed448Secret::from_bytes([0x55; 57])).clone(),
        );
        assert_eq!(shown, "X25519Secret(..) Ed25519(Ed25519Public(..)) Ed448(Ed448Secret(..))");
    }
}
