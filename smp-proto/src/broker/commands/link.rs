//! `RKEY`, `LSET`, `LDEL`, `LKEY` and `LGET`: owners of contact addresses, and links with their data (WIRE-FACTS 7, 8).
//!
//! The broker keeps a link's id and the hash of its fixed data; the data itself is in storage, and is read for each answer.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::super::Broker;
use super::super::actions::Purpose;
use super::super::connections::{Address, Queued};
use super::super::queues::QueueRef;
use super::super::record::{LinkRecord, QueueRecord, RecipientKeys};
use super::super::recovery::storage_failed;
use super::super::storage::{StorageAction, StoredLink};
use super::{Refused, day_of};
use crate::keys::AuthKey;
use crate::session::OpenedBlock;
use crate::session::outgoing::{LinkAnswer, OutgoingContent};
use crate::time::Now;
use crate::wire::Identifier;
use crate::wire::command::{LinkData, QueueMode};
use crate::wire::error::{CommandError, SmpError};

impl Broker {
    /// `RKEY`: other owners of a contact address.
    pub(super) fn set_recipient_keys(
        &mut self,
        to: &Address,
        at: QueueRef,
        keys: Vec<AuthKey>,
        now: Now,
    ) -> Result<(), Refused> {
        self.check_blocked(at)?;
        let queue = self.queues.at(at).ok_or(SmpError::Authorization)?;
        if queue.record.mode != Some(QueueMode::Contact) {
            return Err(SmpError::Authorization);
        }
        if keys.len() > usize::from(self.config.limits.recipient_keys.max(1)) {
            return Err(SmpError::Quota);
        }
        let keys = match *keys {
            [] => return Err(CommandError::Syntax.into()),
            [key] => RecipientKeys::One(key),
            _ => RecipientKeys::Several(keys.into()),
        };
        self.change_record(to, at, Some(OutgoingContent::Ok), None, now, |record| {
            record.recipient_keys = keys;
        });
        Ok(())
    }

    /// `LSET`: sets link data, or changes its user part. `fixed` is the hash of the fixed part, made by the session.
    #[expect(clippy::too_many_arguments, reason = "what link data comes with")]
    pub(super) fn set_link(
        &mut self,
        to: &Address,
        at: QueueRef,
        link: &Identifier,
        data: LinkData<'_>,
        fixed: Option<[u8; 32]>,
        block: &OpenedBlock,
        now: Now,
    ) -> Result<(), Refused> {
        self.check_blocked(at)?;
        let fixed = fixed.ok_or(SmpError::Internal)?;
        let link = *link.as_full().ok_or(SmpError::Command(CommandError::Prohibited))?;
        let queue = self.queues.at(at).ok_or(SmpError::Authorization)?;
        if queue.record.is_secured_messaging() {
            return Err(SmpError::Authorization);
        }
        let fits = match &queue.record.link {
            Some(present) => present.link == link && present.fixed == fixed,
            None => !self.queues.knows(&link),
        };
        if !fits {
            return Err(SmpError::Authorization);
        }
        let record = LinkRecord { link, fixed };
        self.change_link(to, at, Some((record, stored(data, block))), now);
        Ok(())
    }

    /// `LDEL`: no link any more; also when there is none.
    pub(super) fn delete_link(&mut self, to: &Address, at: QueueRef, now: Now) -> Result<(), Refused> {
        self.check_blocked(at)?;
        self.change_link(to, at, None, now);
        Ok(())
    }

    /// Changes a queue's link and its data together, and answers `OK` when that is durable.
    fn change_link(&mut self, to: &Address, at: QueueRef, link: Option<(LinkRecord, StoredLink)>, now: Now) {
        let (link, data) = link.unzip();
        let Some((before, record)) = self.replace(at, |record| {
            record.link = link.map(Box::new);
            record.updated = day_of(now.wall);
        }) else {
            return;
        };
        let purpose =
            Purpose::Change { to: to.clone(), answer: Some(OutgoingContent::Ok), previous: None, before };
        let action = StorageAction::PutQueueAndLink { queue: at.number, record, link: data };
        self.emit(at, purpose, action);
    }

    /// A secured queue has its first message: whoever used the link has what was behind it, and nobody else shall.
    pub(super) fn drop_link(&mut self, at: QueueRef) {
        let drops =
            self.queues.at(at).is_some_and(|q| q.record.is_secured_messaging() && q.record.link.is_some());
        if !drops {
            return;
        }
        if let Some((before, record)) = self.replace(at, |record| record.link = None) {
            let action = StorageAction::PutQueueAndLink { queue: at.number, record, link: None };
            self.emit(at, Purpose::Quietly { before }, action);
        }
    }

    /// `LKEY`: sets the sender's key, and answers with the link data when that is durable.
    pub(super) fn secure_by_link(
        &mut self,
        to: &Address,
        key: Option<AuthKey>,
        sender_key: AuthKey,
        now: Now,
    ) -> Result<(), Refused> {
        let slot = to.entity.as_full().and_then(|id| self.queues.by_link(id));
        let at = self.usable(slot, |queue| {
            let QueueRecord { mode, sender_key: present, .. } = &queue.record;
            key == Some(sender_key)
                && *mode == Some(QueueMode::Messaging)
                && present.is_none_or(|present| present == sender_key)
        })?;
        self.check_blocked(at)?;
        self.change_record(to, at, None, None, now, |record| record.sender_key = Some(sender_key));
        Ok(())
    }

    /// `LGET`: the link data of a contact address.
    pub(super) fn get_link(&mut self, to: Address) -> Result<(), Refused> {
        let slot = to.entity.as_full().and_then(|id| self.queues.by_link(id));
        let at = self.usable(slot, |queue| match queue.record.mode {
            Some(QueueMode::Contact) => true,
            Some(QueueMode::Messaging) => false,
            None => queue.record.sender_key.is_none(),
        })?;
        self.check_blocked(at)?;
        self.read_link(to, at);
        Ok(())
    }

    /// Has the link data read for an answer, now or when there is room for it.
    pub(in super::super) fn read_link(&mut self, to: Address, at: QueueRef) {
        let limit = self.config.limits.deliveries_in_flight;
        let Some(connection) = self.connections.get_mut(to.connection) else { return };
        if connection.reserve_body(limit) {
            self.emit(at, Purpose::ReadLink(to), StorageAction::ReadLink { queue: at.number });
        } else {
            connection.owed = connection.owed.saturating_add(1);
            connection.queued.push_back(Queued::Link(to, at));
        }
    }

    /// Link data was read.
    pub(in super::super) fn link_read(&mut self, at: QueueRef, to: Address, data: Option<StoredLink>) {
        let id = to.connection;
        self.connections.release_body(id);
        let record = self.queues.at(at).map(|queue| &queue.record);
        // Meanwhile the link may have been deleted.
        let asked = to.entity.as_full();
        let present =
            record.filter(|record| record.link.as_ref().is_some_and(|link| Some(&link.link) == asked));
        let answer = match (present, data) {
            (None, _) => OutgoingContent::Error(SmpError::Authorization),
            (Some(_), None) => OutgoingContent::Error(storage_failed()),
            (Some(record), Some(StoredLink { fixed, user })) => {
                OutgoingContent::Link(Box::new(LinkAnswer { sender: record.sender, fixed, user }))
            }
        };
        self.connections.say(to, answer);
        self.deliver_queued(id);
    }
}

impl QueueRecord {
    /// Whether it is a queue between two that a sender has: its link has served its purpose.
    const fn is_secured_messaging(&self) -> bool {
        matches!(self.mode, Some(QueueMode::Messaging)) && self.sender_key.is_some()
    }
}

/// Link data on its way to storage: it shares the memory of the block that it came in.
pub(super) fn stored(data: LinkData<'_>, block: &OpenedBlock) -> StoredLink {
    StoredLink { fixed: block.share(data.fixed), user: block.share(data.user) }
}
