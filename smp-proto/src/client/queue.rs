//! What a client keeps of a queue, and the commands about it: the recipient's side and the sender's.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use super::command::{ClientCommand, CommandBody, OwnedLinkData, OwnedNewQueue, OwnedQueueRequest};
use crate::crypto::blob;
use crate::crypto::envelope::{self, ClientMessage, EnvelopeHeader};
use crate::crypto::message_body::{self, NotificationMetadata, OpenError, ReceivedMessage};
use crate::crypto::{BoxError, BoxKey, Nonce, Provider, SharedSecret};
use crate::entropy::Entropy;
use crate::keys::{AuthKey, X25519Public, X25519Secret};
use crate::session::AuthSecret;
use crate::wire::EntityId;
use crate::wire::command::{QueueMode, SubscriptionMode};
use crate::wire::identifier::{IDENTIFIER_LENGTH, Identifier};
use crate::wire::response::CreatedQueue;

/// A queue that is about to be created: its keys, before the relay has named it.
#[derive(Debug)]
pub struct QueueToCreate {
    key: Arc<AuthSecret>,
    dh: X25519Secret,
}

impl QueueToCreate {
    /// Fresh keys: Ed25519 for commands, X25519 for messages.
    #[must_use]
    pub fn generate(entropy: &mut (impl Entropy + ?Sized)) -> Self {
        Self { key: Arc::new(AuthSecret::generate_ed25519(entropy)), dh: X25519Secret::generate(entropy) }
    }

    /// `NEW`, for a queue of this mode without link data.
    #[must_use]
    pub fn command(
        &self,
        provider: &dyn Provider,
        mode: QueueMode,
        subscription: SubscriptionMode,
        password: Option<Bytes>,
    ) -> ClientCommand {
        let request = match mode {
            QueueMode::Messaging => OwnedQueueRequest::Messaging(None),
            QueueMode::Contact => OwnedQueueRequest::Contact(None),
        };
        let new = OwnedNewQueue {
            recipient_key: self.key.public(provider),
            recipient_dh: provider.x25519_public(&self.dh),
            password,
            subscription,
            request: Some(request),
            notifier: None,
            correlation: None,
        };
        ClientCommand::new(EntityId::EMPTY, Some(Arc::clone(&self.key)), CommandBody::New(Box::new(new)))
    }

    /// `NEW`, with link data: `request` says where it is found. `correlation` is what its sender id was computed from
    /// ([`ids::sender_id`](crate::crypto::ids::sender_id)).
    #[must_use]
    pub fn command_with_link(
        &self,
        provider: &dyn Provider,
        request: OwnedQueueRequest,
        correlation: [u8; IDENTIFIER_LENGTH],
        subscription: SubscriptionMode,
        password: Option<Bytes>,
    ) -> ClientCommand {
        let new = OwnedNewQueue {
            recipient_key: self.key.public(provider),
            recipient_dh: provider.x25519_public(&self.dh),
            password,
            subscription,
            request: Some(request),
            notifier: None,
            correlation: Some(correlation),
        };
        ClientCommand::new(EntityId::EMPTY, Some(Arc::clone(&self.key)), CommandBody::New(Box::new(new)))
    }

    /// The queue, as the relay created it.
    #[must_use]
    pub fn created(self, provider: &dyn Provider, created: &CreatedQueue) -> RecipientQueue {
        RecipientQueue {
            recipient: created.recipient.clone(),
            sender: created.sender.clone(),
            key: self.key,
            delivery: SharedSecret::agree(provider, &self.dh, &created.relay_dh),
        }
    }
}

/// A queue from which this client receives.
#[derive(Clone, Debug)]
pub struct RecipientQueue {
    /// The recipient id.
    pub recipient: EntityId,
    /// The sender id: goes into the address.
    pub sender: EntityId,
    /// What authorizes the recipient's commands.
    pub key: Arc<AuthSecret>,
    /// What the relay encrypts messages with.
    pub delivery: SharedSecret,
}

impl RecipientQueue {
    fn command(&self, body: CommandBody) -> ClientCommand {
        ClientCommand::new(self.recipient.clone(), Some(Arc::clone(&self.key)), body)
    }

    /// `SUB`
    #[must_use]
    pub fn subscribe(&self) -> ClientCommand {
        self.command(CommandBody::Subscribe)
    }

    /// `GET`
    #[must_use]
    pub fn get(&self) -> ClientCommand {
        self.command(CommandBody::Get)
    }

    /// `ACK`: the message is safe, and may be deleted at the relay.
    #[must_use]
    pub fn acknowledge(&self, message: Identifier) -> ClientCommand {
        self.command(CommandBody::Acknowledge(message))
    }

    /// `KEY`: only the owner of this key may send from now on.
    #[must_use]
    pub fn secure(&self, sender: AuthKey) -> ClientCommand {
        self.command(CommandBody::SecureByRecipient(sender))
    }

    /// `LSET`: set link data, or change its user part.
    #[must_use]
    pub fn set_link(&self, link: Identifier, data: OwnedLinkData) -> ClientCommand {
        self.command(CommandBody::SetLink { link, data })
    }

    /// `LDEL`: delete the link and its data.
    #[must_use]
    pub fn delete_link(&self) -> ClientCommand {
        self.command(CommandBody::DeleteLink)
    }

    /// `RKEY`: these keys, at least one, authorize the recipient's commands of a contact address from now on.
    #[must_use]
    pub fn set_owners(&self, keys: Vec<AuthKey>) -> ClientCommand {
        self.command(CommandBody::RecipientKeys(keys))
    }

    /// `OFF`: accept no more messages.
    #[must_use]
    pub fn suspend(&self) -> ClientCommand {
        self.command(CommandBody::Suspend)
    }

    /// `DEL`: delete the queue and all in it.
    #[must_use]
    pub fn delete(&self) -> ClientCommand {
        self.command(CommandBody::Delete)
    }

    /// `QUE`: what the relay knows of the queue.
    #[must_use]
    pub fn information(&self) -> ClientCommand {
        self.command(CommandBody::QueueInformation)
    }

    /// Decrypts a message in place.
    ///
    /// # Errors
    /// [`OpenError`] when the relay did not encrypt it for this queue.
    pub fn open<'a>(
        &self,
        provider: &dyn Provider,
        id: &Identifier,
        body: &'a mut [u8],
    ) -> Result<ReceivedMessage<'a>, OpenError> {
        let nonce = Nonce::from_id(id.as_bytes());
        message_body::open_message(provider, &self.delivery.box_key(), &nonce, body)
    }
}

/// A queue whose messages a notifier hears of.
#[derive(Clone, Debug)]
pub struct NotifierQueue {
    /// The notifier id.
    pub notifier: EntityId,
    /// What authorizes the subscription.
    pub key: Arc<AuthSecret>,
    /// What the relay encrypts metadata with.
    pub delivery: SharedSecret,
}

impl NotifierQueue {
    /// `NSUB`
    #[must_use]
    pub fn subscribe(&self) -> ClientCommand {
        let key = Some(Arc::clone(&self.key));
        ClientCommand::new(self.notifier.clone(), key, CommandBody::SubscribeNotifications)
    }

    /// Decrypts the metadata of a notification in place.
    ///
    /// # Errors
    /// [`OpenError`] when the relay did not encrypt it for this notifier.
    pub fn open<'a>(
        &self,
        provider: &dyn Provider,
        nonce: &Nonce,
        metadata: &'a mut [u8],
    ) -> Result<NotificationMetadata<'a>, OpenError> {
        message_body::open_notification(provider, &self.delivery.box_key(), nonce, metadata)
    }
}

/// `LGET`: the link data of a contact address.
#[must_use]
pub const fn get_link(link: Identifier) -> ClientCommand {
    ClientCommand::new(link, None, CommandBody::GetLink)
}

/// `LKEY`: secures the queue behind a one-time link with `key`, and gets the link data.
#[must_use]
pub fn secure_by_link(provider: &dyn Provider, link: Identifier, key: &Arc<AuthSecret>) -> ClientCommand {
    let body = CommandBody::SecureByLink(key.public(provider));
    ClientCommand::new(link, Some(Arc::clone(key)), body)
}

/// A blob that this client owns: what its link carries, and what authorizes changes.
#[derive(Clone, Debug)]
pub struct OwnedBlob {
    /// The private key: it goes into the link.
    pub secret: X25519Secret,
    /// Authorizes `WRT` and `CLR`: Ed25519 or X25519, an Ed448 signature does not fit beside a blob.
    pub key: Arc<AuthSecret>,
}

impl OwnedBlob {
    /// Fresh keys.
    #[must_use]
    pub fn generate(entropy: &mut (impl Entropy + ?Sized)) -> Self {
        let key = Arc::new(AuthSecret::generate_ed25519(entropy));
        Self { secret: X25519Secret::generate(entropy), key }
    }

    fn command(&self, provider: &dyn Provider, body: CommandBody) -> ClientCommand {
        let id = blob::id(&provider.x25519_public(&self.secret));
        let id = Identifier::new(&id).unwrap_or(Identifier::EMPTY);
        ClientCommand::new(id, Some(Arc::clone(&self.key)), body)
    }

    /// `WRT`: writes the blob, or replaces it.
    ///
    /// # Errors
    /// [`BoxError::TooLong`] when the text has more than 16,099 bytes.
    pub fn write(
        &self,
        provider: &dyn Provider,
        text: &[u8],
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<ClientCommand, BoxError> {
        let blob = blob::seal(provider, &self.secret, text, entropy)?;
        let body = CommandBody::WriteBlob { key: self.key.public(provider), blob: blob.into() };
        Ok(self.command(provider, body))
    }

    /// `CLR`: deletes the blob.
    #[must_use]
    pub fn clear(&self, provider: &dyn Provider) -> ClientCommand {
        self.command(provider, CommandBody::ClearBlob)
    }
}

/// `READ`: gets the blob behind a link with this key.
#[must_use]
pub fn read_blob(provider: &dyn Provider, secret: &X25519Secret) -> ClientCommand {
    let public = provider.x25519_public(secret);
    let name = Identifier::new(&public.0).unwrap_or(Identifier::EMPTY);
    ClientCommand::new(name, None, CommandBody::ReadBlob(secret.clone()))
}

/// A queue to which this client sends.
#[derive(Clone, Debug)]
pub struct SenderQueue {
    /// The sender id, from the address.
    pub sender: EntityId,
    /// What authorizes sending, once the queue is secured.
    pub key: Option<Arc<AuthSecret>>,
}

impl SenderQueue {
    /// `SKEY`: only the owner of `key` may send from now on. Send with [`Self::key`] set after it was answered.
    #[must_use]
    pub fn secure(&self, provider: &dyn Provider, key: &Arc<AuthSecret>) -> ClientCommand {
        let body = CommandBody::SecureBySender(key.public(provider));
        ClientCommand::new(self.sender.clone(), Some(Arc::clone(key)), body)
    }

    /// `SEND`
    #[must_use]
    pub fn send(&self, notification: bool, body: Bytes) -> ClientCommand {
        let body = CommandBody::Send { notification, body };
        ClientCommand::new(self.sender.clone(), self.key.clone(), body)
    }
}

/// Seals what one client says to another: the body of a `SEND` (WIRE-FACTS 9.1). `key` is that of the sender's X25519 key
/// and the one in the queue's address; `sender` is given in the first message only.
///
/// # Errors
/// [`BoxError::TooLong`] when the message does not fit: 15,903 bytes and less in the first message, 15,999 in others.
pub fn seal_envelope(
    provider: &dyn Provider,
    key: &BoxKey,
    client_version: u16,
    sender: Option<X25519Public>,
    content: &ClientMessage<'_>,
    entropy: &mut (impl Entropy + ?Sized),
) -> Result<Bytes, BoxError> {
    let header = EnvelopeHeader { client_version, sender, nonce: Nonce::generate(entropy) };
    let mut body = vec![0; envelope::envelope_length(sender.is_some())];
    envelope::seal(provider, key, &header, content, &mut body)?;
    Ok(body.into())
}
