//! Which way an agent's commands take: the relays that others have chosen need not see who sends to them.
#![allow(clippy::unwrap_used, reason = "a test")]

mod agent_world;

use agent_world::{World, modern};
use smp_proto::agent::{AgentConfig, ConnectionId, Event, Isolation, ProxyMode, Routing};
use smp_proto::time::{Duration, UnixTime};

const ALICE: usize = 0;
const BOB: usize = 1;
/// Each has a relay of their own: Alice the first, Bob the second.
const IDENTITIES: [&str; 2] = ["ed25519", "ed448"];

/// A world in which people use their own relays as proxies to others.
fn world(fallback: bool) -> World {
    let addresses = World::with_identities(&IDENTITIES, []);
    let config = |own: usize| {
        let known = vec![addresses.relay(own).address];
        let proxies = vec![addresses.relay(own)];
        let routing =
            Routing { mode: ProxyMode::UnknownRelays, fallback, known, proxies, ..Routing::default() };
        AgentConfig { routing, ..modern() }
    };
    let mut world = World::with_identities(&IDENTITIES, [config(ALICE), config(BOB)]);
    // A day on which the certificates are valid.
    world.now.wall = UnixTime(1_800_000_000);
    world
}

/// Both connect by a short link; no step may show anybody to the other's relay.
fn connected(world: &mut World) -> (ConnectionId, ConnectionId) {
    let at_alice = world.create_short_invitation(ALICE, ALICE);
    world.until("a link", |world| world.people[ALICE].agent.short_link(at_alice).is_some());
    let link = world.people[ALICE].agent.short_link(at_alice).unwrap();
    let at_bob = world.join_by_short_link(BOB, BOB, &link, b"Bob");
    world.until("connected", |world| {
        assert!(!world.is_seen_by(BOB, ALICE), "Alice's relay sees Bob");
        assert!(!world.is_seen_by(ALICE, BOB), "Bob's relay sees Alice");
        world.is_connected(ALICE, at_alice) && world.is_connected(BOB, at_bob)
    });
    (at_alice, at_bob)
}

fn is_sent(world: &World, who: usize, message: i64, through: bool) -> bool {
    let is_it = |event: &Event| matches!(event, Event::Sent { number, proxied, .. } if *number == message && *proxied == through);
    world.people[who].events.iter().any(is_it)
}

fn has_failed(world: &World, who: usize) -> bool {
    world.people[who].events.iter().any(|event| matches!(event, Event::NotForwarded { .. }))
}

#[test]
fn two_people_connect_and_talk_and_neither_is_seen_by_the_others_relay() {
    let mut world = world(false);
    let (at_alice, at_bob) = connected(&mut world);
    let from_alice = world.send(ALICE, at_alice, b"hello");
    let from_bob = world.send(BOB, at_bob, b"hello too");
    world.until("sent", |world| {
        is_sent(world, ALICE, from_alice, true) && is_sent(world, BOB, from_bob, true)
    });
    for who in [ALICE, BOB] {
        let heard = |event: &Event| matches!(event, Event::Message { .. });
        assert!(world.people[who].events.iter().any(heard));
        assert!(!has_failed(&world, who));
    }
    assert!(!world.is_seen_by(BOB, ALICE) && !world.is_seen_by(ALICE, BOB));
}

#[test]
fn connections_of_one_user_share_sessions_or_do_not() {
    for (isolation, sessions) in [(Isolation::User, 2), (Isolation::Connection, 4)] {
        let mut world = world(false);
        world.people[BOB].config.routing.isolation = isolation;
        let routing = world.people[BOB].config.routing.clone();
        world.people[BOB].agent.set_routing(routing, world.now, &mut world.entropy);
        let contacts = [connected(&mut world), connected(&mut world)];
        for (_, at_bob) in contacts {
            let message = world.send(BOB, at_bob, b"hello");
            world.until("sent", |world| is_sent(world, BOB, message, true));
        }
        // To Bob's own relay: one for his queues, one as his proxy; of each contact, or of all.
        assert_eq!(world.sessions_of(BOB, BOB), sessions);
        // A restart brings as many, and messages still come.
        world.crash(BOB);
        for (at_alice, at_bob) in contacts {
            world.send(ALICE, at_alice, b"to Bob");
            let heard =
                |event: &Event| matches!(event, Event::Message { connection, .. } if *connection == at_bob);
            world.until("heard", |world| world.people[BOB].saw(heard));
        }
    }
}

#[test]
fn a_session_that_the_proxy_has_lost_is_asked_for_again() {
    let mut world = world(false);
    let (at_alice, _) = connected(&mut world);
    // The proxy's connection breaks, and later the proxy itself is killed.
    world.cut_links(ALICE);
    let first = world.send(ALICE, at_alice, b"one");
    world.until("sent", |world| is_sent(world, ALICE, first, true));
    world.cut_links(ALICE);
    world.crash_relay(ALICE);
    let second = world.send(ALICE, at_alice, b"two");
    world.until("sent", |world| is_sent(world, ALICE, second, true));
    world.until("heard", |world| {
        let heard = |event: &&Event| matches!(event, Event::Message { .. });
        world.people[BOB].events.iter().filter(heard).count() == 1
    });
    assert!(!world.is_seen_by(ALICE, BOB));
}

#[test]
fn without_fallback_a_message_waits_for_the_proxy_and_never_goes_straight() {
    let mut world = world(false);
    let (at_alice, _) = connected(&mut world);
    world.cut_links(ALICE);
    world.relays[BOB].reachable = false;
    let message = world.send(ALICE, at_alice, b"later");
    world.until("told", |world| has_failed(world, ALICE));
    for _ in 0..20 {
        world.wait();
        world.settle();
        assert!(!world.is_seen_by(ALICE, BOB));
    }
    world.relays[BOB].reachable = true;
    world.until("sent", |world| is_sent(world, ALICE, message, true));
    assert!(!world.is_seen_by(ALICE, BOB));
}

#[test]
fn with_fallback_it_goes_straight_when_the_proxy_cannot_be_used() {
    let mut world = world(true);
    let (at_alice, _) = connected(&mut world);
    // The proxy is gone: only Bob's relay is there.
    world.cut_links(ALICE);
    world.relays[ALICE].reachable = false;
    world.hang_up(ALICE);
    let message = world.send(ALICE, at_alice, b"straight");
    world.until("sent", |world| is_sent(world, ALICE, message, false));
    assert!(has_failed(&world, ALICE), "it was tried, and said");
    // When the proxy is back, later messages go through it again.
    world.relays[ALICE].reachable = true;
    world.pass(Duration::from_secs(600));
    let message = world.send(ALICE, at_alice, b"hidden");
    world.until("sent", |world| is_sent(world, ALICE, message, true));
}
