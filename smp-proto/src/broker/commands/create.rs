//! `NEW`: creating a queue.

use alloc::boxed::Box;
use subtle::ConstantTimeEq;

use super::super::Broker;
use super::super::actions::Purpose;
use super::super::connections::Address;
use super::super::identifiers::Id;
use super::super::queues::{Health, Queue};
use super::super::record::{LinkRecord, NotifierRecord, QueueRecord, QueueStatus, RecipientKeys};
use super::super::storage::StorageAction;
use super::{Refused, day_of};
use crate::crypto::ids;
use crate::entropy::Entropy;
use crate::session::OpenedBlock;
use crate::session::outgoing::{DeliverySecret, OutgoingContent};
use crate::session::request::{Prepared, RelayKeyPair};
use crate::time::Now;
use crate::wire::command::{LinkData, NewQueue, NotifierKeys, QueueRequest, SubscriptionMode};
use crate::wire::error::{CommandError, SmpError};
use crate::wire::response::{CreatedQueue, NotifierIds};

/// How often an id is drawn again when it is taken, before the relay gives up.
const ID_ATTEMPTS: usize = 3;

/// What a client chose for a queue with link data.
struct GivenIds<'a> {
    sender: Id,
    link: Option<Id>,
    data: LinkData<'a>,
}

impl Broker {
    pub(super) fn create(
        &mut self,
        to: &Address,
        new: &NewQueue<'_>,
        prepared: Prepared,
        block: &OpenedBlock,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), Refused> {
        if !self.may_create(new) {
            return Err(SmpError::Authorization);
        }
        let given = self.given_ids(to, new)?;
        let of_service = self.messaging_service_of(to.connection).is_some();
        if of_service && new.subscription == SubscriptionMode::CreateOnly {
            return Err(CommandError::Prohibited.into());
        }
        if self.queues.len() >= self.config.limits.queues as usize {
            return Err(SmpError::Quota);
        }
        let subscribe = new.subscription == SubscriptionMode::Subscribe;
        if subscribe {
            self.check_attachments(to.connection)?;
        }
        let pair = prepared.queue.ok_or(SmpError::Internal)?;
        let recipient = self.fresh_id(entropy)?;
        let sender = match &given {
            Some(given) => given.sender,
            None => self.fresh_id(entropy)?,
        };
        let link = match &given {
            None => None,
            Some(given) => {
                let fixed = prepared.fixed_data.ok_or(SmpError::Internal)?;
                let link = match given.link {
                    Some(link) => link,
                    None => self.fresh_id(entropy)?,
                };
                Some(LinkRecord { link, fixed })
            }
        };
        let notifier = match &new.notifier {
            None => None,
            Some(keys) => Some(self.new_notifier(keys, prepared.notifier, entropy)?),
        };
        let mode = new.request.as_ref().map(QueueRequest::mode);
        let created = CreatedQueue {
            recipient: recipient.into(),
            sender: sender.into(),
            relay_dh: pair.public,
            mode,
            link: link.as_ref().map(|link| link.link.into()),
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
            link: link.map(Box::new),
            updated: day_of(now.wall),
        };
        let number = self.take_number();
        let mut queue = Queue::new(number, record.clone(), 0);
        queue.health = Health::Creating;
        let at = self.queues.insert(queue);
        self.watch_unsecured(at);
        if subscribe {
            self.attach(to.connection, at);
        }
        let answer = OutgoingContent::Created(Box::new(created));
        let record = Box::new(record);
        let action = match given {
            None => StorageAction::PutQueue { queue: number, record },
            Some(given) => {
                let link = Some(super::link::stored(given.data, block));
                StorageAction::PutQueueAndLink { queue: number, record, link }
            }
        };
        self.emit(at, Purpose::Create(to.clone(), answer), action);
        Ok(())
    }

    /// The ids that the client chose together with link data, if it did: the sender id that its correlation demands, and for
    /// a contact address the link id. Ids that are taken are refused as if nobody might create.
    fn given_ids<'a>(&self, to: &Address, new: &NewQueue<'a>) -> Result<Option<GivenIds<'a>>, Refused> {
        let (sender, link, data) = match &new.request {
            Some(QueueRequest::Messaging(Some((sender, data)))) => (sender, None, *data),
            Some(QueueRequest::Contact(Some((link, sender, data)))) => (sender, Some(link), *data),
            _ => return Ok(None),
        };
        let wanted = ids::sender_id(to.correlation.as_bytes());
        if sender.as_full() != Some(&wanted) {
            return Err(CommandError::Prohibited.into());
        }
        let link = match link {
            None => None,
            Some(link) => Some(*link.as_full().ok_or(SmpError::Command(CommandError::Prohibited))?),
        };
        let taken =
            self.queues.knows(&wanted) || link.is_some_and(|link| link == wanted || self.queues.knows(&link));
        if taken {
            return Err(SmpError::Authorization);
        }
        Ok(Some(GivenIds { sender: wanted, link, data }))
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
        Ok((NotifierRecord { notifier, key: keys.key, secret, service: None }, ids))
    }
}
