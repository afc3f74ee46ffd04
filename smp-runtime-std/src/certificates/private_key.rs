//! Private keys of certificates: Ed25519, and Ed448 as it occurs in existing identities.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use pkcs8::der::{Decode, asn1::OctetStringRef};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::SigningKey;
use zeroize::Zeroizing;

use crate::tls::ed448::Ed448SigningKey;

/// PKCS#8 (version 1) of both kinds up to the seed: what OpenSSL writes (WIRE-FACTS 2).
const ED25519_PRIVATE: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
const ED448_PRIVATE: [u8; 16] = [0x30, 0x47, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x71, 4, 0x3b, 4, 0x39];

/// `SubjectPublicKeyInfo` of both kinds up to the key (WIRE-FACTS 2).
const ED25519_PUBLIC: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
const ED448_PUBLIC: [u8; 12] = [0x30, 0x43, 0x30, 5, 6, 3, 0x2b, 0x65, 0x71, 3, 0x3a, 0];

const ED25519_OID: pkcs8::ObjectIdentifier = pkcs8::ObjectIdentifier::new_unwrap("1.3.101.112");
const ED448_OID: pkcs8::ObjectIdentifier = pkcs8::ObjectIdentifier::new_unwrap("1.3.101.113");

/// The two kinds of signature keys that SMP's certificates have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// What new identities have.
    Ed25519,
    /// What identities have that the reference made before its default changed.
    Ed448,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Ed25519 => "Ed25519",
            Self::Ed448 => "Ed448",
        })
    }
}

impl Algorithm {
    /// Its object identifier, the same for keys and signatures.
    pub(super) fn oid(self) -> pkcs8::ObjectIdentifier {
        match self {
            Self::Ed25519 => ED25519_OID,
            Self::Ed448 => ED448_OID,
        }
    }
}

/// A private key, wiped on drop. `Debug` says only of which kind it is.
#[derive(Clone)]
pub struct PrivateKey {
    /// 32 bytes for Ed25519, 57 for Ed448.
    seed: Zeroizing<Vec<u8>>,
    pair: Pair,
}

/// The key made from the seed, once: so nothing can fail when it is used.
#[derive(Clone)]
enum Pair {
    Ed25519(Arc<Ed25519KeyPair>),
    Ed448(Arc<ed448_goldilocks::SigningKey>),
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PrivateKey({})", self.algorithm())
    }
}

/// Why there is no private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrivateKeyError {
    /// The bytes are not PKCS#8.
    Malformed,
    /// It is a key of another kind.
    OtherAlgorithm {
        /// Its object identifier.
        identifier: String,
    },
    /// The operating system has no randomness.
    NoRandomness {
        /// What it says.
        reason: String,
    },
}

impl fmt::Display for PrivateKeyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => formatter.write_str("it is not an unencrypted PKCS#8 private key"),
            Self::OtherAlgorithm { identifier } => {
                write!(formatter, "the key is of kind {identifier}, but only Ed25519 and Ed448 can be used")
            }
            Self::NoRandomness { reason } => {
                write!(formatter, "the operating system gives no randomness to make a key: {reason}")
            }
        }
    }
}

impl std::error::Error for PrivateKeyError {}

impl PrivateKey {
    /// A new key from the randomness of the operating system.
    ///
    /// # Errors
    /// [`PrivateKeyError::NoRandomness`].
    pub fn generate(algorithm: Algorithm) -> Result<Self, PrivateKeyError> {
        let mut seed = Zeroizing::new(vec![0; algorithm.seed_length()]);
        getrandom::fill(&mut seed)
            .map_err(|error| PrivateKeyError::NoRandomness { reason: error.to_string() })?;
        Self::from_seed(algorithm, seed)
    }

    fn from_seed(algorithm: Algorithm, seed: Zeroizing<Vec<u8>>) -> Result<Self, PrivateKeyError> {
        let pair = match algorithm {
            Algorithm::Ed25519 => {
                Ed25519KeyPair::from_seed_unchecked(&seed).ok().map(|pair| Pair::Ed25519(Arc::new(pair)))
            }
            Algorithm::Ed448 => {
                ed448_goldilocks::SigningKey::try_from(&seed[..]).ok().map(|key| Pair::Ed448(Arc::new(key)))
            }
        };
        Ok(Self { seed, pair: pair.ok_or(PrivateKeyError::Malformed)? })
    }

    /// From PKCS#8 DER, version 1 or 2.
    ///
    /// # Errors
    /// [`PrivateKeyError::Malformed`], [`PrivateKeyError::OtherAlgorithm`].
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, PrivateKeyError> {
        let info = pkcs8::PrivateKeyInfoRef::try_from(der).map_err(|_| PrivateKeyError::Malformed)?;
        let algorithm = match info.algorithm.oid {
            ED25519_OID => Algorithm::Ed25519,
            ED448_OID => Algorithm::Ed448,
            other => return Err(PrivateKeyError::OtherAlgorithm { identifier: other.to_string() }),
        };
        let seed = <&OctetStringRef>::from_der(info.private_key.as_bytes())
            .map_err(|_| PrivateKeyError::Malformed)?;
        Self::from_seed(algorithm, Zeroizing::new(seed.as_bytes().to_vec()))
    }

    /// As PKCS#8 DER, version 1: 48 bytes for Ed25519, 73 for Ed448.
    #[must_use]
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        let prefix = match self.algorithm() {
            Algorithm::Ed25519 => &ED25519_PRIVATE,
            Algorithm::Ed448 => &ED448_PRIVATE,
        };
        let mut der = Zeroizing::new(Vec::with_capacity(prefix.len() + self.seed.len()));
        der.extend_from_slice(prefix);
        der.extend_from_slice(&self.seed);
        der
    }

    /// Of which kind it is.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self.pair {
            Pair::Ed25519(_) => Algorithm::Ed25519,
            Pair::Ed448(_) => Algorithm::Ed448,
        }
    }

    /// The seed from which the key is made: 32 bytes for Ed25519, 57 for Ed448.
    #[must_use]
    pub fn seed(&self) -> &[u8] {
        &self.seed
    }

    /// The raw public key: 32 bytes for Ed25519, 57 for Ed448.
    #[must_use]
    pub fn public_key(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ed448(key) => key.verifying_key().as_bytes().to_vec(),
        }
    }

    /// The public key as DER `SubjectPublicKeyInfo`: 44 or 69 bytes.
    #[must_use]
    pub fn public_key_der(&self) -> Vec<u8> {
        let prefix = match self.algorithm() {
            Algorithm::Ed25519 => &ED25519_PUBLIC,
            Algorithm::Ed448 => &ED448_PUBLIC,
        };
        let mut der = prefix.to_vec();
        der.extend_from_slice(&self.public_key());
        der
    }

    /// Signs `message` (RFC 8032): 64 bytes for Ed25519, 114 for Ed448.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.pair {
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Pair::Ed448(key) => key.sign_raw(message).to_bytes().to_vec(),
        }
    }

    /// The same key as rustls wants it.
    pub(crate) fn for_tls(&self) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        match self.algorithm() {
            Algorithm::Ed25519 => {
                let der = self.to_pkcs8();
                rustls::crypto::aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(&der[..]))
            }
            Algorithm::Ed448 => Ok(Arc::new(Ed448SigningKey::new(Arc::new(self.clone())))),
        }
    }
}

impl Algorithm {
    fn seed_length(self) -> usize {
        match self {
            Self::Ed25519 => 32,
            Self::Ed448 => 57,
        }
    }
}
