//! A client's machine with its TLS, without sockets: what the clients of both runtimes share.
//!
//! Owns: [`Client`], the TLS connection if there is one, clocks and randomness. A runtime connects when
//! [`ClientDriver::take_dial`] says so, moves bytes ([`ClientDriver::read_from`], [`ClientDriver::write_to`]), calls
//! [`ClientDriver::work`] after each, and waits for the socket or for [`ClientDriver::deadline`]. It never blocks, and
//! decides nothing that the machine does not decide.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant as SystemInstant};

use bytes::BytesMut;
use smp_proto::client::{
    Action, Client, ClientCommand, ClientConfig, ClosedBecause, CommandId, Event, Reply,
};
use smp_proto::entropy::SeededEntropy;
use smp_proto::session::client::ClientSessionConfig;
use smp_proto::time::Instant;
use smp_proto::wire::address::ServerAddress;
use smp_proto::wire::version::{Version, VersionRange};
use zeroize::Zeroize;

use super::error::{ClientError, ClientEvent};
use crate::dialing::{fingerprint, transport_facts};
use crate::fast_cryptography::FAST;
use crate::relay::clock::Clock;
use crate::tls::{BLOCK, ClientTls, ClientTlsOptions, TlsSession};

/// Encrypted bytes that are prepared before the socket has taken any: two blocks.
const WRITE_AHEAD: usize = 2 * BLOCK;

/// How a client behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientOptions {
    /// How long connecting may take, and each command. Default: 20 s.
    pub timeout: Duration,
    /// The versions to speak. Default: 6 to 18.
    pub versions: VersionRange,
    /// Whether a connection that was lost is made again. Default: yes.
    pub reconnect: bool,
    /// After how much silence of the relay it is asked whether it is still there. Default: 10 minutes.
    pub ping_interval: Duration,
    /// The wait before a connection that was lost is made again; it grows with each attempt. Default: 2 s.
    pub first_delay: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(20),
            versions: ClientSessionConfig::SPOKEN,
            reconnect: true,
            ping_interval: Duration::from_secs(600),
            first_delay: Duration::from_secs(2),
        }
    }
}

impl ClientOptions {
    /// The defaults, with this limit of time.
    #[must_use]
    pub fn with_timeout(timeout: Duration) -> Self {
        Self { timeout, ..Self::default() }
    }
}

/// What a driver tells its runtime.
#[derive(Debug)]
pub enum Told {
    /// A command has its result.
    Answer(CommandId, Result<Reply, ClientError>),
    /// A connection is ready for commands.
    Established(Version),
    /// A connection is over, or could not be made.
    Closed(ClientError),
    /// What happened without being asked for.
    Event(ClientEvent),
}

enum Link {
    /// No connection.
    Absent,
    /// The machine wants one.
    Wanted,
    /// The runtime is making one.
    Dialling,
    /// The TLS handshake, until a deadline.
    Handshaking { tls: Box<TlsSession>, until: Instant },
    /// Blocks.
    Open(Box<TlsSession>),
}

/// One relationship with one relay. See the module for the loop.
pub struct ClientDriver {
    machine: Client,
    configuration: ClientTls,
    link: Link,
    clock: Clock,
    entropy: SeededEntropy,
    timeout: Duration,
    events: VecDeque<Event>,
    why: Option<ClientError>,
    block: Box<[u8; BLOCK]>,
}

impl ClientDriver {
    /// A client for the relay of this address. Nothing is done yet.
    ///
    /// # Errors
    /// [`ClientError::Dial`] when nobody can have the address's fingerprint, [`ClientError::System`] without randomness.
    pub fn new(address: &ServerAddress, options: &ClientOptions) -> Result<Self, ClientError> {
        let expected = fingerprint(address)?;
        let entropy = fresh_entropy()?;
        let mut session = ClientSessionConfig::new(expected.0.to_vec(), &FAST);
        session.versions = options.versions;
        session.handshake_time_limit = options.timeout;
        let mut config = ClientConfig::new(session);
        config.command_timeout = options.timeout;
        config.ping_interval = options.ping_interval;
        config.first_delay = options.first_delay;
        config.longest_delay = config.longest_delay.max(options.first_delay);
        Ok(Self {
            machine: Client::new(config),
            configuration: ClientTls::with_options(expected, &ClientTlsOptions::default())?,
            link: Link::Absent,
            clock: Clock::start(),
            entropy,
            timeout: options.timeout,
            events: VecDeque::new(),
            why: None,
            block: Box::new([0; BLOCK]),
        })
    }

    /// Wants a connection, if there is none.
    pub fn connect(&mut self) {
        self.machine.connect();
        self.drain();
    }

    /// Takes a command. Its result comes as [`Event::Response`].
    ///
    /// # Errors
    /// [`ClientError::TooMany`].
    pub fn submit(&mut self, command: ClientCommand) -> Result<CommandId, ClientError> {
        let id = self.machine.submit(command, self.clock.now()).map_err(|_| ClientError::TooMany)?;
        self.drain();
        Ok(id)
    }

    /// Gives up: the connection is closed, all commands fail, subscriptions are forgotten.
    pub fn stop(&mut self) {
        self.machine.stop();
        self.drain();
    }

    /// Whether a connection is to be made now; then [`Self::dialled`] must be called, and answers `false` until it was.
    #[must_use]
    pub fn take_dial(&mut self) -> bool {
        let wanted = matches!(self.link, Link::Wanted);
        if wanted {
            self.link = Link::Dialling;
        }
        wanted
    }

    /// What became of making a connection. When it was given up in the meantime, [`Self::is_connected`] is false after
    /// this, and the socket is to be closed.
    pub fn dialled(&mut self, result: Result<(), ClientError>) {
        if !matches!(self.link, Link::Dialling) {
            return;
        }
        match result.and_then(|()| Ok(TlsSession::client(&self.configuration)?)) {
            Ok(tls) => {
                let until = self.clock.instant() + self.timeout;
                self.link = Link::Handshaking { tls: Box::new(tls), until };
            }
            Err(error) => self.lose(error),
        }
        self.drain();
    }

    /// Whether there is a socket to be read, written and kept.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        matches!(self.link, Link::Handshaking { .. } | Link::Open(_))
    }

    /// The version of the established session.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.machine.version()
    }

    fn tls(&self) -> Option<&TlsSession> {
        match &self.link {
            Link::Handshaking { tls, .. } | Link::Open(tls) => Some(tls),
            _ => None,
        }
    }

    fn tls_mut(&mut self) -> Option<&mut TlsSession> {
        match &mut self.link {
            Link::Handshaking { tls, .. } | Link::Open(tls) => Some(tls),
            _ => None,
        }
    }

    /// Whether bytes from the network are welcome.
    #[must_use]
    pub fn wants_read(&self) -> bool {
        self.tls().is_some_and(TlsSession::wants_read)
    }

    /// Whether there are bytes for the network.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        self.tls().is_some_and(TlsSession::wants_write)
    }

    /// Reads from the network once. The end of the stream, and errors, are the end of this connection.
    ///
    /// # Errors
    /// [`std::io::ErrorKind::WouldBlock`] only.
    pub fn read_from(&mut self, source: &mut impl Read) -> std::io::Result<()> {
        let Some(tls) = self.tls_mut() else { return Ok(()) };
        match tls.read_tls(source) {
            Ok(0) => {
                let why = match tls.end_of_stream() {
                    Ok(()) => ClientError::Closed(ClosedBecause::ConnectionLost),
                    Err(error) => error.into(),
                };
                self.lose(why);
                self.drain();
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) => self.io_error(error),
        }
    }

    /// Writes to the network once. Errors are the end of this connection.
    ///
    /// # Errors
    /// [`std::io::ErrorKind::WouldBlock`] only.
    pub fn write_to(&mut self, sink: &mut impl Write) -> std::io::Result<()> {
        let Some(tls) = self.tls_mut() else { return Ok(()) };
        match tls.write_tls(sink) {
            Ok(0) if tls.wants_write() => self.io_error(std::io::ErrorKind::WriteZero.into()),
            Ok(_) => Ok(()),
            Err(error) => self.io_error(error),
        }
    }

    fn io_error(&mut self, error: std::io::Error) -> std::io::Result<()> {
        match error.kind() {
            std::io::ErrorKind::WouldBlock => Err(error),
            std::io::ErrorKind::Interrupted => Ok(()),
            _ => {
                self.lose(ClientError::Lost(Arc::new(error)));
                self.drain();
                Ok(())
            }
        }
    }

    /// The connection is over.
    fn lose(&mut self, why: ClientError) {
        self.why = Some(why);
        self.link = Link::Absent;
        self.machine.disconnected(self.clock.now(), &mut self.entropy);
    }

    /// Does everything that can be done with what was received.
    pub fn work(&mut self) {
        if let Err(error) = self.work_on_tls().and_then(|()| self.work_on_blocks()) {
            self.lose(error);
        }
        self.drain();
    }

    fn work_on_tls(&mut self) -> Result<(), ClientError> {
        let Link::Handshaking { tls, .. } = &mut self.link else { return Ok(()) };
        tls.process()?;
        let Some(facts) = tls.take_facts() else { return Ok(()) };
        let facts = transport_facts(facts).ok_or(ClientError::Unexpected)?;
        // The machine waits for this connection: it has asked for it.
        self.machine
            .connected(facts, self.clock.now(), &mut self.entropy)
            .map_err(|_| ClientError::Closed(ClosedBecause::Stopped))?;
        if let Link::Handshaking { tls, .. } = std::mem::replace(&mut self.link, Link::Absent) {
            self.link = Link::Open(tls);
        }
        Ok(())
    }

    fn work_on_blocks(&mut self) -> Result<(), ClientError> {
        while let Link::Open(tls) = &mut self.link {
            let Some(block) = tls.read_block(|block| BytesMut::from(block.as_slice()))? else { break };
            // Events are taken out after each block, so that there is always room for those of the next.
            self.machine
                .receive(block, self.clock.now(), &mut self.entropy)
                .map_err(|_| ClientError::Closed(ClosedBecause::ConnectionLost))?;
            self.drain();
        }
        Ok(())
    }

    /// Carries out what the machine wants, and fetches what it says.
    fn drain(&mut self) {
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Dial => self.link = Link::Wanted,
                Action::Close => self.link = Link::Absent,
            }
        }
        self.events.extend(std::iter::from_fn(|| self.machine.poll_event()));
        while let Link::Open(tls) = &mut self.link
            && tls.outgoing().len() < WRITE_AHEAD
            && self.machine.poll_block_into(&mut self.block, self.clock.now(), &mut self.entropy)
        {
            if let Err(error) = tls.write_plaintext(self.block.as_slice()) {
                self.lose(error.into());
            }
        }
        // Filling blocks can say that a command is impossible.
        self.events.extend(std::iter::from_fn(|| self.machine.poll_event()));
    }

    /// What the driver has to tell next.
    pub fn next_told(&mut self) -> Option<Told> {
        let event = match self.events.pop_front()? {
            Event::Response { command, result } => {
                return Some(Told::Answer(command, result.map_err(ClientError::from)));
            }
            Event::Established { version } => return Some(Told::Established(version)),
            // What ended the connection here is known better than the machine can know it.
            Event::Closed { because, .. } => {
                return Some(Told::Closed(self.why.take().unwrap_or(ClientError::Closed(because))));
            }
            Event::Message { queue, id, body } => ClientEvent::Message { queue, id, body },
            Event::Notification { notifier, nonce, metadata } => {
                ClientEvent::Notification { notifier, nonce, metadata }
            }
            Event::Ended { queue } => ClientEvent::Ended { queue },
            Event::Deleted { queue } => ClientEvent::Deleted { queue },
            Event::SubscriptionFailed { queue, failure } => {
                ClientEvent::SubscriptionFailed { queue, error: failure.into() }
            }
            Event::QueueError { queue, error } => ClientEvent::QueueError { queue, error },
            Event::Unexpected => ClientEvent::Unexpected,
        };
        Some(Told::Event(event))
    }

    /// When to call [`Self::handle_timeout`] at the latest, by the system's clock.
    #[must_use]
    pub fn deadline(&self) -> Option<SystemInstant> {
        let own = match &self.link {
            Link::Handshaking { until, .. } => Some(*until),
            _ => None,
        };
        let machine = self.machine.next_deadline();
        let earliest = match (own, machine) {
            (Some(own), Some(machine)) => Some(own.min(machine)),
            (one, other) => one.or(other),
        };
        earliest.and_then(|instant| self.clock.system(instant))
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self) {
        let now = self.clock.now();
        if let Link::Handshaking { until, .. } = &self.link
            && *until <= now.instant
        {
            self.lose(ClientError::Lost(Arc::new(std::io::ErrorKind::TimedOut.into())));
        }
        self.machine.handle_timeout(now, &mut self.entropy);
        self.drain();
    }
}

/// Randomness seeded by the operating system, for the keys of queues.
///
/// # Errors
/// [`ClientError::System`] when it has none.
pub fn fresh_entropy() -> Result<SeededEntropy, ClientError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| ClientError::system(std::io::Error::other(error.to_string())))?;
    let entropy = SeededEntropy::new(seed);
    seed.zeroize();
    Ok(entropy)
}

impl std::fmt::Debug for ClientDriver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ClientDriver").field("version", &self.version()).finish_non_exhaustive()
    }
}
