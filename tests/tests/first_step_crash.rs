//! Real processes: a first-step relay is killed while it holds messages, and a destination is killed while it takes them. Nothing
//! that was said to be held is lost, nothing comes twice, and the order holds.
#![allow(missing_docs, clippy::unwrap_used)]

mod cable;
mod holder;
mod programs;
mod raw_client;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use smp_proto::wire::address::ServerAddress;
use smp_proto::wire::first_step::{FirstStepError, ForwardOptions, Hold};

use cable::Cable;
use holder::{Heard, Holder, Sealed};
use programs::{ServerFolder, ServerProcess};
use raw_client::{
    Key, NewOptions, PATIENCE, RawClient, RawQueue, acknowledge_command, open_delivery, send_command,
};

const HOLD: ForwardOptions = ForwardOptions { while_unsecured: false, while_full: false, hold: Hold::Day };
const TOKEN: [u8; 32] = [7; 32];

/// Two relays as processes, with cables in front of both, so that their addresses stay.
struct World {
    near_folder: ServerFolder,
    near: Option<ServerProcess>,
    near_cable: Cable,
    far_folder: ServerFolder,
    far: Option<ServerProcess>,
    far_cable: Cable,
    at: ServerAddress,
    queue: RawQueue,
}

impl World {
    fn new() -> Self {
        let (near_folder, far_folder) = (ServerFolder::init(), ServerFolder::init());
        near_folder.set(&[("private_destinations", "on"), ("longest_delay_seconds", "1")]);
        far_folder.set(&[("message_quota", "1024")]);
        let (near, far) = (near_folder.start(), far_folder.start());
        let (near_cable, far_cable) = (Cable::to(near.address), Cable::to(far.address));
        let at = format!("smp://{}@{}", far.fingerprint, far_cable.address).parse().unwrap();
        let mut recipient = RawClient::connect(far.address, far.fingerprint).unwrap();
        let queue = recipient.new_queue(NewOptions { subscribe: false, ..NewOptions::default() }).unwrap();
        Self { near_folder, near: Some(near), near_cable, far_folder, far: Some(far), far_cable, at, queue }
    }

    fn kill_near(&mut self) {
        self.near.take().unwrap().kill();
    }

    fn start_near(&mut self) {
        let near = self.near_folder.start();
        self.near_cable.lead_to(near.address);
        self.near = Some(near);
    }

    /// Nobody listens where the destination was.
    fn kill_far(&mut self) {
        self.far.take().unwrap().kill();
        self.far_cable.lead_to(nobody());
    }

    fn start_far(&mut self) {
        let far = self.far_folder.start();
        self.far_cable.lead_to(far.address);
        self.far = Some(far);
    }

    fn holder(&self) -> Holder {
        Holder::connect(self.near_cable.address, self.near.as_ref().unwrap().fingerprint).unwrap()
    }

    /// Everything that waits in the queue, each acknowledged.
    fn drain(&self, expected: usize) -> Vec<Vec<u8>> {
        let far = self.far.as_ref().unwrap();
        let mut recipient = RawClient::connect(far.address, far.fingerprint).unwrap();
        let (key, id) = (&self.queue.recipient_key, &self.queue.recipient);
        let mut found = Vec::new();
        let mut next = recipient.command(key, id, b"SUB").unwrap();
        while found.len() < expected {
            if !next.starts_with(b"MSG ") {
                next = recipient.event(PATIENCE).unwrap().content;
            }
            let (message, body) = open_delivery(&self.queue, &next).unwrap();
            found.push(body.unwrap());
            next = recipient.command(key, id, &acknowledge_command(&message)).unwrap();
        }
        // And nothing else: what is sent now is the next.
        let mut sender = RawClient::connect(far.address, far.fingerprint).unwrap();
        assert_eq!(sender.command(&Key::Nothing, &self.queue.sender, &send_command(b"end")).unwrap(), b"OK");
        if !next.starts_with(b"MSG ") {
            next = recipient.event(PATIENCE).unwrap().content;
        }
        let (_, body) = open_delivery(&self.queue, &next).unwrap();
        assert_eq!(body.unwrap(), b"end");
        found
    }
}

fn nobody() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn text(number: u64) -> Vec<u8> {
    format!("message {number}").into_bytes()
}

/// Asks until it is decided what became of a command.
fn outcome(world: &World, client: &mut Option<(Holder, holder::Registration)>, number: u64) -> Heard {
    for _ in 0..2000 {
        let (holder, at) = client.get_or_insert_with(|| {
            let mut holder = world.holder();
            // The numbers of registrations must not meet those of commands.
            let at = holder.registered(TOKEN, &world.at);
            (holder, at)
        });
        match holder.check(at, number, 0) {
            Heard::Error(FirstStepError::Held { .. }) => thread::sleep(Duration::from_millis(20)),
            other => return other,
        }
    }
    panic!("message {number} is held for ever");
}

#[test]
fn a_killed_first_step_relay_loses_nothing_that_it_held() {
    let mut world = World::new();
    let mut client = world.holder();
    let at = client.registered(TOKEN, &world.at);
    world.kill_far();
    // It is killed right when it has said that the last one is held.
    let mut sealed: BTreeMap<u64, Sealed> = BTreeMap::new();
    for number in 1..=40 {
        let command = at.seal(&Key::Nothing, &world.queue.sender, &send_command(&text(number)));
        client.forward(&at, number, HOLD, &command);
        sealed.insert(number, command);
        let heard = client.hear_about(number);
        assert!(matches!(heard, Heard::Error(FirstStepError::Held { .. })), "{heard:?}");
    }
    world.kill_near();
    world.start_near();
    world.start_far();
    let mut client = None;
    for (number, sealed) in &sealed {
        let heard = outcome(&world, &mut client, *number);
        let Heard::Response(answer) = heard else { panic!("{number}: {heard:?}") };
        assert_eq!(sealed.open(&answer), b"OK");
    }
    let expected: Vec<_> = (1..=40).map(text).collect();
    assert_eq!(world.drain(expected.len()), expected);
}

#[test]
fn whoever_is_killed_when_held_messages_arrive_once_and_in_order() {
    let mut world = World::new();
    let mut client = Some({
        let mut holder = world.holder();
        let at = holder.registered(TOKEN, &world.at);
        (holder, at)
    });
    let mut sealed: BTreeMap<u64, Sealed> = BTreeMap::new();
    let mut number = 0;
    for round in 0..6 {
        for _ in 0..15 {
            number += 1;
            let (holder, at) = client.as_mut().unwrap();
            let command = at.seal(&Key::Nothing, &world.queue.sender, &send_command(&text(number)));
            holder.forward(at, number, HOLD, &command);
            sealed.insert(number, command);
            let heard = holder.hear_about(number);
            // An answer may come as soon as it is held.
            assert!(
                matches!(heard, Heard::Error(FirstStepError::Held { .. }) | Heard::Response(_)),
                "{number}: {heard:?}"
            );
        }
        // In the middle of the work.
        if round % 2 == 0 {
            world.kill_near();
            world.start_near();
        } else {
            world.kill_far();
            world.start_far();
        }
        let mut holder = loop {
            // The destination may not be there yet.
            let mut holder = world.holder();
            if matches!(holder.register(TOKEN, &world.at), Heard::Registered(_)) {
                break holder;
            }
            thread::sleep(Duration::from_millis(20));
        };
        let at = holder.registered(TOKEN, &world.at);
        client = Some((holder, at));
    }
    let mut client = client;
    for (number, sealed) in &sealed {
        let heard = outcome(&world, &mut client, *number);
        let Heard::Response(answer) = heard else { panic!("{number}: {heard:?}") };
        assert_eq!(sealed.open(&answer), b"OK");
    }
    let expected: Vec<_> = (1..=number).map(text).collect();
    assert_eq!(world.drain(expected.len()), expected);
}

#[test]
fn a_relay_that_is_told_to_stop_keeps_what_it_holds() {
    let mut world = World::new();
    let mut client = world.holder();
    let at = client.registered(TOKEN, &world.at);
    world.kill_far();
    let command = at.seal(&Key::Nothing, &world.queue.sender, &send_command(&text(1)));
    client.forward(&at, 1, HOLD, &command);
    assert!(matches!(client.hear_about(1), Heard::Error(FirstStepError::Held { .. })));
    world.near.take().unwrap().terminate();
    world.start_near();
    world.start_far();
    assert!(matches!(outcome(&world, &mut None, 1), Heard::Response(_)));
    assert_eq!(world.drain(1), [text(1)]);
}
