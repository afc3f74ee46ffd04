//! The [`Agent`]: all connections, and a client for every relay that they need.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use bytes::BytesMut;
use sha2::{Digest, Sha256};

use super::config::AgentConfig;
use super::event::Event;
use super::machine::{Connections, RelayCommand, RelayId, TaskId};
use super::record::RecordError;
use super::routing::{self, Meaning, Route, Routing, Way};
use super::storage::{Batch, BatchId, ConnectionId, RecordKey, StorageFailed};
use crate::client::{
    Action, Client, ClientCommand, ClientConfig, ClientMisuse, CommandFailure, CommandId,
    Event as ClientEvent, Reply, SubmitError,
};
use crate::entropy::Entropy;
use crate::session::client::ClientSessionConfig;
use crate::session::{Protocol, TransportFacts};
use crate::time::{Instant, Now};
use crate::wire::address::{AddressWithPassword, ServerAddress};

/// What the driver has to do.
#[derive(Debug)]
pub enum AgentAction {
    /// Write this, in one transaction, and report it with [`Agent::stored`].
    Store(Batch),
    /// Connect to this relay, with TLS that offers this protocol, then call [`Agent::connected`], or, if that fails,
    /// [`Agent::disconnected`]; when the relay turns out not to speak the protocol, [`Agent::not_spoken`].
    Dial(RelayId, ServerAddress, Protocol),
    /// There may be blocks for this relay: send what [`Agent::poll_block`] gives, until it gives none.
    MaySend(RelayId),
    /// Close the connection to this relay. [`Agent::disconnected`] need not be called.
    Close(RelayId),
}

/// What a command of a client is for.
enum Purpose {
    /// A connection's, to this relay itself.
    Task(TaskId),
    /// A connection's, to another relay; the command, should it be sent another way.
    Forwarded(TaskId, RelayId, Box<ClientCommand>),
    /// To reach that relay through this one.
    Reach(RelayId),
}

/// One relay.
struct Relay {
    client: Client,
    /// Commands that the client has no room for yet, in order.
    waiting: VecDeque<(Purpose, ClientCommand)>,
    tasks: BTreeMap<CommandId, Purpose>,
    /// Under what time the relay stands in the deadlines.
    deadline: Option<Instant>,
}

/// An agent: see the room's documentation for how to drive it.
pub struct Agent {
    pub(super) connections: Connections,
    relays: BTreeMap<RelayId, Relay>,
    /// Proxies that are, or were, used: their numbers are their places here.
    pub(super) proxies: Vec<(AddressWithPassword, Option<ConnectionId>)>,
    /// The connections that messages are held over, and of whose connection.
    pub(super) holders: BTreeMap<RelayId, ConnectionId>,
    pub(super) next_holder: u32,
    /// Of these the last change of what is held is not durable yet.
    pub(super) unstored_holdings: BTreeSet<ConnectionId>,
    /// Fingerprints of proxies that do not speak `smp-proxy/1`.
    pub(super) not_holding: BTreeSet<Vec<u8>>,
    /// How destinations are reached that shall not see who we are.
    pub(super) routes: BTreeMap<RelayId, Route>,
    pub(super) deadlines: BTreeSet<(Instant, RelayId)>,
    pub(super) actions: VecDeque<AgentAction>,
    /// Relays of which the driver was told that they may have blocks.
    pub(super) announced: BTreeSet<RelayId>,
    /// Made for every relay; the fingerprint is put in.
    template: fn(&ServerAddress, &AgentConfig) -> ClientConfig,
}

impl Agent {
    /// An agent without connections.
    #[must_use]
    pub fn new(config: AgentConfig) -> Self {
        Self::over(Connections::new(config))
    }

    /// The agent as its records say, in any order. Call [`handle_timeout`](Self::handle_timeout) when it may begin.
    ///
    /// # Errors
    /// [`RecordError`] for the first record that cannot be used.
    pub fn restore<B: AsRef<[u8]>>(
        config: AgentConfig,
        records: impl IntoIterator<Item = (RecordKey, B)>,
    ) -> Result<Self, RecordError> {
        Ok(Self::over(Connections::restore(config, records)?))
    }

    fn over(connections: Connections) -> Self {
        let mut agent = Self {
            connections,
            relays: BTreeMap::new(),
            proxies: Vec::new(),
            holders: BTreeMap::new(),
            next_holder: 0,
            unstored_holdings: BTreeSet::new(),
            not_holding: BTreeSet::new(),
            routes: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            actions: VecDeque::new(),
            announced: BTreeSet::new(),
            template: |address, config| {
                ClientConfig::new(ClientSessionConfig::new(address.fingerprint.clone(), config.provider))
            },
        };
        agent.resume_holders();
        agent
    }

    /// How clients of relays are made; the usual way without this.
    #[must_use]
    pub fn with_clients(mut self, template: fn(&ServerAddress, &AgentConfig) -> ClientConfig) -> Self {
        self.template = template;
        self
    }

    /// Storage has done a batch, or not.
    pub fn stored(
        &mut self,
        batch: BatchId,
        result: Result<(), StorageFailed>,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        self.connections.stored(batch, result, now, entropy);
        self.holdings_stored(now, entropy);
        self.pump(now, entropy);
    }

    /// The driver has connected to a relay, TLS included.
    ///
    /// # Errors
    /// [`ClientMisuse`] when it was not asked to.
    pub fn connected(
        &mut self,
        relay: RelayId,
        facts: TransportFacts,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), ClientMisuse> {
        if routing::is_holder(relay) {
            return self.holder_connected(relay, facts, now, entropy);
        }
        let result = match self.relays.get_mut(&relay) {
            Some(known) => known.client.connected(facts, now, entropy),
            None => Err(ClientMisuse::NotDialling),
        };
        self.client_has_changed(relay, now, entropy);
        result
    }

    /// The driver could not connect to a relay, or the connection is lost.
    pub fn disconnected(&mut self, relay: RelayId, now: Now, entropy: &mut (impl Entropy + ?Sized)) {
        if routing::is_holder(relay) {
            return self.holder_disconnected(relay, false, now, entropy);
        }
        if let Some(known) = self.relays.get_mut(&relay) {
            known.client.disconnected(now, entropy);
        }
        self.client_has_changed(relay, now, entropy);
    }

    /// The driver has reached a relay that does not speak the protocol of the [`Dial`](AgentAction::Dial).
    pub fn not_spoken(&mut self, relay: RelayId, now: Now, entropy: &mut (impl Entropy + ?Sized)) {
        if routing::is_holder(relay) {
            self.holder_disconnected(relay, true, now, entropy);
        } else {
            self.disconnected(relay, now, entropy);
        }
    }

    /// Whether blocks may be given: not while too many events wait to be fetched. Stop reading until then.
    #[must_use]
    pub fn wants_blocks(&self) -> bool {
        self.connections.events() <= self.connections.core.config.limits.events
    }

    /// Takes a block from a relay.
    ///
    /// # Errors
    /// [`ClientMisuse`]: without a connection, or while [`wants_blocks`](Self::wants_blocks) is false.
    pub fn receive(
        &mut self,
        relay: RelayId,
        block: BytesMut,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), ClientMisuse> {
        if !self.wants_blocks() {
            return Err(ClientMisuse::EventsWaiting);
        }
        if routing::is_holder(relay) {
            return self.holder_receives(relay, block, now, entropy);
        }
        let result = match self.relays.get_mut(&relay) {
            Some(known) => known.client.receive(block, now, entropy),
            None => Err(ClientMisuse::NotConnected),
        };
        self.client_has_changed(relay, now, entropy);
        result
    }

    /// The next block for a relay: 16,384 bytes.
    pub fn poll_block(
        &mut self,
        relay: RelayId,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Option<BytesMut> {
        if routing::is_holder(relay) {
            return self.holder_block(relay, now, entropy);
        }
        let known = self.relays.get_mut(&relay)?;
        let block = known.client.poll_block(now, entropy);
        if block.is_none() {
            self.announced.remove(&relay);
        }
        self.rearm(relay);
        block
    }

    /// What the driver has to do next.
    pub fn poll_action(&mut self) -> Option<AgentAction> {
        if let Some(batch) = self.connections.poll_storage() {
            return Some(AgentAction::Store(batch));
        }
        self.actions.pop_front()
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.connections.poll_event()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let relays = self.deadlines.first().map(|(at, _)| *at);
        [relays, self.connections.next_deadline()].into_iter().flatten().min()
    }

    /// Time has passed. Call it once at the start, too.
    pub fn handle_timeout(&mut self, now: Now, entropy: &mut (impl Entropy + ?Sized)) {
        while let Some((at, relay)) = self.deadlines.first().copied()
            && at <= now.instant
        {
            self.deadlines.remove(&(at, relay));
            if routing::is_holder(relay) {
                self.holder_timeout(relay, now, entropy);
                continue;
            }
            if let Some(known) = self.relays.get_mut(&relay) {
                known.deadline = None;
                known.client.handle_timeout(now, entropy);
            }
            self.client_has_changed(relay, now, entropy);
        }
        self.connections.handle_timeout(now, entropy);
        self.pump(now, entropy);
    }

    /// Carries what a client has to say to the connections.
    fn client_has_changed(&mut self, id: RelayId, now: Now, entropy: &mut (impl Entropy + ?Sized)) {
        while let Some(event) = self.relays.get_mut(&id).and_then(|relay| relay.client.poll_event()) {
            self.client_event(id, event, now, entropy);
        }
        self.pump(now, entropy);
        self.touch(id, now);
    }

    fn client_event(
        &mut self,
        id: RelayId,
        event: ClientEvent,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        let Some(relay) = self.relays.get_mut(&id) else { return };
        match event {
            ClientEvent::Response { command, result } => {
                if let Some(purpose) = relay.tasks.remove(&command) {
                    self.answered(purpose, result, now, entropy);
                }
            }
            ClientEvent::Message { queue, id: message, body } => {
                self.connections.message(id, &queue, message, body, now, entropy);
            }
            ClientEvent::Closed { .. } => {
                self.connections.session_ended(id);
                self.connections.run(now, entropy);
            }
            ClientEvent::Ended { queue } => self.connections.ended(id, &queue),
            ClientEvent::Deleted { queue } => {
                self.connections.queue_lost(id, &queue, crate::wire::error::SmpError::Authorization);
            }
            ClientEvent::QueueError { queue, error } => self.connections.queue_lost(id, &queue, error),
            ClientEvent::SubscriptionFailed { queue, failure: CommandFailure::Refused(error) } => {
                self.connections.queue_lost(id, &queue, error);
            }
            // Tried again with the next connection; nothing was lost.
            ClientEvent::SubscriptionFailed { .. }
            | ClientEvent::Notification { .. }
            | ClientEvent::Unexpected
            | ClientEvent::Established { .. } => {}
        }
    }

    /// Carries what the connections want to the clients.
    pub(super) fn pump(&mut self, now: Now, entropy: &mut (impl Entropy + ?Sized)) {
        let mut touched = BTreeSet::new();
        loop {
            while let Some(RelayCommand { task, relay, command }) = self.connections.poll_command() {
                touched.extend(self.route(task, relay, command, now, entropy));
            }
            let Some(id) = self.connections.core.holding.pop_first() else { break };
            self.holder_has_changed(id, now, entropy);
        }
        for relay in touched {
            self.touch(relay, now);
        }
    }

    /// Sends a command the way that it is to take: the relay to be [touched](Self::touch).
    fn route(
        &mut self,
        task: TaskId,
        relay: RelayId,
        command: ClientCommand,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Option<RelayId> {
        let command = self.hold_behind_others(task, relay, command, now, entropy)?;
        let address = self.connections.relay_address(relay)?;
        match self.connections.core.config.routing.way(&command, address, entropy) {
            Way::Straight => self.submit(relay, Purpose::Task(task), command),
            Way::Proxy(proxy) => {
                let proxy = match self.routes.get(&relay) {
                    Some(route) => route.proxy,
                    None => {
                        let owner = self.connections.core.owner(relay);
                        let is_it = |known: &(AddressWithPassword, _)| known.0 == *proxy && known.1 == owner;
                        let place = self.proxies.iter().position(is_it).unwrap_or(self.proxies.len());
                        if place == self.proxies.len() {
                            self.proxies.push((proxy.clone(), owner));
                        }
                        routing::proxy_id(place)?
                    }
                };
                self.submit_through(proxy, relay, task, command)
            }
            Way::None => {
                self.not_forwarded(relay, CommandFailure::NotSent);
                self.connections.answer(task, Err(CommandFailure::NotSent), now, entropy);
                None
            }
        }
    }

    /// From now on commands take other ways.
    pub fn set_routing(&mut self, routing: Routing, now: Now, entropy: &mut (impl Entropy + ?Sized)) {
        self.connections.isolate(routing.isolation);
        self.connections.core.config.routing = routing;
        for (relay, route) in core::mem::take(&mut self.routes) {
            for (task, command) in route.waiting {
                if let Some(relay) = self.route(task, relay, command, now, entropy) {
                    self.touch(relay, now);
                }
            }
        }
        self.pump(now, entropy);
    }

    /// Gives a relay's client a command: the relay, which is then to be [touched](Self::touch).
    fn submit(&mut self, id: RelayId, purpose: Purpose, command: ClientCommand) -> Option<RelayId> {
        let address = self.address_of(id)?;
        let known = self.relays.entry(id).or_insert_with(|| Relay {
            client: Client::new((self.template)(&address, &self.connections.core.config)),
            waiting: VecDeque::new(),
            tasks: BTreeMap::new(),
            deadline: None,
        });
        known.waiting.push_back((purpose, command));
        Some(id)
    }

    /// The address of a relay, or of a proxy.
    fn address_of(&self, id: RelayId) -> Option<ServerAddress> {
        match routing::proxy_index(id) {
            Some(place) => self.proxies.get(place).map(|(proxy, _)| proxy.address.clone()),
            None => self.connections.relay_address(id).cloned(),
        }
    }

    /// Sends a command to `relay` through the proxy that is used for it, or from now on through `proxy`.
    fn submit_through(
        &mut self,
        proxy: RelayId,
        relay: RelayId,
        task: TaskId,
        command: ClientCommand,
    ) -> Option<RelayId> {
        let route = self.routes.entry(relay).or_insert_with(|| Route {
            proxy,
            session: None,
            is_asking: false,
            waiting: VecDeque::new(),
        });
        let proxy = route.proxy;
        if let Some(session) = &route.session {
            let forwarded = command.clone().through(session);
            return self.submit(proxy, Purpose::Forwarded(task, relay, Box::new(command)), forwarded);
        }
        route.waiting.push_back((task, command));
        if core::mem::replace(&mut route.is_asking, true) {
            return None;
        }
        let address = self.connections.relay_address(relay)?.clone();
        let password = self.proxies.get(routing::proxy_index(proxy)?)?.0.password.clone();
        let password = password.map(|password| bytes::Bytes::copy_from_slice(&password));
        self.submit(proxy, Purpose::Reach(relay), ClientCommand::proxy_connect(address, password))
    }

    pub(super) fn not_forwarded(&mut self, relay: RelayId, failure: CommandFailure) {
        if let Some(address) = self.connections.relay_address(relay).cloned() {
            self.connections.core.event(Event::NotForwarded { relay: Box::new(address), failure });
        }
    }

    /// A command has its result.
    fn answered(
        &mut self,
        purpose: Purpose,
        result: Result<Reply, CommandFailure>,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        match (purpose, result) {
            (Purpose::Task(task), result) => self.connections.answer(task, result, now, entropy),
            (Purpose::Reach(relay), Ok(Reply::ProxiedRelay(session))) => {
                let Some(route) = self.routes.get_mut(&relay) else { return };
                let (proxy, waiting) = (route.proxy, core::mem::take(&mut route.waiting));
                route.is_asking = false;
                route.session = Some(session);
                for (task, command) in waiting {
                    self.submit_through(proxy, relay, task, command);
                }
                self.touch(proxy, now);
            }
            (Purpose::Reach(relay), result) => {
                let failure = result.err().unwrap_or(CommandFailure::Unexpected);
                // Another proxy may reach it.
                let Some(Route { proxy, waiting, .. }) = self.routes.remove(&relay) else { return };
                let mut told = false;
                for (task, command) in waiting {
                    let Some(command) = self.hold(task, relay, proxy, command, &failure, now, entropy) else {
                        continue;
                    };
                    if !core::mem::replace(&mut told, true) {
                        self.not_forwarded(relay, failure.clone());
                    }
                    self.straight_or_later(task, relay, command, now, entropy);
                }
            }
            (Purpose::Forwarded(task, relay, command), Err(failure)) => {
                if matches!(failure, CommandFailure::Refused(_)) {
                    return self.connections.answer_through_proxy(task, Err(failure), now, entropy);
                }
                let meaning = routing::meaning(&failure);
                let proxy = self.routes.get(&relay).map_or(relay, |route| route.proxy);
                if matches!(failure, CommandFailure::NotForwarded(_))
                    && let Some(route) = self.routes.get_mut(&relay)
                {
                    route.session = None;
                }
                match meaning {
                    Meaning::AskAgain => {
                        let Some(proxy) = self.routes.get(&relay).map(|route| route.proxy) else { return };
                        if let Some(proxy) = self.submit_through(proxy, relay, task, *command) {
                            self.touch(proxy, now);
                        }
                    }
                    Meaning::NotDone => {
                        // Another proxy may reach it.
                        let route = self.routes.remove(&relay);
                        let proxy = route.as_ref().map_or(proxy, |route| route.proxy);
                        let waiting = route.map(|route| route.waiting).unwrap_or_default();
                        let mut told = false;
                        for (task, command) in core::iter::once((task, *command)).chain(waiting) {
                            let held = self.hold(task, relay, proxy, command, &failure, now, entropy);
                            let Some(command) = held else { continue };
                            if !core::mem::replace(&mut told, true) {
                                self.not_forwarded(relay, failure.clone());
                            }
                            self.straight_or_later(task, relay, command, now, entropy);
                        }
                    }
                    Meaning::Unknown => {
                        let held = self.hold(task, relay, proxy, *command, &failure, now, entropy);
                        if held.is_none() {
                            return;
                        }
                        self.not_forwarded(relay, failure);
                        self.connections.answer_through_proxy(
                            task,
                            Err(CommandFailure::OutcomeUnknown),
                            now,
                            entropy,
                        );
                    }
                }
            }
            (Purpose::Forwarded(task, relay, _), result) => {
                self.register_while_all_is_well(task, relay, now, entropy);
                self.connections.answer_through_proxy(task, result, now, entropy);
            }
        }
    }

    /// A proxy could not be used, and nothing was done.
    fn straight_or_later(
        &mut self,
        task: TaskId,
        relay: RelayId,
        command: ClientCommand,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        if self.connections.core.config.routing.fallback {
            if let Some(relay) = self.submit(relay, Purpose::Task(task), command) {
                self.touch(relay, now);
            }
        } else {
            self.connections.answer(task, Err(CommandFailure::NotSent), now, entropy);
        }
    }

    /// Gives a client what it has room for, and the driver what the client wants.
    fn touch(&mut self, id: RelayId, now: Now) {
        let address = self.address_of(id);
        let Some(relay) = self.relays.get_mut(&id) else { return };
        while let Some((purpose, command)) = relay.waiting.pop_front() {
            match relay.client.submit(command, now) {
                Ok(command) => {
                    relay.tasks.insert(command, purpose);
                }
                Err(SubmitError::TooMany(command)) => {
                    relay.waiting.push_front((purpose, *command));
                    break;
                }
            }
        }
        while let Some(action) = relay.client.poll_action() {
            self.actions.push_back(match action {
                Action::Dial => match &address {
                    Some(address) => AgentAction::Dial(id, address.clone(), Protocol::Smp),
                    None => continue,
                },
                Action::Close => AgentAction::Close(id),
            });
        }
        if relay.client.has_something_to_send() && self.announced.insert(id) {
            self.actions.push_back(AgentAction::MaySend(id));
        }
        self.rearm(id);
        let Some(relay) = self.relays.get(&id) else { return };
        if relay.client.is_idle() && relay.waiting.is_empty() {
            self.relays.remove(&id);
            self.announced.remove(&id);
        }
    }

    /// Enters when the client is to be called again.
    fn rearm(&mut self, id: RelayId) {
        let Some(relay) = self.relays.get_mut(&id) else { return };
        let deadline = relay.client.next_deadline();
        if deadline == relay.deadline {
            return;
        }
        if let Some(before) = core::mem::replace(&mut relay.deadline, deadline) {
            self.deadlines.remove(&(before, id));
        }
        if let Some(at) = deadline {
            self.deadlines.insert((at, id));
        }
    }

    /// A digest of everything that decides what happens next: equal after equal inputs. For simulations.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(self.connections.digest());
        for (id, relay) in &self.relays {
            digest.update(id.0.to_be_bytes());
            digest.update(relay.client.digest());
            digest.update(relay.waiting.len().to_be_bytes());
        }
        for (id, route) in &self.routes {
            digest.update(id.0.to_be_bytes());
            digest.update(route.proxy.0.to_be_bytes());
            digest.update([u8::from(route.is_asking), u8::from(route.session.is_some())]);
            digest.update(route.waiting.len().to_be_bytes());
        }
        digest.finalize().into()
    }

    /// Asserts what must hold between any two inputs, for simulations.
    ///
    /// # Panics
    /// When the books do not agree: a bug.
    pub fn check(&self) {
        self.connections.check();
        for (id, relay) in &self.relays {
            relay.client.check();
            let entered = relay.deadline.is_none_or(|at| self.deadlines.contains(&(at, *id)));
            assert!(entered, "a relay waits for a time that is not entered");
        }
    }
}

impl core::fmt::Debug for Agent {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter
            .debug_struct("Agent")
            .field("connections", &self.connections)
            .field("relays", &self.relays.len())
            .finish_non_exhaustive()
    }
}
