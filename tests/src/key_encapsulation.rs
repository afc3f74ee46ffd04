//! Providers with a key encapsulation, for tests of the ratchet: the project has no sntrup761 yet.

use smp_proto::crypto::key_encapsulation::{
    KEM_CIPHERTEXT_LENGTH, KEM_KEY_LENGTH, KEM_SECRET_LENGTH, KemCiphertext, KemKeyPair, KemSecret,
    KemShared, KeyEncapsulation,
};
use smp_proto::crypto::provider::ED25519_SIGNATURE_LENGTH;
use smp_proto::crypto::{BoxKey, Forged, Nonce, Provider, SharedSecret, TAG_LENGTH};
use smp_proto::entropy::Entropy;
use smp_proto::keys::{Ed25519Public, Ed25519Secret, X25519Public, X25519Secret};

/// A provider, with this key encapsulation.
pub struct WithKem<'a, K>(pub &'a dyn Provider, pub K);

impl<K: KeyEncapsulation> Provider for WithKem<'_, K> {
    fn x25519(&self, secret: &X25519Secret, public: &X25519Public) -> SharedSecret {
        self.0.x25519(secret, public)
    }

    fn x25519_public(&self, secret: &X25519Secret) -> X25519Public {
        self.0.x25519_public(secret)
    }

    fn box_seal(&self, key: &BoxKey, nonce: &Nonce, text: &mut [u8]) -> [u8; TAG_LENGTH] {
        self.0.box_seal(key, nonce, text)
    }

    fn box_open(
        &self,
        key: &BoxKey,
        nonce: &Nonce,
        tag: &[u8; TAG_LENGTH],
        text: &mut [u8],
    ) -> Result<(), Forged> {
        self.0.box_open(key, nonce, tag, text)
    }

    fn sha512(&self, parts: &[&[u8]]) -> [u8; 64] {
        self.0.sha512(parts)
    }

    fn hkdf_sha512(&self, salt: &[u8], input: &[u8], info: &[u8], output: &mut [u8]) {
        self.0.hkdf_sha512(salt, input, info, output);
    }

    fn ed25519_public(&self, secret: &Ed25519Secret) -> Ed25519Public {
        self.0.ed25519_public(secret)
    }

    fn ed25519_sign(&self, secret: &Ed25519Secret, message: &[&[u8]]) -> [u8; ED25519_SIGNATURE_LENGTH] {
        self.0.ed25519_sign(secret, message)
    }

    fn ed25519_verify(
        &self,
        key: &Ed25519Public,
        message: &[&[u8]],
        signature: &[u8; ED25519_SIGNATURE_LENGTH],
    ) -> bool {
        self.0.ed25519_verify(key, message, signature)
    }

    fn key_encapsulation(&self) -> Option<&dyn KeyEncapsulation> {
        Some(&self.1)
    }
}

/// No encryption at all, but the interface of one: what is encapsulated to one key gives another secret with another key.
#[derive(Clone, Copy, Debug, Default)]
pub struct ToyKem;

impl KeyEncapsulation for ToyKem {
    fn generate(&self, entropy: &mut dyn Entropy) -> KemKeyPair {
        let mut secret = Box::new([0; KEM_SECRET_LENGTH]);
        entropy.fill_secret(secret.as_mut_slice());
        let mut public = Box::new([0; KEM_KEY_LENGTH]);
        public.copy_from_slice(&secret[..KEM_KEY_LENGTH]);
        KemKeyPair { public, secret: KemSecret::from_bytes(secret) }
    }

    fn encapsulate(
        &self,
        entropy: &mut dyn Entropy,
        key: &[u8; KEM_KEY_LENGTH],
    ) -> (KemCiphertext, KemShared) {
        let mut ciphertext = Box::new([0; KEM_CIPHERTEXT_LENGTH]);
        entropy.fill_secret(ciphertext.as_mut_slice());
        let shared = mix(&ciphertext, key);
        (ciphertext, shared)
    }

    fn decapsulate(&self, secret: &KemSecret, ciphertext: &[u8; KEM_CIPHERTEXT_LENGTH]) -> KemShared {
        mix(ciphertext, &secret.as_bytes()[..KEM_KEY_LENGTH])
    }
}

fn mix(ciphertext: &[u8; KEM_CIPHERTEXT_LENGTH], key: &[u8]) -> KemShared {
    let mut shared = KemShared::default();
    for (place, byte) in ciphertext.iter().zip(key).enumerate() {
        shared[place % 32] ^= byte.0 ^ byte.1.rotate_left(3);
    }
    shared
}
