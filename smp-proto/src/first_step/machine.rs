//! The machine: who is there, what is held, and what is to be done next.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::config::FirstStepConfig;
use super::destination::{Destination, DestinationNumber};
use super::record::{ClientRecord, RecordError, RecordKey, Write, decode_item, encode_item};
use crate::entropy::Entropy;
use crate::keys::X25519Public;
use crate::time::{Duration, Instant, Now};
use crate::wire::address::ServerAddress;
use crate::wire::first_step::{
    Correlation, FirstStepError, Forward, ForwardOptions, Hold, Message, PublishedKey, Registered,
    RelayFailure, RelayNumber, Transmission,
};
use crate::wire::primitives::Reader;

/// Names a client's connection. Given by the driver, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(pub u64);

/// Names a write, for its completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub u64);

/// Names a read, for its completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make these writes, all or none, and report it with [`FirstStep::stored`]. Writes take effect in the order of actions.
    Store {
        /// For the completion.
        id: StoreId,
        /// The writes.
        writes: Vec<Write>,
    },
    /// Read this record, and report it with [`FirstStep::read`].
    Read {
        /// For the completion.
        id: ReadId,
        /// Which.
        key: RecordKey,
    },
    /// Connect to this relay, speaking `smp-proxy/1`, then call [`FirstStep::connected`] or
    /// [`FirstStep::disconnected`].
    Connect(DestinationNumber, ServerAddress),
    /// Close the connection. [`FirstStep::disconnected`] need not be called.
    Disconnect(DestinationNumber),
    /// There may be something in [`FirstStep::poll_to_client`].
    TellClient(UserId),
    /// There may be something in [`FirstStep::poll_to_destination`].
    TellDestination(DestinationNumber),
}

/// Names a client within this relay; never on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ClientNumber(pub(super) u64);

/// Where a command of a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ItemState {
    /// It is being stored.
    Storing,
    /// It waits to be sent.
    Waiting,
    /// Its body is being read, to be sent.
    Reading,
    /// It was sent.
    Sent,
    /// It was answered; the answer is, or is being, stored.
    Answered,
    /// There will be no answer.
    Failed(FirstStepError),
}

/// A command of a client, or what became of it.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) state: ItemState,
    pub(super) options: ForwardOptions,
    /// When it may be sent at the earliest, in seconds since 1970.
    pub(super) not_before: i64,
    /// When it, or its answer, is given up.
    pub(super) until: i64,
    pub(super) attempts: u16,
    pub(super) last: RelayFailure,
    pub(super) key_number: RelayNumber,
    pub(super) key: X25519Public,
    /// When it may be tried again.
    pub(super) retry_at: Instant,
    /// Its bytes, when it is not held.
    pub(super) body: Option<Bytes>,
}

/// One client: whoever shows its token.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) token: [u8; 32],
    pub(super) destination: DestinationNumber,
    pub(super) user: Option<(UserId, RelayNumber)>,
    pub(super) newest: Correlation,
    pub(super) items: BTreeMap<Correlation, Item>,
    /// Items that may be sent, in their order.
    pub(super) due: BTreeSet<Correlation>,
    /// Items that may be sent later, by when.
    pub(super) scheduled: BTreeSet<(i64, Correlation)>,
    /// Items that are given up, by when.
    pub(super) expiry: BTreeSet<(i64, Correlation)>,
    /// Items with an answer that is stored.
    pub(super) finals: BTreeSet<Correlation>,
    /// The one that is on its way.
    pub(super) busy: Option<Correlation>,
    /// Whether it stands in its destination's line.
    pub(super) in_line: bool,
    /// Whether there is a record of it.
    pub(super) is_stored: bool,
    timer: Option<Instant>,
}

/// One client's connection.
#[derive(Debug, Default)]
pub(super) struct User {
    pub(super) registrations: BTreeMap<RelayNumber, (ClientNumber, RelayNumber)>,
    outgoing: VecDeque<(Correlation, RelayNumber, ToClient)>,
    /// Commands in memory.
    pub(super) immediate: usize,
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

/// What a completion of storage is for.
#[derive(Debug)]
pub(super) enum Stored {
    /// A command is held.
    Held(ClientNumber, Correlation),
    /// The outcome of a command is kept; the answer, to be told.
    Outcome(ClientNumber, Correlation, Option<Bytes>),
    /// Something is forgotten, or kept for later.
    Nothing,
}

/// What a read is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    /// The command, to be sent.
    Command(ClientNumber, Correlation),
    /// The answer, to be told.
    Answer(ClientNumber, Correlation),
}

/// The first-step relay: see the room's documentation.
pub struct FirstStep {
    pub(super) config: FirstStepConfig,
    pub(super) clients: BTreeMap<ClientNumber, Client>,
    pub(super) tokens: BTreeMap<[u8; 32], ClientNumber>,
    pub(super) users: BTreeMap<UserId, User>,
    pub(super) destinations: BTreeMap<DestinationNumber, Destination>,
    /// Destinations by the hash of their address.
    pub(super) addresses: BTreeMap<[u8; 32], DestinationNumber>,
    pub(super) actions: VecDeque<Action>,
    pub(super) stores: BTreeMap<StoreId, Stored>,
    pub(super) reads: BTreeMap<ReadId, Wanted>,
    timers: BTreeSet<(Instant, Timer)>,
    next: u64,
    pub(super) held: usize,
}

/// The hash under which a token is known.
pub(super) fn token_hash(token: &[u8; 32]) -> [u8; 32] {
    Sha256::digest(token).into()
}

impl FirstStep {
    /// A first-step relay that holds nothing.
    #[must_use]
    pub const fn new(config: FirstStepConfig) -> Self {
        Self {
            config,
            clients: BTreeMap::new(),
            tokens: BTreeMap::new(),
            users: BTreeMap::new(),
            destinations: BTreeMap::new(),
            addresses: BTreeMap::new(),
            actions: VecDeque::new(),
            stores: BTreeMap::new(),
            reads: BTreeMap::new(),
            timers: BTreeSet::new(),
            next: 1,
            held: 0,
        }
    }

    /// The relay as its records say: all of those that [are loaded](RecordKey::is_loaded), in the order of
    /// [`RecordKey::to_bytes`].
    ///
    /// # Errors
    /// [`RecordError`] for the first record that cannot be used.
    pub fn restore<B: AsRef<[u8]>>(
        config: FirstStepConfig,
        records: impl IntoIterator<Item = (RecordKey, B)>,
        now: Now,
    ) -> Result<Self, RecordError> {
        let mut relay = Self::new(config);
        for (key, content) in records {
            let content = content.as_ref();
            match key {
                RecordKey::Client(number) => {
                    let record = ClientRecord::decode(content).ok_or(RecordError(key))?;
                    let destination = relay.destination(&record.address);
                    let client = ClientNumber(number);
                    relay.next = relay.next.max(number.saturating_add(1));
                    let mut entry = Client::new(record.token, destination, record.newest);
                    entry.is_stored = true;
                    relay.enter(client, entry);
                }
                RecordKey::Item(number, correlation) => {
                    let item = decode_item(content).ok_or(RecordError(key))?;
                    let client = relay.clients.get_mut(&ClientNumber(number)).ok_or(RecordError(key))?;
                    client.newest = client.newest.max(correlation);
                    client.expiry.insert((item.until, correlation));
                    if item.state == ItemState::Waiting {
                        client.scheduled.insert((item.not_before, correlation));
                    } else {
                        client.finals.insert(correlation);
                    }
                    client.items.insert(correlation, item);
                    relay.held += 1;
                    if let Some(destination) = relay.destinations.get_mut(&client.destination) {
                        destination.held += 1;
                    }
                }
                RecordKey::Published(hash) => {
                    relay.restore_published(hash, content).ok_or(RecordError(key))?;
                }
                RecordKey::Body(..) => {}
            }
        }
        let all: Vec<_> = relay.clients.keys().copied().collect();
        for client in all {
            relay.advance(client, now);
            relay.forget_if_empty(client);
        }
        Ok(relay)
    }

    pub(super) fn enter(&mut self, number: ClientNumber, client: Client) {
        if let Some(destination) = self.destinations.get_mut(&client.destination) {
            destination.clients += 1;
        }
        self.tokens.insert(client.token, number);
        self.clients.insert(number, client);
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

    /// Takes what a client said: the content of a block.
    pub fn receive(&mut self, user: UserId, content: &[u8], now: Now, entropy: &mut (impl Entropy + ?Sized)) {
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
            Message::Forward(forward) => self.forward(user, correlation, relay, &forward, now),
            Message::Check { acknowledged } => {
                let Some(client) = self.registered(user, relay) else {
                    return self.tell(user, correlation, relay, ToClient::Error(FirstStepError::NoRelay));
                };
                self.acknowledge(client, acknowledged);
                self.check(client, correlation, now);
            }
            Message::Registered(_) | Message::Response(_) | Message::Error(_) => {
                self.tell(user, correlation, relay, ToClient::Error(FirstStepError::Syntax));
            }
        }
    }

    pub(super) fn registered(&self, user: UserId, relay: RelayNumber) -> Option<ClientNumber> {
        self.users.get(&user)?.registrations.get(&relay).map(|(client, _)| *client)
    }

    fn forward(
        &mut self,
        user: UserId,
        correlation: Correlation,
        relay: RelayNumber,
        forward: &Forward<'_>,
        now: Now,
    ) {
        let found = self.users.get(&user).and_then(|known| known.registrations.get(&relay).copied());
        let Some((number, key_number)) = found else {
            return self.tell(user, correlation, relay, ToClient::Error(FirstStepError::NoRelay));
        };
        self.acknowledge(number, forward.acknowledged);
        let result = self.take(user, number, key_number, correlation, forward, now);
        if let Err(error) = result {
            self.tell(user, correlation, relay, ToClient::Error(error));
        }
    }

    fn take(
        &mut self,
        user: UserId,
        number: ClientNumber,
        key_number: RelayNumber,
        correlation: Correlation,
        forward: &Forward<'_>,
        now: Now,
    ) -> Result<(), FirstStepError> {
        let limits = self.config.limits;
        let client = self.clients.get_mut(&number).ok_or(FirstStepError::NoRelay)?;
        if correlation <= client.newest {
            // Asked again, since the client has not heard: it is what it was.
            self.check(number, correlation, now);
            return Ok(());
        }
        let destination = client.destination;
        let hold = forward.options.hold;
        let not_before = now.wall.0.saturating_add(i64::from(forward.delay) * 60);
        let until = not_before.saturating_add(i64::try_from(hold.seconds()).unwrap_or(i64::MAX));
        let body = Bytes::copy_from_slice(forward.sealed);
        let mut item = Item {
            state: ItemState::Waiting,
            options: forward.options,
            not_before,
            until,
            attempts: 0,
            last: RelayFailure::Network,
            key_number,
            key: forward.key,
            retry_at: Instant::START,
            body: None,
        };
        if hold == Hold::Never {
            let known = self.users.get_mut(&user).ok_or(FirstStepError::NoRelay)?;
            if forward.delay > 0 {
                return Err(FirstStepError::Syntax);
            }
            if known.immediate >= limits.immediate {
                return Err(FirstStepError::Quota);
            }
            known.immediate += 1;
            item.body = Some(body);
            client.newest = correlation;
            client.items.insert(correlation, item);
            client.due.insert(correlation);
            self.advance(number, now);
            return Ok(());
        }
        let held_there = self.destinations.get(&destination).map_or(0, |destination| destination.held);
        let too_many = client.items.len() >= limits.held_by_client
            || held_there >= limits.held_for_destination
            || self.held >= limits.held;
        if too_many {
            return Err(FirstStepError::Quota);
        }
        client.newest = correlation;
        let record = self.client_record(number).ok_or(FirstStepError::Internal)?;
        let writes = alloc::vec![
            Write::Put(RecordKey::Client(number.0), record),
            Write::Put(RecordKey::Item(number.0, correlation), encode_item(&item)),
            Write::Put(RecordKey::Body(number.0, correlation), body),
        ];
        item.state = ItemState::Storing;
        if let Some(client) = self.clients.get_mut(&number) {
            client.is_stored = true;
            client.items.insert(correlation, item);
        }
        self.held += 1;
        if let Some(destination) = self.destinations.get_mut(&destination) {
            destination.held += 1;
        }
        self.store(writes, Stored::Held(number, correlation));
        Ok(())
    }

    fn client_record(&self, number: ClientNumber) -> Option<Bytes> {
        let client = self.clients.get(&number)?;
        let address = self.destinations.get(&client.destination)?.address.clone();
        ClientRecord { token: client.token, address, newest: client.newest }.encode().ok()
    }

    pub(super) fn store(&mut self, writes: Vec<Write>, then: Stored) {
        let id = StoreId(self.number());
        self.stores.insert(id, then);
        self.actions.push_back(Action::Store { id, writes });
    }

    pub(super) fn read_record(&mut self, key: RecordKey, wanted: Wanted) {
        let id = ReadId(self.number());
        self.reads.insert(id, wanted);
        self.actions.push_back(Action::Read { id, key });
    }

    /// Storage has made the writes, or none of them.
    pub fn stored(&mut self, id: StoreId, done: bool, now: Now) {
        match self.stores.remove(&id) {
            Some(Stored::Held(number, correlation)) => self.is_held(number, correlation, done, now),
            Some(Stored::Outcome(number, correlation, answer)) => {
                self.outcome_is_kept(number, correlation, answer, now);
            }
            Some(Stored::Nothing) | None => {}
        }
    }

    fn is_held(&mut self, number: ClientNumber, correlation: Correlation, done: bool, now: Now) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let Some(item) = client.items.get_mut(&correlation) else { return };
        if !done {
            self.tell_client(number, correlation, ToClient::Error(FirstStepError::Internal));
            self.remove_item(number, correlation);
            return;
        }
        item.state = ItemState::Waiting;
        let held = FirstStepError::Held { attempts: 0, next: item.not_before };
        client.expiry.insert((item.until, correlation));
        client.scheduled.insert((item.not_before, correlation));
        self.tell_client(number, correlation, ToClient::Error(held));
        self.advance(number, now);
    }

    /// A record was read; `None` when it is not there, or cannot be read.
    pub fn read(&mut self, id: ReadId, content: Option<Bytes>, now: Now) {
        match self.reads.remove(&id) {
            Some(Wanted::Command(number, correlation)) => {
                let reading = self
                    .clients
                    .get(&number)
                    .and_then(|client| client.items.get(&correlation))
                    .is_some_and(|item| item.state == ItemState::Reading);
                match content {
                    Some(body) if reading => self.send(number, correlation, body, now),
                    _ => {
                        let there = self.clients.get(&number).map(|client| client.destination);
                        if let Some(there) = there.and_then(|there| self.destinations.get_mut(&there)) {
                            there.reading = there.reading.saturating_sub(1);
                        }
                        self.settle(number, correlation, Err(FirstStepError::Internal), now);
                    }
                }
            }
            Some(Wanted::Answer(number, correlation)) => {
                let answer = content.map_or(ToClient::Error(FirstStepError::Internal), ToClient::Response);
                self.tell_client(number, correlation, answer);
            }
            None => {}
        }
    }

    /// Does for a client what can be done now, and enters when it is to be looked at again.
    pub(super) fn advance(&mut self, number: ClientNumber, now: Now) {
        self.expire(number, now);
        let Some(client) = self.clients.get_mut(&number) else { return };
        while let Some((at, correlation)) = client.scheduled.first().copied()
            && at <= now.wall.0
        {
            client.scheduled.remove(&(at, correlation));
            client.due.insert(correlation);
        }
        let head = client.due.first().copied().filter(|_| client.busy.is_none());
        let retry_at = head.and_then(|head| client.items.get(&head)).map(|item| item.retry_at);
        let destination = client.destination;
        let mut wait = None;
        if let (Some(head), Some(at)) = (head, retry_at) {
            if at > now.instant {
                wait = Some(at);
            } else if !self.start(number, head, destination, now) {
                return;
            }
        }
        let Some(client) = self.clients.get(&number) else { return };
        let later = |at: i64| {
            let seconds = u64::try_from(at.saturating_sub(now.wall.0)).unwrap_or(0);
            now.instant + Duration::from_secs(seconds)
        };
        let scheduled = client.scheduled.first().map(|(at, _)| later(*at));
        let expiry =
            client.expiry.first().map(|(at, _)| later(*at).max(now.instant + Duration::from_secs(1)));
        let timer = [wait, scheduled, expiry].into_iter().flatten().min();
        self.set_client_timer(number, timer);
    }

    /// Begins to send a command, if its destination has room. False when the client was looked at again meanwhile.
    fn start(
        &mut self,
        number: ClientNumber,
        correlation: Correlation,
        destination: DestinationNumber,
        now: Now,
    ) -> bool {
        let outstanding = self.config.limits.outstanding;
        let Some(there) = self.destinations.get_mut(&destination) else { return true };
        if !there.is_ready() || there.load() >= outstanding {
            let remembered = there.remembered_failure(now);
            let Some(client) = self.clients.get_mut(&number) else { return true };
            let is_immediate =
                client.items.get(&correlation).is_some_and(|item| item.options.hold == Hold::Never);
            if let Some(failure) = remembered.filter(|_| is_immediate) {
                self.settle(number, correlation, Err(FirstStepError::Relay(failure)), now);
                return false;
            }
            if !core::mem::replace(&mut client.in_line, true) {
                there.line.push_back(number);
            }
            self.want(destination, now);
            return true;
        }
        let Some(client) = self.clients.get_mut(&number) else { return true };
        let Some(item) = client.items.get_mut(&correlation) else { return true };
        client.busy = Some(correlation);
        client.due.remove(&correlation);
        there.reading += 1;
        match &item.body {
            Some(body) => {
                let body = body.clone();
                item.state = ItemState::Reading;
                self.send(number, correlation, body, now);
            }
            None => {
                item.state = ItemState::Reading;
                self.read_record(
                    RecordKey::Body(number.0, correlation),
                    Wanted::Command(number, correlation),
                );
            }
        }
        true
    }

    /// Gives up what was held too long, and forgets answers that nobody has fetched.
    fn expire(&mut self, number: ClientNumber, now: Now) {
        while let Some(client) = self.clients.get_mut(&number)
            && let Some((at, correlation)) = client.expiry.first().copied()
            && at <= now.wall.0
        {
            client.expiry.remove(&(at, correlation));
            let Some(item) = client.items.get(&correlation) else { continue };
            match item.state {
                ItemState::Answered | ItemState::Failed(_) => {
                    client.finals.remove(&correlation);
                    self.forget(number, &[correlation]);
                }
                ItemState::Waiting => {
                    let last = item.last;
                    client.due.remove(&correlation);
                    client.scheduled.remove(&(item.not_before, correlation));
                    self.settle(number, correlation, Err(FirstStepError::Expired { last }), now);
                }
                // Its answer, or its absence, decides.
                ItemState::Storing | ItemState::Reading | ItemState::Sent => {}
            }
        }
        self.forget_if_empty(number);
    }

    fn set_client_timer(&mut self, number: ClientNumber, at: Option<Instant>) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        if client.timer != at {
            let before = core::mem::replace(&mut client.timer, at);
            self.set_timer(Timer::Client(number), before, at);
        }
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

    /// Takes an item out of everything.
    pub(super) fn remove_item(&mut self, number: ClientNumber, correlation: Correlation) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let Some(item) = client.items.remove(&correlation) else { return };
        client.due.remove(&correlation);
        client.scheduled.remove(&(item.not_before, correlation));
        client.expiry.remove(&(item.until, correlation));
        client.finals.remove(&correlation);
        if client.busy == Some(correlation) {
            client.busy = None;
        }
        if item.options.hold == Hold::Never {
            if let Some(user) = client.user.and_then(|(user, _)| self.users.get_mut(&user)) {
                user.immediate = user.immediate.saturating_sub(1);
            }
        } else {
            self.held = self.held.saturating_sub(1);
            if let Some(destination) = self.destinations.get_mut(&client.destination) {
                destination.held = destination.held.saturating_sub(1);
            }
        }
    }

    /// Removes items with their records.
    pub(super) fn forget(&mut self, number: ClientNumber, which: &[Correlation]) {
        let mut writes = Vec::with_capacity(which.len() * 2);
        for correlation in which {
            self.remove_item(number, *correlation);
            writes.push(Write::Delete(RecordKey::Item(number.0, *correlation)));
            writes.push(Write::Delete(RecordKey::Body(number.0, *correlation)));
        }
        if !writes.is_empty() {
            self.store(writes, Stored::Nothing);
        }
    }

    /// A client that has nothing here and is not there is nobody.
    pub(super) fn forget_if_empty(&mut self, number: ClientNumber) {
        let Some(client) = self.clients.get(&number) else { return };
        if client.user.is_some() || !client.items.is_empty() {
            return;
        }
        let (token, is_stored, timer, destination) =
            (client.token, client.is_stored, client.timer, client.destination);
        self.set_timer(Timer::Client(number), timer, None);
        self.tokens.remove(&token);
        self.clients.remove(&number);
        if let Some(destination) = self.destinations.get_mut(&destination) {
            destination.clients = destination.clients.saturating_sub(1);
        }
        if is_stored {
            self.store(alloc::vec![Write::Delete(RecordKey::Client(number.0))], Stored::Nothing);
        }
        self.leave(destination);
    }

    /// Tells whoever shows the client's token now.
    pub(super) fn tell_client(&mut self, number: ClientNumber, correlation: Correlation, what: ToClient) {
        if let Some((user, relay)) = self.clients.get(&number).and_then(|client| client.user) {
            self.tell(user, correlation, relay, what);
        }
    }

    pub(super) fn tell(
        &mut self,
        user: UserId,
        correlation: Correlation,
        relay: RelayNumber,
        what: ToClient,
    ) {
        let most = self.config.limits.immediate + self.config.limits.registrations;
        let Some(known) = self.users.get_mut(&user) else { return };
        // Whoever does not read is not waited for: what became of a command can be asked again.
        if known.outgoing.len() >= most {
            return;
        }
        if known.outgoing.is_empty() {
            self.actions.push_back(Action::TellClient(user));
        }
        known.outgoing.push_back((correlation, relay, what));
    }

    /// The content of the next block for a client.
    pub fn poll_to_client(&mut self, user: UserId) -> Option<Vec<u8>> {
        let (correlation, relay, what) = self.users.get_mut(&user)?.outgoing.pop_front()?;
        let published;
        let response;
        let message = match what {
            ToClient::Registered { until, published: bytes } => {
                published = bytes;
                match PublishedKey::read(&mut Reader::new(&published)) {
                    Some(key) => Message::Registered(Registered { until, key }),
                    None => Message::Error(FirstStepError::Internal),
                }
            }
            ToClient::Response(bytes) => {
                response = bytes;
                Message::Response(&response)
            }
            ToClient::Error(error) => Message::Error(error),
        };
        let mut content = Vec::new();
        let transmission = Transmission { correlation, relay, message };
        if transmission.encode(&mut content).is_err() {
            // An answer of a wrong length was refused when it came; whatever else it is, it cannot be said.
            content.clear();
            let error = Message::Error(FirstStepError::Internal);
            Transmission { correlation, relay, message: error }.encode(&mut content).ok()?;
        }
        Some(content)
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
}

impl Client {
    pub(super) const fn new(token: [u8; 32], destination: DestinationNumber, newest: Correlation) -> Self {
        Self {
            token,
            destination,
            user: None,
            newest,
            items: BTreeMap::new(),
            due: BTreeSet::new(),
            scheduled: BTreeSet::new(),
            expiry: BTreeSet::new(),
            finals: BTreeSet::new(),
            busy: None,
            in_line: false,
            is_stored: false,
            timer: None,
        }
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
