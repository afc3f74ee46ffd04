//! Both relays of `smp-proxy/1`, with real commands: what a first-step relay holds arrives once and in order, whatever
//! happens to the connection and to the relays.

use alloc::collections::BTreeSet;
use alloc::string::ToString;

use super::*;
use crate::entropy::Entropy;
use crate::first_step::{Action, DestinationLink, FirstStep, FirstStepConfig, UserId};
use crate::wire::first_step::{Hold, PublishedKey, Registered, RelayFailure};

const HELD: ForwardOptions = ForwardOptions { while_unsecured: true, while_full: true, hold: Hold::Weeks };

/// A client, a first-step relay, and the destination of [`World`].
struct Journey {
    there: World,
    relay: FirstStep,
    disk: StorageModel,
    /// The clock of the first-step relay.
    now: Now,
    random: SeededEntropy,
    is_up: bool,
    /// The connection between the relays, and what is on its way.
    link: Option<(DestinationLink, FirstStepId)>,
    forth: VecDeque<Bytes>,
    back: VecDeque<Bytes>,
    next_id: u64,
    /// The client's connection, and its number for the destination.
    user: UserId,
    registered: Option<(RelayNumber, Published)>,
    told: Vec<(Correlation, Result<Bytes, FirstStepError>)>,
}

impl Journey {
    fn new(seed: u8, broker: BrokerConfig) -> Self {
        let mut journey = Self {
            there: World::with(ForwardingConfig::default(), broker),
            relay: FirstStep::new(FirstStepConfig::default()),
            disk: StorageModel::default(),
            now: Now { instant: Instant::from_micros(9), wall: UnixTime(1_700_000_000) },
            random: SeededEntropy::new([seed; 32]),
            is_up: true,
            link: None,
            forth: VecDeque::new(),
            back: VecDeque::new(),
            next_id: 1,
            user: UserId(0),
            registered: None,
            told: Vec::new(),
        };
        journey.relay.begin(journey.now);
        journey.come();
        journey
    }

    fn below(&mut self, most: usize) -> usize {
        let mut bytes = [0; 8];
        self.random.fill_public(&mut bytes);
        usize::try_from(u64::from_be_bytes(bytes) % most as u64).unwrap()
    }

    fn say(&mut self, correlation: Correlation, relay: RelayNumber, message: Message<'_>) {
        let mut content = Vec::new();
        Transmission { correlation, relay, message }.encode(&mut content).unwrap();
        self.relay.receive(self.user, &content.into(), self.now, &mut self.random);
    }

    /// The client connects, and registers.
    fn come(&mut self) {
        self.relay.detach(self.user);
        self.next_id += 1;
        self.user = UserId(self.next_id);
        self.registered = None;
        self.relay.attach(self.user);
        self.register();
    }

    fn register(&mut self) {
        let address = "smp://LcJUMfVhwD8yxjAiSaDzzGF3-kLG4Uh0Fl_ZIjrRwjI=@example.org".parse().unwrap();
        let register = Register { token: [5; 32], address: Some(address), password: None };
        self.say(Correlation(u64::MAX), RelayNumber(0), Message::Register(register));
    }

    fn cut(&mut self) {
        if let Some((link, id)) = self.link.take() {
            self.there.detach(id);
            self.relay.disconnected(link, RelayFailure::Network, self.now, &mut self.random);
        }
        self.forth.clear();
        self.back.clear();
        self.there.heard.clear();
    }

    /// One thing that the first-step relay wants.
    fn act(&mut self) -> bool {
        let Some(action) = self.relay.poll_action() else { return false };
        match action {
            Action::Connect(link, _) if self.is_up => {
                self.next_id += 1;
                let id = self.there.attach(self.next_id);
                self.link = Some((link, id));
                self.relay.connected(link, self.now);
            }
            Action::Connect(link, _) => {
                self.relay.disconnected(link, RelayFailure::Network, self.now, &mut self.random);
            }
            Action::Disconnect(link) => {
                if let Some((_, id)) = self.link.take_if(|(current, _)| *current == link) {
                    self.there.detach(id);
                    self.forth.clear();
                    self.back.clear();
                }
            }
            Action::TellDestination(link) => loop {
                let mut content = Vec::new();
                if !self.relay.poll_to_destination(link, &mut content) {
                    break;
                }
                if self.link.is_some_and(|(current, _)| current == link) {
                    self.forth.push_back(content.into());
                }
            },
            Action::TellClient(user) => loop {
                let mut content = Vec::new();
                if !self.relay.poll_to_client(user, &mut content) {
                    break;
                }
                if user == self.user {
                    self.hear(&content);
                }
            },
        }
        true
    }

    fn hear(&mut self, content: &[u8]) {
        let read = Transmission::decode(content).unwrap();
        let said = match read.message {
            Message::Registered(registered) => {
                let PublishedKey { number, key, .. } = registered.key;
                self.registered = Some((read.relay, Published { number, key }));
                return;
            }
            Message::Response(sealed) => Ok(Bytes::copy_from_slice(sealed)),
            Message::Error(error) => Err(error),
            other => panic!("{other:?}"),
        };
        self.told.push((read.correlation, said));
    }

    /// Carries one content each way.
    fn carry(&mut self) -> bool {
        let Some((link, id)) = self.link else { return false };
        let mut carried = false;
        if self.there.room.has_room(id)
            && let Some(content) = self.forth.pop_front()
        {
            let now = self.there.now;
            self.there.room.receive(id, content, now, &mut self.random);
            carried = true;
        }
        for (to, correlation, heard) in core::mem::take(&mut self.there.heard) {
            if to == id {
                self.back.push_back(encode(correlation, &heard));
            }
        }
        if let Some(content) = self.back.pop_front() {
            self.relay.receive_from(link, &content, self.now, &mut self.random);
            carried = true;
        }
        carried
    }

    fn store_one(&mut self) -> bool {
        let Some((id, action)) = self.relay.poll_storage() else { return false };
        let completion = self.disk.apply(id, action);
        self.disk.sync();
        self.relay.complete(completion, self.now);
        true
    }

    fn restart_first_step(&mut self) {
        self.cut();
        self.disk.crash();
        self.now.instant = Instant::from_micros(3);
        self.relay = FirstStep::new(FirstStepConfig::default());
        for prefix in FirstStep::LOADED {
            for (key, value) in self.disk.records(&prefix) {
                self.relay.restore(key, value).unwrap();
            }
        }
        self.relay.begin(self.now);
        self.come();
    }

    fn restart_destination(&mut self) {
        let ids: Vec<_> = self.link.into_iter().collect();
        for (link, _) in ids {
            self.link = None;
            self.relay.disconnected(link, RelayFailure::Network, self.now, &mut self.random);
        }
        self.forth.clear();
        self.back.clear();
        self.there.restart();
    }

    /// Until nobody has anything to do.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            self.there.turn();
            let there = self.there.complete_one();
            self.relay.check().unwrap();
            if !(self.act() | self.carry() | self.store_one() | there) {
                return;
            }
        }
        panic!("it never rests: {:?}", self.there.room);
    }

    fn pass(&mut self, seconds: u64) {
        let duration = Duration::from_secs(seconds);
        for now in [&mut self.now, &mut self.there.now] {
            now.instant = now.instant + duration;
            now.wall = now.wall.saturating_add(duration);
        }
        self.relay.handle_timeout(self.now, &mut self.random);
        let there = self.there.now;
        self.there.room.handle_timeout(there, &mut self.random);
    }

    fn forward(&mut self, correlation: Correlation, made: &Made, options: ForwardOptions) {
        let Some((relay, _)) = self.registered else { return };
        let forward = Forward {
            options,
            acknowledged: Correlation(0),
            delay: 0,
            key: made.ephemeral,
            sealed: &made.sealed,
        };
        self.say(correlation, relay, Message::Forward(forward));
    }
}

fn encode(correlation: Correlation, heard: &Heard) -> Bytes {
    let message = match heard {
        Heard::Sealed(sealed) => Message::Response(sealed),
        Heard::Error(error) => Message::Error(*error),
        Heard::Key { number, until, key, signature, chain } => Message::Registered(Registered {
            until: *until,
            key: PublishedKey {
                number: *number,
                until: *until,
                key: *key,
                chain: chain.iter().map(Vec::as_slice).collect(),
                signature,
            },
        }),
    };
    let mut content = Vec::new();
    Transmission { correlation, relay: RelayNumber(0), message }.encode(&mut content).unwrap();
    content.into()
}

const COMMANDS: u64 = 25;

/// The client gives one command after the other, each when the one before is held; everything else goes wrong at random.
#[test]
fn what_is_held_arrives_once_and_in_order_whatever_fails() {
    for seed in 0..3 {
        let mut journey = Journey::new(seed, BrokerConfig::default());
        let queue = journey.there.queue(QueueMode::Contact);
        journey.settle();
        let (_, published) = journey.registered.unwrap();
        let made: Vec<_> = (1..=COMMANDS)
            .map(|number| journey.there.send(published, &queue, number.to_string().as_bytes(), None))
            .collect();
        let mut next = 0;
        let mut answers: BTreeMap<u64, Bytes> = BTreeMap::new();
        for _ in 0..1500 {
            match journey.below(60) {
                0..=12 => {
                    journey.act();
                }
                13..=25 => {
                    journey.carry();
                }
                26..=34 => {
                    journey.store_one();
                }
                35..=40 => journey.there.turn(),
                41..=48 => {
                    journey.there.complete_one();
                }
                49..=52 if next < made.len() => {
                    journey.forward(Correlation(next as u64 + 1), &made[next], HELD);
                }
                53 => journey.pass(7),
                54 => journey.is_up = !journey.is_up,
                55 => journey.cut(),
                56 if journey.below(3) == 0 => journey.restart_destination(),
                57 if journey.below(3) == 0 => journey.restart_first_step(),
                58 if journey.below(3) == 0 => journey.come(),
                59 if journey.registered.is_none() => journey.register(),
                _ => {}
            }
            for (correlation, said) in core::mem::take(&mut journey.told) {
                let number = usize::try_from(correlation.0).unwrap_or(usize::MAX);
                match said {
                    Ok(sealed) => {
                        let before = answers.insert(correlation.0, sealed.clone());
                        assert!(before.is_none_or(|before| before == sealed), "two different answers");
                        next = next.max(number);
                    }
                    Err(FirstStepError::Held { .. }) => next = next.max(number),
                    Err(FirstStepError::Relay(_) | FirstStepError::NoRelay) => {}
                    Err(error) => panic!("{correlation:?} {error:?}"),
                }
            }
        }
        // Then nothing fails any more.
        journey.is_up = true;
        for (number, one) in made.iter().enumerate() {
            for _ in 0..4 {
                journey.settle();
                if number < next {
                    break;
                }
                if journey.registered.is_none() {
                    journey.pass(600);
                    journey.register();
                    continue;
                }
                journey.forward(Correlation(number as u64 + 1), one, HELD);
            }
        }
        for _ in 0..60 {
            journey.pass(600);
            journey.settle();
        }
        let expected: Vec<_> = (1..=COMMANDS).map(|number| number.to_string().into_bytes()).collect();
        assert_eq!(journey.there.bodies(&queue), expected, "seed {seed}");
        // And each of them is told to the client, who asks.
        journey.told.clear();
        if journey.registered.is_none() {
            journey.register();
            journey.settle();
        }
        let (relay, _) = journey.registered.unwrap();
        let mut heard = BTreeSet::new();
        for number in 1..=COMMANDS {
            journey.say(Correlation(number), relay, Message::Check { acknowledged: Correlation(0) });
            journey.settle();
        }
        for (correlation, said) in core::mem::take(&mut journey.told) {
            let made = &made[usize::try_from(correlation.0).unwrap() - 1];
            assert_eq!(made.open(&Heard::Sealed(said.unwrap())), Said::Ok);
            heard.insert(correlation.0);
        }
        assert_eq!(heard.len() as u64, COMMANDS, "seed {seed}");
    }
}

/// A full queue and one that is not secured yet hold up what is behind, and nothing is lost or doubled.
#[test]
fn what_a_queue_does_not_take_yet_comes_when_it_does() {
    let mut journey = Journey::new(1, BrokerConfig { message_quota: 3, ..BrokerConfig::default() });
    let queue = journey.there.queue(QueueMode::Messaging);
    journey.settle();
    let (_, published) = journey.registered.unwrap();
    let secret = AuthSecret::generate_x25519(&mut journey.there.entropy);
    for number in 1..=3_u64 {
        let made = journey.there.send(published, &queue, number.to_string().as_bytes(), Some(&secret));
        journey.forward(Correlation(number), &made, HELD);
        journey.settle();
    }
    for _ in 0..5 {
        journey.pass(600);
        journey.settle();
    }
    assert!(journey.there.bodies(&queue).is_empty());
    let from = journey.there.broker.connect(journey.there.now).unwrap();
    let command = Command::SecureByRecipient(secret.public(&Portable));
    let key = Some(World::recipient_key());
    journey.there.believe(from, queue.recipient.clone(), command, key);
    for _ in 0..5 {
        journey.pass(600);
        journey.settle();
    }
    assert_eq!(journey.there.bodies(&queue), [b"1", b"2", b"3"]);
    assert!(journey.there.room.statistics().not_yet > 0);
}
