//! What becomes of one command.

use super::*;
use crate::broker::record::BlobRecord;
use crate::crypto::blob;
use crate::wire::command::LinkData;
use crate::wire::error::{CommandError, SmpError};

#[test]
fn a_command_is_executed_and_answered_and_only_its_client_can_read_the_answer() {
    let mut world = World::new();
    let queue = world.queue(QueueMode::Contact);
    let id = world.attach(1);
    let published = world.published(id);
    let made = world.send(published, &queue, b"hello", None);
    let heard = world.forward(id, &made, PLAIN);
    assert_eq!(made.open(&heard), Said::Ok);
    assert_eq!(world.bodies(&queue), [b"hello"]);
    assert_eq!(world.receipts(), 1);
    assert_eq!(world.room.statistics().executed, 1);
    assert_eq!(world.room.statistics().under_way, 0);
}

#[test]
fn commands_are_authorized_over_the_name_of_the_forwarding_key() {
    let mut world = World::new();
    let queue = world.queue(QueueMode::Messaging);
    let id = world.attach(1);
    let published = world.published(id);
    for secret in
        [AuthSecret::generate_ed25519(&mut world.entropy), AuthSecret::generate_x25519(&mut world.entropy)]
    {
        let queue = world.queue(QueueMode::Messaging);
        let key = secret.public(&Portable);
        let skey = world.make(published, &queue.sender, &Command::SecureBySender(key), Some(&secret));
        let heard = world.forward(id, &skey, PLAIN);
        assert_eq!(skey.open(&heard), Said::Ok);
        let made = world.send(published, &queue, b"signed", Some(&secret));
        let heard = world.forward(id, &made, PLAIN);
        assert_eq!(made.open(&heard), Said::Ok);
        assert_eq!(world.bodies(&queue), [b"signed"]);
        // The same, authorized for another key's name.
        let other = Published { number: RelayNumber(published.number.0 + 1), ..published };
        let wrong = world.send(other, &queue, b"signed", Some(&secret));
        let mut content = wrong.sealed.clone();
        let content = wrong.keys.open_command(&Portable, &mut content).unwrap().to_vec();
        let fresh = X25519Secret::generate(&mut world.entropy);
        let moved = world.seal(published, &fresh, wrong.correlation, &content);
        let heard = world.forward(id, &moved, PLAIN);
        assert_eq!(moved.open(&heard), Said::Error(SmpError::Authorization));
    }
    let made = world.send(published, &queue, b"unsigned", None);
    let heard = world.forward(id, &made, PLAIN);
    assert_eq!(made.open(&heard), Said::Ok, "not secured yet");
}

#[test]
fn link_data_is_answered_and_only_that_it_was_is_kept() {
    let mut world = World::new();
    let id = world.attach(1);
    let published = world.published(id);
    let nobody = EntityId::from([9; 24]);
    let made = world.make(published, &nobody, &Command::GetLink, None);
    let heard = world.forward(id, &made, PLAIN);
    assert_eq!(made.open(&heard), Said::Error(SmpError::Authorization), "there is no such link");
    assert_eq!(world.receipts(), 1);
    let link = EntityId::from([5; 24]);
    let queue = world.queue(QueueMode::Messaging);
    let data = LinkData { fixed: &[1; 300], user: &[2; 900] };
    let from = world.broker.connect(world.now).unwrap();
    let command = Command::SetLink { link: link.clone(), data };
    let said = world.believe(from, queue.recipient.clone(), command, Some(World::recipient_key()));
    assert!(matches!(said, OutgoingContent::Ok), "{said:?}");
    let secret = AuthSecret::generate_x25519(&mut world.entropy);
    let key = secret.public(&Portable);
    let made = world.make(published, &link, &Command::SecureByLink(key), Some(&secret));
    let heard = world.forward(id, &made, UNSECURED);
    assert_eq!(made.open(&heard), Said::Link(vec![1; 300], vec![2; 900]));
    for _ in 0..2 {
        assert_eq!(world.forward(id, &made, UNSECURED), Heard::Error(FirstStepError::Repeated));
        world.restart();
        world.attach(1);
    }
    let made = world.send(published, &queue, b"secured", Some(&secret));
    let heard = world.forward(id, &made, PLAIN);
    assert_eq!(made.open(&heard), Said::Ok);
}

#[test]
fn a_blob_is_boxed_for_its_reader_with_the_forwarding_key() {
    let mut world = World::new();
    let id = world.attach(1);
    let published = world.published(id);
    let reader = X25519Secret::generate(&mut world.entropy);
    let public = Portable.x25519_public(&reader);
    let blob = blob::id(&public);
    let record = BlobRecord { key: World::recipient_key(), written: world.now.wall };
    let value = Bytes::from(vec![3; 15_000]);
    let put = StorageAction::PutBlob { id: blob, record: record.clone(), value: value.clone() };
    world.storage.apply(ActionId(u64::MAX), put);
    world.broker.restore_blob(blob, record).unwrap();
    let entity = Identifier::new(&public.0).unwrap();
    let made = world.make(published, &entity, &Command::ReadBlob, None);
    let Heard::Sealed(sealed) = world.forward(id, &made, PLAIN) else { panic!("no answer") };
    let mut sealed = sealed.to_vec();
    let text = made.keys.open_answer(&Portable, &mut sealed).unwrap();
    let layout = SessionLayout { version: COMMAND_VERSION, session: &[] };
    let bytes = Batch::parse(text).unwrap().next().unwrap();
    let read = AnswerTransmission::decode_response(bytes, layout).unwrap();
    let Response::Blob(boxed) = read.content else { panic!("no blob") };
    let mut boxed = boxed.to_vec();
    let opened = blob::open_answer(&Portable, &reader, &published.key, &made.correlation, &mut boxed);
    assert_eq!(opened.map(|blob| blob.to_vec()), Ok(value.to_vec()));
    assert_eq!(world.forward(id, &made, PLAIN), Heard::Error(FirstStepError::Repeated));
}

/// Secured, and the link data cannot be read: that it was secured is known when it comes again.
#[test]
fn an_answer_that_is_lost_with_storage_leaves_its_receipt() {
    let mut world = World::new();
    let id = world.attach(1);
    let published = world.published(id);
    let link = EntityId::from([5; 24]);
    let queue = world.queue(QueueMode::Messaging);
    let data = LinkData { fixed: &[1; 300], user: &[2; 900] };
    let from = world.broker.connect(world.now).unwrap();
    let command = Command::SetLink { link: link.clone(), data };
    world.believe(from, queue.recipient.clone(), command, Some(World::recipient_key()));
    let secret = AuthSecret::generate_x25519(&mut world.entropy);
    let key = secret.public(&Portable);
    let made = world.make(published, &link, &Command::SecureByLink(key), Some(&secret));
    world.fails = |action| matches!(action, StorageAction::ReadLink { .. });
    assert_eq!(world.forward(id, &made, PLAIN), Heard::Error(FirstStepError::Internal));
    world.fails = |_| false;
    assert_eq!(world.forward(id, &made, PLAIN), Heard::Error(FirstStepError::Repeated));
}

#[test]
fn what_may_not_be_forwarded_is_refused_in_a_sealed_answer() {
    let mut world = World::new();
    let queue = world.queue(QueueMode::Messaging);
    let id = world.attach(1);
    let published = world.published(id);
    let secret = AuthSecret::Ed25519(Ed25519Secret::from_bytes([1; 32]));
    let made = world.make(published, &queue.recipient, &Command::Subscribe, Some(&secret));
    let heard = world.forward(id, &made, PLAIN);
    assert_eq!(made.open(&heard), Said::Error(SmpError::Command(CommandError::Prohibited)));
    // Not one transmission, and none at all.
    let ping = [0, 0, 0, b'P', b'I', b'N', b'G'];
    let two = [&[2][..], &[0, 7], &ping, &[0, 7], &ping].concat();
    for content in [&two[..], b"", &[0], &[1], b"nonsense"] {
        let secret = X25519Secret::generate(&mut world.entropy);
        let made = world.seal(published, &secret, [0; 24], content);
        let heard = world.forward(id, &made, PLAIN);
        assert_eq!(made.open(&heard), Said::Error(SmpError::Block), "{content:?}");
        assert_eq!(world.forward(id, &made, PLAIN), heard, "the same again");
    }
}

#[test]
fn what_is_not_for_this_relay_gets_its_own_error() {
    let mut world = World::new();
    let queue = world.queue(QueueMode::Contact);
    let id = world.attach(1);
    let published = world.published(id);
    let mut made = world.send(published, &queue, b"hello", None);
    made.number = RelayNumber(published.number.0 + 1);
    assert_eq!(world.forward(id, &made, PLAIN), Heard::Error(FirstStepError::NoKey));
    made.number = published.number;
    made.sealed[500] ^= 1;
    assert_eq!(world.forward(id, &made, PLAIN), Heard::Error(FirstStepError::Crypto));
    made.sealed[500] ^= 1;
    assert_eq!(world.receipts(), 0);
    let heard = world.forward(id, &made, PLAIN);
    assert_eq!(made.open(&heard), Said::Ok, "what was forged under its key did not use it up");
    for message in [
        Message::Check { acknowledged: Correlation(0) },
        Message::Error(FirstStepError::Quota),
        Message::Response(&[0; SEALED_LENGTH]),
    ] {
        let transmission = Transmission { correlation: Correlation(77), relay: RelayNumber(0), message };
        world.receive(id, &transmission);
        world.settle();
        assert_eq!(world.answer_to(id, Correlation(77)), Heard::Error(FirstStepError::Syntax));
    }
    for content in [&b""[..], b"nonsense", &[0; 16_400]] {
        world.room.receive(id, Bytes::copy_from_slice(content), world.now, &mut world.entropy);
        world.settle();
        assert_eq!(world.answer_to(id, Correlation(0)), Heard::Error(FirstStepError::Syntax));
    }
}

#[test]
fn what_the_queue_does_not_take_yet_is_left_open_when_the_client_allows() {
    let mut world = World::new();
    let queue = world.queue(QueueMode::Messaging);
    let id = world.attach(1);
    let published = world.published(id);
    let secret = AuthSecret::generate_x25519(&mut world.entropy);
    let made = world.send(published, &queue, b"early", Some(&secret));
    for _ in 0..3 {
        assert_eq!(world.forward(id, &made, UNSECURED), Heard::Error(FirstStepError::NotYet));
        assert_eq!((world.receipts(), world.room.statistics().under_way), (0, 0));
    }
    let from = world.broker.connect(world.now).unwrap();
    let command = Command::SecureByRecipient(secret.public(&Portable));
    world.believe(from, queue.recipient.clone(), command, Some(World::recipient_key()));
    let heard = world.forward(id, &made, UNSECURED);
    assert_eq!(made.open(&heard), Said::Ok);
    assert_eq!(world.bodies(&queue), [b"early"]);
    // Without permission it is final, and stays so.
    let other = world.queue(QueueMode::Messaging);
    let made = world.send(published, &other, b"early", Some(&secret));
    let heard = world.forward(id, &made, FULL);
    assert_eq!(made.open(&heard), Said::Error(SmpError::Authorization));
    assert_eq!(world.forward(id, &made, UNSECURED), heard);
}

#[test]
fn a_full_queue_is_waited_for_when_the_client_allows() {
    let mut world = World::with(
        ForwardingConfig::default(),
        BrokerConfig { message_quota: 2, ..BrokerConfig::default() },
    );
    let queue = world.queue(QueueMode::Contact);
    let id = world.attach(1);
    let published = world.published(id);
    for body in [b"1", b"2"] {
        let made = world.send(published, &queue, body, None);
        let heard = world.forward(id, &made, FULL);
        assert_eq!(made.open(&heard), Said::Ok);
    }
    let waits = world.send(published, &queue, b"3", None);
    let final_ = world.send(published, &queue, b"4", None);
    for _ in 0..2 {
        assert_eq!(world.forward(id, &waits, FULL), Heard::Error(FirstStepError::NotYet));
        let heard = world.forward(id, &final_, UNSECURED);
        assert_eq!(final_.open(&heard), Said::Error(SmpError::Quota));
    }
    assert_eq!(world.bodies(&queue), [&b"1"[..], b"2", b""], "and the marker");
}

#[test]
fn when_storage_fails_nothing_happened_and_it_may_come_again() {
    let mut world = World::new();
    let queue = world.queue(QueueMode::Contact);
    let id = world.attach(1);
    let published = world.published(id);
    let made = world.send(published, &queue, b"hello", None);
    let nobody = EntityId::from([9; 24]);
    let read = world.make(published, &nobody, &Command::GetLink, None);
    world.fails = |action| !action.is_read();
    for _ in 0..2 {
        assert_eq!(world.forward(id, &made, PLAIN), Heard::Error(FirstStepError::Internal));
        assert_eq!(world.forward(id, &read, PLAIN), Heard::Error(FirstStepError::Internal));
    }
    world.fails = |_| false;
    assert_eq!((world.bodies(&queue).len(), world.receipts()), (0, 0));
    world.settle();
    let heard = world.forward(id, &made, PLAIN);
    assert_eq!(made.open(&heard), Said::Ok);
    let heard = world.forward(id, &read, PLAIN);
    assert_eq!(read.open(&heard), Said::Error(SmpError::Authorization));
    // A receipt that cannot be read decides nothing.
    world.fails = |action| matches!(action, StorageAction::ReadRecord { .. });
    assert_eq!(world.forward(id, &made, PLAIN), Heard::Error(FirstStepError::Internal));
    world.fails = |_| false;
    let heard = world.forward(id, &made, PLAIN);
    assert_eq!(made.open(&heard), Said::Ok);
    assert_eq!(world.bodies(&queue), [b"hello"]);
}

#[test]
fn what_is_under_way_is_bounded() {
    let limits = ForwardingLimits {
        commands_of_connection: 3,
        commands: 5,
        receipts_of_key: 9,
        ..ForwardingConfig::default().limits
    };
    let config = ForwardingConfig { limits, ..ForwardingConfig::default() };
    let mut world = World::with(config, BrokerConfig::default());
    let queue = world.queue(QueueMode::Contact);
    let ids = [1, 2].map(|id| world.attach(id));
    let published = world.published(ids[0]);
    let made: Vec<_> = (0..12).map(|number| world.send(published, &queue, &[number], None)).collect();
    for one in &made[..3] {
        assert!(world.room.has_room(ids[0]));
        world.give(ids[0], one, PLAIN);
        world.turn();
    }
    assert!(!world.room.has_room(ids[0]), "what comes now is dropped");
    world.give(ids[0], &made[3], PLAIN);
    assert_eq!(world.room.statistics().under_way, 3);
    for one in &made[3..5] {
        world.give(ids[1], one, PLAIN);
        world.turn();
    }
    let over = world.give(ids[1], &made[5], PLAIN);
    world.turn();
    assert_eq!(world.answer_to(ids[1], over), Heard::Error(FirstStepError::Quota));
    world.settle();
    assert_eq!(world.bodies(&queue).len(), 5);
    assert!(ids.iter().all(|id| world.room.has_room(*id)));
    for one in &made[5..9] {
        assert!(matches!(world.forward(ids[0], one, PLAIN), Heard::Sealed(_)));
    }
    // As many receipts as the key may have.
    assert_eq!(world.forward(ids[0], &made[9], PLAIN), Heard::Error(FirstStepError::Quota));
    assert_eq!(world.room.statistics().over_quota, 2);
}

#[test]
fn equal_inputs_have_equal_outputs() {
    let run = || {
        let mut world = World::new();
        let queue = world.queue(QueueMode::Contact);
        let id = world.attach(1);
        let published = world.published(id);
        let made = world.send(published, &queue, b"hello", None);
        let mut digests = vec![world.room.digest()];
        world.give(id, &made, PLAIN);
        digests.push(world.room.digest());
        world.settle();
        digests.push(world.room.digest());
        world.pass(3 * DAY);
        digests.push(world.room.digest());
        digests
    };
    let digests = run();
    assert_eq!(digests, run());
    assert!(digests.windows(2).all(|pair| pair[0] != pair[1]));
}
