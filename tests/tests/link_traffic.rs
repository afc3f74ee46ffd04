//! What somebody learns who records everything that the owner and the reader of a short link exchange with the relay, inside
//! TLS, and compares: nothing. No identifier and no ciphertext is on both connections.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod agent_world;

use std::collections::BTreeSet;

use agent_world::{World, modern};
use smp_proto::agent::{Agent, AgentConfig, Event};
use smp_proto::client::ClientConfig;
use smp_proto::session::client::ClientSessionConfig;

/// Every 8 bytes that follow each other.
fn windows(blocks: &[Vec<u8>]) -> BTreeSet<[u8; 8]> {
    blocks.iter().flat_map(|block| block.windows(8)).map(|window| window.try_into().unwrap()).collect()
}

/// Blocks are not encrypted: as clients were before version 11.
fn in_the_clear(agent: Agent) -> Agent {
    agent.with_clients(|address, config| {
        let session = ClientSessionConfig::new(address.fingerprint.clone(), config.provider);
        ClientConfig::new(ClientSessionConfig { sends_key: false, ..session })
    })
}

/// What the owner (0) and the reader (1) of a short link have in common and a stranger (2), who has a link of their own at
/// the same relay, has not: hellos with the relay's certificates are the same for everybody.
fn in_common(is_address: bool, encrypted: bool) -> usize {
    let mut world = World::new(1, [(); 3].map(|()| modern()));
    for person in &mut world.people {
        person.recorded = Some(Vec::new());
        if !encrypted {
            person.agent = in_the_clear(Agent::new(AgentConfig::new(person.config.provider)));
        }
    }
    let stranger = world.create_short_invitation(2, 0);
    world.link(2, stranger);
    let owner = if is_address {
        let relay = world.relay(0);
        let (now, entropy) = (world.now, &mut world.entropy);
        world.people[0].agent.create_short_address(relay, b"profile", now, entropy).unwrap()
    } else {
        world.create_short_invitation(0, 0)
    };
    world.link(0, owner);
    let link = world.people[0].agent.short_link(owner).expect("the relay keeps it");
    if is_address {
        let (now, entropy) = (world.now, &mut world.entropy);
        world.people[0].agent.set_link_data(owner, b"another profile", now, entropy).unwrap();
        world.until("changed", |world| {
            world.people[0].saw(|event| matches!(event, Event::LinkUpdated { .. }))
        });
    }
    let reader = world.join_by_short_link(1, 0, &link, b"Bob");
    world.until("read", |world| world.people[1].saw(|event| matches!(event, Event::LinkRead { .. })));
    world.until("asked", |world| {
        world.people[0].saw(|event| matches!(event, Event::Requested { .. })) || world.is_connected(1, reader)
    });
    world.settle();
    let [owners, readers, strangers] =
        [0, 1, 2].map(|who: usize| windows(world.people[who].recorded.as_ref().unwrap()));
    assert!(owners.len() > 30_000 && readers.len() > 30_000, "{} and {}", owners.len(), readers.len());
    owners.intersection(&readers).filter(|window| !strangers.contains(*window)).count()
}

#[test]
fn the_traffic_of_owner_and_reader_of_a_link_has_nothing_in_common() {
    for is_address in [false, true] {
        // Of 200,000 times 200,000 pairs of 8 random bytes not one is equal by chance.
        assert_eq!(in_common(is_address, true), 0, "address: {is_address}");
    }
}

/// It is the encryption of blocks that does it: without it the relay's answer shows the link data as their owner sent them.
#[test]
fn without_encrypted_blocks_they_have() {
    for is_address in [false, true] {
        assert!(in_common(is_address, false) > 10_000, "address: {is_address}");
    }
}
