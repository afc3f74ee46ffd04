//! A command through a proxy and its response back, all layers, against the reference's vectors (`proxy.jsonl`).
//!
//! Transmissions are put together here by hand, from WIRE-FACTS 4.7 and 5: so the layers are tested without the wire room.
#![allow(missing_docs)]

use std::collections::VecDeque;

use smp_proto::crypto::proxy_layers::{
    self, ForwardedCommand, ForwardedResponse, INNER_PADDED_LENGTH, INNER_SEALED_LENGTH,
};
use smp_proto::crypto::{BoxKey, Portable, Provider, SharedSecret, authenticator, signatures};
use smp_proto::keys::{SecretKey, SigningKey, X25519Public, X25519Secret};
use smp_proto::session::AuthSecret;
use smp_proto::session::outgoing::{LinkAnswer, OutgoingContent};
use smp_proto::session::request::{Authority, Request};
use smp_proto::wire::block::plain_content;
use smp_proto::wire::command::Command;
use smp_proto::wire::error::SmpError;
use smp_proto::wire::version::Version;
use smp_runtime_std::fast_cryptography::Fast;
use smp_tests::sessions::{Certificates, GivenEntropy, NOW, Pair, PairOptions, plain_block};
use smp_tests::vectors::{self, Fields, Outcome, Vector, run};

const PROVIDERS: [&dyn Provider; 2] = [&Portable, &Fast];

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn short(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).expect("a short string")], bytes].concat()
}

fn large(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).expect("a large string").to_be_bytes(), bytes].concat()
}

/// The content of a block with one transmission without authorization.
fn block(correlation: &[u8], entity: &[u8], command: &[u8]) -> Vec<u8> {
    [vec![1], large(&[vec![0], short(correlation), short(entity), command.to_vec()].concat())].concat()
}

fn command(fields: &Fields) -> Result<Vec<u8>, String> {
    let tag = fields.text("tag")?;
    Ok(match tag.as_str() {
        "SEND" => {
            let flag = if fields.get("flags").boolean("notification")? { b"T " } else { b"F " };
            [&b"SEND "[..], &flag[..], &fields.bytes("body")?].concat()
        }
        "SKEY" | "LKEY" => [tag.as_bytes(), b" ", &short(&fields.bytes("key")?)].concat(),
        "LGET" => b"LGET".to_vec(),
        other => return Err(format!("{other} is not forwarded")),
    })
}

fn response(fields: &Fields) -> Result<Vec<u8>, String> {
    Ok(match fields.text("tag")?.as_str() {
        "OK" => b"OK".to_vec(),
        "ERR" => [b"ERR ", fields.text("text")?.as_bytes()].concat(),
        "LNK" => [
            b"LNK ".to_vec(),
            short(&fields.bytes("sndId")?),
            large(&fields.bytes("fixedData")?),
            large(&fields.bytes("userData")?),
        ]
        .concat(),
        other => return Err(format!("{other} answers no forwarded command")),
    })
}

/// The authorization of the command: by the entity's key, or none.
fn authorization(
    provider: &dyn Provider,
    key: &Fields,
    relay: &X25519Public,
    correlation: &[u8],
    authorized: &[u8],
) -> Result<Vec<u8>, String> {
    if key.is_null() {
        return Ok(Vec::new());
    }
    let secret = SecretKey::from_der(&key.bytes("pkcs8")?).map_err(text)?;
    if let SecretKey::X25519(secret) = &secret {
        let key = BoxKey::agree(provider, secret, relay);
        return Ok(authenticator::create(provider, &key, correlation, &[authorized]).to_vec());
    }
    let secret = SigningKey::try_from(secret).map_err(text)?;
    Ok(signatures::sign(provider, &secret, &[authorized]).as_bytes().to_vec())
}

fn check(provider: &dyn Provider, vector: &Vector) -> Outcome {
    let (input, output) = (&vector.input, &vector.output);
    let version = u16::try_from(input.integer("relayVersion")?).map_err(text)?;
    let session = input.bytes("relaySessionId")?;
    let (n, m, entity) = (input.bytes("n")?, input.bytes("m")?, input.bytes("entityId")?);
    let relay = X25519Public::from_der(&input.bytes("relayPublicKey")?).map_err(text)?;
    let client_key = X25519Public::from_der(&input.bytes("ephemeralPublicKey")?).map_err(text)?;
    let secret = |key: &str| Ok::<_, String>(X25519Secret::from_bytes(input.array(key)?));
    let (relay_secret, proxy_secret) = (secret("relayPrivateKey")?, secret("proxyPrivateKey")?);
    let client_secret = SharedSecret::agree(provider, &secret("ephemeralPrivateKey")?, &relay);
    let session_secret = SharedSecret::agree(provider, &proxy_secret, &relay);
    output.expect_bytes("clientSecret", client_secret.as_bytes())?;
    output.expect_bytes("sessSecret", session_secret.as_bytes())?;
    let (client, proxy) = (client_secret.box_key(), session_secret.box_key());

    // The client.
    let command = command(&input.get("cmd"))?;
    let authorized = [short(&session), short(&n), short(&entity), command.clone()].concat();
    output.expect_bytes("authorized", &authorized)?;
    let authorization = authorization(provider, &input.get("key"), &relay, &n, &authorized)?;
    let no_service: &[u8] = if version >= 16 && !authorization.is_empty() { b"0" } else { b"" };
    let transmission =
        [&short(&authorization)[..], no_service, &short(&n), &short(&entity), &command].concat();
    let inner = [vec![1], large(&transmission)].concat();
    output.expect_bytes("innerBlock", &inner)?;
    let mut sealed = [0; INNER_SEALED_LENGTH];
    proxy_layers::seal_command(provider, &client, &n, &inner, &mut sealed).map_err(text)?;
    output.expect_bytes("encTransmission", &sealed)?;
    let forward =
        [b"PFWD ".to_vec(), version.to_be_bytes().to_vec(), short(&client_key.to_der()), sealed.to_vec()]
            .concat();
    output.expect_bytes("pfwdBlock", &block(&n, &session, &forward))?;

    // The proxy.
    let forwarded = ForwardedCommand { correlation: &n, version, client_key, sealed: &sealed };
    let mut outer = proxy_layers::seal_forwarded_command(provider, &proxy, &m, &forwarded).map_err(text)?;
    output.expect_bytes("encFwdTransmission", &outer)?;
    output.expect_bytes("rfwdBlock", &block(&m, b"", &[b"RFWD ", &outer[..]].concat()))?;

    // The relay, with its own private key.
    let proxy_key = BoxKey::agree(provider, &relay_secret, &provider.x25519_public(&proxy_secret));
    let opened = proxy_layers::open_forwarded_command(provider, &proxy_key, &m, &mut outer).map_err(text)?;
    output.expect_bytes("fwdTransmission", opened)?;
    let parsed = ForwardedCommand::parse(opened).ok_or("what is forwarded cannot be read")?;
    if parsed != forwarded {
        return Err("something else is forwarded".to_owned());
    }
    let relay_key = BoxKey::agree(provider, &relay_secret, &parsed.client_key);
    let mut received = parsed.sealed.to_vec();
    if proxy_layers::open_command(provider, &relay_key, parsed.correlation, &mut received).map_err(text)?
        != inner
    {
        return Err("the relay finds another command".to_owned());
    }
    let answer = block(&n, &entity, &response(&input.get("response"))?);
    output.expect_bytes("innerResponse", &answer)?;
    proxy_layers::seal_response(provider, &relay_key, &n, &answer, &mut sealed).map_err(text)?;
    output.expect_bytes("encResponse", &sealed)?;
    let forwarded = ForwardedResponse { correlation: &n, sealed: &sealed };
    let mut outer =
        proxy_layers::seal_forwarded_response(provider, &proxy_key, &m, &forwarded).map_err(text)?;
    output.expect_bytes("encFwdResponse", &outer)?;
    output.expect_bytes("rresBlock", &block(&m, b"", &[b"RRES ", &outer[..]].concat()))?;

    // Back through the proxy to the client.
    let opened = proxy_layers::open_forwarded_response(provider, &proxy, &m, &mut outer).map_err(text)?;
    output.expect_bytes("fwdResponse", opened)?;
    let parsed = ForwardedResponse::parse(opened).ok_or("the response cannot be read")?;
    if parsed != forwarded {
        return Err("another response comes back".to_owned());
    }
    output.expect_bytes(
        "presBlock",
        &block(parsed.correlation, &session, &[b"PRES ", parsed.sealed].concat()),
    )?;
    let mut received = parsed.sealed.to_vec();
    if proxy_layers::open_response(provider, &client, &n, &mut received).map_err(text)? != answer {
        return Err("the client finds another response".to_owned());
    }
    Ok(())
}

#[test]
fn proxy() {
    run("proxy.jsonl", "proxy", |vector| PROVIDERS.iter().try_for_each(|provider| check(*provider, vector)));
}

fn answer(fields: &Fields) -> Result<OutgoingContent, String> {
    Ok(match fields.text("tag")?.as_str() {
        "OK" => OutgoingContent::Ok,
        "ERR" => OutgoingContent::Error(
            SmpError::decode(fields.text("text")?.as_bytes()).ok_or("an error that cannot be read")?,
        ),
        "LNK" => OutgoingContent::Link(Box::new(LinkAnswer {
            sender: fields.array("sndId")?,
            fixed: fields.bytes("fixedData")?.into(),
            user: fields.bytes("userData")?.into(),
        })),
        other => return Err(format!("{other} answers no forwarded command")),
    })
}

/// The session of the destination: from the block with `RFWD` to the block with `RRES`.
fn check_relay(certificates: &Certificates, vector: &Vector) -> Outcome {
    let (input, output) = (&vector.input, &vector.output);
    let version = u16::try_from(input.integer("relayVersion")?).map_err(text)?;
    let (n, m) = (input.bytes("n")?, input.bytes("m")?);
    let options = PairOptions {
        proxy: true,
        server_secret: input.array("relayPrivateKey")?,
        client_secret: input.array("proxyPrivateKey")?,
        session: input.bytes("relaySessionId")?,
        ..PairOptions::at(18)
    };
    let mut pair = Pair::connect(certificates, &options).map_err(text)?;
    let client_key = X25519Public::from_der(&input.bytes("ephemeralPublicKey")?).map_err(text)?;
    let relay = X25519Public::from_der(&input.bytes("relayPublicKey")?).map_err(text)?;
    let secret = |key: &str| Ok::<_, String>(X25519Secret::from_bytes(input.array(key)?));
    let client = BoxKey::agree(&Portable, &secret("ephemeralPrivateKey")?, &relay);
    let proxy = BoxKey::agree(&Portable, &secret("proxyPrivateKey")?, &relay);
    // The same steps as above, which are compared there.
    let command = command(&input.get("cmd"))?;
    let key = input.get("key");
    let (session, entity) = (input.bytes("relaySessionId")?, input.bytes("entityId")?);
    let authorized = [short(&session), short(&n), short(&entity), command.clone()].concat();
    let authorization = authorization(&Portable, &key, &relay, &n, &authorized)?;
    let no_service: &[u8] = if version >= 16 && !authorization.is_empty() { b"0" } else { b"" };
    let transmission =
        [&short(&authorization)[..], no_service, &short(&n), &short(&entity), &command].concat();
    let mut sealed = [0; INNER_SEALED_LENGTH];
    let inner = [vec![1], large(&transmission)].concat();
    proxy_layers::seal_command(&Portable, &client, &n, &inner, &mut sealed).map_err(text)?;
    let forwarded = ForwardedCommand { correlation: &n, version, client_key, sealed: &sealed };
    let outer = proxy_layers::seal_forwarded_command(&Portable, &proxy, &m, &forwarded).map_err(text)?;
    let content = block(&m, b"", &[b"RFWD ", &outer[..]].concat());
    output.expect_bytes("rfwdBlock", &content)?;

    let opened = pair.to_server(plain_block(&content)).map_err(text)?;
    let mut chunk = pair.server.parse(&opened).next_chunk().ok_or("no requests")?;
    for request in &mut chunk {
        let Request::Command { authority, .. } = request else { return Err("not a command".to_owned()) };
        *authority = Authority::Nobody;
    }
    let mut entropy = GivenEntropy::new(&[3; 32]);
    let verified = pair.server.verify(chunk, &mut entropy).pop().ok_or("nothing verified")?;
    let forwarded = verified.into_forwarded().map_err(|other| format!("not opened: {other:?}"))?;
    let mut request = pair.server.forwarded_request(&forwarded);
    let Request::Command { authority, transmission } = &mut request else {
        return Err("not a command".to_owned());
    };
    *authority = match transmission.content {
        Command::GetLink => Authority::Nobody,
        Command::SecureBySender(_) | Command::SecureByLink(_) => Authority::KeyInCommand,
        _ if key.is_null() => Authority::Unsecured,
        _ => {
            let secret = match SecretKey::from_der(&key.bytes("pkcs8")?).map_err(text)? {
                SecretKey::X25519(secret) => AuthSecret::X25519(secret),
                SecretKey::Ed25519(secret) => AuthSecret::Ed25519(secret),
                SecretKey::Ed448(secret) => AuthSecret::Ed448(secret),
                other => return Err(format!("{other:?} authorizes nothing")),
            };
            Authority::Key(secret.public(&Portable))
        }
    };
    let verified =
        pair.server.verify_forwarded(request, &forwarded, &mut entropy).ok_or("nothing verified")?;
    if !verified.is_authorized() {
        return Err(format!("refused: {:?}", verified.refusal()));
    }
    let answer = verified.answer(answer(&input.get("response"))?);
    let packed = pair.server.pack(&mut VecDeque::from([answer]), NOW).ok_or("nothing packed")?;
    output.expect_bytes("rresBlock", plain_content(&packed).ok_or("not padded")?)
}

#[test]
fn proxy_relay_session() {
    let certificates = Certificates::named("ed25519");
    run("proxy.jsonl", "proxy", |vector| check_relay(&certificates, vector));
}

#[test]
fn proxy_pad() {
    run("proxy.jsonl", "proxy-pad", |vector| {
        if vector.input.size("paddedLen")? != INNER_PADDED_LENGTH {
            return Err("another padded length".to_owned());
        }
        let (key, content) = (BoxKey::from_symmetric(&[1; 32]), vec![0; vector.input.size("len")?]);
        let mut sealed = [0; INNER_SEALED_LENGTH];
        match proxy_layers::seal_command(&Portable, &key, &[2; 24], &content, &mut sealed) {
            Ok(()) => vector.output.expect("result", sealed.len()),
            Err(_) => vector.output.expect("result", "CryptoLargeMsgError"),
        }
    });
}

/// The values of `proxy` in full: what is compared there by digest is this.
#[test]
fn proxy_blob() {
    let lines = vectors::read("proxy.jsonl");
    run("proxy.jsonl", "proxy-blob", |vector| {
        let id = vector.input.text("ref")?;
        let line = lines.iter().find(|line| line.id == id).ok_or(id)?;
        line.output.expect_bytes(&vector.input.text("name")?, &vector.output.bytes("value")?)
    });
}

#[test]
fn max_message_length() {
    run("proxy.jsonl", "max-message-length", |vector| {
        let version = Version(u16::try_from(vector.input.integer("v")?).map_err(text)?);
        vector.output.expect("maxMessageLength", version.max_message_length())
    });
}
