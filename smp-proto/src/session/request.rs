//! A client's command on its way through a relay: parsed, then looked up, then verified.
//!
//! The types make the order compulsory: only a [`Verified`] can be executed, only a session makes one, and it makes it
//! from a [`Request`] whose [`Authority`] the broker has filled in.

use alloc::boxed::Box;
use alloc::sync::Arc;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::forwarded::{Envelope, Forwarded};
use super::outgoing::{Outgoing, OutgoingContent};
use crate::keys::{AuthKey, X25519Public};
use crate::wire::command::Command;
use crate::wire::error::SmpError;
use crate::wire::transmission::Transmission;
use crate::wire::{CorrelationId, EntityId};

/// One transmission of a block: a command that can be looked up, or the error that it gets.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are commands, and a box for each would cost more")]
pub enum Request<'a> {
    /// A well-formed command with fitting credentials.
    Command {
        /// What the client sent.
        transmission: Transmission<'a, Command<'a>>,
        /// Who may send it: the broker's answer.
        authority: Authority,
    },
    /// Not a command: what is answered.
    Malformed {
        /// The correlation to answer with.
        correlation: CorrelationId,
        /// The entity to answer with.
        entity: EntityId,
        /// The error.
        error: SmpError,
    },
}

/// Who may send a command, as far as the broker knows.
#[derive(Clone, Debug)]
pub enum Authority {
    /// Not looked up yet: such a command is refused.
    NotLookedUp,
    /// Nobody needs to authorize it (`PING`, …), and nobody may.
    Nobody,
    /// The key that the command itself carries (`NEW`, `SKEY`, `LKEY`).
    KeyInCommand,
    /// This key.
    Key(AuthKey),
    /// Any of these keys.
    AnyOf(Arc<[AuthKey]>),
    /// The key of the service's session (`SUBS`, `NSUBS`): the session knows it, if it is a service's.
    Service,
    /// `SEND` to a queue that is not secured: there must be no authorization.
    Unsecured,
    /// There is no such queue, or the command cannot be for it: verify against a dummy key, for the same cost, and refuse.
    Unknown,
}

/// A command that may be executed, or the error that is answered in its place. Only a session makes one.
#[derive(Debug)]
pub struct Verified<'a> {
    pub(crate) correlation: CorrelationId,
    pub(crate) entity: EntityId,
    pub(crate) outcome: Outcome<'a>,
    /// How the answer is boxed, when the command came through a proxy.
    pub(crate) forwarded: Option<Arc<Envelope>>,
}

/// What verification found.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are commands, and a box for each would cost more")]
pub(crate) enum Outcome<'a> {
    /// Execute it. The broker checks that the key is still the right one: a queue may have been secured in between.
    Execute {
        /// The command.
        command: Command<'a>,
        /// The key that authorized it, `None` when it came without authorization.
        key: Option<AuthKey>,
        /// What the command needs and is expensive to make.
        prepared: Prepared,
    },
    /// It was the envelope of another command, which is to be looked up and verified in turn.
    Forwarded(Box<Forwarded>),
    /// Answer this.
    Refuse(SmpError),
}

/// What a command needs and a session makes, because it is expensive: the relay's fresh key pairs for the queue (`NEW`)
/// and for the notifier (`NKEY`, or `NEW` with a notifier), and the SHA-256 of fixed link data (`LSET`, or `NEW` with it).
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    pub(crate) queue: Option<RelayKeyPair>,
    pub(crate) notifier: Option<RelayKeyPair>,
    pub(crate) fixed_data: Option<[u8; 32]>,
}

/// A fresh X25519 key pair of the relay.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct RelayKeyPair {
    pub(crate) secret: [u8; 32],
    #[zeroize(skip)]
    pub(crate) public: X25519Public,
}

impl core::fmt::Debug for RelayKeyPair {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("RelayKeyPair(..)")
    }
}

impl<'a> Verified<'a> {
    /// Whether the command will be executed, rather than answered with an error.
    #[must_use]
    pub const fn is_authorized(&self) -> bool {
        matches!(self.outcome, Outcome::Execute { .. })
    }
    /// What will be executed, and the key that authorized it; `None` when an error is answered.
    #[must_use]
    pub const fn authorized(&self) -> Option<(&Command<'a>, Option<&AuthKey>)> {
        match &self.outcome {
            Outcome::Execute { command, key, .. } => Some((command, key.as_ref())),
            Outcome::Forwarded(_) | Outcome::Refuse(_) => None,
        }
    }

    /// The error that is answered; `None` when the command will be executed.
    #[must_use]
    pub const fn refusal(&self) -> Option<&SmpError> {
        match &self.outcome {
            Outcome::Execute { .. } | Outcome::Forwarded(_) => None,
            Outcome::Refuse(error) => Some(error),
        }
    }

    /// What is said in answer to it: with its correlation and entity, and boxed if it was forwarded.
    #[must_use]
    pub fn answer(&self, content: OutgoingContent) -> Outgoing {
        let Self { correlation, entity, forwarded, .. } = self;
        Outgoing {
            correlation: correlation.clone(),
            entity: entity.clone(),
            content,
            forwarded: forwarded.clone(),
        }
    }

    /// The command that came in this one, if it was forwarded by a proxy: it is to be looked up, verified
    /// ([`verify_forwarded`](super::server::ServerSession::verify_forwarded)) and executed in place of this one. Gives this one
    /// back when it is an ordinary command.
    ///
    /// # Errors
    /// Not an error: the command itself, when nothing came in it.
    #[expect(clippy::result_large_err, reason = "either is what goes on")]
    pub fn into_forwarded(self) -> Result<Box<Forwarded>, Self> {
        match self.outcome {
            Outcome::Forwarded(forwarded) => Ok(forwarded),
            _ => Err(self),
        }
    }

    /// The correlation of the answer.
    #[must_use]
    pub const fn correlation(&self) -> &CorrelationId {
        &self.correlation
    }

    /// The entity that the command is about.
    #[must_use]
    pub const fn entity(&self) -> &EntityId {
        &self.entity
    }
}
