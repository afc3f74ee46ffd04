//! What each primitive costs, portable and fast: `cargo bench -p smp-runtime-std --bench primitives`.
#![allow(missing_docs)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use smp_proto::crypto::chain_keys::{CONTENT_OFFSET, ChainKey};
use smp_proto::crypto::{
    BoxKey, Ed25519Check, Nonce, Portable, Provider, authenticator, provider::derive, signatures,
};
use smp_proto::keys::{Ed448Secret, Ed25519Secret, X25519Secret};
use smp_runtime_std::fast_cryptography::Fast;

const PROVIDERS: [(&str, &dyn Provider); 2] = [("portable", &Portable), ("fast", &Fast)];

fn primitives(criterion: &mut Criterion) {
    let secret = X25519Secret::from_bytes([1; 32]);
    let public = Portable.x25519_public(&X25519Secret::from_bytes([2; 32]));
    let signer = Ed25519Secret::from_bytes([3; 32]);
    let verifier = Portable.ed25519_public(&signer);
    let key = BoxKey::from_symmetric(&[4; 32]);
    let nonce = Nonce([5; 24]);
    for (name, provider) in PROVIDERS {
        let mut group = criterion.benchmark_group(name);
        group
            .sample_size(30)
            .warm_up_time(Duration::from_millis(300))
            .measurement_time(Duration::from_secs(1));
        group
            .bench_function("x25519 shared secret", |bench| bench.iter(|| provider.x25519(&secret, &public)));
        group.bench_function("x25519 public key", |bench| bench.iter(|| provider.x25519_public(&secret)));
        let mut text = vec![0; 16_368];
        group.bench_function("box seal 16 KiB", |bench| {
            bench.iter(|| provider.box_seal(&key, &nonce, black_box(&mut text)));
        });
        let sealed = {
            let tag = provider.box_seal(&key, &nonce, &mut text);
            (tag, text.clone())
        };
        group.bench_function("box open 16 KiB (with a copy)", |bench| {
            bench.iter(|| {
                text.copy_from_slice(&sealed.1);
                provider.box_open(&key, &nonce, &sealed.0, black_box(&mut text))
            });
        });
        let mut small = [0; 64];
        group.bench_function("box seal 64 B", |bench| {
            bench.iter(|| provider.box_seal(&key, &nonce, black_box(&mut small)));
        });
        group.bench_function("sha512 16 KiB", |bench| bench.iter(|| provider.sha512(&[black_box(&text)])));
        group.bench_function("sha512 150 B", |bench| {
            bench.iter(|| provider.sha512(&[black_box(&text[..150])]))
        });
        group.bench_function("hkdf-sha512 88 B", |bench| {
            bench.iter(|| derive::<88>(provider, b"", black_box(&[7; 32]), b"SimpleXSbChain"));
        });
        let mut chain = ChainKey::from_bytes([8; 32]);
        let mut block = [0; 16_384];
        group.bench_function("block: chain step and box", |bench| {
            bench.iter(|| chain.seal_block(provider, black_box(&mut block), 16_384 - CONTENT_OFFSET));
        });
        for length in [150, 16_100] {
            let command = vec![9; length];
            group.bench_function(format!("authenticator {length} B, cached secret"), |bench| {
                bench.iter(|| authenticator::create(provider, &key, &nonce.0, &[black_box(&command)]));
            });
        }
        group.bench_function("ed25519 public key", |bench| bench.iter(|| provider.ed25519_public(&signer)));
        let message: [&[u8]; 2] = [&[9; 33], &[9; 120]];
        group.bench_function("ed25519 sign", |bench| bench.iter(|| provider.ed25519_sign(&signer, &message)));
        let signature = provider.ed25519_sign(&signer, &message);
        group.bench_function("ed25519 verify", |bench| {
            bench.iter(|| provider.ed25519_verify(&verifier, &message, &signature));
        });
        let signers: Vec<_> = (0..64).map(|byte| Ed25519Secret::from_bytes([byte; 32])).collect();
        let signed: Vec<_> = signers
            .iter()
            .map(|signer| (provider.ed25519_public(signer), provider.ed25519_sign(signer, &message)))
            .collect();
        for count in [2, 3, 4, 8, 16, 64] {
            let mut checks: Vec<_> = signed
                .iter()
                .take(count)
                .map(|(key, signature)| Ed25519Check {
                    key: *key,
                    message: &message,
                    signature,
                    valid: false,
                })
                .collect();
            group.bench_function(format!("ed25519 verify, batch of {count}"), |bench| {
                bench.iter(|| provider.ed25519_verify_batch(&mut checks));
            });
        }
        group.finish();
    }
    let mut group = criterion.benchmark_group("portable only");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    let signer = Ed448Secret::from_bytes([3; 57]);
    let verifier = signatures::ed448_public(&signer);
    let signature = signatures::ed448_sign(&signer, &[b"message"]);
    group.bench_function("ed448 sign", |bench| bench.iter(|| signatures::ed448_sign(&signer, &[b"message"])));
    group.bench_function("ed448 verify", |bench| {
        bench.iter(|| signatures::ed448_verify(&verifier, &[b"message"], &signature));
    });
    group.finish();
}

criterion_group!(benches, primitives);
criterion_main!(benches);
