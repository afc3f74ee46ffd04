//! `NKEY`, `NDEL` and `NSUB`: who is told of a queue's messages. A queue to which a service subscribes is the service's
//! from then on, until somebody else subscribes.

use alloc::boxed::Box;

use super::super::Broker;
use super::super::connections::Address;
use super::super::queues::{NotifierSubscription, QueueRef};
use super::super::record::NotifierRecord;
use super::Refused;
use crate::entropy::Entropy;
use crate::keys::AuthKey;
use crate::session::outgoing::OutgoingContent;
use crate::session::request::RelayKeyPair;
use crate::time::Now;
use crate::wire::command::NotifierKeys;
use crate::wire::error::SmpError;

impl Broker {
    pub(super) fn enable_notifications(
        &mut self,
        to: &Address,
        at: QueueRef,
        keys: &NotifierKeys,
        pair: Option<RelayKeyPair>,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), Refused> {
        self.check_blocked(at)?;
        let (notifier, ids) = self.new_notifier(keys, pair, entropy)?;
        self.replace_notifier(to, at, Some(notifier), OutgoingContent::NotifierId(Box::new(ids)), now);
        Ok(())
    }

    pub(super) fn disable_notifications(
        &mut self,
        to: &Address,
        at: QueueRef,
        now: Now,
    ) -> Result<(), Refused> {
        self.check_blocked(at)?;
        self.replace_notifier(to, at, None, OutgoingContent::Ok, now);
        Ok(())
    }

    /// Gives the queue another notifier, or none. Who was notified so far gets `DELD` when it is durable.
    fn replace_notifier(
        &mut self,
        to: &Address,
        at: QueueRef,
        notifier: Option<NotifierRecord>,
        answer: OutgoingContent,
        now: Now,
    ) {
        let previous = self.detach_notifier(at);
        if let Some(queue) = self.queues.at(at) {
            queue.rest();
        }
        self.change_record(to, at, Some(answer), previous, now, |record| {
            record.notifier = notifier.map(Box::new)
        });
    }

    pub(super) fn subscribe_notifications(
        &mut self,
        to: &Address,
        key: Option<AuthKey>,
        now: Now,
    ) -> Result<(), Refused> {
        let notifier = *to.entity.as_full().ok_or(SmpError::Authorization)?;
        let at = self.usable(self.queues.by_notifier(&notifier), |queue| {
            key.is_some() && queue.record.notifier.as_ref().map(|notifier| notifier.key) == key
        })?;
        let connection = to.connection;
        let previous = self
            .queues
            .at(at)
            .and_then(|queue| queue.activity.as_ref())
            .and_then(|activity| activity.notifier);
        if previous.is_none_or(|previous| previous.connection != connection) {
            self.check_attachments(connection)?;
            if let Some(previous) = previous {
                if let Some(before) = self.connections.get_mut(previous.connection) {
                    before.notified.remove(&at.slot);
                }
                self.connections.tell(previous.connection, to.entity.clone(), OutgoingContent::End);
            }
            if let Some(now) = self.connections.get_mut(connection) {
                now.notified.insert(at.slot);
            }
            if let Some(queue) = self.queues.at(at) {
                let activity = queue.activity_mut();
                activity.notifier = Some(NotifierSubscription { connection, notifier });
                activity.news_listed = false;
            }
        }
        let service = self.notifier_service_of(connection);
        let number = service.map(|(number, _)| number);
        let answer = match service {
            Some((_, id)) => OutgoingContent::SubscribedService(id),
            None => OutgoingContent::Subscribed,
        };
        let present = self.queues.at(at).and_then(|queue| queue.record.notifier.as_ref()?.service);
        if present == number {
            self.connections.say(to.clone(), answer);
        } else {
            self.change_record(to, at, Some(answer), None, now, |record| {
                if let Some(notifier) = &mut record.notifier {
                    notifier.service = number;
                }
            });
        }
        self.schedule_news(at, now);
        Ok(())
    }
}
