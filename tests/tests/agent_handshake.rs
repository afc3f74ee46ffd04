//! Every way in which two or three agents can come to be connected, or not: all interleavings, and all places at which a
//! program can be killed, a connection broken, a command or its answer lost, or a command done twice, however late.
//!
//! Nobody is ever connected with somebody who is not; one link connects one person; no key of a ratchet encrypts two
//! messages, and no number is given to two; and whatever has happened, once nothing goes wrong any more everybody who can be
//! connected is, and says what they wanted to say, and whoever cannot be is told. Bounds: `HANDSHAKE_FAULTS` faults, one
//! message in each direction, and waits that end only when nothing is on its way to whoever waits.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod handshake;

use handshake::explore::{Counterexample, Visited, explore};
use handshake::people::{Role, USED_TWICE, Watching, Wish};
use handshake::relays::Defects;
use handshake::world::{Action, Handshake};
use smp_proto::agent::AgentConfig;
use smp_tests::sessions::versions;

fn modern() -> AgentConfig {
    AgentConfig::new(&Watching)
}

/// Knows no `SKEY`: the four-message form.
fn old() -> AgentConfig {
    AgentConfig {
        agent_versions: versions(2, 5),
        client_versions: versions(1, 2),
        ratchet_versions: versions(2, 2),
        ..modern()
    }
}

fn alice(wants: Wish, config: AgentConfig) -> Role {
    Role { name: "Alice", config, host: 0, wants, writes_at_once: true, disk_lies: 0 }
}

fn joiner(name: &'static str, config: AgentConfig) -> Role {
    Role { name, config, host: 1, wants: Wish::Join, writes_at_once: true, disk_lies: 0 }
}

/// Stories are not longer than this.
const MOST: usize = 3_000_000;

/// How many things may go wrong in one story: `HANDSHAKE_FAULTS`, or else this. With one, all forms take some minutes; each
/// further one multiplies the states by about fifty.
fn faults(usually: u8) -> u8 {
    std::env::var("HANDSHAKE_FAULTS").map_or(usually, |faults| faults.parse().expect("a number"))
}

/// What is found when a relay has this defect.
fn found(roles: Vec<Role>, faults: u8, defects: Defects) -> Counterexample<Action> {
    let mut model = Handshake::new(roles, faults, defects, true);
    explore(&mut model, MOST).expect_err("the defect must be found")
}

fn all(roles: Vec<Role>, faults: u8) -> Visited {
    let losers_are_told = roles.iter().all(|role| role.config.client_versions.max().0 >= 3);
    let mut model = Handshake::new(roles, faults, Defects::default(), losers_are_told);
    match explore(&mut model, MOST) {
        Ok(visited) => {
            let (histories, inputs) = model.effort();
            println!("{faults} faults: {visited:?}; {histories} histories, {inputs} inputs of agents");
            visited
        }
        Err(wrong) => panic!("{wrong}"),
    }
}

fn one(wish: Wish, configs: [AgentConfig; 2], faults: u8) -> Visited {
    let [first, second] = configs;
    all(vec![alice(wish, first), joiner("Bob", second)], faults)
}

const LONG: Wish = Wish::Invite { short: false };
const SHORT: Wish = Wish::Invite { short: true };

#[test]
fn the_fast_form() {
    one(LONG, [modern(), modern()], faults(1));
}

#[test]
fn the_fast_form_by_a_short_link() {
    one(SHORT, [modern(), modern()], faults(0));
}

#[test]
fn the_four_message_form() {
    one(LONG, [old(), old()], faults(0));
}

#[test]
fn old_and_new_agents() {
    one(LONG, [modern(), old()], faults(0));
    one(LONG, [old(), modern()], faults(0));
}

#[test]
fn by_a_contact_address() {
    one(Wish::Address { short: false }, [modern(), modern()], faults(0));
}

#[test]
fn by_the_short_link_of_a_contact_address() {
    one(Wish::Address { short: true }, [modern(), modern()], faults(0));
}

#[test]
fn two_people_with_one_link() {
    for wish in [LONG, SHORT] {
        let roles = vec![alice(wish, modern()), joiner("Bob", modern()), joiner("Carol", modern())];
        all(roles, faults(0));
    }
}

#[test]
fn two_people_with_one_link_in_the_four_message_form() {
    let roles = vec![alice(LONG, old()), joiner("Bob", old()), joiner("Carol", modern())];
    all(roles, faults(0));
}

/// The same, with the time that it takes to write.
#[test]
fn writing_takes_time() {
    for configs in [[modern(), modern()], [old(), old()]] {
        let [first, second] = configs;
        let slow = |role: Role| Role { writes_at_once: false, ..role };
        all(vec![slow(alice(LONG, first)), slow(joiner("Bob", second))], faults(0));
    }
}

/// A relay that lets everybody secure a queue: two people believe that they have the link.
#[test]
fn a_relay_that_secures_twice_is_found() {
    let roles = vec![alice(LONG, modern()), joiner("Bob", modern()), joiner("Carol", modern())];
    let wrong = found(roles, 0, Defects { secures_twice: true, ..Defects::default() });
    assert!(wrong.way.contains(&Action::Begin(1)) && wrong.way.contains(&Action::Begin(2)), "{wrong}");
}

/// A relay that says nothing of what waits to whoever subscribes again: somebody waits for ever.
#[test]
fn a_relay_that_forgets_to_deliver_is_found() {
    let roles = vec![alice(LONG, modern()), joiner("Bob", modern())];
    let wrong = found(roles, 1, Defects { forgets_to_redeliver: true, ..Defects::default() });
    assert!(wrong.what.contains("does not get through"), "{wrong}");
}

/// An agent that speaks before it has written: after a kill it uses the same key, or the same number, for something else, or
/// has forgotten what it said.
#[test]
fn speaking_before_writing_is_found() {
    for who in [0, 1] {
        let mut roles = vec![alice(LONG, modern()), joiner("Bob", modern())];
        roles[who].disk_lies = 1;
        let wrong = found(roles, 1, Defects::default());
        println!("{wrong}");
        assert!(wrong.way.contains(&Action::Kill(who)), "{wrong}");
    }
}

/// The same agent, when only its keys are looked at: every message that a ratchet has encrypted is seen.
#[test]
fn a_key_that_is_used_twice_is_found() {
    for config in [modern(), old()] {
        let mut roles = vec![alice(LONG, config.clone()), joiner("Bob", config)];
        roles[1].disk_lies = 2;
        let mut model = Handshake::new(roles, 1, Defects::default(), true).only_keys();
        let wrong = explore(&mut model, MOST).expect_err("it is found");
        assert!(wrong.what.contains(USED_TWICE), "{wrong}");
    }
}
