//! [`Holdings`]: what is held under one token, without the connection.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::command::{HoldId, Holdable, NotHeld, Seal, VerifiedKey};
use crate::client::command::ClientCommand;
use crate::client::{CommandFailure, Reply};
use crate::crypto::Provider;
use crate::entropy::Entropy;
use crate::time::{Duration, Instant, Now};
use crate::wire::address::ServerAddress;
use crate::wire::first_step::{Correlation, FirstStepError, ForwardOptions, RelayNumber};

/// Numbers of registrations begin here: they are none of a command.
pub(super) const QUESTIONS: u64 = 1 << 63;
/// For how long after its time something that was held is believed to be held.
pub(super) const GRACE: i64 = 86_400;

/// How [`Holdings`] behave.
#[derive(Clone)]
pub struct HoldingsConfig {
    /// The primitives.
    pub provider: &'static dyn Provider,
    /// The first-step relay's password, if it asks for one.
    pub password: Option<Bytes>,
    /// How long the relay may take for an answer, in which it may have to dial the destination.
    pub answer_timeout: Duration,
    /// The shortest wait before the relay is asked how a command is.
    pub shortest_check: Duration,
    /// The longest.
    pub longest_check: Duration,
    /// Commands that are not settled.
    pub commands: usize,
}

impl HoldingsConfig {
    /// The usual behaviour: 90 s for an answer, questions every 15 s to 10 minutes, 200 commands.
    #[must_use]
    pub const fn new(provider: &'static dyn Provider) -> Self {
        Self {
            provider,
            password: None,
            answer_timeout: Duration::from_secs(90),
            shortest_check: Duration::from_secs(15),
            longest_check: Duration::from_secs(600),
            commands: 200,
        }
    }
}

impl fmt::Debug for HoldingsConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HoldingsConfig").field("commands", &self.commands).finish_non_exhaustive()
    }
}

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HoldingEvent {
    /// The destination's key is known: commands can be sealed, also while the destination is down.
    Registered(Registration),
    /// It is not; commands that waited for it are given back as failed.
    NotRegistered(NotHeld),
    /// The first-step relay holds a command: it will try by itself. Told again when it has tried.
    Held {
        /// Which.
        id: HoldId,
        /// How often it was tried.
        attempts: u16,
        /// When it is tried next, in seconds since 1970.
        next: i64,
    },
    /// The destination has executed a command, and this is its answer.
    Answered {
        /// Which.
        id: HoldId,
        /// The answer.
        result: Result<Reply, CommandFailure>,
    },
    /// A command is not held, or no longer.
    Failed {
        /// Which.
        id: HoldId,
        /// Why.
        because: NotHeld,
        /// Whether it was held. If not, nothing was done, and those submitted after it are given back as well.
        was_held: bool,
    },
    /// The text of a command has to be said again: [`Holdings::provide`] it.
    Wanted {
        /// Which.
        id: HoldId,
    },
}

/// When a destination was registered, and until when its key can be used, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration {
    /// When the key was heard of.
    pub since: i64,
    /// When it ends.
    pub until: i64,
}

/// Where a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has a number and a key, and has not left.
    Recorded,
    /// It left on this connection.
    Sent,
    /// The relay may have it, or its answer: it is to be asked.
    Unsure,
    /// It was asked.
    Asked,
    /// The relay has it.
    Held { attempts: u16, next: i64 },
    /// The key that it is sealed with is over: it was not, and will not be, executed.
    KeyOver,
}

/// A command with a number.
pub(super) struct Open {
    pub(super) id: HoldId,
    pub(super) seal: Seal,
    pub(super) options: ForwardOptions,
    /// Before this time it is not sent, in seconds since 1970.
    pub(super) not_before: i64,
    /// When the relay gives it up at the latest.
    pub(super) until: i64,
    pub(super) was_held: bool,
    pub(super) stage: Stage,
    pub(super) command: Option<ClientCommand>,
    /// It may leave when this change is durable.
    pub(super) change: u64,
    pub(super) is_wanted: bool,
    pub(super) renumbered: u8,
}

/// A command without a number.
pub(super) struct Waiting {
    pub(super) id: HoldId,
    pub(super) command: Option<Holdable>,
    pub(super) options: ForwardOptions,
    pub(super) not_before: i64,
    pub(super) was_held: bool,
    pub(super) is_wanted: bool,
}

/// Whether the relay is to be asked for the destination's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asking {
    No,
    Wanted,
    Sent,
}

/// What is held under one token: see the room's documentation.
pub struct Holdings {
    pub(super) config: HoldingsConfig,
    pub(super) relay: ServerAddress,
    pub(super) destination: ServerAddress,
    pub(super) token: Zeroizing<[u8; 32]>,
    /// The next command's number.
    pub(super) next: u64,
    pub(super) registered: Option<Registration>,
    pub(super) open: BTreeMap<Correlation, Open>,
    pub(super) waiting: VecDeque<Waiting>,
    /// Answers up to this one are durable here.
    pub(super) acknowledged: Correlation,
    /// What `acknowledged` becomes with a change that is not durable yet.
    pub(super) acknowledging: Option<(u64, Correlation)>,
    /// What the relay was told on this connection.
    pub(super) said: Correlation,
    pub(super) is_connected: bool,
    pub(super) asking: Asking,
    pub(super) question: u64,
    /// The relay's number for the destination, and its key, on this connection.
    pub(super) ready: Option<(RelayNumber, VerifiedKey)>,
    /// The destination does not take this key any more.
    pub(super) over: Option<RelayNumber>,
    /// Until when the relay has to say something.
    pub(super) answer_by: Option<Instant>,
    pub(super) check_at: Option<Instant>,
    /// That time has come.
    pub(super) check_is_due: bool,
    changes: u64,
    taken: u64,
    pub(super) stored: u64,
    pub(super) events: VecDeque<HoldingEvent>,
}

impl Holdings {
    /// A fresh token for `destination` at the first-step relay `relay`.
    #[must_use]
    pub fn new(
        config: HoldingsConfig,
        relay: ServerAddress,
        destination: ServerAddress,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Self {
        let mut token = Zeroizing::new([0; 32]);
        entropy.fill_secret(&mut *token);
        let mut holdings = Self::with(config, relay, destination, token);
        holdings.has_changed();
        holdings
    }

    pub(super) const fn with(
        config: HoldingsConfig,
        relay: ServerAddress,
        destination: ServerAddress,
        token: Zeroizing<[u8; 32]>,
    ) -> Self {
        Self {
            config,
            relay,
            destination,
            token,
            next: 1,
            registered: None,
            open: BTreeMap::new(),
            waiting: VecDeque::new(),
            acknowledged: Correlation(0),
            acknowledging: None,
            said: Correlation(0),
            is_connected: false,
            asking: Asking::No,
            question: QUESTIONS,
            ready: None,
            over: None,
            answer_by: None,
            check_at: None,
            check_is_due: false,
            changes: 0,
            taken: 0,
            stored: 0,
            events: VecDeque::new(),
        }
    }

    /// The first-step relay.
    #[must_use]
    pub const fn relay(&self) -> &ServerAddress {
        &self.relay
    }

    /// The destination.
    #[must_use]
    pub const fn destination(&self) -> &ServerAddress {
        &self.destination
    }

    /// The first-step relay asks for another password from now on.
    pub fn set_password(&mut self, password: Option<Bytes>) {
        self.config.password = password;
    }

    /// Until when commands can be sealed for the destination, as far as is known.
    #[must_use]
    pub const fn registration(&self) -> Option<Registration> {
        self.registered
    }

    /// Whether the destination should be registered, or its key be renewed: half of the key's time has passed.
    #[must_use]
    pub fn should_register(&self, now: Now) -> bool {
        self.registered.is_none_or(|Registration { since, until }| {
            let middle = since.saturating_add(until.saturating_sub(since) / 2);
            now.wall.0 >= middle || now.wall.0 < since
        })
    }

    /// Asks for the destination's key.
    pub fn register(&mut self) {
        if self.asking == Asking::No {
            self.asking = Asking::Wanted;
        }
    }

    /// The commands that are not settled, in their order: of those that wait to be sealed, too.
    pub fn commands(&self) -> impl Iterator<Item = HoldId> {
        self.open.values().map(|open| open.id).chain(self.waiting.iter().map(|waiting| waiting.id))
    }

    /// Whether no command is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty() && self.waiting.is_empty()
    }

    /// How a command is held, as was last heard: attempts, and the time of the next.
    #[must_use]
    pub fn held(&self, id: HoldId) -> Option<(u16, i64)> {
        self.open.values().find(|open| open.id == id && open.was_held).map(|open| match open.stage {
            Stage::Held { attempts, next } => (attempts, next),
            _ => (0, 0),
        })
    }

    /// Whether there is something to be done or heard at the relay.
    #[must_use]
    pub fn wants_connection(&self) -> bool {
        !self.is_empty() || self.asking != Asking::No
    }

    /// Whether there is a command that the relay has not taken yet.
    #[must_use]
    pub fn has_unsaid(&self) -> bool {
        !self.waiting.is_empty()
            || self.open.values().any(|open| matches!(open.stage, Stage::Recorded | Stage::Sent))
    }

    /// Whether something is still to be said that needs no connection of its own.
    #[must_use]
    pub fn has_last_words(&self) -> bool {
        self.ready.is_some()
            && (self.acknowledging.is_some() || (self.acknowledged > self.said && self.next > 1))
    }

    /// Takes a command to be held. Its record has to be stored before it leaves: [`take_change`](Self::take_change).
    ///
    /// # Errors
    /// [`NotHeld::Unfit`] when its name is in use or there are too many: it is given back.
    pub fn submit(
        &mut self,
        id: HoldId,
        command: Holdable,
        options: ForwardOptions,
        not_before: i64,
    ) -> Result<(), Box<(NotHeld, Holdable)>> {
        let in_all = self.open.len() + self.waiting.len();
        if in_all >= self.config.commands {
            return Err(Box::new((NotHeld::Refused(FirstStepError::Quota), command)));
        }
        if self.commands().any(|other| other == id) {
            return Err(Box::new((NotHeld::Unfit, command)));
        }
        let (was_held, is_wanted) = (false, false);
        self.waiting.push_back(Waiting {
            id,
            command: Some(command),
            options,
            not_before,
            was_held,
            is_wanted,
        });
        if self.ready.is_none() {
            self.register();
        }
        Ok(())
    }

    /// The text of a command that was [wanted](HoldingEvent::Wanted), the same as at first; without, it is given up.
    pub fn provide(&mut self, id: HoldId, command: Option<Holdable>) {
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.id == id) {
            waiting.is_wanted = false;
            match command {
                Some(command) => waiting.command = Some(command),
                None => self.waiting.retain(|waiting| waiting.id != id),
            }
            return;
        }
        let Some((number, open)) = self.open.iter_mut().find(|(_, open)| open.id == id) else { return };
        let number = *number;
        open.is_wanted = false;
        match command {
            Some(command) => open.command = Some(command.command),
            None => self.settle(number),
        }
    }

    /// Nobody wants to know of a command any more. If it is held, it may be executed all the same.
    pub fn forget(&mut self, id: HoldId) {
        self.waiting.retain(|waiting| waiting.id != id);
        let number = self.open.iter().find(|(_, open)| open.id == id).map(|(number, _)| *number);
        if let Some(number) = number {
            self.settle(number);
        }
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<HoldingEvent> {
        self.events.pop_front()
    }

    pub(super) fn has_changed(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }

    /// The number of the last change, when there was one since this was last asked: the [`record`](Self::record) is to be
    /// stored, and then [`stored`](Self::stored) be called with it.
    pub const fn take_change(&mut self) -> Option<u64> {
        if self.taken == self.changes {
            return None;
        }
        self.taken = self.changes;
        Some(self.changes)
    }

    /// A record with everything up to this change is durable.
    pub fn stored(&mut self, change: u64) {
        self.stored = self.stored.max(change);
        if let Some((_, up_to)) = self.acknowledging.take_if(|(change, _)| *change <= self.stored) {
            self.acknowledged = self.acknowledged.max(up_to);
        }
    }

    /// Everything below the first open number is settled.
    pub(super) fn settled_up_to(open: &BTreeMap<Correlation, Open>, next: u64) -> Correlation {
        let first = open.first_key_value().map_or(next, |(number, _)| number.0);
        Correlation(first.saturating_sub(1))
    }

    /// A command is done with.
    pub(super) fn settle(&mut self, number: Correlation) {
        if self.open.remove(&number).is_some() {
            let change = self.has_changed();
            self.acknowledging = Some((change, Self::settled_up_to(&self.open, self.next)));
        }
    }

    /// There is a connection to the first-step relay.
    pub fn connected(&mut self) {
        self.disconnected();
        self.is_connected = true;
        self.asking = Asking::Wanted;
    }

    /// The connection is over. What was on its way is asked for on the next one.
    pub fn disconnected(&mut self) {
        self.is_connected = false;
        self.ready = None;
        self.said = Correlation(0);
        self.answer_by = None;
        self.check_at = None;
        self.check_is_due = false;
        if self.asking == Asking::Sent {
            self.asking = Asking::Wanted;
        }
        for open in self.open.values_mut() {
            if matches!(open.stage, Stage::Sent | Stage::Asked | Stage::Held { .. }) {
                open.stage = Stage::Unsure;
            }
        }
    }

    /// No connection can be made now. What was not sealed is given back, if nothing is held before it.
    pub fn unreachable(&mut self, because: NotHeld) {
        self.disconnected();
        self.not_registered(because);
    }

    pub(super) fn not_registered(&mut self, because: NotHeld) {
        self.asking = Asking::No;
        self.events.push_back(HoldingEvent::NotRegistered(because));
        if self.open.is_empty() {
            self.give_back(because);
        } else {
            // Asked again with the next connection.
            self.asking = Asking::Wanted;
        }
    }

    /// What waits does not overtake what could not be handed over.
    pub(super) fn give_back(&mut self, because: NotHeld) {
        for Waiting { id, was_held, .. } in self.waiting.drain(..) {
            self.events.push_back(HoldingEvent::Failed { id, because, was_held });
        }
    }

    pub(super) fn fail(&mut self, number: Correlation, because: NotHeld) {
        let Some(open) = self.open.get(&number) else { return };
        let (id, was_held) = (open.id, open.was_held);
        self.events.push_back(HoldingEvent::Failed { id, because, was_held });
        self.settle(number);
        if !was_held {
            self.give_back(because);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        [self.answer_by, self.check_at].into_iter().flatten().min()
    }

    /// Time has passed: there may be [something to say](Self::poll_content). False when the relay does not answer: the
    /// connection is of no use.
    #[must_use]
    pub fn handle_timeout(&mut self, now: Now) -> bool {
        self.check_is_due |= self.check_at.take_if(|at| *at <= now.instant).is_some();
        self.answer_by.is_none_or(|at| at > now.instant)
    }

    /// Gives up what must be over by now, when the relay cannot be asked for so long.
    pub fn give_up(&mut self, now: Now) {
        let over: Vec<_> = self
            .open
            .iter()
            .filter(|(_, open)| open.until.saturating_add(GRACE) < now.wall.0)
            .map(|(number, _)| *number)
            .collect();
        for number in over {
            self.fail(number, NotHeld::Unreachable);
        }
    }

    /// Adds everything that decides what happens next to a digest.
    pub fn digest(&self, digest: &mut Sha256) {
        if let Ok(record) = self.record() {
            digest.update(Sha256::digest(&*record));
        }
        for open in self.open.values() {
            digest.update(alloc::format!("{:?}{}", open.stage, open.command.is_some()).as_bytes());
            digest.update([u8::from(open.change <= self.stored), u8::from(open.is_wanted), open.renumbered]);
        }
        for waiting in &self.waiting {
            digest.update(waiting.id.0.to_be_bytes());
            digest.update([u8::from(waiting.command.is_some()), u8::from(waiting.was_held)]);
        }
        digest.update([
            self.asking as u8,
            u8::from(self.is_connected),
            u8::from(self.ready.is_some()),
            u8::from(self.check_is_due),
            u8::from(self.taken == self.changes),
        ]);
        for number in [self.acknowledged.0, self.said.0] {
            digest.update(number.to_be_bytes());
        }
        for at in [self.answer_by, self.check_at] {
            digest.update(at.map_or(0, Instant::as_micros).to_be_bytes());
        }
    }

    /// Asserts what must hold between any two inputs, for simulations.
    ///
    /// # Panics
    /// When the books do not agree: a bug.
    pub fn check(&self) {
        let mut ids: Vec<_> = self.commands().collect();
        ids.sort_unstable();
        assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "two commands of one name");
        assert!(ids.len() <= self.config.commands, "too many commands");
        assert!(self.open.keys().all(|number| number.0 < self.next), "a number that was not given out");
        assert!(self.acknowledged.0 < self.next, "an answer was acknowledged that nobody asked for");
        assert!(
            self.open.keys().all(|number| *number > self.acknowledged),
            "an answer was acknowledged that did not come"
        );
        let out = |open: &&Open| matches!(open.stage, Stage::Sent);
        assert!(
            self.open.values().filter(out).count() <= 1,
            "a command left before the one before it was taken"
        );
        assert!(self.is_connected || self.ready.is_none(), "ready without a connection");
    }
}

impl fmt::Debug for Holdings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Holdings")
            .field("open", &self.open.len())
            .field("waiting", &self.waiting.len())
            .field("registered", &self.registered)
            .finish_non_exhaustive()
    }
}
