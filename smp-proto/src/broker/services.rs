//! Services: clients with a certificate that subscribe to many queues at once (WIRE-FACTS 4.5, 5, 14).
//!
//! A service is known by the fingerprint of its certificate, and has one role for ever. Queues become its own when it
//! subscribes to them; then one `NSUBS` is enough after every new connection. That costs the same however many queues
//! there are: news of a queue finds its way through the service, and nobody looks at queues without news.

use alloc::collections::{BTreeMap, BTreeSet};
use core::num::NonZeroU32;

use super::actions::Purpose;
use super::connections::{Address, ConnectionId};
use super::identifiers::Id;
use super::queues::{NotifierSubscription, QueueRef};
use super::record::{ServiceNumber, ServiceRecord};
use super::storage::{QueueNumber, StorageAction};
use super::{Broker, RestoreError};
use crate::crypto::ids;
use crate::entropy::Entropy;
use crate::session::outgoing::OutgoingContent;
use crate::session::service::ServiceClaim;
use crate::time::{Now, UnixTime};
use crate::wire::EntityId;
use crate::wire::hello::ServiceRole;

/// The queue of actions that concern none.
pub(super) const NO_QUEUE: QueueRef = QueueRef { slot: u32::MAX, number: QueueNumber(0) };

/// One service.
pub(super) struct Service {
    pub(super) record: ServiceRecord,
    /// Whether it is durable.
    stored: bool,
    /// Who waits until it is.
    waiting: BTreeSet<ConnectionId>,
    /// Who is subscribed to the notifications of all its queues.
    pub(super) subscriber: Option<ConnectionId>,
    /// Queues with news for it, while nobody is subscribed or the subscriber has not got to them.
    pub(super) news: BTreeSet<QueueRef>,
}

/// All services.
#[derive(Default)]
pub(super) struct Services {
    services: BTreeMap<ServiceNumber, Service>,
    by_fingerprint: BTreeMap<[u8; 32], ServiceNumber>,
}

impl Services {
    pub(super) fn get(&self, number: ServiceNumber) -> Option<&Service> {
        self.services.get(&number)
    }

    pub(super) fn get_mut(&mut self, number: ServiceNumber) -> Option<&mut Service> {
        self.services.get_mut(&number)
    }

    fn insert(&mut self, number: ServiceNumber, record: ServiceRecord, stored: bool) {
        self.by_fingerprint.insert(record.fingerprint, number);
        let (waiting, news) = (BTreeSet::new(), BTreeSet::new());
        self.services.insert(number, Service { record, stored, waiting, subscriber: None, news });
    }

    fn remove(&mut self, number: ServiceNumber) -> Option<Service> {
        let service = self.services.remove(&number)?;
        self.by_fingerprint.remove(&service.record.fingerprint);
        Some(service)
    }

    fn next_number(&self) -> Option<ServiceNumber> {
        let last = self.services.last_key_value().map_or(0, |(number, _)| number.0.get());
        NonZeroU32::new(last.checked_add(1)?).map(ServiceNumber)
    }

    /// All services, in order: for digests.
    pub(super) fn all(&self) -> impl Iterator<Item = (&ServiceNumber, &Service)> {
        self.services.iter()
    }
}

impl Broker {
    /// Takes over a stored service, at start and before any queue.
    ///
    /// # Errors
    /// [`RestoreError::IdInUse`] when another service has its number or certificate.
    pub fn restore_service(
        &mut self,
        number: ServiceNumber,
        record: ServiceRecord,
    ) -> Result<(), RestoreError> {
        if self.services.get(number).is_some()
            || self.services.by_fingerprint.contains_key(&record.fingerprint)
        {
            return Err(RestoreError::IdInUse);
        }
        self.services.insert(number, record, true);
        Ok(())
    }

    /// A connection's session has verified that the client is a service. The answer, whether it may be, is the first that
    /// is said on the connection; until then no command may come.
    pub fn identify_service(
        &mut self,
        connection: ConnectionId,
        claim: &ServiceClaim,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        if let Some(number) = self.services.by_fingerprint.get(&claim.fingerprint).copied() {
            let Some(service) = self.services.get_mut(number) else { return };
            if service.record.role != claim.role {
                self.answer_service(connection, None);
            } else if service.stored {
                let id = service.record.id;
                self.answer_service(connection, Some((number, id)));
            } else {
                service.waiting.insert(connection);
            }
            return;
        }
        let full = self.services.services.len() >= self.config.limits.services as usize;
        let Some(number) = self.services.next_number().filter(|_| !full) else {
            self.answer_service(connection, None);
            return;
        };
        let record = ServiceRecord {
            id: ids::random(entropy),
            role: claim.role,
            fingerprint: claim.fingerprint,
            created: UnixTime(now.wall.0.div_euclid(86_400).saturating_mul(86_400)),
        };
        self.services.insert(number, record.clone(), false);
        if let Some(service) = self.services.get_mut(number) {
            service.waiting.insert(connection);
        }
        self.emit(
            NO_QUEUE,
            Purpose::PutService(number),
            StorageAction::PutService { service: number, record },
        );
    }

    /// A new service is durable, or could not be stored.
    pub(super) fn service_stored(&mut self, number: ServiceNumber, stored: bool) {
        let Some(service) = self.services.get_mut(number) else { return };
        service.stored = stored;
        let waiting = core::mem::take(&mut service.waiting);
        let accepted = stored.then_some((number, service.record.id));
        if !stored {
            self.services.remove(number);
        }
        for connection in waiting {
            self.answer_service(connection, accepted);
        }
    }

    fn answer_service(&mut self, connection: ConnectionId, accepted: Option<(ServiceNumber, Id)>) {
        if let Some(connection) = self.connections.get_mut(connection) {
            connection.service = accepted.map(|(number, _)| number);
        }
        let content = match accepted {
            Some((_, id)) => OutgoingContent::ServiceAccepted(id),
            None => OutgoingContent::ServiceRefused,
        };
        self.connections.tell(connection, EntityId::EMPTY, content);
    }

    /// The service of a connection, with its id and role.
    pub(super) fn service_of(&self, connection: ConnectionId) -> Option<(ServiceNumber, Id, ServiceRole)> {
        let number = self.connections.get(connection)?.service?;
        let record = &self.services.get(number)?.record;
        Some((number, record.id, record.role))
    }

    /// The same, if it is told of messages.
    pub(super) fn notifier_service_of(&self, connection: ConnectionId) -> Option<(ServiceNumber, Id)> {
        self.service_of(connection)
            .filter(|(_, _, role)| *role == ServiceRole::Notifier)
            .map(|(number, id, _)| (number, id))
    }

    /// The same, if it receives messages.
    pub(super) fn messaging_service_of(&self, connection: ConnectionId) -> Option<(ServiceNumber, Id)> {
        self.service_of(connection)
            .filter(|(_, _, role)| *role == ServiceRole::Messaging)
            .map(|(number, id, _)| (number, id))
    }

    /// `NSUBS`: the connection is told of the messages of all queues of its service. Who was so far gets `ENDS`.
    pub(super) fn subscribe_service(&mut self, to: Address, now: Now) -> Result<(), super::SmpError> {
        let (number, id) = self.notifier_service_of(to.connection).ok_or(super::SmpError::Authorization)?;
        if to.entity.as_bytes() != id {
            return Err(super::SmpError::Authorization);
        }
        let count = i64::try_from(self.queues.notified_by(number)).unwrap_or(i64::MAX);
        let Some(service) = self.services.get_mut(number) else { return Err(super::SmpError::Authorization) };
        let previous = service.subscriber.replace(to.connection).filter(|before| *before != to.connection);
        let entity = to.entity.clone();
        let connection = to.connection;
        self.connections.say(to, OutgoingContent::ServiceSubscribed(count));
        if let Some(previous) = previous {
            self.connections.tell(previous, entity, OutgoingContent::ServiceEnd(count));
        }
        self.schedule_service_news(number, connection, now);
        Ok(())
    }

    /// A queue has news, and nobody is subscribed to it alone: its service, if it has one, gets to know.
    pub(super) fn hand_to_service(&mut self, at: QueueRef, now: Now) {
        let Some(number) = self.queues.at(at).and_then(|queue| queue.record.notifier.as_ref()?.service)
        else {
            return;
        };
        let Some(service) = self.services.get_mut(number) else { return };
        service.news.insert(at);
        if let Some(subscriber) = service.subscriber {
            self.schedule_service_news(number, subscriber, now);
        }
    }

    /// Plans to tell a service's subscriber what there is.
    fn schedule_service_news(&mut self, number: ServiceNumber, id: ConnectionId, now: Now) {
        if self.services.get(number).is_none_or(|service| service.news.is_empty()) {
            return;
        }
        let due = now.instant + self.config.notification_delay;
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.news_at.is_none() && !connection.news_paused {
            connection.news_at = Some(due);
            self.news_at.insert((due, id));
        }
    }

    /// The next queue with news for a connection that is subscribed as a service: from now on it is subscribed to that
    /// queue like anybody.
    pub(super) fn next_of_service(&mut self, id: ConnectionId) -> Option<QueueRef> {
        let number = self.connections.get(id)?.service?;
        loop {
            let service = self.services.get_mut(number).filter(|one| one.subscriber == Some(id))?;
            let at = service.news.pop_first()?;
            let Some(queue) = self.queues.at(at) else { continue };
            let Some(notifier) = queue.record.notifier.as_ref().filter(|one| one.service == Some(number))
            else {
                continue;
            };
            let notifier = notifier.notifier;
            let activity = queue.activity_mut();
            if activity.news.is_empty() || activity.notifier.is_some() {
                queue.rest();
                continue;
            }
            activity.notifier = Some(NotifierSubscription { connection: id, notifier });
            activity.news_listed = true;
            if let Some(connection) = self.connections.get_mut(id) {
                connection.notified.insert(at.slot);
                connection.news.push_back(at);
            }
            return Some(at);
        }
    }

    /// Whether a connection that is subscribed as a service has more news than it knows of.
    pub(super) fn service_has_news(&self, id: ConnectionId) -> bool {
        self.connections
            .get(id)
            .and_then(|connection| self.services.get(connection.service?))
            .is_some_and(|service| service.subscriber == Some(id) && !service.news.is_empty())
    }

    /// A connection is gone: what its service has not been told waits for the next one.
    pub(super) fn leave_service(
        &mut self,
        id: ConnectionId,
        number: Option<ServiceNumber>,
        untold: &[QueueRef],
    ) {
        if let Some(service) = number.and_then(|number| self.services.get_mut(number)) {
            service.waiting.remove(&id);
            if service.subscriber == Some(id) {
                service.subscriber = None;
            }
        }
        for at in untold {
            let of = self.queues.at(*at).and_then(|queue| queue.record.notifier.as_ref()?.service);
            if let Some(service) = of.and_then(|number| self.services.get_mut(number)) {
                service.news.insert(*at);
            }
        }
    }

    /// Whether the connection is subscribed to all queues of its service.
    pub(super) fn is_service_subscriber(&self, id: ConnectionId) -> bool {
        self.connections
            .get(id)
            .and_then(|connection| self.services.get(connection.service?))
            .is_some_and(|service| service.subscriber == Some(id))
    }
}
