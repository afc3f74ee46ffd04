//! Once: also for first-step relays that forward again, on purpose or not.

use super::*;
use crate::broker::storage::RecordWrite;
use crate::wire::error::SmpError;

#[test]
fn the_same_again_gets_the_same_bytes_and_is_executed_once() {
    let mut world = World::new();
    let queue = world.queue(QueueMode::Contact);
    let ids = [1, 2].map(|id| world.attach(id));
    let published = world.published(ids[0]);
    let made = world.send(published, &queue, b"hello", None);
    let heard = world.forward(ids[0], &made, PLAIN);
    for id in ids {
        assert_eq!(world.forward(id, &made, FULL), heard);
    }
    world.restart();
    let id = world.attach(3);
    assert_eq!(world.forward(id, &made, PLAIN), heard);
    assert_eq!(world.bodies(&queue), [b"hello"]);
}

#[test]
fn while_it_is_under_way_the_last_who_asks_is_answered() {
    let mut world = World::new();
    let queue = world.queue(QueueMode::Contact);
    let ids = [1, 2, 3].map(|id| world.attach(id));
    let published = world.published(ids[0]);
    let made = world.send(published, &queue, b"hello", None);
    let first = world.give(ids[0], &made, PLAIN);
    world.turn();
    let second = world.give(ids[1], &made, PLAIN);
    let third = world.give(ids[1], &made, PLAIN);
    world.detach(ids[0]);
    world.settle();
    let heard = world.answer_to(ids[1], third);
    assert_eq!(made.open(&heard), Said::Ok);
    assert!(world.heard.is_empty(), "nobody else: {first:?} {second:?}");
    // The connection of who asked is gone before the answer.
    let made = world.send(published, &queue, b"again", None);
    world.give(ids[1], &made, PLAIN);
    world.turn();
    world.detach(ids[1]);
    world.settle();
    let heard = world.forward(ids[2], &made, PLAIN);
    assert_eq!(made.open(&heard), Said::Ok);
    assert_eq!(world.bodies(&queue), [&b"hello"[..], b"again"]);
}

#[test]
fn what_a_task_had_when_its_connection_ended_may_come_again() {
    let mut world = World::new();
    let queue = world.queue(QueueMode::Contact);
    let ids = [1, 2].map(|id| world.attach(id));
    let published = world.published(ids[0]);
    let made = world.send(published, &queue, b"hello", None);
    world.give(ids[0], &made, PLAIN);
    let sealed = world.room.poll_command(ids[0]).unwrap();
    let other = world.give(ids[1], &made, PLAIN);
    world.detach(ids[0]);
    world.settle();
    assert_eq!(world.answer_to(ids[1], other), Heard::Error(FirstStepError::Internal));
    // What it brings all the same is too late.
    let opened = sealed.open(&Portable).unwrap();
    let mut request = opened.request();
    world.broker.look_up(&mut request);
    let verified = world.verifier.verify(&opened, request, &mut world.entropy);
    world.room.execute(&mut world.broker, &opened, verified, world.now, &mut world.entropy);
    world.settle();
    assert!(world.bodies(&queue).is_empty());
    let heard = world.forward(ids[1], &made, PLAIN);
    assert_eq!(made.open(&heard), Said::Ok);
    assert_eq!(world.bodies(&queue).len(), 1);
}

/// A first-step relay that keeps everything that it ever forwarded, and forwards it again: at once, later, on other
/// connections, after a restart of the destination, under another number, and after the key's end. It is rejected under
/// `smp-proxy/1`: nothing is executed twice, and what it hears tells it nothing new.
///
/// Under the deployed form a replay is only *bounded*: the boxes of `RFWD` are those of one session, which ends with the
/// connection, so a proxy can have a command executed again as long as that connection lasts, and the recipient's agent
/// drops the message that it has already (its number in the ratchet). Deployed relays do the same.
#[test]
fn replay_by_a_malicious_first_step_relay_is_rejected() {
    let mut world = World::new();
    let contact = world.queue(QueueMode::Contact);
    let queue = world.queue(QueueMode::Messaging);
    let id = world.attach(1);
    let published = world.published(id);
    let secret = AuthSecret::generate_x25519(&mut world.entropy);
    let key = secret.public(&Portable);
    let mut recorded = Vec::new();
    let skey = world.make(published, &queue.sender, &Command::SecureBySender(key), Some(&secret));
    recorded.push((world.forward(id, &skey, PLAIN), skey));
    for body in 0..5 {
        let made = world.send(published, &queue, &[body], Some(&secret));
        recorded.push((world.forward(id, &made, UNSECURED), made));
        let made = world.send(published, &contact, &[body], None);
        recorded.push((world.forward(id, &made, FULL), made));
    }
    let wrong = world.send(published, &queue, b"not authorized", None);
    recorded.push((world.forward(id, &wrong, PLAIN), wrong));
    let expected = (world.bodies(&queue), world.bodies(&contact), world.receipts());
    assert_eq!((expected.0.len(), expected.1.len()), (5, 5));
    for round in 0..3_u64 {
        let id = world.attach(10 + round);
        for (heard, made) in &recorded {
            for options in [PLAIN, UNSECURED, FULL] {
                assert_eq!(world.forward(id, made, options), *heard);
            }
            // With its bytes changed it is still the command that was.
            let mut changed = Made {
                number: made.number,
                ephemeral: made.ephemeral,
                sealed: made.sealed.clone(),
                keys: ForwardKeys::of_client(
                    &Portable,
                    &X25519Secret::from_bytes([1; 32]),
                    made.number,
                    &published.key,
                ),
                correlation: made.correlation,
            };
            changed.sealed[100] ^= 1;
            assert_eq!(world.forward(id, &changed, PLAIN), *heard);
            // Under another number it cannot be opened.
            changed.sealed[100] ^= 1;
            changed.number = RelayNumber(made.number.0 ^ 1);
            assert_eq!(world.forward(id, &changed, PLAIN), Heard::Error(FirstStepError::NoKey));
        }
        // All of it at once.
        for (_, made) in &recorded {
            world.give(id, made, PLAIN);
        }
        world.settle();
        world.heard.clear();
        assert_eq!((world.bodies(&queue), world.bodies(&contact), world.receipts()), expected);
        world.restart();
    }
    // Under the next forwarding key it is another command, and cannot be opened; when its own has ended, neither.
    world.settle();
    let id = world.attach(20);
    world.pass(DAY + 60);
    let next = world.published(id);
    for (_, made) in &recorded {
        let moved = Made {
            number: next.number,
            ephemeral: made.ephemeral,
            sealed: made.sealed.clone(),
            keys: ForwardKeys::of_client(
                &Portable,
                &X25519Secret::from_bytes([1; 32]),
                next.number,
                &next.key,
            ),
            correlation: made.correlation,
        };
        assert_eq!(world.forward(id, &moved, PLAIN), Heard::Error(FirstStepError::Crypto));
    }
    world.pass(DAY);
    for (_, made) in &recorded {
        assert_eq!(world.forward(id, made, PLAIN), Heard::Error(FirstStepError::NoKey));
    }
    assert_eq!((world.bodies(&queue), world.bodies(&contact)), (expected.0, expected.1));
}

#[test]
fn a_client_that_uses_a_key_twice_gets_one_answer() {
    let mut world = World::new();
    let queue = world.queue(QueueMode::Contact);
    let id = world.attach(1);
    let published = world.published(id);
    let secret = X25519Secret::generate(&mut world.entropy);
    let made = world.send(published, &queue, b"one", None);
    let mut content = made.sealed.clone();
    let content = made.keys.open_command(&Portable, &mut content).unwrap().to_vec();
    let one = world.seal(published, &secret, made.correlation, &content);
    let nobody = EntityId::from([8; 24]);
    let lget = world.make(published, &nobody, &Command::GetLink, None);
    let mut content = lget.sealed.clone();
    let content = lget.keys.open_command(&Portable, &mut content).unwrap().to_vec();
    let two = world.seal(published, &secret, lget.correlation, &content);
    let heard = world.forward(id, &one, PLAIN);
    assert_eq!(one.open(&heard), Said::Ok);
    assert_eq!(world.forward(id, &two, PLAIN), heard);
}

#[test]
fn the_receipt_is_in_the_commit_of_the_command() {
    let mut world = World::new();
    let queue = world.queue(QueueMode::Messaging);
    let id = world.attach(1);
    let published = world.published(id);
    let secret = AuthSecret::generate_ed25519(&mut world.entropy);
    let key = secret.public(&Portable);
    let skey = world.make(published, &queue.sender, &Command::SecureBySender(key), Some(&secret));
    world.give(id, &skey, PLAIN);
    world.turn();
    world.hold();
    assert_eq!(world.held.len(), 1);
    let StorageAction::WithRecords { action, writes } = &world.held[0].1 else { panic!("{:?}", world.held) };
    assert!(matches!(**action, StorageAction::PutQueue { .. }));
    let [RecordWrite::Put { value, .. }] = &writes[..] else { panic!("{writes:?}") };
    assert_eq!(value[0], 1, "with the answer");
    world.settle();
    // Killed before the commit, and after it: executed once, and answered with the same bytes.
    let made = world.send(published, &queue, b"hello", Some(&secret));
    world.give(id, &made, PLAIN);
    world.turn();
    world.restart();
    assert_eq!((world.bodies(&queue).len(), world.receipts()), (0, 1));
    let id = world.attach(2);
    let correlation = world.give(id, &made, PLAIN);
    world.turn();
    assert!(world.complete_one());
    assert_eq!((world.bodies(&queue).len(), world.receipts()), (1, 2));
    world.turn();
    let heard = world.answer_to(id, correlation);
    assert_eq!(made.open(&heard), Said::Ok);
    world.restart();
    let id = world.attach(3);
    assert_eq!(world.forward(id, &made, PLAIN), heard);
    assert_eq!(world.bodies(&queue).len(), 1);
    // A command without a write has its receipt before its answer.
    let wrong = world.send(published, &queue, b"unsigned", None);
    let correlation = world.give(id, &wrong, PLAIN);
    world.turn();
    assert!(world.heard.is_empty());
    assert!(world.complete_one());
    world.turn();
    let heard = world.answer_to(id, correlation);
    assert_eq!(wrong.open(&heard), Said::Error(SmpError::Authorization));
}
