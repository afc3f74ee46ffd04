//! Blocking: what an operator may do against a queue that is used for spam or forbidden content.
//!
//! A blocked queue keeps its ids and messages; its parties are told `BLOCKED` with the reason (WIRE-FACTS 7), in the words
//! of their version.

use core::fmt;

use super::actions::Purpose;
use super::queues::QueueRef;
use super::record::QueueStatus;
use super::storage::StorageAction;
use super::{Broker, Health};
use crate::session::outgoing::OutgoingContent;
use crate::wire::error::{Blocked, SmpError};
use crate::wire::identifier::IDENTIFIER_LENGTH;

/// Why a queue was not blocked or unblocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockError {
    /// No queue has this id.
    NoQueue,
    /// Storage has failed for this queue: try again later.
    Storage,
}

impl fmt::Display for BlockError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NoQueue => "no queue of this relay has this id: check the id, the queue may be deleted",
            Self::Storage => "storage has failed for this queue: try again when it works",
        })
    }
}

impl core::error::Error for BlockError {}

impl Broker {
    /// Blocks the queue that has this id, as recipient, sender, notifier or link id, or changes why it is blocked. When that
    /// is durable its subscriber is told. If storage fails it is as if nothing had been asked: see
    /// [`is_blocked`](Self::is_blocked).
    ///
    /// # Errors
    /// [`BlockError`].
    pub fn block(&mut self, id: &[u8; IDENTIFIER_LENGTH], blocked: Blocked) -> Result<(), BlockError> {
        let at = self.queue_of(id)?;
        self.set_status(at, QueueStatus::Blocked(blocked));
        Ok(())
    }

    /// Unblocks a queue: it accepts messages again. One that is not blocked stays as it is.
    ///
    /// # Errors
    /// [`BlockError`].
    pub fn unblock(&mut self, id: &[u8; IDENTIFIER_LENGTH]) -> Result<(), BlockError> {
        let at = self.queue_of(id)?;
        if self.is_blocked(id) {
            self.set_status(at, QueueStatus::Active);
        }
        Ok(())
    }

    /// Whether the queue that has this id is blocked.
    #[must_use]
    pub fn is_blocked(&self, id: &[u8; IDENTIFIER_LENGTH]) -> bool {
        self.queues
            .holder(id)
            .and_then(|slot| self.present(slot))
            .is_some_and(|queue| matches!(queue.record.status, QueueStatus::Blocked(_)))
    }

    fn queue_of(&self, id: &[u8; IDENTIFIER_LENGTH]) -> Result<QueueRef, BlockError> {
        let slot = self.queues.holder(id).ok_or(BlockError::NoQueue)?;
        let queue = self.present(slot).ok_or(BlockError::NoQueue)?;
        if queue.health == Health::Sound { Ok(queue.reference(slot)) } else { Err(BlockError::Storage) }
    }

    fn set_status(&mut self, at: QueueRef, status: QueueStatus) {
        if let Some((before, record)) = self.replace(at, |record| record.status = status) {
            let action = StorageAction::PutQueue { queue: at.number, record };
            self.emit(at, Purpose::Block { before }, action);
        }
    }

    /// The operator's decision is durable: a blocked queue's subscriber is told.
    pub(super) fn status_set(&mut self, at: QueueRef) {
        let Some(queue) = self.queues.at(at) else { return };
        let QueueStatus::Blocked(blocked) = &queue.record.status else { return };
        let error = SmpError::Blocked(blocked.clone());
        let recipient = queue.record.recipient;
        if let Some(subscriber) = queue.subscription_mut().map(|subscription| subscription.connection) {
            self.connections.tell(subscriber, recipient.into(), OutgoingContent::Error(error));
        }
    }
}
