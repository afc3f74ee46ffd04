//! Ten thousand clients, a thousand destinations, one first-step relay: nobody starves, whoever floods, and whatever is down.
//! (What a client costs it: `tests/tests/first_step_load.rs`.)
//!
//! The machine of the first-step relay, with destinations and a disk that are simple and do what the plan says: of the
//! destinations, 30 are down and 20 take commands and never answer; of the clients, every hundredth gives whatever it may, and
//! every fifth has something for one that is down. One turn is a second: clients give what they have, storage does all that it
//! was asked, and each destination answers up to [`ANSWERS_A_TURN`] commands. Everything follows from the numbers: there is no
//! dice in it but the relay's own, which has a seed.
//!
//! `SMP_CROWD=10` makes everybody give ten times as much.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use smp_proto::broker::storage::{Completion, StorageAction};
use smp_proto::entropy::SeededEntropy;
use smp_proto::first_step::{Action, DestinationLink, FirstStep, FirstStepConfig, UserId};
use smp_proto::keys::X25519Public;
use smp_proto::time::{Duration, Instant, Now, UnixTime};
use smp_proto::wire::address::ServerAddress;
use smp_proto::wire::first_step::{
    Correlation, FirstStepError, Forward, ForwardOptions, Hold, Message, PublishedKey, Register, Registered,
    RelayFailure, RelayNumber, SEALED_LENGTH, Transmission,
};

const CLIENTS: usize = 10_000;
const DESTINATIONS: usize = 1_000;
/// Further destinations, that are down.
const DOWN: usize = 30;
/// Further destinations, that never answer.
const SILENT: usize = 20;
const ANSWERS_A_TURN: usize = 8;
/// Within how many turns a command of a client that does not flood is answered, where the destination answers. Ten clients
/// share one, which answers eight commands a turn; whoever floods stands in the same line, with one command at a time.
const TURNS: u64 = 4;

static SEALED: [u8; SEALED_LENGTH] = [7; SEALED_LENGTH];

/// What one client wants of one destination.
struct Errand {
    user: UserId,
    destination: usize,
    /// The relay's number for the destination.
    registered: Option<RelayNumber>,
    next: u64,
    last: u64,
    hold: Hold,
    floods: bool,
    /// When each command that is not answered was given.
    given: BTreeMap<u64, u64>,
    answered: u64,
    refused: u64,
}

struct World {
    relay: FirstStep,
    entropy: SeededEntropy,
    now: Now,
    turn: u64,
    errands: Vec<Errand>,
    /// Errands by user and number, and by user and the question that registers.
    by_number: BTreeMap<(UserId, RelayNumber), usize>,
    by_question: BTreeMap<(UserId, u64), usize>,
    links: BTreeMap<usize, DestinationLink>,
    places: BTreeMap<DestinationLink, usize>,
    /// Commands that a destination has not answered.
    inboxes: BTreeMap<usize, VecDeque<Correlation>>,
    failing: Vec<DestinationLink>,
    longest: u64,
    answered: u64,
}

fn address(destination: usize) -> ServerAddress {
    format!("smp://LcJUMfVhwD8yxjAiSaDzzGF3-kLG4Uh0Fl_ZIjrRwjI=@relay{destination}.example.org")
        .parse()
        .expect("an address")
}

fn is_down(destination: usize) -> bool {
    (DESTINATIONS..DESTINATIONS + DOWN).contains(&destination)
}

fn is_silent(destination: usize) -> bool {
    destination >= DESTINATIONS + DOWN
}

impl World {
    fn new(commands: u64) -> Self {
        let mut errands = Vec::new();
        for client in 0..CLIENTS {
            let floods = client % 100 == 7;
            let hold = if client % 2 == 0 || floods { Hold::Day } else { Hold::Never };
            let errand = |destination, last, hold| Errand {
                user: UserId(client as u64),
                destination,
                registered: None,
                next: 1,
                last,
                hold,
                floods,
                given: BTreeMap::new(),
                answered: 0,
                refused: 0,
            };
            errands.push(errand(client % DESTINATIONS, if floods { 40 * commands } else { commands }, hold));
            if client % 5 == 3 {
                errands.push(errand(DESTINATIONS + client / 5 % (DOWN + SILENT), 2, Hold::Day));
            }
        }
        let mut relay = FirstStep::new(FirstStepConfig::default());
        let now = Now { instant: Instant::from_micros(1), wall: UnixTime(1_700_000_000) };
        relay.begin(now);
        Self {
            relay,
            entropy: SeededEntropy::new([4; 32]),
            now,
            turn: 0,
            errands,
            by_number: BTreeMap::new(),
            by_question: BTreeMap::new(),
            links: BTreeMap::new(),
            places: BTreeMap::new(),
            inboxes: BTreeMap::new(),
            failing: Vec::new(),
            longest: 0,
            answered: 0,
        }
    }

    fn say(&mut self, user: UserId, correlation: Correlation, relay: RelayNumber, message: Message<'_>) {
        let mut content = Vec::with_capacity(16_384);
        Transmission { correlation, relay, message }.encode(&mut content).expect("fits");
        self.relay.receive(user, &content.into(), self.now, &mut self.entropy);
    }

    fn come(&mut self) {
        for index in 0..self.errands.len() {
            let Errand { user, destination, .. } = self.errands[index];
            self.relay.attach(user);
            let mut token = [0; 32];
            token[..8].copy_from_slice(&(index as u64).to_be_bytes());
            let register = Register { token, address: Some(address(destination)), password: None };
            let question = 1_000_000 + index as u64;
            self.by_question.insert((user, question), index);
            self.say(user, Correlation(question), RelayNumber(0), Message::Register(register));
        }
    }

    /// Gives the next command of an errand; false when it has none, or there is no room.
    fn give(&mut self, index: usize) -> bool {
        let errand = &mut self.errands[index];
        let Some(relay) = errand.registered else { return false };
        if errand.next > errand.last || !self.relay.has_room(errand.user) {
            return false;
        }
        // Who has no answer to some does not ask for ever more, unless it floods.
        if !errand.floods && errand.given.len() >= 4 {
            return false;
        }
        let (user, number) = (errand.user, errand.next);
        errand.next += 1;
        errand.given.insert(number, self.turn);
        let mut key = [0; 32];
        key[..8].copy_from_slice(&(index as u64).to_be_bytes());
        key[8..16].copy_from_slice(&number.to_be_bytes());
        let forward = Forward {
            options: ForwardOptions { hold: errand.hold, ..ForwardOptions::default() },
            acknowledged: Correlation(errand.answered.saturating_sub(1)),
            delay: 0,
            key: X25519Public(key),
            sealed: &SEALED,
        };
        self.say(user, Correlation(number), relay, Message::Forward(forward));
        true
    }

    /// A disk that keeps nothing: what is read from it is what was written.
    fn store(&mut self) -> bool {
        let mut stored = false;
        while let Some((id, action)) = self.relay.poll_storage() {
            stored = true;
            let completion = match action {
                StorageAction::ReadRecord { .. } => Completion::Record(id, Some(Bytes::from_static(&SEALED))),
                StorageAction::DeleteRecords { .. } => Completion::Deleted(id, false),
                _ => Completion::Done(id),
            };
            self.relay.complete(completion, self.now);
        }
        stored
    }

    fn destination_of(address: &ServerAddress) -> usize {
        let text = address.to_string();
        let digits = text.split("@relay").nth(1).and_then(|rest| rest.split('.').next());
        digits.and_then(|digits| digits.parse().ok()).expect("one of ours")
    }

    fn settle(&mut self) {
        loop {
            let stored = self.store();
            let Some(action) = self.relay.poll_action() else {
                if stored {
                    continue;
                }
                return;
            };
            match action {
                Action::Connect(link, address) => {
                    let destination = Self::destination_of(&address);
                    if is_down(destination) {
                        self.failing.push(link);
                        continue;
                    }
                    self.links.insert(destination, link);
                    self.places.insert(link, destination);
                    self.relay.connected(link, self.now);
                }
                Action::Disconnect(link) => {
                    if let Some(destination) = self.places.remove(&link) {
                        self.links.remove(&destination);
                        self.inboxes.remove(&destination);
                    }
                }
                Action::TellDestination(link) => self.carry(link),
                Action::TellClient(user) => {
                    let mut content = Vec::with_capacity(16_384);
                    while self.relay.poll_to_client(user, &mut content) {
                        self.hear(user, &content);
                        content.clear();
                    }
                }
            }
        }
    }

    fn carry(&mut self, link: DestinationLink) {
        let mut content = Vec::with_capacity(16_384);
        while self.relay.poll_to_destination(link, &mut content) {
            let read = Transmission::decode(&content).expect("readable");
            match read.message {
                Message::Register(_) => {
                    let until = self.now.wall.0 + 86_400;
                    let key = PublishedKey {
                        number: RelayNumber(1),
                        until,
                        key: X25519Public([9; 32]),
                        chain: vec![&[1; 500], &[2; 500]],
                        signature: &[3; 114],
                    };
                    let message = Message::Registered(Registered { until, key });
                    self.answer(link, read.correlation, message);
                }
                Message::Forward(_) => {
                    let destination = self.places[&link];
                    self.inboxes.entry(destination).or_default().push_back(read.correlation);
                }
                other => panic!("{other:?}"),
            }
            content.clear();
        }
    }

    fn answer(&mut self, link: DestinationLink, correlation: Correlation, message: Message<'_>) {
        let mut content = Vec::with_capacity(16_384);
        Transmission { correlation, relay: RelayNumber(1), message }.encode(&mut content).expect("fits");
        self.relay.receive_from(link, &content.into(), self.now, &mut self.entropy);
    }

    fn hear(&mut self, user: UserId, content: &[u8]) {
        let read = Transmission::decode(content).expect("readable");
        if let Some(index) = self.by_question.get(&(user, read.correlation.0)).copied() {
            if matches!(read.message, Message::Registered(_)) {
                self.errands[index].registered = Some(read.relay);
                self.by_number.insert((user, read.relay), index);
            }
            return;
        }
        let Some(index) = self.by_number.get(&(user, read.relay)).copied() else { return };
        let errand = &mut self.errands[index];
        match read.message {
            Message::Response(_) => {
                let given = errand.given.remove(&read.correlation.0).expect("it was given");
                errand.answered += 1;
                self.answered += 1;
                if !errand.floods {
                    self.longest = self.longest.max(self.turn - given);
                }
            }
            Message::Error(FirstStepError::Held { .. }) => {}
            Message::Error(_) => {
                errand.given.remove(&read.correlation.0);
                errand.refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }

    fn take_turn(&mut self) {
        self.turn += 1;
        self.now.instant = self.now.instant + Duration::from_secs(1);
        self.now.wall = self.now.wall.saturating_add(Duration::from_secs(1));
        for link in std::mem::take(&mut self.failing) {
            self.relay.disconnected(link, RelayFailure::Network, self.now, &mut self.entropy);
        }
        self.relay.handle_timeout(self.now, &mut self.entropy);
        self.settle();
        for index in 0..self.errands.len() {
            let at_once = if self.errands[index].floods { 32 } else { 1 };
            for _ in 0..at_once {
                if !self.give(index) {
                    break;
                }
                if self.errands[index].floods {
                    self.store();
                }
            }
        }
        self.settle();
        for destination in 0..DESTINATIONS {
            let Some(link) = self.links.get(&destination).copied() else { continue };
            for _ in 0..ANSWERS_A_TURN {
                let Some(correlation) = self.inboxes.get_mut(&destination).and_then(VecDeque::pop_front)
                else {
                    break;
                };
                self.answer(link, correlation, Message::Response(&SEALED));
                self.settle();
            }
        }
    }

    /// Whether everybody whose destination answers has all answers, those who flood excepted.
    fn is_done(&self) -> bool {
        let waits = |errand: &&Errand| {
            !errand.floods && errand.destination < DESTINATIONS && errand.answered < errand.last
        };
        !self.errands.iter().any(|errand| waits(&errand))
    }
}

fn times() -> u64 {
    std::env::var("SMP_CROWD").ok().and_then(|times| times.parse().ok()).unwrap_or(1).max(1)
}

#[test]
fn nobody_starves() {
    let mut world = World::new(3 * times());
    world.come();
    world.settle();
    let mut turns = 0;
    while !world.is_done() {
        world.take_turn();
        turns += 1;
        assert!(turns < 60 * times(), "{} answered, {} turns", world.answered, world.turn);
    }
    world.relay.check().expect("sound");
    println!("{turns} turns, {} answers, the longest wait {} turns", world.answered, world.longest);
    assert!(world.longest <= TURNS, "somebody waited for {} turns", world.longest);
    let floods = || world.errands.iter().filter(|errand| errand.floods && errand.destination < DESTINATIONS);
    assert!(floods().count() >= 90 && floods().all(|errand| errand.answered > 0), "they are served, too");
    // What is for relays that are down or silent is held, and neither lost nor answered.
    let of_others = world.errands.iter().filter(|errand| errand.destination >= DESTINATIONS);
    for errand in of_others.filter(|errand| errand.registered.is_some()) {
        assert!(is_silent(errand.destination));
        assert_eq!((errand.answered, errand.refused), (0, 0));
    }
}
