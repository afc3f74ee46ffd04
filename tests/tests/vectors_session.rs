//! The sessions against the reference's vectors: `hello.jsonl`, and the kinds of `transmissions.jsonl` that need keys.
#![allow(missing_docs, clippy::unwrap_used)]

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;
use serde_json::json;
use smp_proto::crypto::chain_keys::{BLOCK_LENGTH, CONTENT_OFFSET, ChainKey};
use smp_proto::crypto::{Portable, Provider};
use smp_proto::keys::{SecretKey, X25519Public};
use smp_proto::session::client::{ClientSession, ClientSessionConfig, Received as ClientReceived};
use smp_proto::session::outgoing::{Outgoing, OutgoingContent};
use smp_proto::session::request::{Authority, Request};
use smp_proto::session::server::{Received, RequestChunk, ServerSession};
use smp_proto::session::{AuthSecret, CloseReason};
use smp_proto::wire::block::plain_content;
use smp_proto::wire::command::Command;
use smp_proto::wire::error::{HandshakeError, TransportError};
use smp_proto::wire::hello::ServiceResponse;
use smp_proto::wire::transmission::{Authorization, Batch, Transmission};
use smp_proto::wire::version::VersionRange;
use smp_proto::wire::{CorrelationId, EntityId, Identifier};
use smp_tests::sessions::{
    Certificates, GivenEntropy, NOW, Pair, PairOptions, closed, facts, plain_block, versions,
};
use smp_tests::vectors::{self, Fields, Outcome, hex, run, run_except};

fn range(fields: &Fields, key: &str) -> Result<VersionRange, String> {
    let bounds = fields.get(key).items()?;
    let bound = |index: usize| bounds.get(index).and_then(|one| one.0.as_u64()).unwrap_or(0) as u16;
    Ok(versions(bound(0), bound(1)))
}

/// The reference's name of an error.
fn reference_name(reason: CloseReason) -> String {
    match reason.transport_error() {
        None => "none".to_owned(),
        Some(TransportError::Block) => "TEBadBlock".to_owned(),
        Some(TransportError::Version) => "TEVersion".to_owned(),
        Some(TransportError::LargeMessage) => "TELargeMsg".to_owned(),
        Some(TransportError::Session) => "TEBadSession".to_owned(),
        Some(TransportError::NoAuthorization) => "TENoServerAuth".to_owned(),
        Some(TransportError::Handshake(error)) => {
            let error = match error {
                HandshakeError::Parse => "PARSE",
                HandshakeError::Identity => "IDENTITY",
                HandshakeError::BadAuthorization => "BAD_AUTH",
                HandshakeError::BadService => "BAD_SERVICE",
            };
            format!("TEHandshake {{handshakeErr = {error}}}")
        }
    }
}

/// A block as `sending` encrypts it.
fn encrypted(sending: &[u8; 32], content: &[u8]) -> BytesMut {
    let mut block = [0; BLOCK_LENGTH];
    block[CONTENT_OFFSET..][..content.len()].copy_from_slice(content);
    ChainKey::from_bytes(*sending).seal_block(&Portable, &mut block, content.len()).expect("content fits");
    BytesMut::from(&block[..])
}

/// Compares an established session of a relay with the reference's.
fn check_server(session: &mut ServerSession, expected: &Fields) -> Outcome {
    expected.expect("v", session.version().map(|version| version.0))?;
    let secret = session.hello_secret().map(|secret| secret.as_bytes().to_vec());
    expected.get("auth").expect_optional_bytes("sessSecret", secret.as_deref())?;
    let encryption = expected.get("blockEncryption");
    if encryption.is_null() == session.encrypts_blocks() {
        return Err(format!("block encryption: got {}", session.encrypts_blocks()));
    }
    // The chain keys are right when blocks made with them are read, and the other way round.
    let content = b"\x01\x00\x03abc";
    let block = if encryption.is_null() {
        plain_block(content)
    } else {
        encrypted(&encryption.array("rcvChainKey")?, content)
    };
    match closed(session.receive(block, NOW)).map_err(|reason| reason.to_string())? {
        Received::Commands(block) if block.content() == content => {}
        _ => return Err("the client's block is not read".to_owned()),
    }
    let pong = Outgoing::new(CorrelationId::EMPTY, EntityId::EMPTY, OutgoingContent::Pong);
    let mut block = session.pack(&mut VecDeque::from([pong]), NOW).ok_or("nothing packed")?;
    let content = if encryption.is_null() {
        plain_content(&block).ok_or("not padded")?.to_vec()
    } else {
        let bytes = block.as_mut().try_into().map_err(|_| "length")?;
        ChainKey::from_bytes(encryption.array("sndChainKey")?)
            .open_block(&Portable, bytes)
            .map_err(|error| error.to_string())?
            .to_vec()
    };
    if content.ends_with(b"PONG") { Ok(()) } else { Err(format!("packed {}", hex(&content))) }
}

/// Compares an established session of a client with the reference's.
fn check_client(session: &mut ClientSession, expected: &Fields) -> Outcome {
    expected.expect("v", session.version().map(|version| version.0))?;
    let auth = expected.get("auth");
    let relay_key = session.relay_key().map(|key| key.to_der().as_bytes().to_vec());
    auth.expect_optional_bytes("peerServerPubKey", relay_key.as_deref())?;
    let secret = session.hello_secret().map(|secret| secret.as_bytes().to_vec());
    auth.expect_optional_bytes("sessSecret", secret.as_deref())?;
    let encryption = expected.get("blockEncryption");
    if encryption.is_null() == session.encrypts_blocks() {
        return Err(format!("block encryption: got {}", session.encrypts_blocks()));
    }
    let content = b"\x01\x00\x03abc";
    let block = if encryption.is_null() {
        plain_block(content)
    } else {
        encrypted(&encryption.array("rcvChainKey")?, content)
    };
    match closed(session.receive(block, NOW)).map_err(|reason| reason.to_string())? {
        ClientReceived::Responses(block) if block.content() == content => {}
        _ => return Err("the relay's block is not read".to_owned()),
    }
    let mut block = [0; BLOCK_LENGTH];
    let sealed = session.seal(&mut block, NOW, |writer| {
        writer.add(&Identifier::EMPTY, &Identifier::EMPTY, &Command::Ping, None).expect("PING fits");
    });
    assert_eq!(sealed, Ok(true));
    let content = if encryption.is_null() {
        plain_content(&block).ok_or("not padded")?.to_vec()
    } else {
        ChainKey::from_bytes(encryption.array("sndChainKey")?)
            .open_block(&Portable, &mut block)
            .map_err(|error| error.to_string())?
            .to_vec()
    };
    if content.ends_with(b"PING") { Ok(()) } else { Err(format!("sealed {}", hex(&content))) }
}

fn server_session(
    chain: &str,
    input: &Fields,
    alpn: bool,
    tls_client: &[Vec<u8>],
) -> Result<ServerSession, String> {
    let key = if input.has("serverRange") { "serverRange" } else { "range" };
    let config = Arc::new(Certificates::named(chain).relay(range(input, key)?, &Portable));
    let mut entropy = GivenEntropy::new(&input.bytes("serverPrivateKey")?);
    ServerSession::new(&config, facts(alpn, tls_client), NOW, &mut entropy).map_err(|error| error.to_string())
}

fn client_session(
    fingerprint: Vec<u8>,
    tls_chain: &[Vec<u8>],
    versions: VersionRange,
    input: &Fields,
) -> Result<ClientSession, String> {
    let secret = input.optional_bytes("clientPrivateKey")?;
    let config = ClientSessionConfig {
        versions,
        sends_key: secret.is_some(),
        proxy: input.boolean("proxyServer")?,
        ..ClientSessionConfig::new(fingerprint, &Portable)
    };
    let mut entropy = GivenEntropy::new(&secret.unwrap_or_else(|| vec![0]));
    Ok(ClientSession::new(&Arc::new(config), facts(true, tls_chain), NOW, &mut entropy))
}

fn content(block: &[u8]) -> Result<&[u8], String> {
    plain_content(block).ok_or_else(|| "not a padded block".to_owned())
}

#[test]
fn server_hellos() {
    run("hello.jsonl", "server-hello", |vector| {
        let alpn = !vector.input.get("alpn").is_null();
        let mut session = server_session(&vector.input.text("chain")?, &vector.input, alpn, &[])?;
        let block = session.take_handshake_block().ok_or("no hello")?;
        vector.output.expect_bytes("content", content(&block)?)?;
        if vector.output.has("block_sha256") { vector.output.expect_bytes("block", &block) } else { Ok(()) }
    });
}

/// A whole handshake, both sides compared.
fn check_handshake(input: &Fields, output: &Fields, client_versions: VersionRange) -> Outcome {
    let certificates = Certificates::named(&input.text("chain")?);
    let mut server = server_session(&input.text("chain")?, input, true, &[])?;
    let mut client =
        client_session(certificates.fingerprint.clone(), &certificates.chain, client_versions, input)?;
    let hello = server.take_handshake_block().ok_or("no server hello")?;
    match closed(client.receive(hello, NOW)) {
        Err(reason) => return output.get("client").expect("error", reference_name(reason)),
        Ok(received) => assert!(matches!(received, ClientReceived::Established(_))),
    }
    let hello = client.take_handshake_block().ok_or("no client hello")?;
    output.expect_bytes("content", content(&hello)?)?;
    match closed(server.receive(hello, NOW)) {
        Err(reason) => return output.get("server").expect("error", reference_name(reason)),
        Ok(received) => assert!(matches!(received, Received::Established(_))),
    }
    if server.take_handshake_block().is_some() {
        return Err("the relay said more".to_owned());
    }
    // Some lines are about the hello only.
    for (side, known) in [("client", output.has("client")), ("server", output.has("server"))] {
        match output.get(side).get("ok") {
            ok if side == "client" && known => check_client(&mut client, &ok)?,
            ok if known => check_server(&mut server, &ok)?,
            _ => {}
        }
    }
    Ok(())
}

#[test]
fn client_hellos() {
    run("hello.jsonl", "client-hello", |vector| {
        check_handshake(&vector.input, &vector.output, range(&vector.input, "clientRange")?)
    });
}

const NO_SERVICES: &str = "this client has no service certificate and never asks to be a service";

#[test]
fn service_hellos() {
    let differ =
        ["service-hello-v16-N", "service-hello-v16-P", "service-hello-v18-N"].map(|id| (id, NO_SERVICES));
    run_except("hello.jsonl", "service-hello", &differ, |vector| {
        check_handshake(&vector.input, &vector.output, versions(6, 18))
    });
}

#[test]
fn service_responses() {
    run("hello.jsonl", "service-response", |vector| {
        let content = vector.output.bytes("content")?;
        match ServiceResponse::decode(&content).ok_or("not a response")? {
            ServiceResponse::Accepted(id) => vector.input.expect_bytes("serviceId", id.as_bytes()),
            ServiceResponse::Refused(error) => vector.input.expect("text", error.text()),
        }
    });
}

#[test]
fn received_client_hellos() {
    run("hello.jsonl", "parse-client-hello", |vector| {
        let tls = vector.input.get("tlsClientChain").items()?;
        let tls = tls.iter().map(Fields::as_bytes).collect::<Result<Vec<_>, _>>()?;
        let mut session = server_session("ed448", &vector.input, true, &tls)?;
        session.take_handshake_block().ok_or("no hello")?;
        let received = closed(session.receive(plain_block(&vector.input.bytes("content")?), NOW));
        let mut said = session.take_handshake_block();
        if let Ok(Received::Service(claim)) = &received {
            let service = vector.output.get("ok").get("auth").get("service");
            service.expect("role", json!(char::from(claim.role.letter()).to_string()))?;
            service.expect_bytes("certHash", &claim.fingerprint)?;
            // Nothing may come before the broker has said who the service is.
            let content = OutgoingContent::ServiceAccepted(service.array("serviceId")?);
            let (correlation, entity) = (CorrelationId::EMPTY, EntityId::EMPTY);
            said = session.pack(&mut VecDeque::from([Outgoing::new(correlation, entity, content)]), NOW);
        }
        let expected = vector.output.get("serverResponses");
        let expected = if expected.is_null() { Vec::new() } else { expected.items()? };
        match (expected.first(), &said) {
            (None, None) => {}
            (Some(expected), Some(block)) if expected.as_bytes()? == content(block)? => {}
            _ => return Err(format!("said {:?}", said.map(|block| hex(&block)))),
        }
        match received {
            Ok(_) if vector.output.has("ok") => check_server(&mut session, &vector.output.get("ok")),
            Ok(_) => Err("accepted".to_owned()),
            Err(reason) => vector.output.expect("error", reference_name(reason)),
        }
    });
}

#[test]
fn received_server_hellos() {
    run("hello.jsonl", "parse-server-hello", |vector| {
        let tls = Certificates::named(&vector.input.text("tlsServerChain")?);
        let client_versions = range(&vector.input, "clientRange")?;
        let mut session =
            client_session(vector.input.bytes("keyHash")?, &tls.chain, client_versions, &vector.input)?;
        match closed(session.receive(plain_block(&vector.input.bytes("content")?), NOW)) {
            Ok(_) if vector.output.has("ok") => {
                let hello = session.take_handshake_block().ok_or("no client hello")?;
                vector.output.expect_bytes("clientHello", content(&hello)?)?;
                check_client(&mut session, &vector.output.get("ok"))
            }
            Ok(_) => Err("accepted".to_owned()),
            Err(reason) => vector.output.expect("error", reference_name(reason)),
        }
    });
}

fn auth_secret(der: &[u8]) -> Result<AuthSecret, String> {
    match SecretKey::from_der(der).map_err(|error| error.to_string())? {
        SecretKey::Ed25519(key) => Ok(AuthSecret::Ed25519(key)),
        SecretKey::Ed448(key) => Ok(AuthSecret::Ed448(key)),
        SecretKey::X25519(key) => Ok(AuthSecret::X25519(key)),
        SecretKey::X448(_) => Err("an X448 key".to_owned()),
    }
}

/// A pair whose relay has the key that the vectors' authenticators are made with.
fn pair(version: i64) -> Pair {
    Pair::connect(&Certificates::named("ed25519"), &PairOptions::at(version as u16)).expect("a handshake")
}

#[test]
fn transmissions() {
    let certificates_of_service = Cell::new(0);
    run("transmissions.jsonl", "transmission", |vector| {
        if !vector.input.get("service").is_null() {
            certificates_of_service.set(certificates_of_service.get() + 1);
            return check_service_signatures(vector);
        }
        let options = PairOptions {
            session: vector.input.bytes("sessionId")?,
            ..PairOptions::at(vector.input.integer("v")? as u16)
        };
        let mut pair =
            Pair::connect(&Certificates::named("ed25519"), &options).map_err(|reason| reason.to_string())?;
        // The client of an encrypted session would encrypt it: so both ends of the relay's reading are compared.
        let expected = vector.output.bytes("block")?;
        let Some(transmission) = Batch::parse(&expected).and_then(|mut batch| batch.next()) else {
            return Err("not a batch".to_owned());
        };
        let session = pair.server.facts().session_id.as_bytes().to_vec();
        let layout = smp_proto::wire::transmission::SessionLayout {
            version: pair.server.version().ok_or("no version")?,
            session: &session,
        };
        let parsed =
            Transmission::decode_command(transmission, layout).map_err(|error| format!("{error:?}"))?;
        let key = match vector.input.get("key") {
            key if key.is_null() => None,
            key => Some(auth_secret(&key.bytes("pkcs8")?)?),
        };
        // The client makes the same bytes.
        let mut block = BytesMut::zeroed(BLOCK_LENGTH);
        let bytes = block.as_mut().try_into().map_err(|_| "length")?;
        let mut added = Ok(());
        let sealed = pair.client.seal(bytes, NOW, |writer| {
            added = writer.add(&parsed.correlation, &parsed.entity, &parsed.content, key.as_ref());
        });
        added.map_err(|error| error.to_string())?;
        assert_eq!(sealed, Ok(true));
        let opened = pair.to_server(block).map_err(|reason| reason.to_string())?;
        vector.output.expect_bytes("block", opened.content())?;
        // The relay verifies them, with the right key only.
        for right in [true, false] {
            let mut chunk = pair.server.parse(&opened).next_chunk().ok_or("no requests")?;
            fill_authority(&mut chunk, key.as_ref(), right)?;
            let verified = pair.server.verify(chunk, &mut GivenEntropy::new(&[3; 32]));
            if verified.first().is_none_or(|one| one.is_authorized() != right) {
                return Err(format!("with the {} key: {verified:?}", if right { "right" } else { "wrong" }));
            }
        }
        Ok(())
    });
    assert!(vectors::folder().1.then(|| certificates_of_service.get()).is_none_or(|count| count > 10));
}

/// What a service's transmissions are signed with: the queue's key over the certificate's hash and the rest, the service's
/// key over the rest alone. (That a session verifies just this, see its own tests.)
fn check_service_signatures(vector: &vectors::Vector) -> Outcome {
    let block = vector.output.bytes("block")?;
    let transmission = Batch::parse(&block).and_then(|mut batch| batch.next()).ok_or("not a batch")?;
    let session = vector.input.bytes("sessionId")?;
    let version = smp_proto::wire::version::Version(vector.input.integer("v")? as u16);
    let layout = smp_proto::wire::transmission::SessionLayout { version, session: &session };
    let parsed = Transmission::decode_command(transmission, layout).map_err(|error| format!("{error:?}"))?;
    let service = vector.input.get("service");
    let hash = service.bytes("certHash")?;
    let prefix = [&[session.len() as u8], &session[..]].concat();
    let is_bound =
        matches!(parsed.content, Command::New(_) | Command::Subscribe | Command::SubscribeNotifications);
    let covered = if is_bound {
        [&hash[..], &prefix, parsed.signed_tail].concat()
    } else {
        [&prefix[..], parsed.signed_tail].concat()
    };
    vector.output.expect_bytes("signed", &covered)?;
    if is_bound != parsed.service_signature.is_some() {
        return Err("a service signature where there is none, or the other way round".into());
    }
    if let Some(signature) = parsed.service_signature {
        let key = smp_proto::keys::Ed25519Secret::from_bytes(service.array("sessionPrivateKey")?);
        let expected = Portable.ed25519_sign(&key, &[&prefix, parsed.signed_tail]);
        if expected != *signature {
            return Err("the service's signature".into());
        }
    }
    if let (Authorization::Ed25519(signature), false) =
        (parsed.authorization, vector.input.get("key").is_null())
    {
        let secret = auth_secret(&vector.input.get("key").bytes("pkcs8")?)?;
        let AuthSecret::Ed25519(key) = &secret else {
            return Err("another kind of key".into());
        };
        if Portable.ed25519_sign(key, &[&covered]) != *signature {
            return Err("the queue's signature".into());
        }
    }
    Ok(())
}

/// Tells the relay who may send: the owner of `key`, or (not `right`) somebody else.
fn fill_authority(chunk: &mut RequestChunk<'_>, key: Option<&AuthSecret>, right: bool) -> Outcome {
    let Some(Request::Command { authority, .. }) = chunk.first_mut() else {
        return Err(format!("{chunk:?}"));
    };
    *authority = match key {
        _ if !right => Authority::Unknown,
        None => Authority::Unsecured,
        Some(key) => Authority::Key(key.public(&Portable)),
    };
    Ok(())
}

#[test]
fn parsed_blocks() {
    run("transmissions.jsonl", "parse-block", |vector| {
        // No key, so that the content can be given as it is.
        let version = vector.input.integer("v")? as u16;
        let options = PairOptions { sends_key: false, ..PairOptions::at(version) };
        let mut pair =
            Pair::connect(&Certificates::named("ed25519"), &options).map_err(|reason| reason.to_string())?;
        let block = plain_block(&vector.input.bytes("content")?);
        let block = pair.to_server(block).map_err(|reason| reason.to_string())?;
        let results = vector.output.get("results").items()?;
        let requests: Vec<_> = pair.server.parse(&block).collect();
        if requests.len() != results.len() {
            return Err(format!("{} requests", requests.len()));
        }
        for (request, expected) in requests.iter().zip(&results) {
            match request {
                Request::Command { transmission, .. } => {
                    expected.get("ok").expect("tag", String::from_utf8_lossy(transmission.content.tag()))?;
                    expected.expect_bytes("corrId", transmission.correlation.as_bytes())?;
                    expected.expect_bytes("entityId", transmission.entity.as_bytes())?;
                    let authorized =
                        [pair.server.facts().session_id.prefixed(), transmission.signed_tail].concat();
                    expected.expect_bytes("authorized", &authorized)?;
                }
                Request::Malformed { correlation, entity, error } => {
                    let mut text = Vec::new();
                    error.encode(&mut text).map_err(|error| error.to_string())?;
                    expected.expect("error", json!(String::from_utf8_lossy(&text)))?;
                    expected.expect_bytes("corrId", correlation.as_bytes())?;
                    expected.expect_bytes("entityId", entity.as_bytes())?;
                }
            }
        }
        Ok(())
    });
}

#[test]
fn encrypted_blocks_are_read_in_order_and_only_so() {
    // The three blocks of `encrypted-server-3`, made as the crypto room's vectors say.
    let first = vectors::read("transmissions.jsonl");
    let Some(line) = first.iter().find(|vector| vector.id == "encrypted-server-3") else { return };
    let contents: Vec<Vec<u8>> =
        line.input.get("contents").items().unwrap().iter().map(|one| one.as_bytes().unwrap()).collect();
    let keys = smp_proto::crypto::chain_keys::InitialChainKeys::new(
        &Portable,
        &line.input.bytes("sessionId").unwrap(),
        &smp_proto::crypto::SharedSecret::from_bytes(line.input.array("dhSecret").unwrap()),
    );
    let mut chain = keys.server_sends;
    let mut blocks = Vec::new();
    for (content, expected) in contents.iter().zip(line.output.get("blocks").items().unwrap()) {
        let mut block = [0; BLOCK_LENGTH];
        block[CONTENT_OFFSET..][..content.len()].copy_from_slice(content);
        chain.seal_block(&Portable, &mut block, content.len()).unwrap();
        let digest = Fields(json!({ "b": expected.0 }));
        assert_eq!(digest.get("b").bytes("block_first32").unwrap(), block[..32]);
        blocks.push(block);
    }
    run("transmissions.jsonl", "receive-encrypted", |vector| {
        let mut tampered = blocks[0];
        tampered[1000] ^= 1;
        let blocks: Vec<BytesMut> = match vector.input.text("case")?.as_str() {
            "inorder" => blocks.iter().map(|block| BytesMut::from(&block[..])).collect(),
            "skip" => vec![BytesMut::from(&blocks[1][..])],
            "repeat" => vec![BytesMut::from(&blocks[0][..]), BytesMut::from(&blocks[0][..])],
            "tampered" => vec![BytesMut::from(&tampered[..])],
            "plain" => vec![plain_block(b"\x01\x00\x03abc")],
            other => return Err(format!("unknown case {other}")),
        };
        let mut pair = pair(18);
        for (block, expected) in blocks.into_iter().zip(vector.output.get("results").items()?) {
            match pair.to_client(block) {
                Ok(block) => expected.expect_bytes("content", block.content())?,
                // The session ends here; the reference leaves that to its caller.
                Err(reason) => return expected.expect("error", reference_name(reason)),
            }
        }
        Ok(())
    });
    run("transmissions.jsonl", "encrypted-block-full", |vector| {
        if vector.input.text("ref")? != "encrypted-server-3" {
            return Ok(());
        }
        let block = BytesMut::from(&vector.output.bytes("block")?[..]);
        let block = pair(18).to_client(block).map_err(|reason| reason.to_string())?;
        if block.content() == contents[0] { Ok(()) } else { Err(hex(block.content())) }
    });
}

#[test]
fn batches_of_subscriptions() {
    run("transmissions.jsonl", "batch-sub", |vector| {
        let mut pair = pair(vector.input.integer("v")?);
        let secret = smp_proto::keys::Ed25519Secret::from_bytes(vector.input.array("privateKey")?);
        let key = AuthSecret::Ed25519(secret);
        let count = vector.input.size("n")?;
        let named = |index: usize, step: usize| -> Identifier {
            std::array::from_fn::<u8, 24, _>(|byte| (index * step + byte) as u8).into()
        };
        let (mut next, mut contents) = (0, Vec::new());
        while next < count {
            let mut block = BytesMut::zeroed(BLOCK_LENGTH);
            let bytes = block.as_mut().try_into().map_err(|_| "length")?;
            let sealed = pair.client.seal(bytes, NOW, |writer| {
                while next < count
                    && writer.add(&named(next, 1), &named(next, 2), &Command::Subscribe, Some(&key)).is_ok()
                {
                    next += 1;
                }
            });
            assert_eq!(sealed, Ok(true));
            let block = pair.to_server(block).map_err(|reason| reason.to_string())?;
            let mut requests = pair.server.parse(&block);
            while let Some(mut chunk) = requests.next_chunk() {
                for request in &mut chunk {
                    let Request::Command { authority, .. } = request else {
                        return Err(format!("{request:?}"));
                    };
                    *authority = Authority::Key(key.public(&Portable));
                }
                contents.push((block.content().to_vec(), chunk.len()));
            }
        }
        let blocks = vector.output.get("blocks").items()?;
        // Where batches are cut is not part of the protocol (the reference fills from the back): how many fit is.
        let mut expected: Vec<usize> =
            blocks.iter().map(|block| block.size("count")).collect::<Result<_, _>>()?;
        expected.sort_unstable();
        let mut counts: Vec<usize> = Vec::new();
        let mut last: Option<&Vec<u8>> = None;
        for (content, requests) in &contents {
            match counts.last_mut() {
                Some(count) if last == Some(content) => *count += requests,
                _ => counts.push(*requests),
            }
            last = Some(content);
        }
        let first = counts.clone();
        counts.sort_unstable();
        if counts != expected {
            return Err(format!("{first:?} instead of {expected:?}"));
        }
        if let ([one], [block]) = (&contents[..], &blocks[..]) {
            block.expect_bytes("content", &one.0)?;
        }
        Ok(())
    });
}

#[test]
fn keys_of_another_kind_do_not_authorize() {
    // A key that the vectors do not use: for the compiler, that the relay's key is the one of the vectors.
    let pair = pair(14);
    let expected = "358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254";
    let key: [u8; 32] = vectors::decode_hex(expected).unwrap().try_into().unwrap();
    assert_eq!(pair.client.relay_key(), Some(&X25519Public(key)));
    assert_eq!(pair.server.hello_key(), X25519Public(key));
}
