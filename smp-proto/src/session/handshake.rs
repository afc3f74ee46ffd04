//! What every handshake has, whatever is spoken after it: the two hellos, and the checks of them (WIRE-FACTS 4.5).
//!
//! It owns nothing: [`server`](super::server), [`client`](super::client) and [`first_step`](super::first_step) do with it what
//! is theirs.

use alloc::vec::Vec;

use bytes::BytesMut;
use subtle::ConstantTimeEq;

use super::blocks::handshake_block;
use super::close::CloseReason;
use super::facts::{SessionId, TransportFacts};
use super::identity::{ServerIdentity, SigningFailed};
use super::server::ServerSessionConfig;
use crate::crypto::Provider;
use crate::crypto::certificates::{self, ChainRoles};
use crate::crypto::signed_key::{self, SignedKey};
use crate::keys::{PublicKey, X25519Public, X25519Secret};
use crate::wire::block::plain_content;
use crate::wire::hello::{ClientHello, HelloLayout, ServerHello};
use crate::wire::version::{Version, VersionRange};

/// The block with a relay's hello: the key of the connection, signed by the leaf, where such hellos have one. `None` only for
/// an identity that [`ServerIdentity::new`] refuses.
pub(super) fn relay_hello(
    layout: HelloLayout,
    offered: VersionRange,
    config: &ServerSessionConfig,
    session: &SessionId,
    secret: &X25519Secret,
) -> Result<Option<BytesMut>, SigningFailed> {
    let (provider, identity) = (config.provider, &config.identity);
    let signed_key = if layout.fields_of(offered.max()) >= Version::IMPLIED_SESSION {
        let key = PublicKey::X25519(provider.x25519_public(secret));
        signed_key::sign_with(&key, |message| identity.signer().sign(message))?
    } else {
        Vec::new()
    };
    let chain = identity.chain();
    Ok(handshake_block(|out| {
        ServerHello::encode_in(layout, offered, session.as_bytes(), chain, &signed_key, out)
    }))
}

/// A client's hello that wants this relay, and a version that it offers.
pub(super) fn client_hello<'b>(
    layout: HelloLayout,
    block: &'b [u8],
    identity: &ServerIdentity,
    offered: VersionRange,
) -> Result<ClientHello<'b>, CloseReason> {
    let hello = plain_content(block)
        .and_then(|content| ClientHello::decode_in(layout, content))
        .ok_or(CloseReason::HelloUnreadable)?;
    if !bool::from(hello.fingerprint.ct_eq(identity.fingerprint().as_slice())) {
        return Err(CloseReason::WrongRelayWanted);
    }
    if !offered.contains(hello.version) {
        return Err(CloseReason::VersionNotOffered(hello.version));
    }
    Ok(hello)
}

/// A relay's hello, unchecked.
pub(super) fn relay_hello_of(layout: HelloLayout, block: &[u8]) -> Result<ServerHello<'_>, CloseReason> {
    plain_content(block)
        .and_then(|content| ServerHello::decode_in(layout, content))
        .ok_or(CloseReason::HelloUnreadable)
}

/// What was found in a hello that passed every check.
pub(super) struct CheckedHello {
    pub(super) version: Version,
    pub(super) relay_key: Option<X25519Public>,
}

/// That the relay's session id is that of the TLS connection.
pub(super) fn check_session(hello: &ServerHello<'_>, facts: &TransportFacts) -> Result<(), CloseReason> {
    if bool::from(hello.session.ct_eq(facts.session_id.as_bytes())) {
        Ok(())
    } else {
        Err(CloseReason::WrongSession)
    }
}

/// That there is a common version, that the relay has the wanted fingerprint, in TLS and in the hello, and that its key, if
/// there is one, is signed by the leaf of its TLS certificates.
pub(super) fn check_relay(
    provider: &dyn Provider,
    hello: &ServerHello<'_>,
    facts: &TransportFacts,
    fingerprint: &[u8],
    wanted: VersionRange,
) -> Result<CheckedHello, CloseReason> {
    let version = hello
        .versions
        .intersection(wanted)
        .ok_or(CloseReason::NoCommonVersion { offered: hello.versions, wanted })?
        .max();
    let chain: heapless::Vec<&[u8], 4> = facts.peer_chain.iter().map(Vec::as_slice).take(4).collect();
    let leaf = check_chain(&chain, facts.peer_chain.len(), fingerprint)?;
    let Some((certificates, signed_key)) = &hello.authentication else {
        return Ok(CheckedHello { version, relay_key: None });
    };
    let chain: heapless::Vec<&[u8], 4> = certificates.certificates().take(4).collect();
    check_chain(&chain, certificates.len(), fingerprint)?;
    let signer = certificates::public_key(leaf).ok_or(CloseReason::KeyNotVerified)?;
    let signed = SignedKey::from_der(signed_key.0).ok_or(CloseReason::KeyNotVerified)?;
    match signed.key {
        PublicKey::X25519(key) if signed.verify(provider, &signer) => {
            Ok(CheckedHello { version, relay_key: Some(key) })
        }
        _ => Err(CloseReason::KeyNotVerified),
    }
}

/// The leaf of a chain whose identity has the wanted fingerprint.
fn check_chain<'c>(chain: &[&'c [u8]], length: usize, fingerprint: &[u8]) -> Result<&'c [u8], CloseReason> {
    match ChainRoles::of(chain) {
        Ok(ChainRoles::Chain { leaf, identity, .. })
            if length == chain.len()
                && bool::from(certificates::fingerprint(identity).as_slice().ct_eq(fingerprint)) =>
        {
            Ok(leaf)
        }
        _ => Err(CloseReason::WrongRelayFound),
    }
}
