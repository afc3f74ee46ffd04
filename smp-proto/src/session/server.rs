//! A relay's side of one connection: handshake, blocks, requests.
//!
//! Inputs: [`ServerSession::receive`] (blocks), [`ServerSession::handle_timeout`]. Outputs:
//! [`ServerSession::take_handshake_block`], the [`Requests`] of a block, and what [`pack`](ServerSession::pack) fills.
//! It owns the keys of this connection and must never know a queue.
//!
//! ```text
//!   new ──▶ AwaitingHello ──client hello──▶ Established ──▶ …
//!              │ time limit, bad hello           │ unreadable block
//!              └────────────▶ Ended ◀────────────┘
//! ```
//!
//! **Service sessions** (v16, WIRE-FACTS 4.5): a client that asks for one gets `E HANDSHAKE BAD_AUTH` when its certificates
//! or key do not fit, and the session ends. Else the session is *identifying* ([`Received::Service`]) until the broker
//! has said whether the client may be that service: [`pack`](ServerSession::pack) makes the third block of the handshake
//! of that. See [`service`](super::service).

use alloc::boxed::Box;
use alloc::sync::Arc;

use bytes::BytesMut;
use sha2::{Digest, Sha256};

use super::blocks::{BlockProtection, End, OpenedBlock, handshake_block};
use super::close::{CloseReason, Misuse, SessionError};
use super::facts::{Protocol, SessionId, TransportFacts};
use super::handshake;
use super::identity::{ServerIdentity, SigningFailed};
use super::request::{Authority, Request};
use super::service::{ServiceClaim, SessionService};
use super::shared_secrets::SharedSecrets;
use crate::crypto::certificates::{self, ChainRoles};
use crate::crypto::signed_key::SignedKey;
use crate::crypto::{Provider, SharedSecret};
use crate::entropy::Entropy;
use crate::keys::{PublicKey, X25519Public, X25519Secret};
use crate::time::{Duration, Instant, Now};
use crate::wire::error::TransportError;
use crate::wire::hello::{ClientService, HelloLayout, ServiceResponse};
use crate::wire::transmission::{Batch, Malformed, SessionLayout, Transmission};
use crate::wire::version::{Version, VersionRange};

/// How many requests are looked up and verified at once.
///
/// Large enough that signatures of a block share their work, small enough for a stack: a chunk takes less than 20 KB.
pub const CHUNK_LENGTH: usize = 32;

/// Some of a block's requests.
pub type RequestChunk<'b> = heapless::Vec<Request<'b>, CHUNK_LENGTH>;

/// What all sessions of a relay have in common.
#[derive(Clone)]
pub struct ServerSessionConfig {
    /// The versions that are offered; only v6 to a connection without ALPN.
    pub versions: VersionRange,
    /// Who this relay is.
    pub identity: ServerIdentity,
    /// The primitives.
    pub provider: &'static dyn Provider,
    /// How long a client may take for its hello. Deployed relays: 120 s.
    pub handshake_time_limit: Duration,
    /// How many shared secrets of senders a session remembers, at 100 bytes each.
    pub remembered_authenticators: usize,
    /// How many shared secrets of recipients a session remembers, at 100 bytes each.
    pub remembered_deliveries: usize,
}

impl ServerSessionConfig {
    /// The versions that are offered unless configured otherwise: 6 to 18.
    pub const OFFERED: VersionRange = VersionRange::between(Version::OLDEST, Version::BLOCKED_NOTICE);

    /// The usual configuration of a relay with this identity.
    #[must_use]
    pub const fn new(identity: ServerIdentity, provider: &'static dyn Provider) -> Self {
        Self {
            versions: Self::OFFERED,
            identity,
            provider,
            handshake_time_limit: Duration::from_secs(120),
            remembered_authenticators: 8,
            remembered_deliveries: 8,
        }
    }
}

impl core::fmt::Debug for ServerSessionConfig {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter
            .debug_struct("ServerSessionConfig")
            .field("versions", &self.versions)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// A relay's side of one connection.
pub struct ServerSession {
    pub(super) config: Arc<ServerSessionConfig>,
    pub(super) facts: TransportFacts,
    pub(super) secret: X25519Secret,
    pub(super) authenticators: SharedSecrets,
    pub(super) deliveries: SharedSecrets,
    pub(super) state: State,
    handshake_output: Option<BytesMut>,
    offered: VersionRange,
    last_activity: Instant,
}

/// Where a session is in its life.
pub(super) enum State {
    /// The server hello is on its way, the client hello is not there yet.
    AwaitingHello {
        /// Until when it must be.
        deadline: Instant,
    },
    /// The client has proved which service it is, and the broker has not said yet whether it may be.
    Identifying { established: Established, claim: ServiceClaim },
    /// Commands may come.
    Established(Established),
    /// Nothing may come.
    Ended(CloseReason),
}

/// What both sides agreed on.
pub(super) struct Established {
    pub(super) version: Version,
    pub(super) protection: BlockProtection,
    proxy: bool,
    /// The secret of the two hello keys, for forwarded commands.
    hello_secret: Option<SharedSecret>,
    /// The service that the client is.
    pub(super) service: Option<Box<SessionService>>,
}

/// What became of a received block.
#[derive(Debug)]
pub enum Received {
    /// It was the client's hello: the session is established.
    Established(Version),
    /// It was the hello of a service: the broker is to be asked
    /// ([`identify_service`](crate::broker::Broker::identify_service)), and its answer to be packed.
    Service(ServiceClaim),
    /// It has commands.
    Commands(OpenedBlock),
}

impl ServerSession {
    /// A session on a new connection. Its hello is the first
    /// [`take_handshake_block`](Self::take_handshake_block). Costs one key pair and one signature.
    ///
    /// # Errors
    /// [`SigningFailed`] when the relay's signer does not work: the connection cannot be served.
    pub fn new(
        config: &Arc<ServerSessionConfig>,
        facts: TransportFacts,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<Self, SigningFailed> {
        let offered = match facts.protocol {
            Protocol::OldSmp => VersionRange::only(Version::OLDEST),
            Protocol::Smp | Protocol::FirstStep => config.versions,
        };
        let secret = X25519Secret::generate(entropy);
        let handshake_output =
            handshake::relay_hello(HelloLayout::Smp, offered, config, &facts.session_id, &secret)?;
        // `ServerIdentity::new` has made sure that every hello fits.
        debug_assert!(handshake_output.is_some());
        Ok(Self {
            config: Arc::clone(config),
            facts,
            secret,
            authenticators: SharedSecrets::new(config.remembered_authenticators),
            deliveries: SharedSecrets::new(config.remembered_deliveries),
            state: State::AwaitingHello { deadline: now.instant + config.handshake_time_limit },
            handshake_output,
            offered,
            last_activity: now.instant,
        })
    }

    /// The next block of the handshake: the hello at first; later, the refusal of a service.
    #[must_use]
    pub const fn take_handshake_block(&mut self) -> Option<BytesMut> {
        self.handshake_output.take()
    }

    /// Takes a block of 16,384 bytes, decrypting it in place.
    ///
    /// # Errors
    /// [`SessionError::Close`] when the session has ended: what [`take_handshake_block`](Self::take_handshake_block)
    /// then gives is sent, and the connection closed. [`SessionError::Misuse`] when the driver is wrong.
    pub fn receive(&mut self, block: BytesMut, now: Now) -> Result<Received, SessionError> {
        if block.len() != crate::wire::block::BLOCK_LENGTH {
            return Err(Misuse::BlockLength(block.len()).into());
        }
        self.last_activity = self.last_activity.max(now.instant);
        let received = match &mut self.state {
            State::AwaitingHello { deadline } if *deadline <= now.instant => {
                Err(CloseReason::HandshakeTimeout.into())
            }
            State::AwaitingHello { .. } => self.receive_hello(&block).map_err(SessionError::Close),
            State::Established(established) => {
                established.protection.open(self.config.provider, block).map(Received::Commands)
            }
            // Nothing may come before the third block of the handshake.
            State::Identifying { .. } => Err(CloseReason::HelloUnreadable.into()),
            State::Ended(_) => return Err(Misuse::Ended.into()),
        };
        if let Err(SessionError::Close(reason)) = received {
            self.end(reason);
        }
        received
    }

    fn receive_hello(&mut self, block: &[u8]) -> Result<Received, CloseReason> {
        let hello = handshake::client_hello(HelloLayout::Smp, block, &self.config.identity, self.offered)?;
        let claim = match &hello.service {
            None => None,
            Some(service) => match self.verify_service(service) {
                Some(claim) => Some(claim),
                None => {
                    let reason = CloseReason::ServiceNotVerified;
                    let error = reason.transport_error().unwrap_or(TransportError::Block);
                    self.handshake_output =
                        handshake_block(|out| ServiceResponse::Refused(error).encode(out));
                    return Err(reason);
                }
            },
        };
        let provider = self.config.provider;
        let hello_secret = hello.key.map(|key| SharedSecret::agree(provider, &self.secret, &key));
        let protection = match &hello_secret {
            Some(secret) if hello.version >= Version::BLOCK_ENCRYPTION && !hello.proxy => {
                BlockProtection::encrypted(provider, &self.facts.session_id, secret, End::Relay)
            }
            _ => BlockProtection::Padded,
        };
        let established = Established {
            version: hello.version,
            protection,
            proxy: hello.proxy,
            hello_secret,
            service: None,
        };
        Ok(match claim {
            None => {
                self.state = State::Established(established);
                Received::Established(hello.version)
            }
            Some(claim) => {
                self.state = State::Identifying { established, claim: claim.clone() };
                Received::Service(claim)
            }
        })
    }

    /// Who the service is, if its part of the hello fits the TLS connection, and its key is an Ed25519 key signed by the
    /// leaf.
    fn verify_service(&self, service: &ClientService<'_>) -> Option<ServiceClaim> {
        let presented = self.facts.peer_chain.iter().map(alloc::vec::Vec::as_slice);
        if !service.chain.certificates().eq(presented) {
            return None;
        }
        let chain: heapless::Vec<&[u8], 4> = service.chain.certificates().take(4).collect();
        if service.chain.len() > chain.len() {
            return None;
        }
        let roles = ChainRoles::of(&chain).ok()?;
        let leaf = certificates::public_key(roles.leaf())?;
        let signed = SignedKey::from_der(service.key.0)?;
        let PublicKey::Ed25519(key) = signed.key else { return None };
        let fingerprint = certificates::fingerprint(roles.identity());
        let verified = signed.verify(self.config.provider, &leaf);
        verified.then_some(ServiceClaim { role: service.role, fingerprint, key })
    }

    /// The requests in a block that this session received.
    #[must_use]
    pub fn parse<'b>(&self, block: &'b OpenedBlock) -> Requests<'b> {
        let (batch, unreadable) = match Batch::parse(block.content()) {
            Some(batch) => (Some(batch), false),
            None => (None, true),
        };
        let version = self.version().unwrap_or(Version::OLDEST);
        Requests { batch, unreadable, version, session: self.facts.session_id.clone() }
    }

    /// Ends a session whose handshake takes too long.
    ///
    /// # Errors
    /// The reason, once; the connection is then closed.
    pub fn handle_timeout(&mut self, now: Now) -> Result<(), CloseReason> {
        match self.state {
            State::AwaitingHello { deadline } if deadline <= now.instant => {
                self.end(CloseReason::HandshakeTimeout);
                Err(CloseReason::HandshakeTimeout)
            }
            _ => Ok(()),
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) should be called.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<Instant> {
        match self.state {
            State::AwaitingHello { deadline } => Some(deadline),
            _ => None,
        }
    }

    /// When a block was received or packed last, for the driver's rule on inactive clients.
    #[must_use]
    pub const fn last_activity(&self) -> Instant {
        self.last_activity
    }

    pub(super) fn was_active(&mut self, now: Now) {
        self.last_activity = self.last_activity.max(now.instant);
    }

    /// The version of the session, once established.
    #[must_use]
    pub const fn version(&self) -> Option<Version> {
        match &self.state {
            State::Established(established) => Some(established.version),
            _ => None,
        }
    }

    /// Why the session ended, if it has.
    #[must_use]
    pub const fn close_reason(&self) -> Option<CloseReason> {
        match self.state {
            State::Ended(reason) => Some(reason),
            _ => None,
        }
    }

    /// Whether the client said that it is a proxy.
    #[must_use]
    pub const fn is_proxy(&self) -> bool {
        matches!(&self.state, State::Established(established) if established.proxy)
    }

    /// Whether blocks are encrypted.
    #[must_use]
    pub const fn encrypts_blocks(&self) -> bool {
        matches!(
            &self.state,
            State::Established(Established { protection: BlockProtection::Encrypted { .. }, .. })
        )
    }

    /// The secret of the two hello keys, when the client gave one: forwarded commands are encrypted with it.
    #[must_use]
    pub const fn hello_secret(&self) -> Option<&SharedSecret> {
        match &self.state {
            State::Established(established) => established.hello_secret.as_ref(),
            _ => None,
        }
    }

    /// The relay's key of this connection, as it is in the hello.
    #[must_use]
    pub fn hello_key(&self) -> X25519Public {
        self.config.provider.x25519_public(&self.secret)
    }

    /// The transport's facts.
    #[must_use]
    pub const fn facts(&self) -> &TransportFacts {
        &self.facts
    }

    /// Gives back the memory that only makes things faster: for a connection that has become idle.
    pub fn rest(&mut self) {
        self.authenticators.clear();
        self.deliveries.clear();
    }

    /// A digest of everything that decides what this session does next: equal after equal inputs.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(self.facts.session_id.prefixed());
        digest.update(self.last_activity.as_micros().to_be_bytes());
        digest.update(Sha256::digest(self.secret.as_bytes()));
        match &self.state {
            State::AwaitingHello { deadline } => {
                digest.update([0]);
                digest.update(deadline.as_micros().to_be_bytes());
            }
            State::Identifying { claim, .. } => {
                digest.update([3]);
                digest.update(claim.fingerprint);
            }
            State::Established(established) => {
                digest.update([1, u8::from(established.proxy)]);
                digest.update(established.version.0.to_be_bytes());
                established.protection.digest_into(&mut digest);
            }
            State::Ended(_) => digest.update([2]),
        }
        digest.finalize().into()
    }

    fn end(&mut self, reason: CloseReason) {
        self.state = State::Ended(reason);
        if !matches!(reason, CloseReason::ServiceRefused | CloseReason::ServiceNotVerified) {
            self.handshake_output = None;
        }
        self.rest();
    }
}

impl core::fmt::Debug for ServerSession {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let state = match &self.state {
            State::AwaitingHello { .. } => "awaiting hello",
            State::Identifying { .. } => "identifying",
            State::Established(_) => "established",
            State::Ended(_) => "ended",
        };
        formatter
            .debug_struct("ServerSession")
            .field("state", &state)
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}

/// The requests of one block, in order, read one after the other.
#[derive(Debug)]
pub struct Requests<'b> {
    batch: Option<Batch<'b>>,
    unreadable: bool,
    version: Version,
    session: SessionId,
}

impl<'b> Requests<'b> {
    /// How many requests are left: for each of them there will be an answer.
    #[must_use]
    pub fn len(&self) -> usize {
        self.batch.as_ref().map_or(usize::from(self.unreadable), Batch::len)
    }

    /// Whether none are left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next requests, at most [`CHUNK_LENGTH`]; `None` at the end.
    pub fn next_chunk(&mut self) -> Option<RequestChunk<'b>> {
        let mut chunk = RequestChunk::new();
        self.next_chunk_into(&mut chunk).then_some(chunk)
    }

    /// The next requests, in the place of those that were in `chunk`; false at the end. A chunk has room for many
    /// requests, and moving one moves all of the room: where it matters, it stays in its place.
    pub fn next_chunk_into(&mut self, chunk: &mut RequestChunk<'b>) -> bool {
        chunk.clear();
        while !chunk.is_full() {
            let Some(request) = self.next() else { break };
            if chunk.push(request).is_err() {
                break;
            }
        }
        !chunk.is_empty()
    }
}

impl<'b> Iterator for Requests<'b> {
    type Item = Request<'b>;

    fn next(&mut self) -> Option<Request<'b>> {
        let Some(batch) = &mut self.batch else {
            return core::mem::take(&mut self.unreadable).then(|| malformed(Malformed::UNREADABLE));
        };
        let bytes = batch.next()?;
        let layout = SessionLayout { version: self.version, session: self.session.as_bytes() };
        Some(match Transmission::decode_command(bytes, layout) {
            Ok(transmission) => Request::Command { transmission, authority: Authority::NotLookedUp },
            Err(error) => malformed(error),
        })
    }
}

fn malformed<'b>(Malformed { correlation, entity, error }: Malformed) -> Request<'b> {
    Request::Malformed { correlation, entity, error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::VerifiedChunk;

    #[test]
    fn chunks_fit_on_a_stack_and_sessions_at_rest_are_small() {
        let sizes =
            [size_of::<RequestChunk<'_>>(), size_of::<VerifiedChunk<'_>>(), size_of::<ServerSession>()];
        assert!(sizes[0] <= 20 * 1024 && sizes[1] <= 24 * 1024 && sizes[2] <= 600, "{sizes:?}");
    }
}
