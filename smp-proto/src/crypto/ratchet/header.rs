//! What lies on the wire: headers and messages, to the byte.
//!
//! ```text
//! message          = length encrypted-header tag(16) encrypted-text
//! encrypted-header = version(2) iv(16) tag(16) length encrypted(padded header)
//! header           = newest-version(2) short(X448 key, 68) [kem] previous(4) number(4)
//! kem              = "0" | "1" ( "P" large(key, 1158) | "A" large(ciphertext, 1039) large(key, 1158) )
//! ```
//! `version` is that of the ratchet. Up to 2 a `length` is 1 byte and there is no `kem`; from 3 on it is 2 bytes. Readers tell
//! by the first byte: lengths of 1 byte are never below 32, since no header is that short. A header is padded to 88 bytes,
//! or, when its sender supports the KEM, to 2,310. Bytes after `number` are skipped: later versions may add some.

use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::derivation::HeaderKey;
use crate::crypto::nacl_box::TAG_LENGTH;
use crate::crypto::padding;
use crate::crypto::ratchet_aead::{self, IV_LENGTH};
use crate::keys::X448Public;
use crate::wire::links::ratchet_parameters::{KEM_VERSION, KemParameters};
use crate::wire::primitives::{Full, Reader, Writer};
use crate::wire::version::Version;

/// The first value of a first byte that is a length of its own.
const SHORT_LENGTHS: u8 = 32;
/// What short headers are padded to.
const PADDED: usize = 88;
/// What headers with place for a KEM are padded to: none is longer, so that to try many keys on a forged one stays cheap.
const LONG_PADDED: usize = 2310;

/// What a header is padded to: 88 bytes, or 2,310 when there must be place for a KEM.
pub(super) const fn padded_header_length(version: Version, kem_supported: bool) -> usize {
    if kem_supported && version.0 >= KEM_VERSION.0 { LONG_PADDED } else { PADDED }
}

/// How many bytes a length takes.
pub(super) const fn length_bytes(version: Version) -> usize {
    if version.0 >= KEM_VERSION.0 { 2 } else { 1 }
}

/// The length of an encrypted header: 123, 124 or 2,346 bytes.
pub(super) const fn encrypted_header_length(version: Version, kem_supported: bool) -> usize {
    2 + IV_LENGTH + TAG_LENGTH + length_bytes(version) + padded_header_length(version, kem_supported)
}

/// A header in the clear.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// The newest version that the sender speaks.
    pub(super) newest: Version,
    /// The sender's key of this chain.
    pub(super) key: X448Public,
    pub(super) kem: Option<KemParameters>,
    /// How many messages there were in the sender's chain before this one.
    pub(super) previous: u32,
    /// The number of this message in its chain, from 0 on.
    pub(super) number: u32,
}

impl Header {
    /// Writes the header for a ratchet at `version`.
    pub(super) fn write(&self, version: Version, out: &mut impl Writer) -> Result<(), Full> {
        out.u16(self.newest.0)?;
        out.short(&self.key.to_der())?;
        if version >= KEM_VERSION {
            out.maybe(self.kem.as_ref(), |out, kem| kem.write(out))?;
        }
        out.put(&self.previous.to_be_bytes())?;
        out.put(&self.number.to_be_bytes())
    }

    /// Reads the header of a message at `version`.
    pub(super) fn read(version: Version, text: &[u8]) -> Option<Self> {
        let mut read = Reader::new(text);
        let newest = read.version()?;
        let key = X448Public::from_der(read.short()?).ok()?;
        let kem = if version >= KEM_VERSION { read.maybe(KemParameters::read)? } else { None };
        let mut number = || read.array().map(|bytes| u32::from_be_bytes(*bytes));
        Some(Self { newest, key, kem, previous: number()?, number: number()? })
    }

    /// Encrypts the header: `out` gets the encrypted header.
    pub(super) fn seal(
        &self,
        version: Version,
        kem_supported: bool,
        key: &HeaderKey,
        iv: &[u8; IV_LENGTH],
        associated: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Full> {
        let padded = padded_header_length(version, kem_supported);
        let mut text = Vec::with_capacity(padded);
        self.write(version, &mut text)?;
        let mut sealed = Zeroizing::new(alloc::vec![0; padded]);
        let tag = ratchet_aead::seal_padded(key.as_bytes(), iv, associated, &text, &mut sealed)
            .map_err(|_| Full)?;
        out.u16(version.0)?;
        out.put(iv)?;
        out.put(&tag)?;
        write_length(version, padded, out)?;
        out.put(&sealed)
    }
}

/// Writes a length in the form of `version`.
pub(super) fn write_length(version: Version, length: usize, out: &mut impl Writer) -> Result<(), Full> {
    if version >= KEM_VERSION {
        out.u16(u16::try_from(length).map_err(|_| Full)?)
    } else {
        out.byte(u8::try_from(length).map_err(|_| Full)?)
    }
}

/// A length, and how many bytes it took.
fn read_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let (&first, rest) = bytes.split_first()?;
    if first >= SHORT_LENGTHS {
        return Some((usize::from(first), 1));
    }
    let &second = rest.first()?;
    Some((usize::from(u16::from_be_bytes([first, second])), 2))
}

/// A header as it comes: not opened yet.
pub(super) struct EncryptedHeader<'a> {
    version: Version,
    iv: &'a [u8; IV_LENGTH],
    tag: &'a [u8; TAG_LENGTH],
    sealed: &'a [u8],
}

/// Why a header cannot be opened with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unopened {
    /// It was not encrypted with this key.
    OtherKey,
    /// It was, and says nothing that can be read.
    Unreadable,
}

impl<'a> EncryptedHeader<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut read = Reader::new(bytes);
        let (version, iv, tag) = (read.version()?, read.array()?, read.array()?);
        let (length, taken) = read_length(read.rest())?;
        read.bytes(taken)?;
        let sealed = read.bytes(length)?;
        read.end()?;
        (length <= LONG_PADDED).then_some(Self { version, iv, tag, sealed })
    }

    /// Opens it, when it was encrypted with this key.
    pub(super) fn open(&self, key: &HeaderKey, associated: &[u8]) -> Result<Header, Unopened> {
        let mut text = Zeroizing::new(self.sealed.to_vec());
        ratchet_aead::open(key.as_bytes(), self.iv, associated, self.tag, &mut text)
            .map_err(|_| Unopened::OtherKey)?;
        let header = padding::unpad(&text).map_err(|_| Unopened::Unreadable)?;
        Header::read(self.version, header).ok_or(Unopened::Unreadable)
    }
}

/// A message as it comes: not opened yet.
pub(super) struct Parts<'a> {
    /// The encrypted header, as it is authenticated with the text.
    pub(super) header_bytes: &'a [u8],
    pub(super) header: EncryptedHeader<'a>,
    pub(super) tag: &'a [u8; TAG_LENGTH],
    pub(super) text: &'a mut [u8],
}

impl<'a> Parts<'a> {
    /// Takes a message apart; `None` when it is none.
    pub(super) fn of(message: &'a mut [u8]) -> Option<Self> {
        let (length, taken) = read_length(message)?;
        let (_, rest) = message.split_at_mut_checked(taken)?;
        let (header_bytes, rest) = rest.split_at_mut_checked(length)?;
        let (tag, text) = rest.split_first_chunk_mut()?;
        Some(Self { header: EncryptedHeader::read(header_bytes)?, header_bytes, tag, text })
    }
}
