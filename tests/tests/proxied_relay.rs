//! What a client makes of what a proxy shows and answers: a proxy cannot put another relay in the place of the one that was
//! asked for, nor answers of its own in the place of that relay's.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use smp_proto::client::queue::SenderQueue;
use smp_proto::client::{
    Action, Client, ClientCommand, ClientConfig, CommandFailure, Event, NotTheRelay, ProxiedRelay, Reply,
};
use smp_proto::crypto::certificates::InvalidChain;
use smp_proto::crypto::proxy_layers::{self, INNER_SEALED_LENGTH};
use smp_proto::crypto::{BoxKey, Portable, Provider, signed_key};
use smp_proto::entropy::SeededEntropy;
use smp_proto::keys::{PublicKey, X25519Secret};
use smp_proto::session::client::ClientSessionConfig;
use smp_proto::session::outgoing::{Outgoing, OutgoingContent, ProxySession};
use smp_proto::session::request::Request;
use smp_proto::session::server::{Received, ServerSession};
use smp_proto::time::{Instant, Now, UnixTime};
use smp_proto::wire::address::ServerAddress;
use smp_proto::wire::command::Command;
use smp_proto::wire::error::SmpError;
use smp_proto::wire::hello::CertificateChain;
use smp_proto::wire::version::Version;
use smp_proto::wire::{CorrelationId, EntityId, Identifier};
use smp_tests::sessions::{Certificates, facts, versions};

/// A day on which all certificates are valid.
const NOW: Now = Now { instant: Instant::from_micros(1_000_000), wall: UnixTime(1_800_000_000) };

/// A client, and a proxy that says whatever the test wants.
struct World {
    client: Client,
    server: ServerSession,
    entropy: SeededEntropy,
    now: Now,
}

/// What the proxy read.
struct Asked {
    correlation: CorrelationId,
    entity: EntityId,
    /// The client's key and the inner box, of `PFWD`.
    forward: Option<(smp_proto::keys::X25519Public, Vec<u8>)>,
}

impl World {
    fn new() -> Self {
        let certificates = Certificates::named("ed25519");
        let mut entropy = SeededEntropy::new([3; 32]);
        let config = ClientConfig::new(ClientSessionConfig::new(certificates.fingerprint.clone(), &Portable));
        let mut client = Client::new(config);
        let relay = Arc::new(certificates.relay(versions(6, 18), &Portable));
        let mut server = ServerSession::new(&relay, facts(true, &[]), NOW, &mut entropy).unwrap();
        client.connect();
        assert_eq!(client.poll_action(), Some(Action::Dial));
        client.connected(facts(true, &certificates.chain), NOW, &mut entropy).unwrap();
        client.receive(server.take_handshake_block().unwrap(), NOW, &mut entropy).unwrap();
        let hello = client.poll_block(NOW, &mut entropy).unwrap();
        assert!(matches!(server.receive(hello, NOW), Ok(Received::Established(_))));
        Self { client, server, entropy, now: NOW }
    }

    fn ask(
        &mut self,
        command: ClientCommand,
        answer: impl FnOnce(&Asked) -> OutgoingContent,
    ) -> Result<Reply, CommandFailure> {
        while self.client.poll_event().is_some() {}
        let id = self.client.submit(command, self.now).unwrap();
        let block = self.client.poll_block(self.now, &mut self.entropy).unwrap();
        let Ok(Received::Commands(block)) = self.server.receive(block, self.now) else { panic!("not read") };
        let Some(Request::Command { transmission, .. }) = self.server.parse(&block).next() else {
            panic!("no command")
        };
        let asked = Asked {
            correlation: transmission.correlation.clone(),
            entity: transmission.entity.clone(),
            forward: match &transmission.content {
                Command::ProxyForward { key, transmission, .. } => Some((*key, transmission.to_vec())),
                _ => None,
            },
        };
        let content = answer(&asked);
        let mut outgoing = VecDeque::from([Outgoing::new(asked.correlation, asked.entity, content)]);
        let block = self.server.pack(&mut outgoing, self.now).unwrap();
        self.client.receive(block, self.now, &mut self.entropy).unwrap();
        match self.client.poll_event() {
            Some(Event::Response { command, result }) if command == id => result,
            other => panic!("{other:?}"),
        }
    }
}

fn relay_secret() -> X25519Secret {
    X25519Secret::from_bytes([0x44; 32])
}

fn relay_key() -> PublicKey {
    PublicKey::X25519(Portable.x25519_public(&relay_secret()))
}

fn address(fingerprint: &[u8]) -> ServerAddress {
    let mut address: ServerAddress = "smp://AAAA@relay.example.com".parse().unwrap();
    address.fingerprint = fingerprint.to_vec();
    address
}

fn wire(chain: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    CertificateChain::write(chain, &mut bytes).unwrap();
    bytes
}

/// What an honest proxy shows.
fn shown(certificates: &Certificates) -> ProxySession {
    ProxySession {
        session: Identifier::new(&[9; 32]).unwrap(),
        versions: versions(8, 18),
        chain: wire(&certificates.chain),
        signed_key: signed_key::sign(&Portable, &certificates.key, &relay_key()),
    }
}

fn reach(world: &mut World, asked: &Certificates, shown: ProxySession) -> Result<Reply, CommandFailure> {
    let command = ClientCommand::proxy_connect(address(&asked.fingerprint), None);
    world.ask(command, |_| OutgoingContent::ProxySession(Arc::new(shown)))
}

fn not_the_relay(error: NotTheRelay) -> Result<Reply, CommandFailure> {
    Err(CommandFailure::NotTheRelay(error))
}

#[test]
fn a_proxy_can_show_only_the_relay_that_was_asked_for() {
    let mut world = World::new();
    let (one, other) = (Certificates::named("ed25519"), Certificates::named("ed448"));
    for certificates in [&one, &other] {
        let found = reach(&mut world, certificates, shown(certificates));
        let Ok(Reply::ProxiedRelay(relay)) = found else { panic!("{found:?}") };
        assert_eq!(relay.version(), Version(18));
    }
    // Another relay.
    let found = reach(&mut world, &one, shown(&other));
    assert_eq!(found, not_the_relay(NotTheRelay::WrongFingerprint));
    // The right identity, beside a leaf that it has not signed.
    let mixed = vec![other.chain[0].clone(), one.chain[1].clone()];
    let mut lie = ProxySession { chain: wire(&mixed), ..shown(&other) };
    let not_signed = not_the_relay(NotTheRelay::InvalidChain(InvalidChain::NotSigned));
    assert_eq!(reach(&mut world, &one, lie), not_signed);
    // With the anchor that would vouch for that leaf behind it.
    let longer = vec![other.chain[0].clone(), one.chain[1].clone(), other.chain[1].clone()];
    lie = ProxySession { chain: wire(&longer), ..shown(&other) };
    assert_eq!(reach(&mut world, &one, lie), not_signed);
    // A leaf that was changed.
    let mut chain = one.chain.clone();
    let last = chain[0].len() - 1;
    chain[0][last] ^= 1;
    let lie = ProxySession { chain: wire(&chain), ..shown(&one) };
    assert_eq!(reach(&mut world, &one, lie), not_signed);
    // Too few or too many certificates.
    for chain in [vec![], vec![one.chain[1].clone()], vec![one.chain[1].clone(); 5]] {
        let lie = ProxySession { chain: wire(&chain), ..shown(&one) };
        assert_eq!(reach(&mut world, &one, lie), not_the_relay(NotTheRelay::WrongFingerprint));
    }
    // What is no certificate at all.
    let lie = ProxySession { chain: wire(&[vec![0x30; 50], one.chain[1].clone()]), ..shown(&one) };
    assert_eq!(
        reach(&mut world, &one, lie),
        not_the_relay(NotTheRelay::InvalidChain(InvalidChain::Unreadable))
    );
}

#[test]
fn the_key_must_be_the_relays() {
    let mut world = World::new();
    let (one, other) = (Certificates::named("ed25519"), Certificates::named("ed448"));
    let mut changed = shown(&one).signed_key;
    *changed.last_mut().unwrap() ^= 1;
    let not_dh =
        PublicKey::Ed25519(Portable.ed25519_public(&smp_proto::keys::Ed25519Secret::from_bytes([1; 32])));
    for lie in [
        signed_key::sign(&Portable, &other.key, &relay_key()),
        signed_key::sign(&Portable, &one.key, &not_dh),
        changed,
        Vec::new(),
    ] {
        let found = reach(&mut world, &one, ProxySession { signed_key: lie, ..shown(&one) });
        assert_eq!(found, not_the_relay(NotTheRelay::KeyNotVerified));
    }
}

#[test]
fn versions_names_and_dates_are_checked() {
    let mut world = World::new();
    let one = Certificates::named("ed25519");
    for range in [versions(6, 7), versions(19, 30)] {
        let found = reach(&mut world, &one, ProxySession { versions: range, ..shown(&one) });
        assert_eq!(found, not_the_relay(NotTheRelay::NoCommonVersion(range)));
    }
    let found = reach(&mut world, &one, ProxySession { versions: versions(8, 99), ..shown(&one) });
    assert!(matches!(found, Ok(Reply::ProxiedRelay(relay)) if relay.version() == Version(18)));
    let found = reach(&mut world, &one, ProxySession { session: Identifier::EMPTY, ..shown(&one) });
    assert_eq!(found, not_the_relay(NotTheRelay::NoSession));
    for wall in [1_600_000_000, 5_000_000_000] {
        world.now.wall = UnixTime(wall);
        let found = reach(&mut world, &one, shown(&one));
        assert_eq!(found, not_the_relay(NotTheRelay::InvalidChain(InvalidChain::NotValidNow)));
    }
}

/// The client's command in a `PFWD`, as the relay reads it, and an answer to it that says `content`.
fn answered(asked: &Asked, content: &[u8], correlation: Option<&[u8]>, copies: u8) -> Bytes {
    let (key, _) = asked.forward.as_ref().unwrap();
    let inner = BoxKey::agree(&Portable, &relay_secret(), key);
    let name = correlation.unwrap_or(asked.correlation.as_bytes());
    let mut transmission = vec![0, u8::try_from(name.len()).unwrap()];
    transmission.extend_from_slice(name);
    transmission.push(24);
    transmission.extend_from_slice(&[1; 24]);
    transmission.extend_from_slice(content);
    let mut batch = vec![copies];
    for _ in 0..copies {
        batch.extend_from_slice(&u16::try_from(transmission.len()).unwrap().to_be_bytes());
        batch.extend_from_slice(&transmission);
    }
    let mut sealed = [0; INNER_SEALED_LENGTH];
    let nonce = asked.correlation.as_bytes();
    proxy_layers::seal_response(&Portable, &inner, nonce, &batch, &mut sealed).unwrap();
    Bytes::copy_from_slice(&sealed)
}

fn reached(world: &mut World) -> Arc<ProxiedRelay> {
    let one = Certificates::named("ed25519");
    match reach(world, &one, shown(&one)) {
        Ok(Reply::ProxiedRelay(relay)) => relay,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_the_relays_own_answer_to_this_very_command_counts() {
    let mut world = World::new();
    let relay = reached(&mut world);
    let queue = SenderQueue { sender: [1; 24].into(), key: None };
    let send = || queue.send(false, Bytes::from_static(b"hello")).through(&relay);
    let mut say = |make: &dyn Fn(&Asked) -> Bytes| {
        world.ask(send(), |asked| OutgoingContent::ProxyResponse(make(asked)))
    };
    assert_eq!(say(&|asked| answered(asked, b"OK", None, 1)), Ok(Reply::Ok));
    let quota = Err(CommandFailure::Refused(SmpError::Quota));
    assert_eq!(say(&|asked| answered(asked, b"ERR QUOTA", None, 1)), quota);
    let lies: [&dyn Fn(&Asked) -> Bytes; 8] = [
        &|_| Bytes::new(),
        &|_| Bytes::from(vec![0; INNER_SEALED_LENGTH]),
        // The command itself, sent back.
        &|asked| Bytes::from(asked.forward.clone().unwrap().1),
        &|asked| answered(asked, b"OK", Some(&[5; 24]), 1),
        &|asked| answered(asked, b"OK", Some(b""), 1),
        &|asked| answered(asked, b"OK", None, 2),
        &|asked| answered(asked, b"OK", None, 0),
        &|asked| answered(asked, b"PONG", None, 1),
    ];
    for lie in lies {
        assert_eq!(say(lie), Err(CommandFailure::Unexpected));
    }
    // What the proxy says itself is never taken for what the relay says.
    let ok = world.ask(send(), |_| OutgoingContent::Ok);
    assert_eq!(ok, Err(CommandFailure::Unexpected));
    let refused = world.ask(send(), |_| OutgoingContent::Error(SmpError::Authorization));
    assert_eq!(refused, Err(CommandFailure::NotForwarded(SmpError::Authorization)));
}

#[test]
fn every_command_has_a_key_of_its_own_and_one_size() {
    let mut world = World::new();
    let relay = reached(&mut world);
    let queue = SenderQueue { sender: [1; 24].into(), key: None };
    let (mut keys, mut texts) = (Vec::new(), Vec::new());
    for length in [0, 1, 100, 16_048, 1] {
        let send = queue.send(false, vec![7; length].into()).through(&relay);
        let done = world.ask(send, |asked| {
            let (key, sealed) = asked.forward.clone().unwrap();
            assert_eq!(sealed.len(), INNER_SEALED_LENGTH);
            keys.push(key);
            texts.push(sealed);
            OutgoingContent::ProxyResponse(answered(asked, b"OK", None, 1))
        });
        assert_eq!(done, Ok(Reply::Ok));
    }
    for index in 1..keys.len() {
        assert!(!keys[..index].contains(&keys[index]) && !texts[..index].contains(&texts[index]));
    }
}
