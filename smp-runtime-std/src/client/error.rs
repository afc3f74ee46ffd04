//! What goes wrong between a client and its relay, and what happens.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use smp_proto::client::first_step::NotHeld;
use smp_proto::client::{ClosedBecause, CommandFailure, NotTheRelay};
use smp_proto::wire::error::SmpError;
use smp_proto::wire::version::Version;
use smp_proto::wire::{EntityId, Identifier};

use crate::dialing::DialError;
use crate::tls::TlsError;

/// Why something that was asked of a client was not done. Cheap to clone.
#[derive(Clone, Debug)]
pub enum ClientError {
    /// The relay cannot be reached.
    Dial(Arc<DialError>),
    /// There is no TLS connection to the relay of the address.
    Tls(TlsError),
    /// The connection was lost on the network.
    Lost(Arc<io::Error>),
    /// The relay's session ended, or it gives no sign of life.
    Closed(ClosedBecause),
    /// The relay answered with an error.
    Refused(SmpError),
    /// The relay did not forward the command, or cannot reach the one that it is for.
    NotForwarded(SmpError),
    /// The proxy shows another relay than the one that was asked for.
    NotTheRelay(NotTheRelay),
    /// The command never left: there was no connection in time. Nothing was done.
    NotSent,
    /// The command left, but no answer came: the relay may have done it or not.
    NoAnswer,
    /// The relay answered something that does not fit the command.
    Unexpected,
    /// The command is larger than a block.
    TooLarge,
    /// The command was to be authorized with an X25519 key, which this relay (v6) cannot verify.
    NoRelayKey,
    /// A first-step relay does not hold the command, or has given it up.
    NotHeld(NotHeld),
    /// Too many commands wait for their answers.
    TooMany,
    /// The client was closed.
    Stopped,
    /// The operating system refuses something that a client needs: a thread, randomness.
    System(Arc<io::Error>),
}

impl From<CommandFailure> for ClientError {
    fn from(failure: CommandFailure) -> Self {
        match failure {
            CommandFailure::Refused(error) => Self::Refused(error),
            CommandFailure::NotForwarded(error) => Self::NotForwarded(error),
            CommandFailure::NotTheRelay(error) => Self::NotTheRelay(error),
            CommandFailure::NotSent => Self::NotSent,
            CommandFailure::OutcomeUnknown => Self::NoAnswer,
            CommandFailure::Unexpected => Self::Unexpected,
            CommandFailure::TooLarge => Self::TooLarge,
            CommandFailure::NoRelayKey => Self::NoRelayKey,
            CommandFailure::NotHeld(because) => Self::NotHeld(because),
        }
    }
}

impl From<DialError> for ClientError {
    fn from(error: DialError) -> Self {
        Self::Dial(Arc::new(error))
    }
}

impl From<TlsError> for ClientError {
    fn from(error: TlsError) -> Self {
        Self::Tls(error)
    }
}

impl ClientError {
    pub(crate) fn system(error: io::Error) -> Self {
        Self::System(Arc::new(error))
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial(error) => error.fmt(formatter),
            Self::Tls(error) => error.fmt(formatter),
            Self::Lost(error) => write!(formatter, "the connection to the relay was lost: {error}"),
            Self::Closed(because) => because.fmt(formatter),
            Self::Refused(error) => CommandFailure::Refused(error.clone()).fmt(formatter),
            Self::NotForwarded(error) => CommandFailure::NotForwarded(error.clone()).fmt(formatter),
            Self::NotTheRelay(error) => error.fmt(formatter),
            Self::NotSent => CommandFailure::NotSent.fmt(formatter),
            Self::NoAnswer => CommandFailure::OutcomeUnknown.fmt(formatter),
            Self::Unexpected => CommandFailure::Unexpected.fmt(formatter),
            Self::TooLarge => CommandFailure::TooLarge.fmt(formatter),
            Self::NoRelayKey => CommandFailure::NoRelayKey.fmt(formatter),
            Self::NotHeld(because) => because.fmt(formatter),
            Self::TooMany => {
                formatter.write_str("too many commands wait for the relay's answers: wait for some of them")
            }
            Self::Stopped => formatter.write_str("the client was closed"),
            Self::System(error) => {
                write!(formatter, "the operating system refuses what a client needs: {error}")
            }
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Dial(error) => Some(&**error),
            Self::Tls(error) => Some(error),
            Self::Lost(error) | Self::System(error) => Some(&**error),
            _ => None,
        }
    }
}

/// What happened without being asked for.
#[derive(Clone, Debug)]
pub enum ClientEvent {
    /// There is a connection. The first one is not reported: it is what connecting returned for.
    Connected {
        /// The version that both sides speak.
        version: Version,
    },
    /// The connection is over. Another one is made when there is something to do, and subscriptions are restored by
    /// themselves.
    Disconnected {
        /// Why.
        reason: ClientError,
    },
    /// A message came for a queue that is subscribed to. It comes again until it is acknowledged.
    Message {
        /// The recipient id.
        queue: EntityId,
        /// The message's id.
        id: Identifier,
        /// Encrypted by the relay for the recipient, for
        /// [`RecipientQueue::open`](smp_proto::client::queue::RecipientQueue::open).
        body: Bytes,
    },
    /// There is a message for a queue with notifications.
    Notification {
        /// The notifier id.
        notifier: EntityId,
        /// The nonce of the metadata.
        nonce: [u8; 24],
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
    /// A subscription could not be restored on a new connection.
    SubscriptionFailed {
        /// The recipient or notifier id.
        queue: EntityId,
        /// Why.
        error: ClientError,
    },
    /// The relay reports an error about a queue: its operator has blocked it, say.
    QueueError {
        /// The recipient id.
        queue: EntityId,
        /// The error.
        error: SmpError,
    },
    /// The relay sent something that fits nothing. Nothing was done about it.
    Unexpected,
}

impl ClientEvent {
    const fn is_about_connection(&self) -> bool {
        matches!(self, Self::Disconnected { .. } | Self::Connected { .. })
    }

    /// Puts the event at the end of those that nobody has fetched. A connection that is lost again and again is one piece
    /// of news, not many: so the list stays as short as there are subscriptions.
    pub fn queue_in(self, events: &mut VecDeque<Self>) {
        if self.is_about_connection() {
            events.retain(|known| !known.is_about_connection());
        }
        events.push_back(self);
    }
}
