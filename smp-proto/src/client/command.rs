//! Commands that a client owns until they are answered, with what authorizes them.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use super::proxied::{ProxiedRelay, Through};
use crate::keys::{AuthKey, X25519Public, X25519Secret};
use crate::session::AuthSecret;
use crate::wire::EntityId;
use crate::wire::address::ServerAddress;
use crate::wire::command::{
    Command, LinkData, MessageFlags, NewQueue, NotifierKeys, Password, QueueRequest, SubscriptionMode,
};
use crate::wire::identifier::{IDENTIFIER_LENGTH, Identifier};

/// A command of a client.
#[derive(Clone, Debug)]
pub struct ClientCommand {
    /// What it is about; empty for `NEW` and `PING`.
    pub entity: EntityId,
    /// What authorizes it.
    pub key: Option<Arc<AuthSecret>>,
    /// What is to be done.
    pub body: CommandBody,
}

/// What a client wants done: the owned form of [`Command`].
#[derive(Clone, Debug)]
pub enum CommandBody {
    /// `NEW`
    New(Box<OwnedNewQueue>),
    /// `SUB`
    Subscribe,
    /// `KEY`
    SecureByRecipient(AuthKey),
    /// `RKEY`
    RecipientKeys(Vec<AuthKey>),
    /// `LSET`
    SetLink {
        /// The link id.
        link: Identifier,
        /// The encrypted link data.
        data: OwnedLinkData,
    },
    /// `LDEL`
    DeleteLink,
    /// `NKEY`
    EnableNotifications(NotifierKeys),
    /// `NDEL`
    DisableNotifications,
    /// `GET`
    Get,
    /// `ACK`, with the message's id
    Acknowledge(Identifier),
    /// `OFF`
    Suspend,
    /// `DEL`
    Delete,
    /// `QUE`
    QueueInformation,
    /// `SKEY`
    SecureBySender(AuthKey),
    /// `SEND`
    Send {
        /// Whether the notifier is to be told.
        notification: bool,
        /// At most 16,088 bytes, less in later versions (WIRE-FACTS 6).
        body: Bytes,
    },
    /// `PING`
    Ping,
    /// `LKEY`
    SecureByLink(AuthKey),
    /// `LGET`
    GetLink,
    /// `WRT`
    WriteBlob {
        /// The owner's key.
        key: AuthKey,
        /// The blob, as [`blob::seal`](crate::crypto::blob::seal) makes it.
        blob: Bytes,
    },
    /// `CLR`
    ClearBlob,
    /// `READ`, with the private key in the link
    ReadBlob(X25519Secret),
    /// `NSUB`
    SubscribeNotifications,
    /// `PRXY`: to use this relay as a proxy to another one.
    ProxyConnect {
        /// The other relay.
        relay: Box<ServerAddress>,
        /// The password of this one, if it asks for one.
        password: Option<Bytes>,
    },
    /// `PFWD`: a command for another relay, which this one forwards.
    Forward(Box<Through>),
}

/// The parameters of `NEW`, owned.
#[derive(Clone)]
pub struct OwnedNewQueue {
    /// Authorizes this command and the recipient's later ones.
    pub recipient_key: AuthKey,
    /// For the secret with which the relay encrypts messages to the recipient.
    pub recipient_dh: X25519Public,
    /// The relay's password, if it asks for one.
    pub password: Option<Bytes>,
    /// Whether this connection is subscribed to the new queue.
    pub subscription: SubscriptionMode,
    /// What the queue is for.
    pub request: Option<OwnedQueueRequest>,
    /// The notifier's keys (v17).
    pub notifier: Option<NotifierKeys>,
    /// The correlation id to use, when the sender id in `request` was computed from one (WIRE-FACTS 8.3).
    pub correlation: Option<[u8; IDENTIFIER_LENGTH]>,
}

impl core::fmt::Debug for OwnedNewQueue {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter
            .debug_struct("OwnedNewQueue")
            .field("subscription", &self.subscription)
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

/// What a queue is for, owned.
#[derive(Clone, Debug)]
pub enum OwnedQueueRequest {
    /// A queue between two, perhaps with link data under the sender id.
    Messaging(Option<(Identifier, OwnedLinkData)>),
    /// A contact address, perhaps with link id, sender id and link data.
    Contact(Option<(Identifier, Identifier, OwnedLinkData)>),
}

/// Encrypted link data, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedLinkData {
    /// Never changes.
    pub fixed: Bytes,
    /// The owner may change it.
    pub user: Bytes,
}

impl OwnedLinkData {
    fn borrow(&self) -> LinkData<'_> {
        LinkData { fixed: &self.fixed, user: &self.user }
    }
}

impl ClientCommand {
    /// A command about `entity`, authorized with `key`.
    #[must_use]
    pub const fn new(entity: EntityId, key: Option<Arc<AuthSecret>>, body: CommandBody) -> Self {
        Self { entity, key, body }
    }

    /// `PING`.
    #[must_use]
    pub const fn ping() -> Self {
        Self::new(EntityId::EMPTY, None, CommandBody::Ping)
    }

    /// `PRXY`: asks the relay for a session with another one, for [`through`](Self::through).
    #[must_use]
    pub fn proxy_connect(relay: ServerAddress, password: Option<Bytes>) -> Self {
        let body = CommandBody::ProxyConnect { relay: Box::new(relay), password };
        Self::new(EntityId::EMPTY, None, body)
    }

    /// `PFWD`: this command, forwarded to `relay` by the relay of the client that it is given to.
    #[must_use]
    pub fn through(self, relay: &Arc<ProxiedRelay>) -> Self {
        let entity = relay.session().clone();
        let through = Through { relay: Arc::clone(relay), command: self };
        Self::new(entity, None, CommandBody::Forward(Box::new(through)))
    }

    /// Whether it may be done twice with the same result: then it is sent again after the connection broke while it
    /// was on its way. Not so: what creates (`NEW`, `NKEY`), sends, or removes (`ACK`, `DEL`).
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        if let CommandBody::Forward(through) = &self.body {
            return through.command.is_repeatable();
        }
        !matches!(
            self.body,
            CommandBody::New(_)
                | CommandBody::EnableNotifications(_)
                | CommandBody::RecipientKeys(_)
                | CommandBody::Send { .. }
                | CommandBody::Acknowledge(_)
                | CommandBody::Delete
                | CommandBody::ClearBlob
        )
    }

    /// The command as it is encoded; of a forwarded one only the frame, which is filled when it is sent.
    #[must_use]
    pub fn as_command(&self) -> Command<'_> {
        match &self.body {
            CommandBody::New(new) => Command::New(new.borrow()),
            CommandBody::Subscribe => Command::Subscribe,
            CommandBody::SecureByRecipient(key) => Command::SecureByRecipient(*key),
            CommandBody::RecipientKeys(keys) => Command::RecipientKeys(keys.clone()),
            CommandBody::SetLink { link, data } => {
                Command::SetLink { link: link.clone(), data: data.borrow() }
            }
            CommandBody::DeleteLink => Command::DeleteLink,
            CommandBody::EnableNotifications(keys) => Command::EnableNotifications(keys.clone()),
            CommandBody::DisableNotifications => Command::DisableNotifications,
            CommandBody::Get => Command::Get,
            CommandBody::Acknowledge(message) => Command::Acknowledge { message: message.clone() },
            CommandBody::Suspend => Command::Suspend,
            CommandBody::Delete => Command::Delete,
            CommandBody::QueueInformation => Command::QueueInformation,
            CommandBody::SecureBySender(key) => Command::SecureBySender(*key),
            CommandBody::Send { notification, body } => {
                Command::Send { flags: MessageFlags { notification: *notification }, body }
            }
            CommandBody::Ping => Command::Ping,
            CommandBody::SecureByLink(key) => Command::SecureByLink(*key),
            CommandBody::GetLink => Command::GetLink,
            CommandBody::WriteBlob { key, blob } => Command::WriteBlob { key: *key, blob },
            CommandBody::ClearBlob => Command::ClearBlob,
            CommandBody::ReadBlob(_) => Command::ReadBlob,
            CommandBody::SubscribeNotifications => Command::SubscribeNotifications,
            CommandBody::ProxyConnect { relay, password } => Command::ProxyConnect {
                relay: ServerAddress::clone(relay),
                password: password.as_deref().map(Password),
            },
            CommandBody::Forward(through) => Command::ProxyForward {
                version: through.relay.version(),
                key: *through.relay.key(),
                transmission: &[],
            },
        }
    }
}

impl OwnedNewQueue {
    fn borrow(&self) -> NewQueue<'_> {
        NewQueue {
            recipient_key: self.recipient_key,
            recipient_dh: self.recipient_dh,
            password: self.password.as_deref().map(Password),
            subscription: self.subscription,
            request: self.request.as_ref().map(OwnedQueueRequest::borrow),
            notifier: self.notifier.clone(),
        }
    }
}

impl OwnedQueueRequest {
    fn borrow(&self) -> QueueRequest<'_> {
        match self {
            Self::Messaging(data) => {
                QueueRequest::Messaging(data.as_ref().map(|(sender, data)| (sender.clone(), data.borrow())))
            }
            Self::Contact(data) => QueueRequest::Contact(
                data.as_ref().map(|(link, sender, data)| (link.clone(), sender.clone(), data.borrow())),
            ),
        }
    }
}
