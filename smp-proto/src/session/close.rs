//! Why a session ends, and what a driver did wrong: two kinds of trouble that must never be mixed up.
//!
//! A [`CloseReason`] is the other side's doing (or time's): the driver closes the connection and may tell a person why.
//! A [`Misuse`] is the driver's own mistake: a bug, to be found in a test.

use core::fmt;

use crate::wire::error::{HandshakeError, TransportError};
use crate::wire::version::{Version, VersionRange};

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The hello of the other side cannot be read.
    HelloUnreadable,
    /// A client wants to talk to a relay with another fingerprint than ours. Nothing is sent (WIRE-FACTS 4.5).
    WrongRelayWanted,
    /// The relay's certificates are not those of the address that was dialled.
    WrongRelayFound,
    /// A client chose a version that was not offered. Nothing is sent.
    VersionNotOffered(Version),
    /// The relay offers no version that this client speaks.
    NoCommonVersion {
        /// What the relay offers.
        offered: VersionRange,
        /// What this client speaks.
        wanted: VersionRange,
    },
    /// The relay's session id is not that of the TLS connection: somebody may be in between.
    WrongSession,
    /// The relay's session key is not signed by the key of its TLS certificate.
    KeyNotVerified,
    /// The service part of a client's hello cannot be verified: the client is told.
    ServiceNotVerified,
    /// The client may not be the service that it wants to be: it is told.
    ServiceRefused,
    /// A block cannot be decrypted, or claims more content than it has.
    BlockUnreadable,
    /// The other side did not finish the handshake in time.
    HandshakeTimeout,
}

impl CloseReason {
    /// The protocol's word for it, `None` for what has none (time limits).
    #[must_use]
    pub const fn transport_error(self) -> Option<TransportError> {
        Some(match self {
            Self::HelloUnreadable => TransportError::Handshake(HandshakeError::Parse),
            Self::WrongRelayWanted => TransportError::Handshake(HandshakeError::Identity),
            Self::WrongRelayFound | Self::KeyNotVerified | Self::ServiceNotVerified => {
                TransportError::Handshake(HandshakeError::BadAuthorization)
            }
            Self::ServiceRefused => TransportError::Handshake(HandshakeError::BadService),
            Self::VersionNotOffered(_) | Self::NoCommonVersion { .. } => TransportError::Version,
            Self::WrongSession => TransportError::Session,
            Self::BlockUnreadable => TransportError::LargeMessage,
            Self::HandshakeTimeout => return None,
        })
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::HelloUnreadable => "the other side's hello cannot be read: it does not speak this protocol",
            Self::WrongRelayWanted => {
                "the client asked for a relay with another fingerprint: its address for this relay is outdated or wrong"
            }
            Self::WrongRelayFound => {
                "the relay's certificate does not have the fingerprint in its address: check the address, or somebody is \
                 in between"
            }
            Self::VersionNotOffered(version) => {
                return write!(
                    formatter,
                    "the client chose version {}, which this relay did not offer",
                    version.0
                );
            }
            Self::NoCommonVersion { offered, wanted } => {
                return write!(
                    formatter,
                    "the relay speaks versions {} to {}, this client {} to {}: one of them must be updated",
                    offered.min().0,
                    offered.max().0,
                    wanted.min().0,
                    wanted.max().0
                );
            }
            Self::WrongSession => {
                "the relay's session id is not that of the TLS connection: somebody may be in between"
            }
            Self::KeyNotVerified => "the relay's session key is not signed by its certificate",
            Self::ServiceNotVerified => "the client's service certificate does not fit its TLS connection",
            Self::ServiceRefused => {
                "the client wants a service session that this relay does not allow: its certificate came in another role before, or \
                 there are too many services"
            }
            Self::BlockUnreadable => {
                "a block cannot be decrypted: it was changed, repeated or lost on the way"
            }
            Self::HandshakeTimeout => "the other side did not finish the handshake in time",
        };
        formatter.write_str(text)
    }
}

impl core::error::Error for CloseReason {}

/// What a driver did that a session does not allow. The state is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misuse {
    /// A block that is not 16,384 bytes: the driver cuts the stream, so it must cut it right.
    BlockLength(usize),
    /// The handshake is not over: there is nothing to send or to open yet.
    NotEstablished,
    /// The session had ended before.
    Ended,
}

impl fmt::Display for Misuse {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BlockLength(length) => {
                write!(formatter, "a block of {length} bytes was given to a session; every block has 16384")
            }
            Self::NotEstablished => formatter.write_str("a session was used before its handshake was over"),
            Self::Ended => formatter.write_str("a session was used after it had ended"),
        }
    }
}

impl core::error::Error for Misuse {}

/// Why a session did not take an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionError {
    /// The session has ended: send what [`take_handshake_block`](super::server::ServerSession::take_handshake_block)
    /// gives, then close the connection.
    Close(CloseReason),
    /// The driver made a mistake.
    Misuse(Misuse),
}

impl fmt::Display for SessionError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Close(reason) => reason.fmt(formatter),
            Self::Misuse(misuse) => misuse.fmt(formatter),
        }
    }
}

impl core::error::Error for SessionError {}

impl From<CloseReason> for SessionError {
    fn from(reason: CloseReason) -> Self {
        Self::Close(reason)
    }
}

impl From<Misuse> for SessionError {
    fn from(misuse: Misuse) -> Self {
        Self::Misuse(misuse)
    }
}
