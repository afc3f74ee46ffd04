//! Destinations: one connection each, which all clients share, and what they published.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::client::{ClientNumber, ItemState};
use super::machine::{Action, Asker, FirstStep, Timer, UserId};
use super::record::{RecordKey, Write};
use super::remembering::{FRESH, MARGIN, Published};
use crate::entropy::Entropy;
use crate::proxy::{DialFailure, Turns};
use crate::time::{Duration, Instant, Now};
use crate::wire::address::ServerAddress;
use crate::wire::first_step::{
    Correlation, FirstStepError, Forward, ForwardOptions, Hold, Message, Register, RelayFailure, RelayNumber,
    Transmission,
};
use crate::wire::primitives::Writer;

/// Names a destination within this relay; never on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct DestinationNumber(pub(super) u64);

/// One attempt to reach a destination, and the connection that comes of it; never reused in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationLink {
    pub(super) destination: DestinationNumber,
    pub(super) attempt: u64,
}

impl From<DialFailure> for RelayFailure {
    fn from(failure: DialFailure) -> Self {
        match failure {
            DialFailure::Host => Self::Address,
            DialFailure::Network => Self::Network,
            DialFailure::WrongRelay => Self::Identity,
            DialFailure::Timeout => Self::Timeout,
            DialFailure::NotSpoken => Self::NotSpoken,
        }
    }
}

/// A connection is kept for at least so long: shorter, it would be looked at without a pause.
const SHORTEST_IDLE: Duration = Duration::from_secs(1);
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// There is no connection.
    Apart,
    /// It waits for its turn to be dialled.
    Queued,
    /// The driver connects: in one of the two kinds of turns, for somebody.
    Connecting { until: Instant, turn: (usize, Asker) },
    /// It is connected, and was asked for its key; nothing else is said before it answers.
    Asking,
    /// Commands can be sent.
    Ready,
}

/// A command that was sent.
#[derive(Clone, Copy, Debug)]
struct Outstanding {
    client: ClientNumber,
    correlation: Correlation,
    until: Instant,
}

/// What is to be said to a destination.
#[derive(Debug)]
enum ToDestination {
    Ask,
    Command { key_number: RelayNumber, client: ClientNumber, correlation: Correlation, body: Bytes },
}

/// One destination.
#[derive(Debug)]
pub(super) struct Destination {
    pub(super) address: ServerAddress,
    pub(super) hash: [u8; 32],
    pub(super) state: State,
    /// Of the last attempt.
    attempt: u64,
    /// The question for its key that was not answered yet, and until when it has to be.
    asked: Option<(u64, Instant)>,
    pub(super) published: Option<Published>,
    /// Who waits for its key: connection, question, number.
    pub(super) asking: Vec<(UserId, Correlation, RelayNumber)>,
    /// Clients with something to send, each once.
    pub(super) line: VecDeque<ClientNumber>,
    outstanding: BTreeMap<u64, Outstanding>,
    outgoing: VecDeque<(u64, ToDestination)>,
    /// Commands whose bodies are being read.
    pub(super) reading: usize,
    /// Commands and answers that are held.
    pub(super) held: usize,
    /// Clients that have registered it.
    pub(super) clients: usize,
    question: u64,
    failures: u32,
    last_failure: RelayFailure,
    pub(super) retry_at: Option<Instant>,
    last_used: Instant,
    pub(super) timer: Option<Instant>,
}

impl Destination {
    pub(super) fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// Whether somebody needs it, or there is a connection to it.
    pub(super) fn is_in_use(&self) -> bool {
        self.held > 0
            || self.state != State::Apart
            || !self.asking.is_empty()
            || !self.line.is_empty()
            || self.clients > 0
    }

    /// Whether nothing is known of a connection to it.
    pub(super) fn is_apart(&self) -> bool {
        matches!(self.state, State::Apart | State::Queued)
    }

    /// Commands on their way there.
    pub(super) fn load(&self) -> usize {
        self.outstanding.len() + self.reading
    }

    /// Its key, unless that is about to end.
    pub(super) fn published(&self, now: Now) -> Option<Published> {
        self.published.clone().filter(|published| published.until > now.wall.0.saturating_add(MARGIN))
    }

    /// When it is dialled again.
    pub(super) const fn dialled_again(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Its key, when a newer one need not be asked for, or cannot be now.
    pub(super) fn latest(&self, now: Now) -> Option<Published> {
        let may_ask = self.remembered_failure(now).is_none();
        let is_fresh = |at: Instant| now.instant.saturating_since(at) < FRESH;
        self.published(now).filter(|known| !may_ask || known.fetched.is_some_and(is_fresh))
    }

    fn has_outlived_its_key(&self, now: Now) -> bool {
        let ends = self.published.as_ref().and_then(|published| published.ends);
        ends.is_some_and(|ends| ends <= now.instant)
    }

    /// How it failed a moment ago; it is not tried again yet.
    pub(super) fn remembered_failure(&self, now: Now) -> Option<RelayFailure> {
        self.retry_at.filter(|at| *at > now.instant && self.state == State::Apart).map(|_| self.last_failure)
    }
}

pub(super) fn hash_of(address: &ServerAddress) -> [u8; 32] {
    let mut bytes = Vec::new();
    // What cannot be written has no record either; such an address was refused.
    let _ = address.write(&mut bytes);
    Sha256::digest(&bytes).into()
}

impl FirstStep {
    /// The destination of this address.
    pub(super) fn destination(&mut self, address: &ServerAddress) -> DestinationNumber {
        let hash = hash_of(address);
        if let Some(number) = self.addresses.get(&hash) {
            return *number;
        }
        let number = DestinationNumber(self.number());
        self.addresses.insert(hash, number);
        self.destinations.insert(
            number,
            Destination {
                address: address.clone(),
                hash,
                state: State::Apart,
                attempt: 0,
                asked: None,
                published: None,
                asking: Vec::new(),
                line: VecDeque::new(),
                outstanding: BTreeMap::new(),
                outgoing: VecDeque::new(),
                reading: 0,
                held: 0,
                clients: 0,
                question: 1,
                failures: 0,
                last_failure: RelayFailure::Network,
                retry_at: None,
                last_used: Instant::START,
                timer: None,
            },
        );
        number
    }

    /// Whether this address is among the destinations.
    pub(super) fn knows_destination(&self, address: &ServerAddress) -> bool {
        self.addresses.contains_key(&hash_of(address))
    }

    /// Connects to a destination when it is its turn, unless it failed a moment ago; a connected one is asked for its key, when
    /// that is wanted.
    pub(super) fn want(&mut self, number: DestinationNumber, asker: Asker, now: Now) {
        let Some(there) = self.destinations.get_mut(&number) else { return };
        match there.state {
            State::Apart if there.retry_at.is_none_or(|at| at <= now.instant) => {
                there.state = State::Queued;
                there.retry_at = None;
                let turns = usize::from(there.published.is_some());
                if let Some(turns) = self.turns.get_mut(turns) {
                    turns.wait(asker, number);
                }
                self.dial_next(now);
            }
            State::Ready if !there.asking.is_empty() => self.ask(number, now),
            _ => {}
        }
        self.set_destination_timer(number);
    }

    /// Dials as many as may be dialled.
    fn dial_next(&mut self, now: Now) {
        for index in 0..self.turns.len() {
            while let Some((asker, number)) = self.turns.get_mut(index).and_then(Turns::next) {
                let attempt = self.number();
                let until = now.instant + self.config.connect_timeout;
                match self.destinations.get_mut(&number) {
                    Some(there) if there.state == State::Queued => {
                        there.state = State::Connecting { until, turn: (index, asker) };
                        there.attempt = attempt;
                        let link = DestinationLink { destination: number, attempt };
                        let address = Box::new(there.address.clone());
                        self.actions.push_back(Action::Connect(link, address));
                        self.set_destination_timer(number);
                    }
                    _ => self.finish_turn((index, asker)),
                }
            }
        }
    }

    fn finish_turn(&mut self, (index, asker): (usize, Asker)) {
        if let Some(turns) = self.turns.get_mut(index) {
            turns.finished(asker);
        }
    }

    /// The destination whose present connection this is.
    fn linked(&mut self, link: DestinationLink) -> Option<&mut Destination> {
        self.destinations
            .get_mut(&link.destination)
            .filter(|there| there.attempt == link.attempt && !there.is_apart())
    }

    /// Enters when the destination is to be looked at again.
    pub(super) fn set_destination_timer(&mut self, number: DestinationNumber) {
        let idle = self.config.idle;
        let Some(there) = self.destinations.get_mut(&number) else { return };
        let at = match there.state {
            State::Connecting { until, .. } => Some(until),
            State::Asking | State::Ready => {
                let answer = there.outstanding.first_key_value().map(|(_, sent)| sent.until);
                let asked = there.asked.map(|(_, until)| until);
                [answer, asked]
                    .into_iter()
                    .flatten()
                    .min()
                    .or(Some(there.last_used + idle.max(SHORTEST_IDLE)))
            }
            State::Apart => {
                there.retry_at.or_else(|| there.published.as_ref().and_then(|published| published.ends))
            }
            State::Queued => None,
        };
        let before = core::mem::replace(&mut there.timer, at);
        if before != at {
            self.set_timer(Timer::Destination(number), before, at);
        }
    }

    pub(super) fn destination_timeout(
        &mut self,
        number: DestinationNumber,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        let Some(there) = self.destinations.get_mut(&number) else { return };
        there.timer = None;
        let answer = there.outstanding.first_key_value().map(|(_, sent)| sent.until);
        let asked = there.asked.map(|(_, until)| until);
        let late = [answer, asked].into_iter().flatten().any(|until| until <= now.instant);
        let link = DestinationLink { destination: number, attempt: there.attempt };
        match there.state {
            State::Connecting { until, .. } if until <= now.instant => {
                self.give_up(link, RelayFailure::Timeout, now, entropy);
            }
            State::Asking | State::Ready if late => {
                self.give_up(link, RelayFailure::Timeout, now, entropy);
            }
            State::Ready if there.load() == 0 && there.last_used + self.config.idle <= now.instant => {
                there.state = State::Apart;
                self.actions.push_back(Action::Disconnect(link));
                self.leave(number);
            }
            State::Apart if there.retry_at.is_some_and(|at| at <= now.instant) => {
                there.retry_at = None;
                let user = there.asking.first().map(|(user, ..)| Asker::User(*user));
                match user.or_else(|| there.line.front().copied().map(Asker::Client)) {
                    Some(asker) => self.want(number, asker, now),
                    None => self.leave(number),
                }
            }
            State::Asking | State::Ready => {
                // It is in use by commands that are being read, however long storage takes.
                there.last_used = there.last_used.max(now.instant);
                self.set_destination_timer(number);
            }
            State::Apart if there.has_outlived_its_key(now) => {
                there.published = None;
                let write = Write::Delete(RecordKey::Published(there.hash));
                self.store_nothing(alloc::vec![write]);
                self.leave(number);
            }
            _ => self.set_destination_timer(number),
        }
    }

    /// The driver has connected to a destination, and both hellos are said.
    pub fn connected(&mut self, link: DestinationLink, now: Now) {
        let Some(there) = self.linked(link) else {
            return self.actions.push_back(Action::Disconnect(link));
        };
        let State::Connecting { turn, .. } = there.state else { return };
        there.state = State::Asking;
        there.outgoing.clear();
        there.last_used = now.instant;
        self.finish_turn(turn);
        self.ask(link.destination, now);
        self.dial_next(now);
    }

    /// Asks a connected destination for its key, unless it is asked already.
    fn ask(&mut self, number: DestinationNumber, now: Now) {
        let timeout = self.config.answer_timeout;
        let Some(there) = self.destinations.get_mut(&number) else { return };
        if there.asked.is_some() {
            return;
        }
        let question = there.question;
        there.question = there.question.saturating_add(1);
        there.asked = Some((question, now.instant + timeout));
        self.say(number, question, ToDestination::Ask);
        self.set_destination_timer(number);
    }

    fn say(&mut self, number: DestinationNumber, question: u64, what: ToDestination) {
        let Some(there) = self.destinations.get_mut(&number) else { return };
        if there.outgoing.is_empty() {
            let link = DestinationLink { destination: number, attempt: there.attempt };
            self.actions.push_back(Action::TellDestination(link));
        }
        there.outgoing.push_back((question, what));
    }

    /// Closes a connection, or ends a dial, that the driver believes in.
    fn give_up(
        &mut self,
        link: DestinationLink,
        failure: RelayFailure,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        self.actions.push_back(Action::Disconnect(link));
        self.disconnected(link, failure, now, entropy);
    }

    /// A destination could not be connected, or the connection is lost.
    pub fn disconnected(
        &mut self,
        link: DestinationLink,
        failure: RelayFailure,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        let number = link.destination;
        let Some(there) = self.linked(link) else { return };
        let was = core::mem::replace(&mut there.state, State::Apart);
        let was_resting = was == State::Ready && there.outstanding.is_empty() && there.asked.is_none();
        there.outgoing = VecDeque::new();
        there.asked = None;
        there.last_failure = failure;
        let outstanding = core::mem::take(&mut there.outstanding);
        let asking = core::mem::take(&mut there.asking);
        if !was_resting {
            there.failures = there.failures.saturating_add(1);
            let failures = there.failures;
            let wait = match failure {
                // It will not have learned the protocol in a moment.
                RelayFailure::NotSpoken => self.config.unspoken_delay,
                _ => self.config.backoff().after(failures, entropy),
            };
            if let Some(there) = self.destinations.get_mut(&number) {
                there.retry_at = Some(now.instant + wait);
            }
        }
        if let State::Connecting { turn, .. } = was {
            self.finish_turn(turn);
        }
        let known = self.destinations.get(&number).and_then(|there| there.published(now));
        for (user, correlation, relay) in asking {
            match &known {
                Some(published) => self.is_registered(user, correlation, relay, published),
                None => self.not_registered(user, correlation, relay, failure),
            }
        }
        for sent in outstanding.into_values() {
            self.try_again(sent.client, sent.correlation, failure, now, entropy);
        }
        // Those who do not want to wait are told; the others stay in line.
        let line = self.destinations.get_mut(&number).map(|there| core::mem::take(&mut there.line));
        for client in line.unwrap_or_default() {
            if let Some(known) = self.clients.get_mut(&client) {
                known.in_line = false;
                let first = known.due.first().copied();
                if let Some(item) = first.and_then(|first| known.items.get_mut(&first)) {
                    item.dials = item.dials.saturating_add(1);
                    item.last = failure;
                }
                self.advance(client, now);
            }
        }
        self.set_destination_timer(number);
        self.leave(number);
        self.dial_next(now);
    }

    /// Takes what a destination said: the content of a block, of which what is kept is shared.
    pub fn receive_from(
        &mut self,
        link: DestinationLink,
        content: &Bytes,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        let number = link.destination;
        let Some(there) = self.linked(link) else { return };
        there.last_used = now.instant;
        let Some(Transmission { correlation, message, .. }) = Transmission::decode(content) else {
            return self.give_up(link, RelayFailure::Refused, now, entropy);
        };
        if let Some((question, _)) = there.asked
            && correlation.0 == question
        {
            there.asked = None;
            let Message::Registered(registered) = message else {
                // It speaks the protocol, but takes nothing from first-step relays.
                let failure = match message {
                    Message::Error(FirstStepError::NoRelay) => RelayFailure::NotSpoken,
                    _ => RelayFailure::Refused,
                };
                return self.give_up(link, failure, now, entropy);
            };
            return self.is_ready(number, Published::fetched(&registered.key, now), now);
        }
        if there.state == State::Ready {
            let Some(sent) = there.outstanding.remove(&correlation.0) else { return };
            there.failures = 0;
            self.answered(number, sent, message, content, now, entropy);
            self.serve_line(number, now);
        }
    }

    fn is_ready(&mut self, number: DestinationNumber, published: Option<Published>, now: Now) {
        let Some(there) = self.destinations.get_mut(&number) else { return };
        there.state = State::Ready;
        there.failures = 0;
        let before = there.published.as_ref().map(|published| published.bytes.clone());
        let hash = there.hash;
        there.published = published;
        let asking = core::mem::take(&mut there.asking);
        let published = there.published.clone();
        let record = published
            .as_ref()
            .filter(|published| Some(&published.bytes) != before.as_ref())
            .and_then(|published| published.record(&there.address));
        if let Some(record) = record {
            self.store_nothing(alloc::vec![Write::Put(RecordKey::Published(hash), record)]);
        }
        for (user, correlation, relay) in asking {
            match &published {
                Some(published) => self.is_registered(user, correlation, relay, published),
                None => self.not_registered(user, correlation, relay, RelayFailure::NotSpoken),
            }
        }
        self.serve_line(number, now);
        self.set_destination_timer(number);
    }

    /// Lets those who stand in line send, as long as there is room.
    pub(super) fn serve_line(&mut self, number: DestinationNumber, now: Now) {
        let most = self.config.limits.outstanding;
        while let Some(there) = self.destinations.get_mut(&number)
            && there.is_ready()
            && there.load() < most
            && let Some(client) = there.line.pop_front()
        {
            if let Some(known) = self.clients.get_mut(&client) {
                known.in_line = false;
                self.advance(client, now);
            }
        }
        self.set_destination_timer(number);
    }

    /// Sends a command: its body is there.
    pub(super) fn send(&mut self, client: ClientNumber, correlation: Correlation, body: Bytes, now: Now) {
        let timeout = self.config.answer_timeout;
        let Some(known) = self.clients.get_mut(&client) else { return };
        let number = known.destination;
        let Some(there) = self.destinations.get_mut(&number) else { return };
        there.reading = there.reading.saturating_sub(1);
        let Some(item) = known.items.get_mut(&correlation) else { return };
        if !there.is_ready() {
            // The connection was lost while the body was read.
            item.state = ItemState::Waiting;
            known.busy = None;
            known.due.insert(correlation);
            return self.advance(client, now);
        }
        item.state = ItemState::Sent;
        item.attempts = item.attempts.saturating_add(1);
        let question = there.question;
        there.question = there.question.saturating_add(1);
        there.outstanding.insert(question, Outstanding { client, correlation, until: now.instant + timeout });
        there.last_used = now.instant;
        let command = ToDestination::Command { key_number: item.key_number, client, correlation, body };
        self.say(number, question, command);
        self.set_destination_timer(number);
    }

    /// Writes the content of the next block for a destination. False, when there is none.
    pub fn poll_to_destination(&mut self, link: DestinationLink, out: &mut impl Writer) -> bool {
        loop {
            let Some(there) = self
                .destinations
                .get_mut(&link.destination)
                .filter(|there| there.attempt == link.attempt && !there.is_apart())
            else {
                return false;
            };
            let Some((question, what)) = there.outgoing.pop_front() else { return false };
            let correlation = Correlation(question);
            let (relay, message) = match &what {
                ToDestination::Ask => {
                    let register = Register { token: [0; 32], address: None, password: None };
                    (RelayNumber(0), Message::Register(register))
                }
                ToDestination::Command { key_number, client, correlation: which, body } => {
                    let item = self.clients.get(client).and_then(|client| client.items.get(which));
                    // The client has gone, and with it what was not to be held.
                    let Some(item) = item else {
                        there.outstanding.remove(&question);
                        continue;
                    };
                    let forward = Forward {
                        options: ForwardOptions { hold: Hold::Never, ..item.options },
                        acknowledged: Correlation(0),
                        delay: 0,
                        key: item.key,
                        sealed: body,
                    };
                    (*key_number, Message::Forward(forward))
                }
            };
            // What came in such a transmission fits in one.
            return Transmission { correlation, relay, message }.encode(out).is_ok();
        }
    }

    fn answered(
        &mut self,
        number: DestinationNumber,
        sent: Outstanding,
        message: Message<'_>,
        content: &Bytes,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        let Outstanding { client, correlation, .. } = sent;
        match message {
            Message::Response(sealed) => {
                self.settle(client, correlation, Ok(content.slice_ref(sealed)), now);
            }
            Message::Error(FirstStepError::NotYet) => {
                self.try_again(client, correlation, RelayFailure::NotYet, now, entropy);
            }
            Message::Error(FirstStepError::Quota | FirstStepError::Internal) => {
                self.try_again(client, correlation, RelayFailure::Refused, now, entropy);
            }
            Message::Error(
                error @ (FirstStepError::NoKey
                | FirstStepError::Crypto
                | FirstStepError::Repeated
                | FirstStepError::Syntax),
            ) => {
                if error == FirstStepError::NoKey
                    && let Some(there) = self.destinations.get_mut(&number)
                {
                    // The next who registers asks for the new one.
                    there.published = None;
                }
                self.settle(client, correlation, Err(error), now);
            }
            _ => self.settle(client, correlation, Err(FirstStepError::Relay(RelayFailure::Refused)), now),
        }
    }
}
