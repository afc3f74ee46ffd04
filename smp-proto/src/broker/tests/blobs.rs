//! `WRT`, `CLR` and `READ`.

use super::*;
use crate::crypto::blob;

const READER: X25519Public = X25519Public([4; 32]);
const OWNER: u8 = 1;
const DAY: Duration = Duration::from_secs(24 * 3600);

fn reader() -> EntityId {
    EntityId::new(&READER.0).unwrap()
}

fn owners() -> EntityId {
    EntityId::new(&blob::id(&READER)).unwrap()
}

fn write(blob: &[u8], owner: u8) -> Command<'_> {
    Command::WriteBlob { key: key(owner), blob }
}

impl Relay {
    fn wrt(&mut self, value: &[u8], owner: u8) -> Said {
        let connection = self.connect();
        let said = self.ask(connection, &owners(), write(value, owner), Some(owner));
        self.broker.disconnect(connection);
        said
    }

    fn clr(&mut self, owner: u8) -> Said {
        let connection = self.connect();
        let said = self.ask(connection, &owners(), Command::ClearBlob, Some(owner));
        self.broker.disconnect(connection);
        said
    }

    fn read(&mut self) -> Said {
        let connection = self.connect();
        let said = self.ask(connection, &reader(), Command::ReadBlob, None);
        self.broker.disconnect(connection);
        said
    }
}

fn blob_of(value: &[u8]) -> Said {
    Said::Blob(READER, value.to_vec())
}

#[test]
fn the_first_key_owns_the_blob_and_whoever_knows_its_preimage_reads_it() {
    let mut relay = Relay::new();
    assert_eq!(relay.read(), AUTH);
    assert_eq!(relay.wrt(b"one", OWNER), Said::Ok);
    assert_eq!(relay.read(), blob_of(b"one"));
    // Another's key, and the owner's signature over another's key.
    assert_eq!(relay.wrt(b"evil", 9), AUTH);
    let connection = relay.connect();
    assert_eq!(relay.ask(connection, &owners(), write(b"evil", 9), Some(OWNER)), AUTH);
    assert_eq!(relay.wrt(b"two", OWNER), Said::Ok);
    assert_eq!(relay.read(), blob_of(b"two"));
    // The id reads nothing, and the reader's name writes nothing that it reads.
    assert_eq!(relay.ask(connection, &owners(), Command::ReadBlob, None), AUTH);
    assert_eq!(relay.clr(9), AUTH);
    assert_eq!(relay.read(), blob_of(b"two"));
}

#[test]
fn a_cleared_blob_is_gone_and_its_id_is_free() {
    let mut relay = Relay::new();
    assert_eq!(relay.clr(OWNER), AUTH);
    assert_eq!(relay.wrt(b"one", OWNER), Said::Ok);
    assert_eq!(relay.clr(OWNER), Said::Ok);
    assert_eq!((relay.read(), relay.clr(OWNER)), (AUTH, AUTH));
    assert_eq!(relay.storage.blobs().count(), 0);
    assert_eq!(relay.wrt(b"other", 9), Said::Ok);
    assert_eq!(relay.read(), blob_of(b"other"));
}

#[test]
fn names_of_other_lengths_are_nobodys() {
    let mut relay = Relay::new();
    let connection = relay.connect();
    for length in [1, 24, 31, 33, 255] {
        let entity = EntityId::new(&alloc::vec![4; length]).unwrap();
        assert_eq!(relay.ask(connection, &entity, write(b"x", OWNER), Some(OWNER)), AUTH);
        assert_eq!(relay.ask(connection, &entity, Command::ClearBlob, Some(OWNER)), AUTH);
        assert_eq!(relay.ask(connection, &entity, Command::ReadBlob, None), AUTH);
    }
}

#[test]
fn count_and_size_have_limits() {
    let mut relay = Relay::with(|config| {
        config.limits.blobs = 1;
        config.limits.blob_length = 4;
    });
    assert_eq!(relay.wrt(b"12345", OWNER), Error(SmpError::LargeMessage));
    assert_eq!(relay.wrt(b"1234", OWNER), Said::Ok);
    let connection = relay.connect();
    let other = EntityId::new(&[7; 32]).unwrap();
    assert_eq!(relay.ask(connection, &other, write(b"x", OWNER), Some(OWNER)), QUOTA);
    assert_eq!(relay.wrt(b"4321", OWNER), Said::Ok);
    assert_eq!(relay.clr(OWNER), Said::Ok);
    assert_eq!(relay.ask(connection, &other, write(b"x", OWNER), Some(OWNER)), Said::Ok);
}

#[test]
fn a_relay_that_is_not_for_everybody_takes_no_new_blobs() {
    for close in [
        |c: &mut BrokerConfig| c.new_queues = false,
        |c: &mut BrokerConfig| {
            c.create_password = Some(b"secret".to_vec().into());
        },
    ] {
        assert_eq!(Relay::with(close).wrt(b"x", OWNER), AUTH);
    }
}

#[test]
fn a_blob_that_is_not_written_again_expires() {
    let mut relay = Relay::with(|config| config.blob_time_to_live = Some(DAY * 10));
    assert_eq!(relay.wrt(b"x", OWNER), Said::Ok);
    relay.pass(DAY * 8);
    assert_eq!(relay.wrt(b"y", OWNER), Said::Ok);
    relay.pass(DAY * 8);
    relay.restart();
    assert_eq!(relay.read(), blob_of(b"y"));
    relay.fails = |action| matches!(action, StorageAction::DeleteBlob { .. });
    relay.pass(DAY * 3);
    assert_eq!(relay.read(), blob_of(b"y"), "it could not be deleted");
    relay.fails = |_| false;
    relay.pass(DAY);
    assert_eq!(relay.read(), AUTH);
    assert_eq!(relay.storage.blobs().count(), 0);
}

#[test]
fn what_is_not_durable_is_not_read_and_what_failed_is_as_before() {
    let mut relay = Relay::new();
    let connection = relay.connect();
    relay.give(connection, &owners(), write(b"one", OWNER), Some(OWNER));
    relay.give(connection, &reader(), Command::ReadBlob, None);
    assert_eq!(relay.hear(connection), [AUTH, Said::Ok]);
    relay.fails = |action| matches!(action, StorageAction::PutBlob { .. } | StorageAction::DeleteBlob { .. });
    assert_eq!(relay.wrt(b"two", OWNER), store_failed());
    assert_eq!(relay.clr(OWNER), store_failed());
    assert_eq!(relay.read(), blob_of(b"one"));
    relay.fails = |action| matches!(action, StorageAction::ReadBlob { .. });
    assert_eq!(relay.read(), store_failed());
    relay.fails = |_| false;
    relay.restart();
    assert_eq!(relay.read(), blob_of(b"one"));
    assert_eq!(relay.wrt(b"three", 9), AUTH, "the owner is the same after a restart");
    // A first write that fails leaves nothing.
    assert_eq!(relay.clr(OWNER), Said::Ok);
    relay.fails = |action| matches!(action, StorageAction::PutBlob { .. });
    assert_eq!(relay.wrt(b"one", OWNER), store_failed());
    relay.fails = |_| false;
    assert_eq!(relay.wrt(b"one", 9), Said::Ok);
}

#[test]
fn no_more_blobs_are_read_than_a_connection_may_have_under_way() {
    let mut relay = Relay::with(|config| config.limits.deliveries_in_flight = 2);
    assert_eq!(relay.wrt(b"x", OWNER), Said::Ok);
    let connection = relay.connect();
    for _ in 0..7 {
        relay.give(connection, &reader(), Command::ReadBlob, None);
    }
    relay.hold();
    assert_eq!(relay.held.len(), 2);
    assert_eq!(relay.hear(connection), alloc::vec![blob_of(b"x"); 7]);
}

#[test]
fn writes_are_counted_for_each_connection_and_for_all() {
    let mut relay = Relay::with(|config| {
        config.limits.blob_writes_of_connection = 2;
        config.limits.blob_writes = 3;
    });
    let (one, other) = (relay.connect(), relay.connect());
    let wrt =
        |relay: &mut Relay, connection| relay.ask(connection, &owners(), write(b"text", OWNER), Some(OWNER));
    assert_eq!([wrt(&mut relay, one), wrt(&mut relay, one)], [Said::Ok, Said::Ok]);
    assert_eq!(wrt(&mut relay, one), Said::Error(SmpError::Quota));
    // What is not allowed anyway counts for nothing, and is answered as ever.
    assert_eq!(relay.ask(one, &owners(), write(b"evil", 9), Some(9)), AUTH);
    assert_eq!(wrt(&mut relay, other), Said::Ok);
    assert_eq!(wrt(&mut relay, other), Said::Error(SmpError::Quota), "three in all");
    assert_eq!(relay.read(), blob_of(b"text"), "reading is not counted");
    relay.pass(Duration::from_secs(59));
    assert_eq!(wrt(&mut relay, one), Said::Error(SmpError::Quota));
    relay.pass(Duration::from_secs(1));
    assert_eq!([wrt(&mut relay, one), wrt(&mut relay, one)], [Said::Ok, Said::Ok]);
    assert_eq!(wrt(&mut relay, one), Said::Error(SmpError::Quota));
}
