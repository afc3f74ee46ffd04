//! Services: who is one, and `NSUBS`.

use super::*;
use crate::session::service::ServiceClaim;
use crate::wire::hello::ServiceRole;

impl Relay {
    /// A connection of the service with this certificate, and what the relay says to it.
    fn service(&mut self, certificate: u8, role: ServiceRole) -> (ConnectionId, Said) {
        let connection = self.connect();
        let key = Ed25519Public([certificate; 32]);
        let claim = ServiceClaim { role, fingerprint: [certificate; 32], key };
        self.broker.identify_service(connection, &claim, self.now, &mut self.entropy);
        self.check();
        let mut said = self.hear(connection);
        assert_eq!(said.len(), 1);
        (connection, said.pop().unwrap())
    }

    /// A connection of an accepted service, and its id.
    fn notifier_service(&mut self) -> (ConnectionId, [u8; 24]) {
        match self.service(1, ServiceRole::Notifier) {
            (connection, Said::ServiceAccepted(id)) => (connection, id),
            other => panic!("{other:?}"),
        }
    }

    /// A queue with a notifier.
    fn notified_queue(&mut self) -> Ids {
        let mut queue = self.messaging_queue();
        self.notify(&mut queue);
        queue
    }

    fn nsub(&mut self, from: ConnectionId, queue: &Ids) -> Said {
        let notifier = queue.notifier.clone().unwrap();
        self.ask(from, &notifier, Command::SubscribeNotifications, Some(NOTIFIER))
    }

    fn nsubs(&mut self, from: ConnectionId, id: [u8; 24]) -> Said {
        self.ask(from, &id.into(), Command::SubscribeServiceNotifications, Some(1))
    }

    /// A message with news of it.
    fn tell(&mut self, queue: &Ids) {
        let sender = self.connect();
        let said = self.ask(sender, &queue.sender, message(b"x", true), None);
        assert_eq!(said, Said::Ok);
        self.broker.disconnect(sender);
    }

    /// How many notifications come within a minute.
    fn notifications(&mut self, connection: ConnectionId) -> usize {
        self.pass(Duration::from_secs(60));
        let said = self.hear(connection);
        assert!(said.iter().all(|said| matches!(said, Said::Notification(_))), "{said:?}");
        said.len()
    }
}

#[test]
fn a_service_has_one_id_and_one_role_for_ever() {
    let mut relay = Relay::new();
    let (_, id) = relay.notifier_service();
    for _ in 0..2 {
        assert_eq!(relay.service(1, ServiceRole::Notifier).1, Said::ServiceAccepted(id));
        assert_eq!(relay.service(1, ServiceRole::Proxy).1, Said::ServiceRefused);
        relay.restart();
    }
    let other = relay.service(2, ServiceRole::Proxy).1;
    assert!(matches!(other, Said::ServiceAccepted(other) if other != id), "{other:?}");
}

#[test]
fn a_new_service_is_accepted_when_it_is_durable_and_its_other_connections_wait_with_it() {
    let mut relay = Relay::new();
    let connections = [relay.connect(), relay.connect()];
    let key = Ed25519Public([1; 32]);
    let claim = ServiceClaim { role: ServiceRole::Notifier, fingerprint: [1; 32], key };
    for connection in connections {
        relay.broker.identify_service(connection, &claim, relay.now, &mut relay.entropy);
        assert_eq!(relay.take(connection), []);
    }
    let said = connections.map(|connection| relay.hear(connection));
    assert_eq!(said[0], said[1]);
    assert!(matches!(said[0][..], [Said::ServiceAccepted(_)]));
}

#[test]
fn a_service_that_cannot_be_stored_is_refused_and_may_come_again() {
    let mut relay = Relay::new();
    relay.fails = |action| matches!(action, StorageAction::PutService { .. });
    assert_eq!(relay.service(1, ServiceRole::Notifier).1, Said::ServiceRefused);
    relay.fails = |_| false;
    relay.notifier_service();
}

#[test]
fn there_are_no_more_services_than_allowed() {
    let mut relay = Relay::with(|config| config.limits.services = 2);
    for certificate in [1, 2] {
        assert!(matches!(relay.service(certificate, ServiceRole::Notifier).1, Said::ServiceAccepted(_)));
    }
    assert_eq!(relay.service(3, ServiceRole::Notifier).1, Said::ServiceRefused);
    assert!(matches!(relay.service(2, ServiceRole::Notifier).1, Said::ServiceAccepted(_)));
}

#[test]
fn a_queue_that_a_service_subscribes_to_is_its_own() {
    let mut relay = Relay::new();
    let (service, id) = relay.notifier_service();
    let queues = [relay.notified_queue(), relay.notified_queue()];
    assert_eq!(relay.nsubs(service, id), Said::ServiceSubscribed(0));
    for queue in &queues {
        assert_eq!(relay.nsub(service, queue), Said::SubscribedService(id));
        assert_eq!(relay.nsub(service, queue), Said::SubscribedService(id));
        relay.tell(queue);
    }
    assert_eq!(relay.notifications(service), 2);
    relay.restart();
    let (service, _) = relay.notifier_service();
    relay.tell(&queues[0]);
    assert_eq!(relay.nsubs(service, id), Said::ServiceSubscribed(2));
    relay.tell(&queues[1]);
    relay.tell(&queues[1]);
    assert_eq!(relay.notifications(service), 3);
    assert!(relay.broker.subscriptions(service) > 0);
}

#[test]
fn what_a_service_was_not_told_waits_for_its_next_connection() {
    let mut relay = Relay::new();
    let (first, id) = relay.notifier_service();
    let queues: Vec<Ids> = (0..200).map(|_| relay.notified_queue()).collect();
    for queue in &queues {
        assert_eq!(relay.nsub(first, queue), Said::SubscribedService(id));
        relay.tell(queue);
    }
    // The connection breaks before anything is sent.
    relay.broker.disconnect(first);
    relay.check();
    relay.tell(&queues[0]);
    let (second, _) = relay.notifier_service();
    assert_eq!(relay.nsubs(second, id), Said::ServiceSubscribed(200));
    let mut count = 0;
    for _ in 0..5 {
        count += relay.notifications(second);
    }
    assert_eq!(count, 201);
}

#[test]
fn the_last_connection_of_a_service_is_told_and_the_one_before_hears_of_it() {
    let mut relay = Relay::new();
    let (first, id) = relay.notifier_service();
    let queue = relay.notified_queue();
    relay.nsub(first, &queue);
    assert_eq!(relay.nsubs(first, id), Said::ServiceSubscribed(1));
    assert_eq!(relay.nsubs(first, id), Said::ServiceSubscribed(1));
    let (second, _) = relay.notifier_service();
    assert_eq!(relay.nsubs(second, id), Said::ServiceSubscribed(1));
    assert_eq!(relay.hear(first), [Said::ServiceEnd(1)]);
}

#[test]
fn whoever_else_subscribes_takes_the_queue_from_the_service() {
    let mut relay = Relay::new();
    let (service, id) = relay.notifier_service();
    let queue = relay.notified_queue();
    relay.nsub(service, &queue);
    assert_eq!(relay.nsubs(service, id), Said::ServiceSubscribed(1));
    let other = relay.connect();
    assert_eq!(relay.nsub(other, &queue), Subscribed);
    assert_eq!(relay.hear(service), [End]);
    assert_eq!(relay.nsubs(service, id), Said::ServiceSubscribed(0));
    relay.tell(&queue);
    assert_eq!(relay.notifications(service), 0);
    assert_eq!(relay.notifications(other), 1);
}

#[test]
fn a_queue_that_is_deleted_or_has_another_notifier_is_the_services_no_more() {
    let mut relay = Relay::new();
    let (service, id) = relay.notifier_service();
    let mut queue = relay.notified_queue();
    relay.nsub(service, &queue);
    relay.notify(&mut queue);
    assert_eq!(relay.hear(service), [Deleted]);
    assert_eq!(relay.nsubs(service, id), Said::ServiceSubscribed(0));
    relay.nsub(service, &queue);
    assert_eq!(relay.nsubs(service, id), Said::ServiceSubscribed(1));
    let owner = relay.connect();
    assert_eq!(relay.recipient(owner, &queue, Command::Delete), Said::Ok);
    assert_eq!(relay.hear(service), [Deleted]);
    assert_eq!(relay.nsubs(service, id), Said::ServiceSubscribed(0));
}

#[test]
fn service_subscriptions_are_for_services() {
    let mut relay = Relay::new();
    let (service, id) = relay.notifier_service();
    let nobody = relay.connect();
    assert_eq!(relay.nsubs(nobody, id), AUTH);
    assert_eq!(relay.nsubs(service, [9; 24]), AUTH);
    // Services receive messages from v19 on.
    assert_eq!(relay.ask(service, &id.into(), Command::SubscribeService, Some(1)), PROHIBITED);
    let (messaging, _) = relay.service(2, ServiceRole::Messaging);
    let new = new_queue(Some(QueueMode::Messaging), SubscriptionMode::CreateOnly);
    assert_eq!(relay.try_new(messaging, new).0, PROHIBITED);
    let new = new_queue(Some(QueueMode::Messaging), SubscriptionMode::Subscribe);
    assert_eq!(relay.try_new(messaging, new).0, Created);
}

#[test]
fn an_association_that_cannot_be_stored_does_not_hold() {
    let mut relay = Relay::new();
    let (service, id) = relay.notifier_service();
    let queue = relay.notified_queue();
    relay.fails = |action| matches!(action, StorageAction::PutQueue { .. });
    assert_eq!(relay.nsub(service, &queue), store_failed());
    relay.fails = |_| false;
    assert_eq!(relay.nsubs(service, id), Said::ServiceSubscribed(0));
    assert_eq!(relay.nsub(service, &queue), Said::SubscribedService(id));
    assert_eq!(relay.nsubs(service, id), Said::ServiceSubscribed(1));
}
