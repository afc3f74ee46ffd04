//! A first-step relay with ten thousand clients and a thousand destinations: what a client costs, and that nobody starves; and a
//! first-step relay that is told anything by anybody.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;
use smp_proto::broker::storage::{ActionId, Completion, StorageAction};
use smp_proto::entropy::SeededEntropy;
use smp_proto::first_step::{Action, DestinationLink, FirstStep, FirstStepConfig, UserId};
use smp_proto::keys::X25519Public;
use smp_proto::storage_model::StorageModel;
use smp_proto::time::{Duration, Instant, Now, UnixTime};
use smp_proto::wire::address::ServerAddress;
use smp_proto::wire::first_step::{
    Correlation, FirstStepError, Forward, ForwardOptions, Hold, Message, PublishedKey, Register, Registered,
    RelayFailure, RelayNumber, SEALED_LENGTH, Transmission,
};

const HOLD: ForwardOptions = ForwardOptions { while_unsecured: false, while_full: false, hold: Hold::Day };

fn content(correlation: u64, relay: RelayNumber, message: Message<'_>) -> Bytes {
    let mut out = Vec::new();
    Transmission { correlation: Correlation(correlation), relay, message }.encode(&mut out).unwrap();
    out.into()
}

fn address(number: usize) -> ServerAddress {
    format!("smp://LcJUMfVhwD8yxjAiSaDzzGF3-kLG4Uh0Fl_ZIjrRwjI=@relay{number}.example.org").parse().unwrap()
}

fn now() -> Now {
    Now { instant: Instant::from_micros(1), wall: UnixTime(1_000_000) }
}

struct World {
    relay: FirstStep,
    storage: StorageModel,
    entropy: SeededEntropy,
    now: Now,
    /// Destinations that are there, by their addresses.
    up: BTreeSet<String>,
    /// Connections, and dials of destinations that do not answer.
    connected: BTreeSet<DestinationLink>,
    dialling: usize,
    /// Whether dials of destinations that are not there fail at once.
    refuses: bool,
    registered: BTreeMap<UserId, Vec<RelayNumber>>,
    held: usize,
    answered: Vec<UserId>,
    failed: usize,
}

impl World {
    fn new(config: FirstStepConfig) -> Self {
        Self {
            relay: FirstStep::new(config),
            storage: StorageModel::default(),
            entropy: SeededEntropy::new([5; 32]),
            now: now(),
            up: BTreeSet::new(),
            connected: BTreeSet::new(),
            dialling: 0,
            refuses: false,
            registered: BTreeMap::new(),
            held: 0,
            answered: Vec::new(),
            failed: 0,
        }
    }

    fn say(&mut self, user: u64, content: &Bytes) {
        self.relay.receive(UserId(user), content, self.now, &mut self.entropy);
        self.work();
    }

    fn work(&mut self) {
        loop {
            while let Some((id, action)) = self.relay.poll_storage() {
                let completion = self.storage.apply(id, action);
                self.relay.complete(completion, self.now);
            }
            let Some(action) = self.relay.poll_action() else { return };
            match action {
                Action::Connect(link, address) => {
                    if self.up.contains(&address.to_string()) {
                        self.connected.insert(link);
                        self.relay.connected(link, self.now);
                    } else if self.refuses {
                        let failure = RelayFailure::Network;
                        self.relay.disconnected(link, failure, self.now, &mut self.entropy);
                    } else {
                        self.dialling += 1;
                    }
                }
                Action::Disconnect(link) => {
                    if !self.connected.remove(&link) {
                        self.dialling -= 1;
                    }
                }
                Action::TellClient(user) => self.hear(user),
                Action::TellDestination(link) => self.answer(link),
            }
        }
    }

    fn hear(&mut self, user: UserId) {
        loop {
            let mut out = Vec::new();
            if !self.relay.poll_to_client(user, &mut out) {
                return;
            }
            let heard = Transmission::decode(&out).unwrap();
            match heard.message {
                Message::Registered(_) => self.registered.entry(user).or_default().push(heard.relay),
                Message::Response(_) => self.answered.push(user),
                Message::Error(FirstStepError::Held { .. }) => self.held += 1,
                Message::Error(_) => self.failed += 1,
                _ => panic!("not said to clients"),
            }
        }
    }

    fn answer(&mut self, link: DestinationLink) {
        loop {
            let mut out = Vec::new();
            if !self.relay.poll_to_destination(link, &mut out) {
                return;
            }
            let asked = Transmission::decode(&out).unwrap();
            let sealed = [0; SEALED_LENGTH];
            let message = match asked.message {
                Message::Register(_) => {
                    let until = self.now.wall.0 + 86_400 * 2;
                    let chain = vec![&[1; 400][..], &[2; 400]];
                    let (number, key) = (RelayNumber(1), X25519Public([5; 32]));
                    let key = PublishedKey { number, until, key, chain, signature: &[2; 64] };
                    Message::Registered(Registered { until, key })
                }
                _ => Message::Response(&sealed),
            };
            let answer = content(asked.correlation.0, asked.relay, message);
            self.relay.receive_from(link, &answer, self.now, &mut self.entropy);
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now.instant + time;
        loop {
            let next = self.relay.next_deadline().filter(|at| *at <= end).unwrap_or(end);
            let step = next.saturating_since(self.now.instant);
            self.now.instant = self.now.instant + step;
            let passed = self.now.instant.saturating_since(now().instant);
            self.now.wall = now().wall.saturating_add(passed);
            self.relay.handle_timeout(self.now, &mut self.entropy);
            self.work();
            if self.now.instant >= end {
                return;
            }
        }
    }
}

fn token(user: u64, destination: usize) -> [u8; 32] {
    let mut token = [0; 32];
    token[..8].copy_from_slice(&user.to_be_bytes());
    token[8..16].copy_from_slice(&(destination as u64).to_be_bytes());
    token
}

const CLIENTS: u64 = 10_000;
const DESTINATIONS: usize = 1000;

/// One in ten never answers a dial: dead ones take up dials, but fewer than there are.
fn is_dead(destination: usize) -> bool {
    destination % 10 == 9
}

/// Ten thousand clients register two of a thousand destinations each. Returns how many of these are there.
fn crowd() -> (World, usize) {
    let mut world = World::new(FirstStepConfig::default());
    let living = (0..DESTINATIONS).filter(|index| !is_dead(*index));
    world.up = living.map(|index| address(index).to_string()).collect();
    let mut to_the_living = 0;
    for user in 1..=CLIENTS {
        world.relay.attach(UserId(user));
        for destination in [user as usize % DESTINATIONS, (user as usize * 7 + 3) % DESTINATIONS] {
            to_the_living += usize::from(!is_dead(destination));
            let register = Register {
                token: token(user, destination),
                address: Some(address(destination)),
                password: None,
            };
            world.say(user, &content(destination as u64 + 1, RelayNumber(0), Message::Register(register)));
        }
    }
    world.relay.check().unwrap();
    (world, to_the_living)
}

/// What the relay keeps in memory for each client, its part of the destinations included.
fn bytes_of_client(world: World) -> i64 {
    let World { relay, .. } = world;
    let left = allocation_counter::measure(|| drop(relay));
    let bytes = -left.bytes_current / CLIENTS as i64;
    println!("{bytes} bytes a client");
    assert!(bytes > 0);
    bytes
}

#[test]
fn ten_thousand_clients_of_a_thousand_destinations_cost_little() {
    let (world, to_the_living) = crowd();
    // No time has passed, and everybody has registered whom he can.
    assert_eq!(world.registered.values().map(Vec::len).sum::<usize>(), to_the_living);
    assert_eq!(world.connected.len(), 900, "one connection for each destination");
    assert!(world.dialling <= 128, "{} dials", world.dialling);
    assert!(bytes_of_client(world) <= 2048);
}

#[test]
fn nobody_starves_when_everything_was_down_and_comes_back() {
    let (mut world, to_the_living) = crowd();
    world.pass(Duration::from_secs(31));
    assert!(world.failed > 0, "the dead are told in time");

    // All destinations go away, and everybody has something held.
    world.up.clear();
    for link in std::mem::take(&mut world.connected) {
        world.relay.disconnected(link, RelayFailure::Network, world.now, &mut world.entropy);
        world.work();
    }
    let sealed = [7; SEALED_LENGTH];
    let senders: Vec<_> =
        world.registered.iter().map(|(user, registered)| (*user, registered.clone())).collect();
    for (user, registered) in &senders {
        for (index, there) in registered.iter().enumerate() {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&user.0.to_be_bytes());
            key[8] = index as u8;
            let acknowledged = Correlation(0);
            let forward =
                Forward { options: HOLD, acknowledged, delay: 0, key: X25519Public(key), sealed: &sealed };
            world.say(user.0, &content(5000, *there, Message::Forward(forward)));
        }
    }
    assert_eq!((world.held, world.answered.len()), (to_the_living, 0));
    assert_eq!(world.relay.held(), to_the_living);
    world.relay.check().unwrap();

    // They come back, and everything arrives.
    world.up = (0..DESTINATIONS).map(|index| address(index).to_string()).collect();
    world.pass(Duration::from_secs(1200));
    assert_eq!(world.answered.len(), to_the_living);
    world.relay.check().unwrap();
    // With two answers each that nobody has acknowledged.
    assert!(bytes_of_client(world) <= 2 * 2048);
}

#[test]
fn a_flood_of_names_that_fail_leaves_room_for_others() {
    let mut config = FirstStepConfig::default();
    config.limits.destinations = 50;
    let mut world = World::new(config);
    world.refuses = true;
    world.relay.attach(UserId(1));
    for destination in 1..=500 {
        let register =
            Register { token: token(1, destination), address: Some(address(destination)), password: None };
        world.say(1, &content(destination as u64, RelayNumber(0), Message::Register(register)));
        world.relay.check().unwrap();
    }
    assert_eq!(world.failed, 500, "each is told that it failed, and not that there are too many");
    assert_eq!((world.relay.destinations(), world.relay.clients()), (50, 0));
    world.up.insert(address(0).to_string());
    world.relay.attach(UserId(2));
    let register = Register { token: token(2, 0), address: Some(address(0)), password: None };
    world.say(2, &content(1, RelayNumber(0), Message::Register(register)));
    assert_eq!(world.registered.get(&UserId(2)).map(Vec::len), Some(1));
    // Those that are in use stay, and then there is no room.
    for destination in 1000..1100 {
        world.up.insert(address(destination).to_string());
        let register =
            Register { token: token(2, destination), address: Some(address(destination)), password: None };
        world.say(2, &content(destination as u64, RelayNumber(0), Message::Register(register)));
    }
    assert_eq!(world.registered.get(&UserId(2)).map(Vec::len), Some(50));
    assert_eq!(world.relay.destinations(), 50);
    world.relay.check().unwrap();
}

/// What somebody does to a first-step relay.
#[derive(Clone, Debug)]
enum Deed {
    Noise(u8, Vec<u8>),
    Register(u8, u8, u8),
    Forward(u8, u64, u8, u8, u16),
    Check(u8, u64, u8, u64),
    Attach(u8),
    Detach(u8),
    Connected(u8),
    Disconnected(u8, u8),
    Says(u8, u64, Option<Vec<u8>>),
    Answers(u8),
    Stored(bool),
    Passes(u32),
}

fn deed() -> impl Strategy<Value = Deed> {
    let small = || 0..4_u8;
    prop_oneof![
        (small(), prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(user, noise)| Deed::Noise(user, noise)),
        (small(), small(), small()).prop_map(|(user, token, to)| Deed::Register(user, token, to)),
        (small(), small(), small()).prop_map(|(user, token, to)| Deed::Register(user, token, to)),
        (small(), 0..12_u64, small(), 0..16_u8, prop_oneof![4 => Just(0), 1 => any::<u16>()]).prop_map(
            |(user, number, there, options, delay)| Deed::Forward(user, number, there, options, delay)
        ),
        (small(), 0..12_u64, small(), 0..16_u8, Just(0)).prop_map(|(user, number, there, options, delay)| {
            Deed::Forward(user, number, there, options, delay)
        }),
        (small(), 0..12_u64, small(), 0..12_u64)
            .prop_map(|(user, number, there, known)| Deed::Check(user, number, there, known)),
        small().prop_map(Deed::Attach),
        small().prop_map(Deed::Detach),
        small().prop_map(Deed::Connected),
        small().prop_map(Deed::Connected),
        (small(), 0..7_u8).prop_map(|(link, failure)| Deed::Disconnected(link, failure)),
        (small(), 0..30_u64, prop::option::of(prop::collection::vec(any::<u8>(), 0..40)))
            .prop_map(|(link, number, noise)| Deed::Says(link, number, noise)),
        small().prop_map(Deed::Answers),
        small().prop_map(Deed::Answers),
        prop::bool::weighted(0.9).prop_map(Deed::Stored),
        prop::bool::weighted(0.9).prop_map(Deed::Stored),
        (0..100_000_u32).prop_map(Deed::Passes),
    ]
}

/// Everything that is under way, of which the script picks.
#[derive(Default)]
struct Pending {
    storage: Vec<(ActionId, StorageAction)>,
    links: Vec<DestinationLink>,
    /// What a destination was asked, and has not answered.
    asked: Vec<(DestinationLink, u64, bool)>,
    registered: BTreeMap<u64, Vec<RelayNumber>>,
}

impl Pending {
    fn drain(&mut self, relay: &mut FirstStep) {
        while let Some(action) = relay.poll_storage() {
            self.storage.push(action);
        }
        while let Some(action) = relay.poll_action() {
            match action {
                Action::Connect(link, _) => self.links.push(link),
                Action::Disconnect(link) => self.links.retain(|known| *known != link),
                Action::TellClient(user) => loop {
                    let mut out = Vec::new();
                    if !relay.poll_to_client(user, &mut out) {
                        break;
                    }
                    let heard = Transmission::decode(&out).expect("a transmission");
                    if let Message::Registered(_) = heard.message {
                        self.registered.entry(user.0).or_default().push(heard.relay);
                    }
                },
                Action::TellDestination(link) => loop {
                    let mut out = Vec::new();
                    if !relay.poll_to_destination(link, &mut out) {
                        break;
                    }
                    let asked = Transmission::decode(&out).expect("a transmission");
                    let is_register = matches!(asked.message, Message::Register(_));
                    self.asked.push((link, asked.correlation.0, is_register));
                },
            }
        }
    }
}

fn pick<T: Clone>(from: &[T], which: u8) -> Option<T> {
    from.get(usize::from(which) % from.len().max(1)).cloned()
}

proptest! {
    #[test]
    fn whatever_anybody_does_the_relay_stays_whole(deeds in prop::collection::vec(deed(), 0..120)) {
        let mut config = FirstStepConfig::default();
        config.limits.held_by_client = 3;
        config.limits.held = 5;
        config.limits.immediate_in_all = 3;
        config.limits.destinations = 3;
        config.limits.dials = 2;
        config.limits.outstanding = 2;
        let mut relay = FirstStep::new(config.clone());
        let mut storage = StorageModel::default();
        let mut entropy = SeededEntropy::new([8; 32]);
        let (mut now, mut pending) = (now(), Pending::default());
        let sealed = [1; SEALED_LENGTH];
        for deed in deeds {
            match deed {
                Deed::Noise(user, noise) => {
                    relay.receive(UserId(user.into()), &noise.into(), now, &mut entropy);
                }
                Deed::Register(user, token, to) => {
                    let register =
                        Register { token: [token; 32], address: Some(address(to.into())), password: None };
                    let said = content(1 << 40, RelayNumber(0), Message::Register(register));
                    relay.receive(UserId(user.into()), &said, now, &mut entropy);
                }
                Deed::Forward(user, number, there, options, delay) => {
                    let known = pending.registered.get(&user.into()).and_then(|all| pick(all, there));
                    let there = known.unwrap_or(RelayNumber(u32::from(options)));
                    let options = ForwardOptions::from_byte(options).unwrap();
                    let (acknowledged, key) = (Correlation(0), X25519Public([number as u8; 32]));
                    let forward = Forward { options, acknowledged, delay, key, sealed: &sealed };
                    let said = content(number, there, Message::Forward(forward));
                    relay.receive(UserId(user.into()), &said, now, &mut entropy);
                }
                Deed::Check(user, number, there, known) => {
                    let there = pending.registered.get(&user.into()).and_then(|all| pick(all, there));
                    let check = Message::Check { acknowledged: Correlation(known) };
                    let said = content(number, there.unwrap_or(RelayNumber(1)), check);
                    relay.receive(UserId(user.into()), &said, now, &mut entropy);
                }
                Deed::Attach(user) => relay.attach(UserId(user.into())),
                Deed::Detach(user) => {
                    relay.detach(UserId(user.into()));
                    pending.registered.remove(&user.into());
                }
                Deed::Connected(link) => {
                    if let Some(link) = pick(&pending.links, link) {
                        relay.connected(link, now);
                    }
                }
                Deed::Disconnected(link, failure) => {
                    if let Some(link) = pick(&pending.links, link) {
                        let failure = RelayFailure::from_byte(failure).unwrap();
                        pending.links.retain(|known| *known != link);
                        relay.disconnected(link, failure, now, &mut entropy);
                    }
                }
                Deed::Says(link, number, noise) => {
                    if let Some(link) = pick(&pending.links, link) {
                        let said = noise.map_or_else(
                            || content(number, RelayNumber(0), Message::Error(FirstStepError::NotYet)),
                            Bytes::from,
                        );
                        relay.receive_from(link, &said, now, &mut entropy);
                    }
                }
                Deed::Answers(which) => {
                    if let Some((link, number, is_register)) = pick(&pending.asked, which) {
                        let until = now.wall.0 + 86_400;
                        let (number_of_key, key) = (RelayNumber(1), X25519Public([5; 32]));
                        let chain = vec![&[1; 9][..]];
                        let key = PublishedKey { number: number_of_key, until, key, chain, signature: &[2; 64] };
                        let message = match is_register {
                            true => Message::Registered(Registered { until, key }),
                            false => Message::Response(&sealed),
                        };
                        pending.asked.retain(|asked| *asked != (link, number, is_register));
                        relay.receive_from(link, &content(number, RelayNumber(0), message), now, &mut entropy);
                    }
                }
                // Writes take effect in their order: the first that waits is done first.
                Deed::Stored(done) => {
                    if !pending.storage.is_empty() {
                        let (id, action) = pending.storage.remove(0);
                        let completion = match done {
                            true => storage.apply(id, action),
                            false => Completion::Failed(id),
                        };
                        relay.complete(completion, now);
                    }
                }
                Deed::Passes(seconds) => {
                    now.instant = now.instant + Duration::from_secs(seconds.into());
                    now.wall = UnixTime(now.wall.0 + i64::from(seconds));
                    relay.handle_timeout(now, &mut entropy);
                    prop_assert!(relay.next_deadline().is_none_or(|at| at > now.instant));
                }
            }
            pending.drain(&mut relay);
            prop_assert_eq!(relay.check(), Ok(()));
            prop_assert!(relay.held() <= config.limits.held && relay.destinations() <= config.limits.destinations + 1);
        }
        // What is on disk can be taken over, at any moment.
        let mut again = FirstStep::new(config);
        for prefix in FirstStep::LOADED {
            for (key, value) in storage.records(&prefix) {
                prop_assert_eq!(again.restore(key, value), Ok(()));
            }
        }
        again.begin(now);
        prop_assert_eq!(again.check(), Ok(()));
    }
}
