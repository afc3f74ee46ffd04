//! A network of several relays, some of which forward for others, and clients of all of them.
//!
//! Whoever scripts it says what happens; what is under way is delivered by [`Network::run`], one block at a time, in an
//! order that is the same for the same script. Time stands still unless it is [passed](Network::pass). Every block that
//! crosses a connection is kept in a record, as somebody who watches the network sees it (inside TLS).

use std::collections::{BTreeMap, VecDeque};

use bytes::BytesMut;
use sha2::{Digest, Sha256};
use smp_proto::broker::ConnectionId;
use smp_proto::broker::storage::Completion;
use smp_proto::client::{
    Action, Client, ClientCommand, ClientConfig, CommandFailure, CommandId, Event, Reply,
};
use smp_proto::crypto::Portable;
use smp_proto::entropy::SeededEntropy;
use smp_proto::proxy::DialFailure;
use smp_proto::server::{Link, LinkAction, Server, ServerConfig, ServerEvent};
use smp_proto::session::client::ClientSessionConfig;
use smp_proto::session::server::ServerSessionConfig;
use smp_proto::session::{Protocol, SessionId, TransportFacts};
use smp_proto::storage_model::StorageModel;
use smp_proto::time::{Duration, Instant, Now, UnixTime};
use smp_proto::wire::address::ServerAddress;

use crate::holders::{Holder, HolderNumber};
use crate::world::identity;

/// When simulated time begins, by the wall clock: a day on which the fixtures' certificates are valid.
const EPOCH: i64 = 1_800_000_000;

/// Which relay.
pub type RelayNumber = usize;
/// Which client.
pub type ClientNumber = usize;

/// What a relay is like, for those who connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It accepts connections.
    Up,
    /// Nobody listens: connections are refused.
    Down,
    /// Connecting takes forever.
    Silent,
    /// It accepts connections, and reads nothing from them.
    Frozen,
}

struct Relay {
    server: Server,
    config: ServerConfig,
    storage: StorageModel,
    address: ServerAddress,
    reach: Reach,
    /// Pipes by this relay's name for them.
    accepted: BTreeMap<ConnectionId, usize>,
    links: BTreeMap<Link, usize>,
    /// How often it dialled.
    dials: usize,
    /// What storage has done, and not made durable.
    unsynced: Vec<Completion>,
}

struct ClientSide {
    client: Client,
    relay: RelayNumber,
    pipe: Option<usize>,
    answers: BTreeMap<CommandId, Result<Reply, CommandFailure>>,
    events: Vec<Event>,
}

/// Who began a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginner {
    /// A client.
    Client(ClientNumber),
    /// A relay, as a proxy or as a first-step relay.
    Proxy(RelayNumber),
    /// A client of a first-step relay.
    Holder(HolderNumber),
}

/// One connection, and every block that crossed it.
#[derive(Debug)]
pub struct Pipe {
    /// Who began it.
    pub from: Beginner,
    link: Option<Link>,
    /// The relay that it leads to.
    pub to: RelayNumber,
    connection: ConnectionId,
    open: bool,
    to_relay: VecDeque<BytesMut>,
    to_beginner: VecDeque<BytesMut>,
    /// Blocks from whoever began it.
    pub sent: Vec<Vec<u8>>,
    /// Blocks from the relay.
    pub received: Vec<Vec<u8>>,
}

impl Pipe {
    /// Takes a block of whoever began it.
    pub(crate) fn take_from_beginner(&mut self, block: BytesMut) {
        self.to_relay.push_back(block);
    }
}

/// Relays, clients and connections. See the module's documentation.
pub struct Network {
    relays: Vec<Relay>,
    clients: Vec<ClientSide>,
    pub(crate) holders: Vec<Holder>,
    /// All connections that ever were.
    pub pipes: Vec<Pipe>,
    now: Now,
    entropy: SeededEntropy,
    sessions: u64,
    digest: Sha256,
    /// Whether blocks are recorded.
    pub records: bool,
}

impl core::fmt::Debug for Network {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "Network({} relays, {} clients)", self.relays.len(), self.clients.len())
    }
}

impl Network {
    /// A network without anybody.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            relays: Vec::new(),
            clients: Vec::new(),
            holders: Vec::new(),
            pipes: Vec::new(),
            now: Now { instant: Instant::from_micros(1_000_000), wall: UnixTime(EPOCH) },
            entropy: SeededEntropy::new(seed),
            sessions: 0,
            digest: Sha256::new(),
            records: false,
        }
    }

    /// Adds a relay; all have the same certificates, and ports of their own.
    pub fn add_relay(&mut self, adjust: impl FnOnce(&mut ServerConfig)) -> RelayNumber {
        let identity = identity();
        let fingerprint = identity.fingerprint().to_vec();
        let mut config = ServerConfig::new(ServerSessionConfig::new(identity, &Portable));
        adjust(&mut config);
        let mut address: ServerAddress = "smp://AAAA@192.0.2.1".parse().expect("an address");
        address.fingerprint = fingerprint;
        address.port = (7000 + self.relays.len()).to_string();
        let mut server = Server::new(config.clone(), &mut self.entropy);
        server.begin(self.now, &mut self.entropy).expect("nothing is stored");
        self.relays.push(Relay {
            server,
            config,
            storage: StorageModel::default(),
            address,
            reach: Reach::Up,
            accepted: BTreeMap::new(),
            links: BTreeMap::new(),
            dials: 0,
            unsynced: Vec::new(),
        });
        self.relays.len() - 1
    }

    /// Adds a client of a relay.
    pub fn add_client(&mut self, relay: RelayNumber) -> ClientNumber {
        let fingerprint = self.relays[relay].address.fingerprint.clone();
        let mut config = ClientConfig::new(ClientSessionConfig::new(fingerprint, &Portable));
        // The proxy's answer is waited for, which comes in its time.
        config.command_timeout = Duration::from_secs(100);
        self.clients.push(ClientSide {
            client: Client::new(config),
            relay,
            pipe: None,
            answers: BTreeMap::new(),
            events: Vec::new(),
        });
        self.clients.len() - 1
    }

    /// Where a relay is.
    #[must_use]
    pub fn address(&self, relay: RelayNumber) -> ServerAddress {
        self.relays[relay].address.clone()
    }

    /// A relay, to look at.
    #[must_use]
    pub fn server(&self, relay: RelayNumber) -> &Server {
        &self.relays[relay].server
    }

    /// How often a relay dialled others.
    #[must_use]
    pub fn dials(&self, relay: RelayNumber) -> usize {
        self.relays[relay].dials
    }

    /// The time.
    #[must_use]
    pub const fn now(&self) -> Now {
        self.now
    }

    /// The entropy of everybody.
    pub fn entropy(&mut self) -> &mut SeededEntropy {
        &mut self.entropy
    }

    /// The open connections that lead to a relay.
    #[must_use]
    pub fn connections_to(&self, relay: RelayNumber) -> Vec<Beginner> {
        self.pipes.iter().filter(|pipe| pipe.open && pipe.to == relay).map(|pipe| pipe.from).collect()
    }

    /// Changes what a relay is like; connections break when it goes down.
    pub fn set_reach(&mut self, relay: RelayNumber, reach: Reach) {
        self.relays[relay].reach = reach;
        if reach == Reach::Down {
            self.break_all(relay);
        }
        self.run();
    }

    fn break_all(&mut self, relay: RelayNumber) {
        for pipe in 0..self.pipes.len() {
            let of_relay = self.pipes[pipe].to == relay || self.pipes[pipe].from == Beginner::Proxy(relay);
            if of_relay && self.pipes[pipe].open {
                self.break_pipe(pipe, true, true);
            }
        }
    }

    /// Breaks a connection that is open: what is under way on it is lost.
    pub fn reset(&mut self, pipe: usize) {
        if self.pipes[pipe].open {
            self.break_pipe(pipe, true, true);
        }
    }

    /// Kills a relay and starts it again, with what was durable.
    pub fn restart(&mut self, relay: RelayNumber) {
        self.break_all(relay);
        let place = &mut self.relays[relay];
        place.storage.crash();
        place.server = Server::new(place.config.clone(), &mut self.entropy);
        for stored in place.storage.queues() {
            place.server.restore(stored).expect("what the relay has stored");
        }
        for prefix in Server::record_prefixes() {
            for (key, value) in place.storage.records(prefix) {
                place.server.restore_record(key, value).expect("what the relay has stored");
            }
        }
        place.server.begin(self.now, &mut self.entropy).expect("what the relay has stored");
        place.unsynced.clear();
        place.accepted.clear();
        place.links.clear();
        self.run();
    }

    /// Submits a command, without waiting.
    pub fn submit(&mut self, client: ClientNumber, command: ClientCommand) -> CommandId {
        let id = self.clients[client].client.submit(command, self.now).expect("few commands");
        self.run();
        id
    }

    /// The answer to a command, if it is there. It is given once.
    pub fn answer(
        &mut self,
        client: ClientNumber,
        command: CommandId,
    ) -> Option<Result<Reply, CommandFailure>> {
        self.clients[client].answers.remove(&command)
    }

    /// What a client was told besides answers.
    pub fn events(&mut self, client: ClientNumber) -> Vec<Event> {
        std::mem::take(&mut self.clients[client].events)
    }

    /// Submits a command, and passes time until it is answered.
    ///
    /// # Panics
    /// When it never is.
    pub fn ask(&mut self, client: ClientNumber, command: ClientCommand) -> Result<Reply, CommandFailure> {
        let id = self.submit(client, command);
        for _ in 0..10_000 {
            if let Some(answer) = self.answer(client, id) {
                return answer;
            }
            self.pass_to_next();
        }
        panic!("a command is never answered");
    }

    /// Passes time up to the next deadline of anybody, at least.
    fn pass_to_next(&mut self) {
        let relays = self.relays.iter().filter_map(|relay| relay.server.next_deadline());
        let clients = self.clients.iter().filter_map(|side| side.client.next_deadline());
        let next = relays.chain(clients).min().unwrap_or(self.now.instant);
        let step = next.saturating_since(self.now.instant).max(Duration::from_millis(1));
        self.step(step);
    }

    fn step(&mut self, time: Duration) {
        self.now.instant = self.now.instant + time;
        let passed = self.now.instant.saturating_since(Instant::from_micros(1_000_000));
        self.now.wall = UnixTime(EPOCH).saturating_add(passed);
        for relay in &mut self.relays {
            if relay.server.next_deadline().is_some_and(|at| at <= self.now.instant) {
                relay.server.handle_timeout(self.now, &mut self.entropy);
            }
        }
        for side in &mut self.clients {
            if side.client.next_deadline().is_some_and(|at| at <= self.now.instant) {
                side.client.handle_timeout(self.now, &mut self.entropy);
            }
        }
        self.holders_try_again();
        self.run();
    }

    /// Passes time, with everything that becomes due meanwhile.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now.instant + time;
        for _ in 0..100_000 {
            let relays = self.relays.iter().filter_map(|relay| relay.server.next_deadline());
            let clients = self.clients.iter().filter_map(|side| side.client.next_deadline());
            let next = relays.chain(clients).min().filter(|at| *at <= end).unwrap_or(end);
            let step = next.saturating_since(self.now.instant);
            self.step(if next == end { step } else { step.max(Duration::from_millis(1)) });
            if self.now.instant >= end {
                return;
            }
        }
        panic!("time does not pass: something is due for ever");
    }

    /// Lets so many turns pass, whatever is still under way then.
    pub fn run_turns(&mut self, turns: usize) {
        for _ in 0..turns {
            self.turn();
        }
    }

    /// Everybody does what there is to do, and one block is delivered on each connection.
    fn turn(&mut self) -> bool {
        let mut busy = false;
        for relay in 0..self.relays.len() {
            busy |= self.run_relay(relay);
        }
        for client in 0..self.clients.len() {
            busy |= self.run_client(client);
        }
        for holder in 0..self.holders.len() {
            busy |= self.run_holder(holder);
        }
        for pipe in 0..self.pipes.len() {
            busy |= self.deliver(pipe);
        }
        busy
    }

    /// Delivers everything that is under way, and whatever comes of it.
    pub fn run(&mut self) {
        for _ in 0..1_000_000 {
            if !self.turn() {
                for relay in &self.relays {
                    relay.server.check().unwrap_or_else(|defect| panic!("{defect}"));
                    self.digest.update(relay.server.digest());
                }
                for side in &self.clients {
                    side.client.check();
                }
                return;
            }
        }
        panic!("the network does not come to rest");
    }

    /// A digest of all states after every rest: equal for equal scripts.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.digest.clone().finalize().into()
    }

    fn run_relay(&mut self, number: RelayNumber) -> bool {
        let mut busy = false;
        let relay = &mut self.relays[number];
        // What was written in the turn before becomes durable in this one: a crash in between loses it.
        let unsynced = std::mem::take(&mut relay.unsynced);
        if !unsynced.is_empty() {
            relay.storage.sync();
            busy = true;
        }
        for completion in unsynced {
            relay.server.complete(completion, self.now, &mut self.entropy);
        }
        while let Some((id, action)) = relay.server.poll_storage() {
            let completion = relay.storage.apply(id, action);
            relay.unsynced.push(completion);
            busy = true;
        }
        while let Some(event) = self.relays[number].server.poll_event() {
            busy = true;
            match event {
                ServerEvent::MaySend(id) => {
                    let relay = &mut self.relays[number];
                    let Some(&pipe) = relay.accepted.get(&id) else { continue };
                    while let Some(block) = relay.server.poll_block(id, self.now) {
                        self.pipes[pipe].to_beginner.push_back(block);
                    }
                }
                ServerEvent::Established(..) => {}
                ServerEvent::Closed(id, _, last) => {
                    if let Some(pipe) = self.relays[number].accepted.remove(&id) {
                        self.pipes[pipe].to_beginner.extend(last);
                        self.break_pipe(pipe, true, false);
                    }
                }
            }
        }
        while let Some(action) = self.relays[number].server.poll_link() {
            busy = true;
            match action {
                LinkAction::Dial(link, address) => self.dial(number, link, &address),
                LinkAction::MaySend(link) => {
                    let relay = &mut self.relays[number];
                    let Some(&pipe) = relay.links.get(&link) else { continue };
                    while let Some(block) = relay.server.poll_link_block(link, self.now, &mut self.entropy) {
                        self.pipes[pipe].to_relay.push_back(block);
                    }
                }
                LinkAction::Close(link) => {
                    if let Some(pipe) = self.relays[number].links.remove(&link) {
                        self.break_pipe(pipe, false, true);
                    }
                }
            }
        }
        busy
    }

    fn dial(&mut self, number: RelayNumber, link: Link, address: &ServerAddress) {
        self.relays[number].dials += 1;
        let found = self.relays.iter().position(|relay| relay.address.port == address.port);
        match found.map(|to| (to, self.relays[to].reach)) {
            Some((to, Reach::Up | Reach::Frozen)) => {
                let facts = |with_chain: bool| TransportFacts {
                    protocol: link.protocol(),
                    ..facts(
                        self.sessions + 1,
                        if with_chain { identity().chain().to_vec() } else { Vec::new() },
                    )
                };
                let (there, facts) = (facts(false), facts(true));
                let pipe = self.connect_with(Beginner::Proxy(number), Some(link), to, there);
                let relay = &mut self.relays[number];
                relay.links.insert(link, pipe);
                relay.server.dialled(link, facts, self.now, &mut self.entropy);
            }
            Some((_, Reach::Silent)) => {}
            Some((_, Reach::Down)) | None => {
                self.relays[number].server.dial_failed(
                    link,
                    DialFailure::Network,
                    self.now,
                    &mut self.entropy,
                );
            }
        }
    }

    /// Whether connections to a relay can be made.
    pub(crate) fn accepts(&self, relay: RelayNumber) -> bool {
        matches!(self.relays[relay].reach, Reach::Up | Reach::Frozen)
    }

    /// A connection of `smp-proxy/1`, and its facts for whoever begins it.
    pub(crate) fn connect_to_first_step(
        &mut self,
        from: Beginner,
        to: RelayNumber,
    ) -> (usize, TransportFacts) {
        let first_step =
            |chain| TransportFacts { protocol: Protocol::FirstStep, ..facts(self.sessions + 1, chain) };
        let (there, here) = (first_step(Vec::new()), first_step(identity().chain().to_vec()));
        (self.connect_with(from, None, to, there), here)
    }

    fn connect(&mut self, from: Beginner, link: Option<Link>, to: RelayNumber) -> usize {
        let facts = facts(self.sessions + 1, Vec::new());
        self.connect_with(from, link, to, facts)
    }

    fn connect_with(
        &mut self,
        from: Beginner,
        link: Option<Link>,
        to: RelayNumber,
        facts: TransportFacts,
    ) -> usize {
        self.sessions += 1;
        let pipe = self.pipes.len();
        let connection = self.relays[to]
            .server
            .connect(facts, self.now, &mut self.entropy)
            .expect("room for a connection");
        self.relays[to].accepted.insert(connection, pipe);
        self.pipes.push(Pipe {
            from,
            link,
            to,
            connection,
            open: true,
            to_relay: VecDeque::new(),
            to_beginner: VecDeque::new(),
            sent: Vec::new(),
            received: Vec::new(),
        });
        pipe
    }

    fn facts(&self, _pipe: usize, with_chain: bool) -> TransportFacts {
        facts(self.sessions, if with_chain { identity().chain().to_vec() } else { Vec::new() })
    }

    fn run_client(&mut self, number: ClientNumber) -> bool {
        let mut busy = false;
        while let Some(action) = self.clients[number].client.poll_action() {
            busy = true;
            match action {
                Action::Dial => {
                    let to = self.clients[number].relay;
                    if matches!(self.relays[to].reach, Reach::Up | Reach::Frozen) {
                        let pipe = self.connect(Beginner::Client(number), None, to);
                        let facts = self.facts(pipe, true);
                        let side = &mut self.clients[number];
                        side.pipe = Some(pipe);
                        side.client.connected(facts, self.now, &mut self.entropy).expect("was dialling");
                    } else {
                        self.clients[number].client.disconnected(self.now, &mut self.entropy);
                    }
                }
                Action::Close => {
                    if let Some(pipe) = self.clients[number].pipe.take() {
                        self.break_pipe(pipe, false, true);
                    }
                }
            }
        }
        let side = &mut self.clients[number];
        while let Some(event) = side.client.poll_event() {
            busy = true;
            match event {
                Event::Response { command, result } => {
                    side.answers.insert(command, result);
                }
                other => side.events.push(other),
            }
        }
        if let Some(pipe) = side.pipe {
            while let Some(block) = side.client.poll_block(self.now, &mut self.entropy) {
                self.pipes[pipe].to_relay.push_back(block);
                busy = true;
            }
        }
        busy
    }

    /// Delivers one block in each direction of a connection.
    fn deliver(&mut self, number: usize) -> bool {
        let mut busy = false;
        let pipe = &mut self.pipes[number];
        if !pipe.open {
            return false;
        }
        let relay = &mut self.relays[pipe.to];
        if relay.reach != Reach::Frozen
            && relay.server.wants_block(pipe.connection)
            && let Some(block) = pipe.to_relay.pop_front()
        {
            if self.records {
                pipe.sent.push(block.to_vec());
            }
            relay
                .server
                .handle_block(pipe.connection, block, self.now, &mut self.entropy)
                .expect("a whole block");
            busy = true;
        }
        let pipe = &mut self.pipes[number];
        if self.relays[pipe.to].reach != Reach::Frozen
            && let Some(block) = pipe.to_beginner.pop_front()
        {
            if self.records {
                pipe.received.push(block.to_vec());
            }
            match (pipe.from, pipe.link) {
                (Beginner::Client(client), _) => {
                    let client = &mut self.clients[client].client;
                    client.receive(block, self.now, &mut self.entropy).expect("connected");
                }
                (Beginner::Proxy(proxy), Some(link)) => {
                    self.relays[proxy].server.handle_link_block(link, block, self.now, &mut self.entropy);
                }
                (Beginner::Proxy(_), None) => {}
                (Beginner::Holder(holder), _) => self.holder_receives(holder, block),
            }
            busy = true;
        }
        busy
    }

    /// Ends a connection, and tells the sides that did not end it.
    fn break_pipe(&mut self, number: usize, tell_beginner: bool, tell_relay: bool) {
        let pipe = &mut self.pipes[number];
        pipe.open = false;
        pipe.to_relay.clear();
        pipe.to_beginner.clear();
        let (from, link, to, connection) = (pipe.from, pipe.link, pipe.to, pipe.connection);
        if tell_relay && self.relays[to].accepted.remove(&connection).is_some() {
            self.relays[to].server.disconnect(connection);
        }
        match (from, link) {
            (Beginner::Client(client), _) if tell_beginner => {
                let side = &mut self.clients[client];
                if side.pipe == Some(number) {
                    side.pipe = None;
                    side.client.disconnected(self.now, &mut self.entropy);
                }
            }
            (Beginner::Holder(holder), _) if self.holders[holder].pipe == Some(number) => {
                self.holder_lost(holder);
            }
            (Beginner::Proxy(proxy), Some(link)) if tell_beginner => {
                let relay = &mut self.relays[proxy];
                if relay.links.remove(&link).is_some() {
                    relay.server.link_lost(link, self.now, &mut self.entropy);
                }
            }
            _ => {}
        }
    }
}

/// The facts of the connection with this number.
fn facts(number: u64, peer_chain: Vec<Vec<u8>>) -> TransportFacts {
    let id: [u8; 32] = Sha256::digest(number.to_be_bytes()).into();
    TransportFacts { session_id: SessionId::new(&id).expect("32 bytes"), protocol: Protocol::Smp, peer_chain }
}
