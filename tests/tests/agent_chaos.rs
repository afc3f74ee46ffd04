//! Two agents and two relays, everything at once: they talk, switch, renew their encryption, and all the while anybody may
//! be killed or cut off. In the end every accepted message has arrived exactly once and in order, and all is at rest.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod agent_world;

use agent_world::{World, modern};
use smp_proto::agent::{AgentConfig, CommandError, ConnectionId, Direction, Event, Integrity, SwitchPhase};
use smp_proto::crypto::ratchet::Synchronization;
use smp_proto::entropy::{Entropy, SeededEntropy};

/// How many messages each of them sends.
const MESSAGES: usize = 12;

struct Dice(SeededEntropy);

impl Dice {
    fn roll(&mut self, sides: u32) -> u32 {
        let mut bytes = [0; 4];
        self.0.fill_public(&mut bytes);
        u32::from_be_bytes(bytes) % sides
    }
}

#[derive(Default)]
struct Side {
    sent: Vec<i64>,
    got: Vec<(i64, Vec<u8>)>,
    wrong: Vec<String>,
}

/// What an application does, whenever it can. Returns how many switches came to their end.
fn act(world: &mut World, sides: &mut [Side; 2], who: usize, id: ConnectionId) -> usize {
    let mut switches = 0;
    while let Some(event) = world.people[who].agent.poll_event() {
        world.people[who].events.push(event);
    }
    for event in std::mem::take(&mut world.people[who].events) {
        match event {
            Event::Message { number, integrity, body, .. } => {
                let side = &mut sides[who];
                if side.got.iter().all(|(got, _)| *got != number) {
                    side.got.push((number, body));
                    if integrity != Integrity::Ok {
                        side.wrong.push(format!("{number}: {integrity:?}"));
                    }
                }
                let (now, entropy) = (world.now, &mut world.entropy);
                match world.people[who].agent.acknowledge(id, number, Some(b""), now, entropy) {
                    Ok(()) | Err(CommandError::UnknownMessage) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            Event::Failed { .. }
            | Event::Dropped { .. }
            | Event::NotSent { .. }
            | Event::QueueLost { .. } => {
                sides[who].wrong.push(format!("{event:?}"));
            }
            Event::Switched { direction: Direction::Receive, phase: SwitchPhase::Completed, .. } => {
                switches += 1
            }
            _ => {}
        }
    }
    let status = world.people[who].agent.status(id).expect("it is never lost");
    sides[who].sent.truncate(usize::try_from(status.accepted).unwrap());
    if status.may_send && sides[who].sent.len() < MESSAGES {
        let body = format!("{who}: {}", sides[who].sent.len());
        let number = world.send(who, id, body.as_bytes());
        sides[who].sent.push(number);
    }
    switches
}

/// Returns how many switches came to their end.
fn run(seed: u8) -> usize {
    let mut dice = Dice(SeededEntropy::new([seed; 32]));
    let config = AgentConfig { fast_switch: dice.roll(2) == 0, ..modern() };
    let mut world = World::new(3, [config.clone(), config]);
    let alice = world.create_invitation(0, 0, Some(b"Alice"));
    let link = world.link(0, alice);
    let bob = world.join(1, 1, &link, b"Bob");
    world.until("it is durable", |world| !world.people[1].records.is_empty());
    let ids = [alice, bob];
    let mut sides = <[Side; 2]>::default();
    let mut accidents = 0;
    let mut switches = 0;
    let mut steps = 0;
    loop {
        for (who, id) in ids.into_iter().enumerate() {
            switches += act(&mut world, &mut sides, who, id);
        }
        steps += 1;
        assert!(steps < 20_000, "seed {seed}: it does not come to rest");
        // Accidents for a while, then peace.
        if accidents < 25 && dice.roll(12) == 0 {
            accidents += 1;
            let who = dice.roll(2) as usize;
            match dice.roll(7) {
                0 | 1 => world.crash(who),
                2 | 3 => world.hang_up(who),
                4 => world.crash_relay(dice.roll(3) as usize),
                5 => {
                    let relay = world.relay(dice.roll(3) as usize);
                    let (now, entropy) = (world.now, &mut world.entropy);
                    // Not while another switch goes on, or before the connection is up.
                    let _ = world.people[who].agent.switch(ids[who], relay, now, entropy);
                }
                _ => world.people[who].disk_fails ^= true,
            }
        }
        if accidents == 25 {
            world.people.iter_mut().for_each(|person| person.disk_fails = false);
        }
        if world.step_of().is_some() {
            continue;
        }
        let done = sides.iter().all(|side| side.sent.len() == MESSAGES && side.got.len() == MESSAGES)
            && (0..2).all(|who| {
                let status = world.people[who].agent.status(ids[who]).unwrap();
                status.connected && status.waiting == 0
            });
        let queues: usize = world.relays.iter().map(|relay| relay.storage.queues().count()).sum();
        // Queues whose `NEW` was not answered belong to nobody; any other is deleted when it was left.
        if done && accidents >= 25 && queues >= 2 {
            break;
        }
        if done && accidents < 25 {
            accidents = 25;
            continue;
        }
        assert!(world.wait(), "seed {seed}: nobody goes on");
    }
    for who in 0..2 {
        let said: Vec<_> = (0..MESSAGES).map(|index| format!("{}: {index}", 1 - who).into_bytes()).collect();
        let got: Vec<_> = sides[who].got.iter().map(|(_, body)| body.clone()).collect();
        assert_eq!(got, said, "seed {seed}: what {who} got");
        assert_eq!(sides[who].wrong, Vec::<String>::new(), "seed {seed}: {who}");
        let status = world.people[who].agent.status(ids[who]).unwrap();
        assert_eq!(status.synchronization, Synchronization::Good);
    }
    switches
}

#[test]
fn nothing_is_lost_whatever_happens() {
    let mut switches = 0;
    for seed in 0..24 {
        switches += run(seed);
    }
    assert!(switches > 10, "there were switches: {switches}");
}

/// Encryption is begun anew while people are killed: what was on its way may be lost, as with every such beginning, but in
/// the end both are in step again, as long as the applications do what they are told.
#[test]
fn however_often_encryption_is_begun_anew_both_get_in_step() {
    for seed in 100..124 {
        let mut dice = Dice(SeededEntropy::new([seed; 32]));
        let mut world = World::new(2, [modern(), modern()]);
        let alice = world.create_invitation(0, 0, Some(b"Alice"));
        let link = world.link(0, alice);
        let bob = world.join(1, 1, &link, b"Bob");
        world.until("connected", |world| world.is_connected(0, alice) && world.is_connected(1, bob));
        let ids = [alice, bob];
        let mut sides = <[Side; 2]>::default();
        for step in 0.. {
            assert!(step < 3_000, "seed {seed}: they do not get in step");
            let peace = step > 300;
            for (who, id) in ids.into_iter().enumerate() {
                act(&mut world, &mut sides, who, id);
                let status = world.people[who].agent.status(id).unwrap();
                if status.synchronization.may_begin() || (!peace && dice.roll(40) == 0) {
                    let (now, entropy) = (world.now, &mut world.entropy);
                    let begun = world.people[who].agent.synchronize(id, true, now, entropy);
                    assert_eq!(begun.is_err(), status.synchronization == Synchronization::Started);
                }
                if !peace && dice.roll(40) == 0 {
                    world.crash(who);
                }
            }
            let good = |who: usize| {
                let status = world.people[who].agent.status(ids[who]).unwrap();
                status.synchronization == Synchronization::Good && status.waiting == 0
            };
            let in_step = peace && good(0) && good(1);
            if world.step_of().is_none() && (in_step || !world.wait()) {
                assert!(in_step, "seed {seed}: nobody goes on");
                break;
            }
        }
        for (from, to) in [(0, 1), (1, 0)] {
            world.people[to].events.clear();
            let number = world.send(from, ids[from], b"in step");
            world.until("read", |world| world.people[to].messages() == [(number, b"in step".to_vec())]);
        }
    }
}
