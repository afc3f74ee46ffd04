//! A client's machine against a relay that is scripted by the test: what it sends, when, and what it reports.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use smp_proto::client::queue::{QueueToCreate, RecipientQueue, SenderQueue};
use smp_proto::client::{
    Action, Client, ClientCommand, ClientConfig, ClientMisuse, ClosedBecause, CommandBody, CommandFailure,
    CommandId, Event, Reply, SubmitError,
};
use smp_proto::crypto::message_body::ReceivedMessage;
use smp_proto::crypto::{Portable, Provider, SharedSecret};
use smp_proto::entropy::SeededEntropy;
use smp_proto::keys::X25519Secret;
use smp_proto::session::client::ClientSessionConfig;
use smp_proto::session::outgoing::{DeliveredMessage, Delivery, DeliverySecret, Outgoing, OutgoingContent};
use smp_proto::session::request::Request;
use smp_proto::session::server::{Received, ServerSession, ServerSessionConfig};
use smp_proto::session::{AuthSecret, CloseReason};
use smp_proto::time::{Duration, Now, UnixTime};
use smp_proto::wire::block::BLOCK_LENGTH;
use smp_proto::wire::command::{QueueMode, SubscriptionMode};
use smp_proto::wire::error::SmpError;
use smp_proto::wire::response::CreatedQueue;
use smp_proto::wire::{CorrelationId, EntityId, Identifier};
use smp_tests::sessions::{Certificates, NOW, facts, versions};

/// What the relay read: tag, correlation, entity.
type Read = (String, CorrelationId, EntityId);

struct World {
    client: Client,
    relay: Arc<ServerSessionConfig>,
    chain: Vec<Vec<u8>>,
    server: Option<ServerSession>,
    now: Now,
    entropy: SeededEntropy,
    events: Vec<Event>,
    actions: Vec<Action>,
}

impl World {
    fn new(adjust: impl FnOnce(&mut ClientConfig)) -> Self {
        let certificates = Certificates::named("ed25519");
        let mut config =
            ClientConfig::new(ClientSessionConfig::new(certificates.fingerprint.clone(), &Portable));
        adjust(&mut config);
        Self {
            client: Client::new(config),
            relay: Arc::new(certificates.relay(versions(6, 14), &Portable)),
            chain: certificates.chain,
            server: None,
            now: NOW,
            entropy: SeededEntropy::new([5; 32]),
            events: Vec::new(),
            actions: Vec::new(),
        }
    }

    fn drain(&mut self) {
        while let Some(action) = self.client.poll_action() {
            self.actions.push(action);
        }
        while let Some(event) = self.client.poll_event() {
            self.events.push(event);
        }
        self.client.check();
    }

    fn events(&mut self) -> Vec<Event> {
        self.drain();
        std::mem::take(&mut self.events)
    }

    fn actions(&mut self) -> Vec<Action> {
        self.drain();
        std::mem::take(&mut self.actions)
    }

    /// Answers `Dial` with a new connection, up to the end of the handshake.
    fn accept(&mut self) {
        assert_eq!(self.actions(), [Action::Dial]);
        let mut server =
            ServerSession::new(&self.relay, facts(true, &[]), self.now, &mut self.entropy).unwrap();
        self.client.connected(facts(true, &self.chain), self.now, &mut self.entropy).expect("was dialling");
        let hello = server.take_handshake_block().expect("a hello");
        self.client.receive(hello, self.now, &mut self.entropy).expect("connected");
        let hello = self.client.poll_block(self.now, &mut self.entropy).expect("a hello");
        assert!(matches!(server.receive(hello, self.now), Ok(Received::Established(_))));
        self.server = Some(server);
        assert!(matches!(self.events()[..], [Event::Established { .. }]));
    }

    /// Everything that the client sends now.
    fn read(&mut self) -> Vec<Read> {
        let server = self.server.as_mut().expect("a connection");
        let mut found = Vec::new();
        while let Some(block) = self.client.poll_block(self.now, &mut self.entropy) {
            let Ok(Received::Commands(block)) = server.receive(block, self.now) else { panic!("not read") };
            for request in server.parse(&block) {
                let Request::Command { transmission, .. } = request else { panic!("{request:?}") };
                let tag = String::from_utf8_lossy(transmission.content.tag()).into_owned();
                found.push((tag, transmission.correlation.clone(), transmission.entity.clone()));
            }
        }
        self.client.check();
        found
    }

    fn say(&mut self, said: impl IntoIterator<Item = (CorrelationId, EntityId, OutgoingContent)>) {
        let mut outgoing: VecDeque<_> = said
            .into_iter()
            .map(|(correlation, entity, content)| Outgoing::new(correlation, entity, content))
            .collect();
        while let Some(block) = self.server.as_mut().and_then(|server| server.pack(&mut outgoing, self.now)) {
            self.client.receive(block, self.now, &mut self.entropy).expect("connected");
        }
        self.drain();
    }

    fn submit(&mut self, command: ClientCommand) -> CommandId {
        let id = self.client.submit(command, self.now).expect("room");
        self.drain();
        id
    }

    fn pass(&mut self, time: Duration) {
        self.now.instant = self.now.instant + time;
        self.client.handle_timeout(self.now, &mut self.entropy);
        self.drain();
    }

    fn lose(&mut self) {
        self.server = None;
        self.client.disconnected(self.now, &mut self.entropy);
        self.drain();
    }

    /// Passes time until the client wants to be called.
    fn wait_for_deadline(&mut self) {
        let until = self.client.next_deadline().expect("a deadline");
        self.pass(until.saturating_since(self.now.instant));
    }
}

fn named(byte: u8) -> Identifier {
    [byte; 24].into()
}

fn queue(byte: u8) -> RecipientQueue {
    RecipientQueue {
        recipient: named(byte),
        sender: named(byte + 100),
        key: Arc::new(AuthSecret::generate_ed25519(&mut SeededEntropy::new([byte; 32]))),
        delivery: SharedSecret::from_bytes([byte; 32]),
    }
}

fn send(byte: u8) -> ClientCommand {
    SenderQueue { sender: named(byte), key: None }.send(false, Bytes::from_static(b"text"))
}

fn results(events: &[Event]) -> BTreeMap<CommandId, Result<Reply, CommandFailure>> {
    let mut found = BTreeMap::new();
    for event in events {
        if let Event::Response { command, result } = event {
            assert!(found.insert(*command, result.clone()).is_none(), "two results for one command");
        }
    }
    found
}

#[test]
fn a_queue_is_created_and_its_messages_are_read() {
    let mut world = World::new(|_| {});
    let new = QueueToCreate::generate(&mut world.entropy);
    let id = world.submit(new.command(&Portable, QueueMode::Messaging, SubscriptionMode::Subscribe, None));
    world.accept();
    let read = world.read();
    assert_eq!(read[0].0, "NEW");
    let relay = X25519Secret::from_bytes([4; 32]);
    let created = CreatedQueue {
        recipient: named(1),
        sender: named(2),
        relay_dh: Portable.x25519_public(&relay),
        mode: Some(QueueMode::Messaging),
        link: None,
        service: None,
        notifier: None,
    };
    world.say([(read[0].1.clone(), EntityId::EMPTY, OutgoingContent::Created(Box::new(created)))]);
    let events = world.events();
    let Some(Ok(Reply::Created(created))) = results(&events).remove(&id) else { panic!("{events:?}") };
    assert_eq!(world.client.subscribed(), 1);
    let ClientCommand { body: CommandBody::New(command), .. } =
        new.command(&Portable, QueueMode::Messaging, SubscriptionMode::Subscribe, None)
    else {
        panic!("not NEW")
    };
    let queue = new.created(&Portable, &created);
    // The relay delivers without being asked.
    let delivery = Delivery {
        secret: DeliverySecret { relay: [4; 32], peer: command.recipient_dh },
        id: [9; 24],
        timestamp: UnixTime(77),
        message: Some(DeliveredMessage { notification: true, body: Bytes::from_static(b"hello") }),
    };
    world.say([(CorrelationId::EMPTY, named(1), OutgoingContent::Message(delivery))]);
    let events = world.events();
    let [Event::Message { queue: entity, id, body }] = &events[..] else { panic!("{events:?}") };
    assert_eq!((entity, id), (&named(1), &named(9)));
    let mut body = body.to_vec();
    let message = queue.open(&Portable, id, &mut body);
    let expected = ReceivedMessage::Message { timestamp: UnixTime(77), notification: true, body: b"hello" };
    assert_eq!(message, Ok(expected));
}

#[test]
fn commands_are_pipelined_and_answers_find_them_in_any_order() {
    let mut world = World::new(|_| {});
    let ids: Vec<_> = (0..200).map(|byte| world.submit(send(byte))).collect();
    world.accept();
    let read = world.read();
    assert_eq!(read.len(), 200);
    let answers: Vec<_> = read
        .iter()
        .rev()
        .map(|(_, correlation, entity)| {
            let content = if *entity == named(7) {
                OutgoingContent::Error(SmpError::Quota)
            } else {
                OutgoingContent::Ok
            };
            (correlation.clone(), entity.clone(), content)
        })
        .collect();
    world.say(answers);
    let results = results(&world.events());
    for (index, id) in ids.iter().enumerate() {
        let expected = if index == 7 { Err(CommandFailure::Refused(SmpError::Quota)) } else { Ok(Reply::Ok) };
        assert_eq!(results[id], expected);
    }
    assert_eq!((world.client.unanswered(), world.client.next_deadline()), (0, None));
}

#[test]
fn an_answer_about_another_entity_or_of_another_kind_is_unexpected() {
    let mut world = World::new(|_| {});
    let [first, second, third] = [1, 2, 3].map(|byte| world.submit(send(byte)));
    world.accept();
    let read = world.read();
    world.say([
        (read[0].1.clone(), named(9), OutgoingContent::Ok),
        (read[1].1.clone(), named(2), OutgoingContent::Pong),
        // Errors about a transmission name no entity.
        (read[2].1.clone(), EntityId::EMPTY, OutgoingContent::Error(SmpError::Block)),
        (named(99), named(1), OutgoingContent::Ok),
    ]);
    let events = world.events();
    let results = results(&events);
    assert_eq!(results[&first], Err(CommandFailure::Unexpected));
    assert_eq!(results[&second], Err(CommandFailure::Unexpected));
    assert_eq!(results[&third], Err(CommandFailure::Refused(SmpError::Block)));
    assert!(matches!(events.last(), Some(Event::Unexpected)));
}

#[test]
fn a_send_on_its_way_is_never_repeated_and_a_subscription_is() {
    let mut world = World::new(|_| {});
    world.client.connect();
    world.accept();
    let sent = world.submit(send(1));
    let subscribed = world.submit(queue(2).subscribe());
    assert_eq!(world.read().len(), 2);
    let waiting = world.submit(send(3));
    world.lose();
    let events = world.events();
    assert_eq!(results(&events), BTreeMap::from([(sent, Err(CommandFailure::OutcomeUnknown))]));
    let Some(Event::Closed { because, retry_at: Some(retry_at) }) = events.last() else {
        panic!("{events:?}")
    };
    assert_eq!(*because, ClosedBecause::ConnectionLost);
    assert!(*retry_at > world.now.instant);
    assert_eq!(world.actions(), []);
    world.wait_for_deadline();
    world.accept();
    let read = world.read();
    let tags: Vec<_> = read.iter().map(|(tag, _, entity)| (tag.as_str(), entity.clone())).collect();
    assert_eq!(tags, [("SUB", named(2)), ("SEND", named(3))]);
    world.say(read.into_iter().map(|(tag, correlation, entity)| {
        let content = if tag == "SUB" { OutgoingContent::Subscribed } else { OutgoingContent::Ok };
        (correlation, entity, content)
    }));
    let results = results(&world.events());
    assert_eq!(results[&subscribed], Ok(Reply::Subscribed));
    assert_eq!(results[&waiting], Ok(Reply::Ok));
}

#[test]
fn subscriptions_are_restored_on_every_connection() {
    let mut world = World::new(|config| config.limits.in_flight = 100);
    let count: u8 = 250;
    let subscribe = |byte| ClientCommand { entity: named(byte), ..queue(1).subscribe() };
    for byte in 0..count {
        world.submit(subscribe(byte));
    }
    world.accept();
    let answer_all = |world: &mut World, refused: u8| {
        let mut answered = 0;
        loop {
            let read = world.read();
            if read.is_empty() {
                return answered;
            }
            assert!(read.len() <= 100, "more than allowed on their way");
            answered += read.len();
            world.say(read.into_iter().map(|(tag, correlation, entity)| {
                assert_eq!(tag, "SUB");
                let content = if entity == named(refused) {
                    OutgoingContent::Error(SmpError::Authorization)
                } else {
                    OutgoingContent::Subscribed
                };
                (correlation, entity, content)
            }));
        }
    };
    assert_eq!(answer_all(&mut world, 255), usize::from(count));
    assert_eq!(world.client.subscribed(), usize::from(count));
    world.events();
    // Another connection takes one over, one is deleted.
    world.say([
        (CorrelationId::EMPTY, named(3), OutgoingContent::End),
        (CorrelationId::EMPTY, named(4), OutgoingContent::Deleted),
    ]);
    let events = world.events();
    assert!(matches!(&events[..], [Event::Ended { .. }, Event::Deleted { .. }]), "{events:?}");
    world.lose();
    world.events();
    world.wait_for_deadline();
    world.accept();
    assert_eq!(answer_all(&mut world, 5), usize::from(count) - 2);
    let events = world.events();
    let [Event::SubscriptionFailed { queue, failure }] = &events[..] else { panic!("{events:?}") };
    assert_eq!((queue, failure), (&named(5), &CommandFailure::Refused(SmpError::Authorization)));
    assert_eq!(world.client.subscribed(), usize::from(count) - 3);
}

#[test]
fn commands_time_out_and_say_whether_they_had_left() {
    let mut world = World::new(|_| {});
    let never_sent = world.submit(send(1));
    world.pass(Duration::from_secs(14));
    assert!(world.events().is_empty());
    world.pass(Duration::from_secs(1));
    assert_eq!(results(&world.events()), BTreeMap::from([(never_sent, Err(CommandFailure::NotSent))]));
    world.accept();
    let sent = world.submit(send(2));
    let read = world.read();
    assert_eq!(read.len(), 1, "what timed out is not sent");
    world.pass(Duration::from_secs(15));
    assert_eq!(results(&world.events()), BTreeMap::from([(sent, Err(CommandFailure::OutcomeUnknown))]));
    // Too late.
    world.say([(read[0].1.clone(), named(2), OutgoingContent::Ok)]);
    assert!(matches!(world.events()[..], [Event::Unexpected]));
}

#[test]
fn a_late_answer_with_a_message_is_not_lost() {
    let mut world = World::new(|_| {});
    world.submit(queue(1).acknowledge(named(9)));
    world.accept();
    let read = world.read();
    world.pass(Duration::from_secs(15));
    world.events();
    let delivery = Delivery {
        secret: DeliverySecret {
            relay: [4; 32],
            peer: Portable.x25519_public(&X25519Secret::from_bytes([1; 32])),
        },
        id: [8; 24],
        timestamp: UnixTime(1),
        message: None,
    };
    world.say([(read[0].1.clone(), named(1), OutgoingContent::Message(delivery))]);
    assert!(matches!(&world.events()[..], [Event::Message { id, .. }] if *id == named(8)));
}

#[test]
fn a_silent_relay_is_pinged_only_with_subscriptions_and_then_given_up() {
    let mut world = World::new(|_| {});
    world.client.connect();
    world.accept();
    assert_eq!(world.client.next_deadline(), None, "nothing to keep alive");
    world.submit(queue(1).subscribe());
    let read = world.read();
    world.say([(read[0].1.clone(), named(1), OutgoingContent::Subscribed)]);
    world.events();
    for _ in 0..3 {
        world.wait_for_deadline();
        let read = world.read();
        assert_eq!(read[0].0, "PING");
        world.say([(read[0].1.clone(), EntityId::EMPTY, OutgoingContent::Pong)]);
        assert!(world.events().is_empty());
    }
    let silent_since = world.now.instant;
    let mut pings = 0;
    while world.actions().is_empty() {
        world.wait_for_deadline();
        if world.server.is_some() && world.client.version().is_some() {
            pings += world.read().len();
        }
    }
    assert_eq!(pings, 3);
    let silence = world.now.instant.saturating_since(silent_since);
    assert_eq!(silence, Duration::from_secs(600 + 3 * 15));
    assert!(matches!(world.events()[..], [Event::Closed { because: ClosedBecause::NoAnswer, .. }]));
}

#[test]
fn a_wrong_relay_is_closed_and_tried_again_later() {
    let mut world = World::new(|_| {});
    world.chain = Certificates::named("ed448").chain;
    world.submit(send(1));
    assert_eq!(world.actions(), [Action::Dial]);
    let mut server = ServerSession::new(&world.relay, facts(true, &[]), NOW, &mut world.entropy).unwrap();
    world.client.connected(facts(true, &world.chain), world.now, &mut world.entropy).unwrap();
    world.client.receive(server.take_handshake_block().unwrap(), world.now, &mut world.entropy).unwrap();
    assert_eq!(world.actions(), [Action::Close]);
    let reason = ClosedBecause::Session(CloseReason::WrongRelayFound);
    let events = world.events();
    assert!(matches!(&events[..], [Event::Closed { because, retry_at: Some(_) }] if *because == reason));
    assert!(world.client.poll_block(world.now, &mut world.entropy).is_none());
}

#[test]
fn limits_and_misuse() {
    let mut world = World::new(|config| {
        config.limits.commands = 3;
        config.limits.events = 0;
    });
    for byte in 0..3 {
        world.submit(send(byte));
    }
    let SubmitError::TooMany(given_back) = world.client.submit(send(3), world.now).unwrap_err();
    assert_eq!(given_back.entity, named(3));
    let block = || BytesMut::zeroed(BLOCK_LENGTH);
    let receive = |world: &mut World| world.client.receive(block(), NOW, &mut world.entropy);
    assert_eq!(receive(&mut world), Err(ClientMisuse::NotConnected));
    world.accept();
    let facts = facts(true, &world.chain);
    assert_eq!(world.client.connected(facts, NOW, &mut world.entropy), Err(ClientMisuse::NotDialling));
    world.client.stop();
    // The events of `stop` were not fetched.
    assert_eq!(receive(&mut world), Err(ClientMisuse::EventsWaiting));
    let events = world.events();
    assert!(results(&events).values().all(|result| *result == Err(CommandFailure::NotSent)));
    assert_eq!(events.len(), 4);
    assert_eq!(world.actions(), [Action::Close]);
    assert_eq!(world.client.next_deadline(), None);
}

#[test]
fn what_fits_in_no_block_fails_and_the_rest_goes_on() {
    let mut world = World::new(|_| {});
    let large = SenderQueue { sender: named(1), key: None }.send(false, Bytes::from(vec![0; 16_384]));
    let (large, small) = (world.submit(large), world.submit(send(2)));
    world.accept();
    assert_eq!(world.read().len(), 1);
    let results = results(&world.events());
    assert_eq!(results.get(&large), Some(&Err(CommandFailure::TooLarge)));
    assert_eq!(results.get(&small), None);
}

/// One thing that happens to a client.
#[derive(Clone, Debug)]
enum Step {
    Send(u8),
    Subscribe(u8),
    Connect,
    Exchange { answer: bool },
    Say(u8),
    Lose,
    Pass(u16),
    Stop,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => any::<u8>().prop_map(Step::Send),
        4 => (0_u8..20).prop_map(Step::Subscribe),
        4 => Just(Step::Connect),
        6 => any::<bool>().prop_map(|answer| Step::Exchange { answer }),
        2 => any::<u8>().prop_map(Step::Say),
        1 => Just(Step::Lose),
        3 => (0_u16..1000).prop_map(Step::Pass),
        1 => Just(Step::Stop),
    ];
    proptest::collection::vec(step, 1..60)
}

/// Runs the steps; returns the digests after each and the results.
fn run(steps: &[Step]) -> (Vec<[u8; 32]>, usize) {
    let mut world = World::new(|config| {
        config.limits.commands = 20;
        config.limits.in_flight = 7;
        config.limits.subscriptions = 5;
    });
    let (mut digests, mut submitted, mut answered) = (Vec::new(), Vec::new(), Vec::new());
    for step in steps {
        match step {
            Step::Send(byte) => submitted.extend(world.client.submit(send(*byte), world.now).ok()),
            Step::Subscribe(byte) => {
                let command = ClientCommand { entity: named(*byte), ..queue(1).subscribe() };
                submitted.extend(world.client.submit(command, world.now).ok());
            }
            Step::Connect => {
                world.drain();
                if world.actions.last() == Some(&Action::Dial) {
                    world.actions = vec![Action::Dial];
                    let before = std::mem::take(&mut world.events);
                    world.accept();
                    world.events = before;
                }
            }
            Step::Exchange { answer } if world.client.version().is_some() => {
                let read = world.read();
                if *answer {
                    world.say(read.into_iter().map(|(tag, correlation, entity)| {
                        let content = match tag.as_str() {
                            "PING" => OutgoingContent::Pong,
                            "SUB" => OutgoingContent::Subscribed,
                            _ => OutgoingContent::Ok,
                        };
                        (correlation, entity, content)
                    }));
                }
            }
            Step::Say(byte) if world.client.version().is_some() => {
                world.say([(named(*byte), named(*byte % 20), OutgoingContent::End)]);
            }
            // A dial that was asked for has failed, too.
            Step::Lose => {
                world.actions();
                world.lose();
            }
            Step::Pass(seconds) => world.pass(Duration::from_secs(u64::from(*seconds))),
            Step::Stop => {
                world.actions();
                world.client.stop();
                world.server = None;
            }
            Step::Exchange { .. } | Step::Say(_) => {}
        }
        world.drain();
        for event in world.events.drain(..) {
            if let Event::Response { command, .. } = event {
                answered.push(command);
            }
        }
        digests.push(world.client.digest());
    }
    world.client.stop();
    answered.extend(results(&world.events()).into_keys());
    // Every command has exactly one result.
    answered.sort_unstable();
    assert_eq!(answered, submitted);
    (digests, submitted.len())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_command_has_one_result_whatever_happens(steps in steps()) {
        let first = run(&steps);
        prop_assert_eq!(run(&steps), first);
    }
}
