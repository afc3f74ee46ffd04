//! Looking at a broker from outside: figures for operators, and a digest and invariants for simulations.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use super::Broker;
use super::actions::Purpose;
use super::connections::{Connection, ConnectionId, Queued};
use super::queues::{Acknowledgement, Activity, Delivering, Health, Next, Queue, QueueRef, Subscription};
use super::record::QueueRecord;

/// How much a relay has, without telling anything about any queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Queues.
    pub queues: usize,
    /// Blobs.
    pub blobs: usize,
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

fn ensure(holds: bool, what: &'static str) -> Result<(), Inconsistency> {
    if holds { Ok(()) } else { Err(Inconsistency(what)) }
}

/// What the actions under way and the queues say that a connection must know.
#[derive(Default)]
struct Expected {
    owed: u32,
    bodies: u32,
}

impl Broker {
    /// Figures for operators.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        Statistics {
            queues: self.queues.len(),
            blobs: self.blobs.len(),
            connections: self.connections.count() as usize,
            actions_under_way: self.actions.count(),
            actions_waiting: self.actions.waiting(),
        }
    }

    /// A digest of the whole state: equal for equal inputs. Looks at every queue; for simulations only.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        let mut bytes = Vec::new();
        for (slot, queue) in self.queues.all() {
            bytes.clear();
            queue.record.encode(&mut bytes);
            digest.update(slot.to_be_bytes());
            digest.update(queue.number.0.to_be_bytes());
            digest.update(match queue.health {
                Health::Sound => [0, 0],
                Health::Doubtful { attempts } => [1, attempts],
                Health::Postponed { attempts } => [2, attempts],
                Health::Deleting => [3, 0],
                Health::Creating => [4, 0],
            });
            digest.update([u8::from(queue.in_calendar), u8::from(queue.in_news_calendar)]);
            digest.update(queue.actions.to_be_bytes());
            digest.update(queue.next_sequence.to_be_bytes());
            digest.update(&bytes);
            if let Some(activity) = &queue.activity {
                digest_activity(activity, &mut digest);
            }
        }
        for (id, connection) in self.connections.all() {
            digest_id(id, &mut digest);
            digest.update(connection.owed.to_be_bytes());
            digest.update((connection.proxied.unanswered() as u64).to_be_bytes());
            digest.update(connection.bodies.to_be_bytes());
            digest.update((connection.queued.len() as u64).to_be_bytes());
            digest.update((connection.news.len() as u64).to_be_bytes());
            for outgoing in connection.outgoing() {
                digest.update(outgoing.correlation.as_bytes());
                digest.update(outgoing.entity.as_bytes());
            }
        }
        for id in self.blobs.ids() {
            digest.update(id);
        }
        for (number, service) in self.services.all() {
            digest.update(number.0.get().to_be_bytes());
            digest.update(service.record.id);
            digest.update([u8::from(service.subscriber.is_some())]);
            digest.update((service.news.len() as u64).to_be_bytes());
        }
        digest.update((self.actions.count() as u64).to_be_bytes());
        digest.update((self.actions.waiting() as u64).to_be_bytes());
        digest.update(self.next_deadline().map_or(u64::MAX, |at| at.as_micros()).to_be_bytes());
        digest.finalize().into()
    }

    /// Checks the invariants. Looks at everything; for simulations and tests only.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn check(&self) -> Result<(), Inconsistency> {
        let mut expected: BTreeMap<ConnectionId, Expected> = BTreeMap::new();
        let (mut queues, mut notifiers, mut links, mut actions) = (0, 0, 0, 0u64);
        for (slot, queue) in self.queues.all() {
            queues += 1;
            notifiers += usize::from(queue.record.notifier.is_some());
            links += usize::from(queue.record.link.is_some());
            actions += u64::from(queue.actions);
            self.check_queue(slot, queue)?;
            if let Some(activity) = &queue.activity {
                self.check_activity(queue.reference(slot), queue, activity)?;
                if let Some(Subscription { connection, delivery: Delivering::Acknowledging(one), .. }) =
                    &activity.subscription
                    && matches!(one.next, Next::Ready { .. })
                {
                    expected.entry(*connection).or_default().bodies += 1;
                }
            }
        }
        ensure(queues == self.queues.len() && queues == self.queues.sender_count(), "ids without a queue")?;
        ensure(notifiers == self.queues.notifier_count(), "notifier ids without a queue")?;
        ensure(links == self.queues.link_count(), "link ids without a queue")?;
        let mut counted = 0;
        for action in self.actions.under_way() {
            let queue = self.queues.get(action.queue.slot);
            counted += u64::from(queue.is_some_and(|queue| queue.number == action.queue.number));
            if let Some(id) = action.purpose.owed_to() {
                expected.entry(id).or_default().owed += 1;
            }
            let reader = match &action.purpose {
                Purpose::Deliver(id, _) | Purpose::DeliverAsAnswer(id, _) => Some(*id),
                Purpose::Take(to, _) | Purpose::ReadLink(to) | Purpose::ReadBlob(to) => Some(to.connection),
                _ => None,
            };
            if let Some(id) = reader {
                expected.entry(id).or_default().bodies += 1;
            }
        }
        ensure(counted == actions, "actions under way are not counted")?;
        ensure(self.actions.under_way().count() == self.actions.count(), "actions are counted wrongly")?;
        for (id, connection) in self.connections.all() {
            self.check_connection(id, connection, &expected.remove(&id).unwrap_or_default())?;
        }
        Ok(())
    }

    fn check_queue(&self, slot: u32, queue: &Queue) -> Result<(), Inconsistency> {
        let QueueRecord { recipient, sender, notifier, link, .. } = &queue.record;
        ensure(
            self.queues.by_recipient(recipient) == Some(slot),
            "a queue is not found by its recipient id",
        )?;
        ensure(self.queues.by_sender(sender) == Some(slot), "a queue is not found by its sender id")?;
        if let Some(notifier) = notifier {
            let found = self.queues.by_notifier(&notifier.notifier);
            ensure(found == Some(slot), "a queue is not found by its notifier id")?;
        }
        if let Some(link) = link {
            let found = self.queues.by_link(&link.link);
            ensure(found == Some(slot), "a queue is not found by its link id")?;
        }
        match queue.health {
            Health::Sound => {
                ensure(queue.head().is_none() || queue.in_calendar, "messages that never expire")
            }
            Health::Doubtful { .. } | Health::Deleting | Health::Creating => {
                ensure(queue.actions > 0, "a queue waits for an answer that will not come")
            }
            Health::Postponed { .. } => {
                let at = queue.reference(slot);
                let planned = self.restore_at.iter().any(|(_, planned)| *planned == at);
                ensure(planned, "a queue waits to be read, and nobody will")
            }
        }
    }

    fn check_activity(&self, at: QueueRef, queue: &Queue, activity: &Activity) -> Result<(), Inconsistency> {
        let in_order = activity.messages.iter().map(|waiting| waiting.sequence).is_sorted_by(|a, b| a < b);
        ensure(in_order, "messages are not in order")?;
        let before_next = activity.messages.newest().is_none_or(|last| last.sequence.0 < queue.next_sequence);
        ensure(before_next, "a message's place would be used again")?;
        // One more than the quota: the marker.
        let quota = usize::from(self.config.message_quota) + 1;
        ensure(queue.occupied() <= quota, "a queue holds more than its quota")?;
        ensure(activity.news.is_empty() || queue.in_news_calendar, "news that never expires")?;
        let service = queue.record.notifier.as_ref().and_then(|notifier| notifier.service);
        if let Some(service) = service
            && activity.notifier.is_none()
            && !activity.news.is_empty()
        {
            let known = self.services.get(service).is_some_and(|service| service.news.contains(&at));
            ensure(known, "a service does not know of news")?;
        }
        if let Some(subscription) = &activity.subscription {
            let connection = self.connections.get(subscription.connection);
            let knows = connection.is_some_and(|connection| connection.subscribed.contains(&at.slot));
            ensure(knows, "a subscriber does not know of its subscription")?;
            let stuck =
                subscription.waits_for_message() && queue.health == Health::Sound && queue.head().is_some();
            ensure(!stuck, "a message waits, and the subscriber waits for it")?;
            if matches!(subscription.delivery, Delivering::Queued) {
                let queued = connection.is_some_and(|connection| {
                    connection
                        .queued
                        .iter()
                        .any(|queued| matches!(queued, Queued::Subscription(queued) if *queued == at))
                });
                ensure(queued, "a subscriber waits for room, and nobody knows")?;
            }
        }
        for getter in &activity.getters {
            let connection = self.connections.get(getter.connection);
            let knows = connection.is_some_and(|connection| connection.getting.contains(&at.slot));
            ensure(knows, "a connection does not know what it takes from")?;
            ensure(!activity.is_subscribed(getter.connection), "a connection both takes and is subscribed")?;
        }
        if let Some(notifier) = activity.notifier {
            let connection = self.connections.get(notifier.connection);
            let knows = connection.is_some_and(|connection| connection.notified.contains(&at.slot));
            ensure(knows, "a notifier does not know of its subscription")?;
            let id = queue.record.notifier.as_ref().map(|record| record.notifier);
            let same = id == Some(notifier.notifier) || queue.health.is_doubtful();
            ensure(same, "a notifier is subscribed under an id that the queue does not have")?;
            let planned = connection.is_some_and(|connection| {
                connection.news.contains(&at) && (connection.news_at.is_some() || connection.news_paused)
            });
            ensure(activity.news.is_empty() || planned, "news that is never sent")?;
        }
        Ok(())
    }

    fn check_connection(
        &self,
        id: ConnectionId,
        connection: &Connection,
        expected: &Expected,
    ) -> Result<(), Inconsistency> {
        let activity = |slot: &u32| self.queues.get(*slot).and_then(|queue| queue.activity.as_deref());
        for slot in &connection.subscribed {
            let subscribed = activity(slot).is_some_and(|activity| activity.is_subscribed(id));
            ensure(subscribed, "a connection believes in a subscription that is not there")?;
        }
        for slot in &connection.notified {
            let notified = activity(slot).is_some_and(|activity| activity.is_notified(id));
            ensure(notified, "a connection believes in notifications that are not there")?;
        }
        for slot in &connection.getting {
            let getting = activity(slot)
                .is_some_and(|activity| activity.getters.iter().any(|getter| getter.connection == id));
            ensure(getting, "a connection believes to take from a queue that does not know it")?;
        }
        let takes =
            connection.queued.iter().filter(|queued| !matches!(queued, Queued::Subscription(_))).count();
        let owed = u64::from(expected.owed) + takes as u64 + connection.proxied.unanswered() as u64;
        ensure(u64::from(connection.owed) == owed, "what a connection is owed is counted wrongly")?;
        let bodies = u64::from(expected.bodies) + connection.bodies_to_be_said() as u64;
        ensure(u64::from(connection.bodies) == bodies, "message bodies are counted wrongly")?;
        let limit = u64::from(self.config.limits.deliveries_in_flight);
        ensure(bodies <= limit, "more message bodies are under way than allowed")?;
        let waits = !connection.queued.is_empty() && bodies < limit;
        ensure(!waits, "a queue waits for room that is there")
    }
}

fn digest_id(id: ConnectionId, digest: &mut Sha256) {
    digest.update((id.slot() as u64).to_be_bytes());
}

fn digest_activity(activity: &Activity, digest: &mut Sha256) {
    for waiting in activity.messages.iter() {
        digest.update(waiting.sequence.0.to_be_bytes());
        digest.update(waiting.mark.timestamp.0.to_be_bytes());
        digest.update([u8::from(waiting.stored)]);
    }
    if let Some(subscription) = &activity.subscription {
        digest_id(subscription.connection, digest);
        if let Some((sequence, id)) = &subscription.unacknowledged {
            digest.update(sequence.0.to_be_bytes());
            digest.update(id);
        }
        match &subscription.delivery {
            Delivering::Idle => digest.update([0]),
            Delivering::Queued => digest.update([1]),
            Delivering::Reading { action } => digest.update(action.0.to_be_bytes()),
            Delivering::Acknowledging(acknowledgement) => {
                let Acknowledgement { correlation, deletion, .. } = &**acknowledgement;
                digest.update(correlation.as_bytes());
                digest.update(deletion.map_or(0, |action| action.0).to_be_bytes());
            }
        }
    }
    for getter in &activity.getters {
        digest_id(getter.connection, digest);
        digest.update(getter.delivered.map_or([0; 24], |(_, id)| id));
    }
    if let Some(notifier) = &activity.notifier {
        digest_id(notifier.connection, digest);
    }
    for news in &activity.news {
        digest.update(news.message);
        digest.update(news.nonce);
    }
}
