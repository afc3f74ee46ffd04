//! When storage fails: a queue in doubt accepts nothing until it has been read again.
//!
//! A failed action took no effect, so what the broker did in memory when it emitted the action is not true. Rather than
//! undo each kind of change, the broker waits until nothing is under way for the queue, reads what storage really holds,
//! and goes on with that. One mechanism, whatever failed.

use alloc::boxed::Box;

use super::actions::Purpose;
use super::queues::{Delivering, Health, Queue, QueueRef};
use super::storage::{StorageAction, StoredQueue};
use super::waiting::Waiting;
use super::{Broker, RestoreError};
use crate::time::{Duration, Now};
use crate::wire::error::SmpError;

/// The longest time between two attempts is 2 to this power, in seconds.
const LONGEST_DELAY: u8 = 6;

/// How many queues one call may ask for; the rest is due at once.
const QUEUES_A_CALL: usize = 256;

/// What every command gets that storage could not carry out, or whose queue is in doubt: it says nothing more.
pub(super) fn storage_failed() -> SmpError {
    SmpError::Store(b"storage is not available, try later".to_vec())
}

impl Broker {
    /// Distrusts a queue: it is read again when nothing is under way for it.
    pub(super) fn doubt(&mut self, at: QueueRef) {
        if let Some(queue) = self.queues.at(at).filter(|queue| !queue.health.is_doubtful()) {
            queue.health = Health::Doubtful { attempts: 0 };
        }
    }

    /// The same, but not at once: reading failed.
    pub(super) fn doubt_later(&mut self, at: QueueRef, now: Now) {
        let Some(queue) = self.queues.at(at) else { return };
        let attempts = match queue.health {
            Health::Postponed { .. } => return,
            Health::Doubtful { attempts } => attempts,
            Health::Sound | Health::Deleting | Health::Creating => 0,
        };
        queue.health = Health::Postponed { attempts: attempts.saturating_add(1) };
        let delay = Duration::from_secs(1 << attempts.min(LONGEST_DELAY));
        self.restore_at.insert((now.instant + delay, at));
    }

    /// Reads a queue in doubt again, when nothing else is under way for it.
    pub(super) fn restore_when_quiet(&mut self, at: QueueRef) {
        let waits =
            |queue: &&mut Queue| matches!(queue.health, Health::Doubtful { .. }) && queue.actions == 0;
        if self.queues.at(at).as_ref().is_some_and(waits) {
            self.emit(at, Purpose::Restore, StorageAction::ReadQueue { queue: at.number });
        }
    }

    /// Reads again what is due.
    pub(super) fn restore_due(&mut self, now: Now) {
        for _ in 0..QUEUES_A_CALL {
            let Some((due, at)) = self.restore_at.first().copied().filter(|(due, _)| *due <= now.instant)
            else {
                return;
            };
            self.restore_at.remove(&(due, at));
            if let Some(queue) = self.queues.at(at)
                && let Health::Postponed { attempts } = queue.health
            {
                queue.health = Health::Doubtful { attempts };
                self.restore_when_quiet(at);
            }
        }
    }

    /// Storage has told what it holds of a queue.
    pub(super) fn restored(&mut self, at: QueueRef, stored: Option<Box<StoredQueue>>, now: Now) {
        let Some(stored) = stored else {
            // A deletion that was reported as failed has taken effect after all.
            self.remove_queue(at, None);
            return;
        };
        if self.check_stored(at, &stored).is_err() {
            self.doubt_later(at, now);
            return;
        }
        let StoredQueue { record, messages, .. } = *stored;
        let notifier = record.notifier.as_ref().map(|notifier| notifier.notifier);
        self.queues.replace_record(at.slot, record);
        let Some(queue) = self.queues.at(at) else { return };
        queue.health = Health::Sound;
        let last = messages.last().map_or(0, |(last, _)| last.0.saturating_add(1));
        queue.next_sequence = queue.next_sequence.max(last);
        let activity = queue.activity_mut();
        activity.messages =
            messages.into_iter().map(|(sequence, mark)| Waiting { sequence, mark, stored: true }).collect();
        let delivered = activity.subscription.as_ref().and_then(|subscription| subscription.unacknowledged);
        let is_gone = delivered.is_some_and(|(sequence, _)| activity.messages.find(sequence).is_none());
        if let Some(subscription) = activity.subscription.as_mut().filter(|_| is_gone) {
            subscription.unacknowledged = None;
        }
        if activity.notifier.is_some_and(|subscribed| Some(subscribed.notifier) != notifier)
            && let Some(previous) = self.detach_notifier(at)
        {
            self.tell_notifier_deleted(previous);
        }
        self.enter_calendar(at);
        if let Some(queue) = self.queues.at(at) {
            queue.rest();
        }
        let is_idle = self
            .queues
            .at(at)
            .and_then(|queue| queue.subscription_mut())
            .is_some_and(|one| matches!(one.delivery, Delivering::Idle));
        if is_idle {
            // Also what was delivered before: its acknowledgement may have been refused meanwhile.
            self.read_head(at);
        }
    }

    /// Whether what was read can be this queue.
    fn check_stored(&self, at: QueueRef, stored: &StoredQueue) -> Result<(), RestoreError> {
        let StoredQueue { queue: number, record, messages } = stored;
        let queue = self.queues.get(at.slot).ok_or(RestoreError::Disorder)?;
        if *number != at.number
            || queue.record.recipient != record.recipient
            || queue.record.sender != record.sender
        {
            return Err(RestoreError::Disorder);
        }
        if let Some(notifier) = &record.notifier
            && self.queues.holder(&notifier.notifier).is_some_and(|slot| slot != at.slot)
        {
            return Err(RestoreError::IdInUse);
        }
        if let Some(link) = &record.link
            && self.queues.holder(&link.link).is_some_and(|slot| slot != at.slot)
        {
            return Err(RestoreError::IdInUse);
        }
        if messages.is_sorted_by(|(one, _), (other, _)| one < other) {
            Ok(())
        } else {
            Err(RestoreError::Disorder)
        }
    }
}
