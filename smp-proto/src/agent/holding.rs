//! Messages that a proxy holds while the peer's relay is out of reach (`smp-proxy/1`; `client::first_step`).
//!
//! Owns: for each connection, what its proxy holds of its messages ([`Holder`]), and which messages that are. It lies below
//! the connections, as [`routing`](super::routing) does: a message is encrypted once, waits in the same record, and is told of in
//! the same way when the peer's relay has it. It must never let a message overtake one that is held, hand over what is not
//! durable, or give a message up that another way could bring.
//!
//! ```text
//!   SEND through the proxy ──── answered ────▶ as ever; and the destination's key is asked for, for the day when it is down
//!          │ the proxy cannot reach the relay, and may hold
//!          ▼
//!     handed over ──▶ held, told ──▶ … ──▶ answered: sent, or refused
//!          │               │                  ▲
//!          │               └── later messages follow, as long as one is held
//!          └─ not taken: back among those that wait, and tried as ever
//! ```
//! **Who is seen.** Each connection has a token of its own at the proxy, and a TLS connection of its own: the proxy sees
//! that somebody sends to a relay, but not that two contacts there are one person's. What it costs is a TLS connection for
//! each contact of whom something is held; without that none is kept.
//!
//! **Order.** As long as something is held, all that follows to the same relay takes the same way; a full queue is waited for
//! there as well, since what comes behind could not wait for us. Behind a change of queue order is the peer's business,
//! as ever.
//!
//! **Durable.** What the proxy has of a connection is one record, written in the batch of what it says: after a kill at any
//! point each message either waits here, or the proxy is asked for it under its number.

use alloc::vec::Vec;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::agent::{Agent, AgentAction};
use super::config::AgentConfig;
use super::event::Event;
use super::live::{Live, Task};
use super::machine::{Connections, Core, RelayId, TaskId};
use super::record::message::OutgoingKind;
use super::routing;
use super::storage::{ConnectionId, RecordKey, Sequence};
use crate::client::first_step::{
    FirstStepClient, FirstStepClientConfig, HoldId, Holdable, HoldingEvent, Holdings, HoldingsConfig,
    HoldingsDamaged, NotHeld,
};
use crate::client::{Action, ClientCommand, ClientMisuse, CommandFailure, Reply};
use crate::entropy::Entropy;
use crate::session::first_step::FirstStepDial;
use crate::session::{Protocol, TransportFacts};
use crate::time::{Duration, Instant, Now, UnixTime};
use crate::wire::address::{AddressWithPassword, ServerAddress};
use crate::wire::first_step::{FirstStepError, ForwardOptions, Hold, RelayFailure};

/// For how long a proxy is not asked again that cannot hold for a relay, whatever happens.
const BARRED: Duration = Duration::from_secs(3600);

/// What a proxy holds of a connection's messages.
pub(super) struct Holder {
    pub client: FirstStepClient,
    /// The number of its connection.
    link: Option<RelayId>,
    /// Under what time it stands in the deadlines.
    deadline: Option<Instant>,
    /// The stamp of the batch that holds the last change, and that change.
    unstored: Option<(u64, u64)>,
    /// It is not asked before this time.
    barred: Option<Instant>,
}

impl Holder {
    fn new(config: &AgentConfig, holdings: Holdings) -> Self {
        let dial = FirstStepDial::new(holdings.relay().fingerprint.clone(), config.provider);
        let client = FirstStepClientConfig {
            first_delay: config.first_delay,
            longest_delay: config.longest_delay,
            ..FirstStepClientConfig::new(dial)
        };
        let client = FirstStepClient::new(client, holdings);
        Self { client, link: None, deadline: None, unstored: None, barred: None }
    }

    /// What its record says.
    pub fn restore(config: &AgentConfig, record: &[u8]) -> Result<Self, HoldingsDamaged> {
        let holdings = Holdings::restore(HoldingsConfig::new(config.provider), record)?;
        Ok(Self::new(config, holdings))
    }

    const fn holdings(&mut self) -> &mut Holdings {
        &mut self.client.holdings
    }

    fn is_barred(&self, now: Now) -> bool {
        self.barred.is_some_and(|until| until > now.instant)
    }

    /// The connection to be closed, and its deadline, when it is given up.
    pub fn given_up(&self) -> Option<(RelayId, Option<Instant>)> {
        self.link.map(|link| (link, self.deadline))
    }

    pub fn digest(&self, core: &Core, digest: &mut Sha256) {
        self.client.digest(digest);
        digest.update([self.unstored.map_or(u8::MAX, |(stamp, _)| core.distance(stamp))]);
        for at in [self.deadline, self.barred] {
            digest.update(at.map_or(0, Instant::as_micros).to_be_bytes());
        }
    }
}

impl Live {
    /// Knows again which messages were handed over.
    pub(super) fn resume_holding(&mut self) {
        let Some(holder) = &mut self.holder else { return };
        let held: Vec<_> = holder.client.holdings.commands().collect();
        for id in held {
            if self.outgoing.iter().any(|(sequence, ..)| sequence.0 == id.0) {
                self.handed_over.insert(Sequence(id.0));
            } else {
                holder.holdings().forget(id);
            }
        }
    }

    /// A message is not to be sent any more, whoever has it.
    pub(super) fn forget_held(&mut self, core: &mut Core, sequence: Sequence) {
        if let Some(holder) = &mut self.holder {
            holder.holdings().forget(HoldId(sequence.0));
            core.holding.insert(self.id);
        }
    }

    /// The peer's relay has answered a message that was held.
    fn held_answered(
        &mut self,
        sequence: Sequence,
        result: Result<Reply, CommandFailure>,
        core: &mut Core,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        self.handed_over.remove(&sequence);
        let sending = self.sending;
        self.send_answered(sequence, result, true, core, now, entropy);
        if sending.is_busy() {
            // Another one is on its way elsewhere.
            self.sending = sending;
        }
    }

    /// A message is not held, or no longer: whether it is tried as ever.
    fn held_failed(
        &mut self,
        sequence: Sequence,
        because: NotHeld,
        was_held: bool,
        core: &mut Core,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> bool {
        self.handed_over.remove(&sequence);
        let kind =
            self.outgoing.iter().find(|(other, ..)| *other == sequence).map(|(.., outgoing)| outgoing.kind);
        let is_there = was_held && because == NotHeld::Refused(FirstStepError::Repeated);
        if is_there || (was_held && kind == Some(OutgoingKind::Body)) {
            if let Some(outgoing) = self.forget_outgoing(core, sequence) {
                if is_there {
                    self.delivered(core, &outgoing, true);
                } else {
                    self.not_delivered(core, &outgoing, CommandFailure::NotHeld(because));
                }
            }
            return false;
        }
        if was_held {
            self.maybe_delivered = Some(sequence);
        }
        if self.sending.may_start(now) {
            self.sending.failed(core, core.config.longest_delay, now, entropy);
        }
        true
    }

    /// The text of a message that the proxy has to be told again; `None` when it goes elsewhere by now.
    fn held_text(&self, core: &Core, sequence: Sequence) -> Option<Holdable> {
        let holder = self.holder.as_ref()?;
        let (.., outgoing) = self.outgoing.iter().find(|(other, ..)| *other == sequence)?;
        let (relay, command) = self.send_command(core, outgoing)?;
        (relay == *holder.client.holdings.destination()).then(|| Holdable::new(command))?
    }

    pub(super) fn check_holding(&self) {
        let commands: alloc::collections::BTreeSet<_> = self
            .holder
            .iter()
            .flat_map(|holder| holder.client.holdings.commands())
            .map(|id| Sequence(id.0))
            .collect();
        assert!(commands == self.handed_over, "what is held and what was handed over differ");
        let waits = |sequence: &Sequence| self.outgoing.iter().any(|(other, ..)| other == sequence);
        assert!(self.handed_over.iter().all(waits), "a message is held that nobody wants sent");
        if let Some(holder) = &self.holder {
            holder.client.check();
        }
    }
}

impl Connections {
    /// The message that a command is for.
    fn message_of(&self, task: TaskId) -> Option<(ConnectionId, Sequence)> {
        match self.core.tasks.get(&task)? {
            (id, Task::Send(sequence)) => Some((*id, *sequence)),
            _ => None,
        }
    }

    /// A message is handed over: the next one may follow.
    fn handed_over(&mut self, task: TaskId) {
        let Some((id, sequence)) = self.message_of(task) else { return };
        self.core.tasks.remove(&task);
        if let Some(live) = self.lives.get_mut(&id) {
            live.handed_over.insert(sequence);
            live.sending.succeeded();
            self.core.ready.insert(id);
            self.core.holding.insert(id);
        }
    }
}

impl Agent {
    /// After a start: asks for what is held.
    pub(super) fn resume_holders(&mut self) {
        let held: Vec<_> = self
            .connections
            .lives
            .iter()
            .filter(|(_, live)| live.holder.is_some())
            .map(|(id, _)| *id)
            .collect();
        for id in held {
            let Some(link) = self.holder_link(id) else { continue };
            let Some(holder) = self.holder(id) else { continue };
            holder.deadline = Some(Instant::START);
            self.deadlines.insert((Instant::START, link));
        }
    }

    fn holder(&mut self, id: ConnectionId) -> Option<&mut Holder> {
        self.connections.lives.get_mut(&id)?.holder.as_mut()
    }

    /// The number of a holder's connection.
    fn holder_link(&mut self, id: ConnectionId) -> Option<RelayId> {
        let next = self.next_holder;
        let holder = self.holder(id)?;
        if let Some(link) = holder.link {
            return Some(link);
        }
        let link = routing::holder_id(next);
        holder.link = Some(link);
        self.next_holder = next.wrapping_add(1);
        self.holders.insert(link, id);
        Some(link)
    }

    /// The holder for a connection's messages to this relay: the one that there is, or one at this proxy. `None` when another
    /// relay's messages are held, or the proxy cannot hold.
    fn holder_for(
        &mut self,
        id: ConnectionId,
        proxy: RelayId,
        relay: RelayId,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Option<&mut Holder> {
        let destination = self.connections.relay_address(relay)?.clone();
        let proxy = self.proxies.get(routing::proxy_index(proxy)?)?.0.address.clone();
        let config = &self.connections.core.config;
        let is_configured = |address: &ServerAddress| {
            config.routing.proxies.iter().any(|AddressWithPassword { address: known, .. }| known == address)
        };
        let live = self.connections.lives.get_mut(&id)?;
        let fits = live.holder.as_ref().is_some_and(|holder| {
            let holdings = &holder.client.holdings;
            *holdings.destination() == destination
                && (*holdings.relay() == proxy || (is_configured(holdings.relay()) && !holder.is_barred(now)))
        });
        if !fits {
            if live.holder.as_ref().is_some_and(|holder| !holder.client.holdings.is_empty())
                || self.not_holding.contains(&proxy.fingerprint)
            {
                return None;
            }
            let holdings = Holdings::new(HoldingsConfig::new(config.provider), proxy, destination, entropy);
            let fresh = Holder::new(config, holdings);
            if let Some(gone) = live.holder.replace(fresh).and_then(|before| before.given_up()) {
                self.connections.core.holders_gone.push(gone);
            }
        }
        let fingerprint = live.holder.as_ref()?.client.holdings.relay().fingerprint.clone();
        let bars = self.not_holding.contains(&fingerprint);
        live.holder.as_mut().filter(|holder| !bars && !holder.is_barred(now))
    }

    /// A message went through the proxy: this is the time to ask for the key of the peer's relay.
    pub(super) fn register_while_all_is_well(
        &mut self,
        task: TaskId,
        relay: RelayId,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        if self.connections.core.config.routing.hold == Hold::Never {
            return;
        }
        let Some((id, _)) = self.connections.message_of(task) else { return };
        let Some(proxy) = self.routes.get(&relay).map(|route| route.proxy) else { return };
        if let Some(holder) = self.holder_for(id, proxy, relay, now, entropy)
            && holder.client.holdings.should_register(now)
        {
            holder.holdings().register();
            self.connections.core.holding.insert(id);
        }
    }

    /// Hands a message over, if its relay is out of the proxy's reach and holding is allowed. Gives back what is not.
    #[expect(clippy::too_many_arguments, reason = "a command, its way, and why it did not get there")]
    pub(super) fn hold(
        &mut self,
        task: TaskId,
        relay: RelayId,
        proxy: RelayId,
        command: ClientCommand,
        failure: &CommandFailure,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Option<ClientCommand> {
        let hold = self.connections.core.config.routing.hold;
        if hold == Hold::Never || !routing::is_out_of_reach(failure) {
            return Some(command);
        }
        let Some((id, _)) = self.connections.message_of(task) else { return Some(command) };
        if self.holder_for(id, proxy, relay, now, entropy).is_none() {
            return Some(command);
        }
        self.hand_over(task, command, hold)
    }

    /// Hands a message over that follows others which are held.
    pub(super) fn hold_behind_others(
        &mut self,
        task: TaskId,
        relay: RelayId,
        command: ClientCommand,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Option<ClientCommand> {
        let Some((id, _)) = self.connections.message_of(task) else { return Some(command) };
        let destination = self.connections.relay_address(relay).cloned();
        let follows = self.holder(id).is_some_and(|holder| {
            let holdings = &holder.client.holdings;
            !holdings.is_empty() && Some(holdings.destination()) == destination.as_ref()
        });
        if !follows {
            return Some(command);
        }
        // What holds others is asked to hold this one as well, also when new ones are not to be held any more.
        let hold = self.connections.core.config.routing.hold.max(Hold::Day);
        if self.hand_over(task, command, hold).is_some() {
            self.connections.answer(task, Err(CommandFailure::NotSent), now, entropy);
        }
        None
    }

    fn hand_over(&mut self, task: TaskId, command: ClientCommand, hold: Hold) -> Option<ClientCommand> {
        let Some((id, sequence)) = self.connections.message_of(task) else { return Some(command) };
        let options = ForwardOptions { while_unsecured: false, while_full: true, hold };
        let Some(holder) = self.holder(id) else { return Some(command) };
        let holdable = match Holdable::try_from(command) {
            Ok(holdable) => holdable,
            Err(command) => return Some(command),
        };
        match holder.holdings().submit(HoldId(sequence.0), holdable, options, 0) {
            Ok(()) => {
                self.connections.handed_over(task);
                None
            }
            Err(given_back) => Some(given_back.1.into()),
        }
    }

    /// The driver has connected for a holder.
    pub(super) fn holder_connected(
        &mut self,
        link: RelayId,
        facts: TransportFacts,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), ClientMisuse> {
        let id = self.holders.get(&link).copied();
        let Some((id, holder)) = id.and_then(|id| Some((id, self.holder(id)?))) else {
            // Given up while it was dialled.
            self.actions.push_back(AgentAction::Close(link));
            return Ok(());
        };
        let result = holder.client.connected(facts, now, entropy);
        self.holder_has_changed(id, now, entropy);
        self.pump(now, entropy);
        result
    }

    /// A holder's connection is lost, or could not be made.
    pub(super) fn holder_disconnected(
        &mut self,
        link: RelayId,
        not_spoken: bool,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        let Some(id) = self.holders.get(&link).copied() else { return };
        if let Some(holder) = self.holder(id) {
            if not_spoken {
                holder.client.not_spoken(now, entropy);
            } else {
                holder.client.disconnected(now, entropy);
            }
        }
        self.holder_has_changed(id, now, entropy);
        self.pump(now, entropy);
    }

    /// A block came over a holder's connection.
    pub(super) fn holder_receives(
        &mut self,
        link: RelayId,
        block: bytes::BytesMut,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), ClientMisuse> {
        let Some(id) = self.holders.get(&link).copied() else { return Err(ClientMisuse::NotConnected) };
        let Some(holder) = self.holder(id) else { return Err(ClientMisuse::NotConnected) };
        let result = holder.client.receive(block, now, entropy);
        self.holder_has_changed(id, now, entropy);
        self.pump(now, entropy);
        result
    }

    /// The next block for a holder's connection.
    pub(super) fn holder_block(
        &mut self,
        link: RelayId,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Option<bytes::BytesMut> {
        let id = self.holders.get(&link).copied()?;
        let block = self.holder(id)?.client.poll_block(now, entropy);
        if block.is_none() {
            self.announced.remove(&link);
        }
        self.settle_holder(id, false, now, entropy);
        self.pump(now, entropy);
        block
    }

    pub(super) fn holder_timeout(&mut self, link: RelayId, now: Now, entropy: &mut (impl Entropy + ?Sized)) {
        let Some(id) = self.holders.get(&link).copied() else { return };
        if let Some(holder) = self.holder(id) {
            holder.deadline = None;
            holder.client.handle_timeout(now, entropy);
        }
        self.holder_has_changed(id, now, entropy);
    }

    /// What was changed of what is held may be durable now.
    pub(super) fn holdings_stored(&mut self, now: Now, entropy: &mut (impl Entropy + ?Sized)) {
        for id in core::mem::take(&mut self.unstored_holdings) {
            let Some(live) = self.connections.lives.get_mut(&id) else { continue };
            let Some(holder) = &mut live.holder else { continue };
            let core = &self.connections.core;
            if let Some((_, change)) = holder.unstored.take_if(|(stamp, _)| core.is_durable(*stamp)) {
                holder.holdings().stored(change);
                self.holder_has_changed(id, now, entropy);
            } else if holder.unstored.is_some() {
                self.unstored_holdings.insert(id);
            }
        }
    }

    /// Carries what a holder has to say, and what it wants.
    pub(super) fn holder_has_changed(
        &mut self,
        id: ConnectionId,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        self.settle_holder(id, true, now, entropy);
    }

    fn settle_holder(
        &mut self,
        id: ConnectionId,
        mut may_send: bool,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        for (link, deadline) in core::mem::take(&mut self.connections.core.holders_gone) {
            self.actions.push_back(AgentAction::Close(link));
            self.holders.remove(&link);
            self.announced.remove(&link);
            if let Some(at) = deadline {
                self.deadlines.remove(&(at, link));
            }
        }
        while let Some(event) = self.holder(id).and_then(|holder| holder.holdings().poll_event()) {
            self.holding_event(id, event, now, entropy);
            may_send = true;
        }
        let Some(link) = self.holder_link(id) else { return };
        let Connections { lives, core, .. } = &mut self.connections;
        let Some(holder) = lives.get_mut(&id).and_then(|live| live.holder.as_mut()) else { return };
        if let Some(change) = holder.holdings().take_change() {
            holder.unstored = Some((core.touch(RecordKey::Holding(id)), change));
            self.unstored_holdings.insert(id);
        }
        holder.client.wake();
        while let Some(action) = holder.client.poll_action() {
            self.actions.push_back(match action {
                Action::Dial => {
                    let relay = holder.client.holdings.relay().clone();
                    let known = core.config.routing.proxies.iter().find(|proxy| proxy.address == relay);
                    let password = known.and_then(|proxy| proxy.password.as_ref());
                    holder.holdings().set_password(password.map(|password| Bytes::copy_from_slice(password)));
                    AgentAction::Dial(link, relay, Protocol::FirstStep)
                }
                Action::Close => AgentAction::Close(link),
            });
        }
        if may_send && holder.client.is_connected() && self.announced.insert(link) {
            self.actions.push_back(AgentAction::MaySend(link));
        }
        let deadline = holder.client.next_deadline();
        if deadline != holder.deadline {
            if let Some(before) = core::mem::replace(&mut holder.deadline, deadline) {
                self.deadlines.remove(&(before, link));
            }
            if let Some(at) = deadline {
                self.deadlines.insert((at, link));
            }
        }
    }

    fn holding_event(
        &mut self,
        id: ConnectionId,
        event: HoldingEvent,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        let Connections { lives, core, .. } = &mut self.connections;
        let Some(live) = lives.get_mut(&id) else { return };
        let is_given_back = match event {
            HoldingEvent::Registered(_) => {
                if let Some(holder) = &mut live.holder {
                    holder.barred = None;
                }
                return;
            }
            HoldingEvent::NotRegistered(because) => {
                let Some(holder) = &mut live.holder else { return };
                if because == NotHeld::NotSpoken {
                    self.not_holding.insert(holder.client.holdings.relay().fingerprint.clone());
                }
                let wait = if may_pass(because) { core.config.longest_delay } else { BARRED };
                holder.barred = Some(now.instant + wait);
                return;
            }
            HoldingEvent::Held { id: which, attempts, next } => {
                let message = live.outgoing.iter().find(|(sequence, ..)| sequence.0 == which.0);
                if let Some((.., outgoing)) = message
                    && outgoing.kind == OutgoingKind::Body
                {
                    let (number, next) = (outgoing.number, UnixTime(next));
                    core.event(Event::Held { connection: id, number, attempts, next });
                }
                return;
            }
            HoldingEvent::Wanted { id: which } => {
                let sequence = Sequence(which.0);
                let text = live.held_text(core, sequence);
                let is_there = text.is_some();
                if let Some(holder) = &mut live.holder {
                    holder.holdings().provide(which, text);
                }
                if !is_there {
                    // It goes to another relay by now.
                    live.handed_over.remove(&sequence);
                }
                None
            }
            HoldingEvent::Answered { id: which, result } => {
                live.held_answered(Sequence(which.0), result, core, now, entropy);
                None
            }
            HoldingEvent::Failed { id: which, because, was_held } => {
                live.held_failed(Sequence(which.0), because, was_held, core, now, entropy).then_some(because)
            }
        };
        let destination = live.holder.as_ref().map(|holder| holder.client.holdings.destination().clone());
        core.ready.insert(id);
        if let (Some(because), Some(relay)) = (is_given_back, destination) {
            let failure = CommandFailure::NotHeld(because);
            core.event(Event::NotForwarded { relay: alloc::boxed::Box::new(relay), failure });
        }
        self.connections.run(now, entropy);
    }

    /// Whether a proxy is being asked for the key of somebody's relay: with that, messages can be held later. A program
    /// that is about to end may wait for it.
    #[must_use]
    pub fn is_registering(&self) -> bool {
        !self.unstored_holdings.is_empty()
            || self.holders.values().any(|id| {
                let holder = self.connections.lives.get(id).and_then(|live| live.holder.as_ref());
                holder.is_some_and(|holder| {
                    let holdings = &holder.client.holdings;
                    holdings.wants_connection()
                        && holder.barred.is_none()
                        && (holdings.is_empty() || holdings.has_unsaid())
                })
            })
    }
}

/// Whether the proxy may hold the next time.
const fn may_pass(because: NotHeld) -> bool {
    matches!(
        because,
        NotHeld::Unreachable
            | NotHeld::Refused(
                FirstStepError::Relay(RelayFailure::Network | RelayFailure::Timeout)
                    | FirstStepError::Quota
                    | FirstStepError::Internal
                    | FirstStepError::NoKey
            )
    )
}
