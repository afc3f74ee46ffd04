//! The deployed proxy over real sockets when the destination is slow, torn away, or comes back as a new process; and four relays
//! that are all each other's proxies.
#![allow(missing_docs, clippy::unwrap_used)]

mod any_client;
mod cable;
mod programs;
mod raw_client;
mod relay_under_test;

use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use smp_proto::client::queue::{RecipientQueue, SenderQueue};
use smp_proto::client::{ClientCommand, Reply};
use smp_proto::session::AuthSecret;
use smp_proto::wire::address::ServerAddress;
use smp_proto::wire::command::SubscriptionMode;
use smp_proto::wire::error::{ProxyError, SmpError};
use smp_runtime_std::client::{ClientError, fresh_entropy};
use smp_runtime_std::fast_cryptography::FAST;

use any_client::AnyClient;
use cable::Cable;
use programs::{ServerFolder, ServerProcess};
use relay_under_test::{Options, RelayUnderTest, Runtime, address};

const RUNTIMES: [Runtime; 2] = [Runtime::Smol, Runtime::Blocking];

fn proxy(runtime: Runtime) -> RelayUnderTest {
    RelayUnderTest::start(runtime, Options { private_destinations: true, ..Options::default() })
}

/// The proxy says that it had no connection to the destination, or has it no more.
fn is_lost(answer: &Result<Reply, ClientError>) -> bool {
    matches!(answer, Err(ClientError::NotForwarded(SmpError::Proxy(ProxyError::Broker(_)))))
}

/// A destination behind a cable, a queue of it, and how a client of the proxy sends there.
struct Far {
    relay: RelayUnderTest,
    cable: Cable,
    recipient: AnyClient,
    queue: RecipientQueue,
    sender: SenderQueue,
    at: ServerAddress,
}

impl Far {
    fn new(runtime: Runtime) -> Self {
        let relay = RelayUnderTest::start(runtime, Options::default());
        let cable = Cable::to(relay.address);
        let recipient = AnyClient::connect(runtime, &relay.server_address());
        let queue = recipient.create_queue(SubscriptionMode::Subscribe);
        let sender = SenderQueue { sender: queue.sender.clone(), key: None };
        let at = address(relay.fingerprint, cable.address);
        Self { relay, cable, recipient, queue, sender, at }
    }

    fn send(&self, text: &'static [u8]) -> ClientCommand {
        self.sender.send(false, Bytes::from_static(text))
    }
}

#[test]
fn a_destination_that_is_torn_away_in_the_middle_of_a_block_is_reached_again() {
    for runtime in RUNTIMES {
        let (p, far) = (proxy(runtime), Far::new(runtime));
        let client = AnyClient::connect(runtime, &p.server_address());
        assert_eq!(client.forward(&far.at, far.send(b"one")).unwrap(), Reply::Ok);
        // Of the answer, a block of 16,384 bytes and its TLS record, a third arrives.
        far.cable.cut_after(5_000);
        let torn = client.forward(&far.at, far.send(b"two"));
        assert!(is_lost(&torn), "{torn:?}");
        // There is no trace of the half block in what comes next.
        for text in [&b"three"[..], b"four"] {
            assert_eq!(client.forward(&far.at, far.send(text)).unwrap(), Reply::Ok);
        }
        // The relay had executed what it could not answer any more: the client was told that it is not known.
        for text in [&b"one"[..], b"two", b"three", b"four"] {
            assert_eq!(far.recipient.receive(&far.queue), text);
        }
        let statistics = p.relay().proxy_statistics();
        assert_eq!((statistics.commands, statistics.dials), (0, 0));
        assert!(p.stop());
        assert!(far.relay.stop());
    }
}

#[test]
fn a_slow_destination_holds_up_its_own_commands_only() {
    for runtime in RUNTIMES {
        let (p, slow, other) = (proxy(runtime), Far::new(runtime), Far::new(runtime));
        let through = p.server_address();
        let client = AnyClient::connect(runtime, &through);
        assert_eq!(client.forward(&slow.at, slow.send(b"first")).unwrap(), Reply::Ok);
        slow.cable.hold();
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let (through, at, send) = (through.clone(), slow.at.clone(), slow.send(b"waits"));
                thread::spawn(move || AnyClient::connect(runtime, &through).forward(&at, send))
            })
            .collect();
        // The same client, and the others, are served at once by the other destination.
        for _ in 0..10 {
            assert_eq!(client.forward(&other.at, other.send(b"quick")).unwrap(), Reply::Ok);
        }
        slow.cable.release();
        for waiting in waiting {
            assert_eq!(waiting.join().unwrap().unwrap(), Reply::Ok);
        }
        for text in [&b"first"[..], b"waits", b"waits", b"waits"] {
            assert_eq!(slow.recipient.receive(&slow.queue), text);
        }
        // All of them over one connection.
        assert_eq!(slow.cable.connections(), 1);
        assert!(p.stop());
    }
}

/// `smp-server`, which forwards to relays on the loopback interface.
fn folder() -> ServerFolder {
    let folder = ServerFolder::init();
    folder.set(&[("private_destinations", "on")]);
    folder
}

fn at(server: &ServerProcess) -> ServerAddress {
    server.text().parse().unwrap()
}

#[test]
fn a_destination_that_was_killed_comes_back_with_new_session_keys() {
    let (near, far) = (folder(), folder());
    let p = near.start();
    let mut d = far.start();
    let cable = Cable::to(d.address);
    let there = address(d.fingerprint, cable.address);
    let recipient = AnyClient::connect(Runtime::Blocking, &at(&d));
    let queue = recipient.create_queue(SubscriptionMode::CreateOnly);
    drop(recipient);
    let client = AnyClient::connect(Runtime::Blocking, &at(&p));
    let key = Arc::new(AuthSecret::generate_x25519(&mut fresh_entropy().unwrap()));
    let mut sender = SenderQueue { sender: queue.sender.clone(), key: None };
    assert_eq!(client.forward(&there, sender.secure(&FAST, &key)).unwrap(), Reply::Ok);
    sender.key = Some(key);
    for count in 0..3_u8 {
        // Until the proxy has noticed that its connection is dead, it loses what it is given: nobody has executed that.
        let answered = (0..100)
            .map(|_| client.forward(&there, sender.send(false, vec![count].into())))
            .find(|answer| !is_lost(answer));
        assert_eq!(answered.unwrap().unwrap(), Reply::Ok);
        d.kill();
        d = far.start();
        cable.lead_to(d.address);
    }
    let recipient = AnyClient::connect(Runtime::Blocking, &at(&d));
    recipient.subscribe(&queue).unwrap();
    for count in 0..3_u8 {
        assert_eq!(recipient.receive(&queue), [count]);
    }
    p.terminate();
    d.terminate();
}

/// Everybody sends to everybody, through everybody who is neither.
fn all_through_all(addresses: &[ServerAddress]) {
    let homes: Vec<(AnyClient, RecipientQueue)> = addresses
        .iter()
        .map(|address| {
            let client = AnyClient::connect(Runtime::Blocking, address);
            let queue = client.create_queue(SubscriptionMode::Subscribe);
            (client, queue)
        })
        .collect();
    for (proxy, (client, _)) in homes.iter().enumerate() {
        for (destination, (_, queue)) in homes.iter().enumerate().filter(|(other, _)| *other != proxy) {
            let sender = SenderQueue { sender: queue.sender.clone(), key: None };
            let send = sender.send(false, vec![proxy as u8].into());
            assert_eq!(client.forward(&addresses[destination], send).unwrap(), Reply::Ok);
        }
    }
    for (destination, (recipient, queue)) in homes.iter().enumerate() {
        for proxy in (0..homes.len()).filter(|other| *other != destination) {
            assert_eq!(recipient.receive(queue), [proxy as u8]);
        }
    }
}

#[test]
fn four_relays_in_one_process_are_each_others_proxies() {
    let relays: Vec<_> = [0, 1, 0, 1].iter().map(|runtime| proxy(RUNTIMES[*runtime])).collect();
    all_through_all(&relays.iter().map(RelayUnderTest::server_address).collect::<Vec<_>>());
    for relay in &relays {
        assert_eq!(relay.relay().proxy_statistics().destinations, 3);
    }
    for relay in relays {
        assert!(relay.stop());
    }
}

#[test]
fn four_server_processes_are_each_others_proxies() {
    let folders: Vec<_> = (0..4).map(|_| folder()).collect();
    let servers: Vec<_> = folders.iter().map(ServerFolder::start).collect();
    all_through_all(&servers.iter().map(at).collect::<Vec<_>>());
    for server in servers {
        server.terminate();
    }
}
