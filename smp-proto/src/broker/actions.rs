//! Storage actions that are under way, and what is to be done when each completes.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;

use super::connections::{Address, ConnectionId};
use super::queues::{News, NotifierSubscription, QueueRef};
use super::record::{QueueRecord, ServiceNumber};
use super::storage::{ActionId, BlobId, RecordWrite, Sequence, StorageAction, StoredMessage};
use crate::session::outgoing::OutgoingContent;
use crate::time::UnixTime;

/// Above this capacity an emptied queue of actions gives its memory back.
const KEPT_CAPACITY: usize = 1024;

/// Why an action was emitted.
pub(super) enum Purpose {
    /// To create a queue, and give this answer once it is durable.
    Create(Address, OutgoingContent),
    /// To give this answer (`None`: the link data, which is read then) once a change of the queue is durable, and tell
    /// whoever was notified so far and is not any more. The record of before decides who is authorized when the change fails.
    Change {
        to: Address,
        answer: Option<OutgoingContent>,
        previous: Option<NotifierSubscription>,
        before: Box<QueueRecord>,
    },
    /// To change a queue as the operator decided, and then tell its subscriber.
    Block {
        before: Box<QueueRecord>,
    },
    /// To write a blob (of this day), to delete one, to read one for an answer, and to delete one that nobody wrote again.
    WriteBlob(Address, BlobId, UnixTime),
    ClearBlob(Address, BlobId),
    ReadBlob(Address),
    ExpireBlob(BlobId),
    /// To keep a service, and accept it then.
    PutService(ServiceNumber),
    /// To change a queue without telling anybody.
    Quietly {
        before: Box<QueueRecord>,
    },
    /// To read link data for an answer.
    ReadLink(Address),
    /// To delete a queue, and then say so.
    DeleteQueue(Address),
    /// To delete a queue that nobody has used in time.
    ExpireQueue,
    /// To store a sender's message. The message is kept only when it can be handed to a subscriber directly.
    Message {
        to: Address,
        sequence: Sequence,
        message: Option<StoredMessage>,
        news: Option<Box<News>>,
    },
    /// To store the marker that a queue is full.
    Marker {
        sequence: Sequence,
    },
    /// To delete what a subscriber acknowledged.
    Acknowledge(Address),
    /// To delete what somebody took with `GET`.
    AcknowledgeTaken(Address),
    /// To read what the subscriber gets next by itself.
    Deliver(ConnectionId, Sequence),
    /// To read what the subscriber gets as the answer to its acknowledgement.
    DeliverAsAnswer(ConnectionId, Sequence),
    /// To read what answers a `GET`.
    Take(Address, Sequence),
    /// To complete a queue's description (so far this text) with its oldest message.
    Describe(Address, String, Sequence),
    /// To read a queue again that is in doubt.
    Restore,
    /// To forget expired messages; nobody waits for it.
    Expire,
}

impl Purpose {
    /// The connection that is owed an answer until the action completes.
    pub(super) const fn owed_to(&self) -> Option<ConnectionId> {
        match self {
            Self::Create(to, _)
            | Self::Change { to, .. }
            | Self::DeleteQueue(to)
            | Self::Message { to, .. }
            | Self::Acknowledge(to)
            | Self::AcknowledgeTaken(to)
            | Self::Describe(to, ..)
            | Self::ReadLink(to)
            | Self::WriteBlob(to, ..)
            | Self::ClearBlob(to, _)
            | Self::ReadBlob(to)
            | Self::Take(to, _) => Some(to.connection),
            // Beside the acknowledgement itself, which may be durable before the next message has been read.
            Self::DeliverAsAnswer(connection, _) => Some(*connection),
            Self::Block { .. }
            | Self::PutService(_)
            | Self::ExpireBlob(_)
            | Self::Quietly { .. }
            | Self::ExpireQueue
            | Self::Marker { .. }
            | Self::Deliver(..)
            | Self::Restore
            | Self::Expire => None,
        }
    }

    /// The receipt that goes into the same commit: for what a first-step relay has forwarded, and writes.
    pub(super) fn receipt(&self) -> Option<RecordWrite> {
        let (to, answer) = match self {
            Self::Message { to, .. } => (to, Some(&OutgoingContent::Ok)),
            // Without an answer there will be link data.
            Self::Change { to, answer, .. } => (to, answer.as_ref()),
            _ => return None,
        };
        let envelope = to.forwarded.as_deref()?.first_step()?;
        let (key, value) = envelope.receipt_with_commit(&to.correlation, &to.entity, answer);
        Some(RecordWrite::Put { key, value })
    }

    /// Whether the action deletes one message.
    pub(super) const fn deletes_message(&self) -> bool {
        matches!(self, Self::Acknowledge(_) | Self::AcknowledgeTaken(_) | Self::Expire)
    }

    /// What kind of answer storage owes to the action.
    pub(super) const fn expects(&self) -> Expected {
        match self {
            Self::Deliver(..) | Self::DeliverAsAnswer(..) | Self::Take(..) | Self::Describe(..) => {
                Expected::Message
            }
            Self::ReadLink(_) => Expected::Link,
            Self::ReadBlob(_) => Expected::Blob,
            Self::Restore => Expected::Queue,
            _ => Expected::Done,
        }
    }
}

/// Kinds of [`Completion`](super::storage::Completion).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    Done,
    Message,
    Link,
    Blob,
    Queue,
}

/// One action under way.
pub(super) struct UnderWay {
    pub(super) queue: QueueRef,
    pub(super) purpose: Purpose,
}

/// All actions under way, and those that the driver has not taken yet.
#[derive(Default)]
pub(super) struct Actions {
    /// The id of the first entry.
    first: u64,
    under_way: VecDeque<Option<UnderWay>>,
    count: usize,
    emitted: VecDeque<(ActionId, StorageAction)>,
}

impl Actions {
    pub(super) fn emit(&mut self, queue: QueueRef, purpose: Purpose, action: StorageAction) -> ActionId {
        let id = ActionId(self.first + self.under_way.len() as u64);
        self.under_way.push_back(Some(UnderWay { queue, purpose }));
        self.count += 1;
        self.emitted.push_back((id, action));
        id
    }

    pub(super) fn poll(&mut self) -> Option<(ActionId, StorageAction)> {
        let next = self.emitted.pop_front();
        if self.emitted.is_empty() && self.emitted.capacity() > KEPT_CAPACITY {
            self.emitted = VecDeque::new();
        }
        next
    }

    /// Takes an action that has completed; `None` when there is no such action.
    pub(super) fn complete(&mut self, id: ActionId) -> Option<UnderWay> {
        let place = usize::try_from(id.0.checked_sub(self.first)?).ok()?;
        let under_way = self.under_way.get_mut(place)?.take()?;
        self.count -= 1;
        while let Some(None) = self.under_way.front() {
            self.under_way.pop_front();
            self.first += 1;
        }
        if self.under_way.is_empty() && self.under_way.capacity() > KEPT_CAPACITY {
            self.under_way = VecDeque::new();
        }
        Some(under_way)
    }

    pub(super) fn under_way(&self) -> impl Iterator<Item = &UnderWay> {
        self.under_way.iter().flatten()
    }

    /// How many have not completed.
    pub(super) const fn count(&self) -> usize {
        self.count
    }

    /// How many the driver has not taken.
    pub(super) fn waiting(&self) -> usize {
        self.emitted.len()
    }
}
