//! The [`Proxy`]: destinations, who waits for them, and what is on its way.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::ProxyConfig;
use super::turns::Turns;
use crate::broker::{Asked, ConnectionId, Inconsistency, ProxyAnswer, ProxyRequest, ProxyTicket};
use crate::crypto::certificates::FINGERPRINT_LENGTH;
use crate::keys::X25519Public;
use crate::session::outgoing::ProxySession;
use crate::time::{Instant, Now};
use crate::wire::address::ServerAddress;
use crate::wire::error::{BrokerError, NetworkError, ProxyError};
use crate::wire::identifier::Identifier;
use crate::wire::version::Version;

/// Names one attempt to reach a destination, and the connection that comes of it; never reused in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId {
    slot: u32,
    generation: u32,
}

impl LinkId {
    /// Where drivers may keep what belongs to the connection: slots are reused, and small.
    #[must_use]
    pub const fn slot(self) -> usize {
        self.slot as usize
    }
}

/// Names a forwarded command; never reused in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ForwardId(pub u64);

/// What the driver has to do.
#[derive(Debug)]
pub enum ProxyAction {
    /// Connect to the relay, with TLS, by the rules of [`hosts`](super::hosts); then call [`Proxy::dialled`], or, if that
    /// fails, [`Proxy::dial_failed`].
    Dial(LinkId, Box<ServerAddress>),
    /// There is something to send: [`Proxy::poll_forward`] until there is nothing.
    MaySend(LinkId),
    /// Close the connection, or give up the dial. It is forgotten already.
    Close(LinkId),
}

/// Why a destination could not be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialFailure {
    /// No host of the address may be used, or none resolves to an address that may be.
    Host,
    /// No connection, or no TLS on it.
    Network,
    /// Another relay answers there: its certificate is not that of the address.
    WrongRelay,
    /// It took too long.
    Timeout,
    /// It does not speak what was asked for.
    NotSpoken,
}

impl DialFailure {
    /// What clients are told.
    #[must_use]
    pub const fn error(self) -> BrokerError {
        match self {
            Self::Host => BrokerError::Host,
            Self::Network | Self::NotSpoken => BrokerError::Network(NetworkError::Failed),
            Self::WrongRelay => BrokerError::Network(NetworkError::UnknownCertificate),
            Self::Timeout => BrokerError::Timeout,
        }
    }
}

/// A command to be forwarded, for a link to seal.
#[derive(Debug)]
pub struct Forward {
    /// Which it is.
    pub id: ForwardId,
    /// The client's correlation.
    pub correlation: Identifier,
    /// The version of the command.
    pub version: Version,
    /// The client's key.
    pub client_key: X25519Public,
    /// The inner box.
    pub sealed: Bytes,
    /// Until when an answer is waited for.
    pub until: Instant,
}

/// Figures for operators, none of which is about one client or destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ProxyStatistics {
    /// Destinations that are connected, or being connected to.
    pub destinations: usize,
    /// Dials under way.
    pub dials: usize,
    /// Commands that wait or are on their way.
    pub commands: usize,
    /// Sessions that clients have asked for since the start: to other relays, and to the operator's own.
    pub sessions_asked: [u64; 2],
    /// Attempts to reach a destination that failed since the start.
    pub failed_connections: u64,
    /// Commands forwarded since the start: to other relays, and to the operator's own.
    pub forwarded: [u64; 2],
    /// Commands of these that got no answer in time, or lost their connection.
    pub unanswered: u64,
}

/// A client that waits for a destination to be reached.
struct WaitingClient {
    ticket: ProxyTicket,
    until: Instant,
}

/// How far a destination is.
enum State {
    /// It waits for its turn to be dialled.
    Queued,
    /// It is being dialled, TLS included, for this client.
    Dialling { dialled_for: ConnectionId, until: Instant },
    /// The SMP handshake is under way.
    Handshake { until: Instant },
    /// Commands can be forwarded.
    Open(Arc<ProxySession>),
    /// It could not be reached.
    Failed { error: BrokerError, until: Instant },
}

struct Destination {
    /// What it is found by.
    key: Box<[u8]>,
    address: Box<ServerAddress>,
    own: bool,
    state: State,
    clients: VecDeque<WaitingClient>,
    to_send: VecDeque<(Forward, ProxyTicket)>,
    in_flight: BTreeMap<ForwardId, ProxyTicket>,
    /// When those in flight are given up, in order; may name those that are answered.
    until: VecDeque<(Instant, ForwardId)>,
    /// How many in a row have been given up.
    unanswered: u32,
    last_used: Instant,
    /// Whether the driver knows that there is something to send.
    announced: bool,
    /// Under what time it stands in `deadlines`.
    deadline: Option<Instant>,
    /// Under what time it stands among those that can be forgotten for others.
    idle_since: Option<Instant>,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    destination: Option<Destination>,
}

/// A relay's dealings with other relays. See the module's documentation.
pub struct Proxy {
    config: ProxyConfig,
    slots: Vec<Slot>,
    free: Vec<u32>,
    count: usize,
    by_address: BTreeMap<Box<[u8]>, LinkId>,
    by_session: BTreeMap<Identifier, LinkId>,
    turns: Turns<ConnectionId, LinkId>,
    idle: BTreeSet<(Instant, LinkId)>,
    deadlines: BTreeSet<(Instant, LinkId)>,
    commands: usize,
    next_forward: u64,
    actions: VecDeque<ProxyAction>,
    answers: VecDeque<(ProxyTicket, ProxyAnswer)>,
    statistics: ProxyStatistics,
}

impl Proxy {
    /// A proxy without destinations.
    #[must_use]
    pub fn new(config: ProxyConfig) -> Self {
        Self {
            turns: Turns::new(config.limits.dials, config.limits.dials_per_client),
            config,
            slots: Vec::new(),
            free: Vec::new(),
            count: 0,
            by_address: BTreeMap::new(),
            by_session: BTreeMap::new(),
            idle: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            commands: 0,
            next_forward: 0,
            actions: VecDeque::new(),
            answers: VecDeque::new(),
            statistics: ProxyStatistics::default(),
        }
    }

    /// The rules of this proxy.
    #[must_use]
    pub const fn config(&self) -> &ProxyConfig {
        &self.config
    }

    /// Takes a client's request. It is answered by [`poll_answer`](Self::poll_answer), at once or later.
    pub fn handle(&mut self, request: ProxyRequest, now: Now) {
        let ProxyRequest { ticket, asked } = request;
        match asked {
            Asked::Connect(address) => self.connect(ticket, address, now),
            Asked::Forward { version, client_key, sealed } => {
                self.forward(ticket, version, client_key, sealed, now);
            }
        }
        self.dial_next(now);
    }

    fn connect(&mut self, ticket: ProxyTicket, address: Box<ServerAddress>, now: Now) {
        if address.fingerprint.len() != FINGERPRINT_LENGTH
            || address.port_number().is_none_or(|port| port == 0)
        {
            return self.fail(ticket, BrokerError::Host);
        }
        let key = key_of(&address);
        let own = self.config.is_own(&address);
        if let Some(asked) = self.statistics.sessions_asked.get_mut(usize::from(own)) {
            *asked += 1;
        }
        let client = ticket.client();
        let until = now.instant + self.config.connect_time_limit;
        let most = self.config.limits.waiting_clients;
        let found = self.by_address.get(&key).copied();
        let id = match found {
            Some(id) => id,
            None => {
                let Some(id) = self.insert(key, address, own, now) else {
                    return self.fail(ticket, BrokerError::Timeout);
                };
                self.turns.wait(client, id);
                id
            }
        };
        let Some(destination) = self.destination(id) else { return };
        let answer = match &destination.state {
            State::Open(session) => ProxyAnswer::Session(Arc::clone(session)),
            State::Failed { error, .. } => ProxyAnswer::Failed(ProxyError::Broker(error.clone())),
            _ if destination.clients.len() >= most => {
                ProxyAnswer::Failed(ProxyError::Broker(BrokerError::Timeout))
            }
            _ => {
                destination.clients.push_back(WaitingClient { ticket, until });
                return self.arm(id);
            }
        };
        if matches!(answer, ProxyAnswer::Session(_)) {
            destination.last_used = now.instant;
            self.arm(id);
        }
        self.answers.push_back((ticket, answer));
    }

    fn forward(
        &mut self,
        ticket: ProxyTicket,
        version: Version,
        client_key: X25519Public,
        sealed: Bytes,
        now: Now,
    ) {
        let Some(id) = self.by_session.get(ticket.entity()).copied() else {
            self.answers.push_back((ticket, ProxyAnswer::Failed(ProxyError::NoSession)));
            return;
        };
        let (all, limits) = (self.commands, self.config.limits);
        let until = now.instant + self.config.command_time_limit;
        let forward = Forward {
            id: ForwardId(self.next_forward),
            correlation: ticket.correlation().clone(),
            version,
            client_key,
            sealed,
            until,
        };
        let Some(destination) = self.destination(id) else { return };
        if all >= limits.commands
            || destination.to_send.len() + destination.in_flight.len() >= limits.commands_per_destination
        {
            return self.fail(ticket, BrokerError::Timeout);
        }
        destination.last_used = now.instant;
        destination.to_send.push_back((forward, ticket));
        let own = destination.own;
        self.next_forward += 1;
        self.commands += 1;
        if let Some(forwarded) = self.statistics.forwarded.get_mut(usize::from(own)) {
            *forwarded += 1;
        }
        self.announce(id);
        self.arm(id);
    }

    fn fail(&mut self, ticket: ProxyTicket, error: BrokerError) {
        self.answers.push_back((ticket, ProxyAnswer::Failed(ProxyError::Broker(error))));
    }

    /// The driver has connected, TLS included: the handshake begins.
    pub fn dialled(&mut self, id: LinkId, now: Now) {
        let Some(destination) = self.destination(id) else { return };
        if let State::Dialling { dialled_for, until } = destination.state {
            destination.state = State::Handshake { until };
            self.turns.finished(dialled_for);
            self.arm(id);
            self.dial_next(now);
        }
    }

    /// The driver could not connect.
    pub fn dial_failed(&mut self, id: LinkId, failure: DialFailure, now: Now) {
        self.lost(id, failure.error(), now);
    }

    /// The handshake of a connection is finished.
    pub fn opened(&mut self, id: LinkId, session: Arc<ProxySession>, now: Now) {
        let Some(destination) = self.destination(id) else { return };
        if !matches!(destination.state, State::Handshake { .. }) {
            return;
        }
        destination.state = State::Open(Arc::clone(&session));
        destination.last_used = now.instant;
        let clients = core::mem::take(&mut destination.clients);
        let name = session.session.clone();
        // Two connections cannot have the same id; a destination that says so gets no commands of the other.
        if self.by_session.contains_key(&name) {
            return self.end(id, BrokerError::Network(NetworkError::Failed), clients, true, now);
        }
        self.by_session.insert(name, id);
        for WaitingClient { ticket, .. } in clients {
            self.answers.push_back((ticket, ProxyAnswer::Session(Arc::clone(&session))));
        }
        self.arm(id);
    }

    /// The next command to be sent on a connection. The driver asks when it can send; `None` also while as many as allowed
    /// are on their way.
    pub fn poll_forward(&mut self, id: LinkId) -> Option<Forward> {
        let most = self.config.limits.in_flight.max(1);
        let destination = self.destination(id)?;
        destination.announced = false;
        if destination.in_flight.len() >= most {
            return None;
        }
        let (forward, ticket) = destination.to_send.pop_front()?;
        destination.in_flight.insert(forward.id, ticket);
        destination.until.push_back((forward.until, forward.id));
        if destination.to_send.is_empty() {
            destination.to_send = VecDeque::new();
        }
        Some(forward)
    }

    /// A forwarded command has its answer. Answers to what was given up are dropped.
    pub fn answered(&mut self, id: LinkId, forward: ForwardId, result: Result<Bytes, ProxyError>, now: Now) {
        let Some(destination) = self.destination(id) else { return };
        destination.unanswered = 0;
        destination.last_used = now.instant;
        let Some(ticket) = destination.in_flight.remove(&forward) else { return };
        let waits = !destination.to_send.is_empty();
        let answer = match result {
            Ok(sealed) => ProxyAnswer::Response(sealed),
            Err(error) => ProxyAnswer::Failed(error),
        };
        self.commands -= 1;
        self.answers.push_back((ticket, answer));
        if waits {
            self.announce(id);
        }
        self.arm(id);
    }

    /// A connection is over, or was never made: everybody who waits for it is told why. What could not be reached is
    /// remembered.
    pub fn lost(&mut self, id: LinkId, error: BrokerError, now: Now) {
        let Some(destination) = self.destination(id) else { return };
        if matches!(destination.state, State::Failed { .. }) {
            return;
        }
        let clients = core::mem::take(&mut destination.clients);
        self.end(id, error, clients, false, now);
        self.dial_next(now);
    }

    /// Ends what a destination is doing, and answers everybody who waits for it.
    fn end(
        &mut self,
        id: LinkId,
        error: BrokerError,
        clients: VecDeque<WaitingClient>,
        close: bool,
        now: Now,
    ) {
        let until = now.instant + self.config.failure_memory;
        let Some(destination) = self.destination(id) else { return };
        let to_send = core::mem::take(&mut destination.to_send);
        let in_flight = core::mem::take(&mut destination.in_flight);
        destination.until = VecDeque::new();
        let failed = State::Failed { error: error.clone(), until };
        let before = core::mem::replace(&mut destination.state, failed);
        let lost = to_send.len() + in_flight.len();
        self.commands -= lost;
        self.statistics.unanswered += lost as u64;
        let tickets = clients.into_iter().map(|client| client.ticket);
        let tickets =
            tickets.chain(in_flight.into_values()).chain(to_send.into_iter().map(|(_, ticket)| ticket));
        for ticket in tickets {
            self.answers.push_back((ticket, ProxyAnswer::Failed(ProxyError::Broker(error.clone()))));
        }
        if close {
            self.actions.push_back(ProxyAction::Close(id));
        }
        match before {
            State::Open(session) => {
                // A connection that was there may be there again at once.
                if self.by_session.get(&session.session) == Some(&id) {
                    self.by_session.remove(&session.session);
                }
                self.remove(id);
            }
            State::Dialling { dialled_for, .. } => {
                self.turns.finished(dialled_for);
                self.statistics.failed_connections += 1;
                self.arm(id);
            }
            State::Handshake { .. } | State::Queued | State::Failed { .. } => {
                self.statistics.failed_connections += 1;
                self.arm(id);
            }
        }
    }

    /// Dials those whose turn it is.
    fn dial_next(&mut self, now: Now) {
        let until = now.instant + self.config.connect_time_limit;
        while let Some((client, id)) = self.turns.next() {
            let Some(destination) = self.destination(id).filter(|one| matches!(one.state, State::Queued))
            else {
                // Whoever wanted it has given up meanwhile.
                self.turns.finished(client);
                continue;
            };
            destination.state = State::Dialling { dialled_for: client, until };
            let address = destination.address.clone();
            self.actions.push_back(ProxyAction::Dial(id, address));
            self.arm(id);
        }
    }

    fn announce(&mut self, id: LinkId) {
        if let Some(destination) = self.destination(id)
            && !destination.announced
        {
            destination.announced = true;
            self.actions.push_back(ProxyAction::MaySend(id));
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<ProxyAction> {
        self.actions.pop_front()
    }

    /// The next answer, for the broker.
    pub fn poll_answer(&mut self) -> Option<(ProxyTicket, ProxyAnswer)> {
        self.answers.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some((due, id)) = self.deadlines.first().copied()
            && due <= now.instant
        {
            self.deadlines.remove(&(due, id));
            if let Some(destination) = self.destination(id) {
                destination.deadline = None;
                self.due(id, now);
            }
        }
        self.dial_next(now);
    }

    fn due(&mut self, id: LinkId, now: Now) {
        let idle_after = self.config.idle_after;
        let (most, mut late) = (self.config.unanswered.max(1), Vec::new());
        let Some(destination) = self.destination(id) else { return };
        while destination.clients.front().is_some_and(|client| client.until <= now.instant) {
            late.extend(destination.clients.pop_front().map(|client| client.ticket));
        }
        let waiting_clients = late.len();
        while let Some((until, forward)) = destination.until.front().copied()
            && until <= now.instant
        {
            destination.until.pop_front();
            late.extend(destination.in_flight.remove(&forward));
        }
        // What was never sent says nothing about the destination.
        destination.unanswered = destination
            .unanswered
            .saturating_add(u32::try_from(late.len() - waiting_clients).unwrap_or(u32::MAX));
        while destination.to_send.front().is_some_and(|(forward, _)| forward.until <= now.instant) {
            late.extend(destination.to_send.pop_front().map(|(_, ticket)| ticket));
        }
        let waits = !destination.to_send.is_empty();
        let dead = destination.unanswered >= most;
        enum Fate {
            Stays,
            Remove,
            Close,
            Fail,
        }
        let fate = match &destination.state {
            State::Queued if destination.clients.is_empty() => Fate::Remove,
            State::Dialling { until, .. } | State::Handshake { until } if *until <= now.instant => Fate::Fail,
            State::Failed { until, .. } if *until <= now.instant => Fate::Remove,
            State::Open(_) if dead => Fate::Fail,
            State::Open(_)
                if destination.to_send.is_empty()
                    && destination.in_flight.is_empty()
                    && destination.last_used + idle_after <= now.instant =>
            {
                Fate::Close
            }
            _ => Fate::Stays,
        };
        let commands = late.len() - waiting_clients;
        self.commands -= commands;
        self.statistics.unanswered += commands as u64;
        for ticket in late {
            self.fail(ticket, BrokerError::Timeout);
        }
        match fate {
            Fate::Stays => {
                if waits {
                    self.announce(id);
                }
                self.arm(id);
            }
            Fate::Remove => self.remove(id),
            Fate::Close => self.end(id, BrokerError::Timeout, VecDeque::new(), true, now),
            Fate::Fail => {
                let clients = self.destination(id).map(|one| core::mem::take(&mut one.clients));
                self.end(id, BrokerError::Timeout, clients.unwrap_or_default(), true, now);
            }
        }
    }

    fn destination(&mut self, id: LinkId) -> Option<&mut Destination> {
        let slot = self.slots.get_mut(id.slot()).filter(|slot| slot.generation == id.generation)?;
        slot.destination.as_mut()
    }

    /// Makes a destination, in place of the one that was idle for longest if there are too many.
    fn insert(&mut self, key: Box<[u8]>, address: Box<ServerAddress>, own: bool, now: Now) -> Option<LinkId> {
        if self.count >= self.config.limits.destinations {
            let (_, oldest) = self.idle.first().copied()?;
            let is_open = self.destination(oldest).is_some_and(|one| matches!(one.state, State::Open(_)));
            if is_open {
                self.end(oldest, BrokerError::Timeout, VecDeque::new(), true, now);
            } else {
                self.remove(oldest);
            }
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let place = self.slots.get_mut(slot as usize)?;
        let id = LinkId { slot, generation: place.generation };
        place.destination = Some(Destination {
            key: key.clone(),
            address,
            own,
            state: State::Queued,
            clients: VecDeque::new(),
            to_send: VecDeque::new(),
            in_flight: BTreeMap::new(),
            until: VecDeque::new(),
            unanswered: 0,
            last_used: now.instant,
            announced: false,
            deadline: None,
            idle_since: None,
        });
        self.count += 1;
        self.by_address.insert(key, id);
        Some(id)
    }

    /// Forgets a destination for which nobody waits.
    fn remove(&mut self, id: LinkId) {
        let Some(slot) = self.slots.get_mut(id.slot()).filter(|slot| slot.generation == id.generation) else {
            return;
        };
        let Some(destination) = slot.destination.take() else { return };
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.slot);
        self.count -= 1;
        self.by_address.remove(&destination.key);
        if let Some(at) = destination.deadline {
            self.deadlines.remove(&(at, id));
        }
        if let Some(at) = destination.idle_since {
            self.idle.remove(&(at, id));
        }
    }

    /// Enters when a destination is to be looked at next, and whether it can be forgotten for another.
    fn arm(&mut self, id: LinkId) {
        let idle_after = self.config.idle_after;
        let Some(destination) = self.destination(id) else { return };
        let waits = destination.clients.front().map(|client| client.until);
        let commands = destination.to_send.front().map(|(forward, _)| forward.until);
        let in_flight = destination.until.front().map(|(until, _)| *until);
        let has_nothing = destination.clients.is_empty()
            && destination.to_send.is_empty()
            && destination.in_flight.is_empty();
        let (own, idle) = match &destination.state {
            State::Queued => (None, None),
            State::Dialling { until, .. } | State::Handshake { until } => (Some(*until), None),
            State::Failed { until, .. } => (Some(*until), Some(destination.last_used)),
            State::Open(_) if has_nothing => {
                (Some(destination.last_used + idle_after), Some(destination.last_used))
            }
            State::Open(_) => (None, None),
        };
        let at = [waits, commands, in_flight, own].into_iter().flatten().min();
        let before = core::mem::replace(&mut destination.deadline, at);
        let idle_before = core::mem::replace(&mut destination.idle_since, idle);
        if before != at {
            if let Some(before) = before {
                self.deadlines.remove(&(before, id));
            }
            if let Some(at) = at {
                self.deadlines.insert((at, id));
            }
        }
        if idle_before != idle {
            if let Some(before) = idle_before {
                self.idle.remove(&(before, id));
            }
            if let Some(at) = idle {
                self.idle.insert((at, id));
            }
        }
    }

    /// Figures for operators.
    #[must_use]
    pub fn statistics(&self) -> ProxyStatistics {
        ProxyStatistics {
            destinations: self.count,
            dials: self.turns.under_way(),
            commands: self.commands,
            ..self.statistics
        }
    }

    /// A digest of the whole state: equal for equal inputs. For simulations.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(self.next_forward.to_be_bytes());
        digest.update((self.commands as u64).to_be_bytes());
        for (slot, destination) in (0u64..).zip(self.slots.iter().map(|slot| &slot.destination)) {
            let Some(destination) = destination else { continue };
            digest.update(slot.to_be_bytes());
            digest.update(&destination.key);
            digest.update([match &destination.state {
                State::Queued => 0,
                State::Dialling { .. } => 1,
                State::Handshake { .. } => 2,
                State::Open(_) => 3,
                State::Failed { .. } => 4,
            }]);
            digest.update((destination.clients.len() as u64).to_be_bytes());
            digest.update((destination.to_send.len() as u64).to_be_bytes());
            for forward in destination.in_flight.keys() {
                digest.update(forward.0.to_be_bytes());
            }
            digest.update(destination.deadline.map_or(0, Instant::as_micros).to_be_bytes());
        }
        digest.finalize().into()
    }

    /// Checks the invariants. For simulations and tests.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn check(&self) -> Result<(), Inconsistency> {
        let ensure = |holds: bool, what| if holds { Ok(()) } else { Err(Inconsistency(what)) };
        let (mut count, mut open, mut commands, mut deadlines, mut idle, mut dialling) = (0, 0, 0, 0, 0, 0);
        for (slot, place) in (0u32..).zip(&self.slots) {
            let Some(destination) = &place.destination else { continue };
            let id = LinkId { slot, generation: place.generation };
            count += 1;
            commands += destination.to_send.len() + destination.in_flight.len();
            ensure(self.by_address.get(&destination.key) == Some(&id), "a destination that nobody finds")?;
            match &destination.state {
                State::Open(session) => {
                    open += 1;
                    ensure(
                        self.by_session.get(&session.session) == Some(&id),
                        "a session that nobody finds",
                    )?;
                    ensure(destination.clients.is_empty(), "a client waits for what is there")?;
                }
                State::Failed { .. } => {
                    ensure(destination.clients.is_empty(), "a client waits for what has failed")?;
                }
                State::Dialling { .. } => dialling += 1,
                State::Queued => {
                    ensure(!destination.clients.is_empty(), "a destination that nobody wants")?;
                }
                State::Handshake { .. } => {}
            }
            ensure(
                matches!(destination.state, State::Open(_))
                    || (destination.to_send.is_empty() && destination.in_flight.is_empty()),
                "a command for what is not connected",
            )?;
            ensure(destination.deadline.is_some(), "a destination may stay forever")?;
            for (at, set, counted) in [
                (destination.deadline, &self.deadlines, &mut deadlines),
                (destination.idle_since, &self.idle, &mut idle),
            ] {
                if let Some(at) = at {
                    *counted += 1;
                    ensure(set.contains(&(at, id)), "a time that nobody waits for")?;
                }
            }
        }
        ensure(count == self.count && count == self.by_address.len(), "a count of destinations")?;
        ensure(count <= self.config.limits.destinations.max(1), "too many destinations")?;
        ensure(open == self.by_session.len(), "a session of nobody")?;
        ensure(commands == self.commands, "a count of commands")?;
        ensure(deadlines == self.deadlines.len() && idle == self.idle.len(), "a time of nobody")?;
        ensure(dialling == self.turns.under_way() && self.turns.is_consistent(), "a dial of nobody")
    }
}

/// What a destination is found by: fingerprint, hosts and port.
fn key_of(address: &ServerAddress) -> Box<[u8]> {
    let mut key = Vec::from(&address.fingerprint[..]);
    let port = address.port_number().unwrap_or_default();
    key.extend_from_slice(&port.to_be_bytes());
    for host in &address.hosts {
        key.extend_from_slice(alloc::format!("{host},").as_bytes());
    }
    key.into()
}

impl core::fmt::Debug for Proxy {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter
            .debug_struct("Proxy")
            .field("destinations", &self.count)
            .field("commands", &self.commands)
            .finish_non_exhaustive()
    }
}
