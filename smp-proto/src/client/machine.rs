//! The [`Client`]: its state, its inputs and outputs. What becomes of answers is in [`answers`](super::answers).

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use core::fmt;

use bytes::BytesMut;
use sha2::{Digest, Sha256};

use super::command::{ClientCommand, CommandBody};
use super::config::ClientConfig;
use super::event::{Action, ClosedBecause, CommandFailure, CommandId, Event};
use crate::crypto::{BoxKey, ids};
use crate::entropy::Entropy;
use crate::session::client::{AddError, ClientSession, Received};
use crate::session::{AuthSecret, Misuse, SessionError, TransportFacts};
use crate::time::{Instant, Now};
use crate::wire::EntityId;
use crate::wire::block::BLOCK_LENGTH;
use crate::wire::command::Command;
use crate::wire::identifier::{IDENTIFIER_LENGTH, Identifier};
use crate::wire::version::Version;

/// One relationship with one relay.
pub struct Client {
    pub(super) config: ClientConfig,
    link: Link,
    /// Attempts to connect that failed since the last established connection.
    failed_attempts: u32,
    pub(super) commands: BTreeMap<CommandId, Pending>,
    pub(super) correlations: BTreeMap<[u8; IDENTIFIER_LENGTH], CommandId>,
    /// Commands to be sent, in order. May name commands that are gone.
    waiting: VecDeque<CommandId>,
    deadlines: BTreeSet<(Instant, CommandId)>,
    next_command: u64,
    pub(super) subscriptions: BTreeMap<EntityId, Subscription>,
    restoring: Restoring,
    ping: Ping,
    events: VecDeque<Event>,
    actions: VecDeque<Action>,
}

/// The connection.
enum Link {
    /// None, and none is wanted.
    Idle,
    /// None, until this time.
    Delayed { until: Instant },
    /// The driver is dialling.
    Dialling,
    /// Connected; the session tells whether it is established.
    Connected(alloc::boxed::Box<ClientSession>),
}

/// A command that has no answer yet.
pub(super) struct Pending {
    pub(super) command: ClientCommand,
    pub(super) origin: Origin,
    deadline: Instant,
    /// Its correlation, while it is on its way.
    correlation: Option<[u8; IDENTIFIER_LENGTH]>,
    /// What its answer is opened with, when it is forwarded and on its way.
    pub(super) answer_key: Option<BoxKey>,
}

/// Who wants a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The driver: it gets the answer.
    Driver,
    /// This machine, to restore a subscription.
    Restore,
    /// This machine, to see whether the relay is there.
    KeepAlive,
}

/// What is needed to subscribe again.
pub(super) struct Subscription {
    pub(super) key: Arc<AuthSecret>,
    pub(super) notifications: bool,
}

/// How far the restoring of subscriptions has come, on this connection.
#[derive(Debug, PartialEq, Eq)]
enum Restoring {
    /// All is restored.
    Done,
    /// Those after this one (all, when there is none) are to be restored.
    After(Option<EntityId>),
}

#[derive(Debug, Default)]
struct Ping {
    /// When silence has lasted too long.
    due: Option<Instant>,
    /// Unanswered pings in a row.
    missed: u32,
}

/// Why a command was not taken.
#[derive(Debug)]
pub enum SubmitError {
    /// There are as many commands as [`ClientLimits::commands`](super::ClientLimits::commands) allows: try again when some
    /// are answered. The command is given back.
    TooMany(alloc::boxed::Box<ClientCommand>),
}

impl fmt::Display for SubmitError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany(_) => formatter.write_str(
                "too many commands wait for their answers: submit again when some have been answered",
            ),
        }
    }
}

impl core::error::Error for SubmitError {}

/// What a driver did that does not fit the client's state. The state is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientMisuse {
    /// A connection was reported that the client had not asked for.
    NotDialling,
    /// A block was given without a connection.
    NotConnected,
    /// A block was given while too many events were not fetched.
    EventsWaiting,
    /// The session was misused.
    Session(Misuse),
}

impl fmt::Display for ClientMisuse {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotDialling => formatter.write_str("a connection was reported that was not asked for"),
            Self::NotConnected => formatter.write_str("a block was given to a client without a connection"),
            Self::EventsWaiting => formatter.write_str("a block was given before the events were fetched"),
            Self::Session(misuse) => misuse.fmt(formatter),
        }
    }
}

impl core::error::Error for ClientMisuse {}

impl Client {
    /// A client that does nothing until it has a command.
    #[must_use]
    pub const fn new(config: ClientConfig) -> Self {
        Self {
            config,
            link: Link::Idle,
            failed_attempts: 0,
            commands: BTreeMap::new(),
            correlations: BTreeMap::new(),
            waiting: VecDeque::new(),
            deadlines: BTreeSet::new(),
            next_command: 0,
            subscriptions: BTreeMap::new(),
            restoring: Restoring::Done,
            ping: Ping { due: None, missed: 0 },
            events: VecDeque::new(),
            actions: VecDeque::new(),
        }
    }

    /// Takes a command, and connects if there is no connection. Its result comes as [`Event::Response`].
    ///
    /// # Errors
    /// [`SubmitError::TooMany`].
    pub fn submit(&mut self, command: ClientCommand, now: Now) -> Result<CommandId, SubmitError> {
        if self.commands.len() >= self.config.limits.commands {
            return Err(SubmitError::TooMany(alloc::boxed::Box::new(command)));
        }
        let id = self.enqueue(command, Origin::Driver, now);
        self.connect();
        Ok(id)
    }

    /// Connects, if there is neither a connection nor a delay.
    pub fn connect(&mut self) {
        if matches!(self.link, Link::Idle) {
            self.link = Link::Dialling;
            self.actions.push_back(Action::Dial);
        }
    }

    /// Gives up: the connection is closed, all commands fail, subscriptions are forgotten.
    pub fn stop(&mut self) {
        let was_connected = !matches!(self.link, Link::Idle);
        self.actions.retain(|action| *action != Action::Dial);
        if matches!(self.link, Link::Connected(_) | Link::Dialling) {
            self.actions.push_back(Action::Close);
        }
        self.link = Link::Idle;
        self.subscriptions.clear();
        self.restoring = Restoring::Done;
        self.ping = Ping::default();
        self.deadlines.clear();
        self.waiting.clear();
        self.correlations.clear();
        for (id, pending) in core::mem::take(&mut self.commands) {
            let failure = if pending.correlation.is_some() {
                CommandFailure::OutcomeUnknown
            } else {
                CommandFailure::NotSent
            };
            if pending.origin == Origin::Driver {
                self.push(Event::Response { command: id, result: Err(failure) });
            }
        }
        if was_connected {
            self.push(Event::Closed { because: ClosedBecause::Stopped, retry_at: None });
        }
    }

    fn enqueue(&mut self, command: ClientCommand, origin: Origin, now: Now) -> CommandId {
        let id = CommandId(self.next_command);
        self.next_command = self.next_command.wrapping_add(1);
        let deadline = now.instant + self.config.command_timeout;
        self.commands.insert(id, Pending { command, origin, deadline, correlation: None, answer_key: None });
        self.deadlines.insert((deadline, id));
        self.waiting.push_back(id);
        id
    }

    /// The driver has connected, TLS included.
    ///
    /// # Errors
    /// [`ClientMisuse::NotDialling`].
    pub fn connected(
        &mut self,
        facts: TransportFacts,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), ClientMisuse> {
        if !matches!(self.link, Link::Dialling) {
            return Err(ClientMisuse::NotDialling);
        }
        let session = ClientSession::new(&self.config.session, facts, now, entropy);
        self.link = Link::Connected(alloc::boxed::Box::new(session));
        Ok(())
    }

    /// The driver could not connect, or the connection is lost.
    pub fn disconnected(&mut self, now: Now, entropy: &mut (impl Entropy + ?Sized)) {
        if matches!(self.link, Link::Connected(_) | Link::Dialling) {
            self.lose(ClosedBecause::ConnectionLost, now, entropy);
        }
    }

    /// Takes a block from the relay.
    ///
    /// # Errors
    /// [`ClientMisuse`]. What the relay does wrong comes as [`Event::Closed`].
    pub fn receive(
        &mut self,
        block: BytesMut,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), ClientMisuse> {
        if self.events.len() > self.config.limits.events {
            return Err(ClientMisuse::EventsWaiting);
        }
        let Link::Connected(session) = &mut self.link else { return Err(ClientMisuse::NotConnected) };
        match session.receive(block, now) {
            Ok(Received::Established(version)) => self.established(version, now),
            Ok(Received::Responses(block)) => {
                // The answers need the session's layout and the machine's commands: they are read one by one.
                let Link::Connected(session) = core::mem::replace(&mut self.link, Link::Dialling) else {
                    return Err(ClientMisuse::NotConnected);
                };
                for response in session.responses(&block) {
                    self.answer(response, &block, session.relay_key(), now);
                }
                self.link = Link::Connected(session);
                self.heard(now);
            }
            Err(SessionError::Close(reason)) => {
                self.actions.push_back(Action::Close);
                self.lose(ClosedBecause::Session(reason), now, entropy);
            }
            Err(SessionError::Misuse(misuse)) => return Err(ClientMisuse::Session(misuse)),
        }
        Ok(())
    }

    fn established(&mut self, version: Version, now: Now) {
        self.failed_attempts = 0;
        self.restoring = if self.subscriptions.is_empty() { Restoring::Done } else { Restoring::After(None) };
        self.heard(now);
        self.push(Event::Established { version });
    }

    /// The relay gave a sign of life.
    fn heard(&mut self, now: Now) {
        self.ping = Ping { due: Some(now.instant + self.config.ping_interval), missed: 0 };
    }

    /// Fills the next block to be sent. False when there is none: nothing to say, no connection, or as many commands on
    /// their way as allowed.
    pub fn poll_block_into(
        &mut self,
        block: &mut [u8; BLOCK_LENGTH],
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> bool {
        let Link::Connected(session) = &mut self.link else { return false };
        if let Some(hello) = session.take_handshake_block() {
            let Ok(hello) = <&[u8; BLOCK_LENGTH]>::try_from(&hello[..]) else { return false };
            *block = *hello;
            return true;
        }
        if session.version().is_none() {
            return false;
        }
        self.restore(now);
        let Link::Connected(session) = &mut self.link else { return false };
        let (commands, correlations) = (&mut self.commands, &mut self.correlations);
        let (waiting, most) = (&mut self.waiting, self.config.limits.in_flight);
        let provider = self.config.session.provider;
        let mut impossible = alloc::vec::Vec::new();
        let sealed = session.seal(block, now, |writer| {
            while correlations.len() < most
                && let Some(id) = waiting.front()
            {
                if let Some(pending) = commands.get_mut(id) {
                    let correlation = pending.draw_correlation(entropy);
                    if correlations.contains_key(&correlation) {
                        // The caller's own correlation, twice at once: its answers could not be told apart.
                        impossible.push((*id, CommandFailure::NotSent));
                        waiting.pop_front();
                        continue;
                    }
                    let name = Identifier::from(correlation);
                    let added = if let CommandBody::Forward(through) = &pending.command.body {
                        // It fills a block, and sealing it is work.
                        if !writer.is_empty() {
                            break;
                        }
                        through.seal(provider, &correlation, entropy).and_then(|sealed| {
                            let command = Command::ProxyForward {
                                version: through.relay.version(),
                                key: sealed.ephemeral,
                                transmission: &sealed.bytes,
                            };
                            pending.answer_key = Some(sealed.answer_key);
                            writer.add(&name, &pending.command.entity, &command, None)
                        })
                    } else {
                        let key = pending.command.key.as_deref();
                        writer.add(&name, &pending.command.entity, &pending.command.as_command(), key)
                    };
                    match added {
                        Ok(()) => {
                            pending.correlation = Some(correlation);
                            correlations.insert(correlation, *id);
                        }
                        Err(AddError::BlockFull) => break,
                        Err(AddError::TooLarge) => impossible.push((*id, CommandFailure::TooLarge)),
                        Err(AddError::NoRelayKey) => impossible.push((*id, CommandFailure::NoRelayKey)),
                    }
                }
                waiting.pop_front();
            }
        });
        for (id, failure) in impossible {
            self.finish(id, Err(failure));
        }
        matches!(sealed, Ok(true))
    }

    /// Like [`poll_block_into`](Self::poll_block_into), in a block of its own.
    pub fn poll_block(&mut self, now: Now, entropy: &mut (impl Entropy + ?Sized)) -> Option<BytesMut> {
        if !self.has_something_to_send() {
            return None;
        }
        let mut block = BytesMut::zeroed(BLOCK_LENGTH);
        let bytes = block.as_mut().try_into().ok()?;
        self.poll_block_into(bytes, now, entropy).then_some(block)
    }

    /// Whether there may be a block to send.
    #[must_use]
    pub fn has_something_to_send(&self) -> bool {
        match &self.link {
            Link::Connected(session) => {
                session.version().is_some() && (!self.waiting.is_empty() || self.restoring != Restoring::Done)
                    || session.has_handshake_block()
            }
            _ => false,
        }
    }

    /// Enqueues the next subscriptions to be restored: as many as may be on their way.
    fn restore(&mut self, now: Now) {
        let Restoring::After(last) = &self.restoring else { return };
        let busy = self.commands.len();
        let room = self.config.limits.in_flight.saturating_sub(busy).min(256);
        let from = last.as_ref().map_or(core::ops::Bound::Unbounded, core::ops::Bound::Excluded);
        let next: alloc::vec::Vec<_> = self
            .subscriptions
            .range::<EntityId, _>((from, core::ops::Bound::Unbounded))
            .take(room)
            .map(|(queue, subscription)| subscription.command(queue))
            .collect();
        if room == 0 {
            return;
        }
        self.restoring = match next.last() {
            Some(command) if next.len() == room => Restoring::After(Some(command.entity.clone())),
            _ => Restoring::Done,
        };
        for command in next {
            self.enqueue(command, Origin::Restore, now);
        }
    }

    /// What the driver has to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub(super) fn push(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// When [`handle_timeout`](Self::handle_timeout) should be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let link = match &self.link {
            Link::Delayed { until } => Some(*until),
            Link::Connected(session) => session.next_deadline().or(self.ping_due()),
            Link::Idle | Link::Dialling => None,
        };
        let command = self.deadlines.first().map(|(deadline, _)| *deadline);
        match (link, command) {
            (Some(link), Some(command)) => Some(link.min(command)),
            (one, other) => one.or(other),
        }
    }

    fn ping_due(&self) -> Option<Instant> {
        self.ping.due.filter(|_| !self.subscriptions.is_empty())
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now, entropy: &mut (impl Entropy + ?Sized)) {
        while let Some((deadline, id)) = self.deadlines.first().copied()
            && deadline <= now.instant
        {
            let failure = match self.commands.get(&id) {
                Some(Pending { correlation: Some(_), .. }) => CommandFailure::OutcomeUnknown,
                _ => CommandFailure::NotSent,
            };
            self.finish(id, Err(failure));
            // Also when the command was gone already.
            self.deadlines.remove(&(deadline, id));
        }
        match &mut self.link {
            Link::Delayed { until } if *until <= now.instant => {
                self.link = Link::Idle;
                if self.has_something_to_do() {
                    self.connect();
                }
            }
            Link::Connected(session) => {
                if let Err(reason) = session.handle_timeout(now) {
                    self.actions.push_back(Action::Close);
                    self.lose(ClosedBecause::Session(reason), now, entropy);
                } else if self.ping_due().is_some_and(|due| due <= now.instant) {
                    self.keep_alive(now, entropy);
                }
            }
            _ => {}
        }
    }

    /// The relay has been silent for long.
    fn keep_alive(&mut self, now: Now, entropy: &mut (impl Entropy + ?Sized)) {
        if self.ping.missed >= self.config.pings_missed {
            self.actions.push_back(Action::Close);
            self.lose(ClosedBecause::NoAnswer, now, entropy);
            return;
        }
        self.ping.missed += 1;
        // The next one follows when this one is lost, so that a dead connection is noticed soon.
        self.ping.due = Some(now.instant + self.config.command_timeout.min(self.config.ping_interval));
        self.enqueue(ClientCommand::ping(), Origin::KeepAlive, now);
    }

    fn has_something_to_do(&self) -> bool {
        !self.commands.is_empty() || !self.subscriptions.is_empty()
    }

    /// The connection is over: decides what becomes of the commands on their way, and when to connect again.
    fn lose(&mut self, because: ClosedBecause, now: Now, entropy: &mut (impl Entropy + ?Sized)) {
        self.ping = Ping::default();
        self.restoring = Restoring::Done;
        // In the order in which they were submitted, in front of those that had not left.
        let mut on_their_way: alloc::vec::Vec<_> =
            core::mem::take(&mut self.correlations).into_values().collect();
        on_their_way.sort_unstable();
        for id in on_their_way.into_iter().rev() {
            let Some(pending) = self.commands.get_mut(&id) else { continue };
            if pending.origin == Origin::Driver && pending.command.is_repeatable() {
                pending.correlation = None;
                self.waiting.push_front(id);
            } else if pending.origin == Origin::Driver {
                self.finish(id, Err(CommandFailure::OutcomeUnknown));
            }
        }
        // Pings and restored subscriptions are of one connection.
        let own: alloc::vec::Vec<_> = self
            .commands
            .iter()
            .filter(|(_, pending)| pending.origin != Origin::Driver)
            .map(|(id, _)| *id)
            .collect();
        for id in own {
            self.forget(id);
        }
        self.failed_attempts = self.failed_attempts.saturating_add(1);
        let retry_at = if self.has_something_to_do() {
            let until = now.instant + self.config.backoff().after(self.failed_attempts, entropy);
            self.link = Link::Delayed { until };
            Some(until)
        } else {
            self.link = Link::Idle;
            None
        };
        self.push(Event::Closed { because, retry_at });
    }

    /// Takes a command out of all books.
    pub(super) fn forget(&mut self, id: CommandId) -> Option<Pending> {
        let pending = self.commands.remove(&id)?;
        self.deadlines.remove(&(pending.deadline, id));
        if let Some(correlation) = &pending.correlation {
            self.correlations.remove(correlation);
        } else if self.waiting.len() > 2 * self.commands.len() + 16 {
            // What timed out before it left is passed over when its turn comes; but not without bound.
            let commands = &self.commands;
            self.waiting.retain(|id| commands.contains_key(id));
        }
        Some(pending)
    }

    /// The version of the established session.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        match &self.link {
            Link::Connected(session) => session.version(),
            _ => None,
        }
    }

    /// Whether there is neither a connection nor anything to do or to tell: a new client would be just like it.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.link, Link::Idle)
            && !self.has_something_to_do()
            && self.events.is_empty()
            && self.actions.is_empty()
    }

    /// How many commands have no answer yet.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.commands.len()
    }

    /// How many subscriptions there are.
    #[must_use]
    pub fn subscribed(&self) -> usize {
        self.subscriptions.len()
    }

    /// A digest of everything that decides what this machine does next: equal after equal inputs.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        let mut number = |number: u64| digest.update(number.to_be_bytes());
        number(match &self.link {
            Link::Idle => 0,
            Link::Delayed { until } => until.as_micros().wrapping_add(2),
            Link::Dialling => 1,
            Link::Connected(_) => 2,
        });
        number(u64::from(self.failed_attempts));
        number(self.next_command);
        number(self.ping.due.map_or(0, Instant::as_micros));
        number(u64::from(self.ping.missed));
        for (id, pending) in &self.commands {
            number(id.0);
            number(pending.deadline.as_micros());
            number(u64::from(pending.correlation.is_some()));
        }
        for id in &self.waiting {
            number(id.0);
        }
        for correlation in self.correlations.keys() {
            digest.update(correlation);
        }
        for queue in self.subscriptions.keys() {
            digest.update(queue.as_bytes());
        }
        if let Link::Connected(session) = &self.link {
            digest.update(session.digest());
        }
        digest.finalize().into()
    }

    /// Asserts what must hold between any two inputs, for simulations.
    ///
    /// # Panics
    /// When the machine's books do not agree: a bug in it.
    pub fn check(&self) {
        assert!(self.commands.len() >= self.correlations.len(), "a correlation without its command");
        assert_eq!(self.deadlines.len(), self.commands.len(), "every command has one deadline");
        for (correlation, id) in &self.correlations {
            let pending = self.commands.get(id);
            assert!(
                pending.is_some_and(|pending| pending.correlation.as_ref() == Some(correlation)),
                "a correlation and its command disagree"
            );
        }
        assert!(self.correlations.len() <= self.config.limits.in_flight, "too many commands on their way");
        assert!(self.subscriptions.len() <= self.config.limits.subscriptions, "too many subscriptions");
        if !matches!(self.link, Link::Connected(_)) {
            assert!(self.correlations.is_empty(), "a command is on its way without a connection");
        }
    }
}

impl Pending {
    /// A fresh correlation: 24 random bytes, which are also the nonce of an authenticator; or the one that the command
    /// needs.
    fn draw_correlation(&self, entropy: &mut (impl Entropy + ?Sized)) -> [u8; IDENTIFIER_LENGTH] {
        match &self.command.body {
            CommandBody::New(new) => new.correlation.unwrap_or_else(|| ids::random(entropy)),
            _ => ids::random(entropy),
        }
    }
}

impl Subscription {
    fn command(&self, queue: &EntityId) -> ClientCommand {
        let body =
            if self.notifications { CommandBody::SubscribeNotifications } else { CommandBody::Subscribe };
        ClientCommand::new(queue.clone(), Some(Arc::clone(&self.key)), body)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Client")
            .field("version", &self.version())
            .field("commands", &self.commands.len())
            .field("subscriptions", &self.subscriptions.len())
            .finish_non_exhaustive()
    }
}
