//! Storage fails: nobody is told what is not true, and the broker goes on with what storage really holds.

use super::*;
use crate::broker::storage::{MessageKind, MessageMark, QueueNumber, Sequence, StoredQueue};

#[test]
fn a_new_that_fails_leaves_nothing() {
    let mut relay = Relay::new();
    relay.fails = |action| matches!(action, StorageAction::PutQueue { .. });
    let connection = relay.connect();
    let new = new_queue(Some(QueueMode::Messaging), SubscriptionMode::Subscribe);
    assert_eq!(relay.try_new(connection, new).0, store_failed());
    assert_eq!(relay.broker.statistics().queues, 0);
    assert_eq!(relay.broker.subscriptions(connection), 0);
    assert_eq!(relay.hear(connection), []);
}

#[test]
fn a_message_that_cannot_be_stored_is_refused_and_never_delivered() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    let recipient = relay.connect();
    relay.recipient(recipient, &queue, Command::Subscribe);
    relay.fails = |action| matches!(action, StorageAction::PutMessage { .. });
    assert_eq!(relay.send(&queue, b"lost"), store_failed());
    relay.fails = |_| false;
    assert_eq!(relay.hear(recipient), []);
    assert_eq!(relay.send(&queue, b"kept"), Said::Ok);
    assert_eq!(body_of(&relay.hear(recipient)[0]).1, b"kept");
}

#[test]
fn of_pipelined_messages_those_that_are_stored_are_delivered_in_order() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    let (recipient, sender) = (relay.connect(), relay.connect());
    relay.recipient(recipient, &queue, Command::Subscribe);
    for body in [b"1", b"2", b"3"] {
        relay.give(sender, &queue.sender, message(body, false), None);
    }
    relay.fails =
        |action| matches!(action, StorageAction::PutMessage { message, .. } if message.body == b"1"[..]);
    assert_eq!(relay.hear(sender), [store_failed(), Said::Ok, Said::Ok]);
    let said = relay.hear(recipient);
    assert_eq!(said.len(), 1);
    assert_eq!(body_of(&said[0]).1, b"2");
    assert_eq!(body_of(&relay.recipient(recipient, &queue, acknowledge(b""))).1, b"3");
}

#[test]
fn an_acknowledged_message_whose_deletion_fails_is_delivered_again_under_its_id() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    let recipient = relay.connect();
    relay.recipient(recipient, &queue, Command::Subscribe);
    relay.send(&queue, b"one");
    relay.send(&queue, b"two");
    let first = relay.hear(recipient).pop().unwrap();
    relay.fails = |action| matches!(action, StorageAction::DeleteMessage { .. });
    relay.give(recipient, &queue.recipient, acknowledge(b""), Some(RECIPIENT));
    assert_eq!(relay.hear(recipient), [store_failed(), first]);
    relay.fails = |_| false;
    assert_eq!(body_of(&relay.recipient(recipient, &queue, acknowledge(b""))).1, b"two");
}

#[test]
fn an_ack_whose_next_message_cannot_be_read_is_answered_ok() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    let recipient = relay.connect();
    relay.recipient(recipient, &queue, Command::Subscribe);
    relay.send(&queue, b"one");
    relay.send(&queue, b"two");
    assert_eq!(relay.hear(recipient).len(), 1);
    relay.fails = |action| matches!(action, StorageAction::ReadMessage { .. });
    assert_eq!(relay.recipient(recipient, &queue, acknowledge(b"")), Said::Ok);
    relay.pass(Duration::from_secs(5));
    relay.fails = |_| false;
    assert_eq!(relay.hear(recipient), []);
    relay.pass(Duration::from_secs(5));
    assert_eq!(body_of(&relay.hear(recipient)[0]).1, b"two");
}

#[test]
fn a_key_that_cannot_be_stored_is_not_the_queues_key() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    let sender = relay.connect();
    relay.fails = |action| matches!(action, StorageAction::PutQueue { .. });
    let skey = |number| Command::SecureBySender(key(number));
    assert_eq!(relay.ask(sender, &queue.sender, skey(SENDER), Some(SENDER)), store_failed());
    relay.fails = |_| false;
    assert_eq!(relay.send(&queue, b"unsigned"), Said::Ok);
    assert_eq!(relay.ask(sender, &queue.sender, skey(9), Some(9)), Said::Ok);
}

/// `ERR AUTH` would tell those who are authorized that the queue is gone.
#[test]
fn while_a_change_that_failed_cannot_be_read_back_those_of_before_are_the_authorized() {
    let mut relay = Relay::new();
    let mut queue = relay.messaging_queue();
    relay.notify(&mut queue);
    let connection = relay.connect();
    let notifier = queue.notifier.clone().unwrap();
    for command in [
        Command::SecureByRecipient(key(SENDER)),
        Command::EnableNotifications(notifier_keys()),
        Command::Suspend,
    ] {
        relay.fails =
            |action| matches!(action, StorageAction::PutQueue { .. } | StorageAction::ReadQueue { .. });
        assert_eq!(relay.recipient(connection, &queue, command), store_failed());
        assert_eq!(relay.ask(connection, &queue.sender, message(b"x", false), None), store_failed());
        assert_eq!(relay.ask(connection, &queue.sender, message(b"x", false), Some(SENDER)), AUTH);
        let nsub = relay.ask(connection, &notifier, Command::SubscribeNotifications, Some(NOTIFIER));
        assert_eq!(nsub, store_failed());
        relay.fails = |_| false;
        relay.pass(Duration::from_secs(2));
        assert_eq!(relay.ask(connection, &queue.sender, message(b"x", false), None), Said::Ok);
    }
}

#[test]
fn a_queue_whose_deletion_fails_is_still_there() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    let (recipient, owner) = (relay.connect(), relay.connect());
    relay.recipient(recipient, &queue, Command::Subscribe);
    relay.fails = |action| matches!(action, StorageAction::DeleteQueue { .. });
    assert_eq!(relay.recipient(owner, &queue, Command::Delete), store_failed());
    relay.fails = |_| false;
    assert_eq!(relay.send(&queue, b"one"), Said::Ok);
    assert_eq!(relay.hear(recipient).len(), 1);
    assert_eq!(relay.recipient(owner, &queue, Command::Delete), Said::Ok);
}

#[test]
fn a_notifier_that_cannot_be_replaced_stays_subscribed_and_hears_nothing() {
    for command in [Command::EnableNotifications(notifier_keys()), Command::DisableNotifications] {
        let mut relay = Relay::new();
        let mut queue = relay.messaging_queue();
        relay.notify(&mut queue);
        let id = queue.notifier.clone().unwrap();
        let (notifier, owner) = (relay.connect(), relay.connect());
        relay.ask(notifier, &id, Command::SubscribeNotifications, Some(NOTIFIER));
        relay.fails = |action| matches!(action, StorageAction::PutQueue { .. });
        assert_eq!(relay.recipient(owner, &queue, command), store_failed());
        relay.fails = |_| false;
        assert_eq!(relay.hear(notifier), []);
        assert_eq!(relay.broker.subscriptions(notifier), 1);
        assert_eq!(relay.ask(owner, &queue.sender, message(b"x", true), None), Said::Ok);
        relay.pass(Duration::from_secs(2));
        assert_eq!(relay.hear(notifier).len(), 1);
    }
}

#[test]
fn a_queue_in_doubt_answers_store_until_it_has_been_read() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    let other = relay.messaging_queue();
    relay.fails =
        |action| matches!(action, StorageAction::PutMessage { .. } | StorageAction::ReadQueue { .. });
    let connection = relay.connect();
    assert_eq!(relay.send(&queue, b"one"), store_failed());
    relay.fails = |action| matches!(action, StorageAction::ReadQueue { .. });
    for command in [Command::Subscribe, Command::Get, Command::Suspend, Command::Delete, acknowledge(b"")] {
        assert_eq!(relay.recipient(connection, &queue, command), store_failed());
    }
    assert_eq!(relay.send(&queue, b"one"), store_failed());
    // Strangers are told nothing.
    assert_eq!(relay.ask(connection, &queue.recipient, Command::Delete, Some(9)), AUTH);
    assert_eq!(relay.ask(connection, &queue.sender, message(b"x", false), Some(9)), AUTH);
    // And other queues work.
    assert_eq!(relay.send(&other, b"one"), Said::Ok);
    relay.pass(Duration::from_secs(3600));
    assert_eq!(relay.send(&queue, b"one"), store_failed());
    relay.fails = |_| false;
    relay.pass(Duration::from_secs(64));
    assert_eq!(relay.send(&queue, b"one"), Said::Ok);
}

#[test]
fn reading_again_is_tried_less_and_less_often() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    relay.fails =
        |action| matches!(action, StorageAction::PutMessage { .. } | StorageAction::ReadQueue { .. });
    relay.send(&queue, b"one");
    let mut waited = Vec::new();
    for _ in 0..9 {
        let due = relay.broker.next_deadline().unwrap();
        waited.push(due.saturating_since(relay.now.instant).as_secs());
        relay.pass(due.saturating_since(relay.now.instant));
    }
    assert_eq!(waited, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
}

#[test]
fn an_ack_that_was_refused_in_doubt_can_be_repeated_and_the_message_comes_again() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    let recipient = relay.connect();
    relay.recipient(recipient, &queue, Command::Subscribe);
    relay.send(&queue, b"one");
    let first = relay.hear(recipient).pop().unwrap();
    relay.fails =
        |action| matches!(action, StorageAction::PutMessage { .. } | StorageAction::ReadQueue { .. });
    assert_eq!(relay.send(&queue, b"two"), store_failed());
    assert_eq!(relay.recipient(recipient, &queue, acknowledge(b"")), store_failed());
    relay.fails = |_| false;
    relay.pass(Duration::from_secs(64));
    assert_eq!(relay.hear(recipient), [first]);
    assert_eq!(relay.recipient(recipient, &queue, acknowledge(b"")), Said::Ok);
}

#[test]
fn a_message_that_storage_has_lost_holds_up_nobody() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    relay.send(&queue, b"one");
    relay.send(&queue, b"two");
    let stored = relay.storage.queues().next().unwrap();
    let (sequence, mark) = stored.messages[0];
    let lost = StorageAction::DeleteMessage { queue: stored.queue, sequence, mark };
    relay.storage.apply(ActionId(u64::MAX), lost);
    let recipient = relay.connect();
    relay.give(recipient, &queue.recipient, Command::Subscribe, Some(RECIPIENT));
    assert_eq!(body_of(&relay.hear(recipient)[1]).1, b"two");
}

#[test]
fn an_answer_of_the_wrong_kind_is_a_failure() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    let sender = relay.connect();
    relay.give(sender, &queue.sender, message(b"x", false), None);
    let (id, _) = relay.broker.poll_storage().unwrap();
    relay.broker.complete(Completion::Message(id, None), relay.now);
    relay.check();
    assert_eq!(relay.hear(sender), [store_failed()]);
    // An answer that comes twice, or to nothing, is ignored.
    for id in [id, ActionId(12_345), ActionId(u64::MAX)] {
        relay.broker.complete(Completion::Failed(id), relay.now);
        relay.check();
    }
    assert_eq!(relay.hear(sender), []);
}

#[test]
fn completions_in_another_order_are_answered_all_the_same() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    let (recipient, sender) = (relay.connect(), relay.connect());
    relay.recipient(recipient, &queue, Command::Subscribe);
    for body in [b"1", b"2", b"3"] {
        relay.give(sender, &queue.sender, message(body, false), None);
    }
    relay.hold();
    let mut completions: Vec<_> =
        relay.held.drain(..).map(|(id, action)| relay.storage.apply(id, action)).collect();
    completions.reverse();
    for completion in completions {
        relay.broker.complete(completion, relay.now);
        relay.check();
    }
    assert_eq!(relay.hear(sender), alloc::vec![Said::Ok; 3]);
    assert_eq!(body_of(&relay.hear(recipient)[0]).1, b"1");
    assert_eq!(body_of(&relay.recipient(recipient, &queue, acknowledge(b""))).1, b"2");
}

#[test]
fn the_text_of_a_failure_says_nothing_about_the_queue() {
    assert_eq!(store_failed(), Error(SmpError::Store(b"storage is not available, try later".to_vec())));
}

fn stored(relay: &mut Relay) -> StoredQueue {
    relay.messaging_queue();
    relay.storage.queues().last().unwrap()
}

#[test]
fn damaged_storage_is_noticed_at_start() {
    use crate::broker::RestoreError;
    let mut relay = Relay::new();
    let first = stored(&mut relay);
    let second = stored(&mut relay);
    let mut broker = Broker::new(BrokerConfig::default(), &mut relay.entropy);
    broker.restore(first.clone()).unwrap();
    assert_eq!(broker.restore(first.clone()), Err(RestoreError::IdInUse));
    let mut same_ids = second.clone();
    same_ids.record.sender = same_ids.record.recipient;
    assert_eq!(broker.restore(same_ids), Err(RestoreError::IdInUse));
    let mut disorder = second.clone();
    let mark = MessageMark { timestamp: UnixTime(0), kind: MessageKind::Ordinary };
    disorder.messages = alloc::vec![(Sequence(1), mark), (Sequence(1), mark)];
    assert_eq!(broker.restore(disorder), Err(RestoreError::Disorder));
    broker.restore(second).unwrap();
    broker.check().unwrap();
    let limits = super::super::Limits { queues: 0, ..Default::default() };
    let mut full = Broker::new(BrokerConfig { limits, ..BrokerConfig::default() }, &mut relay.entropy);
    assert_eq!(full.restore(first), Err(RestoreError::TooManyQueues));
}

#[test]
fn numbers_and_places_are_never_given_again() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    relay.send(&queue, b"one");
    let recipient = relay.connect();
    relay.recipient(recipient, &queue, Command::Get);
    relay.recipient(recipient, &queue, acknowledge(b""));
    relay.send(&queue, b"two");
    let before = relay.storage.queues().last().unwrap();
    assert_eq!(before.messages[0].0, Sequence(1));
    relay.restart();
    relay.send(&queue, b"three");
    relay.messaging_queue();
    let queues: Vec<_> = relay.storage.queues().collect();
    assert_eq!(queues[0].messages.iter().map(|(place, _)| place.0).collect::<Vec<_>>(), [1, 2]);
    assert!(queues[1].queue > before.queue);
    assert!(queues[1].queue > QueueNumber(0));
}

#[test]
fn a_damaged_answer_to_reading_a_queue_is_not_believed() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    relay.fails = |action| matches!(action, StorageAction::PutMessage { .. });
    let sender = relay.connect();
    relay.give(sender, &queue.sender, message(b"x", false), None);
    assert!(relay.complete_one());
    let (id, action) = relay.broker.poll_storage().unwrap();
    let Completion::Queue(_, Some(mut damaged)) = relay.storage.apply(id, action) else { unreachable!() };
    damaged.record.recipient = [1; 24];
    relay.broker.complete(Completion::Queue(id, Some(damaged)), relay.now);
    relay.check();
    assert_eq!(relay.hear(sender), [store_failed()]);
    relay.fails = |_| false;
    relay.pass(Duration::from_secs(2));
    assert_eq!(relay.send(&queue, b"x"), Said::Ok);
}
