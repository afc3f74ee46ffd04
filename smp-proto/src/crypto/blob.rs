//! Blobs: encrypted values that a relay keeps for whoever has a link (`smp-proto/EXTENSIONS.md`, "Blobs").
//!
//! One X25519 private key is all that a link carries. From it follow the id under which the owner writes (the hash of the
//! public key), the name under which others read (the public key itself), the key that the value is boxed with, and the
//! key of the second box, in which the relay hands the value out: so the traffic of owner and readers has nothing in common.
//!
//! Whoever has the private key can read the value, and the relay has it not: what the relay puts in its place does not open.

use alloc::vec;
use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use super::nacl_box::{self, BoxError, BoxKey, TAG_LENGTH};
use super::nonce::{NONCE_LENGTH, Nonce};
use super::provider::{Provider, derive};
use super::proxy_layers::MAX_INNER_CONTENT;
use crate::entropy::Entropy;
use crate::keys::{X25519Public, X25519Secret};

/// The length of a blob's id: a SHA-256.
pub const BLOB_ID_LENGTH: usize = 32;

/// What is around a blob in the answer to a proxied `READ`: count, length, no authorization, correlation id, entity id, tag
/// with its space, and the tag of the second box.
const AROUND: usize = 1 + 2 + 1 + (1 + 24) + (1 + 32) + 5 + TAG_LENGTH;

/// The length of every blob: 16,141 bytes, the most that the answer to a proxied `READ` holds.
pub const BLOB_LENGTH: usize = MAX_INNER_CONTENT - AROUND;

/// The most that a blob holds: 16,099 bytes, after nonce, tag and length.
pub const MAX_BLOB_TEXT: usize = BLOB_LENGTH - NONCE_LENGTH - TAG_LENGTH - 2;

/// The id under which the owner of a blob writes and clears it: the SHA-256 of the public key.
#[must_use]
pub fn id(public: &X25519Public) -> [u8; BLOB_ID_LENGTH] {
    Sha256::digest(public.0).into()
}

/// The key that a blob is boxed with.
fn key(provider: &dyn Provider, secret: &X25519Secret) -> BoxKey {
    BoxKey::from_symmetric(&derive::<32>(provider, b"", secret.as_bytes(), b"SimpleXBlob"))
}

/// Makes a blob of `text`, with a fresh nonce: nonce (24) ‖ box of the padded text.
///
/// # Errors
/// [`BoxError::TooLong`] when the text has more than [`MAX_BLOB_TEXT`] bytes.
pub fn seal(
    provider: &dyn Provider,
    secret: &X25519Secret,
    text: &[u8],
    entropy: &mut (impl Entropy + ?Sized),
) -> Result<Vec<u8>, BoxError> {
    let nonce = Nonce::generate(entropy);
    let mut blob = vec![0; BLOB_LENGTH];
    let (head, sealed) = blob.split_first_chunk_mut::<NONCE_LENGTH>().ok_or(BoxError::TooLong)?;
    *head = nonce.0;
    nacl_box::seal_padded(provider, &key(provider, secret), &nonce, text, sealed)?;
    Ok(blob)
}

/// Opens a blob in place, and returns the text in it.
///
/// # Errors
/// [`BoxError`] when it was not made with this key, or was changed.
pub fn open<'a>(
    provider: &dyn Provider,
    secret: &X25519Secret,
    blob: &'a mut [u8],
) -> Result<&'a mut [u8], BoxError> {
    let (nonce, sealed) = blob.split_first_chunk_mut::<NONCE_LENGTH>().ok_or(BoxError::Forged)?;
    nacl_box::open_padded(provider, &key(provider, secret), &Nonce(*nonce), sealed)
}

/// The relay boxes a blob once more, for one reader and one answer, in place: the blob stands after 16 bytes for the tag.
/// `correlation` is that of the reader's command.
///
/// # Errors
/// [`BoxError::TooLong`] when there is no room for the tag.
pub fn seal_answer(
    provider: &dyn Provider,
    relay: &X25519Secret,
    reader: &X25519Public,
    correlation: &[u8],
    sealed: &mut [u8],
) -> Result<(), BoxError> {
    let key = BoxKey::agree(provider, relay, reader);
    nacl_box::seal(provider, &key, &Nonce::from_id(correlation), sealed)
}

/// The reader opens what [`seal_answer`] made, in place, and returns the blob. `relay` is the key in the relay's hello.
///
/// # Errors
/// [`BoxError::Forged`].
pub fn open_answer<'a>(
    provider: &dyn Provider,
    secret: &X25519Secret,
    relay: &X25519Public,
    correlation: &[u8],
    sealed: &'a mut [u8],
) -> Result<&'a mut [u8], BoxError> {
    let key = BoxKey::agree(provider, secret, relay);
    nacl_box::open(provider, &key, &Nonce::from_id(correlation), sealed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Portable;
    use crate::entropy::SeededEntropy;

    #[test]
    fn every_blob_has_one_length_and_opens_with_its_key_alone() {
        assert_eq!((BLOB_LENGTH, MAX_BLOB_TEXT), (16_141, 16_099));
        let secret = X25519Secret::from_bytes([1; 32]);
        let mut entropy = SeededEntropy::new([2; 32]);
        for length in [0, 1, MAX_BLOB_TEXT] {
            let text = vec![7; length];
            let blob = seal(&Portable, &secret, &text, &mut entropy).expect("it fits");
            assert_eq!(blob.len(), BLOB_LENGTH);
            assert_eq!(open(&Portable, &secret, &mut blob.clone()).expect("the right key"), &text[..]);
            let other = X25519Secret::from_bytes([3; 32]);
            assert!(open(&Portable, &other, &mut blob.clone()).is_err());
            for place in [0, 30, BLOB_LENGTH - 1] {
                let mut changed = blob.clone();
                changed[place] ^= 1;
                assert!(open(&Portable, &secret, &mut changed).is_err());
            }
            // The same text again has another nonce.
            assert_ne!(seal(&Portable, &secret, &text, &mut entropy).expect("it fits"), blob);
        }
        let long = vec![0; MAX_BLOB_TEXT + 1];
        assert_eq!(seal(&Portable, &secret, &long, &mut entropy), Err(BoxError::TooLong));
        assert!(open(&Portable, &secret, &mut [0; 10]).is_err());
    }
}
