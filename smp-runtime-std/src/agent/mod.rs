//! Runs an agent (`smp_proto::agent`) in one thread: sockets to all its relays, its database, clocks and randomness.
//!
//! Owns: [`AgentRuntime`], the loop; [`database`], where records are kept under a passphrase. It decides nothing about
//! connections between people, and shows nothing: the application gives commands with [`AgentRuntime::command`], waits
//! with [`AgentRuntime::turn`], and takes what happened with [`AgentRuntime::next`].
//!
//! Records are written in this thread, one transaction after the other: an agent of one person writes some per message,
//! and nothing may leave before they are on disk anyhow. What the application wants to keep with them
//! ([`AgentRuntime::keep`]) goes into the same transaction as the next batch of the agent's, or into one of its own at the
//! end of the turn: what was kept and what the agent did are never apart after a crash, when keep comes before or in the
//! same breath as the command.
//!
//! ```no_run
//! use std::time::Instant;
//! use smp_proto::agent::Event;
//! use smp_runtime_std::agent::{AgentOptions, AgentRuntime, Told, database::LockedDatabase};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let database = LockedDatabase::open("agent.redb".as_ref())?.unlock(b"a passphrase")?;
//! let (mut runtime, _what_the_application_kept) = AgentRuntime::open(database, AgentOptions::default())?;
//! let relay: smp_proto::wire::address::AddressWithPassword =
//!     "smp://LcJUMfVhwD8yxjAiSaDzzGF3-kLG4Uh0Fl_ZIjrRwjI=@localhost".parse()?;
//! runtime.command(|agent, now, entropy| {
//!     agent.create_short_invitation(relay, Some(b"my profile"), b"my profile", now, entropy)
//! })?;
//! loop {
//!     while let Some(told) = runtime.next() {
//!         match told {
//!             Told::Event(Event::InvitationCreated { short: Some(link), .. }) => println!("{link}"),
//!             Told::Event(Event::Message { connection, number, body, .. }) => {
//!                 println!("{}", String::from_utf8_lossy(&body));
//!                 runtime.command(|agent, now, entropy| {
//!                     agent.acknowledge(connection, number, Some(b""), now, entropy)
//!                 })?;
//!             }
//!             Told::Unreachable { relay, error } => eprintln!("{relay}: {error}; trying again"),
//!             _ => {}
//!         }
//!     }
//!     runtime.turn(None)?;
//! }
//! # }
//! ```

pub mod database;
mod relay_link;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Waker;
use std::time::{Duration, Instant as SystemInstant};

use smp_proto::agent::{
    Agent, AgentAction, AgentConfig, Batch, Event, RecordError, RecordKey, RelayId, StorageFailed, Write,
};
use smp_proto::entropy::SeededEntropy;
use smp_proto::session::Protocol;
use smp_proto::time::{Instant, Now};
use smp_proto::wire::address::ServerAddress;
use zeroize::Zeroizing;

use self::database::{AgentDatabase, Change, DatabaseError, Space};
use self::relay_link::{Attempt, Dialled, RelayLink};
use crate::client::{ClientError, fresh_entropy};
use crate::fast_cryptography::FAST;
use crate::readiness::{Bell, Socket};
use crate::relay::clock::Clock;
use crate::tls::{TlsError, TlsFailure};

/// How an agent is run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AgentOptions {
    /// How long connecting to a relay may take, TLS not included, and TLS. Default: 20 s each.
    pub timeout: Duration,
    /// How the agent behaves. Default: [`AgentConfig::new`].
    pub agent: AgentConfig,
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(20), agent: AgentConfig::new(&FAST) }
    }
}

/// What the runtime tells the application.
#[derive(Debug)]
pub enum Told {
    /// Something happened to a connection.
    Event(Event),
    /// A relay is connected.
    Reached {
        /// Which.
        relay: ServerAddress,
    },
    /// A relay cannot be reached, or the connection to it is lost; the agent tries again by itself as long as it is needed.
    Unreachable {
        /// Which.
        relay: ServerAddress,
        /// Why.
        error: ClientError,
    },
    /// Records could not be written; nothing leaves until they can, and the agent tries again by itself.
    NotStored(DatabaseError),
}

/// Why an agent cannot begin or go on.
#[derive(Debug)]
pub enum AgentRuntimeError {
    /// The database cannot be used.
    Database(DatabaseError),
    /// What it holds cannot be understood: damaged, or written by a newer release.
    Records(RecordError),
    /// A record's name cannot be understood: a newer release wrote it.
    UnknownRecord,
    /// The operating system refuses something: randomness, sockets to wait with.
    System(io::Error),
}

impl fmt::Display for AgentRuntimeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(error) => error.fmt(formatter),
            Self::Records(error) => write!(formatter, "a record of the agent cannot be used: {error}"),
            Self::UnknownRecord => {
                formatter.write_str("the database has records of a newer release: use that one")
            }
            Self::System(error) => write!(formatter, "the operating system refuses what is needed: {error}"),
        }
    }
}

impl std::error::Error for AgentRuntimeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Database(error) => Some(error),
            Self::System(error) => Some(error),
            Self::Records(_) | Self::UnknownRecord => None,
        }
    }
}

impl From<DatabaseError> for AgentRuntimeError {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error)
    }
}

/// What an application kept: names and contents.
pub type KeptRecords = Vec<(Vec<u8>, Zeroizing<Vec<u8>>)>;

/// An agent with everything it needs. See the module for the loop.
pub struct AgentRuntime {
    agent: Agent,
    database: AgentDatabase,
    clock: Clock,
    entropy: SeededEntropy,
    timeout: Duration,
    relays: BTreeMap<RelayId, RelayLink>,
    /// Relays by the attempt to connect to them.
    attempts: BTreeMap<Attempt, RelayId>,
    attempt: Attempt,
    answers: (Sender<Dialled>, Receiver<Dialled>),
    bell: Bell,
    /// What the application wants to be written.
    kept: Vec<Change>,
    told: VecDeque<Told>,
}

impl AgentRuntime {
    /// The agent of a database, and what the application kept there. It goes on with what was not finished.
    ///
    /// # Errors
    /// [`AgentRuntimeError`]; nothing has changed then.
    pub fn open(
        database: AgentDatabase,
        options: AgentOptions,
    ) -> Result<(Self, KeptRecords), AgentRuntimeError> {
        let mut agents = Vec::new();
        let mut kept = Vec::new();
        for record in database.read()? {
            match record.space {
                Space::Agent => {
                    let key = RecordKey::from_bytes(&record.name).ok_or(AgentRuntimeError::UnknownRecord)?;
                    agents.push((key, record.content));
                }
                Space::Application => kept.push((record.name, record.content)),
            }
        }
        let agent = Agent::restore(options.agent, agents).map_err(AgentRuntimeError::Records)?;
        let entropy = fresh_entropy()
            .map_err(|error| AgentRuntimeError::System(io::Error::other(error.to_string())))?;
        let mut runtime = Self {
            agent,
            database,
            clock: Clock::start(),
            entropy,
            timeout: options.timeout,
            relays: BTreeMap::new(),
            attempts: BTreeMap::new(),
            attempt: 0,
            answers: channel(),
            bell: Bell::new().map_err(AgentRuntimeError::System)?,
            kept: Vec::new(),
            told: VecDeque::new(),
        };
        runtime.agent.handle_timeout(runtime.clock.now(), &mut runtime.entropy);
        runtime.drain();
        Ok((runtime, kept))
    }

    /// The agent, to be asked.
    #[must_use]
    pub const fn agent(&self) -> &Agent {
        &self.agent
    }

    /// The database.
    #[must_use]
    pub const fn database(&self) -> &AgentDatabase {
        &self.database
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Gives the agent a command, and carries out what follows as far as nothing has to be waited for. What the
    /// application kept before, and what `command` returns to be kept, is on disk with it when this returns.
    pub fn command<T>(&mut self, command: impl FnOnce(&mut Agent, Now, &mut SeededEntropy) -> T) -> T {
        let result = command(&mut self.agent, self.clock.now(), &mut self.entropy);
        self.drain();
        result
    }

    /// A command whose result decides what the application keeps with it, in one transaction: `keep` is asked before
    /// anything is written.
    pub fn command_and_keep<T>(
        &mut self,
        command: impl FnOnce(&mut Agent, Now, &mut SeededEntropy) -> T,
        keep: impl FnOnce(&T) -> Vec<(Vec<u8>, Option<Zeroizing<Vec<u8>>>)>,
    ) -> T {
        let result = command(&mut self.agent, self.clock.now(), &mut self.entropy);
        for (name, content) in keep(&result) {
            self.keep(name, content);
        }
        self.drain();
        result
    }

    /// Keeps a record of the application's, or forgets it: with the next batch of the agent's, at the latest when the turn
    /// ends or the next command is done.
    pub fn keep(&mut self, name: Vec<u8>, content: Option<Zeroizing<Vec<u8>>>) {
        self.kept.push(Change { space: Space::Application, name, content });
    }

    /// Writes what the application kept, now.
    ///
    /// # Errors
    /// Those of the database: what was to be kept stays to be kept.
    pub fn flush(&mut self) -> Result<(), DatabaseError> {
        if self.kept.is_empty() {
            return Ok(());
        }
        self.database.write(&self.kept)?;
        self.kept.clear();
        Ok(())
    }

    /// Ends the waiting of [`turn`](Self::turn), from any thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.bell.waker()
    }

    /// What happened, in order.
    #[expect(clippy::should_implement_trait, reason = "there may be more after there was none")]
    pub fn next(&mut self) -> Option<Told> {
        if let Some(told) = self.told.pop_front() {
            return Some(told);
        }
        self.agent.poll_event().map(Told::Event)
    }

    /// Waits until something happens: on the network, in time, until somebody wakes it, or at `deadline`. Returns at once
    /// when there is something to be told.
    ///
    /// # Errors
    /// [`AgentRuntimeError::System`] when sockets cannot be waited for.
    pub fn turn(&mut self, deadline: Option<SystemInstant>) -> Result<(), AgentRuntimeError> {
        self.drain();
        if self.told.is_empty() {
            self.wait(deadline)?;
        }
        while let Ok((attempt, result)) = self.answers.1.try_recv() {
            self.dialled(attempt, result);
        }
        let now = self.clock.now();
        let late: Vec<_> = self
            .relays
            .iter()
            .filter(|(_, link)| link.deadline().is_some_and(|until| until <= now.instant))
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            self.lose(id, ClientError::Lost(std::sync::Arc::new(io::ErrorKind::TimedOut.into())));
        }
        if self.agent.next_deadline().is_some_and(|at| at <= now.instant) {
            self.agent.handle_timeout(now, &mut self.entropy);
        }
        self.drain();
        Ok(())
    }

    fn wait(&mut self, deadline: Option<SystemInstant>) -> Result<(), AgentRuntimeError> {
        let own =
            self.relays.values().filter_map(RelayLink::deadline).chain(self.agent.next_deadline()).min();
        let until =
            own.and_then(|instant: Instant| self.clock.system(instant)).into_iter().chain(deadline).min();
        let reads = self.agent.wants_blocks();
        let mut ids = Vec::new();
        let mut sockets = Vec::new();
        for (id, link) in &self.relays {
            if let Some((socket, read, write)) = link.socket() {
                ids.push(*id);
                sockets.push(Socket { socket, read: read && reads, write });
            }
        }
        let (_, ready) = self.bell.wait_for_all(&sockets, until).map_err(AgentRuntimeError::System)?;
        drop(sockets);
        for (id, (readable, writable)) in ids.into_iter().zip(ready) {
            let Some(link) = self.relays.get_mut(&id) else { continue };
            let mut result = Ok(());
            if writable {
                result = link.write();
            }
            if readable && result.is_ok() {
                result = link.read();
            }
            match result {
                Ok(()) => self.work(id),
                Err(error) => {
                    // What came before the end counts.
                    self.work(id);
                    self.lose(id, error);
                }
            }
        }
        Ok(())
    }

    /// Does what can be done with what a relay has sent.
    fn work(&mut self, id: RelayId) {
        if let Err(error) = self.work_on(id) {
            self.lose(id, error);
        }
    }

    fn work_on(&mut self, id: RelayId) -> Result<(), ClientError> {
        let Some(link) = self.relays.get_mut(&id) else { return Ok(()) };
        if let Some(facts) = link.handshake()? {
            let relay = link.address.clone();
            self.agent
                .connected(id, facts, self.clock.now(), &mut self.entropy)
                .map_err(|_| ClientError::Unexpected)?;
            self.told.push_back(Told::Reached { relay });
        }
        while self.agent.wants_blocks()
            && let Some(link) = self.relays.get_mut(&id)
            && let Some(block) = link.block()?
        {
            self.agent
                .receive(id, block, self.clock.now(), &mut self.entropy)
                .map_err(|_| ClientError::Unexpected)?;
            self.drain();
        }
        Ok(())
    }

    fn dialled(&mut self, attempt: Attempt, result: Result<std::net::TcpStream, ClientError>) {
        let Some(id) = self.attempts.remove(&attempt) else { return };
        let until = self.clock.instant() + self.timeout;
        let Some(link) = self.relays.get_mut(&id).filter(|link| link.waits_for(attempt)) else { return };
        match result.and_then(|socket| link.connected(socket, until)) {
            Ok(()) => {}
            Err(error) => self.lose(id, error),
        }
    }

    /// A connection is over, or could not be made.
    fn lose(&mut self, id: RelayId, error: ClientError) {
        let Some(link) = self.relays.remove(&id) else { return };
        if link.protocol == Protocol::FirstStep && is_not_spoken(&error) {
            // That a proxy cannot hold messages is nobody's trouble: they are sent as ever.
            self.agent.not_spoken(id, self.clock.now(), &mut self.entropy);
            return;
        }
        self.told.push_back(Told::Unreachable { relay: link.address, error });
        self.agent.disconnected(id, self.clock.now(), &mut self.entropy);
    }

    /// Carries out what the agent wants.
    fn drain(&mut self) {
        loop {
            while let Some(action) = self.agent.poll_action() {
                match action {
                    AgentAction::Store(batch) => self.store(batch),
                    AgentAction::Dial(id, address, protocol) => self.dial(id, address, protocol),
                    AgentAction::Close(id) => {
                        if let Some(mut link) = self.relays.remove(&id) {
                            link.close();
                        }
                    }
                    AgentAction::MaySend(id) => {
                        if let Some(link) = self.relays.get_mut(&id) {
                            link.has_blocks = true;
                        }
                    }
                }
            }
            if !self.send_blocks() {
                break;
            }
        }
        if let Err(error) = self.flush() {
            self.told.push_back(Told::NotStored(error));
        }
    }

    fn store(&mut self, batch: Batch) {
        let mut changes = std::mem::take(&mut self.kept);
        let kept = changes.len();
        changes.extend(batch.writes.into_iter().map(|write| match write {
            Write::Put(key, content) => {
                Change { space: Space::Agent, name: key.to_bytes(), content: Some(content) }
            }
            Write::Delete(key) => Change { space: Space::Agent, name: key.to_bytes(), content: None },
        }));
        let result = match self.database.write(&changes) {
            Ok(()) => Ok(()),
            Err(error) => {
                changes.truncate(kept);
                self.kept = changes;
                self.told.push_back(Told::NotStored(error));
                Err(StorageFailed)
            }
        };
        self.agent.stored(batch.id, result, self.clock.now(), &mut self.entropy);
    }

    fn dial(&mut self, id: RelayId, address: ServerAddress, protocol: Protocol) {
        self.attempt += 1;
        let (attempt, answers) = (self.attempt, self.answers.0.clone());
        let to = (address.clone(), protocol);
        match RelayLink::dial(to, attempt, self.timeout, answers, self.bell.waker()) {
            Ok(link) => {
                self.attempts.insert(attempt, id);
                self.relays.insert(id, link);
            }
            Err(error) => {
                self.told.push_back(Told::Unreachable { relay: address, error });
                self.agent.disconnected(id, self.clock.now(), &mut self.entropy);
            }
        }
    }

    /// Fetches blocks as far as there is room; whether something has changed that may make more to do.
    fn send_blocks(&mut self) -> bool {
        let waiting: Vec<_> = self
            .relays
            .iter()
            .filter(|(_, link)| link.has_blocks && link.has_room())
            .map(|(id, _)| *id)
            .collect();
        let mut changed = false;
        for id in waiting {
            if let Err(error) = self.send_blocks_to(id) {
                self.lose(id, error);
            }
            changed = true;
        }
        changed
    }

    fn send_blocks_to(&mut self, id: RelayId) -> Result<(), ClientError> {
        while let Some(link) = self.relays.get_mut(&id)
            && link.has_room()
        {
            match self.agent.poll_block(id, self.clock.now(), &mut self.entropy) {
                Some(block) => link.send(&block)?,
                None => {
                    link.has_blocks = false;
                    break;
                }
            }
            link.write()?;
        }
        Ok(())
    }
}

/// Whether a relay said, while TLS was negotiated, that it speaks another protocol.
const fn is_not_spoken(error: &ClientError) -> bool {
    matches!(error, ClientError::Tls(TlsError { failure: TlsFailure::NoCommonProtocol, .. }))
}

impl fmt::Debug for AgentRuntime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AgentRuntime").field("agent", &self.agent).finish_non_exhaustive()
    }
}
