//! The crypto room against the reference's vectors: `crypto.jsonl`, and the kinds of other files that are about boxes and
//! keys. Both providers run: the portable one of the core, and the fast one of the runtimes.
#![allow(missing_docs)]

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sha3::{Sha3_256, Sha3_384};
use smp_proto::crypto::certificates::{self, ChainError, ChainRoles};
use smp_proto::crypto::chain_keys::{BLOCK_LENGTH, CONTENT_OFFSET, ChainKey, InitialChainKeys};
use smp_proto::crypto::envelope::{self, ClientMessage, Envelope, EnvelopeHeader};
use smp_proto::crypto::link_keys::LinkKey;
use smp_proto::crypto::message_body::{self, NotificationMetadata, ReceivedMessage};
use smp_proto::crypto::signed_key::{self, SignedKey};
use smp_proto::crypto::{
    BoxError, BoxKey, Nonce, Portable, Provider, SharedSecret, TAG_LENGTH, authenticator, ids, nacl_box,
    padding, ratchet_aead, signatures, x448,
};
use smp_proto::keys::{
    AuthKey, Ed448Secret, Ed25519Secret, PublicKey, SecretKey, SignatureKey, SigningKey, X448Public,
    X448Secret, X25519Public, X25519Secret,
};
use smp_proto::time::UnixTime;
use smp_runtime_std::fast_cryptography::Fast;
use smp_tests::vectors::{Fields, Outcome, Vector, run};

const PROVIDERS: [&dyn Provider; 2] = [&Portable, &Fast];

/// Runs a check with every provider.
fn run_with_providers(file: &str, kind: &str, check: impl Fn(&dyn Provider, &Vector) -> Outcome) {
    run(file, kind, |vector| PROVIDERS.iter().try_for_each(|provider| check(*provider, vector)));
}

fn x25519_secret(fields: &Fields, key: &str) -> Result<X25519Secret, String> {
    Ok(X25519Secret::from_bytes(fields.array(key)?))
}

fn x25519_public(fields: &Fields, key: &str) -> Result<X25519Public, String> {
    let bytes = fields.bytes(key)?;
    match X25519Public::from_der(&bytes) {
        Ok(public) => Ok(public),
        Err(_) => Ok(X25519Public(fields.array(key)?)),
    }
}

fn nonce(fields: &Fields, key: &str) -> Result<Nonce, String> {
    Ok(Nonce(fields.array(key)?))
}

fn agreed_key(provider: &dyn Provider, fields: &Fields) -> Result<BoxKey, String> {
    let (secret, public) = (x25519_secret(fields, "privateKey")?, x25519_public(fields, "peerPublicKey")?);
    Ok(BoxKey::agree(provider, &secret, &public))
}

fn delivery_key(fields: &Fields) -> Result<BoxKey, String> {
    Ok(SharedSecret::from_bytes(fields.array("dhSecret")?).box_key())
}

/// Seals without padding in place, compares, and opens again.
fn check_nopad(provider: &dyn Provider, vector: &Vector, key: &BoxKey) -> Outcome {
    let (nonce, text) = (nonce(&vector.input, "nonce")?, vector.input.bytes("msg")?);
    let mut sealed = [vec![0xEE; TAG_LENGTH], text.clone()].concat();
    nacl_box::seal(provider, key, &nonce, &mut sealed).map_err(|error| error.to_string())?;
    vector.output.expect_bytes("ct", &sealed)?;
    match nacl_box::open(provider, key, &nonce, &mut sealed) {
        Ok(opened) if opened == text => Ok(()),
        other => Err(format!("opened to {other:?}")),
    }
}

/// Seals with padding, from elsewhere and in place, compares, and opens again.
fn check_padded(provider: &dyn Provider, vector: &Vector, key: &BoxKey) -> Outcome {
    let (nonce, text) = (nonce(&vector.input, "nonce")?, vector.input.bytes("msg")?);
    let mut sealed = vec![0xEE; TAG_LENGTH + vector.input.size("paddedLen")?];
    match nacl_box::seal_padded(provider, key, &nonce, &text, &mut sealed) {
        Err(BoxError::TooLong) => return vector.output.expect_error(),
        Err(error) => return Err(error.to_string()),
        Ok(()) => vector.output.expect_bytes("ct", &sealed)?,
    }
    let mut in_place = vec![0x11; sealed.len()];
    in_place[TAG_LENGTH + 2..][..text.len()].copy_from_slice(&text);
    nacl_box::seal_padded_in_place(provider, key, &nonce, &mut in_place, text.len())
        .map_err(|error| error.to_string())?;
    vector.output.expect_bytes("ct", &in_place)?;
    match nacl_box::open_padded(provider, key, &nonce, &mut sealed) {
        Ok(opened) if opened == text => Ok(()),
        other => Err(format!("opened to {other:?}")),
    }
}

#[test]
fn box_nopad() {
    run_with_providers("crypto.jsonl", "box-nopad", |provider, vector| {
        let secret = x25519_secret(&vector.input, "privateKey")?;
        let shared = SharedSecret::agree(provider, &secret, &x25519_public(&vector.input, "peerPublicKey")?);
        vector.output.expect_bytes("dhSecret", shared.as_bytes())?;
        check_nopad(provider, vector, &shared.box_key())
    });
}

#[test]
fn box_pad() {
    run_with_providers("crypto.jsonl", "box-pad", |provider, vector| {
        check_padded(provider, vector, &agreed_key(provider, &vector.input)?)
    });
}

#[test]
fn secretbox_nopad() {
    run_with_providers("crypto.jsonl", "secretbox-nopad", |provider, vector| {
        check_nopad(provider, vector, &BoxKey::from_symmetric(&vector.input.array("key")?))
    });
}

#[test]
fn secretbox_pad() {
    run_with_providers("crypto.jsonl", "secretbox-pad", |provider, vector| {
        check_padded(provider, vector, &BoxKey::from_symmetric(&vector.input.array("key")?))
    });
}

#[test]
fn box_decrypt() {
    run_with_providers("crypto.jsonl", "box-decrypt", |provider, vector| {
        let key = agreed_key(provider, &vector.input)?;
        let (nonce, sealed) = (nonce(&vector.input, "nonce")?, vector.input.bytes("ct")?);
        match nacl_box::open_padded(provider, &key, &nonce, &mut sealed.clone()) {
            Ok(text) => vector.output.expect_bytes("msg", text)?,
            Err(BoxError::Forged) => vector.output.expect("error", "CBDecryptError")?,
            Err(BoxError::NotPadded) => vector.output.expect("error", "CryptoInvalidMsgError")?,
            Err(error) => return Err(error.to_string()),
        }
        match nacl_box::open(provider, &key, &nonce, &mut sealed.clone()) {
            Ok(text) => vector.output.expect_bytes("nopad", text),
            Err(_) => vector.output.expect("nopad", "CBDecryptError"),
        }
    });
}

#[test]
fn pad() {
    run("crypto.jsonl", "pad", |vector| {
        let (text, length) = (vector.input.bytes("msg")?, vector.input.size("n")?);
        vector.output.expect("canPad", padding::fits(text.len(), length))?;
        let mut padded = vec![0; length];
        match padding::pad(&text, &mut padded) {
            Ok(()) => vector.output.expect_bytes("padded", &padded),
            Err(_) => vector.output.expect_error(),
        }
    });
}

#[test]
fn unpad() {
    run("crypto.jsonl", "unpad", |vector| match padding::unpad(&vector.input.bytes("padded")?) {
        Ok(text) => vector.output.expect_bytes("msg", text),
        Err(_) => vector.output.expect_error(),
    });
}

#[test]
fn cb_nonce() {
    run("crypto.jsonl", "cb-nonce", |vector| {
        let nonce = Nonce::from_id(&vector.input.bytes("id")?);
        vector.output.expect_bytes("nonce", &nonce.0)?;
        vector.output.expect_bytes("reversed", &nonce.reversed().0)
    });
}

#[test]
fn sender_id() {
    run("crypto.jsonl", "sender-id", |vector| {
        vector.output.expect_bytes("senderId", &ids::sender_id(&vector.input.bytes("corrId")?))
    });
}

#[test]
fn hash() {
    run_with_providers("crypto.jsonl", "hash", |provider, vector| {
        let text = vector.input.bytes("msg")?;
        vector.output.expect_bytes("sha512", &provider.sha512(&[&text]))?;
        let (start, end) = text.split_at(text.len() / 2);
        vector.output.expect_bytes("sha512", &provider.sha512(&[start, b"", end]))?;
        vector.output.expect_bytes("sha256", &certificates::fingerprint(&text))?;
        vector.output.expect_bytes("sha256", &Sha256::digest(&text))?;
        vector.output.expect_bytes("sha3_256", &Sha3_256::digest(&text))?;
        vector.output.expect_bytes("sha3_256", LinkKey::of(&text).as_bytes())?;
        vector.output.expect_bytes("sha3_384", &Sha3_384::digest(&text))
    });
}

#[test]
fn hkdf() {
    run_with_providers("crypto.jsonl", "hkdf", |provider, vector| {
        let mut output = vec![0xEE; vector.input.size("len")?];
        let (salt, input) = (vector.input.bytes("salt")?, vector.input.bytes("ikm")?);
        provider.hkdf_sha512(&salt, &input, vector.input.text("info")?.as_bytes(), &mut output);
        vector.output.expect_bytes("okm", &output)
    });
}

#[test]
fn dh() {
    run_with_providers("crypto.jsonl", "dh", |provider, vector| match vector.input.text("alg")?.as_str() {
        "x25519" => {
            let secret = x25519_secret(&vector.input, "privateKey")?;
            vector.output.expect_bytes("publicKey", &provider.x25519_public(&secret).0)?;
            let public = x25519_public(&vector.input, "peerPublicKey")?;
            vector.output.expect_bytes("secret", provider.x25519(&secret, &public).as_bytes())
        }
        "x448" => {
            let secret = X448Secret::from_bytes(vector.input.array("privateKey")?);
            vector.output.expect_bytes("publicKey", &x448::public_key(&secret).0)?;
            let public = X448Public(vector.input.array("peerPublicKey")?);
            vector.output.expect_bytes("secret", x448::agree(&secret, &public).as_slice())
        }
        other => Err(format!("unknown algorithm {other}")),
    });
}

#[test]
fn cb_authenticator() {
    run_with_providers("crypto.jsonl", "cb-authenticator", |provider, vector| {
        let secret = x25519_secret(&vector.input, "privateKey")?;
        let server_public = x25519_public(&vector.input, "serverPublicKey")?;
        let server_secret = x25519_secret(&vector.input, "serverPrivateKey")?;
        let (correlation, authorized) = (vector.input.bytes("corrId")?, vector.input.bytes("authorized")?);
        vector.output.expect_bytes("sha512", &provider.sha512(&[&authorized]))?;
        let key = BoxKey::agree(provider, &secret, &server_public);
        let made = authenticator::create(provider, &key, &correlation, &[&authorized]);
        vector.output.expect_bytes("authenticator", &made)?;

        let public = provider.x25519_public(&secret);
        let key = BoxKey::agree(provider, &server_secret, &public);
        let other =
            provider.x25519_public(&X25519Secret::from_bytes(core::array::from_fn(|index| index as u8 + 1)));
        let other_key = BoxKey::agree(provider, &server_secret, &other);
        let mut other_correlation = correlation.clone();
        if let Some(byte) = other_correlation.first_mut() {
            *byte ^= 1;
        }
        let mut flipped = made;
        flipped[30] ^= 1;
        let verified = |key: &BoxKey, correlation: &[u8], parts: &[&[u8]], authenticator: &[u8]| {
            authenticator::verify(provider, key, correlation, parts, authenticator)
        };
        let output = &vector.output;
        output.expect("verified", verified(&key, &correlation, &[&authorized], &made))?;
        output.expect("verified_other_msg", verified(&key, &correlation, &[&authorized, b"x"], &made))?;
        output.expect("verified_other_corrId", verified(&key, &other_correlation, &[&authorized], &made))?;
        output.expect("verified_other_key", verified(&other_key, &correlation, &[&authorized], &made))?;
        output.expect("verified_flipped", verified(&key, &correlation, &[&authorized], &flipped))?;
        output.expect("verified_short", verified(&key, &correlation, &[&authorized], &made[..79]))
    });
}

fn signing_key(fields: &Fields) -> Result<SigningKey, String> {
    match fields.text("alg")?.as_str() {
        "ed25519" => Ok(SigningKey::Ed25519(Ed25519Secret::from_bytes(fields.array("privateKey")?))),
        "ed448" => Ok(SigningKey::Ed448(Ed448Secret::from_bytes(fields.array("privateKey")?))),
        other => Err(format!("unknown algorithm {other}")),
    }
}

#[test]
fn sign() {
    run_with_providers("crypto.jsonl", "sign", |provider, vector| {
        let (key, text) = (signing_key(&vector.input)?, vector.input.bytes("msg")?);
        let public = signatures::public_key(provider, &key);
        let raw = public.to_der().as_bytes()[12..].to_vec();
        vector.input.expect_bytes("publicKey", &raw)?;
        let (start, end) = text.split_at(text.len() / 3);
        let signature = signatures::sign(provider, &key, &[start, end]);
        vector.output.expect_bytes("signature", signature.as_bytes())?;
        let verified = |parts: &[&[u8]]| signatures::verify(provider, &public, parts, signature.as_bytes());
        vector.output.expect("verified", verified(&[&text]))?;
        vector.output.expect("verified_other_msg", verified(&[&text, b"x"]))
    });
}

#[test]
fn sb_chain() {
    run_with_providers("crypto.jsonl", "sb-chain", |provider, vector| {
        let secret = SharedSecret::from_bytes(vector.input.array("dhSecret")?);
        let chains = InitialChainKeys::new(provider, &vector.input.bytes("sessionId")?, &secret);
        vector.output.expect_bytes("chainKeyA", chains.server_sends.as_bytes())?;
        vector.output.expect_bytes("chainKeyB", chains.client_sends.as_bytes())?;
        for (mut chain, steps) in [(chains.server_sends, "stepsA"), (chains.client_sends, "stepsB")] {
            let steps = vector.output.get(steps).items()?;
            assert_eq!(steps.len(), 3);
            for step in steps {
                let block = chain.step(provider);
                step.expect_bytes("nonce", &block.nonce.0)?;
                step.expect_bytes("nextChainKey", chain.as_bytes())?;
                if block.key != BoxKey::from_symmetric(&step.array("key")?) {
                    return Err("another block key".to_owned());
                }
            }
        }
        Ok(())
    });
}

#[test]
fn key_der() {
    run_with_providers("crypto.jsonl", "key-der", |provider, vector| {
        let input = &vector.input;
        let (secret, public): (SecretKey, PublicKey) = match input.text("alg")?.as_str() {
            "x25519" => {
                let secret = x25519_secret(input, "privateKey")?;
                let public = provider.x25519_public(&secret);
                (SecretKey::X25519(secret), public.into())
            }
            "x448" => {
                let secret = X448Secret::from_bytes(input.array("privateKey")?);
                let public = x448::public_key(&secret);
                (SecretKey::X448(secret), public.into())
            }
            "ed25519" => {
                let secret = Ed25519Secret::from_bytes(input.array("privateKey")?);
                let public = provider.ed25519_public(&secret);
                (SecretKey::Ed25519(secret), public.into())
            }
            "ed448" => {
                let secret = Ed448Secret::from_bytes(input.array("privateKey")?);
                let public = signatures::ed448_public(&secret);
                (SecretKey::Ed448(secret), public.into())
            }
            other => return Err(format!("unknown algorithm {other}")),
        };
        let (der, secret_der) = (public.to_der(), secret.to_der());
        vector.output.expect_bytes("publicKey", &der[12..])?;
        vector.output.expect_bytes("spki", &der)?;
        vector.output.expect_bytes("pkcs8", secret_der.as_bytes())?;
        vector.output.expect_bytes("wire", &[&[der.len() as u8][..], &der].concat())?;
        if PublicKey::from_der(&der) != Ok(public) || SecretKey::from_der(secret_der.as_bytes()) != Ok(secret)
        {
            return Err("does not survive DER".to_owned());
        }
        Ok(())
    });
}

#[test]
fn key_class() {
    run("crypto.jsonl", "key-class", |vector| {
        let der = vector.input.bytes("spki")?;
        vector.output.expect("auth", AuthKey::from_der(&der).is_ok())?;
        vector.output.expect("verify", SignatureKey::from_der(&der).is_ok())?;
        vector.output.expect("x25519", X25519Public::from_der(&der).is_ok())?;
        let agrees = matches!(PublicKey::from_der(&der), Ok(PublicKey::X25519(_) | PublicKey::X448(_)));
        vector.output.expect("dh", agrees)
    });
}

fn certificates_of(vector: &Vector) -> Result<Vec<Vec<u8>>, String> {
    vector.input.get("certs").items()?.iter().map(Fields::as_bytes).collect()
}

#[test]
fn certificate_chain() {
    run_with_providers("crypto.jsonl", "certificate-chain", |provider, vector| {
        let chain = certificates_of(vector)?;
        let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
        let Ok(ChainRoles::Chain { leaf, identity, anchor }) = ChainRoles::of(&chain) else {
            return Err("no roles".to_owned());
        };
        vector.output.expect_bytes("keyHash", &certificates::fingerprint(identity))?;
        vector.output.expect_bytes("leafSha256", &certificates::fingerprint(leaf))?;
        let leaf_key = certificates::public_key(leaf).ok_or("the leaf has no key")?;
        vector.output.expect_bytes("leafKey", &leaf_key.to_der())?;

        let signer = SigningKey::from_der(&vector.input.bytes("leafPrivateKey")?)
            .map_err(|error| error.to_string())?;
        if signatures::public_key(provider, &signer) != leaf_key {
            return Err("the leaf's private key is another".to_owned());
        }
        let session_key = PublicKey::from_der(&vector.input.bytes("sessionPublicKey")?)
            .map_err(|error| error.to_string())?;
        let signed = signed_key::sign(provider, &signer, &session_key);
        vector.output.expect_bytes("signedKey", &signed)?;
        let object = SignedKey::from_der(&signed).ok_or("the signed key cannot be read")?;
        if object.key != session_key {
            return Err("another key is signed".to_owned());
        }
        vector.output.expect("verified", object.verify(provider, &leaf_key))?;
        let anchor_key = certificates::public_key(anchor).ok_or("the CA has no key")?;
        vector.output.expect("verified_with_ca_key", object.verify(provider, &anchor_key))
    });
}

#[test]
fn chain_roles() {
    let chains = smp_tests::vectors::read("crypto.jsonl");
    let certificates = chains
        .iter()
        .find(|vector| vector.id == "chain-ed448")
        .map_or_else(|| Ok(Vec::new()), certificates_of)
        .expect("chain-ed448 has certificates");
    run("crypto.jsonl", "chain-roles", |vector| {
        let items = vector.input.get("chain").items()?;
        let chain: Vec<&[u8]> = items
            .iter()
            .filter_map(|item| certificates.get(usize::try_from(item.0.as_u64()?).ok()?).map(Vec::as_slice))
            .collect();
        assert_eq!(chain.len(), items.len());
        let print = |certificate: &[u8]| {
            let hex = |text: String, byte: &u8| format!("{text}{byte:02x}");
            Value::from(certificates::fingerprint(certificate).iter().fold(String::new(), hex))
        };
        let roles = match ChainRoles::of(&chain) {
            Err(ChainError::Empty) => "empty".into(),
            Err(ChainError::TooLong) => "too long".into(),
            Ok(ChainRoles::Single(single)) => json!({"self": print(single)}),
            Ok(ChainRoles::Chain { leaf, identity, anchor }) => {
                json!({"leaf": print(leaf), "id": print(identity), "ca": print(anchor)})
            }
        };
        vector.output.expect("roles", roles)
    });
}

#[test]
fn aes256_gcm_padded() {
    run("crypto.jsonl", "aes256-gcm-padded", |vector| {
        let input = &vector.input;
        let Ok(iv) = input.array("iv") else {
            return vector.output.expect("error", "CryptoIVError");
        };
        let (key, associated, text) = (input.array("key")?, input.bytes("ad")?, input.bytes("msg")?);
        let mut sealed = vec![0; input.size("paddedLen")?];
        let Ok(tag) = ratchet_aead::seal_padded(&key, &iv, &associated, &text, &mut sealed) else {
            return vector.output.expect_error();
        };
        vector.output.expect_bytes("ct", &sealed)?;
        vector.output.expect_bytes("tag", &tag)?;
        ratchet_aead::open(&key, &iv, &associated, &tag, &mut sealed).map_err(|_| "cannot be opened")?;
        if padding::unpad(&sealed) == Ok(&text) { Ok(()) } else { Err("opens to something else".to_owned()) }
    });
}

#[test]
fn message_body() {
    run_with_providers("messages.jsonl", "msg-body", |provider, vector| {
        let input = &vector.input;
        let (key, id) = (delivery_key(input)?, nonce(input, "msgId")?);
        let (timestamp, body) = (UnixTime(input.integer("ts")?), input.bytes("body")?);
        let notification = input.boolean("notification")?;
        let mut out = [0xEE; message_body::SEALED_LENGTH];
        message_body::seal_message(provider, &key, &id, timestamp, notification, &body, &mut out)
            .map_err(|error| error.to_string())?;
        vector.output.expect_bytes("ct", &out)?;
        let text = nacl_box::open_padded(provider, &key, &id, &mut out.clone()).map(|text| text.to_vec());
        vector.output.expect_bytes("plaintext", &text.map_err(|error| error.to_string())?)?;
        let expected = ReceivedMessage::Message { timestamp, notification, body: &body };
        match message_body::open_message(provider, &key, &id, &mut out) {
            Ok(message) if message == expected => Ok(()),
            other => Err(format!("opens to {other:?}")),
        }
    });
}

#[test]
fn message_quota() {
    run_with_providers("messages.jsonl", "msg-quota", |provider, vector| {
        let (key, id) = (delivery_key(&vector.input)?, nonce(&vector.input, "msgId")?);
        let timestamp = UnixTime(vector.input.integer("ts")?);
        let mut out = [0xEE; message_body::SEALED_LENGTH];
        message_body::seal_quota_exceeded(provider, &key, &id, timestamp, &mut out);
        vector.output.expect_bytes("ct", &out)?;
        match message_body::open_message(provider, &key, &id, &mut out) {
            Ok(message) if message == (ReceivedMessage::QuotaExceeded { timestamp }) => Ok(()),
            other => Err(format!("opens to {other:?}")),
        }
    });
}

#[test]
fn message_body_parse() {
    run("messages.jsonl", "msg-body-parse", |vector| {
        let text = vector.input.bytes("plaintext")?;
        let expected = vector.output.get("ok");
        match ReceivedMessage::parse(&text) {
            None => vector.output.expect_error(),
            Some(ReceivedMessage::QuotaExceeded { timestamp }) => {
                expected.expect("quota", true)?;
                expected.expect("ts", timestamp.0)
            }
            Some(ReceivedMessage::Message { timestamp, notification, body }) => {
                expected.expect("quota", Value::Null)?;
                expected.expect("ts", timestamp.0)?;
                expected.expect("notification", notification)?;
                expected.expect_bytes("body", body)
            }
        }
    });
}

#[test]
fn notification_metadata() {
    run_with_providers("messages.jsonl", "nmsg-meta", |provider, vector| {
        let input = &vector.input;
        let (key, nonce, message) = (delivery_key(input)?, nonce(input, "nonce")?, input.bytes("msgId")?);
        let timestamp = UnixTime(input.integer("ts")?);
        let mut out = [0xEE; message_body::NOTIFICATION_SEALED_LENGTH];
        message_body::seal_notification(provider, &key, &nonce, &message, timestamp, &mut out)
            .map_err(|error| error.to_string())?;
        vector.output.expect_bytes("encMeta", &out)?;
        match message_body::open_notification(provider, &key, &nonce, &mut out) {
            Ok(metadata) if metadata == (NotificationMetadata { message: &message, timestamp }) => Ok(()),
            other => Err(format!("opens to {other:?}")),
        }
    });
}

#[test]
fn notification_metadata_parse() {
    run("messages.jsonl", "nmsg-meta-parse", |vector| {
        match NotificationMetadata::parse(&vector.input.bytes("plaintext")?) {
            None => vector.output.expect_error(),
            Some(metadata) => {
                vector.output.get("ok").expect("ts", metadata.timestamp.0)?;
                vector.output.get("ok").expect_bytes("msgId", metadata.message)
            }
        }
    });
}

#[test]
fn client_envelope() {
    run_with_providers("messages.jsonl", "client-envelope", |provider, vector| {
        let (input, output) = (&vector.input, &vector.output);
        let sender_secret = x25519_secret(input, "senderDhPrivateKey")?;
        let queue_public = x25519_public(input, "queueDhPublicKey")?;
        let shared = SharedSecret::agree(provider, &sender_secret, &queue_public);
        let sender = input.boolean("includeSenderKey")?.then(|| provider.x25519_public(&sender_secret));
        let header = EnvelopeHeader {
            client_version: u16::try_from(input.integer("clientVersion")?)
                .map_err(|error| error.to_string())?,
            sender,
            nonce: nonce(input, "nonce")?,
        };
        let sender_auth_key = match input.optional_bytes("senderAuthKey")? {
            None => None,
            Some(der) => Some(AuthKey::from_der(&der).map_err(|error| error.to_string())?),
        };
        let message = input.bytes("message")?;
        let content = ClientMessage { sender_auth_key, message: &message };
        let mut out = vec![0xEE; envelope::envelope_length(sender.is_some())];
        if envelope::seal(provider, &shared.box_key(), &header, &content, &mut out).is_err() {
            return output.expect_error();
        }
        output.expect_bytes("dhSecret", shared.as_bytes())?;
        output.expect_bytes("envelope", &out)?;

        let parsed = Envelope::parse(&out).ok_or("cannot be read")?;
        output.expect("headerLen", out.len() - parsed.sealed.len())?;
        if parsed.header != header || parsed.sealed.len() != TAG_LENGTH + input.size("paddedLen")? {
            return Err("reads as something else".to_owned());
        }
        // As the recipient: the queue's private key and the sender's public key.
        let queue_secret = x25519_secret(input, "queueDhPrivateKey")?;
        let key = BoxKey::agree(provider, &queue_secret, &provider.x25519_public(&sender_secret));
        let mut sealed = parsed.sealed.to_vec();
        let text = envelope::open(provider, &key, &parsed.header.nonce, &mut sealed)
            .map_err(|error| error.to_string())?;
        output.expect_bytes("clientMessage", text)?;
        if ClientMessage::parse(text) == Some(content) {
            Ok(())
        } else {
            Err("opens to something else".to_owned())
        }
    });
}

#[test]
fn client_message_parse() {
    run("messages.jsonl", "client-message-parse", |vector| {
        match ClientMessage::parse(&vector.input.bytes("plaintext")?) {
            None => vector.output.expect_error(),
            Some(content) => {
                let expected = vector.output.get("ok");
                let key = content.sender_auth_key.map(|key| key.to_der());
                expected.expect_optional_bytes("senderAuthKey", key.as_deref())?;
                expected.expect_bytes("message", content.message)
            }
        }
    });
}

#[test]
fn client_envelope_parse() {
    run("messages.jsonl", "client-envelope-parse", |vector| {
        match Envelope::parse(&vector.input.bytes("body")?) {
            None => vector.output.expect_error(),
            Some(envelope) => {
                let expected = vector.output.get("ok");
                expected.expect("clientVersion", envelope.header.client_version)?;
                let key = envelope.header.sender.map(|key| key.to_der());
                expected.expect_optional_bytes("senderDhKey", key.as_deref())?;
                expected.expect_bytes("nonce", &envelope.header.nonce.0)?;
                expected.expect_bytes("encBody", envelope.sealed)
            }
        }
    });
}

#[test]
fn link_kdf() {
    run_with_providers("links.jsonl", "link-kdf", |provider, vector| {
        let key = LinkKey::from_bytes(vector.input.array("linkKey")?);
        let (id, contact) = key.contact(provider);
        vector.output.expect_bytes("contactLinkId", &id)?;
        let expected = |key: &str| Ok::<_, String>(BoxKey::from_symmetric(&vector.output.array(key)?));
        if contact == expected("contactKey")? && key.invitation(provider) == expected("invitationKey")? {
            Ok(())
        } else {
            Err("another key".to_owned())
        }
    });
}

#[test]
fn encrypted_blocks() {
    run_with_providers("transmissions.jsonl", "encrypted-blocks", |provider, vector| {
        let input = &vector.input;
        let client = x25519_secret(input, "clientPrivateKey")?;
        let relay = provider.x25519_public(&x25519_secret(input, "serverPrivateKey")?);
        let secret = SharedSecret::agree(provider, &client, &relay);
        input.expect_bytes("dhSecret", secret.as_bytes())?;
        let chains = InitialChainKeys::new(provider, &input.bytes("sessionId")?, &secret);
        let chain = |sender: &str| match sender {
            "server" => Ok(ChainKey::from_bytes(*chains.server_sends.as_bytes())),
            "client" => Ok(ChainKey::from_bytes(*chains.client_sends.as_bytes())),
            other => Err(format!("unknown sender {other}")),
        };
        let sender = input.text("sender")?;
        let (mut sending, mut receiving) = (chain(&sender)?, chain(&sender)?);
        let contents = input.get("contents").items()?;
        let blocks = vector.output.get("blocks").items()?;
        assert_eq!(contents.len(), blocks.len());
        for (content, expected) in contents.iter().zip(&blocks) {
            let content = content.as_bytes()?;
            let mut block = [0; BLOCK_LENGTH];
            block[CONTENT_OFFSET..][..content.len()].copy_from_slice(&content);
            sending.seal_block(provider, &mut block, content.len()).map_err(|error| error.to_string())?;
            expected.expect_bytes("block", &block)?;
            let opened = receiving.open_block(provider, &mut block).map_err(|error| error.to_string())?;
            assert_eq!(opened, content);
        }
        vector.output.expect_bytes("sndChainKeyAfter", sending.as_bytes())
    });
}

/// WIRE-FACTS 16: one block, encrypted with the first step of the server's chain.
#[test]
fn encrypted_block_of_the_published_example() {
    let hex = |text| smp_tests::vectors::decode_hex(text).expect("hex");
    for provider in PROVIDERS {
        let mut chain_key = [0; 32];
        chain_key.copy_from_slice(&hex("bb5cf520917b1055ff43c9aa16148dd08cd17d5db9256e4a5a7414560c3c8c3a"));
        let mut block = [0; 16_384];
        block[18..24].copy_from_slice(&hex("010003616263"));
        ChainKey::from_bytes(chain_key).seal_block(provider, &mut block, 6).expect("6 bytes fit");
        assert_eq!(block[..32], hex("dd7649b777a2284805d40a72a891fce3510fe7cd2c558d061e7a45a978f17e96"));
        let digest = hex("17d83e803d3b02e0efe67b0cba09a02ccdb0b1e1d9e116b27d326d31c5183b02");
        assert_eq!(Sha256::digest(block).as_slice(), digest);
    }
}
