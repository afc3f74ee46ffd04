//! What a session is told about the transport connection that carries it, before anything else.
//!
//! The session itself knows no TLS: whatever carries blocks of 16,384 bytes and can say these three things will do
//! (a WebSocket inside TLS, a test).

use alloc::sync::Arc;
use alloc::vec::Vec;

/// What binds commands to one connection: the TLS `Finished` of the client, 32 bytes in TLS 1.3 and 12 in TLS 1.2
/// (WIRE-FACTS 4.2). Always 1 to 255 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionId {
    /// A length byte and the id: the start of everything that is signed.
    prefixed: Arc<[u8]>,
}

impl SessionId {
    /// Keeps a copy of `bytes`; `None` when there are none, or more than 255.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let length = u8::try_from(bytes.len()).ok().filter(|length| *length > 0)?;
        let mut prefixed = Vec::with_capacity(1 + bytes.len());
        prefixed.push(length);
        prefixed.extend_from_slice(bytes);
        Some(Self { prefixed: prefixed.into() })
    }

    /// The id.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.prefixed.get(1..).unwrap_or_default()
    }

    /// A length byte and the id, as they begin what is signed (`authorized` of WIRE-FACTS 4.8).
    #[must_use]
    pub fn prefixed(&self) -> &[u8] {
        &self.prefixed
    }
}

/// A session id is a secret of two: it is never printed.
impl core::fmt::Debug for SessionId {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "SessionId({} bytes)", self.as_bytes().len())
    }
}

/// What the two sides agreed to speak, by the application protocol that TLS negotiated (ALPN).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// No application protocol was negotiated: SMP of v6 alone (WIRE-FACTS 4.1).
    OldSmp,
    /// SMP.
    Smp,
    /// `smp-proxy/1`: between clients, first-step relays and destinations.
    FirstStep,
}

impl Protocol {
    /// What is spoken on a connection with this application protocol. Whatever is not `smp-proxy/1` is SMP.
    #[must_use]
    pub fn of(negotiated: Option<&[u8]>) -> Self {
        match negotiated {
            None => Self::OldSmp,
            Some(crate::wire::first_step::ALPN) => Self::FirstStep,
            Some(_) => Self::Smp,
        }
    }
}

/// The transport's facts, the same on both sides.
#[derive(Clone, PartialEq, Eq)]
pub struct TransportFacts {
    /// The session id.
    pub session_id: SessionId,
    /// What is spoken on the connection.
    pub protocol: Protocol,
    /// The certificates that the *other* side presented in TLS, in DER, leaf first. Empty for a client without any.
    pub peer_chain: Vec<Vec<u8>>,
}

impl core::fmt::Debug for TransportFacts {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter
            .debug_struct("TransportFacts")
            .field("protocol", &self.protocol)
            .field("peer_chain", &self.peer_chain.len())
            .finish_non_exhaustive()
    }
}
