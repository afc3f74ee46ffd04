//! TLS 1.3 records once the handshake is complete (RFC 8446 5): one direction of one connection each.
//!
//! Owns: protection and its removal with ChaCha20-Poly1305, in the place where the bytes are, and the sequence numbers.
//! The handshake is rustls's, and so are all key derivations; what is here is the part that rustls hands over to
//! kernels and drivers (`rustls::kernel`). It is done here for two reasons. An idle connection keeps a key, an IV and a
//! counter per direction instead of cipher contexts and buffers. And a block is encrypted straight from where it is
//! into the outgoing buffer, and decrypted where it arrived, without a copy.
//! It must never use a sequence number twice.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustls::ConnectionTrafficSecrets;
use rustls::crypto::cipher::{AeadKey, Iv, Nonce as RecordNonce};

use super::buffer::Buffer;

/// The most plaintext in one record, in bytes: exactly one SMP block.
pub(super) const MAX_PLAINTEXT: usize = 16_384;

/// Type, version and length in front of each record, in bytes.
pub(super) const HEADER: usize = 5;

/// The Poly1305 tag, in bytes.
const TAG: usize = 16;

/// The most bytes after the header that a peer may send (RFC 8446 5.2).
const MAX_CIPHERTEXT: usize = MAX_PLAINTEXT + 256;

/// What a record carries (RFC 8446 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentType {
    Alert,
    Handshake,
    ApplicationData,
}

impl ContentType {
    fn code(self) -> u8 {
        match self {
            Self::Alert => 21,
            Self::Handshake => 22,
            Self::ApplicationData => 23,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        match code {
            21 => Some(Self::Alert),
            22 => Some(Self::Handshake),
            23 => Some(Self::ApplicationData),
            _ => None,
        }
    }
}

/// Why a record cannot be read, by the alert that answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordError {
    /// `bad_record_mac`
    Corrupt,
    /// `record_overflow`
    TooLong,
    /// `unexpected_message`
    Unexpected(&'static str),
    /// The sequence numbers are used up: after 2^64 records.
    Exhausted,
    /// The provider failed, or gave keys of another cipher.
    Cipher,
}

/// The key of one direction. Key and IV are wiped on drop by rustls's types.
pub(super) struct RecordKey {
    key: AeadKey,
    iv: Iv,
    sequence: u64,
}

impl RecordKey {
    pub(super) fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, RecordError> {
        match secrets {
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => Ok(Self { key, iv, sequence }),
            _ => Err(RecordError::Cipher),
        }
    }

    fn next(&mut self) -> Result<(LessSafeKey, Nonce), RecordError> {
        let nonce = RecordNonce::new(&self.iv, self.sequence);
        self.sequence = self.sequence.checked_add(1).ok_or(RecordError::Exhausted)?;
        let key = UnboundKey::new(&CHACHA20_POLY1305, self.key.as_ref()).map_err(|_| RecordError::Cipher)?;
        Ok((LessSafeKey::new(key), Nonce::assume_unique_for_key(nonce.0)))
    }

    /// Appends one record with `plaintext` (at most [`MAX_PLAINTEXT`] bytes) to `outgoing`.
    pub(super) fn seal(
        &mut self,
        content: ContentType,
        plaintext: &[u8],
        outgoing: &mut Buffer,
    ) -> Result<(), RecordError> {
        if plaintext.len() > MAX_PLAINTEXT {
            return Err(RecordError::TooLong);
        }
        let (key, nonce) = self.next()?;
        let length = plaintext.len() + 1 + TAG;
        let header = header(length);
        let (record, _) = outgoing.room(HEADER + length).split_at_mut(HEADER + length);
        let (head, body) = record.split_at_mut(HEADER);
        let (ciphertext, type_and_tag) = body.split_at_mut(plaintext.len());
        head.copy_from_slice(&header);
        key.seal_out_of_place_scatter(
            nonce,
            Aad::from(header),
            plaintext,
            ciphertext,
            &[content.code()],
            type_and_tag,
        )
        .map_err(|_| RecordError::Cipher)?;
        outgoing.fill(HEADER + length);
        Ok(())
    }

    /// Decrypts a whole `record` (header included) where it is: what it carries, and how many bytes of plaintext there
    /// are after the header.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<(ContentType, usize), RecordError> {
        let (key, nonce) = self.next()?;
        let Some((head, body)) = record.split_first_chunk_mut::<HEADER>() else {
            return Err(RecordError::Corrupt);
        };
        let plaintext = key.open_in_place(nonce, Aad::from(*head), body).map_err(|_| RecordError::Corrupt)?;
        if plaintext.len() > MAX_PLAINTEXT + 1 {
            return Err(RecordError::TooLong);
        }
        // The type is the last byte that is not zero; zeros after it are padding.
        let last = plaintext
            .iter()
            .rposition(|byte| *byte != 0)
            .ok_or(RecordError::Unexpected("a record of padding only"))?;
        let content = plaintext
            .get(last)
            .and_then(|code| ContentType::from_code(*code))
            .ok_or(RecordError::Unexpected("a record of unknown type"))?;
        Ok((content, last))
    }
}

fn header(length: usize) -> [u8; HEADER] {
    // Outside, every protected record is application data of TLS 1.2 (RFC 8446 5.2). Lengths here are below 2^15.
    let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    [ContentType::ApplicationData.code(), 3, 3, high, low]
}

/// The length in bytes, header included, of the protected record that `received` begins with; `None` when not even its
/// header is there.
pub(super) fn protected_record_length(received: &[u8]) -> Result<Option<usize>, RecordError> {
    let Some([code, _, _, high, low]) = received.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    if *code != ContentType::ApplicationData.code() {
        return Err(RecordError::Unexpected("a record without protection after the handshake"));
    }
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if length > MAX_CIPHERTEXT { Err(RecordError::TooLong) } else { Ok(Some(HEADER + length)) }
}

/// How many bytes of `received` to give to rustls at once during the handshake: one whole record. `None` until it is
/// there. What cannot be a record is given at once, for rustls to refuse.
pub(super) fn handshake_record_length(received: &[u8]) -> Option<usize> {
    let Some([code, _, _, high, low]) = received.first_chunk::<HEADER>() else {
        return match received.first() {
            Some(code) if !(20..=23).contains(code) => Some(received.len()),
            _ => None,
        };
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if !(20..=23).contains(code) || length > MAX_CIPHERTEXT {
        return Some(received.len());
    }
    (received.len() >= HEADER + length).then_some(HEADER + length)
}
