//! How two agents connect, over real relays: in two messages, in four, by a contact address; what they say then.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod agent_world;

use agent_world::{World, modern, old};
use smp_proto::agent::{AgentConfig, ConnectionId, Event, FailedBecause, Integrity};

/// Alice (0) on relay 0 invites Bob (1) on relay 1; both are connected.
fn connected(configs: [AgentConfig; 2]) -> (World, [ConnectionId; 2]) {
    let mut world = World::new(2, configs);
    let alice = world.create_invitation(0, 0, Some(b"Alice"));
    let link = world.link(0, alice);
    let bob = world.join(1, 1, &link, b"Bob");
    world.until("connected", |world| world.is_connected(0, alice) && world.is_connected(1, bob));
    (world, [alice, bob])
}

fn told(world: &World, who: usize) -> Vec<Vec<u8>> {
    let information = |event: &Event| match event {
        Event::Information { information, .. } => Some(information.clone()),
        _ => None,
    };
    world.people[who].events.iter().filter_map(information).collect()
}

/// Both say something, several times, and acknowledge.
fn talk(world: &mut World, [alice, bob]: [ConnectionId; 2]) {
    for round in 0..3u8 {
        for (from, connection, to, other) in [(0, alice, 1, bob), (1, bob, 0, alice)] {
            world.people[to].events.clear();
            let number = world.send(from, connection, &[round, 1]);
            let second = world.send(from, connection, &[round, 2]);
            assert_eq!(second, number + 1);
            world.until("the first message", |world| world.people[to].messages().len() == 1);
            assert_eq!(world.people[to].messages(), [(number, vec![round, 1])]);
            world.acknowledge(to, other, number, Some(b"seen"));
            world.until("the second message", |world| world.people[to].messages().len() == 2);
            world.acknowledge(to, other, second, None);
            world.settle();
            let ok = |event: &Event| !matches!(event, Event::Message { integrity, .. } if *integrity != Integrity::Ok);
            assert!(world.people[to].events.iter().all(ok), "{:?}", world.people[to].events);
            let received = |event: &Event| {
                matches!(event, Event::Received { number: that, same: true, information, .. }
                    if *that == number && information == b"seen")
            };
            assert!(world.people[from].saw(received), "no receipt: {:?}", world.people[from].events);
            world.people[from].events.clear();
        }
    }
    for person in &world.people {
        assert!(!person.saw(|event| matches!(event, Event::Dropped { .. })), "{:?}", person.events);
    }
}

#[test]
fn two_agents_connect_in_two_messages_and_talk() {
    let (mut world, connections) = connected([modern(), modern()]);
    assert_eq!(told(&world, 0), [b"Bob"]);
    assert_eq!(told(&world, 1), [b"Alice"]);
    talk(&mut world, connections);
}

#[test]
fn every_pairing_of_new_and_old_agents_connects_and_talks() {
    for configs in [[modern(), old()], [old(), modern()], [old(), old()]] {
        let (mut world, connections) = connected(configs);
        assert_eq!((told(&world, 0), told(&world, 1)), (vec![b"Bob".to_vec()], vec![b"Alice".to_vec()]));
        talk(&mut world, connections);
    }
}

#[test]
fn the_application_decides_whom_to_allow() {
    let mut world = World::new(1, [modern(), modern()]);
    let alice = world.create_invitation(0, 0, None);
    let link = world.link(0, alice);
    let bob = world.join(1, 0, &link, b"Bob");
    let asked =
        |event: &Event| matches!(event, Event::Confirmed { information, .. } if information == b"Bob");
    world.until("the question", |world| world.people[0].saw(asked));
    assert!(!world.is_connected(1, bob));
    // The question is asked again after a restart.
    world.people[0].events.clear();
    world.crash(0);
    world.settle();
    assert!(world.people[0].saw(asked));
    let (now, entropy) = (world.now, &mut world.entropy);
    world.people[0].agent.allow(alice, b"Alice", now, entropy).unwrap();
    world.until("connected", |world| world.is_connected(0, alice) && world.is_connected(1, bob));
    assert_eq!(told(&world, 1), [b"Alice"]);
}

#[test]
fn the_acceptor_sends_before_the_initiator_is_ever_there() {
    let mut world = World::new(2, [modern(), modern()]);
    let alice = world.create_invitation(0, 0, Some(b"Alice"));
    let link = world.link(0, alice);
    world.settle();
    world.go_offline(0);
    let bob = world.join(1, 1, &link, b"Bob");
    world.until("joined", |world| {
        world.people[1].saw(|event| matches!(event, Event::Joined { may_send: true, .. }))
    });
    let number = world.send(1, bob, b"Hello Alice");
    let sent = |event: &Event| matches!(event, Event::Sent { number: that, .. } if *that == number);
    world.until("sent", |world| world.people[1].saw(sent));
    assert!(!world.is_connected(1, bob), "nobody has answered yet");
    // Alice comes, when Bob is gone.
    world.go_offline(1);
    world.come_online(0);
    world.until("the message", |world| world.people[0].messages() == [(number, b"Hello Alice".to_vec())]);
    assert!(world.is_connected(0, alice));
    world.acknowledge(0, alice, number, None);
    let answer = world.send(0, alice, b"Hello Bob");
    world.settle();
    world.go_offline(0);
    world.come_online(1);
    world.until("the answer", |world| world.people[1].messages() == [(answer, b"Hello Bob".to_vec())]);
    assert!(world.is_connected(1, bob));
}

#[test]
fn early_messages_are_read_before_the_application_has_decided() {
    let mut world = World::new(2, [modern(), modern()]);
    let alice = world.create_invitation(0, 0, None);
    let link = world.link(0, alice);
    let bob = world.join(1, 1, &link, b"Bob");
    world.until("joined", |world| world.people[1].agent.status(bob).unwrap().may_send);
    let number = world.send(1, bob, b"it is me");
    world.until("the message", |world| world.people[0].messages() == [(number, b"it is me".to_vec())]);
    let asked = world.people[0].events.iter().position(|event| matches!(event, Event::Confirmed { .. }));
    let told = world.people[0].events.iter().position(|event| matches!(event, Event::Message { .. }));
    assert!(asked.is_some() && asked < told, "first who it is, then what they say");
    let (now, entropy) = (world.now, &mut world.entropy);
    let refused = world.people[0].agent.send(alice, b"who?", false, now, entropy);
    assert!(refused.is_err(), "not allowed yet");
    // Told again, and acknowledged, after a restart.
    world.crash(0);
    world.acknowledge(0, alice, number, Some(b""));
    let (now, entropy) = (world.now, &mut world.entropy);
    world.people[0].agent.allow(alice, b"Alice", now, entropy).unwrap();
    world.until("connected", |world| world.is_connected(0, alice) && world.is_connected(1, bob));
    talk(&mut world, [alice, bob]);
}

#[test]
fn a_deleted_queue_fails_at_once_before_anything_else_is_created() {
    let mut world = World::new(2, [modern(), modern()]);
    let alice = world.create_invitation(0, 0, Some(b"Alice"));
    let link = world.link(0, alice);
    world.delete(0, alice);
    world.until("deleted", |world| world.people[0].saw(|event| matches!(event, Event::Deleted { .. })));
    assert_eq!(world.people[0].records.len(), 1, "only the counters are left");
    let bob = world.join(1, 1, &link, b"Bob");
    let failed = |event: &Event| matches!(event, Event::Failed { because: FailedBecause::LinkGone, connection } if *connection == bob);
    world.until("failed", |world| world.people[1].saw(failed));
    world.settle();
    assert_eq!(world.people[1].agent.status(bob), None);
    assert_eq!(world.relays[1].storage.queues().count(), 0, "a queue was created");
    assert_eq!(world.people[1].records.len(), 1, "only the counters are left");
}

#[test]
fn of_two_people_with_one_link_one_connects() {
    for configs in [[modern(), modern(), modern()], [old(), modern(), old()]] {
        let mut world = World::new(2, configs);
        let alice = world.create_invitation(0, 0, Some(b"Alice"));
        let link = world.link(0, alice);
        let bob = world.join(1, 1, &link, b"Bob");
        let carol = world.join(2, 1, &link, b"Carol");
        world.until("one connects", |world| world.is_connected(1, bob) || world.is_connected(2, carol));
        world.settle();
        assert!(world.is_connected(0, alice));
        assert!(world.is_connected(1, bob) != world.is_connected(2, carol));
        let (winner, connection) = if world.is_connected(1, bob) { (1, bob) } else { (2, carol) };
        let number = world.send(winner, connection, b"it is me");
        world.until("a message", |world| world.people[0].messages() == [(number, b"it is me".to_vec())]);
    }
}

#[test]
fn a_contact_address_serves_many_and_is_never_secured() {
    let mut world = World::new(2, [modern(), modern(), modern()]);
    let relay = world.relay(0);
    let (now, entropy) = (world.now, &mut world.entropy);
    let address = world.people[0].agent.create_address(relay, now, entropy).unwrap();
    let link = world.link(0, address);
    let bob = world.join(1, 1, &link, b"Bob");
    let carol = world.join(2, 1, &link, b"Carol");
    world.until("two requests", |world| {
        world.people[0].events.iter().filter(|event| matches!(event, Event::Requested { .. })).count() == 2
    });
    let mut accepted = Vec::new();
    for event in std::mem::take(&mut world.people[0].events) {
        let Event::Requested { request, information, .. } = event else { continue };
        let relay = world.relay(0);
        let (now, entropy) = (world.now, &mut world.entropy);
        if information == b"Bob" {
            accepted.push(world.people[0].agent.accept(request, relay, b"Alice", now, entropy).unwrap());
        } else {
            assert_eq!(information, b"Carol");
            world.people[0].agent.reject(request, now, entropy).unwrap();
        }
    }
    world.until("connected", |world| world.is_connected(0, accepted[0]) && world.is_connected(1, bob));
    assert!(!world.is_connected(2, carol));
    assert_eq!(told(&world, 1), [b"Alice"]);
    talk(&mut world, [accepted[0], bob]);
    // The address still works, and outlives nothing that was made by it.
    world.delete(0, address);
    world.settle();
    talk(&mut world, [accepted[0], bob]);
}

/// Bob's connections are warm: he is connected to somebody by the same relays. Alice is not there, so that nothing but
/// his own doing needs blocks; each is sent when the answer to the one before it has come.
#[test]
fn from_join_to_the_first_accepted_message_are_four_round_trips() {
    for short in [false, true] {
        let (mut world, _) = connected([modern(), modern()]);
        let alice = world.create_short_invitation(0, 0);
        let link = world.link(0, alice);
        let short_link = world.people[0].agent.short_link(alice).expect("the relay keeps it");
        world.settle();
        world.go_offline(0);
        world.people[1].events.clear();
        let before = world.people[1].blocks_sent;
        let bob = if short {
            world.join_by_short_link(1, 1, &short_link, b"Bob")
        } else {
            world.join(1, 1, &link, b"Bob")
        };
        let mut number = None;
        let sent = |event: &Event| matches!(event, Event::Sent { .. });
        while !world.people[1].saw(sent) {
            assert!(world.step() || world.people[1].saw(sent), "it does not go on");
            if number.is_none() && world.people[1].agent.status(bob).unwrap().may_send {
                number = Some(world.send(1, bob, b"Hello"));
            }
        }
        // SKEY or LKEY, NEW, the confirmation, the message.
        assert_eq!(world.people[1].blocks_sent - before, 4, "short: {short}");
    }
}

#[test]
fn two_people_connect_by_a_short_link_while_the_initiator_is_away() {
    let mut world = World::new(2, [modern(), modern(), modern()]);
    let alice = world.create_short_invitation(0, 0);
    world.link(0, alice);
    let link = world.people[0].agent.short_link(alice).expect("the relay keeps it");
    world.settle();
    world.go_offline(0);
    let bob = world.join_by_short_link(1, 1, &link, b"Bob");
    let read =
        |event: &Event| matches!(event, Event::LinkRead { user_data, .. } if user_data == b"preferences");
    world.until("joined", |world| {
        world.people[1].saw(|event| matches!(event, Event::Joined { may_send: true, .. }))
    });
    assert!(world.people[1].saw(read));
    let number = world.send(1, bob, b"Hello Alice");
    world.settle();
    world.go_offline(1);
    // Who comes too late gets nothing, and makes nothing.
    let queues = world.relays[1].storage.queues().count();
    let carol = world.join_by_short_link(2, 1, &link, b"Carol");
    let failed = |event: &Event| matches!(event, Event::Failed { because: FailedBecause::LinkGone, .. });
    world.until("failed", |world| world.people[2].saw(failed));
    world.settle();
    assert_eq!(world.people[2].agent.status(carol), None);
    assert_eq!(world.relays[1].storage.queues().count(), queues);
    world.come_online(0);
    world.until("the message", |world| world.people[0].messages() == [(number, b"Hello Alice".to_vec())]);
    world.acknowledge(0, alice, number, None);
    world.come_online(1);
    world.until("connected", |world| world.is_connected(0, alice) && world.is_connected(1, bob));
    talk(&mut world, [alice, bob]);
}

#[test]
fn a_contact_address_has_a_short_link_with_a_profile() {
    let mut world = World::new(2, [modern(), modern()]);
    let relay = world.relay(0);
    let (now, entropy) = (world.now, &mut world.entropy);
    let address =
        world.people[0].agent.create_short_address(relay, b"Alice's profile", now, entropy).unwrap();
    world.link(0, address);
    let link = world.people[0].agent.short_link(address).expect("the relay keeps it");
    // The profile changes, the link does not; the wish survives a crash, and a second one before the first is done.
    for profile in [&b"nobody reads this"[..], b"Alice's new profile"] {
        let (now, entropy) = (world.now, &mut world.entropy);
        world.people[0].agent.set_link_data(address, profile, now, entropy).unwrap();
        world.step();
    }
    world.step();
    world.crash(0);
    let updated = |event: &Event| matches!(event, Event::LinkUpdated { .. });
    world.until("updated", |world| world.people[0].saw(updated));
    assert_eq!(world.people[0].agent.short_link(address).as_ref(), Some(&link));
    let bob = world.join_by_short_link(1, 1, &link, b"Bob");
    let request = |event: &Event| match event {
        Event::Requested { request, information, .. } if information == b"Bob" => Some(*request),
        _ => None,
    };
    world.until("a request", |world| world.people[0].events.iter().any(|event| request(event).is_some()));
    let read = |event: &Event| matches!(event, Event::LinkRead { user_data, .. } if user_data == b"Alice's new profile");
    assert!(world.people[1].saw(read));
    let id = world.people[0].events.iter().find_map(request).unwrap();
    let relay = world.relay(0);
    let (now, entropy) = (world.now, &mut world.entropy);
    let alice = world.people[0].agent.accept(id, relay, b"Alice", now, entropy).unwrap();
    world.until("connected", |world| world.is_connected(0, alice) && world.is_connected(1, bob));
    talk(&mut world, [alice, bob]);
}
