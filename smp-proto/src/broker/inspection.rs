//! Looking at a broker from outside: figures for operators, and a digest and invariants for simulations.

use sha2::{Digest, Sha256};

use super::Broker;
use super::queues::{Delivering, Health};
use super::record::QueueRecord;

/// How much a relay has, without telling anything about any queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Queues.
    pub queues: usize,
    /// Connections.
    pub connections: usize,
    /// Storage actions that have not completed.
    pub actions_under_way: usize,
    /// Storage actions that the driver has not taken.
    pub actions_waiting: usize,
}

/// An invariant that does not hold: a defect of the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inconsistency(pub &'static str);

impl core::fmt::Display for Inconsistency {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str(self.0)
    }
}

impl core::error::Error for Inconsistency {}

impl Broker {
    /// Figures for operators.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        Statistics {
            queues: self.queues.len(),
            connections: self.connections.count() as usize,
            actions_under_way: self.actions.under_way().count(),
            actions_waiting: self.actions.waiting(),
        }
    }

    /// A digest of the whole state: equal for equal inputs. Looks at every queue; for simulations only.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        let mut bytes = alloc::vec::Vec::new();
        for (slot, queue) in self.queues.all() {
            bytes.clear();
            queue.record.encode(&mut bytes);
            digest.update(slot.to_be_bytes());
            digest.update(queue.number.0.to_be_bytes());
            digest.update([queue.health as u8]);
            digest.update(queue.actions.to_be_bytes());
            digest.update(queue.next_sequence.to_be_bytes());
            digest.update(&bytes);
            let Some(activity) = &queue.activity else { continue };
            for waiting in &activity.messages {
                digest.update(waiting.sequence.0.to_be_bytes());
                digest.update(waiting.mark.timestamp.0.to_be_bytes());
                digest.update([u8::from(waiting.stored)]);
            }
            if let Some(subscription) = &activity.subscription {
                digest.update(subscription.connection.slot().to_be_bytes());
                match &subscription.delivery {
                    Delivering::Idle => digest.update([0]),
                    Delivering::Queued => digest.update([1]),
                    Delivering::Reading { action } => digest.update(action.0.to_be_bytes()),
                    Delivering::Sent { id, .. } => digest.update(id),
                    Delivering::Acknowledging { correlation, .. } => digest.update(correlation.as_bytes()),
                }
            }
            digest.update(activity.notifications.len().to_be_bytes());
        }
        for (id, connection) in self.connections.all() {
            digest.update(id.slot().to_be_bytes());
            digest.update(connection.owed.to_be_bytes());
            digest.update(connection.waiting_to_be_said().to_be_bytes());
        }
        digest.finalize().into()
    }

    /// Checks the invariants. Looks at everything; for simulations and tests only.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn check(&self) -> Result<(), Inconsistency> {
        let ensure = |holds: bool, what| if holds { Ok(()) } else { Err(Inconsistency(what)) };
        let mut queues = 0;
        let mut notifiers = 0;
        let mut under_way = 0u64;
        for (slot, queue) in self.queues.all() {
            queues += 1;
            under_way += u64::from(queue.actions);
            let QueueRecord { recipient, sender, notifier, .. } = &queue.record;
            ensure(
                self.queues.by_recipient(recipient) == Some(slot),
                "a queue is not found by its recipient id",
            )?;
            ensure(self.queues.by_sender(sender) == Some(slot), "a queue is not found by its sender id")?;
            if let Some(notifier) = notifier {
                notifiers += 1;
                let found = self.queues.by_notifier(&notifier.notifier);
                ensure(found == Some(slot), "a queue is not found by its notifier id")?;
            }
            let Some(activity) = &queue.activity else { continue };
            let in_order =
                activity.messages.iter().map(|waiting| waiting.sequence).is_sorted_by(|a, b| a < b);
            ensure(in_order, "messages are not in order")?;
            let before_next =
                activity.messages.back().is_none_or(|last| last.sequence.0 < queue.next_sequence);
            ensure(before_next, "a message's place would be used again")?;
            // One more than the quota: the marker.
            let quota = usize::from(self.config.message_quota) + 1;
            ensure(activity.occupied() <= quota, "a queue holds more than its quota")?;
            let in_calendar = activity.messages.is_empty() || activity.in_calendar;
            ensure(in_calendar, "a queue with messages is not in the calendar")?;
            if let Some(subscription) = &activity.subscription {
                let connection = self.connections.get(subscription.connection);
                let knows = connection.is_some_and(|connection| connection.subscribed.contains(&slot));
                ensure(knows, "a subscriber does not know of its subscription")?;
                let idle = matches!(subscription.delivery, Delivering::Idle);
                let stuck = idle && queue.health == Health::Sound && queue.head().is_some();
                ensure(!stuck, "a message waits, and the subscriber waits for it")?;
            }
            if let Some(id) = activity.notifier {
                let connection = self.connections.get(id);
                let knows = connection.is_some_and(|connection| connection.notified.contains(&slot));
                ensure(knows, "a notifier does not know of its subscription")?;
            }
        }
        ensure(queues == self.queues.len() && queues == self.queues.sender_count(), "ids without a queue")?;
        ensure(notifiers == self.queues.notifier_count(), "notifier ids without a queue")?;
        let of_present = |action: &&super::actions::UnderWay| {
            self.queues.get(action.queue.slot).is_some_and(|queue| queue.number == action.queue.number)
        };
        let counted = self.actions.under_way().filter(of_present).count() as u64;
        ensure(counted == under_way, "actions under way are not counted")?;
        for (id, connection) in self.connections.all() {
            for slot in &connection.subscribed {
                let activity = self.queues.get(*slot).and_then(|queue| queue.activity.as_ref());
                let subscribed = activity.is_some_and(|activity| activity.is_subscribed(id));
                ensure(subscribed, "a connection believes in a subscription that is not there")?;
            }
        }
        Ok(())
    }
}
