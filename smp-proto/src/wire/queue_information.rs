//! What a relay tells of a queue for debugging: the JSON of `INFO` (WIRE-FACTS 5.3).
//!
//! Only the relay's side: it writes the members in the reference's order. A client shows the text as it is, because
//! nothing may depend on it.

use alloc::string::String;
use core::fmt::{self, Write as _};

use super::base64url;
use super::identifier::Identifier;
use crate::time::UnixTime;

/// A queue as its relay sees it at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueInformation {
    /// Whether the sender's key is set.
    pub secured: bool,
    /// Whether there is a notifier.
    pub notifications: bool,
    /// Who is subscribed, when anybody is.
    pub subscription: Option<SubscriptionInformation>,
    /// How many messages wait.
    pub waiting: usize,
    /// The first message that waits, when it is known.
    pub first: Option<MessageInformation>,
}

/// How far the delivery to a subscriber is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionInformation {
    /// The state of the delivery.
    pub state: DeliveryState,
    /// The message that was delivered and is not acknowledged.
    pub delivered: Option<Identifier>,
}

/// The states of a delivery, by the names that they have in the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryState {
    /// `noSub`: nothing is being delivered.
    Idle,
    /// `subPending`: about to be delivered.
    Pending,
    /// `subThread`: delivered, and waiting to be acknowledged.
    Delivered,
    /// `prohibitSub`: the connection takes messages with `GET`.
    Prohibited,
}

/// A message, without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageInformation {
    /// The message id.
    pub id: Identifier,
    /// When the relay received it.
    pub timestamp: Timestamp,
    /// Whether it is the marker of a full queue.
    pub quota: bool,
}

/// A moment, written as `2023-11-14T22:13:20Z`, with a fraction of up to 12 digits when there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamp {
    /// Seconds since the epoch.
    pub seconds: UnixTime,
    /// Millionths of a millionth of a second, below 10¹².
    pub picoseconds: u64,
}

impl From<UnixTime> for Timestamp {
    fn from(seconds: UnixTime) -> Self {
        Self { seconds, picoseconds: 0 }
    }
}

impl QueueInformation {
    /// The JSON of `INFO`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json = String::new();
        // Formatting into a string cannot fail.
        let _ = self.write(&mut json);
        json
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        write!(out, r#"{{"qiSnd":{},"qiNtf":{}"#, self.secured, self.notifications)?;
        if let Some(subscription) = &self.subscription {
            write!(out, r#","qiSub":{{"qSubThread":"{}""#, subscription.state.name())?;
            if let Some(delivered) = &subscription.delivered {
                write!(out, r#","qDelivered":"{}""#, base64url::encode(delivered.as_bytes()))?;
            }
            out.push('}');
        }
        write!(out, r#","qiSize":{}"#, self.waiting)?;
        if let Some(first) = &self.first {
            let id = base64url::encode(first.id.as_bytes());
            let kind = if first.quota { "quota" } else { "message" };
            write!(out, r#","qiMsg":{{"msgId":"{id}","msgTs":"{}","msgType":"{kind}"}}"#, first.timestamp)?;
        }
        out.push('}');
        Ok(())
    }
}

impl DeliveryState {
    /// The state's name in the JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "noSub",
            Self::Pending => "subPending",
            Self::Delivered => "subThread",
            Self::Prohibited => "prohibitSub",
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.seconds.0.div_euclid(86_400);
        let second = self.seconds.0.rem_euclid(86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(formatter, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        if self.picoseconds > 0 {
            let mut fraction = self.picoseconds;
            let mut digits = 12;
            while fraction.is_multiple_of(10) {
                fraction /= 10;
                digits -= 1;
            }
            write!(formatter, ".{fraction:0digits$}")?;
        }
        formatter.write_str("Z")
    }
}

/// Year, month and day of a day since 1970-01-01, in the Gregorian calendar.
///
/// Counted in eras of 400 years, which all have 146,097 days, and in years that begin in March, so that the day of a
/// leap year is the last one.
const fn civil(days: i64) -> (i64, i64, i64) {
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    let days = days.saturating_add(719_468);
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // March is month 0; 153 days in every five months from there.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let january_or_february = month >= 10;
    let year = era * 400 + year_of_era + if january_or_february { 1 } else { 0 };
    (year, if january_or_february { month - 9 } else { month + 3 }, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Timestamp::from(UnixTime(seconds)).to_string(), text);
        }
        for seconds in [i64::MIN, i64::MAX] {
            assert!(Timestamp::from(UnixTime(seconds)).to_string().ends_with('Z'));
        }
    }

    #[test]
    fn fractions_have_no_zeros_at_the_end() {
        for (picoseconds, end) in
            [(500_000_000_000, ":20.5Z"), (1, ":20.000000000001Z"), (120, ":20.00000000012Z")]
        {
            let time = Timestamp { seconds: UnixTime(1_700_000_000), picoseconds };
            assert!(time.to_string().ends_with(end), "{time}");
        }
    }
}
