//! The machine: who is there, what is said to whom, and what is to be done next.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::client::{Client, ClientNumber};
use super::config::FirstStepConfig;
use super::destination::{Destination, DestinationLink, DestinationNumber};
use super::storing::Pending;
use crate::broker::ConnectionId;
use crate::broker::storage::{ActionId, StorageAction};
use crate::entropy::Entropy;
use crate::proxy::Turns;
use crate::time::{Instant, Now};
use crate::wire::address::ServerAddress;
use crate::wire::first_step::{
    Correlation, FirstStepError, Hold, Message, PublishedKey, Registered, RelayNumber, Transmission,
};
use crate::wire::primitives::{Reader, Writer};

/// Names a client's connection. Given by the driver, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(pub u64);

impl From<ConnectionId> for UserId {
    fn from(connection: ConnectionId) -> Self {
        Self(connection.to_number())
    }
}

impl UserId {
    /// The connection, when it is one of the broker's.
    #[must_use]
    pub const fn connection(self) -> ConnectionId {
        ConnectionId::from_number(self.0)
    }
}

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect to this relay, speaking `smp-proxy/1`, then call [`FirstStep::connected`] when the handshakes are over, or
    /// [`FirstStep::disconnected`].
    Connect(DestinationLink, Box<ServerAddress>),
    /// Close the connection, or give up the dial. [`FirstStep::disconnected`] need not be called.
    Disconnect(DestinationLink),
    /// There may be something in [`FirstStep::poll_to_client`], or room for another block.
    TellClient(UserId),
    /// There may be something in [`FirstStep::poll_to_destination`].
    TellDestination(DestinationLink),
}

/// One client's connection.
#[derive(Debug, Default)]
pub(super) struct User {
    pub(super) registrations: BTreeMap<RelayNumber, (ClientNumber, RelayNumber)>,
    pub(super) outgoing: VecDeque<(Correlation, RelayNumber, ToClient)>,
    /// Commands in memory.
    pub(super) immediate: usize,
    /// Commands that are being stored.
    pub(super) storing: usize,
}

/// What a client is told.
#[derive(Debug)]
pub(super) enum ToClient {
    Registered { until: i64, published: Bytes },
    Response(Bytes),
    Error(FirstStepError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Client(ClientNumber),
    Destination(DestinationNumber),
}

/// For whom a destination is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asker {
    /// A connection that registers it.
    User(UserId),
    /// A client for whom something is held.
    Client(ClientNumber),
}

/// The first-step relay: see the room's documentation.
pub struct FirstStep {
    pub(super) config: FirstStepConfig,
    pub(super) clients: BTreeMap<ClientNumber, Box<Client>>,
    pub(super) tokens: BTreeMap<[u8; 32], ClientNumber>,
    pub(super) users: BTreeMap<UserId, User>,
    pub(super) destinations: BTreeMap<DestinationNumber, Destination>,
    /// Destinations by the hash of their address.
    pub(super) addresses: BTreeMap<[u8; 32], DestinationNumber>,
    /// Destinations that nobody wants, and that are known only for having failed.
    pub(super) failed: BTreeSet<DestinationNumber>,
    /// Whose destination is dialled next: of those that were never reached, and of the others.
    pub(super) turns: [Turns<Asker, DestinationNumber>; 2],
    pub(super) actions: VecDeque<Action>,
    pub(super) storage: VecDeque<(ActionId, StorageAction)>,
    pub(super) pending: BTreeMap<ActionId, Pending>,
    pub(super) timers: BTreeSet<(Instant, Timer)>,
    pub(super) next: u64,
    /// Commands and answers in storage.
    pub(super) held: usize,
    /// Commands in memory.
    pub(super) immediate: usize,
}

/// The hash under which a token is known.
pub(super) fn token_hash(token: &[u8; 32]) -> [u8; 32] {
    Sha256::digest(token).into()
}

impl FirstStep {
    /// A first-step relay that holds nothing.
    #[must_use]
    pub fn new(config: FirstStepConfig) -> Self {
        // Half of the dials are for destinations that are known to have been there: names of nobody do not hold them up.
        let (dials, each) = (config.limits.dials.div_ceil(2), config.limits.dials_per_client);
        Self {
            config,
            clients: BTreeMap::new(),
            tokens: BTreeMap::new(),
            users: BTreeMap::new(),
            destinations: BTreeMap::new(),
            addresses: BTreeMap::new(),
            failed: BTreeSet::new(),
            turns: [Turns::new(dials, each), Turns::new(dials, each)],
            actions: VecDeque::new(),
            storage: VecDeque::new(),
            pending: BTreeMap::new(),
            timers: BTreeSet::new(),
            next: 1,
            held: 0,
            immediate: 0,
        }
    }

    /// The rules of this relay.
    #[must_use]
    pub const fn config(&self) -> &FirstStepConfig {
        &self.config
    }

    /// A number that was never given before in this run.
    pub(super) const fn number(&mut self) -> u64 {
        let number = self.next;
        self.next = self.next.saturating_add(1);
        number
    }

    /// A client has connected.
    pub fn attach(&mut self, user: UserId) {
        self.users.entry(user).or_default();
    }

    /// A client's connection is over: what is not held is forgotten.
    pub fn detach(&mut self, user: UserId) {
        let Some(gone) = self.users.remove(&user) else { return };
        // Its commands in memory are removed below, where they no longer find their connection.
        for (number, _) in gone.registrations.into_values() {
            let Some(client) = self.clients.get_mut(&number) else { continue };
            if client.user.is_some_and(|(attached, _)| attached == user) {
                client.user = None;
                let dropped: Vec<_> = client
                    .items
                    .iter()
                    .filter(|(_, item)| item.options.hold == Hold::Never)
                    .map(|(correlation, _)| *correlation)
                    .collect();
                for correlation in dropped {
                    self.remove_item(number, correlation);
                }
            }
            self.forget_if_empty(number);
        }
    }

    /// Takes what a client said: the content of a block, of which what is kept is shared.
    pub fn receive(
        &mut self,
        user: UserId,
        content: &Bytes,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        if !self.users.contains_key(&user) {
            return;
        }
        let Some(Transmission { correlation, relay, message }) = Transmission::decode(content) else {
            self.tell(user, Correlation(0), RelayNumber(0), ToClient::Error(FirstStepError::Syntax));
            return;
        };
        match message {
            Message::Register(register) => {
                self.register(user, correlation, register, now, entropy);
            }
            Message::Forward(forward) => self.forward(user, correlation, relay, &forward, content, now),
            Message::Check { acknowledged } => {
                let Some(client) = self.registered(user, relay) else {
                    return self.tell(user, correlation, relay, ToClient::Error(FirstStepError::NoRelay));
                };
                self.acknowledge(client, acknowledged);
                self.check_on(client, correlation, now);
            }
            Message::Registered(_) | Message::Response(_) | Message::Error(_) => {
                self.tell(user, correlation, relay, ToClient::Error(FirstStepError::Syntax));
            }
        }
    }

    /// Whether another block of this client may be taken: what is said about those before finds room.
    #[must_use]
    pub fn has_room(&self, user: UserId) -> bool {
        self.users
            .get(&user)
            .is_some_and(|user| user.outgoing.len() + user.storing < self.config.limits.unanswered.max(1))
    }

    /// Whether something is held for this client that has no outcome yet: it is expected to be silent, and to wait.
    #[must_use]
    pub fn awaits(&self, user: UserId) -> bool {
        let registrations = self.users.get(&user).into_iter().flat_map(|user| user.registrations.values());
        let mut clients = registrations.filter_map(|(client, _)| self.clients.get(client));
        clients.any(|client| client.items.len() > client.finals.len())
    }

    pub(super) fn set_timer(&mut self, timer: Timer, before: Option<Instant>, at: Option<Instant>) {
        if let Some(before) = before {
            self.timers.remove(&(before, timer));
        }
        if let Some(at) = at {
            self.timers.insert((at, timer));
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now, entropy: &mut (impl Entropy + ?Sized)) {
        while let Some((at, timer)) = self.timers.first().copied()
            && at <= now.instant
        {
            self.timers.remove(&(at, timer));
            match timer {
                Timer::Client(number) => {
                    if let Some(client) = self.clients.get_mut(&number) {
                        client.timer = None;
                    }
                    self.advance(number, now);
                }
                Timer::Destination(number) => self.destination_timeout(number, now, entropy),
            }
        }
    }

    pub(super) fn tell(
        &mut self,
        user: UserId,
        correlation: Correlation,
        relay: RelayNumber,
        what: ToClient,
    ) {
        let limits = self.config.limits;
        let Some(known) = self.users.get_mut(&user) else { return };
        // Whoever does not read is not waited for: what became of a held command can be asked again.
        if known.outgoing.len() >= limits.immediate + limits.registrations + limits.unanswered {
            return;
        }
        if known.outgoing.is_empty() {
            self.actions.push_back(Action::TellClient(user));
        }
        known.outgoing.push_back((correlation, relay, what));
    }

    /// Writes the content of the next block for a client. False, when there is none.
    pub fn poll_to_client(&mut self, user: UserId, out: &mut impl Writer) -> bool {
        let Some(known) = self.users.get_mut(&user) else { return false };
        let Some((correlation, relay, what)) = known.outgoing.pop_front() else {
            known.outgoing = VecDeque::new();
            return false;
        };
        let message = match &what {
            ToClient::Registered { until, published } => {
                match PublishedKey::read(&mut Reader::new(published)) {
                    Some(key) => Message::Registered(Registered { until: *until, key }),
                    None => Message::Error(FirstStepError::Internal),
                }
            }
            ToClient::Response(bytes) => Message::Response(bytes),
            ToClient::Error(error) => Message::Error(*error),
        };
        // Every one of these came in a block, or fits in one.
        Transmission { correlation, relay, message }.encode(out).is_ok()
    }

    /// What the driver has to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// How many commands and answers are held.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.held
    }

    /// How many clients are known.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// How many destinations are known.
    #[must_use]
    pub fn destinations(&self) -> usize {
        self.destinations.len()
    }
}

impl core::fmt::Debug for FirstStep {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter
            .debug_struct("FirstStep")
            .field("clients", &self.clients.len())
            .field("destinations", &self.destinations.len())
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}
