//! Executing commands: what each may do, what it changes, and what it answers (WIRE-FACTS 7).
//!
//! A change takes effect in memory at once, so that what comes next sees it, and is answered when it is durable. If it
//! fails, the queue is read again (see [`recovery`](super::recovery)).

mod create;
mod link;
mod notifier;
mod recipient;
mod sender;

use alloc::boxed::Box;

use super::Broker;
use super::actions::Purpose;
use super::connections::{Address, ConnectionId};
use super::proxying::Asked;
use super::queues::{NotifierSubscription, Queue, QueueRef};
use super::record::{QueueRecord, QueueStatus};
use super::recovery::storage_failed;
use super::storage::{ActionId, StorageAction};
use crate::entropy::Entropy;
use crate::keys::AuthKey;
use crate::session::OpenedBlock;
use crate::session::outgoing::OutgoingContent;
use crate::session::request::Prepared;
use crate::time::{Now, UnixTime};
use crate::wire::EntityId;
use crate::wire::command::Command;
use crate::wire::error::{CommandError, SmpError};

/// What a command that cannot be executed gets.
type Refused = SmpError;

impl Broker {
    #[expect(clippy::too_many_arguments, reason = "what one command comes with; it is taken apart here")]
    pub(super) fn execute_command(
        &mut self,
        to: Address,
        command: Command<'_>,
        key: Option<AuthKey>,
        prepared: Prepared,
        block: &OpenedBlock,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        let result = match command {
            Command::Ping => {
                self.connections.say(to, OutgoingContent::Pong);
                return;
            }
            Command::New(new) => self.create(&to, &new, prepared, block, now, entropy),
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
                broker.enable_notifications(to, at, &keys, prepared.notifier, now, entropy)
            }),
            Command::DisableNotifications => {
                self.with_recipient(&to, key, |broker, to, at| broker.disable_notifications(to, at, now))
            }
            Command::RecipientKeys(keys) => {
                self.with_recipient(&to, key, |broker, to, at| broker.set_recipient_keys(to, at, keys, now))
            }
            Command::SetLink { link, data } => self.with_recipient(&to, key, |broker, to, at| {
                broker.set_link(to, at, &link, data, prepared.fixed_data, block, now)
            }),
            Command::DeleteLink => {
                self.with_recipient(&to, key, |broker, to, at| broker.delete_link(to, at, now))
            }
            Command::SecureByLink(sender_key) => self.secure_by_link(&to, key, sender_key, now),
            Command::GetLink => self.get_link(to.clone()),
            Command::WriteBlob { key: owner, blob } => self.write_blob(&to, key, owner, blob, block, now),
            Command::ClearBlob => self.clear_blob(&to, key),
            Command::ReadBlob => self.read_blob(to.clone()),
            Command::SubscribeServiceNotifications => self.subscribe_service(to.clone(), now),
            // As on deployed relays: services receive messages from v19 on.
            Command::SubscribeService if self.service_of(to.connection).is_none() => {
                Err(SmpError::Authorization)
            }
            Command::ProxyConnect { relay, password } => self.connect_through(&to, relay, password),
            Command::ProxyForward { version, key: client_key, transmission } => {
                let sealed = block.share(transmission);
                self.ask_proxy(&to, Asked::Forward { version, client_key, sealed })
            }
            // What is forwarded is taken out of its envelope by the session.
            Command::SubscribeService | Command::RelayForward { .. } => Err(CommandError::Prohibited.into()),
        };
        if let Err(error) = result {
            self.connections.say(to, OutgoingContent::Error(error));
        }
    }

    /// Emits an action; its completion will be counted for its queue.
    pub(super) fn emit(&mut self, at: QueueRef, purpose: Purpose, action: StorageAction) -> ActionId {
        if let Some(queue) = self.queues.at(at) {
            queue.actions = queue.actions.saturating_add(1);
            if purpose.deletes_message() {
                queue.deleting = queue.deleting.saturating_add(1);
            }
        }
        if let Some(id) = purpose.owed_to() {
            self.connections.owe(id, true);
        }
        let action = match purpose.receipt() {
            Some(receipt) => {
                StorageAction::WithRecords { action: Box::new(action), writes: alloc::vec![receipt] }
            }
            None => action,
        };
        self.actions.emit(at, purpose, action)
    }

    /// Changes a queue's record, in memory at once, and answers when that is durable, with link
    /// data when there is no `answer`. `previous` was notified so far, and
    /// is told then that it is not any more.
    fn change_record(
        &mut self,
        to: &Address,
        at: QueueRef,
        answer: Option<OutgoingContent>,
        previous: Option<NotifierSubscription>,
        now: Now,
        change: impl FnOnce(&mut QueueRecord),
    ) {
        let Some((before, record)) = self.replace(at, |record| {
            change(record);
            record.updated = day_of(now.wall);
        }) else {
            return;
        };
        let purpose = Purpose::Change { to: to.clone(), answer, previous, before };
        self.emit(at, purpose, StorageAction::PutQueue { queue: at.number, record });
    }

    /// Changes a queue's record in memory. Returns the record of before, and the new one for storage.
    pub(super) fn replace(
        &mut self,
        at: QueueRef,
        change: impl FnOnce(&mut QueueRecord),
    ) -> Option<(Box<QueueRecord>, Box<QueueRecord>)> {
        let before = Box::new(self.queues.at(at)?.record.clone());
        let mut record = before.clone();
        change(&mut record);
        self.queues.replace_record(at.slot, (*record).clone());
        Some((before, record))
    }

    /// Finds the queue of a recipient's command, and checks that the key which authorized it still is the queue's.
    fn with_recipient(
        &mut self,
        to: &Address,
        key: Option<AuthKey>,
        execute: impl FnOnce(&mut Self, &Address, QueueRef) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        let slot = to.entity.as_full().and_then(|id| self.queues.by_recipient(id));
        let at = self.usable(slot, |queue| {
            key.is_some_and(|key| queue.record.recipient_keys.as_slice().contains(&key))
        })?;
        execute(self, to, at)
    }

    /// The queue in a slot, if the command is authorized for it and it is not in doubt.
    fn usable(
        &self,
        slot: Option<u32>,
        is_authorized: impl FnOnce(&Queue) -> bool,
    ) -> Result<QueueRef, Refused> {
        let slot = slot.ok_or(SmpError::Authorization)?;
        let queue = self
            .queues
            .get(slot)
            .filter(|queue| queue.health.is_present())
            .filter(|queue| is_authorized(queue))
            .ok_or(SmpError::Authorization)?;
        if queue.health.is_doubtful() {
            return Err(storage_failed());
        }
        Ok(queue.reference(slot))
    }

    /// What most commands get when the operator blocked the queue; `OFF`, `DEL` and `NSUB` are allowed all the same.
    fn check_blocked(&self, at: QueueRef) -> Result<(), Refused> {
        match self.queues.get(at.slot).map(|queue| &queue.record.status) {
            Some(QueueStatus::Blocked(blocked)) => Err(SmpError::Blocked(blocked.clone())),
            _ => Ok(()),
        }
    }

    /// Whether a connection may be attached to one more queue.
    fn check_attachments(&self, connection: ConnectionId) -> Result<(), Refused> {
        let limit = self.config.limits.subscriptions as usize;
        let attached = self.connections.get(connection).map_or(0, |connection| connection.attachments());
        if attached >= limit { Err(SmpError::Quota) } else { Ok(()) }
    }

    /// A queue is deleted: whoever else is attached to it is told.
    pub(super) fn remove_queue(&mut self, at: QueueRef, by: Option<ConnectionId>) {
        if self.queues.at(at).is_none() {
            return;
        }
        let notifier = self.detach_notifier(at).filter(|previous| Some(previous.connection) != by);
        let Some(queue) = self.queues.remove(at.slot) else { return };
        let recipient = EntityId::from(queue.record.recipient);
        if let Some(subscriber) = self.detach_recipients(at.slot, queue).filter(|id| Some(*id) != by) {
            self.connections.tell(subscriber, recipient, OutgoingContent::Deleted);
        }
        if let Some(notifier) = notifier {
            self.tell_notifier_deleted(notifier);
        }
    }

    /// A queue was never created: nobody is told.
    pub(super) fn forget_queue(&mut self, at: QueueRef) {
        if self.queues.at(at).is_some() {
            self.detach_notifier(at);
            if let Some(queue) = self.queues.remove(at.slot) {
                self.detach_recipients(at.slot, queue);
            }
        }
    }

    /// Lets the recipients go of a queue that is gone. Returns who was subscribed.
    fn detach_recipients(&mut self, slot: u32, mut queue: Queue) -> Option<ConnectionId> {
        let activity = *queue.activity.take()?;
        for getter in activity.getters {
            if let Some(connection) = self.connections.get_mut(getter.connection) {
                connection.getting.remove(&slot);
            }
        }
        let subscription = activity.subscription?;
        let subscriber = subscription.connection;
        if let Some(connection) = self.connections.get_mut(subscriber) {
            connection.subscribed.remove(&slot);
        }
        self.drop_subscription(subscription, queue.record.recipient.into());
        Some(subscriber)
    }
}

/// The start of a day, in UTC.
fn day_of(time: UnixTime) -> UnixTime {
    UnixTime(time.0.div_euclid(86_400).saturating_mul(86_400))
}
