//! People with agents and relays with brokers in one process: the real machines, and between them a network and disks
//! that do what the test says, one step at a time.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, VecDeque};

use bytes::BytesMut;
use smp_proto::agent::{
    Agent, AgentAction, AgentConfig, BatchId, ConnectionId, Event, RecordKey, RelayId, StorageFailed, Write,
};
use smp_proto::broker::ConnectionId as SessionNumber;
use smp_proto::entropy::SeededEntropy;
use smp_proto::proxy::DialFailure;
use smp_proto::server::{Link, LinkAction, Server, ServerCloseReason, ServerConfig, ServerEvent};
use smp_proto::session::{Protocol, TransportFacts};
use smp_proto::storage_model::StorageModel;
use smp_proto::time::{Duration, Now};
use smp_proto::wire::address::{AddressWithPassword, ServerAddress};
use smp_proto::wire::links::connection_request::ConnectionRequest;
use smp_proto::wire::links::short_link::ShortLink;
use smp_runtime_std::fast_cryptography::Fast;
use smp_tests::sessions::{Certificates, NOW, facts_of, versions};

/// A relay with its storage.
pub struct Relay {
    pub server: Server,
    pub config: ServerConfig,
    pub storage: StorageModel,
    pub address: ServerAddress,
    pub chain: Vec<Vec<u8>>,
    pub reachable: bool,
    /// Whether people find that it speaks `smp-proxy/1`.
    pub holds: bool,
    /// Where it forwards to, as a proxy: the relay there, and the session on that relay's side.
    links: BTreeMap<Link, Cable>,
    /// Blocks of other relays that have not arrived yet.
    link_blocks: VecDeque<(Link, BytesMut)>,
}

/// What a person's connection to a relay is, on the relay's side.
#[derive(Clone, Copy, Debug)]
struct Cable {
    relay: usize,
    session: SessionNumber,
}

/// Somebody with an agent, its records, and what the application has seen.
pub struct Person {
    pub agent: Agent,
    pub config: AgentConfig,
    pub records: BTreeMap<RecordKey, Vec<u8>>,
    cables: BTreeMap<RelayId, Cable>,
    /// A batch that is on disk and not reported yet.
    written: Option<BatchId>,
    /// Blocks that the relays have sent and that have not arrived yet.
    arriving: VecDeque<(RelayId, BytesMut)>,
    /// Blocks that have left and have not arrived yet.
    leaving: VecDeque<(RelayId, BytesMut)>,
    pub events: Vec<Event>,
    pub online: bool,
    pub disk_fails: bool,
    /// Blocks that were sent.
    pub blocks_sent: usize,
    /// What went over this person's connections in either direction, inside TLS; when somebody listens.
    pub recorded: Option<Vec<Vec<u8>>>,
}

pub struct World {
    pub relays: Vec<Relay>,
    pub people: Vec<Person>,
    pub now: Now,
    pub entropy: SeededEntropy,
    sessions: u64,
}

/// An agent's usual configuration.
pub fn modern() -> AgentConfig {
    AgentConfig::new(&Fast)
}

/// An agent that knows no `SKEY`: it asks for, and offers, the four-message form.
pub fn old() -> AgentConfig {
    AgentConfig {
        agent_versions: versions(2, 5),
        client_versions: versions(1, 2),
        ratchet_versions: versions(2, 2),
        ..modern()
    }
}

impl World {
    /// This many relays, all with one identity, and a person with each of these configurations.
    pub fn new(relays: usize, configs: impl IntoIterator<Item = AgentConfig>) -> Self {
        Self::with_identities(&vec!["ed25519"; relays], configs)
    }

    /// A relay with each of these certificates, and a person with each of these configurations.
    pub fn with_identities(identities: &[&str], configs: impl IntoIterator<Item = AgentConfig>) -> Self {
        let mut entropy = SeededEntropy::new([3; 32]);
        let relays = identities
            .iter()
            .enumerate()
            .map(|(number, identity)| {
                let certificates = Certificates::named(identity);
                let mut config = ServerConfig::new(certificates.relay(versions(6, 18), &Fast));
                config.broker.proxied_at_once = 32;
                Relay {
                    server: Server::new(config.clone(), &mut entropy),
                    config,
                    storage: StorageModel::default(),
                    address: ServerAddress {
                        fingerprint: certificates.fingerprint.clone(),
                        hosts: vec![smp_proto::wire::address::Host::Domain(format!("relay{number}.example"))],
                        port: String::new(),
                    },
                    chain: certificates.chain.clone(),
                    reachable: true,
                    holds: true,
                    links: BTreeMap::new(),
                    link_blocks: VecDeque::new(),
                }
            })
            .collect();
        let people = configs.into_iter().map(Person::new).collect();
        Self { relays, people, now: NOW, entropy, sessions: 0 }
    }

    /// The address of a relay, to create queues on.
    pub fn relay(&self, number: usize) -> AddressWithPassword {
        AddressWithPassword { address: self.relays[number].address.clone(), password: None }
    }

    pub fn create_invitation(&mut self, who: usize, relay: usize, answer: Option<&[u8]>) -> ConnectionId {
        let relay = self.relay(relay);
        let person = &mut self.people[who];
        person.agent.create_invitation(relay, answer, self.now, &mut self.entropy).expect("created")
    }

    pub fn join(&mut self, who: usize, relay: usize, link: &ConnectionRequest, text: &[u8]) -> ConnectionId {
        let relay = self.relay(relay);
        // As it goes from hand to hand.
        let link: ConnectionRequest = link.to_string().parse().expect("a link that is read back");
        self.people[who].agent.join(&link, relay, text, self.now, &mut self.entropy).expect("joined")
    }

    pub fn create_short_invitation(&mut self, who: usize, relay: usize) -> ConnectionId {
        let relay = self.relay(relay);
        let (now, entropy) = (self.now, &mut self.entropy);
        let agent = &mut self.people[who].agent;
        agent.create_short_invitation(relay, Some(b"Alice"), b"preferences", now, entropy).expect("created")
    }

    pub fn join_by_short_link(
        &mut self,
        who: usize,
        relay: usize,
        link: &ShortLink,
        text: &[u8],
    ) -> ConnectionId {
        let relay = self.relay(relay);
        // As it goes from hand to hand.
        let link: ShortLink = link.to_string().parse().expect("a link that is read back");
        let (now, entropy) = (self.now, &mut self.entropy);
        self.people[who].agent.join_by_short_link(&link, relay, text, now, entropy).expect("joined")
    }

    pub fn send(&mut self, who: usize, connection: ConnectionId, body: &[u8]) -> i64 {
        let person = &mut self.people[who];
        person.agent.send(connection, body, true, self.now, &mut self.entropy).expect("sent")
    }

    pub fn acknowledge(&mut self, who: usize, connection: ConnectionId, number: i64, receipt: Option<&[u8]>) {
        let person = &mut self.people[who];
        person
            .agent
            .acknowledge(connection, number, receipt, self.now, &mut self.entropy)
            .expect("acknowledged");
    }

    pub fn delete(&mut self, who: usize, connection: ConnectionId) {
        self.people[who].agent.delete(connection, self.now, &mut self.entropy).expect("deleted");
    }

    /// Takes one step, of whoever can take one; false when nobody can before time passes.
    pub fn step(&mut self) -> bool {
        self.step_of().is_some()
    }

    /// Takes one step, and tells who took it: a person, or `Some(None)` for a relay.
    pub fn step_of(&mut self) -> Option<Option<usize>> {
        let person = (0..self.people.len()).find(|who| self.people[*who].online && self.person_step(*who));
        if person.is_some() {
            return Some(person);
        }
        (0..self.relays.len()).any(|relay| self.relay_step(relay)).then_some(None)
    }

    fn person_step(&mut self, who: usize) -> bool {
        let person = &mut self.people[who];
        while let Some(event) = person.agent.poll_event() {
            person.events.push(event);
        }
        person.agent.check();
        let (now, entropy) = (self.now, &mut self.entropy);
        if let Some(batch) = person.written.take() {
            person.agent.stored(batch, Ok(()), now, entropy);
            return true;
        }
        if let Some((relay, block)) = person.leaving.pop_front() {
            if let Some(cable) = person.cables.get(&relay) {
                let server = &mut self.relays[cable.relay].server;
                server.handle_block(cable.session, block, now, entropy).expect("a block");
            }
            return true;
        }
        if let Some((relay, block)) = person.arriving.pop_front() {
            if person.cables.contains_key(&relay) {
                person.record(&block);
                person.agent.receive(relay, block, now, entropy).expect("connected");
            }
            return true;
        }
        let Some(action) = person.agent.poll_action() else { return false };
        match action {
            AgentAction::Store(batch) => {
                if person.disk_fails {
                    person.agent.stored(batch.id, Err(StorageFailed), now, entropy);
                    return true;
                }
                for write in batch.writes {
                    match write {
                        Write::Put(key, bytes) => person.records.insert(key, bytes.to_vec()),
                        Write::Delete(key) => person.records.remove(&key),
                    };
                }
                person.written = Some(batch.id);
            }
            AgentAction::Dial(id, address, protocol) => self.dial(who, id, &address, protocol),
            AgentAction::MaySend(id) => {
                while let Some(block) = person.agent.poll_block(id, now, entropy) {
                    person.blocks_sent += 1;
                    person.record(&block);
                    person.leaving.push_back((id, block));
                }
            }
            AgentAction::Close(id) => {
                if let Some(cable) = person.cables.remove(&id) {
                    self.relays[cable.relay].server.disconnect(cable.session);
                }
            }
        }
        true
    }

    fn dial(&mut self, who: usize, id: RelayId, address: &ServerAddress, protocol: Protocol) {
        let (now, entropy) = (self.now, &mut self.entropy);
        let person = &mut self.people[who];
        let place = self.relays.iter().position(|relay| relay.address == *address && relay.reachable);
        let Some(place) = place else {
            person.agent.disconnected(id, now, entropy);
            return;
        };
        let relay = &mut self.relays[place];
        if protocol == Protocol::FirstStep && !relay.holds {
            person.agent.not_spoken(id, now, entropy);
            return;
        }
        self.sessions += 1;
        let session = [&self.sessions.to_be_bytes()[..], &[7; 24]].concat();
        let facts = TransportFacts { protocol, ..facts_of(&session, true, &[]) };
        let number = relay.server.connect(facts, now, entropy).expect("accepted");
        person.cables.insert(id, Cable { relay: place, session: number });
        let facts = TransportFacts { protocol, ..facts_of(&session, true, &relay.chain) };
        person.agent.connected(id, facts, now, entropy).expect("asked for");
    }

    /// Whether a person has, at this moment, a connection to a relay.
    pub fn is_seen_by(&self, who: usize, relay: usize) -> bool {
        self.people[who].cables.values().any(|cable| cable.relay == relay)
    }

    /// How many connections a person has, at this moment, to a relay.
    pub fn sessions_of(&self, who: usize, relay: usize) -> usize {
        self.people[who].cables.values().filter(|cable| cable.relay == relay).count()
    }

    /// What a relay does as a proxy.
    fn proxy_step(&mut self, number: usize) -> bool {
        let (now, entropy) = (self.now, &mut self.entropy);
        if let Some((id, block)) = self.relays[number].link_blocks.pop_front() {
            self.relays[number].server.handle_link_block(id, block, now, entropy);
            return true;
        }
        match self.relays[number].server.poll_link() {
            None => return false,
            Some(LinkAction::Dial(id, address)) => {
                let place = self.relays.iter().position(|relay| relay.address == *address && relay.reachable);
                let Some(place) = place else {
                    self.relays[number].server.dial_failed(id, DialFailure::Network, now, entropy);
                    return true;
                };
                self.sessions += 1;
                let session = [&self.sessions.to_be_bytes()[..], &[8; 24]].concat();
                let there = &mut self.relays[place];
                let protocol = id.protocol();
                let facts = TransportFacts { protocol, ..facts_of(&session, true, &[]) };
                let accepted = there.server.connect(facts, now, entropy).expect("accepted");
                let facts = TransportFacts { protocol, ..facts_of(&session, true, &there.chain) };
                self.relays[number].links.insert(id, Cable { relay: place, session: accepted });
                self.relays[number].server.dialled(id, facts, now, entropy);
            }
            Some(LinkAction::MaySend(id)) => {
                while let Some(block) = self.relays[number].server.poll_link_block(id, now, entropy) {
                    let Some(cable) = self.relays[number].links.get(&id).copied() else { continue };
                    let there = &mut self.relays[cable.relay].server;
                    there.handle_block(cable.session, block, now, entropy).expect("a block");
                }
            }
            Some(LinkAction::Close(id)) => {
                if let Some(cable) = self.relays[number].links.remove(&id) {
                    self.relays[cable.relay].server.disconnect(cable.session);
                }
            }
        }
        true
    }

    /// Gives a block to the proxy at the other end of a session, if that is one.
    fn give_to_proxy(&mut self, number: usize, session: SessionNumber, block: BytesMut) {
        for relay in &mut self.relays {
            let is_it = |cable: &Cable| cable.relay == number && cable.session == session;
            if let Some(id) = relay.links.iter().find_map(|(id, cable)| is_it(cable).then_some(*id)) {
                relay.link_blocks.push_back((id, block));
                return;
            }
        }
    }

    /// All connections of a relay as a proxy break.
    pub fn cut_links(&mut self, number: usize) {
        for (id, cable) in std::mem::take(&mut self.relays[number].links) {
            self.relays[cable.relay].server.disconnect(cable.session);
            self.relays[number].server.link_lost(id, self.now, &mut self.entropy);
        }
        self.relays[number].link_blocks.clear();
    }

    fn relay_step(&mut self, number: usize) -> bool {
        if self.proxy_step(number) {
            return true;
        }
        let relay = &mut self.relays[number];
        if let Some((id, action)) = relay.server.poll_storage() {
            let completion = relay.storage.apply(id, action);
            relay.storage.sync();
            relay.server.complete(completion, self.now, &mut self.entropy);
            return true;
        }
        match relay.server.poll_event() {
            None => false,
            Some(ServerEvent::MaySend(session)) => {
                while let Some(block) = self.relays[number].server.poll_block(session, self.now) {
                    let mut block = Some(block);
                    for person in &mut self.people {
                        let id = person.cables.iter().find_map(|(id, cable)| {
                            (cable.relay == number && cable.session == session).then_some(*id)
                        });
                        if let Some(id) = id
                            && let Some(block) = block.take()
                        {
                            person.arriving.push_back((id, block));
                        }
                    }
                    if let Some(block) = block {
                        self.give_to_proxy(number, session, block);
                    }
                }
                true
            }
            Some(ServerEvent::Established(..)) => true,
            Some(ServerEvent::Closed(session, reason, _)) => {
                assert_eq!(reason, ServerCloseReason::Inactive, "nobody violates the protocol");
                for person in &mut self.people {
                    let is_it = |cable: &Cable| cable.relay == number && cable.session == session;
                    let id = person.cables.iter().find_map(|(id, cable)| is_it(cable).then_some(*id));
                    if let Some(id) = id {
                        person.cables.remove(&id);
                        person.agent.disconnected(id, self.now, &mut self.entropy);
                    }
                }
                true
            }
        }
    }

    /// Takes steps until nobody can.
    pub fn settle(&mut self) {
        let mut steps = 0;
        while self.step() {
            steps += 1;
            assert!(steps < 20_000, "it does not come to rest");
        }
        // The last step may have made an event.
        for person in self.people.iter_mut().filter(|person| person.online) {
            while let Some(event) = person.agent.poll_event() {
                person.events.push(event);
            }
        }
    }

    /// Lets time pass until somebody wants to be called; false when nobody does within a day.
    pub fn wait(&mut self) -> bool {
        let online = self.people.iter().filter(|person| person.online);
        let Some(at) = online.filter_map(|person| person.agent.next_deadline()).min() else { return false };
        let wait = at.saturating_since(self.now.instant);
        if wait > Duration::from_secs(86_400) {
            return false;
        }
        self.pass(wait);
        true
    }

    pub fn pass(&mut self, time: Duration) {
        self.now.instant = self.now.instant + time;
        self.now.wall = self.now.wall.saturating_add(time);
        for person in self.people.iter_mut().filter(|person| person.online) {
            person.agent.handle_timeout(self.now, &mut self.entropy);
        }
        for relay in &mut self.relays {
            relay.server.handle_timeout(self.now, &mut self.entropy);
        }
    }

    /// Settles, and waits, until this holds.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        for _ in 0..400 {
            self.settle();
            if holds(self) {
                return;
            }
            if !self.wait() {
                break;
            }
        }
        let seen: Vec<_> = self.people.iter().map(|person| &person.events).collect();
        panic!("it never came to this: {what}; events: {seen:?}");
    }

    /// A person's program is killed and started again: what was not on disk is lost, and so are its connections.
    pub fn crash(&mut self, who: usize) {
        self.hang_up(who);
        let person = &mut self.people[who];
        person.written = None;
        person.agent = Agent::restore(person.config.clone(), person.records.clone()).expect("records");
        person.agent.handle_timeout(self.now, &mut self.entropy);
        person.agent.check();
    }

    /// All connections of a person break, and what was on its way is lost.
    pub fn hang_up(&mut self, who: usize) {
        let person = &mut self.people[who];
        person.arriving.clear();
        person.leaving.clear();
        for (id, cable) in std::mem::take(&mut person.cables) {
            self.relays[cable.relay].server.disconnect(cable.session);
            person.agent.disconnected(id, self.now, &mut self.entropy);
        }
    }

    /// A relay is killed and started again: what its storage has not confirmed is lost, and so are all connections.
    pub fn crash_relay(&mut self, number: usize) {
        for person in &mut self.people {
            let cut: Vec<_> =
                person.cables.iter().filter(|(_, cable)| cable.relay == number).map(|(id, _)| *id).collect();
            for id in cut {
                person.cables.remove(&id);
                person.arriving.retain(|(relay, _)| *relay != id);
                person.leaving.retain(|(relay, _)| *relay != id);
                person.agent.disconnected(id, self.now, &mut self.entropy);
            }
        }
        let relay = &mut self.relays[number];
        relay.storage.crash();
        relay.server = Server::new(relay.config.clone(), &mut self.entropy);
        for queue in relay.storage.queues() {
            relay.server.restore(queue).expect("its own queues");
        }
        for prefix in Server::record_prefixes() {
            for (key, value) in relay.storage.records(prefix) {
                relay.server.restore_record(key, value).expect("its own records");
            }
        }
        relay.server.begin(self.now, &mut self.entropy).expect("its own records");
    }

    /// The relays begin to speak `smp-proxy/1`.
    pub fn begin_relays(&mut self) {
        for relay in &mut self.relays {
            relay.server.begin(self.now, &mut self.entropy).expect("nothing was stored");
        }
    }

    pub fn go_offline(&mut self, who: usize) {
        self.hang_up(who);
        self.people[who].online = false;
    }

    pub fn come_online(&mut self, who: usize) {
        self.people[who].online = true;
        self.people[who].agent.handle_timeout(self.now, &mut self.entropy);
    }

    /// The link that a person's agent made.
    pub fn link(&mut self, who: usize, connection: ConnectionId) -> ConnectionRequest {
        self.until("a link", |world| world.people[who].agent.link(connection).is_some());
        self.people[who].agent.link(connection).expect("a link")
    }

    pub fn is_connected(&self, who: usize, connection: ConnectionId) -> bool {
        self.people[who].agent.status(connection).is_some_and(|status| status.connected)
    }
}

impl Person {
    fn record(&mut self, block: &[u8]) {
        if let Some(recorded) = &mut self.recorded {
            recorded.push(block.to_vec());
        }
    }

    fn new(config: AgentConfig) -> Self {
        Self {
            agent: Agent::new(config.clone()),
            config,
            records: BTreeMap::new(),
            cables: BTreeMap::new(),
            written: None,
            arriving: VecDeque::new(),
            leaving: VecDeque::new(),
            events: Vec::new(),
            online: true,
            disk_fails: false,
            blocks_sent: 0,
            recorded: None,
        }
    }

    /// Whether an event was seen.
    pub fn saw(&self, is: impl Fn(&Event) -> bool) -> bool {
        self.events.iter().any(is)
    }

    /// The bodies of the messages that were seen.
    pub fn messages(&self) -> Vec<(i64, Vec<u8>)> {
        let message = |event: &Event| match event {
            Event::Message { number, body, .. } => Some((*number, body.clone())),
            _ => None,
        };
        self.events.iter().filter_map(message).collect()
    }
}
