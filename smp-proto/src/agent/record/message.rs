//! Messages on their way: those that wait to be sent, and those that wait for the application.

use alloc::vec::Vec;

use zeroize::{Zeroize, Zeroizing};

use super::{Record, read_u32};
use crate::agent::event::{Event, Integrity};
use crate::agent::storage::{ConnectionId, QueueNumber};
use crate::crypto::Nonce;
use crate::time::UnixTime;
use crate::wire::primitives::{Full, Reader, Writer};
use crate::wire::version::Version;

/// What a message to be sent is: decides what its delivery, or its failure, means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::agent) enum OutgoingKind {
    /// The first message to a queue.
    Confirmation,
    /// A request to a contact address.
    Request,
    /// `H`
    Hello,
    /// What the application sends.
    Body,
    /// `V`
    Receipt,
    /// `QC`
    Continue,
    /// `QA`
    AddQueues,
    /// `QK`
    SecureQueues,
    /// `QU`
    UseQueues,
    /// `QT`
    TestQueues,
    /// `QT` in the fast form: the first message to a queue that we secured.
    FirstTest,
    /// `R`, in an envelope of its own.
    RatchetKey,
    /// `E`
    RatchetReady,
}

const KINDS: [OutgoingKind; 13] = [
    OutgoingKind::Confirmation,
    OutgoingKind::Request,
    OutgoingKind::Hello,
    OutgoingKind::Body,
    OutgoingKind::Receipt,
    OutgoingKind::Continue,
    OutgoingKind::AddQueues,
    OutgoingKind::SecureQueues,
    OutgoingKind::UseQueues,
    OutgoingKind::TestQueues,
    OutgoingKind::RatchetKey,
    OutgoingKind::RatchetReady,
    OutgoingKind::FirstTest,
];

impl OutgoingKind {
    /// Whether the envelope carries our key for the queue's secret.
    pub const fn carries_key(self) -> bool {
        matches!(self, Self::Confirmation | Self::Request | Self::FirstTest)
    }

    /// Whether the relay tells the recipient's notifier of it.
    pub const fn notifies(self) -> bool {
        matches!(
            self,
            Self::Confirmation | Self::Request | Self::Hello | Self::RatchetKey | Self::RatchetReady
        )
    }
}

/// A message that waits to be sent. It is encrypted when it leaves, always with the same keys and nonce: what is sent
/// again is byte for byte the same.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::agent) struct Outgoing {
    pub kind: OutgoingKind,
    /// The queue that it must go to; otherwise the one in use.
    pub queue: Option<QueueNumber>,
    /// Its number for the peer's agent.
    pub number: i64,
    /// The application's wish.
    pub notification: bool,
    /// Of the box around the envelope.
    pub nonce: Nonce,
    pub content: OutgoingContent,
}

/// What is in the box.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::agent) enum OutgoingContent {
    /// An agent's envelope, without a ratchet.
    Envelope(Vec<u8>),
    /// An agent message, to be encrypted with a key of the ratchet's that is for nothing else.
    Ratchet {
        /// The version in the envelope.
        version: Version,
        /// A [`SealingKey`](crate::crypto::ratchet::SealingKey), stored.
        key: Zeroizing<Vec<u8>>,
        /// What the text is padded to.
        padded: u16,
        text: Zeroizing<Vec<u8>>,
    },
}

impl Outgoing {
    /// How many bytes of text there are.
    pub fn length(&self) -> usize {
        match &self.content {
            OutgoingContent::Envelope(envelope) => envelope.len(),
            OutgoingContent::Ratchet { text, .. } => text.len(),
        }
    }
}

impl core::fmt::Debug for Outgoing {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "Outgoing({:?}, {}, {} bytes)", self.kind, self.number, self.length())
    }
}

impl Record for Outgoing {
    const LAYOUT: u8 = 1;

    /// kind (1) ‖ maybe queue (4) ‖ number (8) ‖ notification ‖ nonce (24) ‖ 0 ‖ envelope (to the end), or 1 ‖ version
    /// (2) ‖ key (large) ‖ padded length (2) ‖ text (to the end)
    fn write(&self, out: &mut Vec<u8>) -> Result<(), Full> {
        let kind = KINDS.iter().position(|kind| *kind == self.kind).ok_or(Full)?;
        out.byte(u8::try_from(kind).map_err(|_| Full)?)?;
        out.maybe(self.queue.as_ref(), |out, queue| out.put(&queue.0.to_be_bytes()))?;
        out.i64(self.number)?;
        out.bool(self.notification)?;
        out.put(&self.nonce.0)?;
        match &self.content {
            OutgoingContent::Envelope(envelope) => {
                out.byte(0)?;
                out.put(envelope)
            }
            OutgoingContent::Ratchet { version, key, padded, text } => {
                out.byte(1)?;
                out.u16(version.0)?;
                out.large(key)?;
                out.u16(*padded)?;
                out.put(text)
            }
        }
    }

    fn read(read: &mut Reader<'_>, _layout: u8) -> Option<Self> {
        Some(Self {
            kind: *KINDS.get(usize::from(read.byte()?))?,
            queue: read.maybe(|read| read_u32(read).map(QueueNumber))?,
            number: read.i64()?,
            notification: read.bool()?,
            nonce: Nonce(*read.array()?),
            content: match read.byte()? {
                0 => OutgoingContent::Envelope(read.tail().to_vec()),
                1 => OutgoingContent::Ratchet {
                    version: read.version()?,
                    key: Zeroizing::new(read.large()?.to_vec()),
                    padded: read.u16()?,
                    text: Zeroizing::new(read.tail().to_vec()),
                },
                _ => return None,
            },
        })
    }
}

/// A message that waits for the application's acknowledgement. Plaintext: wiped on drop.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::agent) struct Received {
    /// Its number from the peer's agent.
    pub number: i64,
    /// What the chain of numbers and hashes says.
    pub integrity: Integrity,
    /// The SHA-256 of the whole agent message, for a receipt.
    pub hash: [u8; 32],
    /// The SHA-256 of the envelope, to know it when the relay delivers it again.
    pub envelope_hash: [u8; 32],
    /// When the peer's relay took it.
    pub sent_at: UnixTime,
    pub notification: bool,
    pub body: Vec<u8>,
}

impl Received {
    /// What the application is told.
    pub fn event(&self, connection: ConnectionId) -> Event {
        Event::Message {
            connection,
            number: self.number,
            integrity: self.integrity,
            sent_at: self.sent_at,
            notification: self.notification,
            body: self.body.clone(),
        }
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.body.zeroize();
    }
}

impl core::fmt::Debug for Received {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "Received({}, {:?}, {} bytes)", self.number, self.integrity, self.body.len())
    }
}

impl Record for Received {
    const LAYOUT: u8 = 1;

    /// number (8) ‖ integrity (1, a gap with 2 numbers of 8) ‖ hash (32) ‖ hash of the envelope (32) ‖ time (8)
    /// ‖ notification ‖ body (to the end)
    fn write(&self, out: &mut Vec<u8>) -> Result<(), Full> {
        out.i64(self.number)?;
        match self.integrity {
            Integrity::Ok => out.byte(0)?,
            Integrity::Skipped { first, last } => {
                out.byte(1)?;
                out.i64(first)?;
                out.i64(last)?;
            }
            Integrity::BadHash => out.byte(2)?,
            Integrity::Duplicate => out.byte(3)?,
            Integrity::Earlier => out.byte(4)?,
        }
        out.put(&self.hash)?;
        out.put(&self.envelope_hash)?;
        out.i64(self.sent_at.0)?;
        out.bool(self.notification)?;
        out.put(&self.body)
    }

    fn read(read: &mut Reader<'_>, _layout: u8) -> Option<Self> {
        Some(Self {
            number: read.i64()?,
            integrity: match read.byte()? {
                0 => Integrity::Ok,
                1 => Integrity::Skipped { first: read.i64()?, last: read.i64()? },
                2 => Integrity::BadHash,
                3 => Integrity::Duplicate,
                4 => Integrity::Earlier,
                _ => return None,
            },
            hash: *read.array()?,
            envelope_hash: *read.array()?,
            sent_at: read.i64().map(UnixTime)?,
            notification: read.bool()?,
            body: read.tail().to_vec(),
        })
    }
}
