//! Commands that clients send (WIRE-FACTS 5), every one of versions 6 to 18.
//!
//! A command borrows its long parts from the block it was read from: no message body is copied.

use alloc::vec::Vec;

use super::address::ServerAddress;
use super::identifier::Identifier;
use super::version::Version;
use crate::keys::{AuthKey, X25519Public};

/// A command with its parameters. The entity it is about is in the [`Transmission`](super::transmission::Transmission).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// `NEW`: create a queue; entity empty, signed with the recipient key inside.
    New(NewQueue<'a>),
    /// `SUB`: subscribe to a queue; entity = recipient id.
    Subscribe,
    /// `KEY`: secure a queue with the sender's key; entity = recipient id.
    SecureByRecipient(AuthKey),
    /// `RKEY` (v15): replace the recipient keys of a contact queue; entity = recipient id.
    RecipientKeys(Vec<AuthKey>),
    /// `LSET` (v15): set or change link data; entity = recipient id.
    SetLink {
        /// The link id, 24 bytes.
        link: Identifier,
        /// The encrypted link data.
        data: LinkData<'a>,
    },
    /// `LDEL` (v15): delete link data; entity = recipient id.
    DeleteLink,
    /// `NKEY`: let a notifier subscribe; entity = recipient id.
    EnableNotifications(NotifierKeys),
    /// `NDEL`: no notifier any more; entity = recipient id.
    DisableNotifications,
    /// `GET`: take one message without subscribing; entity = recipient id.
    Get,
    /// `ACK`: the delivered message was processed; entity = recipient id.
    Acknowledge {
        /// The id of the delivered message, or empty.
        message: Identifier,
    },
    /// `OFF`: accept no more messages; entity = recipient id.
    Suspend,
    /// `DEL`: delete the queue; entity = recipient id.
    Delete,
    /// `QUE`: describe the queue, for debugging; entity = recipient id.
    QueueInformation,
    /// `SKEY` (v9): secure a messaging queue with the sender's key, which also authorizes; entity = sender id.
    SecureBySender(AuthKey),
    /// `SEND`: a message; entity = sender id.
    Send {
        /// Whether the notifier is to be told, and what later versions add.
        flags: MessageFlags,
        /// The body, opaque to the relay: up to 16,088 bytes, less in later versions (WIRE-FACTS 6).
        body: &'a [u8],
    },
    /// `PING`; entity empty.
    Ping,
    /// `LKEY` (v15): secure a messaging queue by its link and get the link data; entity = link id.
    SecureByLink(AuthKey),
    /// `LGET` (v15): get the link data of a contact queue; entity = link id.
    GetLink,
    /// `NSUB`: subscribe to notifications; entity = notifier id.
    SubscribeNotifications,
    /// `SUBS` (v16): subscribe to all queues of a service; entity = service id.
    SubscribeService,
    /// `NSUBS` (v16): subscribe to the notifications of all queues of a service; entity = service id.
    SubscribeServiceNotifications,
    /// `PRXY` (v8): connect to another relay; entity empty.
    ProxyConnect {
        /// The relay to connect to.
        relay: ServerAddress,
        /// The password for using this relay as a proxy.
        password: Option<Password<'a>>,
    },
    /// `PFWD` (v8): forward to another relay; entity = the session id from `PKEY`.
    ProxyForward {
        /// The version at which the destination processes the command.
        version: Version,
        /// The sender's fresh key for this command.
        key: X25519Public,
        /// The encrypted transmission, 16,242 bytes when made by a well-behaved client.
        transmission: &'a [u8],
    },
    /// `RFWD` (v8): a forwarded command, from a proxy; entity empty.
    RelayForward {
        /// The encrypted forwarded transmission.
        transmission: &'a [u8],
    },
}

/// The parameters of `NEW`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewQueue<'a> {
    /// Authorizes this command and the recipient's later ones.
    pub recipient_key: AuthKey,
    /// For the secret with which the relay encrypts messages to the recipient.
    pub recipient_dh: X25519Public,
    /// The password that the relay may ask for.
    pub password: Option<Password<'a>>,
    /// Whether this connection is subscribed to the new queue.
    pub subscription: SubscriptionMode,
    /// What the queue is for, with link data; `None` when the client does not say (always so below v9).
    pub request: Option<QueueRequest<'a>>,
    /// v17: the notifier's keys, as in `NKEY`.
    pub notifier: Option<NotifierKeys>,
}

/// The parameters of `NKEY`, and of notifications in `NEW`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifierKeys {
    /// Authorizes the notifier's subscription.
    pub key: AuthKey,
    /// For the secret with which the relay encrypts notification metadata.
    pub dh: X25519Public,
}

/// What a queue is for, with its link data (v15; v9 to v14 carry only the mode).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueRequest<'a> {
    /// A queue between two: the sender may secure it. The relay makes the link id.
    Messaging(Option<(Identifier, LinkData<'a>)>),
    /// A contact address: senders may not secure it. The client gives link id and sender id.
    Contact(Option<(Identifier, Identifier, LinkData<'a>)>),
}

/// The two encrypted parts of link data (WIRE-FACTS 8), without their 2-byte lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkData<'a> {
    /// Never changes.
    pub fixed: &'a [u8],
    /// The owner may change it.
    pub user: &'a [u8],
}

/// Whether a sender may secure the queue (`M`) or not (`C`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueMode {
    /// `M`: a queue between two.
    Messaging,
    /// `C`: a contact address.
    Contact,
}

/// `S` or `C` of `NEW`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionMode {
    /// `S`: subscribe this connection.
    Subscribe,
    /// `C`: create only.
    CreateOnly,
}

/// Flags of a message: one known flag, and room for later ones that a reader skips.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MessageFlags {
    /// Whether the notifier is to be told.
    pub notification: bool,
}

/// A relay's password, as it is on the wire. Never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Password<'a>(pub &'a [u8]);

impl core::fmt::Debug for Password<'_> {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("Password(..)")
    }
}
