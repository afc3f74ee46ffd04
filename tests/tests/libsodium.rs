//! Both providers against libsodium, which shares no code with them: boxes, scalar multiplication, signatures, SHA-512.
#![allow(missing_docs)]

use libsodium_rs::{
    crypto_box, crypto_core::hsalsa20, crypto_hash, crypto_scalarmult, crypto_secretbox, crypto_sign,
};
use proptest::collection::vec;
use proptest::prelude::*;
use smp_proto::crypto::{
    BoxKey, Ed25519Check, Nonce, Portable, Provider, TAG_LENGTH, authenticator, nacl_box,
};
use smp_proto::keys::{Ed25519Public, Ed25519Secret, X25519Secret};
use smp_runtime_std::fast_cryptography::Fast;

const PROVIDERS: [&dyn Provider; 2] = [&Portable, &Fast];

/// A text of any length up to that of a padded block.
fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![0_usize..300, 300_usize..16_369].prop_flat_map(|length| vec(any::<u8>(), length))
}

fn seal(provider: &dyn Provider, key: &BoxKey, nonce: &Nonce, text: &[u8]) -> Vec<u8> {
    let mut sealed = [vec![0; TAG_LENGTH], text.to_vec()].concat();
    assert_eq!(nacl_box::seal(provider, key, nonce, &mut sealed), Ok(()));
    sealed
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_box_between_two_keys_is_crypto_box(ours: [u8; 32], theirs: [u8; 32], nonce: [u8; 24], text in text()) {
        let (secret, peer_secret) = (X25519Secret::from_bytes(ours), X25519Secret::from_bytes(theirs));
        let peer = Portable.x25519_public(&peer_secret);
        let sodium_nonce = crypto_box::Nonce::from_bytes_exact(nonce);
        let sodium_peer = crypto_box::PublicKey::from_bytes_exact(peer.0);
        let sodium_secret = crypto_box::SecretKey::from_bytes_exact(ours);
        let expected = crypto_box::seal(&text, &sodium_nonce, &sodium_peer, &sodium_secret)
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        let precomputed = crypto_box::beforenm(&sodium_peer, &sodium_secret)
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        for provider in PROVIDERS {
            let key = BoxKey::agree(provider, &secret, &peer);
            prop_assert_eq!(key.as_bytes(), precomputed.as_bytes());
            let mut sealed = seal(provider, &key, &Nonce(nonce), &text);
            prop_assert!(sealed == expected);
            prop_assert!(nacl_box::open(provider, &key, &Nonce(nonce), &mut sealed).is_ok_and(|opened| *opened == *text));
        }
    }

    #[test]
    fn a_box_under_a_symmetric_key_is_crypto_secretbox_after_hsalsa20(key: [u8; 32], nonce: [u8; 24], text in text()) {
        let derived = hsalsa20::hsalsa20(&[0; 16], &key, None).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let sodium_key =
            crypto_secretbox::Key::from_bytes(&derived).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let sodium_nonce = crypto_secretbox::Nonce::from_bytes(nonce);
        let expected = crypto_secretbox::seal(&text, &sodium_nonce, &sodium_key);
        let key = BoxKey::from_symmetric(&key);
        for provider in PROVIDERS {
            let sealed = seal(provider, &key, &Nonce(nonce), &text);
            prop_assert!(sealed == expected);
            let opened = crypto_secretbox::open(&sealed, &sodium_nonce, &sodium_key);
            prop_assert!(opened.is_ok_and(|opened| opened == text));
        }
    }

    #[test]
    fn shared_secrets_and_public_keys_are_scalar_multiplications(ours: [u8; 32], theirs: [u8; 32]) {
        let secret = X25519Secret::from_bytes(ours);
        let peer = Portable.x25519_public(&X25519Secret::from_bytes(theirs));
        let public = crypto_scalarmult::curve25519::scalarmult_base(&ours);
        let shared = crypto_scalarmult::curve25519::scalarmult(&ours, &peer.0);
        for provider in PROVIDERS {
            prop_assert_eq!(public.as_ref().ok(), Some(&provider.x25519_public(&secret).0));
            let ours = provider.x25519(&secret, &peer);
            prop_assert_eq!(shared.as_ref().ok(), Some(ours.as_bytes()));
        }
    }

    #[test]
    fn signatures_are_those_of_crypto_sign(seed: [u8; 32], text in vec(any::<u8>(), 0..500), change: prop::sample::Index) {
        let pair = crypto_sign::keypair_from_seed(&seed).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let (sodium_public, sodium_secret) = pair.into_tuple();
        let expected = crypto_sign::sign_detached(&text, &sodium_secret)
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        let secret = Ed25519Secret::from_bytes(seed);
        let key = Ed25519Public(*sodium_public.as_bytes());
        let (start, end) = text.split_at(text.len() / 2);
        let message = [start, end];
        let mut changed = expected;
        changed[change.index(64)] ^= 1;
        for provider in PROVIDERS {
            prop_assert_eq!(provider.ed25519_public(&secret), key);
            prop_assert_eq!(provider.ed25519_sign(&secret, &message), expected);
            let mut checks = [&expected, &changed, &expected, &expected]
                .map(|signature| Ed25519Check { key, message: &message, signature, valid: false });
            provider.ed25519_verify_batch(&mut checks);
            for check in &checks {
                let sodium_accepts = crypto_sign::verify_detached(check.signature, &text, &sodium_public);
                prop_assert_eq!(check.valid, sodium_accepts);
                prop_assert_eq!(provider.ed25519_verify(&key, &message, check.signature), sodium_accepts);
            }
        }
    }

    #[test]
    fn an_authenticator_is_the_box_of_a_digest(ours: [u8; 32], theirs: [u8; 32], nonce: [u8; 24], text in vec(any::<u8>(), 0..500)) {
        let peer = Portable.x25519_public(&X25519Secret::from_bytes(theirs));
        let digest = crypto_hash::hash_sha512(&text);
        let expected = crypto_box::seal(
            &digest,
            &crypto_box::Nonce::from_bytes_exact(nonce),
            &crypto_box::PublicKey::from_bytes_exact(peer.0),
            &crypto_box::SecretKey::from_bytes_exact(ours),
        )
        .map_err(|error| TestCaseError::fail(error.to_string()))?;
        for provider in PROVIDERS {
            prop_assert_eq!(provider.sha512(&[&text]), digest);
            let key = BoxKey::agree(provider, &X25519Secret::from_bytes(ours), &peer);
            prop_assert_eq!(&authenticator::create(provider, &key, &nonce, &[&text])[..], &expected[..]);
        }
    }
}
