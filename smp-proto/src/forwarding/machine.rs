//! The machine: which commands are under way, and what becomes of each.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::answers::{Said, ToRelay};
use super::config::ForwardingConfig;
use super::inspection::ForwardingStatistics;
use super::keys::{Deletion, Key};
use super::record::{KeyRecord, RecordError, RecordKey};
use super::seen::NameKey;
use crate::broker::storage::{ActionId, Completion, RecordWrite, Room, StorageAction};
use crate::broker::{Broker, ConnectionId};
use crate::crypto::Provider;
use crate::entropy::Entropy;
use crate::session::forwarding::{Answer, CommandName, OpenedCommand, Receipt, SealedCommand, Unopened};
use crate::session::identity::ServerIdentity;
use crate::session::outgoing::{Outgoing, OutgoingContent};
use crate::session::request::Verified;
use crate::time::{Instant, Now};
use crate::wire::error::SmpError;
use crate::wire::first_step::{
    Correlation, FirstStepError, Forward, ForwardOptions, Message, RelayNumber, Transmission,
};

/// Names the connection of a first-step relay. Given by the driver, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FirstStepId(pub u64);

impl From<ConnectionId> for FirstStepId {
    fn from(connection: ConnectionId) -> Self {
        Self(connection.to_number())
    }
}

impl FirstStepId {
    /// The connection, when it is one of the broker's.
    #[must_use]
    pub const fn connection(self) -> ConnectionId {
        ConnectionId::from_number(self.0)
    }
}

/// What a storage action is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// To keep a key.
    Key(RelayNumber),
    /// To delete what is left of one.
    Deletion(RelayNumber),
    /// To read the receipt of a command that may have been seen.
    Look(CommandName),
    /// To keep the receipt of a command without a commit of its own.
    Receipt(CommandName),
}

/// A command that has no answer yet.
pub(super) struct Command {
    /// Who asked last, and is answered; `None` when its connection is gone.
    pub(super) asker: Option<(FirstStepId, Correlation)>,
    pub(super) options: ForwardOptions,
    pub(super) stage: Stage,
}

pub(super) enum Stage {
    /// It may have been seen: its receipt is being read.
    Looking(SealedCommand),
    /// Its forwarding key is over: whether there is a receipt is being read.
    LookingBack,
    /// The task of this connection opens and verifies it.
    Handed(FirstStepId),
    /// The broker has it.
    Executing,
    /// It was executed; its receipt is being stored.
    Recording(Outgoing),
}

/// The connection of a first-step relay.
#[derive(Default)]
pub(super) struct Relay {
    /// Commands that are to be opened by its task.
    pub(super) commands: VecDeque<SealedCommand>,
    pub(super) outgoing: VecDeque<ToRelay>,
    /// Commands whose answers it gets.
    pub(super) asked: BTreeSet<CommandName>,
    /// Commands that its task has, or will have.
    pub(super) handed: BTreeSet<CommandName>,
    is_ready: bool,
}

/// The destination's part of `smp-proxy/1`: see the room's documentation.
pub struct Forwarding {
    pub(super) config: ForwardingConfig,
    pub(super) provider: &'static dyn Provider,
    pub(super) identity: ServerIdentity,
    /// The broker's side of all commands.
    broker: ConnectionId,
    pub(super) keys: BTreeMap<RelayNumber, Key>,
    /// When the last of them was over, by the wall clock.
    pub(super) over_since: i64,
    /// The key that is being stored.
    pub(super) making: Option<RelayNumber>,
    /// When another key may be made at the earliest, after storage failed.
    pub(super) make_key_at: Option<Instant>,
    pub(super) deletions: BTreeMap<RelayNumber, Deletion>,
    /// Who has asked for a key that is not there yet.
    pub(super) asking: BTreeMap<FirstStepId, Correlation>,
    names: NameKey,
    pub(super) relays: BTreeMap<FirstStepId, Relay>,
    pub(super) commands: BTreeMap<CommandName, Command>,
    ready: VecDeque<FirstStepId>,
    pub(super) actions: BTreeMap<u64, Purpose>,
    pub(super) next_action: u64,
    emitted: VecDeque<(ActionId, StorageAction)>,
    /// Answers of the broker on their way in: kept for its memory.
    answers: VecDeque<Outgoing>,
    pub(super) counts: ForwardingStatistics,
}

impl Forwarding {
    /// A destination with these records: all whose keys begin with [`PREFIX`](super::PREFIX), in the order of their keys.
    /// `broker` is a connection of the broker that is this room's alone: what is ready there is
    /// [collected](Self::collect) here.
    ///
    /// # Errors
    /// [`RecordError`] for the first record that cannot be used.
    pub fn restore(
        config: ForwardingConfig,
        provider: &'static dyn Provider,
        identity: ServerIdentity,
        broker: ConnectionId,
        records: impl IntoIterator<Item = (Bytes, Bytes)>,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<Self, RecordError> {
        let mut room = Self::new(config, provider, identity, broker, entropy);
        for (key, value) in records {
            room.take_over(&key, &value, now)?;
        }
        room.begin(now, entropy);
        Ok(room)
    }

    /// A destination without records yet: they are [taken over](Self::take_over) one after the other, and then it
    /// [begins](Self::begin).
    #[must_use]
    pub fn new(
        config: ForwardingConfig,
        provider: &'static dyn Provider,
        identity: ServerIdentity,
        broker: ConnectionId,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Self {
        Self {
            config,
            provider,
            identity,
            broker,
            keys: BTreeMap::new(),
            over_since: 0,
            making: None,
            make_key_at: None,
            deletions: BTreeMap::new(),
            asking: BTreeMap::new(),
            names: NameKey::new(entropy),
            relays: BTreeMap::new(),
            commands: BTreeMap::new(),
            ready: VecDeque::new(),
            actions: BTreeMap::new(),
            next_action: 0,
            emitted: VecDeque::new(),
            answers: VecDeque::new(),
            counts: ForwardingStatistics::default(),
        }
    }

    /// Takes over a record, in the order of their keys.
    ///
    /// # Errors
    /// [`RecordError`] when it cannot be used.
    pub fn take_over(&mut self, key: &[u8], value: &[u8], now: Now) -> Result<(), RecordError> {
        match RecordKey::from_bytes(key).ok_or(RecordError::Kind)? {
            RecordKey::Key(number) => match KeyRecord::decode(value).ok_or(RecordError::Key(number))? {
                KeyRecord::Live { made, until, secret } => {
                    self.restore_key(number, made, until, &secret, now);
                }
                KeyRecord::Over { since } => self.restore_over(number, since, now),
            },
            RecordKey::Receipt(name) => match self.keys.get_mut(&name.key) {
                Some(key) => {
                    key.seen.insert(&self.names, &name.name);
                    key.receipts += 1;
                }
                None => self.delete_receipts(name.key),
            },
        }
        Ok(())
    }

    /// All records are taken over: makes a key, if there is none.
    pub fn begin(&mut self, now: Now, entropy: &mut (impl Entropy + ?Sized)) {
        self.tend(now, entropy);
    }

    /// How many actions storage has not completed.
    #[must_use]
    pub fn actions_under_way(&self) -> usize {
        self.actions.len()
    }

    /// The broker's connection for commands that were forwarded.
    #[must_use]
    pub const fn broker_connection(&self) -> ConnectionId {
        self.broker
    }

    /// The relay has a new leaf certificate, of the same identity.
    pub fn set_identity(&mut self, identity: ServerIdentity) {
        self.identity = identity;
        self.publish_anew();
    }

    /// A first-step relay has connected.
    pub fn attach(&mut self, id: FirstStepId) {
        self.relays.entry(id).or_default();
    }

    /// A first-step relay's connection is over. What the broker has of it is finished all the same, and answered when it is
    /// asked again; what its task has not brought to [`execute`](Self::execute) is not.
    pub fn detach(&mut self, id: FirstStepId) {
        let Some(gone) = self.relays.remove(&id) else { return };
        self.asking.remove(&id);
        for name in gone.asked {
            if let Some(command) = self.commands.get_mut(&name) {
                command.asker = None;
            }
        }
        for name in gone.handed {
            // Another connection may wait for it: it forwards it again.
            self.settle(name, Said::Error(FirstStepError::Internal));
        }
    }

    /// Whether another block may be read from a first-step relay.
    #[must_use]
    pub fn has_room(&self, id: FirstStepId) -> bool {
        let most = self.config.limits.commands_of_connection.max(1);
        self.relays.get(&id).is_some_and(|relay| relay.asked.len() + relay.outgoing.len() < most)
    }

    /// Takes what a first-step relay said: the content of a block, of which a command is a part: when nobody else
    /// has it, the command is opened in place. To be called while there is [room](Self::has_room): what comes without is
    /// dropped.
    pub fn receive(
        &mut self,
        id: FirstStepId,
        content: Bytes,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        if !self.has_room(id) {
            return;
        }
        let Some(Transmission { correlation, relay, message }) = Transmission::decode(&content) else {
            return self.refuse(id, Correlation(0), RelayNumber(0), FirstStepError::Syntax);
        };
        match message {
            Message::Register(register) if register.address.is_none() => {
                self.tend(now, entropy);
                self.asking.insert(id, correlation);
                self.publish(now);
            }
            Message::Forward(forward) => self.forward(id, correlation, relay, &forward, &content),
            // This is no first-step relay for those who ask in this way, and holds nothing.
            _ => self.refuse(id, correlation, relay, FirstStepError::Syntax),
        }
    }

    fn forward(
        &mut self,
        id: FirstStepId,
        correlation: Correlation,
        number: RelayNumber,
        forward: &Forward<'_>,
        content: &Bytes,
    ) {
        let digest = Sha256::digest(forward.key.0);
        let name = CommandName { key: number, name: *digest.first_chunk().unwrap_or(&[0; 16]) };
        if let Some(command) = self.commands.get_mut(&name) {
            self.counts.repeated += 1;
            let before = command.asker.replace((id, correlation));
            command.options = forward.options;
            if let Some(relay) = before.and_then(|(before, _)| self.relays.get_mut(&before)) {
                relay.asked.remove(&name);
            }
            if let Some(relay) = self.relays.get_mut(&id) {
                relay.asked.insert(name);
            }
            return;
        }
        let Some(key) = self.keys.get_mut(&number).filter(|key| key.is_taken()) else {
            return self.look_back(id, correlation, name, forward.options);
        };
        let limits = self.config.limits;
        if self.commands.len() >= limits.commands || key.receipts >= limits.receipts_of_key {
            self.counts.over_quota += 1;
            return self.refuse(id, correlation, number, FirstStepError::Quota);
        }
        let may_be_seen = key.seen.may_have(&self.names, &name.name);
        key.under_way += 1;
        let record = RecordKey::Receipt(name).to_bytes();
        let sealed = SealedCommand {
            key: Arc::clone(&key.work),
            name,
            record: record.clone(),
            ephemeral: forward.key,
            sealed: share(content, forward.sealed),
        };
        let Some(relay) = self.relays.get_mut(&id) else { return };
        relay.asked.insert(name);
        let stage = if may_be_seen {
            Stage::Looking(sealed)
        } else {
            relay.handed.insert(name);
            relay.commands.push_back(sealed);
            Stage::Handed(id)
        };
        let command = Command { asker: Some((id, correlation)), options: forward.options, stage };
        self.commands.insert(name, command);
        if may_be_seen {
            self.emit(Purpose::Look(name), StorageAction::ReadRecord { key: record });
        } else {
            self.ring(id);
        }
    }

    /// A command under a key that is not taken: it may have been executed while it was, and its answer lost.
    fn look_back(
        &mut self,
        id: FirstStepId,
        correlation: Correlation,
        name: CommandName,
        options: ForwardOptions,
    ) {
        let is_over = self.deletions.get(&name.key).is_some_and(Deletion::keeps_receipts)
            || self.keys.get(&name.key).is_some_and(|key| key.is_closing);
        if !is_over {
            self.counts.unknown_key += 1;
            return self.refuse(id, correlation, name.key, FirstStepError::NoKey);
        }
        if self.commands.len() >= self.config.limits.commands {
            self.counts.over_quota += 1;
            return self.refuse(id, correlation, name.key, FirstStepError::Quota);
        }
        let Some(relay) = self.relays.get_mut(&id) else { return };
        relay.asked.insert(name);
        if let Some(key) = self.keys.get_mut(&name.key) {
            key.under_way += 1;
        }
        let command = Command { asker: Some((id, correlation)), options, stage: Stage::LookingBack };
        self.commands.insert(name, command);
        let key = RecordKey::Receipt(name).to_bytes();
        self.emit(Purpose::Look(name), StorageAction::ReadRecord { key });
    }

    /// The next command that the task of a connection is to open and verify.
    pub fn poll_command(&mut self, id: FirstStepId) -> Option<SealedCommand> {
        self.relays.get_mut(&id)?.commands.pop_front()
    }

    /// A command could not be opened.
    pub fn unopened(&mut self, unopened: Unopened) {
        let Unopened(name) = unopened;
        if self.is_handed(name) {
            self.counts.unopened += 1;
            self.settle(name, Said::Error(FirstStepError::Crypto));
        }
    }

    /// Has the broker execute a command that was verified, or answer why it was not.
    pub fn execute(
        &mut self,
        broker: &mut Broker,
        opened: &OpenedCommand,
        verified: Option<Verified<'_>>,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        let name = opened.name();
        // Its connection is gone, and the command given up.
        if !self.is_handed(name) {
            return;
        }
        let is_its = |verified: &Verified<'_>| {
            let envelope = verified.forwarded.as_deref().and_then(|envelope| envelope.first_step());
            envelope.is_some_and(|envelope| envelope.name() == name)
        };
        let Some(verified) = verified.filter(is_its) else {
            // A mistake of the driver.
            return self.settle(name, Said::Error(FirstStepError::Internal));
        };
        if let Some(command) = self.commands.get_mut(&name) {
            if let Stage::Handed(id) = command.stage
                && let Some(relay) = self.relays.get_mut(&id)
            {
                relay.handed.remove(&name);
            }
            command.stage = Stage::Executing;
        }
        broker.execute(self.broker, verified, opened.block(), now, entropy);
        self.collect(broker);
    }

    fn is_handed(&self, name: CommandName) -> bool {
        self.commands.get(&name).is_some_and(|command| matches!(command.stage, Stage::Handed(_)))
    }

    /// Takes what the broker answers: to be called when [`Broker::poll_ready`] gives
    /// [this room's connection](Self::broker_connection).
    pub fn collect(&mut self, broker: &mut Broker) {
        let mut answers = core::mem::take(&mut self.answers);
        broker.take_outgoing(self.broker, &mut answers);
        for outgoing in answers.drain(..) {
            self.answered(outgoing);
        }
        self.answers = answers;
    }

    fn answered(&mut self, outgoing: Outgoing) {
        let Some(envelope) = outgoing.forwarded.as_deref().and_then(|envelope| envelope.first_step()) else {
            return;
        };
        let name = envelope.name();
        let Some(command) = self.commands.get_mut(&name) else { return };
        let OutgoingContent::Error(error) = &outgoing.content else {
            return self.record(name, outgoing);
        };
        let has_receipt = envelope.has_receipt();
        match error {
            // It took no effect, or its answer is lost: then the receipt says so when it comes again.
            SmpError::Store(_) | SmpError::Internal => {
                self.counts.failed += 1;
                // In either case the receipt is looked for.
                if has_receipt && let Some(key) = self.keys.get_mut(&name.key) {
                    key.seen.insert(&self.names, &name.name);
                }
                self.settle(name, Said::Error(FirstStepError::Internal));
            }
            SmpError::Authorization if command.options.while_unsecured && !has_receipt => {
                self.counts.not_yet += 1;
                self.settle(name, Said::Error(FirstStepError::NotYet));
            }
            SmpError::Quota if command.options.while_full && !has_receipt => {
                self.counts.not_yet += 1;
                self.settle(name, Said::Error(FirstStepError::NotYet));
            }
            _ => self.record(name, outgoing),
        }
    }

    /// Says an answer that is final, now or when its receipt is durable.
    fn record(&mut self, name: CommandName, outgoing: Outgoing) {
        let Some(envelope) = outgoing.forwarded.as_deref().and_then(|envelope| envelope.first_step()) else {
            return;
        };
        if envelope.has_receipt() {
            return self.finish(name, outgoing);
        }
        let (key, value) = envelope.receipt(&outgoing);
        if let Some(command) = self.commands.get_mut(&name) {
            command.stage = Stage::Recording(outgoing);
        }
        let writes = vec![RecordWrite::Put { key, value }];
        self.emit(Purpose::Receipt(name), StorageAction::WriteRecords { writes });
    }

    /// The receipt is durable.
    fn finish(&mut self, name: CommandName, outgoing: Outgoing) {
        self.counts.executed += 1;
        if let Some(key) = self.keys.get_mut(&name.key) {
            key.seen.insert(&self.names, &name.name);
            key.receipts += 1;
        }
        self.settle(name, Said::Answer(Answer::First(outgoing)));
    }

    /// A command is under way no more; whoever asked last is told.
    fn settle(&mut self, name: CommandName, said: Said) {
        let Some(command) = self.commands.remove(&name) else { return };
        if let Stage::Handed(id) = command.stage
            && let Some(relay) = self.relays.get_mut(&id)
        {
            relay.handed.remove(&name);
        }
        if let Some((id, correlation)) = command.asker {
            if let Some(relay) = self.relays.get_mut(&id) {
                relay.asked.remove(&name);
            }
            self.tell(id, correlation, name.key, said);
        }
        if let Some(key) = self.keys.get_mut(&name.key) {
            key.under_way = key.under_way.saturating_sub(1);
            self.retire_when_quiet(name.key);
        }
    }

    /// A connection with commands to open or something to say, each once until it has more.
    pub fn poll_ready(&mut self) -> Option<FirstStepId> {
        while let Some(id) = self.ready.pop_front() {
            if let Some(relay) = self.relays.get_mut(&id) {
                relay.is_ready = false;
                return Some(id);
            }
        }
        None
    }

    /// What a first-step relay is told next.
    pub fn poll_to_relay(&mut self, id: FirstStepId) -> Option<ToRelay> {
        self.relays.get_mut(&id)?.outgoing.pop_front()
    }

    fn refuse(
        &mut self,
        id: FirstStepId,
        correlation: Correlation,
        relay: RelayNumber,
        error: FirstStepError,
    ) {
        self.tell(id, correlation, relay, Said::Error(error));
    }

    pub(super) fn tell(&mut self, id: FirstStepId, correlation: Correlation, relay: RelayNumber, said: Said) {
        if let Some(there) = self.relays.get_mut(&id) {
            there.outgoing.push_back(ToRelay { correlation, relay, said });
            self.ring(id);
        }
    }

    fn ring(&mut self, id: FirstStepId) {
        if let Some(relay) = self.relays.get_mut(&id).filter(|relay| !relay.is_ready) {
            relay.is_ready = true;
            self.ready.push_back(id);
        }
    }

    pub(super) fn emit(&mut self, purpose: Purpose, action: StorageAction) {
        let id = ActionId::of(Room::Forwarding, self.next_action);
        self.actions.insert(self.next_action, purpose);
        self.next_action = self.next_action.wrapping_add(1);
        self.emitted.push_back((id, action));
    }

    /// The next action for storage.
    pub fn poll_storage(&mut self) -> Option<(ActionId, StorageAction)> {
        self.emitted.pop_front()
    }

    /// Takes storage's answer to an action. An answer to an action that is not this room's, or not under way, is ignored.
    pub fn complete(&mut self, completion: Completion, now: Now) {
        let id = completion.action();
        if id.room() != Some(Room::Forwarding) {
            return;
        }
        let Some(purpose) = self.actions.remove(&id.number()) else { return };
        match purpose {
            Purpose::Key(number) => {
                self.key_stored(number, matches!(completion, Completion::Done(_)), now);
            }
            Purpose::Deletion(number) => {
                let more = match completion {
                    Completion::Done(_) => Some(false),
                    Completion::Deleted(_, more) => Some(more),
                    _ => None,
                };
                self.deleted(number, more, now);
            }
            Purpose::Look(name) => match completion {
                Completion::Record(_, value) => self.looked(name, value),
                _ => self.storage_failed(name),
            },
            Purpose::Receipt(name) => {
                let Some(command) = self.commands.get_mut(&name) else { return };
                let stage = core::mem::replace(&mut command.stage, Stage::Executing);
                match (stage, completion) {
                    (Stage::Recording(outgoing), Completion::Done(_)) => self.finish(name, outgoing),
                    _ => self.storage_failed(name),
                }
            }
        }
    }

    fn storage_failed(&mut self, name: CommandName) {
        self.counts.failed += 1;
        self.settle(name, Said::Error(FirstStepError::Internal));
    }

    /// The receipt of a command was read, or that there is none.
    fn looked(&mut self, name: CommandName, value: Option<Bytes>) {
        let Some(command) = self.commands.get_mut(&name) else { return };
        let sealed = match core::mem::replace(&mut command.stage, Stage::Executing) {
            Stage::Looking(sealed) => sealed,
            Stage::LookingBack if value.is_some() => {
                self.counts.repeated += 1;
                return self.settle(name, Said::Error(FirstStepError::Repeated));
            }
            _ => {
                self.counts.unknown_key += 1;
                return self.settle(name, Said::Error(FirstStepError::NoKey));
            }
        };
        if let Some(value) = value {
            self.counts.repeated += 1;
            let said = match Receipt::decode(&value) {
                Some(Receipt::Kept(answer)) => {
                    let SealedCommand { key, ephemeral, .. } = sealed;
                    Said::Answer(Answer::Again { key, ephemeral, answer })
                }
                // It was executed, whatever the answer was.
                Some(Receipt::NotKept) | None => Said::Error(FirstStepError::Repeated),
            };
            return self.settle(name, said);
        }
        self.counts.looked_up_in_vain += 1;
        let Some((id, relay)) =
            command.asker.and_then(|(id, _)| self.relays.get_mut(&id).map(|relay| (id, relay)))
        else {
            return self.settle(name, Said::Error(FirstStepError::Internal));
        };
        command.stage = Stage::Handed(id);
        relay.handed.insert(name);
        relay.commands.push_back(sealed);
        self.ring(id);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.keys_deadline()
    }

    /// Does what is due: makes keys, retires them, and tries again what storage refused.
    pub fn handle_timeout(&mut self, now: Now, entropy: &mut (impl Entropy + ?Sized)) {
        self.tend(now, entropy);
    }
}

/// A part of a block's content, without a copy.
fn share(content: &Bytes, part: &[u8]) -> Bytes {
    // It was read from there.
    content.slice_ref(part)
}
