//! The world of one run: a relay, its storage, clients, and the connections between them, on a clock that jumps from one
//! event to the next.
//!
//! Connections are reliable and in order until they break, as TCP is; when one breaks, what is under way on it is lost in
//! both directions. A crash of the relay loses everything that was not durable; of the commit that was being written, all
//! or nothing survives, as the dice fall.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use bytes::BytesMut;
use sha2::{Digest, Sha256};
use smp_proto::broker::storage::{ActionId, Completion, StorageAction};
use smp_proto::broker::{BrokerConfig, ConnectionId};
use smp_proto::client::{Action, Client, ClientConfig};
use smp_proto::crypto::Portable;
use smp_proto::entropy::SeededEntropy;
use smp_proto::keys::SigningKey;
use smp_proto::server::{Server, ServerConfig, ServerEvent};
use smp_proto::session::client::ClientSessionConfig;
use smp_proto::session::identity::{KeyInMemory, ServerIdentity};
use smp_proto::session::server::ServerSessionConfig;
use smp_proto::session::{Protocol, SessionId, TransportFacts};
use smp_proto::storage_model::StorageModel;
use smp_proto::time::{Duration, Instant, Now, UnixTime};
use smp_proto::wire::identifier::Identifier;
use smp_proto::wire::version::{Version, VersionRange};

use crate::actors::{Actor, Sender, Wish, sender_key};
use crate::dice::Dice;
use crate::ledger::Ledger;
use crate::options::Options;

/// When simulated time begins, by the wall clock.
const EPOCH: i64 = 1_700_000_000;

/// How long the network may take, once healed, to finish everything.
const LIVENESS_LIMIT: Duration = Duration::from_secs(4 * 3600);

/// What went wrong in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A promise was broken.
    Safety(String),
    /// The network is healed, and something still does not finish.
    Liveness(String),
}

/// How a run ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// A digest of the relay's state after every event: equal for equal seeds.
    pub digest: [u8; 32],
    /// How many events there were.
    pub events: u64,
    /// How often the relay crashed.
    pub crashes: u32,
    /// How often a connection broke.
    pub resets: u32,
    /// How many messages were accepted and delivered.
    pub messages: usize,
    /// How long it took by the simulated clock.
    pub took: Duration,
}

enum Happening {
    Dialled { peer: usize, attempt: u64, succeeds: bool },
    ToRelay { peer: usize, attempt: u64, block: BytesMut },
    ToClient { peer: usize, attempt: u64, block: BytesMut },
    ClientLosesConnection { peer: usize, attempt: u64 },
    RelayLosesConnection { peer: usize, attempt: u64 },
    Committed { life: u32 },
    Read { life: u32, completion: Completion },
    Crash,
    Restart,
    Wake { peer: usize },
    Acknowledge { peer: usize, message: Identifier },
    SenderId { peer: usize, sender: Identifier },
}

struct Peer {
    client: Client,
    entropy: SeededEntropy,
    actor: Actor,
    /// Which of this client's connections is the current one.
    attempt: u64,
    connection: Option<ConnectionId>,
    to_relay_until: Instant,
    to_client_until: Instant,
}

/// One run.
pub struct World {
    options: Options,
    now: Instant,
    happenings: BinaryHeap<Reverse<(Instant, u64)>>,
    what: BTreeMap<u64, Happening>,
    next: u64,
    server_config: ServerConfig,
    server: Option<Server>,
    relay_entropy: SeededEntropy,
    life: u32,
    storage: StorageModel,
    gathered: Vec<(ActionId, StorageAction)>,
    committing: Vec<(ActionId, StorageAction)>,
    peers: Vec<Peer>,
    by_connection: BTreeMap<ConnectionId, usize>,
    ledgers: Vec<Ledger>,
    network: Dice,
    disk: Dice,
    faults: Dice,
    digest: Sha256,
    outcome: Outcome,
}

pub(crate) fn identity() -> ServerIdentity {
    let chain = vec![
        include_bytes!("../fixtures/leaf.der").to_vec(),
        include_bytes!("../fixtures/identity.der").to_vec(),
    ];
    let key =
        SigningKey::from_der(include_bytes!("../fixtures/leaf-key.pkcs8")).expect("the fixture is a key");
    ServerIdentity::new(chain, Arc::new(KeyInMemory::new(key, &Portable)))
        .expect("the fixture is a relay's chain")
}

impl World {
    /// The world of `seed`, before anything has happened.
    ///
    /// # Panics
    /// When the certificates that come with the simulation are damaged.
    #[must_use]
    pub fn new(seed: u64, options: Options) -> Self {
        let mut keys = Dice::new(seed, "keys");
        let identity = identity();
        let fingerprint = identity.fingerprint().to_vec();
        let broker = BrokerConfig { message_quota: options.quota, ..BrokerConfig::default() };
        let server_config =
            ServerConfig { broker, ..ServerConfig::new(ServerSessionConfig::new(identity, &Portable)) };
        let mut peers = Vec::new();
        for _ in 0..options.pairs {
            let newest =
                keys.between(options.newest_version.0.into(), options.newest_version.1.into()) as u16;
            let range = VersionRange::new(Version::OLDEST, Version(newest)).expect("newer than the oldest");
            for receives in [true, false] {
                let session = ClientSessionConfig {
                    versions: range,
                    ..ClientSessionConfig::new(fingerprint.clone(), &Portable)
                };
                let mut entropy = SeededEntropy::new(keys.seed());
                let actor = if receives {
                    Actor::Recipient(Box::default())
                } else {
                    let secures = Version(newest) >= Version::SECURE_BY_SENDER;
                    let key = secures.then(|| sender_key(&mut keys, &mut entropy));
                    Actor::Sender(Box::new(Sender::new(options.messages, options.pipeline, key)))
                };
                peers.push(Peer {
                    client: Client::new(ClientConfig::new(session)),
                    entropy,
                    actor,
                    attempt: 0,
                    connection: None,
                    to_relay_until: Instant::START,
                    to_client_until: Instant::START,
                });
            }
        }
        let mut relay_entropy = SeededEntropy::new(keys.seed());
        let server = Server::new(server_config.clone(), &mut relay_entropy);
        let mut world = Self {
            ledgers: vec![Ledger::default(); options.pairs],
            options,
            now: Instant::START,
            happenings: BinaryHeap::new(),
            what: BTreeMap::new(),
            next: 0,
            server_config,
            server: Some(server),
            relay_entropy,
            life: 0,
            storage: StorageModel::default(),
            gathered: Vec::new(),
            committing: Vec::new(),
            peers,
            by_connection: BTreeMap::new(),
            network: Dice::new(seed, "network"),
            disk: Dice::new(seed, "disk"),
            faults: Dice::new(seed, "faults"),
            digest: Sha256::new(),
            outcome: Outcome {
                digest: [0; 32],
                events: 0,
                crashes: 0,
                resets: 0,
                messages: 0,
                took: Duration::ZERO,
            },
        };
        for peer in 0..world.peers.len() {
            world.after(Duration::ZERO, Happening::Wake { peer });
        }
        world.plan_crash();
        world
    }

    fn time(&self) -> Now {
        let seconds = i64::try_from(self.now.as_micros() / 1_000_000).unwrap_or(i64::MAX);
        Now { instant: self.now, wall: UnixTime(EPOCH.saturating_add(seconds)) }
    }

    fn at(&mut self, instant: Instant, happening: Happening) {
        self.happenings.push(Reverse((instant, self.next)));
        self.what.insert(self.next, happening);
        self.next += 1;
    }

    fn after(&mut self, delay: Duration, happening: Happening) {
        self.at(self.now + delay, happening);
    }

    fn plan_crash(&mut self) {
        if let Some(range) = self.options.crash_after {
            let delay = self.faults.duration(range);
            self.after(delay, Happening::Crash);
        }
    }

    /// Runs to the end: faults first, then a healed network in which everything must finish.
    ///
    /// # Errors
    /// [`Failure`] when a promise was broken or something does not finish.
    pub fn run(mut self) -> Result<Outcome, Failure> {
        let heal_at = Instant::START + self.options.safety_phase;
        let mut healed = false;
        loop {
            let next = self.next_time();
            if !healed && next.is_none_or(|next| next >= heal_at) {
                healed = true;
                self.options = self.options.healed();
                self.now = self.now.max(heal_at);
                if self.server.is_none() {
                    self.after(Duration::ZERO, Happening::Restart);
                }
                continue;
            }
            if healed && self.is_done() {
                break;
            }
            let Some(next) = next else {
                return Err(Failure::Liveness(format!("nothing happens any more: {}", self.unfinished())));
            };
            if next > heal_at + LIVENESS_LIMIT {
                return Err(Failure::Liveness(format!("it takes too long: {}", self.unfinished())));
            }
            self.now = self.now.max(next);
            self.step().map_err(Failure::Safety)?;
        }
        for (pair, ledger) in self.ledgers.iter().enumerate() {
            ledger.judge().map_err(|broken| Failure::Safety(format!("queue {pair}: {broken}")))?;
        }
        self.outcome.messages = self.ledgers.iter().map(Ledger::numbers_delivered).sum();
        self.outcome.took = self.now.saturating_since(Instant::START);
        self.outcome.digest = self.digest.finalize().into();
        Ok(self.outcome)
    }

    fn next_time(&self) -> Option<Instant> {
        let happening = self.happenings.peek().map(|Reverse((at, _))| *at);
        let server = self.server.as_ref().and_then(Server::next_deadline);
        let clients = self.peers.iter().filter_map(|peer| peer.client.next_deadline()).min();
        [happening, server, clients].into_iter().flatten().min()
    }

    /// Everything has been accepted and delivered.
    fn is_done(&self) -> bool {
        let sent = self.peers.iter().all(|peer| match &peer.actor {
            Actor::Sender(sender) => sender.is_done(),
            Actor::Recipient(_) => true,
        });
        sent && self.ledgers.iter().all(|ledger| ledger.numbers_delivered() == self.options.messages as usize)
    }

    fn unfinished(&self) -> String {
        let delivered: Vec<usize> = self.ledgers.iter().map(Ledger::numbers_delivered).collect();
        format!("delivered {delivered:?} of {} messages each", self.options.messages)
    }

    fn step(&mut self) -> Result<(), String> {
        self.outcome.events += 1;
        while let Some(Reverse((at, id))) = self.happenings.peek().copied()
            && at <= self.now
        {
            self.happenings.pop();
            if let Some(happening) = self.what.remove(&id) {
                self.happen(happening)?;
            }
        }
        let time = self.time();
        if let Some(server) = &mut self.server
            && server.next_deadline().is_some_and(|at| at <= time.instant)
        {
            server.handle_timeout(time, &mut self.relay_entropy);
        }
        for peer in 0..self.peers.len() {
            let Peer { client, entropy, .. } = &mut self.peers[peer];
            if client.next_deadline().is_some_and(|at| at <= time.instant) {
                client.handle_timeout(time, entropy);
            }
            self.settle_peer(peer)?;
        }
        self.settle_relay();
        if let Some(server) = &self.server {
            server.check().map_err(|broken| format!("the relay is inconsistent: {broken}"))?;
            self.digest.update(server.digest());
        }
        Ok(())
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        let time = self.time();
        match happening {
            Happening::Dialled { peer, attempt, succeeds } => self.dialled(peer, attempt, succeeds),
            Happening::ToRelay { peer, attempt, block } => {
                if self.peers[peer].attempt == attempt
                    && let (Some(connection), Some(server)) = (self.peers[peer].connection, &mut self.server)
                {
                    server
                        .handle_block(connection, block, time, &mut self.relay_entropy)
                        .map_err(|misuse| misuse.to_string())?;
                }
            }
            Happening::ToClient { peer, attempt, block } => {
                let Peer { client, entropy, attempt: current, .. } = &mut self.peers[peer];
                if *current == attempt {
                    // A client that has closed meanwhile says so; the block is then lost, as on any closed socket.
                    let _ = client.receive(block, time, entropy);
                    self.settle_peer(peer)?;
                }
            }
            Happening::ClientLosesConnection { peer, attempt } => {
                let Peer { client, entropy, attempt: current, .. } = &mut self.peers[peer];
                if *current == attempt {
                    *current += 1;
                    client.disconnected(time, entropy);
                    self.settle_peer(peer)?;
                }
            }
            Happening::RelayLosesConnection { peer, attempt } => {
                if self.peers[peer].attempt <= attempt + 1 {
                    self.relay_forgets(peer);
                }
            }
            Happening::Committed { life } if life == self.life => self.committed(),
            Happening::Read { life, completion } if life == self.life => {
                if let Some(server) = &mut self.server {
                    server.complete(completion, time, &mut self.relay_entropy);
                }
            }
            Happening::Committed { .. } | Happening::Read { .. } => {}
            Happening::Crash => self.crash(),
            Happening::Restart => self.restart()?,
            Happening::Wake { peer } => {
                if let Actor::Sender(sender) = &mut self.peers[peer].actor {
                    sender.wake();
                }
                self.settle_peer(peer)?;
            }
            Happening::Acknowledge { peer, message } => {
                let Peer { client, actor, .. } = &mut self.peers[peer];
                if let Actor::Recipient(recipient) = actor {
                    recipient.acknowledge(&message, client, time);
                }
            }
            Happening::SenderId { peer, sender } => {
                if let Actor::Sender(actor) = &mut self.peers[peer].actor {
                    actor.begin(sender);
                }
            }
        }
        Ok(())
    }

    fn dialled(&mut self, peer: usize, attempt: u64, succeeds: bool) {
        let time = self.time();
        if self.peers[peer].attempt != attempt {
            return;
        }
        self.relay_forgets(peer);
        let facts = TransportFacts {
            session_id: SessionId::new(&self.network.seed()).expect("32 bytes"),
            protocol: Protocol::Smp,
            peer_chain: identity().chain().to_vec(),
        };
        let of_client = TransportFacts { peer_chain: Vec::new(), ..facts.clone() };
        let accepted = match &mut self.server {
            Some(server) if succeeds => server.connect(of_client, time, &mut self.relay_entropy).ok(),
            _ => None,
        };
        let Peer { client, entropy, connection, .. } = &mut self.peers[peer];
        *connection = accepted;
        match accepted {
            Some(id) => {
                self.by_connection.insert(id, peer);
                // Refused only when the client has given up dialling; the connection is then lost soon enough.
                let _ = client.connected(facts, time, entropy);
            }
            None => {
                self.peers[peer].attempt += 1;
                let Peer { client, entropy, .. } = &mut self.peers[peer];
                client.disconnected(time, entropy);
            }
        }
    }

    /// The relay's end of a peer's connection is gone.
    fn relay_forgets(&mut self, peer: usize) {
        if let Some(connection) = self.peers[peer].connection.take() {
            self.by_connection.remove(&connection);
            if let Some(server) = &mut self.server {
                server.disconnect(connection);
            }
        }
    }

    /// A connection breaks: each side notices after a while of its own.
    fn reset(&mut self, peer: usize) {
        self.outcome.resets += 1;
        let attempt = self.peers[peer].attempt;
        let (one, other) =
            (self.network.duration(self.options.latency), self.network.duration(self.options.latency));
        self.after(one, Happening::ClientLosesConnection { peer, attempt });
        self.after(other, Happening::RelayLosesConnection { peer, attempt });
    }

    /// Lets a client do everything that it wants to do now.
    fn settle_peer(&mut self, peer: usize) -> Result<(), String> {
        let time = self.time();
        loop {
            let mut busy = false;
            while let Some(event) = self.peers[peer].client.poll_event() {
                busy = true;
                let Peer { client, actor, .. } = &mut self.peers[peer];
                let ledger = &mut self.ledgers[peer / 2];
                let wishes = match actor {
                    Actor::Recipient(recipient) => recipient.handle(event, client, time, ledger),
                    Actor::Sender(sender) => sender.handle(event, ledger),
                }
                .map_err(|broken| format!("queue {}: {broken}", peer / 2))?;
                for wish in wishes {
                    self.grant(peer, wish);
                }
            }
            let Peer { client, actor, entropy, .. } = &mut self.peers[peer];
            match actor {
                Actor::Recipient(recipient) => recipient.act(client, time, entropy),
                Actor::Sender(sender) => sender.act(client, time, &mut self.ledgers[peer / 2]),
            }
            while let Some(action) = self.peers[peer].client.poll_action() {
                busy = true;
                self.client_acts(peer, action);
            }
            while let Some(block) = {
                let Peer { client, entropy, .. } = &mut self.peers[peer];
                client.poll_block(time, entropy)
            } {
                busy = true;
                self.send_to_relay(peer, block);
            }
            if !busy {
                return Ok(());
            }
        }
    }

    fn grant(&mut self, peer: usize, wish: Wish) {
        match wish {
            Wish::Wake(delay) => self.after(delay, Happening::Wake { peer }),
            Wish::Acknowledge(message) => {
                let delay = self.network.duration(self.options.thinks_for);
                self.after(delay, Happening::Acknowledge { peer, message });
            }
            Wish::SenderId(sender) => {
                self.after(Duration::from_millis(50), Happening::SenderId { peer: peer + 1, sender });
            }
        }
    }

    fn client_acts(&mut self, peer: usize, action: Action) {
        match action {
            Action::Dial => {
                self.peers[peer].attempt += 1;
                let attempt = self.peers[peer].attempt;
                let succeeds = !self.faults.one_in(self.options.dial_fails_one_in);
                let delay = self.network.duration(self.options.latency) * 2;
                self.peers[peer].to_relay_until = self.now;
                self.peers[peer].to_client_until = self.now;
                self.after(delay, Happening::Dialled { peer, attempt, succeeds });
            }
            Action::Close => {
                let attempt = self.peers[peer].attempt;
                self.peers[peer].attempt += 1;
                let delay = self.network.duration(self.options.latency);
                self.after(delay, Happening::RelayLosesConnection { peer, attempt });
            }
        }
    }

    fn send_to_relay(&mut self, peer: usize, block: BytesMut) {
        if self.faults.one_in(self.options.reset_one_in) {
            self.reset(peer);
            return;
        }
        let latency = self.network.duration(self.options.latency);
        let Peer { attempt, to_relay_until, .. } = &mut self.peers[peer];
        let arrives = (self.now + latency).max(*to_relay_until);
        *to_relay_until = arrives;
        let attempt = *attempt;
        self.at(arrives, Happening::ToRelay { peer, attempt, block });
    }

    fn send_to_client(&mut self, peer: usize, block: BytesMut) {
        if self.faults.one_in(self.options.reset_one_in) {
            self.reset(peer);
            return;
        }
        let latency = self.network.duration(self.options.latency);
        let Peer { attempt, to_client_until, .. } = &mut self.peers[peer];
        let arrives = (self.now + latency).max(*to_client_until);
        *to_client_until = arrives;
        let attempt = *attempt;
        self.at(arrives, Happening::ToClient { peer, attempt, block });
    }

    /// Lets the relay do everything that it wants to do now.
    fn settle_relay(&mut self) {
        let time = self.time();
        loop {
            let Some(server) = &mut self.server else { return };
            let mut reads = Vec::new();
            while let Some((id, action)) = server.poll_storage() {
                if action.is_read() {
                    reads.push((id, action));
                } else {
                    self.gathered.push((id, action));
                }
            }
            let event = server.poll_event();
            for (id, action) in reads {
                self.read(id, action);
            }
            if self.committing.is_empty() && !self.gathered.is_empty() {
                self.committing = std::mem::take(&mut self.gathered);
                let delay = self.disk.duration(self.options.commit);
                self.after(delay, Happening::Committed { life: self.life });
            }
            match event {
                None => return,
                Some(ServerEvent::MaySend(id)) => {
                    while let Some(block) =
                        self.server.as_mut().and_then(|server| server.poll_block(id, time))
                    {
                        if let Some(peer) = self.by_connection.get(&id).copied() {
                            self.send_to_client(peer, block);
                        }
                    }
                }
                Some(ServerEvent::Established(..)) => {}
                Some(ServerEvent::Closed(id, _, _)) => {
                    if let Some(peer) = self.by_connection.remove(&id) {
                        self.peers[peer].connection = None;
                        let attempt = self.peers[peer].attempt;
                        let delay = self.network.duration(self.options.latency);
                        self.after(delay, Happening::ClientLosesConnection { peer, attempt });
                    }
                }
            }
        }
    }

    fn read(&mut self, id: ActionId, action: StorageAction) {
        let completion = if self.disk.one_in(self.options.commit_fails_one_in) {
            Completion::Failed(id)
        } else {
            self.storage.apply(id, action)
        };
        self.after(Duration::from_micros(100), Happening::Read { life: self.life, completion });
    }

    fn committed(&mut self) {
        let time = self.time();
        let fails = self.disk.one_in(self.options.commit_fails_one_in);
        let Some(server) = &mut self.server else { return };
        for (id, action) in self.committing.drain(..) {
            let completion = if fails { Completion::Failed(id) } else { self.storage.apply(id, action) };
            server.complete(completion, time, &mut self.relay_entropy);
        }
        self.storage.sync();
    }

    fn crash(&mut self) {
        if self.options.crash_after.is_none() || self.server.take().is_none() {
            return;
        }
        self.outcome.crashes += 1;
        self.life += 1;
        // The commit that was being written: all of it is on disk, or nothing.
        if self.faults.one_in(2) {
            for (id, action) in self.committing.drain(..) {
                let _ = self.storage.apply(id, action);
            }
            self.storage.sync();
        }
        self.committing.clear();
        self.gathered.clear();
        self.storage.crash();
        self.by_connection.clear();
        for peer in 0..self.peers.len() {
            if self.peers[peer].connection.take().is_some() {
                let attempt = self.peers[peer].attempt;
                let delay = self.network.duration(self.options.latency);
                self.after(delay, Happening::ClientLosesConnection { peer, attempt });
            }
        }
        let delay = self.faults.duration(self.options.down_for);
        self.after(delay, Happening::Restart);
    }

    fn restart(&mut self) -> Result<(), String> {
        if self.server.is_some() {
            return Ok(());
        }
        let mut server = Server::new(self.server_config.clone(), &mut self.relay_entropy);
        for queue in self.storage.queues() {
            server.restore(queue).map_err(|error| error.to_string())?;
        }
        self.server = Some(server);
        self.plan_crash();
        Ok(())
    }
}
