//! Broker and proxy together, without sessions and cryptography: what is asked for, by whom, and who is answered.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use super::turns::Turns;
use super::{DialFailure, ForwardId, LinkId, Proxy, ProxyAction, ProxyConfig};
use crate::broker::{Broker, BrokerConfig, ConnectionId};
use crate::crypto::Portable;
use crate::entropy::{Entropy, SeededEntropy};
use crate::keys::X25519Public;
use crate::session::OpenedBlock;
use crate::session::outgoing::{OutgoingContent, ProxySession};
use crate::session::request::{Outcome, Prepared, Verified};
use crate::time::{Duration, Now};
use crate::wire::command::Command;
use crate::wire::error::{BrokerError, ProxyError, SmpError};
use crate::wire::identifier::Identifier;
use crate::wire::version::{Version, VersionRange};

/// A relay that is a proxy, its clients, and destinations that do as the test says.
struct World {
    broker: Broker,
    proxy: Proxy,
    entropy: SeededEntropy,
    now: Now,
    next: u64,
    dials: Vec<(LinkId, usize)>,
    open: BTreeMap<LinkId, usize>,
    in_flight: Vec<(LinkId, ForwardId)>,
    /// Requests without an answer, by correlation.
    asked: BTreeMap<[u8; 24], ConnectionId>,
    /// Answers that were taken.
    answers: Vec<(ConnectionId, [u8; 24], OutgoingContent)>,
}

impl World {
    fn new(seed: u8, at_once: u16, adjust: impl FnOnce(&mut ProxyConfig)) -> Self {
        let mut entropy = SeededEntropy::new([seed; 32]);
        let config = BrokerConfig { proxied_at_once: at_once, ..BrokerConfig::default() };
        let mut proxy = ProxyConfig::new(&Portable);
        adjust(&mut proxy);
        Self {
            broker: Broker::new(config, &mut entropy),
            proxy: Proxy::new(proxy),
            entropy,
            now: Now::default(),
            next: 0,
            dials: Vec::new(),
            open: BTreeMap::new(),
            in_flight: Vec::new(),
            asked: BTreeMap::new(),
            answers: Vec::new(),
        }
    }

    fn below(&mut self, most: usize) -> usize {
        let mut bytes = [0; 8];
        self.entropy.fill_public(&mut bytes);
        (u64::from_be_bytes(bytes) % most as u64) as usize
    }

    fn client(&mut self) -> ConnectionId {
        self.broker.connect(self.now).unwrap()
    }

    fn ask(&mut self, client: ConnectionId, entity: Identifier, command: Command<'_>) -> [u8; 24] {
        self.next += 1;
        let mut correlation = [0; 24];
        correlation[..8].copy_from_slice(&self.next.to_be_bytes());
        let outcome = Outcome::Execute { command, key: None, prepared: Prepared::default() };
        let verified = Verified { correlation: correlation.into(), entity, outcome, forwarded: None };
        let block = OpenedBlock::with_content(Bytes::new());
        self.broker.execute(client, verified, &block, self.now, &mut self.entropy);
        self.asked.insert(correlation, client);
        correlation
    }

    /// `PRXY` to a destination, which is its port.
    fn connect(&mut self, client: ConnectionId, destination: usize) -> [u8; 24] {
        let mut relay: crate::wire::address::ServerAddress = "smp://AAAA@relay.example.com".parse().unwrap();
        relay.fingerprint = alloc::vec![1; 32];
        relay.port = format!("{}", destination + 1);
        self.ask(client, Identifier::EMPTY, Command::ProxyConnect { relay, password: None })
    }

    fn forward(&mut self, client: ConnectionId, session: &[u8]) -> [u8; 24] {
        let command = Command::ProxyForward {
            version: Version::PROXY,
            key: X25519Public([1; 32]),
            transmission: b"sealed",
        };
        self.ask(client, Identifier::new(session).unwrap(), command)
    }

    /// Carries everything between broker and proxy, as the facade does.
    fn work(&mut self) {
        loop {
            while let Some((ticket, answer)) = self.proxy.poll_answer() {
                self.broker.answer_proxied(ticket, answer);
            }
            match self.broker.poll_proxy_request() {
                Some(request) => self.proxy.handle(request, self.now),
                None => break,
            }
        }
        while let Some(action) = self.proxy.poll_action() {
            match action {
                ProxyAction::Dial(link, address) => {
                    self.dials.push((link, usize::from(address.port_number().unwrap()) - 1));
                }
                ProxyAction::MaySend(link) => {
                    while let Some(forward) = self.proxy.poll_forward(link) {
                        self.in_flight.push((link, forward.id));
                    }
                }
                ProxyAction::Close(link) => self.gone(link),
            }
        }
        while let Some(client) = self.broker.poll_ready() {
            let mut outgoing = VecDeque::new();
            self.broker.take_outgoing(client, &mut outgoing);
            for one in outgoing {
                let correlation = *one.correlation.as_full().unwrap();
                assert_eq!(
                    self.asked.remove(&correlation),
                    Some(client),
                    "an answer to nothing, or a second"
                );
                self.answers.push((client, correlation, one.content));
            }
        }
    }

    fn gone(&mut self, link: LinkId) {
        self.open.remove(&link);
        self.dials.retain(|(dial, _)| *dial != link);
        self.in_flight.retain(|(of, _)| *of != link);
    }

    /// A dial that waits succeeds.
    fn accept(&mut self, index: usize) {
        let (link, destination) = self.dials.remove(index);
        self.proxy.dialled(link, self.now);
        self.next += 1;
        let session = ProxySession {
            session: Identifier::new(&self.next.to_be_bytes()).unwrap(),
            versions: VersionRange::only(Version::PROXY),
            chain: Vec::new(),
            signed_key: Vec::new(),
        };
        self.open.insert(link, destination);
        self.proxy.opened(link, Arc::new(session), self.now);
    }

    fn pass(&mut self, time: Duration) {
        self.now.instant = self.now.instant + time;
        self.proxy.handle_timeout(self.now);
        self.work();
    }

    fn check(&self) {
        self.proxy.check().unwrap();
        self.broker.check().unwrap();
    }
}

#[test]
fn whatever_happens_everything_is_answered_once() {
    let mut kinds = BTreeSet::new();
    for seed in 0..20 {
        let mut world = World::new(seed, 3, |config| {
            config.limits.destinations = 5;
            config.limits.dials = 3;
            config.limits.dials_per_client = 2;
            config.limits.waiting_clients = 2;
            config.limits.in_flight = 2;
            config.limits.commands_per_destination = 4;
            config.limits.commands = 6;
        });
        let mut clients: Vec<_> = (0..4).map(|_| world.client()).collect();
        let mut sessions = Vec::new();
        for _ in 0..400 {
            let index = world.below(clients.len());
            let client = clients[index];
            let many = world.below(100);
            match world.below(12) {
                0..3 => {
                    let destination = world.below(8);
                    world.connect(client, destination);
                }
                3..6 if !sessions.is_empty() => {
                    let session: Vec<u8> = Vec::clone(&sessions[many % sessions.len()]);
                    world.forward(client, &session);
                }
                6 if !world.dials.is_empty() => world.accept(many % world.dials.len()),
                7 if !world.dials.is_empty() => {
                    let (link, _) = world.dials.remove(many % world.dials.len());
                    world.proxy.dial_failed(link, DialFailure::Network, world.now);
                }
                8 if !world.open.is_empty() => {
                    let link = *world.open.keys().nth(many % world.open.len()).unwrap();
                    world.gone(link);
                    world.proxy.lost(
                        link,
                        BrokerError::Network(crate::wire::error::NetworkError::Failed),
                        world.now,
                    );
                }
                9 | 10 if !world.in_flight.is_empty() => {
                    let (link, forward) = world.in_flight.remove(many % world.in_flight.len());
                    world.proxy.answered(link, forward, Ok(Bytes::from_static(b"answer")), world.now);
                }
                11 if many < 20 => {
                    world.broker.disconnect(client);
                    world.asked.retain(|_, of| *of != client);
                    clients[index] = world.client();
                }
                11 => world.pass(Duration::from_secs(many as u64 / 4)),
                _ => {}
            }
            world.work();
            world.check();
            for (_, _, content) in world.answers.drain(..) {
                match content {
                    OutgoingContent::ProxySession(session) => {
                        sessions.push(session.session.as_bytes().to_vec());
                        kinds.insert("PKEY");
                    }
                    OutgoingContent::ProxyResponse(_) => {
                        kinds.insert("PRES");
                    }
                    OutgoingContent::Error(SmpError::Proxy(error)) => {
                        kinds.insert(match error {
                            ProxyError::NoSession => "NO_SESSION",
                            ProxyError::Broker(BrokerError::Timeout) => "TIMEOUT",
                            ProxyError::Broker(BrokerError::Network(_)) => "NETWORK",
                            other => panic!("{other:?}"),
                        });
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        // Nobody answers any more: time does.
        for _ in 0..100 {
            world.pass(Duration::from_secs(10));
            world.check();
        }
        assert!(world.asked.is_empty(), "seed {seed}: {} are never answered", world.asked.len());
        assert_eq!(world.proxy.statistics().commands, 0);
    }
    assert_eq!(kinds.len(), 5, "{kinds:?}");
}

#[test]
fn ten_thousand_clients_reach_a_thousand_destinations_and_nobody_starves() {
    let mut world = World::new(1, 32, |config| config.limits.dials = 200);
    let clients: Vec<_> = (0..10_000).map(|_| world.client()).collect();
    // One in ten never answers a dial: dead ones take up dials, but fewer than there are.
    let is_dead = |destination: usize| destination % 10 == 9;
    let mut to_the_living = BTreeSet::new();
    for (number, client) in clients.iter().enumerate() {
        for destination in [number % 1000, (number * 7 + 3) % 1000] {
            let correlation = world.connect(*client, destination);
            if !is_dead(destination) {
                to_the_living.insert(correlation);
            }
        }
        world.work();
        while let Some(index) = world.dials.iter().position(|(_, destination)| !is_dead(*destination)) {
            world.accept(index);
            world.work();
        }
    }
    // No time has passed, and everybody has reached who can be reached.
    for (_, correlation, content) in world.answers.drain(..) {
        assert!(matches!(content, OutgoingContent::ProxySession(_)));
        assert!(to_the_living.remove(&correlation));
    }
    assert_eq!(to_the_living.len(), 0);
    assert_eq!(world.open.len(), 900, "one connection for each destination");
    assert_eq!(world.dials.len(), 100);
    world.pass(Duration::from_secs(31));
    assert!(world.asked.is_empty(), "the dead are told in time");
    world.check();
}

#[test]
fn clients_take_turns() {
    let mut world = World::new(1, 32, |_| ());
    let (one, two) = (world.client(), world.client());
    let mut turns = Turns::new(4, 3);
    // Names of links are the proxy's: any ten do.
    for destination in 0..10 {
        world.connect(one, destination);
    }
    world.proxy = Proxy::new(ProxyConfig {
        limits: super::ProxyLimits { dials: 10, dials_per_client: 10, ..super::ProxyLimits::default() },
        ..ProxyConfig::new(&Portable)
    });
    world.work();
    let links: Vec<_> = world.dials.iter().map(|(link, _)| *link).collect();
    assert_eq!(links.len(), 10);
    for link in &links[..6] {
        turns.wait(one, *link);
    }
    for link in &links[6..] {
        turns.wait(two, *link);
    }
    let next: Vec<_> = core::iter::from_fn(|| turns.next()).collect();
    assert_eq!(next, [(one, links[0]), (two, links[6]), (one, links[1]), (two, links[7])]);
    assert!(turns.is_consistent());
    turns.finished(one);
    assert_eq!(turns.next(), Some((one, links[2])));
    turns.finished(two);
    turns.finished(two);
    let next: Vec<_> = core::iter::from_fn(|| turns.next()).collect();
    assert_eq!(next.len(), 2);
    assert!(turns.is_consistent());
    for _ in 0..4 {
        turns.finished(one);
        turns.finished(two);
        while turns.next().is_some() {}
        assert!(turns.is_consistent());
    }
}
