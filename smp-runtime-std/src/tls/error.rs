//! What can go wrong in TLS, said so that whoever reads it knows what to do.

use std::fmt;

use rustls::{AlertDescription, Error, PeerIncompatible};

use super::verification::ChainError;

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Whoever dialled.
    Client,
    /// Whoever listened.
    Server,
}

impl Side {
    /// The other end.
    #[must_use]
    pub fn peer(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
        })
    }
}

/// A TLS connection that cannot go on: what happened, and at which end.
///
/// It carries no address and no contents, so it may be logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError {
    /// The end that is not us.
    pub peer: Side,
    /// What happened.
    pub failure: TlsFailure,
}

/// What ended a TLS connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsFailure {
    /// The peer's certificates are not acceptable.
    Certificates(ChainError),
    /// The peer does not speak TLS 1.3.
    NoCommonVersion,
    /// The peer does not offer `TLS_CHACHA20_POLY1305_SHA256`, X25519, or Ed25519 and Ed448 signatures.
    NoCommonCryptography,
    /// The peer speaks other application protocols only (ALPN).
    NoCommonProtocol,
    /// What arrives is not TLS at all.
    NotTls,
    /// The peer ended the connection with an alert (RFC 8446 6).
    Alert {
        /// The alert's number.
        code: u8,
        /// Its name in the RFC.
        name: String,
    },
    /// A record did not authenticate: damaged on the way, or forged.
    CorruptRecord,
    /// The peer broke the rules of TLS.
    Misbehaved {
        /// Which.
        rule: String,
    },
    /// The stream ended without the peer saying that it is complete.
    Truncated {
        /// Whether that was before the handshake was complete.
        during_handshake: bool,
    },
    /// The connection has failed, or was closed, before this call.
    Closed,
    /// Plaintext was offered before the handshake is complete.
    HandshakeNotComplete,
    /// More is waiting to be sent than [`super::MAX_OUTGOING`] allows: the driver has to write first.
    TooMuchOutgoing,
    /// Something that can only be a defect of this program.
    Internal {
        /// What.
        reason: String,
    },
}

impl TlsError {
    pub(super) fn new(us: Side, failure: TlsFailure) -> Self {
        Self { peer: us.peer(), failure }
    }

    pub(super) fn internal(us: Side, reason: impl fmt::Display) -> Self {
        Self::new(us, TlsFailure::Internal { reason: reason.to_string() })
    }

    /// An error of rustls, with the reason for refusing certificates if there was one.
    pub(super) fn from_rustls(us: Side, error: &Error, chain: Option<ChainError>) -> Self {
        let failure = match (chain, error) {
            (Some(chain), _) => TlsFailure::Certificates(chain),
            (None, Error::InvalidCertificate(reason)) => {
                TlsFailure::Certificates(ChainError::Unusable { reason: reason.to_string() })
            }
            (None, Error::NoCertificatesPresented) => {
                TlsFailure::Certificates(ChainError::Length { length: 0 })
            }
            (None, Error::PeerIncompatible(reason)) => match reason {
                PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig => TlsFailure::NoCommonVersion,
                _ => TlsFailure::NoCommonCryptography,
            },
            (None, Error::NoApplicationProtocol) => TlsFailure::NoCommonProtocol,
            (None, Error::InvalidMessage(_)) => TlsFailure::NotTls,
            (None, Error::AlertReceived(alert)) => TlsFailure::alert(*alert),
            (None, Error::DecryptError) => TlsFailure::CorruptRecord,
            (
                None,
                Error::PeerMisbehaved(_)
                | Error::InappropriateMessage { .. }
                | Error::InappropriateHandshakeMessage { .. },
            ) => TlsFailure::Misbehaved { rule: error.to_string() },
            (None, other) => TlsFailure::Internal { reason: other.to_string() },
        };
        Self::new(us, failure)
    }
}

impl TlsFailure {
    /// A fatal alert from the peer; the ones with a meaning of their own become that.
    pub(super) fn alert(alert: AlertDescription) -> Self {
        match alert {
            AlertDescription::ProtocolVersion => Self::NoCommonVersion,
            AlertDescription::NoApplicationProtocol => Self::NoCommonProtocol,
            other => {
                let name = other.as_str().map_or_else(|| "unknown".into(), Into::into);
                Self::Alert { code: u8::from(other), name }
            }
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = self.peer;
        match &self.failure {
            TlsFailure::Certificates(reason) => {
                write!(formatter, "the {peer}'s certificate chain is refused: {reason}")
            }
            TlsFailure::NoCommonVersion => {
                write!(
                    formatter,
                    "no TLS version in common with the {peer}: TLS 1.3 is needed; the {peer} has to be upgraded"
                )
            }
            TlsFailure::NoCommonCryptography => write!(
                formatter,
                "no cryptography in common with the {peer}: TLS_CHACHA20_POLY1305_SHA256, X25519 and Ed25519 are needed; \
                 is it a SimpleX {peer}?"
            ),
            TlsFailure::NoCommonProtocol => write!(
                formatter,
                "no application protocol in common with the {peer}: this end speaks SMP; is there another service at this port?"
            ),
            TlsFailure::NotTls => {
                write!(formatter, "what the {peer} sends is not TLS; is there another service at this port?")
            }
            TlsFailure::Alert { code, name } => write!(
                formatter,
                "the {peer} ended the connection with TLS alert {name} ({code}); the reason may be in the log of the {peer}"
            ),
            TlsFailure::CorruptRecord => {
                write!(
                    formatter,
                    "a TLS record from the {peer} was damaged or forged on its way; connecting again is safe"
                )
            }
            TlsFailure::Misbehaved { rule } => write!(formatter, "the {peer} broke a rule of TLS: {rule}"),
            TlsFailure::Truncated { during_handshake: true } => write!(
                formatter,
                "the {peer} ended the connection during the TLS handshake; is it the right port, and is the {peer} overloaded?"
            ),
            TlsFailure::Truncated { during_handshake: false } => {
                write!(formatter, "the connection to the {peer} broke off; connecting again is safe")
            }
            TlsFailure::Closed => write!(formatter, "the connection to the {peer} is closed already"),
            TlsFailure::HandshakeNotComplete => {
                write!(
                    formatter,
                    "the TLS handshake with the {peer} is not complete, nothing can be sent yet"
                )
            }
            TlsFailure::TooMuchOutgoing => {
                write!(formatter, "too much waits to be sent to the {peer}: write it to the network first")
            }
            TlsFailure::Internal { reason } => write!(
                formatter,
                "TLS with the {peer} failed for a reason that is a defect of this program: {reason}; please report it"
            ),
        }
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.failure {
            TlsFailure::Certificates(reason) => Some(reason),
            _ => None,
        }
    }
}
