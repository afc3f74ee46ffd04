//! Expiry: messages and notifications that nobody fetched in time.
//!
//! A calendar has each queue with messages (and another one each queue with news for a notifier) under the time at which
//! the oldest expires, in coarse steps. So looking for what is due never looks at anything else. What is fetched in time
//! leaves its entry behind; it is dropped when its time comes. A third calendar has the invitations that nobody has used
//! yet: they are deleted with their link data when the operator wants that.

use alloc::collections::{BTreeMap, VecDeque};

use super::actions::Purpose;
use super::queues::{Health, QueueRef};
use super::record::QueueRecord;
use super::storage::StorageAction;
use super::waiting::Waiting;
use super::{Broker, CALENDAR_INTERVAL};
use crate::time::{Duration, Instant, Now, UnixTime};
use crate::wire::command::QueueMode;

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

impl QueueRecord {
    /// Whether it is a queue between two that nobody has secured.
    const fn is_unused_invitation(&self) -> bool {
        matches!(self.mode, Some(QueueMode::Messaging)) && self.sender_key.is_none()
    }
}

impl Broker {
    /// When expiry is to be looked at; `None` when nothing can expire.
    pub(super) fn expiry_deadline(&self) -> Option<Instant> {
        let unsecured = self.unsecured_calendar.as_ref().is_some_and(|calendar| !calendar.is_empty());
        (!self.calendar.is_empty() || !self.news_calendar.is_empty() || unsecured || self.blobs.can_expire())
            .then_some(self.calendar_at)
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

    /// Enters a queue that may expire unused, when it has no entry.
    pub(super) fn watch_unsecured(&mut self, at: QueueRef) {
        let Some(calendar) = &mut self.unsecured_calendar else { return };
        if let Some(queue) = self.queues.at(at).filter(|queue| queue.record.is_unused_invitation()) {
            calendar.enter(queue.record.updated, at);
        }
    }

    /// The time of a queue has come: it is deleted if nobody has secured it.
    fn expire_unsecured(&mut self, at: QueueRef, wall: UnixTime) {
        let Some(calendar) = &mut self.unsecured_calendar else { return };
        let Some(queue) = self.queues.at(at) else { return };
        if queue.health != Health::Sound || queue.actions > 0 {
            // What it will be is not known yet: looked at again a step later.
            calendar.enter(wall.saturating_sub(calendar.life), at);
        } else if !queue.record.is_unused_invitation() {
            // It never becomes one again.
        } else if calendar.has_expired(queue.record.updated, wall) {
            queue.health = Health::Deleting;
            self.emit(at, Purpose::ExpireQueue, StorageAction::DeleteQueue { queue: at.number });
        } else {
            calendar.enter(queue.record.updated, at);
        }
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
            } else if let Some(at) = self.unsecured_calendar.as_mut().and_then(|one| one.pop_due(wall)) {
                self.expire_unsecured(at, wall);
            } else {
                break;
            }
        }
        self.expire_blobs(wall);
        let more = self.calendar.has_due(wall)
            || self.blobs.has_due(wall)
            || self.news_calendar.has_due(wall)
            || self.unsecured_calendar.as_ref().is_some_and(|calendar| calendar.has_due(wall));
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
