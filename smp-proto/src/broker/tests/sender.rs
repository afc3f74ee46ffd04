//! `SEND` and `SKEY`.

use super::*;

#[test]
fn send_is_unsigned_before_a_key_is_set_and_signed_with_it_after() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    let sender = relay.connect();
    let send = |relay: &mut Relay, key| relay.ask(sender, &queue.sender, message(b"x", false), key);
    assert_eq!(send(&mut relay, Some(SENDER)), AUTH);
    assert_eq!(send(&mut relay, None), Said::Ok);
    let skey = Command::SecureBySender(key(SENDER));
    assert_eq!(relay.ask(sender, &queue.sender, skey, Some(SENDER)), Said::Ok);
    assert_eq!(send(&mut relay, None), AUTH);
    assert_eq!(send(&mut relay, Some(9)), AUTH);
    assert_eq!(send(&mut relay, Some(SENDER)), Said::Ok);
}

#[test]
fn skey_works_once_and_only_on_messaging_queues() {
    for (mode, answer) in
        [(None, AUTH), (Some(QueueMode::Contact), AUTH), (Some(QueueMode::Messaging), Said::Ok)]
    {
        let mut relay = Relay::new();
        let queue = relay.queue(mode);
        let sender = relay.connect();
        let skey = |number| Command::SecureBySender(key(number));
        assert_eq!(relay.ask(sender, &queue.sender, skey(SENDER), Some(9)), AUTH);
        assert_eq!(relay.ask(sender, &queue.sender, skey(SENDER), Some(SENDER)), answer);
        assert_eq!(relay.ask(sender, &queue.sender, skey(SENDER), Some(SENDER)), answer);
        assert_eq!(relay.ask(sender, &queue.sender, skey(9), Some(9)), AUTH);
    }
}

#[test]
fn key_and_skey_agree() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    let connection = relay.connect();
    assert_eq!(relay.recipient(connection, &queue, Command::SecureByRecipient(key(SENDER))), Said::Ok);
    let skey = |number| Command::SecureBySender(key(number));
    assert_eq!(relay.ask(connection, &queue.sender, skey(SENDER), Some(SENDER)), Said::Ok);
    assert_eq!(relay.ask(connection, &queue.sender, skey(9), Some(9)), AUTH);
}

#[test]
fn a_key_that_is_set_between_look_up_and_execution_refuses_the_unsigned_message() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    let connection = relay.connect();
    // Both were looked up while the queue was not secured.
    let block = OpenedBlock::with_content(Bytes::new());
    let prepared = Prepared::default;
    for (command, signed_with) in
        [(Command::SecureBySender(key(SENDER)), Some(key(SENDER))), (message(b"x", false), None)]
    {
        let outcome = Outcome::Execute { command, key: signed_with, prepared: prepared() };
        let verified = Verified {
            correlation: CorrelationId::EMPTY,
            entity: queue.sender.clone(),
            outcome,
            forwarded: None,
        };
        relay.broker.execute(connection, verified, &block, relay.now, &mut relay.entropy);
    }
    assert_eq!(relay.hear(connection), [AUTH, Said::Ok]);
    assert!(relay.storage.queues().all(|queue| queue.messages.is_empty()));
}

#[test]
fn a_recipients_key_that_is_not_the_queues_is_refused_at_execution_too() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    let connection = relay.connect();
    let block = OpenedBlock::with_content(Bytes::new());
    for signed_with in [None, Some(key(9))] {
        let outcome =
            Outcome::Execute { command: Command::Delete, key: signed_with, prepared: Prepared::default() };
        let verified = Verified {
            correlation: CorrelationId::EMPTY,
            entity: queue.recipient.clone(),
            outcome,
            forwarded: None,
        };
        relay.broker.execute(connection, verified, &block, relay.now, &mut relay.entropy);
        assert_eq!(relay.hear(connection), [AUTH]);
    }
}

#[test]
fn the_order_of_messages_is_the_order_of_execution() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    let senders = [relay.connect(), relay.connect()];
    for number in 0..20u8 {
        let body = [number];
        relay.give(senders[usize::from(number % 2)], &queue.sender, message(&body, false), None);
    }
    // All of them in one group.
    relay.hold();
    assert_eq!(relay.held.len(), 20);
    for sender in senders {
        assert_eq!(relay.hear(sender), alloc::vec![Said::Ok; 10]);
    }
    let recipient = relay.connect();
    relay.give(recipient, &queue.recipient, Command::Subscribe, Some(RECIPIENT));
    let mut said = relay.hear(recipient).pop().unwrap();
    for number in 0..20u8 {
        assert_eq!(body_of(&said).1, [number]);
        said = relay.recipient(recipient, &queue, acknowledge(b""));
    }
    assert_eq!(said, Said::Ok);
}

fn with_quota(quota: u16) -> Relay {
    Relay::with(|config| config.message_quota = quota)
}

#[test]
fn a_full_queue_refuses_until_it_is_empty_and_tells_its_recipient() {
    let mut relay = with_quota(3);
    let queue = relay.messaging_queue();
    for body in [b"1", b"2", b"3"] {
        assert_eq!(relay.send(&queue, body), Said::Ok);
    }
    assert_eq!(relay.send(&queue, b"4"), QUOTA);
    assert_eq!(relay.send(&queue, b"5"), QUOTA);
    // One marker, whoever else was refused; also after a restart.
    relay.restart();
    assert_eq!(relay.send(&queue, b"6"), QUOTA);
    let recipient = relay.connect();
    relay.give(recipient, &queue.recipient, Command::Subscribe, Some(RECIPIENT));
    let mut said = relay.hear(recipient).pop().unwrap();
    for body in [b"1", b"2", b"3"] {
        assert_eq!(body_of(&said).1, body);
        assert_eq!(relay.send(&queue, b"7"), QUOTA);
        said = relay.recipient(recipient, &queue, acknowledge(b""));
    }
    assert!(matches!(said, QuotaMarker(_)));
    assert_eq!(relay.send(&queue, b"8"), QUOTA);
    assert_eq!(relay.recipient(recipient, &queue, acknowledge(b"")), Said::Ok);
    assert_eq!(relay.send(&queue, b"9"), Said::Ok);
    assert_eq!(body_of(&relay.hear(recipient)[0]).1, b"9");
}

#[test]
fn what_is_being_deleted_counts_against_the_quota() {
    let mut relay = with_quota(1);
    let queue = relay.messaging_queue();
    let (recipient, sender) = (relay.connect(), relay.connect());
    relay.recipient(recipient, &queue, Command::Subscribe);
    assert_eq!(relay.send(&queue, b"1"), Said::Ok);
    assert_eq!(relay.hear(recipient).len(), 1);
    relay.give(recipient, &queue.recipient, acknowledge(b""), Some(RECIPIENT));
    relay.give(sender, &queue.sender, message(b"2", false), None);
    assert_eq!(relay.hear(sender), [QUOTA]);
    let said = relay.hear(recipient);
    assert_eq!(said[0], Said::Ok);
    assert!(matches!(said[1], QuotaMarker(_)));
}

#[test]
fn messages_have_ids_of_their_own() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    let recipient = relay.connect();
    let mut ids = alloc::collections::BTreeSet::new();
    for _ in 0..10 {
        relay.send(&queue, b"same");
        let said = relay.recipient(recipient, &queue, Command::Get);
        ids.insert(*body_of(&said).0);
        relay.recipient(recipient, &queue, acknowledge(b""));
    }
    assert_eq!(ids.len(), 10);
}
