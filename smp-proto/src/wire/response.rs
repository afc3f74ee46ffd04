//! Responses and notifications that relays send (WIRE-FACTS 5.1), every one of versions 6 to 18.

use super::command::{LinkData, QueueMode};
use super::error::{CommandError, SmpError};
use super::hello::{CertificateChain, SignedKey};
use super::identifier::{IDENTIFIER_LENGTH, Identifier};
use super::primitives::{Full, Reader, SPACE, Writer};
use super::version::{Version, VersionRange};
use crate::keys::X25519Public;

/// A response with its parameters, as a client reads it. Long parts are borrowed from the block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response<'a> {
    /// `IDS`: the queue was created.
    Created(CreatedQueue),
    /// `LNK` (v15): link data.
    Link {
        /// The queue's sender id.
        sender: Identifier,
        /// The encrypted link data.
        data: LinkData<'a>,
    },
    /// `SOK` (v16; below it is `OK`): subscribed.
    Subscribed {
        /// The service that the subscription belongs to.
        service: Option<Identifier>,
    },
    /// `SOKS` (v16): a service is subscribed to this many queues.
    ServiceSubscribed(i64),
    /// `MSG`: a message; 16,122 bytes of ciphertext for every ordinary one (WIRE-FACTS 9).
    Message {
        /// The message id, which is also the nonce: 24 bytes.
        id: Identifier,
        /// The encrypted body.
        body: &'a [u8],
    },
    /// `NID`: notifications are on.
    NotifierId(NotifierIds),
    /// `NMSG`: there is a message.
    Notification {
        /// The nonce of the metadata.
        nonce: [u8; IDENTIFIER_LENGTH],
        /// The encrypted metadata, 144 bytes.
        metadata: &'a [u8],
    },
    /// `PKEY` (v8): the proxy's session with the relay.
    ProxySession {
        /// Its session id.
        session: Identifier,
        /// The versions the client may choose from.
        versions: VersionRange,
        /// The relay's certificates, leaf first.
        chain: CertificateChain<'a>,
        /// The relay's session key, signed by the leaf.
        key: SignedKey<'a>,
    },
    /// `RRES` (v8): the answer to a forwarded command, to the proxy.
    RelayResponse(&'a [u8]),
    /// `PRES` (v8): the answer to a forwarded command, to the client.
    ProxyResponse(&'a [u8]),
    /// `BLOB` (extension): a blob, boxed for its reader.
    Blob(&'a [u8]),
    /// `END`: another connection subscribed.
    End,
    /// `ENDS` (v16): another connection subscribed the service, with this many queues.
    ServiceEnd(i64),
    /// `DELD` (v10; below it is `END`): the queue was deleted.
    Deleted,
    /// `INFO`: the queue's description, JSON.
    Information(&'a str),
    /// `OK`.
    Ok,
    /// `PONG`.
    Pong,
    /// `ERR`.
    Error(SmpError),
}

/// The parameters of `IDS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedQueue {
    /// The recipient's id of the queue.
    pub recipient: Identifier,
    /// The sender's id of the queue.
    pub sender: Identifier,
    /// For the secret with which messages to the recipient are encrypted.
    pub relay_dh: X25519Public,
    /// The queue's mode; `None` when unknown.
    pub mode: Option<QueueMode>,
    /// v15: the link id.
    pub link: Option<Identifier>,
    /// v16: the service that the queue belongs to.
    pub service: Option<Identifier>,
    /// v17: the notifier.
    pub notifier: Option<NotifierIds>,
}

/// The parameters of `NID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifierIds {
    /// The notifier's id of the queue.
    pub notifier: Identifier,
    /// For the secret with which notification metadata is encrypted.
    pub relay_dh: X25519Public,
}

impl<'a> Response<'a> {
    /// Reads a response as a client does: `IDS` as `version` lays it out, everything else at any version.
    ///
    /// # Errors
    /// [`CommandError::Unknown`] for an unknown tag, [`CommandError::Syntax`] for parameters that do not match exactly.
    pub fn decode(bytes: &'a [u8], version: Version) -> Result<Self, CommandError> {
        let tag_length = bytes.iter().position(|byte| *byte == SPACE).unwrap_or(bytes.len());
        let (tag, parameters) = bytes.split_at_checked(tag_length).ok_or(CommandError::Syntax)?;
        let mut reader = Reader::new(parameters);
        let read = &mut reader;
        let response = match tag {
            b"IDS" => read.spaced(|read| CreatedQueue::read(read, version)).map(Self::Created),
            b"LNK" => read
                .spaced(|read| Some(Self::Link { sender: read.identifier()?, data: LinkData::read(read)? })),
            b"SOK" => read.spaced(|read| Some(Self::Subscribed { service: read.maybe(Reader::identifier)? })),
            b"SOKS" => read.spaced(Reader::i64).map(Self::ServiceSubscribed),
            b"MSG" => read.spaced(|read| Some(Self::Message { id: read.identifier()?, body: read.tail() })),
            b"NID" => read.spaced(NotifierIds::read).map(Self::NotifierId),
            b"NMSG" => read
                .spaced(|read| Some(Self::Notification { nonce: *read.array()?, metadata: read.short()? })),
            b"PKEY" => read.spaced(|read| {
                Some(Self::ProxySession {
                    session: read.identifier()?,
                    versions: read.version_range()?,
                    chain: CertificateChain::read(read)?,
                    key: SignedKey(read.large()?),
                })
            }),
            b"RRES" => read.spaced(|read| Some(Self::RelayResponse(read.tail()))),
            b"PRES" => read.spaced(|read| Some(Self::ProxyResponse(read.tail()))),
            b"BLOB" => read.spaced(|read| Some(Self::Blob(read.tail()))),
            b"END" => Some(Self::End),
            b"ENDS" => read.spaced(Reader::i64).map(Self::ServiceEnd),
            b"DELD" => Some(Self::Deleted),
            b"INFO" => read.spaced(|read| core::str::from_utf8(read.tail()).ok()).map(Self::Information),
            b"OK" => Some(Self::Ok),
            b"PONG" => Some(Self::Pong),
            b"ERR" => read.spaced(|read| SmpError::decode(read.tail())).map(Self::Error),
            _ => return Err(CommandError::Unknown),
        };
        response.filter(|_| reader.is_empty()).ok_or(CommandError::Syntax)
    }

    /// Writes the response as `version` lays it out; what that version cannot carry is left out or said in its words.
    ///
    /// # Errors
    /// [`Full`] when it does not fit.
    pub fn encode(&self, version: Version, out: &mut impl Writer) -> Result<(), Full> {
        match self {
            Self::Created(created) => created.write(version, out),
            Self::Link { sender, data } => {
                out.put(b"LNK ")?;
                out.identifier(sender)?;
                data.write(out)
            }
            Self::Subscribed { service } if version >= Version::SERVICES => {
                out.put(b"SOK ")?;
                out.maybe(service.as_ref(), |out, service| out.identifier(service))
            }
            Self::Subscribed { .. } | Self::Ok => out.put(b"OK"),
            Self::ServiceSubscribed(count) => {
                out.put(b"SOKS ")?;
                out.i64(*count)
            }
            Self::Message { id, body } => {
                out.put(b"MSG ")?;
                out.identifier(id)?;
                out.put(body)
            }
            Self::NotifierId(ids) => ids.write_response(out),
            Self::Notification { nonce, metadata } => {
                out.put(b"NMSG ")?;
                out.put(nonce)?;
                out.short(metadata)
            }
            Self::ProxySession { session, versions, chain, key } => {
                out.put(b"PKEY ")?;
                out.identifier(session)?;
                out.version_range(*versions)?;
                out.put(chain.as_wire())?;
                out.large(key.0)
            }
            Self::RelayResponse(bytes) => {
                out.put(b"RRES ")?;
                out.put(bytes)
            }
            Self::ProxyResponse(bytes) => {
                out.put(b"PRES ")?;
                out.put(bytes)
            }
            Self::Blob(bytes) => {
                out.put(b"BLOB ")?;
                out.put(bytes)
            }
            Self::Deleted if version >= Version::DELETED_EVENT => out.put(b"DELD"),
            Self::Deleted | Self::End => out.put(b"END"),
            Self::ServiceEnd(count) => {
                out.put(b"ENDS ")?;
                out.i64(*count)
            }
            Self::Information(json) => {
                out.put(b"INFO ")?;
                out.put(json.as_bytes())
            }
            Self::Pong => out.put(b"PONG"),
            Self::Error(error) => {
                out.put(b"ERR ")?;
                error.for_version(version).encode(out)
            }
        }
    }
}

impl CreatedQueue {
    fn read(read: &mut Reader<'_>, version: Version) -> Option<Self> {
        let recipient = read.identifier()?;
        let sender = read.identifier()?;
        let relay_dh = read.x25519()?;
        let mut created =
            Self { recipient, sender, relay_dh, mode: None, link: None, service: None, notifier: None };
        if version >= Version::SHORT_LINKS {
            created.mode = read.maybe(QueueMode::read)?;
            created.link = read.maybe(Reader::identifier)?;
            if version >= Version::SERVICES {
                created.service = read.maybe(Reader::identifier)?;
            }
            if version >= Version::NOTIFIER_IN_NEW {
                created.notifier = read.maybe(NotifierIds::read)?;
            }
        } else if version >= Version::SECURE_BY_SENDER {
            created.mode = Some(if read.bool()? { QueueMode::Messaging } else { QueueMode::Contact });
        }
        Some(created)
    }

    /// Writes the response, its tag included.
    pub(crate) fn write(&self, version: Version, out: &mut impl Writer) -> Result<(), Full> {
        out.put(b"IDS ")?;
        out.identifier(&self.recipient)?;
        out.identifier(&self.sender)?;
        out.x25519(&self.relay_dh)?;
        if version >= Version::SHORT_LINKS {
            out.maybe(self.mode.as_ref(), |out, mode| out.byte(mode.letter()))?;
            out.maybe(self.link.as_ref(), |out, link| out.identifier(link))?;
            if version >= Version::SERVICES {
                out.maybe(self.service.as_ref(), |out, service| out.identifier(service))?;
            }
            if version >= Version::NOTIFIER_IN_NEW {
                out.maybe(self.notifier.as_ref(), |out, ids| ids.write(out))?;
            }
        } else if version >= Version::SECURE_BY_SENDER {
            out.bool(self.mode == Some(QueueMode::Messaging))?;
        }
        Ok(())
    }
}

impl NotifierIds {
    fn read(read: &mut Reader<'_>) -> Option<Self> {
        Some(Self { notifier: read.identifier()?, relay_dh: read.x25519()? })
    }

    /// Writes the response, its tag included.
    pub(crate) fn write_response(&self, out: &mut impl Writer) -> Result<(), Full> {
        out.put(b"NID ")?;
        self.write(out)
    }

    fn write(&self, out: &mut impl Writer) -> Result<(), Full> {
        out.identifier(&self.notifier)?;
        out.x25519(&self.relay_dh)
    }
}
