//! What an agent tells the application.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use core::fmt;

use sha2::{Digest, Sha256};

use super::storage::{ConnectionId, RequestId};
use crate::client::CommandFailure;
use crate::crypto::link_data::LinkDataError;
use crate::crypto::ratchet::DecryptError;
use crate::crypto::ratchet::Synchronization;
use crate::time::UnixTime;
use crate::wire::address::ServerAddress;
use crate::wire::links::connection_request::ConnectionRequest;
use crate::wire::links::short_link::ShortLink;
use crate::wire::version::Version;

/// Something happened. What an event says is durable before the event is given out.
#[derive(Clone, PartialEq, Eq)]
pub enum Event {
    /// An invitation exists: give its text to one person, by a safe channel.
    InvitationCreated {
        /// The connection that it leads to.
        connection: ConnectionId,
        /// The link.
        link: Box<ConnectionRequest>,
        /// The short form, when it was asked for and the relay keeps it.
        short: Option<Box<ShortLink>>,
    },
    /// A contact address exists: its text may be published.
    AddressCreated {
        /// The address.
        connection: ConnectionId,
        /// The link.
        link: Box<ConnectionRequest>,
        /// The short form, when it was asked for and the relay keeps it.
        short: Option<Box<ShortLink>>,
    },
    /// What is behind the short link of an address is what was last asked for.
    LinkUpdated {
        /// The address.
        connection: ConnectionId,
    },
    /// What is behind a short link was read and verified; joining goes on.
    LinkRead {
        /// The connection.
        connection: ConnectionId,
        /// What the link's owner keeps there.
        user_data: Vec<u8>,
    },
    /// The peer's relay has our confirmation, or our request to a contact address.
    Joined {
        /// The connection.
        connection: ConnectionId,
        /// Whether messages may be sent before the peer was ever there.
        may_send: bool,
    },
    /// Somebody used the invitation: [`allow`](super::Agent::allow) the connection, or delete it.
    Confirmed {
        /// The connection.
        connection: ConnectionId,
        /// What their application tells.
        information: Vec<u8>,
    },
    /// The peer's application tells this.
    Information {
        /// The connection.
        connection: ConnectionId,
        /// What it tells.
        information: Vec<u8>,
    },
    /// The connection is up in both directions.
    Connected {
        /// The connection.
        connection: ConnectionId,
    },
    /// Somebody used the contact address: [`accept`](super::Agent::accept) or [`reject`](super::Agent::reject) it.
    Requested {
        /// The address.
        address: ConnectionId,
        /// The request.
        request: RequestId,
        /// What their application tells.
        information: Vec<u8>,
    },
    /// A message came: [`acknowledge`](super::Agent::acknowledge) it when it is safe. Told again after a restart, until
    /// then.
    Message {
        /// The connection.
        connection: ConnectionId,
        /// The number that the peer gave it.
        number: i64,
        /// Whether messages before it are missing.
        integrity: Integrity,
        /// When the relay took it.
        sent_at: UnixTime,
        /// Whether the sender wants it to be noticed.
        notification: bool,
        /// What the peer's application sent.
        body: Vec<u8>,
    },
    /// The peer's relay has this message.
    Sent {
        /// The connection.
        connection: ConnectionId,
        /// The number that [`send`](super::Agent::send) gave it.
        number: i64,
        /// Whether it went through a proxy: their relay has not seen us.
        proxied: bool,
    },
    /// The peer's relay cannot be reached: the proxy holds this message, and tries by itself, whether or not we are there.
    /// Told again when it has tried; [`Sent`](Self::Sent) or [`NotSent`](Self::NotSent) follows.
    Held {
        /// The connection.
        connection: ConnectionId,
        /// The number that [`send`](super::Agent::send) gave it.
        number: i64,
        /// How often it was tried.
        attempts: u16,
        /// When it is tried next.
        next: UnixTime,
    },
    /// This message will not be sent.
    NotSent {
        /// The connection.
        connection: ConnectionId,
        /// The number that [`send`](super::Agent::send) gave it.
        number: i64,
        /// Why.
        failure: CommandFailure,
    },
    /// The peer's application has this message.
    Received {
        /// The connection.
        connection: ConnectionId,
        /// The number that [`send`](super::Agent::send) gave it.
        number: i64,
        /// Whether what they have is what was sent.
        same: bool,
        /// What their application adds.
        information: Vec<u8>,
    },
    /// The peer's queue is full: messages wait, and are tried again, until the peer has read.
    Full {
        /// The connection.
        connection: ConnectionId,
    },
    /// The peer has read: what waits is sent now.
    Continues {
        /// The connection.
        connection: ConnectionId,
    },
    /// The connection cannot be made. Its queues are deleted.
    Failed {
        /// The connection.
        connection: ConnectionId,
        /// Why.
        because: FailedBecause,
    },
    /// A message was dropped: nothing else has changed.
    Dropped {
        /// The connection.
        connection: ConnectionId,
        /// Why.
        because: DroppedBecause,
    },
    /// The state of the encryption with this peer has changed.
    Synchronized {
        /// The connection.
        connection: ConnectionId,
        /// The state.
        state: Synchronization,
    },
    /// A switch to another queue has come this far.
    Switched {
        /// The connection.
        connection: ConnectionId,
        /// Whose queue it is.
        direction: Direction,
        /// How far.
        phase: SwitchPhase,
    },
    /// Another device or program subscribed to a queue of this connection: nothing comes here any more until
    /// [`resubscribe`](super::Agent::resubscribe).
    Ended {
        /// The connection.
        connection: ConnectionId,
    },
    /// The relay has no such queue any more, or blocked it: nothing comes by it. Switch to another, or delete the
    /// connection.
    QueueLost {
        /// The connection.
        connection: ConnectionId,
        /// What the relay says.
        failure: CommandFailure,
    },
    /// A queue of the connection accepts no more messages; those that wait there still come.
    Suspended {
        /// The connection.
        connection: ConnectionId,
    },
    /// The connection's queues and records are deleted.
    Deleted {
        /// The connection.
        connection: ConnectionId,
    },
    /// No proxy could be used for this relay; where that is not allowed, nothing went straight. Tried again.
    NotForwarded {
        /// The relay.
        relay: Box<ServerAddress>,
        /// Why; [`CommandFailure::NotSent`] without any proxy that could be asked.
        failure: CommandFailure,
    },
    /// Records cannot be written: nothing leaves until they can. Tried again.
    StorageFailing,
}

/// What the chain of numbers and hashes says of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integrity {
    /// It follows the one before.
    Ok,
    /// These messages did not come (both included).
    Skipped {
        /// The first that did not.
        first: i64,
        /// The last that did not.
        last: i64,
    },
    /// Its number follows, but the peer had sent another message before it.
    BadHash,
    /// Its number is that of the last message.
    Duplicate,
    /// Its number is less than that of the last message.
    Earlier,
}

/// Why a connection cannot be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailedBecause {
    /// The link was used by somebody else, or its owner deleted it. Nothing was created.
    LinkGone,
    /// The peer deleted their queue before the connection was up.
    PeerGone,
    /// What is behind the short link is not what the link was made for, or cannot be read.
    LinkData(LinkDataError),
    /// The link leads to somebody whose program is too old or too new for this one, or to keys that cannot be used.
    Incompatible,
    /// A relay refuses to create a queue.
    NoQueue(CommandFailure),
    /// A relay refuses what is needed.
    Refused(CommandFailure),
    /// The peer's confirmation asks for a version that is not spoken here.
    Version(Version),
    /// The agent's own state cannot be stored: a bug.
    Internal,
}

/// Why a message was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DroppedBecause {
    /// The relay's encryption cannot be opened.
    RelayEncryption,
    /// The sender's encryption, for this queue, cannot be opened.
    QueueEncryption,
    /// It was opened, but is not a message between agents.
    Malformed,
    /// It is one, but none that may come now.
    Unexpected,
    /// The ratchet cannot decrypt it.
    Ratchet(DecryptError),
    /// It asks for a version that is not spoken here.
    Version(Version),
}

/// Whose queue is switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Ours: from which we receive.
    Receive,
    /// The peer's: to which we send.
    Send,
}

/// How far a switch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchPhase {
    /// The other side is told of the new queue.
    Started,
    /// The keys are exchanged.
    Confirmed,
    /// The new queue is secured.
    Secured,
    /// Only the new queue is used.
    Completed,
    /// The new queue cannot be used: the old one stays.
    Failed,
}

impl fmt::Display for FailedBecause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LinkGone => formatter.write_str(
                "the link was used by somebody else or deleted: ask for a new one; nothing was created",
            ),
            Self::LinkData(error) => error.fmt(formatter),
            Self::Incompatible => formatter.write_str(
                "the link was made by a program that is too old or too new for this one, or its keys cannot be used",
            ),
            Self::PeerGone => formatter.write_str("the other side deleted the connection before it was up"),
            Self::NoQueue(failure) => write!(formatter, "the relay does not create a queue: {failure}"),
            Self::Refused(failure) => write!(formatter, "the connection cannot be made: {failure}"),
            Self::Version(version) => write!(
                formatter,
                "the other side speaks version {} of the agent protocol, which is not spoken here",
                version.0
            ),
            Self::Internal => formatter.write_str("the connection cannot be stored; please report this"),
        }
    }
}

impl fmt::Display for DroppedBecause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RelayEncryption => formatter.write_str("the relay did not encrypt it for this queue"),
            Self::QueueEncryption => formatter.write_str("its sender did not encrypt it for this queue"),
            Self::Malformed => formatter.write_str("it is not a message between agents"),
            Self::Unexpected => formatter.write_str("it does not fit the state of the connection"),
            Self::Ratchet(failure) => failure.fmt(formatter),
            Self::Version(version) => {
                write!(formatter, "it is of version {}, which is not spoken here", version.0)
            }
        }
    }
}

impl Event {
    /// Adds the event to a digest, with what of its contents is in no record.
    pub(super) fn digest(&self, digest: &mut Sha256) {
        digest.update(format!("{self:?}").as_bytes());
        match self {
            Self::Information { information, .. } | Self::Received { information, .. } => {
                digest.update(information);
            }
            Self::LinkRead { user_data, .. } => digest.update(user_data),
            _ => {}
        }
    }
}

/// Contents are never printed: only how long they are.
impl fmt::Debug for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, connection) = match self {
            Self::InvitationCreated { connection, .. } => ("InvitationCreated", connection),
            Self::AddressCreated { connection, .. } => ("AddressCreated", connection),
            Self::LinkUpdated { connection } => ("LinkUpdated", connection),
            Self::LinkRead { connection, .. } => ("LinkRead", connection),
            Self::Joined { connection, may_send } => {
                return write!(formatter, "Joined({}, may_send: {may_send})", connection.0);
            }
            Self::Confirmed { connection, .. } => ("Confirmed", connection),
            Self::Information { connection, .. } => ("Information", connection),
            Self::Connected { connection } => ("Connected", connection),
            Self::Requested { address, request, .. } => {
                return write!(formatter, "Requested({}, {})", address.0, request.0);
            }
            Self::Message { connection, number, integrity, body, .. } => {
                return write!(
                    formatter,
                    "Message({}, {number}, {integrity:?}, {} bytes)",
                    connection.0,
                    body.len()
                );
            }
            Self::Sent { connection, number, proxied } => {
                return write!(formatter, "Sent({}, {number}, proxied: {proxied})", connection.0);
            }
            Self::Held { connection, number, attempts, next } => {
                return write!(formatter, "Held({}, {number}, {attempts}, {})", connection.0, next.0);
            }
            Self::NotForwarded { failure, .. } => return write!(formatter, "NotForwarded({failure:?})"),
            Self::NotSent { connection, number, failure } => {
                return write!(formatter, "NotSent({}, {number}, {failure:?})", connection.0);
            }
            Self::Received { connection, number, same, .. } => {
                return write!(formatter, "Received({}, {number}, same: {same})", connection.0);
            }
            Self::Full { connection } => ("Full", connection),
            Self::Continues { connection } => ("Continues", connection),
            Self::Failed { connection, because } => {
                return write!(formatter, "Failed({}, {because:?})", connection.0);
            }
            Self::Dropped { connection, because } => {
                return write!(formatter, "Dropped({}, {because:?})", connection.0);
            }
            Self::Synchronized { connection, state } => {
                return write!(formatter, "Synchronized({}, {state:?})", connection.0);
            }
            Self::Switched { connection, direction, phase } => {
                return write!(formatter, "Switched({}, {direction:?}, {phase:?})", connection.0);
            }
            Self::Ended { connection } => ("Ended", connection),
            Self::QueueLost { connection, failure } => {
                return write!(formatter, "QueueLost({}, {failure:?})", connection.0);
            }
            Self::Suspended { connection } => ("Suspended", connection),
            Self::Deleted { connection } => ("Deleted", connection),
            Self::StorageFailing => return formatter.write_str("StorageFailing"),
        };
        write!(formatter, "{name}({})", connection.0)
    }
}
