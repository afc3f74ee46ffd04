//! Commands that come through a first-step relay: what is expensive about them, apart from anything shared (EXTENSIONS,
//! First-step relay).
//!
//! The [`forwarding`](crate::forwarding) room decides which command is opened, and what becomes of its answer; here are the
//! steps in between, made by the task of a connection, in parallel with others: a [`SealedCommand`] is
//! [opened](SealedCommand::open), the [request](OpenedCommand::request) in it looked up and
//! [verified](super::CommandVerifier::verify) like any other, and the [`Answer`] sealed. In place of a session there is a
//! [`ForwardingKey`]: its name is what commands are authorized over, and its secret is the relay's key for authenticators
//! and for the boxes of blobs.
//!
//! **One answer.** What an answer is sealed with follows from the client's key and the forwarding key, so there must be
//! one answer only: [`Receipt`] says what it was. Its bytes are made in one place, of the broker's decision alone.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};

use super::blocks::OpenedBlock;
use super::facts::SessionId;
use super::forwarded::{Envelope, request_in};
use super::outgoing::{Outgoing, OutgoingContent};
use super::packing::write_answer;
use super::request::Request;
use crate::crypto::forwarding::{ForwardKeys, session_name};
use crate::crypto::{Provider, TAG_LENGTH, padding};
use crate::keys::{X25519Public, X25519Secret};
use crate::wire::error::SmpError;
use crate::wire::first_step::{RelayNumber, SEALED_LENGTH};
use crate::wire::response::Response;
use crate::wire::transmission::{Authorization, Batch, BatchWriter, SessionLayout, write_head};
use crate::wire::version::Version;
use crate::wire::{CorrelationId, EntityId};

/// The version of commands in `F` and of their answers: v18.
pub const COMMAND_VERSION: Version = Version::BLOCKED_NOTICE;

/// The longest answer that a receipt keeps, in bytes: `OK` has 54, errors a few more.
pub const MAX_KEPT_ANSWER: usize = 128;

/// A forwarding key at work. Its secret is wiped on drop.
pub struct ForwardingKey {
    number: RelayNumber,
    secret: X25519Secret,
    public: X25519Public,
    session: SessionId,
}

impl core::fmt::Debug for ForwardingKey {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "ForwardingKey({})", self.number.0)
    }
}

impl ForwardingKey {
    /// The key with this secret. Costs one X25519. `None` never happens: the name of a key has 32 bytes.
    #[must_use]
    pub fn new(provider: &dyn Provider, number: RelayNumber, secret: X25519Secret) -> Option<Self> {
        let public = provider.x25519_public(&secret);
        let session = SessionId::new(&session_name(number, &public))?;
        Some(Self { number, secret, public, session })
    }

    /// Its number.
    #[must_use]
    pub const fn number(&self) -> RelayNumber {
        self.number
    }

    /// What is published.
    #[must_use]
    pub const fn public(&self) -> &X25519Public {
        &self.public
    }

    /// What stands in place of the session id.
    #[must_use]
    pub const fn session(&self) -> &SessionId {
        &self.session
    }

    pub(crate) const fn secret(&self) -> &X25519Secret {
        &self.secret
    }

    fn keys_for(&self, provider: &dyn Provider, ephemeral: &X25519Public) -> ForwardKeys {
        ForwardKeys::of_key_pair(provider, &self.secret, &self.public, self.number, ephemeral)
    }
}

/// Names a command: the number of its forwarding key, and 16 bytes of the SHA-256 of the client's key for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandName {
    /// Which forwarding key.
    pub key: RelayNumber,
    /// Which command.
    pub name: [u8; 16],
}

/// A command that nobody has opened yet.
pub struct SealedCommand {
    pub(crate) key: Arc<ForwardingKey>,
    pub(crate) name: CommandName,
    /// The key of its receipt in storage.
    pub(crate) record: Bytes,
    pub(crate) ephemeral: X25519Public,
    /// [`SEALED_LENGTH`] bytes, a part of the block that they came in.
    pub(crate) sealed: Bytes,
}

impl core::fmt::Debug for SealedCommand {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("SealedCommand(..)")
    }
}

/// A command that cannot be opened: to be reported with
/// [`Forwarding::unopened`](crate::forwarding::Forwarding::unopened).
#[derive(Debug)]
pub struct Unopened(pub(crate) CommandName);

impl SealedCommand {
    /// Opens it, in place when nobody else has the block. Costs one X25519 and one box of 16 KB.
    ///
    /// # Errors
    /// [`Unopened`] when it was sealed for another key, or changed.
    pub fn open(self, provider: &dyn Provider) -> Result<OpenedCommand, Unopened> {
        let Self { key, name, record, ephemeral, sealed } = self;
        let keys = key.keys_for(provider, &ephemeral);
        let mut buffer = sealed.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        let length = keys.open_command(provider, &mut buffer).map_err(|_| Unopened(name))?.len();
        let content = OpenedBlock::part_of(buffer.freeze(), TAG_LENGTH + padding::LENGTH_BYTES, length);
        let receipt_written = AtomicBool::new(false);
        let envelope = FirstStepEnvelope { key, keys, name, record, receipt_written };
        Ok(OpenedCommand { content, name, envelope: Arc::new(Envelope::FirstStep(envelope)) })
    }
}

/// A command that was opened, and not read yet.
#[derive(Debug)]
pub struct OpenedCommand {
    content: OpenedBlock,
    name: CommandName,
    envelope: Arc<Envelope>,
}

impl OpenedCommand {
    /// What the command borrows from: to be given to the broker with it.
    #[must_use]
    pub const fn block(&self) -> &OpenedBlock {
        &self.content
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> CommandName {
        self.name
    }

    /// The command in it, to be looked up and then verified. What may not be forwarded, and what is not exactly one
    /// transmission, is an error already.
    #[must_use]
    pub fn request(&self) -> Request<'_> {
        if Batch::parse(self.content.content()).is_none_or(|batch| batch.len() != 1) {
            return Request::Malformed {
                correlation: CorrelationId::EMPTY,
                entity: EntityId::EMPTY,
                error: SmpError::Block,
            };
        }
        let session = self.first_step().map_or(&[][..], |envelope| envelope.key.session.as_bytes());
        request_in(&self.content, SessionLayout { version: COMMAND_VERSION, session })
    }

    fn first_step(&self) -> Option<&FirstStepEnvelope> {
        self.envelope.first_step()
    }

    pub(super) fn key(&self) -> Option<&ForwardingKey> {
        self.first_step().map(|envelope| &*envelope.key)
    }

    pub(super) fn envelope(&self) -> Arc<Envelope> {
        Arc::clone(&self.envelope)
    }
}

/// The envelope of a command that came through a first-step relay.
pub struct FirstStepEnvelope {
    key: Arc<ForwardingKey>,
    keys: ForwardKeys,
    name: CommandName,
    record: Bytes,
    /// Whether the receipt goes with the command's own commit.
    receipt_written: AtomicBool,
}

impl core::fmt::Debug for FirstStepEnvelope {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("FirstStepEnvelope(..)")
    }
}

impl Envelope {
    pub(crate) const fn first_step(&self) -> Option<&FirstStepEnvelope> {
        match self {
            Self::FirstStep(envelope) => Some(envelope),
            Self::Proxy(_) => None,
        }
    }
}

impl FirstStepEnvelope {
    pub(crate) const fn name(&self) -> CommandName {
        self.name
    }

    /// The receipt that goes with a command's own commit: its key and value. `answer` is what will be said when it is
    /// durable, `None` when that is not known yet.
    pub(crate) fn receipt_with_commit(
        &self,
        correlation: &CorrelationId,
        entity: &EntityId,
        answer: Option<&OutgoingContent>,
    ) -> (Bytes, Bytes) {
        self.receipt_written.store(true, Ordering::Relaxed);
        let receipt = answer.map_or(Receipt::NotKept, |answer| Receipt::of(correlation, entity, answer));
        (self.record.clone(), receipt.encode())
    }

    /// The receipt of a command without a write: its key and value.
    pub(crate) fn receipt(&self, outgoing: &Outgoing) -> (Bytes, Bytes) {
        let receipt = Receipt::of(&outgoing.correlation, &outgoing.entity, &outgoing.content);
        (self.record.clone(), receipt.encode())
    }

    /// Whether the receipt went with a commit of the broker.
    pub(crate) fn has_receipt(&self) -> bool {
        self.receipt_written.load(Ordering::Relaxed)
    }
}

/// What a relay keeps of a command that was executed.
#[derive(Clone, PartialEq, Eq)]
pub enum Receipt {
    /// The answer: a batch of one transmission.
    Kept(Bytes),
    /// There was an answer, and it was too large to be kept.
    NotKept,
}

impl core::fmt::Debug for Receipt {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str(match self {
            Self::Kept(_) => "Kept(..)",
            Self::NotKept => "NotKept",
        })
    }
}

impl Receipt {
    fn of(correlation: &CorrelationId, entity: &EntityId, content: &OutgoingContent) -> Self {
        let response = match content {
            OutgoingContent::Ok => Response::Ok,
            OutgoingContent::Error(error) => Response::Error(error.clone()),
            _ => return Self::NotKept,
        };
        let mut buffer = [0; MAX_KEPT_ANSWER];
        // What an answer says depends on the version, and not on the session.
        let layout = SessionLayout { version: COMMAND_VERSION, session: &[] };
        let length = BatchWriter::new(&mut buffer).ok().and_then(|mut batch| {
            batch
                .add(|out| {
                    write_head(Authorization::None, None, layout, correlation, entity, out)?;
                    response.encode(COMMAND_VERSION, out)
                })
                .ok()?;
            Some(batch.finish())
        });
        match length.and_then(|length| buffer.get(..length)) {
            Some(answer) => Self::Kept(Bytes::copy_from_slice(answer)),
            None => Self::NotKept,
        }
    }

    /// The value of its record: one byte, and the answer.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        match self {
            Self::NotKept => Bytes::from_static(&[0]),
            Self::Kept(answer) => {
                let mut value = Vec::with_capacity(1 + answer.len());
                value.push(1);
                value.extend_from_slice(answer);
                value.into()
            }
        }
    }

    /// Reads that value.
    #[must_use]
    pub fn decode(value: &Bytes) -> Option<Self> {
        match value.first()? {
            0 if value.len() == 1 => Some(Self::NotKept),
            1 if value.len() <= 1 + MAX_KEPT_ANSWER => Some(Self::Kept(value.slice(1..))),
            _ => None,
        }
    }
}

/// An answer that is to be sealed.
#[derive(Debug)]
pub enum Answer {
    /// What the broker has answered, for the first time.
    First(Outgoing),
    /// What a receipt says.
    Again {
        /// The key that the command was sealed for.
        key: Arc<ForwardingKey>,
        /// The client's key.
        ephemeral: X25519Public,
        /// The answer.
        answer: Bytes,
    },
}

impl Answer {
    /// Seals the answer into [`SEALED_LENGTH`] bytes. Costs one box of 16 KB, and one X25519 when it is said again. False
    /// when there is no answer to a command that was forwarded.
    #[must_use]
    pub fn seal(&self, provider: &'static dyn Provider, sealed: &mut [u8]) -> bool {
        if sealed.len() != SEALED_LENGTH {
            return false;
        }
        let Some(content) = sealed.get_mut(TAG_LENGTH + padding::LENGTH_BYTES..) else { return false };
        match self {
            Self::First(outgoing) => {
                let Some(envelope) = outgoing.forwarded.as_deref().and_then(Envelope::first_step) else {
                    return false;
                };
                let written = write_answer(provider, &envelope.key, outgoing, content);
                written.is_some_and(|length| {
                    envelope.keys.seal_answer_in_place(provider, sealed, length).is_ok()
                })
            }
            Self::Again { key, ephemeral, answer } => {
                let Some(place) = content.get_mut(..answer.len()) else { return false };
                place.copy_from_slice(answer);
                let keys = key.keys_for(provider, ephemeral);
                keys.seal_answer_in_place(provider, sealed, answer.len()).is_ok()
            }
        }
    }
}
