//! Forwarding keys: published when they are durable, rotated, and deleted with their receipts.

use super::*;

fn ask(world: &mut World, id: FirstStepId) -> Heard {
    let correlation = world.next_correlation();
    let register = Register { token: [0; 32], address: None, password: None };
    let message = Message::Register(register);
    world.receive(id, &Transmission { correlation, relay: RelayNumber(0), message });
    world.settle();
    world.answer_to(id, correlation)
}

fn number_of(heard: &Heard) -> RelayNumber {
    let Heard::Key { number, .. } = heard else { panic!("{heard:?}") };
    *number
}

#[test]
fn a_key_is_published_when_it_is_durable_and_not_before() {
    let mut world = World::new();
    // As at the first start, before storage has done anything.
    world.storage = StorageModel::default();
    world.restart();
    let id = world.attach(1);
    let correlation = world.next_correlation();
    let register = Register { token: [0; 32], address: None, password: None };
    let message = Message::Register(register);
    world.receive(id, &Transmission { correlation, relay: RelayNumber(0), message });
    world.turn();
    assert!(world.heard.is_empty(), "it waits for the key");
    world.settle();
    let heard = world.answer_to(id, correlation);
    assert!(is_genuine(&heard, &identity(40).1));
    assert!(!is_genuine(&heard, &identity(41).1));
    world.restart();
    let id = world.attach(2);
    assert_eq!(ask(&mut world, id), heard, "the same after a restart");
}

#[test]
fn while_keys_cannot_be_stored_there_are_none_and_later_there_are() {
    let mut world = World::new();
    world.storage = StorageModel::default();
    world.restart();
    world.fails = |action| !action.is_read();
    let id = world.attach(1);
    assert_eq!(ask(&mut world, id), Heard::Error(FirstStepError::Internal));
    world.fails = |_| false;
    world.pass(120);
    assert!(is_genuine(&ask(&mut world, id), &identity(40).1));
}

#[test]
fn another_key_each_day_and_each_is_taken_for_two() {
    let mut world = World::new();
    let queue = world.queue(QueueMode::Contact);
    let id = world.attach(1);
    let first = world.published(id);
    world.pass(DAY - 60);
    assert_eq!(world.published(id), first);
    world.pass(120);
    let second = world.published(id);
    assert!(second.number > first.number && second.key != first.key);
    let of_first = world.send(first, &queue, b"of the first", None);
    let heard = world.forward(id, &of_first, PLAIN);
    assert_eq!(of_first.open(&heard), Said::Ok);
    assert_eq!((world.receipts(), world.room.statistics().keys), (1, 2));
    world.pass(DAY);
    assert_eq!((world.receipts(), world.room.statistics().keys), (0, 2), "a third, and the first is gone");
    let late = world.send(first, &queue, b"late", None);
    assert_eq!(world.forward(id, &late, PLAIN), Heard::Error(FirstStepError::NoKey));
    assert_eq!(world.forward(id, &of_first, PLAIN), Heard::Error(FirstStepError::NoKey));
    let keys: Vec<_> = world.storage.records(&[PREFIX[0], b'K']).collect();
    assert_eq!(keys.len(), 2, "nothing is left of it");
    // Over restarts, too.
    for _ in 0..4 {
        world.restart();
        world.settle();
        let id = world.attach(3);
        assert_eq!(world.room.statistics().keys, 2);
        let before = world.published(id);
        world.pass(DAY);
        assert!(world.published(id).number > before.number);
    }
    assert_eq!(world.bodies(&queue).len(), 1);
}

/// Executed, and the answer lost until the key is over: whoever asks again learns that, and that it must not be sealed again.
#[test]
fn receipts_are_kept_beyond_the_end_of_their_key() {
    for clock in [0, -300 * DAY as i64] {
        let mut world = World::with(ForwardingConfig::default(), BrokerConfig::default());
        let queue = world.queue(QueueMode::Contact);
        let id = world.attach(1);
        let first = world.published(id);
        let done = world.send(first, &queue, b"done", None);
        let late = world.send(first, &queue, b"late", None);
        assert!(matches!(world.forward(id, &done, PLAIN), Heard::Sealed(_)));
        world.pass(2 * DAY + 60);
        let over = |world: &mut World, id| {
            for _ in 0..2 {
                assert_eq!(world.forward(id, &done, PLAIN), Heard::Error(FirstStepError::Repeated));
                assert_eq!(world.forward(id, &late, PLAIN), Heard::Error(FirstStepError::NoKey));
            }
        };
        over(&mut world, id);
        world.pass(19 * DAY);
        over(&mut world, id);
        world.fails = |action| action.is_read();
        assert_eq!(world.forward(id, &done, PLAIN), Heard::Error(FirstStepError::Internal));
        world.fails = |_| false;
        world.restart();
        let id = world.attach(2);
        over(&mut world, id);
        assert_eq!(world.receipts(), 1);
        world.now.wall = UnixTime(world.now.wall.0 + clock);
        world.pass(3 * DAY);
        assert_eq!(world.receipts(), 0);
        assert_eq!(world.forward(id, &done, PLAIN), Heard::Error(FirstStepError::NoKey));
        assert_eq!(world.bodies(&queue), [b"done"]);
    }
}

#[test]
fn receipts_are_deleted_in_bounded_steps_also_when_the_relay_stops_in_between() {
    let mut world = World::new();
    let id = world.attach(1);
    let first = world.published(id);
    let writes = (0..2 * DELETED_AT_ONCE + 5).map(|number| {
        let mut name = [0; 16];
        name[..4].copy_from_slice(&number.to_be_bytes());
        let name = crate::session::forwarding::CommandName { key: first.number, name };
        let key = super::super::record::RecordKey::Receipt(name).to_bytes();
        crate::broker::storage::RecordWrite::Put { key, value: Bytes::from_static(&[0]) }
    });
    let writes = writes.collect();
    world.storage.apply(ActionId(u64::MAX), StorageAction::WriteRecords { writes });
    world.storage.sync();
    world.pass(DAY + 60);
    world.now.instant = world.now.instant + Duration::from_secs(DAY);
    world.now.wall = world.now.wall.saturating_add(Duration::from_secs(DAY));
    world.room.handle_timeout(world.now, &mut world.entropy);
    let mut left = world.receipts();
    assert_eq!(left, 2 * DELETED_AT_ONCE as usize + 5);
    let secret_of = |world: &World| {
        let key = super::super::record::RecordKey::Key(first.number).to_bytes();
        world.storage.record(&key).map(|value| value.len())
    };
    assert!(secret_of(&world).is_some_and(|length| length > 32));
    let mut steps = 0;
    while world.complete_one() {
        assert!(left - world.receipts() <= DELETED_AT_ONCE as usize);
        assert!(left == world.receipts() || secret_of(&world) == Some(9), "the secret goes first");
        left = world.receipts();
        steps += 1;
        if steps == 3 {
            world.restart();
        }
    }
    assert_eq!((left, secret_of(&world)), (0, None));
}

#[test]
fn deletions_that_fail_are_tried_again() {
    let mut world = World::new();
    let queue = world.queue(QueueMode::Contact);
    let id = world.attach(1);
    let first = world.published(id);
    let made = world.send(first, &queue, b"hello", None);
    world.forward(id, &made, PLAIN);
    world.pass(DAY + 60);
    world.fails = |action| matches!(action, StorageAction::DeleteRecords { .. });
    world.pass(DAY);
    assert_eq!(world.receipts(), 1);
    world.fails = |_| false;
    world.pass(120);
    assert_eq!(world.receipts(), 0);
    assert_eq!(world.storage.records(&[PREFIX[0], b'K']).count(), 2);
}

#[test]
fn a_clock_that_jumps_destroys_nothing() {
    for jump in [400 * DAY as i64, -400 * DAY as i64, i64::MAX / 2, i64::MIN / 2, 3 * DAY as i64] {
        let mut world = World::new();
        let queue = world.queue(QueueMode::Contact);
        let id = world.attach(1);
        let published = world.published(id);
        world.pass(600);
        let right = world.now.wall;
        world.now.wall = UnixTime(right.0.saturating_add(jump));
        world.room.handle_timeout(world.now, &mut world.entropy);
        world.settle();
        let made = world.send(published, &queue, b"while it is wrong", None);
        let heard = world.forward(id, &made, PLAIN);
        assert_eq!(made.open(&heard), Said::Ok, "{jump}");
        let _ = world.published(id);
        world.pass(600);
        // Also when the relay starts while the clock is wrong.
        world.restart();
        world.settle();
        world.pass(60);
        let id = world.attach(2);
        world.now.wall = right;
        world.room.handle_timeout(world.now, &mut world.entropy);
        world.settle();
        let made = world.send(published, &queue, b"when it is right", None);
        let heard = world.forward(id, &made, PLAIN);
        assert_eq!(made.open(&heard), Said::Ok, "{jump}");
        // And in the end there are as few as ever.
        for _ in 0..12 {
            world.pass(DAY);
            let published = world.published(id);
            let made = world.send(published, &queue, b"later", None);
            let heard = world.forward(id, &made, PLAIN);
            assert_eq!(made.open(&heard), Said::Ok, "{jump}");
        }
        assert!(world.room.statistics().keys <= 3, "{jump}: {:?}", world.room.statistics());
    }
}

#[test]
fn a_clock_that_jumps_all_the_time_makes_no_heap_of_keys() {
    let mut world = World::new();
    let id = world.attach(1);
    let right = world.now.wall;
    for round in 0..200_i64 {
        world.now.wall = UnixTime(right.0 + (round % 7) * 100 * DAY as i64 - (round % 3) * 50 * DAY as i64);
        world.room.handle_timeout(world.now, &mut world.entropy);
        world.settle();
        let _ = world.published(id);
        assert!(world.room.statistics().keys <= world.config.limits.keys);
        world.pass(60);
    }
}

#[test]
fn a_renewed_certificate_publishes_present_keys_anew() {
    let mut world = World::new();
    let id = world.attach(1);
    let before = ask(&mut world, id);
    world.room.set_identity(identity(41).0);
    let after = ask(&mut world, id);
    assert!(is_genuine(&after, &identity(41).1) && !is_genuine(&before, &identity(41).1));
    assert_eq!(number_of(&before), number_of(&after));
    let Heard::Key { chain, .. } = &after else { panic!() };
    assert_eq!(chain, identity(41).0.chain());
}

#[test]
fn a_key_waits_for_its_last_command_and_takes_no_other() {
    let mut world = World::new();
    let queue = world.queue(QueueMode::Contact);
    let id = world.attach(1);
    let first = world.published(id);
    world.pass(2 * DAY - 60);
    let (made, other) = (world.send(first, &queue, b"last", None), world.send(first, &queue, b"late", None));
    let correlation = world.give(id, &made, PLAIN);
    world.turn();
    world.now.instant = world.now.instant + Duration::from_secs(600);
    world.now.wall = world.now.wall.saturating_add(Duration::from_secs(600));
    world.room.handle_timeout(world.now, &mut world.entropy);
    let refused = world.give(id, &other, PLAIN);
    world.settle();
    assert_eq!(world.answer_to(id, refused), Heard::Error(FirstStepError::NoKey));
    let heard = world.answer_to(id, correlation);
    assert_eq!(made.open(&heard), Said::Ok);
    assert_eq!((world.receipts(), world.bodies(&queue).len()), (0, 1));
}

#[test]
fn damaged_records_are_reported_and_unknown_ones_deleted() {
    let mut world = World::new();
    let connection = world.broker.connect(world.now).unwrap();
    let mut try_with = |key: &[u8], value: &[u8]| {
        let records = [(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value))];
        let (identity, now) = (world.identity.clone(), world.now);
        Forwarding::restore(world.config, &Portable, identity, connection, records, now, &mut world.entropy)
    };
    assert_eq!(try_with(&[2, b'?'], b"").err(), Some(RecordError::Kind));
    assert_eq!(try_with(&[2, b'K', 0, 0, 0, 7], b"?").err(), Some(RecordError::Key(RelayNumber(7))));
    let orphan = [&[2, b'R', 0, 0, 0, 7][..], &[1; 16]].concat();
    let mut room = try_with(&orphan, &[0]).unwrap();
    let actions: Vec<_> = core::iter::from_fn(|| room.poll_storage()).map(|(_, action)| action).collect();
    assert!(actions.iter().any(|action| matches!(action, StorageAction::DeleteRecords { .. })));
}

#[test]
fn completions_of_others_are_ignored() {
    let mut world = World::new();
    let digest = world.room.digest();
    for id in [ActionId(0), ActionId::of(Room::FirstStep, 0), ActionId::of(Room::Forwarding, 99)] {
        world.room.complete(Completion::Done(id), world.now);
        world.room.complete(Completion::Failed(id), world.now);
    }
    assert_eq!(world.room.digest(), digest);
    let key = ForwardingKey::new(&Portable, RelayNumber(1), X25519Secret::from_bytes([1; 32])).unwrap();
    assert!(!alloc::format!("{key:?}").contains("[1"), "never printed");
}
