//! All queues of a relay: their records, what waits in them, and who is attached to them.
//!
//! A queue at rest is its record and a slot, some 330 bytes with its places in the id tables; what a queue has only
//! while something happens in it (waiting messages, subscribers) hangs on it in a box. Slots live in chunks that never
//! move, so that a growing relay copies nothing.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use super::connections::ConnectionId;
use super::identifiers::{HashKey, Id, IdTable};
use super::record::{QueueRecord, ServiceNumber};
use super::storage::{ActionId, MessageMark, QueueNumber, Sequence, StoredMessage};
use super::waiting::{Waiting, WaitingMessages};
use crate::time::UnixTime;
use crate::wire::CorrelationId;

/// How many slots a chunk has.
const CHUNK: usize = 256;

/// A queue's slot, together with the number that tells whether it still is the same queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct QueueRef {
    pub(super) slot: u32,
    pub(super) number: QueueNumber,
}

/// One queue.
pub(super) struct Queue {
    pub(super) number: QueueNumber,
    pub(super) record: QueueRecord,
    pub(super) health: Health,
    /// Whether the calendar of messages has an entry for this queue.
    pub(super) in_calendar: bool,
    /// Whether the calendar of news has one.
    pub(super) in_news_calendar: bool,
    /// How many messages are being deleted: until that is durable they count against the quota, because they come back
    /// when it fails.
    pub(super) deleting: u16,
    /// Storage actions that are under way for this queue.
    pub(super) actions: u32,
    /// The place of the next message. Never goes back while the relay runs, so that whoever still holds the place of a
    /// message that is gone cannot mean another one.
    pub(super) next_sequence: u64,
    /// What only a queue has in which something happens.
    pub(super) activity: Option<Box<Activity>>,
}

/// Whether what the broker knows of a queue is what storage holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// It is.
    Sound,
    /// Something failed: nothing is accepted until the queue has been read again, as soon as nothing is under way.
    Doubtful {
        /// How often reading it has failed.
        attempts: u8,
    },
    /// The same, but it will be read at some later time.
    Postponed {
        /// How often reading it has failed.
        attempts: u8,
    },
    /// It is being deleted: nobody finds it any more.
    Deleting,
    /// It is not durable yet: nobody finds it before it is, though its client may have chosen ids.
    Creating,
}

impl Health {
    /// Whether commands find the queue.
    pub(super) const fn is_present(self) -> bool {
        !matches!(self, Self::Deleting | Self::Creating)
    }

    pub(super) const fn is_doubtful(self) -> bool {
        matches!(self, Self::Doubtful { .. } | Self::Postponed { .. })
    }
}

/// What happens in a queue.
#[derive(Default)]
pub(super) struct Activity {
    /// Waiting messages, oldest first.
    pub(super) messages: WaitingMessages,
    /// Who is subscribed.
    pub(super) subscription: Option<Subscription>,
    /// Who takes messages with `GET`.
    pub(super) getters: Vec<Getter>,
    /// Who is subscribed to notifications.
    pub(super) notifier: Option<NotifierSubscription>,
    /// News that the notifier has not got yet, in the order of the messages.
    pub(super) news: VecDeque<News>,
    /// Whether the queue is in its notifier's list of queues with news.
    pub(super) news_listed: bool,
}

/// News of a message for a notifier.
#[derive(Clone, Copy)]
pub(super) struct News {
    pub(super) sequence: Sequence,
    pub(super) message: Id,
    pub(super) nonce: Id,
    pub(super) timestamp: UnixTime,
}

/// A notifier's subscription.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct NotifierSubscription {
    pub(super) connection: ConnectionId,
    /// Under what id.
    pub(super) notifier: Id,
}

/// A recipient's subscription.
pub(super) struct Subscription {
    pub(super) connection: ConnectionId,
    /// What was delivered and is not acknowledged: at most one message.
    pub(super) unacknowledged: Option<(Sequence, Id)>,
    pub(super) delivery: Delivering,
}

/// What is under way to a subscriber.
pub(super) enum Delivering {
    /// Nothing.
    Idle,
    /// A message waits until the connection can take another body.
    Queued,
    /// The message is being read.
    Reading { action: ActionId },
    /// An acknowledgement is being stored; the next message, if there is one, is read meanwhile and goes into the answer.
    Acknowledging(Box<Acknowledgement>),
}

/// An acknowledgement that has not been answered.
#[derive(Default)]
pub(super) struct Acknowledgement {
    pub(super) correlation: CorrelationId,
    /// The deletion, until it is durable.
    pub(super) deletion: Option<ActionId>,
    pub(super) next: Next,
}

/// The message that will answer an acknowledgement.
#[derive(Default)]
pub(super) enum Next {
    #[default]
    None,
    Reading {
        action: ActionId,
    },
    Ready {
        sequence: Sequence,
        mark: MessageMark,
        message: StoredMessage,
    },
}

/// A recipient that takes messages one by one.
pub(super) struct Getter {
    pub(super) connection: ConnectionId,
    /// What it was given and has not acknowledged.
    pub(super) delivered: Option<(Sequence, Id)>,
}

impl Queue {
    /// A queue in which nothing happens yet.
    pub(super) const fn new(number: QueueNumber, record: QueueRecord, next_sequence: u64) -> Self {
        Self {
            number,
            record,
            health: Health::Sound,
            in_calendar: false,
            in_news_calendar: false,
            deleting: 0,
            actions: 0,
            next_sequence,
            activity: None,
        }
    }

    pub(super) fn reference(&self, slot: u32) -> QueueRef {
        QueueRef { slot, number: self.number }
    }

    pub(super) fn activity_mut(&mut self) -> &mut Activity {
        self.activity.get_or_insert_default()
    }

    /// Gives up what is not needed any more.
    pub(super) fn rest(&mut self) {
        if self.activity.as_ref().is_some_and(|activity| activity.is_idle()) {
            self.activity = None;
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.activity.as_ref().map_or(0, |activity| activity.messages.len())
    }

    /// How many messages the queue has to answer for.
    pub(super) fn occupied(&self) -> usize {
        self.waiting() + usize::from(self.deleting)
    }

    /// The oldest message, when it may be read.
    pub(super) fn head(&self) -> Option<Waiting> {
        self.activity.as_ref()?.messages.oldest().filter(|head| head.stored)
    }

    /// The mark of a message that waits.
    pub(super) fn mark_of(&self, sequence: Sequence) -> Option<MessageMark> {
        self.activity.as_ref()?.messages.find(sequence).map(|waiting| waiting.mark)
    }

    pub(super) fn subscription_mut(&mut self) -> Option<&mut Subscription> {
        self.activity.as_mut()?.subscription.as_mut()
    }

    /// The subscription, if it is this connection's.
    pub(super) fn subscription_of(&mut self, connection: ConnectionId) -> Option<&mut Subscription> {
        self.subscription_mut().filter(|subscription| subscription.connection == connection)
    }
}

impl Subscription {
    pub(super) const fn new(connection: ConnectionId) -> Self {
        Self { connection, unacknowledged: None, delivery: Delivering::Idle }
    }

    /// Whether the next message may be delivered.
    pub(super) const fn waits_for_message(&self) -> bool {
        matches!(self.delivery, Delivering::Idle) && self.unacknowledged.is_none()
    }
}

impl Activity {
    fn is_idle(&self) -> bool {
        self.messages.is_empty()
            && self.subscription.is_none()
            && self.getters.is_empty()
            && self.notifier.is_none()
            && self.news.is_empty()
    }

    pub(super) fn getter(&mut self, connection: ConnectionId) -> Option<&mut Getter> {
        self.getters.iter_mut().find(|getter| getter.connection == connection)
    }

    pub(super) fn is_subscribed(&self, connection: ConnectionId) -> bool {
        self.subscription.as_ref().is_some_and(|subscription| subscription.connection == connection)
    }

    pub(super) fn is_notified(&self, connection: ConnectionId) -> bool {
        self.notifier.as_ref().is_some_and(|notifier| notifier.connection == connection)
    }
}

/// All queues.
pub(super) struct Queues {
    chunks: Vec<Box<[Option<Queue>]>>,
    free: Vec<u32>,
    used: u32,
    key: HashKey,
    recipients: IdTable,
    senders: IdTable,
    notifiers: IdTable,
    links: IdTable,
    /// How many queues' notifications each service has.
    notified: BTreeMap<ServiceNumber, u64>,
}

impl Queues {
    pub(super) fn new(key: HashKey) -> Self {
        Self {
            chunks: Vec::new(),
            free: Vec::new(),
            used: 0,
            key,
            recipients: IdTable::default(),
            senders: IdTable::default(),
            notifiers: IdTable::default(),
            links: IdTable::default(),
            notified: BTreeMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.recipients.len()
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Queue> {
        slot_in(&self.chunks, slot)
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Queue> {
        let slot = slot as usize;
        self.chunks.get_mut(slot / CHUNK)?.get_mut(slot % CHUNK)?.as_mut()
    }

    /// The queue, if it still is the same.
    pub(super) fn at(&mut self, at: QueueRef) -> Option<&mut Queue> {
        self.get_mut(at.slot).filter(|queue| queue.number == at.number)
    }

    pub(super) fn by_recipient(&self, id: &Id) -> Option<u32> {
        self.recipients
            .find(&self.key, id, |slot| slot_in(&self.chunks, slot).map(|queue| &queue.record.recipient))
    }

    pub(super) fn by_sender(&self, id: &Id) -> Option<u32> {
        self.senders.find(&self.key, id, |slot| slot_in(&self.chunks, slot).map(|queue| &queue.record.sender))
    }

    pub(super) fn by_notifier(&self, id: &Id) -> Option<u32> {
        self.notifiers.find(&self.key, id, |slot| notifier_in(&self.chunks, slot))
    }

    pub(super) fn by_link(&self, id: &Id) -> Option<u32> {
        self.links.find(&self.key, id, |slot| link_in(&self.chunks, slot))
    }

    /// The queue that has this id, in whatever role.
    pub(super) fn holder(&self, id: &Id) -> Option<u32> {
        self.by_recipient(id)
            .or_else(|| self.by_sender(id))
            .or_else(|| self.by_notifier(id))
            .or_else(|| self.by_link(id))
    }

    /// Whether any queue has this id, in whatever role.
    pub(super) fn knows(&self, id: &Id) -> bool {
        self.holder(id).is_some()
    }

    /// Adds a queue whose ids no other queue has.
    pub(super) fn insert(&mut self, queue: Queue) -> QueueRef {
        let slot = self.free.pop().unwrap_or_else(|| {
            let slot = self.used;
            self.used += 1;
            if slot as usize / CHUNK >= self.chunks.len() {
                self.chunks.push((0..CHUNK).map(|_| None).collect());
            }
            slot
        });
        let number = queue.number;
        let (recipient, sender) = (queue.record.recipient, queue.record.sender);
        let notifier = queue.record.notifier.as_ref().map(|notifier| notifier.notifier);
        let link = queue.record.link.as_ref().map(|link| link.link);
        self.count_service(None, service_in(&queue.record));
        if let Some(place) =
            self.chunks.get_mut(slot as usize / CHUNK).and_then(|c| c.get_mut(slot as usize % CHUNK))
        {
            *place = Some(queue);
        }
        let chunks = &self.chunks;
        self.recipients
            .insert(&self.key, &recipient, slot, |slot| slot_in(chunks, slot).map(|q| &q.record.recipient));
        self.senders.insert(&self.key, &sender, slot, |slot| slot_in(chunks, slot).map(|q| &q.record.sender));
        if let Some(notifier) = notifier {
            self.notifiers.insert(&self.key, &notifier, slot, |slot| notifier_in(chunks, slot));
        }
        if let Some(link) = link {
            self.links.insert(&self.key, &link, slot, |slot| link_in(chunks, slot));
        }
        QueueRef { slot, number }
    }

    /// Takes a queue out.
    pub(super) fn remove(&mut self, slot: u32) -> Option<Queue> {
        let queue = self.chunks.get_mut(slot as usize / CHUNK)?.get_mut(slot as usize % CHUNK)?.take()?;
        self.recipients.remove(&self.key, &queue.record.recipient, slot);
        self.senders.remove(&self.key, &queue.record.sender, slot);
        if let Some(notifier) = &queue.record.notifier {
            self.notifiers.remove(&self.key, &notifier.notifier, slot);
        }
        if let Some(link) = &queue.record.link {
            self.links.remove(&self.key, &link.link, slot);
        }
        self.count_service(service_in(&queue.record), None);
        self.free.push(slot);
        Some(queue)
    }

    /// Replaces a queue's record; recipient and sender id stay what they are.
    pub(super) fn replace_record(&mut self, slot: u32, record: QueueRecord) {
        let key = self.key;
        let Some(queue) = self.get_mut(slot) else { return };
        let notifier_of = |record: &QueueRecord| record.notifier.as_ref().map(|notifier| notifier.notifier);
        let link_of = |record: &QueueRecord| record.link.as_ref().map(|link| link.link);
        let (before, after) = (notifier_of(&queue.record), notifier_of(&record));
        let (link_before, link_after) = (link_of(&queue.record), link_of(&record));
        let services = (service_in(&queue.record), service_in(&record));
        queue.record = record;
        self.count_service(services.0, services.1);
        if link_before != link_after {
            if let Some(before) = link_before {
                self.links.remove(&key, &before, slot);
            }
            if let Some(after) = link_after {
                let chunks = &self.chunks;
                self.links.insert(&key, &after, slot, |slot| link_in(chunks, slot));
            }
        }
        if before != after {
            if let Some(before) = before {
                self.notifiers.remove(&key, &before, slot);
            }
            if let Some(after) = after {
                let chunks = &self.chunks;
                self.notifiers.insert(&key, &after, slot, |slot| notifier_in(chunks, slot));
            }
        }
    }

    /// All queues in the order of their slots: for digests and checks, never while serving.
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, &Queue)> {
        (0..self.used).filter_map(|slot| Some((slot, self.get(slot)?)))
    }

    pub(super) fn notifier_count(&self) -> usize {
        self.notifiers.len()
    }

    fn count_service(&mut self, before: Option<ServiceNumber>, after: Option<ServiceNumber>) {
        if before == after {
            return;
        }
        if let Some(count) = before.and_then(|before| self.notified.get_mut(&before)) {
            *count = count.saturating_sub(1);
        }
        if let Some(after) = after {
            *self.notified.entry(after).or_default() += 1;
        }
    }

    /// How many queues' notifications a service has.
    pub(super) fn notified_by(&self, service: ServiceNumber) -> u64 {
        self.notified.get(&service).copied().unwrap_or(0)
    }

    pub(super) fn link_count(&self) -> usize {
        self.links.len()
    }

    pub(super) fn sender_count(&self) -> usize {
        self.senders.len()
    }
}

fn slot_in(chunks: &[Box<[Option<Queue>]>], slot: u32) -> Option<&Queue> {
    let slot = slot as usize;
    chunks.get(slot / CHUNK)?.get(slot % CHUNK)?.as_ref()
}

fn service_in(record: &QueueRecord) -> Option<ServiceNumber> {
    record.notifier.as_ref()?.service
}

fn link_in(chunks: &[Box<[Option<Queue>]>], slot: u32) -> Option<&Id> {
    slot_in(chunks, slot)?.record.link.as_ref().map(|link| &link.link)
}

fn notifier_in(chunks: &[Box<[Option<Queue>]>], slot: u32) -> Option<&Id> {
    slot_in(chunks, slot)?.record.notifier.as_ref().map(|notifier| &notifier.notifier)
}
