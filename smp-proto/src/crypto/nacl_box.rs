//! The box used everywhere: XSalsa20 and Poly1305, with one more HSalsa20 step in front (WIRE-FACTS 3).
//!
//! For two X25519 keys this is NaCl's `crypto_box`. For a symmetric key it is *not* NaCl's `crypto_secretbox` of that key:
//! the step from [`SharedSecret`] to [`BoxKey`] is taken there too. A box is `tag (16 bytes) ‖ ciphertext`, 16 bytes longer
//! than the text. Everything here works in the caller's buffer and allocates nothing.

use core::fmt;

use salsa20::cipher::consts::U10;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::nonce::Nonce;
use super::padding::{self, NotPadded, TooLong};
use super::provider::{Forged, Provider};
use crate::keys::{X25519Public, X25519Secret};

/// The bytes in front of the ciphertext: its Poly1305 tag.
pub const TAG_LENGTH: usize = 16;

/// What two X25519 keys have in common: the raw 32 bytes, not hashed. All zeros when the other side's key is of small
/// order: like in the reference that is no error, and protects nobody but the one who would send such a key.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SharedSecret([u8; 32]);

impl SharedSecret {
    /// Takes raw bytes. The caller wipes its own copy.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// What `secret` and `public` have in common. Expensive: 24 to 55 µs; keep the [`BoxKey`].
    #[must_use]
    pub fn agree(provider: &dyn Provider, secret: &X25519Secret, public: &X25519Public) -> Self {
        provider.x25519(secret, public)
    }

    /// The raw bytes, as input of a key derivation.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key of boxes between the two.
    #[must_use]
    pub fn box_key(&self) -> BoxKey {
        BoxKey::from_symmetric(&self.0)
    }
}

impl PartialEq for SharedSecret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}
impl Eq for SharedSecret {}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SharedSecret(..)")
    }
}

/// A key of boxes, with its HSalsa20 step already taken: 32 bytes, wiped on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct BoxKey([u8; 32]);

impl BoxKey {
    /// The key of boxes under a symmetric key (block encryption, link data).
    #[must_use]
    pub fn from_symmetric(key: &[u8; 32]) -> Self {
        let mut derived = salsa20::hsalsa::<U10>(key.into(), &[0; 16].into());
        let key = Self(derived.into());
        derived.as_mut_slice().zeroize();
        key
    }

    /// The key of boxes between the owner of `secret` and the owner of `public`. Expensive: 24 to 55 µs.
    #[must_use]
    pub fn agree(provider: &dyn Provider, secret: &X25519Secret, public: &X25519Public) -> Self {
        SharedSecret::agree(provider, secret, public).box_key()
    }

    /// The key that XSalsa20 takes, for a [`Provider`].
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for BoxKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}
impl Eq for BoxKey {}

impl fmt::Debug for BoxKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("BoxKey(..)")
    }
}

/// Why a box cannot be opened or made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoxError {
    /// Opening: it was not made with this key and nonce, or was changed, or is shorter than a tag.
    Forged,
    /// Opening: it is genuine, but what is in it is not padded text.
    NotPadded,
    /// Sealing: the text does not fit.
    TooLong,
}

impl fmt::Display for BoxError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Forged => "a box could not be decrypted: wrong key or nonce, or changed on the way",
            Self::NotPadded => "a decrypted text is shorter than it claims",
            Self::TooLong => "a text is longer than its padded form allows",
        })
    }
}

impl core::error::Error for BoxError {}

impl From<Forged> for BoxError {
    fn from(_: Forged) -> Self {
        Self::Forged
    }
}
impl From<TooLong> for BoxError {
    fn from(_: TooLong) -> Self {
        Self::TooLong
    }
}
impl From<NotPadded> for BoxError {
    fn from(_: NotPadded) -> Self {
        Self::NotPadded
    }
}

/// Seals the text at offset 16 of `buffer`, to its end, in place; the tag goes in front of it.
///
/// # Errors
/// [`BoxError::TooLong`] when the buffer has no 16 bytes for the tag.
pub fn seal(provider: &dyn Provider, key: &BoxKey, nonce: &Nonce, buffer: &mut [u8]) -> Result<(), BoxError> {
    let (tag, text) = buffer.split_first_chunk_mut::<TAG_LENGTH>().ok_or(BoxError::TooLong)?;
    *tag = provider.box_seal(key, nonce, text);
    Ok(())
}

/// Opens a box in place, and returns the text in it (everything after the first 16 bytes).
///
/// # Errors
/// [`BoxError::Forged`]; the buffer's contents are then unspecified.
pub fn open<'a>(
    provider: &dyn Provider,
    key: &BoxKey,
    nonce: &Nonce,
    sealed: &'a mut [u8],
) -> Result<&'a mut [u8], BoxError> {
    let (tag, text) = sealed.split_first_chunk_mut::<TAG_LENGTH>().ok_or(BoxError::Forged)?;
    provider.box_open(key, nonce, tag, text)?;
    Ok(text)
}

/// Writes the box of padded `text` into the whole of `out`: the padded length is `out.len() - 16`.
///
/// # Errors
/// [`BoxError::TooLong`] when the text does not fit.
pub fn seal_padded(
    provider: &dyn Provider,
    key: &BoxKey,
    nonce: &Nonce,
    text: &[u8],
    out: &mut [u8],
) -> Result<(), BoxError> {
    padding::pad(text, out.get_mut(TAG_LENGTH..).ok_or(BoxError::TooLong)?)?;
    seal(provider, key, nonce, out)
}

/// Pads and seals a text that is already in the buffer, at offset 18 (after tag and length), in place. The box is the
/// whole of `buffer`.
///
/// # Errors
/// [`BoxError::TooLong`] when the text does not fit.
pub fn seal_padded_in_place(
    provider: &dyn Provider,
    key: &BoxKey,
    nonce: &Nonce,
    buffer: &mut [u8],
    text_length: usize,
) -> Result<(), BoxError> {
    padding::pad_in_place(buffer.get_mut(TAG_LENGTH..).ok_or(BoxError::TooLong)?, text_length)?;
    seal(provider, key, nonce, buffer)
}

/// Opens a box of padded text in place, and returns the text.
///
/// # Errors
/// [`BoxError::Forged`] or [`BoxError::NotPadded`]; the buffer's contents are then unspecified.
pub fn open_padded<'a>(
    provider: &dyn Provider,
    key: &BoxKey,
    nonce: &Nonce,
    sealed: &'a mut [u8],
) -> Result<&'a mut [u8], BoxError> {
    Ok(padding::unpad_mut(open(provider, key, nonce, sealed)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Portable;
    use alloc::{format, vec};

    const NONCE: Nonce = Nonce([3; 24]);

    #[test]
    fn both_sides_agree_on_a_key_that_a_third_does_not_have() {
        let [one, two, three] = [1, 2, 3].map(|byte| X25519Secret::from_bytes([byte; 32]));
        let public = |secret| Portable.x25519_public(secret);
        let key = BoxKey::agree(&Portable, &one, &public(&two));
        assert_eq!(key, BoxKey::agree(&Portable, &two, &public(&one)));
        assert_ne!(key, BoxKey::agree(&Portable, &three, &public(&one)));
    }

    #[test]
    fn a_key_of_small_order_gives_zeros_and_no_error() {
        let secret = X25519Secret::from_bytes([1; 32]);
        assert_eq!(SharedSecret::agree(&Portable, &secret, &X25519Public([0; 32])).as_bytes(), &[0; 32]);
    }

    #[test]
    fn a_sealed_text_opens_with_the_same_key_and_nonce_only() {
        let (key, other) = (BoxKey::from_symmetric(&[1; 32]), BoxKey::from_symmetric(&[2; 32]));
        for length in [0, 1, 31, 32, 33, 63, 64, 65, 1000] {
            let mut sealed = vec![7; TAG_LENGTH + length];
            assert_eq!(seal(&Portable, &key, &NONCE, &mut sealed), Ok(()));
            assert_eq!(open(&Portable, &key, &NONCE, &mut sealed.clone()).as_deref(), Ok(&*vec![7; length]));
            assert_eq!(open(&Portable, &other, &NONCE, &mut sealed.clone()), Err(BoxError::Forged));
            assert_eq!(open(&Portable, &key, &Nonce([4; 24]), &mut sealed.clone()), Err(BoxError::Forged));
            for index in [0, TAG_LENGTH - 1, sealed.len() - 1] {
                let mut changed = sealed.clone();
                changed[index] ^= 0x80;
                assert_eq!(open(&Portable, &key, &NONCE, &mut changed), Err(BoxError::Forged));
            }
            sealed.pop();
            assert_eq!(open(&Portable, &key, &NONCE, &mut sealed), Err(BoxError::Forged));
        }
    }

    #[test]
    fn padded_seals_agree_and_lengths_are_checked() {
        let key = BoxKey::from_symmetric(&[1; 32]);
        let (mut copied, mut in_place) = ([0; 80], [0xAA; 80]);
        assert_eq!(seal_padded(&Portable, &key, &NONCE, b"text", &mut copied), Ok(()));
        in_place[18..22].copy_from_slice(b"text");
        assert_eq!(seal_padded_in_place(&Portable, &key, &NONCE, &mut in_place, 4), Ok(()));
        assert_eq!(copied, in_place);
        assert_eq!(open_padded(&Portable, &key, &NONCE, &mut copied).as_deref(), Ok(&b"text"[..]));
        assert_eq!(seal_padded(&Portable, &key, &NONCE, &[0; 63], &mut copied), Err(BoxError::TooLong));
        assert_eq!(seal_padded(&Portable, &key, &NONCE, b"", &mut [0; 17]), Err(BoxError::TooLong));
        assert_eq!(seal_padded(&Portable, &key, &NONCE, b"", &mut [0; 3]), Err(BoxError::TooLong));
        let mut unpadded = [0xFF; 20];
        assert_eq!(seal(&Portable, &key, &NONCE, &mut unpadded), Ok(()));
        assert_eq!(open_padded(&Portable, &key, &NONCE, &mut unpadded), Err(BoxError::NotPadded));
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?} {:?}", SharedSecret::from_bytes([1; 32]), BoxKey::from_symmetric(&[1; 32]));
        assert_eq!(shown, "SharedSecret(..) BoxKey(..)");
    }
}
