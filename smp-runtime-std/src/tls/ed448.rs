//! Ed448 for TLS and certificates: rustls and aws-lc know only its name.
//!
//! Owns: verification of Ed448 signatures for webpki, and a signing key with which an existing Ed448 identity can go on
//! being hosted. The reference made Ed448 certificates before its default changed (WIRE-FACTS 4.2), and they are valid
//! for centuries. One verification costs more than a millisecond: nothing on a relay's hot path may depend on it.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::{
    AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer,
};
use rustls::sign::{Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};

use crate::certificates::PrivateKey;

/// OID 1.3.101.113 as rustls-pki-types wants it: without the header of the surrounding sequence.
const ED448: AlgorithmIdentifier = AlgorithmIdentifier::from_slice(&[0x06, 0x03, 0x2b, 0x65, 0x71]);

/// Verifies Ed448 signatures (RFC 8032, empty context): public key 57 bytes, signature 114 bytes.
#[derive(Debug)]
pub(super) struct Ed448;

impl SignatureVerificationAlgorithm for Ed448 {
    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        ED448
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        ED448
    }

    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let public_key: &[u8; 57] = public_key.try_into().map_err(|_| InvalidSignature)?;
        let public_key =
            ed448_goldilocks::VerifyingKey::from_bytes(public_key).map_err(|_| InvalidSignature)?;
        let signature = ed448_goldilocks::Signature::try_from(signature).map_err(|_| InvalidSignature)?;
        public_key.verify_raw(&signature, message).map_err(|_| InvalidSignature)
    }
}

/// An Ed448 key in the shape in which rustls takes signing keys. `Debug` prints no secret.
#[derive(Clone)]
pub(crate) struct Ed448SigningKey {
    key: Arc<PrivateKey>,
    public_key: Arc<[u8]>,
}

impl Ed448SigningKey {
    /// `key` must be an Ed448 key: [`PrivateKey::for_tls`] is the only caller.
    pub(crate) fn new(key: Arc<PrivateKey>) -> Self {
        let public_key = key.public_key_der().into();
        Self { key, public_key }
    }
}

impl fmt::Debug for Ed448SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Ed448SigningKey")
    }
}

impl SigningKey for Ed448SigningKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ED448).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(&self.public_key[..]))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED448
    }
}

impl Signer for Ed448SigningKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(self.key.sign(message))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED448
    }
}
