//! What a proxy holds of an agent's messages while the other relay is down: they arrive by themselves, once and in order,
//! and the sender hears of it, whoever is killed in between.
#![allow(clippy::unwrap_used, reason = "a test")]

mod agent_world;

use agent_world::{World, modern};
use smp_proto::agent::{AgentConfig, ConnectionId, Event, ProxyMode, Routing};
use smp_proto::client::CommandFailure;
use smp_proto::client::first_step::NotHeld;
use smp_proto::time::{Duration, UnixTime};
use smp_proto::wire::first_step::{FirstStepError, Hold};

const ALICE: usize = 0;
const BOB: usize = 1;
/// Each has a relay of their own: Alice the first, Bob the second.
const IDENTITIES: [&str; 2] = ["ed25519", "ed448"];

/// A world in which people use their own relays as proxies to others, which hold for so long.
fn world(hold: Hold) -> World {
    let addresses = World::with_identities(&IDENTITIES, []);
    let config = |own: usize| {
        let known = vec![addresses.relay(own).address];
        let proxies = vec![addresses.relay(own)];
        let routing = Routing { mode: ProxyMode::UnknownRelays, known, proxies, hold, ..Routing::default() };
        AgentConfig { routing, ..modern() }
    };
    let mut world = World::with_identities(&IDENTITIES, [config(ALICE), config(BOB)]);
    // A day on which the certificates are valid.
    world.now.wall = UnixTime(1_800_000_000);
    world.begin_relays();
    world
}

fn connected(world: &mut World) -> (ConnectionId, ConnectionId) {
    let at_alice = world.create_invitation(ALICE, ALICE, Some(b"Alice"));
    let link = world.link(ALICE, at_alice);
    let at_bob = world.join(BOB, BOB, &link, b"Bob");
    world.until("connected", |world| world.is_connected(ALICE, at_alice) && world.is_connected(BOB, at_bob));
    let message = world.send(BOB, at_bob, b"0");
    world.until("sent", |world| is_sent(world, message));
    (at_alice, at_bob)
}

/// Alice's relay is gone for Bob's; both people lose it as well.
fn down(world: &mut World) {
    world.relays[ALICE].reachable = false;
    world.cut_links(BOB);
    world.hang_up(ALICE);
}

fn up(world: &mut World) {
    world.relays[ALICE].reachable = true;
}

fn is_sent(world: &World, message: i64) -> bool {
    world.people[BOB]
        .saw(|event| matches!(event, Event::Sent { number, proxied: true, .. } if *number == message))
}

fn is_held(world: &World, message: i64) -> bool {
    world.people[BOB].saw(|event| matches!(event, Event::Held { number, .. } if *number == message))
}

/// Alice reads whatever there is.
fn read(world: &mut World, at_alice: ConnectionId) {
    let seen: Vec<_> = world.people[ALICE].messages();
    for (number, _) in seen {
        let (now, entropy) = (world.now, &mut world.entropy);
        // Most were acknowledged before.
        let _ = world.people[ALICE].agent.acknowledge(at_alice, number, None, now, entropy);
    }
}

fn bodies(world: &World) -> Vec<String> {
    let text = |(_, body): (i64, Vec<u8>)| String::from_utf8(body).unwrap();
    world.people[ALICE].messages().into_iter().map(text).collect()
}

/// Time passes in steps, and everybody does what they can.
fn live(world: &mut World, at_alice: ConnectionId, time: Duration, steps: u32) {
    for _ in 0..steps {
        world.settle();
        read(world, at_alice);
        world.pass(time / steps);
    }
    world.settle();
    read(world, at_alice);
    world.settle();
}

#[test]
fn messages_arrive_by_themselves_and_the_sender_hears_of_it_when_it_is_back() {
    let mut world = world(Hold::Weeks);
    let (at_alice, at_bob) = connected(&mut world);
    down(&mut world);
    let messages: Vec<i64> = ["1", "2", "3"].map(|body| world.send(BOB, at_bob, body.as_bytes())).into();
    world.until("held", |world| messages.iter().all(|message| is_held(world, *message)));
    let status = world.people[BOB].agent.status(at_bob).unwrap();
    assert_eq!((status.waiting, status.held), (0, 3));
    assert!(!world.is_seen_by(BOB, ALICE));
    // How it goes is told now and then.
    live(&mut world, at_alice, Duration::from_secs(600), 60);
    let tries = |event: &Event| matches!(event, Event::Held { attempts: 1.., .. });
    assert!(world.people[BOB].saw(tries), "{:?}", world.people[BOB].events);
    // Bob's program ends, and his relay is killed.
    world.go_offline(BOB);
    world.crash_relay(BOB);
    world.settle();
    up(&mut world);
    live(&mut world, at_alice, Duration::from_secs(1200), 60);
    assert_eq!(bodies(&world), ["0", "1", "2", "3"]);
    assert!(!messages.iter().any(|message| is_sent(&world, *message)));
    world.crash(BOB);
    world.come_online(BOB);
    world.until("sent", |world| messages.iter().all(|message| is_sent(world, *message)));
    live(&mut world, at_alice, Duration::from_secs(600), 20);
    assert_eq!(bodies(&world), ["0", "1", "2", "3"], "once each");
    assert_eq!(world.relays[BOB].server.first_step().held(), 0, "all answers were acknowledged");
    // And all is as before.
    let message = world.send(BOB, at_bob, b"4");
    world.until("sent", |world| is_sent(world, message));
    assert!(!is_held(&world, message));
    assert!(!world.is_seen_by(BOB, ALICE));
}

#[test]
fn what_follows_a_held_message_follows_it_also_while_the_relay_comes_back() {
    let mut world = world(Hold::Weeks);
    let (at_alice, at_bob) = connected(&mut world);
    down(&mut world);
    world.send(BOB, at_bob, b"1");
    for _ in 0..40 {
        world.step();
    }
    up(&mut world);
    let mut last = 0;
    for number in 2..10 {
        last = world.send(BOB, at_bob, number.to_string().as_bytes());
        for _ in 0..7 {
            world.step();
        }
        world.pass(Duration::from_secs(1));
    }
    live(&mut world, at_alice, Duration::from_secs(600), 60);
    assert!(is_sent(&world, last));
    assert_eq!(bodies(&world), ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
}

/// Wherever the sender is killed: what was accepted arrives once and in order.
#[test]
fn the_sender_is_killed_at_every_step() {
    let mut held = 0;
    for kill_at in 0.. {
        let mut world = world(Hold::Weeks);
        let (at_alice, at_bob) = connected(&mut world);
        down(&mut world);
        let accepted = world.people[BOB].agent.status(at_bob).unwrap().accepted;
        world.send(BOB, at_bob, b"1");
        world.send(BOB, at_bob, b"2");
        let mut steps = 0;
        let mut comes_back = false;
        let mut killed = false;
        while !killed {
            if steps == kill_at {
                held += usize::from(world.people[BOB].agent.status(at_bob).unwrap().held > 0);
                world.crash(BOB);
                killed = true;
            } else if !world.step() {
                if comes_back {
                    break;
                }
                // All is held: now the relay comes back.
                comes_back = true;
                up(&mut world);
                world.pass(Duration::from_secs(60));
            }
            steps += 1;
        }
        // What was lost with the process is said again.
        let known = world.people[BOB].agent.status(at_bob).unwrap().accepted - accepted;
        for number in known..2 {
            world.send(BOB, at_bob, (number + 1).to_string().as_bytes());
        }
        up(&mut world);
        live(&mut world, at_alice, Duration::from_secs(1800), 40);
        assert_eq!(bodies(&world), ["0", "1", "2"], "killed at {kill_at}: {:?}", world.people[BOB].events);
        let status = world.people[BOB].agent.status(at_bob).unwrap();
        assert_eq!((status.waiting, status.held), (0, 0), "killed at {kill_at}");
        if !killed {
            break;
        }
    }
    assert!(held > 5, "{held}");
}

#[test]
fn a_relay_that_is_away_for_longer_than_its_key_lasts_gets_them_too() {
    let mut world = world(Hold::Weeks);
    let (at_alice, at_bob) = connected(&mut world);
    down(&mut world);
    let messages = [world.send(BOB, at_bob, b"1"), world.send(BOB, at_bob, b"2")];
    live(&mut world, at_alice, Duration::from_secs(5 * 86_400), 200);
    up(&mut world);
    live(&mut world, at_alice, Duration::from_secs(3 * 3600), 100);
    assert_eq!(bodies(&world), ["0", "1", "2"]);
    assert!(messages.iter().all(|message| is_sent(&world, *message)));
}

#[test]
fn a_full_queue_is_waited_for_at_the_proxy_and_nothing_overtakes() {
    let mut world = world(Hold::Weeks);
    let (at_alice, at_bob) = connected(&mut world);
    read(&mut world, at_alice);
    world.settle();
    world.relays[ALICE].config.broker.message_quota = 2;
    down(&mut world);
    world.crash_relay(ALICE);
    world.go_offline(ALICE);
    let messages: Vec<i64> =
        (1..=6).map(|body: u8| world.send(BOB, at_bob, body.to_string().as_bytes())).collect();
    world.until("held", |world| messages.iter().all(|message| is_held(world, *message)));
    up(&mut world);
    live(&mut world, at_alice, Duration::from_secs(600), 20);
    assert!(is_sent(&world, messages[1]) && !is_sent(&world, messages[3]), "there is room for two");
    world.come_online(ALICE);
    live(&mut world, at_alice, Duration::from_secs(2 * 3600), 200);
    assert_eq!(bodies(&world), ["0", "1", "2", "3", "4", "5", "6"]);
    assert!(messages.iter().all(|message| is_sent(&world, *message)));
}

#[test]
fn what_is_held_too_long_fails_with_its_reason() {
    let mut world = world(Hold::Hour);
    let (at_alice, at_bob) = connected(&mut world);
    down(&mut world);
    let message = world.send(BOB, at_bob, b"1");
    live(&mut world, at_alice, Duration::from_secs(3 * 3600), 100);
    let failed = |event: &Event| {
        matches!(event, Event::NotSent { number, failure, .. } if *number == message
            && matches!(failure, CommandFailure::NotHeld(NotHeld::Refused(FirstStepError::Expired { .. }))))
    };
    assert!(world.people[BOB].saw(failed), "{:?}", world.people[BOB].events);
    up(&mut world);
    let message = world.send(BOB, at_bob, b"2");
    live(&mut world, at_alice, Duration::from_secs(600), 20);
    assert!(is_sent(&world, message));
    assert_eq!(bodies(&world), ["0", "2"]);
}

#[test]
fn without_leave_or_with_a_proxy_that_cannot_nothing_is_held_and_all_is_as_before() {
    for (hold, holds) in [(Hold::Never, true), (Hold::Weeks, false)] {
        let mut world = world(hold);
        world.relays[BOB].holds = holds;
        let (at_alice, at_bob) = connected(&mut world);
        assert_eq!(world.relays[BOB].server.first_step().clients(), 0);
        down(&mut world);
        let message = world.send(BOB, at_bob, b"1");
        live(&mut world, at_alice, Duration::from_secs(600), 20);
        assert!(!is_held(&world, message));
        assert_eq!(world.people[BOB].agent.status(at_bob).unwrap().waiting, 1);
        up(&mut world);
        live(&mut world, at_alice, Duration::from_secs(600), 20);
        assert!(is_sent(&world, message) && !world.is_seen_by(BOB, ALICE));
        assert_eq!(bodies(&world), ["0", "1"]);
    }
}

#[test]
fn contacts_are_apart_at_the_proxy_and_one_that_is_deleted_leaves_nothing() {
    let mut world = world(Hold::Weeks);
    let (_, first) = connected(&mut world);
    let (_, second) = connected(&mut world);
    down(&mut world);
    world.send(BOB, first, b"1");
    let kept = world.send(BOB, second, b"2");
    world.until("held", |world| is_held(world, kept));
    let status = |world: &World, id| world.people[BOB].agent.status(id).unwrap().held;
    assert_eq!((status(&world, first), status(&world, second)), (1, 1));
    assert_eq!(world.relays[BOB].server.first_step().clients(), 2, "a token for each");
    world.delete(BOB, first);
    world.settle();
    assert!(
        world.people[BOB].saw(|event| matches!(event, Event::Deleted { connection } if *connection == first))
    );
    let left = world.people[BOB].records.keys().filter(|key| format!("{key:?}").contains("Holding"));
    assert_eq!(left.count(), 1);
    up(&mut world);
    world.until("sent", |world| is_sent(world, kept));
}
