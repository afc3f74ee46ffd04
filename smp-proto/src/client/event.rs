//! What a [`Client`](super::Client) tells its driver.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;

use bytes::Bytes;

use super::command::OwnedLinkData;
use super::first_step::NotHeld;
use super::proxied::{NotTheRelay, ProxiedRelay};
use crate::session::close::CloseReason;
use crate::time::Instant;
use crate::wire::EntityId;
use crate::wire::error::{CommandError, SmpError};
use crate::wire::identifier::{IDENTIFIER_LENGTH, Identifier};
use crate::wire::response::{CreatedQueue, NotifierIds};
use crate::wire::version::Version;

/// Names a submitted command; never used twice by one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub u64);

/// What the driver has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect to the relay, with TLS, then call [`Client::connected`](super::Client::connected), or, if that fails,
    /// [`Client::disconnected`](super::Client::disconnected).
    Dial,
    /// Close the connection. [`Client::disconnected`](super::Client::disconnected) need not be called.
    Close,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A connection is ready for commands.
    Established {
        /// The version that both sides speak.
        version: Version,
    },
    /// A command has its result.
    Response {
        /// Which command.
        command: CommandId,
        /// The relay's answer, or why there is none.
        result: Result<Reply, CommandFailure>,
    },
    /// A message came for a subscribed queue.
    Message {
        /// The recipient id.
        queue: EntityId,
        /// The message's id, to decrypt and to acknowledge with.
        id: Identifier,
        /// The encrypted message, for [`RecipientQueue::open`](super::queue::RecipientQueue::open).
        body: Bytes,
    },
    /// There is a message for a queue with notifications.
    Notification {
        /// The notifier id.
        notifier: EntityId,
        /// The nonce of the metadata.
        nonce: [u8; IDENTIFIER_LENGTH],
        /// The encrypted metadata.
        metadata: Bytes,
    },
    /// Another connection subscribed to the queue.
    Ended {
        /// The recipient or notifier id.
        queue: EntityId,
    },
    /// The queue was deleted.
    Deleted {
        /// The recipient or notifier id.
        queue: EntityId,
    },
    /// A subscription could not be restored after a new connection. It is forgotten when the relay refused it, and tried
    /// again with the next connection otherwise.
    SubscriptionFailed {
        /// The recipient or notifier id.
        queue: EntityId,
        /// Why.
        failure: CommandFailure,
    },
    /// The relay reports an error about a queue without being asked: the operator blocked it, say.
    QueueError {
        /// The recipient id.
        queue: EntityId,
        /// The error.
        error: SmpError,
    },
    /// The relay sent something that fits no command, or cannot be read. Nothing was done about it.
    Unexpected,
    /// The connection is over.
    Closed {
        /// Why.
        because: ClosedBecause,
        /// When the next attempt begins; `None` when there is nothing to do.
        retry_at: Option<Instant>,
    },
}

/// The relay's answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `IDS`: the queue was created.
    Created(Box<CreatedQueue>),
    /// `NID`: notifications are on.
    NotifierId(Box<NotifierIds>),
    /// `LNK`: link data.
    Link {
        /// The queue's sender id.
        sender: Identifier,
        /// The encrypted link data.
        data: OwnedLinkData,
    },
    /// `SOK`, or `OK` to a subscription.
    Subscribed,
    /// `MSG`, in answer to `GET` or `ACK` (and from old relays to `SUB`).
    Message {
        /// The message's id.
        id: Identifier,
        /// The encrypted message.
        body: Bytes,
    },
    /// `BLOB`: a blob, as its owner wrote it, for [`blob::open`](crate::crypto::blob::open).
    Blob(Bytes),
    /// `PKEY`, checked: the relay that was asked for can be reached through this one.
    ProxiedRelay(Arc<ProxiedRelay>),
    /// `INFO`: JSON text.
    Information(String),
    /// `OK`: done; to `GET`, that there is no message.
    Ok,
    /// `PONG`.
    Pong,
}

/// Why a command has no answer of the relay, or not the wanted one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandFailure {
    /// The relay answered with an error; of a forwarded command, the relay that it was for.
    Refused(SmpError),
    /// The relay did not forward the command, or cannot reach the one that it is for: `PROXY …` mostly. After
    /// `PROXY NO_SESSION` it is to be asked for a new session; after a timeout or a broken connection the command may have been
    /// done.
    NotForwarded(SmpError),
    /// The proxy shows another relay than the one that was asked for.
    NotTheRelay(NotTheRelay),
    /// It never left: there was no connection in time, or the client was stopped. Nothing was done.
    NotSent,
    /// It left, but no answer came: the relay may have done it or not. Repeating it may do it twice.
    OutcomeUnknown,
    /// The relay's answer does not fit the command, or cannot be read.
    Unexpected,
    /// It is larger than a block.
    TooLarge,
    /// It was to be authorized with an X25519 key, which this relay (v6) cannot verify.
    NoRelayKey,
    /// A first-step relay does not hold it, or has given it up.
    NotHeld(NotHeld),
}

impl fmt::Display for CommandFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => {
                let mut text = alloc::vec::Vec::new();
                // A `Vec` never is full; error texts from a relay may be anything.
                let _ = error.encode(&mut text);
                write!(formatter, "the relay refused the command: {}", String::from_utf8_lossy(&text))
            }
            Self::NotForwarded(error) => {
                write!(formatter, "the relay did not forward the command: {error}")
            }
            Self::NotTheRelay(error) => error.fmt(formatter),
            Self::NotSent => {
                formatter.write_str("there was no connection to the relay in time; nothing was done")
            }
            Self::OutcomeUnknown => {
                formatter.write_str("the relay did not answer: the command may have been done or not")
            }
            Self::Unexpected => formatter.write_str("the relay's answer does not fit the command"),
            Self::TooLarge => formatter.write_str("the command is larger than a block"),
            Self::NoRelayKey => {
                formatter.write_str("the relay is too old for X25519 keys: an Ed25519 key is needed")
            }
            Self::NotHeld(because) => because.fmt(formatter),
        }
    }
}

impl core::error::Error for CommandFailure {}

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosedBecause {
    /// The session ended: see its reason.
    Session(CloseReason),
    /// The driver reported that it could not connect, or that the connection is lost.
    ConnectionLost,
    /// The relay did not answer several pings.
    NoAnswer,
    /// [`Client::stop`](super::Client::stop).
    Stopped,
}

impl fmt::Display for ClosedBecause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(reason) => reason.fmt(formatter),
            Self::ConnectionLost => formatter.write_str("the connection to the relay is lost"),
            Self::NoAnswer => formatter.write_str("the relay does not answer any more"),
            Self::Stopped => formatter.write_str("the client was stopped"),
        }
    }
}

/// Whether an error says that a subscription can never be restored.
pub(super) const fn is_final(error: &SmpError) -> bool {
    matches!(
        error,
        SmpError::Authorization | SmpError::Blocked(_) | SmpError::Command(CommandError::Prohibited)
    )
}
