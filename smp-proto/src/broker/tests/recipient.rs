//! `NEW`, `SUB`, `GET`, `ACK`, `KEY`, `OFF`, `DEL`, `QUE`.

use super::*;

fn subscribed(relay: &mut Relay) -> (ConnectionId, Ids) {
    let queue = relay.messaging_queue();
    let recipient = relay.connect();
    assert_eq!(relay.recipient(recipient, &queue, Command::Subscribe), Subscribed);
    (recipient, queue)
}

#[test]
fn new_answers_when_the_queue_is_durable() {
    let mut relay = Relay::new();
    let connection = relay.connect();
    let new = new_queue(Some(QueueMode::Messaging), SubscriptionMode::Subscribe);
    relay.give(connection, &EntityId::EMPTY, Command::New(new), Some(RECIPIENT));
    assert_eq!(relay.take(connection), []);
    assert_eq!(relay.hear(connection), [Created]);
    assert_eq!(relay.broker.subscriptions(connection), 1);
}

#[test]
fn new_is_refused_with_auth_when_new_queues_are_off_or_the_password_is_wrong() {
    let new = |password| NewQueue { password, ..new_queue(None, SubscriptionMode::CreateOnly) };
    let mut relay = Relay::with(|config| config.create_password = Some(b"secret".to_vec().into()));
    let connection = relay.connect();
    for password in [None, Some(Password(b"Secret")), Some(Password(b"")), Some(Password(b"secret2"))] {
        assert_eq!(relay.try_new(connection, new(password)).0, AUTH);
    }
    assert_eq!(relay.try_new(connection, new(Some(Password(b"secret")))).0, Created);
    let mut relay = Relay::with(|config| config.new_queues = false);
    let connection = relay.connect();
    assert_eq!(relay.try_new(connection, new(None)).0, AUTH);
}

#[test]
fn new_with_a_notifier_makes_both() {
    let mut relay = Relay::new();
    let connection = relay.connect();
    let new = NewQueue {
        notifier: Some(notifier_keys()),
        ..new_queue(Some(QueueMode::Messaging), SubscriptionMode::CreateOnly)
    };
    let (said, ids) = relay.try_new(connection, new);
    assert_eq!(said, Created);
    let notifier = ids.unwrap().notifier.unwrap();
    let subscribed = relay.ask(connection, &notifier, Command::SubscribeNotifications, Some(NOTIFIER));
    assert_eq!(subscribed, Subscribed);
}

#[test]
fn new_is_refused_beyond_the_limit_of_queues() {
    let mut relay = Relay::with(|config| config.limits.queues = 1);
    relay.messaging_queue();
    let connection = relay.connect();
    assert_eq!(relay.try_new(connection, new_queue(None, SubscriptionMode::Subscribe)).0, QUOTA);
    assert_eq!(relay.broker.subscriptions(connection), 0);
}

#[test]
fn an_unknown_queue_and_a_wrong_key_get_auth_for_every_command() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    let connection = relay.connect();
    let unknown = EntityId::from([99; 24]);
    let short = EntityId::new(b"short").unwrap();
    let commands = || {
        [
            Command::Subscribe,
            Command::Get,
            acknowledge(b""),
            Command::SecureByRecipient(key(SENDER)),
            Command::Suspend,
            Command::Delete,
            Command::QueueInformation,
            Command::EnableNotifications(notifier_keys()),
            Command::DisableNotifications,
            Command::RecipientKeys(alloc::vec![key(RECIPIENT)]),
        ]
    };
    for entity in [&unknown, &short, &queue.sender] {
        for command in commands() {
            assert_eq!(relay.ask(connection, entity, command, Some(RECIPIENT)), AUTH);
        }
    }
    for command in commands() {
        assert_eq!(relay.ask(connection, &queue.recipient, command, Some(77)), AUTH);
    }
    for command in [message(b"x", false), Command::SecureBySender(key(SENDER))] {
        assert_eq!(relay.ask(connection, &unknown, command.clone(), Some(SENDER)), AUTH);
        assert_eq!(relay.ask(connection, &queue.recipient, command, Some(SENDER)), AUTH);
    }
    assert_eq!(relay.ask(connection, &unknown, Command::SubscribeNotifications, Some(NOTIFIER)), AUTH);
    assert_eq!(relay.statistics_of_queues(), 1);
}

#[test]
fn commands_that_this_relay_does_not_offer_are_prohibited_when_they_verify() {
    let mut relay = Relay::new();
    let connection = relay.connect();
    let forward = Command::RelayForward { transmission: b"x" };
    assert_eq!(relay.ask(connection, &EntityId::EMPTY, forward, None), PROHIBITED);
    // There is no service that could be meant.
    assert_eq!(relay.ask(connection, &EntityId::from([1; 24]), Command::SubscribeService, Some(1)), AUTH);
}

#[test]
fn ping_is_answered_pong() {
    let mut relay = Relay::new();
    let connection = relay.connect();
    assert_eq!(relay.ask(connection, &EntityId::EMPTY, Command::Ping, None), Pong);
}

#[test]
fn a_waiting_message_follows_sub_without_correlation() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    assert_eq!(relay.send(&queue, b"one"), Said::Ok);
    let recipient = relay.connect();
    let correlation = relay.give(recipient, &queue.recipient, Command::Subscribe, Some(RECIPIENT));
    relay.settle();
    let said = relay.take(recipient);
    assert_eq!(said[0], (correlation, queue.recipient.clone(), Subscribed));
    let (correlation, entity, said) = &said[1];
    assert_eq!((correlation, entity), (&CorrelationId::EMPTY, &queue.recipient));
    assert_eq!(body_of(said).1, b"one");
}

#[test]
fn a_message_reaches_a_subscriber_without_being_read_back() {
    let mut relay = Relay::new();
    let (recipient, queue) = subscribed(&mut relay);
    relay.fails = |action| matches!(action, StorageAction::ReadMessage { .. });
    assert_eq!(relay.send(&queue, b"one"), Said::Ok);
    assert_eq!(body_of(&relay.hear(recipient)[0]).1, b"one");
}

#[test]
fn a_message_reaches_nobody_before_it_is_durable() {
    let mut relay = Relay::new();
    let (recipient, queue) = subscribed(&mut relay);
    let sender = relay.connect();
    relay.give(sender, &queue.sender, message(b"one", false), None);
    relay.hold();
    assert_eq!(relay.held.len(), 1);
    let mut out = VecDeque::new();
    for connection in [recipient, sender] {
        relay.broker.take_outgoing(connection, &mut out);
        assert!(out.is_empty());
    }
    relay.settle();
    assert_eq!(relay.hear(sender), [Said::Ok]);
    assert_eq!(relay.hear(recipient).len(), 1);
}

#[test]
fn at_most_one_message_is_unacknowledged() {
    let mut relay = Relay::new();
    let (recipient, queue) = subscribed(&mut relay);
    for body in [b"one", b"two"] {
        assert_eq!(relay.send(&queue, body), Said::Ok);
    }
    let said = relay.hear(recipient);
    assert_eq!(said.len(), 1);
    let (id, body) = body_of(&said[0]);
    assert_eq!(body, b"one");
    let next = relay.recipient(recipient, &queue, acknowledge(id));
    assert_eq!(body_of(&next).1, b"two");
}

#[test]
fn ack_answers_the_next_message_or_ok() {
    let mut relay = Relay::new();
    let (recipient, queue) = subscribed(&mut relay);
    relay.send(&queue, b"one");
    relay.send(&queue, b"two");
    let first = relay.hear(recipient).pop().unwrap();
    let second = relay.recipient(recipient, &queue, acknowledge(body_of(&first).0));
    assert_eq!(body_of(&second).1, b"two");
    assert_eq!(relay.recipient(recipient, &queue, acknowledge(body_of(&second).0)), Said::Ok);
    assert_eq!(relay.recipient(recipient, &queue, acknowledge(body_of(&second).0)), NO_MSG);
    // Nothing is left of them.
    assert!(relay.storage.queues().all(|queue| queue.messages.is_empty()));
}

#[test]
fn ack_answers_when_the_deletion_is_durable() {
    let mut relay = Relay::new();
    let (recipient, queue) = subscribed(&mut relay);
    relay.send(&queue, b"one");
    let first = relay.hear(recipient).pop().unwrap();
    relay.give(recipient, &queue.recipient, acknowledge(body_of(&first).0), Some(RECIPIENT));
    assert!(relay.broker.poll_ready().is_none());
    assert_eq!(relay.hear(recipient), [Said::Ok]);
}

#[test]
fn ack_needs_the_id_of_what_was_delivered_or_an_empty_one() {
    let mut relay = Relay::new();
    let (recipient, queue) = subscribed(&mut relay);
    assert_eq!(relay.recipient(recipient, &queue, acknowledge(b"")), NO_MSG);
    relay.send(&queue, b"one");
    assert_eq!(relay.hear(recipient).len(), 1);
    assert_eq!(relay.recipient(recipient, &queue, acknowledge(&[1; 24])), NO_MSG);
    assert_eq!(relay.recipient(recipient, &queue, acknowledge(b"")), Said::Ok);
    assert_eq!(relay.recipient(recipient, &queue, acknowledge(b"")), NO_MSG);
}

#[test]
fn ack_in_another_connection_than_that_of_the_delivery_gets_no_msg() {
    let mut relay = Relay::new();
    let (recipient, queue) = subscribed(&mut relay);
    relay.send(&queue, b"one");
    let said = relay.hear(recipient).pop().unwrap();
    let other = relay.connect();
    assert_eq!(relay.recipient(other, &queue, acknowledge(body_of(&said).0)), NO_MSG);
    assert_eq!(relay.recipient(other, &queue, Command::QueueInformation).size(), 1);
}

#[test]
fn pipelined_acks_of_one_message_delete_one_message() {
    let mut relay = Relay::new();
    let (recipient, queue) = subscribed(&mut relay);
    relay.send(&queue, b"one");
    relay.send(&queue, b"two");
    let first = relay.hear(recipient).pop().unwrap();
    for _ in 0..2 {
        relay.give(recipient, &queue.recipient, acknowledge(body_of(&first).0), Some(RECIPIENT));
    }
    let said = relay.hear(recipient);
    assert_eq!(said[0], NO_MSG);
    assert_eq!(body_of(&said[1]).1, b"two");
}

#[test]
fn sub_again_in_the_same_connection_delivers_the_same_message_under_the_same_id() {
    let mut relay = Relay::new();
    let (recipient, queue) = subscribed(&mut relay);
    relay.send(&queue, b"one");
    let first = relay.hear(recipient);
    relay.give(recipient, &queue.recipient, Command::Subscribe, Some(RECIPIENT));
    let again = relay.hear(recipient);
    assert_eq!(again, [Subscribed, first[0].clone()]);
    assert_eq!(relay.recipient(recipient, &queue, acknowledge(body_of(&first[0]).0)), Said::Ok);
}

#[test]
fn what_was_delivered_can_be_acknowledged_while_it_is_delivered_again() {
    let mut relay = Relay::new();
    let (recipient, queue) = subscribed(&mut relay);
    relay.send(&queue, b"one");
    let first = relay.hear(recipient).pop().unwrap();
    relay.give(recipient, &queue.recipient, Command::Subscribe, Some(RECIPIENT));
    relay.give(recipient, &queue.recipient, acknowledge(body_of(&first).0), Some(RECIPIENT));
    assert_eq!(relay.hear(recipient), [Subscribed, Said::Ok]);
}

#[test]
fn sub_in_another_connection_ends_the_first_and_delivers_the_same_message() {
    let mut relay = Relay::new();
    let (first, queue) = subscribed(&mut relay);
    relay.send(&queue, b"one");
    let delivered = relay.hear(first);
    let second = relay.connect();
    relay.give(second, &queue.recipient, Command::Subscribe, Some(RECIPIENT));
    assert_eq!(relay.hear(second), [Subscribed, delivered[0].clone()]);
    assert_eq!(relay.hear(first), [End]);
    assert_eq!(relay.broker.subscriptions(first), 0);
    assert_eq!(relay.recipient(first, &queue, acknowledge(b"")), NO_MSG);
    assert_eq!(relay.recipient(second, &queue, acknowledge(b"")), Said::Ok);
}

#[test]
fn a_subscription_that_moves_while_a_message_is_read_loses_nothing() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    relay.send(&queue, b"one");
    let (first, second) = (relay.connect(), relay.connect());
    for connection in [first, second, first] {
        relay.give(connection, &queue.recipient, Command::Subscribe, Some(RECIPIENT));
    }
    let said = relay.hear(first);
    assert_eq!(said[..3], [Subscribed, End, Subscribed]);
    assert_eq!(body_of(&said[3]).1, b"one");
    assert_eq!(said.len(), 4);
    assert_eq!(relay.hear(second), [Subscribed, End]);
}

#[test]
fn a_subscription_that_moves_while_an_ack_is_stored_answers_it_ok() {
    for order in [[true, false], [false, true]] {
        let mut relay = Relay::new();
        let (first, queue) = subscribed(&mut relay);
        relay.send(&queue, b"one");
        relay.send(&queue, b"two");
        assert_eq!(relay.hear(first).len(), 1);
        let second = relay.connect();
        for is_ack in order {
            if is_ack {
                relay.give(first, &queue.recipient, acknowledge(b""), Some(RECIPIENT));
            } else {
                relay.give(second, &queue.recipient, Command::Subscribe, Some(RECIPIENT));
            }
        }
        let delivered = relay.hear(second);
        if order[0] {
            assert_eq!(relay.hear(first), [End, Said::Ok]);
            assert_eq!(body_of(&delivered[1]).1, b"two");
        } else {
            assert_eq!(relay.hear(first), [End, NO_MSG]);
            assert_eq!(body_of(&delivered[1]).1, b"one");
        }
    }
}

#[test]
fn get_gives_one_message_or_ok_and_ack_after_it_answers_ok_alone() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    let recipient = relay.connect();
    assert_eq!(relay.recipient(recipient, &queue, Command::Get), Said::Ok);
    relay.send(&queue, b"one");
    relay.send(&queue, b"two");
    assert_eq!(relay.hear(recipient), []);
    let said = relay.recipient(recipient, &queue, Command::Get);
    assert_eq!(body_of(&said).1, b"one");
    assert_eq!(relay.recipient(recipient, &queue, Command::Get), said);
    assert_eq!(relay.recipient(recipient, &queue, acknowledge(&[1; 24])), NO_MSG);
    assert_eq!(relay.recipient(recipient, &queue, acknowledge(body_of(&said).0)), Said::Ok);
    assert_eq!(relay.recipient(recipient, &queue, acknowledge(b"")), NO_MSG);
    let said = relay.recipient(recipient, &queue, Command::Get);
    assert_eq!(body_of(&said).1, b"two");
    assert_eq!(relay.broker.subscriptions(recipient), 0);
}

#[test]
fn sub_after_get_and_get_after_sub_are_prohibited_in_one_connection() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    let (getter, subscriber) = (relay.connect(), relay.connect());
    assert_eq!(relay.recipient(getter, &queue, Command::Get), Said::Ok);
    assert_eq!(relay.recipient(getter, &queue, Command::Subscribe), PROHIBITED);
    assert_eq!(relay.recipient(subscriber, &queue, Command::Subscribe), Subscribed);
    assert_eq!(relay.recipient(subscriber, &queue, Command::Get), PROHIBITED);
    assert_eq!(relay.recipient(getter, &queue, Command::Get), Said::Ok);
}

#[test]
fn what_was_taken_and_acknowledged_elsewhere_is_not_delivered_again() {
    let mut relay = Relay::new();
    let (subscriber, queue) = subscribed(&mut relay);
    relay.send(&queue, b"one");
    relay.send(&queue, b"two");
    assert_eq!(relay.hear(subscriber).len(), 1);
    let getter = relay.connect();
    let taken = relay.recipient(getter, &queue, Command::Get);
    assert_eq!(relay.recipient(getter, &queue, acknowledge(body_of(&taken).0)), Said::Ok);
    let next = relay.recipient(subscriber, &queue, acknowledge(b""));
    assert_eq!(body_of(&next).1, b"two");
}

#[test]
fn more_takers_than_a_queue_remembers_push_out_the_first() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    relay.send(&queue, b"one");
    let takers: Vec<_> = (0..17).map(|_| relay.connect()).collect();
    for taker in &takers {
        relay.recipient(*taker, &queue, Command::Get);
    }
    assert_eq!(relay.recipient(takers[0], &queue, acknowledge(b"")), NO_MSG);
    assert_eq!(relay.recipient(takers[1], &queue, acknowledge(b"")), Said::Ok);
}

#[test]
fn key_sets_the_senders_key_once_on_queues_of_every_mode() {
    for mode in [None, Some(QueueMode::Messaging), Some(QueueMode::Contact)] {
        let mut relay = Relay::new();
        let queue = relay.queue(mode);
        let recipient = relay.connect();
        for (number, answer) in [(SENDER, Said::Ok), (SENDER, Said::Ok), (9, AUTH)] {
            let command = Command::SecureByRecipient(key(number));
            assert_eq!(relay.recipient(recipient, &queue, command), answer);
        }
        assert_eq!(relay.ask(recipient, &queue.sender, message(b"x", false), Some(SENDER)), Said::Ok);
        relay.restart();
        let connection = relay.connect();
        assert_eq!(relay.ask(connection, &queue.sender, message(b"x", false), Some(9)), AUTH);
        assert_eq!(relay.ask(connection, &queue.sender, message(b"x", false), Some(SENDER)), Said::Ok);
    }
}

#[test]
fn off_refuses_messages_for_good_and_still_delivers() {
    let mut relay = Relay::new();
    let (recipient, queue) = subscribed(&mut relay);
    relay.send(&queue, b"one");
    relay.send(&queue, b"two");
    assert_eq!(relay.hear(recipient).len(), 1);
    assert_eq!(relay.recipient(recipient, &queue, Command::Suspend), Said::Ok);
    assert_eq!(relay.recipient(recipient, &queue, Command::Suspend), Said::Ok);
    assert_eq!(relay.send(&queue, b"three"), AUTH);
    let next = relay.recipient(recipient, &queue, acknowledge(b""));
    assert_eq!(body_of(&next).1, b"two");
    relay.restart();
    assert_eq!(relay.send(&queue, b"three"), AUTH);
}

#[test]
fn del_deletes_everything_and_tells_the_other_subscriber_and_the_notifier() {
    let mut relay = Relay::new();
    let mut queue = relay.messaging_queue();
    relay.notify(&mut queue);
    relay.send(&queue, b"one");
    let (subscriber, notifier, owner) = (relay.connect(), relay.connect(), relay.connect());
    let notifier_id = queue.notifier.clone().unwrap();
    relay.give(subscriber, &queue.recipient, Command::Subscribe, Some(RECIPIENT));
    assert_eq!(relay.hear(subscriber).len(), 2);
    relay.ask(notifier, &notifier_id, Command::SubscribeNotifications, Some(NOTIFIER));
    assert_eq!(relay.recipient(owner, &queue, Command::Delete), Said::Ok);
    assert_eq!(relay.hear(subscriber), [Deleted]);
    let told = relay.take(notifier);
    assert_eq!(told, [(CorrelationId::EMPTY, notifier_id.clone(), Deleted)]);
    assert_eq!(relay.recipient(owner, &queue, Command::Delete), AUTH);
    assert_eq!(relay.send(&queue, b"two"), AUTH);
    assert_eq!(relay.ask(notifier, &notifier_id, Command::SubscribeNotifications, Some(NOTIFIER)), AUTH);
    assert_eq!(relay.broker.subscriptions(subscriber) + relay.broker.subscriptions(notifier), 0);
    assert_eq!(relay.storage.queues().count(), 0);
}

#[test]
fn who_deletes_a_queue_is_not_told_again() {
    let mut relay = Relay::new();
    let (recipient, queue) = subscribed(&mut relay);
    assert_eq!(relay.recipient(recipient, &queue, Command::Delete), Said::Ok);
}

#[test]
fn a_blocked_queue_refuses_all_but_off_del_and_nsub() {
    use crate::broker::record::QueueStatus;
    use crate::wire::error::{Blocked, BlockingReason};
    let mut relay = Relay::new();
    let mut queue = relay.messaging_queue();
    relay.notify(&mut queue);
    relay.storage.sync();
    // The operator's decision is in storage.
    let stored: Vec<_> = relay.storage.queues().collect();
    let blocked = Blocked { reason: BlockingReason::Spam, notice: None };
    relay.broker = Broker::new(BrokerConfig::default(), &mut relay.entropy);
    for mut stored in stored {
        stored.record.status = QueueStatus::Blocked(blocked.clone());
        relay.broker.restore(stored).unwrap();
    }
    let refused = Error(SmpError::Blocked(blocked));
    let connection = relay.connect();
    for command in [
        Command::Subscribe,
        Command::Get,
        acknowledge(b""),
        Command::SecureByRecipient(key(SENDER)),
        Command::QueueInformation,
        Command::EnableNotifications(notifier_keys()),
        Command::DisableNotifications,
    ] {
        assert_eq!(relay.recipient(connection, &queue, command), refused);
    }
    let skey = Command::SecureBySender(key(SENDER));
    assert_eq!(relay.ask(connection, &queue.sender, skey, Some(SENDER)), refused);
    assert_eq!(relay.send(&queue, b"x"), refused);
    let notifier = queue.notifier.clone().unwrap();
    let nsub = relay.ask(connection, &notifier, Command::SubscribeNotifications, Some(NOTIFIER));
    assert_eq!(nsub, Subscribed);
    assert_eq!(relay.recipient(connection, &queue, Command::Suspend), Said::Ok);
    assert_eq!(relay.send(&queue, b"x"), refused);
    assert_eq!(relay.recipient(connection, &queue, Command::Delete), Said::Ok);
}

#[test]
fn que_describes_the_queue_as_the_asking_connection_sees_it() {
    let mut relay = Relay::new();
    let mut queue = relay.messaging_queue();
    let (subscriber, other) = (relay.connect(), relay.connect());
    let ask = |relay: &mut Relay, from, queue: &Ids| match relay.recipient(
        from,
        queue,
        Command::QueueInformation,
    ) {
        Said::Information(text) => text,
        other => panic!("{other:?}"),
    };
    assert_eq!(ask(&mut relay, other, &queue), r#"{"qiSnd":false,"qiNtf":false,"qiSize":0}"#);
    relay.recipient(subscriber, &queue, Command::SecureByRecipient(key(SENDER)));
    relay.notify(&mut queue);
    relay.recipient(subscriber, &queue, Command::Subscribe);
    assert_eq!(
        ask(&mut relay, subscriber, &queue),
        r#"{"qiSnd":true,"qiNtf":true,"qiSub":{"qSubThread":"noSub"},"qiSize":0}"#
    );
    relay.ask(other, &queue.sender, message(b"one", false), Some(SENDER));
    let delivered = relay.hear(subscriber).pop().unwrap();
    let id = crate::wire::base64url::encode(body_of(&delivered).0);
    let message = alloc::format!(
        r#""qiSize":1,"qiMsg":{{"msgId":"{id}","msgTs":"2023-11-14T22:13:20Z","msgType":"message"}}}}"#
    );
    assert_eq!(
        ask(&mut relay, subscriber, &queue),
        alloc::format!(
            r#"{{"qiSnd":true,"qiNtf":true,"qiSub":{{"qSubThread":"noSub","qDelivered":"{id}"}},{message}"#
        )
    );
    assert_eq!(ask(&mut relay, other, &queue), alloc::format!(r#"{{"qiSnd":true,"qiNtf":true,{message}"#));
    relay.recipient(other, &queue, Command::Get);
    assert_eq!(
        ask(&mut relay, other, &queue),
        alloc::format!(
            r#"{{"qiSnd":true,"qiNtf":true,"qiSub":{{"qSubThread":"prohibitSub","qDelivered":"{id}"}},{message}"#
        )
    );
}

#[test]
fn everything_survives_a_restart() {
    let mut relay = Relay::new();
    let mut queue = relay.messaging_queue();
    relay.notify(&mut queue);
    for body in [b"one", b"two"] {
        assert_eq!(relay.send(&queue, body), Said::Ok);
    }
    let recipient = relay.connect();
    let first = relay.recipient(recipient, &queue, Command::Get);
    relay.restart();
    let recipient = relay.connect();
    relay.give(recipient, &queue.recipient, Command::Subscribe, Some(RECIPIENT));
    assert_eq!(relay.hear(recipient), [Subscribed, first]);
    let second = relay.recipient(recipient, &queue, acknowledge(b""));
    assert_eq!(body_of(&second).1, b"two");
    relay.restart();
    let recipient = relay.connect();
    assert_eq!(relay.recipient(recipient, &queue, Command::Get), second);
    let notifier = queue.notifier.clone().unwrap();
    let nsub = relay.ask(recipient, &notifier, Command::SubscribeNotifications, Some(NOTIFIER));
    assert_eq!(nsub, Subscribed);
}

impl Relay {
    fn statistics_of_queues(&self) -> usize {
        self.broker.statistics().queues
    }
}

impl Said {
    /// `qiSize` of an answer to `QUE`.
    fn size(&self) -> usize {
        match self {
            Self::Information(text) => {
                let (_, tail) = text.split_once(r#""qiSize":"#).unwrap();
                tail.split([',', '}']).next().unwrap().parse().unwrap()
            }
            other => panic!("{other:?}"),
        }
    }
}
