//! Delivery: how messages reach subscribers and those who take them.
//!
//! A message is delivered only when it is stored. At most one is unacknowledged in a subscription, and at most
//! `deliveries_in_flight` bodies are under way to a connection: further queues wait in line until the connection has
//! taken what it has.

use alloc::boxed::Box;
use alloc::collections::VecDeque;

use super::Broker;
use super::actions::Purpose;
use super::connections::{Address, ConnectionId, Queued};
use super::queues::{Acknowledgement, Delivering, Health, Next, QueueRef, Subscription};
use super::storage::{ActionId, MessageKind, MessageMark, Sequence, StorageAction, StoredMessage};
use super::waiting::Waiting;
use crate::session::outgoing::{DeliveredMessage, Delivery, OutgoingContent};
use crate::wire::error::SmpError;
use crate::wire::{CorrelationId, EntityId};

/// How many boxes of answered acknowledgements are kept for the next ones, so that a message which comes and goes takes
/// nothing from the allocator.
const SPARE_ACKNOWLEDGEMENTS: usize = 64;

impl Broker {
    /// A message is durable: from now on it may be read. A subscriber that waited for it gets it from memory.
    pub(super) fn message_stored(
        &mut self,
        at: QueueRef,
        sequence: Sequence,
        message: Option<StoredMessage>,
    ) {
        let limit = self.config.limits.deliveries_in_flight;
        let Some(queue) = self.queues.at(at) else { return };
        let Some(activity) = &mut queue.activity else { return };
        if let Some(waiting) = activity.messages.find_mut(sequence) {
            waiting.stored = true;
        }
        self.enter_calendar(at);
        let Some(queue) = self.queues.at(at) else { return };
        let head = queue.head().filter(|head| head.sequence == sequence);
        let direct = message.zip(head).filter(|_| queue.health == Health::Sound);
        if let Some((message, head)) = direct
            && let Some(subscription) = queue.subscription_mut().filter(|one| one.waits_for_message())
            && self.connections.get(subscription.connection).is_some_and(|to| to.bodies < limit)
        {
            subscription.unacknowledged = Some((sequence, message.id));
            let to = subscription.connection;
            self.deliver(to, CorrelationId::EMPTY, at, head.mark, message);
        } else {
            self.deliver_next(at);
        }
    }

    /// Hands a message to a connection.
    fn deliver(
        &mut self,
        connection: ConnectionId,
        correlation: CorrelationId,
        at: QueueRef,
        mark: MessageMark,
        message: StoredMessage,
    ) {
        let Some(queue) = self.queues.get(at.slot) else { return };
        let MessageMark { timestamp, kind } = mark;
        let content = OutgoingContent::Message(Delivery {
            secret: queue.record.recipient_secret.clone(),
            id: message.id,
            timestamp,
            message: match kind {
                MessageKind::Ordinary => {
                    Some(DeliveredMessage { notification: message.notification, body: message.body })
                }
                MessageKind::Quota => None,
            },
        });
        let entity = EntityId::from(queue.record.recipient);
        self.connections.say(Address::new(connection, correlation, entity), content);
    }

    /// Has the next message read for the subscriber, when it waits for one and there is one.
    pub(super) fn deliver_next(&mut self, at: QueueRef) {
        if self
            .queues
            .at(at)
            .and_then(|queue| queue.subscription_mut())
            .is_some_and(|one| one.waits_for_message())
        {
            self.read_head(at);
        }
    }

    /// Has the oldest message read for a subscriber to which nothing is under way, now or when there is room.
    pub(super) fn read_head(&mut self, at: QueueRef) {
        let limit = self.config.limits.deliveries_in_flight;
        let Some(queue) = self.queues.at(at).filter(|queue| queue.health == Health::Sound) else { return };
        let Some(Waiting { sequence, mark, .. }) = queue.head() else { return };
        let Some(subscription) = queue.subscription_mut() else { return };
        let id = subscription.connection;
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !connection.reserve_body(limit) {
            subscription.delivery = Delivering::Queued;
            connection.queued.push_back(Queued::Subscription(at));
            return;
        }
        let action = StorageAction::ReadMessage { queue: at.number, sequence, mark };
        let action = self.emit(at, Purpose::Deliver(id, sequence), action);
        if let Some(subscription) = self.queues.at(at).and_then(|queue| queue.subscription_mut()) {
            subscription.delivery = Delivering::Reading { action };
        }
    }

    /// Has the oldest message read for a `GET`, now or when there is room.
    pub(super) fn take_head(&mut self, to: Address, at: QueueRef) {
        let limit = self.config.limits.deliveries_in_flight;
        let Some(Waiting { sequence, mark, .. }) = self.queues.at(at).and_then(|queue| queue.head()) else {
            self.connections.say(to, OutgoingContent::Ok);
            return;
        };
        let Some(connection) = self.connections.get_mut(to.connection) else { return };
        if connection.reserve_body(limit) {
            let action = StorageAction::ReadMessage { queue: at.number, sequence, mark };
            self.emit(at, Purpose::Take(to, sequence), action);
        } else {
            connection.owed = connection.owed.saturating_add(1);
            connection.queued.push_back(Queued::Take(to, at));
        }
    }

    /// Goes on with the queues that wait until the connection can take bodies.
    pub(super) fn deliver_queued(&mut self, id: ConnectionId) {
        let limit = self.config.limits.deliveries_in_flight;
        loop {
            let Some(connection) = self.connections.get_mut(id).filter(|one| one.bodies < limit) else {
                return;
            };
            let Some(next) = connection.queued.pop_front() else {
                connection.queued = VecDeque::new();
                return;
            };
            match next {
                Queued::Subscription(at) => {
                    if let Some(subscription) = self.queues.at(at).and_then(|queue| queue.subscription_of(id))
                        && matches!(subscription.delivery, Delivering::Queued)
                    {
                        subscription.delivery = Delivering::Idle;
                        self.read_head(at);
                    }
                }
                Queued::Take(to, at) => {
                    self.connections.owe(id, false);
                    let health = self.queues.at(at).map(|queue| queue.health);
                    match health {
                        Some(Health::Sound) => self.take_head(to, at),
                        Some(Health::Doubtful { .. } | Health::Postponed { .. }) => {
                            self.connections
                                .say(to, OutgoingContent::Error(super::recovery::storage_failed()));
                        }
                        Some(Health::Deleting | Health::Creating) | None => {
                            self.connections.say(to, OutgoingContent::Error(SmpError::Authorization));
                        }
                    }
                }
                Queued::Blob(to) => {
                    self.connections.owe(id, false);
                    if let Err(error) = self.read_blob(to.clone()) {
                        self.connections.say(to, OutgoingContent::Error(error));
                    }
                }
                Queued::Link(to, at) => {
                    self.connections.owe(id, false);
                    match self.queues.at(at).map(|queue| queue.health) {
                        Some(health) if health.is_doubtful() => {
                            self.connections
                                .say(to, OutgoingContent::Error(super::recovery::storage_failed()));
                        }
                        Some(health) if health.is_present() => self.read_link(to, at),
                        _ => self.connections.say(to, OutgoingContent::Error(SmpError::Authorization)),
                    }
                }
            }
        }
    }

    /// A message was read for a `GET`.
    pub(super) fn taken(
        &mut self,
        at: QueueRef,
        to: Address,
        sequence: Sequence,
        message: Option<StoredMessage>,
    ) {
        self.connections.release_body(to.connection);
        let found = message.zip(self.queues.at(at).and_then(|queue| queue.mark_of(sequence)));
        match found {
            Some((message, mark)) => {
                let getter = self
                    .queues
                    .at(at)
                    .and_then(|queue| queue.activity.as_mut())
                    .and_then(|activity| activity.getter(to.connection));
                if let Some(getter) = getter {
                    getter.delivered = Some((sequence, message.id));
                }
                self.deliver(to.connection, to.correlation, at, mark, message);
            }
            // Acknowledged elsewhere or expired meanwhile: as if there had been none.
            None => {
                self.forget_missing(at, sequence);
                self.connections.say(to, OutgoingContent::Ok);
            }
        }
    }

    /// Storage does not have a message that the broker believes in: nobody must wait for it.
    pub(super) fn forget_missing(&mut self, at: QueueRef, sequence: Sequence) {
        if let Some(activity) = self.queues.at(at).and_then(|queue| queue.activity.as_mut()) {
            activity.messages.remove(sequence);
        }
    }

    /// A message was read that a subscriber gets by itself; `None` when there is none.
    pub(super) fn read_for_subscriber(
        &mut self,
        at: QueueRef,
        action: ActionId,
        id: ConnectionId,
        sequence: Sequence,
        message: Option<StoredMessage>,
    ) {
        self.connections.release_body(id);
        let is_missing = message.is_none();
        let mut found = None;
        if let Some(queue) = self.queues.at(at) {
            let mark = queue.mark_of(sequence);
            if let Some(subscription) = queue.subscription_of(id)
                && matches!(subscription.delivery, Delivering::Reading { action: reading } if reading == action)
            {
                subscription.delivery = Delivering::Idle;
                found = message.zip(mark);
                if let Some((message, _)) = &found {
                    subscription.unacknowledged = Some((sequence, message.id));
                }
            }
        }
        if is_missing {
            self.forget_missing(at, sequence);
        }
        match found {
            Some((message, mark)) => self.deliver(id, CorrelationId::EMPTY, at, mark, message),
            // What was read is not wanted any more, or is gone: there may be another message.
            None => self.deliver_next(at),
        }
        self.deliver_queued(id);
    }

    /// A message was read that is to answer an acknowledgement; `None` when there is none.
    pub(super) fn read_as_answer(
        &mut self,
        at: QueueRef,
        action: ActionId,
        id: ConnectionId,
        sequence: Sequence,
        message: Option<StoredMessage>,
    ) {
        if message.is_none() {
            self.forget_missing(at, sequence);
        }
        let mut kept = false;
        if let Some(queue) = self.queues.at(at) {
            let mark = queue.mark_of(sequence);
            if let Some(subscription) = queue.subscription_of(id)
                && let Delivering::Acknowledging(acknowledgement) = &mut subscription.delivery
                && matches!(acknowledgement.next, Next::Reading { action: reading } if reading == action)
            {
                acknowledgement.next = match message.zip(mark) {
                    None => Next::None,
                    Some((message, mark)) => {
                        kept = true;
                        Next::Ready { sequence, mark, message }
                    }
                };
            }
        }
        if !kept {
            self.connections.release_body(id);
        }
        self.finish_acknowledgement(at);
        self.deliver_queued(id);
    }

    /// What was to be delivered could not be read: the message waits until the queue is out of doubt.
    pub(super) fn read_failed(&mut self, at: QueueRef, action: ActionId, id: ConnectionId) {
        self.connections.release_body(id);
        if let Some(subscription) = self.queues.at(at).and_then(|queue| queue.subscription_of(id)) {
            match &mut subscription.delivery {
                Delivering::Reading { action: reading } if *reading == action => {
                    subscription.delivery = Delivering::Idle;
                }
                Delivering::Acknowledging(acknowledgement) if matches!(acknowledgement.next, Next::Reading { action: reading } if reading == action) =>
                {
                    acknowledgement.next = Next::None;
                }
                _ => {}
            }
        }
        self.finish_acknowledgement(at);
        self.deliver_queued(id);
    }

    /// The deletion of an acknowledged message is durable.
    pub(super) fn acknowledged(&mut self, at: QueueRef, action: ActionId, to: Address) {
        let subscription = self.queues.at(at).and_then(|queue| queue.subscription_of(to.connection));
        if let Some(Delivering::Acknowledging(acknowledgement)) = subscription.map(|one| &mut one.delivery)
            && acknowledgement.deletion == Some(action)
        {
            acknowledgement.deletion = None;
            self.finish_acknowledgement(at);
        } else {
            // It has lost the subscription meanwhile: there is no next message for it.
            self.connections.say(to, OutgoingContent::Ok);
        }
        if let Some(queue) = self.queues.at(at) {
            queue.rest();
        }
    }

    /// The deletion of an acknowledged message failed: the message is still there.
    pub(super) fn acknowledgement_failed(&mut self, at: QueueRef, action: ActionId, id: ConnectionId) {
        let Some(subscription) = self.queues.at(at).and_then(|queue| queue.subscription_of(id)) else {
            return;
        };
        if let Delivering::Acknowledging(acknowledgement) = &subscription.delivery
            && acknowledgement.deletion == Some(action)
        {
            let has_body = matches!(acknowledgement.next, Next::Ready { .. });
            subscription.delivery = Delivering::Idle;
            if has_body {
                self.connections.release_body(id);
                self.deliver_queued(id);
            }
        }
    }

    /// Answers an acknowledgement as soon as both the deletion is durable and the next message, if any, has been read.
    pub(super) fn finish_acknowledgement(&mut self, at: QueueRef) {
        let Some(queue) = self.queues.at(at) else { return };
        let recipient = EntityId::from(queue.record.recipient);
        let Some(subscription) = queue.subscription_mut() else { return };
        let is_due = matches!(&subscription.delivery, Delivering::Acknowledging(acknowledgement)
            if acknowledgement.deletion.is_none() && !matches!(acknowledgement.next, Next::Reading { .. }));
        if !is_due {
            return;
        }
        let Delivering::Acknowledging(mut acknowledgement) =
            core::mem::replace(&mut subscription.delivery, Delivering::Idle)
        else {
            return;
        };
        let connection = subscription.connection;
        let Acknowledgement { correlation, next, .. } = core::mem::take(&mut *acknowledgement);
        if self.spare_acknowledgements.len() < SPARE_ACKNOWLEDGEMENTS {
            self.spare_acknowledgements.push(acknowledgement);
        }
        if let Next::Ready { sequence, mark, message } = next {
            subscription.unacknowledged = Some((sequence, message.id));
            self.connections.release_body(connection);
            self.deliver(connection, correlation, at, mark, message);
        } else {
            self.connections.say(Address::new(connection, correlation, recipient), OutgoingContent::Ok);
            // A message may have been stored meanwhile, or there was no room for its body.
            self.deliver_next(at);
        }
    }

    /// Starts to acknowledge: deletes the message, and reads the next for the answer if there is room for its body.
    pub(super) fn acknowledge_delivered(&mut self, to: &Address, at: QueueRef, sequence: Sequence) {
        let limit = self.config.limits.deliveries_in_flight;
        let id = to.connection;
        let Some(queue) = self.queues.at(at) else { return };
        let Some(activity) = &mut queue.activity else { return };
        // Another connection may have taken and acknowledged it, or it expired: then there is nothing to delete.
        let removed = activity.messages.remove(sequence);
        let next = queue.head();
        let mut acknowledgement =
            Acknowledgement { correlation: to.correlation.clone(), deletion: None, next: Next::None };
        if let Some(Waiting { mark, .. }) = removed {
            let action = StorageAction::DeleteMessage { queue: at.number, sequence, mark };
            acknowledgement.deletion = Some(self.emit(at, Purpose::Acknowledge(to.clone()), action));
        }
        if let Some(Waiting { sequence, mark, .. }) = next
            && self.connections.get_mut(id).is_some_and(|connection| connection.reserve_body(limit))
        {
            let action = StorageAction::ReadMessage { queue: at.number, sequence, mark };
            let action = self.emit(at, Purpose::DeliverAsAnswer(id, sequence), action);
            acknowledgement.next = Next::Reading { action };
        }
        if let Some(subscription) = self.queues.at(at).and_then(|queue| queue.subscription_of(id)) {
            let acknowledgement = match self.spare_acknowledgements.pop() {
                None => Box::new(acknowledgement),
                Some(mut spare) => {
                    *spare = acknowledgement;
                    spare
                }
            };
            subscription.delivery = Delivering::Acknowledging(acknowledgement);
        }
        self.finish_acknowledgement(at);
    }

    /// A subscription ends. An acknowledgement under way is answered `OK` without the next message: now when the deletion
    /// is durable already, else when it is.
    pub(super) fn drop_subscription(&mut self, subscription: Subscription, recipient: EntityId) {
        let Subscription { connection, delivery, .. } = subscription;
        let Delivering::Acknowledging(acknowledgement) = delivery else { return };
        let Acknowledgement { correlation, deletion, next } = *acknowledgement;
        if matches!(next, Next::Ready { .. }) {
            self.connections.release_body(connection);
            self.deliver_queued(connection);
        }
        if deletion.is_none() {
            self.connections.say(Address::new(connection, correlation, recipient), OutgoingContent::Ok);
        }
    }
}
