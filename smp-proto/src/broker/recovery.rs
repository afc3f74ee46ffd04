//! When storage fails: a queue in doubt accepts nothing until it has been read again.
//!
//! A failed action took no effect, so what the broker did in memory when it emitted the action is not true. Rather than
//! undo each kind of change, the broker waits until nothing is under way for the queue, reads what storage really holds,
//! and goes on with that. One mechanism, whatever failed.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::actions::Purpose;
use super::queues::{Delivering, Health, QueueRef, Waiting};
use super::storage::{StorageAction, StoredQueue};
use super::{Broker, RESTORE_INTERVAL};
use crate::time::Now;
use crate::wire::error::SmpError;

/// What every command gets that storage could not carry out, or whose queue is in doubt: it says nothing more.
pub(super) fn storage_failed() -> SmpError {
    SmpError::Store(b"storage is not available, try later".to_vec())
}

impl Broker {
    /// Distrusts a queue.
    pub(super) fn doubt(&mut self, at: QueueRef) {
        if let Some(queue) = self.queues.at(at) {
            queue.health = Health::Doubtful;
        }
    }

    /// Reads a queue in doubt again, when nothing else is under way for it.
    pub(super) fn restore_when_quiet(&mut self, at: QueueRef) {
        let waits = |queue: &&mut super::Queue| queue.health == Health::Doubtful && queue.actions == 0;
        if self.queues.at(at).as_ref().is_some_and(waits) {
            self.emit(at, Purpose::Restore, StorageAction::ReadQueue { queue: at.number });
        }
    }

    /// Reading it again failed, too: it is tried again later.
    pub(super) fn restore_later(&mut self, at: QueueRef, now: Now) {
        if let Some(queue) = self.queues.at(at) {
            queue.health = Health::Postponed;
            self.restore_at.insert((now.instant + RESTORE_INTERVAL, at));
        }
    }

    /// Reads again what is due.
    pub(super) fn restore_due(&mut self, now: Now) {
        while let Some((due, at)) = self.restore_at.first().copied()
            && due <= now.instant
        {
            self.restore_at.remove(&(due, at));
            self.doubt(at);
            self.restore_when_quiet(at);
        }
    }

    /// Storage has told what it holds of a queue.
    pub(super) fn restored(&mut self, at: QueueRef, stored: Option<Box<StoredQueue>>) {
        let Some(stored) = stored else {
            // Its creation failed, or its deletion took effect after all.
            if let Some(mut queue) = self.queues.remove(at.slot) {
                self.detach_all(at.slot, &mut queue);
            }
            return;
        };
        let StoredQueue { record, messages, .. } = *stored;
        let notifier_changed =
            self.queues.get(at.slot).is_some_and(|queue| queue.record.notifier != record.notifier);
        if notifier_changed {
            self.end_notifications(at);
        }
        self.queues.replace_record(at.slot, record);
        let Some(queue) = self.queues.at(at) else { return };
        queue.health = Health::Sound;
        let messages: Vec<Waiting> =
            messages.into_iter().map(|(sequence, mark)| Waiting { sequence, mark, stored: true }).collect();
        let last = messages.last().map_or(0, |last| last.sequence.0.saturating_add(1));
        queue.next_sequence = queue.next_sequence.max(last);
        let activity = queue.activity_mut();
        activity.messages = messages.into();
        if let Some(subscription) = &mut activity.subscription
            && let Delivering::Sent { .. } = subscription.delivery
        {
            // Its acknowledgement may have been refused meanwhile: it is delivered once more, under the same id.
            subscription.delivery = Delivering::Idle;
        }
        queue.rest();
        self.enter_calendar(at);
        self.deliver_next(at);
    }
}
