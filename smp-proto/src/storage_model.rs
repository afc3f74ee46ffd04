//! Storage as a plain data structure: what engines are compared with, and what simulations crash.
//!
//! It keeps what has been written, and apart from it what would survive a crash. It decides nothing about time: whoever
//! drives it says when writes become durable ([`StorageModel::sync`]) and when power fails ([`StorageModel::crash`]).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::broker::record::{BlobRecord, QueueRecord, ServiceNumber, ServiceRecord};
use crate::broker::storage::{
    ActionId, BlobId, Completion, MessageMark, QueueNumber, RecordWrite, Sequence, StorageAction, StoredLink,
    StoredMessage, StoredQueue,
};

/// One queue with its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    record: QueueRecord,
    link: Option<StoredLink>,
    messages: BTreeMap<Sequence, (MessageMark, StoredMessage)>,
}

#[derive(Clone, Debug, Default)]
struct Stored {
    queues: BTreeMap<QueueNumber, Held>,
    services: BTreeMap<ServiceNumber, ServiceRecord>,
    blobs: BTreeMap<BlobId, (BlobRecord, Bytes)>,
    records: BTreeMap<Bytes, Bytes>,
}

/// Storage in memory, with a memory of what is durable.
#[derive(Clone, Debug, Default)]
pub struct StorageModel {
    current: Stored,
    durable: Stored,
    /// Writes that a crash would lose, in order.
    unsynced: Vec<StorageAction>,
}

impl StorageModel {
    /// Carries out an action. A write takes effect at once, but is not durable before [`sync`](Self::sync); its
    /// completion should be handed to the broker only then.
    pub fn apply(&mut self, id: ActionId, action: StorageAction) -> Completion {
        match action {
            StorageAction::ReadMessage { queue, sequence, .. } => {
                Completion::Message(id, self.message(queue, sequence).cloned())
            }
            StorageAction::ReadLink { queue } => Completion::Link(id, self.link(queue).cloned()),
            StorageAction::ReadBlob { id: blob } => Completion::Blob(id, self.blob(blob).cloned()),
            StorageAction::ReadQueue { queue } => Completion::Queue(id, self.queue(queue).map(Into::into)),
            StorageAction::ReadRecord { key } => Completion::Record(id, self.record(&key).cloned()),
            write => {
                let deletion = write_to(&mut self.current, &write);
                self.unsynced.push(write);
                match deletion {
                    Some(more) => Completion::Deleted(id, more),
                    None => Completion::Done(id),
                }
            }
        }
    }

    /// Makes everything that was written durable.
    pub fn sync(&mut self) {
        for write in self.unsynced.drain(..) {
            let _ = write_to(&mut self.durable, &write);
        }
    }

    /// Loses every write since the last [`sync`](Self::sync).
    pub fn crash(&mut self) {
        self.unsynced.clear();
        self.current = self.durable.clone();
    }

    /// A message.
    #[must_use]
    pub fn message(&self, queue: QueueNumber, sequence: Sequence) -> Option<&StoredMessage> {
        self.current.queues.get(&queue)?.messages.get(&sequence).map(|(_, message)| message)
    }

    /// A queue's link data.
    #[must_use]
    pub fn link(&self, queue: QueueNumber) -> Option<&StoredLink> {
        self.current.queues.get(&queue)?.link.as_ref()
    }

    /// A queue without the bodies of its messages.
    #[must_use]
    pub fn queue(&self, queue: QueueNumber) -> Option<StoredQueue> {
        self.current.queues.get(&queue).map(|held| held.stored(queue))
    }

    /// All services in order.
    pub fn services(&self) -> impl Iterator<Item = (ServiceNumber, ServiceRecord)> {
        self.current.services.iter().map(|(number, record)| (*number, record.clone()))
    }

    /// The value of a blob.
    #[must_use]
    pub fn blob(&self, id: BlobId) -> Option<&Bytes> {
        self.current.blobs.get(&id).map(|(_, value)| value)
    }

    /// All blobs in order, without their values.
    pub fn blobs(&self) -> impl Iterator<Item = (BlobId, BlobRecord)> {
        self.current.blobs.iter().map(|(id, (record, _))| (*id, record.clone()))
    }

    /// The value of a record.
    #[must_use]
    pub fn record(&self, key: &[u8]) -> Option<&Bytes> {
        self.current.records.get(key)
    }

    /// All records whose keys begin with `prefix`, in the order of their keys.
    pub fn records(&self, prefix: &[u8]) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        with_prefix(&self.current.records, prefix)
    }

    /// All queues in order: what a relay takes over at start.
    pub fn queues(&self) -> impl Iterator<Item = StoredQueue> {
        self.current.queues.iter().map(|(queue, held)| held.stored(*queue))
    }
}

impl Held {
    fn new(record: &QueueRecord) -> Self {
        Self { record: record.clone(), link: None, messages: BTreeMap::new() }
    }

    fn stored(&self, queue: QueueNumber) -> StoredQueue {
        let messages = self.messages.iter().map(|(sequence, (mark, _))| (*sequence, *mark)).collect();
        StoredQueue { queue, record: self.record.clone(), messages }
    }
}

fn with_prefix<'r>(
    records: &'r BTreeMap<Bytes, Bytes>,
    prefix: &[u8],
) -> impl Iterator<Item = (&'r Bytes, &'r Bytes)> {
    records.range(Bytes::copy_from_slice(prefix)..).take_while(move |(key, _)| key.starts_with(prefix))
}

fn write_records(records: &mut BTreeMap<Bytes, Bytes>, writes: &[RecordWrite]) {
    for write in writes {
        match write {
            RecordWrite::Put { key, value } => {
                records.insert(key.clone(), value.clone());
            }
            RecordWrite::Delete { key } => {
                records.remove(key);
            }
        }
    }
}

/// Returns, of an action that deletes by prefix, whether there are more.
fn write_to(stored: &mut Stored, write: &StorageAction) -> Option<bool> {
    let queues = &mut stored.queues;
    match write {
        StorageAction::WriteRecords { writes } => write_records(&mut stored.records, writes),
        StorageAction::WithRecords { action, writes } => {
            let deletion = write_to(stored, action);
            write_records(&mut stored.records, writes);
            return deletion;
        }
        StorageAction::DeleteRecords { prefix, at_most } => {
            let at_most = usize::try_from(*at_most).unwrap_or(usize::MAX);
            let first: Vec<Bytes> =
                with_prefix(&stored.records, prefix).take(at_most).map(|(key, _)| key.clone()).collect();
            for key in first {
                stored.records.remove(&key);
            }
            return Some(with_prefix(&stored.records, prefix).next().is_some());
        }
        StorageAction::PutService { service, record } => {
            stored.services.insert(*service, record.clone());
        }
        StorageAction::PutBlob { id, record, value } => {
            stored.blobs.insert(*id, (record.clone(), value.clone()));
        }
        StorageAction::DeleteBlob { id } => {
            stored.blobs.remove(id);
        }
        StorageAction::PutQueue { queue, record } => match queues.get_mut(queue) {
            Some(held) => held.record = (**record).clone(),
            None => {
                queues.insert(*queue, Held::new(record));
            }
        },
        StorageAction::PutQueueAndLink { queue, record, link } => {
            let held = queues.entry(*queue).or_insert_with(|| Held::new(record));
            held.record = (**record).clone();
            held.link.clone_from(link);
        }
        StorageAction::DeleteQueue { queue } => {
            queues.remove(queue);
        }
        StorageAction::PutMessage { queue, sequence, mark, message } => {
            if let Some(held) = queues.get_mut(queue) {
                held.messages.insert(*sequence, (*mark, message.clone()));
            }
        }
        StorageAction::DeleteMessage { queue, sequence, .. } => {
            if let Some(held) = queues.get_mut(queue) {
                held.messages.remove(sequence);
            }
        }
        StorageAction::ReadMessage { .. }
        | StorageAction::ReadLink { .. }
        | StorageAction::ReadBlob { .. }
        | StorageAction::ReadRecord { .. }
        | StorageAction::ReadQueue { .. } => {}
    }
    None
}
