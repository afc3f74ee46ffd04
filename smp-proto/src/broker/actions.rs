//! Storage actions that are under way, and what is to be done when each completes.

use alloc::collections::VecDeque;

use super::connections::{Address, ConnectionId};
use super::queues::QueueRef;
use super::storage::{ActionId, Sequence, StorageAction, StoredMessage};
use crate::session::outgoing::OutgoingContent;
use crate::wire::EntityId;

/// Why an action was emitted.
pub(super) enum Purpose {
    /// To give this answer once it is durable.
    Answer(Address, OutgoingContent),
    /// To delete a queue, and then say so.
    DeleteQueue(Address),
    /// To store a sender's message. The message is kept only when it can be handed to a subscriber directly.
    Message { to: Address, sequence: Sequence, message: Option<StoredMessage> },
    /// To store the marker that a queue is full.
    Marker { sequence: Sequence },
    /// To delete what a subscriber acknowledged.
    Acknowledge(Address),
    /// To delete what somebody took with `GET`.
    AcknowledgeTaken(Address),
    /// To read what the subscriber gets next, by itself or as the answer to an acknowledgement.
    Deliver(ConnectionId, EntityId, Sequence),
    /// To read what answers a `GET`.
    Take(Address, Sequence),
    /// To read a queue again that is in doubt.
    Restore,
    /// To forget expired messages; nobody waits for it.
    Expire,
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
    emitted: VecDeque<(ActionId, StorageAction)>,
}

impl Actions {
    pub(super) fn emit(&mut self, queue: QueueRef, purpose: Purpose, action: StorageAction) -> ActionId {
        let id = ActionId(self.first + self.under_way.len() as u64);
        self.under_way.push_back(Some(UnderWay { queue, purpose }));
        self.emitted.push_back((id, action));
        id
    }

    pub(super) fn poll(&mut self) -> Option<(ActionId, StorageAction)> {
        self.emitted.pop_front()
    }

    /// Takes an action that has completed; `None` when there is no such action.
    pub(super) fn complete(&mut self, id: ActionId) -> Option<UnderWay> {
        let place = usize::try_from(id.0.checked_sub(self.first)?).ok()?;
        let under_way = self.under_way.get_mut(place)?.take();
        while let Some(None) = self.under_way.front() {
            self.under_way.pop_front();
            self.first += 1;
        }
        under_way
    }

    pub(super) fn under_way(&self) -> impl Iterator<Item = &UnderWay> {
        self.under_way.iter().flatten()
    }

    pub(super) fn waiting(&self) -> usize {
        self.emitted.len()
    }
}
