//! What is kept of a queue, in memory and in storage, and its stored form.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::num::NonZeroU32;

use crate::keys::{AuthKey, Ed448Public, Ed25519Public, X25519Public};
use crate::session::outgoing::DeliverySecret;
use crate::time::UnixTime;
use crate::wire::command::QueueMode;
use crate::wire::error::{Blocked, BlockingReason};
use crate::wire::hello::ServiceRole;
use crate::wire::identifier::IDENTIFIER_LENGTH;

/// A queue's identity, keys and state: everything but its messages and subscriptions.
#[derive(Clone, PartialEq, Eq)]
pub struct QueueRecord {
    /// The recipient's id.
    pub recipient: [u8; IDENTIFIER_LENGTH],
    /// The sender's id.
    pub sender: [u8; IDENTIFIER_LENGTH],
    /// Who may receive: one key, or several for a contact address after `RKEY`.
    pub recipient_keys: RecipientKeys,
    /// With what messages are encrypted to the recipient.
    pub recipient_secret: DeliverySecret,
    /// Who may send: `None` until the queue is secured.
    pub sender_key: Option<AuthKey>,
    /// What the queue is for; `None` when the client was too old to say.
    pub mode: Option<QueueMode>,
    /// Whether it accepts messages.
    pub status: QueueStatus,
    /// The notifier, when notifications are on.
    pub notifier: Option<Box<NotifierRecord>>,
    /// The link, when there is link data.
    pub link: Option<Box<LinkRecord>>,
    /// The day (seconds of its start) on which the queue was created or last used by its recipient: coarse, so that
    /// storage tells little about when people talk.
    pub updated: UnixTime,
}

impl core::fmt::Debug for QueueRecord {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter
            .debug_struct("QueueRecord")
            .field("mode", &self.mode)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// The keys that authorize the recipient's commands: any of them does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecipientKeys {
    /// The usual case.
    One(AuthKey),
    /// A contact address with several owners: 1 to 255 keys.
    Several(Box<[AuthKey]>),
}

/// Whether a queue accepts messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueStatus {
    /// It does.
    Active,
    /// The recipient suspended it (`OFF`): it delivers what it has.
    Suspended,
    /// The operator blocked it.
    Blocked(Blocked),
}

/// A queue's notifier.
#[derive(Clone, PartialEq, Eq)]
pub struct NotifierRecord {
    /// The notifier's id.
    pub notifier: [u8; IDENTIFIER_LENGTH],
    /// Who may subscribe.
    pub key: AuthKey,
    /// With what notification metadata is encrypted.
    pub secret: DeliverySecret,
    /// The service that is told of messages, when one subscribed to it.
    pub service: Option<ServiceNumber>,
}

/// A queue's link, as far as the broker must know it; the data itself is in storage.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkRecord {
    /// The link id.
    pub link: [u8; IDENTIFIER_LENGTH],
    /// The SHA-256 of the fixed data, which never changes: `LSET` must bring the same.
    pub fixed: [u8; 32],
}

/// The key of a service in storage. Internal: never on the wire, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceNumber(pub NonZeroU32);

/// What is kept of a service.
#[derive(Clone, PartialEq, Eq)]
pub struct ServiceRecord {
    /// The id that the service is told, always the same.
    pub id: [u8; IDENTIFIER_LENGTH],
    /// What it is: fixed when it comes for the first time.
    pub role: ServiceRole,
    /// The SHA-256 of its identity certificate.
    pub fingerprint: [u8; 32],
    /// The day (seconds of its start) on which it came for the first time.
    pub created: UnixTime,
}

impl core::fmt::Debug for ServiceRecord {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "ServiceRecord({:?})", self.role)
    }
}

impl ServiceRecord {
    /// Appends the stored form, 66 bytes: layout (1, always 1) ‖ id (24) ‖ role letter (1) ‖ fingerprint (32) ‖ created
    /// (8).
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(1);
        out.extend_from_slice(&self.id);
        out.push(self.role.letter());
        out.extend_from_slice(&self.fingerprint);
        out.extend_from_slice(&self.created.0.to_be_bytes());
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`RecordError`] when the bytes are not a whole record of a known layout.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        match bytes.split_first() {
            Some((1, rest)) => {
                let mut rest = Rest(rest);
                Self::decode_rest(&mut rest).filter(|_| rest.0.is_empty()).ok_or(RecordError::Damaged)
            }
            Some((&layout, _)) if layout > 1 => Err(RecordError::NewerLayout(layout)),
            _ => Err(RecordError::Damaged),
        }
    }

    fn decode_rest(rest: &mut Rest<'_>) -> Option<Self> {
        let id = rest.array()?;
        let role = match rest.byte()? {
            b'M' => ServiceRole::Messaging,
            b'N' => ServiceRole::Notifier,
            b'P' => ServiceRole::Proxy,
            _ => return None,
        };
        let fingerprint = rest.array()?;
        Some(Self { id, role, fingerprint, created: UnixTime(i64::from_be_bytes(rest.array()?)) })
    }
}

/// What is kept of a blob, beside its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobRecord {
    /// The owner's key.
    pub key: AuthKey,
    /// The day (seconds of its start) of the last `WRT`.
    pub written: UnixTime,
}

impl BlobRecord {
    /// Appends the stored form, up to 67 bytes: layout (1, always 1) ‖ kind of key (1) ‖ key ‖ written (8).
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(1);
        put_key(out, &self.key);
        out.extend_from_slice(&self.written.0.to_be_bytes());
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`RecordError`] when the bytes are not a whole record of a known layout.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        match bytes.split_first() {
            Some((1, rest)) => {
                let mut rest = Rest(rest);
                let key = rest.key().ok_or(RecordError::Damaged)?;
                let written = UnixTime(i64::from_be_bytes(rest.array().ok_or(RecordError::Damaged)?));
                if rest.0.is_empty() { Ok(Self { key, written }) } else { Err(RecordError::Damaged) }
            }
            Some((&layout, _)) if layout > 1 => Err(RecordError::NewerLayout(layout)),
            _ => Err(RecordError::Damaged),
        }
    }
}

/// The first byte of every stored record: the version of the layout below.
const LAYOUT: u8 = 2;

/// The layout of relays that knew neither links nor services.
const LAYOUT_WITHOUT_LINKS: u8 = 1;

/// Why a stored record cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// It was written by a newer release.
    NewerLayout(u8),
    /// It is cut short or holds an impossible value.
    Damaged,
}

impl core::fmt::Display for RecordError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NewerLayout(layout) => {
                write!(formatter, "a queue record has layout {layout}, which only a newer release can read")
            }
            Self::Damaged => formatter.write_str("a queue record is damaged"),
        }
    }
}

impl core::error::Error for RecordError {}

impl QueueRecord {
    /// Appends the stored form: about 180 bytes, 100 more with a notifier, 60 more with a link.
    ///
    /// Layout 2: layout (1) ‖ recipient id (24) ‖ sender id (24) ‖ count of recipient keys (1) ‖ keys ‖ delivery secret
    /// (64) ‖ sender key or a 0 byte ‖ mode (1) ‖ status (1, a blocked one with reason and notice) ‖ 0, or 1 ‖ notifier
    /// id (24) ‖ key ‖ secret (64) ‖ service (4, 0 for none) ‖ updated (8) ‖ 0, or 1 ‖ link id (24) ‖ hash of the fixed data
    /// (32). A key is a kind byte (1 Ed25519, 2 Ed448, 3 X25519) and its raw bytes. Layout 1, which is still
    /// read, has no services and ends with `updated`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(LAYOUT);
        out.extend_from_slice(&self.recipient);
        out.extend_from_slice(&self.sender);
        let keys = self.recipient_keys.as_slice();
        out.push(u8::try_from(keys.len()).unwrap_or(u8::MAX));
        for key in keys.iter().take(255) {
            put_key(out, key);
        }
        put_secret(out, &self.recipient_secret);
        match &self.sender_key {
            None => out.push(0),
            Some(key) => put_key(out, key),
        }
        out.push(match self.mode {
            None => 0,
            Some(QueueMode::Messaging) => 1,
            Some(QueueMode::Contact) => 2,
        });
        match &self.status {
            QueueStatus::Active => out.push(1),
            QueueStatus::Suspended => out.push(2),
            QueueStatus::Blocked(blocked) => {
                out.push(3);
                out.push(match blocked.reason {
                    BlockingReason::Spam => 1,
                    BlockingReason::Content => 2,
                });
                match blocked.notice {
                    None => out.push(0),
                    Some(None) => out.push(1),
                    Some(Some(seconds)) => {
                        out.push(2);
                        out.extend_from_slice(&seconds.to_be_bytes());
                    }
                }
            }
        }
        match &self.notifier {
            None => out.push(0),
            Some(notifier) => {
                out.push(1);
                out.extend_from_slice(&notifier.notifier);
                put_key(out, &notifier.key);
                put_secret(out, &notifier.secret);
                put_service(out, notifier.service);
            }
        }
        out.extend_from_slice(&self.updated.0.to_be_bytes());
        match &self.link {
            None => out.push(0),
            Some(link) => {
                out.push(1);
                out.extend_from_slice(&link.link);
                out.extend_from_slice(&link.fixed);
            }
        }
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`RecordError`] when the bytes are not a whole record of a known layout.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let (&layout, rest) = bytes.split_first().ok_or(RecordError::Damaged)?;
        if layout > LAYOUT {
            return Err(RecordError::NewerLayout(layout));
        }
        if layout < LAYOUT_WITHOUT_LINKS {
            return Err(RecordError::Damaged);
        }
        let mut rest = Rest(rest);
        let record = Self::decode_layout(&mut rest, layout).ok_or(RecordError::Damaged)?;
        if rest.0.is_empty() { Ok(record) } else { Err(RecordError::Damaged) }
    }

    fn decode_layout(rest: &mut Rest<'_>, layout: u8) -> Option<Self> {
        let with_links = layout > LAYOUT_WITHOUT_LINKS;
        let recipient = rest.array()?;
        let sender = rest.array()?;
        let count = rest.byte()?;
        let recipient_keys = match count {
            0 => return None,
            1 => RecipientKeys::One(rest.key()?),
            _ => RecipientKeys::Several((0..count).map(|_| rest.key()).collect::<Option<_>>()?),
        };
        let recipient_secret = rest.secret()?;
        let sender_key = rest.optional_key()?;
        let mode = match rest.byte()? {
            0 => None,
            1 => Some(QueueMode::Messaging),
            2 => Some(QueueMode::Contact),
            _ => return None,
        };
        let status = match rest.byte()? {
            1 => QueueStatus::Active,
            2 => QueueStatus::Suspended,
            3 => {
                let reason = match rest.byte()? {
                    1 => BlockingReason::Spam,
                    2 => BlockingReason::Content,
                    _ => return None,
                };
                let notice = match rest.byte()? {
                    0 => None,
                    1 => Some(None),
                    2 => Some(Some(i64::from_be_bytes(rest.array()?))),
                    _ => return None,
                };
                QueueStatus::Blocked(Blocked { reason, notice })
            }
            _ => return None,
        };
        let notifier = match rest.byte()? {
            0 => None,
            1 => Some(Box::new(NotifierRecord {
                notifier: rest.array()?,
                key: rest.key()?,
                secret: rest.secret()?,
                service: if with_links { rest.service()? } else { None },
            })),
            _ => return None,
        };
        let updated = UnixTime(i64::from_be_bytes(rest.array()?));
        let link = match if with_links { rest.byte()? } else { 0 } {
            0 => None,
            1 => Some(Box::new(LinkRecord { link: rest.array()?, fixed: rest.array()? })),
            _ => return None,
        };
        Some(Self {
            recipient,
            sender,
            recipient_keys,
            recipient_secret,
            sender_key,
            mode,
            status,
            notifier,
            link,
            updated,
        })
    }
}

impl RecipientKeys {
    /// The keys, at least one.
    #[must_use]
    pub fn as_slice(&self) -> &[AuthKey] {
        match self {
            Self::One(key) => core::slice::from_ref(key),
            Self::Several(keys) => keys,
        }
    }
}

fn put_key(out: &mut Vec<u8>, key: &AuthKey) {
    match key {
        AuthKey::Ed25519(Ed25519Public(raw)) => {
            out.push(1);
            out.extend_from_slice(raw);
        }
        AuthKey::Ed448(Ed448Public(raw)) => {
            out.push(2);
            out.extend_from_slice(raw);
        }
        AuthKey::X25519(X25519Public(raw)) => {
            out.push(3);
            out.extend_from_slice(raw);
        }
    }
}

fn put_secret(out: &mut Vec<u8>, secret: &DeliverySecret) {
    out.extend_from_slice(&secret.relay);
    out.extend_from_slice(&secret.peer.0);
}

fn put_service(out: &mut Vec<u8>, service: Option<ServiceNumber>) {
    out.extend_from_slice(&service.map_or(0, |service| service.0.get()).to_be_bytes());
}

/// What is left to read of a stored record.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn array<const LENGTH: usize>(&mut self) -> Option<[u8; LENGTH]> {
        let (head, tail) = self.0.split_first_chunk()?;
        self.0 = tail;
        Some(*head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn optional_key(&mut self) -> Option<Option<AuthKey>> {
        Some(Some(match self.byte()? {
            0 => return Some(None),
            1 => AuthKey::Ed25519(Ed25519Public(self.array()?)),
            2 => AuthKey::Ed448(Ed448Public(self.array()?)),
            3 => AuthKey::X25519(X25519Public(self.array()?)),
            _ => return None,
        }))
    }

    fn key(&mut self) -> Option<AuthKey> {
        self.optional_key()?
    }

    fn secret(&mut self) -> Option<DeliverySecret> {
        Some(DeliverySecret { relay: self.array()?, peer: X25519Public(self.array()?) })
    }

    fn service(&mut self) -> Option<Option<ServiceNumber>> {
        Some(NonZeroU32::new(u32::from_be_bytes(self.array()?)).map(ServiceNumber))
    }
}
