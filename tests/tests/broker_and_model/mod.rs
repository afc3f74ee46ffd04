//! A broker and its reference model, given the same commands, time and failures; what they say is compared.
//!
//! Commands reach the broker as they do in a relay: a client's session signs and encodes them, a relay's session parses
//! and verifies them. What storage has done is told to the broker late and in any order; what belongs to one queue has
//! been done in order.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod storm;
mod wire;

use std::collections::{BTreeMap, VecDeque};

use bytes::BytesMut;
use proptest::test_runner::TestCaseError;
use smp_proto::broker::record::{QueueRecord, QueueStatus};
use smp_proto::broker::storage::{Completion, MessageKind, StorageAction};
use smp_proto::broker::{Broker, BrokerConfig, ConnectionId, Limits};
use smp_proto::crypto::ids;
use smp_proto::entropy::SeededEntropy;
use smp_proto::session::AuthSecret;
use smp_proto::session::outgoing::{Delivery, Outgoing, OutgoingContent};
use smp_proto::storage_model::StorageModel;
use smp_proto::time::{Duration, Instant, Now, UnixTime};
use smp_proto::wire::block::BLOCK_LENGTH;
use smp_proto::wire::command::QueueMode;
use smp_proto::wire::error::Blocked;
use smp_proto::wire::{CorrelationId, EntityId};
use smp_tests::reference_model::{
    self as model, Connection, Description, Entity, Key, LinkData, Message, Number, Order, Rules, Said,
    Saying, Status, Storage,
};

pub use wire::{Keys, Sessions};

pub type Checked<T = ()> = Result<T, TestCaseError>;

/// How the broker is driven.
#[derive(Clone, Debug)]
pub struct Options {
    /// The rules of the relay.
    pub rules: Rules,
    /// Message bodies under way to one connection.
    pub deliveries_in_flight: u16,
    /// Whether connections take at once what is said to them, or only when they are told to.
    pub takes_at_once: bool,
    /// What decides the order of completions.
    pub seed: u64,
}

/// A command as a script gives it.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    pub from: Connection,
    pub about: Entity,
    pub order: Order,
    pub signed: Option<Key>,
}

/// A connection to the broker.
struct Peer {
    id: ConnectionId,
    version: u16,
    heard: Vec<Said>,
}

pub struct BrokerAndModel<'s> {
    options: Options,
    config: BrokerConfig,
    pub broker: Broker,
    pub model: model::Relay,
    sessions: &'s mut Sessions,
    keys: &'s Keys,
    storage: StorageModel,
    failing: Storage,
    /// What storage has done, and the broker does not know yet.
    done: Vec<Completion>,
    peers: BTreeMap<Connection, Peer>,
    expected: BTreeMap<Connection, Vec<Said>>,
    next_peer: Connection,
    next_command: Number,
    orders: BTreeMap<Number, Order>,
    ids: BTreeMap<EntityId, Entity>,
    /// The relay's keys of queues and notifiers, as their owners were told.
    relay_keys: BTreeMap<Entity, [u8; 32]>,
    messages: BTreeMap<[u8; 24], Number>,
    nonces: Vec<[u8; 24]>,
    pub ledger: storm::Ledger,
    entropy: SeededEntropy,
    random: u64,
    now: Now,
}

/// When everything begins.
const START: i64 = 1_700_000_000;

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(TestCaseError::fail(what())) }
}

fn fail<T>(what: impl Into<String>) -> Checked<T> {
    Err(TestCaseError::fail(what.into()))
}

impl<'s> BrokerAndModel<'s> {
    pub fn new(options: Options, sessions: &'s mut Sessions, keys: &'s Keys) -> Self {
        let rules = &options.rules;
        let config = BrokerConfig {
            new_queues: rules.new_queues,
            create_password: rules.asks_password.then(|| wire::PASSWORD.to_vec().into()),
            message_quota: rules.quota as u16,
            message_time_to_live: Duration::from_secs(rules.message_life as u64),
            notification_time_to_live: Duration::from_secs(rules.news_life as u64),
            notification_delay: Duration::from_millis(rules.news_delay as u64),
            unsecured_time_to_live: None,
            blob_time_to_live: None,
            proxied_at_once: 0,
            limits: Limits {
                connections: rules.connections as u32,
                queues: rules.queues as u32,
                subscriptions: rules.subscriptions as u32,
                commands_in_flight: 1024,
                deliveries_in_flight: options.deliveries_in_flight,
                recipient_keys: 16,
                services: 16,
                blobs: 16,
                blob_length: 16_141,
                blob_writes_of_connection: u16::MAX,
                blob_writes: u32::MAX,
                waiting_notifications: rules.waiting_notifications as u16,
            },
        };
        let mut entropy = SeededEntropy::new([9; 32]);
        Self {
            broker: Broker::new(config.clone(), &mut entropy),
            config,
            model: model::Relay::new(rules.clone(), START),
            sessions,
            keys,
            storage: StorageModel::default(),
            failing: Storage::default(),
            done: Vec::new(),
            peers: BTreeMap::new(),
            expected: BTreeMap::new(),
            next_peer: 0,
            next_command: 1,
            orders: BTreeMap::new(),
            ids: BTreeMap::new(),
            relay_keys: BTreeMap::new(),
            messages: BTreeMap::new(),
            nonces: Vec::new(),
            ledger: storm::Ledger::default(),
            entropy,
            random: options.seed,
            now: Now { instant: Instant::START, wall: UnixTime(START) },
            options,
        }
    }

    /// A number below `bound`.
    fn random(&mut self, bound: usize) -> usize {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize % bound.max(1)
    }

    fn check(&self) -> Checked {
        self.broker.check().or_else(|inconsistency| fail(inconsistency.0))
    }

    pub fn connect(&mut self, version: u16) -> Checked {
        let number = self.next_peer;
        let accepted = self.broker.connect(self.now);
        ensure(accepted.is_ok() == self.model.connect(number), || "accepting a connection".into())?;
        if let Ok(id) = accepted {
            self.next_peer += 1;
            self.peers.insert(number, Peer { id, version, heard: Vec::new() });
        }
        self.check()
    }

    pub fn disconnect(&mut self, number: Connection) -> Checked {
        if let Some(peer) = self.peers.remove(&number) {
            self.expected.remove(&number);
            self.broker.disconnect(peer.id);
            self.model.disconnect(number);
        }
        self.finish_step()
    }

    /// The relay starts again over what it has stored, and forgets its connections. Meanwhile the operator may block a
    /// queue.
    pub fn restart(&mut self, block: Option<(Number, Blocked)>) -> Checked {
        if let Some((queue, blocked)) = block {
            let recipient = self.id_of(Entity::Recipient(queue));
            let stored =
                self.storage.queues().find(|stored| stored.record.recipient == *recipient.as_full().unwrap());
            let stored = stored.unwrap();
            let record = QueueRecord { status: QueueStatus::Blocked(blocked.clone()), ..stored.record };
            let put = StorageAction::PutQueue { queue: stored.queue, record: Box::new(record) };
            self.storage.apply(smp_proto::broker::storage::ActionId(u64::MAX), put);
            self.storage.sync();
            self.model.block(queue, blocked);
        }
        self.storage.crash();
        self.start_again()?;
        self.finish_step()
    }

    fn start_again(&mut self) -> Checked {
        self.model.restart();
        (self.peers, self.expected) = (BTreeMap::new(), BTreeMap::new());
        self.broker = Broker::new(self.config.clone(), &mut self.entropy);
        for stored in self.storage.queues() {
            self.broker.restore(stored).or_else(|error| fail(error.to_string()))?;
        }
        self.check()
    }

    /// Seconds pass, on both clocks; what is due is done when it is due.
    pub fn pass(&mut self, seconds: i64, storage: Storage) -> Checked {
        self.let_pass(seconds, storage)?;
        self.finish_step()
    }

    fn let_pass(&mut self, seconds: i64, storage: Storage) -> Checked {
        self.failing = storage;
        let end = self.now.instant + Duration::from_secs(seconds as u64);
        while let Some(at) = self.broker.next_deadline().filter(|at| *at <= end) {
            self.now.instant = self.now.instant.max(at);
            let since_start = self.now.instant.saturating_since(Instant::START);
            self.now.wall = UnixTime(START).saturating_add(since_start);
            self.broker.handle_timeout(self.now);
            self.settle()?;
        }
        self.now.instant = end;
        self.now.wall = UnixTime(START).saturating_add(end.saturating_since(Instant::START));
        self.model.pass(seconds, storage);
        Ok(())
    }

    /// So much time passes that everything which is too old is gone.
    pub fn pass_long(&mut self, seconds: i64) -> Checked {
        self.let_pass(seconds, Storage::default())?;
        self.model.forget_old();
        self.finish_step()
    }

    /// Commands that are all under way at once.
    pub fn ask(&mut self, asks: &[Ask], storage: Storage) -> Checked {
        self.failing = storage;
        for ask in asks {
            let Some(peer) = self.peers.get(&ask.from) else { continue };
            let (id, number) = (peer.id, self.next_command);
            let mut ask = *ask;
            ask.signed = ask.signed.filter(|key| self.keys.usable_at(*key, peer.version));
            if !wire::is_known(&mut ask.order, peer.version) {
                continue;
            }
            self.next_command += 1;
            self.name_link(number, &ask);
            self.orders.insert(number, ask.order);
            ensure(self.broker.has_room(id), || "no room for a command".into())?;
            self.give(id, number, ask)?;
            self.model.command(number, ask.from, ask.about, ask.order, ask.signed, storage);
            for _ in 0..self.random(3) {
                self.complete_one()?;
            }
        }
        self.settle()?;
        for ask in asks {
            // Who is told an id uses it, whoever else is slow.
            if matches!(ask.order, Order::New { .. } | Order::EnableNotifications(_)) {
                self.take(ask.from)?;
            }
        }
        self.finish_step()
    }

    /// Has the sessions carry a command to the broker.
    fn give(&mut self, id: ConnectionId, number: Number, ask: Ask) -> Checked {
        let entity = self.id_of(ask.about);
        let acknowledged = match ask.order {
            Order::Acknowledge(model::Acknowledged::Message(number)) => {
                self.messages.iter().find(|(_, named)| **named == number).map(|(id, _)| *id)
            }
            _ => None,
        };
        let version = self.peers[&ask.from].version;
        let (body, fixed) = (wire::body_of(number), wire::fixed_of(fixed_in(ask.order)));
        let named = match ask.order {
            Order::SetLink { link, .. } => link.unwrap_or(number),
            _ => number,
        };
        let parts = wire::Parts {
            acknowledged,
            sender: ids::sender_id(correlation(number).as_bytes()).into(),
            link: self.id_of(Entity::Link(named)),
            fixed: &fixed,
            body: &body,
        };
        let command = wire::command(ask.order, version, self.keys, parts);
        let keys = self.keys;
        let key: Option<&AuthSecret> = ask.signed.map(|key| keys.secret(key));
        let pair = self.sessions.at(version);
        let mut block = BytesMut::zeroed(BLOCK_LENGTH);
        pair.client
            .seal(block.as_mut().try_into().unwrap(), smp_tests::sessions::NOW, |writer| {
                writer.add(&correlation(number), &entity, &command, key).unwrap();
            })
            .unwrap();
        let block = pair.to_server(block).or_else(|reason| fail(reason.to_string()))?;
        let mut requests = pair.server.parse(&block);
        while let Some(mut chunk) = requests.next_chunk() {
            for request in &mut chunk {
                self.broker.look_up(request);
            }
            for verified in pair.server.verify(chunk, &mut self.entropy) {
                self.broker.execute(id, verified, &block, self.now, &mut self.entropy);
            }
        }
        self.check()?;
        self.perform(Some(number))
    }

    fn id_of(&self, entity: Entity) -> EntityId {
        match entity {
            Entity::None => EntityId::EMPTY,
            Entity::Unknown(0) => EntityId::new(&[7; 5]).unwrap(),
            Entity::Unknown(byte) => EntityId::from([byte; 24]),
            known => self.ids.iter().find(|(_, named)| **named == known).map_or_else(
                // It was to be made, and failed.
                || EntityId::from([255; 24]),
                |(id, _)| id.clone(),
            ),
        }
    }

    /// A client that chooses a link's id knows it from the beginning; so it does one that is nobody's.
    fn name_link(&mut self, number: Number, ask: &Ask) {
        let chosen = match ask.order {
            Order::New { mode: Some(QueueMode::Contact), link: Some(_), .. } => Some(number),
            Order::SetLink { link, .. } => Some(link.unwrap_or(number)),
            _ => None,
        };
        let asked = if let Entity::Link(link) = ask.about { Some(link) } else { None };
        for named in chosen.into_iter().chain(asked) {
            if !self.ids.values().any(|known| *known == Entity::Link(named)) {
                self.ids.insert(wire::link_of(named), Entity::Link(named));
            }
        }
    }

    /// Storage does what it was asked for, by the command if there is one.
    fn perform(&mut self, command: Option<Number>) -> Checked {
        while let Some((id, action)) = self.broker.poll_storage() {
            if let StorageAction::PutMessage { message, .. } = &action {
                let Some(number) = command else { return fail("a message from nowhere") };
                let known = self.messages.insert(message.id, number);
                ensure(known.is_none(), || "two messages with one id".into())?;
            }
            let fails = if action.is_read() { self.failing.reads_fail } else { self.failing.writes_fail };
            if fails || self.ledger.odds > 0 && self.random(self.ledger.odds) == 0 {
                self.done.push(Completion::Failed(id));
                continue;
            }
            self.ledger.done(&action, command);
            self.done.push(self.storage.apply(id, action));
        }
        self.storage.sync();
        Ok(())
    }

    /// Storage does what it was asked for, and the broker hears of one thing that was done. False when there is none.
    fn complete_one(&mut self) -> Checked<bool> {
        self.perform(None)?;
        if self.done.is_empty() {
            return Ok(false);
        }
        let which = self.random(self.done.len());
        let completion = self.done.swap_remove(which);
        self.broker.complete(completion, self.now);
        self.check()?;
        if self.options.takes_at_once {
            self.take_all()?;
        }
        Ok(true)
    }

    fn settle(&mut self) -> Checked {
        while self.complete_one()? {}
        Ok(())
    }

    /// Has a connection take what was said to it. Storage may be asked for more then.
    fn take(&mut self, number: Connection) -> Checked {
        let Some(peer) = self.peers.get(&number) else { return Ok(()) };
        let id = peer.id;
        let mut out = VecDeque::new();
        self.broker.take_outgoing(id, &mut out);
        self.check()?;
        for outgoing in out {
            let said = self.understand(number, outgoing)?;
            self.peers.get_mut(&number).unwrap().heard.extend(said);
        }
        Ok(())
    }

    /// Whether more was said since it was taken last, to anybody.
    fn is_anybody_ready(&mut self) -> bool {
        let mut any = false;
        while self.broker.poll_ready().is_some() {
            any = true;
        }
        any
    }

    fn take_all(&mut self) -> Checked {
        for number in self.connections() {
            self.take(number)?;
        }
        Ok(())
    }

    pub fn connections(&self) -> Vec<Connection> {
        self.peers.keys().copied().collect()
    }

    /// A connection takes what was said to it, and compares it with what the model says.
    pub fn hear(&mut self, number: Connection) -> Checked {
        loop {
            self.take(number)?;
            if !self.complete_one()? && !self.is_anybody_ready() {
                break;
            }
        }
        let Some(peer) = self.peers.get_mut(&number) else { return Ok(()) };
        let heard = in_order(std::mem::take(&mut peer.heard), &self.orders);
        let expected = in_order(self.expected.remove(&number).unwrap_or_default(), &self.orders);
        ensure(heard == expected, || {
            format!("connection {number} heard\n  {heard:?}\nexpected\n  {expected:?}")
        })
    }

    /// Compares everything that can be seen.
    fn finish_step(&mut self) -> Checked {
        for said in self.model.take_said() {
            self.expected.entry(said.to).or_default().push(said);
        }
        self.settle()?;
        if self.options.takes_at_once {
            for number in self.connections() {
                self.hear(number)?;
            }
        }
        self.check()?;
        let statistics = self.broker.statistics();
        ensure(statistics.queues == self.model.queues().len(), || format!("{statistics:?}"))?;
        ensure(statistics.connections == self.model.connections().len(), || format!("{statistics:?}"))?;
        ensure(statistics.actions_under_way == 0, || format!("{statistics:?}"))?;
        self.compare_stored()
    }

    /// What storage holds is what the model knows.
    fn compare_stored(&self) -> Checked {
        let stored: Vec<_> = self.storage.queues().collect();
        ensure(stored.len() == self.model.queues().len(), || "other queues are stored".into())?;
        for queue in self.model.queues() {
            let recipient = self.id_of(Entity::Recipient(queue.number));
            let Some(stored) = stored.iter().find(|one| recipient.as_full() == Some(&one.record.recipient))
            else {
                return fail(format!("queue {} is not stored", queue.number));
            };
            let record = &stored.record;
            let status = match &record.status {
                QueueStatus::Active => Status::Active,
                QueueStatus::Suspended => Status::Suspended,
                QueueStatus::Blocked(blocked) => Status::Blocked(blocked.clone()),
            };
            let notifier = record.notifier.as_ref().map(|one| (self.ids.get(&one.notifier.into()), one.key));
            let same = record.mode == queue.mode
                && status == queue.status
                && record.sender_key == queue.sender_key.map(|key| self.keys.public(key))
                && notifier
                    == queue.notifier.map(|(name, key)| {
                        (self.ids.get(&self.id_of(Entity::Notifier(name))), self.keys.public(key))
                    })
                && record.link.as_ref().map(|link| self.ids.get(&link.link.into()))
                    == queue.link.map(|(name, _)| self.ids.get(&self.id_of(Entity::Link(name))))
                && record.updated.0 % 86_400 == 0;
            let data = self.storage.link(stored.queue).map(|link| (link.fixed.to_vec(), link.user.to_vec()));
            let expected = queue.link.map(|(_, data)| (wire::fixed_of(data.fixed), wire::body_of(data.user)));
            ensure(data == expected, || format!("queue {} has other link data", queue.number))?;
            ensure(same, || format!("queue {} is stored otherwise", queue.number))?;
            let marks: Vec<_> = stored
                .messages
                .iter()
                .map(|(_, mark)| (mark.timestamp.0, mark.kind == MessageKind::Quota))
                .collect();
            let expected: Vec<_> = queue.messages.iter().map(|one| (one.time, one.marker)).collect();
            ensure(marks == expected, || {
                format!("queue {} holds {marks:?}, not {expected:?}", queue.number)
            })?;
        }
        Ok(())
    }

    /// What the broker said, in the model's words.
    fn understand(&mut self, to: Connection, outgoing: Outgoing) -> Checked<Vec<Said>> {
        let Outgoing { correlation, entity, content, .. } = outgoing;
        let answers = correlation.as_full().map(|full| Number::from_be_bytes(full[..8].try_into().unwrap()));
        let order = answers.and_then(|number| self.orders.get(&number).copied());
        ensure(answers.is_none() || order.is_some(), || "an answer to nothing".into())?;
        let what = match content {
            OutgoingContent::Created(created) => {
                let number = answers.unwrap();
                let fresh = |id: &EntityId| id.as_full().is_some() && !self.ids.contains_key(id);
                let all_fresh = fresh(&created.recipient) && fresh(&created.sender);
                ensure(all_fresh && created.recipient != created.sender, || "an id is used again".into())?;
                self.ids.insert(created.recipient, Entity::Recipient(number));
                self.ids.insert(created.sender, Entity::Sender(number));
                self.relay_keys.insert(Entity::Recipient(number), created.relay_dh.0);
                if let Some(link) = &created.link {
                    let known = self.ids.insert(link.clone(), Entity::Link(number));
                    let expected = (created.mode == Some(QueueMode::Contact)).then_some(Entity::Link(number));
                    ensure(known == expected, || "a link of another name".into())?;
                }
                Saying::Created(created.mode, created.link.is_some())
            }
            OutgoingContent::NotifierId(ids) => {
                let number = answers.unwrap();
                ensure(!self.ids.contains_key(&ids.notifier), || "an id is used again".into())?;
                self.ids.insert(ids.notifier, Entity::Notifier(number));
                self.relay_keys.insert(Entity::Notifier(number), ids.relay_dh.0);
                Saying::NotifierId
            }
            OutgoingContent::Ok => Saying::Ok,
            OutgoingContent::Subscribed => Saying::Subscribed,
            OutgoingContent::Pong => Saying::Pong,
            OutgoingContent::End => Saying::End,
            OutgoingContent::Deleted => Saying::Deleted,
            OutgoingContent::Error(error) => Saying::Refused(error),
            OutgoingContent::Information(text) => Saying::Information(self.description(&text)?),
            OutgoingContent::Link(link) => {
                let Some(Entity::Sender(queue)) = self.ids.get(&link.sender.into()) else {
                    return fail("link data of nobody's queue");
                };
                let fixed = link.fixed.first().copied().filter(|fixed| link.fixed == wire::fixed_of(*fixed));
                let Some(fixed) = fixed else { return fail("fixed data that nobody gave") };
                Saying::Link(*queue, LinkData { fixed, user: wire::number_of(&link.user) })
            }
            OutgoingContent::Blob(_) => return fail("a blob that nobody asked for"),
            OutgoingContent::SubscribedService(_)
            | OutgoingContent::ServiceSubscribed(_)
            | OutgoingContent::ServiceEnd(_)
            | OutgoingContent::ServiceAccepted(_)
            | OutgoingContent::ServiceRefused => return fail("there are no services here"),
            OutgoingContent::ProxySession(_) | OutgoingContent::ProxyResponse(_) => {
                return fail("there is no proxy here");
            }
            OutgoingContent::Message(delivery) => Saying::Message(self.message(&entity, &delivery)?),
            OutgoingContent::Notification(delivery) => {
                let relay_key = wire::public_of(delivery.secret.relay);
                let expected = self.ids.get(&entity).and_then(|entity| self.relay_keys.get(entity));
                ensure(expected == Some(&relay_key), || "a notification under another key".into())?;
                ensure(!self.nonces.contains(&delivery.nonce), || "a nonce is used again".into())?;
                self.nonces.push(delivery.nonce);
                let message = *self.messages.get(&delivery.message).unwrap_or(&0);
                Saying::Notification { message, time: delivery.timestamp.0 }
            }
        };
        let about = match self.ids.get(&entity) {
            Some(entity) => *entity,
            None if entity.is_empty() => Entity::None,
            None if entity.as_full().is_none() => Entity::Unknown(0),
            None => Entity::Unknown(entity.as_bytes()[0]),
        };
        let said = Said { to, about, answers, what };
        // Both are allowed: the next message as the answer to an acknowledgement, or after it.
        if matches!((&order, &said.what), (Some(Order::Acknowledge(_)), Saying::Message(_))) {
            let ok = Said { what: Saying::Ok, ..said.clone() };
            return Ok(vec![ok, Said { answers: None, ..said }]);
        }
        Ok(vec![said])
    }

    /// A message, found in what has been sent.
    fn message(&self, entity: &EntityId, delivery: &Delivery) -> Checked<Message> {
        let relay_key = wire::public_of(delivery.secret.relay);
        let expected = self.ids.get(entity).and_then(|entity| self.relay_keys.get(entity));
        ensure(expected == Some(&relay_key), || "a message under another key".into())?;
        ensure(delivery.secret.peer == wire::RECIPIENT_DH, || "a message for another recipient".into())?;
        let number = self.messages.get(&delivery.id).copied().unwrap_or(0);
        let body = delivery.message.as_ref().map(|message| wire::number_of(&message.body));
        ensure(body.is_none_or(|body| body == number), || format!("message {number} with another's body"))?;
        let notification = delivery.message.as_ref().is_some_and(|message| message.notification);
        let marker = delivery.message.is_none();
        Ok(Message { number, marker, notification, time: delivery.timestamp.0 })
    }

    fn description(&self, text: &str) -> Checked<Description> {
        let json: serde_json::Value = serde_json::from_str(text).or_else(|error| fail(error.to_string()))?;
        let message = |value: &serde_json::Value| -> Option<Number> {
            let id = smp_proto::wire::base64url::decode(value.as_str()?)?;
            Some(self.messages.get(&*id).copied().unwrap_or(0))
        };
        let subscription = match &json["qiSub"] {
            serde_json::Value::Null => None,
            sub => {
                let state = match sub["qSubThread"].as_str() {
                    Some("noSub") => "noSub",
                    Some("prohibitSub") => "prohibitSub",
                    Some("subPending") => "subPending",
                    other => return fail(format!("{other:?}")),
                };
                Some((state, message(&sub["qDelivered"])))
            }
        };
        let oldest = match &json["qiMsg"] {
            serde_json::Value::Null => None,
            oldest => {
                ensure(oldest["msgTs"].as_str().is_some_and(|time| time.ends_with('Z')), || text.into())?;
                message(&oldest["msgId"]).map(|number| (number, oldest["msgType"] == "quota"))
            }
        };
        Ok(Description {
            secured: json["qiSnd"] == true,
            notifies: json["qiNtf"] == true,
            subscription,
            size: json["qiSize"].as_u64().map_or(usize::MAX, |size| size as usize),
            oldest,
        })
    }
}

/// What a connection hears, by what it is about; in the order in which it was said, but for answers about what nobody is
/// told of unasked.
fn in_order(mut said: Vec<Said>, orders: &BTreeMap<Number, Order>) -> Vec<Said> {
    debug_assert!(said.iter().all(|one| one.answers.is_none_or(|number| orders.contains_key(&number))));
    said.sort_by_key(|one| match one.about {
        Entity::Recipient(_) | Entity::Notifier(_) => (one.about, None),
        Entity::None | Entity::Sender(_) | Entity::Link(_) | Entity::Unknown(_) => (one.about, one.answers),
    });
    said
}

/// The fixed data that an order brings.
fn fixed_in(order: Order) -> u8 {
    match order {
        Order::New { link: Some(fixed), .. } | Order::SetLink { fixed, .. } => fixed,
        _ => 0,
    }
}

fn correlation(number: Number) -> CorrelationId {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    CorrelationId::from(bytes)
}

/// Versions of connections.
pub fn versions() -> std::ops::RangeInclusive<u16> {
    wire::VERSIONS
}
