//! What a connected agent does with messages that are forged, old, duplicated, or far ahead: the other side is the test, which
//! has a ratchet of its own, and the relay is the test too. Nothing is shown to the application but good messages, each once;
//! a person is told the reason; and whatever came, the next good message is read.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

use bytes::Bytes;
use sha2::{Digest, Sha256};
use smp_proto::agent::{
    AgentConfig, ConnectionId, Connections, DroppedBecause, Event, Integrity, RelayId, Status,
};
use smp_proto::client::queue::seal_envelope;
use smp_proto::client::{CommandBody, Reply};
use smp_proto::crypto::envelope::ClientMessage;
use smp_proto::crypto::message_body::{SEALED_LENGTH, seal_message};
use smp_proto::crypto::ratchet::{DecryptError, InitialKeys, MAX_AHEAD, Ratchet};
use smp_proto::crypto::{BoxKey, Nonce, Portable, Provider, SharedSecret};
use smp_proto::entropy::SeededEntropy;
use smp_proto::keys::X25519Secret;
use smp_proto::time::UnixTime;
use smp_proto::wire::agent_message::{
    AgentEnvelope, AgentEnvelopeContent, AgentMessage, AgentMessageContent, padded_lengths,
};
use smp_proto::wire::command::QueueMode;
use smp_proto::wire::links::connection_request::ConnectionRequest;
use smp_proto::wire::queue_uri::AgreedQueue;
use smp_proto::wire::response::CreatedQueue;
use smp_proto::wire::version::Version;
use smp_tests::sessions::{NOW, versions};

const VERSION: Version = Version(7);

/// Alice's agent is the real one; the rest of the world is here.
struct Story {
    alice: Connections,
    id: ConnectionId,
    relay: RelayId,
    delivery: BoxKey,
    entropy: SeededEntropy,
    /// The other side's: between the two queues' ends.
    envelope: BoxKey,
    ratchet: Ratchet,
    sent: i64,
    hash: Vec<u8>,
    delivered: u8,
}

/// Everything that Alice's agent wants is done: writes, and answers of relays.
fn run(alice: &mut Connections, entropy: &mut SeededEntropy) {
    loop {
        if let Some(batch) = alice.poll_storage() {
            alice.stored(batch.id, Ok(()), NOW, entropy);
        } else if let Some(command) = alice.poll_command() {
            alice.answer(command.task, Ok(Reply::Ok), NOW, entropy);
        } else {
            break;
        }
    }
    alice.check();
}

impl Story {
    /// Bob has used Alice's invitation, and both are connected.
    fn connected() -> Self {
        let mut entropy = SeededEntropy::new([4; 32]);
        let mut alice = Connections::new(AgentConfig::new(&Portable));
        let address: smp_proto::wire::address::AddressWithPassword =
            "smp://LcJUMfVhwD8yxjAiSaDzzGF3-kLG4Uh0Fl_ZIjrRwjI=@relay.example".parse().unwrap();
        let id = alice.create_invitation(address.clone(), Some(b"Alice"), NOW, &mut entropy).unwrap();
        let batch = alice.poll_storage().unwrap();
        alice.stored(batch.id, Ok(()), NOW, &mut entropy);
        let command = alice.poll_command().unwrap();
        let CommandBody::New(new) = command.command.body else { panic!("not NEW") };
        let secret = X25519Secret::from_bytes([7; 32]);
        let created = CreatedQueue {
            recipient: [1; 24].into(),
            sender: [2; 24].into(),
            relay_dh: Portable.x25519_public(&secret),
            mode: Some(QueueMode::Messaging),
            link: None,
            service: None,
            notifier: None,
        };
        alice.answer(command.task, Ok(Reply::Created(Box::new(created))), NOW, &mut entropy);
        run(&mut alice, &mut entropy);
        let Some(ConnectionRequest::Invitation(data, parameters)) = alice.link(id) else { panic!("no link") };

        let keys = InitialKeys::generate(&mut entropy);
        let supported = versions(2, 3);
        let ratchet = Ratchet::join(&Portable, &keys, &parameters, supported, &mut entropy).unwrap();
        let own = X25519Secret::generate(&mut entropy);
        let envelope = SharedSecret::agree(&Portable, &own, &data.queues[0].dh).box_key();
        let delivery = SharedSecret::agree(&Portable, &secret, &new.recipient_dh).box_key();
        let relay = command.relay;
        let mut story = Self {
            alice,
            id,
            relay,
            delivery,
            entropy,
            envelope,
            ratchet,
            sent: 0,
            hash: Vec::new(),
            delivered: 0,
        };
        let reply = AgreedQueue {
            version: Version(4),
            server: address.address,
            sender: [3; 24].into(),
            dh: Portable.x25519_public(&X25519Secret::from_bytes([9; 32])),
            mode: Some(QueueMode::Messaging),
        };
        let message = AgentMessage::ConnectionInformationReply { queues: vec![reply], information: b"Bob" };
        let encrypted = story.encrypt(&message, padded_lengths(VERSION, false).0);
        let ratchet = Some(keys.parameters(versions(3, 3)));
        let content = AgentEnvelopeContent::Confirmation { ratchet, encrypted: &encrypted };
        let confirmation = story.seal(&content, Some(&own));
        let events = story.deliver(&confirmation);
        assert!(events.iter().any(|event| matches!(event, Event::Connected { .. })), "{events:?}");
        story
    }

    /// Encrypts with the next key of Bob's ratchet.
    fn encrypt(&mut self, message: &AgentMessage<'_>, padded: usize) -> Vec<u8> {
        let mut text = Vec::new();
        message.encode(&mut text).unwrap();
        self.sent += 1;
        self.hash = Sha256::digest(&text).to_vec();
        self.ratchet.prepare(&Portable).unwrap().seal(&text, padded).unwrap()
    }

    /// Bob's next message, encrypted by the ratchet only.
    fn message(&mut self, body: &[u8]) -> Vec<u8> {
        let previous_hash = std::mem::take(&mut self.hash);
        let content = AgentMessageContent::Body(body);
        let message = AgentMessage::Numbered { id: self.sent + 1, previous_hash: &previous_hash, content };
        self.encrypt(&message, padded_lengths(VERSION, false).1)
    }

    fn seal(&mut self, content: &AgentEnvelopeContent<'_>, own: Option<&X25519Secret>) -> Bytes {
        let mut message = Vec::new();
        AgentEnvelope { version: VERSION, content: content.clone() }.encode(&mut message).unwrap();
        let content = ClientMessage { sender_auth_key: None, message: &message };
        let public = own.map(|own| Portable.x25519_public(own));
        seal_envelope(&Portable, &self.envelope, 4, public, &content, &mut self.entropy).unwrap()
    }

    /// The relay delivers this; Alice's application acknowledges what it gets. Returns what it was told.
    fn deliver(&mut self, body: &[u8]) -> Vec<Event> {
        self.delivered += 1;
        let id = [self.delivered; 24];
        let mut sealed = [0; SEALED_LENGTH];
        seal_message(&Portable, &self.delivery, &Nonce(id), UnixTime(5), true, body, &mut sealed).unwrap();
        let body = Bytes::copy_from_slice(&sealed);
        self.alice.message(self.relay, &[1; 24].into(), id.into(), body, NOW, &mut self.entropy);
        let mut events = Vec::new();
        loop {
            run(&mut self.alice, &mut self.entropy);
            let Some(event) = self.alice.poll_event() else { return events };
            if let Event::Message { number, .. } = &event {
                self.alice.acknowledge(self.id, *number, None, NOW, &mut self.entropy).unwrap();
            }
            events.push(event);
        }
    }

    /// What the ratchet has encrypted is delivered in a fresh envelope.
    fn give(&mut self, encrypted: &[u8]) -> Vec<Event> {
        let sealed = self.seal(&AgentEnvelopeContent::Message(encrypted), None);
        self.deliver(&sealed)
    }

    fn status(&self) -> Status {
        self.alice.status(self.id).expect("it is there")
    }

    /// A good message comes through, once and as what it is.
    fn assert_good(&mut self, body: &[u8], expected: Integrity) {
        let encrypted = self.message(body);
        assert_eq!(bodies(&self.give(&encrypted)), [(body.to_vec(), expected)]);
        assert!(self.status().connected);
    }
}

fn bodies(events: &[Event]) -> Vec<(Vec<u8>, Integrity)> {
    let body = |event: &Event| match event {
        Event::Message { body, integrity, .. } => Some((body.clone(), *integrity)),
        _ => None,
    };
    events.iter().filter_map(body).collect()
}

fn dropped(events: &[Event]) -> Vec<DroppedBecause> {
    let because = |event: &Event| match event {
        Event::Dropped { because, .. } => Some(*because),
        _ => None,
    };
    events.iter().filter_map(because).collect()
}

#[test]
fn what_is_forged_is_dropped_with_its_reason_and_nothing_else_changes() {
    let mut story = Story::connected();
    story.assert_good(b"one", Integrity::Ok);
    let good = story.message(b"two");
    // The lengths of the header, the header, its tag, the tag of the text, the text.
    let cases = [
        (0, DecryptError::Malformed),
        (20, DecryptError::ForgedHeader),
        (good.len() - 1, DecryptError::ForgedText),
        (good.len() - 9000, DecryptError::ForgedText),
    ];
    for (place, expected) in cases {
        let before = story.alice.digest();
        let mut forged = good.clone();
        forged[place] ^= 0x80;
        let events = story.give(&forged);
        assert_eq!(dropped(&events), [DroppedBecause::Ratchet(expected)], "at {place}");
        assert!(!expected.to_string().is_empty() && bodies(&events).is_empty());
        assert!(story.status().connected);
        // Only that something is wrong with the encryption may have been noted.
        let noted = events.iter().any(|event| matches!(event, Event::Synchronized { .. }));
        assert!(noted || story.alice.digest() == before, "at {place}: {events:?}");
    }
    for length in [0, 1, 100, good.len() - 1] {
        let events = story.give(&good[..length]);
        assert!(matches!(dropped(&events)[..], [DroppedBecause::Ratchet(_)]), "{length}: {events:?}");
        assert!(bodies(&events).is_empty());
    }
    // The genuine one is still read, and what comes after it.
    assert_eq!(bodies(&story.give(&good)), [(b"two".to_vec(), Integrity::Ok)]);
    story.assert_good(b"three", Integrity::Ok);
}

#[test]
fn what_comes_twice_is_shown_once_however_it_is_wrapped() {
    let mut story = Story::connected();
    let first = story.message(b"one");
    assert_eq!(bodies(&story.give(&first)), [(b"one".to_vec(), Integrity::Ok)]);
    // At once; and after more messages than an agent remembers the envelopes of.
    assert_eq!(story.give(&first), []);
    for number in 0..20_u8 {
        story.assert_good(&[number], Integrity::Ok);
    }
    let before = story.alice.digest();
    assert_eq!(story.give(&first), [], "the ratchet knows that it was read");
    assert_eq!(story.alice.digest(), before);
    story.assert_good(b"more", Integrity::Ok);
}

#[test]
fn what_was_overtaken_is_read_late_once_and_its_place_is_told() {
    let mut story = Story::connected();
    let late = story.message(b"late");
    story.assert_good(b"early", Integrity::Skipped { first: 2, last: 2 });
    assert_eq!(bodies(&story.give(&late)), [(b"late".to_vec(), Integrity::Earlier)]);
    assert_eq!(story.give(&late), []);
    story.assert_good(b"on", Integrity::Ok);
}

#[test]
fn what_is_too_far_ahead_is_refused_and_what_is_just_near_enough_is_read() {
    let mut story = Story::connected();
    story.assert_good(b"one", Integrity::Ok);
    let near_before = story.sent;
    let missing: Vec<_> = (0..=MAX_AHEAD).map(|_| story.message(b"missing")).collect();
    let far = story.message(b"far");
    let before = story.alice.digest();
    let events = story.give(&far);
    let expected = DecryptError::TooFarAhead { missing: MAX_AHEAD + 1 };
    assert_eq!(dropped(&events), [DroppedBecause::Ratchet(expected)]);
    assert!(expected.to_string().contains("513 messages"), "{expected}");
    assert!(story.status().connected && bodies(&events).is_empty());
    let noted = events.iter().any(|event| matches!(event, Event::Synchronized { .. }));
    assert!(noted || story.alice.digest() == before);
    // One less may be missing.
    let near = missing.last().unwrap();
    let skipped = Integrity::Skipped { first: near_before + 1, last: near_before + i64::from(MAX_AHEAD) };
    assert_eq!(bodies(&story.give(near)), [(b"missing".to_vec(), skipped)]);
    assert_eq!(bodies(&story.give(&far)), [(b"far".to_vec(), Integrity::Ok)]);
    assert_eq!(bodies(&story.give(&missing[0])), [(b"missing".to_vec(), Integrity::Earlier)]);
}

/// The number and the hash of the message before are the peer's word, and protected: a peer who contradicts themselves is
/// shown to do so.
#[test]
fn a_peer_who_says_two_things_under_one_number_is_shown_to() {
    let mut story = Story::connected();
    story.assert_good(b"one", Integrity::Ok);
    story.sent -= 1;
    story.assert_good(b"another one", Integrity::Duplicate);
    story.hash = vec![7; 32];
    story.assert_good(b"with a wrong past", Integrity::BadHash);
}
