//! What happens to a connection that is up: it moves to another relay, its encryption begins anew, its queue is full, its
//! peer is gone; and what bad input does to it.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod agent_world;

use agent_world::{World, modern};
use smp_proto::agent::{
    AgentConfig, CommandError, ConnectionId, Direction, DroppedBecause, Event, Integrity, SwitchPhase,
};
use smp_proto::crypto::ratchet::Synchronization;

/// Alice (0) and Bob (1), connected by relays 0 and 1; relay 2 is free.
fn connected(configs: [AgentConfig; 2]) -> (World, [ConnectionId; 2]) {
    let mut world = World::new(3, configs);
    let alice = world.create_invitation(0, 0, Some(b"Alice"));
    let link = world.link(0, alice);
    let bob = world.join(1, 1, &link, b"Bob");
    world.until("connected", |world| world.is_connected(0, alice) && world.is_connected(1, bob));
    (world, [alice, bob])
}

/// Acknowledges all that comes, and returns it.
fn read(world: &mut World, who: usize, connection: ConnectionId) -> Vec<(i64, Integrity, Vec<u8>)> {
    let mut read: Vec<(i64, Integrity, Vec<u8>)> = Vec::new();
    loop {
        world.settle();
        let mut new = Vec::new();
        world.people[who].events.retain(|event| match event {
            Event::Message { number, integrity, body, .. } => {
                new.push((*number, *integrity, body.clone()));
                false
            }
            _ => true,
        });
        if new.is_empty() {
            return read;
        }
        for (number, integrity, body) in new {
            if read.iter().all(|(known, ..)| *known != number) {
                read.push((number, integrity, body));
            }
            let (now, entropy) = (world.now, &mut world.entropy);
            match world.people[who].agent.acknowledge(connection, number, None, now, entropy) {
                Ok(()) | Err(CommandError::UnknownMessage) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn assert_talk(world: &mut World, [alice, bob]: [ConnectionId; 2]) {
    for (from, connection, to, other) in [(0, alice, 1, bob), (1, bob, 0, alice)] {
        let number = world.send(from, connection, b"hello");
        assert_eq!(read(world, to, other), [(number, Integrity::Ok, b"hello".to_vec())]);
    }
}

fn phases(world: &World, who: usize, direction: Direction) -> Vec<SwitchPhase> {
    let phase = |event: &Event| match event {
        Event::Switched { direction: that, phase, .. } if *that == direction => Some(*phase),
        _ => None,
    };
    world.people[who].events.iter().filter_map(phase).collect()
}

fn completed(world: &World, who: usize, direction: Direction) -> bool {
    phases(world, who, direction).last() == Some(&SwitchPhase::Completed)
}

fn switch(world: &mut World, who: usize, connection: ConnectionId, relay: usize) -> Result<(), CommandError> {
    let relay = world.relay(relay);
    let (now, entropy) = (world.now, &mut world.entropy);
    world.people[who].agent.switch(connection, relay, now, entropy)
}

#[test]
fn a_connection_moves_to_another_relay_and_messages_keep_flowing() {
    for fast in [false, true] {
        let config = AgentConfig { fast_switch: fast, ..modern() };
        let (mut world, connections @ [alice, bob]) = connected([config.clone(), config]);
        // Bob has said things that Alice has not read yet.
        let before: Vec<_> = (0..3u8).map(|byte| world.send(1, bob, &[byte])).collect();
        world.settle();
        switch(&mut world, 0, alice, 2).unwrap();
        assert!(matches!(switch(&mut world, 0, alice, 2), Err(CommandError::Stage(_))));
        let mut got = read(&mut world, 0, alice);
        let during: Vec<_> = (3..6u8).map(|byte| world.send(1, bob, &[byte])).collect();
        world.until("switched", |world| {
            got.extend(read(world, 0, alice));
            completed(world, 0, Direction::Receive) && completed(world, 1, Direction::Send)
        });
        got.extend(read(&mut world, 0, alice));
        let expected: Vec<_> = before
            .iter()
            .chain(&during)
            .zip(0u8..)
            .map(|(number, byte)| (*number, Integrity::Ok, vec![byte]))
            .collect();
        let bodies = |list: &[(i64, Integrity, Vec<u8>)]| {
            list.iter().map(|(.., body)| body.clone()).collect::<Vec<_>>()
        };
        assert_eq!(bodies(&got), bodies(&expected), "fast: {fast}");
        assert!(got.iter().all(|(_, integrity, _)| *integrity == Integrity::Ok), "{got:?}");
        // Nothing is left on the old relay, and it is not needed any more.
        assert_eq!(world.relays[0].storage.queues().count(), 0);
        world.relays[0].reachable = false;
        assert_talk(&mut world, connections);
        world.crash(0);
        world.crash(1);
        assert_talk(&mut world, connections);
        // And back again, from the other side as well.
        world.relays[0].reachable = true;
        for person in &mut world.people {
            person.events.clear();
        }
        switch(&mut world, 1, bob, 0).unwrap();
        world.until("switched", |world| {
            completed(world, 1, Direction::Receive) && completed(world, 0, Direction::Send)
        });
        assert_talk(&mut world, connections);
        assert!(
            world.people.iter().all(|person| !person.saw(|event| matches!(event, Event::Dropped { .. })))
        );
    }
}

#[test]
fn what_waits_in_the_old_queue_comes_before_what_comes_by_the_new_one() {
    let (mut world, [alice, bob]) = connected([modern(), modern()]);
    let mut expected = Vec::new();
    // Alice reads nothing: the first of these waits for her application, the others at the relay.
    for byte in 0..4u8 {
        expected.push((world.send(1, bob, &[byte]), Integrity::Ok, vec![byte]));
    }
    world.settle();
    switch(&mut world, 0, alice, 2).unwrap();
    // Bob does his part, and goes on by the new queue.
    let first = world.people[0].messages();
    assert_eq!(first.len(), 1);
    world.until("told", |world| phases(world, 0, Direction::Receive).contains(&SwitchPhase::Started));
    for byte in 4..8u8 {
        expected.push((world.send(1, bob, &[byte]), Integrity::Ok, vec![byte]));
    }
    // The owner has to read what is before the other side's key.
    let mut got = Vec::new();
    world.until("all", |world| {
        got.extend(read(world, 0, alice));
        got.len() == 8 && completed(world, 0, Direction::Receive)
    });
    let bodies: Vec<_> = got.iter().map(|(.., body)| body[0]).collect();
    assert_eq!(bodies, (0..8).collect::<Vec<u8>>());
    assert!(got.iter().all(|(_, integrity, _)| *integrity == Integrity::Ok), "{got:?}");
}

#[test]
fn a_switch_survives_a_crash_of_either_at_every_step() {
    for fast in [false, true] {
        for victim in [0, 1] {
            for at in 0.. {
                let config = AgentConfig { fast_switch: fast, ..modern() };
                let (mut world, connections @ [alice, bob]) = connected([config.clone(), config]);
                switch(&mut world, 0, alice, 2).unwrap();
                world.send(1, bob, b"meanwhile");
                let mut steps = 0;
                let mut crashed = false;
                while steps < at
                    && let Some(who) = world.step_of()
                {
                    steps += usize::from(who == Some(victim));
                    crashed = steps == at;
                }
                let name = format!("fast: {fast}, {victim} at {at}");
                if at > 0 && !crashed {
                    assert!(at > 10, "{name}: the story is too short");
                    break;
                }
                world.crash(victim);
                if world.people[1].agent.status(bob).unwrap().accepted == 0 {
                    // It was not durable: the application sends it again.
                    world.send(1, bob, b"meanwhile");
                }
                let wanted = victim != 0 || at > 0;
                if !wanted {
                    switch(&mut world, 0, alice, 2).unwrap();
                }
                let mut got = Vec::new();
                world.until(&name, |world| {
                    got.extend(read(world, 0, alice));
                    let old = world.relays[0].storage.queues().count();
                    got.len() == 1 && old == 0 && world.relays[2].storage.queues().count() >= 1
                });
                assert_eq!(got[0].2, b"meanwhile", "{name}");
                assert_talk(&mut world, connections);
                let dropped = |event: &Event| matches!(event, Event::Dropped { .. });
                assert!(world.people.iter().all(|person| !person.saw(dropped)), "{name}");
            }
        }
    }
}

fn synchronization(world: &World, who: usize, connection: ConnectionId) -> Synchronization {
    world.people[who].agent.status(connection).unwrap().synchronization
}

#[test]
fn encryption_that_has_come_apart_is_begun_anew() {
    for who_begins in [0, 1] {
        let (mut world, connections @ [alice, bob]) = connected([modern(), modern()]);
        assert_talk(&mut world, connections);
        // Alice's database is restored from an old copy, after much was said.
        let copy = world.people[0].records.clone();
        for _ in 0..3 {
            assert_talk(&mut world, connections);
        }
        world.people[0].records = copy;
        world.crash(0);
        world.send(1, bob, b"can you read this?");
        world.settle();
        world.wait();
        world.settle();
        let lost =
            |event: &Event| matches!(event, Event::Dropped { because: DroppedBecause::Ratchet(_), .. });
        assert!(world.people[0].saw(lost), "{:?}", world.people[0].events);
        assert_eq!(synchronization(&world, 0, alice), Synchronization::Required);
        let (now, entropy) = (world.now, &mut world.entropy);
        let refused = world.people[0].agent.send(alice, b"no", false, now, entropy);
        assert_eq!(refused, Err(CommandError::NotSynchronized));
        let connection = connections[who_begins];
        world.people[who_begins].agent.synchronize(connection, who_begins == 1, now, entropy).unwrap();
        world.until("in step", |world| {
            [0, 1].iter().all(|who| synchronization(world, *who, connections[*who]) == Synchronization::Good)
        });
        // The chain of Alice's numbers has gone back, which is told once.
        for (from, connection, to, other) in [(0, alice, 1, bob), (1, bob, 0, alice)] {
            let number = world.send(from, connection, b"again");
            let got = read(&mut world, to, other);
            assert_eq!((got.len(), got[0].0, &got[0].2[..]), (1, number, &b"again"[..]));
        }
    }
}

#[test]
fn both_may_begin_anew_at_once() {
    let (mut world, connections) = connected([modern(), modern()]);
    for (who, connection) in connections.into_iter().enumerate() {
        let (now, entropy) = (world.now, &mut world.entropy);
        let refused = world.people[who].agent.synchronize(connection, false, now, entropy);
        assert!(matches!(refused, Err(CommandError::Stage(_))));
        world.people[who].agent.synchronize(connection, true, now, entropy).unwrap();
    }
    world.until("in step", |world| {
        [0, 1].iter().all(|who| synchronization(world, *who, connections[*who]) == Synchronization::Good)
    });
    assert_talk(&mut world, connections);
}

#[test]
fn a_full_queue_is_told_and_goes_on_when_it_was_read() {
    let (mut world, [alice, bob]) = connected([modern(), modern()]);
    world.go_offline(0);
    let count = 140u8;
    let numbers: Vec<_> = (0..count).map(|byte| world.send(1, bob, &[byte])).collect();
    world.until("full", |world| world.people[1].saw(|event| matches!(event, Event::Full { .. })));
    world.come_online(0);
    let mut got = Vec::new();
    let started = world.now.instant;
    world.until("all of them", |world| {
        got.extend(read(world, 0, alice));
        got.len() == usize::from(count)
    });
    // Alice has told Bob, who did not wait for his own next attempt.
    assert!(world.people[1].saw(|event| matches!(event, Event::Continues { .. })));
    assert!(world.now.instant.saturating_since(started) < std::time::Duration::from_secs(60));
    let expected: Vec<_> =
        numbers.into_iter().zip(0..count).map(|(number, byte)| (number, Integrity::Ok, vec![byte])).collect();
    assert_eq!(got, expected);
}

#[test]
fn messages_to_somebody_who_is_gone_fail_and_nothing_else_does() {
    let (mut world, [alice, bob]) = connected([modern(), modern()]);
    world.delete(0, alice);
    world.until("deleted", |world| world.people[0].agent.status(alice).is_none());
    let number = world.send(1, bob, b"are you there?");
    let failed = |event: &Event| matches!(event, Event::NotSent { number: that, .. } if *that == number);
    world.until("failed", |world| world.people[1].saw(failed));
    assert!(world.is_connected(1, bob), "whether to delete it is the application's decision");
    world.delete(1, bob);
    world.until("deleted", |world| world.people[1].agent.status(bob).is_none());
    assert!(world.people.iter().all(|person| person.records.len() == 1), "only the counters are left");
    assert!(world.relays.iter().all(|relay| relay.storage.queues().count() == 0));
}

#[test]
fn a_suspended_connection_takes_no_more_messages_and_gives_what_it_has() {
    let (mut world, [alice, bob]) = connected([modern(), modern()]);
    let first = world.send(1, bob, b"in time");
    world.settle();
    // The wish is durable, and survives a crash before it leaves.
    let (now, entropy) = (world.now, &mut world.entropy);
    world.people[0].agent.suspend(alice, now, entropy).unwrap();
    world.step();
    world.crash(0);
    world.until("suspended", |world| world.people[0].saw(|event| matches!(event, Event::Suspended { .. })));
    let late = world.send(1, bob, b"too late");
    let refused = |event: &Event| matches!(event, Event::NotSent { number, .. } if *number == late);
    world.until("refused", |world| world.people[1].saw(refused));
    assert_eq!(read(&mut world, 0, alice), [(first, Integrity::Ok, b"in time".to_vec())]);
}

#[test]
fn limits_hold_and_say_so() {
    let mut config = modern();
    config.limits.connections = 2;
    config.limits.outgoing = 4;
    config.limits.requests = 1;
    let (mut world, [alice, bob]) = connected([config.clone(), config]);
    let relay = world.relay(0);
    let (now, entropy) = (world.now, &mut world.entropy);
    let address = world.people[0].agent.create_address(relay.clone(), now, entropy).unwrap();
    let too_many = world.people[0].agent.create_invitation(relay, None, now, entropy);
    assert_eq!(too_many, Err(CommandError::TooMany));
    world.go_offline(1);
    for _ in 0..4 {
        world.people[1].agent.send(bob, b"x", false, now, &mut world.entropy).unwrap();
    }
    let refused = world.people[1].agent.send(bob, b"x", false, now, &mut world.entropy);
    assert_eq!(refused, Err(CommandError::TooMany));
    world.come_online(1);
    let too_long = vec![0; smp_proto::agent::MAX_BODY + 1];
    let refused = world.people[0].agent.send(alice, &too_long, false, now, &mut world.entropy);
    assert_eq!(refused, Err(CommandError::TooLong));
    world.until("four messages", |world| {
        read(world, 0, alice);
        world.people[0].agent.status(alice).is_some()
            && world.people[1].agent.status(bob).unwrap().waiting == 0
    });
    let longest = vec![7; smp_proto::agent::MAX_BODY];
    let number = world.send(0, alice, &longest);
    world.until("the longest", |world| !world.people[1].messages().is_empty());
    assert!(world.people[1].messages() == [(number, longest)]);
    // Requests beyond the limit wait at the relay.
    let link = world.link(0, address);
    world.delete(1, bob);
    world.settle();
    world.join(1, 1, &link, b"first");
    world.settle();
    world.join(1, 1, &link, b"second");
    world.settle();
    let requests = |world: &World| -> Vec<_> {
        let request = |event: &Event| match event {
            Event::Requested { request, information, .. } => Some((*request, information.clone())),
            _ => None,
        };
        world.people[0].events.iter().filter_map(request).collect()
    };
    let first = requests(&world);
    assert_eq!(first.len(), 1);
    let (now, entropy) = (world.now, &mut world.entropy);
    world.people[0].agent.reject(first[0].0, now, entropy).unwrap();
    world.until("the second", |world| requests(world).len() == 2);
    assert_eq!(requests(&world)[1].1, b"second");
}
