//! A client of a first-step relay, the relay's own machine, and a destination that comes and goes: what is held is executed
//! once, in order, and told, whatever is killed or lost in between.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use smp_proto::broker::storage::Completion;
use smp_proto::client::first_step::{HoldId, Holdable, HoldingEvent, Holdings, HoldingsConfig, NotHeld};
use smp_proto::client::queue::SenderQueue;
use smp_proto::client::{ClientCommand, CommandFailure, NotTheRelay, Reply};
use smp_proto::crypto::forwarding::{ForwardKeys, session_name, signed_text};
use smp_proto::crypto::{Portable, Provider, signatures};
use smp_proto::entropy::{Entropy, SeededEntropy};
use smp_proto::first_step::{Action, DestinationLink, FirstStep, FirstStepConfig, UserId};
use smp_proto::keys::{X25519Public, X25519Secret};
use smp_proto::session::AuthSecret;
use smp_proto::storage_model::StorageModel;
use smp_proto::time::{Duration, Instant, Now, UnixTime};
use smp_proto::wire::Identifier;
use smp_proto::wire::address::ServerAddress;
use smp_proto::wire::command::Command;
use smp_proto::wire::error::SmpError;
use smp_proto::wire::first_step::{
    Correlation, FirstStepError, ForwardOptions, Hold, Message, PublishedKey, Registered, RelayFailure,
    RelayNumber, SEALED_LENGTH, Transmission,
};
use smp_proto::wire::response::Response;
use smp_proto::wire::transmission::Authorization;
use smp_proto::wire::transmission::{Batch, BatchWriter, SessionLayout, Transmission as Inner, write_head};
use smp_proto::wire::version::Version;
use smp_tests::sessions::Certificates;

const HELD: ForwardOptions = ForwardOptions { while_unsecured: false, while_full: true, hold: Hold::Weeks };

/// The destination: it executes each command once, and keeps its answer.
struct There {
    certificates: Certificates,
    secrets: BTreeMap<RelayNumber, (X25519Secret, i64)>,
    newest: RelayNumber,
    is_up: bool,
    is_full: bool,
    loses_answers: bool,
    forges: bool,
    connected: Option<DestinationLink>,
    /// Bodies, in order.
    executed: Vec<Vec<u8>>,
    receipts: BTreeMap<[u8; 32], Vec<u8>>,
}

impl There {
    fn rotate(&mut self, now: Now) {
        self.newest = RelayNumber(self.newest.0 + 1);
        let secret = X25519Secret::from_bytes([u8::try_from(self.newest.0).unwrap(); 32]);
        self.secrets.retain(|_, (_, until)| *until > now.wall.0);
        self.secrets.insert(self.newest, (secret, now.wall.0 + 2 * 86_400));
    }

    /// What it answers to the content of a block.
    fn answer(&mut self, content: &[u8], now: Now) -> Vec<u8> {
        let Transmission { correlation, relay, message } = Transmission::decode(content).unwrap();
        let (sealed, chain, signature);
        let message = match message {
            Message::Register(_) => {
                let (secret, until) = &self.secrets[&self.newest];
                let key = Portable.x25519_public(secret);
                let text = signed_text(self.newest, *until, &key);
                signature = signatures::sign(&Portable, &self.certificates.key, &[&text]);
                chain = self.certificates.chain.clone();
                let chain = chain.iter().map(Vec::as_slice).collect();
                let until = *until + i64::from(self.forges);
                let signature = signature.as_bytes();
                let key = PublishedKey { number: self.newest, until, key, chain, signature };
                Message::Registered(Registered { until, key })
            }
            Message::Forward(forward) => match self.secrets.get(&relay) {
                Some((_, until)) if *until <= now.wall.0 => Message::Error(FirstStepError::NoKey),
                None => Message::Error(FirstStepError::NoKey),
                Some((secret, _)) => {
                    if let Some(answer) = self.receipts.get(&forward.key.0) {
                        sealed = answer.clone();
                        Message::Response(&sealed)
                    } else {
                        let secret = secret.clone();
                        match self.execute(relay, &secret, &forward.key, forward.sealed) {
                            Some(answer) => {
                                self.receipts.insert(forward.key.0, answer.clone());
                                sealed = answer;
                                Message::Response(&sealed)
                            }
                            None => Message::Error(FirstStepError::NotYet),
                        }
                    }
                }
            },
            _ => panic!("not said to destinations"),
        };
        let mut answer = Vec::new();
        Transmission { correlation, relay, message }.encode(&mut answer).unwrap();
        answer
    }

    fn execute(
        &mut self,
        number: RelayNumber,
        secret: &X25519Secret,
        ephemeral: &X25519Public,
        sealed: &[u8],
    ) -> Option<Vec<u8>> {
        let keys = ForwardKeys::of_relay(&Portable, secret, number, ephemeral);
        let mut sealed = sealed.to_vec();
        let text = keys.open_command(&Portable, &mut sealed).unwrap();
        let name = session_name(number, &Portable.x25519_public(secret));
        let layout = SessionLayout { version: Version(18), session: &name };
        let mut batch = Batch::parse(text).unwrap();
        let bytes = batch.next().unwrap();
        assert!(batch.is_empty());
        let command = Inner::decode_command(bytes, layout).unwrap();
        let Command::Send { body, .. } = command.content else { panic!("not a message") };
        assert!(matches!(command.authorization, Authorization::Authenticator(_)));
        if self.is_full {
            return None;
        }
        self.executed.push(body.to_vec());
        let mut answer = vec![0; 200];
        let mut writer = BatchWriter::new(&mut answer).unwrap();
        writer
            .add(|out| {
                write_head(Authorization::None, None, layout, &command.correlation, &command.entity, out)?;
                let gone = body.starts_with(b"gone");
                let said = if gone { Response::Error(SmpError::Authorization) } else { Response::Ok };
                said.encode(layout.version, out)
            })
            .unwrap();
        let length = writer.finish();
        let mut sealed = [0; SEALED_LENGTH];
        keys.seal_answer(&Portable, &answer[..length], &mut sealed).unwrap();
        Some(sealed.to_vec())
    }
}

struct World {
    client: Holdings,
    /// The client's disk.
    record: Vec<u8>,
    /// What is to be said: the application's messages, by id.
    texts: BTreeMap<HoldId, ClientCommand>,
    events: Vec<HoldingEvent>,
    relay: FirstStep,
    relay_config: FirstStepConfig,
    disk: StorageModel,
    there: There,
    connection: Option<u64>,
    connections: u64,
    /// Whether what the relay says gets lost, with the connection.
    deaf: bool,
    /// How many steps are done before the client is killed, if at all.
    kill_in: Option<usize>,
    kills: usize,
    /// All that the relay said.
    heard: Vec<Vec<u8>>,
    now: Now,
    entropy: SeededEntropy,
}

fn address(host: &str, fingerprint: &[u8]) -> ServerAddress {
    let mut address: ServerAddress = format!("smp://AAAA@{host}").parse().unwrap();
    address.fingerprint = fingerprint.to_vec();
    address
}

fn config() -> HoldingsConfig {
    HoldingsConfig::new(&Portable)
}

impl World {
    fn new() -> Self {
        Self::with(FirstStepConfig::default())
    }

    fn with(relay_config: FirstStepConfig) -> Self {
        let now = Now { instant: Instant::from_micros(1), wall: UnixTime(1_800_000_000) };
        let certificates = Certificates::named("ed25519");
        let mut entropy = SeededEntropy::new([1; 32]);
        let destination = address("destination.example.org", &certificates.fingerprint);
        let client =
            Holdings::new(config(), address("relay.example.org", &[9; 32]), destination, &mut entropy);
        let mut there = There {
            certificates,
            secrets: BTreeMap::new(),
            newest: RelayNumber(6),
            is_up: true,
            is_full: false,
            loses_answers: false,
            forges: false,
            connected: None,
            executed: Vec::new(),
            receipts: BTreeMap::new(),
        };
        there.rotate(now);
        let record = client.record().unwrap().to_vec();
        Self {
            client,
            record,
            texts: BTreeMap::new(),
            events: Vec::new(),
            relay: FirstStep::new(relay_config.clone()),
            relay_config,
            disk: StorageModel::default(),
            there,
            connection: None,
            connections: 0,
            deaf: false,
            kill_in: None,
            kills: 0,
            heard: Vec::new(),
            now,
            entropy,
        }
    }

    fn registered() -> Self {
        let mut world = Self::new();
        world.client.register();
        world.connect();
        assert!(matches!(world.events[..], [HoldingEvent::Registered(_)]), "{:?}", world.events);
        world.events.clear();
        world
    }

    /// One message, as agents make them.
    fn message(&mut self, id: u64, body: &str) -> HoldId {
        let key = AuthSecret::X25519(X25519Secret::from_bytes([0x21; 32]));
        let queue =
            SenderQueue { sender: Identifier::new(&[3; 24]).unwrap(), key: Some(std::sync::Arc::new(key)) };
        let id = HoldId(id);
        self.texts.insert(id, queue.send(false, Bytes::copy_from_slice(body.as_bytes())));
        id
    }

    fn submit(&mut self, id: u64, body: &str, options: ForwardOptions) -> HoldId {
        let id = self.message(id, body);
        let command = Holdable::new(self.texts[&id].clone()).unwrap();
        self.client.submit(id, command, options, 0).unwrap();
        self.settle();
        id
    }

    fn connect(&mut self) {
        self.hang_up();
        self.connections += 1;
        self.connection = Some(self.connections);
        self.relay.attach(UserId(self.connections));
        self.client.connected();
        self.settle();
    }

    fn hang_up(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.relay.detach(UserId(connection));
            self.client.disconnected();
        }
    }

    /// The client's process is killed, and starts again with what was stored.
    fn restart_client(&mut self) {
        self.kills += 1;
        self.hang_up();
        self.client = Holdings::restore(config(), &self.record).unwrap();
        assert_eq!(self.client.record().unwrap().as_slice(), self.record, "read as it was written");
    }

    fn restart_relay(&mut self) {
        self.hang_up();
        self.there.connected = None;
        self.relay = FirstStep::new(self.relay_config.clone());
        for prefix in FirstStep::LOADED {
            for (key, value) in self.disk.records(&prefix) {
                self.relay.restore(key, value).unwrap();
            }
        }
        self.relay.begin(self.now);
    }

    fn lose_destination(&mut self) {
        if let Some(number) = self.there.connected.take() {
            self.relay.disconnected(number, RelayFailure::Network, self.now, &mut self.entropy);
        }
        self.settle();
    }

    /// A step of the client: true when it was killed.
    fn step(&mut self) -> bool {
        match &mut self.kill_in {
            Some(0) => {
                self.kill_in = None;
                self.restart_client();
                true
            }
            Some(steps) => {
                *steps -= 1;
                false
            }
            None => false,
        }
    }

    /// Until nobody has anything to do.
    fn settle(&mut self) {
        loop {
            self.client.check();
            let mut is_busy = false;
            if let Some(connection) = self.connection
                && let Some(content) = self.client.poll_content(self.now, &mut self.entropy)
            {
                is_busy = true;
                self.relay.receive(UserId(connection), &content.into(), self.now, &mut self.entropy);
                self.step();
            }
            while let Some(event) = self.client.poll_event() {
                is_busy = true;
                if self.step() {
                    break;
                }
                if let HoldingEvent::Wanted { id } = event {
                    let command = self.texts.get(&id).cloned().map(|command| Holdable::new(command).unwrap());
                    self.client.provide(id, command);
                } else {
                    // As an agent does: what is told is written together with what changed.
                    self.events.push(event);
                }
            }
            if let Some(change) = self.client.take_change() {
                is_busy = true;
                if !self.step() {
                    self.record = self.client.record().unwrap().to_vec();
                    if !self.step() {
                        self.client.stored(change);
                    }
                }
            }
            is_busy |= self.settle_relay();
            if !is_busy {
                return;
            }
        }
    }

    fn settle_relay(&mut self) -> bool {
        let mut is_busy = false;
        let mut told = VecDeque::new();
        loop {
            while let Some((id, action)) = self.relay.poll_storage() {
                is_busy = true;
                let completion: Completion = self.disk.apply(id, action);
                self.relay.complete(completion, self.now);
            }
            let Some(action) = self.relay.poll_action() else { break };
            is_busy = true;
            match action {
                Action::Connect(number, _) if self.there.is_up => {
                    self.there.connected = Some(number);
                    self.relay.connected(number, self.now);
                }
                Action::Connect(number, _) => {
                    self.relay.disconnected(number, RelayFailure::Network, self.now, &mut self.entropy);
                }
                Action::Disconnect(_) => self.there.connected = None,
                Action::TellClient(user) => loop {
                    let mut content = Vec::new();
                    if !self.relay.poll_to_client(user, &mut content) {
                        break;
                    }
                    told.push_back((user, content));
                },
                Action::TellDestination(number) => loop {
                    let mut content = Vec::new();
                    if !self.relay.poll_to_destination(number, &mut content) {
                        break;
                    }
                    let answer = self.there.answer(&content, self.now);
                    let is_key = content[12] == b'S';
                    if self.there.loses_answers && !is_key {
                        self.there.connected = None;
                        let failure = RelayFailure::Network;
                        self.relay.disconnected(number, failure, self.now, &mut self.entropy);
                        break;
                    }
                    self.relay.receive_from(number, &answer.into(), self.now, &mut self.entropy);
                },
            }
        }
        for (user, content) in told {
            if self.connection != Some(user.0) {
                continue;
            }
            if self.deaf {
                self.hang_up();
                continue;
            }
            self.heard.push(content.clone());
            if !self.client.receive(&content, self.now) {
                self.hang_up();
            }
            self.step();
        }
        is_busy
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now.instant + time;
        let start = self.now;
        loop {
            let next = [self.relay.next_deadline(), self.client.next_deadline()].into_iter().flatten().min();
            let Some(at) = next.filter(|at| *at <= end) else { break };
            let instant = at.max(self.now.instant + Duration::from_micros(1));
            let wall = start.wall.saturating_add(instant.saturating_since(start.instant));
            self.now = Now { instant, wall };
            self.relay.handle_timeout(self.now, &mut self.entropy);
            if !self.client.handle_timeout(self.now) {
                self.hang_up();
            }
            self.settle();
        }
        self.now = Now { instant: end, wall: start.wall.saturating_add(time) };
        self.settle();
    }

    /// Time passes, and whenever there is no connection a new one is made.
    fn pass_connected(&mut self, minutes: u32) {
        for _ in 0..minutes {
            if self.connection.is_none() {
                self.connect();
            }
            self.pass(Duration::from_secs(60));
        }
    }

    fn answered(&self) -> Vec<(u64, Result<Reply, CommandFailure>)> {
        self.events
            .iter()
            .filter_map(|event| match event {
                HoldingEvent::Answered { id, result } => Some((id.0, result.clone())),
                _ => None,
            })
            .collect()
    }

    fn bodies(&self) -> Vec<&str> {
        self.there.executed.iter().map(|body| std::str::from_utf8(body).unwrap()).collect()
    }
}

fn held(id: u64, attempts: u16, next: i64) -> HoldingEvent {
    HoldingEvent::Held { id: HoldId(id), attempts, next }
}

fn failed(id: u64, because: NotHeld, was_held: bool) -> HoldingEvent {
    HoldingEvent::Failed { id: HoldId(id), because, was_held }
}

#[test]
fn what_can_be_delivered_is_answered_at_once() {
    let mut world = World::registered();
    let at = world.now.wall.0;
    world.submit(1, "hello", HELD);
    world.submit(2, "gone", HELD);
    let ok = HoldingEvent::Answered { id: HoldId(1), result: Ok(Reply::Ok) };
    let refused = Err(CommandFailure::Refused(SmpError::Authorization));
    let gone = HoldingEvent::Answered { id: HoldId(2), result: refused };
    assert_eq!(world.events, [held(1, 0, at), ok, held(2, 0, at), gone]);
    assert_eq!(world.bodies(), ["hello", "gone"]);
    assert!(world.client.is_empty() && !world.client.wants_connection() && !world.client.has_last_words());
    assert_eq!(world.relay.held(), 0, "and the relay was told that it can forget");
    assert!(!world.client.should_register(world.now));
    world.now.wall.0 += 86_400;
    assert!(world.client.should_register(world.now), "half of the key's time is over");
}

#[test]
fn what_cannot_be_delivered_is_held_and_answered_to_another_process() {
    let mut world = World::registered();
    world.hang_up();
    world.there.is_up = false;
    world.lose_destination();
    world.restart_client();
    world.restart_relay();
    // Nobody has spoken to the destination since; its key is known.
    for (id, body) in [(5, "one"), (6, "two"), (7, "three")] {
        world.submit(id, body, HELD);
    }
    world.connect();
    let at = world.now.wall.0;
    world.events.retain(|event| !matches!(event, HoldingEvent::Registered(_)));
    assert_eq!(world.events, [held(5, 0, at), held(6, 0, at), held(7, 0, at)]);
    world.events.clear();
    // How it goes is asked now and then.
    world.pass(Duration::from_secs(100));
    let tries = world.events.iter().filter(|event| matches!(event, HoldingEvent::Held { id: HoldId(5), .. }));
    assert!(tries.count() >= 2, "{:?}", world.events);
    world.restart_client();
    world.pass(Duration::from_secs(3600));
    world.there.is_up = true;
    world.pass(Duration::from_secs(1200));
    assert_eq!(world.bodies(), ["one", "two", "three"]);
    assert!(world.answered().is_empty());
    world.connect();
    assert_eq!(world.answered(), [(5, Ok(Reply::Ok)), (6, Ok(Reply::Ok)), (7, Ok(Reply::Ok))]);
    assert_eq!(world.relay.held(), 0);
    assert!(!world.client.wants_connection());
}

/// Wherever the client is killed: nothing is executed twice or out of order, and in the end each is answered.
#[test]
fn the_client_is_killed_at_every_point() {
    let mut points = 0;
    for kill_at in 0.. {
        let mut world = World::registered();
        world.there.is_up = false;
        world.lose_destination();
        world.kill_in = Some(kill_at);
        let story = |world: &mut World, which: usize| match which {
            0 => drop(world.submit(1, "one", HELD)),
            1 => drop(world.submit(2, "two", HELD)),
            2 => {
                world.there.is_up = true;
                world.pass(Duration::from_secs(30));
            }
            _ => drop(world.submit(3, "three", HELD)),
        };
        for part in 0..4 {
            story(&mut world, part);
            if world.connection.is_none() {
                world.connect();
                // What is in no record was never handed over: whoever wanted it says it again, in the same order.
                let known: Vec<_> = world.client.commands().collect();
                let done: Vec<_> = world.answered().into_iter().map(|(id, _)| HoldId(id)).collect();
                let texts: Vec<_> = world.texts.clone().into_iter().collect();
                for (id, command) in texts {
                    // A crash between an answer and its record: told again.
                    if !known.contains(&id) && !done.contains(&id) {
                        world.client.submit(id, Holdable::new(command).unwrap(), HELD, 0).unwrap();
                    }
                }
                world.settle();
            }
        }
        world.pass_connected(30);
        assert_eq!(world.bodies(), ["one", "two", "three"], "killed at {kill_at}");
        let mut answered = world.answered();
        answered.dedup();
        answered.sort_by_key(|(id, _)| *id);
        answered.dedup();
        assert_eq!(answered, [(1, Ok(Reply::Ok)), (2, Ok(Reply::Ok)), (3, Ok(Reply::Ok))], "{kill_at}");
        assert!(world.client.is_empty());
        if world.kills == 0 {
            break;
        }
        points += 1;
    }
    assert!(points > 20, "{points}");
}

#[test]
fn lost_answers_are_asked_for_again() {
    let mut world = World::registered();
    world.deaf = true;
    world.submit(1, "one", HELD);
    assert!(world.connection.is_none() && world.events.is_empty());
    assert_eq!(world.bodies(), ["one"]);
    world.submit(2, "two", HELD);
    world.deaf = false;
    // Between the relays, too.
    world.there.loses_answers = true;
    world.connect();
    world.pass(Duration::from_secs(10));
    world.there.loses_answers = false;
    world.pass_connected(20);
    assert_eq!(world.answered(), [(1, Ok(Reply::Ok)), (2, Ok(Reply::Ok))]);
    assert_eq!(world.bodies(), ["one", "two"]);
}

#[test]
fn what_is_held_too_long_fails_and_says_why() {
    let mut world = World::registered();
    world.there.is_up = false;
    world.lose_destination();
    world.submit(1, "one", ForwardOptions { hold: Hold::Hour, ..HELD });
    world.pass_connected(90);
    let last = RelayFailure::Network;
    assert_eq!(
        world.events.last(),
        Some(&failed(1, NotHeld::Refused(FirstStepError::Expired { last }), true))
    );
    // A full queue is waited for, and holds up what comes after it.
    world.there.is_up = true;
    world.there.is_full = true;
    world.submit(2, "two", ForwardOptions { hold: Hold::Hour, ..HELD });
    world.submit(3, "three", HELD);
    world.pass_connected(30);
    assert!(world.there.executed.is_empty());
    world.there.is_full = false;
    world.pass_connected(30);
    assert_eq!(world.bodies(), ["two", "three"]);
    // A relay that is never there again.
    world.there.is_up = false;
    world.lose_destination();
    world.submit(4, "four", ForwardOptions { hold: Hold::Day, ..HELD });
    world.hang_up();
    world.now.wall.0 += 2 * 86_400;
    world.client.give_up(world.now);
    assert_eq!(world.client.poll_event(), None, "not yet");
    world.now.wall.0 += 1;
    world.client.give_up(world.now);
    assert_eq!(world.client.poll_event(), Some(failed(4, NotHeld::Unreachable, true)));
}

#[test]
fn what_the_relay_has_no_room_for_is_given_back_with_all_that_comes_after_it() {
    let mut relay = FirstStepConfig::default();
    relay.limits.held_by_client = 2;
    let mut world = World::with(relay);
    world.client.register();
    world.connect();
    world.there.is_up = false;
    world.lose_destination();
    world.hang_up();
    world.events.clear();
    for id in 1..=4 {
        world.submit(id, "x", HELD);
    }
    world.connect();
    let quota = NotHeld::Refused(FirstStepError::Quota);
    let at = world.now.wall.0;
    world.events.retain(|event| !matches!(event, HoldingEvent::Registered(_)));
    assert_eq!(world.events[..3], [held(1, 0, at), held(2, 0, at), failed(3, quota, false)]);
    // The fourth has a number already, and is refused for itself.
    assert_eq!(world.events[3..], [failed(4, quota, false)]);
    let many: Vec<_> = world.client.commands().collect();
    assert_eq!(many, [HoldId(1), HoldId(2)]);
}

#[test]
fn without_its_key_nothing_is_sealed_for_a_destination() {
    let mut world = World::new();
    world.there.is_up = false;
    world.submit(1, "one", HELD);
    world.submit(2, "two", HELD);
    world.connect();
    let because = NotHeld::Refused(FirstStepError::Relay(RelayFailure::Network));
    assert_eq!(
        world.events,
        [HoldingEvent::NotRegistered(because), failed(1, because, false), failed(2, because, false)]
    );
    // A key that the destination has not signed.
    world.events.clear();
    world.there.is_up = true;
    world.there.forges = true;
    world.pass(Duration::from_secs(10));
    world.hang_up();
    world.submit(3, "three", HELD);
    world.connect();
    let because = NotHeld::NotTheRelay(NotTheRelay::KeyNotVerified);
    assert_eq!(world.events, [HoldingEvent::NotRegistered(because), failed(3, because, false)]);
    assert!(world.connection.is_none(), "whoever shows it is not spoken to");
    // Another relay's.
    let mut world = World::new();
    world.there.certificates.fingerprint = vec![1; 32];
    let destination = address("destination.example.org", &[1; 32]);
    let relay = address("relay.example.org", &[9; 32]);
    world.client = Holdings::new(config(), relay, destination, &mut world.entropy);
    world.submit(1, "one", HELD);
    world.connect();
    let because = NotHeld::NotTheRelay(NotTheRelay::WrongFingerprint);
    assert_eq!(world.events, [HoldingEvent::NotRegistered(because), failed(1, because, false)]);
    assert!(world.there.executed.is_empty());
    // And a relay that cannot be reached, or does not know what this is.
    world.submit(2, "two", HELD);
    world.client.unreachable(NotHeld::NotSpoken);
    world.settle();
    assert_eq!(world.events.last(), Some(&failed(2, NotHeld::NotSpoken, false)));
    assert!(!world.client.wants_connection());
}

#[test]
fn when_the_key_ends_all_that_is_held_is_sealed_anew_in_its_order() {
    let mut world = World::registered();
    world.there.is_up = false;
    world.lose_destination();
    world.submit(1, "one", HELD);
    world.submit(2, "two", HELD);
    // The destination is away for longer than its key lasts, and comes back with another one.
    world.pass_connected(3 * 24 * 60);
    world.there.rotate(world.now);
    world.there.is_up = true;
    world.submit(3, "three", HELD);
    world.restart_client();
    world.pass_connected(60);
    let known: Vec<_> = world.client.commands().collect();
    if !known.contains(&HoldId(3)) && !world.answered().iter().any(|(id, _)| *id == 3) {
        world.submit(3, "three", HELD);
        world.pass_connected(60);
    }
    assert_eq!(world.bodies(), ["one", "two", "three"]);
    assert_eq!(world.answered(), [(1, Ok(Reply::Ok)), (2, Ok(Reply::Ok)), (3, Ok(Reply::Ok))]);
}

#[test]
fn another_text_is_not_sealed_with_the_same_key() {
    let mut world = World::registered();
    world.kill_in = Some(1);
    world.submit(1, "one", HELD);
    assert_eq!(world.kills, 1, "killed when it was recorded, before it left");
    world.message(1, "another");
    world.connect();
    assert!(world.events.contains(&failed(1, NotHeld::Changed, false)), "{:?}", world.events);
    assert!(world.there.executed.is_empty());
}

#[test]
fn a_relay_that_lies_changes_nothing() {
    let mut world = World::registered();
    world.there.is_up = false;
    world.lose_destination();
    world.submit(1, "one", HELD);
    world.submit(2, "two", HELD);
    world.there.is_up = true;
    world.pass(Duration::from_secs(10));
    assert_eq!(world.answered().len(), 2);
    let answers: Vec<_> = world.heard.iter().filter(|content| content[12] == b'R').cloned().collect();
    // What was said before changes nothing, nor does what nobody asked for.
    let before = world.events.len();
    for answer in &answers {
        assert!(world.client.receive(answer, world.now));
    }
    let say = |world: &mut World, number: u64, message: Message<'_>| {
        let mut content = Vec::new();
        let relay = RelayNumber(1);
        Transmission { correlation: Correlation(number), relay, message }.encode(&mut content).unwrap();
        world.client.receive(&content, world.now)
    };
    for error in [FirstStepError::Quota, FirstStepError::NoKey, FirstStepError::Unknown] {
        assert!(say(&mut world, 77, Message::Error(error)));
        assert!(say(&mut world, u64::MAX, Message::Error(error)));
    }
    world.settle();
    assert_eq!(world.events.len(), before);
    // The answer to one command is none to another.
    world.there.is_up = false;
    world.lose_destination();
    world.submit(3, "three", HELD);
    let mut sealed = answers[0].clone();
    sealed[..8].copy_from_slice(&3_u64.to_be_bytes());
    assert!(!world.client.receive(&sealed, world.now));
    assert!(!say(&mut world, 3, Message::Response(&[7; SEALED_LENGTH])));
    assert!(!world.client.receive(b"noise", world.now));
    assert_eq!(world.client.commands().collect::<Vec<_>>(), [HoldId(3)]);
    assert_eq!(world.answered().len(), 2);
    // One that does not answer is left.
    world.hang_up();
    world.client.connected();
    world.client.poll_content(world.now, &mut world.entropy).unwrap();
    let at = world.client.next_deadline().unwrap();
    assert!(world.client.handle_timeout(world.now));
    assert!(!world.client.handle_timeout(Now { instant: at, ..world.now }));
}

#[test]
fn what_is_to_be_sent_later_is() {
    let mut world = World::registered();
    let id = world.message(1, "later");
    let at = world.now.wall.0 + 3600;
    let command = Holdable::new(world.texts[&id].clone()).unwrap();
    world.client.submit(id, command, HELD, at).unwrap();
    world.settle();
    assert_eq!(world.events, [held(1, 0, at)]);
    world.pass_connected(59);
    assert!(world.there.executed.is_empty());
    world.pass_connected(3);
    assert_eq!(world.bodies(), ["later"]);
}

/// Everything at once, at random: connections lost, both relays down, the client and the first-step relay killed.
#[test]
fn whatever_happens_each_is_executed_once_in_order_and_answered() {
    for seed in 0..40_u8 {
        let mut world = World::registered();
        world.entropy = SeededEntropy::new([seed; 32]);
        let mut dice = SeededEntropy::new([seed ^ 0xA5; 32]);
        let mut roll = |sides: u8| {
            let mut byte = [0];
            dice.fill_public(&mut byte);
            byte[0] % sides
        };
        let mut sent = 0;
        let mut taken: Vec<u64> = Vec::new();
        for _ in 0..60 {
            match roll(12) {
                0 => world.there.is_up = !world.there.is_up,
                1 => world.lose_destination(),
                2 => world.there.loses_answers = !world.there.loses_answers,
                3 => world.restart_relay(),
                4 => world.pass(Duration::from_secs(u64::from(roll(100)))),
                5 => world.there.is_full = !world.there.is_full,
                6 => world.deaf = !world.deaf,
                7 => {
                    world.restart_client();
                    // What was in no record yet is said again by nobody here.
                    let known: Vec<_> = world.client.commands().map(|id| id.0).collect();
                    let answered: Vec<_> = world.answered().iter().map(|(id, _)| *id).collect();
                    taken.retain(|id| known.contains(id) || answered.contains(id));
                }
                8 | 9 => world.connect(),
                _ => {
                    sent += 1;
                    taken.push(sent);
                    world.submit(sent, &format!("{sent:03}"), HELD);
                }
            }
            let given_back = |id: &u64| {
                world
                    .events
                    .iter()
                    .any(|event| matches!(event, HoldingEvent::Failed { id: failed, .. } if failed.0 == *id))
            };
            taken.retain(|id| !given_back(id));
        }
        (world.there.is_up, world.there.loses_answers, world.there.is_full) = (true, false, false);
        world.deaf = false;
        world.pass_connected(60);
        let bodies = world.bodies();
        assert!(bodies.is_sorted(), "{seed}: {bodies:?}");
        let mut once = bodies.clone();
        once.dedup();
        assert_eq!(once.len(), bodies.len(), "{seed}: {bodies:?}");
        let answered: Vec<_> = world.answered().into_iter().map(|(id, _)| id).collect();
        for id in &taken {
            assert!(bodies.contains(&format!("{id:03}").as_str()), "{seed}: {id} of {taken:?}: {bodies:?}");
            assert!(answered.contains(id), "{seed}: {id} of {taken:?}: {answered:?}");
        }
        assert!(world.client.is_empty(), "{seed}");
    }
}
