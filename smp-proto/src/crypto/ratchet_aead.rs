//! AES-256-GCM as the agents' ratchet uses it: with 16-byte IVs, and padded texts. In place; the tag is apart.

use aes_gcm::aead::consts::U16;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::aes::Aes256;
use aes_gcm::{AesGcm, Tag};

use super::nacl_box::TAG_LENGTH;
use super::padding::{self, TooLong};
use super::provider::Forged;

/// The length of an initialization vector: 16 bytes.
pub const IV_LENGTH: usize = 16;

type Cipher = AesGcm<Aes256, U16>;

/// Pads `text` to the whole of `out`, encrypts it there, and returns the tag over it and `associated`.
///
/// # Errors
/// [`TooLong`] when the text does not fit.
pub fn seal_padded(
    key: &[u8; 32],
    iv: &[u8; IV_LENGTH],
    associated: &[u8],
    text: &[u8],
    out: &mut [u8],
) -> Result<[u8; TAG_LENGTH], TooLong> {
    padding::pad(text, out)?;
    let tag = Cipher::new(key.into()).encrypt_inout_detached(iv.into(), associated, out.into());
    tag.map(Into::into).map_err(|_| TooLong)
}

/// Decrypts `sealed` in place, when the tag fits it and `associated`. Take the text with
/// [`unpad_mut`](padding::unpad_mut).
///
/// # Errors
/// [`Forged`]; `sealed` is then unspecified.
pub fn open(
    key: &[u8; 32],
    iv: &[u8; IV_LENGTH],
    associated: &[u8],
    tag: &[u8; TAG_LENGTH],
    sealed: &mut [u8],
) -> Result<(), Forged> {
    let tag = Tag::from(*tag);
    Cipher::new(key.into())
        .decrypt_inout_detached(iv.into(), associated, sealed.into(), &tag)
        .map_err(|_| Forged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_text_opens_with_its_key_iv_and_associated_data_only() {
        let mut sealed = [0; 40];
        let tag = seal_padded(&[1; 32], &[2; 16], b"header", b"text", &mut sealed);
        let Ok(tag) = tag else { panic!("4 bytes fit into 40") };
        let opens = |key, iv, associated: &[u8], tag: &[u8; 16]| {
            let mut sealed = sealed;
            open(key, iv, associated, tag, &mut sealed).map(|()| padding::unpad(&sealed) == Ok(b"text"))
        };
        assert_eq!(opens(&[1; 32], &[2; 16], b"header", &tag), Ok(true));
        assert_eq!(opens(&[0; 32], &[2; 16], b"header", &tag), Err(Forged));
        assert_eq!(opens(&[1; 32], &[0; 16], b"header", &tag), Err(Forged));
        assert_eq!(opens(&[1; 32], &[2; 16], b"Header", &tag), Err(Forged));
        assert_eq!(opens(&[1; 32], &[2; 16], b"header", &[0; 16]), Err(Forged));
        assert_eq!(seal_padded(&[1; 32], &[2; 16], b"", &[0; 39], &mut sealed), Err(TooLong));
    }
}
