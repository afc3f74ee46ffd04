//! The primitives in pure Rust, for every target: RustCrypto and dalek.

use ed25519_dalek::ed25519::signature::{MultipartSigner, MultipartVerifier};
use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use hkdf::Hkdf;
use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit;
use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit, StreamCipher};
use sha2::{Digest, Sha512};
use subtle::ConstantTimeEq;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::nacl_box::{BoxKey, SharedSecret, TAG_LENGTH};
use super::nonce::Nonce;
use super::provider::{ED25519_SIGNATURE_LENGTH, Forged, Provider};
use crate::keys::{Ed25519Public, Ed25519Secret, X25519Public, X25519Secret};

/// The provider that runs everywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Portable;

/// A cipher that has given its first 32 bytes of keystream away as the key of the authenticator.
fn start_box(key: &BoxKey, nonce: &Nonce) -> (XSalsa20, Poly1305) {
    let mut cipher = XSalsa20::new(key.as_bytes().into(), (&nonce.0).into());
    let mut one_time_key = Zeroizing::new([0; poly1305::KEY_SIZE]);
    cipher.apply_keystream(one_time_key.as_mut_slice());
    let authenticator = Poly1305::new((&*one_time_key).into());
    (cipher, authenticator)
}

impl Provider for Portable {
    fn x25519(&self, secret: &X25519Secret, public: &X25519Public) -> SharedSecret {
        let shared = StaticSecret::from(*secret.as_bytes()).diffie_hellman(&PublicKey::from(public.0));
        SharedSecret::from_bytes(*shared.as_bytes())
    }

    fn x25519_public(&self, secret: &X25519Secret) -> X25519Public {
        X25519Public(PublicKey::from(&StaticSecret::from(*secret.as_bytes())).to_bytes())
    }

    fn box_seal(&self, key: &BoxKey, nonce: &Nonce, text: &mut [u8]) -> [u8; TAG_LENGTH] {
        let (mut cipher, authenticator) = start_box(key, nonce);
        cipher.apply_keystream(text);
        authenticator.compute_unpadded(text).into()
    }

    fn box_open(
        &self,
        key: &BoxKey,
        nonce: &Nonce,
        tag: &[u8; TAG_LENGTH],
        text: &mut [u8],
    ) -> Result<(), Forged> {
        let (mut cipher, authenticator) = start_box(key, nonce);
        if !bool::from(authenticator.compute_unpadded(text).as_slice().ct_eq(tag)) {
            return Err(Forged);
        }
        cipher.apply_keystream(text);
        Ok(())
    }

    fn sha512(&self, parts: &[&[u8]]) -> [u8; 64] {
        let mut digest = Sha512::new();
        for part in parts {
            digest.update(part);
        }
        digest.finalize().into()
    }

    fn hkdf_sha512(&self, salt: &[u8], input: &[u8], info: &[u8], output: &mut [u8]) {
        if Hkdf::<Sha512>::new(Some(salt), input).expand(info, output).is_err() {
            output.fill(0);
        }
    }

    fn ed25519_public(&self, secret: &Ed25519Secret) -> Ed25519Public {
        Ed25519Public(SigningKey::from_bytes(secret.as_bytes()).verifying_key().to_bytes())
    }

    fn ed25519_sign(&self, secret: &Ed25519Secret, message: &[&[u8]]) -> [u8; ED25519_SIGNATURE_LENGTH] {
        SigningKey::from_bytes(secret.as_bytes()).multipart_sign(message).to_bytes()
    }

    fn ed25519_verify(
        &self,
        key: &Ed25519Public,
        message: &[&[u8]],
        signature: &[u8; ED25519_SIGNATURE_LENGTH],
    ) -> bool {
        VerifyingKey::from_bytes(&key.0)
            .is_ok_and(|key| key.multipart_verify(message, &Signature::from_bytes(signature)).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::provider::{MAX_HKDF_OUTPUT, derive};
    use alloc::vec;

    #[test]
    fn hkdf_fills_up_to_its_limit_and_derives_nothing_beyond() {
        let mut output = vec![7; MAX_HKDF_OUTPUT];
        Portable.hkdf_sha512(b"", b"input", b"info", &mut output);
        assert_eq!(output[..40], *derive::<40>(&Portable, b"", b"input", b"info"));
        assert!(output[MAX_HKDF_OUTPUT - 64..].iter().any(|&byte| byte != 7 && byte != 0));
        output.push(7);
        Portable.hkdf_sha512(b"", b"input", b"info", &mut output);
        assert!(output.iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_message_in_parts_is_the_message_in_one_piece() {
        let secret = Ed25519Secret::from_bytes([1; 32]);
        let (whole, parts): ([&[u8]; 1], [&[u8]; 3]) = ([b"one message"], [b"one", b"", b" message"]);
        assert_eq!(Portable.sha512(&whole), Portable.sha512(&parts));
        let signature = Portable.ed25519_sign(&secret, &whole);
        assert_eq!(signature, Portable.ed25519_sign(&secret, &parts));
        assert!(Portable.ed25519_verify(&Portable.ed25519_public(&secret), &parts, &signature));
    }
}
