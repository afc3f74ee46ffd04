//! The fast primitives of the runtimes: [`Fast`], a [`Provider`] over dryoc and aws-lc-rs.
//!
//! Owns no construction and no key: it only does what [`Portable`] does, sooner; the outputs are the same, which is tested.
//! No `unsafe` here; it is inside the two crates. Each method takes what was measured fastest (`cargo bench -p
//! smp-runtime-std --bench primitives`, µs on a noisy 2-core machine):
//!
//! | primitive | portable | fast | by |
//! |---|---|---|---|
//! | box of 16 KiB | 35 | 9.5 | dryoc |
//! | box of 64 bytes | 2.0 | 0.4 | dryoc |
//! | X25519 shared secret | 63 | 37 | aws-lc-rs |
//! | X25519 or Ed25519 public key | 20 | 9 | aws-lc-rs |
//! | Ed25519 signature | 42 | 19 | aws-lc-rs |
//! | Ed25519 verification | 43; 25 in a batch of 64 | the same | aws-lc-rs took 42 to 60 |
//! | SHA-512 of 16 KiB, HKDF-SHA512 | 32, 2.8 | the same | aws-lc-rs took 32, 3.1 |

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use dryoc::classic::crypto_box::{
    crypto_box_detached_afternm_inplace, crypto_box_open_detached_afternm_inplace,
};
use smp_proto::crypto::provider::ED25519_SIGNATURE_LENGTH;
use smp_proto::crypto::{BoxKey, Forged, Nonce, Portable, Provider, SharedSecret, TAG_LENGTH};
use smp_proto::keys::{Ed25519Public, Ed25519Secret, X25519Public, X25519Secret};
use zeroize::Zeroize;

/// The provider that machines of the runtimes hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fast;

/// [`Fast`], as machines take it.
pub static FAST: Fast = Fast;

impl Provider for Fast {
    fn x25519(&self, secret: &X25519Secret, public: &X25519Public) -> SharedSecret {
        let Ok(key) = PrivateKey::from_private_key(&agreement::X25519, secret.as_bytes()) else {
            return Portable.x25519(secret, public);
        };
        let peer = UnparsedPublicKey::new(&agreement::X25519, &public.0);
        let shared = agreement::agree(&key, peer, (), |shared| {
            let mut bytes: [u8; 32] = shared.try_into().map_err(|_| ())?;
            let secret = SharedSecret::from_bytes(bytes);
            bytes.zeroize();
            Ok(secret)
        });
        // aws-lc refuses a shared secret of zeros, which SMP takes as it is.
        shared.unwrap_or_else(|()| Portable.x25519(secret, public))
    }

    fn x25519_public(&self, secret: &X25519Secret) -> X25519Public {
        let key = PrivateKey::from_private_key(&agreement::X25519, secret.as_bytes());
        let public = key.ok().and_then(|key| key.compute_public_key().ok());
        match public.map(|public| public.as_ref().try_into()) {
            Some(Ok(bytes)) => X25519Public(bytes),
            _ => Portable.x25519_public(secret),
        }
    }

    fn box_seal(&self, key: &BoxKey, nonce: &Nonce, text: &mut [u8]) -> [u8; TAG_LENGTH] {
        let mut tag = [0; TAG_LENGTH];
        crypto_box_detached_afternm_inplace(text, &mut tag, &nonce.0, key.as_bytes());
        tag
    }

    fn box_open(
        &self,
        key: &BoxKey,
        nonce: &Nonce,
        tag: &[u8; TAG_LENGTH],
        text: &mut [u8],
    ) -> Result<(), Forged> {
        crypto_box_open_detached_afternm_inplace(text, tag, &nonce.0, key.as_bytes()).map_err(|_| Forged)
    }

    fn sha512(&self, parts: &[&[u8]]) -> [u8; 64] {
        Portable.sha512(parts)
    }

    fn hkdf_sha512(&self, salt: &[u8], input: &[u8], info: &[u8], output: &mut [u8]) {
        Portable.hkdf_sha512(salt, input, info, output);
    }

    fn ed25519_public(&self, secret: &Ed25519Secret) -> Ed25519Public {
        let key = Ed25519KeyPair::from_seed_unchecked(secret.as_bytes());
        match key.map(|key| key.public_key().as_ref().try_into()) {
            Ok(Ok(bytes)) => Ed25519Public(bytes),
            _ => Portable.ed25519_public(secret),
        }
    }

    fn ed25519_sign(&self, secret: &Ed25519Secret, message: &[&[u8]]) -> [u8; ED25519_SIGNATURE_LENGTH] {
        let Ok(key) = Ed25519KeyPair::from_seed_unchecked(secret.as_bytes()) else {
            return Portable.ed25519_sign(secret, message);
        };
        let signature = match message {
            [whole] => key.sign(whole),
            parts => key.sign(&parts.concat()),
        };
        signature.as_ref().try_into().unwrap_or_else(|_| Portable.ed25519_sign(secret, message))
    }

    fn ed25519_verify(
        &self,
        key: &Ed25519Public,
        message: &[&[u8]],
        signature: &[u8; ED25519_SIGNATURE_LENGTH],
    ) -> bool {
        Portable.ed25519_verify(key, message, signature)
    }
}
