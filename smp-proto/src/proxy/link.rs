//! One connection from a proxy to a destination: handshake, and the outer box around what is forwarded.
//!
//! Owns the connection's keys, and which of the proxy's correlations stands for which forwarded command. It knows no
//! client. Its work is cryptography: a driver with several threads does it beside the [`Proxy`](super::Proxy), as it does a
//! [`ServerSession`](crate::session::server::ServerSession)'s beside the broker.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::{Bytes, BytesMut};

use super::ProxyConfig;
use super::machine::{Forward, ForwardId};
use crate::crypto::proxy_layers::{self, ForwardedCommand, ForwardedResponse};
use crate::crypto::{BoxKey, Provider, ids};
use crate::entropy::Entropy;
use crate::session::client::{ClientSession, Received};
use crate::session::outgoing::ProxySession;
use crate::session::{OpenedBlock, SessionError, TransportFacts};
use crate::time::{Instant, Now};
use crate::wire::EntityId;
use crate::wire::block::BLOCK_LENGTH;
use crate::wire::command::Command;
use crate::wire::error::{BrokerError, NetworkError, ProxyError, TransportError};
use crate::wire::identifier::{IDENTIFIER_LENGTH, Identifier};
use crate::wire::response::Response;
use crate::wire::transmission::Transmission;
use crate::wire::version::{Version, VersionRange};

/// A connection to a destination. See the module's documentation.
pub struct ProxyLink {
    session: ClientSession,
    provider: &'static dyn Provider,
    versions: VersionRange,
    outer: Option<BoxKey>,
    in_flight: BTreeMap<[u8; IDENTIFIER_LENGTH], (ForwardId, Identifier)>,
    /// When what is on its way is given up by the proxy, in order: an answer after that is nobody's.
    until: VecDeque<(Instant, [u8; IDENTIFIER_LENGTH])>,
}

/// What came of a block.
#[derive(Debug)]
pub enum LinkReceived {
    /// The handshake is finished, and the proxy's hello waits to be sent: clients may be told this.
    Open(Arc<ProxySession>),
    /// The destination answered these commands.
    Answers(Vec<(ForwardId, Result<Bytes, ProxyError>)>),
}

impl ProxyLink {
    /// A new connection to the destination with this fingerprint.
    #[must_use]
    pub fn new(
        config: &ProxyConfig,
        fingerprint: &[u8],
        facts: TransportFacts,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Self {
        Self {
            session: ClientSession::new(&config.session(fingerprint), facts, now, entropy),
            provider: config.provider,
            versions: config.versions,
            outer: None,
            in_flight: BTreeMap::new(),
            until: VecDeque::new(),
        }
    }

    /// The hello, once the destination's has come.
    #[must_use]
    pub const fn take_handshake_block(&mut self) -> Option<BytesMut> {
        self.session.take_handshake_block()
    }

    /// Takes a block of 16,384 bytes.
    ///
    /// # Errors
    /// Why the connection is over, as clients are told.
    pub fn receive(&mut self, block: BytesMut, now: Now) -> Result<LinkReceived, BrokerError> {
        match self.session.receive(block, now) {
            Ok(Received::Established(version)) => self.open(version).map(LinkReceived::Open),
            Ok(Received::Responses(block)) => Ok(LinkReceived::Answers(self.answers(&block))),
            Err(SessionError::Close(reason)) => {
                Err(reason.transport_error().map_or(BrokerError::Timeout, BrokerError::Transport))
            }
            Err(SessionError::Misuse(_)) => Err(BrokerError::Network(NetworkError::Failed)),
        }
    }

    fn open(&mut self, version: Version) -> Result<Arc<ProxySession>, BrokerError> {
        let too_old = BrokerError::Transport(TransportError::Version);
        let hello = self.session.relay_hello().ok_or_else(|| too_old.clone())?;
        let versions = hello.versions.intersection(self.versions).ok_or_else(|| too_old.clone())?;
        if version < Version::PROXY {
            return Err(too_old);
        }
        let no_key = BrokerError::Transport(TransportError::NoAuthorization);
        self.outer = Some(self.session.hello_secret().ok_or(no_key)?.box_key());
        let session = Identifier::new(self.session.facts().session_id.as_bytes())
            .ok_or(BrokerError::Transport(TransportError::Session))?;
        Ok(Arc::new(ProxySession {
            session,
            versions,
            chain: hello.chain.clone(),
            signed_key: hello.signed_key.clone(),
        }))
    }

    fn answers(&mut self, block: &OpenedBlock) -> Vec<(ForwardId, Result<Bytes, ProxyError>)> {
        let mut answers = Vec::new();
        for response in self.session.responses(block) {
            let (correlation, result) = match response {
                Ok(Transmission { correlation, entity, content, .. }) if entity.is_empty() => {
                    (correlation, Ok(content))
                }
                Ok(Transmission { correlation, .. }) => (correlation, Err(unexpected())),
                Err(malformed) => {
                    (malformed.correlation, Err(BrokerError::Response(Vec::from(b"unreadable"))))
                }
            };
            // What nobody waits for, or not any more, is dropped.
            let Some(name) = correlation.as_full() else { continue };
            let Some((id, client)) = self.in_flight.remove(name) else { continue };
            let result = match result {
                Ok(Response::RelayResponse(sealed)) => self.open_answer(name, &client, sealed),
                Ok(Response::Error(error)) => Err(ProxyError::Protocol(error.into())),
                Ok(_) => Err(ProxyError::Broker(unexpected())),
                Err(error) => Err(ProxyError::Broker(error)),
            };
            answers.push((id, result));
        }
        answers
    }

    /// Takes the outer box off an answer.
    fn open_answer(
        &self,
        correlation: &[u8; IDENTIFIER_LENGTH],
        client: &Identifier,
        sealed: &[u8],
    ) -> Result<Bytes, ProxyError> {
        let unreadable = |what: &[u8]| ProxyError::Broker(BrokerError::Response(what.to_vec()));
        let outer = self.outer.as_ref().ok_or_else(|| unreadable(b"no key"))?;
        let mut buffer = BytesMut::from(sealed);
        let text = proxy_layers::open_forwarded_response(self.provider, outer, correlation, &mut buffer)
            .map_err(|_| unreadable(b"cannot be decrypted"))?;
        let response = ForwardedResponse::parse(text).ok_or_else(|| unreadable(b"unreadable"))?;
        if response.correlation != client.as_bytes() {
            return Err(ProxyError::Broker(unexpected()));
        }
        let length = response.sealed.len();
        let start = buffer.len().saturating_sub(length);
        Ok(buffer.freeze().slice(start..))
    }

    /// Fills a block with one forwarded command. An error is its answer: nothing is to be sent.
    ///
    /// # Errors
    /// [`ProxyError`] when it fits in no block, or the connection is not open.
    pub fn seal(
        &mut self,
        forward: &Forward,
        block: &mut [u8; BLOCK_LENGTH],
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), ProxyError> {
        while let Some((until, correlation)) = self.until.front().copied()
            && (until <= now.instant || !self.in_flight.contains_key(&correlation))
        {
            self.until.pop_front();
            self.in_flight.remove(&correlation);
        }
        let failed = |error| ProxyError::Broker(BrokerError::Transport(error));
        let outer = self.outer.as_ref().ok_or_else(|| failed(TransportError::NoAuthorization))?;
        let correlation = ids::random(entropy);
        let command = ForwardedCommand {
            correlation: forward.correlation.as_bytes(),
            version: forward.version.0,
            client_key: forward.client_key,
            sealed: &forward.sealed,
        };
        let transmission = proxy_layers::seal_forwarded_command(self.provider, outer, &correlation, &command)
            .map_err(|_| failed(TransportError::LargeMessage))?;
        let command = Command::RelayForward { transmission: &transmission };
        let mut added = Ok(());
        let sealed = self.session.seal(block, now, |writer| {
            added = writer.add(&Identifier::from(correlation), &EntityId::EMPTY, &command, None);
        });
        if added.is_err() {
            return Err(failed(TransportError::LargeMessage));
        }
        if !matches!(sealed, Ok(true)) {
            return Err(failed(TransportError::Block));
        }
        self.in_flight.insert(correlation, (forward.id, forward.correlation.clone()));
        self.until.push_back((forward.until, correlation));
        Ok(())
    }

    /// When the handshake must be finished.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<Instant> {
        self.session.next_deadline()
    }

    /// Whether commands may be sent.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.outer.is_some() && !self.session.has_handshake_block()
    }

    /// A digest of everything that decides what this connection does next.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        use sha2::{Digest, Sha256};
        let mut digest = Sha256::new();
        digest.update(self.session.digest());
        for (correlation, (id, client)) in &self.in_flight {
            digest.update(correlation);
            digest.update(id.0.to_be_bytes());
            digest.update(client.as_bytes());
        }
        digest.finalize().into()
    }
}

fn unexpected() -> BrokerError {
    BrokerError::Unexpected(Vec::from(b"not an answer to RFWD"))
}

impl core::fmt::Debug for ProxyLink {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter
            .debug_struct("ProxyLink")
            .field("session", &self.session)
            .field("in_flight", &self.in_flight.len())
            .finish_non_exhaustive()
    }
}
