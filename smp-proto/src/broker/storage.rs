//! What the broker asks of storage, and what storage answers: the whole vocabulary between the core and an engine.
//!
//! The broker emits [`StorageAction`]s, each under an [`ActionId`]; the driver has an engine carry them out and hands
//! back one [`Completion`] for each. The contract of an engine:
//!
//! - Actions that concern one queue take effect in the order in which they were emitted. An engine may group any
//!   number of actions, of any queues, into one atomic commit.
//! - A write is completed with [`Completion::Done`] only when it is as durable as the operator configured: the broker
//!   then speaks (DESIGN, contract 3).
//! - [`Completion::Failed`] means that the action took no effect, now or later. The broker then distrusts what it
//!   knows of that queue and reads it again ([`StorageAction::ReadQueue`]) before it accepts anything for it.
//! - Before the queues, it hands over every stored service, and every blob's record.
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

/// Names one action, so that its completion can be told from others. Never reused in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActionId(pub u64);

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
}

impl StorageAction {
    /// The queue that the action concerns; `None` when it concerns none.
    #[must_use]
    pub const fn queue(&self) -> Option<QueueNumber> {
        match self {
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
            | Self::ReadBlob { .. } => None,
        }
    }

    /// Whether the action only reads.
    #[must_use]
    pub const fn is_read(&self) -> bool {
        matches!(
            self,
            Self::ReadMessage { .. } | Self::ReadLink { .. } | Self::ReadBlob { .. } | Self::ReadQueue { .. }
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
            | Self::Failed(action) => *action,
        }
    }
}
