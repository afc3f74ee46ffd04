//! `NKEY`, `NDEL`, `NSUB` and `NMSG`.

use super::*;

fn notified(relay: &mut Relay) -> (ConnectionId, Ids, EntityId) {
    let mut queue = relay.messaging_queue();
    relay.notify(&mut queue);
    let id = queue.notifier.clone().unwrap();
    let notifier = relay.connect();
    assert_eq!(relay.ask(notifier, &id, Command::SubscribeNotifications, Some(NOTIFIER)), Subscribed);
    (notifier, queue, id)
}

fn send(relay: &mut Relay, queue: &Ids, notification: bool) {
    let sender = relay.connect();
    assert_eq!(relay.ask(sender, &queue.sender, message(b"x", notification), None), Said::Ok);
    relay.broker.disconnect(sender);
}

const DELAY: Duration = Duration::from_millis(1500);

#[test]
fn a_notifier_is_told_of_flagged_messages_after_the_delay() {
    let mut relay = Relay::new();
    let (notifier, queue, id) = notified(&mut relay);
    send(&mut relay, &queue, false);
    send(&mut relay, &queue, true);
    send(&mut relay, &queue, true);
    relay.pass(DELAY - Duration::from_micros(1));
    assert_eq!(relay.hear(notifier), []);
    relay.pass(Duration::from_micros(1));
    let told = relay.take(notifier);
    assert_eq!(told.len(), 2);
    for (correlation, entity, said) in told {
        assert_eq!((correlation, &entity), (CorrelationId::EMPTY, &id));
        assert!(matches!(said, Said::Notification(_)));
    }
    relay.pass(DELAY * 10);
    assert_eq!(relay.hear(notifier), []);
}

#[test]
fn a_notification_names_the_message_that_the_recipient_gets() {
    let mut relay = Relay::new();
    let (notifier, queue, _) = notified(&mut relay);
    send(&mut relay, &queue, true);
    relay.pass(DELAY);
    let recipient = relay.connect();
    let said = relay.recipient(recipient, &queue, Command::Get);
    assert_eq!(relay.hear(notifier), [Said::Notification(*body_of(&said).0)]);
}

#[test]
fn a_notifier_is_told_in_the_order_of_messages_however_storage_answers() {
    let mut relay = Relay::new();
    let (notifier, queue, _) = notified(&mut relay);
    let (sender, recipient) = (relay.connect(), relay.connect());
    for body in [b"1", b"2", b"3"] {
        relay.give(sender, &queue.sender, message(body, true), None);
    }
    relay.hold();
    let held: Vec<_> = relay.held.drain(..).collect();
    for (id, action) in held.into_iter().rev() {
        let completion = relay.storage.apply(id, action);
        relay.broker.complete(completion, relay.now);
        relay.check();
    }
    relay.pass(DELAY);
    let told = relay.hear(notifier);
    assert_eq!(told.len(), 3);
    for told in told {
        let message = relay.recipient(recipient, &queue, Command::Get);
        let id = *body_of(&message).0;
        assert_eq!(told, Said::Notification(id));
        assert_eq!(relay.recipient(recipient, &queue, acknowledge(&id)), Said::Ok);
    }
}

#[test]
fn nobody_is_told_of_a_message_that_is_not_durable() {
    let mut relay = Relay::new();
    let (notifier, queue, _) = notified(&mut relay);
    send(&mut relay, &queue, true);
    let sender = relay.connect();
    relay.give(sender, &queue.sender, message(b"x", true), None);
    relay.hold();
    relay.now.instant = relay.now.instant + DELAY;
    relay.broker.handle_timeout(relay.now);
    let mut out = VecDeque::new();
    relay.broker.take_outgoing(notifier, &mut out);
    assert_eq!(out.len(), 1);
    relay.fails = |action| matches!(action, StorageAction::PutMessage { .. });
    relay.settle();
    relay.pass(DELAY);
    assert_eq!(relay.hear(notifier), []);
}

#[test]
fn news_waits_for_a_notifier_for_a_day() {
    let mut relay = Relay::new();
    let mut queue = relay.messaging_queue();
    relay.notify(&mut queue);
    let id = queue.notifier.clone().unwrap();
    send(&mut relay, &queue, true);
    relay.pass(Duration::from_secs(23 * 3600));
    send(&mut relay, &queue, true);
    relay.pass(Duration::from_secs(2 * 3600));
    let notifier = relay.connect();
    relay.ask(notifier, &id, Command::SubscribeNotifications, Some(NOTIFIER));
    relay.pass(DELAY);
    assert_eq!(relay.hear(notifier).len(), 1);
}

#[test]
fn so_many_notifications_wait_and_the_oldest_gives_way() {
    let mut relay = Relay::with(|config| config.limits.waiting_notifications = 3);
    let mut queue = relay.messaging_queue();
    relay.notify(&mut queue);
    for _ in 0..5 {
        send(&mut relay, &queue, true);
    }
    let notifier = relay.connect();
    let id = queue.notifier.unwrap();
    relay.ask(notifier, &id, Command::SubscribeNotifications, Some(NOTIFIER));
    relay.pass(DELAY);
    assert_eq!(relay.hear(notifier).len(), 3);
}

#[test]
fn at_most_eighty_notifications_wait_on_a_connection_and_the_rest_follows() {
    let mut relay = Relay::new();
    let (notifier, queue, _) = notified(&mut relay);
    for _ in 0..100 {
        send(&mut relay, &queue, true);
    }
    relay.pass(DELAY * 20);
    let mut out = VecDeque::new();
    relay.broker.take_outgoing(notifier, &mut out);
    assert_eq!(out.len(), 80);
    relay.check();
    assert_eq!(relay.hear(notifier).len(), 20);
}

#[test]
fn nsub_in_another_connection_ends_the_first() {
    let mut relay = Relay::new();
    let (first, queue, id) = notified(&mut relay);
    let second = relay.connect();
    assert_eq!(relay.ask(second, &id, Command::SubscribeNotifications, Some(NOTIFIER)), Subscribed);
    assert_eq!(relay.hear(first), [End]);
    assert_eq!(relay.ask(second, &id, Command::SubscribeNotifications, Some(NOTIFIER)), Subscribed);
    send(&mut relay, &queue, true);
    relay.pass(DELAY);
    assert_eq!(relay.hear(first), []);
    assert_eq!(relay.hear(second).len(), 1);
}

#[test]
fn nsub_with_another_key_gets_auth() {
    let mut relay = Relay::new();
    let (_, _, id) = notified(&mut relay);
    let other = relay.connect();
    assert_eq!(relay.ask(other, &id, Command::SubscribeNotifications, Some(RECIPIENT)), AUTH);
}

#[test]
fn nkey_again_replaces_the_notifier_and_tells_the_previous_one_when_it_is_durable() {
    let mut relay = Relay::new();
    let (notifier, mut queue, before) = notified(&mut relay);
    let connection = relay.connect();
    let nkey = Command::EnableNotifications(notifier_keys());
    relay.give(connection, &queue.recipient, nkey, Some(RECIPIENT));
    assert_eq!(relay.broker.poll_ready(), Some(notifier).filter(|_| false));
    assert_eq!(relay.hear(connection), [NotifierId]);
    assert_eq!(relay.take(notifier), [(CorrelationId::EMPTY, before.clone(), Deleted)]);
    relay.notify(&mut queue);
    assert_eq!(relay.ask(notifier, &before, Command::SubscribeNotifications, Some(NOTIFIER)), AUTH);
    let after = queue.notifier.unwrap();
    assert_eq!(relay.ask(notifier, &after, Command::SubscribeNotifications, Some(NOTIFIER)), Subscribed);
}

#[test]
fn ndel_removes_the_notifier_and_its_news_and_may_be_repeated() {
    let mut relay = Relay::new();
    let (notifier, queue, id) = notified(&mut relay);
    send(&mut relay, &queue, true);
    let recipient = relay.connect();
    for _ in 0..2 {
        assert_eq!(relay.recipient(recipient, &queue, Command::DisableNotifications), Said::Ok);
    }
    relay.pass(DELAY * 2);
    assert_eq!(relay.hear(notifier), [Deleted]);
    assert_eq!(relay.broker.subscriptions(notifier), 0);
    assert_eq!(relay.ask(notifier, &id, Command::SubscribeNotifications, Some(NOTIFIER)), AUTH);
    send(&mut relay, &queue, true);
}

#[test]
fn the_marker_of_a_full_queue_is_no_news() {
    let mut relay = Relay::with(|config| config.message_quota = 1);
    let (notifier, queue, _) = notified(&mut relay);
    send(&mut relay, &queue, true);
    let sender = relay.connect();
    assert_eq!(relay.ask(sender, &queue.sender, message(b"x", true), None), QUOTA);
    relay.pass(DELAY);
    assert_eq!(relay.hear(notifier).len(), 1);
}
