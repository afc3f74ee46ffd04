//! Destinations: one connection each, which all clients share, and what they published.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::machine::{Action, ClientNumber, FirstStep, ItemState, Stored, Timer, UserId};
use super::record::{RecordKey, Write};
use crate::entropy::Entropy;
use crate::time::{Instant, Now};
use crate::wire::address::ServerAddress;
use crate::wire::first_step::{
    Correlation, FirstStepError, Forward, Hold, Message, PublishedKey, Register, RelayFailure, RelayNumber,
    Transmission,
};
use crate::wire::primitives::Reader;

/// Names a destination within this relay; never on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationNumber(pub u64);

/// A published key is not given out in its last minute.
const MARGIN: i64 = 60;

/// A forwarding key as its relay published it. The clients verify it.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub(super) number: RelayNumber,
    pub(super) until: i64,
    pub(super) bytes: Bytes,
}

impl Published {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut read = Reader::new(bytes);
        let key = PublishedKey::read(&mut read)?;
        read.end()?;
        Some(Self { number: key.number, until: key.until, bytes: Bytes::copy_from_slice(bytes) })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There is no connection.
    Apart,
    /// The driver connects.
    Connecting,
    /// It was asked for its key.
    Asking { question: u64, until: Instant },
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
    hash: [u8; 32],
    state: State,
    published: Option<Published>,
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
    retry_at: Option<Instant>,
    last_used: Instant,
    timer: Option<Instant>,
}

impl Destination {
    pub(super) fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// Commands on their way there.
    pub(super) fn load(&self) -> usize {
        self.outstanding.len() + self.reading
    }

    /// Its key, unless that is about to end.
    pub(super) fn published(&self, now: Now) -> Option<Published> {
        self.published.clone().filter(|published| published.until > now.wall.0.saturating_add(MARGIN))
    }

    /// How it failed a moment ago; it is not tried again yet.
    pub(super) fn remembered_failure(&self, now: Now) -> Option<RelayFailure> {
        self.retry_at.filter(|at| *at > now.instant && self.state == State::Apart).map(|_| self.last_failure)
    }
}

fn hash_of(address: &ServerAddress) -> [u8; 32] {
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

    /// A key that was stored. Without clients of that destination it is of no use.
    pub(super) fn restore_published(&mut self, hash: [u8; 32], bytes: &[u8]) -> Option<()> {
        let published = Published::read(bytes)?;
        match self.addresses.get(&hash).and_then(|number| self.destinations.get_mut(number)) {
            Some(destination) => destination.published = Some(published),
            None => {
                self.store(alloc::vec![Write::Delete(RecordKey::Published(hash))], Stored::Nothing);
            }
        }
        Some(())
    }

    /// Connects to a destination, unless it failed a moment ago.
    pub(super) fn want(&mut self, number: DestinationNumber, now: Now) {
        let Some(there) = self.destinations.get_mut(&number) else { return };
        if there.state == State::Apart && there.retry_at.is_none_or(|at| at <= now.instant) {
            there.state = State::Connecting;
            there.retry_at = None;
            let address = there.address.clone();
            self.actions.push_back(Action::Connect(number, address));
        }
        self.set_destination_timer(number);
    }

    /// Enters when the destination is to be looked at again.
    fn set_destination_timer(&mut self, number: DestinationNumber) {
        let idle = self.config.idle;
        let Some(there) = self.destinations.get_mut(&number) else { return };
        let answer = there.outstanding.first_key_value().map(|(_, sent)| sent.until);
        let at = match there.state {
            State::Asking { until, .. } => Some(until),
            State::Ready => answer.or(Some(there.last_used + idle)),
            State::Apart if !there.line.is_empty() || !there.asking.is_empty() => there.retry_at,
            State::Apart | State::Connecting => None,
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
        let late = there.outstanding.first_key_value().is_some_and(|(_, sent)| sent.until <= now.instant);
        match there.state {
            State::Asking { until, .. } if until <= now.instant => {
                self.actions.push_back(Action::Disconnect(number));
                self.disconnected(number, RelayFailure::Timeout, now, entropy);
            }
            State::Ready if late => {
                self.actions.push_back(Action::Disconnect(number));
                self.disconnected(number, RelayFailure::Timeout, now, entropy);
            }
            State::Ready if there.load() == 0 && there.last_used + self.config.idle <= now.instant => {
                there.state = State::Apart;
                self.actions.push_back(Action::Disconnect(number));
                self.leave(number);
            }
            State::Apart if !there.line.is_empty() || !there.asking.is_empty() => self.want(number, now),
            _ => self.set_destination_timer(number),
        }
    }

    /// The driver has connected to a destination.
    pub fn connected(&mut self, number: DestinationNumber, now: Now) {
        let timeout = self.config.answer_timeout;
        let Some(there) = self.destinations.get_mut(&number) else {
            return self.actions.push_back(Action::Disconnect(number));
        };
        if there.state != State::Connecting {
            return;
        }
        let question = there.question;
        there.question = there.question.saturating_add(1);
        there.state = State::Asking { question, until: now.instant + timeout };
        there.outgoing.clear();
        there.outgoing.push_back((question, ToDestination::Ask));
        self.actions.push_back(Action::TellDestination(number));
        self.set_destination_timer(number);
    }

    /// A destination could not be connected, or the connection is lost.
    pub fn disconnected(
        &mut self,
        number: DestinationNumber,
        failure: RelayFailure,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        let Some(there) = self.destinations.get_mut(&number) else { return };
        if there.state == State::Apart {
            return;
        }
        let was_resting = there.state == State::Ready && there.outstanding.is_empty();
        there.state = State::Apart;
        there.outgoing.clear();
        there.last_failure = failure;
        let outstanding = core::mem::take(&mut there.outstanding);
        let asking = core::mem::take(&mut there.asking);
        if !was_resting {
            there.failures = there.failures.saturating_add(1);
            there.retry_at = Some(now.instant + self.config.backoff().after(there.failures, entropy));
        }
        for (user, correlation, relay) in asking {
            self.not_registered(user, correlation, relay, failure);
        }
        for sent in outstanding.into_values() {
            self.try_again(sent.client, sent.correlation, failure, now, entropy);
        }
        // Those who do not want to wait are told; the others stay in line.
        let line = self.destinations.get_mut(&number).map(|there| core::mem::take(&mut there.line));
        for client in line.unwrap_or_default() {
            if let Some(known) = self.clients.get_mut(&client) {
                known.in_line = false;
                self.advance(client, now);
            }
        }
        self.set_destination_timer(number);
        self.leave(number);
    }

    /// Takes what a destination said: the content of a block.
    pub fn receive_from(
        &mut self,
        number: DestinationNumber,
        content: &[u8],
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        let Some(there) = self.destinations.get_mut(&number) else { return };
        there.last_used = now.instant;
        let Some(Transmission { correlation, message, .. }) = Transmission::decode(content) else {
            self.actions.push_back(Action::Disconnect(number));
            return self.disconnected(number, RelayFailure::Refused, now, entropy);
        };
        match (there.state, message) {
            (State::Asking { question, .. }, Message::Registered(registered))
                if correlation.0 == question =>
            {
                let mut bytes = Vec::new();
                let published = registered.key.write(&mut bytes).ok().and_then(|()| Published::read(&bytes));
                self.is_ready(number, published, now);
            }
            (State::Asking { question, .. }, _) if correlation.0 == question => {
                self.actions.push_back(Action::Disconnect(number));
                self.disconnected(number, RelayFailure::Refused, now, entropy);
            }
            (State::Ready, message) => {
                let Some(sent) = there.outstanding.remove(&correlation.0) else { return };
                there.failures = 0;
                self.answered(number, sent, message, now, entropy);
                self.serve_line(number, now);
            }
            _ => {}
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
        if let Some(published) =
            published.as_ref().filter(|published| Some(&published.bytes) != before.as_ref())
        {
            let write = Write::Put(RecordKey::Published(hash), published.bytes.clone());
            self.store(alloc::vec![write], Stored::Nothing);
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
        let command = ToDestination::Command { key_number: item.key_number, client, correlation, body };
        if there.outgoing.is_empty() {
            self.actions.push_back(Action::TellDestination(number));
        }
        there.outgoing.push_back((question, command));
        there.last_used = now.instant;
        self.set_destination_timer(number);
    }

    /// The content of the next block for a destination.
    pub fn poll_to_destination(&mut self, number: DestinationNumber) -> Option<Vec<u8>> {
        loop {
            let there = self.destinations.get_mut(&number)?;
            let (question, what) = there.outgoing.pop_front()?;
            let correlation = Correlation(question);
            let mut content = Vec::new();
            let sealed;
            let transmission = match what {
                ToDestination::Ask => {
                    let register = Register { token: [0; 32], address: None, password: None };
                    Transmission { correlation, relay: RelayNumber(0), message: Message::Register(register) }
                }
                ToDestination::Command { key_number, client, correlation: which, body } => {
                    let item = self.clients.get(&client).and_then(|client| client.items.get(&which));
                    // The client has gone, and with it what was not to be held.
                    let Some(item) = item else {
                        there.outstanding.remove(&question);
                        continue;
                    };
                    sealed = body;
                    let options =
                        crate::wire::first_step::ForwardOptions { hold: Hold::Never, ..item.options };
                    let forward = Forward {
                        options,
                        acknowledged: Correlation(0),
                        delay: 0,
                        key: item.key,
                        sealed: &sealed,
                    };
                    Transmission { correlation, relay: key_number, message: Message::Forward(forward) }
                }
            };
            // What came in such a transmission fits in one.
            transmission.encode(&mut content).ok()?;
            return Some(content);
        }
    }

    fn answered(
        &mut self,
        number: DestinationNumber,
        sent: Outstanding,
        message: Message<'_>,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        let Outstanding { client, correlation, .. } = sent;
        match message {
            Message::Response(sealed) => {
                self.settle(client, correlation, Ok(Bytes::copy_from_slice(sealed)), now);
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

    /// Forgets a destination that nobody needs.
    pub(super) fn leave(&mut self, number: DestinationNumber) {
        let Some(there) = self.destinations.get(&number) else { return };
        let needed = there.held > 0
            || there.state != State::Apart
            || !there.asking.is_empty()
            || !there.line.is_empty()
            || there.clients > 0;
        if needed {
            return self.set_destination_timer(number);
        }
        let (hash, timer, stored) = (there.hash, there.timer, there.published.is_some());
        self.set_timer(Timer::Destination(number), timer, None);
        self.destinations.remove(&number);
        self.addresses.remove(&hash);
        if stored {
            self.store(alloc::vec![Write::Delete(RecordKey::Published(hash))], Stored::Nothing);
        }
    }
}
