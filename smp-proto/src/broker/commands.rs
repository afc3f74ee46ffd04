//! Executing commands: what each may do, what it changes, and what it answers (WIRE-FACTS 7).

use alloc::boxed::Box;
use alloc::format;
use subtle::ConstantTimeEq;

use super::Broker;
use super::actions::Purpose;
use super::connections::{Address, ConnectionId};
use super::identifiers::Id;
use super::queues::{Delivering, Getter, Health, Next, Queue, QueueRef, Subscription, Waiting};
use super::record::{NotifierRecord, QueueRecord, QueueStatus, RecipientKeys};
use super::recovery::storage_failed;
use super::storage::{MessageKind, MessageMark, Sequence, StorageAction, StoredMessage};
use crate::crypto::ids;
use crate::entropy::Entropy;
use crate::keys::AuthKey;
use crate::session::OpenedBlock;
use crate::session::outgoing::{DeliverySecret, OutgoingContent};
use crate::session::request::{RelayKeyPair, RelayKeys};
use crate::time::{Now, UnixTime};
use crate::wire::base64url;
use crate::wire::command::{
    Command, MessageFlags, NewQueue, NotifierKeys, QueueMode, QueueRequest, SubscriptionMode,
};
use crate::wire::error::{CommandError, SmpError};
use crate::wire::response::{CreatedQueue, NotifierIds};
use crate::wire::{EntityId, Identifier};

/// How often an id is drawn again when it is taken, before the relay gives up.
const ID_ATTEMPTS: usize = 3;

/// What a command that cannot be executed gets.
type Refused = SmpError;

impl Broker {
    #[expect(clippy::too_many_arguments, reason = "what one command comes with; it is taken apart here")]
    pub(super) fn execute_command(
        &mut self,
        to: Address,
        command: Command<'_>,
        key: Option<AuthKey>,
        relay_keys: RelayKeys,
        block: &OpenedBlock,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        let refused = match command {
            Command::Ping => {
                self.connections.say(to, OutgoingContent::Pong);
                return;
            }
            Command::New(new) => self.create(&to, &new, relay_keys, now, entropy),
            Command::Send { flags, body } => self.send(&to, key, flags, body, block, now, entropy),
            Command::SecureBySender(sender_key) => self.secure_by_sender(&to, key, sender_key, now),
            Command::SubscribeNotifications => self.subscribe_notifications(&to, key, now),
            Command::Subscribe => self.with_recipient(&to, key, Self::subscribe),
            Command::Get => self.with_recipient(&to, key, Self::get),
            Command::Acknowledge { message } => {
                self.with_recipient(&to, key, |broker, to, at| broker.acknowledge(to, at, &message))
            }
            Command::SecureByRecipient(sender_key) => {
                self.with_recipient(&to, key, |broker, to, at| broker.secure(to, at, sender_key, now))
            }
            Command::Suspend => self.with_recipient(&to, key, |broker, to, at| broker.suspend(to, at, now)),
            Command::Delete => self.with_recipient(&to, key, Self::delete),
            Command::QueueInformation => self.with_recipient(&to, key, Self::describe),
            Command::EnableNotifications(keys) => self.with_recipient(&to, key, |broker, to, at| {
                broker.enable_notifications(to, at, &keys, relay_keys.notifier, now, entropy)
            }),
            Command::DisableNotifications => {
                self.with_recipient(&to, key, |broker, to, at| broker.disable_notifications(to, at, now))
            }
            Command::RecipientKeys(_)
            | Command::SetLink { .. }
            | Command::DeleteLink
            | Command::SecureByLink(_)
            | Command::GetLink
            | Command::SubscribeService
            | Command::SubscribeServiceNotifications
            | Command::ProxyConnect { .. }
            | Command::ProxyForward { .. }
            | Command::RelayForward { .. } => Err(CommandError::Prohibited.into()),
        };
        if let Err(error) = refused {
            self.connections.say(to, OutgoingContent::Error(error));
        }
    }

    /// Emits an action; its completion will be counted for its queue.
    pub(super) fn emit(&mut self, at: QueueRef, purpose: Purpose, action: StorageAction) -> super::ActionId {
        if let Some(queue) = self.queues.at(at) {
            queue.actions = queue.actions.saturating_add(1);
            if purpose.deletes_message() {
                let activity = queue.activity_mut();
                activity.deleting = activity.deleting.saturating_add(1);
            }
        }
        if let Some(address) = purpose.owed_to()
            && let Some(connection) = self.connections.get_mut(address)
        {
            connection.owed = connection.owed.saturating_add(1);
        }
        self.actions.emit(at, purpose, action)
    }

    /// Stores a queue's record as it now is, and then gives this answer.
    fn store_record(&mut self, to: &Address, at: QueueRef, now: Now, answer: OutgoingContent) {
        let Some(queue) = self.queues.at(at) else { return };
        queue.record.updated = day_of(now.wall);
        let record = Box::new(queue.record.clone());
        self.emit(
            at,
            Purpose::Answer(to.clone(), answer),
            StorageAction::PutQueue { queue: at.number, record },
        );
    }

    fn create(
        &mut self,
        to: &Address,
        new: &NewQueue<'_>,
        relay_keys: RelayKeys,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), Refused> {
        if !self.may_create(new) {
            return Err(SmpError::Authorization);
        }
        if matches!(new.request, Some(QueueRequest::Messaging(Some(_)) | QueueRequest::Contact(Some(_)))) {
            return Err(CommandError::Prohibited.into());
        }
        let limits = self.config.limits;
        if self.queues.len() >= limits.queues as usize {
            return Err(SmpError::Quota);
        }
        let subscribe = new.subscription == SubscriptionMode::Subscribe;
        if subscribe {
            self.check_subscriptions(to.connection)?;
        }
        let pair = relay_keys.queue.ok_or(SmpError::Internal)?;
        let recipient = self.fresh_id(entropy)?;
        let sender = self.fresh_id(entropy)?;
        let notifier = match &new.notifier {
            None => None,
            Some(keys) => Some(self.new_notifier(keys, relay_keys.notifier, entropy)?),
        };
        let mode = new.request.as_ref().map(QueueRequest::mode);
        let created = CreatedQueue {
            recipient: recipient.into(),
            sender: sender.into(),
            relay_dh: pair.public,
            mode,
            link: None,
            service: None,
            notifier: notifier.as_ref().map(|(_, ids)| ids.clone()),
        };
        let record = QueueRecord {
            recipient,
            sender,
            recipient_keys: RecipientKeys::One(new.recipient_key),
            recipient_secret: DeliverySecret { relay: pair.secret, peer: new.recipient_dh },
            sender_key: None,
            mode,
            status: QueueStatus::Active,
            notifier: notifier.map(|(record, _)| Box::new(record)),
            updated: day_of(now.wall),
        };
        let number = self.take_number();
        let at = self.queues.insert(Queue {
            number,
            record: record.clone(),
            health: Health::Sound,
            actions: 0,
            next_sequence: 0,
            activity: None,
        });
        if subscribe {
            self.attach(to.connection, at);
        }
        let answer = OutgoingContent::Created(Box::new(created));
        let action = StorageAction::PutQueue { queue: number, record: Box::new(record) };
        self.emit(at, Purpose::Answer(to.clone(), answer), action);
        Ok(())
    }

    fn may_create(&self, new: &NewQueue<'_>) -> bool {
        let password_fits = match (&self.config.create_password, &new.password) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(expected), Some(given)) => bool::from(expected.as_slice().ct_eq(given.0)),
        };
        self.config.new_queues && password_fits
    }

    /// An id that no queue has in any role.
    fn fresh_id(&self, entropy: &mut (impl Entropy + ?Sized)) -> Result<Id, Refused> {
        (0..ID_ATTEMPTS)
            .map(|_| ids::random(entropy))
            .find(|id| !self.queues.knows(id))
            .ok_or(SmpError::Internal)
    }

    fn new_notifier(
        &self,
        keys: &NotifierKeys,
        pair: Option<RelayKeyPair>,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(NotifierRecord, NotifierIds), Refused> {
        let pair = pair.ok_or(SmpError::Internal)?;
        let notifier = self.fresh_id(entropy)?;
        let ids = NotifierIds { notifier: notifier.into(), relay_dh: pair.public };
        let secret = DeliverySecret { relay: pair.secret, peer: keys.dh };
        Ok((NotifierRecord { notifier, key: keys.key, secret }, ids))
    }

    fn check_subscriptions(&self, connection: ConnectionId) -> Result<(), Refused> {
        let limit = self.config.limits.subscriptions as usize;
        if self.subscriptions(connection) >= limit { Err(SmpError::Quota) } else { Ok(()) }
    }

    /// Finds the queue of a recipient's command, and checks that the key which authorized it still is the queue's.
    fn with_recipient(
        &mut self,
        to: &Address,
        key: Option<AuthKey>,
        execute: impl FnOnce(&mut Self, &Address, QueueRef) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        let slot =
            to.entity.as_full().and_then(|id| self.queues.by_recipient(id)).ok_or(SmpError::Authorization)?;
        let queue = self.queues.get(slot).ok_or(SmpError::Authorization)?;
        let authorized = key.is_some_and(|key| queue.record.recipient_keys.as_slice().contains(&key));
        if !authorized || queue.health == Health::Deleting {
            return Err(SmpError::Authorization);
        }
        if queue.health.is_doubtful() {
            return Err(storage_failed());
        }
        let at = queue.reference(slot);
        execute(self, to, at)
    }

    /// What a recipient's command gets when the operator blocked the queue; `OFF` and `DEL` are allowed all the same.
    fn check_blocked(&self, at: QueueRef) -> Result<(), Refused> {
        match self.queues.get(at.slot).map(|queue| &queue.record.status) {
            Some(QueueStatus::Blocked(blocked)) => Err(SmpError::Blocked(blocked.clone())),
            _ => Ok(()),
        }
    }

    fn subscribe(&mut self, to: &Address, at: QueueRef) -> Result<(), Refused> {
        self.check_blocked(at)?;
        let connection = to.connection;
        let activity = self.queues.at(at).and_then(|queue| queue.activity.as_mut());
        let (getting, subscribed) = match activity {
            None => (false, false),
            Some(activity) => (activity.getter(connection).is_some(), activity.is_subscribed(connection)),
        };
        if getting {
            return Err(CommandError::Prohibited.into());
        }
        if !subscribed {
            self.check_subscriptions(connection)?;
            self.attach(connection, at);
        } else if let Some(queue) = self.queues.at(at)
            && let Some(subscription) = &mut queue.activity_mut().subscription
            && matches!(subscription.delivery, Delivering::Sent { .. })
        {
            // Asked again in the same connection: what is unacknowledged is delivered again, under the same id.
            subscription.delivery = Delivering::Idle;
        }
        self.connections.say(to.clone(), OutgoingContent::Subscribed);
        self.deliver_next(at);
        Ok(())
    }

    /// Subscribes a connection to a queue; the previous subscriber gets `END`.
    fn attach(&mut self, connection: ConnectionId, at: QueueRef) {
        let Some(queue) = self.queues.at(at) else { return };
        let recipient = queue.record.recipient;
        let previous = queue
            .activity_mut()
            .subscription
            .replace(Subscription { connection, delivery: Delivering::Idle });
        if let Some(previous) = previous
            && previous.connection != connection
        {
            self.cancel_acknowledgement(&previous);
            if let Some(before) = self.connections.get_mut(previous.connection) {
                before.subscribed.remove(&at.slot);
            }
            self.connections.tell(previous.connection, recipient.into(), OutgoingContent::End);
        }
        if let Some(now) = self.connections.get_mut(connection) {
            now.subscribed.insert(at.slot);
        }
    }

    /// A subscriber whose acknowledgement is under way loses the subscription: it gets its `OK` without the next
    /// message, at once when the deletion is durable already, else when it is.
    fn cancel_acknowledgement(&mut self, previous: &Subscription) {
        if let Delivering::Acknowledging { correlation, entity, deleted: true, .. } = &previous.delivery {
            let to = Address {
                connection: previous.connection,
                correlation: correlation.clone(),
                entity: entity.clone(),
            };
            self.connections.say(to, OutgoingContent::Ok);
        }
    }

    fn get(&mut self, to: &Address, at: QueueRef) -> Result<(), Refused> {
        self.check_blocked(at)?;
        let connection = to.connection;
        let queue = self.queues.at(at).ok_or(SmpError::Authorization)?;
        let head = queue.head();
        let activity = queue.activity_mut();
        if activity.is_subscribed(connection) {
            return Err(CommandError::Prohibited.into());
        }
        let known = activity.getter(connection).is_some();
        if !known {
            self.check_subscriptions(connection)?;
            if let Some(queue) = self.queues.at(at) {
                queue.activity_mut().getters.push(Getter { connection, delivered: None });
            }
            if let Some(connection) = self.connections.get_mut(connection) {
                connection.getting.insert(at.slot);
            }
        }
        match head {
            None => self.connections.say(to.clone(), OutgoingContent::Ok),
            Some(Waiting { sequence, mark, .. }) => {
                let action = StorageAction::ReadMessage { queue: at.number, sequence, mark };
                self.emit(at, Purpose::Take(to.clone(), sequence), action);
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self, to: &Address, at: QueueRef, message: &Identifier) -> Result<(), Refused> {
        self.check_blocked(at)?;
        let queue = self.queues.at(at).ok_or(SmpError::Authorization)?;
        let activity = queue.activity.as_mut().ok_or(SmpError::NoMessage)?;
        let fits = |id: &Id| message.is_empty() || message.as_bytes() == id;
        if let Some(subscription) = activity.subscription.as_mut().filter(|s| s.connection == to.connection) {
            let Delivering::Sent { sequence, id } = &subscription.delivery else {
                return Err(SmpError::NoMessage);
            };
            if !fits(id) {
                return Err(SmpError::NoMessage);
            }
            let sequence = *sequence;
            let removed = activity.remove_message(sequence);
            // Another connection may have taken and acknowledged it, or it expired: then there is nothing to delete.
            let deleted = removed.is_none();
            let next = activity.messages.front().copied().filter(|next| next.stored);
            if let Some(subscription) = &mut activity.subscription {
                subscription.delivery = Delivering::Acknowledging {
                    correlation: to.correlation.clone(),
                    entity: to.entity.clone(),
                    deleted,
                    next: Next::None,
                };
            }
            if let Some(Waiting { mark, .. }) = removed {
                let action = StorageAction::DeleteMessage { queue: at.number, sequence, mark };
                self.emit(at, Purpose::Acknowledge(to.clone()), action);
            }
            if let Some(Waiting { sequence, mark, .. }) = next {
                let purpose = Purpose::Deliver(to.connection, to.entity.clone(), sequence);
                let action =
                    self.emit(at, purpose, StorageAction::ReadMessage { queue: at.number, sequence, mark });
                if let Some(queue) = self.queues.at(at)
                    && let Some(subscription) = &mut queue.activity_mut().subscription
                    && let Delivering::Acknowledging { next, .. } = &mut subscription.delivery
                {
                    *next = Next::Reading { action };
                }
            }
            self.finish_acknowledgement(at);
            return Ok(());
        }
        let getter = activity.getter(to.connection).ok_or(SmpError::NoMessage)?;
        let (sequence, _) = getter.delivered.filter(|(_, id)| fits(id)).ok_or(SmpError::NoMessage)?;
        getter.delivered = None;
        match activity.remove_message(sequence) {
            None => self.connections.say(to.clone(), OutgoingContent::Ok),
            Some(Waiting { mark, .. }) => {
                let action = StorageAction::DeleteMessage { queue: at.number, sequence, mark };
                self.emit(at, Purpose::AcknowledgeTaken(to.clone()), action);
            }
        }
        Ok(())
    }

    fn secure(&mut self, to: &Address, at: QueueRef, key: AuthKey, now: Now) -> Result<(), Refused> {
        self.check_blocked(at)?;
        let queue = self.queues.at(at).ok_or(SmpError::Authorization)?;
        match queue.record.sender_key {
            Some(present) if present != key => Err(SmpError::Authorization),
            // Also when it is the same: the answer must wait until the first one is durable.
            _ => {
                queue.record.sender_key = Some(key);
                self.store_record(to, at, now, OutgoingContent::Ok);
                Ok(())
            }
        }
    }

    fn secure_by_sender(
        &mut self,
        to: &Address,
        key: Option<AuthKey>,
        sender_key: AuthKey,
        now: Now,
    ) -> Result<(), Refused> {
        if key != Some(sender_key) {
            return Err(SmpError::Authorization);
        }
        let at = self.sender_queue(to)?;
        if self.queues.get(at.slot).is_none_or(|queue| queue.record.mode != Some(QueueMode::Messaging)) {
            return Err(SmpError::Authorization);
        }
        self.secure(to, at, sender_key, now)
    }

    /// The queue that a sender's command is for.
    fn sender_queue(&self, to: &Address) -> Result<QueueRef, Refused> {
        let slot =
            to.entity.as_full().and_then(|id| self.queues.by_sender(id)).ok_or(SmpError::Authorization)?;
        let queue = self.present(slot).ok_or(SmpError::Authorization)?;
        if queue.health.is_doubtful() {
            return Err(storage_failed());
        }
        Ok(queue.reference(slot))
    }

    #[expect(clippy::too_many_arguments, reason = "what a message comes with")]
    fn send(
        &mut self,
        to: &Address,
        key: Option<AuthKey>,
        flags: MessageFlags,
        body: &[u8],
        block: &OpenedBlock,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), Refused> {
        let quota = usize::from(self.config.message_quota);
        let at = self.sender_queue(to)?;
        let queue = self.queues.at(at).ok_or(SmpError::Authorization)?;
        if queue.record.sender_key != key {
            return Err(SmpError::Authorization);
        }
        match &queue.record.status {
            QueueStatus::Active => {}
            QueueStatus::Suspended => return Err(SmpError::Authorization),
            QueueStatus::Blocked(blocked) => return Err(SmpError::Blocked(blocked.clone())),
        }
        let activity = queue.activity_mut();
        let last = activity.messages.back().copied();
        if last.is_some_and(|last| last.mark.kind == MessageKind::Quota) {
            return Err(SmpError::Quota);
        }
        let full = activity.occupied() >= quota;
        let sequence = Sequence(queue.next_sequence);
        queue.next_sequence += 1;
        let activity = queue.activity_mut();
        let kind = if full { MessageKind::Quota } else { MessageKind::Ordinary };
        let mark = MessageMark { timestamp: now.wall, kind };
        let message = StoredMessage {
            id: ids::random(entropy),
            notification: flags.notification && !full,
            body: if full { bytes::Bytes::new() } else { block.share(body) },
        };
        // A subscriber that waits for exactly this message gets it from memory.
        let direct = last.is_none()
            && activity.subscription.as_ref().is_some_and(|s| matches!(s.delivery, Delivering::Idle));
        activity.messages.push_back(Waiting { sequence, mark, stored: false });
        if message.notification && queue.record.notifier.is_some() {
            self.note_news(at, message.id, now, entropy);
        }
        self.enter_calendar(at);
        let purpose = if full {
            Purpose::Marker { sequence }
        } else {
            Purpose::Message { to: to.clone(), sequence, message: direct.then(|| message.clone()) }
        };
        self.emit(at, purpose, StorageAction::PutMessage { queue: at.number, sequence, mark, message });
        if full { Err(SmpError::Quota) } else { Ok(()) }
    }

    fn suspend(&mut self, to: &Address, at: QueueRef, now: Now) -> Result<(), Refused> {
        let queue = self.queues.at(at).ok_or(SmpError::Authorization)?;
        queue.record.status = QueueStatus::Suspended;
        self.store_record(to, at, now, OutgoingContent::Ok);
        Ok(())
    }

    fn delete(&mut self, to: &Address, at: QueueRef) -> Result<(), Refused> {
        let queue = self.queues.at(at).ok_or(SmpError::Authorization)?;
        queue.health = Health::Deleting;
        self.emit(at, Purpose::DeleteQueue(to.clone()), StorageAction::DeleteQueue { queue: at.number });
        Ok(())
    }

    fn enable_notifications(
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
        self.replace_notifier(at, Some(notifier));
        self.store_record(to, at, now, OutgoingContent::NotifierId(Box::new(ids)));
        Ok(())
    }

    fn disable_notifications(&mut self, to: &Address, at: QueueRef, now: Now) -> Result<(), Refused> {
        self.check_blocked(at)?;
        self.replace_notifier(at, None);
        self.store_record(to, at, now, OutgoingContent::Ok);
        Ok(())
    }

    /// Gives the queue another notifier, or none; who was notified so far gets `DELD`.
    fn replace_notifier(&mut self, at: QueueRef, notifier: Option<NotifierRecord>) {
        self.end_notifications(at);
        if let Some(queue) = self.queues.at(at) {
            let mut record = queue.record.clone();
            record.notifier = notifier.map(Box::new);
            self.queues.replace_record(at.slot, record);
        }
    }

    fn subscribe_notifications(
        &mut self,
        to: &Address,
        key: Option<AuthKey>,
        now: Now,
    ) -> Result<(), Refused> {
        let slot =
            to.entity.as_full().and_then(|id| self.queues.by_notifier(id)).ok_or(SmpError::Authorization)?;
        let queue = self.present(slot).ok_or(SmpError::Authorization)?;
        let at = queue.reference(slot);
        if key.is_none() || queue.record.notifier.as_ref().map(|notifier| notifier.key) != key {
            return Err(SmpError::Authorization);
        }
        if queue.health.is_doubtful() {
            return Err(storage_failed());
        }
        let previous = queue.activity.as_ref().and_then(|activity| activity.notifier);
        if previous != Some(to.connection) {
            self.check_subscriptions(to.connection)?;
            if let Some(previous) = previous {
                if let Some(before) = self.connections.get_mut(previous) {
                    before.notified.remove(&at.slot);
                }
                self.connections.tell(previous, to.entity.clone(), OutgoingContent::End);
            }
            if let Some(connection) = self.connections.get_mut(to.connection) {
                connection.notified.insert(at.slot);
            }
            if let Some(queue) = self.queues.at(at) {
                let activity = queue.activity_mut();
                activity.notifier = Some(to.connection);
                activity.news_listed = false;
            }
        }
        self.connections.say(to.clone(), OutgoingContent::Subscribed);
        self.schedule_news(at, now);
        Ok(())
    }

    fn describe(&mut self, to: &Address, at: QueueRef) -> Result<(), Refused> {
        self.check_blocked(at)?;
        let queue = self.queues.get(at.slot).ok_or(SmpError::Authorization)?;
        let activity = queue.activity.as_deref();
        let subscription = activity.and_then(|activity| activity.subscription.as_ref());
        let subscriber = match subscription.map(|subscription| &subscription.delivery) {
            None => alloc::string::String::new(),
            Some(Delivering::Sent { id, .. }) => {
                format!(r#","qiSub":{{"qSubThread":"subThread","qDelivered":"{}"}}"#, base64url::encode(id))
            }
            Some(_) => r#","qiSub":{"qSubThread":"noSub"}"#.into(),
        };
        let information = format!(
            r#"{{"qiSnd":{},"qiNtf":{}{subscriber},"qiSize":{}}}"#,
            queue.record.sender_key.is_some(),
            queue.record.notifier.is_some(),
            queue.waiting(),
        );
        self.connections.say(to.clone(), OutgoingContent::Information(Box::new(information)));
        Ok(())
    }

    /// The queue is gone: who is attached to it is told, and lets go of it.
    pub(super) fn detach_all(&mut self, slot: u32, queue: &mut Queue) {
        let recipient = EntityId::from(queue.record.recipient);
        let notifier = queue.record.notifier.as_ref().map(|notifier| EntityId::from(notifier.notifier));
        let Some(activity) = queue.activity.take() else { return };
        if let Some(subscription) = activity.subscription {
            self.cancel_acknowledgement(&subscription);
            if let Some(connection) = self.connections.get_mut(subscription.connection) {
                connection.subscribed.remove(&slot);
            }
            self.connections.tell(subscription.connection, recipient, OutgoingContent::Deleted);
        }
        for getter in activity.getters {
            if let Some(connection) = self.connections.get_mut(getter.connection) {
                connection.getting.remove(&slot);
            }
        }
        if let (Some(id), Some(notifier)) = (activity.notifier, notifier) {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.notified.remove(&slot);
            }
            self.connections.tell(id, notifier, OutgoingContent::Deleted);
        }
    }
}

/// The start of a day, in UTC.
fn day_of(time: UnixTime) -> UnixTime {
    UnixTime(time.0.div_euclid(86_400) * 86_400)
}
