//! A public key with a signature, as in hellos and in `PKEY` (WIRE-FACTS 2): X.509's `SIGNED` around a bare key.
//!
//! `SEQUENCE { SEQUENCE { SubjectPublicKeyInfo }, AlgorithmIdentifier, BIT STRING }`; the signature is over the DER of the
//! first. (Its extra `SEQUENCE` is what the reference writes, reads and signs: see the vectors `certificate-chain`.)
//! Whoever reads one verifies it with the key of the *TLS* leaf certificate.

use alloc::vec::Vec;

use super::der::{self, BIT_STRING, Element, OBJECT_IDENTIFIER, Reader, SEQUENCE};
use super::provider::Provider;
use super::signatures::{self, Signature};
use crate::keys::{PublicKey, SignatureKey, SigningKey};

/// The algorithm identifiers of the two signatures: `1.3.101.112` and `1.3.101.113`.
const ED25519: [u8; 3] = [0x2b, 0x65, 0x70];
const ED448: [u8; 3] = [0x2b, 0x65, 0x71];

/// A signed key, borrowed from its DER: not verified yet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SignedKey<'a> {
    /// The key that is signed.
    pub key: PublicKey,
    signed: &'a [u8],
    algorithm: [u8; 3],
    signature: &'a [u8],
}

impl<'a> SignedKey<'a> {
    /// Reads a signed key; `None` when the DER is anything else.
    #[must_use]
    pub fn from_der(der: &'a [u8]) -> Option<Self> {
        let mut outside = Reader::new(der);
        let mut inside = outside.enter(SEQUENCE)?;
        let Element { whole: signed, content: key } = inside.element(SEQUENCE)?;
        let key = PublicKey::from_der(key).ok()?;
        let mut identifier = inside.enter(SEQUENCE)?;
        let algorithm = identifier.element(OBJECT_IDENTIFIER)?.content.try_into().ok()?;
        // The first byte is the number of unused bits, of which a signature has none.
        let (&unused_bits, signature) = inside.element(BIT_STRING)?.content.split_first()?;
        let complete =
            unused_bits == 0 && outside.is_at_end() && inside.is_at_end() && identifier.is_at_end();
        complete.then_some(Self { key, signed, algorithm, signature })
    }

    /// Whether `signer` made the signature, with the algorithm that the object names.
    #[must_use]
    pub fn verify(&self, provider: &dyn Provider, signer: &SignatureKey) -> bool {
        let algorithm = match signer {
            SignatureKey::Ed25519(_) => ED25519,
            SignatureKey::Ed448(_) => ED448,
        };
        self.algorithm == algorithm && signatures::verify(provider, signer, &[self.signed], self.signature)
    }
}

impl core::fmt::Debug for SignedKey<'_> {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("SignedKey(..)")
    }
}

/// Signs `key`, and returns the object in DER: 122 bytes for an X25519 key signed with Ed25519.
#[must_use]
pub fn sign(provider: &dyn Provider, signer: &SigningKey, key: &PublicKey) -> Vec<u8> {
    match sign_with(key, |signed| Ok(signatures::sign(provider, signer, &[signed]))) {
        Ok(object) => object,
        Err::<_, core::convert::Infallible>(never) => match never {},
    }
}

/// Lets `sign` sign `key` (its argument is what must be signed: 46 bytes for an X25519 key), and returns the object in
/// DER. For keys that never leave their device.
///
/// # Errors
/// What `sign` fails with.
pub fn sign_with<E>(key: &PublicKey, sign: impl FnOnce(&[u8]) -> Result<Signature, E>) -> Result<Vec<u8>, E> {
    let key = key.to_der();
    let mut signed: Vec<u8> = der::header(SEQUENCE, key.len()).into_iter().flatten().collect();
    signed.extend_from_slice(&key);
    let signature = sign(&signed)?;
    let identifier = match signature {
        Signature::Ed25519(_) => ED25519,
        Signature::Ed448(_) => ED448,
    };
    let signature = signature.as_bytes();
    let mut content = Vec::with_capacity(200);
    content.extend_from_slice(&signed);
    content.extend_from_slice(&[SEQUENCE, 5, OBJECT_IDENTIFIER, 3]);
    content.extend_from_slice(&identifier);
    content.extend(der::header(BIT_STRING, signature.len() + 1).into_iter().flatten());
    content.push(0);
    content.extend_from_slice(signature);
    // At most 69 + 7 + 117 bytes, so that there always is a header.
    let mut object: Vec<u8> = der::header(SEQUENCE, content.len()).into_iter().flatten().collect();
    object.append(&mut content);
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Portable;
    use crate::keys::{Ed448Secret, Ed25519Secret, X25519Public};

    #[test]
    fn a_signed_key_verifies_with_its_signer_only() {
        let key = PublicKey::X25519(X25519Public([9; 32]));
        let signers = [
            SigningKey::Ed25519(Ed25519Secret::from_bytes([1; 32])),
            SigningKey::Ed448(Ed448Secret::from_bytes([1; 57])),
        ];
        let publics = [0, 1].map(|index| signatures::public_key(&Portable, &signers[index]));
        for (index, signer) in signers.iter().enumerate() {
            let der = sign(&Portable, signer, &key);
            let object = SignedKey::from_der(&der);
            assert_eq!(object.map(|object| object.key), Some(key));
            for (other, public) in publics.iter().enumerate() {
                assert_eq!(object.map(|object| object.verify(&Portable, public)), Some(index == other));
            }
            for length in 0..der.len() {
                assert_eq!(SignedKey::from_der(&der[..length]), None);
            }
            for changed_byte in 0..der.len() {
                let mut changed = der.clone();
                changed[changed_byte] ^= 0x10;
                let verified = SignedKey::from_der(&changed)
                    .is_some_and(|object| object.verify(&Portable, &publics[index]));
                assert!(!verified, "byte {changed_byte}");
            }
            let mut longer = der.clone();
            longer.push(0);
            assert_eq!(SignedKey::from_der(&longer), None);
        }
    }
}
