//! A whole relay behind one facade: the broker, the proxy, the first-step relay and the sessions of its connections, for drivers
//! with one thread and for simulations.
//!
//! A driver with several threads holds a [`Broker`] in a lock and gives every connection its own
//! [`ServerSession`](crate::session::server::ServerSession), as `smp-runtime-std` does; this facade does the same steps one after another. It owns no socket,
//! clock, disk or thread.
//!
//! # How to drive it
//! ```text
//!   a connection with TLS facts ──▶ connect          ┐
//!   16,384 bytes of a connection ──▶ handle_block     ├─▶ poll_event    (may send: poll_block until None; closed)
//!   storage's answers            ──▶ complete         │   poll_storage  (actions for storage)
//!   next_deadline has come       ──▶ handle_timeout   ┘
//!   the connection is gone       ──▶ disconnect
//! ```
//! A relay that is a proxy, or a first-step relay, also has connections to other relays, which are its own to begin
//! ([`Server::poll_link`]):
//! ```text
//!   a dial is finished, or not   ──▶ dialled, dial_failed  ┐
//!   16,384 bytes of a link       ──▶ handle_link_block     ├─▶ poll_link    (dial, may send: poll_link_block, close)
//!   the link is gone             ──▶ link_lost             ┘
//! ```
//! What is spoken on an accepted connection is among its facts ([`TransportFacts::protocol`]): SMP, or `smp-proxy/1`. Both are
//! driven in the same way.
//! At start, before any connection, everything that is stored is handed over (`restore…`), and then [`Server::begin`] called.
//! Several inputs between two drains are fine. A block is handed in only while [`Server::wants_block`]: stopping to read
//! is the back-pressure. The first page of the crate has a complete event loop.

mod inspection;
mod links;
mod peer;
mod reception;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::{Bytes, BytesMut};

use crate::broker::record::{BlobRecord, ServiceNumber, ServiceRecord};
use crate::broker::storage::{ActionId, BlobId, Completion, Room, StorageAction, StoredQueue};
use crate::broker::{
    BlockError, Broker, BrokerConfig, ConnectionId, RestoreError, Statistics, TooManyConnections,
};
use crate::entropy::Entropy;
use crate::first_step::{DestinationLink, FirstStep, FirstStepConfig, UserId};
use crate::forwarding::{self, FirstStepId, Forwarding, ForwardingConfig, ForwardingStatistics};
use crate::proxy::{LinkId, Proxy, ProxyConfig, ProxyLink};
use crate::session::identity::SigningFailed;
use crate::session::server::{Received, RequestChunk, ServerSessionConfig};
use crate::session::{
    CloseReason, CommandVerifier, Misuse, OpenedBlock, Protocol, SessionError, TransportFacts, VerifiedChunk,
};
use crate::time::{Duration, Instant, Now};
use crate::wire::error::Blocked;
use crate::wire::version::Version;

use self::links::DestinationSession;
pub use self::links::{Link, LinkAction, failure_of};
use self::peer::{Peer, Smp, Speaks, ToFirstStep};
pub use self::reception::{Reception, Role, Roles};

/// What an operator decides about a relay.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// What all sessions have in common.
    pub session: Arc<ServerSessionConfig>,
    /// The rules of the broker.
    pub broker: BrokerConfig,
    /// After how long without any block a connection without subscriptions is closed; `None` = never. Deployed relays:
    /// 21,600 s.
    pub inactive_after: Option<Duration>,
    /// How long a client may leave a block untaken: so much time may pass between two calls of [`Server::poll_block`]
    /// when the first has given a block.
    pub write_time_limit: Duration,
    /// The rules of the relay as a proxy; it is one when [`BrokerConfig::proxied_at_once`] is not 0.
    pub proxy: ProxyConfig,
    /// The rules of the relay as a first-step relay.
    pub first_step: FirstStepConfig,
    /// The rules of the relay as a destination of first-step relays.
    pub forwarding: ForwardingConfig,
    /// Which roles of `smp-proxy/1` the relay takes on.
    pub roles: Roles,
}

impl ServerConfig {
    /// The usual rules for a relay with this session configuration.
    #[must_use]
    pub fn new(session: ServerSessionConfig) -> Self {
        Self {
            proxy: ProxyConfig::new(session.provider),
            session: Arc::new(session),
            broker: BrokerConfig::default(),
            inactive_after: Some(Duration::from_secs(21_600)),
            write_time_limit: Duration::from_secs(60),
            first_step: FirstStepConfig::default(),
            forwarding: ForwardingConfig::default(),
            roles: Roles { first_step: true, destination: true },
        }
    }
}

/// Why a connection was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// There are as many as allowed.
    TooManyConnections,
    /// The relay's signer does not work.
    Signing,
}

impl From<TooManyConnections> for ConnectError {
    fn from(_: TooManyConnections) -> Self {
        Self::TooManyConnections
    }
}

impl From<SigningFailed> for ConnectError {
    fn from(_: SigningFailed) -> Self {
        Self::Signing
    }
}

impl core::fmt::Display for ConnectError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooManyConnections => TooManyConnections.fmt(formatter),
            Self::Signing => SigningFailed.fmt(formatter),
        }
    }
}

impl core::error::Error for ConnectError {}

/// Why the relay closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerCloseReason {
    /// The client violated the protocol, or took too long for its hello.
    Session(CloseReason),
    /// Nothing happened on it for too long.
    Inactive,
    /// It does not take what it is sent.
    SlowReader,
}

impl core::fmt::Display for ServerCloseReason {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Session(reason) => reason.fmt(formatter),
            Self::Inactive => formatter.write_str("nothing happened on the connection for too long"),
            Self::SlowReader => formatter.write_str("the client does not take what it is sent"),
        }
    }
}

/// A record beside the broker's cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// Of what is held for other relays.
    FirstStep(crate::first_step::RecordError),
    /// Of what was forwarded to this relay.
    Forwarding(forwarding::RecordError),
}

impl core::fmt::Display for RecordError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::FirstStep(error) => error.fmt(formatter),
            Self::Forwarding(error) => error.fmt(formatter),
        }
    }
}

impl core::error::Error for RecordError {}

/// What a driver is told.
#[derive(Debug)]
pub enum ServerEvent {
    /// The connection has blocks to send: [`Server::poll_block`] until it gives none.
    MaySend(ConnectionId),
    /// The session is established.
    Established(ConnectionId, Version),
    /// The connection is to be closed, after this block, if there is one. It is forgotten already.
    Closed(ConnectionId, ServerCloseReason, Option<BytesMut>),
}

/// A relay. See the module's documentation.
pub struct Server {
    config: ServerConfig,
    broker: Broker,
    peers: Vec<Option<Peer>>,
    deadlines: BTreeSet<(Instant, ConnectionId)>,
    events: VecDeque<ServerEvent>,
    proxy: Proxy,
    /// Connections to destinations, by slot.
    links: Vec<Option<(LinkId, ProxyLink)>>,
    /// The destinations that are being dialled, by slot: whose certificate is wanted.
    wanted: Vec<Option<(LinkId, Vec<u8>)>>,
    first_step: FirstStep,
    /// Connections to destinations of the first-step relay.
    destinations: BTreeMap<DestinationLink, DestinationSession>,
    link_actions: VecDeque<LinkAction>,
    /// What takes commands from first-step relays, from [`Server::begin`] on.
    forwarding: Option<Destination>,
    /// What storage has handed over for it.
    records: Vec<(Bytes, Bytes)>,
}

/// The relay as a destination of first-step relays.
struct Destination {
    room: Forwarding,
    verifier: CommandVerifier,
}

impl Server {
    /// A relay without queues.
    #[must_use]
    pub fn new(config: ServerConfig, entropy: &mut (impl Entropy + ?Sized)) -> Self {
        let mut rules = config.broker.clone();
        if config.roles.destination {
            // Commands that were forwarded have a connection of their own.
            rules.limits.connections = rules.limits.connections.saturating_add(1);
        }
        let broker = Broker::new(rules, entropy);
        let proxy = Proxy::new(config.proxy.clone());
        let first_step = FirstStep::new(config.first_step.clone());
        Self {
            config,
            broker,
            peers: Vec::new(),
            deadlines: BTreeSet::new(),
            events: VecDeque::new(),
            proxy,
            links: Vec::new(),
            wanted: Vec::new(),
            first_step,
            destinations: BTreeMap::new(),
            link_actions: VecDeque::new(),
            forwarding: None,
            records: Vec::new(),
        }
    }

    /// Takes over a stored service, at start and before any queue.
    ///
    /// # Errors
    /// When storage holds what no relay has written.
    pub fn restore_service(
        &mut self,
        number: ServiceNumber,
        record: ServiceRecord,
    ) -> Result<(), RestoreError> {
        self.broker.restore_service(number, record)
    }

    /// Takes over a stored blob, at start.
    ///
    /// # Errors
    /// When storage holds what no relay has written.
    pub fn restore_blob(&mut self, id: BlobId, record: BlobRecord) -> Result<(), RestoreError> {
        self.broker.restore_blob(id, record)
    }

    /// Takes over a stored queue, at start.
    ///
    /// # Errors
    /// When storage holds what no relay has written.
    pub fn restore(&mut self, stored: StoredQueue) -> Result<(), RestoreError> {
        self.broker.restore(stored)
    }

    /// The prefixes of the records that are handed over at start ([`Self::restore_record`]), in this order.
    pub fn record_prefixes() -> impl Iterator<Item = &'static [u8]> {
        FirstStep::LOADED.iter().map(<[u8; 2]>::as_slice).chain([forwarding::PREFIX.as_slice()])
    }

    /// Takes over a record of a room beside the broker, at start: all those with a prefix of [`Self::record_prefixes`], in the order of
    /// their keys; then [`Self::begin`].
    ///
    /// # Errors
    /// When storage holds what no relay has written.
    pub fn restore_record(&mut self, key: &Bytes, value: &Bytes) -> Result<(), RecordError> {
        if key.starts_with(&forwarding::PREFIX) {
            self.records.push((key.clone(), value.clone()));
            return Ok(());
        }
        self.first_step.restore(key, value).map_err(RecordError::FirstStep)
    }

    /// Everything that was stored is handed over: what is held for other relays is sent, when it is time, and what other relays
    /// held is taken from now on. Not needed for a relay that does neither.
    ///
    /// # Errors
    /// When storage holds what no relay has written.
    pub fn begin(&mut self, now: Now, entropy: &mut (impl Entropy + ?Sized)) -> Result<(), RecordError> {
        self.first_step.begin(now);
        self.work_on_first_step();
        let records = core::mem::take(&mut self.records);
        if !self.config.roles.destination || self.forwarding.is_some() {
            return Ok(());
        }
        let Ok(connection) = self.broker.connect(now) else { return Ok(()) };
        let session = &self.config.session;
        let room = Forwarding::restore(
            self.config.forwarding,
            session.provider,
            session.identity.clone(),
            connection,
            records,
            now,
            entropy,
        );
        let room = room.map_err(RecordError::Forwarding)?;
        let verifier = CommandVerifier::new(session.provider, session.remembered_authenticators);
        self.forwarding = Some(Destination { room, verifier });
        Ok(())
    }

    /// Accepts a connection whose transport is established. The server hello is its first block.
    ///
    /// # Errors
    /// [`ConnectError`]; the driver closes the connection.
    pub fn connect(
        &mut self,
        facts: TransportFacts,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<ConnectionId, ConnectError> {
        let id = self.broker.connect(now)?;
        let speaks = match facts.protocol {
            Protocol::OldSmp | Protocol::Smp => Smp::accept(&self.config, facts, now, entropy),
            Protocol::FirstStep => {
                let roles = Roles { destination: self.forwarding.is_some(), ..self.config.roles };
                ToFirstStep::accept(&self.config.session, roles, facts, now, entropy)
            }
        };
        let speaks = match speaks {
            Ok(speaks) => speaks,
            Err(failed) => {
                self.broker.disconnect(id);
                return Err(failed.into());
            }
        };
        if self.peers.len() <= id.slot() {
            self.peers.resize_with(id.slot() + 1, || None);
        }
        let peer = Peer { id, speaks, waiting_since: Some(now.instant), deadline: None };
        if let Some(place) = self.peers.get_mut(id.slot()) {
            *place = Some(peer);
        }
        self.arm(id, now);
        self.events.push_back(ServerEvent::MaySend(id));
        Ok(id)
    }

    /// The connection is gone.
    pub fn disconnect(&mut self, id: ConnectionId) {
        if let Some(peer) = self.take_peer(id)
            && let Some(at) = peer.deadline
        {
            self.deadlines.remove(&(at, id));
        }
    }

    fn take_peer(&mut self, id: ConnectionId) -> Option<Peer> {
        self.broker.disconnect(id);
        let peer = self.peers.get_mut(id.slot())?.take_if(|peer| peer.id == id)?;
        if let Speaks::FirstStep(there) = &peer.speaks {
            match (there.reception.role(), &mut self.forwarding) {
                (Some(Role::Client), _) => {
                    self.first_step.detach(UserId::from(id));
                    self.work_on_first_step();
                }
                (Some(Role::Relay), Some(destination)) => {
                    destination.room.detach(FirstStepId::from(id));
                    self.announce_forwarded();
                }
                _ => {}
            }
        }
        Some(peer)
    }

    fn peer(&mut self, id: ConnectionId) -> Option<&mut Peer> {
        self.peers.get_mut(id.slot())?.as_mut().filter(|peer| peer.id == id)
    }

    /// Whether the connection may be read from. While it may not, its answers must be taken first.
    #[must_use]
    pub fn wants_block(&self, id: ConnectionId) -> bool {
        let peer = self.peers.get(id.slot()).and_then(Option::as_ref).filter(|peer| peer.id == id);
        match peer.map(|peer| &peer.speaks) {
            None => false,
            Some(Speaks::Smp(smp)) => smp.outgoing.is_empty() && self.broker.has_room(id),
            Some(Speaks::FirstStep(there)) => {
                let room_has_room = match (there.reception.role(), &self.forwarding) {
                    (Some(Role::Client), _) => self.first_step.has_room(UserId::from(id)),
                    (Some(Role::Relay), Some(destination)) => {
                        destination.room.has_room(FirstStepId::from(id))
                    }
                    _ => true,
                };
                there.reception.has_room() && room_has_room
            }
        }
    }

    /// Takes a block of a connection; blocks of connections that are closed are dropped.
    ///
    /// # Errors
    /// [`Misuse`] when it is not 16,384 bytes.
    pub fn handle_block(
        &mut self,
        id: ConnectionId,
        block: BytesMut,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), Misuse> {
        let Some(peer) = self.peer(id) else { return Ok(()) };
        let smp = match &mut peer.speaks {
            Speaks::Smp(smp) => smp,
            Speaks::FirstStep(_) => return self.handle_first_step_block(id, block, now, entropy),
        };
        match smp.session.receive(block, now) {
            Ok(Received::Established(version)) => {
                self.events.push_back(ServerEvent::Established(id, version));
                self.arm(id, now);
            }
            Ok(Received::Service(claim)) => {
                self.broker.identify_service(id, &claim, now, entropy);
                self.arm(id, now);
            }
            Ok(Received::Commands(block)) => {
                self.handle_commands(id, &block, now, entropy);
                self.work_on_proxy(now);
            }
            Err(SessionError::Close(reason)) => self.close(id, ServerCloseReason::Session(reason)),
            Err(SessionError::Misuse(misuse)) => return Err(misuse),
        }
        Ok(())
    }

    fn handle_commands(
        &mut self,
        id: ConnectionId,
        block: &OpenedBlock,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        let Some(peer) = self.peers.get_mut(id.slot()).and_then(Option::as_mut) else { return };
        let Speaks::Smp(smp) = &mut peer.speaks else { return };
        let mut requests = smp.session.parse(block);
        // Chunk by chunk: what one chunk changes (a queue is secured), the next one sees.
        let (mut chunk, mut verified) = (RequestChunk::new(), VerifiedChunk::new());
        while requests.next_chunk_into(&mut chunk) {
            for request in &mut chunk {
                self.broker.look_up(request);
            }
            smp.session.verify_into(&mut chunk, entropy, &mut verified);
            for verified in verified.drain(..) {
                match verified.into_forwarded() {
                    Err(verified) => self.broker.execute(id, verified, block, now, entropy),
                    Ok(forwarded) => {
                        let mut request = smp.session.forwarded_request(&forwarded);
                        self.broker.look_up(&mut request);
                        if let Some(verified) = smp.session.verify_forwarded(request, &forwarded, entropy) {
                            self.broker.execute(id, verified, forwarded.block(), now, entropy);
                        }
                    }
                }
            }
        }
    }

    /// The next block to send on a connection. The driver asks for it when it can send it, and again when it has sent it,
    /// until there is none: what the client does not take in time closes the connection.
    pub fn poll_block(&mut self, id: ConnectionId, now: Now) -> Option<BytesMut> {
        let peer = self.peers.get_mut(id.slot())?.as_mut().filter(|peer| peer.id == id)?;
        let block = match &mut peer.speaks {
            Speaks::FirstStep(there) => {
                there.poll_block(id, &mut self.first_step, self.forwarding.as_mut(), now)
            }
            Speaks::Smp(smp) => {
                if smp.outgoing.is_empty() {
                    // An idle connection keeps no memory for what it once had to say.
                    smp.outgoing = VecDeque::new();
                    self.broker.take_outgoing(id, &mut smp.outgoing);
                }
                match smp.session.take_handshake_block() {
                    Some(block) => Some(block),
                    None => {
                        let was_identifying = smp.session.is_identifying();
                        let block = smp.session.pack(&mut smp.outgoing, now);
                        if was_identifying {
                            if let Some(version) = smp.session.version() {
                                self.events.push_back(ServerEvent::Established(id, version));
                            } else if let Some(reason) = smp.session.close_reason() {
                                self.close(id, ServerCloseReason::Session(reason));
                                return block;
                            }
                        }
                        block
                    }
                }
            }
        };
        let peer = self.peers.get_mut(id.slot())?.as_mut()?;
        // Whoever asks again has sent the block before. While nobody asks, the client does not take it.
        let was_waiting = peer.waiting_since.is_some();
        peer.waiting_since = block.as_ref().map(|_| now.instant);
        if block.is_some() && !was_waiting {
            self.arm(id, now);
        }
        block
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let ready = self.broker.poll_ready()?;
            match &mut self.forwarding {
                Some(destination) if destination.room.broker_connection() == ready => {
                    destination.room.collect(&mut self.broker);
                    self.announce_forwarded();
                }
                _ => return Some(ServerEvent::MaySend(ready)),
            }
        }
    }

    /// The next action for storage.
    pub fn poll_storage(&mut self) -> Option<(ActionId, StorageAction)> {
        let action = self.broker.poll_storage().or_else(|| self.first_step.poll_storage());
        action.or_else(|| self.forwarding.as_mut()?.room.poll_storage())
    }

    /// Takes storage's answer to an action.
    pub fn complete(&mut self, completion: Completion, now: Now, entropy: &mut (impl Entropy + ?Sized)) {
        match completion.action().room() {
            Some(Room::Broker) => self.broker.complete(completion, now),
            Some(Room::FirstStep) => {
                self.first_step.complete(completion, now);
                self.work_on_first_step();
            }
            Some(Room::Forwarding) => {
                if let Some(destination) = &mut self.forwarding {
                    destination.room.complete(completion, now);
                }
                self.work_on_forwarded(now, entropy);
            }
            None => {}
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let connections = self.deadlines.first().map(|(at, _)| *at);
        [
            self.broker.next_deadline(),
            self.proxy.next_deadline(),
            self.first_step.next_deadline(),
            self.forwarding.as_ref().and_then(|destination| destination.room.next_deadline()),
            connections,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now, entropy: &mut (impl Entropy + ?Sized)) {
        self.broker.handle_timeout(now);
        self.proxy.handle_timeout(now);
        self.work_on_proxy(now);
        self.first_step.handle_timeout(now, entropy);
        self.work_on_first_step();
        if let Some(destination) = &mut self.forwarding {
            destination.room.handle_timeout(now, entropy);
        }
        self.work_on_forwarded(now, entropy);
        while let Some((due, id)) = self.deadlines.first().copied()
            && due <= now.instant
        {
            self.deadlines.remove(&(due, id));
            let may_be_silent = self.may_be_silent(id);
            let inactive_after = self.config.inactive_after;
            let write_time_limit = self.config.write_time_limit;
            let Some(peer) = self.peer(id) else { continue };
            peer.deadline = None;
            let reason = if let Err(reason) = peer.speaks.handle_timeout(now) {
                Some(ServerCloseReason::Session(reason))
            } else if peer.waiting_since.is_some_and(|since| since + write_time_limit <= now.instant) {
                Some(ServerCloseReason::SlowReader)
            } else if !may_be_silent
                && inactive_after.is_some_and(|after| peer.speaks.last_activity() + after <= now.instant)
            {
                Some(ServerCloseReason::Inactive)
            } else {
                None
            };
            match reason {
                Some(reason) => self.close(id, reason),
                None => self.arm(id, now),
            }
        }
    }

    /// Whether the client waits for what may come: messages, or answers to what is held for it.
    fn may_be_silent(&self, id: ConnectionId) -> bool {
        self.broker.subscriptions(id) > 0 || self.first_step.awaits(UserId::from(id))
    }

    /// Enters when the connection is to be looked at next, unless an earlier time is entered.
    fn arm(&mut self, id: ConnectionId, now: Now) {
        let may_be_silent = self.may_be_silent(id);
        let (inactive_after, write_time_limit) = (self.config.inactive_after, self.config.write_time_limit);
        let Some(peer) = self.peer(id) else { return };
        let handshake = peer.speaks.next_deadline();
        let slow = peer.waiting_since.map(|since| since + write_time_limit);
        let inactive = inactive_after.map(|after| {
            let from = if may_be_silent { now.instant } else { peer.speaks.last_activity() };
            from + after
        });
        let Some(at) = [handshake, slow, inactive].into_iter().flatten().min() else { return };
        if peer.deadline.is_some_and(|present| present <= at) {
            return;
        }
        let before = peer.deadline.replace(at);
        if let Some(before) = before {
            self.deadlines.remove(&(before, id));
        }
        self.deadlines.insert((at, id));
    }

    fn close(&mut self, id: ConnectionId, reason: ServerCloseReason) {
        let Some(mut peer) = self.take_peer(id) else { return };
        if let Some(at) = peer.deadline {
            self.deadlines.remove(&(at, id));
        }
        let last = peer.speaks.take_handshake_block();
        self.events.push_back(ServerEvent::Closed(id, reason, last));
    }

    /// Blocks the queue that has this id, as recipient, sender, notifier or link id; its subscriber is told when that is
    /// durable.
    ///
    /// # Errors
    /// [`BlockError`].
    pub fn block(&mut self, id: &[u8; 24], blocked: Blocked) -> Result<(), BlockError> {
        self.broker.block(id, blocked)
    }

    /// Unblocks a queue.
    ///
    /// # Errors
    /// [`BlockError`].
    pub fn unblock(&mut self, id: &[u8; 24]) -> Result<(), BlockError> {
        self.broker.unblock(id)
    }

    /// The broker, to look at.
    #[must_use]
    pub const fn broker(&self) -> &Broker {
        &self.broker
    }

    /// The first-step relay, to look at.
    #[must_use]
    pub const fn first_step(&self) -> &FirstStep {
        &self.first_step
    }

    /// Figures for operators.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let mut statistics = self.broker.statistics();
        if self.forwarding.is_some() {
            // One is that of commands that were forwarded.
            statistics.connections = statistics.connections.saturating_sub(1);
        }
        statistics
    }

    /// Figures of what first-step relays forward to this relay.
    #[must_use]
    pub fn forwarding_statistics(&self) -> ForwardingStatistics {
        self.forwarding.as_ref().map(|destination| destination.room.statistics()).unwrap_or_default()
    }
}

impl core::fmt::Debug for Server {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.debug_struct("Server").field("broker", &self.broker).finish_non_exhaustive()
    }
}
