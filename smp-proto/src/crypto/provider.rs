//! The primitives under every construction, behind one trait, so that a runtime can bring faster ones.
//!
//! The core brings [`Portable`](super::Portable), pure Rust without std. Machines hold a `&'static dyn Provider` and
//! reach primitives only through it; two providers must agree on every output.

use zeroize::Zeroizing;

use super::ed25519_batch;
use super::key_encapsulation::KeyEncapsulation;
use super::nacl_box::{BoxKey, SharedSecret, TAG_LENGTH};
use super::nonce::Nonce;
use crate::keys::{Ed25519Public, Ed25519Secret, X25519Public, X25519Secret};

/// The length of an Ed25519 signature: 64 bytes.
pub const ED25519_SIGNATURE_LENGTH: usize = 64;
/// The longest output of HKDF-SHA512: 255 digests, 16,320 bytes.
pub const MAX_HKDF_OUTPUT: usize = 255 * 64;

/// A tag does not fit its ciphertext, key and nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forged;

/// One signature to check, in a batch.
#[derive(Clone, Copy, Debug)]
pub struct Ed25519Check<'a> {
    /// The signer's key.
    pub key: Ed25519Public,
    /// The message, in parts that are read one after the other.
    pub message: &'a [&'a [u8]],
    /// The signature.
    pub signature: &'a [u8; ED25519_SIGNATURE_LENGTH],
    /// What was found; any value before.
    pub valid: bool,
}

/// The primitives of SMP. All work is done in the caller's buffers, and nothing panics, whatever the bytes.
pub trait Provider: Send + Sync {
    /// The raw X25519 shared secret. All zeros when `public` is of small order: that is not an error (WIRE-FACTS 3).
    fn x25519(&self, secret: &X25519Secret, public: &X25519Public) -> SharedSecret;

    /// The public key of `secret`.
    fn x25519_public(&self, secret: &X25519Secret) -> X25519Public;

    /// Encrypts `text` in place with XSalsa20 and returns the Poly1305 tag of the ciphertext.
    fn box_seal(&self, key: &BoxKey, nonce: &Nonce, text: &mut [u8]) -> [u8; TAG_LENGTH];

    /// Checks the tag in constant time, then decrypts `text` in place.
    ///
    /// # Errors
    /// [`Forged`] when the tag is not that of this ciphertext under this key and nonce; `text` is then unspecified.
    fn box_open(
        &self,
        key: &BoxKey,
        nonce: &Nonce,
        tag: &[u8; TAG_LENGTH],
        text: &mut [u8],
    ) -> Result<(), Forged>;

    /// SHA-512 of `parts`, one after the other.
    fn sha512(&self, parts: &[&[u8]]) -> [u8; 64];

    /// HKDF-SHA512 (RFC 5869). Reach it through [`derive()`], which bounds the length when it is compiled; an `output` of
    /// more than [`MAX_HKDF_OUTPUT`] bytes is filled with zeros, since nothing can be derived.
    fn hkdf_sha512(&self, salt: &[u8], input: &[u8], info: &[u8], output: &mut [u8]);

    /// The public key of `secret`.
    fn ed25519_public(&self, secret: &Ed25519Secret) -> Ed25519Public;

    /// Signs the message whose parts are given.
    fn ed25519_sign(&self, secret: &Ed25519Secret, message: &[&[u8]]) -> [u8; ED25519_SIGNATURE_LENGTH];

    /// Whether `signature` is the key's signature of the message. The cofactorless check of RFC 8032, like the
    /// reference's: the scalar must be reduced, and `R` must be byte for byte what the equation gives. A key that is not
    /// a point, or of small order, is no error: the former verifies nothing.
    fn ed25519_verify(
        &self,
        key: &Ed25519Public,
        message: &[&[u8]],
        signature: &[u8; ED25519_SIGNATURE_LENGTH],
    ) -> bool;

    /// The post-quantum algorithm of the ratchet, if there is one.
    fn key_encapsulation(&self) -> Option<&dyn KeyEncapsulation> {
        None
    }

    /// Sets [`Ed25519Check::valid`] of every check: one equation for all, and single checks when it does not hold.
    ///
    /// Everything that [`ed25519_verify`](Self::ed25519_verify) accepts is accepted here. The reverse holds for every key
    /// made as keys are made: only the owner of a private key can make a signature, with a part of small order, on which
    /// the two differ. Such a signer says nothing that it could not have signed properly.
    fn ed25519_verify_batch(&self, checks: &mut [Ed25519Check<'_>]) {
        let all_valid = checks.len() >= ed25519_batch::WORTHWHILE && ed25519_batch::holds(self, checks);
        for check in checks {
            check.valid = all_valid || self.ed25519_verify(&check.key, check.message, check.signature);
        }
    }
}

/// Derives `LENGTH` bytes with HKDF-SHA512; an empty salt means the zero key of RFC 5869. Wiped on drop.
#[must_use]
pub fn derive<const LENGTH: usize>(
    provider: &dyn Provider,
    salt: &[u8],
    input: &[u8],
    info: &[u8],
) -> Zeroizing<[u8; LENGTH]> {
    const { assert!(LENGTH <= MAX_HKDF_OUTPUT, "HKDF-SHA512 gives at most 16,320 bytes") };
    let mut output = Zeroizing::new([0; LENGTH]);
    provider.hkdf_sha512(salt, input, info, output.as_mut_slice());
    output
}
