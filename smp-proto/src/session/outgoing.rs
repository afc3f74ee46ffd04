//! What a relay wants said on a connection, before a session encodes and encrypts it.
//!
//! The broker decides what to say while it is held; encoding, boxing of message bodies and block encryption happen in
//! [`ServerSession::pack`](super::server::ServerSession::pack), on the connection's own time.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::forwarded::Envelope;
use crate::keys::X25519Public;
use crate::time::UnixTime;
use crate::wire::error::SmpError;
use crate::wire::identifier::{IDENTIFIER_LENGTH, Identifier};
use crate::wire::response::{CreatedQueue, NotifierIds};
use crate::wire::version::VersionRange;
use crate::wire::{CorrelationId, EntityId};

/// One transmission that a relay will send.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The correlation of the command that this answers; empty for what the relay says by itself.
    pub correlation: CorrelationId,
    /// The entity.
    pub entity: EntityId,
    /// What is said.
    pub content: OutgoingContent,
    /// For whom it is boxed, when it answers a forwarded command: it goes into an `RRES` then.
    pub forwarded: Option<Arc<Envelope>>,
}

impl Outgoing {
    /// A transmission that answers no forwarded command.
    #[must_use]
    pub const fn new(correlation: CorrelationId, entity: EntityId, content: OutgoingContent) -> Self {
        Self { correlation, entity, content, forwarded: None }
    }
}

/// What is said.
#[derive(Clone, Debug)]
pub enum OutgoingContent {
    /// `IDS`
    Created(Box<CreatedQueue>),
    /// `NID`
    NotifierId(Box<NotifierIds>),
    /// `OK`
    Ok,
    /// `SOK`, or `OK` below v16.
    Subscribed,
    /// `SOK` with the service's id: subscribed as a service.
    SubscribedService([u8; IDENTIFIER_LENGTH]),
    /// `SOKS`: a service is subscribed to so many queues.
    ServiceSubscribed(i64),
    /// `ENDS`: another connection of the service subscribed.
    ServiceEnd(i64),
    /// The third block of a service's handshake: it is accepted under this id.
    ServiceAccepted([u8; IDENTIFIER_LENGTH]),
    /// The third block of a service's handshake: it is refused.
    ServiceRefused,
    /// `PONG`
    Pong,
    /// `MSG`, boxed by the session.
    Message(Delivery),
    /// `NMSG`, boxed by the session.
    Notification(Box<NotificationDelivery>),
    /// `LNK`
    Link(Box<LinkAnswer>),
    /// `BLOB`, boxed by the session.
    Blob(Box<BlobAnswer>),
    /// `PKEY`
    ProxySession(Arc<ProxySession>),
    /// `PRES`: the inner box of a destination's answer.
    ProxyResponse(Bytes),
    /// `END`
    End,
    /// `DELD`, or `END` below v10.
    Deleted,
    /// `INFO`: JSON text.
    Information(Box<String>),
    /// `ERR`
    Error(SmpError),
}

impl OutgoingContent {
    /// Whether it has a body that was read from storage: as much as a block.
    #[must_use]
    pub const fn has_body(&self) -> bool {
        matches!(self, Self::Message(_) | Self::Link(_) | Self::Blob(_))
    }
}

/// A proxy's session with a destination, as clients are told.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxySession {
    /// Its session id.
    pub session: Identifier,
    /// The versions that the client may choose from.
    pub versions: VersionRange,
    /// The destination's certificates, as they are on the wire.
    pub chain: Vec<u8>,
    /// The destination's session key, signed by the leaf, in DER.
    pub signed_key: Vec<u8>,
}

impl core::fmt::Debug for ProxySession {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.debug_struct("ProxySession").field("versions", &self.versions).finish_non_exhaustive()
    }
}

/// A blob on its way to a reader.
#[derive(Clone)]
pub struct BlobAnswer {
    /// The key that the reader asked with.
    pub reader: X25519Public,
    /// The blob, as its owner wrote it.
    pub blob: Bytes,
}

impl core::fmt::Debug for BlobAnswer {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "BlobAnswer({} bytes)", self.blob.len())
    }
}

/// Link data on its way to whoever has the link.
#[derive(Clone)]
pub struct LinkAnswer {
    /// The queue's sender id.
    pub sender: [u8; IDENTIFIER_LENGTH],
    /// The encrypted fixed data.
    pub fixed: Bytes,
    /// The encrypted user data.
    pub user: Bytes,
}

impl core::fmt::Debug for LinkAnswer {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "LinkAnswer({} and {} bytes)", self.fixed.len(), self.user.len())
    }
}

/// A message on its way to its recipient.
#[derive(Clone)]
pub struct Delivery {
    /// The keys that it is boxed with.
    pub secret: DeliverySecret,
    /// The message id, also the nonce.
    pub id: [u8; IDENTIFIER_LENGTH],
    /// When the relay received it.
    pub timestamp: UnixTime,
    /// The message, or `None` for the quota marker.
    pub message: Option<DeliveredMessage>,
}

/// The sender's part of a [`Delivery`].
#[derive(Clone)]
pub struct DeliveredMessage {
    /// The notification flag.
    pub notification: bool,
    /// The body: up to 16,088 bytes.
    pub body: Bytes,
}

/// News of a message, on its way to a notifier.
#[derive(Clone)]
pub struct NotificationDelivery {
    /// The keys that the metadata is boxed with.
    pub secret: DeliverySecret,
    /// The nonce.
    pub nonce: [u8; IDENTIFIER_LENGTH],
    /// The message's id.
    pub message: [u8; IDENTIFIER_LENGTH],
    /// The message's time.
    pub timestamp: UnixTime,
}

impl core::fmt::Debug for Delivery {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str(if self.message.is_some() { "Delivery(message)" } else { "Delivery(quota)" })
    }
}

impl core::fmt::Debug for NotificationDelivery {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("NotificationDelivery(..)")
    }
}

/// The two X25519 keys whose shared secret encrypts what the relay sends to a recipient or notifier.
///
/// The shared secret is computed by the session that delivers with it, and cached there: so creating a queue costs one
/// scalar multiplication less, and the expensive part never runs while the broker is held.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct DeliverySecret {
    /// The relay's private key for this queue.
    pub relay: [u8; 32],
    /// The recipient's or notifier's public key.
    #[zeroize(skip)]
    pub peer: X25519Public,
}

impl core::fmt::Debug for DeliverySecret {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("DeliverySecret(..)")
    }
}
