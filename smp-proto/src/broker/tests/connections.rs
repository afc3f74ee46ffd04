//! Connections: their bounds, what they hold, and what happens when they go.

use super::*;

#[test]
fn so_many_connections_and_no_more() {
    let mut relay = Relay::with(|config| config.limits.connections = 2);
    let first = relay.connect();
    relay.connect();
    assert_eq!(relay.broker.connect(relay.now), Err(super::super::TooManyConnections));
    relay.broker.disconnect(first);
    let third = relay.connect();
    assert_ne!(first, third);
    assert!(!relay.broker.knows(first));
    relay.broker.disconnect(first);
    assert!(relay.broker.knows(third));
}

#[test]
fn a_connection_that_is_gone_is_said_nothing_and_holds_nothing() {
    let mut relay = Relay::new();
    let mut queue = relay.messaging_queue();
    relay.notify(&mut queue);
    let connection = relay.connect();
    let notifier = queue.notifier.clone().unwrap();
    relay.recipient(connection, &queue, Command::Subscribe);
    relay.ask(connection, &notifier, Command::SubscribeNotifications, Some(NOTIFIER));
    relay.give(connection, &queue.sender, message(b"one", true), None);
    relay.broker.disconnect(connection);
    relay.check();
    relay.settle();
    assert_eq!(relay.broker.poll_ready(), None);
    relay.give(connection, &EntityId::EMPTY, Command::Ping, None);
    assert_eq!(relay.broker.poll_ready(), None);
    // The message was accepted all the same, and waits.
    let again = relay.connect();
    relay.give(again, &queue.recipient, Command::Subscribe, Some(RECIPIENT));
    assert_eq!(body_of(&relay.hear(again)[1]).1, b"one");
}

#[test]
fn a_ready_connection_is_told_once_until_it_has_more() {
    let mut relay = Relay::new();
    let connection = relay.connect();
    relay.give(connection, &EntityId::EMPTY, Command::Ping, None);
    relay.give(connection, &EntityId::EMPTY, Command::Ping, None);
    assert_eq!(relay.broker.poll_ready(), Some(connection));
    assert_eq!(relay.broker.poll_ready(), None);
    assert_eq!(relay.hear(connection), [Pong, Pong]);
    assert_eq!(relay.broker.poll_ready(), None);
}

#[test]
fn a_block_is_welcome_only_while_all_its_answers_fit() {
    let mut relay = Relay::with(|config| config.limits.commands_in_flight = 300);
    let connection = relay.connect();
    for _ in 0..45 {
        assert!(relay.broker.has_room(connection));
        relay.give(connection, &EntityId::EMPTY, Command::Ping, None);
    }
    assert!(relay.broker.has_room(connection));
    relay.give(connection, &EntityId::EMPTY, Command::Ping, None);
    assert!(!relay.broker.has_room(connection));
    assert_eq!(relay.hear(connection).len(), 46);
    assert!(relay.broker.has_room(connection));
    // Answers that wait for storage count, too.
    let queue = relay.messaging_queue();
    for _ in 0..46 {
        relay.give(connection, &queue.sender, message(b"x", false), None);
    }
    assert!(!relay.broker.has_room(connection));
    relay.hear(connection);
    assert!(relay.broker.has_room(connection));
}

#[test]
fn there_is_room_for_one_block_whatever_the_limit() {
    let mut relay = Relay::with(|config| config.limits.commands_in_flight = 1);
    let connection = relay.connect();
    assert!(relay.broker.has_room(connection));
    relay.give(connection, &EntityId::EMPTY, Command::Ping, None);
    assert!(!relay.broker.has_room(connection));
}

/// A connection that is subscribed to so many queues, each with two messages.
fn behind(relay: &mut Relay, count: usize) -> (ConnectionId, Vec<Ids>) {
    let queues: Vec<_> = (0..count).map(|_| relay.messaging_queue()).collect();
    for queue in &queues {
        relay.send(queue, b"one");
        relay.send(queue, b"two");
    }
    let recipient = relay.connect();
    for queue in &queues {
        relay.give(recipient, &queue.recipient, Command::Subscribe, Some(RECIPIENT));
    }
    (recipient, queues)
}

fn bodies_in_memory(relay: &Relay, connection: ConnectionId) -> u16 {
    relay.broker.connections.get(connection).unwrap().bodies
}

#[test]
fn a_slow_reader_with_many_subscriptions_holds_few_bodies() {
    let mut relay = Relay::new();
    let (recipient, queues) = behind(&mut relay, 50);
    relay.settle();
    assert_eq!(bodies_in_memory(&relay, recipient), 8);
    let mut said = Vec::new();
    let mut out = VecDeque::new();
    loop {
        relay.broker.take_outgoing(recipient, &mut out);
        if out.is_empty() {
            break;
        }
        let messages = out.iter().filter(|one| matches!(one.content, OutgoingContent::Message(_))).count();
        assert!(messages <= 8);
        said.extend(out.drain(..).map(|outgoing| simplify(outgoing.content)));
        relay.settle();
    }
    assert_eq!(said.iter().filter(|said| matches!(said, Message(..))).count(), 50);
    // Acknowledgements: the answer brings the next message while there is room, then it comes by itself.
    for queue in &queues {
        relay.give(recipient, &queue.recipient, acknowledge(b""), Some(RECIPIENT));
        relay.settle();
        assert!(bodies_in_memory(&relay, recipient) <= 8);
    }
    let said = relay.hear(recipient);
    assert_eq!(said.iter().filter(|said| matches!(said, Message(..))).count(), 50);
    assert_eq!(said.iter().filter(|said| matches!(said, Said::Ok)).count(), 42);
}

#[test]
fn many_gets_at_once_hold_few_bodies_and_are_all_answered() {
    let mut relay = Relay::new();
    let queues: Vec<_> = (0..20).map(|_| relay.messaging_queue()).collect();
    for queue in queues.iter().skip(1) {
        relay.send(queue, b"one");
    }
    let recipient = relay.connect();
    for queue in &queues {
        relay.give(recipient, &queue.recipient, Command::Get, Some(RECIPIENT));
    }
    relay.settle();
    assert_eq!(bodies_in_memory(&relay, recipient), 8);
    // One is deleted while its turn has not come.
    let owner = relay.connect();
    assert_eq!(relay.recipient(owner, &queues[19], Command::Delete), Said::Ok);
    let said = relay.hear(recipient);
    assert_eq!(said.len(), 20);
    assert_eq!(said.iter().filter(|said| matches!(said, Message(..))).count(), 18);
    assert_eq!(said.iter().filter(|said| **said == AUTH).count(), 1);
    assert_eq!(bodies_in_memory(&relay, recipient), 0);
}

#[test]
fn bodies_are_given_back_when_the_subscription_moves() {
    let mut relay = Relay::with(|config| config.limits.deliveries_in_flight = 2);
    let (first, queues) = behind(&mut relay, 6);
    let second = relay.connect();
    for queue in &queues {
        relay.give(second, &queue.recipient, Command::Subscribe, Some(RECIPIENT));
    }
    assert_eq!(relay.hear(second).iter().filter(|said| matches!(said, Message(..))).count(), 6);
    assert_eq!(relay.hear(first).iter().filter(|said| **said == End).count(), 6);
    assert_eq!(bodies_in_memory(&relay, first) + bodies_in_memory(&relay, second), 0);
}

/// Two queues and room for one body: the acknowledgement of the first holds the room, with the next message in it, until its
/// deletion is durable, and the second waits.
fn waiting_for_an_acknowledgement(relay: &mut Relay) -> (ConnectionId, Ids) {
    let (one, other) = (relay.messaging_queue(), relay.messaging_queue());
    let recipient = relay.connect();
    relay.recipient(recipient, &one, Command::Subscribe);
    for queue in [&one, &one, &other] {
        assert_eq!(relay.send(queue, b"x"), Said::Ok);
    }
    assert_eq!(relay.hear(recipient).len(), 1);
    relay.give(recipient, &one.recipient, acknowledge(b""), Some(RECIPIENT));
    relay.hold();
    let (id, read) = relay.held.pop_back().unwrap();
    assert!(matches!(read, StorageAction::ReadMessage { .. }));
    let read = relay.storage.apply(id, read);
    relay.broker.complete(read, relay.now);
    relay.give(recipient, &other.recipient, Command::Subscribe, Some(RECIPIENT));
    relay.hold();
    assert!(matches!(relay.held.back(), Some((_, StorageAction::DeleteMessage { .. }))));
    (recipient, one)
}

#[test]
fn room_that_an_acknowledgement_gives_back_is_used_at_once() {
    let mut relay = Relay::with(|config| config.limits.deliveries_in_flight = 1);
    let (recipient, _) = waiting_for_an_acknowledgement(&mut relay);
    relay.fails = |action| matches!(action, StorageAction::DeleteMessage { .. });
    relay.settle();
    relay.fails = |_| false;
    let said = relay.hear(recipient);
    assert_eq!(said[..2], [Subscribed, store_failed()]);
    assert_eq!(said[2..].iter().filter(|said| matches!(said, Message(..))).count(), 2, "{said:?}");

    let mut relay = Relay::with(|config| config.limits.deliveries_in_flight = 1);
    let (recipient, queue) = waiting_for_an_acknowledgement(&mut relay);
    let another = relay.connect();
    relay.give(another, &queue.recipient, Command::Subscribe, Some(RECIPIENT));
    let said = relay.hear(recipient);
    assert_eq!(said.len(), 4, "{said:?}");
    assert!(matches!(said[..], [Subscribed, End, ..]));
}

#[test]
fn so_many_queues_may_be_attached_and_no_more() {
    let mut relay = Relay::with(|config| config.limits.subscriptions = 2);
    let queues: Vec<_> = (0..3).map(|_| relay.messaging_queue()).collect();
    let connection = relay.connect();
    assert_eq!(relay.recipient(connection, &queues[0], Command::Subscribe), Subscribed);
    assert_eq!(relay.recipient(connection, &queues[1], Command::Get), Said::Ok);
    assert_eq!(relay.recipient(connection, &queues[2], Command::Subscribe), QUOTA);
    assert_eq!(relay.recipient(connection, &queues[2], Command::Get), QUOTA);
    assert_eq!(relay.try_new(connection, new_queue(None, SubscriptionMode::Subscribe)).0, QUOTA);
    assert_eq!(relay.recipient(connection, &queues[0], Command::Subscribe), Subscribed);
    assert_eq!(relay.recipient(connection, &queues[1], Command::Get), Said::Ok);
}

#[test]
fn a_queue_at_rest_keeps_nothing_but_its_record() {
    let mut relay = Relay::new();
    let mut queue = relay.messaging_queue();
    relay.notify(&mut queue);
    let connection = relay.connect();
    relay.recipient(connection, &queue, Command::Subscribe);
    relay.send(&queue, b"one");
    relay.hear(connection);
    relay.recipient(connection, &queue, acknowledge(b""));
    relay.broker.disconnect(connection);
    let getter = relay.connect();
    relay.send(&queue, b"two");
    relay.recipient(getter, &queue, Command::Get);
    relay.recipient(getter, &queue, acknowledge(b""));
    relay.broker.disconnect(getter);
    assert!(relay.broker.queues.all().all(|(_, queue)| queue.activity.is_none()));
}
