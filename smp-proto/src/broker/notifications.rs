//! News of messages for notifiers: kept in memory, gathered, and sent in batches (WIRE-FACTS 7, 9, 12).
//!
//! News is kept once its message is stored, whether a notifier is subscribed or not, until it is sent or has expired. At
//! most [`BATCH`] notifications wait on a connection: when it has taken them, it gets the next.

use alloc::boxed::Box;

use super::Broker;
use super::connections::ConnectionId;
use super::queues::{News, NotifierSubscription, QueueRef};
use crate::session::outgoing::{NotificationDelivery, OutgoingContent};
use crate::time::Now;

/// How many notifications go out at once: so many fit in one block.
const BATCH: usize = 80;

/// How many connections get their news in one call; the rest is due at once.
const CONNECTIONS_A_CALL: usize = 256;

impl Broker {
    /// Keeps the news of a message that has just been stored.
    pub(super) fn keep_news(&mut self, at: QueueRef, news: News, now: Now) {
        let limit = usize::from(self.config.limits.waiting_notifications);
        let Some(queue) = self.queues.at(at).filter(|queue| queue.record.notifier.is_some()) else { return };
        let kept = &mut queue.activity_mut().news;
        // Storage may answer in another order than that of the messages.
        let place = kept.partition_point(|other| other.sequence < news.sequence);
        kept.insert(place, news);
        while kept.len() > limit.max(1) {
            kept.pop_front();
        }
        self.enter_news_calendar(at);
        self.schedule_news(at, now);
    }

    /// Plans to tell the notifier of a queue, if there is both a notifier and news.
    pub(super) fn schedule_news(&mut self, at: QueueRef, now: Now) {
        let due = now.instant + self.config.notification_delay;
        let Some(activity) = self.queues.at(at).and_then(|queue| queue.activity.as_mut()) else { return };
        if activity.news.is_empty() {
            return;
        }
        let Some(NotifierSubscription { connection: id, .. }) = activity.notifier else {
            self.hand_to_service(at, now);
            return;
        };
        let listed = core::mem::replace(&mut activity.news_listed, true);
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !listed {
            connection.news.push_back(at);
        }
        if connection.news_at.is_none() && !connection.news_paused {
            connection.news_at = Some(due);
            self.news_at.insert((due, id));
        }
    }

    /// Sends what has been gathered for connections whose time has come.
    pub(super) fn send_due_news(&mut self, now: Now) {
        for _ in 0..CONNECTIONS_A_CALL {
            let Some((due, id)) = self.news_at.first().copied().filter(|(due, _)| *due <= now.instant) else {
                return;
            };
            self.news_at.remove(&(due, id));
            if let Some(connection) = self.connections.get_mut(id) {
                connection.news_at = None;
            }
            self.send_news(id);
        }
    }

    /// A connection has taken what it had: it gets the news that waited for that.
    pub(super) fn send_paused_news(&mut self, id: ConnectionId) {
        if self.connections.get(id).is_some_and(|connection| connection.news_paused) {
            self.send_news(id);
        }
    }

    fn send_news(&mut self, id: ConnectionId) {
        loop {
            let more = self.service_has_news(id);
            let Some(connection) = self.connections.get_mut(id) else { return };
            connection.news_paused =
                (more || !connection.news.is_empty()) && connection.waiting_to_be_said() >= BATCH;
            if connection.news_paused {
                return;
            }
            let Some(at) = connection.news.front().copied() else {
                connection.news = alloc::collections::VecDeque::new();
                if self.next_of_service(id).is_some() {
                    continue;
                }
                return;
            };
            let news = self.queues.at(at).and_then(|queue| {
                let secret = &queue.record.notifier.as_ref()?.secret;
                let activity = queue.activity.as_mut().filter(|activity| activity.is_notified(id))?;
                let notifier = activity.notifier?.notifier;
                Some((notifier, secret.clone(), activity.news.pop_front()?))
            });
            match news {
                None => {
                    if let Some(connection) = self.connections.get_mut(id) {
                        connection.news.pop_front();
                    }
                    if let Some(queue) = self.queues.at(at) {
                        if let Some(activity) = queue.activity.as_mut().filter(|a| a.is_notified(id)) {
                            activity.news_listed = false;
                            activity.news = alloc::collections::VecDeque::new();
                        }
                        queue.rest();
                    }
                }
                Some((notifier, secret, News { message, nonce, timestamp, .. })) => {
                    let delivery = NotificationDelivery { secret, nonce, message, timestamp };
                    self.connections.tell(
                        id,
                        notifier.into(),
                        OutgoingContent::Notification(Box::new(delivery)),
                    );
                }
            }
        }
    }

    /// Nobody is notified any more: takes the subscription away without a word, and drops the news.
    pub(super) fn detach_notifier(&mut self, at: QueueRef) -> Option<NotifierSubscription> {
        let activity = self.queues.at(at)?.activity.as_mut()?;
        activity.news = alloc::collections::VecDeque::new();
        activity.news_listed = false;
        let previous = activity.notifier.take()?;
        if let Some(connection) = self.connections.get_mut(previous.connection) {
            connection.notified.remove(&at.slot);
        }
        Some(previous)
    }

    /// The change failed for which a notifier was detached: it is notified again, unless it is gone.
    pub(super) fn reattach_notifier(&mut self, at: QueueRef, previous: NotifierSubscription) {
        let Some(connection) = self.connections.get_mut(previous.connection) else { return };
        let Some(queue) = self.queues.at(at) else { return };
        let activity = queue.activity_mut();
        if activity.notifier.is_none() {
            activity.notifier = Some(previous);
            activity.news_listed = false;
            connection.notified.insert(at.slot);
        }
    }

    /// Tells a notifier that its subscription is no more.
    pub(super) fn tell_notifier_deleted(&mut self, previous: NotifierSubscription) {
        self.connections.tell(previous.connection, previous.notifier.into(), OutgoingContent::Deleted);
    }
}
