//! Commands that clients send (WIRE-FACTS 5), every one of versions 6 to 18.
//!
//! A command borrows its long parts from the block it was read from: no message body is copied.

use alloc::vec::Vec;

use super::address::ServerAddress;
use super::error::CommandError;
use super::identifier::Identifier;
use super::primitives::{Full, Reader, SPACE, Writer};
use super::version::Version;
use crate::keys::{AuthKey, X25519Public};

/// A command with its parameters. The entity it is about is in the [`Transmission`](super::transmission::Transmission).
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a command lives on the stack of whoever executes it: boxing would cost more"
)]
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
    /// `WRT` (extension): write a blob; entity = blob id, signed with this key, which the first `WRT` fixes.
    WriteBlob {
        /// Authorizes this and all later commands about the blob.
        key: AuthKey,
        /// The encrypted blob: 16,141 bytes.
        blob: &'a [u8],
    },
    /// `CLR` (extension): delete a blob; entity = blob id.
    ClearBlob,
    /// `READ` (extension): get a blob; entity = the public key whose hash is the blob id.
    ReadBlob,
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

/// The tags of commands, as they are on the wire.
mod tag {
    pub const NEW: &[u8] = b"NEW";
    pub const SUB: &[u8] = b"SUB";
    pub const KEY: &[u8] = b"KEY";
    pub const RKEY: &[u8] = b"RKEY";
    pub const LSET: &[u8] = b"LSET";
    pub const LDEL: &[u8] = b"LDEL";
    pub const NKEY: &[u8] = b"NKEY";
    pub const NDEL: &[u8] = b"NDEL";
    pub const GET: &[u8] = b"GET";
    pub const ACK: &[u8] = b"ACK";
    pub const OFF: &[u8] = b"OFF";
    pub const DEL: &[u8] = b"DEL";
    pub const QUE: &[u8] = b"QUE";
    pub const SKEY: &[u8] = b"SKEY";
    pub const SEND: &[u8] = b"SEND";
    pub const PING: &[u8] = b"PING";
    pub const LKEY: &[u8] = b"LKEY";
    pub const LGET: &[u8] = b"LGET";
    pub const WRT: &[u8] = b"WRT";
    pub const CLR: &[u8] = b"CLR";
    pub const READ: &[u8] = b"READ";
    pub const NSUB: &[u8] = b"NSUB";
    pub const SUBS: &[u8] = b"SUBS";
    pub const NSUBS: &[u8] = b"NSUBS";
    pub const PRXY: &[u8] = b"PRXY";
    pub const PFWD: &[u8] = b"PFWD";
    pub const RFWD: &[u8] = b"RFWD";
}

impl<'a> Command<'a> {
    /// Whether a proxy may forward it: it is for a queue of somebody else's, and needs no connection of its own
    /// (WIRE-FACTS 10).
    #[must_use]
    pub const fn may_be_forwarded(&self) -> bool {
        matches!(
            self,
            Self::Send { .. }
                | Self::SecureBySender(_)
                | Self::SecureByLink(_)
                | Self::GetLink
                | Self::ReadBlob
        )
    }

    /// Reads a command: its tag, and parameters laid out as in `version`. Tags are not gated by version.
    ///
    /// # Errors
    /// [`CommandError::Unknown`] for an unknown tag, [`CommandError::Syntax`] for parameters that do not match exactly.
    pub fn decode(bytes: &'a [u8], version: Version) -> Result<Self, CommandError> {
        let tag_length = bytes.iter().position(|byte| *byte == SPACE).unwrap_or(bytes.len());
        let (tag, parameters) = bytes.split_at_checked(tag_length).ok_or(CommandError::Syntax)?;
        let mut reader = Reader::new(parameters);
        let read = &mut reader;
        let command = match tag {
            tag::NEW => read.spaced(|read| NewQueue::read(read, version)).map(Self::New),
            tag::SUB => Some(Self::Subscribe),
            tag::KEY => read.spaced(Reader::auth_key).map(Self::SecureByRecipient),
            tag::RKEY => read.spaced(read_keys).map(Self::RecipientKeys),
            tag::LSET => read
                .spaced(|read| Some(Self::SetLink { link: read.identifier()?, data: LinkData::read(read)? })),
            tag::LDEL => Some(Self::DeleteLink),
            tag::NKEY => read.spaced(NotifierKeys::read).map(Self::EnableNotifications),
            tag::NDEL => Some(Self::DisableNotifications),
            tag::GET => Some(Self::Get),
            tag::ACK => read.spaced(Reader::identifier).map(|message| Self::Acknowledge { message }),
            tag::OFF => Some(Self::Suspend),
            tag::DEL => Some(Self::Delete),
            tag::QUE => Some(Self::QueueInformation),
            tag::SKEY => read.spaced(Reader::auth_key).map(Self::SecureBySender),
            tag::SEND => read.spaced(|read| {
                let flags = MessageFlags::read(read)?;
                read.expect(SPACE)?;
                Some(Self::Send { flags, body: read.tail() })
            }),
            tag::PING => Some(Self::Ping),
            tag::LKEY => read.spaced(Reader::auth_key).map(Self::SecureByLink),
            tag::LGET => Some(Self::GetLink),
            tag::WRT => {
                read.spaced(|read| Some(Self::WriteBlob { key: read.auth_key()?, blob: read.tail() }))
            }
            tag::CLR => Some(Self::ClearBlob),
            tag::READ => Some(Self::ReadBlob),
            tag::NSUB => Some(Self::SubscribeNotifications),
            tag::SUBS => Some(Self::SubscribeService),
            tag::NSUBS => Some(Self::SubscribeServiceNotifications),
            tag::PRXY => read.spaced(|read| {
                Some(Self::ProxyConnect {
                    relay: ServerAddress::read(read)?,
                    password: read.maybe(Password::read)?,
                })
            }),
            tag::PFWD => read.spaced(|read| {
                Some(Self::ProxyForward {
                    version: read.version()?,
                    key: read.x25519()?,
                    transmission: read.tail(),
                })
            }),
            tag::RFWD => read.spaced(|read| Some(Self::RelayForward { transmission: read.tail() })),
            _ => return Err(CommandError::Unknown),
        };
        command.filter(|_| reader.is_empty()).ok_or(CommandError::Syntax)
    }

    /// The tag.
    #[must_use]
    pub const fn tag(&self) -> &'static [u8] {
        match self {
            Self::New(_) => tag::NEW,
            Self::Subscribe => tag::SUB,
            Self::SecureByRecipient(_) => tag::KEY,
            Self::RecipientKeys(_) => tag::RKEY,
            Self::SetLink { .. } => tag::LSET,
            Self::DeleteLink => tag::LDEL,
            Self::EnableNotifications(_) => tag::NKEY,
            Self::DisableNotifications => tag::NDEL,
            Self::Get => tag::GET,
            Self::Acknowledge { .. } => tag::ACK,
            Self::Suspend => tag::OFF,
            Self::Delete => tag::DEL,
            Self::QueueInformation => tag::QUE,
            Self::SecureBySender(_) => tag::SKEY,
            Self::Send { .. } => tag::SEND,
            Self::Ping => tag::PING,
            Self::SecureByLink(_) => tag::LKEY,
            Self::GetLink => tag::LGET,
            Self::WriteBlob { .. } => tag::WRT,
            Self::ClearBlob => tag::CLR,
            Self::ReadBlob => tag::READ,
            Self::SubscribeNotifications => tag::NSUB,
            Self::SubscribeService => tag::SUBS,
            Self::SubscribeServiceNotifications => tag::NSUBS,
            Self::ProxyConnect { .. } => tag::PRXY,
            Self::ProxyForward { .. } => tag::PFWD,
            Self::RelayForward { .. } => tag::RFWD,
        }
    }

    /// Writes the command as `version` lays it out; what that version cannot carry is left out.
    ///
    /// # Errors
    /// [`Full`] when it does not fit.
    pub fn encode(&self, version: Version, out: &mut impl Writer) -> Result<(), Full> {
        out.put(self.tag())?;
        match self {
            Self::Subscribe
            | Self::DeleteLink
            | Self::DisableNotifications
            | Self::Get
            | Self::Suspend
            | Self::Delete
            | Self::QueueInformation
            | Self::Ping
            | Self::GetLink
            | Self::ClearBlob
            | Self::ReadBlob
            | Self::SubscribeNotifications
            | Self::SubscribeService
            | Self::SubscribeServiceNotifications => return Ok(()),
            _ => out.byte(SPACE)?,
        }
        match self {
            Self::New(new) => new.write(version, out),
            Self::SecureByRecipient(key) | Self::SecureBySender(key) | Self::SecureByLink(key) => {
                out.auth_key(key)
            }
            Self::RecipientKeys(keys) => {
                out.byte(u8::try_from(keys.len()).map_err(|_| Full)?)?;
                keys.iter().try_for_each(|key| out.auth_key(key))
            }
            Self::SetLink { link, data } => {
                out.identifier(link)?;
                data.write(out)
            }
            Self::EnableNotifications(keys) => keys.write(out),
            Self::Acknowledge { message } => out.identifier(message),
            Self::Send { flags, body } => {
                out.bool(flags.notification)?;
                out.byte(SPACE)?;
                out.put(body)
            }
            Self::ProxyConnect { relay, password } => {
                relay.write(out)?;
                out.maybe(password.as_ref(), |out, password| out.short(password.0))
            }
            Self::ProxyForward { version, key, transmission } => {
                out.u16(version.0)?;
                out.x25519(key)?;
                out.put(transmission)
            }
            Self::RelayForward { transmission } => out.put(transmission),
            Self::WriteBlob { key, blob } => {
                out.auth_key(key)?;
                out.put(blob)
            }
            _ => Ok(()),
        }
    }

    /// Whether a transmission with this command has the credentials it must have, and none that it must not
    /// (WIRE-FACTS 4.8).
    ///
    /// # Errors
    /// The error that a relay answers.
    pub fn check_credentials(&self, authorized: bool, entity: &Identifier) -> Result<(), CommandError> {
        let has_entity = !entity.is_empty();
        match self {
            Self::New(_) if !authorized => Err(CommandError::NoAuthorization),
            Self::New(_) if has_entity => Err(CommandError::HasAuthorization),
            Self::New(_) => Ok(()),
            Self::Send { .. } if has_entity => Ok(()),
            Self::GetLink | Self::ReadBlob | Self::ProxyForward { .. } if has_entity && authorized => {
                Err(CommandError::HasAuthorization)
            }
            Self::GetLink | Self::ReadBlob | Self::ProxyForward { .. } if has_entity => Ok(()),
            Self::Send { .. } | Self::GetLink | Self::ReadBlob | Self::ProxyForward { .. } => {
                Err(CommandError::NoEntity)
            }
            Self::Ping | Self::ProxyConnect { .. } | Self::RelayForward { .. }
                if authorized || has_entity =>
            {
                Err(CommandError::HasAuthorization)
            }
            Self::Ping | Self::ProxyConnect { .. } | Self::RelayForward { .. } => Ok(()),
            _ if authorized && has_entity => Ok(()),
            _ => Err(CommandError::NoAuthorization),
        }
    }
}

fn read_keys(read: &mut Reader<'_>) -> Option<Vec<AuthKey>> {
    match read.byte()? {
        0 => None,
        count => (0..count).map(|_| read.auth_key()).collect(),
    }
}

impl<'a> NewQueue<'a> {
    fn read(read: &mut Reader<'a>, version: Version) -> Option<Self> {
        let recipient_key = read.auth_key()?;
        let recipient_dh = read.x25519()?;
        let password = if version >= Version::SECURE_BY_SENDER {
            read.maybe(Password::read)?
        } else if read.peek() == Some(b'A') {
            read.byte()?;
            Some(Password::read(read)?)
        } else {
            None
        };
        let subscription = match read.byte()? {
            b'S' => SubscriptionMode::Subscribe,
            b'C' => SubscriptionMode::CreateOnly,
            _ => return None,
        };
        let request = if version >= Version::SHORT_LINKS {
            read.maybe(QueueRequest::read)?
        } else if version >= Version::SECURE_BY_SENDER {
            Some(if read.bool()? { QueueRequest::Messaging(None) } else { QueueRequest::Contact(None) })
        } else {
            None
        };
        let notifier =
            if version >= Version::NOTIFIER_IN_NEW { read.maybe(NotifierKeys::read)? } else { None };
        Some(Self { recipient_key, recipient_dh, password, subscription, request, notifier })
    }

    fn write(&self, version: Version, out: &mut impl Writer) -> Result<(), Full> {
        out.auth_key(&self.recipient_key)?;
        out.x25519(&self.recipient_dh)?;
        if version >= Version::SECURE_BY_SENDER {
            out.maybe(self.password.as_ref(), |out, password| out.short(password.0))?;
        } else if let Some(password) = &self.password {
            out.byte(b'A')?;
            out.short(password.0)?;
        }
        out.byte(match self.subscription {
            SubscriptionMode::Subscribe => b'S',
            SubscriptionMode::CreateOnly => b'C',
        })?;
        if version >= Version::SHORT_LINKS {
            out.maybe(self.request.as_ref(), |out, request| request.write(out))?;
        } else if version >= Version::SECURE_BY_SENDER {
            out.bool(matches!(self.request, Some(QueueRequest::Messaging(_))))?;
        }
        if version >= Version::NOTIFIER_IN_NEW {
            out.maybe(self.notifier.as_ref(), |out, keys| keys.write(out))?;
        }
        Ok(())
    }
}

impl<'a> QueueRequest<'a> {
    /// The mode that is asked for.
    #[must_use]
    pub const fn mode(&self) -> QueueMode {
        match self {
            Self::Messaging(_) => QueueMode::Messaging,
            Self::Contact(_) => QueueMode::Contact,
        }
    }

    /// The link data, if it comes with any.
    #[must_use]
    pub const fn link_data(&self) -> Option<LinkData<'a>> {
        match self {
            Self::Messaging(Some((_, data))) | Self::Contact(Some((_, _, data))) => Some(*data),
            Self::Messaging(None) | Self::Contact(None) => None,
        }
    }

    fn read(read: &mut Reader<'a>) -> Option<Self> {
        match read.byte()? {
            b'M' => read.maybe(|read| Some((read.identifier()?, LinkData::read(read)?))).map(Self::Messaging),
            b'C' => read
                .maybe(|read| Some((read.identifier()?, read.identifier()?, LinkData::read(read)?)))
                .map(Self::Contact),
            _ => None,
        }
    }

    fn write(&self, out: &mut impl Writer) -> Result<(), Full> {
        match self {
            Self::Messaging(data) => {
                out.byte(b'M')?;
                out.maybe(data.as_ref(), |out, (sender, data)| {
                    out.identifier(sender)?;
                    data.write(out)
                })
            }
            Self::Contact(data) => {
                out.byte(b'C')?;
                out.maybe(data.as_ref(), |out, (link, sender, data)| {
                    out.identifier(link)?;
                    out.identifier(sender)?;
                    data.write(out)
                })
            }
        }
    }
}

impl<'a> LinkData<'a> {
    pub(super) fn read(read: &mut Reader<'a>) -> Option<Self> {
        Some(Self { fixed: read.large()?, user: read.large()? })
    }

    pub(super) fn write(&self, out: &mut impl Writer) -> Result<(), Full> {
        out.large(self.fixed)?;
        out.large(self.user)
    }
}

impl NotifierKeys {
    fn read(read: &mut Reader<'_>) -> Option<Self> {
        Some(Self { key: read.auth_key()?, dh: read.x25519()? })
    }

    fn write(&self, out: &mut impl Writer) -> Result<(), Full> {
        out.auth_key(&self.key)?;
        out.x25519(&self.dh)
    }
}

impl MessageFlags {
    /// Reads the known flag and skips what later versions may add before the space.
    pub(crate) fn read(read: &mut Reader<'_>) -> Option<Self> {
        let notification = read.bool()?;
        while read.peek().is_some_and(|byte| byte != SPACE) {
            read.byte()?;
        }
        Some(Self { notification })
    }
}

impl QueueMode {
    pub(super) fn read(read: &mut Reader<'_>) -> Option<Self> {
        match read.byte()? {
            b'M' => Some(Self::Messaging),
            b'C' => Some(Self::Contact),
            _ => None,
        }
    }

    /// `M` or `C`.
    #[must_use]
    pub const fn letter(self) -> u8 {
        match self {
            Self::Messaging => b'M',
            Self::Contact => b'C',
        }
    }
}

impl<'a> Password<'a> {
    /// Reads a password: printable Latin-1 other than space, `@`, `:` and `/`; it may be empty here.
    fn read(read: &mut Reader<'a>) -> Option<Self> {
        let bytes = read.short()?;
        bytes.iter().all(|byte| is_password_character(*byte)).then_some(Self(bytes))
    }
}

/// Whether a password may contain this Latin-1 character (WIRE-FACTS 1, 18).
pub(super) const fn is_password_character(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) && !matches!(byte, b'@' | b':' | b'/')
}
