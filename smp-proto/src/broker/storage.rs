//! What the core asks of storage, and what storage answers: the whole vocabulary between the core and an engine.
//!
//! The broker emits [`StorageAction`]s, each under an [`ActionId`]; the driver has an engine carry them out and hands
//! back one [`Completion`] for each. Other rooms of a relay do the same, through the same storage: what they keep are
//! *records*, key and value opaque, the first byte of the key being the room ([`Room::key_byte`]). Whose action it
//! was is in its id ([`ActionId::room`]), and whoever has several rooms ([`server`](crate::server)) hands each
//! completion to its room. A room ignores completions that are not of its own actions, but must not rely on that.
//!
//! The contract of an engine:
//!
//! - Actions that concern one queue, and writes of records, take effect in the order in which they were emitted. An
//!   engine may group any number of actions, of any queues, into one atomic commit; what one action says it never
//!   splits.
//! - A read finds everything whose completion was handed over before; what is written by actions that are still under
//!   way it may find or not.
//! - A write is completed with [`Completion::Done`] only when it is as durable as the operator configured: the broker
//!   then speaks (DESIGN, contract 3).
//! - [`Completion::Failed`] means that the action took no effect, now or later. The broker then distrusts what it
//!   knows of that queue and reads it again ([`StorageAction::ReadQueue`]) before it accepts anything for it.
//! - Before the queues, it hands over every stored service, and every blob's record. Records of other rooms are handed
//!   over by prefix, in the order of their keys: the room says which prefixes it wants at start.
//! - Link data is stored beside its queue's record, and never handed over at start.
//! - At start, before any connection, the driver hands every stored queue to the broker ([`StoredQueue`]): its record
//!   and the marks of its waiting messages, but no bodies.

use alloc::boxed::Box;
use alloc::vec::Vec;
use bytes::Bytes;

use super::record::{BlobRecord, QueueRecord, ServiceNumber, ServiceRecord};
use crate::time::UnixTime;
use crate::wire::identifier::IDENTIFIER_LENGTH;

/// The key of a queue in storage. Internal: never on the wire, given by the broker in increasing order, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueNumber(pub u64);

/// The id of a blob, also its key in storage: the SHA-256 of its reader's key.
pub type BlobId = [u8; 32];

/// The place of a message in its queue; increasing within the queue, never reused while the queue holds messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

/// Names one action, so that its completion can be told from others. Never reused in one run. The top byte is the room's
/// ([`Room`]), the rest the room's own number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActionId(pub u64);

impl ActionId {
    /// The bits of a room's own number.
    const NUMBER: u64 = (1 << 56) - 1;

    /// An action of a room; of `number` the lower 56 bits count.
    #[must_use]
    pub const fn of(room: Room, number: u64) -> Self {
        Self((room.key_byte() as u64) << 56 | number & Self::NUMBER)
    }

    /// Whose action it is; `None` when it is no room's.
    #[must_use]
    pub const fn room(self) -> Option<Room> {
        match self.0 >> 56 {
            0 => Some(Room::Broker),
            1 => Some(Room::FirstStep),
            2 => Some(Room::Forwarding),
            _ => None,
        }
    }

    /// The room's own number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0 & Self::NUMBER
    }
}

/// The parts of a relay that keep something in its storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Room {
    /// Queues, services, blobs: has actions of its own, and keeps no records.
    Broker,
    /// What is held for other relays.
    FirstStep,
    /// What first-step relays have forwarded to this one.
    Forwarding,
}

impl Room {
    /// The first byte of the keys of its records, and the top byte of its actions.
    #[must_use]
    pub const fn key_byte(self) -> u8 {
        match self {
            Self::Broker => 0,
            Self::FirstStep => 1,
            Self::Forwarding => 2,
        }
    }
}

/// The longest key of a record, in bytes.
pub const MAX_RECORD_KEY: usize = 64;

/// A change of one record.
#[derive(Clone, PartialEq, Eq)]
pub enum RecordWrite {
    /// Keep the record, or replace it.
    Put {
        /// 1 to [`MAX_RECORD_KEY`] bytes, the first of which is the room's.
        key: Bytes,
        /// Opaque; up to 16,384 bytes (a block).
        value: Bytes,
    },
    /// Delete the record. Deleting what is not there is not an error.
    Delete {
        /// Its key.
        key: Bytes,
    },
}

/// Values may be secrets, and keys name commands.
impl core::fmt::Debug for RecordWrite {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Put { value, .. } => write!(formatter, "Put({} bytes)", value.len()),
            Self::Delete { .. } => formatter.write_str("Delete"),
        }
    }
}

/// Whether a stored message is a sender's, or the marker that the queue was full (WIRE-FACTS 7, `SEND`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// A sender's message.
    Ordinary,
    /// The marker that stands in place of the message that did not fit; it has no body.
    Quota,
}

/// What the core keeps in memory of a waiting message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageMark {
    /// When the relay received it.
    pub timestamp: UnixTime,
    /// A message or the quota marker.
    pub kind: MessageKind,
}

/// A message as it is stored. The body is opaque, and shares the memory of the block that it came in.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// The id under which it is delivered, every time the same: 24 bytes.
    pub id: [u8; IDENTIFIER_LENGTH],
    /// The notification flag.
    pub notification: bool,
    /// Up to 16,088 bytes; empty for a quota marker.
    pub body: Bytes,
}

impl core::fmt::Debug for StoredMessage {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "StoredMessage({} bytes)", self.body.len())
    }
}

/// The two encrypted parts of link data as they are stored: opaque, and at most as long as a block.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredLink {
    /// Never changes.
    pub fixed: Bytes,
    /// The owner may change it.
    pub user: Bytes,
}

impl core::fmt::Debug for StoredLink {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "StoredLink({} and {} bytes)", self.fixed.len(), self.user.len())
    }
}

/// One thing that the broker asks of storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageAction {
    /// Create the queue, or replace its record.
    PutQueue {
        /// Which queue.
        queue: QueueNumber,
        /// What to keep.
        record: Box<QueueRecord>,
    },
    /// Create the queue or replace its record, and with the same commit its link data: both or neither take effect.
    PutQueueAndLink {
        /// Which queue.
        queue: QueueNumber,
        /// What to keep.
        record: Box<QueueRecord>,
        /// The link data to keep from now on; `None` = delete what there is.
        link: Option<StoredLink>,
    },
    /// Delete the queue's record, its link data and all its messages.
    DeleteQueue {
        /// Which queue.
        queue: QueueNumber,
    },
    /// Append a message.
    PutMessage {
        /// Which queue.
        queue: QueueNumber,
        /// The message's place, larger than that of any message in the queue.
        sequence: Sequence,
        /// What will be handed back at the next start.
        mark: MessageMark,
        /// The message.
        message: StoredMessage,
    },
    /// Delete one message: it was acknowledged or has expired. Deleting what is not there is not an error.
    DeleteMessage {
        /// Which queue.
        queue: QueueNumber,
        /// The message's place.
        sequence: Sequence,
        /// The mark it was put with.
        mark: MessageMark,
    },
    /// Keep a service, which concerns no queue.
    PutService {
        /// Which service.
        service: ServiceNumber,
        /// What to keep.
        record: ServiceRecord,
    },
    /// Keep a blob, or replace it; it concerns no queue. Actions about one blob take effect in order.
    PutBlob {
        /// Which blob.
        id: BlobId,
        /// What will be handed back at the next start.
        record: BlobRecord,
        /// The value: opaque.
        value: Bytes,
    },
    /// Delete a blob.
    DeleteBlob {
        /// Which blob.
        id: BlobId,
    },
    /// Read the value of a blob whose `PutBlob` has completed.
    ReadBlob {
        /// Which blob.
        id: BlobId,
    },
    /// Read a message whose `PutMessage` has completed.
    ReadMessage {
        /// Which queue.
        queue: QueueNumber,
        /// The message's place.
        sequence: Sequence,
        /// The mark it was put with.
        mark: MessageMark,
    },
    /// Read the link data of a queue whose writing has completed.
    ReadLink {
        /// Which queue.
        queue: QueueNumber,
    },
    /// Read what is stored of a queue, after a failure made the broker's own picture doubtful.
    ReadQueue {
        /// Which queue.
        queue: QueueNumber,
    },
    /// Change records: all of these or none.
    WriteRecords {
        /// In this order.
        writes: Vec<RecordWrite>,
    },
    /// Read a record.
    ReadRecord {
        /// Its key.
        key: Bytes,
    },
    /// Delete the first records, in the order of their keys, whose keys begin with `prefix`; the completion says whether
    /// there are more. For what is too much to delete at once.
    DeleteRecords {
        /// Not empty.
        prefix: Bytes,
        /// At least 1.
        at_most: u32,
    },
    /// A write, and with the same commit changes of records: all or none. Completed like `action`.
    WithRecords {
        /// Any action that [writes](Self::is_read).
        action: Box<StorageAction>,
        /// In this order, after `action`.
        writes: Vec<RecordWrite>,
    },
}

impl StorageAction {
    /// The queue that the action concerns; `None` when it concerns none.
    #[must_use]
    pub fn queue(&self) -> Option<QueueNumber> {
        match self {
            Self::WithRecords { action, .. } => action.queue(),
            Self::PutQueue { queue, .. }
            | Self::PutQueueAndLink { queue, .. }
            | Self::DeleteQueue { queue }
            | Self::PutMessage { queue, .. }
            | Self::DeleteMessage { queue, .. }
            | Self::ReadMessage { queue, .. }
            | Self::ReadLink { queue }
            | Self::ReadQueue { queue } => Some(*queue),
            Self::PutService { .. }
            | Self::PutBlob { .. }
            | Self::DeleteBlob { .. }
            | Self::ReadBlob { .. }
            | Self::WriteRecords { .. }
            | Self::ReadRecord { .. }
            | Self::DeleteRecords { .. } => None,
        }
    }

    /// Whether the action only reads.
    #[must_use]
    pub const fn is_read(&self) -> bool {
        matches!(
            self,
            Self::ReadMessage { .. }
                | Self::ReadLink { .. }
                | Self::ReadBlob { .. }
                | Self::ReadQueue { .. }
                | Self::ReadRecord { .. }
        )
    }
}

/// A queue as storage holds it, without the bodies of its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredQueue {
    /// Its key.
    pub queue: QueueNumber,
    /// Its record.
    pub record: QueueRecord,
    /// Its waiting messages, in order.
    pub messages: Vec<(Sequence, MessageMark)>,
}

/// What storage answers.
#[derive(Clone, Debug)]
pub enum Completion {
    /// The write took effect and is durable.
    Done(ActionId),
    /// The message that was read, `None` when there is none.
    Message(ActionId, Option<StoredMessage>),
    /// The link data that was read, `None` when there is none.
    Link(ActionId, Option<StoredLink>),
    /// The blob that was read, `None` when there is none.
    Blob(ActionId, Option<Bytes>),
    /// The queue that was read, `None` when there is none.
    Queue(ActionId, Option<Box<StoredQueue>>),
    /// The value of the record that was read, `None` when there is none.
    Record(ActionId, Option<Bytes>),
    /// Records were deleted, durably; whether there are more under that prefix.
    Deleted(ActionId, bool),
    /// The action failed and took no effect.
    Failed(ActionId),
}

impl Completion {
    /// The action that this completes.
    #[must_use]
    pub const fn action(&self) -> ActionId {
        match self {
            Self::Done(action)
            | Self::Message(action, _)
            | Self::Link(action, _)
            | Self::Blob(action, _)
            | Self::Queue(action, _)
            | Self::Record(action, _)
            | Self::Deleted(action, _)
            | Self::Failed(action) => *action,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_knows_its_room() {
        for room in [Room::Broker, Room::FirstStep, Room::Forwarding] {
            for number in [0, 1, ActionId::NUMBER] {
                let id = ActionId::of(room, number);
                assert_eq!((id.room(), id.number()), (Some(room), number));
            }
        }
        assert_eq!(ActionId::of(Room::Broker, 7), ActionId(7), "the broker counts from zero");
        assert_eq!(ActionId(u64::MAX).room(), None);
    }
}
