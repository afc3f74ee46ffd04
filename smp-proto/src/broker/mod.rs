//! What a relay knows and decides: queues, subscriptions, delivery, notifications (WIRE-FACTS 7 and 9).
//!
//! The broker owns every queue's record, the marks of its waiting messages, and who is subscribed; never a message body
//! at rest, a socket, a session key or a file. It is cheap by construction: no cryptography (sessions make the keys and
//! verify), no scan over connections or queues. Drivers that use several threads hold it in one lock, and hold that
//! lock only for the calls below.
//!
//! Inputs: [`Broker::connect`], [`Broker::disconnect`], [`Broker::look_up`], [`Broker::execute`] (only what is
//! [`Verified`]), [`Broker::complete`] (storage), [`Broker::handle_timeout`].
//! Outputs: [`Broker::poll_storage`], [`Broker::poll_ready`] and [`Broker::take_outgoing`].
//!
//! Persist, then speak: an answer that implies durability is withheld until its storage action has completed.
//!
//! What a client wants forwarded is handed to the [`proxy`](crate::proxy) ([`Broker::poll_proxy_request`]), whose answers come
//! back ([`Broker::answer_proxied`]).
//!
//! Commands that this relay does not offer (services that receive messages, proxy when it is off) parse at any version; they are
//! answered `CMD PROHIBITED`, and only when they verify: unknown and forbidden stay the same.

mod actions;
mod blobs;
mod blocking;
mod commands;
mod completions;
mod configuration;
mod connections;
mod delivery;
mod expiry;
mod identifiers;
mod inspection;
mod notifications;
mod proxying;
mod queues;
pub mod record;
mod recovery;
mod services;
pub mod storage;
#[cfg(test)]
mod tests;
mod waiting;

use alloc::boxed::Box;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use self::actions::Actions;
use self::blobs::{Blobs, owners_name, readers_name};
pub use self::blocking::BlockError;
pub use self::configuration::{BrokerConfig, Limits};
use self::connections::{Address, Connections};
pub use self::connections::{COMMANDS_IN_A_BLOCK, ConnectionId};
use self::expiry::{Calendar, ExpiryClock};
use self::identifiers::HashKey;
pub use self::inspection::{Inconsistency, Statistics};
pub use self::proxying::{Asked, ProxyAnswer, ProxyRequest, ProxyTicket};
use self::queues::{Acknowledgement, Health, Queue, QueueRef, Queues};
use self::record::RecipientKeys;
use self::services::Services;
use self::storage::{ActionId, QueueNumber, StorageAction, StoredQueue};
use self::waiting::Waiting;
use crate::entropy::Entropy;
use crate::session::OpenedBlock;
use crate::session::outgoing::{Outgoing, OutgoingContent};
use crate::session::request::{Authority, Outcome, Request, Verified};
use crate::time::{Duration, Instant, Now};
use crate::wire::command::Command;
use crate::wire::error::SmpError;

/// How often the expiry calendars are looked at.
const CALENDAR_INTERVAL: Duration = Duration::from_secs(60);

/// The state of a relay. See the module's documentation.
pub struct Broker {
    config: BrokerConfig,
    queues: Queues,
    connections: Connections,
    services: Services,
    blobs: Blobs,
    actions: Actions,
    /// What clients want of the proxy.
    proxy_requests: VecDeque<ProxyRequest>,
    next_number: u64,
    /// Queues with messages.
    calendar: Calendar,
    /// Queues with news for notifiers.
    news_calendar: Calendar,
    /// Queues between two that nobody has secured, each once.
    unsecured_calendar: Option<Calendar>,
    calendar_at: Instant,
    expiry_clock: ExpiryClock,
    /// Connections whose gathered notifications are due.
    news_at: BTreeSet<(Instant, ConnectionId)>,
    /// Queues in doubt that are to be read again.
    restore_at: BTreeSet<(Instant, QueueRef)>,
    /// Boxes of acknowledgements that were answered, for those that come.
    #[expect(clippy::vec_box, reason = "the boxes are what is kept")]
    spare_acknowledgements: Vec<Box<Acknowledgement>>,
}

/// Why a connection is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyConnections;

impl core::fmt::Display for TooManyConnections {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("the relay has as many connections as its configuration allows")
    }
}

impl core::error::Error for TooManyConnections {}

/// Why a stored queue cannot be taken over at start: storage is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// Another queue has one of its ids.
    IdInUse,
    /// Its messages are not in order.
    Disorder,
    /// There are more queues than [`Limits::queues`].
    TooManyQueues,
}

impl core::fmt::Display for RestoreError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str(match self {
            Self::IdInUse => "two stored queues have the same id: storage is damaged",
            Self::Disorder => "a stored queue's messages are not in order: storage is damaged",
            Self::TooManyQueues => "storage has more queues than the configured limit: raise the limit",
        })
    }
}

impl core::error::Error for RestoreError {}

impl Broker {
    /// A relay without queues. Entropy seeds the hash of ids.
    #[must_use]
    pub fn new(mut config: BrokerConfig, entropy: &mut (impl Entropy + ?Sized)) -> Self {
        // Without any, nothing would ever be delivered.
        config.limits.deliveries_in_flight = config.limits.deliveries_in_flight.max(1);
        Self {
            calendar: Calendar::new(config.message_time_to_live),
            news_calendar: Calendar::new(config.notification_time_to_live),
            unsecured_calendar: config.unsecured_time_to_live.map(Calendar::new),
            calendar_at: Instant::START,
            expiry_clock: ExpiryClock::default(),
            config,
            queues: Queues::new(HashKey::new(entropy)),
            connections: Connections::default(),
            services: Services::default(),
            blobs: Blobs::default(),
            actions: Actions::default(),
            proxy_requests: VecDeque::new(),
            next_number: 1,
            news_at: BTreeSet::new(),
            restore_at: BTreeSet::new(),
            spare_acknowledgements: Vec::new(),
        }
    }

    /// The rules of this relay.
    #[must_use]
    pub const fn config(&self) -> &BrokerConfig {
        &self.config
    }

    /// Takes over a stored queue, at start and before any connection.
    ///
    /// # Errors
    /// [`RestoreError`] when storage holds what no relay has written; the queue is then left out.
    pub fn restore(&mut self, stored: StoredQueue) -> Result<(), RestoreError> {
        let StoredQueue { queue: number, record, messages } = stored;
        if self.queues.len() >= self.config.limits.queues as usize {
            return Err(RestoreError::TooManyQueues);
        }
        let notifier = record.notifier.as_ref().map(|notifier| notifier.notifier);
        let link = record.link.as_ref().map(|link| link.link);
        let ids = [Some(record.recipient), Some(record.sender), notifier, link];
        let mut before = ids.iter().flatten();
        while let Some(id) = before.next() {
            if self.queues.knows(id) || before.clone().any(|other| other == id) {
                return Err(RestoreError::IdInUse);
            }
        }
        if !messages.is_sorted_by(|(one, _), (other, _)| one < other) {
            return Err(RestoreError::Disorder);
        }
        self.next_number = self.next_number.max(number.0.saturating_add(1));
        let next_sequence = messages.last().map_or(0, |(last, _)| last.0.saturating_add(1));
        let at = self.queues.insert(Queue::new(number, record, next_sequence));
        self.watch_unsecured(at);
        if !messages.is_empty()
            && let Some(queue) = self.queues.at(at)
        {
            queue.activity_mut().messages = messages
                .into_iter()
                .map(|(sequence, mark)| Waiting { sequence, mark, stored: true })
                .collect();
            self.enter_calendar(at);
        }
        Ok(())
    }

    /// Accepts a connection.
    ///
    /// # Errors
    /// [`TooManyConnections`] at [`Limits::connections`].
    pub fn connect(&mut self, _now: Now) -> Result<ConnectionId, TooManyConnections> {
        if self.connections.count() >= self.config.limits.connections {
            return Err(TooManyConnections);
        }
        Ok(self.connections.open())
    }

    /// Forgets a connection: its subscriptions end, and what it was owed is dropped.
    pub fn disconnect(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.close(id) else { return };
        if let Some(at) = connection.news_at {
            self.news_at.remove(&(at, id));
        }
        for slot in connection.subscribed {
            if let Some(queue) = self.queues.get_mut(slot)
                && let Some(activity) = &mut queue.activity
                && activity.is_subscribed(id)
            {
                activity.subscription = None;
                queue.rest();
            }
        }
        for slot in connection.getting {
            if let Some(queue) = self.queues.get_mut(slot)
                && let Some(activity) = &mut queue.activity
            {
                activity.getters.retain(|getter| getter.connection != id);
                queue.rest();
            }
        }
        let mut untold = Vec::new();
        for slot in connection.notified {
            if let Some(queue) = self.queues.get_mut(slot)
                && let Some(activity) = &mut queue.activity
                && activity.is_notified(id)
            {
                activity.notifier = None;
                activity.news_listed = false;
                if !activity.news.is_empty() {
                    untold.push(queue.reference(slot));
                }
                queue.rest();
            }
        }
        self.leave_service(id, connection.service, &untold);
    }

    /// Whether the connection is open.
    #[must_use]
    pub fn knows(&self, connection: ConnectionId) -> bool {
        self.connections.get(connection).is_some()
    }

    /// Whether the answers to one more block fit. While they do not, the driver reads nothing more from the connection.
    #[must_use]
    pub fn has_room(&self, connection: ConnectionId) -> bool {
        self.connections.get(connection).is_some_and(|connection| {
            connection.has_room(self.config.limits.commands_in_flight)
                && connection.proxied.has_room(self.config.proxied_at_once)
        })
    }

    /// To how many queues, of either kind, the connection is subscribed: one without any may be inactive.
    #[must_use]
    pub fn subscriptions(&self, connection: ConnectionId) -> usize {
        self.connections
            .get(connection)
            .map_or(0, |connection| connection.subscribed.len() + connection.notified.len())
            + usize::from(self.is_service_subscriber(connection))
    }

    /// Says who may send a command: fills in the request's [`Authority`]. Costs one lookup, whatever the command.
    pub fn look_up(&self, request: &mut Request<'_>) {
        let Request::Command { transmission, authority } = request else { return };
        let id = transmission.entity.as_full();
        *authority = match &transmission.content {
            Command::Ping
            | Command::ProxyConnect { .. }
            | Command::ProxyForward { .. }
            | Command::RelayForward { .. } => Authority::Nobody,
            // Also for a queue that nobody knows: a session remembers what it has computed for a key that is right, so that
            // with this key here, and another in its place there, the second attempt would cost less where there is a queue.
            Command::New(_) | Command::SecureBySender(_) | Command::SecureByLink(_) => {
                Authority::KeyInCommand
            }
            Command::Send { .. } => {
                match id.and_then(|id| self.queues.by_sender(id)).and_then(|slot| self.present(slot)) {
                    None => Authority::Unknown,
                    Some(queue) => queue.record.sender_key.map_or(Authority::Unsecured, Authority::Key),
                }
            }
            Command::SubscribeNotifications => {
                let queue = id.and_then(|id| self.queues.by_notifier(id)).and_then(|slot| self.present(slot));
                match queue.and_then(|queue| queue.record.notifier.as_ref()) {
                    None => Authority::Unknown,
                    Some(notifier) => Authority::Key(notifier.key),
                }
            }
            Command::GetLink => {
                match id.and_then(|id| self.queues.by_link(id)).and_then(|slot| self.present(slot)) {
                    None => Authority::Unknown,
                    Some(_) => Authority::Nobody,
                }
            }
            Command::SubscribeService | Command::SubscribeServiceNotifications => Authority::Service,
            Command::WriteBlob { .. } => {
                let id = owners_name(&transmission.entity);
                id.and_then(|id| self.blobs.key(&id)).map_or(Authority::KeyInCommand, Authority::Key)
            }
            Command::ClearBlob => {
                let id = owners_name(&transmission.entity);
                id.and_then(|id| self.blobs.key(&id)).map_or(Authority::Unknown, Authority::Key)
            }
            Command::ReadBlob => {
                let found = readers_name(&transmission.entity).filter(|(_, id)| self.blobs.is_readable(id));
                found.map_or(Authority::Unknown, |_| Authority::Nobody)
            }
            _ => match id.and_then(|id| self.queues.by_recipient(id)).and_then(|slot| self.present(slot)) {
                None => Authority::Unknown,
                Some(queue) => match &queue.record.recipient_keys {
                    RecipientKeys::One(key) => Authority::Key(*key),
                    RecipientKeys::Several(keys) => Authority::AnyOf(Arc::from(&**keys)),
                },
            },
        };
    }

    /// The queue in a slot, unless it is being created or deleted.
    fn present(&self, slot: u32) -> Option<&Queue> {
        self.queues.get(slot).filter(|queue| queue.health.is_present())
    }

    /// Executes a verified command, or answers the error that verification found. `block` is the block that it came in:
    /// a message body is shared with it, not copied.
    pub fn execute(
        &mut self,
        connection: ConnectionId,
        verified: Verified<'_>,
        block: &OpenedBlock,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        let Verified { correlation, entity, outcome, forwarded } = verified;
        if self.connections.get(connection).is_none() {
            return;
        }
        let to = Address { connection, correlation, entity, forwarded };
        match outcome {
            Outcome::Refuse(error) => self.connections.say(to, OutgoingContent::Error(error)),
            // A mistake of the driver: the command in it was to be executed.
            Outcome::Forwarded(_) => self.connections.say(to, OutgoingContent::Error(SmpError::Internal)),
            Outcome::Execute { command, key, prepared } => {
                self.execute_command(to, command, key, prepared, block, now, entropy);
            }
        }
    }

    /// The next action for storage.
    pub fn poll_storage(&mut self) -> Option<(ActionId, StorageAction)> {
        self.actions.poll()
    }

    /// A connection that has something to say, each once until it has more. A driver with bells rings them.
    pub fn poll_ready(&mut self) -> Option<ConnectionId> {
        self.connections.poll_ready()
    }

    /// Moves what is to be said on a connection to `out`. To be called when the connection can send: what has been
    /// taken counts as sent, and the next message bodies are fetched for it.
    pub fn take_outgoing(&mut self, connection: ConnectionId, out: &mut VecDeque<Outgoing>) {
        self.connections.take(connection, out);
        self.deliver_queued(connection);
        self.send_paused_news(connection);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let news = self.news_at.first().map(|(at, _)| *at);
        let restore = self.restore_at.first().map(|(at, _)| *at);
        [self.expiry_deadline(), news, restore].into_iter().flatten().min()
    }

    /// Does what is due: sends gathered notifications, expires messages, reads queues in doubt again. The work of one
    /// call is bounded; what is left is due at once.
    pub fn handle_timeout(&mut self, now: Now) {
        self.send_due_news(now);
        self.restore_due(now);
        self.expire_due(now);
    }

    /// A fresh number for a queue.
    const fn take_number(&mut self) -> QueueNumber {
        let number = QueueNumber(self.next_number);
        self.next_number += 1;
        number
    }
}

impl core::fmt::Debug for Broker {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter
            .debug_struct("Broker")
            .field("queues", &self.queues.len())
            .field("connections", &self.connections.count())
            .finish_non_exhaustive()
    }
}
