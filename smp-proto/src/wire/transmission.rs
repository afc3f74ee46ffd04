//! Transmissions and batches: what is inside a block (WIRE-FACTS 4.7, 4.8).

use super::identifier::{CorrelationId, EntityId};

/// The raw authorization of a client's transmission. Its length tells its kind; it is not verified here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Authorization<'a> {
    /// No authorization.
    None,
    /// 80 bytes: an X25519 authenticator.
    Authenticator(&'a [u8; 80]),
    /// 64 bytes: an Ed25519 signature.
    Ed25519(&'a [u8; 64]),
    /// 114 bytes: an Ed448 signature.
    Ed448(&'a [u8; 114]),
}

impl core::fmt::Debug for Authorization<'_> {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str(match self {
            Self::None => "None",
            Self::Authenticator(_) => "Authenticator(..)",
            Self::Ed25519(_) => "Ed25519(..)",
            Self::Ed448(_) => "Ed448(..)",
        })
    }
}

/// One transmission of a client, parsed but not verified.
///
/// `T` is what was parsed out of it: a command for a relay, a response for a client.
#[derive(Clone, Debug)]
pub struct Transmission<'a, T> {
    /// Who says so.
    pub authorization: Authorization<'a>,
    /// v16: the service's Ed25519 signature over `entity ‖ command` with the session.
    pub service_signature: Option<&'a [u8; 64]>,
    /// Ties the response to the command.
    pub correlation: CorrelationId,
    /// What the command is about.
    pub entity: EntityId,
    /// The bytes from the correlation id's length byte to the end: with the session id in front they are what is
    /// signed (`authorized` of WIRE-FACTS 4.8).
    pub signed_tail: &'a [u8],
    /// The command or response.
    pub content: T,
}
