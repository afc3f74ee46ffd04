//! One client: what is held for it, what of that is next, and when it is looked at again.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use bytes::Bytes;

use super::destination::DestinationNumber;
use super::machine::{Asker, FirstStep, Timer, ToClient, UserId};
use super::record::{RecordKey, Write};
use super::storing::Pending;
use crate::keys::X25519Public;
use crate::time::{Duration, Instant, Now};
use crate::wire::first_step::{Correlation, FirstStepError, ForwardOptions, Hold, RelayFailure, RelayNumber};

/// Names a client within this relay; never on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ClientNumber(pub(super) u64);

/// Where a command of a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ItemState {
    /// It is being stored.
    Storing,
    /// It waits to be sent.
    Waiting,
    /// Its body is being read, to be sent.
    Reading,
    /// It was sent.
    Sent,
    /// It was answered; the answer is, or is being, stored.
    Answered,
    /// There will be no answer.
    Failed(FirstStepError),
}

/// A command of a client, or what became of it.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) state: ItemState,
    pub(super) options: ForwardOptions,
    /// When it may be sent at the earliest, in seconds since 1970.
    pub(super) not_before: i64,
    /// When it, or its answer, is given up.
    pub(super) until: i64,
    /// How often it was sent.
    pub(super) attempts: u16,
    /// How often its destination was dialled for it in vain, in this run.
    pub(super) dials: u16,
    pub(super) last: RelayFailure,
    pub(super) key_number: RelayNumber,
    pub(super) key: X25519Public,
    /// When it may be tried again.
    pub(super) retry_at: Instant,
    /// Its bytes, when it is not held.
    pub(super) body: Option<Bytes>,
}

/// One client: whoever shows its token.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) token: [u8; 32],
    pub(super) destination: DestinationNumber,
    pub(super) user: Option<(UserId, RelayNumber)>,
    pub(super) newest: Correlation,
    /// Apart from the tree: most clients have one or two, and a tree makes room for eleven at once.
    pub(super) items: BTreeMap<Correlation, Box<Item>>,
    /// Items that may be sent, in their order.
    pub(super) due: BTreeSet<Correlation>,
    /// Items that may be sent later, by when.
    pub(super) scheduled: BTreeSet<(i64, Correlation)>,
    /// Items that are given up, by when.
    pub(super) expiry: BTreeSet<(i64, Correlation)>,
    /// Items with an answer that is stored.
    pub(super) finals: BTreeSet<Correlation>,
    /// The one that is on its way.
    pub(super) busy: Option<Correlation>,
    /// Whether it stands in its destination's line.
    pub(super) in_line: bool,
    /// Whether there is a record of it.
    pub(super) is_stored: bool,
    pub(super) timer: Option<Instant>,
}

impl Client {
    pub(super) const fn new(token: [u8; 32], destination: DestinationNumber, newest: Correlation) -> Self {
        Self {
            token,
            destination,
            user: None,
            newest,
            items: BTreeMap::new(),
            due: BTreeSet::new(),
            scheduled: BTreeSet::new(),
            expiry: BTreeSet::new(),
            finals: BTreeSet::new(),
            busy: None,
            in_line: false,
            is_stored: false,
            timer: None,
        }
    }

    /// Gives back the memory of sets that are empty, which trees keep.
    fn rest(&mut self) {
        for set in [&mut self.due, &mut self.finals] {
            if set.is_empty() {
                *set = BTreeSet::new();
            }
        }
        for set in [&mut self.scheduled, &mut self.expiry] {
            if set.is_empty() {
                *set = BTreeSet::new();
            }
        }
        if self.items.is_empty() {
            self.items = BTreeMap::new();
        }
    }
}

impl FirstStep {
    pub(super) fn enter(&mut self, number: ClientNumber, client: Client) {
        if let Some(destination) = self.destinations.get_mut(&client.destination) {
            destination.clients += 1;
        }
        self.tokens.insert(client.token, number);
        self.clients.insert(number, Box::new(client));
    }

    /// Does for a client what can be done now, and enters when it is to be looked at again.
    pub(super) fn advance(&mut self, number: ClientNumber, now: Now) {
        self.expire(number, now);
        let Some(client) = self.clients.get_mut(&number) else { return };
        while let Some((at, correlation)) = client.scheduled.first().copied()
            && at <= now.wall.0
        {
            client.scheduled.remove(&(at, correlation));
            client.due.insert(correlation);
        }
        let head = client.due.first().copied().filter(|_| client.busy.is_none());
        let retry_at = head.and_then(|head| client.items.get(&head)).map(|item| item.retry_at);
        let destination = client.destination;
        let mut wait = None;
        if let (Some(head), Some(at)) = (head, retry_at) {
            if at > now.instant {
                wait = Some(at);
            } else if !self.start(number, head, destination, now) {
                return;
            }
        }
        let Some(client) = self.clients.get(&number) else { return };
        let later = |at: i64| {
            let seconds = u64::try_from(at.saturating_sub(now.wall.0)).unwrap_or(0);
            now.instant + Duration::from_secs(seconds)
        };
        let scheduled = client.scheduled.first().map(|(at, _)| later(*at));
        let expiry =
            client.expiry.first().map(|(at, _)| later(*at).max(now.instant + Duration::from_secs(1)));
        let timer = [wait, scheduled, expiry].into_iter().flatten().min();
        self.set_client_timer(number, timer);
        if let Some(client) = self.clients.get_mut(&number) {
            client.rest();
        }
    }

    /// Begins to send a command, if its destination has room. False when the client was looked at again meanwhile.
    fn start(
        &mut self,
        number: ClientNumber,
        correlation: Correlation,
        destination: DestinationNumber,
        now: Now,
    ) -> bool {
        let outstanding = self.config.limits.outstanding;
        let Some(there) = self.destinations.get_mut(&destination) else { return true };
        if !there.is_ready() || there.load() >= outstanding {
            let remembered = there.remembered_failure(now);
            let Some(client) = self.clients.get_mut(&number) else { return true };
            let is_immediate =
                client.items.get(&correlation).is_some_and(|item| item.options.hold == Hold::Never);
            if let Some(failure) = remembered.filter(|_| is_immediate) {
                self.settle(number, correlation, Err(FirstStepError::Relay(failure)), now);
                return false;
            }
            if !core::mem::replace(&mut client.in_line, true) {
                there.line.push_back(number);
            }
            self.want(destination, Asker::Client(number), now);
            return true;
        }
        let Some(client) = self.clients.get_mut(&number) else { return true };
        let Some(item) = client.items.get_mut(&correlation) else { return true };
        client.busy = Some(correlation);
        client.due.remove(&correlation);
        there.reading += 1;
        match &item.body {
            Some(body) => {
                let body = body.clone();
                item.state = ItemState::Reading;
                self.send(number, correlation, body, now);
            }
            None => {
                item.state = ItemState::Reading;
                self.read_record(
                    RecordKey::Body(number.0, correlation),
                    Pending::Command(number, correlation),
                );
            }
        }
        true
    }

    /// Gives up what was held too long, and forgets answers that nobody has fetched.
    fn expire(&mut self, number: ClientNumber, now: Now) {
        while let Some(client) = self.clients.get_mut(&number)
            && let Some((at, correlation)) = client.expiry.first().copied()
            && at <= now.wall.0
        {
            client.expiry.remove(&(at, correlation));
            let Some(item) = client.items.get(&correlation) else { continue };
            match item.state {
                ItemState::Answered | ItemState::Failed(_) => {
                    client.finals.remove(&correlation);
                    self.forget(number, &[correlation]);
                }
                ItemState::Waiting => {
                    let last = item.last;
                    client.due.remove(&correlation);
                    client.scheduled.remove(&(item.not_before, correlation));
                    self.settle(number, correlation, Err(FirstStepError::Expired { last }), now);
                }
                // Its answer, or its absence, decides.
                ItemState::Storing | ItemState::Reading | ItemState::Sent => {}
            }
        }
        self.forget_if_empty(number);
    }

    fn set_client_timer(&mut self, number: ClientNumber, at: Option<Instant>) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        if client.timer != at {
            let before = core::mem::replace(&mut client.timer, at);
            self.set_timer(Timer::Client(number), before, at);
        }
    }

    /// Takes an item out of everything.
    pub(super) fn remove_item(&mut self, number: ClientNumber, correlation: Correlation) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let Some(item) = client.items.remove(&correlation) else { return };
        client.due.remove(&correlation);
        client.scheduled.remove(&(item.not_before, correlation));
        client.expiry.remove(&(item.until, correlation));
        client.finals.remove(&correlation);
        if client.busy == Some(correlation) {
            client.busy = None;
        }
        if item.options.hold == Hold::Never {
            self.immediate = self.immediate.saturating_sub(1);
            if let Some(user) = client.user.and_then(|(user, _)| self.users.get_mut(&user)) {
                user.immediate = user.immediate.saturating_sub(1);
            }
        } else {
            self.held = self.held.saturating_sub(1);
            if let Some(destination) = self.destinations.get_mut(&client.destination) {
                destination.held = destination.held.saturating_sub(1);
            }
        }
    }

    /// Removes items with their records.
    pub(super) fn forget(&mut self, number: ClientNumber, which: &[Correlation]) {
        let mut writes = Vec::with_capacity(which.len() * 2);
        for correlation in which {
            self.remove_item(number, *correlation);
            writes.push(Write::Delete(RecordKey::Item(number.0, *correlation)));
            writes.push(Write::Delete(RecordKey::Body(number.0, *correlation)));
        }
        if !writes.is_empty() {
            self.store_nothing(writes);
        }
    }

    /// A client that has nothing here and is not there is nobody.
    pub(super) fn forget_if_empty(&mut self, number: ClientNumber) {
        let Some(client) = self.clients.get(&number) else { return };
        if client.user.is_some() || !client.items.is_empty() {
            return;
        }
        let (token, is_stored, timer, destination) =
            (client.token, client.is_stored, client.timer, client.destination);
        self.set_timer(Timer::Client(number), timer, None);
        self.tokens.remove(&token);
        self.clients.remove(&number);
        if let Some(destination) = self.destinations.get_mut(&destination) {
            destination.clients = destination.clients.saturating_sub(1);
        }
        if is_stored {
            self.store_nothing(alloc::vec![Write::Delete(RecordKey::Client(number.0))]);
        }
        self.leave(destination);
    }

    /// Tells whoever shows the client's token now.
    pub(super) fn tell_client(&mut self, number: ClientNumber, correlation: Correlation, what: ToClient) {
        if let Some((user, relay)) = self.clients.get(&number).and_then(|client| client.user) {
            self.tell(user, correlation, relay, what);
        }
    }
}
