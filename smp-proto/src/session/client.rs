//! A client's side of one connection: it checks whom it talks to, then sends commands and reads responses.
//!
//! Inputs: [`ClientSession::receive`] (blocks), [`ClientSession::handle_timeout`]. Outputs:
//! [`ClientSession::take_handshake_block`], [`Responses`], and the blocks that [`ClientSession::seal`] fills. Which commands
//! are on their way is not its business: that is the [`client`](crate::client)'s.
//!
//! Three checks must all pass before anything is said: the relay's session id is that of the TLS connection; the second
//! certificate, in TLS and in the hello, has the address's fingerprint; the relay's session key is signed with the key of
//! the TLS leaf certificate.

use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::BytesMut;
use sha2::{Digest, Sha256};

use super::blocks::{BlockProtection, End, OpenedBlock, handshake_block};
use super::close::{CloseReason, Misuse, SessionError};
use super::credential::AuthSecret;
use super::facts::{SessionId, TransportFacts};
use super::handshake::{self, CheckedHello};
use super::shared_secrets::SharedSecrets;
use crate::crypto::{Provider, SharedSecret, authenticator, signatures};
use crate::entropy::Entropy;
use crate::keys::{X25519Public, X25519Secret};
use crate::time::{Duration, Instant, Now};
use crate::wire::block::BLOCK_LENGTH;
use crate::wire::command::Command;
use crate::wire::hello::{ClientHello, HelloLayout, ServerHello};
use crate::wire::primitives::{Full, SliceWriter};
use crate::wire::response::Response;
use crate::wire::transmission::{
    Authorization, Batch, BatchWriter, Malformed, SessionLayout, Transmission, write_head,
};
use crate::wire::version::{Version, VersionRange};
use crate::wire::{CorrelationId, EntityId};

/// What a client wants of a connection.
#[derive(Clone)]
pub struct ClientSessionConfig {
    /// The fingerprint in the relay's address: 32 bytes, or nobody has it.
    pub fingerprint: Vec<u8>,
    /// The versions that this client speaks.
    pub versions: VersionRange,
    /// Whether a key is sent from v7 on, as every current client does: without it there is no block encryption.
    pub sends_key: bool,
    /// Whether this client is a relay that forwards the commands of others (WIRE-FACTS 6, 10).
    pub proxy: bool,
    /// The primitives.
    pub provider: &'static dyn Provider,
    /// How long the relay may take for its hello.
    pub handshake_time_limit: Duration,
    /// How many shared secrets of authenticators a session remembers, at 100 bytes each.
    pub remembered_authenticators: usize,
}

impl ClientSessionConfig {
    /// The versions that a client speaks unless configured otherwise: 6 to 18.
    pub const SPOKEN: VersionRange = VersionRange::between(Version::OLDEST, Version::BLOCKED_NOTICE);

    /// The usual configuration for the relay with this fingerprint.
    #[must_use]
    pub const fn new(fingerprint: Vec<u8>, provider: &'static dyn Provider) -> Self {
        Self {
            fingerprint,
            versions: Self::SPOKEN,
            sends_key: true,
            proxy: false,
            provider,
            handshake_time_limit: Duration::from_secs(30),
            remembered_authenticators: 64,
        }
    }
}

impl core::fmt::Debug for ClientSessionConfig {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter
            .debug_struct("ClientSessionConfig")
            .field("versions", &self.versions)
            .field("sends_key", &self.sends_key)
            .field("proxy", &self.proxy)
            .finish_non_exhaustive()
    }
}

/// A client's side of one connection.
pub struct ClientSession {
    config: Arc<ClientSessionConfig>,
    facts: TransportFacts,
    secret: Option<X25519Secret>,
    authenticators: SharedSecrets,
    state: State,
    handshake_output: Option<BytesMut>,
    last_activity: Instant,
}

enum State {
    AwaitingHello { deadline: Instant },
    Established(Established),
    Ended(CloseReason),
}

struct Established {
    version: Version,
    protection: BlockProtection,
    relay_key: Option<X25519Public>,
    hello_secret: Option<SharedSecret>,
    /// For a proxy, whose clients are shown it.
    relay_hello: Option<alloc::boxed::Box<RelayHello>>,
}

/// What a relay showed in its hello: a proxy shows it to its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayHello {
    /// The versions that it offers.
    pub versions: VersionRange,
    /// Its certificates, as they are on the wire.
    pub chain: Vec<u8>,
    /// Its session key, signed by the leaf, in DER.
    pub signed_key: Vec<u8>,
}

/// What became of a received block.
#[derive(Debug)]
pub enum Received {
    /// It was the relay's hello: the session is established at this version, and its own hello waits in
    /// [`ClientSession::take_handshake_block`].
    Established(Version),
    /// It has responses.
    Responses(OpenedBlock),
}

impl ClientSession {
    /// A session on a new connection.
    #[must_use]
    pub fn new(
        config: &Arc<ClientSessionConfig>,
        facts: TransportFacts,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Self {
        Self {
            config: Arc::clone(config),
            facts,
            secret: config.sends_key.then(|| X25519Secret::generate(entropy)),
            authenticators: SharedSecrets::new(config.remembered_authenticators),
            state: State::AwaitingHello { deadline: now.instant + config.handshake_time_limit },
            handshake_output: None,
            last_activity: now.instant,
        }
    }

    /// The client's hello, once the relay's has come.
    #[must_use]
    pub const fn take_handshake_block(&mut self) -> Option<BytesMut> {
        self.handshake_output.take()
    }

    /// Whether [`take_handshake_block`](Self::take_handshake_block) has one.
    #[must_use]
    pub const fn has_handshake_block(&self) -> bool {
        self.handshake_output.is_some()
    }

    /// Takes a block of 16,384 bytes, decrypting it in place.
    ///
    /// # Errors
    /// [`SessionError::Close`] when the session has ended, [`SessionError::Misuse`] when the driver is wrong.
    pub fn receive(&mut self, block: BytesMut, now: Now) -> Result<Received, SessionError> {
        if block.len() != BLOCK_LENGTH {
            return Err(Misuse::BlockLength(block.len()).into());
        }
        self.last_activity = self.last_activity.max(now.instant);
        let received = match &mut self.state {
            State::AwaitingHello { deadline } if *deadline <= now.instant => {
                Err(CloseReason::HandshakeTimeout.into())
            }
            State::AwaitingHello { .. } => self.receive_hello(&block).map_err(SessionError::Close),
            State::Established(established) => {
                established.protection.open(self.config.provider, block).map(Received::Responses)
            }
            State::Ended(_) => return Err(Misuse::Ended.into()),
        };
        if let Err(SessionError::Close(reason)) = received {
            self.end(reason);
        }
        received
    }

    fn receive_hello(&mut self, block: &[u8]) -> Result<Received, CloseReason> {
        let hello = handshake::relay_hello_of(HelloLayout::Smp, block)?;
        let CheckedHello { version, relay_key } = self.check(&hello)?;
        let provider = self.config.provider;
        let own_key = self.secret.as_ref().map(|secret| provider.x25519_public(secret));
        let reply = ClientHello {
            version,
            fingerprint: &self.config.fingerprint,
            key: own_key,
            proxy: self.config.proxy,
            service: None,
        };
        // Only a fingerprint of more than 255 bytes would not fit, and no certificate has such a one.
        self.handshake_output =
            Some(handshake_block(|out| reply.encode(out)).ok_or(CloseReason::WrongRelayFound)?);
        let hello_secret = match (&self.secret, &relay_key) {
            (Some(secret), Some(key)) => Some(SharedSecret::agree(provider, secret, key)),
            _ => None,
        };
        let protection = match &hello_secret {
            Some(secret) if version >= Version::BLOCK_ENCRYPTION && !self.config.proxy => {
                BlockProtection::encrypted(provider, &self.facts.session_id, secret, End::Client)
            }
            _ => BlockProtection::Padded,
        };
        let shown = hello.authentication.as_ref().filter(|_| self.config.proxy);
        let relay_hello = shown.map(|(chain, key)| {
            alloc::boxed::Box::new(RelayHello {
                versions: hello.versions,
                chain: chain.as_wire().to_vec(),
                signed_key: key.0.to_vec(),
            })
        });
        self.state =
            State::Established(Established { version, protection, relay_key, hello_secret, relay_hello });
        Ok(Received::Established(version))
    }

    /// All checks of a hello, in the order of the reference.
    fn check(&self, hello: &ServerHello<'_>) -> Result<CheckedHello, CloseReason> {
        handshake::check_session(hello, &self.facts)?;
        let mut wanted = self.config.versions;
        if self.config.proxy && hello.versions.max().min(wanted.max()) < Version::PROXY_FLAG {
            // The relay could not be told that this is a proxy, and would encrypt blocks (WIRE-FACTS 6).
            let below = VersionRange::new(wanted.min(), wanted.max().min(Version::DELETED_EVENT));
            wanted = below.ok_or(CloseReason::NoCommonVersion { offered: hello.versions, wanted })?;
        }
        handshake::check_relay(self.config.provider, hello, &self.facts, &self.config.fingerprint, wanted)
    }

    /// The responses in a block that this session received.
    #[must_use]
    pub fn responses<'s, 'b>(&'s self, block: &'b OpenedBlock) -> Responses<'s, 'b> {
        let batch = Batch::parse(block.content());
        let version = self.version().unwrap_or(Version::OLDEST);
        let layout = SessionLayout { version, session: self.facts.session_id.as_bytes() };
        Responses { unreadable: batch.is_none(), batch, layout }
    }

    /// Fills a block with the commands that `fill` adds, and completes it. False, and nothing to send, when it adds
    /// none.
    ///
    /// # Errors
    /// [`Misuse`] when the session is not established, or its own hello was not taken yet.
    pub fn seal(
        &mut self,
        block: &mut [u8; BLOCK_LENGTH],
        now: Now,
        fill: impl FnOnce(&mut CommandWriter<'_>),
    ) -> Result<bool, Misuse> {
        let established = match &mut self.state {
            // Commands must not overtake the hello.
            State::Established(_) if self.handshake_output.is_some() => return Err(Misuse::NotEstablished),
            State::Established(established) => established,
            State::AwaitingHello { .. } => return Err(Misuse::NotEstablished),
            State::Ended(_) => return Err(Misuse::Ended),
        };
        let provider = self.config.provider;
        let offset = established.protection.content_offset();
        let content = block.get_mut(offset..).unwrap_or_default();
        let Ok(batch) = BatchWriter::new(content) else { return Ok(false) };
        let mut writer = CommandWriter {
            batch,
            layout: SessionLayout { version: established.version, session: self.facts.session_id.as_bytes() },
            authorizer: Authorizer {
                provider,
                session: self.facts.session_id.prefixed(),
                relay_key: established.relay_key,
                remembered: &mut self.authenticators,
            },
        };
        fill(&mut writer);
        if writer.batch.count() == 0 {
            return Ok(false);
        }
        let length = writer.batch.finish();
        established.protection.seal(provider, block, length);
        self.last_activity = self.last_activity.max(now.instant);
        Ok(true)
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

    /// When a block was received or sealed last.
    #[must_use]
    pub const fn last_activity(&self) -> Instant {
        self.last_activity
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

    /// Whether blocks are encrypted.
    #[must_use]
    pub const fn encrypts_blocks(&self) -> bool {
        matches!(
            &self.state,
            State::Established(Established { protection: BlockProtection::Encrypted { .. }, .. })
        )
    }

    /// The relay's key in its hello, verified. Without it, X25519 keys cannot authorize.
    #[must_use]
    pub const fn relay_key(&self) -> Option<&X25519Public> {
        match &self.state {
            State::Established(established) => established.relay_key.as_ref(),
            _ => None,
        }
    }

    /// The secret of the two hello keys, for forwarding as a proxy.
    #[must_use]
    pub const fn hello_secret(&self) -> Option<&SharedSecret> {
        match &self.state {
            State::Established(established) => established.hello_secret.as_ref(),
            _ => None,
        }
    }

    /// What the relay showed in its hello, when this client is a proxy.
    #[must_use]
    pub fn relay_hello(&self) -> Option<&RelayHello> {
        match &self.state {
            State::Established(established) => established.relay_hello.as_deref(),
            _ => None,
        }
    }

    /// The transport's facts.
    #[must_use]
    pub const fn facts(&self) -> &TransportFacts {
        &self.facts
    }

    /// A digest of everything that decides what this session does next: equal after equal inputs.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(self.facts.session_id.prefixed());
        digest.update(self.last_activity.as_micros().to_be_bytes());
        if let Some(secret) = &self.secret {
            digest.update(Sha256::digest(secret.as_bytes()));
        }
        match &self.state {
            State::AwaitingHello { deadline } => {
                digest.update([0]);
                digest.update(deadline.as_micros().to_be_bytes());
            }
            State::Established(established) => {
                digest.update([1]);
                digest.update(established.version.0.to_be_bytes());
                established.protection.digest_into(&mut digest);
            }
            State::Ended(_) => digest.update([2]),
        }
        digest.finalize().into()
    }

    fn end(&mut self, reason: CloseReason) {
        self.state = State::Ended(reason);
        self.handshake_output = None;
        self.authenticators.clear();
    }
}

impl core::fmt::Debug for ClientSession {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let state = match &self.state {
            State::AwaitingHello { .. } => "awaiting hello",
            State::Established(_) => "established",
            State::Ended(_) => "ended",
        };
        formatter
            .debug_struct("ClientSession")
            .field("state", &state)
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}

/// The responses of one block, in order.
#[derive(Debug)]
pub struct Responses<'s, 'b> {
    batch: Option<Batch<'b>>,
    unreadable: bool,
    layout: SessionLayout<'s>,
}

impl<'b> Iterator for Responses<'_, 'b> {
    type Item = Result<Transmission<'b, Response<'b>>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.batch {
            Some(batch) => batch.next().map(|bytes| Transmission::decode_response(bytes, self.layout)),
            None => core::mem::take(&mut self.unreadable).then_some(Err(Malformed::UNREADABLE)),
        }
    }
}

/// Why a command was not added to a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddError {
    /// The block is full: add it to the next one.
    BlockFull,
    /// It fits in no block.
    TooLarge,
    /// It is to be authorized with an X25519 key, but the relay gave no key in its hello: its version is below 7.
    NoRelayKey,
}

impl core::fmt::Display for AddError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str(match self {
            Self::BlockFull => "the block is full: the command must go into the next one",
            Self::TooLarge => "the command is larger than a block",
            Self::NoRelayKey => {
                "the relay gave no key, so that an X25519 key cannot authorize: an Ed25519 key is needed"
            }
        })
    }
}

impl core::error::Error for AddError {}

impl From<Full> for AddError {
    fn from(_: Full) -> Self {
        Self::BlockFull
    }
}

/// Adds commands to a block.
pub struct CommandWriter<'a> {
    batch: BatchWriter<'a>,
    layout: SessionLayout<'a>,
    authorizer: Authorizer<'a>,
}

impl core::fmt::Debug for CommandWriter<'_> {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "CommandWriter({} commands)", self.batch.count())
    }
}

/// Writes a batch of one command for a relay that is not connected to this client, and returns its length: what is sealed
/// for a proxy to forward. `relay` is the session, the version and the key in the hello of the relay.
///
/// # Errors
/// [`AddError::TooLarge`] when it does not fit.
pub(crate) fn write_alone(
    provider: &'static dyn Provider,
    relay: (&SessionId, Version, X25519Public),
    correlation: &CorrelationId,
    entity: &EntityId,
    command: &Command<'_>,
    key: Option<&AuthSecret>,
    content: &mut [u8],
) -> Result<usize, AddError> {
    let (session, version, relay_key) = relay;
    let layout = SessionLayout { version, session: session.as_bytes() };
    let mut authorizer = Authorizer {
        provider,
        session: session.prefixed(),
        relay_key: Some(relay_key),
        remembered: &mut SharedSecrets::new(0),
    };
    let mut batch = BatchWriter::new(content).map_err(|_| AddError::TooLarge)?;
    match batch.add(|out| write_transmission(out, layout, &mut authorizer, correlation, entity, command, key))
    {
        Ok(()) => Ok(batch.finish()),
        Err(AddError::BlockFull) => Err(AddError::TooLarge),
        Err(error) => Err(error),
    }
}

impl CommandWriter<'_> {
    /// Whether nothing has been added.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.batch.count() == 0
    }

    /// Encodes a command in the block, and authorizes it there.
    ///
    /// # Errors
    /// [`AddError`]; the block is then as it was before.
    pub fn add(
        &mut self,
        correlation: &CorrelationId,
        entity: &EntityId,
        command: &Command<'_>,
        key: Option<&AuthSecret>,
    ) -> Result<(), AddError> {
        let (layout, authorizer) = (self.layout, &mut self.authorizer);
        let added = self
            .batch
            .add(|out| write_transmission(out, layout, authorizer, correlation, entity, command, key));
        match added {
            Err(AddError::BlockFull) if self.batch.count() == 0 => Err(AddError::TooLarge),
            other => other,
        }
    }
}

fn write_transmission(
    out: &mut SliceWriter<'_>,
    layout: SessionLayout<'_>,
    authorizer: &mut Authorizer<'_>,
    correlation: &CorrelationId,
    entity: &EntityId,
    command: &Command<'_>,
    key: Option<&AuthSecret>,
) -> Result<(), AddError> {
    let room = [0; 114];
    let length = key.map_or(0, AuthSecret::authorization_length);
    let placeholder = room.get(..length).and_then(Authorization::of_length).unwrap_or(Authorization::None);
    let start = out.written();
    write_head(placeholder, None, layout, correlation, entity, out)?;
    command.encode(layout.version, out)?;
    let Some(key) = key else { return Ok(()) };
    let mut signed = start + 1 + length;
    if layout.version >= Version::SERVICES {
        signed += 1;
    }
    if layout.version < Version::IMPLIED_SESSION {
        signed += 1 + layout.session.len();
    }
    authorizer.authorize(key, correlation, start + 1, signed, out)
}

/// Makes authorizations.
struct Authorizer<'s> {
    provider: &'static dyn Provider,
    /// A length byte and the session id.
    session: &'s [u8],
    relay_key: Option<X25519Public>,
    remembered: &'s mut SharedSecrets,
}

impl Authorizer<'_> {
    /// Authorizes what was written from `signed` on, and writes the authorization at `place`.
    fn authorize(
        &mut self,
        key: &AuthSecret,
        correlation: &CorrelationId,
        place: usize,
        signed: usize,
        out: &mut SliceWriter<'_>,
    ) -> Result<(), AddError> {
        let authorized: [&[u8]; 2] = [self.session, out.written_since(signed)];
        match key {
            AuthSecret::Ed25519(key) => {
                let signature = self.provider.ed25519_sign(key, &authorized);
                out.overwrite(place, &signature)?;
            }
            AuthSecret::Ed448(key) => {
                let signature = signatures::ed448_sign(key, &authorized);
                out.overwrite(place, &signature)?;
            }
            AuthSecret::X25519(key) => {
                let relay_key = self.relay_key.as_ref().ok_or(AddError::NoRelayKey)?;
                let box_key = self.remembered.agree(self.provider, key, relay_key);
                let made =
                    authenticator::create(self.provider, &box_key, correlation.as_bytes(), &authorized);
                out.overwrite(place, &made)?;
            }
        }
        Ok(())
    }
}
