//! What bad input does to an agent: damaged records, and messages that anybody with a queue's address can send. Nothing
//! panics, nothing changes, and a person is told. And the same inputs give the same outputs.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod agent_world;

use std::collections::BTreeMap;

use agent_world::{World, modern, old};
use bytes::Bytes;
use proptest::prelude::*;
use smp_proto::agent::{
    Agent, AgentConfig, ConnectionId, Connections, DroppedBecause, Event, RecordError, RecordKey, Write,
};
use smp_proto::client::queue::seal_envelope;
use smp_proto::client::{CommandBody, Reply};
use smp_proto::crypto::envelope::ClientMessage;
use smp_proto::crypto::message_body::{SEALED_LENGTH, seal_message};
use smp_proto::crypto::{BoxKey, Nonce, Portable, Provider, SharedSecret};
use smp_proto::entropy::SeededEntropy;
use smp_proto::keys::X25519Secret;
use smp_proto::time::UnixTime;
use smp_proto::wire::Identifier;
use smp_proto::wire::agent_message::{AgentEnvelope, AgentEnvelopeContent};
use smp_proto::wire::links::connection_request::ConnectionRequest;
use smp_proto::wire::response::CreatedQueue;
use smp_proto::wire::version::Version;
use smp_tests::sessions::NOW;

type Records = BTreeMap<RecordKey, Vec<u8>>;

/// Every record that two agents ever had while they connected, talked, switched and lost messages.
fn all_records(configs: [AgentConfig; 2]) -> Vec<Records> {
    let mut world = World::new(3, configs);
    let mut seen: Vec<Records> = Vec::new();
    let run = |world: &mut World, seen: &mut Vec<Records>| {
        while world.step() {
            for person in &world.people {
                if seen.last() != Some(&person.records) {
                    seen.push(person.records.clone());
                }
            }
        }
    };
    let relay = world.relay(0);
    let (now, entropy) = (world.now, &mut world.entropy);
    let address = world.people[0].agent.create_address(relay.clone(), now, entropy).unwrap();
    run(&mut world, &mut seen);
    let link = world.people[0].agent.link(address).unwrap();
    let bob = world.join(1, 1, &link, b"Bob");
    run(&mut world, &mut seen);
    let requested = world.people[0].events.iter().find_map(|event| match event {
        Event::Requested { request, .. } => Some(*request),
        _ => None,
    });
    let (now, entropy) = (world.now, &mut world.entropy);
    let alice = world.people[0].agent.accept(requested.unwrap(), relay, b"Alice", now, entropy).unwrap();
    run(&mut world, &mut seen);
    assert!(world.is_connected(0, alice) && world.is_connected(1, bob));
    let number = world.send(0, alice, b"Hello");
    run(&mut world, &mut seen);
    world.acknowledge(1, bob, number, Some(b""));
    let relay = world.relay(2);
    let (now, entropy) = (world.now, &mut world.entropy);
    world.people[1].agent.switch(bob, relay, now, entropy).unwrap();
    run(&mut world, &mut seen);
    let (now, entropy) = (world.now, &mut world.entropy);
    world.people[1].agent.synchronize(bob, true, now, entropy).unwrap();
    run(&mut world, &mut seen);
    seen.dedup();
    seen
}

fn restore(config: &AgentConfig, records: Records) -> Result<Agent, RecordError> {
    Agent::restore(config.clone(), records)
}

#[test]
fn records_are_read_back_as_they_were() {
    for config in [modern(), old()] {
        for records in all_records([config.clone(), config.clone()]) {
            let mut agent = restore(&config, records.clone()).expect("an agent's own records");
            agent.check();
            // Nothing is written that was not changed.
            assert!(!matches!(agent.poll_action(), Some(smp_proto::agent::AgentAction::Store(_))));
            let same = restore(&config, records).unwrap();
            assert_eq!(agent.digest(), same.digest());
        }
    }
}

#[test]
fn records_that_are_cut_extended_newer_or_alone_are_refused() {
    let mut kinds: BTreeMap<u8, (RecordKey, Vec<u8>, Records)> = BTreeMap::new();
    for records in all_records([modern(), modern()]) {
        for (key, bytes) in &records {
            kinds.insert(key.to_bytes()[0], (*key, bytes.clone(), records.clone()));
        }
    }
    assert!(kinds.len() >= 6, "every kind of record was seen: {:?}", kinds.keys());
    let config = modern();
    for (key, bytes, records) in kinds.into_values() {
        let with = |bytes: Vec<u8>| {
            let mut records = records.clone();
            records.insert(key, bytes);
            restore(&config, records).map(|_| ())
        };
        let has_tail =
            matches!(key, RecordKey::Outgoing(..) | RecordKey::Received(..) | RecordKey::Request(_));
        for length in 0..bytes.len().min(400) {
            let result = with(bytes[..length].to_vec());
            // What ends with the application's own bytes may be shorter, and still has its form.
            assert!(result == Err(RecordError::Damaged(key)) || has_tail, "{key:?} of {length}: {result:?}");
        }
        if !has_tail {
            assert_eq!(with([&bytes[..], &[0]].concat()), Err(RecordError::Damaged(key)));
        }
        // The ratchet's own layout says itself what it is.
        if !matches!(key, RecordKey::Ratchet(_) | RecordKey::Skipped(..)) {
            let mut newer = bytes.clone();
            newer[0] = 9;
            assert_eq!(with(newer), Err(RecordError::NewerLayout(key, 9)));
        }
        if !matches!(key, RecordKey::Counters | RecordKey::Connection(_) | RecordKey::Request(_)) {
            let alone = BTreeMap::from([(key, bytes)]);
            assert_eq!(restore(&config, alone).map(|_| ()), Err(RecordError::Orphan(key)));
        }
    }
}

#[test]
fn damaged_records_never_panic() {
    let all = all_records([modern(), modern()]);
    let last = all.last().unwrap().clone();
    let config = modern();
    for (key, bytes) in &last {
        for place in 0..bytes.len() {
            for bit in [0x01, 0x80] {
                let mut records = last.clone();
                let mut bytes = bytes.clone();
                bytes[place] ^= bit;
                records.insert(*key, bytes);
                if let Ok(mut agent) = restore(&config, records) {
                    agent.handle_timeout(NOW, &mut SeededEntropy::new([1; 32]));
                    let _ = agent.poll_action();
                }
            }
        }
    }
}

#[test]
fn the_same_inputs_give_the_same_outputs() {
    let story = || {
        let mut world = World::new(2, [modern(), modern()]);
        let alice = world.create_invitation(0, 0, Some(b"Alice"));
        let link = world.link(0, alice);
        world.join(1, 1, &link, b"Bob");
        let mut digests = Vec::new();
        while world.step() {
            digests.push([world.people[0].agent.digest(), world.people[1].agent.digest()]);
        }
        (digests, world.people.iter().map(|person| person.records.clone()).collect::<Vec<_>>())
    };
    let (one, other) = (story(), story());
    assert!(one.0.len() > 50 && one == other);
    assert!(one.0.windows(2).filter(|pair| pair[0] != pair[1]).count() > 20, "the digest says something");
}

/// An invitation whose relay is the test: it delivers whatever the test likes.
struct Victim {
    connections: Connections,
    entropy: SeededEntropy,
    delivery: BoxKey,
    relay: smp_proto::agent::RelayId,
    link: ConnectionRequest,
    id: ConnectionId,
    next: u8,
}

impl Victim {
    fn new() -> Self {
        let mut entropy = SeededEntropy::new([4; 32]);
        let mut connections = Connections::new(AgentConfig::new(&Portable));
        let relay = "smp://LcJUMfVhwD8yxjAiSaDzzGF3-kLG4Uh0Fl_ZIjrRwjI=@relay.example".parse().unwrap();
        let id = connections.create_invitation(relay, None, NOW, &mut entropy).unwrap();
        store(&mut connections, &mut entropy);
        let command = connections.poll_command().unwrap();
        let CommandBody::New(new) = command.command.body else { panic!("not NEW") };
        let secret = X25519Secret::from_bytes([7; 32]);
        let created = CreatedQueue {
            recipient: [1; 24].into(),
            sender: [2; 24].into(),
            relay_dh: Portable.x25519_public(&secret),
            mode: new.request.map(|_| smp_proto::wire::command::QueueMode::Messaging),
            link: None,
            service: None,
            notifier: None,
        };
        connections.answer(command.task, Ok(Reply::Created(Box::new(created))), NOW, &mut entropy);
        store(&mut connections, &mut entropy);
        let link = connections.link(id).unwrap();
        while connections.poll_event().is_some() {}
        let delivery = SharedSecret::agree(&Portable, &secret, &new.recipient_dh).box_key();
        Self { connections, entropy, delivery, relay: command.relay, link, id, next: 0 }
    }

    /// Delivers a body, and returns what is told. It is acknowledged to the relay, and nothing is written.
    fn deliver(&mut self, body: &[u8]) -> Vec<Event> {
        self.next += 1;
        let id = [self.next; 24];
        let mut sealed = [0; SEALED_LENGTH];
        seal_message(&Portable, &self.delivery, &Nonce(id), UnixTime(5), true, body, &mut sealed).unwrap();
        self.deliver_sealed(id, &sealed)
    }

    fn deliver_sealed(&mut self, id: [u8; 24], sealed: &[u8]) -> Vec<Event> {
        let before = self.connections.status(self.id);
        let body = Bytes::copy_from_slice(sealed);
        self.connections.message(self.relay, &[1; 24].into(), id.into(), body, NOW, &mut self.entropy);
        self.connections.check();
        assert_eq!(self.connections.status(self.id), before);
        assert!(self.connections.poll_storage().is_none(), "nothing has changed");
        let command = self.connections.poll_command().expect("it is acknowledged");
        assert!(
            matches!(&command.command.body, CommandBody::Acknowledge(message) if *message == Identifier::from(id))
        );
        self.connections.answer(command.task, Ok(Reply::Ok), NOW, &mut self.entropy);
        std::iter::from_fn(|| self.connections.poll_event()).collect()
    }

    /// What somebody who has the link can send.
    fn envelope(&mut self, message: &[u8]) -> Bytes {
        let queue = &self.link.data().queues[0];
        let own = X25519Secret::generate(&mut self.entropy);
        let key = SharedSecret::agree(&Portable, &own, &queue.dh).box_key();
        let content = ClientMessage { sender_auth_key: None, message };
        let public = Some(Portable.x25519_public(&own));
        seal_envelope(&Portable, &key, 4, public, &content, &mut self.entropy).unwrap()
    }
}

fn store(connections: &mut Connections, entropy: &mut SeededEntropy) {
    while let Some(batch) = connections.poll_storage() {
        assert!(batch.writes.iter().all(|write| matches!(write, Write::Put(..) | Write::Delete(_))));
        connections.stored(batch.id, Ok(()), NOW, entropy);
    }
}

fn dropped(events: &[Event]) -> DroppedBecause {
    match events {
        [Event::Dropped { because, .. }] => *because,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_anybody_may_send_is_dropped_with_a_reason() {
    let mut victim = Victim::new();
    let foreign = victim.deliver_sealed([99; 24], &[0; SEALED_LENGTH]);
    assert_eq!(dropped(&foreign), DroppedBecause::RelayEncryption);
    assert_eq!(dropped(&victim.deliver(b"")), DroppedBecause::Malformed);
    assert_eq!(dropped(&victim.deliver(&[0; 100])), DroppedBecause::Malformed);
    let mut changed = victim.envelope(b"anything").to_vec();
    *changed.last_mut().unwrap() ^= 1;
    assert_eq!(dropped(&victim.deliver(&changed)), DroppedBecause::QueueEncryption);
    let no_message = victim.envelope(b"anything");
    assert_eq!(dropped(&victim.deliver(&no_message)), DroppedBecause::Malformed);
    let mut encode = |content: AgentEnvelopeContent<'_>, version: u16| {
        let mut bytes = Vec::new();
        AgentEnvelope { version: Version(version), content }.encode(&mut bytes).unwrap();
        let envelope = victim.envelope(&bytes);
        dropped(&victim.deliver(&envelope))
    };
    // A message before there is a connection, and a confirmation without the keys of a ratchet, or with bad ones.
    assert_eq!(encode(AgentEnvelopeContent::Message(b"x"), 7), DroppedBecause::Unexpected);
    let confirmation = |ratchet| AgentEnvelopeContent::Confirmation { ratchet, encrypted: b"not a message" };
    assert_eq!(encode(confirmation(None), 7), DroppedBecause::Unexpected);
    assert_eq!(encode(confirmation(None), 8), DroppedBecause::Version(Version(8)));
    assert_eq!(encode(confirmation(None), 1), DroppedBecause::Version(Version(1)));
    let keys = smp_proto::crypto::ratchet::InitialKeys::generate(&mut SeededEntropy::new([6; 32]));
    let parameters = |version| keys.parameters(smp_tests::sessions::versions(version, version));
    assert!(matches!(encode(confirmation(Some(parameters(2))), 7), DroppedBecause::Ratchet(_)));
    assert_eq!(encode(confirmation(Some(parameters(1))), 7), DroppedBecause::Version(Version(1)));
    assert_eq!(encode(confirmation(Some(parameters(9))), 7), DroppedBecause::Version(Version(9)));
    let request = victim.link.clone();
    let mut bytes = Vec::new();
    let content = AgentEnvelopeContent::Invitation { request, information: b"me" };
    AgentEnvelope { version: Version(7), content }.encode(&mut bytes).unwrap();
    let envelope = victim.envelope(&bytes);
    // A request to what is no address.
    assert_eq!(dropped(&victim.deliver(&envelope)), DroppedBecause::Unexpected);
    // And the invitation can still be used.
    assert!(victim.connections.link(victim.id).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_that_is_delivered_panics(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..4),
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..4),
        tag in prop::sample::select(vec![b'C', b'M', b'I', b'R']),
    ) {
        let mut victim = Victim::new();
        for body in bodies {
            victim.deliver(&body);
        }
        for message in messages {
            let message = [&[0, 7, tag][..], &message].concat();
            let envelope = victim.envelope(&message);
            victim.deliver(&envelope);
        }
    }
}
