//! Alice invites Bob, both talk, and after every single step of one of them (a batch is written, storage reports it, a
//! block leaves, or reaches its relay, or comes) that one is killed, or loses all connections: both get connected, and
//! every message that was accepted arrives exactly once, in order.
//!
//! Steps of the others in between need no accidents of their own: they change nothing for the victim but what is on its
//! way to it, which is lost with the connections whenever it was sent.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod agent_world;

use agent_world::{World, modern, old};
use smp_proto::agent::{AgentConfig, ConnectionId, Event, Integrity, RecordKey};
use smp_proto::wire::links::connection_request::ConnectionRequest;
use smp_proto::wire::links::short_link::ShortLink;

/// What each of them says.
const MESSAGES: usize = 2;

/// What happens at the chosen step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accident {
    Nothing(usize),
    /// The program of one is killed and started again.
    Killed(usize),
    /// What has left or will arrive is lost, and all connections of one break.
    CutOff(usize),
    /// The disk of one fails for a minute.
    DiskFails(usize),
    /// The relay on which one has its queue is killed and started again.
    RelayKilled(usize),
    /// Killed, and started when the other has nothing more to do without them.
    KilledForLong(usize),
}

/// What an application keeps, which no crash of the agent takes away.
#[derive(Default)]
struct Application {
    connection: Option<ConnectionId>,
    link: Option<ConnectionRequest>,
    short: Option<ShortLink>,
    /// The numbers that its messages were given.
    sent: Vec<i64>,
    /// The messages that it has got.
    got: Vec<(i64, Vec<u8>)>,
    wrong: Vec<String>,
}

struct Story {
    world: World,
    /// Whether Bob joins by a short link.
    short: bool,
    apps: [Application; 2],
}

fn text(who: usize, index: usize) -> Vec<u8> {
    format!("{who} says {index}").into_bytes()
}

impl Story {
    fn new(configs: [AgentConfig; 2], short: bool) -> Self {
        Self { world: World::new(2, configs), short, apps: Default::default() }
    }

    /// What the applications do, whenever they can.
    fn act(&mut self) {
        for who in 0..2 {
            if self.world.people[who].online {
                self.act_for(who);
            }
        }
    }

    fn act_for(&mut self, who: usize) {
        let Self { world, short, apps } = self;
        while let Some(event) = world.people[who].agent.poll_event() {
            world.people[who].events.push(event);
        }
        for event in std::mem::take(&mut world.people[who].events) {
            match event {
                Event::Message { connection, number, integrity, body, .. } => {
                    let app = &mut apps[who];
                    // The application knows what it has by its number.
                    if app.got.iter().all(|(got, _)| *got != number) {
                        app.got.push((number, body));
                        if integrity != Integrity::Ok {
                            app.wrong.push(format!("{number}: {integrity:?}"));
                        }
                    }
                    let (now, entropy) = (world.now, &mut world.entropy);
                    // Told twice, and acknowledged in between.
                    let _ = world.people[who].agent.acknowledge(connection, number, Some(b""), now, entropy);
                }
                Event::Failed { .. }
                | Event::Dropped { .. }
                | Event::NotSent { .. }
                | Event::QueueLost { .. } => {
                    apps[who].wrong.push(format!("{event:?}"));
                }
                _ => {}
            }
        }
        // A crash may have taken what was not durable yet: the application does it again.
        let known = apps[who].connection.filter(|id| world.people[who].agent.status(*id).is_some());
        let id = match (who, known) {
            (_, Some(id)) => id,
            (0, None) if *short => world.create_short_invitation(0, 0),
            (0, None) => world.create_invitation(0, 0, Some(b"Alice")),
            (_, None) if *short => {
                let Some(link) = apps[0].short.clone() else { return };
                world.join_by_short_link(1, 1, &link, b"Bob")
            }
            (_, None) => {
                let Some(link) = apps[0].link.clone() else { return };
                world.join(1, 1, &link, b"Bob")
            }
        };
        apps[who].connection = Some(id);
        if who == 0 && apps[0].link.is_none() {
            apps[0].link = world.people[0].agent.link(id);
            apps[0].short = world.people[0].agent.short_link(id);
        }
        let status = world.people[who].agent.status(id).unwrap();
        apps[who].sent.truncate(usize::try_from(status.accepted).unwrap());
        if status.may_send && apps[who].sent.len() < MESSAGES {
            let body = text(who, apps[who].sent.len());
            let number = world.send(who, id, &body);
            apps[who].sent.push(number);
        }
    }

    fn is_over(&self) -> bool {
        self.apps.iter().all(|app| app.sent.len() == MESSAGES && app.got.len() == MESSAGES)
            && (0..2).all(|who| {
                let status = self.apps[who].connection.and_then(|id| self.world.people[who].agent.status(id));
                status.is_some_and(|status| status.connected && status.waiting == 0)
            })
    }

    /// Runs the story with an accident after this step of the victim; returns how many steps the victim had.
    fn run(mut self, at: usize, accident: Accident) -> usize {
        let victim = accident.victim();
        let mut steps = 0;
        let mut is_next = true;
        let mut ends_at = None;
        let mut waits = 0;
        for _ in 0..100_000 {
            self.act();
            if steps == at && std::mem::take(&mut is_next) {
                match accident {
                    Accident::Nothing(_) => {}
                    Accident::Killed(who) => self.world.crash(who),
                    Accident::CutOff(who) => self.world.hang_up(who),
                    Accident::RelayKilled(who) => self.world.crash_relay(who),
                    Accident::DiskFails(who) => {
                        self.world.people[who].disk_fails = true;
                        ends_at = Some(self.world.now.instant + std::time::Duration::from_secs(60));
                    }
                    Accident::KilledForLong(who) => {
                        self.world.crash(who);
                        self.world.go_offline(who);
                    }
                }
                // After a crash the application may have to do something again.
                continue;
            }
            if let Some(who) = self.world.step_of() {
                if who == Some(victim) {
                    steps += 1;
                }
                continue;
            }
            if self.is_over() && self.world.people.iter().all(|person| person.online && !person.disk_fails) {
                break;
            }
            if let Some(who) = (0..2).find(|who| !self.world.people[*who].online) {
                self.world.come_online(who);
                continue;
            }
            if ends_at.is_some_and(|end| end <= self.world.now.instant) {
                self.world.people.iter_mut().for_each(|person| person.disk_fails = false);
            }
            assert!(self.world.wait(), "{accident:?} at {at}: nobody goes on");
            waits += 1;
            let state: Vec<_> = self
                .world
                .people
                .iter()
                .map(|person| person.agent.connections().collect::<Vec<_>>())
                .collect();
            assert!(
                waits < 200,
                "{accident:?} at {at}: nothing goes on: {state:?} {:?} {:?}",
                self.apps[0].wrong,
                self.apps[1].wrong
            );
        }
        let name = format!("{accident:?} at {at}");
        assert!(self.is_over(), "{name}: it does not end");
        for who in 0..2 {
            let app = &self.apps[who];
            let said: Vec<_> = (0..MESSAGES).map(|index| text(1 - who, index)).collect();
            let got: Vec<_> = app.got.iter().map(|(_, body)| body.clone()).collect();
            assert_eq!(got, said, "{name}: what {who} got");
            let numbers: Vec<_> = app.got.iter().map(|(number, _)| *number).collect();
            assert_eq!(numbers, self.apps[1 - who].sent, "{name}: the numbers that {who} got");
            assert_eq!(app.wrong, Vec::<String>::new(), "{name}: {who}");
            // Nothing is left but what a connection needs.
            let extra = self.world.people[who].records.keys().filter(|key| {
                !matches!(key, RecordKey::Counters | RecordKey::Connection(_) | RecordKey::Ratchet(_))
            });
            assert_eq!(extra.collect::<Vec<_>>(), Vec::<&RecordKey>::new(), "{name}: left over of {who}");
        }
        steps
    }
}

impl Accident {
    const fn victim(self) -> usize {
        match self {
            Self::Nothing(who)
            | Self::Killed(who)
            | Self::CutOff(who)
            | Self::DiskFails(who)
            | Self::RelayKilled(who)
            | Self::KilledForLong(who) => who,
        }
    }
}

fn every_step(configs: impl Fn() -> [AgentConfig; 2], accidents: &[Accident]) {
    at_steps(|| Story::new(configs(), false), accidents, 1);
}

/// Every third step; every step with `AGENT_EVERY_STEP=1`, which takes three times as long.
fn many_steps(configs: impl Fn() -> [AgentConfig; 2], accidents: &[Accident]) {
    let stride = if std::env::var_os("AGENT_EVERY_STEP").is_some() { 1 } else { 3 };
    at_steps(|| Story::new(configs(), false), accidents, stride);
}

fn at_steps(story: impl Fn() -> Story, accidents: &[Accident], stride: usize) {
    for (first, accident) in accidents.iter().enumerate() {
        let steps = story().run(usize::MAX, Accident::Nothing(accident.victim()));
        assert!(steps > 50, "the story is long enough to be interesting: {steps}");
        for at in (first % stride..steps).step_by(stride) {
            story().run(at, *accident);
        }
    }
}

#[test]
fn alice_is_killed_at_every_step() {
    every_step(|| [modern(), modern()], &[Accident::Killed(0)]);
}

#[test]
fn bob_is_killed_at_every_step() {
    every_step(|| [modern(), modern()], &[Accident::Killed(1)]);
}

#[test]
fn either_loses_connections_at_every_step() {
    every_step(|| [modern(), modern()], &[Accident::CutOff(0), Accident::CutOff(1)]);
}

#[test]
fn either_relay_is_killed_at_many_steps() {
    many_steps(|| [modern(), modern()], &[Accident::RelayKilled(0), Accident::RelayKilled(1)]);
}

#[test]
fn either_is_killed_and_away_for_long_at_many_steps() {
    many_steps(|| [modern(), modern()], &[Accident::KilledForLong(0), Accident::KilledForLong(1)]);
}

#[test]
fn the_disk_of_either_fails_at_many_steps() {
    many_steps(|| [modern(), modern()], &[Accident::DiskFails(0), Accident::DiskFails(1)]);
}

#[test]
fn the_four_message_form_survives_too() {
    let accidents = [Accident::Killed(0), Accident::Killed(1), Accident::CutOff(0), Accident::CutOff(1)];
    every_step(|| [old(), old()], &accidents);
}

#[test]
fn joining_by_a_short_link_survives_a_kill_of_either_at_every_step() {
    let accidents = [Accident::Killed(0), Accident::Killed(1)];
    at_steps(|| Story::new([modern(), modern()], true), &accidents, 1);
}
