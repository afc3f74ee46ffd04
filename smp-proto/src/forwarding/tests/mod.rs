//! The room over a real broker and a model of storage, with first-step relays that do what tests want, and real
//! cryptography.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod commands;
mod costs;
mod keys;
mod random;
mod replay;
mod through_first_step;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use super::*;
use crate::broker::storage::{ActionId, Completion, Room, StorageAction};
use crate::broker::{Broker, BrokerConfig, ConnectionId};
use crate::crypto::forwarding::{ForwardKeys, is_published, session_name};
use crate::crypto::{Portable, Provider, signatures};
use crate::entropy::SeededEntropy;
use crate::keys::{AuthKey, Ed25519Secret, SigningKey, X25519Public, X25519Secret};
use crate::session::client::write_alone;
use crate::session::forwarding::{COMMAND_VERSION, ForwardingKey};
use crate::session::identity::{KeyInMemory, ServerIdentity};
use crate::session::outgoing::OutgoingContent;
use crate::session::request::{Outcome, Prepared, RelayKeyPair, Verified};
use crate::session::{AuthSecret, CommandVerifier, OpenedBlock, SessionId};
use crate::storage_model::StorageModel;
use crate::time::{Duration, Instant, Now, UnixTime};
use crate::wire::command::{Command, MessageFlags, NewQueue, QueueMode, QueueRequest, SubscriptionMode};
use crate::wire::first_step::{
    Correlation, FirstStepError, Forward, ForwardOptions, Message, Register, RelayNumber, SEALED_LENGTH,
    Transmission,
};
use crate::wire::primitives::SliceWriter;
use crate::wire::response::Response;
use crate::wire::transmission::{Batch, SessionLayout, Transmission as AnswerTransmission};
use crate::wire::{EntityId, Identifier};

const PLAIN: ForwardOptions =
    ForwardOptions { while_unsecured: false, while_full: false, hold: crate::wire::first_step::Hold::Never };
const UNSECURED: ForwardOptions = ForwardOptions { while_unsecured: true, ..PLAIN };
const FULL: ForwardOptions = ForwardOptions { while_full: true, ..PLAIN };
const DAY: u64 = 86_400;

/// What a first-step relay hears.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    Key { number: RelayNumber, until: i64, key: X25519Public, signature: Vec<u8>, chain: Vec<Vec<u8>> },
    Sealed(Bytes),
    Error(FirstStepError),
}

/// What a client reads in an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Ok,
    Link(Vec<u8>, Vec<u8>),
    Error(crate::wire::error::SmpError),
}

/// A published key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Published {
    number: RelayNumber,
    key: X25519Public,
}

/// A command as its client made it.
struct Made {
    number: RelayNumber,
    ephemeral: X25519Public,
    sealed: Vec<u8>,
    keys: ForwardKeys,
    correlation: [u8; 24],
}

/// A queue as its parties know it.
#[derive(Clone, Debug)]
struct Ids {
    recipient: EntityId,
    sender: EntityId,
}

struct World {
    broker: Broker,
    room: Forwarding,
    storage: StorageModel,
    config: ForwardingConfig,
    broker_config: BrokerConfig,
    identity: ServerIdentity,
    /// Actions that were taken, and not carried out.
    held: VecDeque<(ActionId, StorageAction)>,
    /// Which actions fail.
    fails: fn(&StorageAction) -> bool,
    entropy: SeededEntropy,
    now: Now,
    verifier: CommandVerifier,
    /// What opens, verifies and seals.
    provider: &'static dyn Provider,
    relays: Vec<FirstStepId>,
    heard: Vec<(FirstStepId, Correlation, Heard)>,
    correlation: u64,
}

/// A DER SEQUENCE of short parts.
fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    [&[0x30, u8::try_from(content.len()).unwrap()][..], &content].concat()
}

/// Just enough of a certificate to have a key.
fn certificate(key: &[u8], serial: u8) -> Vec<u8> {
    let empty = sequence(&[]);
    let inside = sequence(&[&[2, 1, serial], &empty, &empty, &empty, &empty, key]);
    sequence(&[&inside, &empty, &[3, 1, 0]])
}

fn identity(seed: u8) -> (ServerIdentity, crate::keys::SignatureKey) {
    let secret = Ed25519Secret::from_bytes([seed; 32]);
    let der = Portable.ed25519_public(&secret).to_der();
    let signing = SigningKey::Ed25519(secret);
    let public = signatures::public_key(&Portable, &signing);
    let signer = Arc::new(KeyInMemory::new(signing, &Portable));
    let chain = vec![certificate(&der, seed), certificate(&der, 1)];
    (ServerIdentity::new(chain, signer).unwrap(), public)
}

/// Keeps no receipts beyond their key's end: most tests want to see that nothing is left.
fn forgetful() -> ForwardingConfig {
    ForwardingConfig { keep_receipts: Duration::ZERO, ..ForwardingConfig::default() }
}

impl World {
    fn new() -> Self {
        Self::with(forgetful(), BrokerConfig::default())
    }

    fn with(config: ForwardingConfig, broker_config: BrokerConfig) -> Self {
        let mut entropy = SeededEntropy::new([3; 32]);
        let mut broker = Broker::new(broker_config.clone(), &mut entropy);
        let now = Now { instant: Instant::from_micros(5), wall: UnixTime(1_700_000_000) };
        let connection = broker.connect(now).unwrap();
        let identity = identity(40).0;
        let room =
            Forwarding::restore(config, &Portable, identity.clone(), connection, [], now, &mut entropy)
                .unwrap();
        let mut world = Self {
            broker,
            room,
            storage: StorageModel::default(),
            config,
            broker_config,
            identity,
            held: VecDeque::new(),
            fails: |_| false,
            entropy,
            now,
            verifier: CommandVerifier::new(&Portable, 4),
            provider: &Portable,
            relays: Vec::new(),
            heard: Vec::new(),
            correlation: 0,
        };
        world.settle();
        world
    }

    /// Power fails: what is not durable is lost, and the relay starts again.
    fn restart(&mut self) {
        self.storage.crash();
        self.held.clear();
        self.relays.clear();
        self.heard.clear();
        self.verifier = CommandVerifier::new(self.provider, 4);
        self.broker = Broker::new(self.broker_config.clone(), &mut self.entropy);
        for queue in self.storage.queues() {
            self.broker.restore(queue).unwrap();
        }
        // The clock that only goes forward begins again.
        self.now.instant = Instant::from_micros(7);
        let connection = self.broker.connect(self.now).unwrap();
        let records = self.storage.records(&PREFIX).map(|(key, value)| (key.clone(), value.clone()));
        self.room = Forwarding::restore(
            self.config,
            &Portable,
            self.identity.clone(),
            connection,
            records.collect::<Vec<_>>(),
            self.now,
            &mut self.entropy,
        )
        .unwrap();
        self.check();
    }

    fn check(&self) {
        self.room.check().unwrap();
        self.broker.check().unwrap();
    }

    fn attach(&mut self, id: u64) -> FirstStepId {
        let id = FirstStepId(id);
        self.room.attach(id);
        self.relays.push(id);
        id
    }

    fn detach(&mut self, id: FirstStepId) {
        self.room.detach(id);
        self.relays.retain(|other| *other != id);
        self.check();
    }

    /// Opens, verifies and executes what was handed out, and hears what is said.
    fn turn(&mut self) {
        while let Some(id) = self.room.poll_ready() {
            while let Some(sealed) = self.room.poll_command(id) {
                match sealed.open(self.provider) {
                    Err(unopened) => self.room.unopened(unopened),
                    Ok(opened) => {
                        let mut request = opened.request();
                        self.broker.look_up(&mut request);
                        let verified = self.verifier.verify(&opened, request, &mut self.entropy);
                        self.room.execute(&mut self.broker, &opened, verified, self.now, &mut self.entropy);
                    }
                }
                self.check();
            }
            while let Some(next) = self.room.poll_to_relay(id) {
                let mut block = vec![0; 16_500];
                let mut out = SliceWriter::new(&mut block);
                next.write(self.provider, &mut out).unwrap();
                let length = out.written();
                let read = Transmission::decode(&block[..length]).unwrap();
                let heard = match read.message {
                    Message::Response(sealed) => Heard::Sealed(Bytes::copy_from_slice(sealed)),
                    Message::Error(error) => Heard::Error(error),
                    Message::Registered(registered) => Heard::Key {
                        number: registered.key.number,
                        until: registered.key.until,
                        key: registered.key.key,
                        signature: registered.key.signature.to_vec(),
                        chain: registered.key.chain.iter().map(|one| one.to_vec()).collect(),
                    },
                    other => panic!("{other:?}"),
                };
                self.heard.push((id, read.correlation, heard));
            }
        }
    }

    fn hold(&mut self) {
        while let Some(action) = self.broker.poll_storage() {
            assert_eq!(action.0.room(), Some(Room::Broker));
            self.held.push_back(action);
        }
        while let Some(action) = self.room.poll_storage() {
            assert_eq!(action.0.room(), Some(Room::Forwarding));
            self.held.push_back(action);
        }
    }

    /// Carries out one action, durably. False when there is none.
    fn complete_one(&mut self) -> bool {
        self.hold();
        let Some((id, action)) = self.held.pop_front() else { return false };
        let completion = if (self.fails)(&action) {
            Completion::Failed(id)
        } else {
            let completion = self.storage.apply(id, action);
            self.storage.sync();
            completion
        };
        match completion.action().room() {
            Some(Room::Forwarding) => self.room.complete(completion, self.now),
            _ => self.broker.complete(completion, self.now),
        }
        self.collect();
        true
    }

    /// Brings the broker's answers.
    fn collect(&mut self) {
        while let Some(ready) = self.broker.poll_ready() {
            if ready == self.room.broker_connection() {
                self.room.collect(&mut self.broker);
            }
        }
        self.check();
    }

    fn settle(&mut self) {
        self.turn();
        while self.complete_one() {
            self.turn();
        }
    }

    /// Lets time pass, on both clocks, handling what is due when it is due.
    fn pass(&mut self, seconds: u64) {
        let end = self.now.instant + Duration::from_secs(seconds);
        for _ in 0..10_000 {
            let Some(at) = self.room.next_deadline().filter(|at| *at <= end) else { break };
            let passed = at.saturating_since(self.now.instant);
            self.now.instant = self.now.instant.max(at);
            self.now.wall = self.now.wall.saturating_add(passed);
            self.room.handle_timeout(self.now, &mut self.entropy);
            self.settle();
        }
        assert!(self.room.next_deadline().is_none_or(|at| at > end), "it never rests");
        self.now.wall = self.now.wall.saturating_add(end.saturating_since(self.now.instant));
        self.now.instant = end;
    }

    fn receive(&mut self, id: FirstStepId, transmission: &Transmission<'_>) {
        let mut content = Vec::new();
        transmission.encode(&mut content).unwrap();
        self.room.receive(id, content.into(), self.now, &mut self.entropy);
        self.check();
    }

    fn next_correlation(&mut self) -> Correlation {
        self.correlation += 1;
        Correlation(self.correlation)
    }

    /// Asks for the key, and verifies it.
    fn published(&mut self, id: FirstStepId) -> Published {
        let correlation = self.next_correlation();
        let register = Register { token: [0; 32], address: None, password: None };
        let relay = RelayNumber(0);
        self.receive(id, &Transmission { correlation, relay, message: Message::Register(register) });
        self.settle();
        match self.answer_to(id, correlation) {
            Heard::Key { number, key, .. } => Published { number, key },
            other => panic!("{other:?}"),
        }
    }

    fn give(&mut self, id: FirstStepId, made: &Made, options: ForwardOptions) -> Correlation {
        let correlation = self.next_correlation();
        let forward = Forward {
            options,
            acknowledged: Correlation(0),
            delay: 0,
            key: made.ephemeral,
            sealed: &made.sealed,
        };
        let message = Message::Forward(forward);
        self.receive(id, &Transmission { correlation, relay: made.number, message });
        correlation
    }

    /// Forwards a command, and returns what is said to it.
    fn forward(&mut self, id: FirstStepId, made: &Made, options: ForwardOptions) -> Heard {
        let correlation = self.give(id, made, options);
        self.settle();
        self.answer_to(id, correlation)
    }

    #[track_caller]
    fn answer_to(&mut self, id: FirstStepId, correlation: Correlation) -> Heard {
        let of = |heard: &(FirstStepId, Correlation, Heard)| heard.0 == id && heard.1 == correlation;
        let places: Vec<_> = self.heard.iter().filter(|heard| of(heard)).cloned().collect();
        self.heard.retain(|heard| !of(heard));
        assert_eq!(places.len(), 1, "{places:?}");
        places.into_iter().next().unwrap().2
    }

    /// A client seals a command.
    fn make(
        &mut self,
        published: Published,
        entity: &EntityId,
        command: &Command<'_>,
        key: Option<&AuthSecret>,
    ) -> Made {
        let secret = X25519Secret::generate(&mut self.entropy);
        let mut correlation = [0; 24];
        crate::entropy::Entropy::fill_public(&mut self.entropy, &mut correlation);
        let session = SessionId::new(&session_name(published.number, &published.key)).unwrap();
        let mut content = vec![0; 16_224];
        let relay = (&session, COMMAND_VERSION, published.key);
        let length =
            write_alone(&Portable, relay, &correlation.into(), entity, command, key, &mut content).unwrap();
        self.seal(published, &secret, correlation, &content[..length])
    }

    fn seal(
        &self,
        published: Published,
        secret: &X25519Secret,
        correlation: [u8; 24],
        content: &[u8],
    ) -> Made {
        let keys = ForwardKeys::of_client(&Portable, secret, published.number, &published.key);
        let mut sealed = [0; SEALED_LENGTH];
        keys.seal_command(&Portable, content, &mut sealed).unwrap();
        let ephemeral = Portable.x25519_public(secret);
        Made { number: published.number, ephemeral, sealed: sealed.to_vec(), keys, correlation }
    }

    fn send(&mut self, published: Published, queue: &Ids, body: &[u8], key: Option<&AuthSecret>) -> Made {
        let command = Command::Send { flags: MessageFlags { notification: false }, body };
        self.make(published, &queue.sender.clone(), &command, key)
    }

    /// Has a command executed that is believed.
    fn believe(
        &mut self,
        from: ConnectionId,
        entity: EntityId,
        command: Command<'_>,
        key: Option<AuthKey>,
    ) -> OutgoingContent {
        let pair = || Some(RelayKeyPair { secret: [7; 32], public: X25519Public([8; 32]) });
        let link = match &command {
            Command::New(new) => new.request.as_ref().and_then(QueueRequest::link_data),
            Command::SetLink { data, .. } => Some(*data),
            _ => None,
        };
        let fixed_data = link.map(|data| {
            sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new_with_prefix(data.fixed)).into()
        });
        let prepared = Prepared { queue: pair(), notifier: pair(), fixed_data };
        let verified = Verified {
            correlation: Identifier::from([1; 24]),
            entity,
            outcome: Outcome::Execute { command, key, prepared },
            forwarded: None,
        };
        let block = OpenedBlock::with_content(Bytes::new());
        self.broker.execute(from, verified, &block, self.now, &mut self.entropy);
        self.settle();
        let mut out = VecDeque::new();
        self.broker.take_outgoing(from, &mut out);
        assert_eq!(out.len(), 1);
        out.pop_front().unwrap().content
    }

    fn recipient_key() -> AuthKey {
        AuthSecret::Ed25519(Ed25519Secret::from_bytes([1; 32])).public(&Portable)
    }

    /// A queue between two, or a contact address.
    fn queue(&mut self, mode: QueueMode) -> Ids {
        let from = self.broker.connect(self.now).unwrap();
        let new = NewQueue {
            recipient_key: Self::recipient_key(),
            recipient_dh: X25519Public([9; 32]),
            password: None,
            subscription: SubscriptionMode::CreateOnly,
            request: Some(match mode {
                QueueMode::Messaging => QueueRequest::Messaging(None),
                QueueMode::Contact => QueueRequest::Contact(None),
            }),
            notifier: None,
        };
        let key = Some(Self::recipient_key());
        let said = self.believe(from, EntityId::EMPTY, Command::New(new), key);
        self.broker.disconnect(from);
        match said {
            OutgoingContent::Created(created) => {
                Ids { recipient: created.recipient.clone(), sender: created.sender.clone() }
            }
            other => panic!("{other:?}"),
        }
    }

    /// The bodies in a queue, in order, as storage has them.
    fn bodies(&self, queue: &Ids) -> Vec<Vec<u8>> {
        let mut bodies = Vec::new();
        for stored in self.storage.queues() {
            if EntityId::from(stored.record.sender) == queue.sender {
                for (sequence, _) in stored.messages {
                    bodies.push(self.storage.message(stored.queue, sequence).unwrap().body.to_vec());
                }
            }
        }
        bodies
    }

    fn receipts(&self) -> usize {
        self.storage.records(&[PREFIX[0], b'R']).count()
    }
}

impl Made {
    /// What the client reads in the answer.
    #[track_caller]
    fn open(&self, heard: &Heard) -> Said {
        let Heard::Sealed(sealed) = heard else { panic!("{heard:?}") };
        let mut sealed = sealed.to_vec();
        let text = self.keys.open_answer(&Portable, &mut sealed).unwrap();
        let mut batch = Batch::parse(text).unwrap();
        assert_eq!(batch.len(), 1);
        let layout = SessionLayout { version: COMMAND_VERSION, session: &[] };
        let read = AnswerTransmission::decode_response(batch.next().unwrap(), layout).unwrap();
        match read.content {
            Response::Ok => Said::Ok,
            Response::Link { data, .. } => Said::Link(data.fixed.to_vec(), data.user.to_vec()),
            Response::Error(error) => Said::Error(error),
            other => panic!("{other:?}"),
        }
    }
}

/// What a key's publication must be.
fn is_genuine(heard: &Heard, signer: &crate::keys::SignatureKey) -> bool {
    let Heard::Key { number, until, key, signature, .. } = heard else { return false };
    is_published(&Portable, signer, *number, *until, key, signature)
}
