//! One command: how it is sealed, and how its answer is read.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};

use crate::client::command::{ClientCommand, CommandBody, OwnedLinkData};
use crate::client::proxied::{self, NotTheRelay};
use crate::client::{CommandFailure, Reply};
use crate::crypto::forwarding::{self, ForwardKeys, MAX_CONTENT};
use crate::crypto::padding::LENGTH_BYTES;
use crate::crypto::{Provider, TAG_LENGTH, blob, ids};
use crate::entropy::Entropy;
use crate::keys::{X25519Public, X25519Secret};
use crate::session::client::{AddError, write_alone};
use crate::session::forwarding::COMMAND_VERSION;
use crate::session::{OpenedBlock, SessionId};
use crate::time::UnixTime;
use crate::wire::EntityId;
use crate::wire::address::ServerAddress;
use crate::wire::first_step::{FirstStepError, PublishedKey, RelayNumber, SEALED_LENGTH};
use crate::wire::identifier::{IDENTIFIER_LENGTH, Identifier};
use crate::wire::response::Response;
use crate::wire::transmission::{Batch, SessionLayout, Transmission};

/// The caller's name for a command: unique among those that are not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HoldId(pub u64);

/// Why a command is not held, or no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotHeld {
    /// The first-step relay says so.
    Refused(FirstStepError),
    /// The first-step relay could not be reached. Nothing was said.
    Unreachable,
    /// The first-step relay does not speak `smp-proxy/1`: it is of an older or another kind.
    NotSpoken,
    /// It shows another relay than the destination.
    NotTheRelay(NotTheRelay),
    /// It is larger than a block, or of a kind that is not forwarded.
    Unfit,
    /// Its text was asked for again, and is not the same.
    Changed,
}

impl fmt::Display for NotHeld {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(formatter),
            Self::Unreachable => formatter.write_str("the first-step relay cannot be reached"),
            Self::NotSpoken => formatter
                .write_str("the proxy does not hold commands: it is an older relay, or one of another kind"),
            Self::NotTheRelay(error) => error.fmt(formatter),
            Self::Unfit => {
                formatter.write_str("the command is too large, or of a kind that is not forwarded")
            }
            Self::Changed => formatter.write_str("the command is not the one that was held"),
        }
    }
}

impl core::error::Error for NotHeld {}

/// A forwarding key of the destination, verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VerifiedKey {
    pub(super) number: RelayNumber,
    pub(super) until: i64,
    pub(super) key: X25519Public,
}

impl VerifiedKey {
    /// Checks what a first-step relay shows.
    pub(super) fn check(
        provider: &dyn Provider,
        destination: &ServerAddress,
        shown: &PublishedKey<'_>,
        now: UnixTime,
    ) -> Result<Self, NotHeld> {
        let signer =
            proxied::signer(provider, destination, &shown.chain, now).map_err(NotHeld::NotTheRelay)?;
        let PublishedKey { number, until, key, signature, .. } = shown;
        if !forwarding::is_published(provider, &signer, *number, *until, key, signature) {
            return Err(NotHeld::NotTheRelay(NotTheRelay::KeyNotVerified));
        }
        if *until <= now.0 {
            return Err(NotHeld::Refused(FirstStepError::NoKey));
        }
        Ok(Self { number: *number, until: *until, key: *key })
    }

    fn session(&self) -> Option<SessionId> {
        SessionId::new(&forwarding::session_name(self.number, &self.key))
    }
}

/// What the answer to a command is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// `OK`
    Ok,
    /// `LNK`
    Link,
    /// `BLOB`, boxed for this key.
    Blob(X25519Secret),
}

/// A command that can be held, with what is needed to read its answer.
#[derive(Debug)]
pub struct Holdable {
    pub(super) command: ClientCommand,
    pub(super) expected: Expected,
}

impl Holdable {
    /// A command, if it is of a kind that is forwarded: `SEND`, `SKEY`, `LKEY`, `LGET` or `READ`.
    #[must_use]
    pub fn new(command: ClientCommand) -> Option<Self> {
        Self::try_from(command).ok()
    }
}

impl TryFrom<ClientCommand> for Holdable {
    /// The command, which is not forwarded.
    type Error = ClientCommand;

    fn try_from(command: ClientCommand) -> Result<Self, ClientCommand> {
        if !command.as_command().may_be_forwarded() {
            return Err(command);
        }
        let expected = match &command.body {
            CommandBody::SecureByLink(_) | CommandBody::GetLink => Expected::Link,
            CommandBody::ReadBlob(secret) => Expected::Blob(secret.clone()),
            _ => Expected::Ok,
        };
        Ok(Self { command, expected })
    }
}

impl From<Holdable> for ClientCommand {
    fn from(holdable: Holdable) -> Self {
        holdable.command
    }
}

/// The keys and names of one command, drawn once.
#[derive(Clone)]
pub(super) struct Seal {
    pub(super) ephemeral: X25519Secret,
    pub(super) key: VerifiedKey,
    /// The correlation inside.
    pub(super) inner: [u8; IDENTIFIER_LENGTH],
    pub(super) entity: EntityId,
    pub(super) expected: Expected,
    /// Of the text.
    pub(super) hash: [u8; 32],
}

/// A sealed command.
pub(super) struct Sealed {
    pub(super) ephemeral: X25519Public,
    pub(super) bytes: Box<[u8; SEALED_LENGTH]>,
}

impl Seal {
    /// Draws what is needed for a command.
    pub(super) fn draw(
        provider: &'static dyn Provider,
        key: VerifiedKey,
        holdable: &Holdable,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<Self, NotHeld> {
        let mut seal = Self {
            ephemeral: X25519Secret::generate(entropy),
            key,
            inner: ids::random(entropy),
            entity: holdable.command.entity.clone(),
            expected: holdable.expected.clone(),
            hash: [0; 32],
        };
        seal.hash = Sha256::digest(seal.text(provider, &holdable.command)?).into();
        Ok(seal)
    }

    /// What is sealed: a batch of one transmission, authorized for the forwarding key.
    fn text(&self, provider: &'static dyn Provider, command: &ClientCommand) -> Result<Vec<u8>, NotHeld> {
        let session = self.key.session().ok_or(NotHeld::Unfit)?;
        let mut text = vec![0; MAX_CONTENT];
        let length = write_alone(
            provider,
            (&session, COMMAND_VERSION, self.key.key),
            &Identifier::from(self.inner),
            &command.entity,
            &command.as_command(),
            command.key.as_deref(),
            &mut text,
        )
        .map_err(|_: AddError| NotHeld::Unfit)?;
        text.truncate(length);
        Ok(text)
    }

    /// Seals the command: the same bytes each time. Costs two X25519.
    pub(super) fn seal(
        &self,
        provider: &'static dyn Provider,
        command: &ClientCommand,
    ) -> Result<Sealed, NotHeld> {
        let text = self.text(provider, command)?;
        if <[u8; 32]>::from(Sha256::digest(&text)) != self.hash {
            // One key must never seal two texts.
            return Err(NotHeld::Changed);
        }
        let mut bytes = Box::new([0; SEALED_LENGTH]);
        self.keys(provider).seal_command(provider, &text, &mut bytes).map_err(|_| NotHeld::Unfit)?;
        Ok(Sealed { ephemeral: provider.x25519_public(&self.ephemeral), bytes })
    }

    fn keys(&self, provider: &dyn Provider) -> ForwardKeys {
        ForwardKeys::of_client(provider, &self.ephemeral, self.key.number, &self.key.key)
    }

    /// Reads the destination's answer; `None` when it is not the answer to this command: nobody but the destination could have
    /// made that.
    pub(super) fn open(
        &self,
        provider: &dyn Provider,
        sealed: &[u8],
    ) -> Option<Result<Reply, CommandFailure>> {
        let mut buffer = BytesMut::from(sealed);
        let length = self.keys(provider).open_answer(provider, &mut buffer).ok()?.len();
        let block = OpenedBlock::part_of(buffer.freeze(), TAG_LENGTH + LENGTH_BYTES, length);
        Some(self.read(provider, &block))
    }

    fn read(&self, provider: &dyn Provider, block: &OpenedBlock) -> Result<Reply, CommandFailure> {
        let session = self.key.session().ok_or(CommandFailure::Unexpected)?;
        let layout = SessionLayout { version: COMMAND_VERSION, session: session.as_bytes() };
        let mut batch = Batch::parse(block.content()).ok_or(CommandFailure::Unexpected)?;
        let bytes = batch.next().filter(|_| batch.is_empty()).ok_or(CommandFailure::Unexpected)?;
        let answer = Transmission::decode_response(bytes, layout).map_err(|_| CommandFailure::Unexpected)?;
        let Transmission { correlation, entity, content, .. } = answer;
        let is_error = matches!(content, Response::Error(_));
        let fits = correlation.as_bytes() == self.inner || (is_error && correlation.is_empty());
        let about = entity == self.entity || (is_error && entity.is_empty());
        if !fits || !about {
            return Err(CommandFailure::Unexpected);
        }
        match (&self.expected, content) {
            (_, Response::Error(error)) => Err(CommandFailure::Refused(error)),
            (Expected::Ok, Response::Ok) => Ok(Reply::Ok),
            (Expected::Link, Response::Link { sender, data }) => {
                let data = OwnedLinkData { fixed: block.share(data.fixed), user: block.share(data.user) };
                Ok(Reply::Link { sender, data })
            }
            (Expected::Blob(secret), Response::Blob(sealed)) => {
                let mut sealed = sealed.to_vec();
                blob::open_answer(provider, secret, &self.key.key, &self.inner, &mut sealed)
                    .map(|blob| Reply::Blob(Bytes::copy_from_slice(blob)))
                    .map_err(|_| CommandFailure::Unexpected)
            }
            _ => Err(CommandFailure::Unexpected),
        }
    }
}
