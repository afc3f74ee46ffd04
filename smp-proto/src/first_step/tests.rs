//! The machine in a small world: clients that talk to it, destinations that come and go, and a disk.

use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use super::*;
use crate::broker::storage::{Completion, RecordWrite, StorageAction};
use crate::entropy::SeededEntropy;
use crate::keys::X25519Public;
use crate::storage_model::StorageModel;
use crate::time::{Duration, Instant, Now, UnixTime};
use crate::wire::address::ServerAddress;
use crate::wire::first_step::{
    Correlation, FirstStepError, Forward, ForwardOptions, Hold, Message, PublishedKey, Register, Registered,
    RelayFailure, RelayNumber, SEALED_LENGTH, Transmission,
};

const KEY: RelayNumber = RelayNumber(77);
const HOLD: ForwardOptions = ForwardOptions { while_unsecured: false, while_full: false, hold: Hold::Day };
const NOW_OR_NEVER: ForwardOptions = ForwardOptions { hold: Hold::Never, ..HOLD };
const UNSECURED: ForwardOptions = ForwardOptions { while_unsecured: true, ..HOLD };

/// What a client hears.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    Registered(RelayNumber),
    Response(u8),
    Error(FirstStepError),
}

/// A destination that executes a command once, and remembers by its key that it did.
#[derive(Default)]
struct There {
    is_up: bool,
    /// Whether its queue takes nothing now.
    is_unsecured: bool,
    /// Whether it loses the next answers.
    loses_answers: bool,
    /// Whether it never answers.
    is_silent: bool,
    /// Whether dials neither succeed nor fail.
    never_ends_dials: bool,
    /// How a dial fails while it is down.
    fails_with: RelayFailure,
    connected: Option<DestinationLink>,
    /// What it executed: the first byte of each command, in order.
    executed: Vec<u8>,
    seen: BTreeSet<[u8; 32]>,
}

struct World {
    relay: FirstStep,
    config: FirstStepConfig,
    disk: StorageModel,
    disk_fails: bool,
    there: There,
    now: Now,
    entropy: SeededEntropy,
    heard: Vec<(UserId, Correlation, Heard)>,
    dials: usize,
}

fn address(name: &str) -> ServerAddress {
    alloc::format!("smp://LcJUMfVhwD8yxjAiSaDzzGF3-kLG4Uh0Fl_ZIjrRwjI=@{name}").parse().unwrap()
}

impl World {
    fn new() -> Self {
        Self::with(FirstStepConfig::default())
    }

    fn with(config: FirstStepConfig) -> Self {
        let now = Now { instant: Instant::from_micros(1), wall: UnixTime(1_000_000) };
        let there = There { is_up: true, ..There::default() };
        Self {
            relay: FirstStep::new(config.clone()),
            config,
            disk: StorageModel::default(),
            disk_fails: false,
            there,
            now,
            entropy: SeededEntropy::new([1; 32]),
            heard: Vec::new(),
            dials: 0,
        }
    }

    /// The relay is killed, and started again on what is on its disk.
    fn restart(&mut self) {
        self.there.connected = None;
        self.relay = FirstStep::new(self.config.clone());
        for prefix in FirstStep::LOADED {
            for (key, value) in self.disk.records(&prefix) {
                self.relay.restore(key, value).unwrap();
            }
        }
        self.relay.begin(self.now);
        self.settle();
    }

    fn say(&mut self, user: u64, correlation: u64, relay: RelayNumber, message: Message<'_>) {
        let mut content = Vec::new();
        Transmission { correlation: Correlation(correlation), relay, message }.encode(&mut content).unwrap();
        self.relay.receive(UserId(user), &content.into(), self.now, &mut self.entropy);
        self.settle();
    }

    fn register(&mut self, user: u64, token: u8) -> Heard {
        self.register_with(user, token, address("example.org"), None)
    }

    fn register_with(&mut self, user: u64, token: u8, to: ServerAddress, password: Option<&[u8]>) -> Heard {
        self.relay.attach(UserId(user));
        let register = Register { token: [token; 32], address: Some(to), password };
        self.say(user, 9_000, RelayNumber(0), Message::Register(register));
        let at = self.heard.iter().rposition(|(who, which, _)| *who == UserId(user) && which.0 == 9_000);
        self.heard.remove(at.unwrap()).2
    }

    fn registered(&mut self, user: u64, token: u8) -> RelayNumber {
        match self.register(user, token) {
            Heard::Registered(number) => number,
            other => panic!("{other:?}"),
        }
    }

    fn forward(&mut self, user: u64, number: u64, relay: RelayNumber, options: ForwardOptions) {
        self.forward_later(user, number, relay, options, 0);
    }

    fn forward_later(
        &mut self,
        user: u64,
        number: u64,
        relay: RelayNumber,
        options: ForwardOptions,
        delay: u16,
    ) {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        key[8] = u8::try_from(user).unwrap();
        let sealed = vec![u8::try_from(number % 251).unwrap(); SEALED_LENGTH];
        let acknowledged = Correlation(0);
        let forward = Forward { options, acknowledged, delay, key: X25519Public(key), sealed: &sealed };
        self.say(user, number, relay, Message::Forward(forward));
    }

    fn hears(&mut self) -> Vec<(u64, Heard)> {
        self.heard.drain(..).map(|(_, correlation, heard)| (correlation.0, heard)).collect()
    }

    /// Until nobody has anything to do.
    fn settle(&mut self) {
        loop {
            self.relay.check().unwrap();
            while let Some((id, action)) = self.relay.poll_storage() {
                let completion = match self.disk_fails && !action.is_read() {
                    true => Completion::Failed(id),
                    false => self.disk.apply(id, action),
                };
                self.relay.complete(completion, self.now);
            }
            let Some(action) = self.relay.poll_action() else { return };
            match action {
                Action::Connect(link, _) => {
                    self.dials += 1;
                    if self.there.never_ends_dials {
                        continue;
                    }
                    if self.there.is_up {
                        self.there.connected = Some(link);
                        self.relay.connected(link, self.now);
                    } else {
                        let failure = self.there.fails_with;
                        self.relay.disconnected(link, failure, self.now, &mut self.entropy);
                    }
                }
                Action::Disconnect(_) => self.there.connected = None,
                Action::TellClient(user) => loop {
                    let mut content = Vec::new();
                    if !self.relay.poll_to_client(user, &mut content) {
                        break;
                    }
                    self.hear(user, &content);
                },
                Action::TellDestination(link) => loop {
                    let mut content = Vec::new();
                    if !self.relay.poll_to_destination(link, &mut content) {
                        break;
                    }
                    self.answer(link, &content);
                },
            }
        }
    }

    fn hear(&mut self, user: UserId, content: &[u8]) {
        let Transmission { correlation, relay, message } = Transmission::decode(content).unwrap();
        let heard = match message {
            Message::Registered(registered) => {
                assert_eq!(registered.key.number, KEY);
                Heard::Registered(relay)
            }
            Message::Response(sealed) => Heard::Response(sealed[0]),
            Message::Error(error) => Heard::Error(error),
            _ => panic!("not said to clients"),
        };
        self.heard.push((user, correlation, heard));
    }

    fn answer(&mut self, link: DestinationLink, content: &[u8]) {
        let Transmission { correlation, relay, message } = Transmission::decode(content).unwrap();
        if self.there.is_silent {
            return;
        }
        let sealed;
        let message = match message {
            Message::Register(register) => {
                assert_eq!((register.token, register.address, register.password), ([0; 32], None, None));
                let until = self.now.wall.0 + 86_400 * 30;
                let key = X25519Public([5; 32]);
                let key = PublishedKey { number: KEY, until, key, chain: vec![&[1; 9]], signature: &[2; 64] };
                Message::Registered(Registered { until, key })
            }
            Message::Forward(forward) => {
                assert_eq!(relay, KEY);
                assert_eq!(
                    (forward.delay, forward.acknowledged, forward.options.hold),
                    (0, Correlation(0), Hold::Never)
                );
                if self.there.seen.contains(&forward.key.0) {
                    Message::Error(FirstStepError::Repeated)
                } else if self.there.is_unsecured && forward.options.while_unsecured {
                    Message::Error(FirstStepError::NotYet)
                } else {
                    self.there.seen.insert(forward.key.0);
                    self.there.executed.push(forward.sealed[0]);
                    sealed = vec![forward.sealed[0].wrapping_add(1); SEALED_LENGTH];
                    Message::Response(&sealed)
                }
            }
            _ => panic!("not said to destinations"),
        };
        if self.there.loses_answers && !matches!(message, Message::Registered(_)) {
            return self.lose();
        }
        let mut content = Vec::new();
        Transmission { correlation, relay, message }.encode(&mut content).unwrap();
        self.relay.receive_from(link, &content.into(), self.now, &mut self.entropy);
    }

    /// The connection to the destination is lost.
    fn lose(&mut self) {
        if let Some(link) = self.there.connected.take() {
            self.relay.disconnected(link, RelayFailure::Network, self.now, &mut self.entropy);
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now.instant + time;
        let start = self.now;
        while let Some(at) = self.relay.next_deadline().filter(|at| *at <= until) {
            let instant = at.max(self.now.instant);
            let seconds = instant.saturating_since(start.instant).as_secs();
            self.now = Now { instant, wall: start.wall.saturating_add(Duration::from_secs(seconds)) };
            self.relay.handle_timeout(self.now, &mut self.entropy);
            self.settle();
        }
        self.now = Now { instant: until, wall: start.wall.saturating_add(time) };
        self.settle();
    }
}

fn held(attempts: u16, next: i64) -> Heard {
    Heard::Error(FirstStepError::Held { attempts, next })
}

#[test]
fn what_is_not_held_is_answered_at_once_or_refused() {
    let mut world = World::new();
    let relay = world.registered(1, 1);
    world.forward(1, 1, relay, NOW_OR_NEVER);
    assert_eq!(world.hears(), [(1, Heard::Response(2))]);
    assert!(
        world.disk.records(&[1]).all(|(key, _)| key[1] == RecordKey::PUBLISHED),
        "only the destination's key is on disk"
    );
    world.there.is_up = false;
    world.lose();
    world.forward(1, 2, relay, NOW_OR_NEVER);
    assert_eq!(world.hears(), [(2, Heard::Error(FirstStepError::Relay(RelayFailure::Network)))]);
    // The failure is remembered: nobody dials for the next one.
    let dials = world.dials;
    world.forward(1, 3, relay, NOW_OR_NEVER);
    assert_eq!(world.hears(), [(3, Heard::Error(FirstStepError::Relay(RelayFailure::Network)))]);
    assert_eq!(world.dials, dials);
    // One that is not known at all.
    world.forward(1, 4, RelayNumber(relay.0 ^ 1), NOW_OR_NEVER);
    assert_eq!(world.hears(), [(4, Heard::Error(FirstStepError::NoRelay))]);
}

#[test]
fn what_is_held_arrives_when_the_destination_is_back_and_is_forgotten_when_it_is_acknowledged() {
    let mut world = World::new();
    let relay = world.registered(1, 1);
    world.there.is_up = false;
    world.lose();
    for number in 1..=3 {
        world.forward(1, number, relay, HOLD);
    }
    let at = world.now.wall.0;
    assert_eq!(world.hears(), [(1, held(0, at)), (2, held(0, at)), (3, held(0, at))]);
    assert_eq!(world.relay.held(), 3);
    world.pass(Duration::from_secs(3600));
    assert!(world.hears().is_empty() && world.there.executed.is_empty());
    assert!((7..40).contains(&world.dials), "with waits that grow: {}", world.dials);
    // The client has gone, and the relay is killed in between.
    world.relay.detach(UserId(1));
    world.restart();
    assert_eq!(world.relay.held(), 3);
    world.there.is_up = true;
    world.pass(Duration::from_secs(1200));
    assert_eq!(world.there.executed, [1, 2, 3]);
    // It comes back with its token, and asks.
    let relay = world.registered(2, 1);
    for number in 1..=3 {
        world.say(2, number, relay, Message::Check { acknowledged: Correlation(0) });
    }
    assert_eq!(world.hears(), [(1, Heard::Response(2)), (2, Heard::Response(3)), (3, Heard::Response(4))]);
    world.say(2, 3, relay, Message::Check { acknowledged: Correlation(3) });
    assert_eq!(world.hears(), [(3, Heard::Error(FirstStepError::Unknown))]);
    world.relay.detach(UserId(2));
    world.pass(Duration::from_secs(600));
    assert_eq!((world.relay.held(), world.relay.clients()), (0, 0));
    assert!(world.disk.records(&[]).all(|(key, _)| key[1] == 3), "nothing is left of a client that has gone");
    // But the destination's key is, for those who come while it is down.
    world.restart();
    world.there.is_up = false;
    world.lose();
    assert!(matches!(world.register(3, 1), Heard::Registered(_)));
    world.relay.detach(UserId(3));
    world.pass(Duration::from_secs(5 * 86_400));
    assert!(world.disk.records(&[]).next().is_none(), "for some days");
    assert_eq!(world.relay.destinations(), 0);
    let failure = Heard::Error(FirstStepError::Relay(RelayFailure::Network));
    assert_eq!(world.register(4, 1), failure);
}

#[test]
fn another_token_finds_nothing() {
    let mut world = World::new();
    let relay = world.registered(1, 1);
    world.forward(1, 1, relay, HOLD);
    let other = world.registered(2, 2);
    world.hears();
    world.say(2, 1, other, Message::Check { acknowledged: Correlation(1) });
    // The number of somebody else's registration is none of one's own.
    world.say(2, 1, relay, Message::Check { acknowledged: Correlation(1) });
    let heard = world.hears();
    assert_eq!(heard[0], (1, Heard::Error(FirstStepError::Unknown)));
    assert!(heard[1].1 == Heard::Error(FirstStepError::NoRelay) || relay == other);
    assert_eq!(world.relay.held(), 1, "and forgets nothing");
}

#[test]
fn a_lost_answer_is_asked_for_again_and_the_command_is_executed_once() {
    let mut world = World::new();
    let relay = world.registered(1, 1);
    world.there.loses_answers = true;
    world.forward(1, 1, relay, HOLD);
    world.there.loses_answers = false;
    world.pass(Duration::from_secs(60));
    let at = world.now.wall.0 - 60;
    assert_eq!(world.hears(), [(1, held(0, at)), (1, Heard::Error(FirstStepError::Repeated))]);
    assert_eq!(world.there.executed, [1]);
}

#[test]
fn a_client_that_asks_again_gets_the_same_and_nothing_is_done_twice() {
    let mut world = World::new();
    let relay = world.registered(1, 1);
    world.forward(1, 5, relay, HOLD);
    world.hears();
    world.forward(1, 5, relay, HOLD);
    assert_eq!(world.hears(), [(5, Heard::Response(6))]);
    world.forward(1, 4, relay, HOLD);
    assert_eq!(world.hears(), [(4, Heard::Error(FirstStepError::Unknown))]);
    assert_eq!(world.there.executed, [5]);
}

#[test]
fn what_has_to_wait_holds_up_what_comes_after_it_and_nobody_else() {
    let mut world = World::new();
    let (one, two) = (world.registered(1, 1), world.registered(2, 2));
    world.there.is_unsecured = true;
    world.forward(1, 1, one, UNSECURED);
    world.forward(1, 2, one, UNSECURED);
    world.forward(2, 3, two, HOLD);
    assert_eq!(world.there.executed, [3]);
    world.pass(Duration::from_secs(100));
    assert_eq!(world.there.executed, [3]);
    world.hears();
    world.say(1, 1, one, Message::Check { acknowledged: Correlation(0) });
    let heard = world.hears();
    assert!(
        matches!(heard[..], [(1, Heard::Error(FirstStepError::Held { attempts: 3.., .. }))]),
        "{heard:?}"
    );
    world.there.is_unsecured = false;
    world.pass(Duration::from_secs(600));
    assert_eq!(world.there.executed, [3, 1, 2]);
}

#[test]
fn nobody_who_does_not_allow_it_is_retried_and_nobody_for_ever() {
    let mut world = World::new();
    let relay = world.registered(1, 1);
    world.there.is_unsecured = true;
    let short = ForwardOptions { hold: Hold::Hour, ..UNSECURED };
    world.forward(1, 1, relay, short);
    world.forward(1, 2, relay, NOW_OR_NEVER);
    world.hears();
    world.pass(Duration::from_secs(2 * 3600));
    let last = RelayFailure::NotYet;
    assert_eq!(
        world.hears(),
        [(1, Heard::Error(FirstStepError::Expired { last })), (2, Heard::Response(3))],
        "given up after an hour, and what waited behind it goes on"
    );
    // The outcome waits for three weeks.
    world.pass(Duration::from_secs(22 * 86_400));
    assert_eq!(world.relay.held(), 0);
}

#[test]
fn what_is_scheduled_waits_for_its_time_and_holds_up_nobody() {
    let mut world = World::new();
    let relay = world.registered(1, 1);
    world.forward_later(1, 1, relay, HOLD, 60);
    world.forward(1, 2, relay, HOLD);
    let at = world.now.wall.0;
    assert_eq!(world.hears(), [(1, held(0, at + 3600)), (2, held(0, at)), (2, Heard::Response(3))]);
    world.restart();
    let relay = world.registered(1, 1);
    world.pass(Duration::from_secs(3500));
    assert_eq!(world.there.executed, [2]);
    world.pass(Duration::from_secs(200));
    assert_eq!(world.there.executed, [2, 1]);
    // Without being held nothing can be scheduled.
    world.hears();
    world.forward_later(1, 3, relay, NOW_OR_NEVER, 1);
    assert_eq!(world.hears(), [(3, Heard::Error(FirstStepError::Syntax))]);
}

#[test]
fn a_destination_that_does_not_answer_is_given_up_and_dialled_again() {
    let mut world = World::new();
    let relay = world.registered(1, 1);
    world.there.is_silent = true;
    world.forward(1, 1, relay, NOW_OR_NEVER);
    world.forward(1, 2, relay, HOLD);
    world.hears();
    world.pass(Duration::from_secs(31));
    assert_eq!(world.hears(), [(1, Heard::Error(FirstStepError::Relay(RelayFailure::Timeout)))]);
    world.there.is_silent = false;
    world.pass(Duration::from_secs(120));
    assert_eq!(world.hears(), [(2, Heard::Response(3))]);
    // And it is left in peace when there is nothing to do.
    assert!(world.there.connected.is_some());
    world.pass(Duration::from_secs(301));
    assert!(world.there.connected.is_none());
}

#[test]
fn who_may_not_is_refused() {
    let config = FirstStepConfig {
        password: Some(b"secret".to_vec().into()),
        limits: FirstStepLimits {
            clients: 3,
            registrations: 2,
            held_by_client: 2,
            immediate: 1,
            ..FirstStepConfig::default().limits
        },
        ..FirstStepConfig::default()
    };
    let mut world = World::with(config);
    let good = || address("example.org");
    let error = |error| Heard::Error(error);
    assert_eq!(world.register_with(1, 1, good(), None), error(FirstStepError::Password));
    assert_eq!(world.register_with(1, 1, good(), Some(b"secre")), error(FirstStepError::Password));
    for private in [
        "127.0.0.1",
        "10.1.2.3",
        "192.168.0.1",
        "[::1]",
        "[fe80::1]",
        "[fd00::1]",
        "localhost",
        "0.0.0.0",
        "100.64.0.1",
        "[::ffff:127.0.0.1]",
    ] {
        assert_eq!(
            world.register_with(1, 1, address(private), Some(b"secret")),
            error(FirstStepError::Address),
            "{private}"
        );
    }
    assert!(world.disk.records(&[]).next().is_none() && world.dials == 0);
    let Heard::Registered(relay) = world.register_with(1, 1, good(), Some(b"secret")) else { panic!() };
    // The same token for another destination would show that both are one client's.
    assert_eq!(
        world.register_with(2, 1, address("example.com"), Some(b"secret")),
        error(FirstStepError::Syntax)
    );
    world.there.is_up = false;
    world.lose();
    for number in 1..=3 {
        world.forward(1, number, relay, HOLD);
    }
    assert_eq!(world.hears().last(), Some(&(3, error(FirstStepError::Quota))));
    assert!(matches!(world.register_with(1, 2, good(), Some(b"secret")), Heard::Registered(_)));
    assert_eq!(world.register_with(1, 3, good(), Some(b"secret")), error(FirstStepError::Quota));
    assert!(matches!(world.register_with(2, 3, good(), Some(b"secret")), Heard::Registered(_)));
    assert_eq!(world.register_with(2, 4, good(), Some(b"secret")), error(FirstStepError::Quota));
    // Noise.
    world.relay.receive(UserId(1), &Bytes::from_static(b"noise"), world.now, &mut world.entropy);
    world.settle();
    assert_eq!(world.hears(), [(0, error(FirstStepError::Syntax))]);
}

#[test]
fn a_disk_that_fails_holds_nothing_and_says_so() {
    let mut world = World::new();
    let relay = world.registered(1, 1);
    world.disk_fails = true;
    world.forward(1, 1, relay, HOLD);
    assert_eq!(world.hears(), [(1, Heard::Error(FirstStepError::Internal))]);
    assert!(world.there.executed.is_empty());
    assert_eq!(world.relay.held(), 0);
    world.disk_fails = false;
    world.forward(1, 2, relay, HOLD);
    assert_eq!(world.there.executed, [2]);
}

#[test]
fn ten_thousand_are_drained_in_order_for_each_client() {
    let mut config = FirstStepConfig::default();
    config.limits.held_by_client = 10_000;
    let mut world = World::with(config);
    let relays =
        [world.registered(1, 1), world.registered(2, 2), world.registered(3, 3), world.registered(4, 4)];
    world.there.is_up = false;
    world.lose();
    for number in 1..=2500 {
        for (user, relay) in (1..).zip(relays) {
            world.forward(user, number, relay, HOLD);
        }
    }
    world.hears();
    assert_eq!(world.relay.held(), 10_000);
    world.there.is_up = true;
    world.pass(Duration::from_secs(3600));
    let answers = world.hears();
    assert_eq!(answers.iter().filter(|(_, heard)| matches!(heard, Heard::Response(_))).count(), 10_000);
    // Each client's in its order: as often as it should be, each number is there, and never after a larger one of that client.
    for user in 1..=4_u8 {
        let keys: Vec<_> = world.there.seen.iter().filter(|key| key[8] == user).collect();
        assert_eq!(keys.len(), 2500);
    }
    let expected: Vec<u8> = (1..=2500_u64).map(|number| u8::try_from(number % 251).unwrap()).collect();
    let fair: Vec<u8> = expected.iter().flat_map(|byte| [*byte; 4]).collect();
    assert_eq!(world.there.executed, fair, "one of each client in turn");
}

/// Whatever happens, and whenever the relay is killed: what it said it holds is executed once, in order, and the client
/// learns of it.
#[test]
fn what_is_held_survives_everything() {
    for seed in 0..60_u8 {
        let mut world = World::new();
        world.entropy = SeededEntropy::new([seed; 32]);
        let mut dice = SeededEntropy::new([seed ^ 0x55; 32]);
        let mut roll = |sides: u8| {
            let mut byte = [0];
            crate::entropy::Entropy::fill_public(&mut dice, &mut byte);
            byte[0] % sides
        };
        let mut user = 1;
        let mut relay = world.registered(user, 1);
        let mut sent = 0;
        let mut promised = Vec::new();
        for _ in 0..80 {
            match roll(10) {
                0 => world.there.is_up = !world.there.is_up,
                1 => world.lose(),
                2 => world.there.loses_answers = !world.there.loses_answers,
                3 => {
                    world.restart();
                    user += 1;
                    if let Heard::Registered(again) = world.register(user, 1) {
                        relay = again;
                    }
                }
                4 => world.pass(Duration::from_secs(u64::from(roll(100)))),
                5 => world.there.is_unsecured = !world.there.is_unsecured,
                _ => {
                    sent += 1;
                    world.forward(user, sent, relay, UNSECURED);
                }
            }
            let kept = world.hears().into_iter().filter_map(|(number, heard)| match heard {
                Heard::Error(FirstStepError::Held { .. }) | Heard::Response(_) => u8::try_from(number).ok(),
                _ => None,
            });
            promised.extend(kept);
        }
        world.there = There { is_up: true, connected: world.there.connected, ..world.there };
        (world.there.loses_answers, world.there.is_unsecured) = (false, false);
        world.pass(Duration::from_secs(3000));
        promised.sort_unstable();
        promised.dedup();
        for number in &promised {
            assert_eq!(
                world.there.executed.iter().filter(|done| *done == number).count(),
                1,
                "{seed}: {number}"
            );
        }
        assert!(world.there.executed.is_sorted(), "{seed}: {:?}", world.there.executed);
        let relay = world.registered(user + 1, 1);
        world.hears();
        for number in &promised {
            world.say(user + 1, u64::from(*number), relay, Message::Check { acknowledged: Correlation(0) });
        }
        assert!(
            world.hears().iter().all(|(_, heard)| matches!(
                heard,
                Heard::Response(_) | Heard::Error(FirstStepError::Repeated)
            )),
            "{seed}"
        );
    }
}

#[test]
fn keys_of_records_are_read_as_they_were_written() {
    for key in [
        RecordKey::Client(1),
        RecordKey::Item(2, Correlation(3)),
        RecordKey::Body(u64::MAX, Correlation(0)),
        RecordKey::Published([7; 32]),
    ] {
        assert_eq!(RecordKey::from_bytes(&key.to_bytes()), Some(key));
        assert_eq!(RecordKey::from_bytes(&key.to_bytes()[1..]), None);
    }
    assert_eq!(RecordKey::from_bytes(&[9, 0]), None);
    let mut relay = FirstStep::new(FirstStepConfig::default());
    let key = RecordKey::Client(1);
    assert_eq!(relay.restore(&key.to_bytes(), b"x"), Err(RecordError(Some(key))));
    assert_eq!(relay.restore(b"\x01\x09", b""), Err(RecordError(None)));
    let item = RecordKey::Item(1, Correlation(2));
    assert!(relay.restore(&item.to_bytes(), b"x").is_err());
}

#[test]
fn a_destination_that_speaks_another_protocol_is_left_alone_for_long() {
    let mut world = World::new();
    world.there.is_up = false;
    world.there.fails_with = RelayFailure::NotSpoken;
    let not_spoken = Heard::Error(FirstStepError::Relay(RelayFailure::NotSpoken));
    assert_eq!(world.register(1, 1), not_spoken);
    world.pass(Duration::from_secs(1800));
    assert_eq!(world.register(1, 2), not_spoken);
    assert_eq!((world.dials, world.relay.destinations()), (1, 1), "remembered, also without clients");
    world.pass(Duration::from_secs(1800));
    assert_eq!(world.relay.destinations(), 0, "forgotten in time");
    world.there.is_up = true;
    assert!(matches!(world.register(1, 3), Heard::Registered(_)), "it has learned it");
}

#[test]
fn a_connected_destination_is_asked_again_when_its_key_is_about_to_end() {
    let mut world = World::new();
    let first = world.registered(1, 1);
    // Something keeps the connection busy while the key grows old.
    for number in 0..500 {
        world.pass(Duration::from_secs(2 * 3600));
        world.forward(1, number + 1, first, NOW_OR_NEVER);
        assert_eq!(world.hears().len(), 1);
    }
    assert!(matches!(world.register(2, 2), Heard::Registered(_)));
}

#[test]
fn names_of_nobody_do_not_hold_up_others() {
    let mut config = FirstStepConfig::default();
    config.limits.dials = 8;
    config.limits.dials_per_client = 2;
    let mut world = World::with(config);
    world.there.never_ends_dials = true;
    world.relay.attach(UserId(1));
    for index in 0..20 {
        let to = address(&alloc::format!("nobody{index}.example.org"));
        let register = Register { token: [index; 32], address: Some(to), password: None };
        world.say(1, 100 + u64::from(index), RelayNumber(0), Message::Register(register));
    }
    assert_eq!(world.dials, 2, "who asks for many waits for himself");
    world.there.never_ends_dials = false;
    assert!(matches!(world.register(2, 200), Heard::Registered(_)));
    // Dials that never end are given up, and the next ones tried.
    world.there.never_ends_dials = true;
    world.pass(Duration::from_secs(31));
    assert_eq!(world.dials, 2 + 1 + 2);
    world.pass(Duration::from_secs(600));
    let failed = Heard::Error(FirstStepError::Relay(RelayFailure::Timeout));
    assert_eq!(world.hears().iter().filter(|(_, heard)| *heard == failed).count(), 20);
}

#[test]
fn no_further_block_is_taken_before_what_was_asked_is_said() {
    let mut config = FirstStepConfig::default();
    config.limits.unanswered = 3;
    let mut world = World::with(config);
    let there = world.registered(1, 1);
    let sealed = vec![1; SEALED_LENGTH];
    for number in 1..=3 {
        assert!(world.relay.has_room(UserId(1)), "{number}");
        let key = X25519Public([u8::try_from(number).unwrap(); 32]);
        let acknowledged = Correlation(0);
        let forward = Forward { options: HOLD, acknowledged, delay: 0, key, sealed: &sealed };
        let message = Message::Forward(forward);
        let mut content = Vec::new();
        Transmission { correlation: Correlation(number), relay: there, message }
            .encode(&mut content)
            .unwrap();
        world.relay.receive(UserId(1), &content.into(), world.now, &mut world.entropy);
    }
    assert!(!world.relay.has_room(UserId(1)));
    world.settle();
    assert!(world.relay.has_room(UserId(1)));
    assert!(!world.relay.has_room(UserId(2)), "nobody");
}

#[test]
fn what_is_held_is_not_copied() {
    let mut world = World::new();
    let there = world.registered(1, 1);
    let sealed = vec![1; SEALED_LENGTH];
    let (acknowledged, key) = (Correlation(0), X25519Public([1; 32]));
    let forward = Forward { options: HOLD, acknowledged, delay: 0, key, sealed: &sealed };
    let message = Message::Forward(forward);
    let mut content = Vec::new();
    Transmission { correlation: Correlation(1), relay: there, message }.encode(&mut content).unwrap();
    let content = Bytes::from(content);
    world.relay.receive(UserId(1), &content, world.now, &mut world.entropy);
    let (_, action) = world.relay.poll_storage().unwrap();
    let StorageAction::WriteRecords { writes } = action else { panic!("{action:?}") };
    let place = content.as_ptr_range();
    let shared = writes.iter().any(|write| match write {
        RecordWrite::Put { value, .. } => value.len() == SEALED_LENGTH && place.contains(&value.as_ptr()),
        RecordWrite::Delete { .. } => false,
    });
    assert!(shared);
}
