//! Queues that the operator blocked.

use super::*;
use crate::broker::BlockError;
use crate::wire::command::LinkData;
use crate::wire::error::{Blocked, BlockingReason};

const BLOCKED: Blocked = Blocked { reason: BlockingReason::Spam, notice: Some(Some(3600)) };

fn blocked() -> Said {
    Error(SmpError::Blocked(BLOCKED))
}

impl Relay {
    fn block(&mut self, id: &EntityId) {
        self.broker.block(id.as_full().unwrap(), BLOCKED).unwrap();
        self.settle();
    }
}

#[test]
fn a_subscriber_is_told_at_once_and_everybody_else_when_they_ask() {
    let mut relay = Relay::new();
    let mut queue = relay.queue(Some(QueueMode::Contact));
    relay.notify(&mut queue);
    let recipient = relay.connect();
    relay.recipient(recipient, &queue, Command::Subscribe);
    relay.send(&queue, b"before");
    assert_eq!(relay.hear(recipient).len(), 1);
    let sender = queue.sender.clone();
    relay.block(&sender);
    let told = relay.take(recipient);
    assert_eq!(told, [(CorrelationId::EMPTY, queue.recipient.clone(), blocked())]);
    assert!(relay.broker.is_blocked(queue.recipient.as_full().unwrap()));
    assert_eq!(relay.send(&queue, b"after"), blocked());
    let link = Identifier::from([0x11; 24]);
    let data = LinkData { fixed: b"", user: b"" };
    for command in [
        Command::Subscribe,
        Command::Get,
        acknowledge(b""),
        Command::QueueInformation,
        Command::SecureByRecipient(key(SENDER)),
        Command::EnableNotifications(notifier_keys()),
        Command::DisableNotifications,
        Command::RecipientKeys(alloc::vec![key(9)]),
        Command::SetLink { link, data },
        Command::DeleteLink,
    ] {
        let text = alloc::format!("{command:?}");
        assert_eq!(relay.recipient(recipient, &queue, command), blocked(), "{text}");
    }
    let notifier = queue.notifier.clone().unwrap();
    let nsub = relay.ask(recipient, &notifier, Command::SubscribeNotifications, Some(NOTIFIER));
    assert_eq!(nsub, Subscribed);
    assert_eq!(relay.recipient(recipient, &queue, Command::Suspend), Said::Ok);
    assert_eq!(relay.send(&queue, b"after"), blocked(), "OFF hides nothing");
    assert_eq!(relay.recipient(recipient, &queue, Command::Delete), Said::Ok);
}

#[test]
fn links_of_blocked_queues_are_blocked() {
    let mut relay = Relay::new();
    let queue = relay.queue(Some(QueueMode::Contact));
    let owner = relay.connect();
    let link = Identifier::from([0x11; 24]);
    let data = LinkData { fixed: b"f", user: b"u" };
    let lset = Command::SetLink { link: link.clone(), data };
    assert_eq!(relay.recipient(owner, &queue, lset), Said::Ok);
    relay.block(&link);
    assert_eq!(relay.ask(owner, &link, Command::GetLink, None), blocked());
    relay.broker.unblock(link.as_full().unwrap()).unwrap();
    assert!(matches!(relay.ask(owner, &link, Command::GetLink, None), Said::Link(..)));
}

#[test]
fn a_block_outlives_a_restart_and_can_be_lifted() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    relay.block(&queue.recipient);
    relay.restart();
    assert_eq!(relay.send(&queue, b"x"), blocked());
    let id = *queue.sender.as_full().unwrap();
    relay.broker.unblock(&id).unwrap();
    relay.settle();
    assert_eq!(relay.send(&queue, b"x"), Said::Ok);
    // One that is suspended stays so.
    let owner = relay.connect();
    relay.recipient(owner, &queue, Command::Suspend);
    relay.broker.unblock(&id).unwrap();
    relay.settle();
    assert_eq!(relay.send(&queue, b"x"), AUTH);
}

#[test]
fn a_block_that_cannot_be_stored_does_not_hold_and_nobody_is_told() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    let recipient = relay.connect();
    relay.recipient(recipient, &queue, Command::Subscribe);
    relay.fails = |action| matches!(action, StorageAction::PutQueue { .. });
    relay.block(&queue.recipient);
    relay.fails = |_| false;
    assert_eq!(relay.hear(recipient), []);
    assert!(!relay.broker.is_blocked(queue.recipient.as_full().unwrap()));
    assert_eq!(relay.broker.block(&[0; 24], BLOCKED), Err(BlockError::NoQueue));
}
