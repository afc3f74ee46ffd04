//! Sending, in two steps: the key of a message is made and persisted with the ratchet before any text is encrypted with it.

use alloc::vec::Vec;
use core::fmt;

use zeroize::Zeroizing;

use super::agreement::ASSOCIATED_LENGTH;
use super::derivation::{self, ChainStep, MessageKey};
use super::header::{self, Header};
use super::state::{Chain, Ratchet};
use super::stored::{StateError, StateReader};
use crate::crypto::nacl_box::TAG_LENGTH;
use crate::crypto::padding::TooLong;
use crate::crypto::provider::Provider;
use crate::crypto::ratchet_aead;
use crate::wire::links::ratchet_parameters::KemParameters;
use crate::wire::version::Version;

/// The only format of a stored key so far.
const FORMAT: u8 = 1;

/// Why no message can be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The peer, who joined, has not written yet: there is no key to send with.
    NotYet,
    /// 2^32 - 1 messages were sent without any answer.
    Exhausted,
    /// The stored state contradicts itself: its header does not fit.
    Damaged,
}

impl fmt::Display for SendError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NotYet => {
                "nothing can be encrypted before the first message of the other side: wait for it"
            }
            Self::Exhausted => "too many messages were sent without an answer: synchronize the connection",
            Self::Damaged => {
                "the stored ratchet is damaged: restore the database, or synchronize the connection"
            }
        })
    }
}

impl core::error::Error for SendError {}

/// What encrypts one message: its key, and its header, which is encrypted already. Wiped on drop.
///
/// It is for one text only. To send the same message again, send the same bytes, or seal the *same* text with the stored form.
pub struct SealingKey {
    version: Version,
    key: MessageKey,
    /// The associated data of the text: that of the ratchet ‖ the encrypted header.
    associated: Vec<u8>,
}

impl Ratchet {
    /// Takes the next message key of the sending chain. The ratchet has moved on: persist it, and the key, then
    /// [`seal`](SealingKey::seal).
    ///
    /// # Errors
    /// [`SendError`]; the ratchet is then unchanged.
    pub fn prepare(&mut self, provider: &dyn Provider) -> Result<SealingKey, SendError> {
        let Some(chain) = &self.sending else { return Err(SendError::NotYet) };
        let sent = self.sent.checked_add(1).ok_or(SendError::Exhausted)?;
        let ChainStep { next, message, header_iv } = derivation::chain_step(provider, &chain.key);
        let header = Header {
            newest: self.newest,
            key: self.own.public,
            kem: self.kem.own.as_ref().map(|pair| match &self.kem.ciphertext {
                None => KemParameters::Proposed(pair.public.clone()),
                Some(ciphertext) => {
                    KemParameters::Accepted { ciphertext: ciphertext.clone(), key: pair.public.clone() }
                }
            }),
            previous: self.sent_before,
            number: self.sent,
        };
        // A KEM belongs to version 3, which a ratchet with KEM keys never leaves.
        let supported = self.kem.supported;
        let length = header::encrypted_header_length(self.version, supported);
        let mut associated = Vec::with_capacity(ASSOCIATED_LENGTH + length);
        associated.extend_from_slice(&self.associated);
        header
            .seal(self.version, supported, &chain.header, &header_iv, &self.associated, &mut associated)
            .map_err(|_| SendError::Damaged)?;
        let header = chain.header.clone();
        self.sending = Some(Chain { key: next, header });
        self.sent = sent;
        Ok(SealingKey { version: self.version, key: message, associated })
    }
}

impl SealingKey {
    /// The length of a message whose text is padded to `padded` bytes: 140 more at version 2, 142 at version 3, 2,364 with a
    /// long header.
    #[must_use]
    pub fn message_length(&self, padded: usize) -> usize {
        header::length_bytes(self.version) + self.header().len() + TAG_LENGTH + padded
    }

    /// Encrypts `text`, padded to `padded` bytes (at least 2 more than it has).
    ///
    /// # Errors
    /// [`TooLong`] when the text does not fit. The key is gone with it, which the peer takes for a lost message: check with
    /// [`padding::fits`](crate::crypto::padding::fits) before taking a key.
    pub fn seal(self, text: &[u8], padded: usize) -> Result<Vec<u8>, TooLong> {
        let header = self.header();
        let mut message = Vec::with_capacity(self.message_length(padded));
        header::write_length(self.version, header.len(), &mut message).map_err(|_| TooLong)?;
        message.extend_from_slice(header);
        let tag_place = message.len();
        let text_place = tag_place + TAG_LENGTH;
        message.resize(text_place + padded, 0);
        let place = message.get_mut(text_place..).ok_or(TooLong)?;
        let tag = ratchet_aead::seal_padded(&self.key.key, &self.key.iv, &self.associated, text, place)?;
        message.get_mut(tag_place..text_place).ok_or(TooLong)?.copy_from_slice(&tag);
        Ok(message)
    }

    fn header(&self) -> &[u8] {
        self.associated.get(ASSOCIATED_LENGTH..).unwrap_or_default()
    }

    /// The stored form: `1 (format) ‖ version (2) ‖ key (32) ‖ IV (16) ‖ associated data (112) ‖ encrypted header`. Secret.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(1 + 2 + 32 + 16 + self.associated.len()));
        out.push(FORMAT);
        out.extend_from_slice(&self.version.0.to_be_bytes());
        out.extend_from_slice(&self.key.key);
        out.extend_from_slice(&self.key.iv);
        out.extend_from_slice(&self.associated);
        out
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`StateError`] when it is of another format, or damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StateError> {
        let mut read = StateReader::new(bytes);
        read.format(FORMAT)?;
        let version = Version(read.u16()?);
        let key = MessageKey { key: read.array()?, iv: read.array()? };
        let associated = read.tail().to_vec();
        let lengths =
            [false, true].map(|kem| ASSOCIATED_LENGTH + header::encrypted_header_length(version, kem));
        if lengths.contains(&associated.len()) {
            Ok(Self { version, key, associated })
        } else {
            Err(StateError::Damaged)
        }
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SealingKey(..)")
    }
}
