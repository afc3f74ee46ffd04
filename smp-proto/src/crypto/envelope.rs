//! The envelope around what one client sends another: the body of `SEND` (WIRE-FACTS 9.1).
//!
//! Opaque to relays. `version (2) ‖ '0' | '1' length key ‖ nonce (24) ‖ box`; the box is between the sender's X25519 key and
//! that of the queue's address. A confirmation, the first message to a queue, carries the sender's X25519 key and is
//! padded a little shorter, so that both kinds fit the same body.
//! Inside is `K length key` (before SKEY: the key that will authorize the sender) or `_`, and then the agent's message.

use core::fmt;

use super::nacl_box::{self, BoxError, BoxKey, TAG_LENGTH};
use super::nonce::{NONCE_LENGTH, Nonce};
use super::padding::LENGTH_BYTES;
use super::provider::Provider;
use crate::keys::{AuthKey, X25519Public};

/// What a confirmation is padded to: 15,904 bytes.
pub const CONFIRMATION_PADDED_LENGTH: usize = 15_904;
/// What every other message is padded to: 16,000 bytes.
pub const MESSAGE_PADDED_LENGTH: usize = 16_000;
/// The longest envelope, that of a message without the sender's key: 16,043 bytes.
pub const MAX_ENVELOPE_LENGTH: usize = header_length(false) + TAG_LENGTH + MESSAGE_PADDED_LENGTH;

/// An X25519 key in DER.
const X25519_DER_LENGTH: usize = 44;

/// The bytes before the box.
const fn header_length(with_key: bool) -> usize {
    2 + 1 + if with_key { 1 + X25519_DER_LENGTH } else { 0 } + NONCE_LENGTH
}

/// The length of an envelope: 15,992 bytes with the sender's key (a confirmation), 16,043 without.
#[must_use]
pub const fn envelope_length(with_key: bool) -> usize {
    header_length(with_key) + TAG_LENGTH + padded_length(with_key)
}

/// What the content is padded to: shorter in an envelope that carries the sender's key.
const fn padded_length(with_key: bool) -> usize {
    if with_key { CONFIRMATION_PADDED_LENGTH } else { MESSAGE_PADDED_LENGTH }
}

/// The clear part of an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnvelopeHeader {
    /// The sender's version of the client protocol.
    pub client_version: u16,
    /// The sender's key, in a confirmation.
    pub sender: Option<X25519Public>,
    /// The nonce of the box.
    pub nonce: Nonce,
}

/// An envelope, borrowed from the body of a message: not opened yet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The clear part.
    pub header: EnvelopeHeader,
    /// The box.
    pub sealed: &'a [u8],
}

impl fmt::Debug for Envelope<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Envelope({} bytes)", self.sealed.len())
    }
}

/// What is in an envelope.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ClientMessage<'a> {
    /// The key that will authorize the sender, in a confirmation to a queue that the sender cannot secure itself.
    pub sender_auth_key: Option<AuthKey>,
    /// The agent's message.
    pub message: &'a [u8],
}

impl fmt::Debug for ClientMessage<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ClientMessage({} bytes)", self.message.len())
    }
}

impl<'a> Envelope<'a> {
    /// Reads the clear part of an envelope; `None` when it is cut or its key is not X25519.
    #[must_use]
    pub fn parse(body: &'a [u8]) -> Option<Self> {
        let (version, rest) = body.split_first_chunk::<2>()?;
        let (sender, rest) = match rest.split_first()? {
            (b'0', rest) => (None, rest),
            (b'1', rest) => {
                let (&length, rest) = rest.split_first()?;
                let (key, rest) = rest.split_at_checked(usize::from(length))?;
                (Some(X25519Public::from_der(key).ok()?), rest)
            }
            _ => return None,
        };
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LENGTH>()?;
        let client_version = u16::from_be_bytes(*version);
        Some(Self { header: EnvelopeHeader { client_version, sender, nonce: Nonce(*nonce) }, sealed })
    }
}

/// Seals a message into the whole of `out`, whose length is [`envelope_length`]`(header.sender.is_some())`.
///
/// # Errors
/// [`BoxError::TooLong`] when the message does not fit, or `out` has another length.
pub fn seal(
    provider: &dyn Provider,
    key: &BoxKey,
    header: &EnvelopeHeader,
    content: &ClientMessage<'_>,
    out: &mut [u8],
) -> Result<(), BoxError> {
    let with_key = header.sender.is_some();
    if out.len() != envelope_length(with_key) {
        return Err(BoxError::TooLong);
    }
    let (clear, sealed) = out.split_at_mut_checked(header_length(with_key)).ok_or(BoxError::TooLong)?;
    let mut clear = Writer { rest: clear };
    clear.put(&header.client_version.to_be_bytes())?;
    match &header.sender {
        None => clear.put(b"0")?,
        Some(key) => {
            clear.put(b"1")?;
            clear.put_short(&key.to_der())?;
        }
    }
    clear.put(&header.nonce.0)?;

    let text = sealed.get_mut(TAG_LENGTH + LENGTH_BYTES..).ok_or(BoxError::TooLong)?;
    let available = text.len();
    let mut text = Writer { rest: text };
    match &content.sender_auth_key {
        None => text.put(b"_")?,
        Some(key) => {
            text.put(b"K")?;
            text.put_short(&key.to_der())?;
        }
    }
    text.put(content.message)?;
    let text_length = available - text.rest.len();
    nacl_box::seal_padded_in_place(provider, key, &header.nonce, sealed, text_length)
}

/// Opens the box of an envelope in place (the bytes of [`Envelope::sealed`]), and returns the plaintext for
/// [`ClientMessage::parse`].
///
/// # Errors
/// [`BoxError::Forged`] or [`BoxError::NotPadded`].
pub fn open<'a>(
    provider: &dyn Provider,
    key: &BoxKey,
    nonce: &Nonce,
    sealed: &'a mut [u8],
) -> Result<&'a [u8], BoxError> {
    nacl_box::open_padded(provider, key, nonce, sealed).map(|text| &*text)
}

impl<'a> ClientMessage<'a> {
    /// Reads the plaintext of an envelope; `None` when it has another form.
    #[must_use]
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        match text.split_first()? {
            (b'_', message) => Some(Self { sender_auth_key: None, message }),
            (b'K', rest) => {
                let (&length, rest) = rest.split_first()?;
                let (key, message) = rest.split_at_checked(usize::from(length))?;
                Some(Self { sender_auth_key: Some(AuthKey::from_der(key).ok()?), message })
            }
            _ => None,
        }
    }
}

/// Writes into what is left of a buffer.
struct Writer<'a> {
    rest: &'a mut [u8],
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), BoxError> {
        let rest = core::mem::take(&mut self.rest);
        let (place, rest) = rest.split_at_mut_checked(bytes.len()).ok_or(BoxError::TooLong)?;
        place.copy_from_slice(bytes);
        self.rest = rest;
        Ok(())
    }

    fn put_short(&mut self, bytes: &[u8]) -> Result<(), BoxError> {
        self.put(&[u8::try_from(bytes.len()).map_err(|_| BoxError::TooLong)?])?;
        self.put(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Portable;
    use crate::keys::Ed25519Public;
    use alloc::vec;

    #[test]
    fn envelopes_come_back_with_and_without_keys() {
        let key = BoxKey::from_symmetric(&[1; 32]);
        for sender in [None, Some(X25519Public([2; 32]))] {
            for sender_auth_key in [None, Some(AuthKey::Ed25519(Ed25519Public([3; 32])))] {
                let header = EnvelopeHeader { client_version: 4, sender, nonce: Nonce([5; 24]) };
                let content = ClientMessage { sender_auth_key, message: b"message" };
                let mut out = vec![0xFF; envelope_length(sender.is_some())];
                assert_eq!(seal(&Portable, &key, &header, &content, &mut out), Ok(()));
                let envelope = Envelope::parse(&out);
                assert_eq!(envelope.map(|envelope| envelope.header), Some(header));
                let mut sealed = envelope.map(|envelope| envelope.sealed.to_vec()).unwrap_or_default();
                let text = open(&Portable, &key, &header.nonce, &mut sealed);
                assert_eq!(text.map(ClientMessage::parse), Ok(Some(content)));
                for length in 0..header_length(sender.is_some()) {
                    assert_eq!(Envelope::parse(&out[..length]), None);
                }
                let wrong_length = seal(&Portable, &key, &header, &content, &mut out[1..]);
                assert_eq!(wrong_length, Err(BoxError::TooLong));
            }
        }
    }

    #[test]
    fn a_message_fits_or_is_refused() {
        let key = BoxKey::from_symmetric(&[1; 32]);
        let header = EnvelopeHeader { client_version: 4, sender: None, nonce: Nonce([5; 24]) };
        let mut out = vec![0; envelope_length(false)];
        for (length, expected) in
            [(15_997, Ok(())), (15_998, Err(BoxError::TooLong)), (20_000, Err(BoxError::TooLong))]
        {
            let content = ClientMessage { sender_auth_key: None, message: &vec![0; length] };
            assert_eq!(seal(&Portable, &key, &header, &content, &mut out), expected);
        }
    }
}
