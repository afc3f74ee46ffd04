//! `SEND` and `SKEY`: what a sender may do.

use alloc::boxed::Box;

use super::super::Broker;
use super::super::actions::Purpose;
use super::super::connections::Address;
use super::super::queues::{News, QueueRef};
use super::super::record::QueueStatus;
use super::super::storage::{MessageKind, MessageMark, Sequence, StorageAction, StoredMessage};
use super::super::waiting::Waiting;
use super::Refused;
use crate::crypto::ids;
use crate::entropy::Entropy;
use crate::keys::AuthKey;
use crate::session::OpenedBlock;
use crate::session::outgoing::OutgoingContent;
use crate::time::Now;
use crate::wire::command::{MessageFlags, QueueMode};
use crate::wire::error::SmpError;

impl Broker {
    pub(super) fn secure_by_sender(
        &mut self,
        to: &Address,
        key: Option<AuthKey>,
        sender_key: AuthKey,
        now: Now,
    ) -> Result<(), Refused> {
        let slot = to.entity.as_full().and_then(|id| self.queues.by_sender(id));
        // A contact address, and a queue whose client was too old to say, is secured by its recipient alone.
        let at = self.usable(slot, |queue| {
            key == Some(sender_key) && queue.record.mode == Some(QueueMode::Messaging)
        })?;
        self.secure(to, at, sender_key, now)
    }

    /// Sets the sender's key: once, and then the same again.
    pub(super) fn secure(
        &mut self,
        to: &Address,
        at: QueueRef,
        key: AuthKey,
        now: Now,
    ) -> Result<(), Refused> {
        self.check_blocked(at)?;
        let queue = self.queues.at(at).ok_or(SmpError::Authorization)?;
        if queue.record.sender_key.is_some_and(|present| present != key) {
            return Err(SmpError::Authorization);
        }
        // Also when it is the same: the answer must wait until the first one is durable.
        self.change_record(to, at, Some(OutgoingContent::Ok), None, now, |record| {
            record.sender_key = Some(key);
        });
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "what a message comes with")]
    pub(super) fn send(
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
        let slot = to.entity.as_full().and_then(|id| self.queues.by_sender(id));
        let at = self.usable(slot, |queue| queue.record.sender_key == key)?;
        let queue = self.queues.at(at).ok_or(SmpError::Authorization)?;
        match &queue.record.status {
            QueueStatus::Active => {}
            QueueStatus::Suspended => return Err(SmpError::Authorization),
            QueueStatus::Blocked(blocked) => return Err(SmpError::Blocked(blocked.clone())),
        }
        let has_notifier = queue.record.notifier.is_some();
        let has_link = queue.record.link.is_some();
        let last = queue.activity.as_ref().and_then(|activity| activity.messages.newest());
        // Once full, the queue is closed until it is empty.
        if last.is_some_and(|last| last.mark.kind == MessageKind::Quota) {
            return Err(SmpError::Quota);
        }
        if has_link {
            self.drop_link(at);
        }
        let queue = self.queues.at(at).ok_or(SmpError::Authorization)?;
        let sequence = Sequence(queue.next_sequence);
        queue.next_sequence = queue.next_sequence.saturating_add(1);
        let full = queue.occupied() >= quota;
        let kind = if full { MessageKind::Quota } else { MessageKind::Ordinary };
        let mark = MessageMark { timestamp: now.wall, kind };
        let message = StoredMessage {
            id: ids::random(entropy),
            notification: flags.notification && !full,
            body: if full { bytes::Bytes::new() } else { block.share(body) },
        };
        let activity = queue.activity_mut();
        // A subscriber that waits for exactly this message gets it from memory.
        let direct =
            last.is_none() && activity.subscription.as_ref().is_some_and(|one| one.waits_for_message());
        activity.messages.push(Waiting { sequence, mark, stored: false });
        let purpose = if full {
            Purpose::Marker { sequence }
        } else {
            let news = (message.notification && has_notifier).then(|| {
                let nonce = ids::random(entropy);
                Box::new(News { sequence, message: message.id, nonce, timestamp: now.wall })
            });
            Purpose::Message { to: to.clone(), sequence, message: direct.then(|| message.clone()), news }
        };
        self.emit(at, purpose, StorageAction::PutMessage { queue: at.number, sequence, mark, message });
        if full { Err(SmpError::Quota) } else { Ok(()) }
    }
}
