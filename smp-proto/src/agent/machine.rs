//! The [`Connections`] of an agent: inputs, outputs, and the order "persist, then speak".
//!
//! What one connection does is in the files of [`Live`]: `establish`, `incoming`, `outgoing`, `switch`, `synchronise`.
//!
//! Every change marks records as dirty and is stamped with the batch that will hold it. At most one batch is on its way;
//! all that changes meanwhile goes into the next one. Commands and events wait until the batch of their stamp is done.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::config::AgentConfig;
use super::event::Event;
use super::holding::Holder;
use super::live::{Live, Task};
use super::record::connection::{Connection, Stage};
use super::record::message::{Outgoing, Received};
use super::record::request::Request;
use super::record::{Counters, Record, RecordError};
use super::routing::Isolation;
use super::storage::{Batch, BatchId, ConnectionId, QueueNumber, RecordKey, RequestId, StorageFailed, Write};
use crate::client::{ClientCommand, CommandFailure, Reply};
use crate::crypto::ratchet::Ratchet;
use crate::crypto::ratchet::SkippedKey;
use crate::entropy::Entropy;
use crate::time::{Instant, Now};
use crate::wire::EntityId;
use crate::wire::address::ServerAddress;
use crate::wire::error::SmpError;
use crate::wire::identifier::Identifier;

/// Names a relay in this run of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayId(pub u32);

/// Names a command that was given out; never used twice in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u64);

/// A command for a relay.
#[derive(Debug)]
pub struct RelayCommand {
    /// To report the answer with.
    pub task: TaskId,
    /// Which relay.
    pub relay: RelayId,
    /// The command.
    pub command: ClientCommand,
}

/// All connections of an agent, without the relays' clients. See the room's documentation; [`Agent`](super::Agent) adds
/// the clients.
pub struct Connections {
    pub(super) lives: BTreeMap<ConnectionId, Live>,
    pub(super) requests: BTreeMap<RequestId, Request>,
    /// Which queue's messages go where.
    pub(super) queues: BTreeMap<(RelayId, EntityId), (ConnectionId, QueueNumber)>,
    pub(super) core: Core,
}

/// What all connections share.
pub(super) struct Core {
    pub config: AgentConfig,
    pub counters: Counters,
    /// How many messages wait to be sent, in all.
    pub outgoing: usize,
    /// Connections that may have something to do.
    pub ready: BTreeSet<ConnectionId>,
    isolation: Isolation,
    relays: BTreeMap<Vec<u8>, RelayId>,
    /// The addresses, and whose sessions they are when those are nobody else's.
    addresses: Vec<(ServerAddress, Option<ConnectionId>)>,
    pub tasks: BTreeMap<TaskId, (ConnectionId, Task)>,
    next_task: u64,
    commands: VecDeque<RelayCommand>,
    timers: BTreeSet<(Instant, ConnectionId)>,
    events: VecDeque<(u64, Event)>,
    dirty: BTreeSet<RecordKey>,
    /// The batch that is being filled.
    accumulating: u64,
    /// The batch that storage has.
    in_flight: Option<(u64, Vec<RecordKey>)>,
    /// The last batch that is done.
    completed: u64,
    /// Connections of which a proxy holds something else than it did.
    pub holding: BTreeSet<ConnectionId>,
    /// Connections to proxies that nobody needs any more, and their deadlines.
    pub holders_gone: Vec<(RelayId, Option<Instant>)>,
    /// After a failed write: how many failed in a row, and when to try again.
    storage_failures: u32,
    storage_retry: Option<Instant>,
}

impl Core {
    /// Marks a record as changed, and returns the stamp of the change.
    pub fn touch(&mut self, key: RecordKey) -> u64 {
        self.dirty.insert(key);
        self.accumulating
    }

    /// Whether what has this stamp is durable.
    pub fn is_durable(&self, stamp: u64) -> bool {
        stamp <= self.completed || (self.dirty.is_empty() && self.in_flight.is_none())
    }

    pub fn event(&mut self, event: Event) {
        self.events.push_back((self.accumulating, event));
    }

    /// The number of this relay, for this connection.
    pub fn relay(&mut self, connection: ConnectionId, address: &ServerAddress) -> RelayId {
        let owner = (self.isolation == Isolation::Connection).then_some(connection);
        let mut key = Vec::new();
        // A `Vec` is never full; a list that is too long was refused when it came in.
        let _ = address.write(&mut key);
        if let Some(owner) = owner {
            key.extend_from_slice(&owner.0.to_be_bytes());
        }
        if let Some(id) = self.relays.get(&key) {
            return *id;
        }
        let id = RelayId(u32::try_from(self.addresses.len()).unwrap_or(u32::MAX));
        self.addresses.push((address.clone(), owner));
        self.relays.insert(key, id);
        id
    }

    pub fn address(&self, relay: RelayId) -> Option<&ServerAddress> {
        self.addresses.get(usize::try_from(relay.0).ok()?).map(|(address, _)| address)
    }

    /// Whose sessions with this relay they are, when they are not everybody's.
    pub fn owner(&self, relay: RelayId) -> Option<ConnectionId> {
        self.addresses.get(usize::try_from(relay.0).ok()?).and_then(|(_, owner)| *owner)
    }

    /// Gives out a command.
    pub fn command(
        &mut self,
        connection: ConnectionId,
        task: Task,
        address: &ServerAddress,
        command: ClientCommand,
    ) {
        let id = TaskId(self.next_task);
        self.next_task = self.next_task.wrapping_add(1);
        let relay = self.relay(connection, address);
        self.tasks.insert(id, (connection, task));
        self.commands.push_back(RelayCommand { task: id, relay, command });
    }

    /// Sets the time at which the connection is looked at again.
    pub fn wake(&mut self, connection: ConnectionId, before: Option<Instant>, at: Option<Instant>) {
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.timers.remove(&(before, connection));
        }
        if let Some(at) = at {
            self.timers.insert((at, connection));
        }
    }

    /// How far a stamp is from being durable: 0 is durable, then what storage has, then what it will get.
    pub fn distance(&self, stamp: u64) -> u8 {
        let has = self.in_flight.as_ref().is_some_and(|(number, _)| stamp <= *number);
        match (self.is_durable(stamp), has) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => 2,
        }
    }

    fn digest(&self, digest: &mut Sha256) {
        for address in self.relays.keys() {
            digest.update(address);
        }
        for (at, id) in &self.timers {
            digest.update(at.as_micros().to_be_bytes());
            digest.update(id.0.to_be_bytes());
        }
        // The order in which they were given out says nothing.
        let mut tasks: Vec<[u8; 32]> = self.tasks.values().map(|(id, task)| task.digest(*id)).collect();
        tasks.sort_unstable();
        tasks.iter().for_each(|task| digest.update(task));
        for command in &self.commands {
            digest.update(command.relay.0.to_be_bytes());
            digest.update(command.command.entity.as_bytes());
        }
        for (stamp, event) in &self.events {
            digest.update([self.distance(*stamp)]);
            event.digest(digest);
        }
        digest.update(self.dirty.len().to_be_bytes());
        self.dirty.iter().for_each(|key| digest.update(key.to_bytes()));
        if let Some((_, keys)) = &self.in_flight {
            digest.update(keys.len().to_be_bytes());
            keys.iter().for_each(|key| digest.update(key.to_bytes()));
        }
        digest.update(self.storage_failures.to_be_bytes());
        digest.update(self.storage_retry.map_or(0, Instant::as_micros).to_be_bytes());
    }

    /// A number for a connection or a request.
    pub fn number(&mut self) -> u64 {
        let number = self.counters.next;
        self.counters.next = number.wrapping_add(1);
        self.touch(RecordKey::Counters);
        number
    }
}

impl Connections {
    /// An agent without connections.
    #[must_use]
    pub fn new(config: AgentConfig) -> Self {
        Self {
            lives: BTreeMap::new(),
            requests: BTreeMap::new(),
            queues: BTreeMap::new(),
            core: Core {
                isolation: config.routing.isolation,
                config,
                counters: Counters::default(),
                outgoing: 0,
                ready: BTreeSet::new(),
                relays: BTreeMap::new(),
                addresses: Vec::new(),
                tasks: BTreeMap::new(),
                next_task: 0,
                commands: VecDeque::new(),
                timers: BTreeSet::new(),
                events: VecDeque::new(),
                dirty: BTreeSet::new(),
                accumulating: 1,
                in_flight: None,
                completed: 0,
                holding: BTreeSet::new(),
                holders_gone: Vec::new(),
                storage_failures: 0,
                storage_retry: None,
            },
        }
    }

    /// The agent as its records say, in any order. Subscriptions and unfinished steps begin with
    /// [`handle_timeout`](Self::handle_timeout).
    ///
    /// # Errors
    /// [`RecordError`] for the first record that cannot be used.
    pub fn restore<B: AsRef<[u8]>>(
        config: AgentConfig,
        records: impl IntoIterator<Item = (RecordKey, B)>,
    ) -> Result<Self, RecordError> {
        let mut agent = Self::new(config);
        // In the order of keys, connections come before what belongs to them.
        let records: BTreeMap<RecordKey, B> = records.into_iter().collect();
        for (key, bytes) in &records {
            agent.restore_record(*key, bytes.as_ref())?;
        }
        let ids: Vec<_> = agent.lives.keys().copied().collect();
        for id in ids {
            agent.resume(id);
        }
        for (id, request) in &agent.requests {
            agent.core.event(Event::Requested {
                address: request.address,
                request: *id,
                information: request.information.clone(),
            });
        }
        Ok(agent)
    }

    fn restore_record(&mut self, key: RecordKey, bytes: &[u8]) -> Result<(), RecordError> {
        let newest = self.core.config.ratchet_versions.max();
        let owner = key.connection().and_then(|id| self.lives.get_mut(&id));
        match (key, owner) {
            (RecordKey::Counters, _) => self.core.counters = Counters::decode(key, bytes)?,
            (RecordKey::Request(id), _) => {
                self.requests.insert(id, Request::decode(key, bytes)?);
            }
            (RecordKey::Connection(id), _) => {
                let connection = Connection::decode(key, bytes)?;
                self.lives.insert(id, Live::new(id, connection));
            }
            (_, None) => return Err(RecordError::Orphan(key)),
            (RecordKey::Ratchet(_), Some(live)) => {
                let mut ratchet = Ratchet::from_bytes(bytes).map_err(|_| RecordError::Damaged(key))?;
                ratchet.support(newest);
                live.ratchet = Some(ratchet);
            }
            (RecordKey::Skipped(..), Some(live)) => {
                let skipped = SkippedKey::from_bytes(bytes).map_err(|_| RecordError::Damaged(key))?;
                live.skipped.insert(skipped);
            }
            (RecordKey::Outgoing(_, sequence), Some(live)) => {
                live.outgoing.push_back((sequence, 0, Outgoing::decode(key, bytes)?));
                self.core.outgoing += 1;
            }
            (RecordKey::Received(_, queue), Some(live)) => {
                live.queue(queue).received = Some(Received::decode(key, bytes)?);
            }
            (RecordKey::Holding(_), Some(live)) => {
                let holder = Holder::restore(&self.core.config, bytes);
                live.holder = Some(holder.map_err(|_| RecordError::Damaged(key))?);
            }
        }
        Ok(())
    }

    /// From now on sessions are shared like this, if nothing was said to any relay yet.
    pub(super) fn isolate(&mut self, isolation: Isolation) {
        if self.core.isolation == isolation || self.core.next_task > 0 {
            return;
        }
        self.core.isolation = isolation;
        self.core.relays.clear();
        self.core.addresses.clear();
        self.queues.clear();
        let ids: Vec<_> = self.lives.keys().copied().collect();
        for id in ids {
            self.know_queues(id);
        }
    }

    /// What a connection does when the agent has started.
    fn resume(&mut self, id: ConnectionId) {
        let Some(live) = self.lives.get_mut(&id) else { return };
        live.resume(&mut self.core);
        self.know_queues(id);
        self.core.ready.insert(id);
    }

    /// Enters where messages of a connection's queues go.
    fn know_queues(&mut self, id: ConnectionId) {
        let Some(live) = self.lives.get(&id) else { return };
        let queues: Vec<_> = live
            .connection
            .receive
            .iter()
            .map(|queue| (queue.relay.clone(), queue.recipient.clone(), queue.number))
            .collect();
        for (relay, recipient, number) in queues {
            let relay = self.core.relay(id, &relay);
            self.queues.insert((relay, recipient), (id, number));
        }
    }

    /// The address of a relay.
    #[must_use]
    pub fn relay_address(&self, relay: RelayId) -> Option<&ServerAddress> {
        self.core.address(relay)
    }

    /// The next command for a relay. Its answer goes to [`answer`](Self::answer).
    pub fn poll_command(&mut self) -> Option<RelayCommand> {
        self.core.commands.pop_front()
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        let (stamp, _) = self.core.events.front()?;
        if !self.core.is_durable(*stamp) {
            return None;
        }
        self.core.events.pop_front().map(|(_, event)| event)
    }

    /// How many events were not fetched.
    #[must_use]
    pub fn events(&self) -> usize {
        self.core.events.len()
    }

    /// The next batch for storage. Its completion goes to [`stored`](Self::stored); until then there is no other.
    pub fn poll_storage(&mut self) -> Option<Batch> {
        if self.core.in_flight.is_some() || self.core.dirty.is_empty() || self.core.storage_retry.is_some() {
            return None;
        }
        let keys: Vec<_> = core::mem::take(&mut self.core.dirty).into_iter().collect();
        let mut writes = Vec::with_capacity(keys.len());
        for key in &keys {
            match self.encode(*key) {
                Ok(Some(bytes)) => writes.push(Write::Put(*key, bytes)),
                Ok(None) => writes.push(Write::Delete(*key)),
                Err(_) => {
                    // Bounds exclude it; if they do not, it must be seen.
                    if let Some(connection) = key.connection() {
                        self.core.event(Event::Failed {
                            connection,
                            because: super::event::FailedBecause::Internal,
                        });
                    }
                }
            }
        }
        let number = self.core.accumulating;
        self.core.accumulating += 1;
        self.core.in_flight = Some((number, keys));
        Some(Batch { id: BatchId(number), writes })
    }

    fn encode(&self, key: RecordKey) -> Result<Option<Zeroizing<Vec<u8>>>, crate::wire::primitives::Full> {
        let live = key.connection().and_then(|id| self.lives.get(&id));
        let found = match key {
            RecordKey::Counters => Some(self.core.counters.encode()),
            RecordKey::Connection(_) => live.map(|live| live.connection.encode()),
            RecordKey::Ratchet(_) => {
                live.and_then(|live| live.ratchet.as_ref()).map(|ratchet| Ok(ratchet.to_bytes()))
            }
            RecordKey::Skipped(_, id) => {
                let key = live.and_then(|live| live.skipped.iter().find(|key| key.id() == id));
                key.map(|key| Ok(Zeroizing::new(key.to_bytes().to_vec())))
            }
            RecordKey::Outgoing(_, sequence) => live
                .and_then(|live| live.outgoing.iter().find(|(other, ..)| *other == sequence))
                .map(|(.., outgoing)| outgoing.encode()),
            RecordKey::Received(_, queue) => live
                .and_then(|live| live.queues.get(&queue))
                .and_then(|queue| queue.received.as_ref())
                .map(Received::encode),
            RecordKey::Request(id) => self.requests.get(&id).map(Request::encode),
            RecordKey::Holding(_) => {
                live.and_then(|live| live.holder.as_ref()).map(|holder| holder.client.holdings.record())
            }
        };
        found.transpose()
    }

    /// Storage has done a batch, or not.
    pub fn stored(
        &mut self,
        id: BatchId,
        result: Result<(), StorageFailed>,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        let Some((number, keys)) = self.core.in_flight.take_if(|(number, _)| *number == id.0) else { return };
        match result {
            Ok(()) => {
                self.core.completed = number;
                self.core.storage_failures = 0;
                self.core.ready.extend(keys.into_iter().filter_map(RecordKey::connection));
            }
            Err(StorageFailed) => {
                // What they hold by now goes into the next batch.
                self.core.dirty.extend(keys);
                self.core.storage_failures = self.core.storage_failures.saturating_add(1);
                let config = &self.core.config;
                let delay = config.backoff(config.longest_delay).after(self.core.storage_failures, entropy);
                self.core.storage_retry = Some(now.instant + delay);
                if self.core.storage_failures == 1 {
                    // Must be told although nothing can be written.
                    self.core.events.push_front((0, Event::StorageFailing));
                }
            }
        }
        self.run(now, entropy);
    }

    /// The answer to a command.
    pub fn answer(
        &mut self,
        task: TaskId,
        result: Result<Reply, CommandFailure>,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        self.answer_by(task, result, false, now, entropy);
    }

    /// The answer to a command that went through a proxy: their relay has not seen us ([`Event::Sent`] says so).
    pub fn answer_through_proxy(
        &mut self,
        task: TaskId,
        result: Result<Reply, CommandFailure>,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        self.answer_by(task, result, true, now, entropy);
    }

    fn answer_by(
        &mut self,
        task: TaskId,
        result: Result<Reply, CommandFailure>,
        proxied: bool,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        let Some((id, task)) = self.core.tasks.remove(&task) else { return };
        // The relay may hand over the next message with its answer to an acknowledgement.
        if let Some((relay, recipient, message, body)) = self.message_in(id, &task, &result) {
            self.task_done(id, task, Ok(Reply::Ok), proxied, now, entropy);
            self.message(relay, &recipient, message, body, now, entropy);
        } else {
            self.task_done(id, task, result, proxied, now, entropy);
        }
        self.run(now, entropy);
    }

    fn message_in(
        &mut self,
        id: ConnectionId,
        task: &Task,
        result: &Result<Reply, CommandFailure>,
    ) -> Option<(RelayId, EntityId, Identifier, bytes::Bytes)> {
        let (Ok(Reply::Message { id: message, body }), Task::Acknowledge(queue, _) | Task::Subscribe(queue)) =
            (result, task)
        else {
            return None;
        };
        let queue = self.lives.get(&id)?.connection.receive_queue(*queue)?;
        let relay = self.core.relay(id, &queue.relay);
        Some((relay, queue.recipient.clone(), message.clone(), body.clone()))
    }

    /// A message came for a subscribed queue.
    pub fn message(
        &mut self,
        relay: RelayId,
        queue: &EntityId,
        id: Identifier,
        body: bytes::Bytes,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        if let Some((connection, number)) = self.queues.get(&(relay, queue.clone())).copied() {
            self.deliver(connection, number, id, body, entropy);
            self.core.ready.insert(connection);
        }
        self.run(now, entropy);
    }

    /// Another program subscribed to the queue.
    pub fn ended(&mut self, relay: RelayId, queue: &EntityId) {
        if let Some((connection, number)) = self.queues.get(&(relay, queue.clone())).copied()
            && let Some(live) = self.lives.get_mut(&connection)
        {
            live.queue(number).delivered = None;
            self.core.event(Event::Ended { connection });
        }
    }

    /// The relay says that a queue is gone, or blocked.
    pub fn queue_lost(&mut self, relay: RelayId, queue: &EntityId, error: SmpError) {
        if let Some((connection, _)) = self.queues.get(&(relay, queue.clone())).copied()
            && self.lives.get(&connection).is_some_and(|live| live.connection.stage != Stage::Deleting)
        {
            self.core.event(Event::QueueLost { connection, failure: CommandFailure::Refused(error) });
        }
    }

    /// The session with a relay is over: what it had delivered will be delivered again by the next one.
    pub fn session_ended(&mut self, relay: RelayId) {
        let from = (relay, EntityId::EMPTY);
        let to = (RelayId(relay.0.saturating_add(1)), EntityId::EMPTY);
        for (id, number) in self.queues.range(from..to).map(|(_, place)| *place) {
            if let Some(live) = self.lives.get_mut(&id) {
                live.queue(number).session_ended();
                self.core.ready.insert(id);
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let timer = self.core.timers.first().map(|(at, _)| *at);
        [timer, self.core.storage_retry].into_iter().flatten().min()
    }

    /// Time has passed. Also call it once after [`restore`](Self::restore).
    pub fn handle_timeout(&mut self, now: Now, entropy: &mut (impl Entropy + ?Sized)) {
        self.core.storage_retry = self.core.storage_retry.filter(|at| *at > now.instant);
        while let Some((at, id)) = self.core.timers.first().copied()
            && at <= now.instant
        {
            self.core.timers.remove(&(at, id));
            if let Some(live) = self.lives.get_mut(&id) {
                live.wake = None;
            }
            self.core.ready.insert(id);
        }
        self.run(now, entropy);
    }

    /// What a command was for has its answer.
    fn task_done(
        &mut self,
        id: ConnectionId,
        task: Task,
        result: Result<Reply, CommandFailure>,
        proxied: bool,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        let core = &mut self.core;
        let Some(live) = self.lives.get_mut(&id) else { return };
        core.ready.insert(id);
        match task {
            Task::Create(new) => {
                if let Some(number) = live.queue_created(new, result, core, now, entropy)
                    && let Some(queue) = live.connection.receive_queue(number)
                {
                    let relay = core.relay(id, &queue.relay);
                    self.queues.insert((relay, queue.recipient.clone()), (id, number));
                }
            }
            Task::SecurePeer(number) => live.peer_secured(number, result, core, now, entropy),
            Task::SecureOwn(number) => live.own_secured(number, result, core, now, entropy),
            Task::ReadLink => live.link_answered(result, core, now, entropy),
            Task::SetLink(hash) => live.link_set(hash, result, core, now, entropy),
            Task::Send(sequence) => live.send_answered(sequence, result, proxied, core, now, entropy),
            Task::Acknowledge(number, message) => {
                live.acknowledged(number, &message, result, core, now, entropy);
            }
            Task::Subscribe(number) => live.subscription_answered(number, result, core, now, entropy),
            Task::Delete(number) => {
                let queue = live.connection.receive_queue(number);
                let place = queue.map(|queue| (queue.relay.clone(), queue.recipient.clone()));
                if live.queue_deleted(number, result, core, now, entropy)
                    && let Some((relay, recipient)) = place
                {
                    let relay = core.relay(id, &relay);
                    self.queues.remove(&(relay, recipient));
                }
            }
            Task::Suspend(number) => live.queue_closed(number, result, core, now, entropy),
        }
    }

    /// Lets every connection that may have something to do, do it.
    pub(super) fn run(&mut self, now: Now, entropy: &mut (impl Entropy + ?Sized)) {
        while let Some(id) = self.core.ready.pop_first() {
            let Some(live) = self.lives.get_mut(&id) else { continue };
            if live.is_finished(&self.core) {
                self.remove(id);
                continue;
            }
            live.advance(&mut self.core, now, entropy);
            if let Some(number) = live.parked_that_may_go() {
                self.deliver_parked(id, number, entropy);
            }
        }
    }

    /// Takes a connection out of all books; its records are deleted with the next batch.
    fn remove(&mut self, id: ConnectionId) {
        let Some(mut live) = self.lives.remove(&id) else { return };
        let told = live.deletion_is_told;
        self.core.wake(id, live.wake.take(), None);
        live.drop_messages(&mut self.core);
        for queue in &live.connection.receive {
            let relay = self.core.relay(id, &queue.relay);
            self.queues.remove(&(relay, queue.recipient.clone()));
        }
        let requests: Vec<_> =
            self.requests.iter().filter(|(_, request)| request.address == id).map(|(id, _)| *id).collect();
        for request in requests {
            self.requests.remove(&request);
            self.core.touch(RecordKey::Request(request));
        }
        self.core.touch(RecordKey::Ratchet(id));
        self.core.touch(RecordKey::Holding(id));
        self.core.touch(RecordKey::Connection(id));
        self.core.holders_gone.extend(live.holder.and_then(|holder| holder.given_up()));
        self.core.holding.insert(id);
        if told {
            self.core.event(Event::Deleted { connection: id });
        }
    }

    /// A digest of everything that decides what happens next: equal after equal inputs, and two agents with the same digest
    /// do the same from then on, but for the numbers that they give to tasks and batches. For simulations.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        let mut record = |key: RecordKey| {
            if let Ok(Some(bytes)) = self.encode(key) {
                digest.update(key.to_bytes());
                digest.update(&*bytes);
            }
        };
        record(RecordKey::Counters);
        for (id, live) in &self.lives {
            record(RecordKey::Connection(*id));
            record(RecordKey::Ratchet(*id));
            record(RecordKey::Holding(*id));
            live.skipped.iter().for_each(|key| record(RecordKey::Skipped(*id, key.id())));
            live.outgoing.iter().for_each(|(sequence, ..)| record(RecordKey::Outgoing(*id, *sequence)));
            live.queues.keys().for_each(|queue| record(RecordKey::Received(*id, *queue)));
        }
        self.requests.keys().for_each(|id| record(RecordKey::Request(*id)));
        for live in self.lives.values() {
            live.digest(&self.core, &mut digest);
        }
        self.core.digest(&mut digest);
        digest.finalize().into()
    }

    /// Asserts what must hold between any two inputs, for simulations.
    ///
    /// # Panics
    /// When the books do not agree: a bug.
    pub fn check(&self) {
        let outgoing: usize = self.lives.values().map(|live| live.outgoing.len()).sum();
        assert_eq!(outgoing, self.core.outgoing, "messages are counted wrong");
        for (id, live) in &self.lives {
            live.check(*id);
            let waits = live.wake.is_none_or(|at| self.core.timers.contains(&(at, *id)));
            assert!(waits, "a connection waits for a time that is not entered");
        }
        let timers = self.lives.values().filter(|live| live.wake.is_some()).count();
        assert_eq!(timers, self.core.timers.len(), "a timer of nobody");
        for (id, number) in self.queues.values() {
            let live = self.lives.get(id);
            assert!(
                live.is_some_and(|live| live.connection.receive_queue(*number).is_some()),
                "messages of a queue that is gone"
            );
        }
        assert!(self.core.completed < self.core.accumulating, "a batch was done before it was given out");
    }
}

impl core::fmt::Debug for Connections {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter
            .debug_struct("Connections")
            .field("connections", &self.lives.len())
            .field("requests", &self.requests.len())
            .finish_non_exhaustive()
    }
}
