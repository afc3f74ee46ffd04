//! The rules of a relay, one by one: a broker over a model of storage, with clients whose signatures are believed.
#![allow(clippy::unwrap_used, reason = "tests")]

mod blobs;
mod blocking;
mod connections;
mod expiry;
mod link;
mod notifier;
mod recipient;
mod sender;
mod services;
mod storage_failures;

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::storage::{ActionId, Completion, StorageAction};
use super::{Broker, BrokerConfig, ConnectionId};
use crate::entropy::SeededEntropy;
use crate::keys::{AuthKey, Ed25519Public, X25519Public};
use crate::session::OpenedBlock;
use crate::session::outgoing::{Outgoing, OutgoingContent};
use crate::session::request::{Authority, Outcome, Prepared, RelayKeyPair, Request, Verified};
use crate::storage_model::StorageModel;
use crate::time::{Duration, Instant, Now, UnixTime};
use crate::wire::command::{
    Command, MessageFlags, NewQueue, NotifierKeys, Password, QueueMode, QueueRequest, SubscriptionMode,
};
use crate::wire::error::{CommandError, SmpError};
use crate::wire::transmission::{Authorization, Transmission};
use crate::wire::{CorrelationId, EntityId, Identifier};

/// What a relay said, as far as tests compare it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Created,
    NotifierId,
    Ok,
    Subscribed,
    SubscribedService([u8; 24]),
    ServiceSubscribed(i64),
    ServiceEnd(i64),
    ServiceAccepted([u8; 24]),
    ServiceRefused,
    Blob(X25519Public, Vec<u8>),
    Pong,
    Message([u8; 24], Vec<u8>),
    Link([u8; 24], Vec<u8>, Vec<u8>),
    QuotaMarker([u8; 24]),
    Notification([u8; 24]),
    End,
    Deleted,
    Information(String),
    Error(SmpError),
}

use Said::{Created, Deleted, End, Error, Message, NotifierId, Pong, QuotaMarker, Subscribed};

const AUTH: Said = Error(SmpError::Authorization);
const QUOTA: Said = Error(SmpError::Quota);
const NO_MSG: Said = Error(SmpError::NoMessage);
const PROHIBITED: Said = Error(SmpError::Command(CommandError::Prohibited));

fn store_failed() -> Said {
    Error(super::recovery::storage_failed())
}

/// A queue as its parties know it.
#[derive(Clone, Debug)]
struct Ids {
    recipient: EntityId,
    sender: EntityId,
    notifier: Option<EntityId>,
    link: Option<EntityId>,
}

/// A key by its number.
fn key(number: u8) -> AuthKey {
    AuthKey::Ed25519(Ed25519Public([number; 32]))
}

/// The recipient's, sender's and notifier's keys of most tests.
const RECIPIENT: u8 = 1;
const SENDER: u8 = 2;
const NOTIFIER: u8 = 3;

struct Relay {
    broker: Broker,
    storage: StorageModel,
    /// Actions that the driver has taken, and not carried out.
    held: VecDeque<(ActionId, StorageAction)>,
    entropy: SeededEntropy,
    now: Now,
    correlation: u64,
    /// Which actions fail.
    fails: fn(&StorageAction) -> bool,
}

impl Relay {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(configure: impl FnOnce(&mut BrokerConfig)) -> Self {
        let mut config = BrokerConfig::default();
        configure(&mut config);
        let mut entropy = SeededEntropy::new([5; 32]);
        let broker = Broker::new(config, &mut entropy);
        let now = Now { instant: Instant::START, wall: UnixTime(1_700_000_000) };
        Self {
            broker,
            storage: StorageModel::default(),
            held: VecDeque::new(),
            entropy,
            now,
            correlation: 0,
            fails: |_| false,
        }
    }

    fn connect(&mut self) -> ConnectionId {
        self.broker.connect(self.now).unwrap()
    }

    /// Lets time pass, on both clocks, handling what is due when it is due.
    fn pass(&mut self, duration: Duration) {
        let end = self.now.instant + duration;
        while let Some(at) = self.broker.next_deadline().filter(|at| *at <= end) {
            let passed = at.saturating_since(self.now.instant);
            self.now.instant = self.now.instant.max(at);
            self.now.wall = self.now.wall.saturating_add(passed);
            self.broker.handle_timeout(self.now);
            self.settle();
        }
        self.now.wall = self.now.wall.saturating_add(end.saturating_since(self.now.instant));
        self.now.instant = end;
    }

    /// Gives a command to the broker, as a session would that believes every signature.
    fn give(
        &mut self,
        from: ConnectionId,
        entity: &EntityId,
        command: Command<'_>,
        signed_with: Option<u8>,
    ) -> CorrelationId {
        let correlation = CorrelationId::from(self.next_correlation());
        self.correlation += 1;
        let block = OpenedBlock::with_content(Bytes::new());
        let mut request = Request::Command {
            transmission: Transmission {
                authorization: Authorization::None,
                service_signature: None,
                correlation: correlation.clone(),
                entity: entity.clone(),
                signed_tail: &[],
                content: command.clone(),
            },
            authority: Authority::NotLookedUp,
        };
        self.broker.look_up(&mut request);
        let Request::Command { authority, .. } = request else { unreachable!() };
        let signed_with = signed_with.map(key);
        let allowed = match (&authority, &command) {
            (Authority::NotLookedUp | Authority::Unknown, _) => false,
            (Authority::Nobody | Authority::Unsecured, _) => signed_with.is_none(),
            (Authority::KeyInCommand, Command::New(new)) => signed_with == Some(new.recipient_key),
            (
                Authority::KeyInCommand,
                Command::SecureBySender(key) | Command::SecureByLink(key) | Command::WriteBlob { key, .. },
            ) => signed_with == Some(*key),
            (Authority::KeyInCommand, _) => false,
            (Authority::Key(key), _) => signed_with == Some(*key),
            // The session compares the service's id, and verifies with its key.
            (Authority::Service, _) => signed_with.is_some(),
            (Authority::AnyOf(keys), _) => signed_with.is_some_and(|key| keys.contains(&key)),
        };
        let pair = || {
            let secret = [7; 32];
            Some(RelayKeyPair { secret, public: X25519Public([8; 32]) })
        };
        let fixed = match &command {
            Command::New(new) => new.request.as_ref().and_then(QueueRequest::link_data),
            Command::SetLink { data, .. } => Some(*data),
            _ => None,
        };
        let fixed_data = fixed.map(|data| Sha256::digest(data.fixed).into());
        let prepared = Prepared { queue: pair(), notifier: pair(), fixed_data };
        let outcome = if allowed {
            Outcome::Execute { command, key: signed_with, prepared }
        } else {
            Outcome::Refuse(SmpError::Authorization)
        };
        let verified =
            Verified { correlation: correlation.clone(), entity: entity.clone(), outcome, forwarded: None };
        self.broker.execute(from, verified, &block, self.now, &mut self.entropy);
        self.check();
        correlation
    }

    fn check(&self) {
        self.broker.check().unwrap();
    }

    /// Takes the actions that wait.
    fn hold(&mut self) {
        while let Some(action) = self.broker.poll_storage() {
            self.held.push_back(action);
        }
    }

    /// Carries out the first action that the driver has taken. False when there is none.
    fn complete_one(&mut self) -> bool {
        self.hold();
        let Some((id, action)) = self.held.pop_front() else { return false };
        let completion =
            if (self.fails)(&action) { Completion::Failed(id) } else { self.storage.apply(id, action) };
        self.broker.complete(completion, self.now);
        self.check();
        true
    }

    /// Carries out all actions.
    fn settle(&mut self) {
        while self.complete_one() {}
    }

    /// The correlation of the next command.
    fn next_correlation(&self) -> [u8; 24] {
        let mut correlation = [0; 24];
        correlation[..8].copy_from_slice(&(self.correlation + 1).to_be_bytes());
        correlation
    }

    /// What the relay has said on a connection: to which correlation (empty: by itself), and what.
    fn take(&mut self, connection: ConnectionId) -> Vec<(CorrelationId, EntityId, Said)> {
        let mut said = Vec::new();
        let mut out = VecDeque::new();
        loop {
            self.broker.take_outgoing(connection, &mut out);
            if out.is_empty() {
                return said;
            }
            self.check();
            said.extend(out.drain(..).map(|Outgoing { correlation, entity, content, .. }| {
                (correlation, entity, simplify(content))
            }));
            self.settle();
        }
    }

    /// What the relay has said on a connection, without to whom.
    fn hear(&mut self, connection: ConnectionId) -> Vec<Said> {
        self.settle();
        self.take(connection).into_iter().map(|(_, _, said)| said).collect()
    }

    /// The answer to a command; there must be exactly one, with the command's entity, and nothing else.
    fn ask(
        &mut self,
        from: ConnectionId,
        entity: &EntityId,
        command: Command<'_>,
        signed_with: Option<u8>,
    ) -> Said {
        let correlation = self.give(from, entity, command, signed_with);
        self.settle();
        let mut said = self.take(from);
        assert_eq!(said.len(), 1, "{said:?}");
        let (answered, about, said) = said.pop().unwrap();
        assert_eq!((answered, &about), (correlation, entity));
        said
    }

    /// A command of the recipient.
    fn recipient(&mut self, from: ConnectionId, queue: &Ids, command: Command<'_>) -> Said {
        self.ask(from, &queue.recipient, command, Some(RECIPIENT))
    }

    fn try_new(&mut self, from: ConnectionId, new: NewQueue<'_>) -> (Said, Option<Ids>) {
        let correlation = self.give(from, &EntityId::EMPTY, Command::New(new), Some(RECIPIENT));
        self.settle();
        let mut out = VecDeque::new();
        self.broker.take_outgoing(from, &mut out);
        let answer = out.pop_front().unwrap();
        assert!(out.is_empty());
        assert_eq!(answer.correlation, correlation);
        let ids = match &answer.content {
            OutgoingContent::Created(created) => Some(Ids {
                recipient: created.recipient.clone(),
                sender: created.sender.clone(),
                notifier: created.notifier.as_ref().map(|notifier| notifier.notifier.clone()),
                link: created.link.clone(),
            }),
            _ => None,
        };
        (simplify(answer.content), ids)
    }

    /// A queue without a subscriber.
    fn queue(&mut self, mode: Option<QueueMode>) -> Ids {
        let creator = self.connect();
        let (said, ids) = self.try_new(creator, new_queue(mode, SubscriptionMode::CreateOnly));
        assert_eq!(said, Created);
        self.broker.disconnect(creator);
        ids.unwrap()
    }

    fn messaging_queue(&mut self) -> Ids {
        self.queue(Some(QueueMode::Messaging))
    }

    /// Sends an unsigned message in a connection of its own.
    fn send(&mut self, queue: &Ids, body: &[u8]) -> Said {
        let sender = self.connect();
        let said = self.ask(sender, &queue.sender, message(body, false), None);
        self.broker.disconnect(sender);
        said
    }

    /// Gives the queue a notifier.
    fn notify(&mut self, queue: &mut Ids) {
        let connection = self.connect();
        self.give(
            connection,
            &queue.recipient,
            Command::EnableNotifications(notifier_keys()),
            Some(RECIPIENT),
        );
        self.settle();
        let mut out = VecDeque::new();
        self.broker.take_outgoing(connection, &mut out);
        match out.pop_front().unwrap().content {
            OutgoingContent::NotifierId(ids) => queue.notifier = Some(ids.notifier),
            other => panic!("{other:?}"),
        }
        self.broker.disconnect(connection);
    }

    /// Starts the relay again over what is durable.
    fn restart(&mut self) {
        self.storage.sync();
        let config = self.broker.config().clone();
        self.broker = Broker::new(config, &mut self.entropy);
        for (number, record) in self.storage.services() {
            self.broker.restore_service(number, record).unwrap();
        }
        for (id, record) in self.storage.blobs() {
            self.broker.restore_blob(id, record).unwrap();
        }
        for queue in self.storage.queues() {
            self.broker.restore(queue).unwrap();
        }
        self.check();
    }
}

fn simplify(content: OutgoingContent) -> Said {
    match content {
        OutgoingContent::Created(_) => Created,
        OutgoingContent::NotifierId(_) => NotifierId,
        OutgoingContent::Ok => Said::Ok,
        OutgoingContent::Subscribed => Subscribed,
        OutgoingContent::SubscribedService(id) => Said::SubscribedService(id),
        OutgoingContent::ServiceSubscribed(count) => Said::ServiceSubscribed(count),
        OutgoingContent::ServiceEnd(count) => Said::ServiceEnd(count),
        OutgoingContent::ServiceAccepted(id) => Said::ServiceAccepted(id),
        OutgoingContent::ServiceRefused => Said::ServiceRefused,
        OutgoingContent::Blob(answer) => Said::Blob(answer.reader, answer.blob.to_vec()),
        OutgoingContent::Pong => Pong,
        OutgoingContent::Message(delivery) => match delivery.message {
            Some(message) => Message(delivery.id, message.body.to_vec()),
            None => QuotaMarker(delivery.id),
        },
        OutgoingContent::Link(link) => Said::Link(link.sender, link.fixed.to_vec(), link.user.to_vec()),
        OutgoingContent::Notification(delivery) => Said::Notification(delivery.message),
        OutgoingContent::End => End,
        OutgoingContent::Deleted => Deleted,
        OutgoingContent::Information(text) => Said::Information(*text),
        OutgoingContent::Error(error) => Error(error),
        OutgoingContent::ProxySession(_) | OutgoingContent::ProxyResponse(_) => {
            panic!("the proxy is not asked for anything here")
        }
    }
}

/// The body of a message, and its id.
#[track_caller]
fn body_of(said: &Said) -> (&[u8; 24], &[u8]) {
    match said {
        Message(id, body) => (id, body),
        other => panic!("not a message: {other:?}"),
    }
}

fn new_queue(mode: Option<QueueMode>, subscription: SubscriptionMode) -> NewQueue<'static> {
    NewQueue {
        recipient_key: key(RECIPIENT),
        recipient_dh: X25519Public([9; 32]),
        password: None,
        subscription,
        request: mode.map(|mode| match mode {
            QueueMode::Messaging => QueueRequest::Messaging(None),
            QueueMode::Contact => QueueRequest::Contact(None),
        }),
        notifier: None,
    }
}

fn notifier_keys() -> NotifierKeys {
    NotifierKeys { key: key(NOTIFIER), dh: X25519Public([10; 32]) }
}

const fn message(body: &[u8], notification: bool) -> Command<'_> {
    Command::Send { flags: MessageFlags { notification }, body }
}

fn acknowledge(id: &[u8]) -> Command<'static> {
    Command::Acknowledge { message: Identifier::new(id).unwrap() }
}
