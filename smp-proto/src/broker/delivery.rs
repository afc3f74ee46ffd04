//! Delivery: what happens when storage has answered, and how messages reach subscribers.
//!
//! A message is delivered only when it is stored. At most one is unacknowledged in a subscription, and at most
//! `deliveries_in_flight` bodies are under way to a connection: further queues wait in line until the connection has
//! taken what it has.

use alloc::collections::VecDeque;

use super::Broker;
use super::actions::{Purpose, UnderWay};
use super::connections::{Address, ConnectionId};
use super::queues::{Delivering, Health, Next, QueueRef, Waiting};
use super::recovery::storage_failed;
use super::storage::{
    ActionId, Completion, MessageKind, MessageMark, Sequence, StorageAction, StoredMessage,
};
use crate::session::outgoing::{DeliveredMessage, Delivery, OutgoingContent};
use crate::time::Now;
use crate::wire::{CorrelationId, EntityId};

impl Purpose {
    /// Whether the action deletes one message.
    pub(super) const fn deletes_message(&self) -> bool {
        matches!(self, Self::Acknowledge(_) | Self::AcknowledgeTaken(_) | Self::Expire)
    }

    /// The connection that is owed an answer when the action completes.
    pub(super) const fn owed_to(&self) -> Option<ConnectionId> {
        match self {
            Self::Answer(to, _)
            | Self::DeleteQueue(to)
            | Self::Message { to, .. }
            | Self::Acknowledge(to)
            | Self::AcknowledgeTaken(to)
            | Self::Take(to, _) => Some(to.connection),
            Self::Marker { .. } | Self::Deliver(..) | Self::Restore | Self::Expire => None,
        }
    }
}

impl Broker {
    /// Takes storage's answer to an action. An answer to an action that is not under way is ignored.
    pub fn complete(&mut self, completion: Completion, now: Now) {
        let Some(UnderWay { queue: at, purpose }) = self.actions.complete(completion.action()) else {
            return;
        };
        if let Some(connection) = purpose.owed_to().and_then(|id| self.connections.get_mut(id)) {
            connection.owed = connection.owed.saturating_sub(1);
        }
        if let Some(queue) = self.queues.at(at) {
            queue.actions = queue.actions.saturating_sub(1);
            if purpose.deletes_message()
                && let Some(activity) = &mut queue.activity
            {
                activity.deleting = activity.deleting.saturating_sub(1);
            }
        }
        match completion {
            Completion::Done(_) => self.written(at, purpose, now),
            Completion::Message(action, message) => self.message_read(at, action, purpose, message),
            Completion::Queue(_, stored) => self.restored(at, stored),
            Completion::Failed(action) => self.failed(at, action, purpose, now),
        }
        self.restore_when_quiet(at);
        if let Some(queue) = self.queues.at(at) {
            queue.rest();
        }
    }

    fn written(&mut self, at: QueueRef, purpose: Purpose, now: Now) {
        match purpose {
            Purpose::Answer(to, content) => self.connections.say(to, content),
            Purpose::AcknowledgeTaken(to) => self.connections.say(to, OutgoingContent::Ok),
            Purpose::DeleteQueue(to) => {
                if let Some(mut queue) = self.queues.remove(at.slot) {
                    self.detach_all(at.slot, &mut queue);
                }
                self.connections.say(to, OutgoingContent::Ok);
            }
            Purpose::Message { to, sequence, message } => {
                self.connections.say(to, OutgoingContent::Ok);
                self.message_stored(at, sequence, message, now);
            }
            Purpose::Marker { sequence } => self.message_stored(at, sequence, None, now),
            Purpose::Acknowledge(to) => {
                if let Some(deleted) = self.acknowledging(at, to.connection) {
                    *deleted = true;
                    self.finish_acknowledgement(at);
                } else {
                    self.connections.say(to, OutgoingContent::Ok);
                }
            }
            Purpose::Expire => {}
            // Reads are not completed by `Done`; an engine that does so has answered nothing.
            Purpose::Deliver(..) | Purpose::Take(..) | Purpose::Restore => {}
        }
    }

    /// Whether the deletion of what this subscriber acknowledged is durable; `None` when it is not the subscriber any
    /// more.
    fn acknowledging(&mut self, at: QueueRef, connection: ConnectionId) -> Option<&mut bool> {
        let subscription = self.queues.at(at)?.activity.as_mut()?.subscription.as_mut()?;
        match &mut subscription.delivery {
            Delivering::Acknowledging { deleted, .. } if subscription.connection == connection => {
                Some(deleted)
            }
            _ => None,
        }
    }

    fn message_stored(&mut self, at: QueueRef, sequence: Sequence, message: Option<StoredMessage>, now: Now) {
        let Some(queue) = self.queues.at(at) else { return };
        let Some(activity) = &mut queue.activity else { return };
        if let Ok(place) = activity.messages.binary_search_by_key(&sequence, |waiting| waiting.sequence)
            && let Some(waiting) = activity.messages.get_mut(place)
        {
            waiting.stored = true;
        }
        let head = activity.messages.front().copied();
        let direct = message.zip(head.filter(|head| head.sequence == sequence));
        if let Some((message, head)) = direct
            && let Some(subscription) = &mut activity.subscription
            && matches!(subscription.delivery, Delivering::Idle)
            && let Some(connection) = self.connections.get(subscription.connection)
            && connection.bodies < self.config.limits.deliveries_in_flight
        {
            subscription.delivery = Delivering::Sent { sequence, id: message.id };
            let to = Address {
                connection: subscription.connection,
                correlation: CorrelationId::EMPTY,
                entity: queue.record.recipient.into(),
            };
            let content = message_content(&queue.record, head.mark, message);
            self.connections.say(to, content);
        } else {
            self.deliver_next(at);
        }
        self.schedule_news(at, now);
    }

    /// Has the next message read for the subscriber, when there is both and nothing is under way.
    pub(super) fn deliver_next(&mut self, at: QueueRef) {
        let Some(queue) = self.queues.at(at) else { return };
        if queue.health != Health::Sound {
            return;
        }
        let Some(Waiting { sequence, mark, .. }) = queue.head() else { return };
        let entity = EntityId::from(queue.record.recipient);
        let Some(subscription) = queue.activity.as_mut().and_then(|activity| activity.subscription.as_mut())
        else {
            return;
        };
        if !matches!(subscription.delivery, Delivering::Idle) {
            return;
        }
        let id = subscription.connection;
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.bodies >= self.config.limits.deliveries_in_flight {
            subscription.delivery = Delivering::Queued;
            connection.queued.push_back(at);
            return;
        }
        connection.bodies += 1;
        let action = StorageAction::ReadMessage { queue: at.number, sequence, mark };
        let action = self.emit(at, Purpose::Deliver(id, entity, sequence), action);
        if let Some(subscription) =
            self.queues.at(at).and_then(|queue| queue.activity.as_mut()).and_then(|a| a.subscription.as_mut())
        {
            subscription.delivery = Delivering::Reading { action };
        }
    }

    /// Goes on with the queues that wait until the connection can take bodies.
    pub(super) fn deliver_queued(&mut self, id: ConnectionId) {
        loop {
            let limit = self.config.limits.deliveries_in_flight;
            let Some(connection) = self.connections.get_mut(id) else { return };
            if connection.bodies >= limit {
                return;
            }
            let Some(at) = connection.queued.pop_front() else {
                connection.queued = VecDeque::new();
                return;
            };
            if let Some(subscription) = self
                .queues
                .at(at)
                .and_then(|queue| queue.activity.as_mut())
                .and_then(|a| a.subscription.as_mut())
                && subscription.connection == id
                && matches!(subscription.delivery, Delivering::Queued)
            {
                subscription.delivery = Delivering::Idle;
                self.deliver_next(at);
            }
        }
    }

    fn message_read(
        &mut self,
        at: QueueRef,
        action: ActionId,
        purpose: Purpose,
        message: Option<StoredMessage>,
    ) {
        match purpose {
            Purpose::Take(to, sequence) => self.taken(at, to, sequence, message),
            Purpose::Deliver(connection, entity, sequence) => {
                self.read_for_subscriber(at, action, connection, entity, sequence, message);
            }
            _ => {}
        }
    }

    /// A message was read for a `GET`.
    fn taken(&mut self, at: QueueRef, to: Address, sequence: Sequence, message: Option<StoredMessage>) {
        let found = message.and_then(|message| {
            let queue = self.queues.at(at)?;
            let activity = queue.activity.as_mut()?;
            let place = activity.messages.binary_search_by_key(&sequence, |waiting| waiting.sequence).ok()?;
            let mark = activity.messages.get(place)?.mark;
            activity.getter(to.connection)?.delivered = Some((sequence, message.id));
            Some(message_content(&queue.record, mark, message))
        });
        // It may have been acknowledged elsewhere or have expired meanwhile.
        self.connections.say(to, found.unwrap_or(OutgoingContent::Ok));
    }

    fn read_for_subscriber(
        &mut self,
        at: QueueRef,
        action: ActionId,
        id: ConnectionId,
        entity: EntityId,
        sequence: Sequence,
        message: Option<StoredMessage>,
    ) {
        let mut wanted = None;
        let mut answering = false;
        if let Some(queue) = self.queues.at(at)
            && let Some(activity) = &mut queue.activity
        {
            let place = activity.messages.binary_search_by_key(&sequence, |waiting| waiting.sequence).ok();
            let mark = place.and_then(|place| activity.messages.get(place)).map(|waiting| waiting.mark);
            if let Some(subscription) = activity.subscription.as_mut().filter(|s| s.connection == id) {
                match &mut subscription.delivery {
                    Delivering::Reading { action: reading, .. } if *reading == action => {
                        subscription.delivery = Delivering::Idle;
                        if let Some((message, mark)) = message.zip(mark) {
                            subscription.delivery = Delivering::Sent { sequence, id: message.id };
                            wanted = Some(message_content(&queue.record, mark, message));
                        }
                    }
                    Delivering::Acknowledging { next, .. } if next.is_read_by(action) => {
                        answering = true;
                        *next = match message.zip(mark) {
                            None => Next::None,
                            Some((message, MessageMark { timestamp, kind })) => Next::Ready {
                                sequence,
                                timestamp,
                                quota: kind == MessageKind::Quota,
                                message,
                            },
                        };
                    }
                    _ => {}
                }
            }
        }
        if answering {
            self.finish_acknowledgement(at);
            return;
        }
        // The body that was counted when reading began is counted again when it is said.
        if let Some(connection) = self.connections.get_mut(id) {
            connection.bodies = connection.bodies.saturating_sub(1);
        }
        match wanted {
            Some(content) => {
                self.connections
                    .say(Address { connection: id, correlation: CorrelationId::EMPTY, entity }, content);
            }
            // What was read is not wanted any more, or is gone: there may be another message, or another subscriber.
            None => self.deliver_next(at),
        }
        self.deliver_queued(id);
    }

    /// Answers an acknowledgement as soon as both the deletion is durable and the next message, if any, has been read.
    pub(super) fn finish_acknowledgement(&mut self, at: QueueRef) {
        let Some(queue) = self.queues.at(at) else { return };
        let Some(subscription) = queue.activity.as_mut().and_then(|activity| activity.subscription.as_mut())
        else {
            return;
        };
        let id = subscription.connection;
        let Delivering::Acknowledging { deleted: true, next, correlation, entity } =
            &mut subscription.delivery
        else {
            return;
        };
        let next = match next {
            Next::Reading { .. } => return,
            next => core::mem::replace(next, Next::None),
        };
        let to = Address {
            connection: id,
            correlation: core::mem::take(correlation),
            entity: core::mem::take(entity),
        };
        match next {
            Next::Ready { sequence, timestamp, quota, message } => {
                subscription.delivery = Delivering::Sent { sequence, id: message.id };
                let kind = if quota { MessageKind::Quota } else { MessageKind::Ordinary };
                let content = message_content(&queue.record, MessageMark { timestamp, kind }, message);
                self.connections.say(to, content);
            }
            _ => {
                subscription.delivery = Delivering::Idle;
                self.connections.say(to, OutgoingContent::Ok);
                // A message may have been stored meanwhile.
                self.deliver_next(at);
            }
        }
    }

    fn failed(&mut self, at: QueueRef, action: ActionId, purpose: Purpose, now: Now) {
        if let Purpose::Restore = purpose {
            self.restore_later(at, now);
            return;
        }
        self.doubt(at);
        match purpose {
            Purpose::Answer(to, _)
            | Purpose::DeleteQueue(to)
            | Purpose::Message { to, .. }
            | Purpose::AcknowledgeTaken(to)
            | Purpose::Take(to, _) => {
                self.connections.say(to, OutgoingContent::Error(storage_failed()));
            }
            Purpose::Acknowledge(to) => {
                if let Some(queue) = self.queues.at(at)
                    && let Some(subscription) = queue.activity.as_mut().and_then(|a| a.subscription.as_mut())
                    && subscription.connection == to.connection
                    && matches!(subscription.delivery, Delivering::Acknowledging { .. })
                {
                    subscription.delivery = Delivering::Idle;
                }
                self.connections.say(to, OutgoingContent::Error(storage_failed()));
            }
            Purpose::Deliver(id, entity, sequence) => {
                self.read_for_subscriber(at, action, id, entity, sequence, None);
            }
            Purpose::Restore | Purpose::Marker { .. } | Purpose::Expire => {}
        }
    }
}

/// A message as it goes to its recipient.
fn message_content(
    record: &super::record::QueueRecord,
    mark: MessageMark,
    message: StoredMessage,
) -> OutgoingContent {
    let MessageMark { timestamp, kind } = mark;
    OutgoingContent::Message(Delivery {
        secret: record.recipient_secret.clone(),
        id: message.id,
        timestamp,
        message: match kind {
            MessageKind::Ordinary => {
                Some(DeliveredMessage { notification: message.notification, body: message.body })
            }
            MessageKind::Quota => None,
        },
    })
}
