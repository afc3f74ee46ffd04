//! `NEW` with link data, `LSET`, `LDEL`, `LKEY`, `LGET`, `RKEY`, and what becomes of links.

use super::*;
use crate::crypto::ids;
use crate::wire::command::LinkData;

const DATA: LinkData<'static> = LinkData { fixed: b"fixed", user: b"user" };
const LINK: [u8; 24] = [0x11; 24];

fn link_id(bytes: [u8; 24]) -> Identifier {
    Identifier::from(bytes)
}

fn with_link<'a>(mode: QueueMode, sender: [u8; 24], link: [u8; 24], data: LinkData<'a>) -> NewQueue<'a> {
    let request = match mode {
        QueueMode::Messaging => QueueRequest::Messaging(Some((sender.into(), data))),
        QueueMode::Contact => QueueRequest::Contact(Some((link.into(), sender.into(), data))),
    };
    NewQueue { request: Some(request), ..new_queue(None, SubscriptionMode::CreateOnly) }
}

impl Relay {
    /// A queue with link data.
    fn linked(&mut self, mode: QueueMode) -> Ids {
        let creator = self.connect();
        let sender = ids::sender_id(&self.next_correlation());
        let (said, ids) = self.try_new(creator, with_link(mode, sender, LINK, DATA));
        assert_eq!(said, Created);
        self.broker.disconnect(creator);
        ids.unwrap()
    }

    fn lget(&mut self, link: &EntityId) -> Said {
        let reader = self.connect();
        let said = self.ask(reader, link, Command::GetLink, None);
        self.broker.disconnect(reader);
        said
    }

    fn lkey(&mut self, link: &EntityId, number: u8) -> Said {
        let sender = self.connect();
        let said = self.ask(sender, link, Command::SecureByLink(key(number)), Some(number));
        self.broker.disconnect(sender);
        said
    }

    fn lset(&mut self, queue: &Ids, link: [u8; 24], data: LinkData<'_>) -> Said {
        let owner = self.connect();
        let said = self.recipient(owner, queue, Command::SetLink { link: link_id(link), data });
        self.broker.disconnect(owner);
        said
    }

    fn stored_link(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let queue = self.storage.queues().next()?.queue;
        self.storage.link(queue).map(|link| (link.fixed.to_vec(), link.user.to_vec()))
    }
}

fn data_of(queue: &Ids) -> Said {
    Said::Link(*queue.sender.as_full().unwrap(), DATA.fixed.to_vec(), DATA.user.to_vec())
}

#[test]
fn the_sender_id_of_a_queue_with_link_data_must_follow_the_correlation() {
    for mode in [QueueMode::Messaging, QueueMode::Contact] {
        let mut relay = Relay::new();
        let creator = relay.connect();
        let sender = ids::sender_id(&relay.next_correlation());
        let mut wrong = sender;
        wrong[23] ^= 1;
        assert_eq!(relay.try_new(creator, with_link(mode, wrong, LINK, DATA)).0, PROHIBITED);
        // The right one, but of the command before.
        assert_eq!(relay.try_new(creator, with_link(mode, sender, LINK, DATA)).0, PROHIBITED);
        let sender = ids::sender_id(&relay.next_correlation());
        let (said, queue) = relay.try_new(creator, with_link(mode, sender, LINK, DATA));
        assert_eq!(said, Created);
        let queue = queue.unwrap();
        assert_eq!(queue.sender, link_id(sender));
        let given = queue.link.as_ref() == Some(&link_id(LINK));
        assert_eq!(given, mode == QueueMode::Contact, "the relay makes the link ids of queues between two");
        assert_eq!(relay.stored_link(), Some((b"fixed".to_vec(), b"user".to_vec())));
    }
}

#[test]
fn ids_that_are_taken_are_refused() {
    let mut relay = Relay::new();
    let first = relay.linked(QueueMode::Contact);
    let creator = relay.connect();
    // The link id is somebody's, in whatever role; so is the sender id, when a correlation is used again.
    for taken in [LINK, *first.sender.as_full().unwrap(), *first.recipient.as_full().unwrap()] {
        let sender = ids::sender_id(&relay.next_correlation());
        assert_eq!(relay.try_new(creator, with_link(QueueMode::Contact, sender, taken, DATA)).0, AUTH);
    }
    let sender = ids::sender_id(&relay.next_correlation());
    let same = with_link(QueueMode::Contact, sender, sender, DATA);
    assert_eq!(relay.try_new(creator, same).0, AUTH);
    relay.correlation = 0;
    let sender = ids::sender_id(&relay.next_correlation());
    let new = with_link(QueueMode::Contact, sender, [0x22; 24], DATA);
    assert_eq!(relay.try_new(creator, new).0, AUTH);
    assert_eq!(relay.broker.statistics().queues, 1);
}

#[test]
fn nobody_finds_a_queue_before_it_is_durable() {
    let mut relay = Relay::new();
    let creator = relay.connect();
    let sender = ids::sender_id(&relay.next_correlation());
    let new = with_link(QueueMode::Contact, sender, LINK, DATA);
    relay.give(creator, &EntityId::EMPTY, Command::New(new), Some(RECIPIENT));
    let other = relay.connect();
    relay.give(other, &link_id(LINK), Command::GetLink, None);
    relay.give(other, &link_id(sender), message(b"early", false), None);
    relay.hold();
    assert_eq!(relay.held.len(), 1);
    assert_eq!(relay.hear(other), [AUTH, AUTH]);
    assert_eq!(relay.hear(creator), [Created]);
    assert!(matches!(relay.lget(&link_id(LINK)), Said::Link(..)));
}

#[test]
fn lget_is_for_contact_addresses_and_lkey_for_queues_between_two() {
    let mut relay = Relay::new();
    let contact = relay.linked(QueueMode::Contact);
    let messaging = relay.linked(QueueMode::Messaging);
    let (address, invitation) = (contact.link.clone().unwrap(), messaging.link.clone().unwrap());
    assert_eq!(relay.lget(&address), data_of(&contact));
    assert_eq!(relay.lget(&invitation), AUTH);
    assert_eq!(relay.lkey(&address, SENDER), AUTH);
    assert_eq!(relay.lkey(&invitation, SENDER), data_of(&messaging));
    for unknown in [link_id([0x33; 24]), contact.sender.clone(), contact.recipient.clone(), Identifier::EMPTY]
    {
        assert_eq!(relay.lget(&unknown), AUTH);
        assert_eq!(relay.lkey(&unknown, SENDER), AUTH);
    }
    // As often as one likes; a signature is never right.
    assert_eq!(relay.lget(&address), data_of(&contact));
    let reader = relay.connect();
    assert_eq!(relay.ask(reader, &address, Command::GetLink, Some(RECIPIENT)), AUTH);
}

#[test]
fn lget_of_a_queue_of_unknown_mode_works_until_it_is_secured() {
    let mut relay = Relay::new();
    let queue = relay.queue(None);
    assert_eq!(relay.lset(&queue, LINK, DATA), Said::Ok);
    assert_eq!(relay.lget(&link_id(LINK)), data_of(&queue));
    assert_eq!(relay.lkey(&link_id(LINK), SENDER), AUTH);
    let owner = relay.connect();
    assert_eq!(relay.recipient(owner, &queue, Command::SecureByRecipient(key(SENDER))), Said::Ok);
    assert_eq!(relay.lget(&link_id(LINK)), AUTH);
}

#[test]
fn lkey_secures_once_and_answers_again_only_to_the_same_key() {
    let mut relay = Relay::new();
    let queue = relay.linked(QueueMode::Messaging);
    let link = queue.link.clone().unwrap();
    let sender = relay.connect();
    // Signed with another key than it carries.
    assert_eq!(relay.ask(sender, &link, Command::SecureByLink(key(SENDER)), Some(9)), AUTH);
    for _ in 0..2 {
        assert_eq!(relay.lkey(&link, SENDER), data_of(&queue));
        assert_eq!(relay.lkey(&link, 9), AUTH);
    }
    assert_eq!(relay.ask(sender, &queue.sender, Command::SecureBySender(key(9)), Some(9)), AUTH);
    assert_eq!(relay.ask(sender, &queue.sender, message(b"hello", false), Some(SENDER)), Said::Ok);
}

#[test]
fn the_first_message_of_a_secured_queue_deletes_its_link_data() {
    let mut relay = Relay::new();
    let queue = relay.linked(QueueMode::Messaging);
    let link = queue.link.clone().unwrap();
    // Not one to a queue that is not secured.
    assert_eq!(relay.send(&queue, b"early"), Said::Ok);
    assert!(relay.stored_link().is_some());
    assert_eq!(relay.lkey(&link, SENDER), data_of(&queue));
    let sender = relay.connect();
    assert_eq!(relay.ask(sender, &queue.sender, message(b"hello", false), Some(SENDER)), Said::Ok);
    assert_eq!(relay.stored_link(), None);
    assert_eq!(relay.lkey(&link, SENDER), AUTH);
    relay.restart();
    assert_eq!(relay.lkey(&link, SENDER), AUTH);
}

#[test]
fn messages_to_a_contact_address_leave_its_link_data() {
    let mut relay = Relay::new();
    let queue = relay.linked(QueueMode::Contact);
    assert_eq!(relay.send(&queue, b"1"), Said::Ok);
    assert_eq!(relay.lget(queue.link.as_ref().unwrap()), data_of(&queue));
}

#[test]
fn lset_changes_user_data_and_nothing_else() {
    let mut relay = Relay::new();
    let queue = relay.linked(QueueMode::Contact);
    let changed = LinkData { user: b"changed", ..DATA };
    assert_eq!(relay.lset(&queue, [0x22; 24], changed), AUTH, "another link id");
    assert_eq!(relay.lset(&queue, LINK, LinkData { fixed: b"Fixed", ..changed }), AUTH, "other fixed data");
    let owner = relay.connect();
    let short = Command::SetLink { link: Identifier::new(b"short").unwrap(), data: changed };
    assert_eq!(relay.recipient(owner, &queue, short), PROHIBITED);
    assert_eq!(relay.lget(&link_id(LINK)), data_of(&queue));
    assert_eq!(relay.lset(&queue, LINK, changed), Said::Ok);
    let sender = *queue.sender.as_full().unwrap();
    assert_eq!(relay.lget(&link_id(LINK)), Said::Link(sender, b"fixed".to_vec(), b"changed".to_vec()));
}

#[test]
fn lset_gives_a_link_to_a_queue_without_and_takes_nobody_elses() {
    let mut relay = Relay::new();
    let first = relay.queue(Some(QueueMode::Contact));
    assert_eq!(relay.lset(&first, LINK, DATA), Said::Ok);
    assert_eq!(relay.lget(&link_id(LINK)), data_of(&first));
    let second = relay.queue(Some(QueueMode::Contact));
    assert_eq!(relay.lset(&second, LINK, DATA), AUTH);
    assert_eq!(relay.lget(&link_id(LINK)), data_of(&first));
}

#[test]
fn a_secured_queue_between_two_gets_no_link_data() {
    let mut relay = Relay::new();
    let queue = relay.linked(QueueMode::Messaging);
    let link = *queue.link.as_ref().unwrap().as_full().unwrap();
    assert_eq!(relay.lset(&queue, link, LinkData { user: b"changed", ..DATA }), Said::Ok);
    assert!(matches!(relay.lkey(&link_id(link), SENDER), Said::Link(_, _, user) if user == b"changed"));
    assert_eq!(relay.lset(&queue, link, DATA), AUTH);
}

#[test]
fn ldel_deletes_once_and_again_and_frees_the_link() {
    let mut relay = Relay::new();
    let queue = relay.linked(QueueMode::Contact);
    let owner = relay.connect();
    for _ in 0..2 {
        assert_eq!(relay.recipient(owner, &queue, Command::DeleteLink), Said::Ok);
        assert_eq!(relay.lget(&link_id(LINK)), AUTH);
        assert_eq!(relay.stored_link(), None);
    }
    // Then another link may be set.
    assert_eq!(relay.lset(&queue, [0x22; 24], LinkData { fixed: b"other", user: b"" }), Said::Ok);
    assert_eq!(relay.recipient(owner, &queue, Command::Delete), Said::Ok);
    assert_eq!(relay.lget(&link_id([0x22; 24])), AUTH);
}

#[test]
fn a_link_that_is_deleted_while_it_is_read_is_not_told() {
    let mut relay = Relay::new();
    let queue = relay.linked(QueueMode::Contact);
    let (reader, owner) = (relay.connect(), relay.connect());
    relay.give(reader, &link_id(LINK), Command::GetLink, None);
    relay.give(owner, &queue.recipient, Command::DeleteLink, Some(RECIPIENT));
    assert_eq!(relay.hear(reader), [AUTH]);
    assert_eq!(relay.hear(owner), [Said::Ok]);
}

#[test]
fn no_more_link_data_is_read_than_a_connection_may_have_under_way() {
    let mut relay = Relay::with(|config| config.limits.deliveries_in_flight = 2);
    let queue = relay.linked(QueueMode::Contact);
    let reader = relay.connect();
    for _ in 0..7 {
        relay.give(reader, &link_id(LINK), Command::GetLink, None);
    }
    relay.hold();
    assert_eq!(relay.held.len(), 2);
    assert_eq!(relay.hear(reader), alloc::vec![data_of(&queue); 7]);
    assert_eq!(relay.hear(reader), []);
}

#[test]
fn rkey_gives_a_contact_address_other_owners() {
    let mut relay = Relay::with(|config| config.limits.recipient_keys = 3);
    let queue = relay.linked(QueueMode::Contact);
    let owner = relay.connect();
    let keys = |numbers: &[u8]| Command::RecipientKeys(numbers.iter().map(|number| key(*number)).collect());
    assert_eq!(relay.ask(owner, &queue.recipient, keys(&[9]), Some(9)), AUTH);
    assert_eq!(relay.recipient(owner, &queue, keys(&[7, 8])), Said::Ok);
    assert_eq!(relay.recipient(owner, &queue, Command::Subscribe), AUTH);
    for one in [7, 8] {
        assert_eq!(relay.ask(owner, &queue.recipient, Command::DisableNotifications, Some(one)), Said::Ok);
    }
    assert_eq!(relay.ask(owner, &queue.recipient, keys(&[5, 6, 7, 8]), Some(7)), QUOTA);
    relay.restart();
    let owner = relay.connect();
    assert_eq!(relay.ask(owner, &queue.recipient, keys(&[RECIPIENT]), Some(8)), Said::Ok);
    assert_eq!(relay.ask(owner, &queue.recipient, Command::Subscribe, Some(8)), AUTH);
    assert_eq!(relay.recipient(owner, &queue, Command::Subscribe), Subscribed);
}

#[test]
fn rkey_is_for_contact_addresses_only() {
    for mode in [None, Some(QueueMode::Messaging)] {
        let mut relay = Relay::new();
        let queue = relay.queue(mode);
        let owner = relay.connect();
        let command = Command::RecipientKeys(alloc::vec![key(9)]);
        assert_eq!(relay.recipient(owner, &queue, command), AUTH);
        assert_eq!(relay.recipient(owner, &queue, Command::Subscribe), Subscribed);
    }
}

#[test]
fn a_restart_keeps_links() {
    let mut relay = Relay::new();
    let contact = relay.linked(QueueMode::Contact);
    let messaging = relay.linked(QueueMode::Messaging);
    relay.restart();
    assert_eq!(relay.lget(contact.link.as_ref().unwrap()), data_of(&contact));
    assert_eq!(relay.lkey(messaging.link.as_ref().unwrap(), SENDER), data_of(&messaging));
    assert_eq!(relay.lset(&contact, LINK, LinkData { fixed: b"Fixed", ..DATA }), AUTH);
    assert_eq!(relay.lset(&contact, LINK, LinkData { user: b"changed", ..DATA }), Said::Ok);
}

#[test]
fn a_link_that_cannot_be_stored_is_not_set() {
    let mut relay = Relay::new();
    let queue = relay.linked(QueueMode::Contact);
    relay.fails = |action| matches!(action, StorageAction::PutQueueAndLink { .. });
    assert_eq!(relay.lset(&queue, LINK, LinkData { user: b"changed", ..DATA }), store_failed());
    let owner = relay.connect();
    assert_eq!(relay.recipient(owner, &queue, Command::DeleteLink), store_failed());
    assert_eq!(relay.lget(&link_id(LINK)), data_of(&queue));
    let creator = relay.connect();
    let sender = ids::sender_id(&relay.next_correlation());
    let new = with_link(QueueMode::Contact, sender, [0x22; 24], DATA);
    assert_eq!(relay.try_new(creator, new).0, store_failed());
    relay.fails = |_| false;
    assert_eq!(relay.lget(&link_id([0x22; 24])), AUTH);
    assert_eq!(relay.lset(&queue, LINK, LinkData { user: b"changed", ..DATA }), Said::Ok);
}

#[test]
fn an_lkey_that_cannot_be_stored_tells_nothing_and_secures_nothing() {
    let mut relay = Relay::new();
    let queue = relay.linked(QueueMode::Messaging);
    let link = queue.link.clone().unwrap();
    relay.fails = |action| matches!(action, StorageAction::PutQueue { .. });
    assert_eq!(relay.lkey(&link, SENDER), store_failed());
    relay.fails = |_| false;
    assert_eq!(relay.lkey(&link, 9), data_of(&queue));
}

#[test]
fn link_data_that_cannot_be_read_is_there_later() {
    let mut relay = Relay::new();
    let queue = relay.linked(QueueMode::Contact);
    relay.fails = |action| matches!(action, StorageAction::ReadLink { .. });
    assert_eq!(relay.lget(&link_id(LINK)), store_failed());
    relay.fails = |_| false;
    relay.pass(Duration::from_secs(5));
    assert_eq!(relay.lget(&link_id(LINK)), data_of(&queue));
}

#[test]
fn a_message_is_stored_though_the_link_data_cannot_be_deleted_and_the_next_one_deletes_it() {
    let mut relay = Relay::new();
    let queue = relay.linked(QueueMode::Messaging);
    assert_eq!(relay.lkey(queue.link.as_ref().unwrap(), SENDER), data_of(&queue));
    let sender = relay.connect();
    relay.fails = |action| matches!(action, StorageAction::PutQueueAndLink { .. });
    assert_eq!(relay.ask(sender, &queue.sender, message(b"1", false), Some(SENDER)), Said::Ok);
    assert!(relay.stored_link().is_some());
    relay.fails = |_| false;
    assert_eq!(relay.ask(sender, &queue.sender, message(b"2", false), Some(SENDER)), Said::Ok);
    assert_eq!(relay.stored_link(), None);
}

const DAY: Duration = Duration::from_secs(24 * 3600);

fn expiring() -> Relay {
    Relay::with(|config| config.unsecured_time_to_live = Some(DAY * 10))
}

#[test]
fn invitations_that_nobody_used_expire_and_contact_addresses_never() {
    let mut relay = expiring();
    let contact = relay.linked(QueueMode::Contact);
    let unknown = relay.queue(None);
    let unused = relay.linked(QueueMode::Messaging);
    let used = relay.linked(QueueMode::Messaging);
    assert_eq!(relay.lkey(used.link.as_ref().unwrap(), SENDER), data_of(&used));
    let owner = relay.connect();
    assert_eq!(relay.recipient(owner, &unused, Command::Subscribe), Subscribed);
    relay.pass(DAY * 9);
    assert_eq!(relay.hear(owner), []);
    relay.pass(DAY * 2);
    assert_eq!(relay.hear(owner), [Deleted]);
    assert_eq!(relay.lkey(unused.link.as_ref().unwrap(), SENDER), AUTH);
    assert_eq!(relay.send(&unused, b"late"), AUTH);
    assert_eq!(relay.broker.statistics().queues, 3);
    assert_eq!(relay.storage.queues().count(), 3);
    relay.pass(DAY * 100);
    assert_eq!(relay.lget(contact.link.as_ref().unwrap()), data_of(&contact));
    assert_eq!(relay.send(&unknown, b"still"), Said::Ok);
    let sender = relay.connect();
    assert_eq!(relay.ask(sender, &used.sender, message(b"still", false), Some(SENDER)), Said::Ok);
}

#[test]
fn an_invitation_that_its_owner_changes_lives_on_and_restarts_do_not_count() {
    let mut relay = expiring();
    let queue = relay.linked(QueueMode::Messaging);
    let link = *queue.link.as_ref().unwrap().as_full().unwrap();
    relay.pass(DAY * 8);
    assert_eq!(relay.lset(&queue, link, LinkData { user: b"changed", ..DATA }), Said::Ok);
    relay.pass(DAY * 8);
    assert_eq!(relay.send(&queue, b"1"), Said::Ok);
    relay.restart();
    relay.pass(DAY * 3);
    assert_eq!(relay.send(&queue, b"2"), AUTH);
    assert_eq!(relay.storage.queues().count(), 0);
}

#[test]
fn an_invitation_whose_deletion_fails_is_deleted_later() {
    let mut relay = expiring();
    let queue = relay.linked(QueueMode::Messaging);
    relay.fails = |action| matches!(action, StorageAction::DeleteQueue { .. });
    relay.pass(DAY * 12);
    relay.fails = |_| false;
    assert_eq!(relay.send(&queue, b"still"), Said::Ok);
    relay.pass(DAY);
    assert_eq!(relay.send(&queue, b"late"), AUTH);
}

#[test]
fn without_the_rule_invitations_stay() {
    let mut relay = Relay::with(|config| config.unsecured_time_to_live = None);
    let queue = relay.linked(QueueMode::Messaging);
    relay.pass(DAY * 10_000);
    assert_eq!(relay.lkey(queue.link.as_ref().unwrap(), SENDER), data_of(&queue));
}
