//! Sealing commands for a relay that is not there yet: forwarding keys (EXTENSIONS, First-step relay).
//!
//! A session's key dies with its connection, so what is sealed for it cannot be held. A relay therefore publishes a
//! *forwarding key*: X25519, for some days, signed with the key of its leaf certificate over number, end and key. A client
//! seals each command under an ephemeral key of its own: `x25519(ephemeral, forwarding)` goes through HKDF with both public
//! keys and the number, and gives a key and a nonce for the command, and another pair for the answer. Each is used for
//! one text, so no nonce travels.
//!
//! Commands inside are authorized as if the forwarding key were a session: its name ([`session_name`]) stands in place of
//! the session id, and it is the relay's key for authenticators.

use super::nacl_box::{self, BoxError, BoxKey};
use super::nonce::Nonce;
use super::provider::{Provider, derive};
use super::signatures;
use crate::keys::{SignatureKey, X25519Public, X25519Secret};
use crate::wire::first_step::{PADDED_LENGTH, RelayNumber, SEALED_LENGTH};
use sha2::{Digest, Sha256};

/// The longest content that fits: 16,224 bytes, as in the deployed proxy protocol.
pub const MAX_CONTENT: usize = PADDED_LENGTH - 2;

/// What goes in front of what is signed, so that no other signature of the relay can be taken for it.
const SIGNED_CONTEXT: &[u8; 28] = b"smp-proxy/1 forwarding key\n\0";
const KEY_INFO: &[u8] = b"smp-proxy/1 forward";
const NAME_CONTEXT: &[u8] = b"smp-proxy/1 session";

/// The length of what is signed: 72 bytes.
pub const SIGNED_LENGTH: usize = SIGNED_CONTEXT.len() + 4 + 8 + 32;

/// What the leaf's key signs: context, number, end, key.
#[must_use]
pub fn signed_text(number: RelayNumber, until: i64, key: &X25519Public) -> [u8; SIGNED_LENGTH] {
    let mut text = [0; SIGNED_LENGTH];
    let parts: [&[u8]; 4] = [SIGNED_CONTEXT, &number.0.to_be_bytes(), &until.to_be_bytes(), &key.0];
    let bytes = parts.into_iter().flatten();
    text.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    text
}

/// Whether `signer` published this key.
#[must_use]
pub fn is_published(
    provider: &dyn Provider,
    signer: &SignatureKey,
    number: RelayNumber,
    until: i64,
    key: &X25519Public,
    signature: &[u8],
) -> bool {
    signatures::verify(provider, signer, &[&signed_text(number, until, key)], signature)
}

/// What stands in place of the session id in commands that are sealed for this key: 32 bytes.
#[must_use]
pub fn session_name(number: RelayNumber, key: &X25519Public) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(NAME_CONTEXT);
    digest.update(number.0.to_be_bytes());
    digest.update(key.0);
    digest.finalize().into()
}

/// The keys of one command and its answer. Wiped on drop.
pub struct ForwardKeys {
    command: (BoxKey, Nonce),
    answer: (BoxKey, Nonce),
}

impl core::fmt::Debug for ForwardKeys {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("ForwardKeys(..)")
    }
}

impl ForwardKeys {
    /// The client's: from its ephemeral secret. Costs one X25519.
    #[must_use]
    pub fn of_client(
        provider: &dyn Provider,
        ephemeral: &X25519Secret,
        number: RelayNumber,
        key: &X25519Public,
    ) -> Self {
        let public = provider.x25519_public(ephemeral);
        Self::derived(provider, &provider.x25519(ephemeral, key), number, &public, key)
    }

    /// The relay's: from the secret of its forwarding key. Costs one X25519, and another for the public key.
    #[must_use]
    pub fn of_relay(
        provider: &dyn Provider,
        secret: &X25519Secret,
        number: RelayNumber,
        ephemeral: &X25519Public,
    ) -> Self {
        Self::of_key_pair(provider, secret, &provider.x25519_public(secret), number, ephemeral)
    }

    /// The relay's, when it knows the public key of its forwarding key's secret: costs one X25519.
    #[must_use]
    pub fn of_key_pair(
        provider: &dyn Provider,
        secret: &X25519Secret,
        key: &X25519Public,
        number: RelayNumber,
        ephemeral: &X25519Public,
    ) -> Self {
        Self::derived(provider, &provider.x25519(secret, ephemeral), number, ephemeral, key)
    }

    fn derived(
        provider: &dyn Provider,
        shared: &nacl_box::SharedSecret,
        number: RelayNumber,
        ephemeral: &X25519Public,
        key: &X25519Public,
    ) -> Self {
        let mut salt = [0; 68];
        let number = number.0.to_be_bytes();
        let parts = number.iter().chain(&ephemeral.0).chain(&key.0);
        salt.iter_mut().zip(parts).for_each(|(to, from)| *to = *from);
        let derived = derive::<112>(provider, &salt, shared.as_bytes(), KEY_INFO);
        let pair = |start: usize| {
            let mut key = zeroize::Zeroizing::new([0; 32]);
            let mut nonce = [0; 24];
            let bytes = derived.iter().skip(start);
            key.iter_mut().chain(&mut nonce).zip(bytes).for_each(|(to, from)| *to = *from);
            (BoxKey::from_symmetric(&key), Nonce(nonce))
        };
        Self { command: pair(0), answer: pair(56) }
    }

    /// The client seals a command: a batch of one transmission.
    ///
    /// # Errors
    /// [`BoxError::TooLong`] for more than [`MAX_CONTENT`] bytes.
    pub fn seal_command(
        &self,
        provider: &dyn Provider,
        content: &[u8],
        out: &mut [u8; SEALED_LENGTH],
    ) -> Result<(), BoxError> {
        nacl_box::seal_padded(provider, &self.command.0, &self.command.1, content, out)
    }

    /// The relay opens it, in place.
    ///
    /// # Errors
    /// [`BoxError::Forged`], [`BoxError::NotPadded`].
    pub fn open_command<'a>(
        &self,
        provider: &dyn Provider,
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], BoxError> {
        nacl_box::open_padded(provider, &self.command.0, &self.command.1, sealed)
    }

    /// The relay seals the answer. Only one answer may ever be given to one command.
    ///
    /// # Errors
    /// [`BoxError::TooLong`] for more than [`MAX_CONTENT`] bytes.
    pub fn seal_answer(
        &self,
        provider: &dyn Provider,
        content: &[u8],
        out: &mut [u8; SEALED_LENGTH],
    ) -> Result<(), BoxError> {
        nacl_box::seal_padded(provider, &self.answer.0, &self.answer.1, content, out)
    }

    /// The same where the content stands already: `sealed` has [`SEALED_LENGTH`] bytes, and the content is in them after
    /// 16 bytes of room for the tag and 2 for its length.
    ///
    /// # Errors
    /// [`BoxError::TooLong`] for more than [`MAX_CONTENT`] bytes, or when `sealed` has another length.
    pub fn seal_answer_in_place(
        &self,
        provider: &dyn Provider,
        sealed: &mut [u8],
        length: usize,
    ) -> Result<(), BoxError> {
        if sealed.len() != SEALED_LENGTH {
            return Err(BoxError::TooLong);
        }
        nacl_box::seal_padded_in_place(provider, &self.answer.0, &self.answer.1, sealed, length)
    }

    /// The client opens it, in place.
    ///
    /// # Errors
    /// [`BoxError::Forged`], [`BoxError::NotPadded`].
    pub fn open_answer<'a>(
        &self,
        provider: &dyn Provider,
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], BoxError> {
        nacl_box::open_padded(provider, &self.answer.0, &self.answer.1, sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Portable;
    use crate::keys::{Ed25519Secret, SigningKey};
    use alloc::vec;

    const NUMBER: RelayNumber = RelayNumber(7);

    fn keys() -> (ForwardKeys, ForwardKeys) {
        let (ephemeral, secret) = (X25519Secret::from_bytes([1; 32]), X25519Secret::from_bytes([2; 32]));
        let (public, key) = (Portable.x25519_public(&ephemeral), Portable.x25519_public(&secret));
        (
            ForwardKeys::of_client(&Portable, &ephemeral, NUMBER, &key),
            ForwardKeys::of_relay(&Portable, &secret, NUMBER, &public),
        )
    }

    #[test]
    fn a_command_and_its_answer_are_opened_by_the_other_side_only_and_are_of_one_size() {
        let (client, relay) = keys();
        for length in [0, 1, MAX_CONTENT] {
            let content = vec![5; length];
            let mut sealed = [0; SEALED_LENGTH];
            client.seal_command(&Portable, &content, &mut sealed).unwrap();
            assert_eq!(relay.open_command(&Portable, &mut sealed.clone()).unwrap(), content);
            assert_eq!(relay.open_answer(&Portable, &mut sealed.clone()), Err(BoxError::Forged));
            let mut answer = [0; SEALED_LENGTH];
            relay.seal_answer(&Portable, &content, &mut answer).unwrap();
            assert_ne!(answer, sealed);
            assert_eq!(client.open_answer(&Portable, &mut answer.clone()).unwrap(), content);
            sealed[100] ^= 1;
            assert_eq!(relay.open_command(&Portable, &mut sealed), Err(BoxError::Forged));
        }
        let mut sealed = [0; SEALED_LENGTH];
        let too_long = vec![0; MAX_CONTENT + 1];
        assert_eq!(client.seal_command(&Portable, &too_long, &mut sealed), Err(BoxError::TooLong));
    }

    #[test]
    fn the_number_of_the_key_is_part_of_the_keys() {
        let (ephemeral, secret) = (X25519Secret::from_bytes([1; 32]), X25519Secret::from_bytes([2; 32]));
        let other =
            ForwardKeys::of_relay(&Portable, &secret, RelayNumber(8), &Portable.x25519_public(&ephemeral));
        let mut sealed = [0; SEALED_LENGTH];
        keys().0.seal_command(&Portable, b"x", &mut sealed).unwrap();
        assert_eq!(other.open_command(&Portable, &mut sealed), Err(BoxError::Forged));
    }

    #[test]
    fn a_published_key_is_the_relays_and_as_it_was_published() {
        let signer = SigningKey::Ed25519(Ed25519Secret::from_bytes([3; 32]));
        let public = signatures::public_key(&Portable, &signer);
        let key = X25519Public([4; 32]);
        let signature = signatures::sign(&Portable, &signer, &[&signed_text(NUMBER, 9, &key)]);
        let check = |number, until, key: &X25519Public, signer| {
            is_published(&Portable, signer, number, until, key, signature.as_bytes())
        };
        assert!(check(NUMBER, 9, &key, &public));
        assert!(!check(RelayNumber(8), 9, &key, &public));
        assert!(!check(NUMBER, 10, &key, &public));
        assert!(!check(NUMBER, 9, &X25519Public([5; 32]), &public));
        let other = SigningKey::Ed25519(Ed25519Secret::from_bytes([6; 32]));
        assert!(!check(NUMBER, 9, &key, &signatures::public_key(&Portable, &other)));
    }

    #[test]
    fn keys_have_names_of_their_own() {
        let key = X25519Public([4; 32]);
        assert_ne!(session_name(NUMBER, &key), session_name(RelayNumber(8), &key));
        assert_ne!(session_name(NUMBER, &key), session_name(NUMBER, &X25519Public([5; 32])));
    }

    #[test]
    fn sizes_are_those_of_the_deployed_proxy_protocol() {
        use crate::crypto::proxy_layers;
        assert_eq!(
            (PADDED_LENGTH, SEALED_LENGTH),
            (proxy_layers::INNER_PADDED_LENGTH, proxy_layers::INNER_SEALED_LENGTH)
        );
        assert_eq!(MAX_CONTENT, proxy_layers::MAX_INNER_CONTENT);
    }
}
