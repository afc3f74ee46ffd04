//! What forwarding costs, on both relays: `cargo bench -p smp-proto --bench proxy`.
//!
//! A command's whole way through the cores of a proxy and of a destination, blocks included, without sockets, TLS and
//! storage. Machines differ and are shared: judge by the ratio to the cryptography that nobody can do without, measured in
//! the same run: two boxes of 16 KB for the proxy; four of them and one X25519 agreement for the destination.
#![allow(missing_docs)]

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use smp_proto::broker::{Broker, BrokerConfig};
use smp_proto::crypto::proxy_layers::{self, INNER_SEALED_LENGTH};
use smp_proto::crypto::{BoxKey, Nonce, Portable, Provider};
use smp_proto::entropy::SeededEntropy;
use smp_proto::keys::{Ed25519Secret, SigningKey, X25519Secret};
use smp_proto::proxy::{Forward, ForwardId, LinkReceived, ProxyConfig, ProxyLink};
use smp_proto::session::identity::{KeyInMemory, ServerIdentity};
use smp_proto::session::server::{Received, ServerSession, ServerSessionConfig};
use smp_proto::session::{Protocol, SessionId, TransportFacts};
use smp_proto::time::Now;
use smp_proto::wire::block::BLOCK_LENGTH;
use smp_proto::wire::identifier::Identifier;
use smp_proto::wire::version::Version;

#[path = "support/mod.rs"]
mod support;

/// How many commands are forwarded in one measurement.
const COMMANDS: usize = 200;
/// How many measurements there are: the best one counts, as the machine is shared.
const ROUNDS: usize = 15;

struct World {
    server: ServerSession,
    link: ProxyLink,
    broker: Broker,
    entropy: SeededEntropy,
    relay_key: smp_proto::keys::X25519Public,
}

fn connect() -> World {
    let mut entropy = SeededEntropy::new([1; 32]);
    let secret = Ed25519Secret::generate(&mut entropy);
    let key = Portable.ed25519_public(&secret).to_der();
    let chain = vec![support::certificate(&key), support::certificate(&key)];
    let signer = Arc::new(KeyInMemory::new(SigningKey::Ed25519(secret), &Portable));
    let identity = ServerIdentity::new(chain.clone(), signer).expect("two certificates");
    let fingerprint = identity.fingerprint().to_vec();
    let facts = |peer_chain| TransportFacts {
        session_id: SessionId::new(&[7; 32]).expect("32 bytes"),
        protocol: Protocol::Smp,
        peer_chain,
    };
    let now = Now::default();
    let config = Arc::new(ServerSessionConfig::new(identity, &Portable));
    let mut server = ServerSession::new(&config, facts(Vec::new()), now, &mut entropy).expect("signs");
    let config = ProxyConfig::new(&Portable);
    let mut link = ProxyLink::new(&config, &fingerprint, facts(chain), now, &mut entropy);
    let hello = server.take_handshake_block().expect("a hello");
    assert!(matches!(link.receive(hello, now), Ok(LinkReceived::Open(_))));
    server.receive(link.take_handshake_block().expect("a hello"), now).expect("a good hello");
    let broker = Broker::new(BrokerConfig::default(), &mut entropy);
    let relay_key = server.hello_key();
    World { server, link, broker, entropy, relay_key }
}

/// A `SEND` of the largest message, as a client has it forwarded.
fn forward(world: &mut World, number: usize) -> Forward {
    let ephemeral = X25519Secret::generate(&mut world.entropy);
    let key = BoxKey::agree(&Portable, &ephemeral, &world.relay_key);
    let correlation: [u8; 24] = std::array::from_fn(|index| (number >> (8 * (index % 4))) as u8);
    let mut transmission = vec![0, 24];
    transmission.extend_from_slice(&correlation);
    transmission.push(24);
    transmission.extend_from_slice(&[9; 24]);
    transmission.extend_from_slice(b"SEND F ");
    transmission.resize(transmission.len() + 16_000, 7);
    let mut content = vec![1];
    content.extend_from_slice(&u16::try_from(transmission.len()).expect("fits").to_be_bytes());
    content.extend_from_slice(&transmission);
    let mut sealed = [0; INNER_SEALED_LENGTH];
    proxy_layers::seal_command(&Portable, &key, &correlation, &content, &mut sealed).expect("fits");
    Forward {
        id: ForwardId(number as u64),
        correlation: Identifier::from(correlation),
        version: Version::BLOCKED_NOTICE,
        client_key: Portable.x25519_public(&ephemeral),
        sealed: Bytes::copy_from_slice(&sealed),
        until: smp_proto::time::Instant::from_micros(u64::MAX),
    }
}

/// The time of one command at the proxy and at the destination.
fn round() -> (Duration, Duration) {
    let mut world = connect();
    let connection = world.broker.connect(Now::default()).expect("room");
    let forwards: Vec<_> = (0..COMMANDS).map(|number| forward(&mut world, number)).collect();
    let now = Now::default();
    let (mut at_proxy, mut at_destination) = (Duration::ZERO, Duration::ZERO);
    let mut outgoing = VecDeque::new();
    for forward in &forwards {
        let mut block = BytesMut::zeroed(BLOCK_LENGTH);
        let started = Instant::now();
        let bytes = block.as_mut().try_into().expect("a block");
        world.link.seal(forward, bytes, now, &mut world.entropy).expect("fits");
        at_proxy += started.elapsed();

        let started = Instant::now();
        let Ok(Received::Commands(opened)) = world.server.receive(block, now) else { panic!("not read") };
        let mut chunk = world.server.parse(&opened).next_chunk().expect("a command");
        world.broker.look_up(&mut chunk[0]);
        let verified = world.server.verify(chunk, &mut world.entropy).pop().expect("one");
        let forwarded = verified.into_forwarded().expect("a forwarded command");
        let mut request = world.server.forwarded_request(&forwarded);
        world.broker.look_up(&mut request);
        let verified = world.server.verify_forwarded(request, &forwarded, &mut world.entropy).expect("one");
        world.broker.execute(connection, verified, forwarded.block(), now, &mut world.entropy);
        world.broker.take_outgoing(connection, &mut outgoing);
        let answer = world.server.pack(&mut outgoing, now).expect("an answer");
        at_destination += started.elapsed();

        let started = Instant::now();
        let Ok(LinkReceived::Answers(answers)) = world.link.receive(answer, now) else { panic!("not read") };
        at_proxy += started.elapsed();
        assert!(answers.len() == 1 && answers[0].1.is_ok());
    }
    (at_proxy / COMMANDS as u32, at_destination / COMMANDS as u32)
}

fn best<T: Ord>(measure: impl FnMut() -> T) -> T {
    std::iter::repeat_with(measure).take(ROUNDS).min().expect("some rounds")
}

fn main() {
    let (mut proxy, mut destination) = (Duration::MAX, Duration::MAX);
    let (mut boxes, mut agreement) = (Duration::MAX, Duration::MAX);
    let key = BoxKey::from_symmetric(&[1; 32]);
    let (secret, public) = (X25519Secret::from_bytes([2; 32]), smp_proto::keys::X25519Public([9; 32]));
    for _ in 0..ROUNDS {
        let (at_proxy, at_destination) = round();
        proxy = proxy.min(at_proxy);
        destination = destination.min(at_destination);
        boxes = boxes.min(best(|| {
            let mut buffer = vec![0; 16_300];
            let started = Instant::now();
            black_box(Portable.box_seal(&key, &Nonce([3; 24]), &mut buffer));
            started.elapsed()
        }));
        agreement = agreement.min(best(|| {
            let started = Instant::now();
            black_box(BoxKey::agree(&Portable, &secret, &public));
            started.elapsed()
        }));
    }
    let ratio = |actual: Duration, floor: Duration| actual.as_secs_f64() / floor.as_secs_f64();
    println!("one box of 16 KB: {boxes:?}; one agreement: {agreement:?}");
    println!("proxy:       {proxy:?} a command, {:.2} x its cryptography", ratio(proxy, boxes * 2));
    let floor = boxes * 4 + agreement;
    println!("destination: {destination:?} a command, {:.2} x its cryptography", ratio(destination, floor));
}
