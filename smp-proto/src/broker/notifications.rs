//! News of messages for notifiers: kept in memory, gathered, and sent in batches (WIRE-FACTS 7, 9, 12).

use alloc::boxed::Box;

use super::Broker;
use super::connections::ConnectionId;
use super::identifiers::Id;
use super::queues::{News, QueueRef};
use crate::crypto::ids;
use crate::entropy::Entropy;
use crate::session::outgoing::{NotificationDelivery, OutgoingContent};
use crate::time::Now;
use crate::wire::EntityId;

/// How many notifications go out at once: so many fit in one block.
const BATCH: usize = 80;

impl Broker {
    /// Keeps the news of a message that has just been accepted. It is sent once the message is stored.
    pub(super) fn note_news(
        &mut self,
        at: QueueRef,
        message: Id,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        let limit = usize::from(self.config.limits.waiting_notifications);
        let oldest = now.wall.saturating_sub(self.config.notification_time_to_live);
        let Some(queue) = self.queues.at(at) else { return };
        let news = &mut queue.activity_mut().notifications;
        while news.len() >= limit || news.front().is_some_and(|news| news.timestamp < oldest) {
            if news.pop_front().is_none() {
                return;
            }
        }
        news.push_back(News { message, nonce: ids::random(entropy), timestamp: now.wall });
    }

    /// Plans to tell the notifier of a queue, if there is both a notifier and news.
    pub(super) fn schedule_news(&mut self, at: QueueRef, now: Now) {
        let due = now.instant + self.config.notification_delay;
        let Some(activity) = self.queues.at(at).and_then(|queue| queue.activity.as_mut()) else { return };
        let Some(id) = activity.notifier.filter(|_| !activity.notifications.is_empty()) else { return };
        let listed = core::mem::replace(&mut activity.news_listed, true);
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !listed {
            connection.news.push_back(at);
        }
        if connection.news_at.is_none() {
            connection.news_at = Some(due);
            self.news_at.insert((due, id));
        }
    }

    /// Sends what has been gathered for connections whose time has come.
    pub(super) fn send_due_news(&mut self, now: Now) {
        while let Some((due, id)) = self.news_at.first().copied()
            && due <= now.instant
        {
            self.news_at.remove(&(due, id));
            self.send_news(id, now);
        }
    }

    fn send_news(&mut self, id: ConnectionId, now: Now) {
        let oldest = now.wall.saturating_sub(self.config.notification_time_to_live);
        let mut room = BATCH;
        while room > 0 {
            let Some(connection) = self.connections.get_mut(id) else { return };
            let Some(at) = connection.news.front().copied() else { break };
            let news = self.queues.at(at).and_then(|queue| {
                let notifier = queue.record.notifier.as_ref()?;
                let activity = queue.activity.as_mut().filter(|activity| activity.notifier == Some(id))?;
                let news = activity.notifications.pop_front()?;
                Some((EntityId::from(notifier.notifier), notifier.secret.clone(), news))
            });
            match news {
                None => {
                    if let Some(connection) = self.connections.get_mut(id) {
                        connection.news.pop_front();
                    }
                    if let Some(queue) = self.queues.at(at) {
                        if let Some(activity) = queue.activity.as_mut().filter(|a| a.notifier == Some(id)) {
                            activity.news_listed = false;
                        }
                        queue.rest();
                    }
                }
                Some((_, _, news)) if news.timestamp < oldest => {}
                Some((entity, secret, News { message, nonce, timestamp })) => {
                    room -= 1;
                    let delivery = NotificationDelivery { secret, nonce, message, timestamp };
                    self.connections.tell(id, entity, OutgoingContent::Notification(Box::new(delivery)));
                }
            }
        }
        let due = now.instant + self.config.notification_delay;
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.news_at = None;
        if !connection.news.is_empty() {
            connection.news_at = Some(due);
            self.news_at.insert((due, id));
        }
    }

    /// The queue has no notifier any more, or another one: who was notified is told.
    pub(super) fn end_notifications(&mut self, at: QueueRef) {
        let Some(queue) = self.queues.at(at) else { return };
        let Some(entity) = queue.record.notifier.as_ref().map(|notifier| EntityId::from(notifier.notifier))
        else {
            return;
        };
        let Some(activity) = &mut queue.activity else { return };
        activity.notifications.clear();
        activity.news_listed = false;
        let Some(id) = activity.notifier.take() else { return };
        if let Some(connection) = self.connections.get_mut(id) {
            connection.notified.remove(&at.slot);
        }
        self.connections.tell(id, entity, OutgoingContent::Deleted);
    }
}
