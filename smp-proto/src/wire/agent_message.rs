//! What agents send each other (WIRE-FACTS 9.1): the envelope that relays' clients see, and the message that the
//! ratchet protects.
//!
//! Only bytes and types: encrypting is done elsewhere, between the two. What is inside is never printed: `Debug` shows
//! kinds and lengths.

use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt;

use super::address::ServerAddress;
use super::identifier::Identifier;
use super::links::connection_request::ConnectionRequest;
use super::links::ratchet_parameters::RatchetParameters;
use super::primitives::{Full, Reader, Writer};
use super::queue_uri::{AgreedQueue, QueueUri};
use super::version::Version;
use crate::keys::AuthKey;

/// The first version of the agent's protocol whose messages may leave room for post-quantum keys.
pub const POST_QUANTUM_VERSION: Version = Version(5);

/// What the ratchet pads to, so that everything fits in a block and shows nothing by its length: bytes of connection
/// information (in confirmations), and of any later message. Less when the ratchet's header carries post-quantum keys.
#[must_use]
pub const fn padded_lengths(version: Version, post_quantum: bool) -> (usize, usize) {
    if post_quantum && version.0 >= POST_QUANTUM_VERSION.0 { (11_106, 13_618) } else { (14_832, 15_840) }
}

/// What is in the client's envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentEnvelope<'a> {
    /// The version of the sender's agent.
    pub version: Version,
    /// What it is.
    pub content: AgentEnvelopeContent<'a>,
}

/// The kinds of envelopes.
#[derive(Clone, PartialEq, Eq)]
pub enum AgentEnvelopeContent<'a> {
    /// `C`: the first message to a queue.
    Confirmation {
        /// The keys of the party who joins, when they begin the ratchet.
        ratchet: Option<RatchetParameters>,
        /// The connection information, encrypted by the ratchet.
        encrypted: &'a [u8],
    },
    /// `M`: a message, encrypted by the ratchet.
    Message(&'a [u8]),
    /// `I`: somebody wants to connect to an address. The client's envelope is its only encryption.
    Invitation {
        /// How to connect to them.
        request: ConnectionRequest,
        /// What their application tells.
        information: &'a [u8],
    },
    /// `R`: the ratchet begins anew.
    RatchetKey {
        /// The new keys.
        ratchet: RatchetParameters,
        /// What their application tells.
        information: &'a [u8],
    },
}

impl fmt::Debug for AgentEnvelopeContent<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Confirmation { ratchet: None, encrypted } => {
                write!(formatter, "Confirmation({} bytes)", encrypted.len())
            }
            Self::Confirmation { ratchet: Some(ratchet), encrypted } => {
                write!(formatter, "Confirmation({ratchet:?}, {} bytes)", encrypted.len())
            }
            Self::Message(encrypted) => write!(formatter, "Message({} bytes)", encrypted.len()),
            Self::Invitation { request, information } => {
                write!(formatter, "Invitation({request:?}, {} bytes)", information.len())
            }
            Self::RatchetKey { ratchet, information } => {
                write!(formatter, "RatchetKey({ratchet:?}, {} bytes)", information.len())
            }
        }
    }
}

impl<'a> AgentEnvelope<'a> {
    /// Reads all of `bytes`.
    #[must_use]
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut read = Reader::new(bytes);
        let version = read.version()?;
        let content = match read.byte()? {
            b'C' => AgentEnvelopeContent::Confirmation {
                ratchet: read.maybe(RatchetParameters::read_agreed)?,
                encrypted: read.tail(),
            },
            b'M' => AgentEnvelopeContent::Message(read.tail()),
            b'I' => AgentEnvelopeContent::Invitation {
                request: core::str::from_utf8(read.large()?).ok()?.parse().ok()?,
                information: read.tail(),
            },
            b'R' => AgentEnvelopeContent::RatchetKey {
                ratchet: RatchetParameters::read_agreed(&mut read)?,
                information: read.tail(),
            },
            _ => return None,
        };
        Some(Self { version, content })
    }

    /// Writes the envelope.
    ///
    /// # Errors
    /// [`Full`] when it does not fit.
    pub fn encode(&self, out: &mut impl Writer) -> Result<(), Full> {
        out.u16(self.version.0)?;
        match &self.content {
            AgentEnvelopeContent::Confirmation { ratchet, encrypted } => {
                out.byte(b'C')?;
                out.maybe(ratchet.as_ref(), |out, ratchet| ratchet.write_agreed(out))?;
                out.put(encrypted)
            }
            AgentEnvelopeContent::Message(encrypted) => {
                out.byte(b'M')?;
                out.put(encrypted)
            }
            AgentEnvelopeContent::Invitation { request, information } => {
                out.byte(b'I')?;
                out.large(request.to_string().as_bytes())?;
                out.put(information)
            }
            AgentEnvelopeContent::RatchetKey { ratchet, information } => {
                out.byte(b'R')?;
                ratchet.write_agreed(out)?;
                out.put(information)
            }
        }
    }
}

/// What the ratchet protects.
#[derive(Clone, PartialEq, Eq)]
pub enum AgentMessage<'a> {
    /// `I`: connection information, from the party who was invited first.
    ConnectionInformation(&'a [u8]),
    /// `D`: connection information, and the queues to reply to.
    ConnectionInformationReply {
        /// At least one queue.
        queues: Vec<AgreedQueue>,
        /// The information.
        information: &'a [u8],
    },
    /// `R`: information with new ratchet keys.
    RatchetInformation(&'a [u8]),
    /// `M`: everything in a connection that is up.
    Numbered {
        /// Counts the sender's messages.
        id: i64,
        /// The SHA-256 of the message before; empty in the first.
        previous_hash: &'a [u8],
        /// The content.
        content: AgentMessageContent<'a>,
    },
}

/// The content of a numbered message. Lists have 1 to 255 items: readers refuse others.
#[derive(Clone, PartialEq, Eq)]
pub enum AgentMessageContent<'a> {
    /// `H`: the connection works in this direction.
    Hello,
    /// `M`: what the application sends.
    Body(&'a [u8]),
    /// `V`: messages arrived.
    Received(Vec<Receipt<'a>>),
    /// `E`: the new ratchet works; the last message decrypted with the old one.
    RatchetReady(i64),
    /// `QC`: a queue that was full takes messages again.
    Continue(QueueAddress),
    /// `QA`: use these queues too, or in place of others.
    AddQueues(Vec<(QueueUri, Option<QueueAddress>)>),
    /// `QK`: the keys to secure new queues with.
    SecureQueues(Vec<(AgreedQueue, AuthKey)>),
    /// `QU`: send to these queues; whether each is the primary one.
    UseQueues(Vec<(QueueAddress, bool)>),
    /// `QT`: tests that these queues work.
    TestQueues(Vec<QueueAddress>),
}

/// Tells that a message arrived.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Receipt<'a> {
    /// The number of the message.
    pub message: i64,
    /// The SHA-256 of the message.
    pub hash: &'a [u8],
    /// What the application adds.
    pub information: &'a [u8],
}

/// Where a queue is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueAddress {
    /// The relay.
    pub server: ServerAddress,
    /// The sender's id of the queue.
    pub sender: Identifier,
}

impl fmt::Debug for AgentMessage<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectionInformation(information) => {
                write!(formatter, "ConnectionInformation({} bytes)", information.len())
            }
            Self::ConnectionInformationReply { queues, information } => {
                let (queues, bytes) = (queues.len(), information.len());
                write!(formatter, "ConnectionInformationReply({queues} queues, {bytes} bytes)")
            }
            Self::RatchetInformation(information) => {
                write!(formatter, "RatchetInformation({} bytes)", information.len())
            }
            Self::Numbered { id, content, .. } => write!(formatter, "Numbered({id}, {content:?})"),
        }
    }
}

impl fmt::Debug for AgentMessageContent<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello => formatter.write_str("Hello"),
            Self::Body(body) => write!(formatter, "Body({} bytes)", body.len()),
            Self::Received(receipts) => write!(formatter, "Received({receipts:?})"),
            Self::RatchetReady(last) => write!(formatter, "RatchetReady({last})"),
            Self::Continue(_) => formatter.write_str("Continue"),
            Self::AddQueues(queues) => write!(formatter, "AddQueues({})", queues.len()),
            Self::SecureQueues(queues) => write!(formatter, "SecureQueues({})", queues.len()),
            Self::UseQueues(queues) => write!(formatter, "UseQueues({})", queues.len()),
            Self::TestQueues(queues) => write!(formatter, "TestQueues({})", queues.len()),
        }
    }
}

impl fmt::Debug for Receipt<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Receipt({})", self.message)
    }
}

impl<'a> AgentMessage<'a> {
    /// Reads all of `bytes`.
    #[must_use]
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut read = Reader::new(bytes);
        let message = match read.byte()? {
            b'I' => Self::ConnectionInformation(read.tail()),
            b'D' => Self::ConnectionInformationReply {
                queues: read.list(1, AgreedQueue::read)?,
                information: read.tail(),
            },
            b'R' => Self::RatchetInformation(read.tail()),
            b'M' => Self::Numbered {
                id: read.i64()?,
                previous_hash: read.short()?,
                content: AgentMessageContent::read(&mut read)?,
            },
            _ => return None,
        };
        read.end()?;
        Some(message)
    }

    /// Writes the message.
    ///
    /// # Errors
    /// [`Full`] when it does not fit.
    pub fn encode(&self, out: &mut impl Writer) -> Result<(), Full> {
        match self {
            Self::ConnectionInformation(information) => {
                out.byte(b'I')?;
                out.put(information)
            }
            Self::ConnectionInformationReply { queues, information } => {
                out.byte(b'D')?;
                out.list(queues, |out, queue| queue.write(out))?;
                out.put(information)
            }
            Self::RatchetInformation(information) => {
                out.byte(b'R')?;
                out.put(information)
            }
            Self::Numbered { id, previous_hash, content } => {
                out.byte(b'M')?;
                out.i64(*id)?;
                out.short(previous_hash)?;
                content.write(out)
            }
        }
    }
}

impl<'a> AgentMessageContent<'a> {
    fn read(read: &mut Reader<'a>) -> Option<Self> {
        match read.byte()? {
            b'H' => Some(Self::Hello),
            b'M' => Some(Self::Body(read.tail())),
            b'V' => read.list(1, Receipt::read).map(Self::Received),
            b'E' => read.i64().map(Self::RatchetReady),
            b'Q' => match read.byte()? {
                b'C' => QueueAddress::read(read).map(Self::Continue),
                b'A' => read
                    .list(1, |read| Some((QueueUri::read(read)?, read.maybe(QueueAddress::read)?)))
                    .map(Self::AddQueues),
                b'K' => read
                    .list(1, |read| Some((AgreedQueue::read(read)?, read.auth_key()?)))
                    .map(Self::SecureQueues),
                b'U' => {
                    read.list(1, |read| Some((QueueAddress::read(read)?, read.bool()?))).map(Self::UseQueues)
                }
                b'T' => read.list(1, QueueAddress::read).map(Self::TestQueues),
                _ => None,
            },
            _ => None,
        }
    }

    fn write(&self, out: &mut impl Writer) -> Result<(), Full> {
        match self {
            Self::Hello => out.byte(b'H'),
            Self::Body(body) => {
                out.byte(b'M')?;
                out.put(body)
            }
            Self::Received(receipts) => {
                out.byte(b'V')?;
                out.list(receipts, |out, receipt| receipt.write(out))
            }
            Self::RatchetReady(last) => {
                out.byte(b'E')?;
                out.i64(*last)
            }
            Self::Continue(queue) => {
                out.put(b"QC")?;
                queue.write(out)
            }
            Self::AddQueues(queues) => {
                out.put(b"QA")?;
                out.list(queues, |out, (queue, replaced)| {
                    queue.write(out)?;
                    out.maybe(replaced.as_ref(), |out, replaced| replaced.write(out))
                })
            }
            Self::SecureQueues(queues) => {
                out.put(b"QK")?;
                out.list(queues, |out, (queue, key)| {
                    queue.write(out)?;
                    out.auth_key(key)
                })
            }
            Self::UseQueues(queues) => {
                out.put(b"QU")?;
                out.list(queues, |out, (queue, primary)| {
                    queue.write(out)?;
                    out.bool(*primary)
                })
            }
            Self::TestQueues(queues) => {
                out.put(b"QT")?;
                out.list(queues, |out, queue| queue.write(out))
            }
        }
    }
}

impl<'a> Receipt<'a> {
    fn read(read: &mut Reader<'a>) -> Option<Self> {
        Some(Self { message: read.i64()?, hash: read.short()?, information: read.large()? })
    }

    fn write(&self, out: &mut impl Writer) -> Result<(), Full> {
        out.i64(self.message)?;
        out.short(self.hash)?;
        out.large(self.information)
    }
}

impl QueueAddress {
    fn read(read: &mut Reader<'_>) -> Option<Self> {
        Some(Self { server: ServerAddress::read(read)?, sender: read.identifier()? })
    }

    fn write(&self, out: &mut impl Writer) -> Result<(), Full> {
        self.server.write(out)?;
        out.identifier(&self.sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec;

    #[test]
    fn debug_shows_no_content() {
        let receipt = Receipt { message: 7, hash: &[0x55; 32], information: &[0x55; 3] };
        for content in [AgentMessageContent::Body(&[0x55; 9]), AgentMessageContent::Received(vec![receipt])] {
            let message = AgentMessage::Numbered { id: 3, previous_hash: &[0x55; 32], content };
            assert!(!format!("{message:?}").contains("85"), "{message:?}");
        }
        let content = AgentEnvelopeContent::Message(&[0x55; 9]);
        let envelope = AgentEnvelope { version: Version(7), content };
        assert_eq!(
            format!("{envelope:?}"),
            "AgentEnvelope { version: Version(7), content: Message(9 bytes) }"
        );
    }
}
