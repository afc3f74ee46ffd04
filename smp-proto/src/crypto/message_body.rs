//! What a relay encrypts to the recipient and to the notifier (WIRE-FACTS 9).
//!
//! A message is boxed once more on its way from the relay to its recipient, so that the ciphertext which leaves the relay is
//! not the one that came in. The message id is the nonce: sent again, a message is byte for byte the same. Everything is
//! sealed in the caller's output buffer; the body is copied once.

use core::fmt;

use super::nacl_box::{self, BoxError, BoxKey, TAG_LENGTH};
use super::nonce::Nonce;
use super::padding::LENGTH_BYTES;
use super::provider::Provider;
use crate::time::UnixTime;

/// The largest body of a message that any version allows: 16,088 bytes.
pub const MAX_BODY_LENGTH: usize = 16_088;
/// What a message is padded to: 16,106 bytes.
pub const PADDED_LENGTH: usize = 16_106;
/// The ciphertext of every message: 16,122 bytes.
pub const SEALED_LENGTH: usize = PADDED_LENGTH + TAG_LENGTH;
/// What notification metadata is padded to: 128 bytes.
pub const NOTIFICATION_PADDED_LENGTH: usize = 128;
/// The ciphertext of notification metadata: 144 bytes.
pub const NOTIFICATION_SEALED_LENGTH: usize = NOTIFICATION_PADDED_LENGTH + TAG_LENGTH;

/// Timestamp (8 bytes), flag, space.
const HEADER_LENGTH: usize = 10;
/// What the plaintext of a quota marker begins with; the timestamp follows.
const QUOTA_PREFIX: &[u8; 6] = b"QUOTA ";
/// Where the text of a padded box begins.
const TEXT_OFFSET: usize = TAG_LENGTH + LENGTH_BYTES;

/// What a recipient finds in a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ReceivedMessage<'a> {
    /// A message.
    Message {
        /// When the relay received it.
        timestamp: UnixTime,
        /// The notification flag.
        notification: bool,
        /// What the sender sent, at most 16,088 bytes.
        body: &'a [u8],
    },
    /// In the place of the message that reached the queue's quota: senders wait until the queue is empty.
    QuotaExceeded {
        /// When that was.
        timestamp: UnixTime,
    },
}

impl fmt::Debug for ReceivedMessage<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message { body, .. } => write!(formatter, "Message({} bytes)", body.len()),
            Self::QuotaExceeded { .. } => formatter.write_str("QuotaExceeded"),
        }
    }
}

/// What a notifier finds in a notification.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NotificationMetadata<'a> {
    /// The id of the message, at most 255 bytes.
    pub message: &'a [u8],
    /// When the relay received it.
    pub timestamp: UnixTime,
}

impl fmt::Debug for NotificationMetadata<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("NotificationMetadata(..)")
    }
}

/// Why a message or notification cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The box cannot be opened.
    Box(BoxError),
    /// It was opened, but its plaintext has another form.
    Malformed,
}

impl fmt::Display for OpenError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Box(error) => error.fmt(formatter),
            Self::Malformed => formatter.write_str("a decrypted message has an unknown form"),
        }
    }
}

impl core::error::Error for OpenError {}

impl From<BoxError> for OpenError {
    fn from(error: BoxError) -> Self {
        Self::Box(error)
    }
}

/// Seals a message for its recipient, into the whole of `out`.
///
/// # Errors
/// [`BoxError::TooLong`] when the body has more than 16,088 bytes.
pub fn seal_message(
    provider: &dyn Provider,
    key: &BoxKey,
    id: &Nonce,
    timestamp: UnixTime,
    notification: bool,
    body: &[u8],
    out: &mut [u8; SEALED_LENGTH],
) -> Result<(), BoxError> {
    if body.len() > MAX_BODY_LENGTH {
        return Err(BoxError::TooLong);
    }
    let (header, rest) = text_of(out).split_first_chunk_mut::<HEADER_LENGTH>().ok_or(BoxError::TooLong)?;
    let [time @ .., flag, space] = header;
    *time = timestamp.0.to_be_bytes();
    *flag = if notification { b'T' } else { b'F' };
    *space = b' ';
    rest.get_mut(..body.len()).ok_or(BoxError::TooLong)?.copy_from_slice(body);
    nacl_box::seal_padded_in_place(provider, key, id, out, HEADER_LENGTH + body.len())
}

/// Seals the quota marker for a recipient, into the whole of `out`.
pub fn seal_quota_exceeded(
    provider: &dyn Provider,
    key: &BoxKey,
    id: &Nonce,
    timestamp: UnixTime,
    out: &mut [u8; SEALED_LENGTH],
) {
    let time = timestamp.0.to_be_bytes();
    for (place, &byte) in text_of(out).iter_mut().zip(QUOTA_PREFIX.iter().chain(&time)) {
        *place = byte;
    }
    let length = QUOTA_PREFIX.len() + time.len();
    let sealed = nacl_box::seal_padded_in_place(provider, key, id, out, length);
    debug_assert!(sealed.is_ok(), "14 bytes fit into 16,106");
}

/// Opens a message in place, for its recipient.
///
/// # Errors
/// [`OpenError`] when it is not from the relay, or not a message.
pub fn open_message<'a>(
    provider: &dyn Provider,
    key: &BoxKey,
    id: &Nonce,
    sealed: &'a mut [u8],
) -> Result<ReceivedMessage<'a>, OpenError> {
    ReceivedMessage::parse(nacl_box::open_padded(provider, key, id, sealed)?).ok_or(OpenError::Malformed)
}

impl<'a> ReceivedMessage<'a> {
    /// Reads the plaintext of a message. Unknown flags, up to the space, are skipped.
    #[must_use]
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        if let Some((time, rest)) =
            text.strip_prefix(QUOTA_PREFIX).and_then(|rest| rest.split_first_chunk::<8>())
        {
            let timestamp = UnixTime(i64::from_be_bytes(*time));
            return rest.is_empty().then_some(Self::QuotaExceeded { timestamp });
        }
        let (time, rest) = text.split_first_chunk::<8>()?;
        let (flag, rest) = rest.split_first()?;
        let notification = match flag {
            b'T' => true,
            b'F' => false,
            _ => return None,
        };
        let space = rest.iter().position(|&byte| byte == b' ')?;
        let body = rest.get(space + 1..)?;
        Some(Self::Message { timestamp: UnixTime(i64::from_be_bytes(*time)), notification, body })
    }
}

/// Seals the news of a message for a notifier, into the whole of `out`. The nonce is random, and goes with it.
///
/// # Errors
/// [`BoxError::TooLong`] when the message id has more than 117 bytes.
pub fn seal_notification(
    provider: &dyn Provider,
    key: &BoxKey,
    nonce: &Nonce,
    message: &[u8],
    timestamp: UnixTime,
    out: &mut [u8; NOTIFICATION_SEALED_LENGTH],
) -> Result<(), BoxError> {
    let length = u8::try_from(message.len()).map_err(|_| BoxError::TooLong)?;
    let time = timestamp.0.to_be_bytes();
    let text = [length];
    let text = text.iter().chain(message).chain(&time);
    for (place, &byte) in text_of(out).iter_mut().zip(text) {
        *place = byte;
    }
    nacl_box::seal_padded_in_place(provider, key, nonce, out, 1 + message.len() + time.len())
}

/// Opens the news of a message in place, for a notifier.
///
/// # Errors
/// [`OpenError`] when it is not from the relay, or not such news.
pub fn open_notification<'a>(
    provider: &dyn Provider,
    key: &BoxKey,
    nonce: &Nonce,
    sealed: &'a mut [u8],
) -> Result<NotificationMetadata<'a>, OpenError> {
    NotificationMetadata::parse(nacl_box::open_padded(provider, key, nonce, sealed)?)
        .ok_or(OpenError::Malformed)
}

impl<'a> NotificationMetadata<'a> {
    /// Reads the plaintext of a notification; what follows the timestamp is ignored.
    #[must_use]
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let (&length, rest) = text.split_first()?;
        let (message, rest) = rest.split_at_checked(usize::from(length))?;
        let (time, _) = rest.split_first_chunk::<8>()?;
        Some(Self { message, timestamp: UnixTime(i64::from_be_bytes(*time)) })
    }
}

/// The place of the text in a padded box.
fn text_of(sealed: &mut [u8]) -> &mut [u8] {
    sealed.get_mut(TEXT_OFFSET..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Portable;
    use alloc::vec;

    const ID: Nonce = Nonce([4; 24]);
    const TIME: UnixTime = UnixTime(1_700_000_000);

    fn key() -> BoxKey {
        BoxKey::from_symmetric(&[1; 32])
    }

    #[test]
    fn messages_of_every_size_come_back() {
        for length in [0, 1, 16_048, MAX_BODY_LENGTH] {
            let body = vec![8; length];
            let mut out = [0xFF; SEALED_LENGTH];
            for notification in [false, true] {
                assert_eq!(seal_message(&Portable, &key(), &ID, TIME, notification, &body, &mut out), Ok(()));
                let expected = ReceivedMessage::Message { timestamp: TIME, notification, body: &body };
                assert_eq!(open_message(&Portable, &key(), &ID, &mut out.clone()), Ok(expected));
            }
        }
        let too_long = vec![8; MAX_BODY_LENGTH + 1];
        assert_eq!(
            seal_message(&Portable, &key(), &ID, TIME, false, &too_long, &mut [0; SEALED_LENGTH]),
            Err(BoxError::TooLong)
        );
    }

    #[test]
    fn the_quota_marker_is_as_long_as_a_message_and_comes_back() {
        let mut out = [0xFF; SEALED_LENGTH];
        seal_quota_exceeded(&Portable, &key(), &ID, TIME, &mut out);
        let expected = ReceivedMessage::QuotaExceeded { timestamp: TIME };
        assert_eq!(open_message(&Portable, &key(), &ID, &mut out), Ok(expected));
    }

    #[test]
    fn notifications_come_back_and_forged_ones_are_refused() {
        let mut out = [0xFF; NOTIFICATION_SEALED_LENGTH];
        for length in [0, 24, 117] {
            let message = vec![6; length];
            assert_eq!(seal_notification(&Portable, &key(), &ID, &message, TIME, &mut out), Ok(()));
            let expected = NotificationMetadata { message: &message, timestamp: TIME };
            assert_eq!(open_notification(&Portable, &key(), &ID, &mut out.clone()), Ok(expected));
        }
        for length in [118, 255, 256, 300] {
            let result = seal_notification(&Portable, &key(), &ID, &vec![6; length], TIME, &mut out.clone());
            assert_eq!(result, Err(BoxError::TooLong));
        }
        out[100] ^= 1;
        assert_eq!(
            open_notification(&Portable, &key(), &ID, &mut out),
            Err(OpenError::Box(BoxError::Forged))
        );
    }

    #[test]
    fn a_short_text_that_begins_like_a_quota_marker_may_still_be_a_message() {
        // "QUOTA " and two bytes are a timestamp, if fewer than eight bytes follow the prefix.
        let text = b"QUOTA \0\0T b";
        let timestamp = UnixTime(i64::from_be_bytes(*b"QUOTA \0\0"));
        assert_eq!(
            ReceivedMessage::parse(text),
            Some(ReceivedMessage::Message { timestamp, notification: true, body: b"b" })
        );
        // With eight or more it is a quota marker, or nothing.
        assert_eq!(ReceivedMessage::parse(b"QUOTA \0\0T body."), None);
    }
}
