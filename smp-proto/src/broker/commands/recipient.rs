//! `SUB`, `GET`, `ACK`, `OFF`, `DEL` and `QUE`: what a recipient may do with a queue (`KEY` is with the sender's `SKEY`).

use alloc::format;
use alloc::string::String;

use super::super::Broker;
use super::super::actions::Purpose;
use super::super::connections::{Address, ConnectionId};
use super::super::identifiers::Id;
use super::super::queues::{Delivering, Getter, Health, QueueRef, Subscription};
use super::super::record::QueueStatus;
use super::super::storage::{MessageKind, Sequence, StorageAction, StoredMessage};
use super::super::waiting::Waiting;
use super::Refused;
use crate::session::outgoing::OutgoingContent;
use crate::time::{Now, UnixTime};
use crate::wire::error::{CommandError, SmpError};
use crate::wire::{Identifier, base64url};

/// How many connections may take messages from one queue with `GET`: more are one recipient's mistake, and the first of
/// them is forgotten.
const GETTERS: usize = 16;

impl Broker {
    pub(super) fn subscribe(&mut self, to: &Address, at: QueueRef) -> Result<(), Refused> {
        self.check_blocked(at)?;
        let connection = to.connection;
        let activity = self.queues.at(at).and_then(|queue| queue.activity.as_mut());
        let (getting, subscribed) = match activity {
            None => (false, false),
            Some(activity) => (activity.getter(connection).is_some(), activity.is_subscribed(connection)),
        };
        if getting {
            return Err(CommandError::Prohibited.into());
        }
        if !subscribed {
            self.check_attachments(connection)?;
            self.attach(connection, at);
        }
        self.connections.say(to.clone(), OutgoingContent::Subscribed);
        let is_idle = self
            .queues
            .at(at)
            .and_then(|queue| queue.subscription_mut())
            .is_some_and(|one| matches!(one.delivery, Delivering::Idle));
        if is_idle {
            // Asked again in the same connection: what is unacknowledged is delivered again, under the same id.
            self.read_head(at);
        }
        Ok(())
    }

    /// Subscribes a connection to a queue; the previous subscriber gets `END`.
    pub(super) fn attach(&mut self, connection: ConnectionId, at: QueueRef) {
        let Some(queue) = self.queues.at(at) else { return };
        let recipient = queue.record.recipient;
        let previous = queue.activity_mut().subscription.replace(Subscription::new(connection));
        if let Some(previous) = previous {
            let id = previous.connection;
            self.drop_subscription(previous, recipient.into());
            if let Some(before) = self.connections.get_mut(id) {
                before.subscribed.remove(&at.slot);
            }
            self.connections.tell(id, recipient.into(), OutgoingContent::End);
        }
        if let Some(now) = self.connections.get_mut(connection) {
            now.subscribed.insert(at.slot);
        }
    }

    pub(super) fn get(&mut self, to: &Address, at: QueueRef) -> Result<(), Refused> {
        self.check_blocked(at)?;
        let connection = to.connection;
        let activity = self.queues.at(at).and_then(|queue| queue.activity.as_mut());
        let (known, subscribed) = match activity {
            None => (false, false),
            Some(activity) => (activity.getter(connection).is_some(), activity.is_subscribed(connection)),
        };
        if subscribed {
            return Err(CommandError::Prohibited.into());
        }
        if !known {
            self.check_attachments(connection)?;
            let Some(queue) = self.queues.at(at) else { return Err(SmpError::Authorization) };
            let getters = &mut queue.activity_mut().getters;
            let forgotten = (getters.len() >= GETTERS).then(|| getters.remove(0));
            getters.push(Getter { connection, delivered: None });
            if let Some(before) = forgotten.and_then(|getter| self.connections.get_mut(getter.connection)) {
                before.getting.remove(&at.slot);
            }
            if let Some(connection) = self.connections.get_mut(connection) {
                connection.getting.insert(at.slot);
            }
        }
        self.take_head(to.clone(), at);
        Ok(())
    }

    pub(super) fn acknowledge(
        &mut self,
        to: &Address,
        at: QueueRef,
        message: &Identifier,
    ) -> Result<(), Refused> {
        self.check_blocked(at)?;
        let queue = self.queues.at(at).ok_or(SmpError::Authorization)?;
        let fits = |(_, id): &mut (Sequence, Id)| message.is_empty() || message.as_bytes() == id;
        if let Some(subscription) = queue.subscription_of(to.connection) {
            let (sequence, _) = subscription.unacknowledged.take_if(fits).ok_or(SmpError::NoMessage)?;
            self.acknowledge_delivered(to, at, sequence);
            return Ok(());
        }
        let activity = queue.activity.as_mut().ok_or(SmpError::NoMessage)?;
        let getter = activity.getter(to.connection).ok_or(SmpError::NoMessage)?;
        let (sequence, _) = getter.delivered.take_if(fits).ok_or(SmpError::NoMessage)?;
        match activity.messages.remove(sequence) {
            // Acknowledged elsewhere or expired: it is gone, as the recipient wants.
            None => self.connections.say(to.clone(), OutgoingContent::Ok),
            Some(Waiting { mark, .. }) => {
                let action = StorageAction::DeleteMessage { queue: at.number, sequence, mark };
                self.emit(at, Purpose::AcknowledgeTaken(to.clone()), action);
            }
        }
        Ok(())
    }

    pub(super) fn suspend(&mut self, to: &Address, at: QueueRef, now: Now) -> Result<(), Refused> {
        self.change_record(to, at, Some(OutgoingContent::Ok), None, now, |record| {
            // A blocked queue stays blocked: the recipient cannot hide the operator's decision.
            if record.status == QueueStatus::Active {
                record.status = QueueStatus::Suspended;
            }
        });
        Ok(())
    }

    /// From now on nobody finds the queue: its recipient has decided so, whenever that is durable.
    pub(super) fn delete(&mut self, to: &Address, at: QueueRef) -> Result<(), Refused> {
        let queue = self.queues.at(at).ok_or(SmpError::Authorization)?;
        queue.health = Health::Deleting;
        self.emit(at, Purpose::DeleteQueue(to.clone()), StorageAction::DeleteQueue { queue: at.number });
        Ok(())
    }

    /// Describes the queue, for people who look for mistakes (WIRE-FACTS 5.3).
    pub(super) fn describe(&mut self, to: &Address, at: QueueRef) -> Result<(), Refused> {
        self.check_blocked(at)?;
        let queue = self.queues.at(at).ok_or(SmpError::Authorization)?;
        let mut text = format!(
            r#"{{"qiSnd":{},"qiNtf":{}"#,
            queue.record.sender_key.is_some(),
            queue.record.notifier.is_some(),
        );
        let subscription = queue.subscription_of(to.connection).map(|one| {
            let state = if matches!(one.delivery, Delivering::Idle) { "noSub" } else { "subPending" };
            (state, one.unacknowledged)
        });
        let taken = queue.activity.as_mut().and_then(|activity| activity.getter(to.connection));
        let taken = taken.map(|getter| ("prohibitSub", getter.delivered));
        if let Some((state, delivered)) = subscription.or(taken) {
            text += &format!(r#","qiSub":{{"qSubThread":"{state}""#);
            if let Some((_, id)) = delivered {
                text += &format!(r#","qDelivered":"{}""#, base64url::encode(&id));
            }
            text.push('}');
        }
        text += &format!(r#","qiSize":{}"#, queue.waiting());
        match queue.head() {
            None => self.say_description(to.clone(), text),
            Some(Waiting { sequence, mark, .. }) => {
                let action = StorageAction::ReadMessage { queue: at.number, sequence, mark };
                self.emit(at, Purpose::Describe(to.clone(), text, sequence), action);
            }
        }
        Ok(())
    }

    /// The oldest message has been read for a description.
    pub(in super::super) fn described(
        &mut self,
        at: QueueRef,
        to: Address,
        mut text: String,
        sequence: Sequence,
        message: Option<StoredMessage>,
    ) {
        let mark = self.queues.at(at).and_then(|queue| queue.mark_of(sequence));
        if let Some((message, mark)) = message.zip(mark) {
            let kind = match mark.kind {
                MessageKind::Ordinary => "message",
                MessageKind::Quota => "quota",
            };
            text += &format!(
                r#","qiMsg":{{"msgId":"{}","msgTs":"{}","msgType":"{kind}"}}"#,
                base64url::encode(&message.id),
                date_and_time(mark.timestamp),
            );
        }
        self.say_description(to, text);
    }

    fn say_description(&mut self, to: Address, mut text: String) {
        text.push('}');
        self.connections.say(to, OutgoingContent::Information(alloc::boxed::Box::new(text)));
    }
}

/// ISO 8601 in UTC: `2023-11-14T22:13:20Z`.
fn date_and_time(time: UnixTime) -> String {
    let (days, second) = (time.0.div_euclid(86_400), time.0.rem_euclid(86_400));
    // Days are counted from 1 March 0000, so that the day that leap years add is the last of its year; 400 years have
    // 146,097 days.
    let days = days.saturating_add(719_468);
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + era * 400 + next_year;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_in_its_international_form() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ];
        for (seconds, text) in cases {
            assert_eq!(date_and_time(UnixTime(seconds)), text);
        }
        for extreme in [i64::MIN, i64::MAX] {
            assert!(date_and_time(UnixTime(extreme)).ends_with('Z'));
        }
    }
}
