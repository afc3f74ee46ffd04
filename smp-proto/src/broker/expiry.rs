//! Expiry: messages and notifications that nobody fetched in time.
//!
//! A calendar has each queue with messages under the time at which its oldest message expires, in coarse steps. So
//! looking for what is due never looks at anything else.

use super::actions::Purpose;
use super::queues::{QueueRef, Waiting};
use super::storage::StorageAction;
use super::{Broker, CALENDAR_INTERVAL};
use crate::time::{Now, UnixTime};

/// How many queues one call may look at; the rest is due at once.
const QUEUES_A_CALL: usize = 256;

/// The coarsest step of the calendar.
const LONGEST_STEP: i64 = 3600;

impl Broker {
    /// A step of the calendar in seconds: a hundredth of the messages' time to live, at most an hour.
    fn calendar_step(&self) -> i64 {
        let life = i64::try_from(self.config.message_time_to_live.as_secs()).unwrap_or(i64::MAX);
        (life / 100).clamp(1, LONGEST_STEP)
    }

    pub(super) fn start_calendar(&mut self, now: Now) {
        if self.calendar_at.is_none() {
            self.calendar_at = Some(now.instant);
        }
    }

    /// Enters a queue under the time at which its oldest message expires, unless it is entered already.
    pub(super) fn enter_calendar(&mut self, at: QueueRef) {
        let life = self.config.message_time_to_live;
        let step = self.calendar_step();
        let Some(activity) = self.queues.at(at).and_then(|queue| queue.activity.as_mut()) else { return };
        let Some(oldest) = activity.messages.front().filter(|_| !activity.in_calendar) else { return };
        // Rounded up: nothing is looked at before it can be due.
        let due = oldest.mark.timestamp.saturating_add(life).0.div_euclid(step).saturating_add(1);
        activity.in_calendar = true;
        self.calendar.entry(due).or_default().push_back(at);
    }

    pub(super) fn expire_due(&mut self, now: Now) {
        if self.calendar_at.is_none_or(|at| at > now.instant) {
            return;
        }
        let step = self.calendar_step();
        for _ in 0..QUEUES_A_CALL {
            let Some(mut due) = self.calendar.first_entry() else { break };
            if due.key().saturating_mul(step) > now.wall.0 {
                break;
            }
            let Some(at) = due.get_mut().pop_front() else {
                due.remove();
                continue;
            };
            self.expire_queue(at, now);
        }
        let more =
            self.calendar.first_key_value().is_some_and(|(due, _)| due.saturating_mul(step) <= now.wall.0);
        self.calendar_at = Some(if more { now.instant } else { now.instant + CALENDAR_INTERVAL });
    }

    fn expire_queue(&mut self, at: QueueRef, now: Now) {
        let oldest = now.wall.saturating_sub(self.config.message_time_to_live);
        let oldest_news = now.wall.saturating_sub(self.config.notification_time_to_live);
        let expired =
            |waiting: &Waiting, oldest: UnixTime| waiting.stored && waiting.mark.timestamp <= oldest;
        let Some(activity) = self.queues.at(at).and_then(|queue| queue.activity.as_mut()) else { return };
        activity.in_calendar = false;
        while activity.notifications.front().is_some_and(|news| news.timestamp < oldest_news) {
            activity.notifications.pop_front();
        }
        loop {
            let Some(activity) = self.queues.at(at).and_then(|queue| queue.activity.as_mut()) else { return };
            let Some(Waiting { sequence, mark, .. }) =
                activity.messages.pop_front_if(|waiting| expired(waiting, oldest))
            else {
                break;
            };
            self.emit(at, Purpose::Expire, StorageAction::DeleteMessage { queue: at.number, sequence, mark });
        }
        self.enter_calendar(at);
        if let Some(queue) = self.queues.at(at) {
            queue.rest();
        }
    }
}
