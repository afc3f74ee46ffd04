//! Commands through a relay to another one, over real sockets and TLS, whatever the three of them run on.
#![allow(missing_docs, clippy::unwrap_used)]

mod any_client;
mod raw_client;
mod relay_under_test;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use smp_proto::client::Reply;
use smp_proto::client::queue::{OwnedBlob, SenderQueue, read_blob};
use smp_proto::session::AuthSecret;
use smp_proto::wire::command::SubscriptionMode;
use smp_proto::wire::error::{BrokerError, CommandError, NetworkError, ProxyError, SmpError};
use smp_runtime_std::certificates::Fingerprint;
use smp_runtime_std::client::{ClientError, fresh_entropy};
use smp_runtime_std::fast_cryptography::FAST;

use any_client::AnyClient;
use relay_under_test::{Options, RelayUnderTest, Runtime, address};

const RUNTIMES: [Runtime; 2] = [Runtime::Smol, Runtime::Blocking];

fn proxy(runtime: Runtime) -> RelayUnderTest {
    RelayUnderTest::start(runtime, Options { private_destinations: true, ..Options::default() })
}

fn destination(runtime: Runtime) -> RelayUnderTest {
    RelayUnderTest::start(runtime, Options::default())
}

fn refused_by_proxy(result: Result<Reply, ClientError>) -> BrokerError {
    match result {
        Err(ClientError::NotForwarded(SmpError::Proxy(ProxyError::Broker(error)))) => error,
        other => panic!("{other:?}"),
    }
}

fn hello(sender: &[u8; 24]) -> smp_proto::client::ClientCommand {
    SenderQueue { sender: (*sender).into(), key: None }.send(false, Bytes::from_static(b"hello"))
}

#[test]
fn every_pairing_of_runtimes_forwards() {
    for of_proxy in RUNTIMES {
        for of_destination in RUNTIMES {
            let (p, d) = (proxy(of_proxy), destination(of_destination));
            for of_client in RUNTIMES {
                let recipient = AnyClient::connect(of_client, &d.server_address());
                let queue = recipient.create_queue(SubscriptionMode::Subscribe);
                let client = AnyClient::connect(of_client, &p.server_address());
                let key = Arc::new(AuthSecret::generate_x25519(&mut fresh_entropy().unwrap()));
                let mut sender = SenderQueue { sender: queue.sender.clone(), key: None };
                let at = d.server_address();
                assert_eq!(client.forward(&at, sender.secure(&FAST, &key)).unwrap(), Reply::Ok);
                sender.key = Some(key);
                for text in [&b"one"[..], b"two", &[7; 16_048]] {
                    let send = sender.send(false, Bytes::copy_from_slice(text));
                    assert_eq!(client.forward(&at, send).unwrap(), Reply::Ok);
                }
                let larger = sender.send(false, vec![7; 16_049].into());
                let found = client.forward(&at, larger);
                assert!(matches!(found, Err(ClientError::Refused(SmpError::LargeMessage))), "{found:?}");
                for text in [&b"one"[..], b"two", &[7; 16_048]] {
                    assert_eq!(recipient.receive(&queue), text);
                }
                let blob = OwnedBlob::generate(&mut fresh_entropy().unwrap());
                recipient.done(blob.write(&FAST, b"a blob", &mut fresh_entropy().unwrap()).unwrap());
                let read = client.forward(&at, read_blob(&FAST, &blob.secret)).unwrap();
                assert!(matches!(read, Reply::Blob(_)));
                let prohibited = client.forward(&at, queue.subscribe());
                assert!(
                    matches!(
                        prohibited,
                        Err(ClientError::Refused(SmpError::Command(CommandError::Prohibited)))
                    ),
                    "{prohibited:?}"
                );
            }
            // Two clients, one connection.
            let statistics = p.relay().proxy_statistics();
            assert_eq!((statistics.destinations, statistics.commands, statistics.dials), (1, 0, 0));
            assert!(p.stop());
            assert!(d.stop());
        }
    }
}

#[test]
fn what_cannot_be_reached_is_told_apart() {
    for runtime in RUNTIMES {
        let (p, d) = (proxy(runtime), destination(runtime));
        let client = AnyClient::connect(runtime, &p.server_address());
        // Another relay answers than the address says.
        let wrong = address(Fingerprint([1; 32]), d.address);
        let error = refused_by_proxy(client.forward(&wrong, hello(&[1; 24])));
        assert_eq!(error, BrokerError::Network(NetworkError::Failed));
        // Nobody listens.
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let dead = address(d.fingerprint, free);
        let error = refused_by_proxy(client.forward(&dead, hello(&[1; 24])));
        assert_eq!(error, BrokerError::Network(NetworkError::Failed));
        // Who listens does not speak TLS, and hangs up in the middle of it.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let strange = address(d.fingerprint, listener.local_addr().unwrap());
        let stranger = thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            socket.write_all(&[0x16, 3, 3, 0x40, 0, 1, 2, 3]).unwrap();
        });
        let error = refused_by_proxy(client.forward(&strange, hello(&[1; 24])));
        assert_eq!(error, BrokerError::Network(NetworkError::Failed));
        stranger.join().unwrap();
        // A name that nobody has; an onion host without a SOCKS proxy.
        let onion = format!("smp://{}@abcdef.onion", d.fingerprint).parse().unwrap();
        assert_eq!(refused_by_proxy(client.forward(&onion, hello(&[1; 24]))), BrokerError::Host);
        // And all the time others are reached.
        let unknown = client.forward(&d.server_address(), hello(&[1; 24]));
        assert!(matches!(unknown, Err(ClientError::Refused(SmpError::Authorization))), "{unknown:?}");
        assert!(p.stop());
    }
}

#[test]
fn private_destinations_are_refused_unless_allowed() {
    for runtime in RUNTIMES {
        let (p, d) = (destination(runtime), destination(runtime));
        let client = AnyClient::connect(runtime, &p.server_address());
        let port = d.address.port();
        for host in ["127.0.0.1", "localhost", "10.0.0.1", "[::1]", "169.254.169.254"] {
            let at = format!("smp://{}@{host}:{port}", d.fingerprint).parse().unwrap();
            assert_eq!(refused_by_proxy(client.forward(&at, hello(&[1; 24]))), BrokerError::Host, "{host}");
        }
        assert_eq!(d.relay().connections(), 0);
    }
}

/// A SOCKS5 proxy for one connection: whatever name is asked for, it leads to `to`. Returns that name.
fn socks_to(to: SocketAddr) -> (SocketAddr, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = thread::spawn(move || {
        let (mut near, _) = listener.accept().unwrap();
        near.read_exact(&mut [0; 3]).unwrap();
        near.write_all(&[5, 0]).unwrap();
        let mut head = [0; 5];
        near.read_exact(&mut head).unwrap();
        assert_eq!(head[..4], [5, 1, 0, 3], "by name");
        let mut name = vec![0; usize::from(head[4]) + 2];
        near.read_exact(&mut name).unwrap();
        near.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
        let mut far = TcpStream::connect(to).unwrap();
        let (mut from_far, mut to_near) = (far.try_clone().unwrap(), near.try_clone().unwrap());
        thread::spawn(move || {
            let _ = std::io::copy(&mut from_far, &mut to_near);
            let _ = to_near.shutdown(Shutdown::Both);
        });
        thread::spawn(move || {
            let _ = std::io::copy(&mut near, &mut far);
            let _ = far.shutdown(Shutdown::Both);
        });
        name.truncate(name.len() - 2);
        String::from_utf8(name).unwrap()
    });
    (address, thread)
}

#[test]
fn onion_hosts_are_reached_through_socks_which_gets_their_name() {
    for runtime in RUNTIMES {
        let d = destination(runtime);
        let (socks, thread) = socks_to(d.address);
        let p = RelayUnderTest::start(runtime, Options { socks_proxy: Some(socks), ..Options::default() });
        let client = AnyClient::connect(runtime, &p.server_address());
        let onion = format!("smp://{}@abcdef.onion", d.fingerprint).parse().unwrap();
        let unknown = client.forward(&onion, hello(&[1; 24]));
        assert!(matches!(unknown, Err(ClientError::Refused(SmpError::Authorization))), "{unknown:?}");
        assert_eq!(thread.join().unwrap(), "abcdef.onion");
        assert!(p.stop());
    }
}

#[test]
fn a_destination_that_stops_takes_its_session_with_it() {
    for runtime in RUNTIMES {
        let (p, d) = (proxy(runtime), destination(runtime));
        let client = AnyClient::connect(runtime, &p.server_address());
        let at = d.server_address();
        let unknown = client.forward(&at, hello(&[1; 24]));
        assert!(matches!(unknown, Err(ClientError::Refused(SmpError::Authorization))), "{unknown:?}");
        // The destination stops: its connection ends, and with it the session.
        assert!(d.stop());
        // Whether the proxy has noticed (then it is asked again, and cannot connect) or not: the same answer.
        let error = refused_by_proxy(client.forward(&at, hello(&[1; 24])));
        assert_eq!(error, BrokerError::Network(NetworkError::Failed));
        let statistics = p.relay().proxy_statistics();
        assert_eq!((statistics.commands, statistics.dials), (0, 0));
        assert!(p.stop());
    }
}

#[test]
fn many_clients_at_once_share_one_connection() {
    for runtime in RUNTIMES {
        let (p, d) = (proxy(runtime), destination(runtime));
        let recipient = AnyClient::connect(runtime, &d.server_address());
        let queue = recipient.create_queue(SubscriptionMode::CreateOnly);
        let (at, through) = (d.server_address(), p.server_address());
        let threads: Vec<_> = (0..8)
            .map(|number: u8| {
                let (at, through) = (at.clone(), through.clone());
                let sender = SenderQueue { sender: queue.sender.clone(), key: None };
                thread::spawn(move || {
                    let client = AnyClient::connect(runtime, &through);
                    for count in 0..10_u8 {
                        let send = sender.send(false, vec![number, count].into());
                        assert_eq!(client.forward(&at, send).unwrap(), Reply::Ok);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        // The recipient's, and the proxy's.
        assert_eq!(d.relay().connections(), 2);
        recipient.subscribe(&queue).unwrap();
        let mut found: Vec<_> = (0..80).map(|_| recipient.receive(&queue)).collect();
        // Of each client in order; each once.
        for number in 0..8 {
            let of_one: Vec<_> = found.iter().filter(|text| text[0] == number).map(|text| text[1]).collect();
            assert_eq!(of_one, (0..10).collect::<Vec<_>>());
        }
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), 80);
        assert!(p.stop());
    }
}
