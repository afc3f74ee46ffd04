//! Expiry: messages and notifications that nobody fetched in time.
//!
//! A calendar has each queue with messages (and another one each queue with news for a notifier) under the time at which
//! the oldest expires, in coarse steps. So looking for what is due never looks at anything else. What is fetched in time
//! leaves its entry behind; it is dropped when its time comes.

use alloc::collections::{BTreeMap, VecDeque};

use super::actions::Purpose;
use super::queues::{Health, QueueRef};
use super::storage::StorageAction;
use super::waiting::Waiting;
use super::{Broker, CALENDAR_INTERVAL};
use crate::time::{Duration, Instant, Now, UnixTime};

/// How many queues one call may look at; the rest is due at once.
const QUEUES_A_CALL: usize = 256;

/// With so many storage actions under way, expiry waits: what people wait for goes first.
const BUSY: usize = 16_384;

/// How long expiry waits for storage that is busy.
const BUSY_INTERVAL: Duration = Duration::from_secs(1);

/// The coarsest step of a calendar, in seconds.
const LONGEST_STEP: i64 = 3600;

/// Queues by when their oldest entry expires.
pub(super) struct Calendar {
    life: Duration,
    /// In seconds: a hundredth of the time to live, at most an hour.
    step: i64,
    buckets: BTreeMap<i64, VecDeque<QueueRef>>,
}

impl Calendar {
    pub(super) fn new(life: Duration) -> Self {
        let seconds = i64::try_from(life.as_secs()).unwrap_or(i64::MAX);
        Self { life, step: (seconds / 100).clamp(1, LONGEST_STEP), buckets: BTreeMap::new() }
    }

    /// Enters a queue whose oldest entry is of this time. Rounded up: nothing is looked at before it can be due.
    fn enter(&mut self, oldest: UnixTime, at: QueueRef) {
        let due = oldest.saturating_add(self.life).0.div_euclid(self.step).saturating_add(1);
        self.buckets.entry(due).or_default().push_back(at);
    }

    fn pop_due(&mut self, now: UnixTime) -> Option<QueueRef> {
        loop {
            let mut due = self.buckets.first_entry()?;
            if due.key().saturating_mul(self.step) > now.0 {
                return None;
            }
            if let Some(at) = due.get_mut().pop_front() {
                return Some(at);
            }
            due.remove();
        }
    }

    fn has_due(&self, now: UnixTime) -> bool {
        self.buckets.first_key_value().is_some_and(|(due, _)| due.saturating_mul(self.step) <= now.0)
    }

    fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Whether something of this time has outlived its time to live.
    fn has_expired(&self, timestamp: UnixTime, now: UnixTime) -> bool {
        timestamp <= now.saturating_sub(self.life)
    }
}

/// The wall clock as expiry believes it: never faster than twice the monotonic clock.
///
/// A clock that jumps weeks ahead and back, as happens when time is set wrongly for a moment, must not delete what people
/// have not fetched yet. A true jump (the machine slept) is caught up with, or at the next start.
#[derive(Default)]
pub(super) struct ExpiryClock {
    last: Option<Now>,
}

impl ExpiryClock {
    fn read(&mut self, now: Now) -> UnixTime {
        let believed = match self.last {
            None => now.wall,
            Some(last) => {
                let elapsed = now.instant.saturating_since(last.instant);
                // Rounded up, so that frequent calls do not slow it down.
                let most = last.wall.saturating_add(elapsed * 2 + Duration::from_secs(1));
                now.wall.min(most)
            }
        };
        self.last = Some(Now { instant: now.instant, wall: believed });
        believed
    }
}

impl Broker {
    /// When expiry is to be looked at; `None` when nothing can expire.
    pub(super) fn expiry_deadline(&self) -> Option<Instant> {
        (!self.calendar.is_empty() || !self.news_calendar.is_empty()).then_some(self.calendar_at)
    }

    /// Enters a queue under the time at which its oldest message expires, unless it is entered already.
    pub(super) fn enter_calendar(&mut self, at: QueueRef) {
        let Some(queue) = self.queues.at(at).filter(|queue| !queue.in_calendar) else { return };
        let Some(oldest) = queue.head() else { return };
        queue.in_calendar = true;
        self.calendar.enter(oldest.mark.timestamp, at);
    }

    /// The same for the oldest news of its messages.
    pub(super) fn enter_news_calendar(&mut self, at: QueueRef) {
        let Some(queue) = self.queues.at(at).filter(|queue| !queue.in_news_calendar) else { return };
        let Some(oldest) = queue.activity.as_ref().and_then(|activity| activity.news.front()) else { return };
        let oldest = oldest.timestamp;
        queue.in_news_calendar = true;
        self.news_calendar.enter(oldest, at);
    }

    pub(super) fn expire_due(&mut self, now: Now) {
        if self.expiry_deadline().is_none_or(|at| at > now.instant) {
            return;
        }
        if self.actions.count() >= BUSY {
            self.calendar_at = now.instant + BUSY_INTERVAL;
            return;
        }
        let wall = self.expiry_clock.read(now);
        for _ in 0..QUEUES_A_CALL {
            if let Some(at) = self.calendar.pop_due(wall) {
                self.expire_messages(at, wall);
            } else if let Some(at) = self.news_calendar.pop_due(wall) {
                self.expire_news(at, wall);
            } else {
                break;
            }
        }
        let more = self.calendar.has_due(wall) || self.news_calendar.has_due(wall);
        self.calendar_at = if more { now.instant } else { now.instant + CALENDAR_INTERVAL };
    }

    fn expire_messages(&mut self, at: QueueRef, wall: UnixTime) {
        let Some(queue) = self.queues.at(at) else { return };
        queue.in_calendar = false;
        // A queue in doubt is entered again when it has been read.
        while let Some(queue) = self.queues.at(at).filter(|queue| queue.health == Health::Sound)
            && let Some(Waiting { sequence, mark, .. }) = queue.head()
            && self.calendar.has_expired(mark.timestamp, wall)
        {
            queue.activity_mut().messages.remove(sequence);
            self.emit(at, Purpose::Expire, StorageAction::DeleteMessage { queue: at.number, sequence, mark });
        }
        self.enter_calendar(at);
        if let Some(queue) = self.queues.at(at) {
            queue.rest();
        }
    }

    fn expire_news(&mut self, at: QueueRef, wall: UnixTime) {
        let Some(queue) = self.queues.at(at) else { return };
        queue.in_news_calendar = false;
        if let Some(activity) = &mut queue.activity {
            while activity
                .news
                .front()
                .is_some_and(|news| self.news_calendar.has_expired(news.timestamp, wall))
            {
                activity.news.pop_front();
            }
        }
        self.enter_news_calendar(at);
        if let Some(queue) = self.queues.at(at) {
            queue.rest();
        }
    }
}
