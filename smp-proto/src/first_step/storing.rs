//! What the first-step relay asks of storage, and what it takes over at start.
//!
//! Its records are in the relay's one storage ([`storage`](crate::broker::storage)), under keys that begin with the byte of this
//! room. Those of [`FirstStep::LOADED`] are handed over at start; bodies are read when they are needed.

use alloc::boxed::Box;
use alloc::vec::Vec;

use bytes::Bytes;

use super::client::{Client, ClientNumber, ItemState};
use super::machine::{FirstStep, ToClient, UserId};
use super::record::{ClientRecord, RecordError, RecordKey, Write, decode_item};
use crate::broker::storage::{ActionId, Completion, Room, StorageAction};
use crate::time::Now;
use crate::wire::first_step::{Correlation, FirstStepError, SEALED_LENGTH};

/// What a completion of storage is for.
#[derive(Debug)]
pub(super) enum Pending {
    /// A command is held.
    Held(ClientNumber, Correlation, UserId),
    /// The outcome of a command is kept; the answer, to be told.
    Outcome(ClientNumber, Correlation, Option<Bytes>),
    /// Something is forgotten, or kept for later.
    Nothing,
    /// A command is read, to be sent.
    Command(ClientNumber, Correlation),
    /// An answer is read, to be told.
    Answer(ClientNumber, Correlation),
}

impl FirstStep {
    /// The prefixes of the records that are handed over at start ([`Self::restore`]), in this order: clients, what is held for
    /// them, keys of destinations.
    pub const LOADED: [[u8; 2]; 3] = [
        [Room::FirstStep.key_byte(), RecordKey::CLIENT],
        [Room::FirstStep.key_byte(), RecordKey::ITEM],
        [Room::FirstStep.key_byte(), RecordKey::PUBLISHED],
    ];

    /// Takes over a record, at start and before any connection: all of those of [`Self::LOADED`], in the order of their keys.
    /// Then [`Self::begin`].
    ///
    /// # Errors
    /// [`RecordError`] when it cannot be used.
    pub fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), RecordError> {
        let key = RecordKey::from_bytes(key).ok_or(RecordError(None))?;
        let unusable = RecordError(Some(key));
        match key {
            RecordKey::Client(number) => {
                let record = ClientRecord::decode(value).ok_or(unusable)?;
                let destination = self.destination(&record.address);
                let client = ClientNumber(number);
                self.next = self.next.max(number.saturating_add(1));
                let mut entry = Client::new(record.token, destination, record.newest);
                entry.is_stored = true;
                self.enter(client, entry);
            }
            RecordKey::Item(number, correlation) => {
                let item = decode_item(value).ok_or(unusable)?;
                let Some(client) = self.clients.get_mut(&ClientNumber(number)) else {
                    // What was left of somebody who is forgotten.
                    self.store_nothing(alloc::vec![
                        Write::Delete(key),
                        Write::Delete(RecordKey::Body(number, correlation)),
                    ]);
                    return Ok(());
                };
                client.newest = client.newest.max(correlation);
                client.expiry.insert((item.until, correlation));
                if item.state == ItemState::Waiting {
                    client.scheduled.insert((item.not_before, correlation));
                } else {
                    client.finals.insert(correlation);
                }
                client.items.insert(correlation, Box::new(item));
                self.held += 1;
                if let Some(destination) = self.destinations.get_mut(&client.destination) {
                    destination.held += 1;
                }
            }
            RecordKey::Published(hash) => self.restore_published(hash, value).ok_or(unusable)?,
            RecordKey::Body(..) => {}
        }
        Ok(())
    }

    /// All records are handed over: what is held is sent, when it is time.
    pub fn begin(&mut self, now: Now) {
        let all: Vec<_> = self.clients.keys().copied().collect();
        for client in all {
            self.advance(client, now);
            self.forget_if_empty(client);
        }
        self.begin_destinations(now);
    }

    pub(super) fn store(&mut self, writes: Vec<Write>, then: Pending) {
        let writes = writes.into_iter().map(Write::into_record).collect();
        self.ask_storage(StorageAction::WriteRecords { writes }, then);
    }

    pub(super) fn store_nothing(&mut self, writes: Vec<Write>) {
        self.store(writes, Pending::Nothing);
    }

    pub(super) fn read_record(&mut self, key: RecordKey, then: Pending) {
        self.ask_storage(StorageAction::ReadRecord { key: key.to_bytes().into() }, then);
    }

    fn ask_storage(&mut self, action: StorageAction, then: Pending) {
        let id = ActionId::of(Room::FirstStep, self.number());
        self.pending.insert(id, then);
        self.storage.push_back((id, action));
    }

    /// The next action for storage.
    pub fn poll_storage(&mut self) -> Option<(ActionId, StorageAction)> {
        self.storage.pop_front()
    }

    /// How many actions storage has not completed.
    #[must_use]
    pub fn actions_under_way(&self) -> usize {
        self.pending.len()
    }

    /// Takes storage's answer to an action.
    pub fn complete(&mut self, completion: Completion, now: Now) {
        let Some(pending) = self.pending.remove(&completion.action()) else { return };
        let done = !matches!(completion, Completion::Failed(_));
        let value = match completion {
            Completion::Record(_, value) => value.filter(|value| value.len() == SEALED_LENGTH),
            _ => None,
        };
        match pending {
            Pending::Held(number, correlation, user) => self.is_held(number, correlation, user, done, now),
            Pending::Outcome(number, correlation, answer) => {
                self.outcome_is_kept(number, correlation, answer, done, now);
            }
            Pending::Nothing => {}
            Pending::Command(number, correlation) => self.command_is_read(number, correlation, value, now),
            Pending::Answer(number, correlation) => {
                let answer = value.map_or(ToClient::Error(FirstStepError::Internal), ToClient::Response);
                self.tell_client(number, correlation, answer);
            }
        }
    }

    fn command_is_read(
        &mut self,
        number: ClientNumber,
        correlation: Correlation,
        body: Option<Bytes>,
        now: Now,
    ) {
        let reading = self
            .clients
            .get(&number)
            .and_then(|client| client.items.get(&correlation))
            .is_some_and(|item| item.state == ItemState::Reading);
        match body {
            Some(body) if reading => self.send(number, correlation, body, now),
            _ => {
                let there = self.clients.get(&number).map(|client| client.destination);
                if let Some(there) = there.and_then(|there| self.destinations.get_mut(&there)) {
                    there.reading = there.reading.saturating_sub(1);
                }
                self.settle(number, correlation, Err(FirstStepError::Internal), now);
            }
        }
    }
}
