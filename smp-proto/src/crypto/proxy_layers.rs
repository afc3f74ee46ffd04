//! The layers of encryption around a command that goes through a proxy (WIRE-FACTS 10).
//!
//! Three parties: a client, a proxy, and the relay that executes the command. Two boxes go around the command:
//!
//! - *inner*, between the client's ephemeral key and the key in the relay's hello: padded, so that the proxy learns nothing,
//!   not even a length. Its nonce is the client's correlation id.
//! - *outer*, between the keys in the hellos of proxy and relay, over the inner one and what the relay needs to open it: not
//!   padded, for its length is fixed. Its nonce is the proxy's correlation id. Without it, who watches both connections
//!   of the proxy would see the same ciphertext on either.
//!
//! The response goes back in the same two boxes, with the nonces reversed.

use alloc::vec::Vec;
use core::fmt;

use super::nacl_box::{self, BoxError, BoxKey, TAG_LENGTH};
use super::nonce::Nonce;
use super::provider::Provider;
use crate::keys::X25519Public;

/// What a forwarded command or its response is padded to: 16,226 bytes.
pub const INNER_PADDED_LENGTH: usize = 16_226;
/// The inner box: 16,242 bytes.
pub const INNER_SEALED_LENGTH: usize = INNER_PADDED_LENGTH + TAG_LENGTH;
/// The largest block content (a batch of one) that can be forwarded: 16,224 bytes.
pub const MAX_INNER_CONTENT: usize = INNER_PADDED_LENGTH - 2;

/// An X25519 key in DER.
const X25519_DER_LENGTH: usize = 44;

/// What a proxy forwards: the plaintext of the outer box on the way to the relay.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ForwardedCommand<'a> {
    /// The client's correlation id: up to 255 bytes.
    pub correlation: &'a [u8],
    /// The version at which the relay shall process the command.
    pub version: u16,
    /// The client's ephemeral key.
    pub client_key: X25519Public,
    /// The inner box.
    pub sealed: &'a [u8],
}

/// What a relay answers: the plaintext of the outer box on the way back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ForwardedResponse<'a> {
    /// The client's correlation id: up to 255 bytes.
    pub correlation: &'a [u8],
    /// The inner box.
    pub sealed: &'a [u8],
}

impl fmt::Debug for ForwardedCommand<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ForwardedCommand(version {}, {} bytes)", self.version, self.sealed.len())
    }
}

impl fmt::Debug for ForwardedResponse<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ForwardedResponse({} bytes)", self.sealed.len())
    }
}

/// The client seals a block content with one transmission, for the relay.
///
/// # Errors
/// [`BoxError::TooLong`] when the content has more than [`MAX_INNER_CONTENT`] bytes.
pub fn seal_command(
    provider: &dyn Provider,
    key: &BoxKey,
    correlation: &[u8],
    content: &[u8],
    out: &mut [u8; INNER_SEALED_LENGTH],
) -> Result<(), BoxError> {
    nacl_box::seal_padded(provider, key, &Nonce::from_id(correlation), content, out)
}

/// The relay opens what [`seal_command`] made, in place.
///
/// # Errors
/// [`BoxError::Forged`] or [`BoxError::NotPadded`]: the relay answers the proxy `ERR CRYPTO`.
pub fn open_command<'a>(
    provider: &dyn Provider,
    key: &BoxKey,
    correlation: &[u8],
    sealed: &'a mut [u8],
) -> Result<&'a mut [u8], BoxError> {
    nacl_box::open_padded(provider, key, &Nonce::from_id(correlation), sealed)
}

/// The relay seals a block content with one response, for the client.
///
/// # Errors
/// [`BoxError::TooLong`] when the content has more than [`MAX_INNER_CONTENT`] bytes.
pub fn seal_response(
    provider: &dyn Provider,
    key: &BoxKey,
    correlation: &[u8],
    content: &[u8],
    out: &mut [u8; INNER_SEALED_LENGTH],
) -> Result<(), BoxError> {
    nacl_box::seal_padded(provider, key, &Nonce::from_id(correlation).reversed(), content, out)
}

/// The client opens what [`seal_response`] made, in place.
///
/// # Errors
/// [`BoxError::Forged`] or [`BoxError::NotPadded`].
pub fn open_response<'a>(
    provider: &dyn Provider,
    key: &BoxKey,
    correlation: &[u8],
    sealed: &'a mut [u8],
) -> Result<&'a mut [u8], BoxError> {
    nacl_box::open_padded(provider, key, &Nonce::from_id(correlation).reversed(), sealed)
}

/// The proxy seals what it forwards to the relay: the parameter of `RFWD`.
///
/// # Errors
/// [`BoxError::TooLong`] when the correlation id has more than 255 bytes.
pub fn seal_forwarded_command(
    provider: &dyn Provider,
    key: &BoxKey,
    proxy_correlation: &[u8],
    command: &ForwardedCommand<'_>,
) -> Result<Vec<u8>, BoxError> {
    let mut out = start_forwarded(command.correlation, 3 + X25519_DER_LENGTH + command.sealed.len())?;
    out.extend_from_slice(&command.version.to_be_bytes());
    let client_key = command.client_key.to_der();
    out.push(u8::try_from(client_key.len()).map_err(|_| BoxError::TooLong)?);
    out.extend_from_slice(&client_key);
    out.extend_from_slice(command.sealed);
    nacl_box::seal(provider, key, &Nonce::from_id(proxy_correlation), &mut out)?;
    Ok(out)
}

/// The relay opens what [`seal_forwarded_command`] made, in place; read it with [`ForwardedCommand::parse`].
///
/// # Errors
/// [`BoxError::Forged`]: the relay answers `ERR CRYPTO`.
pub fn open_forwarded_command<'a>(
    provider: &dyn Provider,
    key: &BoxKey,
    proxy_correlation: &[u8],
    sealed: &'a mut [u8],
) -> Result<&'a mut [u8], BoxError> {
    nacl_box::open(provider, key, &Nonce::from_id(proxy_correlation), sealed)
}

/// The relay seals what it answers to the proxy: the parameter of `RRES`.
///
/// # Errors
/// [`BoxError::TooLong`] when the correlation id has more than 255 bytes.
pub fn seal_forwarded_response(
    provider: &dyn Provider,
    key: &BoxKey,
    proxy_correlation: &[u8],
    response: &ForwardedResponse<'_>,
) -> Result<Vec<u8>, BoxError> {
    let mut out = start_forwarded(response.correlation, response.sealed.len())?;
    out.extend_from_slice(response.sealed);
    nacl_box::seal(provider, key, &Nonce::from_id(proxy_correlation).reversed(), &mut out)?;
    Ok(out)
}

/// The proxy opens what [`seal_forwarded_response`] made, in place; read it with [`ForwardedResponse::parse`].
///
/// # Errors
/// [`BoxError::Forged`].
pub fn open_forwarded_response<'a>(
    provider: &dyn Provider,
    key: &BoxKey,
    proxy_correlation: &[u8],
    sealed: &'a mut [u8],
) -> Result<&'a mut [u8], BoxError> {
    nacl_box::open(provider, key, &Nonce::from_id(proxy_correlation).reversed(), sealed)
}

/// Room for the tag, and the client's correlation id.
fn start_forwarded(correlation: &[u8], rest: usize) -> Result<Vec<u8>, BoxError> {
    let length = u8::try_from(correlation.len()).map_err(|_| BoxError::TooLong)?;
    let mut out = Vec::with_capacity(TAG_LENGTH + 1 + correlation.len() + rest);
    out.resize(TAG_LENGTH, 0);
    out.push(length);
    out.extend_from_slice(correlation);
    Ok(out)
}

fn short(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(length))
}

impl<'a> ForwardedCommand<'a> {
    /// Reads the plaintext of the outer box; `None` (the relay answers `ERR CMD SYNTAX`) when it has another form.
    #[must_use]
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let (correlation, rest) = short(text)?;
        let (version, rest) = rest.split_first_chunk::<2>()?;
        let (client_key, sealed) = short(rest)?;
        let client_key = X25519Public::from_der(client_key).ok()?;
        Some(Self { correlation, version: u16::from_be_bytes(*version), client_key, sealed })
    }
}

impl<'a> ForwardedResponse<'a> {
    /// Reads the plaintext of the outer box; `None` when it has another form.
    #[must_use]
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let (correlation, sealed) = short(text)?;
        Some(Self { correlation, sealed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Portable;

    #[test]
    fn forwarded_commands_and_responses_come_back_and_are_not_confused() {
        let key = BoxKey::from_symmetric(&[1; 32]);
        let command = ForwardedCommand {
            correlation: &[2; 24],
            version: 9,
            client_key: X25519Public([3; 32]),
            sealed: b"inner box",
        };
        let sealed = seal_forwarded_command(&Portable, &key, &[4; 24], &command).unwrap_or_default();
        let text =
            open_forwarded_command(&Portable, &key, &[4; 24], &mut sealed.clone()).map(|text| text.to_vec());
        assert_eq!(text.as_deref().map(ForwardedCommand::parse), Ok(Some(command)));
        for length in 0..text.as_ref().map_or(0, Vec::len) - command.sealed.len() {
            assert_eq!(text.as_ref().ok().and_then(|text| ForwardedCommand::parse(&text[..length])), None);
        }

        let response = ForwardedResponse { correlation: b"", sealed: b"inner box" };
        let correlation: [u8; 24] = core::array::from_fn(|index| index as u8);
        let mut sealed =
            seal_forwarded_response(&Portable, &key, &correlation, &response).unwrap_or_default();
        let as_command =
            open_forwarded_command(&Portable, &key, &correlation, &mut sealed.clone()).map(|_| ());
        assert_eq!(as_command, Err(BoxError::Forged));
        let text = open_forwarded_response(&Portable, &key, &correlation, &mut sealed);
        assert_eq!(text.map(|text| ForwardedResponse::parse(text)), Ok(Some(response)));
        assert_eq!(ForwardedResponse::parse(&[2, 0]), None);

        let long = ForwardedResponse { correlation: &[0; 256], sealed: b"" };
        assert_eq!(seal_forwarded_response(&Portable, &key, &[4; 24], &long), Err(BoxError::TooLong));
    }

    #[test]
    fn inner_boxes_come_back_up_to_the_largest_content() {
        let key = BoxKey::from_symmetric(&[1; 32]);
        let correlation: [u8; 24] = core::array::from_fn(|index| index as u8);
        let mut out = [0; INNER_SEALED_LENGTH];
        for content in [&b""[..], &[7; MAX_INNER_CONTENT]] {
            assert_eq!(seal_command(&Portable, &key, &correlation, content, &mut out), Ok(()));
            assert_eq!(open_response(&Portable, &key, &correlation, &mut out.clone()), Err(BoxError::Forged));
            assert_eq!(open_command(&Portable, &key, &correlation, &mut out).as_deref(), Ok(content));
            assert_eq!(seal_response(&Portable, &key, &correlation, content, &mut out), Ok(()));
            assert_eq!(open_response(&Portable, &key, &correlation, &mut out).as_deref(), Ok(content));
        }
        let too_long = [7; MAX_INNER_CONTENT + 1];
        assert_eq!(seal_command(&Portable, &key, &correlation, &too_long, &mut out), Err(BoxError::TooLong));
    }
}
