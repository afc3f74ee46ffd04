//! One connection of `smp-proxy/1`, either side: handshake, then blocks with one content each (EXTENSIONS, First-step relay).
//!
//! Inputs: [`FirstStepSession::receive`] (blocks), [`FirstStepSession::handle_timeout`]. Outputs:
//! [`FirstStepSession::take_handshake_block`], [`OpenedBlock`]s, and the blocks that [`FirstStepSession::seal`] fills. It owns the
//! keys of the connection. What the contents say is not its business: a relay gives them to
//! [`first_step`](crate::first_step), to its forwarding room, or to the client's.
//!
//! The handshake is that of SMP, with versions of its own (there is only 1) and the fields that
//! [`HelloLayout::FirstStep`] has; the same checks, the same time limit, and the same silence when one fails. From then on
//! every block is encrypted, with keys that change with each: a block that was changed, repeated or lost ends the
//! connection.
//!
//! ```text
//!   accept ──▶ its hello is to be sent ──▶ AwaitingHello ─┬─ client's hello ─▶ Established ──▶ …
//!   dial ────────────────────────────────▶ AwaitingHello ─┴─ relay's hello ──▶ Established: our hello is to be sent first
//!                                               │ time limit, bad hello             │ unreadable block
//!                                               └──────────────▶ Ended ◀────────────┘
//! ```

use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::BytesMut;
use sha2::{Digest, Sha256};

use super::blocks::{BlockProtection, End, OpenedBlock, handshake_block};
use super::close::{CloseReason, Misuse, SessionError};
use super::facts::{SessionId, TransportFacts};
use super::handshake;
use super::identity::SigningFailed;
use super::server::ServerSessionConfig;
use crate::crypto::chain_keys::{CONTENT_OFFSET, MAX_ENCRYPTED_CONTENT};
use crate::crypto::{Provider, SharedSecret};
use crate::entropy::Entropy;
use crate::keys::X25519Secret;
use crate::time::{Duration, Instant, Now};
use crate::wire::block::BLOCK_LENGTH;
use crate::wire::first_step::VERSION;
use crate::wire::hello::{ClientHello, HelloLayout};
use crate::wire::primitives::SliceWriter;
use crate::wire::version::{Version, VersionRange};

/// The versions of `smp-proxy/1` that are spoken: only 1.
const VERSIONS: VersionRange = VersionRange::only(Version(VERSION));

/// What whoever dials wants of a connection.
#[derive(Clone)]
pub struct FirstStepDial {
    /// The fingerprint in the relay's address: 32 bytes, or nobody has it.
    pub fingerprint: Vec<u8>,
    /// The primitives.
    pub provider: &'static dyn Provider,
    /// How long the relay may take for its hello.
    pub handshake_time_limit: Duration,
}

impl FirstStepDial {
    /// The usual rules for the relay with this fingerprint.
    #[must_use]
    pub const fn new(fingerprint: Vec<u8>, provider: &'static dyn Provider) -> Self {
        Self { fingerprint, provider, handshake_time_limit: Duration::from_secs(30) }
    }
}

impl core::fmt::Debug for FirstStepDial {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter
            .debug_struct("FirstStepDial")
            .field("handshake_time_limit", &self.handshake_time_limit)
            .finish_non_exhaustive()
    }
}

/// One side of a connection of `smp-proxy/1`. See the module's documentation.
pub struct FirstStepSession {
    provider: &'static dyn Provider,
    session_id: SessionId,
    state: State,
    handshake_output: Option<BytesMut>,
    last_activity: Instant,
}

enum State {
    /// The other side's hello is not there yet.
    AwaitingHello {
        deadline: Instant,
        secret: X25519Secret,
        side: Side,
    },
    Established(BlockProtection),
    Ended(CloseReason),
}

/// What a side checks the other's hello with.
enum Side {
    Accepting(Arc<ServerSessionConfig>),
    Dialling { fingerprint: Vec<u8>, facts: TransportFacts },
}

/// What became of a received block.
#[derive(Debug)]
pub enum Received {
    /// It was the other side's hello: the session is established. Whoever dialled has a hello of its own to send now.
    Established,
    /// It has a content: one [`Transmission`](crate::wire::first_step::Transmission), or what somebody sent instead.
    Content(OpenedBlock),
}

impl FirstStepSession {
    /// A relay's side of a new connection. Its hello is the first
    /// [`take_handshake_block`](Self::take_handshake_block). Costs one key pair and one signature.
    ///
    /// # Errors
    /// [`SigningFailed`] when the relay's signer does not work: the connection cannot be served.
    pub fn accept(
        config: &Arc<ServerSessionConfig>,
        facts: TransportFacts,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<Self, SigningFailed> {
        let secret = X25519Secret::generate(entropy);
        let session_id = facts.session_id;
        let handshake_output =
            handshake::relay_hello(HelloLayout::FirstStep, VERSIONS, config, &session_id, &secret)?;
        // `ServerIdentity::new` has made sure that every hello fits.
        debug_assert!(handshake_output.is_some());
        Ok(Self {
            provider: config.provider,
            session_id,
            state: State::AwaitingHello {
                deadline: now.instant + config.handshake_time_limit,
                secret,
                side: Side::Accepting(Arc::clone(config)),
            },
            handshake_output,
            last_activity: now.instant,
        })
    }

    /// The dialling side of a new connection: nothing is said before the relay's hello has come, and has passed every check.
    #[must_use]
    pub fn dial(
        config: &FirstStepDial,
        facts: TransportFacts,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Self {
        Self {
            provider: config.provider,
            session_id: facts.session_id.clone(),
            state: State::AwaitingHello {
                deadline: now.instant + config.handshake_time_limit,
                secret: X25519Secret::generate(entropy),
                side: Side::Dialling { fingerprint: config.fingerprint.clone(), facts },
            },
            handshake_output: None,
            last_activity: now.instant,
        }
    }

    /// This side's hello: to be sent before anything else.
    #[must_use]
    pub const fn take_handshake_block(&mut self) -> Option<BytesMut> {
        self.handshake_output.take()
    }

    /// Takes a block of 16,384 bytes, decrypting it in place.
    ///
    /// # Errors
    /// [`SessionError::Close`] when the session has ended: the connection is closed, and nothing is said.
    /// [`SessionError::Misuse`] when the driver is wrong.
    pub fn receive(&mut self, block: BytesMut, now: Now) -> Result<Received, SessionError> {
        if block.len() != BLOCK_LENGTH {
            return Err(Misuse::BlockLength(block.len()).into());
        }
        self.last_activity = self.last_activity.max(now.instant);
        let received = match &mut self.state {
            State::AwaitingHello { deadline, .. } if *deadline <= now.instant => {
                Err(CloseReason::HandshakeTimeout.into())
            }
            State::AwaitingHello { .. } => self.receive_hello(&block).map_err(SessionError::Close),
            State::Established(protection) => protection.open(self.provider, block).map(Received::Content),
            State::Ended(_) => return Err(Misuse::Ended.into()),
        };
        if let Err(SessionError::Close(reason)) = received {
            self.end(reason);
        }
        received
    }

    fn receive_hello(&mut self, block: &[u8]) -> Result<Received, CloseReason> {
        let State::AwaitingHello { secret, side, .. } = &self.state else {
            return Err(CloseReason::HelloUnreadable);
        };
        let (key, end, reply) = match side {
            Side::Accepting(config) => {
                let layout = HelloLayout::FirstStep;
                let hello = handshake::client_hello(layout, block, &config.identity, VERSIONS)?;
                (hello.key, End::Relay, None)
            }
            Side::Dialling { fingerprint, facts } => {
                let hello = handshake::relay_hello_of(HelloLayout::FirstStep, block)?;
                handshake::check_session(&hello, facts)?;
                let checked = handshake::check_relay(self.provider, &hello, facts, fingerprint, VERSIONS)?;
                let own = ClientHello {
                    version: checked.version,
                    fingerprint,
                    key: Some(self.provider.x25519_public(secret)),
                    proxy: false,
                    service: None,
                };
                let written = handshake_block(|out| own.encode_in(HelloLayout::FirstStep, out));
                // Only a fingerprint of more than 255 bytes would not fit, and no certificate has such a one.
                let reply = written.ok_or(CloseReason::WrongRelayFound)?;
                (checked.relay_key, End::Client, Some(reply))
            }
        };
        // Nothing goes over such a connection that is not encrypted.
        let key = key.ok_or(CloseReason::HelloUnreadable)?;
        let agreed = SharedSecret::agree(self.provider, secret, &key);
        let protection = BlockProtection::encrypted(self.provider, &self.session_id, &agreed, end);
        if reply.is_some() {
            self.handshake_output = reply;
        }
        self.state = State::Established(protection);
        Ok(Received::Established)
    }

    /// Fills a block with the content that `fill` writes, and completes it. False, and nothing to send, when `fill` says so: it
    /// has nothing to say.
    ///
    /// What `fill` writes fits, for whatever it cannot write it can say nothing of: 16,366 bytes.
    ///
    /// # Errors
    /// [`Misuse`] when the session is not established, or its own hello was not taken yet.
    pub fn seal(
        &mut self,
        block: &mut [u8; BLOCK_LENGTH],
        now: Now,
        fill: impl FnOnce(&mut SliceWriter<'_>) -> bool,
    ) -> Result<bool, Misuse> {
        let protection = match &mut self.state {
            // Contents must not overtake the hello.
            State::Established(_) if self.handshake_output.is_some() => return Err(Misuse::NotEstablished),
            State::Established(protection) => protection,
            State::AwaitingHello { .. } => return Err(Misuse::NotEstablished),
            State::Ended(_) => return Err(Misuse::Ended),
        };
        let content = block.get_mut(CONTENT_OFFSET..).and_then(|rest| rest.get_mut(..MAX_ENCRYPTED_CONTENT));
        let mut out = SliceWriter::new(content.unwrap_or_default());
        if !fill(&mut out) {
            return Ok(false);
        }
        let length = out.written();
        protection.seal(self.provider, block, length);
        self.last_activity = self.last_activity.max(now.instant);
        Ok(true)
    }

    /// Ends a session whose handshake takes too long.
    ///
    /// # Errors
    /// The reason, once; the connection is then closed.
    pub fn handle_timeout(&mut self, now: Now) -> Result<(), CloseReason> {
        match self.state {
            State::AwaitingHello { deadline, .. } if deadline <= now.instant => {
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
            State::AwaitingHello { deadline, .. } => Some(deadline),
            _ => None,
        }
    }

    /// When a block was received or sealed last.
    #[must_use]
    pub const fn last_activity(&self) -> Instant {
        self.last_activity
    }

    /// Whether contents may be sealed: both hellos are said.
    #[must_use]
    pub const fn is_established(&self) -> bool {
        matches!(self.state, State::Established(_)) && self.handshake_output.is_none()
    }

    /// The primitives.
    #[must_use]
    pub const fn provider(&self) -> &'static dyn Provider {
        self.provider
    }

    /// Why the session ended, if it has.
    #[must_use]
    pub const fn close_reason(&self) -> Option<CloseReason> {
        match self.state {
            State::Ended(reason) => Some(reason),
            _ => None,
        }
    }

    /// A digest of everything that decides what this session does next: equal after equal inputs.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(self.session_id.prefixed());
        digest.update(self.last_activity.as_micros().to_be_bytes());
        digest.update([u8::from(self.handshake_output.is_some())]);
        match &self.state {
            State::AwaitingHello { deadline, secret, side } => {
                digest.update([0, u8::from(matches!(side, Side::Accepting(_)))]);
                digest.update(deadline.as_micros().to_be_bytes());
                digest.update(Sha256::digest(secret.as_bytes()));
            }
            State::Established(protection) => {
                digest.update([1]);
                protection.digest_into(&mut digest);
            }
            State::Ended(_) => digest.update([2]),
        }
        digest.finalize().into()
    }

    fn end(&mut self, reason: CloseReason) {
        self.state = State::Ended(reason);
        self.handshake_output = None;
    }
}

impl core::fmt::Debug for FirstStepSession {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let state = match &self.state {
            State::AwaitingHello { .. } => "awaiting hello",
            State::Established(_) => "established",
            State::Ended(_) => "ended",
        };
        formatter.debug_struct("FirstStepSession").field("state", &state).finish_non_exhaustive()
    }
}
