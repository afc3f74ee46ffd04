//! The fast provider gives what the portable one gives, for all inputs.
#![allow(missing_docs)]

use proptest::collection::vec;
use proptest::prelude::*;
use smp_proto::crypto::chain_keys::{ChainKey, MAX_ENCRYPTED_CONTENT};
use smp_proto::crypto::{BoxKey, Ed25519Check, Nonce, Portable, Provider, authenticator};
use smp_proto::keys::{Ed25519Public, Ed25519Secret, X25519Public, X25519Secret};
use smp_runtime_std::fast_cryptography::Fast;

/// Text lengths around the places where vector code switches, and the lengths of SMP.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![
        0_usize..200,
        200_usize..2_000,
        prop::sample::select(vec![255, 256, 257, 511, 512, 513, 1_023, 1_024, 1_025, 16_106, 16_226, 16_368])
    ];
    length.prop_flat_map(|length| vec(any::<u8>(), length))
}

/// A message in up to four parts.
fn parts() -> impl Strategy<Value = Vec<Vec<u8>>> {
    vec(vec(any::<u8>(), 0..300), 0..4)
}

fn borrowed(parts: &[Vec<u8>]) -> Vec<&[u8]> {
    parts.iter().map(Vec::as_slice).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn boxes_are_the_same_and_open_crosswise(key: [u8; 32], nonce: [u8; 24], text in text(), change: prop::sample::Index) {
        let (key, nonce) = (BoxKey::from_symmetric(&key), Nonce(nonce));
        let (mut portable, mut fast) = (text.clone(), text.clone());
        let tag = Portable.box_seal(&key, &nonce, &mut portable);
        prop_assert_eq!(tag, Fast.box_seal(&key, &nonce, &mut fast));
        prop_assert_eq!(&portable, &fast);
        let mut changed_tag = tag;
        changed_tag[change.index(16)] ^= 1;
        prop_assert!(Fast.box_open(&key, &nonce, &changed_tag, &mut fast.clone()).is_err());
        if !text.is_empty() {
            let mut changed = fast.clone();
            changed[change.index(text.len())] ^= 0x20;
            prop_assert!(Fast.box_open(&key, &nonce, &tag, &mut changed.clone()).is_err());
            prop_assert!(Portable.box_open(&key, &nonce, &tag, &mut changed).is_err());
        }
        prop_assert!(Fast.box_open(&key, &nonce, &tag, &mut portable).is_ok());
        prop_assert!(Portable.box_open(&key, &nonce, &tag, &mut fast).is_ok());
        prop_assert_eq!(&portable, &text);
        prop_assert_eq!(&fast, &text);
    }

    #[test]
    fn shared_secrets_are_the_same(secret: [u8; 32], public: [u8; 32]) {
        let (secret, public) = (X25519Secret::from_bytes(secret), X25519Public(public));
        prop_assert_eq!(Fast.x25519(&secret, &public), Portable.x25519(&secret, &public));
        prop_assert_eq!(Fast.x25519_public(&secret), Portable.x25519_public(&secret));
    }

    #[test]
    fn digests_and_derived_keys_are_the_same(parts in parts(), salt in vec(any::<u8>(), 0..200), length in 0_usize..300) {
        let parts = borrowed(&parts);
        prop_assert_eq!(Fast.sha512(&parts), Portable.sha512(&parts));
        let input = parts.concat();
        let (mut fast, mut portable) = (vec![1; length], vec![2; length]);
        Fast.hkdf_sha512(&salt, &input, b"info", &mut fast);
        Portable.hkdf_sha512(&salt, &input, b"info", &mut portable);
        prop_assert_eq!(fast, portable);
    }

    #[test]
    fn signatures_are_the_same_and_verify_crosswise(
        secret: [u8; 32], parts in parts(), change: prop::sample::Index, bit in 0_u8..8
    ) {
        let secret = Ed25519Secret::from_bytes(secret);
        let parts = borrowed(&parts);
        let key = Portable.ed25519_public(&secret);
        prop_assert_eq!(Fast.ed25519_public(&secret), key);
        let signature = Portable.ed25519_sign(&secret, &parts);
        prop_assert_eq!(Fast.ed25519_sign(&secret, &parts), signature);
        prop_assert!(Fast.ed25519_verify(&key, &parts, &signature));
        prop_assert!(Portable.ed25519_verify(&key, &[&parts.concat()], &signature));
        let mut changed = signature;
        changed[change.index(64)] ^= 1 << bit;
        prop_assert!(!Fast.ed25519_verify(&key, &parts, &changed));
        prop_assert!(!Portable.ed25519_verify(&key, &parts, &changed));
        let mut other = key;
        other.0[change.index(32)] ^= 1 << bit;
        prop_assert!(!Fast.ed25519_verify(&other, &parts, &signature));
        prop_assert!(!Portable.ed25519_verify(&other, &parts, &signature));
    }

    #[test]
    fn batches_find_the_same_bad_signatures(
        seeds in vec(any::<[u8; 32]>(), 0..12), bad in vec(any::<bool>(), 12), message in vec(any::<u8>(), 0..100)
    ) {
        let message: [&[u8]; 1] = [&message];
        let signed: Vec<_> = seeds
            .iter()
            .zip(&bad)
            .map(|(seed, bad)| {
                let secret = Ed25519Secret::from_bytes(*seed);
                let mut signature = Portable.ed25519_sign(&secret, &message);
                signature[40] ^= u8::from(*bad);
                (Portable.ed25519_public(&secret), signature)
            })
            .collect();
        for provider in [&Portable as &dyn Provider, &Fast] {
            let mut checks: Vec<_> = signed
                .iter()
                .map(|(key, signature)| Ed25519Check { key: *key, message: &message, signature, valid: false })
                .collect();
            provider.ed25519_verify_batch(&mut checks);
            for (check, bad) in checks.iter().zip(&bad) {
                prop_assert_eq!(check.valid, !bad);
            }
        }
    }

    #[test]
    fn authenticators_and_blocks_are_the_same(
        secret: [u8; 32], chain: [u8; 32], correlation in vec(any::<u8>(), 0..40), parts in parts(), length in 0..=MAX_ENCRYPTED_CONTENT
    ) {
        let key = BoxKey::from_symmetric(&secret);
        let parts = borrowed(&parts);
        let made = authenticator::create(&Fast, &key, &correlation, &parts);
        prop_assert!(authenticator::verify(&Portable, &key, &correlation, &parts, &made));

        let (mut fast, mut portable) = (ChainKey::from_bytes(chain), ChainKey::from_bytes(chain));
        let (mut fast_block, mut portable_block) = ([7; 16_384], [7; 16_384]);
        for _ in 0..2 {
            prop_assert!(fast.seal_block(&Fast, &mut fast_block, length).is_ok());
            prop_assert!(portable.seal_block(&Portable, &mut portable_block, length).is_ok());
            prop_assert_eq!(&fast_block[..], &portable_block[..]);
        }
    }
}

/// Points of small order and encodings that are not reduced: no panic, no error, the same secret.
#[test]
fn odd_x25519_keys_give_the_same_secret() {
    let secret = X25519Secret::from_bytes([7; 32]);
    let mut keys = vec![[0; 32], [0xFF; 32]];
    for low in [0x01, 0xEC, 0xED, 0xEE, 0xDA] {
        for (middle, high) in [(0, 0), (0xFF, 0x7F), (0xFF, 0xFF), (0, 0x80)] {
            let mut key = [middle; 32];
            (key[0], key[31]) = (low, high);
            keys.push(key);
        }
    }
    for key in keys {
        let key = X25519Public(key);
        assert_eq!(Fast.x25519(&secret, &key).as_bytes(), Portable.x25519(&secret, &key).as_bytes());
    }
    assert_eq!(Fast.x25519(&secret, &X25519Public([0; 32])).as_bytes(), &[0; 32]);
}

/// Keys that are no points, and signatures whose scalar is not reduced, verify nothing; nothing panics.
#[test]
fn malformed_ed25519_keys_and_signatures_are_refused() {
    let secret = Ed25519Secret::from_bytes([1; 32]);
    let key = Portable.ed25519_public(&secret);
    let mut unreduced = Portable.ed25519_sign(&secret, &[b"text"]);
    // Adds the order of the group to the scalar: the same equation, but not the one encoding.
    let order: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = false;
    for (byte, addend) in unreduced[32..].iter_mut().zip(order) {
        let (sum, overflow) = byte.overflowing_add(addend);
        let (sum, further) = sum.overflowing_add(u8::from(carry));
        (*byte, carry) = (sum, overflow || further);
    }
    assert!(!carry, "the sum fits 32 bytes");
    for provider in [&Portable as &dyn Provider, &Fast] {
        assert!(!provider.ed25519_verify(&key, &[b"text"], &unreduced));
        for byte in [0, 1, 2, 0x7F, 0x80, 0xFF] {
            let _ = provider.ed25519_verify(&Ed25519Public([byte; 32]), &[b"text"], &[byte; 64]);
        }
    }
}
