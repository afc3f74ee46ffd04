//! What a relay's core takes of memory, counted: queues at rest, and messages in the steady state.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::VecDeque;

use allocation_counter::AllocationInfo;
use bytes::BytesMut;
use smp_proto::broker::record::{NotifierRecord, QueueRecord, QueueStatus, RecipientKeys};
use smp_proto::broker::storage::{QueueNumber, StoredQueue};
use smp_proto::broker::{Broker, BrokerConfig, ConnectionId};
use smp_proto::crypto::Portable;
use smp_proto::entropy::{Entropy, SeededEntropy};
use smp_proto::keys::{AuthKey, Ed25519Public, X25519Public, X25519Secret};
use smp_proto::session::outgoing::{DeliverySecret, Outgoing, OutgoingContent};
use smp_proto::session::server::Received;
use smp_proto::session::{AuthSecret, OpenedBlock};
use smp_proto::storage_model::StorageModel;
use smp_proto::time::UnixTime;
use smp_proto::wire::block::BLOCK_LENGTH;
use smp_proto::wire::command::{Command, MessageFlags, NewQueue, QueueMode, QueueRequest, SubscriptionMode};
use smp_proto::wire::{EntityId, Identifier};
use smp_tests::sessions::{Certificates, NOW, Pair, PairOptions};

/// What a queue at rest may take in memory, in bytes.
const AT_REST: i64 = 400;

/// What a notifier may take besides.
const NOTIFIER: i64 = 200;

/// A relay and one client, with storage beside it that counts for nothing.
struct Relay {
    pair: Pair,
    broker: Broker,
    storage: StorageModel,
    entropy: SeededEntropy,
    outgoing: VecDeque<Outgoing>,
    correlation: u64,
}

impl Relay {
    fn new() -> Self {
        let mut entropy = SeededEntropy::new([3; 32]);
        Self {
            pair: Pair::connect(&Certificates::named("ed25519"), &PairOptions::at(14)).unwrap(),
            broker: Broker::new(BrokerConfig::default(), &mut entropy),
            storage: StorageModel::default(),
            entropy,
            outgoing: VecDeque::new(),
            correlation: 0,
        }
    }

    /// A block with these commands, as many as fit.
    fn seal(
        &mut self,
        commands: &mut VecDeque<(EntityId, Command<'_>)>,
        key: Option<&AuthSecret>,
    ) -> BytesMut {
        let mut block = BytesMut::zeroed(BLOCK_LENGTH);
        let correlation = &mut self.correlation;
        self.pair
            .client
            .seal(block.as_mut().try_into().unwrap(), NOW, |writer| {
                while let Some((entity, command)) = commands.front() {
                    *correlation += 1;
                    let mut bytes = [0; 24];
                    bytes[..8].copy_from_slice(&correlation.to_be_bytes());
                    if writer.add(&Identifier::from(bytes), entity, command, key).is_err() {
                        break;
                    }
                    commands.pop_front();
                }
            })
            .unwrap();
        block
    }

    /// What the core does with a block that was received.
    fn receive(&mut self, from: ConnectionId, block: BytesMut) {
        let Ok(Received::Commands(block)) = self.pair.server.receive(block, NOW) else { panic!("not read") };
        self.execute(from, &block);
    }

    fn execute(&mut self, from: ConnectionId, block: &OpenedBlock) {
        let mut requests = self.pair.server.parse(block);
        while let Some(mut chunk) = requests.next_chunk() {
            for request in &mut chunk {
                self.broker.look_up(request);
            }
            for verified in self.pair.server.verify(chunk, &mut self.entropy) {
                self.broker.execute(from, verified, block, NOW, &mut self.entropy);
            }
        }
    }

    /// Has storage do everything; what the broker does about it is counted.
    fn complete(&mut self) -> AllocationInfo {
        let mut counted = AllocationInfo::default();
        loop {
            let mut taken = None;
            add(&mut counted, allocation_counter::measure(|| taken = self.broker.poll_storage()));
            let Some((id, action)) = taken else { return counted };
            let completion = self.storage.apply(id, action);
            self.storage.sync();
            add(&mut counted, allocation_counter::measure(|| self.broker.complete(completion, NOW)));
        }
    }

    /// What is said on a connection.
    fn hear(&mut self, connection: ConnectionId) -> Vec<OutgoingContent> {
        while self.broker.poll_ready().is_some() {}
        self.broker.take_outgoing(connection, &mut self.outgoing);
        self.outgoing.drain(..).map(|outgoing| outgoing.content).collect()
    }

    /// Has all commands executed in as many blocks as it takes, and hears the answers.
    fn ask(
        &mut self,
        from: ConnectionId,
        commands: impl IntoIterator<Item = (EntityId, Command<'static>)>,
        key: Option<&AuthSecret>,
    ) -> Vec<OutgoingContent> {
        let mut commands = commands.into_iter().collect();
        let mut said = Vec::new();
        while !VecDeque::is_empty(&commands) {
            let block = self.seal(&mut commands, key);
            self.receive(from, block);
            loop {
                self.complete();
                let more = self.hear(from);
                if more.is_empty() {
                    break;
                }
                said.extend(more);
            }
        }
        said
    }
}

fn add(sum: &mut AllocationInfo, more: AllocationInfo) {
    sum.count_total += more.count_total;
    sum.bytes_total += more.bytes_total;
    sum.count_current += more.count_current;
    sum.bytes_current += more.bytes_current;
}

fn new_queue(key: AuthKey) -> Command<'static> {
    Command::New(NewQueue {
        recipient_key: key,
        recipient_dh: X25519Public([9; 32]),
        password: None,
        subscription: SubscriptionMode::Subscribe,
        request: Some(QueueRequest::Messaging(None)),
        notifier: None,
    })
}

/// The most common life of a queue: created with a subscription, secured, used, and left alone.
#[test]
fn a_queue_that_was_used_and_left_takes_no_more_than_400_bytes() {
    // What is the same for any number of queues (buffers that are kept for the next commands) does not count.
    let sizes = [1_024, 2_048].map(|queues| {
        let mut broker = None;
        // Everything else that is made here is dropped here.
        let info = allocation_counter::measure(|| broker = Some(used_and_left(queues)));
        assert_eq!(broker.unwrap().statistics().queues, queues);
        info.bytes_current
    });
    let each = (sizes[1] - sizes[0]) / 1_024;
    println!("a queue that was used and left: {each} bytes");
    assert!((200..=AT_REST).contains(&each), "{each} bytes");
}

fn used_and_left(queues: usize) -> Broker {
    let mut relay = Relay::new();
    let key = AuthSecret::generate_ed25519(&mut relay.entropy);
    let public = key.public(&Portable);
    let connection = relay.broker.connect(NOW).unwrap();
    let new = vec![(EntityId::EMPTY, new_queue(public)); queues];
    let ids: Vec<_> = relay
        .ask(connection, new, Some(&key))
        .into_iter()
        .map(|said| match said {
            OutgoingContent::Created(created) => (created.recipient.clone(), created.sender.clone()),
            other => panic!("{other:?}"),
        })
        .collect();
    let recipients = |command: Command<'static>| -> Vec<_> {
        ids.iter().map(|(recipient, _)| (recipient.clone(), command.clone())).collect()
    };
    relay.ask(connection, recipients(Command::SecureByRecipient(public)), Some(&key));
    let message = Command::Send { flags: MessageFlags::default(), body: b"hello" };
    let senders: Vec<_> = ids.iter().map(|(_, sender)| (sender.clone(), message.clone())).collect();
    let said = relay.ask(connection, senders, Some(&key));
    let delivered = said.iter().filter(|said| matches!(said, OutgoingContent::Message(_))).count();
    assert_eq!(delivered, queues);
    let acknowledge = Command::Acknowledge { message: Identifier::EMPTY };
    let said = relay.ask(connection, recipients(acknowledge), Some(&key));
    assert!(said.iter().all(|said| matches!(said, OutgoingContent::Ok)) && said.len() == queues);
    relay.broker.disconnect(connection);
    relay.broker
}

fn stored(number: u64, notifies: bool, entropy: &mut SeededEntropy) -> StoredQueue {
    let mut ids = [[0; 24]; 3];
    ids.iter_mut().for_each(|id| entropy.fill_public(id));
    let [recipient, sender, notifier] = ids;
    let secret = DeliverySecret { relay: [1; 32], peer: X25519Public([2; 32]) };
    let key = AuthKey::Ed25519(Ed25519Public([3; 32]));
    let record = QueueRecord {
        recipient,
        sender,
        recipient_keys: RecipientKeys::One(key),
        recipient_secret: secret.clone(),
        sender_key: Some(AuthKey::X25519(X25519Public([4; 32]))),
        mode: Some(QueueMode::Messaging),
        status: QueueStatus::Active,
        notifier: notifies.then(|| Box::new(NotifierRecord { notifier, key, secret, service: None })),
        link: None,
        updated: UnixTime(0),
    };
    StoredQueue { queue: QueueNumber(number), record, messages: Vec::new() }
}

fn bytes_a_queue(queues: u64, notifies: bool) -> i64 {
    let mut entropy = SeededEntropy::new([3; 32]);
    let mut broker = None;
    let info = allocation_counter::measure(|| {
        let mut relay = Broker::new(BrokerConfig::default(), &mut entropy);
        for number in 1..=queues {
            relay.restore(stored(number, notifies, &mut entropy)).unwrap();
        }
        broker = Some(relay);
    });
    assert_eq!(broker.unwrap().statistics().queues as u64, queues);
    info.bytes_current / queues as i64
}

#[test]
fn a_hundred_thousand_queues_at_rest_take_no_more_than_400_bytes_each() {
    let (plain, notifies) = (bytes_a_queue(100_000, false), bytes_a_queue(100_000, true));
    // The tables of ids have just grown.
    let most = bytes_a_queue(115_000, false);
    println!("a queue at rest: {plain} to {most} bytes, {notifies} with a notifier");
    assert!((200..=AT_REST).contains(&plain) && (200..=AT_REST).contains(&most), "{plain}, {most} bytes");
    assert!((plain..=plain + NOTIFIER).contains(&notifies), "{notifies} bytes with a notifier");
}

/// One message of the steady state: what the core allocates for each of its blocks, besides the blocks.
#[test]
fn a_message_allocates_nothing_but_its_blocks_on_its_way_through_the_core() {
    let mut relay = Relay::new();
    let recipient_key = AuthSecret::generate_ed25519(&mut relay.entropy);
    let sender_key = AuthSecret::X25519(X25519Secret::from_bytes([1; 32]));
    let (recipient, sender) = (relay.broker.connect(NOW).unwrap(), relay.broker.connect(NOW).unwrap());
    let new = new_queue(recipient_key.public(&Portable));
    let said = relay.ask(recipient, [(EntityId::EMPTY, new)], Some(&recipient_key));
    let [OutgoingContent::Created(created)] = &said[..] else { panic!("{said:?}") };
    let (queue, to) = (created.recipient.clone(), created.sender.clone());
    let key = Command::SecureByRecipient(sender_key.public(&Portable));
    relay.ask(recipient, [(queue.clone(), key)], Some(&recipient_key));
    let body = vec![5; 16_000];
    let mut packed = [0; BLOCK_LENGTH];
    for round in 0..20 {
        let send = Command::Send { flags: MessageFlags::default(), body: &body };
        let send = relay.seal(&mut VecDeque::from([(to.clone(), send)]), Some(&sender_key));
        let sent = allocation_counter::measure(|| relay.receive(sender, send));
        let stored = relay.complete();
        let delivered = allocation_counter::measure(|| {
            while relay.broker.poll_ready().is_some() {}
            for connection in [sender, recipient] {
                relay.broker.take_outgoing(connection, &mut relay.outgoing);
                assert!(relay.pair.server.pack_into(&mut relay.outgoing, &mut packed, NOW));
                assert!(relay.outgoing.is_empty());
            }
        });
        let acknowledge = Command::Acknowledge { message: Identifier::EMPTY };
        let acknowledge =
            relay.seal(&mut VecDeque::from([(queue.clone(), acknowledge)]), Some(&recipient_key));
        let acknowledged = allocation_counter::measure(|| relay.receive(recipient, acknowledge));
        let deleted = relay.complete();
        let answered = allocation_counter::measure(|| {
            while relay.broker.poll_ready().is_some() {}
            relay.broker.take_outgoing(recipient, &mut relay.outgoing);
            assert!(relay.pair.server.pack_into(&mut relay.outgoing, &mut packed, NOW));
        });
        let counts = [sent, stored, delivered, acknowledged, deleted, answered].map(|info| info.count_total);
        println!("round {round}: {counts:?}");
        if round >= 4 {
            // A body that is kept shares its block, and sharing begins with a count of who has it: 24 bytes that belong to
            // the block.
            assert!(sent.bytes_total <= 32, "{} bytes", sent.bytes_total);
            assert_eq!(counts, [1, 0, 0, 0, 0, 0], "round {round}");
        }
    }
}
