//! `NEW`: creating a queue.

use alloc::boxed::Box;
use subtle::ConstantTimeEq;

use super::super::Broker;
use super::super::actions::Purpose;
use super::super::connections::Address;
use super::super::identifiers::Id;
use super::super::queues::Queue;
use super::super::record::{NotifierRecord, QueueRecord, QueueStatus, RecipientKeys};
use super::super::storage::StorageAction;
use super::{Refused, day_of};
use crate::crypto::ids;
use crate::entropy::Entropy;
use crate::session::outgoing::{DeliverySecret, OutgoingContent};
use crate::session::request::{RelayKeyPair, RelayKeys};
use crate::time::Now;
use crate::wire::command::{NewQueue, NotifierKeys, QueueRequest, SubscriptionMode};
use crate::wire::error::{CommandError, SmpError};
use crate::wire::response::{CreatedQueue, NotifierIds};

/// How often an id is drawn again when it is taken, before the relay gives up.
const ID_ATTEMPTS: usize = 3;

impl Broker {
    pub(super) fn create(
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
        // Link data is not offered here; no version that this relay offers can carry it.
        if matches!(new.request, Some(QueueRequest::Messaging(Some(_)) | QueueRequest::Contact(Some(_)))) {
            return Err(CommandError::Prohibited.into());
        }
        if self.queues.len() >= self.config.limits.queues as usize {
            return Err(SmpError::Quota);
        }
        let subscribe = new.subscription == SubscriptionMode::Subscribe;
        if subscribe {
            self.check_attachments(to.connection)?;
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
        let at = self.queues.insert(Queue::new(number, record.clone(), 0));
        if subscribe {
            self.attach(to.connection, at);
        }
        let answer = OutgoingContent::Created(Box::new(created));
        let action = StorageAction::PutQueue { queue: number, record: Box::new(record) };
        self.emit(at, Purpose::Create(to.clone(), answer), action);
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

    pub(super) fn new_notifier(
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
}
