//! First-step relays and destinations behind the facade, over a network and disks that fail: what was said to be held arrives
//! once and in order.
#![allow(missing_docs, clippy::unwrap_used)]

use smp_proto::client::queue::{QueueToCreate, RecipientQueue};
use smp_proto::client::{Event, Reply};
use smp_proto::crypto::Portable;
use smp_proto::crypto::message_body::ReceivedMessage;
use smp_proto::time::Duration;
use smp_proto::wire::command::{QueueMode, SubscriptionMode};
use smp_simulations::dice::Dice;
use smp_simulations::holders::Outcome;
use smp_simulations::network::{Beginner, ClientNumber, Network, Reach, RelayNumber};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn first_step(network: &mut Network) -> RelayNumber {
    network.add_relay(|config| {
        config.first_step.private_destinations = true;
        config.first_step.longest_delay = seconds(60);
    })
}

fn destination(network: &mut Network) -> RelayNumber {
    network.add_relay(|config| config.broker.message_quota = 1000)
}

fn queue(network: &mut Network, client: ClientNumber) -> RecipientQueue {
    let keys = QueueToCreate::generate(network.entropy());
    let command = keys.command(&Portable, QueueMode::Messaging, SubscriptionMode::CreateOnly, None);
    match network.ask(client, command) {
        Ok(Reply::Created(created)) => keys.created(&Portable, &created),
        other => panic!("{other:?}"),
    }
}

/// Everything that waits in a queue, in its order.
fn messages(network: &mut Network, relay: RelayNumber, queue: &RecipientQueue) -> Vec<Vec<u8>> {
    let client = network.add_client(relay);
    let mut next = match network.ask(client, queue.subscribe()) {
        Ok(Reply::Message { id, body }) => Some((id, body)),
        Ok(Reply::Ok | Reply::Subscribed) => None,
        other => panic!("{other:?}"),
    };
    let mut found = Vec::new();
    loop {
        if next.is_none() {
            for event in network.events(client) {
                if let Event::Message { id, body, .. } = event {
                    next = Some((id, body));
                }
            }
        }
        let Some((id, body)) = next.take() else { return found };
        match queue.open(&Portable, &id, &mut body.to_vec()).unwrap() {
            ReceivedMessage::Message { body, .. } => found.push(body.to_vec()),
            other => panic!("{other:?}"),
        }
        match network.ask(client, queue.acknowledge(id)) {
            Ok(Reply::Message { id, body }) => next = Some((id, body)),
            Ok(Reply::Ok) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_is_held_while_a_destination_is_down_arrives_by_itself() {
    let mut network = Network::new([3; 32]);
    let (f, d) = (first_step(&mut network), destination(&mut network));
    let recipient = network.add_client(d);
    let queue = queue(&mut network, recipient);
    let holder = network.add_holder(f, d, queue.sender.clone());
    network.hold(holder, b"first".to_vec());
    network.pass(seconds(1));
    assert_eq!(network.outcomes(holder), [(b"first".to_vec(), Outcome::Delivered)]);
    network.set_reach(d, Reach::Down);
    for text in 0..10_u8 {
        network.hold(holder, vec![text]);
    }
    network.pass(seconds(30));
    assert!(network.outcomes(holder)[1..].iter().all(|(_, outcome)| *outcome == Outcome::Held));
    // Both are restarted, and the client goes away and comes back.
    network.restart(f);
    network.restart(d);
    network.set_reach(d, Reach::Up);
    network.pass(seconds(300));
    assert!(network.outcomes(holder).iter().all(|(_, outcome)| *outcome == Outcome::Delivered));
    let expected: Vec<Vec<u8>> =
        [b"first".to_vec()].into_iter().chain((0..10).map(|text| vec![text])).collect();
    assert_eq!(messages(&mut network, d, &queue), expected);
    assert_eq!(network.server(d).forwarding_statistics().relays, 1, "one session for all");
}

#[test]
fn many_clients_share_one_connection() {
    let mut network = Network::new([4; 32]);
    let (f, d) = (first_step(&mut network), destination(&mut network));
    let recipient = network.add_client(d);
    let queue = queue(&mut network, recipient);
    let holders: Vec<_> = (0..20).map(|_| network.add_holder(f, d, queue.sender.clone())).collect();
    for holder in &holders {
        network.hold(*holder, b"one".to_vec());
        network.hold(*holder, b"two".to_vec());
    }
    network.pass(seconds(5));
    for holder in &holders {
        assert!(network.outcomes(*holder).iter().all(|(_, outcome)| *outcome == Outcome::Delivered));
    }
    let mut connections = network.connections_to(d);
    connections.retain(|from| *from == Beginner::Proxy(f));
    assert_eq!(connections.len(), 1);
    assert_eq!(messages(&mut network, d, &queue).len(), 40);
}

/// A random script with faults. Returns a digest of everything, and how many messages were delivered.
fn storm(seed: u64) -> ([u8; 32], usize) {
    let mut dice = Dice::new(seed, "first step");
    let mut network = Network::new(dice.seed());
    let near: Vec<_> = (0..2).map(|_| first_step(&mut network)).collect();
    let far: Vec<_> = (0..2).map(|_| destination(&mut network)).collect();
    let mut holders = Vec::new();
    for index in 0..6 {
        let relay = far[index % 2];
        let recipient = network.add_client(relay);
        // A queue for each: what arrives can be told apart.
        let queue = queue(&mut network, recipient);
        let holder = network.add_holder(near[index / 3], relay, queue.sender.clone());
        holders.push((holder, relay, queue));
    }
    let all: Vec<_> = near.iter().chain(&far).copied().collect();
    let mut number = 0u64;
    for _ in 0..80 {
        let relay = all[dice.between(0, all.len() as u64 - 1) as usize];
        match dice.between(0, 19) {
            0..3 => network.restart(relay),
            3 => network.set_reach(relay, Reach::Down),
            4 => network.set_reach(relay, Reach::Silent),
            5 => network.set_reach(relay, Reach::Frozen),
            6..9 => network.set_reach(relay, Reach::Up),
            9 => {
                let pipe = dice.between(0, network.pipes.len() as u64 - 1) as usize;
                network.reset(pipe);
            }
            10..12 => network.pass(seconds(dice.between(0, 60))),
            _ => {
                let holder = holders[dice.between(0, 5) as usize].0;
                for _ in 0..dice.between(1, 3) {
                    number += 1;
                    network.hold(holder, number.to_be_bytes().to_vec());
                }
            }
        }
        // Most of the time something is in the middle when the next thing happens.
        network.run_turns(dice.between(0, 12) as usize);
    }
    for relay in all {
        network.set_reach(relay, Reach::Up);
    }
    network.run();
    network.pass(seconds(1200));
    let mut delivered = 0;
    for (holder, relay, queue) in holders {
        let outcomes = network.outcomes(holder);
        for (body, outcome) in &outcomes {
            assert_eq!(*outcome, Outcome::Delivered, "seed {seed}: message {body:?}");
        }
        let expected: Vec<_> = outcomes.into_iter().map(|(body, _)| body).collect();
        assert_eq!(messages(&mut network, relay, &queue), expected, "seed {seed}: once, and in order");
        delivered += expected.len();
    }
    for relay in near {
        let held = network.server(relay).first_step().actions_under_way();
        assert_eq!(held, 0, "seed {seed}");
    }
    (network.digest(), delivered)
}

#[test]
fn whatever_fails_what_is_held_arrives_once_and_in_order() {
    let delivered: usize = (0..10).map(|seed| storm(seed).1).sum();
    assert!(delivered > 200, "a calm storm: {delivered}");
}

#[test]
fn the_same_storm_twice_is_the_same() {
    assert_eq!(storm(77), storm(77));
    assert_ne!(storm(77).0, storm(78).0);
}
